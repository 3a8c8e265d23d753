//! From the types that a file has to the types that the table declares: what fits is converted, what does not is refused.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, RecordBatch, RecordBatchOptions, Scalar, UInt32Array,
    new_null_array,
};
use arrow::compute::kernels::cmp;
use arrow::compute::{self, CastOptions};
use arrow::datatypes::{
    ArrowTimestampType, DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;
use engine::Pushed;

/// The type to ask a decoder for, so that it makes the table's representation at once: plain texts and bytes, no views and dictionaries.
pub fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => plain_type(values),
        other => other.clone(),
    }
}

pub fn plain_schema(schema: &Schema) -> SchemaRef {
    let plain = |field: &Arc<Field>| Arc::new(field.as_ref().clone().with_data_type(plain_type(field.data_type())));
    Arc::new(Schema::new_with_metadata(
        schema.fields().iter().map(plain).collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

/// Whether every value of `from` has its meaning in `to`. Narrowing is refused, except that fractions of seconds are cut to the declared
/// precision; unsigned 64-bit integers are read as BIGINT as long as they fit.
pub fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let from = plain_type(from);
    match (&from, to) {
        _ if from == *to => true,
        (Null, _) => true,
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (UInt8, Int16 | Int32 | Int64) | (UInt16, Int32 | Int64) | (UInt32 | UInt64, Int64) => true,
        (Int8 | Int16 | Int32 | UInt8 | UInt16 | UInt32 | Float16 | Float32, Float64)
        | (Int8 | Int16 | UInt8 | UInt16 | Float16, Float32) => true,
        (integer, Decimal128(precision, scale)) if integer.is_integer() => {
            integer_digits(integer) <= i16::from(*precision) - i16::from(*scale)
        }
        (Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s), Decimal128(precision, scale)) => {
            s <= scale && i16::from(*p) - i16::from(*s) <= i16::from(*precision) - i16::from(*scale)
        }
        (Date64, Date32) | (Time32(_) | Time64(_), Time64(_)) | (FixedSizeBinary(_), Binary) => true,
        (Timestamp(..), Timestamp(..)) => true,
        (List(item) | LargeList(item) | FixedSizeList(item, _) | ListView(item), List(wanted)) => {
            fits(item.data_type(), wanted.data_type())
        }
        (Struct(have), Struct(want)) => {
            have.len() == want.len()
                && have
                    .iter()
                    .zip(want)
                    .all(|(have, want)| have.name() == want.name() && fits(have.data_type(), want.data_type()))
        }
        (Map(have, _), Map(want, _)) => match (have.data_type(), want.data_type()) {
            (Struct(have), Struct(want)) => {
                have.iter().zip(want).all(|(have, want)| fits(have.data_type(), want.data_type()))
            }
            _ => false,
        },
        _ => false,
    }
}

fn integer_digits(integer: &DataType) -> i16 {
    match integer {
        DataType::Int8 | DataType::UInt8 => 3,
        DataType::Int16 | DataType::UInt16 => 5,
        DataType::Int32 | DataType::UInt32 => 10,
        DataType::Int64 => 19,
        _ => 20,
    }
}

/// The column in the declared type; [`fits`] must hold. Errors are values out of range.
pub fn coerced(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    if let (DataType::Timestamp(from, _), DataType::Timestamp(unit, zone)) = (column.data_type(), to) {
        return truncated(column, *from, *unit, zone.clone());
    }
    compute::cast_with_options(column, to, &CastOptions { safe: false, ..CastOptions::default() })
}

/// Units per second.
fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Timestamps in another unit, cut toward the past (also before 1970: the order of times must stay). Zones only say how to show an instant.
fn truncated(column: &ArrayRef, from: TimeUnit, to: TimeUnit, zone: Option<Arc<str>>) -> Result<ArrayRef, ArrowError> {
    fn typed<T: ArrowTimestampType>(
        values: &ArrayRef,
        (have, want): (i64, i64),
        zone: Option<Arc<str>>,
    ) -> Result<ArrayRef, ArrowError> {
        let values = values.as_primitive::<arrow::datatypes::Int64Type>();
        let values: PrimitiveArray<T> = if have >= want {
            let factor = have / want;
            values.unary(|value| value.div_euclid(factor))
        } else {
            let factor = want / have;
            values.try_unary(|value| {
                value
                    .checked_mul(factor)
                    .ok_or_else(|| ArrowError::ComputeError(format!("{value} is out of the range of the time's unit")))
            })?
        };
        Ok(Arc::new(values.with_timezone_opt(zone)))
    }
    let values = compute::cast(column, &DataType::Int64)?;
    let units = (per_second(from), per_second(to));
    match to {
        TimeUnit::Second => typed::<TimestampSecondType>(&values, units, zone),
        TimeUnit::Millisecond => typed::<TimestampMillisecondType>(&values, units, zone),
        TimeUnit::Microsecond => typed::<TimestampMicrosecondType>(&values, units, zone),
        TimeUnit::Nanosecond => typed::<TimestampNanosecondType>(&values, units, zone),
    }
}

/// The first row whose value cannot be converted: what [`coerced`] failed on.
pub fn first_misfit(column: &ArrayRef, to: &DataType) -> usize {
    // Halve: the conversion of a prefix fails iff the row is in it.
    let (mut good, mut bad) = (0, column.len());
    while bad - good > 1 {
        let middle = (good + bad) / 2;
        match coerced(&column.slice(good, middle - good), to) {
            Ok(_) => good = middle,
            Err(_) => bad = middle,
        }
    }
    good
}

/// Time values in microseconds, cut toward the past.
pub fn microseconds(times: &ArrayRef) -> Option<PrimitiveArray<arrow::datatypes::Int64Type>> {
    let DataType::Timestamp(unit, _) = times.data_type() else { return None };
    let in_us = truncated(times, *unit, TimeUnit::Microsecond, None).ok()?;
    Some(compute::cast(&in_us, &DataType::Int64).ok()?.as_primitive().clone())
}

/// A comparison of a column with a constant that every wanted row fulfils.
#[derive(Clone, Debug)]
pub struct Predicate {
    pub column: String,
    pub op: Comparison,
    /// One value of the column's type.
    pub literal: ArrayRef,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Eq,
    Lt,
    LtEq,
    Gt,
    GtEq,
}

impl Predicate {
    /// Those of the conditions that can be used; the others are left to the engine, which applies all of them anyway.
    pub fn usable(pushed: &[Pushed], schema: &Schema) -> Vec<Predicate> {
        let usable = |one: &Pushed| {
            let op = match one.op.as_str() {
                "=" => Comparison::Eq,
                "<" => Comparison::Lt,
                "<=" => Comparison::LtEq,
                ">" => Comparison::Gt,
                ">=" => Comparison::GtEq,
                _ => return None,
            };
            let field = schema.field_with_name(&one.column).ok()?;
            let text = match one.literal.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
                Some(quoted) => quoted.replace("''", "'"),
                None => one.literal.clone(),
            };
            let literal = Constant::parse(Some(&text), field.data_type()).ok()?.one;
            literal.is_valid(0).then(|| Predicate { column: one.column.clone(), op, literal })
        };
        pushed.iter().filter_map(usable).collect()
    }

    /// For each pair of bounds, whether they prove that the condition is true for no row between them. NULL is "not known".
    pub fn excludes(&self, mins: &ArrayRef, maxes: &ArrayRef) -> Result<BooleanArray, ArrowError> {
        let literal = Scalar::new(self.literal.clone());
        match self.op {
            Comparison::Lt => cmp::gt_eq(mins, &literal),
            Comparison::LtEq => cmp::gt(mins, &literal),
            Comparison::Gt => cmp::lt_eq(maxes, &literal),
            Comparison::GtEq => cmp::lt(maxes, &literal),
            Comparison::Eq => compute::or_kleene(&cmp::gt(mins, &literal)?, &cmp::lt(maxes, &literal)?),
        }
    }
}

