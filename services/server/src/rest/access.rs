//! Keys and the audit log.

use api::{ApiKey, ApiKeys, AuditEntry, AuditPage, CreateKey, CreatedKey, IdKind, Problem, Whoami};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::parse_id;
use crate::app::App;
use crate::auth::{Admin, Viewer, new_key, role, role_name};
use crate::http::{Body, Params};
use crate::problem::{ApiError, ApiResult};
use crate::time::now;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(whoami))
        .routes(routes!(list_keys, create_key))
        .routes(routes!(revoke_key))
        .routes(routes!(list_audit))
}

fn shown(key: &metadata::ApiKey) -> ApiKey {
    ApiKey {
        id: IdKind::Key.text(key.key_id),
        name: key.name.clone(),
        role: role(&key.role).expect("the store has known roles only"),
        created_at: key.created_at,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
    }
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
    Ok(Json(ApiKeys { items: app.store.keys().await?.iter().map(shown).collect() }))
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
    let (secret, hash) = new_key();
    let key = metadata::ApiKey {
        key_id: Uuid::now_v7(),
        name: body.value.name,
        role: role_name(body.value.role).into(),
        hash,
        created_at: now(),
        expires_at: body.value.expires_at,
        revoked_at: None,
    };
    let object = IdKind::Key.text(key.key_id);
    let change = caller.change("key.create", &object, json!({"name": key.name, "role": key.role}));
    app.store.create_key(&key, &change).await?;
    app.keys.changed();
    let created = CreatedKey { key: shown(&key), secret };
    Ok((StatusCode::CREATED, [(header::LOCATION, "/api/v1/keys")], Json(created)).into_response())
}

/// Revoke a key
///
/// From then on it is refused. It stays in the list.
#[utoipa::path(delete, path = "/api/v1/keys/{key}", operation_id = "revoke_key", tag = "access",
    params(("key" = String, Path, description = "Id of a key")), responses(
        (status = 200, description = "Revoked", body = ApiKey),
        (status = 404, description = "There is no such key", body = Problem, content_type = "application/problem+json")))]
async fn revoke_key(Admin(caller): Admin, State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<ApiKey>> {
    let key_id = parse_id(IdKind::Key, &key)?;
    let change = caller.change("key.revoke", &key, json!({}));
    let revoked = app.store.revoke_key(key_id, now(), &change).await?;
    app.keys.changed();
    Ok(Json(shown(&revoked)))
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
