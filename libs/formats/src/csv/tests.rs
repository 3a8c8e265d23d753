#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;

use super::{CsvOptions, Reader, Writer};
use crate::decoder::{FULL, RecordDecoder, RecordEncoder, Stopped};
use crate::testing::{Outcome, Random, cell, decode_all, feed, field, mutate, row, schema};
use crate::text::TimestampFormat;

fn options(columns: &str) -> CsvOptions {
    CsvOptions { columns: columns.split_terminator(',').map(String::from).collect(), ..CsvOptions::default() }
}

fn with_header() -> CsvOptions {
    CsvOptions { header: true, ..CsvOptions::default() }
}

fn reader(fields: impl IntoIterator<Item = Field>, options: CsvOptions) -> Reader {
    Reader::new(schema(fields), options).unwrap()
}

/// Rows as `a|b`, bad records as `number code`.
fn shown(outcome: &Outcome) -> (Vec<String>, Vec<String>) {
    let line = |row| {
        (0..outcome.batch.num_columns())
            .map(|column| cell(outcome.batch.column(column), row))
            .collect::<Vec<_>>()
            .join("|")
    };
    let rows = (0..outcome.batch.num_rows()).map(line).collect();
    (rows, outcome.bad.iter().map(|bad| format!("{} {}", bad.record, bad.code)).collect())
}

/// `file` with the columns `a` STRING, `b` BIGINT and a third one that is not needed.
fn read(file: &str) -> (Vec<String>, Vec<String>) {
    let mut reader = reader([field("a", DataType::Utf8), field("b", DataType::Int64)], options("a,x,b"));
    shown(&decode_all(&mut reader, file.as_bytes()))
}

#[test]
fn records_and_bad_records() {
    for (file, rows, bad) in [
        ("p,q,1\nr,s,2\n", vec!["p|1", "r|2"], vec![]),
        ("p,q,1\r\nr,s,2\r\n", vec!["p|1", "r|2"], vec![]),
        ("p,q,1\nr,s,2", vec!["p|1", "r|2"], vec![]),
        ("p,q,1\nr,s,2\r", vec!["p|1", "r|2"], vec![]),
        ("", vec![], vec![]),
        ("\n\r\n\n", vec![], vec![]),
        ("\np,q,1\n\nr,s,2\n\n", vec!["p|1", "r|2"], vec![]),
        ("\u{feff}p,q,1", vec!["p|1"], vec![]),
        ("\"p\",\"q\",\"1\"\n", vec!["p|1"], vec![]),
        ("\"p\",\"q\",\"1\"\r\n\"r\",s,2", vec!["p|1", "r|2"], vec![]),
        ("\"p,\nq\",\"a \"\"b\"\"\r\n\",1\nr,s,2", vec!["p,\nq|1", "r|2"], vec![]),
        ("\"\"\"\",,1\n\"a\"\"\"\"b\",,2", vec!["\"|1", "a\"\"b|2"], vec![]),
        (" p ,q, 1 \n", vec![" p |1"], vec![]),
        ("p\rq,,1\n", vec!["p\rq|1"], vec![]),
        (",,\n", vec!["null|null"], vec![]),
        ("\"\",\"\",\"\"\n", vec!["|null"], vec![]),
        ("日本,é,1\n", vec!["日本|1"], vec![]),
        ("p,q\nr,s,2\nt,u,3,4\n", vec!["r|2"], vec!["0 field_count", "2 field_count"]),
        ("p,q,x\nr,s,2\n", vec!["r|2"], vec!["0 wrong_type"]),
        ("p,q,9223372036854775808\nr,s,2\n", vec!["r|2"], vec!["0 out_of_range"]),
        ("p,q,1.0\nr,s,2e0\nt,u,1.5", vec!["p|1", "r|2"], vec!["2 wrong_type"]),
        ("p\"q,r,1\ns,t,2\n", vec!["s|2"], vec!["0 quote"]),
        ("\"p\"q,r,1\ns,t,2\n", vec!["s|2"], vec!["0 quote"]),
        ("\"p\" ,r,1\ns,t,2\n", vec!["s|2"], vec!["0 quote"]),
        ("\"p\"\r,r,1\ns,t,2\n", vec!["s|2"], vec!["0 quote"]),
        ("\"p,q,1\ns,t,2\nu,v,3", vec!["s|2", "u|3"], vec!["0 quote"]),
        ("p,q,1\ns,\"t,2\nu,v,3\n\"w\",x,4\n", vec!["p|1", "u|3", "w|4"], vec!["1 quote"]),
        ("p,\"q\",1\ns,t,\"2", vec!["p|1"], vec!["1 quote"]),
        ("p,\"multi\nline\",x\nr,s,2\n", vec!["r|2"], vec!["0 wrong_type"]),
    ] {
        assert_eq!(
            read(file),
            (rows.iter().map(|row| row.to_string()).collect(), bad.iter().map(|bad| bad.to_string()).collect()),
            "{file:?}"
        );
    }
}

