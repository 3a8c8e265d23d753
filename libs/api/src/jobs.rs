//! Jobs and their versions.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

use crate::{Labels, ProblemItem, Run};

/// What a job computes and how it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// A script in SQL; either this or `graph`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1048576)]
    pub sql: Option<String>,
    /// A job graph; either this or `sql`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::graph_reference)]
    pub graph: Option<Value>,
    /// Where relative paths of local files begin: absolute, on the server's machine. Without it they are refused. The job's graph has whole ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, pattern = "^/")]
    pub base_directory: Option<String>,
    /// Worker threads per process. Default: 1, or what the script sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 256)]
    pub parallelism: Option<u64>,
    /// Operating system processes per run. Default: 1, or what the script sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 64)]
    pub processes: Option<u64>,
    /// From one checkpoint to the next: `10s`. Default: 10s, or what the script sets. It is kept with the job; runs of a server take no
    /// checkpoints yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub checkpoint_interval: Option<String>,
    /// The weakest contract that the job's sinks may have. More than a sink can give is refused. Default: `at_least_once`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Other settings by the names that `SET` knows; they come before what the script sets: `{"epoch.interval": "100ms"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<JobLimits>,
}

/// What a sink guarantees about the rows of committed epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// No row is lost; after a failure rows may come again.
    #[default]
    AtLeastOnce,
    /// Every row is there exactly once.
    ExactlyOnce,
}

/// What each process of a run may use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobLimits {
    /// Resident bytes of each process; beyond them the run fails with `memory_limit`. Default: what the server is configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 33554432)]
    pub memory_bytes: Option<u64>,
    /// Percent of the machine's processor time, when others want it. Default: what the server is configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub cpu_percent: Option<u32>,
}

/// Body of `POST /jobs`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateJob {
    /// Unique: letters, digits, `_`, `-` and `.`, at most 128. Works wherever the id does.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    pub name: String,
    #[serde(flatten)]
    #[schema(inline)]
    pub spec: JobSpec,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = crate::given_labels)]
    pub labels: Labels,
    /// Start a run at once. Default: true.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub start: bool,
}

fn yes() -> bool {
    true
}

/// Body of `PUT /jobs/{job}`: the job as it shall be. The name is the one in the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplyJob {
    #[serde(flatten)]
    #[schema(inline)]
    pub spec: JobSpec,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(schema_with = crate::given_labels)]
    pub labels: Labels,
}

/// Body of `PATCH /jobs/{job}`. What is left out stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchJob {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    pub name: Option<String>,
    /// Replaces all labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = crate::given_labels)]
    pub labels: Option<Labels>,
}

/// The state of a job is that of its newest run; without one it is `created`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    Created,
    Pending,
    Starting,
    Running,
    Restarting,
    Stopping,
    Finished,
    Stopped,
    Cancelled,
    Failed,
}

/// A named, versioned graph with its settings. Lives until it is deleted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    pub id: String,
    pub name: String,
    pub state: JobState,
    #[schema(schema_with = crate::labels)]
    pub labels: Labels,
    /// The version that the next run takes, from 1.
    pub version: i64,
    /// Id of the newest run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_run: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A job with its newest version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobDetail {
    #[serde(flatten)]
    #[schema(inline)]
    pub job: Job,
    pub definition: JobDefinition,
}

/// One version of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobDefinition {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// The normalised graph; secrets never stand in it.
    #[schema(schema_with = crate::graph_reference)]
    pub graph: Value,
    /// sha256 of graph and settings, hexadecimal.
    pub hash: String,
    /// All settings, also those that were not given.
    #[schema(value_type = Object)]
    pub settings: Value,
    pub delivery: Delivery,
    pub limits: JobLimits,
    /// Names of the views that the job writes.
    pub views: Vec<String>,
}

/// A page of jobs, newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobPage {
    pub items: Vec<Job>,
    /// Give it as `page_token` for the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
}

/// Answer to `POST /jobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedJob {
    pub job: JobDetail,
    /// The run that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    pub warnings: Vec<ProblemItem>,
}

/// Answer to `PUT /jobs/{job}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AppliedJob {
    pub outcome: ApplyOutcome,
    /// False if `dry_run` was asked for: then nothing was stored.
    pub applied: bool,
    /// What differs from the version before.
    pub changes: Vec<JobChange>,
    /// What the next run with `from: latest` can begin with. Savepoints are asked for themselves: `POST /savepoints/{savepoint}/check`.
    pub state_verdict: StateVerdict,
    /// The job as it is now (with `dry_run`: as it would be); absent if a dry run would create it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobDetail>,
    pub warnings: Vec<ProblemItem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApplyOutcome {
    Created,
    /// A new version. An active run goes on with its own version; the next one takes the new.
    NewVersion,
    /// Only labels differ.
    Relabelled,
    Unchanged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateVerdict {
    /// All state of the newest checkpoint: it was made by the same graph.
    Reuse,
    /// None: there is no checkpoint, it is of another graph, or its run has finished.
    Fresh,
}

/// A difference between two versions of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobChange {
    pub change: ChangeKind,
    /// `operator:count by auction`, `setting:parallelism`, `label:team`...
    pub subject: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    Added,
    Removed,
    Changed,
}
