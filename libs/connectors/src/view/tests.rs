#![allow(clippy::unwrap_used)]
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, RecordBatch, UInt8Array};
use arrow::datatypes::Int64Type;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use engine::runtime::{Progress, RunRequest, Surroundings, Verb};
use engine::{Batch, CommitKind, Connectors, Fault, RunError, Sink, SinkContext};
use graph::connector::ViewSnapshotOptions;
use graph::{Graph, Settings, SourceConnector};
use serde_json::{Value, json};
use tokio::sync::watch;
use views::{PublishedBy, Query, ViewFiles, ViewSnapshot};

use super::ViewHost;
use crate::testing::sinks::{CHECKPOINT, LAST, prepare, sink_node, writer};
use crate::testing::{all_columns, run, sample, source_conformance, source_node, texts};
use crate::{AllowedRoots, Registry};

const EPOCH: CommitKind = CommitKind { checkpoint: false, last: false };

fn host(dir: &Path) -> ViewHost {
    ViewHost::new(dir.join("views"), PublishedBy { run_id: "r1".into(), generation: 2 })
}

fn open(
    registry: &Registry,
    options: Value,
    key: &[&str],
    bounded: bool,
    updating: bool,
) -> Result<Arc<dyn Sink>, RunError> {
    let mut node = sink_node(options, &[]);
    node.primary_key = key.iter().map(|name| name.to_string()).collect();
    let context =
        SinkContext { run_id: "r1".into(), bounded, updating, stateless: false, operator: "o".into(), durable: false };
    registry.sink(&node, sample::rows(0, 0).schema(), context)
}

fn all(snapshot: &ViewSnapshot) -> Vec<String> {
    let mut rows: Vec<String> = snapshot.batches().flat_map(|batch| texts(&batch.unwrap())).collect();
    rows.sort();
    rows
}

fn sorted(rows: &RecordBatch) -> Vec<String> {
    let mut rows = texts(rows);
    rows.sort();
    rows
}

#[test]
fn each_epoch_is_shown_whole_and_the_last_one_is_kept() {
    for (workers, bounded) in [(1, false), (3, false), (1, true), (3, true)] {
        let dir = tempfile::tempdir().unwrap();
        let host = host(dir.path());
        let registry = Registry::new(AllowedRoots::defaults()).with_views(host.clone());
        let sink = open(&registry, json!({"type": "view", "view.name": "top"}), &["id"], bounded, true).unwrap();
        let schema = sample::rows(0, 0).schema();
        let files = ViewFiles::new(&dir.path().join("views"), "top").unwrap();
        run(async {
            let mut writers: Vec<_> = (0..workers).map(|worker| writer(&sink, &schema, worker, workers)).collect();
            let mut committer = sink.committer().unwrap();
            let view = host.view("top").unwrap();
            for epoch in 1..5u64 {
                let kind = if epoch == 4 {
                    LAST
                } else if epoch == 2 {
                    CHECKPOINT
                } else {
                    EPOCH
                };
                for (worker, writer) in writers.iter_mut().enumerate() {
                    // Of each worker ten rows of its own, and one that goes again with the next epoch.
                    let own = epoch as i64 * 1000 + worker as i64 * 100;
                    writer.write(Batch::inserts(sample::rows(own, 10))).unwrap();
                    if epoch > 1 {
                        writer.write(Batch::changes(sample::rows(own - 1000, 1), UInt8Array::from(vec![3]))).unwrap();
                    }
                }
                let before = view.latest();
                let mut prepared = vec![];
                for writer in &mut writers {
                    prepared.push(prepare(writer, epoch, kind).await.unwrap());
                }
                let shown = |view: &Option<Arc<ViewSnapshot>>| view.as_ref().map(|view| view.epoch);
                assert_eq!(shown(&view.latest()), shown(&before), "nothing is seen before the commit");
                committer.watermark(epoch, if epoch == 1 { i64::MIN } else { epoch as i64 * 10 });
                committer.commit(epoch, kind, prepared.clone()).await.unwrap();
                committer.commit(epoch, kind, prepared).await.unwrap();
                if bounded && epoch < 4 {
                    assert!(view.latest().is_none(), "a bounded run shows its end only");
                    continue;
                }
                let latest = view.latest().unwrap();
                assert_eq!((latest.epoch, latest.watermark_us), (epoch, (epoch > 1).then_some(epoch as i64 * 10)));
                assert_eq!(latest.rows, workers as u64 * (9 * epoch + 1), "epoch {epoch}");
                assert_eq!(files.newest().unwrap().is_some(), epoch == 4, "only the last epoch outlives the run");
            }
            let kept = files.newest().unwrap().unwrap();
            let latest = view.latest().unwrap();
            let rows: Vec<RecordBatch> = kept.batches().unwrap().map(Result::unwrap).collect();
            let mut rows: Vec<String> = rows.iter().flat_map(texts).collect();
            rows.sort();
            assert_eq!(rows, all(&latest));
            let manifest = &kept.manifest;
            assert_eq!((manifest.version, manifest.epoch, manifest.watermark_us), (1, 4, Some(40)));
            assert_eq!(manifest.by, PublishedBy { run_id: "r1".into(), generation: 2 });
        });
    }
}

