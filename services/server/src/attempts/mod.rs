//! Runs and the processes that work for them: starts attempts, follows them, and finds them again.
//!
//! One task per active run. What it sees becomes a move by [`control::follow`]; the store is changed by compare-and-set, so a server that
//! is out of date changes nothing. Processes outlive this server: at its start every active run gets its task again.

mod collect;
mod epochs;
pub mod history;
pub mod link;
pub mod process;
pub mod savepoints;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use api::IdKind;
use chrono::Utc;
use control::attempt::{AttemptSpec, Credentials, Failure, Limits, OperatorCost, Phase, Positions, Status, StopMode};
use control::follow::{Seen, Step, follow};
use control::restart;
use control::run::RunState;
use metadata::{EpochFilter, EpochPage, MetadataError, Operation, Run, RunMove};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::facts::{RunFacts, RunRequest, StopRequest};
use crate::planning;
use crate::problem::{ApiError, ApiResult};
pub use collect::remove_checkpoints;
use history::History;
use link::Link;
use process::Life;

/// How often an attempt is looked at: soon after its start, then at leisure.
const LOOK_SOON: Duration = Duration::from_millis(20);
const LOOK: Duration = Duration::from_millis(500);
const SOON: Duration = Duration::from_secs(2);
/// A process that has started says so within this time.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The same of one that a server before this one may have started.
const FOUND_TIMEOUT: Duration = Duration::from_secs(5);
/// A process that was told to stop now, and has not, is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// A process that lives and says nothing for so long is stopped or hangs, and is killed; jobs may say otherwise.
const SILENCE: Duration = Duration::from_secs(10);
/// The code of an attempt that could not begin.
const NOT_STARTED: &str = "process_not_started";
/// After a change of the store failed for want of a database.
const STORE_RETRY: Duration = Duration::from_millis(500);
/// After it failed for a reason that somebody has to mend.
const STORE_TROUBLE: Duration = Duration::from_secs(5);

/// What a drain says that had nothing to drain.
const NOTHING_READ: &str = "nothing had been read: the run was cancelled";

/// All runs that this server follows.
#[derive(Default)]
pub struct Attempts {
    live: RwLock<HashMap<Uuid, Arc<Live>>>,
}

/// What is known of an active run beside the store.
pub struct Live {
    pub job_name: String,
    /// Directories that the run writes.
    pub outputs: Vec<String>,
    pub link: Mutex<Option<Link>>,
    pub status: RwLock<Arc<Status>>,
    pub history: Mutex<History>,
    pub checkpoints: Mutex<CheckpointFigures>,
    stop: watch::Sender<Option<StopMode>>,
    /// Counts moves of the run, for whoever waits for its end.
    pub moves: watch::Sender<u64>,
}

/// Of the checkpoints that this server has decided for a run.
#[derive(Clone, Debug, Default)]
pub struct CheckpointFigures {
    /// The attempt at hand.
    pub attempt: i64,
    pub count: u64,
    /// Bytes that were written for all of them.
    pub bytes: u64,
    /// Of the newest, from its cut until everything was written.
    pub duration_us: u64,
    /// Bytes that were written for the newest, and what it cost each operator with state.
    pub newest_bytes: u64,
    pub operators: Vec<OperatorCost>,
    pub decided: u64,
    pub decided_at: Option<Instant>,
    pub committed: u64,
    /// When an attempt was seen to have failed; `None` once the next one has a checkpoint of its own that is committed.
    pub failed_at: Option<Instant>,
    /// How long that took the last time, with the delay before the restart.
    pub recovery_us: Option<u64>,
}

impl Attempts {
    pub fn get(&self, run_id: Uuid) -> Option<Arc<Live>> {
        self.live.read().expect("nothing panics while it holds the map").get(&run_id).cloned()
    }

    pub fn all(&self) -> Vec<(Uuid, Arc<Live>)> {
        let live = self.live.read().expect("nothing panics while it holds the map");
        live.iter().map(|(run_id, live)| (*run_id, live.clone())).collect()
    }

    fn let_go(&self, run_id: Uuid) {
        self.live.write().expect("nothing panics while it holds the map").remove(&run_id);
    }

