#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use engine::{RunError, Source, SourceContext, SourceEvent, SourceHints, SourceOutput};
use serde_json::{Value, json};

use super::ReplaySource;
use crate::files::{AllowedRoots, Reach};
use crate::testing::{all_columns, collect, run, source_conformance, source_node, starts};

const COLUMNS: &[&str] = &["id BIGINT", "ts TIMESTAMP(3)"];

/// Rows 0..count, one per second, times in a shuffled order of files, every tenth without a time.
fn write(root: &Path, count: usize) {
    for file in 0..3 {
        let lines: String = (0..count)
            .filter(|id| id % 3 == 2 - file)
            .map(|id| {
                let ts = if id % 10 == 9 {
                    "null".to_string()
                } else {
                    format!("\"2020-01-01 00:{:02}:{:02}\"", id / 60, id % 60)
                };
                format!("{{\"id\": {id}, \"ts\": {ts}}}\n")
            })
            .collect();
        fs::write(root.join(format!("{file}.json")), lines).unwrap();
    }
}

fn open(root: &Path, options: Value, time: bool) -> Result<Arc<dyn Source>, RunError> {
    let mut all = json!({"type": "replay", "path": root.to_str().unwrap(), "format": "json"});
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let node = source_node(all, COLUMNS, &[]);
    let graph::SourceConnector::Replay(options) = &node.connector else { panic!("no replay") };
    let hints = SourceHints { time_column: time.then(|| "ts".into()), ..all_columns(&node) };
    Ok(Arc::new(ReplaySource::open(&node, options, hints, &Reach::everywhere(AllowedRoots::new([root])))?))
}

fn ids(source: &Arc<dyn Source>) -> Vec<Vec<i64>> {
    let seen = run(async { collect(source, starts(&source.splits().await.unwrap()), 50).await.unwrap() });
    let by_split = crate::testing::by_split(&seen);
    by_split
        .into_values()
        .map(|rows| {
            rows.iter().map(|row| row.split_once(": ").unwrap().1.split('|').next().unwrap().parse().unwrap()).collect()
        })
        .collect()
}

#[test]
fn replay_keeps_the_suite_of_sources() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), 400);
    for options in [
        json!({}),
        json!({"replay.disorder": "10s", "replay.splits": 3}),
        json!({"replay.seed": 5, "replay.disorder": "1min"}),
    ] {
        let rows = run(source_conformance(open(root.path(), options, true).unwrap()));
        assert_eq!(rows.len(), 400);
    }
}

#[test]
fn rows_arrive_in_order_of_time_within_the_disorder() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), 600);
    let in_order = ids(&open(root.path(), json!({}), true).unwrap());
    let timed: Vec<i64> = in_order[0].iter().copied().filter(|id| id % 10 != 9).collect();
    assert!(timed.is_sorted() && timed.len() == 540, "{timed:?}");
    // A row without a time comes directly after the one before it in its file.
    for id in in_order[0].iter().filter(|id| *id % 10 == 9) {
        let place = |id: i64| in_order[0].iter().position(|other| *other == id).unwrap() as i64;
        let after = place(*id) - place(id - 3);
        assert!((1..=2).contains(&after), "row {id} arrives {after} after {}: {:?}", id - 3, &in_order[0][..40]);
    }
    let shuffled = ids(&open(root.path(), json!({"replay.disorder": "20s", "replay.seed": 1}), true).unwrap());
    let mut seen = i64::MIN;
    let mut moved = 0;
    for id in shuffled[0].iter().filter(|id| *id % 10 != 9) {
        assert!(*id >= seen.saturating_sub(20), "row {id} arrives after {seen}");
        moved += usize::from(*id < seen);
        seen = seen.max(*id);
    }
    assert!(moved > 100, "rows are out of order: {moved}");
    assert_eq!(
        ids(&open(root.path(), json!({"replay.disorder": "20s", "replay.seed": 1}), true).unwrap()),
        shuffled,
        "the same seed"
    );
    assert_ne!(
        ids(&open(root.path(), json!({"replay.disorder": "20s", "replay.seed": 2}), true).unwrap()),
        shuffled,
        "another seed"
    );
    let dealt = ids(&open(root.path(), json!({"replay.splits": 4}), true).unwrap());
    assert!(dealt.len() == 4 && dealt.iter().all(|ids| ids.len() > 100), "rows are dealt evenly");
    assert!(dealt.iter().all(|ids| ids.iter().filter(|id| *id % 10 != 9).is_sorted()), "each split is in order");
    // A reader of several splits reads them side by side, not one after the other.
    let source = open(root.path(), json!({"replay.splits": 4}), true).unwrap();
    let seen = run(async { collect(&source, starts(&source.splits().await.unwrap()), 1).await.unwrap() });
    let times = seen.iter().map(|seen| seen.rows[0].split_once('|').unwrap().1).filter(|time| *time != "NULL");
    assert!(times.is_sorted(), "the row that arrives first is read first");
}

