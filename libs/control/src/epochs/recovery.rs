//! What a new generation does before its sources start: find the last decided epoch, make sure that it can be restored, prove or redo its
//! commit in every sink, confirm it.
//!
//! ```text
//! Verify -> Verified -> Recover each sink -> Confirm (if it was only decided) -> Start
//!    \-> Corrupt -> the epoch before, if nothing of this one can have been published; else halt
//! ```
//! It begins when the new generation and its range of epochs are stored: from then on no older generation decides anything, so what is
//! read after that is the last word.
//!
//! **Falling back.** Going on from an epoch before E replays the rows of E, with other cuts. That is right only if no sink shows E or
//! anything later. What is known of that: an epoch that is `committed` was published. One that is only `decided` may have been: its
//! leader may have died, or may still be at it, anywhere in K; so it counts as published. Only an epoch at which no sink commits anything
//! (no exactly-once sinks; a bounded run before its last epoch) was certainly not, and may be given up.
//!
//! **An older database.** The database is the only truth, unless it was restored from a backup, or has lost its tail in a failover. Three
//! things show that: a manifest (or a decision, of a process that the database has forgotten) of an epoch above every number that was
//! reserved before this generation; a sink that shows an epoch newer than any decided
//! one; a path of a new manifest that is taken ([`super::coordinator`]). A manifest of an undecided epoch *within* a reserved range is
//! normal: its generation died between M and D. So one loss is not seen here: that of the decision of an epoch that reached no sink.
//! Nobody saw that epoch either.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::sinks::{Expect, Place};
use super::{GuardedReply, Halt, SinkReply};

/// What the database and the object store say, read after the generation was stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// The epochs of this lineage that are decided or committed and not retired, newest first. Empty: nothing was decided yet.
    pub epochs: Vec<EpochRow>,
    /// The newest epoch that the job ever decided in older lineages, retired ones included.
    pub older: Option<u64>,
    /// The first number of the range that this generation reserved.
    pub first: u64,
    /// The newest epoch of which the object store holds a manifest. The path of a manifest holds job and epoch only.
    pub newest_manifest: Option<u64>,
}

/// A decided epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EpochRow {
    pub epoch: u64,
    /// The decided epoch before it. `None`: the first of the lineage.
    pub previous: Option<u64>,
    /// Confirmed: every sink has proved it.
    pub committed: bool,
    /// In the order of the sinks.
    pub sinks: Vec<SinkRow>,
}

/// What an epoch is to one sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SinkRow {
    /// K of this epoch does something in the sink. Not so for files of a bounded run before its last epoch.
    pub commits: bool,
    /// The decided epoch of this lineage at which it did something before.
    pub previous: Option<u64>,
    /// A proof of the sink for an earlier epoch of the lineage is recorded; or this one was decided so long ago that its marker may have come and
    /// expired (half of the sink's retention of markers is a good limit). Either way a sink without a marker has lost it.
    pub had_earlier: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Answers to [`Effect::Verify`].
    Verified {
        epoch: u64,
    },
    Corrupt {
        epoch: u64,
        what: String,
    },
    /// The store could not be asked.
    Unverified {
        epoch: u64,
    },
    /// Answers [`Effect::Recover`].
    Sink {
        sink: usize,
        reply: SinkReply,
    },
    Confirmation {
        epoch: u64,
        reply: GuardedReply,
    },
    /// Answers [`Effect::Abandon`].
    Abandoned {
        epoch: u64,
        reply: GuardedReply,
    },
    /// Answers [`Effect::AskGeneration`]: `Done`, this generation is the newest.
    Generation {
        reply: GuardedReply,
    },
    Retry,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Check the hash of the manifest, and presence, length and hash of every file that it names.
    Verify { epoch: u64 },
    /// Take the sink from older attempts and bring it to what is expected ([`super::sinks`]): fence and abort what they left open; prove
    /// the epoch or redo its commit.
    Recover { sink: usize, expect: Expect },
    /// Ask the control plane to record the proofs.
    Confirm { epoch: u64 },
    /// Ask the control plane to give up the newest decided epoch, which cannot be restored and of which nothing was published: the epoch
    /// before it is the last decided one then. In one transaction with the guards: term, generation, it is the newest, and the epoch before
    /// it is not retired. (If it is, which may have happened since the rows were read, the answer is `Fenced`, and the next attempt reads
    /// it.) An epoch that was given up is never decided again, not even for the same nonce.
    Abandon { epoch: u64 },
    /// Ask the control plane whether this generation is still the newest.
    AskGeneration,
    /// Say [`Event::Retry`] after a delay that grows with `tries`.
    Wait { tries: u32 },
    /// Seek the sources to the cut of `from` (`None`: where the job begins) and run, with epochs from `first` on.
    Start { from: Option<u64>, first: u64 },
    /// End the attempt, at once.
    Halt { cause: Halt },
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recovery {
    /// The epoch that is tried is the first.
    epochs: VecDeque<EpochRow>,
    older: Option<u64>,
    first: u64,
    sinks: usize,
    step: Step,
    tries: u32,
    delayed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Verify,
    Abandon,
    /// Those that are not recovered yet.
    Sinks(BTreeSet<usize>),
    Confirm,
    /// A sink shows this epoch.
    Generation {
        ahead: u64,
    },
    Done,
}

