//! One attempt of a run, led from this process: freezes the splits, starts the processes, lets the [`Leader`] open epochs, commits.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use graph::StateBackend;
use serde::{Deserialize, Serialize};
use state::manifest::Manifest;
use state::{Files, MemoryStore};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot, watch};

use super::commits::{CommitOrder, CommitTask, abort, start_committers};
use super::durable::{Checkpoints, Durable, Uploads};
use super::ingest::now_us;
use super::leader::{Effect, Event, Facts, Leader, SinkFacts};
use super::manifests::{Manifests, Named, Written};
use super::messages::{Assignment, FromWorker, Input, ToWorker};
use super::metrics::{Metrics, OperatorCounts, ProcessCounts};
use super::net::Identity;
use super::progress::{self, Positions, Progress, SplitProgress};
use super::published::Published;
use super::recover::{Recovered, RestorePoint, recover};
use super::splits::freeze;
use super::start::{Attempt, Beginning, with_status};
use super::tail::Tails;
use super::totals::Totals;
use super::worker::{Restore, Shared};
use crate::Connectors;
use crate::error::{Fault, Result, RunError};
use crate::operators::disk::Disk;
use crate::plan::{Plan, StageKind};
use crate::sink::{Sink, SinkContext};
use crate::source::{Source, SourceHints, Waiting};

/// What to run.
#[derive(Clone)]
pub struct RunRequest {
    pub run_id: String,
    /// Number of the attempt, from 1.
    pub generation: u64,
    pub graph: graph::Graph,
    pub settings: graph::Settings,
    /// Where to go on: the newest decided epoch, and those before it that may take its place, newest first. None begins afresh.
    pub restore: Vec<RestorePoint>,
    /// The number of the first epoch; above every one that an attempt before may have used.
    pub first_epoch: u64,
    /// Where splits begin, by source and split id; one that is not named begins as its table says.
    pub start: Positions,
    /// End after this epoch with a checkpoint of it.
    pub stop_after: Option<u64>,
}

/// Asks a run for a checkpoint now. The answer is its epoch; `None` if there will be none.
pub type CheckpointRequest = oneshot::Sender<Option<u64>>;

/// How to end a run from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verb {
    #[default]
    Run,
    /// Commit everything up to a cut and end; windows stay open.
    Stop,
    /// Treat the input as ended: windows fire, everything is committed.
    Drain,
    /// End at once; nothing more is committed.
    Cancel,
}

/// A run that ended well.
#[derive(Debug)]
pub struct Outcome {
    /// Ended by itself or drained; else it was stopped and can go on.
    pub finished: bool,
    pub epoch: u64,
    pub counts: Vec<OperatorCounts>,
    /// The last checkpoint, if there are any: what the run can go on from, with any parallelism.
    pub checkpoint: Option<Manifest>,
}

/// Starts a further process of an attempt.
pub type Launcher = Box<dyn Fn(&Launch) -> std::io::Result<tokio::process::Child> + Send + Sync>;

/// What a run needs from around it.
pub struct Surroundings {
    pub connectors: Arc<dyn Connectors>,
    /// Starts process `index` (from 1) of the attempt; it must call [`super::process::join_attempt`] with what the launch says.
    pub launch: Option<Launcher>,
    pub verb: watch::Receiver<Verb>,
    pub progress: watch::Sender<Progress>,
    /// Where checkpoints are kept, if they are.
    pub durable: Option<Durable>,
    /// Who asks for checkpoints beside those that the settings say.
    pub asked: Option<UnboundedReceiver<CheckpointRequest>>,
}

/// How a further process finds its attempt. The token is a secret: hand it over by environment or pipe, not by argument.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    pub control: SocketAddr,
    pub identity: Identity,
    /// How long the leader may be silent before the process ends by itself.
    pub heartbeat_timeout: Duration,
}

/// From the leader to a further process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToProcess {
    Start(Box<Start>),
    Worker(ToWorker),
    /// The heartbeat.
    Alive,
}

