//! Sinks: where rows go, epoch by epoch.
//!
//! Writers stage, one per worker; the committer, once per sink in the leader, makes what they staged visible when the epoch is decided.
//! Nothing that a writer does may be observable before that.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use state::{FileRef, SnapshotReader, SnapshotWriter};
use tokio::sync::mpsc;

use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::runtime::{Authority, Place};
use crate::source::Waiting;

/// A kind of output, opened with its options.
pub trait Sink: Send + Sync {
    /// A writer for one worker.
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>>;

    /// The committer; called once per attempt, in the leader.
    fn committer(&self) -> Result<Box<dyn SinkCommitter>>;

    /// When staged output is asked for.
    fn commits(&self) -> Commits;
}

/// At which epochs a sink prepares and commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    EveryEpoch,
    /// Checkpoint epochs in an unbounded run; the last epoch in a bounded one.
    Checkpoints,
    /// Checkpoint epochs, also in a bounded run: what is staged goes out bit by bit.
    EveryCheckpoint,
}

/// Facts about the run that a sink is opened for.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// Unique per run, the same for all processes and attempts.
    pub run_id: String,
    /// A bounded run publishes once, at its end.
    pub bounded: bool,
    /// Whether rows may be other than inserts.
    pub updating: bool,
    /// No operator between the sources and the sink keeps state: each row follows from one input row alone.
    pub stateless: bool,
    /// The node's id in the graph.
    pub operator: String,
    /// The run keeps checkpoints: what was prepared for one is committed, however often the run is interrupted.
    pub durable: bool,
}

/// Facts about one writer.
#[derive(Clone)]
pub struct WriterContext {
    /// Worker index over all processes of the attempt.
    pub worker: usize,
    pub workers: usize,
    /// Number of the attempt.
    pub generation: u64,
    pub schema: SchemaRef,
    /// For tasks that do I/O; a writer itself never blocks.
    pub tokio: tokio::runtime::Handle,
    /// A task that fails says so here, once; the run then fails with it.
    pub failed: mpsc::UnboundedSender<RunError>,
    /// What the writer waits for while it opens.
    pub waiting: Waiting,
    /// Where files of checkpoints go, if the run keeps any.
    pub place: Option<Place>,
}

/// Why an epoch's output is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitKind {
    /// The epoch is a checkpoint: nothing may stay open across it.
    pub checkpoint: bool,
    /// The last epoch of the run.
    pub last: bool,
}

/// What one writer staged for an epoch; explicit when empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committable {
    pub rows: u64,
    /// The sink's own words: files, counts, hashes, or the rows themselves.
    #[serde(with = "crate::runtime::hex")]
    pub payload: Vec<u8>,
    /// What lies at the place of the job's checkpoints, for this epoch: it is kept as long as the epoch can be restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileRef>,
}

/// Stages rows; synchronous, on the worker's thread. I/O is done by tasks.
pub trait SinkWriter: Send {
    fn write(&mut self, batch: Batch) -> Result<()>;

    /// Everything written so far belongs to `epoch` or earlier. Answers through `reply`, now or from a task when all is staged.
    fn prepare(&mut self, epoch: u64, kind: CommitKind, reply: Prepared) -> Result<()>;

    /// What is staged and not yet handed over with a committable. Called after `prepare` of the same epoch.
    fn snapshot(&mut self, epoch: u64, writer: &mut SnapshotWriter) -> Result<()>;

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()>;
}

/// The answer to a `prepare`.
pub struct Prepared {
    pub(crate) answer: Box<dyn FnOnce(Result<Committable>) + Send>,
}

impl Prepared {
    pub fn new(answer: impl FnOnce(Result<Committable>) + Send + 'static) -> Prepared {
        Prepared { answer: Box::new(answer) }
    }

    pub fn done(self, result: Result<Committable>) {
        (self.answer)(result);
    }
}

/// Makes a decided epoch's output visible. Calls come in the order of epochs; a repeated call must change nothing.
pub trait SinkCommitter: Send {
    /// The run keeps checkpoints. Called once, before the first commit; `previous` is the checkpoint whose commit came before that,
    /// if there was one in this line of runs. Whether another attempt has taken over, `authority` knows.
    fn keep(&mut self, _place: &Place, _previous: Option<u64>, _authority: &Arc<dyn Authority>) {}

    /// The run goes on from a checkpoint: what [`stage`](Self::stage) left in it. Called after `keep`, before the first commit.
    fn restore(&mut self, _epoch: u64, _staged: Vec<Committable>) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Before a checkpoint is decided, and before its `commit`, which gets what this leaves: writes what the committer itself goes on
    /// from. Nothing may be observable yet.
    fn stage(&mut self, _epoch: u64, committables: Vec<Committable>) -> BoxFuture<'_, Result<Vec<Committable>>> {
        Box::pin(std::future::ready(Ok(committables)))
    }

    /// How far event time had come at the end of the epoch that is committed next: the minimum over the sources whose rows may
    /// reach the sink, in microseconds; `i64::MIN` before the first watermark, `i64::MAX` at the end of the input.
    fn watermark(&mut self, _epoch: u64, _watermark_us: i64) {}

    /// Committables are in the order of workers.
    fn commit(&mut self, epoch: u64, kind: CommitKind, committables: Vec<Committable>) -> BoxFuture<'_, Result<()>>;

    /// The run ended without publishing: removes what was staged, as far as possible.
    fn abort(&mut self) -> BoxFuture<'_, ()>;
}

/// Sinks shared between processes of one machine.
pub type SinkRef = Arc<dyn Sink>;
