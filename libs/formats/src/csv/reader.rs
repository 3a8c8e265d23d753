//! CSV records into columns, only the needed fields converted.
//!
//! A broken quote says nothing about where its record was meant to end, so reading goes on behind the first newline after the record's start:
//! what follows is judged by itself, and an unclosed quote costs its own line, not the rest of the file. For this to take linear time on any
//! input, a quote inside an unquoted field must be an error (RFC 4180 says so too): then a line read by itself and the same line read inside
//! a quote that is never closed cannot both leave a quote open, and no byte is looked at more than twice.

use arrow::datatypes::SchemaRef;

use super::CsvOptions;
use crate::columns::{Column, Kind, Refusal, sql_type};
use crate::decoder::{BadRecord, Decoded, FormatError, Progress, RecordDecoder, Stopped};
use crate::feed::{self, Feed, excerpt};
use crate::text::{self, Minute, Misfit};

/// More fields than any table has columns.
const MAX_FIELDS: usize = 65_536;

/// A field of the record being read, without its quotes.
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
    quoted: bool,
    /// It has doubled quotes.
    doubled: bool,
}

/// What a record turned out to be.
enum Split {
    /// It ends (before its line end) at `end`, and the next one begins at `next`.
    Record { end: usize, next: usize },
    /// More bytes are needed to see its end.
    Incomplete,
    /// No record: `what` is wrong at `at`, which shows at `seen`.
    Broken { at: usize, seen: usize, what: &'static str },
}

/// Reads CSV records; see [`RecordDecoder`] for how to feed it. Fields that no column needs are split off, but not looked at.
pub struct Reader {
    schema: SchemaRef,
    options: CsvOptions,
    columns: Vec<Column>,
    /// Of each column, for timestamps.
    minutes: Vec<Minute>,
    /// Per column the index of its field. None: the header has yet to be read.
    sources: Option<Vec<usize>>,
    /// Fields of a record; None: any number, as the table declares none.
    width: Option<usize>,
    /// Delimiter, quote and newline, each in all bytes of a word.
    stops: [u64; 3],
    fields: Vec<Span>,
    field_count: usize,
    scratch: Vec<u8>,
    feed: Feed,
}

impl Reader {
    /// A reader of the needed columns, which are found by name: in the header, or in `options.columns`.
    ///
    /// # Errors
    /// A column type that CSV cannot carry, a column that the table does not declare, or options that contradict each other.
    pub fn new(schema: SchemaRef, options: CsvOptions) -> Result<Reader, FormatError> {
        options.check()?;
        let columns = super::columns(&schema)?;
        let minute =
            |column: &Column| Minute::new(if let Kind::Timestamp { digits } = column.kind { digits } else { 0 });
        let minutes = columns.iter().map(minute).collect();
        let quote = options.quote.unwrap_or(options.delimiter);
        let stops = [options.delimiter, quote, b'\n'].map(|byte| ONES * u64::from(byte));
        let feed = Feed::new(options.max_record_bytes);
        let (sources, width, fields, scratch) = (None, None, Vec::new(), Vec::new());
        let mut reader =
            Reader { schema, options, columns, minutes, sources, width, stops, fields, field_count: 0, scratch, feed };
        if !reader.options.header {
            let declared = reader.options.columns.clone();
            reader.sources = Some(reader.places(&declared, |column, have| FormatError::NoSuchColumn { column, have })?);
            reader.width = (!declared.is_empty()).then_some(declared.len());
        }
        Ok(reader)
    }

    #[cfg(test)]
    pub(super) fn limit_columns(&mut self, max_offset: usize) {
        self.columns.iter_mut().for_each(|column| column.set_max_offset(max_offset));
    }

    /// Index of each needed column among the names.
    fn places(&self, names: &[String], missing: fn(String, String) -> FormatError) -> Result<Vec<usize>, FormatError> {
        let place = |column: &Column| {
            let column = column.field.name();
            let mut found = names.iter().enumerate().filter(|(_, name)| *name == column);
            match (found.next(), found.next()) {
                (Some((place, _)), None) => Ok(place),
                (Some(_), Some(_)) => Err(FormatError::HeaderAmbiguous { column: column.clone() }),
                (None, _) => {
                    let shown =
                        names.iter().take(20).map(|name| excerpt(name.as_bytes())).collect::<Vec<_>>().join(", ");
                    let more = if names.len() > 20 { format!(" and {} more", names.len() - 20) } else { String::new() };
                    Err(missing(column.clone(), shown + &more))
                }
            }
        };
        self.columns.iter().map(place).collect()
    }

