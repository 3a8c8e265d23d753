//! The sink of files, against the suite of sinks, and what else it promises.

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray};
use async_trait::async_trait;
use engine::{Batch, RunError, Sink, SinkContext, Source};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use serde_json::{Value, json};

use crate::files::manifest::{self, Manifest};
use crate::files::{AllowedRoots, FilesystemSink, FilesystemSource, Location, Reach, Store};
use crate::testing::sinks::{CHECKPOINT, LAST, prepare, sink_conformance, sink_node, snapshot, writer};
use crate::testing::{all_columns, collect, run, sample, source_node, starts};

fn context(run: &str, bounded: bool) -> SinkContext {
    SinkContext {
        run_id: run.into(),
        bounded,
        updating: false,
        stateless: true,
        operator: "sink out".into(),
        durable: false,
    }
}

/// A directory of results, local or not.
#[derive(Clone)]
struct Place {
    store: Store,
    path: String,
    options: Value,
    columns: Vec<&'static str>,
    partition_by: Vec<&'static str>,
}

impl Place {
    fn local(root: &Path, format: &str) -> Place {
        let path = root.join("out").to_str().unwrap().to_string();
        Place::over(Store::Local(AllowedRoots::new([root])), path, format)
    }

    fn over(store: Store, path: String, format: &str) -> Place {
        let options = json!({"type": "filesystem", "path": path, "format": format});
        Place { store, path, options, columns: sample::COLUMNS.to_vec(), partition_by: vec![] }
    }

    fn sink(&self, run: &str, bounded: bool, rows: &RecordBatch) -> Result<Arc<dyn Sink>, RunError> {
        let node = sink_node(self.options.clone(), &self.partition_by);
        let graph::SinkConnector::Filesystem(options) = &node.connector else { panic!("no files") };
        let location = || Ok(Location { store: self.store.clone(), path: self.path.clone() });
        Ok(Arc::new(FilesystemSink::over(location, &node, options, rows.schema(), context(run, bounded))?))
    }

    fn source(&self) -> Arc<dyn Source> {
        let node = source_node(self.options.clone(), &self.columns, &self.partition_by);
        let graph::SourceConnector::Filesystem(options) = &node.connector else { panic!("no files") };
        let location = Location { store: self.store.clone(), path: self.path.clone() };
        Arc::new(FilesystemSource::over(location, &node, options, all_columns(&node)).unwrap())
    }

    async fn visible(&self) -> Option<Vec<String>> {
        let source = self.source();
        let splits = match source.splits().await {
            Err(error) if error.code == "input_not_found" => return None,
            splits => splits.unwrap(),
        };
        let seen = collect(&source, starts(&splits), 100).await.unwrap();
        let mut rows: Vec<String> = seen
            .into_iter()
            .flat_map(|seen| seen.rows)
            .map(|row| row.split_once(": ").unwrap().1.to_string())
            .collect();
        rows.sort();
        Some(rows)
    }

    async fn write(&self, run: &str, rows: &[RecordBatch]) -> Result<(), RunError> {
        let sink = self.sink(run, true, &rows[0])?;
        let mut one = writer(&sink, &rows[0].schema(), 0, 1);
        for rows in rows {
            one.write(Batch::inserts(rows.clone()))?;
        }
        let prepared = prepare(&mut one, 1, LAST).await?;
        sink.committer()?.commit(1, LAST, vec![prepared]).await
    }

    async fn manifests(&self) -> Vec<Manifest> {
        manifest::read(&self.store, &self.path).await.unwrap().into_iter().map(|(manifest, _)| manifest).collect()
    }
}

fn batch(number: i64) -> RecordBatch {
    sample::rows(number * 10, 10)
}

#[test]
fn local_directories_keep_the_suite_in_every_format() {
    for format in ["parquet", "json", "csv"] {
        let root = tempfile::tempdir().unwrap();
        let place = Place::local(root.path(), format);
        run(sink_conformance(
            |run, bounded| place.sink(run, bounded, &batch(0)).unwrap(),
            async || place.visible().await,
            batch,
        ));
        assert!(!root.path().join("out/_staging").exists(), "nothing is left");
        let manifests = run(place.manifests());
        assert_eq!(manifests.iter().map(|manifest| manifest.rows).collect::<Vec<_>>(), [30, 10, 10, 10, 0]);
        // Hashes and sizes are those of the files.
        for file in manifests.iter().flat_map(|manifest| &manifest.files) {
            let bytes = fs::read(root.path().join("out").join(&file.path)).unwrap();
            assert_eq!((manifest::hash(&bytes), bytes.len() as u64), (file.sha256.clone(), file.bytes));
        }
    }
}

#[test]
fn object_stores_keep_the_suite() {
    for path in ["", "some/where"] {
        let place =
            Place::over(Store::objects(Arc::new(InMemory::new()), "s3://bucket/".into()), path.into(), "parquet");
        let place =
            Place { options: json!({"type": "filesystem", "path": "s3://bucket", "format": "parquet"}), ..place };
        run(sink_conformance(
            |run, bounded| place.sink(run, bounded, &batch(0)).unwrap(),
            async || place.visible().await,
            batch,
        ));
    }
}

