//! The rows of an epoch as a committable: an Arrow IPC stream, with the kinds of the rows as its last column where not all are inserts.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use engine::Batch;

/// Name of the column of row kinds. No SQL name has a NUL.
const KINDS: &str = "\0kind";

/// Nothing at all if there are no batches.
pub fn encode(schema: &SchemaRef, batches: &[Batch]) -> Result<Vec<u8>, ArrowError> {
    if batches.is_empty() {
        return Ok(vec![]);
    }
    let changes = batches.iter().any(|batch| batch.kinds.is_some());
    let mut fields = schema.fields().to_vec();
    if changes {
        fields.push(Arc::new(Field::new(KINDS, DataType::UInt8, false)));
    }
    let schema = Arc::new(Schema::new(fields));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    for batch in batches {
        let mut columns = batch.rows.columns().to_vec();
        if changes {
            columns.push(Arc::new(batch.all_kinds()) as ArrayRef);
        }
        writer.write(&with_rows(&schema, columns, batch.num_rows())?)?;
    }
    writer.into_inner()
}

/// The batches that were encoded, with `schema`.
pub fn decode(schema: &SchemaRef, payload: &[u8]) -> Result<Vec<Batch>, ArrowError> {
    if payload.is_empty() {
        return Ok(vec![]);
    }
    let decoded = StreamReader::try_new(payload, None)?.map(|rows| {
        let rows = rows?;
        let mut columns = rows.columns().to_vec();
        let kinds = (columns.len() > schema.fields().len()).then(|| columns.pop()).flatten();
        let all = with_rows(schema, columns, rows.num_rows())?;
        Ok(match kinds {
            Some(kinds) => Batch::changes(all, kinds.as_primitive::<UInt8Type>().clone()),
            None => Batch::inserts(all),
        })
    });
    decoded.collect()
}

fn with_rows(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}
