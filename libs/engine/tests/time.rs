//! The rules of time (ARCHITECTURE.md, section 5), each with the history that breaks an engine without it.
#![allow(clippy::unwrap_used)]

mod processes;
mod support;

use support::*;

/// Rows one per second from `from` to `to` (ms), each of value 1.
fn every_second(key: &'static str, from: i64, to: i64) -> Vec<(i64, &'static str, i64)> {
    (from..to).step_by(1000).map(|ts| (ts, key, 1)).collect()
}

fn union_of(a: &str, b: &str) -> String {
    format!("{a}, {b}, {{\"id\": \"both\", \"type\": \"union\", \"inputs\": [\"a-time\", \"b-time\"]}}")
}

/// Ten-second windows over `seconds` seconds: the expected lines for one key.
fn full_windows(key: &str, seconds: i64, per_second: i64) -> Vec<String> {
    (0..seconds / 10)
        .map(|window| {
            format!(
                "{key} {:02}:{:02}:{:02} {} {}",
                window * 10 / 3600,
                window * 10 / 60 % 60,
                window * 10 % 60,
                10 * per_second,
                10 * per_second
            )
        })
        .collect()
}

const FAST: &str = r#""epoch.interval": "5ms", "watermark.interval": "0s""#;

fn settings(more: &str) -> String {
    format!("{{{FAST}{}{more}}}", if more.is_empty() { "" } else { ", " })
}

/// Rule 1: the stash holds the watermark. Source `b` is hours ahead in event time; without the rule its batches overtake those waiting in the
/// stash, and windows close early and twice.
#[test]
fn skewed_sources_close_no_window_early() {
    for (workers, rows) in [(1, 7), (3, 7), (2, 64)] {
        let world = World::new([
            ("a", vec![vec![Act::Rows(every_second("k", 0, 600_000))]]),
            (
                "b",
                vec![
                    vec![Act::Rows(every_second("k", 0, 600_000)), Act::Pause(1)],
                    vec![Act::Rows(every_second("k", 0, 600_000))],
                ],
            ),
        ]);
        let nodes =
            format!("{}, {}", union_of(&source("a", "0s", None), &source("b", "0s", None)), tumble("both", "10s"));
        let outcome = run(
            &world,
            &nodes,
            &settings(&format!("\"parallelism\": {workers}, \"source.batch-rows\": {rows}, \"epoch.every-rows\": 50")),
        )
        .unwrap();
        assert!(outcome.epoch >= 5, "the history crosses epochs: {}", outcome.epoch);
        assert_eq!(world.lines(), full_windows("k", 600, 3), "{workers} workers, batches of {rows}");
    }
}

/// Rule 2: after its cut a source keeps its watermark until the probe has passed the epoch. `b` jumps far ahead right after a cut; without the
/// rule the jump fires windows inside the epoch that is still being closed elsewhere.
#[test]
fn a_watermark_far_ahead_after_a_cut_does_not_fire_inside_the_epoch_before() {
    let world = World::new([
        (
            "a",
            vec![vec![
                Act::Rows(every_second("a", 0, 30_000)),
                Act::AfterCommit(3),
                Act::Rows(every_second("a", 30_000, 60_000)),
            ]],
        ),
        (
            "b",
            vec![vec![
                Act::Rows(every_second("b", 0, 20_000)),
                Act::AfterCommit(1),
                Act::Rows(vec![(3_600_000, "b", 7)]),
                Act::AfterCommit(4),
            ]],
        ),
    ]);
    let nodes = format!("{}, {}", union_of(&source("a", "0s", None), &source("b", "0s", None)), tumble("both", "10s"));
    run(&world, &nodes, &settings("\"parallelism\": 2, \"source.batch-rows\": 3")).unwrap();
    let mut expected = full_windows("a", 60, 1);
    expected.extend(full_windows("b", 20, 1));
    expected.push("b 01:00:00 7 1".into());
    assert_eq!(world.lines(), expected);
}

