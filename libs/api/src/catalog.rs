//! Connectors, connections and tables.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{ColumnFacts, Delivery};

/// A kind of source or sink of this build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connector {
    /// The value of `'connector'` in SQL.
    pub name: String,
    pub role: ConnectorRole,
    /// The strongest contract that it can keep.
    pub strongest_delivery: Delivery,
    /// Whether what it reads can end; of sinks: whether they take changed rows.
    pub about: String,
    /// JSON Schema of its options.
    #[schema(value_type = Object)]
    pub options: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectorRole {
    Source,
    Sink,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connectors {
    pub items: Vec<Connector>,
}

/// The kind of system that a connection leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    Kafka,
    Postgres,
    S3,
    SchemaRegistry,
}

/// Body of `POST /connections`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateConnection {
    /// What tables say: `'connection' = 'name'`.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    pub name: String,
    pub kind: ConnectionKind,
    /// Options by the names that tables use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    /// Options whose values are secret. They are stored sealed and never shown again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secrets: BTreeMap<String, String>,
}

/// Body of `PUT /connections/{connection}`: replaces all options and secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplaceConnection {
    pub kind: ConnectionKind,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(write_only)]
    pub secrets: BTreeMap<String, String>,
}

/// How to reach an external system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connection {
    pub id: String,
    pub name: String,
    pub kind: ConnectionKind,
    pub options: BTreeMap<String, String>,
    /// Names of the options that have secret values.
    pub secrets: Vec<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Connections {
    pub items: Vec<Connection>,
}

/// How far a connection leads, step by step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionTest {
    pub ok: bool,
    /// In order; the first that fails is the last.
    pub steps: Vec<ConnectionTestStep>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConnectionTestStep {
    /// `options`, `egress`, `resolve`, `connect`, `authenticate`, `metadata`, ...
    pub step: String,
    pub ok: bool,
    /// What was found, or why not.
    pub detail: String,
    pub elapsed_ms: u64,
}

/// Body of `POST /tables`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTable {
    /// One `CREATE TABLE` statement. Its name becomes known to every script.
    #[schema(max_length = 262144)]
    pub sql: String,
}

/// A table that every script may use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Table {
    pub id: String,
    pub name: String,
    pub sql: String,
    pub connector: String,
    pub columns: Vec<ColumnFacts>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Tables {
    pub items: Vec<Table>,
}
