//! What every aggregate keeps, whatever it computes: batches, partial states and retractions leave no trace in the result.

#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{cast, concat, filter, take};
use arrow::datatypes::{DataType as ArrowType, Float64Type, Int64Type};
use expr::arrow_type;
use graph::AggregateFunction::{self, *};
use graph::DataType;

use super::{Accumulator, AggregateError, accumulator};
use crate::plan::Call;

const GROUPS: u32 = 5;

fn call(function: AggregateFunction, arg: DataType, result: DataType) -> Call {
    Call {
        function,
        arg: Some(0),
        arg_type: Some(arg),
        filter: None,
        distinct: false,
        fraction: (function == ApproxPercentile).then_some(0.9),
        time: matches!(function, FirstValue | LastValue).then_some(1),
        retracts: false,
        wrap: false,
        result,
    }
}

/// Every aggregate over every kind of argument that it has a path for, with and without retractions.
fn calls() -> Vec<Call> {
    let decimal = DataType::Decimal(10, 2);
    let mut calls = vec![Call { arg: None, arg_type: None, ..call(Count, DataType::BigInt, DataType::BigInt) }];
    let integers = [DataType::TinyInt, DataType::SmallInt, DataType::Int, DataType::BigInt];
    let floats = [DataType::Float, DataType::Double];
    for arg in integers.iter().chain(&floats) {
        calls.push(call(Sum, arg.clone(), arg.clone()));
        calls.push(call(Avg, arg.clone(), arg.clone()));
        calls.push(call(VarPop, arg.clone(), DataType::Double));
        calls.push(call(ApproxPercentile, arg.clone(), DataType::Double));
    }
    calls.push(call(Sum, decimal.clone(), DataType::Decimal(38, 2)));
    calls.push(call(Avg, decimal.clone(), DataType::Decimal(38, 6)));
    for function in [VarSamp, StddevPop, StddevSamp] {
        calls.push(call(function, decimal.clone(), DataType::Double));
    }
    let row = DataType::Row(vec![("a".into(), DataType::Double), ("b".into(), DataType::String)]);
    let times = [DataType::Date, DataType::Time, DataType::Timestamp(3), DataType::TimestampLtz(6)];
    let others = [DataType::Boolean, DataType::String, DataType::Bytes, decimal.clone()];
    for arg in integers.iter().chain(&floats).chain(&times).chain(&others) {
        for function in [Min, Max, FirstValue, LastValue] {
            calls.push(call(function, arg.clone(), arg.clone()));
        }
        calls.push(call(Count, arg.clone(), DataType::BigInt));
        calls.push(Call { distinct: true, ..call(Count, arg.clone(), DataType::BigInt) });
    }
    calls.push(call(LastValue, row.clone(), row));
    calls.push(Call { distinct: true, ..call(Sum, DataType::Double, DataType::Double) });
    calls.push(Call { distinct: true, ..call(Avg, decimal, DataType::Decimal(38, 6)) });
    calls.push(Call { distinct: true, ..call(Max, DataType::Int, DataType::Int) });
    let retracting = calls.clone().into_iter().map(|call| Call { retracts: true, ..call });
    calls.iter().cloned().chain(retracting).collect()
}

/// A small generator (SplitMix64): tests need repeatable numbers, not good ones.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Rows for one aggregate.
#[derive(Clone)]
struct Rows {
    slots: Vec<u32>,
    arg: Option<ArrayRef>,
    filter: Option<BooleanArray>,
    time: Vec<i64>,
}

