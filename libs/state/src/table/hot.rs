//! Rows in slots where they are worked on, and in a table where they rest.
//!
//! Operators work on slots ([`crate::KeyTable`]): a vector of values per column, a number per key. [`HotTable`] keeps that up while there
//! are more keys than memory. Keys of a batch that are not there are fetched together, once per distinct key and batch
//! ([`HotTable::touch`]); when there are too many, those that were not touched lately leave together ([`HotTable::make_room`]), and of
//! these only changed rows are written. Whoever keeps the values is asked for them as columns and gets them back as columns ([`Values`]).
//!
//! The table alone is what a checkpoint keeps. At its cut ([`HotTable::cut`]) is noted which rows the table does not have yet; they are
//! written some at a time, each as it was at the cut ([`HotTable::copy_some`]), and then the table is frozen ([`HotTable::freeze`]). Until
//! then it gets nothing else: what changes or is removed after the cut stays in its slot.
//!
//! A slot is valid until the next call of [`HotTable::make_room`], [`HotTable::remove`] or [`HotTable::take_all`].

use arrow::array::{ArrayRef, RecordBatch};

use super::part::Freeze;
use super::{Cursor, Limit, Table, TableError};
use crate::key_group::{KEY_GROUPS, key_groups, key_hashes};
use crate::{KeyTable, SlotVec};

/// What is kept per slot: the value columns of a table.
pub trait Values {
    type Error: From<TableError>;

    /// Makes room for slots below `slots`; new ones are empty.
    fn resize(&mut self, slots: usize);

    /// The rows of slots as columns; nothing changes.
    fn rows(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, Self::Error>;

    /// Puts rows into empty slots.
    fn load(&mut self, slots: &[u32], rows: &[ArrayRef]) -> Result<(), Self::Error>;

    /// Makes slots empty.
    fn clear(&mut self, slots: &[u32]);

    /// Heap memory in bytes.
    fn bytes(&self) -> usize;
}

/// Keys in slots, and the table that has all others. See the module's documentation.
pub struct HotTable {
    keys: KeyTable,
    table: Box<dyn Table>,
    namespace: Vec<i64>,
    marks: SlotVec<u8>,
    limit: Limit,
    /// The checkpoint that is being copied.
    copying: Option<Copying>,
    /// Slots that were removed while one was, perhaps more than once: the table has rows of those that are marked still. They go with the
    /// next write, since a write waits until the table is frozen.
    gone: Vec<u32>,
    /// Where the search for keys to leave goes on.
    hand: u32,
    /// Whether the table may have rows: until then nothing is looked up.
    may_have_rows: bool,
}

/// What is left to do of a checkpoint.
struct Copying {
    /// Slots whose rows the table did not have at the cut, from `next` on those that are marked still.
    slots: Vec<u32>,
    next: usize,
}

/// The slot has a key.
const HELD: u8 = 1;
/// Touched since the hand passed.
const TOUCHED: u8 = 2;
/// The row is not what the table has.
const CHANGED: u8 = 4;
/// The table has a row of the key.
const STORED: u8 = 8;
/// The row is as it was at the cut of the checkpoint, which does not have it yet.
const WAITS: u8 = 16;
/// The key was removed after the cut; it has an empty slot until the table may know.
const GONE: u8 = 32;

/// Rows read or written at once: many, so that each write is one sorted file; few enough that their columns are small beside the budget.
const ROWS: usize = 64 * 1024;
/// Rows of a checkpoint that are written at once: so few that they go through RocksDB's memory, where they are sorted with others.
const COPIED_ROWS: usize = 1024;

impl HotTable {
    /// Keeps rows of one namespace of a table. `budget` in bytes is for what is in slots; the table has its own.
    /// `may_have_rows`: the table is not new.
    pub fn new(
        table: Box<dyn Table>,
        namespace: &[i64],
        budget: usize,
        may_have_rows: bool,
    ) -> Result<HotTable, TableError> {
        assert_eq!(namespace.len(), table.schema().namespace.len(), "a namespace has the numbers of the table");
        Ok(HotTable {
            keys: KeyTable::new(&table.schema().key)?,
            table,
            namespace: namespace.to_vec(),
            marks: SlotVec::default(),
            limit: Limit::new(budget),
            copying: None,
            gone: Vec::new(),
            hand: 0,
            may_have_rows,
        })
    }

