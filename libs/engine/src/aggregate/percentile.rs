//! APPROX_PERCENTILE: a DDSketch per group. The result is within 1 % of a value whose rank is `fraction * (rows - 1)`, rounded down.
//!
//! Positive values share a bucket when they have the same `ceil(log(value) / log(1.01 / 0.99))`; negative ones mirror them; zero has its
//! own. Buckets never collapse, so the result depends on the rows alone, states add up and rows can be taken back.
//! NaN is the largest value. No values that are not NULL: NULL.
//! Source: C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type};

use super::multiset::{entry_item, list_of};
use super::rows::{Rows, argument, as_result, doubles};
use super::{Accumulator, AggregateError};

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

pub(super) struct Percentile {
    fraction: f64,
    result: DataType,
    /// By slot: (bucket, count), ordered by bucket. A count is never zero; below zero only in a partial state.
    groups: Vec<Vec<(i32, i64)>>,
    /// Buckets over all groups.
    buckets: usize,
}

impl Percentile {
    /// `fraction` is from 0 to 1.
    pub fn new(fraction: f64, result: DataType) -> Self {
        Self { fraction, result, groups: Vec::new(), buckets: 0 }
    }

    fn count(&mut self, slot: usize, bucket: i32, by: i64) {
        let group = &mut self.groups[slot];
        match group.binary_search_by_key(&bucket, |entry| entry.0) {
            Ok(at) => {
                group[at].1 += by;
                if group[at].1 == 0 {
                    group.remove(at);
                    self.buckets -= 1;
                }
            }
            Err(at) => {
                group.insert(at, (bucket, by));
                self.buckets += 1;
            }
        }
    }

    fn add(&mut self, slots: &[u32], arg: Option<&ArrayRef>, filter: Option<&BooleanArray>, by: i64) {
        let arg = doubles(argument(arg));
        let per_log = 1.0 / GAMMA.ln();
        let values = arg.as_primitive::<Float64Type>().values();
        Rows::new(slots, Some(&arg), filter)
            .each_value(values, |slot, value| self.count(slot, bucket(value, per_log), by));
    }

    fn result(&self, slot: u32) -> Option<f64> {
        let group = &self.groups[slot as usize];
        let rows: i64 = group.iter().map(|entry| entry.1).sum();
        let rank = (self.fraction * (rows - 1) as f64).floor() as i64;
        let mut below = 0;
        let at = group.iter().find(|entry| {
            below += entry.1;
            below > rank
        });
        at.map(|entry| middle(entry.0))
    }

    fn entry_fields() -> Fields {
        vec![Field::new("bucket", DataType::Int32, false), Field::new("count", DataType::Int64, false)].into()
    }
}

impl Accumulator for Percentile {
    fn resize(&mut self, slots: usize) {
        self.groups.resize(slots.max(self.groups.len()), Vec::new());
    }

    fn update(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        _time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.add(slots, arg, filter, 1);
        Ok(())
    }

    fn retract(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        _time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.add(slots, arg, filter, -1);
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let list = state[0].as_list::<i32>();
        let entries = list.values().as_struct();
        let buckets = entries.column(0).as_primitive::<Int32Type>().values();
        let counts = entries.column(1).as_primitive::<Int64Type>().values();
        for (&slot, range) in slots.iter().zip(list.offsets().windows(2)) {
            for entry in range[0] as usize..range[1] as usize {
                self.count(slot as usize, buckets[entry], counts[entry]);
            }
        }
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("buckets", DataType::List(entry_item(Self::entry_fields())), false)]
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let groups = || slots.iter().map(|&slot| &self.groups[slot as usize]);
        let buckets = Int32Array::from_iter_values(groups().flatten().map(|entry| entry.0));
        let counts = Int64Array::from_iter_values(groups().flatten().map(|entry| entry.1));
        vec![list_of(Self::entry_fields(), vec![Arc::new(buckets), Arc::new(counts)], groups().map(Vec::len))]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        let results: ArrayRef = Arc::new(Float64Array::from_iter(slots.iter().map(|&slot| self.result(slot))));
        as_result(&results, &self.result, "approx_percentile")
    }

    fn clear(&mut self, slots: &[u32]) {
        for &slot in slots {
            self.buckets -= std::mem::take(&mut self.groups[slot as usize]).len();
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Vec<(i32, i64)>>() + self.buckets * size_of::<(i32, i64)>()
    }
}
