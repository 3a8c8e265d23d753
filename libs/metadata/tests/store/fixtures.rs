//! Stores to test, and things to put into them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metadata::postgres::PostgresStore;
use metadata::sqlite::SqliteStore;
use metadata::*;
use serde_json::{Value, json};
use sqlx::Connection as _;
use test_support::postgres::Postgres;
use uuid::Uuid;

/// A store of its own for one test, and the way past it.
pub struct Subject {
    pub store: Arc<dyn MetadataStore>,
    place: Place,
}

enum Place {
    Sqlite { file: PathBuf, _folder: tempfile::TempDir },
    Postgres { url: String },
}

impl Subject {
    pub async fn sqlite() -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metadata.db");
        let store = Arc::new(SqliteStore::open(&file).await.unwrap());
        Subject { store, place: Place::Sqlite { file, _folder: folder } }
    }

    pub async fn postgres() -> Subject {
        let url = tokio::task::spawn_blocking(|| Postgres::shared().database()).await.unwrap();
        let store = Arc::new(PostgresStore::connect(&url).await.unwrap());
        Subject { store, place: Place::Postgres { url } }
    }

    /// Changes the database behind the store's back.
    pub async fn behind_its_back(&self, sql: &str) {
        self.try_behind_its_back(sql).await.unwrap();
    }

    pub async fn try_behind_its_back(&self, sql: &str) -> std::result::Result<(), sqlx::Error> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match &self.place {
            Place::Sqlite { file, .. } => {
                let url = format!("sqlite://{}", file.display());
                let mut connection = sqlx::SqliteConnection::connect(&url).await?;
                sqlx::raw_sql(sql).execute(&mut connection).await?;
                connection.close().await
            }
            Place::Postgres { url } => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                sqlx::raw_sql(sql).execute(&mut connection).await?;
                connection.close().await
            }
        }
    }

    pub fn pick<T>(&self, sqlite: T, postgres: T) -> T {
        match &self.place {
            Place::Sqlite { .. } => sqlite,
            Place::Postgres { .. } => postgres,
        }
    }
}

/// Microseconds precise, as the store keeps it.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap()
}

pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub fn job(name: &str) -> Job {
    Job {
        job_id: Uuid::now_v7(),
        name: name.to_owned(),
        labels: labels(&[("team", "ads")]),
        version: 1,
        revision: 1,
        state: "created".to_owned(),
        latest_run: None,
        created_at: now(),
        updated_at: now(),
    }
}

pub fn version(job: &Job) -> JobVersion {
    JobVersion {
        job_id: job.job_id,
        version: job.version,
        sql: Some("SELECT 'é\n' AS \"x\"".to_owned()),
        graph: json!({"version": 1, "nodes": [{"id": "b", "a": null, "text": "\u{0}ü"}], "half": 0.1}),
        hash: "ab".repeat(32),
        settings: json!({"parallelism": 2}),
        views: vec![],
        connections: vec![],
        created_at: now(),
    }
}

pub fn view(name: &str) -> ViewDefinition {
    ViewDefinition { name: name.to_owned(), definition: json!({"columns": ["a"], "key": []}) }
}

pub fn run(job: &Job) -> Run {
    Run {
        run_id: Uuid::now_v7(),
        job_id: job.job_id,
        job_name: job.name.clone(),
        version: job.version,
        state: "pending".to_owned(),
        active: true,
        generation: 0,
        request: json!({"from": "fresh"}),
        base_epoch: None,
        facts: json!({}),
        failure: None,
        revision: 1,
        created_at: now(),
        started_at: None,
        ended_at: None,
    }
}

pub fn step(run: &Run, from: &[&str], to: &str) -> RunMove {
    RunMove {
        run_id: run.run_id,
        from: from.iter().map(|state| (*state).to_owned()).collect(),
        generation: run.generation,
        to: to.to_owned(),
        active: matches!(to, "pending" | "starting" | "running" | "restarting" | "stopping"),
        at: now(),
        cause: None,
        new_generation: None,
        facts: None,
        failure: None,
        started_at: None,
        ended_at: None,
    }
}

