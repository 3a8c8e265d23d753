//! CAST and TRY_CAST with Flink's meaning; a value that does not fit is an error (or, in TRY_CAST, NULL).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    ListArray, MapArray, PrimitiveArray, StringArray, StringBuilder, StructArray, Time64MicrosecondArray,
};
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType as ArrowType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, Time64MicrosecondType,
};
use datafusion_common::Result;
use graph::DataType;

use crate::bind::kernel;
use crate::calendar;
use crate::decimal;
use crate::error::{ExprError, fault};
use crate::physical::{Arg, Kernel};
use crate::types::{arrow_type, as_decimal};

/// What happens to a value that cannot be cast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The row fails.
    Strict,
    /// It becomes NULL.
    Try,
}

pub(crate) struct Cast {
    pub kernel: Kernel,
    pub fallible: bool,
    /// Whether a value can become NULL.
    pub may_null: bool,
}

/// How to cast, or why there is no such cast.
pub(crate) fn cast_kernel(from: &DataType, to: &DataType, mode: Mode, wrap: bool) -> Result<Cast, ExprError> {
    let partial = partial(from, to, wrap).ok_or_else(|| refusal(from, to))?;
    let (from, to) = (from.clone(), to.clone());
    let run = kernel(move |args: &[Arg], _| array(&args[0].array, &from, &to, mode, wrap));
    Ok(Cast { kernel: run, fallible: partial && mode == Mode::Strict, may_null: partial && mode == Mode::Try })
}

fn refusal(from: &DataType, to: &DataType) -> ExprError {
    let error = ExprError::new("type_mismatch", format!("{from} cannot be cast to {to}"));
    match (from, to) {
        (from, to) if from.is_timestamp() && to.is_numeric() => {
            error.hint("write UNIX_TIMESTAMP(text) or TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', t)")
        }
        (from, to) if from.is_numeric() && to.is_timestamp() => {
            error.hint("write TO_TIMESTAMP_LTZ(number, 3) for milliseconds, or 0 for seconds")
        }
        (from, DataType::Date) if from.is_numeric() => error.hint("write TO_DATE(text)"),
        _ => error,
    }
}

/// Whether there is a cast, and whether some values have none: `None`, `Some(false)`: total, `Some(true)`: partial.
fn partial(from: &DataType, to: &DataType, wrap: bool) -> Option<bool> {
    use DataType::*;
    if from == to {
        return Some(false);
    }
    let integers = |t: &DataType| match t {
        TinyInt => 1,
        SmallInt => 2,
        Int => 3,
        _ => 4,
    };
    Some(match (from, to) {
        (Array(a), Array(b)) => partial(a, b, wrap)?,
        (Map(k, v), Map(l, w)) => partial(k, l, wrap)? | partial(v, w, wrap)?,
        (Row(a), Row(b)) if a.len() == b.len() => {
            let mut any = false;
            for ((_, a), (_, b)) in a.iter().zip(b) {
                any |= partial(a, b, wrap)?;
            }
            any
        }
        (Array(_) | Map(..) | Row(_), String) => false,
        (Array(_) | Map(..) | Row(_), _) | (_, Array(_) | Map(..) | Row(_)) => return None,
        (Bytes, String) => true,
        (String, Bytes) | (_, String) => false,
        (Bytes, _) | (_, Bytes) => return None,
        (String, _) => true,
        (Boolean, to) if to.is_numeric() => matches!(to, Decimal(p, s) if p == s),
        (from, Boolean) if from.is_numeric() => false,
        (from, to) if from.is_integer() && to.is_integer() => !wrap && integers(from) > integers(to),
        (from, Float | Double) if from.is_numeric() => false,
        (Float | Double, to) if to.is_integer() => false,
        (from, Decimal(p, s)) if from.is_integer() => as_decimal(from).is_none_or(|(digits, _)| p - s < digits),
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (Date, Timestamp(_) | TimestampLtz(_)) => true,
        (from, to) if from.is_timestamp() && (to.is_timestamp() || matches!(to, Date | Time)) => true,
        _ => return None,
    })
}