#[test]
fn reports_name_record_position_column_and_payload() {
    let file =
        b"\xef\xbb\xbfb,x,a\r\n1,\"two\nlines\",p\r\nmany,\"two\nlines\",q\r\n3,,\xff\n\n4,,r\n5,\"open,s\n6,,t\n";
    let mut reader = reader([field("a", DataType::Utf8), field("b", DataType::Int64)], with_header());
    let outcome = decode_all(&mut reader, file);
    assert_eq!(shown(&outcome).0, ["p|1", "r|4", "t|6"]);
    assert_eq!(outcome.records, [1, 5, 7]);
    assert_eq!(
        outcome.reports(),
        [
            "2 27 wrong_type column b: many is no BIGINT [many,\"two\nlines\",q]",
            "3 47 invalid_utf8 column a is not UTF-8 [3,,�]",
            "6 58 quote a quote is never closed at byte 2 [5,\"open,s]",
        ]
    );
}

#[test]
fn headers_decide_which_field_is_which() {
    let fields = [field("a", DataType::Utf8), field("b", DataType::Int64)];
    let outcome = decode_all(&mut reader(fields.clone(), with_header()), b"\n\"b\",\"x \"\"y\"\"\",a\n1,2,p\n3,4,q\n");
    assert_eq!((shown(&outcome).0, outcome.records), (vec!["p|1".into(), "q|3".into()], vec![2, 3]));
    for (file, message) in [
        ("b,c\n1,2\n", "the header of the CSV file has no column a; it has b, c"),
        ("A,b\n1,2\n", "the header of the CSV file has no column a; it has A, b"),
        ("a,b,a\n1,2\n", "the header of the CSV file names column a twice, so its values are ambiguous; rename one"),
        ("a,\"b\n1,2\n", "the header of the CSV file cannot be read: a quote is never closed"),
    ] {
        let mut reader = reader(fields.clone(), with_header());
        assert_eq!(reader.decode(file.as_bytes(), true, 10).unwrap_err().to_string(), message);
    }
    // Files of the same table may order their columns differently.
    let mut reader = reader(fields, with_header());
    for (file, rows) in [("a,b\np,1\n", vec!["p|1"]), ("b,z,a\n1,,p\n", vec!["p|1"]), ("", vec![]), ("a,b", vec![])] {
        assert_eq!(shown(&decode_all(&mut reader, file.as_bytes())).0, rows);
    }
    // In the middle of a file, after its head has been seen.
    let file = b"b,a\n1,p\n2,q\n";
    reader.begin_file();
    assert!(reader.needs_header());
    let head = reader.decode(&file[..6], false, 0).unwrap();
    assert_eq!((head.consumed, head.stopped, reader.needs_header()), (4, Stopped::Rows, false));
    reader.seek(8, 2);
    reader.decode(&file[8..], true, 10).unwrap();
    let decoded = reader.flush();
    assert_eq!((cell(decoded.batch.column(0), 0), decoded.records.record(0)), ("q".into(), 2));
}

