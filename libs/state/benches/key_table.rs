//! How many nanoseconds does a row cost to find its slot, and its key group?
//!
//! `cargo bench -p state` measures; run without `--bench`, as `cargo test` does, it only exercises the code with tiny input.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Fields};
use state::{KeyTable, key_hashes};

const BATCH: usize = 8192;

fn main() {
    let rows = if std::env::args().any(|arg| arg == "--bench") { 4_000_000 } else { 20_000 };
    let numbers = |distinct: u64, salt: u64| move |row: u64| (mix(row ^ salt << 40) % distinct) as i64;
    let int = |f: &dyn Fn(u64) -> i64| batches(rows, f, |values| Arc::new(Int64Array::from(values)));
    let text = |distinct: u64| {
        let f = numbers(distinct, 5);
        batches(rows, move |row| format!("user-{:018}", f(row)), |values| Arc::new(StringArray::from(values)))
    };
    let zip = |a: Vec<ArrayRef>, b: Vec<ArrayRef>| a.into_iter().zip(b).map(|(a, b)| vec![a, b]).collect::<Vec<_>>();
    let one = |a: Vec<ArrayRef>| a.into_iter().map(|a| vec![a]).collect::<Vec<_>>();

    measure("one i64, 10k groups", &one(int(&numbers(10_000, 0))), rows);
    measure("one i64, 100k groups", &one(int(&numbers(100_000, 0))), rows);
    measure("one i64, 1M groups", &one(int(&numbers(1_000_000, 0))), rows);
    measure("two i64, 10k groups", &zip(int(&numbers(100, 0)), int(&numbers(100, 1))), rows);
    let pairs = numbers(500_000, 0);
    measure("two i64, 500k groups", &zip(int(&|r| pairs(r) / 700), int(&|r| pairs(r) % 700)), rows);
    measure("one text of 23 bytes, 50k groups", &one(text(50_000)), rows);
    measure("i64 and text, 50k groups", &zip(int(&|row| (row / 1000 % 2) as i64), text(25_000)), rows);
}

fn measure(name: &str, input: &[Vec<ArrayRef>], rows: usize) {
    let fields: Fields = input[0]
        .iter()
        .map(|column| Field::new("k", column.data_type().clone(), !matches!(column.data_type(), DataType::Null)))
        .collect();
    let (mut intern, mut again, mut hash) = (f64::MAX, f64::MAX, f64::MAX);
    let mut groups = 0;
    for _ in 0..3 {
        let mut table = KeyTable::new(&fields).unwrap();
        intern = intern.min(time(rows, || probe(&mut table, input)));
        again = again.min(time(rows, || probe(&mut table, input)));
        hash = hash.min(time(rows, || {
            input.iter().for_each(|columns| drop(black_box(key_hashes(columns, columns[0].len()))))
        }));
        groups = table.len();
    }
    println!(
        "{name:34} {groups:8} groups: {intern:5.1} ns/row from empty, {again:5.1} ns/row all known, {hash:5.1} ns/row key hash"
    );
}

fn probe(table: &mut KeyTable, input: &[Vec<ArrayRef>]) {
    let mut slots = Vec::new();
    for columns in input {
        slots.clear();
        table.intern(columns, columns[0].len(), &mut slots);
        black_box(&slots);
    }
}

fn time(rows: usize, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / rows as f64
}

fn batches<T>(rows: usize, value: impl Fn(u64) -> T, build: impl Fn(Vec<T>) -> ArrayRef) -> Vec<ArrayRef> {
    (0..rows)
        .step_by(BATCH)
        .map(|at| build((at..(at + BATCH).min(rows)).map(|row| value(row as u64)).collect()))
        .collect()
}

fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x ^ (x >> 32)
}
