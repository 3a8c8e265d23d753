//! Rows as bytes: what both kinds of tables store.
//!
//! A key is its namespace (each number as 8 bytes, big-endian, the sign flipped, so that bytes are ordered as numbers), its group (2 bytes,
//! big-endian), and its columns in Arrow's row format with one zero and one NaN. The values are a row of that format too. Checkpoints
//! keep these bytes, so a version of Arrow that changes them is a new format of parts: a test holds some.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Fields, Int64Type};
use arrow::row::{RowConverter, Rows, SortField};

use super::{Result, TableError, TableSchema};
use crate::{KEY_GROUPS, canonical_floats, key_groups, key_hashes, logical};

const NUMBER: usize = 8;
const GROUP: usize = 2;

pub(super) fn check_values(values: &Fields) -> Result<()> {
    Columns::new(values).map(|_| ())
}

/// Columns and rows of them as bytes.
struct Columns {
    /// None: there are no columns, and a row is no bytes.
    converter: Option<RowConverter>,
}

impl Columns {
    fn new(fields: &Fields) -> Result<Columns> {
        if fields.is_empty() {
            return Ok(Columns { converter: None });
        }
        let fields = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Columns { converter: Some(RowConverter::new(fields).map_err(TableError::Values)?) })
    }

    fn encode(&self, columns: &[ArrayRef]) -> Encoded {
        let rows = self.converter.as_ref();
        Encoded(rows.map(|rows| rows.convert_columns(columns).expect("the columns have the types of the table")))
    }

    fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> std::result::Result<Vec<ArrayRef>, String> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        converter.convert_rows(rows.map(|row| parser.parse(row))).map_err(|error| error.to_string())
    }
}

/// Rows as bytes, by row number.
pub(super) struct Encoded(Option<Rows>);

impl Encoded {
    pub fn row(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, Rows::size)
    }
}

/// The bytes of the keys of a batch, in one buffer.
pub(super) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Bytes that all of them begin with.
    shared: usize,
}

/// The first bytes as a number: in the order of the bytes, as far as they go.
fn head(bytes: &[u8]) -> u128 {
    let mut head = [0; size_of::<u128>()];
    let known = bytes.len().min(head.len());
    head[..known].copy_from_slice(&bytes[..known]);
    u128::from_be_bytes(head)
}

impl Keys {
    pub fn get(&self, row: u32) -> &[u8] {
        let start = (row as usize).checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[row as usize]]
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Row numbers in the order of the keys; equal keys stay in their order.
    pub fn sorted(&self) -> Vec<u32> {
        // Numbers beside one another are compared without a look at the keys, and mostly say enough.
        let mut order: Vec<(u128, u32)> =
            (0..self.ends.len() as u32).map(|row| (head(&self.get(row)[self.shared..]), row)).collect();
        order.sort_unstable_by(|(a_head, a), (b_head, b)| {
            a_head.cmp(b_head).then_with(|| self.get(*a).cmp(self.get(*b))).then(a.cmp(b))
        });
        order.into_iter().map(|(_, row)| row).collect()
    }

    /// As [`Keys::sorted`], of equal keys the last alone.
    pub fn sorted_last(&self) -> Vec<u32> {
        let mut order = self.sorted();
        order.reverse();
        order.dedup_by(|a, b| self.get(*a) == self.get(*b));
        order.reverse();
        order
    }
}

/// Rows that a scan has taken, in one buffer.
#[derive(Default)]
pub(super) struct Taken {
    bytes: Vec<u8>,
    /// Where each key ends, and its values.
    ends: Vec<(usize, usize)>,
}

impl Taken {
    pub fn push(&mut self, key: &[u8], values: &[u8]) {
        self.bytes.extend_from_slice(key);
        let end = self.bytes.len();
        self.bytes.extend_from_slice(values);
        self.ends.push((end, self.bytes.len()));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, (key, end))| (&self.bytes[start..*key], &self.bytes[*key..*end]))
    }

    pub fn last_key(&self) -> Option<&[u8]> {
        let (key, _) = self.ends.last()?;
        let start = self.ends.len().checked_sub(2).map_or(0, |before| self.ends[before].1);
        Some(&self.bytes[start..*key])
    }
}

pub(super) struct Codec {
    pub schema: TableSchema,
    keys: Columns,
    values: Columns,
}

impl Codec {
    pub fn new(schema: TableSchema) -> Result<Codec> {
        Ok(Codec { keys: Columns::new(&schema.key)?, values: Columns::new(&schema.values)?, schema })
    }

    /// Where keys of a namespace begin.
    pub fn prefix(&self, namespace: &[i64]) -> Vec<u8> {
        assert_eq!(namespace.len(), self.schema.namespace.len(), "a namespace has the numbers that the schema names");
        prefix(namespace)
    }

