//! Result rows on their way out: batches of a good size, and changes as pairs of rows.

use std::mem;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, UInt8Array, make_comparator};
use arrow::compute::kernels::cmp;
use arrow::compute::{SortOptions, concat_batches, interleave_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use crate::batch::{Batch, RowKind};
use crate::error::{Result, RunError};
use crate::operator::Output;

/// Rows of a batch that an operator sends, at most.
pub const BATCH_ROWS: usize = 8192;
/// Batches below this are worth copying into a larger one.
const SMALL_ROWS: usize = 2048;

/// A batch of these columns.
pub fn record_batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema.clone(), columns, &options).map_err(failed)
}

/// Ranges of at most [`BATCH_ROWS`] slots that cover `0..slots`.
pub fn chunks(slots: usize) -> impl Iterator<Item = Vec<u32>> {
    (0..slots).step_by(BATCH_ROWS).map(move |start| (start as u32..(start + BATCH_ROWS).min(slots) as u32).collect())
}

/// Rows that an operator makes before it lets others work on them.
pub const STEP_ROWS: usize = 8 * BATCH_ROWS;

/// Joins small batches before they are sent; order is kept.
pub struct Results {
    schema: SchemaRef,
    small: Vec<RecordBatch>,
    /// Rows of the small batches.
    rows: usize,
    /// Rows of all batches.
    total: usize,
}

impl Results {
    pub fn new(schema: &SchemaRef) -> Results {
        Results { schema: schema.clone(), small: Vec::new(), rows: 0, total: 0 }
    }

    /// How many rows there were.
    pub fn made(&self) -> usize {
        self.total
    }

    /// Whether enough was made for one step.
    pub fn are_many(&self) -> bool {
        self.total >= STEP_ROWS
    }

    pub fn push(&mut self, rows: RecordBatch, out: &mut Output) -> Result<()> {
        self.total += rows.num_rows();
        if rows.num_rows() >= SMALL_ROWS || self.rows + rows.num_rows() > BATCH_ROWS {
            self.flush(out)?;
        }
        if rows.num_rows() >= SMALL_ROWS {
            out.send(Batch::inserts(rows));
        } else {
            self.rows += rows.num_rows();
            self.small.push(rows);
        }
        Ok(())
    }

    /// Sends what waits.
    pub fn flush(&mut self, out: &mut Output) -> Result<()> {
        self.rows = 0;
        match mem::take(&mut self.small).as_mut_slice() {
            [] => {}
            [one] => out.send(Batch::inserts(one.clone())),
            many => out.send(Batch::inserts(concat_batches(&self.schema, many.iter()).map_err(failed)?)),
        }
        Ok(())
    }
}

/// Changes of a relation, as picks from what was and what is.
pub struct Changes<'a> {
    before: &'a RecordBatch,
    after: &'a RecordBatch,
    picks: Vec<(usize, usize)>,
    kinds: Vec<u8>,
}

impl<'a> Changes<'a> {
    /// Both have the columns of the output.
    pub fn new(before: &'a RecordBatch, after: &'a RecordBatch) -> Changes<'a> {
        Changes { before, after, picks: Vec::new(), kinds: Vec::new() }
    }

    pub fn insert(&mut self, after: usize) {
        self.pick(1, after, RowKind::Insert);
    }

    pub fn delete(&mut self, before: usize) {
        self.pick(0, before, RowKind::Delete);
    }

    pub fn update(&mut self, before: usize, after: usize) {
        self.pick(0, before, RowKind::UpdateBefore);
        self.pick(1, after, RowKind::UpdateAfter);
    }

    fn pick(&mut self, side: usize, row: usize, kind: RowKind) {
        self.picks.push((side, row));
        self.kinds.push(kind as u8);
    }

    pub fn send(self, out: &mut Output) -> Result<()> {
        let mut start = 0;
        while start < self.picks.len() {
            let mut end = (start + BATCH_ROWS).min(self.picks.len());
            // Both halves of an update travel in one batch.
            if end < self.picks.len() && self.kinds[end - 1] == RowKind::UpdateBefore as u8 {
                end -= 1;
            }
            let rows = interleave_record_batch(&[self.before, self.after], &self.picks[start..end]).map_err(failed)?;
            let kinds = &self.kinds[start..end];
            out.send(match kinds.iter().all(|kind| *kind == RowKind::Insert as u8) {
                true => Batch::inserts(rows),
                false => Batch::changes(rows, UInt8Array::from(kinds.to_vec())),
            });
            start = end;
        }
        Ok(())
    }
}

/// For each row whether any column differs; NULL equals NULL, and NaN equals NaN.
pub fn differs(before: &[ArrayRef], after: &[ArrayRef], rows: usize) -> Result<Vec<bool>> {
    let mut differs = vec![false; rows];
    for (before, after) in before.iter().zip(after) {
        if is_flat(before.data_type()) {
            let distinct: BooleanArray = cmp::distinct(before, after).map_err(failed)?;
            for at in distinct.values().set_indices() {
                differs[at] = true;
            }
        } else {
            let compare = make_comparator(before, after, SortOptions::default()).map_err(failed)?;
            (0..rows).for_each(|row| differs[row] |= compare(row, row).is_ne());
        }
    }
    Ok(differs)
}

fn is_flat(data_type: &DataType) -> bool {
    !data_type.is_nested()
}

fn failed(error: ArrowError) -> RunError {
    RunError::internal(format!("cannot build result rows: {error}"))
}
