//! Asks a process of its own about files and networks, so that whatever it meets there costs this one nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use api::{ConnectionTest, ConnectionTestStep, ProblemItem};
use control::inspect::{
    Answer, CheckpointFile, CheckpointPlace, Compared, Exported, Found, IntoGraph, Judgement, Question, Refused,
    SavepointPlace,
};
use graph::{Graph, Settings};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::app::App;
use crate::planning::{Planned, wrong_graph};
use crate::problem::{ApiError, ApiResult, told};

const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// All files of the checkpoints of a job are read within it.
const FSCK_TIMEOUT: Duration = Duration::from_secs(600);
/// A connection that leads nowhere within this time leads nowhere.
const CONNECT_SECONDS: u64 = 10;

/// Whether the sources and sinks of a plan can be used.
pub async fn check(app: &App, planned: &Planned) -> ApiResult<()> {
    let found = found(app, &planned.graph, &planned.settings, &app.config.allow_roots).await?;
    refuse(found, &|found| planned.place(found))
}

/// The same for a graph that no script stands behind.
pub async fn check_graph(app: &App, graph: &Graph, settings: &Settings, allowed_roots: &[PathBuf]) -> ApiResult<()> {
    let found = found(app, graph, settings, allowed_roots).await?;
    refuse(found, &|_| ProblemItem::default())
}

async fn found(app: &App, graph: &Graph, settings: &Settings, allowed_roots: &[PathBuf]) -> ApiResult<Vec<Found>> {
    let connections = match crate::planning::credentials(app, graph).await {
        // It is the script that is wrong, not the path of the request.
        Err(error) if error.code() == "connection_not_found" => {
            return Ok(vec![Found {
                operator: None,
                code: "connection_not_found".into(),
                message: error.problem().detail.clone(),
                hint: Some("create it: POST /api/v1/connections; GET lists those that are there".into()),
            }]);
        }
        other => other?,
    };
    let question = Question::Check {
        graph: Box::new(graph.clone()),
        settings: Box::new(settings.clone()),
        allowed_roots: allowed_roots.to_vec(),
        connections,
        egress: app.config.egress(),
    };
    match ask(app, &question, CHECK_TIMEOUT).await? {
        Answer::Checked(found) => Ok(found),
        _ => Err(another()),
    }
}

fn refuse(found: Vec<Found>, place: &dyn Fn(&Found) -> ProblemItem) -> ApiResult<()> {
    if found.is_empty() {
        return Ok(());
    }
    let item = |found: &Found| {
        let (message, hint) = told(&found.code, &found.message, found.hint.as_deref());
        ProblemItem { code: found.code.clone(), message, hint, ..place(found) }
    };
    let items: Vec<ProblemItem> = found.iter().map(item).collect();
    // What is forbidden comes before what is wrong.
    let denied = ["location_not_allowed", "endpoint_not_allowed"]
        .into_iter()
        .find_map(|code| items.iter().find(|item| item.code == code).map(|item| (code, item.message.clone())));
    Err(match denied {
        Some((code, detail)) => ApiError::new(code, detail).errors(items),
        None => wrong_graph(items),
    })
}

/// How far a connection leads; the options hold secrets.
pub async fn test_connection(app: &App, kind: &str, options: BTreeMap<String, String>) -> ApiResult<ConnectionTest> {
    let question =
        Question::Connect { kind: kind.to_string(), options, egress: app.config.egress(), seconds: CONNECT_SECONDS };
    let steps = match ask(app, &question, Duration::from_secs(CONNECT_SECONDS + 5)).await? {
        Answer::Connected(steps) => steps,
        _ => return Err(another()),
    };
    let step = |step: control::inspect::Step| ConnectionTestStep {
        step: step.name,
        ok: step.ok,
        detail: step.detail,
        elapsed_ms: step.elapsed_ms,
    };
    let steps: Vec<ConnectionTestStep> = steps.into_iter().map(step).collect();
    Ok(ConnectionTest { ok: !steps.is_empty() && steps.iter().all(|step| step.ok), steps })
}

async fn ask(app: &App, question: &Question, timeout: Duration) -> ApiResult<Answer> {
    let _permit = permit(app).await?;
    match tokio::time::timeout(timeout, run(app, question)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            let detail = format!("looking at the sources and sinks took longer than {timeout:?}");
            Err(ApiError::new("validation_failed", detail))
        }
    }
}

/// To look at tables, connections or savepoints: not too many at once.
async fn permit(app: &App) -> ApiResult<tokio::sync::SemaphorePermit<'_>> {
    let waited = tokio::time::timeout(CHECK_TIMEOUT, app.checks.acquire()).await;
    let Ok(Ok(permit)) = waited else {
        return Err(ApiError::new("not_ready", "the server checks as many tables and connections as it can"));
    };
    Ok(permit)
}

