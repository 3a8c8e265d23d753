//! The rows of one answer of a server, written as they come.
//!
//! A table needs all its cells before the first line: rows are kept until the end, and shown as aligned lines once there are too many.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use super::{Format, Lines, PrintError, Records, TABLE_ROWS_MAX, table};
use crate::arguments::Output;

/// Takes batches of one schema.
pub struct RowStream {
    schema: SchemaRef,
    form: Form,
    rows: u64,
}

enum Form {
    Table(Vec<RecordBatch>),
    Lines(Lines),
    Records(Box<Records>),
}

impl RowStream {
    pub fn new(schema: SchemaRef, output: Output) -> Result<RowStream, PrintError> {
        let records = |format| {
            let records = Records::new(format, &schema, None, false);
            records.map(|records| Form::Records(Box::new(records))).map_err(wrong)
        };
        let form = match output {
            Output::Table => Form::Table(Vec::new()),
            Output::Json => records(Format::Json)?,
            Output::Csv => records(Format::Csv)?,
        };
        Ok(RowStream { schema, form, rows: 0 })
    }

    /// Rows that were taken.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What can be written now that these rows are there.
    pub fn take(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, PrintError> {
        let mut ready = Vec::new();
        self.rows += batch.num_rows() as u64;
        match &mut self.form {
            Form::Table(batches) => {
                batches.push(batch.clone());
                if self.rows > TABLE_ROWS_MAX as u64 {
                    let mut lines = Lines::new(&self.schema, "", false);
                    std::mem::take(batches).iter().for_each(|batch| lines.rows(batch, None, &mut ready));
                    self.form = Form::Lines(lines);
                }
            }
            Form::Lines(lines) => lines.rows(batch, None, &mut ready),
            Form::Records(records) => records.rows(batch, None, &mut ready).map_err(wrong)?,
        }
        Ok(ready)
    }

    /// What is left to write at the end. `terminal`: a table is to fit into its width.
    pub fn finish(&mut self, terminal: bool) -> Vec<u8> {
        let mut ready = Vec::new();
        match &mut self.form {
            Form::Table(batches) => ready = format!("{}\n", table(&self.schema, batches, terminal)).into_bytes(),
            Form::Lines(_) => {}
            Form::Records(records) => records.begin(&mut ready),
        }
        ready
    }
}

fn wrong(source: formats::FormatError) -> PrintError {
    PrintError::Format { table: "the answer".into(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn batch(from: i64, to: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(from..to))]).unwrap()
    }

    fn written(output: Output, batches: &[RecordBatch]) -> Vec<String> {
        let mut stream = RowStream::new(batch(0, 0).schema(), output).unwrap();
        let mut pieces: Vec<Vec<u8>> = batches.iter().map(|batch| stream.take(batch).unwrap()).collect();
        pieces.push(stream.finish(false));
        pieces.into_iter().map(|piece| String::from_utf8(piece).unwrap()).collect()
    }

    #[test]
    fn rows_for_programs_are_written_as_they_come() {
        assert_eq!(written(Output::Csv, &[batch(1, 3), batch(3, 4)]), ["n\n1\n2\n", "3\n", ""]);
        assert_eq!(written(Output::Json, &[batch(1, 2)]), ["{\"n\":1}\n", ""]);
        assert_eq!(written(Output::Csv, &[]), ["n\n"], "no rows, but a header");
    }

    #[test]
    fn a_table_comes_at_the_end_and_too_long_a_one_as_lines() {
        let pieces = written(Output::Table, &[batch(1, 3)]);
        assert!(pieces[0].is_empty() && pieces[1].contains("│ 2 │"), "{pieces:?}");
        let most = TABLE_ROWS_MAX as i64;
        let pieces = written(Output::Table, &[batch(0, most), batch(most, most + 2)]);
        assert!(pieces[0].is_empty() && pieces[1].ends_with("10001\n") && pieces[2].is_empty());
    }
}
