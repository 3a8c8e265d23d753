//! The processes of an attempt: started, met, listened to and ended.
//!
//! A process counts as lost when it ends, when its control connection closes, when it has been stopped at the start, and when it is silent
//! for longer than the heartbeat timeout. Whichever comes first is named; until all processes have met, too.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use state::Manifest;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::messages::{Assignment, FromWorker, Input, ToWorker};
use super::net::{ControlReader, ControlWriter, HEARTBEAT, Heard, Identity, rendezvous};
use super::run::{FromProcess, Launch, RunRequest, Start, Surroundings, ToProcess, met_broken_connection};
use super::worker::{Shared, Workers};
use crate::error::{Result, RunError};
use crate::sink::Commits;

/// The processes of an attempt, this one first.
pub(super) struct Attempt {
    local: Option<Workers>,
    remote: Vec<Remote>,
    pub commits: Vec<Commits>,
    /// What was said while the processes met, in order.
    pub early: VecDeque<Input>,
}

struct Remote {
    index: usize,
    orders: UnboundedSender<ToProcess>,
    child: Child,
}

/// What all processes of an attempt begin with.
pub(super) struct Beginning<'a> {
    pub request: &'a RunRequest,
    pub checkpoint: &'a Option<Manifest>,
    pub assignment: &'a Assignment,
    pub first_epoch: u64,
    pub now_us: i64,
}

/// How long all processes together may take to start and to meet.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A process that has said hello speaks every [`HEARTBEAT`]; until all have met it may be silent no longer than this.
const SILENCE_AT_START: Duration = Duration::from_secs(5);
/// A process may be stopped for so long while the processes meet.
const STOPPED_AT_START: Duration = Duration::from_secs(2);
/// How often children are looked at while the processes meet.
const LOOK: Duration = Duration::from_millis(50);
/// How long a process has for its last words, and then for its end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

impl Attempt {
    /// Starts the workers of this process and all further processes. After an error none of them is left.
    pub async fn start(
        beginning: Beginning<'_>,
        around: &Surroundings,
        shared: Shared,
        inputs: &UnboundedSender<Input>,
        input: &mut UnboundedReceiver<Input>,
    ) -> Result<Attempt> {
        let settings = &beginning.request.settings;
        let (threads, processes) = (settings.parallelism as usize, settings.processes as usize);
        let commits = shared.sinks.iter().map(|sink| sink.commits()).collect();
        if processes == 1 {
            let config = if threads == 1 {
                timely::CommunicationConfig::Thread
            } else {
                timely::CommunicationConfig::Process(threads)
            };
            let (allocators, others) = config.try_build().map_err(RunError::internal)?;
            let local = Workers::start(Arc::new(shared), allocators, others)?;
            return Ok(Attempt { local: Some(local), remote: Vec::new(), commits, early: VecDeque::new() });
        }
        let mut meeting = Meeting { children: BTreeMap::new(), early: VecDeque::new() };
        match meeting.hold(beginning, around, shared, inputs, input).await {
            Ok((local, mut orders)) => {
                let remote = meeting.children.into_iter().map(|(index, child)| {
                    let orders = orders.remove(&index).expect("every child was met");
                    Remote { index, orders, child }
                });
                Ok(Attempt { local: Some(local), remote: remote.collect(), commits, early: meeting.early })
            }
            Err(error) => {
                for mut child in meeting.children.into_values() {
                    // Also ends one that is stopped. An error says that it has ended by itself.
                    let _ = child.kill().await;
                }
                Err(error)
            }
        }
    }

    /// Gives every worker of every process an order.
    pub fn order(&self, order: ToWorker) {
        if let Some(local) = &self.local {
            local.order(&order);
        }
        for remote in &self.remote {
            // A process that is gone is noticed by its connection.
            let _ = remote.orders.send(ToProcess::Worker(order.clone()));
        }
    }

    /// Whether other processes take part.
    pub fn has_others(&self) -> bool {
        !self.remote.is_empty()
    }

    /// How a process ended that was lost, if it has.
    pub async fn status(&mut self, process: usize) -> Option<ExitStatus> {
        let remote = self.remote.iter_mut().find(|remote| remote.index == process)?;
        tokio::time::timeout(Duration::from_millis(200), remote.child.wait()).await.ok()?.ok()
    }

    /// Lets all workers leave after a run that went well, and gives `heard` what the other processes say until each has said its last.
    pub async fn leave(&self, input: &mut UnboundedReceiver<Input>, mut heard: impl FnMut(Input)) {
        self.order(ToWorker::Leave);
        let deadline = tokio::time::Instant::now() + LEAVE_PATIENCE;
        let mut left = 0;
        while left < self.remote.len() {
            let Ok(Some(input)) = tokio::time::timeout_at(deadline, input.recv()).await else {
                tracing::warn!("a process of the run did not report its last counters");
                return;
            };
            // A process that was lost now has nothing more to say, and the run is over.
            left += usize::from(matches!(input, Input::Left { .. } | Input::Lost { .. }));
            heard(input);
        }
    }

