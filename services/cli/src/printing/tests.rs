#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;
use expect_test::{Expect, expect};

use super::*;

/// Two rows of every type: one with values, one of NULLs.
fn every_type() -> RecordBatch {
    let ints = Int64Array::from(vec![Some(1), None]);
    let list = ListArray::new(
        Arc::new(Field::new("item", DataType::Int64, true)),
        OffsetBuffer::from_lengths([2, 0]),
        Arc::new(ints),
        Some(NullBuffer::from(vec![true, false])),
    );
    let entries = StructArray::from(vec![
        (Arc::new(Field::new("key", DataType::Utf8, false)), Arc::new(StringArray::from(vec!["k"])) as ArrayRef),
        (Arc::new(Field::new("value", DataType::Int32, true)), Arc::new(Int32Array::from(vec![7])) as ArrayRef),
    ]);
    let map = MapArray::new(
        Arc::new(Field::new("entries", entries.data_type().clone(), false)),
        OffsetBuffer::from_lengths([1, 0]),
        entries,
        Some(NullBuffer::from(vec![true, false])),
        false,
    );
    let row = StructArray::new(
        Fields::from(vec![Field::new("x", DataType::Utf8, true), Field::new("y", list.data_type().clone(), true)]),
        vec![Arc::new(StringArray::from(vec![Some("a,\"b\""), None])), Arc::new(list.clone())],
        Some(NullBuffer::from(vec![true, false])),
    );
    let utc = |array: TimestampMillisecondArray| Arc::new(array.with_timezone("UTC")) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        ("tiny", Arc::new(Int8Array::from(vec![Some(-128), None]))),
        ("small", Arc::new(Int16Array::from(vec![Some(300), None]))),
        ("int", Arc::new(Int32Array::from(vec![Some(-70_000), None]))),
        ("big", Arc::new(Int64Array::from(vec![Some(i64::MIN), None]))),
        ("float", Arc::new(Float32Array::from(vec![Some(0.1), None]))),
        ("double", Arc::new(Float64Array::from(vec![Some(f64::NAN), None]))),
        ("dec", Arc::new(Decimal128Array::from(vec![Some(-50), None]).with_precision_and_scale(10, 3).unwrap())),
        ("date", Arc::new(Date32Array::from(vec![Some(-1), None]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(3_723_040_000), None]))),
        ("ts0", Arc::new(TimestampSecondArray::from(vec![Some(0), None]))),
        ("ts9", Arc::new(TimestampNanosecondArray::from(vec![Some(1), None]))),
        ("ltz", utc(TimestampMillisecondArray::from(vec![Some(1_580_515_199_120), None]))),
        ("text", Arc::new(StringArray::from(vec![Some("é\x1b\n"), None]))),
        ("bytes", Arc::new(BinaryArray::from_opt_vec(vec![Some(b"fo".as_slice()), None]))),
        ("list", Arc::new(list)),
        ("map", Arc::new(map)),
        ("row", Arc::new(row)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn changes() -> (RecordBatch, UInt8Array) {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("k", Arc::new(StringArray::from(vec!["long name", "b", "b", "b"]))),
        ("n", Arc::new(Int64Array::from(vec![1, 5, 12, 12]))),
    ];
    (RecordBatch::try_from_iter(columns).unwrap(), UInt8Array::from(vec![0, 1, 2, 3]))
}

