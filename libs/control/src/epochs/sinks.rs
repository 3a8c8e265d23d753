//! K, the commit of a decided epoch in a sink, so that it can be repeated by anyone at any time.
//!
//! A sink that commits exactly once carries a *marker*: the newest epoch that it shows, changed atomically with the rows. In Kafka it is
//! the offset of a private group, committed in the transaction of the rows; in a directory of files the newest manifest of the job; in a
//! table a row. [`judge`] says what a marker means; [`MarkerCommit`] and [`ChainCommit`] are the ways to read and to set it.
//!
//! A marker is worth something only when no older writer can still change it: a producer is made (`init_transactions`, which fences the
//! older ones and ends what they left open) *before* the marker is read; files need none, because their next manifest has one path that
//! only one writer gets.

use super::{GuardedReply, SinkReply};

/// What a sink should show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Nothing of this lineage: the run starts fresh, or the sink has published nothing yet. `older`: the newest epoch that the job
    /// ever decided; up to it, a marker is that of an older lineage.
    Nothing {
        older: Option<u64>,
    },
    Epoch(Place),
}

/// The place of a decided epoch in the history of a sink.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub epoch: u64,
    /// The decided epoch of the lineage before it at which the sink did something; with sinks that commit at every checkpoint simply the one
    /// before. `None`: this is the sink's first.
    pub previous: Option<u64>,
    /// The newest epoch that the job decided in older lineages.
    pub older: Option<u64>,
    /// The database holds a proof of this sink for an earlier epoch of the lineage, or this epoch may have been committed so long ago that
    /// the marker has expired: there must be a marker.
    pub had_earlier: bool,
    /// The database holds a proof of this sink for this very epoch.
    pub proved: bool,
}

/// What the committer of a sink remembers from one epoch to the next: what was expected last, once that is proved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct History {
    previous: Option<u64>,
    older: Option<u64>,
}

impl History {
    pub fn after(proved: &Expect) -> History {
        match proved {
            Expect::Nothing { older } => History { previous: None, older: *older },
            Expect::Epoch(place) => History { previous: Some(place.epoch), older: place.older },
        }
    }

    /// What the sink should show next: an epoch that was just decided.
    pub fn expect(&self, epoch: u64) -> Expect {
        let History { previous, older } = *self;
        Expect::Epoch(Place { epoch, previous, older, had_earlier: previous.is_some(), proved: false })
    }
}

/// What the marker of a sink means for an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Nothing is to be done.
    Proved,
    /// The epoch is not in the sink: send all of it.
    Send,
    /// The sink shows less than was proved. Sending could publish rows twice, not sending could lose some: stop.
    StateLost,
    /// The sink shows this epoch, which the asker does not know: it is a zombie, or the database has lost what it knew.
    Fenced(u64),
}

/// What to do about an epoch in a sink that shows `marker`, read when no older writer can change it any more.
pub fn judge(marker: Option<u64>, expect: &Expect) -> Verdict {
    let place = match expect {
        Expect::Nothing { older } => {
            return match marker {
                Some(found) if Some(found) > *older => Verdict::Fenced(found),
                _ => Verdict::Proved,
            };
        }
        Expect::Epoch(place) => place,
    };
    match marker {
        Some(found) if found == place.epoch => Verdict::Proved,
        Some(found) if found > place.epoch => Verdict::Fenced(found),
        _ if place.proved => Verdict::StateLost,
        // Expired, or the sink is another one now.
        None if place.had_earlier => Verdict::StateLost,
        None => Verdict::Send,
        // Between the previous epoch and this one nothing was decided, as far as the asker knows.
        Some(found) if Some(found) > place.previous.max(place.older) => Verdict::Fenced(found),
        Some(found) if place.had_earlier && Some(found) != place.previous => Verdict::StateLost,
        // The previous epoch, or one of a lineage before this one.
        Some(_) => Verdict::Send,
    }
}

