//! Values of fixed width as canonical 64-bit words: two values are equal as SQL keys iff their words are equal.
//!
//! Integers are sign-extended, floats are widened to `f64` with one zero and one NaN, times keep their count in their own unit.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::*;

/// A native value that fits one word.
pub(crate) trait Word: Copy {
    fn word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

macro_rules! integer_words { ($($native:ty),*) => { $(impl Word for $native {
    #[inline(always)]
    fn word(self) -> u64 { self as i64 as u64 }
    #[inline(always)]
    fn from_word(word: u64) -> Self { word as $native }
})* } }
integer_words!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Word for f64 {
    #[inline(always)]
    fn word(self) -> u64 {
        // Adding zero turns -0.0 into 0.0; every NaN becomes the same one.
        if self.is_nan() { f64::NAN.to_bits() & !(1 << 63) } else { (self + 0.0).to_bits() }
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        f64::from_bits(word)
    }
}

impl Word for f32 {
    #[inline(always)]
    fn word(self) -> u64 {
        f64::from(self).word()
    }
    #[inline(always)]
    fn from_word(word: u64) -> Self {
        f64::from_bits(word) as f32
    }
}

/// Runs `$body` with the name `$T` bound to the type beside the pattern that matches, `$otherwise` if none does.
#[macro_export]
macro_rules! with_type {
    ($data_type:expr, $T:ident => $body:expr, $otherwise:expr; $($pattern:pat => $type:ty,)*) => {
        match $data_type {
            $($pattern => {
                type $T = $type;
                $body
            })*
            _ => $otherwise,
        }
    };
}

/// [`with_type`] over the data types of one word.
macro_rules! with_word_type {
    ($data_type:expr, $T:ident => $body:expr, $otherwise:expr) => {
        $crate::with_type! { $data_type, $T => $body, $otherwise;
            DataType::Int8 => Int8Type,
            DataType::Int16 => Int16Type,
            DataType::Int32 => Int32Type,
            DataType::Int64 => Int64Type,
            DataType::UInt8 => UInt8Type,
            DataType::UInt16 => UInt16Type,
            DataType::UInt32 => UInt32Type,
            DataType::UInt64 => UInt64Type,
            DataType::Float32 => Float32Type,
            DataType::Float64 => Float64Type,
            DataType::Date32 => Date32Type,
            DataType::Time32(TimeUnit::Second) => Time32SecondType,
            DataType::Time32(TimeUnit::Millisecond) => Time32MillisecondType,
            DataType::Time64(TimeUnit::Microsecond) => Time64MicrosecondType,
            DataType::Time64(TimeUnit::Nanosecond) => Time64NanosecondType,
            DataType::Timestamp(TimeUnit::Second, _) => TimestampSecondType,
            DataType::Timestamp(TimeUnit::Millisecond, _) => TimestampMillisecondType,
            DataType::Timestamp(TimeUnit::Microsecond, _) => TimestampMicrosecondType,
            DataType::Timestamp(TimeUnit::Nanosecond, _) => TimestampNanosecondType,
            DataType::Duration(TimeUnit::Second) => DurationSecondType,
            DataType::Duration(TimeUnit::Millisecond) => DurationMillisecondType,
            DataType::Duration(TimeUnit::Microsecond) => DurationMicrosecondType,
            DataType::Duration(TimeUnit::Nanosecond) => DurationNanosecondType,
        }
    };
}

/// Whether values of this type fit one word.
pub(crate) fn is_word(data_type: &DataType) -> bool {
    *data_type == DataType::Boolean || with_word_type!(data_type, T => { let _ = T::DATA_TYPE; true }, false)
}

/// Calls `each(row, word)` for all rows, in order. The word of a null row is arbitrary.
#[inline(always)]
pub(crate) fn each_word(array: &dyn Array, mut each: impl FnMut(usize, u64)) {
    if let Some(booleans) = array.as_boolean_opt() {
        return booleans.values().iter().enumerate().for_each(|(row, value)| each(row, u64::from(value)));
    }
    with_word_type!(
        array.data_type(),
        T => array.as_primitive::<T>().values().iter().enumerate().for_each(|(row, value)| each(row, value.word())),
        panic!("{} does not fit a 64-bit word; callers ask `is_word` first", array.data_type())
    )
}

/// The inverse of [`each_word`]: a column of `data_type` from one word per row.
pub(crate) fn from_words(
    data_type: &DataType,
    words: impl Iterator<Item = u64>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    fn build<T: ArrowPrimitiveType>(
        data_type: &DataType,
        words: impl Iterator<Item = u64>,
        nulls: Option<NullBuffer>,
    ) -> ArrayRef
    where
        T::Native: Word,
    {
        let values: ScalarBuffer<T::Native> = words.map(T::Native::from_word).collect();
        Arc::new(PrimitiveArray::<T>::new(values, nulls).with_data_type(data_type.clone()))
    }
    if *data_type == DataType::Boolean {
        let values: BooleanBuffer = words.map(|word| word != 0).collect();
        return Arc::new(BooleanArray::new(values, nulls));
    }
    with_word_type!(
        data_type,
        T => build::<T>(data_type, words, nulls),
        panic!("{data_type} does not fit a 64-bit word; callers ask `is_word` first")
    )
}
