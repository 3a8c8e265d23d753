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
    /// Who speaks of a job's epochs is out of date, or speaks of what was decided otherwise: stop, and read again.
    #[error("epoch {epoch} of job {job_id} is fenced: {found}")]
    Fenced { job_id: Uuid, epoch: i64, found: Fence },
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

/// What fenced a word about an epoch.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fence {
    /// Another leads, with this term; 0: nobody ever did.
    #[error("the leader's term is {0}")]
    Term(i64),
    /// The lineage of the run ends elsewhere.
    #[error("the epoch before it is {}", .0.map_or("none".to_owned(), |epoch| epoch.to_string()))]
    Previous(Option<i64>),
    /// The job has an epoch with this number or a larger one.
    #[error("the newest epoch of the job is {0}")]
    Newest(i64),
    /// The epoch was decided by someone else.
    #[error("it was decided with nonce {0}")]
    Nonce(Uuid),
    /// The epoch is of another run, which this one does not continue.
    #[error("it is of run {0}")]
    Run(Uuid),
    #[error("it is retired")]
    Retired,
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

    /// Stores a run with its first event, unless the job has an active one. Its base must be an epoch of the job that is not retired, else
    /// `NotFound`.
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

    // Epochs. Each method that changes one says for whom: `term` is what `lead` gave, and must be the newest, else `Fenced`; the run must be
    // active and in its attempt `generation`, else `Moved`. None has an audit line: they come every few seconds, and nobody asked for them.

    /// Takes `count` epoch numbers for an attempt, and returns the first: all are above every number that was ever taken. Not repeatable:
    /// numbers whose answer was lost stay unused.
    async fn reserve_epochs(&self, run_id: Uuid, generation: i64, term: i64, count: i64) -> Result<i64>;
    /// Decides an epoch: from now on it will be published, whatever happens. Its number must be above every one of the job's; its `previous`
    /// must be the newest epoch that its run decided, or, for the first, the run's base. At least `reserve` numbers above it are reserved
    /// afterwards.
    ///
    /// What was decided stays so: saying it again (same job, epoch and nonce) changes nothing and succeeds, whoever leads or runs by then.
    /// So after an ambiguous error, say it again. Fails with `Fenced` or `Moved` if it will never be.
    async fn decide_epoch(&self, decision: &EpochDecision) -> Result<()>;
    /// Records that every sink has published a decided epoch. Who says so is the job's active run in its newest attempt, which may be later
    /// than the one that decided; a run that does not continue the epoch may not. The proofs that were first stay.
    ///
    /// One that was retired after it was confirmed stays so, and is no error: the answer to the first time was lost.
    async fn confirm_epoch(&self, statement: &EpochStatement, proofs: &Value) -> Result<()>;
    /// Gives up the newest epoch of the run's lineage, which cannot be restored and of which no sink published anything: the one before it is
    /// the newest then, and if the run began from it, the run's base. It is retired, and never decided again, not even with its own nonce.
    /// Repeatable. Fails with `Fenced` if it is not the newest, or if the one before it is retired.
    async fn abandon_epoch(&self, statement: &EpochStatement) -> Result<()>;
    async fn epoch(&self, job_id: Uuid, epoch: i64) -> Result<Epoch>;
    /// The newest epoch that is decided or committed, of any run.
    async fn last_epoch(&self, job_id: Uuid) -> Result<Option<Epoch>>;
    /// By number, the largest first.
    async fn epochs(&self, filter: &EpochFilter, page: EpochPage) -> Result<Vec<Epoch>>;
    /// Gives epochs up: their files may be deleted. All or none; those that are retired already stay as they are. Guarded by the term alone.
    ///
    /// Fails with `InUse` for what is still needed: the newest epoch of the job that is not retired; of the newest lineage all down to its
    /// second newest committed epoch, or to one that is retired; and what a savepoint that is being written, or that a run restores from, was taken of. The newest
    /// lineage is that of the newest run, and as long as that one has neither decided an epoch nor a base, the one before.
    async fn retire_epochs(&self, job_id: Uuid, epochs: &[i64], term: i64, at: DateTime<Utc>) -> Result<()>;

    // Savepoints.

    /// Stores a savepoint. Repeating it with the same id changes nothing and succeeds, in whatever state it is by then; fails with `Exists`
    /// if the name belongs to another savepoint of the job. Job and run must be there; an epoch that it names must not be retired.
    async fn create_savepoint(&self, savepoint: &Savepoint, change: &Change) -> Result<()>;
    async fn savepoint(&self, savepoint_id: Uuid) -> Result<Savepoint>;
    async fn savepoints(&self, filter: &SavepointFilter, page: Page) -> Result<Vec<Savepoint>>;
    /// Writes state, epoch, bytes, facts, failure and end of a savepoint that is `running`; one that has ended stays as it is.
    async fn update_savepoint(&self, savepoint: &Savepoint) -> Result<()>;
    /// Deletes a savepoint in whatever state, unless a run restores from it (`InUse`). Its files are the caller's.
    async fn delete_savepoint(&self, savepoint_id: Uuid, change: &Change) -> Result<()>;
    /// Keeps a completed savepoint from being deleted until `release_savepoint`, or until the run is deleted. The run must be active.
    /// Repeatable.
    async fn use_savepoint(&self, savepoint_id: Uuid, run_id: Uuid) -> Result<()>;
    /// The run has decided an epoch of its own, or has ended. Repeatable.
    async fn release_savepoint(&self, savepoint_id: Uuid, run_id: Uuid) -> Result<()>;

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
