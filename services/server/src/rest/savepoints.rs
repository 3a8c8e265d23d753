//! Savepoints: take, list, look at, judge, delete.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use api::{
    CheckSavepoint, CreateSavepoint, IdKind, OperatorRole, OperatorVerdict, Problem, ProblemItem, Savepoint,
    SavepointCheck, SavepointPage, StateFate,
};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use control::inspect::{IntoGraph, Judgement, SavepointPlace, in_object_store, is_below};
use control::savepoint::{Judged, Role, Verdict};
use metadata::{MetadataError, Page, SavepointFilter};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::{jobs, parse_id};
use crate::app::App;
use crate::attempts::savepoints;
use crate::auth::{Caller, Operator, Viewer};
use crate::facts::{self, SavepointFacts};
use crate::http::creation::{Answer, Begun};
use crate::http::{Body, Creation, Params, paging, to_the_end};
use crate::inspect;
use crate::planning::{Input, Stored, plan, wrong_graph};
use crate::problem::{ApiError, ApiResult};
use crate::time::now;

const FORMAT_VERSION: i64 = 1;
/// Files of a savepoint are read for so long before a check answers.
const CHECK_SECONDS: u64 = 10;
/// The objects of a deleted savepoint are waited for this long; they go later if it takes longer.
const REMOVAL: Duration = Duration::from_secs(10);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_savepoints, create_savepoint))
        .routes(routes!(get_savepoint, delete_savepoint))
        .routes(routes!(check_savepoint))
}

