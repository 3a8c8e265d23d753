//! DECIMAL: types of results as Flink derives them, rounding half up (away from zero at .5), and an error where a value does not fit.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Decimal128Type, i256};
use arrow::error::ArrowError;
use datafusion_common::{DataFusionError, Result};

use crate::error::fault;
use crate::operators::nulls_of;
use crate::physical::Arg;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Precision and scale of a result; digits before the point are kept and the scale gives way, down to 6.
pub(crate) fn result_type(operation: Operation, (p1, s1): (u8, u8), (p2, s2): (u8, u8)) -> (u8, u8) {
    let (p1, s1, p2, s2) = (i32::from(p1), i32::from(s1), i32::from(p2), i32::from(s2));
    let (precision, scale) = match operation {
        Operation::Add | Operation::Subtract => {
            let scale = s1.max(s2);
            ((p1 - s1).max(p2 - s2) + scale + 1, scale)
        }
        Operation::Multiply => (p1 + p2 + 1, s1 + s2),
        Operation::Divide => {
            let scale = 6.max(s1 + p2 + 1);
            (p1 - s1 + s2 + scale, scale)
        }
        Operation::Remainder if s1 == 0 && s2 == 0 => (p2, 0),
        Operation::Remainder => {
            let scale = s1.max(s2);
            ((p1 - s1).min(p2 - s2) + scale, scale)
        }
    };
    if precision <= 38 {
        return (precision as u8, scale as u8);
    }
    let digits = precision - scale;
    (38, (38 - digits).max(scale.min(6)) as u8)
}

/// 10^exponent; exponents are at most 76.
pub(crate) fn power_of_ten(exponent: u32) -> i256 {
    let mut value = i256::ONE;
    for _ in 0..exponent {
        value = value.wrapping_mul(i256::from_i128(10));
    }
    value
}

/// The largest unscaled value of a precision.
pub(crate) fn limit(precision: u8) -> i128 {
    10i128.pow(u32::from(precision)) - 1
}

/// value / divisor, rounded half up in magnitude.
pub(crate) fn divide_half_up(value: i256, divisor: i256) -> i256 {
    let (quotient, remainder) = (value.wrapping_div(divisor), value.wrapping_rem(divisor));
    let twice = remainder.wrapping_abs().wrapping_mul(i256::from_i128(2));
    if twice < divisor.wrapping_abs() {
        return quotient;
    }
    let away = if (value < i256::ZERO) == (divisor < i256::ZERO) { i256::ONE } else { i256::MINUS_ONE };
    quotient.wrapping_add(away)
}

/// An unscaled value at another scale, rounded half up; `None` if it does not fit the precision.
pub(crate) fn rescale(value: i128, from: u8, to: u8, precision: u8) -> Option<i128> {
    let result = if to >= from {
        value.checked_mul(10i128.checked_pow(u32::from(to - from))?)?
    } else {
        let divisor = 10i128.checked_pow(u32::from(from - to))?;
        let (quotient, remainder) = (value / divisor, value % divisor);
        quotient + if remainder.abs() >= divisor - remainder.abs() { value.signum() } else { 0 }
    };
    (result.abs() <= limit(precision)).then_some(result)
}

/// The text of an unscaled value: all digits of the scale.
pub(crate) fn text(value: i128, scale: u8) -> String {
    let digits = value.unsigned_abs().to_string();
    let scale = usize::from(scale);
    let sign = if value < 0 { "-" } else { "" };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Reads digits with an optional sign, point and exponent into an unscaled value, rounded half up. Outer `None`: not a number; inner `None`: it
/// does not fit.
pub(crate) fn parse(text: &str, precision: u8, scale: u8) -> Option<Option<i128>> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).skip_while(|byte| *byte == b'0').collect();
    if all.is_empty() {
        return Some(Some(0));
    }
    // How many of the digits stand before the cut that leaves `scale` digits after the point.
    let dropped_zeros = whole.len() + fraction.len() - all.len();
    let Some(point) = exponent.checked_add(whole.len() as i32).and_then(|at| at.checked_sub(dropped_zeros as i32))
    else {
        return Some(None);
    };
    let cut = i64::from(point) + i64::from(scale);
    if cut > 39 {
        return Some(None);
    }
    if cut < 0 {
        return Some(Some(0));
    }
    let mut value: i128 = 0;
    for at in 0..cut as usize {
        let digit = i128::from(all.get(at).map_or(0, |byte| byte - b'0'));
        match value.checked_mul(10).and_then(|value| value.checked_add(digit)) {
            Some(next) => value = next,
            None => return Some(None),
        }
    }
    if all.get(cut as usize).is_some_and(|byte| *byte >= b'5') {
        value += 1;
    }
    Some((value <= limit(precision)).then_some(if negative { -value } else { value }))
}