    /// Finds the end of the record at `start`, and its fields.
    fn split(&mut self, text: &[u8], start: usize, last: bool) -> Split {
        self.fields.clear();
        self.field_count = 0;
        let wanted = self.width.unwrap_or(MAX_FIELDS);
        let mut position = start;
        loop {
            let quoted = self.options.quote.is_some() && text.get(position).copied() == self.options.quote;
            let (field, mut after) = if quoted {
                let mut doubled = false;
                let mut end = position + 1;
                loop {
                    end = find([self.stops[1]; 3], text, end);
                    if end == text.len() {
                        let what = "a quote is never closed";
                        return if last { Split::Broken { at: position, seen: end, what } } else { Split::Incomplete };
                    }
                    if text.get(end + 1).copied() != self.options.quote {
                        break;
                    }
                    doubled = true;
                    end += 2;
                }
                (Span { start: position + 1, end, quoted, doubled }, end + 1)
            } else {
                let end = find(self.stops, text, position);
                (Span { start: position, end, quoted, doubled: false }, end)
            };
            if self.field_count < wanted {
                self.fields.push(field);
            }
            self.field_count += 1;
            // Behind a closing quote a carriage return can only be part of the line end.
            let carriage_return = quoted && text.get(after) == Some(&b'\r');
            after += usize::from(carriage_return);
            match text.get(after) {
                None if !last => return Split::Incomplete,
                None | Some(b'\n') => {
                    let mut end = after;
                    if !quoted && after > field.start && text[after - 1] == b'\r' {
                        end -= 1;
                        if let Some(field) = self.fields.get_mut(self.field_count - 1) {
                            field.end = end;
                        }
                    }
                    return Split::Record {
                        end: end - usize::from(carriage_return),
                        next: (after + 1).min(text.len()),
                    };
                }
                Some(&byte) if byte == self.options.delimiter && !carriage_return => position = after + 1,
                Some(_) => {
                    let what = if quoted {
                        "something follows a closing quote"
                    } else {
                        "a quote stands inside a field that does not begin with one"
                    };
                    return Split::Broken { at: after, seen: after, what };
                }
            }
        }
    }

    /// Appends the record that was split as a row, or nothing.
    fn commit(&mut self, text: &[u8]) -> Result<(), (usize, Refusal)> {
        let sources = self.sources.as_ref().expect("records are read after the header");
        for (index, (column, &source)) in self.columns.iter_mut().zip(sources).enumerate() {
            let (field, minute) = (self.fields[source], &mut self.minutes[index]);
            if let Err(refusal) = append(column, field, text, &self.options, minute, &mut self.scratch) {
                let rows = self.feed.rows();
                self.columns.iter_mut().for_each(|column| column.truncate(rows));
                return Err((index, refusal));
            }
        }
        self.feed.push_row();
        Ok(())
    }

    /// Takes the record that was split for the header.
    fn read_header(&mut self, text: &[u8]) -> Result<(), FormatError> {
        let unreadable = |reason: &str| FormatError::HeaderUnreadable { reason: reason.into() };
        if self.field_count > MAX_FIELDS {
            return Err(unreadable("it has more than 65,536 columns"));
        }
        let mut names = Vec::new();
        for &field in &self.fields {
            let name = unquote(&text[field.start..field.end], field, self.options.quote, &mut self.scratch);
            names.push(std::str::from_utf8(name).map_err(|_| unreadable("a name is not UTF-8"))?.to_string());
        }
        self.sources = Some(self.places(&names, |column, have| FormatError::HeaderLacksColumn { column, have })?);
        self.width = Some(names.len());
        Ok(())
    }