/// Rules 3 and 4: a finished source goes on cutting at the final watermark; the last epoch is named only when all have finished.
#[test]
fn sources_may_end_in_different_epochs() {
    let world = World::new([
        ("a", vec![vec![Act::Rows(every_second("a", 0, 20_000))], vec![]]),
        (
            "b",
            vec![vec![
                Act::Rows(every_second("b", 0, 10_000)),
                Act::AfterCommit(6),
                Act::Rows(every_second("b", 10_000, 20_000)),
            ]],
        ),
    ]);
    let nodes = format!("{}, {}", union_of(&source("a", "0s", None), &source("b", "0s", None)), tumble("both", "10s"));
    let outcome = run(&world, &nodes, &settings("\"parallelism\": 2")).unwrap();
    assert!(outcome.finished && outcome.epoch > 6);
    let mut expected = full_windows("a", 20, 1);
    expected.extend(full_windows("b", 20, 1));
    assert_eq!(world.lines(), expected);
    let last: Vec<u64> =
        world.committed().iter().filter(|(_, line)| line.starts_with("b 00:00:10")).map(|(epoch, _)| *epoch).collect();
    assert!(last[0] > 6, "the second window of b leaves after its rows came");
}

/// Rule 6: an idle split leaves the minimum, never to the final watermark; when it returns its rows may be late, and are counted.
#[test]
fn an_idle_split_lets_windows_close_and_may_return_late() {
    let quiet = vec![
        Act::Rows(vec![(1_000, "q", 1)]),
        Act::Idle,
        Act::AfterCommit(4),
        Act::Pause(50),
        Act::Rows(vec![(2_000, "q", 1), (95_000, "q", 1)]),
    ];
    let world = World::new([(
        "a",
        vec![vec![Act::Rows(every_second("a", 0, 100_000)), Act::AfterCommit(8), Act::Pause(100)], quiet],
    )]);
    let nodes = format!("{}, {}", source("a", "0s", Some("10s")), tumble("a-time", "10s"));
    for workers in [1, 2] {
        let world = world.clone();
        let before = world.lines().len();
        let outcome = run(&world, &nodes, &settings(&format!("\"parallelism\": {workers}"))).unwrap();
        let late: u64 = outcome.counts.iter().map(|count| count.late).sum();
        assert_eq!(late, 1, "the row of 00:00:02 came after its window had closed");
        let lines: Vec<String> = world.committed()[before..].iter().map(|(_, line)| line.clone()).collect();
        assert!(
            lines.contains(&"q 00:00:00 1 1".to_string()) && lines.contains(&"q 00:01:30 1 1".to_string()),
            "{lines:?}"
        );
        let early =
            world.committed()[before..].iter().find(|(_, line)| line == "a 00:00:00 10 10").map(|(epoch, _)| *epoch);
        assert!(early.unwrap() <= 8, "the idle split did not hold the first window");
    }
}

/// Rule 6: an instance that can never get a split is finished, and holds nothing back.
#[test]
fn workers_without_splits_hold_nothing_back() {
    let world = World::new([(
        "a",
        vec![vec![
            Act::Rows(every_second("a", 0, 50_000)),
            Act::AfterCommit(5),
            Act::Rows(every_second("a", 50_000, 60_000)),
        ]],
    )]);
    let nodes = format!("{}, {}", source("a", "0s", None), tumble("a-time", "10s"));
    run(&world, &nodes, &settings("\"parallelism\": 4")).unwrap();
    assert_eq!(world.lines(), full_windows("a", 60, 1));
    let first = world.committed()[0].0;
    assert!(first <= 5, "the first window closed while the source was live, in epoch {first}");
}

