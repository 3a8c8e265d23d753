//! Times in expressions: intervals, their arithmetic, parts of times, and rounding to units.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, PrimitiveArray, Time64MicrosecondArray};
use arrow::datatypes::{Date32Type, Int64Type, Time64MicrosecondType};
use datafusion_common::{Result, ScalarValue};
use datafusion_sql::sqlparser::ast::{self, BinaryOperator, Expr};
use graph::{DataType, suggestion};

use crate::bind::{Bind, Binder, Bound, kernel};
use crate::calendar::{self, DAY_US};
use crate::cast::{as_timestamps, ticks};
use crate::error::{ExprError, fault};
use crate::operators::mismatch;
use crate::physical::Arg;
use crate::types::Ty;

/// A unit of time, as SQL names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Millennium,
    Century,
    Decade,
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    /// Sunday = 1.
    DayOfWeek,
    /// Monday = 1.
    IsoDayOfWeek,
    DayOfYear,
    IsoYear,
    Epoch,
}

const UNITS: &[(&str, Unit)] = &[
    ("MILLENNIUM", Unit::Millennium),
    ("CENTURY", Unit::Century),
    ("DECADE", Unit::Decade),
    ("YEAR", Unit::Year),
    ("YEARS", Unit::Year),
    ("QUARTER", Unit::Quarter),
    ("MONTH", Unit::Month),
    ("MONTHS", Unit::Month),
    ("WEEK", Unit::Week),
    ("WEEKS", Unit::Week),
    ("DAY", Unit::Day),
    ("DAYS", Unit::Day),
    ("HOUR", Unit::Hour),
    ("HOURS", Unit::Hour),
    ("MINUTE", Unit::Minute),
    ("MINUTES", Unit::Minute),
    ("SECOND", Unit::Second),
    ("SECONDS", Unit::Second),
    ("MILLISECOND", Unit::Millisecond),
    ("MILLISECONDS", Unit::Millisecond),
    ("MICROSECOND", Unit::Microsecond),
    ("MICROSECONDS", Unit::Microsecond),
    ("NANOSECOND", Unit::Nanosecond),
    ("DOW", Unit::DayOfWeek),
    ("DAYOFWEEK", Unit::DayOfWeek),
    ("ISODOW", Unit::IsoDayOfWeek),
    ("DOY", Unit::DayOfYear),
    ("DAYOFYEAR", Unit::DayOfYear),
    ("ISOYEAR", Unit::IsoYear),
    ("EPOCH", Unit::Epoch),
];

/// Reads the name of a unit; `SQL_TSI_DAY` is DAY.
pub(crate) fn unit(name: &str) -> Result<Unit, ExprError> {
    let upper = name.to_uppercase();
    let plain = upper.strip_prefix("SQL_TSI_").unwrap_or(&upper);
    UNITS.iter().find(|(known, _)| *known == plain).map(|(_, unit)| *unit).ok_or_else(|| {
        let error = ExprError::new("unknown_unit", format!("there is no unit of time {name}"));
        error.hint(suggestion(name, UNITS.iter().map(|(known, _)| *known)))
    })
}

impl Unit {
    /// Its length in microseconds, if it has one.
    fn us(self) -> Option<i64> {
        Some(match self {
            Unit::Week => 7 * DAY_US,
            Unit::Day => DAY_US,
            Unit::Hour => 3_600_000_000,
            Unit::Minute => 60_000_000,
            Unit::Second => 1_000_000,
            Unit::Millisecond => 1_000,
            Unit::Microsecond => 1,
            _ => return None,
        })
    }

    fn months(self) -> Option<i64> {
        Some(match self {
            Unit::Millennium => 12_000,
            Unit::Century => 1_200,
            Unit::Decade => 120,
            Unit::Year => 12,
            Unit::Quarter => 3,
            Unit::Month => 1,
            _ => return None,
        })
    }
}

