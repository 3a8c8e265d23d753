//! Savepoints: checkpoints that belong to the user.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::Problem;

/// Body of `POST /jobs/{job}/savepoints`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSavepoint {
    /// Yours to choose, unique among the savepoints of the job: asking again with it finds the first one. Default: its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    pub name: Option<String>,
    /// A directory on the server's machine or `s3://bucket/prefix`, below one that the server allows (`--allow-root`): the savepoint becomes a
    /// directory in it, called by its id. Default: among the data of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, pattern = "^(/|s3://)")]
    pub location: Option<String>,
}

/// A consistent copy of a job's state in an open format (docs/savepoints.md). It outlives its job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Savepoint {
    pub id: String,
    /// Unique among the savepoints of the job.
    pub name: String,
    /// The job that it was taken of, and its name then.
    pub job_id: String,
    pub job_name: String,
    /// The run whose checkpoint it is.
    pub run_id: String,
    pub state: SavepointState,
    /// The epoch that it is a copy of, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Its directory on the server's machine, or `s3://bucket/prefix`.
    pub location: String,
    /// `highwater-savepoint/1`.
    pub format: String,
    /// All files together, when it is completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// What has state in it, when it is completed.
    pub operators: Vec<SavepointOperator>,
    /// The run was asked to stop with it.
    pub stops_run: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Problem>,
    pub created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
}

/// State of an operator in a savepoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SavepointOperator {
    /// Its id in the graph.
    pub operator: String,
    /// Rows of its tables; of a sink also its files.
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SavepointState {
    /// It waits for its checkpoint, or is written.
    Running,
    Completed,
    Failed,
}

/// A page of savepoints, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SavepointPage {
    pub items: Vec<Savepoint>,
    /// Give it as `page_token` for the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// Body of `POST /savepoints/{savepoint}/check`: one of `sql`, `graph` and `job`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckSavepoint {
    /// A script in SQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1048576)]
    pub sql: Option<String>,
    /// A job graph.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::graph_reference)]
    pub graph: Option<Value>,
    /// Id or name of a job: its newest version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub job: Option<String>,
    /// Where relative paths of local files begin, as for a job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, pattern = "^/")]
    pub base_directory: Option<String>,
    /// Ids of sources, operators and sinks of the savepoint whose state may be lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 10000)]
    pub allow_dropped_state: Vec<String>,
}

/// What would become of a savepoint in a graph. Nothing has run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SavepointCheck {
    /// A run may begin from it with what is asked for.
    pub fits: bool,
    /// Every file of the savepoint was read and is what was written. False if there was no time for all: a run reads them again before it
    /// begins.
    pub verified: bool,
    /// In the order of the graph, then what only the savepoint has.
    pub operators: Vec<OperatorVerdict>,
}

/// What becomes of the state of a source, an operator or a sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OperatorVerdict {
    /// Its id in the graph; of what is dropped, in the savepoint.
    pub operator: String,
    pub role: OperatorRole,
    pub verdict: StateFate,
    /// Whether a run may begin with this.
    pub fits: bool,
    /// Why, or by which rule; absent where there is nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its id in the savepoint, where that is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Its state in the savepoint.
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperatorRole {
    Source,
    Operator,
    Sink,
}

/// What becomes of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateFate {
    /// It goes on as it is.
    Reuse,
    /// It goes on by the rule that `reason` names.
    Migrate,
    /// It is new and does what `from` does: it begins with a copy of the state of that one, of which `bytes` are read.
    Rebuild,
    /// There is none: the operator begins empty, and has nothing of the rows that were read before the savepoint.
    Fresh,
    /// It is lost; where that matters, `allow_dropped_state` must name it.
    Drop,
    /// It does not fit what the operator is now; `allow_dropped_state` may give it up.
    Conflict,
}

/// What happens to what the sinks of a job show of the time after a savepoint, when the same job goes back to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRewind {
    /// The run is refused.
    #[default]
    Error,
    /// It stays, and the rows come again. Views go back.
    AppendAgain,
    /// It goes. Possible where all sinks are views.
    TruncateAfter,
}
