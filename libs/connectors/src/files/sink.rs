//! Rows to files that become visible whole, at commits.
//!
//! Writers stage: local files in `_staging/<run>`, objects under their final names; neither is a result before a manifest names it.
//! At a checkpoint all files are closed and durable. The committer creates the manifest, which is the commit, and then gives local files
//! their names. A bounded run commits once, at its end. See [`manifest`] for what is in the directory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::{
    Batch, CommitKind, Commits, Committable, Prepared, RunError, Sink, SinkCommitter, SinkContext, SinkWriter,
    WriterContext,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::{FileFormat, FilesystemOptions};
use sha2::{Digest, Sha256};
use state::{SnapshotReader, SnapshotWriter};
use tokio::sync::mpsc::UnboundedSender;

use super::check::{Division, check_path, divided};
use super::encode::{Encoder, extension};
use super::error::{FileError, Result};
use super::listing::{self, below, escaped, join, partition_directory};
use super::manifest::{self, DataFile, FILE_PREFIX, FORMAT, Manifest, STAGING};
use super::reach::Reach;
use super::staging;
use super::store::{Location, Store, blocking, output_failed};
use super::upload::{self, Command};
use crate::types::type_word;

/// Files that a writer has open at once; more partitions than this close the one that was written to least recently.
const OPEN_FILES_MAX: usize = 64;
/// Encoded bytes are handed over for writing when there are this many.
const HAND_OVER_BYTES: usize = 256 * 1024;
/// A writer that ends waits this long for its last file to be closed and removed.
const END_WAIT: Duration = Duration::from_secs(3);
/// Longest name of a directory that every local file system takes.
const NAME_BYTES_MAX: usize = 255;

/// A directory of files.
pub struct FilesystemSink {
    /// Shared by the writers.
    shape: Arc<Shape>,
}

/// What is the same for all writers of a sink.
struct Shape {
    store: Store,
    directory: String,
    options: FilesystemOptions,
    /// All columns.
    schema: SchemaRef,
    /// Columns of the files, and those of the directories, by number.
    file_columns: Vec<usize>,
    partition_columns: Vec<usize>,
    file_schema: SchemaRef,
    context: SinkContext,
}

impl Shape {
    fn shown(&self) -> String {
        self.store.shown(&self.directory)
    }

    /// Tells the run's and the sink's files from those of others.
    fn token(&self) -> String {
        format!("{}-{}", escaped(&self.context.run_id), escaped(&self.context.operator))
    }

    fn columns(&self) -> Vec<(String, String)> {
        self.schema.fields().iter().map(|field| (field.name().clone(), type_word(field.data_type()))).collect()
    }

    /// What a reader of the files must be told, by the names of the options. One table has one of each.
    fn layout(&self) -> BTreeMap<String, String> {
        let (options, mut layout) = (&self.options, BTreeMap::new());
        let mut note = |name: &str, value: String| layout.insert(name.to_string(), value);
        note("format", extension(options.format).to_string());
        let partitions = self.partition_columns.iter().map(|at| self.schema.field(*at).name().as_str());
        note("PARTITIONED BY", partitions.collect::<Vec<_>>().join(", "));
        match options.format {
            FileFormat::Csv => {
                note("csv.field-delimiter", options.csv_delimiter.to_string());
                note("csv.header", options.csv_header.to_string());
                note("csv.null-literal", options.csv_null_literal.clone());
            }
            FileFormat::Json => {
                let standard = serde_json::to_value(options.json_timestamps).expect("a word is plain data");
                note("json.timestamp-format.standard", standard.as_str().unwrap_or_default().to_string());
            }
            FileFormat::Parquet => {}
        }
        layout
    }

    /// Refuses to add to what cannot be read together with it.
    fn check_continues(&self, last: &Manifest) -> Result<()> {
        let refused = |reason: String| FileError::OutputRefused { shown: self.shown(), reason };
        if last.columns != self.columns() {
            let columns: Vec<String> =
                last.columns.iter().map(|(name, data_type)| format!("{name} {data_type}")).collect();
            return Err(refused(format!("earlier runs wrote rows of other columns there: {}", columns.join(", "))));
        }
        let now = self.layout();
        let names: BTreeSet<&String> = now.keys().chain(last.layout.keys()).collect();
        let differing = names.into_iter().filter(|name| now.get(*name) != last.layout.get(*name)).map(|name| {
            let shown = |value: Option<&String>| value.map_or("not given".to_string(), |value| format!("{value:?}"));
            format!("{name} was {} and is {}", shown(last.layout.get(name)), shown(now.get(name)))
        });
        let differing: Vec<String> = differing.collect();
        if last.layout.is_empty() || differing.is_empty() {
            return Ok(());
        }
        let reason = format!(
            "earlier runs wrote there in another way, and the files could not be read together: {}; \
             write to another directory, or as before",
            differing.join("; ")
        );
        Err(refused(reason))
    }
}

