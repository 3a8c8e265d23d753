//! Binds a parsed expression to columns and types, node by node.
//!
//! Every part becomes a [`Bound`]: a physical expression with its SQL type. Constants are folded here; one that cannot be computed is an error
//! at once, unless it stands where it may never be evaluated (a branch of CASE, the right side of AND and OR).

mod predicates;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType as ArrowType, Schema as ArrowSchema, SchemaRef};
use datafusion_common::{Result as DfResult, ScalarValue};
use datafusion_expr::ColumnarValue;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{Column, Literal};
use datafusion_sql::sqlparser::ast::{
    self, AccessExpr, BinaryOperator, CastKind, CeilFloorKind, Expr, Ident, Spanned, Subscript, UnaryOperator, Value,
};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{DataType, Schema, suggestion};

use crate::cast::{Mode, cast_kernel};
use crate::compiled::{Compiled, Env};
use crate::error::{ExprError, fault, plain_message};
use crate::functions;
use crate::limits::{TREE_DEPTH_MAX, TREE_SIZE_MAX, too_complex};
use crate::operators;
use crate::physical::{Arg, Call, Kernel};
use crate::temporal;
use crate::types::{Ty, casts_implicitly, common_type};

/// A part of an expression, bound.
#[derive(Clone)]
pub(crate) struct Bound {
    pub node: Arc<dyn PhysicalExpr>,
    pub ty: Ty,
    pub nullable: bool,
    /// The value, if it is the same for every row.
    pub literal: Option<ScalarValue>,
    /// Whether there may be rows for which it cannot be computed.
    pub fallible: bool,
    pub volatile: bool,
    pub depth: u32,
    /// Evaluations that one evaluation makes: parts that stand twice count twice.
    pub size: u32,
    pub span: Span,
}

impl Bound {
    pub fn constant(value: ScalarValue, ty: Ty, span: Span) -> Bound {
        Bound {
            node: Arc::new(Literal::new(value.clone())),
            nullable: value.is_null(),
            ty,
            literal: Some(value),
            fallible: false,
            volatile: false,
            depth: 1,
            size: 1,
            span,
        }
    }

    /// The text of a constant STRING that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.literal {
            Some(ScalarValue::Utf8(Some(text))) => Some(text),
            _ => None,
        }
    }

    /// The value of a constant integer that is not null.
    pub fn integer(&self) -> Option<i64> {
        match &self.literal {
            Some(ScalarValue::Int8(Some(value))) => Some(i64::from(*value)),
            Some(ScalarValue::Int16(Some(value))) => Some(i64::from(*value)),
            Some(ScalarValue::Int32(Some(value))) => Some(i64::from(*value)),
            Some(ScalarValue::Int64(Some(value))) => Some(*value),
            _ => None,
        }
    }
}

pub(crate) type Bind = Result<Bound, ExprError>;

/// Levels of recursion over the tree, chains of infix operators not counted.
const RECURSION_MAX: u32 = 100;

pub(crate) struct Binder<'a> {
    input: &'a Schema,
    arrow: SchemaRef,
    pub env: &'a Env,
    columns: BTreeSet<usize>,
    pub processing_time: bool,
    /// How many branches deep we are, of which one may never be evaluated.
    conditional: u32,
    recursion: u32,
    /// One row without columns: what constants are computed on.
    unit: RecordBatch,
}