/// The cache is read in blocks.
#[test]
fn reading_goes_on_in_any_block() {
    let root = tempfile::tempdir().unwrap();
    let count = 2 * super::cache::BLOCK_ROWS as i64 + 3;
    fs::write(root.path().join("a.json"), (0..count).map(|id| format!("{{\"id\":{id}}}\n")).collect::<String>())
        .unwrap();
    let source = open(root.path(), json!({}), false).unwrap();
    assert!(ids(&source)[0].iter().copied().eq(0..count));
    run(async {
        let split = starts(&source.splits().await.unwrap()).remove(0);
        for done in [super::cache::BLOCK_ROWS as i64, super::cache::BLOCK_ROWS as i64 + 5, count - 1, count] {
            let start = engine::SplitStart { position: Some(engine::Position::At(done.to_string())), ..split.clone() };
            let rest = collect(&source, vec![start], 50_000).await.unwrap();
            let first = rest.first().map(|seen| seen.rows[0].clone());
            assert_eq!(first, (done < count).then(|| format!("{done}: {done}|NULL")), "behind {done}");
            assert_eq!(rest.iter().map(|seen| seen.len as i64).sum::<i64>(), count - done, "behind {done}");
        }
    });
}

#[test]
fn without_a_time_rows_come_in_the_order_of_files() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), 9);
    assert_eq!(
        ids(&open(root.path(), json!({"replay.disorder": "1h"}), false).unwrap()),
        [[2, 5, 8, 1, 4, 7, 0, 3, 6]]
    );
    let Err(error) = open(root.path(), json!({"replay.speed": "2"}), false) else { panic!("accepted") };
    assert!(error.code == "invalid_option" && error.message.contains("time attribute"), "{error:?}");
}

#[test]
fn bad_records_are_told_once_and_changed_files_are_sorted_anew() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("a.json"), "{\"id\": 1, \"ts\": \"2020-01-01 00:00:00\"}\noops\n").unwrap();
    let source = open(root.path(), json!({}), true).unwrap();
    let seen = run(async { collect(&source, starts(&source.splits().await.unwrap()), 50).await.unwrap() });
    assert_eq!(seen[0].rows.len(), 1);
    assert!(seen[0].rows[0].starts_with("1! "), "{seen:?}");
    run(async {
        let start = starts(&source.splits().await.unwrap()).remove(0);
        let start = engine::SplitStart { position: Some(seen[0].next.clone()), ..start };
        let rest = collect(&source, vec![start], 50).await.unwrap();
        assert!(rest.len() == 1 && rest[0].rows[0].starts_with("0: 1|"), "not told again: {rest:?}");
    });
    fs::write(root.path().join("a.json"), "{\"id\": 7, \"ts\": \"2020-01-01 00:00:00\"}\n").unwrap();
    assert_eq!(ids(&open(root.path(), json!({}), true).unwrap()), [[7]]);
    fs::write(root.path().join("a.json"), "").unwrap();
    assert_eq!(ids(&open(root.path(), json!({}), true).unwrap()), Vec::<Vec<i64>>::new(), "no rows, and an end");
}

#[test]
fn a_factor_paces_and_idle_stays_open() {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), 8);
    let source = open(root.path(), json!({"replay.speed": "20", "replay.then": "idle"}), true).unwrap();
    run(async {
        let splits = starts(&source.splits().await.unwrap());
        let (out, mut events) = SourceOutput::for_tests();
        let begun = std::time::Instant::now();
        let reader = tokio::spawn(
            source.clone().read(SourceContext { splits, batch_rows: 100, waiting: engine::Waiting::new(|_| {}) }, out),
        );
        let mut rows = 0;
        loop {
            match events.recv().await.unwrap() {
                SourceEvent::Rows { rows: batch, .. } => rows += batch.num_rows(),
                SourceEvent::Idle { .. } => break,
                SourceEvent::Lag { .. } => {}
                SourceEvent::Finished { .. } | SourceEvent::Absent { .. } => {
                    panic!("an idle replay neither ends nor waits for splits")
                }
            }
        }
        // Seven seconds of times, twenty times as fast.
        assert!(rows == 8 && begun.elapsed().as_millis() >= 340, "{rows} rows in {:?}", begun.elapsed());
        assert!(!reader.is_finished());
        reader.abort();
    });
}
