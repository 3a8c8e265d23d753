//! Makes checkpoints durable: files of state, the manifest, and the question whether the epoch happened.
//!
//! An operator hands over what it copied of its state; writing it is a task's business ([`Uploads`]). When an epoch is complete everywhere, the
//! commit task writes its manifest, which only one can, asks who decides ([`Authority`]), and only then lets the sinks commit
//! ([`Checkpoints`]). An answer that is lost is asked for again, with the same nonce; nothing is decided anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use control::attempt::OperatorCost;
use control::epochs::coordinator::{Coordinator, Effect, Event, Lineage};
use control::epochs::{DecisionReply, GuardedReply, Halt, ManifestReply, SinkReply};
use control::restart::Policy;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use state::files::{self, Creation};
use state::manifest::{Manifest, ManifestError, StatePart};
use state::table::TablePart;
use state::table::part::Freeze;
use state::{FileError, FileRef, Files, Snapshot, SnapshotError, SnapshotWriter};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::ingest::now_us;
use super::messages::{FromWorker, Held};
use crate::error::{Result, RunError};

/// Where the checkpoints of a job are, and who decides them.
#[derive(Clone)]
pub struct Durable {
    /// The job's id.
    pub job: String,
    pub files: Arc<dyn Files>,
    pub authority: Arc<dyn Authority>,
}

impl Durable {
    pub fn place(&self, generation: u64) -> Place {
        Place { files: self.files.clone(), job: self.job.clone(), generation }
    }
}

/// What is to be decided: everything of the epoch is written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub epoch: u64,
    /// The epoch decided before it; `None` if this is the first of its line.
    pub previous: Option<u64>,
    /// Names this very decision, however often it is asked for.
    pub nonce: String,
    pub manifest: FileRef,
    /// Bytes written for it, and all bytes that it needs.
    pub bytes: u64,
    pub total_bytes: u64,
    /// From the cut until everything was written, microseconds.
    pub duration_us: i64,
    /// What it cost each operator with state.
    pub operators: Vec<OperatorCost>,
    /// The last epoch of its run.
    pub last: bool,
    /// In the order of the plan's sinks: whether committing it does something there.
    pub commits: Vec<bool>,
}

/// An answer to a question that may be asked again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Done,
    /// Another attempt has taken over: whoever asks stops at once.
    Fenced(String),
    /// Nobody knows: ask again.
    Unknown(String),
}

/// Decides whether an epoch happened, and keeps what was reported of it. Asking again with the same nonce changes nothing.
pub trait Authority: Send + Sync {
    fn decide(&self, decision: Decision) -> BoxFuture<'_, Verdict>;

    /// All sinks have committed a decided epoch.
    fn confirm(&self, epoch: u64) -> BoxFuture<'_, Verdict>;

    /// A decided epoch cannot be restored, and no sink has published anything of it: the one before it is the newest from now on.
    fn abandon(&self, epoch: u64) -> BoxFuture<'_, Verdict>;

    /// Whether no other attempt has taken over.
    fn is_newest(&self) -> BoxFuture<'_, Verdict>;
}

/// Decides everything: where there is nobody else.
pub struct Alone;

impl Authority for Alone {
    fn decide(&self, _decision: Decision) -> BoxFuture<'_, Verdict> {
        Box::pin(std::future::ready(Verdict::Done))
    }

    fn confirm(&self, _epoch: u64) -> BoxFuture<'_, Verdict> {
        Box::pin(std::future::ready(Verdict::Done))
    }

    fn abandon(&self, _epoch: u64) -> BoxFuture<'_, Verdict> {
        Box::pin(std::future::ready(Verdict::Done))
    }

    fn is_newest(&self) -> BoxFuture<'_, Verdict> {
        Box::pin(std::future::ready(Verdict::Done))
    }
}

/// Where an attempt puts files of its checkpoints: under names that no other attempt uses.
#[derive(Clone)]
pub struct Place {
    pub files: Arc<dyn Files>,
    /// The job's id.
    pub job: String,
    pub generation: u64,
}

impl Place {
    /// A new name for a file of a worker. `folder` says what it is: `state`, `log`.
    pub fn name(&self, folder: &str, epoch: u64, operator: &str, worker: usize) -> String {
        let Place { job, generation, .. } = self;
        // An operator's name may hold anything.
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '_' };
        let operator: String = operator.chars().map(plain).take(40).collect();
        let unique = uuid::Uuid::new_v4().simple();
        format!("{job}/{folder}/{epoch:020}-g{generation}-w{worker}-{operator}-{unique}")
    }
}

