//! Jobs: create, list, apply, change, delete, start.

use std::collections::BTreeMap;

use api::{
    AppliedJob, ApplyJob, ApplyOutcome, ChangeKind, CreateJob, CreatedJob, Delivery, IdKind, Job, JobChange,
    JobDefinition, JobDetail, JobPage, JobSpec, PatchJob, Problem, Run, StartFrom, StartRun, StateVerdict,
};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use metadata::{JobFilter, JobVersion, MetadataError};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::savepoints;
use crate::app::App;
use crate::attempts;
use crate::auth::{Operator, Viewer};
use crate::facts::{self, RunFacts, RunRequest};
use crate::http::creation::{Answer, Begun};
use crate::http::precondition::{IfMatch, etag};
use crate::http::{Body, Creation, Params, paging, to_the_end};
use crate::planning::{Input, Planned, Stored, outputs, plan, wrong_graph};
use crate::problem::{ApiError, ApiResult};
use crate::time::now;

/// Runs of a job that are read at once when it is deleted.
const RUNS_AT_ONCE: i64 = 1_000;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_jobs, create_job))
        .routes(routes!(get_job, apply_job, patch_job, delete_job))
        .routes(routes!(start_run))
}

/// Names of jobs and connections.
pub fn check_name(name: &str) -> ApiResult<()> {
    let mut letters = name.chars();
    let good = letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() <= 128
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "_-.".contains(letter));
    if good && [IdKind::Job, IdKind::Connection].iter().any(|kind| kind.parse(name).is_some()) {
        return Err(ApiError::new(
            "validation_failed",
            format!("{name:?} is an id, and nothing else may be called so"),
        ));
    }
    if good {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    let detail =
        format!("{shown:?} is no name: letters, digits, '_', '-' and '.', at most 128, the first a letter or digit");
    Err(ApiError::new("validation_failed", detail))
}

/// A job by its id or its name.
pub async fn find(app: &App, job: &str) -> ApiResult<metadata::Job> {
    let found = match IdKind::Job.parse(job) {
        Some(job_id) => app.store.job(job_id).await,
        None => app.store.job_named(job).await,
    };
    found.map_err(|error| match error {
        MetadataError::NotFound { .. } => {
            let shown: String = job.chars().take(200).collect();
            ApiError::new("job_not_found", format!("there is no job {shown:?}"))
        }
        other => other.into(),
    })
}

fn summary(job: &metadata::Job) -> Job {
    Job {
        id: IdKind::Job.text(job.job_id),
        name: job.name.clone(),
        state: serde_json::from_value(Value::from(job.state.clone())).expect("the store has states of jobs only"),
        labels: job.labels.clone(),
        version: job.version,
        latest_run: job.latest_run.map(|run_id| IdKind::Run.text(run_id)),
        created_at: job.created_at,
        updated_at: job.updated_at,
    }
}

fn detail(job: &metadata::Job, version: &JobVersion) -> JobDetail {
    let part = |name: &str| version.settings.get(name).cloned().unwrap_or_default();
    JobDetail {
        job: summary(job),
        definition: JobDefinition {
            sql: version.sql.clone(),
            graph: version.graph.clone(),
            hash: version.hash.clone(),
            settings: part("settings"),
            delivery: serde_json::from_value(part("delivery")).unwrap_or_default(),
            limits: serde_json::from_value(part("limits")).unwrap_or_default(),
            views: version.views.iter().map(|view| view.name.clone()).collect(),
        },
    }
}

/// What a specification becomes, or why it cannot.
async fn planned(app: &App, spec: &JobSpec) -> ApiResult<Planned> {
    let planned = plan(app, Input::of(spec)).await?.map_err(wrong_graph)?;
    planned.refuse(spec.delivery.unwrap_or_default())?;
    crate::inspect::check(app, &planned).await?;
    Ok(planned)
}

