//! Operations: long-running work, durable, awaited by long polls.

use std::time::Duration;

use api::{IdKind, Operation, OperationKind, OperationState, Problem};
use axum::Json;
use axum::extract::{Path, State};
use metadata::MetadataError;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::parse_id;
use crate::app::App;
use crate::auth::Viewer;
use crate::facts;
use crate::http::Params;
use crate::problem::{ApiError, ApiResult};

const WAIT_MAX: Duration = Duration::from_secs(60);
/// How often the store is read while someone waits: another server may end the operation.
pub const WAIT_STEP: Duration = Duration::from_millis(500);

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
        savepoint: None,
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

/// How long the answer may wait for an end.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer when it has ended, or after this time: `30s`; at most 60s. Default: at once.
    #[param(max_length = 32)]
    wait: Option<String>,
}

impl Wait {
    /// When to answer in any case.
    pub fn until(&self) -> ApiResult<Instant> {
        let Some(text) = &self.wait else { return Ok(Instant::now()) };
        let wait = humantime::parse_duration(text)
            .map_err(|error| ApiError::new("validation_failed", format!("wait is {text:?}: {error}; write 30s")))?;
        Ok(Instant::now() + wait.min(WAIT_MAX))
    }
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
    Params(wait): Params<Wait>,
) -> ApiResult<Json<Operation>> {
    let operation_id = parse_id(IdKind::Operation, &operation)?;
    let until = wait.until()?;
    let mut stopping = app.stopping.subscribe();
    loop {
        let changed = app.savepoints.changed();
        let operation = match app.store.operation(operation_id).await {
            // One that makes a savepoint is that.
            Err(error @ MetadataError::NotFound { .. }) => match app.store.savepoint(operation_id).await {
                Ok(savepoint) => facts::operation_of(&savepoint),
                Err(MetadataError::NotFound { .. }) => return Err(error.into()),
                Err(error) => return Err(error.into()),
            },
            operation => shown(&operation?),
        };
        let now = Instant::now();
        if operation.state != OperationState::Running || now >= until || app.is_stopping() {
            return Ok(Json(operation));
        }
        // The run that it is about ends: look at once.
        let live = IdKind::Run.parse(&operation.subject).and_then(|run_id| app.attempts.get(run_id));
        let moved = async {
            match &live {
                Some(live) => drop(live.moves.subscribe().changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tokio::time::sleep(WAIT_STEP.min(until - now)) => {}
            () = moved => {}
            () = changed => {}
            _ = stopping.changed() => {}
        }
    }
}
