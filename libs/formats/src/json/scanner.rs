//! The scanner: JSON text straight into columns, only the needed ones, about ten times as fast as a parser of whole documents.
//!
//! A record's values wait in slots until the whole record has been accepted; only then is a row appended. So a bad record leaves no trace, and
//! of duplicate keys the last wins without being looked for.

use arrow::datatypes::SchemaRef;

use super::JsonOptions;
use super::lex::{Fault, Flaw, blanks, byte, integer, string, unescape, value};
use super::plan::{Action, Fast, Leaf, Object, START, compile};
use super::value::{self as values, as_text};
use crate::columns::{Column, Data, Kind, Refusal, Scalar, sql_type};
use crate::decoder::{BadRecord, Decoded, FormatError, Progress, RecordDecoder, Stopped};
use crate::feed::{self, Feed, excerpt};
use crate::text::{Misfit, TimestampFormat};

/// A value of the record being read; ranges are positions in the text.
#[derive(Clone, Copy)]
enum Slot {
    Missing,
    Null,
    /// The value of a column of a fixed size.
    Bits(i64),
    Wide {
        high: i64,
        low: u64,
    },
    /// UTF-8 without escapes.
    Text {
        start: usize,
        end: usize,
    },
    /// The inside of a string with escapes.
    Escaped {
        start: usize,
        end: usize,
    },
    /// An accepted value of a list, map or binary column.
    Raw {
        start: usize,
        end: usize,
    },
    /// A ROW; its fields have slots of their own.
    Struct,
    /// An accepted value that is none of the column's type.
    Misfit {
        start: usize,
        end: usize,
    },
}

/// Why an accepted record does not become a row.
enum Refused {
    Full,
    /// The column with this slot refused its value.
    Value {
        slot: usize,
        range: Option<(usize, usize)>,
        refusal: Refusal,
    },
}

/// Reads JSON records; see [`RecordDecoder`] for how to feed it.
pub struct Scanner {
    schema: SchemaRef,
    timestamp_format: TimestampFormat,
    columns: Vec<Column>,
    objects: Vec<Object>,
    leaves: Vec<Leaf>,
    slots: Vec<Slot>,
    scratch: Vec<u8>,
    feed: Feed,
}

impl Scanner {
    /// A scanner of the needed columns. Keys match column names exactly; fields of ROW columns likewise, within their object.
    ///
    /// # Errors
    /// A column type that JSON cannot carry.
    pub fn new(schema: SchemaRef, options: JsonOptions) -> Result<Scanner, FormatError> {
        let columns = schema
            .fields()
            .iter()
            .map(|field| Column::new(field, "JSON", field.name()))
            .collect::<Result<Vec<_>, _>>()?;
        let (objects, leaves) = compile(&columns);
        let slots = vec![Slot::Missing; leaves.len()];
        let (timestamp_format, feed) = (options.timestamp_format, Feed::new(options.max_record_bytes));
        Ok(Scanner { schema, timestamp_format, columns, objects, leaves, slots, scratch: Vec::new(), feed })
    }

    #[cfg(test)]
    pub(super) fn limit_columns(&mut self, max_offset: usize) {
        self.columns.iter_mut().for_each(|column| column.set_max_offset(max_offset));
    }

    /// One record whose first byte (a brace, if it is good) is at `start`: into the slots. Gives the position behind it and its blanks.
    #[inline(always)]
    fn scan<const LINES: bool>(&mut self, text: &[u8], start: usize) -> Result<usize, Fault> {
        self.slots.fill(Slot::Missing);
        if byte(text, start) != b'{' {
            return Err(Fault::new(Flaw::ObjectExpected, start));
        }
        let end = self.object::<LINES>(text, start + 1, 0, 1)?;
        let end = blanks::<LINES>(text, end);
        if end < text.len() && !(LINES && text[end] == b'\n') {
            return Err(Fault::new(Flaw::Trailing, end));
        }
        Ok(end)
    }

