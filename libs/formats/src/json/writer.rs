//! Batches to JSON lines.
//!
//! All columns are written, nulls as `null`. Decimals are numbers with all digits of their scale; NaN and the infinities, which JSON lacks, are
//! texts; times are texts unless the timestamp format is an epoch; bytes are base64. The scanner reads back what is written here.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::JsonOptions;
use super::lex;
use crate::columns::Column;
use crate::decoder::{FormatError, RecordEncoder};
use crate::text::{Misfit, TimestampFormat};
use crate::values::{Data, Values, unwritable};

/// Writes a line per row; see the module.
pub struct Writer {
    schema: SchemaRef,
    timestamp_format: TimestampFormat,
    /// `{"a":` or `,"b":` per column.
    keys: Vec<Vec<u8>>,
}

impl Writer {
    /// # Errors
    /// A column type that JSON cannot carry.
    pub fn new(schema: SchemaRef, options: JsonOptions) -> Result<Writer, FormatError> {
        for field in schema.fields() {
            Column::new(field, "JSON", field.name())?;
        }
        let keys = schema.fields().iter().enumerate().map(|(index, field)| {
            let mut key = vec![if index == 0 { b'{' } else { b',' }];
            write_string(field.name(), &mut key);
            key.push(b':');
            key
        });
        let keys = keys.collect();
        Ok(Writer { schema, timestamp_format: options.timestamp_format, keys })
    }
}

impl RecordEncoder for Writer {
    fn begin_file(&mut self, _out: &mut Vec<u8>) {}

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError> {
        assert_eq!(batch.num_columns(), self.keys.len(), "the batch has the encoder's schema");
        let columns: Vec<_> = batch.columns().iter().map(|column| Values::new(column.as_ref())).collect();
        for row in 0..batch.num_rows() {
            if columns.is_empty() {
                out.push(b'{');
            }
            for (index, column) in columns.iter().enumerate() {
                out.extend_from_slice(&self.keys[index]);
                write_value(column, row, self.timestamp_format, out).map_err(|misfit| FormatError::Unwritable {
                    row,
                    column: self.schema.field(index).name().clone(),
                    reason: unwritable(misfit),
                })?;
            }
            out.extend_from_slice(b"}\n");
        }
        Ok(())
    }
}

fn write_value(values: &Values, row: usize, format: TimestampFormat, out: &mut Vec<u8>) -> Result<(), Misfit> {
    if values.is_null(row) {
        out.extend_from_slice(b"null");
        return Ok(());
    }
    match &values.data {
        Data::Text(texts) => write_string(texts.value(row), out),
        Data::List(list, items) => {
            let ends = list.value_offsets();
            out.push(b'[');
            for item in ends[row] as usize..ends[row + 1] as usize {
                if item != ends[row] as usize {
                    out.push(b',');
                }
                write_value(items, item, format, out)?;
            }
            out.push(b']');
        }
        Data::Map { map, keys, values } => {
            let ends = map.value_offsets();
            let mut separator = b'{';
            for entry in ends[row] as usize..ends[row + 1] as usize {
                out.push(separator);
                separator = b',';
                match &keys.data {
                    Data::Text(texts) => write_string(texts.value(entry), out),
                    _ => write_quoted(keys, entry, format, out)?,
                }
                out.push(b':');
                write_value(values, entry, format, out)?;
            }
            out.extend_from_slice(if separator == b'{' { b"{}" } else { b"}" });
        }
        Data::Struct(children) => {
            let mut separator = b'{';
            for (field, child) in children {
                out.push(separator);
                separator = b',';
                write_string(field.name(), out);
                out.push(b':');
                write_value(child, row, format, out)?;
            }
            out.extend_from_slice(if separator == b'{' { b"{}" } else { b"}" });
        }
        Data::Float32(floats) if !floats.value(row).is_finite() => write_quoted(values, row, format, out)?,
        Data::Float64(floats) if !floats.value(row).is_finite() => write_quoted(values, row, format, out)?,
        Data::Timestamp { .. } if !matches!(format, TimestampFormat::Sql | TimestampFormat::Iso8601) => {
            values.write(row, format, out)?
        }
        Data::Date(_) | Data::Time { .. } | Data::Timestamp { .. } | Data::Binary(_) => {
            write_quoted(values, row, format, out)?
        }
        _ => values.write(row, format, out)?,
    }
    Ok(())
}

