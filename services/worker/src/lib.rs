//! Hosts the engine in a process: leads an attempt of a run, or takes part in one.
//!
//! [`run_attempt`] leads, with the connectors of this build. Further processes are the same program, started again with the caller's
//! arguments; there, [`job_process`] takes part. What such a process must know, the secret of the attempt included, comes through a pipe on
//! its standard input. The pipe stays open as long as the leading process lives, however that ends, so no process is ever left behind.
//! [`attempt_process`] is the whole life of a process that a control plane has started.
//! This crate knows nothing of SQL and of what is shown to whom.

mod access;
mod fsck;
mod hosted;
mod huge_pages;
mod inspect;
mod log;
mod panics;
mod processes;
mod savepoints;

use std::collections::BTreeMap;
use std::io::{BufRead, PipeWriter, Read, Write};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex};

use connectors::{OnPrint, ViewHost};
use engine::RunError;
use engine::runtime::{
    Authority, CheckpointRequest, Durable, Launch, Outcome, Progress, RunRequest, Surroundings, Verb, join_attempt,
};
use serde::{Deserialize, Serialize};
use state::Files;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

pub use access::Access;
pub use hosted::attempt_process;
pub use huge_pages::none_yet as no_huge_pages_yet;
pub use inspect::inspect_process;
pub use log::log_lines;
pub use panics::report_panics;

/// Exit code of a process that met a bug of ours.
pub const EXIT_INTERNAL: u8 = 70;

/// An attempt to be led from this process.
pub struct Attempt {
    pub request: RunRequest,
    pub access: Access,
    /// Gets the rows of `print` tables.
    pub on_print: OnPrint,
    /// Arguments of this program that lead to [`job_process`].
    pub process_arguments: Vec<String>,
    /// Keeps the rows of `view` tables; without it they are refused.
    pub views: Option<ViewHost>,
    /// Gets the further processes.
    pub children: Children,
    pub verb: watch::Receiver<Verb>,
    pub progress: watch::Sender<Progress>,
    /// Where checkpoints are kept, if they are.
    pub checkpoints: Option<Checkpoints>,
    /// Who asks for checkpoints.
    pub asked: Option<UnboundedReceiver<CheckpointRequest>>,
}

/// The checkpoints of a job.
pub struct Checkpoints {
    pub job_id: String,
    /// The place of all checkpoints.
    pub place: Storage,
    pub authority: Arc<dyn Authority>,
}

/// A place for checkpoints, as `state::objects::open` takes it; it may hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct Storage {
    pub place: String,
    pub options: BTreeMap<String, String>,
}

impl Storage {
    pub fn open(&self) -> Result<Arc<dyn Files>, RunError> {
        state::objects::open(&self.place, &self.options).map_err(|why| {
            let message = format!("the storage of checkpoints {} cannot be used: {why}", self.place);
            RunError::user("checkpoint_storage", message)
        })
    }
}

/// The further processes of an attempt.
#[derive(Clone, Debug, Default)]
pub struct Children(Arc<Mutex<Vec<u32>>>);

impl Children {
    /// In the order of their indexes.
    pub fn pids(&self) -> Vec<u32> {
        self.0.lock().expect("nothing panics while it holds the list").clone()
    }
}

/// Runs an attempt to its end, with its further processes. Nothing is left running when this returns.
pub async fn run_attempt(attempt: Attempt) -> Result<Outcome, RunError> {
    let Attempt { request, access, on_print, process_arguments, views, children, verb, progress, checkpoints, asked } =
        attempt;
    let place = checkpoints.as_ref().map(|checkpoints| checkpoints.place.clone());
    let durable = match checkpoints {
        Some(Checkpoints { job_id, place, authority }) => {
            Some(Durable { job: job_id, files: place.open()?, authority })
        }
        None => None,
    };
    let registry = access.registry().on_print(on_print);
    let registry = match views {
        Some(views) => registry.with_views(views),
        None => registry,
    };
    // Open until the run is over; then what is still there ends.
    let lifelines = Mutex::new(Vec::new());
    let (run_id, generation) = (&request.run_id, request.generation);
    tracing::info!(%run_id, generation, parallelism = request.settings.parallelism, processes = request.settings.processes, "the run begins");
    let launch = move |launch: &Launch| {
        let instruction = Instruction { launch: launch.clone(), access: access.clone(), place: place.clone() };
        let (child, lifeline) = start(&process_arguments, &instruction)?;
        tracing::info!(index = launch.identity.index, pid = child.id(), "started a further process");
        children.0.lock().expect("nothing panics while it holds the list").extend(child.id());
        lifelines.lock().expect("nothing panics while it holds the list").push(lifeline);
        Ok(child)
    };
    let around =
        Surroundings { connectors: Arc::new(registry), launch: Some(Box::new(launch)), verb, progress, durable, asked };
    engine::runtime::run(request, around).await.map_err(panics::cause)
}

