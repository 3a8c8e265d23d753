//! The store in a PostgreSQL database.
//!
//! One control plane leads, by a lease with the database's clock; what makes that safe is not the lease but the term, which every
//! write compares. Each exchange with the server has a time limit, and so a server that is gone, frozen or unreachable makes
//! `Unavailable` within seconds. A connection that is lost at COMMIT leaves a question, and it is asked: each transaction leaves a nonce
//! that a second connection looks for, waiting for the first to end. Transactions are never repeated.

use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, Pool, Postgres};
use uuid::Uuid;

use crate::error::{gave_up, migration, translate, unavailable, unusable};
use crate::migrations;
use crate::session::{PostgresSession, Row, Session, arguments};
use crate::shared::{Database, Store};
use crate::store::{MetadataError, Result};

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Longest wait for the answer to a statement.
const STATEMENT: Duration = Duration::from_secs(4);
/// Longest search for the fate of a commit.
const RESOLVE: Duration = Duration::from_secs(4);
const PING: Duration = Duration::from_secs(1);
/// A connection idle for longer is asked whether it lives before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);
const CONNECTIONS: u32 = 8;
/// How long a leader that fell silent keeps others out, in seconds. Renew three times as often.
pub const LEASE_SECONDS: i64 = 15;

pub type PostgresStore = Store<PostgresDatabase>;

pub struct PostgresDatabase {
    pool: Pool<Postgres>,
    /// The term that writes compare; 0: this store does not lead, and compares nothing.
    term: AtomicI64,
}

impl PostgresStore {
    /// Opens the store at `url` (`postgres://user:password@host:port/database`), making its tables if they are missing.
    ///
    /// Fails with `Unavailable` if the server does not answer within seconds; with `Unusable` if it refuses the login, if it is older than
    /// version 13, if it holds tables of a newer program, or if a setting is off without which a crash loses what was answered.
    pub async fn connect(url: &str) -> Result<PostgresStore> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(unusable("the address of the database does not begin with postgres://"));
        }
        let options = PgConnectOptions::from_str(url).map_err(translate)?.application_name("highwater").options([
            // The server gives up before this side does, so that a slow statement ends cleanly.
            ("statement_timeout", "3500ms"),
            ("lock_timeout", "3s"),
            ("idle_in_transaction_session_timeout", "10s"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(CONNECT)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < TRUSTED_IDLE {
                        return Ok(true);
                    }
                    Ok(matches!(tokio::time::timeout(PING, connection.ping()).await, Ok(Ok(()))))
                })
            })
            .connect_lazy_with(options.clone());
        // Alone, so that the cause is told and not "timed out".
        let mut connection = match tokio::time::timeout(CONNECT, sqlx::PgConnection::connect_with(&options)).await {
            Ok(connection) => connection.map_err(translate)?,
            Err(_) => return Err(gave_up(CONNECT)),
        };
        check_settings(&mut connection).await?;
        // A step of the schema may take longer than a request.
        sqlx::query("SET statement_timeout = 0").execute(&mut connection).await.map_err(translate)?;
        sqlx::query("SET lock_timeout = 0").execute(&mut connection).await.map_err(translate)?;
        migrations::postgres().run_direct(None, &mut connection, false).await.map_err(migration)?;
        let _ = connection.close().await;
        Ok(Store::new(PostgresDatabase { pool, term: AtomicI64::new(0) }))
    }

    /// Ends the connections.
    pub async fn close(self) {
        let _ = tokio::time::timeout(CONNECT, self.database().pool.close()).await;
    }
}

async fn check_settings(connection: &mut sqlx::PgConnection) -> Result<()> {
    let version = "SELECT current_setting('server_version_num')::bigint, current_setting('server_version')";
    let (number, version): (i64, String) =
        sqlx::query_as(version).fetch_one(&mut *connection).await.map_err(translate)?;
    if number < 130_000 {
        return Err(unusable(format!("PostgreSQL {version} is too old; version 13 is the oldest that will do")));
    }
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let value: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(setting)
            .fetch_one(&mut *connection)
            .await
            .map_err(translate)?;
        if value == "off" {
            return Err(unusable(format!(
                "the setting {setting} of the server is off: what was answered could be lost in a crash; turn it on"
            )));
        }
    }
    Ok(())
}

/// Why there is no new connection. The server took one when this store was opened: a password, a role, a right or the database itself has
/// changed since, and whoever runs the server can change it back. So this is for a while, whatever the code.
fn refused(error: sqlx::Error) -> MetadataError {
    match error {
        sqlx::Error::Database(error) => unavailable(format!("the server refuses new connections: {}", error.message())),
        other => translate(other),
    }
}

impl PostgresDatabase {
    async fn session(&self) -> Result<PostgresSession> {
        match tokio::time::timeout(CONNECT, self.pool.acquire()).await {
            Ok(connection) => Ok(PostgresSession::new(connection.map_err(refused)?, STATEMENT)),
            Err(_) => Err(gave_up(CONNECT)),
        }
    }

