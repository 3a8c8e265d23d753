#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};
use serde_json::Value;

use super::{JsonOptions, MAX_DEPTH, Scanner};
use crate::decoder::{FULL, MAX_BAD_PAYLOAD_BYTES, RecordDecoder, Stopped};
use crate::testing::{Outcome, Random, cell, decode_all, feed, field, mutate, row, schema};
use crate::text::{TimestampFormat, parse_timestamp};

fn scanner(fields: impl IntoIterator<Item = Field>) -> Scanner {
    Scanner::new(schema(fields), JsonOptions::default()).unwrap()
}

fn millis() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, None)
}

/// One record with one needed column `a`: its value as text, or the code of the refusal. As a message and as a line, which must agree.
fn one(data_type: DataType, record: &str) -> Result<String, &'static str> {
    one_bytes(field("a", data_type), record.as_bytes(), TimestampFormat::Sql)
}

fn one_bytes(field: Field, record: &[u8], timestamp_format: TimestampFormat) -> Result<String, &'static str> {
    let options = JsonOptions { timestamp_format, ..JsonOptions::default() };
    let mut scanner = Scanner::new(schema([field]), options).unwrap();
    let outcome = scanner.decode_record(record);
    assert_eq!(scanner.rows(), usize::from(outcome.is_ok()));
    let batch = scanner.flush().batch;
    batch.column(0).to_data().validate_full().unwrap();
    let result = outcome.map(|()| cell(batch.column(0), 0)).map_err(|bad| bad.code);
    if !record.contains(&b'\n') && result != Err("empty") {
        // The same as a line, also between two good ones, whose tail lets the word-wise loads run on.
        for (before, after) in [(&b""[..], &b""[..]), (b"{\"a\":null}\n", b"\n{\"a\":null}\n")] {
            scanner.begin_file();
            let outcome = decode_all(&mut scanner, &[before, record, after].concat());
            let index = usize::from(!before.is_empty());
            let as_line = match outcome.bad.first() {
                Some(bad) => Err(bad.code),
                None => Ok(cell(outcome.batch.column(0), index)),
            };
            assert_eq!(as_line, result, "{}", String::from_utf8_lossy(record));
            assert_eq!(outcome.batch.num_rows() + outcome.bad.len(), 1 + 2 * index);
        }
    }
    result
}

