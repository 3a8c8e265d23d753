//! Validation of scripts and graphs.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{Ref, RefOr};

use crate::ProblemItem;

/// The schema `Graph` comes from the crate that defines it; here it is only named.
pub fn graph_reference() -> RefOr<Schema> {
    RefOr::Ref(Ref::from_schema_name("Graph"))
}

/// Body of `POST /graphs/validate`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateGraph {
    /// A script in SQL; either this or `graph`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1048576)]
    pub sql: Option<String>,
    /// A job graph; either this or `sql`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = graph_reference)]
    pub graph: Option<Value>,
    /// Where relative paths of local files begin: absolute, on the server's machine. Without it they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, pattern = "^/")]
    pub base_directory: Option<String>,
}

/// What a script or graph means, or everything that is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GraphValidation {
    pub valid: bool,
    /// Absent if it is not valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = graph_reference)]
    pub graph: Option<Value>,
    /// Whether all sources end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bounded: Option<bool>,
    /// What is known of the output of each node, in the order of the graph.
    pub nodes: Vec<NodeFacts>,
    pub errors: Vec<ProblemItem>,
    pub warnings: Vec<ProblemItem>,
}

/// What holds for the rows that leave a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeFacts {
    pub id: String,
    pub columns: Vec<ColumnFacts>,
    pub bounded: bool,
    /// The column by which event time is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_attribute: Option<String>,
    /// `insert_only`, `retract` or `upsert`.
    pub changelog: String,
    /// Columns that tell the rows apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ColumnFacts {
    pub name: String,
    /// The type as SQL writes it: `DECIMAL(10, 2)`.
    #[serde(rename = "type")]
    pub data_type: String,
    pub nullable: bool,
}