/// All that a further process needs to take part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    pub addresses: Vec<SocketAddr>,
    pub graph: graph::Graph,
    pub settings: graph::Settings,
    pub assignment: Assignment,
    pub first_epoch: u64,
    pub now_us: i64,
    /// The job's id, if checkpoints are kept.
    pub job: Option<String>,
    pub restore: Option<Manifest>,
}

/// From a further process to the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromProcess {
    Hello {
        identity: Identity,
        data: SocketAddr,
    },
    Worker(FromWorker),
    /// Also the heartbeat; empty until the process takes part.
    Counts(ProcessCounts),
    Tails(Tails),
    /// The last words of a process that was let go: what it counted in all.
    Left(ProcessCounts),
}

/// Runs an attempt to its end. Nothing is left running when this returns.
pub async fn run(request: RunRequest, around: Surroundings) -> Result<Outcome> {
    let settings = &request.settings;
    let (threads, processes) = (settings.parallelism as usize, settings.processes as usize);
    let workers = threads * processes;
    let plan = Arc::new(crate::plan::plan(&request.graph, settings, workers)?);
    let opened = open(&plan, &around.connectors, &request.run_id, around.durable.is_some())?;
    let mut committers = opened.sinks.iter().map(|sink| sink.committer()).collect::<Result<Vec<_>>>()?;
    let stages = progress::stages(&plan, &request.graph);
    around.progress.send_modify(|progress| progress.stages = stages.clone());
    let waiting = {
        let progress = around.progress.clone();
        Waiting::new(move |what| progress.send_modify(|progress| progress.waiting_for = what))
    };
    let recovered = match &around.durable {
        None if request.restore.is_empty() => None,
        None => return Err(RunError::internal("a checkpoint is to be restored, and there is no place for any")),
        Some(durable) => {
            let attempt = (request.generation, request.first_epoch);
            tokio::select! {
                recovered = recover(durable, &request.restore, attempt, &mut committers, &plan, &waiting) => recovered?,
                () = wanted(around.verb.clone(), &[Verb::Cancel]) => return Err(cancelled()),
            }
        }
    };
    let (checkpoint, restore) = recovered.map(|Recovered { manifest, state }| (manifest, state)).unzip();
    if let Some(checkpoint) = checkpoint.clone().filter(|checkpoint| checkpoint.last) {
        // Everything is out: only nobody was told.
        let epoch = checkpoint.epoch;
        return Ok(Outcome { finished: true, epoch, counts: Vec::new(), checkpoint: Some(checkpoint) });
    }
    let frozen = freeze(&plan, &opened.sources, &request.start, checkpoint.as_ref(), &waiting);
    let assignment = tokio::select! {
        frozen = frozen => frozen?,
        () = wanted(around.verb.clone(), &[Verb::Cancel]) => return Err(cancelled()),
        () = drained_in_vain(around.verb.clone(), around.progress.subscribe()) => return Err(cancelled()),
    };
    let start = Arc::new(progress::start_positions(&assignment, &opened.sources));
    let expected_rows = assignment
        .sources
        .iter()
        .flat_map(|source| source.splits.values())
        .map(|(split, _)| split.rows)
        .sum::<Option<u64>>();
    let splits = progress::begun(&assignment);
    let shown = progress::splits(&splits, &BTreeMap::new());
    let begun = Progress { expected_rows, splits: shown, start, stages, ..Progress::default() };
    around.progress.send_replace(begun.clone());

    let (inputs, mut input) = unbounded_channel();
    let (from_workers, worker_messages) = unbounded_channel();
    let first_epoch = request.first_epoch;
    let began_us = now_us();
    let metrics = Arc::new(Metrics::new(plan.stages.len(), threads));
    let restore = match restore.zip(around.durable.as_ref()) {
        Some((store, durable)) => Some(suited(store, &*durable.files, settings).await?),
        None => None,
    };
    let disk = disk(settings, &plan, around.durable.as_ref().map(|durable| durable.files.clone()))?;
    let shared = Shared {
        settings: settings.clone(),
        assignment: assignment.clone(),
        generation: request.generation,
        first_epoch,
        now_us: began_us,
        uploads: around.durable.as_ref().map(|durable| Uploads {
            place: durable.place(request.generation),
            tokio: tokio::runtime::Handle::current(),
            leader: from_workers.clone(),
        }),
        restore: Restore::new(restore, threads),
        disk,
        sources: opened.sources,
        sinks: opened.sinks,
        metrics: metrics.clone(),
        budget: Arc::new(Semaphore::new(budget(settings))),
        budget_bytes: budget(settings),
        tokio: tokio::runtime::Handle::current(),
        leader: from_workers,
        plan: plan.clone(),
    };
    if checkpoint.is_some() {
        faults::reach("restore.ready").await?;
    }
    let beginning = Beginning {
        request: &request,
        checkpoint: &checkpoint,
        assignment: &assignment,
        first_epoch,
        now_us: began_us,
    };
    let started = tokio::select! {
        started = Attempt::start(beginning, &around, shared, &inputs, &mut input) => started,
        () = wanted(around.verb.clone(), &[Verb::Cancel]) => Err(cancelled()),
    };
    let mut attempt = match started {
        Ok(attempt) => attempt,
        Err(error) => {
            if checkpoint.is_none() {
                abort(&mut committers).await;
            }
            return Err(error);
        }
    };
    forward(worker_messages, inputs.clone());

    let facts = Facts {
        sources: plan.stages.iter().filter(|stage| matches!(stage.kind, StageKind::Source(_))).count(),
        workers,
        sinks: (attempt.commits.iter().zip(plan.sources_of_sinks()))
            .map(|(commits, sources)| SinkFacts { commits: *commits, sources })
            .collect(),
        snapshots: if around.durable.is_some() {
            plan.stages.iter().filter(|stage| stage.kind.has_state()).count()
        } else {
            0
        },
        bounded: plan.bounded,
        first_epoch,
        epoch_interval_us: settings.epoch_interval.us,
        checkpoint_interval_us: settings.checkpoint_interval.us,
        decided: checkpoint.as_ref().map(|checkpoint| checkpoint.epoch),
        stop_after: request.stop_after,
    };
    let checkpoints = around.durable.clone().map(|durable| {
        // What was a savepoint is in no line of epochs.
        let of_savepoint = |epoch| request.restore.iter().any(|point| point.savepoint && point.epoch == epoch);
        let previous = checkpoint.as_ref().map(|checkpoint| checkpoint.epoch).filter(|epoch| !of_savepoint(*epoch));
        let mut checkpoints = Checkpoints::new(durable.clone(), request.generation, previous, committers.len());
        checkpoints.have(checkpoint.as_ref());
        let named = Named { job: &durable.job, run: &request.run_id, generation: request.generation };
        (checkpoints, Manifests::of(named, &request.graph, &plan, checkpoint.as_ref(), workers))
    });
    let (checkpoints, manifests) = checkpoints.unzip();
    let totals = Totals::new(&plan, workers, first_epoch, checkpoint.as_ref(), around.durable.is_some());
    let mut led = Led {
        manifests,
        last_checkpoint: checkpoint.clone(),
        checkpoint_ordered: false,
        leader: Leader::new(facts, now_us()),
        early: std::mem::take(&mut attempt.early),
        attempt,
        commits: start_committers(committers, &plan, checkpoints, inputs),
        counts: BTreeMap::new(),
        progress: Progress { running: true, ..begun },
        waiting: BTreeMap::new(),
        published: Published::new(&plan, workers, &totals),
        totals,
        metrics,
        plan,
        assignment,
        splits,
        splits_moved: false,
        tails: Tails::default(),
        tails_moved: false,
        threads,
        processes,
        ended: 0,
        lost: None,
    };
    let result = match led.lead(&mut input, around.verb, around.asked, &around.progress).await {
        Ok(ended) => {
            led.leave(&mut input).await;
            Ok(ended)
        }
        Err(error) => Err(led.cause(error, &mut input).await),
    };
    let failed = result.is_err();
    led.see_all();
    let Led { attempt, commits, mut published, mut progress, last_checkpoint, checkpoint_ordered, .. } = led;
    attempt.end(failed).await;
    // What a checkpoint refers to is needed by the next attempt, also if nobody has heard yet whether it was decided.
    commits.end(failed, last_checkpoint.is_none() && !checkpoint_ordered).await;
    // A commit that was under way has come to its end, whatever ended the run.
    while let Ok(heard) = input.try_recv() {
        if let Input::Committed { epoch, result: Ok(_) } = heard {
            published.committed(epoch);
        }
    }
    published.show(&mut progress);
    let counts = progress.counts.clone();
    around.progress.send_replace(progress);
    let ended = result?;
    Ok(Outcome { finished: ended.finished, epoch: ended.epoch, counts, checkpoint: last_checkpoint })
}

