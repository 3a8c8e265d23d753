//! No row vanishes: what is late or unusable is in a table with where it came from, and the counters of the summary add up.

use std::path::Path;

use integration_tests::compare::{self, Row};
use integration_tests::program::Finished;
use serde_json::{Value, json};

use super::support;

/// Bids ten seconds apart, `count` of them, from 08:00:00 on.
fn bids(count: i64) -> String {
    let line = |n: i64| {
        let (minute, second) = (n * 10 / 60, n * 10 % 60);
        json!({"auction": n % 3, "price": n, "ts": format!("2024-03-01 08:{minute:02}:{second:02}.000")}).to_string()
    };
    (0..count).map(|n| line(n) + "\n").collect()
}

/// A stream whose rows arrive up to two minutes out of order, although its watermark waits for none.
const DISORDERED: &str = "CREATE TABLE bids (auction BIGINT, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) \
    WITH ('connector' = 'replay', 'path' = 'bids.jsonl', 'format' = 'json', 'replay.disorder' = '2min', 'replay.seed' = '7');\n";

/// Into one long epoch, row by row, so that a row's stamp is the watermark of the rows before it.
const ONE_BY_ONE: [&str; 6] =
    ["--set", "source.batch-rows=1", "--set", "watermark.interval=0s", "--set", "epoch.interval=1h"];

struct Ran {
    rows: Vec<Row>,
    summary: Value,
}

impl Ran {
    fn figure(&self, name: &str) -> u64 {
        self.summary[name].as_u64().unwrap_or_else(|| panic!("no {name} in {}", self.summary))
    }
}

/// Runs a script in a folder with `bids.jsonl`; all rows that it prints.
fn run(bids: &str, script: &str, arguments: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bids.jsonl"), bids).unwrap();
    std::fs::write(folder.path().join("script.sql"), script).unwrap();
    let finished = finish(folder.path(), arguments);
    let rows = compare::rows(&finished.stdout, "stdout").unwrap_or_else(|error| panic!("{error}"));
    let last = finished.stderr.lines().last().unwrap_or_default();
    Ran { rows, summary: serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", finished.report())) }
}

fn finish(folder: &Path, arguments: &[&str]) -> Finished {
    let all = ["run", "script.sql", "-o", "json", "--summary", "json", "--no-progress"];
    let finished = support::highwater(folder, all.into_iter().chain(arguments.iter().copied()));
    assert_eq!(finished.code, Some(0), "{}", finished.report());
    finished
}

fn text<'a>(row: &'a Row, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {row:?}"))
}

fn number(row: &Row, name: &str) -> i64 {
    row[name].as_i64().unwrap_or_else(|| panic!("{name} is no number in {row:?}"))
}

/// Milliseconds of a time of that day, written with a blank or a `T`.
fn millis(time: &str) -> i64 {
    let (_, time) = time.split_once([' ', 'T']).unwrap();
    let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
    ((parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]) * 1000.0).round() as i64
}

/// What a model of the definition says: price, watermark before the row, windows missed of `size` and `slide` (ms), and whether all.
fn late_by_definition(arrivals: &[Row], size: i64, slide: i64) -> Vec<(i64, i64, i64, bool)> {
    let mut watermark = i64::MIN;
    let mut late = Vec::new();
    for row in arrivals {
        let time = millis(text(row, "ts"));
        let ends: Vec<i64> =
            (1..).map(|n| n * slide).skip_while(|end| *end <= time).take_while(|end| end - size <= time).collect();
        let missed = ends.iter().filter(|end| **end - 1 <= watermark).count();
        if missed > 0 {
            late.push((number(row, "price"), watermark, missed as i64, missed == ends.len()));
        }
        watermark = watermark.max(time - 1);
    }
    late
}