fn version(job_id: Uuid, number: i64, spec: &JobSpec, planned: &Planned) -> ApiResult<JobVersion> {
    let settings =
        planned.settings_json(&spec.limits.clone().unwrap_or_default(), spec.delivery.unwrap_or(Delivery::AtLeastOnce));
    let views = planned.views()?;
    Ok(JobVersion {
        job_id,
        version: number,
        sql: planned.sql.clone(),
        graph: planned.graph_json(),
        hash: planned.hash(&settings),
        settings,
        views,
        connections: crate::planning::connections(&planned.graph).into_iter().collect(),
        created_at: now(),
    })
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListJobs {
    /// Only jobs in one of these states; may be repeated.
    #[serde(default)]
    state: Vec<api::JobState>,
    /// Only jobs with this label, as `name=value`; may be repeated, then all must be there.
    #[serde(default)]
    label: Vec<String>,
    /// Only jobs with this in their names, without regard to case.
    #[param(max_length = 128)]
    q: Option<String>,
    /// Items per page. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// List jobs
///
/// Newest first, page by page.
#[utoipa::path(get, path = "/api/v1/jobs", operation_id = "list_jobs", tag = "jobs", params(ListJobs), responses(
    (status = 200, description = "A page of jobs", body = JobPage)))]
async fn list_jobs(
    Viewer(_): Viewer,
    State(app): State<App>,
    Params(list): Params<ListJobs>,
) -> ApiResult<Json<JobPage>> {
    let mut labels = BTreeMap::new();
    for label in &list.label {
        let (name, value) = label
            .split_once('=')
            .ok_or_else(|| ApiError::new("validation_failed", format!("label is {label:?}; write label=name=value")))?;
        if labels.insert(name.to_string(), value.to_string()).is_some_and(|before| before != value) {
            let detail = format!("label {name} is asked for with two values, and a job has one");
            return Err(ApiError::new("validation_failed", detail));
        }
    }
    let states: Vec<String> =
        list.state.iter().filter_map(|state| serde_json::to_value(state).ok()?.as_str().map(str::to_string)).collect();
    let filters = format!("jobs {states:?} {labels:?} {:?}", list.q);
    let page = paging::page(&app.sealing, list.page_token.as_deref(), list.page_size, &filters)?;
    let mut jobs = app.store.jobs(&JobFilter { states, labels, q: list.q }, page).await?;
    let next_page_token = paging::next(&app.sealing, &mut jobs, page, &filters, |job| job.job_id);
    Ok(Json(JobPage { items: jobs.iter().map(summary).collect(), next_page_token }))
}

/// Create a job
///
/// Plans and checks it, stores it as version 1 and, unless `start` is false, starts a run. All of it happens or nothing.
#[utoipa::path(post, path = "/api/v1/jobs", operation_id = "create_job", tag = "jobs",
    request_body(content = CreateJob, description = "Name, script or graph, and how it runs"), responses(
        (status = 201, description = "Stored, and started if that was asked for", body = CreatedJob,
            headers(("location" = String, description = "Path of the job"), ("etag" = String, description = "Revision of the job"))),
        (status = 403, description = "A table uses a location or an endpoint that is not allowed, or the key does not allow it", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name of the job or of one of its views is taken", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The script or graph cannot run: everything that is wrong is listed", body = Problem, content_type = "application/problem+json")))]
async fn create_job(
    Operator(caller): Operator,
    State(app): State<App>,
    creation: Creation,
    body: Body<CreateJob>,
) -> ApiResult<Response> {
    let _flight = match creation.begin(&app, &caller, &body.hash).await? {
        Begun::Replay(response) => return Ok(response),
        begun => begun,
    };
    let CreateJob { name, spec, labels, start } = body.value;
    check_name(&name)?;
    let planned = planned(&app, &spec).await?;
    let outputs = outputs(&planned.graph).await?;
    let Created { job, version, run } = create(name, labels, &spec, &planned, start.then_some(outputs))?;
    let reserved = run.as_ref().map(|run| attempts::reserve(&app, run)).transpose()?;
    let mut shown = detail(&job, &version);
    if let Some(run) = &run {
        shown.job.state = api::JobState::Pending;
        shown.job.latest_run = Some(IdKind::Run.text(run.run_id));
    }
    let answer = Answer::new(
        StatusCode::CREATED,
        &CreatedJob {
            job: shown,
            run: run.as_ref().map(|run| facts::run(run, None)),
            warnings: planned.warnings.clone(),
        },
    )
    .header(header::LOCATION, format!("/api/v1/jobs/{}", IdKind::Job.text(job.job_id)))
    .header(header::ETAG, etag(job.revision));
    let object = IdKind::Job.text(job.job_id);
    let detail = json!({"name": job.name, "hash": version.hash, "start": start});
    let change = creation.change(&caller, "job.create", &object, detail, &answer, &body.hash);
    let store = app.store.clone();
    let stored = to_the_end(async move {
        match run.zip(reserved) {
            Some((run, reserved)) => {
                store.create_started_job(&job, &version, &run, &change).await?;
                reserved.begin(run);
                Ok(())
            }
            None => store.create_job(&job, &version, &change).await,
        }
    });
    creation.finish(stored.await?, answer, &body.hash)
}

