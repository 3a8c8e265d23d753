//! Columns of time as microseconds since the Unix epoch, and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute;
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};

use super::panes::{LENGTH_MAX, TIME_MAX, TIME_MIN};
use crate::error::{Result, RunError};

/// A column of event times or window bounds.
pub struct Times {
    /// Microseconds, one per row.
    pub micros: ScalarBuffer<i64>,
    /// The smallest and the largest; `i64::MAX` and `i64::MIN` without rows.
    pub min: i64,
    pub max: i64,
}

impl Times {
    /// Reads a timestamp column. Times before year 1 or so far after year 9999 that no window can hold them are refused.
    pub fn read(column: &ArrayRef) -> Result<Times> {
        if column.null_count() > 0 {
            // Sources deal with NULL in a time attribute, so that no operator has to.
            return Err(RunError::internal("a time attribute is NULL behind its source"));
        }
        let micros = micros(column)?;
        let (min, max) = bounds(column)?.unwrap_or((i64::MAX, i64::MIN));
        if !micros.is_empty() && (min < TIME_MIN - LENGTH_MAX || max > TIME_MAX + LENGTH_MAX) {
            let far = if min < TIME_MIN - LENGTH_MAX { min } else { max };
            return Err(RunError::user(
                "time_out_of_range",
                format!("an event time of {far} microseconds since 1970 is outside the years 0001 to 9999"),
            )
            .hint("filter such rows, or check the unit of the time column"));
        }
        Ok(Times { micros, min, max })
    }
}

/// Microseconds of a timestamp column; free where it holds microseconds. Rows that are NULL have any value.
pub fn micros(column: &ArrayRef) -> Result<ScalarBuffer<i64>> {
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            column.as_primitive::<TimestampSecondType>().values().iter().map(|t| t.saturating_mul(1_000_000)).collect()
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            column.as_primitive::<TimestampMillisecondType>().values().iter().map(|t| t.saturating_mul(1_000)).collect()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            column.as_primitive::<TimestampMicrosecondType>().values().clone()
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            column.as_primitive::<TimestampNanosecondType>().values().iter().map(|t| t.div_euclid(1_000)).collect()
        }
        other => return Err(RunError::internal(format!("{other} cannot be a time attribute"))),
    })
}

/// The earliest and the latest time of a column, microseconds; `None` if all are NULL.
pub fn bounds(column: &ArrayRef) -> Result<Option<(i64, i64)>> {
    fn of<T: ArrowPrimitiveType<Native = i64>>(column: &ArrayRef) -> Option<(i64, i64)> {
        let column = column.as_primitive::<T>();
        if column.null_count() > 0 {
            return compute::min(column).zip(compute::max(column));
        }
        let wider = |(min, max): (i64, i64), time: &i64| (min.min(*time), max.max(*time));
        let (first, rest) = column.values().split_first()?;
        Some(rest.iter().fold((*first, *first), wider))
    }
    let (bounds, unit) = match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => (of::<TimestampSecondType>(column), 1_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => (of::<TimestampMillisecondType>(column), 1_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => (of::<TimestampMicrosecondType>(column), 1),
        other => return Err(RunError::internal(format!("{other} cannot be a time attribute"))),
    };
    // Saturating: a time beyond the range of microseconds stays at its end of the range.
    Ok(bounds.map(|(min, max)| (min.saturating_mul(unit), max.saturating_mul(unit))))
}

/// A timestamp column of the given type; the times are whole numbers of its unit.
pub fn timestamps(micros: Vec<i64>, data_type: &DataType) -> ArrayRef {
    let scaled = |unit: i64| micros.iter().map(|time| time.div_euclid(unit)).collect::<ScalarBuffer<i64>>();
    match data_type {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            Arc::new(TimestampSecondArray::new(scaled(1_000_000), None).with_timezone_opt(zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            Arc::new(TimestampMillisecondArray::new(scaled(1_000), None).with_timezone_opt(zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            Arc::new(TimestampMicrosecondArray::new(micros.into(), None).with_timezone_opt(zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            let nanos: ScalarBuffer<i64> = micros.iter().map(|time| time.saturating_mul(1_000)).collect();
            Arc::new(TimestampNanosecondArray::new(nanos, None).with_timezone_opt(zone.clone()))
        }
        other => panic!("planning gives window columns a timestamp type, not {other}"),
    }
}
