//! Which rows of a batch an aggregate takes.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Int64Type};

use super::AggregateError;

/// The rows whose argument is not NULL and whose filter is true, and the group of each.
pub(super) struct Rows<'a> {
    slots: &'a [u32],
    /// None: all rows.
    taken: Option<BooleanBuffer>,
}

impl<'a> Rows<'a> {
    pub fn new(slots: &'a [u32], arg: Option<&ArrayRef>, filter: Option<&BooleanArray>) -> Self {
        let values = arg.and_then(|arg| arg.nulls()).filter(|nulls| nulls.null_count() > 0).map(|nulls| nulls.inner());
        let passed = filter.map(|filter| match filter.nulls() {
            Some(nulls) => filter.values() & nulls.inner(),
            None => filter.values().clone(),
        });
        let taken = match (values, passed) {
            (Some(values), Some(passed)) => Some(values & &passed),
            (Some(values), None) => Some(values.clone()),
            (None, passed) => passed,
        };
        assert!(arg.is_none_or(|arg| arg.len() == slots.len()), "every row of an aggregate's argument has a slot");
        assert!(taken.as_ref().is_none_or(|taken| taken.len() == slots.len()), "every row of a filter has a slot");
        Self { slots, taken }
    }

    /// Calls `each(slot, row)` for every row taken.
    #[inline(always)]
    pub fn each(&self, mut each: impl FnMut(usize, usize)) {
        match &self.taken {
            None => self.slots.iter().enumerate().for_each(|(row, &slot)| each(slot as usize, row)),
            Some(taken) => taken.set_indices().for_each(|row| each(self.slots[row] as usize, row)),
        }
    }

    /// Calls `each(slot, value)` for every row taken; `values` is the argument's.
    #[inline(always)]
    pub fn each_value<T: Copy>(&self, values: &[T], mut each: impl FnMut(usize, T)) {
        match &self.taken {
            None => self.slots.iter().zip(values).for_each(|(&slot, &value)| each(slot as usize, value)),
            Some(taken) => taken.set_indices().for_each(|row| each(self.slots[row] as usize, values[row])),
        }
    }

    /// The mask of the rows taken, for kernels; None: all rows.
    pub fn mask(&self) -> Option<BooleanArray> {
        self.taken.clone().map(|taken| BooleanArray::new(taken, None))
    }
}

/// A numeric column as DOUBLE.
pub(super) fn doubles(column: &ArrayRef) -> ArrayRef {
    let doubles = cast(column, &DataType::Float64);
    doubles.expect("the argument is numeric, as planning has checked, and any number casts to DOUBLE")
}

/// Results computed as DOUBLE in the type that planning gave them; cut toward zero if that is an integer.
pub(super) fn as_result(
    results: &ArrayRef,
    data_type: &DataType,
    function: &'static str,
) -> Result<ArrayRef, AggregateError> {
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(results, data_type, &exact).map_err(|_| AggregateError::overflow(function, data_type))
}

pub(super) fn argument(arg: Option<&ArrayRef>) -> &ArrayRef {
    arg.expect("only COUNT(*) is called without an argument")
}

/// A state column that is never NULL, by its type.
pub(super) fn state_values<T: ArrowPrimitiveType>(state: &[ArrayRef], column: usize) -> &[T::Native] {
    let typed: &PrimitiveArray<T> = state[column].as_primitive::<T>();
    typed.values()
}

/// A state column of counts.
pub(super) fn state_counts(state: &[ArrayRef], column: usize) -> &[i64] {
    state_values::<Int64Type>(state, column)
}
