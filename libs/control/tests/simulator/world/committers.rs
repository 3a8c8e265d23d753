//! The executors of the commit in a sink.

use control::epochs::coordinator;
use control::epochs::recovery;
use control::epochs::sinks::{
    ChainCommit, ChainEffect, ChainEvent, CreateReply, Expect, History, MarkerCommit, MarkerEffect, MarkerEvent, Place,
};
use control::epochs::{GuardedReply, SinkReply};

use super::{Answer, Machine, Phase, Request, SinkRequest, Wait, Who, World};
use crate::model::*;
use crate::sabotage::Sabotage;

impl World {
    pub(super) fn commit(&mut self, at: usize, sink: usize, expect: Expect, recovers: bool) {
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
        committer.expect = Some(expect.clone());
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

    pub(super) fn ask_sink(&mut self, at: usize, sink: u8, request: SinkRequest) {
        self.send(Who::Attempt(at as u8), Request::Sink { sink, request });
    }

    pub(super) fn marker_event(&mut self, at: usize, sink: u8, event: MarkerEvent) {
        let Machine::Marker(machine) = &mut self.attempts[at].committers[usize::from(sink)].machine else { return };
        if let Some(effect) = machine.step(event) {
            self.marker_effect(at, sink, effect);
        }
    }

    pub(super) fn marker_effect(&mut self, at: usize, sink: u8, effect: MarkerEffect) {
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

    pub(super) fn chain_event(&mut self, at: usize, sink: u8, event: ChainEvent) {
        let Machine::Chain(machine) = &mut self.attempts[at].committers[usize::from(sink)].machine else { return };
        if let Some(effect) = machine.step(event) {
            self.chain_effect(at, sink, effect);
        }
    }

    pub(super) fn chain_effect(&mut self, at: usize, sink: u8, effect: ChainEffect) {
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

    pub(super) fn sink_done(&mut self, at: usize, sink: u8, reply: SinkReply) {
        let committer = &mut self.attempts[at].committers[usize::from(sink)];
        committer.machine = Machine::None;
        if reply == SinkReply::Committed {
            committer.history = committer.expect.take().as_ref().map(History::after);
        }
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

    pub(super) fn sink_answer(&mut self, at: usize, sink: u8, request: SinkRequest, answer: Answer) {
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
}
