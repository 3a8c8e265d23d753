//! All errors of an expression that cannot be compiled.
//!
//! Binding stops at its first error, which never follows from another: the parts below it were bound. Its siblings were not looked at, so
//! the operands of every node are bound by themselves; an error that only comes from standing alone is left out.

use datafusion_sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments};
use graph::Schema;

use crate::bind::Binder;
use crate::compiled::Env;
use crate::error::ExprError;
use crate::types::arrow_schema;

/// More errors of one expression help nobody.
const ERRORS_MAX: usize = 20;

/// `first`, and the errors of the parts that it kept from being looked at; in the order of the text where places are known.
pub(crate) fn all(first: ExprError, expr: &Expr, input: &Schema, env: &Env) -> Vec<ExprError> {
    let mut errors = vec![first];
    if errors[0].code != "query_too_complex" {
        parts(expr, &mut |part| collect(part, input, env, &mut errors));
    }
    errors.sort_by_key(|error| error.span);
    errors
}

fn collect(expr: &Expr, input: &Schema, env: &Env, errors: &mut Vec<ExprError>) {
    let Err(error) = Binder::new(input, arrow_schema(input), env).bind(expr) else { return };
    if errors.len() >= ERRORS_MAX || error.code == "query_too_complex" {
        return;
    }
    // A constant may stand in a branch that is never computed.
    let conditional = matches!(error.code, "constant_fails" | "division_by_zero");
    if !conditional && !errors.contains(&error) {
        errors.push(error);
    }
    parts(expr, &mut |part| collect(part, input, env, errors));
}

/// Functions whose first argument is a unit of time, not a value.
const UNITS_FIRST: &[&str] = &["TIMESTAMPDIFF", "TIMESTAMPADD"];

/// The operands of a node that are values by themselves. A chain `a + b + c` leans to the left: all its operands are given, in a loop.
fn parts(expr: &Expr, each: &mut dyn FnMut(&Expr)) {
    match expr {
        Expr::BinaryOp { .. } => {
            let (mut rights, mut left) = (Vec::new(), expr);
            while let Expr::BinaryOp { left: inner, right, .. } = left {
                rights.push(right);
                left = inner;
            }
            each(left);
            rights.into_iter().rev().for_each(|right| each(right));
        }
        Expr::Nested(inner)
        | Expr::UnaryOp { expr: inner, .. }
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotUnknown(inner)
        | Expr::Cast { expr: inner, .. }
        | Expr::Extract { expr: inner, .. }
        | Expr::Floor { expr: inner, .. }
        | Expr::Ceil { expr: inner, .. } => each(inner),
        Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right)
        | Expr::Like { expr: left, pattern: right, .. }
        | Expr::ILike { expr: left, pattern: right, .. }
        | Expr::Position { expr: left, r#in: right } => {
            each(left);
            each(right);
        }
        Expr::Between { expr, low, high, .. } => [expr, low, high].into_iter().for_each(|part| each(part)),
        Expr::InList { expr, list, .. } => {
            each(expr);
            list.iter().for_each(each);
        }
        Expr::Case { operand, conditions, else_result, .. } => {
            operand.iter().for_each(|part| each(part));
            for branch in conditions {
                each(&branch.condition);
                each(&branch.result);
            }
            else_result.iter().for_each(|part| each(part));
        }
        Expr::Substring { expr, substring_from, substring_for, .. } => {
            each(expr);
            substring_from.iter().chain(substring_for).for_each(|part| each(part));
        }
        Expr::Trim { expr, trim_what, .. } => {
            trim_what.iter().for_each(|part| each(part));
            each(expr);
        }
        Expr::Array(array) => array.elem.iter().for_each(each),
        Expr::Tuple(items) => items.iter().for_each(each),
        Expr::Function(function) => {
            let FunctionArguments::List(list) = &function.args else { return };
            let is_unit_first = UNITS_FIRST.contains(&function.name.to_string().to_uppercase().as_str());
            for arg in list.args.iter().skip(usize::from(is_unit_first)) {
                if let FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)) = arg {
                    each(arg);
                }
            }
        }
        _ => {}
    }
}