#[test]
fn partitions_become_directories_and_come_back() {
    let root = tempfile::tempdir().unwrap();
    let place = Place {
        partition_by: vec!["day", "kind"],
        columns: vec!["id BIGINT", "kind STRING", "day DATE"],
        ..Place::local(root.path(), "json")
    };
    let days: Vec<i32> = (0..300).map(|id| 11_000 + id % 100).collect();
    let kinds = [Some("a/b"), None, Some("")];
    let kinds = StringArray::from_iter(
        (0..300).map(|id| if id == 12 { Some("__HIVE_DEFAULT_PARTITION__") } else { kinds[id % 3] }),
    );
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from_iter_values(0..300)) as ArrayRef, true),
        ("kind", Arc::new(kinds), true),
        ("day", Arc::new(arrow::array::Date32Array::from(days)), true),
    ])
    .unwrap();
    run(async {
        place.write("run", &[rows.slice(0, 100), rows.slice(100, 200)]).await.unwrap();
        // The partition columns come last.
        let read =
            Place { columns: vec!["id BIGINT", "day DATE", "kind STRING"], ..place.clone() }.visible().await.unwrap();
        assert_eq!(read.len(), 300);
        assert!(
            read.contains(&"3|2000-02-16|a/b".to_string()) && read.contains(&"4|2000-02-17|NULL".to_string()),
            "{read:?}"
        );
        assert!(read.contains(&"5|2000-02-18|".to_string()), "an empty text is not NULL");
        assert!(read.contains(&"12|2000-02-25|__HIVE_DEFAULT_PARTITION__".to_string()), "nor is the word for it");
        let manifests = place.manifests().await;
        assert!(
            manifests[0].files.iter().any(|file| file.path.starts_with("day=2000-02-16/kind=a%2Fb/part-")),
            "{:?}",
            manifests[0].files[0]
        );
    });
}

#[test]
fn files_roll_by_size() {
    let root = tempfile::tempdir().unwrap();
    for (format, size) in [("json", 2_000), ("csv", 2_000), ("parquet", 1)] {
        fs::create_dir(root.path().join(format)).unwrap();
        let mut place = Place::local(&root.path().join(format), format);
        place.options["sink.rolling-policy.file-size"] = json!(size);
        run(async {
            place.write("run", &(0..20).map(batch).collect::<Vec<_>>()).await.unwrap();
            let files = place.manifests().await[0].files.len();
            assert!((3..=20).contains(&files), "{format}: {files} files");
            assert_eq!(place.visible().await.unwrap().len(), 200);
        });
    }
}

/// A bounded run prepares only at its end, so what is open when a snapshot is taken must be closed and in it.
#[test]
fn a_snapshot_without_a_prepare_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::local(root.path(), "csv");
    run(async {
        let sink = place.sink("run", true, &batch(0)).unwrap();
        let mut one = writer(&sink, &batch(0).schema(), 0, 1);
        one.write(Batch::inserts(batch(0))).unwrap();
        let taken = snapshot(&mut one, 1);
        one.write(Batch::inserts(batch(9))).unwrap();
        drop(one);
        let sink = place.sink("run", true, &batch(0)).unwrap();
        let mut two = writer(&sink, &batch(0).schema(), 0, 1);
        two.restore(&state::SnapshotReader::new(vec![taken], 0, 1)).unwrap();
        two.write(Batch::inserts(batch(1))).unwrap();
        let prepared = prepare(&mut two, 2, LAST).await.unwrap();
        sink.committer().unwrap().commit(2, LAST, vec![prepared]).await.unwrap();
        let mut expected: Vec<String> = [batch(0), batch(1)].iter().flat_map(crate::testing::texts).collect();
        expected.sort();
        assert_eq!(place.visible().await.unwrap(), expected);
    });
}