impl FilesystemSink {
    /// # Errors
    /// The location is not allowed or is a pattern, the format does not take a column, the directory holds files of others (`output_exists`), or the
    /// object store cannot be used or does not create conditionally: told before a row is read.
    pub fn open(
        node: &graph::Sink,
        options: &FilesystemOptions,
        schema: SchemaRef,
        context: SinkContext,
        reach: &Reach,
    ) -> Result<FilesystemSink> {
        FilesystemSink::over(|| Location::open(options, reach), node, options, schema, context)
    }

    /// A sink over a store that `location` opens: once for the sink, once for the checks, which use a runtime of their own.
    pub fn over(
        location: impl Fn() -> Result<Location>,
        node: &graph::Sink,
        options: &FilesystemOptions,
        schema: SchemaRef,
        context: SinkContext,
    ) -> Result<FilesystemSink> {
        let opened = location()?;
        check_path(&opened)?;
        let Division { partition_columns, file_columns, file_schema } = divided(&opened, node, options, &schema)?;
        let Location { store, path } = opened;
        let directory = path.trim_end_matches('/').to_string();
        let directory = if directory.is_empty() && path.starts_with('/') { "/".to_string() } else { directory };
        let shape = Shape {
            store,
            directory,
            options: options.clone(),
            schema,
            file_columns,
            partition_columns,
            file_schema,
            context,
        };
        let checked = location()?.store;
        wait(check_directory(&shape, &checked))?;
        Ok(FilesystemSink { shape: Arc::new(shape) })
    }
}

/// Runs a future to its end on a thread and runtime of its own: sinks are opened by synchronous code, inside or outside of a runtime.
fn wait<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime
                .map_err(|error| FileError::OutputFailed { shown: "files".into(), reason: error.to_string() })?;
            runtime.block_on(future)
        });
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Foreign files in the directory are refused: rows of ours among them could not be told apart. What we wrote before is added to.
async fn check_directory(shape: &Shape, store: &Store) -> Result<()> {
    let manifests = manifest::read(store, &shape.directory).await?;
    if let Some(local) = store.local(&shape.directory)? {
        let files = manifests.iter().flat_map(|(manifest, _)| &manifest.files);
        let (own, committed) = (shape.token(), files.filter_map(|file| file.staged.clone()).collect());
        let removed = blocking(move || Ok(staging::remove_abandoned(&local, &own, &committed))).await?;
        if let Err(error) = removed {
            tracing::warn!("what runs left in {} that have died is not removed: {error}", shape.shown());
        }
    }
    if let Some((last, _)) = manifests.last() {
        shape.check_continues(last)?;
        return store.probe(&shape.directory).await;
    }
    let files = store.list(&shape.directory, listing::is_visible).await?;
    let mut names = files.iter().filter_map(|file| below(&file.path, &shape.directory));
    if let Some(foreign) = names.find(|name| name.split('/').all(listing::is_visible)) {
        return Err(FileError::OutputExists { shown: shape.shown(), file: foreign.to_string() });
    }
    store.probe(&shape.directory).await?;
    if !store.is_local() {
        // Objects have their final names before they are results: a first, empty manifest tells readers to follow manifests.
        let first = manifest_of(shape, 1, None, 0, false, vec![]);
        let first = Manifest { operator: String::new(), ..first };
        store.put_if_absent(&manifest::manifest_path(&shape.directory, 1), bytes_of(&first)).await?;
    }
    Ok(())
}

