//! State on the local disk, for what does not fit in memory: which tables there are, where, and with how much memory.
//!
//! A process has one budget. Half of it is RocksDB's, for blocks and buffers of all tables together; the other half is for what operators
//! hold in slots, in equal shares. The directory is scratch: checkpoints are what survives.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use graph::StateBackend;
use state::table::part::{Freeze, Namer, Saved, restore};
use state::table::{RocksMemory, RocksTable, Table, TableError, TableSchema};
use state::{Files, SnapshotReader, SnapshotWriter};

use super::saved::load;
use crate::error::{Result, RunError};

/// What the tables of a process share.
pub struct Disk {
    directory: Arc<Directory>,
    memory: RocksMemory,
    /// Bytes that an operator on a worker may hold in slots.
    slots_bytes: usize,
    /// Where checkpoints are, if they are kept.
    files: Option<Arc<dyn Files>>,
    tokio: tokio::runtime::Handle,
    next: AtomicU64,
}

/// Where the tables of a process are. It goes with the last who needs it: of operators that are gone a checkpoint may yet be written.
struct Directory {
    path: PathBuf,
    /// Held as long as the process lives, however it ends: who comes later sweeps what nobody holds.
    _lock: File,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Tables remove their own directories; what is left is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// A frozen table, and the directory that its files are in.
struct Kept {
    // Before the directory, which goes when it is dropped.
    frozen: Box<dyn Freeze>,
    directory: Arc<Directory>,
}

impl Freeze for Kept {
    fn save<'a>(
        self: Box<Self>,
        files: &'a dyn Files,
        name: Namer<'a>,
    ) -> BoxFuture<'a, std::result::Result<Saved, TableError>> {
        Box::pin(async move {
            let Kept { frozen, directory } = *self;
            let saved = frozen.save(files, name).await;
            drop(directory);
            saved
        })
    }
}

/// How directories of state begin.
const PREFIX: &str = "highwater-state-";
/// In each of them, locked by its process.
const LOCK: &str = "lock";

/// Makes the directory, and its lock.
fn hold(directory: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(directory)?;
    let lock = File::create(directory.join(LOCK))?;
    lock.lock()?;
    Ok(lock)
}

/// Removes the state of processes that were killed. What cannot be looked at is left to its owner.
fn sweep(parent: &Path) {
    let is_state = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten().filter(is_state) {
        if let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
            && let Err(error) = std::fs::remove_dir_all(entry.path())
        {
            tracing::warn!(%error, directory = %entry.path().display(), "state that a killed process has left was not removed");
        }
    }
}

impl Disk {
    /// `None` if state is kept in memory. `operators` is how many in the process share the budget, counted on each worker.
    ///
    /// # Errors
    /// If there is no room for temporary files.
    pub fn of(
        settings: &graph::Settings,
        operators: usize,
        files: Option<Arc<dyn Files>>,
        tokio: tokio::runtime::Handle,
    ) -> Result<Option<Arc<Disk>>> {
        if settings.state_backend == StateBackend::Memory {
            return Ok(None);
        }
        let half = settings.state_memory_bytes as usize / 2;
        Ok(Some(Arc::new(Disk::new(half, half / operators.max(1), files, tokio)?)))
    }

    pub fn new(
        cache_bytes: usize,
        slots_bytes: usize,
        files: Option<Arc<dyn Files>>,
        tokio: tokio::runtime::Handle,
    ) -> Result<Disk> {
        sweep(&std::env::temp_dir());
        let directory = std::env::temp_dir().join(format!("{PREFIX}{}", uuid::Uuid::new_v4().simple()));
        let lock = hold(&directory).map_err(|error| {
            let message = format!("making {} for state on disk failed: {error}", directory.display());
            RunError::external("state_directory", message).hint("set TMPDIR to a directory that can be written")
        })?;
        let memory = RocksMemory::new(cache_bytes);
        let directory = Arc::new(Directory { path: directory, _lock: lock });
        Ok(Disk { directory, memory, slots_bytes, files, tokio, next: AtomicU64::new(0) })
    }

    pub fn slots_bytes(&self) -> usize {
        self.slots_bytes
    }

    pub fn memory(&self) -> &RocksMemory {
        &self.memory
    }

    /// A directory for one table.
    pub fn scratch(&self) -> PathBuf {
        self.directory.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// An empty table.
    pub fn table(&self, schema: &TableSchema) -> Result<Box<dyn Table>> {
        Ok(Box::new(RocksTable::create(schema.clone(), &self.scratch(), &self.memory)?))
    }

    /// The rows of a table that this worker owns and that have files of their own; `None` if there are none.
    pub fn restored(
        &self,
        schema: &TableSchema,
        reader: &SnapshotReader,
        name: &str,
    ) -> Result<Option<Box<dyn Table>>> {
        let parts = reader.stored(name);
        if parts.is_empty() {
            return Ok(None);
        }
        let files = self.files.as_ref().expect("a checkpoint is restored from where checkpoints are");
        let (scratch, mine) = (self.scratch(), reader.same_part(name));
        let restored = match mine {
            Some(part) => {
                self.tokio.block_on(RocksTable::open(schema.clone(), &part, &**files, &scratch, &self.memory))
            }
            None => {
                let groups = reader.groups();
                self.tokio.block_on(restore(schema, &parts, groups, &**files, &scratch, &self.memory))
            }
        };
        Ok(Some(Box::new(restored?)))
    }

    /// Adds a table that has files of its own; `rows` has the columns that it would have in memory, and no rows.
    pub fn save_table(
        &self,
        writer: &mut SnapshotWriter,
        name: &str,
        table: &mut dyn Table,
        rows: RecordBatch,
    ) -> Result<()> {
        writer.keyed(name, rows, &[])?;
        writer.frozen(name, Box::new(Kept { frozen: table.freeze()?, directory: self.directory.clone() }));
        Ok(())
    }
}

/// The rows of a table that this worker owns and that lie in the snapshot itself: an operator with its state in memory wrote them.
pub fn loaded_rows(reader: &SnapshotReader, name: &str) -> Result<Vec<RecordBatch>> {
    Ok(load(reader, name)?.into_iter().filter(|rows| rows.num_rows() > 0).collect())
}

impl From<TableError> for RunError {
    fn from(error: TableError) -> RunError {
        match error {
            TableError::File(error) => error.into(),
            TableError::Manifest(error) => error.into(),
            TableError::Rows(error) => error.into(),
            TableError::Damaged { .. } | TableError::Foreign { .. } => {
                RunError::external("checkpoint_corrupt", error.to_string())
            }
            TableError::Format { .. } => RunError::user("checkpoint_format", error.to_string())
                .hint("go on with the version of Highwater that wrote it"),
            TableError::Failed { .. } => RunError::external("state_failed", error.to_string())
                .hint("look whether the disk of the temporary directory is full or failing"),
            TableError::Key(_) | TableError::Values(_) => {
                RunError::user("state_type", error.to_string()).hint("set state.backend = 'memory', or cast the column")
            }
        }
    }
}
