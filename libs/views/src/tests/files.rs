use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use formats::RecordDecoder;
use formats::json::{JsonOptions, Scanner};
use graph::{Column, Schema};

use crate::chunk::Chunk;
use crate::testing::{Random, Row, changes, definition, texts};
use crate::{
    Changes, Fault, Manifest, PublishedBy, Query, StoredView, ViewDefinition, ViewError, ViewFiles, ViewSnapshot,
    ViewTable,
};

fn run(id: &str) -> PublishedBy {
    PublishedBy { run_id: id.into(), generation: 1 }
}

/// `rows` rows that all say `mark`.
fn marked(mark: u64, rows: usize) -> ViewSnapshot {
    let mut table = ViewTable::new(definition("v", &["k"])).unwrap();
    let rows: Vec<(u8, Row)> = (0..rows as i64).map(|key| (0, (key, Some(format!("{mark}")), None))).collect();
    table.apply(mark, Some(mark as i64), 5, &[changes(&rows)]).unwrap();
    table.snapshot()
}

/// The mark of a version, after all of its rows were read.
fn mark(view: &StoredView, rows: usize) -> u64 {
    let all: Vec<String> = view.batches().unwrap().flat_map(|batch| texts(&batch.unwrap())).collect();
    assert_eq!((all.len(), view.manifest.rows), (rows, rows as u64), "version {}", view.manifest.version);
    let marks: BTreeSet<&str> = all.iter().map(|row| row.split('|').nth(1).unwrap()).collect();
    assert_eq!(marks.len(), 1, "version {} has rows of one epoch", view.manifest.version);
    assert_eq!(view.manifest.epoch.to_string(), *marks.first().unwrap());
    view.manifest.epoch
}

fn listed(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn versions_ascend_over_runs_and_two_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let views_dir = dir.path().join("views");
    let files = ViewFiles::new(&views_dir, "v").unwrap();
    assert!(files.newest().unwrap().is_none() && files.newest_manifest().unwrap().is_none());
    let mut before: Option<Manifest> = None;
    for epoch in 1..6u64 {
        // Another process: nothing is remembered but what is on the disk.
        let files = ViewFiles::new(&views_dir, "v").unwrap();
        let id = format!("run {}", 9 - epoch);
        let manifest = files.publish(&marked(epoch, 3), &run(&id)).unwrap();
        assert_eq!((manifest.version, manifest.epoch, manifest.by.run_id.as_str()), (epoch, epoch, id.as_str()));
        assert_eq!(files.publish(&marked(epoch, 3), &run(&id)).unwrap(), manifest, "published once");
        let newest = files.newest().unwrap().unwrap();
        assert_eq!((&newest.manifest, mark(&newest, 3)), (&manifest, epoch));
        assert!(std::sync::Arc::ptr_eq(&newest, &files.newest().unwrap().unwrap()), "read once");
        assert_eq!((manifest.watermark_us, manifest.at_us), (Some(epoch as i64), 5));
        let mut expected: Vec<String> =
            before.iter().chain([&manifest]).flat_map(|m| m.files.iter().map(|f| f.name.clone())).collect();
        expected.extend(before.iter().chain([&manifest]).map(|manifest| format!("{:020}.json", manifest.version)));
        expected.push(".lock".into());
        expected.sort();
        assert_eq!(listed(&views_dir.join("v")), expected);
        before = Some(manifest);
    }
    // Other columns are another definition, and no problem.
    let other = ViewDefinition::new("v", Schema::new(vec![Column::new("n", graph::DataType::Int, true)]), vec![]);
    let manifest = files.publish(&ViewTable::new(other.clone()).unwrap().snapshot(), &run("other")).unwrap();
    assert_eq!((manifest.version, manifest.rows), (6, 0));
    let newest = files.newest().unwrap().unwrap();
    assert_eq!(newest.manifest.definition, other);
    assert_eq!(newest.query(&Query::default()).unwrap().rows.schema(), expr::arrow_schema(&other.columns));
}

