//! Deletes what checkpoints of a job have left behind and nobody needs: does what [`Collection`] says.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use api::IdKind;
use control::epochs::GuardedReply;
use control::epochs::collection::{Collection, Effect, Event, Names, Object, Policy, Row, RowState};
use metadata::{EpochFilter, EpochPage, MetadataError, Page, SavepointFilter};
use state::{Files, Manifest};
use uuid::Uuid;

use crate::app::App;

/// Committed checkpoints that stay.
const KEPT: usize = 3;
/// What is younger stays, whatever is known of it.
const GRACE: Duration = Duration::from_secs(60);
/// Newest epochs that are looked at. Older ones are retired, and their manifests gone.
const ROWS: i64 = 1_000;

/// One round over the checkpoints of a job, on behalf of an attempt that began with epoch `first`. What goes wrong is for the next one.
///
/// Numbers of epochs are never used twice in a job, and stand in every name. So what is below `first` was made by an attempt that is over,
/// and this stays true however long the round takes.
pub async fn collect(app: &App, job_id: Uuid, first: u64) {
    let round = Round { app, job_id, job: IdKind::Job.text(job_id), files: &*app.checkpoints, first };
    match round.run().await {
        Ok(0) => {}
        Ok(deleted) => tracing::debug!(job = round.job, deleted, "files of old checkpoints were deleted"),
        Err(why) => tracing::warn!(job = round.job, why, "files of old checkpoints were not deleted"),
    }
}

/// Removes all checkpoints of a job that was deleted. What cannot be removed now is in nobody's way.
pub async fn remove_checkpoints(app: App, job: String) {
    let removed = async {
        for file in app.checkpoints.list(&job).await? {
            app.checkpoints.remove(&file.path).await?;
        }
        Ok::<_, state::FileError>(())
    };
    if let Err(error) = removed.await {
        tracing::warn!(job, %error, "checkpoints of a deleted job stay");
    }
}

struct Round<'a> {
    app: &'a App,
    job_id: Uuid,
    job: String,
    files: &'a dyn Files,
    first: u64,
}

