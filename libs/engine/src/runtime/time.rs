//! The time of a dataflow: an epoch and a watermark.

use std::fmt;

use serde::{Deserialize, Serialize};
use timely::order::PartialOrder;
use timely::progress::timestamp::{PathSummary, Refines, Timestamp};

/// No watermark yet.
pub const WM_MIN: i64 = i64::MIN;

/// The final watermark: the input has ended.
pub const WM_FINAL: i64 = i64::MAX;

/// Ordered component by component: an epoch says nothing about watermarks, nor the reverse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    pub epoch: u64,
    /// Microseconds since the Unix epoch.
    pub wm: i64,
}

impl Time {
    pub fn new(epoch: u64, wm: i64) -> Time {
        Time { epoch, wm }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wm {
            WM_MIN => write!(f, "({}, none)", self.epoch),
            WM_FINAL => write!(f, "({}, final)", self.epoch),
            wm => write!(f, "({}, {wm})", self.epoch),
        }
    }
}

impl PartialOrder for Time {
    fn less_equal(&self, other: &Time) -> bool {
        self.epoch <= other.epoch && self.wm <= other.wm
    }
}

/// The only path summary: no operator changes a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Unchanged;

impl PartialOrder for Unchanged {
    fn less_equal(&self, _: &Unchanged) -> bool {
        true
    }
}

impl PathSummary<Time> for Unchanged {
    fn results_in(&self, time: &Time) -> Option<Time> {
        Some(*time)
    }

    fn followed_by(&self, _: &Unchanged) -> Option<Unchanged> {
        Some(Unchanged)
    }
}

impl Timestamp for Time {
    type Summary = Unchanged;

    fn minimum() -> Time {
        Time { epoch: 0, wm: WM_MIN }
    }
}

impl Refines<()> for Time {
    fn to_inner(_: ()) -> Time {
        Time::minimum()
    }

    fn to_outer(self) {}

    fn summarize(_: Unchanged) {}
}