    /// A record that was split: appended, or reported, or None if a column is full.
    fn take(&mut self, text: &[u8], start: usize, end: usize, offset: u64) -> Option<Result<(), BadRecord>> {
        let record = &text[start..end];
        if let Some(width) = self.width
            && self.field_count != width
        {
            let message = format!("the record has {} fields, but the file has {width} columns", self.field_count);
            return Some(Err(self.feed.bad("field_count", message, record, offset)));
        }
        match self.commit(text) {
            Ok(()) => Some(Ok(())),
            Err((_, Refusal::Full)) => None,
            Err((index, refusal)) => {
                let source = self.sources.as_ref().expect("records are read after the header")[index];
                let Span { start, end, .. } = self.fields[source];
                let column = &self.columns[index];
                if column.kind == Kind::Text && refusal == Refusal::Misfit(Misfit::Malformed) {
                    let message = format!("column {} is not UTF-8", column.field.name());
                    return Some(Err(self.feed.bad("invalid_utf8", message, record, offset)));
                }
                let value = (refusal != Refusal::Null).then(|| &text[start..end]);
                let (code, message) =
                    feed::refusal(column.field.name(), &sql_type(column.field.data_type()), refusal, value);
                Some(Err(self.feed.bad(code, message, record, offset)))
            }
        }
    }

    /// A line without anything is no record, unless records have one field: then it is an empty one.
    fn is_blank(&self, text: &[u8], start: usize, end: usize) -> bool {
        let empty = end == start || text[start..end] == *b"\r";
        empty
            && self.field_count == 1
            && !self.fields.first().is_some_and(|field| field.quoted)
            && self.width != Some(1)
    }
}

/// One field into one column. On an error parts may have been appended: truncate.
fn append(
    column: &mut Column,
    field: Span,
    text: &[u8],
    options: &CsvOptions,
    minute: &mut Minute,
    scratch: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let raw = unquote(&text[field.start..field.end], field, options.quote, scratch);
    let is_text = matches!(column.kind, Kind::Text | Kind::Binary);
    if raw == options.null_literal.as_bytes() && !(field.quoted && is_text) {
        if !column.field.is_nullable() {
            return Err(Refusal::Null);
        }
        column.push_null();
        return Ok(());
    }
    if let Kind::Timestamp { .. } = column.kind
        && let Some((value, end)) = minute.timestamp(raw, 0)
        && end == raw.len()
    {
        column.push_bits(value);
        return Ok(());
    }
    let value = std::str::from_utf8(raw).map_err(|_| Misfit::Malformed)?;
    match column.kind {
        Kind::Text => column.push_text(value)?,
        Kind::Binary => {
            let mut bytes = Vec::new();
            text::decode_base64(value, &mut bytes)?;
            column.push_binary(&bytes)?;
        }
        kind => column.push(kind.parse(value, options.timestamp_format)?),
    }
    Ok(())
}

/// The field with its doubled quotes made single.
fn unquote<'a>(raw: &'a [u8], field: Span, quote: Option<u8>, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let (true, Some(quote)) = (field.doubled, quote) else { return raw };
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|&byte| byte == quote) {
        scratch.extend_from_slice(&rest[..=at]);
        rest = &rest[at + 2..];
    }
    scratch.extend_from_slice(rest);
    scratch
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Position of the first byte from `position` on that is one of three, given in all bytes of a word each; else the end.
#[inline(always)]
fn find(stops: [u64; 3], text: &[u8], mut position: usize) -> usize {
    /// The lowest bit set belongs to the first zero byte; bits above it mean nothing.
    fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & (ONES << 7)
    }
    while let Some(chunk) = text.get(position..position + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("the range has 8 bytes"));
        let found = zeros(word ^ stops[0]) | zeros(word ^ stops[1]) | zeros(word ^ stops[2]);
        if found != 0 {
            return position + (found.trailing_zeros() / 8) as usize;
        }
        position += 8;
    }
    let rest = text.get(position..).unwrap_or_default();
    position + rest.iter().position(|&byte| stops.contains(&(ONES * u64::from(byte)))).unwrap_or(rest.len())
}

/// The line that begins at `start`, without its end; and where the next one begins, if it ends.
fn line(text: &[u8], start: usize) -> (&[u8], Option<usize>) {
    match text[start..].iter().position(|&byte| byte == b'\n') {
        Some(length) => (&text[start..start + length], Some(start + length + 1)),
        None => (&text[start..], None),
    }
}