impl<'a> Binder<'a> {
    pub fn new(input: &'a Schema, arrow: SchemaRef, env: &'a Env) -> Binder<'a> {
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let unit = RecordBatch::try_new_with_options(Arc::new(ArrowSchema::empty()), Vec::new(), &options);
        let unit = unit.expect("a batch of one row without columns is valid");
        Binder {
            input,
            arrow,
            env,
            columns: BTreeSet::new(),
            processing_time: false,
            conditional: 0,
            recursion: 0,
            unit,
        }
    }

    pub fn compile(mut self, expr: &Expr) -> Result<Compiled, ExprError> {
        let bound = self.bind(expr)?;
        let data_type = match &bound.ty {
            Ty::Sql(t) => t.clone(),
            Ty::Null => {
                let error = ExprError::new("untyped_null", "NULL has no type of its own here");
                return Err(error.hint("write CAST(NULL AS STRING), or the type that is meant").at(expr.span()));
            }
            interval => {
                let error = ExprError::new("type_mismatch", format!("a column cannot have the type {interval}"));
                return Err(error
                    .hint("add it to a timestamp, or write TIMESTAMPDIFF(SECOND, a, b) for a number")
                    .at(expr.span()));
            }
        };
        let column = bound.node.downcast_ref::<Column>().map(Column::index);
        let widened_time = self.widened_time(&bound);
        Ok(Compiled {
            widened_time,
            node: bound.node,
            data_type,
            nullable: bound.nullable,
            column,
            columns: self.columns.into_iter().collect(),
            volatile: bound.volatile,
            processing_time: self.processing_time,
            input: self.arrow,
        })
    }

    /// The column of which the expression is a cast to a finer timestamp of the same kind.
    fn widened_time(&self, bound: &Bound) -> Option<usize> {
        let cast = bound.node.downcast_ref::<Call>().filter(|call| call.name == "CAST")?;
        let index = cast.args.first()?.downcast_ref::<Column>()?.index();
        match (&self.input.columns[index].data_type, bound.ty.sql()?) {
            (DataType::Timestamp(from), DataType::Timestamp(to)) if from <= to => Some(index),
            (DataType::TimestampLtz(from), DataType::TimestampLtz(to)) if from <= to => Some(index),
            _ => None,
        }
    }

    pub fn bind(&mut self, expr: &Expr) -> Bind {
        self.recursion += 1;
        if self.recursion > RECURSION_MAX {
            return Err(too_complex(
                format!("the expression nests more than {RECURSION_MAX} levels deep"),
                expr.span(),
            ));
        }
        let bound = match expr {
            Expr::BinaryOp { .. } => self.chain(expr),
            _ => self.single(expr),
        };
        self.recursion -= 1;
        let mut bound = bound.map_err(|error| error.at(expr.span()))?;
        if bound.depth > TREE_DEPTH_MAX {
            return Err(too_complex(
                format!("the expression is more than {TREE_DEPTH_MAX} operations deep"),
                expr.span(),
            ));
        }
        let span = expr.span();
        if span != Span::empty() {
            bound.span = span;
        }
        Ok(bound)
    }

    /// A chain `a op b op c ...` leans to the left as deep as it is long: it is walked in a loop.
    fn chain(&mut self, expr: &Expr) -> Bind {
        let mut steps: Vec<(&BinaryOperator, &Expr, Span)> = Vec::new();
        let mut first = expr;
        while let Expr::BinaryOp { left, op, right } = first {
            steps.push((op, right, right.span()));
            first = left;
        }
        let mut bound = self.bind(first)?;
        for (op, right, right_span) in steps.into_iter().rev() {
            let span = bound.span.union(&right_span);
            bound = self.infix(bound, op, right).map_err(|error| error.at(span))?;
            bound.span = span;
            if bound.depth > TREE_DEPTH_MAX {
                return Err(too_complex(format!("the expression is more than {TREE_DEPTH_MAX} operations deep"), span));
            }
        }
        Ok(bound)
    }

    fn infix(&mut self, left: Bound, op: &BinaryOperator, right: &Expr) -> Bind {
        if let BinaryOperator::And | BinaryOperator::Or = op {
            let right = self.conditionally(right)?;
            return self.logical(*op == BinaryOperator::And, vec![left, right]);
        }
        let right = self.bind(right)?;
        match op {
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo => operators::arithmetic(self, left, op, right),
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => operators::comparison(self, left, op, right),
            BinaryOperator::StringConcat => functions::text::concat(self, vec![left, right]),
            other => {
                let hint = match other {
                    BinaryOperator::PGRegexMatch | BinaryOperator::PGRegexIMatch | BinaryOperator::Regexp => {
                        "write REGEXP(text, pattern)"
                    }
                    BinaryOperator::PGExp | BinaryOperator::BitwiseXor => "write POWER(a, b)",
                    BinaryOperator::Spaceship => "write a IS NOT DISTINCT FROM b",
                    BinaryOperator::DuckIntegerDivide | BinaryOperator::MyIntegerDivide => {
                        "integers divide to integers: write a / b"
                    }
                    _ => "there is + - * / % || = <> < <= > >= AND OR",
                };
                Err(ExprError::new("unknown_operator", format!("there is no operator {other}")).hint(hint))
            }
        }
    }

    /// Binds an expression that may never be evaluated, so that a failing constant is no error yet.
    pub fn conditionally(&mut self, expr: &Expr) -> Bind {
        self.conditional += 1;
        let bound = self.bind(expr);
        self.conditional -= 1;
        bound
    }

    fn single(&mut self, expr: &Expr) -> Bind {
        let span = expr.span();
        match expr {
            Expr::Nested(inner) => self.bind(inner),
            Expr::Identifier(name) => self.column(name),
            Expr::CompoundIdentifier(names) => {
                let [first, fields @ ..] = names.as_slice() else {
                    return Err(ExprError::new("unknown_column", "a name has parts"));
                };
                let mut bound = self.column(first).map_err(|error| match error.code {
                    "unknown_column" => error
                        .hint("names of tables do not stand here; write the column alone, or column.field of a ROW"),
                    _ => error,
                })?;
                for field in fields {
                    bound = self.field(bound, &field.value).map_err(|error| error.at(field.span))?;
                }
                Ok(bound)
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                let mut bound = self.bind(root)?;
                for access in access_chain {
                    bound = match access {
                        AccessExpr::Dot(Expr::Identifier(name)) => self.field(bound, &name.value)?,
                        AccessExpr::Subscript(Subscript::Index { index }) => {
                            let index = self.bind(index)?;
                            functions::nested::element(self, bound, index)?
                        }
                        other => {
                            return Err(ExprError::new("unsupported", format!("{other} is not supported"))
                                .hint("write a.field, a[1] or a['key']"));
                        }
                    };
                }
                Ok(bound)
            }
            Expr::Value(value) => literal(&value.value, span),
            Expr::TypedString(typed) => {
                let data_type = self.data_type(&typed.data_type)?;
                let Some(text) = typed.value.clone().into_string() else {
                    return Err(ExprError::new("syntax_error", "expected a text in quotes"));
                };
                let text = Bound::constant(ScalarValue::Utf8(Some(text)), Ty::Sql(DataType::String), span);
                match &data_type {
                    // A timestamp literal has as many digits as are written.
                    DataType::Timestamp(_) if matches!(typed.data_type, ast::DataType::Timestamp(None, _)) => {
                        let digits = text
                            .text()
                            .and_then(|text| text.rsplit_once('.'))
                            .map_or(0, |(_, fraction)| fraction.trim().len());
                        let precision = match digits {
                            0 => 0,
                            1..=3 => 3,
                            4..=6 => 6,
                            _ => 9,
                        };
                        self.cast(text, &DataType::Timestamp(precision), Mode::Strict)
                    }
                    DataType::Timestamp(_) | DataType::TimestampLtz(_) | DataType::Date | DataType::Time => {
                        self.cast(text, &data_type, Mode::Strict)
                    }
                    other => Err(ExprError::new("unsupported", format!("there is no literal {other} '...'"))
                        .hint("write CAST('...' AS type)")),
                }
            }
            Expr::Interval(interval) => temporal::interval(self, interval),
            Expr::UnaryOp { op, expr } => self.prefix(op, expr),
            Expr::IsNull(inner) => self.is_null(inner, false),
            Expr::IsNotNull(inner) => self.is_null(inner, true),
            Expr::IsTrue(inner) => self.is_truth(inner, Some(true), false),
            Expr::IsNotTrue(inner) => self.is_truth(inner, Some(true), true),
            Expr::IsFalse(inner) => self.is_truth(inner, Some(false), false),
            Expr::IsNotFalse(inner) => self.is_truth(inner, Some(false), true),
            Expr::IsUnknown(inner) => self.is_truth(inner, None, false),
            Expr::IsNotUnknown(inner) => self.is_truth(inner, None, true),
            Expr::IsDistinctFrom(left, right) => self.distinct(left, right, false),
            Expr::IsNotDistinctFrom(left, right) => self.distinct(left, right, true),
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::Between { expr, negated, low, high } => {
                let (value, low, high) = (self.bind(expr)?, self.bind(low)?, self.bind(high)?);
                let from = operators::comparison(self, value.clone(), &BinaryOperator::GtEq, low)?;
                let to = operators::comparison(self, value, &BinaryOperator::LtEq, high)?;
                let between = self.logical(true, vec![from, to])?;
                if *negated { self.not(between) } else { Ok(between) }
            }
            Expr::Like { negated, any: false, expr, pattern, escape_char } => {
                let (text, pattern) = (self.bind(expr)?, self.bind(pattern)?);
                functions::like::like(self, text, pattern, escape_char.as_ref(), false, *negated)
            }
            Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                let (text, pattern) = (self.bind(expr)?, self.bind(pattern)?);
                functions::like::like(self, text, pattern, escape_char.as_ref(), true, *negated)
            }
            Expr::Cast { kind, expr, data_type, format: None, .. } => {
                let to = self.data_type(data_type)?;
                let bound = self.bind(expr)?;
                let mode = match kind {
                    CastKind::TryCast | CastKind::SafeCast => Mode::Try,
                    CastKind::Cast | CastKind::DoubleColon => Mode::Strict,
                };
                self.cast(bound, &to, mode)
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            Expr::Extract { field, expr, .. } => {
                let bound = self.bind(expr)?;
                temporal::extract(self, &field.to_string(), bound)
            }
            Expr::Floor { expr, field } => self.round_to("FLOOR", expr, field),
            Expr::Ceil { expr, field } => self.round_to("CEIL", expr, field),
            Expr::Position { expr, r#in } => {
                let args = vec![self.bind(expr)?, self.bind(r#in)?];
                functions::call(self, "POSITION", args, span)
            }
            Expr::Substring { substring_from: None, substring_for: None, .. } => {
                Err(functions::wrong_number("SUBSTRING", 1, "SUBSTRING(text, from) or SUBSTRING(text, from, length)"))
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let mut args = vec![self.bind(expr)?];
                match substring_from {
                    Some(from) => args.push(self.bind(from)?),
                    None => args.push(Bound::constant(ScalarValue::Int32(Some(1)), Ty::Sql(DataType::Int), span)),
                }
                if let Some(length) = substring_for {
                    args.push(self.bind(length)?);
                }
                functions::call(self, "SUBSTRING", args, span)
            }
            Expr::Trim { expr, trim_where, trim_what, trim_characters } => {
                let name = match trim_where {
                    None | Some(ast::TrimWhereField::Both) => "TRIM",
                    Some(ast::TrimWhereField::Leading) => "LTRIM",
                    Some(ast::TrimWhereField::Trailing) => "RTRIM",
                };
                let mut args = vec![self.bind(expr)?];
                for what in trim_what.as_deref().into_iter().chain(trim_characters.iter().flatten()) {
                    args.push(self.bind(what)?);
                }
                functions::call(self, name, args, span)
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => {
                let mut args = vec![self.bind(expr)?, self.bind(overlay_what)?, self.bind(overlay_from)?];
                if let Some(length) = overlay_for {
                    args.push(self.bind(length)?);
                }
                functions::call(self, "OVERLAY", args, span)
            }
            Expr::Function(function) => self.function(function),
            Expr::Array(array) => {
                let items = array.elem.iter().map(|item| self.bind(item)).collect::<Result<Vec<_>, _>>()?;
                functions::nested::array(self, items)
            }
            Expr::Tuple(items) => {
                let items = items.iter().map(|item| self.bind(item)).collect::<Result<Vec<_>, _>>()?;
                functions::nested::row(self, items)
            }
            Expr::RLike { .. } | Expr::SimilarTo { .. } => {
                Err(ExprError::new("unsupported", "SIMILAR TO and RLIKE are not supported")
                    .hint("write REGEXP(text, 'pattern')"))
            }
            Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => {
                Err(ExprError::new("unsupported", "a subquery cannot stand in an expression")
                    .hint("write a join, or a list of values"))
            }
            Expr::AtTimeZone { .. } => {
                Err(ExprError::new("unsupported", "AT TIME ZONE is not supported; the session's time zone is UTC")
                    .hint("add or subtract an INTERVAL"))
            }
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                Err(ExprError::new("syntax_error", "* does not stand for a value here"))
            }
            other => Err(ExprError::new("unsupported", format!("{other} is not supported"))),
        }
    }

    fn column(&mut self, name: &Ident) -> Bind {
        let exact = self.input.index_of(&name.value);
        let index = match exact {
            Some(index) => index,
            None => {
                let lower = name.value.to_lowercase();
                let mut close =
                    self.input.columns.iter().enumerate().filter(|(_, column)| column.name.to_lowercase() == lower);
                match (close.next(), close.next()) {
                    (Some((index, _)), None) => index,
                    (Some((_, a)), Some((_, b))) => {
                        let error = ExprError::new(
                            "ambiguous_column",
                            format!("{} may be the column {} or {}", name.value, a.name, b.name),
                        );
                        return Err(error.hint("write it with its exact letters").at(name.span));
                    }
                    _ => {
                        if let Some(bound) = functions::without_parentheses(self, &name.value, name.span) {
                            return bound;
                        }
                        let error = match name.quote_style {
                            Some('"') => {
                                ExprError::new("unknown_column", format!("there is no column {:?}", name.value))
                            }
                            _ => ExprError::new("unknown_column", format!("there is no column {}", name.value)),
                        };
                        let names: Vec<&str> = self.input.names().collect();
                        return Err(error.hint(suggestion(&name.value, names.iter().copied())).at(name.span));
                    }
                }
            }
        };
        self.columns.insert(index);
        let column = &self.input.columns[index];
        Ok(Bound {
            node: Arc::new(Column::new(&column.name, index)),
            ty: Ty::Sql(column.data_type.clone()),
            nullable: column.nullable,
            literal: None,
            fallible: false,
            volatile: false,
            depth: 1,
            size: 1,
            span: name.span,
        })
    }

    fn field(&mut self, row: Bound, name: &str) -> Bind {
        functions::nested::field(self, row, name)
    }

    fn prefix(&mut self, op: &UnaryOperator, expr: &Expr) -> Bind {
        // The smallest BIGINT has no positive counterpart, so its sign belongs to the literal.
        if let (UnaryOperator::Minus, Expr::Value(value)) = (op, expr)
            && let Value::Number(digits, _) = &value.value
        {
            return literal(&Value::Number(format!("-{digits}"), false), value.span);
        }
        let bound = self.bind(expr)?;
        match op {
            UnaryOperator::Not => self.not(bound),
            UnaryOperator::Plus => match &bound.ty {
                Ty::Sql(t) if t.is_numeric() => Ok(bound),
                other => Err(ExprError::new("type_mismatch", format!("+ stands before a number, not {other}"))),
            },
            UnaryOperator::Minus => operators::negate(self, bound),
            other => Err(ExprError::new("unknown_operator", format!("there is no operator {other}"))),
        }
    }

    /// The type that all take.
    pub fn common_of(&mut self, parts: &[Bound], what: &str) -> Result<Ty, ExprError> {
        let mut ty = Ty::Null;
        for part in parts {
            ty = match (&ty, &part.ty) {
                (_, Ty::Null) => ty,
                (Ty::Null, other) => other.clone(),
                (Ty::Sql(a), Ty::Sql(b)) => match common_type(a, b) {
                    Some(common) => Ty::Sql(common),
                    None => {
                        let error = ExprError::new("type_mismatch", format!("{what} cannot give both {a} and {b}"))
                            .at(part.span);
                        return Err(error.hint(format!("write CAST(... AS {a}) around one of them")));
                    }
                },
                (a, b) if *a == *b => ty,
                (a, b) => {
                    return Err(
                        ExprError::new("type_mismatch", format!("{what} cannot give both {a} and {b}")).at(part.span)
                    );
                }
            };
        }
        Ok(ty)
    }

    fn round_to(&mut self, name: &'static str, expr: &Expr, field: &CeilFloorKind) -> Bind {
        let bound = self.bind(expr)?;
        let span = bound.span;
        match field {
            CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) => {
                functions::call(self, name, vec![bound], span)
            }
            CeilFloorKind::DateTimeField(unit) => temporal::round(self, bound, &unit.to_string(), name == "CEIL"),
            CeilFloorKind::Scale(_) => {
                Err(ExprError::new("unsupported", format!("{name} takes one argument, or {name}(timestamp TO unit)"))
                    .hint("write ROUND(x, digits)"))
            }
        }
    }

    fn function(&mut self, function: &ast::Function) -> Bind {
        let span = Spanned::span(function);
        let name = match function.name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(name)] => name,
            _ => return Err(ExprError::new("unknown_function", format!("there is no function {}", function.name))),
        };
        if function.over.is_some() {
            return Err(ExprError::new("unsupported", "OVER is not supported"));
        }
        if let Some(error) = functions::misplaced_aggregate(&name.value) {
            return Err(error);
        }
        if function.filter.is_some() || function.null_treatment.is_some() || !function.within_group.is_empty() {
            return Err(ExprError::new(
                "unsupported",
                format!("{} takes no FILTER, WITHIN GROUP or NULLS here", function.name),
            ));
        }
        let list = match &function.args {
            ast::FunctionArguments::None => return functions::named(self, name, &[], span),
            ast::FunctionArguments::List(list) => list,
            ast::FunctionArguments::Subquery(_) => {
                return Err(ExprError::new("unsupported", "a subquery cannot stand in an expression"));
            }
        };
        if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
            return Err(ExprError::new("unsupported", format!("{} takes plain arguments here", function.name)));
        }
        let mut args: Vec<&Expr> = Vec::with_capacity(list.args.len());
        for arg in &list.args {
            match arg {
                ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => args.push(expr),
                other => {
                    let error = ExprError::new(
                        "unsupported",
                        format!("{}: {other} is not an argument it can take", function.name),
                    );
                    return Err(functions::unknown_name(&name.value).unwrap_or(error));
                }
            }
        }
        functions::named(self, name, &args, span)
    }

    fn data_type(&self, data_type: &ast::DataType) -> Result<DataType, ExprError> {
        let text = data_type.to_string();
        text.parse().map_err(|error: graph::TypeError| ExprError::new("unknown_type", error.to_string()))
    }

    /// A typed NULL.
    pub fn null(&mut self, t: &DataType) -> Bind {
        let value = ScalarValue::try_new_null(&crate::types::arrow_type(t))
            .map_err(|error| ExprError::new("internal", plain_message(&error)))?;
        Ok(Bound::constant(value, Ty::Sql(t.clone()), Span::empty()))
    }

    /// The value as the type that is wanted, where no CAST needs to be written.
    pub fn coerce(&mut self, bound: Bound, to: &DataType, what: &str) -> Bind {
        let span = bound.span;
        match &bound.ty {
            Ty::Sql(t) if t == to => Ok(bound),
            Ty::Null => {
                let mut null = self.null(to)?;
                null.span = span;
                Ok(null)
            }
            Ty::Sql(t) if casts_implicitly(t, to) => self.cast(bound, to, Mode::Strict),
            // A text literal stands for a time where a time is wanted.
            Ty::Sql(DataType::String)
                if bound.literal.is_some() && (to.is_timestamp() || matches!(to, DataType::Date | DataType::Time)) =>
            {
                self.cast(bound, to, Mode::Strict)
            }
            other => {
                let error = ExprError::new("type_mismatch", format!("{what} wants {to}, not {other}")).at(span);
                Err(error.hint(format!("write CAST(... AS {to})")))
            }
        }
    }

    pub fn cast(&mut self, bound: Bound, to: &DataType, mode: Mode) -> Bind {
        let span = bound.span;
        let from = match &bound.ty {
            Ty::Sql(from) => from.clone(),
            Ty::Null => {
                let mut null = self.null(to)?;
                null.span = span;
                return Ok(null);
            }
            interval => {
                return Err(ExprError::new("type_mismatch", format!("{interval} cannot be cast to {to}")).at(span));
            }
        };
        if from == *to {
            return Ok(bound);
        }
        let cast = cast_kernel(&from, to, mode, self.env.overflow_wrap).map_err(|error| error.at(span))?;
        let nullable = bound.nullable || cast.may_null;
        let mut result =
            self.call_with("CAST", vec![bound], Ty::Sql(to.clone()), nullable, cast.fallible, cast.kernel)?;
        result.span = span;
        Ok(result)
    }

    /// A call of a kernel, computed now if every argument is constant.
    pub fn call_with(
        &mut self,
        name: &'static str,
        args: Vec<Bound>,
        ty: Ty,
        nullable: bool,
        fallible: bool,
        kernel: Kernel,
    ) -> Bind {
        let nodes = args.iter().map(|arg| Arc::clone(&arg.node)).collect();
        let node = Call::node(name, nodes, ty.arrow(), nullable, kernel);
        self.finish(node, args, ty, |_| nullable, fallible)
    }

    /// Completes a node over its parts: what it inherits from them, and its value if it is constant.
    pub fn finish(
        &mut self,
        node: Arc<dyn PhysicalExpr>,
        parts: Vec<Bound>,
        ty: Ty,
        nullable: impl Fn(bool) -> bool,
        fallible: bool,
    ) -> Bind {
        let span = parts
            .iter()
            .map(|part| part.span)
            .filter(|span| *span != Span::empty())
            .reduce(|a, b| a.union(&b))
            .unwrap_or(Span::empty());
        let mut bound = Bound {
            nullable: nullable(parts.iter().any(|part| part.nullable)),
            fallible: fallible || parts.iter().any(|part| part.fallible),
            volatile: parts.iter().any(|part| part.volatile),
            depth: parts.iter().map(|part| part.depth).max().unwrap_or(0) + 1,
            size: parts.iter().fold(1, |sum: u32, part| sum.saturating_add(part.size)),
            literal: None,
            node,
            ty,
            span,
        };
        if bound.size > TREE_SIZE_MAX {
            return Err(too_complex(
                format!("the expression makes more than {TREE_SIZE_MAX} operations per row"),
                span,
            ));
        }
        if !bound.volatile && parts.iter().all(|part| part.literal.is_some()) {
            match self.constant(&bound.node) {
                Ok(value) => {
                    let mut folded = Bound::constant(value, bound.ty, span);
                    folded.nullable = folded.literal.as_ref().is_some_and(ScalarValue::is_null);
                    return Ok(folded);
                }
                Err(_) if self.conditional > 0 => bound.fallible = true,
                Err(error) => {
                    let message = plain_message(&error);
                    let code = if message == "division by zero" { "division_by_zero" } else { "constant_fails" };
                    return Err(
                        ExprError::new(code, format!("the constant expression cannot be computed: {message}")).at(span)
                    );
                }
            }
        }
        Ok(bound)
    }

    fn constant(&self, node: &Arc<dyn PhysicalExpr>) -> DfResult<ScalarValue> {
        match node.evaluate(&self.unit)? {
            ColumnarValue::Scalar(value) => Ok(value),
            ColumnarValue::Array(array) if array.len() == 1 => ScalarValue::try_from_array(&array, 0),
            ColumnarValue::Array(_) => Err(fault("a constant gave more than one value")),
        }
    }
}

