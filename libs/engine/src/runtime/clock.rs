//! The watermarks of one source instance: per split, merged by minimum, with idleness. Pure: the wall clock is an argument.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::time::{WM_FINAL, WM_MIN};
use crate::plan::SourceTime;
use crate::source::{Position, SplitStart};

/// What is known of a split: its position, and how far its event time has come. This is the state of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitState {
    pub position: Option<Position>,
    /// The largest event time seen, microseconds.
    pub max_time_us: Option<i64>,
    /// Never falls.
    pub watermark: i64,
    pub idle: bool,
    /// Records read so far: rows, bad ones included.
    pub read: u64,
    /// Records from the position to the end of the split, where its reader says so now and then.
    #[serde(default)]
    pub lag: Option<u64>,
    /// It was ended from outside, at its position.
    #[serde(default)]
    pub drained: bool,
    /// It did not exist when the splits were listed, and nothing has come of it yet.
    #[serde(default)]
    pub absent: bool,
}

impl Default for SplitState {
    fn default() -> SplitState {
        SplitState {
            position: None,
            max_time_us: None,
            watermark: WM_MIN,
            idle: false,
            read: 0,
            lag: None,
            drained: false,
            absent: false,
        }
    }
}

impl SplitState {
    pub fn ended(&self) -> bool {
        self.drained || self.position == Some(Position::End)
    }
}

/// The splits of one instance.
pub struct SourceClock {
    splits: BTreeMap<u32, Split>,
    rule: Rule,
    idle_timeout_us: Option<i64>,
    /// The instance's watermark; never falls.
    watermark: i64,
    floor: i64,
}

struct Split {
    state: SplitState,
    /// Proved lower bound of its event times.
    min_time_us: Option<i64>,
    /// Since when it is silent; before the first look nobody could have heard it.
    last_event_us: Option<i64>,
}

/// Where watermarks come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// No time attribute: none until the final one.
    None,
    /// Unbounded run: behind the largest time seen.
    Disorder { delay_us: i64, unit_us: i64 },
    /// Bounded run: only what is proved, so that no row is ever late.
    Proved { unit_us: i64 },
}

impl SourceClock {
    /// `begin` is the watermark to start from: that of the checkpoint restored, or none.
    pub fn new(
        time: Option<&SourceTime>,
        bounded: bool,
        splits: &[(SplitStart, SplitState)],
        begin: i64,
    ) -> SourceClock {
        let rule = match time {
            None => Rule::None,
            Some(time) if bounded => Rule::Proved { unit_us: time.unit_us },
            Some(time) => Rule::Disorder { delay_us: time.delay_us, unit_us: time.unit_us },
        };
        let splits = splits
            .iter()
            .map(|(start, state)| {
                // What was silent may have got records since.
                let state = SplitState { idle: state.idle && state.absent, ..state.clone() };
                (start.number, Split { state, min_time_us: start.split.min_time_us, last_event_us: None })
            })
            .collect();
        // In a bounded run a split that waits for its turn is no idle split.
        let idle_timeout_us = time.and_then(|time| time.idle_timeout_us).filter(|_| !bounded);
        SourceClock { splits, rule, idle_timeout_us, watermark: begin, floor: WM_MIN }
    }

    /// Rows of a split were sent (or records were found bad); `max_time_us` is the largest event time among them, if any.
    pub fn rows(&mut self, number: u32, max_time_us: Option<i64>, records: u64, next: Position, now_us: i64) {
        let rule = self.rule;
        let split = self.split(number);
        split.last_event_us = Some(now_us);
        split.state.idle = false;
        split.state.absent = false;
        split.state.position = Some(next);
        split.state.read += records;
        split.state.lag = split.state.lag.map(|lag| lag.saturating_sub(records));
        split.state.max_time_us = split.state.max_time_us.max(max_time_us);
        if let (Rule::Disorder { delay_us, unit_us }, Some(max)) = (rule, split.state.max_time_us) {
            split.state.watermark = split.state.watermark.max(max.saturating_sub(delay_us).saturating_sub(unit_us));
        }
    }

    pub fn idle(&mut self, number: u32) {
        if self.idle_timeout_us.is_some() {
            self.watermark();
            self.split(number).state.idle = true;
        }
    }

    /// The split does not exist yet: whether or not splits may be idle, it is.
    pub fn absent(&mut self, number: u32) {
        self.split(number).state.idle = true;
    }