#[test]
fn files_roll_by_age() {
    let root = tempfile::tempdir().unwrap();
    let mut place = Place::local(root.path(), "json");
    place.options["sink.rolling-policy.rollover-interval"] = json!("20ms");
    run(async {
        let sink = place.sink("run", true, &batch(0)).unwrap();
        let mut one = writer(&sink, &batch(0).schema(), 0, 1);
        for number in 0..3 {
            one.write(Batch::inserts(batch(number))).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
        let prepared = prepare(&mut one, 1, LAST).await.unwrap();
        sink.committer().unwrap().commit(1, LAST, vec![prepared]).await.unwrap();
        let files = place.manifests().await[0].files.len();
        assert!((2..=3).contains(&files), "{files} files");
        assert_eq!(place.visible().await.unwrap().len(), 30);
    });
}

#[test]
fn more_partitions_than_may_be_open_take_turns() {
    let root = tempfile::tempdir().unwrap();
    let place =
        Place { partition_by: vec!["k"], columns: vec!["v BIGINT", "k BIGINT"], ..Place::local(root.path(), "csv") };
    let numbers = || Arc::new(Int64Array::from_iter_values(0..65)) as ArrayRef;
    let rows = RecordBatch::try_from_iter_with_nullable([("k", numbers(), true), ("v", numbers(), true)]).unwrap();
    run(async {
        place.write("run", &[rows.clone(), rows]).await.unwrap();
        let files = place.manifests().await[0].files.len();
        assert!(files > 65, "a file is closed before the 65th is opened: {files} files");
        let mut expected: Vec<String> = (0..130).map(|row| format!("{0}|{0}", row / 2)).collect();
        expected.sort();
        assert_eq!(place.visible().await.unwrap(), expected);
    });
}

/// What is renamed or named by a manifest before it is on the disk is lost with the power.
#[test]
fn everything_is_synced_before_it_is_named_and_names_are_synced_too() {
    let root = tempfile::tempdir().unwrap();
    let place = Place { partition_by: vec!["id"], ..Place::local(root.path(), "json") };
    run(place.write("run", &[sample::rows(0, 2)])).unwrap();
    let out = fs::canonicalize(root.path()).unwrap().join("out");
    let synced: Vec<String> = crate::files::store::SYNCED
        .lock()
        .unwrap()
        .iter()
        .filter_map(|path| path.strip_prefix(&out).ok().map(|path| path.to_str().unwrap().to_string()))
        .collect();
    let files = run(place.manifests()).remove(0).files;
    assert_eq!(files.len(), 2);
    let at =
        |wanted: &str| synced.iter().rposition(|path| path == wanted).unwrap_or_else(|| panic!("{wanted}: {synced:?}"));
    let manifest = synced.iter().position(|path| path.starts_with("_manifests/.")).expect("the manifest is synced");
    for file in &files {
        let staged = file.staged.as_ref().unwrap();
        let directory = staged.rsplit_once('/').unwrap().0;
        assert!(at(staged) < manifest && at(directory) < manifest, "{staged}: {synced:?}");
        assert!(at(file.path.rsplit_once('/').unwrap().0) > at("_manifests"), "{}: {synced:?}", file.path);
    }
    assert!(manifest < at("_manifests"), "{synced:?}");
}

#[test]
fn a_chain_of_manifests_that_is_broken_is_refused() {
    for damage in ["removed", "changed", "another format", "no manifest"] {
        let root = tempfile::tempdir().unwrap();
        let place = Place::local(root.path(), "json");
        run(async {
            for number in 0..3 {
                place.write(&format!("run {number}"), &[batch(number)]).await.unwrap();
            }
            let path = root.path().join("out/_manifests/00000000000000000002.json");
            let text = fs::read_to_string(&path).unwrap();
            match damage {
                "removed" => fs::remove_file(&path).unwrap(),
                "changed" => fs::write(&path, text.replace("run 1", "run 7")).unwrap(),
                "another format" => fs::write(&path, text.replace("highwater-files/1", "highwater-files/9")).unwrap(),
                _ => fs::write(&path, "oops").unwrap(),
            }
            let error = place.source().splits().await.unwrap_err();
            assert!(error.code == "input_file_invalid" && error.message.contains("_manifests"), "{damage}: {error:?}");
            let error = place.sink("next", true, &batch(0)).err().unwrap();
            assert_eq!(error.code, "input_file_invalid", "{damage}: nothing is added to it");
        });
    }
}

#[test]
fn foreign_files_and_other_columns_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::local(root.path(), "json");
    let other = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    run(place.write("one", &[batch(0)])).unwrap();
    let error = run(place.write("two", &[other])).unwrap_err();
    assert!(error.code == "output_refused" && error.message.contains("id BIGINT"), "{error:?}");
    for (name, code) in [
        ("x.json", Some("output_exists")),
        ("deep/er/x.csv", Some("output_exists")),
        ("_SUCCESS", None),
        (".hidden/x", None),
    ] {
        let root = tempfile::tempdir().unwrap();
        let place = Place::local(root.path(), "json");
        let path = root.path().join("out").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "{}").unwrap();
        let found = place.sink("run", true, &batch(0)).err().map(|error| error.code);
        assert_eq!(found.as_deref(), code, "{name}");
    }
    // Beside manifests, files of others do not matter.
    fs::write(root.path().join("out/x.json"), "{}").unwrap();
    run(place.write("three", &[batch(1)])).unwrap();
    assert_eq!(run(place.visible()).unwrap().len(), 20);
    assert!(root.path().join("out/x.json").exists());
    fs::write(root.path().join("file"), "").unwrap();
    let file = Place { path: root.path().join("file").to_str().unwrap().into(), ..place.clone() };
    assert_eq!(file.sink("run", true, &batch(0)).err().unwrap().code, "output_refused");
    for name in ["a*", "b?/c", "[d]"] {
        let pattern = Place { path: root.path().join(name).to_str().unwrap().into(), ..place.clone() };
        let error = pattern.sink("run", true, &batch(0)).err().unwrap();
        assert!(error.code == "location_invalid" && error.message.contains(name), "{error:?}");
        assert!(error.message.contains("pattern"), "{error:?}");
    }
    let outside = Place { path: "/usr/share/highwater-test".into(), ..place };
    assert_eq!(outside.sink("run", true, &batch(0)).err().unwrap().code, "location_not_allowed");
}

