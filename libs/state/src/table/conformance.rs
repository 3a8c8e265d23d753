//! What every kind of table keeps, held against a plain map; and what its checkpoints keep.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_arrays;
use arrow::datatypes::{DataType, Field, Fields, Int64Type};
use tokio::runtime::Runtime;

use super::part::{Freeze, ROCKS, open, restore};
use super::*;
use crate::files::{LocalFiles, MemoryFiles};
use crate::test_data::{Random, column, key_types};
use crate::{Files, KEY_GROUPS, key_groups, key_hashes, owner};

fn fields(prefix: &str, types: &[DataType]) -> Fields {
    types.iter().enumerate().map(|(i, t)| Field::new(format!("{prefix}{i}"), t.clone(), true)).collect()
}

fn schema(namespace: &[&str], key: &[DataType], values: &[DataType]) -> TableSchema {
    TableSchema::new(namespace, &fields("k", key), &fields("v", values)).unwrap()
}

/// One scratch directory, files, and a runtime.
struct Around {
    place: tempfile::TempDir,
    memory: RocksMemory,
    runtime: Runtime,
}

impl Around {
    fn new() -> Around {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        Around { place: tempfile::tempdir().unwrap(), memory: RocksMemory::new(1 << 20), runtime }
    }

    fn rocks(&self, name: &str, schema: &TableSchema) -> RocksTable {
        RocksTable::create(schema.clone(), &self.place.path().join(name), &self.memory).unwrap()
    }

