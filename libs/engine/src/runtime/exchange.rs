//! Which worker gets which row.

use arrow::array::{UInt8Array, UInt32Array};
use state::key_group::{KEY_GROUPS, key_groups, key_hashes, owner};
use timely::communication::Push;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pushers::exchange::Distributor;

use super::parcel::Parcel;
use crate::batch::{Batch, RowKind};

/// Sends rows by the key group of some columns. Not called when there is one worker.
pub struct ByKey {
    pub columns: Vec<usize>,
}

impl Distributor<Parcel> for ByKey {
    fn partition<T: Clone, P: Push<Message<T, Parcel>>>(&mut self, parcel: &mut Parcel, time: &T, pushers: &mut [P]) {
        let Some(batch) = parcel.batch.take() else { return };
        let targets = targets(&batch, &self.columns, pushers.len());
        for (target, part) in parts(batch, &targets, pushers.len()) {
            Message::push_at(&mut Parcel::new(part), time.clone(), &mut pushers[target]);
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Parcel>>>(&mut self, _: &T, _: &mut [P]) {}
}

/// Sends everything to worker 0.
pub struct ToFirst;

impl Distributor<Parcel> for ToFirst {
    fn partition<T: Clone, P: Push<Message<T, Parcel>>>(&mut self, parcel: &mut Parcel, time: &T, pushers: &mut [P]) {
        Message::push_at(&mut std::mem::take(parcel), time.clone(), &mut pushers[0]);
    }

    fn flush<T: Clone, P: Push<Message<T, Parcel>>>(&mut self, _: &T, _: &mut [P]) {}
}

/// The worker of each row.
fn targets(batch: &Batch, columns: &[usize], workers: usize) -> Vec<u32> {
    let keys: Vec<_> = columns.iter().map(|column| batch.rows.column(*column).clone()).collect();
    let groups = key_groups(&key_hashes(&keys, batch.num_rows()), KEY_GROUPS);
    groups.iter().map(|group| owner(*group, workers) as u32).collect()
}

/// The rows of each worker that gets any, in the order of workers; the order of rows is kept.
fn parts(mut batch: Batch, targets: &[u32], workers: usize) -> Vec<(usize, Batch)> {
    if let Some(first) = targets.first()
        && targets.iter().all(|target| target == first)
    {
        return vec![(*first as usize, batch)];
    }
    if let Some(kinds) = &batch.kinds {
        batch.kinds = Some(unpaired(kinds, targets));
    }
    let mut indices: Vec<Vec<u32>> = vec![Vec::with_capacity(targets.len() / workers * 5 / 4); workers];
    for (row, target) in targets.iter().enumerate() {
        indices[*target as usize].push(row as u32);
    }
    let parts = indices.into_iter().enumerate().filter(|(_, indices)| !indices.is_empty());
    parts
        .map(|(target, indices)| {
            (target, batch.take(&UInt32Array::from(indices)).expect("the indices are below the row count"))
        })
        .collect()
}

/// An update whose halves go to different workers is a delete there and an insert here.
fn unpaired(kinds: &UInt8Array, targets: &[u32]) -> UInt8Array {
    let mut kinds: Vec<u8> = kinds.values().to_vec();
    for row in 1..kinds.len() {
        let pair = kinds[row - 1] == RowKind::UpdateBefore as u8 && kinds[row] == RowKind::UpdateAfter as u8;
        if pair && targets[row - 1] != targets[row] {
            kinds[row - 1] = RowKind::Delete as u8;
            kinds[row] = RowKind::Insert as u8;
        }
    }
    UInt8Array::from(kinds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, Int64Array, RecordBatch};
    use std::sync::Arc;

    #[test]
    fn every_row_goes_to_the_owner_of_its_key_and_split_pairs_are_mended() {
        let keys: Vec<i64> = (0..1000).map(|row| row % 97).collect();
        let rows = RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(keys)) as Arc<dyn Array>)])
            .expect("one column");
        let kinds: Vec<u8> = (0..1000).map(|row| if row % 2 == 0 { 1 } else { 2 }).collect();
        let batch = Batch::changes(rows, UInt8Array::from(kinds));
        let targets = targets(&batch, &[0], 3);
        let parts = parts(batch, &targets, 3);
        assert_eq!(parts.iter().map(|(_, part)| part.num_rows()).sum::<usize>(), 1000);
        for (target, part) in &parts {
            assert!(super::targets(part, &[0], 3).iter().all(|t| *t as usize == *target));
            for row in 0..part.num_rows() {
                if part.kind(row) == RowKind::UpdateBefore {
                    assert_eq!(part.kind(row + 1), RowKind::UpdateAfter, "a kept pair stays adjacent");
                }
            }
        }
    }
}
