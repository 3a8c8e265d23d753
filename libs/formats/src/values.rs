//! Cells of arrays as texts, for all text formats.

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, ListArray, MapArray,
    PrimitiveArray, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};

use crate::columns::unit_digits;
use crate::text::{self, Misfit, TimestampFormat};

/// An array whose type has been looked at once, so that each cell costs one branch.
pub(crate) struct Values<'a> {
    nulls: Option<&'a NullBuffer>,
    pub(crate) data: Data<'a>,
}

pub(crate) enum Data<'a> {
    Boolean(&'a BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Decimal(&'a Decimal128Array, i8),
    Date(&'a [i32]),
    Time { values: &'a [i64], digits: u8 },
    Timestamp { values: &'a [i64], digits: u8, zoned: bool },
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
    List(&'a ListArray, Box<Values<'a>>),
    Map { map: &'a MapArray, keys: Box<Values<'a>>, values: Box<Values<'a>> },
    Struct(Vec<(&'a Field, Values<'a>)>),
}

impl<'a> Values<'a> {
    /// Panics on a type that [`crate::columns::Column`] does not take: the encoder has checked the schema.
    pub(crate) fn new(array: &'a dyn Array) -> Values<'a> {
        let data = match array.data_type() {
            DataType::Boolean => Data::Boolean(array.as_boolean()),
            DataType::Int8 => Data::Int8(array.as_primitive::<Int8Type>().values()),
            DataType::Int16 => Data::Int16(array.as_primitive::<Int16Type>().values()),
            DataType::Int32 => Data::Int32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Data::Int64(array.as_primitive::<Int64Type>().values()),
            DataType::Float32 => Data::Float32(array.as_primitive::<Float32Type>()),
            DataType::Float64 => Data::Float64(array.as_primitive::<Float64Type>()),
            DataType::Decimal128(_, scale) => Data::Decimal(array.as_primitive::<Decimal128Type>(), *scale),
            DataType::Date32 => Data::Date(array.as_primitive::<Date32Type>().values()),
            DataType::Time64(TimeUnit::Nanosecond) => {
                Data::Time { values: array.as_primitive::<Time64NanosecondType>().values(), digits: 9 }
            }
            DataType::Time64(_) => {
                Data::Time { values: array.as_primitive::<Time64MicrosecondType>().values(), digits: 6 }
            }
            DataType::Timestamp(unit, zone) => Data::Timestamp {
                values: match unit {
                    TimeUnit::Second => longs::<TimestampSecondType>(array),
                    TimeUnit::Millisecond => longs::<TimestampMillisecondType>(array),
                    TimeUnit::Microsecond => longs::<TimestampMicrosecondType>(array),
                    TimeUnit::Nanosecond => longs::<TimestampNanosecondType>(array),
                },
                digits: unit_digits(*unit),
                zoned: zone.is_some(),
            },
            DataType::Utf8 => Data::Text(array.as_string()),
            DataType::Binary => Data::Binary(array.as_binary()),
            DataType::List(_) => {
                let list = array.as_list::<i32>();
                Data::List(list, Box::new(Values::new(list.values().as_ref())))
            }
            DataType::Map(..) => {
                let map = array.as_map();
                let (keys, values) = (Values::new(map.keys().as_ref()), Values::new(map.values().as_ref()));
                Data::Map { map, keys: Box::new(keys), values: Box::new(values) }
            }
            DataType::Struct(fields) => {
                let children = array.as_struct().columns().iter().map(|child| Values::new(child.as_ref()));
                Data::Struct(fields.iter().map(AsRef::as_ref).zip(children).collect())
            }
            other => unreachable!("an encoder let the type {other} pass"),
        };
        Values { nulls: array.nulls(), data }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.is_some_and(|nulls| nulls.is_null(row))
    }

    /// Appends the text of a cell that is not null, without any quotes. Not for lists, maps and structs.
    pub(crate) fn write(&self, row: usize, format: TimestampFormat, out: &mut Vec<u8>) -> Result<(), Misfit> {
        match &self.data {
            Data::Boolean(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Data::Int8(values) => text::write_i64(out, values[row].into()),
            Data::Int16(values) => text::write_i64(out, values[row].into()),
            Data::Int32(values) => text::write_i64(out, values[row].into()),
            Data::Int64(values) => text::write_i64(out, values[row]),
            Data::Float32(values) => text::write_f32(out, values.value(row)),
            Data::Float64(values) => text::write_f64(out, values.value(row)),
            Data::Decimal(values, scale) => text::write_decimal(out, values.value(row), *scale),
            Data::Date(values) => text::write_date(out, values[row].into())?,
            Data::Time { values, digits } => text::write_time(out, values[row], *digits)?,
            &Data::Timestamp { values, digits, zoned } => {
                text::write_timestamp(out, values[row], digits, zoned, format)?
            }
            Data::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Data::Binary(values) => text::write_base64(out, values.value(row)),
            Data::List(..) | Data::Map { .. } | Data::Struct(_) => unreachable!("nested values are for the format"),
        }
        Ok(())
    }
}

fn longs<T: arrow::datatypes::ArrowPrimitiveType<Native = i64>>(array: &dyn Array) -> &[i64] {
    let array: &PrimitiveArray<T> = array.as_primitive();
    array.values()
}

/// What to say of a value that [`Values::write`] refuses.
pub(crate) fn unwritable(_: Misfit) -> String {
    "times can be written from year 0001 to year 9999 only".into()
}
