//! What the server keeps with a run, as JSON in the store; and its form in answers.

use std::collections::{BTreeMap, BTreeSet};

use api::IdKind;
use chrono::{DateTime, Utc};
use control::attempt::{self, OperatorCost, Positions, Status, StopMode};
use control::inspect::{CheckpointFile, SavepointPlace};
use control::restart::Restarts;
use metadata::Run;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::attempts::Live;
use crate::attempts::history::{results_watermark, sum};

/// How a run was asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunRequest {
    /// It goes on from the job's newest checkpoint.
    pub latest: bool,
    pub start_positions: Positions,
    /// Directories that it writes, which no other active run may.
    pub outputs: Vec<String>,
    /// It goes on from a savepoint.
    pub savepoint: Option<SavepointRequest>,
}

/// The savepoint that a run was asked to begin from, found and judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavepointRequest {
    /// As it was asked for.
    pub given: String,
    /// The id of one that the server knows.
    pub savepoint_id: Option<String>,
    pub place: SavepointPlace,
    /// Whose it is, and of which epoch.
    pub job: String,
    pub epoch: u64,
    pub manifest_sha256: String,
    pub may_drop: BTreeSet<String>,
}

impl SavepointRequest {
    /// Of one that the server knows.
    pub fn savepoint_id(&self) -> Option<Uuid> {
        IdKind::Savepoint.parse(self.savepoint_id.as_deref()?)
    }
}

/// What is known of a savepoint beside its row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavepointFacts {
    /// The run is to be stopped with it.
    pub stops_run: bool,
    /// Its place was named by a client, and must be below an allowed root.
    pub is_elsewhere: bool,
    pub manifest_sha256: Option<String>,
    /// By operator, rows and bytes.
    pub state: BTreeMap<String, (u64, u64)>,
}

