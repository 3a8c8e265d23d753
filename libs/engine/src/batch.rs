//! What travels on an edge: rows, and what each row means for the relation.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, UInt8Array, UInt32Array,
};
use arrow::compute;
use arrow::error::ArrowError;

/// What a row does to the relation that an edge carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RowKind {
    Insert = 0,
    /// Takes back a row that an `UpdateAfter` replaces; directly before it, where both are in one batch.
    UpdateBefore = 1,
    UpdateAfter = 2,
    Delete = 3,
}

impl RowKind {
    pub fn from_code(code: u8) -> RowKind {
        match code {
            0 => RowKind::Insert,
            1 => RowKind::UpdateBefore,
            2 => RowKind::UpdateAfter,
            3 => RowKind::Delete,
            other => unreachable!("{other} is no row kind"),
        }
    }

    /// `+I`, `-U`, `+U`, `-D`.
    pub fn mark(self) -> &'static str {
        ["+I", "-U", "+U", "-D"][self as usize]
    }

    /// Whether the row is added (else it is taken back).
    pub fn adds(self) -> bool {
        matches!(self, RowKind::Insert | RowKind::UpdateAfter)
    }
}

/// From which split and position each row came; travels only where a lateness ledger or dead letters ask for it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Number of the split in the run's frozen list.
    pub splits: UInt32Array,
    /// Record number within the split.
    pub positions: Int64Array,
}

/// Rows on an edge. `kinds` is `None` when all rows are inserts, the usual case.
#[derive(Clone, Debug)]
pub struct Batch {
    pub rows: RecordBatch,
    /// A [`RowKind`] code per row, never NULL.
    pub kinds: Option<UInt8Array>,
    pub origin: Option<Origin>,
    /// Counts the batch's bytes against the process's budget until it is dropped.
    pub permit: Option<Arc<Permit>>,
}

/// A share of the byte budget of a process; given back on drop.
#[derive(Debug)]
pub enum Permit {
    Held {
        _permit: tokio::sync::OwnedSemaphorePermit,
    },
    /// Of a batch made of several.
    All(Vec<Arc<Permit>>),
}

impl Batch {
    pub fn inserts(rows: RecordBatch) -> Batch {
        Batch { rows, kinds: None, origin: None, permit: None }
    }

    pub fn changes(rows: RecordBatch, kinds: UInt8Array) -> Batch {
        assert!(rows.num_rows() == kinds.len(), "a batch has one kind per row");
        Batch { rows, kinds: Some(kinds), origin: None, permit: None }
    }

    pub fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// Other columns for the same rows.
    pub fn with_rows(&self, rows: RecordBatch) -> Batch {
        assert!(rows.num_rows() == self.num_rows(), "the columns are computed for every row of the batch");
        Batch { rows, ..self.clone() }
    }

    pub fn kind(&self, row: usize) -> RowKind {
        self.kinds.as_ref().map_or(RowKind::Insert, |kinds| RowKind::from_code(kinds.value(row)))
    }

    /// A kind for every row.
    pub fn all_kinds(&self) -> UInt8Array {
        let inserts = || UInt8Array::from_value(RowKind::Insert as u8, self.num_rows());
        self.kinds.clone().unwrap_or_else(inserts)
    }

    /// The rows for which `mask` is true. Kinds are filtered alike; pairs of updates are not mended here.
    pub fn filter(&self, mask: &BooleanArray) -> Result<Batch, ArrowError> {
        Ok(Batch {
            rows: compute::filter_record_batch(&self.rows, mask)?,
            kinds: self.kinds.as_ref().map(|kinds| filtered(kinds, mask)).transpose()?,
            origin: match &self.origin {
                Some(origin) => Some(Origin {
                    splits: filtered(&origin.splits, mask)?,
                    positions: filtered(&origin.positions, mask)?,
                }),
                None => None,
            },
            permit: self.permit.clone(),
        })
    }

    /// The rows at `indices`, in that order.
    pub fn take(&self, indices: &UInt32Array) -> Result<Batch, ArrowError> {
        Ok(Batch {
            rows: RecordBatch::try_new_with_options(
                self.rows.schema(),
                compute::take_arrays(self.rows.columns(), indices, None)?,
                // Also of rows without columns there are as many.
                &RecordBatchOptions::new().with_row_count(Some(indices.len())),
            )?,
            kinds: self.kinds.as_ref().map(|kinds| taken(kinds, indices)).transpose()?,
            origin: match &self.origin {
                Some(origin) => Some(Origin {
                    splits: taken(&origin.splits, indices)?,
                    positions: taken(&origin.positions, indices)?,
                }),
                None => None,
            },
            permit: self.permit.clone(),
        })
    }

    pub fn slice(&self, offset: usize, length: usize) -> Batch {
        Batch {
            rows: self.rows.slice(offset, length),
            kinds: self.kinds.as_ref().map(|kinds| kinds.slice(offset, length)),
            origin: self.origin.as_ref().map(|origin| Origin {
                splits: origin.splits.slice(offset, length),
                positions: origin.positions.slice(offset, length),
            }),
            permit: self.permit.clone(),
        }
    }

    /// Bytes in memory, as far as this batch alone is concerned.
    pub fn bytes(&self) -> usize {
        self.rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
    }
}

fn filtered<A: Clone + From<arrow::array::ArrayData> + Array + 'static>(
    array: &A,
    mask: &BooleanArray,
) -> Result<A, ArrowError> {
    let kept: ArrayRef = compute::filter(array, mask)?;
    Ok(A::from(kept.to_data()))
}

fn taken<A: Clone + From<arrow::array::ArrayData> + Array + 'static>(
    array: &A,
    indices: &UInt32Array,
) -> Result<A, ArrowError> {
    let kept: ArrayRef = compute::take(array, indices, None)?;
    Ok(A::from(kept.to_data()))
}