impl Place {
    /// Writes tables that have files of their own; `path` is the name of what they belong to. Returns also for how long they held up their
    /// operator, which works on all of them.
    async fn save(
        &self,
        frozen: BTreeMap<String, Box<dyn Freeze>>,
        path: &str,
    ) -> Result<(BTreeMap<String, TablePart>, Duration)> {
        let (mut tables, mut held) = (BTreeMap::new(), Duration::ZERO);
        for (number, (table, frozen)) in frozen.into_iter().enumerate() {
            let name = |file: &str| format!("{path}-{number}-{file}");
            let saved = frozen.save(&*self.files, &name).await?;
            held += saved.held;
            tables.insert(table, saved.part);
        }
        Ok((tables, held))
    }
}

/// Writes snapshots, each by a task of its own; the leader hears of it when the file is there.
#[derive(Clone)]
pub struct Uploads {
    pub place: Place,
    pub tokio: tokio::runtime::Handle,
    pub leader: UnboundedSender<FromWorker>,
}

impl Uploads {
    pub fn write(&self, epoch: u64, operator: String, worker: usize, mut snapshot: SnapshotWriter, mut held: Held) {
        let Uploads { place, leader, .. } = self.clone();
        self.tokio.spawn(async move {
            let path = place.name("state", epoch, &operator, worker);
            let frozen = snapshot.take_frozen();
            let written = async {
                faults::reach("snapshot.before").await?;
                let made = {
                    let operator = operator.clone();
                    tokio::task::spawn_blocking(move || {
                        let snapshot = stale(&operator, worker, snapshot.finish()?);
                        Ok::<_, SnapshotError>((snapshot.rows() as u64, snapshot.is_whole(), snapshot.to_bytes()?))
                    })
                };
                let made = made.await.map_err(|error| RunError::internal(error.to_string()))?;
                let (rows, whole, bytes) = made?;
                faults::reach("snapshot.half").await?;
                let file = files::put(&*place.files, &path, bytes.into()).await?;
                let (tables, waited) = place.save(frozen, &path).await?;
                held.pause_us = held.pause_us.max(waited.as_micros() as u64);
                faults::reach("snapshot.uploaded").await?;
                Ok::<_, RunError>((rows, whole, file, tables))
            };
            let message = match written.await {
                Ok((rows, whole, file, tables)) => {
                    let part = StatePart { worker: worker as u64, rows, file, tables };
                    FromWorker::Snapshot { epoch, operator, part, whole, held }
                }
                Err(error) => FromWorker::Failed(error.operator(&operator)),
            };
            // The leader is gone only when the run is over.
            let _ = leader.send(message);
        });
    }
}

/// The snapshot, as a rule; broken on purpose, the one that was handed over before it.
fn stale(operator: &str, worker: usize, snapshot: Snapshot) -> Snapshot {
    static BEFORE: Mutex<BTreeMap<(String, usize), Snapshot>> = Mutex::new(BTreeMap::new());
    if !faults::broken("stale_snapshot") {
        return snapshot;
    }
    let mut all = BEFORE.lock().expect("nothing panics while it holds the snapshots");
    all.insert((operator.to_owned(), worker), snapshot.clone()).unwrap_or(snapshot)
}

/// The checkpoints of one attempt, as the commit task takes them from complete to committed: does what [`Coordinator`] says.
pub struct Checkpoints {
    durable: Durable,
    machine: Coordinator,
    retries: Policy,
    given_up: watch::Receiver<bool>,
    /// The files of the checkpoint before.
    there: BTreeSet<FileRef>,
}

/// The commits of an epoch in all sinks.
pub trait CommitSinks: Send {
    fn commit(&mut self, sink: usize) -> BoxFuture<'_, Result<()>>;

    /// In all of them.
    fn commit_all(&mut self) -> BoxFuture<'_, Result<()>>;
}

/// The manifest of the epoch at hand, as it is written.
struct Written {
    file: FileRef,
    bytes: Bytes,
    nonce: String,
    needed_bytes: u64,
    new_bytes: u64,
    cut_us: i64,
    operators: Vec<OperatorCost>,
    last: bool,
    commits: Vec<bool>,
}

impl Checkpoints {
    /// `previous` is the epoch that the attempt goes on from.
    pub fn new(durable: Durable, generation: u64, previous: Option<u64>, sinks: usize) -> Checkpoints {
        // Who decides may be away for long; the first answer that is lost is not worth a pause that can be felt.
        let retries = Policy { first_us: 20_000, longest_us: 2_000_000, ..Policy::default() };
        let machine = Coordinator::new(Lineage { generation, previous, sinks });
        Checkpoints { durable, machine, retries, given_up: watch::channel(false).1, there: BTreeSet::new() }
    }

    /// Once this becomes true nobody waits for an answer any more: what was asked is decided or not, and the next attempt finds out.
    pub fn until(&mut self, given_up: watch::Receiver<bool>) {
        self.given_up = given_up;
    }

