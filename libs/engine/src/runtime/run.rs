//! One attempt of a run, led from this process: freezes the splits, starts the processes, lets the [`Leader`] open epochs, commits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use state::{MemoryStore, Snapshot};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, watch};

use super::clock::SplitState;
use super::ingest::now_us;
use super::leader::{Effect, Event, Facts, Leader, SinkCommit, SinkFacts};
use super::messages::{Assignment, FromWorker, SourceSplits, ToWorker};
use super::metrics::{Metrics, OperatorCounts, ProcessCounts};
use super::net::Identity;
use super::progress::{self, Positions, Progress, SplitProgress};
use super::start::{Attempt, Beginning, with_status};
use super::tail::Tails;
use super::time::WM_MIN;
use super::worker::Shared;
use crate::Connectors;
use crate::error::{Fault, Result, RunError};
use crate::plan::{Plan, StageKind};
use crate::sink::{CommitKind, Sink, SinkCommitter, SinkContext};
use crate::source::{Position, Source, SourceHints, Split, Waiting};

/// What to run.
#[derive(Clone)]
pub struct RunRequest {
    pub run_id: String,
    /// Number of the attempt, from 1.
    pub generation: u64,
    pub graph: graph::Graph,
    pub settings: graph::Settings,
    /// Where to go on; `None` begins afresh.
    pub restore: Option<Arc<Checkpoint>>,
    /// Where splits begin, by source and split id; one that is not named begins as its table says.
    pub start: Positions,
    /// Keep snapshots of checkpoint epochs in memory.
    pub checkpoints: bool,
    /// End after this epoch with a checkpoint of it; needs `checkpoints`.
    pub stop_after: Option<u64>,
}

/// A complete epoch from which a run can go on, with any parallelism. Held in memory.
#[derive(Debug, Default)]
pub struct Checkpoint {
    pub epoch: u64,
    /// The frozen splits with their positions.
    pub(crate) splits: BTreeMap<String, SourceSplits>,
    pub(crate) operators: Arc<MemoryStore>,
}

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
    pub checkpoint: Option<Checkpoint>,
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
    pub checkpoints: bool,
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

/// What the leader's loop waits for.
pub(super) enum Input {
    Worker(FromWorker),
    Counts { process: usize, counts: ProcessCounts },
    Left { process: usize, counts: ProcessCounts },
    Tails(Tails),
    Lost { process: usize, error: RunError },
    Committed { epoch: u64, result: Result<()> },
}

