//! Runs: list, look at, stop.

use std::io::{Read, Seek, SeekFrom};

use api::{
    Checkpoints, DeadLetters, Edge, IdKind, LateRows, LogLine, MetricPoint, MetricSeries, Operation, OperatorFigures,
    OperatorStatus, Problem, Run, RunErrors, RunEvent, RunEvents, RunGraph, RunLogs, RunMetrics, RunPage, SplitStatus,
    StopMode, StopRun, SubtaskStatus, Watermarks,
};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, TimeDelta, Utc};
use control::attempt::{self, Status};
use metadata::{EpochFilter, EpochPage, Page, RunFilter, SavepointFilter};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::operations::{self, WAIT_STEP, Wait};
use super::parse_id;
use super::savepoints::{self, Wanted};
use crate::app::App;
use crate::attempts::history::{RUN_FIGURES, STAGE_FIGURES};
use crate::attempts::{self, process};
use crate::auth::{Caller, Operator, Viewer};
use crate::facts::{self, RunFacts, SavepointFacts, time};
use crate::http::creation::{Answer, Begun};
use crate::http::precondition::none_match;
use crate::http::{Body, Creation, Params, paging, to_the_end};
use crate::problem::{ApiError, ApiResult};

/// Bytes of a log that are looked through, from its end.
const LOG_BYTES_MAX: u64 = 1 << 20;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_runs))
        .routes(routes!(get_run))
        .routes(routes!(stop_run))
        .routes(routes!(get_run_graph))
        .routes(routes!(get_run_metrics))
        .routes(routes!(get_run_watermarks))
        .routes(routes!(get_run_late_rows))
        .routes(routes!(get_run_dead_letters))
        .routes(routes!(get_run_errors))
        .routes(routes!(get_run_events))
        .routes(routes!(get_run_checkpoints))
        .routes(routes!(get_run_logs))
}

async fn find(app: &App, run: &str) -> ApiResult<metadata::Run> {
    Ok(app.store.run(parse_id(IdKind::Run, run)?).await?)
}

/// The newest status of a run, alive or not.
fn status(app: &App, run: &metadata::Run) -> std::sync::Arc<Status> {
    match app.attempts.get(run.run_id) {
        Some(live) => live.status(),
        None => RunFacts::of(run).last.map(|last| (*last).into()).unwrap_or_default(),
    }
}

