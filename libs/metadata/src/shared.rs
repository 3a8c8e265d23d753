//! The contract, kept over whichever database: one transaction per change, with its audit line and its stored answer.

use std::collections::BTreeMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::queries::{answers, audit, catalogue, epochs, jobs, keys, operations, runs, savepoints};
use crate::records::*;
use crate::session::Session;
use crate::store::{MetadataStore, Result};

/// What the two databases do each in their own way.
#[async_trait]
pub trait Database: Send + Sync {
    /// A connection for reading, each statement by itself.
    #[doc(hidden)]
    async fn read(&self) -> Result<Session>;
    /// A transaction for writing; fails with `Owned` if another control plane leads.
    #[doc(hidden)]
    async fn write(&self) -> Result<Session>;
    /// Ends what [`write`](Self::write) began: afterwards it is durable, or an error says what is known.
    #[doc(hidden)]
    async fn commit(&self, session: Session) -> Result<()>;
    #[doc(hidden)]
    async fn lead(&self, holder: &str) -> Result<i64>;
    #[doc(hidden)]
    async fn renew(&self, term: i64) -> Result<()>;
    #[doc(hidden)]
    async fn release(&self, term: i64) -> Result<()>;
    #[doc(hidden)]
    async fn ping(&self) -> Result<()>;
}

/// A metadata store in the database `D`.
pub struct Store<D> {
    database: D,
}

impl<D> Store<D> {
    pub(crate) fn new(database: D) -> Store<D> {
        Store { database }
    }

    pub(crate) fn database(&self) -> &D {
        &self.database
    }
}

/// A transaction whose audit line is still to be written.
struct Audited<'a> {
    session: Session,
    head: (i64, String),
    change: &'a Change,
}

impl<D: Database> Store<D> {
    async fn begin<'a>(&self, change: &'a Change) -> Result<Audited<'a>> {
        let mut session = self.database.write().await?;
        let head = audit::take_turn(&mut session).await?;
        answers::claim(&mut session, change).await?;
        Ok(Audited { session, head, change })
    }

    async fn finish(&self, audited: Audited<'_>, outcome: &str) -> Result<()> {
        let Audited { mut session, head, change } = audited;
        audit::append(&mut session, head, change, outcome).await?;
        self.database.commit(session).await
    }
}

#[async_trait]
impl<D: Database> MetadataStore for Store<D> {
    async fn create_job(&self, job: &Job, version: &JobVersion, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        jobs::create(&mut audited.session, job, version).await?;
        self.finish(audited, "done").await
    }

    async fn create_started_job(&self, job: &Job, version: &JobVersion, run: &Run, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        jobs::create(&mut audited.session, job, version).await?;
        runs::create(&mut audited.session, run).await?;
        self.finish(audited, "done").await
    }

    async fn job(&self, job_id: Uuid) -> Result<Job> {
        jobs::of_id(&mut self.database.read().await?, job_id).await
    }

    async fn job_named(&self, name: &str) -> Result<Job> {
        jobs::of_name(&mut self.database.read().await?, name).await
    }

    async fn jobs(&self, filter: &JobFilter, page: Page) -> Result<Vec<Job>> {
        jobs::list(&mut self.database.read().await?, filter, page).await
    }

    async fn version(&self, job_id: Uuid, version: i64) -> Result<JobVersion> {
        jobs::version(&mut self.database.read().await?, job_id, version).await
    }

    async fn update_job(&self, job: &Job, version: Option<&JobVersion>, change: &Change) -> Result<Job> {
        let mut audited = self.begin(change).await?;
        let job = jobs::update(&mut audited.session, job, version).await?;
        self.finish(audited, "done").await?;
        Ok(job)
    }

    async fn delete_job(&self, job_id: Uuid, revision: i64, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        jobs::delete(&mut audited.session, job_id, revision).await?;
        self.finish(audited, "done").await
    }

    async fn create_run(&self, run: &Run, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        runs::create(&mut audited.session, run).await?;
        self.finish(audited, "done").await
    }

    async fn run(&self, run_id: Uuid) -> Result<Run> {
        runs::of_id(&mut self.database.read().await?, run_id).await
    }

    async fn runs(&self, filter: &RunFilter, page: Page) -> Result<Vec<Run>> {
        runs::list(&mut self.database.read().await?, filter, page).await
    }

    async fn active_runs(&self) -> Result<Vec<Run>> {
        runs::active(&mut self.database.read().await?).await
    }

