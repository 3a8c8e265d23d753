//! The one place with capabilities and frontiers: turns operators, stateless stages and the probe into timely operators.
//!
//! What must stay true (the rules of ARCHITECTURE.md, section 5; most have a test in `tests/time.rs`):
//! an operator's watermark is the minimum over its input frontiers *and* its stash; epochs close strictly in order; the results of a
//! watermark leave at the old capability; the last epoch is named, never inferred from an empty frontier.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use state::SnapshotWriter;
use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, Stream};
use timely::progress::frontier::MutableAntichain;

use super::coalesce::Coalescer;
use super::exchange::{ByKey, ToFirst};
use super::messages::Held;
use super::metrics::{OperatorMetrics, RowCounts};
use super::parcel::Parcel;
use super::time::{Time, WM_FINAL, WM_MIN};
use super::worker_state::WorkerState;
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output, Stateless};
use crate::plan::Route;

pub type Edge<'scope> = Stream<'scope, Time, Parcel>;

/// Takes everything that has arrived at an input.
type Pull = Box<dyn FnMut(&mut VecDeque<(Time, Batch)>)>;

/// An output of an operator and the right to send on it.
pub struct Port {
    output: OutputBuilder<Time, NoopBuilder<Parcel>>,
    capability: Option<Capability<Time>>,
    /// Batches that wait for others of the same capability.
    small: Coalescer,
}

impl Port {
    fn add<'scope>(builder: &mut OperatorBuilder<'scope, Time>) -> (Port, Edge<'scope>) {
        let (output, edge) = builder.new_output::<Parcel>();
        (Port { output: OutputBuilder::from(output), capability: None, small: Coalescer::default() }, edge)
    }

    pub fn send(&mut self, batches: Vec<Batch>) {
        if batches.is_empty() {
            return;
        }
        let capability = self.capability.as_ref().expect("nothing is sent after the last epoch");
        let mut output = self.output.activate();
        let mut session = output.session_with_builder(capability);
        for batch in batches {
            self.small.push(batch, |batch| session.give_container(&mut Parcel::new(batch)));
        }
    }

    /// Lets go of what waits for others.
    fn flush(&mut self) {
        if self.small.is_empty() {
            return;
        }
        let capability = self.capability.as_ref().expect("a capability is kept while something waits for it");
        let mut output = self.output.activate();
        let mut session = output.session_with_builder(capability);
        self.small.flush(|batch| session.give_container(&mut Parcel::new(batch)));
    }

    pub fn downgrade(&mut self, time: Time) {
        self.flush();
        if let Some(capability) = &mut self.capability {
            capability.downgrade(&time);
        }
    }

    /// From now on at another capability.
    fn set(&mut self, capability: Capability<Time>) {
        if self.capability.as_ref().is_some_and(|held| held.time() != capability.time()) {
            self.flush();
        }
        self.capability = Some(capability);
    }

    pub fn close(&mut self) {
        self.flush();
        self.capability = None;
    }
}

/// The outputs of an operator: the main one and, where something reads it, the side one.
pub struct Ports {
    pub main: Port,
    pub side: Option<Port>,
}

impl Ports {
    fn add<'scope>(
        builder: &mut OperatorBuilder<'scope, Time>,
        side: bool,
    ) -> (Ports, Edge<'scope>, Option<Edge<'scope>>) {
        let (main, main_edge) = Port::add(builder);
        let (side, side_edge) = if side { Some(Port::add(builder)).unzip() } else { (None, None) };
        (Ports { main, side }, main_edge, side_edge)
    }

    fn grant(&mut self, capabilities: Vec<Capability<Time>>) {
        let mut capabilities = capabilities.into_iter();
        self.main.capability = capabilities.next();
        if let Some(side) = &mut self.side {
            side.capability = capabilities.next();
        }
    }

    /// Sends what an operator put out, and counts it.
    pub fn send(&mut self, out: &mut Output, context: &Context) {
        context.count(RowCounts::put_out(out));
        if !out.late.is_empty() {
            context.metrics.tail.late(context.state.current(), std::mem::take(&mut out.late));
        }
        self.main.send(std::mem::take(&mut out.main));
        let rows = std::mem::take(&mut out.side);
        if let Some(side) = &mut self.side {
            side.send(rows);
        }
    }

    /// Nothing more is at hand: what waits for others leaves.
    pub fn flush(&mut self) {
        self.main.flush();
        if let Some(side) = &mut self.side {
            side.flush();
        }
    }

    pub fn downgrade(&mut self, time: Time) {
        self.main.downgrade(time);
        if let Some(side) = &mut self.side {
            side.downgrade(time);
        }
    }

    pub fn close(&mut self) {
        self.main.close();
        if let Some(side) = &mut self.side {
            side.close();
        }
    }
}

