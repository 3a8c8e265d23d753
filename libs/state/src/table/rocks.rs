//! A table in RocksDB: on the local disk, with as much memory as it is given.
//!
//! Each table is a database of its own in a scratch directory, because operators are frozen at different moments of an epoch. Nothing is
//! logged ahead and nothing in the directory outlives the process: checkpoints are the durability. Large batches are written as a sorted
//! file that RocksDB takes in as it is; only small ones go through its memory. All tables of a process share one cache for blocks, index
//! blocks and write buffers ([`RocksMemory`]).

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, RecordBatch};
use futures::future::BoxFuture;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, DB, DBCompressionType, IngestExternalFileOptions, LogLevel, Options,
    ReadOptions, SstFileWriter, WriteBatch, WriteBufferManager, WriteOptions,
};

use super::codec::{Codec, Encoded, Keys, Taken, span};
use super::cursor::{Cursor, Judgement};
use super::part::{Freeze, Namer, PartFile, ROCKS, Saved, TablePart, fetch};
use super::{Found, Result, Table, TableError, TableSchema, io_failed};
use crate::files::{self, FileRef, Files};

/// See [`RocksTable::ingest_bytes`].
const INGEST_BYTES: usize = 1 << 20;
/// Keys looked up at once: the blocks of their values are held in memory meanwhile.
const LOOK_UP_KEYS: usize = 256;
/// So many files that are not merged yet are merged.
const UNMERGED_WANTED: i32 = 8;
/// More files than this that are not merged yet make look-ups slow: the writer waits.
const UNMERGED_MAX: u64 = 24;
/// For so long a table waits for its files to be merged, before it takes the disk for broken.
const MERGES_MAX: Duration = Duration::from_secs(300);
const COLUMN_FAMILY: &str = "default";

/// The memory that all tables of a process share.
#[derive(Clone)]
pub struct RocksMemory {
    cache: Cache,
    buffers: WriteBufferManager,
}

impl RocksMemory {
    /// `bytes` for cached blocks, indexes, filters and write buffers together.
    pub fn new(bytes: usize) -> RocksMemory {
        let cache = Cache::new_lru_cache(bytes);
        // What buffers take, the cache gives up.
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(bytes / 4, false, cache.clone());
        RocksMemory { cache, buffers }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.cache.get_usage()
    }
}

/// A directory that goes with its last user.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is removed with the directory that it is in, by whoever made that.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Scratch {
    fn new(path: &Path) -> Result<Arc<Scratch>> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io_failed("emptying", path, error));
            }
            _ => {}
        }
        fs::create_dir_all(path).map_err(|error| io_failed("making", path, error))?;
        Ok(Arc::new(Scratch(path.to_owned())))
    }

    fn rows(&self) -> PathBuf {
        self.0.join("rows")
    }
}

pub struct RocksTable {
    codec: Codec,
    options: Options,
    // Before the directory, which goes when it is dropped.
    db: Arc<DB>,
    /// What was frozen last, perhaps still being made: nothing is written before it is.
    freezing: Option<Arc<Freezing>>,
    scratch: Arc<Scratch>,
    /// Batches of at least this many bytes become files of their own.
    pub(super) ingest_bytes: usize,
    /// Numbers files and checkpoints made here.
    made: u64,
    written: Written,
}

/// Files of rows that checkpoints have written, by their names here. RocksDB gives each name once and never changes such a file.
type Written = Arc<Mutex<HashMap<String, FileRef>>>;

impl RocksTable {
    /// An empty table. `scratch` is a directory for it alone: whatever is there is removed, now and when the table is dropped.
    pub fn create(schema: TableSchema, scratch: &Path, memory: &RocksMemory) -> Result<RocksTable> {
        let codec = Codec::new(schema)?;
        let scratch = Scratch::new(scratch)?;
        RocksTable::start(codec, scratch, memory, HashMap::new())
    }

    /// The table of a part, whole.
    ///
    /// # Errors
    /// `Format` and `Foreign` for what this table is not; `File` for a file that is missing or not what was written: RocksDB is not
    /// asked then.
    pub async fn open(
        schema: TableSchema,
        part: &TablePart,
        files: &dyn Files,
        scratch: &Path,
        memory: &RocksMemory,
    ) -> Result<RocksTable> {
        let codec = Codec::new(schema)?;
        let scratch = Scratch::new(scratch)?;
        fs::create_dir_all(scratch.rows()).map_err(|error| io_failed("making", &scratch.0, error))?;
        fetch(part, &codec.schema, files, &scratch.rows()).await?;
        let rows = part.files.iter().filter(|file| is_rows(&file.name));
        let written = rows.map(|file| (file.name.clone(), file.file.clone())).collect();
        if !part.files.iter().any(|file| file.name == "CURRENT") {
            let (place, reason) = (files.shown(), "it lacks the file that says what is current".to_owned());
            return Err(TableError::Damaged { place, reason });
        }
        RocksTable::start(codec, scratch, memory, written)
    }

