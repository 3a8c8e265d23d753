//! Avro messages: against bytes of fastavro, against arrow-avro, and against bytes that lie.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use formats::avro::{MessageDecoder, MessageEncoder, SCHEMA_NEEDED, derived_schema, schema_id};
use formats::conformance::{Random, feed};
use formats::{BadRecord, RecordDecoder};
use serde_json::{Value, json};

/// Counts what this thread has allocated at most since it last asked.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counter any more.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `body` has had allocated at one time beyond what it began with.
fn peak(body: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    body();
    (PEAK.get() - before) as usize
}

fn golden(name: &str) -> (String, Vec<Vec<u8>>) {
    let cases: Value = serde_json::from_str(include_str!("avro/golden.json")).unwrap();
    let case = &cases[name];
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let records = case["records"].as_array().unwrap().iter().map(|record| hex(record.as_str().unwrap())).collect();
    (case["schema"].to_string(), records)
}

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn list(item: Field) -> DataType {
    DataType::List(Arc::new(item.with_name("item")))
}

fn map(value: Field) -> DataType {
    let entries = Fields::from(vec![Field::new("key", DataType::Utf8, false), value.with_name("value")]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

fn row(fields: impl IntoIterator<Item = Field>) -> DataType {
    DataType::Struct(fields.into_iter().collect())
}

fn timestamp(unit: TimeUnit) -> DataType {
    DataType::Timestamp(unit, None)
}

fn schema(fields: impl IntoIterator<Item = Field>) -> SchemaRef {
    Arc::new(Schema::new(fields.into_iter().collect::<Vec<_>>()))
}

fn framed(id: u32, record: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], record].concat()
}

fn text(array: &ArrayRef, row: usize) -> String {
    let options = FormatOptions::default().with_null("null").with_timestamp_format(Some("%F %T%.f"));
    ArrayFormatter::try_new(array, &options).unwrap().value(row).to_string()
}

fn rows(batch: &RecordBatch) -> Vec<String> {
    batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
    let row = |row| batch.columns().iter().map(|column| text(column, row)).collect::<Vec<_>>().join(" | ");
    (0..batch.num_rows()).map(row).collect()
}

/// Decodes records of one schema, which must all be good.
fn decode(writer: &str, records: &[Vec<u8>], fields: impl IntoIterator<Item = Field>) -> Vec<String> {
    let mut decoder = MessageDecoder::new(schema(fields)).unwrap();
    decoder.add_schema(7, writer, &[]);
    for record in records {
        decoder.decode_record(&framed(7, record)).unwrap();
    }
    rows(&decoder.flush().batch)
}

/// One field `a` of a type on the wire into one column `a`: the row, or code and message.
fn one(writer: Value, column: Field, wire: &[u8]) -> Result<String, (&'static str, String)> {
    let record = json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": writer}]}).to_string();
    one_record(&record, column, wire)
}

fn one_record(record: &str, column: Field, wire: &[u8]) -> Result<String, (&'static str, String)> {
    let mut decoder = MessageDecoder::new(schema([column])).unwrap();
    decoder.add_schema(1, record, &[]);
    let message = framed(1, wire);
    let outcome = decoder.decode_record(&message);
    assert_eq!(decoder.rows(), usize::from(outcome.is_ok()));
    let decoded = decoder.flush();
    assert_eq!(decoded.batch.num_rows(), usize::from(outcome.is_ok()), "a bad record leaves no trace");
    // The same as a file, however it is cut.
    for chunk in [1, 3, 1000] {
        let file = feed(&mut decoder, &message, || chunk, || 1);
        assert_eq!(rows(&file.batch), rows(&decoded.batch));
        assert_eq!(file.bad.first().map(|bad| bad.code), outcome.as_ref().err().map(|bad| bad.code));
    }
    outcome.map(|()| rows(&decoded.batch).remove(0)).map_err(|bad| {
        assert_eq!(bad.payload, message);
        (bad.code, bad.message)
    })
}

