//! Views that outlive their run: a directory per view, in it immutable versions.
//!
//! | file | what |
//! |---|---|
//! | `base-<uuid>.arrow` | the rows of a version, an Arrow IPC file |
//! | `<version>.json`, 20 digits | the [`Manifest`]; where it exists, the version does |
//! | `.lock` | locked by who numbers a version and removes old ones; the lock goes with its process |
//!
//! A version is published by creating its manifest, which never replaces one; everything that it names is synced before, the directory
//! after it. So whenever a publisher is stopped, readers find the version before or this one, whole. Versions ascend over all
//! runs. The newest two are kept: who reads one while the next comes is not disturbed, and who is slower begins again with the newest.
//! What a publisher that was stopped has left is removed by a later one, once it is older than any publishing takes.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::FileReader;
use arrow::ipc::writer::FileWriter;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::chunk::Chunk;
use crate::definition::{ViewDefinition, check_name};
use crate::error::{ViewError, io_error};
use crate::query::{Answer, Query, run};
use crate::snapshot::ViewSnapshot;

/// The format of manifests that is written and read here.
const FORMAT: &str = "highwater-view/1";
/// Versions that stay.
const KEPT: usize = 2;
/// No publishing takes longer than this.
const ABANDONED: Duration = Duration::from_secs(3600);
/// How often a reader begins again when versions come faster than it reads.
const ATTEMPTS: usize = 5;
/// Rows of a batch in a file: what a reader holds at a time.
const FILE_BATCH_ROWS: usize = 16_384;

/// One version of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `highwater-view/1`.
    pub format: String,
    /// From 1, ascending over all runs that wrote the view; gaps are possible.
    pub version: u64,
    pub definition: ViewDefinition,
    pub by: PublishedBy,
    /// Of the run that wrote it.
    pub epoch: u64,
    /// How far event time had come; `None` without a watermark, `i64::MAX` at the end of the input.
    pub watermark_us: Option<i64>,
    /// When the epoch was folded; microseconds since 1970, as the next.
    pub at_us: i64,
    pub written_us: i64,
    pub rows: u64,
    /// Rows that the retention has removed.
    pub dropped: u64,
    /// In the directory of the view.
    pub files: Vec<DataFile>,
}

/// Whose rows they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedBy {
    pub run_id: String,
    /// Number of the run's attempt.
    pub generation: u64,
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    pub name: String,
    pub rows: u64,
    pub bytes: u64,
    /// Of the whole file, in hex.
    pub sha256: String,
}

/// The versions of one view. Any number of readers and publishers, in any processes of one machine.
pub struct ViewFiles {
    directory: PathBuf,
    /// The version that was read last; its files were found whole.
    last: Mutex<Option<Arc<StoredView>>>,
}

/// One version, open: it can be read as long as this exists, also when its files have been removed since.
#[derive(Debug)]
pub struct StoredView {
    pub manifest: Manifest,
    directory: PathBuf,
    files: Vec<File>,
}

impl ViewFiles {
    /// The view of this name below the directory of all views; nothing needs to exist yet.
    pub fn new(views_dir: &Path, name: &str) -> Result<ViewFiles, ViewError> {
        check_name(name)?;
        Ok(ViewFiles { directory: views_dir.join(name), last: Mutex::new(None) })
    }

    /// Keeps a snapshot as the next version. On return it is on the disk. What the same run has published as the same epoch already is
    /// not published again.
    pub fn publish(&self, snapshot: &ViewSnapshot, by: &PublishedBy) -> Result<Manifest, ViewError> {
        let created = !self.directory.exists();
        fs::create_dir_all(&self.directory).map_err(io_error("create", &self.directory))?;
        if let (true, Some(parent)) = (created, self.directory.parent()) {
            sync_directory(parent)?;
        }
        // A damaged one does not stand in the way of its successor.
        let newest = self.newest_manifest().unwrap_or_default();
        if let Some(done) = newest.as_ref().filter(|done| done.by.run_id == by.run_id && done.epoch == snapshot.epoch) {
            return Ok(done.clone());
        }
        let name = format!("base-{}.arrow", Uuid::new_v4().simple());
        let published = self.write_rows(&name, snapshot).and_then(|file| self.create_version(snapshot, by, file));
        // Also where the disk is full: then most of all. It can be said that it failed when the version is there, but not yet durable.
        if published.is_err()
            && matches!(self.is_named(&name), Ok(false))
            && let Err(error) = remove(&self.directory.join(&name))
        {
            tracing::warn!(directory = %self.directory.display(), %error, "could not remove rows of a view that were not published");
        }
        published
    }

