//! Rows to messages, by a schema that is derived from the columns.
//!
//! NOT NULL columns have their type alone, others a union of null and their type, with null as the default, so that readers and writers with
//! and without the column understand each other. TIMESTAMP is `local-timestamp-*`, TIMESTAMP_LTZ is `timestamp-*`, in the unit of the column
//! (TIMESTAMP(0) in milliseconds); TINYINT and SMALLINT are `int`; DECIMAL is `bytes`; keys of maps are texts. The decoder reads back what is
//! written here.

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::FRAME_BYTES;
use crate::columns::sql_type;
use crate::decoder::{FormatError, RecordEncoder};
use crate::values::{Data, Values};

/// The schema of a table's rows as compact JSON, the same for the same columns. `record` becomes the record's name, with `_` for each
/// character that Avro's names cannot have.
///
/// # Errors
/// A column whose name or type Avro does not have.
pub fn derived_schema(schema: &SchemaRef, record: &str) -> Result<String, FormatError> {
    let mut names = BTreeSet::new();
    let fields = schema.fields().iter();
    Ok(record_type(&legal(record), fields.map(AsRef::as_ref), "", &mut names)?.to_string())
}

fn record_type<'a>(
    name: &str,
    fields: impl Iterator<Item = &'a Field>,
    path: &str,
    names: &mut BTreeSet<String>,
) -> Result<Value, FormatError> {
    // Types of one name are one type: each ROW needs its own.
    let mut unique = name.to_string();
    for number in 2.. {
        if names.insert(unique.clone()) {
            break;
        }
        unique = format!("{name}_{number}");
    }
    let mut members = Vec::new();
    for field in fields {
        let (field_name, path) = (field.name(), format!("{path}{}", field.name()));
        if legal(field_name) != *field_name {
            let reason = "names there are letters, digits and _ (not a digit first); name it otherwise with AS";
            return Err(FormatError::FieldName { column: path, format: "Avro", reason });
        }
        let field_type = nullable_type(field, &path, &format!("{unique}_{field_name}"), names)?;
        members.push(if field.is_nullable() {
            json!({"name": field_name, "type": field_type, "default": null})
        } else {
            json!({"name": field_name, "type": field_type})
        });
    }
    Ok(json!({"type": "record", "name": unique, "fields": members}))
}

fn nullable_type(field: &Field, path: &str, name: &str, names: &mut BTreeSet<String>) -> Result<Value, FormatError> {
    let plain = plain_type(field.data_type(), path, name, names)?;
    Ok(if field.is_nullable() { json!(["null", plain]) } else { plain })
}

fn plain_type(
    data_type: &DataType,
    path: &str,
    name: &str,
    names: &mut BTreeSet<String>,
) -> Result<Value, FormatError> {
    let refused = |hint| {
        let data_type = sql_type(data_type);
        Err(FormatError::UnsupportedType { format: "Avro", column: path.into(), data_type, hint })
    };
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => json!("int"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Utf8 => json!("string"),
        DataType::Binary => json!("bytes"),
        DataType::Decimal128(precision, scale) if (0..=*precision as i8).contains(scale) => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        DataType::Date32 => json!({"type": "int", "logicalType": "date"}),
        DataType::Time64(TimeUnit::Microsecond) => json!({"type": "long", "logicalType": "time-micros"}),
        DataType::Timestamp(unit, zone) => {
            let unit = match unit {
                TimeUnit::Second | TimeUnit::Millisecond => "millis",
                TimeUnit::Microsecond => "micros",
                TimeUnit::Nanosecond => "nanos",
            };
            let local = if zone.is_none() { "local-" } else { "" };
            json!({"type": "long", "logicalType": format!("{local}timestamp-{unit}")})
        }
        DataType::List(item) => json!({"type": "array", "items": nullable_type(item, path, name, names)?}),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 && *fields[0].data_type() == DataType::Utf8 => {
                json!({"type": "map", "values": nullable_type(&fields[1], path, name, names)?})
            }
            _ => return refused("; the keys of a map are texts there"),
        },
        DataType::Struct(fields) => record_type(name, fields.iter().map(AsRef::as_ref), &format!("{path}."), names)?,
        _ => return refused(""),
    })
}

/// The name with `_` for what Avro's names cannot have.
fn legal(name: &str) -> String {
    let mut legal: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if legal.is_empty() || legal.starts_with(|c: char| c.is_ascii_digit()) {
        legal.insert(0, '_');
    }
    legal
}

/// Writes messages by the [`derived_schema`] of the columns, each framed with the id that a registry gave to it.
pub struct MessageEncoder {
    schema: SchemaRef,
    frame: [u8; FRAME_BYTES],
}