/// Take a savepoint of a job
///
/// Starts it and returns at once; the operation says when it is completed. A job that runs is asked for a checkpoint and goes on; of one that
/// does not run, its last committed checkpoint is copied. Asking again with the same name finds the first one.
#[utoipa::path(post, path = "/api/v1/jobs/{job}/savepoints", operation_id = "create_savepoint", tag = "savepoints",
    params(("job" = String, Path, description = "Id or name of a job")),
    request_body(content = CreateSavepoint, description = "How it is called, and where it goes"), responses(
        (status = 202, description = "Begun", body = api::Operation, headers(("location" = String, description = "Path of the operation"))),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The job has no checkpoint that could be copied, or the name is that of a savepoint elsewhere", body = Problem, content_type = "application/problem+json")))]
async fn create_savepoint(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(job): Path<String>,
    creation: Creation,
    body: Body<CreateSavepoint>,
) -> ApiResult<Response> {
    let _flight = match creation.begin(&app, &caller, &body.hash).await? {
        Begun::Replay(response) => return Ok(response),
        begun => begun,
    };
    let job = jobs::find(&app, &job).await?;
    let wanted = body.value;
    if let Some(name) = &wanted.name
        && let Some(there) = named(&app, job.job_id, name).await?
    {
        return again(&app, &job, there, &wanted.location);
    }
    let active = match job.latest_run {
        Some(run_id) => Some(app.store.run(run_id).await?).filter(|run| run.active),
        None => None,
    };
    let (run_id, epoch) = match active {
        Some(run) => (run.run_id, None),
        None => {
            let epoch = last_committed(&app, &job).await?;
            (epoch.run_id, Some(epoch.epoch))
        }
    };
    let wanted = Wanted { run_id, epoch, name: wanted.name, location: wanted.location, stops_run: false };
    store(&app, &caller, &creation, &body.hash, &job, wanted).await
}

/// The epoch that a savepoint of a job is made of that does not run.
async fn last_committed(app: &App, job: &metadata::Job) -> ApiResult<metadata::Epoch> {
    let Some(epoch) = savepoints::newest_committed(app, job.job_id, None).await? else {
        let detail = format!("job '{}' does not run and has no committed checkpoint", job.name);
        return Err(ApiError::new("invalid_state", detail).hint("allowed now: start a run of the job"));
    };
    if epoch.last {
        let run = IdKind::Run.text(epoch.run_id);
        let detail = format!("{run} has finished: after its last checkpoint there is nothing to go on with");
        return Err(ApiError::new("invalid_state", detail).hint("allowed now: start a new run of the job"));
    }
    Ok(epoch)
}

/// A savepoint to be made.
pub struct Wanted {
    pub run_id: Uuid,
    /// Where it is known already.
    pub epoch: Option<i64>,
    pub name: Option<String>,
    pub location: Option<String>,
    pub stops_run: bool,
}

/// Stores a savepoint, and begins to make it.
pub async fn store(
    app: &App,
    caller: &Caller,
    creation: &Creation,
    body_hash: &[u8],
    job: &metadata::Job,
    wanted: Wanted,
) -> ApiResult<Response> {
    let savepoint_id = Uuid::now_v7();
    let id = IdKind::Savepoint.text(savepoint_id);
    if wanted.name.as_ref().is_some_and(|name| IdKind::Savepoint.parse(name).is_some()) {
        let detail = "the name is an id, and nothing else may be called so";
        return Err(ApiError::new("validation_failed", detail));
    }
    let folder = match &wanted.location {
        Some(given) if in_object_store(given) => allowed_place(app, given)?,
        Some(given) => allowed_directory(app, PathBuf::from(given)).await?,
        None => home(app, job),
    };
    let location = format!("{}/{id}", folder.trim_end_matches('/'));
    let facts = SavepointFacts {
        stops_run: wanted.stops_run,
        is_elsewhere: wanted.location.is_some(),
        ..SavepointFacts::default()
    };
    let savepoint = metadata::Savepoint {
        savepoint_id,
        job_id: job.job_id,
        job_name: job.name.clone(),
        run_id: wanted.run_id,
        name: wanted.name.unwrap_or_else(|| id.clone()),
        state: "running".into(),
        epoch: wanted.epoch,
        location,
        format_version: FORMAT_VERSION,
        bytes: None,
        facts: facts.to_json(),
        failure: None,
        created_at: now(),
        ended_at: None,
    };
    let answer = accepted(&savepoint);
    let action = if wanted.stops_run { "run.stop" } else { "savepoint.create" };
    let object = if wanted.stops_run { IdKind::Run.text(wanted.run_id) } else { id };
    let detail = json!({"job": job.name, "savepoint": savepoint.name, "location": savepoint.location});
    let change = creation.change(caller, action, &object, detail, &answer, body_hash);
    let (name, location) = (savepoint.name.clone(), wanted.location);
    let begun = {
        let app = app.clone();
        to_the_end(async move {
            app.store.create_savepoint(&savepoint, &change).await?;
            if let Err(error) = savepoints::begin(&app, savepoint).await {
                tracing::debug!(%error, "a savepoint that is stored will be made later");
            }
            Ok(())
        })
    };
    match begun.await? {
        // Another request was first.
        Err(MetadataError::Exists { kind: "savepoint", .. }) => match named(app, job.job_id, &name).await? {
            Some(there) => again(app, job, there, &location),
            None => Err(ApiError::new("name_taken", format!("a savepoint '{name}' of the job was just deleted"))),
        },
        stored => creation.finish(stored, answer, body_hash),
    }
}

fn accepted(savepoint: &metadata::Savepoint) -> Answer {
    let operation = facts::operation_of(savepoint);
    let path = format!("/api/v1/operations/{}", operation.id);
    Answer::new(StatusCode::ACCEPTED, &operation).header(header::LOCATION, path)
}

/// The answer to a request for a savepoint that is there already.
pub fn again(
    app: &App,
    job: &metadata::Job,
    there: metadata::Savepoint,
    location: &Option<String>,
) -> ApiResult<Response> {
    let id = IdKind::Savepoint.text(there.savepoint_id);
    let wanted = location.clone().unwrap_or_else(|| home(app, job));
    if !there.location.rsplit_once('/').is_some_and(|(folder, _)| same_place(folder, &wanted)) {
        let detail = format!("savepoint '{}' of the job is {id}, at another location", there.name);
        return Err(ApiError::new("name_taken", detail));
    }
    use axum::response::IntoResponse;
    Ok(accepted(&there).into_response())
}

/// Where the savepoints of a job are, if nobody says otherwise.
fn home(app: &App, job: &metadata::Job) -> String {
    savepoints::home(app).join(IdKind::Job.text(job.job_id)).display().to_string()
}

fn same_place(a: &str, b: &str) -> bool {
    if in_object_store(a) || in_object_store(b) {
        return a == b.trim_end_matches('/');
    }
    let whole = |path: &FilePath| path.components().collect::<PathBuf>();
    let (a, b) = (FilePath::new(a), FilePath::new(b));
    whole(a) == whole(b) || std::fs::canonicalize(b).is_ok_and(|b| whole(&b) == whole(a))
}

/// A place of an object store that the server may write. Whether it can is found out when the savepoint is made.
fn allowed_place(app: &App, given: &str) -> ApiResult<String> {
    state::objects::open(given, &app.config.storage_options())
        .map_err(|why| ApiError::new("validation_failed", format!("{given} is no location of a savepoint: {why}")))?;
    let place = given.trim_end_matches('/');
    if is_below(place, &[app.config.place()]) {
        let detail = format!("{place} is among the checkpoints of the server, which it collects");
        return Err(ApiError::new("location_not_allowed", detail).hint("savepoints go into another part of the bucket"));
    }
    match is_below(place, &app.config.allowed_places) {
        true => Ok(place.to_string()),
        false => Err(outside(place)),
    }
}

fn outside(shown: &str) -> ApiError {
    let detail = format!("{shown} is outside of the directories and places that the server allows");
    ApiError::new("location_not_allowed", detail).hint("whoever runs the server can allow it")
}

/// A directory without links that the server may write, whether or not it exists yet.
async fn allowed_directory(app: &App, directory: PathBuf) -> ApiResult<String> {
    let roots = app.config.allow_roots.clone();
    let shown = directory.display().to_string();
    let look = tokio::task::spawn_blocking(move || {
        let real = directory.ancestors().find_map(|part| Some((part, std::fs::canonicalize(part).ok()?)));
        let (part, real) = real?;
        let rest = directory.strip_prefix(part).ok()?;
        let plain = rest.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let whole: PathBuf = real.join(rest).components().collect();
        let inside =
            roots.iter().filter_map(|root| std::fs::canonicalize(root).ok()).any(|root| whole.starts_with(root));
        (plain && inside).then(|| whole.display().to_string())
    });
    look.await.map_err(ApiError::internal)?.ok_or_else(|| outside(&shown))
}

async fn named(app: &App, job_id: Uuid, name: &str) -> ApiResult<Option<metadata::Savepoint>> {
    let filter = SavepointFilter { job_id: Some(job_id), name: Some(name.to_string()), states: Vec::new() };
    Ok(app.store.savepoints(&filter, Page { after: None, limit: 1 }).await?.pop())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListSavepoints {
    /// Items per page. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// List the savepoints of a job
///
/// Newest first, page by page. Those of a job that was deleted are listed by its id.
#[utoipa::path(get, path = "/api/v1/jobs/{job}/savepoints", operation_id = "list_savepoints", tag = "savepoints",
    params(("job" = String, Path, description = "Id or name of a job"), ListSavepoints), responses(
        (status = 200, description = "A page of savepoints", body = SavepointPage),
        (status = 404, description = "There is no such job", body = Problem, content_type = "application/problem+json")))]
async fn list_savepoints(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(job): Path<String>,
    Params(list): Params<ListSavepoints>,
) -> ApiResult<Json<SavepointPage>> {
    let (job_id, gone) = match jobs::find(&app, &job).await {
        Ok(job) => (job.job_id, None),
        Err(error) => match IdKind::Job.parse(&job).filter(|_| error.code() == "job_not_found") {
            Some(job_id) => (job_id, Some(error)),
            None => return Err(error),
        },
    };
    let filters = format!("savepoints {job_id}");
    let page = paging::page(&app.sealing, list.page_token.as_deref(), list.page_size, &filters)?;
    let filter = SavepointFilter { job_id: Some(job_id), ..SavepointFilter::default() };
    let mut all = app.store.savepoints(&filter, page).await?;
    if let Some(error) = gone.filter(|_| all.is_empty()) {
        return Err(error);
    }
    let next_page_token = paging::next(&app.sealing, &mut all, page, &filters, |savepoint| savepoint.savepoint_id);
    Ok(Json(SavepointPage { items: all.iter().map(facts::savepoint).collect(), next_page_token }))
}

async fn find(app: &App, savepoint: &str) -> ApiResult<metadata::Savepoint> {
    let savepoint_id = parse_id(IdKind::Savepoint, savepoint)?;
    app.store.savepoint(savepoint_id).await.map_err(|error| match error {
        MetadataError::NotFound { .. } => {
            ApiError::new("savepoint_not_found", format!("there is no savepoint {savepoint}"))
        }
        other => other.into(),
    })
}

/// Get a savepoint
#[utoipa::path(get, path = "/api/v1/savepoints/{savepoint}", operation_id = "get_savepoint", tag = "savepoints",
    params(("savepoint" = String, Path, description = "Id of a savepoint")), responses(
        (status = 200, description = "The savepoint", body = Savepoint),
        (status = 404, description = "There is no such savepoint", body = Problem, content_type = "application/problem+json")))]