/// One value for many rows; made once per length.
#[derive(Clone)]
pub struct Constant {
    one: ArrayRef,
    many: ArrayRef,
}

impl Constant {
    /// From an array of one value.
    pub fn new(one: ArrayRef) -> Constant {
        assert!(one.len() == 1, "a constant is one value");
        Constant { many: one.clone(), one }
    }

    /// The value of a partition column from its text.
    ///
    /// # Errors
    /// The text is no value of the type.
    pub fn parse(text: Option<&str>, data_type: &DataType) -> Result<Constant, ArrowError> {
        let Some(text) = text else { return Ok(Constant::new(new_null_array(data_type, 1))) };
        let texts: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![text]));
        // Zones only say how to show an instant, and all of ours are UTC.
        let plain = match data_type {
            DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
            other => other.clone(),
        };
        coerced(&coerced(&texts, &plain)?, data_type).map(Constant::new)
    }

    pub fn value(&self) -> &ArrayRef {
        &self.one
    }

    pub fn rows(&mut self, rows: usize) -> ArrayRef {
        if self.many.len() < rows {
            let indices = UInt32Array::from(vec![0; rows]);
            self.many = compute::take(&self.one, &indices, None).expect("row 0 of one row exists");
        }
        self.many.slice(0, rows)
    }
}

