//! Keys of variable width: one string (or bytes) column as it is, any other combination in Arrow's row format, in one arena.

use std::hash::BuildHasher;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use foldhash::fast::RandomState;

use super::index::{Index, Keys};
use super::packed::put;
use super::{KeyStore, NO_SLOT, Slots};
use crate::canonical_floats;

/// How a batch of keys becomes one byte string per row, and back.
pub(super) trait Encoding: Send + Sized {
    type Batch<'a>: Encoded
    where
        Self: 'a;
    fn new(types: &[DataType]) -> Self;
    fn encode<'a>(&'a mut self, columns: &'a [ArrayRef]) -> Self::Batch<'a>;
    /// Columns from byte strings; None is the NULL that [`Encoded::key`] gave.
    fn decode<'a>(&self, keys: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> Vec<ArrayRef>;
}

pub(super) trait Encoded {
    fn rows(&self) -> usize;
    /// The bytes of a row's key; None where the whole key is NULL and the encoding cannot say so in bytes.
    fn key(&self, row: usize) -> Option<&[u8]>;
}

pub(super) struct Bytes<E> {
    store: Store,
    encoding: E,
    hashes: Vec<u32>,
}

struct Store {
    index: Index,
    hasher: RandomState,
    arena: Vec<u8>,
    /// By slot: where in the arena.
    spans: Vec<Span>,
    /// Bytes of the arena that belong to removed keys.
    garbage: usize,
}

#[derive(Clone, Copy, PartialEq)]
struct Span {
    start: usize,
    /// [`NULL`] for the key NULL.
    len: u32,
}

const NULL: u32 = u32::MAX;
const NOTHING: Span = Span { start: 0, len: 0 };

impl Store {
    #[inline(always)]
    fn key(&self, slot: u32) -> Option<&[u8]> {
        let span = self.spans[slot as usize];
        (span.len != NULL).then(|| &self.arena[span.start..span.start + span.len as usize])
    }

    fn hash(&self, key: Option<&[u8]>) -> u32 {
        (self.hasher.hash_one(key.unwrap_or(&[])) >> 32) as u32
    }

    fn insert(&mut self, slot: u32, key: Option<&[u8]>) {
        let len = key.map_or(NULL, |key| u32::try_from(key.len()).expect("a key is shorter than 4 GiB"));
        put(&mut self.spans, slot, Span { start: self.arena.len(), len }, NOTHING);
        self.arena.extend_from_slice(key.unwrap_or(&[]));
    }

    /// Copies the live keys together once most of the arena is garbage: amortised constant work per removed key.
    fn compact(&mut self) {
        if self.garbage * 2 <= self.arena.len() {
            return;
        }
        let mut arena = Vec::with_capacity(self.arena.len() - self.garbage);
        for span in self.spans.iter_mut().filter(|span| span.len != NULL) {
            let start = arena.len();
            arena.extend_from_slice(&self.arena[span.start..span.start + span.len as usize]);
            span.start = start;
        }
        self.arena = arena;
        self.garbage = 0;
    }
}

impl<E: Encoding> Bytes<E> {
    pub fn new(types: &[DataType]) -> Self {
        let store = Store {
            index: Index::default(),
            hasher: RandomState::default(),
            arena: Vec::new(),
            spans: Vec::new(),
            garbage: 0,
        };
        Self { store, encoding: E::new(types), hashes: Vec::new() }
    }

    fn probe(&mut self, columns: &[ArrayRef], slots: Option<&mut Slots>, out: &mut Vec<u32>) {
        let batch = self.encoding.encode(columns);
        self.hashes.clear();
        self.hashes.extend((0..batch.rows()).map(|row| self.store.hash(batch.key(row))));
        // The index leaves the store for the call, because it reads and writes the keys while it is probed.
        let mut index = std::mem::take(&mut self.store.index);
        index.probe(&self.hashes, &mut Probe { store: &mut self.store, batch: &batch, slots }, out);
        self.store.index = index;
    }
}

struct Probe<'a, B> {
    store: &'a mut Store,
    batch: &'a B,
    /// None: look up only.
    slots: Option<&'a mut Slots>,
}

impl<B: Encoded> Keys for Probe<'_, B> {
    #[inline(always)]
    fn same(&self, slot: u32, row: usize) -> bool {
        self.store.key(slot) == self.batch.key(row)
    }

    fn insert(&mut self, row: usize) -> u32 {
        let Some(slots) = &mut self.slots else { return NO_SLOT };
        let slot = slots.give();
        self.store.insert(slot, self.batch.key(row));
        slot
    }
}

impl<E: Encoding> KeyStore for Bytes<E> {
    fn intern(&mut self, columns: &[ArrayRef], slots: &mut Slots, out: &mut Vec<u32>) {
        self.probe(columns, Some(slots), out);
    }

