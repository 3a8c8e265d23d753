//! Rows that arrived together, of which some have gone since.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::compute::filter_record_batch;
use arrow::util::bit_util;

use crate::error::ViewError;

/// Chunks are not joined beyond this: what one change can make a snapshot copy is an eighth of it in bytes.
pub const CHUNK_ROWS: usize = 65_536;
/// Nor beyond this, so that offsets of texts fit.
pub const CHUNK_BYTES: u64 = 64 << 20;

/// Rows and which of them count. Clones share everything; a change of one is not seen by the others.
#[derive(Clone)]
pub struct Chunk {
    pub rows: RecordBatch,
    /// A bit per row; none if all count.
    live: Option<Arc<Vec<u8>>>,
    live_rows: usize,
    bytes: u64,
}

impl Chunk {
    /// All rows count.
    pub fn full(rows: RecordBatch) -> Chunk {
        Chunk { live: None, live_rows: rows.num_rows(), bytes: bytes(&rows), rows }
    }

    /// No row counts yet.
    pub fn empty(rows: RecordBatch) -> Chunk {
        let live = Some(Arc::new(vec![0; rows.num_rows().div_ceil(8)]));
        Chunk { live, live_rows: 0, bytes: bytes(&rows), rows }
    }

    pub fn live_rows(&self) -> usize {
        self.live_rows
    }

    /// Memory of all its rows, also of those that have gone.
    pub fn bytes(&self) -> u64 {
        self.bytes + self.live.as_ref().map_or(0, |live| live.len() as u64)
    }

    pub fn set(&mut self, row: usize, live: bool) {
        let rows = self.rows.num_rows();
        let bits = Arc::make_mut(self.live.get_or_insert_with(|| Arc::new(vec![u8::MAX; rows.div_ceil(8)])));
        assert!(bit_util::get_bit(bits, row) != live, "a row comes once and goes once");
        if live {
            bit_util::set_bit(bits, row);
            self.live_rows += 1;
        } else {
            bit_util::unset_bit(bits, row);
            self.live_rows -= 1;
        }
    }

    /// Which rows count; none if all do.
    pub fn mask(&self) -> Option<BooleanArray> {
        if self.live_rows == self.rows.num_rows() {
            return None;
        }
        let bits = Buffer::from_slice_ref(self.live.as_ref()?.as_slice());
        Some(BooleanArray::new(BooleanBuffer::new(bits, 0, self.rows.num_rows()), None))
    }

    /// The rows that count, of some of the columns.
    pub fn project(&self, columns: &[usize]) -> Result<RecordBatch, ViewError> {
        let rows = self.rows.project(columns)?;
        Ok(match self.mask() {
            Some(mask) => filter_record_batch(&rows, &mask)?,
            None => rows,
        })
    }
}

/// Memory of the values of a batch, which may be a part of larger buffers.
pub fn bytes(rows: &RecordBatch) -> u64 {
    let sizes = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0) as u64);
    sizes.sum()
}
