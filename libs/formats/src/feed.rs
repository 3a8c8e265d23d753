//! What all decoders keep about the bytes they are fed: where they are in the file, which rows they hold, and how bad records are reported.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::columns::{Column, Refusal};
use crate::decoder::{BadRecord, Decoded, FULL, MAX_BAD_PAYLOAD_BYTES, RecordNumbers};
use crate::text::Misfit;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

pub(crate) struct Feed {
    /// Position of the next byte to be fed, and the number of the record that begins there.
    pub(crate) offset: u64,
    pub(crate) record: u64,
    /// Rows in the columns, and where they came from.
    rows: usize,
    numbers: RecordNumbers,
    pub(crate) max_record_bytes: usize,
    at_file_start: bool,
    /// Inside a line that was reported as too long.
    skipping: bool,
}

impl Feed {
    pub(crate) fn new(max_record_bytes: usize) -> Feed {
        // A record must fit into an empty column.
        let max_record_bytes = max_record_bytes.min(1 << 30);
        Feed {
            offset: 0,
            record: 0,
            rows: 0,
            numbers: RecordNumbers::default(),
            max_record_bytes,
            at_file_start: true,
            skipping: false,
        }
    }

    pub(crate) fn begin_file(&mut self) {
        self.seek(0, 0);
        self.at_file_start = true;
    }

    pub(crate) fn seek(&mut self, offset: u64, record: u64) {
        assert_eq!(self.rows, 0, "rows of another place are buffered: flush them first");
        (self.offset, self.record, self.at_file_start, self.skipping) = (offset, record, false, false);
    }

    /// Where the next record begins: behind a byte order mark, or behind the rest of a line that was too long. None: more bytes are needed.
    pub(crate) fn first(&mut self, bytes: &[u8], last: bool) -> Option<usize> {
        if self.at_file_start {
            if !last && bytes.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(bytes) {
                return None;
            }
            self.at_file_start = false;
            return Some(if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 });
        }
        if self.skipping {
            return Some(match bytes.iter().position(|&byte| byte == b'\n') {
                Some(newline) => {
                    self.skipping = false;
                    newline + 1
                }
                None => bytes.len(),
            });
        }
        Some(0)
    }

    /// The line that was reported goes on: drop it up to the next newline.
    pub(crate) fn skip_line(&mut self) {
        self.skipping = true;
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The current record has become a row.
    #[inline(always)]
    pub(crate) fn push_row(&mut self) {
        self.numbers.push(self.record);
        self.rows += 1;
    }

    pub(crate) fn flush(&mut self, schema: &SchemaRef, columns: &mut [Column]) -> Decoded {
        let arrays = columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)
            .expect("the columns are those of the schema");
        self.rows = 0;
        Decoded { batch, records: std::mem::take(&mut self.numbers) }
    }

    /// Report of the current record, which is given without its line end, and lies at `offset` of the file.
    #[cold]
    pub(crate) fn bad(&self, code: &'static str, message: String, record: &[u8], offset: u64) -> BadRecord {
        let record = record.strip_suffix(b"\r").unwrap_or(record);
        let payload = record[..record.len().min(MAX_BAD_PAYLOAD_BYTES)].to_vec();
        BadRecord { record: self.record, offset, code, message, payload }
    }

    #[cold]
    pub(crate) fn too_long(&self, record: &[u8], offset: u64) -> BadRecord {
        self.bad(
            "record_too_long",
            format!("the record is longer than {} bytes", self.max_record_bytes),
            record,
            offset,
        )
    }

    #[cold]
    pub(crate) fn full(&self) -> BadRecord {
        assert!(self.rows > 0, "a record of at most max_record_bytes fits into empty columns");
        self.bad(FULL, "a column has reached 2 GiB; flush the batch".into(), b"", self.offset)
    }
}

/// Code and message of a refusal by a column; `shown` is the value, if there is one.
#[cold]
pub(crate) fn refusal(path: &str, data_type: &str, refusal: Refusal, value: Option<&[u8]>) -> (&'static str, String) {
    let shown = value.map(excerpt).unwrap_or_default();
    match refusal {
        Refusal::Full => unreachable!("a full column is no bad record"),
        Refusal::Null if value.is_none() => {
            ("null", format!("column {path} is NOT NULL, but the record has no value for it"))
        }
        Refusal::Null => ("null", format!("column {path} ({data_type}) has a null in {shown} where it is NOT NULL")),
        Refusal::Misfit(Misfit::OutOfRange) => {
            ("out_of_range", format!("column {path}: {shown} is out of the range of {data_type}"))
        }
        Refusal::Misfit(Misfit::Malformed) => ("wrong_type", format!("column {path}: {shown} is no {data_type}")),
    }
}

/// The beginning of a text for a message.
pub(crate) fn excerpt(bytes: &[u8]) -> String {
    const MAX_CHARS: usize = 60;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_CHARS)]);
    let mut shown: String = text.chars().take(MAX_CHARS).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() > MAX_CHARS || bytes.len() > 4 * MAX_CHARS {
        shown.push_str("...");
    }
    shown
}
