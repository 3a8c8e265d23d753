//! Messages into columns; see [`RecordDecoder`] and the module above.

use std::collections::HashMap;

use arrow::datatypes::SchemaRef;

use super::plan::Plan;
use super::schema::Schema;
use super::wire::{Cursor, Fault, Flaw};
use super::{FRAME_BYTES, MAX_DEPTH, MAX_EXPANDED_BYTES};
use crate::columns::Column;
use crate::decoder::{BadRecord, DEFAULT_MAX_RECORD_BYTES, Decoded, FormatError, Progress, RecordDecoder, Stopped};
use crate::feed::{Feed, excerpt};

/// Code of the refusal of a message whose schema is not known yet: not a bad record. See [`MessageDecoder`].
pub const SCHEMA_NEEDED: &str = "schema_needed";

/// Code of a record that is too long, or becomes too long.
const TOO_LONG: &str = "record_too_long";

/// Code of a record whose schema does not exist.
const SCHEMA_UNKNOWN: &str = "schema_unknown";

/// Schemas remembered at most; then all are forgotten and asked for again. Bounds what a stream of invented ids can fill.
const MAX_SCHEMAS: usize = 10_000;

/// Reads messages of the Confluent framing; see [`RecordDecoder`]. Messages have no delimiters, so a file is one message.
///
/// Schemas come from outside:
///
/// ```text
/// while let Err(bad) = decoder.decode_record(message) {
///     match bad.code {
///         SCHEMA_NEEDED => {
///             let id = schema_id(message).expect("the decoder has read it");
///             match fetch(id) {
///                 Found(text, references) => decoder.add_schema(id, &text, &references),
///                 NoSuchSchema(why) => decoder.refuse_schema(id, why),
///                 Unreachable => fail the run, or wait
///             }
///         }
///         FULL => emit(decoder.flush()),
///         _ => { report(bad); break }
///     }
/// }
/// ```
///
/// Bad records have the codes `empty`, `framing` (no zero and id in front), `schema_unknown` (told by
/// [`refuse_schema`](Self::refuse_schema)), `schema_invalid`, `schema_mismatch` (a column cannot take its field), `truncated`, `malformed`,
/// `invalid_utf8`, `too_deep`, `duplicate_key`, `null`, `out_of_range`, `trailing_data`, `record_too_long`.
pub struct MessageDecoder {
    schema: SchemaRef,
    columns: Vec<Column>,
    schemas: HashMap<u32, Known>,
    /// The schema of the message before, mostly that of the next too.
    current: Option<(u32, Plan)>,
    feed: Feed,
    /// Inside a file that was reported as too long.
    skipping: bool,
}

