//! Batches to CSV records, ended by LF. A field is quoted only if it would not read back otherwise; bytes are base64.

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use super::CsvOptions;
use crate::decoder::{FormatError, RecordEncoder};
use crate::values::{Data, Values, unwritable};

/// Writes a record per row, and the names of the columns first if the options ask for a header.
pub struct Writer {
    schema: SchemaRef,
    options: CsvOptions,
}

impl Writer {
    /// # Errors
    /// A column type that CSV cannot carry, a column name that a header cannot, or options that contradict each other.
    pub fn new(schema: SchemaRef, options: CsvOptions) -> Result<Writer, FormatError> {
        options.check()?;
        super::columns(&schema)?;
        let writer = Writer { schema, options };
        if writer.options.header {
            for field in writer.schema.fields() {
                writer
                    .write_text(field.name(), true, &mut Vec::new())
                    .map_err(|reason| FormatError::HeaderUnwritable { column: field.name().clone(), reason })?;
            }
        }
        Ok(writer)
    }

    /// A text, in quotes if need be. `is_null`: it is the null literal or a name, for which an equal text is no danger.
    fn write_text(&self, text: &str, is_null: bool, out: &mut Vec<u8>) -> Result<(), String> {
        if !self.options.must_quote(text, is_null) {
            out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        let Some(quote) = self.options.quote else {
            return Err("the text would not read back without quotes; set the option quote".into());
        };
        out.push(quote);
        for &byte in text.as_bytes() {
            out.push(byte);
            if byte == quote {
                out.push(byte);
            }
        }
        out.push(quote);
        Ok(())
    }
}

impl RecordEncoder for Writer {
    fn begin_file(&mut self, out: &mut Vec<u8>) {
        if !self.options.header {
            return;
        }
        for (index, field) in self.schema.fields().iter().enumerate() {
            if index > 0 {
                out.push(self.options.delimiter);
            }
            self.write_text(field.name(), true, out).expect("the names were tried when the writer was made");
        }
        out.push(b'\n');
    }

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<(), FormatError> {
        assert_eq!(batch.num_columns(), self.schema.fields().len(), "the batch has the encoder's schema");
        let columns: Vec<_> = batch.columns().iter().map(|column| Values::new(column.as_ref())).collect();
        let mut scratch = Vec::new();
        for row in 0..batch.num_rows() {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    out.push(self.options.delimiter);
                }
                let refused =
                    |reason| FormatError::Unwritable { row, column: self.schema.field(index).name().clone(), reason };
                if column.is_null(row) {
                    self.write_text(&self.options.null_literal, true, out).map_err(refused)?;
                } else if let Data::Text(texts) = &column.data {
                    self.write_text(texts.value(row), false, out).map_err(refused)?;
                } else {
                    scratch.clear();
                    column
                        .write(row, self.options.timestamp_format, &mut scratch)
                        .map_err(|misfit| refused(unwritable(misfit)))?;
                    let text = std::str::from_utf8(&scratch).expect("values are written as ASCII");
                    let is_bytes = matches!(column.data, Data::Binary(_));
                    self.write_text(text, !is_bytes, out).map_err(refused)?;
                    // A value that looks like the null literal cannot be told from it, quoted or not.
                    if text == self.options.null_literal && !is_bytes {
                        return Err(refused(format!(
                            "the null literal {text:?} is a value of the column; choose another"
                        )));
                    }
                }
            }
            out.push(b'\n');
        }
        Ok(())
    }
}
