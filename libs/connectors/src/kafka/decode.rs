//! Records to rows: values and keys through their formats, and what stands beside them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryBuilder, BooleanArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray,
    StringBuilder, StructArray, TimestampMillisecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use engine::{BadRecord, RowPositions, RunError, SourceHints};
use expr::arrow_schema;
use formats::avro::MessageDecoder;
use formats::json::{JsonOptions, Scanner};
use formats::{FULL, RecordDecoder};
use graph::KafkaOptions;
use graph::kafka::{FieldsInclude, RecordFormat};

use crate::files::columns::{batch, coerced};
use crate::files::timestamp_format;
use crate::registry::Schemas;

/// From the year 1 to 9999, as everywhere: milliseconds since 1970.
const TIMES_MS: std::ops::Range<i64> = -62_135_596_800_000..253_402_300_800_000;

/// A record, wherever it comes from.
pub trait Incoming {
    fn offset(&self) -> i64;
    fn value(&self) -> Option<&[u8]>;
    fn key(&self) -> Option<&[u8]>;
    /// Milliseconds since 1970, and whether the broker set it.
    fn timestamp(&self) -> Option<(i64, bool)>;
    fn headers(&self, each: impl FnMut(&[u8], Option<&[u8]>));
}

impl Incoming for super::native::Record<'_> {
    fn offset(&self) -> i64 {
        self.offset()
    }

    fn value(&self) -> Option<&[u8]> {
        self.value()
    }

    fn key(&self) -> Option<&[u8]> {
        self.key()
    }

    fn timestamp(&self) -> Option<(i64, bool)> {
        self.timestamp()
    }

    fn headers(&self, each: impl FnMut(&[u8], Option<&[u8]>)) {
        self.headers(each);
    }
}

/// Where a wanted column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A column of the value's or the key's format, by its position there.
    Value(usize),
    Key(usize),
    Beside(Beside),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Beside {
    Topic,
    Partition,
    Offset,
    Timestamp,
    TimestampType,
    Key,
    Headers,
}

/// What the records of a table become.
pub struct Layout {
    pub schema: SchemaRef,
    places: Vec<Place>,
    value: SchemaRef,
    key: SchemaRef,
    value_format: RecordFormat,
    key_format: RecordFormat,
    json: JsonOptions,
    wants_timestamp: bool,
    /// The column of the records' timestamps, and of their keys.
    timestamp_column: Option<usize>,
    key_column: Option<usize>,
    wants_key: Option<bool>,
    wants_headers: bool,
}

