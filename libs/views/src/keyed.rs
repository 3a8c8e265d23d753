//! Rows by key: a later row of the same key replaces the earlier one, a retraction takes back the row that it names.
//!
//! Rows stay in the batches that they came in; per key there is the place of its row. What has gone is a cleared bit. Batches are joined
//! by size, at most [`TIER_CHUNKS`] of one size, so that there are few of them and a row is copied few times.
//!
//! The changes of one key may come through several workers, in any order among them: a worker says that its row has gone from a key, another
//! that its own row has come. So a retraction that names another row than the key's has no effect but this: within the epoch it cancels one
//! coming of the row that it names. Where the key is unique at the end of an epoch, as it is declared to be, the result does not depend
//! on the order of the workers; where it is not, the last row stays.

use std::cmp::Ordering;
use std::collections::HashMap;

use arrow::array::{ArrayRef, DynComparator, RecordBatch, UInt8Array, make_comparator};
use arrow::compute::{SortOptions, concat_batches, filter_record_batch};
use arrow::datatypes::{Fields, SchemaRef};
use state::KeyTable;

use crate::chunk::{CHUNK_BYTES, CHUNK_ROWS, Chunk};
use crate::error::ViewError;
use crate::table::{Changes, adds};

/// Chunks of one size (within a factor of 4) that are left alone.
const TIER_CHUNKS: usize = 8;

pub struct Keyed {
    schema: SchemaRef,
    key_columns: Vec<usize>,
    keys: KeyTable,
    /// Where the row of a key is, by its slot.
    places: Vec<Place>,
    held: Vec<Option<Held>>,
    rows: u64,
}

#[derive(Clone, Copy, PartialEq)]
struct Place {
    chunk: u32,
    row: u32,
}

const NOWHERE: Place = Place { chunk: u32::MAX, row: u32::MAX };

struct Held {
    chunk: Chunk,
    /// Of each row its key; true of the rows that count.
    slots: Vec<u32>,
}

/// What an epoch leaves open between its batches.
#[derive(Default)]
struct Pending {
    /// By slot, retractions of rows that have not come.
    debts: HashMap<u32, Vec<(RecordBatch, usize)>>,
    /// By slot, how often the present row has come once more.
    again: HashMap<u32, usize>,
    /// Keys that may have no row any more.
    emptied: Vec<u32>,
}