#[test]
fn types_and_nulls() {
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, None);
    for (data_type, text, expected) in [
        (DataType::Boolean, "TRUE", Ok("true")),
        (DataType::Boolean, "1", Err("wrong_type")),
        (DataType::Int8, "-128", Ok("-128")),
        (DataType::Int8, "128", Err("out_of_range")),
        (DataType::Float64, "1e3", Ok("1000.0")),
        (DataType::Float64, "NaN", Ok("NaN")),
        (DataType::Float32, "1e39", Err("out_of_range")),
        (DataType::Decimal128(5, 2), "1.005", Ok("1.01")),
        (DataType::Decimal128(5, 2), "1000", Err("out_of_range")),
        (DataType::Date32, "2020-02-29", Ok("2020-02-29")),
        (DataType::Time64(TimeUnit::Microsecond), "01:02:03.5", Ok("01:02:03.500")),
        (timestamp.clone(), "2020-01-31 23:59:59.1239", Ok("2020-01-31T23:59:59.123")),
        (timestamp.clone(), "2020-02-01T01:59:59+02:00", Ok("2020-01-31T23:59:59")),
        (timestamp, "1580515199123", Err("wrong_type")),
        (DataType::Binary, "Zm9v", Ok("666f6f")),
        (DataType::Binary, "Zm9", Err("wrong_type")),
        (DataType::Int64, "NULL", Ok("null")),
        (DataType::Int64, "\"NULL\"", Ok("null")),
        (DataType::Utf8, "NULL", Ok("null")),
        (DataType::Utf8, "\"NULL\"", Ok("NULL")),
        (DataType::Int64, "", Err("wrong_type")),
        (DataType::Utf8, "", Ok("")),
    ] {
        let options = CsvOptions { null_literal: "NULL".into(), ..options("a,b") };
        let mut reader = reader([field("a", data_type)], options);
        let outcome = reader.decode_record(format!("{text},").as_bytes());
        let batch = reader.flush().batch;
        assert_eq!(
            outcome.map(|()| cell(batch.column(0), 0)).map_err(|bad| bad.code).as_deref(),
            expected.as_ref().copied(),
            "{text}"
        );
    }
    let strict = Field::new("a", DataType::Utf8, false);
    let outcome = decode_all(&mut reader([strict], options("a,b")), b",1\n\"\",2\n");
    assert_eq!(shown(&outcome), (vec!["".to_string()], vec!["0 null".to_string()]));
    let epoch = CsvOptions { timestamp_format: TimestampFormat::EpochSeconds, ..options("a") };
    let seconds = field("a", DataType::Timestamp(TimeUnit::Second, None));
    assert_eq!(shown(&decode_all(&mut reader([seconds], epoch), b"0\n")).0, ["1970-01-01T00:00:00"]);
    // With one field a line without anything is a record.
    let outcome = decode_all(&mut reader([field("a", DataType::Utf8)], options("a")), b"p\n\n\"\"\nq");
    assert_eq!(shown(&outcome).0, ["p", "null", "", "q"]);
}

#[test]
fn other_delimiters_and_no_quotes() {
    let fields = [field("a", DataType::Utf8), field("b", DataType::Int64)];
    let tabs = CsvOptions { delimiter: b'\t', quote: None, ..options("a,b") };
    let outcome = decode_all(&mut reader(fields.clone(), tabs), b"\"p,\t1\nq\"\"\t2\n");
    assert_eq!(shown(&outcome).0, ["\"p,|1", "q\"\"|2"]);
    let bars = CsvOptions { delimiter: b'|', quote: Some(b'\''), ..options("a,b") };
    let outcome = decode_all(&mut reader(fields.clone(), bars), b"'p|''q'''|1\n");
    assert_eq!(shown(&outcome).0, ["p|'q'|1"]);
    let refused = |options: CsvOptions| Reader::new(schema(fields.clone()), options).err().unwrap().to_string();
    assert_eq!(
        refused(CsvOptions { delimiter: b'"', ..options("a,b") }),
        r#"option quote of the CSV format is "\"", but the delimiter is the same"#
    );
    assert!(refused(CsvOptions { delimiter: b'\n', ..options("a,b") }).starts_with("option delimiter"));
    assert!(refused(CsvOptions { null_literal: "a,b".into(), ..options("a,b") }).starts_with("option null_literal"));
    assert_eq!(refused(options("a,c")), "the table declares no column b for the CSV file; it has a, c");
    let nested = schema([field("r", row([field("x", DataType::Int64)]))]);
    let error = Reader::new(nested, options("r")).err().unwrap().to_string();
    assert_eq!(
        error,
        "column r has the type ROW<x BIGINT>, which CSV cannot carry; use the format json or parquet, or write its parts as columns"
    );
}

#[test]
fn messages_hold_one_record() {
    let mut reader = reader([field("a", DataType::Int64)], options("a,b"));
    for (record, expected) in [
        ("1,2", Ok(())),
        ("1,2\r\n", Ok(())),
        ("1,\"2\n\"\n", Ok(())),
        ("", Err("empty")),
        ("\n", Err("empty")),
        ("1,2\n3,4", Err("trailing_data")),
        ("1,2\n\n", Err("trailing_data")),
        ("1", Err("field_count")),
        ("1,\"2", Err("quote")),
    ] {
        assert_eq!(reader.decode_record(record.as_bytes()).map_err(|bad| bad.code), expected, "{record:?}");
    }
    assert_eq!(reader.flush().records.iter().collect::<Vec<_>>(), [0, 1, 2]);
    let mut headed = Reader::new(schema([field("a", DataType::Int64)]), with_header()).unwrap();
    assert_eq!(headed.decode_record(b"1").unwrap_err().code, "no_header");
}

