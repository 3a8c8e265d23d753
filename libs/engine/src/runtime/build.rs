//! Stages to timely operators, on each worker alike: channels are counted, so the order of construction is the order of the plan.

use std::rc::Rc;
use std::sync::Arc;

use futures::future::BoxFuture;
use state::MemoryStore;
use timely::dataflow::Scope;
use tokio::sync::mpsc::unbounded_channel;

use super::clock::{SourceClock, SplitState};
use super::driver::{self, Context, Edge};
use super::ingest::{Flow, Ingest, Limits};
use super::messages::FromWorker;
use super::outlet::Outlet;
use super::time::Time;
use super::worker::Shared;
use super::worker_state::WorkerState;
use crate::error::Result;
use crate::operator::Operator;
use crate::operators::factory::{self, Made, SplitNames};

use crate::plan::{SourceStage, StageKind};
use crate::sink::WriterContext;
use crate::source::{SourceContext, SourceOutput, Split, SplitStart, Waiting};

/// A stage's outputs while its readers are being built.
struct Outputs<'scope> {
    main: Option<Edge<'scope>>,
    side: Option<Edge<'scope>>,
}

/// A reader at work, until its splits have ended.
pub type Reading = BoxFuture<'static, ()>;

/// Builds the dataflow of the plan, with the state that its operators go on from; returns the readers, which are still to be started: what
/// they read before the state is there would only be in its way.
pub fn build<'scope>(
    scope: Scope<'scope, Time>,
    shared: &Arc<Shared>,
    state: &Rc<WorkerState>,
    restore: Option<&MemoryStore>,
) -> Result<Vec<Reading>> {
    let plan = shared.plan.clone();
    let names = split_names(shared);
    let env = expr::Env { now_us: state.now_us.clone(), overflow_wrap: shared.settings.overflow_wrap };
    let mut readers = Vec::new();
    let mut outputs: Vec<Outputs> = Vec::new();
    let mut ends: Vec<Edge> = Vec::new();
    let (mut sources, mut sinks) = (0, 0);
    let place = factory::Place { worker: state.worker, workers: state.workers, disk: shared.disk.clone() };
    for (position, stage) in plan.stages.iter().enumerate() {
        let context = Context {
            name: stage.operator.clone(),
            stage: position,
            metrics: shared.metrics.subtask(position, state.worker),
            state: state.clone(),
        };
        let side = plan.reads_side(position);
        let mut inputs = Vec::new();
        for edge in &stage.inputs {
            let from = &outputs[edge.stage];
            let stream = if edge.side { &from.side } else { &from.main };
            inputs.push((stream.clone().expect("the stage before has this output"), edge.route.clone()));
        }
        let (main, side) = match &stage.kind {
            StageKind::Source(source) => {
                let input =
                    InstanceOf { source, stage: position, position: sources, context, side, names: &names, env: &env };
                sources += 1;
                instance(scope, shared, input, &mut readers)?
            }
            StageKind::Union => (driver::union(scope, inputs.into_iter().map(|(edge, _)| edge).collect()), None),
            StageKind::Sink(_) => {
                let sink = &shared.sinks[sinks];
                let writer = sink.writer(WriterContext {
                    worker: state.worker,
                    workers: state.workers,
                    generation: shared.generation,
                    schema: expr::arrow_schema(&stage.schema),
                    tokio: shared.tokio.clone(),
                    failed: failures(shared, &stage.operator),
                    waiting: waits(shared, position, state.worker),
                    place: shared.uploads.as_ref().map(|uploads| uploads.place.clone()),
                })?;
                let outlet = Outlet {
                    writer,
                    commits: sink.commits(),
                    bounded: plan.bounded,
                    sink: sinks,
                    name: stage.operator.clone(),
                    state: state.clone(),
                };
                sinks += 1;
                let operator = restored(restore, state, &stage.operator, Box::new(outlet))?;
                let (end, _) = driver::operator(scope, context, inputs, false, shared.first_epoch, operator);
                ends.push(end);
                outputs.push(Outputs { main: None, side: None });
                continue;
            }
            _ => match factory::make(stage, &plan.stages[stage.inputs[0].stage].schema, &env, &place, &names)? {
                Made::Stateless(made) => {
                    let (edge, _) = inputs.pop().expect("a stateless stage has one input");
                    driver::stateless(scope, context, edge, side, made)
                }
                Made::Operator(made) => {
                    let made = restored(restore, state, &stage.operator, made)?;
                    driver::operator(scope, context, inputs, side, shared.first_epoch, made)
                }
            },
        };
        outputs.push(Outputs { main: Some(main), side });
    }
    driver::probe(scope, state.clone(), shared.first_epoch, ends);
    Ok(readers)
}

fn restored(
    restore: Option<&MemoryStore>,
    state: &WorkerState,
    operator: &str,
    mut made: Box<dyn Operator>,
) -> Result<Box<dyn Operator>> {
    if let Some(store) = restore {
        made.restore(&store.reader(operator, state.worker, state.workers)).map_err(|error| error.operator(operator))?;
    }
    Ok(made)
}