/// Computes an operation over decimals of the scales `s1` and `s2` into (precision, scale).
pub(crate) fn compute(
    operation: Operation,
    left: &Arg,
    right: &Arg,
    (s1, s2): (u8, u8),
    (precision, scale): (u8, u8),
    rows: usize,
) -> Result<ArrayRef> {
    let (a, b) = (left.array.as_primitive::<Decimal128Type>(), right.array.as_primitive::<Decimal128Type>());
    let nulls = nulls_of(&[left, right], rows);
    let limit = limit(precision);
    let overflow = |x: i128, y: i128| {
        let sign = match operation {
            Operation::Add => "+",
            Operation::Subtract => "-",
            Operation::Multiply => "*",
            Operation::Divide => "/",
            Operation::Remainder => "%",
        };
        fault(format!(
            "DECIMAL overflow: {} {sign} {} does not fit DECIMAL({precision}, {scale})",
            text(x, s1),
            text(y, s2)
        ))
    };
    let mut values = vec![0i128; rows];
    let slots = values.as_mut_slice();
    let each = Each { left, right, a, b, nulls: nulls.as_ref(), limit };
    match operation {
        Operation::Add | Operation::Subtract => {
            let subtract = operation == Operation::Subtract;
            let wide = s1.max(s2);
            if wide <= scale {
                let (up1, up2) = (10i128.pow(u32::from(scale - s1)), 10i128.pow(u32::from(scale - s2)));
                each.run(slots, overflow, |x, y| {
                    let y = if subtract { -y } else { y };
                    Ok(x.checked_mul(up1).zip(y.checked_mul(up2)).and_then(|(x, y)| x.checked_add(y)))
                })?;
            } else {
                // The scale gave way: add exactly, then round.
                let (up1, up2) = (power_of_ten(u32::from(wide - s1)), power_of_ten(u32::from(wide - s2)));
                let divisor = power_of_ten(u32::from(wide - scale));
                each.run(slots, overflow, |x, y| {
                    let y = if subtract { -y } else { y };
                    let sum = i256::from_i128(x).wrapping_mul(up1).wrapping_add(i256::from_i128(y).wrapping_mul(up2));
                    Ok(divide_half_up(sum, divisor).to_i128())
                })?;
            }
        }
        Operation::Multiply if s1 + s2 == scale => each.run(slots, overflow, |x, y| Ok(x.checked_mul(y)))?,
        Operation::Multiply => {
            let divisor = power_of_ten(u32::from(s1 + s2 - scale));
            each.run(slots, overflow, |x, y| {
                let product = i256::from_i128(x).wrapping_mul(i256::from_i128(y));
                Ok(divide_half_up(product, divisor).to_i128())
            })?;
        }
        Operation::Divide => {
            // x / 10^s1 divided by y / 10^s2, at `scale`: x * 10^(scale + s2 - s1) / y.
            let shift = i32::from(scale) + i32::from(s2) - i32::from(s1);
            let factor = power_of_ten(shift.unsigned_abs());
            each.run(slots, overflow, |x, y| {
                if y == 0 {
                    return Err(ArrowError::DivideByZero.into());
                }
                let (x, y) = (i256::from_i128(x), i256::from_i128(y));
                let quotient = if shift >= 0 {
                    x.checked_mul(factor).map(|x| divide_half_up(x, y))
                } else {
                    y.checked_mul(factor).map(|y| divide_half_up(x, y))
                };
                Ok(quotient.and_then(i256::to_i128))
            })?;
        }
        Operation::Remainder => {
            let wide = s1.max(s2);
            let (up1, up2) = (power_of_ten(u32::from(wide - s1)), power_of_ten(u32::from(wide - s2)));
            let divisor = power_of_ten(u32::from(wide.saturating_sub(scale)));
            each.run(slots, overflow, |x, y| {
                if y == 0 {
                    return Err(ArrowError::DivideByZero.into());
                }
                let (x, y) = (i256::from_i128(x).wrapping_mul(up1), i256::from_i128(y).wrapping_mul(up2));
                Ok(divide_half_up(x.wrapping_rem(y), divisor).to_i128())
            })?;
        }
    }
    Ok(Arc::new(Decimal128Array::new(values.into(), nulls).with_precision_and_scale(precision, scale as i8)?))
}

