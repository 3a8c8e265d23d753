//! The process of an attempt that a control plane has started: see [`control::attempt`] for what they say to each other.
//!
//! It lives in a session of its own and outlives who started it. Whatever ends it, save a kill, it leaves an outcome first.

mod directory;
mod limits;
mod questions;
mod rows;
mod socket;
mod status;
mod view;

use std::io::BufRead;
use std::os::unix::net::UnixListener as BoundListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectors::ViewHost;
use control::attempt::{AttemptSpec, CheckpointSpec, Credentials, End, RestoreSpec, StopMode};
use engine::RunError;
use engine::runtime::{Progress, RestorePoint, RunRequest, Verb, node_of};
use graph::SinkConnector;
use state::FileRef;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use views::PublishedBy;

use self::directory::Directory;
use self::questions::Questions;
use self::rows::Rows;
use self::socket::{Reader, Service};
use crate::{
    Access, Attempt, Checkpoints, Children, EXIT_INTERNAL, Storage, close_up, huge_pages, io_runtime, panics,
    run_attempt,
};

const OUTCOME: &str = "outcome.json";
/// Room on the disk that an outcome finds in any case. Most are smaller; figures of many splits may need more.
const OUTCOME_BYTES: u32 = 64 << 10;

const EXIT_DONE: u8 = 0;
const EXIT_FAILED: u8 = 1;
const EXIT_INVALID: u8 = 2;
const EXIT_CANCELLED: u8 = 130;

/// The most time between the epochs of a query, and the most bytes of one that a source instance sends: its rows leave with their
/// epochs, so the first come soon, and what is in memory of them stays small.
const QUERY_EPOCH_US: i64 = 200_000;
const QUERY_EPOCH_BYTES: u64 = 8 << 20;
/// What of a query may be on its way at once.
const QUERY_IN_FLIGHT_BYTES: u64 = 64 << 20;
/// How long a query waits for its reader.
const READER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a query that has failed waits for a reader to hear of it.
const BREAK_PATIENCE: Duration = Duration::from_millis(500);

/// The code of what ends a run that was to end.
const CANCELLED: &str = "cancelled";

/// Runs the attempt that `directory` describes, to its end.
pub fn attempt_process(directory: &Path) -> ExitCode {
    huge_pages::none_yet();
    let directory = match begin(directory) {
        Ok(directory) => directory,
        Err(error) => {
            tracing::error!("cannot begin an attempt in {}: {error}", directory.display());
            return ExitCode::from(EXIT_INVALID);
        }
    };
    let progress = watch::Sender::new(Progress::default());
    let last = Arc::new(LastWords::new(directory, progress.subscribe()));
    let for_panics = last.clone();
    panics::report_panics_with(false, move |message| for_panics.panicked(message));
    let end = match prepare(&last) {
        Ok(hosted) => hosted.host(progress, &last),
        Err(error) => end_of(Err(error)),
    };
    // Whoever was first has written; this one only waits then.
    ExitCode::from(last.say(end))
}

/// What must be before there is a second thread.
fn begin(path: &Path) -> std::io::Result<Directory> {
    let directory = Directory::open(path)?;
    directory.claim()?;
    if let Err(error) = directory.reserve(OUTCOME, OUTCOME_BYTES) {
        tracing::warn!("no room could be reserved for the outcome: {error}");
    }
    // SAFETY: setsid and getsid read and set numbers of this process.
    if unsafe { libc::setsid() < 0 && libc::getsid(0) != libc::getpid() } {
        tracing::warn!("no session of its own: {}", std::io::Error::last_os_error());
    }
    // SAFETY: signal reads its arguments.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
    Ok(directory)
}

/// An attempt that can begin.
struct Hosted {
    spec: AttemptSpec,
    credentials: Credentials,
    listener: BoundListener,
}

fn prepare(last: &LastWords) -> Result<Hosted, RunError> {
    let failed =
        |what: &str, error: std::io::Error| RunError::external("process_failed", format!("cannot {what}: {error}"));
    let spec = last.directory.spec().map_err(|error| failed("read spec.json", error))?;
    let _ = last.threads.set(spec.settings.parallelism as u32);
    if let Some(percent) = spec.limits.cpu_percent {
        limits::share_processor(percent).map_err(|error| failed("lower the priority of the process", error))?;
    }
    let listener = last.directory.listen().map_err(|error| failed("listen at control.sock", error))?;
    close_up().map_err(|error| failed("keep others from looking into the process", error))?;
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    // The error of the parser would show a part of the secrets.
    let credentials = read.ok().and_then(|_| serde_json::from_str(&line).ok()).ok_or_else(|| {
        // As any other end of a process that its server was not there for.
        RunError::external("process_lost", "the server ended before it had handed over what the process must know")
    })?;
    Ok(Hosted { spec, credentials, listener })
}