fn months_literal(months: i64) -> Bound {
    Bound::constant(
        ScalarValue::Int64(Some(months)),
        Ty::YearMonth,
        datafusion_sql::sqlparser::tokenizer::Span::empty(),
    )
}

fn us_literal(us: i64) -> Bound {
    Bound::constant(ScalarValue::Int64(Some(us)), Ty::DayTime, datafusion_sql::sqlparser::tokenizer::Span::empty())
}

/// `INTERVAL '10' SECOND`, `INTERVAL '1 02:03:04.5' DAY TO SECOND`, `INTERVAL '1-6' YEAR TO MONTH`.
pub(crate) fn interval(binder: &mut Binder, interval: &ast::Interval) -> Bind {
    let Some(leading) = &interval.leading_field else {
        return Err(ExprError::new("syntax_error", "an INTERVAL needs a unit").hint("write INTERVAL '10' SECOND"));
    };
    let wrong = |text: &str| {
        let error = ExprError::new(
            "invalid_interval",
            format!("cannot read {text:?} as an INTERVAL {interval_units}", interval_units = units(interval)),
        );
        error.hint("write INTERVAL '10' SECOND, INTERVAL '1 02:03:04.5' DAY TO SECOND or INTERVAL '1-6' YEAR TO MONTH")
    };
    let text = match binder.bind(&interval.value)? {
        bound if bound.text().is_some() => bound.text().unwrap_or_default().trim().to_string(),
        bound if bound.integer().is_some() => bound.integer().unwrap_or_default().to_string(),
        bound => {
            let error =
                ExprError::new("unsupported", format!("the length of an INTERVAL is a constant, not {}", bound.ty));
            return Err(error.hint("write n * INTERVAL '1' SECOND, or TIMESTAMPADD(SECOND, n, t)"));
        }
    };
    let from = unit(&leading.to_string())?;
    let to = interval.last_field.as_ref().map_or(Ok(from), |field| unit(&field.to_string()))?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(&text)),
    };
    let sign = if negative { -1 } else { 1 };
    if let Some(months) = from.months() {
        let total = match (from, to) {
            (Unit::Year, Unit::Month) => {
                let (years, more) = digits.split_once('-').ok_or_else(|| wrong(&text))?;
                let more = whole(more).filter(|more| *more < 12);
                whole(years).zip(more).and_then(|(years, more)| years.checked_mul(12)?.checked_add(more))
            }
            _ if from == to => whole(digits).and_then(|count| count.checked_mul(months)),
            _ => None,
        };
        return Ok(months_literal(sign * total.ok_or_else(|| wrong(&text))?));
    }
    let total = if from == to { fraction(digits, from) } else { clock(digits, from, to) };
    Ok(us_literal(sign * total.ok_or_else(|| wrong(&text))?))
}

fn units(interval: &ast::Interval) -> String {
    let leading = interval.leading_field.as_ref().map_or(String::new(), ToString::to_string);
    interval.last_field.as_ref().map_or(leading.clone(), |last| format!("{leading} TO {last}"))
}

