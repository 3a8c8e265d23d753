//! SUM and AVG of FLOAT and DOUBLE.
//!
//! Finite values are summed with 106 bits; infinities and NaN are counted apart, so that they too can be taken back.
//! NaN, or both infinities: NaN. No values that are not NULL: NULL.

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};

use super::AggregateError;
use super::double::Double;
use super::rows::{Rows, as_result, state_counts, state_values};
use super::slots::{Function, Picked};

#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
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
    pub average: bool,
    /// FLOAT or DOUBLE.
    pub result: DataType,
}

impl Function for FloatSum {
    type Group = Cell;

    #[inline(always)]
    fn change(&mut self, groups: &mut [Cell], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        rows.each_double(|slot, value| groups[slot].add(value, by));
        Ok(())
    }

    fn merge(&mut self, groups: &mut [Cell], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let [high, low] = [0, 1].map(|column| state_values::<Float64Type>(state, column));
        let [count, nan, plus, minus] = [2, 3, 4, 5].map(|column| state_counts(state, column));
        for (row, &slot) in slots.iter().enumerate() {
            let cell = &mut groups[slot as usize];
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

    fn state(&self, groups: Picked<Cell>) -> Vec<ArrayRef> {
        vec![
            groups.column::<Float64Type>(|cell| cell.sum.high),
            groups.column::<Float64Type>(|cell| cell.sum.low),
            groups.column::<Int64Type>(|cell| cell.count),
            groups.column::<Int64Type>(|cell| cell.nan),
            groups.column::<Int64Type>(|cell| cell.plus_infinity),
            groups.column::<Int64Type>(|cell| cell.minus_infinity),
        ]
    }

    fn value(&self, groups: Picked<Cell>) -> Result<ArrayRef, AggregateError> {
        let results = groups.results::<Float64Type>(|cell| {
            let divisor = if self.average { cell.count as f64 } else { 1.0 };
            (cell.count != 0).then(|| cell.total() / divisor)
        });
        as_result(&results, &self.result, if self.average { "avg" } else { "sum" })
    }
}