    fn save(&self, frozen: Box<dyn Freeze>, files: &dyn Files) -> part::Saved {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let name = |what: &str| {
            format!("job/{}-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed), what.replace('/', "_"))
        };
        self.runtime.block_on(frozen.save(files, &name)).unwrap()
    }

    fn restore(&self, schema: &TableSchema, parts: &[TablePart], groups: Range<u16>, files: &dyn Files) -> RocksTable {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let scratch = self.place.path().join(format!("restored-{number}"));
        self.runtime.block_on(restore(schema, parts, groups, files, &scratch, &self.memory)).unwrap()
    }
}

/// A row of the model: by namespace, group, and the key as text; the values as text.
type Model = BTreeMap<(Vec<i64>, u16, String), String>;

fn texts(columns: &[ArrayRef], rows: usize) -> Vec<String> {
    let columns: Vec<ArrayRef> = columns.iter().map(crate::canonical_floats).collect();
    (0..rows)
        .map(|row| {
            let value = |column: &ArrayRef| {
                if column.is_null(row) { "NULL".to_owned() } else { format!("{:?}", column.slice(row, 1)) }
            };
            columns.iter().map(value).collect::<Vec<_>>().join("; ")
        })
        .collect()
}

fn groups_of(keys: &[ArrayRef], rows: usize) -> Vec<u16> {
    key_groups(&key_hashes(keys, rows), KEY_GROUPS)
}

/// Namespace, key group, key, and the row as text.
type ModelRow = ((Vec<i64>, u16, String), String);

/// Every row that a cursor gives, in batches of `rows_max`; batches are never empty or larger.
fn scanned(table: &mut dyn Table, mut cursor: Cursor, rows_max: usize) -> Vec<ModelRow> {
    let mut found = Vec::new();
    while let Some(rows) = table.scan(&mut cursor, rows_max).unwrap() {
        assert!((1..=rows_max).contains(&rows.num_rows()));
        found.extend(model_rows(table.schema(), &rows));
    }
    assert!(table.scan(&mut cursor, rows_max).unwrap().is_none(), "an ended scan stays ended");
    found
}

fn model_rows(schema: &TableSchema, rows: &RecordBatch) -> Vec<ModelRow> {
    assert_eq!(rows.schema(), *schema.rows());
    let (namespace, rest) = rows.columns().split_at(schema.namespace.len());
    let (keys, values) = rest.split_at(schema.key.len());
    let groups = groups_of(keys, rows.num_rows());
    let (keys, values) = (texts(keys, rows.num_rows()), texts(values, rows.num_rows()));
    (0..rows.num_rows())
        .map(|row| {
            let namespace = namespace.iter().map(|c| c.as_primitive::<Int64Type>().value(row)).collect();
            ((namespace, groups[row], keys[row].clone()), values[row].clone())
        })
        .collect()
}

/// Random batches against the model. Returns the model.
fn agrees_with_a_map(table: &mut dyn Table, random: &mut Random, rounds: usize) -> Model {
    let mut model = Model::new();
    let schema = table.schema().clone();
    let numbers = schema.namespace.len();
    let columns = |fields: &Fields, rows: usize, distinct: u64, random: &mut Random| -> Vec<ArrayRef> {
        fields.iter().map(|f| column(f.data_type(), rows + 2, distinct, true, random).slice(2, rows)).collect()
    };
    for _ in 0..rounds {
        let namespace: Vec<i64> =
            (0..numbers).map(|_| [i64::MIN, -1, 0, 1, 5_000, i64::MAX][random.below(6) as usize]).collect();
        let rows = random.below(200) as usize;
        let keys = columns(&schema.key, rows, 40, random);
        let groups = groups_of(&keys, rows);
        let shown = texts(&keys, rows);
        let at = |row: usize| (namespace.clone(), groups[row], shown[row].clone());
        match random.below(8) {
            0..4 => {
                let values = columns(&schema.values, rows, 1_000, random);
                table.put(&namespace, &keys, &values, rows).unwrap();
                let values = texts(&values, rows);
                (0..rows).for_each(|row| {
                    model.insert(at(row), values[row].clone());
                });
            }
            4 => {
                table.remove(&namespace, &keys, rows).unwrap();
                (0..rows).for_each(|row| {
                    model.remove(&at(row));
                });
            }
            5 if numbers > 0 && random.below(3) == 0 => {
                let mut last = namespace.clone();
                last[numbers - 1] = last[numbers - 1].saturating_add(random.below(10_000) as i64);
                table.remove_namespaces(&namespace, &last).unwrap();
                model.retain(|(n, _, _), _| *n < namespace || *n > last);
            }
            _ => {
                let found = table.get(&namespace, &keys, rows).unwrap();
                let expected: Vec<u32> =
                    (0..rows as u32).filter(|&row| model.contains_key(&at(row as usize))).collect();
                assert_eq!(found.at, expected);
                let values = texts(&found.values, found.at.len());
                let expected: Vec<&String> = expected.iter().map(|&row| &model[&at(row as usize)]).collect();
                assert_eq!(values.iter().collect::<Vec<_>>(), expected);
            }
        }
        // A scan of some groups in some namespaces gives the rows of the model; the order among keys is the table's.
        let (first, last) = (vec![0; numbers], vec![5_000; numbers]);
        let from = random.below(u64::from(KEY_GROUPS)) as u16;
        let wanted = from..from + 1 + random.below(u64::from(KEY_GROUPS - from)) as u16;
        let scan = scanned(table, Cursor::namespaces(wanted.clone(), &first, &last), 1 + random.below(70) as usize);
        assert!(scan.iter().is_sorted_by_key(|((namespace, group, _), _)| (namespace.clone(), *group)));
        let expected: Model = model
            .iter()
            .filter(|((n, group, _), _)| wanted.contains(group) && first <= *n && *n <= last)
            .map(|(key, values)| (key.clone(), values.clone()))
            .collect();
        assert_eq!(scan.len(), expected.len());
        assert_eq!(scan.into_iter().collect::<Model>(), expected);
    }
    model
}

fn all(table: &mut dyn Table) -> Model {
    let cursor = Cursor::all(table.schema(), 0..KEY_GROUPS);
    let rows = scanned(table, cursor, 1_000);
    let count = rows.len();
    let model: Model = rows.into_iter().collect();
    assert_eq!(model.len(), count, "a key has one row");
    model
}

fn schemas() -> Vec<TableSchema> {
    let types = key_types();
    let mut schemas = vec![
        schema(&[], &[DataType::Int64], &[DataType::Int64]),
        schema(&["pane"], &[DataType::Utf8], &[DataType::Int64, DataType::Utf8]),
        schema(&["pane", "from"], &[DataType::Utf8, DataType::Float64], &types),
        schema(&["pane"], &[], &[DataType::Int64]),
        schema(&[], &[DataType::Int32], &[]),
    ];
    schemas
        .extend(types.iter().map(|key| schema(&["pane"], std::slice::from_ref(key), &[DataType::Decimal128(38, 3)])));
    schemas
}

/// What each kind of table keeps.
fn conforms(mut make: impl FnMut(&Around, &TableSchema) -> Box<dyn Table>) {
    let around = Around::new();
    for (seed, schema) in schemas().into_iter().enumerate() {
        let mut random = Random(seed as u64);
        let mut table = make(&around, &schema);
        let model = agrees_with_a_map(&mut *table, &mut random, 40);
        assert_eq!(all(&mut *table), model);
        assert!(table.bytes() > 0 || model.is_empty());
        // Opening databases takes its time.
        if seed % 4 == 2 {
            frozen_tables_do_not_change(&around, &mut *table, &model, &mut random);
        }
    }
}

/// A checkpoint has what was there when the table was frozen, for any number of workers and both kinds of tables.
fn frozen_tables_do_not_change(around: &Around, table: &mut dyn Table, model: &Model, random: &mut Random) {
    let files = MemoryFiles::default();
    let schema = table.schema().clone();
    let frozen = table.freeze().unwrap();
    agrees_after_more(table, random);
    let part = around.save(frozen, &files).part;
    let text = serde_json::to_string(&part).unwrap();
    assert_eq!(serde_json::from_str::<TablePart>(&text).unwrap(), part);

    let mut again = around.restore(&schema, std::slice::from_ref(&part), 0..KEY_GROUPS, &files);
    assert_eq!(all(&mut again), *model);
    let scratch = around.place.path().join("opened");
    let mut opened = around.runtime.block_on(open(&schema, &part, &files, &scratch, &around.memory)).unwrap();
    assert_eq!(all(&mut *opened), *model);

    // 1 -> 3 -> 2 workers.
    let of = |worker: usize, workers: usize| {
        let owned: Vec<u16> = (0..KEY_GROUPS).filter(|&group| owner(group, workers) == worker).collect();
        owned[0]..owned[owned.len() - 1] + 1
    };
    let three: Vec<TablePart> = (0..3)
        .map(|worker| {
            let mut table = around.restore(&schema, std::slice::from_ref(&part), of(worker, 3), &files);
            around.save(table.freeze().unwrap(), &files).part
        })
        .collect();
    let mut together = Model::new();
    for worker in 0..2 {
        let rows = all(&mut around.restore(&schema, &three, of(worker, 2), &files));
        assert!(rows.keys().all(|(_, group, _)| owner(*group, 2) == worker));
        together.extend(rows);
    }
    assert_eq!(together, *model);
}

/// Changes every row there is and adds some.
fn agrees_after_more(table: &mut dyn Table, random: &mut Random) {
    let schema = table.schema().clone();
    let mut cursor = Cursor::all(&schema, 0..KEY_GROUPS);
    let numbers = schema.namespace.len();
    while let Some(rows) = table.scan(&mut cursor, 50).unwrap() {
        for (namespace, range) in cursor::namespaces(&rows.columns()[..numbers], rows.num_rows()) {
            let keys: Vec<ArrayRef> = rows.columns()[numbers..numbers + schema.key.len()]
                .iter()
                .map(|column| column.slice(range.start, range.len()))
                .collect();
            if random.below(2) == 0 {
                table.remove(&namespace, &keys, range.len()).unwrap();
            } else {
                let values: Vec<ArrayRef> =
                    schema.values.iter().map(|f| column(f.data_type(), range.len(), 9, true, random)).collect();
                table.put(&namespace, &keys, &values, range.len()).unwrap();
            }
        }
    }
}

#[test]
fn the_memory_table_conforms() {
    conforms(|_, schema| Box::new(MemoryTable::new(schema.clone()).unwrap()));
}

#[test]
fn the_rocksdb_table_conforms() {
    let mut number = 0;
    conforms(|around, schema| {
        number += 1;
        Box::new(around.rocks(&format!("table-{number}"), schema))
    });
}

/// The same with each batch as a file of its own, and so with many levels.
#[test]
fn the_rocksdb_table_conforms_when_batches_are_files() {
    let mut number = 0;
    conforms(|around, schema| {
        number += 1;
        let mut table = around.rocks(&format!("table-{number}"), schema);
        table.ingest_bytes = 0;
        Box::new(table)
    });
}

fn numbers(range: Range<i64>) -> Vec<ArrayRef> {
    vec![Arc::new(Int64Array::from_iter_values(range))]
}

#[test]
fn a_checkpoint_writes_what_earlier_ones_did_not() {
    let around = Around::new();
    let schema = schema(&[], &[DataType::Int64], &[DataType::Int64]);
    let files = MemoryFiles::default();
    let mut table = around.rocks("table", &schema);
    table.put(&[], &numbers(0..200_000), &numbers(0..200_000), 200_000).unwrap();
    let first = around.save(table.freeze().unwrap(), &files);
    assert_eq!(first.written_bytes, first.part.bytes());
    table.put(&[], &numbers(7..107), &numbers(0..100), 100).unwrap();
    let second = around.save(table.freeze().unwrap(), &files);
    assert!(second.written_bytes * 20 < second.part.bytes(), "{second:?}");
    let names = |saved: &part::Saved| saved.part.files.iter().map(|f| f.file.path.clone()).collect::<BTreeSet<_>>();
    assert!(names(&first).intersection(&names(&second)).count() > 0, "files of rows are named again");

    // Who goes on from it does not write it again either, and its own files do not take the place of others.
    let mut restored = around.restore(&schema, std::slice::from_ref(&second.part), 0..KEY_GROUPS, &files);
    restored.put(&[], &numbers(300_000..300_100), &numbers(0..100), 100).unwrap();
    let third = around.save(restored.freeze().unwrap(), &files);
    assert!(third.written_bytes * 20 < third.part.bytes(), "{third:?}");
    // Both go on, and still have their own rows.
    table.put(&[], &numbers(400_000..400_200), &numbers(0..200), 200).unwrap();
    let fourth = around.save(table.freeze().unwrap(), &files);
    for (saved, rows) in [(first, 200_000), (second, 200_000), (third, 200_100), (fourth, 200_200)] {
        assert_eq!(all(&mut around.restore(&schema, &[saved.part], 0..KEY_GROUPS, &files)).len(), rows);
    }
}

/// Every file of a part, changed in every way: found out by its hash, before RocksDB opens anything.
#[test]
fn any_change_of_a_file_is_found_before_the_table_is_opened() {
    let around = Around::new();
    let schema = schema(&["pane"], &[DataType::Int64], &[DataType::Int64]);
    let place = tempfile::tempdir().unwrap();
    let files = LocalFiles::new(place.path());
    let mut table = around.rocks("table", &schema);
    table.put(&[1], &numbers(0..1_000), &numbers(0..1_000), 1_000).unwrap();
    let part = around.save(table.freeze().unwrap(), &files).part;
    assert!(part.files.len() >= 3, "rows, a manifest, and what is current: {part:?}");
    let opened = |part: &TablePart| {
        let scratch = around.place.path().join("damaged");
        around.runtime.block_on(RocksTable::open(schema.clone(), part, &files, &scratch, &around.memory)).map(|_| ())
    };
    opened(&part).unwrap();
    for PartFile { name, file } in &part.files {
        let path = place.path().join(&file.path);
        let content = std::fs::read(&path).unwrap();
        let mut flipped = content.clone();
        flipped[content.len() / 2] ^= 1;
        for changed in [&content[..content.len() - 1], &flipped, &[content.as_slice(), b"x"].concat(), b""] {
            std::fs::write(&path, changed).unwrap();
            let error = opened(&part).unwrap_err();
            assert!(matches!(error, TableError::File(FileError::Damaged { .. })), "{name}: {error}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = opened(&part).unwrap_err();
        assert!(matches!(error, TableError::File(FileError::Missing { .. })), "{name}: {error}");
        std::fs::write(&path, content).unwrap();
    }
    // Two files that changed their places, and one that leads elsewhere.
    let mut swapped = part.clone();
    let names: Vec<String> = part.files.iter().map(|f| f.name.clone()).collect();
    swapped.files[0].name = names[1].clone();
    swapped.files[1].name = names[0].clone();
    assert!(matches!(opened(&swapped).unwrap_err(), TableError::Damaged { .. }));
    for name in ["../x", "", ".", "..", "a/b"] {
        let mut outside = part.clone();
        outside.files[0].name = name.to_owned();
        assert!(matches!(opened(&outside).unwrap_err(), TableError::Damaged { .. }), "{name}");
    }
    let mut newer = part.clone();
    newer.format = "rocksdb/2".to_owned();
    assert!(opened(&newer).unwrap_err().to_string().contains("'rocksdb/2'"));
    opened(&part).unwrap();
}

#[test]
fn a_part_of_another_table_is_refused() {
    let around = Around::new();
    let one = schema(&["pane"], &[DataType::Int64], &[DataType::Int64]);
    let other = schema(&["pane"], &[DataType::Int64], &[DataType::Utf8]);
    let files = MemoryFiles::default();
    for mut table in
        [Box::new(around.rocks("one", &one)) as Box<dyn Table>, Box::new(MemoryTable::new(one.clone()).unwrap())]
    {
        table.put(&[1], &numbers(0..10), &numbers(0..10), 10).unwrap();
        let part = around.save(table.freeze().unwrap(), &files).part;
        let scratch = around.place.path().join("other");
        let wrong = around.runtime.block_on(open(&other, &part, &files, &scratch, &around.memory)).map(|_| ());
        assert!(matches!(wrong.unwrap_err(), TableError::Foreign { .. }), "{}", part.format);
    }
}

#[test]
fn the_scratch_directory_goes_with_the_table_and_what_was_frozen() {
    let around = Around::new();
    let schema = schema(&[], &[DataType::Int64], &[DataType::Int64]);
    let path = around.place.path().join("table");
    std::fs::create_dir_all(path.join("left over")).unwrap();
    let mut table = around.rocks("table", &schema);
    assert!(!path.join("left over").exists());
    table.put(&[], &numbers(0..10), &numbers(0..10), 10).unwrap();
    let frozen = table.freeze().unwrap();
    drop(table);
    let files = MemoryFiles::default();
    let part = around.save(frozen, &files).part;
    assert_eq!(part.format, ROCKS);
    assert!(!Path::new(&path).exists(), "all users of the directory are gone");
    assert_eq!(all(&mut around.restore(&schema, &[part], 0..KEY_GROUPS, &files)).len(), 10);
}

/// A write waits until what was frozen before it is made, and that is told.
#[test]
fn how_long_a_write_waited_is_told() {
    let around = Around::new();
    let schema = schema(&[], &[DataType::Int64], &[DataType::Int64]);
    let files = MemoryFiles::default();
    let mut table = around.rocks("table", &schema);
    let mut held = Vec::new();
    for _ in 0..10 {
        table.put(&[], &numbers(0..100), &numbers(0..100), 100).unwrap();
        let frozen = table.freeze().unwrap();
        let begun = std::time::Instant::now();
        table.put(&[], &numbers(0..1), &numbers(0..1), 1).unwrap();
        let waited = begun.elapsed();
        let saved = around.save(frozen, &files);
        assert!(saved.held <= waited, "{:?} of {waited:?}", saved.held);
        held.push(saved.held);
    }
    // Once or more it may have been made before anything was asked.
    assert!(held.iter().any(|held| !held.is_zero()), "{held:?}");
    assert!(around.save(table.freeze().unwrap(), &files).held.is_zero(), "nobody waited");
}

/// Part of the format of checkpoints: a failure here means that those of older versions could not be read.
#[test]
fn bytes_of_rows() {
    let schema = schema(&["pane"], &[DataType::Int64, DataType::Utf8], &[DataType::Float64, DataType::Utf8]);
    let codec = codec::Codec::new(schema).unwrap();
    let keys: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![Some(5), None])), Arc::new(StringArray::from(vec!["straße", ""]))];
    let values = take_arrays(
        &[
            Arc::new(arrow::array::Float64Array::from(vec![1.5])) as ArrayRef,
            Arc::new(StringArray::from(vec![Some("a text that is longer than one block")])),
        ],
        &UInt32Array::from(vec![0, 0]),
        None,
    )
    .unwrap();
    let keys = codec.keys(&[-2], &keys, 2);
    let values = codec.values(&values);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let found = [hex(keys.get(0)), hex(keys.get(1)), hex(values.row(0))];
    assert_eq!(found, BYTES);
}

