//! Savepoints: a checkpoint as a directory that belongs to the user, in the open format `highwater-savepoint/1`.
//!
//! `manifest.json`, and per operator and table `state/<operator>/<table>/<first>-<last>.parquet`, which holds the rows of the key groups
//! `first` to `last` with typed columns and the group of each row as the column `key_group`; a table without keys is one file
//! `all.parquet`. Files of sinks lie in `sinks/<sink>/`. Every file is named in the manifest with rows, bytes and sha256, and by its
//! path in the directory alone: a savepoint can be copied anywhere. [`export`] makes one, [`import`] turns it into a checkpoint of a job.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, UInt16Array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, UInt16Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{self, FileError, FileRef, Files};
use crate::key_group::{KEY_GROUPS, owned};
use crate::manifest::{self, Manifest, ManifestError, OperatorPart, SinkPart, SourcePart, StatePart};
use crate::pieces::{PIECE_ROWS, Pieces, pieces_of};
use crate::snapshot::{SnapshotError, SnapshotWriter};
use crate::table::{RocksMemory, Scratch, TableError};

/// The format that is written here, and the only one that is read.
pub const FORMAT: &str = "highwater-savepoint/1";
/// The file that makes a directory a savepoint; written last.
pub const MANIFEST: &str = "manifest.json";
/// The column of key groups in the files of a keyed table.
const KEY_GROUP: &str = "key_group";
/// Stands in the manifest for its own hash while that is computed.
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Numbers of epochs beyond this leave no room for those that follow.
const EPOCH_MAX: u64 = 1 << 60;

/// The description of a savepoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Savepoint {
    pub format: String,
    /// sha256 of the text of this manifest with 64 zeros in the place of this value: whoever changes it by hand is noticed.
    pub manifest_sha256: String,
    /// Id and name of the job that it is of.
    pub job: String,
    pub job_name: String,
    pub run: String,
    pub epoch: u64,
    /// When the epoch was cut, microseconds since the Unix epoch.
    pub created_us: i64,
    /// Number of key groups that keys are hashed into; the hash is that of docs/savepoints.md.
    pub key_groups: u16,
    /// The graph that the state belongs to, and the sha256 of its JSON.
    pub graph: Value,
    pub graph_sha256: String,
    /// Splits with positions and watermarks, by source.
    pub sources: Vec<SourcePart>,
    pub operators: Vec<Operator>,
    pub sinks: Vec<SinkPart>,
    pub counters: Value,
}

/// The state of an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    pub operator: String,
    pub tables: Vec<Table>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    pub table: String,
    /// Whether rows belong to keys, and so to key groups.
    pub keyed: bool,
    pub columns: Vec<Column>,
    pub rows: u64,
    /// In the order of key groups.
    pub files: Vec<TableFile>,
}

/// A column, with its Arrow type as text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub name: String,
    pub r#type: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    #[serde(flatten)]
    pub file: FileRefFields,
    pub rows: u64,
    /// First and last key group; of a keyed table.
    pub key_groups: Option<[u16; 2]>,
}

/// [`FileRef`], flat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRefFields {
    pub path: String,
    pub bytes: u64,
    pub sha256: String,
}

/// Why a savepoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SavepointError {
    #[error("{place} has no {MANIFEST}, which is written last: it is no savepoint, or was copied by halves")]
    NotOne { place: String },
    #[error("{place}/{MANIFEST} cannot be read: {reason}")]
    Malformed { place: String, reason: String },
    #[error("{place} has the format '{found}'; this program reads {FORMAT}, so it was written by a newer one")]
    Format { place: String, found: String },
    #[error("{place} hashes keys into {found} groups; this program uses {KEY_GROUPS}")]
    KeyGroups { place: String, found: u16 },
    #[error("{path} does not hold what the manifest says: {reason}")]
    Content { path: String, reason: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the state of {operator} cannot be written: {reason}")]
    State { operator: String, reason: String },
}

impl SavepointError {
    /// Stable, snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            SavepointError::NotOne { .. } => "savepoint_not_found",
            SavepointError::Format { .. } | SavepointError::KeyGroups { .. } => "savepoint_format",
            SavepointError::File(FileError::Full { .. }) => "disk_full",
            SavepointError::File(error) if !error.is_damage() => "savepoint_storage",
            SavepointError::Manifest(_) => "checkpoint_corrupt",
            SavepointError::State { .. } => "internal_error",
            _ => "savepoint_corrupt",
        }
    }
}

type Result<T> = std::result::Result<T, SavepointError>;