impl Rows {
    /// Few distinct values, many ties of time, a NULL in eight.
    fn random(call: &Call, rows: usize, random: &mut Random) -> Rows {
        let arg = call.arg_type.as_ref().map(|data_type| values(&arrow_type(data_type), rows, random));
        let maybe = |random: &mut Random| (random.below(10) > 0).then(|| random.below(4) > 0);
        let is_filtered = random.below(2) == 0;
        Rows {
            // The last group stays empty.
            slots: (0..rows).map(|_| random.below(u64::from(GROUPS) - 1) as u32).collect(),
            arg,
            filter: is_filtered.then(|| (0..rows).map(|_| maybe(random)).collect()),
            time: (0..rows).map(|_| random.below(20) as i64).collect(),
        }
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn pick(&self, rows: &[u32]) -> Rows {
        let rows = UInt32Array::from(rows.to_vec());
        let at = |row: &u32| *row as usize;
        Rows {
            slots: rows.values().iter().map(|row| self.slots[at(row)]).collect(),
            arg: self.arg.as_ref().map(|arg| take(arg, &rows, None).unwrap()),
            filter: self.filter.as_ref().map(|mask| take(mask, &rows, None).unwrap().as_boolean().clone()),
            time: rows.values().iter().map(|row| self.time[at(row)]).collect(),
        }
    }

    /// Cut into pieces of random sizes.
    fn pieces(&self, random: &mut Random) -> Vec<Rows> {
        let all: Vec<u32> = (0..self.len() as u32).collect();
        let mut rest = all.as_slice();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + random.below(40) as usize).min(rest.len()));
            pieces.push(self.pick(piece));
            rest = after;
        }
        pieces
    }
}

fn values(data_type: &ArrowType, rows: usize, random: &mut Random) -> ArrayRef {
    let picks: Vec<Option<i64>> =
        (0..rows).map(|_| (random.below(8) > 0).then(|| random.below(40) as i64 - 20)).collect();
    let picks = Int64Array::from(picks);
    let mut double = |pick: i64| match pick {
        19 if random.below(4) == 0 => f64::NAN,
        18 if random.below(4) == 0 => f64::INFINITY,
        17 => 1e12,
        16 => 1e-5,
        pick => pick as f64 / 8.0,
    };
    match data_type {
        ArrowType::Float64 | ArrowType::Float32 => {
            let doubles: Float64Array = picks.iter().map(|pick| pick.map(&mut double)).collect();
            cast(&doubles, data_type).unwrap()
        }
        ArrowType::Boolean => Arc::new(BooleanArray::from_iter(picks.iter().map(|pick| pick.map(|pick| pick > 5)))),
        ArrowType::Utf8 => {
            Arc::new(StringArray::from_iter(picks.iter().map(|pick| pick.map(|pick| format!("v{pick}")))))
        }
        ArrowType::Binary => cast(&values(&ArrowType::Utf8, rows, random), data_type).unwrap(),
        ArrowType::Decimal128(_, _) => {
            let unscaled = picks.iter().map(|pick| pick.map(|pick| i128::from(pick) * 12_345_678));
            Arc::new(Decimal128Array::from_iter(unscaled).with_data_type(data_type.clone()))
        }
        // Small, so that sums fit.
        ArrowType::Int8 => Arc::new(Int8Array::from_iter(picks.iter().map(|pick| pick.map(|pick| (pick % 3) as i8)))),
        ArrowType::Date32 => cast(&cast(&picks, &ArrowType::Int32).unwrap(), data_type).unwrap(),
        ArrowType::Struct(fields) => {
            let columns = fields.iter().map(|field| values(field.data_type(), rows, random)).collect();
            Arc::new(StructArray::new(fields.clone(), columns, picks.nulls().cloned()))
        }
        other => cast(&picks, other).unwrap(),
    }
}

fn fresh(call: &Call) -> Box<dyn Accumulator> {
    let mut accumulator = accumulator(call).unwrap_or_else(|error| panic!("{call:?}: {error}"));
    accumulator.resize(GROUPS as usize);
    accumulator
}

fn update(accumulator: &mut dyn Accumulator, rows: &Rows) {
    accumulator.update(&rows.slots, rows.arg.as_ref(), rows.filter.as_ref(), Some(&rows.time)).unwrap();
}

fn retract(accumulator: &mut dyn Accumulator, rows: &Rows) {
    accumulator.retract(&rows.slots, rows.arg.as_ref(), rows.filter.as_ref(), Some(&rows.time)).unwrap();
}

fn all_slots() -> Vec<u32> {
    (0..GROUPS).collect()
}

fn results(accumulator: &dyn Accumulator) -> ArrayRef {
    accumulator.value(&all_slots()).unwrap()
}

/// Moves the state of `from` into `to`, as its columns.
fn hand_over(from: &dyn Accumulator, to: &mut dyn Accumulator) {
    let state = from.state(&all_slots());
    for (column, field) in state.iter().zip(from.state_fields()) {
        assert_eq!(column.data_type(), field.data_type(), "state column {}", field.name());
        assert!(field.is_nullable() || column.null_count() == 0, "state column {}", field.name());
        assert_eq!(column.len(), GROUPS as usize);
    }
    assert_eq!(state.len(), from.state_fields().len());
    to.merge(&all_slots(), &state).unwrap();
}