struct Created {
    job: metadata::Job,
    version: JobVersion,
    run: Option<metadata::Run>,
}

fn create(
    name: String,
    labels: BTreeMap<String, String>,
    spec: &JobSpec,
    planned: &Planned,
    outputs: Option<Vec<String>>,
) -> ApiResult<Created> {
    let (job_id, now) = (Uuid::now_v7(), now());
    let version = version(job_id, 1, spec, planned)?;
    let job = metadata::Job {
        job_id,
        name,
        labels,
        version: 1,
        revision: 1,
        state: "created".into(),
        latest_run: None,
        created_at: now,
        updated_at: now,
    };
    let run = outputs.map(|outputs| new_run(&job, RunRequest { outputs, ..RunRequest::default() }));
    Ok(Created { job, version, run })
}

fn new_run(job: &metadata::Job, request: RunRequest) -> metadata::Run {
    let now = now();
    metadata::Run {
        run_id: Uuid::now_v7(),
        job_id: job.job_id,
        job_name: job.name.clone(),
        version: job.version,
        state: "pending".into(),
        active: true,
        generation: 0,
        request: request.to_json(),
        base_epoch: None,
        facts: RunFacts { since: Some(now), ..RunFacts::default() }.to_json(),
        failure: None,
        revision: 1,
        created_at: now,
        started_at: None,
        ended_at: None,
    }
}

/// Get a job
///
/// With its newest version. Its ETag is what `if-match` takes when the job is changed.
#[utoipa::path(get, path = "/api/v1/jobs/{job}", operation_id = "get_job", tag = "jobs",
    params(("job" = String, Path, description = "Id or name of a job")), responses(
        (status = 200, description = "The job", body = JobDetail, headers(("etag" = String, description = "Revision of the job"))),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json")))]
async fn get_job(Viewer(_): Viewer, State(app): State<App>, Path(job): Path<String>) -> ApiResult<Response> {
    let job = find(&app, &job).await?;
    let version = app.store.version(job.job_id, job.version).await?;
    Ok(([(header::ETAG, etag(job.revision))], Json(detail(&job, &version))).into_response())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DryRun {
    /// Only say what would change. Default: false.
    #[serde(default)]
    #[param(required = false)]
    dry_run: bool,
}

/// Apply a job
///
/// Creates the job under the name in the path, or gives it a new version if something differs. An active run goes on with its own version.
/// Repeating the request changes nothing. With `if-match` it is refused if the job was changed meanwhile.
#[utoipa::path(put, path = "/api/v1/jobs/{job}", operation_id = "apply_job", tag = "jobs",
    params(("job" = String, Path, description = "Id or name of a job; the name of one that shall be created"), DryRun,
        ("if-match" = Option<String>, Header, description = "ETag of the job that was read")),
    request_body(content = ApplyJob, description = "The job as it shall be"), responses(
        (status = 200, description = "Applied, or what applying would do", body = AppliedJob, headers(("etag" = Option<String>, description = "Revision of the job"))),
        (status = 201, description = "Created", body = AppliedJob, headers(("location" = String, description = "Path of the job"), ("etag" = String, description = "Revision of the job"))),
        (status = 403, description = "A table uses a location or an endpoint that is not allowed, or the key does not allow it", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name of a view is taken", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The job was changed meanwhile", body = Problem, content_type = "application/problem+json")))]
