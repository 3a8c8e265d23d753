//! Values as text for people: one line per cell, whatever the type.

use arrow::array::{Array, AsArray};
use arrow::datatypes::*;
use formats::text::{self, Misfit, TimestampFormat};

use crate::output::visible;

/// What a cell without a value shows.
const NULL: &str = "NULL";

/// Whether values of a type line up at their last digit.
pub fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

/// The text of one cell. Texts are shown without quotes and without anything that acts on a terminal; bytes as hexadecimal digits;
/// nested values as `[1, 2]`, `{key=value}` and `(a, b)`.
pub fn cell(column: &dyn Array, row: usize) -> String {
    let mut out = Vec::new();
    write(column, row, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn write(column: &dyn Array, row: usize, out: &mut Vec<u8>) {
    if column.is_null(row) {
        return out.extend_from_slice(NULL.as_bytes());
    }
    let before = out.len();
    let written = match column.data_type() {
        DataType::Boolean => {
            let value: &[u8] = if column.as_boolean().value(row) { b"true" } else { b"false" };
            out.extend_from_slice(value);
            Ok(())
        }
        DataType::Int8 => integer(column.as_primitive::<Int8Type>().value(row).into(), out),
        DataType::Int16 => integer(column.as_primitive::<Int16Type>().value(row).into(), out),
        DataType::Int32 => integer(column.as_primitive::<Int32Type>().value(row).into(), out),
        DataType::Int64 => integer(column.as_primitive::<Int64Type>().value(row), out),
        DataType::Float32 => {
            text::write_f32(out, column.as_primitive::<Float32Type>().value(row));
            Ok(())
        }
        DataType::Float64 => {
            text::write_f64(out, column.as_primitive::<Float64Type>().value(row));
            Ok(())
        }
        DataType::Decimal128(_, scale) => {
            text::write_decimal(out, column.as_primitive::<Decimal128Type>().value(row), *scale);
            Ok(())
        }
        DataType::Date32 => text::write_date(out, column.as_primitive::<Date32Type>().value(row).into()),
        DataType::Time64(TimeUnit::Microsecond) => {
            text::write_time(out, column.as_primitive::<Time64MicrosecondType>().value(row), 6)
        }
        DataType::Timestamp(unit, zone) => {
            let (value, digits) = timestamp(column, *unit, row);
            text::write_timestamp(out, value, digits, zone.is_some(), TimestampFormat::Sql)
        }
        DataType::Utf8 => {
            out.extend_from_slice(visible(column.as_string::<i32>().value(row)).as_bytes());
            Ok(())
        }
        DataType::Binary => {
            out.extend_from_slice(b"0x");
            for byte in column.as_binary::<i32>().value(row) {
                out.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
            }
            Ok(())
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            listed(b"[]", items.len(), out, |item, out| write(&items, item, out))
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            listed(b"{}", entries.len(), out, |entry, out| {
                write(entries.column(0), entry, out);
                out.push(b'=');
                write(entries.column(1), entry, out);
            })
        }
        DataType::Struct(fields) => {
            let fields = fields.len();
            listed(b"()", fields, out, |field, out| write(column.as_struct().column(field), row, out))
        }
        other => unreachable!("no column has the type {other}"),
    };
    if written.is_err() {
        out.truncate(before);
        // It is a value, and calendars have no name for it.
        out.extend_from_slice(b"(beyond the calendar)");
    }
}

fn integer(value: i64, out: &mut Vec<u8>) -> Result<(), Misfit> {
    text::write_i64(out, value);
    Ok(())
}

fn timestamp(column: &dyn Array, unit: TimeUnit, row: usize) -> (i64, u8) {
    match unit {
        TimeUnit::Second => (column.as_primitive::<TimestampSecondType>().value(row), 0),
        TimeUnit::Millisecond => (column.as_primitive::<TimestampMillisecondType>().value(row), 3),
        TimeUnit::Microsecond => (column.as_primitive::<TimestampMicrosecondType>().value(row), 6),
        TimeUnit::Nanosecond => (column.as_primitive::<TimestampNanosecondType>().value(row), 9),
    }
}

fn listed(
    brackets: &[u8; 2],
    count: usize,
    out: &mut Vec<u8>,
    mut one: impl FnMut(usize, &mut Vec<u8>),
) -> Result<(), Misfit> {
    out.push(brackets[0]);
    for at in 0..count {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        one(at, out);
    }
    out.push(brackets[1]);
    Ok(())
}