/// Casts an array of `from` to the canonical Arrow type of `to`.
pub(crate) fn array(values: &ArrayRef, from: &DataType, to: &DataType, mode: Mode, wrap: bool) -> Result<ArrayRef> {
    use DataType::*;
    if from == to {
        return Ok(Arc::clone(values));
    }
    let out = arrow_type(to);
    let plain = |safe: bool| -> Result<ArrayRef> {
        Ok(compute::cast_with_options(values, &out, &CastOptions { safe, ..CastOptions::default() })?)
    };
    match (from, to) {
        (String, _) => parsed(values.as_string::<i32>(), to, mode),
        (_, String) => texts(values, from, mode),
        (Boolean, Decimal(p, s)) => decimals(
            values.as_boolean().iter().map(|v| v.map(i64::from)),
            |v| decimal::rescale(i128::from(v), 0, *s, *p),
            (*p, *s),
            mode,
            |v| v.to_string(),
        ),
        (Boolean, _) => plain(true),
        (from, Boolean) if from.is_integer() || matches!(from, Float | Double) => plain(true),
        (Decimal(..), Boolean) => {
            let values = values.as_primitive::<Decimal128Type>();
            Ok(Arc::new(BooleanArray::from_unary(values, |value| value != 0)))
        }
        (from, to) if from.is_integer() && to.is_integer() => integers(values, from, to, mode, wrap),
        (from, Float | Double) if from.is_integer() => plain(true),
        (Float, Double) => plain(true),
        (Double, Float) => Ok(Arc::new(values.as_primitive::<Float64Type>().unary::<_, Float32Type>(|v| v as f32))),
        (Float | Double, to) if to.is_integer() => Ok(saturated(values, to)),
        (from, Decimal(p, s)) if from.is_integer() => {
            let wide = compute::cast(values, &ArrowType::Int64)?;
            let wide = wide.as_primitive::<Int64Type>();
            // Every integer of the type fits: nothing to check.
            if as_decimal(from).is_some_and(|(digits, _)| p - s >= digits) {
                let factor = 10i128.pow(u32::from(*s));
                let values = wide.unary::<_, Decimal128Type>(|value| i128::from(value) * factor);
                return Ok(Arc::new(values.with_precision_and_scale(*p, *s as i8)?));
            }
            decimals(wide.iter(), |v| decimal::rescale(i128::from(v), 0, *s, *p), (*p, *s), mode, |v| v.to_string())
        }
        (Double, Decimal(p, s)) => decimals_of_floats::<Float64Type>(values, (*p, *s), mode),
        (Float, Decimal(p, s)) => decimals_of_floats::<Float32Type>(values, (*p, *s), mode),
        (Decimal(_, s1), Decimal(p, s)) => {
            let values = values.as_primitive::<Decimal128Type>();
            decimals(values.iter(), |v| decimal::rescale(v, *s1, *s, *p), (*p, *s), mode, |v| decimal::text(v, *s1))
        }
        (Decimal(_, s), Double) => {
            let values = values.as_primitive::<Decimal128Type>();
            Ok(Arc::new(values.iter().map(|v| v.map(|v| to_double(v, *s))).collect::<Float64Array>()))
        }
        (Decimal(_, s), Float) => {
            let values = values.as_primitive::<Decimal128Type>();
            Ok(Arc::new(values.iter().map(|v| v.map(|v| to_double(v, *s) as f32)).collect::<Float32Array>()))
        }
        (Decimal(_, s), to) if to.is_integer() => {
            let values = values.as_primitive::<Decimal128Type>();
            let divisor = 10i128.pow(u32::from(*s));
            let cut: Result<Vec<Option<i64>>> = values
                .iter()
                .map(|v| match v.map(|v| (v, i64::try_from(v / divisor))) {
                    None => Ok(None),
                    Some((_, Ok(v))) => Ok(Some(v)),
                    Some((_, Err(_))) if mode == Mode::Try => Ok(None),
                    Some((v, Err(_))) => Err(fault(format!("{} does not fit {to}", decimal::text(v, *s)))),
                })
                .collect();
            let wide: ArrayRef = Arc::new(PrimitiveArray::<Int64Type>::from(cut?));
            integers(&wide, &BigInt, to, mode, wrap)
        }
        (Date, Timestamp(p) | TimestampLtz(p)) => {
            let values = values.as_primitive::<Date32Type>();
            timestamps(
                values.iter().map(|days| days.map(i64::from)),
                |days| days.checked_mul(86_400).and_then(|s| calendar::join(s, 0, *p)),
                to,
                mode,
            )
        }
        (Timestamp(p) | TimestampLtz(p), Timestamp(q) | TimestampLtz(q)) => {
            let values = ticks(values)?;
            if p == q {
                return as_timestamps(values, to);
            }
            timestamps(values.iter(), |v| calendar::rescale(v, *p, *q), to, mode)
        }
        (Timestamp(p) | TimestampLtz(p), Date) => {
            let values = ticks(values)?;
            let per_day = 86_400 * calendar::per_second(*p);
            Ok(Arc::new(values.iter().map(|v| v.map(|v| v.div_euclid(per_day) as i32)).collect::<Date32Array>()))
        }
        (Timestamp(p) | TimestampLtz(p), Time) => {
            let values = ticks(values)?;
            let time = |v: i64| {
                let (seconds, nanos) = calendar::split(v, *p);
                seconds.rem_euclid(86_400) * 1_000_000 + i64::from(nanos / 1_000)
            };
            Ok(Arc::new(values.iter().map(|v| v.map(time)).collect::<Time64MicrosecondArray>()))
        }
        (Array(a), Array(b)) => {
            let list = values.as_list::<i32>();
            let items = array(list.values(), a, b, mode, wrap)?;
            let ArrowType::List(field) = out else { return Err(fault("an ARRAY is a list")) };
            Ok(Arc::new(ListArray::try_new(field, list.offsets().clone(), items, list.nulls().cloned())?))
        }
        (Map(k, v), Map(l, w)) => {
            let map = values.as_map();
            let (keys, items) = (array(map.keys(), k, l, mode, wrap)?, array(map.values(), v, w, mode, wrap)?);
            let ArrowType::Map(field, sorted) = out else { return Err(fault("a MAP is a map")) };
            let ArrowType::Struct(fields) = field.data_type() else { return Err(fault("a MAP has entries")) };
            let entries = StructArray::try_new(fields.clone(), vec![keys, items], None)?;
            Ok(Arc::new(MapArray::try_new(field, map.offsets().clone(), entries, map.nulls().cloned(), sorted)?))
        }
        (Row(a), Row(b)) => {
            let row = values.as_struct();
            let mut columns = Vec::with_capacity(b.len());
            for (at, ((_, a), (_, b))) in a.iter().zip(b).enumerate() {
                columns.push(array(row.column(at), a, b, mode, wrap)?);
            }
            let ArrowType::Struct(fields) = out else { return Err(fault("a ROW is a struct")) };
            Ok(Arc::new(StructArray::try_new_with_length(fields, columns, row.nulls().cloned(), row.len())?))
        }
        (from, to) => Err(fault(format!("{from} cannot be cast to {to}"))),
    }
}

