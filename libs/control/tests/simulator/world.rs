//! Everything that takes part, and everything that may happen next.
//!
//! A [`World`] is a value: [`World::choices`] lists what may happen, [`World::apply`] does one of it and checks what must always hold. The
//! seeded runs and the exhaustive exploration ([`crate::explore`]) differ only in how they choose.
//!
//! Requests travel: a request is sent, lands (takes effect, gets its answer), and its answer is delivered; each is a choice of its own, so
//! that crashes, other processes and faults come in between. An asker that was told "unknown" has a request that may still land, or has
//! landed.

use std::collections::BTreeSet;
use std::rc::Rc;

use control::epochs::collection::{self, Collection, Names, Object, Policy};
use control::epochs::coordinator::{self, Coordinator, Lineage};
use control::epochs::recovery::{self, Known, Recovery};
use control::epochs::sinks::{
    ChainCommit, ChainEffect, ChainEvent, CreateReply, Expect, MarkerCommit, MarkerEffect, MarkerEvent, Place,
};
use control::epochs::{DecisionReply, GuardedReply, Halt, ManifestReply, SinkReply};

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
    /// Of the leader of an attempt, or of a control plane.
    pub crashes: u8,
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
    Names(Rc<(Vec<Names<Name>>, Vec<Names<Name>>)>),
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
    older: Option<u64>,
}