    /// The object with this index of the plan, from behind its brace to behind its other. Recursion follows the schema, not the data.
    fn object<const LINES: bool>(
        &mut self,
        text: &[u8],
        start: usize,
        object: usize,
        depth: usize,
    ) -> Result<usize, Fault> {
        let mut position = blanks::<LINES>(text, start);
        if byte(text, position) == b'}' {
            return Ok(position + 1);
        }
        let mut token = START;
        loop {
            let (found, action, after) = self.objects[object].key::<LINES>(text, position, token)?;
            token = found;
            position = blanks::<LINES>(text, after);
            position = match action {
                Action::Skip => value::<LINES>(text, position, depth)?,
                Action::Leaf { slot, fast } => self.leaf::<LINES>(text, position, slot.into(), fast, depth)?,
                Action::Object { slot, object } => {
                    self.row::<LINES>(text, position, slot.into(), object.into(), depth)?
                }
            };
            position = blanks::<LINES>(text, position);
            match byte(text, position) {
                b',' => position = blanks::<LINES>(text, position + 1),
                b'}' => return Ok(position + 1),
                _ => return Err(Fault::new(Flaw::CommaOrBraceExpected, position)),
            }
        }
    }

    #[inline(always)]
    fn leaf<const LINES: bool>(
        &mut self,
        text: &[u8],
        start: usize,
        slot: usize,
        fast: Fast,
        depth: usize,
    ) -> Result<usize, Fault> {
        match fast {
            Fast::Integer => {
                if let (Some((value, end)), Kind::Int { min, max }) = (integer(text, start), self.leaves[slot].kind)
                    && (min..=max).contains(&value)
                {
                    self.slots[slot] = Slot::Bits(value);
                    return Ok(end);
                }
            }
            Fast::Text if byte(text, start) == b'"' => {
                let end = string(text, start + 1)?;
                let (start, inside_end) = (start + 1, end.after() - 1);
                self.slots[slot] = if end.escaped() {
                    Slot::Escaped { start, end: inside_end }
                } else {
                    Slot::Text { start, end: inside_end }
                };
                return Ok(end.after());
            }
            Fast::Timestamp => {
                if byte(text, start) == b'"'
                    && let Some((value, end)) = self.leaves[slot].minute.timestamp(text, start + 1)
                    && byte(text, end) == b'"'
                {
                    self.slots[slot] = Slot::Bits(value);
                    return Ok(end + 1);
                }
            }
            Fast::Text | Fast::None => {}
        }
        self.slow_leaf::<LINES>(text, start, slot, depth)
    }

    #[inline(never)]
    fn slow_leaf<const LINES: bool>(
        &mut self,
        text: &[u8],
        start: usize,
        slot: usize,
        depth: usize,
    ) -> Result<usize, Fault> {
        let end = value::<LINES>(text, start, depth)?;
        let raw = &text[start..end];
        let kind = self.leaves[slot].kind;
        self.slots[slot] = match (raw[0], kind) {
            (b'n', _) => Slot::Null,
            (b'-' | b'0'..=b'9' | b't' | b'f', Kind::Text) => Slot::Text { start, end },
            (b'[', Kind::List) | (b'{', Kind::Map) | (b'"', Kind::Binary) => Slot::Raw { start, end },
            (_, Kind::Text | Kind::List | Kind::Map | Kind::Binary) => Slot::Misfit { start, end },
            _ => match values::fixed(kind, raw, self.timestamp_format, &mut self.scratch) {
                Ok(Scalar::Bits(bits)) => Slot::Bits(bits),
                Ok(Scalar::Wide(value)) => Slot::Wide { high: (value >> 64) as i64, low: value as u64 },
                Err(_) => Slot::Misfit { start, end },
            },
        };
        Ok(end)
    }