/// A cell whose text needs no escapes.
fn write_quoted(values: &Values, row: usize, format: TimestampFormat, out: &mut Vec<u8>) -> Result<(), Misfit> {
    out.push(b'"');
    values.write(row, format, out)?;
    out.push(b'"');
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    while let Some(at) = lex::to_escape(bytes, written) {
        out.extend_from_slice(&bytes[written..at]);
        match bytes[at] {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend([control >> 4, control & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        written = at + 1;
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, TimeUnit};

    use super::*;
    use crate::decoder::RecordDecoder;
    use crate::json::Scanner;
    use crate::testing::{decode_all, field, row, schema};

    fn written(schema: &SchemaRef, options: &JsonOptions, lines: &str) -> String {
        let mut scanner = Scanner::new(schema.clone(), options.clone()).unwrap();
        let outcome = decode_all(&mut scanner, lines.as_bytes());
        assert_eq!(outcome.bad, []);
        let mut out = Vec::new();
        let mut writer = Writer::new(schema.clone(), options.clone()).unwrap();
        writer.begin_file(&mut out);
        writer.encode(&outcome.batch, &mut out).unwrap();
        let again = decode_all(&mut scanner, &out);
        assert_eq!(
            (format!("{:?}", again.batch), again.bad),
            (format!("{:?}", outcome.batch), vec![]),
            "what was written reads back"
        );
        for line in String::from_utf8(out.clone()).unwrap().lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_type_is_written_so_that_it_reads_back() {
        let list = DataType::List(Arc::new(field("item", DataType::Int64)));
        let entries = row([Field::new("key", DataType::Int32, false), field("value", DataType::Utf8)]);
        let schema = schema([
            field("bool", DataType::Boolean),
            field("tiny", DataType::Int8),
            field("long", DataType::Int64),
            field("float", DataType::Float32),
            field("double", DataType::Float64),
            field("dec", DataType::Decimal128(10, 3)),
            field("date", DataType::Date32),
            field("time", DataType::Time64(TimeUnit::Microsecond)),
            field("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
            field("ltz", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            field("text \"1\"", DataType::Utf8),
            field("bytes", DataType::Binary),
            field("list", list.clone()),
            field("map", DataType::Map(Arc::new(Field::new("entries", entries, false)), false)),
            field("row", row([field("x", list), field("y", DataType::Utf8)])),
        ]);
        let lines = [
            r#"{"bool":true,"tiny":-128,"long":-9223372036854775808,"float":0.1,"double":1e300,"dec":-0.5,"date":"1969-12-31","#,
            r#""time":"01:02:03.04","ts":"2020-01-31 23:59:59.12","ltz":"2020-01-31 23:59:59.000001Z","text \"1\"":"a\"\\\n\u0001é","#,
            r#""bytes":"Zm8=","list":[1,null],"map":{"7":"x","8":null},"row":{"x":[],"y":"z"}}"#,
            "\n",
            r#"{"float":"NaN","double":"-Infinity","list":[],"map":{},"row":{}}"#,
            "\n{}",
        ]
        .concat();
        let expected = [
            r#"{"bool":true,"tiny":-128,"long":-9223372036854775808,"float":0.1,"double":1e300,"dec":-0.500,"date":"1969-12-31","#,
            r#""time":"01:02:03.04","ts":"2020-01-31 23:59:59.12","ltz":"2020-01-31 23:59:59.000001Z","text \"1\"":"a\"\\\n\u0001é","#,
            r#""bytes":"Zm8=","list":[1,null],"map":{"7":"x","8":null},"row":{"x":[],"y":"z"}}"#,
            "\n",
            r#"{"bool":null,"tiny":null,"long":null,"float":"NaN","double":"-Infinity","dec":null,"date":null,"time":null,"ts":null,"ltz":null,"#,
            r#""text \"1\"":null,"bytes":null,"list":[],"map":{},"row":{"x":null,"y":null}}"#,
            "\n",
            r#"{"bool":null,"tiny":null,"long":null,"float":null,"double":null,"dec":null,"date":null,"time":null,"ts":null,"ltz":null,"#,
            r#""text \"1\"":null,"bytes":null,"list":null,"map":null,"row":null}"#,
            "\n",
        ]
        .concat();
        assert_eq!(written(&schema, &JsonOptions::default(), &lines), expected);
    }

    #[test]
    fn timestamps_follow_the_format() {
        let ts = schema([field("t", DataType::Timestamp(TimeUnit::Millisecond, None))]);
        for (format, expected) in [
            (TimestampFormat::Iso8601, r#"{"t":"2020-01-31T23:59:59.12"}"#),
            (TimestampFormat::EpochMillis, r#"{"t":1580515199120}"#),
            (TimestampFormat::EpochSeconds, r#"{"t":1580515199.120}"#),
            (TimestampFormat::EpochMicros, r#"{"t":1580515199120000}"#),
        ] {
            let options = JsonOptions { timestamp_format: format, ..JsonOptions::default() };
            assert_eq!(written(&ts, &options, r#"{"t":"2020-01-31 23:59:59.12"}"#), format!("{expected}\n"));
        }
        assert_eq!(written(&schema([]), &JsonOptions::default(), "{}\n{\"a\":1}"), "{}\n{}\n");
    }

    #[test]
    fn slices_of_batches_are_written_from_their_first_row() {
        let list = DataType::List(Arc::new(field("item", DataType::Int64)));
        let schema =
            schema([field("a", DataType::Int64), field("l", list), field("r", row([field("x", DataType::Utf8)]))]);
        let mut scanner = Scanner::new(schema.clone(), JsonOptions::default()).unwrap();
        let lines = "{\"a\":1,\"l\":[1],\"r\":{\"x\":\"p\"}}\n{\"a\":null,\"l\":[2,3],\"r\":null}\n{\"a\":3,\"l\":[4],\"r\":{\"x\":\"q\"}}\n";
        let batch = decode_all(&mut scanner, lines.as_bytes()).batch;
        let mut out = Vec::new();
        Writer::new(schema, JsonOptions::default()).unwrap().encode(&batch.slice(1, 2), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), lines.split_once('\n').unwrap().1);
        assert_eq!(scanner.rows(), 0);
    }

    #[test]
    fn times_beyond_the_calendar_are_refused_by_name() {
        let schema = schema([field("t", DataType::Timestamp(TimeUnit::Millisecond, None))]);
        let array = arrow::array::TimestampMillisecondArray::from(vec![0, i64::MAX]);
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(array)]).unwrap();
        let error = Writer::new(schema, JsonOptions::default()).unwrap().encode(&batch, &mut Vec::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "row 1 of column t cannot be written: times can be written from year 0001 to year 9999 only"
        );
    }
}
