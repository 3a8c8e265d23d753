//! Counters of a process, per stage and worker: written by workers once per batch, read by whoever shows progress.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::tail::{Tail, Tails};
use super::time::WM_MIN;
use crate::operator::Output;

/// Counters of one stage on one worker.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    rows_in: AtomicU64,
    rows_out: AtomicU64,
    late: AtomicU64,
    partially_late: AtomicU64,
    filtered: AtomicU64,
    dropped: AtomicU64,
    dead: AtomicU64,
    busy_us: AtomicU64,
    watermark: AtomicI64,
    state_bytes: AtomicU64,
    /// Of sources: the time in which they could not send what they had.
    pub pressure: Arc<Pressure>,
    pub tail: Tail,
}

impl OperatorMetrics {
    fn new() -> OperatorMetrics {
        OperatorMetrics { watermark: AtomicI64::new(WM_MIN), ..OperatorMetrics::default() }
    }

    pub fn count(&self, rows: &RowCounts) {
        for (total, more) in [
            (&self.rows_in, rows.rows_in),
            (&self.rows_out, rows.rows_out),
            (&self.late, rows.late),
            (&self.partially_late, rows.partially_late),
            (&self.filtered, rows.filtered),
            (&self.dropped, rows.dropped),
            (&self.dead, rows.dead),
        ] {
            if more > 0 {
                total.fetch_add(more, Relaxed);
            }
        }
    }

    pub fn busy(&self, time: Duration) {
        self.busy_us.fetch_add(time.as_micros() as u64, Relaxed);
    }

    pub fn watermark(&self, watermark: i64) {
        self.watermark.fetch_max(watermark, Relaxed);
    }

    pub fn state_bytes(&self, bytes: usize) {
        self.state_bytes.store(bytes as u64, Relaxed);
    }

    fn counts(&self, elapsed_us: u64) -> SubtaskCounts {
        let busy_us = self.busy_us.load(Relaxed);
        let backpressured_us = self.pressure.total_us();
        SubtaskCounts {
            rows_in: self.rows_in.load(Relaxed),
            rows_out: self.rows_out.load(Relaxed),
            late: self.late.load(Relaxed),
            partially_late: self.partially_late.load(Relaxed),
            filtered: self.filtered.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            dead: self.dead.load(Relaxed),
            busy_us,
            backpressured_us,
            idle_us: elapsed_us.saturating_sub(busy_us).saturating_sub(backpressured_us),
            watermark: self.watermark.load(Relaxed),
            state_bytes: self.state_bytes.load(Relaxed),
        }
    }
}

/// Rows that a stage has taken in, put out and left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RowCounts {
    pub rows_in: u64,
    pub rows_out: u64,
    pub late: u64,
    pub partially_late: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub dead: u64,
}

impl RowCounts {
    pub fn taken(rows: usize) -> RowCounts {
        RowCounts { rows_in: rows as u64, ..RowCounts::default() }
    }

    /// What an operator has put out; its counters begin anew.
    pub fn put_out(out: &mut Output) -> RowCounts {
        let counters = std::mem::take(&mut out.counters);
        RowCounts {
            rows_in: 0,
            rows_out: out.main.iter().map(|batch| batch.num_rows() as u64).sum(),
            late: counters.late,
            partially_late: counters.partially_late,
            filtered: counters.filtered,
            dropped: counters.dropped,
            dead: counters.dead,
        }
    }
}

impl AddAssign for RowCounts {
    fn add_assign(&mut self, more: RowCounts) {
        self.rows_in += more.rows_in;
        self.rows_out += more.rows_out;
        self.late += more.late;
        self.partially_late += more.partially_late;
        self.filtered += more.filtered;
        self.dropped += more.dropped;
        self.dead += more.dead;
    }
}

/// Time in which a source instance was held up, for whatever reasons at once. Costs nothing while there is none.
#[derive(Debug, Default)]
pub struct Pressure(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    reasons: u32,
    since: Option<Instant>,
    total: Duration,
}