fn whole(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A count of a unit, for seconds and finer with a fraction.
fn fraction(text: &str, unit: Unit) -> Option<i64> {
    let us = unit.us()?;
    let (count, fraction) = text.split_once('.').unwrap_or((text, ""));
    let total = whole(count)?.checked_mul(us)?;
    if fraction.is_empty() {
        return Some(total);
    }
    (unit == Unit::Second && fraction.len() <= 6 && fraction.bytes().all(|byte| byte.is_ascii_digit())).then_some(())?;
    total.checked_add(format!("{fraction:0<6}").parse().ok()?)
}

/// `1 02:03:04.5`: the units from `from` to `to`.
fn clock(text: &str, from: Unit, to: Unit) -> Option<i64> {
    const ORDER: [Unit; 4] = [Unit::Day, Unit::Hour, Unit::Minute, Unit::Second];
    let first = ORDER.iter().position(|unit| *unit == from)?;
    let last = ORDER.iter().position(|unit| *unit == to).filter(|last| *last > first)?;
    let parts: Vec<&str> = text.split([' ', ':']).filter(|part| !part.is_empty()).collect();
    if parts.len() != last - first + 1 {
        return None;
    }
    let mut total = 0i64;
    for (part, unit) in parts.iter().zip(&ORDER[first..=last]) {
        total = total.checked_add(fraction(part, *unit)?)?;
    }
    Some(total)
}

/// `t + INTERVAL`, `t - t`, `INTERVAL * n` and the like.
pub(crate) fn arithmetic(binder: &mut Binder, left: Bound, op: &BinaryOperator, right: Bound) -> Bind {
    let (plus, minus, times) =
        (*op == BinaryOperator::Plus, *op == BinaryOperator::Minus, *op == BinaryOperator::Multiply);
    let number = |ty: &Ty| matches!(ty, Ty::Sql(t) if t.is_integer());
    match (&left.ty, &right.ty) {
        (Ty::Sql(_), Ty::DayTime) if plus || minus => add_us(binder, left, right, minus),
        (Ty::DayTime, Ty::Sql(_)) if plus => add_us(binder, right, left, false),
        (Ty::Sql(_), Ty::YearMonth) if plus || minus => add_months(binder, left, right, minus),
        (Ty::YearMonth, Ty::Sql(_)) if plus => add_months(binder, right, left, false),
        (Ty::DayTime, Ty::DayTime) | (Ty::YearMonth, Ty::YearMonth) if plus || minus => {
            count_arithmetic(binder, left, op, right)
        }
        (a, b) if times && a.is_interval() && number(b) => {
            let right = binder.coerce(right, &DataType::BigInt, "INTERVAL *")?;
            count_arithmetic(binder, left, op, right)
        }
        (a, b) if times && number(a) && b.is_interval() => {
            let left = binder.coerce(left, &DataType::BigInt, "* INTERVAL")?;
            count_arithmetic(binder, right, op, left)
        }
        (Ty::Null, ty) | (ty, Ty::Null) if plus || minus => match ty {
            Ty::Sql(t) => binder.null(&t.clone()),
            _ => Err(mismatch(&left, op, &right)),
        },
        (Ty::Sql(a), Ty::Sql(b)) if minus && instant(a) && instant(b) => {
            let micros = |binder: &mut Binder, bound: Bound| {
                let to = if matches!(bound.ty, Ty::Sql(DataType::TimestampLtz(_))) {
                    DataType::TimestampLtz(6)
                } else {
                    DataType::Timestamp(6)
                };
                binder.coerce(bound, &to, "-")
            };
            let (left, right) = (micros(binder, left)?, micros(binder, right)?);
            let nullable = left.nullable || right.nullable;
            let kernel = kernel(|args, rows| both(args, rows, i64::checked_sub, "the difference of two times"));
            binder.call_with("-", vec![left, right], Ty::DayTime, nullable, true, kernel)
        }
        (Ty::Sql(a), Ty::Sql(b)) if (instant(a) && b.is_numeric()) || (a.is_numeric() && instant(b)) => {
            Err(mismatch(&left, op, &right).hint("write t + INTERVAL '10' SECOND, or TIMESTAMPADD(SECOND, n, t)"))
        }
        _ => Err(mismatch(&left, op, &right)),
    }
}

fn instant(t: &DataType) -> bool {
    t.is_timestamp() || *t == DataType::Date
}

fn count_arithmetic(binder: &mut Binder, left: Bound, op: &BinaryOperator, right: Bound) -> Bind {
    let (ty, nullable) = (left.ty.clone(), left.nullable || right.nullable);
    let step = match op {
        BinaryOperator::Plus => i64::checked_add,
        BinaryOperator::Minus => i64::checked_sub,
        _ => i64::checked_mul,
    };
    binder.call_with(
        "interval",
        vec![left, right],
        ty,
        nullable,
        true,
        kernel(move |args, rows| both(args, rows, step, "an INTERVAL")),
    )
}

/// A checked operation on two arrays that hold numbers (of any unit).
fn both(args: &[Arg], rows: usize, step: impl Fn(i64, i64) -> Option<i64>, what: &str) -> Result<ArrayRef> {
    let (a, b) = (ticks(&args[0].array)?, ticks(&args[1].array)?);
    Ok(Arc::new(pairs(args, &a, &b, rows, step, what)?))
}

fn pairs(
    args: &[Arg],
    a: &PrimitiveArray<Int64Type>,
    b: &PrimitiveArray<Int64Type>,
    rows: usize,
    step: impl Fn(i64, i64) -> Option<i64>,
    what: &str,
) -> Result<PrimitiveArray<Int64Type>> {
    let nulls = crate::operators::nulls_of(&[&args[0], &args[1]], rows);
    let mut values = vec![0i64; rows];
    for (row, slot) in values.iter_mut().enumerate() {
        if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
            *slot = step(a.value(args[0].at(row)), b.value(args[1].at(row)))
                .ok_or_else(|| fault(format!("{what} is out of range")))?;
        }
    }
    Ok(PrimitiveArray::new(values.into(), nulls))
}