fn budget(settings: &graph::Settings) -> usize {
    (settings.in_flight_bytes as usize).min(u32::MAX as usize)
}

/// The sources and sinks of a plan, opened, in the order of its stages.
pub(crate) struct Opened {
    pub sources: Vec<Arc<dyn Source>>,
    pub sinks: Vec<Arc<dyn Sink>>,
}

pub(crate) fn open(plan: &Plan, connectors: &Arc<dyn Connectors>, run_id: &str, durable: bool) -> Result<Opened> {
    let mut opened = Opened { sources: Vec::new(), sinks: Vec::new() };
    for stage in &plan.stages {
        match &stage.kind {
            StageKind::Source(source) => {
                let hints = SourceHints {
                    columns: source.read.clone(),
                    time_column: source.time.as_ref().and_then(|time| time.read_column.clone()),
                    pushed: source.pushed.clone(),
                };
                let made = connectors.source(&source.node, hints).map_err(|error| error.operator(&stage.operator))?;
                opened.sources.push(made);
            }
            StageKind::Sink(sink) => {
                let context = SinkContext {
                    run_id: run_id.to_string(),
                    bounded: plan.bounded,
                    updating: stage.updating,
                    stateless: plan.is_stateless_before(stage),
                    operator: stage.operator.clone(),
                    durable,
                };
                let made = connectors
                    .sink(sink, expr::arrow_schema(&stage.schema), context)
                    .map_err(|error| error.operator(&stage.operator))?;
                opened.sinks.push(made);
            }
            _ => {}
        }
    }
    Ok(opened)
}

