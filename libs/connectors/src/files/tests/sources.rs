//! Every way to read files, against the suite of sources.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, LargeStringArray, RecordBatch, StringViewArray, TimestampMicrosecondArray,
    TimestampSecondArray,
};
use arrow::datatypes::Int32Type;
use engine::{Pushed, RunError, Source, SourceHints};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::files::{AllowedRoots, FilesystemSource, Location, Reach, Store};
use crate::testing::{
    all_columns, by_split, collect, files_node, run, sample, source_conformance, source_node, starts, texts,
};

pub fn parquet_bytes(rows: &[RecordBatch], group_rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows[0].schema(), Some(properties)).unwrap();
    rows.iter().for_each(|rows| writer.write(rows).unwrap());
    writer.into_inner().unwrap()
}

fn open_with(node: &graph::Source, hints: SourceHints, root: &Path) -> Result<Arc<dyn Source>, RunError> {
    let graph::SourceConnector::Filesystem(options) = &node.connector else { panic!("no files") };
    Ok(Arc::new(FilesystemSource::open(node, options, hints, &Reach::everywhere(AllowedRoots::new([root])))?))
}

pub fn open(node: &graph::Source, root: &Path) -> Arc<dyn Source> {
    open_with(node, all_columns(node), root).unwrap()
}

#[test]
fn what_is_no_file_is_called_by_its_name() {
    let root = tempfile::tempdir().unwrap();
    let pipe = root.path().join("pipe");
    let name = std::ffi::CString::new(pipe.to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let error = run(open(&files_node(&pipe, "json", sample::COLUMNS), root.path()).splits()).unwrap_err();
    assert!(error.code == "location_invalid" && error.message.contains("a pipe"), "{error:?}");
    // Among files it is passed over.
    fs::write(root.path().join("a.json"), "").unwrap();
    run(open(&files_node(root.path(), "json", sample::COLUMNS), root.path()).splits()).unwrap();
}

#[test]
fn a_file_that_is_cut_off_while_it_is_read_is_not_called_gone() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.json");
    fs::write(&path, vec![b'x'; 100]).unwrap();
    let store = Store::Local(AllowedRoots::new([root.path()]));
    let error = run(async {
        let listed = store.head(path.to_str().unwrap()).await.unwrap().unwrap();
        let opened = store.open_local(&listed).await.unwrap().unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(40).unwrap();
        RunError::from(opened.failed(&opened.read(0..100).unwrap_err()))
    });
    assert!(error.code == "input_changed" && error.message.contains("it is 40 bytes"), "{error:?}");
    assert!(error.message.contains("it was 100 bytes"), "{error:?}");
}

fn sorted(rows: &RecordBatch) -> Vec<String> {
    let mut texts = texts(rows);
    texts.sort();
    texts
}

fn json_lines(rows: &RecordBatch) -> String {
    texts(rows)
        .iter()
        .map(|row| {
            let values: Vec<&str> = row.split('|').collect();
            let text = |value: &str| if value == "NULL" { "null".to_string() } else { format!("\"{value}\"") };
            let bare = |value: &str| if value == "NULL" { "null".to_string() } else { value.to_string() };
            format!(
                "{{\"id\":{},\"name\":{},\"price\":{},\"ts\":{},\"day\":{},\"ok\":{},\"x\":{}, \"more\": [1, {{}}]}}\n",
                values[0],
                text(values[1]),
                bare(values[2]),
                text(values[3]),
                text(values[4]),
                bare(values[5]),
                bare(values[6])
            )
        })
        .collect()
}

#[test]
fn parquet_files_keep_the_suite() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.parquet"), parquet_bytes(&[sample::rows(0, 500)], 64)).unwrap();
    fs::create_dir(root.path().join("b")).unwrap();
    fs::write(root.path().join("b/c.parquet"), parquet_bytes(&[sample::rows(500, 100), sample::rows(600, 41)], 100))
        .unwrap();
    fs::write(root.path().join("empty.parquet"), parquet_bytes(&[sample::rows(0, 0)], 100)).unwrap();
    let node = files_node(root.path(), "parquet", sample::COLUMNS);
    let rows = run(source_conformance(open(&node, root.path())));
    assert_eq!(rows, sorted(&sample::rows(0, 641)));
}

#[test]
fn json_files_keep_the_suite() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.json"), json_lines(&sample::rows(0, 300))).unwrap();
    // No newline at the end, a blank line, and a BOM.
    let last = json_lines(&sample::rows(300, 50));
    fs::write(root.path().join("b.json"), format!("\u{feff}\n{}", last.trim_end())).unwrap();
    fs::write(root.path().join("c.json"), "").unwrap();
    let node = files_node(root.path(), "json", sample::COLUMNS);
    let rows = run(source_conformance(open(&node, root.path())));
    assert_eq!(rows, sorted(&sample::rows(0, 350)));
}