    fn start(
        codec: Codec,
        scratch: Arc<Scratch>,
        memory: &RocksMemory,
        written: HashMap<String, FileRef>,
    ) -> Result<RocksTable> {
        let options = options(memory);
        let db = DB::open_cf_with_opts(&options, scratch.rows(), [(COLUMN_FAMILY, options.clone())]);
        let db = db.map_err(|error| TableError::Damaged {
            place: scratch.0.display().to_string(),
            reason: error.into_string(),
        })?;
        let (made, written) = (0, Arc::new(Mutex::new(written)));
        let db = Arc::new(db);
        Ok(RocksTable { codec, options, db, freezing: None, scratch, ingest_bytes: INGEST_BYTES, made, written })
    }

    fn rows(&self) -> &ColumnFamily {
        self.db.cf_handle(COLUMN_FAMILY).expect("the database was opened with it")
    }

    fn failed(&self, action: &'static str) -> impl Fn(rocksdb::Error) -> TableError {
        let place = self.scratch.0.display().to_string();
        move |error| TableError::Failed { action, place: place.clone(), reason: error.into_string() }
    }

    fn damaged(&self, reason: String) -> TableError {
        TableError::Damaged { place: self.scratch.0.display().to_string(), reason }
    }

    /// Waits for what was frozen: it has what is in the table up to now.
    fn settle(&mut self) -> Result<()> {
        match self.freezing.take() {
            Some(freezing) => {
                let _ = freezing.asked.set(Instant::now());
                freezing.wait(&self.scratch.0).map(drop)
            }
            None => Ok(()),
        }
    }

    fn new_path(&mut self, kind: &str) -> PathBuf {
        self.made += 1;
        self.scratch.0.join(format!("{kind}-{}", self.made))
    }

    fn put_keys(&mut self, keys: &Keys, values: &[ArrayRef], rows: usize) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        self.settle()?;
        let values = self.codec.values(values);
        let order = keys.sorted_last();
        if keys.bytes() + values.bytes() < self.ingest_bytes {
            self.put_small(&order, keys, &values)
        } else {
            self.put_large(&order, keys, &values)
        }
    }

    fn put_small(&self, order: &[u32], keys: &Keys, values: &Encoded) -> Result<()> {
        let mut batch = WriteBatch::default();
        for &row in order {
            batch.put_cf(self.rows(), keys.get(row), values.row(row as usize));
        }
        self.db.write_opt(batch, &unlogged()).map_err(self.failed("writing"))
    }

    /// As a file of its own: no memory table, no sorting, no copying.
    fn put_large(&mut self, order: &[u32], keys: &Keys, values: &Encoded) -> Result<()> {
        let path = self.new_path("batch");
        let failed = self.failed("writing");
        let mut writer = SstFileWriter::create(&self.options);
        writer.open(&path).map_err(&failed)?;
        for &row in order {
            writer.put(keys.get(row), values.row(row as usize)).map_err(&failed)?;
        }
        writer.finish().map_err(&failed)?;
        drop(writer);
        let mut how = IngestExternalFileOptions::default();
        how.set_move_files(true);
        self.db.ingest_external_file_cf_opts(self.rows(), &how, vec![path]).map_err(&failed)?;
        self.wait_for_merges()
    }

    /// RocksDB does not slow down whoever hands it files.
    fn wait_for_merges(&self) -> Result<()> {
        let deadline = Instant::now() + MERGES_MAX;
        let errors = || self.db.property_int_value("rocksdb.background-errors").ok().flatten().unwrap_or(0);
        loop {
            if errors() > 0 || Instant::now() > deadline {
                let reason = "its files could not be merged: is there room on the disk?".to_string();
                return Err(TableError::Failed {
                    action: "merging",
                    place: self.scratch.0.display().to_string(),
                    reason,
                });
            }
            let unmerged = self.db.property_int_value_cf(self.rows(), "rocksdb.num-files-at-level0");
            if unmerged.map_err(self.failed("asking"))?.unwrap_or(0) <= UNMERGED_MAX {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn estimate(&self, property: &str) -> usize {
        self.db.property_int_value_cf(self.rows(), property).ok().flatten().unwrap_or(0) as usize
    }
}

impl Drop for RocksTable {
    fn drop(&mut self) {
        // Whoever waits for it is told of its failure.
        let _ = self.settle();
        // A merge that nobody needs any more need not be finished.
        self.db.cancel_all_background_work(true);
    }
}

fn unlogged() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

fn options(memory: &RocksMemory) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&memory.cache);
    // A row that is looked up costs a block.
    blocks.set_block_size(4 << 10);
    blocks.set_bloom_filter(10.0, false);
    // Else indexes and filters of all files would be held beside the cache, whatever their size.
    blocks.set_cache_index_and_filter_blocks(true);
    blocks.set_cache_index_and_filter_blocks_with_high_priority(true);
    blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks);
    options.create_if_missing(true);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_manager(&memory.buffers);
    options.set_write_buffer_size(8 << 20);
    // Small enough to be read whole when a checkpoint writes one.
    options.set_target_file_size_base(16 << 20);
    options.set_max_bytes_for_level_base(128 << 20);
    // Each merge with the next level writes most of it again, and then checkpoints do: it is to be worth it.
    options.set_level_zero_file_num_compaction_trigger(UNMERGED_WANTED);
    options.set_max_open_files(512);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(1);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn is_rows(name: &str) -> bool {
    name.ends_with(".sst")
}

