//! Functions of numbers.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::compute;
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::{Decimal128Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type};
use datafusion_common::ScalarValue;
use datafusion_sql::sqlparser::ast::BinaryOperator;
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::cast::{Mode, to_double};
use crate::decimal;
use crate::error::{ExprError, fault};
use crate::functions::text::map_integer;
use crate::functions::{Function, function, strict};
use crate::operators;
use crate::physical::Arg;
use crate::types::Ty;

macro_rules! doubles {
    ($($name:literal $run:expr),* $(,)?) => {
        &[$(function(&[$name], 1..=1, concat!($name, "(number)"), |binder, args| double(binder, $name, args, $run))),*]
    };
}

/// Functions of one DOUBLE, computed as Java's Math does.
pub(crate) const DOUBLES: &[Function] = doubles! {
    "SQRT" f64::sqrt, "EXP" f64::exp, "LN" f64::ln, "LOG2" f64::log2, "LOG10" f64::log10, "SIN" f64::sin, "COS" f64::cos, "TAN" f64::tan,
    "COT" |x| 1.0 / x.tan(), "ASIN" f64::asin, "ACOS" f64::acos, "ATAN" f64::atan, "SINH" f64::sinh, "COSH" f64::cosh, "TANH" f64::tanh,
    "DEGREES" f64::to_degrees, "RADIANS" f64::to_radians, "CBRT" f64::cbrt,
};

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["MOD"], 2..=2, "MOD(a, b)", modulo),
    function(&["POWER", "POW"], 2..=2, "POWER(base, exponent)", |binder, args| pair(binder, "POWER", args, f64::powf)),
    function(&["ATAN2"], 2..=2, "ATAN2(y, x)", |binder, args| pair(binder, "ATAN2", args, f64::atan2)),
    function(&["LOG"], 1..=2, "LOG([base,] number)", log),
    function(&["PI"], 0..=0, "PI()", |_, _| constant(std::f64::consts::PI)),
    function(&["E"], 0..=0, "E()", |_, _| constant(std::f64::consts::E)),
    function(&["ABS"], 1..=1, "ABS(number)", abs),
    function(&["SIGN"], 1..=1, "SIGN(number)", sign),
    function(&["ROUND"], 1..=2, "ROUND(number[, digits])", |binder, args| round(binder, args, "ROUND")),
    function(&["TRUNCATE", "TRUNC"], 1..=2, "TRUNCATE(number[, digits])", |binder, args| {
        round(binder, args, "TRUNCATE")
    }),
    function(&["FLOOR"], 1..=1, "FLOOR(number)", |binder, args| whole(binder, args, "FLOOR")),
    function(&["CEIL", "CEILING"], 1..=1, "CEIL(number)", |binder, args| whole(binder, args, "CEIL")),
    function(&["GREATEST"], 1..=usize::MAX, "GREATEST(a, b, ...)", |binder, args| extreme(binder, args, "GREATEST")),
    function(&["LEAST"], 1..=usize::MAX, "LEAST(a, b, ...)", |binder, args| extreme(binder, args, "LEAST")),
    function(&["BIN"], 1..=1, "BIN(integer)", |b, a| {
        map_integer(b, "BIN", a, |number, out| *out += &format!("{number:b}"))
    }),
];

fn constant(value: f64) -> Bind {
    Ok(Bound::constant(ScalarValue::Float64(Some(value)), Ty::Sql(DataType::Double), Span::empty()))
}

fn double(binder: &mut Binder, name: &'static str, args: Vec<Bound>, run: fn(f64) -> f64) -> Bind {
    strict(name, &[DataType::Double], DataType::Double).bind(binder, args, move |args, _| {
        Ok(Arc::new(args[0].array.as_primitive::<Float64Type>().unary::<_, Float64Type>(run)) as ArrayRef)
    })
}