fn code(outcome: Result<String, (&'static str, String)>) -> Result<String, &'static str> {
    outcome.map_err(|(code, _)| code)
}

#[test]
fn fastavros_scalars() {
    let (writer, records) = golden("scalars");
    let fields = [
        field("b", DataType::Boolean),
        field("i", DataType::Int32),
        field("l", DataType::Int64),
        field("f", DataType::Float32),
        field("d", DataType::Float64),
        field("s", DataType::Utf8),
        field("y", DataType::Binary),
        field("e", DataType::Utf8),
        field("x", DataType::Binary),
        field("none", DataType::Int8),
    ];
    let expected = [
        "true | -1 | 9223372036854775807 | 1.5 | -2.25 | grün | 00ff | GREEN | 616263 | null",
        "false | 2147483647 | -9223372036854775808 | -0.5 | 1e300 |  |  | RED | 000102 | null",
    ];
    assert_eq!(decode(&writer, &records, fields.clone()), expected);
    // A projection in another order.
    let some = [fields[5].clone(), fields[8].clone(), fields[0].clone()];
    assert_eq!(decode(&writer, &records, some), ["grün | 616263 | true", " | 000102 | false"]);
    assert_eq!(decode(&writer, &records, []), ["", ""]);
}

#[test]
fn fastavros_logical_types() {
    let (writer, records) = golden("logical");
    let utc = |unit| DataType::Timestamp(unit, Some("+00:00".into()));
    let fields = [
        field("d", DataType::Date32),
        field("tm", DataType::Time64(TimeUnit::Microsecond)),
        field("tu", DataType::Time64(TimeUnit::Microsecond)),
        field("tsm", timestamp(TimeUnit::Microsecond)),
        field("tsu", timestamp(TimeUnit::Millisecond)), // cut toward the past
        field("lsm", utc(TimeUnit::Millisecond)),
        field("lsu", timestamp(TimeUnit::Microsecond)),
        field("db", DataType::Decimal128(12, 3)),
        field("df", DataType::Decimal128(12, 3)),
        field("u", DataType::Utf8),
    ];
    let expected = "2020-02-29 | 23:59:59.123 | 00:00:01.000001 | 2020-01-31 23:59:59.123 | 1969-12-31 23:59:59.999 | \
         2020-01-31T23:59:59.123Z | 0001-01-01 00:00:00.000001 | -12345678.900 | 123456.789 | 12345678-9abc-def0-1234-56789abcdef0";
    assert_eq!(decode(&writer, &records, fields), [expected]);

    let (writer, records) = golden("nanos");
    let fields = [field("n", timestamp(TimeUnit::Nanosecond)), field("ln", timestamp(TimeUnit::Second))];
    assert_eq!(decode(&writer, &records, fields), ["2020-01-31 23:59:59.123456789 | 1969-12-31 23:59:59"]);
}

#[test]
fn fastavros_nested_values() {
    let (writer, records) = golden("nested");
    let inner = row([field("y", DataType::Int64), field("x", DataType::Utf8), field("new", DataType::Boolean)]);
    let fields = [
        field("r", inner.clone()),
        field("rs", list(field("", inner))),
        field("m", map(field("", DataType::Float64))),
        field("a", list(field("", DataType::Int64))),
    ];
    let expected = [
        "{y: 7, x: a, new: null} | [{y: null, x: b, new: null}, {y: -1, x: c, new: null}] | {k: 1.5, l: 2.5} | [1, null, -3]",
        "{y: null, x: , new: null} | [] | {} | []",
    ];
    assert_eq!(decode(&writer, &records, fields), expected);
}

#[test]
fn fastavros_unions_and_promotions() {
    let (writer, records) = golden("unions");
    let fields = [
        field("a", DataType::Utf8),
        field("b", DataType::Int64),
        field("c", DataType::Utf8),
        field("d", DataType::Float64),
        Field::new("z", DataType::Int32, false),
    ];
    assert_eq!(decode(&writer, &records, fields), ["null | 5 | one | null | 1", "t | null |  | null | 2"]);

    let (writer, records) = golden("promotions");
    for (name, data_type, expected) in [
        ("i", DataType::Int64, "2147483647"),
        ("i", DataType::Float32, "2147483600.0"),
        ("i", DataType::Float64, "2147483647.0"),
        ("l", DataType::Float32, "9.007199e15"),
        ("l", DataType::Float64, "9007199254740992.0"),
        ("f", DataType::Float64, "0.10000000149011612"),
        ("s", DataType::Binary, "74657874"),
        ("y", DataType::Utf8, "bytes"),
    ] {
        assert_eq!(decode(&writer, &records, [field(name, data_type.clone())]), [expected], "{name} as {data_type}");
    }
}

#[test]
fn what_no_column_needs_is_skipped() {
    let (writer, records) = golden("skipped");
    assert_eq!(decode(&writer, &records, [field("id", DataType::Int64)]), ["42"]);
}

#[test]
fn our_messages_are_those_of_fastavro() {
    let (writer, records) = golden("derived");
    let not_null = |name: &str, data_type| Field::new(name, data_type, false);
    let columns = schema([
        not_null("b", DataType::Boolean),
        field("t", DataType::Int8),
        not_null("i", DataType::Int16),
        not_null("l", DataType::Int64),
        not_null("f", DataType::Float32),
        not_null("d", DataType::Float64),
        field("s", DataType::Utf8),
        not_null("y", DataType::Binary),
        not_null("n", DataType::Decimal128(10, 2)),
        not_null("day", DataType::Date32),
        not_null("tm", DataType::Time64(TimeUnit::Microsecond)),
        not_null("ts", timestamp(TimeUnit::Millisecond)),
        field("tz", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        not_null("a", list(field("", DataType::Int32))),
        not_null("m", map(field("", DataType::Int64))),
        field("r", row([not_null("x", DataType::Int32)])),
    ]);
    assert_eq!(derived_schema(&columns, "my-table").unwrap(), writer);
    let mut decoder = MessageDecoder::new(columns.clone()).unwrap();
    decoder.add_schema(258, &writer, &[]);
    let messages: Vec<_> = records.iter().map(|record| framed(258, record)).collect();
    messages.iter().for_each(|message| decoder.decode_record(message).unwrap());
    let batch = decoder.flush().batch;
    let mut encoder = MessageEncoder::new(columns, 258).unwrap();
    let (mut out, mut ends) = (Vec::new(), Vec::new());
    encoder.encode_each(&batch, &mut out, &mut ends).unwrap();
    assert_eq!(out, messages.concat());
    assert_eq!(ends, [messages[0].len(), out.len()]);
}

#[test]
fn schemas_that_cannot_be_written_are_refused() {
    let refused = |field: Field| derived_schema(&schema([field]), "t").unwrap_err().to_string();
    let name = refused(field("my-col", DataType::Int32));
    assert!(name.contains("my-col") && name.contains("AS"), "{name}");
    let inner = refused(field("r", row([field("1x", DataType::Int32)])));
    assert!(inner.contains("r.1x"), "{inner}");
    let entries = Fields::from(vec![Field::new("key", DataType::Int32, false), field("value", DataType::Int32)]);
    let map = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false);
    assert_eq!(
        refused(field("m", map)),
        "column m has the type MAP<INT, INT>, which Avro cannot carry; the keys of a map are texts there"
    );
    // Two ROWs whose derived names are the same.
    let two = schema([
        field("a", row([field("b", row([field("x", DataType::Int8)]))])),
        field("a_b", row([field("y", DataType::Int8)])),
    ]);
    let derived = derived_schema(&two, "t").unwrap();
    assert!(derived.contains("\"t_a_b\"") && derived.contains("\"t_a_b_2\""), "{derived}");
    let mut decoder = MessageDecoder::new(two).unwrap();
    decoder.add_schema(1, &derived, &[]);
    decoder.decode_record(&framed(1, &[2, 2, 2, 14, 0])).unwrap();
    assert_eq!(rows(&decoder.flush().batch), ["{b: {x: 7}} | null"]);
}

#[test]
fn types_that_do_not_fit_are_refused_by_name() {
    for (writer, column, expected) in [
        (json!("long"), field("a", DataType::Int32), "column a is INT, which long cannot become; declare it BIGINT"),
        (
            json!("double"),
            field("a", DataType::Float32),
            "column a is FLOAT, which double cannot become; declare it DOUBLE",
        ),
        (json!("string"), field("a", DataType::Int32), "column a is INT, which string cannot become"),
        (json!("int"), field("a", DataType::Utf8), "column a is STRING, which int cannot become"),
        (
            json!("long"),
            field("a", timestamp(TimeUnit::Millisecond)),
            "column a is TIMESTAMP(3), which long cannot become; a long has no unit: it needs a logical type",
        ),
        (
            json!({"type": "long", "logicalType": "timestamp-millis"}),
            field("a", DataType::Int64),
            "column a is BIGINT, which timestamp-millis cannot become; declare the column as a date, time or timestamp",
        ),
        (
            json!(["null", "int", "string"]),
            field("a", DataType::Utf8),
            "column a is STRING, which union [null, int, string] cannot become; of unions only one type and null can be read",
        ),
        (
            json!("null"),
            Field::new("a", DataType::Utf8, false),
            "column a is STRING, which null cannot become; it is NOT NULL",
        ),
        (
            json!({"type": "array", "items": "null"}),
            field("a", list(field("", DataType::Int32))),
            "column a is ARRAY<INT>, which array<null> cannot become; its items take no bytes",
        ),
        (
            json!({"type": "array", "items": "string"}),
            field("a", list(field("", DataType::Int32))),
            "column a.item is INT, which string cannot become",
        ),
        (
            json!({"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 4}),
            field("a", DataType::Decimal128(10, 2)),
            "column a is DECIMAL(10, 2), which decimal(10, 4) cannot become; it has fewer digits after the point",
        ),
        (
            json!({"type": "record", "name": "In", "fields": [{"name": "x", "type": "bytes"}]}),
            field("a", row([field("x", DataType::Boolean)])),
            "column a.x is BOOLEAN, which bytes cannot become",
        ),
        (json!("int"), Field::new("b", DataType::Int32, false), "column b is NOT NULL, but the schema has no field b"),
    ] {
        let (code, message) = one(writer, column, &[0]).unwrap_err();
        assert_eq!(message, format!("schema 1 does not fit the table: {expected}"));
        assert_eq!(code, "schema_mismatch");
    }
}

#[test]
fn schemas_that_make_no_sense_are_refused() {
    let deep = format!("{}\"int\"{}", "{\"type\":\"array\",\"items\":".repeat(10_000), "}".repeat(10_000));
    for (text, expected) in [
        ("{", "schema 1 cannot be used: its text is not JSON"),
        ("\"string\"", "schema 1 does not fit the table: its type is string; a row is read from a record"),
        ("7", "schema 1 cannot be used: 7 stands where a type is expected"),
        ("\"com.x.Y\"", "schema 1 cannot be used: it uses the type com.x.Y, which is not defined before"),
        (r#"{"type":"record","fields":[]}"#, "schema 1 cannot be used: a record, enum or fixed type has no name"),
        (r#"{"type":"record","name":"R"}"#, "schema 1 cannot be used: record R without fields"),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#,
            "schema 1 cannot be used: record R has two fields a",
        ),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"record","name":"R","fields":[]}}]}"#,
            "schema 1 cannot be used: the type R is defined twice",
        ),
        (&deep, "schema 1 cannot be used: its text is not JSON: recursion limit exceeded"),
        (&" ".repeat((1 << 20) + 1), "schema 1 cannot be used: its text has 1048577 bytes"),
    ] {
        let (code, message) = one_record(text, field("a", DataType::Int32), &[0]).unwrap_err();
        assert!(message.starts_with(expected), "{message}");
        assert!(["schema_invalid", "schema_mismatch"].contains(&code));
    }
}

