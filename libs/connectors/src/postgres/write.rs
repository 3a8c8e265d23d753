//! What is done in a database: looking at the table, and writing the rows of logs, in a transaction of whoever asks.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use engine::RunError;
use engine::runtime::Place;
use sqlx::{AssertSqlSafe, PgConnection};
use state::files;

use super::ANSWER;
use super::connect::Server;
use super::target::{COPY_END, COPY_HEAD, Column, Found, RIGHTS, Target, Way};
use crate::staged::commit::LogFile;
use crate::staged::log::Blocks;
use crate::staged::{LogFiles, unreadable};
use crate::types::type_word;

/// For the work of an epoch: one statement, or one step of a copy.
const WORK: Duration = Duration::from_secs(300);

/// A table and the database that it is in.
#[derive(Clone)]
pub struct Table {
    pub server: Server,
    pub target: Target,
}

/// Which rights are looked at beside the columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Exactly once: the table of markers.
    pub epochs: bool,
}

/// Files of a log, one after the other.
pub enum Logs {
    /// Of a checkpoint.
    Staged { place: Place, left: VecDeque<LogFile> },
    /// Of an epoch that waits here.
    Own(Option<LogFiles>),
}

impl Logs {
    /// What it is called, its content, and how many records that has.
    async fn next(&mut self) -> Result<Option<(String, Vec<u8>, u64)>, RunError> {
        match self {
            Logs::Staged { place, left } => {
                let Some(LogFile { file, records }) = left.pop_front() else { return Ok(None) };
                let content = files::get(&*place.files, &file).await?;
                Ok(Some((file.path.clone(), content.to_vec(), records)))
            }
            Logs::Own(log) => {
                let Some(mut taken) = log.take() else { return Ok(None) };
                let reading = tokio::task::spawn_blocking(move || (taken.next_file(), taken));
                let (read, rest) = reading.await.map_err(|error| RunError::internal(error.to_string()))?;
                *log = Some(rest);
                let file = read.map_err(unreadable)?;
                Ok(file.map(|(facts, content)| ("the rows of an epoch".to_string(), content, facts.records)))
            }
        }
    }
}

impl Table {
    /// As it stands in what is staged: tuples are made for these columns in this order.
    pub fn named(&self) -> String {
        let Target { columns, key, .. } = &self.target;
        let column = |column: &Column| format!("{} {}", column.name, type_word(&column.arrow));
        let columns: Vec<String> = columns.iter().map(column).collect();
        format!("table {} ({}) by {key:?}", self.target.full_name(), columns.join(", "))
    }

    /// Statements without parameters or rows.
    pub async fn say(&self, to: &mut PgConnection, doing: &str, limit: Duration, sql: &str) -> Result<(), RunError> {
        let asked = sqlx::raw_sql(AssertSqlSafe(sql.to_string())).execute(to);
        self.server.answer(doing, limit, asked).await.map(drop)
    }

