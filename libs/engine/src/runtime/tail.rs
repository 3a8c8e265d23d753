//! The newest rows that came too late and the newest dead letters, for whoever wants to look at some: a bounded number of a bounded size,
//! whatever there is.
//!
//! A worker keeps its newest ones as they are; they become text where they are shown, a few times a second, off the workers' threads.
//! Counters are exact; this is a sample.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::messages::hex;
use crate::operator::LateRows;
use crate::operators::ledger::json_lines;
use crate::source::BadRecord;

/// How many are kept of either kind.
pub const NEWEST: usize = 1000;
/// Bytes of a dead letter's payload, of its message and of a late row that are kept.
pub const PAYLOAD_BYTES: usize = 4096;
/// Bytes of late rows that a stage on a worker keeps until they are looked at, about.
pub const KEPT_BYTES: usize = 4 << 20;

/// What one stage on one worker has put aside since it was looked at.
#[derive(Debug, Default)]
pub struct Tail {
    any: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    late: VecDeque<LateBatch>,
    dead: VecDeque<Letters>,
}

#[derive(Debug)]
struct LateBatch {
    epoch: u64,
    rows: LateRows,
    bytes: usize,
}

/// Records of one split that could not be used.
#[derive(Debug)]
pub struct Letters {
    pub source: Arc<str>,
    pub split: Arc<str>,
    pub records: Vec<BadRecord>,
    /// Whether the positions of the records are known: rows carry them only where something reads them.
    pub numbered: bool,
}

impl Tail {
    pub fn late(&self, epoch: u64, rows: Vec<LateRows>) {
        let batch = |rows: LateRows| LateBatch { epoch, bytes: rows.rows.get_array_memory_size(), rows };
        let mut kept = self.kept.lock().expect("nothing panics while it holds rows");
        kept.late.extend(rows.into_iter().map(batch));
        keep_newest(&mut kept.late, |batch| (batch.rows.rows.num_rows(), batch.bytes));
        self.any.store(true, Relaxed);
    }

    /// The newest of a batch of records that could not be used.
    pub fn dead(&self, mut letters: Letters) {
        letters.records.drain(..letters.records.len().saturating_sub(NEWEST));
        for record in &mut letters.records {
            record.payload.truncate(PAYLOAD_BYTES);
            record.payload.shrink_to_fit();
            cut(&mut record.message);
        }
        let mut kept = self.kept.lock().expect("nothing panics while it holds rows");
        kept.dead.push_back(letters);
        keep_newest(&mut kept.dead, |letters| (letters.records.len(), 0));
        self.any.store(true, Relaxed);
    }

    /// What came since the last call.
    pub fn take(&self) -> Tails {
        let mut tails = Tails::default();
        if !self.any.swap(false, Relaxed) {
            return tails;
        }
        let kept = std::mem::take(&mut *self.kept.lock().expect("nothing panics while it holds rows"));
        for Letters { source, split, records, numbered } in kept.dead {
            tails.dead.extend(records.into_iter().map(|record| DeadRecord {
                source: source.to_string(),
                split: split.to_string(),
                position: numbered.then_some(record.position),
                code: record.code,
                message: record.message,
                payload: record.payload,
            }));
        }
        for LateBatch { epoch, rows, .. } in kept.late {
            // Rows that cannot be written as JSON were counted; there is nothing to show of them.
            let Ok(lines) = json_lines(&rows.rows) else { continue };
            let times = rows.event_times.into_iter().zip(lines);
            tails.late.extend(times.map(|(event_time_us, mut row)| {
                cut(&mut row);
                LateRow { operator: rows.operator.clone(), event_time_us, watermark_us: rows.stamp, epoch, row }
            }));
        }
        tails
    }
}

/// Lets the oldest batches go that are not needed for [`NEWEST`] rows, or are too large together. `size` says rows and bytes.
fn keep_newest<T>(kept: &mut VecDeque<T>, size: impl Fn(&T) -> (usize, usize)) {
    let (mut rows, mut bytes) = kept.iter().map(&size).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    while kept.len() > 1 {
        let oldest = size(&kept[0]);
        if rows - oldest.0 < NEWEST && bytes <= KEPT_BYTES {
            return;
        }
        (rows, bytes) = (rows - oldest.0, bytes - oldest.1);
        kept.pop_front();
    }
}