#[test]
fn names_have_namespaces_and_references() {
    let writer = r#"{"type":"record","name":"Out","namespace":"a.b","fields":[
        {"name":"x","type":{"type":"enum","name":"E","symbols":["P","Q"]}},{"name":"y","type":"a.b.E"},{"name":"z","type":"c.Ext"}]}"#;
    let external = r#"{"type":"record","name":"c.Ext","fields":[{"name":"v","type":"int"}]}"#.to_string();
    let columns = schema([field("y", DataType::Utf8), field("z", row([field("v", DataType::Int32)]))]);
    let mut decoder = MessageDecoder::new(columns).unwrap();
    decoder.add_schema(1, writer, &[external]);
    decoder.decode_record(&framed(1, &[0, 2, 10])).unwrap();
    assert_eq!(rows(&decoder.flush().batch), ["Q | {v: 5}"]);
}

#[test]
fn bytes_that_lie_are_bad_records() {
    let long = || json!("long");
    let ints = || json!({"type": "array", "items": "int"});
    let int_list = || field("a", list(field("", DataType::Int32)));
    let bigint = || field("a", DataType::Int64);
    let string = || field("a", DataType::Utf8);
    let many = [0xfe, 0xff, 0xff, 0xff, 0x0f]; // 2^31 - 1
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]; // 2^63 - 1
    let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]; // -2^63
    type Case = (Value, Field, Vec<u8>, Result<&'static str, &'static str>);
    let cases: Vec<Case> = vec![
        (long(), bigint(), vec![], Err("truncated")),
        (long(), bigint(), vec![0x80], Err("truncated")),
        (long(), bigint(), vec![0x80; 9], Err("truncated")),
        (long(), bigint(), vec![0x80; 10], Err("malformed")),
        (long(), bigint(), [vec![0xff; 9], vec![2]].concat(), Err("malformed")),
        (long(), bigint(), least.to_vec(), Ok("-9223372036854775808")),
        (long(), bigint(), vec![2, 0], Err("trailing_data")),
        (json!("int"), bigint(), huge.to_vec(), Err("malformed")),
        (json!("int"), field("a", DataType::Int8), vec![0x80, 2], Err("out_of_range")),
        (json!("int"), field("a", DataType::Int8), vec![0xff, 1], Ok("-128")),
        (json!("boolean"), field("a", DataType::Boolean), vec![2], Err("malformed")),
        (json!("float"), field("a", DataType::Float64), vec![0, 0, 0], Err("truncated")),
        (json!("double"), field("a", DataType::Float64), vec![0; 7], Err("truncated")),
        (json!("string"), string(), vec![4, b'a'], Err("truncated")),
        (json!("string"), string(), vec![1], Err("malformed")),
        (json!("string"), string(), huge.to_vec(), Err("truncated")),
        (json!("string"), string(), vec![2, 0xff], Err("invalid_utf8")),
        (json!({"type": "enum", "name": "E", "symbols": ["A"]}), string(), vec![2], Err("malformed")),
        (json!({"type": "enum", "name": "E", "symbols": ["A"]}), string(), vec![1], Err("malformed")),
        (json!(["null", "long"]), bigint(), vec![4], Err("malformed")),
        (json!(["null", "long"]), bigint(), vec![1], Err("malformed")),
        (json!(["null", "long"]), Field::new("a", DataType::Int64, false), vec![0], Err("null")),
        (json!({"type": "fixed", "name": "F", "size": 4}), field("a", DataType::Binary), vec![1, 2], Err("truncated")),
        (
            json!({"type": "int", "logicalType": "date"}),
            field("a", DataType::Date32),
            many.to_vec(),
            Err("out_of_range"),
        ),
        (
            json!({"type": "long", "logicalType": "timestamp-millis"}),
            field("a", timestamp(TimeUnit::Nanosecond)),
            huge.to_vec(),
            Err("out_of_range"),
        ),
        (
            json!({"type": "int", "logicalType": "time-millis"}),
            field("a", DataType::Time64(TimeUnit::Microsecond)),
            vec![1],
            Err("out_of_range"),
        ),
        // 2^127 does not fit into 128 bits; 1000 has too many digits; a long zero is a zero.
        (
            json!({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0}),
            field("a", DataType::Decimal128(38, 0)),
            [vec![34, 0, 0x80], vec![0; 15]].concat(),
            Err("out_of_range"),
        ),
        (
            json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 0}),
            field("a", DataType::Decimal128(3, 0)),
            vec![4, 3, 0xe8],
            Err("out_of_range"),
        ),
        (
            json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 0}),
            field("a", DataType::Decimal128(3, 0)),
            [vec![40], vec![0; 20]].concat(),
            Ok("0"),
        ),
        // Arrays: two blocks, one with its size; sizes that are not so; more items than bytes; no end.
        (ints(), int_list(), vec![2, 2, 1, 2, 4, 0], Ok("[1, 2]")),
        (ints(), int_list(), vec![1, 2, 2, 0], Ok("[1]")),
        (ints(), int_list(), vec![1, 4, 2, 0], Err("malformed")),
        (ints(), int_list(), vec![1, 6, 2, 0], Err("truncated")),
        (ints(), int_list(), vec![1, 0, 2, 0], Err("malformed")),
        (ints(), int_list(), vec![1, 1, 2, 0], Err("malformed")),
        (ints(), int_list(), many.to_vec(), Err("truncated")),
        (ints(), int_list(), [&least[..], &[2, 0]].concat(), Err("truncated")),
        (ints(), int_list(), vec![2, 2], Err("truncated")),
        (
            json!({"type": "map", "values": "int"}),
            field("a", map(field("", DataType::Int32))),
            vec![2, 2, b'k', 2, 0],
            Ok("{k: 1}"),
        ),
        (
            json!({"type": "map", "values": "int"}),
            field("a", map(field("", DataType::Int32))),
            vec![4, 2, b'k', 2, 2, b'k', 4, 0],
            Err("duplicate_key"),
        ),
        (
            json!({"type": "map", "values": "null"}),
            field("a", map(field("", DataType::Int32))),
            vec![2, 2, b'k', 0],
            Ok("{k: null}"),
        ),
        // The same where no column needs them.
        (ints(), field("z", DataType::Int8), vec![1, 4, 2, 0], Err("truncated")),
        (ints(), field("z", DataType::Int8), vec![1, 1, 2, 0], Err("malformed")),
        (ints(), field("z", DataType::Int8), many.to_vec(), Err("truncated")),
        (ints(), field("z", DataType::Int8), vec![1, 2, 0x80, 0], Ok("null")),
        (json!({"type": "array", "items": "null"}), field("z", DataType::Int8), [&huge[..], &[0]].concat(), Ok("null")),
        (json!(["null", "long"]), field("z", DataType::Int8), vec![4], Err("malformed")),
        (json!("R"), field("z", DataType::Int8), vec![], Err("too_deep")),
    ];
    for (writer, column, wire, expected) in cases {
        let outcome = code(one(writer.clone(), column.clone(), &wire));
        assert_eq!(outcome, expected.map(String::from), "{writer} {column} {wire:?}");
    }
    // Thirty records, each of two of the next: no bytes, and not 2^30 steps either.
    let mut nothing = json!({"type": "record", "name": "R30", "fields": []});
    for level in (0..30).rev() {
        let next = format!("R{}", level + 1);
        nothing = json!({"type": "record", "name": format!("R{level}"), "fields": [{"name": "x", "type": nothing}, {"name": "y", "type": next}]});
    }
    let record = json!({"type": "record", "name": "R", "fields": [{"name": "n", "type": nothing}, {"name": "a", "type": "int"}]});
    assert_eq!(code(one_record(&record.to_string(), field("a", DataType::Int32), &[2])), Ok("1".into()));
    let messages = one(json!("string"), field("a", DataType::Utf8), &[2, 0xff]).unwrap_err().1;
    assert_eq!(messages, "column a: a string is not UTF-8 before byte 7");
    let null = one(json!(["null", "long"]), Field::new("a", DataType::Int64, false), &[0]).unwrap_err().1;
    assert_eq!(null, "column a (BIGINT) has a null where it is NOT NULL");
}

