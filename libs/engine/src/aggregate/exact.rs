//! SUM and AVG of integers and decimals, exactly.
//!
//! The sum is kept in 128 bits, so that an overflow depends on the total alone and not on the order of rows: it is an error when the
//! result is read. SUM has the type of its argument, for decimals DECIMAL(38, s); AVG of integers is truncated toward zero, AVG of
//! decimals is rounded half away from zero (Flink's types and rounding). No values that are not NULL: NULL. With `overflow.wrap`, a sum of
//! integers is the total modulo the size of its type, which is what adding with wrapping gives in any order.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, AsArray, Decimal128Array, PrimitiveArray};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, Int8Type, Int16Type, Int32Type, Int64Type, i256,
};
use graph::AggregateFunction;

use super::rows::{Rows, state_counts, state_values};
use super::slots::{Function, Picked, Slots};
use super::{Accumulator, AggregateError};

/// The accumulator of SUM or AVG, if the argument is an integer or a decimal.
pub(super) fn exact(
    function: AggregateFunction,
    arg: &DataType,
    result: &DataType,
    wrap: bool,
) -> Option<Box<dyn Accumulator>> {
    let scale = match arg {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    };
    let (result, average) = (result.clone(), function == AggregateFunction::Avg);
    let wrap = wrap && !average && result.is_integer();
    fn boxed<T: ArrowPrimitiveType>(scale: i8, result: DataType, average: bool, wrap: bool) -> Box<dyn Accumulator>
    where
        T::Native: Into<i128>,
    {
        Box::new(Slots::new(Exact::<T> { scale, result, average, wrap, arg: PhantomData }))
    }
    Some(match arg {
        DataType::Int8 => boxed::<Int8Type>(scale, result, average, wrap),
        DataType::Int16 => boxed::<Int16Type>(scale, result, average, wrap),
        DataType::Int32 => boxed::<Int32Type>(scale, result, average, wrap),
        DataType::Int64 => boxed::<Int64Type>(scale, result, average, wrap),
        DataType::Decimal128(_, _) => boxed::<Decimal128Type>(scale, result, average, wrap),
        _ => return None,
    })
}

/// Packed to 24 bytes, where the alignment of an i128 would make it 32.
#[derive(Clone, Copy, Default)]
#[repr(C, packed(8))]
struct Cell {
    sum: i128,
    /// Values added minus values taken back.
    count: i64,
}

struct Exact<T> {
    /// Of the argument; 0 for integers.
    scale: i8,
    result: DataType,
    average: bool,
    /// The conversion to the result's type keeps the low bits of a sum that does not fit it.
    wrap: bool,
    arg: PhantomData<fn(T)>,
}

impl<T> Exact<T> {
    fn overflow(&self) -> AggregateError {
        AggregateError::overflow(if self.average { "avg" } else { "sum" }, &self.result)
    }

    fn divide(&self, sum: i128, count: i128, shift: i256) -> Option<i128> {
        if self.result.is_integer() {
            return Some(sum / count);
        }
        // 256 bits: the sum has up to 38 digits already, before it gets the digits of the result.
        let half = i256::from_i128(count / 2 * sum.signum());
        ((i256::from_i128(sum) * shift + half) / i256::from_i128(count)).to_i128()
    }

    /// The results as integers of the result's scale.
    fn results(&self, groups: Picked<Cell>) -> Result<Vec<Option<i128>>, AggregateError> {
        let (bound, scale) = match self.result {
            DataType::Decimal128(precision, scale) => (10i128.pow(u32::from(precision)) - 1, scale),
            DataType::Int8 => (i128::from(i8::MAX), 0),
            DataType::Int16 => (i128::from(i16::MAX), 0),
            DataType::Int32 => (i128::from(i32::MAX), 0),
            _ => (i128::from(i64::MAX), 0),
        };
        let lowest = if self.result.is_integer() { -bound - 1 } else { -bound };
        let shift = i256::from_i128(10i128.pow((scale - self.scale).max(0) as u32));
        let result = |&Cell { sum, count }: &Cell| {
            if count == 0 {
                return Ok(None);
            }
            let result = if self.average { self.divide(sum, i128::from(count), shift) } else { Some(sum) };
            let fits = |result: &i128| self.wrap || (lowest..=bound).contains(result);
            result.filter(fits).map(Some).ok_or_else(|| self.overflow())
        };
        groups.iter().map(result).collect()
    }
}

impl<T: ArrowPrimitiveType> Function for Exact<T>
where
    T::Native: Into<i128>,
{
    type Group = Cell;

    #[inline(always)]
    fn change(&mut self, groups: &mut [Cell], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        let mut overflow = false;
        rows.each_value(rows.arg().as_primitive::<T>().values(), |slot, value| {
            let cell = &mut groups[slot];
            let value: i128 = value.into();
            let (sum, over) = { cell.sum }.overflowing_add(if by > 0 { value } else { -value });
            overflow |= over;
            cell.sum = sum;
            cell.count += by;
        });
        if overflow { Err(self.overflow()) } else { Ok(()) }
    }

    fn merge(&mut self, groups: &mut [Cell], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let (sums, counts) = (state_values::<Decimal128Type>(state, 0), state_counts(state, 1));
        for ((&slot, &sum), &count) in slots.iter().zip(sums).zip(counts) {
            let cell = &mut groups[slot as usize];
            let Some(total) = { cell.sum }.checked_add(sum) else { return Err(self.overflow()) };
            cell.sum = total;
            cell.count += count;
        }
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        let sum = DataType::Decimal128(DECIMAL128_MAX_PRECISION, self.scale);
        vec![Field::new("sum", sum, false), Field::new("count", DataType::Int64, false)]
    }

    fn state(&self, groups: Picked<Cell>) -> Vec<ArrayRef> {
        let sums = Decimal128Array::from_iter_values(groups.iter().map(|cell| cell.sum));
        let sums = sums.with_data_type(DataType::Decimal128(DECIMAL128_MAX_PRECISION, self.scale));
        vec![Arc::new(sums), groups.column::<Int64Type>(|cell| cell.count)]
    }

    fn value(&self, groups: Picked<Cell>) -> Result<ArrayRef, AggregateError> {
        let results = self.results(groups)?;
        fn integers<I: ArrowPrimitiveType>(results: Vec<Option<i128>>, native: impl Fn(i128) -> I::Native) -> ArrayRef {
            Arc::new(PrimitiveArray::<I>::from_iter(results.into_iter().map(|result| result.map(&native))))
        }
        // The conversions lose nothing but what is to wrap: `results` has checked the bounds.
        Ok(match &self.result {
            DataType::Int8 => integers::<Int8Type>(results, |result| result as i8),
            DataType::Int16 => integers::<Int16Type>(results, |result| result as i16),
            DataType::Int32 => integers::<Int32Type>(results, |result| result as i32),
            DataType::Int64 => integers::<Int64Type>(results, |result| result as i64),
            decimal => Arc::new(Decimal128Array::from_iter(results).with_data_type(decimal.clone())),
        })
    }
}