/// A run of the job, stored and running in its first attempt.
pub async fn running(store: &dyn MetadataStore, job: &Job) -> Run {
    running_from(store, job, None).await
}

pub async fn running_from(store: &dyn MetadataStore, job: &Job, base_epoch: Option<i64>) -> Run {
    let run = Run { base_epoch, ..run(job) };
    store.create_run(&run, &change("run.create")).await.unwrap();
    let start = RunMove { new_generation: Some(1), ..step(&run, &["pending"], "running") };
    store.move_run(&start).await.unwrap()
}

pub async fn end(store: &dyn MetadataStore, run: &Run) {
    store.move_run(&step(run, &["running"], "stopped")).await.unwrap();
}

pub fn decision(run: &Run, term: i64, epoch: i64, previous: Option<i64>) -> EpochDecision {
    EpochDecision {
        job_id: run.job_id,
        run_id: run.run_id,
        generation: run.generation,
        term,
        epoch,
        previous,
        nonce: Uuid::new_v4(),
        manifest: format!("checkpoints/{epoch}.json"),
        manifest_sha256: "ab".repeat(32),
        reserve: 10,
        bytes: 5,
        total_bytes: 7,
        duration_ms: 3,
        last: false,
        facts: json!({"cut": {"b": "5", "a": null}}),
        at: now(),
    }
}

/// What a decision becomes.
pub fn decided(decision: &EpochDecision) -> Epoch {
    let EpochDecision {
        job_id, run_id, generation, epoch, previous, nonce, bytes, total_bytes, duration_ms, last, ..
    } = *decision;
    Epoch {
        job_id,
        epoch,
        run_id,
        generation,
        previous,
        nonce,
        state: "decided".to_owned(),
        manifest: decision.manifest.clone(),
        manifest_sha256: decision.manifest_sha256.clone(),
        bytes,
        total_bytes,
        duration_ms,
        last,
        facts: decision.facts.clone(),
        proofs: None,
        decided_at: decision.at,
        committed_at: None,
        retired_at: None,
    }
}

/// Decides epochs of a run, each after the one before, and confirms them.
pub async fn committed(store: &dyn MetadataStore, run: &Run, term: i64, first_after: Option<i64>, epochs: &[i64]) {
    let mut previous = first_after;
    for epoch in epochs {
        store.decide_epoch(&decision(run, term, *epoch, previous)).await.unwrap();
        confirm(store, run, term, *epoch).await.unwrap();
        previous = Some(*epoch);
    }
}

pub async fn confirm(store: &dyn MetadataStore, run: &Run, term: i64, epoch: i64) -> Result<()> {
    let proofs = json!({"sink": epoch});
    store.confirm_epoch(&statement(run, term, epoch), &proofs).await
}

pub fn statement(run: &Run, term: i64, epoch: i64) -> EpochStatement {
    let Run { job_id, run_id, generation, .. } = *run;
    EpochStatement { job_id, epoch, run_id, generation, term, at: now() }
}

pub fn savepoint(run: &Run, name: &str) -> Savepoint {
    Savepoint {
        savepoint_id: Uuid::now_v7(),
        job_id: run.job_id,
        job_name: run.job_name.clone(),
        run_id: run.run_id,
        name: name.to_owned(),
        state: "running".to_owned(),
        epoch: None,
        location: "s3://bucket/savepoints/1".to_owned(),
        format_version: 1,
        bytes: None,
        facts: json!({}),
        failure: None,
        created_at: now(),
        ended_at: None,
    }
}

pub fn completed(savepoint: &Savepoint, epoch: i64) -> Savepoint {
    Savepoint {
        state: "completed".to_owned(),
        epoch: Some(epoch),
        bytes: Some(1000),
        facts: json!({"operators": []}),
        ended_at: Some(now()),
        ..savepoint.clone()
    }
}

pub fn all_epochs(job_id: Uuid) -> EpochFilter {
    EpochFilter { job_id, run_id: None, states: vec![] }
}

pub fn epoch_page(limit: i64) -> EpochPage {
    EpochPage { after: None, limit }
}