#[test]
fn rows_without_a_key_are_added_up_to_the_retention() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    let registry = Registry::new(AllowedRoots::defaults()).with_views(host.clone());
    let sink = open(&registry, json!({"type": "view", "retention.rows": 25}), &[], false, false).unwrap();
    let schema = sample::rows(0, 0).schema();
    run(async {
        let (mut writer, mut committer) = (writer(&sink, &schema, 0, 1), sink.committer().unwrap());
        for epoch in 1..5u64 {
            writer.write(Batch::inserts(sample::rows(epoch as i64 * 10, 10))).unwrap();
            let prepared = prepare(&mut writer, epoch, EPOCH).await.unwrap();
            assert_eq!(prepared.rows, 10);
            committer.commit(epoch, EPOCH, vec![prepared]).await.unwrap();
        }
    });
    let latest = host.view("out").unwrap().latest().unwrap();
    assert_eq!((latest.rows, latest.dropped), (25, 15));
    assert_eq!(host.view("out").unwrap().removed_rows(), 15);
    assert_eq!(all(&latest), sorted(&sample::rows(25, 25)));
}

#[test]
fn what_cannot_be_a_view_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registry = Registry::new(AllowedRoots::defaults()).with_views(host(dir.path()));
    let refused = |sink: Result<Arc<dyn Sink>, RunError>| {
        let error = sink.and_then(|sink| sink.committer().map(drop)).unwrap_err();
        assert!(error.fault == Fault::User && error.hint.is_some(), "{error:?}");
        (error.code.clone(), error.hint.unwrap())
    };
    let view = || json!({"type": "view"});
    let (code, hint) = refused(open(&registry, view(), &[], false, true));
    assert!(code == "view_takes_no_updates" && hint.contains("PRIMARY KEY"), "{code} {hint}");
    let alone = Registry::new(AllowedRoots::defaults());
    let (code, hint) = refused(open(&alone, view(), &["id"], false, false));
    assert!(code == "views_not_served" && hint.contains("highwater serve"), "{code} {hint}");
    let first = open(&registry, view(), &["id"], false, false).unwrap();
    first.committer().unwrap();
    assert_eq!(refused(open(&registry, view(), &["id"], false, false)).0, "duplicate_view");
}

#[test]
fn a_view_that_grows_too_large_fails_its_run() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path());
    let registry = Registry::new(AllowedRoots::defaults()).with_views(host.clone());
    let sink = open(&registry, json!({"type": "view", "view.max-bytes": "64 KiB"}), &["id"], false, false).unwrap();
    let schema = sample::rows(0, 0).schema();
    run(async {
        let (mut writer, mut committer) = (writer(&sink, &schema, 0, 1), sink.committer().unwrap());
        for (epoch, rows) in [(1, 100), (2, 5000)] {
            writer.write(Batch::inserts(sample::rows(epoch as i64 * 10_000, rows))).unwrap();
            let prepared = prepare(&mut writer, epoch, EPOCH).await.unwrap();
            let committed = committer.commit(epoch, EPOCH, vec![prepared]).await;
            let error = committed.err().map(|error| (error.fault, error.code, error.hint.unwrap()));
            match epoch {
                1 => assert_eq!(error, None),
                _ => assert!(
                    matches!(&error, Some((Fault::User, code, hint)) if code == "view_too_large" && hint.contains("view.max-bytes")),
                    "{error:?}"
                ),
            }
        }
        committer.abort().await;
    });
    assert_eq!(host.view("out").unwrap().latest().unwrap().rows, 100, "the epoch before can still be read");
}