#[test]
fn a_version_that_is_open_can_be_read_after_it_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let files = ViewFiles::new(dir.path(), "v").unwrap();
    files.publish(&marked(1, 40_000), &run("a")).unwrap();
    let first = files.newest().unwrap().unwrap();
    for epoch in 2..5 {
        files.publish(&marked(epoch, 2), &run("a")).unwrap();
    }
    assert!(!dir.path().join("v").join(&first.manifest.files[0].name).exists());
    assert_eq!(mark(&first, 40_000), 1);
    let query = Query { filter: Some("k >= 39990".into()), limit: 3, ..Query::default() };
    let answer = first.query(&query).unwrap();
    assert_eq!(
        (texts(&answer.rows), answer.more),
        (["39990|1|NULL", "39991|1|NULL", "39992|1|NULL"].map(String::from).to_vec(), true)
    );
}

#[test]
fn damage_is_found_and_told_with_the_file() {
    type Damage = (&'static str, fn(&Path));
    let damage: [Damage; 4] = [
        ("it has", |path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }),
        ("it has", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        }),
        ("it has 0 bytes", |path| fs::write(path, b"").unwrap()),
        ("it is missing", |path| fs::remove_file(path).unwrap()),
    ];
    for (reason, damage) in damage {
        let dir = tempfile::tempdir().unwrap();
        let manifest = ViewFiles::new(dir.path(), "v").unwrap().publish(&marked(1, 100), &run("a")).unwrap();
        let path = dir.path().join("v").join(&manifest.files[0].name);
        damage(&path);
        let files = ViewFiles::new(dir.path(), "v").unwrap();
        let error = files.newest().map(drop).unwrap_err();
        assert!(matches!(&error, ViewError::Damaged { file, .. } if *file == path), "{error}");
        assert!(error.to_string().contains(&manifest.files[0].name) && error.to_string().contains(reason), "{error}");
        // The next run mends it.
        files.publish(&marked(2, 5), &run("b")).unwrap();
        assert_eq!(mark(&files.newest().unwrap().unwrap(), 5), 2);
    }
    let dir = tempfile::tempdir().unwrap();
    let files = ViewFiles::new(dir.path(), "v").unwrap();
    let manifest = files.publish(&marked(1, 100), &run("a")).unwrap();
    let path = dir.path().join("v").join(format!("{:020}.json", 1));
    let foreign = serde_json::to_string(&manifest).unwrap().replace(&manifest.files[0].name, "../secret");
    for text in ["{", "", foreign.as_str()] {
        fs::write(&path, text).unwrap();
        let error = files.newest().map(drop).unwrap_err();
        assert!(error.code() == "view_damaged" && error.to_string().contains("00001.json"), "{error}");
    }
    // Of a manifest that cannot be read, the number still counts.
    assert_eq!(files.publish(&marked(2, 5), &run("b")).unwrap().version, 2);
    assert_eq!(mark(&files.newest().unwrap().unwrap(), 5), 2);
}

#[test]
fn what_a_stopped_publisher_left_is_not_seen_and_goes_with_time() {
    let dir = tempfile::tempdir().unwrap();
    let files = ViewFiles::new(dir.path(), "v").unwrap();
    files.publish(&marked(1, 3), &run("a")).unwrap();
    let at = |name: &str| dir.path().join("v").join(name);
    for name in ["base-2-0.arrow", "base-2-1.arrow", ".2-0.tmp", ".2-1.tmp", "foreign.txt"] {
        fs::write(at(name), "half").unwrap();
        if name.contains("-1.") || name.starts_with("foreign") {
            let long_ago = SystemTime::now() - Duration::from_secs(4000);
            File::options().write(true).open(at(name)).unwrap().set_modified(long_ago).unwrap();
        }
    }
    assert_eq!(mark(&files.newest().unwrap().unwrap(), 3), 1);
    assert_eq!(files.publish(&marked(2, 3), &run("a")).unwrap().version, 2);
    let left: Vec<String> = listed(&dir.path().join("v"));
    for (name, stays) in [
        ("base-2-0.arrow", true),
        ("base-2-1.arrow", false),
        (".2-0.tmp", true),
        (".2-1.tmp", false),
        ("foreign.txt", true),
    ] {
        assert_eq!(left.contains(&name.to_string()), stays, "{name}");
    }
}

