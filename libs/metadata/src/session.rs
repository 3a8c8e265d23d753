//! One connection to either database: what the queries are written against.
//!
//! Placeholders are `$1`, `$2`, ... in both. Times, identifiers and flags are translated here; a query that the two databases need in
//! different words is a [`Session::pick`].

use std::borrow::Cow;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, ColumnIndex, Postgres, Row as _, SqlSafeStr, Sqlite, Transaction};
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use uuid::Uuid;

use crate::error::{gave_up, translate, unusable};
use crate::store::{MetadataError, Result};

/// A connection, inside a transaction if it is to write. Dropped before its commit, it changes nothing.
pub enum Session {
    SqliteRead(PoolConnection<Sqlite>),
    SqliteWrite(Transaction<'static, Sqlite>),
    Postgres(PostgresSession),
}

/// A connection to Postgres. Every exchange has a time limit, and a connection that did not keep it is not used again.
pub struct PostgresSession {
    connection: Option<PoolConnection<Postgres>>,
    /// An exchange has begun and not ended: whoever waited for it may have gone.
    busy: bool,
    /// Identifies the transaction to who asks for its fate; `None` outside of one.
    pub(crate) nonce: Option<Uuid>,
    /// Longest wait for one answer.
    pub(crate) limit: Duration,
}

impl PostgresSession {
    pub(crate) fn new(connection: PoolConnection<Postgres>, limit: Duration) -> PostgresSession {
        PostgresSession { connection: Some(connection), busy: false, nonce: None, limit }
    }

    fn connection(&mut self) -> Result<&mut PoolConnection<Postgres>> {
        self.connection
            .as_mut()
            .ok_or_else(|| MetadataError::Unavailable { cause: "the connection was lost".into(), ambiguous: false })
    }

    /// What an exchange gave, or `Err` of nothing when it took longer than the limit.
    fn settle<T>(&mut self, outcome: std::result::Result<std::result::Result<T, sqlx::Error>, Elapsed>) -> Result<T> {
        self.busy = false;
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(sqlx::Error::Database(error))) => Err(translate(sqlx::Error::Database(error))),
            // Lost or out of step: the pool must not give it to another.
            Ok(Err(error)) => {
                self.discard();
                Err(translate(error))
            }
            Err(_) => {
                self.discard();
                Err(gave_up(self.limit))
            }
        }
    }

    /// Closes the connection without a word: the server ends its transaction by itself.
    pub(crate) fn discard(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }

    /// Gives the connection back; there must be no open transaction.
    pub(crate) fn release(mut self) {
        self.nonce = None;
    }
}

impl Drop for PostgresSession {
    fn drop(&mut self) {
        if self.busy {
            return self.discard();
        }
        if self.nonce.is_none() {
            return; // back to the pool
        }
        let Some(mut connection) = self.connection.take() else { return };
        let limit = self.limit;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move {
                    let ended = timeout(limit, sqlx::raw_sql("ROLLBACK").execute(&mut *connection)).await;
                    if !matches!(ended, Ok(Ok(_))) {
                        drop(connection.detach());
                    }
                });
            }
            Err(_) => drop(connection.detach()),
        }
    }
}

impl Session {
    /// The words for the database that this is a connection to.
    pub(crate) fn pick<T>(&self, sqlite: T, postgres: T) -> T {
        match self {
            Session::SqliteRead(_) | Session::SqliteWrite(_) => sqlite,
            Session::Postgres(_) => postgres,
        }
    }

    /// Number of rows changed.
    pub(crate) async fn execute(&mut self, sql: impl SqlSafeStr, arguments: Vec<Argument>) -> Result<u64> {
        match self {
            Session::SqliteRead(connection) => {
                let done = sqlx::query_with(sql, for_sqlite(arguments)?).execute(&mut **connection).await;
                Ok(done.map_err(translate)?.rows_affected())
            }
            Session::SqliteWrite(transaction) => {
                let done = sqlx::query_with(sql, for_sqlite(arguments)?).execute(&mut **transaction).await;
                Ok(done.map_err(translate)?.rows_affected())
            }
            Session::Postgres(session) => {
                let limit = session.limit;
                session.busy = true;
                let outcome = if arguments.is_empty() {
                    // BEGIN and COMMIT: one message, not prepared first.
                    timeout(limit, sqlx::raw_sql(sql).execute(&mut **session.connection()?)).await
                } else {
                    let query = sqlx::query_with(sql, for_postgres(arguments)?);
                    timeout(limit, query.execute(&mut **session.connection()?)).await
                };
                Ok(session.settle(outcome)?.rows_affected())
            }
        }
    }