/// The precision that shows a length without loss.
fn precision_for(us: i64) -> u8 {
    if us % 1_000_000 == 0 {
        0
    } else if us % 1_000 == 0 {
        3
    } else {
        6
    }
}

/// A time plus or minus microseconds. A constant finer than the time's precision makes the result finer.
pub(crate) fn add_us(binder: &mut Binder, time: Bound, interval: Bound, minus: bool) -> Bind {
    let constant = match &interval.literal {
        Some(ScalarValue::Int64(us)) => *us,
        _ => None,
    };
    let Ty::Sql(t) = time.ty.clone() else {
        return Err(ExprError::new("type_mismatch", "an INTERVAL is added to a time"));
    };
    let to = match &t {
        DataType::Date if constant.is_some_and(|us| us % DAY_US == 0) => DataType::Date,
        DataType::Date => DataType::Timestamp(constant.map_or(6, precision_for)),
        DataType::Timestamp(p) => DataType::Timestamp(constant.map_or(*p, |us| precision_for(us).max(*p))),
        DataType::TimestampLtz(p) => DataType::TimestampLtz(constant.map_or(*p, |us| precision_for(us).max(*p))),
        DataType::Time => DataType::Time,
        other => {
            let error = ExprError::new("type_mismatch", format!("an INTERVAL is added to a time, not to {other}"))
                .at(time.span);
            return Err(error.hint("write CAST(... AS TIMESTAMP(3)) around it"));
        }
    };
    let nullable = time.nullable || interval.nullable;
    let time = binder.coerce(time, &to, "+")?;
    let out = to.clone();
    let kernel = kernel(move |args, rows| {
        let us = args[1].array.as_primitive::<Int64Type>();
        let sign = if minus { -1 } else { 1 };
        match &out {
            DataType::Date => {
                let days = ticks(&args[0].array)?;
                let sum = pairs(args, &days, us, rows, |day, us| day.checked_add(sign * (us / DAY_US)), "a DATE")?;
                Ok(Arc::new(Date32Array::from_iter(sum.iter().map(|day| day.map(|day| day as i32)))) as ArrayRef)
            }
            DataType::Time => {
                let time = args[0].array.as_primitive::<Time64MicrosecondType>().reinterpret_cast::<Int64Type>();
                let sum = pairs(
                    args,
                    &time,
                    us,
                    rows,
                    |time, us| Some((time + sign * (us % DAY_US)).rem_euclid(DAY_US)),
                    "a TIME",
                )?;
                Ok(Arc::new(Time64MicrosecondArray::new(sum.values().clone(), sum.nulls().cloned())))
            }
            DataType::Timestamp(p) | DataType::TimestampLtz(p) => {
                let per_second = calendar::per_second(*p);
                let scaled = move |us: i64| match per_second >= 1_000_000 {
                    true => us.checked_mul(per_second / 1_000_000),
                    false => Some(us.div_euclid(1_000_000 / per_second)),
                };
                let time = ticks(&args[0].array)?;
                let sum = pairs(args, &time, us, rows, |time, us| time.checked_add(scaled(sign * us)?), "a timestamp")?;
                as_timestamps(sum, &out)
            }
            other => Err(fault(format!("{other} is no time"))),
        }
    });
    binder.call_with("+ INTERVAL", vec![time, interval], Ty::Sql(to), nullable, true, kernel)
}

