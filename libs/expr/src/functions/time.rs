//! Functions of times: texts to times and back, parts, and the clock.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray};
use arrow::datatypes::{Float64Type, Int64Type};
use datafusion_common::Result;
use datafusion_sql::sqlparser::tokenizer::Span;
use graph::DataType;

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::calendar;
use crate::cast::{Mode, as_timestamps, ticks};
use crate::error::{ExprError, fault};
use crate::functions::pattern::Pattern;
use crate::functions::text::{Texts, map_integer, write_rows};
use crate::functions::{Function, function};
use crate::physical::{Arg, Now};
use crate::temporal;
use crate::types::{Ty, arrow_type};

pub(crate) const FUNCTIONS: &[Function] = &[
    function(&["DATE_FORMAT"], 2..=2, "DATE_FORMAT(timestamp, 'yyyy-MM-dd')", date_format),
    function(&["TO_TIMESTAMP"], 1..=2, "TO_TIMESTAMP(text[, 'yyyy-MM-dd HH:mm:ss'])", to_timestamp),
    function(&["TO_TIMESTAMP_LTZ"], 1..=2, "TO_TIMESTAMP_LTZ(number, 3)", to_timestamp_ltz),
    function(&["TO_DATE"], 1..=2, "TO_DATE(text[, 'yyyy-MM-dd'])", to_date),
    function(&["UNIX_TIMESTAMP"], 0..=2, "UNIX_TIMESTAMP([text[, 'yyyy-MM-dd HH:mm:ss']])", unix_timestamp),
    function(&["FROM_UNIXTIME"], 1..=2, "FROM_UNIXTIME(seconds[, 'yyyy-MM-dd HH:mm:ss'])", from_unixtime),
    function(&["YEAR"], 1..=1, "YEAR(t)", |binder, args| part(binder, args, "YEAR")),
    function(&["QUARTER"], 1..=1, "QUARTER(t)", |binder, args| part(binder, args, "QUARTER")),
    function(&["MONTH"], 1..=1, "MONTH(t)", |binder, args| part(binder, args, "MONTH")),
    function(&["WEEK"], 1..=1, "WEEK(t)", |binder, args| part(binder, args, "WEEK")),
    function(&["DAYOFYEAR"], 1..=1, "DAYOFYEAR(t)", |binder, args| part(binder, args, "DOY")),
    function(&["DAYOFMONTH", "DAY"], 1..=1, "DAYOFMONTH(t)", |binder, args| part(binder, args, "DAY")),
    function(&["DAYOFWEEK"], 1..=1, "DAYOFWEEK(t)", |binder, args| part(binder, args, "DOW")),
    function(&["HOUR"], 1..=1, "HOUR(t)", |binder, args| part(binder, args, "HOUR")),
    function(&["MINUTE"], 1..=1, "MINUTE(t)", |binder, args| part(binder, args, "MINUTE")),
    function(&["SECOND"], 1..=1, "SECOND(t)", |binder, args| part(binder, args, "SECOND")),
    function(&["NOW", "CURRENT_TIMESTAMP", "CURRENT_ROW_TIMESTAMP"], 0..=0, "NOW()", |binder, _| {
        clock(binder, DataType::TimestampLtz(3))
    }),
    function(&["LOCALTIMESTAMP"], 0..=0, "LOCALTIMESTAMP", |binder, _| clock(binder, DataType::Timestamp(3))),
    function(&["CURRENT_DATE"], 0..=0, "CURRENT_DATE", |binder, _| clock(binder, DataType::Date)),
    function(&["CURRENT_TIME", "LOCALTIME"], 0..=0, "CURRENT_TIME", |binder, _| clock(binder, DataType::Time)),
    function(&["PROCTIME"], 0..=0, "PROCTIME()", proctime),
];

const DEFAULT: &str = "yyyy-MM-dd HH:mm:ss";

/// The clock of the epoch.
fn clock(binder: &mut Binder, t: DataType) -> Bind {
    let direct = if t.is_timestamp() { t.clone() } else { DataType::Timestamp(3) };
    let now = Now { now_us: Arc::clone(&binder.env.now_us), out: arrow_type(&direct) };
    let bound = Bound {
        node: Arc::new(now),
        ty: Ty::Sql(direct),
        nullable: false,
        literal: None,
        fallible: false,
        volatile: true,
        depth: 1,
        size: 1,
        span: Span::empty(),
    };
    binder.cast(bound, &t, Mode::Strict)
}

fn proctime(binder: &mut Binder, _: Vec<Bound>) -> Bind {
    binder.processing_time = true;
    clock(binder, DataType::TimestampLtz(3))
}

fn part(binder: &mut Binder, mut args: Vec<Bound>, unit: &str) -> Bind {
    temporal::extract(binder, unit, args.remove(0))
}

/// The patterns of a call: read once if constant, else when they change from row to row.
struct Patterns {
    constant: Option<Pattern>,
}

