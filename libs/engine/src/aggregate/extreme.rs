//! MIN and MAX of numbers, times and booleans, where no rows are taken back.
//!
//! NaN is the largest number; -0.0 is 0.0. No values that are not NULL: NULL.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::*;

use super::rows::{Rows, argument};
use super::{Accumulator, AggregateError};

/// Runs `$body` with `$T` bound to the Arrow type that holds values of a data type, `$otherwise` for types without a fast path.
macro_rules! with_native_type {
    ($data_type:expr, $T:ident => $body:expr, $otherwise:expr) => {
        match $data_type {
            DataType::Boolean => {
                type $T = UInt8Type;
                $body
            }
            DataType::Int8 => {
                type $T = Int8Type;
                $body
            }
            DataType::Int16 => {
                type $T = Int16Type;
                $body
            }
            DataType::Int32 => {
                type $T = Int32Type;
                $body
            }
            DataType::Int64 => {
                type $T = Int64Type;
                $body
            }
            DataType::Float32 => {
                type $T = Float32Type;
                $body
            }
            DataType::Float64 => {
                type $T = Float64Type;
                $body
            }
            DataType::Decimal128(_, _) => {
                type $T = Decimal128Type;
                $body
            }
            DataType::Date32 => {
                type $T = Date32Type;
                $body
            }
            DataType::Time64(TimeUnit::Microsecond) => {
                type $T = Time64MicrosecondType;
                $body
            }
            DataType::Timestamp(TimeUnit::Second, _) => {
                type $T = TimestampSecondType;
                $body
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                type $T = TimestampMillisecondType;
                $body
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                type $T = TimestampMicrosecondType;
                $body
            }
            DataType::Timestamp(TimeUnit::Nanosecond, _) => {
                type $T = TimestampNanosecondType;
                $body
            }
            _ => $otherwise,
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
            Box::new(Extreme::<T, true> { best: Vec::new(), data_type })
        } else {
            Box::new(Extreme::<T, false> { best: Vec::new(), data_type })
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

struct Extreme<T: ArrowPrimitiveType, const LARGEST: bool> {
    best: Vec<Option<T::Native>>,
    data_type: DataType,
}

impl<T: ArrowPrimitiveType, const LARGEST: bool> Extreme<T, LARGEST>
where
    T::Native: Canonical,
{
    fn add(&mut self, slots: &[u32], values: &ArrayRef, filter: Option<&BooleanArray>) {
        let native = native(values);
        let best = self.best.as_mut_slice();
        Rows::new(slots, Some(&native), filter).each_value(native.as_primitive::<T>().values(), |slot, value| {
            let value = value.canonical();
            let best = &mut best[slot];
            let better = match *best {
                None => true,
                Some(best) if LARGEST => value.is_gt(best),
                Some(best) => value.is_lt(best),
            };
            if better {
                *best = Some(value);
            }
        });
    }

    fn read(&self, slots: &[u32]) -> ArrayRef {
        let values = PrimitiveArray::<T>::from_iter(slots.iter().map(|&slot| self.best[slot as usize]));
        if self.data_type == DataType::Boolean {
            return cast(&values, &self.data_type).expect("a byte casts to BOOLEAN");
        }
        Arc::new(values.with_data_type(self.data_type.clone()))
    }
}

/// Booleans as bytes; everything else as it is.
fn native(values: &ArrayRef) -> ArrayRef {
    if *values.data_type() == DataType::Boolean {
        return cast(values, &DataType::UInt8).expect("BOOLEAN casts to a byte");
    }
    values.clone()
}

impl<T: ArrowPrimitiveType, const LARGEST: bool> Accumulator for Extreme<T, LARGEST>
where
    T::Native: Canonical,
{
    fn resize(&mut self, slots: usize) {
        self.best.resize(slots.max(self.best.len()), None);
    }

    fn update(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        _time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.add(slots, argument(arg), filter);
        Ok(())
    }

    fn retract(
        &mut self,
        _slots: &[u32],
        _arg: Option<&ArrayRef>,
        _filter: Option<&BooleanArray>,
        _time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        panic!("a minimum or maximum that takes rows back is created with `Call::retracts`")
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        self.add(slots, &state[0], None);
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("value", self.data_type.clone(), true)]
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        vec![self.read(slots)]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        Ok(self.read(slots))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.best[slot as usize] = None);
    }

    fn bytes(&self) -> usize {
        self.best.capacity() * size_of::<Option<T::Native>>()
    }
}
