//! The contract.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::records::*;

pub type Result<T> = std::result::Result<T, MetadataError>;

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error("{kind} '{name}' does not exist")]
    NotFound { kind: &'static str, name: String },
    /// A unique name is in use; `id` is its owner's.
    #[error("{kind} '{name}' exists")]
    Exists { kind: &'static str, name: String, id: Uuid },
    /// It was changed since it was read.
    #[error("{kind} '{name}' is at revision {current}, not at {expected}")]
    Stale { kind: &'static str, name: String, expected: i64, current: i64 },
    /// The job has a run that has not ended.
    #[error("run {run_id} of the job is {state}")]
    RunActive { run_id: Uuid, state: String },
    /// A view, table or connection is needed by others.
    #[error("{kind} '{name}' is used by {by}")]
    InUse { kind: &'static str, name: String, by: String },
    /// A compare-and-set found another state or generation: whoever asked is out of date.
    #[error("run {run_id} is {state}, attempt {generation}")]
    Moved { run_id: Uuid, state: String, generation: i64 },
    /// The request was answered before; its key is the same.
    #[error("the request was answered before")]
    Answered(Box<StoredAnswer>),
    /// The database cannot be reached, or gave up: try again later. The change happened whole or not at all, which of them is unknown
    /// only if `ambiguous`.
    #[error("the metadata store is not available: {cause}")]
    Unavailable { cause: String, ambiguous: bool },
    /// Another control plane owns the store.
    #[error("the metadata store belongs to another control plane: {0}")]
    Owned(String),
    /// The database holds what this program does not understand, or lacks a setting that durability needs.
    #[error("the metadata store is not usable: {0}")]
    Unusable(String),
}

/// Where jobs and all that belongs to them are kept. Lists are newest first, by id.
#[async_trait]
pub trait MetadataStore: Send + Sync {
    // Jobs. A job is found by its id or its name.

    /// Stores a job and its first version. Fails with `Exists` if the name, or one of its views' names, is taken.
    async fn create_job(&self, job: &Job, version: &JobVersion, change: &Change) -> Result<()>;
    /// The same with its first run: both or none.
    async fn create_started_job(&self, job: &Job, version: &JobVersion, run: &Run, change: &Change) -> Result<()>;
    async fn job(&self, job_id: Uuid) -> Result<Job>;
    async fn job_named(&self, name: &str) -> Result<Job>;
    async fn jobs(&self, filter: &JobFilter, page: Page) -> Result<Vec<Job>>;
    async fn version(&self, job_id: Uuid, version: i64) -> Result<JobVersion>;
    /// Writes name, labels, version and `updated_at` of `job`, whose `revision` is the one that was read. Its version changes with a new
    /// `version` only, whose number must be the next. Returns the job as it is now.
    async fn update_job(&self, job: &Job, version: Option<&JobVersion>, change: &Change) -> Result<Job>;
    /// Deletes a job with its versions, runs and views, unless a run is active.
    async fn delete_job(&self, job_id: Uuid, revision: i64, change: &Change) -> Result<()>;

    // Runs.

    /// Stores a run with its first event, unless the job has an active one.
    async fn create_run(&self, run: &Run, change: &Change) -> Result<()>;
    async fn run(&self, run_id: Uuid) -> Result<Run>;
    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>>;
    /// All active runs, oldest first.
    async fn active_runs(&self) -> Result<Vec<Run>>;
    /// Moves a run, records the event, keeps the job's state. Fails with `Moved` if it is not where the move begins. Repeating a move
    /// that was done (same target and generation) changes nothing and succeeds.
    async fn move_run(&self, step: &RunMove) -> Result<Run>;
    /// Replaces the facts of a run without moving it; guarded by the generation.
    async fn set_run_facts(&self, run_id: Uuid, generation: i64, facts: &Value) -> Result<()>;
    async fn run_events(&self, run_id: Uuid) -> Result<Vec<RunEvent>>;

    // Operations.

    async fn create_operation(&self, operation: &Operation, change: &Change) -> Result<()>;
    async fn operation(&self, operation_id: Uuid) -> Result<Operation>;
    async fn running_operations(&self) -> Result<Vec<Operation>>;
    /// Ends or updates an operation that is `running`; one that has ended stays as it is.
    async fn update_operation(&self, operation: &Operation) -> Result<()>;
    /// Removes operations that ended before `before`, and answers stored before it.
    async fn forget(&self, before: DateTime<Utc>) -> Result<()>;

    // Views, by the newest version of their jobs.

    async fn views(&self) -> Result<Vec<View>>;
    async fn view(&self, name: &str) -> Result<View>;

    // Connections and tables.

    /// Creates a connection (`revision` 1), or replaces the one whose revision is one less. `secrets` are sealed values by option name;
    /// they replace all that were stored.
    async fn put_connection(
        &self,
        connection: &Connection,
        secrets: &BTreeMap<String, Vec<u8>>,
        change: &Change,
    ) -> Result<()>;
    async fn connection(&self, name: &str) -> Result<Connection>;
    async fn connections(&self) -> Result<Vec<Connection>>;
    /// A connection with its sealed secrets by option name, both of one revision.
    async fn connection_with_secrets(&self, name: &str) -> Result<(Connection, BTreeMap<String, Vec<u8>>)>;
    async fn delete_connection(&self, name: &str, revision: i64, change: &Change) -> Result<()>;
    /// Creates a table. There is no replacing: what was planned with it would not be what it says.
    async fn create_table(&self, table: &Table, change: &Change) -> Result<()>;
    async fn table(&self, name: &str) -> Result<Table>;
    async fn tables(&self) -> Result<Vec<Table>>;
    async fn delete_table(&self, name: &str, revision: i64, change: &Change) -> Result<()>;

    // Keys, audit, answers.

    async fn create_key(&self, key: &ApiKey, change: &Change) -> Result<()>;
    async fn keys(&self) -> Result<Vec<ApiKey>>;
    async fn revoke_key(&self, key_id: Uuid, at: DateTime<Utc>, change: &Change) -> Result<ApiKey>;
    /// Adds a line that belongs to no change: a denial.
    async fn audit(&self, change: &Change, outcome: &str) -> Result<()>;
    /// Lines with a sequence above `after`, in order.
    async fn audit_log(&self, after: i64, limit: i64) -> Result<Vec<AuditEntry>>;
    /// Number and hash of the newest line, `(0, "")` if there is none: one row is read. Kept elsewhere, it shows a log that was cut or
    /// written anew; see [`verify_audit`](crate::verify_audit).
    async fn audit_head(&self) -> Result<(i64, String)>;
    /// The answer that was given to a request with this key, if there was one.
    async fn answer(&self, principal: &str, request: &str, key: &str) -> Result<Option<StoredAnswer>>;

    // The store itself.

    /// Makes this process the only control plane, or fails with `Owned`. Returns the term: larger than every one before. `holder` takes
    /// over from itself at once: it must survive a restart, and be nobody else's.
    async fn lead(&self, holder: &str) -> Result<i64>;
    /// Renews what [`lead`](Self::lead) gave; fails with `Owned` once another has taken over.
    async fn renew(&self, term: i64) -> Result<()>;
    /// Gives back what [`lead`](Self::lead) gave: another may lead at once. Changes nothing once another has taken over.
    async fn release(&self, term: i64) -> Result<()>;
    /// Whether the store answers, quickly.
    async fn ping(&self) -> Result<()>;
}