    fn row<const LINES: bool>(
        &mut self,
        text: &[u8],
        start: usize,
        slot: usize,
        object: usize,
        depth: usize,
    ) -> Result<usize, Fault> {
        // A duplicate key: nothing of its former value may remain.
        if !matches!(self.slots[slot], Slot::Missing) {
            self.slots[slot..self.leaves[slot].subtree_end].fill(Slot::Missing);
        }
        if byte(text, start) == b'{' {
            if depth == super::MAX_DEPTH {
                return Err(Fault::new(Flaw::TooDeep, start));
            }
            self.slots[slot] = Slot::Struct;
            return self.object::<LINES>(text, start + 1, object, depth + 1);
        }
        let end = value::<LINES>(text, start, depth)?;
        self.slots[slot] = if text[start] == b'n' { Slot::Null } else { Slot::Misfit { start, end } };
        Ok(end)
    }

    /// Appends the slots as a row, or nothing.
    #[inline(always)]
    fn commit(&mut self, text: &[u8]) -> Result<(), Refused> {
        let mut slot = 0;
        for column in &mut self.columns {
            let row = Row { slots: &self.slots, leaves: &self.leaves, text, format: self.timestamp_format };
            if let Err(refused) = row.append(column, &mut slot, &mut self.scratch) {
                let rows = self.feed.rows();
                self.columns.iter_mut().for_each(|column| column.truncate(rows));
                return Err(refused);
            }
        }
        self.feed.push_row();
        Ok(())
    }

    #[cold]
    fn faulty(&self, fault: Fault, text: &[u8], start: usize, end: usize, offset: u64) -> BadRecord {
        let (code, message) = describe(fault, text, start, end);
        self.feed.bad(code, message, &text[start..end], offset)
    }

    /// SQL name of the type of a slot's column or field.
    fn field_type(&self, slot: usize) -> String {
        fn find(columns: &[Column], at: &mut usize, slot: usize) -> Option<String> {
            for column in columns {
                if *at == slot {
                    return Some(sql_type(column.field.data_type()));
                }
                *at += 1;
                if let Data::Struct(children) = &column.data
                    && let Some(found) = find(children, at, slot)
                {
                    return Some(found);
                }
            }
            None
        }
        find(&self.columns, &mut 0, slot).expect("each slot belongs to a column")
    }

    /// What kind of misfit a value is, looked for again now that it matters.
    #[cold]
    fn why(&mut self, slot: usize, text: &[u8], start: usize, end: usize) -> Refusal {
        match self.leaves[slot].kind {
            Kind::Text | Kind::Binary | Kind::List | Kind::Map | Kind::Struct => Refusal::Misfit(Misfit::Malformed),
            kind => {
                let refused = values::fixed(kind, &text[start..end], self.timestamp_format, &mut self.scratch);
                Refusal::Misfit(refused.err().unwrap_or(Misfit::Malformed))
            }
        }
    }

    /// A record that was not appended: Err if a column is full, else the report.
    #[cold]
    fn report(
        &mut self,
        refused: Refused,
        text: &[u8],
        start: usize,
        end: usize,
        offset: u64,
    ) -> Result<BadRecord, Full> {
        let Refused::Value { slot, range, refusal } = refused else { return Err(Full) };
        let refusal = match (self.slots[slot], refusal) {
            (Slot::Misfit { start, end }, _) => self.why(slot, text, start, end),
            (_, refusal) => refusal,
        };
        let value = range.map(|(start, end)| &text[start..end]);
        let (code, message) = feed::refusal(&self.leaves[slot].path, &self.field_type(slot), refusal, value);
        Ok(self.feed.bad(code, message, &text[start..end], offset))
    }
}

/// The columns are full; nothing was appended.
struct Full;

/// The accepted record that is being appended.
struct Row<'a> {
    slots: &'a [Slot],
    leaves: &'a [Leaf],
    text: &'a [u8],
    format: TimestampFormat,
}