    /// A transaction with its nonce, and the row of leadership as `sql` reads it, which takes the nonce first.
    async fn begin(&self, sql: &'static str) -> Result<(Session, Row)> {
        let mut session = self.session().await?;
        let nonce = Uuid::new_v4();
        session.nonce = Some(nonce);
        let mut session = Session::Postgres(session);
        session.execute("BEGIN", vec![]).await?;
        let row = session.row(sql, arguments![nonce]).await?;
        Ok((session, row.ok_or_else(|| unusable("its row of leadership is missing"))?))
    }

    /// What became of a transaction whose COMMIT was not answered.
    async fn resolve(&self, nonce: Uuid, cause: String) -> Result<()> {
        let deadline = Instant::now() + RESOLVE;
        let search = async {
            while Instant::now() < deadline {
                match self.was_committed(nonce).await {
                    Ok(true) => return Some(Ok(())),
                    Ok(false) => return Some(Err(unavailable(cause.clone()))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
            None
        };
        match tokio::time::timeout(RESOLVE, search).await {
            Ok(Some(answer)) => answer,
            _ => Err(MetadataError::Unavailable { cause, ambiguous: true }),
        }
    }

    async fn was_committed(&self, nonce: Uuid) -> Result<bool> {
        let mut session = self.session().await?;
        session.nonce = Some(nonce);
        let mut session = Session::Postgres(session);
        session.execute("BEGIN", vec![]).await?;
        // Waits while the first transaction is still on its way; once this insert is done, that one can no longer succeed.
        // Dropped without a commit: it leaves nothing.
        let inserted = session
            .execute("INSERT INTO recent_write (nonce) VALUES ($1) ON CONFLICT DO NOTHING", arguments![nonce])
            .await?;
        Ok(inserted == 0)
    }
}

#[async_trait]
impl Database for PostgresDatabase {
    async fn read(&self) -> Result<Session> {
        Ok(Session::Postgres(self.session().await?))
    }

    async fn write(&self) -> Result<Session> {
        // KEY SHARE: renewing goes on meanwhile, taking over waits until this transaction has ended.
        let (session, row) = self
            .begin(
                "WITH mark AS (INSERT INTO recent_write (nonce) VALUES ($1))
                 SELECT term, holder FROM leadership WHERE only_row = 1 FOR KEY SHARE",
            )
            .await?;
        let term = self.term.load(Ordering::Acquire);
        if term != 0 && row.integer("term")? != term {
            return Err(MetadataError::Owned(row.text("holder")?));
        }
        Ok(session)
    }

    async fn commit(&self, mut session: Session) -> Result<()> {
        let done = session.execute("COMMIT", vec![]).await;
        let Session::Postgres(mut inner) = session else { unreachable!("sessions of this database are its own") };
        let nonce = inner.nonce.expect("only a transaction is committed");
        match done {
            Ok(_) => {
                inner.release();
                Ok(())
            }
            Err(error) => {
                inner.discard();
                tracing::warn!(%error, "a commit was not answered: looking for what became of it");
                self.resolve(nonce, error.to_string()).await
            }
        }
    }

    async fn lead(&self, holder: &str) -> Result<i64> {
        let (mut session, row) = self
            .begin(
                "WITH mark AS (INSERT INTO recent_write (nonce) VALUES ($1))
                 SELECT holder, expires_at > clock_timestamp() AS alive FROM leadership WHERE only_row = 1 FOR UPDATE",
            )
            .await?;
        let owner = row.text("holder")?;
        if row.flag("alive")? && owner != holder {
            return Err(MetadataError::Owned(owner));
        }
        let row = session
            .row(
                "UPDATE leadership SET term = term + 1, holder = $1, expires_at = clock_timestamp() + $2 * interval '1 second'
                 WHERE only_row = 1 RETURNING term",
                arguments![holder, LEASE_SECONDS],
            )
            .await?
            .ok_or_else(|| unusable("its row of leadership is missing"))?;
        let term = row.integer("term")?;
        self.commit(session).await?;
        self.term.store(term, Ordering::Release);
        Ok(term)
    }

    async fn renew(&self, term: i64) -> Result<()> {
        let mut session = self.read().await?;
        let renewed = session
            .execute(
                "UPDATE leadership SET expires_at = clock_timestamp() + $2 * interval '1 second'
                 WHERE only_row = 1 AND term = $1",
                arguments![term, LEASE_SECONDS],
            )
            .await?;
        if renewed == 0 {
            let row = session.row("SELECT holder FROM leadership WHERE only_row = 1", vec![]).await?;
            let row = row.ok_or_else(|| unusable("its row of leadership is missing"))?;
            return Err(MetadataError::Owned(row.text("holder")?));
        }
        session
            .execute("DELETE FROM recent_write WHERE written_at < clock_timestamp() - interval '1 hour'", vec![])
            .await?;
        Ok(())
    }

    async fn release(&self, term: i64) -> Result<()> {
        let mut session = self.read().await?;
        session
            .execute(
                "UPDATE leadership SET expires_at = clock_timestamp() WHERE only_row = 1 AND term = $1",
                arguments![term],
            )
            .await?;
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        let answer = async { self.read().await?.row("SELECT term FROM leadership", vec![]).await };
        match tokio::time::timeout(PING, answer).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(gave_up(PING)),
        }
    }
}