/// A commit by a transaction that carries rows and marker, in a system that fences writers by name: Kafka.
///
/// ```text
/// ready? -> Send -> End -> done                     the usual way, no reading
///              \     \
///               any doubt -> wait -> AskGeneration -> NewProducer -> ReadMarker -> judge -> Send ... | done
/// ```
/// A new producer fences every other, also that of a newer attempt, which then takes a new one in turn: two that try for ever would keep
/// each other from it for ever. So before another try the control plane is asked whether there is a newer attempt; without an answer the
/// try is made, for it is harmless.
///
/// The producer is thrown away after anything but success: a commit that was sent may still arrive, and would end a later transaction of
/// the same producer half-way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkerCommit {
    expect: Expect,
    step: MarkerStep,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum MarkerStep {
    Generation,
    Producer,
    Marker,
    Send,
    End,
    Wait,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerEvent {
    /// Answers [`MarkerEffect::AskGeneration`]: `Done`, this generation is the newest.
    Generation(GuardedReply),
    /// Answers [`MarkerEffect::NewProducer`].
    Producer {
        ready: bool,
    },
    /// Answers [`MarkerEffect::ReadMarker`].
    Marker(Option<u64>),
    MarkerUnknown,
    /// Answers [`MarkerEffect::Send`]: rows and marker are in the open transaction, and acknowledged.
    Sent {
        ok: bool,
    },
    /// Answers [`MarkerEffect::End`]. `ok: false` is also "not answered".
    Ended {
        ok: bool,
    },
    Retry,
    /// No more tries, or nothing can be done about the error.
    GiveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerEffect {
    /// Ask the control plane whether this generation is still the newest.
    AskGeneration,
    /// Drop the producer, if there is one; make one of the same transactional id and `init_transactions`.
    NewProducer,
    /// Read the marker, `read_committed`.
    ReadMarker,
    /// Begin a transaction; send the rows of the epoch; send the marker, the epoch, in the same transaction.
    Send,
    /// Commit the transaction.
    End,
    /// Say [`MarkerEvent::Retry`] after a delay that grows with `tries`.
    Wait {
        tries: u32,
    },
    Done(SinkReply),
}

impl MarkerCommit {
    /// `ready`: there is a producer that committed the epoch before in this attempt, without a doubt.
    pub fn new(expect: Expect, ready: bool) -> (MarkerCommit, MarkerEffect) {
        let sends = ready && matches!(&expect, Expect::Epoch(place) if !place.proved);
        let (step, effect) = if sends {
            (MarkerStep::Send, MarkerEffect::Send)
        } else {
            (MarkerStep::Producer, MarkerEffect::NewProducer)
        };
        (MarkerCommit { expect, step, tries: 0 }, effect)
    }

    /// Answers that do not fit the step at hand are late, and change nothing.
    pub fn step(&mut self, event: MarkerEvent) -> Option<MarkerEffect> {
        use MarkerStep as At;
        match (self.step, event) {
            (At::Done, _) => None,
            (_, MarkerEvent::GiveUp) => Some(self.done(SinkReply::Failed)),
            (At::Producer, MarkerEvent::Producer { ready: true }) => {
                Some(self.go(At::Marker, MarkerEffect::ReadMarker))
            }
            (At::Marker, MarkerEvent::Marker(marker)) => Some(match judge(marker, &self.expect) {
                Verdict::Proved => self.done(SinkReply::Committed),
                Verdict::Send => self.go(At::Send, MarkerEffect::Send),
                Verdict::StateLost => self.done(SinkReply::StateLost),
                Verdict::Fenced(found) => self.done(SinkReply::Fenced(found)),
            }),
            (At::Send, MarkerEvent::Sent { ok: true }) => Some(self.go(At::End, MarkerEffect::End)),
            (At::End, MarkerEvent::Ended { ok: true }) => Some(self.done(SinkReply::Committed)),
            (At::Producer, MarkerEvent::Producer { ready: false })
            | (At::Marker, MarkerEvent::MarkerUnknown)
            | (At::Send, MarkerEvent::Sent { ok: false })
            | (At::End, MarkerEvent::Ended { ok: false }) => {
                self.tries = self.tries.saturating_add(1);
                Some(self.go(At::Wait, MarkerEffect::Wait { tries: self.tries }))
            }
            (At::Wait, MarkerEvent::Retry) => Some(self.go(At::Generation, MarkerEffect::AskGeneration)),
            (At::Generation, MarkerEvent::Generation(GuardedReply::Fenced)) => Some(self.done(SinkReply::Superseded)),
            (At::Generation, MarkerEvent::Generation(_)) => Some(self.go(At::Producer, MarkerEffect::NewProducer)),
            _ => None,
        }
    }

    fn go(&mut self, step: MarkerStep, effect: MarkerEffect) -> MarkerEffect {
        self.step = step;
        effect
    }

    fn done(&mut self, reply: SinkReply) -> MarkerEffect {
        self.go(MarkerStep::Done, MarkerEffect::Done(reply))
    }
}

/// A commit by the conditional create of the next manifest in a chain: files.
///
/// ```text
/// ReadChain -> judge -> Create -> done
///     ^                   |
///     +---- any doubt ----+
/// ```
/// The nonce in the manifest is that of the *epoch* (its row in the database), so that every attempt that repeats the commit of an epoch
/// finds its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainCommit {
    expect: Expect,
    step: ChainStep,
    tries: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ChainStep {
    Read,
    Create,
    Wait,
    Done,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    /// Answers [`ChainEffect::ReadChain`]: the newest epoch of this job in the chain.
    Chain(Option<u64>),
    ChainUnknown,
    /// Answers [`ChainEffect::Create`].
    Created(CreateReply),
    Retry,
    GiveUp,
}

/// How a conditional create in a chain went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CreateReply {
    Created,
    /// It was read after the answer, and has the nonce of the epoch.
    ExistsMine,
    /// Another commit got the number: of another writer of the directory, or this epoch's by another attempt.
    ExistsOther,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainEffect {
    /// Read the whole chain: its length, the hash of its last manifest, the newest epoch of this job in it.
    ReadChain,
    /// Create the manifest after the last one that was read, unless its path is taken.
    Create,
    Wait {
        tries: u32,
    },
    Done(SinkReply),
}

impl ChainCommit {
    pub fn new(expect: Expect) -> (ChainCommit, ChainEffect) {
        (ChainCommit { expect, step: ChainStep::Read, tries: 0 }, ChainEffect::ReadChain)
    }

    /// Answers that do not fit the step at hand are late, and change nothing.
    pub fn step(&mut self, event: ChainEvent) -> Option<ChainEffect> {
        match (self.step, event) {
            (ChainStep::Done, _) => None,
            (_, ChainEvent::GiveUp) => Some(self.done(SinkReply::Failed)),
            (ChainStep::Read, ChainEvent::Chain(newest)) => Some(match judge(newest, &self.expect) {
                Verdict::Proved => self.done(SinkReply::Committed),
                Verdict::Send => self.go(ChainStep::Create, ChainEffect::Create),
                Verdict::StateLost => self.done(SinkReply::StateLost),
                Verdict::Fenced(found) => self.done(SinkReply::Fenced(found)),
            }),
            (ChainStep::Create, ChainEvent::Created(reply)) => Some(match reply {
                CreateReply::Created | CreateReply::ExistsMine => self.done(SinkReply::Committed),
                // Read again: whoever it was, the chain says whether this epoch is in it.
                CreateReply::ExistsOther => self.go(ChainStep::Read, ChainEffect::ReadChain),
                CreateReply::Unknown => self.wait(),
            }),
            (ChainStep::Read, ChainEvent::ChainUnknown) => Some(self.wait()),
            (ChainStep::Wait, ChainEvent::Retry) => Some(self.go(ChainStep::Read, ChainEffect::ReadChain)),
            _ => None,
        }
    }

    fn wait(&mut self) -> ChainEffect {
        self.tries = self.tries.saturating_add(1);
        self.go(ChainStep::Wait, ChainEffect::Wait { tries: self.tries })
    }

    fn go(&mut self, step: ChainStep, effect: ChainEffect) -> ChainEffect {
        self.step = step;
        effect
    }

    fn done(&mut self, reply: SinkReply) -> ChainEffect {
        self.go(ChainStep::Done, ChainEffect::Done(reply))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(previous: Option<u64>) -> Place {
        Place { epoch: 20, previous, older: None, had_earlier: previous.is_some(), proved: false }
    }

    #[test]
    fn a_marker_says_what_is_to_be_done() {
        let at = |place: Place, marker| judge(marker, &Expect::Epoch(place));
        let later = place(Some(15));
        assert_eq!(at(later.clone(), Some(20)), Verdict::Proved);
        assert_eq!(at(later.clone(), Some(15)), Verdict::Send);
        assert_eq!(at(later.clone(), Some(25)), Verdict::Fenced(25));
        assert_eq!(at(later.clone(), Some(17)), Verdict::Fenced(17), "nothing was decided there");
        assert_eq!(at(later.clone(), None), Verdict::StateLost, "expired");
        assert_eq!(at(later.clone(), Some(12)), Verdict::StateLost, "15 was proved");
        let first = Place { older: Some(9), ..place(None) };
        assert_eq!(at(first.clone(), None), Verdict::Send);
        assert_eq!(at(first.clone(), Some(9)), Verdict::Send, "of an older lineage");
        assert_eq!(at(first.clone(), Some(4)), Verdict::Send, "the sink was not always there");
        assert_eq!(at(first.clone(), Some(12)), Verdict::Fenced(12), "no lineage decided it");
        let added = Place { had_earlier: false, ..place(Some(15)) };
        assert_eq!(at(added, None), Verdict::Send, "a sink that came later");
        let proved = Place { proved: true, ..place(Some(15)) };
        assert_eq!(at(proved.clone(), Some(20)), Verdict::Proved);
        assert_eq!(at(proved.clone(), Some(15)), Verdict::StateLost, "what was proved is never sent again");
        assert_eq!(at(proved, None), Verdict::StateLost);
    }

    #[test]
    fn a_fresh_start_meets_markers_of_older_lineages_only() {
        let fresh = |older, marker| judge(marker, &Expect::Nothing { older });
        assert_eq!(fresh(None, None), Verdict::Proved);
        assert_eq!(fresh(Some(9), Some(9)), Verdict::Proved);
        assert_eq!(fresh(Some(9), Some(10)), Verdict::Fenced(10));
        assert_eq!(fresh(None, Some(1)), Verdict::Fenced(1));
    }

    #[test]
    fn the_usual_commit_reads_nothing_and_any_doubt_takes_a_new_producer_before_the_marker() {
        let (mut it, effect) = MarkerCommit::new(Expect::Epoch(place(Some(15))), true);
        assert_eq!(effect, MarkerEffect::Send);
        assert_eq!(it.step(MarkerEvent::Sent { ok: true }), Some(MarkerEffect::End));
        let mut well = it.clone();
        assert_eq!(well.step(MarkerEvent::Ended { ok: true }), Some(MarkerEffect::Done(SinkReply::Committed)));
        assert_eq!(it.step(MarkerEvent::Ended { ok: false }), Some(MarkerEffect::Wait { tries: 1 }));
        assert_eq!(it.step(MarkerEvent::Ended { ok: true }), None, "too late: the marker will say it");
        assert_eq!(it.step(MarkerEvent::Retry), Some(MarkerEffect::AskGeneration));
        let mut zombie = it.clone();
        let superseded = zombie.step(MarkerEvent::Generation(GuardedReply::Fenced));
        assert_eq!(superseded, Some(MarkerEffect::Done(SinkReply::Superseded)));
        let unknown = MarkerEvent::Generation(GuardedReply::Unknown);
        assert_eq!(it.step(unknown), Some(MarkerEffect::NewProducer), "harmless");
        assert_eq!(it.step(MarkerEvent::Producer { ready: true }), Some(MarkerEffect::ReadMarker));
        let mut replayed = it.clone();
        assert_eq!(replayed.step(MarkerEvent::Marker(Some(15))), Some(MarkerEffect::Send));
        assert_eq!(it.step(MarkerEvent::Marker(Some(20))), Some(MarkerEffect::Done(SinkReply::Committed)));
    }

    #[test]
    fn a_taken_number_is_another_writers_or_an_earlier_try() {
        let (mut it, effect) = ChainCommit::new(Expect::Epoch(place(Some(15))));
        assert_eq!(effect, ChainEffect::ReadChain);
        assert_eq!(it.step(ChainEvent::Chain(Some(15))), Some(ChainEffect::Create));
        let other = ChainEvent::Created(CreateReply::ExistsOther);
        assert_eq!(it.step(other), Some(ChainEffect::ReadChain));
        assert_eq!(it.step(ChainEvent::Chain(Some(15))), Some(ChainEffect::Create), "the next number");
        let unknown = ChainEvent::Created(CreateReply::Unknown);
        assert_eq!(it.step(unknown), Some(ChainEffect::Wait { tries: 1 }));
        assert_eq!(it.step(ChainEvent::Retry), Some(ChainEffect::ReadChain));
        assert_eq!(it.step(ChainEvent::Chain(Some(20))), Some(ChainEffect::Done(SinkReply::Committed)));
    }
}
