//! CSV records (RFC 4180): newlines in quotes, doubled quotes, lines ended by LF or CRLF.

use crate::decoder::DEFAULT_MAX_RECORD_BYTES;
use crate::text::TimestampFormat;

/// How CSV records are read and written.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    /// The file begins with the names of its columns: they decide which field is which, and `columns` is not looked at. Default: no.
    pub header: bool,
    /// Names of all fields of a record, in the file's order, as the table declares them (needed columns and others).
    pub columns: Vec<String>,
    /// One ASCII character. Default: `,`.
    pub delimiter: u8,
    /// One ASCII character, or none: then no field is quoted. Default: `"`.
    pub quote: Option<u8>,
    /// An unquoted field with this text is null; a quoted one only in columns other than texts. Default: the empty text.
    pub null_literal: String,
    /// SQL and ISO 8601 texts are always read; an epoch format adds numbers of its unit. Writing uses exactly this format.
    pub timestamp_format: TimestampFormat,
    /// Longer records are bad. Bounds what the reader buffers, also behind a quote that is never closed. Default: 16 MiB.
    pub max_record_bytes: usize,
}

impl Default for CsvOptions {
    fn default() -> CsvOptions {
        CsvOptions {
            header: false,
            columns: Vec::new(),
            delimiter: b',',
            quote: Some(b'"'),
            null_literal: String::new(),
            timestamp_format: TimestampFormat::Sql,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
        }
    }
}