    /// Tells the task of a run to stop it. What was asked for first stays, but a run can always be cut off.
    pub fn stop(&self, run_id: Uuid, mode: StopMode) {
        if let Some(live) = self.get(run_id) {
            live.stop.send_if_modified(|asked| {
                let change = asked.is_none_or(|asked| asked.may_become(mode));
                if change {
                    *asked = Some(mode);
                }
                change
            });
        }
    }
}

impl Live {
    fn of(run: &Run) -> Live {
        Live {
            job_name: run.job_name.clone(),
            outputs: RunRequest::of(run).outputs,
            link: Mutex::new(None),
            status: RwLock::default(),
            history: Mutex::default(),
            checkpoints: Mutex::default(),
            stop: watch::Sender::new(RunFacts::of(run).stop.map(|stop| stop.mode)),
            moves: watch::Sender::new(0),
        }
    }

    pub fn link(&self) -> Option<Link> {
        self.link.lock().expect("nothing panics while it holds the link").clone()
    }

    /// How the run is to end, if it was told to.
    pub fn asked_to_stop(&self) -> Option<StopMode> {
        *self.stop.borrow()
    }

    /// From now on a recovery is under way.
    fn note_failure(&self) {
        let mut figures = self.checkpoints.lock().expect("nothing panics while it holds the figures");
        figures.failed_at.get_or_insert_with(Instant::now);
    }

    pub fn checkpoints(&self) -> CheckpointFigures {
        self.checkpoints.lock().expect("nothing panics while it holds the figures").clone()
    }

    pub fn status(&self) -> Arc<Status> {
        self.status.read().expect("nothing panics while it holds the status").clone()
    }
}

/// A place among the active runs, taken before the run is stored: of two that are started at once, one sees the other.
pub struct Reserved {
    app: App,
    run_id: Uuid,
    live: Arc<Live>,
    begun: bool,
}

/// Takes a place for a run.
///
/// # Errors
/// `too_many_runs` if the server allows no more, `sink_conflict` if an active run writes a directory that this one would write: they would
/// take turns there, in no order.
pub fn reserve(app: &App, run: &Run) -> ApiResult<Reserved> {
    let live = Arc::new(Live::of(run));
    let mut all = app.attempts.live.write().expect("nothing panics while it holds the map");
    let (active, most) = (all.len(), app.config.max_active_runs);
    if active >= most {
        return Err(ApiError::new("too_many_runs", format!("{active} runs are active, and the server allows {most}")));
    }
    for other in all.values() {
        if let Some(shared) = live.outputs.iter().find(|output| other.outputs.contains(output)) {
            let detail = format!("a run of job '{}' writes {shared} already", other.job_name);
            return Err(ApiError::new("sink_conflict", detail));
        }
    }
    all.insert(run.run_id, live.clone());
    Ok(Reserved { app: app.clone(), run_id: run.run_id, live, begun: false })
}

impl Reserved {
    /// Follows the run, which is stored now, to its end.
    pub fn begin(mut self, run: Run) {
        self.begun = true;
        tokio::spawn(follow_to_the_end(self.app.clone(), run, self.live.clone()));
    }
}

/// The run was not stored.
impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.begun {
            self.app.attempts.let_go(self.run_id);
        }
    }
}

/// Follows all active runs that nobody follows, and carries out stops that nobody carries out.
///
/// Those of the server before this one; and of this one those that were stored although the store could not say so.
pub async fn take_up(app: &App) -> Result<(), MetadataError> {
    // A run that was followed before the store was asked may have ended since, and then there is nothing to do.
    let followed: HashSet<Uuid> = app.attempts.all().into_iter().map(|(run_id, _)| run_id).collect();
    for run in app.store.active_runs().await? {
        if !followed.contains(&run.run_id) {
            find_again(app, run);
        }
    }
    for operation in app.store.running_operations().await? {
        let mode = if operation.kind == "stop_now" { StopMode::Now } else { StopMode::Drain };
        stop(app, &operation, mode).await?;
    }
    savepoints::take_up(app).await
}

/// Follows a stored run, unless that is done already.
fn find_again(app: &App, run: Run) {
    let live = Arc::new(Live::of(&run));
    {
        let mut all = app.attempts.live.write().expect("nothing panics while it holds the map");
        if all.contains_key(&run.run_id) {
            return;
        }
        all.insert(run.run_id, live.clone());
    }
    tracing::info!(run = IdKind::Run.text(run.run_id), state = run.state, "found again");
    tokio::spawn(follow_to_the_end(app.clone(), run, live));
}