/// What a savepoint says beside its checkpoint.
#[derive(Clone, Debug)]
pub struct Description {
    pub job_name: String,
    pub graph: Value,
}

/// Writes a checkpoint as a savepoint, the manifest last. Returns it and the bytes that were written.
pub async fn export(
    from: &dyn Files,
    checkpoint: &Manifest,
    description: Description,
    to: &dyn Files,
) -> Result<(Savepoint, u64)> {
    export_in_pieces(from, checkpoint, description, to, PIECE_ROWS).await
}

/// The same with another number of rows per file, about.
pub async fn export_in_pieces(
    from: &dyn Files,
    checkpoint: &Manifest,
    description: Description,
    to: &dyn Files,
    piece_rows: usize,
) -> Result<(Savepoint, u64)> {
    let mut operators = Vec::new();
    let mut names = Names::default();
    for part in &checkpoint.operators {
        let one = Manifest { operators: vec![part.clone()], sinks: Vec::new(), ..checkpoint.clone() };
        let tables = export_tables(from, &one, &part.operator, (to, &mut names), piece_rows).await?;
        // Stages that hold nothing between epochs have no tables.
        if !tables.is_empty() {
            operators.push(Operator { operator: part.operator.clone(), tables });
        }
    }
    let files = operators.iter().flat_map(|operator| &operator.tables).flat_map(|table| &table.files);
    let mut bytes: u64 = files.map(|file| file.file.bytes).sum();
    let mut sinks = Vec::new();
    for sink in &checkpoint.sinks {
        let directory = names.free(&format!("sinks/{}", plain(&sink.operator)));
        let mut moved = Vec::new();
        for (number, file) in sink.files.iter().enumerate() {
            let content = files::get(from, file).await?;
            moved.push(put(to, &format!("{directory}/{number}"), content).await?);
        }
        bytes += moved.iter().map(|file| file.bytes).sum::<u64>();
        sinks.push(moved_sink(sink, moved));
    }
    let mut savepoint = Savepoint {
        format: FORMAT.into(),
        manifest_sha256: NO_HASH.into(),
        job: checkpoint.job.clone(),
        job_name: description.job_name,
        run: checkpoint.run.clone(),
        epoch: checkpoint.epoch,
        created_us: checkpoint.created_us,
        key_groups: KEY_GROUPS,
        graph: description.graph,
        graph_sha256: checkpoint.graph_sha256.clone(),
        sources: checkpoint.sources.clone(),
        operators,
        sinks,
        counters: checkpoint.counters.clone(),
    };
    let text = serde_json::to_string_pretty(&savepoint).expect("a savepoint has text for keys, so it is JSON");
    savepoint.manifest_sha256 = files::sha256(text.as_bytes());
    let text = text.replacen(&hash_line(NO_HASH), &hash_line(&savepoint.manifest_sha256), 1);
    bytes += text.len() as u64;
    faults::reach("savepoint.manifest.before").await.map_err(FileError::from)?;
    to.write(MANIFEST, text.into()).await?;
    faults::reach("savepoint.manifest.after").await.map_err(FileError::from)?;
    Ok((savepoint, bytes))
}