#[test]
fn schemas_are_asked_for_and_bad_records_leave_no_trace() {
    let text = |name: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"{name}","type":"long"}}]}}"#);
    let mut decoder = MessageDecoder::new(schema([field("a", DataType::Int64), field("b", DataType::Int64)])).unwrap();
    let message = framed(5, &[2]);
    assert_eq!((schema_id(&message), decoder.needs(&message)), (Some(5), Some(5)));
    assert_eq!(decoder.decode_record(&message).unwrap_err().code, SCHEMA_NEEDED);
    decoder.add_schema(5, &text("a"), &[]);
    assert_eq!(decoder.needs(&message), None);
    decoder.decode_record(&message).unwrap();
    let bad = |outcome: Result<(), Box<BadRecord>>| {
        let bad = outcome.unwrap_err();
        format!("{} {} {} {}", bad.record, bad.offset, bad.code, bad.message)
    };
    assert_eq!(
        bad(decoder.decode_record(&framed(5, &[]))),
        "1 6 truncated column a: the record ends too early after byte 5, by schema 5"
    );
    assert_eq!(bad(decoder.decode_record(&[])), "2 11 empty the record is empty");
    assert_eq!(
        bad(decoder.decode_record(b"{\"a\":1}")),
        "3 11 framing the record begins with {\"a\":1}, not with a zero and the id of its schema; is it Avro of a schema registry?"
    );
    assert_eq!(
        bad(decoder.decode_record(&[0, 0, 0])),
        "4 18 framing the record has 3 bytes; a zero and the id of its schema take 5"
    );
    decoder.refuse_schema(6, "the registry does not have it");
    assert_eq!(
        bad(decoder.decode_record(&framed(6, &[2]))),
        "5 21 schema_unknown schema 6 cannot be had: the registry does not have it"
    );
    // Another version of the schema in the same batch.
    decoder.add_schema(8, &text("b"), &[]);
    decoder.decode_record(&framed(8, &[4])).unwrap();
    decoder.decode_record(&message).unwrap();
    let decoded = decoder.flush();
    assert_eq!(rows(&decoded.batch), ["1 | null", "null | 2", "1 | null"]);
    assert_eq!(decoded.records.iter().collect::<Vec<_>>(), [0, 6, 7]);
    // A file whose schema nobody told.
    let outcome = feed(&mut decoder, &framed(9, &[2]), || 2, || 5);
    assert_eq!(outcome.reports(), ["0 0 schema_unknown schema 9 has not been fetched [\0\0\0\0\t\u{2}]"]);
}

