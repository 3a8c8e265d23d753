//! State on the local disk, for what does not fit in memory: which tables there are, where, and with how much memory.
//!
//! A process has one budget. Half of it is RocksDB's, for blocks and buffers of all tables together; the other half is for what operators
//! hold in slots, in equal shares. The directory is scratch: checkpoints are what survives.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::future::BoxFuture;
use graph::StateBackend;
use state::table::part::{Freeze, Namer, Saved, restore};
use state::table::{RocksMemory, RocksTable, Scratch, Table, TableError, TableSchema};
use state::{Files, SnapshotReader, SnapshotWriter};

use super::saved::load;
use crate::error::{Result, RunError};

/// What the tables of a process share.
pub struct Disk {
    /// It goes with the last who needs it: of operators that are gone a checkpoint may yet be written.
    scratch: Arc<Scratch>,
    memory: RocksMemory,
    /// Bytes that an operator on a worker may hold in slots.
    slots_bytes: usize,
    /// Where checkpoints are, if they are kept.
    files: Option<Arc<dyn Files>>,
    tokio: tokio::runtime::Handle,
}

/// A frozen table, and the directory that its files are in.
struct Kept {
    // Before the directory, which goes when it is dropped.
    frozen: Box<dyn Freeze>,
    /// For how long freezing it has held up the operator already.
    held: Duration,
    scratch: Arc<Scratch>,
}

impl Freeze for Kept {
    fn save<'a>(
        self: Box<Self>,
        files: &'a dyn Files,
        name: Namer<'a>,
    ) -> BoxFuture<'a, std::result::Result<Saved, TableError>> {
        Box::pin(async move {
            let Kept { frozen, held, scratch } = *self;
            let saved = frozen.save(files, name).await;
            drop(scratch);
            saved.map(|saved| Saved { held: saved.held.max(held), ..saved })
        })
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
        let scratch = Scratch::new().map_err(|(directory, error)| {
            let message = format!("making {} for state on disk failed: {error}", directory.display());
            RunError::external("state_directory", message).hint("set TMPDIR to a directory that can be written")
        })?;
        let memory = RocksMemory::new(cache_bytes);
        Ok(Disk { scratch: Arc::new(scratch), memory, slots_bytes, files, tokio })
    }

    pub fn slots_bytes(&self) -> usize {
        self.slots_bytes
    }

    pub fn memory(&self) -> &RocksMemory {
        &self.memory
    }

    /// A directory for one table.
    pub fn scratch(&self) -> PathBuf {
        self.scratch.table()
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
        self.save_frozen(writer, name, table.freeze()?, Duration::ZERO, rows)
    }

    /// As [`Disk::save_table`], of a table that is frozen already, which has held up its operator for so long.
    pub fn save_frozen(
        &self,
        writer: &mut SnapshotWriter,
        name: &str,
        frozen: Box<dyn Freeze>,
        held: Duration,
        rows: RecordBatch,
    ) -> Result<()> {
        writer.keyed(name, rows, &[])?;
        writer.frozen(name, Box::new(Kept { frozen, held, scratch: self.scratch.clone() }));
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