/// Writes the tables of an operator, key groups by key groups.
async fn export_tables(
    from: &dyn Files,
    checkpoint: &Manifest,
    operator: &str,
    (to, names): (&dyn Files, &mut Names),
    piece_rows: usize,
) -> Result<Vec<Table>> {
    let cannot = |error: &dyn std::fmt::Display| failed(operator, error);
    let state = checkpoint.load(from).await?;
    let memory = RocksMemory::new(EXPORT_CACHE_BYTES);
    let scratch = Scratch::new().map_err(|(_, error)| cannot(&format!("no directory for temporary files: {error}")))?;
    let read = |error| of_table(operator, error);
    let pieces = Pieces::open(&state, operator, from, || scratch.table(), &memory, piece_rows).await;
    let mut pieces = pieces.map_err(read)?;
    let mut tables: BTreeMap<String, (String, Table)> = BTreeMap::new();
    for piece in 0..pieces.count() {
        let snapshot = pieces.piece(piece).map_err(read)?;
        for (name, rows, groups) in snapshot.tables() {
            let (directory, table) = tables.entry(name.to_owned()).or_insert_with(|| {
                let column =
                    |field: &Arc<Field>| Column { name: field.name().clone(), r#type: field.data_type().to_string() };
                let columns = rows.schema().fields().iter().map(column).collect();
                let directory = names.free(&format!("state/{}/{}", plain(operator), plain(name)));
                let table =
                    Table { table: name.to_owned(), keyed: groups.is_some(), columns, rows: 0, files: Vec::new() };
                (directory, table)
            });
            let range = match groups {
                None => None,
                // In the order of key groups.
                Some([first, .., last]) => Some([*first, *last]),
                Some([only]) => Some([*only, *only]),
                Some([]) => continue,
            };
            let name = range.map_or("all".to_owned(), |[first, last]| format!("{first:03}-{last:03}"));
            let content = to_parquet(rows, groups).map_err(|error| cannot(&error))?;
            let FileRef { path, bytes, sha256 } = put(to, &format!("{directory}/{name}.parquet"), content).await?;
            let file = FileRefFields { path, bytes, sha256 };
            table.rows += rows.num_rows() as u64;
            table.files.push(TableFile { file, rows: rows.num_rows() as u64, key_groups: range });
        }
    }
    Ok(tables.into_values().map(|(_, table)| table).collect())
}

/// Writes a file of a savepoint.
async fn put(to: &dyn Files, path: &str, content: Bytes) -> Result<FileRef> {
    faults::reach("savepoint.file.before").await.map_err(FileError::from)?;
    let file = files::put(to, path, content).await?;
    faults::reach("savepoint.file.after").await.map_err(FileError::from)?;
    Ok(file)
}

/// The one line of a manifest that its hash leaves out.
fn hash_line(sha256: &str) -> String {
    format!("\"manifest_sha256\": \"{sha256}\"")
}

/// For blocks of tables that are read once.
const EXPORT_CACHE_BYTES: usize = 32 << 20;

/// Of a table that is read: what is wrong with a file of it, or else what did not work, without the directory that it is read in.
fn of_table(operator: &str, error: TableError) -> SavepointError {
    match error {
        TableError::File(error) => error.into(),
        TableError::Manifest(error) => error.into(),
        TableError::Failed { action, reason, .. } => failed(operator, &format!("{action} a table failed: {reason}")),
        TableError::Damaged { reason, .. } => failed(operator, &format!("a table is damaged: {reason}")),
        other => failed(operator, &other),
    }
}

/// Reads the description of a savepoint; its files are read by [`check`] and [`import`].
pub async fn open(from: &dyn Files) -> Result<Savepoint> {
    let place = from.shown();
    let content = from.read(MANIFEST).await?.ok_or_else(|| SavepointError::NotOne { place: place.clone() })?;
    let malformed =
        |error: serde_json::Error| SavepointError::Malformed { place: place.clone(), reason: error.to_string() };
    let value: Value = serde_json::from_slice(&content).map_err(malformed)?;
    if let Some(found) = value.get("format").and_then(Value::as_str).filter(|found| *found != FORMAT) {
        return Err(SavepointError::Format { place, found: found.to_owned() });
    }
    let savepoint: Savepoint = serde_json::from_value(value).map_err(malformed)?;
    let edited = |reason: &str| SavepointError::Malformed { place: place.clone(), reason: reason.into() };
    let text = std::str::from_utf8(&content).map_err(|error| edited(&error.to_string()))?;
    let unsigned = text.replacen(&hash_line(&savepoint.manifest_sha256), &hash_line(NO_HASH), 1);
    if files::sha256(unsigned.as_bytes()) != savepoint.manifest_sha256 {
        return Err(edited("it was changed after it was written: manifest_sha256 is the hash of another text"));
    }
    if savepoint.key_groups != KEY_GROUPS {
        return Err(SavepointError::KeyGroups { place, found: savepoint.key_groups });
    }
    if savepoint.epoch > EPOCH_MAX {
        return Err(edited("its epoch is no number of an epoch"));
    }
    if let Some((path, _)) = savepoint.files().find(|(path, _)| !is_below(path)) {
        return Err(SavepointError::Content { path: path.into(), reason: "it is no path below the savepoint".into() });
    }
    Ok(savepoint)
}

impl Savepoint {
    /// Every file of the savepoint, with its bytes, but for the manifest itself.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        let tables = self.operators.iter().flat_map(|operator| &operator.tables).flat_map(|table| &table.files);
        let tables = tables.map(|file| (file.file.path.as_str(), file.file.bytes));
        tables.chain(self.sinks.iter().flat_map(|sink| &sink.files).map(|file| (file.path.as_str(), file.bytes)))
    }
}

fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Reads all files of a savepoint against its manifest, for so long at most. Returns whether that was all of them; that they are there,
/// with their lengths, is known in any case.
pub async fn check(from: &dyn Files, savepoint: &Savepoint, patience: Duration) -> Result<bool> {
    let began = Instant::now();
    let there: BTreeMap<String, u64> = from.list("").await?.into_iter().map(|file| (file.path, file.bytes)).collect();
    for (path, bytes) in savepoint.files() {
        let wrong = match there.get(path) {
            None => "it is missing".to_owned(),
            Some(found) if *found != bytes => format!("it has {found} bytes, not {bytes}"),
            Some(_) => continue,
        };
        return Err(SavepointError::Content { path: path.into(), reason: wrong });
    }
    for operator in &savepoint.operators {
        for table in &operator.tables {
            let mut rows = 0;
            for file in &table.files {
                if began.elapsed() > patience {
                    return Ok(false);
                }
                rows += read(from, table, file).await?.map_or(0, |rows| rows.num_rows() as u64);
            }
            all_rows(table, rows)?;
        }
    }
    for file in savepoint.sinks.iter().flat_map(|sink| &sink.files) {
        if began.elapsed() > patience {
            return Ok(false);
        }
        files::get(from, file).await?;
    }
    Ok(true)
}

fn all_rows(table: &Table, rows: u64) -> Result<()> {
    if rows == table.rows {
        return Ok(());
    }
    let reason = format!("table {} has {rows} rows in its files, not {}", table.table, table.rows);
    Err(SavepointError::Content { path: MANIFEST.into(), reason })
}

/// For whom a savepoint becomes a checkpoint.
#[derive(Clone, Debug)]
pub struct Target {
    pub job: String,
    pub run: String,
    /// The number that it gets; below every one that the run will use.
    pub epoch: u64,
    /// The sources, operators and sinks that are wanted, by their names in the savepoint, and their names in the graph of the job. What
    /// belongs to others is left out; what several have of one, each of them gets.
    pub kept: BTreeMap<String, Vec<String>>,
}

/// Reads and checks every file of a savepoint, and writes it as a checkpoint of a job. Returns the manifest's file.
pub async fn import(from: &dyn Files, savepoint: &Savepoint, target: &Target, to: &dyn Files) -> Result<FileRef> {
    import_in_pieces(from, savepoint, target, to, PIECE_ROWS).await
}

/// The same with another number of rows per file, about.
pub async fn import_in_pieces(
    from: &dyn Files,
    savepoint: &Savepoint,
    target: &Target,
    to: &dyn Files,
    piece_rows: usize,
) -> Result<FileRef> {
    let mut operators = Vec::new();
    let folder = |what: &str, name: &str| {
        let number = files::sha256(format!("{}/{}/{name}", target.run, target.epoch).as_bytes());
        format!("{}/{what}/{:020}-savepoint-{}-{}", target.job, target.epoch, plain(name), &number[..16])
    };
    for operator in &savepoint.operators {
        // What is not wanted is checked as well.
        let names = target.kept.get(&operator.operator);
        let path = names.map(|_| folder("state", &operator.operator));
        let parts = import_tables(from, operator, path.as_deref(), to, piece_rows).await?;
        // Files are never changed, so one is enough for all who begin with it.
        let names = names.into_iter().flatten();
        operators.extend(names.map(|name| OperatorPart { operator: name.clone(), parts: parts.clone() }));
    }
    let mut sinks = Vec::new();
    for sink in &savepoint.sinks {
        let mut moved = Vec::new();
        for (number, file) in sink.files.iter().enumerate() {
            let content = files::get(from, file).await?;
            if target.kept.contains_key(&sink.operator) {
                let path = format!("{}-{number}", folder("sinks", &sink.operator));
                moved.push(put_imported(to, &path, content).await?);
            }
        }
        let moved = moved_sink(sink, moved);
        let names = target.kept.get(&sink.operator).into_iter().flatten();
        sinks.extend(names.map(|name| SinkPart { operator: name.clone(), ..moved.clone() }));
    }
    let sources = savepoint.sources.iter().flat_map(|source| {
        let names = target.kept.get(&source.operator).into_iter().flatten();
        names.map(|name| SourcePart { operator: name.clone(), ..source.clone() })
    });
    // Another job has counted nothing yet.
    let counters = if target.job == savepoint.job { savepoint.counters.clone() } else { Value::Null };
    let manifest = Manifest {
        format: manifest::FORMAT.into(),
        job: target.job.clone(),
        run: target.run.clone(),
        generation: 0,
        epoch: target.epoch,
        previous: None,
        nonce: target.run.clone(),
        last: false,
        graph_sha256: savepoint.graph_sha256.clone(),
        created_us: savepoint.created_us,
        sources: sources.collect(),
        operators,
        sinks,
        counters,
    };
    let path = Manifest::path(&target.job, target.epoch);
    faults::reach("savepoint.import.manifest.before").await.map_err(FileError::from)?;
    let file = files::put(to, &path, manifest.to_bytes()).await?;
    faults::reach("savepoint.import.manifest.after").await.map_err(FileError::from)?;
    Ok(file)
}