/// Stops the run that an operation is about. If it has ended meanwhile, so does the operation.
pub async fn stop(app: &App, operation: &Operation, mode: StopMode) -> Result<(), MetadataError> {
    let Some(run_id) = IdKind::Run.parse(&operation.subject) else {
        end_operation(app, operation.clone(), None).await;
        return Ok(());
    };
    match stop_run(app, run_id, mode).await {
        Ok(None) => {}
        Ok(Some(ended)) => end_operation(app, operation.clone(), Some(&ended)).await,
        Err(MetadataError::NotFound { .. }) => end_operation(app, operation.clone(), None).await,
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Stops a run; returns it if it has ended already.
pub async fn stop_run(app: &App, run_id: Uuid, mode: StopMode) -> Result<Option<Run>, MetadataError> {
    if app.attempts.get(run_id).is_none() {
        let run = app.store.run(run_id).await?;
        if !run.active {
            return Ok(Some(run));
        }
        find_again(app, run);
    }
    app.attempts.stop(run_id, mode);
    Ok(None)
}

async fn follow_to_the_end(app: App, run: Run, live: Arc<Live>) {
    let run_id = run.run_id;
    let follower = Follower {
        app: app.clone(),
        live: live.clone(),
        run,
        child: None,
        answering: None,
        silent_since: None,
        patience: SILENCE,
    };
    // In a task of its own: should it panic, the run is let go, and found again by the next look.
    let ended = tokio::spawn(follower.follow()).await;
    // Before its operations are ended: a stop that comes later finds the run ended, and ends its operation itself.
    app.attempts.let_go(run_id);
    match ended {
        Ok(Some(run)) => {
            release(&app, &run).await;
            end_operations(&app, &run).await;
        }
        Ok(None) => {}
        Err(error) => {
            tracing::error!(run = IdKind::Run.text(run_id), %error, "a run was lost sight of; it will be found again");
        }
    }
    live.moves.send_modify(|moves| *moves += 1);
}

struct Follower {
    app: App,
    live: Arc<Live>,
    run: Run,
    /// The process, if this server has started it.
    child: Option<Child>,
    /// Answers the questions of the attempt.
    answering: Option<AbortOnDrop>,
    /// Since when the process lives and says nothing, and how long it may.
    silent_since: Option<Instant>,
    patience: Duration,
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What comes after an attempt.
enum Next {
    /// The run has ended.
    End,
    /// Another attempt, after a while.
    Attempt { after: Duration },
}

/// Another server has moved the run: this one is out of date.
struct OutOfDate;

impl Follower {
    /// The run when it has ended; `None` if another server follows it.
    async fn follow(mut self) -> Option<Run> {
        let id = IdKind::Run.text(self.run.run_id);
        match self.attempt_after_attempt().await {
            Ok(()) => {
                tracing::info!(run = id, state = self.run.state, "the run has ended");
                Some(self.run)
            }
            Err(OutOfDate) => {
                tracing::warn!(run = id, "the run was moved by another server; this one lets go of it");
                None
            }
        }
    }

    async fn attempt_after_attempt(&mut self) -> Result<(), OutOfDate> {
        let mut next = match self.state() {
            RunState::Pending => Next::Attempt { after: Duration::ZERO },
            // Its failure was dealt with before this server came.
            RunState::Restarting => {
                process::kill(&self.directory());
                Next::Attempt { after: SOON }
            }
            _ => {
                let directory = self.directory();
                if let Ok(token) = process::token(&directory) {
                    self.attach(Link { directory, token });
                }
                self.watch().await?
            }
        };
        while let Next::Attempt { after } = next {
            next = match self.wait(after).await? {
                true => match self.place().await? {
                    None => self.watch().await?,
                    Some(next) => next,
                },
                false => Next::End,
            };
        }
        Ok(())
    }

    /// From now on the attempt is asked how it is, and answered.
    fn attach(&mut self, link: Link) {
        *self.live.link.lock().expect("nothing panics while it holds the link") = Some(link.clone());
        let Run { job_id, run_id, generation, .. } = self.run;
        let spec = process::spec(&link.directory).and_then(|spec| spec.checkpoints);
        let first_epoch = spec.map_or(0, |checkpoints| checkpoints.first_epoch);
        let savepoint_id = RunRequest::of(&self.run).savepoint.and_then(|savepoint| savepoint.savepoint_id());
        let asker = epochs::Asker { job_id, run_id, generation, first_epoch, savepoint_id };
        let answering = tokio::spawn(epochs::answer(self.app.clone(), asker, link, self.live.clone()));
        self.answering = Some(AbortOnDrop(answering.abort_handle()));
    }

    /// Before the next attempt. False if the run is to end instead, and has.
    async fn wait(&mut self, after: Duration) -> Result<bool, OutOfDate> {
        let mut stop = self.live.stop.subscribe();
        let now = stop.wait_for(|asked| *asked == Some(StopMode::Now));
        if tokio::time::timeout(after, now).await.is_err() {
            return Ok(true);
        }
        let cause =
            if self.state() == RunState::Pending { "stopped before it began" } else { "stopped between two attempts" };
        self.step(Step { to: RunState::Cancelled, cause: Some(cause.into()), failure: None }, None).await?;
        Ok(false)
    }

    fn state(&self) -> RunState {
        RunState::from_name(&self.run.state).expect("the store has states of runs only")
    }

    fn directory(&self) -> PathBuf {
        process::directory(&self.app.config.data, &IdKind::Run.text(self.run.run_id), self.run.generation)
    }

    /// Starts the next attempt; or else what comes instead of it.
    async fn place(&mut self) -> Result<Option<Next>, OutOfDate> {
        let generation = self.run.generation + 1;
        let mut stop = self.live.stop.subscribe();
        // A large savepoint takes a while to be read.
        let placed = tokio::select! {
            placed = self.prepare(generation) => Some(placed),
            _ = stop.wait_for(|asked| *asked == Some(StopMode::Now)) => None,
        };
        let Some(placed) = placed else {
            let cause = Some("stopped before an attempt began".into());
            self.step(Step { to: RunState::Cancelled, cause, failure: None }, None).await?;
            return Ok(Some(Next::End));
        };
        let (link, credentials) = match placed {
            Ok(placed) => placed,
            Err(failure) => return self.not_placed(failure).await.map(Some),
        };
        let mut facts = RunFacts::of(&self.run);
        facts.restarts.attempt_started(Utc::now().timestamp_micros());
        self.run.facts = facts.to_json();
        self.step(Step { to: RunState::Starting, cause: None, failure: None }, Some(generation)).await?;
        faults::pass("attempt.placed");
        self.attach(link.clone());
        match process::start(&self.app.config.program, &link.directory, &credentials) {
            Ok(child) => {
                tracing::info!(
                    run = IdKind::Run.text(self.run.run_id),
                    pid = child.id(),
                    generation,
                    "started a process"
                );
                self.child = Some(child);
                Ok(None)
            }
            Err(error) => {
                let message = format!("the process of the run could not be started: {error}");
                self.not_placed(our_failure(NOT_STARTED, message)).await.map(Some)
            }
        }
    }

    /// The attempt did not begin: it is tried again where that was the machine's doing, which a full disk is.
    async fn not_placed(&mut self, failure: Failure) -> Result<Next, OutOfDate> {
        let cause = Some(format!("{}: {}", failure.code, failure.message));
        let step = Step { to: RunState::Failed, cause, failure: Some(failure.clone()) };
        let machine = [NOT_STARTED, "checkpoint_storage", "metadata_unavailable"].contains(&failure.code.as_str());
        if machine
            && self.state() != RunState::Pending
            && let restart::Verdict::Restart { after_us, tries } = self.after(&failure).await
        {
            return self.restart(step, after_us, tries).await;
        }
        self.step(step, None).await?;
        Ok(Next::End)
    }

    /// The directory of an attempt, and what its process must know.
    async fn prepare(&mut self, generation: i64) -> Result<(Link, Credentials), Failure> {
        let store = &self.app.store;
        let unavailable = |error: MetadataError| our_failure("metadata_unavailable", error.to_string());
        let version = loop {
            match store.version(self.run.job_id, self.run.version).await {
                Err(MetadataError::Unavailable { .. }) => tokio::time::sleep(STORE_RETRY).await,
                other => break other.map_err(unavailable)?,
            }
        };
        let stored = planning::Stored::of(&version).map_err(|error| our_failure("invalid_graph", error))?;
        let connections = loop {
            match planning::credentials(&self.app, &stored.graph).await {
                Err(error) if error.code() == "metadata_unavailable" => tokio::time::sleep(STORE_RETRY).await,
                other => break other.map_err(|error| our_failure(error.code(), error.problem().detail.clone()))?,
            }
        };
        let mut checkpoints = loop {
            match epochs::resume(&self.app, &self.run).await {
                Err(error @ MetadataError::Unavailable { .. }) => wait_for_store(&error).await,
                other => break other.map_err(unavailable)?,
            }
        };
        if let Some(epoch) = epochs::unknown_manifest(&self.app, &self.run, &checkpoints).await? {
            return Err(Failure {
                hint: Some(
                    "the metadata was restored from an older copy, or has lost its newest changes: bring back the newer one; going on \
                     from here would put out rows twice"
                        .into(),
                ),
                retryable: false,
                ..our_failure(
                    "metadata_regressed",
                    format!("there is a checkpoint of epoch {epoch}, which the metadata store does not know of"),
                )
            });
        }
        let request = RunRequest::of(&self.run);
        if let Some(wanted) = request.savepoint.as_ref().filter(|_| checkpoints.restore.is_empty()) {
            // Until the run has decided an epoch of its own, each attempt begins from there.
            checkpoints = epochs::import(&self.app, &self.run, wanted, &stored, checkpoints).await?;
        }
        self.patience = Duration::from_micros(stored.settings.heartbeat_timeout.us.max(0) as u64);
        // What an attempt before has resolved stays: `latest` would be another place by now.
        let resolved = RunFacts::of(&self.run).start_positions;
        let config = &self.app.config;
        let run_id = IdKind::Run.text(self.run.run_id);
        let limits = stored.limits;
        let spec = AttemptSpec {
            job: self.run.job_name.clone(),
            run_id: run_id.clone(),
            generation: generation as u64,
            graph: stored.graph,
            settings: stored.settings,
            allowed_roots: config.allow_roots.clone(),
            egress: config.egress(),
            views_dir: self.app.views_dir(self.run.job_id),
            start: if resolved.is_empty() { request.start_positions } else { resolved },
            checkpoints: Some(checkpoints),
            limits: Limits {
                memory_bytes: limits.memory_bytes.or(config.run_memory_bytes),
                cpu_percent: limits.cpu_percent.or(config.run_cpu_percent),
                seconds: None,
            },
            serve_rows: false,
        };
        let directory = process::directory(&config.data, &run_id, generation);
        let token = process::prepare(&directory, &spec)
            .map_err(|error| our_failure(NOT_STARTED, format!("the files of the run could not be written: {error}")))?;
        let storage = self.app.config.storage_options();
        let credentials = Credentials { token: token.clone(), connections, storage };
        Ok((Link { directory, token }, credentials))
    }

    /// Looks at the attempt until it has ended.
    async fn watch(&mut self) -> Result<Next, OutOfDate> {
        let began = Instant::now();
        let mut stop = self.live.stop.subscribe();
        let mut stop_sent: Option<StopMode> = None;
        let mut stop_since: Option<Instant> = None;
        stop.mark_changed();
        loop {
            let asked = *stop.borrow_and_update();
            if let Some(mode) = asked {
                self.note_stop(mode).await?;
                faults::pass("stop.noted");
                let since = stop_since.get_or_insert_with(Instant::now);
                if stop_sent != Some(mode)
                    && let Some(link) = self.live.link()
                {
                    match link.stop(mode).await {
                        Ok(()) => {
                            stop_sent = Some(mode);
                            *since = Instant::now();
                        }
                        Err(error) => tracing::debug!(%error, "the process did not take the order to stop"),
                    }
                }
                if mode == StopMode::Now && since.elapsed() > STOP_TIMEOUT {
                    process::kill(&self.directory());
                }
            }
            if let Some(seen) = self.look(began).await {
                self.keep_positions().await?;
                if let Some(mut step) = follow(self.state(), asked, &seen) {
                    if let Some(failure) = &step.failure {
                        match self.after(failure).await {
                            restart::Verdict::Restart { after_us, tries } => {
                                return self.restart(step, after_us, tries).await;
                            }
                            restart::Verdict::Fail(failure) => {
                                step.cause = Some(format!("{}: {}", failure.code, failure.message));
                                step.failure = Some(failure);
                            }
                        }
                    }
                    let ends = !step.to.is_active();
                    self.step(step, None).await?;
                    if ends {
                        return Ok(Next::End);
                    }
                }
            }
            let pause = if began.elapsed() < SOON || asked.is_some() { LOOK_SOON } else { LOOK };
            let ended = self.child_ended();
            let child = async {
                match &mut self.child {
                    Some(child) if !ended => drop(child.wait().await),
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.changed() => {}
                // Its outcome is there: look at once.
                () = child => {}
            }
        }
    }

    /// Whether the run is tried again after this failure of its attempt.
    async fn after(&mut self, failure: &Failure) -> restart::Verdict {
        let mut facts = RunFacts::of(&self.run);
        let settings = loop {
            match self.app.store.version(self.run.job_id, self.run.version).await {
                Ok(version) => break planning::Stored::of(&version).map(|stored| stored.settings),
                Err(error @ MetadataError::Unavailable { .. }) => wait_for_store(&error).await,
                Err(error) => break Err(error.to_string()),
            }
        };
        let Ok(settings) = settings else { return restart::Verdict::Fail(failure.clone()) };
        if settings.restart_attempts == 0 {
            return restart::Verdict::Fail(failure.clone());
        }
        let policy = restart::Policy {
            first_us: settings.restart_delay.us,
            poison_after: settings.restart_attempts.min(u32::MAX.into()) as u32,
            ..restart::Policy::default()
        };
        let filter = EpochFilter { job_id: self.run.job_id, run_id: Some(self.run.run_id), states: Vec::new() };
        // Unknown is no progress.
        let newest = self.app.store.epochs(&filter, EpochPage { after: None, limit: 1 }).await.unwrap_or_default();
        if let Some(newest) = newest.first().filter(|newest| newest.epoch > facts.decided_epoch) {
            facts.decided_epoch = newest.epoch;
            facts.restarts.epoch_decided();
        }
        let verdict = facts.restarts.failed(&policy, failure, None, Utc::now().timestamp_micros());
        self.run.facts = facts.to_json();
        verdict
    }

    async fn restart(&mut self, step: Step, after_us: i64, tries: u32) -> Result<Next, OutOfDate> {
        let after = Duration::from_micros(after_us.max(0) as u64);
        self.live.note_failure();
        // Whatever is left of the attempt would be fenced; it need not live so long.
        process::kill(&self.directory());
        let over = Status { waiting_for: None, ..(*self.live.status()).clone() };
        *self.live.status.write().expect("nothing panics while it holds the status") = Arc::new(over);
        self.child = None;
        self.answering = None;
        self.silent_since = None;
        let cause = format!("{}; restart {tries} in {after:?}", step.cause.unwrap_or_default());
        if self.state() == RunState::Restarting {
            tracing::warn!(run = IdKind::Run.text(self.run.run_id), cause, "the next attempt did not begin");
            return Ok(Next::Attempt { after });
        }
        self.step(Step { to: RunState::Restarting, cause: Some(cause), failure: None }, None).await?;
        Ok(Next::Attempt { after })
    }

    fn child_ended(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)) | Err(_)))
    }

    /// What can be seen now; `None` if nothing is certain yet.
    async fn look(&mut self, began: Instant) -> Option<Seen> {
        let directory = self.directory();
        // Whether it lived is asked first: if it ended in between, its outcome is there.
        let (ended, life) = (self.child_ended(), process::life(&directory));
        if let Some(link) = self.live.link() {
            match link.status(false).await {
                Ok(status) => {
                    self.silent_since = None;
                    let phase = status.phase;
                    self.note(status);
                    return Some(Seen::Answer(phase));
                }
                Err(error) => {
                    tracing::debug!(%error, "an attempt did not answer");
                    let since = *self.silent_since.get_or_insert_with(Instant::now);
                    if life == Life::Alive && since.elapsed() > self.patience {
                        process::kill(&directory);
                        return Some(Seen::Gone(format!(
                            "lived and said nothing for {:?}: it was stopped, or hung; it was killed",
                            self.patience
                        )));
                    }
                }
            }
        }
        let ours = self.child.is_some();
        let gone = if ours { ended } else { life == Life::Gone };
        // Written before the process ends, so it may be there while the process still is.
        if (gone || life != Life::Alive)
            && let Some(outcome) = process::outcome(&directory)
        {
            let end = outcome.end.clone();
            let status = Status {
                phase: Phase::Stopping,
                waiting_for: None,
                epoch: outcome.epoch,
                committed: outcome.committed,
                operators: outcome.operators,
                splits: outcome.splits,
                start_positions: outcome.start_positions,
                removed_rows: outcome.removed_rows,
                ..Status::default()
            };
            self.note(status);
            return Some(Seen::Outcome(end));
        }
        if gone {
            return Some(Seen::Gone(self.how_it_ended()));
        }
        // From then on it cannot begin, so that no run goes on that is said to have failed.
        let silent = |patience: Duration| life == Life::Unknown && began.elapsed() > patience;
        if ours && silent(START_TIMEOUT) && process::give_up(&directory) {
            return Some(Seen::Gone(format!("did not begin within {START_TIMEOUT:?}")));
        }
        if !ours && silent(FOUND_TIMEOUT) && process::give_up(&directory) {
            return Some(Seen::Gone("was not started: the server ended before it could".into()));
        }
        None
    }

    fn how_it_ended(&mut self) -> String {
        use std::os::unix::process::ExitStatusExt;
        let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) else {
            return "ended while no server was there to see it".to_string();
        };
        match (status.signal(), status.code()) {
            (Some(libc::SIGKILL), _) => "was killed (SIGKILL)".to_string(),
            (Some(libc::SIGSEGV), _) => "crashed (SIGSEGV)".to_string(),
            (Some(libc::SIGABRT), _) => "aborted (SIGABRT)".to_string(),
            (Some(signal), _) => format!("was ended by signal {signal}"),
            (None, code) => format!("ended with exit code {}", code.unwrap_or(-1)),
        }
    }

    fn note(&self, status: Status) {
        let status = Arc::new(status);
        let checkpoints = self.live.checkpoints();
        let mut history = self.live.history.lock().expect("nothing panics while it holds the history");
        history.record(Utc::now(), &status, &checkpoints);
        drop(history);
        *self.live.status.write().expect("nothing panics while it holds the status") = status;
    }

    /// Start positions are stored as soon as they are known: a run that fails has them too.
    async fn keep_positions(&mut self) -> Result<(), OutOfDate> {
        let positions: Positions = self.live.status().start_positions.clone();
        let mut facts = RunFacts::of(&self.run);
        // Those of the first attempt: a later one begins where its checkpoint is.
        if positions.is_empty() || !facts.start_positions.is_empty() {
            return Ok(());
        }
        facts.start_positions = positions;
        let facts = facts.to_json();
        let stored = self.app.store.set_run_facts(self.run.run_id, self.run.generation, &facts).await;
        match stored {
            Ok(()) => self.run.facts = facts,
            Err(MetadataError::Moved { .. } | MetadataError::NotFound { .. }) => return Err(OutOfDate),
            Err(error) => tracing::debug!(%error, "start positions are not stored yet"),
        }
        Ok(())
    }

    /// Moves the run to `stopping`, with the mode, so that a later server knows it.
    async fn note_stop(&mut self, mode: StopMode) -> Result<(), OutOfDate> {
        if self.state() == RunState::Stopping && RunFacts::of(&self.run).stop.map(|stop| stop.mode) == Some(mode) {
            return Ok(());
        }
        let mut facts = RunFacts::of(&self.run);
        facts.stop = Some(StopRequest { mode });
        self.run.facts = facts.to_json();
        let cause = match mode {
            StopMode::Now => "asked to stop now",
            StopMode::Drain => "asked to drain",
            StopMode::Savepoint => "asked to stop with a savepoint",
        };
        if self.state().may_become(RunState::Stopping) {
            return self.step(Step { to: RunState::Stopping, cause: Some(cause.into()), failure: None }, None).await;
        }
        match self.app.store.set_run_facts(self.run.run_id, self.run.generation, &self.run.facts).await {
            Err(MetadataError::Moved { .. } | MetadataError::NotFound { .. }) => Err(OutOfDate),
            _ => Ok(()),
        }
    }

    /// Makes a move durable, however long the store is away.
    async fn step(&mut self, step: Step, new_generation: Option<i64>) -> Result<(), OutOfDate> {
        let now = crate::time::now();
        let mut facts = RunFacts::of(&self.run);
        facts.since = Some(now);
        if !step.to.is_active() {
            facts.end(&self.live.status());
        }
        let failure = step.failure.map(|failure| crate::facts::failure(&failure));
        let run_move = RunMove {
            run_id: self.run.run_id,
            from: step.to.sources().into_iter().map(|state| state.name().to_string()).collect(),
            generation: self.run.generation,
            to: step.to.name().to_string(),
            active: step.to.is_active(),
            at: now,
            cause: step.cause,
            new_generation,
            facts: Some(facts.to_json()),
            failure: failure.map(|failure| serde_json::to_value(failure).expect("a failure has only text keys")),
            started_at: (step.to == RunState::Starting).then_some(now),
            ended_at: (!step.to.is_active()).then_some(now),
        };
        loop {
            match self.app.store.move_run(&run_move).await {
                Ok(run) => {
                    self.run = run;
                    if !self.run.active {
                        // Whoever learns of its end may want its place.
                        self.app.attempts.let_go(self.run.run_id);
                    }
                    self.live.moves.send_modify(|moves| *moves += 1);
                    return Ok(());
                }
                Err(
                    error @ (MetadataError::Moved { .. } | MetadataError::NotFound { .. } | MetadataError::Owned(_)),
                ) => {
                    tracing::warn!(run = IdKind::Run.text(self.run.run_id), %error, "the run was not moved");
                    return Err(OutOfDate);
                }
                Err(error) => wait_for_store(&error).await,
            }
        }
    }
}