#[test]
fn a_full_column_is_no_bad_record() {
    let mut reader = reader([field("n", DataType::Int64), field("s", DataType::Utf8)], options("n,s"));
    reader.limit_columns(5);
    let file = b"1,abc\n2,\"d\"\"\"\n3,e\n";
    let progress = reader.decode(file, true, 10).unwrap();
    assert_eq!((progress.stopped, progress.rows, progress.bad.len()), (Stopped::Full, 2, 0));
    assert_eq!(reader.decode_record(b"3,e").unwrap_err().code, FULL);
    reader.flush();
    assert_eq!(reader.decode(&file[progress.consumed..], true, 10).unwrap().rows, 1);
    assert_eq!(reader.flush().records.record(0), 2);
}

const SEEDS: &[&[u8]] = &[
    b"p,1,2020-01-31 23:59:59.123\n",
    b"\"quoted, with \"\"quotes\"\"\nand a newline\",2,\n",
    b"r,,\"2020-01-31T23:59:59\"\r\n\r\n",
    "日本,-9223372036854775808,\"\"\n".as_bytes(),
    b",,\n",
];
const ALPHABET: &[u8] = b"\"\"\",,,\n\n\r\r0123456789ab \xff\xef";

fn mixed_reader(max_record_bytes: usize) -> Reader {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let options = CsvOptions { max_record_bytes, ..options("a,b,t") };
    reader([field("a", DataType::Utf8), field("t", time), field("b", DataType::Int64)], options)
}

#[test]
fn chunks_and_batches_of_any_size_give_the_same() {
    let mut random = Random(11);
    let (mut rows, mut bad) = (0, 0);
    for round in 0..20_000 {
        // With a small limit also across records that are too long.
        let limit = if round % 2 == 0 { 20 + random.below(40) } else { 1 << 20 };
        let mut reader = mixed_reader(limit);
        let mut file = Vec::new();
        for _ in 0..random.below(8) {
            if random.below(2) == 0 {
                file.extend_from_slice(random.pick::<&[u8]>(SEEDS))
            } else {
                file.extend(mutate(&mut random, SEEDS, ALPHABET))
            }
        }
        let mut whole = decode_all(&mut reader, &file);
        let (chunk, rows_wanted) = (1 + random.below(60), 1 + random.below(4));
        let mut sizes = Random(random.bits());
        let mut parts = feed(&mut reader, &file, || 1 + sizes.below(chunk), || rows_wanted);
        rows += whole.batch.num_rows();
        bad += whole.bad.len();
        for outcome in [&mut whole, &mut parts] {
            for bad in outcome.bad.iter_mut() {
                // Of a longer line what was buffered is shown.
                bad.payload.truncate(limit);
            }
        }
        assert_eq!(whole, parts, "{:?}", String::from_utf8_lossy(&file));
    }
    assert!(rows > 20_000 && bad > 20_000, "the mutations test little: {rows} rows, {bad} bad");
}

#[test]
fn an_unclosed_quote_takes_linear_time() {
    // Each line would open a quote if quotes inside unquoted fields were let pass, and each search for its end would read the whole file.
    let file = b"a\",\"\n".repeat(200_000);
    let mut reader = reader([field("a", DataType::Utf8)], options("a,b"));
    let begun = std::time::Instant::now();
    assert_eq!(decode_all(&mut reader, &file).bad.len(), 200_000);
    let mut file = b"\"".to_vec();
    file.extend(b"p,q\n".repeat(500_000));
    let outcome = decode_all(&mut reader, &file);
    assert_eq!((outcome.batch.num_rows(), outcome.bad.len()), (499_999, 1));
    assert!(begun.elapsed().as_secs() < 20, "took {:?}", begun.elapsed());
}

