//! Rows that are only added, in the order of their arrival; the oldest go.

use std::collections::VecDeque;

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::SchemaRef;

use crate::chunk::{CHUNK_BYTES, CHUNK_ROWS, Chunk, bytes};
use crate::definition::Retention;
use crate::error::ViewError;

pub struct Appended {
    schema: SchemaRef,
    retention: Retention,
    parts: VecDeque<Part>,
    /// Rows of each epoch that are still there, and when they arrived; for the retention by age.
    arrivals: VecDeque<(u64, i64)>,
    rows: u64,
    dropped: u64,
}

struct Part {
    rows: RecordBatch,
    /// Rows in the memory behind `rows`: what it was made with.
    held_rows: usize,
    /// Bytes of those.
    bytes: u64,
}

impl Part {
    fn new(rows: RecordBatch) -> Part {
        Part { held_rows: rows.num_rows(), bytes: bytes(&rows), rows }
    }
}

impl Appended {
    pub fn new(schema: SchemaRef, retention: Retention) -> Appended {
        let (parts, arrivals) = (VecDeque::new(), VecDeque::new());
        Appended { schema, retention, parts, arrivals, rows: 0, dropped: 0 }
    }

    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Before what is here was dropped so much.
    pub fn has_dropped(&mut self, rows: u64) {
        self.dropped += rows;
    }

    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    pub fn chunks(&self) -> Vec<Chunk> {
        self.parts.iter().map(|part| Chunk::full(part.rows.clone())).collect()
    }

    /// The rows of an epoch that ended at `at_us`.
    pub fn apply<'a>(&mut self, batches: impl Iterator<Item = &'a RecordBatch>, at_us: i64) -> Result<(), ViewError> {
        let before = self.rows;
        for rows in batches.filter(|rows| rows.num_rows() > 0) {
            self.rows += rows.num_rows() as u64;
            self.parts.push_back(Part::new(rows.clone()));
            self.join_last()?;
        }
        if self.rows > before && self.retention.age_us.is_some() {
            self.arrivals.push_back((self.rows - before, at_us));
        }
        let mut excess = self.rows.saturating_sub(self.retention.rows);
        if let Some(age_us) = self.retention.age_us {
            let old = self.arrivals.iter().take_while(|(_, at)| at.saturating_add(age_us) < at_us);
            excess = excess.max(old.map(|(rows, _)| rows).sum());
        }
        self.drop_oldest(excess)
    }

    /// Like a binary counter: parts shrink towards the end, so there are few, and a row is copied few times.
    fn join_last(&mut self) -> Result<(), ViewError> {
        while let [.., _, _] = self.parts.make_contiguous() {
            let at = self.parts.len() - 2;
            let (last, other) = (&self.parts[at + 1], &self.parts[at]);
            let sum = last.rows.num_rows() + other.rows.num_rows();
            let bytes = last.bytes + other.bytes;
            if other.rows.num_rows() > 2 * last.rows.num_rows() || sum > CHUNK_ROWS || bytes > CHUNK_BYTES {
                break;
            }
            let joined = concat_batches(&self.schema, [&other.rows, &last.rows])?;
            self.parts.truncate(at);
            self.parts.push_back(Part::new(joined));
        }
        Ok(())
    }

    fn drop_oldest(&mut self, mut excess: u64) -> Result<(), ViewError> {
        self.dropped += excess;
        self.rows -= excess;
        let mut arrived = excess;
        while let Some((rows, _)) = self.arrivals.front_mut().filter(|_| arrived > 0) {
            let gone = arrived.min(*rows);
            (*rows, arrived) = (*rows - gone, arrived - gone);
            if *rows == 0 {
                self.arrivals.pop_front();
            }
        }
        while excess > 0 {
            let first = self.parts.front_mut().expect("no more rows go than there are");
            let rows = first.rows.num_rows();
            if rows as u64 <= excess {
                excess -= rows as u64;
                self.parts.pop_front();
                continue;
            }
            first.rows = first.rows.slice(excess as usize, rows - excess as usize);
            if first.rows.num_rows() * 2 < first.held_rows {
                // A slice holds the memory of the rows that have gone.
                let all = UInt64Array::from_iter_values(0..first.rows.num_rows() as u64);
                *first = Part::new(take_record_batch(&first.rows, &all)?);
            }
            excess = 0;
        }
        Ok(())
    }
}