#[test]
fn bad_records_are_reported_in_their_place_also_after_resuming() {
    let root = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for id in 0..200 {
        text.push_str(&match id % 9 {
            3 => "{\"id\": oops}\n".to_string(),
            5 => "\n".to_string(),
            7 => "{\"id\": null}\n".to_string(),
            _ => format!("{{\"id\": {id}}}\n"),
        });
    }
    fs::write(root.path().join("a.json"), &text).unwrap();
    let node = files_node(root.path(), "json", &["id BIGINT NOT NULL"]);
    let source = open(&node, root.path());
    run(async {
        let rows = source_conformance(source.clone()).await;
        assert_eq!(
            rows.iter().filter(|row| row.parse::<i64>().is_ok()).count(),
            (0..200).filter(|id| ![3, 5, 7].contains(&(id % 9))).count()
        );
        let seen = by_split(&collect(&source, starts(&source.splits().await.unwrap()), 8192).await.unwrap());
        assert!(seen[&0].iter().any(|row| row.starts_with("3! ")), "{:?}", seen[&0]);
        // The number of a record is that of its line.
        assert!(seen[&0].contains(&"199: 199".to_string()), "{:?}", seen[&0].last());
    });
    // More bad records in a row than are handed over at once: events that have no rows, and a place to go on behind them.
    let oops = "o".repeat(3_000) + "\n";
    fs::write(root.path().join("a.json"), oops.repeat(600) + "{\"id\": 600}\noops\n").unwrap();
    let source = open(&node, root.path());
    run(async {
        let rows = source_conformance(source.clone()).await;
        assert_eq!(rows.len(), 602);
        let seen = collect(&source, starts(&source.splits().await.unwrap()), 7).await.unwrap();
        assert!(seen.iter().any(|seen| seen.len == 0), "{} events", seen.len());
        let tail = &by_split(&seen)[&0][600..];
        assert!(tail[0] == "600: 600" && tail[1].starts_with("601! "), "{tail:?}");
    });
}

#[test]
fn compressed_text_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    for (format, name) in [("json", "a.json.gz"), ("csv", "a.csv.zst")] {
        fs::write(root.path().join(name), "{}").unwrap();
        let node = files_node(&root.path().join(name), format, &["id BIGINT"]);
        let error = run(open(&node, root.path()).splits()).unwrap_err();
        assert!(error.code == "input_file_invalid" && error.message.contains("compressed"), "{error:?}");
        assert!(error.message.contains(name), "{error:?}");
    }
}

#[test]
fn object_stores_keep_the_suite() {
    run(async {
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        objects.put(&"d/a.parquet".into(), parquet_bytes(&[sample::rows(0, 150)], 40).into()).await.unwrap();
        objects.put(&"d/k=1/b.parquet".into(), parquet_bytes(&[sample::rows(150, 50)], 40).into()).await.unwrap();
        objects.put(&"d/_x/c.parquet".into(), "hidden".into()).await.unwrap();
        objects.put(&"e/a.json".into(), json_lines(&sample::rows(0, 99)).into()).await.unwrap();
        let over = |path: &str, format: &str| {
            let node = files_node(Path::new(path), format, sample::COLUMNS);
            let graph::SourceConnector::Filesystem(options) = &node.connector else { panic!("no files") };
            let location =
                Location { store: Store::objects(objects.clone(), "s3://bucket/".into()), path: path.into() };
            let source: Arc<dyn Source> =
                Arc::new(FilesystemSource::over(location, &node, options, all_columns(&node)).unwrap());
            source
        };
        assert_eq!(source_conformance(over("d", "parquet")).await, sorted(&sample::rows(0, 200)));
        assert_eq!(source_conformance(over("d/*.parquet", "parquet")).await, sorted(&sample::rows(0, 150)));
        assert_eq!(source_conformance(over("e/a.json", "json")).await, sorted(&sample::rows(0, 99)));
        for missing in ["d/x.parquet", "nowhere", "e/*.csv"] {
            assert_eq!(over(missing, "parquet").splits().await.unwrap_err().code, "input_not_found", "{missing}");
        }
        // An object that is replaced after it was listed.
        let source = over("d/a.parquet", "parquet");
        let splits = source.splits().await.unwrap();
        objects.put(&"d/a.parquet".into(), parquet_bytes(&[sample::rows(7, 150)], 40).into()).await.unwrap();
        assert_eq!(collect(&source, starts(&splits), 100).await.unwrap_err().code, "input_changed");
    });
}