    /// The keys in slots.
    pub fn keys(&self) -> &KeyTable {
        &self.keys
    }

    /// Appends the slot of each row's key to `slots`; a key that had none gets one, with the row that the table has. All count as changed.
    pub fn touch<V: Values>(
        &mut self,
        values: &mut V,
        columns: &[ArrayRef],
        rows: usize,
        slots: &mut Vec<u32>,
    ) -> Result<(), V::Error> {
        let first = slots.len();
        self.keys.intern(columns, rows, slots);
        self.marks.grow(self.keys.slots_capacity());
        values.resize(self.keys.slots_capacity());
        let (mut fresh, mut waiting) = (Vec::new(), Vec::new());
        for &slot in &slots[first..] {
            let marks = &mut self.marks[slot];
            if *marks & HELD == 0 {
                fresh.push(slot);
            }
            if *marks & WAITS != 0 {
                waiting.push(slot);
            }
            *marks = *marks & !(WAITS | GONE) | HELD | TOUCHED | CHANGED;
        }
        if !waiting.is_empty() {
            self.write_as_cut(values, &waiting)?;
            waiting.iter().for_each(|&slot| self.marks[slot] |= CHANGED);
        }
        if !self.may_have_rows {
            return Ok(());
        }
        for fresh in fresh.chunks(ROWS) {
            let found = self.table.get(&self.namespace, &self.keys.keys(fresh), fresh.len())?;
            let at: Vec<u32> = found.at.iter().map(|&row| fresh[row as usize]).collect();
            values.load(&at, &found.values)?;
            at.iter().for_each(|&slot| self.marks[slot] |= STORED);
        }
        Ok(())
    }

    /// Lets keys go that were not touched lately, if there are too many; those that `pinned` names stay, and those that changed after the
    /// cut of a checkpoint that is not frozen. Returns whether there is room now: not if almost all stay.
    pub fn make_room<V: Values>(&mut self, values: &mut V, pinned: impl Fn(&V, u32) -> bool) -> Result<bool, V::Error> {
        // Vectors by slot double together. Up to then there is room, for one batch too.
        let room = self.marks.bytes() / size_of::<u8>() / 8 * 7;
        let (keys, slots, bytes) = (self.keys.len(), self.keys.slots_capacity().max(room), self.bytes(values));
        let excess = self.limit.excess(keys, slots, bytes);
        if excess == 0 {
            return Ok(true);
        }
        let leaving = self.choose(excess, |slot| pinned(values, slot));
        let left = leaving.len();
        self.leave(values, leaving)?;
        // More leave than must, where there were too many.
        let few = |max: usize| keys > max && self.keys.len() <= max;
        Ok(left == excess || self.limit.rows_max().is_some_and(few))
    }

    /// At most `count` slots; the hand goes around twice, because the first time it takes marks away.
    fn choose(&mut self, count: usize, pinned: impl Fn(u32) -> bool) -> Vec<u32> {
        let slots = self.keys.slots_capacity() as u32;
        let mut chosen = Vec::with_capacity(count);
        let copies = self.copying.is_some();
        let must_stay = |marks: u8| marks & GONE != 0 || copies && marks & (CHANGED | WAITS) == CHANGED;
        for _ in 0..2 * u64::from(slots) {
            if chosen.len() == count {
                break;
            }
            self.hand = (self.hand + 1) % slots;
            let marks = &mut self.marks[self.hand];
            match *marks {
                held if held & HELD == 0 || must_stay(held) || pinned(self.hand) => {}
                touched if touched & TOUCHED != 0 => *marks &= !TOUCHED,
                _ => {
                    chosen.push(self.hand);
                    // Not to be chosen again in the second round.
                    *marks &= !HELD;
                }
            }
        }
        chosen
    }

    fn leave<V: Values>(&mut self, values: &mut V, slots: Vec<u32>) -> Result<(), V::Error> {
        self.remove_gone()?;
        let changed = slots.iter().copied().filter(|&slot| self.marks[slot] & CHANGED != 0).collect();
        self.write(values, changed)?;
        values.clear(&slots);
        self.forget(&slots);
        Ok(())
    }

    fn forget(&mut self, slots: &[u32]) {
        self.keys.remove(slots);
        slots.iter().for_each(|&slot| self.marks.reset(slot));
    }

