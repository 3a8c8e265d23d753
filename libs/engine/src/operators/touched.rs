//! What changes in an epoch: keys whose rows came or were taken back, and what their results were before.
//!
//! An updating result leaves once per key and epoch, as the difference of what was and what is. What was sent is not stored; it is computed
//! just before a key's first change.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::{concat, filter_record_batch};
use arrow::datatypes::SchemaRef;
use state::{DirtySet, KeyTable, SlotVec};

use super::groups::Accumulators;
use super::results::{Changes, differs, record_batch};
use crate::batch::Batch;
use crate::error::Result;
use crate::operator::Output;

#[derive(Default)]
pub struct Touched {
    slots: DirtySet,
    /// Results of the slots, in their order: in parts, as they were marked.
    before: Vec<Vec<ArrayRef>>,
    /// By slot: whether the key's row has been sent.
    sent: SlotVec<bool>,
}

impl Touched {
    /// Makes room for slots below `slots`.
    pub fn grow(&mut self, slots: usize) {
        self.slots.grow(slots);
        self.sent.grow(slots);
    }

    /// Notes that the keys of these slots change, before they do.
    pub fn mark(&mut self, slots: &[u32], accumulators: &Accumulators) -> Result<()> {
        let known = self.slots.len();
        self.slots.mark_all(slots);
        let fresh = &self.slots.slots()[known..];
        if !fresh.is_empty() {
            self.before.push(accumulators.values(fresh)?);
        }
        Ok(())
    }

    /// Whether nothing changed since the last time that changes were sent.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether the key of a slot changed since then.
    pub fn contains(&self, slot: u32) -> bool {
        self.slots.contains(slot)
    }

    /// A key's row has been sent: in an earlier epoch, by whoever had it then.
    pub fn is_sent(&mut self, slot: u32) {
        self.sent[slot] = true;
    }

    /// The slot has no key any more.
    pub fn reset(&mut self, slot: u32) {
        self.sent.reset(slot);
    }

    /// Sends what changed. `exists` says whether a key has rows; slots of those that have none any more are returned.
    pub fn send(
        &mut self,
        schema: &SchemaRef,
        keys: &KeyTable,
        accumulators: &Accumulators,
        exists: impl Fn(u32) -> bool,
        out: &mut Output,
    ) -> Result<Vec<u32>> {
        let slots = self.slots.drain();
        let parts = std::mem::take(&mut self.before);
        let Some(calls) = parts.first().map(Vec::len) else { return Ok(Vec::new()) };
        let column =
            |column: usize| concat(&parts.iter().map(|part| part[column].as_ref()).collect::<Vec<&dyn Array>>());
        let before = (0..calls).map(column).collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
        let after = accumulators.values(&slots)?;
        let keys = keys.keys(&slots);
        let changed = differs(&before, &after, slots.len())?;
        let before = record_batch(schema, [keys.clone(), before].concat(), slots.len())?;
        let after = record_batch(schema, [keys, after].concat(), slots.len())?;
        let mut changes = Changes::new(&before, &after);
        let mut gone = Vec::new();
        for (row, &slot) in slots.iter().enumerate() {
            let exists = exists(slot);
            match (self.sent[slot], exists) {
                (false, true) => changes.insert(row),
                (true, true) if changed[row] => changes.update(row, row),
                (true, false) => changes.delete(row),
                _ => {}
            }
            self.sent[slot] = exists;
            if !exists {
                gone.push(slot);
            }
        }
        changes.send(out)?;
        Ok(gone)
    }

    pub fn bytes(&self) -> usize {
        self.slots.bytes() + self.sent.bytes()
    }
}

/// Applies the rows of a batch, each with its slot, and whether they are added. Those that are added come first: one that is taken back in the
/// same batch is there then.
pub fn by_kind(
    slots: &[u32],
    batch: &Batch,
    mut apply: impl FnMut(&[u32], &RecordBatch, bool) -> Result<()>,
) -> Result<()> {
    if batch.kinds.is_none() {
        return apply(slots, &batch.rows, true);
    }
    let adds: BooleanArray = (0..slots.len()).map(|row| Some(batch.kind(row).adds())).collect();
    for (mask, adding) in [(adds.clone(), true), (arrow::compute::not(&adds)?, false)] {
        if mask.true_count() > 0 {
            let rows = filter_record_batch(&batch.rows, &mask)?;
            let slots: Vec<u32> = mask.values().set_indices().map(|row| slots[row]).collect();
            apply(&slots, &rows, adding)?;
        }
    }
    Ok(())
}
