//! Scripts that read and write topics of a real broker, run as a user would.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use test_support::kafka::{Record, shared};
use test_support::process::{send, wait_until};

use super::support::{command, highwater};

/// A table over a topic: bounded where `more` does not say otherwise.
fn table(name: &str, columns: &str, topic: &str, more: &str) -> String {
    let servers = shared().servers();
    format!(
        "CREATE TABLE {name} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', \
         'properties.bootstrap.servers' = '{servers}', 'properties.group.id' = 'tests', 'format' = 'json', {more});\n"
    )
}

const BOUNDED: &str = "'scan.bounded.mode' = 'latest-offset'";

/// Runs a script that must end well.
fn run(folder: &Path, script: &str, arguments: &[&str]) {
    fs::write(folder.join("script.sql"), script).unwrap();
    let finished = highwater(folder, ["run", "script.sql"].into_iter().chain(arguments.iter().copied()));
    assert_eq!(finished.code, Some(0), "{script}\n{}", finished.report());
}

/// Runs a script that must fail; gives what it says.
fn fails(folder: &Path, script: &str) -> String {
    fs::write(folder.join("script.sql"), script).unwrap();
    let finished = highwater(folder, ["run", "script.sql"]);
    assert!(finished.code.is_some_and(|code| code != 0), "{script}\n{}", finished.report());
    finished.stderr
}

/// All lines of all files of a table of files, sorted.
fn lines(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            lines.extend(fs::read_to_string(&path).unwrap().lines().map(str::to_string));
        }
    }
    lines.sort();
    lines
}

fn values(topic: &str) -> Vec<String> {
    let mut values: Vec<String> =
        shared().records(topic).into_iter().map(|record| record.value.unwrap_or_else(|| "-".into())).collect();
    values.sort();
    values
}

