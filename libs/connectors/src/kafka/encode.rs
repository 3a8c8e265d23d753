//! Rows to records: keys, values, and what stands beside them, as a log of frames in which they wait to be sent.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
use engine::{Batch, RunError};
use formats::RecordEncoder;
use formats::avro::MessageEncoder;
use formats::json::{JsonOptions, Writer};
use graph::KafkaOptions;
use graph::kafka::{FieldsInclude, RecordFormat};

use crate::files::columns::coerced;
use crate::files::timestamp_format;
use crate::staged::Frame;
use crate::staged::frame::{HEAD_BYTES, NONE};

/// Makes frames of rows.
pub struct Encoder {
    table: String,
    value: Part,
    key: Option<Part>,
    timestamp: Option<usize>,
    headers: Option<usize>,
}

struct Part {
    /// Positions of its columns.
    columns: Vec<usize>,
    schema: SchemaRef,
    writes: Writes,
    scratch: Vec<u8>,
}

enum Writes {
    Json(Writer),
    /// The bytes of the one column.
    Raw,
    /// Behind a zero instead of the schema's id: see [`Ids`].
    Messages {
        encoder: MessageEncoder,
        ends: Vec<usize>,
    },
}

/// The ids that a registry gave to the schemas of keys and values.
///
/// A worker encodes as soon as it has rows, and must not wait for a registry: the ids are filled in by the thread that sends, which has asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub key: Option<u32>,
    pub value: Option<u32>,
}

impl Ids {
    /// Fills them into the messages of all frames of a log.
    pub fn fill_in(self, mut log: &mut [u8]) {
        fn take<'a>(log: &mut &'a mut [u8], count: usize) -> &'a mut [u8] {
            let (front, behind) = std::mem::take(log).split_at_mut(count);
            *log = behind;
            front
        }
        fn word(log: &mut &mut [u8]) -> u32 {
            let bytes = take(log, 4);
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
        }
        while !log.is_empty() {
            let length = word(&mut log) as usize;
            let mut frame = take(&mut log, length);
            take(&mut frame, HEAD_BYTES);
            for id in [self.key, self.value] {
                let length = word(&mut frame);
                if length == NONE {
                    continue;
                }
                let message = take(&mut frame, length as usize);
                if let Some(id) = id {
                    message[1..5].copy_from_slice(&id.to_be_bytes());
                }
            }
        }
    }
}

