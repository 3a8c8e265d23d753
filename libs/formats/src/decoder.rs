//! What every record format offers to a source: bytes in, rows and bad records out.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

/// Payloads of bad records are cut here, so that a broken file cannot fill the memory.
pub const MAX_BAD_PAYLOAD_BYTES: usize = 64 * 1024;

/// Default for the longest record, in bytes; longer ones are bad records. Bounds what a reader must buffer.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// Decodes records of one format into batches of one schema (the needed columns only).
///
/// Feed a file in chunks that overlap by what was not consumed:
///
/// ```text
/// decoder.begin_file();
/// loop {
///     let progress = decoder.decode(&buffer, end_of_file, rows_wanted)?;
///     buffer.drain(..progress.consumed);
///     match progress.stopped {
///         Stopped::Rows | Stopped::Full => emit(decoder.flush()),
///         Stopped::Bytes if end_of_file => break emit(decoder.flush()),
///         Stopped::Bytes => buffer.extend(read_more()),
///     }
/// }
/// ```
///
/// Where the chunks are cut changes neither rows nor reports. After a call the file's position is the sum of `consumed`: it lies
/// between two records, so it may be stored and resumed from with [`seek`](Self::seek).
/// A record that cannot be decoded leaves no trace in the batch, and no good record is lost because of it.
pub trait RecordDecoder: Send {
    /// Columns of the batches.
    fn schema(&self) -> &SchemaRef;

    /// The next byte fed is the first of a file: a byte order mark is dropped, a header is read, counting starts at 0.
    /// Panics if rows are buffered: they would get positions of the wrong file.
    fn begin_file(&mut self);

    /// The next byte fed lies at `offset` of the file and begins its record number `record` (as in [`BadRecord`]).
    /// Panics if rows are buffered.
    ///
    /// A format with a header must have seen it: after `begin_file`, feed the head of the file with `max_rows` 0 until
    /// [`needs_header`](Self::needs_header) is false.
    fn seek(&mut self, offset: u64, record: u64);

    /// True while the header of the file has to be fed before anything can be decoded.
    fn needs_header(&self) -> bool {
        false
    }

    /// Decodes records from the front of `bytes` until they end, `max_rows` rows were added by this call, or a column is full.
    ///
    /// `last`: no byte follows in this file, so an unterminated last record is decoded too. Otherwise it is left unconsumed, to be fed
    /// again with more bytes behind it. At most [`max_record_bytes`](DEFAULT_MAX_RECORD_BYTES) stay unconsumed for want of bytes.
    ///
    /// # Errors
    /// Only what concerns the file as a whole, such as a header without a needed column.
    fn decode(&mut self, bytes: &[u8], last: bool, max_rows: usize) -> Result<Progress, FormatError>;

    /// Decodes exactly one record, such as a Kafka message; anything but one record is bad, an empty one too.
    /// Counts as one record in the numbering; its offset is that of the bytes fed so far.
    ///
    /// # Errors
    /// The bad record. [`FULL`] as its code means that a column is full: flush, and give the record again.
    fn decode_record(&mut self, record: &[u8]) -> Result<(), Box<BadRecord>>;

    /// Rows decoded and not yet flushed.
    fn rows(&self) -> usize;

    /// The buffered rows as a batch (possibly of no rows), and where they came from. Leaves the decoder empty.
    fn flush(&mut self) -> Decoded;
}

/// Code of the refusal of a record that would overflow the 2 GiB of a column: not a bad record, see [`RecordDecoder::decode_record`].
pub const FULL: &str = "full";

/// What one call of [`RecordDecoder::decode`] did.
#[derive(Debug)]
pub struct Progress {
    /// Bytes done with; the rest must be fed again.
    pub consumed: usize,
    /// Rows added to the batch.
    pub rows: usize,
    /// Records that could not be decoded, in order.
    pub bad: Vec<BadRecord>,
    /// Why the call returned.
    pub stopped: Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All whole records are decoded: feed more bytes, or the file is done.
    Bytes,
    /// `max_rows` rows were added.
    Rows,
    /// A column reached 2 GiB: flush, then feed the rest.
    Full,
}

