//! The commit of a decided checkpoint in a table: its rows and its epoch, a row of `highwater_epochs`, in one transaction.
//!
//! The lock of the marker's row fences: whoever has it, has waited for the end of every transaction of the sink before, and no older attempt
//! can change the marker until this one ends. Sessions of the sink that hold it for long without an end are ended: they are of attempts
//! which this one has replaced.

use std::sync::{Arc, Mutex};

use engine::RunError;
use engine::runtime::Place;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};

use super::ANSWER;
use super::target::Way;
use super::write::{Logs, Needs, TableRef};
use crate::staged::commit::{Commits, LogFile, System};

/// The committer of one table.
pub type Transactions = Commits<Output>;

/// What is written to.
pub struct Output {
    pub table: TableRef,
    pub operator: String,
    /// A connection whose last commit was confirmed. It has no transaction.
    pub idle: Mutex<Option<(PgConnection, Way)>>,
}

/// A transaction that has the lock of its marker.
pub struct Open {
    pub connection: PgConnection,
    way: Way,
    job: String,
    /// Its transaction is committed.
    ended: bool,
}

impl Output {
    /// What the server calls the sessions of this sink: 63 bytes at most.
    pub fn session(&self, job: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(job);
        hash.update([0]);
        hash.update(&self.operator);
        let hex: String = hash.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
        format!("highwater sink {hex}")
    }

    /// Begins a transaction and waits for the lock of the marker.
    async fn locked(&self, connection: &mut PgConnection, job: &str) -> Result<(), RunError> {
        self.table.begin(connection).await?;
        let sql = AssertSqlSafe(self.table.target.lock_epoch());
        let asked = sqlx::query(sql).bind(job).bind(&self.operator).execute(&mut *connection);
        self.table.server.answer("lock the marker", ANSWER, asked).await.map(drop)?;
        self.shown(connection, job).await.map(drop)
    }

    async fn shown(&self, connection: &mut PgConnection, job: &str) -> Result<Option<u64>, RunError> {
        let sql = AssertSqlSafe(self.table.target.read_epoch());
        let asked = sqlx::query_as(sql).bind(job).bind(&self.operator).fetch_optional(connection);
        let row: Option<(Option<i64>,)> = self.table.server.answer("read the marker", ANSWER, asked).await?;
        Ok(row.and_then(|(epoch,)| epoch).map(|epoch| epoch as u64))
    }

    /// Ends other sessions of the sink: one of them has held the lock for longer than a commit at rest does.
    async fn end_others(&self, job: &str) -> Result<(), RunError> {
        let session = self.session(job);
        let mut connection = self.table.server.connect(&session).await?;
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE application_name = $1 AND pid <> pg_backend_pid() AND datname = current_database() AND usename = current_user";
        let asked = sqlx::query_as(sql).bind(&session).fetch_one(&mut connection);
        let (ended,): (i64,) = self.table.server.answer("end older sessions", ANSWER, asked).await?;
        tracing::warn!(
            table = self.table.target.shown,
            ended,
            "sessions of older attempts held the marker, and were ended"
        );
        Ok(())
    }
}

impl System for Output {
    type Open = Open;

    fn table_name(&self) -> &str {
        &self.table.target.shown
    }

    fn target(&self) -> String {
        self.table.named()
    }

    async fn open(self: &Arc<Self>, job: &str) -> Result<Open, RunError> {
        let idle = self.idle.lock().map_or(None, |mut idle| idle.take());
        let (mut connection, way) = match idle {
            Some(idle) => idle,
            None => {
                let mut connection = self.table.server.connect(&self.session(job)).await?;
                let way = self.table.prepare(&mut connection, Needs { epochs: true }).await?;
                (connection, way)
            }
        };
        match self.locked(&mut connection, job).await {
            Ok(()) => Ok(Open { connection, way, job: job.to_string(), ended: false }),
            Err(error) => {
                drop(connection);
                if error.message.contains("SQLSTATE 55P03") {
                    self.end_others(job).await?;
                }
                Err(error)
            }
        }
    }

    async fn marker(self: &Arc<Self>, mut open: Open, job: &str) -> Result<(Open, Option<u64>), RunError> {
        let shown = self.shown(&mut open.connection, job).await?;
        Ok((open, shown))
    }

    async fn send(
        self: &Arc<Self>,
        mut open: Open,
        place: &Place,
        logs: &[LogFile],
        epoch: u64,
    ) -> Result<Open, RunError> {
        let mut logs = Logs::Staged { place: place.clone(), left: logs.iter().cloned().collect() };
        let Open { connection, way, job, .. } = &mut open;
        self.table.write(connection, way, &mut logs).await?;
        faults::reach("postgres.copied").await?;
        let sql = AssertSqlSafe(self.table.target.write_epoch());
        let asked = sqlx::query(sql).bind(&*job).bind(&self.operator).bind(epoch as i64).execute(connection);
        let done = self.table.server.answer("write the marker", ANSWER, asked).await?;
        if done.rows_affected() != 1 {
            let message = format!(
                "table {}: the marker of epoch {epoch} was written to {} rows",
                self.table_name(),
                done.rows_affected()
            );
            return Err(RunError::external("postgres_failed", message));
        }
        Ok(open)
    }

    async fn end(self: &Arc<Self>, mut open: Open) -> Result<Open, RunError> {
        self.table.commit(&mut open.connection).await?;
        open.ended = true;
        Ok(open)
    }

    async fn close(self: &Arc<Self>, open: Open) {
        // A transaction that is not ended goes with its connection.
        if open.ended
            && let Ok(mut idle) = self.idle.lock()
        {
            *idle = Some((open.connection, open.way));
        }
    }

    fn state_lost(&self, _: &str, epoch: u64, previous: Option<u64>, found: Option<u64>) -> RunError {
        let shows = found.map_or("is gone".to_string(), |found| format!("shows epoch {found}"));
        let before = previous.map_or("none".to_string(), |epoch| epoch.to_string());
        let message = format!(
            "table {}: epoch {epoch} cannot be committed to {}: the marker of what it holds, in highwater_epochs, {shows}, and the epoch before was {before}. Writing could add rows twice, not writing could lose some",
            self.table_name(),
            self.table.target.full_name()
        );
        RunError::user("sink_state_lost", message).hint(
            "the marker is lost with a database that was restored from a backup or made anew. Compare the table with the checkpoint, then begin the job afresh, or write 'delivery' = 'at_least_once'",
        )
    }

    fn overtaken(&self, epoch: u64, newer: u64) -> RunError {
        let message = format!(
            "table {}: {} shows epoch {newer}, which this attempt does not know; it was to commit epoch {epoch}",
            self.table_name(),
            self.table.target.full_name()
        );
        RunError::external("fenced", message)
            .hint("another attempt of the run has taken over, or the metadata database was set back to an older state")
    }
}
