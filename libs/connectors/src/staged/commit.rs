//! The commit of a decided checkpoint in a system with transactions: its logs and its epoch, the marker, in one of them.
//!
//! Nothing of an epoch is sent before it is decided, and a commit that was broken off is repeated from the logs: a new transaction of the same
//! sink fences what an older one left open, and then the marker says whether the epoch is there. [`MarkerCommit`] decides; [`Commits`] does
//! what it says, with a [`System`].

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::epochs::sinks::{Expect, MarkerCommit, MarkerEffect, MarkerEvent, Place as InHistory};
use control::epochs::{GuardedReply, SinkReply};
use engine::runtime::{Authority, Place, Verdict};
use engine::{CommitKind, Committable, RunError, SinkCommitter};
use futures::FutureExt;
use futures::future::BoxFuture;
use state::FileRef;

use super::{History, Staged, not_durable};

/// How long a commit is tried for.
const PATIENCE: Duration = Duration::from_secs(300);
/// For an answer to the question whether another attempt has taken over.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a commit is ended by another writer before it is left to that.
const FENCED_MAX: u32 = 5;
/// Between two tries: the first pause, and the longest.
pub const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));

/// Where a sink commits: what the steps of a commit are there.
pub trait System: Send + Sync + 'static {
    /// What holds a transaction, or can begin one. It is thrown away after anything but success: an end that was asked for may still arrive.
    type Open: Send + 'static;

    /// The table that is written, for messages.
    fn table_name(&self) -> &str;

    /// What is written to, such as `topic 't'`; what was staged for another is not sent.
    fn target(&self) -> String;

    /// Makes sure that no older writer of the sink can change the marker any more.
    fn open(self: &Arc<Self>, job: &str) -> impl Future<Output = Result<Self::Open, RunError>> + Send;

    /// The epoch that the sink shows, read after `open`.
    fn marker(
        self: &Arc<Self>,
        open: Self::Open,
        job: &str,
    ) -> impl Future<Output = Result<(Self::Open, Option<u64>), RunError>> + Send;

    /// The logs and the marker, in a transaction that is left open.
    fn send(
        self: &Arc<Self>,
        open: Self::Open,
        place: &Place,
        logs: &[LogFile],
        epoch: u64,
    ) -> impl Future<Output = Result<Self::Open, RunError>> + Send;

    fn end(self: &Arc<Self>, open: Self::Open) -> impl Future<Output = Result<Self::Open, RunError>> + Send;

    /// Nothing of the epoch is left to do with it.
    fn close(self: &Arc<Self>, open: Self::Open) -> impl Future<Output = ()> + Send;

    fn state_lost(&self, job: &str, epoch: u64, previous: Option<u64>, found: Option<u64>) -> RunError;

    /// The sink shows an epoch that this attempt does not know.
    fn overtaken(&self, epoch: u64, newer: u64) -> RunError;
}

/// A file of an epoch's log.
#[derive(Clone)]
pub struct LogFile {
    pub file: FileRef,
    pub records: u64,
}

/// The committer of one sink.
pub struct Commits<S> {
    system: Arc<S>,
    /// Where the logs are; `None` in a run without checkpoints.
    place: Option<Place>,
    authority: Option<Arc<dyn Authority>>,
    /// The epoch that the line of runs committed before this attempt.
    before: Option<u64>,
    /// The newest epoch that the sink itself has committed in this line of runs.
    previous: Option<u64>,
    /// The newest epoch that was committed here.
    shown: Option<u64>,
}

impl<S: System> Commits<S> {
    pub fn new(system: S) -> Commits<S> {
        Commits { system: Arc::new(system), place: None, authority: None, before: None, previous: None, shown: None }
    }

    /// The files of an epoch in their order, and what was said of the time before it.
    fn logs(&self, epoch: u64, committables: &[Committable]) -> Result<(Vec<LogFile>, Option<History>), RunError> {
        let (mut logs, mut history) = (Vec::new(), None);
        let target = self.system.target();
        for committable in committables {
            let Some(staged) = Staged::read(committable)? else { continue };
            if staged.target != target {
                let message = format!(
                    "table {}: checkpoint {epoch} holds records for {}, which are not committed yet, and the table names {target}",
                    self.system.table_name(),
                    staged.target,
                );
                return Err(RunError::user("sink_changed", message)
                    .hint("let the job commit them with the table as it was, then change it"));
            }
            history = history.or(staged.history);
            let files = committable.files.iter().cloned().zip(staged.records);
            logs.extend(files.map(|(file, records)| LogFile { file, records }));
        }
        Ok((logs, history))
    }

