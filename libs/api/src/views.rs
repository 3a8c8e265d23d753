//! Views: named results of jobs.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::ColumnFacts;

/// A named result of a job that can be queried. It outlives run and server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct View {
    pub name: String,
    pub job_id: String,
    pub job_name: String,
    pub columns: Vec<ColumnFacts>,
    /// The columns that tell rows apart; empty: rows are only added, and the oldest go.
    pub key: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Views {
    pub items: Vec<View>,
}

/// Rows of a view at one complete epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ViewRows {
    /// The version read; the same as the ETag.
    pub version: String,
    /// Whether the version survives the run and the server.
    pub durable: bool,
    /// Results are complete up to this event time; absent before the first watermark, and after the final one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<DateTime<Utc>>,
    /// How long ago the version was made.
    pub lag_ms: i64,
    /// Rows of the view in all, before filter and limit.
    pub total_rows: u64,
    /// Rows that a view without a key has removed: beyond `retention.rows`, or older than `retention.age`.
    #[serde(default)]
    pub removed_rows: u64,
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<Map<String, Value>>,
}

/// Which version of a view is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The newest that cannot be lost, and never steps back.
    Durable,
    /// The newest complete epoch; may step back after a failure.
    Latest,
}

/// Body of `POST /sql/query`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlQuery {
    /// One SELECT over bounded tables and views, after any CREATE statements.
    #[schema(max_length = 1048576)]
    pub sql: String,
    /// Where relative paths of local files begin: absolute, on the server's machine. Without it they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, pattern = "^/")]
    pub base_directory: Option<String>,
    /// Ends the query after this time: `30s`. Default and maximum: as the server is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub timeout: Option<String>,
    /// Resident bytes of the query's process. Default and maximum: as the server is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 33554432)]
    pub memory_bytes: Option<u64>,
    /// Rows at most; more are cut off, and `truncated` says so. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub limit: Option<u64>,
}

/// Rows of a query as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueryRows {
    pub columns: Vec<ColumnFacts>,
    #[schema(value_type = Vec<Object>)]
    pub rows: Vec<Map<String, Value>>,
    /// The limit cut rows off.
    pub truncated: bool,
    /// What ended the query before its last row: rows so far stand above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::Problem>,
}