/// A date or timestamp plus or minus months; the day is cut to the length of the month.
pub(crate) fn add_months(binder: &mut Binder, time: Bound, months: Bound, minus: bool) -> Bind {
    let Ty::Sql(t) = time.ty.clone() else {
        return Err(ExprError::new("type_mismatch", "an INTERVAL is added to a time"));
    };
    if !instant(&t) {
        return Err(ExprError::new("type_mismatch", format!("months are added to a DATE or a timestamp, not to {t}"))
            .at(time.span));
    }
    let nullable = time.nullable || months.nullable;
    let out = t.clone();
    let kernel = kernel(move |args, rows| {
        let months = args[1].array.as_primitive::<Int64Type>();
        let per_day = if let DataType::Timestamp(p) | DataType::TimestampLtz(p) = &out {
            86_400 * calendar::per_second(*p)
        } else {
            1
        };
        let time = ticks(&args[0].array)?;
        let moved = |time: i64, months: i64| {
            let days =
                calendar::add_months(time.div_euclid(per_day), if minus { months.checked_neg()? } else { months })?;
            days.checked_mul(per_day)?.checked_add(time.rem_euclid(per_day))
        };
        let sum = pairs(args, &time, months, rows, moved, "a time")?;
        match &out {
            DataType::Date => {
                Ok(Arc::new(Date32Array::from_iter(sum.iter().map(|day| day.map(|day| day as i32)))) as ArrayRef)
            }
            timestamp => as_timestamps(sum, timestamp),
        }
    });
    binder.call_with("+ INTERVAL", vec![time, months], Ty::Sql(t), nullable, true, kernel)
}

/// `EXTRACT(unit FROM t)`: BIGINT.
pub(crate) fn extract(binder: &mut Binder, name: &str, time: Bound) -> Bind {
    let unit = unit(name)?;
    let Ty::Sql(t) = time.ty.clone() else {
        return match time.ty {
            Ty::Null => binder.null(&DataType::BigInt),
            other => Err(ExprError::new("type_mismatch", format!("EXTRACT takes a time, not {other}")).at(time.span)),
        };
    };
    let of_day = matches!(
        unit,
        Unit::Hour | Unit::Minute | Unit::Second | Unit::Millisecond | Unit::Microsecond | Unit::Nanosecond
    );
    let known = instant(&t) || (t == DataType::Time && of_day);
    if !known {
        let error =
            ExprError::new("type_mismatch", format!("{name} is a part of a time, and {t} has none")).at(time.span);
        return Err(error.hint(if t == DataType::String {
            "write TO_TIMESTAMP(text)"
        } else {
            "write CAST(... AS TIMESTAMP(3))"
        }));
    }
    let nullable = time.nullable;
    let kernel = kernel(move |args, _| {
        let values: PrimitiveArray<Int64Type> = match &t {
            DataType::Date => {
                let days = args[0].array.as_primitive::<Date32Type>();
                days.unary(|day| part(unit, i64::from(day) * 86_400, 0))
            }
            DataType::Time => {
                let time = args[0].array.as_primitive::<Time64MicrosecondType>();
                time.unary(|us| part(unit, us / 1_000_000, (us % 1_000_000) as u32 * 1_000))
            }
            DataType::Timestamp(p) | DataType::TimestampLtz(p) => {
                let time = ticks(&args[0].array)?;
                let per_second = calendar::per_second(*p);
                let per_unit = unit.us().filter(|us| *us >= 1_000_000).map(|us| us / 1_000_000 * per_second);
                match (unit, per_unit) {
                    (Unit::Hour, Some(per_unit)) => time.unary(|v| v.div_euclid(per_unit).rem_euclid(24)),
                    (Unit::Minute | Unit::Second, Some(per_unit)) => {
                        time.unary(|v| v.div_euclid(per_unit).rem_euclid(60))
                    }
                    _ => time.unary(|v| {
                        let (seconds, nanos) = calendar::split(v, *p);
                        part(unit, seconds, nanos)
                    }),
                }
            }
            other => return Err(fault(format!("{other} is no time"))),
        };
        Ok(Arc::new(values) as ArrayRef)
    });
    binder.call_with("EXTRACT", vec![time], Ty::Sql(DataType::BigInt), nullable, false, kernel)
}