/// A batch of columns, of which there may be none.
pub fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> RecordBatch {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).expect("the columns were made for the schema")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::array::{Decimal128Array, Int32Array, Int64Array, TimestampMillisecondArray, UInt64Array};
    use arrow::datatypes::{Int64Type, TimestampSecondType};

    #[test]
    fn what_fits_is_converted_and_what_does_not_is_named() {
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(-1), None]));
        assert_eq!(
            coerced(&ints, &DataType::Int64).unwrap().as_primitive::<Int64Type>(),
            &Int64Array::from(vec![Some(-1), None])
        );
        assert!(
            !fits(&DataType::Int64, &DataType::Int32)
                && !fits(&DataType::Utf8, &DataType::Int32)
                && !fits(&DataType::Int64, &DataType::Utf8)
        );
        assert!(
            fits(&DataType::Decimal128(10, 2), &DataType::Decimal128(12, 4))
                && !fits(&DataType::Decimal128(10, 2), &DataType::Decimal128(11, 4))
        );
        assert!(
            fits(&DataType::Int32, &DataType::Decimal128(10, 0))
                && !fits(&DataType::Int32, &DataType::Decimal128(10, 1))
        );
        let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![150]).with_precision_and_scale(5, 2).unwrap());
        assert_eq!(
            coerced(&decimals, &DataType::Decimal128(9, 3))
                .unwrap()
                .as_primitive::<arrow::datatypes::Decimal128Type>()
                .value(0),
            1500
        );
        let large: ArrayRef = Arc::new(UInt64Array::from(vec![1, 2, u64::MAX, 3]));
        assert!(coerced(&large, &DataType::Int64).is_err());
        assert_eq!(first_misfit(&large, &DataType::Int64), 2);
    }

    #[test]
    fn times_are_cut_toward_the_past() {
        let times: ArrayRef =
            Arc::new(TimestampMillisecondArray::from(vec![1_999, -1, -1_000]).with_timezone("Europe/Berlin"));
        let seconds = coerced(&times, &DataType::Timestamp(TimeUnit::Second, None)).unwrap();
        assert_eq!(seconds.as_primitive::<TimestampSecondType>().values(), &[1, -1, -1]);
        assert_eq!(microseconds(&times).unwrap().values(), &[1_999_000, -1_000, -1_000_000]);
        let far: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0, i64::MAX]));
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        assert!(coerced(&far, &nanoseconds).is_err());
        assert_eq!(first_misfit(&far, &nanoseconds), 1);
    }
}