    /// Ends all processes. Those of a run that went well have been told to leave.
    pub async fn end(mut self, failed: bool) {
        if failed {
            self.order(ToWorker::Leave);
        }
        let alone = self.remote.is_empty();
        for remote in &mut self.remote {
            if failed {
                // It is ours and has nothing to lose: what is not decided is not visible.
                let _ = remote.child.start_kill();
            }
        }
        for mut remote in self.remote.drain(..) {
            let ended = tokio::time::timeout(LEAVE_PATIENCE, remote.child.wait()).await;
            if ended.is_err() {
                let _ = remote.child.kill().await;
            }
        }
        if let Some(local) = self.local.take()
            && (alone || !failed)
        {
            let joined = tokio::task::spawn_blocking(move || local.join(Duration::from_secs(5))).await;
            if !joined.unwrap_or(false) {
                tracing::warn!("worker threads did not end within 5 s and were left behind");
            }
        }
    }
}

/// The processes while they are started and meet.
struct Meeting {
    children: BTreeMap<usize, Child>,
    early: VecDeque<Input>,
}

type Orders = BTreeMap<usize, UnboundedSender<ToProcess>>;

impl Meeting {
    async fn hold(
        &mut self,
        beginning: Beginning<'_>,
        around: &Surroundings,
        shared: Shared,
        inputs: &UnboundedSender<Input>,
        input: &mut UnboundedReceiver<Input>,
    ) -> Result<(Workers, Orders)> {
        let (request, settings) = (beginning.request, &beginning.request.settings);
        let Some(launch) = &around.launch else {
            return Err(RunError::internal("several processes were asked for where none can be started"));
        };
        let failed = |what: &str, error: std::io::Error| lost(format!("could not {what}: {error}"));
        let unheard = |error| failed("listen for processes", error);
        let control = tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(unheard)?;
        let data = TcpListener::bind("127.0.0.1:0").map_err(unheard)?;
        let address = control.local_addr().map_err(unheard)?;
        let token = uuid::Uuid::new_v4().to_string();
        let me = Identity { run_id: request.run_id.clone(), generation: request.generation, index: 0, token };
        let timeout = settings.heartbeat_timeout.duration();
        for index in 1..settings.processes as usize {
            let identity = Identity { index, ..me.clone() };
            let launched = launch(&Launch { control: address, identity, heartbeat_timeout: timeout });
            self.children
                .insert(index, launched.map_err(|error| failed(&format!("start process {index} of the run"), error))?);
        }
        let all: Vec<usize> = self.children.keys().copied().collect();
        let met = tokio::select! {
            met = greet_all(&control, &me, all, inputs, timeout) => met?,
            lost = self.loss(input) => return Err(lost),
        };
        let mut addresses = vec![data.local_addr().map_err(unheard)?];
        addresses.extend(met.values().map(|(_, data)| *data));
        let orders: Orders = met.into_iter().map(|(index, (orders, _))| (index, orders)).collect();
        for orders in orders.values() {
            let start = Start {
                addresses: addresses.clone(),
                graph: request.graph.clone(),
                settings: settings.clone(),
                assignment: beginning.assignment.clone(),
                first_epoch: beginning.first_epoch,
                now_us: beginning.now_us,
                job: around.durable.as_ref().map(|durable| durable.job.clone()),
                restore: beginning.checkpoint.clone(),
            };
            // One that is gone is noticed by its connection.
            let _ = orders.send(ToProcess::Start(Box::new(start)));
        }
        let halt = Arc::new(AtomicBool::new(false));
        let halted = halt.clone();
        // However this wait ends, also when it is given up from outside, the meeting does not go on alone.
        let _halts = HaltOnDrop(halt);
        let meeting = tokio::task::spawn_blocking(move || rendezvous(&me, &data, &addresses, START_PATIENCE, &halted));
        let sockets = tokio::select! {
            sockets = meeting => sockets.map_err(|error| RunError::internal(error.to_string()))??,
            lost = self.loss(input) => return Err(lost),
        };
        Ok((super::process::start_networked(shared, sockets, 0)?, orders))
    }

    /// Ends with the first loss of a process, or when one cannot take part.
    async fn loss(&mut self, input: &mut UnboundedReceiver<Input>) -> RunError {
        let mut look = tokio::time::interval(LOOK);
        let mut stopped: BTreeMap<usize, Instant> = BTreeMap::new();
        loop {
            tokio::select! {
                heard = input.recv() => match heard.expect("the caller holds a sender") {
                    Input::Lost { process, error } => {
                        // Whoever waits for this may stop waiting meanwhile: then the loss is heard later.
                        self.early.push_back(Input::Lost { process, error: error.clone() });
                        let child = self.children.get_mut(&process).expect("only children are listened to");
                        let status = tokio::time::timeout(Duration::from_millis(200), child.wait()).await;
                        return with_status(error, status.ok().and_then(Result::ok));
                    }
                    // One that has lost or not reached a peer has a cause elsewhere, which is heard of.
                    Input::Worker(FromWorker::Failed(error)) if error.code != LOST && !met_broken_connection(&error) => {
                        return error;
                    }
                    other => self.early.push_back(other),
                },
                _ = look.tick() => for (&index, child) in &mut self.children {
                    if let Ok(Some(status)) = child.try_wait() {
                        return lost(format!("process {index} ended before it took part: {status}"));
                    }
                    if !child.id().is_some_and(is_stopped) {
                        stopped.remove(&index);
                    } else if stopped.entry(index).or_insert_with(Instant::now).elapsed() > STOPPED_AT_START {
                        return lost(format!("process {index} is stopped and cannot take part"))
                            .hint("somebody has sent it SIGSTOP; let it run");
                    }
                }
            }
        }
    }
}