/// Rule 3: the results of a watermark leave at the old capability, so they are never late for a window over them.
#[test]
fn windows_over_windows_lose_nothing() {
    let world = World::new([(
        "a",
        vec![vec![Act::Rows(every_second("a", 0, 600_000))], vec![Act::Rows(every_second("b", 0, 600_000))]],
    )]);
    let nodes = format!(
        r#"{}, {{"id": "small", "type": "window_aggregate", "inputs": ["a-time"], "window": {{"kind": "tumble", "time": "ts", "size": "5s"}},
            "keys": [{{"name": "k", "expr": "k"}}], "aggregates": [{{"name": "v", "function": "sum", "args": ["v"]}}]}},
           {{"id": "ts", "type": "project", "inputs": ["small"], "columns": [
            {{"name": "ts", "expr": "window_time"}}, {{"name": "k", "expr": "k"}}, {{"name": "v", "expr": "v"}}]}}, {}"#,
        source("a", "0s", None),
        tumble("ts", "1min")
    );
    for workers in [1, 3] {
        let before = world.committed().len();
        let outcome = run(
            &world,
            &nodes,
            &settings(&format!("\"parallelism\": {workers}, \"source.batch-rows\": 4, \"epoch.every-rows\": 40")),
        )
        .unwrap();
        assert_eq!(outcome.counts.iter().map(|count| count.late).sum::<u64>(), 0);
        let mut lines: Vec<String> = world.committed()[before..].iter().map(|(_, line)| line.clone()).collect();
        lines.sort();
        let expected = |key: &str| (0..10).map(|minute| format!("{key} 00:{minute:02}:00 60 12")).collect::<Vec<_>>();
        assert_eq!(lines, [expected("a"), expected("b")].concat(), "{workers} workers");
    }
}

/// Flow control: a slow sink holds the sources back by bytes and epochs; what is under way stays bounded, whatever the input's length.
#[test]
fn a_slow_worker_does_not_let_rows_pile_up() {
    let long = |key| vec![Act::Rows(every_second(key, 0, 20_000_000))];
    let mut world = World::new([("a", vec![long("a"), long("b")])]);
    world.slow_sink = std::time::Duration::from_micros(100);
    let nodes = format!(
        r#"{}, {{"id": "out", "type": "sink", "inputs": ["a-time"], "table": "out", "connector": {{"type": "blackhole"}}}}"#,
        source("a", "0s", None)
    );
    let settings = r#"{"epoch.every-rows": 500, "source.batch-rows": 5, "parallelism": 2, "memory.in-flight": "1MiB"}"#;
    run(&world, &nodes, settings).unwrap();
    assert_eq!(world.lines().len(), 40_000);
    let most = world.in_flight.lock().unwrap().1;
    assert!(most < 12_000, "{most} of 40,000 rows were in flight at once, more than a budget of 1 MiB holds");
}

/// Restart: at an epoch everything is dropped and built anew with another parallelism; the committed output is that of an undisturbed run.
#[test]
fn a_restart_at_any_epoch_with_another_parallelism_changes_nothing() {
    let scripts = || {
        [(
            "a",
            vec![
                vec![Act::Rows(every_second("a", 0, 100_000))],
                vec![Act::Rows(every_second("b", 0, 100_000))],
                vec![Act::Rows(every_second("a", 500, 100_000))],
            ],
        )]
    };
    let nodes = format!("{}, {}", source("a", "0s", None), tumble("a-time", "10s"));
    let options = |parallelism: u64| {
        settings(&format!("\"parallelism\": {parallelism}, \"source.batch-rows\": 3, \"epoch.every-rows\": 12, \"epoch.interval\": \"10s\"")).replace("\"epoch.interval\": \"5ms\", ", "")
    };
    let undisturbed = World::new(scripts());
    run(&undisturbed, &nodes, &options(1)).unwrap();
    for stop in 1..6 {
        let world = World::new(scripts());
        let first = run_from(&world, &nodes, &options(3), None, Some(stop)).unwrap();
        assert_eq!((first.finished, first.epoch), (false, stop));
        let second = run_from(&world, &nodes, &options(2), first.checkpoint.as_ref(), Some(stop + 1)).unwrap();
        let third = run_from(&world, &nodes, &options(1), second.checkpoint.as_ref(), None).unwrap();
        assert!(third.finished && third.epoch > stop + 1, "epochs go on: {}", third.epoch);
        assert_eq!(world.lines(), undisturbed.lines(), "stopped after epoch {stop}");
    }
}

