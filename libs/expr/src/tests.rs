//! Tables of expressions and what they give: the type, then the values for the row of [`input`] and for a row of NULLs.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt32Array};
use arrow::compute;
use graph::{Column, DataType, Schema};

use crate::cast::{self, Mode};
use crate::{Env, EvalError, ExprError, arrow_schema, compile};

/// name, type, the text of its value.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("tiny", "TINYINT", "5"),
    ("small", "SMALLINT", "300"),
    ("i", "INT", "7"),
    ("b", "BIGINT", "9000000000"),
    ("f", "FLOAT", "0.5"),
    ("d", "DOUBLE", "2.5"),
    ("dec", "DECIMAL(10, 2)", "12.35"),
    ("s", "STRING", "Hello Wörld"),
    ("n", "STRING", "42"),
    ("bo", "BOOLEAN", "true"),
    ("by", "BYTES", "abc"),
    ("dt", "DATE", "2024-02-29"),
    ("tm", "TIME", "12:34:56"),
    ("ts0", "TIMESTAMP(0)", "2024-02-29 12:34:56"),
    ("ts", "TIMESTAMP(3)", "2024-02-29 12:34:56.789"),
    ("ts6", "TIMESTAMP(6)", "2024-02-29 12:34:56.789123"),
    ("ltz", "TIMESTAMP_LTZ(3)", "2024-02-29 12:34:56.789"),
    ("zero", "INT", "0"),
    ("min", "BIGINT", "-9223372036854775808"),
    ("js", "STRING", r#"{"a": {"b": [10, {"c": "x"}]}, "t": true, "n": null, "f": 1.50}"#),
];

fn schema() -> Schema {
    Schema::new(COLUMNS.iter().map(|(name, t, _)| Column::new(*name, t.parse().unwrap(), true)).collect())
}

/// One row of values, then one of NULLs.
fn input() -> RecordBatch {
    let columns: Vec<ArrayRef> = COLUMNS
        .iter()
        .map(|(_, t, value)| {
            let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(*value), None]));
            cast::array(&texts, &DataType::String, &t.parse().unwrap(), Mode::Strict, false).unwrap()
        })
        .collect();
    RecordBatch::try_new(arrow_schema(&schema()), columns).unwrap()
}

/// 2024-03-01 00:00:00.123456 UTC.
const NOW_US: i64 = 1_709_251_200_123_456;

fn env() -> Env {
    Env { now_us: Arc::new(AtomicI64::new(NOW_US)), overflow_wrap: false }
}

fn texts(values: &ArrayRef, t: &DataType) -> Vec<String> {
    let mut shown = Vec::new();
    for row in 0..values.len() {
        let mut text = String::new();
        match arrow::array::Array::is_null(values, row) {
            true => text.push_str("NULL"),
            false => cast::write_value(&mut text, values, t, row).unwrap(),
        }
        shown.push(text);
    }
    shown
}

fn show_error(error: &ExprError) -> String {
    let span = error.span.map_or("?".to_string(), |(_, from, _, to)| format!("{from}..{to}"));
    let hint = error.hint.as_ref().map_or(String::new(), |hint| format!(" -- {hint}"));
    format!("[{}] {span}: {}{hint}", error.code, error.message)
}

fn show_with(text: &str, env: &Env) -> String {
    let rows = input();
    let compiled = match compile(text, &schema(), env) {
        Ok(compiled) => compiled,
        Err(error) => return show_error(&error),
    };
    // Row by row and both at once must agree, and so must a batch in which the rows come many times.
    let both = match compiled.evaluate(&rows) {
        Ok(both) => both,
        Err(EvalError { row, message }) => return format!("row {}: {message}", row.map_or("?".into(), |row| row.to_string())),
    };
    let many = UInt32Array::from_iter_values((0..70).map(|at| u32::from(at % 3 == 0)));
    let batch = compute::take_record_batch(&rows, &many).unwrap();
    let expected = compute::take(&both, &many, None).unwrap();
    assert_eq!(&compiled.evaluate(&batch).unwrap(), &expected, "{text}: another result in another batch");
    assert_eq!(compiled.evaluate(&rows.slice(1, 1)).unwrap().as_ref(), both.slice(1, 1).as_ref(), "{text}: another result in a slice");
    assert_eq!(compiled.evaluate(&rows.slice(0, 0)).unwrap().len(), 0, "{text}: rows from no rows");
    let shown = texts(&both, compiled.data_type());
    assert!(compiled.nullable() || !shown.contains(&"NULL".to_string()), "{text} gave NULL but is NOT NULL");
    let null = if compiled.nullable() { "" } else { " NOT NULL" };
    match shown[0] == shown[1] {
        true => format!("{}{null}: {}", compiled.data_type(), shown[0]),
        false => format!("{}{null}: {} | {}", compiled.data_type(), shown[0], shown[1]),
    }
}

fn show(text: &str) -> String {
    show_with(text, &env())
}

fn check(table: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (text, expected) in table {
        let got = show(text);
        if got != *expected {
            wrong.push_str(&format!("(r#\"{text}\"#, r#\"{got}\"#), // not {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn arithmetic() {
    check(&[
        ("i + 1", ""), ("tiny + tiny", ""), ("tiny + small", ""), ("i + b", ""), ("b * 2", ""), ("i / 2", ""), ("-7 / 2", ""), ("-7 % 3", ""), ("b % 7", ""), ("b % i", ""), ("MOD(b, 7)", ""),
        ("i + d", ""), ("i + f", ""), ("f + d", ""), ("dec + 1", ""), ("dec * dec", ""), ("dec * 2", ""), ("0.908 * b", ""), ("7 / 2.0", ""), ("dec / 3", ""), ("dec % 5", ""), ("dec + d", ""),
        ("-i", ""), ("- -i", ""), ("-min", ""), ("min - 1", ""), ("9223372036854775807 + i", ""), ("2147483647 + i", ""), ("2147483647 + 1", ""), ("2147483648 + 1", ""), ("-9223372036854775808", ""), ("9223372036854775808", ""),
        ("i / zero", ""), ("i % zero", ""), ("dec / zero", ""), ("d / zero", ""), ("-d / zero", ""), ("1 / 0", ""), ("1.0 / 0", ""), ("1e0 / 0", ""), ("CASE WHEN zero <> 0 THEN i / zero ELSE -1 END", ""),
        ("zero <> 0 AND i / zero > 1", ""), ("zero = 0 OR i / zero > 1", ""), ("i / zero > 1 AND zero <> 0", ""), ("CASE WHEN FALSE THEN 1 / 0 ELSE 1 END", ""),
        ("min / -1", ""), ("min % -1", ""), ("1e3", ""), ("1.5", ""), ("0.05", ""), ("12345678901234567890123456789012345678901", ""),
        ("s + 1", ""), ("bo + 1", ""), ("NULL + 1", ""), ("i + NULL", ""), ("NULL", ""), ("i ^ 2", ""),
    ]);
}