/// Writes the state of an operator to files whose paths begin with this one, if one is given. There is a part for each piece, as if so many
/// workers had written it.
async fn import_tables(
    from: &dyn Files,
    operator: &Operator,
    path: Option<&str>,
    to: &dyn Files,
    piece_rows: usize,
) -> Result<Vec<StatePart>> {
    let rows: u64 = operator.tables.iter().filter(|table| table.keyed).map(|table| table.rows).sum();
    let pieces = pieces_of(usize::try_from(rows).unwrap_or(usize::MAX), piece_rows);
    let (mut parts, mut read) = (Vec::new(), vec![0; operator.tables.len()]);
    for piece in 0..pieces {
        let groups = owned(piece, pieces);
        let mut writer = SnapshotWriter::new();
        for (table, read) in operator.tables.iter().zip(&mut read) {
            for file in &table.files {
                let is_here = match file.key_groups.filter(|_| table.keyed) {
                    Some([first, last]) => first < groups.end && last >= groups.start,
                    None => piece == 0,
                };
                if is_here {
                    *read += read_into(from, table, file, &groups, &mut writer).await?;
                }
            }
        }
        let state = writer.finish().and_then(|state| state.to_bytes().map(|bytes| (state.rows() as u64, bytes)));
        let (rows, state) = state.map_err(|error| failed(&operator.operator, &error))?;
        if let Some(path) = path {
            let file = put_imported(to, &format!("{path}-{piece}"), state.into()).await?;
            parts.push(StatePart { worker: piece as u64, rows, file, tables: BTreeMap::new() });
        }
    }
    operator.tables.iter().zip(read).try_for_each(|(table, rows)| all_rows(table, rows))?;
    Ok(parts)
}

/// Writes a file of a checkpoint that a savepoint becomes.
async fn put_imported(to: &dyn Files, path: &str, content: Bytes) -> Result<FileRef> {
    let file = files::put(to, path, content).await?;
    faults::reach("savepoint.import.half").await.map_err(FileError::from)?;
    Ok(file)
}

/// Its committables name files by number only; here are the files under their new names.
fn moved_sink(sink: &SinkPart, moved: Vec<FileRef>) -> SinkPart {
    let mut committables = sink.committables.clone();
    let mut left = moved.iter();
    for committable in committables.as_array_mut().into_iter().flatten() {
        let count = committable["files"].as_array().map_or(0, Vec::len);
        if count > 0 {
            let files: Vec<&FileRef> = left.by_ref().take(count).collect();
            committable["files"] = serde_json::to_value(files).expect("files are JSON");
        }
    }
    SinkPart { committables, files: moved, ..sink.clone() }
}

/// Paths that are taken: names that differ may be the same as parts of a path.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn free(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        while !self.0.insert(name.clone()) {
            name.push('_');
        }
        name
    }
}

/// A name as a part of a path.
fn plain(name: &str) -> String {
    name.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' }).collect()
}

fn failed(operator: &str, error: &dyn std::fmt::Display) -> SavepointError {
    SavepointError::State { operator: operator.to_owned(), reason: error.to_string() }
}

fn to_parquet(rows: &RecordBatch, groups: Option<&[u16]>) -> std::result::Result<Bytes, SnapshotOrParquet> {
    let rows = match groups {
        None => rows.clone(),
        Some(groups) => {
            let mut fields = rows.schema().fields().to_vec();
            fields.push(Arc::new(Field::new(KEY_GROUP, DataType::UInt16, false)));
            let mut columns = rows.columns().to_vec();
            columns.push(Arc::new(UInt16Array::from(groups.to_vec())) as ArrayRef);
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?
        }
    };
    let level = ZstdLevel::try_new(1)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(&rows)?;
    Ok(writer.into_inner()?.into())
}

