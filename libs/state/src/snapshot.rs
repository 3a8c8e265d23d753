//! Snapshots: what operators hand over at an epoch and get back, by any number of workers.
//!
//! A snapshot is a set of named tables per operator. Rows of a *keyed* table carry their key group and go to the worker that owns it
//! ([`crate::owner`]); rows of an *unkeyed* table (positions of splits, a frozen list of files) go to all workers, which choose.
//! Columns are typed and shared, not copied; rows of a keyed table are in the order of their key groups, and within a group in the order
//! in which they were written, so the same state gives the same bytes.
//!
//! Between processes a snapshot travels as bytes ([`Snapshot::to_bytes`]): a magic number, then each table as an Arrow IPC stream with
//! its length before it; name and kind are metadata of its schema, the key group is its last column.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UInt16Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::key_group::{KEY_GROUPS, owner};

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot add to table {table}: its rows have the schema {found}, earlier ones had {expected}")]
    SchemaChanged { table: String, expected: SchemaRef, found: SchemaRef },
    #[error(
        "cannot add to table {table} of a snapshot: it was written both with and without key groups; choose one per table"
    )]
    MixedKeying { table: String },
    #[error("cannot read table {table} as {wanted}: it was written as {found}")]
    WrongKeying { table: String, wanted: &'static str, found: &'static str },
    #[error("cannot read a snapshot of {bytes} bytes: {reason}")]
    Damaged { bytes: usize, reason: String },
    #[error("cannot build table {table} of a snapshot")]
    Arrow { table: String, source: ArrowError },
}

type Result<T> = std::result::Result<T, SnapshotError>;

/// Collects the tables of one operator on one worker.
#[derive(Default)]
pub struct SnapshotWriter {
    tables: BTreeMap<String, Pending>,
}

struct Pending {
    keyed: bool,
    rows: Vec<RecordBatch>,
    groups: Vec<u16>,
}

impl SnapshotWriter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds rows to a keyed table; `key_groups` has the key group of each row ([`crate::key_groups`]), below [`KEY_GROUPS`].
    pub fn keyed(&mut self, table: &str, rows: RecordBatch, key_groups: &[u16]) -> Result<()> {
        assert_eq!(rows.num_rows(), key_groups.len(), "every row of a keyed table has a key group");
        assert!(key_groups.iter().all(|&group| group < KEY_GROUPS), "key groups are below {KEY_GROUPS}");
        self.add(table, rows, true)?.groups.extend_from_slice(key_groups);
        Ok(())
    }

    /// Adds rows to an unkeyed table.
    pub fn unkeyed(&mut self, table: &str, rows: RecordBatch) -> Result<()> {
        self.add(table, rows, false).map(|_| ())
    }

    fn add(&mut self, table: &str, rows: RecordBatch, keyed: bool) -> Result<&mut Pending> {
        let pending = self.tables.entry(table.to_owned()).or_insert(Pending { keyed, rows: vec![], groups: vec![] });
        if pending.keyed != keyed {
            return Err(SnapshotError::MixedKeying { table: table.to_owned() });
        }
        if let Some(first) = pending.rows.first().filter(|first| first.schema() != rows.schema()) {
            let (expected, found) = (first.schema(), rows.schema());
            return Err(SnapshotError::SchemaChanged { table: table.to_owned(), expected, found });
        }
        pending.rows.push(rows);
        Ok(pending)
    }

    /// The snapshot, its keyed tables ordered by key group.
    pub fn finish(self) -> Result<Snapshot> {
        let tables = self.tables.into_iter().map(|(name, pending)| {
            let table = pending.finish().map_err(|source| SnapshotError::Arrow { table: name.clone(), source })?;
            Ok((name, table))
        });
        Ok(Snapshot { tables: tables.collect::<Result<_>>()? })
    }
}

