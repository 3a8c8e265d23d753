//! The task that commits: decides a checkpoint, lets every sink commit it, and has that recorded; one epoch at a time, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use control::attempt::OperatorCost;
use futures::future::BoxFuture;
use state::manifest::{Manifest, SinkPart};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::durable::{Checkpoints, CommitSinks};
use super::leader::SinkCommit;
use super::messages::Input;
use crate::error::Result;
use crate::plan::Plan;
use crate::sink::{CommitKind, Committable, SinkCommitter};
use crate::source::Waiting;

/// What is to be committed.
pub(super) struct CommitOrder {
    pub(super) epoch: u64,
    pub(super) kind: CommitKind,
    pub(super) sinks: BTreeMap<usize, SinkCommit>,
    /// To be decided before, still without its sinks; their names; and for how long its snapshots held up an operator, microseconds.
    pub(super) manifest: Option<(Manifest, Arc<[String]>, Vec<OperatorCost>)>,
}

/// The task, and how to end it.
pub(super) struct CommitTask {
    pub(super) orders: UnboundedSender<CommitOrder>,
    /// Nobody waits for a decision any more.
    give_up: watch::Sender<bool>,
    task: tokio::task::JoinHandle<Vec<Box<dyn SinkCommitter>>>,
}

impl CommitTask {
    /// Of a run that has failed, `aborts` says that nothing which was staged is needed any more.
    pub(super) async fn end(self, failed: bool, aborts: bool) {
        drop(self.orders);
        self.give_up.send_replace(failed);
        if let Ok(mut committers) = self.task.await
            && failed
            && aborts
        {
            abort(&mut committers).await;
        }
    }
}

pub(super) fn start_committers(
    mut committers: Vec<Box<dyn SinkCommitter>>,
    plan: &Plan,
    mut checkpoints: Option<Checkpoints>,
    inputs: UnboundedSender<Input>,
) -> CommitTask {
    let (orders, mut order) = unbounded_channel::<CommitOrder>();
    let (give_up, given_up) = watch::channel(false);
    if let Some(checkpoints) = &mut checkpoints {
        checkpoints.until(given_up);
    }
    let waits = plan.sinks().map(|(stage, sink)| {
        let inputs = inputs.clone();
        // The leader is gone only when the run is over.
        let waiting = Waiting::new(move |what| drop(inputs.send(Input::Waiting { stage, what })));
        (sink.operator.clone(), waiting)
    });
    let waits: Vec<(String, Waiting)> = waits.collect();
    let task = tokio::spawn(async move {
        while let Some(order) = order.recv().await {
            let epoch = order.epoch;
            let result = commit(&mut committers, &waits, checkpoints.as_mut(), order).await;
            let failed = result.is_err();
            if inputs.send(Input::Committed { epoch, result }).is_err() || failed {
                break;
            }
        }
        committers
    });
    CommitTask { orders, give_up, task }
}

/// Decides a checkpoint, lets every sink commit, and has that recorded.
async fn commit(
    committers: &mut [Box<dyn SinkCommitter>],
    waits: &[(String, Waiting)],
    checkpoints: Option<&mut Checkpoints>,
    order: CommitOrder,
) -> Result<Option<Box<Manifest>>> {
    let CommitOrder { epoch, kind, mut sinks, mut manifest } = order;
    if let Some((manifest, names, _)) = &mut manifest {
        for (sink, commit) in &mut sinks {
            faults::reach("stage.before").await?;
            committers[*sink].watermark(epoch, commit.watermark);
            commit.committables = committers[*sink].stage(epoch, std::mem::take(&mut commit.committables)).await?;
            manifest.sinks.push(SinkPart {
                operator: names[*sink].clone(),
                watermark_us: commit.watermark,
                committables: serde_json::to_value(&commit.committables).expect("committables are JSON"),
                files: commit.committables.iter().flat_map(|committable| committable.files.iter().cloned()).collect(),
            });
        }
        faults::reach("stage.after").await?;
    }
    // Whoever only flushes at an epoch's end stages nothing.
    let is_something = |staged: &Committable| !staged.payload.is_empty() || !staged.files.is_empty();
    let publishes = |sink: usize| sinks.get(&sink).is_some_and(|commit| commit.committables.iter().any(is_something));
    let published = (0..committers.len()).map(publishes).collect();
    let mut commits = Commits { committers, waits, epoch, kind, sinks };
    match checkpoints.zip(manifest) {
        Some((checkpoints, (manifest, _, operators))) => {
            let committed = checkpoints.commit(manifest, published, operators, &mut commits).await;
            committed.map(|manifest| Some(Box::new(manifest)))
        }
        None => {
            commits.commit_all().await?;
            Ok(None)
        }
    }
}

/// What is left to be committed of an epoch.
struct Commits<'a> {
    committers: &'a mut [Box<dyn SinkCommitter>],
    /// By sink: its name, and through what it is told that its commit takes long.
    waits: &'a [(String, Waiting)],
    epoch: u64,
    kind: CommitKind,
    sinks: BTreeMap<usize, SinkCommit>,
}

impl CommitSinks for Commits<'_> {
    fn commit(&mut self, sink: usize) -> BoxFuture<'_, Result<()>> {
        // A sink that has nothing to commit in this epoch has committed it.
        let Some(commit) = self.sinks.remove(&sink) else { return Box::pin(std::future::ready(Ok(()))) };
        let committer = &mut self.committers[sink];
        committer.watermark(self.epoch, commit.watermark);
        let ((name, waiting), epoch) = (&self.waits[sink], self.epoch);
        let committed = committer.commit(epoch, self.kind, commit.committables);
        Box::pin(waiting.during(move || format!("sink '{name}' to commit epoch {epoch}"), committed))
    }

    fn commit_all(&mut self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            for sink in 0..self.committers.len() {
                self.commit(sink).await?;
            }
            Ok(())
        })
    }
}

pub(super) async fn abort(committers: &mut [Box<dyn SinkCommitter>]) {
    for committer in committers {
        committer.abort().await;
    }
}