impl Patterns {
    /// Of the argument, if there is one, else the default; a constant that is wrong is an error now.
    fn of(arg: Option<&Bound>) -> Result<Patterns, ExprError> {
        let text = match arg {
            None => Some(DEFAULT),
            Some(arg) => arg.text(),
        };
        let invalid = |message: String| {
            ExprError::new("invalid_pattern", message).hint("write it as in Java, such as 'yyyy-MM-dd HH:mm:ss'")
        };
        let constant = text.map(Pattern::parse).transpose();
        let constant = constant.map_err(|message| match arg {
            Some(arg) => invalid(message).at(arg.span),
            None => invalid(message),
        })?;
        Ok(Patterns { constant })
    }

    /// Runs `each` with the pattern of every row; NULL where the pattern is.
    fn each(
        &self,
        arg: Option<&Arg>,
        rows: usize,
        mut each: impl FnMut(usize, Option<&Pattern>) -> Result<()>,
    ) -> Result<()> {
        if let Some(pattern) = &self.constant {
            return (0..rows).try_for_each(|row| each(row, Some(pattern)));
        }
        let texts = arg.map(Texts::of).ok_or_else(|| fault("a pattern is missing"))?;
        let mut last: Option<(&str, Pattern)> = None;
        for row in 0..rows {
            let Some(text) = texts.get(row) else {
                each(row, None)?;
                continue;
            };
            if last.as_ref().is_none_or(|(known, _)| *known != text) {
                last = Some((text, Pattern::parse(text).map_err(fault)?));
            }
            each(row, last.as_ref().map(|(_, pattern)| pattern))?;
        }
        Ok(())
    }
}

/// The time as a timestamp; a text is read as one.
fn as_time(binder: &mut Binder, time: Bound, name: &str) -> Bind {
    match &time.ty {
        Ty::Sql(t) if t.is_timestamp() => Ok(time),
        Ty::Sql(DataType::Date) => binder.cast(time, &DataType::Timestamp(0), Mode::Strict),
        Ty::Sql(DataType::String) => binder.cast(time, &DataType::Timestamp(3), Mode::Try),
        Ty::Null => binder.null(&DataType::Timestamp(3)),
        other => Err(ExprError::new("type_mismatch", format!("{name} takes a time, not {other}")).at(time.span)),
    }
}

fn precision(bound: &Bound) -> u8 {
    match &bound.ty {
        Ty::Sql(DataType::Timestamp(precision) | DataType::TimestampLtz(precision)) => *precision,
        _ => 0,
    }
}

fn date_format(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let pattern = binder.coerce(args.remove(1), &DataType::String, "DATE_FORMAT")?;
    let time = as_time(binder, args.remove(0), "DATE_FORMAT")?;
    let patterns = Patterns::of(Some(&pattern))?;
    let (precision, nullable, fallible) =
        (precision(&time), time.nullable || pattern.nullable, patterns.constant.is_none());
    if pattern.literal.is_some() && pattern.text().is_none() {
        return binder.null(&DataType::String);
    }
    let run = kernel(move |args, rows| {
        let time = ticks(&args[0].array)?;
        let mut found: Vec<Option<String>> = Vec::new();
        if let Some(pattern) = &patterns.constant {
            return write_rows(rows, |row, out| {
                let at = args[0].at(row);
                Ok(time.is_valid(at).then(|| {
                    let (seconds, nanos) = calendar::split(time.value(at), precision);
                    pattern.write(out, seconds, nanos);
                }))
            });
        }
        patterns.each(Some(&args[1]), rows, |row, pattern| {
            let at = args[0].at(row);
            found.push(pattern.filter(|_| time.is_valid(at)).map(|pattern| {
                let (seconds, nanos) = calendar::split(time.value(at), precision);
                let mut out = String::new();
                pattern.write(&mut out, seconds, nanos);
                out
            }));
            Ok(())
        })?;
        Ok(Arc::new(arrow::array::StringArray::from(found)) as ArrayRef)
    });
    binder.call_with("DATE_FORMAT", vec![time, pattern], Ty::Sql(DataType::String), nullable, fallible, run)
}

/// Texts by a pattern to numbers; what cannot be read is NULL.
fn read(
    binder: &mut Binder,
    name: &'static str,
    args: Vec<Bound>,
    out: DataType,
    convert: impl Fn(i64, u32) -> Option<i64> + Send + Sync + 'static,
) -> Bind {
    let mut coerced = Vec::with_capacity(args.len());
    for arg in args {
        coerced.push(binder.coerce(arg, &DataType::String, name)?);
    }
    let patterns = Patterns::of(coerced.get(1))?;
    let (default, fallible) = (coerced.len() == 1, patterns.constant.is_none());
    let to = out.clone();
    let run = kernel(move |args, rows| {
        let texts = Texts::of(&args[0]);
        let mut values: Vec<Option<i64>> = Vec::with_capacity(rows);
        let mut one = |row: usize, pattern: Option<&Pattern>| {
            let instant = texts.get(row).zip(pattern).and_then(|(text, pattern)| match default {
                true => calendar::parse_timestamp(text, false),
                false => pattern.read(text),
            });
            values.push(instant.and_then(|(seconds, nanos)| convert(seconds, nanos)));
            Ok(())
        };
        patterns.each(args.get(1), rows, &mut one)?;
        let values = PrimitiveArray::<Int64Type>::from(values);
        Ok(match &to {
            DataType::Date => Arc::new(
                values
                    .unary::<_, arrow::datatypes::Int32Type>(|days| days as i32)
                    .reinterpret_cast::<arrow::datatypes::Date32Type>(),
            ) as ArrayRef,
            DataType::BigInt => Arc::new(values),
            timestamp => as_timestamps(values, timestamp)?,
        })
    });
    binder.call_with(name, coerced, Ty::Sql(out), true, fallible, run)
}

