//! Makes savepoints: asks a run for a checkpoint, waits until that is committed, and has it copied by a process of its own.
//!
//! The row of a savepoint says how far it is. A server that comes later goes on from there: it asks again for a checkpoint, or copies the
//! epoch that is named; both change nothing where they were done.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::IdKind;
use control::attempt::StopMode;
use control::inspect::SavepointPlace;
use futures::future::BoxFuture;
use metadata::{Epoch, EpochFilter, EpochPage, MetadataError, Page, Run, Savepoint, SavepointFilter};
use tokio::sync::watch;
use uuid::Uuid;

use super::wait_for_store;
use crate::app::App;
use crate::facts::{self, SavepointFacts};
use crate::inspect;
use crate::problem::{ApiError, ApiResult};

/// Between looks for the checkpoint.
const LOOK: Duration = Duration::from_millis(50);
/// Savepoints that are taken up at once.
const TAKEN_UP: i64 = 10_000;

/// The savepoints that this server makes.
pub struct Savepoints {
    followed: Mutex<HashSet<Uuid>>,
    /// Held from the look at how a run is being stopped to the storing of another way: a run stops in one.
    pub stopping: Arc<tokio::sync::Mutex<()>>,
    changes: watch::Sender<u64>,
}

impl Default for Savepoints {
    fn default() -> Savepoints {
        Savepoints { followed: Mutex::default(), stopping: Default::default(), changes: watch::Sender::new(0) }
    }
}

impl Savepoints {
    /// Ends when one has changed after this call.
    pub fn changed(&self) -> impl Future<Output = ()> + use<> {
        let mut changes = self.changes.subscribe();
        async move { drop(changes.changed().await) }
    }
}

/// Where the savepoints of a server are.
pub fn home(app: &App) -> PathBuf {
    let data = &app.config.data;
    std::path::absolute(data).unwrap_or_else(|_| data.clone()).join("savepoints")
}

/// Where the files of a savepoint are, and what that is checked against.
pub fn place(app: &App, savepoint: &Savepoint) -> SavepointPlace {
    let elsewhere = SavepointFacts::of(savepoint).is_elsewhere;
    SavepointPlace { place: savepoint.location.clone(), allowed_roots: elsewhere.then(|| app.config.savepoint_roots()) }
}

/// The newest epoch that is committed, of a run or of all of a job's.
pub async fn newest_committed(app: &App, job_id: Uuid, run_id: Option<Uuid>) -> Result<Option<Epoch>, MetadataError> {
    let filter = EpochFilter { job_id, run_id, states: vec!["committed".into()] };
    Ok(app.store.epochs(&filter, EpochPage { after: None, limit: 1 }).await?.pop())
}

/// Goes on with all savepoints that nobody makes.
pub async fn take_up(app: &App) -> Result<(), MetadataError> {
    let running = SavepointFilter { states: vec!["running".into()], ..SavepointFilter::default() };
    for savepoint in app.store.savepoints(&running, Page { after: None, limit: TAKEN_UP }).await? {
        begin(app, savepoint).await?;
    }
    Ok(())
}

/// Makes a savepoint that is stored, unless that is done already.
pub async fn begin(app: &App, savepoint: Savepoint) -> Result<(), MetadataError> {
    if SavepointFacts::of(&savepoint).stops_run {
        faults::pass("savepoint.stop.before");
        super::stop_run(app, savepoint.run_id, StopMode::Savepoint).await?;
        faults::pass("savepoint.stop.after");
    }
    let savepoint_id = savepoint.savepoint_id;
    if !app.savepoints.followed.lock().expect("nothing panics while it holds the set").insert(savepoint_id) {
        return Ok(());
    }
    let app = app.clone();
    tokio::spawn(async move {
        // In a task of its own: should it panic, the savepoint is let go, and taken up by the next look.
        if let Err(error) = tokio::spawn(make(app.clone(), savepoint)).await {
            tracing::error!(savepoint = IdKind::Savepoint.text(savepoint_id), %error, "a savepoint was lost sight of");
        }
        app.savepoints.followed.lock().expect("nothing panics while it holds the set").remove(&savepoint_id);
        app.savepoints.changes.send_modify(|changes| *changes += 1);
    });
    Ok(())
}

async fn make(app: App, savepoint: Savepoint) {
    let id = IdKind::Savepoint.text(savepoint.savepoint_id);
    let ended = match copied(&app, savepoint.clone()).await {
        Ok(completed) => {
            tracing::info!(savepoint = id, epoch = completed.epoch, "a savepoint is completed");
            completed
        }
        Err(error) => {
            tracing::warn!(
                savepoint = id,
                code = error.code(),
                detail = error.problem().detail,
                "a savepoint has failed"
            );
            let failure = serde_json::to_value(error.problem()).expect("a problem has text for keys");
            // What it was to be a copy of may be known meanwhile.
            let current = app.store.savepoint(savepoint.savepoint_id).await.unwrap_or(savepoint);
            Savepoint { state: "failed".into(), failure: Some(failure), ..current }
        }
    };
    let ended = Savepoint { ended_at: Some(crate::time::now()), ..ended };
    faults::pass("savepoint.ended.before");
    while let Err(error) = app.store.update_savepoint(&ended).await {
        match error {
            MetadataError::Owned(_) | MetadataError::NotFound { .. } => return,
            error => wait_for_store(&error).await,
        }
    }
    faults::pass("savepoint.ended.after");
}