    /// Commits an epoch, however often that was tried before.
    async fn commit_epoch(&mut self, epoch: u64, committables: &[Committable]) -> Result<(), RunError> {
        if self.shown == Some(epoch) {
            return Ok(());
        }
        assert!(self.shown.is_none_or(|shown| shown < epoch), "epochs commit in order");
        if self.shown.is_none() && self.previous.is_some() && faults::broken("drop_log_replay") {
            return Ok(());
        }
        let system = self.system.clone();
        let place = self.place.clone().ok_or_else(|| not_durable(system.table_name()))?;
        let (logs, history) = self.logs(epoch, committables)?;
        let previous = match history {
            Some(history) if history.job == place.job => history.previous,
            // A new job begins a history of its own.
            Some(_) => None,
            None => self.previous,
        };
        let expect = InHistory {
            epoch,
            previous,
            // Below its first commit an attempt has used no number itself: what is there and not `previous` is of an older line of runs.
            older: self.shown.is_none().then(|| epoch.saturating_sub(1)),
            had_earlier: previous.is_some(),
            proved: false,
        };
        let mut open: Option<S::Open> = None;
        let (mut machine, mut effect) = MarkerCommit::new(Expect::Epoch(expect), false);
        let began = Instant::now();
        let (mut why, mut fences, mut found) = (None, 0, None);
        loop {
            // Nothing mends some errors.
            let mut event = |event: Result<MarkerEvent, RunError>, doubt: MarkerEvent| {
                event.unwrap_or_else(|error| {
                    tracing::warn!(table = system.table_name(), epoch, %error, "a commit is in doubt");
                    fences += u32::from(error.code == "fenced");
                    let hopeless = !error.is_retryable() || fences >= FENCED_MAX;
                    why = Some(error);
                    if hopeless { MarkerEvent::GiveUp } else { doubt }
                })
            };
            let none = || RunError::internal("a step of a commit comes before its transaction");
            let next = match effect {
                MarkerEffect::NewProducer => {
                    if let Some(old) = open.take() {
                        system.close(old).await;
                    }
                    let made = system.open(&place.job).await.map(|made| open = Some(made));
                    let made = made.and_then(|()| Ok(faults::hit("staged.open.after")?));
                    let ready = made.map(|()| MarkerEvent::Producer { ready: true });
                    event(ready, MarkerEvent::Producer { ready: false })
                }
                MarkerEffect::ReadMarker => {
                    let read = match open.take() {
                        Some(ready) => system.marker(ready, &place.job).await,
                        None => Err(none()),
                    };
                    let marker = read.map(|(ready, marker)| {
                        let marker = if faults::broken("disbelieve_marker") { previous } else { marker };
                        (open, found) = (Some(ready), marker);
                        MarkerEvent::Marker(marker)
                    });
                    event(marker, MarkerEvent::MarkerUnknown)
                }
                MarkerEffect::Send => {
                    faults::reach("staged.send.before").await?;
                    let sent = match open.take() {
                        Some(ready) => system.send(ready, &place, &logs, epoch).await,
                        None => Err(none()),
                    };
                    let sent = sent.and_then(|sent| Ok(faults::hit("staged.end.before").map(|()| sent)?));
                    let sent = sent.map(|sent| {
                        open = Some(sent);
                        MarkerEvent::Sent { ok: true }
                    });
                    event(sent, MarkerEvent::Sent { ok: false })
                }
                MarkerEffect::End => {
                    let ended = match open.take() {
                        Some(full) => system.end(full).await,
                        None => Err(none()),
                    };
                    let ended = ended.and_then(|ended| Ok(faults::hit("staged.end.after").map(|()| ended)?));
                    let ended = ended.map(|ended| {
                        open = Some(ended);
                        MarkerEvent::Ended { ok: true }
                    });
                    event(ended, MarkerEvent::Ended { ok: false })
                }
                MarkerEffect::Wait { tries } => {
                    if let Some(old) = open.take() {
                        system.close(old).await;
                    }
                    match began.elapsed() < PATIENCE {
                        true => {
                            let (first, longest) = PAUSE;
                            tokio::time::sleep((first * 2u32.pow(tries.min(9))).min(longest)).await;
                            MarkerEvent::Retry
                        }
                        false => MarkerEvent::GiveUp,
                    }
                }
                MarkerEffect::AskGeneration => MarkerEvent::Generation(self.is_newest().await),
                MarkerEffect::Done(reply) => {
                    if let Some(left) = open.take() {
                        system.close(left).await;
                    }
                    return match reply {
                        SinkReply::Committed => {
                            (self.shown, self.previous) = (Some(epoch), Some(epoch));
                            Ok(())
                        }
                        SinkReply::StateLost => Err(system.state_lost(&place.job, epoch, previous, found)),
                        SinkReply::Fenced(newer) => Err(system.overtaken(epoch, newer)),
                        SinkReply::Superseded => {
                            let message = format!("table {}: a newer attempt runs", system.table_name());
                            Err(RunError::external("fenced", message))
                        }
                        SinkReply::Failed => {
                            Err(why.unwrap_or_else(|| RunError::internal("a commit was given up without a cause")))
                        }
                    };
                }
            };
            effect = machine.step(next).ok_or_else(|| RunError::internal("a commit has come to no end"))?;
        }
    }