fn manifest_of(
    shape: &Shape,
    number: u64,
    previous: Option<String>,
    epoch: u64,
    last: bool,
    files: Vec<DataFile>,
) -> Manifest {
    Manifest {
        format: FORMAT.to_string(),
        number,
        previous,
        run: shape.context.run_id.clone(),
        operator: shape.context.operator.clone(),
        epoch,
        last,
        nonce: uuid::Uuid::new_v4().to_string(),
        columns: shape.columns(),
        layout: shape.layout(),
        rows: files.iter().map(|file| file.rows).sum(),
        files,
    }
}

fn bytes_of(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
    bytes.push(b'\n');
    bytes
}

impl Sink for FilesystemSink {
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        let shape = self.shape.clone();
        let fields =
            shape.partition_columns.iter().map(|at| SortField::new(shape.schema.field(*at).data_type().clone()));
        let converter = (!shape.partition_columns.is_empty()).then(|| RowConverter::new(fields.collect())).transpose();
        let converter =
            converter.map_err(|error| RunError::internal(format!("cannot compare partition columns: {error}")))?;
        Ok(Box::new(FilesystemWriter {
            commands: upload::start(shape.store.clone(), &context.tokio, context.failed.clone()),
            name: format!(
                "{FILE_PREFIX}{}-{}-{}",
                shape.token(),
                context.worker,
                &uuid::Uuid::new_v4().simple().to_string()[..12]
            ),
            worker: context.worker,
            shape,
            converter,
            partitions: HashMap::new(),
            open: vec![],
            files: 0,
            writes: 0,
            staged: vec![],
            unsynced: false,
        }))
    }

    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        Ok(Box::new(FilesystemCommitter { shape: self.shape.clone(), known: None }))
    }

    fn commits(&self) -> Commits {
        Commits::Checkpoints
    }
}

struct FilesystemWriter {
    shape: Arc<Shape>,
    worker: usize,
    commands: UnboundedSender<Command>,
    /// Beginning of the names of all files of this writer.
    name: String,
    converter: Option<RowConverter>,
    /// Directory of each partition that was seen, by its encoded values.
    partitions: HashMap<Box<[u8]>, Arc<str>>,
    open: Vec<OpenFile>,
    /// Opened so far.
    files: u64,
    /// Writes so far; says which file was written to last.
    writes: u64,
    /// Closed, and not yet handed over.
    staged: Vec<DataFile>,
    /// Whether files were opened since all were last made durable.
    unsynced: bool,
}

/// What nobody was told of goes with its writer, if the disk is quick enough before an abort looks at what is left.
impl Drop for FilesystemWriter {
    fn drop(&mut self) {
        let (reply, ended) = std::sync::mpsc::channel();
        if self.shape.store.is_local() && self.commands.send(Command::End { reply }).is_ok() {
            // What waits to be written comes first. Longer only on a slow disk; then a later run cleans up.
            let _ = ended.recv_timeout(END_WAIT);
        }
    }
}

struct OpenFile {
    number: u64,
    /// `k=v/...`, empty without partitions.
    partition: Arc<str>,
    name: String,
    encoder: Encoder,
    rows: u64,
    bytes: u64,
    hash: Sha256,
    opened: Instant,
    written: u64,
}

impl FilesystemWriter {
    fn failed(&self, reason: String) -> RunError {
        FileError::OutputFailed { shown: self.shape.shown(), reason }.into()
    }

    fn send(&self, command: Command) -> Result<(), RunError> {
        self.commands.send(command).map_err(|_| self.failed("the writing thread has ended".into()))
    }

    fn write_partition(&mut self, partition: &Arc<str>, rows: &RecordBatch, batch: &Batch) -> Result<(), RunError> {
        let at = match self.open.iter().position(|file| file.partition == *partition) {
            Some(at) => at,
            None => self.open_file(partition.clone())?,
        };
        self.writes += 1;
        let file = &mut self.open[at];
        file.written = self.writes;
        file.rows += rows.num_rows() as u64;
        if let Err(reason) = file.encoder.write(rows) {
            return Err(FileError::OutputRefused { shown: self.shape.shown(), reason }.into());
        }
        if file.encoder.ready() >= HAND_OVER_BYTES {
            let bytes = file.encoder.take();
            self.hand_over(at, bytes, batch)?;
        }
        let file = &self.open[at];
        let size = file.bytes + (file.encoder.ready() + file.encoder.unencoded()) as u64;
        let options = &self.shape.options;
        if size >= options.rolling_file_size_bytes || file.opened.elapsed() >= options.rollover_interval.duration() {
            self.close_file(at)?;
        }
        Ok(())
    }