/// A graph that counts the rows of a file by `MOD(id, 7)`.
/// A replay goes on for a second of event time, so that a reader gets its turn meanwhile on any machine.
fn counting(path: &Path, connector: &str) -> Graph {
    let mut read = json!({"type": connector, "path": path.to_str().unwrap(), "format": "json"});
    if connector == "replay" {
        read["replay.speed"] = json!("1");
    }
    let graph = json!({"version": 1, "nodes": [
        {"id": "s", "type": "source", "table": "t", "connector": read,
            "columns": [{"name": "id", "type": "BIGINT", "nullable": false}, {"name": "ts", "type": "TIMESTAMP(3)", "nullable": false}]},
        {"id": "w", "type": "watermark", "inputs": ["s"], "column": "ts"},
        {"id": "p", "type": "project", "inputs": ["w"], "columns": [{"name": "k", "expr": "CAST(MOD(id, 7) AS BIGINT)"}]},
        {"id": "a", "type": "aggregate", "inputs": ["p"], "keys": [{"name": "k", "expr": "k"}],
            "aggregates": [{"name": "n", "function": "count"}]},
        {"id": "v", "type": "sink", "inputs": ["a"], "table": "counts", "connector": {"type": "view"}, "primary_key": ["k"]}
    ]});
    Graph::from_json(&graph.to_string()).unwrap()
}

#[test]
fn every_epoch_that_is_read_is_a_prefix_of_the_input() {
    const ROWS: i64 = 20_000;
    let line = |id: i64| format!("{{\"id\": {id}, \"ts\": \"2024-01-01 00:00:00.{:03}\"}}\n", id * 1_000 / ROWS);
    for (connector, threads) in [("replay", 1), ("replay", 3), ("filesystem", 3)] {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("in.json");
        std::fs::write(&input, (0..ROWS).map(line).collect::<String>()).unwrap();
        let host = host(dir.path());
        let registry = Registry::new(AllowedRoots::new([dir.path()])).with_views(host.clone());
        let settings = Settings {
            parallelism: threads,
            epoch_every_rows: Some(500),
            ..Settings::from_options(serde_json::Map::new()).unwrap()
        };
        let request = RunRequest {
            run_id: "r1".into(),
            generation: 2,
            graph: counting(&input, connector),
            settings,
            start: Default::default(),
            restore: Vec::new(),
            first_epoch: 1,
            stop_after: None,
        };
        let (_verb, verb) = watch::channel(Verb::Run);
        let progress = watch::channel(Progress::default()).0;
        let around =
            Surroundings { connectors: Arc::new(registry), launch: None, verb, progress, durable: None, asked: None };
        let done = Arc::new(AtomicBool::new(false));
        let seen: Arc<Mutex<Vec<(u64, i64)>>> = Arc::default();
        let reader = std::thread::spawn({
            let (host, done, seen) = (host.clone(), done.clone(), seen.clone());
            move || {
                while !done.load(Ordering::Relaxed) {
                    let latest = host.view("counts").and_then(|view| view.latest());
                    let Some(latest) = latest else { continue };
                    let answer = latest.query(&Query::default()).unwrap().rows;
                    let keys: Vec<i64> = answer.column(0).as_primitive::<Int64Type>().values().to_vec();
                    let counts: Vec<i64> = answer.column(1).as_primitive::<Int64Type>().values().to_vec();
                    let total: i64 = counts.iter().sum();
                    for (key, count) in keys.iter().zip(&counts) {
                        assert_eq!(
                            *count,
                            (total - key + 6) / 7,
                            "the counts of epoch {} are not of {total} rows",
                            latest.epoch
                        );
                    }
                    seen.lock().unwrap().push((latest.epoch, total));
                }
            }
        });
        let outcome = run(engine::runtime::run(request, around)).unwrap();
        assert!(outcome.finished);
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        assert!(seen.is_sorted(), "{connector} {threads}: reads never go back");
        seen.dedup();
        match connector {
            "replay" => assert!(seen.len() > 2, "{threads}: epochs are read while the run goes on: {seen:?}"),
            _ => assert!(seen.iter().all(|(_, total)| *total == ROWS), "a bounded run shows its end only: {seen:?}"),
        }
        let kept = ViewFiles::new(&dir.path().join("views"), "counts").unwrap().newest().unwrap().unwrap();
        assert_eq!(kept.manifest.watermark_us, Some(i64::MAX), "{connector}: the input has ended");
        let answer = kept.query(&Query::default()).unwrap().rows;
        let expected: Vec<String> = (0..7).map(|key| format!("{key}|{}", (ROWS - key + 6) / 7)).collect();
        assert_eq!(texts(&answer), expected, "{connector} {threads}");
    }
}

