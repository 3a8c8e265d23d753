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
    /// By entry.
    nodes: Vec<Node>,
    /// By slot: the group's entry that came last.
    heads: Vec<u32>,
    value: DataType,
    inner: Box<dyn Accumulator>,
    /// Whether values may be taken back; else their counts do not matter and stay at 1.
    retracts: bool,
    /// Whether some entry below the table's end may be free.
    holes: bool,
}

/// An entry of the table, in the list of its group's entries, so that a group can be read or cleared alone.
#[derive(Clone, Copy)]
struct Node {
    count: i64,
    /// [`NONE`]: the entry is free.
    slot: u32,
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;
const FREE: Node = Node { count: 0, slot: NONE, previous: NONE, next: NONE };

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
        Ok(Self { entries, nodes: Vec::new(), heads: Vec::new(), value: value.clone(), inner, retracts, holes: false })
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
        let known = if self.holes { 0 } else { self.nodes.len() as u32 };
        self.nodes.resize(self.entries.slots_capacity().max(self.nodes.len()), FREE);
        if !self.retracts {
            // A value that is there already costs nothing but finding it.
            let mut came = Vec::new();
            for (row, (&entry, &slot)) in entries.iter().zip(slots.values()).enumerate() {
                if entry >= known && self.nodes[entry as usize].slot == NONE {
                    self.link(entry, slot);
                    self.nodes[entry as usize].count = 1;
                    came.push(row as u32);
                }
            }
            return self.forward(slots, values, came, true);
        }
        let (mut came, mut went, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (&entry, &slot)) in entries.iter().zip(slots.values()).enumerate() {
            if self.nodes[entry as usize].slot == NONE {
                self.link(entry, slot);
            }
            let count = &mut self.nodes[entry as usize].count;
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
        empty.retain(|&entry| self.nodes[entry as usize].count == 0);
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
        if head != NONE {
            self.nodes[head as usize].previous = entry;
        }
        self.nodes[entry as usize] = Node { count: 0, slot, previous: NONE, next: head };
    }

    fn unlink(&mut self, entry: u32) {
        let Node { slot, previous, next, .. } = std::mem::replace(&mut self.nodes[entry as usize], FREE);
        if previous == NONE {
            self.heads[slot as usize] = next;
        } else {
            self.nodes[previous as usize].next = next;
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
    }

    fn entries_of(&self, slot: u32) -> impl Iterator<Item = u32> {
        let some = |entry: u32| (entry != NONE).then_some(entry);
        std::iter::successors(some(self.heads[slot as usize]), move |&entry| some(self.nodes[entry as usize].next))
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
        let counts = entries.iter().map(|&entry| self.nodes[entry as usize].count);
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
        for &slot in slots {
            let entries: Vec<u32> = self.entries_of(slot).collect();
            entries.iter().for_each(|&entry| self.nodes[entry as usize] = FREE);
            self.entries.remove(&entries);
            self.holes |= !entries.is_empty();
            self.heads[slot as usize] = NONE;
        }
        if self.entries.is_empty() {
            self.entries.clear();
            self.nodes.clear();
            self.holes = false;
        }
        self.inner.clear(slots);
    }

    fn bytes(&self) -> usize {
        let lists = self.nodes.capacity() * size_of::<Node>() + self.heads.capacity() * size_of::<u32>();
        lists + self.entries.bytes() + self.inner.bytes()
    }
}