    fn open_file(&mut self, partition: Arc<str>) -> Result<usize, RunError> {
        if self.open.len() == OPEN_FILES_MAX {
            let oldest = (0..self.open.len()).min_by_key(|at| self.open[*at].written).expect("there are open files");
            self.close_file(oldest)?;
        }
        let encoder =
            Encoder::begin(&self.shape.options, &self.shape.file_schema).map_err(|reason| self.failed(reason))?;
        let number = self.files;
        self.files += 1;
        self.unsynced = true;
        let name = format!("{}-{number:05}.{}", self.name, extension(self.shape.options.format));
        let (path, staged) = self.paths(&partition, &name);
        self.send(Command::Open { file: number, path: join(&self.shape.directory, &staged.unwrap_or(path)) })?;
        self.open.push(OpenFile {
            number,
            partition,
            name,
            encoder,
            rows: 0,
            bytes: 0,
            hash: Sha256::new(),
            opened: Instant::now(),
            written: 0,
        });
        Ok(self.open.len() - 1)
    }

    fn hand_over(&mut self, at: usize, bytes: Vec<u8>, batch: &Batch) -> Result<(), RunError> {
        let file = &mut self.open[at];
        file.bytes += bytes.len() as u64;
        file.hash.update(&bytes);
        let number = file.number;
        self.send(Command::Data { file: number, bytes, permit: batch.permit.clone() })
    }

    /// Final and staged path of a file, from the directory on.
    fn paths(&self, partition: &str, name: &str) -> (String, Option<String>) {
        let staged = self.shape.store.is_local().then(|| staging::staged(&self.shape.token(), name));
        (join(partition, name), staged)
    }

    fn close_file(&mut self, at: usize) -> Result<(), RunError> {
        let mut file = self.open.remove(at);
        let number = file.number;
        let encoder = file.encoder;
        let rest = encoder.finish().map_err(|reason| self.failed(reason))?;
        file.bytes += rest.len() as u64;
        file.hash.update(&rest);
        let sha256 = manifest::hex(file.hash.clone().finalize());
        let (path, staged) = self.paths(&file.partition, &file.name);
        self.staged.push(DataFile { path, staged, rows: file.rows, bytes: file.bytes, sha256 });
        self.send(Command::Data { file: number, bytes: rest, permit: None })?;
        self.send(Command::Close { file: number })
    }

    fn close_all(&mut self) -> Result<(), RunError> {
        while !self.open.is_empty() {
            self.close_file(0)?;
        }
        Ok(())
    }

    /// Local directories have short names; told as soon as a value is seen, not at the commit.
    fn nameable(&self, partition: &str) -> Result<(), RunError> {
        let long = partition.split('/').find(|name| name.len() > NAME_BYTES_MAX);
        let Some(long) = long.filter(|_| self.shape.store.is_local()) else { return Ok(()) };
        let (column, begin) = (long.split('=').next().unwrap_or_default(), long.chars().take(40).collect::<String>());
        let reason = format!(
            "a value of partition column {column} makes a directory name of {} bytes ({begin}...); \
             file systems take {NAME_BYTES_MAX}",
            long.len()
        );
        Err(FileError::OutputRefused { shown: self.shape.shown(), reason }.into())
    }

    /// The directory of each partition in the batch, with the numbers of its rows.
    fn partitioned(&mut self, rows: &RecordBatch) -> Result<Vec<(Arc<str>, UInt32Array)>, RunError> {
        let converter = self.converter.as_ref().expect("there are partition columns");
        let columns: Vec<ArrayRef> = self.shape.partition_columns.iter().map(|at| rows.column(*at).clone()).collect();
        let internal = |error: arrow::error::ArrowError| {
            RunError::internal(format!("cannot name a partition's directory: {error}"))
        };
        let keys = converter.convert_columns(&columns).map_err(internal)?;
        let mut found: Vec<(Arc<str>, Vec<u32>)> = Vec::new();
        let mut places: HashMap<Arc<str>, usize> = HashMap::new();
        let mut before: Option<(usize, usize)> = None;
        for row in 0..rows.num_rows() {
            // Rows of a partition often follow each other.
            if let Some((at, last)) = before
                && keys.row(last) == keys.row(row)
            {
                found[at].1.push(row as u32);
                continue;
            }
            let key = keys.row(row);
            let directory = match self.partitions.get(key.as_ref()) {
                Some(directory) => directory.clone(),
                None => {
                    let directory: Arc<str> = partition_path(&self.shape, rows, row).map_err(internal)?.into();
                    self.partitions.insert(key.as_ref().into(), directory.clone());
                    directory
                }
            };
            let at = *places.entry(directory.clone()).or_insert_with(|| {
                found.push((directory, vec![]));
                found.len() - 1
            });
            found[at].1.push(row as u32);
            before = Some((at, row));
        }
        Ok(found.into_iter().map(|(directory, rows)| (directory, UInt32Array::from(rows))).collect())
    }
}