fn pair(binder: &mut Binder, name: &'static str, args: Vec<Bound>, run: fn(f64, f64) -> f64) -> Bind {
    strict(name, &[DataType::Double], DataType::Double).bind(binder, args, move |args, rows| {
        let (a, b) = (args[0].array.as_primitive::<Float64Type>(), args[1].array.as_primitive::<Float64Type>());
        let values: Vec<f64> = (0..rows).map(|row| run(a.value(args[0].at(row)), b.value(args[1].at(row)))).collect();
        let nulls = operators::nulls_of(&[&args[0], &args[1]], rows);
        Ok(Arc::new(PrimitiveArray::<Float64Type>::new(values.into(), nulls)) as ArrayRef)
    })
}

fn modulo(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let divisor = args.remove(1);
    operators::arithmetic(binder, args.remove(0), &BinaryOperator::Modulo, divisor)
}

/// LOG(x) is natural; LOG(base, x).
fn log(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    match args.len() {
        1 => double(binder, "LOG", args, f64::ln),
        _ => pair(binder, "LOG", args, |base, x| x.ln() / base.ln()),
    }
}

fn number(bound: &Bound, name: &str) -> Result<Option<DataType>, ExprError> {
    match &bound.ty {
        Ty::Sql(t) if t.is_numeric() => Ok(Some(t.clone())),
        Ty::Null => Ok(None),
        other => Err(ExprError::new("type_mismatch", format!("{name} takes a number, not {other}")).at(bound.span)),
    }
}

fn abs(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let arg = args.remove(0);
    let Some(t) = number(&arg, "ABS")? else { return binder.null(&DataType::Int) };
    match &t {
        DataType::Float | DataType::Double => {
            let wide = binder.cast(arg, &DataType::Double, Mode::Strict)?;
            let result = double(binder, "ABS", vec![wide], f64::abs)?;
            binder.cast(result, &t, Mode::Strict)
        }
        _ => {
            let (nullable, wrap, name, fallible) = (arg.nullable, binder.env.overflow_wrap, t.clone(), t.is_integer());
            let run = kernel(move |args, _| {
                let values = &args[0].array;
                let overflow = || fault(format!("{name} overflow: the smallest value has no positive counterpart"));
                macro_rules! absolute {
                    ($type:ty) => {{
                        let values = values.as_primitive::<$type>();
                        let positive: PrimitiveArray<$type> = match wrap {
                            true => values.unary(|value| value.wrapping_abs()),
                            false => values.try_unary(|value| value.checked_abs().ok_or_else(overflow))?,
                        };
                        positive
                    }};
                }
                Ok(match &name {
                    DataType::TinyInt => Arc::new(absolute!(Int8Type)) as ArrayRef,
                    DataType::SmallInt => Arc::new(absolute!(Int16Type)),
                    DataType::Int => Arc::new(absolute!(Int32Type)),
                    DataType::BigInt => Arc::new(absolute!(Int64Type)),
                    _ => Arc::new(absolute!(Decimal128Type).with_data_type(values.data_type().clone())),
                })
            });
            binder.call_with("ABS", vec![arg], Ty::Sql(t), nullable, fallible, run)
        }
    }
}

fn sign(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let arg = args.remove(0);
    let Some(t) = number(&arg, "SIGN")? else { return binder.null(&DataType::Int) };
    let wide = binder.cast(arg, &DataType::Double, Mode::Strict)?;
    let result = double(binder, "SIGN", vec![wide], |x| {
        if x > 0.0 {
            1.0
        } else if x < 0.0 {
            -1.0
        } else {
            x
        }
    })?;
    match t {
        // SIGN of a DECIMAL(1, 1) is 1.0, which that type cannot hold.
        DataType::Decimal(precision, scale) if precision == scale => {
            binder.cast(result, &DataType::Decimal(precision.min(37) + 1, scale.min(37)), Mode::Strict)
        }
        t => binder.cast(result, &t, Mode::Strict),
    }
}

