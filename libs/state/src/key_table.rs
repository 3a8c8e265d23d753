//! Interns keys: every distinct key gets a small dense number, its *slot*.
//!
//! NULL is a key of its own, -0.0 is 0.0 and all NaN are one key. Slots do not depend on hashes: they are given in the order of
//! first arrival, and slots of removed keys are given again, last removed first. So the same rows give the same slots in every run.
//!
//! One store per shape of key, chosen once from the schema: [`packed`] for up to four words of fixed width (numbers, times, decimals),
//! [`bytes`] for one string, and for everything else. All share one hash index, [`index`].

mod bytes;
mod index;
mod packed;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Fields};

use crate::words::is_word;
use crate::{KeyTypeError, check_key_type, logical, logical_type};

/// Stands for "this key has no slot" in the result of [`KeyTable::lookup`].
pub const NO_SLOT: u32 = u32::MAX;

/// A table of distinct keys. See the module's documentation.
pub struct KeyTable {
    types: Vec<DataType>,
    slots: Slots,
    store: Box<dyn KeyStore>,
}

/// How keys of one shape are held, by slot, and found.
trait KeyStore: Send {
    fn intern(&mut self, columns: &[ArrayRef], slots: &mut Slots, out: &mut Vec<u32>);
    fn lookup(&mut self, columns: &[ArrayRef], out: &mut Vec<u32>);
    fn keys(&self, slots: &[u32]) -> Vec<ArrayRef>;
    fn reserve(&mut self, keys: usize);
    fn remove(&mut self, slots: &[u32]);
    fn clear(&mut self);
    fn bytes(&self) -> usize;
}

impl KeyTable {
    /// A table for keys of these columns; no columns is the one key of a global aggregate.
    pub fn new(key: &Fields) -> Result<Self, KeyTypeError> {
        key.iter().try_for_each(|field| check_key_type(field.data_type()))?;
        let types: Vec<DataType> = key.iter().map(|field| logical_type(field.data_type())).collect();
        Ok(Self { slots: Slots::default(), store: store_for(&types), types })
    }

    /// Appends the slot of each row's key to `slots`, giving new slots to new keys.
    /// `columns` are the key columns, of any encoding of the declared types; `rows` matters when there are none.
    pub fn intern(&mut self, columns: &[ArrayRef], rows: usize, slots: &mut Vec<u32>) {
        let columns = self.typed(columns, rows);
        if columns.is_empty() {
            if self.slots.len() == 0 && rows > 0 {
                self.slots.give();
            }
            return slots.resize(slots.len() + rows, 0);
        }
        self.store.intern(&columns, &mut self.slots, slots);
    }

    /// Makes room for so many more keys, so that the table need not grow again and again while they come.
    pub fn reserve(&mut self, keys: usize) {
        self.store.reserve(keys);
    }

    /// As [`KeyTable::intern`], but keys that are not in the table give [`NO_SLOT`] and stay out.
    pub fn lookup(&mut self, columns: &[ArrayRef], rows: usize, slots: &mut Vec<u32>) {
        let columns = self.typed(columns, rows);
        if columns.is_empty() {
            let slot = if self.slots.len() == 0 { NO_SLOT } else { 0 };
            return slots.resize(slots.len() + rows, slot);
        }
        self.store.lookup(&columns, slots);
    }

    /// The keys of these slots as columns of the declared types. The slots hold keys (were not removed).
    pub fn keys(&self, slots: &[u32]) -> Vec<ArrayRef> {
        if self.types.is_empty() { Vec::new() } else { self.store.keys(slots) }
    }

    /// All keys, in the order of [`KeyTable::live_slots`].
    pub fn keys_all(&self) -> Vec<ArrayRef> {
        self.keys(&self.live_slots())
    }

