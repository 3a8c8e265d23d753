//! Decides the epochs of attempts: looks for their questions, and answers from the store, which is the only truth.

use std::sync::Arc;
use std::time::Duration;

use api::IdKind;
use control::attempt::{Answer, CheckpointSpec, Decision, Failure, Question, RestoreSpec, Verdict};
use control::inspect::{CheckpointFile, IntoGraph};
use metadata::{Epoch, EpochDecision, EpochFilter, EpochPage, EpochStatement, Fence, MetadataError, Run};
use serde_json::{Value, json};
use state::Manifest;
use tokio::time::Instant;
use uuid::Uuid;

use super::collect::collect;
use super::link::{Link, LinkError};
use super::{CheckpointFigures, Live, wait_for_store};
use crate::app::App;
use crate::facts::{RunRequest, SavepointRequest};
use crate::inspect;
use crate::planning::Stored;

/// Numbers of epochs that an attempt may use beyond the one that was decided last.
const RESERVED: i64 = 10_000;
/// Decided epochs that an attempt is told of; older ones are deleted soon after.
const RESTORABLE: usize = 8;
/// Between two rounds that delete what old checkpoints left.
const COLLECT: Duration = Duration::from_secs(30);
/// Between looks at an attempt that does not answer.
const PAUSE: Duration = Duration::from_millis(200);

/// Who asks: an attempt of a run.
#[derive(Clone)]
pub struct Asker {
    pub job_id: Uuid,
    pub run_id: Uuid,
    pub generation: i64,
    /// The first epoch of the attempt.
    pub first_epoch: u64,
    /// The savepoint that its run began from.
    pub savepoint_id: Option<Uuid>,
}

