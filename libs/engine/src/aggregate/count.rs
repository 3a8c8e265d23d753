//! COUNT: rows, or values that are not NULL.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Int64Type};

use super::AggregateError;
use super::rows::{Rows, state_counts};
use super::slots::{Function, Picked};

pub(super) struct Count;

impl Function for Count {
    type Group = i64;

    #[inline(always)]
    fn change(&mut self, groups: &mut [i64], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        rows.each(|slot, _| groups[slot] += by);
        Ok(())
    }

    fn merge(&mut self, groups: &mut [i64], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        slots.iter().zip(state_counts(state, 0)).for_each(|(&slot, count)| groups[slot as usize] += count);
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("count", DataType::Int64, false)]
    }

    fn state(&self, groups: Picked<i64>) -> Vec<ArrayRef> {
        vec![groups.column::<Int64Type>(|count| *count)]
    }

    fn value(&self, groups: Picked<i64>) -> Result<ArrayRef, AggregateError> {
        Ok(groups.column::<Int64Type>(|count| *count))
    }
}
