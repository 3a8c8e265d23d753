//! Stores to test, and things to put into them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

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

/// Everything that a change could have touched, to see that it touched nothing.
pub async fn everything(store: &dyn MetadataStore) -> Value {
    let jobs = store.jobs(&JobFilter::default(), page(1000)).await.unwrap();
    let runs = store.runs(&RunFilter::default(), page(1000)).await.unwrap();
    json!({
        "jobs": format!("{jobs:?}"),
        "runs": format!("{runs:?}"),
        "operations": format!("{:?}", store.running_operations().await.unwrap()),
        "views": format!("{:?}", store.views().await.unwrap()),
        "connections": format!("{:?}", store.connections().await.unwrap()),
        "tables": format!("{:?}", store.tables().await.unwrap()),
        "keys": format!("{:?}", store.keys().await.unwrap()),
        "audit": format!("{:?}", store.audit_log(0, 1000).await.unwrap()),
    })
}