/// The savepoint when all of it is written.
async fn copied(app: &App, mut savepoint: Savepoint) -> ApiResult<Savepoint> {
    let epoch = loop {
        let epoch = match savepoint.epoch {
            Some(epoch) => patiently(|| app.store.epoch(savepoint.job_id, epoch)).await?,
            None => checkpoint(app, &savepoint).await?,
        };
        if savepoint.epoch == Some(epoch.epoch) {
            break epoch;
        }
        faults::pass("savepoint.named.before");
        // From now on its files stay.
        let named = Savepoint { epoch: Some(epoch.epoch), ..savepoint.clone() };
        match app.store.update_savepoint(&named).await {
            Ok(()) => {
                faults::pass("savepoint.named.after");
                savepoint = named;
            }
            // It is so old already that it was given up; there are newer ones.
            Err(MetadataError::NotFound { kind: "epoch", .. }) => {}
            Err(error @ MetadataError::Unavailable { .. }) => wait_for_store(&error).await,
            Err(error) => return Err(error.into()),
        }
    };
    app.savepoints.changes.send_modify(|changes| *changes += 1);
    let run = patiently(|| app.store.run(epoch.run_id)).await?;
    let version = patiently(|| app.store.version(run.job_id, run.version)).await?;
    let checkpoint = facts::checkpoint_file(&epoch);
    let job = IdKind::Job.text(savepoint.job_id);
    let to = place(app, &savepoint);
    let written = inspect::export(app, job, checkpoint, savepoint.job_name.clone(), version.graph, to).await?;
    let facts = SavepointFacts::of(&savepoint);
    let facts = SavepointFacts { manifest_sha256: Some(written.manifest_sha256), state: written.state, ..facts };
    Ok(Savepoint { state: "completed".into(), bytes: Some(written.bytes as i64), facts: facts.to_json(), ..savepoint })
}

/// The checkpoint that a savepoint is made of, once it is committed: one that was cut after the savepoint was asked for.
async fn checkpoint(app: &App, savepoint: &Savepoint) -> ApiResult<Epoch> {
    let (job_id, run_id) = (savepoint.job_id, savepoint.run_id);
    let stops = SavepointFacts::of(savepoint).stops_run;
    let mut asked: Option<(String, u64)> = None;
    let mut least: Option<u64> = None;
    loop {
        // Before its epochs: what it has committed when it has ended is all.
        let run = patiently(|| app.store.run(run_id)).await?;
        let link = app.attempts.get(run_id).and_then(|live| live.link()).filter(|_| run.active && !stops);
        if let Some(link) = link {
            let attempt = link.attempt();
            if asked.as_ref().is_none_or(|(known, _)| *known != attempt) {
                match link.checkpoint().await {
                    Ok(epoch) => {
                        // An attempt that comes later makes one with a larger number, whatever it is asked.
                        least.get_or_insert(epoch);
                        asked = Some((attempt, epoch));
                    }
                    Err(error) => tracing::debug!(%error, "a run was not asked for a checkpoint"),
                }
            }
        }
        let newest = patiently(|| Box::pin(newest_committed(app, job_id, Some(run_id)))).await?;
        // After the last epoch there is nothing to go on with.
        if let Some(epoch) = newest.filter(|epoch| !epoch.last)
            && (run.state == "stopped" || least.is_some_and(|least| epoch.epoch as u64 >= least))
        {
            return Ok(epoch);
        }
        if !run.active {
            return Err(ended(&run));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The run has ended without a checkpoint that could be taken.
fn ended(run: &Run) -> ApiError {
    let id = IdKind::Run.text(run.run_id);
    let detail = format!("{id} has become {} before a checkpoint for the savepoint was committed", run.state);
    let hint = match run.state.as_str() {
        "finished" => "after its last epoch there is nothing to go on with",
        _ => "take another one of the job: it will be of its last committed checkpoint",
    };
    ApiError::new("invalid_state", detail).hint(hint)
}

/// What the store says, once it is there.
async fn patiently<'a, T>(ask: impl Fn() -> BoxFuture<'a, Result<T, MetadataError>>) -> ApiResult<T> {
    loop {
        match ask().await {
            Err(error @ MetadataError::Unavailable { .. }) => wait_for_store(&error).await,
            other => return Ok(other?),
        }
    }
}
