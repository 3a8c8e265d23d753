//! A further process of an attempt: reports to the leader, meets its peers, runs its workers.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use state::{Files, MemoryStore};
use timely::communication::allocator::AllocatorBuilder;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::initialize::Hooks;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::durable::{Place, Uploads};
use super::messages::{FromWorker, ToWorker};
use super::metrics::Metrics;
use super::net::{ControlReader, ControlWriter, HEARTBEAT, Heard, rendezvous};
use super::run::{FromProcess, Launch, Start, ToProcess, disk, open, suited};
use super::worker::{Restore, Shared, Workers};
use crate::Connectors;
use crate::error::{Result, RunError};

/// Hands connected sockets to timely and starts the workers of this process.
pub(crate) fn start_networked(shared: Shared, sockets: Vec<Option<TcpStream>>, index: usize) -> Result<Workers> {
    let threads = shared.settings.parallelism as usize;
    let hooks = Hooks::default();
    let inside = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
    let connected = initialize_networking_from_sockets(inside, sockets, index, threads, hooks);
    let (builders, guard) = connected
        .map_err(|error| RunError::external("process_lost", format!("could not use the connections: {error}")))?;
    Workers::start(Arc::new(shared), builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(guard))
}

/// How long a process that could not reach a peer waits to be ended by the leader, which knows why.
const LEADER_PATIENCE: Duration = Duration::from_secs(2);

/// Takes part in an attempt until the leader lets go, is gone, or is silent for too long. An error is the cause of this process's end,
/// already reported where possible.
///
/// `files` is the place of the job's checkpoints, if it has one.
pub async fn join_attempt(
    launch: Launch,
    connectors: Arc<dyn Connectors>,
    files: Option<Arc<dyn Files>>,
) -> Result<()> {
    let failed = |what: &str, error: std::io::Error| lost(format!("could not {what}: {error}"));
    let data = TcpListener::bind("127.0.0.1:0").map_err(|error| failed("listen for peers", error))?;
    let address = data.local_addr().map_err(|error| failed("listen for peers", error))?;
    let control =
        tokio::net::TcpStream::connect(launch.control).await.map_err(|error| failed("reach the leader", error))?;
    control.set_nodelay(true).map_err(|error| failed("reach the leader", error))?;
    let (reader, writer) = control.into_split();
    let (say, words) = unbounded_channel();
    say.send(FromProcess::Hello { identity: launch.identity.clone(), data: address }).expect("the receiver is here");
    let metrics = Arc::new(OnceLock::new());
    let mut speaking = tokio::spawn(speak(ControlWriter { socket: writer }, words, metrics.clone()));
    let (orders_sender, mut orders) = unbounded_channel();
    let mut leader = tokio::spawn(listen(ControlReader::new(reader), launch.heartbeat_timeout, orders_sender));

    let Some(ToProcess::Start(start)) = orders.recv().await else {
        return Err(lost_leader(leader.await));
    };
    let prepared = match restored(&start, files.as_deref()).await {
        Ok(restore) => prepare(*start, &launch, &connectors, files, restore),
        Err(error) => Err(error),
    };
    let (shared, addresses, mut messages) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(report(error, &say, &mut leader).await),
    };
    let halt = Arc::new(AtomicBool::new(false));
    let (me, halted) = (launch.identity.clone(), halt.clone());
    let meeting =
        tokio::task::spawn_blocking(move || rendezvous(&me, &data, &addresses, Duration::from_secs(30), &halted));
    let met = tokio::select! {
        met = meeting => met.map_err(|error| RunError::internal(error.to_string())).flatten(),
        end = &mut leader => {
            halt.store(true, Relaxed);
            return Err(lost_leader(end));
        }
    };
    let counts = shared.metrics.clone();
    let workers = match met.and_then(|sockets| start_networked(shared, sockets, launch.identity.index)) {
        Ok(workers) => workers,
        Err(error) => return Err(report(error, &say, &mut leader).await),
    };
    metrics.set(counts.clone()).expect("set once");
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(ToProcess::Worker(ToWorker::Leave)) => {
                    workers.order(&ToWorker::Leave);
                    // A leader that is gone has been noticed by the listener, and needs no last words.
                    let _ = say.send(FromProcess::Tails(counts.tails()));
                    let _ = say.send(FromProcess::Left(counts.counts()));
                    drop(say);
                    let _ = tokio::time::timeout(LEADER_PATIENCE, &mut speaking).await;
                    // Connections that are closed with data under way are resets to the peers: let them end by themselves.
                    let _ = tokio::task::spawn_blocking(move || workers.join(Duration::from_secs(2))).await;
                    return Ok(());
                }
                Some(ToProcess::Worker(order)) => workers.order(&order),
                Some(ToProcess::Start(_) | ToProcess::Alive) => {}
                None => return Err(lost_leader(leader.await)),
            },
            Some(message) = messages.recv() => {
                // Whether it arrives is the listener's business: with the connection the run is over.
                let _ = say.send(FromProcess::Worker(message));
            }
        }
    }
}

