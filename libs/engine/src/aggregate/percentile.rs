//! APPROX_PERCENTILE: a DDSketch per group. The result is within 1 % of a value whose rank is `fraction * (rows - 1)`, rounded down.
//!
//! Positive values share a bucket when they have the same `ceil(log(value) / log(1.01 / 0.99))`; negative ones mirror them; zero has its
//! own. Buckets never collapse, so the result depends on the rows alone, states add up and rows can be taken back.
//! NaN is the largest value. No values that are not NULL: NULL.
//! Source: C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type};

use super::AggregateError;
use super::multiset::{each_entry, entry_item, list_of};
use super::rows::{Rows, as_result};
use super::slots::{Function, Picked};

const ERROR: f64 = 0.01;
const GAMMA: f64 = (1.0 + ERROR) / (1.0 - ERROR);
/// Added to the index of positive values (which is within 40,000 of 0), so that bucket numbers are in the order of the values.
const OFFSET: i32 = 100_000;
const INFINITE: i32 = 200_000;
const NAN: i32 = 200_001;

fn bucket(value: f64, per_log: f64) -> i32 {
    match value {
        0.0 => 0,
        _ if value.is_nan() => NAN,
        _ if value.is_infinite() => INFINITE * value.signum() as i32,
        _ => ((value.abs().ln() * per_log).ceil() as i32 + OFFSET) * value.signum() as i32,
    }
}

fn middle(bucket: i32) -> f64 {
    match bucket {
        0 => 0.0,
        NAN => f64::NAN,
        _ if bucket.abs() == INFINITE => f64::INFINITY * f64::from(bucket.signum()),
        // By the logarithm, because GAMMA to the power of the largest index is infinite before it is scaled.
        _ => {
            let index = f64::from(bucket.abs() - OFFSET);
            (index * GAMMA.ln() + (2.0 / (GAMMA + 1.0)).ln()).exp() * f64::from(bucket.signum())
        }
    }
}

/// (bucket, count), ordered by bucket. A count is never zero; below zero only in a partial state.
type Sketch = Vec<(i32, i64)>;

pub(super) struct Percentile {
    fraction: f64,
    result: DataType,
    /// Over all groups.
    buckets: usize,
}

impl Percentile {
    /// `fraction` is from 0 to 1.
    pub fn new(fraction: f64, result: DataType) -> Self {
        Self { fraction, result, buckets: 0 }
    }

    fn count(&mut self, sketch: &mut Sketch, bucket: i32, by: i64) {
        match sketch.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(at) => {
                sketch[at].1 += by;
                if sketch[at].1 == 0 {
                    sketch.remove(at);
                    self.buckets -= 1;
                }
            }
            Err(at) => {
                sketch.insert(at, (bucket, by));
                self.buckets += 1;
            }
        }
    }

    fn result(&self, sketch: &Sketch) -> Option<f64> {
        let rows: i64 = sketch.iter().map(|entry| entry.1).sum();
        let rank = (self.fraction * (rows - 1) as f64).floor() as i64;
        let mut below = 0;
        let at = sketch.iter().find(|entry| {
            below += entry.1;
            below > rank
        });
        at.map(|entry| middle(entry.0))
    }

    fn entry_fields() -> Fields {
        vec![Field::new("bucket", DataType::Int32, false), Field::new("count", DataType::Int64, false)].into()
    }
}

impl Function for Percentile {
    type Group = Sketch;

    fn change(&mut self, groups: &mut [Sketch], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        let per_log = 1.0 / GAMMA.ln();
        rows.each_double(|slot, value| self.count(&mut groups[slot], bucket(value, per_log), by));
        Ok(())
    }

    fn merge(&mut self, groups: &mut [Sketch], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let entries = state[0].as_list::<i32>().values().as_struct();
        let buckets = entries.column(0).as_primitive::<Int32Type>().values();
        let counts = entries.column(1).as_primitive::<Int64Type>().values();
        each_entry(slots, &state[0], |slot, entry| self.count(&mut groups[slot], buckets[entry], counts[entry]));
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("buckets", DataType::List(entry_item(Self::entry_fields())), false)]
    }

    fn state(&self, groups: Picked<Sketch>) -> Vec<ArrayRef> {
        let buckets = Int32Array::from_iter_values(groups.iter().flatten().map(|entry| entry.0));
        let counts = Int64Array::from_iter_values(groups.iter().flatten().map(|entry| entry.1));
        vec![list_of(Self::entry_fields(), vec![Arc::new(buckets), Arc::new(counts)], groups.iter().map(Vec::len))]
    }

    fn value(&self, groups: Picked<Sketch>) -> Result<ArrayRef, AggregateError> {
        let results = groups.results::<Float64Type>(|sketch| self.result(sketch));
        as_result(&results, &self.result, "approx_percentile")
    }

    fn forget(&mut self, sketch: Sketch) {
        self.buckets -= sketch.len();
    }

    fn heap_bytes(&self) -> usize {
        self.buckets * size_of::<(i32, i64)>()
    }
}
