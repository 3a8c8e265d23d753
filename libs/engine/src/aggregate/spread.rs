//! VAR_POP, VAR_SAMP, STDDEV_POP and STDDEV_SAMP, computed as DOUBLE for every numeric argument.
//!
//! Kept are the count, the sum and the sum of squares, the sums with 106 bits: then the textbook formula is exact enough (a mean 1e8
//! times the deviation still gives 15 digits), states add up in any order, and rows can be taken back.
//! No values: NULL; one value: 0, or NULL for the sample functions. A value that is infinite or NaN: NaN.
//! Planning chooses the type of the result; an integer (Flink's choice for integers) is cut toward zero.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Float64Type};
use graph::AggregateFunction;

use super::double::Double;
use super::rows::{Rows, argument, as_result, doubles, state_counts, state_values};
use super::{Accumulator, AggregateError};

#[derive(Clone, Copy, Default)]
struct Cell {
    sum: Double,
    squares: Double,
    /// Finite values, in the sums.
    count: i64,
    /// Infinities and NaN.
    odd: i64,
}

pub(super) struct Spread {
    cells: Vec<Cell>,
    function: AggregateFunction,
    result: DataType,
}

impl Spread {
    /// `function` is one of the four.
    pub fn new(function: AggregateFunction, result: DataType) -> Self {
        Self { cells: Vec::new(), function, result }
    }

    fn add(&mut self, slots: &[u32], arg: Option<&ArrayRef>, filter: Option<&BooleanArray>, sign: i64) {
        let arg = doubles(argument(arg));
        let cells = self.cells.as_mut_slice();
        Rows::new(slots, Some(&arg), filter).each_value(arg.as_primitive::<Float64Type>().values(), |slot, value| {
            let cell = &mut cells[slot];
            if value.is_finite() {
                cell.sum = cell.sum.add(Double::of(value * sign as f64));
                cell.squares = cell.squares.add(Double::product(value * sign as f64, value));
                cell.count += sign;
            } else {
                cell.odd += sign;
            }
        });
    }

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

impl Accumulator for Spread {
    fn resize(&mut self, slots: usize) {
        self.cells.resize(slots.max(self.cells.len()), Cell::default());
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
        let [sum, sum_rest, squares, squares_rest] =
            [0, 1, 2, 3].map(|column| state_values::<Float64Type>(state, column));
        let [count, odd] = [4, 5].map(|column| state_counts(state, column));
        for (row, &slot) in slots.iter().enumerate() {
            let cell = &mut self.cells[slot as usize];
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

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let cells = || slots.iter().map(|&slot| self.cells[slot as usize]);
        let double = |of: fn(Cell) -> f64| Arc::new(Float64Array::from_iter_values(cells().map(of))) as ArrayRef;
        let count = |of: fn(Cell) -> i64| Arc::new(Int64Array::from_iter_values(cells().map(of))) as ArrayRef;
        vec![
            double(|cell| cell.sum.high),
            double(|cell| cell.sum.low),
            double(|cell| cell.squares.high),
            double(|cell| cell.squares.low),
            count(|cell| cell.count),
            count(|cell| cell.odd),
        ]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        let results = slots.iter().map(|&slot| self.result(&self.cells[slot as usize]));
        let results: ArrayRef = Arc::new(Float64Array::from_iter(results));
        as_result(&results, &self.result, self.function.name())
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.cells[slot as usize] = Cell::default());
    }

    fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }
}