impl Hosted {
    fn host(self, progress: watch::Sender<Progress>, last: &Arc<LastWords>) -> Ending {
        let runtime = match io_runtime() {
            Ok(runtime) => runtime,
            Err(error) => {
                return end_of(Err(RunError::external("process_failed", format!("cannot start threads: {error}"))));
            }
        };
        let end = runtime.block_on(self.run(progress, last));
        // What is still there waits for something that no longer matters.
        runtime.shutdown_background();
        end
    }

    async fn run(self, progress: watch::Sender<Progress>, last: &Arc<LastWords>) -> Ending {
        let Hosted { mut spec, credentials, listener } = self;
        let (verb, obeyed) = watch::channel(Verb::Run);
        let verb = Arc::new(verb);
        if let Err(error) = obey_signals(verb.clone()) {
            return end_of(Err(RunError::external("process_failed", format!("cannot listen for signals: {error}"))));
        }
        let listener = match UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                return end_of(Err(RunError::external(
                    "process_failed",
                    format!("cannot serve control.sock: {error}"),
                )));
            }
        };
        let children = Children::default();
        let (rows, pieces) = match spec.serve_rows {
            true => Some(Rows::new(verb.clone())).unzip(),
            false => (None, None),
        };
        let reader = watch::Sender::new(Reader::Awaited);
        let by = PublishedBy { run_id: spec.run_id.clone(), generation: spec.generation };
        let views = ViewHost::new(&spec.views_dir, by);
        let _ = last.views.set(views.clone());
        let questions = Questions::new();
        let (ask, asked) = mpsc::unbounded_channel();
        let service = Service {
            token: credentials.token,
            questions: questions.clone(),
            status: {
                let (progress, children, verb) = (progress.subscribe(), children.clone(), verb.clone());
                let views = views.clone();
                let threads = spec.settings.parallelism as u32;
                Box::new(move |ledgers| {
                    let usage = limits::usage(&children);
                    // Whoever writes it does not wait for the text that is made of it.
                    let progress = progress.borrow().clone();
                    let status =
                        status::status(&progress, threads, *verb.borrow() != Verb::Run, removed(&views), usage);
                    if ledgers { status::with_ledgers(status, &progress) } else { status }
                })
            },
            stop: {
                let verb = verb.clone();
                Box::new(move |mode| stop(&verb, mode))
            },
            checkpoint: Box::new(move || {
                let (answer, epoch) = oneshot::channel();
                // Without a receiver the run is over, and the answer is dropped with the question.
                let _ = ask.send(answer);
                epoch
            }),
            rows: Mutex::new(pieces),
            views: Some(views.clone()),
            reader: reader.clone(),
        };
        tokio::spawn(socket::serve(listener, Arc::new(service)));
        tokio::spawn(huge_pages::once_large());
        if let Some(limit) = spec.limits.memory_bytes
            && let Err(error) = watch_memory(limit, children.clone(), last.clone())
        {
            let message = format!("cannot start the thread that watches the memory limit: {error}");
            return end_of(Err(RunError::external("process_failed", message)));
        }
        let out_of_time = Arc::new(AtomicBool::new(false));
        if let Some(seconds) = spec.limits.seconds {
            let (verb, out_of_time) = (verb.clone(), out_of_time.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                out_of_time.store(true, SeqCst);
                verb.send_replace(Verb::Cancel);
            });
        }
        if let Some(rows) = &rows {
            spec.settings.epoch_interval.us = spec.settings.epoch_interval.us.min(QUERY_EPOCH_US);
            spec.settings.epoch_max_bytes = spec.settings.epoch_max_bytes.min(QUERY_EPOCH_BYTES);
            spec.settings.in_flight_bytes = spec.settings.in_flight_bytes.min(QUERY_IN_FLIGHT_BYTES);
            tokio::spawn(end_without_reader(rows.clone(), reader.subscribe(), verb.clone()));
        }
        let (limits, graph) = (spec.limits.clone(), spec.graph.clone());
        let result = match check(&spec) {
            Err(error) => Err(error),
            Ok(()) => {
                let restore = restore_points(spec.checkpoints.as_ref());
                let first_epoch = spec.checkpoints.as_ref().map_or(1, |checkpoints| checkpoints.first_epoch);
                let attempt = Attempt {
                    request: RunRequest {
                        run_id: spec.run_id,
                        generation: spec.generation,
                        graph: spec.graph,
                        settings: spec.settings,
                        start: spec.start,
                        restore,
                        first_epoch,
                        stop_after: None,
                    },
                    access: Access {
                        allowed_roots: spec.allowed_roots,
                        connections: credentials.connections,
                        egress: spec.egress,
                        restricted: true,
                    },
                    on_print: rows.as_ref().map_or_else(|| Arc::new(|_| {}) as _, Rows::on_print),
                    process_arguments: vec!["job-process".into(), "--log-lines".into()],
                    children,
                    views: Some(views),
                    verb: obeyed,
                    progress,
                    checkpoints: spec.checkpoints.map(|checkpoints| Checkpoints {
                        job_id: checkpoints.job_id,
                        place: Storage { place: checkpoints.place, options: credentials.storage },
                        authority: Arc::new(questions),
                    }),
                    asked: Some(asked),
                };
                run_attempt(attempt).await
            }
        };
        // A run can end well although its rows did not all reach the reader: what it returned is not all then.
        let result = match (result, rows.as_ref().and_then(Rows::failure)) {
            (Ok(_), Some(why)) => Err(why),
            (Err(error), Some(why)) if error.code == CANCELLED => Err(why),
            (result, _) => result,
        };
        let result = match result {
            Err(error) if error.code == CANCELLED && out_of_time.load(SeqCst) => Err(too_long(limits.seconds)),
            result => result,
        };
        let result = result.map_err(|error| RunError {
            operator: error.operator.as_deref().map(|stage| node_of(&graph, stage).to_string()),
            ..error
        });
        let end = end_of(result.map(|outcome| outcome.finished));
        let well = end.0 == End::Finished;
        if let Some(rows) = rows {
            // The outcome is there when the reader meets the end.
            last.say(end.clone());
            hand_over(&rows, &mut reader.subscribe(), well).await;
        }
        end
    }
}