impl Pending {
    fn finish(self) -> std::result::Result<Table, ArrowError> {
        let rows = match self.rows.as_slice() {
            [one] => one.clone(),
            many => concat_batches(&many[0].schema(), many)?,
        };
        if !self.keyed {
            return Ok(Table { rows, groups: None });
        }
        if self.groups.is_sorted() {
            return Ok(Table { rows, groups: Some(self.groups.into()) });
        }
        let order = group_order(&self.groups);
        let groups: Vec<u16> = order.values().iter().map(|&row| self.groups[row as usize]).collect();
        Ok(Table { rows: take_record_batch(&rows, &order)?, groups: Some(groups.into()) })
    }
}

/// A stable counting sort: row numbers in the order of their groups.
fn group_order(groups: &[u16]) -> UInt32Array {
    let mut starts = [0u32; KEY_GROUPS as usize + 1];
    groups.iter().for_each(|&group| starts[group as usize + 1] += 1);
    (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
    let mut order = vec![0u32; groups.len()];
    for (row, &group) in groups.iter().enumerate() {
        order[starts[group as usize] as usize] = row as u32;
        starts[group as usize] += 1;
    }
    order.into()
}

/// The state of one operator on one worker at one epoch; immutable and cheap to clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    tables: BTreeMap<String, Table>,
}

#[derive(Debug, Clone, PartialEq)]
struct Table {
    rows: RecordBatch,
    /// Ascending; None for an unkeyed table.
    groups: Option<Arc<[u16]>>,
}

const MAGIC: &[u8; 8] = b"HWSTATE1";
const NAME: &str = "highwater.table";
const KEYED: &str = "highwater.keyed";

impl Snapshot {
    /// Rows over all tables.
    pub fn rows(&self) -> usize {
        self.tables.values().map(|table| table.rows.num_rows()).sum()
    }

    /// Memory of the columns in bytes.
    pub fn bytes(&self) -> usize {
        self.tables.values().map(|table| table.rows.get_array_memory_size()).sum()
    }

    /// The tables by name: rows, and the key group of each row of a keyed table.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &RecordBatch, Option<&[u16]>)> {
        self.tables.iter().map(|(name, table)| (name.as_str(), &table.rows, table.groups.as_deref()))
    }

    /// For another process; see the module's documentation.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        for (name, table) in &self.tables {
            let ipc = table.to_ipc(name).map_err(|source| SnapshotError::Arrow { table: name.clone(), source })?;
            put_block(&mut bytes, &ipc);
        }
        Ok(bytes)
    }

    /// The inverse of [`Snapshot::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |reason: String| SnapshotError::Damaged { bytes: bytes.len(), reason };
        let mut blocks = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as one".into()))?;
        let mut tables = BTreeMap::new();
        while !blocks.is_empty() {
            let ipc = take_block(&mut blocks).ok_or_else(|| damaged("it ends inside a table".into()))?;
            let (name, table) = Table::from_ipc(ipc).map_err(|source| damaged(source.to_string()))?;
            tables.insert(name, table);
        }
        Ok(Self { tables })
    }
}

impl Table {
    fn to_ipc(&self, name: &str) -> std::result::Result<Vec<u8>, ArrowError> {
        let mut fields = self.rows.schema().fields().to_vec();
        let mut columns = self.rows.columns().to_vec();
        if let Some(groups) = &self.groups {
            fields.push(Arc::new(Field::new(KEYED, DataType::UInt16, false)));
            columns.push(Arc::new(UInt16Array::from(groups.to_vec())));
        }
        let mut metadata = self.rows.schema().metadata().clone();
        metadata.insert(NAME.into(), name.into());
        metadata.insert(KEYED.into(), self.groups.is_some().to_string());
        let rows = batch(Schema::new_with_metadata(fields, metadata), columns, self.rows.num_rows())?;
        let mut writer = StreamWriter::try_new(Vec::new(), &rows.schema())?;
        writer.write(&rows)?;
        writer.into_inner()
    }