fn cancelled() -> RunError {
    RunError::user("cancelled", "the run was cancelled")
}

/// Ends when the run is to end in one of these ways; never, if nobody can want that any more.
async fn wanted(mut verb: watch::Receiver<Verb>, ways: &[Verb]) {
    if verb.wait_for(|verb| ways.contains(verb)).await.is_err() {
        std::future::pending().await
    }
}

/// Sources that are drained before they have begun have so long to begin.
const ABOUT_TO_BEGIN: Duration = Duration::from_secs(2);

/// Ends when the run is to be drained, or stopped where it can go on, while its sources wait for something: what is not there cannot be
/// drained, and nothing was read that one could go on from. Sources that are about to begin are read.
async fn drained_in_vain(mut verb: watch::Receiver<Verb>, mut progress: watch::Receiver<Progress>) {
    if verb.wait_for(|verb| matches!(verb, Verb::Drain | Verb::Stop)).await.is_err() {
        return std::future::pending().await;
    }
    let waits = progress.wait_for(|progress| progress.waiting_for.is_some());
    // Not every source says that it waits.
    drop(tokio::time::timeout(ABOUT_TO_BEGIN, waits).await);
}

fn forward(mut messages: UnboundedReceiver<FromWorker>, inputs: UnboundedSender<Input>) {
    tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            if inputs.send(Input::Worker(message)).is_err() {
                return;
            }
        }
    });
}