/// Makes a kernel of a closure.
pub(crate) fn kernel(run: impl Fn(&[Arg], usize) -> DfResult<ArrayRef> + Send + Sync + 'static) -> Kernel {
    Arc::new(run)
}

fn literal(value: &Value, span: Span) -> Bind {
    Ok(match value {
        Value::Null => Bound::constant(ScalarValue::Null, Ty::Null, span),
        Value::Boolean(value) => Bound::constant(ScalarValue::Boolean(Some(*value)), Ty::Sql(DataType::Boolean), span),
        Value::SingleQuotedString(text) | Value::UnicodeStringLiteral(text) | Value::NationalStringLiteral(text) => {
            Bound::constant(ScalarValue::Utf8(Some(text.clone())), Ty::Sql(DataType::String), span)
        }
        Value::HexStringLiteral(digits) => {
            let bytes = functions::hash::unhex(digits)
                .ok_or_else(|| ExprError::new("syntax_error", format!("X'{digits}' has an odd or wrong digit")))?;
            Bound::constant(ScalarValue::Binary(Some(bytes)), Ty::Sql(DataType::Bytes), span)
        }
        Value::Number(digits, _) => number(digits, span)?,
        Value::DoubleQuotedString(text) => {
            let error = ExprError::new("syntax_error", format!("double quotes mean nothing here: \"{text}\""));
            return Err(error.hint(format!("write '{text}' for a text, `{text}` for a column")).at(span));
        }
        other => return Err(ExprError::new("syntax_error", format!("{other} is not a literal here")).at(span)),
    })
}

