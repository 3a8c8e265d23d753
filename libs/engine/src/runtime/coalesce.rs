//! Joins small batches on their way out of a port, so that what follows pays its cost per batch less often.
//!
//! Only batches of one time are joined, and their order stays; a port lets go of what waits here before its capability moves, and whenever
//! nothing more is at hand. So one path serves throughput (full batches under load) and latency (a row alone leaves at once).

use std::sync::Arc;

use arrow::array::{Array, Int64Array, UInt8Array, UInt32Array};
use arrow::compute::{concat, concat_batches};
use arrow::error::ArrowError;

use crate::batch::{Batch, Origin, Permit};

/// Batches below this are worth copying into a larger one.
const SMALL_ROWS: usize = 1024;
/// A joined batch leaves when it has come to this.
const FULL_ROWS: usize = 2 * SMALL_ROWS;

/// Small batches that wait for others.
#[derive(Default)]
pub struct Coalescer {
    small: Vec<Batch>,
    rows: usize,
}

impl Coalescer {
    /// Takes a batch, and gives those that are to leave now to `send`, in order.
    pub fn push(&mut self, batch: Batch, mut send: impl FnMut(Batch)) {
        if batch.num_rows() >= SMALL_ROWS {
            self.flush(&mut send);
            return send(batch);
        }
        self.rows += batch.num_rows();
        self.small.push(batch);
        if self.rows >= FULL_ROWS {
            self.flush(send);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.small.is_empty()
    }

    /// Gives what waits to `send`.
    pub fn flush(&mut self, mut send: impl FnMut(Batch)) {
        self.rows = 0;
        let joined = match self.small.len() {
            0 => return,
            1 => self.small.pop(),
            _ => joined(&self.small).ok(),
        };
        match joined {
            Some(batch) => {
                self.small.clear();
                send(batch)
            }
            // Texts too long to be one column (2 GiB): each leaves by itself.
            None => self.small.drain(..).for_each(send),
        }
    }
}

fn joined(batches: &[Batch]) -> Result<Batch, ArrowError> {
    let schema = batches[0].rows.schema();
    let rows = concat_batches(&schema, batches.iter().map(|batch| &batch.rows))?;
    let kinds = match batches.iter().any(|batch| batch.kinds.is_some()) {
        true => {
            let kinds: Vec<UInt8Array> = batches.iter().map(Batch::all_kinds).collect();
            Some(UInt8Array::from(concat(&refs(&kinds))?.to_data()))
        }
        false => None,
    };
    // Behind a union some rows may have none; then nobody asks.
    let origins: Option<Vec<&Origin>> = batches.iter().map(|batch| batch.origin.as_ref()).collect();
    let origin = match origins {
        Some(origins) => {
            let splits: Vec<&dyn Array> = origins.iter().map(|origin| &origin.splits as &dyn Array).collect();
            let positions: Vec<&dyn Array> = origins.iter().map(|origin| &origin.positions as &dyn Array).collect();
            let splits = UInt32Array::from(concat(&splits)?.to_data());
            Some(Origin { splits, positions: Int64Array::from(concat(&positions)?.to_data()) })
        }
        None => None,
    };
    let permits: Vec<Arc<Permit>> = batches.iter().filter_map(|batch| batch.permit.clone()).collect();
    let permit = (!permits.is_empty()).then(|| Arc::new(Permit::All(permits)));
    Ok(Batch { rows, kinds, origin, permit })
}

fn refs<A: Array>(arrays: &[A]) -> Vec<&dyn Array> {
    arrays.iter().map(|array| array as &dyn Array).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::RowKind;
    use arrow::array::RecordBatch;

    fn batch(values: std::ops::Range<i64>) -> Batch {
        let column: Arc<dyn Array> = Arc::new(Int64Array::from_iter_values(values));
        Batch::inserts(RecordBatch::try_from_iter([("v", column)]).expect("one column"))
    }

    fn sizes(coalescer: &mut Coalescer, batches: impl IntoIterator<Item = Batch>) -> Vec<usize> {
        let mut sizes = Vec::new();
        batches.into_iter().for_each(|batch| coalescer.push(batch, |batch| sizes.push(batch.num_rows())));
        sizes
    }

    #[test]
    fn small_batches_leave_together_and_in_order() {
        let mut coalescer = Coalescer::default();
        assert_eq!(sizes(&mut coalescer, (0..7).map(|n| batch(n * 300..(n + 1) * 300))), [2100]);
        assert_eq!(sizes(&mut coalescer, [batch(0..5), batch(0..4000), batch(0..3)]), [5, 4000]);
        let mut left = Vec::new();
        coalescer.flush(|batch| left.push(batch.num_rows()));
        coalescer.flush(|batch| left.push(batch.num_rows()));
        assert_eq!(left, [3]);
    }

    #[test]
    fn kinds_and_origins_travel_with_their_rows() {
        let with_origin = |batch: Batch, split: u32| Batch {
            origin: Some(Origin {
                splits: UInt32Array::from_value(split, batch.num_rows()),
                positions: Int64Array::from_value(7, batch.num_rows()),
            }),
            ..batch
        };
        let deletes = Batch { kinds: Some(UInt8Array::from_value(RowKind::Delete as u8, 2)), ..batch(2..4) };
        let joined = joined(&[with_origin(batch(0..2), 1), with_origin(deletes, 2)]).expect("they fit");
        let kinds: Vec<RowKind> = (0..4).map(|row| joined.kind(row)).collect();
        assert_eq!(kinds, [RowKind::Insert, RowKind::Insert, RowKind::Delete, RowKind::Delete]);
        assert_eq!(joined.origin.expect("all have one").splits.values(), &[1, 1, 2, 2]);
        let values = Int64Array::from(joined.rows.column(0).to_data());
        assert_eq!(values.values(), &[0, 1, 2, 3]);
    }
}