const BYTES: [&str; 3] = [
    "7ffffffffffffffe00fd0180000000000000050273747261c39f650007",
    "7ffffffffffffffe007b00000000000000000001",
    "01bff8000000000000026120746578742074ff686174206973206cff6f6e676572207468ff616e206f6e652062ff6c6f636b\
     0000000000000000000000000000000000000000000000000000000004",
];

/// A write buffer, blocks, indexes and filters together stay within what was given.
#[test]
fn memory_stays_within_what_was_given() {
    let around = Around::new();
    let schema = schema(&[], &[DataType::Int64], &[DataType::Int64, DataType::Int64]);
    let budget = 6 << 20;
    let memory = RocksMemory::new(budget);
    let mut table = RocksTable::create(schema, &around.place.path().join("table"), &memory).unwrap();
    let mut random = Random(3);
    let mut largest = 0;
    for _ in 0..60 {
        let rows = 20_000;
        let key: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.below(1_000_000) as i64)));
        let value: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(|_| random.next() as i64)));
        let key = [key];
        table.get(&[], &key, rows as usize).unwrap();
        table.put(&[], &key, &[value.clone(), value], rows as usize).unwrap();
        largest = largest.max(memory.used());
    }
    assert!(table.bytes() > 2 * budget, "{} bytes are no test of {budget}", table.bytes());
    assert!(largest <= budget + budget / 4, "{largest} bytes of {budget}");
}
