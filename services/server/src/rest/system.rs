//! The server itself: health, version, metrics.

use api::{Health, Problem, Version};
use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Viewer;
use crate::document;
use crate::problem::{ApiError, ApiResult};

/// Answered to everyone: nothing here says anything about what is stored.
pub fn open() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz))
}

pub fn guarded() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(version)).routes(routes!(metrics)).routes(routes!(openapi))
}

fn ok() -> Json<Health> {
    Json(Health { status: "ok".into() })
}

/// Say whether the server lives
#[utoipa::path(get, path = "/livez", operation_id = "livez", tag = "system", security(()), responses(
    (status = 200, description = "It lives", body = Health)))]
async fn livez() -> Json<Health> {
    ok()
}

/// Say whether the server is ready
///
/// It is when its metadata store answers and it is not shutting down.
#[utoipa::path(get, path = "/readyz", operation_id = "readyz", tag = "system", security(()), responses(
    (status = 200, description = "It is ready", body = Health),
    (status = 503, description = "It is not", body = Problem, content_type = "application/problem+json")))]
async fn readyz(State(app): State<App>) -> ApiResult<Json<Health>> {
    if app.is_stopping() {
        return Err(ApiError::new("not_ready", "the server is shutting down"));
    }
    app.store.ping().await?;
    Ok(ok())
}

/// Get the version
#[utoipa::path(get, path = "/version", operation_id = "version", tag = "system", responses(
    (status = 200, description = "The version of the server and of what it understands", body = Version)))]
async fn version(Viewer(_): Viewer) -> Json<Version> {
    Json(Version {
        name: "highwater".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        api: vec!["v1".into()],
        graph: vec![graph::GRAPH_VERSION.into()],
    })
}

/// Get metrics for Prometheus
#[utoipa::path(get, path = "/metrics", operation_id = "metrics", tag = "system", responses(
    (status = 200, description = "The server's and the active runs' figures", body = String, content_type = "application/openmetrics-text")))]
async fn metrics(Viewer(_): Viewer, State(app): State<App>) -> ApiResult<Response> {
    let text = app.metrics.text(&app).map_err(ApiError::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response())
}

/// Get this document
#[utoipa::path(get, path = "/openapi.json", operation_id = "openapi", tag = "system", security(()), responses(
    (status = 200, description = "The OpenAPI document of this server", body = serde_json::Value)))]
async fn openapi(Viewer(_): Viewer) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document::text()).into_response()
}