    fn from_ipc(ipc: &[u8]) -> std::result::Result<(String, Self), ArrowError> {
        let malformed =
            || ArrowError::IpcError("a table of a snapshot lacks its name, its rows or its key groups".into());
        let mut reader = StreamReader::try_new(Cursor::new(ipc), None)?;
        let schema = reader.schema();
        let rows = reader.next().ok_or_else(malformed)??;
        let mut metadata: HashMap<String, String> = schema.metadata().clone();
        let name = metadata.remove(NAME).ok_or_else(malformed)?;
        let keyed = metadata.remove(KEYED).ok_or_else(malformed)? == "true";
        let mut fields = schema.fields().to_vec();
        let mut columns = rows.columns().to_vec();
        let mut groups = None;
        if keyed {
            fields.pop();
            let column = columns.pop().ok_or_else(malformed)?;
            let column = column.as_primitive_opt::<UInt16Type>().ok_or_else(malformed)?;
            groups = Some(column.values().to_vec().into());
        }
        Ok((name, Self { rows: batch(Schema::new_with_metadata(fields, metadata), columns, rows.num_rows())?, groups }))
    }

    /// The rows whose key group belongs to the worker: one slice, because rows are ordered and owners have ranges.
    fn owned(&self, groups: &[u16], worker: usize, workers: usize) -> Option<RecordBatch> {
        let start = groups.partition_point(|&group| owner(group, workers) < worker);
        let end = groups.partition_point(|&group| owner(group, workers) <= worker);
        (start < end).then(|| self.rows.slice(start, end - start))
    }
}

fn batch(schema: Schema, columns: Vec<ArrayRef>, rows: usize) -> std::result::Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(Arc::new(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

fn put_block(bytes: &mut Vec<u8>, block: &[u8]) {
    bytes.extend_from_slice(&(block.len() as u64).to_le_bytes());
    bytes.extend_from_slice(block);
}

fn take_block<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let (block, rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    *bytes = rest;
    Some(block)
}

/// Gives one operator on one worker its state back.
#[derive(Debug, Clone, Default)]
pub struct SnapshotReader {
    parts: Vec<Snapshot>,
    worker: usize,
    workers: usize,
}

impl SnapshotReader {
    /// `parts` are the snapshots of the operator by all workers that took part, in the order of the workers.
    pub fn new(parts: Vec<Snapshot>, worker: usize, workers: usize) -> Self {
        assert!(worker < workers, "worker {worker} is not one of {workers}");
        Self { parts, worker, workers }
    }

    /// The rows of a keyed table that belong to this worker. Empty if there is no such table.
    pub fn table(&self, name: &str) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for table in self.parts.iter().filter_map(|part| part.tables.get(name)) {
            let Some(groups) = &table.groups else {
                return Err(SnapshotError::WrongKeying { table: name.to_owned(), wanted: "keyed", found: "unkeyed" });
            };
            rows.extend(table.owned(groups, self.worker, self.workers));
        }
        Ok(rows)
    }

    /// All rows of an unkeyed table, as every worker gets them. Empty if there is no such table.
    pub fn all(&self, name: &str) -> Result<Vec<RecordBatch>> {
        let tables = self.parts.iter().filter_map(|part| part.tables.get(name));
        tables
            .map(|table| match table.groups {
                None => Ok(table.rows.clone()),
                Some(_) => {
                    Err(SnapshotError::WrongKeying { table: name.to_owned(), wanted: "unkeyed", found: "keyed" })
                }
            })
            .collect()
    }

    /// Whether there is any state at all: a fresh start has none.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.tables.is_empty())
    }
}

