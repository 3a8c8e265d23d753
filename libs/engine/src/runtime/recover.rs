//! What an attempt does before anything of it runs: does what [`Recovery`] says.
//!
//! The newest decided checkpoint is read and verified, every sink is brought to it, and that is recorded. One that is damaged gives way to
//! the one before if no sink can have published anything of it; else the attempt ends, and nothing was changed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use control::epochs::recovery::{Effect, EpochRow, Event, Known, Recovery, SinkRow};
use control::epochs::{GuardedReply, SinkReply};
use control::restart::Policy;
use futures::future::BoxFuture;
use state::manifest::{Manifest, ManifestError};
use state::{FileError, FileRef, MemoryStore};

use super::durable::{Durable, Verdict, fenced, halted};
use super::manifests::parts_of;
use crate::error::{Result, RunError};
use crate::plan::Plan;
use crate::sink::{CommitKind, SinkCommitter};
use crate::source::Waiting;

/// A decided epoch that an attempt may go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct RestorePoint {
    pub epoch: u64,
    /// The decided epoch before it, in the same line of runs.
    pub previous: Option<u64>,
    /// Whether all sinks are known to have committed it; else that is done again, which changes nothing where it was done.
    pub committed: bool,
    /// In the order of the plan's sinks: whether committing it does something there. Of another number of sinks nothing is known, and so
    /// each is taken to have published it.
    pub commits: Vec<bool>,
    /// It was made of a savepoint: nothing was decided before the epochs of this attempt, and its sinks begin anew.
    pub savepoint: bool,
    pub manifest: FileRef,
}

impl RestorePoint {
    /// One that every sink has committed.
    pub fn committed(manifest: &Manifest) -> RestorePoint {
        let file = FileRef::of(&Manifest::path(&manifest.job, manifest.epoch), &manifest.to_bytes());
        let Manifest { epoch, previous, .. } = *manifest;
        RestorePoint { epoch, previous, committed: true, commits: Vec::new(), savepoint: false, manifest: file }
    }
}

/// What an attempt goes on from: verified, committed in every sink, and recorded as that.
pub struct Recovered {
    pub manifest: Manifest,
    pub state: Arc<MemoryStore>,
}

/// How often a store that does not answer is asked for a checkpoint, about a minute in all.
const READ_TRIES: u32 = 30;

struct Recovering<'a> {
    durable: &'a Durable,
    points: &'a [RestorePoint],
    committers: &'a mut [Box<dyn SinkCommitter>],
    plan: &'a Plan,
    waiting: &'a Waiting,
    generation: u64,
    read: Option<Recovered>,
    /// What is told of a halt, better than the machine can.
    why: Option<RunError>,
}

/// `points` are the decided epochs that are not given up, newest first; none begins afresh. `first` is the first number of the attempt.
/// What takes long is said to be waited for.
///
/// # Errors
/// `checkpoint_corrupt`, `fenced`, `metadata_regressed`, and the failure of a sink.
pub async fn recover(
    durable: &Durable,
    points: &[RestorePoint],
    (generation, first): (u64, u64),
    committers: &mut [Box<dyn SinkCommitter>],
    plan: &Plan,
    waiting: &Waiting,
) -> Result<Option<Recovered>> {
    let sinks = committers.len();
    let known = Known {
        epochs: points.iter().map(|point| row(point, sinks)).collect(),
        older: None,
        first,
        // Who started the attempt has looked for newer ones.
        newest_manifest: None,
    };
    let (mut machine, effects) = Recovery::new(known, sinks);
    let mut effects = VecDeque::from(effects);
    let mut recovering = Recovering { durable, points, committers, plan, waiting, generation, read: None, why: None };
    let pauses = Policy { first_us: 20_000, longest_us: 2_000_000, ..Policy::default() };
    while let Some(effect) = effects.pop_front() {
        let event = match effect {
            Effect::Verify { epoch } => recovering.verify(epoch).await?,
            Effect::Recover { sink, .. } => recovering.sink(sink).await,
            Effect::Confirm { epoch } => {
                let reply = recovering.ask(durable.authority.confirm(epoch)).await;
                Event::Confirmation { epoch, reply }
            }
            Effect::Abandon { epoch } => {
                tracing::warn!(
                    epoch,
                    "a checkpoint is damaged, and nothing of it was published: the one before counts"
                );
                let reply = recovering.ask(durable.authority.abandon(epoch)).await;
                Event::Abandoned { epoch, reply }
            }
            Effect::AskGeneration => Event::Generation { reply: recovering.ask(durable.authority.is_newest()).await },
            Effect::Wait { tries } => {
                if let Some(error) = recovering.why.take_if(|_| tries > READ_TRIES) {
                    return Err(error);
                }
                tokio::time::sleep(Duration::from_micros(pauses.delay_us(tries).max(0) as u64)).await;
                Event::Retry
            }
            Effect::Start { from, .. } => {
                let read = recovering.read.filter(|read| from == Some(read.manifest.epoch));
                assert_eq!(read.is_some(), from.is_some(), "what an attempt goes on from was read");
                return Ok(read);
            }
            Effect::Halt { cause } => return Err(recovering.why.unwrap_or_else(|| halted(&cause))),
        };
        effects.extend(machine.step(event));
    }
    Err(RunError::internal("the recovery of an attempt came to no end"))
}

