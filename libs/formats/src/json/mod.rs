//! JSON records: one object per line or per message.
//!
//! Strict RFC 8259 over the whole record, also over the parts that no column needs. Missing and null are null; of duplicate keys the
//! last wins; integers take integral fractions and exponents and trimmed numeric texts; text columns take any scalar as its text;
//! more than [`MAX_DEPTH`] levels of nesting are refused without recursion.

mod lex;
mod plan;
mod scanner;
#[cfg(test)]
mod tests;
mod value;
mod wide;
mod writer;

pub use scanner::Scanner;
pub use writer::Writer;

use crate::decoder::DEFAULT_MAX_RECORD_BYTES;
use crate::text::TimestampFormat;

/// Levels of arrays and objects that a record may nest, itself included.
pub const MAX_DEPTH: usize = 1024;

/// How JSON records are read and written.
#[derive(Clone, Debug)]
pub struct JsonOptions {
    /// SQL and ISO 8601 texts are always read; an epoch format adds numbers of its unit. Writing uses exactly this format.
    pub timestamp_format: TimestampFormat,
    /// Longer lines are bad records, whatever they hold. Bounds what the reader buffers. Default: 16 MiB.
    pub max_record_bytes: usize,
}

impl Default for JsonOptions {
    fn default() -> JsonOptions {
        JsonOptions { timestamp_format: TimestampFormat::Sql, max_record_bytes: DEFAULT_MAX_RECORD_BYTES }
    }
}