#[test]
fn a_file_that_changes_fails_the_run() {
    let root = tempfile::tempdir().unwrap();
    for (format, before, after) in [
        ("parquet", parquet_bytes(&[sample::rows(0, 10)], 4), parquet_bytes(&[sample::rows(5, 10)], 4)),
        ("json", b"{\"id\": 1}\n".to_vec(), b"{\"id\": 2}\n".to_vec()),
    ] {
        let path = root.path().join(format!("a.{format}"));
        fs::write(&path, before).unwrap();
        let source = open(&files_node(&path, format, &["id BIGINT"]), root.path());
        let splits = run(source.splits()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, after).unwrap();
        assert_eq!(run(collect(&source, starts(&splits), 100)).unwrap_err().code, "input_changed", "{format}");
        fs::remove_file(&path).unwrap();
        assert_eq!(run(collect(&source, starts(&splits), 100)).unwrap_err().code, "input_changed", "{format}, gone");
    }
}

#[test]
fn only_wanted_columns_are_given_in_their_order() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.parquet"), parquet_bytes(&[sample::rows(0, 30)], 8)).unwrap();
    fs::write(root.path().join("a.json"), json_lines(&sample::rows(0, 30))).unwrap();
    for format in ["parquet", "json"] {
        let node = files_node(&root.path().join(format!("a.{format}")), format, sample::COLUMNS);
        let wanted = |names: &[&str]| SourceHints {
            columns: graph::Schema::new(
                names
                    .iter()
                    .map(|name| node.columns.iter().find(|column| column.name == *name).unwrap().clone())
                    .collect(),
            ),
            ..SourceHints::default()
        };
        let rows = run(source_conformance(open_with(&node, wanted(&["x", "id"]), root.path()).unwrap()));
        assert!(rows.contains(&"3.5|28".to_string()), "{format}: {rows:?}");
        let rows = run(source_conformance(open_with(&node, wanted(&[]), root.path()).unwrap()));
        assert_eq!(rows.len(), 30, "{format}: rows without columns are counted");
    }
}

#[test]
fn partition_columns_come_from_directories_and_prune_files() {
    let root = tempfile::tempdir().unwrap();
    for (day, kind, from) in
        [("2001-01-01", "a", 0), ("2001-01-02", "b%2Fc", 100), ("2001-01-02", "__HIVE_DEFAULT_PARTITION__", 200)]
    {
        let directory = root.path().join(format!("day={day}/kind={kind}"));
        fs::create_dir_all(&directory).unwrap();
        let rows = sample::rows(from, 3).project(&[0]).unwrap();
        fs::write(directory.join("f.parquet"), parquet_bytes(&[rows], 100)).unwrap();
    }
    let options = serde_json::json!({"type": "filesystem", "path": root.path().to_str().unwrap(), "format": "parquet"});
    let node = source_node(options, &["id BIGINT NOT NULL", "day DATE", "kind STRING"], &["day", "kind"]);
    let rows = run(source_conformance(open(&node, root.path())));
    assert_eq!(rows[0], "0|2001-01-01|a");
    assert!(
        rows.contains(&"101|2001-01-02|b/c".to_string()) && rows.contains(&"202|2001-01-02|NULL".to_string()),
        "{rows:?}"
    );
    let pushed = |column: &str, op: &str, literal: &str| Pushed {
        column: column.into(),
        op: op.into(),
        literal: literal.into(),
    };
    for (pushed, files) in [
        (pushed("day", ">", "2001-01-01"), 2),
        (pushed("day", "<", "'2001-01-01'"), 0),
        (pushed("kind", "=", "'b/c'"), 1),
        (pushed("id", ">=", "200"), 3),
    ] {
        let source =
            open_with(&node, SourceHints { pushed: vec![pushed.clone()], ..all_columns(&node) }, root.path()).unwrap();
        assert_eq!(run(source.splits()).unwrap().len(), files, "{pushed:?}");
    }
    let options = serde_json::json!({"type": "filesystem", "path": root.path().to_str().unwrap(), "format": "parquet"});
    let strict = source_node(options.clone(), &["id BIGINT", "day DATE", "kind STRING NOT NULL"], &["day", "kind"]);
    let error = run(open(&strict, root.path()).splits()).unwrap_err();
    assert!(error.code == "input_schema_mismatch" && error.message.contains("NOT NULL"), "{error:?}");
    let wrong = source_node(options, &["id BIGINT", "day INT"], &["day"]);
    assert_eq!(run(open(&wrong, root.path()).splits()).unwrap_err().code, "input_schema_mismatch");
}