#[test]
fn files_that_could_not_be_read_with_those_before_are_refused() {
    let keyed_rows = keyed(&["a"]);
    let csv = |root: &Path| Place { columns: vec!["v BIGINT", "k STRING"], ..Place::local(root, "csv") };
    for (option, value, word) in [
        ("format", "json", r#"format was "csv" and is "json""#),
        ("csv.field-delimiter", ";", r#"csv.field-delimiter was "," and is ";""#),
        ("csv.header", "false", r#"csv.header was "true" and is "false""#),
        ("csv.null-literal", "NULL", r#"csv.null-literal was "" and is "NULL""#),
        ("PARTITIONED BY", "k", r#"PARTITIONED BY was "" and is "k""#),
    ] {
        let root = tempfile::tempdir().unwrap();
        let place = csv(root.path());
        let mut other = place.clone();
        match option {
            "PARTITIONED BY" => other.partition_by = vec![value],
            _ => other.options[option] = json!(value),
        }
        run(async {
            // Opened before there is anything: refused when it commits.
            let early = other.sink("early", true, &keyed_rows).unwrap();
            place.write("one", std::slice::from_ref(&keyed_rows)).await.unwrap();
            let error = other.sink("two", true, &keyed_rows).err().unwrap();
            assert!(error.code == "output_refused" && error.message.contains(word), "{error:?}");
            let mut one = writer(&early, &keyed_rows.schema(), 0, 1);
            one.write(Batch::inserts(keyed_rows.clone())).unwrap();
            let prepared = prepare(&mut one, 1, LAST).await.unwrap();
            let mut committer = early.committer().unwrap();
            let error = committer.commit(1, LAST, vec![prepared]).await.unwrap_err();
            assert!(error.code == "output_refused" && error.message.contains(word), "{error:?}");
            committer.abort().await;
            place.write("three", std::slice::from_ref(&keyed_rows)).await.unwrap();
            assert_eq!(place.visible().await.unwrap(), ["0|a", "0|a"], "{option}");
        });
    }
    // How well files are compressed does not matter, nor do options of other formats; and older manifests do not say.
    let root = tempfile::tempdir().unwrap();
    let mut place = Place::local(root.path(), "parquet");
    run(place.write("one", &[batch(0)])).unwrap();
    place.options["parquet.compression"] = json!("none");
    place.options["csv.header"] = json!("false");
    run(place.write("two", &[batch(0)])).unwrap();
    let root = tempfile::tempdir().unwrap();
    let place = csv(root.path());
    run(place.write("one", std::slice::from_ref(&keyed_rows))).unwrap();
    let path = root.path().join("out/_manifests/00000000000000000001.json");
    let mut text: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    text.as_object_mut().unwrap().remove("layout").unwrap();
    fs::write(&path, serde_json::to_vec(&text).unwrap()).unwrap();
    run(place.write("two", std::slice::from_ref(&keyed_rows))).unwrap();
    assert_eq!(run(place.visible()).unwrap().len(), 2);
}

#[test]
fn a_run_that_stopped_between_manifest_and_renames_is_finished_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::local(root.path(), "parquet");
    run(async {
        place.write("one", &[batch(0)]).await.unwrap();
        let file = place.manifests().await[0].files[0].clone();
        let (path, staged) =
            (root.path().join("out").join(&file.path), root.path().join("out").join(file.staged.as_ref().unwrap()));
        fs::create_dir_all(staged.parent().unwrap()).unwrap();
        fs::rename(&path, &staged).unwrap();
        assert_eq!(place.visible().await.unwrap().len(), 10, "readers find it where it is");
        place.write("two", &[batch(1)]).await.unwrap();
        assert!(path.exists() && !staged.exists(), "the next run gives it its name");
        assert_eq!(place.visible().await.unwrap().len(), 20);
        // What a manifest names must be there, whole.
        fs::write(&path, "short").unwrap();
        let error = place.source().splits().await.unwrap_err();
        assert!(error.code == "input_file_invalid" && error.message.contains("manifest"), "{error:?}");
        fs::remove_file(&path).unwrap();
        assert_eq!(place.source().splits().await.unwrap_err().code, "input_file_invalid");
    });
}

/// Writes one row of each partition, and ends as the engine does: a commit that failed is aborted.
async fn write_or_abort(place: &Place, run: &str, rows: &RecordBatch) -> Result<(), RunError> {
    let sink = place.sink(run, true, rows)?;
    let mut one = writer(&sink, &rows.schema(), 0, 1);
    one.write(Batch::inserts(rows.clone()))?;
    let prepared = prepare(&mut one, 1, LAST).await?;
    let mut committer = sink.committer()?;
    let committed = committer.commit(1, LAST, vec![prepared]).await;
    if committed.is_err() {
        committer.abort().await;
    }
    committed
}

fn keyed(keys: &[&str]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("v", Arc::new(Int64Array::from_iter_values(0..keys.len() as i64)) as ArrayRef),
        ("k", Arc::new(StringArray::from_iter_values(keys)) as ArrayRef),
    ])
    .unwrap()
}

fn keyed_place(root: &Path) -> Place {
    Place { partition_by: vec!["k"], columns: vec!["v BIGINT", "k STRING"], ..Place::local(root, "json") }
}

#[test]
fn what_keeps_a_commit_from_its_names_is_found_before_its_manifest() {
    for (what, keys, code, word) in [
        ("a name that is too long", vec!["a", &*"x".repeat(300)], "output_refused", "302 bytes"),
        ("a file where a directory must be", vec!["a", "b"], "output_failed", "is not a directory"),
        ("a staged file that is gone", vec!["a", "b"], "output_failed", "removed before"),
    ] {
        let root = tempfile::tempdir().unwrap();
        let place = keyed_place(root.path());
        run(async {
            place.write("one", &[keyed(&["a"])]).await.unwrap();
            let error = match what {
                "a staged file that is gone" => {
                    let sink = place.sink("two", true, &keyed(&keys)).unwrap();
                    let mut one = writer(&sink, &keyed(&keys).schema(), 0, 1);
                    one.write(Batch::inserts(keyed(&keys))).unwrap();
                    let prepared = prepare(&mut one, 1, LAST).await.unwrap();
                    fs::remove_dir_all(root.path().join("out/_staging")).unwrap();
                    sink.committer().unwrap().commit(1, LAST, vec![prepared]).await.unwrap_err()
                }
                _ => {
                    if what.starts_with("a file") {
                        fs::write(root.path().join("out/k=b"), "").unwrap();
                    }
                    write_or_abort(&place, "two", &keyed(&keys)).await.unwrap_err()
                }
            };
            assert!(error.code == code && error.message.contains(word), "{what}: {error:?}");
            assert_eq!(place.manifests().await.len(), 1, "{what}");
            assert_eq!(place.visible().await.unwrap(), ["0|a"], "{what}: what was there is still read");
            assert!(!root.path().join("out/_staging").exists(), "{what}: nothing is left");
        });
    }
}

/// Whatever fails after the manifest: its files are results, readers find them, and the next run gives them their names.
#[test]
fn a_commit_that_fails_after_its_manifest_loses_nothing() {
    let root = tempfile::tempdir().unwrap();
    let place = keyed_place(root.path());
    run(async {
        let rows = keyed(&["a", "b"]);
        let sink = place.sink("one", true, &rows).unwrap();
        let mut one = writer(&sink, &rows.schema(), 0, 1);
        one.write(Batch::inserts(rows.clone())).unwrap();
        let prepared = prepare(&mut one, 1, LAST).await.unwrap();
        // A directory has the name of a file: nothing that a prepared commit can see, and the rename fails.
        let files: Vec<manifest::DataFile> = serde_json::from_slice(&prepared.payload).unwrap();
        let obstacle = root.path().join("out").join(&files[1].path);
        let mut committer = sink.committer().unwrap();
        fs::create_dir_all(obstacle.join("inside")).unwrap();
        let error = committer.commit(1, LAST, vec![prepared]).await.unwrap_err();
        assert!(error.code == "output_failed" && error.message.contains("the next run"), "{error:?}");
        committer.abort().await;
        assert_eq!(place.visible().await.unwrap(), ["0|a", "1|b"], "the manifest's files are still there");
        let error = write_or_abort(&place, "two", &rows).await.unwrap_err();
        assert!(error.message.contains("part-one"), "a table that cannot be mended is not written on: {error:?}");
        assert_eq!(place.visible().await.unwrap(), ["0|a", "1|b"]);
        fs::remove_dir_all(&obstacle).unwrap();
        write_or_abort(&place, "three", &rows).await.unwrap();
        assert_eq!(place.visible().await.unwrap(), ["0|a", "0|a", "1|b", "1|b"]);
        assert!(files.iter().all(|file| root.path().join("out").join(&file.path).is_file()));
    });
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_writer_staged_and_nobody_can_name_goes_with_it() {
    let root = tempfile::tempdir().unwrap();
    let mut place = Place::local(root.path(), "json");
    place.options["sink.rolling-policy.file-size"] = json!(2_000);
    run(async {
        let sink = place.sink("stopped", false, &batch(0)).unwrap();
        let mut one = writer(&sink, &batch(0).schema(), 0, 1);
        one.write(Batch::inserts(batch(0))).unwrap();
        let prepared = prepare(&mut one, 1, CHECKPOINT).await.unwrap();
        // Some of the files are closed by their size, one is open.
        (1..6).for_each(|number| one.write(Batch::inserts(batch(number))).unwrap());
        drop(one);
        let staging = root.path().join("out/_staging");
        assert_eq!(names_in(&staging.join("stopped-sink out")).len(), 1, "what was prepared stays");
        sink.committer().unwrap().commit(1, CHECKPOINT, vec![prepared]).await.unwrap();
        assert_eq!(place.visible().await.unwrap().len(), 10);
        let sink = place.sink("nothing", false, &batch(0)).unwrap();
        let mut one = writer(&sink, &batch(0).schema(), 0, 1);
        one.write(Batch::inserts(batch(1))).unwrap();
        drop(one);
        assert_eq!(names_in(&staging), ["stopped-sink out"]);
    });
}

#[test]
fn what_the_dead_have_staged_is_removed_by_a_later_run() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::local(root.path(), "json");
    let staging = root.path().join("out/_staging");
    let age = |name: &str, hours: u64| {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
        let directory = staging.join(name);
        for file in names_in(&directory) {
            fs::File::options().append(true).open(directory.join(file)).unwrap().set_modified(then).unwrap();
        }
        fs::File::open(directory).unwrap().set_modified(then).unwrap();
    };
    let dead = |name: &str| {
        fs::create_dir_all(staging.join(name)).unwrap();
        fs::write(staging.join(name).join("part-x"), "{}").unwrap();
    };
    run(async {
        place.write("one", &[batch(0)]).await.unwrap();
        let sink = place.sink("live", false, &batch(0)).unwrap();
        let mut live = writer(&sink, &batch(0).schema(), 0, 1);
        live.write(Batch::inserts(batch(0))).unwrap();
        prepare(&mut live, 1, CHECKPOINT).await.unwrap();
        ["old", "young", "new file"].iter().for_each(|name| dead(name));
        // Between manifest and rename.
        let file = place.manifests().await[0].files[0].clone();
        fs::create_dir_all(staging.join("one-sink out")).unwrap();
        let staged = root.path().join("out").join(file.staged.as_ref().unwrap());
        fs::rename(root.path().join("out").join(&file.path), &staged).unwrap();
        age("new file", 25);
        fs::write(staging.join("new file/part-x"), "{}").unwrap();
        for (name, hours) in [("old", 25), ("young", 23), ("live-sink out", 25), ("one-sink out", 25)] {
            age(name, hours);
        }
        place.sink("next", true, &batch(0)).unwrap();
        assert_eq!(names_in(&staging), ["live-sink out", "new file", "one-sink out", "young"]);
        assert_eq!(place.visible().await.unwrap().len(), 10);
        drop(live);
        place.sink("live", true, &batch(0)).unwrap();
        assert!(staging.join("live-sink out").exists(), "a run that goes on finds what it staged");
        place.sink("next", true, &batch(0)).unwrap();
        assert_eq!(names_in(&staging), ["new file", "one-sink out", "young"]);
    });
}

#[test]
fn two_runs_into_one_directory_take_turns() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::local(root.path(), "json");
    run(async {
        let sinks = [place.sink("a", true, &batch(0)).unwrap(), place.sink("b", true, &batch(0)).unwrap()];
        let publish = async |number: usize| {
            let sink = &sinks[number];
            let mut one = writer(sink, &batch(0).schema(), 0, 1);
            one.write(Batch::inserts(batch(number as i64))).unwrap();
            let prepared = prepare(&mut one, 7, LAST).await.unwrap();
            sink.committer().unwrap().commit(7, LAST, vec![prepared]).await.unwrap();
        };
        tokio::join!(publish(0), publish(1));
        assert_eq!(place.manifests().await.len(), 2);
        assert_eq!(place.visible().await.unwrap().len(), 20);
    });
}

/// An object store whose conditional creates are answered wrongly, as over a bad network.
#[derive(Debug)]
struct Liar {
    inner: InMemory,
    /// Lies to come.
    lies: AtomicUsize,
    lie: Lie,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    /// It was created, and the answer of the retry says that it exists.
    CreatedButExists,
    /// It was created, and the answer was lost.
    CreatedButTimeout,
    /// It was not created, and the answer says that it exists (409 while another create runs).
    NotCreatedButExists,
    /// The condition is ignored: what exists is written over, as by stores that do not know If-None-Match.
    WritesOver,
    /// Creates are refused by name.
    NotImplemented,
    /// The credentials may read, and not write.
    Denied,
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a liar")
    }
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(&self, key: &Key, payload: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let lies = options.mode == PutMode::Create
            && self.lies.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |lies| lies.checked_sub(1)).is_ok();
        if !lies {
            return self.inner.put_opts(key, payload, options).await;
        }
        match self.lie {
            Lie::CreatedButExists | Lie::CreatedButTimeout => drop(self.inner.put_opts(key, payload, options).await?),
            Lie::WritesOver => return self.inner.put_opts(key, payload, PutOptions::default()).await,
            Lie::NotCreatedButExists | Lie::NotImplemented | Lie::Denied => {}
        }
        match self.lie {
            Lie::NotImplemented => {
                Err(object_store::Error::Generic { store: "liar", source: "501 Not Implemented".into() })
            }
            Lie::Denied => {
                Err(object_store::Error::PermissionDenied { path: key.to_string(), source: "read only".into() })
            }
            Lie::CreatedButTimeout => Err(object_store::Error::Generic { store: "liar", source: "timed out".into() }),
            _ => Err(object_store::Error::AlreadyExists { path: key.to_string(), source: "409".into() }),
        }
    }

    async fn put_multipart_opts(
        &self,
        key: &Key,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(key, options).await
    }

    async fn get_opts(&self, key: &Key, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(key, options).await
    }

    fn delete_stream(
        &self,
        keys: BoxStream<'static, object_store::Result<Key>>,
    ) -> BoxStream<'static, object_store::Result<Key>> {
        self.inner.delete_stream(keys)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[test]
