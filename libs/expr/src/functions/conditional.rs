//! COALESCE, IF, NULLIF: of their arguments only those are evaluated that are needed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{DataType as ArrowType, Field, FieldRef, Schema as ArrowSchema};
use datafusion_common::{Result as DfResult, ScalarValue};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::error::{ExprError, fault};
use crate::operators;
use crate::types::{Ty, arrow_type};

pub(crate) fn coalesce(binder: &mut Binder, args: &[&Expr]) -> Bind {
    let mut values = Vec::with_capacity(args.len());
    for (at, arg) in args.iter().enumerate() {
        values.push(if at == 0 { binder.bind(arg)? } else { binder.conditionally(arg)? });
    }
    let Some(last) = values.pop() else {
        return Err(ExprError::new("wrong_arguments", "COALESCE takes at least one argument")
            .hint("write COALESCE(value, other, ...)"));
    };
    values.push(last);
    // What is never null ends the list.
    let end = values.iter().position(|value| value.ty != Ty::Null && !value.nullable).unwrap_or(values.len() - 1);
    values.truncate(end + 1);
    values.retain(|value| value.ty != Ty::Null);
    if values.is_empty() {
        return Ok(Bound::constant(ScalarValue::Null, Ty::Null, Span::empty()));
    }
    let Ty::Sql(t) = binder.common_of(&values, "COALESCE")? else {
        return Err(ExprError::new("type_mismatch", "COALESCE does not take intervals"));
    };
    let values = values.into_iter().map(|value| binder.coerce(value, &t, "COALESCE")).collect::<Result<Vec<_>, _>>()?;
    if values.len() == 1 || values[0].literal.as_ref().is_some_and(|value| !value.is_null()) {
        return Ok(values[0].clone());
    }
    let nullable = values.iter().all(|value| value.nullable);
    let nodes = values.iter().map(|value| Arc::clone(&value.node)).collect();
    let node = Arc::new(Coalesce { values: nodes, out: arrow_type(&t), nullable });
    binder.finish(node, values, Ty::Sql(t), |_| nullable, false)
}

pub(crate) fn choose(binder: &mut Binder, condition: &Expr, then: &Expr, otherwise: &Expr) -> Bind {
    let condition = binder.bind(condition)?;
    let condition = binder.boolean(condition, "IF")?;
    let (then, otherwise) = (binder.conditionally(then)?, binder.conditionally(otherwise)?);
    binder.choose(vec![condition], vec![then, otherwise], "IF")
}

pub(crate) fn null_if(binder: &mut Binder, value: &Expr, null: &Expr) -> Bind {
    let (value, null) = (binder.bind(value)?, binder.bind(null)?);
    let Ty::Sql(t) = value.ty.clone() else { return Ok(value) };
    let (left, right) = operators::comparable(binder, value.clone(), null, "NULLIF")?;
    if left.ty == Ty::Null || right.ty == Ty::Null {
        return Ok(value);
    }
    let float = matches!(left.ty, Ty::Sql(DataType::Float | DataType::Double));
    let run = kernel(move |args, rows| {
        let equal = operators::compare_arrays(&BinaryOperator::Eq, &args[0], &args[1], float)?;
        let kept = args.get(2).unwrap_or(&args[0]).expanded(rows)?;
        Ok(arrow::compute::nullif(&kept, &equal)?)
    });
    // Where both are compared in the value's own type, it is evaluated once.
    let args = if left.ty == value.ty { vec![left, right] } else { vec![left, right, value] };
    binder.call_with("NULLIF", args, Ty::Sql(t), true, false, run)
}

/// The first value that is not NULL; later ones are computed only for the rows that still need them.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coalesce {
    values: Vec<Arc<dyn PhysicalExpr>>,
    out: ArrowType,
    nullable: bool,
}

impl std::fmt::Display for Coalesce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("COALESCE(")?;
        for (at, value) in self.values.iter().enumerate() {
            write!(f, "{}{value}", if at > 0 { ", " } else { "" })?;
        }
        f.write_str(")")
    }
}

impl PhysicalExpr for Coalesce {
    fn return_field(&self, _: &ArrowSchema) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new("coalesce", self.out.clone(), self.nullable)))
    }

    fn evaluate(&self, batch: &RecordBatch) -> DfResult<ColumnarValue> {
        let rows = batch.num_rows();
        let mut so_far: Option<ArrayRef> = None;
        for value in &self.values {
            let Some(found) = so_far else {
                so_far = Some(value.evaluate(batch)?.into_array(rows)?);
                continue;
            };
            let Some(nulls) = found.logical_nulls().filter(|nulls| nulls.null_count() > 0) else {
                return Ok(ColumnarValue::Array(found));
            };
            let missing = BooleanArray::new(!nulls.inner(), None);
            let next = value.evaluate_selection(batch, &missing)?.into_array(rows)?;
            so_far = Some(zip(&missing, &next, &found)?);
        }
        Ok(ColumnarValue::Array(so_far.ok_or_else(|| fault("COALESCE has values"))?))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        self.values.iter().collect()
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> DfResult<Arc<dyn PhysicalExpr>> {
        Ok(Arc::new(Coalesce { values: children, out: self.out.clone(), nullable: self.nullable }))
    }

    fn fmt_sql(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}