impl Layout {
    /// # Errors
    /// Columns that the formats cannot give.
    pub fn new(node: &graph::Source, options: &KafkaOptions, hints: &SourceHints) -> Result<Layout, RunError> {
        let invalid =
            |reason: String| RunError::user("invalid_option", format!("cannot read table {}: {reason}", node.table));
        let keys = options.key_columns();
        let physical: Vec<&graph::Column> =
            node.columns.iter().filter(|column| !node.metadata.contains_key(&column.name)).collect();
        if let Some(unknown) = keys.iter().find(|name| !physical.iter().any(|column| column.name == **name)) {
            return Err(invalid(format!("'key.fields' names {unknown}, which is no column of its records")));
        }
        // A column that stands in both is read from the value.
        let in_key = |name: &String| options.value_fields == FieldsInclude::ExceptKey && keys.contains(name);
        if options.format == RecordFormat::Raw {
            one_plain_column(physical.iter().copied().filter(|column| !in_key(&column.name)), "format")
                .map_err(invalid)?;
        }
        if options.key_format == RecordFormat::Raw && !keys.is_empty() {
            one_plain_column(physical.iter().copied().filter(|column| keys.contains(&column.name)), "key.format")
                .map_err(invalid)?;
        }
        let schema = arrow_schema(&hints.columns);
        let (mut value, mut key, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for field in schema.fields() {
            let name = field.name();
            places.push(match node.metadata.get(name).map(String::as_str) {
                Some(metadata) => Place::Beside(match metadata {
                    "topic" => Beside::Topic,
                    "partition" => Beside::Partition,
                    "offset" => Beside::Offset,
                    "timestamp" => Beside::Timestamp,
                    "timestamp-type" => Beside::TimestampType,
                    "key" => Beside::Key,
                    "headers" => Beside::Headers,
                    other => return Err(invalid(format!("Kafka's records have no metadata '{other}'"))),
                }),
                None if in_key(name) => {
                    key.push(field.clone());
                    Place::Key(key.len() - 1)
                }
                None => {
                    value.push(field.clone());
                    Place::Value(value.len() - 1)
                }
            });
        }
        let beside = |wanted: Beside| places.iter().position(|place| *place == Place::Beside(wanted));
        let layout = Layout {
            value: Arc::new(Schema::new(value)),
            key: Arc::new(Schema::new(key)),
            value_format: options.format,
            key_format: options.key_format,
            json: JsonOptions { timestamp_format: timestamp_format(options.json_timestamps), ..JsonOptions::default() },
            wants_timestamp: beside(Beside::Timestamp).is_some() || beside(Beside::TimestampType).is_some(),
            timestamp_column: beside(Beside::Timestamp),
            key_column: beside(Beside::Key),
            wants_key: beside(Beside::Key).map(|at| is_text(schema.field(at).data_type())),
            wants_headers: beside(Beside::Headers).is_some(),
            places,
            schema,
        };
        layout.parts().map_err(invalid)?;
        Ok(layout)
    }

    fn parts(&self) -> Result<(Part, Option<Part>), String> {
        let part = |format: RecordFormat, schema: &SchemaRef| match format {
            RecordFormat::Json => Scanner::new(schema.clone(), self.json.clone())
                .map(|scanner| Part::Records(Box::new(scanner)))
                .map_err(|error| error.to_string()),
            RecordFormat::AvroConfluent => MessageDecoder::new(schema.clone())
                .map(|decoder| Part::Messages(Box::new(decoder)))
                .map_err(|error| error.to_string()),
            RecordFormat::Raw => {
                let field = schema.fields().first();
                let nullable = field.is_none_or(|field| field.is_nullable());
                Ok(Part::Raw { column: Plain::new(field.is_some_and(|field| is_text(field.data_type()))), nullable })
            }
        };
        let key = match self.key.fields().is_empty() {
            true => None,
            false => Some(part(self.key_format, &self.key)?),
        };
        Ok((part(self.value_format, &self.value)?, key))
    }

    pub fn decoder(self: &Arc<Layout>, topic: &str, partition: i32) -> Rows {
        let (value, key) = self.parts().expect("they were made before");
        Rows {
            layout: self.clone(),
            topic: topic.to_string(),
            partition,
            value,
            key,
            kept_keys: Vec::new(),
            offsets: Vec::new(),
            timestamps: Vec::new(),
            keys: Plain::new(self.wants_key == Some(true)),
            headers: Headers::default(),
            bad: Vec::new(),
            bytes: 0,
        }
    }
}

fn is_text(data_type: &DataType) -> bool {
    *data_type == DataType::Utf8
}

/// # Errors
/// Not one column, or not one of bytes or text.
fn one_plain_column<'a>(columns: impl Iterator<Item = &'a graph::Column>, option: &str) -> Result<(), String> {
    let columns: Vec<_> = columns.collect();
    match columns[..] {
        [one] if matches!(one.data_type, graph::DataType::Bytes | graph::DataType::String) => Ok(()),
        [one] => {
            Err(format!("'{option}' is raw, and the column {} is {}, not BYTES or STRING", one.name, one.data_type))
        }
        _ => Err(format!("'{option}' is raw, which is one column of BYTES or STRING, and there are {}", columns.len())),
    }
}

/// A column of bytes or texts.
enum Plain {
    Bytes(BinaryBuilder),
    Text(StringBuilder),
}

impl Plain {
    fn new(text: bool) -> Plain {
        if text { Plain::Text(StringBuilder::new()) } else { Plain::Bytes(BinaryBuilder::new()) }
    }

    /// # Errors
    /// A text that is none. Nothing is added then.
    fn push(&mut self, value: Option<&[u8]>) -> Result<(), ()> {
        match self {
            Plain::Bytes(builder) => builder.append_option(value),
            Plain::Text(builder) => builder.append_option(value.map(std::str::from_utf8).transpose().map_err(drop)?),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Plain::Bytes(builder) => Arc::new(builder.finish()),
            Plain::Text(builder) => Arc::new(builder.finish()),
        }
    }
}

/// The columns of a value or a key.
enum Part {
    Records(Box<dyn RecordDecoder>),
    /// Their schemas are told before: see [`Rows::needs_schema`].
    Messages(Box<MessageDecoder>),
    Raw {
        column: Plain,
        nullable: bool,
    },
}