/// Random cells, among them all that needs quotes, written and read again.
#[test]
fn what_is_written_reads_back() {
    let mut random = Random(23);
    let texts = ["", "p", "NULL", "a,b", "\"", "\"\"", "x\ny", "x\r\ny", "\r", " ", "é", "a|b", "'"];
    for _ in 0..2_000 {
        let rows = random.below(5);
        let mut text = || {
            let count = random.below(4);
            (count > 0).then(|| (1..count).map(|_| *random.pick(&texts)).collect::<String>())
        };
        let (a, b): (Vec<_>, Vec<_>) = (0..rows).map(|_| (text(), text())).unzip();
        let n: Vec<_> = (0..rows).map(|_| random.below(3).checked_sub(1).map(|n| n as i64)).collect();
        let schema: SchemaRef =
            schema([field("a,\"", DataType::Utf8), field("n", DataType::Int64), field("b", DataType::Binary)]);
        let bytes = BinaryArray::from(b.iter().map(|b| b.as_ref().map(String::as_bytes)).collect::<Vec<_>>());
        let arrays: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(a)), Arc::new(Int64Array::from(n)), Arc::new(bytes)];
        let batch = RecordBatch::try_new(schema.clone(), arrays).unwrap();
        for null_literal in ["", "NULL"] {
            for (delimiter, quote) in [(b',', Some(b'"')), (b'|', Some(b'\''))] {
                let options = CsvOptions {
                    header: true,
                    delimiter,
                    quote,
                    null_literal: null_literal.into(),
                    ..CsvOptions::default()
                };
                let mut writer = Writer::new(schema.clone(), options.clone()).unwrap();
                let mut out = Vec::new();
                writer.begin_file(&mut out);
                writer.encode(&batch, &mut out).unwrap();
                let outcome = decode_all(&mut Reader::new(schema.clone(), options).unwrap(), &out);
                assert_eq!((outcome.batch, outcome.bad), (batch.clone(), vec![]), "{}", String::from_utf8_lossy(&out));
            }
        }
    }
    // Also the only column of a table, where an empty line is a row.
    let one = schema([field("a", DataType::Utf8)]);
    let batch =
        RecordBatch::try_new(one.clone(), vec![Arc::new(StringArray::from(vec![Some("p"), None, Some(""), None]))])
            .unwrap();
    let mut out = Vec::new();
    Writer::new(one.clone(), CsvOptions::default()).unwrap().encode(&batch, &mut out).unwrap();
    assert_eq!(out, b"p\n\n\"\"\n\n");
    assert_eq!(decode_all(&mut Reader::new(one, options("a")).unwrap(), &out).batch, batch);
}

#[test]
fn what_cannot_be_told_apart_is_not_written() {
    let texts = schema([field("a", DataType::Utf8)]);
    let batch = RecordBatch::try_new(texts.clone(), vec![Arc::new(StringArray::from(vec!["p", "q\tr"]))]).unwrap();
    let bare = CsvOptions { delimiter: b'\t', quote: None, ..CsvOptions::default() };
    let error = Writer::new(texts, bare.clone()).unwrap().encode(&batch, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 1 of column a cannot be written: the text would not read back without quotes; set the option quote"
    );
    let numbers = schema([field("n", DataType::Int64)]);
    let batch = RecordBatch::try_new(numbers.clone(), vec![Arc::new(Int64Array::from(vec![Some(-1), None]))]).unwrap();
    let minus = CsvOptions { null_literal: "-1".into(), ..CsvOptions::default() };
    let error = Writer::new(numbers, minus).unwrap().encode(&batch, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "row 0 of column n cannot be written: the null literal \"-1\" is a value of the column; choose another"
    );
    let tabbed = schema([field("a\tb", DataType::Utf8)]);
    assert!(Writer::new(tabbed, CsvOptions { header: true, ..bare }).is_err());
}

/// Arrow's reader as a second opinion on well-formed files.
#[test]
fn well_formed_files_read_as_arrow_reads_them() {
    let mut random = Random(31);
    let texts = ["p", "a,b", "\"q\"", "x\ny", "é", " r "];
    for _ in 0..500 {
        let rows = 1 + random.below(20);
        let a =
            StringArray::from_iter_values((0..rows).map(|_| format!("{}{}", random.pick(&texts), random.pick(&texts))));
        let n =
            Int64Array::from((0..rows).map(|_| random.below(4).checked_sub(1).map(|n| n as i64)).collect::<Vec<_>>());
        let schema = schema([field("a", DataType::Utf8), field("n", DataType::Int64)]);
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(a), Arc::new(n)]).unwrap();
        let mut out = Vec::new();
        Writer::new(schema.clone(), CsvOptions::default()).unwrap().encode(&batch, &mut out).unwrap();
        let arrow =
            arrow::csv::ReaderBuilder::new(schema.clone()).build(out.as_slice()).unwrap().next().unwrap().unwrap();
        let ours = decode_all(&mut Reader::new(schema, options("a,n")).unwrap(), &out).batch;
        assert_eq!(ours, arrow);
    }
}