impl Table for RocksTable {
    fn schema(&self) -> &TableSchema {
        &self.codec.schema
    }

    fn get(&mut self, namespace: &[i64], keys: &[ArrayRef], rows: usize) -> Result<Found> {
        let keys = self.codec.keys(namespace, keys, rows);
        let order = keys.sorted();
        let mut bytes = Vec::new();
        let mut found: Vec<(u32, Range<usize>)> = Vec::new();
        for asked in order.chunks(LOOK_UP_KEYS) {
            let values = self.db.batched_multi_get_cf(self.rows(), asked.iter().map(|&row| keys.get(row)), true);
            for (&row, value) in asked.iter().zip(values) {
                if let Some(value) = value.map_err(self.failed("reading"))? {
                    found.push((row, bytes.len()..bytes.len() + value.len()));
                    bytes.extend_from_slice(&value);
                }
            }
        }
        found.sort_unstable_by_key(|(row, _)| *row);
        let values = self.codec.decode_values(found.iter().map(|(_, range)| &bytes[range.clone()]));
        let values = values.map_err(|reason| self.damaged(reason))?;
        Ok(Found { at: found.into_iter().map(|(row, _)| row).collect(), values })
    }

    fn put(&mut self, namespace: &[i64], keys: &[ArrayRef], values: &[ArrayRef], rows: usize) -> Result<()> {
        let keys = self.codec.keys(namespace, keys, rows);
        self.put_keys(&keys, values, rows)
    }

    fn put_all(&mut self, namespaces: &[ArrayRef], keys: &[ArrayRef], values: &[ArrayRef], rows: usize) -> Result<()> {
        let keys = self.codec.keys_of(namespaces, keys, rows);
        self.put_keys(&keys, values, rows)
    }

    fn remove(&mut self, namespace: &[i64], keys: &[ArrayRef], rows: usize) -> Result<()> {
        if rows == 0 {
            return Ok(());
        }
        self.settle()?;
        let keys = self.codec.keys(namespace, keys, rows);
        let mut batch = WriteBatch::default();
        keys.sorted_last().into_iter().for_each(|row| batch.delete_cf(self.rows(), keys.get(row)));
        self.db.write_opt(batch, &unlogged()).map_err(self.failed("writing"))
    }

    fn remove_namespaces(&mut self, first: &[i64], last: &[i64]) -> Result<()> {
        self.settle()?;
        let span = span(first, last);
        let (failed, unlogged) = (self.failed("writing"), unlogged());
        self.db.delete_range_cf_opt(self.rows(), &span.start, &span.end, &unlogged).map_err(&failed)?;
        // Files that hold nothing else go at once.
        self.db.delete_file_in_range_cf(self.rows(), &span.start, &span.end).map_err(&failed)
    }

