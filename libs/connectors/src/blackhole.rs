//! Takes rows, reads every byte of every column, and keeps nothing but a checksum: what a sink costs at least.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use engine::{
    Batch, CommitKind, Commits, Committable, Prepared, RunError, Sink, SinkCommitter, SinkWriter, WriterContext,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use state::{SnapshotReader, SnapshotWriter};

pub struct BlackholeSink;

impl Sink for BlackholeSink {
    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        Ok(Box::new(BlackholeWriter { rows: 0, checksum: 0 }))
    }

    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        Ok(Box::new(NoCommits))
    }

    fn commits(&self) -> Commits {
        Commits::Checkpoints
    }
}

struct BlackholeWriter {
    rows: u64,
    checksum: u64,
}

/// Sum of the bytes as little-endian words; independent of how the rows are cut into batches where values are whole words.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

fn checksum(column: &dyn Array) -> u64 {
    let data = column.to_data();
    let nulls = column.logical_null_count() as u64;
    let values = match column.data_type() {
        DataType::Boolean => column.as_boolean().true_count() as u64,
        DataType::Utf8 | DataType::Binary => {
            let offsets = &data.buffers()[0].typed_data::<i32>()[data.offset()..=data.offset() + data.len()];
            let (start, end) = (offsets[0] as usize, offsets[data.len()] as usize);
            sum(&data.buffers()[1][start..end]).wrapping_add(offsets.iter().fold(0, |sum, offset| sum ^ *offset as u64))
        }
        other => match other.primitive_width() {
            Some(width) => sum(&data.buffers()[0][data.offset() * width..(data.offset() + data.len()) * width]),
            None => nested(&data),
        },
    };
    values.wrapping_add(nulls)
}

/// Whole buffers: nested columns are not sliced exactly, only read.
fn nested(data: &arrow::array::ArrayData) -> u64 {
    let own = data.buffers().iter().map(|buffer| sum(buffer)).fold(0, u64::wrapping_add);
    data.child_data().iter().map(nested).fold(own, u64::wrapping_add)
}

impl SinkWriter for BlackholeWriter {
    fn write(&mut self, batch: Batch) -> Result<(), RunError> {
        self.rows += batch.num_rows() as u64;
        let columns = batch.rows.columns().iter().map(|column| checksum(column));
        self.checksum = columns.fold(self.checksum, u64::wrapping_add);
        Ok(())
    }

    fn prepare(&mut self, _: u64, _: CommitKind, reply: Prepared) -> Result<(), RunError> {
        let payload = std::mem::take(&mut self.checksum).to_le_bytes().to_vec();
        reply.done(Ok(Committable { rows: std::mem::take(&mut self.rows), payload, files: vec![] }));
        Ok(())
    }

    /// What was counted since the last checkpoint is counted again after a restart.
    fn snapshot(&mut self, _: u64, _: &mut SnapshotWriter) -> Result<(), RunError> {
        Ok(())
    }

    fn restore(&mut self, _: &SnapshotReader) -> Result<(), RunError> {
        Ok(())
    }
}

pub struct NoCommits;

impl SinkCommitter for NoCommits {
    fn commit(&mut self, _: u64, _: CommitKind, _: Vec<Committable>) -> BoxFuture<'_, Result<(), RunError>> {
        async { Ok(()) }.boxed()
    }

    fn abort(&mut self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

/// For the registry.
pub fn sink() -> Arc<dyn Sink> {
    Arc::new(BlackholeSink)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::sample;
    use std::sync::Mutex;

    #[test]
    fn every_column_counts_and_slices_count_once() {
        let rows = sample::rows(0, 100);
        let whole: Vec<u64> = rows.columns().iter().map(|column| checksum(column)).collect();
        assert!(whole.iter().all(|sum| *sum != 0), "{whole:?}");
        for (at, column) in
            rows.columns().iter().enumerate().filter(|(_, column)| column.data_type().primitive_width().is_some())
        {
            let parts = checksum(&column.slice(0, 32)).wrapping_add(checksum(&column.slice(32, 68)));
            assert_eq!(parts, whole[at], "column {at}");
        }
        let mut writer = BlackholeWriter { rows: 0, checksum: 0 };
        writer.write(Batch::inserts(rows)).unwrap();
        let seen: Arc<Mutex<Option<Committable>>> = Arc::default();
        let inner = seen.clone();
        let kind = CommitKind { checkpoint: true, last: false };
        writer.prepare(1, kind, Prepared::new(move |result| *inner.lock().unwrap() = Some(result.unwrap()))).unwrap();
        let all = whole.iter().fold(0u64, |all, column| all.wrapping_add(*column));
        let expected = Committable { rows: 100, payload: all.to_le_bytes().to_vec(), files: vec![] };
        assert_eq!(seen.lock().unwrap().take(), Some(expected), "every column is read");
    }
}