/// A number's type is that of its digits: INT, BIGINT, DECIMAL; with an exponent DOUBLE.
fn number(digits: &str, span: Span) -> Bind {
    if digits.contains(['e', 'E']) {
        let value: f64 =
            digits.parse().map_err(|_| ExprError::new("syntax_error", format!("{digits} is not a number")).at(span))?;
        if value.is_infinite() {
            return Err(ExprError::new("number_too_large", format!("{digits} does not fit DOUBLE")).at(span));
        }
        return Ok(Bound::constant(ScalarValue::Float64(Some(value)), Ty::Sql(DataType::Double), span));
    }
    let too_large = || {
        ExprError::new("number_too_large", format!("{digits} has more than 38 digits"))
            .hint("write it with an exponent for a DOUBLE")
            .at(span)
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if fraction.is_empty() {
        if let Ok(value) = whole.parse::<i32>() {
            return Ok(Bound::constant(ScalarValue::Int32(Some(value)), Ty::Sql(DataType::Int), span));
        }
        if let Ok(value) = whole.parse::<i64>() {
            return Ok(Bound::constant(ScalarValue::Int64(Some(value)), Ty::Sql(DataType::BigInt), span));
        }
    }
    let negative = whole.starts_with('-');
    let unscaled = format!("{}{fraction}", whole.trim_start_matches('-'));
    let significant = unscaled.trim_start_matches('0');
    let precision = significant.len().max(fraction.len()).max(1);
    if precision > 38 {
        return Err(too_large());
    }
    let value: i128 = if significant.is_empty() { 0 } else { significant.parse().map_err(|_| too_large())? };
    let (precision, scale) = (precision as u8, fraction.len() as u8);
    let value = ScalarValue::Decimal128(Some(if negative { -value } else { value }), precision, scale as i8);
    debug_assert_eq!(value.data_type(), ArrowType::Decimal128(precision, scale as i8));
    Ok(Bound::constant(value, Ty::Sql(DataType::Decimal(precision, scale)), span))
}