    fn scan(&mut self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<RecordBatch>> {
        if cursor.next() >= cursor.end() {
            return Ok(None);
        }
        let mut how = ReadOptions::default();
        how.set_iterate_upper_bound(cursor.end().to_vec());
        // What is read once must not push out what is looked up again and again.
        how.fill_cache(false);
        let mut taken = Taken::default();
        let mut rows = self.db.raw_iterator_cf_opt(self.rows(), how);
        rows.seek(cursor.next());
        while taken.len() < rows_max
            && let Some((key, values)) = rows.item()
        {
            match cursor.judge(key) {
                Judgement::Take => {
                    taken.push(key, values);
                    rows.next();
                }
                Judgement::Seek(to) => rows.seek(to),
                Judgement::Malformed => return Err(self.damaged("a key is too short".to_owned())),
            }
        }
        rows.status().map_err(self.failed("reading"))?;
        let Some(last) = taken.last_key() else {
            cursor.finish();
            return Ok(None);
        };
        cursor.pass(last);
        self.codec.decode(&taken).map(Some).map_err(|reason| self.damaged(reason))
    }

    fn bytes(&self) -> usize {
        self.estimate("rocksdb.estimate-live-data-size") + self.estimate("rocksdb.cur-size-all-mem-tables")
    }

    fn freeze(&mut self) -> Result<Box<dyn Freeze>> {
        self.settle()?;
        let directory = self.new_path("frozen");
        let made = Freezing::begin(self.db.clone(), directory.clone());
        self.freezing = Some(made.clone());
        let schema = self.codec.schema.clone();
        Ok(Box::new(Frozen { schema, directory, made, written: self.written.clone(), _scratch: self.scratch.clone() }))
    }
}

/// A checkpoint of RocksDB that is made by a thread of its own: it writes what is in memory first, waits for the disk, and then makes links.
struct Freezing {
    making: Mutex<Making>,
    /// When a write to the table first had to wait for it, if one had.
    asked: OnceLock<Instant>,
}

/// When it was made.
type Made = std::result::Result<Instant, String>;

enum Making {
    Running(Option<JoinHandle<Made>>),
    Done(Made),
}

impl Freezing {
    fn begin(db: Arc<DB>, directory: PathBuf) -> Arc<Freezing> {
        let make = move || {
            let made = Checkpoint::new(&db).and_then(|checkpoint| checkpoint.create_checkpoint(&directory));
            made.map(|()| Instant::now()).map_err(rocksdb::Error::into_string)
        };
        let making = Mutex::new(Making::Running(Some(std::thread::spawn(make))));
        Arc::new(Freezing { making, asked: OnceLock::new() })
    }

    /// Returns when it was made.
    fn wait(&self, place: &Path) -> Result<Instant> {
        let mut making = self.making.lock().expect("nothing panics while it waits");
        if let Making::Running(thread) = &mut *making {
            let thread = thread.take().expect("whoever took it has left what it gave");
            *making = Making::Done(thread.join().unwrap_or_else(|_| Err("it panicked".to_owned())));
        }
        let Making::Done(made) = &*making else { unreachable!("it was just waited for") };
        let failed = |reason: &String| TableError::Failed {
            action: "freezing",
            place: place.display().to_string(),
            reason: reason.clone(),
        };
        made.as_ref().copied().map_err(failed)
    }
}

/// Links to the files of a table as of one moment.
struct Frozen {
    schema: TableSchema,
    directory: PathBuf,
    made: Arc<Freezing>,
    written: Written,
    _scratch: Arc<Scratch>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = self.made.wait(&self.directory);
        // The links go with the table's directory at the latest.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Frozen {
    fn names(&self) -> std::io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // Options are those of whoever opens it, and logs are empty.
            if !name.starts_with("OPTIONS") && !name.ends_with(".log") {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn written(&self, name: &str) -> Option<FileRef> {
        self.written.lock().expect("nothing panics while it holds the list").get(name).cloned()
    }
}

impl Freeze for Frozen {
    fn save<'a>(self: Box<Self>, to: &'a dyn Files, name: Namer<'a>) -> BoxFuture<'a, Result<Saved>> {
        Box::pin(async move {
            let (made, directory) = (self.made.clone(), self.directory.clone());
            let made = tokio::task::spawn_blocking(move || made.wait(&directory)).await;
            let made =
                made.unwrap_or_else(|error| Err(io_failed("freezing", &self.directory, std::io::Error::other(error))))?;
            // Whoever asks from now on does not wait.
            let held = self.made.asked.get().map_or(Duration::ZERO, |asked| made.saturating_duration_since(*asked));
            let failed = |error| io_failed("reading", &self.directory, error);
            let (mut part, mut written_bytes) = (Vec::new(), 0);
            for own in self.names().map_err(failed)? {
                if let Some(file) = self.written(&own) {
                    part.push(PartFile { name: own, file });
                    continue;
                }
                let path = self.directory.join(&own);
                let content = tokio::task::spawn_blocking(move || fs::read(path)).await;
                let content = content.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(failed)?;
                let file = files::put(to, &name(&own), content.into()).await?;
                written_bytes += file.bytes;
                part.push(PartFile { name: own, file });
            }
            let rows = part.iter().filter(|file| is_rows(&file.name));
            // Those that are gone from the table are not asked for again.
            *self.written.lock().expect("nothing panics while it holds the list") =
                rows.map(|file| (file.name.clone(), file.file.clone())).collect();
            Ok(Saved { part: TablePart::new(ROCKS, &self.schema, part), written_bytes, held })
        })
    }
}