impl Round<'_> {
    async fn run(&self) -> Result<usize, String> {
        let policy = Policy { keep: KEPT, grace_us: GRACE.as_micros() as i64 };
        let (mut collection, mut effect) = Collection::new(policy);
        let mut rows = Vec::new();
        let mut why = String::new();
        loop {
            let event = match effect {
                Effect::ReadRows => self.rows().await.map(|(read, pinned)| {
                    rows.clone_from(&read);
                    Event::Rows { rows: read.iter().map(|(row, _)| *row).collect(), pinned, generation: self.first }
                }),
                Effect::Retire { epochs } => {
                    faults::pass("collect.before");
                    let numbers: Vec<i64> = epochs.iter().map(|epoch| *epoch as i64).collect();
                    let retired =
                        self.app.store.retire_epochs(self.job_id, &numbers, self.app.term, crate::time::now());
                    Ok(Event::Retired(match retired.await {
                        Ok(()) => GuardedReply::Done,
                        Err(MetadataError::Fenced { .. } | MetadataError::Owned(_)) => GuardedReply::Fenced,
                        Err(error) => {
                            why = error.to_string();
                            GuardedReply::Unknown
                        }
                    }))
                }
                Effect::ReadManifests { retained, retired } => self.manifests(&rows, &retained, &retired).await,
                // The store says what is not needed any more; all files are still there.
                Effect::List => {
                    faults::pass("collect.retired");
                    self.list().await.map(Event::Listed)
                }
                Effect::Delete { objects } => self.delete(&objects).await.map(|()| Event::Deleted),
                Effect::Done { deleted } => return Ok(deleted),
                Effect::Stop if why.is_empty() => return Ok(0),
                Effect::Stop => return Err(why),
            };
            let event = event.unwrap_or_else(|error| {
                why = error;
                Event::Failed
            });
            effect = collection.step(event).ok_or("the collection came to no end")?;
        }
    }

    /// The epochs with the paths of their manifests, and what is pinned.
    async fn rows(&self) -> Result<(Vec<(Row, String)>, BTreeSet<u64>), String> {
        let store = &self.app.store;
        let failed = |error: MetadataError| error.to_string();
        let filter = EpochFilter { job_id: self.job_id, run_id: None, states: Vec::new() };
        let epochs = store.epochs(&filter, EpochPage { after: None, limit: ROWS }).await.map_err(failed)?;
        let running = SavepointFilter { job_id: Some(self.job_id), name: None, states: vec!["running".into()] };
        let savepoints = store.savepoints(&running, Page { after: None, limit: ROWS }).await.map_err(failed)?;
        let mut pinned: BTreeSet<u64> =
            savepoints.iter().filter_map(|savepoint| savepoint.epoch).map(|epoch| epoch as u64).collect();
        let job = store.job(self.job_id).await.map_err(failed)?;
        let newest = match job.latest_run {
            Some(run_id) => Some(store.run(run_id).await.map_err(failed)?),
            None => None,
        };
        pinned.extend(newest.iter().filter_map(|run| run.base_epoch).map(|epoch| epoch as u64));
        let mut epochs = epochs;
        // However old: what is pinned names files that are needed.
        for epoch in &pinned {
            if !epochs.iter().any(|row| row.epoch == *epoch as i64) {
                epochs.push(store.epoch(self.job_id, *epoch as i64).await.map_err(failed)?);
            }
        }
        let state = |state: &str| match state {
            "decided" => RowState::Decided,
            "committed" => RowState::Committed,
            _ => RowState::Retired,
        };
        let rows = epochs
            .into_iter()
            .map(|epoch| (Row { epoch: epoch.epoch as u64, state: state(&epoch.state) }, epoch.manifest));
        Ok((rows.collect(), pinned))
    }

    async fn manifests(
        &self,
        rows: &[(Row, String)],
        retained: &[u64],
        retired: &[u64],
    ) -> Result<Event<String>, String> {
        let path = |epoch: &u64| rows.iter().find(|(row, _)| row.epoch == *epoch).map(|(_, path)| path.clone());
        let listed = self.files.list(&Manifest::directory(&self.job)).await.map_err(|error| error.to_string())?;
        let there: BTreeSet<String> = listed.into_iter().map(|file| file.path).collect();
        let read = async |epochs: &[u64]| {
            let mut names = Vec::new();
            for (epoch, path) in epochs.iter().filter_map(|epoch| Some((*epoch, path(epoch)?))) {
                if !there.contains(&path) {
                    // A retired one may be gone; without one that is retained nothing can be told from what is needed.
                    match retired.contains(&epoch) {
                        true => continue,
                        false => return Err(format!("the manifest {path} of a checkpoint that is kept is missing")),
                    }
                }
                let Some(bytes) = self.files.read(&path).await.map_err(|error| error.to_string())? else { continue };
                let manifest =
                    Manifest::from_bytes(&path, &bytes, &self.job, epoch).map_err(|error| error.to_string())?;
                let mut objects: Vec<String> = manifest.files().into_iter().map(|file| file.path.clone()).collect();
                objects.push(path);
                names.push(Names { epoch, objects });
            }
            Ok::<_, String>(names)
        };
        let mut kept = read(retained).await?;
        if faults::broken("collect_one_too_many") {
            // As if the oldest that is kept were none.
            kept.sort_by_key(|names| names.epoch);
            kept.iter_mut().take(1).for_each(|names| names.objects.clear());
        }
        Ok(Event::Manifests { retained: kept, retired: read(retired).await? })
    }

    async fn list(&self) -> Result<Vec<Object<String>>, String> {
        let listed = self.files.list(&self.job).await.map_err(|error| error.to_string())?;
        let manifests = format!("{}/", Manifest::directory(&self.job));
        let now = SystemTime::now();
        let object = |file: state::files::Listed| Object {
            is_manifest: file.path.starts_with(&manifests),
            age_us: now.duration_since(file.modified).map_or(0, |age| age.as_micros() as i64),
            generation: epoch_of(&file.path),
            name: file.path,
        };
        Ok(listed.into_iter().map(object).collect())
    }

    async fn delete(&self, objects: &[String]) -> Result<(), String> {
        for name in objects {
            faults::reach("collect.half").await.map_err(|injected| injected.to_string())?;
            self.files.remove(name).await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// The epoch for which a file was made, by its name.
fn epoch_of(path: &str) -> Option<u64> {
    Manifest::epoch_of(path).or_else(|| path.rsplit('/').next()?.get(..20)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_for_which_epoch_it_was_made() {
        assert_eq!(epoch_of("job_1/state/00000000000000000012-g3-w0-window-0198aa"), Some(12));
        assert_eq!(epoch_of("job_1/epochs/00000000000000000013.json"), Some(13));
        assert_eq!(epoch_of("job_1/epochs/00000000000000000013.json.7-1.unfinished"), Some(13));
    }
}