/// Equal; floats within 1e-9, relative.
fn assert_same(found: &ArrayRef, expected: &ArrayRef, what: &str) {
    let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()),
        (a, b) => a == b,
    };
    let is_same = if found.data_type().is_floating() {
        let [a, b] = [found, expected].map(|array| cast(array, &ArrowType::Float64).unwrap());
        let (a, b) = (a.as_primitive::<Float64Type>(), b.as_primitive::<Float64Type>());
        a.iter().zip(b).all(|(a, b)| close(a, b))
    } else {
        found == expected
    };
    assert!(is_same && found.data_type() == expected.data_type(), "{what}: {found:?} instead of {expected:?}");
}

#[test]
fn batches_and_partial_states_do_not_change_the_result() {
    let mut random = Random(1);
    for call in calls() {
        for round in 0..6 {
            let rows = Rows::random(&call, 300, &mut random);
            let mut once = fresh(&call);
            update(once.as_mut(), &rows);
            assert_eq!(*results(once.as_ref()).data_type(), arrow_type(&call.result), "{call:?}");

            let mut cut = fresh(&call);
            let mut merged = fresh(&call);
            for piece in rows.pieces(&mut random) {
                update(cut.as_mut(), &piece);
                let mut partial = fresh(&call);
                update(partial.as_mut(), &piece);
                hand_over(partial.as_ref(), merged.as_mut());
            }
            let what = format!("round {round} of {call:?}");
            assert_same(&results(cut.as_ref()), &results(once.as_ref()), &format!("cut into batches, {what}"));
            assert_same(&results(merged.as_ref()), &results(once.as_ref()), &format!("merged from partials, {what}"));
            // Reading drains nothing.
            assert_same(&results(merged.as_ref()), &results(once.as_ref()), &what);
        }
    }
}

#[test]
fn what_is_taken_back_leaves_no_trace() {
    let mut random = Random(2);
    for call in calls().into_iter().filter(|call| call.retracts) {
        for round in 0..6 {
            let rows = Rows::random(&call, 200, &mut random);
            let (kept, gone): (Vec<u32>, Vec<u32>) = (0..200).partition(|_| random.below(2) == 0 && round > 0);
            let mut expected = fresh(&call);
            update(expected.as_mut(), &rows.pick(&kept));

            let mut all = fresh(&call);
            update(all.as_mut(), &rows);
            retract(all.as_mut(), &rows.pick(&gone));
            let what = format!("round {round} of {call:?}");
            assert_same(&results(all.as_ref()), &results(expected.as_ref()), &what);

            // A partial state that only takes back, and rows that come and go within one.
            let mut partial = fresh(&call);
            retract(partial.as_mut(), &rows.pick(&gone));
            update(partial.as_mut(), &rows.pick(&kept));
            retract(partial.as_mut(), &rows.pick(&kept));
            let mut merged = fresh(&call);
            update(merged.as_mut(), &rows);
            hand_over(partial.as_ref(), merged.as_mut());
            assert_same(&results(merged.as_ref()), &results(expected.as_ref()), &format!("through a partial, {what}"));
        }
    }
}

#[test]
fn a_state_goes_to_other_slots_and_cleared_slots_are_empty() {
    let mut random = Random(3);
    for call in calls() {
        let rows = Rows::random(&call, 200, &mut random);
        let mut first = fresh(&call);
        let empty = results(first.as_ref());
        update(first.as_mut(), &rows);
        let before = results(first.as_ref());

        let mut restored = fresh(&call);
        restored.merge(&[4, 2, 0], &first.state(&[0, 1, 3])).unwrap();
        let moved = restored.value(&[4, 2, 0]).unwrap();
        assert_same(&moved, &first.value(&[0, 1, 3]).unwrap(), &format!("restored {call:?}"));
        assert_same(&restored.value(&[1, 3]).unwrap(), &empty.slice(1, 2), &format!("untouched {call:?}"));

        first.clear(&[1, 2]);
        assert_same(&first.value(&[1, 2]).unwrap(), &empty.slice(1, 2), &format!("cleared {call:?}"));
        assert_same(&first.value(&[0, 3]).unwrap(), &before_at(&before, &[0, 3]), &format!("not cleared {call:?}"));
        update(first.as_mut(), &rows.pick(&slots_rows(&rows, &[1, 2])));
        assert_same(&results(first.as_ref()), &before, &format!("filled again {call:?}"));
        assert!(first.bytes() > 0);
    }
}

