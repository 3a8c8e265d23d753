//! Everything that takes part, and everything that may happen next.
//!
//! A [`World`] is a value: [`World::choices`] lists what may happen, [`World::apply`] does one of it and checks what must always hold. The
//! seeded runs and the exhaustive exploration ([`crate::explore`]) differ only in how they choose.
//!
//! Requests travel: a request is sent, lands (takes effect, gets its answer), and its answer is delivered; each is a choice of its own, so
//! that crashes, other processes and faults come in between. An asker that was told "unknown" has a request that may still land, or has
//! landed.

mod attempts;
mod collectors;
mod committers;
mod normal;

use std::collections::BTreeSet;
use std::rc::Rc;

use control::epochs::collection::{self, Collection, Names, Object};
use control::epochs::coordinator::Coordinator;
use control::epochs::recovery::{Known, Recovery};
use control::epochs::sinks::{ChainCommit, ChainEvent, CreateReply, Expect, History, MarkerCommit, MarkerEvent};
use control::epochs::{DecisionReply, GuardedReply, ManifestReply};

use crate::model::*;
use crate::sabotage::Sabotage;

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Config {
    /// Records per split.
    pub records: u8,
    /// Sinks publish once, at the last epoch.
    pub bounded: bool,
    /// The job has had a lineage before.
    pub older: bool,
    /// Files carry their age, and collection its grace.
    pub aging: bool,
    /// A cut is always one record further.
    pub plain_cuts: bool,
    pub sabotage: Option<Sabotage>,
    pub allowed: Faults,
}

/// How many of each may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Faults {
    /// Of the leader of an attempt.
    pub crashes: u8,
    /// A control plane crashes, or another takes over.
    pub takeovers: u8,
    /// New attempts while the old one lives on.
    pub zombies: u8,
    /// Requests and answers that are lost, late, doubled; refusals; timeouts.
    pub net: u8,
    pub pauses: u8,
    pub collections: u8,
    /// The database loses its newest transactions.
    pub lost_tails: u8,
    pub damages: u8,
    pub expiries: u8,
    /// The sink's client asks to commit twice, and says nothing of it.
    pub silent_copies: u8,
}