/// Rows that views have removed.
fn removed(views: &ViewHost) -> status::Removed {
    let all = views.views();
    let counted = all.iter().map(|view| (view.definition().name.clone(), view.removed_rows()));
    counted.filter(|(_, rows)| *rows > 0).collect()
}

/// What can be seen of a specification before it runs.
fn check(spec: &AttemptSpec) -> Result<(), RunError> {
    let prints = |node: &&graph::Node| matches!(&node.operator, graph::Operator::Sink(sink) if matches!(sink.connector, SinkConnector::Print(_)));
    match spec.graph.nodes.iter().filter(prints).count() {
        count if spec.serve_rows && count != 1 => {
            Err(RunError::user("query_invalid", format!("a query has one print table, this one has {count}")))
        }
        _ => Ok(()),
    }
}

/// What the attempt may go on from.
fn restore_points(checkpoints: Option<&CheckpointSpec>) -> Vec<RestorePoint> {
    let point = |restore: &RestoreSpec| RestorePoint {
        epoch: restore.epoch,
        previous: restore.previous,
        committed: restore.committed,
        commits: restore.commits.clone(),
        savepoint: restore.savepoint,
        manifest: FileRef { path: restore.manifest.clone(), bytes: restore.bytes, sha256: restore.sha256.clone() },
    };
    checkpoints.iter().flat_map(|checkpoints| &checkpoints.restore).map(point).collect()
}

/// Idempotent; what was asked for first may be sharpened, not softened.
fn stop(verb: &watch::Sender<Verb>, mode: StopMode) {
    let wanted = match mode {
        StopMode::Now => Verb::Cancel,
        StopMode::Drain => Verb::Drain,
        StopMode::Savepoint => Verb::Stop,
    };
    verb.send_if_modified(|verb| {
        let asked = match *verb {
            Verb::Run => None,
            Verb::Cancel => Some(StopMode::Now),
            Verb::Drain => Some(StopMode::Drain),
            Verb::Stop => Some(StopMode::Savepoint),
        };
        let sharper = asked.is_none_or(|asked| asked.may_become(mode));
        if sharper {
            tracing::info!(?mode, "the run is to end");
            *verb = wanted;
        }
        sharper
    });
}

fn obey_signals(verb: Arc<watch::Sender<Verb>>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        while terminate.recv().await.is_some() {
            stop(&verb, StopMode::Now);
        }
    });
    Ok(())
}

/// A query ends when its reader goes away, or does not come.
async fn end_without_reader(rows: Rows, mut reader: watch::Receiver<Reader>, verb: Arc<watch::Sender<Verb>>) {
    let came = reader.wait_for(|reader| *reader != Reader::Awaited);
    if tokio::time::timeout(READER_PATIENCE, came).await.is_ok() {
        rows.gone().await;
    }
    verb.send_replace(Verb::Cancel);
}