/// `k=v/l=w` of a row.
fn partition_path(shape: &Shape, rows: &RecordBatch, row: usize) -> Result<String, arrow::error::ArrowError> {
    let options = FormatOptions::new();
    let names = shape.partition_columns.iter().map(|at| {
        let column = rows.column(*at);
        let text = match column.data_type() {
            _ if column.is_null(row) => None,
            // Read back without its zone, which is UTC.
            DataType::Timestamp(unit, Some(_)) => {
                let plain = compute::cast(&column.slice(row, 1), &DataType::Timestamp(*unit, None))?;
                Some(ArrayFormatter::try_new(&plain, &options)?.value(0).to_string())
            }
            _ => Some(ArrayFormatter::try_new(column, &options)?.value(row).to_string()),
        };
        Ok(partition_directory(shape.schema.field(*at).name(), text.as_deref()))
    });
    Ok(names.collect::<Result<Vec<_>, arrow::error::ArrowError>>()?.join("/"))
}

/// Name of the table of a snapshot.
const STAGED: &str = "staged_files";

impl SinkWriter for FilesystemWriter {
    fn write(&mut self, batch: Batch) -> Result<(), RunError> {
        if batch.kinds.as_ref().is_some_and(|kinds| kinds.values().iter().any(|kind| *kind != 0)) {
            return Err(RunError::internal("files cannot take back rows, but the plan sent updates to them"));
        }
        let files =
            |rows: &RecordBatch| rows.project(&self.shape.file_columns).expect("the columns are those of the sink");
        if self.converter.is_none() {
            let rows = files(&batch.rows);
            return self.write_partition(&Arc::from(""), &rows, &batch);
        }
        let rows = files(&batch.rows);
        for (partition, indices) in self.partitioned(&batch.rows)? {
            self.nameable(&partition)?;
            let some = if indices.len() == rows.num_rows() {
                rows.clone()
            } else {
                compute::take_record_batch(&rows, &indices)
                    .map_err(|error| RunError::internal(format!("cannot part a batch: {error}")))?
            };
            self.write_partition(&partition, &some, &batch)?;
        }
        Ok(())
    }

    fn prepare(&mut self, _: u64, kind: CommitKind, reply: Prepared) -> Result<(), RunError> {
        if kind.checkpoint || kind.last {
            self.close_all()?;
            self.unsynced = false;
        }
        // A bounded run publishes once: until then the files stay in this writer's state.
        let hand_over = if kind.last || (kind.checkpoint && !self.shape.context.bounded) {
            std::mem::take(&mut self.staged)
        } else {
            vec![]
        };
        let rows = hand_over.iter().map(|file| file.rows).sum();
        let payload = serde_json::to_vec(&hand_over).expect("a list of files is plain data");
        self.send(Command::Prepared { reply, committable: Committable { rows, payload, files: vec![] } })
    }

    fn snapshot(&mut self, _: u64, writer: &mut SnapshotWriter) -> Result<(), RunError> {
        if self.unsynced {
            // No `prepare` came before: nothing may be named by a snapshot that is not durable, or that goes with this writer.
            self.close_all()?;
            self.unsynced = false;
            let (reply, answer) = std::sync::mpsc::channel();
            self.send(Command::Synced { reply })?;
            answer.recv().map_err(|_| self.failed("the writing thread has ended".into()))??;
        }
        let files = self.staged.iter().map(|file| serde_json::to_string(file).expect("a file is plain data"));
        let column: ArrayRef = Arc::new(StringArray::from_iter_values(files));
        let schema = Arc::new(Schema::new(vec![Field::new("file", DataType::Utf8, false)]));
        let rows = RecordBatch::try_new(schema, vec![column]).expect("one column of texts");
        writer.unkeyed(STAGED, rows).map_err(|error| RunError::internal(error.to_string()))
    }