/// Why a record did not become a row.
struct Refused {
    full: bool,
    code: String,
    message: String,
}

impl Refused {
    fn new(code: &str, message: impl Into<String>) -> Refused {
        Refused { full: false, code: code.into(), message: message.into() }
    }
}

impl Part {
    fn push(&mut self, bytes: Option<&[u8]>, what: &str) -> Result<(), Refused> {
        let decoder: &mut dyn RecordDecoder = match self {
            Part::Records(decoder) => &mut **decoder,
            Part::Messages(decoder) => &mut **decoder,
            Part::Raw { nullable: false, .. } if bytes.is_none() => {
                let message = format!("the record has no {what}, and the column is NOT NULL");
                return Err(Refused::new(&format!("no_{what}"), message));
            }
            Part::Raw { column, .. } => {
                let pushed = column.push(bytes);
                return pushed.map_err(|()| Refused::new("invalid_utf8", format!("the {what} is not UTF-8")));
            }
        };
        let Some(bytes) = bytes else {
            let message = format!("the record has no {what}: it is a tombstone or was written without one");
            return Err(Refused::new(&format!("no_{what}"), message));
        };
        decoder.decode_record(bytes).map_err(|bad| Refused {
            full: bad.code == FULL,
            code: bad.code.to_string(),
            message: match what {
                "key" => format!("in the key: {}", bad.message),
                _ => bad.message,
            },
        })
    }

    /// The decoder, if it does not know the schema of this message yet.
    fn without_schema(&mut self, message: Option<&[u8]>) -> Option<&mut MessageDecoder> {
        match (self, message) {
            (Part::Messages(decoder), Some(message)) if decoder.needs(message).is_some() => Some(decoder),
            _ => None,
        }
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        match self {
            Part::Records(decoder) => decoder.flush().batch.columns().to_vec(),
            Part::Messages(decoder) => decoder.flush().batch.columns().to_vec(),
            Part::Raw { column, .. } => vec![column.finish()],
        }
    }
}

#[derive(Default)]
struct Headers {
    lengths: Vec<usize>,
    names: StringBuilder,
    values: BinaryBuilder,
}

/// Rows of one partition that wait to be sent.
pub struct Rows {
    layout: Arc<Layout>,
    topic: String,
    partition: i32,
    value: Part,
    key: Option<Part>,
    /// Which rows of the key's format belong to rows; those of bad records do not.
    kept_keys: Vec<bool>,
    /// Of the rows.
    offsets: Vec<i64>,
    timestamps: Vec<Option<(i64, bool)>>,
    keys: Plain,
    headers: Headers,
    bad: Vec<BadRecord>,
    bytes: usize,
}

impl Rows {
    /// Whether a schema is to be fetched before this record can be added.
    pub fn needs_schema(&mut self, record: &impl Incoming) -> bool {
        self.value.without_schema(record.value()).is_some()
            || self.key.as_mut().is_some_and(|key| key.without_schema(record.key()).is_some())
    }

    /// Fetches what [`needs_schema`](Self::needs_schema) has found missing. A schema that does not exist makes bad records.
    ///
    /// # Errors
    /// The registry cannot be asked, or refuses us.
    pub async fn fetch_schemas(&mut self, record: &impl Incoming, schemas: &Schemas) -> Result<(), RunError> {
        let key = self.key.as_mut();
        for (part, message) in [(Some(&mut self.value), record.value()), (key, record.key())] {
            if let (Some(decoder), Some(message)) = (part.and_then(|part| part.without_schema(message)), message) {
                schemas.supply(decoder, message).await?;
            }
        }
        Ok(())
    }

    /// Adds a record; false: there is no room, take the rows and give it again.
    pub fn push(&mut self, record: &impl Incoming) -> bool {
        match self.add(record) {
            Ok(()) => {
                self.offsets.push(record.offset());
                self.bytes += record.value().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
            }
            Err(refused) if refused.full => return false,
            Err(refused) => {
                let payload = record.value().unwrap_or_default();
                let payload = payload[..payload.len().min(formats::MAX_BAD_PAYLOAD_BYTES)].to_vec();
                self.bytes += payload.len();
                let Refused { code, message, .. } = refused;
                self.bad.push(BadRecord { position: record.offset(), code, message, payload });
            }
        }
        true
    }