fn integers(values: &ArrayRef, from: &DataType, to: &DataType, mode: Mode, wrap: bool) -> Result<ArrayRef> {
    let out = arrow_type(to);
    if !wrap || mode == Mode::Try {
        let safe = mode == Mode::Try;
        return compute::cast_with_options(values, &out, &CastOptions { safe, ..CastOptions::default() }).map_err(
            |_| {
                let wide = compute::cast(values, &ArrowType::Int64).ok();
                let (low, high) = integer_range(to);
                let wrong = wide
                    .as_ref()
                    .and_then(|wide| wide.as_primitive::<Int64Type>().iter().flatten().find(|v| *v < low || *v > high));
                fault(format!("{from} {} does not fit {to}", wrong.unwrap_or_default()))
            },
        );
    }
    let wide = compute::cast(values, &ArrowType::Int64)?;
    let wide = wide.as_primitive::<Int64Type>();
    Ok(match to {
        DataType::TinyInt => Arc::new(wide.unary::<_, Int8Type>(|v| v as i8)),
        DataType::SmallInt => Arc::new(wide.unary::<_, Int16Type>(|v| v as i16)),
        DataType::Int => Arc::new(wide.unary::<_, Int32Type>(|v| v as i32)),
        _ => Arc::new(wide.clone()),
    })
}

fn integer_range(t: &DataType) -> (i64, i64) {
    match t {
        DataType::TinyInt => (i64::from(i8::MIN), i64::from(i8::MAX)),
        DataType::SmallInt => (i64::from(i16::MIN), i64::from(i16::MAX)),
        DataType::Int => (i64::from(i32::MIN), i64::from(i32::MAX)),
        _ => (i64::MIN, i64::MAX),
    }
}

