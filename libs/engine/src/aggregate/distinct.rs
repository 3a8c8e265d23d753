//! COUNT, SUM, AVG, ... (DISTINCT x): one table of (group, value) with counts, in front of the plain aggregate.
//!
//! The plain aggregate sees a value when its count rises above zero and loses it when the count falls to zero. In a partial state counts
//! may be below zero, because the rows taken back were added in another one; merging adds the counts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{filter as filter_array, take};
use arrow::datatypes::{DataType, Field, Fields, Int64Type, UInt32Type};
use state::KeyTable;

use super::multiset::{entry_item, list_of};
use super::rows::Rows;
use super::{Accumulator, AggregateError};

pub(super) struct Distinct {
    entries: KeyTable,
    /// By entry: the one of its group that came before it; [`NONE`] ends the list, [`FREE`] is no entry. So a group can be read or cleared
    /// alone.
    next: Vec<u32>,
    /// By entry, where values may be taken back; else empty, and every count is 1.
    uses: Vec<Use>,
    /// By slot: the group's entry that came last.
    heads: Vec<u32>,
    value: DataType,
    inner: Box<dyn Accumulator>,
    /// Whether values may be taken back.
    retracts: bool,
    /// Whether some entry below the table's end may be free.
    holes: bool,
}

/// How often a value is there, and where its entry is in the list of its group.
#[derive(Clone, Copy)]
struct Use {
    count: i64,
    slot: u32,
    /// The entry whose `next` this one is.
    later: u32,
}

const NONE: u32 = u32::MAX;
const FREE: u32 = u32::MAX - 1;
const UNUSED: Use = Use { count: 0, slot: NONE, later: NONE };

impl Distinct {
    /// `inner` must be able to take rows back. Fails with `refused` if values of the type cannot be told apart.
    pub fn new(
        value: &DataType,
        inner: Box<dyn Accumulator>,
        retracts: bool,
        refused: AggregateError,
    ) -> Result<Self, AggregateError> {
        let key =
            Fields::from(vec![Field::new("slot", DataType::UInt32, false), Field::new("value", value.clone(), true)]);
        let entries = KeyTable::new(&key).map_err(|_| refused)?;
        Ok(Self {
            entries,
            next: Vec::new(),
            uses: Vec::new(),
            heads: Vec::new(),
            value: value.clone(),
            inner,
            retracts,
            holes: false,
        })
    }

    /// Counts each of the values (none is NULL) `by(row)` times in the group of the row.
    fn count(
        &mut self,
        slots: &UInt32Array,
        values: &ArrayRef,
        by: impl Fn(usize) -> i64,
    ) -> Result<(), AggregateError> {
        let mut entries = Vec::with_capacity(slots.len());
        self.entries.intern(&[Arc::new(slots.clone()), values.clone()], slots.len(), &mut entries);
        let known = if self.holes { 0 } else { self.next.len() as u32 };
        self.next.resize(self.entries.slots_capacity().max(self.next.len()), FREE);
        if !self.retracts {
            // A value that is there already costs nothing but finding it.
            let mut came = Vec::new();
            for (row, (&entry, &slot)) in entries.iter().zip(slots.values()).enumerate() {
                if entry >= known && self.next[entry as usize] == FREE {
                    self.link(entry, slot);
                    came.push(row as u32);
                }
            }
            return self.forward(slots, values, came, true);
        }
        self.uses.resize(self.next.len(), UNUSED);
        let (mut came, mut went, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (&entry, &slot)) in entries.iter().zip(slots.values()).enumerate() {
            if self.next[entry as usize] == FREE {
                self.link(entry, slot);
            }
            let count = &mut self.uses[entry as usize].count;
            let before = *count;
            *count += by(row);
            match (before > 0, *count > 0) {
                (false, true) => came.push(row as u32),
                (true, false) => went.push(row as u32),
                _ => {}
            }
            if *count == 0 {
                empty.push(entry);
            }
        }
        self.forward(slots, values, came, true)?;
        self.forward(slots, values, went, false)?;
        // An entry may have come back since it was empty, or have been empty twice.
        empty.sort_unstable();
        empty.dedup();
        empty.retain(|&entry| self.uses[entry as usize].count == 0);
        empty.iter().for_each(|&entry| self.unlink(entry));
        self.holes |= !empty.is_empty();
        self.entries.remove(&empty);
        Ok(())
    }