struct HaltOnDrop(Arc<AtomicBool>);

impl Drop for HaltOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

const LOST: &str = "process_lost";

fn lost(message: String) -> RunError {
    RunError::external(LOST, message)
}

/// The loss of a process, with what the system says of its end.
pub(super) fn with_status(mut error: RunError, status: Option<ExitStatus>) -> RunError {
    if let Some(status) = status {
        error.message.push_str(&format!(" ({status})"));
    }
    error
}

/// Whether a process has got SIGSTOP (or is being traced). False where that cannot be known.
fn is_stopped(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name before the state is in parentheses, and may hold some itself.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

type Met = BTreeMap<usize, (UnboundedSender<ToProcess>, SocketAddr)>;

/// Waits until every child has said hello on its control connection; each is listened to and spoken to from then on.
async fn greet_all(
    control: &tokio::net::TcpListener,
    me: &Identity,
    mut missing: Vec<usize>,
    inputs: &UnboundedSender<Input>,
    timeout: Duration,
) -> Result<Met> {
    let mut met = Met::new();
    let deadline = tokio::time::Instant::now() + START_PATIENCE;
    while let Some(first) = missing.first() {
        let Ok(accepted) = tokio::time::timeout_at(deadline, control.accept()).await else {
            return Err(lost(format!("process {first} did not report within {START_PATIENCE:?}")));
        };
        let Ok((socket, _)) = accepted else { continue };
        if let Some((index, (reader, writer, data))) = greet(socket, me).await
            && let Some(at) = missing.iter().position(|other| *other == index)
        {
            missing.remove(at);
            let (orders, order) = unbounded_channel();
            tokio::spawn(speak(writer, order));
            tokio::spawn(listen(index, reader, inputs.clone(), timeout));
            met.insert(index, (orders, data));
        }
    }
    Ok(met)
}

async fn greet(socket: TcpStream, me: &Identity) -> Option<(usize, (ControlReader, ControlWriter, SocketAddr))> {
    socket.set_nodelay(true).ok()?;
    let (reader, writer) = socket.into_split();
    let mut reader = ControlReader::new(reader);
    let hello = tokio::time::timeout(Duration::from_secs(2), reader.next::<FromProcess>()).await.ok()??;
    match hello {
        FromProcess::Hello { identity, data } if identity.same_attempt(me) => {
            Some((identity.index, (reader, ControlWriter { socket: writer }, data)))
        }
        _ => None,
    }
}

/// Passes on orders, and says now and then that the leader is there.
async fn speak(mut writer: ControlWriter, mut orders: UnboundedReceiver<ToProcess>) {
    let mut beat = tokio::time::interval(HEARTBEAT);
    loop {
        let message = tokio::select! {
            order = orders.recv() => match order {
                Some(order) => order,
                None => return,
            },
            _ = beat.tick() => ToProcess::Alive,
        };
        if writer.send(&message).await.is_err() {
            return; // The reading side reports the loss.
        }
    }
}

/// Passes on what a process says; silence beyond the timeout and a closed connection are a loss.
async fn listen(process: usize, mut reader: ControlReader, inputs: UnboundedSender<Input>, timeout: Duration) {
    let mut patience = timeout.min(SILENCE_AT_START);
    loop {
        let input = match reader.next_within(patience).await {
            Heard::Message(FromProcess::Worker(message)) => Input::Worker(message),
            Heard::Message(FromProcess::Counts(counts)) => {
                if !counts.is_empty() {
                    patience = timeout; // It takes part.
                }
                Input::Counts { process, counts }
            }
            Heard::Message(FromProcess::Tails(tails)) => Input::Tails(tails),
            Heard::Message(FromProcess::Left(counts)) => Input::Left { process, counts },
            Heard::Message(FromProcess::Hello { .. }) => continue,
            Heard::Closed => {
                Input::Lost { process, error: lost(format!("process {process} of the run has ended unexpectedly")) }
            }
            Heard::Silence => {
                let message = format!(
                    "process {process} of the run has said nothing for {patience:?}: it is stopped or overloaded"
                );
                Input::Lost { process, error: lost(message) }
            }
        };
        let over = matches!(input, Input::Lost { .. } | Input::Left { .. });
        if inputs.send(input).is_err() || over {
            return;
        }
    }
}