/// Runs an attempt to its end. Nothing is left running when this returns.
pub async fn run(request: RunRequest, around: Surroundings) -> Result<Outcome> {
    let settings = &request.settings;
    let (threads, processes) = (settings.parallelism as usize, settings.processes as usize);
    if processes > 1 && (request.restore.is_some() || request.checkpoints) {
        return Err(RunError::internal("checkpoints are held in the memory of one process: run with one"));
    }
    let workers = threads * processes;
    let plan = Arc::new(crate::plan::plan(&request.graph, settings, workers)?);
    let opened = open(&plan, &around.connectors, &request.run_id)?;
    let mut committers = opened.sinks.iter().map(|sink| sink.committer()).collect::<Result<Vec<_>>>()?;
    let stages = progress::stages(&plan, &request.graph);
    around.progress.send_modify(|progress| progress.stages = stages.clone());
    let frozen = freeze(&plan, &opened.sources, &request, &around.progress);
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
    let first_epoch = request.restore.as_ref().map_or(1, |checkpoint| checkpoint.epoch + 1);
    let began_us = now_us();
    let metrics = Arc::new(Metrics::new(plan.stages.len(), threads));
    let shared = Shared {
        settings: settings.clone(),
        assignment: assignment.clone(),
        generation: request.generation,
        first_epoch,
        now_us: began_us,
        checkpoints: request.checkpoints,
        restore: request.restore.as_ref().map(|checkpoint| checkpoint.operators.clone()),
        sources: opened.sources,
        sinks: opened.sinks,
        metrics: metrics.clone(),
        budget: Arc::new(Semaphore::new(budget(settings))),
        budget_bytes: budget(settings),
        tokio: tokio::runtime::Handle::current(),
        leader: from_workers,
        plan: plan.clone(),
    };
    let beginning = Beginning { request: &request, assignment: &assignment, first_epoch, now_us: began_us };
    let started = tokio::select! {
        started = Attempt::start(beginning, &around, shared, &inputs, &mut input) => started,
        () = wanted(around.verb.clone(), &[Verb::Cancel]) => Err(cancelled()),
    };
    let mut attempt = match started {
        Ok(attempt) => attempt,
        Err(error) => {
            abort(&mut committers).await;
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
        snapshots: if request.checkpoints {
            plan.stages.iter().filter(|stage| stage.kind.has_state()).count()
        } else {
            0
        },
        bounded: plan.bounded,
        first_epoch,
        epoch_interval_us: settings.epoch_interval.us,
        checkpoint_interval_us: settings.checkpoint_interval.us,
        stop_after: request.stop_after,
    };
    let mut led = Led {
        leader: Leader::new(facts, now_us()),
        early: std::mem::take(&mut attempt.early),
        attempt,
        commits: start_committers(committers, inputs),
        snapshots: BTreeMap::new(),
        counts: BTreeMap::new(),
        progress: Progress { running: true, ..begun },
        waiting: BTreeMap::new(),
        published: Published::new(&plan, workers),
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
    let result = match led.lead(&mut input, around.verb, &around.progress).await {
        Ok(ended) => {
            led.leave(&mut input).await;
            Ok(ended)
        }
        Err(error) => Err(led.cause(error, &mut input).await),
    };
    let failed = result.is_err();
    led.see_all();
    let Led { leader, attempt, commits, mut snapshots, mut published, mut progress, assignment, .. } = led;
    attempt.end(failed).await;
    commits.end(failed).await;
    // A commit that was under way has come to its end, whatever ended the run.
    while let Ok(heard) = input.try_recv() {
        if let Input::Committed { epoch, result: Ok(()) } = heard {
            published.committed(epoch);
        }
    }
    published.show(&mut progress);
    let counts = progress.counts.clone();
    around.progress.send_replace(progress);
    let ended = result?;
    let checkpoint = request.checkpoints.then(|| Checkpoint {
        epoch: ended.epoch,
        splits: positions(assignment, &leader),
        operators: Arc::new(snapshots.remove(&ended.epoch).unwrap_or_default()),
    });
    Ok(Outcome { finished: ended.finished, epoch: ended.epoch, counts, checkpoint })
}

fn budget(settings: &graph::Settings) -> usize {
    (settings.in_flight_bytes as usize).min(u32::MAX as usize)
}

/// The sources and sinks of a plan, opened, in the order of its stages.
pub(crate) struct Opened {
    pub sources: Vec<Arc<dyn Source>>,
    pub sinks: Vec<Arc<dyn Sink>>,
}

pub(crate) fn open(plan: &Plan, connectors: &Arc<dyn Connectors>, run_id: &str) -> Result<Opened> {
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

/// Lists the splits of all sources, once; with a checkpoint, they are the ones it names.
async fn freeze(
    plan: &Plan,
    sources: &[Arc<dyn Source>],
    request: &RunRequest,
    progress: &watch::Sender<Progress>,
) -> Result<Assignment> {
    let sources_of_plan = || plan.stages.iter().filter(|stage| matches!(stage.kind, StageKind::Source(_)));
    let names: Vec<&str> = sources_of_plan().map(|stage| stage.operator.as_str()).collect();
    if let Some(operator) = request.start.keys().find(|operator| !names.contains(&operator.as_str())) {
        let message = format!("start positions are given for '{operator}', which is no source of the graph");
        return Err(RunError::user("unknown_split", message).hint(format!("its sources are: {}", names.join(", "))));
    }
    let progress = progress.clone();
    let waiting = Waiting::new(move |what| progress.send_modify(|progress| progress.waiting_for = what));
    let mut assignment = Assignment::default();
    let mut next = 0;
    let stages = plan
        .stages
        .iter()
        .filter_map(|stage| if let StageKind::Source(source) = &stage.kind { Some((stage, source)) } else { None });
    for ((stage, source), opened) in stages.zip(sources) {
        let (operator, table) = (stage.operator.clone(), source.node.table.clone());
        let restored = request.restore.as_deref().and_then(|checkpoint| checkpoint.splits.get(&operator));
        let splits: Vec<_> = match restored {
            Some(restored) => restored.splits.values().cloned().collect(),
            None => {
                let listed = opened.list(&waiting).await.map_err(|error| error.operator(&operator))?;
                waiting.over();
                let is_nothing = |split: &str, position: &str| opened.is_nothing(split, position);
                let begun = begin_at(listed, request.start.get(&operator), &table, is_nothing);
                let mut begun = begun.map_err(|error| error.operator(&operator))?;
                for (split, state) in &mut begun {
                    // One that does not exist yet may be given its own beginning, as the start of an earlier run.
                    let from_start = match &state.position {
                        None => true,
                        Some(Position::At(position)) => opened.start(split).as_ref() == Some(position),
                        Some(Position::End) => false,
                    };
                    state.absent = from_start && !opened.exists(split);
                }
                begun
            }
        };
        let watermark = restored.map_or(WM_MIN, |restored| restored.watermark);
        let numbered: BTreeMap<u32, _> = (next..).zip(splits).collect();
        next += numbered.len() as u32;
        assignment.sources.push(SourceSplits { operator, table, splits: numbered, watermark });
    }
    Ok(assignment)
}

/// Splits that begin where `start` says, by id. An empty position is the split's own beginning, for which the split need not be there:
/// a placeholder or a file of an earlier run may be gone. So may one of which `is_nothing` says that nothing is to be read.
fn begin_at(
    splits: Vec<Split>,
    start: Option<&BTreeMap<String, String>>,
    table: &str,
    is_nothing: impl Fn(&str, &str) -> bool,
) -> Result<Vec<(Split, SplitState)>> {
    let Some(start) = start else {
        return Ok(splits.into_iter().map(|split| (split, SplitState::default())).collect());
    };
    let ids: BTreeSet<&str> = splits.iter().map(|split| split.id.as_str()).collect();
    let mut given = start.iter().filter(|(_, position)| !position.is_empty());
    if let Some((unknown, _)) = given.find(|(id, position)| !ids.contains(id.as_str()) && !is_nothing(id, position)) {
        let message = format!("a start position is given for split '{unknown}', which table {table} does not have");
        let mut known: Vec<&str> = splits.iter().take(NAMED_SPLITS).map(|split| split.id.as_str()).collect();
        if splits.len() > known.len() {
            known.push("...");
        }
        return Err(RunError::user("unknown_split", message).hint(format!("its splits are: {}", known.join(", "))));
    }
    let begun = splits.into_iter().map(|split| {
        let given = start.get(&split.id).filter(|position| !position.is_empty());
        let position = given.map(|position| Position::At(position.clone()));
        (split, SplitState { position, ..SplitState::default() })
    });
    Ok(begun.collect())
}

/// How many splits an error names.
const NAMED_SPLITS: usize = 20;

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

/// Ends when the run is to be drained while its sources wait for something: what is not there cannot be drained. Sources that are about to
/// begin are read and drained.
async fn drained_in_vain(mut verb: watch::Receiver<Verb>, mut progress: watch::Receiver<Progress>) {
    if verb.wait_for(|verb| *verb == Verb::Drain).await.is_err() {
        return std::future::pending().await;
    }
    let waits = progress.wait_for(|progress| progress.waiting_for.is_some());
    // Not every source says that it waits.
    drop(tokio::time::timeout(ABOUT_TO_BEGIN, waits).await);
}

/// The splits with the positions and watermarks of the latest cuts.
fn positions(assignment: Assignment, leader: &Leader) -> BTreeMap<String, SourceSplits> {
    let updated = assignment.sources.into_iter().enumerate().map(|(position, mut source)| {
        for (number, (_, state)) in &mut source.splits {
            if let Some(now) = leader.splits().get(number) {
                *state = now.clone();
            }
        }
        source.watermark = leader.closing().get(&position).copied().unwrap_or(source.watermark);
        (source.operator.clone(), source)
    });
    updated.collect()
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

/// Epoch, kind, and what each sink gets.
type CommitOrder = (u64, CommitKind, BTreeMap<usize, SinkCommit>);

/// The task that commits: one epoch at a time, in order.
struct CommitTask {
    orders: UnboundedSender<CommitOrder>,
    task: tokio::task::JoinHandle<Vec<Box<dyn SinkCommitter>>>,
}

fn start_committers(mut committers: Vec<Box<dyn SinkCommitter>>, inputs: UnboundedSender<Input>) -> CommitTask {
    let (orders, mut order) = unbounded_channel::<CommitOrder>();
    let task = tokio::spawn(async move {
        while let Some((epoch, kind, sinks)) = order.recv().await {
            let mut result = Ok(());
            for (sink, commit) in sinks {
                committers[sink].watermark(epoch, commit.watermark);
                result = committers[sink].commit(epoch, kind, commit.committables).await;
                if result.is_err() {
                    break;
                }
            }
            let failed = result.is_err();
            if inputs.send(Input::Committed { epoch, result }).is_err() || failed {
                break;
            }
        }
        committers
    });
    CommitTask { orders, task }
}

impl CommitTask {
    async fn end(self, failed: bool) {
        drop(self.orders);
        if let Ok(mut committers) = self.task.await
            && failed
        {
            abort(&mut committers).await;
        }
    }
}

async fn abort(committers: &mut [Box<dyn SinkCommitter>]) {
    for committer in committers {
        committer.abort().await;
    }
}

/// How an attempt ended.
struct Ended {
    finished: bool,
    epoch: u64,
}

/// The rows that a sink has published.
struct PublishedRows {
    /// Its position among the stages.
    stage: usize,
    /// By worker, of all commits that were ordered, and of those that count.
    ordered: Vec<u64>,
    counted: Vec<u64>,
}

/// What can be seen of the run's output: whole epochs, of a bounded run all of them at its end.
struct Published {
    bounded: bool,
    sinks: Vec<PublishedRows>,
    /// The commit of the last epoch was ordered: there is no way back.
    decided: bool,
    /// The last epoch that counts.
    epoch: u64,
}

impl Published {
    fn new(plan: &Plan, workers: usize) -> Published {
        let sinks = plan.stages.iter().enumerate().filter(|(_, stage)| matches!(stage.kind, StageKind::Sink(_)));
        Published {
            bounded: plan.bounded,
            sinks: sinks
                .map(|(stage, _)| PublishedRows { stage, ordered: vec![0; workers], counted: vec![0; workers] })
                .collect(),
            decided: false,
            epoch: 0,
        }
    }

    fn ordered(&mut self, kind: CommitKind, sinks: &BTreeMap<usize, SinkCommit>) {
        self.decided |= kind.last;
        for (sink, commit) in sinks {
            for (rows, committable) in self.sinks[*sink].ordered.iter_mut().zip(&commit.committables) {
                *rows += committable.rows;
            }
        }
    }

    /// The commit that was ordered last has been done.
    fn committed(&mut self, epoch: u64) {
        if self.decided || !self.bounded {
            self.epoch = epoch;
            self.sinks.iter_mut().for_each(|sink| sink.counted.clone_from(&sink.ordered));
        }
    }

    fn show(&self, progress: &mut Progress) {
        progress.committed = self.epoch;
        for sink in &self.sinks {
            for (counts, rows) in progress.subtasks[sink.stage].iter_mut().zip(&sink.counted) {
                counts.rows_out = *rows;
            }
            progress.counts[sink.stage].rows_out = sink.counted.iter().sum();
        }
    }
}

/// The leader with its hands and ears.
struct Led {
    leader: Leader,
    /// Inputs from before the beginning.
    early: VecDeque<Input>,
    attempt: Attempt,
    commits: CommitTask,
    snapshots: BTreeMap<u64, MemoryStore>,
    counts: BTreeMap<usize, ProcessCounts>,
    progress: Progress,
    /// By stage and worker, what its reader or writer waits for.
    waiting: BTreeMap<(usize, usize), String>,
    published: Published,
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
                            self.attempt.order(ToWorker::Drain);
                            continue;
                        }
                        // What is being published cannot be taken back: the run ends as it would have.
                        Verb::Cancel if self.published.decided => continue,
                        Verb::Cancel => return Err(cancelled()),
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
                    Effect::Cut(cut) => self.attempt.order(ToWorker::Cut(cut)),
                    Effect::Commit { epoch, kind, sinks } => {
                        self.published.ordered(kind, &sinks);
                        // Where there is no control plane, the epoch is decided here and now.
                        self.commits
                            .orders
                            .send((epoch, kind, sinks))
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
            Input::Committed { epoch, result } => {
                result?;
                self.published.committed(epoch);
                self.progress.complete = epoch;
                self.splits_moved = true;
                Event::Committed { epoch }
            }
            Input::Worker(message) => match message {
                FromWorker::CutWanted { epoch } => Event::CutWanted { epoch },
                FromWorker::SourceFinished { source, worker } => Event::SourceFinished { source, worker },
                FromWorker::Cut(report) => Event::Cut(report),
                // The probe says the same on every worker; one is enough.
                FromWorker::Passed { worker: 0, epoch } => Event::Passed { epoch },
                FromWorker::Passed { .. } => return Ok(None),
                FromWorker::Prepared { sink, worker, epoch, committable } => {
                    Event::Prepared { sink, worker, epoch, committable }
                }
                FromWorker::Snapshot { epoch, operator, worker, snapshot } => {
                    let snapshot = Snapshot::from_bytes(&snapshot)?;
                    // Only the newest complete epoch is ever asked for.
                    self.snapshots.retain(|other, _| *other + 2 > epoch);
                    self.snapshots.entry(epoch).or_default().put(&operator, worker, snapshot);
                    Event::Snapshot { epoch }
                }
                FromWorker::Waiting { stage, worker, what } => {
                    match what {
                        Some(what) => drop(self.waiting.insert((stage, worker), what)),
                        None => drop(self.waiting.remove(&(stage, worker))),
                    }
                    self.progress.waiting_for = self.waiting.values().next().cloned();
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
                Ok(Input::Committed { epoch, result: Ok(()) }) => self.published.committed(epoch),
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

/// Whether a lost process may be behind a failure that a worker has reported.
fn may_be_a_symptom(error: &RunError) -> bool {
    error.fault == Fault::Internal || error.code == "process_lost"
}

/// What workers panic with when timely's connection to a peer has broken.
pub(super) fn met_broken_connection(error: &RunError) -> bool {
    error.fault == Fault::Internal && error.message.contains("MergeQueue")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positions_that_say_something_need_their_split() {
        let split = |id: &str| Split {
            id: id.into(),
            spec: serde_json::Value::Null,
            min_time_us: None,
            rows: None,
            bytes: None,
        };
        let begin = |start: &[(&str, &str)]| {
            let start = start.iter().map(|(id, position)| (id.to_string(), position.to_string())).collect();
            let begun = begin_at(vec![split("a"), split("b")], Some(&start), "t", |_, position| position == "0")?;
            Ok::<_, RunError>(begun.into_iter().map(|(_, state)| state.position).collect::<Vec<_>>())
        };
        let at = |position: &str| Some(Position::At(position.into()));
        assert_eq!(begin(&[("a", "5"), ("b", ""), ("gone", ""), ("never", "0")]), Ok(vec![at("5"), None]));
        let refused = begin(&[("a", "5"), ("gone", "7")]).expect_err("it would be read from the beginning");
        assert_eq!((refused.code.as_str(), refused.hint.as_deref()), ("unknown_split", Some("its splits are: a, b")));
    }
}