fn connect<'scope>(builder: &mut OperatorBuilder<'scope, Time>, edge: Edge<'scope>, route: &Route) -> Pull {
    macro_rules! pull {
        ($input:expr) => {{
            let mut input = $input;
            Box::new(move |queue: &mut VecDeque<(Time, Batch)>| {
                input.for_each(|capability, parcel| {
                    queue.extend(std::mem::take(parcel).batch.map(|batch| (*capability.time(), batch)))
                })
            })
        }};
    }
    match route {
        Route::Local => pull!(builder.new_input(edge, Pipeline)),
        Route::Key(columns) => {
            let columns = columns.clone();
            pull!(builder.new_input(edge, DistributorPact(move |_| ByKey { columns })))
        }
        Route::Single => pull!(builder.new_input(edge, DistributorPact(|_| ToFirst))),
    }
}

/// What an operator is called, what it counts, and which worker it is on.
#[derive(Clone)]
pub struct Context {
    pub name: String,
    /// Position among the stages of the plan.
    pub stage: usize,
    pub metrics: Arc<OperatorMetrics>,
    pub state: Rc<WorkerState>,
}

impl Context {
    /// Rows of the epoch that was entered last.
    pub fn count(&self, rows: RowCounts) {
        self.metrics.count(&rows);
        self.state.count(self.stage, rows);
    }
}

/// Drives an [`Operator`]. Returns its main output and, if `side`, its side output.
pub fn operator<'scope>(
    scope: Scope<'scope, Time>,
    context: Context,
    inputs: Vec<(Edge<'scope>, Route)>,
    side: bool,
    first_epoch: u64,
    operator: Box<dyn Operator>,
) -> (Edge<'scope>, Option<Edge<'scope>>) {
    let mut builder = OperatorBuilder::new(context.name.clone(), scope);
    let pulls: Vec<Pull> = inputs.into_iter().map(|(edge, route)| connect(&mut builder, edge, &route)).collect();
    let (mut ports, main, side) = Ports::add(&mut builder, side);
    let activator = scope.worker().activator_for(builder.operator_info().address);
    builder.build(move |capabilities| {
        ports.grant(capabilities);
        ports.downgrade(Time::new(first_epoch, WM_MIN));
        let mut driven = Driven {
            activator,
            context,
            operator,
            ports,
            pulls,
            epoch: first_epoch,
            wm: WM_MIN,
            stash: BTreeMap::new(),
            aligning: None,
            saving: None,
            ended: false,
        };
        let mut queue = VecDeque::new();
        move |frontiers| driven.activate(frontiers, &mut queue)
    });
    (main, side)
}

struct Driven {
    activator: timely::scheduling::activate::Activator,
    context: Context,
    operator: Box<dyn Operator>,
    ports: Ports,
    pulls: Vec<Pull>,
    /// The epoch being worked on; the capability is at it.
    epoch: u64,
    /// The watermark applied; the capability is at it.
    wm: i64,
    /// Batches of later epochs, with port and stamp: they wait until their epoch is the one being worked on.
    stash: BTreeMap<u64, Vec<(usize, i64, Batch)>>,
    /// Since when there are any.
    aligning: Option<Instant>,
    /// The snapshot that is being copied.
    saving: Option<Saving>,
    ended: bool,
}

/// A snapshot that is copied in steps, between batches.
struct Saving {
    epoch: u64,
    writer: SnapshotWriter,
    alignment: Duration,
    /// The longest step so far.
    pause: Duration,
    /// When the last one ended.
    stepped: Instant,
}

