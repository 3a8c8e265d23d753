//! Columns under construction, one value at a time, from any text format.
//!
//! Arrow's own builders cannot take back a row; these can ([`Column::truncate`]), so that a bad record leaves no trace however deep in a
//! nested value it turned out bad. They also refuse ([`Full`]) what would overflow Arrow's 32-bit offsets.

use std::mem;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Decimal128Array, ListArray, MapArray, NullBufferBuilder,
    PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, Time64NanosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

use crate::decoder::FormatError;
use crate::text::{self, Misfit, TimestampFormat};

/// Largest number of bytes or items below one column, since offsets are `i32`.
const MAX_OFFSET: usize = i32::MAX as usize;

/// A value was not appended because the column would pass [`MAX_OFFSET`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Why a value did not go into a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Misfit(Misfit),
    /// Null or missing where the column (or an item or field below it) is NOT NULL.
    Null,
}

impl From<Full> for Refusal {
    fn from(_: Full) -> Refusal {
        Refusal::Full
    }
}

impl From<Misfit> for Refusal {
    fn from(misfit: Misfit) -> Refusal {
        Refusal::Misfit(misfit)
    }
}

/// What texts a column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean,
    Int {
        min: i64,
        max: i64,
    },
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Date,
    /// `digits`: of the fraction of a second.
    Time {
        digits: u8,
    },
    Timestamp {
        digits: u8,
    },
    Text,
    Binary,
    List,
    Map,
    Struct,
}

/// A value of a fixed size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar {
    /// Integers, days, units of time, 0 or 1; floats as the bits of an `f64`.
    Bits(i64),
    Wide(i128),
}

impl Kind {
    /// Reads a text as a value of a fixed size; texts, binaries and nested values are not for this.
    pub(crate) fn parse(self, text: &str, format: TimestampFormat) -> Result<Scalar, Misfit> {
        Ok(match self {
            Kind::Boolean => Scalar::Bits(text::parse_bool(text)?.into()),
            Kind::Int { min, max } => Scalar::Bits(text::parse_int(text, min, max)?),
            Kind::Float32 => Scalar::Bits(f64::from(text::parse_f32(text)?).to_bits() as i64),
            Kind::Float64 => Scalar::Bits(text::parse_f64(text)?.to_bits() as i64),
            Kind::Decimal { precision, scale } => Scalar::Wide(text::parse_decimal(text, precision, scale)?),
            Kind::Date => Scalar::Bits(text::parse_date(text)?.into()),
            Kind::Time { digits } => Scalar::Bits(text::parse_time(text, digits)?),
            Kind::Timestamp { digits } => Scalar::Bits(text::parse_timestamp(text, digits, format)?),
            Kind::Text | Kind::Binary | Kind::List | Kind::Map | Kind::Struct => return Err(Misfit::Malformed),
        })
    }
}

/// Digits of the fraction of a second that a unit holds.
pub(crate) fn unit_digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// The type as SQL names it, for messages.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "FLOAT".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Date32 => "DATE".into(),
        DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", unit_digits(*unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", unit_digits(*unit)),
        DataType::Utf8 => "STRING".into(),
        DataType::Binary => "BYTES".into(),
        DataType::List(item) => format!("ARRAY<{}>", sql_type(item.data_type())),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("MAP<{}, {}>", sql_type(fields[0].data_type()), sql_type(fields[1].data_type()))
            }
            other => format!("MAP of {other}"),
        },
        DataType::Struct(fields) => {
            let fields: Vec<_> =
                fields.iter().map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect();
            format!("ROW<{}>", fields.join(", "))
        }
        other => other.to_string(),
    }
}

pub(crate) struct Column {
    pub(crate) field: FieldRef,
    pub(crate) kind: Kind,
    nulls: NullBufferBuilder,
    pub(crate) data: Data,
    max_offset: usize,
}

