//! The leader of an attempt: opens epochs, learns when they are complete, orders the commits, names the last epoch. Pure: events in,
//! effects out; the clock is an argument.
//!
//! Epoch E+1 begins when E is cut; that may be once E-1 is complete everywhere, so at most two epochs are open. Epochs commit in order,
//! one at a time, when the probe has passed them and every source has reported its cut and every sink writer has prepared. While what was
//! prepared and is not committed is large, no epoch is cut: a slow commit then holds up the sources, and not everything in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::clock::SplitState;
use super::messages::{Cut, CutReport};
use super::time::WM_MIN;
use crate::sink::{CommitKind, Commits, Committable};

/// What the leader must know of the run.
#[derive(Clone, Debug)]
pub struct Facts {
    pub sources: usize,
    pub workers: usize,
    pub sinks: Vec<SinkFacts>,
    /// Operators with state on every worker, for checkpoints: how many snapshots an epoch needs.
    pub snapshots: usize,
    pub bounded: bool,
    pub first_epoch: u64,
    pub epoch_interval_us: i64,
    pub checkpoint_interval_us: i64,
    /// The epoch that was decided last, if checkpoints are decided: the run goes on from it.
    pub decided: Option<u64>,
    /// Ends the attempt after this epoch, as a checkpoint: for tests of restarts.
    pub stop_after: Option<u64>,
}

/// What the leader must know of a sink.
#[derive(Clone, Debug)]
pub struct SinkFacts {
    pub commits: Commits,
    /// The sources whose rows may reach it: event time is as far in it as in all of these.
    pub sources: Vec<usize>,
}

/// What a sink gets at the commit of an epoch.
#[derive(Debug, PartialEq)]
pub struct SinkCommit {
    /// The minimum of the closing watermarks of the sources that reach the sink.
    pub watermark: i64,
    /// In the order of workers.
    pub committables: Vec<Committable>,
}

#[derive(Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    CutWanted {
        epoch: u64,
    },
    SourceFinished {
        source: usize,
        worker: usize,
    },
    Cut(CutReport),
    Passed {
        epoch: u64,
    },
    Prepared {
        sink: usize,
        worker: usize,
        epoch: u64,
        committable: Committable,
    },
    Snapshot {
        epoch: u64,
    },
    /// All sinks have committed the epoch.
    Committed {
        epoch: u64,
    },
    /// A checkpoint is wanted now: that of [`Leader::asked_epoch`].
    Checkpoint,
    /// The sources end as if their input had ended.
    Drain,
    /// End at a cut: everything up to it is committed, windows stay open.
    Stop,
}

#[derive(Debug, PartialEq)]
pub enum Effect {
    Cut(Cut),
    /// Commit in every sink that has committables, then say [`Event::Committed`].
    Commit {
        epoch: u64,
        kind: CommitKind,
        sinks: BTreeMap<usize, SinkCommit>,
        /// Where the sources stand in it; of a checkpoint.
        cut: Option<SourcesCut>,
    },
    /// The last epoch is committed.
    Finished,
    /// The epoch of the stop is committed; the attempt can end.
    Stopped {
        epoch: u64,
    },
}

/// Where all sources stand at the end of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct SourcesCut {
    /// When the epoch was cut, microseconds.
    pub cut_us: i64,
    /// By number, those that were read at least once.
    pub splits: BTreeMap<u32, SplitState>,
    /// By source, its closing watermark.
    pub closing: BTreeMap<usize, i64>,
}