const MIXED: &str = r#"{"type":"record","name":"M","fields":[
    {"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"l","type":["null","long"]},{"name":"f","type":"float"},
    {"name":"d","type":"double"},{"name":"skipped","type":{"type":"array","items":{"type":"map","values":"string"}}},
    {"name":"s","type":["string","null"]},{"name":"y","type":"bytes"},{"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"ts","type":{"type":"long","logicalType":"local-timestamp-millis"}},
    {"name":"li","type":{"type":"array","items":["null","int"]}},
    {"name":"r","type":{"type":"record","name":"In","fields":[{"name":"x","type":"string"},{"name":"n","type":["null","string"]},{"name":"y","type":"long"}]}}]}"#;

/// The columns as a writer schema, for arrow-avro's resolution; all nullable as ours.
const MIXED_READER: &str = r#"{"type":"record","name":"M","fields":[
    {"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"l","type":["null","long"]},{"name":"f","type":"float"},
    {"name":"d","type":"double"},{"name":"s","type":["string","null"]},{"name":"y","type":"bytes"},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"ts","type":{"type":"long","logicalType":"local-timestamp-millis"}},
    {"name":"li","type":{"type":"array","items":["null","int"]}}]}"#;

fn mixed_columns() -> Vec<Field> {
    vec![
        field("b", DataType::Boolean),
        field("i", DataType::Int32),
        field("l", DataType::Int64),
        field("f", DataType::Float32),
        field("d", DataType::Float64),
        field("s", DataType::Utf8),
        field("y", DataType::Binary),
        field("day", DataType::Date32),
        field("ts", timestamp(TimeUnit::Millisecond)),
        field("li", list(field("", DataType::Int32))),
    ]
}