impl Row<'_> {
    /// Appends the slot `next` (and those of its fields) to its column, and moves `next` behind it.
    #[inline]
    fn append(&self, column: &mut Column, next: &mut usize, scratch: &mut Vec<u8>) -> Result<(), Refused> {
        let slot = *next;
        *next += 1;
        let (outcome, range) = match self.slots[slot] {
            Slot::Bits(bits) => {
                column.push_bits(bits);
                return Ok(());
            }
            Slot::Text { start, end } => {
                debug_assert!(std::str::from_utf8(&self.text[start..end]).is_ok());
                // SAFETY: the slot was filled from this text and since the last reset, with the inside of a string that `lex::string`
                // accepted, which includes that it is UTF-8, or with a number or literal, which are ASCII.
                let text = unsafe { std::str::from_utf8_unchecked(&self.text[start..end]) };
                match column.push_text(text) {
                    Ok(()) => return Ok(()),
                    Err(full) => (Err(Refusal::from(full)), None),
                }
            }
            Slot::Missing | Slot::Null => {
                *next = self.leaves[slot].subtree_end;
                (values::append_null(column), None)
            }
            Slot::Struct => {
                let Data::Struct(children) = &mut column.data else {
                    unreachable!("only ROW columns have struct slots")
                };
                for child in children {
                    self.append(child, next, scratch)?;
                }
                column.close_struct();
                return Ok(());
            }
            Slot::Wide { high, low } => {
                column.push(Scalar::Wide(i128::from(high) << 64 | i128::from(low)));
                return Ok(());
            }
            Slot::Escaped { start, end } => {
                scratch.clear();
                unescape(&self.text[start..end], scratch);
                (column.push_text(as_text(scratch)).map_err(Refusal::from), None)
            }
            Slot::Raw { start, end } => {
                (values::append(column, &self.text[start..end], self.format, scratch), Some((start, end)))
            }
            Slot::Misfit { start, end } => (Err(Refusal::Misfit(Misfit::Malformed)), Some((start, end))),
        };
        outcome.map_err(|refusal| match refusal {
            Refusal::Full => Refused::Full,
            refusal => Refused::Value { slot, range, refusal },
        })
    }
}

impl RecordDecoder for Scanner {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin_file(&mut self) {
        self.feed.begin_file();
    }

    fn seek(&mut self, offset: u64, record: u64) {
        self.feed.seek(offset, record);
    }

    fn decode(&mut self, bytes: &[u8], last: bool, max_rows: usize) -> Result<Progress, FormatError> {
        let mut progress = Progress { consumed: 0, rows: 0, bad: Vec::new(), stopped: Stopped::Bytes };
        let Some(mut position) = self.feed.first(bytes, last) else { return Ok(progress) };
        // Whole lines only: whatever is wrong in them, a newline stops it.
        let end = if last {
            bytes.len()
        } else {
            bytes.iter().rposition(|&byte| byte == b'\n').map_or(position, |newline| newline + 1)
        };
        while position < end {
            if progress.rows == max_rows {
                progress.stopped = Stopped::Rows;
                break;
            }
            let line = position;
            let start = blanks::<true>(bytes, line);
            let offset = self.feed.offset + line as u64;
            let max_end = line + self.feed.max_record_bytes;
            let blank = start >= bytes.len() || bytes[start] == b'\n';
            let outcome = if blank { Ok(start) } else { self.scan::<true>(bytes, start) };
            position = match outcome {
                Ok(behind) if behind > max_end => {
                    progress.bad.push(self.feed.too_long(&bytes[line..behind], offset));
                    behind
                }
                Ok(behind) if blank => behind,
                Ok(behind) => {
                    match self.commit(bytes) {
                        Ok(()) => progress.rows += 1,
                        Err(refused) => match self.report(refused, bytes, line, behind, offset) {
                            Ok(bad) => progress.bad.push(bad),
                            Err(Full) => {
                                progress.stopped = Stopped::Full;
                                break;
                            }
                        },
                    }
                    behind
                }
                Err(fault) => {
                    let line_end = bytes[line..]
                        .iter()
                        .position(|&byte| byte == b'\n')
                        .map_or(bytes.len(), |length| line + length);
                    progress.bad.push(if line_end > max_end {
                        self.feed.too_long(&bytes[line..line_end], offset)
                    } else {
                        self.faulty(fault, bytes, line, line_end, offset)
                    });
                    line_end
                }
            };
            // Over the newline, which only the last line of the file may lack.
            position += usize::from(position < bytes.len());
            self.feed.record += 1;
        }
        if progress.stopped == Stopped::Bytes && bytes.len() - position > self.feed.max_record_bytes {
            progress.bad.push(self.feed.too_long(&bytes[position..], self.feed.offset + position as u64));
            position = bytes.len();
            self.feed.record += 1;
            self.feed.skip_line();
        }
        self.feed.offset += position as u64;
        progress.consumed = position;
        Ok(progress)
    }