impl Pressure {
    /// Held up until the guard is dropped.
    pub fn hold(self: &Arc<Pressure>) -> Holding {
        let mut held = self.0.lock().expect("nothing panics while it counts");
        held.reasons += 1;
        held.since.get_or_insert_with(Instant::now);
        Holding(self.clone())
    }

    fn total_us(&self) -> u64 {
        let held = self.0.lock().expect("nothing panics while it counts");
        let now = held.since.map_or(Duration::ZERO, |since| since.elapsed());
        (held.total + now).as_micros() as u64
    }
}

/// See [`Pressure::hold`].
#[derive(Debug)]
pub struct Holding(Arc<Pressure>);

impl Drop for Holding {
    fn drop(&mut self) {
        let mut held = self.0.0.lock().expect("nothing panics while it counts");
        held.reasons -= 1;
        if held.reasons == 0
            && let Some(since) = held.since.take()
        {
            held.total += since.elapsed();
        }
    }
}

/// The counters of all stages of a process, each on every worker of the process.
#[derive(Debug)]
pub struct Metrics {
    began: Instant,
    /// By stage, then by worker within the process.
    stages: Vec<Vec<Arc<OperatorMetrics>>>,
}

impl Metrics {
    pub fn new(stages: usize, workers: usize) -> Metrics {
        let stage = || (0..workers).map(|_| Arc::new(OperatorMetrics::new())).collect();
        Metrics { began: Instant::now(), stages: (0..stages).map(|_| stage()).collect() }
    }

    /// `worker` counts over all processes, which have as many workers each.
    pub fn subtask(&self, stage: usize, worker: usize) -> Arc<OperatorMetrics> {
        let workers = &self.stages[stage];
        workers[worker % workers.len()].clone()
    }

    /// What stages have put aside since the last call, the newest of each.
    pub fn tails(&self) -> Tails {
        Tails::together(self.stages.iter().flatten().map(|worker| worker.tail.take()).collect())
    }

    /// By stage, then by worker within the process.
    pub fn counts(&self) -> ProcessCounts {
        let elapsed_us = self.began.elapsed().as_micros() as u64;
        let stage = |workers: &Vec<Arc<OperatorMetrics>>| workers.iter().map(|one| one.counts(elapsed_us)).collect();
        self.stages.iter().map(stage).collect()
    }
}

/// What one process has counted: by stage, then by worker.
pub type ProcessCounts = Vec<Vec<SubtaskCounts>>;

/// What a stage has done so far on one worker. As a message, a row of numbers: a process sends all of its own several times a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[i64; 12]", into = "[i64; 12]")]
pub struct SubtaskCounts {
    pub rows_in: u64,
    pub rows_out: u64,
    pub late: u64,
    pub partially_late: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub dead: u64,
    pub busy_us: u64,
    pub backpressured_us: u64,
    pub idle_us: u64,
    /// The watermark applied, microseconds.
    pub watermark: i64,
    pub state_bytes: u64,
}

impl SubtaskCounts {
    pub fn add(&mut self, rows: &RowCounts) {
        self.rows_in += rows.rows_in;
        self.rows_out += rows.rows_out;
        self.late += rows.late;
        self.partially_late += rows.partially_late;
        self.filtered += rows.filtered;
        self.dropped += rows.dropped;
        self.dead += rows.dead;
    }
}

impl Default for SubtaskCounts {
    fn default() -> SubtaskCounts {
        SubtaskCounts::from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, WM_MIN, 0])
    }
}

impl From<[i64; 12]> for SubtaskCounts {
    fn from(row: [i64; 12]) -> SubtaskCounts {
        let [
            rows_in,
            rows_out,
            late,
            partially_late,
            filtered,
            dropped,
            dead,
            busy,
            backpressured,
            idle,
            watermark,
            state,
        ] = row;
        SubtaskCounts {
            rows_in: rows_in as u64,
            rows_out: rows_out as u64,
            late: late as u64,
            partially_late: partially_late as u64,
            filtered: filtered as u64,
            dropped: dropped as u64,
            dead: dead as u64,
            busy_us: busy as u64,
            backpressured_us: backpressured as u64,
            idle_us: idle as u64,
            watermark,
            state_bytes: state as u64,
        }
    }
}