#[test]
fn row_groups_that_cannot_match_are_skipped_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.parquet");
    fs::write(&path, parquet_bytes(&[sample::rows(0, 1000)], 100)).unwrap();
    let node = files_node(&path, "parquet", sample::COLUMNS);
    for (column, op, literal, groups) in [
        ("id", "=", "250", 1),
        ("id", "<", "100", 1),
        ("id", "<=", "100", 2),
        ("id", ">", "899", 1),
        ("id", ">=", "899", 2),
        ("id", "=", "5000", 0),
        ("ts", "<", "2023-11-14 22:13:45", 1),
        ("price", ">", "907.99", 1),
        ("price", ">=", "907.99", 2),
        ("day", ">=", "2022-03-31", 2),
        ("name", "=", "'zzz'", 0),
        ("x", ">", "1e9", 10),
        ("id", "<>", "1", 10),
    ] {
        let pushed = vec![Pushed { column: column.into(), op: op.into(), literal: literal.into() }];
        let source = open_with(&node, SourceHints { pushed, ..all_columns(&node) }, root.path()).unwrap();
        let rows = run(source_conformance(source));
        assert_eq!(rows.len(), groups * 100, "{column} {op} {literal}");
    }
}

#[test]
fn splits_carry_proved_lower_bounds_in_order_of_time() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.parquet"), parquet_bytes(&[sample::rows(1000, 10)], 100)).unwrap();
    fs::write(root.path().join("b.parquet"), parquet_bytes(&[sample::rows(0, 10)], 100)).unwrap();
    let node = files_node(root.path(), "parquet", sample::COLUMNS);
    let source =
        open_with(&node, SourceHints { time_column: Some("ts".into()), ..all_columns(&node) }, root.path()).unwrap();
    let splits = run(source.splits()).unwrap();
    let bounds: Vec<(bool, Option<i64>)> =
        splits.iter().map(|split| (split.id.ends_with("b.parquet"), split.min_time_us)).collect();
    assert_eq!(bounds, [(true, Some(1_700_000_000_000_000)), (false, Some(1_700_000_250_000_000))]);
    assert_eq!(splits[0].rows, Some(10));
}

#[test]
fn types_of_files_are_widened_or_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("int", Arc::new(Int32Array::from(vec![Some(1), None, Some(-3)]))),
        ("view", Arc::new(StringViewArray::from(vec!["a", "b", "a long text that is not inlined"]))),
        ("large", Arc::new(LargeStringArray::from(vec!["x", "y", "z"]))),
        ("dict", Arc::new(vec!["p", "q", "p"].into_iter().collect::<DictionaryArray<Int32Type>>())),
        ("us", Arc::new(TimestampMicrosecondArray::from(vec![1_999_999, -1, 0]))),
        ("zoned", Arc::new(TimestampMicrosecondArray::from(vec![1_000_000, 0, 0]).with_timezone("+02:00"))),
        ("secs", Arc::new(TimestampSecondArray::from(vec![1, 2, 3]))),
    ];
    let path = root.path().join("a.parquet");
    fs::write(
        &path,
        parquet_bytes(
            &[RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
                .unwrap()],
            10,
        ),
    )
    .unwrap();
    let read = |columns: &[&str]| {
        let source = open(&files_node(&path, "parquet", columns), root.path());
        run(async {
            let splits = source.splits().await?;
            collect(&source, starts(&splits), 100).await
        })
    };
    let seen = read(&[
        "int BIGINT",
        "view STRING",
        "large STRING",
        "dict STRING",
        "us TIMESTAMP(3)",
        "zoned TIMESTAMP(0)",
        "secs TIMESTAMP_LTZ(6)",
        "missing DOUBLE",
    ]);
    let rows = &seen.unwrap()[0].rows;
    assert_eq!(rows[0], "0: 1|a|x|p|1970-01-01T00:00:01.999|1970-01-01T00:00:01|1970-01-01T00:00:01Z|NULL");
    assert_eq!(rows[1], "1: NULL|b|y|q|1969-12-31T23:59:59.999|1970-01-01T00:00:00|1970-01-01T00:00:02Z|NULL");
    assert!(rows[2].contains("a long text that is not inlined|z|p|"), "{rows:?}");
    for (column, code, part) in [
        ("int SMALLINT", "input_schema_mismatch", "column int is"),
        ("int STRING", "input_schema_mismatch", "column int is"),
        ("view BIGINT", "input_schema_mismatch", "column view is"),
        ("us DATE", "input_schema_mismatch", "column us is"),
        ("missing DOUBLE NOT NULL", "input_schema_mismatch", "lacks column missing"),
        ("View STRING", "input_schema_mismatch", "has view; names are compared exactly"),
        ("int BIGINT NOT NULL", "input_null", "row 1"),
    ] {
        let error = read(&[column]).unwrap_err();
        assert!(
            error.code == code && error.message.contains(part) && error.message.contains("a.parquet"),
            "{column}: {error:?}"
        );
    }
}