impl MessageEncoder {
    /// # Errors
    /// A column whose name or type Avro does not have.
    pub fn new(schema: SchemaRef, schema_id: u32) -> Result<MessageEncoder, FormatError> {
        derived_schema(&schema, "row")?;
        let [a, b, c, d] = schema_id.to_be_bytes();
        Ok(MessageEncoder { schema, frame: [0, a, b, c, d] })
    }

    /// Appends one message per row, and to `ends` where each ends in `out`.
    ///
    /// # Errors
    /// A value that Avro cannot carry; what was appended before it stays.
    pub fn encode_each(
        &mut self,
        batch: &RecordBatch,
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) -> Result<(), FormatError> {
        assert_eq!(batch.num_columns(), self.schema.fields().len(), "the batch has the encoder's schema");
        let columns: Vec<_> = batch.columns().iter().map(|column| Values::new(column.as_ref())).collect();
        for row in 0..batch.num_rows() {
            out.extend_from_slice(&self.frame);
            for (field, column) in self.schema.fields().iter().zip(&columns) {
                write_nullable(field, column, row, out).map_err(|reason| FormatError::Unwritable {
                    row,
                    column: field.name().clone(),
                    reason: reason.into(),
                })?;
            }
            ends.push(out.len());
        }
        Ok(())
    }
}

impl RecordEncoder for MessageEncoder {
    fn begin_file(&mut self, _out: &mut Vec<u8>) {}

    /// Messages have no delimiters: see [`MessageEncoder::encode_each`].
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError> {
        self.encode_each(batch, out, &mut Vec::new())
    }
}

/// The branch of the union (null is the first), then the value.
#[inline]
fn write_nullable(field: &Field, values: &Values, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
    match (field.is_nullable(), values.is_null(row)) {
        (true, true) => out.push(0),
        (false, true) => return Err("it is NULL where the schema says NOT NULL"),
        (nullable, false) => {
            if nullable {
                out.push(2);
            }
            write(field.data_type(), values, row, out)?;
        }
    }
    Ok(())
}

fn write(data_type: &DataType, values: &Values, row: usize, out: &mut Vec<u8>) -> Result<(), &'static str> {
    match &values.data {
        Data::Boolean(values) => out.push(values.value(row).into()),
        Data::Int8(values) => long(out, values[row].into()),
        Data::Int16(values) => long(out, values[row].into()),
        Data::Int32(values) | Data::Date(values) => long(out, values[row].into()),
        Data::Int64(values) | Data::Time { values, .. } => long(out, values[row]),
        Data::Float32(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
        Data::Float64(values) => out.extend_from_slice(&values.value(row).to_le_bytes()),
        Data::Decimal(values, _) => decimal(out, values.value(row)),
        Data::Timestamp { values, digits: 0, .. } => {
            let millis = values[row].checked_mul(1000).ok_or("it is out of the range of timestamps in milliseconds")?;
            long(out, millis);
        }
        Data::Timestamp { values, .. } => long(out, values[row]),
        Data::Text(values) => bytes(out, values.value(row).as_bytes()),
        Data::Binary(values) => bytes(out, values.value(row)),
        Data::List(list, items) => {
            let DataType::List(item) = data_type else { unreachable!("the values are those of the type") };
            let (start, end) = range(list.value_offsets(), row);
            block(out, end - start);
            for index in start..end {
                write_nullable(item, items, index, out)?;
            }
            out.push(0);
        }
        Data::Map { map, keys, values } => {
            let DataType::Map(entries, _) = data_type else { unreachable!("the values are those of the type") };
            let DataType::Struct(fields) = entries.data_type() else { unreachable!("checked with the schema") };
            let (start, end) = range(map.value_offsets(), row);
            block(out, end - start);
            for index in start..end {
                write(fields[0].data_type(), keys, index, out)?;
                write_nullable(&fields[1], values, index, out)?;
            }
            out.push(0);
        }
        Data::Struct(children) => {
            let DataType::Struct(fields) = data_type else { unreachable!("the values are those of the type") };
            for (field, (_, values)) in fields.iter().zip(children) {
                write_nullable(field, values, row, out)?;
            }
        }
    }
    Ok(())
}

fn range(offsets: &[i32], row: usize) -> (usize, usize) {
    (offsets[row] as usize, offsets[row + 1] as usize)
}

/// The head of the only block of an array or map, before the empty one that ends it; none of no items.
fn block(out: &mut Vec<u8>, items: usize) {
    if items > 0 {
        long(out, items as i64);
    }
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

#[inline]
fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The shortest two's complement number, most significant byte first.
fn decimal(out: &mut Vec<u8>, value: i128) {
    let all = value.to_be_bytes();
    // A leading byte that only repeats the sign of the next is not needed.
    let redundant = |pair: &[u8]| matches!((pair[0], pair[1] >= 0x80), (0, false) | (0xff, true));
    let skipped = all.windows(2).take_while(|pair| redundant(pair)).count();
    bytes(out, &all[skipped..]);
}