/// ROUND (half up) and TRUNCATE (toward zero) to digits after the point, negative ones before it.
fn round(binder: &mut Binder, mut args: Vec<Bound>, name: &'static str) -> Bind {
    let digits = if args.len() > 1 {
        args.remove(1)
    } else {
        Bound::constant(ScalarValue::Int32(Some(0)), Ty::Sql(DataType::Int), args[0].span)
    };
    let arg = args.remove(0);
    let Some(t) = number(&arg, name)? else { return binder.null(&DataType::Int) };
    let truncate = name == "TRUNCATE";
    if let DataType::Decimal(precision, scale) = t {
        let Some(n) = digits.integer() else {
            let error = ExprError::new("unsupported", format!("the digits of {name} of a DECIMAL are a constant"))
                .at(digits.span);
            return Err(error.hint("write CAST(... AS DOUBLE) around the number"));
        };
        if n >= i64::from(scale) {
            return Ok(arg);
        }
        let (whole, kept) = (i64::from(precision) - i64::from(scale), n.max(0));
        let out = ((1 + whole + kept).clamp(1, 38) as u8, kept as u8);
        let drop = u32::try_from(i64::from(scale) - n).unwrap_or(u32::MAX).min(76);
        let nullable = arg.nullable;
        let run = kernel(move |args, _| {
            let divisor = decimal::power_of_ten(drop);
            let back = decimal::power_of_ten((-n).clamp(0, 38) as u32);
            let limit = decimal::limit(out.0);
            let values = args[0].array.as_primitive::<Decimal128Type>();
            let rounded: PrimitiveArray<Decimal128Type> = values.try_unary(|value| {
                let value = arrow::datatypes::i256::from_i128(value);
                let cut = if truncate { value.wrapping_div(divisor) } else { decimal::divide_half_up(value, divisor) };
                cut.wrapping_mul(back)
                    .to_i128()
                    .filter(|value| value.abs() <= limit)
                    .ok_or_else(|| fault("a rounded DECIMAL does not fit"))
            })?;
            Ok(Arc::new(rounded.with_precision_and_scale(out.0, out.1 as i8)?) as ArrayRef)
        });
        return binder.call_with(name, vec![arg], Ty::Sql(DataType::Decimal(out.0, out.1)), nullable, true, run);
    }
    let digits = binder.coerce(digits, &DataType::Int, name)?;
    let nullable = arg.nullable || digits.nullable;
    let wide = if t.is_integer() { DataType::BigInt } else { DataType::Double };
    // A FLOAT is rounded by its own digits, which its DOUBLE does not have.
    let arg = match t {
        DataType::Float => {
            let text = binder.cast(arg, &DataType::String, Mode::Strict)?;
            binder.cast(text, &DataType::Double, Mode::Strict)?
        }
        _ => binder.cast(arg, &wide, Mode::Strict)?,
    };
    let integers = t.is_integer();
    let run = kernel(move |args, rows| {
        let digits = args[1].array.as_primitive::<Int32Type>();
        let nulls = operators::nulls_of(&[&args[0], &args[1]], rows);
        let n = |row: usize| digits.value(args[1].at(row));
        if integers {
            let values = args[0].array.as_primitive::<Int64Type>();
            let mut out = vec![0i64; rows];
            for (row, slot) in out.iter_mut().enumerate() {
                if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
                    *slot = round_integer(values.value(args[0].at(row)), n(row), truncate)
                        .ok_or_else(|| fault("BIGINT overflow: a rounded number does not fit"))?;
                }
            }
            return Ok(Arc::new(PrimitiveArray::<Int64Type>::new(out.into(), nulls)) as ArrayRef);
        }
        let values = args[0].array.as_primitive::<Float64Type>();
        let out: Vec<f64> =
            (0..rows).map(|row| round_double(values.value(args[0].at(row)), n(row), truncate)).collect();
        Ok(Arc::new(PrimitiveArray::<Float64Type>::new(out.into(), nulls)) as ArrayRef)
    });
    let result = binder.call_with(name, vec![arg, digits], Ty::Sql(wide), nullable, integers, run)?;
    binder.cast(result, &t, Mode::Strict)
}

fn round_integer(value: i64, digits: i32, truncate: bool) -> Option<i64> {
    if digits >= 0 {
        return Some(value);
    }
    let unit = 10i128.checked_pow(digits.unsigned_abs()).unwrap_or(i128::MAX);
    let (value, mut quotient, remainder) = (i128::from(value), i128::from(value) / unit, i128::from(value) % unit);
    if !truncate && remainder.abs() >= unit - remainder.abs() {
        quotient += value.signum();
    }
    i64::try_from(quotient.checked_mul(unit)?).ok()
}