/// Through which the reader or writer of a stage says what it waits for.
fn waits(shared: &Shared, stage: usize, worker: usize) -> Waiting {
    let leader = shared.leader.clone();
    // The leader is gone only when the run is over.
    Waiting::new(move |what| drop(leader.send(FromWorker::Waiting { stage, worker, what })))
}

/// A channel on which a sink's task reports its failure.
fn failures(shared: &Shared, operator: &str) -> tokio::sync::mpsc::UnboundedSender<crate::RunError> {
    let (sender, mut receiver) = unbounded_channel::<crate::RunError>();
    let (leader, operator) = (shared.leader.clone(), operator.to_string());
    shared.tokio.spawn(async move {
        while let Some(error) = receiver.recv().await {
            // The leader is gone only when the run is over.
            let _ = leader.send(FromWorker::Failed(error.operator(&operator)));
        }
    });
    sender
}

/// Table and split id by split number.
fn split_names(shared: &Shared) -> SplitNames {
    let all: std::collections::HashMap<u32, (Arc<str>, Arc<str>)> = shared
        .assignment
        .sources
        .iter()
        .flat_map(|source| {
            let table: Arc<str> = source.table.as_str().into();
            let named = move |(number, (split, _)): (&u32, &(Split, SplitState))| {
                (*number, (table.clone(), split.id.as_str().into()))
            };
            source.splits.iter().map(named)
        })
        .collect();
    Arc::new(move |number| all.get(&number).cloned().expect("workers read the splits that they were given"))
}

struct InstanceOf<'a> {
    source: &'a SourceStage,
    /// Its position among all stages, and among the sources.
    stage: usize,
    position: usize,
    context: Context,
    side: bool,
    names: &'a SplitNames,
    env: &'a expr::Env,
}

/// A source instance: its reader, its operator in the dataflow.
fn instance<'scope>(
    scope: Scope<'scope, Time>,
    shared: &Arc<Shared>,
    of: InstanceOf<'_>,
    readers: &mut Vec<Reading>,
) -> Result<(Edge<'scope>, Option<Edge<'scope>>)> {
    let state = of.context.state.clone();
    let assigned = &shared.assignment.sources[of.position];
    let splits: Vec<_> = assigned
        .of_worker(state.worker, state.workers)
        .map(|(number, split, split_state)| {
            (SplitStart { number, split: split.clone(), position: split_state.position.clone() }, split_state.clone())
        })
        .collect();
    let clock = SourceClock::new(of.source.time.as_ref(), shared.plan.bounded, &splits, assigned.watermark);
    let prelude = match of.source.prelude.is_empty() {
        true => None,
        false => Some(factory::steps(&of.source.prelude, &of.source.read, of.env, &of.context.name, of.names)?),
    };
    let (events_sender, events) = unbounded_channel();
    let pressure = of.context.metrics.pressure.clone();
    let open: Vec<SplitStart> =
        splits.into_iter().filter(|(_, state)| !state.ended()).map(|(start, _)| start).collect();
    let limits = Limits {
        epoch_max_bytes: shared.settings.epoch_max_bytes,
        epoch_every_rows: shared.settings.epoch_every_rows,
        watermark_interval_us: shared.settings.watermark_interval.us,
    };
    let begin = Time::new(shared.first_epoch, assigned.watermark);
    let names = of.names.clone();
    let name = of.context.name.clone();
    let mut wake = None;
    let edges = driver::source_operator(scope, &name, of.side, begin, |ports, activator, sync_activator| {
        let orders = state.add_source(activator.clone());
        wake = Some(sync_activator);
        let mut ingest = Ingest {
            context: of.context,
            ports,
            activator,
            orders,
            events: Some(events),
            clock,
            prelude,
            time: of.source.time.clone(),
            on_bad: of.source.node.on_bad_record,
            origin: of.source.origin,
            limits,
            table: of.source.node.table.as_str().into(),
            split_name: Arc::new(move |number| names(number).1),
            source: of.position,
            epoch: shared.first_epoch,
            flow: Flow::new(begin.wm),
        };
        move || ingest.activate()
    });
    let wake = wake.expect("the constructor runs at once");
    let output = SourceOutput {
        events: events_sender.clone(),
        budget: shared.budget.clone(),
        budget_bytes: shared.budget_bytes,
        pressure,
        // A worker that is gone needs no waking.
        wake: Arc::new(move || {
            let _ = wake.activate();
        }),
    };
    if open.is_empty() {
        return Ok(edges);
    }
    let source = shared.sources[of.position].clone();
    let leader = shared.leader.clone();
    // A batch is in one epoch, so it is no larger than an epoch.
    let most = shared.settings.epoch_every_rows.unwrap_or(u64::MAX).max(1);
    let batch_rows = shared.settings.batch_rows.min(most) as usize;
    let context = SourceContext { splits: open, batch_rows, waiting: waits(shared, of.stage, state.worker) };
    readers.push(Box::pin(async move {
        let result = source.read(context, output).await;
        // Still holding `events_sender`, so that the cause is known before the channel closes. A closed receiver means that nobody wants more.
        if let Err(error) = result
            && !events_sender.is_closed()
        {
            let _ = leader.send(FromWorker::Failed(error.operator(&name)));
        }
    }));
    Ok(edges)
}