async fn get_savepoint(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(savepoint): Path<String>,
) -> ApiResult<Json<Savepoint>> {
    Ok(Json(facts::savepoint(&find(&app, &savepoint).await?)))
}

/// Delete a savepoint
///
/// With its files. Refused while it is written, and while a run restores from it.
#[utoipa::path(delete, path = "/api/v1/savepoints/{savepoint}", operation_id = "delete_savepoint", tag = "savepoints",
    params(("savepoint" = String, Path, description = "Id of a savepoint")), responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "There is no such savepoint", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is written, or a run restores from it", body = Problem, content_type = "application/problem+json")))]
async fn delete_savepoint(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(savepoint): Path<String>,
) -> ApiResult<StatusCode> {
    let found = find(&app, &savepoint).await?;
    let id = IdKind::Savepoint.text(found.savepoint_id);
    if found.state == "running" {
        let error = ApiError::new("invalid_state", format!("{id} is being written"));
        return Err(error.hint("wait for its end; then it can be deleted"));
    }
    let change = caller.change("savepoint.delete", &id, json!({"name": found.name, "location": found.location}));
    app.store.delete_savepoint(found.savepoint_id, &change).await?;
    // Nothing leads there any more: what cannot be removed now is in nobody's way.
    let removal = tokio::spawn(async move {
        let place = found.location;
        let removed = match in_object_store(&place) {
            true => remove_objects(&place, &app.config.storage_options()).await,
            false => remove_directory(place.clone()).await,
        };
        if let Err(error) = removed {
            tracing::warn!(error, place, "files of a deleted savepoint could not be removed");
        }
    });
    // It goes on if it takes longer.
    let _ = tokio::time::timeout(REMOVAL, removal).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Its last part is the id of a savepoint: nothing else is there.
async fn remove_directory(directory: String) -> Result<(), String> {
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)).await;
    match removed.map_err(|error| error.to_string())? {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

async fn remove_objects(place: &str, options: &BTreeMap<String, String>) -> Result<(), String> {
    let files = state::objects::open(place, options)?;
    let listed = files.list("").await.map_err(|error| error.to_string())?;
    // First what makes it a savepoint, so that no half of one looks whole.
    let (first, rest) = listed.into_iter().partition::<Vec<_>, _>(|file| file.path == state::savepoint::MANIFEST);
    for file in first.into_iter().chain(rest) {
        files.remove(&file.path).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Check a savepoint against a script, a graph or a job
///
/// Says for every source, operator and sink what would become of its state, before anything runs, and reads the files of the savepoint as
/// far as there is time.
#[utoipa::path(post, path = "/api/v1/savepoints/{savepoint}/check", operation_id = "check_savepoint", tag = "savepoints",
    params(("savepoint" = String, Path, description = "Id of a savepoint")),
    request_body(content = CheckSavepoint, description = "What it is to go on in"), responses(
        (status = 200, description = "The verdicts, also where it does not fit", body = SavepointCheck),
        (status = 404, description = "There is no such savepoint or job", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not completed", body = Problem, content_type = "application/problem+json")))]
async fn check_savepoint(
    Operator(_): Operator,
    State(app): State<App>,
    Path(savepoint): Path<String>,
    body: Body<CheckSavepoint>,
) -> ApiResult<Json<SavepointCheck>> {
    let found = completed(find(&app, &savepoint).await?)?;
    let CheckSavepoint { sql, graph, job, base_directory, allow_dropped_state } = body.value;
    if [sql.is_some(), graph.is_some(), job.is_some()].into_iter().filter(|given| *given).count() != 1 {
        return Err(ApiError::new("validation_failed", "give one of sql, graph and job"));
    }
    let (job, graph, settings) = match job {
        Some(job) => {
            let job = jobs::find(&app, &job).await?;
            let stored = stored(&app, &job).await?;
            (Some(IdKind::Job.text(job.job_id)), stored.graph, stored.settings)
        }
        None => {
            let input = Input { sql, graph, base_directory, ..Input::default() };
            let planned = plan(&app, input).await?.map_err(wrong_graph)?;
            (None, planned.graph, planned.settings)
        }
    };
    let into = IntoGraph { job, graph, settings, may_drop: allow_dropped_state.into_iter().collect() };
    let judgement = judgement(&app, &place_of(&app, &found), &found.sha256(), into).await?;
    let operators: Vec<OperatorVerdict> = judgement.judged.into_iter().map(verdict).collect();
    Ok(Json(SavepointCheck {
        fits: operators.iter().all(|operator| operator.fits),
        verified: judgement.checked,
        operators,
    }))
}

async fn stored(app: &App, job: &metadata::Job) -> ApiResult<Stored> {
    Stored::of(&app.store.version(job.job_id, job.version).await?).map_err(ApiError::internal)
}

/// A savepoint whose files are all there.
struct Completed(metadata::Savepoint);

impl Completed {
    fn sha256(&self) -> Option<String> {
        SavepointFacts::of(&self.0).manifest_sha256
    }
}

fn place_of(app: &App, savepoint: &Completed) -> SavepointPlace {
    savepoints::place(app, &savepoint.0)
}

fn completed(savepoint: metadata::Savepoint) -> ApiResult<Completed> {
    let id = IdKind::Savepoint.text(savepoint.savepoint_id);
    match savepoint.state.as_str() {
        "completed" => Ok(Completed(savepoint)),
        "running" => {
            let error = ApiError::new("invalid_state", format!("{id} is being written"));
            Err(error.hint("wait for its end: GET /api/v1/operations/{operation}?wait=30s"))
        }
        state => Err(ApiError::new("invalid_state", format!("{id} is {state}: there is nothing to restore"))),
    }
}

/// What is found at a savepoint's place, if it is the one that was written there.
async fn judgement(
    app: &App,
    place: &SavepointPlace,
    sha256: &Option<String>,
    into: IntoGraph,
) -> ApiResult<Judgement> {
    let judgement = inspect::judge(app, place.clone(), into, CHECK_SECONDS).await?;
    if sha256.as_ref().is_some_and(|written| *written != judgement.manifest_sha256) {
        let detail = format!("{} is another savepoint than the one that was written there", place.name());
        return Err(ApiError::new("savepoint_corrupt", detail));
    }
    Ok(judgement)
}

pub fn verdict(judged: Judged) -> OperatorVerdict {
    let fits = judged.verdict.is_fine();
    let (verdict, reason, from) = match judged.verdict {
        Verdict::Reuse => (StateFate::Reuse, None, None),
        Verdict::Migrate { from, rule } => (StateFate::Migrate, Some(rule), Some(from)),
        Verdict::Rebuild { from } => {
            (StateFate::Rebuild, Some(format!("it does what {from} does, whose state is copied")), Some(from))
        }
        Verdict::Fresh => (StateFate::Fresh, None, None),
        Verdict::Drop { why, .. } => (StateFate::Drop, Some(why), None),
        Verdict::Conflict { why } => (StateFate::Conflict, Some(why), None),
    };
    let role = match judged.role {
        Role::Source => OperatorRole::Source,
        Role::Operator => OperatorRole::Operator,
        Role::Sink => OperatorRole::Sink,
    };
    OperatorVerdict { operator: judged.id, role, verdict, fits, reason, from, rows: judged.rows, bytes: judged.bytes }
}

/// The error for a savepoint that does not fit.
pub fn conflict(judged: Vec<Judged>) -> ApiError {
    let wrong: Vec<OperatorVerdict> = judged.into_iter().map(verdict).filter(|verdict| !verdict.fits).collect();
    let item = |verdict: &OperatorVerdict| ProblemItem {
        code: if verdict.verdict == StateFate::Drop { "state_dropped" } else { "state_conflict" }.into(),
        message: format!("{}: {}", verdict.operator, verdict.reason.clone().unwrap_or_default()),
        hint: Some(format!("allow_dropped_state: [{:?}] gives its state up ({} rows)", verdict.operator, verdict.rows)),
        ..ProblemItem::default()
    };
    let names: Vec<&str> = wrong.iter().map(|verdict| verdict.operator.as_str()).collect();
    let detail = format!("the savepoint does not fit: {}", names.join(", "));
    ApiError::new("savepoint_conflict", detail).errors(wrong.iter().map(item).collect::<Vec<_>>())
}

/// Finds and judges the savepoint that a run of a job is to begin from.
pub async fn wanted(
    app: &App,
    job: &metadata::Job,
    given: &str,
    may_drop: BTreeSet<String>,
    stored: &Stored,
) -> ApiResult<facts::SavepointRequest> {
    let (savepoint_id, place, sha256) = if given.starts_with('/') || in_object_store(given) {
        let mut roots = app.config.savepoint_roots();
        roots.push(savepoints::home(app).display().to_string());
        (None, SavepointPlace { place: given.into(), allowed_roots: Some(roots) }, None)
    } else {
        let found = match IdKind::Savepoint.parse(given) {
            Some(_) => find(app, given).await?,
            None => named(app, job.job_id, given).await?.ok_or_else(|| {
                let shown: String = given.chars().take(200).collect();
                let detail = format!("job '{}' has no savepoint {shown:?}", job.name);
                ApiError::new("savepoint_not_found", detail).hint("that of another job is known by its id: svp_...")
            })?,
        };
        let found = completed(found)?;
        (Some(found.0.savepoint_id), place_of(app, &found), found.sha256())
    };
    let into = IntoGraph {
        job: Some(IdKind::Job.text(job.job_id)),
        graph: stored.graph.clone(),
        settings: stored.settings.clone(),
        may_drop: may_drop.clone(),
    };
    let judgement = judgement(app, &place, &sha256, into).await?;
    if !judgement.judged.iter().all(|judged| judged.verdict.is_fine()) {
        return Err(conflict(judgement.judged));
    }
    Ok(facts::SavepointRequest {
        given: given.to_string(),
        savepoint_id: savepoint_id.map(|id| IdKind::Savepoint.text(id)),
        place,
        job: judgement.job,
        epoch: judgement.epoch,
        manifest_sha256: judgement.manifest_sha256,
        may_drop,
    })
}

/// Whether a job may go back to a savepoint of its own that is older than what its sinks show.
pub async fn check_rewind(
    app: &App,
    job: &metadata::Job,
    wanted: &facts::SavepointRequest,
    stored: &Stored,
    on_rewind: api::OnRewind,
) -> ApiResult<()> {
    if wanted.job != IdKind::Job.text(job.job_id) {
        return Ok(());
    }
    let Some(newest) = app.store.last_epoch(job.job_id).await? else { return Ok(()) };
    if newest.epoch as u64 <= wanted.epoch {
        return Ok(());
    }
    let of = format!(
        "the savepoint is of epoch {}, and job '{}' has put out epoch {}",
        wanted.epoch, job.name, newest.epoch
    );
    let refused = |why: String| Err(ApiError::new("savepoint_rewind", format!("{of}: {why}")));
    let sinks = || {
        stored.graph.nodes.iter().filter_map(|node| match &node.operator {
            graph::Operator::Sink(sink) => Some(sink),
            _ => None,
        })
    };
    let bounded = stored.graph.nodes.iter().all(|node| match &node.operator {
        graph::Operator::Source(source) => source.connector.is_bounded(),
        _ => true,
    });
    match on_rewind {
        api::OnRewind::Error => Err(ApiError::new("savepoint_rewind", of).hint(
            "say on_rewind: append_again (rows come again, views go back) or truncate_after (where all sinks are views); or restore it in \
             another job",
        )),
        api::OnRewind::AppendAgain => {
            let files = sinks().find(|sink| matches!(sink.connector, graph::SinkConnector::Filesystem(_)));
            match files.filter(|_| bounded && newest.last) {
                Some(sink) => refused(format!(
                    "{} was published when the run finished, as a bounded run does once; its files cannot be published again",
                    sink.table
                )),
                None => Ok(()),
            }
        }
        api::OnRewind::TruncateAfter => match sinks().find(|sink| sink.view_name().is_none()) {
            Some(sink) => refused(format!(
                "{} ({}) cannot take rows back; only views can",
                sink.table,
                sink.connector.name()
            )),
            None => Ok(()),
        },
    }
}
