//! LIKE and ILIKE. There is no escape character unless ESCAPE names one.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::compute::kernels::comparison;
use datafusion_common::{Result, ScalarValue};
use datafusion_sql::sqlparser::ast::ValueWithSpan;
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::error::{ExprError, fault};
use crate::physical::Arg;
use crate::types::Ty;

pub(crate) fn like(
    binder: &mut Binder,
    text: Bound,
    pattern: Bound,
    escape: Option<&ValueWithSpan>,
    ignore_case: bool,
    negated: bool,
) -> Bind {
    let text = binder.coerce(text, &DataType::String, "LIKE")?;
    let pattern = binder.coerce(pattern, &DataType::String, "LIKE")?;
    let escape = match escape.map(|escape| (escape.value.clone().into_string(), escape.span)) {
        None => None,
        Some((Some(text), span)) => {
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(escape), None) => Some(escape),
                _ => return Err(ExprError::new("invalid_pattern", "ESCAPE takes one character").at(span)),
            }
        }
        Some((None, span)) => {
            return Err(ExprError::new("invalid_pattern", "ESCAPE takes a text of one character").at(span));
        }
    };
    let nullable = text.nullable || pattern.nullable;
    let mut fallible = escape.is_some();
    // A constant pattern is rewritten once, for Arrow, whose escape character is always the backslash.
    let (pattern, rewritten) = match pattern.text() {
        Some(constant) => {
            let arrow = for_arrow(constant, escape).ok_or_else(|| invalid(constant).at(pattern.span))?;
            fallible = false;
            (Bound::constant(ScalarValue::Utf8(Some(arrow)), Ty::Sql(DataType::String), pattern.span), true)
        }
        None => (pattern, false),
    };
    let run = kernel(move |args, _| {
        let rewrite;
        let pattern = if rewritten {
            &args[1]
        } else {
            let patterns = args[1].array.as_string::<i32>();
            let arrow: Result<StringArray> = patterns
                .iter()
                .map(|pattern| {
                    pattern
                        .map(|pattern| for_arrow(pattern, escape).ok_or_else(|| fault(invalid(pattern).message)))
                        .transpose()
                })
                .collect();
            rewrite = Arg { array: Arc::new(arrow?), constant: args[1].constant };
            &rewrite
        };
        let matches = match (ignore_case, negated) {
            (false, false) => comparison::like(&args[0], pattern)?,
            (false, true) => comparison::nlike(&args[0], pattern)?,
            (true, false) => comparison::ilike(&args[0], pattern)?,
            (true, true) => comparison::nilike(&args[0], pattern)?,
        };
        Ok(Arc::new(matches) as ArrayRef)
    });
    binder.call_with("LIKE", vec![text, pattern], Ty::Sql(DataType::Boolean), nullable, fallible, run)
}

fn invalid(pattern: &str) -> ExprError {
    ExprError::new(
        "invalid_pattern",
        format!("the escape character in {pattern:?} stands before something else than %, _ or itself"),
    )
}

/// The pattern with backslash as its escape character.
fn for_arrow(pattern: &str, escape: Option<char>) -> Option<String> {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let literal = if Some(c) == escape {
            Some(chars.next().filter(|next| matches!(next, '%' | '_') || Some(*next) == escape)?)
        } else {
            (c == '\\').then_some(c)
        };
        match literal {
            Some(c) => {
                if matches!(c, '%' | '_' | '\\') {
                    out.push('\\');
                }
                out.push(c);
            }
            None => out.push(c),
        }
    }
    Some(out)
}