/// How long a step of copying may take, beyond the rows that an operator copies at once: a share of the work of the activation before it, so
/// that the copy gets on also where that is long.
const STEP_SHARE: u32 = 3;
/// Work after which there is a step within an activation too: one may have to do with as much as is in flight.
const WORK_MAX: Duration = Duration::from_millis(24);
const STEP_MIN: Duration = Duration::from_millis(1);
const STEP_MAX: Duration = Duration::from_millis(8);

/// For how long to copy after so much work.
fn step_after(work: Duration) -> Duration {
    (work / STEP_SHARE).clamp(STEP_MIN, STEP_MAX)
}

impl Driven {
    fn activate(&mut self, frontiers: &[MutableAntichain<Time>], queue: &mut VecDeque<(Time, Batch)>) {
        if self.context.state.failed() {
            return;
        }
        let begun = Instant::now();
        let worked = self.work(frontiers, queue).and_then(|()| {
            self.ports.flush();
            self.save_some(step_after(begun.elapsed()))
        });
        match worked {
            Ok(()) => {}
            Err(error) => self.context.state.fail(error.operator(&self.context.name)),
        }
        self.context.metrics.busy(begun.elapsed());
    }

    fn work(&mut self, frontiers: &[MutableAntichain<Time>], queue: &mut VecDeque<(Time, Batch)>) -> Result<()> {
        for port in 0..self.pulls.len() {
            (self.pulls[port])(queue);
            while let Some((time, batch)) = queue.pop_front() {
                assert!(time.epoch >= self.epoch, "a batch of epoch {} arrived after the epoch was closed", time.epoch);
                if time.epoch == self.epoch {
                    self.process(port, time.wm, batch)?;
                } else {
                    self.aligning.get_or_insert_with(Instant::now);
                    self.stash.entry(time.epoch).or_default().push((port, time.wm, batch));
                }
            }
        }
        while !self.ended {
            let times =
                || frontiers.iter().flat_map(|frontier| frontier.frontier().iter().copied().collect::<Vec<_>>());
            let low = times().map(|time| time.epoch).min();
            let complete = match low {
                Some(low) => low > self.epoch,
                None if self.context.state.is_last(self.epoch) => true,
                None => return Err(RunError::internal("the input ended before the leader named the last epoch")),
            };
            // Rule 1: a stashed batch no longer holds the frontier, so it must hold the watermark here.
            let stashed = self.stash.values().flatten().map(|(_, wm, _)| *wm);
            let wm = times().map(|time| time.wm).chain(stashed).min().unwrap_or(WM_FINAL);
            if wm > self.wm {
                self.context.state.enter(self.epoch);
                let mut out = Output::new();
                let more = self.operator.advance(wm, &mut out)?;
                self.ports.send(&mut out, &self.context);
                if more {
                    // The results so far are worked on before the next ones are made; the capability stays where it is.
                    self.activator.activate();
                    return Ok(());
                }
                self.wm = wm;
                self.ports.downgrade(self.held(wm));
                self.context.metrics.watermark(wm);
            }
            if !complete {
                return Ok(());
            }
            self.close()?;
        }
        Ok(())
    }

    /// The time to hold while the operator is at a watermark of this epoch.
    fn held(&self, wm: i64) -> Time {
        let wm = if wm == WM_FINAL { wm } else { wm.saturating_sub(self.operator.behind()) };
        Time::new(self.epoch, wm)
    }

    fn process(&mut self, port: usize, wm: i64, batch: Batch) -> Result<()> {
        self.context.state.enter(self.epoch);
        self.context.count(RowCounts::taken(batch.num_rows()));
        let mut out = Output::new();
        self.operator.process(port, batch, wm, &mut out)?;
        self.ports.send(&mut out, &self.context);
        let worked = self.saving.as_ref().map(|saving| saving.stepped.elapsed());
        match worked.filter(|worked| *worked > WORK_MAX) {
            Some(worked) => self.save_some(step_after(worked)),
            None => Ok(()),
        }
    }

