//! Which rows of a batch an aggregate takes.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float64Type, Int64Type};

use super::AggregateError;

/// The rows whose argument is not NULL and whose filter is true, and the group of each.
pub(super) struct Rows<'a> {
    slots: &'a [u32],
    arg: Option<&'a ArrayRef>,
    time: Option<&'a [i64]>,
    /// None: all rows.
    taken: Option<BooleanBuffer>,
}

impl<'a> Rows<'a> {
    /// The parameters are those of [`super::Accumulator::update`].
    pub fn new(
        slots: &'a [u32],
        arg: Option<&'a ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&'a [i64]>,
    ) -> Self {
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
        Self { slots, arg, time, taken }
    }

    /// The groups of all rows, taken or not.
    pub fn slots(&self) -> &'a [u32] {
        self.slots
    }

    /// The argument of all rows, taken or not.
    pub fn arg(&self) -> &'a ArrayRef {
        self.arg.expect("only COUNT(*) is called without an argument")
    }

    /// The time of all rows, in microseconds.
    pub fn time(&self) -> Option<&'a [i64]> {
        self.time
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

    /// Calls `each(slot, value)` for every row taken, with the argument, a number, as DOUBLE.
    #[inline(always)]
    pub fn each_double(&self, each: impl FnMut(usize, f64)) {
        let doubles = cast(self.arg(), &DataType::Float64);
        let doubles =
            doubles.expect("the argument is numeric, as planning has checked, and any number casts to DOUBLE");
        self.each_value(doubles.as_primitive::<Float64Type>().values(), each);
    }

    /// The mask of the rows taken, for kernels; None: all rows.
    pub fn mask(&self) -> Option<BooleanArray> {
        self.taken.clone().map(|taken| BooleanArray::new(taken, None))
    }
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

/// A state column that is never NULL, by its type.
pub(super) fn state_values<T: ArrowPrimitiveType>(state: &[ArrayRef], column: usize) -> &[T::Native] {
    let typed: &PrimitiveArray<T> = state[column].as_primitive::<T>();
    typed.values()
}

/// A state column of counts.
pub(super) fn state_counts(state: &[ArrayRef], column: usize) -> &[i64] {
    state_values::<Int64Type>(state, column)
}
