//! What waits for its commit: rows as frames, in logs that belong to a checkpoint.
//!
//! A sink that writes exactly once shows nothing of an epoch before that is decided, and all of it however often the commit is broken off.
//! So its writers keep rows here: [`EpochFrames`] until the epoch is complete, then a [`RecordLog`], whose files are uploaded to the place of
//! the job's checkpoints and named in what is handed over ([`Staged`]). The committer reads them, in the leader of this attempt or of a later
//! one, and [`commit`] says whether they are to be sent.

pub mod commit;
mod epoch;
pub mod frame;
pub mod log;
pub mod writer;

use std::fs::File;

use engine::runtime::Place;
use engine::{Committable, RunError};
use serde::{Deserialize, Serialize};
use state::{FileRef, files};

pub use epoch::EpochFrames;
pub use frame::Frame;
pub use log::{LogFiles, RecordLog};

/// What is staged of an epoch, beside its files: a committable's payload. It does not name the files, so that they can be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// For what it was staged: a topic, for which partitions were chosen, or a table.
    pub target: String,
    /// Records of each file, in their order.
    pub records: Vec<u64>,
    /// Said by the committer, in the first of an epoch's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// What came before an epoch in its sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Whose marker the sink carries.
    pub job: String,
    /// The epoch that was committed before; `None` if this is the sink's first.
    pub previous: Option<u64>,
}

impl Staged {
    /// `None` if nothing was staged: the table was written at least once at that time.
    pub fn read(committable: &Committable) -> Result<Option<Staged>, RunError> {
        let unreadable = |reason: String| {
            RunError::external("checkpoint_corrupt", format!("what was staged for a sink cannot be read: {reason}"))
        };
        if committable.payload.is_empty() && committable.files.is_empty() {
            return Ok(None);
        }
        let staged: Staged =
            serde_json::from_slice(&committable.payload).map_err(|error| unreadable(error.to_string()))?;
        match staged.records.len() == committable.files.len() {
            true => Ok(Some(staged)),
            false => Err(unreadable(format!("{} files, {} named", committable.files.len(), staged.records.len()))),
        }
    }

    pub fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers are JSON")
    }
}

/// The upload of a log.
pub struct Upload {
    pub place: Place,
    pub epoch: u64,
    pub operator: String,
    pub worker: usize,
    pub target: String,
    pub rows: u64,
}

impl Upload {
    /// # Errors
    /// The temporary directory, or the place, cannot be used.
    pub async fn run(self, mut log: LogFiles) -> Result<Committable, RunError> {
        let mut files: Vec<FileRef> = Vec::new();
        let mut records = Vec::new();
        loop {
            let reading = tokio::task::spawn_blocking(move || (log.next_file(), log));
            let (read, rest) = reading.await.map_err(|error| RunError::internal(error.to_string()))?;
            log = rest;
            let Some((facts, content)) = read.map_err(unreadable)? else { break };
            let name = self.place.name("log", self.epoch, &self.operator, self.worker);
            faults::reach("staged.log.before").await?;
            files.push(files::put(&*self.place.files, &name, content.into()).await?);
            faults::reach("staged.log.after").await?;
            records.push(facts.records);
        }
        let payload = Staged { target: self.target, records, history: None }.payload();
        Ok(Committable { rows: self.rows, payload, files })
    }
}

/// A file in the temporary directory that goes with its handle.
pub fn unnamed_file() -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = std::env::temp_dir().join(format!("highwater-{}", uuid::Uuid::new_v4()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

pub fn unwritable(error: std::io::Error) -> RunError {
    let message = format!("rows that wait for their epoch cannot be written to the temporary directory: {error}");
    RunError::external("spool_failed", message).hint("make room there, or set TMPDIR to another directory")
}

pub fn unreadable(error: std::io::Error) -> RunError {
    RunError::external(
        "spool_failed",
        format!("rows that wait for their epoch cannot be read from the temporary directory: {error}"),
    )
}

/// Without checkpoints nobody knows, after a failure, what had been written.
pub fn not_durable(table: &str) -> RunError {
    let message = format!(
        "table {table} is to be written exactly once, and this run keeps no checkpoints: it can deliver at-least-once"
    );
    RunError::user("guarantee_not_available", message)
        .hint("create a job of a server, which keeps checkpoints, or write 'delivery' = 'at_least_once'")
}