#[test]
fn from_files_into_a_topic_and_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let bids: Vec<String> =
        (0..5_000).map(|n| format!(r#"{{"id":{n},"price":{},"note":"n {}"}}"#, n % 97, n % 5)).collect();
    fs::write(folder.join("bids.json"), bids.join("\n")).unwrap();
    let topic = shared().topic("bids", 4);
    let files = "CREATE TABLE files (id BIGINT, price BIGINT, note STRING) \
                 WITH ('connector' = 'filesystem', 'path' = 'bids.json', 'format' = 'json');\n";
    let columns = "id BIGINT, price BIGINT, note STRING";
    let into = table("bids", columns, &topic, "'key.fields' = 'note', 'key.format' = 'raw'");
    run(folder, &format!("{files}{into}INSERT INTO bids SELECT * FROM files;"), &["--parallelism", "2"]);
    let records = shared().records(&topic);
    assert_eq!(records.len(), 5_000);
    assert!(
        records.iter().all(|record| record.key.as_ref().is_some_and(|key| key.starts_with("n "))),
        "{:?}",
        records[0]
    );

    let back = "CREATE TABLE back (id BIGINT, price BIGINT, note STRING, p INT) \
                WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n";
    let from = table("bids", &format!("{columns}, p INT METADATA FROM 'partition' VIRTUAL"), &topic, BOUNDED);
    for (at, arguments) in
        [&["--parallelism", "1"][..], &["--parallelism", "3"], &["--processes", "2"]].iter().enumerate()
    {
        let back = back.replace("'out'", &format!("'out{at}'"));
        run(
            folder,
            &format!("{from}{back}INSERT INTO back SELECT id, price, note, p FROM bids WHERE price < 50;"),
            arguments,
        );
        let mut expected: Vec<String> = records
            .iter()
            .map(|record| (record.partition, record.value.clone().unwrap()))
            .filter(|(_, value)| {
                value.split("\"price\":").nth(1).unwrap().split(',').next().unwrap().parse::<i64>().unwrap() < 50
            })
            .map(|(partition, value)| format!("{},\"p\":{partition}}}", value.trim_end_matches('}')))
            .collect();
        expected.sort();
        assert_eq!(lines(&folder.join(format!("out{at}"))), expected, "{arguments:?}");
    }
}

#[test]
fn windows_over_partitions_out_of_step_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let topic = shared().topic("windows", 3);
    // Partition 2 is an hour behind, and each is shuffled within 5 s.
    let records: Vec<Record> = (0..900)
        .map(|n| {
            let partition = n % 3;
            let second = (n / 3) ^ 3;
            let time =
                format!("2024-01-01 {:02}:{:02}:{:02}", if partition == 2 { 7 } else { 8 }, second / 60, second % 60);
            Record::value(partition, format!(r#"{{"k":{},"ts":"{time}"}}"#, n % 2))
        })
        .collect();
    shared().produce(&topic, &records);
    // Then a row in each that closes the windows before it: the read is not bounded, so that rows can be late.
    shared().produce(
        &topic,
        &(0..3).map(|partition| Record::value(partition, r#"{"k":0,"ts":"2024-01-01 09:00:00"}"#)).collect::<Vec<_>>(),
    );
    let out = shared().topic("counts", 1);
    let columns = "k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND";
    for (parallelism, windows) in [("1", 10), ("2", 20)] {
        let script = table("events", columns, &topic, "'scan.startup.mode' = 'earliest-offset'")
            + &table("counts", "start_at TIMESTAMP(3), n BIGINT", &out, "'sink.delivery-guarantee' = 'at-least-once'")
            + "INSERT INTO counts SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) \
               GROUP BY window_start, window_end;";
        let settings = "source.batch-rows=7 epoch.interval=100ms watermark.interval=0s";
        let mut arguments = vec!["--parallelism", parallelism, "--summary", "json", "--no-progress"];
        arguments.extend(settings.split(' ').flat_map(|setting| ["--set", setting]));
        follow(folder.path(), &script, &arguments, || values(&out).len() == windows);
        let log = fs::read_to_string(folder.path().join("log")).unwrap();
        let summary = log.lines().next_back().and_then(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let figure = |name: &str| summary.as_ref().and_then(|summary| summary[name].as_u64());
        assert_eq!((figure("rows_in"), figure("late")), (Some(903), Some(0)), "{log}");
    }
    let mut expected: Vec<String> = (0..5)
        .flat_map(|minute| {
            [(7, 60), (8, 120)]
                .map(|(hour, n)| format!(r#"{{"start_at":"2024-01-01 {hour:02}:{minute:02}:00","n":{n}}}"#))
        })
        .flat_map(|row| [row.clone(), row])
        .collect();
    expected.sort();
    let found: Vec<String> = values(&out).iter().map(|value| value.replace(".000", "")).collect();
    assert_eq!(found, expected);
}

#[test]
fn records_that_cannot_be_read_follow_the_tables_policy() {
    let folder = tempfile::tempdir().unwrap();
    let topic = shared().topic("bad", 2);
    shared().produce(
        &topic,
        &[
            Record::value(0, r#"{"n":1}"#),
            Record::value(1, r#"{"n":"x"}"#),
            Record::value(1, r#"{"n":2}"#),
            Record { partition: 1, ..Record::default() },
            Record::value(0, "{"),
        ],
    );
    let letters = shared().topic("letters", 1);
    let out = shared().topic("good", 1);
    let script = |policy: &str| {
        table("events", "n BIGINT", &topic, &format!("{BOUNDED}, 'on_bad_record' = '{policy}'"))
            + &table("good", "n BIGINT", &out, "'sink.partitioner' = 'default'")
            + "INSERT INTO good SELECT n FROM events;\n"
    };
    let said = fails(folder.path(), &script("fail"));
    assert!(said.contains("bad_record") && said.contains(&topic), "{said}");
    run(folder.path(), &script("drop"), &[]);
    assert_eq!(values(&out), [r#"{"n":1}"#, r#"{"n":2}"#]);
    let dead = "source STRING, split STRING, `position` BIGINT, code STRING, message STRING, payload STRING";
    let with_letters = script("dead_letter")
        + &table("letters", dead, &letters, "'key.fields' = 'split'")
        + "INSERT INTO letters SELECT source, split, `position`, code, message, CAST(payload AS STRING) FROM highwater.dead_letters;";
    run(folder.path(), &with_letters, &[]);
    let found = values(&letters);
    for (at, parts) in [
        [format!(r#""split":"{topic}-0","position":1,"code":"truncated""#), r#""payload":"{""#.to_string()],
        [
            format!(r#""split":"{topic}-1","position":0,"code":"wrong_type""#),
            r#""payload":"{\"n\":\"x\"}""#.to_string(),
        ],
        [format!(r#""split":"{topic}-1","position":2,"code":"no_value""#), r#""payload":"""#.to_string()],
    ]
    .iter()
    .enumerate()
    {
        assert!(
            found.iter().any(|letter| parts.iter().all(|part| letter.contains(part))),
            "{at} {parts:?}: {found:#?}"
        );
    }
    assert_eq!(found.len(), 3);
}

/// A run that does not end by itself: interrupted when `done`, which is looked at again and again.
fn follow(folder: &Path, script: &str, arguments: &[&str], done: impl FnMut() -> bool) {
    fs::write(folder.join("script.sql"), script).unwrap();
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut command = command(folder);
    command.args(["run", "script.sql"]).args(arguments).stdout(log.try_clone().unwrap()).stderr(log);
    let mut child = command.spawn().unwrap();
    let waiting = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_until("the run has written what it is to write", Duration::from_secs(120), done);
    }));
    send(child.id(), 2);
    let until = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if let Err(panic) = waiting {
        eprintln!("{}", fs::read_to_string(folder.join("log")).unwrap());
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_live_stream_is_not_held_back_by_partitions_without_records() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, out) = (shared().topic("live", 3), shared().topic("live-counts", 1));
    let columns = "ts TIMESTAMP(3), WATERMARK FOR ts AS ts";
    // Longer than it takes to read what is there, on a busy machine too.
    let script = table("events", columns, &topic, "'scan.watermark.idle-timeout' = '4s'")
        + &table("counts", "start_at TIMESTAMP(3), n BIGINT", &out, "'sink.partitioner' = 'default'")
        + "INSERT INTO counts SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;";
    let at =
        |partition: i32, second: i32| Record::value(partition, format!(r#"{{"ts":"2024-01-01 00:00:{second:02}"}}"#));
    // Two partitions of three have records, none the whole time.
    shared().produce(&topic, &[at(0, 1), at(0, 5), at(1, 2), at(0, 15), at(1, 11)]);
    let mut second = false;
    follow(folder.path(), &script, &["--parallelism", "2"], || {
        let found = values(&out);
        if found.len() == 1 && !second {
            second = true;
            shared().produce(&topic, &[at(1, 25)]);
        }
        found.len() == 2
    });
    let found: Vec<String> = values(&out).iter().map(|value| value.replace(".000", "")).collect();
    assert_eq!(found, [r#"{"start_at":"2024-01-01 00:00:00","n":3}"#, r#"{"start_at":"2024-01-01 00:00:10","n":2}"#]);
}

#[test]
fn a_running_aggregate_is_upserted() {
    let folder = tempfile::tempdir().unwrap();
    let (topic, out) = (shared().topic("votes", 2), shared().topic("totals", 2));
    shared().produce(
        &topic,
        &(0..100).map(|n| Record::value(n % 2, format!(r#"{{"k":"{}"}}"#, n % 4))).collect::<Vec<_>>(),
    );
    let script = table("votes", "k STRING", &topic, "'scan.startup.mode' = 'earliest-offset'")
        + &table("totals", "k STRING, n BIGINT, PRIMARY KEY (k) NOT ENFORCED", &out, "'key.format' = 'json'");
    let insert = "INSERT INTO totals SELECT k, COUNT(*) FROM votes GROUP BY k;";
    let last = || {
        let mut last = std::collections::BTreeMap::new();
        for record in shared().records(&out) {
            last.insert(record.key.unwrap(), record.value);
        }
        last.into_values().map(|value| value.unwrap_or("-".into())).collect::<Vec<_>>()
    };
    let all = |n: i64| (0..4).map(|k| format!(r#"{{"k":"{k}","n":{n}}}"#)).collect::<Vec<_>>();
    let mut more = false;
    follow(folder.path(), &format!("{script}{insert}"), &["--parallelism", "2"], || {
        if last() == all(25) && !more {
            more = true;
            shared()
                .produce(&topic, &(0..4).map(|n| Record::value(1, format!(r#"{{"k":"{n}"}}"#))).collect::<Vec<_>>());
        }
        last() == all(26)
    });
    let without = script.replace(", PRIMARY KEY (k) NOT ENFORCED", "");
    let said = fails(folder.path(), &format!("{without}{insert}"));
    assert!(said.contains("sink_takes_no_updates") && said.contains("PRIMARY KEY"), "{said}");
}

#[test]
fn what_a_table_cannot_do_is_said_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let select = "CREATE TABLE o (n BIGINT) WITH ('connector' = 'blackhole');\nINSERT INTO o SELECT n FROM t;";
    let write = "CREATE TABLE i (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');\nINSERT INTO t SELECT n FROM i;";
    for (columns, more, rest, parts) in [
        ("n BIGINT", "'sink.delivery-guarantee' = 'exactly-once'", write, ["guarantee_not_available", "at-least-once"]),
        ("n BIGINT", "'scan.startup.mod' = 'latest-offset'", select, ["unknown_option", "scan.startup.mode"]),
        ("n BIGINT, o INT METADATA FROM 'ofset'", BOUNDED, select, ["unknown_metadata", "offset"]),
        ("n BIGINT, o INT METADATA FROM 'offset'", BOUNDED, select, ["unknown_metadata", "BIGINT"]),
        ("n BIGINT", "'properties.enable.auto.commit' = 'true'", select, ["invalid_option", "positions"]),
        ("n BIGINT", "'startup.timeout' = '1s'", select, ["topic_not_found", "no-such-topic"]),
        ("n BIGINT", "'connection' = 'main'", select, ["unknown_connection", "main"]),
    ] {
        let said = fails(folder.path(), &(table("t", columns, "no-such-topic", more) + rest));
        assert!(parts.iter().all(|part| said.contains(part)), "{more}: {said}");
    }
    let both = "n BIGINT, o BIGINT METADATA FROM 'offset'";
    let said = fails(folder.path(), &(table("t", both, "x", BOUNDED) + &write.replace("SELECT n", "SELECT n, n")));
    assert!(said.contains("cannot be written") && said.contains("VIRTUAL"), "{said}");
    let topic = shared().topic("secrets", 1);
    let secret = "'properties.security.protocol' = 'SASL_PLAINTEXT', 'properties.sasl.mechanism' = 'PLAIN', 'properties.sasl.username' = 'x', \
                  'properties.sasl.password' = 'hunter-canary-2'";
    let said = fails(
        folder.path(),
        &(table("t", "n BIGINT", &topic, secret).replace(&shared().servers(), &shared().sasl_servers()) + select),
    );
    assert!(said.contains("authentication_failed") && !said.contains("hunter-canary-2"), "{said}");
}
