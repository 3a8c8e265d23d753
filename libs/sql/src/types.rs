//! Casts that a query need not write: into a table's columns, and between the arms of a UNION.

use datafusion_sql::sqlparser::ast::Expr;
use datafusion_sql::sqlparser::tokenizer::{Span, Tokenizer};
use graph::{Column, DataType};

use crate::dialect::SqlDialect;
use crate::relation::Output;

/// The output as a column of a table, cast where `expr` allows that without a written CAST; else what is wrong, and what to write.
pub fn implicit_cast(output: &Output, target: &Column) -> Result<Output, (String, String)> {
    let named =
        |expr: Expr, data_type: DataType| Output { name: target.name.clone(), expr, data_type, ..output.clone() };
    if output.data_type == target.data_type {
        return Ok(named(output.expr.clone(), output.data_type.clone()));
    }
    if !expr::casts_implicitly(&output.data_type, &target.data_type) {
        let message =
            format!("the column {} is {}, and the query gives {}", target.name, target.data_type, output.data_type);
        return Err((message, format!("write CAST(... AS {})", target.data_type)));
    }
    match cast(&output.expr, &target.data_type) {
        Some(expr) => Ok(named(expr, target.data_type.clone())),
        None => Err((format!("cannot cast {} to {}", output.data_type, target.data_type), "write the cast out".into())),
    }
}

/// The type that takes both, of two columns of a UNION.
pub fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match (a, b) {
        _ if a == b => a.clone(),
        (Decimal(p, s), Decimal(q, t)) => {
            let (scale, whole) = (*s.max(t), (p - s).max(q - t));
            Decimal((whole + scale).min(38), scale)
        }
        (Decimal(p, s), integer) | (integer, Decimal(p, s)) if integer.is_integer() => {
            let digits = match integer {
                TinyInt => 3,
                SmallInt => 5,
                Int => 10,
                _ => 19,
            };
            Decimal(((p - s).max(digits) + s).min(38), *s)
        }
        (Timestamp(p), Timestamp(q)) => Timestamp(*p.max(q)),
        (TimestampLtz(p), TimestampLtz(q)) => TimestampLtz(*p.max(q)),
        (Float | Double, _) | (_, Float | Double) if a.is_numeric() && b.is_numeric() => Double,
        (narrow, wide) | (wide, narrow) if width(narrow).is_some() && width(narrow) < width(wide) => wide.clone(),
        (Date, time) | (time, Date) if time.is_timestamp() => time.clone(),
        _ => return None,
    })
}

/// Bytes of an integer.
fn width(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::TinyInt => Some(1),
        DataType::SmallInt => Some(2),
        DataType::Int => Some(4),
        DataType::BigInt => Some(8),
        _ => None,
    }
}

/// `CAST(expr AS type)` in the words of the expression language.
pub fn cast(expr: &Expr, to: &DataType) -> Option<Expr> {
    parsed(&expr::cast(&expr.to_string(), to))
}

/// A NULL of a column's type: where an INSERT does not name the column.
pub fn null(column: &Column, span: Span) -> Output {
    let expr = parsed(&expr::cast("NULL", &column.data_type)).expect("a cast of NULL is an expression");
    Output { name: column.name.clone(), expr, data_type: column.data_type.clone(), nullable: true, span }
}

fn parsed(text: &str) -> Option<Expr> {
    let tokens = Tokenizer::new(&SqlDialect, text).tokenize().ok()?;
    datafusion_sql::sqlparser::parser::Parser::new(&SqlDialect).with_tokens(tokens).parse_expr().ok()
}
