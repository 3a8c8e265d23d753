//! What the store keeps. Identifiers are UUIDv7, made by the caller; times are the caller's, microseconds precise.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

pub type Labels = BTreeMap<String, String>;

/// A job without its versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub job_id: Uuid,
    /// Unique among jobs.
    pub name: String,
    pub labels: Labels,
    /// Number of the version that the next run takes, from 1.
    pub version: i64,
    /// +1 with every change of the job itself, from 1; its ETag.
    pub revision: i64,
    /// State of the newest run, kept with it in one transaction; `created` if there never was one.
    pub state: String,
    pub latest_run: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// One version of a job: what to compute, and how. Never changed.
#[derive(Clone, Debug, PartialEq)]
pub struct JobVersion {
    pub job_id: Uuid,
    pub version: i64,
    /// The script it was planned from, if it was.
    pub sql: Option<String>,
    /// The normalised graph.
    pub graph: Value,
    /// sha256 of the normalised graph and settings, hexadecimal.
    pub hash: String,
    /// How it runs: settings and limits, as the server defines them.
    pub settings: Value,
    /// Names of the views that it writes. A name belongs to one job at a time.
    pub views: Vec<ViewDefinition>,
    /// Names of the connections that it needs: each must exist, and stays while this is the job's version.
    pub connections: Vec<String>,
    pub created_at: DateTime<Utc>,
}

/// A view as its job defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewDefinition {
    pub name: String,
    /// Columns, key, kind: as the server defines it.
    pub definition: Value,
}

/// A view and who writes it.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub name: String,
    pub job_id: Uuid,
    pub job_name: String,
    pub definition: Value,
}

/// One execution of a job version.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub run_id: Uuid,
    pub job_id: Uuid,
    pub job_name: String,
    pub version: i64,
    pub state: String,
    /// Whether the state can still change. At most one run of a job is active.
    pub active: bool,
    /// Number of the newest attempt; 0 before the first.
    pub generation: i64,
    /// What it was started with: start, parameters; as the server defines it.
    pub request: Value,
    /// The epoch of this job that it continues: the one before its first. `None`: it began fresh, or from a savepoint. Changed only when it is abandoned.
    pub base_epoch: Option<i64>,
    /// What is known of it beside its state: resolved start positions, end, counters; as the server defines it.
    pub facts: Value,
    /// Why it failed.
    pub failure: Option<Value>,
    /// +1 with every change.
    pub revision: i64,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// A move of a run from state to state.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvent {
    /// From 1, per run, without gaps.
    pub sequence: i64,
    pub at: DateTime<Utc>,
    pub from: Option<String>,
    pub to: String,
    pub cause: Option<String>,
}

/// A compare-and-set of a run. What is `None` stays.
#[derive(Clone, Debug)]
pub struct RunMove {
    pub run_id: Uuid,
    /// The move happens only from one of these states...
    pub from: Vec<String>,
    /// ...and of this generation.
    pub generation: i64,
    pub to: String,
    pub active: bool,
    pub at: DateTime<Utc>,
    pub cause: Option<String>,
    pub new_generation: Option<i64>,
    pub facts: Option<Value>,
    pub failure: Option<Value>,
    pub started_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// A checkpoint that was decided: what a job recovers from, and what its sinks publish.
///
/// `previous` makes lineages of a job's epochs: the first epoch of a run names what the run continues ([`Run::base_epoch`]), each later one
/// the run's epoch before. Numbers are of the job, never used twice, and have gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    pub job_id: Uuid,
    pub epoch: i64,
    /// The run and the attempt that decided it.
    pub run_id: Uuid,
    pub generation: i64,
    /// `None`: the first of its lineage.
    pub previous: Option<i64>,
    /// By which who decided it knows it again.
    pub nonce: Uuid,
    /// `decided`, `committed` (every sink has published it) or `retired` (its files may be gone).
    pub state: String,
    /// Path of its manifest.
    pub manifest: String,
    /// Hexadecimal.
    pub manifest_sha256: String,
    /// What was uploaded for it.
    pub bytes: i64,
    /// What it refers to, with what was uploaded for earlier ones.
    pub total_bytes: i64,
    /// From its beginning to its manifest.
    pub duration_ms: i64,
    /// Whether it is the last of its run: the input has ended, or the run was told to stop.
    pub last: bool,
    /// The cut, counters, sizes and alignment of the operators; as the server defines it.
    pub facts: Value,
    /// What each sink had to show for having published it; as the server defines it. `None` until committed.
    pub proofs: Option<Value>,
    pub decided_at: DateTime<Utc>,
    /// Stays when it is retired; one that was abandoned has none.
    pub committed_at: Option<DateTime<Utc>>,
    pub retired_at: Option<DateTime<Utc>>,
}

/// What is to become an [`Epoch`], whose fields these are, and who says so.
#[derive(Clone, Debug)]
pub struct EpochDecision {
    pub job_id: Uuid,
    pub run_id: Uuid,
    pub generation: i64,
    /// What [`lead`](crate::MetadataStore::lead) gave.
    pub term: i64,
    pub epoch: i64,
    pub previous: Option<i64>,
    pub nonce: Uuid,
    pub manifest: String,
    pub manifest_sha256: String,
    /// How many numbers above `epoch` stay reserved for this generation.
    pub reserve: i64,
    pub bytes: i64,
    pub total_bytes: i64,
    pub duration_ms: i64,
    pub last: bool,
    pub facts: Value,
    pub at: DateTime<Utc>,
}