/// A printer, and what it has written.
struct Shown {
    printer: Printer,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Shown {
    fn new(tables: &[(&str, &RecordBatch, bool)], output: Output, bounded: bool) -> Shown {
        let written = Arc::new(Mutex::new(Vec::new()));
        let to = written.clone();
        let write = Box::new(move |bytes: &[u8]| {
            to.lock().unwrap().extend_from_slice(bytes);
            Ok(())
        });
        let printed = tables.iter().map(|(table, rows, updating)| Printed {
            operator: format!("sink_{table}"),
            table: table.to_string(),
            identifier: String::new(),
            schema: rows.schema(),
            updating: *updating,
        });
        Shown { printer: Printer::new(printed.collect(), output, bounded, write).unwrap(), written }
    }

    fn take(&self, table: &str, rows: &RecordBatch, kinds: Option<UInt8Array>) {
        self.printer.take(committed(table, rows, kinds)).unwrap();
    }

    fn written(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }

    fn finished(&self) -> String {
        self.printer.finish(false).unwrap();
        self.written()
    }
}

fn committed(table: &str, rows: &RecordBatch, kinds: Option<UInt8Array>) -> PrintedRows {
    PrintedRows {
        table: table.into(),
        operator: format!("sink_{table}"),
        identifier: String::new(),
        epoch: 1,
        rows: rows.clone(),
        kinds,
        last: false,
    }
}

fn bounded(output: Output, expected: Expect) {
    let rows = every_type();
    let shown = Shown::new(&[("t", &rows, false)], output, true);
    shown.take("t", &rows.slice(0, 1), None);
    shown.take("t", &rows.slice(1, 1), None);
    assert_eq!(shown.written(), "", "a bounded run shows nothing before it has ended well");
    expected.assert_eq(&shown.finished());
}

#[test]
fn every_type_in_a_table() {
    bounded(
        Output::Table,
        expect![[r#"
        ┌──────┬──────┬───────┬────────┬──────────────────────┬───────┬────────┬────────┬────────────┬─────────────┬─────────────────────┬───────────────────────────────┬─────────────────────────┬──────┬────────┬───────────┬───────┬────────────────────┐
        │ bool ┆ tiny ┆ small ┆    int ┆                  big ┆ float ┆ double ┆    dec ┆ date       ┆ time        ┆ ts0                 ┆ ts9                           ┆ ltz                     ┆ text ┆ bytes  ┆ list      ┆ map   ┆ row                │
        ╞══════╪══════╪═══════╪════════╪══════════════════════╪═══════╪════════╪════════╪════════════╪═════════════╪═════════════════════╪═══════════════════════════════╪═════════════════════════╪══════╪════════╪═══════════╪═══════╪════════════════════╡
        │ true ┆ -128 ┆   300 ┆ -70000 ┆ -9223372036854775808 ┆   0.1 ┆    NaN ┆ -0.050 ┆ 1969-12-31 ┆ 01:02:03.04 ┆ 1970-01-01 00:00:00 ┆ 1970-01-01 00:00:00.000000001 ┆ 2020-01-31 23:59:59.12Z ┆ é�\n ┆ 0x666f ┆ [1, NULL] ┆ {k=7} ┆ (a,"b", [1, NULL]) │
        │ NULL ┆ NULL ┆  NULL ┆   NULL ┆                 NULL ┆  NULL ┆   NULL ┆   NULL ┆ NULL       ┆ NULL        ┆ NULL                ┆ NULL                          ┆ NULL                    ┆ NULL ┆ NULL   ┆ NULL      ┆ NULL  ┆ NULL               │
        └──────┴──────┴───────┴────────┴──────────────────────┴───────┴────────┴────────┴────────────┴─────────────┴─────────────────────┴───────────────────────────────┴─────────────────────────┴──────┴────────┴───────────┴───────┴────────────────────┘
    "#]],
    );
}

#[test]
fn every_type_as_json() {
    bounded(
        Output::Json,
        expect![[r#"
        {"bool":true,"tiny":-128,"small":300,"int":-70000,"big":-9223372036854775808,"float":0.1,"double":"NaN","dec":-0.050,"date":"1969-12-31","time":"01:02:03.04","ts0":"1970-01-01 00:00:00","ts9":"1970-01-01 00:00:00.000000001","ltz":"2020-01-31 23:59:59.12Z","text":"é\u001b\n","bytes":"Zm8=","list":[1,null],"map":{"k":7},"row":{"x":"a,\"b\"","y":[1,null]}}
        {"bool":null,"tiny":null,"small":null,"int":null,"big":null,"float":null,"double":null,"dec":null,"date":null,"time":null,"ts0":null,"ts9":null,"ltz":null,"text":null,"bytes":null,"list":null,"map":null,"row":null}
    "#]],
    );
}

#[test]
fn every_type_as_csv() {
    bounded(
        Output::Csv,
        expect![[r#"
        bool,tiny,small,int,big,float,double,dec,date,time,ts0,ts9,ltz,text,bytes,list,map,row
        true,-128,300,-70000,-9223372036854775808,0.1,NaN,-0.050,1969-12-31,01:02:03.04,1970-01-01 00:00:00,1970-01-01 00:00:00.000000001,2020-01-31 23:59:59.12Z,"é
        ",Zm8=,"[1,null]","{""k"":7}","{""x"":""a,\""b\"""",""y"":[1,null]}"
        ,,,,,,,,,,,,,,,,,
    "#]],
    );
}

#[test]
fn times_beyond_the_calendar_are_shown_to_people_and_refused_to_programs() {
    let column: ArrayRef = Arc::new(TimestampSecondArray::from(vec![i64::MAX]));
    let rows = RecordBatch::try_from_iter([("t", column)]).unwrap();
    let shown = Shown::new(&[("t", &rows, false)], Output::Table, false);
    shown.take("t", &rows, None);
    assert_eq!(shown.written(), "t\n(beyond the calendar)\n");
    let shown = Shown::new(&[("t", &rows, false)], Output::Json, false);
    let error = shown.printer.take(committed("t", &rows, None)).unwrap_err();
    assert!(error.to_string().contains("row 0 of column t cannot be written"), "{error}");
    let good = RecordBatch::try_from_iter([("t", Arc::new(TimestampSecondArray::from(vec![0])) as ArrayRef)]).unwrap();
    shown.take("t", &good, None);
    assert_eq!(shown.written(), "", "after an error nothing more is written");
}

#[test]
fn updating_rows_of_a_stream_say_what_they_do() {
    let (rows, kinds) = changes();
    let shown = |output| {
        let shown = Shown::new(&[("t", &rows, true)], output, false);
        shown.take("t", &rows.slice(0, 1), None);
        shown.take("t", &rows.slice(1, 3), Some(kinds.slice(1, 3)));
        shown.finished()
    };
    expect![[r#"
            k          n
        +I  long name  1
        -U  b           5
        +U  b          12
        -D  b          12
    "#]]
    .assert_eq(&shown(Output::Table));
    expect![[r#"
        {"op":"+I","k":"long name","n":1}
        {"op":"-U","k":"b","n":5}
        {"op":"+U","k":"b","n":12}
        {"op":"-D","k":"b","n":12}
    "#]]
    .assert_eq(&shown(Output::Json));
    expect![[r#"
        op,k,n
        +I,long name,1
        -U,b,5
        +U,b,12
        -D,b,12
    "#]]
    .assert_eq(&shown(Output::Csv));
}

#[test]
fn a_column_named_op_keeps_its_name() {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let rows = RecordBatch::try_from_iter([("op", column)]).unwrap();
    let shown = Shown::new(&[("t", &rows, true)], Output::Json, false);
    shown.take("t", &rows, Some(UInt8Array::from(vec![3])));
    assert_eq!(shown.written(), "{\"_op\":\"-D\",\"op\":1}\n");
}

#[test]
fn several_tables_are_told_apart() {
    let (rows, _) = changes();
    let tables = [("a", &rows, false), ("b", &rows, false)];
    let shown = |output, bounded| {
        let shown = Shown::new(&tables, output, bounded);
        for table in ["a", "b", "a", "a"] {
            shown.take(table, &rows.slice(0, 1), None);
        }
        shown.finished()
    };
    expect![[r#"
        a
        ┌───────────┬───┐
        │ k         ┆ n │
        ╞═══════════╪═══╡
        │ long name ┆ 1 │
        │ long name ┆ 1 │
        │ long name ┆ 1 │
        └───────────┴───┘

        b
        ┌───────────┬───┐
        │ k         ┆ n │
        ╞═══════════╪═══╡
        │ long name ┆ 1 │
        └───────────┴───┘
    "#]]
    .assert_eq(&shown(Output::Table, true));
    expect![[r#"
        a> k          n
        a> long name  1
        b> k          n
        b> long name  1
        a> k          n
        a> long name  1
        a> long name  1
    "#]]
    .assert_eq(&shown(Output::Table, false));
    expect![[r#"
        {"table":"a","k":"long name","n":1}
        {"table":"a","k":"long name","n":1}
        {"table":"a","k":"long name","n":1}
        {"table":"b","k":"long name","n":1}
    "#]]
    .assert_eq(&shown(Output::Json, true));
    let printed = tables.iter().map(|(table, rows, updating)| Printed {
        operator: table.to_string(),
        table: table.to_string(),
        identifier: String::new(),
        schema: rows.schema(),
        updating: *updating,
    });
    let error = Printer::new(printed.collect(), Output::Csv, true, Box::new(|_| Ok(()))).err().unwrap();
    assert_eq!(error.to_string(), "cannot print CSV of 2 tables at once; use -o json, or print one of them");
}

#[test]
fn an_empty_result_still_has_its_columns() {
    let (rows, _) = changes();
    let shown = |output| Shown::new(&[("t", &rows, false)], output, true).finished();
    expect![[r#"
        ┌───┬───┐
        │ k ┆ n │
        ╞═══╪═══╡
        └───┴───┘
    "#]]
    .assert_eq(&shown(Output::Table));
    assert_eq!(shown(Output::Csv), "k,n\n");
    assert_eq!(shown(Output::Json), "");
}

#[test]
fn a_long_result_is_lines_and_whole() {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..4000));
    let rows = RecordBatch::try_from_iter([("number", column)]).unwrap();
    let shown = Shown::new(&[("t", &rows, false)], Output::Table, true);
    (0..3).for_each(|_| shown.take("t", &rows, None));
    let text = shown.finished();
    let numbers: Vec<i64> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
    assert_eq!(numbers, (0..3).flat_map(|_| 0..4000).collect::<Vec<i64>>());
    assert_eq!(text.lines().filter(|line| *line == "number").count(), 12, "the header stands above every 1000 rows");
    assert_eq!(text.lines().nth(1), Some("     0"));
}

#[test]
fn a_reader_that_has_left_is_no_failure() {
    let (rows, _) = changes();
    let printed = Printed {
        operator: "sink_t".into(),
        table: "t".into(),
        identifier: "id".into(),
        schema: rows.schema(),
        updating: false,
    };
    let broken = |kind: io::ErrorKind| {
        Printer::new(vec![printed.clone()], Output::Table, false, Box::new(move |_| Err(kind.into()))).unwrap()
    };
    assert!(broken(io::ErrorKind::BrokenPipe).take(committed("t", &rows, None)).unwrap_err().is_closed());
    assert!(!broken(io::ErrorKind::StorageFull).take(committed("t", &rows, None)).unwrap_err().is_closed());
}

#[test]
fn rows_of_a_stream_stand_behind_the_identifier() {
    let (rows, _) = changes();
    let mut lines = Lines::new(&rows.schema(), "mine", false);
    let mut out = Vec::new();
    lines.rows(&rows.slice(0, 1), None, &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "mine> k          n\nmine> long name  1\n");
}
