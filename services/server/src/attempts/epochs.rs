//! Decides the epochs of attempts: looks for their questions, and answers from the store, which is the only truth.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::IdKind;
use control::attempt::{Answer, CheckpointSpec, Failure, Question, RestoreSpec, Verdict};
use metadata::{Epoch, EpochDecision, EpochFilter, EpochPage, Fence, MetadataError, Run};
use serde_json::{Value, json};
use state::{Files, LocalFiles, Manifest};
use tokio::time::Instant;
use uuid::Uuid;

use super::collect::collect;
use super::link::{Link, LinkError};
use super::{CheckpointFigures, Live, wait_for_store};
use crate::app::App;

/// Numbers of epochs that an attempt may use beyond the one that was decided last.
const RESERVED: i64 = 10_000;
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
}

/// Answers the questions of an attempt, until it is dropped.
pub async fn answer(app: App, asker: Asker, link: Link, live: Arc<Live>) {
    let note = |change: &dyn Fn(&mut CheckpointFigures)| {
        change(&mut live.checkpoints.lock().expect("nothing panics while it holds the figures"));
    };
    note(&|figures| figures.attempt = asker.generation);
    let mut collected = None;
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
        if let Verdict::Fenced(why) = &verdict {
            tracing::warn!(
                run = IdKind::Run.text(asker.run_id),
                generation = asker.generation,
                why,
                "an attempt is fenced"
            );
        }
        match (&question, &verdict) {
            (Question::Decide { epoch, bytes, duration_us, .. }, Verdict::Done) => note(&|figures| {
                figures.count += 1;
                figures.bytes += bytes;
                figures.duration_us = *duration_us as u64;
                figures.decided = *epoch;
            }),
            (Question::Confirm { epoch }, Verdict::Done) => note(&|figures| figures.committed = *epoch),
            _ => {}
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
            Question::Decide { .. } => match decision(app, asker, question) {
                Ok(decision) => app.store.decide_epoch(&decision).await,
                Err(why) => return Some(Verdict::Fenced(why)),
            },
            Question::Confirm { epoch } => {
                let now = crate::time::now();
                let Asker { job_id, run_id, generation, .. } = *asker;
                app.store.confirm_epoch(job_id, *epoch as i64, run_id, generation, app.term, &Value::Null, now).await
            }
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

fn decision(app: &App, asker: &Asker, question: &Question) -> Result<EpochDecision, String> {
    let Question::Decide {
        epoch,
        previous,
        nonce,
        manifest,
        manifest_bytes,
        manifest_sha256,
        bytes,
        total_bytes,
        duration_us,
        last,
    } = question
    else {
        unreachable!("only decisions are asked for here")
    };
    Ok(EpochDecision {
        job_id: asker.job_id,
        run_id: asker.run_id,
        generation: asker.generation,
        term: app.term,
        epoch: *epoch as i64,
        previous: previous.map(|epoch| epoch as i64),
        nonce: nonce.parse().map_err(|error| format!("'{nonce}' is no nonce: {error}"))?,
        manifest: manifest.clone(),
        manifest_sha256: manifest_sha256.clone(),
        reserve: RESERVED,
        bytes: *bytes as i64,
        total_bytes: *total_bytes as i64,
        duration_ms: (duration_us / 1000).max(0),
        last: *last,
        facts: json!({ "manifest_bytes": manifest_bytes }),
        at: crate::time::now(),
    })
}

/// Where the next attempt of a run goes on: the newest epoch that its attempts have decided, or else the one that the run began from.
pub async fn resume(app: &App, run: &Run) -> Result<CheckpointSpec, MetadataError> {
    let filter = EpochFilter {
        job_id: run.job_id,
        run_id: Some(run.run_id),
        states: vec!["decided".into(), "committed".into()],
    };
    let mut newest = app.store.epochs(&filter, EpochPage { after: None, limit: 1 }).await?.pop();
    if let (None, Some(base)) = (&newest, run.base_epoch) {
        newest = Some(app.store.epoch(run.job_id, base).await?);
    }
    let first_epoch = app.store.reserve_epochs(run.run_id, run.generation, app.term, RESERVED).await?;
    Ok(CheckpointSpec {
        job_id: IdKind::Job.text(run.job_id),
        place: place(app),
        first_epoch: first_epoch as u64,
        restore: newest.as_ref().map(restore),
    })
}

/// The epoch of a manifest that lies above all numbers that any attempt was given: the store is older than what it describes.
pub async fn unknown_manifest(app: &App, run: &Run, spec: &CheckpointSpec) -> Result<Option<u64>, Failure> {
    let files = LocalFiles::new(place(app));
    let listed = files.list(&Manifest::directory(&IdKind::Job.text(run.job_id))).await;
    let listed = listed.map_err(|error| super::our_failure("checkpoint_storage", error.to_string()))?;
    let newest = listed.iter().filter_map(|file| Manifest::epoch_of(&file.path)).max();
    Ok(newest.filter(|epoch| *epoch >= spec.first_epoch))
}

/// The directory of all checkpoints.
pub fn place(app: &App) -> PathBuf {
    app.config.data.join("checkpoints")
}

fn restore(epoch: &Epoch) -> RestoreSpec {
    RestoreSpec {
        epoch: epoch.epoch as u64,
        manifest: epoch.manifest.clone(),
        bytes: epoch.facts["manifest_bytes"].as_u64().unwrap_or_default(),
        sha256: epoch.manifest_sha256.clone(),
        committed: epoch.state == "committed",
    }
}