/// The state that a run goes on from: as rows where operators keep theirs in memory.
pub(super) async fn suited(
    store: Arc<MemoryStore>,
    files: &dyn Files,
    settings: &graph::Settings,
) -> Result<Arc<MemoryStore>> {
    if settings.state_backend != StateBackend::Memory || !store.has_stored() {
        return Ok(store);
    }
    let tables = Disk::new(LOAD_CACHE_BYTES, 0, None, tokio::runtime::Handle::current())?;
    Ok(Arc::new(store.as_rows(files, &tables.scratch(), tables.memory()).await?))
}

/// For blocks of tables that are read once.
const LOAD_CACHE_BYTES: usize = 32 << 20;

/// What the operators of this process share whose state is on disk.
pub(super) fn disk(
    settings: &graph::Settings,
    plan: &Plan,
    files: Option<Arc<dyn Files>>,
) -> Result<Option<Arc<Disk>>> {
    let operators = plan.stages.iter().filter(|stage| stage.kind.may_be_on_disk()).count();
    let instances = operators * settings.parallelism as usize;
    Disk::of(settings, instances, files, tokio::runtime::Handle::current())
}

/// How an attempt ended.
struct Ended {
    finished: bool,
    epoch: u64,
}

/// The leader with its hands and ears.
struct Led {
    leader: Leader,
    /// Inputs from before the beginning.
    early: VecDeque<Input>,
    attempt: Attempt,
    commits: CommitTask,
    /// If checkpoints are kept.
    manifests: Option<Manifests>,
    /// What was committed last.
    last_checkpoint: Option<Manifest>,
    /// A manifest was handed to the commit task.
    checkpoint_ordered: bool,
    counts: BTreeMap<usize, ProcessCounts>,
    progress: Progress,
    /// By stage and worker, what its reader or writer waits for; without a worker, its commit.
    waiting: BTreeMap<(usize, Option<usize>), String>,
    published: Published,
    totals: Totals,
    metrics: Arc<Metrics>,
    plan: Arc<Plan>,
    assignment: Assignment,
    /// By number, as they began.
    splits: Vec<(u32, SplitProgress)>,
    /// Since the progress was brought up to date.
    splits_moved: bool,
    tails: Tails,
    tails_moved: bool,
    threads: usize,
    processes: usize,
    ended: usize,
    /// The process that was lost.
    lost: Option<usize>,
}

const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// A lost process and what its loss does to others are heard of within milliseconds of each other, in any order.
const CAUSE_PATIENCE: Duration = Duration::from_millis(100);

