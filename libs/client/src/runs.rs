//! Runs, operations, and waiting for their ends.

use std::time::Duration;

use api::{
    Checkpoints, DeadLetters, LateRows, Operation, OperationState, Run, RunErrors, RunEvents, RunGraph, RunLogs,
    RunMetrics, RunPage, RunState, StartRun, StopMode, StopRun, Watermarks,
};
use serde::Serialize;
use tokio::time::Instant;

use crate::send::pages;
use crate::{Client, Error, Result};

/// One long poll.
const POLL_MAX: Duration = Duration::from_secs(30);
/// Runs go on while their server is away: so long it is waited for.
const AWAY_MAX: Duration = Duration::from_secs(120);
const AWAY_PAUSE: Duration = Duration::from_millis(500);

/// Which runs are listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunQuery {
    /// Of this job: its id or name.
    pub job: Option<String>,
    /// In one of these states; empty: in any.
    pub states: Vec<RunState>,
}

/// A value of an enum as the API writes it.
pub fn name<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => unreachable!("an enum without fields is a text, not {other:?}"),
    }
}

impl Client {
    /// Starts a run of a job's newest version.
    pub async fn start_run(&self, job: &str, start: &StartRun) -> Result<Run> {
        self.json(self.create(&["jobs", job, "runs"]).body(start)).await
    }

    /// A page of runs, newest first.
    pub async fn runs_page(&self, query: &RunQuery, size: u32, token: Option<&str>) -> Result<RunPage> {
        let states: Vec<String> = query.states.iter().map(name).collect();
        let request = self.get(&["runs"]).parameters("state", &states).optional("job", query.job.as_ref());
        self.json(request.parameter("page_size", size.to_string()).optional("page_token", token)).await
    }

    /// The newest runs, page after page, at most `limit`.
    pub async fn runs(&self, query: &RunQuery, limit: usize) -> Result<Vec<Run>> {
        pages(limit, async |size, token| {
            let page = self.runs_page(query, size, token.as_deref()).await?;
            Ok((page.items, page.next_page_token))
        })
        .await
    }

    /// A run as it is now.
    pub async fn run(&self, run: &str) -> Result<Run> {
        self.json(self.get(&["runs", run])).await
    }

    /// A run when it has ended, or as it is after `wait` (at most a minute).
    pub async fn poll_run(&self, run: &str, wait: Duration) -> Result<Run> {
        self.json(self.get(&["runs", run]).parameter("wait", millis(wait))).await
    }

    /// Asks a run to stop; the operation says when it has.
    pub async fn stop_run(&self, run: &str, mode: StopMode) -> Result<Operation> {
        self.stop_run_as(run, &StopRun { mode, name: None, location: None }).await
    }

    /// The same, with a name and a place for the savepoint that it leaves.
    pub async fn stop_run_as(&self, run: &str, stop: &StopRun) -> Result<Operation> {
        self.json(self.create(&["runs", run, "stop"]).body(stop)).await
    }

    pub async fn run_graph(&self, run: &str) -> Result<RunGraph> {
        self.json(self.get(&["runs", run, "graph"])).await
    }

    pub async fn run_watermarks(&self, run: &str) -> Result<Watermarks> {
        self.json(self.get(&["runs", run, "watermarks"])).await
    }

    pub async fn run_late_rows(&self, run: &str) -> Result<LateRows> {
        self.json(self.get(&["runs", run, "late_rows"])).await
    }

    pub async fn run_dead_letters(&self, run: &str) -> Result<DeadLetters> {
        self.json(self.get(&["runs", run, "dead_letters"])).await
    }

    pub async fn run_errors(&self, run: &str) -> Result<RunErrors> {
        self.json(self.get(&["runs", run, "errors"])).await
    }

    /// The newest checkpoints of a run.
    pub async fn run_checkpoints(&self, run: &str) -> Result<Checkpoints> {
        self.json(self.get(&["runs", run, "checkpoints"])).await
    }

    pub async fn run_events(&self, run: &str) -> Result<RunEvents> {
        self.json(self.get(&["runs", run, "events"])).await
    }

    /// The newest lines of the log, at most `lines` (5,000 at most).
    pub async fn run_logs(&self, run: &str, lines: u32) -> Result<RunLogs> {
        self.json(self.get(&["runs", run, "logs"]).parameter("lines", lines.to_string())).await
    }

    /// Series of the last `window`, a point per `step`; `names` empty: all of them.
    pub async fn run_metrics(
        &self,
        run: &str,
        names: &[String],
        window: Option<Duration>,
        step: Option<Duration>,
    ) -> Result<RunMetrics> {
        let request = self.get(&["runs", run, "metrics"]).parameters("names", names);
        let request = request.optional("window", window.map(millis)).optional("step", step.map(millis));
        self.json(request).await
    }

    pub async fn operation(&self, operation: &str) -> Result<Operation> {
        self.json(self.get(&["operations", operation])).await
    }

    /// An operation when it has ended, or as it is after `wait` (at most a minute).
    pub async fn poll_operation(&self, operation: &str, wait: Duration) -> Result<Operation> {
        self.json(self.get(&["operations", operation]).parameter("wait", millis(wait))).await
    }

    /// Waits until a run has ended. `every`: how often `look` gets to see it meanwhile. A server that is away for two minutes is an error:
    /// the run goes on without it.
    pub async fn wait_run(&self, run: &str, every: Duration, mut look: impl FnMut(&Run)) -> Result<Run> {
        let mut away: Option<Instant> = None;
        loop {
            match self.poll_run(run, every.min(POLL_MAX)).await {
                Ok(run) => {
                    away = None;
                    look(&run);
                    if is_over(run.state) {
                        return Ok(run);
                    }
                }
                Err(error) => endure(error, &mut away).await?,
            }
        }
    }

    /// Waits until an operation has ended, however it ends.
    pub async fn wait_operation(&self, operation: &str) -> Result<Operation> {
        let mut away: Option<Instant> = None;
        loop {
            match self.poll_operation(operation, POLL_MAX).await {
                Ok(operation) if operation.state != OperationState::Running => return Ok(operation),
                Ok(_) => away = None,
                Err(error) => endure(error, &mut away).await?,
            }
        }
    }
}

/// Whether nothing comes after a state.
pub fn is_over(state: RunState) -> bool {
    matches!(state, RunState::Finished | RunState::Stopped | RunState::Cancelled | RunState::Failed)
}

/// A pause, while a server that is away may come back.
async fn endure(error: Error, away: &mut Option<Instant>) -> Result<()> {
    let passing = match &error {
        Error::Unreachable { .. } => true,
        Error::Problem(problem) => matches!(problem.status, 429 | 503),
        _ => false,
    };
    if !passing || away.get_or_insert_with(Instant::now).elapsed() > AWAY_MAX {
        return Err(error);
    }
    tokio::time::sleep(AWAY_PAUSE).await;
    Ok(())
}

fn millis(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}
