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
        Err(EvalError { row, message }) => {
            return format!("row {}: {message}", row.map_or("?".into(), |row| row.to_string()));
        }
    };
    let many = UInt32Array::from_iter_values((0..70).map(|at| u32::from(at % 3 == 0)));
    let batch = compute::take_record_batch(&rows, &many).unwrap();
    let expected = compute::take(&both, &many, None).unwrap();
    assert_eq!(&compiled.evaluate(&batch).unwrap(), &expected, "{text}: another result in another batch");
    assert_eq!(
        compiled.evaluate(&rows.slice(1, 1)).unwrap().as_ref(),
        both.slice(1, 1).as_ref(),
        "{text}: another result in a slice"
    );
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
        (r#"i + 1"#, r#"INT: 8 | NULL"#),
        (r#"tiny + tiny"#, r#"TINYINT: 10 | NULL"#),
        (r#"tiny + small"#, r#"SMALLINT: 305 | NULL"#),
        (r#"i + b"#, r#"BIGINT: 9000000007 | NULL"#),
        (r#"b * 2"#, r#"BIGINT: 18000000000 | NULL"#),
        (r#"i / 2"#, r#"INT: 3 | NULL"#),
        (r#"-7 / 2"#, r#"INT NOT NULL: -3"#),
        (r#"-7 % 3"#, r#"INT NOT NULL: -1"#),
        (r#"b % 7"#, r#"INT: 5 | NULL"#),
        (r#"b % i"#, r#"INT: 5 | NULL"#),
        (r#"MOD(b, 7)"#, r#"INT: 5 | NULL"#),
        (r#"i + d"#, r#"DOUBLE: 9.5 | NULL"#),
        (r#"i + f"#, r#"FLOAT: 7.5 | NULL"#),
        (r#"f + d"#, r#"DOUBLE: 3.0 | NULL"#),
        (r#"dec + 1"#, r#"DECIMAL(13, 2): 13.35 | NULL"#),
        (r#"dec * dec"#, r#"DECIMAL(21, 4): 152.5225 | NULL"#),
        (r#"dec * 2"#, r#"DECIMAL(21, 2): 24.70 | NULL"#),
        (r#"0.908 * b"#, r#"DECIMAL(23, 3): 8172000000.000 | NULL"#),
        (r#"7 / 2.0"#, r#"DECIMAL(17, 6) NOT NULL: 3.500000"#),
        (r#"dec / 3"#, r#"DECIMAL(21, 13): 4.1166666666667 | NULL"#),
        (r#"dec % 5"#, r#"DECIMAL(10, 2): 2.35 | NULL"#),
        (r#"dec + d"#, r#"DOUBLE: 14.85 | NULL"#),
        (r#"dec - dec"#, r#"DECIMAL(11, 2): 0.00 | NULL"#),
        (r#"-i"#, r#"INT: -7 | NULL"#),
        (r#"- -i"#, r#"INT: 7 | NULL"#),
        (r#"-dec"#, r#"DECIMAL(10, 2): -12.35 | NULL"#),
        (r#"-min"#, r#"row 0: BIGINT overflow: the smallest value has no positive counterpart"#),
        (r#"min - 1"#, r#"row 0: BIGINT overflow: -9223372036854775808 - 1"#),
        (r#"9223372036854775807 + i"#, r#"row 0: BIGINT overflow: 9223372036854775807 + 7"#),
        (r#"2147483647 + i"#, r#"row 0: INT overflow: 2147483647 + 7"#),
        (
            r#"2147483647 + 1"#,
            r#"[constant_fails] 1..15: the constant expression cannot be computed: INT overflow: 2147483647 + 1"#,
        ),
        (r#"2147483648 + 1"#, r#"BIGINT NOT NULL: 2147483649"#),
        (r#"-9223372036854775808"#, r#"BIGINT NOT NULL: -9223372036854775808"#),
        (r#"9223372036854775808"#, r#"DECIMAL(19, 0) NOT NULL: 9223372036854775808"#),
        (r#"i / zero"#, r#"row 0: division by zero"#),
        (r#"i % zero"#, r#"row 0: division by zero"#),
        (r#"dec / zero"#, r#"row 0: division by zero"#),
        (r#"d / zero"#, r#"DOUBLE: Infinity | NULL"#),
        (r#"-d / zero"#, r#"DOUBLE: -Infinity | NULL"#),
        (r#"1 / 0"#, r#"[division_by_zero] 1..6: the constant expression cannot be computed: division by zero"#),
        (r#"1.0 / 0"#, r#"[division_by_zero] 1..8: the constant expression cannot be computed: division by zero"#),
        (r#"1e0 / 0"#, r#"DOUBLE NOT NULL: Infinity"#),
        (r#"min / -1"#, r#"row 0: BIGINT overflow: -9223372036854775808 / -1"#),
        (r#"min % -1"#, r#"INT: 0 | NULL"#),
        (r#"1e3"#, r#"DOUBLE NOT NULL: 1000.0"#),
        (r#"1.5"#, r#"DECIMAL(2, 1) NOT NULL: 1.5"#),
        (r#"0.05"#, r#"DECIMAL(2, 2) NOT NULL: 0.05"#),
        (r#".5"#, r#"DECIMAL(1, 1) NOT NULL: 0.5"#),
        (
            r#"12345678901234567890123456789012345678901"#,
            r#"[number_too_large] 1..42: 12345678901234567890123456789012345678901 has more than 38 digits -- write it with an exponent for a DOUBLE"#,
        ),
        (r#"1e999"#, r#"[number_too_large] 1..6: 1e999 does not fit DOUBLE"#),
        (
            r#"CAST(99999999999999999999999999999999999999 AS DECIMAL(38, 0)) + dec"#,
            r#"row 0: DECIMAL overflow: 99999999999999999999999999999999999999 + 12.35 does not fit DECIMAL(38, 2)"#,
        ),
        (
            r#"s + 1"#,
            r#"[type_mismatch] 1..6: + does not take STRING and INT -- write a || b to join texts, or CAST(text AS BIGINT) to calculate"#,
        ),
        (
            r#"bo + 1"#,
            r#"[type_mismatch] 1..7: + does not take BOOLEAN and INT -- write CAST(... AS ...) around one of them"#,
        ),
        (r#"NULL + 1"#, r#"INT: NULL"#),
        (r#"i + NULL"#, r#"INT: NULL"#),
        (
            r#"NULL"#,
            r#"[untyped_null] 1..5: NULL has no type of its own here -- write CAST(NULL AS STRING), or the type that is meant"#,
        ),
        (r#"i ^ 2"#, r#"[unknown_operator] 1..6: there is no operator ^ -- write POWER(a, b)"#),
        (r#"+i"#, r#"INT: 7 | NULL"#),
        (r#"+s"#, r#"[type_mismatch] 2..3: + stands before a number, not STRING"#),
    ]);
}

#[test]
fn conditions() {
    check(&[
        (r#"CASE WHEN zero <> 0 THEN i / zero ELSE -1 END"#, r#"INT: -1"#),
        (r#"zero <> 0 AND i / zero > 1"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"zero = 0 OR i / zero > 1"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"i / zero > 1 AND zero <> 0"#, r#"row 0: division by zero"#),
        (r#"CASE WHEN FALSE THEN 1 / 0 ELSE 1 END"#, r#"INT NOT NULL: 1"#),
        (r#"CASE i WHEN 7 THEN 'seven' WHEN 8 THEN 'eight' END"#, r#"STRING: seven | NULL"#),
        (r#"CASE WHEN i > 5 THEN i ELSE dec END"#, r#"DECIMAL(12, 2): 7.00 | NULL"#),
        (
            r#"CASE WHEN bo THEN 1 ELSE 'x' END"#,
            r#"[type_mismatch] 26..29: CASE cannot give both INT and STRING -- write CAST(... AS INT) around one of them"#,
        ),
        (
            r#"CASE WHEN i THEN 1 END"#,
            r#"[type_mismatch] 11..12: WHEN wants BOOLEAN, not INT -- write a comparison, such as x <> 0"#,
        ),
        (r#"COALESCE(i, b, 1)"#, r#"BIGINT NOT NULL: 7 | 1"#),
        (r#"COALESCE(NULL, i)"#, r#"INT: 7 | NULL"#),
        (r#"COALESCE(1, i / zero)"#, r#"INT NOT NULL: 1"#),
        (r#"COALESCE(i, 1 / 0)"#, r#"row 1: division by zero"#),
        (r#"IFNULL(s, 'none')"#, r#"STRING NOT NULL: Hello Wörld | none"#),
        (r#"IF(bo, 'yes', 'no')"#, r#"STRING NOT NULL: yes | no"#),
        (r#"IF(zero = 0, 0, i / zero)"#, r#"INT: 0 | NULL"#),
        (r#"NULLIF(i, 7)"#, r#"INT: NULL"#),
        (r#"NULLIF(i, 8)"#, r#"INT: 7 | NULL"#),
        (
            r#"NULLIF(i, 'x')"#,
            r#"[type_mismatch] 11..14: NULLIF does not compare INT with STRING -- write CAST(... AS INT) around the text"#,
        ),
        (r#"i = 7"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"i = 7.0"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"tiny = 5"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"tiny = 500"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"d = dec"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"s = 'Hello Wörld'"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"s = 'Hello Wörld '"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"'a' = 'a '"#, r#"BOOLEAN NOT NULL: FALSE"#),
        (r#"'B' < 'a'"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (
            r#"i = '7'"#,
            r#"[type_mismatch] 5..8: = does not compare INT with STRING -- write CAST(... AS INT) around the text"#,
        ),
        (
            r#"s = 1"#,
            r#"[type_mismatch] 5..6: = does not compare STRING with INT -- write CAST(... AS INT) around the text"#,
        ),
        (r#"ts = '2024-02-29 12:34:56.789'"#, r#"BOOLEAN: TRUE | NULL"#),
        (
            r#"ts > 'yesterday'"#,
            r#"[constant_fails] 6..17: the constant expression cannot be computed: "yesterday" cannot be read as TIMESTAMP(3); TRY_CAST gives NULL instead"#,
        ),
        (r#"dt = '2024-02-29'"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"dt < ts"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"bo = TRUE"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"NOT bo"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"NOT i"#, r#"[type_mismatch] 5..6: NOT wants BOOLEAN, not INT -- write a comparison, such as x <> 0"#),
        (r#"i IS NULL"#, r#"BOOLEAN NOT NULL: FALSE | TRUE"#),
        (r#"i IS NOT NULL"#, r#"BOOLEAN NOT NULL: TRUE | FALSE"#),
        (r#"NULL IS NULL"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"bo IS TRUE"#, r#"BOOLEAN NOT NULL: TRUE | FALSE"#),
        (r#"bo IS NOT TRUE"#, r#"BOOLEAN NOT NULL: FALSE | TRUE"#),
        (r#"bo IS FALSE"#, r#"BOOLEAN NOT NULL: FALSE"#),
        (r#"bo IS UNKNOWN"#, r#"BOOLEAN NOT NULL: FALSE | TRUE"#),
        (r#"i IS DISTINCT FROM 7"#, r#"BOOLEAN NOT NULL: FALSE | TRUE"#),
        (r#"i IS DISTINCT FROM NULL"#, r#"BOOLEAN NOT NULL: TRUE | FALSE"#),
        (r#"i IS NOT DISTINCT FROM NULL"#, r#"BOOLEAN NOT NULL: FALSE | TRUE"#),
        (r#"bo IS DISTINCT FROM TRUE AND i > 7"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"bo IS NOT DISTINCT FROM TRUE OR i > 7"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"i = 7 AND bo IS NOT DISTINCT FROM TRUE AND i < 9"#, r#"BOOLEAN: TRUE | FALSE"#),
        (r#"NOT bo IS DISTINCT FROM TRUE AND i = 7"#, r#"BOOLEAN: TRUE | FALSE"#),
        (r#"NOT (bo IS DISTINCT FROM TRUE AND i > 7)"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"i IS DISTINCT FROM 7 IS NOT DISTINCT FROM FALSE"#, r#"BOOLEAN NOT NULL: TRUE | FALSE"#),
        (r#"i IS DISTINCT FROM 7 = TRUE"#, r#"BOOLEAN NOT NULL: FALSE | TRUE"#),
        (r#"i IS DISTINCT FROM 3 + 4"#, r#"BOOLEAN NOT NULL: FALSE | TRUE"#),
        (r#"CASE WHEN bo IS DISTINCT FROM TRUE THEN 1 ELSE 2 END"#, r#"INT NOT NULL: 2 | 1"#),
        (r#"i BETWEEN 1 AND 7"#, r#"BOOLEAN: TRUE | NULL"#),
        (
            r#"i BETWEEN SYMMETRIC 7 AND 1"#,
            r#"[syntax_error] 11..12: BETWEEN SYMMETRIC is not supported -- write x BETWEEN LEAST(a, b) AND GREATEST(a, b)"#,
        ),
        (r#"i BETWEEN LEAST(7, 1) AND GREATEST(7, 1)"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"i NOT BETWEEN 1 AND 7"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"i IN (1, 7)"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"i IN (1, NULL)"#, r#"BOOLEAN: NULL"#),
        (r#"i NOT IN (1, NULL)"#, r#"BOOLEAN: NULL"#),
        (r#"i NOT IN (1, 2)"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"s IN ('a', 'Hello Wörld')"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"d IN (2.5, 3)"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"i IN (zero, b, 7)"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"dt IN ('2024-02-29', '2024-03-01')"#, r#"BOOLEAN: TRUE | NULL"#),
        (
            r#"i IN ('a')"#,
            r#"[type_mismatch] 7..10: IN does not compare INT with STRING -- write CAST(... AS INT) around the text"#,
        ),
        (r#"s LIKE 'Hello%'"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"s LIKE '%W_rld'"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"s LIKE 'hello%'"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"s ILIKE 'hello%'"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"s NOT LIKE '%x%'"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"'50%' LIKE '50!%' ESCAPE '!'"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"'50x' LIKE '50!%' ESCAPE '!'"#, r#"BOOLEAN NOT NULL: FALSE"#),
        (
            r#"'a' LIKE 'a!b' ESCAPE '!'"#,
            r#"[invalid_pattern] 10..15: the escape character in "a!b" stands before something else than %, _ or itself"#,
        ),
        (r#"'a\b' LIKE 'a\b'"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"i LIKE '7'"#, r#"[type_mismatch] 1..2: LIKE wants STRING, not INT -- write CAST(... AS STRING)"#),
        (
            r#"s SIMILAR TO 'x'"#,
            r#"[unsupported] 1..17: SIMILAR TO and RLIKE are not supported -- write REGEXP(text, 'pattern')"#,
        ),
        (r#"0.0e0 = -0.0e0"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"bo AND NULL"#, r#"BOOLEAN: NULL"#),
        (r#"FALSE AND NULL"#, r#"BOOLEAN NOT NULL: FALSE"#),
        (r#"TRUE OR NULL"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"NULL AND NULL"#, r#"BOOLEAN: NULL"#),
        (r#"bo AND i"#, r#"[type_mismatch] 8..9: AND wants BOOLEAN, not INT -- write a comparison, such as x <> 0"#),
    ]);
}

#[test]
fn casts() {
    check(&[
        (r#"CAST(d AS INT)"#, r#"INT: 2 | NULL"#),
        (r#"CAST(-2.9e0 AS INT)"#, r#"INT NOT NULL: -2"#),
        (r#"CAST(1e10 AS INT)"#, r#"INT NOT NULL: 2147483647"#),
        (r#"CAST(-1e30 AS BIGINT)"#, r#"BIGINT NOT NULL: -9223372036854775808"#),
        (r#"CAST(b AS INT)"#, r#"row 0: BIGINT 9000000000 does not fit INT"#),
        (r#"CAST(small AS TINYINT)"#, r#"row 0: SMALLINT 300 does not fit TINYINT"#),
        (r#"TRY_CAST(small AS TINYINT)"#, r#"TINYINT: NULL"#),
        (r#"CAST(dec AS INT)"#, r#"INT: 12 | NULL"#),
        (r#"CAST(dec AS DECIMAL(5, 1))"#, r#"DECIMAL(5, 1): 12.4 | NULL"#),
        (r#"CAST(-2.345 AS DECIMAL(5, 2))"#, r#"DECIMAL(5, 2) NOT NULL: -2.35"#),
        (r#"CAST(dec AS DECIMAL(3, 2))"#, r#"row 0: 12.35 does not fit DECIMAL(3, 2)"#),
        (r#"TRY_CAST(dec AS DECIMAL(3, 2))"#, r#"DECIMAL(3, 2): NULL"#),
        (r#"CAST(i AS DECIMAL(10, 2))"#, r#"DECIMAL(10, 2): 7.00 | NULL"#),
        (r#"CAST(0.1e0 AS DECIMAL(10, 3))"#, r#"DECIMAL(10, 3) NOT NULL: 0.100"#),
        (r#"CAST(n AS INT)"#, r#"INT: 42 | NULL"#),
        (r#"CAST(' 42 ' AS INT)"#, r#"INT NOT NULL: 42"#),
        (r#"CAST(s AS INT)"#, r#"row 0: "Hello Wörld" cannot be read as INT; TRY_CAST gives NULL instead"#),
        (r#"TRY_CAST(s AS INT)"#, r#"INT: NULL"#),
        (r#"CAST('4.9' AS INT)"#, r#"INT NOT NULL: 4"#),
        (
            r#"CAST('' AS INT)"#,
            r#"[constant_fails] 6..8: the constant expression cannot be computed: "" cannot be read as INT; TRY_CAST gives NULL instead"#,
        ),
        (r#"CAST('1e2' AS DOUBLE)"#, r#"DOUBLE NOT NULL: 100.0"#),
        (
            r#"CAST('x' AS DOUBLE)"#,
            r#"[constant_fails] 6..9: the constant expression cannot be computed: "x" cannot be read as DOUBLE; TRY_CAST gives NULL instead"#,
        ),
        (r#"CAST('1.005' AS DECIMAL(10, 2))"#, r#"DECIMAL(10, 2) NOT NULL: 1.01"#),
        (
            r#"CAST('abc' AS BOOLEAN)"#,
            r#"[constant_fails] 6..11: the constant expression cannot be computed: "abc" cannot be read as BOOLEAN; TRY_CAST gives NULL instead"#,
        ),
        (r#"CAST('Yes' AS BOOLEAN)"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"CAST(bo AS STRING)"#, r#"STRING: TRUE | NULL"#),
        (r#"CAST(bo AS INT)"#, r#"INT: 1 | NULL"#),
        (r#"CAST(i AS BOOLEAN)"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"CAST(zero AS BOOLEAN)"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"CAST(d AS STRING)"#, r#"STRING: 2.5 | NULL"#),
        (r#"CAST(f AS STRING)"#, r#"STRING: 0.5 | NULL"#),
        (r#"CAST(1e20 AS STRING)"#, r#"STRING NOT NULL: 1.0E20"#),
        (r#"CAST(1e7 AS STRING)"#, r#"STRING NOT NULL: 1.0E7"#),
        (r#"CAST(1234567.125e0 AS STRING)"#, r#"STRING NOT NULL: 1234567.125"#),
        (r#"CAST(0.001e0 AS STRING)"#, r#"STRING NOT NULL: 0.001"#),
        (r#"CAST(0.00012e0 AS STRING)"#, r#"STRING NOT NULL: 1.2E-4"#),
        (r#"CAST(0e0 AS STRING)"#, r#"STRING NOT NULL: 0.0"#),
        (r#"CAST(d / zero AS STRING)"#, r#"STRING: Infinity | NULL"#),
        (r#"CAST(dec AS STRING)"#, r#"STRING: 12.35 | NULL"#),
        (r#"CAST(b AS STRING)"#, r#"STRING: 9000000000 | NULL"#),
        (r#"CAST(ts AS STRING)"#, r#"STRING: 2024-02-29 12:34:56.789 | NULL"#),
        (r#"CAST(ts0 AS STRING)"#, r#"STRING: 2024-02-29 12:34:56 | NULL"#),
        (r#"CAST(ts6 AS STRING)"#, r#"STRING: 2024-02-29 12:34:56.789123 | NULL"#),
        (r#"CAST(ltz AS STRING)"#, r#"STRING: 2024-02-29 12:34:56.789 | NULL"#),
        (r#"CAST(dt AS STRING)"#, r#"STRING: 2024-02-29 | NULL"#),
        (r#"CAST(tm AS STRING)"#, r#"STRING: 12:34:56 | NULL"#),
        (r#"CAST(by AS STRING)"#, r#"STRING: abc | NULL"#),
        (r#"CAST(s AS BYTES)"#, r#"BYTES: Hello Wörld | NULL"#),
        (r#"CAST(ts6 AS TIMESTAMP(3))"#, r#"TIMESTAMP(3): 2024-02-29 12:34:56.789 | NULL"#),
        (r#"CAST(ts AS TIMESTAMP(0))"#, r#"TIMESTAMP(0): 2024-02-29 12:34:56 | NULL"#),
        (r#"CAST(ts AS TIMESTAMP(6))"#, r#"TIMESTAMP(6): 2024-02-29 12:34:56.789000 | NULL"#),
        (r#"CAST(ts AS DATE)"#, r#"DATE: 2024-02-29 | NULL"#),
        (r#"CAST(ts AS TIME)"#, r#"TIME: 12:34:56.789000 | NULL"#),
        (r#"CAST(dt AS TIMESTAMP(3))"#, r#"TIMESTAMP(3): 2024-02-29 00:00:00.000 | NULL"#),
        (r#"CAST(ts AS TIMESTAMP_LTZ(3))"#, r#"TIMESTAMP_LTZ(3): 2024-02-29 12:34:56.789 | NULL"#),
        (r#"CAST('2020-01-01 00:00:00.1234' AS TIMESTAMP(3))"#, r#"TIMESTAMP(3) NOT NULL: 2020-01-01 00:00:00.123"#),
        (r#"CAST('2020-01-01' AS DATE)"#, r#"DATE NOT NULL: 2020-01-01"#),
        (
            r#"CAST('2020-02-30' AS DATE)"#,
            r#"[constant_fails] 6..18: the constant expression cannot be computed: "2020-02-30" cannot be read as DATE; TRY_CAST gives NULL instead"#,
        ),
        (r#"TRY_CAST('2020-02-30' AS DATE)"#, r#"DATE: NULL"#),
        (r#"CAST('12:30' AS TIME)"#, r#"TIME NOT NULL: 12:30:00"#),
        (
            r#"CAST(ts AS BIGINT)"#,
            r#"[type_mismatch] 6..8: TIMESTAMP(3) cannot be cast to BIGINT -- write UNIX_TIMESTAMP(text) or TIMESTAMPDIFF(SECOND, TIMESTAMP '1970-01-01 00:00:00', t)"#,
        ),
        (
            r#"CAST(b AS TIMESTAMP(3))"#,
            r#"[type_mismatch] 6..7: BIGINT cannot be cast to TIMESTAMP(3) -- write TO_TIMESTAMP_LTZ(number, 3) for milliseconds, or 0 for seconds"#,
        ),
        (r#"CAST(NULL AS INT)"#, r#"INT: NULL"#),
        (r#"CAST(i AS BIGNT)"#, r#"[unknown_type] 6..7: cannot read the type "BIGNT": there is no type BIGNT"#),
        (r#"CAST(s AS VARCHAR)"#, r#"STRING: Hello Wörld | NULL"#),
        (
            r#"CAST(s AS VARCHAR(3))"#,
            r#"[unknown_type] 6..7: cannot read the type "VARCHAR(3)": lengths are not supported; write STRING"#,
        ),
        (r#"i::BIGINT"#, r#"BIGINT: 7 | NULL"#),
        (r#"CAST(ARRAY[1, 2] AS STRING)"#, r#"STRING NOT NULL: [1, 2]"#),
        (r#"CAST(ARRAY[1, 2] AS ARRAY<BIGINT>)"#, r#"ARRAY<BIGINT> NOT NULL: [1, 2]"#),
        (r#"CAST(ROW(1, 'a') AS STRING)"#, r#"STRING NOT NULL: (1, a)"#),
    ]);
}

#[test]
fn times() {
    check(&[
        (r#"ts + INTERVAL '10' SECOND"#, r#"TIMESTAMP(3): 2024-02-29 12:35:06.789 | NULL"#),
        (r#"ts - INTERVAL '1' DAY"#, r#"TIMESTAMP(3): 2024-02-28 12:34:56.789 | NULL"#),
        (r#"ts0 + INTERVAL '0.5' SECOND"#, r#"TIMESTAMP(3): 2024-02-29 12:34:56.500 | NULL"#),
        (r#"ts + INTERVAL '1 02:03:04.5' DAY TO SECOND"#, r#"TIMESTAMP(3): 2024-03-01 14:38:01.289 | NULL"#),
        (r#"ts + INTERVAL '1:30' MINUTE TO SECOND"#, r#"TIMESTAMP(3): 2024-02-29 12:36:26.789 | NULL"#),
        (r#"ts + INTERVAL '1' YEAR"#, r#"TIMESTAMP(3): 2025-02-28 12:34:56.789 | NULL"#),
        (r#"ts + INTERVAL '1-1' YEAR TO MONTH"#, r#"TIMESTAMP(3): 2025-03-29 12:34:56.789 | NULL"#),
        (r#"DATE '2023-01-31' + INTERVAL '1' MONTH"#, r#"DATE NOT NULL: 2023-02-28"#),
        (r#"dt + INTERVAL '1' DAY"#, r#"DATE: 2024-03-01 | NULL"#),
        (r#"dt + INTERVAL '1' HOUR"#, r#"TIMESTAMP(0): 2024-02-29 01:00:00 | NULL"#),
        (r#"tm + INTERVAL '12' HOUR"#, r#"TIME: 00:34:56 | NULL"#),
        (r#"INTERVAL '1' DAY + ts"#, r#"TIMESTAMP(3): 2024-03-01 12:34:56.789 | NULL"#),
        (r#"ts + i * INTERVAL '1' SECOND"#, r#"TIMESTAMP(3): 2024-02-29 12:35:03.789 | NULL"#),
        (
            r#"ts - ts6"#,
            r#"[type_mismatch] 1..9: a column cannot have the type INTERVAL DAY TO SECOND -- add it to a timestamp, or write TIMESTAMPDIFF(SECOND, a, b) for a number"#,
        ),
        (r#"ts - ts6 < INTERVAL '1' SECOND"#, r#"BOOLEAN: TRUE | NULL"#),
        (
            r#"INTERVAL '1' DAY"#,
            r#"[type_mismatch] 10..13: a column cannot have the type INTERVAL DAY TO SECOND -- add it to a timestamp, or write TIMESTAMPDIFF(SECOND, a, b) for a number"#,
        ),
        (
            r#"ts + 1"#,
            r#"[type_mismatch] 1..7: + does not take TIMESTAMP(3) and INT -- write t + INTERVAL '10' SECOND, or TIMESTAMPADD(SECOND, n, t)"#,
        ),
        (
            r#"ts + INTERVAL 'x' SECOND"#,
            r#"[invalid_interval] 15..18: cannot read "x" as an INTERVAL SECOND -- write INTERVAL '10' SECOND, INTERVAL '1 02:03:04.5' DAY TO SECOND or INTERVAL '1-6' YEAR TO MONTH"#,
        ),
        (r#"ts + INTERVAL '1' FORTNIGHT"#, r#"[syntax_error] 19..28: the expression ends before FORTNIGHT"#),
        (
            r#"i + INTERVAL '1' DAY"#,
            r#"[type_mismatch] 1..2: an INTERVAL is added to a time, not to INT -- write CAST(... AS TIMESTAMP(3)) around it"#,
        ),
        (
            r#"ts + ts"#,
            r#"[type_mismatch] 1..8: + does not take TIMESTAMP(3) and TIMESTAMP(3) -- write CAST(... AS ...) around one of them"#,
        ),
        (r#"TIMESTAMP '2020-01-01 00:00:00'"#, r#"TIMESTAMP(0) NOT NULL: 2020-01-01 00:00:00"#),
        (r#"TIMESTAMP '2020-01-01 00:00:00.123'"#, r#"TIMESTAMP(3) NOT NULL: 2020-01-01 00:00:00.123"#),
        (
            r#"TIMESTAMP '2020-13-01 00:00:00'"#,
            r#"[constant_fails] 11..32: the constant expression cannot be computed: "2020-13-01 00:00:00" cannot be read as TIMESTAMP(0); TRY_CAST gives NULL instead"#,
        ),
        (r#"DATE '2020-01-01'"#, r#"DATE NOT NULL: 2020-01-01"#),
        (r#"TIME '10:00:00'"#, r#"TIME NOT NULL: 10:00:00"#),
        (r#"EXTRACT(YEAR FROM ts)"#, r#"BIGINT: 2024 | NULL"#),
        (r#"EXTRACT(DOW FROM DATE '2024-03-03')"#, r#"BIGINT NOT NULL: 1"#),
        (r#"EXTRACT(WEEK FROM ts)"#, r#"BIGINT: 9 | NULL"#),
        (r#"EXTRACT(SECOND FROM ts)"#, r#"BIGINT: 56 | NULL"#),
        (r#"EXTRACT(EPOCH FROM ts)"#, r#"BIGINT: 1709210096 | NULL"#),
        (r#"EXTRACT(HOUR FROM dt)"#, r#"BIGINT: 0 | NULL"#),
        (r#"EXTRACT(HOUR FROM tm)"#, r#"BIGINT: 12 | NULL"#),
        (
            r#"EXTRACT(HOUR FROM s)"#,
            r#"[type_mismatch] 19..20: HOUR is a part of a time, and STRING has none -- write TO_TIMESTAMP(text)"#,
        ),
        (r#"EXTRACT(DECADE FROM ts)"#, r#"BIGINT: 202 | NULL"#),
        (r#"YEAR(ts)"#, r#"BIGINT: 2024 | NULL"#),
        (r#"QUARTER(ts)"#, r#"BIGINT: 1 | NULL"#),
        (r#"MONTH(dt)"#, r#"BIGINT: 2 | NULL"#),
        (r#"WEEK(dt)"#, r#"BIGINT: 9 | NULL"#),
        (r#"DAYOFYEAR(ts)"#, r#"BIGINT: 60 | NULL"#),
        (r#"DAYOFMONTH(ts)"#, r#"BIGINT: 29 | NULL"#),
        (r#"DAYOFWEEK(ts)"#, r#"BIGINT: 5 | NULL"#),
        (r#"HOUR(ts)"#, r#"BIGINT: 12 | NULL"#),
        (r#"MINUTE(ltz)"#, r#"BIGINT: 34 | NULL"#),
        (r#"SECOND(ts6)"#, r#"BIGINT: 56 | NULL"#),
        (r#"FLOOR(ts TO HOUR)"#, r#"TIMESTAMP(3): 2024-02-29 12:00:00.000 | NULL"#),
        (r#"CEIL(ts TO HOUR)"#, r#"TIMESTAMP(3): 2024-02-29 13:00:00.000 | NULL"#),
        (r#"FLOOR(ts TO DAY)"#, r#"TIMESTAMP(3): 2024-02-29 00:00:00.000 | NULL"#),
        (r#"FLOOR(ts TO WEEK)"#, r#"TIMESTAMP(3): 2024-02-25 00:00:00.000 | NULL"#),
        (r#"CEIL(ts TO MONTH)"#, r#"TIMESTAMP(3): 2024-03-01 00:00:00.000 | NULL"#),
        (r#"FLOOR(ts TO YEAR)"#, r#"TIMESTAMP(3): 2024-01-01 00:00:00.000 | NULL"#),
        (r#"FLOOR(dt TO MONTH)"#, r#"DATE: 2024-02-01 | NULL"#),
        (r#"CEIL(dt TO YEAR)"#, r#"DATE: 2025-01-01 | NULL"#),
        (r#"FLOOR(ts0 TO MILLISECOND)"#, r#"TIMESTAMP(0): 2024-02-29 12:34:56 | NULL"#),
        (
            r#"FLOOR(ts TO DOW)"#,
            r#"[unknown_unit] 7..9: FLOOR does not round to DOW -- there is YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND"#,
        ),
        (r#"FLOOR(i TO DAY)"#, r#"[type_mismatch] 7..8: FLOOR(t TO DAY) takes a DATE or a timestamp, not INT"#),
        (r#"TIMESTAMPADD(DAY, 1, ts)"#, r#"TIMESTAMP(3): 2024-03-01 12:34:56.789 | NULL"#),
        (r#"TIMESTAMPADD(MONTH, i, ts)"#, r#"TIMESTAMP(3): 2024-09-29 12:34:56.789 | NULL"#),
        (r#"TIMESTAMPADD(HOUR, -1, dt)"#, r#"TIMESTAMP(0): 2024-02-28 23:00:00 | NULL"#),
        (r#"TIMESTAMPADD(WEEK, 1, dt)"#, r#"DATE: 2024-03-07 | NULL"#),
        (
            r#"TIMESTAMPADD(SECOND, 1)"#,
            r#"[wrong_arguments] 1..23: TIMESTAMPADD does not take 2 arguments -- write TIMESTAMPADD(unit, n, timestamp)"#,
        ),
        (r#"TIMESTAMPDIFF(DAY, DATE '2024-01-01', dt)"#, r#"INT: 59 | NULL"#),
        (
            r#"TIMESTAMPDIFF(MONTH, TIMESTAMP '2023-01-31 00:00:00', TIMESTAMP '2023-02-28 00:00:00')"#,
            r#"INT NOT NULL: 1"#,
        ),
        (
            r#"TIMESTAMPDIFF(MONTH, TIMESTAMP '2023-02-28 00:00:00', TIMESTAMP '2023-01-31 00:00:00')"#,
            r#"INT NOT NULL: -1"#,
        ),
        (r#"TIMESTAMPDIFF(YEAR, DATE '2000-03-01', dt)"#, r#"INT: 23 | NULL"#),
        (r#"TIMESTAMPDIFF(SECOND, ts, ts + INTERVAL '90' SECOND)"#, r#"INT: 90 | NULL"#),
        (r#"TIMESTAMPDIFF(MILLISECOND, ts0, ts)"#, r#"BIGINT: 789 | NULL"#),
        (r#"DATE_FORMAT(ts, 'yyyy-MM-dd HH:mm')"#, r#"STRING: 2024-02-29 12:34 | NULL"#),
        (r#"DATE_FORMAT(ts6, 'SSS')"#, r#"STRING: 789 | NULL"#),
        (r#"DATE_FORMAT(dt, 'EEEE')"#, r#"STRING: Thursday | NULL"#),
        (r#"DATE_FORMAT('2020-01-01 01:02:03', 'HH')"#, r#"STRING NOT NULL: 01"#),
        (
            r#"DATE_FORMAT(ts, 'QQ')"#,
            r#"[invalid_pattern] 17..21: the letter Q in the pattern "QQ" is not known; there is y M d D E H h m s S a X, and text in '...' -- write it as in Java, such as 'yyyy-MM-dd HH:mm:ss'"#,
        ),
        (
            r#"DATE_FORMAT(ts, s)"#,
            r#"row 0: the letter e in the pattern "Hello Wörld" is not known; there is y M d D E H h m s S a X, and text in '...'"#,
        ),
        (r#"TO_TIMESTAMP('2020-01-01 01:02:03.5')"#, r#"TIMESTAMP(3) NOT NULL: 2020-01-01 01:02:03.500"#),
        (r#"TO_TIMESTAMP('nonsense')"#, r#"TIMESTAMP(3): NULL"#),
        (r#"TO_TIMESTAMP('01/02/2020', 'dd/MM/yyyy')"#, r#"TIMESTAMP(3) NOT NULL: 2020-02-01 00:00:00.000"#),
        (r#"TO_TIMESTAMP(s)"#, r#"TIMESTAMP(3): NULL"#),
        (
            r#"TO_TIMESTAMP(b)"#,
            r#"[type_mismatch] 14..15: TO_TIMESTAMP takes a text, not BIGINT -- write TO_TIMESTAMP_LTZ(number, 3) for milliseconds, or 0 for seconds"#,
        ),
        (r#"TO_TIMESTAMP_LTZ(b, 3)"#, r#"TIMESTAMP_LTZ(3): 1970-04-15 04:00:00.000 | NULL"#),
        (r#"TO_TIMESTAMP_LTZ(i, 0)"#, r#"TIMESTAMP_LTZ(3): 1970-01-01 00:00:07.000 | NULL"#),
        (
            r#"TO_TIMESTAMP_LTZ(i, 7)"#,
            r#"[wrong_arguments] 21..22: the second argument of TO_TIMESTAMP_LTZ is the number's precision -- write 0 for seconds, 3 for milliseconds, 6 or 9"#,
        ),
        (r#"TO_DATE('2020-01-01')"#, r#"DATE NOT NULL: 2020-01-01"#),
        (r#"TO_DATE('x')"#, r#"DATE: NULL"#),
        (r#"TO_DATE('20200102', 'yyyyMMdd')"#, r#"DATE NOT NULL: 2020-01-02"#),
        (r#"UNIX_TIMESTAMP('2020-01-01 00:00:00')"#, r#"BIGINT NOT NULL: 1577836800"#),
        (r#"UNIX_TIMESTAMP(s)"#, r#"BIGINT: NULL"#),
        (r#"FROM_UNIXTIME(0)"#, r#"STRING NOT NULL: 1970-01-01 00:00:00"#),
        (r#"FROM_UNIXTIME(i, 'mm:ss')"#, r#"STRING: 00:07 | NULL"#),
        (r#"NOW()"#, r#"TIMESTAMP_LTZ(3) NOT NULL: 2024-03-01 00:00:00.123"#),
        (r#"CURRENT_TIMESTAMP"#, r#"TIMESTAMP_LTZ(3) NOT NULL: 2024-03-01 00:00:00.123"#),
        (r#"LOCALTIMESTAMP"#, r#"TIMESTAMP(3) NOT NULL: 2024-03-01 00:00:00.123"#),
        (r#"CURRENT_DATE"#, r#"DATE NOT NULL: 2024-03-01"#),
        (r#"CURRENT_TIME"#, r#"TIME NOT NULL: 00:00:00.123000"#),
        (r#"UNIX_TIMESTAMP()"#, r#"BIGINT NOT NULL: 1709251200"#),
        (r#"PROCTIME()"#, r#"TIMESTAMP_LTZ(3) NOT NULL: 2024-03-01 00:00:00.123"#),
        (r#"NOW() > ltz"#, r#"BOOLEAN: TRUE | NULL"#),
        (
            r#"ts AT TIME ZONE 'UTC'"#,
            r#"[unsupported] 1..22: AT TIME ZONE is not supported; the session's time zone is UTC -- add or subtract an INTERVAL"#,
        ),
    ]);
}

#[test]
fn functions_of_texts() {
    check(&[
        (r#"s || '!'"#, r#"STRING: Hello Wörld! | NULL"#),
        (r#"s || i"#, r#"[type_mismatch] 6..7: CONCAT wants STRING, not INT -- write CAST(... AS STRING)"#),
        (r#"CONCAT(s, n)"#, r#"STRING: Hello Wörld42 | NULL"#),
        (r#"CONCAT(s, NULL)"#, r#"STRING: NULL"#),
        (r#"CONCAT_WS('-', s, NULL, n)"#, r#"STRING NOT NULL: Hello Wörld-42 | "#),
        (r#"CONCAT_WS(NULL, s)"#, r#"STRING: NULL"#),
        (r#"UPPER(s)"#, r#"STRING: HELLO WÖRLD | NULL"#),
        (r#"UPPER('straße')"#, r#"STRING NOT NULL: STRASSE"#),
        (r#"LOWER(s)"#, r#"STRING: hello wörld | NULL"#),
        (r#"INITCAP('hELLO wORLD-x 1a')"#, r#"STRING NOT NULL: Hello World-X 1a"#),
        (r#"REVERSE(s)"#, r#"STRING: dlröW olleH | NULL"#),
        (r#"TRIM('  a ')"#, r#"STRING NOT NULL: a"#),
        (r#"TRIM(BOTH 'x' FROM 'xxaxx')"#, r#"STRING NOT NULL: a"#),
        (r#"TRIM(LEADING 'x' FROM 'xxaxx')"#, r#"STRING NOT NULL: axx"#),
        (r#"TRIM(TRAILING 'x' FROM 'xxaxx')"#, r#"STRING NOT NULL: xxa"#),
        (r#"LTRIM('  a ')"#, r#"STRING NOT NULL: a "#),
        (r#"RTRIM('  a ')"#, r#"STRING NOT NULL:   a"#),
        (r#"BTRIM('xax', 'x')"#, r#"STRING NOT NULL: a"#),
        (r#"CHAR_LENGTH(s)"#, r#"INT: 11 | NULL"#),
        (r#"CHARACTER_LENGTH(s)"#, r#"INT: 11 | NULL"#),
        (r#"OCTET_LENGTH(s)"#, r#"INT: 12 | NULL"#),
        (r#"ASCII(s)"#, r#"INT: 72 | NULL"#),
        (r#"ASCII('')"#, r#"INT NOT NULL: 0"#),
        (r#"CHR(65)"#, r#"STRING NOT NULL: A"#),
        (r#"CHR(-1)"#, r#"STRING NOT NULL: "#),
        (r#"SUBSTRING(s, 2, 3)"#, r#"STRING: ell | NULL"#),
        (r#"SUBSTRING('hello', 0, 2)"#, r#"STRING NOT NULL: he"#),
        (r#"SUBSTRING(s, -3)"#, r#"STRING: rld | NULL"#),
        (r#"SUBSTRING(s FROM 7 FOR 2)"#, r#"STRING: Wö | NULL"#),
        (r#"SUBSTRING(s, 1, -1)"#, r#"STRING:  | NULL"#),
        (r#"SUBSTR(s, 100)"#, r#"STRING:  | NULL"#),
        (r#"LEFT(s, 2)"#, r#"STRING: He | NULL"#),
        (r#"RIGHT(s, 2)"#, r#"STRING: ld | NULL"#),
        (r#"LEFT(s, -1)"#, r#"STRING:  | NULL"#),
        (r#"LPAD('7', 3, '0')"#, r#"STRING NOT NULL: 007"#),
        (r#"RPAD('7', 3, 'xy')"#, r#"STRING NOT NULL: 7xy"#),
        (r#"LPAD('hello', 2, 'x')"#, r#"STRING NOT NULL: he"#),
        (r#"LPAD('a', 3, '')"#, r#"STRING: NULL"#),
        (
            r#"LPAD('a', 2000000000, 'x')"#,
            r#"[constant_fails] 6..26: the constant expression cannot be computed: LPAD to 2000000000 characters is too long; 10000000 are the most"#,
        ),
        (r#"REPEAT('ab', 2)"#, r#"STRING NOT NULL: abab"#),
        (r#"REPEAT('ab', -1)"#, r#"STRING NOT NULL: "#),
        (r#"REPLACE(s, 'l', 'L')"#, r#"STRING: HeLLo WörLd | NULL"#),
        (r#"SPLIT_INDEX('a,b,c', ',', 1)"#, r#"STRING NOT NULL: b"#),
        (r#"SPLIT_INDEX('a,b,c', ',', 3)"#, r#"STRING: NULL"#),
        (r#"SPLIT_INDEX('a,b,c', ',', -1)"#, r#"STRING: NULL"#),
        (r#"SPLIT_INDEX(s, ' ', 0)"#, r#"STRING: Hello | NULL"#),
        (r#"SPLIT_INDEX('a,b', 44, 1)"#, r#"STRING NOT NULL: b"#),
        (r#"LOCATE('l', s)"#, r#"INT: 3 | NULL"#),
        (r#"LOCATE('l', s, 5)"#, r#"INT: 10 | NULL"#),
        (r#"LOCATE('zz', s)"#, r#"INT: 0 | NULL"#),
        (r#"POSITION('W' IN s)"#, r#"INT: 7 | NULL"#),
        (r#"POSITION('ö' IN s)"#, r#"INT: 8 | NULL"#),
        (r#"INSTR(s, 'rld')"#, r#"INT: 9 | NULL"#),
        (r#"STARTSWITH(s, 'Hello')"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"ENDSWITH(s, 'x')"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"IS_ALPHA(s)"#, r#"BOOLEAN NOT NULL: FALSE"#),
        (r#"IS_ALPHA('abc')"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"IS_DIGIT(n)"#, r#"BOOLEAN NOT NULL: TRUE | FALSE"#),
        (r#"IS_DECIMAL('1.5')"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (r#"IS_DIGIT('')"#, r#"BOOLEAN NOT NULL: FALSE"#),
        (r#"REGEXP(s, 'W.r')"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"REGEXP(s, '^x')"#, r#"BOOLEAN: FALSE | NULL"#),
        (r#"REGEXP_EXTRACT('channel_id=42&x', 'channel_id=(\d+)', 1)"#, r#"STRING NOT NULL: 42"#),
        (r#"REGEXP_EXTRACT(s, 'W(.)(.)', 2)"#, r#"STRING: r | NULL"#),
        (r#"REGEXP_EXTRACT(s, 'zzz')"#, r#"STRING: NULL"#),
        (r#"REGEXP_EXTRACT(s, '(')"#, r#"STRING: NULL"#),
        (
            r#"REGEXP_EXTRACT(s, '(?=x)')"#,
            r#"[unsupported_pattern] 19..26: the pattern "(?=x)" looks around or refers to groups, which is not supported -- write it without looking ahead or back and without references to groups"#,
        ),
        (r#"REGEXP_REPLACE(s, '[aeiou]', '<$0>')"#, r#"STRING: H<e>ll<o> Wörld | NULL"#),
        (r#"REGEXP_REPLACE(s, '(l+)', '[$1]')"#, r#"STRING: He[ll]o Wör[l]d | NULL"#),
        (r#"REGEXP_REPLACE(s, 'o', '\$')"#, r#"STRING: Hell$ Wörld | NULL"#),
        (r#"TRANSLATE('abc', 'ab', 'xy')"#, r#"STRING NOT NULL: xyc"#),
        (r#"OVERLAY('abcdef' PLACING 'X' FROM 2 FOR 3)"#, r#"STRING NOT NULL: aXef"#),
        (r#"LEVENSHTEIN('a', 'b')"#, r#"INT NOT NULL: 1"#),
        (r#"STRPOS(s, 'W')"#, r#"INT: 7 | NULL"#),
        (r#"MD5('a')"#, r#"STRING NOT NULL: 0cc175b9c0f1b6a831c399e269772661"#),
        (r#"SHA1('abc')"#, r#"STRING NOT NULL: a9993e364706816aba3e25717850c26c9cd0d89d"#),
        (r#"SHA1('')"#, r#"STRING NOT NULL: da39a3ee5e6b4b0d3255bfef95601890afd80709"#),
        (r#"SHA1(REPEAT('a', 56))"#, r#"STRING NOT NULL: c2db330f6083854c99d4b5bfb6e8f29f201be699"#),
        (r#"SHA224('a')"#, r#"STRING NOT NULL: abd37534c7d9a2efb9465de931cd7055ffdb8879563ae98078d6d6d5"#),
        (r#"SHA256('a')"#, r#"STRING NOT NULL: ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"#),
        (
            r#"SHA512('')"#,
            r#"STRING NOT NULL: cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"#,
        ),
        (r#"SHA2('a', 256)"#, r#"STRING NOT NULL: ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"#),
        (r#"SHA2('a', 5)"#, r#"[wrong_arguments] 11..12: the length of SHA2 is 224, 256, 384 or 512"#),
        (r#"MD5(s)"#, r#"STRING: 69679709f11bbbcc7519dc9605c5c6c8 | NULL"#),
        (r#"TO_BASE64('hello')"#, r#"STRING NOT NULL: aGVsbG8="#),
        (r#"TO_BASE64('hell')"#, r#"STRING NOT NULL: aGVsbA=="#),
        (r#"FROM_BASE64('aGVsbA==')"#, r#"STRING NOT NULL: hell"#),
        (
            r#"FROM_BASE64('!')"#,
            r#"[constant_fails] 13..16: the constant expression cannot be computed: FROM_BASE64: the text is not Base64"#,
        ),
        (r#"HEX(255)"#, r#"STRING NOT NULL: FF"#),
        (r#"HEX('abc')"#, r#"STRING NOT NULL: 616263"#),
        (r#"UNHEX('616263')"#, r#"BYTES NOT NULL: abc"#),
        (r#"UNHEX('x')"#, r#"BYTES: NULL"#),
        (r#"ENCODE('a', 'UTF-8')"#, r#"BYTES NOT NULL: a"#),
        (r#"PARSE_URL('http://u@h.com:80/p/q?a=1&b=2#r', 'HOST')"#, r#"STRING NOT NULL: h.com"#),
        (r#"PARSE_URL('http://h.com/p?a=1&b=2', 'QUERY', 'b')"#, r#"STRING NOT NULL: 2"#),
        (r#"PARSE_URL('http://h.com/p?a=1', 'PATH')"#, r#"STRING NOT NULL: /p"#),
        (r#"PARSE_URL('nope', 'HOST')"#, r#"STRING: NULL"#),
        (r#"URL_ENCODE('a b/ö')"#, r#"STRING NOT NULL: a+b%2F%C3%B6"#),
        (r#"URL_DECODE('a+b%2F%C3%B6')"#, r#"STRING NOT NULL: a b/ö"#),
        (r#"URL_DECODE('%')"#, r#"STRING: NULL"#),
        (r#"JSON_VALUE(js, '$.a.b[0]')"#, r#"STRING: 10 | NULL"#),
        (r#"JSON_VALUE(js, '$.a.b[1].c')"#, r#"STRING: x | NULL"#),
        (r#"JSON_VALUE(js, '$.t')"#, r#"STRING: true | NULL"#),
        (r#"JSON_VALUE(js, '$.n')"#, r#"STRING: NULL"#),
        (r#"JSON_VALUE(js, '$.a')"#, r#"STRING: NULL"#),
        (r#"JSON_VALUE(js, '$.f')"#, r#"STRING: 1.50 | NULL"#),
        (r#"JSON_VALUE(js, '$[''a''].b[9]')"#, r#"STRING: NULL"#),
        (r#"JSON_VALUE(s, '$.a')"#, r#"STRING: NULL"#),
        (r#"JSON_VALUE(js, s)"#, r#"[unsupported] 16..17: the path into JSON is a constant text -- write '$.a.b[0]'"#),
        (r#"JSON_VALUE('{"a": 1, "a": 2}', '$.a')"#, r#"STRING NOT NULL: 2"#),
        (r#"JSON_VALUE('{"a": 1} x', '$.a')"#, r#"STRING: NULL"#),
        (r#"JSON_QUERY(js, '$.a')"#, r#"STRING: {"b":[10,{"c":"x"}]} | NULL"#),
        (r#"JSON_QUERY(js, '$.t')"#, r#"STRING: NULL"#),
        (r#"JSON_EXISTS(js, '$.n')"#, r#"BOOLEAN: TRUE | NULL"#),
        (r#"JSON_EXISTS(js, '$.x')"#, r#"BOOLEAN: FALSE | NULL"#),
    ]);
}

#[test]
fn functions_of_numbers() {
    check(&[
        (r#"POWER(2, 10)"#, r#"DOUBLE NOT NULL: 1024.0"#),
        (r#"POWER(i, 0.5)"#, r#"DOUBLE: 2.6457513110645907 | NULL"#),
        (r#"SQRT(16)"#, r#"DOUBLE NOT NULL: 4.0"#),
        (r#"SQRT(-1)"#, r#"DOUBLE NOT NULL: NaN"#),
        (r#"EXP(0)"#, r#"DOUBLE NOT NULL: 1.0"#),
        (r#"LN(1)"#, r#"DOUBLE NOT NULL: 0.0"#),
        (r#"LOG(10)"#, r#"DOUBLE NOT NULL: 2.302585092994046"#),
        (r#"LOG(2, 8)"#, r#"DOUBLE NOT NULL: 3.0"#),
        (r#"LOG10(1000)"#, r#"DOUBLE NOT NULL: 3.0"#),
        (r#"LOG2(8)"#, r#"DOUBLE NOT NULL: 3.0"#),
        (r#"SIN(0)"#, r#"DOUBLE NOT NULL: 0.0"#),
        (r#"ATAN2(0, 1)"#, r#"DOUBLE NOT NULL: 0.0"#),
        (r#"PI()"#, r#"DOUBLE NOT NULL: 3.141592653589793"#),
        (r#"E()"#, r#"DOUBLE NOT NULL: 2.718281828459045"#),
        (r#"ABS(-i)"#, r#"INT: 7 | NULL"#),
        (r#"ABS(min)"#, r#"row 0: BIGINT overflow: the smallest value has no positive counterpart"#),
        (r#"ABS(-2.5)"#, r#"DECIMAL(2, 1) NOT NULL: 2.5"#),
        (r#"ABS(-d)"#, r#"DOUBLE: 2.5 | NULL"#),
        (r#"ABS(s)"#, r#"[type_mismatch] 5..6: ABS takes a number, not STRING"#),
        (r#"SIGN(-i)"#, r#"INT: -1 | NULL"#),
        (r#"SIGN(dec)"#, r#"DECIMAL(10, 2): 1.00 | NULL"#),
        (r#"SIGN(d)"#, r#"DOUBLE: 1.0 | NULL"#),
        (r#"ROUND(2.5)"#, r#"DECIMAL(2, 0) NOT NULL: 3"#),
        (r#"ROUND(-2.5)"#, r#"DECIMAL(2, 0) NOT NULL: -3"#),
        (r#"ROUND(2.345, 2)"#, r#"DECIMAL(4, 2) NOT NULL: 2.35"#),
        (r#"ROUND(d)"#, r#"DOUBLE: 3.0 | NULL"#),
        (r#"ROUND(2.345e0, 2)"#, r#"DOUBLE NOT NULL: 2.35"#),
        (r#"ROUND(i, -1)"#, r#"INT: 10 | NULL"#),
        (r#"ROUND(dec, 1)"#, r#"DECIMAL(10, 1): 12.4 | NULL"#),
        (r#"ROUND(dec, -1)"#, r#"DECIMAL(9, 0): 10 | NULL"#),
        (
            r#"ROUND(dec, i)"#,
            r#"[unsupported] 12..13: the digits of ROUND of a DECIMAL are a constant -- write CAST(... AS DOUBLE) around the number"#,
        ),
        (r#"ROUND(f, 1)"#, r#"FLOAT: 0.5 | NULL"#),
        (r#"ROUND(1.005e0, 2)"#, r#"DOUBLE NOT NULL: 1.01"#),
        (r#"TRUNCATE(2.349, 2)"#, r#"DECIMAL(4, 2) NOT NULL: 2.34"#),
        (r#"TRUNCATE(-2.349e0, 2)"#, r#"DOUBLE NOT NULL: -2.34"#),
        (r#"TRUNCATE(d)"#, r#"DOUBLE: 2.0 | NULL"#),
        (r#"FLOOR(d)"#, r#"DOUBLE: 2.0 | NULL"#),
        (r#"CEIL(d)"#, r#"DOUBLE: 3.0 | NULL"#),
        (r#"FLOOR(-2.5)"#, r#"DECIMAL(2, 0) NOT NULL: -3"#),
        (r#"CEIL(2.5)"#, r#"DECIMAL(2, 0) NOT NULL: 3"#),
        (r#"FLOOR(i)"#, r#"INT: 7 | NULL"#),
        (r#"FLOOR(f)"#, r#"FLOAT: 0.0 | NULL"#),
        (r#"GREATEST(1, i, 3)"#, r#"INT: 7 | NULL"#),
        (r#"LEAST(i, 2.5)"#, r#"DECIMAL(11, 1): 2.5 | NULL"#),
        (r#"GREATEST(i, NULL)"#, r#"INT: NULL"#),
        (r#"LEAST('a', s)"#, r#"STRING: Hello Wörld | NULL"#),
        (
            r#"GREATEST(1, 'a')"#,
            r#"[type_mismatch] 13..16: GREATEST cannot give both INT and STRING -- write CAST(... AS INT) around one of them"#,
        ),
        (r#"BIN(5)"#, r#"STRING NOT NULL: 101"#),
        (
            r#"RAND()"#,
            r#"[non_deterministic] 1..5: RAND gives another value each time, so a restart would change results -- compute it outside, or derive it from columns, for example MD5(CAST(id AS STRING))"#,
        ),
        (
            r#"RANDOM()"#,
            r#"[non_deterministic] 1..7: RANDOM gives another value each time, so a restart would change results -- compute it outside, or derive it from columns, for example MD5(CAST(id AS STRING))"#,
        ),
        (
            r#"UUID()"#,
            r#"[non_deterministic] 1..5: UUID gives another value each time, so a restart would change results -- compute it outside, or derive it from columns, for example MD5(CAST(id AS STRING))"#,
        ),
        (r#"FACTORIAL(5)"#, r#"BIGINT NOT NULL: 120"#),
        (r#"GCD(12, 18)"#, r#"BIGINT NOT NULL: 6"#),
    ]);
}

#[test]
fn nested() {
    check(&[
        (r#"ARRAY[1, i, 3]"#, r#"ARRAY<INT> NOT NULL: [1, 7, 3] | [1, NULL, 3]"#),
        (r#"ARRAY[1, i, 3][2]"#, r#"INT: 7 | NULL"#),
        (r#"ARRAY[1, i, 3][4]"#, r#"INT: NULL"#),
        (r#"ARRAY[1][0]"#, r#"[invalid_index] 10..11: the first element of an array is [1]"#),
        (r#"ARRAY[1, 2][i]"#, r#"INT: NULL"#),
        (r#"CARDINALITY(ARRAY[1, i])"#, r#"INT NOT NULL: 2"#),
        (r#"ARRAY[]"#, r#"[untyped_null] ?: the ARRAY has no type -- write ARRAY[CAST(NULL AS INT)]"#),
        (
            r#"ARRAY[1, 'a']"#,
            r#"[type_mismatch] 10..13: ARRAY cannot give both INT and STRING -- write CAST(... AS INT) around one of them"#,
        ),
        (r#"ROW(1, s)"#, r#"ROW<`EXPR$0` INT, `EXPR$1` STRING> NOT NULL: (1, Hello Wörld) | (1, NULL)"#),
        (r#"ROW(1, s).EXPR$1"#, r#"STRING: Hello Wörld | NULL"#),
        (r#"(1, s)"#, r#"ROW<`EXPR$0` INT, `EXPR$1` STRING> NOT NULL: (1, Hello Wörld) | (1, NULL)"#),
        (r#"ARRAY_CONTAINS(ARRAY[1, 2], i)"#, r#"BOOLEAN NOT NULL: FALSE"#),
        (r#"ELEMENT(ARRAY[i])"#, r#"INT: 7 | NULL"#),
        (
            r#"ELEMENT(ARRAY[1, 2])"#,
            r#"[constant_fails] 15..19: the constant expression cannot be computed: ELEMENT wants one element, and there are 2"#,
        ),
        (r#"s[1]"#, r#"[type_mismatch] 1..2: [ ] takes an ARRAY or a MAP, not STRING"#),
        (
            r#"s.x"#,
            r#"[unknown_field] 3..4: STRING has no field x; only a ROW has fields -- names of tables do not stand here; write the column alone"#,
        ),
        (
            r#"t.i"#,
            r#"[unknown_column] 1..2: there is no column t -- names of tables do not stand here; write the column alone, or column.field of a ROW"#,
        ),
    ]);
}

#[test]
fn mistakes() {
    check(&[
        (r#"x"#, r#"[unknown_column] 1..2: there is no column x -- did you mean b?"#),
        (r#"ii"#, r#"[unknown_column] 1..3: there is no column ii -- did you mean i?"#),
        (r#"I"#, r#"INT: 7 | NULL"#),
        (r#"`i`"#, r#"INT: 7 | NULL"#),
        (
            r#""i""#,
            r#"[syntax_error] 1..4: double quotes mean nothing here: "i" -- write 'i' for a text, `i` for a column"#,
        ),
        (
            r#"t.s"#,
            r#"[unknown_column] 1..2: there is no column t -- names of tables do not stand here; write the column alone, or column.field of a ROW"#,
        ),
        (r#"UPER(s)"#, r#"[unknown_function] 1..7: there is no function UPER -- did you mean UPPER?"#),
        (
            r#"SUM(i)"#,
            r#"[unexpected_aggregate] 1..6: the aggregate SUM cannot stand here -- aggregates stand in the SELECT list and in HAVING of a query with GROUP BY"#,
        ),
        (
            r#"COUNT(*)"#,
            r#"[unexpected_aggregate] 1..6: the aggregate COUNT cannot stand here -- aggregates stand in the SELECT list and in HAVING of a query with GROUP BY"#,
        ),
        (r#"UPPER(s, s)"#, r#"[wrong_arguments] 1..11: UPPER does not take 2 arguments -- write UPPER(text)"#),
        (r#"UPPER(i)"#, r#"[type_mismatch] 7..8: UPPER wants STRING, not INT -- write CAST(... AS STRING)"#),
        (r#"i +"#, r#"[syntax_error] 4..5: Expected: an expression, but the expression ends"#),
        (r#"i i"#, r#"[syntax_error] 3..4: the expression ends before i"#),
        (r#"(i"#, r#"[syntax_error] 3..4: Expected: ), but the expression ends"#),
        (r#""#, r#"[syntax_error] 1..2: Expected: an expression, but the expression ends"#),
        (r#"i"#, r#"INT: 7 | NULL"#),
        (r#" "#, r#"[syntax_error] 2..3: Expected: an expression, but the expression ends"#),
        (r#"*"#, r#"[syntax_error] 1..2: Expected: an expression, found: *"#),
        (r#"CASE i END"#, r#"[syntax_error] 6..7: the expression ends before i"#),
        (
            r#"(SELECT 1)"#,
            r#"[unsupported] 2..10: a subquery cannot stand in an expression -- write a join, or a list of values"#,
        ),
        (
            r#"i IN (SELECT 1)"#,
            r#"[unsupported] 1..15: a subquery cannot stand in an expression -- write a join, or a list of values"#,
        ),
        (
            r#"EXISTS (SELECT 1)"#,
            r#"[unsupported] 9..17: a subquery cannot stand in an expression -- write a join, or a list of values"#,
        ),
        (r#"f(x => 1)"#, r#"[unknown_function] 1..9: there is no function F"#),
        (r#"SUM(i) OVER ()"#, r#"[unsupported] 1..6: OVER is not supported"#),
        (r#"UPPER(DISTINCT s)"#, r#"[unsupported] 1..17: UPPER takes plain arguments here"#),
        (r#"i # 1"#, r#"[syntax_error] 3..4: No infix parser for token Sharp"#),
        (
            r#"i & 1"#,
            r#"[unknown_operator] 1..6: there is no operator & -- there is + - * / % || = <> < <= > >= AND OR"#,
        ),
        (r#"'abc"#, r#"[syntax_error] 1..2: Unterminated string literal"#),
        (r#"CAST(i AS)"#, r#"[syntax_error] 10..11: Expected: a data type name, found: )"#),
        (r#"?"#, r#"[syntax_error] 1..2: ? is not a literal here"#),
        (r#":x"#, r#"[syntax_error] 1..3: :x is not a literal here"#),
        (r#"$1"#, r#"[syntax_error] 1..3: $1 is not a literal here"#),
        (
            r#"i -> 'a'"#,
            r#"[unknown_operator] 1..9: there is no operator -> -- there is + - * / % || = <> < <= > >= AND OR"#,
        ),
        (r#"NOT NOT bo"#, r#"BOOLEAN: TRUE | NULL"#),
        (
            r#"bo XOR bo"#,
            r#"[unknown_operator] 1..10: there is no operator XOR -- there is + - * / % || = <> < <= > >= AND OR"#,
        ),
        (r#"1 = 1 = TRUE"#, r#"BOOLEAN NOT NULL: TRUE"#),
        (
            r#"CURRENT_USER"#,
            r#"[unknown_column] 1..13: there is no column CURRENT_USER -- there is b, bo, by, d, dec, dt, f, i, js, ltz, min, n, s, small, tiny, tm, ts, ts0, ts6, zero"#,
        ),
        (r#"ARROW_CAST(i, 'Int64')"#, r#"[unknown_function] 1..22: there is no function ARROW_CAST"#),
        (r#"VERSION()"#, r#"[unknown_function] 1..8: there is no function VERSION"#),
        (r#"NVL(i, 1)"#, r#"INT NOT NULL: 7 | 1"#),
        (r#"DATE_TRUNC('day', ts)"#, r#"TIMESTAMP(3): 2024-02-29 00:00:00.000 | NULL"#),
    ]);
}

/// A test thread's stack is 2 MiB, as is that of a thread of the runtime.
#[test]
fn long_and_deep_texts_are_refused_and_do_not_end_the_process() {
    let chain = |term: &str, op: &str, count: usize| vec![term; count].join(op);
    let nest = |open: &str, inner: &str, close: &str, count: usize| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    for (name, text) in [
        ("10,000 terms of +", chain("i", " + ", 10_000)),
        ("2,000 terms of AND", chain("bo", " AND ", 2_000)),
        ("1,000,000 terms of OR", chain("bo", " OR ", 1_000_000)),
        ("two long chains in parentheses", format!("({}) + {}", chain("i", " + ", 700), chain("i", " + ", 700))),
        ("10,000 parentheses", nest("(", "i", ")", 10_000)),
        ("100,000 open parentheses", "(".repeat(100_000)),
        ("10,000 calls", nest("ABS(", "i", ")", 10_000)),
        ("1,000 CASEs", nest("CASE WHEN bo THEN ", "i", " END", 1_000)),
        ("10,000 NOTs", format!("{}bo", "NOT ".repeat(10_000))),
        ("500 NOTs", format!("{}bo", "NOT ".repeat(500))),
        ("40 levels of NOT NOT NOT", nest("NOT NOT NOT (", "bo", ")", 40)),
        ("500 minuses", format!("{}i", "- ".repeat(500))),
        ("900 IS NULLs", format!("i{}", " IS NULL".repeat(900))),
        ("900 casts", format!("i{}", "::INT".repeat(900))),
        ("300 different casts", format!("i{}", "::BIGINT::INT".repeat(150))),
        ("600 terms of *", chain("i", " * ", 600)),
        ("900 terms in turns", chain("i", " = 1 AND bo OR i", 450)),
        ("a list of 300,000", format!("i IN ({})", chain("1", ",", 300_000))),
        ("a list of 1,000 columns", format!("i IN ({})", chain("b", ",", 1_000))),
    ] {
        let shown = show(&text);
        assert!(shown.starts_with("[query_too_complex]"), "{name}: {}", &shown[..shown.len().min(300)]);
    }
    for (name, text, expected) in [
        ("240 terms of +", chain("i", " + ", 240), "INT: 1680 | NULL"),
        ("1,000 terms of AND", chain("bo", " AND ", 1_000), "BOOLEAN: TRUE | NULL"),
        (
            "a list of 100,000",
            format!("i IN ({})", (0..100_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",")),
            "BOOLEAN: TRUE | NULL",
        ),
        ("20 parentheses", nest("(", "i", ")", 20), "INT: 7 | NULL"),
        ("40 sums in parentheses", nest("1 + (", "i", ")", 40), "INT: 47 | NULL"),
        ("40 minuses in parentheses", nest("- (", "i", ")", 40), "INT: 7 | NULL"),
        ("30 CASEs in sums", nest("1 + CASE WHEN NOT bo THEN 0 ELSE ", "i", " END", 30), "INT: 37 | NULL"),
        ("40 calls", nest("ABS(1 + ", "i", ")", 40), "INT: 47 | NULL"),
        ("20 CASEs", nest("CASE WHEN bo THEN ", "i", " END", 20), "INT: 7 | NULL"),
    ] {
        let shown = show(&text);
        assert_eq!(&shown[..shown.len().min(300)], expected, "{name}");
    }
}

#[test]
fn forms_of_flink_that_the_parser_does_not_read() {
    check(&[
        (r#"TRIM(LEADING FROM '  a')"#, r#"STRING NOT NULL: a"#),
        (r#"TRIM(TRAILING FROM 'a  ')"#, r#"STRING NOT NULL: a"#),
        (r#"TRIM(BOTH FROM ' a ')"#, r#"STRING NOT NULL: a"#),
        (r#"TRIM(LEADING 'a' FROM 'aab')"#, r#"STRING NOT NULL: b"#),
        (r#"CAST(NULL AS ROW<a INT, b ARRAY<STRING>>)"#, r#"ROW<a INT, b ARRAY<STRING>>: NULL"#),
        (r#"CAST(NULL AS MAP<STRING, DECIMAL(10, 2)>)"#, r#"MAP<STRING, DECIMAL(10, 2)>: NULL"#),
        (r#"CAST(NULL AS ARRAY<ROW<a INT>>)"#, r#"ARRAY<ROW<a INT>>: NULL"#),
        (r#"TRY_CAST('7' AS INT)"#, r#"INT NOT NULL: 7"#),
        (
            r#"MAP['a', 1]"#,
            r#"[unsupported] 1..11: MAP[...] is not supported: maps are read, not made -- write ROW(...) or ARRAY[...]"#,
        ),
        (
            r#"map['a']"#,
            r#"[unknown_column] 1..4: there is no column map -- there is b, bo, by, d, dec, dt, f, i, js, ltz, min, n, s, small, tiny, tm, ts, ts0, ts6, zero"#,
        ),
        (r#"SUMM(i)"#, r#"[unknown_function] 1..7: there is no function SUMM -- did you mean SUM?"#),
        (r#"CUONT(*)"#, r#"[unknown_function] 1..6: there is no function CUONT -- did you mean COUNT?"#),
        (
            r#"SUBSTRING(s)"#,
            r#"[wrong_arguments] 11..12: SUBSTRING does not take 1 argument -- write SUBSTRING(text, from) or SUBSTRING(text, from, length)"#,
        ),
        (r#"SUBSTRING('hello' FOR 2)"#, r#"STRING NOT NULL: he"#),
        (r#"HEX(X'ff00')"#, r#"STRING NOT NULL: FF00"#),
        (r#"TO_BASE64(X'ff00')"#, r#"STRING NOT NULL: /wA="#),
        (r#"DECODE(X'61ff62', 'UTF-8')"#, "STRING NOT NULL: a\u{fffd}b"),
    ]);
}

#[test]
fn all_errors_of_an_expression_are_told_and_none_that_follows() {
    let errors = |text: &str| {
        let parsed = crate::compiled::parse(text).unwrap();
        let errors = crate::compile_all(&parsed, &schema(), &env()).unwrap_err();
        errors.iter().map(show_error).collect::<Vec<_>>()
    };
    let found = errors("UPPER(s, s) || ABS(s) || CAST(i + nothing AS STRING) || 'x'");
    assert_eq!(found.len(), 3, "{found:#?}");
    for (found, part) in found.iter().zip(["UPPER does not take 2", "ABS", "there is no column nothing"]) {
        assert!(found.contains(part), "{found}");
    }
    for (text, count) in [
        ("ABS(UPPER(nothing)) + 1", 1),
        ("nothing = 'a' AND nothing > 1 AND ABS(s) > 0", 3),
        ("CASE WHEN i = 'a' THEN nothing ELSE 1 / 0 END", 2),
        ("IF(i > 0, nothing, 1 / 0)", 1),
        ("TIMESTAMPDIFF(MINUTE, nothing, ts) + ABS(s)", 2),
        ("i IN (1, nothing, ABS(s))", 2),
        ("1 / 0", 1),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), count, "{text}: {found:#?}");
    }
}

#[test]
fn overflow_wraps_if_asked() {
    let env = Env { overflow_wrap: true, ..env() };
    for (text, expected) in [
        ("2147483647 + i", "INT: -2147483642 | NULL"),
        ("min - 1", "BIGINT: 9223372036854775807 | NULL"),
        ("-min", "BIGINT: -9223372036854775808 | NULL"),
        ("min / -1", "BIGINT: -9223372036854775808 | NULL"),
        ("min * 2", "BIGINT: 0 | NULL"),
        ("CAST(b AS INT)", "INT: 410065408 | NULL"),
        ("CAST(70000 AS SMALLINT)", "SMALLINT NOT NULL: 4464"),
        ("i / zero", "row 0: division by zero"),
        ("CAST(dec AS DECIMAL(3, 2))", "row 0: 12.35 does not fit DECIMAL(3, 2)"),
    ] {
        assert_eq!(show_with(text, &env), expected, "{text}");
    }
}

#[test]
fn errors_name_the_first_row_that_fails() {
    let schema = Schema::new(vec![Column::new("n", DataType::Int, false)]);
    for at in [0, 1, 77, 4095] {
        let values: Vec<i32> = (0..4096).map(|row| if row >= at && row % 5 == at % 5 { 0 } else { 1 }).collect();
        let rows = RecordBatch::try_new(arrow_schema(&schema), vec![Arc::new(arrow::array::Int32Array::from(values))])
            .unwrap();
        let error = compile("10 / n", &schema, &env()).unwrap().evaluate(&rows).unwrap_err();
        assert_eq!((error.row, error.message.as_str()), (Some(at as usize), "division by zero"));
        let filter = compile("10 / n > 3", &schema, &env()).unwrap();
        assert_eq!(filter.evaluate_filter(&rows).unwrap_err().row, Some(at as usize));
    }
}

#[test]
fn filters_take_null_as_false() {
    let rows = input();
    let filter = |text: &str| compile(text, &schema(), &env()).unwrap().evaluate_filter(&rows).unwrap();
    assert_eq!(filter("i = 7"), arrow::array::BooleanArray::from(vec![true, false]));
    assert_eq!(filter("NULL AND bo"), arrow::array::BooleanArray::from(vec![false, false]));
    assert_eq!(filter("TRUE"), arrow::array::BooleanArray::from(vec![true, true]));
}

#[test]
fn the_clock_is_read_at_each_evaluation() {
    use std::sync::atomic::Ordering;
    let env = env();
    let compiled = compile("NOW() > ltz", &schema(), &env).unwrap();
    assert!(compiled.volatile() && !compiled.processing_time());
    let rows = input();
    assert!(compiled.evaluate_filter(&rows).unwrap().value(0));
    env.now_us.store(0, Ordering::Release);
    assert!(!compiled.evaluate_filter(&rows).unwrap().value(0));
    assert!(compile("PROCTIME()", &schema(), &env).unwrap().processing_time());
}

#[test]
fn an_expression_says_what_it_reads() {
    let read = |text: &str| {
        let compiled = compile(text, &schema(), &env()).unwrap();
        (compiled.column(), compiled.columns().to_vec())
    };
    assert_eq!(read("i"), (Some(2), vec![2]));
    assert_eq!(read("(I)"), (Some(2), vec![2]));
    assert_eq!(read("d + i + d"), (None, vec![2, 5]));
    assert_eq!(read("1"), (None, vec![]));
    assert_eq!(crate::cast("a + b", &DataType::Decimal(10, 2)), "CAST(a + b AS DECIMAL(10, 2))");
}

#[test]
fn names_of_columns_are_exact_or_unique() {
    let schema = Schema::new(["a", "A", "Bc", "date"].map(|name| Column::new(name, DataType::Int, true)).to_vec());
    let column = |text: &str| {
        compile(text, &schema, &env()).map(|compiled| compiled.column().unwrap()).map_err(|error| error.code)
    };
    assert_eq!(column("a"), Ok(0));
    assert_eq!(column("A"), Ok(1));
    assert_eq!(column("`A`"), Ok(1));
    assert_eq!(column("bC"), Ok(2));
    assert_eq!(column("`date`"), Ok(3));
    assert_eq!(column("b"), Err("unknown_column"));
    let twice = Schema::new(["ab", "Ab"].map(|name| Column::new(name, DataType::Int, true)).to_vec());
    assert_eq!(compile("AB", &twice, &env()).unwrap_err().code, "ambiguous_column");
}

#[test]
fn every_function_has_a_name_that_is_found() {
    let names = crate::functions();
    assert!(names.len() > 150 && names.is_sorted(), "{}", names.len());
    for wanted in ["DATE_FORMAT", "SPLIT_INDEX", "COALESCE", "JSON_VALUE", "TIMESTAMPDIFF", "LEVENSHTEIN"] {
        assert!(names.contains(&wanted), "{wanted}");
    }
    assert!(!names.contains(&"RANDOM") && !names.contains(&"ARROW_CAST"));
}

#[test]
fn maps_and_rows_are_read_by_key_and_field() {
    use arrow::array::{Int32Builder, MapBuilder, StringBuilder, StructArray};
    let map_type: DataType = "MAP<STRING, INT>".parse().unwrap();
    let row_type: DataType = "ROW<x INT, y STRING>".parse().unwrap();
    let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    builder.keys().append_value("k");
    builder.values().append_value(1);
    builder.keys().append_value("l");
    builder.values().append_null();
    builder.append(true).unwrap();
    builder.append(false).unwrap();
    let map = cast_layout(Arc::new(builder.finish()), &map_type);
    let arrow::datatypes::DataType::Struct(fields) = crate::arrow_type(&row_type) else { panic!() };
    let xs: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![5, 6]));
    let ys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let row: ArrayRef = Arc::new(StructArray::new(fields, vec![xs, ys], Some(vec![true, false].into())));
    let schema = Schema::new(vec![Column::new("m", map_type, true), Column::new("r", row_type, true)]);
    let rows = RecordBatch::try_new(arrow_schema(&schema), vec![map, row]).unwrap();
    for (text, expected) in [
        ("m['k']", "1 NULL"),
        ("m['l']", "NULL NULL"),
        ("m['x']", "NULL NULL"),
        ("CARDINALITY(m)", "2 NULL"),
        ("MAP_KEYS(m)", "[k, l] NULL"),
        ("CAST(m AS STRING)", "{k=1, l=NULL} NULL"),
        ("r.x", "5 NULL"),
        ("r.Y", "a NULL"),
        ("r.x + 1", "6 NULL"),
        ("r", "(5, a) NULL"),
    ] {
        let compiled = compile(text, &schema, &env()).unwrap();
        let values = compiled.evaluate(&rows).unwrap();
        assert_eq!(texts(&values, compiled.data_type()).join(" "), expected, "{text}");
    }
    assert_eq!(compile("r.z", &schema, &env()).unwrap_err().hint.unwrap(), "did you mean x?");
    assert_eq!(compile("r = r", &schema, &env()).unwrap_err().code, "type_mismatch");
}

/// An array with the field names that edges have.
fn cast_layout(array: ArrayRef, t: &DataType) -> ArrayRef {
    compute::cast(&array, &crate::arrow_type(t)).unwrap()
}

/// Draws expressions from a grammar: whatever compiles runs, in any batch, with the type it claims (the harness of [`show`] asserts it).
#[test]
fn drawn_expressions_compile_or_are_refused_but_never_panic() {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    fn expression(draw: &mut impl FnMut(usize) -> usize, depth: usize) -> String {
        const LEAVES: &[&str] = &[
            "tiny",
            "small",
            "i",
            "b",
            "f",
            "d",
            "dec",
            "s",
            "n",
            "bo",
            "by",
            "dt",
            "tm",
            "ts0",
            "ts",
            "ts6",
            "ltz",
            "zero",
            "min",
            "NULL",
            "1",
            "0",
            "-3",
            "2.50",
            "1e2",
            "'x'",
            "'12'",
            "''",
            "TRUE",
            "DATE '2024-01-31'",
            "TIMESTAMP '2024-01-31 01:02:03.456'",
            "INTERVAL '1' DAY",
            "INTERVAL '2' MONTH",
            "ARRAY[1, 2]",
            "NOW()",
            "9223372036854775807",
            "99999999999999999999.99",
        ];
        if depth == 0 || draw(5) == 0 {
            return LEAVES[draw(LEAVES.len())].to_string();
        }
        let part = |draw: &mut _| expression(draw, depth - 1);
        const INFIX: &[&str] =
            &["+", "-", "*", "/", "%", "=", "<>", "<", ">=", "AND", "OR", "||", "IS DISTINCT FROM", "LIKE"];
        const TYPES: &[&str] = &[
            "TINYINT",
            "INT",
            "BIGINT",
            "FLOAT",
            "DOUBLE",
            "DECIMAL(10, 3)",
            "STRING",
            "BOOLEAN",
            "DATE",
            "TIME",
            "TIMESTAMP(0)",
            "TIMESTAMP(6)",
            "TIMESTAMP_LTZ(3)",
            "BYTES",
        ];
        match draw(9) {
            0..=2 => format!("({} {} {})", part(draw), INFIX[draw(INFIX.len())], part(draw)),
            3 => format!("{}({} AS {})", ["CAST", "TRY_CAST"][draw(2)], part(draw), TYPES[draw(TYPES.len())]),
            4 => format!("CASE WHEN {} THEN {} ELSE {} END", part(draw), part(draw), part(draw)),
            5 => format!("{} IN ({}, {})", part(draw), part(draw), part(draw)),
            6 => format!("({} BETWEEN {} AND {})", part(draw), part(draw), part(draw)),
            _ => {
                let names = crate::functions();
                let name = names[draw(names.len())];
                // Long repetitions only cost time.
                let name = if ["REPEAT", "LPAD", "RPAD"].contains(&name) { "ABS" } else { name };
                let args: Vec<String> = (0..draw(4)).map(|_| part(draw)).collect();
                format!("{name}({})", args.join(", "))
            }
        }
    }
    let (mut ran, mut refused, mut failed) = (0, 0, 0);
    for _ in 0..5_000 {
        let text = expression(&mut draw, 3);
        let shown = std::panic::catch_unwind(|| show(&text)).unwrap_or_else(|_| panic!("panicked: {text}"));
        match shown.as_bytes()[0] {
            b'[' => refused += 1,
            b'r' => failed += 1,
            _ => ran += 1,
        }
        assert!(!shown.starts_with("[internal]") && !shown.contains("Internal error"), "{text}: {shown}");
    }
    assert!(ran > 600 && refused > 600 && failed > 0, "{ran} ran, {refused} were refused, {failed} failed");
}