async fn apply_job(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(job): Path<String>,
    Params(DryRun { dry_run }): Params<DryRun>,
    if_match: IfMatch,
    body: Body<ApplyJob>,
) -> ApiResult<Response> {
    let ApplyJob { spec, labels } = body.value;
    let before = match find(&app, &job).await {
        Ok(before) => Some(before),
        Err(error) if error.code() == "job_not_found" && IdKind::Job.parse(&job).is_none() => None,
        Err(error) => return Err(error),
    };
    let planned = planned(&app, &spec).await?;
    let warnings = planned.warnings.clone();
    let Some(before) = before else {
        check_name(&job)?;
        if !matches!(if_match, IfMatch::Absent) {
            return Err(ApiError::new("precondition_failed", format!("there is no job '{job}' that could match")));
        }
        let Created { job, version, .. } = create(job, labels, &spec, &planned, None)?;
        let applied = |stored: bool| AppliedJob {
            outcome: ApplyOutcome::Created,
            applied: stored,
            changes: changes(None, &version, &BTreeMap::new(), &job.labels),
            state_verdict: StateVerdict::Fresh,
            job: stored.then(|| detail(&job, &version)),
            warnings: warnings.clone(),
        };
        if dry_run {
            return Ok(Json(applied(false)).into_response());
        }
        let object = IdKind::Job.text(job.job_id);
        let change = caller.change("job.create", &object, json!({"name": job.name, "hash": version.hash}));
        app.store.create_job(&job, &version, &change).await?;
        let headers = [(header::LOCATION, format!("/api/v1/jobs/{object}")), (header::ETAG, etag(job.revision))];
        return Ok((StatusCode::CREATED, headers, Json(applied(true))).into_response());
    };
    if !matches!(if_match, IfMatch::Absent) {
        if_match.check(&format!("job '{}'", before.name), before.revision)?;
    }
    let old = app.store.version(before.job_id, before.version).await?;
    let new = version(before.job_id, before.version + 1, &spec, &planned)?;
    let same = old.hash == new.hash && old.sql == new.sql;
    let outcome = match (same, before.labels == labels) {
        (true, true) => ApplyOutcome::Unchanged,
        (true, false) => ApplyOutcome::Relabelled,
        (false, _) => ApplyOutcome::NewVersion,
    };
    let changes = changes(Some(&old), &new, &before.labels, &labels);
    let mut after = metadata::Job { labels, updated_at: now(), ..before.clone() };
    let mut kept = old;
    if outcome == ApplyOutcome::NewVersion {
        after.version += 1;
        kept = new;
    }
    let state_verdict = match newest(&app, before.job_id, &kept.graph).await? {
        Newest::Open(_) => StateVerdict::Reuse,
        Newest::None | Newest::Ended { .. } | Newest::OtherGraph { .. } => StateVerdict::Fresh,
    };
    if !dry_run && outcome != ApplyOutcome::Unchanged {
        let object = IdKind::Job.text(before.job_id);
        let change = caller.change("job.apply", &object, json!({"version": after.version, "hash": kept.hash}));
        let added = (outcome == ApplyOutcome::NewVersion).then_some(&kept);
        after = app.store.update_job(&after, added, &change).await?;
    }
    let applied =
        AppliedJob { outcome, applied: !dry_run, changes, state_verdict, job: Some(detail(&after, &kept)), warnings };
    Ok(([(header::ETAG, etag(after.revision))], Json(applied)).into_response())
}