/// What is said of a decided epoch, and who says so.
#[derive(Clone, Debug)]
pub struct EpochStatement {
    pub job_id: Uuid,
    pub epoch: i64,
    pub run_id: Uuid,
    pub generation: i64,
    /// What [`lead`](crate::MetadataStore::lead) gave.
    pub term: i64,
    pub at: DateTime<Utc>,
}

/// A copy of an epoch that belongs to the user. It outlives its job.
#[derive(Clone, Debug, PartialEq)]
pub struct Savepoint {
    pub savepoint_id: Uuid,
    /// The job that it was taken of, and its name then; it may be gone.
    pub job_id: Uuid,
    pub job_name: String,
    pub run_id: Uuid,
    /// Chosen by the client, at most 128 characters; unique among the job's.
    pub name: String,
    /// `running`, `completed` or `failed`.
    pub state: String,
    /// The epoch that it is a copy of: known at the latest when it is completed.
    pub epoch: Option<i64>,
    /// Where its files are.
    pub location: String,
    pub format_version: i64,
    /// Known when it is completed.
    pub bytes: Option<i64>,
    /// Cut, operators, tables; as the server defines it.
    pub facts: Value,
    /// Why it failed.
    pub failure: Option<Value>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// Work that outlives the request that asked for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    pub operation_id: Uuid,
    /// `stop_now` or `stop_drain`.
    pub kind: String,
    /// What it is done to, with its prefix: `run_...`.
    pub subject: String,
    /// `running`, `succeeded` or `failed`.
    pub state: String,
    pub progress: Value,
    pub result: Option<Value>,
    pub failure: Option<Value>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
}

/// How to reach an external system. The secrets stand apart and sealed.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    pub connection_id: Uuid,
    pub name: String,
    /// `kafka`, `postgres`, `s3` or `schema_registry`.
    pub kind: String,
    pub options: BTreeMap<String, String>,
    /// Names of the options whose values are secret.
    pub secret_names: Vec<String>,
    pub revision: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A table that every script may use.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    pub table_id: Uuid,
    pub name: String,
    /// Its `CREATE TABLE` statement.
    pub sql: String,
    /// What was understood of it; as the server defines it.
    pub definition: Value,
    /// Names of the connections that it needs: each must exist, and stays while the table does.
    pub connections: Vec<String>,
    pub revision: i64,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// A key to the API. Of the key itself only a hash is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    pub key_id: Uuid,
    /// Unique among keys that are not revoked.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// sha256 of the whole key.
    pub hash: Vec<u8>,
    pub created_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A line of the audit log. Lines are chained: each carries the hash of the one before.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    pub sequence: i64,
    pub at: DateTime<Utc>,
    /// `key_...`, `local` or `system`.
    pub principal: String,
    pub request_id: String,
    /// `job.create`, ...
    pub action: String,
    pub object: String,
    /// `done` or `denied`.
    pub outcome: String,
    pub detail: Value,
    /// sha256 over the fields above and the hash of the entry before, hexadecimal.
    pub hash: String,
}

/// An answer that was given to a request with an idempotency key.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAnswer {
    /// sha256 of the request's body.
    pub body_hash: Vec<u8>,
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// The key of a creating request, and the answer that it gets.
#[derive(Clone, Debug)]
pub struct Idempotency {
    pub key: String,
    /// Method and path; a key means nothing for another one, or for another principal.
    pub request: String,
    pub answer: StoredAnswer,
}

/// Who changes something, and what is remembered of it in the same transaction.
#[derive(Clone, Debug)]
pub struct Change {
    pub at: DateTime<Utc>,
    pub principal: String,
    pub request_id: String,
    pub action: String,
    pub object: String,
    pub detail: Value,
    pub idempotency: Option<Idempotency>,
}

/// A page: at most `limit` items after the one with id `after`, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub after: Option<Uuid>,
    pub limit: i64,
}

#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Any of these; empty is all.
    pub states: Vec<String>,
    /// All of these.
    pub labels: Labels,
    /// Part of the name, without regard to case.
    pub q: Option<String>,
}

/// Epochs of one job: their numbers are not those of another.
#[derive(Clone, Debug)]
pub struct EpochFilter {
    pub job_id: Uuid,
    pub run_id: Option<Uuid>,
    /// Any of these; empty is all.
    pub states: Vec<String>,
}

/// A page: at most `limit` epochs below `after`, newest first.
#[derive(Clone, Copy, Debug)]
pub struct EpochPage {
    pub after: Option<i64>,
    pub limit: i64,
}

#[derive(Clone, Debug, Default)]
pub struct SavepointFilter {
    pub job_id: Option<Uuid>,
    /// A name is one savepoint of a job at most.
    pub name: Option<String>,
    /// Any of these; empty is all.
    pub states: Vec<String>,
}

#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    pub job_id: Option<Uuid>,
    pub states: Vec<String>,
}