    async fn move_run(&self, step: &RunMove) -> Result<Run> {
        let mut session = self.database.write().await?;
        let run = runs::step(&mut session, step).await?;
        faults::reach("move.transaction.before").await?;
        self.database.commit(session).await?;
        faults::reach("move.transaction.after").await?;
        Ok(run)
    }

    async fn set_run_facts(&self, run_id: Uuid, generation: i64, facts: &Value) -> Result<()> {
        let mut session = self.database.write().await?;
        runs::set_facts(&mut session, run_id, generation, facts).await?;
        self.database.commit(session).await
    }

    async fn run_events(&self, run_id: Uuid) -> Result<Vec<RunEvent>> {
        runs::events(&mut self.database.read().await?, run_id).await
    }

    async fn reserve_epochs(&self, run_id: Uuid, generation: i64, term: i64, count: i64) -> Result<i64> {
        let mut session = self.database.write().await?;
        let first = epochs::reserve(&mut session, run_id, generation, term, count).await?;
        faults::reach("reserve.transaction.before").await?;
        self.database.commit(session).await?;
        faults::reach("reserve.transaction.after").await?;
        Ok(first)
    }

    async fn decide_epoch(&self, decision: &EpochDecision) -> Result<()> {
        let mut session = self.database.write().await?;
        epochs::decide(&mut session, decision).await?;
        faults::reach("decide.transaction.before").await?;
        self.database.commit(session).await?;
        Ok(faults::reach("decide.transaction.after").await?)
    }

    async fn confirm_epoch(&self, statement: &EpochStatement, proofs: &Value) -> Result<()> {
        let mut session = self.database.write().await?;
        epochs::confirm(&mut session, statement, proofs).await?;
        faults::reach("confirm.transaction.before").await?;
        self.database.commit(session).await?;
        Ok(faults::reach("confirm.transaction.after").await?)
    }

    async fn abandon_epoch(&self, statement: &EpochStatement) -> Result<()> {
        let mut session = self.database.write().await?;
        epochs::abandon(&mut session, statement).await?;
        faults::reach("abandon.transaction.before").await?;
        self.database.commit(session).await?;
        Ok(faults::reach("abandon.transaction.after").await?)
    }

    async fn epoch(&self, job_id: Uuid, epoch: i64) -> Result<Epoch> {
        epochs::of_number(&mut self.database.read().await?, job_id, epoch).await
    }

    async fn last_epoch(&self, job_id: Uuid) -> Result<Option<Epoch>> {
        epochs::last(&mut self.database.read().await?, job_id).await
    }

    async fn epochs(&self, filter: &EpochFilter, page: EpochPage) -> Result<Vec<Epoch>> {
        epochs::list(&mut self.database.read().await?, filter, page).await
    }

    async fn retire_epochs(&self, job_id: Uuid, epochs: &[i64], term: i64, at: DateTime<Utc>) -> Result<()> {
        let mut session = self.database.write().await?;
        epochs::retire(&mut session, job_id, epochs, term, at).await?;
        self.database.commit(session).await
    }

    async fn create_savepoint(&self, savepoint: &Savepoint, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        if savepoints::create(&mut audited.session, savepoint).await? {
            self.finish(audited, "done").await?;
        }
        Ok(())
    }

    async fn savepoint(&self, savepoint_id: Uuid) -> Result<Savepoint> {
        savepoints::of_id(&mut self.database.read().await?, savepoint_id).await
    }

    async fn savepoints(&self, filter: &SavepointFilter, page: Page) -> Result<Vec<Savepoint>> {
        savepoints::list(&mut self.database.read().await?, filter, page).await
    }

    async fn update_savepoint(&self, savepoint: &Savepoint) -> Result<()> {
        let mut session = self.database.write().await?;
        savepoints::update(&mut session, savepoint).await?;
        self.database.commit(session).await
    }

    async fn delete_savepoint(&self, savepoint_id: Uuid, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        savepoints::delete(&mut audited.session, savepoint_id).await?;
        self.finish(audited, "done").await
    }

    async fn use_savepoint(&self, savepoint_id: Uuid, run_id: Uuid) -> Result<()> {
        let mut session = self.database.write().await?;
        savepoints::take(&mut session, savepoint_id, run_id).await?;
        self.database.commit(session).await
    }

    async fn release_savepoint(&self, savepoint_id: Uuid, run_id: Uuid) -> Result<()> {
        let mut session = self.database.write().await?;
        savepoints::release(&mut session, savepoint_id, run_id).await?;
        self.database.commit(session).await
    }