pub struct Leader {
    facts: Facts,
    /// The epoch that was begun last and not cut yet.
    epoch: u64,
    began_us: i64,
    checkpoint_us: i64,
    /// The checkpoint committed last, or what the attempt began with.
    decided: u64,
    passed: u64,
    wanted: bool,
    /// The open epoch is to be a checkpoint, and to be cut as soon as it can be.
    asked: bool,
    stopping: bool,
    draining: bool,
    finished: BTreeSet<(usize, usize)>,
    cut: BTreeMap<u64, CutEpoch>,
    splits: BTreeMap<u32, SplitState>,
    /// The splits as of the epoch that was committed last.
    complete: BTreeMap<u32, SplitState>,
    committing: Option<u64>,
    last: Option<u64>,
    stop_at: Option<u64>,
    floor: i64,
    done: bool,
}

/// An epoch that was cut and is not committed.
struct CutEpoch {
    kind: CommitKind,
    cut_us: i64,
    reports: usize,
    /// By source, the minimum over the instances so far.
    closing: BTreeMap<usize, i64>,
    splits: Vec<(u32, SplitState)>,
    snapshots: usize,
    prepared: BTreeMap<usize, BTreeMap<usize, Committable>>,
    /// Of what was prepared, until it is committed.
    bytes: usize,
}

/// Bytes that may wait for their commit before the sources wait too. What a sink hands over is small, but for those that hand over rows.
const UNCOMMITTED_BYTES_MAX: usize = 32 << 20;

/// Checkpoints that may be cut and not committed. Who decides may be away: then one more is made, and the sources wait.
const UNCOMMITTED_CHECKPOINTS_MAX: usize = 2;

/// Numbers of epochs that an attempt may use beyond the one that was decided last: the next attempt begins above them.
pub const EPOCHS_RESERVED: u64 = 10_000;

impl Leader {
    pub fn new(facts: Facts, now_us: i64) -> Leader {
        Leader {
            epoch: facts.first_epoch,
            began_us: now_us,
            // What was restored is checked by a checkpoint at once.
            checkpoint_us: if facts.decided.is_some() { i64::MIN } else { now_us },
            decided: facts.decided.unwrap_or(facts.first_epoch - 1),
            passed: facts.first_epoch - 1,
            wanted: false,
            asked: false,
            stopping: false,
            draining: false,
            finished: BTreeSet::new(),
            cut: BTreeMap::new(),
            splits: BTreeMap::new(),
            complete: BTreeMap::new(),
            committing: None,
            last: None,
            stop_at: None,
            floor: WM_MIN,
            done: false,
            facts,
        }
    }