/// The savepoint that a run began from is not needed any more.
async fn release(app: &App, run: &Run) {
    let Some(savepoint_id) = RunRequest::of(run).savepoint.and_then(|savepoint| savepoint.savepoint_id()) else {
        return;
    };
    while let Err(error) = app.store.release_savepoint(savepoint_id, run.run_id).await {
        if matches!(error, MetadataError::NotFound { .. } | MetadataError::Owned(_)) {
            return;
        }
        wait_for_store(&error).await;
    }
}

async fn end_operations(app: &App, run: &Run) {
    let subject = IdKind::Run.text(run.run_id);
    let running = loop {
        match app.store.running_operations().await {
            Ok(running) => break running,
            Err(error) => wait_for_store(&error).await,
        }
    };
    for operation in running.into_iter().filter(|operation| operation.subject == subject) {
        end_operation(app, operation, Some(run)).await;
    }
}

/// Until it is worth while to try again.
async fn wait_for_store(error: &MetadataError) {
    if matches!(error, MetadataError::Unavailable { .. }) {
        tokio::time::sleep(STORE_RETRY).await;
    } else {
        tracing::error!(%error, "the metadata store refuses what must be stored; it is tried again");
        tokio::time::sleep(STORE_TROUBLE).await;
    }
}

/// Ends an operation on a run that has ended, or is no more. A drain has succeeded if the run finished, or if there was nothing to drain.
async fn end_operation(app: &App, operation: Operation, run: Option<&Run>) {
    let in_vain = run.is_some_and(|run| operation.kind == "stop_drain" && is_drained_in_vain(run));
    let undone = run.filter(|run| operation.kind == "stop_drain" && run.state != "finished" && !in_vain);
    let failure = undone.map(|run| {
        run.failure.clone().unwrap_or_else(|| {
            let detail = format!("the run became {} before it was drained", run.state);
            serde_json::to_value(ApiError::new("invalid_state", detail).problem()).unwrap_or_default()
        })
    });
    let ended = Operation {
        state: if failure.is_some() { "failed" } else { "succeeded" }.into(),
        failure,
        ended_at: Some(crate::time::now()),
        progress: if in_vain { NOTHING_READ.into() } else { operation.progress },
        ..operation
    };
    while let Err(error) = app.store.update_operation(&ended).await {
        if matches!(error, MetadataError::NotFound { .. } | MetadataError::Moved { .. } | MetadataError::Owned(_)) {
            return;
        }
        wait_for_store(&error).await;
    }
}

/// Whether a run was cancelled because it was to be drained before it had read anything. A later `now` cuts a drain off, which is another end.
fn is_drained_in_vain(run: &Run) -> bool {
    run.state == "cancelled" && RunFacts::of(run).stop.is_some_and(|stop| stop.mode == StopMode::Drain)
}

fn our_failure(code: &str, message: impl Into<String>) -> Failure {
    Failure {
        code: code.to_string(),
        message: message.into(),
        hint: None,
        operator: None,
        fault: "external".into(),
        retryable: true,
    }
}