    async fn create_operation(&self, operation: &Operation, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        operations::create(&mut audited.session, operation).await?;
        self.finish(audited, "done").await
    }

    async fn operation(&self, operation_id: Uuid) -> Result<Operation> {
        operations::of_id(&mut self.database.read().await?, operation_id).await
    }

    async fn running_operations(&self) -> Result<Vec<Operation>> {
        operations::running(&mut self.database.read().await?).await
    }

    async fn update_operation(&self, operation: &Operation) -> Result<()> {
        let mut session = self.database.write().await?;
        operations::update(&mut session, operation).await?;
        self.database.commit(session).await
    }

    async fn forget(&self, before: DateTime<Utc>) -> Result<()> {
        let mut session = self.database.write().await?;
        operations::forget(&mut session, before).await?;
        answers::forget(&mut session, before).await?;
        self.database.commit(session).await
    }

    async fn views(&self) -> Result<Vec<View>> {
        jobs::views(&mut self.database.read().await?).await
    }

    async fn view(&self, name: &str) -> Result<View> {
        jobs::view(&mut self.database.read().await?, name).await
    }

    async fn put_connection(
        &self,
        connection: &Connection,
        secrets: &BTreeMap<String, Vec<u8>>,
        change: &Change,
    ) -> Result<()> {
        let mut audited = self.begin(change).await?;
        catalogue::put_connection(&mut audited.session, connection, secrets).await?;
        self.finish(audited, "done").await
    }

    async fn connection(&self, name: &str) -> Result<Connection> {
        catalogue::connection(&mut self.database.read().await?, name).await
    }

    async fn connections(&self) -> Result<Vec<Connection>> {
        catalogue::connections(&mut self.database.read().await?).await
    }

    async fn connection_with_secrets(&self, name: &str) -> Result<(Connection, BTreeMap<String, Vec<u8>>)> {
        catalogue::connection_with_secrets(&mut self.database.read().await?, name).await
    }

    async fn delete_connection(&self, name: &str, revision: i64, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        catalogue::delete_connection(&mut audited.session, name, revision).await?;
        self.finish(audited, "done").await
    }

    async fn create_table(&self, table: &Table, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        catalogue::create_table(&mut audited.session, table).await?;
        self.finish(audited, "done").await
    }

    async fn table(&self, name: &str) -> Result<Table> {
        catalogue::table(&mut self.database.read().await?, name).await
    }

    async fn tables(&self) -> Result<Vec<Table>> {
        catalogue::tables(&mut self.database.read().await?).await
    }

    async fn delete_table(&self, name: &str, revision: i64, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        catalogue::delete_table(&mut audited.session, name, revision).await?;
        self.finish(audited, "done").await
    }

    async fn create_key(&self, key: &ApiKey, change: &Change) -> Result<()> {
        let mut audited = self.begin(change).await?;
        keys::create(&mut audited.session, key).await?;
        self.finish(audited, "done").await
    }

    async fn keys(&self) -> Result<Vec<ApiKey>> {
        keys::list(&mut self.database.read().await?).await
    }

    async fn revoke_key(&self, key_id: Uuid, at: DateTime<Utc>, change: &Change) -> Result<ApiKey> {
        let mut audited = self.begin(change).await?;
        let (key, revoked_now) = keys::revoke(&mut audited.session, key_id, at).await?;
        if revoked_now {
            self.finish(audited, "done").await?;
        }
        Ok(key)
    }

    async fn audit(&self, change: &Change, outcome: &str) -> Result<()> {
        let audited = self.begin(change).await?;
        self.finish(audited, outcome).await
    }

    async fn audit_log(&self, after: i64, limit: i64) -> Result<Vec<AuditEntry>> {
        audit::log(&mut self.database.read().await?, after, limit).await
    }

    async fn audit_head(&self) -> Result<(i64, String)> {
        audit::head(&mut self.database.read().await?).await
    }

    async fn answer(&self, principal: &str, request: &str, key: &str) -> Result<Option<StoredAnswer>> {
        answers::find(&mut self.database.read().await?, principal, request, key).await
    }

    async fn lead(&self, holder: &str) -> Result<i64> {
        self.database.lead(holder).await
    }

    async fn renew(&self, term: i64) -> Result<()> {
        self.database.renew(term).await
    }

    async fn release(&self, term: i64) -> Result<()> {
        self.database.release(term).await
    }

    async fn ping(&self) -> Result<()> {
        self.database.ping().await
    }
}
