//! The newest rows that came too late and the newest dead letters, for whoever wants to look at some: a bounded number, whatever there is.
//!
//! A worker keeps its newest ones as they are; they become text where they are shown, a few times a second, off the workers' threads.
//! Counters are exact; this is a sample.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use super::messages::hex;
use crate::operator::LateRows;
use crate::operators::ledger::json_lines;
use crate::source::BadRecord;

/// How many are kept of either kind.
pub const NEWEST: usize = 1000;
/// Bytes of a dead letter's payload that are kept.
pub const PAYLOAD_BYTES: usize = 4096;

/// What one stage on one worker has put aside since it was looked at.
#[derive(Debug, Default)]
pub struct Tail {
    any: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    late: VecDeque<(u64, LateRows)>,
    dead: VecDeque<DeadRecord>,
}

impl Tail {
    pub fn late(&self, epoch: u64, rows: Vec<LateRows>) {
        let mut kept = self.kept.lock().expect("nothing panics while it holds rows");
        kept.late.extend(rows.into_iter().map(|rows| (epoch, rows)));
        let mut count: usize = kept.late.iter().map(|(_, rows)| rows.rows.num_rows()).sum();
        while let Some((_, oldest)) = kept.late.front()
            && count - oldest.rows.num_rows() >= NEWEST
        {
            count -= oldest.rows.num_rows();
            kept.late.pop_front();
        }
        self.any.store(true, Relaxed);
    }

    /// The newest of a batch of records that could not be used.
    pub fn dead(&self, source: &str, split: &str, records: &[BadRecord]) {
        let mut kept = self.kept.lock().expect("nothing panics while it holds rows");
        let newest = &records[records.len().saturating_sub(NEWEST)..];
        kept.dead.extend(newest.iter().map(|record| DeadRecord {
            source: source.to_string(),
            split: split.to_string(),
            position: record.position,
            code: record.code.clone(),
            message: record.message.clone(),
            payload: record.payload[..record.payload.len().min(PAYLOAD_BYTES)].to_vec(),
        }));
        let too_many = kept.dead.len().saturating_sub(NEWEST);
        kept.dead.drain(..too_many);
        self.any.store(true, Relaxed);
    }

    /// Adds to `tails` what came since the last call.
    pub fn take(&self, tails: &mut Tails) {
        if !self.any.swap(false, Relaxed) {
            return;
        }
        let kept = std::mem::take(&mut *self.kept.lock().expect("nothing panics while it holds rows"));
        tails.dead.extend(kept.dead);
        for (epoch, rows) in kept.late {
            // Rows that cannot be written as JSON were counted; there is nothing to show of them.
            let Ok(lines) = json_lines(&rows.rows) else { continue };
            let times = rows.event_times.into_iter().zip(lines);
            tails.late.extend(times.map(|(event_time_us, row)| LateRow {
                operator: rows.operator.clone(),
                event_time_us,
                watermark_us: rows.stamp,
                epoch,
                row,
            }));
        }
    }
}

/// Newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tails {
    pub late: Vec<LateRow>,
    pub dead: Vec<DeadRecord>,
}

impl Tails {
    pub fn is_empty(&self) -> bool {
        self.late.is_empty() && self.dead.is_empty()
    }

    /// Appends what is newer; the oldest that are too many go.
    pub fn add(&mut self, newer: Tails) {
        self.late.extend(newer.late);
        self.dead.extend(newer.dead);
        self.trim();
    }

    pub fn trim(&mut self) {
        self.late.drain(..self.late.len().saturating_sub(NEWEST));
        self.dead.drain(..self.dead.len().saturating_sub(NEWEST));
    }
}

/// A row that came too late for some of its windows, or all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateRow {
    pub operator: String,
    /// Microseconds, as the watermark that it was late by.
    pub event_time_us: i64,
    pub watermark_us: i64,
    /// The epoch in which it came.
    pub epoch: u64,
    /// As a JSON object: the columns that the operator reads, or all of them where a ledger of it is read.
    pub row: String,
}

/// A record that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadRecord {
    pub source: String,
    pub split: String,
    /// Record number within the split.
    pub position: i64,
    pub code: String,
    pub message: String,
    /// Cut to [`PAYLOAD_BYTES`].
    #[serde(with = "hex")]
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    fn late(from: i64, rows: i64) -> LateRows {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows));
        let rows = RecordBatch::try_from_iter([("a", column)]).expect("one column");
        LateRows { operator: "op".into(), event_times: (from..from + rows.num_rows() as i64).collect(), rows, stamp: 7 }
    }

    #[test]
    fn the_newest_are_kept_and_shown_once() {
        let tail = Tail::default();
        for batch in 0..50 {
            tail.late(batch as u64, vec![late(batch * 100, 100)]);
        }
        tail.dead(
            "t",
            "s",
            &[BadRecord { position: 3, code: "c".into(), message: "m".into(), payload: vec![b'x'; 9000] }],
        );
        let mut tails = Tails::default();
        tail.take(&mut tails);
        assert_eq!(tails.late.len(), NEWEST);
        let last = tails.late.last().expect("there are some");
        assert_eq!(
            (last.row.as_str(), last.event_time_us, last.epoch, last.watermark_us),
            ("{\"a\":4999}", 4999, 49, 7)
        );
        assert_eq!((tails.dead.len(), tails.dead[0].payload.len()), (1, PAYLOAD_BYTES));
        let mut again = Tails::default();
        tail.take(&mut again);
        assert!(again.is_empty());
        tail.late(50, vec![late(5000, 2)]);
        tail.take(&mut again);
        tails.add(again);
        assert_eq!((tails.late.len(), tails.late[0].event_time_us), (NEWEST, 4002));
    }
}
