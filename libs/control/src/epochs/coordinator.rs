//! Takes complete checkpoints through M, D, K and F: manifest, decision, commit in every sink, confirmation.
//!
//! One epoch at a time, in the order in which they were completed; an epoch is reported only when it is confirmed. An answer that leaves
//! the fate of a request open is never taken for a failure: the manifest is read again, the decision and the confirmation are asked for
//! again with the same nonce, which finds what happened. Answers may come late and twice: one that does not fit the step at hand changes
//! nothing, but for `Fenced`, which is true for ever.

use std::collections::{BTreeSet, VecDeque};

use super::{DecisionReply, GuardedReply, Halt, ManifestReply, SinkReply};

/// Where an attempt stands in the history of its job.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lineage {
    pub generation: u64,
    /// The decided epoch that the attempt went on from. `None`: the lineage begins here.
    pub previous: Option<u64>,
    /// How many sinks commit at checkpoints.
    pub sinks: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A checkpoint is complete: all sources cut, state uploaded and hashed, all writers prepared. `last`: of the run.
    Complete {
        epoch: u64,
        last: bool,
    },
    /// Answers [`Effect::CreateManifest`] and [`Effect::ReadManifest`].
    Manifest {
        epoch: u64,
        reply: ManifestReply,
    },
    Decision {
        epoch: u64,
        reply: DecisionReply,
    },
    Sink {
        epoch: u64,
        sink: usize,
        reply: SinkReply,
    },
    Confirmation {
        epoch: u64,
        reply: GuardedReply,
    },
    /// The delay of [`Effect::Wait`] is over.
    Retry {
        epoch: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Create the manifest unless its path is taken.
    CreateManifest { epoch: u64 },
    /// Read the manifest's path: whose is it?
    ReadManifest { epoch: u64 },
    /// Ask the control plane to decide, with the nonce of this attempt and epoch.
    Decide { epoch: u64, previous: Option<u64> },
    /// Say [`Event::Retry`] after a delay that grows with `tries` (1, 2, ...).
    Wait { epoch: u64, tries: u32 },
    /// Commit in one sink ([`super::sinks`]; what it should show: [`super::sinks::History::expect`]). A sink that has nothing to do at this
    /// checkpoint has committed.
    Commit { epoch: u64, sink: usize },
    /// Ask the control plane to record the proofs.
    Confirm { epoch: u64 },
    /// To be reported: nothing undoes it. If it was the last one the run is finished.
    Committed { epoch: u64, last: bool },
    /// End the attempt, at once.
    Halt { cause: Halt },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    generation: u64,
    sinks: usize,
    /// The last decided epoch.
    previous: Option<u64>,
    waiting: VecDeque<Checkpoint>,
    flight: Option<Flight>,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Checkpoint {
    epoch: u64,
    last: bool,
}

/// The checkpoint between its completion and its confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Flight {
    checkpoint: Checkpoint,
    step: Step,
    /// Fruitless answers of this step.
    tries: u32,
    /// A `Wait` is under way.
    delayed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// `absent`: it was read, and was not there.
    Manifest {
        absent: bool,
    },
    Decision,
    /// The sinks that have not proved the epoch yet.
    Sinks(BTreeSet<usize>),
    Confirmation,
}

