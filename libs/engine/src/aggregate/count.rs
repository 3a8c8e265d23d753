//! COUNT: rows, or values that are not NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field};

use super::rows::{Rows, state_counts};
use super::{Accumulator, AggregateError};

#[derive(Default)]
pub(super) struct Count {
    counts: Vec<i64>,
}

impl Count {
    fn add(&mut self, slots: &[u32], arg: Option<&ArrayRef>, filter: Option<&BooleanArray>, by: i64) {
        let counts = self.counts.as_mut_slice();
        Rows::new(slots, arg, filter).each(|slot, _| counts[slot] += by);
    }

    fn read(&self, slots: &[u32]) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(slots.iter().map(|&slot| self.counts[slot as usize])))
    }
}

impl Accumulator for Count {
    fn resize(&mut self, slots: usize) {
        self.counts.resize(slots.max(self.counts.len()), 0);
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
        let counts = state_counts(state, 0);
        slots.iter().zip(counts).for_each(|(&slot, count)| self.counts[slot as usize] += count);
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("count", DataType::Int64, false)]
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        vec![self.read(slots)]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        Ok(self.read(slots))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.counts[slot as usize] = 0);
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * size_of::<i64>()
    }
}
