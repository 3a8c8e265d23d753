//! Snapshots: what operators hand over at an epoch and get back, by any number of workers.
//!
//! A snapshot is a set of named tables per operator. Rows of a *keyed* table carry their key group and go to the worker that owns it
//! ([`crate::owner`]); rows of an *unkeyed* table (positions of splits, a frozen list of files) go to all workers, which choose.
//! Columns are typed and shared, not copied; a keyed table is in pieces, the rows of each in the order of their key groups, and within a
//! group in the order in which they were written, so the same state gives the same bytes.
//!
//! # Chains
//! A worker's snapshots of an operator follow one another in a *chain*. A keyed table is in each of them either *whole*, and stands for
//! itself; or it holds *changes* to what the snapshots before it in the chain have: rows that take the place of those with the same values in
//! the columns of their *identity*, the identities of rows that are *removed*, and perhaps lists of what is *kept* ([`SnapshotWriter::keep`]),
//! outside of which all older rows are gone. A row counts before a removal in the same snapshot. A table that a snapshot does not have is
//! empty as of it, and an unkeyed one is always whole. [`SnapshotReader`] resolves chains: operators get rows, never changes.
//!
//! Between processes a snapshot travels as bytes ([`Snapshot::to_bytes`]): a magic number, then each table as Arrow IPC streams with
//! their length before them, one for the rows and one each for what is removed and kept; name, kind and columns are metadata of the schema,
//! the key group is the last column.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, UInt16Array};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::compute::{concat_batches, filter_record_batch, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

use crate::files::Files;
use crate::key_group::{KEY_GROUPS, owner};
use crate::key_table::{KeyTable, NO_SLOT};
use crate::marks::Chain;
use crate::table::part::{Freeze, as_rows};
use crate::table::{RocksMemory, TableError, TablePart};

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
    #[error(
        "cannot read table {table}: what its changes were made to is missing, so the chain of snapshots has lost its beginning"
    )]
    NoBeginning { table: String },
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
    frozen: BTreeMap<String, Box<dyn Freeze>>,
}

#[derive(Default)]
struct Pending {
    keyed: bool,
    rows: Rows,
    changes: Option<PendingChanges>,
}

struct PendingChanges {
    identity: Vec<usize>,
    removed: Rows,
    kept: Vec<Kept>,
}

/// Batches, and the key group of each row of a keyed table.
#[derive(Default)]
struct Rows {
    batches: Vec<RecordBatch>,
    groups: Vec<u16>,
}

/// Rows of a piece, about: small enough that none takes long to make or to hold, large enough to be read in one go.
const PIECE_ROWS: usize = 256 << 10;

impl SnapshotWriter {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds rows to a keyed table; `key_groups` has the key group of each row ([`crate::key_groups`]), below [`KEY_GROUPS`].
    pub fn keyed(&mut self, table: &str, rows: RecordBatch, key_groups: &[u16]) -> Result<()> {
        self.table(table, true)?.rows.add(table, rows, key_groups)
    }

    /// Adds rows to an unkeyed table.
    pub fn unkeyed(&mut self, table: &str, rows: RecordBatch) -> Result<()> {
        self.table(table, false)?.rows.add(table, rows, &[])
    }

    /// Hands over a table that has files of its own ([`crate::table`]). Beside it lies an empty keyed table of its name, with the columns
    /// that the operator would give if it had it in memory.
    pub fn frozen(&mut self, table: &str, frozen: Box<dyn Freeze>) {
        let other = self.frozen.insert(table.to_owned(), frozen);
        assert!(other.is_none(), "a table is handed over once");
    }

    /// The tables that have files of their own: whoever writes the snapshot writes them beside it.
    pub fn take_frozen(&mut self) -> BTreeMap<String, Box<dyn Freeze>> {
        std::mem::take(&mut self.frozen)
    }

    /// Makes a keyed table, which has no rows yet, one of changes to the snapshot before. `identity` are the columns that name a row: no
    /// two rows of a table have the same values in them, and they are of types that can be keys.
    pub fn changes(&mut self, table: &str, schema: &SchemaRef, identity: &[usize]) -> Result<()> {
        let removed = Arc::new(schema.project(identity).map_err(|source| failed(table, source))?);
        let pending = self.table(table, true)?;
        assert!(
            pending.rows.batches.is_empty() && pending.changes.is_none(),
            "a table is of changes from its beginning"
        );
        pending.rows.add(table, RecordBatch::new_empty(schema.clone()), &[])?;
        let mut changes = PendingChanges { identity: identity.to_vec(), removed: Rows::default(), kept: Vec::new() };
        changes.removed.add(table, RecordBatch::new_empty(removed), &[])?;
        pending.changes = Some(changes);
        Ok(())
    }

    /// Whether the table is one of changes.
    pub fn has_changes(&self, table: &str) -> bool {
        self.tables.get(table).is_some_and(|table| table.changes.is_some())
    }

    /// Removes rows of earlier snapshots from a table of changes. `keys` has the columns of the identity, in its order.
    pub fn remove(&mut self, table: &str, keys: Vec<ArrayRef>, key_groups: &[u16]) -> Result<()> {
        let removed = &mut self.changes_of(table).removed;
        let schema = removed.batches[0].schema();
        let keys = batch(schema, keys, key_groups.len()).map_err(|source| failed(table, source))?;
        removed.add(table, keys, key_groups)
    }

    /// Of earlier snapshots only rows count whose values in `columns` are among these, one column of `values` for each. For a table of
    /// changes; may be said for several sets of columns.
    pub fn keep(&mut self, table: &str, columns: &[usize], values: Vec<ArrayRef>) -> Result<()> {
        let schema = self.tables.get(table).and_then(|table| table.rows.batches.first()).map(RecordBatch::schema);
        let schema = schema.expect("a table of changes is declared before").project(columns);
        let rows = values.first().map_or(0, |column| column.len());
        let values = schema.and_then(|schema| batch(Arc::new(schema), values, rows));
        let values = values.map_err(|source| failed(table, source))?;
        self.changes_of(table).kept.push(Kept { columns: columns.to_vec(), values });
        Ok(())
    }