#[test]
fn integers() {
    let cases = [
        (r#"{"a":12}"#, Ok("12")),
        (r#"{}"#, Ok("null")),
        (r#"{"b":1}"#, Ok("null")),
        (r#"{"a":null}"#, Ok("null")),
        (r#"{"a":"12"}"#, Ok("12")),
        (r#"{"a":" 12 "}"#, Ok("12")),
        (r#"{"a":"1\u0032"}"#, Ok("12")),
        (r#"{"a":"1.5"}"#, Err("wrong_type")),
        (r#"{"a":""}"#, Err("wrong_type")),
        (r#"{"a":1.0}"#, Ok("1")),
        (r#"{"a":1.9}"#, Err("wrong_type")),
        (r#"{"a":1e3}"#, Ok("1000")),
        (r#"{"a":1e-1}"#, Err("wrong_type")),
        (r#"{"a":9007199254740993.0}"#, Ok("9007199254740993")),
        (r#"{"a":9223372036854775807}"#, Ok("9223372036854775807")),
        (r#"{"a":-9223372036854775808}"#, Ok("-9223372036854775808")),
        (r#"{"a":9223372036854775808}"#, Err("out_of_range")),
        (r#"{"a":1e400}"#, Err("out_of_range")),
        (r#"{"a":-0}"#, Ok("0")),
        (r#"{"a":01}"#, Err("syntax")),
        (r#"{"a":1.}"#, Err("syntax")),
        (r#"{"a":1-2}"#, Err("syntax")),
        (r#"{"a":-}"#, Err("syntax")),
        (r#"{"a":+1}"#, Err("syntax")),
        (r#"{"a":NaN}"#, Err("syntax")),
        (r#"{"a":'1'}"#, Err("syntax")),
        (r#"{a:1}"#, Err("syntax")),
        (r#"{"a":1/**/}"#, Err("syntax")),
        ("{\"a\":\u{c}1}", Err("syntax")),
        (r#"{"a":true}"#, Err("wrong_type")),
        (r#"{"a":{}}"#, Err("wrong_type")),
        (r#"{"a":[1]}"#, Err("wrong_type")),
        (r#"{"a":1,"a":2}"#, Ok("2")),
        (r#"{"a":1,"a":null}"#, Ok("null")),
        (r#"{"a":"x","a":2}"#, Ok("2")),
        (r#"{"a":2,"a":"x"}"#, Err("wrong_type")),
        (r#"{"\u0061":7}"#, Ok("7")),
        (r#"{"A":7}"#, Ok("null")),
        ("{ \"a\" :\t1 , \"b\" : [ ] }\r", Ok("1")),
        ("{\n\"a\"\n:\n1\n}\n", Ok("1")),
    ];
    for (record, expected) in cases {
        assert_eq!(one(DataType::Int64, record).as_deref(), expected.as_ref().copied(), "{record}");
    }
    for (data_type, largest) in [(DataType::Int8, 127i64), (DataType::Int16, 32_767), (DataType::Int32, 2_147_483_647)]
    {
        for (value, fits) in [(largest, true), (largest + 1, false), (-largest - 1, true), (-largest - 2, false)] {
            for record in [
                format!(r#"{{"a":{value}}}"#),
                format!(r#"{{"a":"{value}"}}"#),
                format!(r#"{{"a":{value}.0,"b":"long enough"}}"#),
            ] {
                let expected = if fits { Ok(value.to_string()) } else { Err("out_of_range") };
                assert_eq!(one(data_type.clone(), &record), expected, "{record}");
            }
        }
    }
}

#[test]
fn skipped_parts_are_as_strict() {
    for (record, expected) in [
        (r#"{"x":1-2,"a":1}"#, Err("syntax")),
        (r#"{"x":01,"a":1}"#, Err("syntax")),
        (r#"{"x":bare,"a":1}"#, Err("syntax")),
        (r#"{"x":"\q","a":1}"#, Err("invalid_escape")),
        (r#"{"x":"\ud800","a":1}"#, Err("invalid_escape")),
        (r#"{"x":"\udc00","a":1}"#, Err("invalid_escape")),
        (r#"{"x":"\ud800\u0041","a":1}"#, Err("invalid_escape")),
        (r#"{"x":"\ud83d\ude00","a":1}"#, Ok("1")),
        (r#"{"x":[1},"a":1}"#, Err("syntax")),
        (r#"{"x":{1 2},"a":1}"#, Err("syntax")),
        (r#"{"x":[1,,2],"a":1}"#, Err("syntax")),
        (r#"{"x":[1,],"a":1}"#, Err("syntax")),
        (r#"{"x":{"y":1,},"a":1}"#, Err("syntax")),
        (r#"{"x":73e34520,"a":1}"#, Ok("1")),
        (r#"{"x":[[],{},[{"y":[1,"]"]}],"}"],"a":1}"#, Ok("1")),
        (r#"{"a":1,"x":"\u0000"}"#, Ok("1")),
        ("{\"a\":1,\"x\":\"\u{1}\"}", Err("control_character")),
        ("{\"a\":1,\"x\":\"\u{7f}\"}", Ok("1")),
        (r#"{"a":1 "s":"x"}"#, Err("syntax")),
        (r#"{,"a":1}"#, Err("syntax")),
        (r#"{"a":1,}"#, Err("syntax")),
        (r#"{"a":1,,"s":2}"#, Err("syntax")),
        (r#"{"a":1"#, Err("truncated")),
        (r#"{"a":1,"#, Err("truncated")),
        (r#"{"a""#, Err("truncated")),
        (r#"{"a"#, Err("truncated")),
        (r#"{"a":1,"x":{"y":"#, Err("truncated")),
        (r#"{"a":1,"x":"a string without its en"#, Err("truncated")),
        (r#"{"a":1,"x":"\u12"#, Err("truncated")),
        (r#"{"a":1}{"a":2}"#, Err("trailing_data")),
        (r#"{"a":1} {"a":2}"#, Err("trailing_data")),
        (r#"{"a":1}}"#, Err("trailing_data")),
        ("{\"a\":1}\0", Err("trailing_data")),
        ("\u{feff}{\"a\":1}", Err("not_an_object")),
        ("", Err("empty")),
        (" \t\r\n ", Err("empty")),
        ("[1]", Err("not_an_object")),
        ("1", Err("not_an_object")),
        ("null", Err("not_an_object")),
    ] {
        let mut scanner = scanner([field("a", DataType::Int64)]);
        let outcome = scanner.decode_record(record.as_bytes());
        let found = outcome.map(|()| cell(scanner.flush().batch.column(0), 0)).map_err(|bad| bad.code);
        assert_eq!(found.as_deref(), expected.as_ref().copied(), "{record}");
        if !record.starts_with('\u{feff}') && expected != Err("empty") {
            assert_eq!(one(DataType::Int64, record).as_deref(), expected.as_ref().copied(), "{record}");
        }
    }
    for bad in [
        &b"{\"a\":1,\"x\":\"\xff\"}"[..],
        b"{\"a\":1,\"\xc3\x28\":1}",
        b"{\"a\":1,\"x\":\"\xed\xa0\x80\"}",
        b"{\"a\":1,\"x\":\"\xc0\x80 long enough to load\"}",
    ] {
        assert_eq!(one_bytes(field("a", DataType::Int64), bad, TimestampFormat::Sql), Err("invalid_utf8"));
    }
    for bad in [
        &b"{\"a\":1,\xff1}"[..],
        b"{\xff1}",
        b"{\"b\":1,\xff\"long enough to load words\"}",
        b"{\0 1}",
        b"{\"a\":1,\0\"long enough to load words\"}",
    ] {
        assert_eq!(one_bytes(field("a", DataType::Int64), bad, TimestampFormat::Sql), Err("syntax"));
    }
}

#[test]
fn other_scalars() {
    let decimal = DataType::Decimal128(6, 2);
    let ltz = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let time = DataType::Time64(TimeUnit::Microsecond);
    for (data_type, value, expected) in [
        (DataType::Utf8, r#""x""#, Ok("x")),
        (DataType::Utf8, r#""""#, Ok("")),
        (DataType::Utf8, r#""a\"b\\\/\b\f\n\r\t\u0041\ud83d\ude00é""#, Ok("a\"b\\/\u{8}\u{c}\n\r\tA😀é")),
        (
            DataType::Utf8,
            r#""日本語 🎉, long enough for more than one load""#,
            Ok("日本語 🎉, long enough for more than one load"),
        ),
        (DataType::Utf8, "1.50", Ok("1.50")),
        (DataType::Utf8, "true", Ok("true")),
        (DataType::Utf8, "{}", Err("wrong_type")),
        (DataType::Utf8, "[1]", Err("wrong_type")),
        (DataType::Utf8, r#""\x""#, Err("invalid_escape")),
        (DataType::Boolean, "true", Ok("true")),
        (DataType::Boolean, "false", Ok("false")),
        (DataType::Boolean, r#""TRUE""#, Ok("true")),
        (DataType::Boolean, "1", Err("wrong_type")),
        (DataType::Boolean, r#""yes""#, Err("wrong_type")),
        (DataType::Boolean, "tru", Err("syntax")),
        (DataType::Float64, "1.5", Ok("1.5")),
        (DataType::Float64, "-0", Ok("-0.0")),
        (DataType::Float64, "1e400", Err("out_of_range")),
        (DataType::Float64, r#"" 2.5e1 ""#, Ok("25.0")),
        (DataType::Float64, r#""NaN""#, Ok("NaN")),
        (DataType::Float64, r#""-Infinity""#, Ok("-inf")),
        (DataType::Float64, r#""inf""#, Err("wrong_type")),
        (DataType::Float64, "NaN", Err("syntax")),
        (DataType::Float32, "0.1", Ok("0.1")),
        (DataType::Float32, "1e39", Err("out_of_range")),
        (decimal.clone(), "1234.565", Ok("1234.57")),
        (decimal.clone(), "-0.005", Ok("-0.01")),
        (decimal.clone(), r#""12.5""#, Ok("12.50")),
        (decimal.clone(), "10000", Err("out_of_range")),
        (decimal.clone(), "true", Err("wrong_type")),
        (
            DataType::Decimal128(38, 0),
            "-99999999999999999999999999999999999999",
            Ok("-99999999999999999999999999999999999999"),
        ),
        (DataType::Date32, r#""2020-02-29""#, Ok("2020-02-29")),
        (DataType::Date32, r#""2021-02-29""#, Err("wrong_type")),
        (DataType::Date32, "18000", Err("wrong_type")),
        (time.clone(), r#""12:34:56.789""#, Ok("12:34:56.789")),
        (time, r#""24:00:00""#, Err("wrong_type")),
        (millis(), r#""2020-01-31 23:59:59.1239""#, Ok("2020-01-31T23:59:59.123")),
        (millis(), r#""2020-01-31T23:59:59""#, Ok("2020-01-31T23:59:59")),
        (millis(), r#""2020-01-31T23:59:59.5Z""#, Ok("2020-01-31T23:59:59.500")),
        (millis(), r#""2020-02-01T01:59:59.5+02:00""#, Ok("2020-01-31T23:59:59.500")),
        (millis(), r#""2020-01-31T23:59""#, Ok("2020-01-31T23:59:00")),
        (millis(), r#""2020-01-31 23:59:59.1234567890""#, Err("wrong_type")),
        (millis(), r#""2020-02-30 00:00:00""#, Err("wrong_type")),
        (millis(), r#""2020-01-01 00:00:60""#, Err("wrong_type")),
        (millis(), r#""2020-01-01 00:00:0x""#, Err("wrong_type")),
        (millis(), r#""2020-01-01""#, Err("wrong_type")),
        (millis(), r#""""#, Err("wrong_type")),
        (millis(), "1580515199123", Err("wrong_type")),
        (ltz.clone(), r#""2020-01-31 23:59:59.123456Z""#, Ok("2020-01-31T23:59:59.123456Z")),
        (ltz, r#""2020-01-31 23:59:59""#, Ok("2020-01-31T23:59:59Z")),
        (DataType::Timestamp(TimeUnit::Second, None), r#""2020-01-31 23:59:59.9""#, Ok("2020-01-31T23:59:59")),
        (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            r#""2020-01-31 23:59:59.123456789""#,
            Ok("2020-01-31T23:59:59.123456789"),
        ),
        (
            DataType::Timestamp(TimeUnit::Nanosecond, None),
            r#""2262-04-11 23:47:16.854775807""#,
            Ok("2262-04-11T23:47:16.854775807"),
        ),
        (DataType::Timestamp(TimeUnit::Nanosecond, None), r#""2262-04-11 23:47:16.854775808""#, Err("out_of_range")),
        (DataType::Binary, r#""Zm9v""#, Ok("666f6f")),
        (DataType::Binary, r#""Zm9\u0076""#, Ok("666f6f")),
        (DataType::Binary, r#""Zm9""#, Err("wrong_type")),
        (DataType::Binary, "1", Err("wrong_type")),
    ] {
        for record in [
            format!(r#"{{"a":{value}}}"#),
            format!(r#"{{"before":[1],"a":{value},"behind":"long enough to load words"}}"#),
        ] {
            assert_eq!(one(data_type.clone(), &record).as_deref(), expected.as_ref().copied(), "{data_type} {record}");
        }
    }
    for (format, value, expected) in [
        (TimestampFormat::EpochMillis, "1580515199123", Ok("2020-01-31T23:59:59.123")),
        (TimestampFormat::EpochMillis, r#""1580515199123""#, Ok("2020-01-31T23:59:59.123")),
        (TimestampFormat::EpochSeconds, "1580515199.123", Ok("2020-01-31T23:59:59.123")),
        (TimestampFormat::EpochMicros, "1580515199123999", Ok("2020-01-31T23:59:59.123")),
        (TimestampFormat::EpochMillis, r#""2020-01-31 23:59:59.123""#, Ok("2020-01-31T23:59:59.123")),
        (TimestampFormat::EpochMillis, "9e99", Err("out_of_range")),
        (TimestampFormat::EpochMillis, "true", Err("wrong_type")),
    ] {
        let record = format!(r#"{{"a":{value}}}"#);
        assert_eq!(
            one_bytes(field("a", millis()), record.as_bytes(), format).as_deref(),
            expected.as_ref().copied(),
            "{record}"
        );
    }
}

#[test]
fn rows_lists_and_maps() {
    let point = row([
        field("x", DataType::Int64),
        field("y", DataType::Utf8),
        field("z", row([field("deep", DataType::Boolean)])),
    ]);
    let list = |item| DataType::List(Arc::new(field("item", item)));
    let map = |key, value: DataType| {
        let entries = row([Field::new("key", key, false), field("value", value)]);
        DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
    };
    for (data_type, value, expected) in [
        (point.clone(), r#"{"x":1,"y":"b","z":{"deep":true}}"#, Ok("{x: 1, y: b, z: {deep: true}}")),
        (point.clone(), r#"{"y":"b","other":{"x":2}}"#, Ok("{x: null, y: b, z: null}")),
        (point.clone(), "{}", Ok("{x: null, y: null, z: null}")),
        (point.clone(), "null", Ok("null")),
        (point.clone(), r#"{"z":{"deep":true},"z":null,"x":1,"x":2}"#, Ok("{x: 2, y: null, z: null}")),
        (point.clone(), r#"{"z":{"deep":true},"z":{}}"#, Ok("{x: null, y: null, z: {deep: null}}")),
        (point.clone(), "[]", Err("wrong_type")),
        (point.clone(), r#"{"x":"b"}"#, Err("wrong_type")),
        (point.clone(), r#"{"z":{"deep":1}}"#, Err("wrong_type")),
        (list(DataType::Int64), "[1, 2 ,null,\"3\",4.0]", Ok("[1, 2, null, 3, 4]")),
        (list(DataType::Int64), "[]", Ok("[]")),
        (list(DataType::Int64), "[1,1.5]", Err("wrong_type")),
        (list(DataType::Int64), "{}", Err("wrong_type")),
        (list(DataType::Int8), "[1,128]", Err("out_of_range")),
        (list(list(DataType::Utf8)), r#"[["a","\n"],[],null,[1]]"#, Ok("[[a, \n], [], null, [1]]")),
        (
            list(point),
            r#"[{"x":1},null,{"y":"\u0062","y":"c"}]"#,
            Ok("[{x: 1, y: null, z: null}, null, {x: null, y: c, z: null}]"),
        ),
        (map(DataType::Utf8, DataType::Int64), r#"{"a":1,"b":null,"\u0061":3}"#, Ok("{a: 3, b: null}")),
        (map(DataType::Int64, list(DataType::Boolean)), r#"{"7":[true]," 8 ":[]}"#, Ok("{7: [true], 8: []}")),
        (map(DataType::Int64, DataType::Int64), r#"{"x":1}"#, Err("wrong_type")),
        (map(DataType::Utf8, DataType::Int64), "[]", Err("wrong_type")),
    ] {
        let record = format!(r#"{{"a":{value},"b":[1]}}"#);
        assert_eq!(one(data_type, &record).as_deref(), expected.as_ref().copied(), "{record}");
    }
    // A duplicate of a ROW replaces it whole.
    let a = field("a", row([field("x", DataType::Int64), field("y", DataType::Int64)]));
    for (record, expected) in [
        (r#"{"a":{"x":1},"a":{"y":2}}"#, "{x: null, y: 2}"),
        (r#"{"a":{"x":1},"a":null}"#, "null"),
        (r#"{"a":5,"a":{"y":2}}"#, "{x: null, y: 2}"),
    ] {
        assert_eq!(one_bytes(a.clone(), record.as_bytes(), TimestampFormat::Sql).as_deref(), Ok(expected), "{record}");
    }
}

#[test]
fn not_null_columns() {
    let strict = |data_type| Field::new("a", data_type, false);
    for (record, expected) in [
        (r#"{"a":1}"#, Ok("1")),
        (r#"{"a":null}"#, Err("null")),
        ("{}", Err("null")),
        (r#"{"a":1,"a":null}"#, Err("null")),
    ] {
        assert_eq!(one_not_null(strict(DataType::Int64), record).as_deref(), expected.as_ref().copied(), "{record}");
    }
    let inner = Field::new("x", DataType::Utf8, false);
    for (record, expected) in [
        (r#"{"a":{"x":"v"}}"#, Ok("{x: v}")),
        (r#"{"a":{}}"#, Err("null")),
        (r#"{"a":{"x":null}}"#, Err("null")),
        (r#"{"a":null}"#, Ok("null")), // a null ROW has no fields to miss
        ("{}", Ok("null")),
    ] {
        let found = one_not_null(field("a", row([inner.clone()])), record);
        assert_eq!(found.as_deref(), expected.as_ref().copied(), "{record}");
    }
    let list = DataType::List(Arc::new(field("item", row([inner]))));
    for (record, expected) in [
        (r#"{"a":[null,{"x":"v"}]}"#, Ok("[null, {x: v}]")),
        (r#"{"a":[{"x":"v"},{}]}"#, Err("null")),
        (r#"{"a":[{"x":null}]}"#, Err("null")),
    ] {
        assert_eq!(one_not_null(field("a", list.clone()), record).as_deref(), expected.as_ref().copied(), "{record}");
    }
    fn one_not_null(field: Field, record: &str) -> Result<String, &'static str> {
        let mut scanner = scanner([field, crate::testing::field("other", DataType::Utf8)]);
        let outcome = scanner.decode_record(record.as_bytes());
        let batch = scanner.flush().batch;
        outcome.map(|()| cell(batch.column(0), 0)).map_err(|bad| bad.code)
    }
}

#[test]
fn reports_name_record_position_column_and_payload() {
    let file =
        b"\xef\xbb\xbf{\"n\":1}\n\n{\"n\":\"many\"}\r\n{\"n\":2}\n {\"n\":3,\"r\":{\"x\":[]}}\n{\"n\":4}\n{\"n\"";
    let mut scanner =
        scanner([Field::new("n", DataType::Int32, false), field("r", row([field("x", DataType::Int64)]))]);
    let outcome = decode_all(&mut scanner, file);
    assert_eq!(outcome.records, [0, 3, 5]);
    assert_eq!(
        outcome.reports(),
        [
            r#"2 12 wrong_type column n: "many" is no INT [{"n":"many"}]"#,
            r#"4 34 wrong_type column r.x: [] is no BIGINT [ {"n":3,"r":{"x":[]}}]"#,
            r#"6 64 truncated the record ends at byte 4, before its object is complete [{"n"]"#,
        ]
    );
}

#[test]
fn a_bad_record_leaves_no_trace() {
    // The last column refuses, when all the others have been appended already.
    let list = DataType::List(Arc::new(field("item", DataType::Utf8)));
    let fields = [
        field("i", DataType::Int64),
        field("s", DataType::Utf8),
        field("b", DataType::Boolean),
        field("d", DataType::Decimal128(10, 2)),
        field("r", row([field("x", DataType::Float64), field("l", list.clone())])),
        field("l", list),
        Field::new("n", DataType::Int64, false),
    ];
    let good = r#"{"i":1,"s":"\u0061","b":true,"d":1.5,"r":{"x":1.5,"l":["p",null]},"l":["q"],"n":0}"#;
    let bad = [
        r#"{"i":1,"s":"bad","b":true,"d":1.5,"r":{"x":1,"l":["p"]},"l":["q"]}"#,
        r#"{"n":1,"l":["begun",{}]}"#,
        r#"{"n":1,"l":["begun"],"r":{"l":["deep",[]]}}"#,
        r#"{"n":1,"s":null,"i":null,"b":null,"l":["#,
    ];
    let mut mixed = String::new();
    let mut clean = String::new();
    for i in 0..100 {
        let line = good.replace(r#""n":0"#, &format!(r#""n":{i}"#));
        mixed += &format!("{line}\n{}\n", bad[i % bad.len()]);
        clean += &format!("{line}\n");
    }
    let (mixed, clean) = (
        decode_all(&mut scanner(fields.clone()), mixed.as_bytes()),
        decode_all(&mut scanner(fields), clean.as_bytes()),
    );
    assert_eq!(mixed.batch, clean.batch);
    assert_eq!((mixed.bad.len(), clean.bad.len()), (100, 0));
    assert_eq!(mixed.records, (0..100).map(|i| 2 * i).collect::<Vec<_>>());
}

#[test]
fn nesting_has_a_limit_and_needs_no_stack() {
    let nested = |depth: usize, open: &str, close: &str| {
        format!(r#"{{"x":{}{},"a":1}}"#, open.repeat(depth), close.repeat(depth))
    };
    assert_eq!(one(DataType::Int64, &nested(MAX_DEPTH - 1, "[", "]")).as_deref(), Ok("1"));
    assert_eq!(one(DataType::Int64, &nested(MAX_DEPTH, "[", "]")), Err("too_deep"));
    assert_eq!(one(DataType::Int64, &nested(200_000, "[", "]")), Err("too_deep"));
    assert_eq!(one(DataType::Int64, &nested(200_000, "[", "")), Err("too_deep"));
    assert_eq!(one(DataType::Int64, &nested(200_000, r#"{"x":["#, "]}")), Err("too_deep"));
    let needed = |depth: usize| format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
    let list = DataType::List(Arc::new(field("item", DataType::Int64)));
    assert_eq!(one(list.clone(), &needed(1)).as_deref(), Ok("[]"));
    assert_eq!(one(list.clone(), &needed(MAX_DEPTH - 1)), Err("wrong_type"));
    assert_eq!(one(list, &needed(200_000)), Err("too_deep"));
}

#[test]
fn long_lines_are_bad_wherever_the_chunks_are_cut() {
    let options = JsonOptions { max_record_bytes: 40, ..JsonOptions::default() };
    let mut scanner = Scanner::new(schema([field("a", DataType::Int64)]), options).unwrap();
    let exact = format!(r#"{{"a":1,"x":"{}"}}"#, "y".repeat(26));
    assert_eq!(exact.len(), 40);
    let long = exact.replace("yy", "yyy");
    let blank = " ".repeat(41);
    let file =
        format!("{exact}\n{long}\n{{\"a\":2}}\nbroken and too long {long}\n{blank}\n\n{{\"a\":3}}\n{long}{long}{long}");
    let whole = decode_all(&mut scanner, file.as_bytes());
    assert_eq!(whole.records, [0, 2, 6]);
    assert_eq!(
        whole.bad.iter().map(|bad| (bad.record, bad.code)).collect::<Vec<_>>(),
        [1, 3, 4, 7].map(|record| (record, "record_too_long"))
    );
    for size in 1..file.len() {
        let mut chunked = feed(&mut scanner, file.as_bytes(), || size, || 1);
        // The payload shows as much of a line as had to be buffered to know that it is too long.
        for (bad, expected) in chunked.bad.iter_mut().zip(&whole.bad) {
            assert!(bad.payload.len() > 39 && expected.payload.starts_with(&bad.payload));
            bad.payload = expected.payload.clone();
        }
        assert_eq!(chunked, whole, "chunks of {size} bytes");
    }
    assert_eq!(scanner.decode_record(long.as_bytes()).unwrap_err().code, "record_too_long");
}

#[test]
fn payloads_are_capped() {
    let record = format!(r#"{{"a":"{}"#, "x".repeat(2 * MAX_BAD_PAYLOAD_BYTES));
    let bad = scanner([field("a", DataType::Utf8)]).decode_record(record.as_bytes()).unwrap_err();
    assert_eq!((bad.code, bad.payload.len()), ("truncated", MAX_BAD_PAYLOAD_BYTES));
    let record = format!(r#"{{"a":"{}"}}"#, "é".repeat(10_000));
    let bad = scanner([field("a", DataType::Int64)]).decode_record(record.as_bytes()).unwrap_err();
    assert!(bad.message.len() < 200, "{}", bad.message);
}

#[test]
fn a_full_column_is_no_bad_record() {
    let mut scanner = scanner([field("n", DataType::Int64), field("s", DataType::Utf8)]);
    scanner.limit_columns(10);
    let file =
        b"{\"n\":1,\"s\":\"abcd\"}\n{\"n\":2,\"s\":\"\\u0065fgh\"}\n{\"n\":3,\"s\":\"ijkl\"}\n{\"n\":4,\"s\":\"mn\"}\n";
    scanner.begin_file();
    let progress = scanner.decode(file, true, usize::MAX).unwrap();
    assert_eq!((progress.stopped, progress.rows, progress.bad.len()), (Stopped::Full, 2, 0));
    assert_eq!(scanner.flush().batch.num_rows(), 2);
    let rest = scanner.decode(&file[progress.consumed..], true, usize::MAX).unwrap();
    assert_eq!((rest.stopped, rest.rows), (Stopped::Bytes, 2));
    let refused = scanner.decode_record(br#"{"n":5,"s":"opqrs"}"#).unwrap_err();
    assert_eq!(refused.code, FULL);
    let decoded = scanner.flush();
    assert_eq!(decoded.records.iter().collect::<Vec<_>>(), [2, 3]);
    scanner.decode_record(br#"{"n":5,"s":"opqrs"}"#).unwrap();
    assert_eq!(scanner.flush().records.iter().collect::<Vec<_>>(), [4]);
}

#[test]
fn no_columns_still_count_rows() {
    let outcome = decode_all(&mut scanner([]), b"{\"a\":1}\n{}\n{\"a\":}\n[]\n{\"b\":[1]}");
    assert_eq!((outcome.batch.num_rows(), outcome.bad.len()), (3, 2));
}

#[test]
fn a_byte_order_mark_is_dropped_at_the_start_of_a_file_only() {
    let file = b"\xef\xbb\xbf{\"a\":1}\n\xef\xbb\xbf{\"a\":2}\n";
    let mut scanner = scanner([field("a", DataType::Int64)]);
    for size in 1..file.len() {
        let outcome = feed(&mut scanner, file, || size, || 10);
        assert_eq!((outcome.records, outcome.bad.len(), outcome.bad[0].code), (vec![0], 1, "not_an_object"));
    }
    scanner.seek(11, 1);
    assert_eq!(scanner.decode(&file[11..], true, 10).unwrap().bad[0].record, 1);
    for empty in [&b""[..], b"\xef\xbb\xbf", b"\n", b" \r\n\n  "] {
        let outcome = decode_all(&mut scanner, empty);
        assert_eq!((outcome.batch.num_rows(), outcome.bad.len()), (0, 0));
    }
}

#[test]
fn more_keys_than_are_remembered() {
    let mut random = Random(3);
    let mut file = String::new();
    for i in 0..20_000 {
        // Many distinct keys, in no order, and now and then the needed ones between them.
        let junk = |random: &mut Random| format!(r#""key {}":[{i}]"#, random.below(500));
        let mut members = [
            junk(&mut random),
            junk(&mut random),
            format!(r#""a":{i}"#),
            format!(r#""a very long name of a column":"{i}""#),
        ];
        members.swap(random.below(4), random.below(4));
        file += &format!("{{{}}}\n", members.join(","));
    }
    let fields = [
        field("a", DataType::Int64),
        field("a very long name of a column", DataType::Int64),
        field("key 7\"", DataType::Int64),
    ];
    let outcome = decode_all(&mut scanner(fields), file.as_bytes());
    assert_eq!(outcome.batch.num_rows(), 20_000);
    for column in 0..2 {
        assert!(outcome.batch.column(column).as_primitive::<Int64Type>().values().iter().copied().eq(0..20_000));
    }
    assert_eq!(outcome.batch.column(2).null_count(), 20_000);
}

#[test]
fn wide_tables_whose_names_begin_alike() {
    let name = |column: usize| format!("a name of more than 16 bytes {column:03}");
    let fields: Vec<_> = (0..300).map(|column| field(&name(column), DataType::Int64)).collect();
    // Forward, backward, and without some of them.
    let mut file = String::new();
    for record in 0..40 {
        let mut members: Vec<_> = (0..300)
            .filter(|column| record % 4 < 2 || column % 7 != 0)
            .map(|column| format!("\"{}\":{column}", name(column)))
            .collect();
        if record % 2 == 1 {
            members.reverse();
        }
        file += &format!("{{{}}}\n", members.join(","));
    }
    let outcome = decode_all(&mut scanner(fields), file.as_bytes());
    for column in 0..300 {
        let values = outcome.batch.column(column).as_primitive::<Int64Type>();
        for record in 0..40 {
            let expected = (record % 4 < 2 || column % 7 != 0).then_some(column as i64);
            assert_eq!(values.is_valid(record).then(|| values.value(record)), expected);
        }
    }
}

const SEEDS: &[&[u8]] = &[
    br#"{"a":1000,"x":-12.5e3,"s":"apple","t":"2020-01-31 23:59:59.123","f":1.5,"r":{"x":7,"y":"in"},"z":[1,{"k":null}]}"#,
    br#"{"t":"2020-01-31T23:58:00Z","s":"a \"quoted\" \u00e9\ud83d\ude00 text\\","a":-9223372036854775807,"r":null,"f":-0.0}"#,
    "{ \"s\" : \"h\u{e9}llo \u{65e5}\u{672c} of some length\" , \"a\" : \"42\" , \"r\" : { \"y\" : \"\", \"w\" : [true,false] } }".as_bytes(),
    br#"{"skip":{"deep":[[],[{}],[1,2,"]}"]],"s":"not this"},"a":1e3,"s":12,"t":null,"f":"2.5","a":77}"#,
    br#"{}"#,
    br#"{"a":1234567890123456789,"s":"x","r":{"x":1.0}}"#,
];
const ALPHABET: &[u8] = b"{}[]\",:\\/ \t\r0123456789eE+-.truefalsnud8c\x00\x01\x1f\x7f\x80\xc3\xa9\xef";

fn mixed_scanner() -> Scanner {
    scanner([
        field("a", DataType::Int64),
        field("s", DataType::Utf8),
        field("t", millis()),
        field("f", DataType::Float64),
        field("r", row([field("x", DataType::Int64), field("y", DataType::Utf8)])),
    ])
}

/// What a column should hold, by a parser that was written by others.
#[derive(Debug, PartialEq)]
enum Expected<T> {
    Null,
    Value(T),
    Bad,
    /// The oracle has lost the digits that decide.
    Unknown,
}

fn expected_int(value: Option<&Value>) -> Expected<i64> {
    match value {
        None | Some(Value::Null) => Expected::Null,
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Expected::Value(value),
            (None, Some(value)) if value.abs() >= 1e9 => Expected::Unknown,
            (None, Some(value)) if value == 0.0 || value.fract() != 0.0 => Expected::Unknown, // digits beyond those of an f64
            (None, value) => value.map_or(Expected::Bad, |value| Expected::Value(value as i64)),
        },
        Some(Value::String(text)) => match text.trim_matches(|c| c <= ' ').parse() {
            Ok(value) => Expected::Value(value),
            Err(_) if text.contains(|c: char| c.is_ascii_digit()) => Expected::Unknown, // "1e3", "1.0"
            Err(_) => Expected::Bad,
        },
        Some(_) => Expected::Bad,
    }
}

fn expected_text(value: Option<&Value>) -> Expected<String> {
    match value {
        None | Some(Value::Null) => Expected::Null,
        Some(Value::String(text)) => Expected::Value(text.clone()),
        Some(Value::Bool(value)) => Expected::Value(value.to_string()),
        Some(Value::Number(_)) => Expected::Unknown, // its text as written
        Some(_) => Expected::Bad,
    }
}

fn expected_float(value: Option<&Value>) -> Expected<f64> {
    match value {
        None | Some(Value::Null) => Expected::Null,
        Some(Value::Number(number)) => Expected::Value(number.as_f64().unwrap()),
        Some(Value::String(_)) => Expected::Unknown,
        Some(_) => Expected::Bad,
    }
}

fn expected_time(value: Option<&Value>) -> Expected<i64> {
    match value {
        None | Some(Value::Null) => Expected::Null,
        Some(Value::String(text)) => match parse_timestamp(text, 3, TimestampFormat::Sql) {
            Ok(value) => Expected::Value(value),
            Err(_) => Expected::Bad,
        },
        Some(_) => Expected::Bad,
    }
}

#[test]
fn mutated_records_are_judged_as_serde_json_judges_them() {
    let mut random = Random(20_260_101);
    let mut scanner = mixed_scanner();
    let (mut good, mut bad, mut values) = (0, 0, 0);
    for _ in 0..200_000 {
        let text = mutate(&mut random, SEEDS, ALPHABET);
        let found = scanner.decode_record(&text);
        let batch = scanner.flush().batch;
        assert_eq!(batch.num_rows(), usize::from(found.is_ok()));
        let shown = || String::from_utf8_lossy(&text).into_owned();
        let value = match serde_json::from_slice::<Value>(&text) {
            // A grammatical number; whether it is too large is for the column that needs it.
            Err(error) if error.to_string().starts_with("number out of range") => continue,
            parsed => parsed.ok().filter(Value::is_object),
        };
        let Some(value) = value else {
            assert!(found.is_err(), "accepted: {}", shown());
            bad += 1;
            continue;
        };
        let inner = value.get("r").filter(|r| !r.is_null());
        let (a, s, t, f) = (
            expected_int(value.get("a")),
            expected_text(value.get("s")),
            expected_time(value.get("t")),
            expected_float(value.get("f")),
        );
        let (x, y) = (expected_int(inner.and_then(|r| r.get("x"))), expected_text(inner.and_then(|r| r.get("y"))));
        let row_is_bad = inner.is_some_and(|r| !r.is_object());
        let misfit = row_is_bad
            || [&a, &x, &t].contains(&&Expected::Bad)
            || [&s, &y].contains(&&Expected::Bad)
            || f == Expected::Bad;
        if misfit {
            assert!(
                found.as_ref().is_err_and(|bad| bad.code == "wrong_type" || bad.code == "out_of_range"),
                "{found:?}: {}",
                shown()
            );
            bad += 1;
            continue;
        }
        let unknown = [&a, &x].contains(&&Expected::Unknown) || f == Expected::Unknown;
        let Ok(()) = found else {
            assert!(unknown, "refused: {:?}: {}", found, shown());
            continue;
        };
        good += 1;
        let r = batch.column(4).as_struct();
        assert_eq!(r.is_null(0), inner.is_none(), "{}", shown());
        for (column, expected) in [(batch.column(0), a), (r.column(0), x)] {
            values += check(column, &expected, |column| column.as_primitive::<Int64Type>().value(0), &shown);
        }
        for (column, expected) in [(batch.column(1), s), (r.column(1), y)] {
            values += check(column, &expected, |column| column.as_string::<i32>().value(0).to_string(), &shown);
        }
        values +=
            check(batch.column(2), &t, |column| column.as_primitive::<TimestampMillisecondType>().value(0), &shown);
        // serde_json is off by a unit in the last place of long fractions: compare the digits that both must have.
        let rounded = |value: f64| format!("{value:.14e}");
        let f = match f {
            Expected::Value(value) => Expected::Value(rounded(value)),
            Expected::Null => Expected::Null,
            Expected::Bad | Expected::Unknown => Expected::Unknown,
        };
        values += check(batch.column(3), &f, |column| rounded(column.as_primitive::<Float64Type>().value(0)), &shown);
    }
    assert!(
        good > 25_000 && bad > 50_000 && values > 75_000,
        "the mutations test little: {good} good, {bad} bad, {values} values"
    );

    fn check<T: PartialEq + std::fmt::Debug>(
        column: &Arc<dyn Array>,
        expected: &Expected<T>,
        value: impl Fn(&dyn Array) -> T,
        shown: &dyn Fn() -> String,
    ) -> usize {
        match expected {
            Expected::Null => assert!(column.is_null(0), "{}", shown()),
            Expected::Value(expected) => {
                assert!(column.is_valid(0) && value(column) == *expected, "{:?}: {}", expected, shown());
                return 1;
            }
            Expected::Bad | Expected::Unknown => {}
        }
        0
    }
}

/// A file of mutated lines, some blank.
fn mutated_file(random: &mut Random) -> Vec<u8> {
    let mut file = Vec::new();
    for _ in 0..random.below(8) {
        match random.below(8) {
            0 => file.extend_from_slice(b" \r"),
            1..=3 => file.extend_from_slice(random.pick::<&[u8]>(SEEDS)),
            _ => file.extend(mutate(random, SEEDS, ALPHABET)),
        }
        file.push(b'\n');
    }
    if random.below(2) == 0 {
        file.pop();
    }
    file
}

#[test]
fn one_pass_over_lines_is_as_splitting_first() {
    let mut random = Random(99);
    let (mut by_pass, mut by_record) = (mixed_scanner(), mixed_scanner());
    for _ in 0..30_000 {
        let file = mutated_file(&mut random);
        if file.starts_with(b"\xef\xbb\xbf") {
            continue;
        }
        let pass = decode_all(&mut by_pass, &file);
        let (mut records, mut bad) = (Vec::new(), Vec::new());
        for (number, line) in file.split(|&byte| byte == b'\n').enumerate() {
            match by_record.decode_record(line) {
                Ok(()) => records.push(number as u64),
                Err(report) if report.code == "empty" => {}
                Err(report) => bad.push((number as u64, report.code, report.message, report.payload)),
            }
        }
        assert_eq!(pass.records, records, "{}", String::from_utf8_lossy(&file));
        assert_eq!(
            pass.bad.into_iter().map(|bad| (bad.record, bad.code, bad.message, bad.payload)).collect::<Vec<_>>(),
            bad
        );
        assert_eq!(format!("{:?}", pass.batch), format!("{:?}", by_record.flush().batch));
    }
}

#[test]
fn chunks_and_batches_of_any_size_give_the_same() {
    let mut random = Random(5);
    let mut scanner = mixed_scanner();
    for _ in 0..5_000 {
        let file = mutated_file(&mut random);
        let whole = decode_all(&mut scanner, &file);
        let (chunk, rows) = (1 + random.below(100), 1 + random.below(4));
        let mut sizes = Random(random.bits());
        let parts = feed(&mut scanner, &file, || 1 + sizes.below(chunk), || rows);
        assert_eq!(shown(&whole), shown(&parts), "{}", String::from_utf8_lossy(&file));
    }
    /// NaN is not itself, but its text is.
    fn shown(outcome: &Outcome) -> String {
        format!("{outcome:?}")
    }
}

#[test]
fn positions_may_be_resumed_from() {
    let mut random = Random(17);
    let mut scanner = mixed_scanner();
    for _ in 0..2_000 {
        let mut file = mutated_file(&mut random);
        file.insert(0, b'\n'); // no byte order mark
        let whole = decode_all(&mut scanner, &file);
        scanner.begin_file();
        let first = scanner.decode(&file, true, 1).unwrap();
        let before = scanner.flush();
        let record = (file[..first.consumed].iter().filter(|&&byte| byte == b'\n').count()) as u64;
        let mut resumed = mixed_scanner();
        resumed.seek(first.consumed as u64, record);
        let second = resumed.decode(&file[first.consumed..], true, usize::MAX).unwrap();
        let after = resumed.flush();
        assert_eq!(before.records.iter().chain(after.records.iter()).collect::<Vec<_>>(), whole.records);
        assert_eq!([first.bad, second.bad].concat(), whole.bad);
    }
}
