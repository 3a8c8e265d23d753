//! Rows by key: a later row of the same key replaces the earlier one, a retraction takes back the row that it names.
//!
//! Rows stay in the batches that they came in; per key there is the place of its row. What has gone is a cleared bit. Batches are joined
//! by size, at most [`TIER_CHUNKS`] of one size, so that there are few of them and a row is copied few times.
//!
//! The changes of one key may come through several workers, in any order among them: one says that its row has gone from a key, another that
//! its own row has come. So within an epoch the rows of a key are counted, as soon as there is not at most one of them: a row that came as
//! often as it went is not there. Where the key is unique at the end of an epoch, as it is declared to be, one row is left, whatever
//! the order; where it is not, the last that came stays, and the others are forgotten. Many rows of one key are found by their hash: the
//! time of an epoch is in proportion to its changes, however few keys they have.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use arrow::array::{ArrayRef, DynComparator, RecordBatch, make_comparator};
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

/// So many rows of a key are compared one by one; more are hashed.
const FEW_ROWS: usize = 8;

struct Held {
    chunk: Chunk,
    /// Of each row its key; true of the rows that count.
    slots: Vec<u32>,
}

/// What an epoch leaves open between its batches.
#[derive(Default)]
struct Pending {
    /// By slot. Chunks are not joined meanwhile, so places stay, also of rows that do not count.
    counted: HashMap<u32, Counted>,
    /// Keys that may have no row any more.
    emptied: Vec<u32>,
}

/// The distinct rows of a key that came more or less often than they went.
#[derive(Default)]
struct Counted {
    /// By hash, once there were more than a few; before that, all of them under 0.
    rows: HashMap<u64, Vec<CountedRow>>,
    hashed: bool,
    /// How many rows have come.
    came: u64,
}

struct CountedRow {
    place: Place,
    /// How much more often it came than it went; never 0.
    count: i64,
    /// [`Counted::came`] when it came last.
    came: u64,
}

