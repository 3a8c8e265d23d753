//! MIN and MAX of numbers, times and booleans, where no rows are taken back.
//!
//! NaN is the largest number; -0.0 is 0.0. No values that are not NULL: NULL.

use std::marker::PhantomData;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray};
use arrow::compute::cast;
use arrow::datatypes::*;

use super::rows::Rows;
use super::slots::{Function, Picked, Slots};
use super::{Accumulator, AggregateError};

/// Runs `$body` with `$T` bound to the Arrow type that holds values of a data type, `$otherwise` for types without a fast path.
macro_rules! with_native_type {
    ($data_type:expr, $T:ident => $body:expr, $otherwise:expr) => {
        state::with_type! { $data_type, $T => $body, $otherwise;
            DataType::Boolean => UInt8Type,
            DataType::Int8 => Int8Type,
            DataType::Int16 => Int16Type,
            DataType::Int32 => Int32Type,
            DataType::Int64 => Int64Type,
            DataType::Float32 => Float32Type,
            DataType::Float64 => Float64Type,
            DataType::Decimal128(_, _) => Decimal128Type,
            DataType::Date32 => Date32Type,
            DataType::Time64(TimeUnit::Microsecond) => Time64MicrosecondType,
            DataType::Timestamp(TimeUnit::Second, _) => TimestampSecondType,
            DataType::Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType,
            DataType::Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType,
        }
    };
}

/// Whether this file serves the type.
pub(super) fn is_fast(arg: &DataType) -> bool {
    with_native_type!(arg, T => { let _ = T::DATA_TYPE; true }, false)
}

/// MAX if `largest`, else MIN, of a type for which [`is_fast`].
pub(super) fn extreme(largest: bool, arg: &DataType) -> Box<dyn Accumulator> {
    fn boxed<T: ArrowPrimitiveType>(largest: bool, arg: &DataType) -> Box<dyn Accumulator>
    where
        T::Native: Canonical,
    {
        let data_type = arg.clone();
        if largest {
            Box::new(Slots::new(Extreme::<T, true> { data_type, values: PhantomData }))
        } else {
            Box::new(Slots::new(Extreme::<T, false> { data_type, values: PhantomData }))
        }
    }
    with_native_type!(arg, T => boxed::<T>(largest, arg), panic!("{arg} has no fast minimum; callers ask `is_fast` first"))
}

/// One representation for equal values.
trait Canonical: Copy {
    fn canonical(self) -> Self;
}

macro_rules! canonical_as_they_are { ($($native:ty),*) => { $(impl Canonical for $native {
    #[inline(always)]
    fn canonical(self) -> Self { self }
})* } }
canonical_as_they_are!(i8, i16, i32, i64, i128, u8);

macro_rules! canonical_floats { ($($native:ty),*) => { $(impl Canonical for $native {
    #[inline(always)]
    fn canonical(self) -> Self {
        // The total order has a positive NaN last; adding zero turns -0.0 into 0.0.
        if self.is_nan() { <$native>::NAN.copysign(1.0) } else { self + 0.0 }
    }
})* } }
canonical_floats!(f32, f64);

struct Extreme<T, const LARGEST: bool> {
    data_type: DataType,
    values: PhantomData<fn(T)>,
}

impl<T: ArrowPrimitiveType, const LARGEST: bool> Function for Extreme<T, LARGEST>
where
    T::Native: Canonical,
{
    type Group = Option<T::Native>;

    fn change(&mut self, groups: &mut [Self::Group], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        assert!(by > 0, "a minimum or maximum that takes rows back is created with `Call::retracts`");
        let values = native(rows.arg());
        rows.each_value(values.as_primitive::<T>().values(), |slot, value| {
            let value = value.canonical();
            let best = &mut groups[slot];
            let better = match *best {
                None => true,
                Some(best) if LARGEST => value.is_gt(best),
                Some(best) => value.is_lt(best),
            };
            if better {
                *best = Some(value);
            }
        });
        Ok(())
    }

    fn merge(&mut self, groups: &mut [Self::Group], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        self.change(groups, &Rows::new(slots, state.first(), None, None), 1)
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("value", self.data_type.clone(), true)]
    }

    fn state(&self, groups: Picked<Self::Group>) -> Vec<ArrayRef> {
        let values = groups.results::<T>(|best| *best);
        if self.data_type == DataType::Boolean {
            return vec![cast(&values, &self.data_type).expect("a byte casts to BOOLEAN")];
        }
        vec![Arc::new(values.as_primitive::<T>().clone().with_data_type(self.data_type.clone()))]
    }

    fn value(&self, groups: Picked<Self::Group>) -> Result<ArrayRef, AggregateError> {
        Ok(self.state(groups).remove(0))
    }
}

/// Booleans as bytes; everything else as it is.
fn native(values: &ArrayRef) -> ArrayRef {
    if *values.data_type() == DataType::Boolean {
        return cast(values, &DataType::UInt8).expect("BOOLEAN casts to a byte");
    }
    values.clone()
}