    fn changes_of(&mut self, table: &str) -> &mut PendingChanges {
        let changes = self.tables.get_mut(table).and_then(|table| table.changes.as_mut());
        changes.expect("a table of changes is declared before")
    }

    fn table(&mut self, table: &str, keyed: bool) -> Result<&mut Pending> {
        let pending = self.tables.entry(table.to_owned()).or_insert_with(|| Pending { keyed, ..Pending::default() });
        match pending.keyed == keyed {
            true => Ok(pending),
            false => Err(SnapshotError::MixedKeying { table: table.to_owned() }),
        }
    }

    /// The snapshot, the pieces of its keyed tables ordered by key group. Copies all rows: not for a thread that is waited for.
    pub fn finish(self) -> Result<Snapshot> {
        self.finish_in_pieces(PIECE_ROWS)
    }

    fn finish_in_pieces(self, piece_rows: usize) -> Result<Snapshot> {
        let tables = self.tables.into_iter().map(|(name, pending)| {
            let table = pending.finish(piece_rows).map_err(|source| failed(&name, source))?;
            Ok((name, table))
        });
        assert!(self.frozen.is_empty(), "tables with files of their own are written by whoever finishes the snapshot");
        Ok(Snapshot { tables: tables.collect::<Result<_>>()?, ..Snapshot::default() })
    }
}

impl Rows {
    fn add(&mut self, table: &str, rows: RecordBatch, key_groups: &[u16]) -> Result<()> {
        assert!(key_groups.iter().all(|&group| group < KEY_GROUPS), "key groups are below {KEY_GROUPS}");
        if let Some(first) = self.batches.first().filter(|first| first.schema() != rows.schema()) {
            let (expected, found) = (first.schema(), rows.schema());
            return Err(SnapshotError::SchemaChanged { table: table.to_owned(), expected, found });
        }
        self.groups.extend_from_slice(key_groups);
        self.batches.push(rows);
        Ok(())
    }

    /// The rows in pieces, at least one.
    fn pieces(self, piece_rows: usize) -> std::result::Result<Vec<Piece>, ArrowError> {
        let rows: usize = self.batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, self.groups.len(), "every row of a keyed table has a key group");
        let (mut pieces, mut at) = (Vec::new(), 0);
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut left = self.batches.into_iter().peekable();
        while let Some(next) = left.next() {
            // A table without rows has one batch that says what its columns are.
            if next.num_rows() > 0 || (left.peek().is_none() && batches.is_empty() && pieces.is_empty()) {
                batches.push(next);
            }
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            if rows >= piece_rows || (left.peek().is_none() && !batches.is_empty()) {
                pieces.push(Piece::by_group(&batches, &self.groups[at..at + rows])?);
                at += rows;
                batches.clear();
            }
        }
        Ok(pieces)
    }
}

impl Pending {
    fn finish(self, piece_rows: usize) -> std::result::Result<Table, ArrowError> {
        if !self.keyed {
            let rows = match self.rows.batches.as_slice() {
                [one] => one.clone(),
                many => concat_batches(&many[0].schema(), many)?,
            };
            return Ok(Table { pieces: vec![Piece { rows, groups: None }], changes: None });
        }
        let changes = self.changes.map(|PendingChanges { identity, removed, kept }| {
            Ok::<_, ArrowError>(Changes { identity, removed: removed.pieces(usize::MAX)?, kept })
        });
        Ok(Table { pieces: self.rows.pieces(piece_rows)?, changes: changes.transpose()? })
    }
}

/// A stable counting sort: row numbers in the order of their groups.
fn group_order(groups: &[u16]) -> Vec<u32> {
    let mut starts = [0u32; KEY_GROUPS as usize + 1];
    groups.iter().for_each(|&group| starts[group as usize + 1] += 1);
    (1..starts.len()).for_each(|at| starts[at] += starts[at - 1]);
    let mut order = vec![0u32; groups.len()];
    for (row, &group) in groups.iter().enumerate() {
        order[starts[group as usize] as usize] = row as u32;
        starts[group as usize] += 1;
    }
    order
}

/// The state of one operator on one worker at one epoch, or what changed of it; immutable and cheap to clone.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    tables: BTreeMap<String, Table>,
    /// Tables with files of their own.
    stored: BTreeMap<String, TablePart>,
    /// It had such tables, and they are rows now: what was written is not what is here, so no chain goes on from it.
    converted: bool,
}

#[derive(Debug, Clone, PartialEq)]
struct Table {
    /// At least one.
    pieces: Vec<Piece>,
    /// None: the table is whole.
    changes: Option<Changes>,
}

#[derive(Debug, Clone, PartialEq)]
struct Changes {
    identity: Vec<usize>,
    removed: Vec<Piece>,
    kept: Vec<Kept>,
}

#[derive(Debug, Clone, PartialEq)]
struct Piece {
    rows: RecordBatch,
    /// Ascending; None for an unkeyed table.
    groups: Option<ScalarBuffer<u16>>,
}

/// See [`SnapshotWriter::keep`].
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    columns: Vec<usize>,
    values: RecordBatch,
}

impl Piece {
    /// The batches, of one schema, in the order of the key groups of their rows.
    fn by_group(batches: &[RecordBatch], groups: &[u16]) -> std::result::Result<Piece, ArrowError> {
        let sorted = groups.is_sorted();
        let rows = match batches {
            [one] if sorted => one.clone(),
            many if sorted || many[0].num_columns() == 0 => concat_batches(&many[0].schema(), many)?,
            many => {
                let places: Vec<(usize, usize)> = many
                    .iter()
                    .enumerate()
                    .flat_map(|(at, batch)| (0..batch.num_rows()).map(move |row| (at, row)))
                    .collect();
                let order: Vec<(usize, usize)> =
                    group_order(groups).into_iter().map(|row| places[row as usize]).collect();
                let many: Vec<&RecordBatch> = many.iter().collect();
                interleave_record_batch(&many, &order)?
            }
        };
        let mut groups = groups.to_vec();
        if !sorted {
            groups.sort_unstable();
        }
        Ok(Piece { rows, groups: Some(groups.into()) })
    }

