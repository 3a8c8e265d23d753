//! The store in one file, for one control plane.
//!
//! WAL with `synchronous=FULL`: what was committed is on the disk. One connection writes, a few read. A lock on a file beside the
//! database is held as long as the store lives, so that no second control plane opens it; the system drops it with the process.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, Pool, Sqlite};

use crate::error::{migration, translate, unavailable, unknown_in_sqlite, unusable};
use crate::migrations;
use crate::session::{Session, arguments};
use crate::shared::{Database, Store};
use crate::store::{MetadataError, Result};

/// How long a write waits for its turn, and for another program that holds the file.
const PATIENCE: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

pub type SqliteStore = Store<SqliteDatabase>;

pub struct SqliteDatabase {
    readers: Pool<Sqlite>,
    writer: Pool<Sqlite>,
    /// Held, not used.
    _lock: File,
}

impl SqliteStore {
    /// Opens the store in the file `path`, making it if there is none; the folder must exist. Fails with `Owned` if another control
    /// plane has it open, with `Unusable` if the file is no database of this program or of a newer one.
    pub async fn open(path: impl AsRef<Path>) -> Result<SqliteStore> {
        let path = path.as_ref();
        let lock = lock(path)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(PATIENCE)
                .test_before_acquire(false) // a file does not hang up
                .idle_timeout(None)
                .max_lifetime(None)
        };
        // SQLite ends a transaction by itself when the disk is full, and then there is nothing to roll back: sqlx takes the connection to be
        // in a transaction for ever. Its thread answers the ping after it has done what was left to do.
        let writer = pool(1).before_acquire(|connection, _| {
            Box::pin(async move { Ok(connection.ping().await.is_ok() && !connection.is_in_transaction()) })
        });
        let writer = writer.connect_with(options.clone()).await.map_err(translate)?;
        migrations::sqlite().run(&writer).await.map_err(migration)?;
        let readers = pool(READERS).connect_with(options.pragma("query_only", "on")).await.map_err(translate)?;
        Ok(Store::new(SqliteDatabase { readers, writer, _lock: lock }))
    }

    /// Closes the file; what is under way ends first. Without this the file is closed a moment after the store is dropped.
    pub async fn close(self) {
        self.database().readers.close().await;
        self.database().writer.close().await;
    }
}

fn lock(path: &Path) -> Result<File> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&beside)
        .map_err(|error| unusable(format!("its lock file cannot be opened: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(MetadataError::Owned(
            "another process has it open; stop that one first, or give this one a folder of its own".into(),
        )),
        Err(std::fs::TryLockError::Error(error)) => Err(unusable(format!("its lock file cannot be locked: {error}"))),
    }
}

#[async_trait]
impl Database for SqliteDatabase {
    async fn read(&self) -> Result<Session> {
        Ok(Session::SqliteRead(self.readers.acquire().await.map_err(translate)?))
    }

    async fn write(&self) -> Result<Session> {
        // The write lock first: a transaction that begins as a reader could fail when it wants to write.
        Ok(Session::SqliteWrite(self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(translate)?))
    }

    async fn commit(&self, session: Session) -> Result<()> {
        let Session::SqliteWrite(transaction) = session else { unreachable!("only a transaction is committed") };
        transaction.commit().await.map_err(|error| {
            let ambiguous = unknown_in_sqlite(&error);
            match translate(error) {
                MetadataError::Unavailable { cause, .. } => MetadataError::Unavailable { cause, ambiguous },
                other => other,
            }
        })
    }

    async fn lead(&self, holder: &str) -> Result<i64> {
        let mut session = self.write().await?;
        let row = session
            .row(
                "UPDATE leadership SET term = term + 1, holder = $1 WHERE only_row = 1 RETURNING term",
                arguments![holder],
            )
            .await?;
        let term = row.ok_or_else(|| unusable("its row of leadership is missing"))?.integer("term")?;
        self.commit(session).await?;
        Ok(term)
    }

    async fn renew(&self, term: i64) -> Result<()> {
        // The lock cannot be lost; an older term of this very process can.
        let mut session = self.read().await?;
        let row = session.row("SELECT term, holder FROM leadership WHERE only_row = 1", vec![]).await?;
        let row = row.ok_or_else(|| unusable("its row of leadership is missing"))?;
        if row.integer("term")? == term { Ok(()) } else { Err(MetadataError::Owned(row.text("holder")?)) }
    }

    /// The file belongs to this process as long as the store lives, whoever leads.
    async fn release(&self, _term: i64) -> Result<()> {
        Ok(())
    }

    async fn ping(&self) -> Result<()> {
        let answer = async { self.read().await?.row("SELECT term FROM leadership", vec![]).await };
        match tokio::time::timeout(Duration::from_secs(1), answer).await {
            Ok(answer) => answer.map(|_| ()),
            Err(_) => Err(unavailable("the database did not answer within 1000 ms")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Full WAL durability cannot be seen by killing a process: what it rests on is looked at, as the writing connection has it.
    #[tokio::test]
    async fn commits_reach_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("metadata.db")).await.unwrap();
        let mut writer = store.database().writer.acquire().await.unwrap();
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *writer).await.unwrap();
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *writer).await.unwrap();
        let keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys").fetch_one(&mut *writer).await.unwrap();
        assert_eq!((journal.as_str(), synchronous, keys), ("wal", 2, 1), "WAL, FULL, on");
    }
}