/// A view that cannot be published fills no disk.
#[test]
fn what_was_written_for_a_version_that_failed_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let files = ViewFiles::new(dir.path(), "v").unwrap();
    files.publish(&marked(1, 3), &run("a")).unwrap();
    let before = listed(&dir.path().join("v"));
    // In the middle of the rows: the second of two chunks lacks columns.
    let mut broken = marked(2, 100_000);
    broken.chunks.push(Chunk::full(broken.chunks[0].rows.project(&[0]).unwrap()));
    files.publish(&broken, &run("a")).unwrap_err();
    assert_eq!(listed(&dir.path().join("v")), before);
    // Behind the rows: there is no number to be had.
    let lock = dir.path().join("v/.lock");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let error = files.publish(&marked(2, 100), &run("a")).unwrap_err();
    assert_eq!((error.code(), error.fault()), ("storage_failed", Fault::External));
    assert_eq!(listed(&dir.path().join("v")), before);
    fs::remove_dir(&lock).unwrap();
    assert_eq!(files.publish(&marked(2, 100), &run("a")).unwrap().version, 2);
    assert_eq!(mark(&files.newest().unwrap().unwrap(), 100), 2);
}

/// Who reads while versions come and go is told to ask again, not that the query is wrong.
#[test]
fn a_version_that_is_gone_is_nobodys_mistake() {
    let error = ViewError::Gone { version: 7 };
    assert_eq!((error.code(), error.fault()), ("view_version_gone", Fault::External));
    assert!(error.hint().unwrap().contains("ask again"));
}

#[test]
fn readers_and_publishers_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (publishers, each, rows) = (3, 25, 2000);
    ViewFiles::new(dir.path(), "v").unwrap().publish(&marked(1, rows), &run("first")).unwrap();
    let done = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mut reads = vec![];
        for _ in 0..2 {
            reads.push(scope.spawn(|| {
                let (mut last, mut reads) = (0, 0);
                while done.load(std::sync::atomic::Ordering::Relaxed) < publishers {
                    let files = ViewFiles::new(dir.path(), "v").unwrap();
                    let view = files.newest().unwrap().unwrap();
                    mark(&view, rows);
                    assert!(view.manifest.version >= last, "versions never go back");
                    (last, reads) = (view.manifest.version, reads + 1);
                }
                reads
            }));
        }
        let mut writers = vec![];
        for publisher in 0..publishers {
            let (dir, done) = (dir.path(), &done);
            writers.push(scope.spawn(move || {
                let files = ViewFiles::new(dir, "v").unwrap();
                let versions: Vec<u64> = (1..=each)
                    .map(|epoch| files.publish(&marked(epoch, rows), &run(&format!("{publisher}"))).unwrap().version)
                    .collect();
                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                versions
            }));
        }
        let versions: Vec<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        let distinct: BTreeSet<u64> = versions.iter().copied().collect();
        assert_eq!(distinct.len(), publishers * each as usize, "each version has one publisher");
        assert!(reads.into_iter().map(|reader| reader.join().unwrap()).sum::<i32>() > 0);
    });
}

const CHILD: &str = "VIEWS_TEST_PUBLISH_FOR_EVER";

/// Not a test by itself: what the next one kills.
#[test]
fn publish_for_ever_when_asked_to() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let files = ViewFiles::new(Path::new(&dir), "v").unwrap();
    for epoch in files.newest_manifest().unwrap().map_or(1, |manifest| manifest.epoch + 1).. {
        files.publish(&marked(epoch, 3000), &run("killed")).unwrap();
        // Renamed, so that it is never half.
        fs::write(Path::new(&dir).join("telling"), epoch.to_string()).unwrap();
        fs::rename(Path::new(&dir).join("telling"), Path::new(&dir).join("told")).unwrap();
    }
}