/// Floating point to integer: cut toward zero, the nearest bound where it does not fit, NaN is 0; as Java's narrowing.
fn saturated(values: &ArrayRef, to: &DataType) -> ArrayRef {
    let wide: PrimitiveArray<Float64Type> = match values.as_primitive_opt::<Float32Type>() {
        Some(values) => values.unary(f64::from),
        None => values.as_primitive::<Float64Type>().clone(),
    };
    match to {
        DataType::TinyInt => Arc::new(wide.unary::<_, Int8Type>(|v| v as i8)),
        DataType::SmallInt => Arc::new(wide.unary::<_, Int16Type>(|v| v as i16)),
        DataType::Int => Arc::new(wide.unary::<_, Int32Type>(|v| v as i32)),
        _ => Arc::new(wide.unary::<_, Int64Type>(|v| v as i64)),
    }
}

/// The nearest double of an unscaled decimal.
pub(crate) fn to_double(value: i128, scale: u8) -> f64 {
    const EXACT: i128 = 1 << 53;
    if value.abs() < EXACT && scale <= 22 {
        // Both are exact, so the division rounds once.
        return value as f64 / 10f64.powi(i32::from(scale));
    }
    decimal::text(value, scale).parse().unwrap_or(f64::NAN)
}

fn decimals<N>(
    values: impl Iterator<Item = Option<N>>,
    convert: impl Fn(N) -> Option<i128>,
    (precision, scale): (u8, u8),
    mode: Mode,
    show: impl Fn(N) -> String,
) -> Result<ArrayRef>
where
    N: Copy,
{
    let mut out: Vec<Option<i128>> = Vec::with_capacity(values.size_hint().0);
    for value in values {
        out.push(match value.map(|value| (value, convert(value))) {
            None => None,
            Some((_, Some(converted))) => Some(converted),
            Some((_, None)) if mode == Mode::Try => None,
            Some((value, None)) => {
                return Err(fault(format!("{} does not fit DECIMAL({precision}, {scale})", show(value))));
            }
        });
    }
    Ok(Arc::new(Decimal128Array::from(out).with_precision_and_scale(precision, scale as i8)?))
}

/// By the digits that a number shows.
fn decimals_of_floats<T: ArrowPrimitiveType>(values: &ArrayRef, to: (u8, u8), mode: Mode) -> Result<ArrayRef>
where
    T::Native: ToString,
{
    let convert = |v: T::Native| decimal::parse(&v.to_string(), to.0, to.1).flatten();
    decimals(values.as_primitive::<T>().iter(), convert, to, mode, |v| v.to_string())
}

/// The numbers of a timestamp array of any unit.
pub(crate) fn ticks(values: &ArrayRef) -> Result<PrimitiveArray<Int64Type>> {
    Ok(compute::cast(values, &ArrowType::Int64)?.as_primitive::<Int64Type>().clone())
}

/// Numbers as timestamps of a type, by their bits.
pub(crate) fn as_timestamps(values: PrimitiveArray<Int64Type>, to: &DataType) -> Result<ArrayRef> {
    let values: ArrayRef = Arc::new(values);
    Ok(compute::cast(&values, &arrow_type(to))?)
}

fn timestamps(
    values: impl Iterator<Item = Option<i64>>,
    convert: impl Fn(i64) -> Option<i64>,
    to: &DataType,
    mode: Mode,
) -> Result<ArrayRef> {
    let mut out: Vec<Option<i64>> = Vec::with_capacity(values.size_hint().0);
    for value in values {
        out.push(match value.map(&convert) {
            None => None,
            Some(Some(converted)) => Some(converted),
            Some(None) if mode == Mode::Try => None,
            Some(None) => return Err(fault(format!("a time is out of the range of {to}"))),
        });
    }
    as_timestamps(PrimitiveArray::from(out), to)
}

