//! What the control plane and the leader of an attempt say to each other.
//!
//! An attempt has a directory, `DIR/runs/<run>/<generation>/`:
//!
//! | file | written by | what |
//! |---|---|---|
//! | `spec.json` | the control plane, before it starts the process | [`AttemptSpec`]; no secrets |
//! | `process.json` | the process, first of all | [`ProcessFacts`], to find it again and never kill another; empty if the control plane has given the attempt up instead: whoever makes the file first has it |
//! | `control.sock` | the process | HTTP/1.1 over a Unix socket; every request carries `authorization: Bearer TOKEN` |
//! | `log.jsonl` | the process (its stderr) | lines of JSON |
//! | `outcome.json` | the process, synced, before it exits | [`Outcome`] |
//!
//! The first line of the process's standard input is [`Credentials`]; the pipe closes after it. Routes of the socket:
//! `GET /status` ([`Status`], with `?ledgers=true` also its late rows and dead letters); `POST /stop` ([`StopMode`]);
//! `POST /checkpoint` ([`CheckpointAsked`]: one is cut at once, or 409 if there can be none); `GET /question`
//! ([`Question`]; answered when there is one, or with 204 after a while) and `POST /answer` ([`Answer`]); `GET /views/{table}?...` (Arrow IPC stream of one complete epoch, with
//! `x-epoch` and `x-watermark-us`); `GET /rows` (Arrow IPC stream of what `print` tables get, for queries).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Positions of splits by operator and split id, in the connector's own words.
pub type Positions = BTreeMap<String, BTreeMap<String, String>>;

/// What an attempt is to do. Holds no secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AttemptSpec {
    pub job: String,
    pub run_id: String,
    pub generation: u64,
    pub graph: graph::Graph,
    pub settings: graph::Settings,
    /// Local directories that tables may use.
    pub allowed_roots: Vec<PathBuf>,
    pub egress: Egress,
    /// Where view sinks keep what outlives the run: one directory per view.
    pub views_dir: PathBuf,
    /// Where splits begin; one that is not named begins as its table says.
    pub start: Positions,
    /// Where its checkpoints are, if it keeps any.
    pub checkpoints: Option<CheckpointSpec>,
    pub limits: Limits,
    /// A query: rows of `print` tables are streamed at `/rows`, and the process ends when they were taken or the reader is gone.
    pub serve_rows: bool,
}

/// The checkpoints of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointSpec {
    /// The job's id.
    pub job_id: String,
    /// Where all checkpoints are: a directory, or `s3://bucket/prefix`.
    pub place: String,
    /// The number of the first epoch; above every one that was used before.
    pub first_epoch: u64,
    /// What to go on from: the newest decided epoch, and those before it, newest first. None begins afresh.
    pub restore: Vec<RestoreSpec>,
}

/// An epoch that an attempt may go on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoreSpec {
    pub epoch: u64,
    /// The decided epoch before it.
    pub previous: Option<u64>,
    /// Path of the manifest below the directory of all checkpoints, its size and hash.
    pub manifest: String,
    pub bytes: u64,
    pub sha256: String,
    /// Whether all sinks are known to have committed it.
    pub committed: bool,
    /// It was made of a savepoint: the epochs of the attempt begin a line of their own.
    #[serde(default)]
    pub savepoint: bool,
    /// In the order of the plan's sinks: whether committing it does something there.
    pub commits: Vec<bool>,
}

/// What the leader of an attempt asks the control plane. It asks again until it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// Everything of the epoch is written: has it happened?
    Decide(Decision),
    /// All sinks have committed a decided epoch.
    Confirm { epoch: u64 },
    /// A decided epoch cannot be restored, and no sink can have published anything of it: does the one before it count as the newest?
    Abandon { epoch: u64 },
    /// Is this attempt still the newest of its run?
    IsNewest,
}

/// An epoch of which everything is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub epoch: u64,
    /// The epoch decided before it.
    pub previous: Option<u64>,
    /// Names this very decision, however often it is asked for.
    pub nonce: String,
    pub manifest: String,
    pub manifest_bytes: u64,
    pub manifest_sha256: String,
    /// Bytes written for it, and all bytes that it needs.
    pub bytes: u64,
    pub total_bytes: u64,
    pub duration_us: i64,
    /// What it cost each operator with state.
    pub operators: Vec<OperatorCost>,
    /// The last epoch of the run.
    pub last: bool,
    /// In the order of the plan's sinks: whether committing the epoch does something there.
    pub commits: Vec<bool>,
}

/// What a checkpoint cost an operator, on all workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorCost {
    pub operator: String,
    /// Rows that were written, without those of tables on disk, which are known by their bytes; and bytes.
    pub rows: u64,
    pub bytes: u64,
    /// For how long it held back what came after the cut on one input, until the cut had come on all; on one worker, at most.
    pub alignment_us: u64,
    /// For how long the snapshot held up its rows at a time; on one worker, at most.
    pub pause_us: u64,
}

/// The answer to a question about an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    pub to: Question,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Done,
    /// Another attempt has taken over: whoever asked stops at once.
    Fenced(String),
}

/// Where connectors may connect to. Cloud metadata addresses are refused whatever stands here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Egress {
    /// Loopback addresses are allowed.
    pub loopback: bool,
    /// Everything else is allowed.
    pub anywhere: bool,
    /// `host`, `host:port` or CIDR.
    pub allowed: Vec<String>,
}

