//! Keys of fixed width: up to four 64-bit words (a decimal takes two), compared as words.
//!
//! NULLs are bits in a mask beside the words, which exists once the first NULL was seen: keys without NULLs never pay for it.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Decimal128Type};
use foldhash::fast::RandomState;

use super::index::{Index, Keys};
use super::{KeyStore, NO_SLOT, Slots};
use crate::words::{each_word, from_words};

pub(super) struct Packed<const N: usize> {
    types: Vec<DataType>,
    index: Index,
    hasher: RandomState,
    /// By slot.
    words: Vec<[u64; N]>,
    /// By slot, bit c = column c is NULL (its words are 0 then). Shorter than `words`: the rest has no NULLs.
    masks: Vec<u8>,
    batch: Batch<N>,
}

/// The keys of the batch at hand; kept for its memory.
#[derive(Default)]
struct Batch<const N: usize> {
    words: Vec<[u64; N]>,
    /// Empty: no NULLs.
    masks: Vec<u8>,
    hashes: Vec<u32>,
}

impl<const N: usize> Packed<N> {
    pub fn new(types: &[DataType]) -> Self {
        Self {
            types: types.to_vec(),
            index: Index::default(),
            hasher: RandomState::default(),
            words: Vec::new(),
            masks: Vec::new(),
            batch: Batch::default(),
        }
    }

    fn load(&mut self, columns: &[ArrayRef]) {
        let batch = &mut self.batch;
        batch.words.clear();
        batch.words.resize(columns[0].len(), [0; N]);
        batch.masks.clear();
        let mut at = 0;
        for (number, column) in columns.iter().enumerate() {
            let width = if let DataType::Decimal128(_, _) = column.data_type() {
                for (key, value) in batch.words.iter_mut().zip(column.as_primitive::<Decimal128Type>().values()) {
                    key[at] = *value as u64;
                    key[at + 1] = (*value >> 64) as u64;
                }
                2
            } else {
                let words = batch.words.as_mut_slice();
                each_word(column, |row, word| words[row][at] = word);
                1
            };
            if let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
                batch.masks.resize(batch.words.len(), 0);
                for row in (0..nulls.len()).filter(|&row| nulls.is_null(row)) {
                    batch.words[row][at..at + width].fill(0);
                    batch.masks[row] |= 1 << number;
                }
            }
            at += width;
        }
        batch.hashes.clear();
        if batch.masks.is_empty() {
            batch.hashes.extend(batch.words.iter().map(|key| hash(&self.hasher, key, 0)));
        } else {
            batch.hashes.extend(batch.words.iter().zip(&batch.masks).map(|(key, &mask)| hash(&self.hasher, key, mask)));
        }
    }

    fn mask(&self, slot: u32) -> u8 {
        self.masks.get(slot as usize).copied().unwrap_or(0)
    }
}

#[inline(always)]
fn hash<const N: usize>(state: &RandomState, key: &[u64; N], mask: u8) -> u32 {
    let mut hasher = state.build_hasher();
    key.iter().for_each(|&word| hasher.write_u64(word));
    (hasher.finish() >> 32) as u32 ^ u32::from(mask).wrapping_mul(0x9E37_79B1)
}

impl<const N: usize> KeyStore for Packed<N> {
    fn intern(&mut self, columns: &[ArrayRef], slots: &mut Slots, out: &mut Vec<u32>) {
        self.load(columns);
        let Self { index, words, masks, batch, .. } = self;
        if masks.is_empty() && batch.masks.is_empty() {
            index.probe(&batch.hashes, &mut NoNulls { words, batch: &batch.words, slots }, out);
        } else {
            batch.masks.resize(batch.words.len(), 0);
            index.probe(&batch.hashes, &mut WithNulls { words, masks, batch, slots: Some(slots) }, out);
        }
    }

