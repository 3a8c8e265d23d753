//! Operations: long-running work, durable, awaited by long polls.

use std::time::Duration;

use api::{IdKind, Operation, OperationKind, OperationState, Problem};
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::app::App;
use crate::auth::Viewer;
use crate::http::Params;
use crate::problem::{ApiError, ApiResult};

const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often the store is read while someone waits: another server may end the operation.
const WAIT_STEP: Duration = Duration::from_millis(500);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_operation))
}

pub fn shown(operation: &metadata::Operation) -> Operation {
    Operation {
        id: IdKind::Operation.text(operation.operation_id),
        kind: match operation.kind.as_str() {
            "stop_now" => OperationKind::StopNow,
            _ => OperationKind::StopDrain,
        },
        subject: operation.subject.clone(),
        state: match operation.state.as_str() {
            "running" => OperationState::Running,
            "succeeded" => OperationState::Succeeded,
            _ => OperationState::Failed,
        },
        progress: operation.progress.as_str().map(str::to_string),
        failure: operation.failure.clone().and_then(|failure| serde_json::from_value(failure).ok()),
        created_at: operation.created_at,
        ended_at: operation.ended_at,
    }
}

/// The duration in a parameter, at most `most`.
pub fn wait_time(text: Option<&str>, most: Duration) -> ApiResult<Duration> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    let wait = humantime::parse_duration(text)
        .map_err(|error| ApiError::new("validation_failed", format!("wait is {text:?}: {error}; write 30s")))?;
    Ok(wait.min(most))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// Answer when the operation has ended, or after this time: `30s`; at most 60s. Default: at once.
    #[param(max_length = 32)]
    wait: Option<String>,
}

/// Get an operation
///
/// With `wait` the answer comes when it has ended, or when the time is over.
#[utoipa::path(get, path = "/api/v1/operations/{operation}", operation_id = "get_operation", tag = "operations",
    params(("operation" = String, Path, description = "Id of an operation"), Wait), responses(
        (status = 200, description = "The operation", body = Operation),
        (status = 404, description = "There is no such operation", body = Problem, content_type = "application/problem+json")))]
async fn get_operation(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(operation): Path<String>,
    Params(Wait { wait }): Params<Wait>,
) -> ApiResult<Json<Operation>> {
    let operation_id: Uuid = IdKind::Operation.parse(&operation).ok_or_else(|| {
        let shown: String = operation.chars().take(100).collect();
        ApiError::new("invalid_id", format!("{shown:?} is not the id of an operation"))
    })?;
    let until = tokio::time::Instant::now() + wait_time(wait.as_deref(), WAIT_MAX)?;
    let mut stopping = app.stopping.subscribe();
    loop {
        let operation = app.store.operation(operation_id).await?;
        let now = tokio::time::Instant::now();
        if operation.state != "running" || now >= until || app.is_stopping() {
            return Ok(Json(shown(&operation)));
        }
        // The run that it is about ends: look at once.
        let live = IdKind::Run.parse(&operation.subject).and_then(|run_id| app.attempts.get(run_id));
        let looked = async {
            match &live {
                Some(live) => drop(live.looks.subscribe().changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(WAIT_STEP.min(until - now)) => {}
            () = looked => {}
            _ = stopping.changed() => {}
        }
    }
}
