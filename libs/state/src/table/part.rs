//! A table as files: what a checkpoint keeps of it, and how it comes back.
//!
//! A part is what one worker held. The files of a RocksDB table are RocksDB's own, and those that an earlier checkpoint wrote are named
//! again, not written again: RocksDB never changes a file of rows. Every file is known by length and hash, and is looked at before RocksDB
//! opens any. A part goes back whole to a worker that has the same groups, and row by row to any other, or to another kind of table.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::cursor::Cursor;
use super::memory::MemoryTable;
use super::rocks::{RocksMemory, RocksTable};
use super::{Result, Table, TableError, TableSchema, copy, io_failed};
use crate::files::{self, FileError, FileRef, Files};
use crate::snapshot::{Snapshot, SnapshotReader, SnapshotWriter};
use crate::{KEY_GROUPS, key_groups, key_hashes};

/// The files of a RocksDB database.
pub const ROCKS: &str = "rocksdb/1";
/// One snapshot ([`crate::snapshot`]) with one table of rows.
pub const ROWS: &str = "rows/1";
pub(super) const FORMATS: &str = "rocksdb/1 and rows/1";
const TABLE: &str = "rows";

/// What a worker held of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TablePart {
    /// [`ROCKS`] or [`ROWS`].
    pub format: String,
    /// The types of its columns, as text: a part is only given to a table with the same.
    pub columns: String,
    /// How many numbers its namespace has beside the run, and how many key columns there are.
    pub namespace: usize,
    pub keys: usize,
    /// Whether a key may have a row in each of several runs ([`super::runs`]).
    pub runs: bool,
    pub files: Vec<PartFile>,
}

/// A file of a part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartFile {
    /// What the file is called in the directory that it was in.
    pub name: String,
    #[serde(flatten)]
    pub file: FileRef,
}

impl TablePart {
    /// Bytes of all files, whenever they were written.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.file.bytes).sum()
    }

    pub(super) fn new(format: &str, schema: &TableSchema, files: Vec<PartFile>) -> TablePart {
        let (namespace, keys, runs) =
            (schema.namespace.len() - usize::from(schema.runs), schema.key.len(), schema.runs);
        TablePart { format: format.to_owned(), columns: schema.shown(), namespace, keys, runs, files }
    }

    fn check(&self, schema: &TableSchema) -> Result<()> {
        if ![ROCKS, ROWS].contains(&self.format.as_str()) {
            return Err(TableError::Format { found: self.format.clone() });
        }
        let wanted = schema.shown();
        if self.columns != wanted {
            return Err(TableError::Foreign { wanted, found: self.columns.clone() });
        }
        Ok(())
    }
}

/// Names a new file; what it is called is given, for people.
pub type Namer<'a> = &'a (dyn Fn(&str) -> String + Send + Sync);

/// A part that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    pub part: TablePart,
    /// Bytes that were written for it; its other files were there.
    pub written_bytes: u64,
    /// For how long a write to the table had to wait until it was frozen.
    pub held: Duration,
}

/// A table as of one moment, not yet written.
pub trait Freeze: Send {
    /// Writes those of its files that are not there yet. What `name` gives is used by nobody else.
    fn save<'a>(self: Box<Self>, files: &'a dyn Files, name: Namer<'a>) -> BoxFuture<'a, Result<Saved>>;
}

/// A table with the rows of these groups out of several parts, of any kind. Every file of every part is verified before any is opened.
///
/// `scratch` is a directory for this table alone, on a disk of this machine; it is made, and removed with the table.
pub async fn restore(
    schema: &TableSchema,
    parts: &[TablePart],
    groups: Range<u16>,
    files: &dyn Files,
    scratch: &Path,
    memory: &RocksMemory,
) -> Result<RocksTable> {
    if let [part] = parts
        && part.format == ROCKS
        && groups == (0..KEY_GROUPS)
    {
        return RocksTable::open(schema.clone(), part, files, scratch, memory).await;
    }
    let mut opened = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let beside = PathBuf::from(format!("{}.part{number}", scratch.display()));
        opened.push(open(schema, part, files, &beside, memory).await?);
    }
    let mut table = RocksTable::create(schema.clone(), scratch, memory)?;
    for mut part in opened {
        copy(&mut *part, &mut Cursor::all(schema, groups.clone()), &mut table)?;
    }
    Ok(table)
}