    fn decode_record(&mut self, record: &[u8]) -> Result<(), Box<BadRecord>> {
        let offset = self.feed.offset;
        let start = blanks::<false>(record, 0);
        let scanned =
            if start == record.len() { Err(Fault::new(Flaw::Empty, start)) } else { self.scan::<false>(record, start) };
        let outcome = match scanned {
            _ if record.len() > self.feed.max_record_bytes => Err(self.feed.too_long(record, offset)),
            Err(fault) => Err(self.faulty(fault, record, 0, record.len(), offset)),
            Ok(_) => match self.commit(record) {
                Ok(()) => Ok(()),
                Err(refused) => match self.report(refused, record, 0, record.len(), offset) {
                    Ok(bad) => Err(bad),
                    Err(Full) => return Err(Box::new(self.feed.full())),
                },
            },
        };
        self.feed.record += 1;
        self.feed.offset += record.len() as u64;
        outcome.map_err(Box::new)
    }

    fn rows(&self) -> usize {
        self.feed.rows()
    }

    fn flush(&mut self) -> Decoded {
        self.feed.flush(&self.schema, &mut self.columns)
    }
}

/// Code and message of a fault in the record `text[start..end]`.
fn describe(fault: Fault, text: &[u8], start: usize, end: usize) -> (&'static str, String) {
    let at = fault.position() - start;
    if fault.flaw() == Flaw::Empty {
        return ("empty", "the record is empty".into());
    }
    if fault.position() >= end && fault.flaw() != Flaw::Trailing {
        return ("truncated", format!("the record ends at byte {at}, before its object is complete"));
    }
    let found = excerpt(&text[fault.position()..end.min(fault.position() + 12)]);
    let expected = |what: &str| ("syntax", format!("expected {what} at byte {at}, found {found}"));
    match fault.flaw() {
        Flaw::ObjectExpected => ("not_an_object", format!("a record is one JSON object, but this begins with {found}")),
        Flaw::KeyExpected => expected("a key in double quotes"),
        Flaw::ColonExpected => expected("a colon"),
        Flaw::ValueExpected => expected("a value"),
        Flaw::CommaOrBraceExpected => expected("a comma or }"),
        Flaw::CommaOrBracketExpected => expected("a comma or ]"),
        Flaw::Number => expected("a digit of a number"),
        Flaw::Literal => expected("true, false or null"),
        Flaw::Escape => ("invalid_escape", format!("invalid escape in a string at byte {at}")),
        Flaw::Surrogate => ("invalid_escape", format!("a surrogate that is half a pair is escaped at byte {at}")),
        Flaw::Control => {
            let control = text[fault.position()];
            (
                "control_character",
                format!("a string holds the control character 0x{control:02x} at byte {at}; escape it"),
            )
        }
        Flaw::Utf8 => ("invalid_utf8", format!("a string is not UTF-8 at byte {at}")),
        Flaw::TooDeep => {
            ("too_deep", format!("more than {} arrays and objects are nested at byte {at}", super::MAX_DEPTH))
        }
        Flaw::Trailing => ("trailing_data", format!("something follows the object at byte {at}: {found}")),
        Flaw::Empty => unreachable!("answered above"),
    }
}
