//! The groups of an aggregate function, by slot: what is alike in all functions that keep a value of their own per group.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray};
use arrow::datatypes::Field;

use super::rows::Rows;
use super::{Accumulator, AggregateError};

/// What a function keeps of a group, and how rows and partial states change it.
pub(super) trait Function: Send {
    /// The default is the empty group.
    type Group: Clone + Default + Send;

    /// Adds the rows (`by` is 1) or takes them back (-1). Inlined into both, so that `by` is a constant in the loop.
    fn change(&mut self, groups: &mut [Self::Group], rows: &Rows, by: i64) -> Result<(), AggregateError>;

    /// See [`Accumulator::merge`].
    fn merge(&mut self, groups: &mut [Self::Group], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError>;

    /// See [`Accumulator::state_fields`].
    fn state_fields(&self) -> Vec<Field>;

    /// One row per group.
    fn state(&self, groups: Picked<Self::Group>) -> Vec<ArrayRef>;

    /// One row per group.
    fn value(&self, groups: Picked<Self::Group>) -> Result<ArrayRef, AggregateError>;

    /// Called with the groups that are cleared; for functions that keep [`Function::heap_bytes`].
    fn forget(&mut self, _group: Self::Group) {}

    /// Bytes that all groups own behind their places.
    fn heap_bytes(&self) -> usize {
        0
    }
}

pub(super) struct Slots<F: Function> {
    function: F,
    groups: Vec<F::Group>,
}

impl<F: Function> Slots<F> {
    pub fn new(function: F) -> Self {
        Self { function, groups: Vec::new() }
    }

    fn picked<'a>(&'a self, slots: &'a [u32]) -> Picked<'a, F::Group> {
        Picked { groups: &self.groups, slots }
    }
}

impl<F: Function> Accumulator for Slots<F> {
    fn resize(&mut self, slots: usize) {
        self.groups.resize(slots.max(self.groups.len()), F::Group::default());
    }

    fn update(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.function.change(&mut self.groups, &Rows::new(slots, arg, filter, time), 1)
    }

    fn retract(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.function.change(&mut self.groups, &Rows::new(slots, arg, filter, time), -1)
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        self.function.merge(&mut self.groups, slots, state)
    }

    fn state_fields(&self) -> Vec<Field> {
        self.function.state_fields()
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        self.function.state(self.picked(slots))
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        self.function.value(self.picked(slots))
    }

    fn clear(&mut self, slots: &[u32]) {
        for &slot in slots {
            let group = std::mem::take(&mut self.groups[slot as usize]);
            self.function.forget(group);
        }
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<F::Group>() + self.function.heap_bytes()
    }
}

/// The groups of some slots, in the order of these.
pub(super) struct Picked<'a, G> {
    groups: &'a [G],
    slots: &'a [u32],
}

impl<'a, G> Picked<'a, G> {
    pub fn iter(&self) -> impl Iterator<Item = &'a G> {
        let groups = self.groups;
        self.slots.iter().map(move |&slot| &groups[slot as usize])
    }

    /// A column without NULL: `of` each group.
    pub fn column<T: ArrowPrimitiveType>(&self, of: impl Fn(&G) -> T::Native) -> ArrayRef {
        Arc::new(PrimitiveArray::<T>::from_iter_values(self.iter().map(of)))
    }

    /// A column of `of` each group, NULL where that is none.
    pub fn results<T: ArrowPrimitiveType>(&self, of: impl Fn(&G) -> Option<T::Native>) -> ArrayRef {
        Arc::new(self.iter().map(of).collect::<PrimitiveArray<T>>())
    }
}