fn answers_about_a_manifest_are_not_believed_before_it_was_read() {
    for lie in [Lie::CreatedButExists, Lie::CreatedButTimeout, Lie::NotCreatedButExists] {
        let liar = Arc::new(Liar { inner: InMemory::new(), lies: AtomicUsize::new(0), lie });
        let place = Place::over(Store::objects(liar.clone(), "s3://bucket/".into()), "out".into(), "json");
        run(async {
            let sink = place.sink("run", true, &batch(0)).unwrap();
            let mut one = writer(&sink, &batch(0).schema(), 0, 1);
            one.write(Batch::inserts(batch(0))).unwrap();
            let prepared = prepare(&mut one, 1, LAST).await.unwrap();
            liar.lies.store(1, Ordering::SeqCst);
            sink.committer().unwrap().commit(1, LAST, vec![prepared]).await.unwrap();
            assert_eq!(liar.lies.load(Ordering::SeqCst), 0, "{lie:?}: the lie was told");
            let manifests = place.manifests().await;
            assert_eq!(manifests.iter().map(|manifest| manifest.rows).collect::<Vec<_>>(), [0, 10], "{lie:?}");
            assert_eq!(place.visible().await.unwrap().len(), 10, "{lie:?}");
        });
    }
}

#[test]
fn a_store_that_cannot_carry_commits_is_refused_before_a_row_is_written() {
    for (lie, code, word) in [
        (Lie::WritesOver, "output_refused", "If-None-Match"),
        (Lie::NotImplemented, "output_refused", "501"),
        (Lie::Denied, "access_denied", "read only"),
        (Lie::CreatedButTimeout, "storage_unreachable", "timed out"),
        (Lie::NotCreatedButExists, "output_refused", "at once"),
    ] {
        let liar = Arc::new(Liar { inner: InMemory::new(), lies: AtomicUsize::new(usize::MAX), lie });
        let place = Place::over(Store::objects(liar.clone(), "s3://bucket/".into()), "out".into(), "json");
        let error = place.sink("run", true, &batch(0)).err().unwrap();
        assert!(error.code == code && error.message.contains(word), "{lie:?}: {error:?}");
        assert!(error.message.contains("s3://bucket/out"), "{lie:?}: {error:?}");
        assert_eq!(run(place.store.list("", |_| true)).unwrap(), [], "{lie:?}: nothing is left");
        // Also where earlier runs wrote.
        liar.lies.store(0, Ordering::SeqCst);
        run(place.write("run", &[batch(0)])).unwrap();
        liar.lies.store(usize::MAX, Ordering::SeqCst);
        assert_eq!(place.sink("next", true, &batch(0)).err().unwrap().code, code, "{lie:?}");
    }
}

