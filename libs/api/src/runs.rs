//! Runs, and what can be seen of them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{OnRewind, Problem};

/// Where a run stands. States only move along the arrows `pending -> starting -> running <-> restarting -> stopping ->` one of the last four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted, not placed.
    Pending,
    Starting,
    Running,
    Restarting,
    /// Asked to end.
    Stopping,
    /// Bounded or drained: the last epoch is committed in every sink.
    Finished,
    /// Ended so that it can go on.
    Stopped,
    Cancelled,
    Failed,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartFrom {
    /// With empty state, where the tables or `start_positions` say.
    #[default]
    Fresh,
    /// With the state and the positions of the job's newest checkpoint, whichever run made it.
    Latest,
    /// With the state and the positions of a savepoint, of this job or another.
    Savepoint,
}

/// Body of `POST /jobs/{job}/runs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRun {
    #[serde(default)]
    pub from: StartFrom,
    /// Where splits begin: operator, split, position, as a run shows them. Others begin as their table says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub start_positions: BTreeMap<String, BTreeMap<String, String>>,
    /// Begin where that run of the same job began: its `start_positions`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_positions_of: Option<String>,
    /// With `from: savepoint`: its id, the name of one of this job, or its directory on the server's machine or
    /// `s3://bucket/prefix`, below one that the server allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4096)]
    pub savepoint: Option<String>,
    /// Ids of sources, operators and sinks of the savepoint whose state may be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10000)]
    pub allow_dropped_state: Vec<String>,
    /// What happens to what the sinks show already of the time after the savepoint, if it is an older one of the same job.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_rewind: OnRewind,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One execution of a job version, from its start to a terminal state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Run {
    pub id: String,
    pub job_id: String,
    pub job_name: String,
    pub version: i64,
    pub state: RunState,
    /// Since when it is in this state.
    pub since: DateTime<Utc>,
    /// Attempts so far.
    pub attempts: i64,
    pub from: StartFrom,
    /// The savepoint that it began from, as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub savepoint: Option<String>,
    /// Where each split began, once that is resolved: operator, split, position.
    pub start_positions: BTreeMap<String, BTreeMap<String, String>>,
    pub progress: RunProgress,
    /// What keeps an active run from beginning, from reading on or from publishing: `topic 'bids' at localhost:9092 (...)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// What does not fail the run, and makes its results other than one might expect.
    #[serde(default)]
    pub warnings: Vec<RunWarning>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<RunFailure>,
    pub created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
}

/// Something about the results of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunWarning {
    /// Stable: `view_rows_removed`.
    pub code: String,
    pub message: String,
    /// The view that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Of `view_rows_removed`: the rows that the view had and has removed.
    pub count: u64,
}

/// How far a run has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunProgress {
    /// The newest complete epoch, and the newest that was published.
    pub epoch: u64,
    pub committed_epoch: u64,
    /// Rows that sources have read and sinks have published.
    pub rows_in: u64,
    pub rows_out: u64,
    /// Rows that the sources expect to read in all, where they know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_rows: Option<u64>,
    /// The smallest watermark of the sinks: results are complete up to here. Absent before the first, and after the final one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    /// Whether the final watermark has passed: the input has ended.
    pub final_watermark: bool,
    /// How far the watermark is behind the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<i64>,
    /// Records between the sources' positions and the ends of their splits, where they know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
    pub late_rows: u64,
    pub dead_letters: u64,
    pub state_bytes: u64,
    pub resident_bytes: u64,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunFailure {
    #[serde(flatten)]
    #[schema(inline)]
    pub problem: Problem,
    /// Id of the operator that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    pub fault: Fault,
    /// Whether the same run may succeed when it is started again.
    pub retryable: bool,
}

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Whoever wrote the job, or its data.
    User,
    /// Whoever runs what it connects to, or the machine.
    External,
    /// A bug of Highwater.
    Internal,
}

/// A page of runs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunPage {
    pub items: Vec<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// A move of a run from one state to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunEvent {
    /// From 1.
    pub sequence: i64,
    pub at: DateTime<Utc>,
    /// Absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<RunState>,
    pub to: RunState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunEvents {
    pub items: Vec<RunEvent>,
}

/// An epoch at whose end the whole state of a run was kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// Number of the epoch: rising, with gaps, over all runs of the job.
    pub epoch: i64,
    /// The attempt that made it.
    pub attempt: i64,
    /// The checkpoint before it. Absent for the first of a fresh start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<i64>,
    pub state: CheckpointState,
    /// The last epoch of its run.
    pub last: bool,
    /// Bytes that were written for it.
    pub bytes: i64,
    /// Bytes that it needs, with what earlier ones have written.
    pub total_bytes: i64,
    /// From the cut of the sources until everything was written.
    pub duration_ms: i64,
    /// The longest time for which it has held up an operator, microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_pause_us: Option<i64>,
    /// What it cost each operator with state. Empty for the last one of a run, after which there is no state.
    pub operators: Vec<CheckpointOperator>,
    /// From then on a run goes on from here.
    pub decided_at: DateTime<Utc>,
    /// When all sinks had committed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub committed_at: Option<DateTime<Utc>>,
}

/// What a checkpoint cost an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointOperator {
    pub operator: String,
    /// Rows that were written of its state, without those of tables on disk, which are known by their bytes.
    pub rows: i64,
    /// Bytes that were written of it.
    pub bytes: i64,
    /// For how long it held back rows from behind the cut until the cut had come on all of its inputs; at most, on one worker.
    pub alignment_us: i64,
    /// The longest time for which its snapshot held up rows, on one worker.
    pub pause_us: i64,
}

