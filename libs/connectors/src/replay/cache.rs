//! Rows in order of arrival, as Arrow IPC files: sorted once, then only read.
//!
//! A cache is a directory named by the hash of all that decides its content: the files as they are, the columns, the format's options,
//! disorder and seed. It is made under another name and renamed when whole. Sorting is done in memory: the wanted columns of all
//! rows must fit.

use std::fs;
use std::io::BufReader;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::error::ArrowError;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use engine::{BadRecord, RowPositions, RunError, Source, SplitStart};
use serde::{Deserialize, Serialize};

use crate::files::columns::microseconds;
use crate::files::{Decoded, FilesystemSource, manifest};
use crate::generator::{below, draw, stream};

/// Rows per block of the cache.
pub(super) const BLOCK_ROWS: usize = 64 * 1024;
/// Caches that nobody used for this long are removed.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Beyond this size in all, those go that were not used for longest.
const KEPT_BYTES: u64 = 8 << 30;
/// Column of arrival keys; no SQL name has a NUL.
const KEY: &str = "\0arrival";
/// Rows per batch while reading the files.
const READ_ROWS: usize = 8192;

/// What decides the order, besides the files.
pub struct Parts {
    pub disorder_us: i64,
    pub seed: u64,
    pub splits: u64,
    pub time_column: Option<String>,
    /// Columns that readers want: the first of those that the files give.
    pub columns: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Info {
    /// Rows of each split.
    pub rows: Vec<u64>,
    /// The least arrival key of all rows.
    pub first_key: i64,
    bad: Vec<Bad>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Bad {
    position: i64,
    code: String,
    message: String,
    payload: Vec<u8>,
}

impl Info {
    pub fn bad_records(&self) -> Vec<BadRecord> {
        let record = |bad: &Bad| BadRecord {
            position: bad.position,
            code: bad.code.clone(),
            message: bad.message.clone(),
            payload: bad.payload.clone(),
        };
        self.bad.iter().map(record).collect()
    }
}

pub struct Cache {
    directory: PathBuf,
    /// While it is held, nobody removes the directory.
    lock: Option<Arc<fs::File>>,
    pub info: Info,
}

fn failed(path: &Path, error: impl std::fmt::Display) -> RunError {
    RunError::external("replay_cache_failed", format!("cannot use the replay cache {}: {error}", path.display()))
        .hint("its place is the directory for temporary files; set TMPDIR to another one")
}

/// Directory of all caches of this user.
fn home() -> Result<PathBuf, RunError> {
    let own = fs::metadata("/proc/self").map_or(0, |meta| meta.uid());
    let home = std::env::temp_dir().join(format!("highwater-replay-{own}"));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&home);
    made.map_err(|error| failed(&home, error))?;
    // Somebody else's directory could be filled by them.
    let meta = fs::symlink_metadata(&home).map_err(|error| failed(&home, error))?;
    if !meta.is_dir() || meta.uid() != own {
        return Err(failed(&home, "it belongs to another user"));
    }
    Ok(home)
}

/// The cache for these files, made now if there is none.
pub async fn open_or_make(files: Arc<FilesystemSource>, parts: Parts) -> Result<Cache, RunError> {
    let splits = files.splits().await?;
    let identity = serde_json::json!([
        "1",
        splits,
        files.identity(),
        parts.disorder_us,
        parts.seed,
        parts.splits,
        parts.time_column,
        parts.columns
    ]);
    let name = manifest::hash(identity.to_string().as_bytes());
    let home = home()?;
    let directory = home.join(&name[..32]);
    let known = directory.clone();
    let blocking =
        |error: tokio::task::JoinError| RunError::internal(format!("the replay cache was not made: {error}"));
    if let Some(cache) = tokio::task::spawn_blocking(move || open(known)).await.map_err(blocking)? {
        return Ok(cache);
    }
    let starts = splits
        .into_iter()
        .enumerate()
        .map(|(number, split)| SplitStart { number: number as u32, split, position: None })
        .collect();
    let mut rows = Rows::default();
    let time = parts.time_column.as_ref().and_then(|name| files.schema().index_of(name).ok());
    let mut reading = files.clone().decoded(starts, READ_ROWS);
    while let Some(event) = reading.next().await {
        if let Decoded::Rows { split, rows: batch, positions, bad, .. } = event? {
            rows.add(split, batch, &positions, bad, time, &parts)?;
        }
    }
    tokio::task::spawn_blocking(move || rows.write(&home, directory, &parts)).await.map_err(blocking)?
}

fn open(directory: PathBuf) -> Option<Cache> {
    let lock = lock(&directory);
    let text = fs::read(directory.join("info.json")).ok()?;
    let info = serde_json::from_slice(&text).ok()?;
    // Used now: not to be removed soon.
    let _ = fs::File::open(directory.join("info.json")).and_then(|file| file.set_modified(SystemTime::now()));
    Some(Cache { directory, info, lock })
}

/// As far as the file system can.
fn lock(directory: &Path) -> Option<Arc<fs::File>> {
    let directory = fs::File::open(directory).ok()?;
    directory.lock_shared().ok()?;
    Some(Arc::new(directory))
}

/// All rows while they are read.
#[derive(Default)]
struct Rows {
    batches: Vec<RecordBatch>,
    /// Arrival, split of the replay, batch and row, in the order of the files.
    order: Vec<(i64, u32, u32, u32)>,
    /// Key of the row before, in the same split of the files.
    before: Option<(u32, i64)>,
    bad: Vec<Bad>,
}

impl Rows {
    fn add(
        &mut self,
        split: u32,
        batch: RecordBatch,
        positions: &RowPositions,
        bad: Vec<BadRecord>,
        time: Option<usize>,
        parts: &Parts,
    ) -> Result<(), RunError> {
        let plain =
            |bad: BadRecord| Bad { position: bad.position, code: bad.code, message: bad.message, payload: bad.payload };
        self.bad.extend(bad.into_iter().map(plain));
        let times: Option<Int64Array> = time.and_then(|column| microseconds(batch.column(column)));
        let (disorder, dealing) =
            (stream(parts.seed, 2 * u64::from(split)), stream(parts.seed, 2 * u64::from(split) + 1));
        let number = self.batches.len() as u32;
        for row in 0..batch.num_rows() {
            let position = match positions {
                RowPositions::From(first) => *first as u64 + row as u64,
                RowPositions::Each(each) => each.value(row) as u64,
            };
            let own = times.as_ref().filter(|times| times.is_valid(row)).map(|times| {
                let delay = below(draw(disorder, position), parts.disorder_us as u64 + 1);
                times.value(row).saturating_add(delay as i64)
            });
            let before = self.before.filter(|(of, _)| *of == split).map(|(_, key)| key);
            let key = own.or(before).unwrap_or(if time.is_some() { i64::MIN } else { 0 });
            self.before = Some((split, key));
            let dealt = below(draw(dealing, position), parts.splits) as u32;
            self.order.push((key, dealt, number, row as u32));
        }
        let wanted: Vec<usize> = (0..parts.columns).collect();
        self.batches.push(batch.project(&wanted).map_err(|error| RunError::internal(error.to_string()))?);
        Ok(())
    }

