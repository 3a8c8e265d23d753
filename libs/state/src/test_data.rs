//! Random columns for the tests of this crate.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

/// A small generator (SplitMix64): tests need repeatable numbers, not good ones.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Key types worth testing: every store and every special value.
pub(crate) fn key_types() -> Vec<DataType> {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
    let row = Fields::from(vec![Field::new("a", DataType::Int32, true), Field::new("b", DataType::Utf8, true)]);
    vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::Int32,
        DataType::Int64,
        DataType::Float32,
        DataType::Float64,
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal128(10, 2),
        DataType::Utf8,
        DataType::Binary,
        list,
        DataType::Struct(row),
    ]
}

/// `rows` values of a type, out of about `distinct` ones, one in eight of them NULL if `nulls`.
pub(crate) fn column(data_type: &DataType, rows: usize, distinct: u64, nulls: bool, random: &mut Random) -> ArrayRef {
    let picks: Vec<Option<i64>> = (0..rows)
        .map(|_| {
            let pick = random.below(distinct) as i64 - distinct as i64 / 2;
            (!nulls || random.below(8) > 0).then_some(pick)
        })
        .collect();
    let integers = Int64Array::from(picks.clone());
    let float = |pick: i64| match pick {
        0 => -0.0,
        1 => f64::NAN,
        2 => -f64::NAN,
        -1 => 0.0,
        other => other as f64 / 4.0,
    };
    match data_type {
        DataType::Boolean => Arc::new(BooleanArray::from_iter(picks.iter().map(|p| p.map(|p| p % 2 == 0)))),
        DataType::Int8 => Arc::new(Int8Array::from_iter(picks.iter().map(|p| p.map(|p| p as i8)))),
        DataType::Float64 => Arc::new(Float64Array::from_iter(picks.iter().map(|p| p.map(float)))),
        DataType::Float32 => Arc::new(Float32Array::from_iter(picks.iter().map(|p| p.map(|p| float(p) as f32)))),
        DataType::Utf8 => Arc::new(StringArray::from_iter(picks.iter().map(|p| p.map(text)))),
        DataType::Binary => Arc::new(BinaryArray::from_iter(picks.iter().map(|p| p.map(|p| text(p).into_bytes())))),
        DataType::Decimal128(_, _) => {
            let values = picks.iter().map(|p| p.map(|p| i128::from(p) << 40));
            Arc::new(Decimal128Array::from_iter(values).with_data_type(data_type.clone()))
        }
        DataType::Date32 => Arc::new(Date32Array::from_iter(picks.iter().map(|p| p.map(|p| p as i32)))),
        DataType::List(_) => {
            let mut builder = ListBuilder::new(Float64Builder::new());
            for pick in &picks {
                match pick {
                    None => builder.append(false),
                    Some(pick) => {
                        (0..pick.rem_euclid(4))
                            .for_each(|i| builder.values().append_option((i < 2).then(|| float(*pick - i))));
                        builder.append(true);
                    }
                }
            }
            Arc::new(builder.finish())
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|f| column(f.data_type(), rows, distinct.min(8), nulls, random)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, integers.nulls().cloned()))
        }
        other => arrow::compute::cast(&integers, other).expect("integers cast to every other key type"),
    }
}

/// Texts of many lengths, also empty, with prefixes in common.
fn text(pick: i64) -> String {
    match pick.rem_euclid(5) {
        0 => "x".repeat((pick.unsigned_abs() % 300) as usize),
        _ => format!("straße {pick}"),
    }
}
