//! Who may do what, and who did.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What a key allows. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// See everything but keys and the audit log.
    Viewer,
    /// Create, change, start and stop jobs; run queries.
    Operator,
    /// Connections, keys and the audit log too.
    Admin,
}

/// Body of `POST /keys`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// For people.
    #[schema(min_length = 1, max_length = 128)]
    pub name: String,
    pub role: Role,
    /// From then on the key is refused. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

/// A key to the API. Of the key itself only a hash is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiKey {
    pub id: String,
    pub name: String,
    pub role: Role,
    pub created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A new key, shown this once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedKey {
    #[serde(flatten)]
    #[schema(inline)]
    pub key: ApiKey,
    /// Give it as `authorization: Bearer SECRET`.
    pub secret: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApiKeys {
    pub items: Vec<ApiKey>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Whoami {
    /// `key_...`, or `local` where a server on a loopback address has no keys.
    pub principal: String,
    pub role: Role,
}

/// A change, or an attempt that was denied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    pub sequence: i64,
    pub at: DateTime<Utc>,
    pub principal: String,
    pub request_id: String,
    /// `job.create`, `run.stop`...
    pub action: String,
    pub object: String,
    /// `done` or `denied`.
    pub outcome: String,
    #[schema(value_type = Object)]
    pub detail: Value,
    /// sha256 over this entry and the hash of the one before.
    pub hash: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// Oldest first.
    pub items: Vec<AuditEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}