pub(crate) enum Data {
    Boolean(BooleanBufferBuilder),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int128(Vec<i128>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    /// Texts or binaries: row `i` ends at `ends[i]`.
    Bytes {
        ends: Vec<i32>,
        values: Vec<u8>,
    },
    /// Items of row `i` end at `ends[i]`.
    List {
        ends: Vec<i32>,
        item: Box<Column>,
    },
    Map {
        ends: Vec<i32>,
        entries: FieldRef,
        key: Box<Column>,
        value: Box<Column>,
    },
    Struct(Vec<Column>),
}

impl Column {
    /// An empty column. `format` and `path` are for the refusal of a type.
    pub(crate) fn new(field: &FieldRef, format: &'static str, path: &str) -> Result<Column, FormatError> {
        let refused = |hint| {
            Err(FormatError::UnsupportedType {
                format,
                column: path.to_string(),
                data_type: sql_type(field.data_type()),
                hint,
            })
        };
        let child = |child: &FieldRef| Column::new(child, format, &format!("{path}.{}", child.name()));
        let int = |min, max| Kind::Int { min, max };
        let (kind, data) = match field.data_type() {
            DataType::Boolean => (Kind::Boolean, Data::Boolean(BooleanBufferBuilder::new(0))),
            DataType::Int8 => (int(i8::MIN.into(), i8::MAX.into()), Data::Int8(Vec::new())),
            DataType::Int16 => (int(i16::MIN.into(), i16::MAX.into()), Data::Int16(Vec::new())),
            DataType::Int32 => (int(i32::MIN.into(), i32::MAX.into()), Data::Int32(Vec::new())),
            DataType::Int64 => (int(i64::MIN, i64::MAX), Data::Int64(Vec::new())),
            DataType::Float32 => (Kind::Float32, Data::Float32(Vec::new())),
            DataType::Float64 => (Kind::Float64, Data::Float64(Vec::new())),
            &DataType::Decimal128(precision, scale) => (Kind::Decimal { precision, scale }, Data::Int128(Vec::new())),
            DataType::Date32 => (Kind::Date, Data::Int32(Vec::new())),
            DataType::Time64(unit) => (Kind::Time { digits: unit_digits(*unit) }, Data::Int64(Vec::new())),
            DataType::Timestamp(_, Some(zone)) if !matches!(zone.as_ref(), "UTC" | "+00:00") => {
                return refused("; a local time zone is stored as UTC");
            }
            DataType::Timestamp(unit, _) => (Kind::Timestamp { digits: unit_digits(*unit) }, Data::Int64(Vec::new())),
            DataType::Utf8 => (Kind::Text, Data::Bytes { ends: Vec::new(), values: Vec::new() }),
            DataType::Binary => (Kind::Binary, Data::Bytes { ends: Vec::new(), values: Vec::new() }),
            DataType::List(item) => (Kind::List, Data::List { ends: Vec::new(), item: Box::new(child(item)?) }),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 && !entries.is_nullable() && !fields[0].is_nullable() => {
                    let (key, value) = (Box::new(child(&fields[0])?), Box::new(child(&fields[1])?));
                    if matches!(key.kind, Kind::List | Kind::Map | Kind::Struct | Kind::Binary) {
                        return refused("; the keys of a map must be scalars");
                    }
                    (Kind::Map, Data::Map { ends: Vec::new(), entries: entries.clone(), key, value })
                }
                _ => return refused("; a map needs entries of a key that is not null and a value"),
            },
            DataType::Struct(fields) => {
                (Kind::Struct, Data::Struct(fields.iter().map(child).collect::<Result<_, _>>()?))
            }
            _ => return refused(""),
        };
        Ok(Column { field: field.clone(), kind, nulls: NullBufferBuilder::new(0), data, max_offset: MAX_OFFSET })
    }

    #[cfg(test)]
    pub(crate) fn set_max_offset(&mut self, bytes: usize) {
        self.max_offset = bytes;
    }

    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    pub(crate) fn push_null(&mut self) {
        self.nulls.append_null();
        self.pad();
    }

