//! The rows of an epoch as a committable: an Arrow IPC stream, with the kinds of the rows as its last column where not all are inserts.
//!
//! [`EpochRows`] is the writer of sinks whose committer takes the rows themselves.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use engine::{Batch, CommitKind, Committable, Prepared, RunError, SinkWriter};
use state::{SnapshotReader, SnapshotWriter};

/// Name of the column of row kinds. No SQL name has a NUL.
const KINDS: &str = "\0kind";

/// Keeps the rows of the open epoch and hands them over with it.
pub struct EpochRows {
    schema: SchemaRef,
    batches: Vec<Batch>,
}

impl EpochRows {
    pub fn writer(schema: SchemaRef) -> Box<dyn SinkWriter> {
        Box::new(EpochRows { schema, batches: vec![] })
    }
}

impl SinkWriter for EpochRows {
    fn write(&mut self, batch: Batch) -> Result<(), RunError> {
        self.batches.push(batch);
        Ok(())
    }

    fn prepare(&mut self, _: u64, _: CommitKind, reply: Prepared) -> Result<(), RunError> {
        let batches = std::mem::take(&mut self.batches);
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let payload = encode(&self.schema, &batches)
            .map_err(|error| RunError::internal(format!("cannot hand over the rows of an epoch: {error}")));
        reply.done(payload.map(|payload| Committable { rows, payload, files: vec![] }));
        Ok(())
    }

    /// Every epoch's rows are handed over with it, so nothing is left.
    fn snapshot(&mut self, _: u64, _: &mut SnapshotWriter) -> Result<(), RunError> {
        assert!(self.batches.is_empty(), "a snapshot follows the prepare of its epoch");
        Ok(())
    }

    fn restore(&mut self, _: &SnapshotReader) -> Result<(), RunError> {
        Ok(())
    }
}

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
