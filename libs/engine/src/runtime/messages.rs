//! What workers, processes and the leader say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use state::manifest::{Manifest, StatePart};

use super::clock::SplitState;
use super::metrics::{ProcessCounts, RowCounts};
use super::tail::Tails;
use crate::error::{Result, RunError};
use crate::sink::{CommitKind, Committable};
use crate::source::Split;

/// From the leader to every worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToWorker {
    Cut(Cut),
    /// Sources end as if their input had ended.
    Drain,
    /// The worker leaves its dataflow as it is and returns.
    Leave,
}

/// Ends `epoch` at the next event of every source, and begins the next one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    pub epoch: u64,
    pub kind: CommitKind,
    /// `now()` of the next epoch, microseconds.
    pub now_us: i64,
    /// The minimum watermark over the active splits of the run: how far instances without one may move.
    pub floor: i64,
}

/// For how long a checkpoint held up an operator on a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// From the first batch of a later epoch until the epoch was complete.
    pub alignment_us: u64,
    /// The longest step of the snapshot, or how long writes to state on disk waited for it.
    pub pause_us: u64,
}

/// What the leader's loop waits for.
pub enum Input {
    Worker(FromWorker),
    Counts {
        process: usize,
        counts: ProcessCounts,
    },
    Left {
        process: usize,
        counts: ProcessCounts,
    },
    Tails(Tails),
    Lost {
        process: usize,
        error: RunError,
    },
    /// What the commit of a sink waits for, or no longer does.
    Waiting {
        stage: usize,
        what: Option<String>,
    },
    /// With the checkpoint, if it is one.
    Committed {
        epoch: u64,
        result: Result<Option<Box<Manifest>>>,
    },
}

/// From workers to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromWorker {
    /// A source instance has sent as much as an epoch may hold.
    CutWanted {
        epoch: u64,
    },
    /// All splits of an instance have ended and their rows were sent.
    SourceFinished {
        source: usize,
        worker: usize,
    },
    Cut(CutReport),
    /// The probe: all epochs up to this one are complete.
    Passed {
        worker: usize,
        epoch: u64,
        /// Of every epoch that is complete since the last time, the rows by stage.
        counts: Vec<(u64, Vec<RowCounts>)>,
    },
    Prepared {
        sink: usize,
        worker: usize,
        epoch: u64,
        committable: Committable,
    },
    /// An operator's state at a checkpoint is written.
    Snapshot {
        epoch: u64,
        operator: String,
        part: StatePart,
        /// It stands for itself: the chain of the worker begins anew with it. Else it goes on.
        whole: bool,
        held: Held,
    },
    /// What the reader or writer of a stage waits for; `None`: for nothing any more.
    Waiting {
        /// Its position in the plan.
        stage: usize,
        worker: usize,
        what: Option<String>,
    },
    Failed(RunError),
    /// The worker's dataflow has ended by itself.
    Ended {
        worker: usize,
    },
}

/// Where a source instance stood at the end of an epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CutReport {
    pub source: usize,
    pub worker: usize,
    pub epoch: u64,
    /// The instance's own watermark; the minimum over the instances of a source is its closing watermark.
    pub watermark: i64,
    pub splits: Vec<(u32, SplitState)>,
}

/// The frozen splits of a run's sources, and which worker reads which.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Assignment {
    /// Per source (in stage order) its splits; numbers count through all sources.
    pub sources: Vec<SourceSplits>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceSplits {
    /// The source's operator id.
    pub operator: String,
    /// The table's name, for messages and ledgers.
    pub table: String,
    pub splits: BTreeMap<u32, (Split, SplitState)>,
    /// The closing watermark of the checkpoint that the run goes on from: windows have fired up to here, so no instance may begin
    /// behind it, whatever its splits say (one that came back from idleness is behind). Else none.
    pub watermark: i64,
}

impl SourceSplits {
    /// The splits that a worker reads: dealt in turn, so that all workers stay near each other in an ordered input.
    pub fn of_worker(&self, worker: usize, workers: usize) -> impl Iterator<Item = (u32, &Split, &SplitState)> {
        let dealt = self.splits.iter().enumerate().filter(move |(turn, _)| turn % workers == worker);
        dealt.map(|(_, (number, (split, state)))| (*number, split, state))
    }
}

/// Bytes as text, for messages that are JSON.
pub mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let digit = |half: u8| char::from_digit(half.into(), 16).expect("half a byte is below 16");
        let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        serializer.serialize_str(&text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let half = |digit: u8| (digit as char).to_digit(16).map(|value| value as u8);
        let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
            [high, low] => Some(half(*high)? << 4 | half(*low)?),
            _ => None,
        });
        pairs.collect::<Option<Vec<u8>>>().ok_or_else(|| de::Error::custom("not an even number of hexadecimal digits"))
    }
}