    pub(crate) async fn rows(&mut self, sql: impl SqlSafeStr, arguments: Vec<Argument>) -> Result<Vec<Row>> {
        match self {
            Session::SqliteRead(connection) => {
                let rows = sqlx::query_with(sql, for_sqlite(arguments)?).fetch_all(&mut **connection).await;
                Ok(rows.map_err(translate)?.into_iter().map(Row::Sqlite).collect())
            }
            Session::SqliteWrite(transaction) => {
                let rows = sqlx::query_with(sql, for_sqlite(arguments)?).fetch_all(&mut **transaction).await;
                Ok(rows.map_err(translate)?.into_iter().map(Row::Sqlite).collect())
            }
            Session::Postgres(session) => {
                let query = sqlx::query_with(sql, for_postgres(arguments)?);
                let limit = session.limit;
                session.busy = true;
                let outcome = timeout(limit, query.fetch_all(&mut **session.connection()?)).await;
                Ok(session.settle(outcome)?.into_iter().map(Row::Postgres).collect())
            }
        }
    }

    /// The first row, if there is one.
    pub(crate) async fn row(&mut self, sql: impl SqlSafeStr, arguments: Vec<Argument>) -> Result<Option<Row>> {
        Ok(self.rows(sql, arguments).await?.into_iter().next())
    }
}

/// A value for a placeholder.
pub(crate) enum Argument {
    Uuid(Option<Uuid>),
    Integer(Option<i64>),
    Text(Option<String>),
    Bytes(Vec<u8>),
    Time(Option<DateTime<Utc>>),
    Flag(bool),
}

/// `arguments![a, b]`: the values for `$1`, `$2`.
macro_rules! arguments {
    ($($value:expr),* $(,)?) => { vec![$($crate::session::Argument::from($value)),*] };
}
pub(crate) use arguments;

/// What both databases can hold: Postgres has no U+0000 in text.
pub(crate) fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{FFFD}")) } else { Cow::Borrowed(text) }
}

/// JSON as it is stored: text.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("values and maps with text keys are JSON")
}

impl From<Uuid> for Argument {
    fn from(value: Uuid) -> Argument {
        Argument::Uuid(Some(value))
    }
}