#[test]
fn late_rows_are_in_the_ledger_with_where_they_came_from_and_what_they_missed() {
    let bids = bids(200);
    let arrivals = run(&bids, &format!("{DISORDERED}SELECT price, ts FROM bids;"), &ONE_BY_ONE).rows;
    assert_eq!(arrivals.len(), 200);
    for (window, size, slide) in [
        ("TUMBLE(ts, INTERVAL '1' MINUTE)", 60_000, 60_000),
        ("HOP(ts, INTERVAL '20' SECOND, INTERVAL '1' MINUTE)", 60_000, 20_000),
    ] {
        let expected = late_by_definition(&arrivals, size, slide);
        let all = expected.iter().filter(|late| late.3).count();
        let some = expected.len() - all;
        assert!(all > 5 && (slide == size || some > 5), "the input shows both kinds: {expected:?}");
        for parallelism in ["1", "3"] {
            let script = format!(
                "{DISORDERED}CREATE TABLE late (source STRING, split STRING, `position` BIGINT, event_time TIMESTAMP(6), \
                 `watermark` TIMESTAMP(6), operator STRING, windows_missed BIGINT, `row` STRING) WITH ('connector' = 'print');\n\
                 CREATE TABLE counts (auction BIGINT, n BIGINT) WITH ('connector' = 'blackhole');\n\
                 INSERT INTO late SELECT * FROM highwater.late_rows;\n\
                 INSERT INTO counts SELECT auction, COUNT(*) FROM bids GROUP BY auction, {window};"
            );
            let ran = run(&bids, &script, &[&ONE_BY_ONE[..], &["--parallelism", parallelism]].concat());
            assert_eq!(ran.figure("late"), all as u64, "{}", ran.summary);
            assert_eq!(ran.figure("partially_late"), some as u64, "{}", ran.summary);
            let mut found = Vec::new();
            for entry in &ran.rows {
                let row: Row = serde_json::from_str(text(entry, "row")).unwrap();
                assert_eq!(row.keys().collect::<Vec<_>>(), ["auction", "price", "ts"], "the row by its own names");
                assert_eq!((text(entry, "source"), number(&row, "price") % 3), ("bids", number(&row, "auction")));
                assert_eq!(millis(text(entry, "event_time")), millis(text(&row, "ts")), "{entry:?}");
                assert!(!text(entry, "split").is_empty() && !text(entry, "operator").is_empty(), "{entry:?}");
                let at = usize::try_from(number(entry, "position")).unwrap();
                assert_eq!(number(&arrivals[at], "price"), number(&row, "price"), "the position finds the row again");
                found.push((number(&row, "price"), millis(text(entry, "watermark")), number(entry, "windows_missed")));
            }
            found.sort_unstable();
            let mut expected: Vec<_> = expected.iter().map(|late| (late.0, late.1, late.2)).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{window} on {parallelism} workers");
        }
    }
}

/// Sessions judge behind the exchange; the ledger still knows the row.
#[test]
fn late_rows_of_sessions_are_in_the_ledger() {
    let script = format!(
        "{DISORDERED}CREATE TABLE late (split STRING, `position` BIGINT, windows_missed BIGINT, `row` STRING) WITH ('connector' = 'print');\n\
         CREATE TABLE counts (n BIGINT) WITH ('connector' = 'blackhole');\n\
         INSERT INTO late SELECT split, `position`, windows_missed, `row` FROM highwater.late_rows;\n\
         INSERT INTO counts SELECT COUNT(*) FROM bids GROUP BY auction, SESSION(ts, INTERVAL '5' SECOND);"
    );
    for parallelism in ["1", "2"] {
        let ran = run(&bids(200), &script, &[&ONE_BY_ONE[..], &["--parallelism", parallelism]].concat());
        assert!(ran.figure("late") > 5 && ran.rows.len() as u64 == ran.figure("late"), "{}", ran.summary);
        for entry in &ran.rows {
            let row: Row = serde_json::from_str(text(entry, "row")).unwrap();
            assert_eq!(row.keys().collect::<Vec<_>>(), ["auction", "price", "ts"]);
            assert!(number(entry, "windows_missed") == 1 && number(entry, "position") < 200, "{entry:?}");
        }
    }
}

/// Whatever the processes, threads and epochs do to lateness: each row is counted in its window or late, and the ledger has the late ones.
#[test]
fn counters_balance_in_a_stream() {
    let script = format!(
        "{}CREATE TABLE late (price BIGINT) WITH ('connector' = 'filesystem', 'path' = 'late', 'format' = 'json');\n\
         INSERT INTO late SELECT windows_missed FROM highwater.late_rows;\n\
         SELECT COUNT(*) AS n FROM bids WHERE price % 5 <> 0 GROUP BY auction, TUMBLE(ts, INTERVAL '1' MINUTE);",
        DISORDERED.replace("'replay.seed' = '7'", "'replay.seed' = '3', 'replay.splits' = '4'")
    );
    for arguments in [
        ["--parallelism", "1", "--processes", "1"],
        ["--parallelism", "3", "--processes", "1"],
        ["--parallelism", "1", "--processes", "2"],
    ] {
        let more = ["--set", "source.batch-rows=3", "--set", "watermark.interval=0s", "--set", "epoch.every-rows=20"];
        let ran = run(&bids(360), &script, &[&arguments[..], &more].concat());
        let counted: i64 = ran.rows.iter().map(|row| number(row, "n")).sum();
        assert_eq!((ran.figure("rows_in"), ran.figure("filtered")), (360, 72), "{}", ran.summary);
        assert_eq!(counted as u64 + ran.figure("late"), 288, "{}", ran.summary);
        assert_eq!(ran.summary["sinks"]["late"].as_u64(), Some(ran.figure("late")), "{}", ran.summary);
    }
}