/// The rows of a file, whose columns are those that the manifest says; `None` if there are none.
async fn read(from: &dyn Files, table: &Table, file: &TableFile) -> Result<Option<RecordBatch>> {
    let FileRefFields { path, bytes, sha256 } = file.file.clone();
    let content = files::get(from, &FileRef { path: path.clone(), bytes, sha256 }).await?;
    let wrong = |reason: String| SavepointError::Content { path: path.clone(), reason };
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(content).and_then(|builder| builder.with_batch_size(1 << 20).build());
    let batches = reader.map_err(|error| wrong(error.to_string()))?.collect::<std::result::Result<Vec<_>, _>>();
    let batches = batches.map_err(|error| wrong(error.to_string()))?;
    let Some(first) = batches.first() else { return Ok(None) };
    let rows = concat_batches(&first.schema(), &batches).map_err(|error| wrong(error.to_string()))?;
    let schema = rows.schema();
    let columns = schema.fields().iter().map(|field| (field.name().as_str(), field.data_type().to_string()));
    let group = table.keyed.then(|| (KEY_GROUP, DataType::UInt16.to_string()));
    let wanted = table.columns.iter().map(|column| (column.name.as_str(), column.r#type.clone()));
    if !columns.eq(wanted.chain(group)) || rows.num_rows() as u64 != file.rows {
        return Err(wrong(format!("it has other columns or another number of rows than table {}", table.table)));
    }
    Ok(Some(rows))
}

/// Adds the rows of a file that are of these key groups; all of a table without keys. Returns how many there are.
async fn read_into(
    from: &dyn Files,
    table: &Table,
    file: &TableFile,
    groups: &Range<u16>,
    writer: &mut SnapshotWriter,
) -> Result<u64> {
    let Some(rows) = read(from, table, file).await? else { return Ok(0) };
    let wrong = |reason: String| SavepointError::Content { path: file.file.path.clone(), reason };
    if !table.keyed {
        let count = rows.num_rows() as u64;
        writer.unkeyed(&table.table, rows).map_err(|error| wrong(error.to_string()))?;
        return Ok(count);
    }
    let at = rows.num_columns() - 1;
    let of_rows = rows.column(at).as_primitive_opt::<UInt16Type>();
    let of_rows = of_rows.ok_or_else(|| wrong(format!("it has no column {KEY_GROUP}")))?.values().to_vec();
    let said = file.key_groups.ok_or_else(|| wrong("the manifest does not say its key groups".into()))?;
    if of_rows.iter().any(|&group| group >= KEY_GROUPS || group < said[0] || group > said[1]) {
        let limit = KEY_GROUPS;
        return Err(wrong(format!("a key group is not among {} to {}, or not below {limit}", said[0], said[1])));
    }
    let added = || {
        let is_here: BooleanArray = of_rows.iter().map(|group| Some(groups.contains(group))).collect();
        let columns: Vec<usize> = (0..at).collect();
        let rows = filter_record_batch(&rows.project(&columns)?, &is_here)?;
        let of_rows: Vec<u16> = of_rows.iter().copied().filter(|group| groups.contains(group)).collect();
        Ok((rows, of_rows))
    };
    let (rows, of_rows) = added().map_err(|error: arrow::error::ArrowError| wrong(error.to_string()))?;
    writer.keyed(&table.table, rows, &of_rows).map_err(|error| wrong(error.to_string()))?;
    Ok(of_rows.len() as u64)
}

/// Why rows could not become a file.
#[derive(Debug, thiserror::Error)]
enum SnapshotOrParquet {
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
}

impl From<SnapshotError> for SavepointError {
    fn from(error: SnapshotError) -> SavepointError {
        failed("an operator", &error)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::files::MemoryFiles;
    use crate::snapshot::SnapshotReader;
    use crate::{key_groups, key_hashes};
    use arrow::array::{Int64Array, StringArray};

    /// A checkpoint of two workers: a keyed table and one without keys, and a sink with a file.
    async fn checkpoint(files: &MemoryFiles) -> Manifest {
        let mut parts = Vec::new();
        for worker in 0..2i64 {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..50).map(|n| n * 2 + worker)));
            let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..50).map(|n| format!("name {n}"))));
            let groups = key_groups(&key_hashes(std::slice::from_ref(&keys), 50), KEY_GROUPS);
            let mut writer = SnapshotWriter::new();
            let rows = RecordBatch::try_from_iter([("key", keys), ("name", names)]).unwrap();
            writer.keyed("groups", rows, &groups).unwrap();
            let watermark: ArrayRef = Arc::new(Int64Array::from(vec![7]));
            writer.unkeyed("watermark", RecordBatch::try_from_iter([("watermark", watermark)]).unwrap()).unwrap();
            let state = writer.finish().unwrap();
            let file =
                files::put(files, &format!("job_1/state/{worker}"), state.to_bytes().unwrap().into()).await.unwrap();
            parts.push(StatePart { worker: worker as u64, rows: 51, file, tables: BTreeMap::new() });
        }
        let log = files::put(files, "job_1/log/1", "log".into()).await.unwrap();
        Manifest {
            format: manifest::FORMAT.into(),
            job: "job_1".into(),
            run: "run_1".into(),
            generation: 1,
            epoch: 40,
            previous: None,
            nonce: "n".into(),
            last: false,
            graph_sha256: "0".into(),
            created_us: 5,
            sources: vec![],
            operators: vec![OperatorPart { operator: "count by/key".into(), parts }],
            sinks: vec![SinkPart {
                operator: "out".into(),
                watermark_us: 5,
                committables: serde_json::json!([{"rows": 0, "payload": "", "files": [log]}]),
                files: vec![log],
            }],
            counters: Value::Null,
        }
    }

    async fn exported() -> (MemoryFiles, Savepoint) {
        let (from, to) = (MemoryFiles::default(), MemoryFiles::default());
        let description = Description { job_name: "j".into(), graph: Value::Null };
        let (savepoint, bytes) = export(&from, &checkpoint(&from).await, description, &to).await.unwrap();
        let listed: u64 = to.list("").await.unwrap().iter().map(|file| file.bytes).sum();
        assert_eq!(bytes, listed);
        (to, savepoint)
    }

    fn target(kept: &[(&str, &str)]) -> Target {
        let mut by_old: BTreeMap<String, Vec<String>> = BTreeMap::new();
        kept.iter().for_each(|(old, new)| by_old.entry(old.to_string()).or_default().push(new.to_string()));
        let kept = by_old;
        Target { job: "job_2".into(), run: "run_9".into(), epoch: 3, kept }
    }

    fn sorted(reader: &SnapshotReader) -> Vec<(i64, String)> {
        let mut rows = Vec::new();
        for batch in reader.table("groups").unwrap() {
            let keys = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec();
            let names = batch.column(1).as_string::<i32>();
            rows.extend(keys.into_iter().zip(names.iter().map(|name| name.unwrap().to_owned())));
        }
        rows.sort();
        rows
    }

    #[tokio::test]
    async fn what_is_exported_is_imported_by_another_job_with_any_number_of_workers() {
        let (place, savepoint) = exported().await;
        assert_eq!(open(&place).await.unwrap(), savepoint);
        let table = &savepoint.operators[0].tables[0];
        assert_eq!((table.rows, table.keyed, table.columns.len()), (100, true, 2));
        assert!(table.files[0].file.path.starts_with("state/count_by_key/groups/"), "{:?}", table.files);
        let to = MemoryFiles::default();
        let kept = target(&[("count by/key", "sums"), ("count by/key", "copy"), ("out", "out"), ("out", "twin")]);
        let file = import(&place, &savepoint, &kept, &to).await.unwrap();
        let manifest = Manifest::open(&to, &file, "job_2", 3).await.unwrap();
        let state = manifest.load(&to).await.unwrap();
        let mut all = Vec::new();
        for worker in 0..3 {
            let reader = state.reader("sums", worker, 3);
            all.extend(sorted(&reader));
            assert_eq!(sorted(&reader), sorted(&state.reader("copy", worker, 3)));
            assert!(reader.all("watermark").unwrap().iter().all(|rows| rows.num_rows() > 0));
        }
        all.sort();
        let wanted: Vec<(i64, String)> = (0..100).map(|key| (key, format!("name {}", key / 2))).collect();
        assert_eq!(all, wanted);
        assert_eq!(files::get(&to, &manifest.sinks[0].files[0]).await.unwrap(), "log");
        assert_eq!((manifest.sinks.len(), &manifest.sinks[1].files), (2, &manifest.sinks[0].files));
        assert_eq!(manifest.sinks[0].committables[0]["files"][0]["path"], manifest.sinks[0].files[0].path.as_str());
    }

    #[tokio::test]
    async fn state_that_nobody_wants_is_left_out() {
        let (place, savepoint) = exported().await;
        let to = MemoryFiles::default();
        let file = import(&place, &savepoint, &target(&[]), &to).await.unwrap();
        let manifest = Manifest::open(&to, &file, "job_2", 3).await.unwrap();
        assert!(manifest.operators.is_empty() && manifest.sinks.is_empty());
        assert_eq!(to.list("").await.unwrap().len(), 1, "nothing but the manifest");
    }

    /// Whatever is done to one file of a savepoint, it is refused, and the file is named.
    #[tokio::test]
    async fn every_change_of_a_file_is_found() {
        let (pristine, savepoint) = exported().await;
        let names: Vec<String> = pristine.list("").await.unwrap().into_iter().map(|file| file.path).collect();
        assert!(names.len() >= 4, "{names:?}");
        for name in names.iter().filter(|name| *name != MANIFEST) {
            let content = pristine.read(name).await.unwrap().unwrap();
            let mut flipped = content.to_vec();
            flipped[content.len() / 2] ^= 1;
            let changes = [None, Some(content[..content.len() - 1].to_vec()), Some(flipped), Some(Vec::new())];
            for changed in changes {
                let (place, _) = exported().await;
                match changed {
                    Some(changed) => place.write(name, changed.into()).await.unwrap(),
                    None => place.remove(name).await.unwrap(),
                }
                let refused = import(&place, &savepoint, &target(&[]), &MemoryFiles::default()).await.unwrap_err();
                assert!(refused.to_string().contains(name.as_str()), "{name}: {refused}");
                let found = check(&place, &savepoint, Duration::MAX).await.unwrap_err();
                assert!(found.to_string().contains(name.as_str()) && found.code() == "savepoint_corrupt", "{found}");
            }
        }
        assert!(check(&pristine, &savepoint, Duration::MAX).await.unwrap());
        // Whatever letter of the manifest is changed, where it stays readable.
        let text = String::from_utf8(pristine.read(MANIFEST).await.unwrap().unwrap().to_vec()).unwrap();
        for (from, to) in [("\"epoch\": 40", "\"epoch\": 41"), ("\"rows\": 100", "\"rows\": 101"), ("name", "nams")] {
            let edited = text.replacen(from, to, 1);
            assert_ne!(edited, text);
            pristine.write(MANIFEST, edited.into()).await.unwrap();
            assert_eq!(open(&pristine).await.unwrap_err().code(), "savepoint_corrupt", "{from}");
        }
        let place = MemoryFiles::default();
        assert_eq!(open(&place).await.unwrap_err().code(), "savepoint_not_found");
        place.write(MANIFEST, r#"{"format": "highwater-savepoint/2"}"#.into()).await.unwrap();
        assert_eq!(open(&place).await.unwrap_err().code(), "savepoint_format");
        place.write(MANIFEST, "{}".into()).await.unwrap();
        assert_eq!(open(&place).await.unwrap_err().code(), "savepoint_corrupt");
    }

    /// However it is cut, all of it arrives, and no key group is in two files.
    #[tokio::test]
    async fn a_table_is_cut_between_key_groups() {
        let from = MemoryFiles::default();
        let checkpoint = checkpoint(&from).await;
        for (written, read, files) in [(1, 1, 66..=100), (7, 40, 10..=15), (1000, 7, 1..=1), (30, 1000, 4..=4)] {
            let (place, to) = (MemoryFiles::default(), MemoryFiles::default());
            let description = Description { job_name: "j".into(), graph: Value::Null };
            let (savepoint, _) = export_in_pieces(&from, &checkpoint, description, &place, written).await.unwrap();
            let table = savepoint.operators[0].tables.iter().find(|table| table.keyed).unwrap();
            assert!(files.contains(&table.files.len()), "{written}: {} files", table.files.len());
            for pair in table.files.windows(2) {
                assert!(pair[0].key_groups.unwrap()[1] < pair[1].key_groups.unwrap()[0], "{pair:?}");
            }
            assert!(check(&place, &savepoint, Duration::MAX).await.unwrap());
            let kept = target(&[("count by/key", "sums")]);
            let file = import_in_pieces(&place, &savepoint, &kept, &to, read).await.unwrap();
            let manifest = Manifest::open(&to, &file, "job_2", 3).await.unwrap();
            assert_eq!(manifest.operators[0].parts.len(), 100usize.div_ceil(read));
            let state = manifest.load(&to).await.unwrap();
            for workers in [1, 3, manifest.operators[0].parts.len()] {
                let readers = (0..workers).map(|worker| state.reader("sums", worker, workers));
                let mut all: Vec<(i64, String)> = Vec::new();
                for (worker, reader) in readers.enumerate() {
                    let marks: usize = reader.all("watermark").unwrap().iter().map(RecordBatch::num_rows).sum();
                    assert_eq!(marks, 2, "each worker gets all of a table without keys");
                    let rows = sorted(&reader);
                    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
                    let groups = key_groups(&key_hashes(std::slice::from_ref(&keys), rows.len()), KEY_GROUPS);
                    assert!(groups.iter().all(|&group| crate::owner(group, workers) == worker));
                    all.extend(rows);
                }
                all.sort();
                assert_eq!(all, (0..100).map(|key| (key, format!("name {}", key / 2))).collect::<Vec<_>>());
            }
        }
    }
}