/// By the decimal digits that the number shows, as Java's BigDecimal.valueOf.
fn round_double(value: f64, digits: i32, truncate: bool) -> f64 {
    if !value.is_finite() || digits > 300 {
        return value;
    }
    if digits == 0 {
        return if truncate { value.trunc() } else { value.round() };
    }
    if digits < 0 {
        let unit = 10f64.powi(-digits);
        return if truncate { (value / unit).trunc() * unit } else { (value / unit).round() * unit };
    }
    let scale = digits.min(37) as u8;
    if value.abs() >= 1e15 {
        return value;
    }
    let text = value.to_string();
    let text = match text.split_once('.') {
        Some((whole, fraction)) if truncate && fraction.len() > usize::from(scale) => {
            format!("{whole}.{}", &fraction[..usize::from(scale)])
        }
        _ => text,
    };
    decimal::parse(&text, 38, scale).flatten().map_or(value, |value| to_double(value, scale))
}

fn whole(binder: &mut Binder, mut args: Vec<Bound>, name: &'static str) -> Bind {
    let arg = args.remove(0);
    let up = name == "CEIL";
    match number(&arg, name)? {
        None => binder.null(&DataType::Int),
        Some(t) if t.is_integer() => Ok(arg),
        Some(DataType::Decimal(precision, scale)) => {
            let nullable = arg.nullable;
            let out = (precision - scale + 1).clamp(1, 38);
            let run = kernel(move |args, _| {
                let unit = 10i128.pow(u32::from(scale));
                let values = args[0].array.as_primitive::<Decimal128Type>();
                let cut: PrimitiveArray<Decimal128Type> = values.unary(|value| {
                    let floor = value.div_euclid(unit);
                    floor + i128::from(up && value.rem_euclid(unit) != 0)
                });
                Ok(Arc::new(cut.with_precision_and_scale(out, 0)?) as ArrayRef)
            });
            binder.call_with(name, vec![arg], Ty::Sql(DataType::Decimal(out, 0)), nullable, false, run)
        }
        Some(t) => {
            let wide = binder.cast(arg, &DataType::Double, Mode::Strict)?;
            let result = double(binder, name, vec![wide], if up { f64::ceil } else { f64::floor })?;
            binder.cast(result, &t, Mode::Strict)
        }
    }
}

/// NULL if any is.
fn extreme(binder: &mut Binder, args: Vec<Bound>, name: &'static str) -> Bind {
    let ty = binder.common_of(&args, name)?;
    let Ty::Sql(t) = ty else { return Ok(Bound::constant(ScalarValue::Null, Ty::Null, Span::empty())) };
    if matches!(t, DataType::Array(_) | DataType::Map(..) | DataType::Row(_)) {
        return Err(ExprError::new("type_mismatch", format!("{name} does not compare {t}")));
    }
    let args = args.into_iter().map(|arg| binder.coerce(arg, &t, name)).collect::<Result<Vec<_>, _>>()?;
    let nullable = args.iter().any(|arg| arg.nullable);
    let float = matches!(t, DataType::Float | DataType::Double);
    let better = if name == "GREATEST" { BinaryOperator::Gt } else { BinaryOperator::Lt };
    let run = kernel(move |args, rows| {
        let mut best: ArrayRef = args[0].expanded(rows)?;
        for arg in &args[1..] {
            let so_far = Arg { array: Arc::clone(&best), constant: false };
            let next = Arg { array: arg.expanded(rows)?, constant: false };
            let mask = operators::compare_arrays(&better, &next, &so_far, float)?;
            let mask = if mask.nulls().is_some() { compute::prep_null_mask_filter(&mask) } else { mask };
            best = zip(&mask, &next.array, &so_far.array)?;
            let nulls = operators::nulls_of(&[&next, &so_far], rows);
            best = arrow::array::make_array(best.to_data().into_builder().nulls(nulls).build()?);
        }
        Ok(best)
    });
    binder.call_with(name, args, Ty::Sql(t), nullable, false, run)
}