impl From<Option<Uuid>> for Argument {
    fn from(value: Option<Uuid>) -> Argument {
        Argument::Uuid(value)
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Argument {
        Argument::Integer(Some(value))
    }
}

impl From<Option<i64>> for Argument {
    fn from(value: Option<i64>) -> Argument {
        Argument::Integer(value)
    }
}

impl From<&str> for Argument {
    fn from(value: &str) -> Argument {
        Argument::Text(Some(storable(value).into_owned()))
    }
}

impl From<&String> for Argument {
    fn from(value: &String) -> Argument {
        Argument::from(value.as_str())
    }
}

impl From<String> for Argument {
    fn from(value: String) -> Argument {
        Argument::from(value.as_str())
    }
}

impl From<&Option<String>> for Argument {
    fn from(value: &Option<String>) -> Argument {
        Argument::Text(value.as_ref().map(|text| storable(text).into_owned()))
    }
}

impl From<&serde_json::Value> for Argument {
    fn from(value: &serde_json::Value) -> Argument {
        Argument::Text(Some(json(value)))
    }
}

impl From<&Option<serde_json::Value>> for Argument {
    fn from(value: &Option<serde_json::Value>) -> Argument {
        Argument::Text(value.as_ref().map(json))
    }
}

impl From<&Vec<u8>> for Argument {
    fn from(value: &Vec<u8>) -> Argument {
        Argument::Bytes(value.clone())
    }
}

impl From<DateTime<Utc>> for Argument {
    fn from(value: DateTime<Utc>) -> Argument {
        Argument::Time(Some(value))
    }
}

impl From<Option<DateTime<Utc>>> for Argument {
    fn from(value: Option<DateTime<Utc>>) -> Argument {
        Argument::Time(value)
    }
}

impl From<bool> for Argument {
    fn from(value: bool) -> Argument {
        Argument::Flag(value)
    }
}

fn for_sqlite(arguments: Vec<Argument>) -> Result<SqliteArguments> {
    let mut bound = SqliteArguments::default();
    for argument in arguments {
        match argument {
            Argument::Uuid(value) => Arguments::add(&mut bound, value),
            Argument::Integer(value) => Arguments::add(&mut bound, value),
            Argument::Text(value) => Arguments::add(&mut bound, value),
            Argument::Bytes(value) => Arguments::add(&mut bound, value),
            Argument::Time(value) => Arguments::add(&mut bound, value.map(|time| time.timestamp_micros())),
            Argument::Flag(value) => Arguments::add(&mut bound, i64::from(value)),
        }
        .map_err(|error| unusable(format!("a value cannot be stored: {error}")))?;
    }
    Ok(bound)
}

fn for_postgres(arguments: Vec<Argument>) -> Result<PgArguments> {
    let mut bound = PgArguments::default();
    for argument in arguments {
        match argument {
            Argument::Uuid(value) => Arguments::add(&mut bound, value),
            Argument::Integer(value) => Arguments::add(&mut bound, value),
            Argument::Text(value) => Arguments::add(&mut bound, value),
            Argument::Bytes(value) => Arguments::add(&mut bound, value),
            Argument::Time(value) => Arguments::add(&mut bound, value),
            Argument::Flag(value) => Arguments::add(&mut bound, value),
        }
        .map_err(|error| unusable(format!("a value cannot be stored: {error}")))?;
    }
    Ok(bound)
}

/// A row of either database. Columns are read by name.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    fn get<T>(&self, column: &str) -> Result<T>
    where
        T: for<'r> sqlx::Decode<'r, Sqlite> + sqlx::Type<Sqlite>,
        T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
        for<'c> &'c str: ColumnIndex<SqliteRow> + ColumnIndex<PgRow>,
    {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
        .map_err(|error| unusable(format!("column {column} holds something else than this program wrote: {error}")))
    }

    pub(crate) fn uuid(&self, column: &str) -> Result<Uuid> {
        self.get(column)
    }

    pub(crate) fn optional_uuid(&self, column: &str) -> Result<Option<Uuid>> {
        self.get(column)
    }

    pub(crate) fn integer(&self, column: &str) -> Result<i64> {
        self.get(column)
    }

    pub(crate) fn optional_integer(&self, column: &str) -> Result<Option<i64>> {
        self.get(column)
    }

    pub(crate) fn text(&self, column: &str) -> Result<String> {
        self.get(column)
    }

    pub(crate) fn optional_text(&self, column: &str) -> Result<Option<String>> {
        self.get(column)
    }

    pub(crate) fn bytes(&self, column: &str) -> Result<Vec<u8>> {
        self.get(column)
    }

    pub(crate) fn flag(&self, column: &str) -> Result<bool> {
        match self {
            Row::Sqlite(_) => Ok(self.integer(column)? != 0),
            Row::Postgres(_) => self.get(column),
        }
    }

    pub(crate) fn time(&self, column: &str) -> Result<DateTime<Utc>> {
        self.optional_time(column)?.ok_or_else(|| unusable(format!("column {column} holds no time")))
    }

    pub(crate) fn optional_time(&self, column: &str) -> Result<Option<DateTime<Utc>>> {
        match self {
            Row::Sqlite(_) => match self.get::<Option<i64>>(column)? {
                None => Ok(None),
                Some(micros) => DateTime::from_timestamp_micros(micros)
                    .map(Some)
                    .ok_or_else(|| unusable(format!("column {column} holds no time: {micros}"))),
            },
            Row::Postgres(_) => self.get(column),
        }
    }

    pub(crate) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T> {
        parse(column, &self.text(column)?)
    }

    pub(crate) fn optional_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>> {
        self.optional_text(column)?.map(|text| parse(column, &text)).transpose()
    }
}

fn parse<T: DeserializeOwned>(column: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|error| unusable(format!("column {column} holds something else than this program wrote: {error}")))
}