/// The state that the attempt goes on from.
async fn restored(start: &Start, files: Option<&dyn Files>) -> Result<Option<Arc<MemoryStore>>> {
    match (&start.restore, files) {
        (None, _) => Ok(None),
        (Some(manifest), Some(files)) => {
            Ok(Some(suited(Arc::new(manifest.load(files).await?), files, &start.settings).await?))
        }
        (Some(_), None) => Err(RunError::internal("a process that is to go on from a checkpoint was given no place")),
    }
}

type Prepared = (Shared, Vec<SocketAddr>, UnboundedReceiver<FromWorker>);

/// Plans and opens what the leader has planned and opened: all but the connections.
fn prepare(
    start: Start,
    launch: &Launch,
    connectors: &Arc<dyn Connectors>,
    files: Option<Arc<dyn Files>>,
    restore: Option<Arc<MemoryStore>>,
) -> Result<Prepared> {
    let workers = (start.settings.parallelism * start.settings.processes) as usize;
    let plan = Arc::new(crate::plan::plan(&start.graph, &start.settings, workers)?);
    let opened = open(&plan, connectors, &launch.identity.run_id, start.job.is_some())?;
    let metrics = Metrics::new(plan.stages.len(), start.settings.parallelism as usize);
    let budget_bytes = (start.settings.in_flight_bytes as usize).min(u32::MAX as usize);
    let (leader, messages) = unbounded_channel();
    let disk = disk(&start.settings, &plan, files.clone())?;
    let uploads = start.job.zip(files).map(|(job, files)| Uploads {
        place: Place { files, job, generation: launch.identity.generation },
        tokio: tokio::runtime::Handle::current(),
        leader: leader.clone(),
    });
    let shared = Shared {
        plan,
        assignment: start.assignment,
        generation: launch.identity.generation,
        first_epoch: start.first_epoch,
        now_us: start.now_us,
        uploads,
        restore: Restore::new(restore, start.settings.parallelism as usize),
        disk,
        sources: opened.sources,
        sinks: opened.sinks,
        metrics: Arc::new(metrics),
        budget: Arc::new(Semaphore::new(budget_bytes)),
        budget_bytes,
        tokio: tokio::runtime::Handle::current(),
        leader,
        settings: start.settings,
    };
    Ok((shared, start.addresses, messages))
}

/// With every so many heartbeats go late rows and dead letters: they may be megabytes.
const TAILS_EVERY: u32 = 5;

/// Says what is to be said, in order, and now and then that this process is there: with its counters, once it takes part.
async fn speak(
    mut writer: ControlWriter,
    mut words: UnboundedReceiver<FromProcess>,
    counting: Arc<OnceLock<Arc<Metrics>>>,
) {
    let mut beat = tokio::time::interval(HEARTBEAT);
    let mut beats = 0;
    loop {
        let message = tokio::select! {
            biased;
            word = words.recv() => match word {
                Some(word) => word,
                None => return,
            },
            _ = beat.tick() => FromProcess::Counts(counting.get().map(|now| now.counts()).unwrap_or_default()),
        };
        beats += u32::from(matches!(message, FromProcess::Counts(_)));
        let due = beats == TAILS_EVERY;
        if due {
            beats = 0;
        }
        let tails = counting.get().filter(|_| due).map(|now| now.tails()).filter(|tails| !tails.is_empty());
        for message in std::iter::once(message).chain(tails.map(FromProcess::Tails)) {
            if writer.send(&message).await.is_err() {
                return; // The listening side reports the loss.
            }
        }
    }
}

/// Passes on the leader's orders; ends with the loss of the leader. Apart from everything else, so that nothing can keep it from noticing.
async fn listen(mut reader: ControlReader, patience: Duration, orders: UnboundedSender<ToProcess>) -> RunError {
    loop {
        match reader.next_within(patience).await {
            Heard::Message(ToProcess::Alive) => {}
            Heard::Message(order) => {
                // Nobody takes orders any more when the process is about to end.
                let _ = orders.send(order);
            }
            Heard::Closed => return lost("the leader is gone".into()),
            Heard::Silence => return lost(format!("the leader has said nothing for {patience:?}")),
        }
    }
}

/// Tells the leader why this process cannot take part, and waits a while to be ended: the cause may be elsewhere, and then the leader
/// must hear of that, not of this process's end.
async fn report(error: RunError, say: &UnboundedSender<FromProcess>, leader: &mut JoinHandle<RunError>) -> RunError {
    let _ = say.send(FromProcess::Worker(FromWorker::Failed(error.clone())));
    let _ = tokio::time::timeout(LEADER_PATIENCE, leader).await;
    error
}

fn lost(message: String) -> RunError {
    RunError::external("process_lost", message)
}

fn lost_leader(end: std::result::Result<RunError, tokio::task::JoinError>) -> RunError {
    end.unwrap_or_else(|error| RunError::internal(error.to_string()))
}