/// Waits until the reader of a query has all rows, or is gone. Of a query that has not succeeded there is nothing to wait for: the stream
/// breaks off, at the latest with the process.
async fn hand_over(rows: &Rows, reader: &mut watch::Receiver<Reader>, well: bool) {
    let patience = if well { READER_PATIENCE } else { BREAK_PATIENCE };
    let came = reader.wait_for(|reader| *reader != Reader::Awaited);
    if tokio::time::timeout(patience, came).await.is_err() {
        return;
    }
    let taken = async {
        rows.end(well).await;
        // An error would say that there can be no reader any more.
        let _ = reader.wait_for(|reader| *reader == Reader::Done).await;
    };
    match well {
        true => taken.await,
        false => _ = tokio::time::timeout(BREAK_PATIENCE, taken).await,
    }
}

/// Looks at the memory of all processes of the attempt, on a thread of its own: what is to be noticed may hold up all others.
fn watch_memory(limit: u64, children: Children, last: Arc<LastWords>) -> std::io::Result<()> {
    let watch = move || {
        loop {
            std::thread::sleep(limits::LOOK);
            let resident = limits::processes(&children).into_iter().map(limits::resident_bytes);
            for (index, resident) in resident.enumerate() {
                if let Some(resident) = resident.filter(|resident| *resident > limit) {
                    let error = limits::too_much_memory(index, resident, limit, &last.progress.borrow());
                    tracing::error!("{error}");
                    // The other processes end with this one.
                    std::process::exit(last.say(end_of(Err(error))).into());
                }
            }
        }
    };
    std::thread::Builder::new().name("memory".into()).spawn(watch).map(drop)
}

fn too_long(seconds: Option<u64>) -> RunError {
    let seconds = seconds.unwrap_or_default();
    RunError::user("time_limit", format!("the run took longer than the {seconds} s that it may take"))
        .hint("raise the time limit, or read less")
}

/// How an attempt ended, and the exit code for it. One that ended well has finished, or was stopped where it can go on.
type Ending = (End, u8);

fn end_of(result: Result<bool, RunError>) -> Ending {
    match result {
        Ok(true) => (End::Finished, EXIT_DONE),
        Ok(false) => (End::Stopped, EXIT_DONE),
        Err(error) if error.code == CANCELLED => (End::Cancelled, EXIT_CANCELLED),
        Err(error) => {
            let internal = error.fault == engine::Fault::Internal;
            tracing::error!(code = error.code, operator = error.operator, "the run has failed: {error}");
            (End::Failed(status::failure(&error)), if internal { EXIT_INTERNAL } else { EXIT_FAILED })
        }
    }
}

/// Writes the outcome, once: the first cause counts.
struct LastWords {
    directory: Directory,
    progress: watch::Receiver<Progress>,
    threads: std::sync::OnceLock<u32>,
    /// Those of the run, once they are known.
    views: std::sync::OnceLock<ViewHost>,
    claimed: AtomicBool,
    /// The exit code that goes with what was written.
    written: Mutex<Option<u8>>,
}

impl LastWords {
    fn new(directory: Directory, progress: watch::Receiver<Progress>) -> LastWords {
        LastWords {
            directory,
            progress,
            threads: std::sync::OnceLock::new(),
            views: std::sync::OnceLock::new(),
            claimed: AtomicBool::new(false),
            written: Mutex::new(None),
        }
    }

    /// Returns when an outcome is written, this one or the one before it, with its exit code.
    fn say(&self, (end, code): Ending) -> u8 {
        if self.claimed.swap(true, SeqCst) {
            let deadline = std::time::Instant::now() + Duration::from_secs(10);
            loop {
                if let Some(code) = self.written.lock().ok().and_then(|written| *written) {
                    return code;
                }
                if std::time::Instant::now() > deadline {
                    return code;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let threads = self.threads.get().copied().unwrap_or(1);
        let outcome =
            status::outcome(end, &self.progress.borrow(), threads, self.views.get().map(removed).unwrap_or_default());
        faults::pass("outcome.before");
        if let Err(error) = self.directory.write(OUTCOME, &outcome) {
            tracing::error!("cannot write outcome.json: {error}; it would be {:?}", outcome.end);
        }
        faults::pass("outcome.after");
        if let Ok(mut written) = self.written.lock() {
            *written = Some(code);
        }
        code
    }

    fn panicked(&self, message: &str) {
        self.say(end_of(Err(RunError::internal(message))));
    }
}