    fn write(mut self, home: &Path, directory: PathBuf, parts: &Parts) -> Result<Cache, RunError> {
        // Stable by file order, because batch and row ascend in it.
        self.order.sort_unstable_by_key(|(key, _, batch, row)| (*key, *batch, *row));
        let staged = home.join(format!(".{}", uuid::Uuid::new_v4()));
        let made = self.write_to(&staged, parts);
        let renamed = made.and_then(|info| {
            match fs::rename(&staged, &directory) {
                // Another process was faster; what it made is the same.
                Err(_) if directory.join("info.json").is_file() => {
                    let _ = fs::remove_dir_all(&staged);
                }
                result => result.map_err(|error| failed(&directory, error))?,
            }
            Ok(info)
        });
        if renamed.is_err() {
            let _ = fs::remove_dir_all(&staged);
        }
        remove_old(home, &directory, KEPT_BYTES);
        Ok(Cache { info: renamed?, lock: lock(&directory), directory })
    }

    fn write_to(&self, staged: &Path, parts: &Parts) -> Result<Info, RunError> {
        let disk = |error: std::io::Error| failed(staged, error);
        let arrow = |error: ArrowError| failed(staged, error);
        fs::DirBuilder::new().mode(0o700).create(staged).map_err(disk)?;
        let mut rows = vec![0; parts.splits as usize];
        for (split, rows) in rows.iter_mut().enumerate() {
            let own: Vec<(i64, usize, usize)> = self
                .order
                .iter()
                .filter(|(_, dealt, ..)| *dealt as usize == split)
                .map(|(key, _, batch, row)| (*key, *batch as usize, *row as usize))
                .collect();
            *rows = own.len() as u64;
            let Some(first) = self.batches.first() else { continue };
            let mut fields = first.schema().fields().to_vec();
            fields.push(Arc::new(Field::new(KEY, DataType::Int64, false)));
            let schema = Arc::new(Schema::new(fields));
            let file = fs::File::create(staged.join(format!("{split}.arrow"))).map_err(disk)?;
            let mut writer = FileWriter::try_new_buffered(file, &schema).map_err(arrow)?;
            let batches: Vec<&RecordBatch> = self.batches.iter().collect();
            for block in own.chunks(BLOCK_ROWS) {
                let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(block.iter().map(|(key, ..)| *key)));
                let mut columns = if parts.columns == 0 {
                    vec![]
                } else {
                    let indices: Vec<(usize, usize)> = block.iter().map(|(_, batch, row)| (*batch, *row)).collect();
                    interleave_record_batch(&batches, &indices).map_err(arrow)?.columns().to_vec()
                };
                columns.push(keys);
                writer.write(&RecordBatch::try_new(schema.clone(), columns).map_err(arrow)?).map_err(arrow)?;
            }
            writer.finish().map_err(arrow)?;
        }
        let first_key = self.order.iter().map(|(key, ..)| *key).find(|key| *key > i64::MIN).unwrap_or(0);
        let info = Info { rows, first_key, bad: self.bad.clone() };
        let text = serde_json::to_vec(&info).expect("numbers and texts are plain data");
        fs::write(staged.join("info.json"), text).map_err(disk)?;
        Ok(info)
    }
}