/// Copies a checkpoint into a savepoint, however long that takes.
pub async fn export(
    app: &App,
    job: String,
    checkpoint: CheckpointFile,
    job_name: String,
    graph: serde_json::Value,
    to: SavepointPlace,
) -> ApiResult<Exported> {
    let _permit = app.copies.acquire().await.map_err(ApiError::internal)?;
    let checkpoints = checkpoints(app);
    match copy(app, &Question::Export { checkpoints, job, checkpoint, job_name, graph, to }).await? {
        Answer::Exported(exported) => exported.map_err(not_done),
        _ => Err(another()),
    }
}

/// What would become of a savepoint. Its files are read for so many seconds at most.
pub async fn judge(app: &App, from: SavepointPlace, into: IntoGraph, seconds: u64) -> ApiResult<Judgement> {
    let (name, options) = (from.name(), app.config.storage_options());
    let question = Question::Judge { from, options, into: Box::new(into), seconds };
    let _permit = permit(app).await?;
    let patience = CHECK_TIMEOUT + Duration::from_secs(seconds);
    let Ok(answer) = tokio::time::timeout(patience, run(app, &question)).await else {
        let detail = format!("{name} cannot be reached: its manifest could not be read within {patience:?}");
        return Err(ApiError::new("savepoint_storage", detail));
    };
    match answer.map_err(|why| died("looks at the savepoint", why))? {
        Answer::Judged(judged) => judged.map_err(not_done),
        _ => Err(another()),
    }
}

/// Writes a savepoint as a checkpoint of a job, however long that takes.
pub async fn import(
    app: &App,
    from: SavepointPlace,
    manifest_sha256: String,
    into: IntoGraph,
    run_id: String,
    epoch: u64,
) -> ApiResult<CheckpointFile> {
    let _permit = app.copies.acquire().await.map_err(ApiError::internal)?;
    let checkpoints = checkpoints(app);
    match copy(app, &Question::Import { from, manifest_sha256, into: Box::new(into), checkpoints, run: run_id, epoch })
        .await?
    {
        Answer::Imported(imported) => imported.map_err(not_done),
        _ => Err(another()),
    }
}

/// Compares what these checkpoints of a job name with what is there.
pub async fn fsck(app: &App, job: String, retained: Vec<CheckpointFile>, grace: Duration) -> ApiResult<Compared> {
    let question = Question::Fsck { checkpoints: checkpoints(app), job, retained, grace_us: grace.as_micros() as i64 };
    let _permit = app.copies.acquire().await.map_err(ApiError::internal)?;
    match tokio::time::timeout(FSCK_TIMEOUT, run(app, &question)).await {
        Ok(answer) => match answer? {
            Answer::Compared(compared) => compared.map_err(not_done),
            _ => Err(another()),
        },
        Err(_) => {
            let detail = format!("reading the files of the checkpoints took longer than {FSCK_TIMEOUT:?}");
            Err(ApiError::new("not_ready", detail))
        }
    }
}

fn checkpoints(app: &App) -> CheckpointPlace {
    CheckpointPlace { place: app.config.place(), options: app.config.storage_options() }
}

fn another() -> ApiError {
    ApiError::internal("an answer to another question")
}

/// The errors of savepoints have kinds of their own; what else keeps files from being read or written is one of them.
fn not_done(refused: Refused) -> ApiError {
    let Refused { code, message, judged } = refused;
    if code == "savepoint_conflict" {
        return crate::rest::conflict(judged);
    }
    let known =
        ["savepoint_not_found", "savepoint_format", "savepoint_corrupt", "location_not_allowed", "validation_failed"];
    let code = known.into_iter().find(|known| *known == code).unwrap_or("savepoint_storage");
    ApiError::new(code, told(code, &message, None).0)
}

async fn copy(app: &App, question: &Question) -> ApiResult<Answer> {
    run(app, question).await.map_err(|why| died("copies the state", why))
}

/// To read state or a savepoint may need much memory: it is told that the process that does it died.
fn died(does: &str, why: NoAnswer) -> ApiError {
    match why {
        NoAnswer::Died(status) => {
            let detail = format!("the process that {does} ended with {status} before it was done");
            ApiError::new("savepoint_storage", detail).hint("if the machine was out of memory, it needs more of it")
        }
        other => other.into(),
    }
}

/// Why a process did not answer.
enum NoAnswer {
    NotRun(std::io::Error),
    Died(ExitStatus),
}

impl From<NoAnswer> for ApiError {
    fn from(why: NoAnswer) -> ApiError {
        ApiError::internal(match why {
            NoAnswer::NotRun(error) => format!("a process that inspects could not be run: {error}"),
            NoAnswer::Died(status) => format!("the process that inspects ended with {status}"),
        })
    }
}

async fn run(app: &App, question: &Question) -> Result<Answer, NoAnswer> {
    let asked = async {
        let mut child = Command::new(&app.config.program)
            .arg("inspect")
            .env_remove(crate::attempts::process::DATABASE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it was asked for");
        let text = serde_json::to_vec(question).map_err(std::io::Error::other)?;
        // A process that has died already is known by what it did not answer.
        let _ = stdin.write_all(&text).await;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = asked.await.map_err(NoAnswer::NotRun)?;
    serde_json::from_slice(&output.stdout).map_err(|_| NoAnswer::Died(output.status))
}
