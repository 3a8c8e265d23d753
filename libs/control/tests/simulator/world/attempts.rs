//! The executor of an attempt: what its leader does with the effects of recovery and coordinator, and its workers with a cut.

use std::rc::Rc;

use control::epochs::coordinator::{self, Coordinator, Lineage};
use control::epochs::recovery::{self, Recovery};
use control::epochs::sinks::{ChainEvent, MarkerEvent};
use control::epochs::{DecisionReply, Halt, ManifestReply, SinkReply};

use super::{Answer, Attempt, Op, Phase, Request, SinkRequest, Wait, Who, World, guarded_reply, worker_bit};
use crate::model::*;
use crate::sabotage::Sabotage;

impl World {
    pub(super) fn new_attempt(&mut self, answered: bool) {
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
        let attempt = Attempt { phase: Phase::Reading, first, next: first, ..Attempt::dead(uid, self.db.generation) };
        self.attempts.push(attempt);
        self.send(Who::Attempt(uid), Request::Known);
    }

    pub(super) fn deliver(&mut self, op: Op) {
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

    pub(super) fn known(&mut self, at: usize, answer: Answer) {
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

    pub(super) fn recovery_event(&mut self, at: usize, event: recovery::Event) {
        let Some(recovery) = &mut self.attempts[at].recovery else { return };
        let effects = recovery.step(event);
        self.recovery_effects(at, effects);
    }

    pub(super) fn recovery_effects(&mut self, at: usize, effects: Vec<recovery::Effect>) {
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

    pub(super) fn start(&mut self, at: usize, from: Option<u64>, first: u64) {
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
            let confirmed =
                from.is_none_or(|from| self.db.row(from).is_some_and(|row| row.state == DbState::Committed));
            self.check(confirmed, || format!("an attempt starts from {from:?}, which is not confirmed"));
            let reported = self.ghost.reported;
            self.check(self.config.bounded || from >= reported, || {
                format!("an attempt starts from {from:?}, {reported:?} was reported")
            });
        }
        if self.attempts[at].at.as_ref().is_some_and(|manifest| manifest.last) {
            self.finish(from.unwrap_or(0));
        }
    }

    pub(super) fn cut(&mut self, at: usize, kind: u8) {
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

    pub(super) fn born(&self) -> u32 {
        if self.config.aging { self.now } else { 0 }
    }

    pub(super) fn uploaded(&mut self, at: usize, name: Name) {
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

    pub(super) fn completed(&mut self, at: usize) {
        let manifest = self.attempts[at].at.clone().expect("it was cut");
        let event = coordinator::Event::Complete { epoch: manifest.epoch, last: manifest.last };
        self.attempts[at].complete.push(manifest);
        self.coordinator_event(at, event);
    }

    pub(super) fn coordinator_event(&mut self, at: usize, event: coordinator::Event) {
        let Some(coordinator) = &mut self.attempts[at].coordinator else { return };
        let effects = coordinator.step(event);
        self.coordinator_effects(at, effects);
    }

    pub(super) fn coordinator_effects(&mut self, at: usize, effects: Vec<coordinator::Effect>) {
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
                Effect::Commit { epoch, sink } => {
                    let attempt = &self.attempts[at];
                    let commits = !self.config.bounded || attempt.completed(epoch).last;
                    if !commits {
                        let reply = SinkReply::Committed;
                        self.coordinator_event(at, coordinator::Event::Sink { epoch, sink, reply });
                        continue;
                    }
                    let history = attempt.committers[sink].history.as_ref().expect("it was recovered");
                    let expect = history.expect(epoch);
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
    pub(super) fn reported(&mut self, epoch: u64) {
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
    pub(super) fn finish(&mut self, epoch: u64) {
        let all = [self.config.records; SPLITS];
        let whole = self.ghost.shown.iter().all(|(shown, end)| *shown == Some(epoch) && *end == all);
        let shown = self.ghost.shown;
        self.check(whole, || format!("the run is finished with {epoch}, the sinks show {shown:?}"));
        self.ghost.finished = true;
    }

    pub(super) fn halted(&mut self, at: usize, cause: Halt) {
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

    pub(super) fn retry(&mut self, at: usize, wait: Wait) {
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
}