/// How far a checkpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointState {
    /// It has happened; sinks may still be committing it.
    Decided,
    /// Every sink has committed it.
    Committed,
    /// Its files are no longer kept.
    Retired,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoints {
    /// Newest first.
    pub items: Vec<Checkpoint>,
}

/// What the checkpoints of a job name, compared with what is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointsCheck {
    /// Nothing was found.
    pub ok: bool,
    /// Checkpoints that are kept.
    pub checkpoints: u64,
    /// Files that they name, themselves included. Each was read and compared with its hash.
    pub files: u64,
    pub bytes: u64,
    pub findings: Vec<CheckpointFinding>,
}

/// Something that is wrong with a file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointFinding {
    pub kind: CheckpointFindingKind,
    /// Below the place of all checkpoints.
    pub path: String,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointFindingKind {
    /// A checkpoint names it, and it is not there.
    Missing,
    /// It is longer or shorter than what was written.
    Length,
    /// It holds something else than what was written.
    Content,
    /// No checkpoint names it, and it was not deleted.
    Orphan,
}

/// Body of `POST /runs/{run}/stop`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StopRun {
    pub mode: StopMode,
    /// With `savepoint`: its name, as in `POST /jobs/{job}/savepoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    pub name: Option<String>,
    /// With `savepoint`: its location, as in `POST /jobs/{job}/savepoints`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, pattern = "^(/|s3://)")]
    pub location: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopMode {
    /// At once; nothing more is committed. The run becomes `cancelled`.
    Now,
    /// The input is treated as ended: windows fire, everything is committed. The run becomes `finished`.
    Drain,
    /// One last checkpoint is committed and becomes a savepoint; windows stay open. The run becomes `stopped`.
    Savepoint,
}

/// The physical plan of a run with live figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunGraph {
    pub operators: Vec<OperatorStatus>,
    pub edges: Vec<Edge>,
}

/// A stage of the plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperatorStatus {
    /// Unique in the answer.
    pub id: String,
    /// The operator of the job's graph that it serves; several stages may serve one.
    pub operator: String,
    /// What it does: `source`, `window_partial`, `sink`...
    pub kind: String,
    /// Sums over the subtasks; the watermark is the smallest.
    pub total: OperatorFigures,
    pub subtasks: Vec<SubtaskStatus>,
}

/// A worker's share of a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubtaskStatus {
    pub process: u32,
    pub worker: u32,
    #[serde(flatten)]
    #[schema(inline)]
    pub figures: OperatorFigures,
}

/// Counters are since the start of the attempt; rates and shares are over the last seconds, and absent before there are two samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct OperatorFigures {
    pub rows_in: u64,
    pub rows_out: u64,
    pub late_rows: u64,
    pub filtered_rows: u64,
    pub dropped_records: u64,
    pub dead_letters: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_in_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows_out_per_second: Option<f64>,
    /// Shares of the time, 0 to 1, of each subtask on average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backpressured_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ratio: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    pub final_watermark: bool,
    pub state_bytes: u64,
}

/// Rows go from one stage to another; ids are those of `operators`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Edge {
    pub from: String,
    pub to: String,
}

/// Who holds the watermark back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Watermarks {
    /// The smallest watermark over the active splits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<DateTime<Utc>>,
    /// The splits whose watermark is the minimum, as `operator/split`.
    pub held_back_by: Vec<String>,
    pub splits: Vec<SplitStatus>,
}

/// Where a split of a source stands, as of the newest complete epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SplitStatus {
    pub operator: String,
    pub table: String,
    pub split: String,
    /// Where reading goes on, in the connector's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    /// It had no rows for a while and holds nothing back.
    pub idle: bool,
    pub finished: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_records: Option<u64>,
}

/// Rows that came too late for their window: the newest ones, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LateRows {
    pub total: u64,
    pub items: Vec<LateRow>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LateRow {
    /// The operator that closed the window.
    pub operator: String,
    pub event_time: DateTime<Utc>,
    /// The watermark that the row came behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    pub epoch: u64,
    /// The row as JSON text.
    pub row: String,
}

/// Records that could not be used: the newest ones, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetters {
    pub total: u64,
    pub items: Vec<DeadLetter>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    pub source: String,
    pub split: String,
    /// In the connector's words. Absent where nothing keeps it: rows that are too far ahead have one if a table reads the dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<String>,
    /// Stable, snake_case.
    pub code: String,
    pub message: String,
    /// The record as text, or in base64 behind `base64:`; at most 4 KiB of it.
    pub payload: String,
}

/// Why attempts of a run failed, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunErrors {
    pub items: Vec<RunError>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunError {
    pub attempt: i64,
    pub at: DateTime<Utc>,
    pub failure: RunFailure,
}

/// Lines that the processes of a run have logged, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunLogs {
    pub items: Vec<LogLine>,
    /// Older lines were left out.
    pub truncated: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    pub message: String,
}

/// Series of figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunMetrics {
    /// Seconds between two points.
    pub step_seconds: u64,
    pub series: Vec<MetricSeries>,
}

/// A figure over time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricSeries {
    /// `rows_in_per_second`, `lag_ms`, `state_bytes`...
    pub name: String,
    pub unit: String,
    /// The stage it is about; absent for the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Oldest first; a point without a value says that nothing was measured then.
    pub points: Vec<MetricPoint>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricPoint {
    pub at: DateTime<Utc>,
    pub value: Option<f64>,
}