    /// Numbers a version, which has the rows of `file`, and makes it the newest.
    fn create_version(&self, snapshot: &ViewSnapshot, by: &PublishedBy, file: DataFile) -> Result<Manifest, ViewError> {
        // Else a number could be given again that others have given and removed meanwhile.
        let _lock = self.lock()?;
        let mut version = versions(&self.directory)?.pop().unwrap_or(0) + 1;
        loop {
            let manifest = Manifest {
                format: FORMAT.into(),
                version,
                definition: ViewDefinition::clone(&snapshot.definition),
                by: by.clone(),
                epoch: snapshot.epoch,
                watermark_us: snapshot.watermark_us,
                at_us: snapshot.at_us,
                written_us: now_us(),
                rows: file.rows,
                dropped: snapshot.dropped,
                files: vec![file.clone()],
            };
            if self.create_manifest(&manifest)? {
                tracing::info!(view = %snapshot.definition.name, version, rows = file.rows, "published a view");
                self.collect();
                return Ok(manifest);
            }
            version += 1;
        }
    }

    /// Whether a version has this file.
    fn is_named(&self, name: &str) -> Result<bool, ViewError> {
        for version in versions(&self.directory)? {
            match self.read_manifest(version) {
                Err(ViewError::Gone { .. } | ViewError::Damaged { .. }) => {}
                manifest => {
                    if manifest?.files.iter().any(|file| file.name == name) {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// The newest version's manifest; `None` if nothing was ever published.
    pub fn newest_manifest(&self) -> Result<Option<Manifest>, ViewError> {
        let mut gone = 0;
        for _ in 0..ATTEMPTS {
            let Some(version) = versions(&self.directory)?.pop() else { return Ok(None) };
            match self.read_manifest(version) {
                Err(ViewError::Gone { version }) => gone = version,
                manifest => return manifest.map(Some),
            }
        }
        Err(ViewError::Gone { version: gone })
    }

    /// The newest version, found whole and open for reading; `None` if nothing was ever published. Reads all of its bytes once per version.
    ///
    /// # Errors
    /// A file that is not what its manifest says, by name.
    pub fn newest(&self) -> Result<Option<Arc<StoredView>>, ViewError> {
        let mut gone = 0;
        for _ in 0..ATTEMPTS {
            let Some(manifest) = self.newest_manifest()? else { return Ok(None) };
            let last = self.last.lock().expect("nothing panics while it holds the last version").clone();
            if let Some(last) = last.filter(|last| last.manifest == manifest) {
                return Ok(Some(last));
            }
            match self.open(manifest) {
                Err(ViewError::Gone { version }) => gone = version,
                opened => {
                    let opened = Arc::new(opened?);
                    *self.last.lock().expect("nothing panics while it holds the last version") = Some(opened.clone());
                    return Ok(Some(opened));
                }
            }
        }
        Err(ViewError::Gone { version: gone })
    }

    fn open(&self, manifest: Manifest) -> Result<StoredView, ViewError> {
        let mut files = Vec::new();
        for named in &manifest.files {
            let path = self.directory.join(&named.name);
            let file = match File::open(&path) {
                Ok(file) => file,
                // Removed since the manifest was read, if that has gone too: else it is missing.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let there = self.manifest_path(manifest.version).exists();
                    let damaged = ViewError::Damaged { file: path, reason: "it is missing".into() };
                    return Err(if there { damaged } else { ViewError::Gone { version: manifest.version } });
                }
                Err(error) => return Err(io_error("open", &path)(error)),
            };
            let (bytes, sha256) = hashed(&file).map_err(io_error("read", &path))?;
            if bytes != named.bytes || sha256 != named.sha256 {
                let reason = format!(
                    "it has {bytes} bytes with the SHA-256 {sha256}; version {} was written with {} bytes and {}",
                    manifest.version, named.bytes, named.sha256
                );
                return Err(ViewError::Damaged { file: path, reason });
            }
            files.push(file);
        }
        Ok(StoredView { manifest, directory: self.directory.clone(), files })
    }

    fn manifest_path(&self, version: u64) -> PathBuf {
        self.directory.join(format!("{version:020}.json"))
    }

    fn read_manifest(&self, version: u64) -> Result<Manifest, ViewError> {
        let path = self.manifest_path(version);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ViewError::Gone { version }),
            bytes => bytes.map_err(io_error("read", &path))?,
        };
        let damaged = |reason: String| ViewError::Damaged { file: path.clone(), reason };
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| damaged(format!("it is no manifest: {error}")))?;
        if manifest.format != FORMAT || manifest.version != version {
            return Err(damaged(format!("it is version {} in the format {:?}", manifest.version, manifest.format)));
        }
        // Nothing outside of the directory is ever read for a manifest.
        match manifest.files.iter().find(|file| check_name(&file.name).is_err()) {
            Some(file) => Err(damaged(format!("it names the file {:?}", file.name))),
            None => Ok(manifest),
        }
    }

    /// Until it is dropped.
    fn lock(&self) -> Result<File, ViewError> {
        let path = self.directory.join(".lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        file.lock().map_err(io_error("lock", &path))?;
        Ok(file)
    }

    fn write_rows(&self, name: &str, snapshot: &ViewSnapshot) -> Result<DataFile, ViewError> {
        let path = self.directory.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(io_error("create", &path))?;
        let output = Output { file: BufWriter::with_capacity(1 << 20, file), hash: Sha256::new(), bytes: 0 };
        let mut writer = FileWriter::try_new(output, &snapshot.schema)?;
        let mut rows = 0;
        let failed = |error| into_io(error, "write", &path);
        for batch in snapshot.batches() {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            for from in (0..batch.num_rows()).step_by(FILE_BATCH_ROWS) {
                let part = batch.slice(from, FILE_BATCH_ROWS.min(batch.num_rows() - from));
                writer.write(&part).map_err(failed)?;
            }
        }
        let mut output = writer.into_inner().map_err(failed)?;
        output.flush().map_err(io_error("write", &path))?;
        output.file.get_ref().sync_all().map_err(io_error("sync", &path))?;
        Ok(DataFile { name: name.into(), rows, bytes: output.bytes, sha256: hex(&output.hash.finalize()) })
    }

    /// False if another publisher has created this version.
    fn create_manifest(&self, manifest: &Manifest) -> Result<bool, ViewError> {
        let text = serde_json::to_vec_pretty(manifest).expect("a manifest is plain data");
        let staged = self.directory.join(format!(".{}-{}.tmp", manifest.version, Uuid::new_v4().simple()));
        let path = self.manifest_path(manifest.version);
        let mut file =
            OpenOptions::new().write(true).create_new(true).open(&staged).map_err(io_error("create", &staged))?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        // A link, not a rename: it never replaces what is there.
        let linked = written.map_err(io_error("write", &staged)).and_then(|()| match fs::hard_link(&staged, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            linked => linked.map(|()| true).map_err(io_error("create", &path)),
        });
        if let Err(error) = fs::remove_file(&staged) {
            tracing::warn!(file = %staged.display(), %error, "could not remove a temporary file of a view");
        }
        sync_directory(&self.directory)?;
        linked
    }

    /// Removes old versions, then what no version names and nobody can be writing any more. Failures are for the next one.
    fn collect(&self) {
        if let Err(error) = self.try_collect() {
            tracing::warn!(directory = %self.directory.display(), %error, "could not remove old versions of a view");
        }
    }

    fn try_collect(&self) -> Result<(), ViewError> {
        let mut old = versions(&self.directory)?;
        let kept: Vec<u64> = old.split_off(old.len().saturating_sub(KEPT));
        let mut named: BTreeSet<String> = BTreeSet::new();
        for version in kept {
            match self.read_manifest(version) {
                // What it named cannot be told; it goes when it is old enough.
                Err(ViewError::Damaged { .. }) => {}
                manifest => named.extend(manifest?.files.into_iter().map(|file| file.name)),
            }
        }
        for version in old {
            let files = self.read_manifest(version).map_or(vec![], |manifest| manifest.files);
            // The manifest first: what it names is there as long as it is.
            remove(&self.manifest_path(version))?;
            for file in files.iter().filter(|file| !named.contains(&file.name)) {
                remove(&self.directory.join(&file.name))?;
            }
        }
        for entry in fs::read_dir(&self.directory).map_err(io_error("list", &self.directory))? {
            let entry = entry.map_err(io_error("list", &self.directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.starts_with("base-") && name.ends_with(".arrow") || name.ends_with(".tmp");
            let changed = entry.metadata().and_then(|metadata| metadata.modified());
            let age = changed.ok().and_then(|changed| SystemTime::now().duration_since(changed).ok());
            if ours && !named.contains(&name) && age.is_some_and(|age| age > ABANDONED) {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }
}

impl StoredView {
    pub fn schema(&self) -> SchemaRef {
        expr::arrow_schema(&self.manifest.definition.columns)
    }

    /// The answer to a query: see [`Query`]. Holds one batch of the file at a time.
    pub fn query(&self, query: &Query) -> Result<Answer, ViewError> {
        run(&self.manifest.definition, self.batches()?.map(|rows| rows.map(Chunk::full)), query)
    }

    /// All rows, in batches of a bounded size.
    pub fn batches(&self) -> Result<impl Iterator<Item = Result<RecordBatch, ViewError>> + use<>, ViewError> {
        let mut readers = Vec::new();
        for (file, named) in self.files.iter().zip(&self.manifest.files) {
            let path = self.directory.join(&named.name);
            let file = Positioned { file: file.try_clone().map_err(io_error("read", &path))?, at: 0, len: named.bytes };
            let reader = FileReader::try_new(BufReader::with_capacity(1 << 18, file), None)?;
            readers.push(reader.map(|rows| rows.map_err(ViewError::from)));
        }
        Ok(readers.into_iter().flatten())
    }
}

/// A file with a place of its own: clones of a handle share one, and several readers may be at work.
struct Positioned {
    file: File,
    at: u64,
    len: u64,
}

impl Read for Positioned {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&self.file, into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl io::Seek for Positioned {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let to = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => self.len.checked_add_signed(by),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// What is written, counted and hashed.
struct Output {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The versions that have a manifest, ascending.
fn versions(directory: &Path) -> Result<Vec<u64>, ViewError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        entries => entries.map_err(io_error("list", directory))?,
    };
    let mut versions = Vec::new();
    for entry in entries {
        let name = entry.map_err(io_error("list", directory))?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".json")).filter(|digits| digits.len() == 20);
        versions.extend(digits.and_then(|digits| digits.parse::<u64>().ok()));
    }
    versions.sort_unstable();
    Ok(versions)
}

fn hashed(file: &File) -> io::Result<(u64, String)> {
    let (mut hash, mut at) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match std::os::unix::fs::FileExt::read_at(file, &mut buffer, at)? {
            0 => return Ok((at, hex(&hash.finalize()))),
            read => {
                hash.update(&buffer[..read]);
                at += read as u64;
            }
        }
    }
}

/// Another publisher may have been faster.
fn remove(path: &Path) -> Result<(), ViewError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_error("remove", path)),
    }
}

fn sync_directory(directory: &Path) -> Result<(), ViewError> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_error("sync", directory))
}

/// Arrow wraps what the disk says.
fn into_io(error: arrow::error::ArrowError, doing: &'static str, path: &Path) -> ViewError {
    match error {
        arrow::error::ArrowError::IoError(_, source) => io_error(doing, path)(source),
        other => ViewError::Arrow(other),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as i64)
}