    /// What is written already: the checkpoint that the attempt goes on from.
    pub fn have(&mut self, manifest: Option<&Manifest>) {
        self.there = manifest.into_iter().flat_map(|manifest| manifest.files()).cloned().collect();
    }

    /// The answer to a question; `None` if nobody waits for it any more.
    async fn answer(&self, asked: BoxFuture<'_, Verdict>) -> Option<Verdict> {
        let mut given_up = self.given_up.clone();
        let over = async {
            // Whoever could give up is gone with the run.
            if given_up.wait_for(|given_up| *given_up).await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            answer = asked => Some(answer),
            () = over => None,
        }
    }

    /// Writes the manifest of a complete epoch, has it decided, lets every sink commit, and has that recorded.
    ///
    /// # Errors
    /// `fenced` if another attempt has taken over; what keeps the manifest from being written; the failure of a sink.
    ///
    /// `commits` says for every sink whether there is something to commit, `operators` what the snapshots cost.
    pub async fn commit(
        &mut self,
        mut manifest: Manifest,
        commits: Vec<bool>,
        operators: Vec<OperatorCost>,
        sinks: &mut dyn CommitSinks,
    ) -> Result<Manifest> {
        manifest.previous = self.machine.last_decided();
        manifest.nonce = uuid::Uuid::new_v4().to_string();
        let written = Written {
            bytes: manifest.to_bytes(),
            file: FileRef::of(&Manifest::path(&manifest.job, manifest.epoch), &manifest.to_bytes()),
            nonce: manifest.nonce.clone(),
            needed_bytes: manifest.files().iter().map(|file| file.bytes).sum(),
            new_bytes: manifest.files().iter().filter(|file| !self.there.contains(**file)).map(|file| file.bytes).sum(),
            cut_us: manifest.created_us,
            operators,
            last: manifest.last,
            commits,
        };
        let (epoch, last) = (manifest.epoch, manifest.last);
        if faults::broken("commit_before_decide") {
            sinks.commit_all().await?;
        }
        let mut effects = VecDeque::from(self.machine.step(Event::Complete { epoch, last }));
        // What is told of a halt, better than the machine can.
        let mut why = None;
        while let Some(effect) = effects.pop_front() {
            let event = match effect {
                Effect::CreateManifest { .. } => {
                    Event::Manifest { epoch, reply: self.create(&written, &mut why).await }
                }
                Effect::ReadManifest { .. } => {
                    let reply = self.read(&written).await;
                    if reply == ManifestReply::ExistsOther {
                        why = None;
                    }
                    Event::Manifest { epoch, reply }
                }
                Effect::Decide { previous, .. } => {
                    why = None;
                    faults::reach("decide.asked").await?;
                    if last {
                        faults::reach("last.decide").await?;
                    }
                    let asked = self.durable.authority.decide(written.decision(epoch, previous));
                    let Some(verdict) = self.answer(asked).await else { return Err(given_up()) };
                    let told = faults::reach("decide.told").await;
                    if faults::broken("confirm_before_sinks") {
                        self.durable.authority.confirm(epoch).await;
                    }
                    let reply = match told.map_or_else(|lost| Verdict::Unknown(lost.to_string()), |()| verdict) {
                        Verdict::Done => DecisionReply::Decided,
                        Verdict::Fenced(by) => {
                            why = Some(fenced(by));
                            DecisionReply::Fenced
                        }
                        Verdict::Unknown(_) => DecisionReply::Unknown,
                    };
                    Event::Decision { epoch, reply }
                }
                Effect::Commit { sink, .. } => {
                    let committed = async {
                        faults::reach("commit.sink.before").await?;
                        if last {
                            faults::reach("last.decided").await?;
                        }
                        sinks.commit(sink).await?;
                        Ok(faults::reach("commit.sink.after").await?)
                    };
                    let reply = match committed.await {
                        Ok(()) => SinkReply::Committed,
                        Err(error) => {
                            why = Some(error);
                            SinkReply::Failed
                        }
                    };
                    Event::Sink { epoch, sink, reply }
                }
                Effect::Confirm { .. } => {
                    faults::reach("confirm.asked").await?;
                    let Some(verdict) = self.answer(self.durable.authority.confirm(epoch)).await else {
                        return Err(given_up());
                    };
                    let told = faults::reach("confirm.told").await;
                    let reply = match told.map_or_else(|lost| Verdict::Unknown(lost.to_string()), |()| verdict) {
                        Verdict::Done => GuardedReply::Done,
                        Verdict::Fenced(by) => {
                            why = Some(fenced(by));
                            GuardedReply::Fenced
                        }
                        Verdict::Unknown(_) => GuardedReply::Unknown,
                    };
                    Event::Confirmation { epoch, reply }
                }
                Effect::Wait { tries, .. } => {
                    if tries > WRITE_TRIES
                        && let Some(error) = why.take()
                    {
                        return Err(error);
                    }
                    let wait_us = self.retries.delay_us(tries);
                    tokio::time::sleep(Duration::from_micros(wait_us.max(0) as u64)).await;
                    Event::Retry { epoch }
                }
                Effect::Committed { .. } => {
                    if last {
                        faults::reach("last.committed").await?;
                    }
                    self.have(Some(&manifest));
                    return Ok(manifest);
                }
                Effect::Halt { cause } => return Err(why.unwrap_or_else(|| halted(&cause))),
            };
            effects.extend(self.machine.step(event));
        }
        Err(RunError::internal("the commit of a checkpoint came to no end"))
    }