/// Removes caches that were not used for long, and the longest unused ones while all are too large together; never `own`, and none that
/// a run is reading. As far as possible: caches are only copies.
fn remove_old(home: &Path, own: &Path, limit: u64) {
    let mut caches: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(home).into_iter().flatten().flatten() {
        let path = entry.path();
        let used = path.join("info.json").metadata().or_else(|_| entry.metadata()).and_then(|meta| meta.modified());
        if let Ok(used) = used {
            let files = fs::read_dir(&path).into_iter().flatten().flatten();
            let size = files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum();
            caches.push((used, size, path));
        }
    }
    let mut total: u64 = caches.iter().map(|(_, size, _)| size).sum();
    caches.sort();
    for (used, size, path) in caches {
        // A hidden one is being made by another process.
        let being_made = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let old = used.elapsed().is_ok_and(|age| age > KEPT);
        if path == own || !old && (being_made || total <= limit) {
            continue;
        }
        let free = fs::File::open(&path).is_ok_and(|directory| directory.try_lock().is_ok());
        if free && fs::remove_dir_all(&path).is_ok() {
            total -= size;
        }
    }
}

impl Cache {
    pub fn reader(&self, split: usize) -> Result<SplitReader, RunError> {
        Ok(SplitReader {
            path: self.directory.join(format!("{split}.arrow")),
            rows: self.info.rows[split],
            _lock: self.lock.clone(),
            open: Arc::default(),
        })
    }
}

/// Reads the blocks of a split.
#[derive(Clone)]
pub struct SplitReader {
    path: PathBuf,
    rows: u64,
    _lock: Option<Arc<fs::File>>,
    /// Opened at the first block. Only one block is read at a time.
    open: Arc<std::sync::Mutex<Option<FileReader<BufReader<fs::File>>>>>,
}

impl SplitReader {
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The rest of the block that holds this row, without the keys, and the keys.
    pub fn block_at(&self, row: u64) -> Result<(RecordBatch, ArrayRef), RunError> {
        let read = || -> Result<RecordBatch, ArrowError> {
            let mut open = self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let reader = match &mut *open {
                Some(reader) => reader,
                none => none.insert(FileReader::try_new_buffered(fs::File::open(&self.path)?, None)?),
            };
            reader.set_index((row / BLOCK_ROWS as u64) as usize)?;
            let block = reader.next().ok_or_else(|| ArrowError::IpcError("a block is missing".into()))??;
            let skip = (row % BLOCK_ROWS as u64) as usize;
            Ok(block.slice(skip, block.num_rows() - skip))
        };
        let block = read().map_err(|error| failed(&self.path, error))?;
        let last = block.num_columns() - 1;
        let keys = block.column(last).clone();
        debug_assert!(keys.as_primitive::<Int64Type>().values().is_sorted(), "blocks are in order of arrival");
        let wanted: Vec<usize> = (0..last).collect();
        let rows = block.project(&wanted).map_err(|error| failed(&self.path, error))?;
        Ok((rows, keys))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn caches_that_are_old_or_too_many_are_removed() {
        let home = tempfile::tempdir().unwrap();
        let make = |name: &str, bytes: usize, hours: u64| {
            let directory = home.path().join(name);
            fs::create_dir(&directory).unwrap();
            fs::write(directory.join("0.arrow"), vec![0; bytes]).unwrap();
            let info = fs::File::create(directory.join("info.json")).unwrap();
            info.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
            directory
        };
        let left = || {
            let entries = fs::read_dir(home.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names.join(" ")
        };
        make("a", 1, 8 * 24);
        let in_use = make("b", 100, 8 * 24);
        make("c", 100, 30);
        make("d", 100, 20);
        make("e", 100, 10);
        make(".making", 100, 40);
        let own = make("own", 100, 50);
        let held = lock(&in_use).unwrap();
        remove_old(home.path(), &own, 600);
        assert_eq!(left(), ".making b c d e own", "only what nobody used for a week");
        remove_old(home.path(), &own, 450);
        assert_eq!(left(), ".making b e own", "the longest unused first, as many as needed");
        drop(held);
        remove_old(home.path(), &own, 600);
        assert_eq!(left(), ".making e own");
    }
}
