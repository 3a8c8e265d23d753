//! The worker threads of one process: each builds the plan's dataflow and steps it until it ends or is told to leave.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Duration;

use state::MemoryStore;
use timely::communication::allocator::AllocatorBuilder;
use timely::communication::initialize::{WorkerGuards, initialize_from};
use timely::worker::Worker;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use super::build::build;
use super::durable::Uploads;
use super::messages::{Assignment, FromWorker, ToWorker};
use super::metrics::Metrics;
use super::worker_state::WorkerState;
use crate::error::{Result, RunError};
use crate::operators::disk::Disk;
use crate::plan::Plan;
use crate::sink::Sink;
use crate::source::Source;

/// Everything that the workers of a process share.
pub struct Shared {
    pub plan: Arc<Plan>,
    pub settings: graph::Settings,
    pub assignment: Assignment,
    pub generation: u64,
    pub first_epoch: u64,
    /// `now()` of the first epoch.
    pub now_us: i64,
    /// Where snapshots go at checkpoints, if they are taken.
    pub uploads: Option<Uploads>,
    pub restore: Restore,
    /// For state that is not kept in memory.
    pub disk: Option<Arc<Disk>>,
    /// In the order of the plan's source and sink stages.
    pub sources: Vec<Arc<dyn Source>>,
    pub sinks: Vec<Arc<dyn Sink>>,
    pub metrics: Arc<Metrics>,
    pub budget: Arc<Semaphore>,
    pub budget_bytes: usize,
    pub tokio: tokio::runtime::Handle,
    pub leader: UnboundedSender<FromWorker>,
}

/// The state that the workers of a process begin with. What they share of it goes as soon as all have taken theirs.
pub struct Restore(Mutex<(Option<Arc<MemoryStore>>, usize)>);

impl Restore {
    /// `workers` will ask for it, each once.
    pub fn new(state: Option<Arc<MemoryStore>>, workers: usize) -> Restore {
        Restore(Mutex::new((state, workers)))
    }

    /// The state, to be dropped when the worker is built.
    pub fn take(&self) -> Option<Arc<MemoryStore>> {
        let mut left = self.0.lock().expect("nobody panics while it is held");
        left.1 = left.1.checked_sub(1).expect("a worker takes its state once");
        if left.1 == 0 { left.0.take() } else { left.0.clone() }
    }
}

/// The threads of a process.
pub struct Workers {
    orders: Vec<(Sender<ToWorker>, Thread)>,
    guards: Option<WorkerGuards<()>>,
}

impl Workers {
    /// Starts one thread per allocator.
    pub fn start(
        shared: Arc<Shared>,
        allocators: Vec<AllocatorBuilder>,
        others: Box<dyn std::any::Any + Send>,
    ) -> Result<Workers> {
        let (senders, receivers): (Vec<_>, Vec<_>) = allocators.iter().map(|_| channel()).unzip();
        let receivers: Arc<Mutex<Vec<Receiver<ToWorker>>>> = Arc::new(Mutex::new(receivers));
        let guards = initialize_from(allocators, others, move |allocator| {
            // Which thread takes which receiver does not matter: all get the same orders, and wake-ups go to every thread.
            let orders = receivers
                .lock()
                .ok()
                .and_then(|mut receivers| receivers.pop())
                .expect("there is a receiver per thread");
            let shared = shared.clone();
            let ran = catch_unwind(AssertUnwindSafe(|| {
                let mut worker =
                    Worker::new(timely::WorkerConfig::default(), allocator, Some(std::time::Instant::now()));
                run(&mut worker, &shared, &orders)
            }));
            let failure = match ran {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(panic) => RunError::internal(panic_message(panic.as_ref())),
            };
            // If the leader is gone, the run is over already.
            let _ = shared.leader.send(FromWorker::Failed(failure));
        });
        let guards = guards.map_err(|error| RunError::internal(format!("could not start worker threads: {error}")))?;
        let threads = guards.guards().iter().map(|guard| guard.thread().clone());
        Ok(Workers { orders: senders.into_iter().zip(threads).collect(), guards: Some(guards) })
    }

    /// Gives every worker an order and wakes all.
    pub fn order(&self, order: &ToWorker) {
        for (sender, _) in &self.orders {
            // A worker that has ended needs no orders.
            let _ = sender.send(order.clone());
        }
        for (_, thread) in &self.orders {
            thread.unpark();
        }
    }

    /// Waits until all threads have ended; false if they do not within `patience` (they are then left behind).
    pub fn join(mut self, patience: Duration) -> bool {
        let Some(guards) = self.guards.take() else { return true };
        let deadline = std::time::Instant::now() + patience;
        while guards.guards().iter().any(|guard| !guard.is_finished()) {
            if std::time::Instant::now() > deadline {
                std::mem::forget(guards);
                return false;
            }
            for (_, thread) in &self.orders {
                thread.unpark();
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        // Communication threads panic after a failure, and joining them passes it on.
        catch_unwind(AssertUnwindSafe(|| drop(guards.join()))).is_ok()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(guards) = self.guards.take() {
            self.order(&ToWorker::Leave);
            // Dropping would wait for the threads, and a thread may be stuck with a lost peer.
            std::mem::forget(guards);
        }
    }
}

/// An idle worker looks for orders this often, should a wake-up be lost.
const PARK: Duration = Duration::from_millis(100);

fn run(worker: &mut Worker, shared: &Arc<Shared>, orders: &Receiver<ToWorker>) -> Result<()> {
    let (index, peers) = (worker.index(), worker.peers());
    let state = Rc::new(WorkerState::new(
        index,
        peers,
        shared.uploads.clone(),
        shared.first_epoch,
        shared.now_us,
        shared.leader.clone(),
    ));
    let restore = shared.restore.take();
    let readers =
        worker.dataflow_core("run", None, Box::new(()), |_, scope| build(scope, shared, &state, restore.as_deref()))?;
    drop(restore);
    let readers: Vec<_> = readers.into_iter().map(|reader| shared.tokio.spawn(reader).abort_handle()).collect();
    let mut leave = false;
    loop {
        while let Ok(order) = orders.try_recv() {
            match order {
                ToWorker::Cut(cut) => {
                    state.cut(&cut);
                    state.order(|orders| orders.cuts.push_back(cut.clone()));
                }
                ToWorker::Drain => state.order(|orders| orders.drain = true),
                ToWorker::Leave => leave = true,
            }
        }
        if leave {
            readers.iter().for_each(|reader| reader.abort());
            worker.installed_dataflows().into_iter().for_each(|dataflow| worker.drop_dataflow(dataflow));
            return Ok(());
        }
        if !worker.has_dataflows() {
            state.send(FromWorker::Ended { worker: index });
            return Ok(());
        }
        worker.step_or_park(Some(PARK));
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("a worker stopped: {}", text.unwrap_or("no reason given"))
}