/// The commit of an epoch in a sink.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Committer {
    machine: Machine,
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
        (&self.faults, &self.db, &self.store, &self.sinks, &self.planes).hash(state);
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
    /// heard, a delay ends), or stores a file that nobody looks at before its epoch is complete. That the attempt crashes before it is
    /// another choice.
    pub fn first_of(&self, progress: &[Choice]) -> Option<Choice> {
        let is_private = |choice: &&Choice| match choice {
            Choice::Deliver(at) => self.ops[*at].attached,
            Choice::Land(at) => matches!(self.ops[*at].request, Request::Upload { .. }),
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
            if op.attached && hears || !op.attached {
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
        } else if left.crashes > 0 && !self.calm {
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
                    self.faults.crashes -= 1;
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
                self.faults.crashes -= 1;
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
            self.sort();
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

    /// In order, so that worlds that differ in nothing else are equal.
    fn sort(&mut self) {
        let key = |op: &Op| (op.who, op.term, op.attached, op.answer.is_some());
        self.ops.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.request.cmp(&b.request)));
    }

    fn kill(&mut self, at: usize) {
        let attempt = &mut self.attempts[at];
        *attempt = Attempt::dead(attempt.uid, attempt.generation);
        let who = Who::Attempt(at as u8);
        // Answers find nobody; requests are on their way.
        self.ops.retain(|op| op.who != who || op.answer.is_none());
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
            Request::Retire { epochs } => guarded(self.write(|db| db.retire(&epochs))),
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
                Answer::Names(Rc::new((names(&retained), names(&retired))))
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

    // ---- attempts

    fn new_attempt(&mut self, answered: bool) {
        let reuses = self.is(Sabotage::NumbersReused);
        let first = self.write(|db| {
            db.generation += 1;
            let first = if reuses { db.last().or(db.older).unwrap_or(0) + 1 } else { db.reserved + 1 };
            db.reserved = db.reserved.max(first + RANGE - 1);
            first
        });
        self.ghost.newest_generation = self.ghost.newest_generation.max(self.db.generation);
        if !answered {
            return;
        }
        let uid = self.attempts.len() as u8;
        let attempt = Attempt {
            phase: Phase::Reading,
            first,
            next: first,
            older: self.db.older,
            ..Attempt::dead(uid, self.db.generation)
        };
        self.attempts.push(attempt);
        self.send(Who::Attempt(uid), Request::Known);
    }

    fn deliver(&mut self, op: Op) {
        let answer = op.answer.expect("an answer");
        let at = match op.who {
            Who::Attempt(at) => usize::from(at),
            Who::Collector(at) => return self.collected(usize::from(at), op.request, answer),
        };
        let decision = |answer| match answer {
            Answer::Decision(reply) => reply,
            Answer::Refused => DecisionReply::Unavailable,
            _ => DecisionReply::Unknown,
        };
        let manifest = |answer| match answer {
            Answer::Manifest(reply) => reply,
            _ => ManifestReply::Unknown,
        };
        match op.request {
            Request::Known => self.known(at, answer),
            Request::Verify { epoch } => {
                let attempt = &mut self.attempts[at];
                let Some(recovery) = &mut attempt.recovery else { return };
                let effects = match answer {
                    Answer::Verified(manifest, sums) => {
                        let effects = recovery.step(recovery::Event::Verified { epoch });
                        if !effects.is_empty() {
                            // The state is what the files say, whatever the manifest does.
                            attempt.at = Some(Rc::new(Manifest { sums, ..(*manifest).clone() }));
                        }
                        effects
                    }
                    Answer::Corrupt(what) => recovery.step(recovery::Event::Corrupt { epoch, what }),
                    _ => recovery.step(recovery::Event::Unverified { epoch }),
                };
                self.recovery_effects(at, effects);
            }
            Request::Abandon { epoch } => {
                self.recovery_event(at, recovery::Event::Abandoned { epoch, reply: guarded_reply(&answer) });
            }
            Request::Generation { sink: Some(sink) } => {
                if op.attached {
                    self.marker_event(at, sink, MarkerEvent::Generation(guarded_reply(&answer)));
                }
            }
            Request::Generation { sink: None } => {
                self.recovery_event(at, recovery::Event::Generation { reply: guarded_reply(&answer) });
            }
            Request::Confirm { epoch } => {
                let reply = guarded_reply(&answer);
                if self.attempts[at].phase == Phase::Recovering {
                    self.recovery_event(at, recovery::Event::Confirmation { epoch, reply });
                } else {
                    self.coordinator_event(at, coordinator::Event::Confirmation { epoch, reply });
                }
            }
            Request::Create { manifest: created } => {
                let reply = match manifest(answer) {
                    ManifestReply::ExistsOther if self.is(Sabotage::TakenIsMine) => ManifestReply::ExistsMine,
                    reply => reply,
                };
                self.coordinator_event(at, coordinator::Event::Manifest { epoch: created.epoch, reply });
            }
            Request::Read { epoch } => {
                self.coordinator_event(at, coordinator::Event::Manifest { epoch, reply: manifest(answer) });
            }
            Request::Decide { epoch, .. } => {
                let reply = decision(answer);
                if reply == DecisionReply::Unknown && self.is(Sabotage::UnknownIsFailure) && op.attached {
                    let uid = self.attempts[at].uid;
                    let its = |name: &Name| matches!(name, Name::File { uid: by, epoch: of, .. } if *by == uid && *of == epoch);
                    let mut objects: Vec<Name> = self.store.files.iter().map(|(name, _)| *name).filter(its).collect();
                    objects.push(Name::Manifest(epoch));
                    self.send(Who::Attempt(at as u8), Request::Delete { objects });
                }
                self.coordinator_event(at, coordinator::Event::Decision { epoch, reply });
            }
            Request::Upload { name, file } => match answer {
                Answer::Done => self.uploaded(at, name),
                _ if op.attached => self.send(op.who, Request::Upload { name, file }),
                _ => {}
            },
            // Answers of sinks count only for the last request.
            Request::Sink { .. } if !op.attached && !self.is(Sabotage::LateAnswerBelieved) => {}
            Request::Sink { sink, request } => self.sink_answer(at, sink, request, answer),
            Request::Delete { .. } => {}
            Request::Rows | Request::Retire { .. } | Request::Manifests { .. } | Request::List => {
                panic!("attempts collect nothing")
            }
        }
    }

    fn known(&mut self, at: usize, answer: Answer) {
        if self.attempts[at].phase != Phase::Reading {
            return;
        }
        match answer {
            Answer::Known(known) => {
                let (recovery, effects) = Recovery::new((*known).clone(), SINKS);
                self.attempts[at].phase = Phase::Recovering;
                self.attempts[at].recovery = Some(recovery);
                self.recovery_effects(at, effects);
            }
            Answer::Fenced => self.halted(at, Halt::Fenced),
            _ => self.send(Who::Attempt(at as u8), Request::Known),
        }
    }

    fn recovery_event(&mut self, at: usize, event: recovery::Event) {
        let Some(recovery) = &mut self.attempts[at].recovery else { return };
        let effects = recovery.step(event);
        self.recovery_effects(at, effects);
    }

    fn recovery_effects(&mut self, at: usize, effects: Vec<recovery::Effect>) {
        use recovery::Effect;
        let who = Who::Attempt(at as u8);
        for effect in effects {
            match effect {
                Effect::Verify { epoch } => self.send(who, Request::Verify { epoch }),
                Effect::Recover { sink, expect } => self.commit(at, sink, expect, true),
                Effect::Confirm { epoch } => self.send(who, Request::Confirm { epoch }),
                Effect::Abandon { epoch } => self.send(who, Request::Abandon { epoch }),
                Effect::AskGeneration => self.send(who, Request::Generation { sink: None }),
                Effect::Wait { .. } => {
                    self.attempts[at].waits.insert(Wait::Recovery);
                }
                Effect::Start { from, first } => self.start(at, from, first),
                Effect::Halt { cause } => self.halted(at, cause),
            }
        }
    }

    fn start(&mut self, at: usize, from: Option<u64>, first: u64) {
        let attempt = &mut self.attempts[at];
        assert!(
            attempt.at.as_ref().map(|manifest| manifest.epoch) == from,
            "the epoch that was verified is the one to start from"
        );
        assert!(attempt.first == first, "its range");
        attempt.recovery = None;
        attempt.phase = Phase::Running;
        attempt.coordinator =
            Some(Coordinator::new(Lineage { generation: attempt.generation, previous: from, sinks: SINKS }));
        if attempt.generation == self.db.generation && !self.ghost.lost_tail {
            let newest = self.db.last();
            self.check(from == newest, || {
                format!("an attempt starts from {from:?}, the last decided one is {newest:?}")
            });
            let reported = self.ghost.reported;
            self.check(self.config.bounded || from >= reported, || {
                format!("an attempt starts from {from:?}, {reported:?} was reported")
            });
        }
        if self.attempts[at].at.as_ref().is_some_and(|manifest| manifest.last) {
            self.finish(from.unwrap_or(0));
        }
    }

    fn cut(&mut self, at: usize, kind: u8) {
        let (uid, generation) = (self.attempts[at].uid, self.attempts[at].generation);
        let before = self.attempts[at].at.clone();
        let (begin, sums, files) = match &before {
            Some(manifest) => (manifest.to, manifest.sums, manifest.files.clone()),
            None => ([0; SPLITS], [0; SPLITS], Vec::new()),
        };
        let steps = match kind % 4 {
            0 => [1, 1],
            1 => [2, 0],
            2 => [0, 0],
            _ => [1, 3],
        };
        let to: [u8; SPLITS] = std::array::from_fn(|split| (begin[split] + steps[split]).min(self.config.records));
        let epoch = self.attempts[at].next + if kind == 5 { 1 } else { 0 };
        let epoch = if epoch > self.attempts[at].top() { self.attempts[at].next } else { epoch };
        // Either all of the state in a new file, or what has changed since the last one.
        let whole = kind >= 4;
        let mut manifest = Manifest {
            epoch,
            uid,
            generation,
            from: if self.config.bounded { [0; SPLITS] } else { begin },
            to,
            sums: std::array::from_fn(|split| {
                sums[split] + (begin[split]..to[split]).map(|position| value(split, position)).sum::<u32>()
            }),
            last: to == [self.config.records; SPLITS],
            files: if whole { Vec::new() } else { files },
            born: self.born(),
        };
        let mut uploads = Vec::new();
        for worker in 0..SPLITS {
            let from = if whole { 0 } else { begin[worker] };
            let sum = if whole { manifest.sums[worker] } else { manifest.sums[worker] - sums[worker] };
            let name = Name::File { uid, epoch, worker: worker as u8 };
            let file = File { from, to: to[worker], sum, generation, born: self.born(), damaged: false };
            // Nothing new, nothing uploaded.
            if whole || from != to[worker] {
                manifest.files.push(name);
                uploads.push((name, file));
            }
        }
        let attempt = &mut self.attempts[at];
        attempt.next = epoch + 1;
        attempt.at = Some(Rc::new(manifest));
        attempt.uploading = uploads.iter().fold(0, |bits, (name, _)| bits | worker_bit(*name));
        for (name, file) in &uploads {
            self.send(Who::Attempt(at as u8), Request::Upload { name: *name, file: *file });
        }
        if self.is(Sabotage::AckBeforeUpload) {
            self.attempts[at].uploading = 0;
        }
        if self.attempts[at].uploading == 0 {
            self.completed(at);
        }
    }

    fn born(&self) -> u32 {
        if self.config.aging { self.now } else { 0 }
    }

    fn uploaded(&mut self, at: usize, name: Name) {
        let Name::File { epoch, .. } = name else { panic!("a file") };
        let attempt = &mut self.attempts[at];
        let current = attempt.at.as_ref().is_some_and(|manifest| manifest.epoch == epoch);
        if current && attempt.uploading & worker_bit(name) != 0 {
            attempt.uploading &= !worker_bit(name);
            if attempt.uploading == 0 {
                self.completed(at);
            }
        }
    }

    fn completed(&mut self, at: usize) {
        let manifest = self.attempts[at].at.clone().expect("it was cut");
        let event = coordinator::Event::Complete { epoch: manifest.epoch, last: manifest.last };
        self.attempts[at].complete.push(manifest);
        self.coordinator_event(at, event);
    }

    fn coordinator_event(&mut self, at: usize, event: coordinator::Event) {
        let Some(coordinator) = &mut self.attempts[at].coordinator else { return };
        let effects = coordinator.step(event);
        self.coordinator_effects(at, effects);
    }

    fn coordinator_effects(&mut self, at: usize, effects: Vec<coordinator::Effect>) {
        use coordinator::Effect;
        let who = Who::Attempt(at as u8);
        for effect in effects {
            match effect {
                Effect::CreateManifest { epoch } => {
                    let manifest = self.attempts[at].completed(epoch);
                    self.send(who, Request::Create { manifest });
                }
                Effect::ReadManifest { epoch } => self.send(who, Request::Read { epoch }),
                Effect::Decide { epoch, previous } => {
                    let manifest = self.attempts[at].completed(epoch);
                    if self.is(Sabotage::CommitBeforeDecide) {
                        let number = if let Sink::Files(chain) = &self.sinks[1] { chain.entries.len() } else { 0 };
                        let request = SinkRequest::Append { number, rows: manifest.rows() };
                        self.send(who, Request::Sink { sink: 1, request });
                    }
                    self.send(who, Request::Decide { epoch, previous, last: manifest.last });
                }
                Effect::Wait { epoch, .. } => {
                    self.attempts[at].waits.insert(Wait::Epoch(epoch));
                }
                Effect::Commit { epoch, sink, previous } => {
                    let attempt = &self.attempts[at];
                    let commits = !self.config.bounded || attempt.completed(epoch).last;
                    if !commits {
                        let reply = SinkReply::Committed;
                        self.coordinator_event(at, coordinator::Event::Sink { epoch, sink, reply });
                        continue;
                    }
                    let previous = previous.filter(|_| !self.config.bounded);
                    let had_earlier = previous.is_some();
                    let older = attempt.older;
                    let expect = Expect::Epoch(Place { epoch, previous, older, had_earlier, proved: false });
                    self.commit(at, sink, expect, false);
                }
                Effect::Confirm { epoch } => self.send(who, Request::Confirm { epoch }),
                Effect::Committed { epoch, last } => {
                    self.attempts[at].complete.retain(|manifest| manifest.epoch > epoch);
                    self.reported(epoch);
                    if last {
                        self.finish(epoch);
                    }
                }
                Effect::Halt { cause } => self.halted(at, cause),
            }
        }
    }

    /// G3: what is reported is in every sink, and in the database.
    fn reported(&mut self, epoch: u64) {
        self.ghost.reported = self.ghost.reported.max(Some(epoch));
        let shown = self.ghost.shown.iter().all(|(shown, _)| *shown >= Some(epoch));
        let last = self.db.row(epoch).is_some_and(|row| row.last);
        self.check(shown || self.config.bounded && !last, || {
            format!("{epoch} was reported before every sink shows it")
        });
        let stored = self.db.row(epoch).is_some_and(|row| row.state != DbState::Decided);
        self.check(stored || self.ghost.lost_tail, || format!("{epoch} was reported before it was confirmed"));
    }

    /// G5.
    fn finish(&mut self, epoch: u64) {
        let all = [self.config.records; SPLITS];
        let whole = self.ghost.shown.iter().all(|(shown, end)| *shown == Some(epoch) && *end == all);
        let shown = self.ghost.shown;
        self.check(whole, || format!("the run is finished with {epoch}, the sinks show {shown:?}"));
        self.ghost.finished = true;
    }

    fn halted(&mut self, at: usize, cause: Halt) {
        let current = self.attempts[at].generation == self.db.generation;
        let lost = self.ghost.lost_tail;
        let recovers = self.attempts[at].phase == Phase::Recovering;
        let right = match &cause {
            // A damaged epoch could not be given up: the one before it had been retired in the meantime.
            Halt::Fenced => !current || lost || self.ghost.damaged && recovers,
            Halt::MetadataRegressed { .. } => lost,
            Halt::CheckpointCorrupt { .. } => self.ghost.damaged || lost || !current,
            Halt::SinkStateLost { .. } => self.ghost.expired,
            Halt::SinkFailed { .. } => true,
        };
        let generation = self.attempts[at].generation;
        self.check(right, || format!("generation {generation} halted without a reason: {cause}"));
        if (current || lost) && !cause.is_retryable() && cause != Halt::Fenced {
            self.ghost.ended = Some(cause.code());
        }
        self.kill(at);
    }

    fn retry(&mut self, at: usize, wait: Wait) {
        self.attempts[at].waits.remove(&wait);
        match wait {
            Wait::Epoch(epoch) => self.coordinator_event(at, coordinator::Event::Retry { epoch }),
            Wait::Recovery => self.recovery_event(at, recovery::Event::Retry),
            Wait::Sink(sink) => {
                self.marker_event(at, sink, MarkerEvent::Retry);
                self.chain_event(at, sink, ChainEvent::Retry);
            }
        }
    }

    // ---- committers

    fn commit(&mut self, at: usize, sink: usize, expect: Expect, recovers: bool) {
        // One producer for each commit: a copy of a request to commit that the client has made by itself finds none to end.
        let reuses = self.config.allowed.silent_copies == 0 || self.is(Sabotage::ProducerReused);
        let attempt = &mut self.attempts[at];
        let (epoch, rows) = match &expect {
            Expect::Nothing { .. } => (0, None),
            Expect::Epoch(place) if recovers => {
                let manifest = attempt.at.as_ref().expect("it was verified");
                assert!(manifest.epoch == place.epoch, "what was verified is what is committed");
                (place.epoch, Some(manifest.rows()))
            }
            Expect::Epoch(place) => (place.epoch, Some(attempt.completed(place.epoch).rows())),
        };
        let expect = match expect {
            Expect::Epoch(place)
                if matches!(self.config.sabotage, Some(Sabotage::LostMarkerIsFirst | Sabotage::AlwaysReplay)) =>
            {
                Expect::Epoch(Place { had_earlier: false, proved: false, ..place })
            }
            expect => expect,
        };
        let committer = &mut attempt.committers[sink];
        committer.epoch = epoch;
        committer.rows = rows;
        committer.recovers = recovers;
        match &self.sinks[sink] {
            Sink::Kafka(_) => {
                let (machine, effect) = MarkerCommit::new(expect, committer.clean && reuses);
                committer.machine = Machine::Marker(machine);
                self.marker_effect(at, sink as u8, effect);
            }
            Sink::Files(_) => {
                let (machine, effect) = ChainCommit::new(expect);
                committer.machine = Machine::Chain(machine);
                self.chain_effect(at, sink as u8, effect);
            }
        }
    }

    fn ask_sink(&mut self, at: usize, sink: u8, request: SinkRequest) {
        self.send(Who::Attempt(at as u8), Request::Sink { sink, request });
    }

    fn marker_event(&mut self, at: usize, sink: u8, event: MarkerEvent) {
        let Machine::Marker(machine) = &mut self.attempts[at].committers[usize::from(sink)].machine else { return };
        if let Some(effect) = machine.step(event) {
            self.marker_effect(at, sink, effect);
        }
    }

    fn marker_effect(&mut self, at: usize, sink: u8, effect: MarkerEffect) {
        let kept = self.is(Sabotage::ProducerKept);
        let boundless = self.is(Sabotage::ProducersForEver);
        let early = self.is(Sabotage::MarkerBeforeInit);
        let committer = &mut self.attempts[at].committers[usize::from(sink)];
        match effect {
            MarkerEffect::AskGeneration if boundless => {
                self.marker_event(at, sink, MarkerEvent::Generation(GuardedReply::Done));
            }
            MarkerEffect::AskGeneration => {
                self.send(Who::Attempt(at as u8), Request::Generation { sink: Some(sink) });
            }
            MarkerEffect::NewProducer => {
                if kept && let Some(producer) = committer.producer {
                    if let Sink::Kafka(kafka) = &mut self.sinks[usize::from(sink)]
                        && kafka.producer == producer
                    {
                        kafka.open = None;
                        return self.marker_event(at, sink, MarkerEvent::Producer { ready: true });
                    }
                    committer.producer = None;
                }
                committer.clean = false;
                committer.producer = None;
                if early && committer.stale.is_none() {
                    return self.ask_sink(at, sink, SinkRequest::Marker { stable: true });
                }
                self.ask_sink(at, sink, SinkRequest::Init);
            }
            MarkerEffect::ReadMarker => match committer.stale.take() {
                Some(stale) => self.marker_event(at, sink, MarkerEvent::Marker(stale)),
                None => self.ask_sink(at, sink, SinkRequest::Marker { stable: true }),
            },
            MarkerEffect::Send => {
                let producer = committer.producer.expect("there is a producer");
                let rows = committer.rows.expect("an epoch that is sent has rows");
                self.ask_sink(at, sink, SinkRequest::Write { producer, rows });
            }
            MarkerEffect::End => {
                let producer = committer.producer.expect("there is a producer");
                self.ask_sink(at, sink, SinkRequest::End { producer });
            }
            MarkerEffect::Wait { .. } => {
                committer.clean = false;
                self.attempts[at].waits.insert(Wait::Sink(sink));
            }
            MarkerEffect::Done(reply) => {
                committer.clean = reply == SinkReply::Committed;
                self.sink_done(at, sink, reply);
            }
        }
    }

    fn chain_event(&mut self, at: usize, sink: u8, event: ChainEvent) {
        let Machine::Chain(machine) = &mut self.attempts[at].committers[usize::from(sink)].machine else { return };
        if let Some(effect) = machine.step(event) {
            self.chain_effect(at, sink, effect);
        }
    }

    fn chain_effect(&mut self, at: usize, sink: u8, effect: ChainEffect) {
        let committer = &mut self.attempts[at].committers[usize::from(sink)];
        match effect {
            ChainEffect::ReadChain => self.ask_sink(at, sink, SinkRequest::Chain),
            ChainEffect::Create => {
                let rows = committer.rows.expect("an epoch that is created has rows");
                let number = committer.number;
                self.ask_sink(at, sink, SinkRequest::Append { number, rows });
            }
            ChainEffect::Wait { .. } => {
                self.attempts[at].waits.insert(Wait::Sink(sink));
            }
            ChainEffect::Done(reply) => self.sink_done(at, sink, reply),
        }
    }

    fn sink_done(&mut self, at: usize, sink: u8, reply: SinkReply) {
        let committer = &mut self.attempts[at].committers[usize::from(sink)];
        committer.machine = Machine::None;
        let (epoch, recovers) = (committer.epoch, committer.recovers);
        self.attempts[at].waits.remove(&Wait::Sink(sink));
        let sink = usize::from(sink);
        if recovers {
            return self.recovery_event(at, recovery::Event::Sink { sink, reply });
        }
        self.coordinator_event(at, coordinator::Event::Sink { epoch, sink, reply });
        if self.is(Sabotage::ConfirmBeforeAllSinks) && self.attempts[at].phase == Phase::Running {
            for sink in 0..SINKS {
                self.coordinator_event(at, coordinator::Event::Sink { epoch, sink, reply });
            }
        }
    }

    fn sink_answer(&mut self, at: usize, sink: u8, request: SinkRequest, answer: Answer) {
        let sabotage = self.config.sabotage;
        let committer = &mut self.attempts[at].committers[usize::from(sink)];
        let ok = answer == Answer::Done;
        let marker_event = match (request, answer) {
            (SinkRequest::Init, Answer::Producer(producer)) => {
                committer.producer = Some(producer);
                MarkerEvent::Producer { ready: true }
            }
            (SinkRequest::Init, _) => MarkerEvent::Producer { ready: false },
            (SinkRequest::Marker { .. }, answer) if sabotage == Some(Sabotage::MarkerBeforeInit) => {
                if committer.producer.is_none() {
                    if let Answer::Marker(marker) = answer {
                        committer.stale = Some(marker);
                    }
                    return self.ask_sink(at, sink, SinkRequest::Init);
                }
                if let Answer::Marker(marker) = answer {
                    MarkerEvent::Marker(marker)
                } else {
                    MarkerEvent::MarkerUnknown
                }
            }
            (SinkRequest::Marker { .. }, Answer::Marker(marker)) => {
                let epoch = committer.epoch;
                let rows = committer.rows.is_some();
                match sabotage {
                    Some(Sabotage::AlwaysReplay) => MarkerEvent::Marker(None),
                    Some(Sabotage::NeverReplay) if rows => MarkerEvent::Marker(Some(epoch)),
                    _ => MarkerEvent::Marker(marker),
                }
            }
            (SinkRequest::Marker { .. }, _) => MarkerEvent::MarkerUnknown,
            (SinkRequest::Write { producer, .. }, _) if ok => {
                if sabotage == Some(Sabotage::MarkerOutside) {
                    MarkerEvent::Sent { ok: true }
                } else {
                    let epoch = committer.epoch;
                    return self.ask_sink(at, sink, SinkRequest::Mark { producer, epoch });
                }
            }
            (SinkRequest::Write { .. }, _) => MarkerEvent::Sent { ok: false },
            (SinkRequest::Mark { .. }, _) => MarkerEvent::Sent { ok },
            (SinkRequest::End { .. }, _) => {
                if sabotage == Some(Sabotage::MarkerOutside) && ok {
                    let epoch = committer.epoch;
                    return self.ask_sink(at, sink, SinkRequest::MarkAlone { epoch });
                }
                MarkerEvent::Ended { ok: ok || sabotage == Some(Sabotage::UnknownEndIsSuccess) }
            }
            (SinkRequest::MarkAlone { .. }, _) => MarkerEvent::Ended { ok },
            (SinkRequest::Chain, Answer::Chain { number, newest }) => {
                committer.number = number;
                return self.chain_event(at, sink, ChainEvent::Chain(newest));
            }
            (SinkRequest::Chain, _) => return self.chain_event(at, sink, ChainEvent::ChainUnknown),
            (SinkRequest::Append { .. }, answer) => {
                let reply = match answer {
                    Answer::Appended(reply) => reply,
                    _ => CreateReply::Unknown,
                };
                let believes = sabotage == Some(Sabotage::ConflictIsDone) && reply != CreateReply::Created;
                let reply = if believes { CreateReply::ExistsMine } else { reply };
                return self.chain_event(at, sink, ChainEvent::Created(reply));
            }
        };
        self.marker_event(at, sink, marker_event);
    }

    // ---- collection

    fn collect(&mut self) {
        let policy = Policy { keep: 2, grace_us: if self.config.aging { 8 } else { 0 } };
        let (machine, effect) = Collection::new(policy);
        self.collectors.push(Collector { term: self.db.term, machine: Some(machine) });
        self.collector_effect(self.collectors.len() - 1, effect);
    }

    fn collected(&mut self, at: usize, request: Request, answer: Answer) {
        use collection::Event;
        let blind = self.is(Sabotage::UploadsCollected);
        let event = match (request, answer) {
            (Request::Rows, Answer::Rows(rows)) => {
                let (rows, generation) = (*rows).clone();
                let generation = if blind { u64::MAX } else { generation };
                Event::Rows { rows, pinned: BTreeSet::new(), generation }
            }
            (Request::Retire { .. }, answer) => Event::Retired(guarded_reply(&answer)),
            (Request::Manifests { .. }, Answer::Names(names)) => {
                let (mut retained, retired) = (*names).clone();
                if self.is(Sabotage::OneTooMany)
                    && let Some(oldest) = retained.first_mut()
                {
                    oldest.objects.clear();
                }
                Event::Manifests { retained, retired }
            }
            (Request::List, Answer::Listed(objects)) => Event::Listed((*objects).clone()),
            (Request::Delete { .. }, Answer::Done) => Event::Deleted,
            _ => Event::Failed,
        };
        let Some(machine) = &mut self.collectors[at].machine else { return };
        let effect = machine.step(event);
        let ended = machine.has_ended();
        if let Some(effect) = effect {
            self.collector_effect(at, effect);
        }
        if ended {
            self.collectors[at].machine = None;
        }
    }

    fn collector_effect(&mut self, at: usize, effect: collection::Effect<Name>) {
        use collection::Effect;
        let request = match effect {
            Effect::ReadRows => Request::Rows,
            Effect::Retire { epochs } => Request::Retire { epochs },
            Effect::ReadManifests { retained, retired } => Request::Manifests { retained, retired },
            Effect::List => Request::List,
            Effect::Delete { objects } => Request::Delete { objects },
            Effect::Done { .. } | Effect::Stop => return,
        };
        self.send(Who::Collector(at as u8), request);
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
            older: None,
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
