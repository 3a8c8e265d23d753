//! COALESCE, IF, NULLIF: of their arguments only those are evaluated that are needed.

use std::sync::Arc;

use datafusion_physical_expr::expressions::IsNotNullExpr;
use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr};
use graph::DataType;

use crate::bind::{Bind, Binder};
use crate::error::ExprError;
use crate::operators;
use crate::types::Ty;

pub(crate) fn coalesce(binder: &mut Binder, args: &[&Expr]) -> Bind {
    let mut values = Vec::with_capacity(args.len());
    for (at, arg) in args.iter().enumerate() {
        values.push(if at == 0 { binder.bind(arg)? } else { binder.conditionally(arg)? });
    }
    let Some(last) = values.pop() else {
        return Err(ExprError::new("wrong_arguments", "COALESCE takes at least one argument")
            .hint("write COALESCE(value, other, ...)"));
    };
    // What is never null ends the list.
    let mut whens = Vec::with_capacity(values.len());
    let mut results = Vec::with_capacity(values.len() + 1);
    for value in values {
        if value.ty == Ty::Null {
            continue;
        }
        if !value.nullable {
            results.push(value);
            return binder.choose(whens, results, "COALESCE");
        }
        let present = Arc::new(IsNotNullExpr::new(Arc::clone(&value.node)));
        whens.push(binder.finish(present, vec![value.clone()], Ty::Sql(DataType::Boolean), |_| false, false)?);
        results.push(value);
    }
    let never_null = !last.nullable;
    results.push(last);
    if whens.is_empty() {
        return Ok(results.remove(0));
    }
    let mut chosen = binder.choose(whens, results, "COALESCE")?;
    chosen.nullable = chosen.nullable && !never_null;
    Ok(chosen)
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
    let equal = operators::comparison(binder, value.clone(), &BinaryOperator::Eq, null)?;
    let nothing = binder.null(&t)?;
    binder.choose(vec![equal], vec![nothing, value], "NULLIF")
}