impl Counted {
    /// The row that stays: of those that are there, the one that came last.
    fn last(&self) -> Place {
        let there = self.rows.values().flatten().filter(|row| row.count > 0);
        there.max_by_key(|row| row.came).map_or(NOWHERE, |row| row.place)
    }
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
        let updating = changes.iter().any(|change| change.kinds.is_some());
        for change in changes.iter().filter(|change| change.rows.num_rows() > 0) {
            self.fold(change, updating, &mut pending)?;
        }
        for (slot, counted) in pending.counted {
            let before = self.places[slot as usize];
            let after = counted.last();
            if after == NOWHERE {
                pending.emptied.push(slot);
            }
            if after != before {
                self.put(slot, after);
            }
        }
        let mut emptied = pending.emptied;
        emptied.retain(|slot| self.places[*slot as usize] == NOWHERE);
        emptied.sort_unstable();
        emptied.dedup();
        self.keys.remove(&emptied);
        self.join_by_size()
    }

    fn fold(&mut self, changes: &Changes, updating: bool, pending: &mut Pending) -> Result<(), ViewError> {
        let rows = &changes.rows;
        let key: Vec<ArrayRef> = self.key_columns.iter().map(|column| rows.column(*column).clone()).collect();
        let mut slots = Vec::with_capacity(rows.num_rows());
        self.keys.intern(&key, rows.num_rows(), &mut slots);
        self.places.resize(self.keys.slots_capacity().max(self.places.len()), NOWHERE);
        let at = self.hold(Held { chunk: Chunk::empty(rows.clone()), slots: vec![] });
        if updating {
            let mut compare = Comparators { rows, with: HashMap::new(), hashes: None };
            for (row, slot) in slots.iter().enumerate() {
                let adds = changes.kinds.as_ref().is_none_or(|kinds| adds(kinds.value(row)));
                self.change(*slot, Place { chunk: at, row: row as u32 }, adds, &mut compare, pending)?;
            }
        } else {
            for (row, slot) in slots.iter().enumerate() {
                self.put(*slot, Place { chunk: at, row: row as u32 });
            }
        }
        let held = self.held[at as usize].as_mut().expect("the chunk was just put here");
        held.slots = slots;
        Ok(())
    }

    /// A row comes to a key or goes from it.
    fn change(
        &mut self,
        slot: u32,
        change: Place,
        adds: bool,
        compare: &mut Comparators,
        pending: &mut Pending,
    ) -> Result<(), ViewError> {
        let place = self.places[slot as usize];
        let counted = match pending.counted.entry(slot) {
            Entry::Occupied(counted) => counted.into_mut(),
            Entry::Vacant(_) if adds && place == NOWHERE => {
                self.put(slot, change);
                return Ok(());
            }
            Entry::Vacant(_) if !adds && place != NOWHERE && compare.same(self, change, place)? => {
                self.put(slot, NOWHERE);
                pending.emptied.push(slot);
                return Ok(());
            }
            Entry::Vacant(new) => {
                let counted = new.insert(Counted::default());
                if place != NOWHERE {
                    counted.rows.insert(0, vec![CountedRow { place, count: 1, came: 0 }]);
                }
                counted
            }
        };
        self.count(counted, change, adds, compare)
    }

    fn count(
        &self,
        counted: &mut Counted,
        change: Place,
        adds: bool,
        compare: &mut Comparators,
    ) -> Result<(), ViewError> {
        let hash = if counted.hashed { compare.hash(change.row) } else { 0 };
        let rows = counted.rows.entry(hash).or_default();
        let mut known = None;
        for (at, row) in rows.iter().enumerate() {
            if compare.same(self, change, row.place)? {
                known = Some(at);
                break;
            }
        }
        let at = known.unwrap_or_else(|| {
            rows.push(CountedRow { place: change, count: 0, came: 0 });
            rows.len() - 1
        });
        if adds {
            counted.came += 1;
            rows[at].came = counted.came;
            rows[at].count += 1;
        } else {
            rows[at].count -= 1;
        }
        if rows[at].count == 0 {
            rows.swap_remove(at);
            if rows.is_empty() {
                counted.rows.remove(&hash);
            }
        } else if rows.len() > FEW_ROWS && !counted.hashed {
            counted.hashed = true;
            for row in counted.rows.remove(&0).unwrap_or_default() {
                let held = self.held[row.place.chunk as usize].as_ref().expect("a place is in a chunk that is held");
                let hash = row_hashes(&held.chunk.rows.slice(row.place.row as usize, 1))[0];
                counted.rows.entry(hash).or_default().push(row);
            }
        }
        Ok(())
    }

    /// From now on, the row of a key is at this place.
    fn put(&mut self, slot: u32, place: Place) {
        let before = std::mem::replace(&mut self.places[slot as usize], place);
        if before != NOWHERE {
            self.chunk_mut(before).set(before.row as usize, false);
            self.rows -= 1;
        }
        if place != NOWHERE {
            self.chunk_mut(place).set(place.row as usize, true);
            self.rows += 1;
        }
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

/// Compares the rows of a batch with those that are held; made once per chunk.
struct Comparators<'a> {
    rows: &'a RecordBatch,
    with: HashMap<u32, Vec<DynComparator>>,
    /// Of the rows of the batch, once one is asked for.
    hashes: Option<Vec<u64>>,
}

impl Comparators<'_> {
    /// Whether a row of the batch, wherever that is held, is the row at a place.
    fn same(&mut self, keyed: &Keyed, change: Place, place: Place) -> Result<bool, ViewError> {
        let compare = match self.with.entry(place.chunk) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let held = keyed.held[place.chunk as usize].as_ref().expect("a place is in a chunk that is held");
                new.insert(comparators(self.rows, &held.chunk.rows)?)
            }
        };
        Ok(compare.iter().all(|compare| compare(change.row as usize, place.row as usize) == Ordering::Equal))
    }

    fn hash(&mut self, row: u32) -> u64 {
        self.hashes.get_or_insert_with(|| row_hashes(self.rows))[row as usize]
    }
}

/// Rows that are the same have the same hash. Columns that have none (MAP) are left out: rows that differ there only are compared.
fn row_hashes(rows: &RecordBatch) -> Vec<u64> {
    let columns = rows.columns().iter().filter(|column| state::check_key_type(column.data_type()).is_ok());
    state::key_hashes(&columns.cloned().collect::<Vec<_>>(), rows.num_rows())
}

fn comparators(left: &RecordBatch, right: &RecordBatch) -> Result<Vec<DynComparator>, ViewError> {
    let columns = left.columns().iter().zip(right.columns());
    let made = columns.map(|(left, right)| make_comparator(left, right, SortOptions::default()));
    Ok(made.collect::<Result<_, _>>()?)
}