/// Answers the questions of an attempt, until it is dropped.
pub async fn answer(app: App, asker: Asker, link: Link, live: Arc<Live>) {
    let note = |change: &dyn Fn(&mut CheckpointFigures)| {
        change(&mut live.checkpoints.lock().expect("nothing panics while it holds the figures"));
    };
    note(&|figures| figures.attempt = asker.generation);
    let mut collected = None;
    let mut in_use = asker.savepoint_id;
    loop {
        let question = match link.question().await {
            Ok(Some(question)) => question,
            Ok(None) => continue,
            Err(error) => {
                if !matches!(error, LinkError::Closed) {
                    tracing::debug!(%error, "an attempt could not be asked for its questions");
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Whoever leads now looks for the question himself.
        let Some(verdict) = decide(&app, &asker, &question).await else { return };
        if faults::reach("answer.before").await.is_err() {
            continue;
        }
        if let Verdict::Fenced(why) = &verdict {
            tracing::warn!(
                run = IdKind::Run.text(asker.run_id),
                generation = asker.generation,
                why,
                "an attempt is fenced"
            );
        }
        match (&question, &verdict) {
            (Question::Decide(decision), Verdict::Done) => note(&|figures| {
                figures.count += 1;
                figures.bytes += decision.bytes;
                figures.duration_us = decision.duration_us as u64;
                figures.newest_bytes = decision.bytes;
                figures.operators = decision.operators.clone();
                figures.decided = decision.epoch;
                figures.decided_at = Some(Instant::now());
            }),
            (Question::Confirm { epoch }, Verdict::Done) => note(&|figures| {
                figures.committed = *epoch;
                // What an attempt went on from may be recorded by it; that is not new.
                if let Some(failed) =
                    figures.failed_at.take_if(|at| figures.decided_at.is_some_and(|decided| decided > *at))
                {
                    figures.recovery_us = Some(failed.elapsed().as_micros() as u64);
                }
            }),
            _ => {}
        }
        // The run has a place of its own to go on from.
        if let (Question::Decide(_), Verdict::Done, Some(savepoint_id)) = (&question, &verdict, in_use)
            && app.store.release_savepoint(savepoint_id, asker.run_id).await.is_ok()
        {
            in_use = None;
        }
        let confirmed = matches!((&question, &verdict), (Question::Confirm { .. }, Verdict::Done));
        // An answer that does not arrive is asked for again, and is then the same.
        if let Err(error) = link.answer(&Answer { to: question, verdict }).await {
            tracing::debug!(%error, "an attempt did not take an answer");
        }
        if confirmed && collected.is_none_or(|at: Instant| at.elapsed() > COLLECT) {
            collected = Some(Instant::now());
            let app = app.clone();
            let (job_id, first_epoch) = (asker.job_id, asker.first_epoch);
            tokio::spawn(async move { collect(&app, job_id, first_epoch).await });
        }
    }
}

/// Asks the store until it knows. `None` if the answer is no longer this server's to give.
async fn decide(app: &App, asker: &Asker, question: &Question) -> Option<Verdict> {
    loop {
        let done = match question {
            Question::Decide(asked) => match decision(app, asker, asked) {
                Ok(decision) => app.store.decide_epoch(&decision).await,
                Err(why) => return Some(Verdict::Fenced(why)),
            },
            Question::Confirm { epoch } => app.store.confirm_epoch(&statement(app, asker, *epoch), &Value::Null).await,
            Question::Abandon { epoch } => app.store.abandon_epoch(&statement(app, asker, *epoch)).await,
            Question::IsNewest => is_newest(app, asker).await,
        };
        match done {
            Ok(()) => return Some(Verdict::Done),
            Err(MetadataError::Owned(_) | MetadataError::Fenced { found: Fence::Term(_), .. }) => return None,
            Err(
                error @ (MetadataError::Fenced { .. } | MetadataError::Moved { .. } | MetadataError::NotFound { .. }),
            ) => return Some(Verdict::Fenced(error.to_string())),
            // Ambiguous or not: saying it again with the same nonce finds what was decided.
            Err(error) => wait_for_store(&error).await,
        }
    }
}

fn decision(app: &App, asker: &Asker, asked: &Decision) -> Result<EpochDecision, String> {
    let Decision { nonce, manifest_bytes, commits, .. } = asked;
    Ok(EpochDecision {
        job_id: asker.job_id,
        run_id: asker.run_id,
        generation: asker.generation,
        term: app.term,
        epoch: asked.epoch as i64,
        previous: asked.previous.map(|epoch| epoch as i64),
        nonce: nonce.parse().map_err(|error| format!("'{nonce}' is no nonce: {error}"))?,
        manifest: asked.manifest.clone(),
        manifest_sha256: asked.manifest_sha256.clone(),
        reserve: RESERVED,
        bytes: asked.bytes as i64,
        total_bytes: asked.total_bytes as i64,
        duration_ms: (asked.duration_us / 1000).max(0),
        last: asked.last,
        facts: json!({ "manifest_bytes": manifest_bytes, "commits": commits, "operators": asked.operators }),
        at: crate::time::now(),
    })
}

fn statement(app: &App, asker: &Asker, epoch: u64) -> EpochStatement {
    let Asker { job_id, run_id, generation, .. } = *asker;
    EpochStatement { job_id, epoch: epoch as i64, run_id, generation, term: app.term, at: crate::time::now() }
}

async fn is_newest(app: &App, asker: &Asker) -> Result<(), MetadataError> {
    let Run { run_id, state, generation, active, .. } = app.store.run(asker.run_id).await?;
    match active && generation == asker.generation {
        true => Ok(()),
        false => Err(MetadataError::Moved { run_id, state, generation }),
    }
}

/// Where the next attempt of a run goes on: the newest epoch that its attempts have decided, or else the one that the run began from; and what
/// may take its place if it cannot be restored.
pub async fn resume(app: &App, run: &Run) -> Result<CheckpointSpec, MetadataError> {
    let filter = EpochFilter {
        job_id: run.job_id,
        run_id: Some(run.run_id),
        states: vec!["decided".into(), "committed".into()],
    };
    let newest = app.store.epochs(&filter, EpochPage { after: None, limit: 1 }).await?.pop();
    let mut next = newest.map(|epoch| epoch.epoch).or(run.base_epoch);
    let mut restore = Vec::new();
    while let Some(epoch) = next.filter(|_| restore.len() < RESTORABLE) {
        let epoch = app.store.epoch(run.job_id, epoch).await?;
        if epoch.state == "retired" {
            break;
        }
        next = epoch.previous;
        let mut spec = restore_spec(&epoch);
        if epoch.previous.is_none() && RunRequest::of(run).savepoint.is_some() {
            // Before it is not the beginning of the job but the savepoint: it is not given up as if it had published nothing.
            spec.commits.clear();
        }
        restore.push(spec);
    }
    let first_epoch = app.store.reserve_epochs(run.run_id, run.generation, app.term, RESERVED).await?;
    Ok(CheckpointSpec {
        job_id: IdKind::Job.text(run.job_id),
        place: app.config.place(),
        first_epoch: first_epoch as u64,
        restore,
    })
}

/// Makes a checkpoint of the savepoint that a run begins from, and puts it before the first epoch of the attempt.
pub async fn import(
    app: &App,
    run: &Run,
    wanted: &SavepointRequest,
    stored: &Stored,
    checkpoints: CheckpointSpec,
) -> Result<CheckpointSpec, Failure> {
    let unavailable = |error: MetadataError| super::our_failure("metadata_unavailable", error.to_string());
    if let Some(savepoint_id) = wanted.savepoint_id() {
        loop {
            match app.store.use_savepoint(savepoint_id, run.run_id).await {
                Ok(()) => break,
                Err(error @ MetadataError::Unavailable { .. }) => wait_for_store(&error).await,
                Err(MetadataError::NotFound { .. }) => {
                    let message = format!("savepoint {} was deleted before the run had read it", wanted.given);
                    return Err(refused("savepoint_not_found", message));
                }
                Err(error) => return Err(unavailable(error)),
            }
        }
    }
    // Above the epoch in the savepoint, too: what sinks keep in it says up to which epoch they have rows.
    let least = wanted.epoch + 1;
    let mut epoch = checkpoints.first_epoch;
    if epoch < least {
        let count = (least - epoch) as i64 + RESERVED;
        let reserved = loop {
            match app.store.reserve_epochs(run.run_id, run.generation, app.term, count).await {
                Ok(first) => break first as u64,
                Err(error @ MetadataError::Unavailable { .. }) => wait_for_store(&error).await,
                Err(error) => return Err(unavailable(error)),
            }
        };
        epoch = reserved.max(least);
    }
    let into = IntoGraph {
        job: Some(checkpoints.job_id.clone()),
        graph: stored.graph.clone(),
        settings: stored.settings.clone(),
        may_drop: wanted.may_drop.clone(),
    };
    let run_id = IdKind::Run.text(run.run_id);
    let judged = wanted.manifest_sha256.clone();
    let imported = inspect::import(app, wanted.place.clone(), judged, into, run_id, epoch).await;
    let CheckpointFile { epoch, manifest, bytes, sha256 } = imported.map_err(|error| {
        let detail = error.problem().detail.clone();
        match error.code() {
            code @ ("savepoint_conflict"
            | "savepoint_not_found"
            | "savepoint_format"
            | "savepoint_corrupt"
            | "location_not_allowed"
            | "validation_failed") => refused(code, detail),
            // The machine's doing, or the network's.
            _ => super::our_failure("checkpoint_storage", detail),
        }
    })?;
    let commits = Vec::new();
    let restore =
        RestoreSpec { epoch, previous: None, manifest, bytes, sha256, committed: true, commits, savepoint: true };
    Ok(CheckpointSpec { first_epoch: epoch + 1, restore: vec![restore], ..checkpoints })
}

/// The savepoint of a run is not what it was when the run was asked for.
fn refused(code: &str, message: String) -> Failure {
    Failure { fault: "user".into(), retryable: false, ..super::our_failure(code, message) }
}

/// The epoch of a manifest that lies above all numbers that any attempt was given: the store is older than what it describes.
pub async fn unknown_manifest(app: &App, run: &Run, spec: &CheckpointSpec) -> Result<Option<u64>, Failure> {
    if faults::broken("trust_older_metadata") {
        return Ok(None);
    }
    let listed = app.checkpoints.list(&Manifest::directory(&IdKind::Job.text(run.job_id))).await;
    let listed = listed.map_err(|error| super::our_failure("checkpoint_storage", error.to_string()))?;
    let newest = listed.iter().filter_map(|file| Manifest::epoch_of(&file.path)).max();
    Ok(newest.filter(|epoch| *epoch >= spec.first_epoch))
}

fn restore_spec(epoch: &Epoch) -> RestoreSpec {
    let commits = serde_json::from_value(epoch.facts["commits"].clone());
    RestoreSpec {
        epoch: epoch.epoch as u64,
        previous: epoch.previous.map(|epoch| epoch as u64),
        manifest: epoch.manifest.clone(),
        bytes: epoch.facts["manifest_bytes"].as_u64().unwrap_or_default(),
        sha256: epoch.manifest_sha256.clone(),
        committed: epoch.state == "committed",
        savepoint: false,
        // Unknown: each sink is taken to have published it.
        commits: commits.unwrap_or_default(),
    }
}