    /// Writes the rows of slots, in the order of their groups, so that the batches do not overlap.
    fn write<V: Values>(&mut self, values: &V, mut slots: Vec<u32>) -> Result<(), V::Error> {
        if slots.is_empty() {
            return Ok(());
        }
        if slots.len() > ROWS {
            let groups = key_groups(&key_hashes(&self.keys.keys(&slots), slots.len()), KEY_GROUPS);
            let mut order: Vec<u32> = (0..slots.len() as u32).collect();
            order.sort_by_key(|&row| groups[row as usize]);
            slots = order.into_iter().map(|row| slots[row as usize]).collect();
        }
        for slots in slots.chunks(ROWS) {
            let rows = values.rows(slots)?;
            self.table.put(&self.namespace, &self.keys.keys(slots), &rows, slots.len())?;
        }
        for slot in slots {
            self.marks[slot] = self.marks[slot] & !(CHANGED | WAITS) | STORED;
        }
        self.may_have_rows = true;
        Ok(())
    }

    fn write_as_cut<V: Values>(&mut self, values: &V, slots: &[u32]) -> Result<(), V::Error> {
        slots.chunks(COPIED_ROWS).try_for_each(|some| self.write(values, some.to_vec()))
    }

    /// Tells the table of removed keys, if it may know.
    fn remove_gone(&mut self) -> Result<(), TableError> {
        if self.copies() || self.gone.is_empty() {
            return Ok(());
        }
        let mut gone = std::mem::take(&mut self.gone);
        gone.sort_unstable();
        gone.dedup();
        gone.retain(|&slot| self.marks[slot] & GONE != 0);
        if !gone.is_empty() {
            self.table.remove(&self.namespace, &self.keys.keys(&gone), gone.len())?;
            self.forget(&gone);
        }
        Ok(())
    }

    /// Cuts a checkpoint: of the rows as they are now.
    pub fn cut(&mut self) -> Result<(), TableError> {
        assert!(!self.copies(), "a checkpoint is copied before the next one is cut");
        self.remove_gone()?;
        let changed = |marks: &u8| *marks & CHANGED != 0;
        let slots: Vec<u32> =
            (0..).zip(self.marks.values()).filter(|(_, marks)| changed(marks)).map(|(slot, _)| slot).collect();
        slots.iter().for_each(|&slot| self.marks[slot] |= WAITS);
        self.copying = Some(Copying { slots, next: 0 });
        Ok(())
    }

    /// Whether a checkpoint was cut, and is not frozen yet.
    pub fn copies(&self) -> bool {
        self.copying.is_some()
    }

    /// Writes about so many more rows of the checkpoint; returns whether there are more.
    pub fn copy_some<V: Values>(&mut self, values: &V, rows_max: usize) -> Result<bool, V::Error> {
        let Some(Copying { slots, next }) = &mut self.copying else { return Ok(false) };
        let mut some = Vec::new();
        while *next < slots.len() && some.len() < rows_max {
            let slot = slots[*next];
            if self.marks[slot] & WAITS != 0 {
                some.push(slot);
            }
            *next += 1;
        }
        let more = *next < slots.len();
        self.write_as_cut(values, &some)?;
        Ok(more)
    }

    /// The table as of the cut, with all that was left to write. The next write gives it what came after.
    pub fn freeze<V: Values>(&mut self, values: &V) -> Result<Box<dyn Freeze>, V::Error> {
        self.copy_some(values, usize::MAX)?;
        let copied = self.copying.take();
        assert!(copied.is_some(), "a checkpoint is cut before it is frozen");
        Ok(self.table.freeze()?)
    }

    /// Removes keys and their rows, wherever they are. Each slot is named once.
    pub fn remove<V: Values>(&mut self, values: &mut V, slots: &[u32]) -> Result<(), V::Error> {
        let waiting: Vec<u32> = slots.iter().copied().filter(|&slot| self.marks[slot] & WAITS != 0).collect();
        self.write_as_cut(values, &waiting)?;
        let (stored, others): (Vec<u32>, Vec<u32>) = slots.iter().partition(|&&slot| self.marks[slot] & STORED != 0);
        values.clear(slots);
        self.forget(&others);
        stored.iter().for_each(|&slot| self.marks[slot] = HELD | STORED | GONE);
        self.gone.extend(stored);
        Ok(self.remove_gone()?)
    }

