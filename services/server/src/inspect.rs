//! Asks a process of its own about files and networks, so that whatever it meets there costs this one nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use api::{ConnectionTest, ConnectionTestStep, ProblemItem};
use control::inspect::{Answer, Found, Question};
use graph::{Graph, Settings};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::app::App;
use crate::planning::{Planned, wrong_graph};
use crate::problem::{ApiError, ApiResult, told};

const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
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
        Answer::Connected(_) => Err(ApiError::internal("an answer to another question")),
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
        Answer::Checked(_) => return Err(ApiError::internal("an answer to another question")),
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
    let waited = tokio::time::timeout(CHECK_TIMEOUT, app.checks.acquire()).await;
    let Ok(Ok(_permit)) = waited else {
        return Err(ApiError::new("not_ready", "the server checks as many tables and connections as it can"));
    };
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
    let output = match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(ApiError::internal(format!("a process that inspects could not be run: {error}"))),
        Err(_) => {
            let detail = format!("looking at the sources and sinks took longer than {timeout:?}");
            return Err(ApiError::new("validation_failed", detail));
        }
    };
    serde_json::from_slice(&output.stdout)
        .map_err(|_| ApiError::internal(format!("the process that inspects ended with {}", output.status)))
}
