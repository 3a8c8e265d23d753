//! INTERVAL literals as lengths of time.

use datafusion_sql::sqlparser::ast::{DateTimeField, Expr, Interval, Spanned, UnaryOperator, Value, ValueWithSpan};
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Period, Problem};

use crate::place;
use crate::resolve::without_parentheses;

/// Reads `INTERVAL '10' SECOND`, `INTERVAL '1:30' HOUR TO MINUTE`, `-INTERVAL '2' HOUR`; `what` and `fallback` are for the refusal.
pub fn read(expr: &Expr, what: &str, fallback: Span) -> Result<Period, Problem> {
    let span = if expr.span() == Span::empty() { fallback } else { expr.span() };
    let refuse = |message: String| {
        Problem::new("invalid_interval", message)
            .hint("write INTERVAL '10' SECOND (or MINUTE, HOUR, DAY)")
            .at(place(span))
    };
    match without_parentheses(expr) {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
            read(expr, what, span).map(|period| Period::from_us(-period.us))
        }
        Expr::Interval(interval) => {
            interval_us(interval).map(Period::from_us).map_err(|reason| refuse(format!("cannot read {what}: {reason}")))
        }
        _ => Err(refuse(format!("{what} must be an INTERVAL literal"))),
    }
}

fn interval_us(interval: &Interval) -> Result<i64, String> {
    let (text, negative) = match without_parentheses(&interval.value) {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text) | Value::Number(text, _), .. }) => {
            (text.trim().to_string(), false)
        }
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match &**expr {
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text) | Value::Number(text, _), .. }) => {
                (text.trim().to_string(), true)
            }
            other => return Err(format!("{other} is no number")),
        },
        other => return Err(format!("{other} is no number")),
    };
    let (text, negative) = match text.strip_prefix('-') {
        Some(rest) => (rest.to_string(), !negative),
        None => (text, negative),
    };
    let Some(field) = &interval.leading_field else {
        let period: Period = text.parse().map_err(|_| format!("'{text}' has no unit"))?;
        return Ok(if negative { -period.us } else { period.us });
    };
    let us = match &interval.last_field {
        None => scaled(&text, unit(field)?)?,
        Some(last) => range(&text, rank(field)?, rank(last)?)?,
    };
    Ok(if negative { -us } else { us })
}

const UNITS: [i64; 4] = [86_400_000_000, 3_600_000_000, 60_000_000, 1_000_000];

fn unit(field: &DateTimeField) -> Result<i64, String> {
    Ok(match field {
        DateTimeField::Week(None) | DateTimeField::Weeks => 7 * UNITS[0],
        DateTimeField::Day | DateTimeField::Days => UNITS[0],
        DateTimeField::Hour | DateTimeField::Hours => UNITS[1],
        DateTimeField::Minute | DateTimeField::Minutes => UNITS[2],
        DateTimeField::Second | DateTimeField::Seconds => UNITS[3],
        DateTimeField::Millisecond | DateTimeField::Milliseconds => 1_000,
        DateTimeField::Microsecond | DateTimeField::Microseconds => 1,
        DateTimeField::Custom(name) if name.value.eq_ignore_ascii_case("week") => 7 * UNITS[0],
        DateTimeField::Year
        | DateTimeField::Years
        | DateTimeField::Month
        | DateTimeField::Months
        | DateTimeField::Quarter => {
            return Err(format!("a {field} has no fixed length"));
        }
        other => return Err(format!("{other} is no unit of time here")),
    })
}

/// The place of a unit in DAY TO SECOND.
fn rank(field: &DateTimeField) -> Result<usize, String> {
    let us = unit(field)?;
    UNITS.iter().position(|unit| *unit == us).ok_or_else(|| format!("{field} cannot stand in a range of units"))
}

/// A decimal number of units, exactly.
fn scaled(text: &str, unit: i64) -> Result<i64, String> {
    let wrong = || format!("'{text}' is no number");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || part.len() > 9 {
        return Err(wrong());
    }
    let too_long = || format!("'{text}' is too long");
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_long())? };
    let scale = 10i128.pow(part.len() as u32);
    let fraction: i128 = if part.is_empty() { 0 } else { part.parse().map_err(|_| wrong())? };
    let total = i128::from(whole) * i128::from(unit) * scale + fraction * i128::from(unit);
    if total % scale != 0 {
        return Err(format!("'{text}' is finer than a microsecond"));
    }
    i64::try_from(total / scale).ok().filter(|us| *us < i64::MAX / 4).ok_or_else(too_long)
}

/// `'1 12:30'` DAY TO MINUTE, `'1:30'` HOUR TO MINUTE.
fn range(text: &str, first: usize, last: usize) -> Result<i64, String> {
    let parts: Vec<&str> = text.split([' ', ':']).filter(|part| !part.is_empty()).collect();
    if last <= first || parts.len() != last - first + 1 {
        return Err(format!("'{text}' does not fit its units"));
    }
    let mut total = 0i64;
    for (part, unit) in parts.iter().zip(&UNITS[first..=last]) {
        let us = scaled(part, *unit)?;
        total = total.checked_add(us).ok_or_else(|| format!("'{text}' is too long"))?;
    }
    Ok(total)
}