/// Texts to values; blanks around them are not looked at.
fn parsed(texts: &StringArray, to: &DataType, mode: Mode) -> Result<ArrayRef> {
    fn each<T, A: FromIterator<Option<T>>>(
        texts: &StringArray,
        to: &DataType,
        mode: Mode,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<A> {
        let value = |text: Option<&str>| match text.map(|text| (text, read(text.trim()))) {
            None => Ok(None),
            Some((text, None)) if mode != Mode::Try => Err(unreadable(text, to)),
            Some((_, value)) => Ok(value),
        };
        texts.iter().map(value).collect()
    }
    Ok(match to {
        DataType::TinyInt => {
            Arc::new(each::<_, PrimitiveArray<Int8Type>>(texts, to, mode, |text| i8::try_from(integer(text)?).ok())?)
        }
        DataType::SmallInt => {
            Arc::new(each::<_, PrimitiveArray<Int16Type>>(texts, to, mode, |text| i16::try_from(integer(text)?).ok())?)
        }
        DataType::Int => {
            Arc::new(each::<_, PrimitiveArray<Int32Type>>(texts, to, mode, |text| i32::try_from(integer(text)?).ok())?)
        }
        DataType::BigInt => Arc::new(each::<_, PrimitiveArray<Int64Type>>(texts, to, mode, integer)?),
        DataType::Float => Arc::new(each::<_, PrimitiveArray<Float32Type>>(texts, to, mode, |text| {
            float(text).map(|_| text.parse().unwrap_or(f32::NAN))
        })?),
        DataType::Double => Arc::new(each::<_, PrimitiveArray<Float64Type>>(texts, to, mode, float)?),
        DataType::Decimal(p, s) => {
            let read = each::<_, PrimitiveArray<Decimal128Type>>(texts, to, mode, |text| {
                decimal::parse(text, *p, *s).flatten()
            })?;
            Arc::new(read.with_precision_and_scale(*p, *s as i8)?)
        }
        DataType::Boolean => Arc::new(each::<_, BooleanArray>(texts, to, mode, boolean)?),
        DataType::Bytes => Arc::new(texts.iter().map(|text| text.map(str::as_bytes)).collect::<BinaryArray>()),
        DataType::Date => {
            let date = |text: &str| i32::try_from(calendar::parse_timestamp(text, false)?.0.div_euclid(86_400)).ok();
            Arc::new(each::<_, PrimitiveArray<Date32Type>>(texts, to, mode, date)?)
        }
        DataType::Time => Arc::new(each::<_, PrimitiveArray<Time64MicrosecondType>>(texts, to, mode, |text| {
            Some(calendar::parse_time(text)? / 1_000)
        })?),
        DataType::Timestamp(p) | DataType::TimestampLtz(p) => {
            let zone = matches!(to, DataType::TimestampLtz(_));
            let read = each::<_, PrimitiveArray<Int64Type>>(texts, to, mode, |text| {
                let (seconds, nanos) = calendar::parse_timestamp(text, zone)?;
                calendar::join(seconds, nanos, *p)
            })?;
            as_timestamps(read, to)?
        }
        other => return Err(fault(format!("STRING cannot be cast to {other}"))),
    })
}

fn unreadable(text: &str, to: &DataType) -> datafusion_common::DataFusionError {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    fault(format!("{shown:?} cannot be read as {to}; TRY_CAST gives NULL instead"))
}

/// An integer; a fraction is cut off, as Flink does.
fn integer(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    match whole {
        "" | "-" | "+" => (!fraction.is_empty()).then_some(0),
        whole => whole.parse().ok(),
    }
}

fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" | "+Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ if text.bytes().any(|byte| byte.is_ascii_digit()) && !text.contains(['n', 'N', 'x', 'X']) => {
            text.parse().ok()
        }
        _ => None,
    }
}

/// As Flink reads them: t, true, y, yes, 1 and their opposites, in any case.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Values to texts.
fn texts(values: &ArrayRef, from: &DataType, mode: Mode) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(values.len(), values.len() * 8);
    let mut text = String::new();
    for row in 0..values.len() {
        if values.is_null(row) {
            out.append_null();
            continue;
        }
        text.clear();
        match write_value(&mut text, values, from, row) {
            Ok(()) => out.append_value(&text),
            Err(_) if mode == Mode::Try => out.append_null(),
            Err(error) => return Err(error),
        }
    }
    Ok(Arc::new(out.finish()))
}