    /// All keys leave their slots, and all rows are in the table. Not while a checkpoint is copied.
    pub fn take_all<V: Values>(&mut self, values: &mut V) -> Result<(), V::Error> {
        assert!(!self.copies(), "the table gets nothing but rows of the checkpoint until it is frozen");
        self.remove_gone()?;
        self.leave(values, self.keys.live_slots())
    }

    /// The next rows of the table: all there are after [`HotTable::take_all`] or a checkpoint, see [`Table::scan`].
    pub fn scan(&mut self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<RecordBatch>, TableError> {
        self.table.scan(cursor, rows_max)
    }

    pub fn table(&mut self) -> &mut dyn Table {
        &mut *self.table
    }

    /// Heap memory in bytes of keys and values in slots.
    pub fn bytes<V: Values>(&self, values: &V) -> usize {
        self.keys.bytes() + self.marks.bytes() + values.bytes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Fields, Int64Type};

    use super::super::{MemoryTable, RocksMemory, RocksTable, TableSchema};
    use super::*;
    use crate::test_data::Random;

    /// A sum and a count per slot.
    #[derive(Default)]
    struct Sums {
        sums: SlotVec<i64>,
        counts: SlotVec<i64>,
    }

    impl Values for Sums {
        type Error = TableError;

        fn resize(&mut self, slots: usize) {
            self.sums.grow(slots);
            self.counts.grow(slots);
        }

        fn rows(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, TableError> {
            let column = |values: &SlotVec<i64>| {
                Arc::new(Int64Array::from_iter_values(slots.iter().map(|&slot| values[slot]))) as ArrayRef
            };
            Ok(vec![column(&self.sums), column(&self.counts)])
        }

        fn load(&mut self, slots: &[u32], rows: &[ArrayRef]) -> Result<(), TableError> {
            let (sums, counts) = (rows[0].as_primitive::<Int64Type>(), rows[1].as_primitive::<Int64Type>());
            for (row, &slot) in slots.iter().enumerate() {
                assert_eq!((self.sums[slot], self.counts[slot]), (0, 0), "rows are loaded into empty slots");
                (self.sums[slot], self.counts[slot]) = (sums.value(row), counts.value(row));
            }
            Ok(())
        }

        fn clear(&mut self, slots: &[u32]) {
            slots.iter().for_each(|&slot| {
                self.sums.reset(slot);
                self.counts.reset(slot);
            });
        }

        fn bytes(&self) -> usize {
            self.sums.bytes() + self.counts.bytes()
        }
    }

    fn schema() -> TableSchema {
        let field = |name| Field::new(name, DataType::Int64, true);
        let (key, values) = (Fields::from(vec![field("k")]), Fields::from(vec![field("sum"), field("count")]));
        TableSchema::new(&["part"], &key, &values).unwrap()
    }

    fn column(values: &[i64]) -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from(values.to_vec()))]
    }

    type Model = BTreeMap<i64, (i64, i64)>;

    fn scanned(hot: &mut HotTable) -> Model {
        let mut cursor = Cursor::all(hot.table().schema(), 0..KEY_GROUPS);
        let mut model = Model::new();
        while let Some(rows) = hot.scan(&mut cursor, 100).unwrap() {
            let column = |at: usize| rows.column(at).as_primitive::<Int64Type>();
            for row in 0..rows.num_rows() {
                let values = (column(2).value(row), column(3).value(row));
                assert!(model.insert(column(1).value(row), values).is_none(), "a key has one row");
            }
        }
        model
    }

    /// Ends the checkpoint at hand: the table is as the map was at the cut.
    fn freeze(hot: &mut HotTable, sums: &Sums, cut: &mut Option<Model>) {
        while hot.copy_some(sums, 100).unwrap() {}
        assert_eq!(Some(scanned(hot)), cut.take());
        hot.freeze(sums).unwrap();
    }

