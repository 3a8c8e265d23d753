//! VAR_POP, VAR_SAMP, STDDEV_POP and STDDEV_SAMP, computed as DOUBLE for every numeric argument.
//!
//! Kept are the count, the sum and the sum of squares, the sums with 106 bits: then the textbook formula is exact enough (a mean 1e8
//! times the deviation still gives 15 digits), states add up in any order, and rows can be taken back.
//! No values: NULL; one value: 0, or NULL for the sample functions. A value that is infinite or NaN: NaN.
//! Planning chooses the type of the result; an integer (Flink's choice for integers) is cut toward zero.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use graph::AggregateFunction;

use super::AggregateError;
use super::double::Double;
use super::rows::{Rows, as_result, state_counts, state_values};
use super::slots::{Function, Picked};

#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
    sum: Double,
    squares: Double,
    /// Finite values, in the sums.
    count: i64,
    /// Infinities and NaN.
    odd: i64,
}

pub(super) struct Spread {
    /// One of the four.
    pub function: AggregateFunction,
    pub result: DataType,
}

impl Spread {
    fn result(&self, cell: &Cell) -> Option<f64> {
        use AggregateFunction::{StddevPop, StddevSamp, VarSamp};
        let is_sample = matches!(self.function, StddevSamp | VarSamp);
        let rows = cell.count + cell.odd;
        if rows == 0 || is_sample && rows == 1 {
            return None;
        }
        if cell.odd != 0 {
            return Some(f64::NAN);
        }
        let count = cell.count as f64;
        let deviations = cell.squares.add(cell.sum.times(cell.sum.over(count)).minus());
        // Rounding may leave a little less than nothing; NaN (squares beyond the range of DOUBLE) stays NaN.
        let deviations = if deviations.value() < 0.0 { 0.0 } else { deviations.value() };
        let variance = deviations / if is_sample { count - 1.0 } else { count };
        Some(if matches!(self.function, StddevPop | StddevSamp) { variance.sqrt() } else { variance })
    }
}

impl Function for Spread {
    type Group = Cell;

    #[inline(always)]
    fn change(&mut self, groups: &mut [Cell], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        rows.each_double(|slot, value| {
            let cell = &mut groups[slot];
            if value.is_finite() {
                cell.sum = cell.sum.add(Double::of(value * by as f64));
                cell.squares = cell.squares.add(Double::product(value * by as f64, value));
                cell.count += by;
            } else {
                cell.odd += by;
            }
        });
        Ok(())
    }

    fn merge(&mut self, groups: &mut [Cell], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let [sum, sum_rest, squares, squares_rest] =
            [0, 1, 2, 3].map(|column| state_values::<Float64Type>(state, column));
        let [count, odd] = [4, 5].map(|column| state_counts(state, column));
        for (row, &slot) in slots.iter().enumerate() {
            let cell = &mut groups[slot as usize];
            cell.sum = cell.sum.add(Double { high: sum[row], low: sum_rest[row] });
            cell.squares = cell.squares.add(Double { high: squares[row], low: squares_rest[row] });
            cell.count += count[row];
            cell.odd += odd[row];
        }
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        let doubles =
            ["sum", "sum_rest", "squares", "squares_rest"].map(|name| Field::new(name, DataType::Float64, false));
        let counts = ["count", "not_finite"].map(|name| Field::new(name, DataType::Int64, false));
        doubles.into_iter().chain(counts).collect()
    }

    fn state(&self, groups: Picked<Cell>) -> Vec<ArrayRef> {
        vec![
            groups.column::<Float64Type>(|cell| cell.sum.high),
            groups.column::<Float64Type>(|cell| cell.sum.low),
            groups.column::<Float64Type>(|cell| cell.squares.high),
            groups.column::<Float64Type>(|cell| cell.squares.low),
            groups.column::<Int64Type>(|cell| cell.count),
            groups.column::<Int64Type>(|cell| cell.odd),
        ]
    }

    fn value(&self, groups: Picked<Cell>) -> Result<ArrayRef, AggregateError> {
        as_result(&groups.results::<Float64Type>(|cell| self.result(cell)), &self.result, self.function.name())
    }
}