fn mixed_seeds() -> Vec<Vec<u8>> {
    let long = |value: i64| {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        let mut out = Vec::new();
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
        out
    };
    let text = |text: &str| [long(text.len() as i64), text.as_bytes().to_vec()].concat();
    let full = [
        vec![1],
        long(-70_000),
        vec![2],
        long(1 << 40),
        1.5f32.to_le_bytes().to_vec(),
        (-2.5f64).to_le_bytes().to_vec(),
        vec![4, 2],
        text("k"),
        text("value"),
        vec![0, 0, 0],
        vec![0],
        text("grün"),
        text("\u{1}\u{2}"),
        long(18_000),
        long(1_580_515_199_123),
        vec![3, 6, 2],
        long(7),
        vec![0, 2, 2, 2, 0],
        text("x"),
        vec![2],
        text("deeper"),
        vec![3],
    ]
    .concat();
    let empty = [vec![0, 0, 0], vec![0; 12], vec![0, 2, 0, 0, 0, 0, 0, 0, 0]].concat();
    vec![full, empty]
}

/// What arrow-avro makes of a message, if it accepts all of it.
fn oracle(message: &[u8]) -> Option<Vec<String>> {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(Fingerprint::Id(1), AvroSchema::new(MIXED.into())).unwrap();
    let builder = ReaderBuilder::new().with_writer_schema_store(store);
    let mut decoder = builder.with_reader_schema(AvroSchema::new(MIXED_READER.into())).build_decoder().unwrap();
    let consumed = decoder.decode(message).ok()?;
    (consumed == message.len()).then(|| decoder.flush().unwrap().map(|batch| rows(&batch))).flatten()
}

