//! Rows as JSON lines or CSV, for programs.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray, UInt8Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use engine::RowKind;
use formats::csv::CsvOptions;
use formats::json::JsonOptions;
use formats::{FormatError, RecordEncoder, csv, json};

/// Encodes the rows of one table.
pub struct Records {
    encoder: Box<dyn RecordEncoder>,
    /// What the encoder takes: the table's name, the row's kind, the columns.
    schema: SchemaRef,
    /// The table's name, where rows of several tables go to one place.
    table: Option<String>,
    updating: bool,
    begun: bool,
}

/// A format for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
}

impl Records {
    /// For rows of `schema`; `updating`: each row says what it does to the result.
    pub fn new(format: Format, schema: &Schema, table: Option<String>, updating: bool) -> Result<Records, FormatError> {
        let mut fields = Vec::new();
        if table.is_some() {
            fields.push(Arc::new(Field::new(free_name("table", schema), DataType::Utf8, false)));
        }
        if updating {
            fields.push(Arc::new(Field::new(free_name("op", schema), DataType::Utf8, false)));
        }
        for field in schema.fields() {
            let nested = field.data_type().is_nested() && format == Format::Csv;
            fields.push(if nested { Arc::new(Field::new(field.name(), DataType::Utf8, true)) } else { field.clone() });
        }
        let schema = Arc::new(Schema::new(fields));
        let encoder: Box<dyn RecordEncoder> = match format {
            Format::Json => Box::new(json::Writer::new(schema.clone(), JsonOptions::default())?),
            Format::Csv => {
                Box::new(csv::Writer::new(schema.clone(), CsvOptions { header: true, ..CsvOptions::default() })?)
            }
        };
        Ok(Records { encoder, schema, table, updating, begun: false })
    }

    /// What comes before the first row, unless that was written.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            self.encoder.begin_file(out);
        }
    }

    pub fn rows(
        &mut self,
        rows: &RecordBatch,
        kinds: Option<&UInt8Array>,
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        self.begin(out);
        let mut columns: Vec<ArrayRef> = Vec::new();
        let all = |text: &str| Arc::new(StringArray::from_iter_values(std::iter::repeat_n(text, rows.num_rows())));
        if let Some(table) = &self.table {
            columns.push(all(table));
        }
        if self.updating {
            columns.push(match kinds {
                Some(kinds) => {
                    let marks = kinds.values().iter().map(|kind| RowKind::from_code(*kind).mark());
                    Arc::new(StringArray::from_iter_values(marks))
                }
                None => all(RowKind::Insert.mark()),
            });
        }
        for column in rows.columns() {
            let field = &self.schema.fields()[columns.len()];
            columns.push(if field.data_type() == column.data_type() { column.clone() } else { json_texts(column)? });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options);
        self.encoder.encode(&batch.expect("the columns are those of the schema"), out)
    }
}

/// A name that no column has.
fn free_name(wanted: &str, schema: &Schema) -> String {
    let mut name = wanted.to_string();
    while schema.field_with_name(&name).is_ok() {
        name.insert(0, '_');
    }
    name
}

/// Nested values as JSON texts, for formats that only have texts.
fn json_texts(column: &ArrayRef) -> Result<ArrayRef, FormatError> {
    let schema = Arc::new(Schema::new(vec![Field::new("v", column.data_type().clone(), true)]));
    let mut encoder = json::Writer::new(schema.clone(), JsonOptions::default())?;
    let batch = RecordBatch::try_new(schema, vec![column.clone()]).expect("one column of its own type");
    let mut lines = Vec::new();
    encoder.encode(&batch, &mut lines)?;
    let lines = String::from_utf8(lines).expect("JSON is UTF-8");
    let value = |line| str::strip_prefix(line, "{\"v\":").and_then(|rest| rest.strip_suffix('}'));
    let texts = lines.lines().enumerate().map(|(row, line)| {
        (!column.is_null(row)).then(|| value(line).expect("the encoder writes an object of this one column"))
    });
    Ok(Arc::new(texts.collect::<StringArray>()))
}