impl RecordDecoder for Reader {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn begin_file(&mut self) {
        self.feed.begin_file();
        if self.options.header {
            (self.sources, self.width) = (None, None);
        }
    }

    fn seek(&mut self, offset: u64, record: u64) {
        assert!(!self.needs_header(), "a file with a header is entered at its start");
        self.feed.seek(offset, record);
    }

    fn needs_header(&self) -> bool {
        self.sources.is_none()
    }

    fn decode(&mut self, bytes: &[u8], last: bool, max_rows: usize) -> Result<Progress, FormatError> {
        let mut progress = Progress { consumed: 0, rows: 0, bad: Vec::new(), stopped: Stopped::Bytes };
        let Some(mut position) = self.feed.first(bytes, last) else { return Ok(progress) };
        while position < bytes.len() {
            if progress.rows == max_rows && !self.needs_header() {
                progress.stopped = Stopped::Rows;
                break;
            }
            let start = position;
            let offset = self.feed.offset + start as u64;
            let split = self.split(bytes, start, last);
            let seen = match split {
                Split::Record { next, .. } => next - usize::from(bytes[next - 1] == b'\n'),
                Split::Incomplete => bytes.len(),
                Split::Broken { seen, .. } => seen,
            };
            let too_long = seen - start > self.feed.max_record_bytes;
            if self.needs_header() {
                match split {
                    Split::Record { end, next } => {
                        if !self.is_blank(bytes, start, end) {
                            self.read_header(bytes)?;
                        }
                        position = next;
                    }
                    Split::Incomplete if !too_long => break,
                    Split::Incomplete => return Err(FormatError::HeaderUnreadable { reason: "it is too long".into() }),
                    Split::Broken { what, .. } => return Err(FormatError::HeaderUnreadable { reason: what.into() }),
                }
                self.feed.record += 1;
                continue;
            }
            match split {
                Split::Incomplete if !too_long => break,
                Split::Record { end, next } if !too_long => {
                    if !self.is_blank(bytes, start, end) {
                        match self.take(bytes, start, end, offset) {
                            Some(Ok(())) => progress.rows += 1,
                            Some(Err(bad)) => progress.bad.push(bad),
                            None => {
                                progress.stopped = Stopped::Full;
                                break;
                            }
                        }
                    }
                    position = next;
                }
                _ => {
                    let (payload, next) = line(bytes, start);
                    if next.is_none() && !last && payload.len() <= self.feed.max_record_bytes {
                        break;
                    }
                    progress.bad.push(match split {
                        Split::Broken { at, what, .. } if !too_long => {
                            self.feed.bad("quote", format!("{what} at byte {}", at - start), payload, offset)
                        }
                        _ => self.feed.too_long(payload, offset),
                    });
                    position = next.unwrap_or(bytes.len());
                    if next.is_none() && !last {
                        self.feed.skip_line();
                    }
                }
            }
            self.feed.record += 1;
        }
        self.feed.offset += position as u64;
        progress.consumed = position;
        Ok(progress)
    }

    fn decode_record(&mut self, record: &[u8]) -> Result<(), Box<BadRecord>> {
        let offset = self.feed.offset;
        let outcome = if record.len() > self.feed.max_record_bytes {
            Err(self.feed.too_long(record, offset))
        } else if self.needs_header() {
            Err(self.feed.bad(
                "no_header",
                "messages have no header to find columns by; set the option header to false".into(),
                record,
                offset,
            ))
        } else {
            match self.split(record, 0, true) {
                Split::Record { end, .. } if self.is_blank(record, 0, end) => {
                    Err(self.feed.bad("empty", "the record is empty".into(), record, offset))
                }
                Split::Record { next, .. } if next < record.len() => Err(self.feed.bad(
                    "trailing_data",
                    format!("another record follows at byte {next}"),
                    record,
                    offset,
                )),
                Split::Record { end, .. } => match self.take(record, 0, end, offset) {
                    Some(outcome) => outcome,
                    None => return Err(Box::new(self.feed.full())),
                },
                Split::Broken { at, what, .. } => {
                    Err(self.feed.bad("quote", format!("{what} at byte {at}"), record, offset))
                }
                Split::Incomplete => unreachable!("the record was given whole"),
            }
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