pub fn operation() -> Operation {
    Operation {
        operation_id: Uuid::now_v7(),
        kind: "stop_now".to_owned(),
        subject: "run_1".to_owned(),
        state: "running".to_owned(),
        progress: json!({"done": 0}),
        result: None,
        failure: None,
        created_at: now(),
        ended_at: None,
    }
}

pub fn connection(name: &str) -> Connection {
    Connection {
        connection_id: Uuid::now_v7(),
        name: name.to_owned(),
        kind: "kafka".to_owned(),
        options: BTreeMap::from([("bootstrap".to_owned(), "localhost:9".to_owned())]),
        secret_names: vec!["password".to_owned()],
        revision: 1,
        created_at: now(),
        updated_at: now(),
    }
}

pub fn secrets(text: &str) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([("password".to_owned(), text.as_bytes().to_vec())])
}

pub fn table(name: &str) -> Table {
    Table {
        table_id: Uuid::now_v7(),
        name: name.to_owned(),
        sql: "CREATE TABLE t (a INT)".to_owned(),
        definition: json!({"columns": []}),
        connections: vec![],
        revision: 1,
        created_at: now(),
        updated_at: now(),
    }
}

pub fn key(name: &str) -> ApiKey {
    ApiKey {
        key_id: Uuid::now_v7(),
        name: name.to_owned(),
        role: "viewer".to_owned(),
        hash: Uuid::now_v7().as_bytes().to_vec(),
        created_at: now(),
        expires_at: Some(now()),
        revoked_at: None,
    }
}

pub fn change(action: &str) -> Change {
    Change {
        at: now(),
        principal: "key_1".to_owned(),
        request_id: "req_1".to_owned(),
        action: action.to_owned(),
        object: "job_1".to_owned(),
        detail: json!({"name": "x", "share": 0.30000000000000004, "nothing": null}),
        idempotency: None,
    }
}

pub fn with_key(action: &str, key: &str, body: &str) -> Change {
    let answer = StoredAnswer {
        body_hash: vec![1, 2, 3],
        status: 201,
        headers: BTreeMap::from([("location".to_owned(), "/x".to_owned())]),
        body: body.as_bytes().to_vec(),
    };
    let idempotency = Idempotency { key: key.to_owned(), request: "POST /api/v1/jobs".to_owned(), answer };
    Change { idempotency: Some(idempotency), ..change(action) }
}

pub fn page(limit: i64) -> Page {
    Page { after: None, limit }
}

/// A job with its version, stored.
pub async fn stored(store: &dyn MetadataStore, name: &str) -> Job {
    let job = job(name);
    store.create_job(&job, &version(&job), &change("job.create")).await.unwrap();
    job
}

/// For a race: begins `turns` times a part of a millisecond later, at once if it is not to be later.
pub async fn later<T>(turns: i64, begun: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_micros(250 * u64::try_from(turns).unwrap_or(0))).await;
    begun.await
}

/// Everything that a change could have touched, to see that it touched nothing.
pub async fn everything(store: &dyn MetadataStore) -> Value {
    let jobs = store.jobs(&JobFilter::default(), page(1000)).await.unwrap();
    let runs = store.runs(&RunFilter::default(), page(1000)).await.unwrap();
    let mut epochs = Vec::new();
    for job in &jobs {
        epochs.extend(store.epochs(&all_epochs(job.job_id), epoch_page(1000)).await.unwrap());
    }
    json!({
        "jobs": format!("{jobs:?}"),
        "epochs": format!("{epochs:?}"),
        "savepoints": format!("{:?}", store.savepoints(&SavepointFilter::default(), page(1000)).await.unwrap()),
        "runs": format!("{runs:?}"),
        "operations": format!("{:?}", store.running_operations().await.unwrap()),
        "views": format!("{:?}", store.views().await.unwrap()),
        "connections": format!("{:?}", store.connections().await.unwrap()),
        "tables": format!("{:?}", store.tables().await.unwrap()),
        "keys": format!("{:?}", store.keys().await.unwrap()),
        "audit": format!("{:?}", store.audit_log(0, 1000).await.unwrap()),
    })
}