/// The two sides of an operation, and which of its rows count.
struct Each<'a> {
    left: &'a Arg,
    right: &'a Arg,
    a: &'a Decimal128Array,
    b: &'a Decimal128Array,
    nulls: Option<&'a NullBuffer>,
    /// The largest unscaled value of the result.
    limit: i128,
}

impl Each<'_> {
    /// Fills in the value of every row; `step` gives `None` where it does not fit.
    fn run(
        &self,
        values: &mut [i128],
        overflow: impl Fn(i128, i128) -> DataFusionError,
        step: impl Fn(i128, i128) -> Result<Option<i128>>,
    ) -> Result<()> {
        for (row, slot) in values.iter_mut().enumerate() {
            if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            let (x, y) = (self.a.value(self.left.at(row)), self.b.value(self.right.at(row)));
            match step(x, y)? {
                Some(value) if value.abs() <= self.limit => *slot = value,
                _ => return Err(overflow(x, y)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn result_types_are_those_of_flinks_own_tests() {
        use Operation::*;
        for (operation, a, b, expected) in [
            (Divide, (32, 8), (38, 8), (38, 6)),
            (Divide, (30, 20), (30, 20), (38, 8)),
            (Divide, (10, 0), (2, 1), (17, 6)),
            (Multiply, (30, 10), (30, 10), (38, 6)),
            (Multiply, (30, 20), (30, 20), (38, 17)),
            (Multiply, (38, 2), (38, 3), (38, 5)),
            (Multiply, (3, 3), (19, 0), (23, 3)),
            (Remainder, (30, 20), (25, 20), (25, 20)),
            (Add, (10, 2), (5, 4), (13, 4)),
        ] {
            assert_eq!(result_type(operation, a, b), expected, "{operation:?} {a:?} {b:?}");
        }
    }

    #[test]
    fn texts_round_half_up_and_say_what_does_not_fit() {
        for (text, expected) in [
            ("1.005", Some(Some(101))),
            ("-1.005", Some(Some(-101))),
            ("1.0049", Some(Some(100))),
            ("1e1", Some(Some(1000))),
            ("0.00001", Some(Some(0))),
            ("0.009", Some(Some(1))),
            (".5", Some(Some(50))),
            ("5.", Some(Some(500))),
            ("999.99", Some(Some(99999))),
            ("999.995", Some(None)),
            ("1e400", Some(None)),
            ("", None),
            ("1x", None),
            (".", None),
        ] {
            assert_eq!(parse(text, 5, 2), expected, "{text}");
        }
    }

    #[test]
    fn rescaling_is_exact_or_refused() {
        assert_eq!(rescale(125, 2, 1, 5), Some(13));
        assert_eq!(rescale(-125, 2, 1, 5), Some(-13));
        assert_eq!(rescale(124, 2, 1, 5), Some(12));
        assert_eq!(rescale(99999, 0, 1, 5), None);
        assert_eq!(rescale(i128::MAX, 0, 10, 38), None);
        assert_eq!(text(-5, 2), "-0.05");
    }
}