/// What an attempt may use. `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Resident bytes of each process; beyond them the run fails with `memory_limit`.
    pub memory_bytes: Option<u64>,
    /// Percent of the machine's processor time that all processes of the run get, when others want it.
    pub cpu_percent: Option<u32>,
    /// Wall time from the start; beyond it the run fails with `time_limit`.
    pub seconds: Option<u64>,
}

/// What a process gets through its standard input. Never printed.
#[derive(Serialize, Deserialize)]
pub struct Credentials {
    /// Shown by the control plane with every request.
    pub token: String,
    /// Options of connections by name, secrets included.
    pub connections: BTreeMap<String, BTreeMap<String, String>>,
    /// Options of the place of checkpoints, secrets included.
    #[serde(default)]
    pub storage: BTreeMap<String, String>,
}

/// How to find a process again: a number is given to other processes later, the time of its start is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFacts {
    pub pid: u32,
    /// Clock ticks from boot to its start (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
    pub boot_id: String,
}

/// How to end a run from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// Nothing more is committed.
    Now,
    /// The input is treated as ended: windows fire, everything is committed.
    Drain,
    /// One last checkpoint is committed; windows stay open, and a run can go on from there.
    Savepoint,
}

impl StopMode {
    /// Whether a run that is to end in this way may be told to end in another one: it may be cut off, and that is all. What is half
    /// drained is no place to go on from, and what was left open for another run is not to be drained.
    pub fn may_become(self, other: StopMode) -> bool {
        self != StopMode::Now && other == StopMode::Now
    }
}

/// The answer to a request for a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointAsked {
    /// Its epoch. It may never be decided: then the attempt has failed, or the run has ended before.
    pub epoch: u64,
}

/// How far an attempt has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub phase: Phase,
    /// What keeps the attempt from beginning, from reading on or from publishing: `topic 'bids' at localhost:9092 (refused)`.
    pub waiting_for: Option<String>,
    /// The newest complete epoch, and the newest one that was published.
    pub epoch: u64,
    pub committed: u64,
    /// Rows that bounded sources expect to read, where they know.
    pub expected_rows: Option<u64>,
    /// In the order of the plan.
    pub operators: Vec<OperatorStatus>,
    pub splits: Vec<SplitStatus>,
    /// Where each split began, once that is resolved.
    pub start_positions: Positions,
    /// By view, the rows that its retention has removed; without those that have removed none.
    #[serde(default)]
    pub removed_rows: BTreeMap<String, u64>,
    /// The newest ones, at most 1,000 each, newest last; empty unless asked for.
    pub late_rows: Vec<LedgerRow>,
    pub dead_letters: Vec<DeadLetter>,
    /// All processes of the attempt together.
    pub resident_bytes: u64,
    pub cpu_us: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Starting,
    Running,
    Stopping,
}

/// One stage of the physical plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorStatus {
    /// The operator id of the graph; several stages may serve one.
    pub operator: String,
    /// `source`, `window_partial`, `sink`...: what the stage does.
    pub kind: String,
    /// Positions (in this list) of the stages that it reads.
    pub inputs: Vec<usize>,
    /// One per worker.
    pub subtasks: Vec<SubtaskStatus>,
}

/// Counters from the start of the attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SubtaskStatus {
    pub process: u32,
    pub worker: u32,
    pub rows_in: u64,
    pub rows_out: u64,
    pub late: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub dead: u64,
    pub busy_us: u64,
    /// Time in which a source had to wait before it could send.
    pub backpressured_us: u64,
    /// Time since the start that was neither.
    pub idle_us: u64,
    /// Event time, microseconds; `None` before the first watermark; `i64::MAX` is final.
    pub watermark_us: Option<i64>,
    pub state_bytes: u64,
}

/// Where a split of a source stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitStatus {
    pub operator: String,
    pub table: String,
    pub split: String,
    /// Where reading goes on, as of the newest complete epoch.
    pub position: Option<String>,
    pub watermark_us: Option<i64>,
    pub idle: bool,
    pub finished: bool,
    /// Records between the position and the end of the split, where that is known.
    pub lag_records: Option<u64>,
}

/// A row that came too late.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LedgerRow {
    pub operator: String,
    pub event_time_us: i64,
    pub watermark_us: i64,
    pub epoch: u64,
    /// The row as JSON, cut to 4 KiB.
    pub row: String,
}

/// A record that could not be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub source: String,
    pub split: String,
    /// Of a record that became a row and was found unusable then, it is known only where a table reads dead letters or late rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    pub code: String,
    pub message: String,
    /// The record, as text where it is UTF-8, else in base64 with `base64:` before it; cut to 4 KiB.
    pub payload: String,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub end: End,
    pub epoch: u64,
    pub committed: u64,
    pub operators: Vec<OperatorStatus>,
    pub splits: Vec<SplitStatus>,
    pub start_positions: Positions,
    #[serde(default)]
    pub removed_rows: BTreeMap<String, u64>,
    pub late_rows: Vec<LedgerRow>,
    pub dead_letters: Vec<DeadLetter>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum End {
    /// Its input ended, or it was drained: the last epoch is committed in every sink.
    Finished,
    /// It was told to stop where it can go on: its last checkpoint is committed in every sink.
    Stopped,
    Cancelled,
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Stable, snake_case.
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
    pub operator: Option<String>,
    /// `user`, `external` or `internal`: who must act.
    pub fault: String,
    pub retryable: bool,
}