/// A record that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Number of the record in the file, from 0. JSON lines: of the line, blank ones counted. CSV: of the record, with the header and
    /// blank lines counted (a record with newlines in quotes is one).
    pub record: u64,
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Stable name of what is wrong, such as `syntax` or `out_of_range`.
    pub code: &'static str,
    /// What is wrong and where, naming the column if one is concerned.
    pub message: String,
    /// The record's bytes without its line end, at most [`MAX_BAD_PAYLOAD_BYTES`] of them.
    pub payload: Vec<u8>,
}

/// A batch and the record numbers of its rows.
#[derive(Clone, Debug)]
pub struct Decoded {
    pub batch: RecordBatch,
    pub records: RecordNumbers,
}

/// Which record each row came from: runs of consecutive numbers, broken by bad records and blank lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordNumbers {
    /// First row of the run and its record number; rows ascend.
    runs: Vec<(usize, u64)>,
    rows: usize,
}

impl RecordNumbers {
    /// Rows numbered.
    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Record number of a row. Panics if there is no such row.
    pub fn record(&self, row: usize) -> u64 {
        assert!(row < self.rows, "row {row} of {} has no record number", self.rows);
        let run = self.runs.partition_point(|&(first, _)| first <= row) - 1;
        let (first, record) = self.runs[run];
        record + (row - first) as u64
    }

    /// Record numbers of all rows, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let ends = self.runs.iter().skip(1).map(|&(row, _)| row).chain([self.rows]);
        self.runs.iter().zip(ends).flat_map(|(&(first, record), end)| record..record + (end - first) as u64)
    }

    /// Numbers the next row. Nothing but two comparisons while the numbers are consecutive.
    #[inline]
    pub(crate) fn push(&mut self, record: u64) {
        match self.runs.last() {
            Some(&(row, first)) if record.wrapping_sub(first) == (self.rows - row) as u64 => {}
            _ => self.runs.push((self.rows, record)),
        }
        self.rows += 1;
    }
}

/// Encodes batches as records of one format, the counterpart of [`RecordDecoder`].
pub trait RecordEncoder: Send {
    /// Appends what a file begins with, such as a header line.
    fn begin_file(&mut self, out: &mut Vec<u8>);

    /// Appends the rows of a batch that has the encoder's schema.
    ///
    /// # Errors
    /// A value that the format cannot carry, such as a time outside the calendar's range.
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError>;
}

/// Why a decoder or encoder cannot be made, or a file as a whole cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    #[error("column {column} has the type {data_type}, which {format} cannot carry{hint}")]
    UnsupportedType { format: &'static str, column: String, data_type: String, hint: &'static str },
    #[error("the table declares no column {column} for the CSV file; it has {have}")]
    NoSuchColumn { column: String, have: String },
    #[error("the header of the CSV file has no column {column}; it has {have}")]
    HeaderLacksColumn { column: String, have: String },
    #[error("the header of the CSV file names column {column} twice, so its values are ambiguous; rename one")]
    HeaderAmbiguous { column: String },
    #[error("the header of the CSV file cannot be read: {reason}")]
    HeaderUnreadable { reason: String },
    #[error("the name of column {column} cannot be written into the header of a CSV file: {reason}")]
    HeaderUnwritable { column: String, reason: String },
    #[error("option {option} of the CSV format is {value}, but {reason}")]
    Option { option: &'static str, value: String, reason: &'static str },
    #[error("the name of column {column} cannot be that of a field in {format}: {reason}")]
    FieldName { column: String, format: &'static str, reason: &'static str },
    #[error("row {row} of column {column} cannot be written: {reason}")]
    Unwritable { row: usize, column: String, reason: String },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn record_numbers_survive_gaps() {
        let mut numbers = RecordNumbers::default();
        let given = [3, 4, 5, 9, 10, 12, 0, 1];
        given.iter().for_each(|&n| numbers.push(n));
        assert_eq!(numbers.iter().collect::<Vec<_>>(), given);
        assert_eq!((0..8).map(|row| numbers.record(row)).collect::<Vec<_>>(), given);
        assert_eq!(numbers.runs.len(), 4);
        assert_eq!(RecordNumbers::default().iter().count(), 0);
    }
}