    /// The rows whose key group belongs to the worker: one slice, because rows are ordered and owners have ranges.
    fn owned(&self, groups: &ScalarBuffer<u16>, worker: usize, workers: usize) -> Option<Owned> {
        let start = groups.partition_point(|&group| owner(group, workers) < worker);
        let end = groups.partition_point(|&group| owner(group, workers) <= worker);
        (start < end)
            .then(|| Owned { rows: self.rows.slice(start, end - start), groups: groups.slice(start, end - start) })
    }
}

/// Rows of a keyed table with their groups, ascending.
struct Owned {
    rows: RecordBatch,
    groups: ScalarBuffer<u16>,
}

const MAGIC: &[u8; 8] = b"HWSTATE2";
const NAME: &str = "highwater.table";
const KEYED: &str = "highwater.keyed";
/// What a block has of its table; absent for the rows of one that is whole.
const PART: &str = "highwater.part";
/// Of a table of changes: the columns of the table that a block is about.
const COLUMNS: &str = "highwater.columns";

impl Snapshot {
    /// Rows over all tables, with those that are removed.
    pub fn rows(&self) -> usize {
        self.tables.values().map(Table::rows).sum()
    }

    /// Memory of the columns in bytes.
    pub fn bytes(&self) -> usize {
        let batches = self.tables.values().flat_map(Table::batches);
        batches.map(RecordBatch::get_array_memory_size).sum()
    }

    /// Whether it stands for itself: no table holds changes to the snapshot before.
    pub fn is_whole(&self) -> bool {
        self.tables.values().all(|table| table.changes.is_none())
    }

    /// The tables of a snapshot of [`MemoryStore::merged`] by name: rows, and the key group of each row of a keyed table.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &RecordBatch, Option<&[u16]>)> {
        self.tables.iter().map(|(name, table)| {
            let [piece] = table.pieces.as_slice() else { panic!("the tables of a merged snapshot are in one piece") };
            (name.as_str(), &piece.rows, piece.groups.as_deref())
        })
    }

    pub(crate) fn take_stored(&mut self) -> BTreeMap<String, TablePart> {
        std::mem::take(&mut self.stored)
    }

    /// Without tables that have files of their own.
    fn forget_stored(&mut self) {
        self.converted |= !std::mem::take(&mut self.stored).is_empty();
    }

    /// The columns of a table.
    pub(crate) fn schema(&self, name: &str) -> Option<SchemaRef> {
        self.tables.get(name).map(|table| table.pieces[0].rows.schema())
    }

    /// Takes the tables of another snapshot in the place of its own.
    pub(crate) fn replace(&mut self, other: Snapshot) {
        self.tables.extend(other.tables);
        self.converted = true;
    }

    /// With tables that have files of their own; these are no part of [`Snapshot::to_bytes`].
    pub fn with_stored(self, stored: BTreeMap<String, TablePart>) -> Self {
        Self { stored, ..self }
    }

    /// For another process; see the module's documentation.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = MAGIC.to_vec();
        for (name, table) in &self.tables {
            table.write(name, &mut bytes).map_err(|source| failed(name, source))?;
        }
        Ok(bytes)
    }

    /// The inverse of [`Snapshot::to_bytes`]. The columns are parts of `bytes`: nothing is copied that is aligned.
    pub fn from_bytes(bytes: impl Into<Buffer>) -> Result<Self> {
        let bytes: Buffer = bytes.into();
        let damaged = |reason: String| SnapshotError::Damaged { bytes: bytes.len(), reason };
        let mut blocks = bytes.strip_prefix(MAGIC).ok_or_else(|| damaged("it does not begin as one".into()))?;
        let mut snapshot = Self::default();
        while !blocks.is_empty() {
            let ipc = take_block(&mut blocks).ok_or_else(|| damaged("it ends inside a table".into()))?;
            let ipc = bytes.slice_with_length(bytes.len() - blocks.len() - ipc.len(), ipc.len());
            let block = Block::read(ipc).map_err(|source| damaged(source.to_string()))?;
            snapshot.add(block).ok_or_else(|| damaged("the parts of a table do not fit together".into()))?;
        }
        Ok(snapshot)
    }

    fn add(&mut self, block: Block) -> Option<()> {
        let columns = block.columns.unwrap_or_default();
        match block.part.as_deref() {
            None => drop(self.tables.insert(block.name, Table { pieces: block.pieces, changes: None })),
            Some(part) => {
                let table = self.tables.get_mut(&block.name)?;
                let known = table.pieces[0].rows.num_columns();
                if columns.iter().any(|column| *column >= known) {
                    return None;
                }
                match part {
                    "removed" => {
                        table.changes = Some(Changes { identity: columns, removed: block.pieces, kept: Vec::new() })
                    }
                    "kept" => {
                        let values = block.pieces.into_iter().next()?.rows;
                        table.changes.as_mut()?.kept.push(Kept { columns, values });
                    }
                    _ => return None,
                }
            }
        }
        Some(())
    }
}

impl Table {
    fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        let changes = self.changes.iter();
        let others = changes.flat_map(|changes| {
            changes.removed.iter().map(|piece| &piece.rows).chain(changes.kept.iter().map(|kept| &kept.values))
        });
        self.pieces.iter().map(|piece| &piece.rows).chain(others)
    }

    /// With those that are removed.
    fn rows(&self) -> usize {
        let removed = self.changes.iter().flat_map(|changes| &changes.removed);
        self.pieces.iter().chain(removed).map(|piece| piece.rows.num_rows()).sum()
    }

    fn write(&self, name: &str, bytes: &mut Vec<u8>) -> std::result::Result<(), ArrowError> {
        write_block(name, None, &self.pieces, bytes)?;
        let Some(changes) = &self.changes else { return Ok(()) };
        write_block(name, Some(("removed", &changes.identity)), &changes.removed, bytes)?;
        changes.kept.iter().try_for_each(|kept| {
            let piece = Piece { rows: kept.values.clone(), groups: None };
            write_block(name, Some(("kept", &kept.columns)), &[piece], bytes)
        })
    }
}