/// The snapshots of all operators and workers of one epoch, in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStore {
    /// By operator, then worker.
    parts: BTreeMap<String, BTreeMap<usize, Snapshot>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the snapshot of an operator on a worker, in place of an earlier one.
    pub fn put(&mut self, operator: &str, worker: usize, snapshot: Snapshot) {
        self.parts.entry(operator.to_owned()).or_default().insert(worker, snapshot);
    }

    /// Takes over all that another store of the same epoch holds.
    pub fn merge(&mut self, other: MemoryStore) {
        for (operator, parts) in other.parts {
            self.parts.entry(operator).or_default().extend(parts);
        }
    }

    /// The state of an operator for one of `workers` workers, however many wrote it.
    pub fn reader(&self, operator: &str, worker: usize, workers: usize) -> SnapshotReader {
        let parts = self.parts.get(operator).map(|parts| parts.values().cloned().collect()).unwrap_or_default();
        SnapshotReader::new(parts, worker, workers)
    }

    /// The state of an operator as one worker would have written it: all parts, in the order of key groups.
    pub fn merged(&self, operator: &str) -> Result<Snapshot> {
        let mut writer = SnapshotWriter::new();
        for part in self.parts.get(operator).into_iter().flat_map(BTreeMap::values) {
            for (name, rows, groups) in part.tables() {
                match groups {
                    Some(groups) => writer.keyed(name, rows.clone(), groups)?,
                    None => writer.unkeyed(name, rows.clone())?,
                }
            }
        }
        writer.finish()
    }

    /// The operators that have state.
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().map(String::as_str)
    }

    /// Memory of all columns in bytes.
    pub fn bytes(&self) -> usize {
        self.parts.values().flat_map(BTreeMap::values).map(Snapshot::bytes).sum()
    }

    /// For another process: blocks of operator, worker and [`Snapshot::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (operator, parts) in &self.parts {
            for (worker, snapshot) in parts {
                put_block(&mut bytes, operator.as_bytes());
                put_block(&mut bytes, &(*worker as u64).to_le_bytes());
                put_block(&mut bytes, &snapshot.to_bytes()?);
            }
        }
        Ok(bytes)
    }

    /// The inverse of [`MemoryStore::to_bytes`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged =
            || SnapshotError::Damaged { bytes: bytes.len(), reason: "it ends inside a part of an operator".into() };
        let mut blocks = bytes;
        let mut store = Self::default();
        while !blocks.is_empty() {
            let operator = take_block(&mut blocks).and_then(|block| str::from_utf8(block).ok()).ok_or_else(damaged)?;
            let worker = take_block(&mut blocks).and_then(|block| block.try_into().ok()).ok_or_else(damaged)?;
            let snapshot = Snapshot::from_bytes(take_block(&mut blocks).ok_or_else(damaged)?)?;
            store.put(operator, u64::from_le_bytes(worker) as usize, snapshot);
        }
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::key_group::{key_groups, key_hashes};

    fn rows(range: std::ops::Range<i64>) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(range.clone()));
        let names: ArrayRef = Arc::new(StringArray::from_iter(range.map(|i| (i % 3 > 0).then(|| format!("n{i}")))));
        RecordBatch::try_from_iter_with_nullable([("key", keys, false), ("name", names, true)]).unwrap()
    }

    fn groups(rows: &RecordBatch) -> Vec<u16> {
        key_groups(&key_hashes(&rows.columns()[..1], rows.num_rows()), KEY_GROUPS)
    }

    /// Three workers write what they own of 1,000 keys, in two batches each, and their positions.
    fn written_by_three() -> MemoryStore {
        let mut store = MemoryStore::new();
        for worker in 0..3 {
            let mut writer = SnapshotWriter::new();
            for range in [0..600, 600..1000] {
                let all = rows(range);
                let owned = groups(&all).into_iter().map(|group| Some(owner(group, 3) == worker)).collect();
                let owned = arrow::compute::filter_record_batch(&all, &owned).unwrap();
                writer.keyed("sums", owned.clone(), &groups(&owned)).unwrap();
            }
            writer.unkeyed("splits", rows(worker as i64..worker as i64 + 1)).unwrap();
            writer.keyed("empty", rows(0..0), &[]).unwrap();
            store.put("aggregate", worker, writer.finish().unwrap());
        }
        store
    }

    fn keys(batches: &[RecordBatch]) -> Vec<i64> {
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    /// Conformance: whoever restores, each row arrives exactly once, whole, on its owner.
    fn restores_to_any_number_of_workers(store: &MemoryStore) {
        for workers in [1, 2, 3, 5] {
            let mut restored = Vec::new();
            for worker in 0..workers {
                let reader = store.reader("aggregate", worker, workers);
                for batch in reader.table("sums").unwrap() {
                    assert!(groups(&batch).iter().all(|&group| owner(group, workers) == worker));
                    for row in 0..batch.num_rows() {
                        let key = keys(&[batch.slice(row, 1)])[0];
                        assert_eq!(batch.slice(row, 1), rows(key..key + 1));
                        restored.push(key);
                    }
                }
                let mut positions = keys(&reader.all("splits").unwrap());
                positions.sort_unstable();
                assert_eq!(positions, [0, 1, 2], "every worker gets all unkeyed rows");
                assert!(reader.table("empty").unwrap().is_empty() && reader.table("unknown").unwrap().is_empty());
            }
            restored.sort_unstable();
            assert_eq!(restored, (0..1000).collect::<Vec<_>>(), "{workers} workers");
        }
    }

    #[test]
    fn memory_store_conforms() {
        restores_to_any_number_of_workers(&written_by_three());
    }

    #[test]
    fn a_store_survives_the_way_to_another_process() {
        let store = written_by_three();
        let mut copy = MemoryStore::new();
        for worker in 0..3 {
            let mut part = MemoryStore::new();
            part.put("aggregate", worker, store.parts["aggregate"][&worker].clone());
            copy.merge(MemoryStore::from_bytes(&part.to_bytes().unwrap()).unwrap());
        }
        assert_eq!(copy, store);
        restores_to_any_number_of_workers(&copy);
        assert!(copy.reader("other", 0, 1).is_empty() && !copy.reader("aggregate", 0, 1).is_empty());
    }

    #[test]
    fn rows_are_ordered_by_group_then_arrival() {
        let mut writer = SnapshotWriter::new();
        writer.keyed("t", rows(0..4), &[7, 255, 0, 7]).unwrap();
        writer.keyed("t", rows(4..6), &[0, 7]).unwrap();
        let snapshot = writer.finish().unwrap();
        let (_, rows, groups) = snapshot.tables().next().unwrap();
        assert_eq!(keys(std::slice::from_ref(rows)), [2, 4, 0, 3, 5, 1]);
        assert_eq!(groups.unwrap(), [0, 0, 7, 7, 7, 255]);
    }

    #[test]
    fn misuse_and_damage_are_refused() {
        let mut writer = SnapshotWriter::new();
        writer.unkeyed("t", rows(0..1)).unwrap();
        assert!(matches!(writer.keyed("t", rows(0..1), &[0]), Err(SnapshotError::MixedKeying { .. })));
        let other = rows(0..1).project(&[0]).unwrap();
        assert!(matches!(writer.unkeyed("t", other), Err(SnapshotError::SchemaChanged { .. })));
        let snapshot = writer.finish().unwrap();
        let reader = SnapshotReader::new(vec![snapshot.clone()], 0, 1);
        assert!(matches!(reader.table("t"), Err(SnapshotError::WrongKeying { .. })));
        let bytes = snapshot.to_bytes().unwrap();
        assert_eq!(Snapshot::from_bytes(&bytes).unwrap(), snapshot);
        for cut in [0, 5, 8 + 3, bytes.len() / 2, bytes.len() - 1] {
            assert!(matches!(Snapshot::from_bytes(&bytes[..cut]), Err(SnapshotError::Damaged { .. })), "cut at {cut}");
        }
    }
}