fn before_at(array: &ArrayRef, rows: &[u32]) -> ArrayRef {
    take(array, &UInt32Array::from(rows.to_vec()), None).unwrap()
}

fn slots_rows(rows: &Rows, slots: &[u32]) -> Vec<u32> {
    (0..rows.len() as u32).filter(|&row| slots.contains(&rows.slots[row as usize])).collect()
}

/// Against plain loops over each group's values.
#[test]
fn results_are_what_plain_loops_give() {
    let mut random = Random(4);
    for retracts in [false, true] {
        let base = Call { retracts, ..call(Count, DataType::BigInt, DataType::BigInt) };
        let rows = Rows { filter: None, ..Rows::random(&base, 400, &mut random) };
        let of = |function, distinct, result: DataType| {
            let mut accumulator = fresh(&Call { retracts, distinct, ..call(function, DataType::BigInt, result) });
            update(accumulator.as_mut(), &rows);
            cast(&results(accumulator.as_ref()), &ArrowType::Float64).unwrap().as_primitive::<Float64Type>().clone()
        };
        let (bigint, double) = (DataType::BigInt, DataType::Double);
        let found: Vec<Float64Array> = vec![
            of(Count, false, bigint.clone()),
            of(Sum, false, bigint.clone()),
            of(Avg, false, bigint.clone()),
            of(Min, false, bigint.clone()),
            of(Max, false, bigint.clone()),
            of(VarPop, false, double.clone()),
            of(StddevSamp, false, double),
            of(Count, true, bigint.clone()),
            of(Sum, true, bigint.clone()),
            of(FirstValue, false, bigint.clone()),
            of(LastValue, false, bigint),
        ];
        for group in 0..GROUPS as usize {
            let arg = rows.arg.as_ref().unwrap().as_primitive::<Int64Type>();
            let mut timed: Vec<(i64, i64)> = (0..rows.len())
                .filter(|&row| rows.slots[row] as usize == group && arg.is_valid(row))
                .map(|row| (rows.time[row], arg.value(row)))
                .collect();
            timed.sort_unstable();
            let values: Vec<i64> = timed.iter().map(|(_, value)| *value).collect();
            let distinct: BTreeSet<i64> = values.iter().copied().collect();
            let some = |value: f64| (!values.is_empty()).then_some(value);
            let (count, sum) = (values.len() as f64, values.iter().sum::<i64>() as f64);
            let mean = sum / count;
            let squares: f64 = values.iter().map(|&value| (value as f64 - mean).powi(2)).sum();
            let expected = [
                Some(count),
                some(sum),
                some((sum / count).trunc()),
                values.iter().min().map(|&value| value as f64),
                values.iter().max().map(|&value| value as f64),
                some(squares / count),
                some((squares / (count - 1.0)).sqrt()),
                Some(distinct.len() as f64),
                some(distinct.iter().sum::<i64>() as f64),
                timed.first().map(|(_, value)| *value as f64),
                timed.last().map(|(_, value)| *value as f64),
            ];
            for (aggregate, (found, expected)) in found.iter().zip(expected).enumerate() {
                let found = found.is_valid(group).then(|| found.value(group));
                let is_close = found == expected
                    || matches!((found, expected), (Some(a), Some(b)) if (a - b).abs() <= 1e-12 * b.abs());
                assert!(is_close, "aggregate {aggregate} of group {group}: {found:?} instead of {expected:?}");
            }
        }
    }
}

fn one_group(call: &Call, arg: ArrayRef) -> Result<ArrayRef, AggregateError> {
    let mut accumulator = fresh(call);
    accumulator.update(&vec![0; arg.len()], Some(&arg), None, Some(&vec![0; arg.len()]))?;
    accumulator.value(&[0])
}