/// The same with late rows and dead letters, which only the attempt has.
async fn with_ledgers(app: &App, run: &metadata::Run) -> Status {
    if let Some(link) = app.attempts.get(run.run_id).and_then(|live| live.link())
        && let Ok(status) = link.status(true).await
    {
        return status;
    }
    let directory = process::directory(&app.config.data, &IdKind::Run.text(run.run_id), run.generation);
    let outcome = tokio::task::spawn_blocking(move || process::outcome(&directory)).await.ok().flatten();
    let mut status = (*status(app, run)).clone();
    if let Some(outcome) = outcome {
        (status.late_rows, status.dead_letters) = (outcome.late_rows, outcome.dead_letters);
    }
    status
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListRuns {
    /// Only runs of this job: its id or name.
    job: Option<String>,
    /// Only runs in one of these states; may be repeated.
    #[serde(default)]
    state: Vec<api::RunState>,
    /// Items per page. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// List runs
///
/// Newest first, page by page.
#[utoipa::path(get, path = "/api/v1/runs", operation_id = "list_runs", tag = "runs", params(ListRuns), responses(
    (status = 200, description = "A page of runs", body = RunPage),
    (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json")))]
async fn list_runs(
    Viewer(_): Viewer,
    State(app): State<App>,
    Params(list): Params<ListRuns>,
) -> ApiResult<Json<RunPage>> {
    let job_id = match &list.job {
        Some(job) => Some(super::jobs::find(&app, job).await?.job_id),
        None => None,
    };
    let states: Vec<String> =
        list.state.iter().filter_map(|state| serde_json::to_value(state).ok()?.as_str().map(str::to_string)).collect();
    let filters = format!("runs {job_id:?} {states:?}");
    let page = paging::page(&app.sealing, list.page_token.as_deref(), list.page_size, &filters)?;
    let mut runs = app.store.runs(&RunFilter { job_id, states }, page).await?;
    let next_page_token = paging::next(&app.sealing, &mut runs, page, &filters, |run| run.run_id);
    let items = runs.iter().map(|run| facts::run(run, app.attempts.get(run.run_id).as_deref())).collect();
    Ok(Json(RunPage { items, next_page_token }))
}

/// Get a run
///
/// With `wait` the answer comes when it has ended, or when the time is over.
#[utoipa::path(get, path = "/api/v1/runs/{run}", operation_id = "get_run", tag = "runs",
    params(("run" = String, Path, description = "Id of a run"), Wait), responses(
        (status = 200, description = "The run", body = Run),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
    Params(wait): Params<Wait>,
) -> ApiResult<Json<Run>> {
    let run_id = parse_id(IdKind::Run, &run)?;
    let until = wait.until()?;
    loop {
        // Asked before the store: a run that moves in between is seen to.
        let moves = app.attempts.get(run_id).map(|live| live.moves.subscribe());
        let run = app.store.run(run_id).await?;
        let now = Instant::now();
        let Some(mut moves) = moves.filter(|_| run.active && now < until && !app.is_stopping()) else {
            return Ok(Json(facts::run(&run, app.attempts.get(run_id).filter(|_| run.active).as_deref())));
        };
        let _ = tokio::time::timeout(WAIT_STEP.min(until - now), moves.changed()).await;
    }
}

/// Stop a run
///
/// `now` ends it at once and commits nothing more; `drain` treats its input as ended; `savepoint` commits one last checkpoint, leaves windows
/// open and copies the checkpoint. One call does all of it; the operation says when it is done. Asking again is no error; `now` is obeyed in
/// any case.
#[utoipa::path(post, path = "/api/v1/runs/{run}/stop", operation_id = "stop_run", tag = "runs",
    params(("run" = String, Path, description = "Id of a run")),
    request_body(content = StopRun, description = "How it shall end"), responses(
        (status = 202, description = "Asked to stop", body = Operation, headers(("location" = String, description = "Path of the operation"))),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The run has ended, or is being stopped in another way", body = Problem, content_type = "application/problem+json")))]
async fn stop_run(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(run): Path<String>,
    creation: Creation,
    body: Body<StopRun>,
) -> ApiResult<Response> {
    let _flight = match creation.begin(&app, &caller, &body.hash).await? {
        Begun::Replay(response) => return Ok(response),
        begun => begun,
    };
    let run = find(&app, &run).await?;
    let subject = IdKind::Run.text(run.run_id);
    if !run.active {
        let detail = format!("{subject} has ended: it is {}", run.state);
        return Err(ApiError::new("invalid_state", detail).hint("allowed now: start a new run of the job"));
    }
    let StopRun { mode, name, location } = body.value;
    if mode != StopMode::Savepoint && (name.is_some() || location.is_some()) {
        let detail = "name and location are those of a savepoint: give them with mode savepoint";
        return Err(ApiError::new("validation_failed", detail));
    }
    // A run stops once: what is decided here is stored before the next one looks.
    let _only = app.savepoints.stopping.clone().lock_owned().await;
    let stopping = stopping_savepoint(&app, &run).await?;
    let asked = app.attempts.get(run.run_id).and_then(|live| live.asked_to_stop());
    let asked = if stopping.is_some() { Some(attempt::StopMode::Savepoint) } else { asked };
    let (kind, mode) = match (mode, asked) {
        (StopMode::Now, _) => ("stop_now", attempt::StopMode::Now),
        (StopMode::Drain, Some(attempt::StopMode::Savepoint)) => {
            let detail = format!("{subject} is being stopped with a savepoint, which leaves its windows open");
            return Err(ApiError::new("invalid_state", detail).hint("allowed now: stop now"));
        }
        (StopMode::Drain, _) => ("stop_drain", attempt::StopMode::Drain),
        (StopMode::Savepoint, asked) => {
            if asked.is_some_and(|asked| asked != attempt::StopMode::Savepoint) {
                let detail = format!("{subject} is being stopped in another way, and leaves nothing to go on from");
                return Err(ApiError::new("invalid_state", detail).hint("allowed now: stop now"));
            }
            return stop_with_savepoint(&app, &caller, &creation, &body.hash, &run, stopping, (name, location)).await;
        }
    };
    let operation = metadata::Operation {
        operation_id: Uuid::now_v7(),
        kind: kind.into(),
        subject: subject.clone(),
        state: "running".into(),
        progress: Value::from("the run was asked to stop"),
        result: None,
        failure: None,
        created_at: crate::time::now(),
        ended_at: None,
    };
    let path = format!("/api/v1/operations/{}", IdKind::Operation.text(operation.operation_id));
    let answer = Answer::new(StatusCode::ACCEPTED, &operations::shown(&operation)).header(header::LOCATION, path);
    let change = creation.change(&caller, "run.stop", &subject, json!({"mode": mode}), &answer, &body.hash);
    let stored = to_the_end(async move {
        app.store.create_operation(&operation, &change).await?;
        if let Err(error) = attempts::stop(&app, &operation, mode).await {
            tracing::debug!(%error, "a stop that is stored will be carried out later");
        }
        Ok(())
    });
    creation.finish(stored.await?, answer, &body.hash)
}

/// The savepoint with which the run is being stopped.
async fn stopping_savepoint(app: &App, run: &metadata::Run) -> ApiResult<Option<metadata::Savepoint>> {
    let filter = SavepointFilter { job_id: Some(run.job_id), name: None, states: vec!["running".into()] };
    let running = app.store.savepoints(&filter, Page { after: None, limit: 1_000 }).await?;
    let stops =
        |savepoint: &metadata::Savepoint| savepoint.run_id == run.run_id && SavepointFacts::of(savepoint).stops_run;
    Ok(running.into_iter().find(stops))
}

/// The savepoint is the operation: it stops the run when it is stored.
async fn stop_with_savepoint(
    app: &App,
    caller: &Caller,
    creation: &Creation,
    body_hash: &[u8],
    run: &metadata::Run,
    stopping: Option<metadata::Savepoint>,
    (name, location): (Option<String>, Option<String>),
) -> ApiResult<Response> {
    let job = app.store.job(run.job_id).await?;
    if let Some(there) = stopping {
        let subject = IdKind::Run.text(run.run_id);
        if name.as_ref().is_some_and(|name| *name != there.name) {
            let detail = format!("{subject} is being stopped with savepoint '{}' already", there.name);
            return Err(ApiError::new("invalid_state", detail).hint("wait for it; allowed now: stop now"));
        }
        return savepoints::again(app, &job, there, &location);
    }
    let wanted = Wanted { run_id: run.run_id, epoch: None, name, location, stops_run: true };
    savepoints::store(app, caller, creation, body_hash, &job, wanted).await
}

/// Get the plan of a run with live figures
#[utoipa::path(get, path = "/api/v1/runs/{run}/graph", operation_id = "get_run_graph", tag = "runs",
    params(("run" = String, Path, description = "Id of a run"), ("if-none-match" = Option<String>, Header, description = "ETag that is known already")), responses(
        (status = 200, description = "Stages, edges and their figures", body = RunGraph, headers(("etag" = String, description = "Changes with the figures"))),
        (status = 304, description = "Nothing has changed"),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_graph(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let run = find(&app, &run).await?;
    let status = status(&app, &run);
    let before = app
        .attempts
        .get(run.run_id)
        .and_then(|live| live.history.lock().expect("nothing panics while it holds the history").before(Utc::now()));
    let graph = graph_of(&status, before.as_ref().map(|(status, seconds)| (&**status, *seconds)));
    let body = serde_json::to_vec(&graph).map_err(ApiError::internal)?;
    let hash = Sha256::digest(&body);
    let tag = format!("\"{}\"", hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    if none_match(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let headers = [(header::ETAG, tag), (header::CONTENT_TYPE, "application/json".into())];
    Ok((headers, body).into_response())
}

fn stage_id(index: usize, operator: &attempt::OperatorStatus) -> String {
    format!("{index}-{}", operator.kind)
}

fn graph_of(status: &Status, before: Option<(&Status, f64)>) -> RunGraph {
    let operator = |(index, operator): (usize, &attempt::OperatorStatus)| {
        let subtask = |(number, now): (usize, &attempt::SubtaskStatus)| {
            let earlier = before.and_then(|(status, seconds)| {
                let earlier = status.operators.get(index)?.subtasks.get(number)?;
                Some((earlier, seconds))
            });
            SubtaskStatus { process: now.process, worker: now.worker, figures: figures(now, earlier) }
        };
        let subtasks: Vec<SubtaskStatus> = operator.subtasks.iter().enumerate().map(subtask).collect();
        OperatorStatus {
            id: stage_id(index, operator),
            operator: operator.operator.clone(),
            kind: operator.kind.clone(),
            total: total(&subtasks, crate::attempts::history::watermark(operator)),
            subtasks,
        }
    };
    let edges = status.operators.iter().enumerate().flat_map(|(index, operator)| {
        operator.inputs.iter().filter_map(move |input| {
            Some(Edge { from: stage_id(*input, status.operators.get(*input)?), to: stage_id(index, operator) })
        })
    });
    RunGraph { edges: edges.collect(), operators: status.operators.iter().enumerate().map(operator).collect() }
}

fn figures(now: &attempt::SubtaskStatus, before: Option<(&attempt::SubtaskStatus, f64)>) -> OperatorFigures {
    let rate = |of: fn(&attempt::SubtaskStatus) -> u64| {
        before.map(|(before, seconds)| of(now).saturating_sub(of(before)) as f64 / seconds)
    };
    let share = |of: fn(&attempt::SubtaskStatus) -> u64| rate(of).map(|us| (us / 1e6).clamp(0.0, 1.0));
    let (busy, backpressured) = (share(|subtask| subtask.busy_us), share(|subtask| subtask.backpressured_us));
    OperatorFigures {
        rows_in: now.rows_in,
        rows_out: now.rows_out,
        late_rows: now.late,
        filtered_rows: now.filtered,
        dropped_records: now.dropped,
        dead_letters: now.dead,
        rows_in_per_second: rate(|subtask| subtask.rows_in),
        rows_out_per_second: rate(|subtask| subtask.rows_out),
        busy_ratio: busy,
        backpressured_ratio: backpressured,
        idle_ratio: busy.zip(backpressured).map(|(busy, waits)| (1.0 - busy - waits).max(0.0)),
        watermark: time(now.watermark_us),
        final_watermark: now.watermark_us == Some(i64::MAX),
        state_bytes: now.state_bytes,
    }
}

fn total(subtasks: &[SubtaskStatus], watermark: Option<i64>) -> OperatorFigures {
    let sum = |of: fn(&OperatorFigures) -> u64| subtasks.iter().map(|subtask| of(&subtask.figures)).sum();
    let all = |of: fn(&OperatorFigures) -> Option<f64>| -> Option<f64> {
        subtasks.iter().map(|subtask| of(&subtask.figures)).sum::<Option<f64>>().filter(|_| !subtasks.is_empty())
    };
    let mean = |of: fn(&OperatorFigures) -> Option<f64>| all(of).map(|sum| sum / subtasks.len() as f64);
    OperatorFigures {
        rows_in: sum(|figures| figures.rows_in),
        rows_out: sum(|figures| figures.rows_out),
        late_rows: sum(|figures| figures.late_rows),
        filtered_rows: sum(|figures| figures.filtered_rows),
        dropped_records: sum(|figures| figures.dropped_records),
        dead_letters: sum(|figures| figures.dead_letters),
        rows_in_per_second: all(|figures| figures.rows_in_per_second),
        rows_out_per_second: all(|figures| figures.rows_out_per_second),
        busy_ratio: mean(|figures| figures.busy_ratio),
        backpressured_ratio: mean(|figures| figures.backpressured_ratio),
        idle_ratio: mean(|figures| figures.idle_ratio),
        watermark: time(watermark),
        final_watermark: watermark == Some(i64::MAX),
        state_bytes: sum(|figures| figures.state_bytes),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Series {
    /// Only series of these names; may be repeated. Default: all.
    #[serde(default)]
    names: Vec<String>,
    /// How far back: `15m`; at most an hour. Default: 5m.
    #[param(max_length = 32)]
    window: Option<String>,
    /// From one point to the next: `10s`; from 1s to an hour. Default: 1s for windows of up to five minutes, else 10s.
    #[param(max_length = 32)]
    step: Option<String>,
}

/// Get series of figures of a run
///
/// Kept in memory while the run is active: a second apart for five minutes, ten seconds for an hour.
#[utoipa::path(get, path = "/api/v1/runs/{run}/metrics", operation_id = "get_run_metrics", tag = "runs",
    params(("run" = String, Path, description = "Id of a run"), Series), responses(
        (status = 200, description = "The series", body = RunMetrics),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_metrics(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
    Params(series): Params<Series>,
) -> ApiResult<Json<RunMetrics>> {
    let run = find(&app, &run).await?;
    let duration = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => humantime::parse_duration(text)
            .map(|duration| Some(duration.as_secs()))
            .map_err(|error| ApiError::new("validation_failed", format!("{name} is {text:?}: {error}; write 5m"))),
    };
    let window = duration("window", &series.window)?.unwrap_or(300).clamp(1, 3600);
    let step = duration("step", &series.step)?.unwrap_or(if window <= 300 { 1 } else { 10 }).clamp(1, 3600);
    let known: Vec<&str> = RUN_FIGURES.iter().chain(STAGE_FIGURES).map(|(name, _)| *name).collect();
    if let Some(name) = series.names.iter().find(|name| !known.contains(&name.as_str())) {
        let error = ApiError::new("validation_failed", format!("there is no series {name:?}"));
        return Err(error.hint(graph::suggestion(name, known)));
    }
    let wanted = |name: &str| series.names.is_empty() || series.names.iter().any(|wanted| wanted == name);
    let Some(live) = app.attempts.get(run.run_id) else {
        return Ok(Json(RunMetrics { step_seconds: step, series: Vec::new() }));
    };
    let stages: Vec<String> =
        live.status().operators.iter().enumerate().map(|(index, operator)| stage_id(index, operator)).collect();
    let history = live.history.lock().expect("nothing panics while it holds the history");
    let samples = history.samples(Utc::now(), TimeDelta::seconds(window as i64));
    let points = |of: &dyn Fn(&attempts::history::Sample) -> Option<f32>| {
        let mut points: Vec<MetricPoint> = Vec::new();
        let mut last: Option<DateTime<Utc>> = None;
        for sample in &samples {
            if last.is_some_and(|last| (sample.at - last).num_milliseconds() < step as i64 * 1000 - 100) {
                continue;
            }
            last = Some(sample.at);
            let value = of(sample).filter(|value| value.is_finite()).map(f64::from);
            points.push(MetricPoint { at: sample.at, value });
        }
        points
    };
    let mut all = Vec::new();
    for (position, (name, unit)) in RUN_FIGURES.iter().enumerate().filter(|(_, (name, _))| wanted(name)) {
        let points = points(&|sample| sample.run.get(position).copied());
        all.push(MetricSeries { name: (*name).into(), unit: (*unit).into(), operator: None, points });
    }
    for (stage, id) in stages.iter().enumerate() {
        for (position, (name, unit)) in STAGE_FIGURES.iter().enumerate().filter(|(_, (name, _))| wanted(name)) {
            let points = points(&|sample| sample.stages.get(stage * STAGE_FIGURES.len() + position).copied());
            all.push(MetricSeries { name: (*name).into(), unit: (*unit).into(), operator: Some(id.clone()), points });
        }
    }
    Ok(Json(RunMetrics { step_seconds: step, series: all }))
}

/// Get the watermarks of a run's splits
///
/// And which of them hold it back.
#[utoipa::path(get, path = "/api/v1/runs/{run}/watermarks", operation_id = "get_run_watermarks", tag = "runs",
    params(("run" = String, Path, description = "Id of a run")), responses(
        (status = 200, description = "Where every split stands", body = Watermarks),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_watermarks(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
) -> ApiResult<Json<Watermarks>> {
    let run = find(&app, &run).await?;
    Ok(Json(watermarks(&status(&app, &run))))
}

fn watermarks(status: &Status) -> Watermarks {
    let active = || status.splits.iter().filter(|split| !split.idle && !split.finished);
    // A split without a watermark holds back more than any that has one.
    let minimum = active().map(|split| split.watermark_us.unwrap_or(i64::MIN)).min();
    let held_back_by = active()
        .filter(|split| Some(split.watermark_us.unwrap_or(i64::MIN)) == minimum)
        .map(|split| format!("{}/{}", split.operator, split.split))
        .collect();
    let split = |split: &attempt::SplitStatus| SplitStatus {
        operator: split.operator.clone(),
        table: split.table.clone(),
        split: split.split.clone(),
        position: split.position.clone(),
        watermark: time(split.watermark_us),
        idle: split.idle,
        finished: split.finished,
        lag_records: split.lag_records,
    };
    Watermarks { minimum: time(minimum), held_back_by, splits: status.splits.iter().map(split).collect() }
}

/// Get the newest rows that came too late
#[utoipa::path(get, path = "/api/v1/runs/{run}/late_rows", operation_id = "get_run_late_rows", tag = "runs",
    params(("run" = String, Path, description = "Id of a run")), responses(
        (status = 200, description = "The newest late rows, oldest first, and how many there were in all", body = LateRows),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_late_rows(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
) -> ApiResult<Json<LateRows>> {
    let run = find(&app, &run).await?;
    let status = with_ledgers(&app, &run).await;
    let total = status.operators.iter().flat_map(|operator| &operator.subtasks).map(|subtask| subtask.late).sum();
    let row = |row: attempt::LedgerRow| api::LateRow {
        operator: row.operator,
        event_time: DateTime::from_timestamp_micros(row.event_time_us).unwrap_or_default(),
        watermark: time(Some(row.watermark_us)),
        epoch: row.epoch,
        row: row.row,
    };
    Ok(Json(LateRows { total, items: status.late_rows.into_iter().map(row).collect() }))
}

/// Get the newest records that could not be used
#[utoipa::path(get, path = "/api/v1/runs/{run}/dead_letters", operation_id = "get_run_dead_letters", tag = "runs",
    params(("run" = String, Path, description = "Id of a run")), responses(
        (status = 200, description = "The newest dead letters, oldest first, and how many there were in all", body = DeadLetters),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_dead_letters(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
) -> ApiResult<Json<DeadLetters>> {
    let run = find(&app, &run).await?;
    let status = with_ledgers(&app, &run).await;
    let total = status.operators.iter().flat_map(|operator| &operator.subtasks).map(|subtask| subtask.dead).sum();
    let letter = |letter: attempt::DeadLetter| api::DeadLetter {
        source: letter.source,
        split: letter.split,
        position: letter.position,
        code: letter.code,
        message: letter.message,
        payload: letter.payload,
    };
    Ok(Json(DeadLetters { total, items: status.dead_letters.into_iter().map(letter).collect() }))
}

/// Get why attempts of a run failed
#[utoipa::path(get, path = "/api/v1/runs/{run}/errors", operation_id = "get_run_errors", tag = "runs",
    params(("run" = String, Path, description = "Id of a run")), responses(
        (status = 200, description = "Failures, newest first", body = RunErrors),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_errors(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
) -> ApiResult<Json<RunErrors>> {
    let run = find(&app, &run).await?;
    let failure = run.failure.clone().and_then(|failure| serde_json::from_value(failure).ok());
    let error =
        |failure| api::RunError { attempt: run.generation, at: run.ended_at.unwrap_or(run.created_at), failure };
    Ok(Json(RunErrors { items: failure.map(error).into_iter().collect() }))
}

/// Get the moves of a run from state to state
#[utoipa::path(get, path = "/api/v1/runs/{run}/events", operation_id = "get_run_events", tag = "runs",
    params(("run" = String, Path, description = "Id of a run")), responses(
        (status = 200, description = "Every move with its time and cause, oldest first", body = RunEvents),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_events(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
) -> ApiResult<Json<RunEvents>> {
    let run = find(&app, &run).await?;
    let event = |event: metadata::RunEvent| RunEvent {
        sequence: event.sequence,
        at: event.at,
        from: event.from.as_deref().map(facts::state),
        to: facts::state(&event.to),
        cause: event.cause,
    };
    Ok(Json(RunEvents { items: app.store.run_events(run.run_id).await?.into_iter().map(event).collect() }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListCheckpoints {
    /// Only checkpoints of epochs below this one.
    #[param(minimum = 1)]
    before: Option<i64>,
    /// Checkpoints at most. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
}

/// List the checkpoints of a run
///
/// Newest first. A run that fails goes on from its newest one.
#[utoipa::path(get, path = "/api/v1/runs/{run}/checkpoints", operation_id = "get_run_checkpoints", tag = "runs",
    params(("run" = String, Path, description = "Id of a run"), ListCheckpoints), responses(
        (status = 200, description = "The checkpoints", body = Checkpoints),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_checkpoints(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
    Params(list): Params<ListCheckpoints>,
) -> ApiResult<Json<Checkpoints>> {
    let run = find(&app, &run).await?;
    let filter = EpochFilter { job_id: run.job_id, run_id: Some(run.run_id), states: Vec::new() };
    let page = EpochPage { after: list.before, limit: list.limit.unwrap_or(paging::PAGE_SIZE) };
    let items = app.store.epochs(&filter, page).await?.into_iter().map(facts::checkpoint).collect();
    Ok(Json(Checkpoints { items }))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Logs {
    /// Lines at most, the newest. Default: 200.
    #[param(minimum = 1, maximum = 5000)]
    lines: Option<i64>,
}

/// Get what the processes of a run have logged
#[utoipa::path(get, path = "/api/v1/runs/{run}/logs", operation_id = "get_run_logs", tag = "runs",
    params(("run" = String, Path, description = "Id of a run"), Logs), responses(
        (status = 200, description = "The newest lines, oldest first", body = RunLogs),
        (status = 404, description = "There is no such run", body = Problem, content_type = "application/problem+json")))]
async fn get_run_logs(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(run): Path<String>,
    Params(Logs { lines }): Params<Logs>,
) -> ApiResult<Json<RunLogs>> {
    let run = find(&app, &run).await?;
    let directory = process::directory(&app.config.data, &IdKind::Run.text(run.run_id), run.generation);
    let most = lines.unwrap_or(200) as usize;
    let logs = tokio::task::spawn_blocking(move || tail(&directory.join(process::LOG), most)).await;
    Ok(Json(logs.map_err(ApiError::internal)?))
}

fn tail(path: &std::path::Path, most: usize) -> RunLogs {
    let Ok(mut file) = std::fs::File::open(path) else { return RunLogs::default() };
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let from = length.saturating_sub(LOG_BYTES_MAX);
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(from)).is_err() || file.take(LOG_BYTES_MAX).read_to_end(&mut bytes).is_err() {
        return RunLogs::default();
    }
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.lines().skip(usize::from(from > 0));
    let lines: Vec<LogLine> = whole.filter(|line| !line.trim().is_empty()).map(log_line).collect();
    let skipped = lines.len().saturating_sub(most);
    RunLogs { truncated: from > 0 || skipped > 0, items: lines.into_iter().skip(skipped).collect() }
}

/// A line that a process has written: JSON of its log, or what a library printed.
fn log_line(line: &str) -> LogLine {
    let Ok(Value::Object(fields)) = serde_json::from_str(line) else {
        return LogLine { message: line.chars().take(4000).collect(), ..LogLine::default() };
    };
    let inner = fields.get("fields").and_then(Value::as_object).unwrap_or(&fields);
    let text = |name: &str| inner.get(name).or(fields.get(name)).and_then(Value::as_str);
    let mut message = text("message").unwrap_or_default().to_string();
    for (name, value) in
        inner.iter().filter(|(name, _)| !["message", "timestamp", "level", "target"].contains(&name.as_str()))
    {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
        message.push_str(&format!(" {name}={value}"));
    }
    LogLine {
        at: text("timestamp").and_then(|at| at.parse().ok()),
        level: text("level").map(str::to_ascii_lowercase),
        message,
    }
}
