//! Counters of a process: written by workers once per batch, read by whoever shows progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::WM_MIN;
use crate::operator::Output;

/// Counters of one operator over all workers of a process.
#[derive(Debug)]
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
    state_bytes: Vec<AtomicU64>,
}

impl OperatorMetrics {
    fn new(workers: usize) -> OperatorMetrics {
        OperatorMetrics {
            rows_in: AtomicU64::new(0),
            rows_out: AtomicU64::new(0),
            late: AtomicU64::new(0),
            partially_late: AtomicU64::new(0),
            filtered: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            busy_us: AtomicU64::new(0),
            watermark: AtomicI64::new(WM_MIN),
            state_bytes: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub fn rows_in(&self, rows: usize) {
        self.rows_in.fetch_add(rows as u64, Relaxed);
    }

    /// Counts what an operator has put out.
    pub fn count(&self, out: &mut Output) {
        let counters = std::mem::take(&mut out.counters);
        let rows: usize = out.main.iter().map(|batch| batch.num_rows()).sum();
        for (total, more) in [
            (&self.rows_out, rows as u64),
            (&self.late, counters.late),
            (&self.partially_late, counters.partially_late),
            (&self.filtered, counters.filtered),
            (&self.dropped, counters.dropped),
            (&self.dead, counters.dead),
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

    pub fn state_bytes(&self, worker: usize, bytes: usize) {
        self.state_bytes[worker % self.state_bytes.len()].store(bytes as u64, Relaxed);
    }
}

/// The counters of all operators of a process.
#[derive(Debug)]
pub struct Metrics {
    operators: Vec<(String, Arc<OperatorMetrics>)>,
}

impl Metrics {
    /// One entry per stage, under its operator's id.
    pub fn new(operators: impl IntoIterator<Item = String>, workers: usize) -> Metrics {
        Metrics { operators: operators.into_iter().map(|id| (id, Arc::new(OperatorMetrics::new(workers)))).collect() }
    }

    pub fn stage(&self, position: usize) -> Arc<OperatorMetrics> {
        self.operators[position].1.clone()
    }

    pub fn counts(&self) -> Vec<OperatorCounts> {
        let read = |(id, metrics): &(String, Arc<OperatorMetrics>)| OperatorCounts {
            operator: id.clone(),
            rows_in: metrics.rows_in.load(Relaxed),
            rows_out: metrics.rows_out.load(Relaxed),
            late: metrics.late.load(Relaxed),
            partially_late: metrics.partially_late.load(Relaxed),
            filtered: metrics.filtered.load(Relaxed),
            dropped: metrics.dropped.load(Relaxed),
            dead: metrics.dead.load(Relaxed),
            busy_us: metrics.busy_us.load(Relaxed),
            watermark: metrics.watermark.load(Relaxed),
            state_bytes: metrics.state_bytes.iter().map(|bytes| bytes.load(Relaxed)).sum(),
        };
        self.operators.iter().map(read).collect()
    }
}

/// What an operator has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The largest watermark that any worker has applied, microseconds.
    pub watermark: i64,
    pub state_bytes: u64,
}

/// Adds up the counts of several processes, stage by stage.
pub fn merge_counts(processes: &BTreeMap<usize, Vec<OperatorCounts>>) -> Vec<OperatorCounts> {
    let mut total: Vec<OperatorCounts> = Vec::new();
    for counts in processes.values() {
        for (position, count) in counts.iter().enumerate() {
            let Some(sum) = total.get_mut(position) else {
                total.push(count.clone());
                continue;
            };
            sum.rows_in += count.rows_in;
            sum.rows_out += count.rows_out;
            sum.late += count.late;
            sum.partially_late += count.partially_late;
            sum.filtered += count.filtered;
            sum.dropped += count.dropped;
            sum.dead += count.dead;
            sum.busy_us += count.busy_us;
            sum.state_bytes += count.state_bytes;
            sum.watermark = sum.watermark.max(count.watermark);
        }
    }
    total
}