/// Cuts a text to [`PAYLOAD_BYTES`], between two characters.
fn cut(text: &mut String) {
    if text.len() > PAYLOAD_BYTES {
        text.truncate(text.floor_char_boundary(PAYLOAD_BYTES));
        text.shrink_to_fit();
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

    /// The newest of what came in several places at about the same time, of each its part.
    pub fn together(all: Vec<Tails>) -> Tails {
        let late = part(all.iter().map(|tails| tails.late.len()));
        let dead = part(all.iter().map(|tails| tails.dead.len()));
        let mut newest = Tails::default();
        for mut tails in all {
            newest.late.extend(tails.late.drain(tails.late.len().saturating_sub(late)..));
            newest.dead.extend(tails.dead.drain(tails.dead.len().saturating_sub(dead)..));
        }
        newest
    }

    /// Appends what is newer; the oldest that are too many go.
    pub fn add(&mut self, newer: Tails) {
        self.late.extend(newer.late);
        self.dead.extend(newer.dead);
        trim(&mut self.late, |row| &row.operator);
        trim(&mut self.dead, |record| &record.source);
    }
}

/// Leaves the newest [`NEWEST`], of each name its part: where one has many, those of the others are not pushed out.
fn trim<T>(all: &mut Vec<T>, name: impl Fn(&T) -> &str) {
    if all.len() <= NEWEST {
        return;
    }
    let mut too_many: BTreeMap<String, usize> = BTreeMap::new();
    for one in all.iter() {
        match too_many.get_mut(name(one)) {
            Some(count) => *count += 1,
            None => _ = too_many.insert(name(one).to_string(), 1),
        }
    }
    let part = part(too_many.values().copied());
    too_many.values_mut().for_each(|count| *count = count.saturating_sub(part));
    all.retain(|one| {
        let goes = too_many.get_mut(name(one)).filter(|left| **left > 0);
        goes.map(|left| *left -= 1).is_none()
    });
}

/// How many each may have so that all together have at most [`NEWEST`], if those that have more than that are cut to it; one at least.
fn part(counts: impl Iterator<Item = usize>) -> usize {
    let mut counts: Vec<usize> = counts.collect();
    counts.sort_unstable();
    let mut left = NEWEST;
    for (position, count) in counts.iter().enumerate() {
        let part = left / (counts.len() - position);
        if *count > part {
            return part.max(1);
        }
        left -= count;
    }
    NEWEST
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
    /// As a JSON object: the columns that the operator reads, or all of them where a ledger of it is read. Cut to [`PAYLOAD_BYTES`].
    pub row: String,
}

/// A record that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadRecord {
    pub source: String,
    pub split: String,
    /// Record number within the split, where it is known.
    pub position: Option<i64>,
    pub code: String,
    pub message: String,
    /// Cut to [`PAYLOAD_BYTES`].
    #[serde(with = "hex")]
    pub payload: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};

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
        tail.dead(letters("t", 1));
        let mut tails = tail.take();
        assert_eq!(tails.late.len(), NEWEST);
        let last = tails.late.last().expect("there are some");
        assert_eq!(
            (last.row.as_str(), last.event_time_us, last.epoch, last.watermark_us),
            ("{\"a\":4999}", 4999, 49, 7)
        );
        assert_eq!((tails.dead.len(), tails.dead[0].payload.len()), (1, PAYLOAD_BYTES));
        assert!(tail.take().is_empty());
        tail.late(50, vec![late(5000, 2)]);
        tails.add(tail.take());
        assert_eq!((tails.late.len(), tails.late[0].event_time_us), (NEWEST, 4002));
    }

    #[test]
    fn large_rows_are_fewer_and_cut() {
        let tail = Tail::default();
        let large = |ch: char| {
            let column: ArrayRef = Arc::new(StringArray::from_iter_values([ch.to_string().repeat(300_000)]));
            let rows = RecordBatch::try_from_iter([("a", column)]).expect("one column");
            LateRows { operator: "op".into(), event_times: vec![0], rows, stamp: 7 }
        };
        for _ in 0..50 {
            tail.late(1, vec![large('ü')]);
        }
        let bytes: usize = tail.kept.lock().expect("no panic").late.iter().map(|batch| batch.bytes).sum();
        assert!((KEPT_BYTES / 2..=KEPT_BYTES).contains(&bytes), "{bytes}");
        let tails = tail.take();
        assert!((4..10).contains(&tails.late.len()), "{}", tails.late.len());
        assert!((PAYLOAD_BYTES - 1..=PAYLOAD_BYTES).contains(&tails.late[0].row.len()), "{}", tails.late[0].row.len());
        // One that is too large alone is shown all the same.
        tail.late(2, vec![large('a'), late_of("b", 1)]);
        assert_eq!(tail.take().late.len(), 2);
    }

    #[test]
    fn who_has_few_is_seen_beside_who_has_many() {
        let of = |name: &str, count| {
            let tail = Tail::default();
            tail.late(1, vec![late_of(name, count)]);
            tail.dead(letters(name, count as usize));
            tail.take()
        };
        let seen = |tails: &Tails| {
            let late = |name: &str| tails.late.iter().filter(|row| row.operator == name).count();
            let dead = |name: &str| tails.dead.iter().filter(|record| record.source == name).count();
            ["a", "b", "c"].map(|name| (late(name), dead(name)))
        };
        let all = [(495, 495), (10, 10), (495, 495)];
        let mut tails = Tails::together(vec![of("a", 1000), of("b", 10), of("c", 1000)]);
        assert_eq!(seen(&tails), all);
        tails.add(of("c", 1000));
        assert_eq!(seen(&tails), all);
        tails.add(of("c", 1000));
        assert_eq!(seen(&tails), all);
        assert_eq!(tails.late.last().map(|row| row.event_time_us), Some(999), "the newest are left");
    }

    fn late_of(operator: &str, rows: i64) -> LateRows {
        LateRows { operator: operator.into(), ..late(0, rows) }
    }

    fn letters(source: &str, count: usize) -> Letters {
        let record = BadRecord { position: 3, code: "c".into(), message: "m".into(), payload: vec![b'x'; 9000] };
        Letters { source: source.into(), split: "s".into(), records: vec![record; count], numbered: true }
    }
}