    /// Staged files belong to no key: the first worker takes all of them, however many there were and are.
    fn restore(&mut self, reader: &SnapshotReader) -> Result<(), RunError> {
        if self.worker != 0 || faults::broken("forget_staged_files") {
            return Ok(());
        }
        for rows in reader.all(STAGED).map_err(|error| RunError::internal(error.to_string()))? {
            for text in rows.column(0).as_string::<i32>().iter().flatten() {
                let file = serde_json::from_str(text)
                    .map_err(|error| RunError::internal(format!("a staged file's entry is damaged: {error}")))?;
                self.staged.push(file);
            }
        }
        Ok(())
    }
}

struct FilesystemCommitter {
    shape: Arc<Shape>,
    /// The manifests as of the last look: their number, the hash of the last one, and our epochs.
    known: Option<Known>,
}

struct Known {
    count: u64,
    last_hash: Option<String>,
    /// The last manifest, without its files.
    last: Option<Manifest>,
    epochs: HashMap<u64, Vec<DataFile>>,
    /// The paths of all files that were published, by whichever run.
    published: HashSet<String>,
}

/// Another writer may take the next number first, but not for ever.
const TRIES: usize = 100;

impl FilesystemCommitter {
    async fn look(&mut self) -> Result<&mut Known> {
        if self.known.is_none() {
            let shape = &self.shape;
            let manifests = manifest::read(&shape.store, &shape.directory).await?;
            let ours = |manifest: &Manifest| {
                manifest.run == shape.context.run_id && manifest.operator == shape.context.operator
            };
            let epochs = manifests
                .iter()
                .filter(|(manifest, _)| ours(manifest))
                .map(|(manifest, _)| (manifest.epoch, manifest.files.clone()));
            let known = Known {
                count: manifests.len() as u64,
                last_hash: manifests.last().map(|(_, hash)| hash.clone()),
                last: manifests.last().map(|(manifest, _)| Manifest { files: vec![], ..manifest.clone() }),
                epochs: epochs.collect(),
                published: manifests
                    .iter()
                    .flat_map(|(manifest, _)| &manifest.files)
                    .map(|file| file.path.clone())
                    .collect(),
            };
            self.known = Some(known);
            // Earlier runs may have been stopped between their manifest and the renames.
            for (manifest, _) in &manifests {
                if let Some(staged) = manifest.files.iter().find_map(|file| file.staged.as_ref()) {
                    let directory = staged.rsplit_once('/').map_or("", |(directory, _)| directory);
                    if shape.store.is_local_dir(&join(&shape.directory, directory))? {
                        manifest::finish(&shape.store, &shape.directory, &manifest.files).await?;
                    }
                }
            }
        }
        Ok(self.known.as_mut().expect("just looked"))
    }

    async fn publish(&mut self, epoch: u64, last: bool, files: Vec<DataFile>) -> Result<()> {
        let shape = self.shape.clone();
        for _ in 0..TRIES {
            let known = self.look().await?;
            if let Some(files) = known.epochs.get(&epoch).filter(|_| !faults::broken("publish_again")) {
                return finish(&shape, files).await;
            }
            // An earlier run of the job has published this epoch, which this one goes on from, and could not say so.
            let published = !files.is_empty() && files.iter().all(|file| known.published.contains(&file.path));
            if published && !faults::broken("publish_again") {
                return finish(&shape, &files).await;
            }
            // Since the sink was opened, another one may have begun the table.
            known.last.as_ref().map_or(Ok(()), |last| shape.check_continues(last))?;
            // After the manifest nothing may be left to go wrong that can be found before it.
            manifest::prepare(&shape.store, &shape.directory, &files).await?;
            let number = known.count + 1;
            let manifest = manifest_of(&shape, number, known.last_hash.clone(), epoch, last, files.clone());
            let (path, bytes) = (manifest::manifest_path(&shape.directory, number), bytes_of(&manifest));
            faults::reach("sink.manifest.before").await?;
            let created = shape.store.put_if_absent(&path, bytes.clone()).await;
            let created = created.and_then(|created| Ok(faults::hit("sink.manifest.after").map(|()| created)?));
            if matches!(created, Ok(true)) || self.is_there(&path, &manifest.nonce).await? {
                let before = self.known.take().expect("just looked");
                let (mut epochs, mut published) = (before.epochs, before.published);
                epochs.insert(epoch, files.clone());
                published.extend(files.iter().map(|file| file.path.clone()));
                let last = Some(Manifest { files: vec![], ..manifest });
                self.known =
                    Some(Known { count: number, last_hash: Some(manifest::hash(&bytes)), last, epochs, published });
                return finish(&shape, &files).await;
            }
            // Not ours: it was refused, or another writer took the number.
            created?;
            self.known = None;
        }
        let reason = format!("{TRIES} times another writer took the number of the next manifest");
        Err(FileError::OutputFailed { shown: shape.shown(), reason })
    }