    fn add(&mut self, record: &impl Incoming) -> Result<(), Refused> {
        // Whatever may refuse the record comes before what it would have to take back.
        if self.layout.wants_key == Some(true) && record.key().is_some_and(|key| std::str::from_utf8(key).is_err()) {
            return Err(Refused::new("invalid_utf8", "the key is not UTF-8, and its column is a STRING"));
        }
        self.layout.check_beside(record)?;
        if self.layout.wants_headers {
            let mut wrong = None;
            let texts = self.layout.header_texts();
            record.headers(|name, value| {
                let is_text = std::str::from_utf8(name).is_ok()
                    && (!texts || value.is_none_or(|value| std::str::from_utf8(value).is_ok()));
                if !is_text {
                    wrong.get_or_insert_with(|| String::from_utf8_lossy(name).into_owned());
                }
            });
            if let Some(name) = wrong {
                return Err(Refused::new("invalid_utf8", format!("the header {name} is not UTF-8")));
            }
        }
        if let Some(key) = &mut self.key {
            key.push(record.key(), "key")?;
            self.kept_keys.push(true);
        }
        if let Err(refused) = self.value.push(record.value(), "value") {
            if let Some(kept) = self.kept_keys.last_mut().filter(|_| self.key.is_some()) {
                *kept = false;
            }
            return Err(refused);
        }
        if self.layout.wants_timestamp {
            self.timestamps.push(record.timestamp());
        }
        if self.layout.wants_key.is_some() {
            self.keys.push(record.key()).expect("it was looked at before");
        }
        if self.layout.wants_headers {
            let mut count = 0;
            record.headers(|name, value| {
                count += 1;
                self.headers.names.append_value(String::from_utf8_lossy(name));
                self.headers.values.append_option(value);
            });
            self.headers.lengths.push(count);
        }
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.bad.is_empty()
    }

    /// Bytes of the records that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn bad(&self) -> usize {
        self.bad.len()
    }

    /// What waits, as a batch; nothing is left.
    pub fn take(&mut self) -> Result<(RecordBatch, RowPositions, Vec<BadRecord>), RunError> {
        self.bytes = 0;
        let offsets = std::mem::take(&mut self.offsets);
        let timestamps = std::mem::take(&mut self.timestamps);
        let count = offsets.len();
        let values = self.value.finish();
        let mut keys = self.key.as_mut().map(Part::finish).unwrap_or_default();
        let kept = std::mem::take(&mut self.kept_keys);
        if kept.contains(&false) {
            let kept = BooleanArray::from(kept);
            keys = keys.iter().map(|column| compute::filter(column, &kept)).collect::<Result<_, _>>()?;
        }
        let layout = self.layout.clone();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(layout.places.len());
        for (place, field) in layout.places.iter().zip(layout.schema.fields()) {
            let column: ArrayRef = match place {
                Place::Value(at) => values[*at].clone(),
                Place::Key(at) => keys[*at].clone(),
                Place::Beside(Beside::Topic) => {
                    Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.topic, count)))
                }
                Place::Beside(Beside::Partition) => Arc::new(Int32Array::from_value(self.partition, count)),
                Place::Beside(Beside::Offset) => Arc::new(Int64Array::from(offsets.clone())),
                Place::Beside(Beside::Timestamp) => {
                    let times = timestamps.iter().map(|time| time.map(|(ms, _)| ms));
                    Arc::new(TimestampMillisecondArray::from_iter(times))
                }
                Place::Beside(Beside::TimestampType) => {
                    let kind = |(_, by_broker)| if by_broker { "LogAppendTime" } else { "CreateTime" };
                    let kinds = timestamps.iter().map(|time| time.map_or("NoTimestampType", kind));
                    Arc::new(StringArray::from_iter_values(kinds))
                }
                Place::Beside(Beside::Key) => self.keys.finish(),
                Place::Beside(Beside::Headers) => self.headers.finish(field)?,
            };
            debug_assert!(field.is_nullable() || column.null_count() == 0, "{} was checked before", field.name());
            columns.push(coerced(&column, field.data_type())?);
        }
        let positions = match (offsets.first(), offsets.last()) {
            (Some(first), Some(last)) if last - first == count as i64 - 1 => RowPositions::From(*first),
            (None, _) => RowPositions::From(0),
            _ => RowPositions::Each(Int64Array::from(offsets)),
        };
        Ok((batch(&layout.schema, columns, count), positions, std::mem::take(&mut self.bad)))
    }
}