fn row(point: &RestorePoint, sinks: usize) -> EpochRow {
    let commits = |sink: usize| point.commits.len() != sinks || point.commits[sink];
    // What a sink had before, its committer knows from what it staged.
    let sink = |sink| SinkRow { commits: commits(sink), previous: None, had_earlier: false };
    let sinks = (0..sinks).map(sink).collect();
    EpochRow { epoch: point.epoch, previous: point.previous, committed: point.committed, sinks }
}

impl Recovering<'_> {
    async fn verify(&mut self, epoch: u64) -> Result<Event> {
        let point = self.points.iter().find(|point| point.epoch == epoch).expect("a known epoch is verified");
        let what = || format!("checkpoint {epoch} to be read");
        match self.waiting.during(what, read(self.durable, point)).await {
            Ok(read) => {
                (self.read, self.why) = (Some(read), None);
                Ok(Event::Verified { epoch })
            }
            // Nothing is wrong with it: another program has to go on.
            Err(error @ ManifestError::Format { .. }) => Err(error.into()),
            Err(error) => {
                tracing::warn!(%error, epoch, "a checkpoint cannot be read");
                let unanswered = matches!(&error, ManifestError::File(error) if !error.is_damage());
                let what = error.to_string();
                self.why = Some(error.into());
                Ok(if unanswered { Event::Unverified { epoch } } else { Event::Corrupt { epoch, what } })
            }
        }
    }

    /// Brings a sink to the checkpoint: whatever older attempts left open ends, and the epoch is proved or committed again.
    async fn sink(&mut self, sink: usize) -> Event {
        let (waiting, plan) = (self.waiting, self.plan);
        let name = plan.sinks().nth(sink).map_or("", |(_, stage)| &stage.operator);
        let what = || format!("sink '{name}' to end what an earlier attempt left open, and to show what was decided");
        let reply = match waiting.during(what, self.restore_sink(sink)).await {
            Ok(()) => SinkReply::Committed,
            Err(error) => {
                self.why = Some(error);
                SinkReply::Failed
            }
        };
        Event::Sink { sink, reply }
    }

    async fn restore_sink(&mut self, sink: usize) -> Result<()> {
        faults::reach("restore.sinks").await?;
        let place = self.durable.place(self.generation);
        let Some(Recovered { manifest, .. }) = &self.read else {
            self.committers[sink].keep(&place, None, &self.durable.authority);
            return Ok(());
        };
        let point = self.points.iter().find(|point| point.epoch == manifest.epoch).expect("what was read is known");
        let previous = if point.committed && !point.savepoint { Some(point.epoch) } else { point.previous };
        let committer = &mut self.committers[sink];
        committer.keep(&place, previous, &self.durable.authority);
        let Some(part) = parts_of(self.plan, manifest).nth(sink).flatten() else { return Ok(()) };
        let part = part?;
        let told = |error: RunError| error.operator(part.operator);
        committer.restore(manifest.epoch, part.staged.clone()).await.map_err(told)?;
        if point.committed || faults::broken("skip_commit_again") {
            return Ok(());
        }
        committer.watermark(manifest.epoch, part.watermark_us);
        let kind = CommitKind { checkpoint: true, last: manifest.last };
        committer.commit(manifest.epoch, kind, part.staged).await.map_err(told)?;
        Ok(faults::reach("restore.committed").await?)
    }

    async fn ask(&mut self, question: BoxFuture<'_, Verdict>) -> GuardedReply {
        let what = || "the server to say that this attempt may go on".to_string();
        match self.waiting.during(what, question).await {
            Verdict::Done => GuardedReply::Done,
            Verdict::Fenced(by) => {
                self.why = Some(fenced(by));
                GuardedReply::Fenced
            }
            Verdict::Unknown(_) => GuardedReply::Unknown,
        }
    }
}

/// Everything is read and checked before anything begins.
async fn read(durable: &Durable, point: &RestorePoint) -> Result<Recovered, ManifestError> {
    let manifest = Manifest::open(&*durable.files, &point.manifest, &durable.job, point.epoch).await?;
    faults::reach("restore.opened").await.map_err(FileError::from)?;
    let state = Arc::new(manifest.load(&*durable.files).await?);
    faults::reach("restore.loaded").await.map_err(FileError::from)?;
    Ok(Recovered { manifest, state })
}