impl From<SubtaskCounts> for [i64; 12] {
    fn from(counts: SubtaskCounts) -> [i64; 12] {
        [
            counts.rows_in as i64,
            counts.rows_out as i64,
            counts.late as i64,
            counts.partially_late as i64,
            counts.filtered as i64,
            counts.dropped as i64,
            counts.dead as i64,
            counts.busy_us as i64,
            counts.backpressured_us as i64,
            counts.idle_us as i64,
            counts.watermark,
            counts.state_bytes as i64,
        ]
    }
}

/// What a stage has done so far, all its workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorCounts {
    pub operator: String,
    pub rows_in: u64,
    pub rows_out: u64,
    /// Rows late for all their windows.
    pub late: u64,
    pub partially_late: u64,
    pub filtered: u64,
    pub dropped: u64,
    pub dead: u64,
    pub busy_us: u64,
    /// The smallest watermark of its workers, microseconds: that is how far the stage is.
    pub watermark: i64,
    pub state_bytes: u64,
}

impl OperatorCounts {
    /// The sum over `subtasks`; the watermark is their minimum.
    pub fn of(operator: &str, subtasks: &[SubtaskCounts]) -> OperatorCounts {
        let sum = |of: fn(&SubtaskCounts) -> u64| subtasks.iter().map(of).sum();
        OperatorCounts {
            operator: operator.to_string(),
            rows_in: sum(|one| one.rows_in),
            rows_out: sum(|one| one.rows_out),
            late: sum(|one| one.late),
            partially_late: sum(|one| one.partially_late),
            filtered: sum(|one| one.filtered),
            dropped: sum(|one| one.dropped),
            dead: sum(|one| one.dead),
            busy_us: sum(|one| one.busy_us),
            watermark: subtasks.iter().map(|one| one.watermark).min().unwrap_or(WM_MIN),
            state_bytes: sum(|one| one.state_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_per_worker_and_a_stage_is_as_far_as_its_slowest() {
        let metrics = Metrics::new(2, 2);
        // Workers 2 and 3 are the first and the second of the second process.
        metrics.subtask(1, 3).count(&RowCounts::taken(5));
        metrics.subtask(1, 3).watermark(70);
        let counts = metrics.counts();
        assert_eq!((counts[1][0].rows_in, counts[1][1].rows_in, counts[0][1].rows_in), (0, 5, 0));
        let stage = OperatorCounts::of("a", &counts[1]);
        assert_eq!((stage.rows_in, stage.watermark), (5, WM_MIN));
        metrics.subtask(1, 2).watermark(90);
        assert_eq!(OperatorCounts::of("a", &metrics.counts()[1]).watermark, 70);
    }

    #[test]
    fn a_message_says_what_was_counted() {
        let counts = SubtaskCounts::from([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, -11, 12]);
        let text = serde_json::to_string(&counts).expect("numbers are JSON");
        assert_eq!(text, "[1,2,3,4,5,6,7,8,9,10,-11,12]");
        let back: SubtaskCounts = serde_json::from_str(&text).expect("it was written here");
        assert_eq!((back, back.idle_us, back.state_bytes), (counts, 10, 12));
    }

    #[test]
    fn two_reasons_at_once_are_one_wait() {
        let pressure = Arc::new(Pressure::default());
        let begun = Instant::now();
        let (one, two) = (pressure.hold(), pressure.hold());
        std::thread::sleep(Duration::from_millis(20));
        drop(one);
        assert!(pressure.total_us() >= 20_000, "a wait that goes on counts");
        drop(two);
        let total = pressure.total_us();
        assert!(total >= 20_000 && total <= begun.elapsed().as_micros() as u64, "{total}");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(pressure.total_us(), total);
    }
}