    /// Random adding, removing, leaving and checkpoints against a map. `distinct` keys, of which some are asked for more often.
    fn agrees_with_a_map(table: Box<dyn Table>, budget: usize, distinct: u64, seed: u64) {
        let mut random = Random(seed);
        let mut hot = HotTable::new(table, &[7], budget, false).unwrap();
        let (mut sums, mut model) = (Sums::default(), Model::new());
        let (mut most, mut compared, mut cut) = (0, 0, None::<Model>);
        for round in 0..150 {
            let rows = random.below(300) as usize;
            let mut key = || {
                let bound = if random.below(3) == 0 { distinct } else { 1 + distinct / 20 };
                random.below(bound) as i64
            };
            let keys: Vec<i64> = (0..rows).map(|_| key()).collect();
            let mut slots = vec![99];
            hot.touch(&mut sums, &column(&keys), rows, &mut slots).unwrap();
            assert_eq!(slots.remove(0), 99, "slots are appended");
            for (row, &slot) in slots.iter().enumerate() {
                sums.sums[slot] += row as i64;
                sums.counts[slot] += 1;
                let (sum, count) = model.entry(keys[row]).or_default();
                (*sum, *count) = (*sum + row as i64, *count + 1);
                assert_eq!((sums.sums[slot] != 0 || row == 0, sums.counts[slot] > 0), (true, true));
            }
            if random.below(5) == 0 {
                let mut gone: Vec<u32> = slots.iter().copied().filter(|slot| slot % 3 == 0).collect();
                gone.sort_unstable();
                gone.dedup();
                for key in hot.keys().keys(&gone)[0].as_primitive::<Int64Type>().values() {
                    model.remove(key).unwrap();
                }
                hot.remove(&mut sums, &gone).unwrap();
            }
            // Slots that are pinned keep their keys.
            let pinned: Vec<u32> =
                slots.iter().copied().filter(|&slot| hot.marks[slot] & (HELD | GONE) == HELD).take(20).collect();
            let before = hot.keys().keys(&pinned);
            if !hot.make_room(&mut sums, |_, slot| pinned.contains(&slot)).unwrap() && cut.is_some() {
                freeze(&mut hot, &sums, &mut cut);
                hot.make_room(&mut sums, |_, slot| pinned.contains(&slot)).unwrap();
            }
            assert!(pinned.iter().all(|&slot| hot.marks[slot] & HELD != 0));
            assert_eq!(&hot.keys().keys(&pinned)[0], &before[0]);
            most = most.max(hot.bytes(&sums));
            if cut.is_some() && random.below(3) == 0 && !hot.copy_some(&sums, 1 + random.below(200) as usize).unwrap() {
                freeze(&mut hot, &sums, &mut cut);
            }
            match random.below(8) {
                0 if cut.is_none() => {
                    hot.cut().unwrap();
                    cut = Some(model.clone());
                    compared += 1;
                }
                1 if cut.is_none() => {
                    hot.take_all(&mut sums).unwrap();
                    assert!(hot.keys().is_empty());
                    assert_eq!(scanned(&mut hot), model, "round {round}");
                }
                _ => {}
            }
        }
        if cut.is_some() {
            freeze(&mut hot, &sums, &mut cut);
        }
        assert!(compared > 3, "{compared} checkpoints");
        hot.take_all(&mut sums).unwrap();
        assert_eq!(scanned(&mut hot), model);
        if distinct >= 5_000 && (100_000..1 << 30).contains(&budget) {
            assert!(hot.limit.rows_max().is_some(), "there were more keys than room for them");
            assert!(most <= budget + budget / 4, "{most} bytes in slots, {budget} allowed");
        }
    }

    #[test]
    fn agrees_with_a_map_over_a_table_in_memory() {
        for seed in 0..30 {
            let table = Box::new(MemoryTable::new(schema()).unwrap());
            agrees_with_a_map(
                table,
                [100, 100_000, 1 << 30][seed as usize % 3],
                [10, 600, 5_000][seed as usize / 3 % 3],
                seed,
            );
        }
    }

    #[test]
    fn agrees_with_a_map_over_rocksdb() {
        let place = tempfile::tempdir().unwrap();
        for seed in 0..3 {
            let memory = RocksMemory::new(1 << 20);
            let table = RocksTable::create(schema(), &place.path().join(seed.to_string()), &memory).unwrap();
            agrees_with_a_map(Box::new(table), 100_000, 5_000, seed);
        }
    }