impl Keyed {
    pub fn new(view: &str, schema: SchemaRef, key_columns: Vec<usize>) -> Result<Keyed, ViewError> {
        for column in &key_columns {
            let field = schema.field(*column);
            state::check_key_type(field.data_type()).map_err(|error| ViewError::Key {
                view: view.to_string(),
                column: field.name().clone(),
                reason: format!("has no equality: {error}"),
            })?;
        }
        let key: Fields = key_columns.iter().map(|column| schema.fields()[*column].clone()).collect();
        let keys = KeyTable::new(&key).expect("the types of the key were checked");
        Ok(Keyed { schema, key_columns, keys, places: vec![], held: vec![], rows: 0 })
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn bytes(&self) -> u64 {
        let held = self.held.iter().flatten().map(|held| held.chunk.bytes() + 4 * held.slots.capacity() as u64);
        held.sum::<u64>() + self.keys.bytes() as u64 + (self.places.capacity() * size_of::<Place>()) as u64
    }

    pub fn chunks(&self) -> Vec<Chunk> {
        self.held.iter().flatten().map(|held| held.chunk.clone()).collect()
    }

    pub fn apply(&mut self, changes: &[Changes]) -> Result<(), ViewError> {
        let mut pending = Pending::default();
        for change in changes.iter().filter(|change| change.rows.num_rows() > 0) {
            self.fold(change, &mut pending)?;
        }
        let mut emptied = pending.emptied;
        emptied.extend(pending.debts.keys());
        emptied.retain(|slot| self.places[*slot as usize] == NOWHERE);
        emptied.sort_unstable();
        emptied.dedup();
        self.keys.remove(&emptied);
        self.join_by_size()
    }

    fn fold(&mut self, changes: &Changes, pending: &mut Pending) -> Result<(), ViewError> {
        let rows = &changes.rows;
        let key: Vec<ArrayRef> = self.key_columns.iter().map(|column| rows.column(*column).clone()).collect();
        let mut slots = Vec::with_capacity(rows.num_rows());
        self.keys.intern(&key, rows.num_rows(), &mut slots);
        self.places.resize(self.keys.slots_capacity().max(self.places.len()), NOWHERE);
        let at = self.hold(Held { chunk: Chunk::empty(rows.clone()), slots: vec![] });
        match &changes.kinds {
            None => {
                for (row, slot) in slots.iter().enumerate() {
                    self.put(*slot, Place { chunk: at, row: row as u32 });
                }
            }
            Some(kinds) => self.fold_kinds(at, rows, kinds, &slots, pending)?,
        }
        let held = self.held[at as usize].as_mut().expect("the chunk was just put here");
        held.slots = slots;
        Ok(())
    }

    fn fold_kinds(
        &mut self,
        at: u32,
        rows: &RecordBatch,
        kinds: &UInt8Array,
        slots: &[u32],
        pending: &mut Pending,
    ) -> Result<(), ViewError> {
        let mut rows_of = Comparators { rows, with: HashMap::new() };
        for (row, (slot, kind)) in slots.iter().zip(kinds.values()).enumerate() {
            let place = self.places[*slot as usize];
            let same = place != NOWHERE && rows_of.same(self, row, place)?;
            if adds(*kind) {
                if cancel_debt(pending, *slot, rows, row)? {
                    // It had gone before it came.
                } else if same {
                    *pending.again.entry(*slot).or_default() += 1;
                } else {
                    pending.again.remove(slot);
                    self.put(*slot, Place { chunk: at, row: row as u32 });
                }
            } else if !same {
                pending.debts.entry(*slot).or_default().push((rows.clone(), row));
            } else if let Some(again) = pending.again.get_mut(slot).filter(|again| **again > 0) {
                *again -= 1;
            } else {
                self.clear(place);
                self.places[*slot as usize] = NOWHERE;
                pending.emptied.push(*slot);
            }
        }
        Ok(())
    }

    fn put(&mut self, slot: u32, place: Place) {
        let before = std::mem::replace(&mut self.places[slot as usize], place);
        if before != NOWHERE {
            self.clear(before);
        }
        self.chunk_mut(place).set(place.row as usize, true);
        self.rows += 1;
    }

    fn clear(&mut self, place: Place) {
        self.chunk_mut(place).set(place.row as usize, false);
        self.rows -= 1;
    }

    fn chunk_mut(&mut self, place: Place) -> &mut Chunk {
        &mut self.held[place.chunk as usize].as_mut().expect("a place is in a chunk that is held").chunk
    }

    fn hold(&mut self, held: Held) -> u32 {
        let at = self.held.iter().position(Option::is_none).unwrap_or_else(|| {
            self.held.push(None);
            self.held.len() - 1
        });
        self.held[at] = Some(held);
        at as u32
    }

    /// Lets go of chunks without rows, copies what is less than half full, and joins what there is too much of.
    fn join_by_size(&mut self) -> Result<(), ViewError> {
        let mut tiers: [Vec<usize>; 16] = Default::default();
        for (at, held) in self.held.iter_mut().enumerate() {
            let Some(chunk) = held.as_ref().map(|held| &held.chunk) else { continue };
            let (live, all) = (chunk.live_rows(), chunk.rows.num_rows());
            if live == 0 {
                *held = None;
            } else if live < CHUNK_ROWS / 2 && chunk.bytes() < CHUNK_BYTES / 2 || live * 2 < all {
                tiers[(live.ilog2() / 2).min(15) as usize].push(at);
            }
        }
        for tier in tiers {
            if tier.len() > TIER_CHUNKS {
                self.join(&tier)?;
            } else {
                let sparse = |held: &Option<Held>| {
                    held.as_ref().is_some_and(|held| held.chunk.live_rows() * 2 < held.chunk.rows.num_rows())
                };
                for at in tier.into_iter().filter(|at| sparse(&self.held[*at])).collect::<Vec<_>>() {
                    self.join(&[at])?;
                }
            }
        }
        Ok(())
    }

    /// Copies everything together: the least memory that these rows can have.
    pub fn join_all(&mut self) -> Result<(), ViewError> {
        let all: Vec<usize> = (0..self.held.len()).filter(|at| self.held[*at].is_some()).collect();
        self.join(&all)
    }

    fn join(&mut self, chunks: &[usize]) -> Result<(), ViewError> {
        let (mut batches, mut slots, mut bytes) = (Vec::new(), Vec::new(), 0);
        for at in chunks {
            let held = self.held[*at].take().expect("only held chunks are joined");
            let live = held.chunk.live_rows();
            let share = held.chunk.bytes() / held.chunk.rows.num_rows().max(1) as u64 * live as u64;
            if slots.len() + live > CHUNK_ROWS || bytes + share > CHUNK_BYTES {
                self.hold_joined(std::mem::take(&mut batches), std::mem::take(&mut slots))?;
                bytes = 0;
            }
            bytes += share;
            match held.chunk.mask() {
                None => {
                    batches.push(held.chunk.rows.clone());
                    slots.extend(held.slots);
                }
                Some(mask) => {
                    batches.push(filter_record_batch(&held.chunk.rows, &mask)?);
                    slots.extend(held.slots.iter().zip(mask.values()).filter(|(_, live)| *live).map(|(slot, _)| slot));
                }
            }
        }
        self.hold_joined(batches, slots)
    }

    fn hold_joined(&mut self, batches: Vec<RecordBatch>, slots: Vec<u32>) -> Result<(), ViewError> {
        if slots.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(&self.schema, &batches)?;
        let at = self.hold(Held { chunk: Chunk::full(rows), slots });
        let held = self.held[at as usize].as_ref().expect("the chunk was just put here");
        for (row, slot) in held.slots.iter().enumerate() {
            self.places[*slot as usize] = Place { chunk: at, row: row as u32 };
        }
        Ok(())
    }
}

/// Whether the row had been taken back before it came.
fn cancel_debt(pending: &mut Pending, slot: u32, rows: &RecordBatch, row: usize) -> Result<bool, ViewError> {
    let Some(debts) = pending.debts.get_mut(&slot) else { return Ok(false) };
    for at in 0..debts.len() {
        let (other, other_row) = &debts[at];
        let compare = comparators(rows, other)?;
        if compare.iter().all(|compare| compare(row, *other_row) == Ordering::Equal) {
            debts.swap_remove(at);
            return Ok(true);
        }
    }
    Ok(false)
}

/// Compares the rows of a batch with those that are held; made once per chunk.
struct Comparators<'a> {
    rows: &'a RecordBatch,
    with: HashMap<u32, Vec<DynComparator>>,
}

impl Comparators<'_> {
    fn same(&mut self, keyed: &Keyed, row: usize, place: Place) -> Result<bool, ViewError> {
        let compare = match self.with.entry(place.chunk) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => {
                let held = keyed.held[place.chunk as usize].as_ref().expect("a place is in a chunk that is held");
                new.insert(comparators(self.rows, &held.chunk.rows)?)
            }
        };
        Ok(compare.iter().all(|compare| compare(row, place.row as usize) == Ordering::Equal))
    }
}

fn comparators(left: &RecordBatch, right: &RecordBatch) -> Result<Vec<DynComparator>, ViewError> {
    let columns = left.columns().iter().zip(right.columns());
    let made = columns.map(|(left, right)| make_comparator(left, right, SortOptions::default()));
    Ok(made.collect::<Result<_, _>>()?)
}