impl Encoder {
    /// # Errors
    /// Columns that the formats cannot carry.
    pub fn new(node: &graph::Sink, options: &KafkaOptions, schema: &SchemaRef) -> Result<Encoder, RunError> {
        let invalid =
            |reason: String| RunError::user("invalid_option", format!("cannot write table {}: {reason}", node.table));
        // The columns of the table are those of the rows by position; without a table, the rows' own.
        let names: Vec<&str> = match node.columns.is_empty() {
            true => schema.fields().iter().map(|field| field.name().as_str()).collect(),
            false => node.columns.iter().map(|column| column.name.as_str()).collect(),
        };
        let mut keys = options.key_columns();
        if !node.primary_key.is_empty() {
            if !keys.is_empty() && keys != node.primary_key {
                let reason = "'key.fields' is other than the primary key".to_string();
                return Err(invalid(reason).hint("leave 'key.fields' out: the primary key is the record's key"));
            }
            keys = node.primary_key.clone();
        }
        let mut key_columns = Vec::new();
        for key in &keys {
            let at = names.iter().position(|name| name == key);
            let at = at.filter(|_| !node.metadata.contains_key(key));
            key_columns.push(
                at.ok_or_else(|| invalid(format!("'key.fields' names {key}, which is no column of its records")))?,
            );
        }
        let beside = |wanted: &str| {
            names.iter().position(|name| node.metadata.get(*name).is_some_and(|metadata| metadata == wanted))
        };
        let value_columns: Vec<usize> = (0..names.len())
            .filter(|at| !node.metadata.contains_key(names[*at]))
            .filter(|at| options.value_fields == FieldsInclude::All || !key_columns.contains(at))
            .collect();
        // Under the table's names: what stands in the records is what the table says.
        // A schema in a registry must not depend on what the query is known not to make NULL.
        let renamed = |at: usize| {
            let field = schema.field(at).clone().with_name(names[at]);
            match node.columns.get(at) {
                Some(column) => field.with_nullable(column.nullable),
                None => field,
            }
        };
        let part = |columns: Vec<usize>, format: RecordFormat, option: &str| {
            let fields: Vec<_> = columns.iter().map(|at| renamed(*at)).collect();
            let own = Arc::new(Schema::new(fields));
            let writes = match format {
                RecordFormat::AvroConfluent => {
                    let encoder = MessageEncoder::new(own.clone(), 0).map_err(|error| invalid(error.to_string()))?;
                    Writes::Messages { encoder, ends: Vec::new() }
                }
                RecordFormat::Json => {
                    let options = JsonOptions {
                        timestamp_format: timestamp_format(options.json_timestamps),
                        ..JsonOptions::default()
                    };
                    Writes::Json(Writer::new(own.clone(), options).map_err(|error| invalid(error.to_string()))?)
                }
                RecordFormat::Raw => match columns[..] {
                    [one] if matches!(schema.field(one).data_type(), DataType::Utf8 | DataType::Binary) => Writes::Raw,
                    _ => {
                        let reason = format!("'{option}' is raw, which is one column of BYTES or STRING");
                        return Err(invalid(reason).hint("leave the columns of the key out with 'value.fields-include' = 'EXCEPT_KEY', or write json"));
                    }
                },
            };
            Ok(Part { columns, schema: own, writes, scratch: Vec::new() })
        };
        Ok(Encoder {
            table: node.table.clone(),
            value: part(value_columns, options.format, "format")?,
            key: if key_columns.is_empty() { None } else { Some(part(key_columns, options.key_format, "key.format")?) },
            timestamp: beside("timestamp"),
            headers: beside("headers"),
        })
    }

    /// The columns of keys and values that are to have a schema in a registry.
    pub fn registered(&self) -> (Option<SchemaRef>, Option<SchemaRef>) {
        let own = |part: &Part| matches!(part.writes, Writes::Messages { .. }).then(|| part.schema.clone());
        (self.key.as_ref().and_then(own), own(&self.value))
    }

    /// Appends a frame for each row.
    ///
    /// # Errors
    /// A value that the format cannot carry, or that cannot stand beside a record.
    pub fn encode(&mut self, batch: &Batch, log: &mut Vec<u8>) -> Result<(), RunError> {
        let rows = &batch.rows;
        let table = &self.table;
        let unwritable =
            |reason: String| RunError::user("output_unwritable", format!("cannot write to table {table}: {reason}"));
        let mut values = self.value.cells(rows).map_err(unwritable)?;
        let mut keys = match &mut self.key {
            Some(key) => Some(key.cells(rows).map_err(unwritable)?),
            None => None,
        };
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        let timestamps = self.timestamp.map(|at| coerced(rows.column(at), &milliseconds)).transpose()?;
        let headers = match self.headers {
            Some(at) => Some(Headers::new(rows.column(at))?),
            None => None,
        };
        for row in 0..rows.num_rows() {
            let value = values.next(row);
            let key = keys.as_mut().and_then(|keys| keys.next(row));
            let timestamp = timestamps
                .as_ref()
                .filter(|column| column.is_valid(row))
                .map(|column| column.as_primitive::<TimestampMillisecondType>().value(row));
            if let Some(early) = timestamp.filter(|timestamp| *timestamp < 0) {
                return Err(unwritable(format!("a record's timestamp cannot be before 1970, and one is {early} ms")));
            }
            let headers = headers.as_ref().map(|headers| headers.of(row)).unwrap_or_default();
            Frame { taken_back: !batch.kind(row).adds(), key, value, timestamp, headers }.write(log);
        }
        Ok(())
    }
}