/// Answers every request with 403 and this code, until the test ends.
fn refusing_server(code: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            let body = format!("<Error><Code>{code}</Code></Error>");
            let head = format!("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {}", body.len());
            let _ = write!(stream, "{head}\r\n\r\n{body}");
        }
    });
    endpoint
}

#[test]
fn an_unreachable_store_and_wrong_credentials_fail_when_the_sink_is_opened() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (endpoint, code) in [
        (format!("http://{nobody}"), "storage_unreachable"),
        (refusing_server("InvalidAccessKeyId"), "access_denied"),
        (refusing_server("SignatureDoesNotMatch"), "access_denied"),
    ] {
        let options = json!({
            "type": "filesystem", "path": "s3://bucket/out", "format": "json", "s3.endpoint": endpoint,
            "s3.access-key": "key", "s3.secret-key": "hushhush"
        });
        let node = sink_node(options, &[]);
        let graph::SinkConnector::Filesystem(options) = &node.connector else { panic!("no files") };
        let reach = Reach::everywhere(AllowedRoots::new(["/tmp"]));
        let begun = std::time::Instant::now();
        let opened = FilesystemSink::open(&node, options, batch(0).schema(), context("run", true), &reach);
        let error: RunError = opened.err().unwrap().into();
        assert!(error.code == code && error.message.contains("s3://bucket/out"), "{endpoint}: {error:?}");
        assert!(!error.message.contains("hushhush"), "{error:?}");
        assert!(begun.elapsed().as_secs() < 30, "{endpoint}: after {:?}", begun.elapsed());
    }
}