fn write_block(
    name: &str,
    part: Option<(&str, &[usize])>,
    pieces: &[Piece],
    bytes: &mut Vec<u8>,
) -> std::result::Result<(), ArrowError> {
    let keyed = pieces[0].groups.is_some();
    let schema = pieces[0].rows.schema();
    let mut fields = schema.fields().to_vec();
    if keyed {
        fields.push(Arc::new(Field::new(KEYED, DataType::UInt16, false)));
    }
    let mut metadata = schema.metadata().clone();
    metadata.insert(NAME.into(), name.into());
    metadata.insert(KEYED.into(), keyed.to_string());
    if let Some((part, columns)) = part {
        metadata.insert(PART.into(), part.into());
        metadata.insert(COLUMNS.into(), columns.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    }
    let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
    // The length is known once the block is written.
    let at = bytes.len();
    bytes.extend_from_slice(&[0; 8]);
    let mut writer = StreamWriter::try_new(&mut *bytes, &schema)?;
    for piece in pieces {
        let mut columns = piece.rows.columns().to_vec();
        columns.extend(piece.groups.iter().map(|groups| Arc::new(UInt16Array::new(groups.clone(), None)) as ArrayRef));
        writer.write(&batch(schema.clone(), columns, piece.rows.num_rows())?)?;
    }
    writer.finish()?;
    drop(writer);
    let length = (bytes.len() - at - 8) as u64;
    bytes[at..at + 8].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// What is read back of [`write_block`].
struct Block {
    name: String,
    part: Option<String>,
    columns: Option<Vec<usize>>,
    pieces: Vec<Piece>,
}

impl Block {
    fn read(mut ipc: Buffer) -> std::result::Result<Self, ArrowError> {
        let malformed =
            || ArrowError::IpcError("a table of a snapshot lacks its name, its rows or its key groups".into());
        let mut decoder = StreamDecoder::new();
        let mut batches = Vec::new();
        while let Some(rows) = decoder.decode(&mut ipc)? {
            batches.push(rows);
        }
        decoder.finish()?;
        let schema = decoder.schema().ok_or_else(malformed)?;
        let mut metadata: HashMap<String, String> = schema.metadata().clone();
        let name = metadata.remove(NAME).ok_or_else(malformed)?;
        let keyed = metadata.remove(KEYED).ok_or_else(malformed)? == "true";
        let part = metadata.remove(PART);
        let numbers = |text: String| {
            text.split(',').filter(|n| !n.is_empty()).map(str::parse).collect::<std::result::Result<_, _>>()
        };
        let columns = metadata.remove(COLUMNS).map(numbers).transpose().map_err(|_| malformed())?;
        let mut fields = schema.fields().to_vec();
        if keyed {
            fields.pop();
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let mut pieces = Vec::new();
        for rows in batches {
            let mut columns = rows.columns().to_vec();
            let mut groups = None;
            if keyed {
                let column = columns.pop().ok_or_else(malformed)?;
                let column = column.as_primitive_opt::<UInt16Type>().ok_or_else(malformed)?;
                groups = Some(column.values().clone());
            }
            pieces.push(Piece { rows: batch(schema.clone(), columns, rows.num_rows())?, groups });
        }
        match pieces.is_empty() {
            true => Err(malformed()),
            false => Ok(Block { name, part, columns, pieces }),
        }
    }
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> std::result::Result<RecordBatch, ArrowError> {
    RecordBatch::try_new_with_options(schema, columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
}

fn failed(table: &str, source: ArrowError) -> SnapshotError {
    SnapshotError::Arrow { table: table.to_owned(), source }
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

/// The rows of a keyed table that a chain adds up to and that belong to the worker, oldest part first.
fn resolve(chain: &[Snapshot], name: &str, worker: usize, workers: usize) -> Result<Vec<Owned>> {
    // From the newest part to the oldest, which its newer ones hide in parts.
    let mut found: Vec<Vec<Owned>> = Vec::new();
    let mut newer = Newer::default();
    let mut begins = true;
    for part in chain.iter().rev() {
        begins = true;
        let Some(table) = part.tables.get(name) else { break };
        let rows = table.owned(&table.pieces, name, worker, workers)?;
        let rows: std::result::Result<Vec<Owned>, ArrowError> =
            rows.into_iter().map(|rows| newer.unhidden(rows)).collect();
        let rows = rows.map_err(|source| failed(name, source))?;
        if let Some(changes) = &table.changes {
            begins = false;
            let removed = table.owned(&changes.removed, name, worker, workers)?;
            newer.hide(changes, &rows, &removed).map_err(|source| failed(name, source))?;
        }
        found.push(rows);
        if begins {
            break;
        }
    }
    match begins {
        true => Ok(found.into_iter().rev().flatten().filter(|rows| rows.rows.num_rows() > 0).collect()),
        false => Err(SnapshotError::NoBeginning { table: name.to_owned() }),
    }
}

impl Table {
    fn owned(&self, pieces: &[Piece], name: &str, worker: usize, workers: usize) -> Result<Vec<Owned>> {
        let wrong = || SnapshotError::WrongKeying { table: name.to_owned(), wanted: "keyed", found: "unkeyed" };
        let owned = pieces.iter().map(|piece| {
            let groups = piece.groups.as_ref().ok_or_else(wrong)?;
            Ok(piece.owned(groups, worker, workers))
        });
        Ok(owned.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

/// What the newer parts of a chain leave of the older ones.
#[derive(Default)]
struct Newer {
    /// The columns that name a row, and the rows that older ones no longer stand for.
    hidden: Option<(Vec<usize>, KeyTable)>,
    /// By columns: the values that are kept.
    kept: BTreeMap<Vec<usize>, KeyTable>,
}

impl Newer {
    fn unhidden(&mut self, owned: Owned) -> std::result::Result<Owned, ArrowError> {
        let rows = owned.rows.num_rows();
        let mut stays = vec![true; rows];
        let mut slots = Vec::new();
        let kept = self.kept.iter_mut().map(|(columns, table)| (columns, table, true));
        let hidden = self.hidden.iter_mut().map(|(columns, table)| (&*columns, table, false));
        for (columns, table, wanted) in kept.chain(hidden) {
            slots.clear();
            table.lookup(&project(&owned.rows, columns), rows, &mut slots);
            stays.iter_mut().zip(&slots).for_each(|(stays, slot)| *stays &= (*slot != NO_SLOT) == wanted);
        }
        if stays.iter().all(|stays| *stays) {
            return Ok(owned);
        }
        let groups = owned.groups.iter().zip(&stays).filter(|(_, stays)| **stays).map(|(group, _)| *group).collect();
        Ok(Owned { rows: filter_record_batch(&owned.rows, &BooleanArray::from(stays))?, groups })
    }

    /// Goes on to the next older part: `rows` and `removed` are the worker's of the part that has these changes.
    fn hide(&mut self, changes: &Changes, rows: &[Owned], removed: &[Owned]) -> std::result::Result<(), ArrowError> {
        let malformed = |error: crate::KeyTypeError| ArrowError::SchemaError(error.to_string());
        let key = changes.removed[0].rows.schema();
        let (_, hidden) = match &mut self.hidden {
            Some(hidden) => hidden,
            none => none.insert((changes.identity.clone(), KeyTable::new(key.fields()).map_err(malformed)?)),
        };
        let mut slots = Vec::new();
        for rows in rows {
            hidden.intern(&project(&rows.rows, &changes.identity), rows.rows.num_rows(), &mut slots);
        }
        for removed in removed {
            hidden.intern(removed.rows.columns(), removed.rows.num_rows(), &mut slots);
        }
        for Kept { columns, values } in &changes.kept {
            // What a newer part did not keep is gone, whatever this one says of it.
            let mut both = KeyTable::new(values.schema().fields()).map_err(malformed)?;
            let all: Vec<usize> = (0..values.num_columns()).collect();
            let values = match self.kept.get_mut(columns) {
                None => values.clone(),
                Some(newer) => {
                    slots.clear();
                    newer.lookup(values.columns(), values.num_rows(), &mut slots);
                    let there: BooleanArray = slots.iter().map(|slot| Some(*slot != NO_SLOT)).collect();
                    filter_record_batch(values, &there)?
                }
            };
            slots.clear();
            both.intern(&project(&values, &all), values.num_rows(), &mut slots);
            self.kept.insert(columns.clone(), both);
        }
        Ok(())
    }
}

fn project(rows: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|column| rows.column(*column).clone()).collect()
}

/// Gives one operator on one worker its state back.
#[derive(Debug, Clone, Default)]
pub struct SnapshotReader {
    /// By the worker that wrote it.
    chains: Vec<Vec<Snapshot>>,
    worker: usize,
    workers: usize,
}

impl SnapshotReader {
    /// `parts` are the snapshots of the operator by all workers that took part, in the order of the workers; each stands for itself.
    pub fn new(parts: Vec<Snapshot>, worker: usize, workers: usize) -> Self {
        Self::of_chains(parts.into_iter().map(|part| vec![part]).collect(), worker, workers)
    }

    /// As [`SnapshotReader::new`], of the chains of the workers, each from its beginning.
    pub fn of_chains(chains: Vec<Vec<Snapshot>>, worker: usize, workers: usize) -> Self {
        assert!(worker < workers, "worker {worker} is not one of {workers}");
        Self { chains, worker, workers }
    }

    /// The rows of a keyed table that belong to this worker. Empty if there is no such table.
    pub fn table(&self, name: &str) -> Result<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for chain in &self.chains {
            rows.extend(resolve(chain, name, self.worker, self.workers)?.into_iter().map(|owned| owned.rows));
        }
        Ok(rows)
    }

    /// For how many keys of a table there should be room before it is restored: those of its largest part that belong to this worker, each
    /// in a slot at least for a while, and some more. Without these the first key that comes after would have all of them moved.
    pub fn room(&self, name: &str) -> usize {
        let rows = |part: &Snapshot| {
            let pieces = part.tables.get(name).into_iter().flat_map(|table| &table.pieces);
            let owned = pieces.filter_map(|piece| piece.owned(piece.groups.as_ref()?, self.worker, self.workers));
            owned.map(|owned| owned.rows.num_rows()).sum::<usize>()
        };
        let largest = |chain: &Vec<Snapshot>| chain.iter().map(rows).max();
        let rows: usize = self.chains.iter().filter_map(largest).sum();
        rows + rows / 8
    }

    /// As [`SnapshotReader::table`], for an operator that interns the rows' identity, their first `identity` columns, anyway: `keys`, empty
    /// before, says which rows newer ones hide, so that no other table has to. Gives rows and their slots.
    pub fn intern<E: From<SnapshotError>>(
        &self,
        name: &str,
        identity: usize,
        keys: &mut KeyTable,
        mut give: impl FnMut(&KeyTable, &[u32], RecordBatch) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        assert!(keys.slots_capacity() == 0, "a table is restored before it has keys");
        keys.reserve(self.room(name));
        let (mut slots, mut gone) = (Vec::new(), Vec::new());
        for chain in &self.chains {
            let mut begins = true;
            for part in chain.iter().rev() {
                begins = true;
                let Some(table) = part.tables.get(name) else { break };
                // Of newer parts. A part may have several rows of a key, if they are runs ([`crate::table::runs`]): all of them count.
                let known = keys.slots_capacity() as u32;
                for Owned { rows, .. } in table.owned(&table.pieces, name, self.worker, self.workers)? {
                    slots.clear();
                    keys.intern(&rows.columns()[..identity], rows.num_rows(), &mut slots);
                    if slots.iter().all(|slot| *slot >= known) {
                        give(keys, &slots, rows)?;
                        continue;
                    }
                    let new: BooleanArray = slots.iter().map(|slot| Some(*slot >= known)).collect();
                    slots.retain(|slot| *slot >= known);
                    give(keys, &slots, filter_record_batch(&rows, &new).map_err(|source| failed(name, source))?)?;
                }
                let Some(changes) = &table.changes else { break };
                assert!(
                    changes.kept.is_empty(),
                    "a table of which namespaces are kept is not restored by its keys alone"
                );
                begins = false;
                for Owned { rows, .. } in table.owned(&changes.removed, name, self.worker, self.workers)? {
                    let known = keys.slots_capacity() as u32;
                    slots.clear();
                    keys.intern(rows.columns(), rows.num_rows(), &mut slots);
                    gone.extend(slots.iter().filter(|slot| **slot >= known));
                }
            }
            if !begins {
                return Err(SnapshotError::NoBeginning { table: name.to_owned() }.into());
            }
        }
        keys.remove(&gone);
        Ok(())
    }

    /// All rows of an unkeyed table, as every worker gets them. Empty if there is no such table.
    pub fn all(&self, name: &str) -> Result<Vec<RecordBatch>> {
        let tables = self.chains.iter().filter_map(|chain| chain.last()?.tables.get(name));
        tables
            .map(|table| match table.pieces.as_slice() {
                [Piece { rows, groups: None }] => Ok(rows.clone()),
                _ => Err(SnapshotError::WrongKeying { table: name.to_owned(), wanted: "unkeyed", found: "keyed" }),
            })
            .collect()
    }

    /// The parts of a table that has files of its own. Each holds what one worker had: of its rows those of [`SnapshotReader::groups`] are
    /// this worker's.
    pub fn stored(&self, name: &str) -> Vec<TablePart> {
        self.chains.iter().filter_map(|chain| chain.last()?.stored.get(name)).cloned().collect()
    }

    /// The key groups of this worker.
    pub fn groups(&self) -> Range<u16> {
        crate::key_group::owned(self.worker, self.workers)
    }

    /// The part that this worker itself wrote, if as many workers wrote as now read: all of its rows are this worker's then.
    pub fn same_part(&self, name: &str) -> Option<TablePart> {
        let mine = self.chains.get(self.worker).filter(|_| self.chains.len() == self.workers)?;
        mine.last()?.stored.get(name).cloned()
    }

    /// The chain of a table that this worker goes on with: it has what [`SnapshotReader::table`] gives it, and nothing else. `None` if
    /// other workers wrote it; then a new one has to be begun.
    pub fn chain(&self, name: &str) -> Option<Chain> {
        if self.chains.len() != self.workers || self.chains[self.worker].iter().any(|part| part.converted) {
            return None;
        }
        let mut chain = Chain::default();
        for part in self.chains[self.worker].iter().rev() {
            let table = part.tables.get(name);
            chain.parts += 1;
            match table.filter(|table| table.changes.is_some()) {
                Some(table) => chain.changed_rows += table.rows(),
                None => {
                    chain.base_rows = table.map_or(0, Table::rows);
                    return Some(chain);
                }
            }
        }
        None
    }

    /// Whether there is any state at all: a fresh start has none.
    pub fn is_empty(&self) -> bool {
        self.chains.iter().flatten().all(|part| part.tables.is_empty() && part.stored.is_empty())
    }
}

/// The snapshots of all operators and workers of one epoch, in memory, with those that they were made to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MemoryStore {
    /// By operator, then worker: its chain.
    parts: BTreeMap<String, BTreeMap<usize, Vec<Snapshot>>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a snapshot of an operator on a worker to its chain. One that stands for itself takes the place of all earlier ones.
    pub fn put(&mut self, operator: &str, worker: usize, snapshot: Snapshot) {
        let chain = self.parts.entry(operator.to_owned()).or_default().entry(worker).or_default();
        if snapshot.is_whole() {
            chain.clear();
        }
        chain.push(snapshot);
    }

    /// Whether any table has files of its own.
    pub fn has_stored(&self) -> bool {
        self.parts.values().flat_map(BTreeMap::values).flatten().any(|snapshot| !snapshot.stored.is_empty())
    }

    /// The same with all tables as rows: see [`crate::table::part::as_rows`].
    pub async fn as_rows(
        &self,
        files: &dyn Files,
        scratch: &Path,
        memory: &RocksMemory,
    ) -> std::result::Result<MemoryStore, TableError> {
        let mut rows = MemoryStore::new();
        for (operator, chains) in &self.parts {
            for (worker, chain) in chains {
                for (at, mut snapshot) in chain.iter().cloned().enumerate() {
                    // Such tables are whole in each part.
                    if at + 1 < chain.len() {
                        snapshot.forget_stored();
                    }
                    rows.put(operator, *worker, as_rows(snapshot, files, scratch, memory).await?);
                }
            }
        }
        Ok(rows)
    }

    /// Takes over all that another store of the same epoch holds.
    pub fn merge(&mut self, other: MemoryStore) {
        for (operator, parts) in other.parts {
            self.parts.entry(operator).or_default().extend(parts);
        }
    }

    /// The state of an operator for one of `workers` workers, however many wrote it.
    pub fn reader(&self, operator: &str, worker: usize, workers: usize) -> SnapshotReader {
        let chains = self.parts.get(operator).map(|parts| parts.values().cloned().collect()).unwrap_or_default();
        SnapshotReader::of_chains(chains, worker, workers)
    }

    /// The state of an operator as one worker would have written it at once: all parts, each table in the order of key groups.
    pub fn merged(&self, operator: &str) -> Result<Snapshot> {
        self.merged_piece(operator, 0, 1, SnapshotWriter::new())
    }

    /// Of that, what worker `piece` of `pieces` would own, behind what `writer` has already; tables without keys are in the first piece.
    pub(crate) fn merged_piece(
        &self,
        operator: &str,
        piece: usize,
        pieces: usize,
        mut writer: SnapshotWriter,
    ) -> Result<Snapshot> {
        for chain in self.parts.get(operator).into_iter().flat_map(BTreeMap::values) {
            for (name, table) in chain.last().iter().flat_map(|newest| &newest.tables) {
                let [first, ..] = table.pieces.as_slice() else { continue };
                if first.groups.is_none() {
                    if piece == 0 {
                        writer.unkeyed(name, first.rows.clone())?;
                    }
                    continue;
                }
                // Says what its columns are, if it has no rows.
                writer.keyed(name, first.rows.slice(0, 0), &[])?;
                for owned in resolve(chain, name, piece, pieces)? {
                    writer.keyed(name, owned.rows, &owned.groups)?;
                }
            }
        }
        writer.finish_in_pieces(usize::MAX)
    }

    /// Rows of an operator that are in memory, with those that newer ones hide.
    pub(crate) fn rows(&self, operator: &str) -> usize {
        self.newest(operator).flat_map(|(chain, _)| chain).map(Snapshot::rows).sum()
    }

    /// The tables of an operator that have files of their own: name, columns as the operator gives them, and the part of a worker.
    pub(crate) fn stored(&self, operator: &str) -> impl Iterator<Item = (&str, Option<SchemaRef>, &TablePart)> {
        let stored = self.newest(operator).flat_map(|(_, newest)| newest.stored.iter().map(move |part| (newest, part)));
        stored.map(|(newest, (name, part))| (name.as_str(), newest.schema(name), part))
    }

    /// The chains of an operator, with the newest snapshot of each.
    fn newest(&self, operator: &str) -> impl Iterator<Item = (&Vec<Snapshot>, &Snapshot)> {
        let chains = self.parts.get(operator).into_iter().flat_map(BTreeMap::values);
        chains.filter_map(|chain| Some((chain, chain.last()?)))
    }

    /// The operators that have state.
    pub fn operators(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().map(String::as_str)
    }

    /// Memory of all columns in bytes.
    pub fn bytes(&self) -> usize {
        self.parts.values().flat_map(BTreeMap::values).flatten().map(Snapshot::bytes).sum()
    }

    /// For another process: blocks of operator, worker and [`Snapshot::to_bytes`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for (operator, parts) in &self.parts {
            for (worker, snapshot) in
                parts.iter().flat_map(|(worker, chain)| chain.iter().map(move |part| (worker, part)))
            {
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
            part.put("aggregate", worker, store.parts["aggregate"][&worker][0].clone());
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
        assert_eq!(Snapshot::from_bytes(bytes.as_slice()).unwrap(), snapshot);
        for cut in [0, 5, 8 + 3, bytes.len() / 2, bytes.len() - 1] {
            assert!(matches!(Snapshot::from_bytes(&bytes[..cut]), Err(SnapshotError::Damaged { .. })), "cut at {cut}");
        }
    }

    /// A table of changes over (key, side): rows, removals and what is kept.
    struct Model {
        rows: BTreeMap<(i64, i64), i64>,
        written: BTreeMap<(i64, i64), i64>,
        removed: Vec<(i64, i64)>,
    }

    fn numbers<'a>(values: impl IntoIterator<Item = &'a i64>) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(values.into_iter().copied()))
    }

    fn table_of(rows: &[((i64, i64), i64)]) -> RecordBatch {
        let column =
            |of: fn(&((i64, i64), i64)) -> i64| Arc::new(Int64Array::from_iter_values(rows.iter().map(of))) as ArrayRef;
        let columns = [("value", column(|row| row.1)), ("side", column(|row| row.0.1)), ("key", column(|row| row.0.0))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, false))).unwrap()
    }

    fn groups_of(keys: &[i64]) -> Vec<u16> {
        key_groups(&key_hashes(&[numbers(keys)], keys.len()), KEY_GROUPS)
    }

    impl Model {
        /// The part of a worker: whole, or the changes since the last one.
        fn part(&mut self, worker: usize, workers: usize, whole: bool, pieces: usize) -> Snapshot {
            let mine = |key: &(i64, i64)| owner(groups_of(&[key.0])[0], workers) == worker;
            let mut writer = SnapshotWriter::new();
            let schema = table_of(&[]).schema();
            let all: Vec<((i64, i64), i64)> = self.rows.iter().map(|(key, value)| (*key, *value)).collect();
            let wanted = |row: &((i64, i64), i64)| mine(&row.0) && (whole || self.written.get(&row.0) != Some(&row.1));
            let rows: Vec<_> = all.into_iter().filter(wanted).collect();
            match whole {
                true => writer.keyed("t", table_of(&[]), &[]).unwrap(),
                false => writer.changes("t", &schema, &[2, 1]).unwrap(),
            }
            for rows in rows.chunks(3) {
                writer
                    .keyed("t", table_of(rows), &groups_of(&rows.iter().map(|row| row.0.0).collect::<Vec<_>>()))
                    .unwrap();
            }
            if !whole {
                let removed: Vec<(i64, i64)> = self.removed.iter().copied().filter(mine).collect();
                let keys: Vec<i64> = removed.iter().map(|key| key.0).collect();
                let sides: Vec<i64> = removed.iter().map(|key| key.1).collect();
                writer.remove("t", vec![numbers(&keys), numbers(&sides)], &groups_of(&keys)).unwrap();
                let sides: std::collections::BTreeSet<i64> = self.rows.keys().map(|key| key.1).collect();
                writer.keep("t", &[1], vec![numbers(&sides)]).unwrap();
            }
            writer.unkeyed("newest", table_of(&[((0, 0), self.rows.len() as i64)])).unwrap();
            writer.finish_in_pieces(pieces).unwrap()
        }
    }

    /// Random upserts, removals and removals of whole sides over many checkpoints, by one to four workers, each with a chain that is begun
    /// anew now and then: whoever reads it back, rows are those of a map.
    #[test]
    fn chains_add_up_to_what_was_written() {
        for seed in 0..60 {
            let mut random = crate::test_data::Random(seed);
            let mut model = Model { rows: BTreeMap::new(), written: BTreeMap::new(), removed: Vec::new() };
            let workers = 1 + random.below(4) as usize;
            let mut store = MemoryStore::new();
            // Sides are never used again, as panes are not.
            let mut sides = 0..3;
            for checkpoint in 0..14 {
                for step in 0..random.below(25) as i64 {
                    let key = (random.below(20) as i64, sides.start + random.below(3) as i64);
                    match random.below(4) {
                        0 => {
                            if model.rows.remove(&key).is_some() {
                                model.removed.push(key);
                            }
                        }
                        _ => drop(model.rows.insert(key, checkpoint * 1000 + step)),
                    }
                }
                if random.below(3) == 0 {
                    sides = sides.start + 1..sides.end + 1;
                    model.rows.retain(|key, _| sides.contains(&key.1));
                }
                for worker in 0..workers {
                    let whole = checkpoint == 0 || random.below(8) == 0;
                    let pieces = 1 + random.below(9) as usize;
                    store.put("it", worker, model.part(worker, workers, whole, pieces));
                }
                model.written = model.rows.clone();
                model.removed.clear();
                let read = MemoryStore::from_bytes(&store.to_bytes().unwrap()).unwrap();
                assert_eq!(read, store);
                for workers_after in 1..4 {
                    let mut found = BTreeMap::new();
                    for worker in 0..workers_after {
                        let reader = read.reader("it", worker, workers_after);
                        assert_eq!(reader.chain("t").is_some(), workers == workers_after);
                        assert!(
                            reader
                                .all("newest")
                                .unwrap()
                                .iter()
                                .all(|rows| keys(std::slice::from_ref(rows)) == [model.rows.len() as i64])
                        );
                        for rows in reader.table("t").unwrap() {
                            let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values().to_vec();
                            for ((value, side), key) in column(0).into_iter().zip(column(1)).zip(column(2)) {
                                assert_eq!(owner(groups_of(&[key])[0], workers_after), worker);
                                assert_eq!(found.insert((key, side), value), None, "seed {seed}: a row comes once");
                            }
                        }
                    }
                    assert_eq!(found, model.rows, "seed {seed}, checkpoint {checkpoint}");
                }
                let merged = read.merged("it").unwrap();
                let (_, rows, groups) = merged.tables().find(|table| table.0 == "t").unwrap();
                assert!(merged.is_whole() && groups.unwrap().is_sorted() && rows.num_rows() == model.rows.len());
            }
        }
    }

    /// The same without namespaces that are kept, read by interning.
    #[test]
    fn what_is_interned_is_what_was_written() {
        let fields = || vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Int64, false)];
        let schema = Arc::new(Schema::new(fields()));
        for seed in 0..60 {
            let mut random = crate::test_data::Random(seed);
            let (mut store, mut model, workers) = (MemoryStore::new(), BTreeMap::new(), 1 + random.below(3) as usize);
            for checkpoint in 0..8 {
                let (mut put, mut removed) = (BTreeMap::new(), std::collections::BTreeSet::new());
                for step in 0..random.below(30) as i64 {
                    let key = random.below(25) as i64;
                    if random.below(3) == 0 {
                        put.remove(&key);
                        removed.extend(model.remove(&key).map(|_| key));
                    } else {
                        model.insert(key, checkpoint * 1000 + step);
                        put.insert(key, checkpoint * 1000 + step);
                    }
                }
                let whole = checkpoint == 0 || random.below(6) == 0;
                for worker in 0..workers {
                    let mine = |key: &i64| owner(groups_of(&[*key])[0], workers) == worker;
                    let mut writer = SnapshotWriter::new();
                    if !whole {
                        writer.changes("t", &schema, &[0]).unwrap();
                        let gone: Vec<i64> = removed.iter().copied().filter(mine).collect();
                        writer.remove("t", vec![numbers(&gone)], &groups_of(&gone)).unwrap();
                    }
                    let rows = if whole { &model } else { &put };
                    let (keys, values): (Vec<i64>, Vec<i64>) = rows.iter().filter(|row| mine(row.0)).unzip();
                    let rows = batch(schema.clone(), vec![numbers(&keys), numbers(&values)], keys.len()).unwrap();
                    writer.keyed("t", rows, &groups_of(&keys)).unwrap();
                    store.put("it", worker, writer.finish_in_pieces(7).unwrap());
                }
                for readers in 1..3 {
                    let mut found = BTreeMap::new();
                    for worker in 0..readers {
                        let reader = store.reader("it", worker, readers);
                        let mut table = KeyTable::new(&fields()[..1].to_vec().into()).unwrap();
                        let give = |keys: &KeyTable, slots: &[u32], rows: RecordBatch| {
                            let column = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().to_vec();
                            assert_eq!(column(&keys.keys(slots)[0]), column(rows.column(0)));
                            found.extend(column(rows.column(0)).into_iter().zip(column(rows.column(1))));
                            Ok::<_, SnapshotError>(())
                        };
                        reader.intern("t", 1, &mut table, give).unwrap();
                        assert!(table.slots_capacity() * 9 / 8 >= reader.room("t"));
                        let rows = reader.table("t").unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
                        assert_eq!(table.len(), rows, "keys that were removed are in no slot");
                    }
                    assert_eq!(found, model, "seed {seed}, checkpoint {checkpoint}");
                }
            }
        }
    }

    /// Runs, as rows.
    #[test]
    fn several_rows_of_a_key_are_all_interned() {
        let fields = || vec![Field::new("k", DataType::Int64, false), Field::new("v", DataType::Int64, false)];
        let mut writer = SnapshotWriter::new();
        for run in 0..3 {
            let keys: Vec<i64> = (0..10).collect();
            let rows = vec![numbers(&keys), numbers(&[run; 10])];
            writer.keyed("t", batch(Arc::new(Schema::new(fields())), rows, 10).unwrap(), &groups_of(&keys)).unwrap();
        }
        let reader = SnapshotReader::new(vec![writer.finish_in_pieces(7).unwrap()], 0, 1);
        let mut table = KeyTable::new(&fields()[..1].to_vec().into()).unwrap();
        let mut given = 0;
        let give = |_: &KeyTable, _: &[u32], rows: RecordBatch| {
            given += rows.num_rows();
            Ok::<_, SnapshotError>(())
        };
        reader.intern("t", 1, &mut table, give).unwrap();
        assert_eq!((given, table.len()), (30, 10));
    }

    #[test]
    fn changes_without_what_they_change_are_refused() {
        let mut model = Model { rows: BTreeMap::from([((1, 1), 1)]), written: BTreeMap::new(), removed: vec![] };
        let (whole, changes) = (model.part(0, 1, true, 9), model.part(0, 1, false, 9));
        assert!(whole.is_whole() && !changes.is_whole());
        let chain = |parts: Vec<Snapshot>| SnapshotReader::of_chains(vec![parts], 0, 1);
        let alone = chain(vec![changes.clone()]);
        assert!(matches!(alone.table("t"), Err(SnapshotError::NoBeginning { .. })) && alone.chain("t").is_none());
        let both = chain(vec![whole, changes]);
        assert_eq!(both.table("t").unwrap().len(), 1);
        assert_eq!(both.chain("t"), Some(Chain { parts: 2, base_rows: 1, changed_rows: 1 }));
    }
}