impl SavepointFacts {
    pub fn of(savepoint: &metadata::Savepoint) -> SavepointFacts {
        serde_json::from_value(savepoint.facts.clone()).unwrap_or_default()
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("figures are numbers and texts")
    }
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunFacts {
    /// Where each split began.
    pub start_positions: Positions,
    pub stop: Option<StopRequest>,
    /// What its attempts failed of, for the policy of restarts, and the newest epoch that was decided by then.
    pub restarts: Restarts,
    pub decided_epoch: i64,
    /// Time of its newest move.
    pub since: Option<DateTime<Utc>>,
    /// Figures at its end.
    pub last: Option<Box<Status>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StopRequest {
    pub mode: StopMode,
}

impl RunRequest {
    pub fn of(run: &Run) -> RunRequest {
        serde_json::from_value(run.request.clone()).unwrap_or_default()
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("positions are texts")
    }
}

impl RunFacts {
    pub fn of(run: &Run) -> RunFacts {
        serde_json::from_value(run.facts.clone()).unwrap_or_default()
    }

    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("figures are numbers and texts")
    }

    /// Keeps the last figures, without the ledgers, which the attempt's own files have.
    pub fn end(&mut self, status: &Status) {
        let (late_rows, dead_letters) = (Vec::new(), Vec::new());
        self.last = Some(Box::new(Status { late_rows, dead_letters, ..status.clone() }));
    }
}

/// A failure as answers show it.
pub fn failure(failure: &attempt::Failure) -> api::RunFailure {
    let fault = match failure.fault.as_str() {
        "user" => api::Fault::User,
        "external" => api::Fault::External,
        _ => api::Fault::Internal,
    };
    let status = match fault {
        api::Fault::User => 422,
        api::Fault::External => 503,
        api::Fault::Internal => 500,
    };
    let (detail, hint) = crate::problem::told(&failure.code, &failure.message, failure.hint.as_deref());
    api::RunFailure {
        problem: api::Problem {
            kind: "/docs/problems/run_failed".into(),
            title: "The run failed".into(),
            status,
            detail,
            instance: None,
            code: failure.code.clone(),
            hint,
            request_id: None,
            errors: Vec::new(),
        },
        operator: failure.operator.clone(),
        fault,
        retryable: failure.retryable,
    }
}

/// The manifest of a checkpoint.
pub fn checkpoint_file(epoch: &metadata::Epoch) -> CheckpointFile {
    CheckpointFile {
        epoch: epoch.epoch as u64,
        manifest: epoch.manifest.clone(),
        bytes: epoch.facts["manifest_bytes"].as_u64().unwrap_or_default(),
        sha256: epoch.manifest_sha256.clone(),
    }
}

pub fn checkpoint(epoch: metadata::Epoch) -> api::Checkpoint {
    let costs: Vec<OperatorCost> = serde_json::from_value(epoch.facts["operators"].clone()).unwrap_or_default();
    let shown = |OperatorCost { operator, rows, bytes, alignment_us, pause_us }| {
        let (rows, bytes) = (rows as i64, bytes as i64);
        api::CheckpointOperator { operator, rows, bytes, alignment_us: alignment_us as i64, pause_us: pause_us as i64 }
    };
    let operators: Vec<_> = costs.into_iter().map(shown).collect();
    api::Checkpoint {
        epoch: epoch.epoch,
        attempt: epoch.generation,
        previous: epoch.previous,
        state: serde_json::from_value(Value::from(epoch.state)).expect("the store has states of epochs only"),
        last: epoch.last,
        bytes: epoch.bytes,
        total_bytes: epoch.total_bytes,
        duration_ms: epoch.duration_ms,
        longest_pause_us: operators.iter().map(|operator| operator.pause_us).max(),
        operators,
        decided_at: epoch.decided_at,
        committed_at: epoch.committed_at,
    }
}

pub fn savepoint(savepoint: &metadata::Savepoint) -> api::Savepoint {
    let facts = SavepointFacts::of(savepoint);
    let operator = |(operator, (rows, bytes))| api::SavepointOperator { operator, rows, bytes };
    api::Savepoint {
        id: IdKind::Savepoint.text(savepoint.savepoint_id),
        name: savepoint.name.clone(),
        job_id: IdKind::Job.text(savepoint.job_id),
        job_name: savepoint.job_name.clone(),
        run_id: IdKind::Run.text(savepoint.run_id),
        state: match savepoint.state.as_str() {
            "running" => api::SavepointState::Running,
            "completed" => api::SavepointState::Completed,
            _ => api::SavepointState::Failed,
        },
        epoch: savepoint.epoch,
        location: savepoint.location.clone(),
        format: format!("highwater-savepoint/{}", savepoint.format_version),
        bytes: savepoint.bytes,
        operators: facts.state.into_iter().map(operator).collect(),
        stops_run: facts.stops_run,
        failure: savepoint.failure.clone().and_then(|failure| serde_json::from_value(failure).ok()),
        created_at: savepoint.created_at,
        ended_at: savepoint.ended_at,
    }
}

/// A savepoint is its own operation: what one says the other cannot contradict.
pub fn operation_of(savepoint: &metadata::Savepoint) -> api::Operation {
    let shown = self::savepoint(savepoint);
    let progress = match (shown.state, shown.epoch) {
        (api::SavepointState::Running, None) => "waits for a checkpoint",
        (api::SavepointState::Running, Some(_)) => "is written",
        (api::SavepointState::Completed, _) => "is completed",
        (api::SavepointState::Failed, _) => "has failed",
    };
    api::Operation {
        id: IdKind::Operation.text(savepoint.savepoint_id),
        kind: if shown.stops_run { api::OperationKind::StopSavepoint } else { api::OperationKind::Savepoint },
        subject: if shown.stops_run { shown.run_id } else { shown.id.clone() },
        savepoint: Some(shown.id),
        state: match shown.state {
            api::SavepointState::Running => api::OperationState::Running,
            api::SavepointState::Completed => api::OperationState::Succeeded,
            api::SavepointState::Failed => api::OperationState::Failed,
        },
        progress: Some(progress.into()),
        failure: shown.failure,
        created_at: savepoint.created_at,
        ended_at: savepoint.ended_at,
    }
}

pub fn state(name: &str) -> api::RunState {
    serde_json::from_value(Value::from(name)).expect("the store has states of runs only")
}

/// The time of a watermark; `None` for none yet and for the final one.
pub fn time(watermark_us: Option<i64>) -> Option<DateTime<Utc>> {
    watermark_us.filter(|us| *us != i64::MAX && *us != i64::MIN).and_then(DateTime::from_timestamp_micros)
}

/// A run with its live figures, or with its last ones.
pub fn run(run: &Run, live: Option<&Live>) -> api::Run {
    let (facts, request) = (RunFacts::of(run), RunRequest::of(run));
    let status = match live {
        Some(live) => live.status(),
        None => facts.last.clone().map(|last| (*last).into()).unwrap_or_default(),
    };
    // A later attempt began where its checkpoint was.
    let start_positions: BTreeMap<_, _> = match facts.start_positions.is_empty() {
        true => status.start_positions.clone(),
        false => facts.start_positions,
    };
    api::Run {
        id: IdKind::Run.text(run.run_id),
        job_id: IdKind::Job.text(run.job_id),
        job_name: run.job_name.clone(),
        version: run.version,
        state: state(&run.state),
        since: facts.since.unwrap_or(run.created_at),
        attempts: run.generation,
        from: match (&request.savepoint, request.latest) {
            (Some(_), _) => api::StartFrom::Savepoint,
            (None, true) => api::StartFrom::Latest,
            (None, false) => api::StartFrom::Fresh,
        },
        savepoint: request.savepoint.map(|savepoint| savepoint.given),
        start_positions,
        progress: progress(&status, run.ended_at),
        waiting_for: status.waiting_for.clone().filter(|_| run.active),
        warnings: status.removed_rows.iter().map(|(view, rows)| rows_removed(view, *rows)).collect(),
        failure: run.failure.clone().and_then(|failure| serde_json::from_value(failure).ok()),
        created_at: run.created_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
    }
}

fn rows_removed(view: &str, count: u64) -> api::RunWarning {
    api::RunWarning {
        code: "view_rows_removed".into(),
        message: format!(
            "{count} rows of view {view} were removed: it has no PRIMARY KEY and keeps the newest only ('retention.rows', 'retention.age')"
        ),
        view: Some(view.to_string()),
        count,
    }
}

fn progress(status: &Status, ended_at: Option<DateTime<Utc>>) -> api::RunProgress {
    let mark = results_watermark(status);
    let watermark = time(mark);
    let subtasks = || status.operators.iter().flat_map(|operator| &operator.subtasks);
    let known: Vec<u64> = status.splits.iter().filter_map(|split| split.lag_records).collect();
    api::RunProgress {
        epoch: status.epoch,
        committed_epoch: status.committed,
        rows_in: sum(status, "source", |subtask| subtask.rows_out),
        rows_out: sum(status, "sink", |subtask| subtask.rows_out),
        expected_rows: status.expected_rows,
        watermark,
        final_watermark: mark == Some(i64::MAX),
        lag_ms: watermark.filter(|_| ended_at.is_none()).map(|mark| (Utc::now() - mark).num_milliseconds()),
        lag_records: (!known.is_empty()).then(|| known.iter().sum()),
        late_rows: subtasks().map(|subtask| subtask.late).sum(),
        dead_letters: subtasks().map(|subtask| subtask.dead).sum(),
        state_bytes: subtasks().map(|subtask| subtask.state_bytes).sum(),
        resident_bytes: status.resident_bytes,
    }
}
