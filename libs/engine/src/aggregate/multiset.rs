//! MIN, MAX, FIRST_VALUE and LAST_VALUE where rows may be taken back: every value with its count, in order, per group.
//!
//! A count may be below zero in a partial state, whose rows were added in another one; a value counts while its count is above zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};

use super::ordered::Encoding;
use super::rows::{Rows, argument};
use super::{Accumulator, AggregateError};

pub(super) struct Multiset {
    encoding: Encoding,
    largest: bool,
    groups: Vec<BTreeMap<Box<[u8]>, i64>>,
    /// Bytes behind the maps, about.
    heap: usize,
}

/// Of an entry, beside its key: pointer, length, count.
const ENTRY: usize = 24;

impl Multiset {
    pub fn new(encoding: Encoding, largest: bool) -> Self {
        Self { encoding, largest, groups: Vec::new(), heap: 0 }
    }

    fn count(&mut self, slot: usize, key: &[u8], by: i64) {
        let group = &mut self.groups[slot];
        let Some(count) = group.get_mut(key) else {
            group.insert(key.into(), by);
            self.heap += key.len() + ENTRY;
            return;
        };
        *count += by;
        if *count == 0 {
            group.remove(key);
            self.heap -= key.len() + ENTRY;
        }
    }

    fn add(&mut self, slots: &[u32], arg: &ArrayRef, filter: Option<&BooleanArray>, time: Option<&[i64]>, by: i64) {
        let keys = self.encoding.encode(&self.encoding.columns(arg, time));
        Rows::new(slots, Some(arg), filter).each(|slot, row| self.count(slot, keys.row(row).data(), by));
    }

    fn best(&self, slot: u32) -> Option<&[u8]> {
        let mut present = self.groups[slot as usize].iter().filter(|(_, count)| **count > 0);
        let entry = if self.largest { present.next_back() } else { present.next() };
        entry.map(|(key, _)| key.as_ref())
    }

    fn entry_fields(&self) -> Fields {
        let count = Field::new("count", DataType::Int64, false);
        self.encoding.fields(false).into_iter().chain([count]).collect()
    }
}

impl Accumulator for Multiset {
    fn resize(&mut self, slots: usize) {
        self.groups.resize_with(slots.max(self.groups.len()), BTreeMap::new);
    }

    fn update(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.add(slots, argument(arg), filter, time, 1);
        Ok(())
    }

    fn retract(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.add(slots, argument(arg), filter, time, -1);
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let list = state[0].as_list::<i32>();
        let (counts, values) = list.values().as_struct().columns().split_last().expect("an entry has a count");
        let keys = self.encoding.encode(values);
        let counts = counts.as_primitive::<Int64Type>().values();
        for (&slot, range) in slots.iter().zip(list.offsets().windows(2)) {
            for entry in range[0] as usize..range[1] as usize {
                self.count(slot as usize, keys.row(entry).data(), counts[entry]);
            }
        }
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("values", DataType::List(entry_item(self.entry_fields())), false)]
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let groups = || slots.iter().map(|&slot| &self.groups[slot as usize]);
        let mut columns = self.encoding.decode(groups().flat_map(BTreeMap::keys).map(Box::as_ref));
        columns.push(Arc::new(Int64Array::from_iter_values(groups().flat_map(BTreeMap::values).copied())));
        vec![list_of(self.entry_fields(), columns, groups().map(BTreeMap::len))]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        let best: Vec<Option<&[u8]>> = slots.iter().map(|&slot| self.best(slot)).collect();
        Ok(self.encoding.decode_some(&best).pop().expect("the value is the last column"))
    }

    fn clear(&mut self, slots: &[u32]) {
        for &slot in slots {
            let group = std::mem::take(&mut self.groups[slot as usize]);
            self.heap -= group.keys().map(|key| key.len() + ENTRY).sum::<usize>();
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<BTreeMap<Box<[u8]>, i64>>() + self.heap
    }
}

/// The element of a list of counted values.
pub(super) fn entry_item(fields: Fields) -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Struct(fields), false))
}

/// A list per group of the entries in `columns`, `lengths` of them each.
pub(super) fn list_of(fields: Fields, columns: Vec<ArrayRef>, lengths: impl Iterator<Item = usize>) -> ArrayRef {
    let entries = StructArray::new(fields.clone(), columns, None);
    Arc::new(ListArray::new(entry_item(fields), OffsetBuffer::from_lengths(lengths), Arc::new(entries), None))
}