/// What differs, operator by operator, setting by setting.
fn changes(
    old: Option<&JobVersion>,
    new: &JobVersion,
    old_labels: &BTreeMap<String, String>,
    new_labels: &BTreeMap<String, String>,
) -> Vec<JobChange> {
    let operators = |version: &JobVersion| -> BTreeMap<String, String> {
        let nodes = version.graph["nodes"].as_array().cloned().unwrap_or_default();
        let named = |node: &Value| Some((format!("operator:{}", node["id"].as_str()?), node.to_string()));
        nodes.iter().filter_map(named).collect()
    };
    let settings = |version: &JobVersion| -> BTreeMap<String, String> {
        let parts = version.settings.as_object().cloned().unwrap_or_default();
        let flat = parts.iter().flat_map(|(part, value)| match value.as_object() {
            Some(object) => {
                object.iter().map(|(name, value)| (format!("setting:{name}"), value.to_string())).collect::<Vec<_>>()
            }
            None => vec![(format!("setting:{part}"), value.to_string())],
        });
        flat.collect()
    };
    let labels = |labels: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        labels.iter().map(|(name, value)| (format!("label:{name}"), value.clone())).collect()
    };
    let mut before = old.map(|old| {
        let mut all = operators(old);
        all.extend(settings(old));
        all
    });
    let mut after = operators(new);
    match &mut before {
        Some(before) => {
            after.extend(settings(new));
            before.extend(labels(old_labels));
        }
        // Of a new job every setting is new: only what it does is worth a line.
        None => before = Some(BTreeMap::new()),
    }
    after.extend(labels(new_labels));
    let before = before.unwrap_or_default();
    let mut changes: Vec<JobChange> = after
        .iter()
        .filter_map(|(subject, value)| {
            let change = match before.get(subject) {
                None => ChangeKind::Added,
                Some(old) if old != value => ChangeKind::Changed,
                Some(_) => return None,
            };
            Some(JobChange { change, subject: subject.clone() })
        })
        .collect();
    let removed = before.keys().filter(|subject| !after.contains_key(*subject));
    changes.extend(removed.map(|subject| JobChange { change: ChangeKind::Removed, subject: subject.clone() }));
    changes
}

/// Change a job's name or labels
///
/// What it computes is changed by applying it: `PUT /api/v1/jobs/{job}`.
#[utoipa::path(patch, path = "/api/v1/jobs/{job}", operation_id = "patch_job", tag = "jobs",
    params(("job" = String, Path, description = "Id or name of a job"), ("if-match" = String, Header, description = "ETag of the job that was read, or `*`")),
    request_body(content = PatchJob, description = "What shall change"), responses(
        (status = 200, description = "Changed", body = Job, headers(("etag" = String, description = "Revision of the job"))),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The job was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "if-match is missing", body = Problem, content_type = "application/problem+json")))]
async fn patch_job(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(job): Path<String>,
    if_match: IfMatch,
    body: Body<PatchJob>,
) -> ApiResult<Response> {
    let before = find(&app, &job).await?;
    if_match.check(&format!("job '{}'", before.name), before.revision)?;
    let mut after = metadata::Job { updated_at: now(), ..before.clone() };
    if let Some(name) = body.value.name {
        check_name(&name)?;
        after.name = name;
    }
    if let Some(labels) = body.value.labels {
        after.labels = labels;
    }
    let change = caller.change(
        "job.patch",
        &IdKind::Job.text(before.job_id),
        json!({"name": after.name, "labels": after.labels}),
    );
    let after = app.store.update_job(&after, None, &change).await?;
    Ok(([(header::ETAG, etag(after.revision))], Json(summary(&after))).into_response())
}

/// Delete a job
///
/// With its versions, runs and views. Refused while a run is active.
#[utoipa::path(delete, path = "/api/v1/jobs/{job}", operation_id = "delete_job", tag = "jobs",
    params(("job" = String, Path, description = "Id or name of a job"), ("if-match" = String, Header, description = "ETag of the job that was read, or `*`")), responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A run of it is active", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "The job was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "if-match is missing", body = Problem, content_type = "application/problem+json")))]