#[test]
fn mutated_messages_keep_the_contract() {
    let seeds = mixed_seeds();
    let mut decoder = MessageDecoder::new(schema(mixed_columns())).unwrap();
    decoder.add_schema(1, MIXED, &[]);
    let good: Vec<_> = seeds.iter().map(|seed| framed(1, seed)).collect();
    for message in &good {
        decoder.decode_record(message).unwrap();
        assert_eq!(oracle(message).unwrap(), rows(&decoder.flush().batch));
    }
    let mut random = Random(42);
    let interesting = [0, 1, 2, 3, 0x7f, 0x80, 0xff, 0xfe, 4, 0x0f];
    let (mut accepted, mut refused, mut compared) = (0, 0, 0);
    for _ in 0..6_000 {
        let mut message = random.pick(&good).clone();
        for _ in 0..1 + random.below(3) {
            let at = 5 + random.below(message.len() - 4);
            let byte = *random.pick(&interesting);
            match random.below(5) {
                0 if at < message.len() => message[at] = byte,
                1 => message.insert(at, byte),
                2 if at < message.len() => drop(message.remove(at)),
                3 if at < message.len() => message[at] ^= 1 << random.below(8),
                4 if random.below(4) == 0 => message.truncate(at),
                _ => message.splice(at..at, [0xff; 9]).for_each(drop),
            }
        }
        decoder.decode_record(&good[0]).unwrap();
        let mut outcome = Ok(());
        let allocated = peak(|| outcome = decoder.decode_record(&message));
        assert!(allocated < 32 * 1024 + 64 * message.len(), "{allocated} bytes for a message of {}", message.len());
        decoder.decode_record(&good[1]).unwrap();
        let found = rows(&decoder.flush().batch);
        match outcome {
            Ok(()) => {
                accepted += 1;
                assert_eq!(found.len(), 3);
                // arrow-avro takes any byte but 0 as true, and does not look whether blocks have their size.
                if let Some(theirs) = oracle(&message) {
                    compared += 1;
                    assert_eq!(theirs[0], found[1], "{message:?}");
                }
            }
            Err(_) => {
                refused += 1;
                assert_eq!(found.len(), 2, "a bad record leaves no trace");
            }
        }
    }
    assert!(accepted > 500 && refused > 500 && compared > 500, "{accepted} {refused} {compared}");
    eprintln!("{accepted} accepted, {refused} refused, {compared} compared");
}

#[test]
fn hostile_counts_allocate_nothing() {
    let huge = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for (writer, column) in [
        (json!("string"), field("a", DataType::Utf8)),
        (json!("bytes"), field("a", DataType::Binary)),
        (json!({"type": "array", "items": "long"}), field("a", list(field("", DataType::Int64)))),
        (json!({"type": "map", "values": "null"}), field("a", map(field("", DataType::Int64)))),
        (json!({"type": "fixed", "name": "F", "size": 1u64 << 60}), field("a", DataType::Binary)),
        (json!({"type": "array", "items": "null"}), field("z", DataType::Int64)),
    ] {
        let record = json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": writer}]}).to_string();
        let mut decoder = MessageDecoder::new(schema([column])).unwrap();
        decoder.add_schema(1, &record, &[]);
        let message = framed(1, &huge);
        let allocated = peak(|| drop(decoder.decode_record(&message)));
        assert!(allocated < 16 * 1024, "{record}: {allocated}");
    }
}
