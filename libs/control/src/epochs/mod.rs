//! How an epoch becomes durable, as pure state machines: `step(event) -> effects`, without clocks, I/O or async.
//!
//! | machine | run by | steps |
//! |---|---|---|
//! | [`coordinator::Coordinator`] | the leader of an attempt | M manifest, D decide, K commit in the sinks, F confirm |
//! | [`sinks::MarkerCommit`], [`sinks::ChainCommit`] | the committer of a sink | K, once per sink and epoch, and its repetition |
//! | [`recovery::Recovery`] | the leader of a new attempt, before its sources start | verify, prove or redo K, confirm |
//! | [`collection::Collection`] | the control plane | G, mark and sweep |
//!
//! Their executors do the I/O and keep three rules. **Every effect is answered**, by at least one event: what runs into a timeout is
//! answered `Unknown`. The answers of the store and of the control plane may still come later, or twice; those of a sink count only for
//! the last request (a marker that was read before the newest producer was made proves nothing). **A machine lives as long as its
//! process**: nothing of it is stored, a new attempt begins with [`recovery::Recovery`]. **A halted machine wants nothing more**: its
//! attempt ends.
//!
//! Numbers: an *epoch* is never used twice in a job; a *generation* (an attempt) reserves a range of epoch numbers in the database before
//! it uses them, and the next one starts above it; gaps are normal. A *lineage* is a chain of decided epochs, each naming the one before
//! (`previous`), across generations; a fresh start of the job or a rewind begins a new one. A *nonce* is drawn per attempt and epoch, and
//! is the same in every repetition of a request.
//!
//! What the database must guard, each in one transaction:
//!
//! | | guards | repeated |
//! |---|---|---|
//! | decide | term; generation; `previous` is the newest decided epoch of the lineage; the epoch is above every other of the job | same (job, epoch, nonce): succeeds, changes nothing, unless it was abandoned |
//! | confirm | term, generation | committed or retired: succeeds |
//! | abandon | term; generation; it is the newest; the one before it is not retired, or it is the first | succeeds |
//! | retire | term; and again, from the rows as they are now, what [`collection::to_retire`] never names | succeeds |
//! | new generation | term; reserves epochs above every number that was reserved | reserves again |
//!
//! The guard of the term is about the control plane that asks, not about the attempt: its answer is "unavailable", not "fenced".
//!
//! Tested by `tests/simulator`, over models of the database, the object store and the sinks.

pub mod collection;
pub mod coordinator;
pub mod recovery;
pub mod sinks;

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the conditional create of an epoch's manifest went, or the read after it. The path holds job and epoch only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ManifestReply {
    Created,
    /// It is there, with the nonce of this attempt and epoch.
    ExistsMine,
    /// It is there, with another nonce.
    ExistsOther,
    /// Not answered, or an answer that proves nothing (409: a store may say so with nothing landed).
    Unknown,
    /// Read, and not there.
    Absent,
}

/// What the control plane says of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionReply {
    /// The row is there, with the nonce that was sent.
    Decided,
    /// A guard found another generation, previous epoch or nonce: the asker is a zombie.
    Fenced,
    /// It may or may not have happened.
    Unknown,
    /// It has not happened: the database is away, or the control plane that was asked is no longer the leader (the guard of the term
    /// says nothing of the attempt; its successor is to be asked).
    Unavailable,
}

/// What the control plane says of a transition that is its own repetition: confirm, abandon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuardedReply {
    Done,
    Fenced,
    /// It may or may not have happened, the database is away, or the control plane that was asked is no longer the leader.
    Unknown,
}

/// How the commit of an epoch in a sink ended. Whatever can be tried again was tried again by the committer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SinkReply {
    /// Proved: the sink shows the epoch, and shows it once.
    Committed,
    /// The sink shows this newer epoch.
    Fenced(u64),
    /// A newer generation runs.
    Superseded,
    /// The sink has forgotten an epoch that it had.
    StateLost,
    /// Given up. It may have happened.
    Failed,
}

/// Why a machine has stopped. The attempt ends with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Halt {
    /// A newer generation or decision exists: this process is a zombie, and must not touch anything more.
    Fenced,
    /// The object store or a sink knows an epoch that the database does not: it was restored from a backup, or has lost its newest
    /// transactions. Going on would publish rows twice.
    MetadataRegressed { epoch: u64 },
    /// The epoch cannot be restored, and going on from an older one would publish rows twice.
    CheckpointCorrupt { epoch: u64, what: String },
    /// The sink was published to, and shows less than that: expired marker, other cluster, recreated topic, removed manifest.
    SinkStateLost { sink: usize, epoch: u64 },
    /// A decided epoch could not be committed in the sink. A new attempt commits it.
    SinkFailed { sink: usize, epoch: u64 },
}

impl Halt {
    /// Whether another attempt may succeed without anyone's help. Of a zombie nothing is to be restarted: its successor runs.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Halt::SinkFailed { .. })
    }

    /// Stable, snake_case.
    pub fn code(&self) -> &'static str {
        match self {
            Halt::Fenced => "fenced",
            Halt::MetadataRegressed { .. } => "metadata_regressed",
            Halt::CheckpointCorrupt { .. } => "checkpoint_corrupt",
            Halt::SinkStateLost { .. } => "sink_state_lost",
            Halt::SinkFailed { .. } => "sink_failed",
        }
    }
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Halt::Fenced => f.write_str("a newer attempt of the run has taken over"),
            Halt::MetadataRegressed { epoch } => write!(
                f,
                "epoch {epoch} exists outside the metadata database, which does not know it: the database is older than what it describes"
            ),
            Halt::CheckpointCorrupt { epoch, what } => {
                write!(f, "the checkpoint of epoch {epoch} cannot be restored: {what}")
            }
            Halt::SinkStateLost { sink, epoch } => {
                write!(f, "sink {sink} had an earlier epoch and shows nothing of it now that epoch {epoch} is due")
            }
            Halt::SinkFailed { sink, epoch } => write!(f, "sink {sink} could not commit epoch {epoch}"),
        }
    }
}
