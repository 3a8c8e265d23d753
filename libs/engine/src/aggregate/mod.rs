//! Aggregate functions over many groups at once, the state of each group addressed by a slot.
//!
//! One implementation serves partials before an exchange, window panes, sessions and running aggregates: states are read without being
//! drained, merged, taken back and cleared by slot. All loops are over columns.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::Field;

use crate::plan::Call;

/// Why an aggregate has no result.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AggregateError {
    #[error("{function} overflows {data_type}; cast its argument to a wider type, such as DECIMAL(38, 0)")]
    Overflow { function: &'static str, data_type: String },
    #[error("{function} cannot be computed over {data_type}")]
    Type { function: &'static str, data_type: String },
}

/// Groups of one aggregate function.
///
/// `slots` has an entry per row and names its group; the caller has called [`Accumulator::resize`] with more than the largest slot.
/// A slot never written, or cleared, is the empty group.
pub trait Accumulator: Send {
    /// Makes room for slots below `slots`; new ones are empty.
    fn resize(&mut self, slots: usize);

    /// Adds rows. `arg` is absent for `COUNT(*)`; NULL arguments are ignored; rows for which `filter` is not true are ignored.
    /// `time` (microseconds per row) is given to functions that go by the time attribute.
    fn update(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError>;

    /// Takes rows back that were added before. Only called where [`Call::retracts`] was set at creation.
    fn retract(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        time: Option<&[i64]>,
    ) -> Result<(), AggregateError>;

    /// Adds partial states: columns as [`Accumulator::state_fields`] says, one row per slot entry.
    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError>;

    /// The columns of a partial state. Names are stable: they are part of the savepoint format.
    fn state_fields(&self) -> Vec<Field>;

    /// The partial states of the given slots, one row each; nothing changes.
    fn state(&self, slots: &[u32]) -> Vec<ArrayRef>;

    /// The results of the given slots, one row each, of the call's result type; nothing changes.
    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError>;

    /// Empties the given slots.
    fn clear(&mut self, slots: &[u32]);

    /// Bytes held.
    fn bytes(&self) -> usize;
}

/// Makes the accumulator of a call.
pub fn accumulator(call: &Call) -> Result<Box<dyn Accumulator>, AggregateError> {
    Err(AggregateError::Type { function: call.function.name(), data_type: "this build".into() })
}