impl Coordinator {
    pub fn new(lineage: Lineage) -> Coordinator {
        Coordinator {
            generation: lineage.generation,
            sinks: lineage.sinks,
            previous: lineage.previous,
            waiting: VecDeque::new(),
            flight: None,
            ended: false,
        }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The last decided epoch of the lineage, as far as this attempt knows.
    pub fn last_decided(&self) -> Option<u64> {
        self.previous
    }

    /// The epoch between its completion and its confirmation.
    pub fn in_flight(&self) -> Option<u64> {
        self.flight.as_ref().map(|flight| flight.checkpoint.epoch)
    }

    /// Whether the sources must not be cut for another checkpoint: one waits already. They stop when their open epochs are full.
    pub fn holds_sources(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Halted, or the last epoch of the run is committed: nothing more comes out of it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        if self.ended {
            return Vec::new();
        }
        match event {
            Event::Complete { epoch, last } => self.complete(Checkpoint { epoch, last }),
            Event::Manifest { epoch, reply } => self.manifest(epoch, reply),
            Event::Decision { epoch, reply } => self.decision(epoch, reply),
            Event::Sink { epoch, sink, reply } => self.sink(epoch, sink, reply),
            Event::Confirmation { epoch, reply } => self.confirmation(epoch, reply),
            Event::Retry { epoch } => self.retry(epoch),
        }
    }

    fn complete(&mut self, checkpoint: Checkpoint) -> Vec<Effect> {
        let newest = self.waiting.back().or(self.flight.as_ref().map(|flight| &flight.checkpoint));
        assert!(newest.is_none_or(|newest| !newest.last), "nothing follows the last epoch");
        let newest = newest.map(|newest| newest.epoch).or(self.previous);
        assert!(newest.is_none_or(|newest| newest < checkpoint.epoch), "epochs are completed in order, each once");
        self.waiting.push_back(checkpoint);
        if self.flight.is_some() { Vec::new() } else { self.take_off() }
    }

    /// Begins with the next checkpoint, if there is one.
    fn take_off(&mut self) -> Vec<Effect> {
        let Some(checkpoint) = self.waiting.pop_front() else { return Vec::new() };
        self.flight = Some(Flight { checkpoint, step: Step::Manifest { absent: true }, tries: 0, delayed: false });
        vec![Effect::CreateManifest { epoch: checkpoint.epoch }]
    }

    fn manifest(&mut self, epoch: u64, reply: ManifestReply) -> Vec<Effect> {
        let Some(flight) = self.flight_at(epoch) else { return Vec::new() };
        let Step::Manifest { absent } = &mut flight.step else { return Vec::new() };
        match reply {
            ManifestReply::Created | ManifestReply::ExistsMine => {
                flight.go_to(Step::Decision);
                vec![Effect::Decide { epoch, previous: self.previous }]
            }
            // No other attempt has this number by right: ranges are disjoint as long as the database remembers them.
            ManifestReply::ExistsOther => self.halt(Halt::MetadataRegressed { epoch }),
            ManifestReply::Unknown => {
                *absent = false;
                // The first time the answer is one read away; later the store is likely to be in trouble.
                if flight.tries == 0 {
                    flight.tries = 1;
                    return vec![Effect::ReadManifest { epoch }];
                }
                flight.wait()
            }
            ManifestReply::Absent => {
                *absent = true;
                flight.wait()
            }
        }
    }

    fn decision(&mut self, epoch: u64, reply: DecisionReply) -> Vec<Effect> {
        if reply == DecisionReply::Fenced {
            return self.halt(Halt::Fenced);
        }
        let sinks = self.sinks;
        let Some(flight) = self.flight_at(epoch) else { return Vec::new() };
        if flight.step != Step::Decision {
            return Vec::new();
        }
        if reply != DecisionReply::Decided {
            return flight.wait();
        }
        flight.go_to(Step::Sinks((0..sinks).collect()));
        self.previous = Some(epoch);
        if sinks == 0 {
            return self.confirm_if_committed(epoch);
        }
        (0..sinks).map(|sink| Effect::Commit { epoch, sink }).collect()
    }

    fn sink(&mut self, epoch: u64, sink: usize, reply: SinkReply) -> Vec<Effect> {
        let Some(flight) = self.flight_at(epoch) else { return Vec::new() };
        let Step::Sinks(open) = &mut flight.step else { return Vec::new() };
        match reply {
            SinkReply::Committed => {
                open.remove(&sink);
                self.confirm_if_committed(epoch)
            }
            SinkReply::Fenced(_) | SinkReply::Superseded => self.halt(Halt::Fenced),
            SinkReply::StateLost => self.halt(Halt::SinkStateLost { sink, epoch }),
            SinkReply::Failed => self.halt(Halt::SinkFailed { sink, epoch }),
        }
    }

    fn confirm_if_committed(&mut self, epoch: u64) -> Vec<Effect> {
        let Some(flight) = self.flight_at(epoch) else { return Vec::new() };
        if flight.step != Step::Sinks(BTreeSet::new()) {
            return Vec::new();
        }
        flight.go_to(Step::Confirmation);
        vec![Effect::Confirm { epoch }]
    }

    fn confirmation(&mut self, epoch: u64, reply: GuardedReply) -> Vec<Effect> {
        if reply == GuardedReply::Fenced {
            return self.halt(Halt::Fenced);
        }
        let Some(flight) = self.flight_at(epoch) else { return Vec::new() };
        if flight.step != Step::Confirmation {
            return Vec::new();
        }
        if reply == GuardedReply::Unknown {
            return flight.wait();
        }
        let last = flight.checkpoint.last;
        self.flight = None;
        self.ended = last;
        let mut effects = vec![Effect::Committed { epoch, last }];
        effects.extend(self.take_off());
        effects
    }

    fn retry(&mut self, epoch: u64) -> Vec<Effect> {
        let previous = self.previous;
        let Some(flight) = self.flight_at(epoch) else { return Vec::new() };
        if !std::mem::take(&mut flight.delayed) {
            return Vec::new();
        }
        match &flight.step {
            Step::Manifest { absent: true } => vec![Effect::CreateManifest { epoch }],
            Step::Manifest { absent: false } => vec![Effect::ReadManifest { epoch }],
            Step::Decision => vec![Effect::Decide { epoch, previous }],
            // Committers try again themselves.
            Step::Sinks(_) => Vec::new(),
            Step::Confirmation => vec![Effect::Confirm { epoch }],
        }
    }

    fn flight_at(&mut self, epoch: u64) -> Option<&mut Flight> {
        self.flight.as_mut().filter(|flight| flight.checkpoint.epoch == epoch)
    }

    fn halt(&mut self, cause: Halt) -> Vec<Effect> {
        self.ended = true;
        vec![Effect::Halt { cause }]
    }
}

impl Flight {
    fn go_to(&mut self, step: Step) {
        self.step = step;
        self.tries = 0;
        self.delayed = false;
    }