    fn lookup(&mut self, columns: &[ArrayRef], out: &mut Vec<u32>) {
        self.probe(columns, None, out);
    }

    fn keys(&self, slots: &[u32]) -> Vec<ArrayRef> {
        self.encoding.decode(slots.iter().map(|&slot| self.store.key(slot)))
    }

    fn reserve(&mut self, keys: usize) {
        self.store.index.reserve(keys);
        self.store.spans.reserve(keys);
    }

    fn remove(&mut self, slots: &[u32]) {
        for &slot in slots {
            let key = self.store.key(slot);
            let hash = self.store.hash(key);
            self.store.garbage += key.map_or(0, <[u8]>::len);
            self.store.index.remove(hash, slot);
            self.store.spans[slot as usize] = NOTHING;
        }
        self.store.compact();
    }

    fn clear(&mut self) {
        self.store.index.clear();
        self.store.arena.clear();
        self.store.spans.clear();
        self.store.garbage = 0;
    }

    fn bytes(&self) -> usize {
        self.store.index.bytes()
            + self.store.arena.capacity()
            + self.store.spans.capacity() * size_of::<Span>()
            + self.hashes.capacity() * size_of::<u32>()
    }
}

/// One STRING or BYTES column: its own bytes are the key.
pub(super) struct OneColumn {
    is_text: bool,
}

pub(super) struct OneColumnBatch<'a> {
    offsets: &'a [i32],
    bytes: &'a [u8],
    nulls: Option<&'a NullBuffer>,
}

impl Encoded for OneColumnBatch<'_> {
    fn rows(&self) -> usize {
        self.offsets.len() - 1
    }

    #[inline(always)]
    fn key(&self, row: usize) -> Option<&[u8]> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return None;
        }
        Some(&self.bytes[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }
}

impl Encoding for OneColumn {
    type Batch<'a> = OneColumnBatch<'a>;

    fn new(types: &[DataType]) -> Self {
        Self { is_text: types[0] == DataType::Utf8 }
    }

    fn encode<'a>(&'a mut self, columns: &'a [ArrayRef]) -> OneColumnBatch<'a> {
        let nulls = columns[0].nulls().filter(|nulls| nulls.null_count() > 0);
        if self.is_text {
            let strings = columns[0].as_string::<i32>();
            OneColumnBatch { offsets: strings.value_offsets(), bytes: strings.value_data(), nulls }
        } else {
            let binary = columns[0].as_binary::<i32>();
            OneColumnBatch { offsets: binary.value_offsets(), bytes: binary.value_data(), nulls }
        }
    }

    fn decode<'a>(&self, keys: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> Vec<ArrayRef> {
        let lengths = keys.clone().map(|key| key.map_or(0, <[u8]>::len));
        let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
        let mut bytes = Vec::with_capacity(offsets.last().map_or(0, |&end| end as usize));
        keys.clone().for_each(|key| bytes.extend_from_slice(key.unwrap_or(&[])));
        let nulls = Some(NullBuffer::from_iter(keys.map(|key| key.is_some()))).filter(|nulls| nulls.null_count() > 0);
        if self.is_text {
            vec![Arc::new(StringArray::new(offsets, bytes.into(), nulls))]
        } else {
            vec![Arc::new(BinaryArray::new(offsets, bytes.into(), nulls))]
        }
    }
}

/// Any columns, in Arrow's row format.
pub(super) struct Rows {
    converter: RowConverter,
}

impl Encoded for arrow::row::Rows {
    fn rows(&self) -> usize {
        self.num_rows()
    }

    #[inline(always)]
    fn key(&self, row: usize) -> Option<&[u8]> {
        Some(self.row(row).data())
    }
}

impl Encoding for Rows {
    type Batch<'a> = arrow::row::Rows;

    fn new(types: &[DataType]) -> Self {
        let fields = types.iter().map(|data_type| SortField::new(data_type.clone())).collect();
        Self { converter: RowConverter::new(fields).expect("every key type has a row format") }
    }

    fn encode<'a>(&'a mut self, columns: &'a [ArrayRef]) -> arrow::row::Rows {
        let columns: Vec<ArrayRef> = columns.iter().map(canonical_floats).collect();
        self.converter.convert_columns(&columns).expect("the columns have the declared types")
    }

    fn decode<'a>(&self, keys: impl Iterator<Item = Option<&'a [u8]>> + Clone) -> Vec<ArrayRef> {
        let parser = self.converter.parser();
        let rows = keys.map(|key| parser.parse(key.expect("the row format has bytes for NULL")));
        self.converter.convert_rows(rows).expect("the bytes were made by this converter")
    }
}