impl Layout {
    /// What stands beside a record must fit its columns.
    fn check_beside(&self, record: &impl Incoming) -> Result<(), Refused> {
        let required = |at: Option<usize>| {
            let field = at.map(|at| self.schema.field(at));
            field.filter(|field| !field.is_nullable()).map(|field| field.name())
        };
        if let Some(column) = required(self.key_column).filter(|_| record.key().is_none()) {
            return Err(Refused::new("no_key", format!("the record has no key, and the column {column} is NOT NULL")));
        }
        match (self.timestamp_column, record.timestamp()) {
            (Some(at), Some((ms, _))) if !TIMES_MS.contains(&ms) => {
                let column = self.schema.field(at).name();
                let message = format!("the record's timestamp, {ms} ms, is beyond the years that {column} can hold");
                Err(Refused::new("out_of_range", message))
            }
            (at, None) => match required(at) {
                Some(column) => {
                    let message = format!("the record has no timestamp, and the column {column} is NOT NULL");
                    Err(Refused::new("no_timestamp", message))
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn header_texts(&self) -> bool {
        let at = self.places.iter().position(|place| *place == Place::Beside(Beside::Headers));
        at.is_some_and(|at| match self.schema.field(at).data_type() {
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => is_text(fields[1].data_type()),
                _ => false,
            },
            _ => false,
        })
    }
}

impl Headers {
    fn finish(&mut self, field: &Field) -> Result<ArrayRef, RunError> {
        let DataType::Map(entries, sorted) = field.data_type() else {
            return Err(RunError::internal("headers are a map"));
        };
        let DataType::Struct(fields) = entries.data_type() else {
            return Err(RunError::internal("the entries of a map are a struct"));
        };
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths));
        let names: ArrayRef = Arc::new(self.names.finish());
        let values = coerced(&(Arc::new(self.values.finish()) as ArrayRef), fields[1].data_type())?;
        let entries_array = StructArray::try_new(fields.clone(), vec![names, values], None)?;
        Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, entries_array, None, *sorted)?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{all_columns, source_node};
    use graph::SourceConnector;
    use serde_json::json;

    struct Given {
        key: Option<&'static str>,
        timestamp: Option<i64>,
    }

    impl Incoming for Given {
        fn offset(&self) -> i64 {
            5
        }

        fn value(&self) -> Option<&[u8]> {
            Some(br#"{"n":1}"#)
        }

        fn key(&self) -> Option<&[u8]> {
            self.key.map(str::as_bytes)
        }

        fn timestamp(&self) -> Option<(i64, bool)> {
            self.timestamp.map(|ms| (ms, false))
        }

        fn headers(&self, _: impl FnMut(&[u8], Option<&[u8]>)) {}
    }

    #[test]
    fn what_does_not_fit_beside_a_record_makes_it_bad() {
        let table = json!({"type": "kafka", "topic": "t", "properties.bootstrap.servers": "h:1", "format": "json"});
        let columns = ["n BIGINT", "key STRING NOT NULL", "at TIMESTAMP(6) NOT NULL"];
        let mut node = source_node(table, &columns, &[]);
        node.metadata = [("key", "key"), ("at", "timestamp")].map(|(name, key)| (name.into(), key.into())).into();
        let SourceConnector::Kafka(options) = &node.connector else { panic!("no kafka") };
        let layout = Arc::new(Layout::new(&node, options, &all_columns(&node)).unwrap());
        let mut rows = layout.decoder("t", 0);
        let good = Given { key: Some("k"), timestamp: Some(1_700_000_000_123) };
        for (record, expected) in [
            (Given { key: None, ..good }, Some(("no_key", "column key is NOT NULL"))),
            (Given { timestamp: None, ..good }, Some(("no_timestamp", "column at is NOT NULL"))),
            // Microseconds by mistake, and what no unit can hold.
            (Given { timestamp: Some(1_700_000_000_123_456), ..good }, Some(("out_of_range", "1700000000123456 ms"))),
            (Given { timestamp: Some(i64::MAX), ..good }, Some(("out_of_range", "at can hold"))),
            (Given { ..good }, None),
        ] {
            assert!(rows.push(&record));
            let (batch, _, bad) = rows.take().unwrap();
            assert_eq!(batch.num_rows() + bad.len(), 1);
            match (expected, bad.first()) {
                (None, None) => {}
                (Some((code, part)), Some(bad)) => {
                    assert!(bad.code == code && bad.message.contains(part) && bad.position == 5, "{bad:?}");
                }
                (expected, bad) => panic!("{expected:?}: {bad:?}"),
            }
        }
    }
}