/// The cells of a part, row by row in order.
enum Cells<'a> {
    Lines(std::slice::Split<'a, u8, fn(&u8) -> bool>),
    Plain(ArrayRef),
    /// All of them, and where each ends.
    Messages(&'a [u8], &'a [usize]),
}

impl Part {
    fn cells(&mut self, rows: &RecordBatch) -> Result<Cells<'_>, String> {
        if let Writes::Raw = self.writes {
            return Ok(Cells::Plain(rows.column(self.columns[0]).clone()));
        }
        let columns: Vec<ArrayRef> = self.columns.iter().map(|at| rows.column(*at).clone()).collect();
        self.scratch.clear();
        let batch = crate::files::columns::batch(&self.schema, columns, rows.num_rows());
        Ok(match &mut self.writes {
            Writes::Json(writer) => {
                writer.encode(&batch, &mut self.scratch).map_err(|error| error.to_string())?;
                let is_end: fn(&u8) -> bool = |byte| *byte == b'\n';
                Cells::Lines(self.scratch.split(is_end))
            }
            Writes::Messages { encoder, ends } => {
                ends.clear();
                encoder.encode_each(&batch, &mut self.scratch, ends).map_err(|error| error.to_string())?;
                Cells::Messages(&self.scratch, ends)
            }
            Writes::Raw => unreachable!("it was told apart before"),
        })
    }
}

impl Cells<'_> {
    /// The bytes of the next row, which has this number.
    fn next(&mut self, row: usize) -> Option<&[u8]> {
        match self {
            Cells::Lines(lines) => Some(lines.next().expect("there is a line for every row")),
            Cells::Messages(bytes, ends) => {
                let start = if row == 0 { 0 } else { ends[row - 1] };
                Some(&bytes[start..ends[row]])
            }
            Cells::Plain(column) if column.is_null(row) => None,
            Cells::Plain(column) => Some(match column.data_type() {
                DataType::Utf8 => column.as_string::<i32>().value(row).as_bytes(),
                _ => column.as_binary::<i32>().value(row),
            }),
        }
    }
}

struct Headers {
    map: arrow::array::MapArray,
    names: ArrayRef,
    values: ArrayRef,
}

impl Headers {
    fn new(column: &ArrayRef) -> Result<Headers, RunError> {
        let map = column.as_map().clone();
        let names = arrow::compute::cast(map.keys(), &DataType::Utf8)?;
        let values = arrow::compute::cast(map.values(), &DataType::Binary)?;
        Ok(Headers { map, names, values })
    }

    fn of(&self, row: usize) -> Vec<(&str, Option<&[u8]>)> {
        if self.map.is_null(row) {
            return vec![];
        }
        let range = self.map.value_offsets()[row] as usize..self.map.value_offsets()[row + 1] as usize;
        let values = self.values.as_binary::<i32>();
        range
            .map(|at| (self.names.as_string::<i32>().value(at), values.is_valid(at).then(|| values.value(at))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{column, sinks::sink_node};
    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray, UInt8Array};
    use serde_json::{Value, json};

    fn frames(options: Value, columns: &[&str], primary_key: &[&str], batch: &Batch) -> Result<Vec<String>, RunError> {
        let mut all = json!({"type": "kafka", "topic": "t", "properties.bootstrap.servers": "h:1"});
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let mut node = sink_node(all, &[]);
        node.columns = columns.iter().map(|text| column(text)).collect();
        node.primary_key = primary_key.iter().map(|name| name.to_string()).collect();
        if columns.iter().any(|text| text.starts_with("at ")) {
            node.metadata.insert("at".into(), "timestamp".into());
        }
        let graph::SinkConnector::Kafka(options) = &node.connector else { panic!("no kafka") };
        let mut encoder = Encoder::new(&node, options, &batch.rows.schema())?;
        let mut log = vec![];
        encoder.encode(batch, &mut log)?;
        encoder.encode(batch, &mut log)?;
        let mut all = vec![];
        let mut rest = &log[..];
        while let Some((frame, behind)) = Frame::read(rest) {
            let text =
                |bytes: Option<&[u8]>| bytes.map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).into_owned());
            let at = frame.timestamp.map_or(String::new(), |at| format!(" @{at}"));
            let sign = if frame.taken_back { "-" } else { "" };
            all.push(format!("{sign}{} {}{at}", text(frame.key), text(frame.value)));
            rest = behind;
        }
        assert!(rest.is_empty() && all.len() == 2 * batch.num_rows());
        assert_eq!(all[..batch.num_rows()], all[batch.num_rows()..], "an encoder keeps nothing of a batch");
        all.truncate(batch.num_rows());
        Ok(all)
    }

