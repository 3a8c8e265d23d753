//! CSV records (RFC 4180): fields in quotes may hold delimiters, newlines and doubled quotes; lines end with LF or CRLF.
//!
//! Scalars only: nested types are refused. A line without anything is no record, unless records have one field.

mod reader;
mod writer;

pub use reader::Reader;
pub use writer::Writer;

use arrow::datatypes::Schema;

use crate::columns::{Column, Kind, sql_type};
use crate::decoder::{DEFAULT_MAX_RECORD_BYTES, FormatError};
use crate::text::TimestampFormat;

/// How CSV records are read and written.
#[derive(Clone, Debug)]
pub struct CsvOptions {
    /// The file begins with the names of its columns: they decide which field is which, and `columns` is not looked at. Default: no.
    pub header: bool,
    /// Names of all fields of a record, in the file's order, as the table declares them (needed columns and others). Not for writing.
    pub columns: Vec<String>,
    /// One ASCII character. Default: `,`.
    pub delimiter: u8,
    /// One ASCII character, or none: then no field is quoted. Default: `"`.
    pub quote: Option<u8>,
    /// An unquoted field with this text is null; a quoted one only in columns other than STRING and BYTES. Default: the empty text.
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

impl CsvOptions {
    fn check(&self) -> Result<(), FormatError> {
        let refused =
            |option, value: &str, reason| Err(FormatError::Option { option, value: format!("{value:?}"), reason });
        let shown = |byte: u8| char::from(byte).to_string();
        let plain = |byte: u8| byte.is_ascii() && byte != b'\n' && byte != b'\r';
        match self.quote {
            _ if !plain(self.delimiter) => {
                refused("delimiter", &shown(self.delimiter), "it must be one ASCII character and no line end")
            }
            Some(quote) if !plain(quote) => {
                refused("quote", &shown(quote), "it must be one ASCII character and no line end")
            }
            Some(quote) if quote == self.delimiter => refused("quote", &shown(quote), "the delimiter is the same"),
            _ if self.must_quote(&self.null_literal, true) => {
                refused("null_literal", &self.null_literal, "it may hold no delimiter, quote or line end")
            }
            _ => Ok(()),
        }
    }

    /// Whether a text has to be quoted to be read back as it is.
    fn must_quote(&self, text: &str, is_null: bool) -> bool {
        let special = |byte: u8| byte == self.delimiter || Some(byte) == self.quote || byte == b'\n' || byte == b'\r';
        text.bytes().any(special) || (!is_null && text == self.null_literal)
    }
}

/// Empty columns of the schema.
fn columns(schema: &Schema) -> Result<Vec<Column>, FormatError> {
    let column = |field: &_| {
        let column = Column::new(field, "CSV", field.name())?;
        match column.kind {
            Kind::List | Kind::Map | Kind::Struct => Err(FormatError::UnsupportedType {
                format: "CSV",
                column: field.name().clone(),
                data_type: sql_type(field.data_type()),
                hint: "; use the format json or parquet, or write its parts as columns",
            }),
            _ => Ok(column),
        }
    };
    schema.fields().iter().map(column).collect()
}

#[cfg(test)]
mod tests;