    /// One delay at a time, however many answers came.
    fn wait(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.delayed, true) {
            return Vec::new();
        }
        self.tries = self.tries.saturating_add(1);
        vec![Effect::Wait { epoch: self.checkpoint.epoch, tries: self.tries }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coordinator(sinks: usize) -> Coordinator {
        Coordinator::new(Lineage { generation: 3, previous: Some(7), sinks })
    }

    fn complete(epoch: u64) -> Event {
        Event::Complete { epoch, last: false }
    }

    fn manifest(epoch: u64, reply: ManifestReply) -> Event {
        Event::Manifest { epoch, reply }
    }

    fn decision(epoch: u64, reply: DecisionReply) -> Event {
        Event::Decision { epoch, reply }
    }

    fn confirmation(epoch: u64, reply: GuardedReply) -> Event {
        Event::Confirmation { epoch, reply }
    }

    fn committed(epoch: u64, sink: usize) -> Event {
        Event::Sink { epoch, sink, reply: SinkReply::Committed }
    }

    #[test]
    fn an_epoch_passes_manifest_decision_every_sink_and_confirmation_before_it_is_reported() {
        let mut it = coordinator(2);
        assert_eq!(it.step(complete(9)), [Effect::CreateManifest { epoch: 9 }]);
        let effects = it.step(manifest(9, ManifestReply::Created));
        assert_eq!(effects, [Effect::Decide { epoch: 9, previous: Some(7) }]);
        let commit = |sink| Effect::Commit { epoch: 9, sink };
        assert_eq!(it.step(decision(9, DecisionReply::Decided)), [commit(0), commit(1)]);
        assert_eq!(it.step(committed(9, 1)), []);
        assert_eq!(it.step(committed(9, 1)), [], "one sink twice is not two");
        assert_eq!(it.step(committed(9, 0)), [Effect::Confirm { epoch: 9 }]);
        let effects = it.step(confirmation(9, GuardedReply::Done));
        assert_eq!(effects, [Effect::Committed { epoch: 9, last: false }]);
        assert_eq!(it.last_decided(), Some(9));
    }

    #[test]
    fn later_epochs_wait_and_hold_the_sources() {
        let mut it = coordinator(0);
        it.step(complete(9));
        assert!(!it.holds_sources(), "one is under way, none waits");
        assert_eq!(it.step(complete(12)), []);
        assert!(it.holds_sources());
        it.step(manifest(9, ManifestReply::ExistsMine));
        assert_eq!(it.step(decision(9, DecisionReply::Decided)), [Effect::Confirm { epoch: 9 }]);
        let effects = it.step(confirmation(9, GuardedReply::Done));
        assert_eq!(effects, [Effect::Committed { epoch: 9, last: false }, Effect::CreateManifest { epoch: 12 }]);
        assert!(!it.holds_sources());
        let effects = it.step(manifest(12, ManifestReply::Created));
        assert_eq!(effects, [Effect::Decide { epoch: 12, previous: Some(9) }], "the last decided one, not 11");
    }

    #[test]
    fn an_open_answer_is_asked_again_and_never_taken_for_a_failure() {
        let mut it = coordinator(0);
        it.step(complete(9));
        assert_eq!(it.step(manifest(9, ManifestReply::Unknown)), [Effect::ReadManifest { epoch: 9 }]);
        assert_eq!(it.step(manifest(9, ManifestReply::Absent)), [Effect::Wait { epoch: 9, tries: 2 }]);
        assert_eq!(it.step(manifest(9, ManifestReply::Absent)), [], "one delay at a time");
        assert_eq!(it.step(Event::Retry { epoch: 9 }), [Effect::CreateManifest { epoch: 9 }]);
        assert_eq!(it.step(Event::Retry { epoch: 9 }), [], "a delay ends once");
        let decide = [Effect::Decide { epoch: 9, previous: Some(7) }];
        assert_eq!(it.step(manifest(9, ManifestReply::ExistsMine)), decide);
        for (tries, reply) in [(1, DecisionReply::Unknown), (2, DecisionReply::Unavailable)] {
            assert_eq!(it.step(decision(9, reply)), [Effect::Wait { epoch: 9, tries }]);
            assert_eq!(it.step(Event::Retry { epoch: 9 }), decide);
        }
        assert_eq!(it.step(decision(9, DecisionReply::Decided)), [Effect::Confirm { epoch: 9 }]);
        assert_eq!(it.step(decision(9, DecisionReply::Unknown)), [], "late");
        assert_eq!(it.step(confirmation(9, GuardedReply::Unknown)), [Effect::Wait { epoch: 9, tries: 1 }]);
        assert_eq!(it.step(Event::Retry { epoch: 9 }), [Effect::Confirm { epoch: 9 }]);
    }

    #[test]
    fn a_zombie_halts_and_wants_nothing_more() {
        let fenced = [
            (decision(9, DecisionReply::Fenced), Halt::Fenced),
            (confirmation(9, GuardedReply::Fenced), Halt::Fenced),
            (manifest(9, ManifestReply::ExistsOther), Halt::MetadataRegressed { epoch: 9 }),
        ];
        for (event, cause) in fenced {
            let mut it = coordinator(1);
            it.step(complete(9));
            it.step(complete(11));
            assert_eq!(it.step(event), [Effect::Halt { cause }]);
            assert!(it.has_ended());
            assert_eq!(it.step(manifest(9, ManifestReply::Created)), []);
        }
    }

    #[test]
    fn a_sink_that_fails_ends_the_attempt_and_the_last_epoch_ends_the_run() {
        let mut it = coordinator(1);
        it.step(Event::Complete { epoch: 9, last: true });
        it.step(manifest(9, ManifestReply::Created));
        it.step(decision(9, DecisionReply::Decided));
        let mut failing = it.clone();
        let cause = Halt::SinkFailed { sink: 0, epoch: 9 };
        let failed = Event::Sink { epoch: 9, sink: 0, reply: SinkReply::Failed };
        assert_eq!(failing.step(failed), [Effect::Halt { cause }]);
        it.step(committed(9, 0));
        let effects = it.step(confirmation(9, GuardedReply::Done));
        assert_eq!(effects, [Effect::Committed { epoch: 9, last: true }]);
        assert!(it.has_ended());
    }
}