    /// The splits as of the epoch that was committed last, by number.
    pub fn complete(&self) -> &BTreeMap<u32, SplitState> {
        &self.complete
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The epoch of the checkpoint that [`Event::Checkpoint`] asks for, the same for all who ask before it is cut. `None` if there will be
    /// none from which a run can go on.
    pub fn asked_epoch(&self) -> Option<u64> {
        if self.draining || self.last.is_some() || self.done {
            return None;
        }
        Some(self.stop_at.unwrap_or(self.epoch))
    }

    /// When the leader wants a tick, if nothing else happens. `None` while time alone changes nothing.
    pub fn next_tick_us(&self) -> Option<i64> {
        (!self.is_blocked()).then(|| self.due_us())
    }

    /// When the open epoch has lasted long enough. The first one of a stream is a tenth as long: its first results come soon.
    fn due_us(&self) -> i64 {
        let is_first = self.epoch == self.facts.first_epoch && !self.facts.bounded;
        self.began_us.saturating_add(self.facts.epoch_interval_us / if is_first { 10 } else { 1 })
    }

    /// Whether the open epoch cannot be cut, however late it is.
    fn is_blocked(&self) -> bool {
        let ended = self.last.is_some() || self.stop_at.is_some();
        let uncommitted: usize = self.cut.values().map(|cut| cut.bytes).sum();
        let checkpoints = self.cut.values().filter(|cut| cut.kind.checkpoint).count();
        ended
            || self.passed.saturating_add(1) < self.epoch
            || uncommitted > UNCOMMITTED_BYTES_MAX
            || checkpoints >= UNCOMMITTED_CHECKPOINTS_MAX
            || self.used() >= EPOCHS_RESERVED
    }

    /// Whether a checkpoint was cut whose state is not written everywhere.
    fn is_copying(&self) -> bool {
        let wanted = self.facts.snapshots * self.facts.workers;
        self.cut.values().any(|cut| cut.kind.checkpoint && !cut.kind.last && cut.snapshots < wanted)
    }

    /// How many numbers of epochs are in use beyond the last that was decided. Before the first decision the attempt has them all.
    fn used(&self) -> u64 {
        self.epoch - self.decided.max(self.facts.first_epoch - 1)
    }

    pub fn step(&mut self, event: Event, now_us: i64) -> Vec<Effect> {
        match event {
            Event::Tick => {}
            Event::CutWanted { epoch } => self.wanted |= epoch == self.epoch,
            Event::SourceFinished { source, worker } => {
                self.finished.insert((source, worker));
            }
            Event::Cut(report) => {
                let epoch = self.cut.get_mut(&report.epoch).expect("only cut epochs are reported");
                epoch.reports += 1;
                let closing = epoch.closing.entry(report.source).or_insert(report.watermark);
                *closing = report.watermark.min(*closing);
                epoch.splits.extend(report.splits.iter().cloned());
                self.splits.extend(report.splits);
                self.raise_floor();
            }
            Event::Passed { epoch } => self.passed = self.passed.max(epoch),
            Event::Prepared { sink, worker, epoch, committable } => {
                let epoch = self.cut.get_mut(&epoch).expect("only cut epochs are prepared");
                epoch.bytes += committable.payload.len();
                epoch.prepared.entry(sink).or_default().insert(worker, committable);
            }
            Event::Snapshot { epoch } => self.cut.get_mut(&epoch).expect("only cut epochs are snapshot").snapshots += 1,
            Event::Committed { epoch } => {
                assert!(self.committing == Some(epoch), "epochs commit one at a time");
                self.committing = None;
                let cut = self.cut.remove(&epoch).expect("an epoch commits once");
                self.complete.extend(cut.splits);
                if cut.kind.checkpoint {
                    self.decided = epoch;
                }
                if self.last == Some(epoch) || self.stop_at == Some(epoch) {
                    self.done = true;
                    let stopped = Effect::Stopped { epoch };
                    return vec![if self.last == Some(epoch) { Effect::Finished } else { stopped }];
                }
            }
            Event::Checkpoint => self.asked = true,
            Event::Drain => self.draining = true,
            Event::Stop => self.stopping = true,
        }
        let mut effects = Vec::new();
        if !self.done {
            effects.extend(self.try_cut(now_us));
            effects.extend(self.try_commit());
        }
        effects
    }

    fn try_cut(&mut self, now_us: i64) -> Option<Effect> {
        if self.is_blocked() {
            return None;
        }
        let all_finished = self.finished.len() == self.facts.sources * self.facts.workers;
        let stop = self.stopping || self.facts.stop_after == Some(self.epoch);
        let due = now_us >= self.due_us();
        // A stop for tests comes at the epoch's natural end, not at its beginning.
        if !(due || self.wanted || all_finished || self.stopping || self.asked) {
            return None;
        }
        let last = all_finished && !(stop && self.facts.stop_after.is_some());
        let is_time = now_us >= self.checkpoint_us.saturating_add(self.facts.checkpoint_interval_us)
            || self.used() > EPOCHS_RESERVED / 2;
        // Half drained is no place to go on from: the splits that have ended would stay so. And a checkpoint is copied while data flows; one
        // that is cut before that is done stops the flow until it is, which only somebody who waits for it is worth.
        let due = !self.draining && (self.asked || is_time && !self.is_copying());
        let kind = CommitKind { checkpoint: due || last || stop || self.facts.stop_after.is_some(), last };
        if kind.checkpoint {
            self.checkpoint_us = now_us;
        }
        let cut = Cut { epoch: self.epoch, kind, now_us, floor: self.floor };
        self.cut.insert(
            self.epoch,
            CutEpoch {
                kind,
                cut_us: now_us,
                reports: 0,
                closing: BTreeMap::new(),
                splits: Vec::new(),
                snapshots: 0,
                prepared: BTreeMap::new(),
                bytes: 0,
            },
        );
        if last {
            self.last = Some(self.epoch);
        } else if stop {
            self.stop_at = Some(self.epoch);
        }
        self.epoch += 1;
        self.began_us = now_us;
        (self.wanted, self.asked) = (false, false);
        Some(Effect::Cut(cut))
    }

    fn try_commit(&mut self) -> Option<Effect> {
        if self.committing.is_some() {
            return None;
        }
        let (epoch, cut) = self.cut.first_key_value()?;
        let epoch = *epoch;
        let sinks = self.facts.sinks.iter().enumerate();
        let sinks = sinks.filter(|(_, sink)| prepares(sink.commits, cut.kind, self.facts.bounded));
        let prepared = sinks
            .map(|(sink, _)| cut.prepared.get(&sink).map_or(0, BTreeMap::len))
            .all(|count| count == self.facts.workers);
        let snapshots =
            if cut.kind.checkpoint && !cut.kind.last { self.facts.snapshots * self.facts.workers } else { 0 };
        let reported = cut.reports == self.facts.sources * self.facts.workers;
        let uploaded = cut.snapshots >= snapshots || faults::broken("skip_wait_for_uploads");
        if self.passed < epoch || !prepared || !reported || !uploaded {
            return None;
        }
        let cut = self.cut.get_mut(&epoch)?;
        let prepared = std::mem::take(&mut cut.prepared);
        let sinks = prepared.into_iter().map(|(sink, workers)| {
            let sources = self.facts.sinks[sink].sources.iter();
            let watermark = sources.filter_map(|source| cut.closing.get(source)).copied().min().unwrap_or(WM_MIN);
            (sink, SinkCommit { watermark, committables: workers.into_values().collect() })
        });
        let sinks = sinks.collect();
        let all = cut.kind.checkpoint.then(|| {
            let mut splits = self.complete.clone();
            splits.extend(cut.splits.iter().cloned());
            if faults::broken("positions_of_next_epoch") {
                splits.clone_from(&self.splits);
            }
            SourcesCut { cut_us: cut.cut_us, splits, closing: cut.closing.clone() }
        });
        self.committing = Some(epoch);
        Some(Effect::Commit { epoch, kind: cut.kind, sinks, cut: all })
    }

    /// The minimum over the active splits of the run; stands still while there is none.
    fn raise_floor(&mut self) {
        let active = self.splits.values().filter(|split| !split.ended() && !split.idle);
        if let Some(min) = active.map(|split| split.watermark).min() {
            self.floor = self.floor.max(min);
        }
    }
}

/// Whether a sink prepares at the end of an epoch of this kind.
pub fn prepares(commits: Commits, kind: CommitKind, bounded: bool) -> bool {
    match commits {
        Commits::EveryEpoch => true,
        Commits::Checkpoints => kind.last || (kind.checkpoint && !bounded),
        Commits::EveryCheckpoint => kind.checkpoint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Position;

    fn facts(workers: usize) -> Facts {
        Facts {
            sources: 1,
            workers,
            sinks: vec![SinkFacts { commits: Commits::EveryEpoch, sources: vec![0] }],
            snapshots: 0,
            bounded: false,
            first_epoch: 1,
            epoch_interval_us: 1000,
            checkpoint_interval_us: 10_000,
            decided: None,
            stop_after: None,
        }
    }

    fn report(worker: usize, epoch: u64, splits: Vec<(u32, SplitState)>) -> Event {
        Event::Cut(CutReport { source: 0, worker, epoch, watermark: WM_MIN, splits })
    }

    fn prepared(worker: usize, epoch: u64) -> Event {
        Event::Prepared { sink: 0, worker, epoch, committable: Committable::default() }
    }

    fn cuts(effects: &[Effect]) -> Vec<(u64, bool)> {
        effects
            .iter()
            .filter_map(|effect| if let Effect::Cut(cut) = effect { Some((cut.epoch, cut.kind.last)) } else { None })
            .collect()
    }

    #[test]
    fn sinks_prepare_at_the_epochs_of_their_kind() {
        let kinds =
            [(false, false), (true, false), (true, true)].map(|(checkpoint, last)| CommitKind { checkpoint, last });
        for (commits, bounded, expected) in [
            (Commits::EveryEpoch, true, [true, true, true]),
            (Commits::Checkpoints, true, [false, false, true]),
            (Commits::Checkpoints, false, [false, true, true]),
            (Commits::EveryCheckpoint, true, [false, true, true]),
            (Commits::EveryCheckpoint, false, [false, true, true]),
        ] {
            assert_eq!(kinds.map(|kind| prepares(commits, kind, bounded)), expected, "{commits:?} {bounded}");
        }
    }

    #[test]
    fn at_most_two_epochs_are_open() {
        let mut leader = Leader::new(facts(1), 0);
        assert!(leader.step(Event::Tick, 99).is_empty(), "the first epoch is a tenth as long");
        assert_eq!(cuts(&leader.step(Event::Tick, 1000)), [(1, false)]);
        assert!(leader.step(Event::Tick, 9000).is_empty(), "epoch 2 is open, 1 has not passed");
        assert!(leader.step(Event::CutWanted { epoch: 2 }, 9000).is_empty());
        assert_eq!(cuts(&leader.step(Event::Passed { epoch: 1 }, 9000)), [(2, false)]);
    }

    #[test]
    fn time_alone_cuts_no_epoch_while_two_are_open() {
        let mut leader = Leader::new(facts(1), 0);
        assert_eq!(leader.next_tick_us(), Some(100));
        leader.step(Event::Tick, 1000);
        assert_eq!(leader.next_tick_us(), None, "epoch 1 has not passed");
        leader.step(Event::Passed { epoch: 1 }, 1500);
        assert_eq!(leader.next_tick_us(), Some(2000));
    }

    #[test]
    fn a_sink_is_as_far_as_the_sources_that_reach_it() {
        let sink = |sources: &[usize]| SinkFacts { commits: Commits::EveryEpoch, sources: sources.to_vec() };
        let sinks = vec![sink(&[0]), sink(&[0, 1])];
        let mut leader = Leader::new(Facts { sources: 2, sinks, ..facts(1) }, 0);
        leader.step(Event::Tick, 1000);
        let report =
            |source, watermark| Event::Cut(CutReport { source, worker: 0, epoch: 1, watermark, splits: vec![] });
        leader.step(report(0, 70), 1000);
        leader.step(report(1, WM_MIN), 1000);
        leader.step(Event::Passed { epoch: 1 }, 1000);
        let prepared = |sink| Event::Prepared { sink, worker: 0, epoch: 1, committable: Committable::default() };
        leader.step(prepared(0), 1000);
        let effects = leader.step(prepared(1), 1000);
        let [Effect::Commit { sinks, .. }] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!((sinks[&0].watermark, sinks[&1].watermark), (70, WM_MIN));
    }

    #[test]
    fn an_epoch_commits_when_all_have_reported_and_in_order() {
        let mut leader = Leader::new(facts(2), 0);
        leader.step(Event::Tick, 1000);
        assert!(leader.step(report(0, 1, vec![]), 1000).is_empty());
        assert!(leader.step(report(1, 1, vec![]), 1000).is_empty());
        assert!(leader.step(prepared(0, 1), 1000).is_empty());
        assert!(leader.step(Event::Passed { epoch: 1 }, 1000).is_empty());
        let effects = leader.step(prepared(1, 1), 1000);
        assert!(matches!(effects[..], [Effect::Commit { epoch: 1, .. }]), "{effects:?}");
        assert!(leader.step(Event::Tick, 1500).is_empty(), "one commit at a time");
        assert!(leader.step(Event::Committed { epoch: 1 }, 1500).is_empty());
    }

    #[test]
    fn the_last_epoch_is_named_when_every_instance_has_finished() {
        let mut leader = Leader::new(facts(2), 0);
        assert!(leader.step(Event::SourceFinished { source: 0, worker: 0 }, 10).is_empty());
        let effects = leader.step(Event::SourceFinished { source: 0, worker: 1 }, 10);
        assert_eq!(cuts(&effects), [(1, true)]);
        for worker in 0..2 {
            leader.step(report(worker, 1, vec![]), 20);
            leader.step(prepared(worker, 1), 20);
        }
        let effects = leader.step(Event::Passed { epoch: u64::MAX }, 20);
        assert!(matches!(effects[..], [Effect::Commit { epoch: 1, .. }]), "{effects:?}");
        assert_eq!(leader.step(Event::Committed { epoch: 1 }, 20), [Effect::Finished]);
        assert!(leader.step(Event::Tick, 99_999).is_empty());
    }

    #[test]
    fn a_slow_commit_of_much_holds_up_the_next_cut() {
        let mut leader = Leader::new(facts(1), 0);
        let prepared = |epoch| {
            let committable = Committable { rows: 1, payload: vec![0; UNCOMMITTED_BYTES_MAX / 2 + 1], files: vec![] };
            Event::Prepared { sink: 0, worker: 0, epoch, committable }
        };
        for epoch in 1..3 {
            assert_eq!(cuts(&leader.step(Event::Tick, epoch as i64 * 1000)), [(epoch, false)]);
            leader.step(report(0, epoch, vec![]), epoch as i64 * 1000);
            leader.step(prepared(epoch), epoch as i64 * 1000);
            leader.step(Event::Passed { epoch }, epoch as i64 * 1000);
        }
        assert!(leader.step(Event::Tick, 9000).is_empty(), "epoch 1 is being committed, 2 waits for it");
        let effects = leader.step(Event::Committed { epoch: 1 }, 9000);
        assert_eq!(cuts(&effects), [(3, false)]);
        assert!(matches!(effects[..], [_, Effect::Commit { epoch: 2, .. }]), "{effects:?}");
    }

    #[test]
    fn a_stop_ends_at_a_cut() {
        let mut leader = Leader::new(facts(1), 0);
        assert_eq!(cuts(&leader.step(Event::Stop, 5)), [(1, false)]);
        leader.step(report(0, 1, vec![]), 6);
        leader.step(prepared(0, 1), 6);
        leader.step(Event::Passed { epoch: 1 }, 6);
        assert_eq!(leader.step(Event::Committed { epoch: 1 }, 7), [Effect::Stopped { epoch: 1 }]);
    }

    #[test]
    fn the_floor_is_the_minimum_of_the_active_splits_and_stands_still_without_one() {
        let mut leader = Leader::new(facts(1), 0);
        let split = |watermark, idle| SplitState {
            watermark,
            idle,
            position: Some(Position::At("1".into())),
            ..SplitState::default()
        };
        leader.step(Event::Tick, 1000);
        leader.step(report(0, 1, vec![(0, split(50, false)), (1, split(10, true))]), 1000);
        leader.step(Event::Passed { epoch: 1 }, 1000);
        let effects = leader.step(Event::Tick, 2000);
        assert!(matches!(&effects[..], [Effect::Cut(cut)] if cut.floor == 50), "{effects:?}");
        leader.step(report(0, 2, vec![(0, split(90, true)), (1, split(10, true))]), 2000);
        assert_eq!(leader.floor, 50);
    }
}
