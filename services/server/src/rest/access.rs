//! Keys and the audit log.

use api::{ApiKey, ApiKeys, AuditEntry, AuditPage, CreateKey, CreatedKey, Problem, Whoami};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::{Admin, Viewer};
use crate::http::{Body, Params};
use crate::keys;
use crate::problem::{ApiError, ApiResult};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(whoami))
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
        .routes(routes!(list_audit))
}

/// Get who asks
#[utoipa::path(get, path = "/api/v1/whoami", operation_id = "whoami", tag = "access", responses(
    (status = 200, description = "The caller and the role", body = Whoami)))]
async fn whoami(Viewer(caller): Viewer) -> Json<Whoami> {
    Json(Whoami { principal: caller.principal, role: caller.role })
}

/// List keys
#[utoipa::path(get, path = "/api/v1/keys", operation_id = "list_keys", tag = "access", responses(
    (status = 200, description = "All keys, also revoked ones; never the keys themselves", body = ApiKeys)))]
async fn list_keys(Admin(_): Admin, State(app): State<App>) -> ApiResult<Json<ApiKeys>> {
    Ok(Json(ApiKeys { items: keys::list(&*app.store).await? }))
}

/// Create a key
///
/// The answer is the only one that shows it; it takes no idempotency key, since it must not be stored. From the first key on, every request
/// needs one.
#[utoipa::path(post, path = "/api/v1/keys", operation_id = "create_key", tag = "access",
    request_body(content = CreateKey, description = "Name and role"), responses(
        (status = 201, description = "Created", body = CreatedKey, headers(("location" = String, description = "Path of the keys"))),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json")))]
async fn create_key(Admin(caller): Admin, State(app): State<App>, body: Body<CreateKey>) -> ApiResult<Response> {
    let created = keys::create(&*app.store, &caller, body.value).await?;
    app.keys.changed();
    Ok((StatusCode::CREATED, [(header::LOCATION, "/api/v1/keys")], Json(created)).into_response())
}

/// Revoke a key
///
/// From then on it is refused. It stays in the list. The last key with the role admin is not revoked: create another one first.
#[utoipa::path(delete, path = "/api/v1/keys/{key}", operation_id = "revoke_key", tag = "access",
    params(("key" = String, Path, description = "Id of a key")), responses(
        (status = 200, description = "Revoked", body = ApiKey),
        (status = 404, description = "There is no such key", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is the last key with the role admin", body = Problem, content_type = "application/problem+json")))]
async fn revoke_key(Admin(caller): Admin, State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<ApiKey>> {
    let revoked = keys::revoke_another_than_last(&*app.store, &caller, &key).await?;
    app.keys.changed();
    Ok(Json(revoked))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Audit {
    /// Items per page. Default: 100.
    #[param(minimum = 1, maximum = 1000)]
    page_size: Option<i64>,
    /// `next_page_token` of the page before.
    #[param(max_length = 32)]
    page_token: Option<String>,
}

/// List changes
///
/// Every change and every denial, oldest first. Entries are chained by hashes: one that is missing or changed breaks the chain.
#[utoipa::path(get, path = "/api/v1/audit", operation_id = "list_audit", tag = "access", params(Audit), responses(
    (status = 200, description = "A page of the log", body = AuditPage)))]
async fn list_audit(
    Admin(_): Admin,
    State(app): State<App>,
    Params(audit): Params<Audit>,
) -> ApiResult<Json<AuditPage>> {
    let limit = audit.page_size.unwrap_or(100);
    let after = match audit.page_token {
        None => 0,
        Some(token) => {
            token.parse().map_err(|_| ApiError::new("invalid_cursor", "page_token is not one that was given"))?
        }
    };
    let entries = app.store.audit_log(after, limit).await?;
    let next_page_token =
        entries.last().filter(|_| entries.len() as i64 == limit).map(|entry| entry.sequence.to_string());
    let entry = |entry: metadata::AuditEntry| AuditEntry {
        sequence: entry.sequence,
        at: entry.at,
        principal: entry.principal,
        request_id: entry.request_id,
        action: entry.action,
        object: entry.object,
        outcome: entry.outcome,
        detail: entry.detail,
        hash: entry.hash,
    };
    Ok(Json(AuditPage { items: entries.into_iter().map(entry).collect(), next_page_token }))
}