#[test]
fn overflow_depends_on_the_total_alone_and_is_an_error() {
    let sum = call(Sum, DataType::BigInt, DataType::BigInt);
    let over_and_back: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 5, -5]));
    assert_eq!(one_group(&sum, over_and_back).unwrap().as_primitive::<Int64Type>().value(0), i64::MAX);
    let over: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
    let error = one_group(&sum, over.clone()).unwrap_err();
    let expected = "sum overflows BIGINT; cast its argument to a wider type, such as DECIMAL(38, 0)";
    assert_eq!(error.to_string(), expected);
    for distinct in [false, true] {
        let wrapping = Call { wrap: true, distinct, ..sum.clone() };
        let wrapped = one_group(&wrapping, over.clone()).unwrap();
        assert_eq!(wrapped.as_primitive::<Int64Type>().value(0), i64::MIN, "distinct: {distinct}");
    }
    let average = call(Avg, DataType::BigInt, DataType::BigInt);
    assert_eq!(one_group(&average, over).unwrap().as_primitive::<Int64Type>().value(0), i64::MAX / 2 + 1);
    let int: ArrayRef = Arc::new(Int32Array::from(vec![i32::MIN, -1]));
    assert!(one_group(&call(Sum, DataType::Int, DataType::Int), int).is_err());
    let least: ArrayRef = Arc::new(Int8Array::from(vec![-100, -28]));
    assert_eq!(one_group(&call(Sum, DataType::TinyInt, DataType::TinyInt), least).unwrap().len(), 1);
    let nines = Decimal128Array::from(vec![10i128.pow(38) - 1, 1]).with_data_type(ArrowType::Decimal128(38, 0));
    let decimal = DataType::Decimal(38, 0);
    // Flink does not wrap decimals, and there is no wider type to advise.
    let wrapping = Call { wrap: true, ..call(Sum, decimal.clone(), decimal) };
    let error = one_group(&wrapping, Arc::new(nines)).unwrap_err().to_string();
    assert_eq!(error, "sum overflows DECIMAL(38, 0); cast its argument to DOUBLE");
}

#[test]
fn averages_are_cut_for_integers_and_rounded_for_decimals() {
    let average = |values: Vec<i64>| {
        let arg: ArrayRef = Arc::new(Int64Array::from(values));
        one_group(&call(Avg, DataType::BigInt, DataType::BigInt), arg).unwrap().as_primitive::<Int64Type>().value(0)
    };
    assert_eq!((average(vec![-3, -4]), average(vec![3, 4])), (-3, 3));
    let decimals = |values: Vec<i128>| {
        let arg = Decimal128Array::from(values).with_data_type(ArrowType::Decimal128(10, 2));
        let result = one_group(&call(Avg, DataType::Decimal(10, 2), DataType::Decimal(38, 6)), Arc::new(arg)).unwrap();
        result.as_primitive::<arrow::datatypes::Decimal128Type>().value_as_string(0)
    };
    assert_eq!(decimals(vec![100, 100, 0]), "0.666667");
    assert_eq!(decimals(vec![-100, -100, 0]), "-0.666667");
    assert_eq!(decimals(vec![100, 0, 0]), "0.333333");
}

#[test]
fn percentiles_are_within_one_percent_of_the_exact_ones() {
    let mut random = Random(5);
    let mut values: Vec<f64> = (0..5000)
        .map(|_| {
            let magnitude = 10f64.powi(random.below(12) as i32 - 4) * (1.0 + random.below(1000) as f64 / 1000.0);
            if random.below(3) == 0 { -magnitude } else { magnitude }
        })
        .collect();
    values.extend([0.0, -0.0, 1e300, 5e-324]);
    let arg: ArrayRef = Arc::new(Float64Array::from(values.clone()));
    values.sort_by(f64::total_cmp);
    for fraction in [0.0, 0.01, 0.3333, 0.5, 0.9, 0.99, 1.0] {
        let call = Call { fraction: Some(fraction), ..call(ApproxPercentile, DataType::Double, DataType::Double) };
        let found = one_group(&call, arg.clone()).unwrap().as_primitive::<Float64Type>().value(0);
        let exact = values[(fraction * (values.len() - 1) as f64) as usize];
        assert!((found - exact).abs() <= 0.010_000_1 * exact.abs(), "{fraction}: {found} instead of {exact}");
    }
}