    /// The reader knows how many records are left.
    pub fn lag(&mut self, number: u32, records: u64) {
        let state = &mut self.split(number).state;
        state.lag = Some(records);
        state.idle &= records == 0 || state.absent;
    }

    pub fn ended(&mut self, number: u32) {
        let split = self.split(number);
        split.state.position = Some(Position::End);
        split.state.watermark = WM_FINAL;
        split.state.idle = false;
        split.state.lag = split.state.lag.map(|_| 0);
    }

    /// Ends all splits where they are: no further rows will be asked for.
    pub fn drain(&mut self) {
        for split in self.splits.values_mut() {
            split.state.watermark = WM_FINAL;
            split.state.drained = true;
        }
    }

    /// The leader's minimum over the active splits of the run.
    pub fn set_floor(&mut self, floor: i64) {
        self.floor = self.floor.max(floor);
    }

    /// Whether every split has ended. An instance without splits is finished: it can never get one.
    pub fn finished(&self) -> bool {
        self.splits.values().all(|split| split.state.ended())
    }

    /// Marks splits idle that were silent for the timeout, and of which nothing is known to be left to read. Returns when to look again,
    /// microseconds from now.
    ///
    /// What the splits have come to together is kept first: the last one to fall idle takes its part of the minimum with it.
    pub fn look(&mut self, now_us: i64) -> Option<i64> {
        let timeout = self.idle_timeout_us?;
        self.watermark();
        let mut next = None;
        for split in self.splits.values_mut().filter(|split| !split.state.ended() && !split.state.idle) {
            if split.state.lag.is_some_and(|records| records > 0) {
                split.last_event_us = Some(now_us);
            }
            let left = split.last_event_us.get_or_insert(now_us).saturating_add(timeout) - now_us;
            if left <= 0 {
                split.state.idle = true;
            } else {
                next = Some(next.map_or(left, |next: i64| next.min(left)));
            }
        }
        next
    }

    /// The watermark that the instance may show now; never falls.
    pub fn watermark(&mut self) -> i64 {
        let rule = self.rule;
        let active = self.splits.values().filter(|split| !split.state.ended() && !split.state.idle);
        let min = active
            .map(|split| match rule {
                Rule::Proved { unit_us } => split.min_time_us.map_or(WM_MIN, |min| min.saturating_sub(unit_us)),
                Rule::None | Rule::Disorder { .. } => split.state.watermark,
            })
            .min();
        let now = match min {
            Some(min) => min,
            None if self.finished() => WM_FINAL,
            None => self.floor,
        };
        self.watermark = self.watermark.max(now);
        self.watermark
    }

    /// The splits as of now: what a cut reports and a checkpoint keeps.
    pub fn states(&self) -> Vec<(u32, SplitState)> {
        self.splits.iter().map(|(number, split)| (*number, split.state.clone())).collect()
    }

    /// The proved lower bound of a split, where the run relies on it.
    pub fn proved(&self, number: u32) -> Option<i64> {
        match self.rule {
            Rule::Proved { .. } => self.splits.get(&number).and_then(|split| split.min_time_us),
            Rule::None | Rule::Disorder { .. } => None,
        }
    }