    /// Whether the manifest at `path` is the one that we tried to create: an answer that was lost or came twice says nothing.
    async fn is_there(&self, path: &str, nonce: &str) -> Result<bool> {
        let Some(bytes) = self.shape.store.read_all(path).await? else { return Ok(false) };
        Ok(serde_json::from_slice::<Manifest>(&bytes).is_ok_and(|manifest| manifest.nonce == nonce))
    }

    /// Removes what this run staged and no manifest names: a committed file that has not got its name yet is a result.
    async fn remove_staged(&self) -> Result<()> {
        let shape = self.shape.clone();
        if let Some(root) = shape.store.local(&shape.directory)? {
            let all = root.join(STAGING);
            let Some(known) = &self.known else {
                let reason = "which of the staged files are results is not known".to_string();
                return Err(FileError::OutputFailed { shown: shape.shown(), reason });
            };
            let committed: HashSet<String> =
                known.epochs.values().flatten().filter_map(|file| file.staged.clone()).collect();
            return blocking(move || {
                let token = shape.token();
                let own = all.join(&token);
                let removed = staging::remove_files(&own, |name| !committed.contains(&staging::staged(&token, name)));
                staging::remove_empty(&own);
                removed.map_err(|error| output_failed(&own.display().to_string(), &error))
            })
            .await;
        }
        let committed = manifest::read(&shape.store, &shape.directory).await?;
        let committed: HashSet<&str> =
            committed.iter().flat_map(|(manifest, _)| &manifest.files).map(|file| file.path.as_str()).collect();
        let begin = format!("{FILE_PREFIX}{}-", shape.token());
        for file in shape.store.list(&shape.directory, |_| true).await? {
            let Some(path) = below(&file.path, &shape.directory) else { continue };
            if path.rsplit('/').next().is_some_and(|name| name.starts_with(&begin)) && !committed.contains(path) {
                shape.store.delete(&file.path).await?;
            }
        }
        Ok(())
    }
}

/// Gives files of a manifest their names.
async fn finish(shape: &Shape, files: &[DataFile]) -> Result<()> {
    manifest::finish(&shape.store, &shape.directory, files).await.map_err(|error| match error {
        FileError::OutputFailed { shown, reason } => FileError::OutputFailed {
            shown,
            reason: format!(
                "{reason}; it is committed and readable, and the next run that writes there gives it its name"
            ),
        },
        other => other,
    })
}

impl SinkCommitter for FilesystemCommitter {
    fn commit(
        &mut self,
        epoch: u64,
        kind: CommitKind,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<(), RunError>> {
        async move {
            let mut files: Vec<DataFile> = Vec::new();
            for committable in committables.iter().filter(|committable| !committable.payload.is_empty()) {
                let list: Vec<DataFile> = serde_json::from_slice(&committable.payload)
                    .map_err(|error| RunError::internal(format!("a writer's list of files is damaged: {error}")))?;
                files.extend(list);
            }
            // The end is published even without rows: an empty result is a result.
            if !files.is_empty() || kind.last {
                self.publish(epoch, kind.last, files).await?;
            }
            if kind.last {
                self.remove_staged().await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn abort(&mut self) -> BoxFuture<'_, ()> {
        async move {
            // What was committed keeps its files, whatever we knew or were told before.
            self.known = None;
            let finished = self.look().await.map(|_| ());
            if let Err(error) = self.remove_staged().await.and(finished) {
                tracing::warn!("staged files stay in {}: {error}", self.shape.shown());
            }
        }
        .boxed()
    }
}