#[test]
fn objects_of_a_run_in_progress_are_not_read() {
    let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let place = Place::over(Store::objects(objects.clone(), "s3://bucket/".into()), "out".into(), "json");
    run(async {
        let sink = place.sink("run", false, &batch(0)).unwrap();
        let mut one = writer(&sink, &batch(0).schema(), 0, 1);
        one.write(Batch::inserts(batch(0))).unwrap();
        prepare(&mut one, 1, LAST).await.unwrap();
        assert_eq!(
            place.store.list("out", |_| true).await.unwrap().len(),
            2,
            "a manifest and a file under its final name"
        );
        assert_eq!(place.visible().await, Some(vec![]));
        sink.committer().unwrap().abort().await;
        assert_eq!(place.store.list("out", |_| true).await.unwrap().len(), 1);
    });
}

#[test]
fn large_objects_are_uploaded_in_parts() {
    let place = Place::over(Store::objects(Arc::new(InMemory::new()), "s3://bucket/".into()), "out".into(), "csv");
    let text = "x".repeat(100_000);
    let rows = RecordBatch::try_from_iter([(
        "s",
        Arc::new(StringArray::from_iter_values((0..100).map(|_| text.as_str()))) as ArrayRef,
    )])
    .unwrap();
    let place = Place { columns: vec!["s STRING"], ..place };
    run(async {
        // The last part is a small one.
        place.write("run", &[rows.clone(), rows.clone(), rows.slice(0, 1)]).await.unwrap();
        assert_eq!(place.visible().await.unwrap().len(), 201);
        let files = &place.manifests().await[1].files;
        assert!(files.len() == 1 && files[0].bytes > 20_000_000, "{files:?}");
        let content = place.store.read_all(&format!("out/{}", files[0].path)).await.unwrap().unwrap();
        assert_eq!((manifest::hash(&content), content.len() as u64), (files[0].sha256.clone(), files[0].bytes));
    });
}