    fn rows() -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([
            ("x", Arc::new(StringArray::from(vec![Some("a\n\"b"), None])) as ArrayRef, true),
            ("y", Arc::new(Int64Array::from(vec![1, 2])), true),
        ])
        .unwrap()
    }

    #[test]
    fn keys_and_values_are_the_tables_columns() {
        let all = Batch::inserts(rows());
        let columns = ["name STRING", "n BIGINT"];
        assert_eq!(
            frames(json!({}), &columns, &[], &all).unwrap(),
            [r#"- {"name":"a\n\"b","n":1}"#, r#"- {"name":null,"n":2}"#]
        );
        assert_eq!(
            frames(json!({"key.fields": "n", "value.fields-include": "EXCEPT_KEY"}), &columns, &[], &all).unwrap(),
            [r#"{"n":1} {"name":"a\n\"b"}"#, r#"{"n":2} {"name":null}"#]
        );
        assert_eq!(
            frames(json!({"key.fields": "name", "key.format": "raw"}), &columns, &[], &all).unwrap(),
            ["a\n\"b {\"name\":\"a\\n\\\"b\",\"n\":1}", r#"- {"name":null,"n":2}"#]
        );
        for (options, primary_key) in [
            (json!({"key.fields": "n", "key.format": "raw"}), &[][..]),
            (json!({"format": "raw"}), &[]),
            (json!({"key.fields": "m"}), &[]),
            (json!({"key.fields": "n"}), &["name"]),
        ] {
            assert_eq!(
                frames(options.clone(), &columns, primary_key, &all).unwrap_err().code,
                "invalid_option",
                "{options}"
            );
        }
    }

    #[test]
    fn rows_that_are_taken_back_are_told_apart() {
        let changes = Batch::changes(rows(), UInt8Array::from(vec![3, 2]));
        assert_eq!(
            frames(json!({}), &["name STRING", "n BIGINT"], &["n"], &changes).unwrap(),
            [r#"-{"n":1} {"name":"a\n\"b","n":1}"#, r#"{"n":2} {"name":null,"n":2}"#]
        );
    }

    #[test]
    fn a_timestamp_stands_beside_the_record() {
        let times = |values: Vec<Option<i64>>| {
            Batch::inserts(
                RecordBatch::try_from_iter_with_nullable([
                    ("y", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef, true),
                    ("at", Arc::new(TimestampMillisecondArray::from(values)), true),
                ])
                .unwrap(),
            )
        };
        let columns = ["n BIGINT", "at TIMESTAMP(3)"];
        assert_eq!(
            frames(json!({}), &columns, &[], &times(vec![Some(5), None])).unwrap(),
            [r#"- {"n":1} @5"#, r#"- {"n":2}"#]
        );
        let error = frames(json!({}), &columns, &[], &times(vec![Some(-5), None])).unwrap_err();
        assert!(error.code == "output_unwritable" && error.message.contains("before 1970"), "{error:?}");
    }
}