    /// Ends the epoch that is complete: its closing watermark has been applied.
    fn close(&mut self) -> Result<()> {
        let alignment = self.aligning.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.context.state.enter(self.epoch);
        let mut out = Output::new();
        self.operator.epoch_end(self.epoch, &mut out)?;
        self.ports.send(&mut out, &self.context);
        let kind = self.context.state.kind(self.epoch);
        if self.context.state.uploads.is_some() && kind.checkpoint {
            // The leader cuts a checkpoint when the one before is copied, but for the last one and when there is no time to lose.
            self.save_some(Duration::MAX)?;
            if !kind.last {
                let mut writer = SnapshotWriter::new();
                let begun = Instant::now();
                self.operator.snapshot(self.epoch, &mut writer)?;
                let (pause, stepped) = (begun.elapsed(), Instant::now());
                self.saving = Some(Saving { epoch: self.epoch, writer, alignment, pause, stepped });
                // What is small is handed over before anything else is done.
                self.save_some(STEP_MIN)?;
            }
        }
        self.context.metrics.state_bytes(self.operator.state_bytes());
        if kind.last {
            self.ended = true;
            self.ports.close();
            return Ok(());
        }
        self.epoch += 1;
        self.ports.downgrade(self.held(self.wm));
        for (port, wm, batch) in self.stash.remove(&self.epoch).unwrap_or_default() {
            self.process(port, wm, batch)?;
        }
        Ok(())
    }
}

impl Driven {
    /// Goes on with the copy of the snapshot at hand for about so long, and hands it over once it is complete.
    fn save_some(&mut self, time: Duration) -> Result<()> {
        let Some(saving) = &mut self.saving else { return Ok(()) };
        let begun = Instant::now();
        let mut more = true;
        while more && begun.elapsed() < time {
            more = self.operator.snapshot_more(&mut saving.writer)?;
        }
        saving.pause = saving.pause.max(begun.elapsed());
        saving.stepped = Instant::now();
        if more {
            self.activator.activate();
            return Ok(());
        }
        if let Some((Saving { epoch, writer, alignment, pause, .. }, uploads)) =
            self.saving.take().zip(self.context.state.uploads.as_ref())
        {
            let held = Held { alignment_us: alignment.as_micros() as u64, pause_us: pause.as_micros() as u64 };
            uploads.write(epoch, self.context.name.clone(), self.context.state.worker, writer, held);
        }
        Ok(())
    }
}

/// Drives a [`Stateless`] stage: outputs keep the stamp of their input.
pub fn stateless<'scope>(
    scope: Scope<'scope, Time>,
    context: Context,
    input: Edge<'scope>,
    side: bool,
    mut stage: Box<dyn Stateless>,
) -> (Edge<'scope>, Option<Edge<'scope>>) {
    let mut builder = OperatorBuilder::new(context.name.clone(), scope);
    let mut input = builder.new_input(input, Pipeline);
    builder.set_notify_for(0, timely::progress::operate::FrontierInterest::Never);
    let (mut ports, main, side) = Ports::add(&mut builder, side);
    builder.build(move |capabilities| {
        drop(capabilities); // Outputs leave at the capability of their input.
        move |_| {
            if context.state.failed() {
                return;
            }
            let begun = Instant::now();
            input.for_each(|capability, parcel| {
                let Some(batch) = std::mem::take(parcel).batch else { return };
                ports.main.set(capability.retain(0));
                if let Some(side) = &mut ports.side {
                    side.set(capability.retain(1));
                }
                if context.state.failed() {
                    return; // Keeps the capability: dropping it would say that these rows were dealt with.
                }
                let time = *capability.time();
                context.state.enter(time.epoch);
                context.count(RowCounts::taken(batch.num_rows()));
                let mut out = Output::new();
                match stage.map(batch, time.wm, &mut out) {
                    Ok(()) => ports.send(&mut out, &context),
                    Err(error) => context.state.fail(error.operator(&context.name)),
                }
            });
            if !context.state.failed() {
                ports.close();
            }
            context.metrics.busy(begun.elapsed());
        }
    });
    (main, side)
}

/// All rows of all inputs.
pub fn union<'scope>(scope: Scope<'scope, Time>, inputs: Vec<Edge<'scope>>) -> Edge<'scope> {
    use timely::dataflow::operators::core::Concatenate;
    scope.concatenate(inputs)
}