fn snapshot_source(path: &Path, columns: &[&str], roots: &Path) -> Result<Arc<dyn engine::Source>, RunError> {
    let mut node = source_node(json!({"type": "datagen", "number-of-rows": 1}), columns, &[]);
    node.connector = SourceConnector::ViewSnapshot(ViewSnapshotOptions { path: path.to_str().unwrap().into() });
    // As the server hands it to the process of a query.
    let text = serde_json::to_string(&node).unwrap();
    let node: graph::Source = serde_json::from_str(&text).unwrap();
    Registry::new(AllowedRoots::new([roots])).source(&node, all_columns(&node))
}

#[test]
fn snapshots_are_read_from_files_and_streams() {
    let dir = tempfile::tempdir().unwrap();
    let (file, stream) = (dir.path().join("a.arrow"), dir.path().join("b.arrows"));
    let parts = [sample::rows(0, 40), sample::rows(40, 0), sample::rows(40, 33)];
    let mut writer = FileWriter::try_new(std::fs::File::create(&file).unwrap(), &parts[0].schema()).unwrap();
    parts.iter().for_each(|part| writer.write(part).unwrap());
    writer.finish().unwrap();
    let mut writer = StreamWriter::try_new(std::fs::File::create(&stream).unwrap(), &parts[0].schema()).unwrap();
    parts.iter().for_each(|part| writer.write(part).unwrap());
    writer.finish().unwrap();
    let all = sample::rows(0, 73);
    for path in [&file, &stream] {
        run(async {
            let source = snapshot_source(path, sample::COLUMNS, dir.path()).unwrap();
            assert_eq!(source_conformance(source).await, sorted(&all));
            let source = snapshot_source(path, &["ts TIMESTAMP(3)", "id BIGINT NOT NULL"], dir.path()).unwrap();
            assert_eq!(source_conformance(source).await, sorted(&all.project(&[3, 0]).unwrap()));
            let none = snapshot_source(path, &[], dir.path()).unwrap();
            assert_eq!(source_conformance(none).await.len(), 73, "rows without columns are counted");
            for (columns, reason) in
                [(["id STRING"], "column id is BIGINT, not STRING"), (["idd BIGINT"], "it has no column idd")]
            {
                let error = snapshot_source(path, &columns, dir.path()).unwrap().splits().await.unwrap_err();
                assert!(error.code == "input_file_invalid" && error.message.contains(reason), "{error:?}");
            }
        });
    }
    let elsewhere = tempfile::tempdir().unwrap();
    let error = snapshot_source(&file, sample::COLUMNS, elsewhere.path()).map(drop).unwrap_err();
    assert_eq!(error.code, "location_not_allowed");
    run(async {
        std::fs::write(&file, "no arrow").unwrap();
        let error = snapshot_source(&file, sample::COLUMNS, dir.path()).unwrap().splits().await.unwrap_err();
        assert_eq!(error.code, "input_file_invalid");
    });
}
