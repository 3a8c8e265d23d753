//! Aggregate functions over many groups at once, the state of each group addressed by a slot.
//!
//! One implementation serves partials before an exchange, window panes, sessions and running aggregates: states are read without being
//! drained, merged, taken back and cleared by slot. All loops are over columns.
//!
//! No result depends on how rows were cut into batches or partial states, or on what was added and taken back in between: integers and
//! decimals are summed exactly, floats with about 106 bits ([`double`]), and all else is counted per value or bucket.
//! [`exact`] and [`float`] are SUM and AVG, [`spread`] is variance and standard deviation, [`extreme`] and [`ordered`] are MIN, MAX,
//! FIRST_VALUE and LAST_VALUE without retractions and [`multiset`] with them, each in [`slots`]; [`distinct`] wraps an aggregate of
//! distinct values.

mod count;
mod distinct;
mod double;
mod exact;
mod extreme;
mod float;
mod multiset;
mod ordered;
mod percentile;
mod rows;
mod slots;
mod spread;
#[cfg(test)]
pub(crate) mod tests;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::datatypes::{DataType, Field};
use expr::{arrow_type, sql_type};
use graph::AggregateFunction;

use crate::plan::Call;
use slots::Slots;

/// Why an aggregate has no result.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AggregateError {
    #[error("{function} overflows {data_type}; {advice}")]
    Overflow { function: &'static str, data_type: String, advice: &'static str },
    #[error("{function} cannot be computed over {data_type}")]
    Type { function: &'static str, data_type: String },
}

impl AggregateError {
    fn overflow(function: &'static str, data_type: &DataType) -> Self {
        // SUM and AVG of decimals have the widest decimal type already.
        let advice = match data_type {
            DataType::Decimal128(_, scale) if *scale <= 0 => "cast its argument to DOUBLE",
            DataType::Decimal128(..) => "cast its argument to a DECIMAL with fewer decimal places, or to DOUBLE",
            _ => "cast its argument to a wider type, such as DECIMAL(38, 0)",
        };
        let data_type = sql_type(data_type).map_or_else(|| data_type.to_string(), |sql| sql.to_string());
        AggregateError::Overflow { function, data_type, advice }
    }
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
    use AggregateFunction::*;
    let arg = call.arg_type.as_ref().map_or(DataType::Null, arrow_type);
    let result = arrow_type(&call.result);
    if call.distinct && !matches!(call.function, Min | Max) {
        let once = Call { distinct: false, retracts: true, ..call.clone() };
        return Ok(Box::new(distinct::Distinct::new(&arg, accumulator(&once)?, call.retracts, refused(call))?));
    }
    let is_float = matches!(arg, DataType::Float32 | DataType::Float64);
    Ok(match call.function {
        Count => Box::new(Slots::new(count::Count)),
        Sum | Avg if !is_float => exact::exact(call.function, &arg, &result, call.wrap).ok_or_else(|| refused(call))?,
        Sum | Avg => Box::new(Slots::new(float::FloatSum { average: call.function == Avg, result })),
        StddevPop | StddevSamp | VarPop | VarSamp => {
            Box::new(Slots::new(spread::Spread { function: call.function, result }))
        }
        ApproxPercentile => {
            let fraction =
                call.fraction.filter(|fraction| (0.0..=1.0).contains(fraction)).ok_or_else(|| refused(call))?;
            Box::new(Slots::new(percentile::Percentile::new(fraction, result)))
        }
        Min | Max if !call.retracts && extreme::is_fast(&arg) => extreme::extreme(call.function == Max, &arg),
        Min | Max | FirstValue | LastValue => {
            let largest = matches!(call.function, Max | LastValue);
            let by_time = matches!(call.function, FirstValue | LastValue);
            let encoding = ordered::Encoding::new(&arg, by_time).ok_or_else(|| refused(call))?;
            if call.retracts {
                Box::new(Slots::new(multiset::Multiset::new(encoding, largest)))
            } else {
                Box::new(Slots::new(ordered::Ordered::new(encoding, largest)))
            }
        }
    })
}

fn refused(call: &Call) -> AggregateError {
    let data_type = call.arg_type.as_ref().map_or_else(|| "no argument".into(), ToString::to_string);
    AggregateError::Type { function: call.function.name(), data_type }
}