fn to_timestamp(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    let given = &args[0];
    if matches!(&given.ty, Ty::Sql(t) if t.is_numeric()) {
        let error =
            ExprError::new("type_mismatch", format!("TO_TIMESTAMP takes a text, not {}", given.ty)).at(given.span);
        return Err(error.hint("write TO_TIMESTAMP_LTZ(number, 3) for milliseconds, or 0 for seconds"));
    }
    read(binder, "TO_TIMESTAMP", args, DataType::Timestamp(3), |seconds, nanos| calendar::join(seconds, nanos, 3))
}

fn to_date(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    read(binder, "TO_DATE", args, DataType::Date, |seconds, _| {
        let days = seconds.div_euclid(86_400);
        i32::try_from(days).is_ok().then_some(days)
    })
}

/// Seconds since 1970; NULL for what cannot be read (where Flink gives the smallest BIGINT).
fn unix_timestamp(binder: &mut Binder, args: Vec<Bound>) -> Bind {
    if !args.is_empty() {
        return read(binder, "UNIX_TIMESTAMP", args, DataType::BigInt, |seconds, _| Some(seconds));
    }
    let now = clock(binder, DataType::TimestampLtz(3))?;
    temporal::extract(binder, "EPOCH", now)
}

fn to_timestamp_ltz(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    if matches!(args[0].ty, Ty::Sql(DataType::String)) {
        return read(binder, "TO_TIMESTAMP_LTZ", args, DataType::TimestampLtz(3), |seconds, nanos| {
            calendar::join(seconds, nanos, 3)
        });
    }
    let given = match args.get(1) {
        None => 3,
        Some(precision) => match precision.integer() {
            Some(digits @ (0 | 3 | 6 | 9)) => digits as u8,
            _ => {
                let error = ExprError::new(
                    "wrong_arguments",
                    "the second argument of TO_TIMESTAMP_LTZ is the number's precision",
                )
                .at(precision.span);
                return Err(error.hint("write 0 for seconds, 3 for milliseconds, 6 or 9"));
            }
        },
    };
    args.truncate(1);
    let number = args.remove(0);
    let out = DataType::TimestampLtz(given.max(3));
    let (nullable, to) = (number.nullable, out.clone());
    if matches!(number.ty, Ty::Sql(DataType::Float | DataType::Double | DataType::Decimal(..))) {
        let number = binder.coerce(number, &DataType::Double, "TO_TIMESTAMP_LTZ")?;
        let factor = 10f64.powi(i32::from(given.max(3) - given));
        let run = kernel(move |args, _| {
            let values = args[0].array.as_primitive::<Float64Type>();
            as_timestamps(values.unary(|value| (value * factor).floor() as i64), &to)
        });
        return binder.call_with("TO_TIMESTAMP_LTZ", vec![number], Ty::Sql(out), nullable, false, run);
    }
    let number = binder.coerce(number, &DataType::BigInt, "TO_TIMESTAMP_LTZ")?;
    let run = kernel(move |args, _| {
        let values = args[0].array.as_primitive::<Int64Type>();
        let range = || fault(format!("a number is out of the range of {to}"));
        let values: PrimitiveArray<Int64Type> =
            values.try_unary(|value| calendar::rescale(value, given, given.max(3)).ok_or_else(range))?;
        as_timestamps(values, &to)
    });
    binder.call_with("TO_TIMESTAMP_LTZ", vec![number], Ty::Sql(out), nullable, given == 0, run)
}

fn from_unixtime(binder: &mut Binder, mut args: Vec<Bound>) -> Bind {
    let pattern =
        if args.len() > 1 { Some(binder.coerce(args.remove(1), &DataType::String, "FROM_UNIXTIME")?) } else { None };
    let patterns = Patterns::of(pattern.as_ref())?;
    let Some(constant) = patterns.constant else {
        return Err(ExprError::new("unsupported", "the pattern of FROM_UNIXTIME is a constant")
            .hint("write DATE_FORMAT(TO_TIMESTAMP_LTZ(n, 0), pattern)"));
    };
    map_integer(binder, "FROM_UNIXTIME", args, move |seconds, out| constant.write(out, seconds, 0))
}