enum Known {
    Plan(Plan),
    /// Code and message for each of its records.
    Refused(&'static str, String),
}

/// The id in front of a message, if it is framed.
pub fn schema_id(message: &[u8]) -> Option<u32> {
    match message {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

impl MessageDecoder {
    /// A decoder of the needed columns, which are matched by exact name.
    ///
    /// # Errors
    /// A column type that no Avro type can become.
    pub fn new(schema: SchemaRef) -> Result<MessageDecoder, FormatError> {
        let columns = schema.fields().iter().map(|field| Column::new(field, "Avro", field.name()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let feed = Feed::new(DEFAULT_MAX_RECORD_BYTES);
        Ok(MessageDecoder { schema, columns, schemas: HashMap::new(), current: None, feed, skipping: false })
    }

    /// The id of the message's schema, if it is framed and its schema is not known yet.
    pub fn needs(&self, message: &[u8]) -> Option<u32> {
        let id = schema_id(message)?;
        let known = self.current.as_ref().is_some_and(|(current, _)| *current == id) || self.schemas.contains_key(&id);
        (!known).then_some(id)
    }

    /// Tells the schema with this id: its JSON, and the JSON of the schemas that it refers to, each after those that it needs itself.
    /// If it cannot be used, its records are bad, each with the reason.
    pub fn add_schema(&mut self, id: u32, text: &str, references: &[String]) {
        let known = match Schema::parse(text, references) {
            Err(why) => Known::Refused("schema_invalid", format!("schema {id} cannot be used: {why}")),
            Ok(schema) => match Plan::new(schema, &self.columns) {
                Ok(plan) => Known::Plan(plan),
                Err(why) => Known::Refused("schema_mismatch", format!("schema {id} does not fit the table: {why}")),
            },
        };
        self.remember(id, known);
    }

    /// There is no such schema: the next record that names it is bad (`schema_unknown`), with the reason. For the one behind it, tell again.
    pub fn refuse_schema(&mut self, id: u32, why: &str) {
        self.remember(id, Known::Refused(SCHEMA_UNKNOWN, format!("schema {id} cannot be had: {why}")));
    }

    fn remember(&mut self, id: u32, known: Known) {
        if self.current.as_ref().is_some_and(|(current, _)| *current == id) {
            self.current = None;
        }
        if self.schemas.len() >= MAX_SCHEMAS {
            self.schemas.clear();
        }
        self.schemas.insert(id, known);
    }

    /// Makes the schema with this id the current one.
    fn select(&mut self, id: u32) -> Result<(), (&'static str, String)> {
        match self.schemas.get(&id) {
            None => return Err((SCHEMA_NEEDED, format!("schema {id} has not been fetched"))),
            Some(Known::Refused(code, message)) => {
                let refusal = (*code, message.clone());
                // What is not there may come: whoever has refused it knows for how long, and is asked again.
                if refusal.0 == SCHEMA_UNKNOWN {
                    self.schemas.remove(&id);
                }
                return Err(refusal);
            }
            Some(Known::Plan(_)) => {}
        }
        if let Some((last, plan)) = self.current.take() {
            self.schemas.insert(last, Known::Plan(plan));
        }
        if let Some(Known::Plan(plan)) = self.schemas.remove(&id) {
            self.current = Some((id, plan));
        }
        Ok(())
    }

    /// One message into the columns, or nothing.
    #[inline]
    fn message(&mut self, message: &[u8]) -> Result<(), (&'static str, String)> {
        let Some(id) = schema_id(message) else { return Err(unframed(message)) };
        if self.current.as_ref().is_none_or(|(current, _)| *current != id) {
            self.select(id)?;
        }
        let Some((_, plan)) = &self.current else { unreachable!("a schema was selected") };
        let mut cursor = Cursor { rest: &message[FRAME_BYTES..], room: MAX_EXPANDED_BYTES };
        let flaw = match plan.decode(&mut cursor, &mut self.columns) {
            Ok(()) if cursor.rest.is_empty() => return Ok(()),
            Ok(()) => {
                let (at, more) = (message.len() - cursor.rest.len(), cursor.rest.len());
                ("trailing_data", format!("{more} bytes follow the record of schema {id} at byte {at}"))
            }
            Err(fault) => {
                let at = message.len() - fault.left;
                describe(*fault, at, id)
            }
        };
        let rows = self.feed.rows();
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        Err(flaw)
    }

    /// Counts the message as one record, unless it will be given again.
    fn outcome(&mut self, message: &[u8]) -> Result<(), Box<BadRecord>> {
        let offset = self.feed.offset;
        let outcome = if message.len() > self.feed.max_record_bytes {
            Err(self.feed.too_long(message, offset))
        } else {
            match self.message(message) {
                Ok(()) => {
                    self.feed.push_row();
                    Ok(())
                }
                // Into empty columns it would not fit any better.
                Err((crate::FULL, _)) if self.feed.rows() == 0 => {
                    let mut bad = self.feed.bad(TOO_LONG, "the record does not fit into a column".into(), b"", offset);
                    bad.payload = message[..message.len().min(crate::MAX_BAD_PAYLOAD_BYTES)].to_vec();
                    Err(bad)
                }
                Err((crate::FULL, _)) => return Err(Box::new(self.feed.full())),
                Err((SCHEMA_NEEDED, text)) => {
                    return Err(Box::new(self.feed.bad(SCHEMA_NEEDED, text, message, offset)));
                }
                Err((code, text)) => {
                    let mut bad = self.feed.bad(code, text, b"", offset);
                    // Not a line: a last byte of 13 is part of it.
                    bad.payload = message[..message.len().min(crate::MAX_BAD_PAYLOAD_BYTES)].to_vec();
                    Err(bad)
                }
            }
        };
        self.feed.record += 1;
        self.feed.offset += message.len() as u64;
        outcome.map_err(Box::new)
    }
}

impl RecordDecoder for MessageDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin_file(&mut self) {
        self.feed.begin_file();
        self.skipping = false;
    }

    fn seek(&mut self, offset: u64, record: u64) {
        self.feed.seek(offset, record);
        self.skipping = false;
    }

    /// A file is one message. The ids that it needs must be known: here one that is not is a bad record.
    fn decode(&mut self, bytes: &[u8], last: bool, max_rows: usize) -> Result<Progress, FormatError> {
        let mut progress = Progress { consumed: 0, rows: 0, bad: Vec::new(), stopped: Stopped::Bytes };
        if self.skipping {
            self.feed.offset += bytes.len() as u64;
            progress.consumed = bytes.len();
            return Ok(progress);
        }
        if bytes.is_empty() || !last && bytes.len() <= self.feed.max_record_bytes {
            return Ok(progress);
        }
        if max_rows == 0 {
            progress.stopped = Stopped::Rows;
            return Ok(progress);
        }
        match self.outcome(bytes) {
            Ok(()) => progress.rows = 1,
            Err(bad) if bad.code == crate::FULL => {
                progress.stopped = Stopped::Full;
                return Ok(progress);
            }
            Err(mut bad) => {
                if bad.code == SCHEMA_NEEDED {
                    bad.code = SCHEMA_UNKNOWN;
                    self.feed.record += 1;
                    self.feed.offset += bytes.len() as u64;
                }
                progress.bad.push(*bad);
            }
        }
        progress.consumed = bytes.len();
        self.skipping = !last;
        Ok(progress)
    }

    /// [`SCHEMA_NEEDED`] as the code of the refusal means that the schema has to be told first: then give the record again.
    fn decode_record(&mut self, record: &[u8]) -> Result<(), Box<BadRecord>> {
        self.outcome(record)
    }

    fn rows(&self) -> usize {
        self.feed.rows()
    }

    fn flush(&mut self) -> Decoded {
        self.feed.flush(&self.schema, &mut self.columns)
    }
}

#[cold]
fn unframed(message: &[u8]) -> (&'static str, String) {
    match message {
        [] => ("empty", "the record is empty".into()),
        [0, ..] => {
            ("framing", format!("the record has {} bytes; a zero and the id of its schema take 5", message.len()))
        }
        _ => (
            "framing",
            format!(
                "the record begins with {}, not with a zero and the id of its schema; is it Avro of a schema registry?",
                excerpt(&message[..message.len().min(12)])
            ),
        ),
    }
}

/// Code and message of a fault at byte `at` of a message.
#[cold]
fn describe(fault: Fault, at: usize, id: u32) -> (&'static str, String) {
    let path: Vec<_> = fault.path.iter().rev().map(String::as_str).collect();
    let path = path.join(".");
    let place = if path.is_empty() { String::new() } else { format!("column {path}: ") };
    let data_type = fault.data_type.unwrap_or_default();
    let malformed = |what: String| ("malformed", format!("{place}{what} at byte {at}, by schema {id}"));
    match fault.flaw {
        Flaw::Full => (crate::FULL, String::new()),
        Flaw::TooLong => {
            (TOO_LONG, format!("{place}the texts of its enums are longer than {MAX_EXPANDED_BYTES} bytes"))
        }
        Flaw::Truncated => ("truncated", format!("{place}the record ends too early after byte {at}, by schema {id}")),
        Flaw::Number => malformed("a number of too many bits".into()),
        Flaw::Length(length) => malformed(format!("a length of {length} that is not so")),
        Flaw::Boolean(byte) => malformed(format!("a boolean of {byte}")),
        Flaw::Branch(branch) => malformed(format!("branch {branch} of a union that does not have it")),
        Flaw::Symbol(symbol) => malformed(format!("symbol {symbol} of an enum that does not have it")),
        Flaw::Utf8 => ("invalid_utf8", format!("{place}a string is not UTF-8 before byte {at}")),
        Flaw::TooDeep => ("too_deep", format!("{place}more than {MAX_DEPTH} values are nested at byte {at}")),
        Flaw::DuplicateKey(key) => {
            ("duplicate_key", format!("{place}the map has the key {} twice", excerpt(key.as_bytes())))
        }
        Flaw::Null => ("null", format!("column {path} ({data_type}) has a null where it is NOT NULL")),
        Flaw::OutOfRange(value) => {
            ("out_of_range", format!("column {path}: {value} is out of the range of {data_type}"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema as Columns};
    use std::sync::Arc;

    fn decoder(data_type: DataType, writer: &str) -> MessageDecoder {
        let columns = Arc::new(Columns::new(vec![Field::new("a", data_type, true)]));
        let mut decoder = MessageDecoder::new(columns).unwrap();
        let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{writer}}}]}}"#);
        decoder.add_schema(1, &text, &[]);
        decoder
    }

    fn outcome(decoder: &mut MessageDecoder, record: &[u8]) -> Result<(), &'static str> {
        decoder.decode_record(&[&[0, 0, 0, 0, 1][..], record].concat()).map_err(|bad| bad.code)
    }

    #[test]
    fn a_record_that_no_column_can_hold_is_bad_and_one_that_fits_no_more_waits() {
        let mut decoder = decoder(DataType::Utf8, "\"string\"");
        decoder.columns[0].set_max_offset(5);
        assert_eq!(outcome(&mut decoder, b"\x0cabcdef"), Err(TOO_LONG));
        assert_eq!(outcome(&mut decoder, b"\x08abcd"), Ok(()));
        assert_eq!(outcome(&mut decoder, b"\x08abcd"), Err(crate::FULL));
        assert_eq!(decoder.flush().batch.num_rows(), 1);
        assert_eq!(outcome(&mut decoder, b"\x08abcd"), Ok(()));
        assert_eq!(decoder.flush().records.iter().collect::<Vec<_>>(), [2], "the bad one was counted");
    }

    #[test]
    fn few_bytes_do_not_become_many() {
        let symbol = "s".repeat(1 << 19);
        let writer = format!(r#"{{"type":"array","items":{{"type":"enum","name":"E","symbols":["{symbol}"]}}}}"#);
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
        let mut decoder = decoder(list, &writer);
        let items = |count: u8| [&[count << 1][..], &vec![0; count.into()], &[0]].concat();
        assert_eq!(outcome(&mut decoder, &items(3)), Ok(()));
        // 200 items, 100 MiB.
        let many = [&[0x90, 3][..], &[0; 200], &[0]].concat();
        assert_eq!(outcome(&mut decoder, &many), Err(TOO_LONG));
        assert_eq!(decoder.flush().batch.num_rows(), 1);
    }

    #[test]
    fn a_schema_that_is_not_there_is_asked_for_again() {
        let mut decoder = decoder(DataType::Int64, "\"long\"");
        let message = [0, 0, 0, 0, 9, 2];
        decoder.refuse_schema(9, "no such schema");
        assert_eq!(decoder.needs(&message), None);
        assert_eq!(decoder.decode_record(&message).unwrap_err().code, SCHEMA_UNKNOWN);
        assert_eq!(decoder.needs(&message), Some(9));
    }
}