    #[test]
    fn rows_that_are_touched_often_stay() {
        let mut hot = HotTable::new(Box::new(MemoryTable::new(schema()).unwrap()), &[0], 40_000, false).unwrap();
        let mut sums = Sums::default();
        let often: Vec<i64> = (0..100).collect();
        for round in 0..200 {
            let keys = [often.clone(), (0..100).map(|n| 1_000 + round * 100 + n).collect()].concat();
            hot.touch(&mut sums, &column(&keys), keys.len(), &mut Vec::new()).unwrap();
            hot.make_room(&mut sums, |_, _| false).unwrap();
        }
        let mut slots = Vec::new();
        hot.keys.lookup(&column(&often), often.len(), &mut slots);
        let there = slots.iter().filter(|&&slot| slot != crate::NO_SLOT).count();
        assert!(there > 90, "{there} of 100 keys that every batch touches are in slots");
        assert!(hot.keys().len() < 2_000, "the others have left");
    }

    #[test]
    fn without_room_it_says_so() {
        let mut hot = HotTable::new(Box::new(MemoryTable::new(schema()).unwrap()), &[0], 100, false).unwrap();
        let mut sums = Sums::default();
        let add = |keys: std::ops::Range<i64>, hot: &mut HotTable, sums: &mut Sums| {
            let keys: Vec<i64> = keys.collect();
            hot.touch(sums, &column(&keys), keys.len(), &mut Vec::new()).unwrap();
        };
        add(0..100, &mut hot, &mut sums);
        hot.make_room(&mut sums, |_, _| true).unwrap();
        add(100..200, &mut hot, &mut sums);
        assert!(!hot.make_room(&mut sums, |_, _| true).unwrap());
        assert_eq!(hot.keys().len(), 200);
        assert!(hot.make_room(&mut sums, |_, _| false).unwrap());
        assert!(hot.keys().len() < 200);
    }

    /// Resident memory of this process, bytes.
    fn resident() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// Read-modify-writes per second with ten times more keys than fit, and what memory they take: printed, for people.
    /// `HOT_KEYS` (millions), `HOT_BUDGET` (MiB, half of it for slots), `HOT_ROUNDS` (times that each key is touched).
    #[test]
    #[ignore = "takes minutes: a measurement"]
    fn speed_and_memory() {
        let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
        let (distinct, budget) = (number("HOT_KEYS", 20) * 1_000_000, (number("HOT_BUDGET", 128) as usize) << 20);
        let touches = number("HOT_ROUNDS", 2) * distinct;
        let place = tempfile::tempdir().unwrap();
        let memory = RocksMemory::new(budget / 2);
        for (what, table, slots_budget) in [
            ("in memory", Box::new(MemoryTable::new(schema()).unwrap()) as Box<dyn Table>, usize::MAX),
            ("rocksdb", Box::new(RocksTable::create(schema(), place.path(), &memory).unwrap()), budget / 2),
        ] {
            let mut hot = HotTable::new(table, &[0], slots_budget, false).unwrap();
            let (mut sums, mut random, mut slots) = (Sums::default(), Random(1), Vec::new());
            let before = resident();
            let (mut most, mut batches) = (0, 0);
            let start = std::time::Instant::now();
            let mut done = 0;
            while done < touches {
                let keys: Vec<i64> = (0..16_384).map(|_| random.below(distinct) as i64).collect();
                slots.clear();
                hot.touch(&mut sums, &column(&keys), keys.len(), &mut slots).unwrap();
                slots.iter().for_each(|&slot| sums.counts[slot] += 1);
                hot.make_room(&mut sums, |_, _| false).unwrap();
                done += keys.len() as u64;
                batches += 1;
                if batches % 64 == 0 {
                    most = most.max(resident().saturating_sub(before));
                    if batches % 512 == 0 {
                        let rate = done as f64 / start.elapsed().as_secs_f64();
                        eprintln!(
                            "{what}: {done} rows, {rate:.0}/s, {} MiB more, {} MiB in RocksDB's cache",
                            most >> 20,
                            memory.used() >> 20
                        );
                    }
                }
            }
            let rate = done as f64 / start.elapsed().as_secs_f64();
            eprintln!(
                "{what}: {rate:.0} rows/s over {distinct} keys; at most {} MiB more resident; {} MiB in slots, {} MiB in the table",
                most >> 20,
                hot.bytes(&sums) >> 20,
                hot.table().bytes() >> 20,
            );
        }
    }
}