/// The snapshot with all of its tables as rows, whatever files they had: for operators that keep their state in memory.
///
/// Beside a table with files of its own lies an empty one of its name, with the columns that operators give and take: keys, values, and the
/// namespace without its run ([`super::runs`]).
pub async fn as_rows(
    mut snapshot: Snapshot,
    files: &dyn Files,
    scratch: &Path,
    memory: &RocksMemory,
) -> Result<Snapshot> {
    for (name, part) in snapshot.take_stored() {
        let rows = columns_of(&name, snapshot.schema(&name), files)?;
        let schema = TableSchema::of_operator(&rows, part.keys, part.namespace, part.runs)?;
        let mut table = open(&schema, &part, files, scratch, memory).await?;
        let mut cursor = Cursor::all(&schema, 0..KEY_GROUPS);
        let mut writer = SnapshotWriter::new();
        writer.keyed(&name, RecordBatch::new_empty(rows.clone()), &[])?;
        while let Some(batch) = table.scan(&mut cursor, super::COPY_ROWS)? {
            let batch = schema.to_operator(&batch, &rows);
            let groups = key_groups(&key_hashes(&batch.columns()[..part.keys], batch.num_rows()), KEY_GROUPS);
            writer.keyed(&name, batch, &groups)?;
        }
        snapshot.replace(writer.finish()?);
    }
    Ok(snapshot)
}

/// The columns of a table, which an empty one beside it has.
pub(crate) fn columns_of(name: &str, beside: Option<SchemaRef>, files: &dyn Files) -> Result<SchemaRef> {
    beside.ok_or_else(|| TableError::Damaged {
        place: files.shown(),
        reason: format!("the columns of the table {name} are not in the snapshot that names it"),
    })
}

/// A part as a table of its own, all of it, for whoever reads it.
pub async fn open(
    schema: &TableSchema,
    part: &TablePart,
    files: &dyn Files,
    scratch: &Path,
    memory: &RocksMemory,
) -> Result<Box<dyn Table>> {
    part.check(schema)?;
    if part.format == ROCKS {
        return Ok(Box::new(RocksTable::open(schema.clone(), part, files, scratch, memory).await?));
    }
    let mut table = MemoryTable::new(schema.clone())?;
    for file in &part.files {
        let snapshot = Snapshot::from_bytes(files::get(files, &file.file).await?)?;
        for rows in SnapshotReader::new(vec![snapshot], 0, 1).table(TABLE)? {
            if rows.schema().fields() != schema.rows().fields() {
                let (wanted, found) = (schema.shown(), format!("{}", rows.schema()));
                return Err(TableError::Foreign { wanted, found });
            }
            super::put_rows(schema, &rows, &mut table)?;
        }
    }
    Ok(Box::new(table))
}

pub(super) async fn save_rows(
    schema: &TableSchema,
    batches: Vec<RecordBatch>,
    to: &dyn Files,
    name: Namer<'_>,
) -> Result<Saved> {
    if batches.is_empty() {
        return Ok(Saved { part: TablePart::new(ROWS, schema, Vec::new()), written_bytes: 0, held: Duration::ZERO });
    }
    let rows = concat_batches(schema.rows(), &batches).expect("all batches of a scan have the columns of the table");
    let keys = &rows.columns()[schema.namespace.len()..][..schema.key.len()];
    let groups = key_groups(&key_hashes(keys, rows.num_rows()), KEY_GROUPS);
    let mut writer = SnapshotWriter::new();
    writer.keyed(TABLE, rows, &groups)?;
    let bytes = writer.finish()?.to_bytes()?;
    let file = files::put(to, &name(ROWS), bytes.into()).await?;
    let written_bytes = file.bytes;
    let files = vec![PartFile { name: TABLE.to_owned(), file }];
    Ok(Saved { part: TablePart::new(ROWS, schema, files), written_bytes, held: Duration::ZERO })
}

/// Puts the files of a part into a directory, each verified.
pub(super) async fn fetch(part: &TablePart, schema: &TableSchema, from: &dyn Files, directory: &Path) -> Result<()> {
    part.check(schema)?;
    for PartFile { name, file } in &part.files {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_plain || name.starts_with('.') || name.is_empty() {
            let reason = format!("'{name}' is no name of a file of it");
            return Err(TableError::Damaged { place: from.shown(), reason });
        }
        let content = files::get(from, file).await?;
        let path = directory.join(name);
        let written = tokio::task::spawn_blocking(move || std::fs::write(path, content)).await;
        let written = written.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        written.map_err(|error| match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                TableError::File(FileError::Full { place: directory.display().to_string(), path: name.clone() })
            }
            _ => io_failed("restoring", directory, error),
        })?;
    }
    Ok(())
}