impl Recovery {
    pub fn new(known: Known, sinks: usize) -> (Recovery, Vec<Effect>) {
        let newest = known.epochs.first().map(|row| row.epoch);
        assert!(known.epochs.iter().all(|row| row.sinks.len() == sinks), "an epoch says what it is to each sink");
        assert!(known.epochs.is_sorted_by(|a, b| a.epoch > b.epoch), "newest first");
        let mut recovery = Recovery {
            epochs: known.epochs.into(),
            older: known.older,
            first: known.first,
            sinks,
            step: Step::Verify,
            tries: 0,
            delayed: false,
        };
        let effects = match known.newest_manifest.max(newest).max(known.older) {
            // Also one in this generation's own range: it has made none yet.
            Some(epoch) if epoch >= known.first => recovery.halt(Halt::MetadataRegressed { epoch }),
            _ => recovery.verify(),
        };
        (recovery, effects)
    }

    /// Started or halted: nothing more comes out of it.
    pub fn has_ended(&self) -> bool {
        self.step == Step::Done
    }

    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        let tried = self.epochs.front().map(|row| row.epoch);
        match (&mut self.step, event) {
            (Step::Done, _) => Vec::new(),
            (
                _,
                Event::Confirmation { reply: GuardedReply::Fenced, .. }
                | Event::Abandoned { reply: GuardedReply::Fenced, .. }
                | Event::Generation { reply: GuardedReply::Fenced },
            ) => self.halt(Halt::Fenced),
            (Step::Verify, Event::Verified { epoch }) if tried == Some(epoch) => self.recover(),
            (Step::Verify, Event::Unverified { epoch }) if tried == Some(epoch) => self.wait(),
            (Step::Verify, Event::Corrupt { epoch, what }) if tried == Some(epoch) => self.corrupt(what),
            (Step::Abandon, Event::Abandoned { epoch, reply }) if tried == Some(epoch) => match reply {
                GuardedReply::Unknown => self.wait(),
                _ => {
                    self.epochs.pop_front();
                    self.verify()
                }
            },
            (Step::Sinks(open), Event::Sink { sink, reply }) => match reply {
                SinkReply::Committed => {
                    let rest = open.remove(&sink) && open.is_empty();
                    if rest { self.recovered() } else { Vec::new() }
                }
                SinkReply::Fenced(ahead) => {
                    self.go_to(Step::Generation { ahead });
                    vec![Effect::AskGeneration]
                }
                SinkReply::Superseded => self.halt(Halt::Fenced),
                SinkReply::StateLost => {
                    let epoch = self.epochs.front().map_or(self.first, |row| row.epoch);
                    self.halt(Halt::SinkStateLost { sink, epoch })
                }
                SinkReply::Failed => {
                    let epoch = self.epochs.front().map_or(self.first, |row| row.epoch);
                    self.halt(Halt::SinkFailed { sink, epoch })
                }
            },
            (Step::Confirm, Event::Confirmation { epoch, reply }) if tried == Some(epoch) => match reply {
                GuardedReply::Unknown => self.wait(),
                _ => self.start(),
            },
            (Step::Generation { ahead }, Event::Generation { reply }) => match reply {
                GuardedReply::Unknown => self.wait(),
                // Nobody newer did it, so it was done by someone whom the database has forgotten.
                _ => {
                    let epoch = *ahead;
                    self.halt(Halt::MetadataRegressed { epoch })
                }
            },
            (_, Event::Retry) if std::mem::take(&mut self.delayed) => self.again(),
            _ => Vec::new(),
        }
    }

    fn verify(&mut self) -> Vec<Effect> {
        match self.epochs.front() {
            Some(row) => {
                let epoch = row.epoch;
                self.go_to(Step::Verify);
                vec![Effect::Verify { epoch }]
            }
            None => self.recover(),
        }
    }

    fn corrupt(&mut self, what: String) -> Vec<Effect> {
        let row = self.epochs.front().expect("an epoch is tried");
        let epoch = row.epoch;
        // Without the epoch before it there is nothing to go on from, unless that is where the job begins.
        let before = self.epochs.get(1).map(|before| before.epoch);
        if row.sinks.iter().any(|sink| sink.commits) || before != row.previous {
            return self.halt(Halt::CheckpointCorrupt { epoch, what });
        }
        self.go_to(Step::Abandon);
        vec![Effect::Abandon { epoch }]
    }

    fn recover(&mut self) -> Vec<Effect> {
        if self.sinks == 0 {
            return self.recovered();
        }
        self.go_to(Step::Sinks((0..self.sinks).collect()));
        let (row, older) = (self.epochs.front(), self.older);
        let expect = |sink: usize| {
            let Some((row, at)) = row.map(|row| (row, &row.sinks[sink])) else { return Expect::Nothing { older } };
            let place = |epoch, previous, had_earlier, proved| Place { epoch, previous, older, had_earlier, proved };
            match at.previous {
                previous if at.commits => Expect::Epoch(place(row.epoch, previous, at.had_earlier, row.committed)),
                // What it showed before must still be there.
                Some(previous) => Expect::Epoch(place(previous, None, true, true)),
                None => Expect::Nothing { older },
            }
        };
        (0..self.sinks).map(|sink| Effect::Recover { sink, expect: expect(sink) }).collect()
    }

    fn recovered(&mut self) -> Vec<Effect> {
        match self.epochs.front() {
            Some(row) if !row.committed => {
                let epoch = row.epoch;
                self.go_to(Step::Confirm);
                vec![Effect::Confirm { epoch }]
            }
            _ => self.start(),
        }
    }

    fn start(&mut self) -> Vec<Effect> {
        self.go_to(Step::Done);
        vec![Effect::Start { from: self.epochs.front().map(|row| row.epoch), first: self.first }]
    }

    fn again(&mut self) -> Vec<Effect> {
        let epoch = self.epochs.front().map_or(0, |row| row.epoch);
        match self.step {
            Step::Verify => vec![Effect::Verify { epoch }],
            Step::Abandon => vec![Effect::Abandon { epoch }],
            Step::Confirm => vec![Effect::Confirm { epoch }],
            Step::Generation { .. } => vec![Effect::AskGeneration],
            Step::Sinks(_) | Step::Done => Vec::new(),
        }
    }

    /// One delay at a time, however many answers came.
    fn wait(&mut self) -> Vec<Effect> {
        if std::mem::replace(&mut self.delayed, true) {
            return Vec::new();
        }
        self.tries = self.tries.saturating_add(1);
        vec![Effect::Wait { tries: self.tries }]
    }

    fn go_to(&mut self, step: Step) {
        self.step = step;
        self.tries = 0;
        self.delayed = false;
    }

    fn halt(&mut self, cause: Halt) -> Vec<Effect> {
        self.go_to(Step::Done);
        vec![Effect::Halt { cause }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u64, previous: Option<u64>, committed: bool, commits: bool) -> EpochRow {
        let sink = SinkRow { commits, previous, had_earlier: previous.is_some() };
        EpochRow { epoch, previous, committed, sinks: vec![sink, sink] }
    }

    fn known(epochs: Vec<EpochRow>) -> Known {
        Known { epochs, older: Some(4), first: 100, newest_manifest: Some(60) }
    }

    fn expect(epoch: u64, previous: Option<u64>, proved: bool) -> Expect {
        Expect::Epoch(Place { epoch, previous, older: Some(4), had_earlier: previous.is_some(), proved })
    }

    fn sink(sink: usize, reply: SinkReply) -> Event {
        Event::Sink { sink, reply }
    }

    fn corrupt(epoch: u64) -> Event {
        Event::Corrupt { epoch, what: "file a: 3 bytes, not 4".into() }
    }

    #[test]
    fn a_decided_epoch_is_verified_redone_and_confirmed_before_anything_starts() {
        let (mut it, effects) = Recovery::new(known(vec![row(50, Some(40), false, true)]), 2);
        assert_eq!(effects, [Effect::Verify { epoch: 50 }]);
        let effects = it.step(Event::Verified { epoch: 50 });
        let recover = |sink| Effect::Recover { sink, expect: expect(50, Some(40), false) };
        assert_eq!(effects, [recover(0), recover(1)]);
        assert_eq!(it.step(Event::Verified { epoch: 50 }), [], "said twice");
        assert_eq!(it.step(sink(0, SinkReply::Committed)), []);
        assert_eq!(it.step(sink(0, SinkReply::Committed)), []);
        assert_eq!(it.step(sink(1, SinkReply::Committed)), [Effect::Confirm { epoch: 50 }]);
        let unknown = Event::Confirmation { epoch: 50, reply: GuardedReply::Unknown };
        assert_eq!(it.step(unknown), [Effect::Wait { tries: 1 }]);
        assert_eq!(it.step(Event::Retry), [Effect::Confirm { epoch: 50 }]);
        let effects = it.step(Event::Confirmation { epoch: 50, reply: GuardedReply::Done });
        assert_eq!(effects, [Effect::Start { from: Some(50), first: 100 }]);
    }

    #[test]
    fn an_epoch_that_was_confirmed_is_proved_again_and_never_sent() {
        let (mut it, _) = Recovery::new(known(vec![row(50, Some(40), true, true)]), 2);
        let effects = it.step(Event::Verified { epoch: 50 });
        assert_eq!(effects[0], Effect::Recover { sink: 0, expect: expect(50, Some(40), true) });
        it.step(sink(0, SinkReply::Committed));
        let effects = it.step(sink(1, SinkReply::Committed));
        assert_eq!(effects, [Effect::Start { from: Some(50), first: 100 }]);
    }

    #[test]
    fn a_sink_that_sat_an_epoch_out_must_still_show_the_one_before() {
        let mut rows = vec![row(50, Some(40), true, false)];
        rows[0].sinks[1].previous = None;
        let (mut it, _) = Recovery::new(known(rows), 2);
        let effects = it.step(Event::Verified { epoch: 50 });
        let shown = Place { epoch: 40, previous: None, older: Some(4), had_earlier: true, proved: true };
        let expected = [Expect::Epoch(shown), Expect::Nothing { older: Some(4) }];
        let expected: Vec<Effect> =
            expected.into_iter().enumerate().map(|(sink, expect)| Effect::Recover { sink, expect }).collect();
        assert_eq!(effects, expected);
    }

    #[test]
    fn a_fresh_start_still_takes_the_sinks_from_older_writers() {
        let (mut it, effects) = Recovery::new(known(vec![]), 1);
        assert_eq!(effects, [Effect::Recover { sink: 0, expect: Expect::Nothing { older: Some(4) } }]);
        assert_eq!(it.step(sink(0, SinkReply::Committed)), [Effect::Start { from: None, first: 100 }]);
    }

    #[test]
    fn an_epoch_that_may_have_been_published_is_never_given_up() {
        for committed in [true, false] {
            let rows = vec![row(50, Some(40), committed, true), row(40, None, true, true)];
            let (mut it, _) = Recovery::new(known(rows), 2);
            let effects = it.step(corrupt(50));
            assert!(matches!(&effects[..], [Effect::Halt { cause: Halt::CheckpointCorrupt { epoch: 50, .. } }]));
        }
    }

    #[test]
    fn an_epoch_that_published_nothing_gives_way_to_the_one_before() {
        let rows = vec![row(50, Some(40), true, false), row(40, None, true, false)];
        let (mut it, _) = Recovery::new(known(rows), 2);
        assert_eq!(it.step(corrupt(50)), [Effect::Abandon { epoch: 50 }]);
        let effects = it.step(Event::Abandoned { epoch: 50, reply: GuardedReply::Done });
        assert_eq!(effects, [Effect::Verify { epoch: 40 }]);
        assert_eq!(it.step(corrupt(50)), [], "late");
        let mut to_begin = it.clone();
        assert_eq!(to_begin.step(corrupt(40)), [Effect::Abandon { epoch: 40 }]);
        let effects = to_begin.step(Event::Abandoned { epoch: 40, reply: GuardedReply::Done });
        assert!(matches!(effects[..], [Effect::Recover { .. }, Effect::Recover { .. }]), "from the beginning");
        let effects = it.step(Event::Verified { epoch: 40 });
        assert_eq!(effects[0], Effect::Recover { sink: 0, expect: Expect::Nothing { older: Some(4) } });

        let (mut it, _) = Recovery::new(known(vec![row(50, Some(40), true, false)]), 2);
        let effects = it.step(corrupt(50));
        assert!(matches!(effects[..], [Effect::Halt { .. }]), "40 is retired: {effects:?}");
    }

    #[test]
    fn a_database_that_has_forgotten_is_seen() {
        let newer = Known { newest_manifest: Some(100), ..known(vec![row(50, None, true, true)]) };
        let regressed = |epoch| [Effect::Halt { cause: Halt::MetadataRegressed { epoch } }];
        assert_eq!(Recovery::new(newer, 2).1, regressed(100));
        let (mut it, _) = Recovery::new(known(vec![row(50, None, true, true)]), 2);
        it.step(Event::Verified { epoch: 50 });
        assert_eq!(it.step(sink(1, SinkReply::Fenced(57))), [Effect::AskGeneration]);
        let mut zombie = it.clone();
        let fenced = Event::Generation { reply: GuardedReply::Fenced };
        assert_eq!(zombie.step(fenced), [Effect::Halt { cause: Halt::Fenced }]);
        assert_eq!(it.step(Event::Generation { reply: GuardedReply::Done }), regressed(57));
        assert!(it.has_ended());
    }
}