impl Faults {
    pub const NONE: Faults = Faults {
        crashes: 0,
        takeovers: 0,
        zombies: 0,
        net: 0,
        pauses: 0,
        collections: 0,
        lost_tails: 0,
        damages: 0,
        expiries: 0,
        silent_copies: 0,
    };
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Who {
    Attempt(u8),
    Collector(u8),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Request {
    Known,
    Decide {
        epoch: u64,
        previous: Option<u64>,
        last: bool,
    },
    Confirm {
        epoch: u64,
    },
    Abandon {
        epoch: u64,
    },
    /// `sink`: a committer asks.
    Generation {
        sink: Option<u8>,
    },
    Rows,
    Retire {
        epochs: Vec<u64>,
    },
    Create {
        manifest: Rc<Manifest>,
    },
    Read {
        epoch: u64,
    },
    Upload {
        name: Name,
        file: File,
    },
    Verify {
        epoch: u64,
    },
    Manifests {
        retained: Vec<u64>,
        retired: Vec<u64>,
    },
    List,
    Delete {
        objects: Vec<Name>,
    },
    Sink {
        sink: u8,
        request: SinkRequest,
    },
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SinkRequest {
    Init,
    Marker {
        stable: bool,
    },
    Write {
        producer: u32,
        rows: Entry,
    },
    Mark {
        producer: u32,
        epoch: u64,
    },
    End {
        producer: u32,
    },
    /// A broken protocol's.
    MarkAlone {
        epoch: u64,
    },
    Chain,
    Append {
        number: usize,
        rows: Entry,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Answer {
    Unknown,
    Refused,
    Fenced,
    Done,
    Decision(DecisionReply),
    Known(Rc<Known>),
    Manifest(ManifestReply),
    Verified(Rc<Manifest>, [u32; SPLITS]),
    Corrupt(String),
    Rows(Rc<(Vec<collection::Row>, u64)>),
    Names { retained: Rc<Vec<Names<Name>>>, retired: Rc<Vec<Names<Name>>> },
    Listed(Rc<Vec<Object<Name>>>),
    Producer(u32),
    Marker(Option<u64>),
    Chain { number: usize, newest: Option<u64> },
    Appended(CreateReply),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Op {
    pub who: Who,
    pub request: Request,
    /// Of the control plane that carries it to the database; 0: there was none.
    pub term: u64,
    /// The asker still waits for it.
    pub attached: bool,
    pub answer: Option<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Wait {
    Epoch(u64),
    Recovery,
    Sink(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    Dead,
    Reading,
    Recovering,
    Running,
}

/// The leader of an attempt, with its workers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Attempt {
    pub uid: u8,
    pub generation: u64,
    pub first: u64,
    pub phase: Phase,
    pub paused: bool,
    recovery: Option<Recovery>,
    coordinator: Option<Coordinator>,
    waits: BTreeSet<Wait>,
    /// The newest cut.
    at: Option<Rc<Manifest>>,
    next: u64,
    /// Cut, and not acknowledged by these workers.
    uploading: u8,
    /// Complete, and not confirmed.
    complete: Vec<Rc<Manifest>>,
    committers: [Committer; SINKS],
}

/// The commit of an epoch in a sink.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Committer {
    machine: Machine,
    /// What is to be shown, and what was.
    expect: Option<Expect>,
    history: Option<History>,
    /// That has committed without a doubt, or was just made.
    producer: Option<u32>,
    clean: bool,
    recovers: bool,
    epoch: u64,
    number: usize,
    rows: Option<Entry>,
    /// Of a broken protocol.
    stale: Option<Option<u64>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
enum Machine {
    #[default]
    None,
    Marker(MarkerCommit),
    Chain(ChainCommit),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Collector {
    term: u64,
    machine: Option<Collection<Name>>,
}

/// What the checks remember. No process sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Ghost {
    /// By sink: the newest epoch that its readers see, and where their rows end.
    pub shown: [(Option<u64>, [u8; SPLITS]); SINKS],
    /// All that were ever decided, with what they followed and by whom.
    pub decided: Vec<(u64, Option<u64>, u8)>,
    pub reported: Option<u64>,
    pub newest_generation: u64,
    pub lost_tail: bool,
    pub damaged: bool,
    pub expired: bool,
    pub finished: bool,
    /// Nobody goes on without help; with why.
    pub ended: Option<&'static str>,
}

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Choice {
    Land(usize),
    Deliver(usize),
    Cut { attempt: usize, kind: u8 },
    Retry { attempt: usize, wait: Wait },
    NewAttempt { answered: bool },
    Lead(usize),
    Collect,
    Resume(usize),
    // Faults.
    Refuse(usize),
    TimeOut(usize),
    Lose(usize),
    Double(usize),
    Copy(usize),
    Crash(usize),
    CrashPlane(usize),
    Pause(usize),
    Partial(usize),
    GiveUp { attempt: usize, sink: u8 },
    ExpireTransaction(usize),
    ExpireMarker(usize),
    Foreign(usize),
    Damage(usize),
    LoseTail,
}

#[derive(Clone)]
pub struct World {
    pub config: Config,
    pub faults: Faults,
    pub db: Db,
    /// Earlier states of the database, oldest first.
    undo: Vec<Db>,
    pub store: Store,
    pub sinks: [Sink; SINKS],
    /// The terms that the control planes believe in; 0: it is down.
    pub planes: [u64; 2],
    pub attempts: Vec<Attempt>,
    collectors: Vec<Collector>,
    pub ops: Vec<Op>,
    pub ghost: Ghost,
    pub now: u32,
    /// No more faults.
    pub calm: bool,
    pub violation: Option<String>,
    pub trace: Option<Vec<String>>,
}

pub const ATTEMPTS_MAX: usize = 12;

impl std::hash::Hash for World {
    /// What differs only in the past is the same.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.faults, &self.db, &self.store.manifests, &self.sinks, &self.planes).hash(state);
        // Which files are there follows from the rest, but for those that nobody knows of.
        if self.config.allowed.collections > 0 {
            self.store.files.hash(state);
        }
        (&self.attempts, &self.collectors, &self.ops, &self.ghost, self.calm).hash(state);
    }
}

impl World {
    pub fn new(config: Config) -> World {
        let older = config.older.then_some(5);
        let reserved = if config.older { 9 } else { 0 };
        let chain = Chain { entries: older.into_iter().map(Some).collect() };
        let db = Db { term: 1, generation: 0, reserved, older, rows: Vec::new() };
        World {
            config,
            faults: config.allowed,
            db,
            undo: Vec::new(),
            store: Store::default(),
            sinks: [Sink::Kafka(Kafka { marker: older, ..Kafka::default() }), Sink::Files(chain)],
            planes: [1, 0],
            attempts: Vec::new(),
            collectors: Vec::new(),
            ops: Vec::new(),
            ghost: Ghost::default(),
            now: 0,
            calm: false,
            violation: None,
            trace: None,
        }
    }

    fn is(&self, sabotage: Sabotage) -> bool {
        self.config.sabotage == Some(sabotage)
    }

    fn violated(&mut self, what: impl FnOnce() -> String) {
        if self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what);
        }
    }

    /// Nothing more is to happen.
    pub fn is_over(&self) -> bool {
        self.violation.is_some() || self.ghost.finished || self.ghost.ended.is_some()
    }

    /// No fault is left, one attempt lives, and nobody else's request is on its way.
    pub fn is_calm_and_alone(&self) -> bool {
        let faults = Faults { collections: 0, ..self.faults };
        let alone = self.attempts.iter().filter(|attempt| attempt.phase != Phase::Dead).count() == 1;
        let collects = self.faults.collections > 0 || self.collectors.iter().any(|it| it.machine.is_some());
        faults == Faults::NONE && alone && !collects && self.ops.iter().all(|op| op.attached)
    }

    /// A step that may come first, because it is the same whatever else happens before it: it changes one attempt alone (an answer is
    /// heard, a delay ends), or stores something that nobody looks at before its epoch is complete. That the attempt crashes before it is
    /// another choice.
    pub fn first_of(&self, progress: &[Choice]) -> Option<Choice> {
        let allowed = &self.config.allowed;
        let harmless = allowed.collections + allowed.damages + allowed.lost_tails == 0;
        let is_private = |choice: &&Choice| match choice {
            Choice::Deliver(at) => self.ops[*at].attached,
            Choice::Land(at) => match self.ops[*at].request {
                Request::Upload { .. } => true,
                // Its path is nobody else's, what it reads changes no more: unless things get lost.
                Request::Create { .. } | Request::Verify { .. } => harmless,
                // Whoever fences this producer aborts its transaction, with the marker or without.
                Request::Sink { request: SinkRequest::Mark { .. }, .. } => true,
                _ => false,
            },
            Choice::Retry { .. } => true,
            _ => false,
        };
        progress.iter().find(is_private).copied()
    }

    // ---- what may happen

    /// What leads on; what happens to requests; what else goes wrong.
    pub fn choices(&self, progress: &mut Vec<Choice>, faults: &mut Vec<Choice>, events: &mut Vec<Choice>) {
        progress.clear();
        faults.clear();
        events.clear();
        let leader = self.leader();
        let left = &self.faults;
        let net = left.net > 0 && !self.calm;
        for (at, op) in self.ops.iter().enumerate() {
            let hears = self.hears(op.who);
            // What nobody waits for comes late.
            let late = if op.attached || self.calm { &mut *progress } else { &mut *events };
            if op.answer.is_none() {
                late.push(Choice::Land(at));
            } else if hears {
                late.push(Choice::Deliver(at));
            }
            if left.silent_copies > 0 && !self.calm && op.answer.is_none() && op.attached && is_end(&op.request) {
                events.extend([Choice::Copy(at); 8]);
            }
            if !net {
                continue;
            }
            if op.answer.is_none() {
                faults.push(Choice::Refuse(at));
                if matches!(&op.request, Request::Delete { objects } if objects.len() > 1) {
                    faults.push(Choice::Partial(at));
                }
            } else if hears && op.attached && !matches!(op.request, Request::Sink { .. }) {
                faults.push(Choice::Double(at));
            }
            if op.attached && hears {
                faults.push(Choice::TimeOut(at));
            }
            if hears || !op.attached {
                faults.push(Choice::Lose(at));
            }
        }
        for (at, attempt) in self.attempts.iter().enumerate() {
            if attempt.phase == Phase::Dead {
                continue;
            }
            if attempt.paused {
                // A zombie sleeps long.
                if self.calm {
                    progress.push(Choice::Resume(at))
                } else {
                    events.push(Choice::Resume(at))
                }
                continue;
            }
            // To ask when nobody answers leads nowhere, and to ever new worlds.
            if leader.is_some() || !self.config.plain_cuts {
                progress.extend(attempt.waits.iter().map(|wait| Choice::Retry { attempt: at, wait: *wait }));
            }
            if attempt.may_cut(self.config.records) {
                let kinds = if self.config.plain_cuts { 1 } else { 8 };
                // One of them, by the moment: choosing is not what is tried.
                progress.push(Choice::Cut { attempt: at, kind: (self.now % kinds) as u8 });
            }
            if self.calm {
                continue;
            }
            if left.crashes > 0 {
                events.push(Choice::Crash(at));
            }
            if left.pauses > 0 {
                events.push(Choice::Pause(at));
            }
            if net {
                let busy = |sink: &usize| attempt.committers[*sink].machine != Machine::None;
                events.extend((0..SINKS).filter(busy).map(|sink| Choice::GiveUp { attempt: at, sink: sink as u8 }));
            }
        }
        let lives = self.lives();
        if leader.is_none() {
            progress.push(Choice::Lead(0));
        } else if left.takeovers > 0 && !self.calm {
            events.push(Choice::Lead(1 - leader.unwrap_or(0)));
            events.push(Choice::CrashPlane(leader.unwrap_or(0)));
        }
        if leader.is_some() {
            let few = self.attempts.len() < ATTEMPTS_MAX;
            if !lives {
                progress.push(Choice::NewAttempt { answered: true });
            } else if left.zombies > 0 && few && !self.calm {
                events.push(Choice::NewAttempt { answered: true });
            }
            if net && few {
                events.push(Choice::NewAttempt { answered: false });
            }
        }
        if self.calm {
            return;
        }
        if left.collections > 0 && leader.is_some() && self.collectors.iter().all(|it| it.machine.is_none()) {
            events.push(Choice::Collect);
        }
        for (at, sink) in self.sinks.iter().enumerate() {
            match sink {
                Sink::Kafka(kafka) => {
                    if net && kafka.open.is_some() {
                        events.push(Choice::ExpireTransaction(at));
                    }
                    // That takes days: nobody is at it, and who was asleep has been killed.
                    let live = self.attempts.iter().filter(|attempt| attempt.phase != Phase::Dead);
                    let busy = live.clone().count() > 1
                        || live.clone().any(|attempt| attempt.phase != Phase::Running)
                        || live.clone().any(|attempt| attempt.committers[at].machine != Machine::None);
                    if left.expiries > 0 && kafka.marker.is_some() && !busy {
                        events.push(Choice::ExpireMarker(at));
                    }
                }
                Sink::Files(_) if net => events.push(Choice::Foreign(at)),
                Sink::Files(_) => {}
            }
        }
        if left.damages > 0 {
            events.extend((0..self.store.files.len()).map(Choice::Damage));
        }
        if left.lost_tails > 0 && !self.undo.is_empty() {
            events.push(Choice::LoseTail);
        }
    }

    /// The newest attempt runs, as far as its control plane knows.
    fn lives(&self) -> bool {
        let newest = self.attempts.last();
        newest.is_some_and(|newest| newest.phase != Phase::Dead && newest.generation == self.db.generation)
    }

    /// The control plane whose term is the newest.
    fn leader(&self) -> Option<usize> {
        self.planes.iter().position(|term| *term == self.db.term)
    }

    fn hears(&self, who: Who) -> bool {
        match who {
            Who::Attempt(at) => {
                let attempt = &self.attempts[usize::from(at)];
                attempt.phase != Phase::Dead && !attempt.paused
            }
            Who::Collector(at) => self.collectors[usize::from(at)].machine.is_some(),
        }
    }

    // ---- what happens

    pub fn apply(&mut self, choice: Choice) {
        self.now += 1;
        if self.trace.is_some() {
            let line = self.describe(choice);
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
        match choice {
            Choice::Land(at) => self.land(at),
            Choice::Deliver(at) => {
                let op = self.ops.remove(at);
                self.deliver(op);
            }
            Choice::Cut { attempt, kind } => self.cut(attempt, kind),
            Choice::Retry { attempt, wait } => self.retry(attempt, wait),
            Choice::NewAttempt { answered } => {
                match (answered, self.lives()) {
                    (false, _) => self.faults.net -= 1,
                    (true, true) => self.faults.zombies -= 1,
                    (true, false) => {}
                }
                self.new_attempt(answered);
            }
            Choice::Lead(plane) => {
                if self.leader().is_some() {
                    self.faults.takeovers -= 1;
                }
                self.write(|db| db.term += 1);
                self.planes[plane] = self.db.term;
            }
            Choice::Collect => {
                self.faults.collections -= 1;
                self.collect();
            }
            Choice::Resume(at) => self.attempts[at].paused = false,
            Choice::Refuse(at) => {
                self.faults.net -= 1;
                let op = &mut self.ops[at];
                op.answer = Some(if is_database(&op.request) { Answer::Refused } else { Answer::Unknown });
                self.drop_if_unheard(at);
            }
            Choice::TimeOut(at) => {
                self.faults.net -= 1;
                let mut op = self.ops.remove(at);
                op.attached = false;
                let asked = Op { answer: Some(Answer::Unknown), attached: true, ..op.clone() };
                self.ops.push(op);
                self.deliver(asked);
            }
            Choice::Lose(at) => {
                self.faults.net -= 1;
                let op = self.ops.remove(at);
                if op.attached {
                    self.deliver(Op { answer: Some(Answer::Unknown), ..op });
                }
            }
            Choice::Double(at) => {
                self.faults.net -= 1;
                let op = self.ops.remove(at);
                self.ops.push(Op { attached: false, ..op.clone() });
                self.deliver(op);
            }
            Choice::Copy(at) => {
                self.faults.silent_copies -= 1;
                let op = Op { attached: false, ..self.ops[at].clone() };
                self.ops.push(op);
            }
            Choice::Crash(at) => {
                self.faults.crashes -= 1;
                self.kill(at);
            }
            Choice::CrashPlane(at) => {
                self.faults.takeovers -= 1;
                self.planes[at] = 0;
                // What it had sent to the store may still arrive.
                for collector in &mut self.collectors {
                    collector.machine = None;
                }
            }
            Choice::Pause(at) => {
                self.faults.pauses -= 1;
                self.attempts[at].paused = true;
            }
            Choice::Partial(at) => {
                self.faults.net -= 1;
                let Request::Delete { objects } = &mut self.ops[at].request else { panic!("a deletion") };
                objects.truncate(objects.len() / 2);
                self.land(at);
                if let Some(op) = self.ops.get_mut(at) {
                    op.answer = Some(Answer::Unknown);
                }
            }
            Choice::GiveUp { attempt, sink } => {
                self.faults.net -= 1;
                self.detach(attempt, sink);
                self.marker_event(attempt, sink, MarkerEvent::GiveUp);
                self.chain_event(attempt, sink, ChainEvent::GiveUp);
            }
            Choice::ExpireTransaction(at) => {
                self.faults.net -= 1;
                if let Sink::Kafka(kafka) = &mut self.sinks[at] {
                    kafka.expire();
                }
            }
            Choice::ExpireMarker(at) => {
                self.faults.expiries -= 1;
                self.ghost.expired = true;
                if let Sink::Kafka(kafka) = &mut self.sinks[at] {
                    kafka.marker = None;
                }
            }
            Choice::Foreign(at) => {
                self.faults.net -= 1;
                if let Sink::Files(chain) = &mut self.sinks[at] {
                    chain.entries.push(None);
                }
            }
            Choice::Damage(at) => {
                self.faults.damages -= 1;
                self.ghost.damaged = true;
                self.store.files[at].1.damaged = true;
            }
            Choice::LoseTail => {
                self.faults.lost_tails -= 1;
                self.ghost.lost_tail = true;
                let back = 1 + self.now as usize % self.undo.len();
                self.undo.truncate(self.undo.len() + 1 - back);
                self.db = self.undo.pop().expect("there is a past");
            }
        }
        if self.config.plain_cuts {
            self.normalize();
        }
    }

    /// Changes the database, and remembers what it was.
    fn write<T>(&mut self, change: impl FnOnce(&mut Db) -> T) -> T {
        if self.faults.lost_tails == 0 {
            return change(&mut self.db);
        }
        let before = self.db.clone();
        let result = change(&mut self.db);
        if before != self.db {
            if self.undo.len() == 4 {
                self.undo.remove(0);
            }
            self.undo.push(before);
        }
        result
    }

    fn send(&mut self, who: Who, request: Request) {
        let term = match (who, is_database(&request)) {
            (Who::Collector(at), _) => self.collectors[usize::from(at)].term,
            (_, true) => self.leader().map_or(0, |plane| self.planes[plane]),
            (_, false) => 0,
        };
        self.ops.push(Op { who, request, term, attached: true, answer: None });
    }

    fn kill(&mut self, at: usize) {
        let attempt = &mut self.attempts[at];
        *attempt = Attempt::dead(attempt.uid, attempt.generation);
        let who = Who::Attempt(at as u8);
        // Answers find nobody, and nobody wants to read any more; other requests are on their way.
        let exploring = self.config.plain_cuts;
        let drops = |request: &Request| match request {
            Request::Known | Request::Generation { .. } | Request::Read { .. } | Request::Verify { .. } => true,
            Request::Sink { request, .. } => matches!(request, SinkRequest::Marker { .. } | SinkRequest::Chain),
            // Nobody else uses this name.
            Request::Upload { .. } => exploring,
            _ => false,
        };
        self.ops.retain(|op| op.who != who || op.answer.is_none() && !drops(&op.request));
        for op in self.ops.iter_mut().filter(|op| op.who == who) {
            op.attached = false;
        }
    }

    /// A landed request whose answer nobody can use is over.
    fn drop_if_unheard(&mut self, at: usize) {
        let op = &self.ops[at];
        let dead = match op.who {
            Who::Attempt(who) => self.attempts[usize::from(who)].phase == Phase::Dead,
            Who::Collector(who) => self.collectors[usize::from(who)].machine.is_none(),
        };
        if dead {
            self.ops.remove(at);
        }
    }

    /// The asker no longer waits for anything of the sink.
    fn detach(&mut self, attempt: usize, sink: u8) {
        let who = Who::Attempt(attempt as u8);
        let is_its = |op: &Op| op.who == who && matches!(&op.request, Request::Sink { sink: at, .. } if *at == sink);
        self.ops.retain(|op| !is_its(op) || op.answer.is_none());
        for op in self.ops.iter_mut().filter(|op| is_its(op)) {
            op.attached = false;
        }
    }

    // ---- requests land

    fn land(&mut self, at: usize) {
        let Op { who, request, term, .. } = self.ops[at].clone();
        let current = term == self.db.term || self.is(Sabotage::NoTermGuard);
        let answer = if is_database(&request) && !current {
            // The control plane that carried it has been replaced.
            Answer::Refused
        } else {
            if is_database(&request) && term != self.db.term && !matches!(request, Request::Known | Request::Rows) {
                self.violated(|| "a control plane whose term is over has written".into());
            }
            self.effect_of(who, request)
        };
        self.ops[at].answer = Some(answer);
        self.drop_if_unheard(at);
    }

    fn effect_of(&mut self, who: Who, request: Request) -> Answer {
        let asker = if let Who::Attempt(at) = who { usize::from(at) } else { 0 };
        let (uid, generation) = self.attempts.get(asker).map_or((0, 0), |attempt| (attempt.uid, attempt.generation));
        match request {
            Request::Known => {
                let first = self.attempts[asker].first;
                match self.db.known(generation, first, &self.store, self.config.bounded, self.ghost.expired) {
                    Some(known) => Answer::Known(Rc::new(known)),
                    None => Answer::Fenced,
                }
            }
            Request::Decide { epoch, previous, last } => {
                Answer::Decision(self.decide(DbRow { epoch, previous, generation, uid, state: DbState::Decided, last }))
            }
            Request::Confirm { epoch } => {
                guarded(self.write(|db| db.mark(epoch, generation, DbState::Decided, DbState::Committed)))
            }
            Request::Abandon { epoch } => guarded(self.write(|db| db.abandon(epoch, generation))),
            Request::Generation { .. } => {
                guarded(if generation == self.db.generation { GuardedReply::Done } else { GuardedReply::Fenced })
            }
            Request::Rows => Answer::Rows(Rc::new((self.db.collectable(), self.db.generation))),
            Request::Retire { epochs } => {
                let before = self.db.live().count();
                let reply = self.write(|db| db.retire(&epochs));
                let after = self.db.live().count();
                self.check(after >= before.min(2) || self.ghost.lost_tail, || {
                    format!("of {before} epochs {after} are retained")
                });
                guarded(reply)
            }
            Request::Create { manifest } => Answer::Manifest(self.store.create(&manifest)),
            Request::Read { epoch } => Answer::Manifest(self.store.read(epoch, uid)),
            Request::Upload { name, file } => {
                self.store.upload(name, file);
                Answer::Done
            }
            Request::Verify { epoch } => {
                let careless = self.is(Sabotage::NoVerify);
                let decided = self.db.row(epoch).map(|row| row.uid);
                match self.store.manifest(epoch) {
                    None => Answer::Corrupt("no manifest".into()),
                    // Its hash is in the row.
                    Some(manifest) if Some(manifest.uid) != decided => Answer::Corrupt("another manifest".into()),
                    Some(manifest) => match self.store.restore(manifest, careless) {
                        Ok(sums) => Answer::Verified(manifest.clone(), sums),
                        Err(what) => Answer::Corrupt(what),
                    },
                }
            }
            Request::Manifests { retained, retired } => {
                let names = |epochs: &[u64]| {
                    let found = epochs.iter().filter_map(|epoch| self.store.manifest(*epoch));
                    let names = found.map(|manifest| Names { epoch: manifest.epoch, objects: manifest.names() });
                    names.collect::<Vec<_>>()
                };
                Answer::Names { retained: Rc::new(names(&retained)), retired: Rc::new(names(&retired)) }
            }
            Request::List => Answer::Listed(Rc::new(self.list())),
            Request::Delete { objects } => {
                for name in &objects {
                    self.store.delete(*name);
                }
                self.check_restorable(&objects);
                Answer::Done
            }
            Request::Sink { sink, request } => self.sink_effect(usize::from(sink), request),
        }
    }

    fn decide(&mut self, row: DbRow) -> DecisionReply {
        let guards =
            Guards { generation: !self.is(Sabotage::NoGenerationGuard), previous: !self.is(Sabotage::NoPreviousGuard) };
        let (last, rows) = (self.db.last(), self.db.rows.len());
        let reply = self.write(|db| db.decide(row, guards));
        if self.db.rows.len() == rows {
            return reply;
        }
        let epoch = row.epoch;
        self.check(row.previous == last, || {
            format!("{epoch} follows {:?}, the last decided one was {last:?}", row.previous)
        });
        let newest = self.ghost.newest_generation;
        self.check(row.generation >= newest || self.ghost.lost_tail, || {
            format!("generation {} decided {epoch} after generation {newest} had begun", row.generation)
        });
        // Its own decision, which the database had forgotten, may be repeated.
        let before = self.ghost.decided.iter().find(|(decided, ..)| *decided == epoch).copied();
        let same = before.is_none_or(|before| self.ghost.lost_tail && before == (epoch, row.previous, row.uid));
        self.check(same, || format!("{epoch} was decided twice"));
        self.ghost.decided.push((epoch, row.previous, row.uid));
        match self.store.manifest(epoch) {
            Some(manifest) => {
                self.check(manifest.uid == row.uid, || {
                    format!("{epoch} was decided with the manifest of another attempt")
                });
            }
            // Its attempt was a zombie until the database forgot that: its manifest may have been collected. The next recovery sees it.
            None if self.ghost.lost_tail => {}
            None => self.violated(|| format!("{epoch} was decided without a manifest")),
        }
        self.check_restorable(&[Name::Manifest(epoch)]);
        reply
    }

    /// None of these may be needed by an epoch that is decided and not retired; a damaged file is another matter.
    fn check_restorable(&mut self, touched: &[Name]) {
        // Rows that were retired came back.
        if self.ghost.lost_tail || touched.is_empty() {
            return;
        }
        let missing = self.db.live().find_map(|row| match self.store.manifest(row.epoch) {
            None => Some((row.epoch, Name::Manifest(row.epoch))),
            Some(manifest) => {
                let missing = manifest.files.iter().find(|name| self.store.file(**name).is_none());
                missing.map(|name| (row.epoch, *name))
            }
        });
        if let Some((epoch, name)) = missing {
            self.violated(|| format!("{epoch} cannot be restored: {name:?} is missing"));
        }
    }

    fn list(&self) -> Vec<Object<Name>> {
        let age = |born: u32| if self.config.aging { i64::from(self.now - born) } else { i64::MAX };
        let manifests = self.store.manifests.iter().map(|manifest| Object {
            name: Name::Manifest(manifest.epoch),
            is_manifest: true,
            age_us: age(manifest.born),
            generation: Some(manifest.generation),
        });
        let files = self.store.files.iter().map(|(name, file)| Object {
            name: *name,
            is_manifest: false,
            age_us: age(file.born),
            generation: Some(file.generation),
        });
        manifests.chain(files).collect()
    }

    fn sink_effect(&mut self, at: usize, request: SinkRequest) -> Answer {
        let mut shown = None;
        let answer = match (&mut self.sinks[at], request) {
            (Sink::Kafka(kafka), request) => match request {
                SinkRequest::Init => Answer::Producer(kafka.init()),
                SinkRequest::Marker { stable } => kafka.read(stable).map_or(Answer::Unknown, Answer::Marker),
                SinkRequest::Write { producer, rows } => said(kafka.write(producer, rows)),
                SinkRequest::Mark { producer, epoch } => said(kafka.mark(producer, epoch)),
                SinkRequest::End { producer } => match kafka.end(producer) {
                    Some(transaction) => {
                        shown = transaction.rows;
                        Answer::Done
                    }
                    None => Answer::Refused,
                },
                SinkRequest::MarkAlone { epoch } => {
                    kafka.marker = Some(epoch);
                    Answer::Done
                }
                SinkRequest::Chain | SinkRequest::Append { .. } => panic!("not of Kafka"),
            },
            (Sink::Files(chain), SinkRequest::Append { number, rows }) => {
                let reply = chain.create(number, rows.epoch);
                shown = (reply == CreateReply::Created).then_some(rows);
                Answer::Appended(reply)
            }
            (Sink::Files(chain), _) => Answer::Chain { number: chain.entries.len(), newest: chain.newest() },
        };
        if let Some(rows) = shown {
            self.publish(at, rows);
        }
        answer
    }

    /// Readers of the sink see these rows from now on: G1 and G2.
    fn publish(&mut self, at: usize, rows: Entry) {
        let (newest, end) = self.ghost.shown[at];
        let Entry { epoch, from, to, sums } = rows;
        self.check(newest < Some(epoch), || format!("sink {at} shows {epoch} after {newest:?}"));
        self.check(from == end, || {
            format!("sink {at} shows rows from {from:?} on after those up to {end:?} (epoch {epoch})")
        });
        let right = std::array::from_fn(|split| sum(split, to[split]));
        self.check(sums == right, || {
            format!("sink {at} shows {sums:?} in epoch {epoch}, an undisturbed run gives {right:?}")
        });
        self.ghost.shown[at] = (Some(epoch), to);
        let Some((_, previous, _)) = self.ghost.decided.iter().find(|(decided, ..)| *decided == epoch).copied() else {
            return self.violated(|| format!("sink {at} shows {epoch}, which was not decided"));
        };
        let behind = !self.config.bounded && self.ghost.shown.iter().any(|(shown, _)| *shown < previous);
        self.check(!behind, || format!("sink {at} shows {epoch} before all sinks show {previous:?}"));
    }

    fn describe(&self, choice: Choice) -> String {
        let op = match choice {
            Choice::Land(at)
            | Choice::Deliver(at)
            | Choice::Refuse(at)
            | Choice::TimeOut(at)
            | Choice::Lose(at)
            | Choice::Double(at)
            | Choice::Copy(at)
            | Choice::Partial(at) => {
                let op = &self.ops[at];
                let answer = op.answer.as_ref().map_or(String::new(), |answer| format!(" -> {answer:?}"));
                let late = if op.attached { "" } else { " (nobody waits)" };
                format!(" {:?} term {} {:?}{answer}{late}", op.who, op.term, op.request)
            }
            _ => String::new(),
        };
        format!("{:4} {choice:?}{op}", self.now)
    }
}

impl Attempt {
    fn dead(uid: u8, generation: u64) -> Attempt {
        Attempt {
            uid,
            generation,
            first: 0,
            phase: Phase::Dead,
            paused: false,
            recovery: None,
            coordinator: None,
            waits: BTreeSet::new(),
            at: None,
            next: 0,
            uploading: 0,
            complete: Vec::new(),
            committers: Default::default(),
        }
    }

    /// The last number that is reserved, as far as the attempt knows.
    fn top(&self) -> u64 {
        let decided =
            self.coordinator.as_ref().and_then(Coordinator::last_decided).filter(|epoch| *epoch >= self.first);
        decided.map_or(self.first + RANGE - 1, |epoch| (epoch + RANGE).max(self.first + RANGE - 1))
    }

    fn may_cut(&self, records: u8) -> bool {
        let Some(coordinator) = &self.coordinator else { return false };
        let ended = self.at.as_ref().is_some_and(|manifest| manifest.to == [records; SPLITS]);
        self.phase == Phase::Running
            && self.uploading == 0
            && !coordinator.holds_sources()
            && !ended
            && self.next <= self.top()
    }

    fn completed(&self, epoch: u64) -> Rc<Manifest> {
        let manifest = self.complete.iter().find(|manifest| manifest.epoch == epoch);
        manifest.expect("only what is complete is asked for").clone()
    }
}

impl Manifest {
    fn rows(&self) -> Entry {
        Entry { epoch: self.epoch, from: self.from, to: self.to, sums: self.sums }
    }

    fn names(&self) -> Vec<Name> {
        let own = std::iter::once(Name::Manifest(self.epoch));
        own.chain(self.files.iter().copied()).collect()
    }
}

fn worker_bit(name: Name) -> u8 {
    match name {
        Name::File { worker, .. } => 1 << worker,
        Name::Manifest(_) => 0,
    }
}

fn is_end(request: &Request) -> bool {
    matches!(request, Request::Sink { request: SinkRequest::End { .. }, .. })
}

fn is_database(request: &Request) -> bool {
    matches!(
        request,
        Request::Known
            | Request::Decide { .. }
            | Request::Confirm { .. }
            | Request::Abandon { .. }
            | Request::Generation { .. }
            | Request::Rows
            | Request::Retire { .. }
    )
}

fn said(ok: bool) -> Answer {
    if ok { Answer::Done } else { Answer::Refused }
}

fn guarded(reply: GuardedReply) -> Answer {
    match reply {
        GuardedReply::Done => Answer::Done,
        GuardedReply::Fenced => Answer::Fenced,
        GuardedReply::Unknown => Answer::Unknown,
    }
}

fn guarded_reply(answer: &Answer) -> GuardedReply {
    match answer {
        Answer::Done => GuardedReply::Done,
        Answer::Fenced => GuardedReply::Fenced,
        _ => GuardedReply::Unknown,
    }
}