impl Led {
    async fn lead(
        &mut self,
        input: &mut UnboundedReceiver<Input>,
        mut verb: watch::Receiver<Verb>,
        mut asked: Option<UnboundedReceiver<CheckpointRequest>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Ended> {
        let mut show = tokio::time::interval(PROGRESS_INTERVAL);
        let mut obeyed = Verb::Run;
        loop {
            let tick = self.leader.next_tick_us();
            let wait = Duration::from_micros(tick.map_or(0, |tick| (tick - now_us()).max(1000)) as u64);
            let event = tokio::select! {
                biased;
                input = next(&mut self.early, input) => match self.hear(input)? {
                    Some(event) => event,
                    None => continue,
                },
                changed = verb.changed(), if obeyed != Verb::Cancel => {
                    let wanted = *verb.borrow_and_update();
                    if changed.is_err() || wanted == obeyed {
                        obeyed = if changed.is_err() { Verb::Cancel } else { obeyed };
                        continue;
                    }
                    obeyed = wanted;
                    match wanted {
                        Verb::Run => continue,
                        Verb::Stop => Event::Stop,
                        Verb::Drain => {
                            faults::reach("drain.obeyed").await?;
                            self.attempt.order(ToWorker::Drain);
                            Event::Drain
                        }
                        // What is being published cannot be taken back: the run ends as it would have.
                        Verb::Cancel if self.published.decided => continue,
                        Verb::Cancel => {
                            faults::reach("stop.obeyed").await?;
                            return Err(cancelled());
                        }
                    }
                }
                Some(request) = asked_for(&mut asked) => {
                    let epoch = self.manifests.as_ref().and_then(|_| self.leader.asked_epoch());
                    // Who has asked may be gone; the checkpoint is made all the same.
                    let _ = request.send(epoch);
                    match epoch {
                        Some(_) => Event::Checkpoint,
                        None => continue,
                    }
                }
                _ = show.tick() => {
                    self.see_all();
                    progress.send_replace(self.progress.clone());
                    Event::Tick
                }
                _ = tokio::time::sleep(wait), if tick.is_some() => Event::Tick,
            };
            for effect in self.leader.step(event, now_us()) {
                match effect {
                    Effect::Cut(cut) => {
                        if cut.kind.checkpoint {
                            faults::reach("cut.begun").await?;
                        }
                        if cut.kind.last {
                            faults::reach("last.begun").await?;
                        }
                        self.attempt.order(ToWorker::Cut(cut));
                    }
                    Effect::Commit { epoch, kind, sinks, cut } => {
                        if kind.checkpoint {
                            faults::reach("acks.complete").await?;
                        }
                        self.published.ordered(kind, &sinks);
                        let manifest = self.manifests.as_mut().zip(cut).map(|(manifests, cut)| {
                            let (mut manifest, operators) = manifests.make(epoch, kind.last, &self.assignment, &cut);
                            manifest.counters = self.totals.counters(epoch, &self.plan, &self.published.ordered_rows());
                            (manifest, manifests.sinks.clone(), operators)
                        });
                        self.checkpoint_ordered |= manifest.is_some();
                        self.commits
                            .orders
                            .send(CommitOrder { epoch, kind, sinks, manifest })
                            .map_err(|_| RunError::internal("the commit task has ended"))?;
                    }
                    Effect::Finished => return Ok(Ended { finished: true, epoch: self.published.epoch }),
                    Effect::Stopped { epoch } => return Ok(Ended { finished: false, epoch }),
                }
            }
        }
    }

    /// Turns what came in into an event for the leader; failures end the run.
    fn hear(&mut self, input: Input) -> Result<Option<Event>> {
        Ok(Some(match input {
            Input::Counts { process, counts } | Input::Left { process, counts } => {
                self.counts.insert(process, counts);
                return Ok(None);
            }
            Input::Tails(newer) => {
                self.tails.add(newer);
                self.tails_moved = true;
                return Ok(None);
            }
            Input::Lost { process, error } => {
                self.lost = Some(process);
                return Err(error);
            }
            Input::Waiting { stage, what } => {
                self.waits((stage, None), what);
                return Ok(None);
            }
            Input::Committed { epoch, result } => {
                if let Some(manifest) = result? {
                    self.last_checkpoint = Some(*manifest);
                }
                self.published.committed(epoch);
                self.progress.complete = epoch;
                self.splits_moved = true;
                Event::Committed { epoch }
            }
            Input::Worker(message) => match message {
                FromWorker::CutWanted { epoch } => Event::CutWanted { epoch },
                FromWorker::SourceFinished { source, worker } => Event::SourceFinished { source, worker },
                FromWorker::Cut(report) => Event::Cut(report),
                FromWorker::Passed { worker, epoch, counts } => match self.totals.passed(worker, epoch, counts) {
                    Some(epoch) => Event::Passed { epoch },
                    None => return Ok(None),
                },
                FromWorker::Prepared { sink, worker, epoch, committable } => {
                    Event::Prepared { sink, worker, epoch, committable }
                }
                FromWorker::Snapshot { epoch, operator, part, whole, held } => {
                    faults::hit("acks.partial")?;
                    let manifests = self.manifests.as_mut().expect("snapshots are taken where checkpoints are kept");
                    tracing::debug!(epoch, operator, worker = part.worker, whole, ?held, "state is written");
                    manifests.snapshot(epoch, operator, Written { part, whole, held });
                    Event::Snapshot { epoch }
                }
                FromWorker::Waiting { stage, worker, what } => {
                    self.waits((stage, Some(worker)), what);
                    return Ok(None);
                }
                FromWorker::Failed(error) => return Err(error),
                FromWorker::Ended { .. } => {
                    self.ended += 1;
                    assert!(self.ended <= self.threads * self.processes, "a worker ends once");
                    return Ok(None);
                }
            },
        }))
    }

    fn waits(&mut self, who: (usize, Option<usize>), what: Option<String>) {
        match what {
            Some(what) => drop(self.waiting.insert(who, what)),
            None => drop(self.waiting.remove(&who)),
        }
        self.progress.waiting_for = self.waiting.values().next().cloned();
    }

    /// Lets the workers leave, and gets the last counters of the other processes.
    async fn leave(&mut self, input: &mut UnboundedReceiver<Input>) {
        let (counts, tails, moved) = (&mut self.counts, &mut self.tails, &mut self.tails_moved);
        let heard = |input| match input {
            Input::Counts { process, counts: now } | Input::Left { process, counts: now } => {
                counts.insert(process, now);
            }
            Input::Tails(newer) => {
                tails.add(newer);
                *moved = true;
            }
            _ => {}
        };
        self.attempt.leave(input, heard).await;
    }

    /// Why the run failed, given what was heard of first: that may be a symptom of a loss that is heard of next.
    async fn cause(&mut self, mut first: RunError, input: &mut UnboundedReceiver<Input>) -> RunError {
        let deadline = tokio::time::Instant::now() + CAUSE_PATIENCE;
        while self.lost.is_none() && self.attempt.has_others() && may_be_a_symptom(&first) {
            match tokio::time::timeout_at(deadline, next(&mut self.early, input)).await {
                Ok(Input::Lost { process, error }) => {
                    self.lost = Some(process);
                    first = error;
                }
                Ok(Input::Worker(FromWorker::Failed(error))) if met_broken_connection(&first) => first = error,
                Ok(Input::Committed { epoch, result: Ok(_) }) => self.published.committed(epoch),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        match self.lost {
            Some(process) => with_status(first, self.attempt.status(process).await),
            None => first,
        }
    }

    /// Brings the progress up to now.
    fn see_all(&mut self) {
        self.counts.insert(0, self.metrics.counts());
        let progress = &mut self.progress;
        progress.epoch = self.leader.epoch();
        progress.subtasks = progress::side_by_side(&self.plan, self.threads, self.processes, &self.counts);
        self.totals.show(&mut progress.subtasks);
        let stages = self.plan.stages.iter().zip(&progress.subtasks);
        progress.counts = stages.map(|(stage, subtasks)| OperatorCounts::of(&stage.operator, subtasks)).collect();
        self.published.show(progress);
        let newer = self.metrics.tails();
        if !newer.is_empty() {
            self.tails.add(newer);
            self.tails_moved = true;
        }
        if std::mem::take(&mut self.tails_moved) {
            progress.late = self.tails.late.as_slice().into();
            progress.dead = self.tails.dead.as_slice().into();
        }
        if std::mem::take(&mut self.splits_moved) {
            progress.splits = progress::splits(&self.splits, self.leader.complete());
        }
    }
}

async fn next(early: &mut VecDeque<Input>, input: &mut UnboundedReceiver<Input>) -> Input {
    match early.pop_front() {
        Some(input) => input,
        None => input.recv().await.expect("the commit task holds a sender"),
    }
}

/// The next request for a checkpoint; never, if nobody can ask.
async fn asked_for(asked: &mut Option<UnboundedReceiver<CheckpointRequest>>) -> Option<CheckpointRequest> {
    match asked {
        Some(open) => {
            let request = open.recv().await;
            if request.is_none() {
                *asked = None;
            }
            request
        }
        None => std::future::pending().await,
    }
}

/// Whether a lost process may be behind a failure that a worker has reported.
fn may_be_a_symptom(error: &RunError) -> bool {
    error.fault == Fault::Internal || error.code == "process_lost"
}

/// What workers panic with when timely's connection to a peer has broken.
pub(super) fn met_broken_connection(error: &RunError) -> bool {
    error.fault == Fault::Internal && error.message.contains("MergeQueue")
}
