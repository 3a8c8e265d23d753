//! MIN, MAX, FIRST_VALUE and LAST_VALUE where rows may be taken back: every value with its count, in order, per group.
//!
//! A count may be below zero in a partial state, whose rows were added in another one; a value counts while its count is above zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, ListArray, StructArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};

use super::AggregateError;
use super::ordered::Encoding;
use super::rows::Rows;
use super::slots::{Function, Picked};

pub(super) struct Multiset {
    encoding: Encoding,
    largest: bool,
    /// Bytes behind the maps, about.
    heap: usize,
}

/// Encoded values, with their counts.
type Values = BTreeMap<Box<[u8]>, i64>;

/// Of an entry, beside its key: pointer, length, count.
const ENTRY: usize = 24;

impl Multiset {
    pub fn new(encoding: Encoding, largest: bool) -> Self {
        Self { encoding, largest, heap: 0 }
    }

    fn count(&mut self, values: &mut Values, key: &[u8], by: i64) {
        let Some(count) = values.get_mut(key) else {
            values.insert(key.into(), by);
            self.heap += key.len() + ENTRY;
            return;
        };
        *count += by;
        if *count == 0 {
            values.remove(key);
            self.heap -= key.len() + ENTRY;
        }
    }

    fn best<'a>(&self, values: &'a Values) -> Option<&'a [u8]> {
        let mut present = values.iter().filter(|(_, count)| **count > 0);
        let entry = if self.largest { present.next_back() } else { present.next() };
        entry.map(|(key, _)| key.as_ref())
    }

    fn entry_fields(&self) -> Fields {
        let count = Field::new("count", DataType::Int64, false);
        self.encoding.fields(false).into_iter().chain([count]).collect()
    }
}

impl Function for Multiset {
    type Group = Values;

    fn change(&mut self, groups: &mut [Values], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        let keys = self.encoding.encode(&self.encoding.columns(rows));
        rows.each(|slot, row| self.count(&mut groups[slot], keys.row(row).data(), by));
        Ok(())
    }

    fn merge(&mut self, groups: &mut [Values], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let entries = state[0].as_list::<i32>().values().as_struct();
        let (counts, values) = entries.columns().split_last().expect("an entry has a count");
        let keys = self.encoding.encode(values);
        let counts = counts.as_primitive::<Int64Type>().values();
        each_entry(slots, &state[0], |slot, entry| {
            self.count(&mut groups[slot], keys.row(entry).data(), counts[entry]);
        });
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("values", DataType::List(entry_item(self.entry_fields())), false)]
    }

    fn state(&self, groups: Picked<Values>) -> Vec<ArrayRef> {
        let mut columns = self.encoding.decode(groups.iter().flat_map(BTreeMap::keys).map(Box::as_ref));
        columns.push(Arc::new(Int64Array::from_iter_values(groups.iter().flat_map(BTreeMap::values).copied())));
        vec![list_of(self.entry_fields(), columns, groups.iter().map(BTreeMap::len))]
    }

    fn value(&self, groups: Picked<Values>) -> Result<ArrayRef, AggregateError> {
        let best: Vec<Option<&[u8]>> = groups.iter().map(|values| self.best(values)).collect();
        Ok(self.encoding.decode_some(&best).pop().expect("the value is the last column"))
    }

    fn forget(&mut self, values: Values) {
        self.heap -= values.keys().map(|key| key.len() + ENTRY).sum::<usize>();
    }

    fn heap_bytes(&self) -> usize {
        self.heap
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

/// Calls `each(slot, entry)` for every entry of the lists, one list per slot; `entry` is its row in the values of the list column.
pub(super) fn each_entry(slots: &[u32], lists: &ArrayRef, mut each: impl FnMut(usize, usize)) {
    for (&slot, range) in slots.iter().zip(lists.as_list::<i32>().offsets().windows(2)) {
        (range[0] as usize..range[1] as usize).for_each(|entry| each(slot as usize, entry));
    }
}