/// Watches the ends of all branches: tells the worker which epochs are complete everywhere.
pub fn probe<'scope>(scope: Scope<'scope, Time>, state: Rc<WorkerState>, first_epoch: u64, inputs: Vec<Edge<'scope>>) {
    let mut builder = OperatorBuilder::new("probe".to_string(), scope);
    let mut pulls: Vec<Pull> = inputs.into_iter().map(|edge| connect(&mut builder, edge, &Route::Local)).collect();
    builder.build(move |_| {
        let mut passed = first_epoch - 1;
        let mut queue = VecDeque::new();
        move |frontiers| {
            for pull in &mut pulls {
                pull(&mut queue);
                queue.clear();
            }
            let low =
                frontiers.iter().flat_map(|frontier| frontier.frontier().iter().map(|time| time.epoch).min()).min();
            let now = match low {
                Some(low) => low.saturating_sub(1),
                // Everything has ended: the last epoch is the one that was begun last.
                None => u64::MAX,
            };
            if now > passed && !state.failed() {
                passed = now;
                state.pass(now);
            }
        }
    });
}

/// Hand-made source operators: see `ingest.rs`.
pub fn source_operator<'scope, L>(
    scope: Scope<'scope, Time>,
    name: &str,
    side: bool,
    begin: Time,
    constructor: impl FnOnce(
        Ports,
        timely::scheduling::activate::Activator,
        timely::scheduling::activate::SyncActivator,
    ) -> L,
) -> (Edge<'scope>, Option<Edge<'scope>>)
where
    L: FnMut() + 'static,
{
    let mut builder = OperatorBuilder::new(name.to_string(), scope);
    let address = builder.operator_info().address;
    let worker = scope.worker();
    let activator = worker.activator_for(address.clone());
    let sync_activator = worker.sync_activator_for(address.to_vec());
    let (mut ports, main, side) = Ports::add(&mut builder, side);
    builder.build(move |capabilities| {
        ports.grant(capabilities);
        ports.downgrade(begin);
        let mut logic = constructor(ports, activator, sync_activator);
        move |_| logic()
    });
    (main, side)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::runtime::durable::{Place, Uploads};
    use crate::runtime::messages::{Cut, FromWorker};
    use crate::sink::CommitKind;
    use arrow::array::{Array, Int64Array, RecordBatch};
    use state::SnapshotReader;
    use state::files::MemoryFiles;
    use std::cell::RefCell;
    use timely::scheduling::activate::Activator;
    use timely::worker::Worker;

    /// Writes down what the driver asks of it.
    pub struct Recorder(pub Rc<RefCell<Vec<String>>>);

    impl Operator for Recorder {
        fn process(&mut self, _: usize, batch: Batch, wm: i64, _: &mut Output) -> Result<()> {
            self.0.borrow_mut().push(format!("{} rows at {wm}", batch.num_rows()));
            Ok(())
        }

        fn watermark(&mut self, wm: i64, _: &mut Output) -> Result<()> {
            self.0.borrow_mut().push(format!("watermark {wm}"));
            Ok(())
        }

        fn epoch_end(&mut self, epoch: u64, _: &mut Output) -> Result<()> {
            self.0.borrow_mut().push(format!("end {epoch}"));
            Ok(())
        }

        fn snapshot(&mut self, _: u64, _: &mut SnapshotWriter) -> Result<()> {
            Ok(())
        }

        fn restore(&mut self, _: &SnapshotReader) -> Result<()> {
            Ok(())
        }
    }

    pub fn rows(count: i64) -> Vec<Batch> {
        let column: Arc<dyn Array> = Arc::new(Int64Array::from_iter_values(0..count));
        vec![Batch::inserts(RecordBatch::try_from_iter([("a", column)]).expect("one column"))]
    }

    /// Two sources moved by hand into one operator; returns what the operator was asked.
    fn play(moves: impl Fn(&mut [Port], &WorkerState, &mut dyn FnMut()) + Send + Sync + 'static) -> Vec<String> {
        play_with(None, moves)
    }

    fn play_with(
        uploads: Option<Uploads>,
        moves: impl Fn(&mut [Port], &WorkerState, &mut dyn FnMut()) + Send + Sync + 'static,
    ) -> Vec<String> {
        timely::execute_directly(move |worker: &mut Worker| {
            let (leader, _messages) = tokio::sync::mpsc::unbounded_channel();
            let state = Rc::new(WorkerState::new(0, 1, uploads.clone(), 1, 0, leader));
            let log = Rc::new(RefCell::new(Vec::new()));
            let (mut ports, mut activators): (Vec<Port>, Vec<Activator>) = (Vec::new(), Vec::new());
            let metrics = crate::runtime::metrics::Metrics::new(1, 1).subtask(0, 0);
            worker.dataflow_core("test", None, Box::new(()), |_, scope: Scope<'_, Time>| {
                let mut edges = Vec::new();
                for _ in 0..2 {
                    let (edge, _) =
                        source_operator(scope, "source", false, Time::new(1, WM_MIN), |granted, activator, _| {
                            ports.push(granted.main);
                            activators.push(activator);
                            || {}
                        });
                    edges.push((edge, Route::Local));
                }
                let context = Context { name: "test".into(), stage: 0, metrics, state: state.clone() };
                operator(scope, context, edges, false, 1, Box::new(Recorder(log.clone())));
            });
            let mut step = || {
                for _ in 0..20 {
                    activators.iter().for_each(Activator::activate);
                    worker.step();
                }
            };
            moves(&mut ports, &state, &mut step);
            assert!(!state.failed(), "the run goes on");
            drop(ports);
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
            log.take()
        })
    }

    fn cut(state: &WorkerState, epoch: u64) {
        state.cut(&Cut { epoch, kind: CommitKind { checkpoint: false, last: false }, now_us: 0, floor: 0 });
    }

    #[test]
    fn a_checkpoint_says_for_how_long_rows_waited_for_its_cut() {
        let tokio = tokio::runtime::Runtime::new().expect("threads");
        let (leader, mut messages) = tokio::sync::mpsc::unbounded_channel();
        let place = Place { files: Arc::new(MemoryFiles::default()), job: "job".into(), generation: 1 };
        let wait = Duration::from_millis(30);
        play_with(Some(Uploads { place, tokio: tokio.handle().clone(), leader }), move |ports, state, step| {
            let kind = CommitKind { checkpoint: true, last: false };
            (1..=2).for_each(|epoch| state.cut(&Cut { epoch, kind, now_us: 0, floor: 0 }));
            ports.iter_mut().for_each(|port| port.downgrade(Time::new(2, 0)));
            step();
            ports[1].downgrade(Time::new(3, 0));
            ports[1].send(rows(1));
            ports[1].downgrade(Time::new(3, 1));
            step();
            std::thread::sleep(wait);
            ports[0].downgrade(Time::new(3, 0));
            step();
        });
        let mut next = || match messages.blocking_recv() {
            Some(FromWorker::Snapshot { epoch, held, .. }) => (epoch, held.alignment_us),
            other => panic!("no snapshot but {other:?}"),
        };
        let alignments = BTreeMap::from([next(), next()]);
        assert_eq!(alignments[&1], 0, "no row came too soon");
        assert!(alignments[&2] >= wait.as_micros() as u64, "{alignments:?}");
    }

    /// Rule 1. By rule 2 sources hold their watermark while an epoch closes, so that this cannot come from them; the driver must not rely on it.
    #[test]
    fn a_stashed_batch_holds_the_watermark() {
        let asked = play(|ports, state, step| {
            cut(state, 1);
            ports[1].downgrade(Time::new(2, 10));
            ports[1].send(rows(3));
            ports[1].downgrade(Time::new(2, 100));
            ports[0].downgrade(Time::new(1, 100));
            step();
            ports[0].downgrade(Time::new(2, 100));
            step();
        });
        assert_eq!(asked, ["watermark 10", "end 1", "3 rows at 10", "watermark 100"]);
    }

    /// Rule 3. Epochs close in order, the closing watermark before the end.
    #[test]
    fn an_epoch_closes_when_all_inputs_have_left_it() {
        let asked = play(|ports, state, step| {
            ports[0].send(rows(1));
            step();
            cut(state, 1);
            ports[0].downgrade(Time::new(2, 50));
            step();
            ports[1].send(rows(2));
            ports[1].downgrade(Time::new(1, 40));
            step();
            ports[1].downgrade(Time::new(2, 40));
            step();
        });
        assert_eq!(
            asked,
            [format!("1 rows at {WM_MIN}"), format!("2 rows at {WM_MIN}"), "watermark 40".into(), "end 1".into()]
        );
    }
}