#[test]
fn a_full_disk_is_told_with_path_and_reason() {
    let error: RunError =
        crate::files::store::output_failed("out/a", &std::io::Error::from(std::io::ErrorKind::StorageFull)).into();
    assert_eq!(error.code, "output_failed");
    assert!(error.message.contains("out/a") && error.message.contains("no space is left on the disk"), "{error:?}");
}

#[test]
fn a_write_that_is_not_permitted_says_what_to_check() {
    for kind in [std::io::ErrorKind::PermissionDenied, std::io::ErrorKind::ReadOnlyFilesystem] {
        let error: RunError = crate::files::store::output_failed("out/a", &std::io::Error::from(kind)).into();
        assert!(error.code == "access_denied" && error.message.contains("writing out/a"), "{error:?}");
        assert!(error.hint.unwrap().contains("permissions"));
    }
}

#[test]
fn a_file_that_cannot_be_written_fails_the_prepare_and_the_run() {
    let root = tempfile::tempdir().unwrap();
    let place = Place::local(root.path(), "json");
    run(async {
        let sink = place.sink("run", true, &batch(0)).unwrap();
        // A file where the staging directory should be.
        fs::create_dir(root.path().join("out")).unwrap();
        fs::write(root.path().join("out/_staging"), "").unwrap();
        let (failed, mut failures) = tokio::sync::mpsc::unbounded_channel();
        let context = engine::WriterContext {
            worker: 0,
            workers: 1,
            generation: 1,
            schema: batch(0).schema(),
            tokio: tokio::runtime::Handle::current(),
            failed,
            waiting: engine::Waiting::new(|_| {}),
            place: None,
        };
        let mut one = sink.writer(context).unwrap();
        one.write(Batch::inserts(batch(0))).unwrap();
        let error = prepare(&mut one, 1, LAST).await.unwrap_err();
        assert_eq!(error.code, "output_failed");
        assert!(error.message.contains("_staging"), "{error:?}");
        assert_eq!(failures.recv().await, Some(error));
    });
}

#[test]
fn many_types_come_back_from_every_format() {
    let columns = ["id BIGINT", "s TIMESTAMP(0)", "n TIMESTAMP(9)", "z TIMESTAMP_LTZ(3)", "t TIME", "raw BYTES"];
    let rows = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![Some(1), None])) as ArrayRef, true),
        ("s", Arc::new(arrow::array::TimestampSecondArray::from(vec![Some(1_000_000_000), None])), true),
        ("n", Arc::new(arrow::array::TimestampNanosecondArray::from(vec![Some(-1), Some(1)])), true),
        ("z", Arc::new(arrow::array::TimestampMillisecondArray::from(vec![Some(1), None]).with_timezone("UTC")), true),
        ("t", Arc::new(arrow::array::Time64MicrosecondArray::from(vec![Some(1), None])), true),
        ("raw", Arc::new(arrow::array::BinaryArray::from_opt_vec(vec![Some(b"\x00\xff"), None])), true),
    ])
    .unwrap();
    assert_eq!(rows.column(1).null_count(), 1);
    for format in ["parquet", "json", "csv"] {
        let root = tempfile::tempdir().unwrap();
        let place = Place { columns: columns.to_vec(), ..Place::local(root.path(), format) };
        run(async {
            place.write("run", std::slice::from_ref(&rows)).await.unwrap();
            let mut expected = crate::testing::texts(&rows);
            expected.sort();
            assert_eq!(place.visible().await.unwrap(), expected, "{format}");
        });
    }
}