#[test]
fn a_publisher_killed_at_any_moment_leaves_a_whole_version() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(u64::from(std::process::id()));
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::files::publish_for_ever_when_asked_to"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = || fs::read_to_string(dir.path().join("told")).map_or(0, |told| told.parse::<u64>().unwrap());
        let (begun, before) = (Instant::now(), told());
        while told() == before {
            assert!(begun.elapsed() < Duration::from_secs(60), "the publisher does not come to work");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.below(30_000)));
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9), "it was at work until it was killed");
        let files = ViewFiles::new(dir.path(), "v").unwrap();
        let (epoch, told) = (mark(&files.newest().unwrap().unwrap(), 3000), told());
        assert!((told..=told + 1).contains(&epoch), "{epoch} is there, and {told} was published last");
    }
}

#[test]
fn all_types_are_kept_as_they_are() {
    let types = [
        "BOOLEAN",
        "TINYINT",
        "SMALLINT",
        "INT",
        "BIGINT",
        "FLOAT",
        "DOUBLE",
        "DECIMAL(10, 3)",
        "DECIMAL(38, 0)",
        "STRING",
        "BYTES",
        "DATE",
        "TIME",
        "TIMESTAMP(0)",
        "TIMESTAMP(3)",
        "TIMESTAMP(6)",
        "TIMESTAMP(9)",
        "TIMESTAMP_LTZ(3)",
        "ARRAY<BIGINT>",
        "MAP<STRING, INT>",
        "ROW<a BIGINT, b ARRAY<STRING>>",
    ];
    let column = |(at, text): (usize, &&str)| Column::new(format!("c{at}"), text.parse().unwrap(), true);
    let columns = Schema::new(types.iter().enumerate().map(column).collect());
    let schema = expr::arrow_schema(&columns);
    let mut scanner = Scanner::new(schema.clone(), JsonOptions::default()).unwrap();
    let values = [
        "true",
        "-128",
        "32767",
        "-2147483648",
        "9223372036854775807",
        "0.1",
        "1e300",
        "-0.5",
        "99999999999999999999999999999999999999",
        "\"a\\n\"",
        "\"Zm8=\"",
        "\"1969-12-31\"",
        "\"01:02:03.04\"",
        "\"2020-01-31 23:59:59\"",
        "\"2020-01-31 23:59:59.12\"",
        "\"2020-01-31 23:59:59.000001\"",
        "\"2020-01-31 23:59:59.000000001\"",
        "\"2020-01-31 23:59:59.123Z\"",
        "[1, null]",
        "{\"a\": 1, \"b\": null}",
        "{\"a\": 7, \"b\": [\"x\"]}",
    ];
    let fields: Vec<String> = values.iter().enumerate().map(|(at, value)| format!("\"c{at}\": {value}")).collect();
    scanner.decode_record(format!("{{{}}}", fields.join(", ")).as_bytes()).unwrap();
    scanner.decode_record(b"{}").unwrap();
    let rows = scanner.flush().batch;
    assert_eq!(rows.num_columns(), rows.columns().iter().filter(|column| column.is_valid(0)).count());

    let definition = ViewDefinition::new("types", columns, vec![]);
    let mut table = ViewTable::new(definition.clone()).unwrap();
    table.apply(1, None, 0, &[Changes { rows: rows.clone(), kinds: None }]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let files = ViewFiles::new(dir.path(), "types").unwrap();
    files.publish(&table.snapshot(), &run("a")).unwrap();
    let view = files.newest().unwrap().unwrap();
    assert_eq!((&view.manifest.definition, view.schema()), (&definition, schema));
    let read: Vec<_> = view.batches().unwrap().map(Result::unwrap).collect();
    assert_eq!(read, std::slice::from_ref(&rows));
    assert_eq!(view.query(&Query::default()).unwrap().rows, rows);
    let error = view.query(&serde_json::from_str(r#"{"order_by": [{"column": "c19"}]}"#).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "view types has no order by c19: it is a MAP<STRING, INT>");
    view.query(&serde_json::from_str(r#"{"order_by": [{"column": "c20"}, {"column": "c18"}]}"#).unwrap()).unwrap();
}