async fn delete_job(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(job): Path<String>,
    if_match: IfMatch,
) -> ApiResult<StatusCode> {
    let before = find(&app, &job).await?;
    if_match.check(&format!("job '{}'", before.name), before.revision)?;
    let data = &app.config.data;
    let mut files = vec![app.views_dir(before.job_id)];
    let filter = metadata::RunFilter { job_id: Some(before.job_id), ..Default::default() };
    let mut after = None;
    loop {
        let runs = app.store.runs(&filter, metadata::Page { after, limit: RUNS_AT_ONCE }).await?;
        files.extend(runs.iter().map(|run| data.join("runs").join(IdKind::Run.text(run.run_id))));
        after = runs.last().map(|run| run.run_id);
        if after.is_none() {
            break;
        }
    }
    let change = caller.change("job.delete", &IdKind::Job.text(before.job_id), json!({"name": before.name}));
    app.store.delete_job(before.job_id, before.revision, &change).await?;
    app.forget_views(before.job_id);
    tokio::spawn(attempts::remove_checkpoints(app.clone(), IdKind::Job.text(before.job_id)));
    // Nothing leads there any more: what cannot be removed now is in nobody's way.
    let removed = tokio::task::spawn_blocking(move || {
        for directory in files {
            if let Err(error) = std::fs::remove_dir_all(&directory)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, directory = %directory.display(), "files of a deleted job could not be removed");
            }
        }
    });
    removed.await.map_err(ApiError::internal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Start a run
///
/// Of the newest version. A job has one active run at most. With `from: savepoint` everything that would keep the run from going on there is
/// said at once.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/runs", operation_id = "start_run", tag = "runs",
    params(("job" = String, Path, description = "Id or name of a job")),
    request_body(content = StartRun, description = "Where it begins"), responses(
        (status = 202, description = "Accepted; the run shows how far it is", body = Run, headers(("location" = String, description = "Path of the run"))),
        (status = 404, description = "There is no such job or savepoint", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has an active run, or cannot go on from there", body = Problem, content_type = "application/problem+json")))]
async fn start_run(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(job): Path<String>,
    creation: Creation,
    body: Body<StartRun>,
) -> ApiResult<Response> {
    let _flight = match creation.begin(&app, &caller, &body.hash).await? {
        Begun::Replay(response) => return Ok(response),
        begun => begun,
    };
    let job = find(&app, &job).await?;
    let from = body.value.from;
    if let Some(run_id) = job.latest_run {
        let run = app.store.run(run_id).await?;
        // Said before a savepoint is read; whoever comes at the same time is refused by the store.
        if run.active {
            return Err(MetadataError::RunActive { run_id, state: run.state }.into());
        }
    }
    let request = start_request(&app, &job, body.value).await?;
    let savepoint_id = request.savepoint.as_ref().and_then(|savepoint| savepoint.savepoint_id());
    let mut run = new_run(&job, request);
    if from == StartFrom::Latest {
        run.base_epoch = Some(latest(&app, &job).await?);
    }
    let reserved = attempts::reserve(&app, &run)?;
    let object = IdKind::Run.text(run.run_id);
    let answer = Answer::new(StatusCode::ACCEPTED, &facts::run(&run, None))
        .header(header::LOCATION, format!("/api/v1/runs/{object}"));
    let detail = json!({"job": job.name, "version": job.version});
    let change = creation.change(&caller, "run.start", &object, detail, &answer, &body.hash);
    let store = app.store.clone();
    let stored = to_the_end(async move {
        store.create_run(&run, &change).await?;
        if let Some(savepoint_id) = savepoint_id
            && let Err(error) = store.use_savepoint(savepoint_id, run.run_id).await
        {
            tracing::debug!(%error, "a savepoint is taken when the run begins, or the run fails");
        }
        reserved.begin(run);
        Ok(())
    });
    creation.finish(stored.await?, answer, &body.hash)
}

/// Where a job stands: whether its next run could go on from its newest checkpoint.
enum Newest {
    None,
    /// It can, from this epoch.
    Open(i64),
    /// Its run has finished: nothing is left to do.
    Ended {
        run_id: Uuid,
    },
    /// It is of another graph.
    OtherGraph {
        version: i64,
        run_id: Uuid,
    },
}

/// `graph` is the one that would go on.
async fn newest(app: &App, job: Uuid, graph: &serde_json::Value) -> ApiResult<Newest> {
    let Some(epoch) = app.store.last_epoch(job).await? else { return Ok(Newest::None) };
    let run = app.store.run(epoch.run_id).await?;
    // State belongs to a graph; how it is run, and by how many, is free.
    if app.store.version(job, run.version).await?.graph != *graph {
        return Ok(Newest::OtherGraph { version: run.version, run_id: run.run_id });
    }
    // One that is not known to be published is: the run that goes on from it does only that.
    let ended = epoch.last && epoch.state == "committed";
    Ok(if ended { Newest::Ended { run_id: run.run_id } } else { Newest::Open(epoch.epoch) })
}

/// The epoch from which the next run of a job can go on.
async fn latest(app: &App, job: &metadata::Job) -> ApiResult<i64> {
    let version = app.store.version(job.job_id, job.version).await?;
    let impossible = |detail: String| ApiError::new("invalid_state", detail);
    let fresh = "start the job with from: fresh";
    Err(match newest(app, job.job_id, &version.graph).await? {
        Newest::Open(epoch) => return Ok(epoch),
        Newest::None => impossible(format!("job '{}' has no checkpoint yet", job.name)).hint(fresh),
        Newest::Ended { run_id } => {
            let run_id = IdKind::Run.text(run_id);
            impossible(format!("{run_id} has finished: after its last checkpoint there is nothing left")).hint(fresh)
        }
        Newest::OtherGraph { version, run_id } => impossible(format!(
            "the newest checkpoint of job '{}' is of its version {version}, made by {}; the job is at version {} now",
            job.name,
            IdKind::Run.text(run_id),
            job.version
        ))
        .hint("start the job with from: fresh, or take a savepoint, and start it with from: savepoint"),
    })
}

async fn start_request(app: &App, job: &metadata::Job, start: StartRun) -> ApiResult<RunRequest> {
    let latest = start.from == StartFrom::Latest;
    let from_savepoint = start.from == StartFrom::Savepoint;
    if from_savepoint != start.savepoint.is_some() {
        let detail = "a run begins from a savepoint if from is savepoint and savepoint says which";
        return Err(ApiError::new("validation_failed", detail));
    }
    if !from_savepoint && (!start.allow_dropped_state.is_empty() || start.on_rewind != api::OnRewind::Error) {
        let detail = "allow_dropped_state and on_rewind mean something with from: savepoint only";
        return Err(ApiError::new("validation_failed", detail));
    }
    if (latest || from_savepoint) && (!start.start_positions.is_empty() || start.start_positions_of.is_some()) {
        let detail = "a run that goes on from a checkpoint begins at its positions: leave out start_positions";
        return Err(ApiError::new("validation_failed", detail));
    }
    let mut start_positions = match start.start_positions_of {
        None => BTreeMap::new(),
        Some(run) => {
            let run_id = super::parse_id(IdKind::Run, &run)?;
            let run = app.store.run(run_id).await?;
            if run.job_id != job.job_id {
                let detail =
                    format!("{} is a run of job '{}', not of '{}'", IdKind::Run.text(run_id), run.job_name, job.name);
                return Err(ApiError::new("validation_failed", detail));
            }
            let positions = RunFacts::of(&run).start_positions;
            if positions.is_empty() {
                let detail =
                    format!("{} has no start positions: it ended before they were known", IdKind::Run.text(run_id));
                return Err(ApiError::new("invalid_state", detail));
            }
            positions
        }
    };
    let stored = Stored::of(&app.store.version(job.job_id, job.version).await?).map_err(ApiError::internal)?;
    for operator in start.start_positions.keys() {
        let sources: Vec<&str> = stored
            .graph
            .nodes
            .iter()
            .filter(|node| matches!(node.operator, graph::Operator::Source(_)))
            .map(|node| node.id.as_str())
            .collect();
        if !sources.contains(&operator.as_str()) {
            let error = ApiError::new("validation_failed", format!("the job has no source {operator:?}"));
            return Err(error.hint(graph::suggestion(operator, sources)));
        }
    }
    for (operator, splits) in start.start_positions {
        start_positions.entry(operator).or_default().extend(splits);
    }
    let savepoint = match &start.savepoint {
        Some(given) => {
            let may_drop = start.allow_dropped_state.into_iter().collect();
            let wanted = savepoints::wanted(app, job, given, may_drop, &stored).await?;
            savepoints::check_rewind(app, job, &wanted, &stored, start.on_rewind).await?;
            Some(wanted)
        }
        None => None,
    };
    Ok(RunRequest { latest, start_positions, outputs: outputs(&stored.graph).await?, savepoint })
}