fn part(unit: Unit, seconds: i64, nanos: u32) -> i64 {
    let days = seconds.div_euclid(86_400);
    let of_day = seconds.rem_euclid(86_400);
    let year = || calendar::civil_from_days(days).0;
    // The first year of the first century is 1, and there is no year 0.
    let counted =
        |length: i64| if year() > 0 { (year() + length - 1) / length } else { (year() - length + 1) / length };
    match unit {
        Unit::Millennium => counted(1_000),
        Unit::Century => counted(100),
        Unit::Decade => year().div_euclid(10),
        Unit::Year => year(),
        Unit::Quarter => i64::from((calendar::civil_from_days(days).1 - 1) / 3 + 1),
        Unit::Month => i64::from(calendar::civil_from_days(days).1),
        Unit::Week => calendar::iso_week(days).1,
        Unit::Day => i64::from(calendar::civil_from_days(days).2),
        Unit::Hour => of_day / 3_600,
        Unit::Minute => of_day / 60 % 60,
        Unit::Second => of_day % 60,
        Unit::Millisecond => of_day % 60 * 1_000 + i64::from(nanos / 1_000_000),
        Unit::Microsecond => of_day % 60 * 1_000_000 + i64::from(nanos / 1_000),
        Unit::Nanosecond => of_day % 60 * 1_000_000_000 + i64::from(nanos),
        Unit::DayOfWeek => calendar::iso_weekday(days) % 7 + 1,
        Unit::IsoDayOfWeek => calendar::iso_weekday(days),
        Unit::DayOfYear => calendar::day_of_year(days),
        Unit::IsoYear => calendar::iso_week(days).0,
        Unit::Epoch => seconds,
    }
}

/// `FLOOR(t TO unit)` and `CEIL(t TO unit)`; weeks begin on Sunday, as in Flink.
pub(crate) fn round(binder: &mut Binder, time: Bound, name: &str, up: bool) -> Bind {
    let unit = unit(name)?;
    let function = if up { "CEIL" } else { "FLOOR" };
    let t = match &time.ty {
        Ty::Sql(t) if instant(t) => t.clone(),
        Ty::Null => return Ok(time),
        other => {
            return Err(ExprError::new(
                "type_mismatch",
                format!("{function}(t TO {name}) takes a DATE or a timestamp, not {other}"),
            )
            .at(time.span));
        }
    };
    if unit.us().is_none() && unit.months().is_none() {
        return Err(ExprError::new("unknown_unit", format!("{function} does not round to {name}"))
            .hint("there is YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND"));
    }
    let nullable = time.nullable;
    let out = t.clone();
    let kernel = kernel(move |args, _| {
        let per_day = if let DataType::Timestamp(p) | DataType::TimestampLtz(p) = &out {
            86_400 * calendar::per_second(*p)
        } else {
            1
        };
        let time = ticks(&args[0].array)?;
        let length = unit
            .us()
            .filter(|us| *us < DAY_US)
            .map(|us| (i128::from(us) * i128::from(per_day) / i128::from(DAY_US)) as i64);
        let floor = |v: i64| -> i64 {
            match length {
                // Finer than the precision: nothing to cut.
                Some(0) => v,
                Some(length) => v.div_euclid(length) * length,
                None => floor_days(unit, v.div_euclid(per_day)) * per_day,
            }
        };
        let next = |v: i64| -> i64 {
            match (length, unit.months()) {
                (Some(length), _) => v + length.max(1),
                (None, Some(months)) => calendar::add_months(v.div_euclid(per_day), months).unwrap_or(0) * per_day,
                (None, None) => v + if unit == Unit::Week { 7 * per_day } else { per_day },
            }
        };
        let rounded: PrimitiveArray<Int64Type> = time.unary(|v| match floor(v) {
            low if up && low != v => next(low),
            low => low,
        });
        match &out {
            DataType::Date => {
                Ok(Arc::new(Date32Array::from_iter(rounded.iter().map(|day| day.map(|day| day as i32)))) as ArrayRef)
            }
            timestamp => as_timestamps(rounded, timestamp),
        }
    });
    binder.call_with(function, vec![time], Ty::Sql(t), nullable, false, kernel)
}

