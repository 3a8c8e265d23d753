//! The parts of a predicate that say something of one column alone, for readers that can skip what cannot match.

use datafusion_sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

use crate::compiled::parse;

/// Conditions `column op literal` (op one of `=`, `<`, `<=`, `>`, `>=`) that hold wherever the predicate holds; there may be fewer than there are.
/// The literal is its bare text: `10`, `-1.5`, `abc`, `2001-01-31 00:00:00`.
pub fn simple_conditions(predicate: &str) -> Vec<(String, String, String)> {
    let mut conditions = Vec::new();
    let mut pending = Vec::from_iter(parse(predicate));
    while let Some(expr) = pending.pop() {
        match expr {
            Expr::Nested(inner) => pending.push(*inner),
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => pending.extend([*right, *left]),
            Expr::BinaryOp { left, op, right } => conditions.extend(condition(&left, &op, &right)),
            Expr::Between { expr, negated: false, low, high } => {
                conditions.extend(condition(&expr, &BinaryOperator::GtEq, &low));
                conditions.extend(condition(&expr, &BinaryOperator::LtEq, &high));
            }
            _ => {}
        }
    }
    conditions
}

fn condition(left: &Expr, op: &BinaryOperator, right: &Expr) -> Option<(String, String, String)> {
    let (op, mirrored) = match op {
        BinaryOperator::Eq => ("=", "="),
        BinaryOperator::Lt => ("<", ">"),
        BinaryOperator::LtEq => ("<=", ">="),
        BinaryOperator::Gt => (">", "<"),
        BinaryOperator::GtEq => (">=", "<="),
        _ => return None,
    };
    match (left, right) {
        (Expr::Identifier(name), literal) => Some((name.value.clone(), op.to_string(), text(literal)?)),
        (literal, Expr::Identifier(name)) => Some((name.value.clone(), mirrored.to_string(), text(literal)?)),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) => text(inner),
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
            Expr::Value(value) => matches!(value.value, Value::Number(..)).then(|| format!("-{}", value.value)),
            _ => None,
        },
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => Some(number.to_string()),
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        Expr::TypedString(typed) => match &typed.value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conjuncts_on_one_column_are_found_and_others_are_not() {
        let show = |predicate: &str| {
            simple_conditions(predicate).iter().map(|(c, o, l)| format!("{c} {o} {l}")).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(show("a > 10 AND (5 >= b) AND c = 'x y' AND d + 1 > 2"), "a > 10, b <= 5, c = x y");
        assert_eq!(show("t BETWEEN TIMESTAMP '2001-01-01 00:00:00' AND -3"), "t >= 2001-01-01 00:00:00, t <= -3");
        assert_eq!(show("a > 10 OR b > 1"), "");
        assert_eq!(show("NOT (a > 10)"), "");
        assert_eq!(show("a > "), "");
    }
}