/// Writes the text of one value that is not null, as CAST AS STRING shows it.
pub(crate) fn write_value(out: &mut String, values: &dyn Array, t: &DataType, row: usize) -> Result<()> {
    use std::fmt::Write;
    let number = |out: &mut String, value: i64| {
        let _ = write!(out, "{value}");
    };
    match t {
        DataType::Boolean => out.push_str(if values.as_boolean().value(row) { "TRUE" } else { "FALSE" }),
        DataType::TinyInt => number(out, i64::from(values.as_primitive::<Int8Type>().value(row))),
        DataType::SmallInt => number(out, i64::from(values.as_primitive::<Int16Type>().value(row))),
        DataType::Int => number(out, i64::from(values.as_primitive::<Int32Type>().value(row))),
        DataType::BigInt => number(out, values.as_primitive::<Int64Type>().value(row)),
        DataType::Float => {
            let value = values.as_primitive::<Float32Type>().value(row);
            java_float(out, f64::from(value), &format!("{value:e}"));
        }
        DataType::Double => {
            let value = values.as_primitive::<Float64Type>().value(row);
            java_float(out, value, &format!("{value:e}"));
        }
        DataType::Decimal(_, scale) => {
            out.push_str(&decimal::text(values.as_primitive::<Decimal128Type>().value(row), *scale))
        }
        DataType::String => out.push_str(values.as_string::<i32>().value(row)),
        DataType::Bytes => {
            let bytes = values.as_binary::<i32>().value(row);
            out.push_str(std::str::from_utf8(bytes).map_err(|_| {
                fault("the BYTES are not UTF-8; write DECODE(bytes, 'UTF-8'), HEX(bytes) or TO_BASE64(bytes)")
            })?);
        }
        DataType::Date => calendar::write_date(out, i64::from(values.as_primitive::<Date32Type>().value(row))),
        DataType::Time => {
            let us = values.as_primitive::<Time64MicrosecondType>().value(row);
            calendar::write_time(
                out,
                (us / 1_000_000) as u32,
                (us % 1_000_000 * 1_000) as u32,
                if us % 1_000_000 == 0 { 0 } else { 6 },
            );
        }
        DataType::Timestamp(precision) | DataType::TimestampLtz(precision) => {
            let value = tick(values, row)?;
            calendar::write_timestamp(out, value, *precision);
        }
        DataType::Array(item) => {
            out.push('[');
            let items = values.as_list::<i32>().value(row);
            for at in 0..items.len() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_or_null(out, &items, item, at)?;
            }
            out.push(']');
        }
        DataType::Map(key, value) => {
            out.push('{');
            let entries = values.as_map().value(row);
            for at in 0..entries.len() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_or_null(out, entries.column(0), key, at)?;
                out.push('=');
                write_or_null(out, entries.column(1), value, at)?;
            }
            out.push('}');
        }
        DataType::Row(fields) => {
            out.push('(');
            for (at, (_, field)) in fields.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                write_or_null(out, values.as_struct().column(at), field, row)?;
            }
            out.push(')');
        }
    }
    Ok(())
}

fn write_or_null(out: &mut String, values: &dyn Array, t: &DataType, row: usize) -> Result<()> {
    if values.is_null(row) {
        out.push_str("NULL");
        return Ok(());
    }
    write_value(out, values, t, row)
}

fn tick(values: &dyn Array, row: usize) -> Result<i64> {
    use arrow::datatypes::{
        TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
    };
    Ok(match values.data_type() {
        ArrowType::Timestamp(TimeUnit::Second, _) => values.as_primitive::<TimestampSecondType>().value(row),
        ArrowType::Timestamp(TimeUnit::Millisecond, _) => values.as_primitive::<TimestampMillisecondType>().value(row),
        ArrowType::Timestamp(TimeUnit::Microsecond, _) => values.as_primitive::<TimestampMicrosecondType>().value(row),
        ArrowType::Timestamp(TimeUnit::Nanosecond, _) => values.as_primitive::<TimestampNanosecondType>().value(row),
        other => return Err(fault(format!("{other} is no timestamp"))),
    })
}

/// Java's text of a floating-point number: at least one digit after the point, an exponent below 10^-3 and from 10^7. `shortest` are the
/// shortest digits that read back as the value, as Rust's `{:e}` gives them.
fn java_float(out: &mut String, value: f64, shortest: &str) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((shortest, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let mantissa = match mantissa.strip_prefix('-') {
        Some(rest) => {
            out.push('-');
            rest
        }
        None => mantissa,
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if value != 0.0 && !(-3..7).contains(&exponent) {
        out.push_str(&digits[..1]);
        out.push('.');
        out.push_str(if digits.len() > 1 { &digits[1..] } else { "0" });
        out.push('E');
        out.push_str(&exponent.to_string());
        return;
    }
    if exponent < 0 {
        out.push_str("0.");
        (1..-exponent).for_each(|_| out.push('0'));
        return out.push_str(&digits);
    }
    let whole = exponent as usize + 1;
    for at in 0..whole {
        out.push_str(digits.get(at..=at).unwrap_or("0"));
    }
    out.push('.');
    out.push_str(digits.get(whole..).filter(|rest| !rest.is_empty()).unwrap_or("0"));
}