fn floor_days(unit: Unit, days: i64) -> i64 {
    let (year, month, _) = calendar::civil_from_days(days);
    let first = |length: i64| calendar::days_from_civil((year - 1).div_euclid(length) * length + 1, 1, 1);
    match unit {
        Unit::Millennium => first(1_000),
        Unit::Century => first(100),
        Unit::Decade => calendar::days_from_civil(year.div_euclid(10) * 10, 1, 1),
        Unit::Year => calendar::days_from_civil(year, 1, 1),
        Unit::Quarter => calendar::days_from_civil(year, (month - 1) / 3 * 3 + 1, 1),
        Unit::Month => calendar::days_from_civil(year, month, 1),
        Unit::Week => days - calendar::iso_weekday(days) % 7,
        _ => days,
    }
}

/// `TIMESTAMPADD(unit, n, t)`.
pub(crate) fn timestamp_add(binder: &mut Binder, unit_name: &Expr, count: &Expr, time: &Expr) -> Bind {
    let unit = unit(&unit_name.to_string())?;
    let count = binder.bind(count)?;
    let count = binder.coerce(count, &DataType::BigInt, "TIMESTAMPADD")?;
    let time = binder.bind(time)?;
    let time = text_as_timestamp(binder, time)?;
    let length = match (unit.us(), unit.months()) {
        (Some(us), _) => us_literal(us),
        (None, Some(months)) => months_literal(months),
        _ => return Err(ExprError::new("unknown_unit", format!("TIMESTAMPADD does not add {unit_name}"))),
    };
    let months = length.ty == Ty::YearMonth;
    // A date moves by whole days, whatever the count is.
    if let (Ty::Sql(DataType::Date), Unit::Day | Unit::Week) = (&time.ty, unit) {
        let nullable = time.nullable || count.nullable;
        let per = unit.us().unwrap_or(DAY_US) / DAY_US;
        let kernel = kernel(move |args, rows| {
            let (count, days) = (args[0].array.as_primitive::<Int64Type>().clone(), ticks(&args[1].array)?);
            let sum = pairs(
                args,
                &count,
                &days,
                rows,
                |count, day| day.checked_add(count.checked_mul(per)?).filter(|day| i32::try_from(*day).is_ok()),
                "a DATE",
            )?;
            Ok(Arc::new(Date32Array::from_iter(sum.iter().map(|day| day.map(|day| day as i32)))) as ArrayRef)
        });
        return binder.call_with("TIMESTAMPADD", vec![count, time], Ty::Sql(DataType::Date), nullable, true, kernel);
    }
    // A date with hours is a timestamp of seconds, a finer unit makes the result finer.
    let fine = precision_for(unit.us().unwrap_or(0));
    let time = match &time.ty {
        Ty::Sql(DataType::Date) if !months => binder.coerce(time, &DataType::Timestamp(fine), "TIMESTAMPADD")?,
        Ty::Sql(DataType::Timestamp(p)) if *p < fine => {
            binder.coerce(time, &DataType::Timestamp(fine), "TIMESTAMPADD")?
        }
        Ty::Sql(DataType::TimestampLtz(p)) if *p < fine => {
            binder.coerce(time, &DataType::TimestampLtz(fine), "TIMESTAMPADD")?
        }
        _ => time,
    };
    let interval = count_arithmetic(binder, length, &BinaryOperator::Multiply, count)?;
    if months { add_months(binder, time, interval, false) } else { add_us(binder, time, interval, false) }
}