    fn forward(
        &mut self,
        slots: &UInt32Array,
        values: &ArrayRef,
        rows: Vec<u32>,
        add: bool,
    ) -> Result<(), AggregateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(rows);
        let take = |column: &dyn Array| take(column, &rows, None).expect("the rows are in range");
        let (slots, values) = (take(slots), take(values));
        let slots = slots.as_primitive::<UInt32Type>().values();
        match add {
            true => self.inner.update(slots, Some(&values), None, None),
            false => self.inner.retract(slots, Some(&values), None, None),
        }
    }

    fn link(&mut self, entry: u32, slot: u32) {
        let head = std::mem::replace(&mut self.heads[slot as usize], entry);
        self.next[entry as usize] = head;
        if self.retracts {
            if head != NONE {
                self.uses[head as usize].later = entry;
            }
            self.uses[entry as usize] = Use { count: 0, slot, later: NONE };
        }
    }

    fn unlink(&mut self, entry: u32) {
        let Use { slot, later, .. } = std::mem::replace(&mut self.uses[entry as usize], UNUSED);
        let next = std::mem::replace(&mut self.next[entry as usize], FREE);
        if later == NONE {
            self.heads[slot as usize] = next;
        } else {
            self.next[later as usize] = next;
        }
        if next != NONE {
            self.uses[next as usize].later = later;
        }
    }

    fn entries_of(&self, slot: u32) -> impl Iterator<Item = u32> {
        let some = |entry: u32| (entry != NONE).then_some(entry);
        std::iter::successors(some(self.heads[slot as usize]), move |&entry| some(self.next[entry as usize]))
    }

    fn change(&mut self, rows: &Rows, by: i64) -> Result<(), AggregateError> {
        let (slots, arg) = (UInt32Array::from(rows.slots().to_vec()), rows.arg());
        let Some(mask) = rows.mask() else { return self.count(&slots, arg, |_| by) };
        let chosen = |column: &dyn Array| filter_array(column, &mask).expect("the mask has a bit per row");
        self.count(chosen(&slots).as_primitive::<UInt32Type>(), &chosen(arg), |_| by)
    }

    fn entry_fields(&self) -> Fields {
        vec![Field::new("value", self.value.clone(), false), Field::new("count", DataType::Int64, false)].into()
    }
}

impl Accumulator for Distinct {
    fn resize(&mut self, slots: usize) {
        self.heads.resize(slots.max(self.heads.len()), NONE);
        self.inner.resize(slots);
    }

    fn update(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.change(&Rows::new(slots, arg, filter, time), 1)
    }

    fn retract(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.change(&Rows::new(slots, arg, filter, time), -1)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let list = state[0].as_list::<i32>();
        let entries = list.values().as_struct();
        let counts = entries.column(1).as_primitive::<Int64Type>().values();
        let (first, last) = (list.offsets()[0] as usize, list.offsets()[list.len()] as usize);
        let repeated = slots.iter().zip(list.offsets().windows(2));
        let repeated = repeated.flat_map(|(&slot, range)| std::iter::repeat_n(slot, (range[1] - range[0]) as usize));
        let values = entries.column(0).slice(first, last - first);
        self.count(&UInt32Array::from_iter_values(repeated), &values, |row| counts[first + row])
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("values", DataType::List(entry_item(self.entry_fields())), false)]
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let (mut entries, mut lengths) = (Vec::new(), Vec::with_capacity(slots.len()));
        for &slot in slots {
            let before = entries.len();
            entries.extend(self.entries_of(slot));
            lengths.push(entries.len() - before);
        }
        let values = self.entries.keys(&entries).pop().expect("the value is the last column of the key");
        let counts = entries.iter().map(|&entry| self.uses.get(entry as usize).map_or(1, |uses| uses.count));
        vec![list_of(
            self.entry_fields(),
            vec![values, Arc::new(Int64Array::from_iter_values(counts))],
            lengths.into_iter(),
        )]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        self.inner.value(slots)
    }

    fn clear(&mut self, slots: &[u32]) {
        let mut gone = Vec::new();
        for &slot in slots {
            gone.extend(self.entries_of(slot));
            self.heads[slot as usize] = NONE;
        }
        if gone.len() == self.entries.len() {
            self.entries.clear();
            self.next.clear();
            self.uses.clear();
            self.holes = false;
        } else {
            gone.iter().for_each(|&entry| self.next[entry as usize] = FREE);
            self.entries.remove(&gone);
            self.holes |= !gone.is_empty();
        }
        self.inner.clear(slots);
    }

    fn bytes(&self) -> usize {
        let lists =
            (self.next.capacity() + self.heads.capacity()) * size_of::<u32>() + self.uses.capacity() * size_of::<Use>();
        lists + self.entries.bytes() + self.inner.bytes()
    }
}