/// Three bids, and between them a broken record, one without a time, and one from a clock that is far ahead.
const BROKEN: &str = "{\"auction\": 1, \"price\": 5, \"ts\": \"2024-03-01 08:00:00\"}\n\
    {\"auction\": 1, \"price\": \n\
    {\"auction\": 1, \"price\": 6, \"ts\": null}\n\
    {\"auction\": 1, \"price\": 7, \"ts\": \"2999-12-31 08:00:00\"}\n\
    {\"auction\": 1, \"price\": 3, \"ts\": \"2024-03-01 08:00:30\"}\n\
    {\"auction\": 1, \"price\": 8, \"ts\": \"2024-03-01 08:00:40\"}\n";

fn broken(connector: &str, bad: &str) -> String {
    format!(
        "CREATE TABLE bids (auction BIGINT, price BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) \
         WITH ('connector' = '{connector}', 'path' = 'bids.jsonl', 'format' = 'json', 'max_ahead' = '1h', \
         'on_bad_record' = '{bad}', 'null_event_time' = '{bad}');\n"
    )
}

#[test]
fn unusable_records_are_dead_letters_and_disturb_nothing() {
    for connector in ["filesystem", "replay"] {
        let script = format!(
            "{}CREATE TABLE bad (source STRING, split STRING, `position` BIGINT, code STRING, message STRING, payload STRING) \
             WITH ('connector' = 'print');\n\
             CREATE TABLE counts (n BIGINT) WITH ('connector' = 'blackhole');\n\
             INSERT INTO bad SELECT source, split, `position`, code, message, CAST(payload AS STRING) FROM highwater.dead_letters;\n\
             INSERT INTO counts SELECT COUNT(*) FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE);",
            broken(connector, "dead_letter")
        );
        let ran = run(BROKEN, &script, &ONE_BY_ONE);
        let mut found: Vec<(&str, &str)> = ran
            .rows
            .iter()
            .map(|row| {
                assert!(!text(row, "split").is_empty() && !text(row, "message").is_empty(), "{row:?}");
                assert!(text(row, "source") == "bids" && (0..6).contains(&number(row, "position")), "{row:?}");
                (text(row, "code"), text(row, "payload"))
            })
            .collect();
        found.sort_unstable();
        let expected = [
            // Whole, although the query reads the time alone.
            ("future_event_time", "{\"auction\":1,\"price\":7,\"ts\":\"2999-12-31T08:00:00\"}"),
            ("null_event_time", "{\"auction\":1,\"price\":6}"),
            // As it was read.
            ("truncated", "{\"auction\": 1, \"price\": "),
        ];
        assert_eq!(found, expected);
        // One bad clock does not make the rows behind it late.
        assert_eq!((ran.figure("rows_in"), ran.figure("dead"), ran.figure("late")), (6, 3, 0), "{}", ran.summary);
    }
}

#[test]
fn counters_balance_over_files() {
    let letters = "CREATE TABLE bad (n BIGINT) WITH ('connector' = 'blackhole');\n\
                   INSERT INTO bad SELECT `position` FROM highwater.dead_letters;\n";
    // A time from the future is a dead letter by either policy.
    for (bad, letters, dropped, dead) in [("drop", "", 2, 1), ("dead_letter", letters, 0, 3)] {
        let script = format!(
            "{}{letters}SELECT COUNT(*) AS n FROM bids WHERE price <> 8 GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE);",
            broken("filesystem", bad)
        );
        for processes in ["1", "2"] {
            let ran = run(BROKEN, &script, &["--processes", processes]);
            let figures = ["rows_in", "filtered", "dropped", "dead", "late"].map(|figure| ran.figure(figure));
            assert_eq!(figures, [6, 1, dropped, dead, 0], "{}", ran.summary);
            assert_eq!(ran.rows.iter().map(|row| number(row, "n")).sum::<i64>(), 2);
        }
    }
}

/// One wrong clock must not end a run, and what it says must not move the watermark.
#[test]
fn a_row_from_the_future_is_a_dead_letter_also_where_null_fails() {
    let with_a_time: Vec<&str> = BROKEN.lines().filter(|line| !line.contains("null")).collect();
    let script = broken("replay", "drop").replace("'null_event_time' = 'drop'", "'null_event_time' = 'fail'");
    let script = format!("{script}SELECT COUNT(*) AS n FROM bids GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE);");
    let ran = run(&with_a_time.join("\n"), &script, &ONE_BY_ONE);
    assert_eq!((ran.figure("dead"), ran.figure("dropped"), ran.figure("late")), (1, 1, 0), "{}", ran.summary);
    assert_eq!(ran.rows.iter().map(|row| number(row, "n")).sum::<i64>(), 3);
}
