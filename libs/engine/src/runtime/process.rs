//! A further process of an attempt: reports to the leader, meets its peers, runs its workers.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use timely::communication::allocator::AllocatorBuilder;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::initialize::Hooks;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

use super::messages::ToWorker;
use super::metrics::Metrics;
use super::net::{ControlReader, ControlWriter, rendezvous};
use super::run::{FromProcess, Launch, Start, ToProcess, open};
use super::worker::{Shared, Workers};
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

/// How often a process reports its counters, which is also its heartbeat.
const HEARTBEAT: Duration = Duration::from_millis(200);

/// Takes part in an attempt until the leader lets go. An error is the cause of this process's end, already reported where possible.
pub async fn join_attempt(launch: Launch, connectors: Arc<dyn Connectors>) -> Result<()> {
    let failed =
        |what: &str, error: std::io::Error| RunError::external("process_lost", format!("could not {what}: {error}"));
    let data = TcpListener::bind("127.0.0.1:0").map_err(|error| failed("listen for peers", error))?;
    let address = data.local_addr().map_err(|error| failed("listen for peers", error))?;
    let control =
        tokio::net::TcpStream::connect(launch.control).await.map_err(|error| failed("reach the leader", error))?;
    control.set_nodelay(true).map_err(|error| failed("reach the leader", error))?;
    let (reader, writer) = control.into_split();
    let (mut reader, mut writer) = (ControlReader::new(reader), ControlWriter { socket: writer });
    let hello = FromProcess::Hello { identity: launch.identity.clone(), data: address };
    writer.send(&hello).await.map_err(|error| failed("greet the leader", error))?;
    let Some(ToProcess::Start(start)) = reader.next::<ToProcess>().await else {
        return Err(RunError::external("process_lost", "the leader hung up before it began"));
    };
    let start: Start = *start;
    let workers = (start.settings.parallelism * start.settings.processes) as usize;
    let plan = Arc::new(crate::plan::plan(&start.graph, &start.settings, workers)?);
    let opened = open(&plan, &connectors, &launch.identity.run_id)?;
    let metrics = Arc::new(Metrics::new(
        plan.stages.iter().map(|stage| stage.operator.clone()),
        start.settings.parallelism as usize,
    ));
    let budget_bytes = (start.settings.in_flight_bytes as usize).min(u32::MAX as usize);
    let (leader, mut messages) = unbounded_channel();
    let shared = Shared {
        plan,
        assignment: start.assignment,
        generation: launch.identity.generation,
        first_epoch: start.first_epoch,
        now_us: start.now_us,
        checkpoints: start.checkpoints,
        restore: None,
        sources: opened.sources,
        sinks: opened.sinks,
        metrics: metrics.clone(),
        budget: Arc::new(Semaphore::new(budget_bytes)),
        budget_bytes,
        tokio: tokio::runtime::Handle::current(),
        leader,
        settings: start.settings,
    };
    let (me, addresses) = (launch.identity.clone(), start.addresses);
    let sockets =
        tokio::task::spawn_blocking(move || rendezvous(&me, &data, &addresses, Duration::from_secs(30))).await;
    let sockets = sockets.map_err(|error| RunError::internal(error.to_string()))??;
    let workers = start_networked(shared, sockets, launch.identity.index)?;
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    let gone = |_| RunError::external("process_lost", "the leader is gone");
    loop {
        tokio::select! {
            order = reader.next::<ToProcess>() => match order {
                Some(ToProcess::Worker(ToWorker::Leave)) => {
                    workers.order(&ToWorker::Leave);
                    writer.send(&FromProcess::Counts(metrics.counts())).await.map_err(gone)?;
                    // Connections that are closed with data under way are resets to the peers: let them end by themselves.
                    let _ = tokio::task::spawn_blocking(move || workers.join(Duration::from_secs(2))).await;
                    return Ok(());
                }
                Some(ToProcess::Worker(order)) => workers.order(&order),
                Some(ToProcess::Start(_)) => {}
                None => return Err(RunError::external("process_lost", "the leader is gone")),
            },
            message = messages.recv() => if let Some(message) = message {
                writer.send(&FromProcess::Worker(message)).await.map_err(gone)?;
            },
            _ = heartbeat.tick() => writer.send(&FromProcess::Counts(metrics.counts())).await.map_err(gone)?,
        }
    }
}
