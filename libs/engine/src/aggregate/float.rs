//! SUM and AVG of FLOAT and DOUBLE.
//!
//! Finite values are summed with 106 bits; infinities and NaN are counted apart, so that they too can be taken back.
//! NaN, or both infinities: NaN. No values that are not NULL: NULL.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Float64Type};

use super::double::Double;
use super::rows::{Rows, argument, as_result, doubles, state_counts, state_values};
use super::{Accumulator, AggregateError};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Finish {
    Sum,
    Avg,
}

#[derive(Clone, Copy, Default)]
struct Cell {
    sum: Double,
    /// All values; of which the following are not in the sum.
    count: i64,
    nan: i64,
    plus_infinity: i64,
    minus_infinity: i64,
}

impl Cell {
    #[inline(always)]
    fn add(&mut self, value: f64, sign: i64) {
        self.count += sign;
        if value.is_finite() {
            self.sum = self.sum.add(Double::of(value * sign as f64));
        } else if value.is_nan() {
            self.nan += sign;
        } else if value > 0.0 {
            self.plus_infinity += sign;
        } else {
            self.minus_infinity += sign;
        }
    }

    fn total(&self) -> f64 {
        match (self.nan, self.plus_infinity, self.minus_infinity) {
            (0, 0, 0) if self.sum.high.is_finite() => self.sum.value(),
            (0, 0, 0) => self.sum.high,
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }
}

pub(super) struct FloatSum {
    cells: Vec<Cell>,
    finish: Finish,
    /// FLOAT or DOUBLE.
    result: DataType,
}

impl FloatSum {
    pub fn new(finish: Finish, result: DataType) -> Self {
        Self { cells: Vec::new(), finish, result }
    }

    fn add(&mut self, slots: &[u32], arg: Option<&ArrayRef>, filter: Option<&BooleanArray>, sign: i64) {
        let arg = doubles(argument(arg));
        let cells = self.cells.as_mut_slice();
        let values = arg.as_primitive::<Float64Type>().values();
        Rows::new(slots, Some(&arg), filter).each_value(values, |slot, value| cells[slot].add(value, sign));
    }
}

impl Accumulator for FloatSum {
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
        let [high, low] = [0, 1].map(|column| state_values::<Float64Type>(state, column));
        let [count, nan, plus, minus] = [2, 3, 4, 5].map(|column| state_counts(state, column));
        for (row, &slot) in slots.iter().enumerate() {
            let cell = &mut self.cells[slot as usize];
            cell.sum = cell.sum.add(Double { high: high[row], low: low[row] });
            cell.count += count[row];
            cell.nan += nan[row];
            cell.plus_infinity += plus[row];
            cell.minus_infinity += minus[row];
        }
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        let doubles = ["sum", "sum_rest"].map(|name| Field::new(name, DataType::Float64, false));
        let counts =
            ["count", "nan", "plus_infinity", "minus_infinity"].map(|name| Field::new(name, DataType::Int64, false));
        doubles.into_iter().chain(counts).collect()
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let cells = || slots.iter().map(|&slot| self.cells[slot as usize]);
        let double = |of: fn(Cell) -> f64| Arc::new(Float64Array::from_iter_values(cells().map(of))) as ArrayRef;
        let count = |of: fn(Cell) -> i64| Arc::new(Int64Array::from_iter_values(cells().map(of))) as ArrayRef;
        vec![
            double(|cell| cell.sum.high),
            double(|cell| cell.sum.low),
            count(|cell| cell.count),
            count(|cell| cell.nan),
            count(|cell| cell.plus_infinity),
            count(|cell| cell.minus_infinity),
        ]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        let result = |&slot: &u32| {
            let cell = &self.cells[slot as usize];
            let divisor = if self.finish == Finish::Avg { cell.count as f64 } else { 1.0 };
            (cell.count != 0).then(|| cell.total() / divisor)
        };
        let results: ArrayRef = Arc::new(Float64Array::from_iter(slots.iter().map(result)));
        as_result(&results, &self.result, if self.finish == Finish::Avg { "avg" } else { "sum" })
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.cells[slot as usize] = Cell::default());
    }

    fn bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }
}