    /// The slots that hold a key, ascending.
    pub fn live_slots(&self) -> Vec<u32> {
        self.slots.live()
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All slots ever given are below this: the size that vectors by slot need.
    pub fn slots_capacity(&self) -> usize {
        self.slots.next as usize
    }

    /// Removes the keys of these slots, each named once; the slots will be given to other keys. Whoever keeps values per slot resets
    /// them before the next [`KeyTable::intern`].
    pub fn remove(&mut self, slots: &[u32]) {
        if !self.types.is_empty() {
            self.store.remove(slots);
        }
        self.slots.free.extend_from_slice(slots);
        assert!(self.slots.free.len() <= self.slots.next as usize, "a slot was removed twice");
    }

    /// Removes all keys and starts again with slot 0; keeps the memory for the next ones.
    pub fn clear(&mut self) {
        self.slots = Slots::default();
        self.store.clear();
    }

    /// Heap memory in bytes.
    pub fn bytes(&self) -> usize {
        self.store.bytes() + self.slots.free.capacity() * size_of::<u32>()
    }

    fn typed(&self, columns: &[ArrayRef], rows: usize) -> Vec<ArrayRef> {
        assert_eq!(columns.len(), self.types.len(), "a batch has exactly the declared key columns");
        let columns: Vec<ArrayRef> = columns.iter().map(logical).collect();
        for (column, declared) in columns.iter().zip(&self.types) {
            assert_eq!(column.data_type(), declared, "a key column has its declared type");
            assert_eq!(column.len(), rows, "every key column has a value for every row");
        }
        columns
    }
}

fn store_for(types: &[DataType]) -> Box<dyn KeyStore> {
    let words: Option<usize> = types
        .iter()
        .map(|data_type| match data_type {
            DataType::Decimal128(_, _) => Some(2),
            word if is_word(word) => Some(1),
            _ => None,
        })
        .sum();
    match (types, words) {
        (_, Some(0 | 1)) => Box::new(packed::Packed::<1>::new(types)),
        (_, Some(2)) => Box::new(packed::Packed::<2>::new(types)),
        (_, Some(3)) => Box::new(packed::Packed::<3>::new(types)),
        (_, Some(4)) => Box::new(packed::Packed::<4>::new(types)),
        ([DataType::Utf8 | DataType::Binary], _) => Box::new(bytes::Bytes::<bytes::OneColumn>::new(types)),
        _ => Box::new(bytes::Bytes::<bytes::Rows>::new(types)),
    }
}

/// Which slots are given out.
#[derive(Default)]
struct Slots {
    next: u32,
    free: Vec<u32>,
}

impl Slots {
    fn give(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let slot = self.next;
            assert!(slot < NO_SLOT, "an instance holds fewer than 2^32 keys");
            self.next += 1;
            slot
        })
    }

    fn len(&self) -> usize {
        self.next as usize - self.free.len()
    }

    fn live(&self) -> Vec<u32> {
        let mut live = vec![true; self.next as usize];
        self.free.iter().for_each(|&slot| live[slot as usize] = false);
        (0..self.next).filter(|&slot| live[slot as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{Array, Float64Array, Int64Array, StringArray};
    use arrow::compute::{concat, interleave};
    use arrow::datatypes::Field;

    use super::*;
    use crate::test_data::{Random, column, key_types};

    fn fields(types: &[DataType]) -> Fields {
        types.iter().enumerate().map(|(i, t)| Field::new(format!("k{i}"), t.clone(), true)).collect()
    }

    fn table(types: &[DataType]) -> KeyTable {
        KeyTable::new(&fields(types)).unwrap()
    }

    fn intern(table: &mut KeyTable, columns: &[ArrayRef]) -> Vec<u32> {
        let mut slots = Vec::new();
        table.intern(columns, columns[0].len(), &mut slots);
        slots
    }

    fn lookup(table: &mut KeyTable, columns: &[ArrayRef]) -> Vec<u32> {
        let mut slots = Vec::new();
        table.lookup(columns, columns[0].len(), &mut slots);
        slots
    }

    /// Against a map from key hash (64 bits, so without collisions here) to slot: batches, look-ups, removals, reuse, take-back.
    fn agrees_with_a_map(types: &[DataType], distinct: u64, seed: u64) {
        let mut random = Random(seed);
        let mut table = table(types);
        let mut model: HashMap<u64, u32> = HashMap::new();
        let (mut next, mut free) = (0, Vec::new());
        for round in 0..30 {
            let nulls = round % 3 == 2;
            let rows = random.below(400) as usize;
            let columns: Vec<ArrayRef> =
                types.iter().map(|t| column(t, rows + 5, distinct, nulls, &mut random).slice(5, rows)).collect();
            let hashes = crate::key_hashes(&columns, rows);

            let found = lookup(&mut table, &columns);
            let expected: Vec<u32> = hashes.iter().map(|hash| model.get(hash).copied().unwrap_or(NO_SLOT)).collect();
            assert_eq!(found, expected, "lookup of {types:?}");

            let slots = intern(&mut table, &columns);
            let mut give = || {
                free.pop().unwrap_or_else(|| {
                    next += 1;
                    next - 1
                })
            };
            let expected: Vec<u32> = hashes.iter().map(|hash| *model.entry(*hash).or_insert_with(&mut give)).collect();
            assert_eq!(slots, expected, "intern of {types:?}");
            assert_eq!(table.len(), model.len());

            let back = table.keys(&slots);
            assert_eq!(crate::key_hashes(&back, rows), hashes, "keys of {types:?}");
            assert!(back.iter().zip(types).all(|(column, t)| column.data_type() == t));

            if round % 4 == 3 {
                let mut gone: Vec<u32> = slots.iter().copied().filter(|slot| slot % 3 == 1).collect();
                gone.sort_unstable();
                gone.dedup();
                table.remove(&gone);
                model.retain(|_, slot| !gone.contains(slot));
                free.extend_from_slice(&gone);
            }
        }
        let mut live: Vec<u32> = model.values().copied().collect();
        live.sort_unstable();
        assert_eq!(table.live_slots(), live);
        let all = crate::key_hashes(&table.keys_all(), live.len());
        assert!(all.iter().zip(&live).all(|(hash, slot)| model[hash] == *slot));
        assert!(table.slots_capacity() >= table.len() && table.bytes() > 0);
        table.clear();
        assert!(table.is_empty() && table.live_slots().is_empty());
        let again = column(&types[0], 1, distinct, false, &mut random);
        let columns: Vec<ArrayRef> = types
            .iter()
            .map(|t| if *t == types[0] { again.clone() } else { column(t, 1, 3, false, &mut random) })
            .collect();
        assert_eq!(intern(&mut table, &columns), [0]);
    }

    #[test]
    fn every_single_key_type_agrees_with_a_map() {
        for (seed, data_type) in key_types().into_iter().enumerate() {
            agrees_with_a_map(std::slice::from_ref(&data_type), 20, seed as u64);
            agrees_with_a_map(&[data_type], 2_000, seed as u64);
        }
    }

    #[test]
    fn composite_keys_agree_with_a_map() {
        let types = key_types();
        let mut random = Random(9);
        for seed in 0..60 {
            let width = 2 + random.below(4) as usize;
            let key: Vec<DataType> =
                (0..width).map(|_| types[random.below(types.len() as u64) as usize].clone()).collect();
            agrees_with_a_map(&key, 6, seed);
        }
    }

    #[test]
    fn zeros_are_equal_nans_are_equal_and_null_is_a_key() {
        let doubles: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), None, None]));
        let mut single = table(&[DataType::Float64]);
        assert_eq!(intern(&mut single, std::slice::from_ref(&doubles)), [0, 0, 1, 1, 2, 2]);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"); 6]));
        let mut composite = table(&[DataType::Float64, DataType::Utf8]);
        assert_eq!(intern(&mut composite, &[doubles, texts]), [0, 0, 1, 1, 2, 2]);
        let mut one_text = table(&[DataType::Utf8]);
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), None, Some(""), None]));
        assert_eq!(intern(&mut one_text, &[texts]), [0, 1, 0, 1], "an empty text is not NULL");
    }

    #[test]
    fn no_key_columns_are_one_key() {
        let mut table = table(&[]);
        let mut slots = Vec::new();
        table.lookup(&[], 1, &mut slots);
        table.intern(&[], 2, &mut slots);
        table.lookup(&[], 1, &mut slots);
        assert_eq!(slots, [NO_SLOT, 0, 0, 0]);
        assert_eq!((table.len(), table.keys_all().len()), (1, 0));
        table.remove(&[0]);
        assert!(table.is_empty());
    }

    #[test]
    fn a_dictionary_column_is_interned_by_its_values() {
        let mut table = table(&[DataType::Utf8]);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        let encoded = arrow::compute::cast(&text, &dictionary).unwrap();
        assert_eq!(intern(&mut table, &[encoded]), [0, 1, 0]);
        assert_eq!(&table.keys(&[1, 0])[0], &(Arc::new(StringArray::from(vec!["b", "a"])) as ArrayRef));
    }

    /// Many removals and insertions: the arena of texts must not grow for ever, and the index must not lose keys.
    #[test]
    fn memory_stays_bounded_under_churn() {
        let mut table = table(&[DataType::Utf8]);
        let mut largest = 0;
        for round in 0..200 {
            let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
                (0..100).map(|i| format!("a text of some length {}", round * 100 + i)),
            ));
            let slots = intern(&mut table, std::slice::from_ref(&texts));
            assert_eq!(lookup(&mut table, &[texts]), slots);
            table.remove(&slots);
            if round == 10 {
                largest = table.bytes();
            }
        }
        assert!(table.is_empty() && table.slots_capacity() == 100);
        assert!(table.bytes() <= largest, "{} bytes after churn, {largest} before", table.bytes());
    }

    #[test]
    fn order_of_arrival_gives_the_slots() {
        let a: ArrayRef = Arc::new(Int64Array::from_iter_values((0..5000).map(|i| i * 7 % 1000)));
        let mut whole = table(&[DataType::Int64]);
        let slots = intern(&mut whole, std::slice::from_ref(&a));
        let mut cut = table(&[DataType::Int64]);
        let pieces: Vec<u32> =
            (0..5000).step_by(13).flat_map(|at| intern(&mut cut, &[a.slice(at, 13.min(5000 - at))])).collect();
        assert_eq!(slots, pieces);
        let reversed = interleave(&[a.as_ref()], &(0..5000).rev().map(|row| (0, row)).collect::<Vec<_>>()).unwrap();
        let both = concat(&[&a, &reversed]).unwrap();
        assert_eq!(intern(&mut whole, &[both]).len(), 10_000);
        assert_eq!(whole.len(), 1000);
    }

    #[test]
    #[should_panic(expected = "removed twice")]
    fn removing_more_slots_than_there_are_is_noticed() {
        let mut table = table(&[]);
        table.intern(&[], 1, &mut Vec::new());
        table.remove(&[0, 0]);
    }
}