    /// Appends a value of no meaning.
    fn pad(&mut self) {
        match &mut self.data {
            Data::Boolean(values) => values.append(false),
            Data::Int8(values) => values.push(0),
            Data::Int16(values) => values.push(0),
            Data::Int32(values) => values.push(0),
            Data::Int64(values) => values.push(0),
            Data::Int128(values) => values.push(0),
            Data::Float32(values) => values.push(0.0),
            Data::Float64(values) => values.push(0.0),
            Data::Bytes { ends, .. } | Data::List { ends, .. } | Data::Map { ends, .. } => ends.push(last(ends)),
            Data::Struct(children) => children.iter_mut().for_each(Column::push_null),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, scalar: Scalar) {
        match scalar {
            Scalar::Bits(bits) => self.push_bits(bits),
            Scalar::Wide(value) => match &mut self.data {
                Data::Int128(values) => {
                    values.push(value);
                    self.nulls.append_non_null();
                }
                _ => unreachable!("only a DECIMAL column parses into a wide scalar"),
            },
        }
    }

    /// Appends a value that the column's kind made ([`Scalar::Bits`]).
    #[inline]
    pub(crate) fn push_bits(&mut self, bits: i64) {
        self.nulls.append_non_null();
        match &mut self.data {
            Data::Int64(values) => values.push(bits),
            Data::Int32(values) => values.push(bits as i32),
            Data::Int16(values) => values.push(bits as i16),
            Data::Int8(values) => values.push(bits as i8),
            Data::Float64(values) => values.push(f64::from_bits(bits as u64)),
            Data::Float32(values) => values.push(f64::from_bits(bits as u64) as f32),
            Data::Boolean(values) => values.append(bits != 0),
            _ => unreachable!("only columns of a fixed size up to 8 bytes parse into bits"),
        }
    }

    #[inline]
    pub(crate) fn push_text(&mut self, text: &str) -> Result<(), Full> {
        debug_assert_eq!(self.kind, Kind::Text);
        self.push_bytes(text.as_bytes())
    }

    pub(crate) fn push_binary(&mut self, bytes: &[u8]) -> Result<(), Full> {
        // The safety of `finish` rests on this: only `push_text` puts bytes into a text column.
        assert_eq!(self.kind, Kind::Binary, "bytes belong into a BYTES column");
        self.push_bytes(bytes)
    }

    #[inline]
    fn push_bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        let Data::Bytes { ends, values } = &mut self.data else {
            unreachable!("texts and bytes go into columns of bytes")
        };
        if bytes.len() > self.max_offset - values.len() {
            return Err(Full);
        }
        values.extend_from_slice(bytes);
        ends.push(values.len() as i32);
        self.nulls.append_non_null();
        Ok(())
    }

    /// Marks the items pushed into the list's or map's children since its last row as its next row.
    pub(crate) fn close_row(&mut self) -> Result<(), Full> {
        let (ends, items) = match &mut self.data {
            Data::List { ends, item } => (ends, item.len()),
            Data::Map { ends, key, .. } => (ends, key.len()),
            _ => unreachable!("only lists and maps have rows of items"),
        };
        if items > self.max_offset {
            return Err(Full);
        }
        ends.push(items as i32);
        self.nulls.append_non_null();
        Ok(())
    }

    /// A struct's next row is not null; its children have been pushed by themselves.
    #[inline]
    pub(crate) fn close_struct(&mut self) {
        self.nulls.append_non_null();
    }