fn text_as_timestamp(binder: &mut Binder, time: Bound) -> Bind {
    match &time.ty {
        Ty::Sql(DataType::String) if time.literal.is_some() => binder.coerce(time, &DataType::Timestamp(3), "a time"),
        _ => Ok(time),
    }
}

/// `TIMESTAMPDIFF(unit, a, b)`: whole units from a to b. INT as in Flink; BIGINT for units below a second.
pub(crate) fn timestamp_diff(binder: &mut Binder, unit_name: &Expr, from: &Expr, to: &Expr) -> Bind {
    let unit = unit(&unit_name.to_string())?;
    if unit.us().is_none() && unit.months().is_none() {
        return Err(ExprError::new("unknown_unit", format!("TIMESTAMPDIFF does not count {unit_name}")));
    }
    let mut sides = Vec::with_capacity(2);
    for side in [from, to] {
        let bound = binder.bind(side)?;
        let bound = text_as_timestamp(binder, bound)?;
        let fits = matches!(&bound.ty, Ty::Sql(t) if instant(t)) || bound.ty == Ty::Null;
        if !fits {
            return Err(ExprError::new("type_mismatch", format!("TIMESTAMPDIFF takes two times, not {}", bound.ty))
                .at(bound.span));
        }
        let micros = if matches!(bound.ty, Ty::Sql(DataType::TimestampLtz(_))) {
            DataType::TimestampLtz(6)
        } else {
            DataType::Timestamp(6)
        };
        sides.push(binder.coerce(bound, &micros, "TIMESTAMPDIFF")?);
    }
    let nullable = sides.iter().any(|side| side.nullable);
    let fine = matches!(unit, Unit::Millisecond | Unit::Microsecond);
    let kernel = kernel(move |args, rows| {
        let count = |a: i64, b: i64| match (unit.us(), unit.months()) {
            (Some(us), _) => Some(b.checked_sub(a)? / us),
            (None, months) => Some(months_between(a, b) / months?),
        };
        both(args, rows, count, "the difference of two times")
    });
    let count = binder.call_with("TIMESTAMPDIFF", sides, Ty::Sql(DataType::BigInt), nullable, true, kernel)?;
    if fine { Ok(count) } else { binder.cast(count, &DataType::Int, crate::cast::Mode::Strict) }
}

/// Months from a to b, microseconds since 1970: the largest number that does not step over b, as Calcite counts.
fn months_between(a: i64, b: i64) -> i64 {
    let (days_a, days_b) = (a.div_euclid(DAY_US), b.div_euclid(DAY_US));
    if days_b < days_a {
        return -months_between(b, a);
    }
    let ((year_a, month_a, _), (year_b, month_b, _)) =
        (calendar::civil_from_days(days_a), calendar::civil_from_days(days_b));
    let mut months = (year_b - year_a) * 12 + i64::from(month_b) - i64::from(month_a);
    let reached = |months: i64| calendar::add_months(days_a, months).unwrap_or(i64::MAX);
    if reached(months) > days_b {
        months -= 1;
    }
    if reached(months) == days_b && b.rem_euclid(DAY_US) < a.rem_euclid(DAY_US) {
        months -= 1;
    }
    months
}