    fn lookup(&mut self, columns: &[ArrayRef], out: &mut Vec<u32>) {
        self.load(columns);
        let Self { index, words, masks, batch, .. } = self;
        batch.masks.resize(batch.words.len(), 0);
        index.probe(&batch.hashes, &mut WithNulls { words, masks, batch, slots: None }, out);
    }

    fn keys(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let mut at = 0;
        let column = |(number, data_type): (usize, &DataType)| -> ArrayRef {
            let nulls = (!self.masks.is_empty())
                .then(|| NullBuffer::from_iter(slots.iter().map(|&slot| self.mask(slot) & (1 << number) == 0)))
                .filter(|nulls| nulls.null_count() > 0);
            let word = |at: usize| slots.iter().map(move |&slot| self.words[slot as usize][at]);
            if let DataType::Decimal128(_, _) = data_type {
                let values =
                    word(at).zip(word(at + 1)).map(|(low, high)| i128::from(high as i64) << 64 | i128::from(low));
                at += 2;
                Arc::new(Decimal128Array::new(values.collect(), nulls).with_data_type(data_type.clone()))
            } else {
                at += 1;
                from_words(data_type, word(at - 1), nulls)
            }
        };
        self.types.iter().enumerate().map(column).collect()
    }

    fn reserve(&mut self, keys: usize) {
        self.index.reserve(keys);
        self.words.reserve(keys);
    }

    fn remove(&mut self, slots: &[u32]) {
        for &slot in slots {
            let hash = hash(&self.hasher, &self.words[slot as usize], self.mask(slot));
            self.index.remove(hash, slot);
        }
    }

    fn clear(&mut self) {
        self.index.clear();
        self.words.clear();
        self.masks.clear();
    }

    fn bytes(&self) -> usize {
        self.index.bytes()
            + (self.words.capacity() + self.batch.words.capacity()) * size_of::<[u64; N]>()
            + self.masks.capacity()
            + self.batch.masks.capacity()
            + self.batch.hashes.capacity() * size_of::<u32>()
    }
}

struct NoNulls<'a, const N: usize> {
    words: &'a mut Vec<[u64; N]>,
    batch: &'a [[u64; N]],
    slots: &'a mut Slots,
}

impl<const N: usize> Keys for NoNulls<'_, N> {
    #[inline(always)]
    fn same(&self, slot: u32, row: usize) -> bool {
        self.words[slot as usize] == self.batch[row]
    }

    fn insert(&mut self, row: usize) -> u32 {
        let slot = self.slots.give();
        put(self.words, slot, self.batch[row], [0; N]);
        slot
    }
}

struct WithNulls<'a, const N: usize> {
    words: &'a mut Vec<[u64; N]>,
    masks: &'a mut Vec<u8>,
    batch: &'a Batch<N>,
    /// None: look up only.
    slots: Option<&'a mut Slots>,
}

impl<const N: usize> Keys for WithNulls<'_, N> {
    #[inline(always)]
    fn same(&self, slot: u32, row: usize) -> bool {
        self.words[slot as usize] == self.batch.words[row]
            && self.masks.get(slot as usize).copied().unwrap_or(0) == self.batch.masks[row]
    }

    fn insert(&mut self, row: usize) -> u32 {
        let Some(slots) = &mut self.slots else { return NO_SLOT };
        let slot = slots.give();
        put(self.words, slot, self.batch.words[row], [0; N]);
        // Also for a key without NULLs: a removed key may have left its mask in this slot.
        if self.batch.masks[row] != 0 || (slot as usize) < self.masks.len() {
            put(self.masks, slot, self.batch.masks[row], 0);
        }
        slot
    }
}

/// Writes the value of a slot, which may be the first beyond the end.
pub(super) fn put<T: Clone>(values: &mut Vec<T>, slot: u32, value: T, filler: T) {
    let slot = slot as usize;
    if slot >= values.len() {
        values.resize(slot, filler);
        values.push(value);
    } else {
        values[slot] = value;
    }
}