    /// Takes back all rows from `len` on, complete ones and parts.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.nulls.truncate(len);
        match &mut self.data {
            Data::Boolean(values) => values.truncate(len),
            Data::Int8(values) => values.truncate(len),
            Data::Int16(values) => values.truncate(len),
            Data::Int32(values) => values.truncate(len),
            Data::Int64(values) => values.truncate(len),
            Data::Int128(values) => values.truncate(len),
            Data::Float32(values) => values.truncate(len),
            Data::Float64(values) => values.truncate(len),
            Data::Bytes { ends, values } => {
                ends.truncate(len);
                values.truncate(last(ends) as usize);
            }
            Data::List { ends, item } => {
                ends.truncate(len);
                item.truncate(last(ends) as usize);
            }
            Data::Map { ends, key, value, .. } => {
                ends.truncate(len);
                key.truncate(last(ends) as usize);
                value.truncate(last(ends) as usize);
            }
            Data::Struct(children) => children.iter_mut().for_each(|child| child.truncate(len)),
        }
    }

    /// The rows as an array; leaves the column empty, with room for as many rows again.
    pub(crate) fn finish(&mut self) -> ArrayRef {
        let len = self.len();
        let nulls = self.nulls.finish();
        let invariant = "the column holds what its type asks for";
        match &mut self.data {
            Data::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Data::Int8(values) => primitive::<Int8Type>(values, nulls),
            Data::Int16(values) => primitive::<Int16Type>(values, nulls),
            Data::Int32(values) if self.kind == Kind::Date => primitive::<Date32Type>(values, nulls),
            Data::Int32(values) => primitive::<Int32Type>(values, nulls),
            Data::Int64(values) => match self.field.data_type() {
                DataType::Time64(TimeUnit::Nanosecond) => primitive::<Time64NanosecondType>(values, nulls),
                DataType::Time64(_) => primitive::<Time64MicrosecondType>(values, nulls),
                DataType::Timestamp(unit, zone) => {
                    let (values, zone) = (take(values), zone.clone());
                    match unit {
                        TimeUnit::Second => Arc::new(
                            PrimitiveArray::<TimestampSecondType>::new(values.into(), nulls).with_timezone_opt(zone),
                        ),
                        TimeUnit::Millisecond => Arc::new(
                            PrimitiveArray::<TimestampMillisecondType>::new(values.into(), nulls)
                                .with_timezone_opt(zone),
                        ),
                        TimeUnit::Microsecond => Arc::new(
                            PrimitiveArray::<TimestampMicrosecondType>::new(values.into(), nulls)
                                .with_timezone_opt(zone),
                        ),
                        TimeUnit::Nanosecond => Arc::new(
                            PrimitiveArray::<TimestampNanosecondType>::new(values.into(), nulls)
                                .with_timezone_opt(zone),
                        ),
                    }
                }
                _ => primitive::<Int64Type>(values, nulls),
            },
            Data::Int128(values) => Arc::new(
                Decimal128Array::new(take(values).into(), nulls).with_data_type(self.field.data_type().clone()),
            ),
            Data::Float32(values) => primitive::<Float32Type>(values, nulls),
            Data::Float64(values) => primitive::<Float64Type>(values, nulls),
            Data::Bytes { ends, values } => {
                let (offsets, values) = (offsets(ends), Buffer::from(take(values)));
                if self.kind == Kind::Text {
                    // SAFETY: the values are a sequence of `&str` (`push_text`), and the offsets, checked to ascend, are their ends.
                    Arc::new(unsafe { StringArray::new_unchecked(offsets, values, nulls) })
                } else {
                    Arc::new(BinaryArray::new(offsets, values, nulls))
                }
            }
            Data::List { ends, item } => {
                let items = item.finish();
                Arc::new(ListArray::try_new(item.field.clone(), offsets(ends), items, nulls).expect(invariant))
            }
            Data::Map { ends, entries, key, value } => {
                let DataType::Struct(fields) = entries.data_type() else {
                    unreachable!("checked when the column was made")
                };
                let DataType::Map(_, ordered) = self.field.data_type() else {
                    unreachable!("checked when the column was made")
                };
                let items =
                    StructArray::try_new(fields.clone(), vec![key.finish(), value.finish()], None).expect(invariant);
                Arc::new(MapArray::try_new(entries.clone(), offsets(ends), items, nulls, *ordered).expect(invariant))
            }
            Data::Struct(children) => {
                let DataType::Struct(fields) = self.field.data_type() else {
                    unreachable!("checked when the column was made")
                };
                let arrays = children.iter_mut().map(Column::finish).collect();
                Arc::new(StructArray::try_new_with_length(fields.clone(), arrays, nulls, len).expect(invariant))
            }
        }
    }
}

#[inline]
fn last(ends: &[i32]) -> i32 {
    ends.last().copied().unwrap_or(0)
}

fn take<T>(values: &mut Vec<T>) -> Vec<T> {
    let capacity = values.len();
    mem::replace(values, Vec::with_capacity(capacity))
}

fn offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.append(ends);
    OffsetBuffer::new(offsets.into())
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(take(values).into(), nulls))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::Array;
    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn truncate_takes_back_parts_of_a_nested_row() {
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        let field: FieldRef = Arc::new(Field::new("tags", DataType::List(item), true));
        let mut column = Column::new(&field, "JSON", "tags").unwrap();
        fn push(column: &mut Column, texts: &[&str]) {
            let Data::List { item, .. } = &mut column.data else { unreachable!() };
            texts.iter().for_each(|text| item.push_text(text).unwrap());
        }
        push(&mut column, &["a", "b"]);
        column.close_row().unwrap();
        push(&mut column, &["half a row"]);
        column.truncate(1);
        column.push_null();
        push(&mut column, &["c"]);
        column.close_row().unwrap();
        let array = column.finish();
        assert_eq!(array.len(), 3);
        let lists = array.as_any().downcast_ref::<ListArray>().unwrap();
        assert_eq!(lists.values().as_ref(), &StringArray::from(vec!["a", "b", "c"]) as &dyn Array);
        assert_eq!((lists.value_length(0), lists.is_null(1), lists.value_length(2)), (2, true, 1));
        assert_eq!(column.finish().len(), 0);
    }

    #[test]
    fn types_without_a_text_are_refused_by_name() {
        let field: FieldRef = Arc::new(Field::new("d", DataType::LargeUtf8, true));
        let error = Column::new(&field, "CSV", "d").err().unwrap().to_string();
        assert_eq!(error, "column d has the type LargeUtf8, which CSV cannot carry");
    }
}
