//! What the fuzz targets check, for any bytes: no panic, no invalid Arrow data, the same result however the bytes are cut, every byte consumed,
//! every payload where its report says; and for JSON, that serde_json accepts the same records.
#![allow(dead_code)] // each target uses one of them

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use formats::conformance::feed;
use formats::csv::{CsvOptions, Reader};
use formats::json::{JsonOptions, Scanner};
use formats::text::TimestampFormat;
use formats::{BadRecord, RecordDecoder};

fn schema(nested: bool) -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    let mut fields = vec![
        field("a", DataType::Int64),
        field("s", DataType::Utf8),
        field("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("f", DataType::Float64),
        field("d", DataType::Decimal128(10, 2)),
        field("b", DataType::Binary),
        Field::new("n", DataType::Int8, false),
    ];
    if nested {
        let row = Fields::from(vec![field("x", DataType::Date32), field("y", DataType::Boolean)]);
        let entries = Fields::from(vec![Field::new("key", DataType::Utf8, false), field("value", DataType::Float32)]);
        fields.push(field("l", DataType::List(Arc::new(field("item", DataType::Struct(row.clone()))))));
        fields
            .push(field("m", DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)));
        fields.push(field("r", DataType::Struct(row)));
    }
    Arc::new(Schema::new(fields))
}

/// A limit of the record's length that many inputs reach.
const SHORT: usize = 64;

/// Rows as text, their record numbers, and the bad records.
type Read = (String, Vec<u64>, Vec<BadRecord>);

/// Reads a file in chunks and batches of these sizes. As text, because NaN is not itself.
fn read(decoder: &mut dyn RecordDecoder, file: &[u8], chunk: usize, rows: usize) -> Read {
    let mut outcome = feed(decoder, file, || chunk, || rows);
    // Of a record that is too long, what was buffered is shown.
    outcome.bad.iter_mut().for_each(|bad| bad.payload.truncate(SHORT));
    (format!("{:?}", outcome.batch), outcome.records, outcome.bad)
}

/// The same file whole and in small pieces; the first two bytes of the data choose the sizes.
fn read_twice(decoder: &mut dyn RecordDecoder, sizes: [u8; 2], file: &[u8]) -> Read {
    let whole = read(decoder, file, file.len().max(1), usize::MAX);
    let pieces = read(decoder, file, 1 + usize::from(sizes[0]), 1 + usize::from(sizes[1] % 8));
    assert_eq!(whole, pieces);
    whole
}

pub fn json_scanner(data: &[u8]) {
    let [chunk, rows, file @ ..] = data else { return };
    let timestamp_format = if chunk % 2 == 0 { TimestampFormat::Sql } else { TimestampFormat::EpochMillis };
    let max_record_bytes = if rows % 16 == 0 { SHORT } else { 1 << 20 };
    let options = JsonOptions { timestamp_format, max_record_bytes };
    let mut typed = Scanner::new(schema(true), options).expect("JSON carries these types");
    read_twice(&mut typed, [*chunk, *rows], file);
    // Without columns only the grammar decides: line by line as serde_json does.
    let mut bare = Scanner::new(Arc::new(Schema::empty()), JsonOptions::default()).expect("no column is refused");
    let (_, good, bad) = read_twice(&mut bare, [*chunk, *rows], file);
    let lines = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file).split(|&byte| byte == b'\n');
    for (number, line) in lines.enumerate() {
        let number = number as u64;
        let accepted = good.binary_search(&number).is_ok();
        let refused = bad.binary_search_by_key(&number, |bad| bad.record).is_ok();
        let blank = line.iter().all(|byte| b" \t\r".contains(byte));
        assert_eq!(
            u8::from(accepted) + u8::from(refused) + u8::from(blank),
            1,
            "each line is a row, a bad record or blank"
        );
        match serde_json::from_slice::<serde_json::Value>(line) {
            Ok(value) => assert_eq!(accepted, value.is_object(), "{}", String::from_utf8_lossy(line)),
            // Not part of the grammar: the sizes of numbers, and its smaller limit of nesting.
            Err(error)
                if ["number out of range", "recursion limit"]
                    .iter()
                    .any(|known| error.to_string().starts_with(known)) => {}
            Err(_) => assert!(!accepted, "{}", String::from_utf8_lossy(line)),
        }
    }
}

pub fn csv(data: &[u8]) {
    let [chunk, rows, file @ ..] = data else { return };
    let columns = ["a", "s", "t", "f", "d", "b", "n"];
    let options = CsvOptions {
        columns: columns[..].iter().map(|name| name.to_string()).collect(),
        quote: (chunk % 8 != 0).then_some(b'"'),
        max_record_bytes: if rows % 16 == 0 { SHORT } else { 1 << 20 },
        ..CsvOptions::default()
    };
    let mut reader = Reader::new(schema(false), options).expect("CSV carries these types");
    read_twice(&mut reader, [*chunk, *rows], file);
    let header = CsvOptions { header: true, ..CsvOptions::default() };
    let mut bare = Reader::new(Arc::new(Schema::empty()), header).expect("no column is refused");
    bare.begin_file();
    // A header that cannot be read is an error of the file, and anything else ends in rows and reports.
    if let Ok(progress) = bare.decode(file, true, usize::MAX) {
        assert_eq!((progress.consumed, progress.rows), (file.len(), bare.rows()));
    }
}