    fn split(&mut self, number: u32) -> &mut Split {
        self.splits.get_mut(&number).expect("a reader speaks only of the splits that it was given")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_that_do_not_exist_yet_hold_nothing_back() {
        let mut clock = clock(false, None, &[None, None]);
        clock.split(1).state.absent = true;
        clock.rows(0, Some(1_000), 1, Position::At("1".into()), 0);
        assert_eq!(clock.watermark(), WM_MIN);
        clock.absent(1);
        assert!(clock.states()[1].1.absent);
        let alone = clock.watermark();
        assert!(alone > WM_MIN && !clock.finished());
        clock.rows(1, Some(5_000), 1, Position::At("1".into()), 0);
        assert_eq!(clock.watermark(), alone, "the new split counts from its first row on");
        assert!(!clock.states()[1].1.absent);
        clock.rows(0, Some(9_000), 1, Position::At("2".into()), 0);
        assert!(clock.watermark() > alone);
    }

    fn clock(bounded: bool, idle: Option<i64>, mins: &[Option<i64>]) -> SourceClock {
        let time = SourceTime {
            column: 0,
            judged: true,
            read_column: None,
            unit_us: 1000,
            delay_us: 5000,
            idle_timeout_us: idle,
            max_ahead_us: None,
            on_null: Default::default(),
        };
        let split = |(number, min): (usize, &Option<i64>)| {
            let split = crate::Split {
                id: number.to_string(),
                spec: serde_json::Value::Null,
                min_time_us: *min,
                rows: None,
                bytes: None,
            };
            (SplitStart { number: number as u32, split, position: None }, SplitState::default())
        };
        SourceClock::new(Some(&time), bounded, &mins.iter().enumerate().map(split).collect::<Vec<_>>(), WM_MIN)
    }

    fn at(text: &str) -> Position {
        Position::At(text.into())
    }

    #[test]
    fn the_minimum_over_splits_counts_and_never_falls() {
        let mut clock = clock(false, None, &[None, None]);
        clock.rows(0, Some(100_000), 1, at("1"), 0);
        assert_eq!(clock.watermark(), WM_MIN);
        clock.rows(1, Some(50_000), 1, at("1"), 0);
        assert_eq!(clock.watermark(), 50_000 - 5000 - 1000);
        clock.rows(1, Some(10_000), 1, at("2"), 0);
        assert_eq!(clock.watermark(), 44_000);
        clock.ended(1);
        assert_eq!(clock.watermark(), 94_000);
        clock.ended(0);
        assert_eq!((clock.watermark(), clock.finished()), (WM_FINAL, true));
    }

    #[test]
    fn an_idle_split_leaves_the_minimum_and_returns() {
        let mut clock = clock(false, Some(10), &[None, None]);
        assert_eq!(clock.look(0), Some(10));
        clock.rows(0, Some(100_000), 1, at("1"), 5);
        assert_eq!(clock.look(10), Some(5));
        assert_eq!(clock.watermark(), 94_000, "split 1 is idle since 10");
        clock.rows(1, Some(20_000), 1, at("1"), 12);
        assert_eq!(clock.watermark(), 94_000, "its rows are stamped with what was shown");
        assert_eq!(clock.look(30), None);
        clock.set_floor(90_000);
        assert_eq!(clock.watermark(), 94_000, "all idle: the floor, never final");
        clock.set_floor(120_000);
        assert_eq!(clock.watermark(), 120_000);
    }

    #[test]
    fn a_split_with_records_left_is_not_idle_however_long_they_take() {
        let mut clock = clock(false, Some(10), &[None, None]);
        clock.rows(0, Some(100_000), 1, at("1"), 5);
        clock.look(7);
        assert_eq!(clock.look(20), None, "both are idle");
        clock.lag(1, 2);
        clock.lag(0, 0);
        assert_eq!(clock.look(40), Some(10), "the other one still is");
        assert_eq!(clock.watermark(), WM_MIN, "older rows may come of those that are left");
        clock.rows(1, Some(20_000), 2, at("2"), 45);
        assert_eq!((clock.look(50), clock.watermark()), (Some(5), 14_000));
        assert_eq!(clock.look(55), None, "all of it was read, and then it was silent");
    }

    #[test]
    fn what_was_reached_is_not_lost_when_all_fall_idle() {
        let mut told = clock(false, Some(10), &[None]);
        told.rows(0, Some(100_000), 1, at("1"), 5);
        told.idle(0);
        assert_eq!(told.watermark(), 94_000, "its reader said so");
        let mut silent = clock(false, Some(10), &[None]);
        silent.rows(0, Some(100_000), 1, at("1"), 5);
        silent.look(20);
        assert_eq!(silent.watermark(), 94_000, "it was silent");
    }

    #[test]
    fn a_bounded_run_shows_only_what_is_proved() {
        let mut unproved = clock(true, None, &[None, Some(7000)]);
        unproved.rows(0, Some(100_000), 1, at("1"), 0);
        assert_eq!(unproved.watermark(), WM_MIN);
        let mut proved = clock(true, None, &[Some(2000), Some(7000)]);
        proved.rows(0, Some(9_000), 1, at("1"), 0);
        assert_eq!(proved.watermark(), 1000);
        proved.ended(0);
        assert_eq!(proved.watermark(), 6000, "the splits not read yet count");
    }

    #[test]
    fn an_instance_without_splits_is_finished() {
        let mut clock = clock(false, None, &[]);
        assert_eq!((clock.finished(), clock.watermark()), (true, WM_FINAL));
    }
}