/// The first line that a further process reads.
#[derive(Serialize, Deserialize)]
struct Instruction {
    launch: Launch,
    access: Access,
    /// The place of checkpoints, if they are kept.
    place: Option<Storage>,
}

/// Starts this program once more.
fn start(arguments: &[String], instruction: &Instruction) -> std::io::Result<(Child, PipeWriter)> {
    let (reader, mut lifeline) = std::io::pipe()?;
    let child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(reader)
        .stdout(Stdio::null())
        // A Ctrl-C at the terminal is for the leading process, which decides what it means.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    // The command is gone and with it our copy of the reading end: a child that has ended is an error here, not a wait.
    let mut line = serde_json::to_vec(instruction).map_err(std::io::Error::other)?;
    line.push(b'\n');
    lifeline.write_all(&line)?;
    Ok((child, lifeline))
}

/// What a further process does, from its start to its end: takes part in the attempt that its standard input names.
pub fn job_process() -> ExitCode {
    huge_pages::none_yet();
    report_panics(true);
    if let Err(error) = close_up() {
        log::tell(&format!("cannot keep others from looking into the process: {error}"));
        return ExitCode::FAILURE;
    }
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let instruction = match read.map(|_| serde_json::from_str::<Instruction>(&line)) {
        Ok(Ok(instruction)) => instruction,
        _ => {
            log::tell("this command is for the program's own further processes; it is never started by hand");
            return ExitCode::from(2);
        }
    };
    let watched = std::thread::Builder::new().name("lifeline".into()).spawn(end_with_the_leader);
    let runtime = match (watched, io_runtime()) {
        (Ok(_), Ok(runtime)) => runtime,
        (Err(error), _) | (_, Err(error)) => {
            log::tell(&format!("cannot start the threads of process {}: {error}", instruction.launch.identity.index));
            return ExitCode::FAILURE;
        }
    };
    let index = instruction.launch.identity.index;
    let registry = Arc::new(instruction.access.registry());
    runtime.spawn(huge_pages::once_large());
    let joined = runtime.block_on(async {
        let files = instruction.place.map(|place| place.open()).transpose()?;
        join_attempt(instruction.launch, registry, files).await
    });
    runtime.shutdown_background();
    match joined {
        Ok(()) => ExitCode::SUCCESS,
        // The leader says so itself, or is gone; everything else only this process knows.
        Err(error) if error.code == "process_lost" => {
            tracing::debug!(index, "{error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            log::tell(&format!("process {index} of the run: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// To be called before the process reads a secret, and by every process for itself, since a new program begins open again: its core must
/// not lie about, and no other process of this user may look into it. Some files of this process in `/proc` are not this user's any more
/// afterwards.
fn close_up() -> std::io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: setrlimit reads the structure that it is given, prctl its arguments.
    let refused = unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none) != 0 || libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) != 0
    };
    if refused { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// Readers and writers of files block a thread each for as long as they live, and every worker has its own: there must always be one left
/// for a read that they wait for. Threads come only when they are needed.
const BLOCKING_THREADS_MAX: usize = 1 << 16;

/// Threads for I/O; the work of operators has threads of its own.
pub fn io_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build()
}

/// Returns never: the process ends when its standard input does.
fn end_with_the_leader() {
    let mut rest = [0; 64];
    let mut stdin = std::io::stdin().lock();
    loop {
        match stdin.read(&mut rest) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => std::process::exit(1),
            Ok(_) => {}
        }
    }
}