    /// Whether no other attempt has taken over. Without an answer the try is harmless, and the one after some ends.
    async fn is_newest(&self) -> GuardedReply {
        let Some(authority) = &self.authority else { return GuardedReply::Unknown };
        match tokio::time::timeout(ANSWER, authority.is_newest()).await {
            Ok(Verdict::Done) => GuardedReply::Done,
            Ok(Verdict::Fenced(_)) => GuardedReply::Fenced,
            Ok(Verdict::Unknown(_)) | Err(_) => GuardedReply::Unknown,
        }
    }

    /// Breaks a commit off when all is sent and the transaction is open, as a crash would; what is open is given back.
    #[cfg(test)]
    pub async fn break_off(&self, epoch: u64, committables: &[Committable]) -> S::Open {
        let place = self.place.clone().expect("a run with checkpoints");
        let (logs, _) = self.logs(epoch, committables).expect("logs");
        let open = self.system.open(&place.job).await.expect("a transaction can be begun");
        self.system.send(open, &place, &logs, epoch).await.expect("sent")
    }

    #[cfg(test)]
    pub fn system(&self) -> &Arc<S> {
        &self.system
    }
}

impl<S: System> SinkCommitter for Commits<S> {
    fn keep(&mut self, place: &Place, previous: Option<u64>, authority: &Arc<dyn Authority>) {
        self.place = Some(place.clone());
        self.authority = Some(authority.clone());
        self.before = previous;
    }

    /// What came before counts only where the sink was part of it, and for the same job.
    fn restore(&mut self, _: u64, staged: Vec<Committable>) -> BoxFuture<'_, Result<(), RunError>> {
        async move {
            let history = match staged.first() {
                Some(first) => Staged::read(first)?.and_then(|staged| staged.history),
                None => None,
            };
            let is_ours = |history: &History| self.place.as_ref().is_some_and(|place| place.job == history.job);
            self.previous = history.is_some_and(|history| is_ours(&history)).then_some(self.before).flatten();
            Ok(())
        }
        .boxed()
    }

    /// Says what the sink itself had before: what the marker means depends on that, and the next attempt cannot know it otherwise.
    fn stage(&mut self, _: u64, committables: Vec<Committable>) -> BoxFuture<'_, Result<Vec<Committable>, RunError>> {
        async move {
            let mut committables = committables;
            if let (Some(first), Some(place)) = (committables.first_mut(), &self.place)
                && let Some(staged) = Staged::read(first)?
            {
                let history = History { job: place.job.clone(), previous: self.previous };
                first.payload = Staged { history: Some(history), ..staged }.payload();
            }
            Ok(committables)
        }
        .boxed()
    }

    fn commit(
        &mut self,
        epoch: u64,
        _: CommitKind,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<(), RunError>> {
        async move { self.commit_epoch(epoch, &committables).await }.boxed()
    }

    /// What is not decided was never sent; its logs go with their checkpoint.
    fn abort(&mut self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