#[test]
fn special_floats_have_one_meaning() {
    let of = |function, values: &[f64]| {
        let arg: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        let result = one_group(&call(function, DataType::Double, DataType::Double), arg).unwrap();
        result.as_primitive::<Float64Type>().value(0)
    };
    assert!(of(Max, &[f64::INFINITY, -f64::NAN, 1.0]).is_nan(), "NaN is the largest, whatever its sign bit");
    assert_eq!(of(Min, &[-f64::NAN, 1.0, f64::NEG_INFINITY]), f64::NEG_INFINITY);
    assert!(of(Min, &[-0.0]).is_sign_positive());
    assert!(of(Sum, &[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    assert_eq!(of(Sum, &[f64::INFINITY, 1.0]), f64::INFINITY);
    assert_eq!(of(Sum, &[0.1, 1e20, 0.2, -1e20]), 0.1 + 0.2);
    assert!(of(VarPop, &[1.0, f64::INFINITY]).is_nan());
    assert!(of(VarPop, &[1e300, -1e300]).is_nan(), "squares beyond the range of DOUBLE are not a variance of 0");
    // A mean of 1e9 with deviations of 1: lost when squares are summed in plain doubles.
    let far: Vec<f64> = (0..1000).map(|i| 1e9 + f64::from(i % 3) - 1.0).collect();
    let spread = far.iter().map(|x| (x - 1e9).powi(2)).sum::<f64>() / 1000.0
        - (far.iter().map(|x| x - 1e9).sum::<f64>() / 1000.0).powi(2);
    assert!((of(VarPop, &far) - spread).abs() <= 1e-12 * spread);
}

#[test]
fn only_true_passes_a_filter() {
    let mut count = fresh(&Call { arg: None, arg_type: None, ..call(Count, DataType::BigInt, DataType::BigInt) });
    let mask = BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]);
    count.update(&[0, 0, 0, 1], None, Some(&mask), None).unwrap();
    assert_eq!(results(count.as_ref()).as_primitive::<Int64Type>().values().as_ref(), [1, 1, 0, 0, 0]);
    // The same through `filter`, for an aggregate that keeps values.
    let values: ArrayRef = Arc::new(StringArray::from(vec!["b", "a", "c", "d"]));
    let mut max = fresh(&call(Max, DataType::String, DataType::String));
    max.update(&[0, 0, 0], Some(&values.slice(0, 3)), Some(&mask.slice(0, 3)), None).unwrap();
    let kept = filter(&values.slice(0, 3), &mask.slice(0, 3)).unwrap();
    let together = concat(&[&kept, &max.value(&[0]).unwrap()]).unwrap();
    assert_eq!(together.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["b", "b"]);
}

#[test]
fn aggregates_without_a_meaning_are_refused_by_name() {
    let error = accumulator(&call(Sum, DataType::String, DataType::String)).err().unwrap();
    assert_eq!(error.to_string(), "sum cannot be computed over STRING");
    let map = DataType::Map(Box::new(DataType::String), Box::new(DataType::Int));
    assert!(accumulator(&call(Max, map.clone(), map.clone())).is_err());
    assert!(accumulator(&Call { distinct: true, ..call(Count, map, DataType::BigInt) }).is_err());
    assert!(accumulator(&Call { fraction: None, ..call(ApproxPercentile, DataType::Int, DataType::Double) }).is_err());
}

/// Of a changelog's two halves the taking back may come first, in a partial state of another worker.
#[test]
fn a_value_taken_back_before_it_came_is_not_there_and_then_leaves_nothing() {
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "b"]));
    let slots = [0, 0, 0];
    for (function, distinct) in [(Min, false), (Max, false), (LastValue, false), (Count, true)] {
        let result = if function == Count { DataType::BigInt } else { DataType::String };
        let call = Call { retracts: true, distinct, ..call(function, DataType::String, result) };
        let mut values = fresh(&call);
        let nothing = values.value(&[0]).unwrap();
        values.retract(&slots, Some(&texts), None, Some(&[1, 2, 3])).unwrap();
        assert_eq!(&values.value(&[0]).unwrap(), &nothing, "{call:?}");
        let held = values.state(&[0]);
        assert!(held[0].as_list::<i32>().value(0).len() >= 2, "the partial state says what is owed");
        values.update(&slots, Some(&texts), None, Some(&[1, 2, 3])).unwrap();
        assert_eq!(values.state(&[0])[0].as_list::<i32>().value(0).len(), 0, "{call:?} keeps entries of nothing");
    }
}