    /// How rows come into the table; `None`: it is not there.
    ///
    /// # Errors
    /// `sink_table_mismatch`, `authorization_failed`.
    pub async fn look(&self, at: &mut PgConnection, needs: Needs) -> Result<Option<Way>, RunError> {
        const LOOK: &str = "look at the table";
        let Target { schema, table, key, .. } = &self.target;
        let sql = "SELECT c.oid::bigint, c.relkind::text,
                has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'INSERT'),
                has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE')
            FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = $2";
        let asked = sqlx::query_as(sql).bind(schema).bind(table).fetch_optional(&mut *at);
        let known: Option<(i64, String, bool, bool)> = self.server.answer(LOOK, ANSWER, asked).await?;
        let mut missing = self.missing_rights(at, needs, known.is_none()).await?;
        if let Some((_, kind, inserts, changes)) = &known {
            if !["r", "p"].contains(&kind.as_str()) {
                let message = format!("table {}: {} is no table", self.target.shown, self.target.full_name());
                return Err(
                    RunError::user("sink_table_mismatch", message).hint("views and foreign tables are not written")
                );
            }
            if !inserts || (!key.is_empty() && !changes) {
                missing.push(format!("write {}", self.target.full_name()));
            }
        }
        if !missing.is_empty() {
            let message = format!("table {}: the user may not {}", self.target.shown, missing.join(", nor "));
            return Err(RunError::user("authorization_failed", message).hint(RIGHTS));
        }
        let Some((relation, ..)) = known else { return Ok(None) };
        let sql = "SELECT a.attname::text, t.typname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.atttypmod,
                t.typtype::text, a.attnotnull, a.atthasdef OR a.attidentity::text <> '', a.attgenerated::text <> '' OR a.attidentity::text = 'a'
            FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid::bigint = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        type Row = (String, String, String, i32, String, bool, bool, bool);
        let asked = sqlx::query_as(sql).bind(relation).fetch_all(&mut *at);
        let rows: Vec<Row> = self.server.answer(LOOK, ANSWER, asked).await?;
        let found = |(name, type_name, shown, modifier, kind, not_null, has_default, generated): Row| Found {
            name,
            type_name,
            shown,
            modifier,
            is_enum: kind == "e",
            not_null,
            has_default,
            generated,
        };
        let found: Vec<Found> = rows.into_iter().map(found).collect();
        // Of all rows, and at once: what ON CONFLICT can go by.
        let sql = "SELECT array_agg(a.attname::text) FROM pg_catalog.pg_index i
            JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
            WHERE i.indrelid::bigint = $1 AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
            GROUP BY i.indexrelid";
        let asked = sqlx::query_as(sql).bind(relation).fetch_all(at);
        let keys: Vec<(Vec<String>,)> = self.server.answer(LOOK, ANSWER, asked).await?;
        let keys: Vec<BTreeSet<String>> = keys.into_iter().map(|(names,)| names.into_iter().collect()).collect();
        self.target.way(&found, &keys).map(Some)
    }

    /// Rights beside those on the table itself that the user lacks.
    async fn missing_rights(
        &self,
        at: &mut PgConnection,
        needs: Needs,
        missing: bool,
    ) -> Result<Vec<String>, RunError> {
        let sql = "SELECT n.oid IS NOT NULL, has_schema_privilege(n.oid, 'CREATE'), has_database_privilege(current_database(), 'TEMPORARY'),
                e.oid IS NOT NULL, has_table_privilege(e.oid, 'SELECT') AND has_table_privilege(e.oid, 'INSERT') AND has_table_privilege(e.oid, 'UPDATE'),
                pg_is_in_recovery()
            FROM (SELECT) one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $1
            LEFT JOIN pg_catalog.pg_class e ON e.relnamespace = n.oid AND e.relname = 'highwater_epochs'";
        type Rights = (bool, Option<bool>, bool, bool, Option<bool>, bool);
        let asked = sqlx::query_as(sql).bind(&self.target.schema).fetch_one(at);
        let (schema, creates, temporary, epochs, marks, standby): Rights =
            self.server.answer("look at the schema", ANSWER, asked).await?;
        let Target { shown, schema: name, create, .. } = &self.target;
        if standby {
            let message = format!(
                "table {shown}: the server at {}:{} is a standby, which only reads",
                self.server.host, self.server.port
            );
            return Err(RunError::external("postgres_failed", message).hint("name the primary server"));
        }
        if !schema {
            let message = format!("table {shown}: there is no schema {name:?} that the user can see");
            return Err(RunError::user("sink_table_not_found", message).hint("create it, or correct 'schema'"));
        }
        if missing && !create {
            let message = format!("table {shown}: there is no table {}", self.target.full_name());
            return Err(RunError::user("sink_table_not_found", message)
                .hint("create it, correct 'schema' and 'table' (they are taken as they are written), or write 'create' = 'true'"));
        }
        let mut lacking = Vec::new();
        if missing && creates != Some(true) {
            lacking.push(format!("create {}", self.target.full_name()));
        }
        if needs.epochs && if epochs { marks != Some(true) } else { creates != Some(true) } {
            lacking.push(format!("keep the marker of what was written, highwater_epochs, in schema {name:?}"));
        }
        if !self.target.key.is_empty() && !temporary {
            lacking.push("make temporary tables".to_string());
        }
        Ok(lacking)
    }

    /// Makes what is missing, if that is wanted; how rows come into the table.
    pub async fn prepare(&self, at: &mut PgConnection, needs: Needs) -> Result<Way, RunError> {
        self.say(at, "begin", ANSWER, "SET default_transaction_read_only = off; SET client_min_messages = error")
            .await?;
        let mut way = self.look(at, needs).await?;
        if way.is_none() {
            self.say(at, "create the table", ANSWER, &self.target.create_table()).await?;
            way = self.look(at, needs).await?;
        }
        if needs.epochs {
            self.say(at, "create highwater_epochs", ANSWER, &self.target.create_epochs()).await?;
        }
        way.ok_or_else(|| {
            let message =
                format!("table {}: {} was created, and is gone again", self.target.shown, self.target.full_name());
            RunError::external("postgres_failed", message)
        })
    }

    /// A transaction whose locks do not outlive a client that stands still. It survives a crash of the server whatever the user's settings are.
    pub async fn begin(&self, at: &mut PgConnection) -> Result<(), RunError> {
        let sql = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
            SET LOCAL lock_timeout = '5s';
            SET LOCAL statement_timeout = '300s';
            SET LOCAL idle_in_transaction_session_timeout = '60s';
            SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";
        self.say(at, "begin a transaction", ANSWER, sql).await
    }

    /// Writes all rows of the logs, within the transaction at hand.
    pub async fn write(&self, to: &mut PgConnection, way: &Way, logs: &mut Logs) -> Result<(), RunError> {
        // No file: nothing is copied.
        let Some(mut file) = logs.next().await? else { return Ok(()) };
        let Table { server, target } = self;
        if let Some(stage) = target.stage(way) {
            self.say(to, "make a temporary table", ANSWER, &stage).await?;
        }
        const COPY: &str = "write rows";
        let sql = target.copy(way);
        let mut copy = server.answer(COPY, WORK, to.copy_in_raw(&sql)).await?;
        let mut tuples = COPY_HEAD.to_vec();
        loop {
            let (shown, content, expected) = file;
            let mut records = 0;
            let mut blocks = Blocks::of(&shown, &content);
            while let Some(block) = blocks.next()? {
                records += block.read(|_, frame| {
                    target.tuple(way, frame, &mut tuples);
                    Ok(())
                })?;
                server.answer(COPY, WORK, copy.send(&tuples[..])).await?;
                tuples.clear();
                faults::reach("postgres.copy.half").await?;
            }
            if records != expected {
                let message = format!("{shown} is damaged: it has {records} records, written were {expected}");
                return Err(RunError::external("checkpoint_corrupt", message));
            }
            match logs.next().await? {
                Some(next) => file = next,
                None => break,
            }
        }
        tuples.extend(COPY_END);
        server.answer(COPY, WORK, copy.send(&tuples[..])).await?;
        server.answer(COPY, WORK, copy.finish()).await?;
        for statement in target.merge(way) {
            self.say(to, COPY, WORK, &statement).await?;
        }
        Ok(())
    }

    /// The transaction's end. An error says nothing about what has become of it.
    pub async fn commit(&self, to: &mut PgConnection) -> Result<(), RunError> {
        self.say(to, "commit", ANSWER, "COMMIT").await
    }
}

/// A table that is shared by those who write it.
pub type TableRef = Arc<Table>;