    async fn create(&self, written: &Written, why: &mut Option<RunError>) -> ManifestReply {
        let created = async {
            faults::reach("manifest.before").await?;
            let created = self.durable.files.create(&written.file.path, written.bytes.clone()).await?;
            faults::reach("manifest.after").await?;
            Ok::<_, RunError>(created)
        };
        match created.await {
            Ok(Creation::Created) => ManifestReply::Created,
            Ok(Creation::Exists(there)) => {
                *why = None;
                written.is_in(&there)
            }
            Err(error) => {
                tracing::warn!(%error, "a manifest was not written");
                *why = Some(error);
                ManifestReply::Unknown
            }
        }
    }

    async fn read(&self, written: &Written) -> ManifestReply {
        match self.durable.files.read(&written.file.path).await {
            Ok(Some(there)) => written.is_in(&there),
            Ok(None) => ManifestReply::Absent,
            Err(_) => ManifestReply::Unknown,
        }
    }
}

/// How often a manifest is tried to be written before the attempt gives up: a disk is full, a bucket is gone. Decisions are waited for
/// without end: the run goes on meanwhile, as far as it may.
const WRITE_TRIES: u32 = 8;

impl Written {
    fn is_in(&self, there: &[u8]) -> ManifestReply {
        if self.file.is(there) { ManifestReply::ExistsMine } else { ManifestReply::ExistsOther }
    }

    fn decision(&self, epoch: u64, previous: Option<u64>) -> Decision {
        Decision {
            epoch,
            previous,
            nonce: self.nonce.clone(),
            manifest: self.file.clone(),
            bytes: self.new_bytes + self.file.bytes,
            total_bytes: self.needed_bytes + self.file.bytes,
            duration_us: now_us() - self.cut_us,
            operators: self.operators.clone(),
            last: self.last,
            commits: self.commits.clone(),
        }
    }
}

/// The run has failed meanwhile, and nobody hears of this.
fn given_up() -> RunError {
    RunError::internal("the run ended before the fate of its last checkpoint was known")
}

/// Another attempt goes on in the place of this one.
pub(super) fn fenced(why: String) -> RunError {
    RunError::external("fenced", format!("another attempt of the run has taken over: {why}"))
}

/// Why the attempt must end, told to whom it concerns: what another attempt may mend is nobody's fault here.
pub(super) fn halted(cause: &Halt) -> RunError {
    match cause {
        Halt::Fenced | Halt::SinkFailed { .. } => RunError::external(cause.code(), cause.to_string()),
        _ => RunError::user(cause.code(), cause.to_string()),
    }
}

impl From<FileError> for RunError {
    fn from(error: FileError) -> RunError {
        let code = match &error {
            FileError::Full { .. } => "disk_full",
            FileError::Missing { .. } | FileError::Damaged { .. } => "checkpoint_corrupt",
            FileError::Denied { .. } => "checkpoint_storage_denied",
            FileError::NoPlace { .. } => "checkpoint_storage_missing",
            FileError::Unreachable { .. } => "checkpoint_storage_unreachable",
            FileError::Refused { .. } | FileError::Failed { .. } => "checkpoint_storage",
        };
        RunError::external(code, error.to_string())
    }
}

/// What a test wants to go wrong could be mended by another attempt.
impl From<faults::Injected> for RunError {
    fn from(injected: faults::Injected) -> RunError {
        RunError::external("injected", injected.to_string())
    }
}

impl From<ManifestError> for RunError {
    fn from(error: ManifestError) -> RunError {
        match error {
            ManifestError::File(error) => error.into(),
            ManifestError::Format { .. } => RunError::user("checkpoint_format", error.to_string())
                .hint("run a version of the program that is at least as new as the one that wrote it"),
            other => RunError::external("checkpoint_corrupt", other.to_string()),
        }
    }
}