    pub fn keys(&self, namespace: &[i64], columns: &[ArrayRef], rows: usize) -> Keys {
        let prefix = self.prefix(namespace);
        let keys = self.keys_behind(|_, bytes| bytes.extend_from_slice(&prefix), columns, rows);
        Keys { shared: prefix.len(), ..keys }
    }

    /// With a namespace for each row.
    pub fn keys_of(&self, namespaces: &[ArrayRef], columns: &[ArrayRef], rows: usize) -> Keys {
        assert_eq!(namespaces.len(), self.schema.namespace.len(), "a namespace has the numbers that the schema names");
        let numbers: Vec<&[i64]> = namespaces.iter().map(|c| &c.as_primitive::<Int64Type>().values()[..]).collect();
        let prefix = |row: usize, bytes: &mut Vec<u8>| {
            numbers.iter().for_each(|numbers| bytes.extend_from_slice(&prefix(&[numbers[row]])));
        };
        self.keys_behind(prefix, columns, rows)
    }

    fn keys_behind(&self, prefix: impl Fn(usize, &mut Vec<u8>), columns: &[ArrayRef], rows: usize) -> Keys {
        assert_eq!(columns.len(), self.schema.key.len(), "a batch has exactly the declared key columns");
        let columns: Vec<ArrayRef> = columns.iter().map(logical).collect();
        let groups = key_groups(&key_hashes(&columns, rows), KEY_GROUPS);
        let columns: Vec<ArrayRef> = columns.iter().map(canonical_floats).collect();
        let encoded = self.keys.encode(&columns);
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(rows));
        for (row, group) in groups.into_iter().enumerate() {
            prefix(row, &mut bytes);
            bytes.extend_from_slice(&group.to_be_bytes());
            bytes.extend_from_slice(encoded.row(row));
            ends.push(bytes.len());
        }
        Keys { bytes, ends, shared: 0 }
    }

    pub fn values(&self, columns: &[ArrayRef]) -> Encoded {
        assert_eq!(columns.len(), self.schema.values.len(), "a batch has exactly the declared value columns");
        self.values.encode(columns)
    }

    pub fn decode_values<'a>(
        &self,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> std::result::Result<Vec<ArrayRef>, String> {
        self.values.decode(rows)
    }

    /// A batch of [`TableSchema::rows`].
    pub fn decode(&self, rows: &Taken) -> std::result::Result<RecordBatch, String> {
        let numbers = self.schema.namespace.len();
        let head = numbers * NUMBER + GROUP;
        if let Some((key, _)) = rows.iter().find(|(key, _)| key.len() < head) {
            return Err(format!("a key has {} bytes, and the shortest has {head}", key.len()));
        }
        let mut columns: Vec<ArrayRef> = Vec::new();
        for at in 0..numbers {
            let number = |(key, _): (&[u8], &[u8])| number(&key[at * NUMBER..]);
            columns.push(Arc::new(Int64Array::from_iter_values(rows.iter().map(number))));
        }
        columns.extend(self.keys.decode(rows.iter().map(|(key, _)| &key[head..]))?);
        columns.extend(self.values.decode(rows.iter().map(|(_, values)| values))?);
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(self.schema.rows().clone(), columns, &options)
            .map_err(|error| error.to_string())
    }
}

/// The bytes of a namespace.
pub(super) fn prefix(namespace: &[i64]) -> Vec<u8> {
    namespace.iter().flat_map(|number| (*number as u64 ^ 1 << 63).to_be_bytes()).collect()
}

fn number(bytes: &[u8]) -> i64 {
    let bytes = bytes.first_chunk::<NUMBER>().expect("its length was looked at");
    (u64::from_be_bytes(*bytes) ^ 1 << 63) as i64
}

/// The group of a key, and where its namespace ends; `None` for what is no key.
pub(super) fn group(key: &[u8], numbers: usize) -> Option<(u16, &[u8])> {
    let (namespace, rest) = key.split_at_checked(numbers * NUMBER)?;
    Some((u16::from_be_bytes(*rest.first_chunk::<GROUP>()?), namespace))
}

/// The first bytes after all keys of the namespace whose bytes are given: no group is that large.
pub(super) fn after(namespace: &[u8]) -> Vec<u8> {
    [namespace, &[0xff; GROUP]].concat()
}

/// Where a group of a namespace begins.
pub(super) fn start_of(namespace: &[u8], group: u16) -> Vec<u8> {
    [namespace, &group.to_be_bytes()].concat()
}

/// The bytes between which the namespaces from the first to the last lie.
pub(super) fn span(first: &[i64], last: &[i64]) -> Range<Vec<u8>> {
    prefix(first)..after(&prefix(last))
}