/// A restart begins at the closing watermark of its checkpoint: a split that has come back from idleness is behind it, and its rows must not
/// reach windows that have fired.
#[test]
fn a_restart_begins_at_the_closing_watermark() {
    let quiet = vec![
        Act::Rows(vec![(1_000, "q", 1)]),
        Act::Idle,
        Act::AfterLine("a 00:01:20 10 10"),
        Act::Rows(vec![(2_000, "q", 1)]),
        Act::AfterCommit(41),
        Act::Rows(vec![(3_000, "q", 1), (95_000, "q", 1)]),
    ];
    let world = World::new([(
        "a",
        vec![vec![Act::Rows(every_second("a", 0, 100_000)), Act::AfterCommit(45), Act::Pause(50)], quiet],
    )]);
    let nodes = format!("{}, {}", source("a", "0s", Some("10s")), tumble("a-time", "10s"));
    let late = |outcome: &engine::runtime::Outcome| outcome.counts.iter().map(|count| count.late).sum::<u64>();
    let first = run_from(&world, &nodes, &settings("\"parallelism\": 2"), None, Some(40)).unwrap();
    let second = run_from(&world, &nodes, &settings(""), first.checkpoint.as_ref(), None).unwrap();
    // Counted by whoever met them; the second attempt goes on counting.
    assert!(late(&first) <= 2);
    assert_eq!(late(&second), 2, "the rows of 00:00:02 and 00:00:03 came after their window had closed");
    let mut expected = full_windows("a", 100, 1);
    expected.extend(["q 00:00:00 1 1".to_string(), "q 00:01:30 1 1".to_string()]);
    assert_eq!(world.lines(), expected);
}

/// A row exactly one gap after the last one of a session shares it, also when it is the last that the watermark allows; and a window over
/// the session's time takes its result.
#[test]
fn a_row_at_the_end_of_a_session_shares_it() {
    let nodes = format!(
        r#"{}, {{"id": "visits", "type": "window_aggregate", "inputs": ["a-time"],
            "window": {{"kind": "session", "time": "ts", "gap": "10s"}}, "keys": [{{"name": "k", "expr": "k"}}],
            "aggregates": [{{"name": "v", "function": "sum", "args": ["v"]}}]}},
           {{"id": "sums", "type": "window_aggregate", "inputs": ["visits"],
            "window": {{"kind": "tumble", "time": "window_time", "size": "1s"}}, "keys": [{{"name": "k", "expr": "k"}}],
            "aggregates": [{{"name": "total", "function": "sum", "args": ["v"]}}]}},
           {{"id": "short", "type": "project", "inputs": ["sums"], "columns": [
            {{"name": "k", "expr": "k"}}, {{"name": "window_end", "expr": "window_end"}}, {{"name": "total", "expr": "total"}}]}},
           {{"id": "out", "type": "sink", "inputs": ["short"], "table": "out", "connector": {{"type": "blackhole"}}}}"#,
        source("a", "0s", None)
    );
    // The clock row of key c moves the watermark to 9,999 ms: the row of 10,000 ms is in time, and shares the session of key k.
    let rows = vec![(0, "k", 1), (10_000, "c", 1), (10_000, "k", 2), (20_000, "k", 4), (40_000, "k", 8)];
    let world = World::new([("a", vec![vec![Act::Rows(rows)]])]);
    let outcome = run(&world, &nodes, &settings("\"source.batch-rows\": 1")).unwrap();
    assert_eq!(outcome.counts.iter().map(|count| count.late).sum::<u64>(), 0);
    assert_eq!(world.lines(), ["c 00:00:20 1", "k 00:00:30 7", "k 00:00:50 8"]);
}
