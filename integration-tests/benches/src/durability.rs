//! What durability costs: checkpoints, recoveries, state on disk, exactly-once. Jobs of a server, because that is where checkpoints are.

use std::time::{Duration, Instant};

use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::kafka::Kafka;
use test_support::process::send;

use crate::report::Section;
use crate::workloads::Thresholds;

const PATIENCE: Duration = Duration::from_secs(900);
/// About half a minute of a keyed aggregate.
const ROWS: u64 = 300_000_000;
/// Keys of a gigabyte of state: a count, a sum and a maximum, 48 bytes a key.
const KEYS_OF_A_GIB: u64 = 22_000_000;
const RECOVERIES: usize = 5;

/// What is measured, each part on a server of its own.
pub fn sections(pairs: usize, wanted: impl Fn(&str) -> bool) -> Result<Vec<Section>, String> {
    let mut sections = Vec::new();
    if wanted("checkpoints") {
        sections.push(overhead(pairs)?);
    }
    if wanted("a gigabyte") {
        sections.push(a_gigabyte()?);
    }
    if wanted("rocksdb") {
        sections.push(on_disk()?);
    }
    if wanted("exactly once") {
        sections.push(exactly_once(pairs)?);
    }
    Ok(sections)
}

/// A table of random keys; `rows` of them, or without end.
fn source(keys: u64, rows: Option<u64>, more: &str) -> String {
    let rows = rows.map(|rows| format!(", 'number-of-rows' = '{rows}'")).unwrap_or_default();
    format!(
        "CREATE TABLE events (k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen', \
         'fields.k.min' = '0', 'fields.k.max' = '{}', 'fields.v.min' = '0', 'fields.v.max' = '1000'{rows}{more});\n",
        keys - 1
    )
}

const RUNNING: &str = "CREATE TABLE out (k BIGINT, n BIGINT, s BIGINT, m BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'blackhole');\n\
     INSERT INTO out SELECT k, COUNT(*), SUM(v), MAX(v) FROM events GROUP BY k;";

/// `('fields.ts.step')` of the source makes a window some millions of rows.
const WINDOWS: &str = "CREATE TABLE out (k BIGINT, t TIMESTAMP(3), n BIGINT) WITH ('connector' = 'blackhole');\n\
     INSERT INTO out SELECT k, window_end, COUNT(*) FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '10' SECOND)) \
     GROUP BY k, window_start, window_end;";

struct Ran {
    seconds: f64,
    checkpoints: Vec<Value>,
    resident_mb: f64,
}

/// Runs a job to its end.
fn run(server: &Highwater, sql: &str) -> Result<Ran, String> {
    let begun = Instant::now();
    let (_, run) = server.submit(&fresh(), sql);
    let resident_mb = std::cell::Cell::new(0f64);
    let ended = wait(server, &run, |run| {
        resident_mb.set(resident_mb.get().max(run["progress"]["resident_bytes"].as_f64().unwrap_or_default() / 1e6));
        !matches!(run["state"].as_str(), Some("pending" | "starting" | "running" | "restarting" | "stopping"))
    })?;
    match ended["state"].as_str() {
        Some("finished") => {
            let seconds = begun.elapsed().as_secs_f64();
            Ok(Ran { seconds, checkpoints: checkpoints(server, &run), resident_mb: resident_mb.get() })
        }
        _ => Err(format!("a job did not finish: {ended}")),
    }
}

fn fresh() -> String {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    format!("measured-{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

fn path(run: &Value, part: &str) -> String {
    format!("/api/v1/runs/{}{part}", run["id"].as_str().unwrap_or_default())
}

/// Newest first.
fn checkpoints(server: &Highwater, run: &Value) -> Vec<Value> {
    let answer = server.get(&path(run, "/checkpoints")).expect(200).json();
    answer["items"].as_array().cloned().unwrap_or_default()
}

fn wait(server: &Highwater, run: &Value, done: impl Fn(&Value) -> bool) -> Result<Value, String> {
    let begun = Instant::now();
    loop {
        let now = server.get(&path(run, "")).expect(200).json();
        if done(&now) {
            return Ok(now);
        }
        if begun.elapsed() > PATIENCE || now["failure"].is_object() {
            return Err(format!("waited in vain: {now}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn longest_pause_ms(checkpoints: &[Value]) -> f64 {
    let pauses = checkpoints.iter().filter_map(|checkpoint| checkpoint["longest_pause_us"].as_f64());
    pauses.fold(0.0, f64::max) / 1e3
}

/// Throughput with checkpoints over throughput without, in turns.
fn overhead(pairs: usize) -> Result<Section, String> {
    let mut section = Section::new(
        "Checkpoints: rows a second with them, over rows a second without",
        "300 million rows of a generator into a keyed aggregate (running: a count, a sum and a maximum of 1 M keys; windows: a count by 100,000 keys in \
         windows of 5 M rows); one thread, wall time of the whole job, without checkpoints, with one every 10 s and every second in turns.",
        &["figure", "median", "spread", "wanted", ""],
    );
    let server = Highwater::start();
    let queries = [
        ("running aggregate", source(1_000_000, Some(ROWS), ""), RUNNING),
        (
            "windows",
            source(100_000, Some(ROWS), ", 'fields.ts.step' = '2us'").replace("TIMESTAMP(3)", "TIMESTAMP(6)"),
            WINDOWS,
        ),
    ];
    for (name, source, query) in queries {
        let (mut slow, mut fast, mut pause) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..pairs {
            eprintln!("checkpoints: {name}");
            let with = |interval: &str| {
                let query =
                    query.replace("TIMESTAMP(3)", if name == "windows" { "TIMESTAMP(6)" } else { "TIMESTAMP(3)" });
                run(&server, &format!("SET 'checkpoint.interval' = '{interval}';\n{source}{query}"))
            };
            let (none, ten, one) = (with("1h")?, with("10s")?, with("1s")?);
            slow.push(none.seconds / ten.seconds);
            fast.push(none.seconds / one.seconds);
            pause.push(longest_pause_ms(&ten.checkpoints).max(longest_pause_ms(&one.checkpoints)));
        }
        section.figure_at_least(&format!("{name}, every 10 s"), slow, Thresholds::CHECKPOINTS_SLOW);
        section.figure_at_least(&format!("{name}, every second"), fast, Thresholds::CHECKPOINTS_FAST);
        section.figure(&format!("{name}, longest pause, ms"), pause, Some(Thresholds::PAUSE_MS));
    }
    Ok(section)
}

/// Pauses, bytes and recoveries of a running aggregate with a gigabyte of state.
fn a_gigabyte() -> Result<Section, String> {
    let mut section = Section::new(
        "A gigabyte of state",
        "A running count, sum and maximum of 22 million keys on two threads, a checkpoint every 5 s. A process is killed with SIGKILL; the time ends when a checkpoint \
         that was cut after that is committed by all sinks, and holds the delay before the restart (10 ms) and the detection (the server sees its child end). \
         Bytes changed: 40,000 rows a second of 1 M keys for 90 s, a checkpoint a second, each row of the size that rows have in the first one.",
        &["figure", "median", "spread", "wanted", ""],
    );
    let mut server = Highwater::start();
    eprintln!("a gigabyte of state");
    let settings = "SET 'checkpoint.interval' = '5s'; SET 'epoch.interval' = '200ms'; SET 'restart.delay' = '10ms'; SET 'parallelism' = '2';\n";
    // First all keys, then some of them.
    let (_, run) = server.submit(
        "gigabyte",
        &format!("{settings}{}{RUNNING}", source(KEYS_OF_A_GIB, None, ", 'rows-per-second' = '4000000'")),
    );
    wait(&server, &run, |run| run["progress"]["rows_in"].as_u64() > Some(4 * KEYS_OF_A_GIB))?;
    let newest = checkpoints(&server, &run);
    section.figure(
        "state in the newest checkpoint, MiB",
        vec![newest[0]["total_bytes"].as_f64().unwrap_or_default() / f64::from(1 << 20)],
        None,
    );
    section.figure("longest pause, ms", vec![longest_pause_ms(&newest)], Some(Thresholds::PAUSE_MS));

    let mut recoveries = Vec::new();
    for _ in 0..RECOVERIES {
        let before = checkpoints(&server, &run)[0]["attempt"].as_u64();
        let begun = Instant::now();
        send(server.process_of(&run), 9);
        wait(&server, &run, |_| {
            let newest = &checkpoints(&server, &run)[0];
            newest["attempt"].as_u64() > before && newest["state"] == "committed"
        })?;
        recoveries.push(begun.elapsed().as_secs_f64());
        // The delay before a restart begins anew once there was some progress.
        std::thread::sleep(Duration::from_secs(12));
    }
    section.figure("process killed to the next committed checkpoint, s", recoveries, Some(Thresholds::RECOVERY_S));

    let mut restarts = Vec::new();
    for _ in 0..RECOVERIES {
        server.kill();
        let begun = Instant::now();
        server.begin();
        server.get("/readyz").expect(200);
        restarts.push(begun.elapsed().as_secs_f64());
    }
    section.figure("server killed, from its start to ready, s", restarts, Some(Thresholds::SERVER_RESTART_S));
    server.post(&path(&run, "/stop"), &json!({"mode": "now"})).expect(202);
    wait(&server, &run, |run| run["state"] == "cancelled")?;

    // A twenty-fifth of the keys between two checkpoints, and the first seconds, in which keys are new.
    eprintln!("small changes");
    let settings = settings.replace("5s", "1s");
    let changes = source(1_000_000, None, ", 'rows-per-second' = '40000'");
    let (_, run) = server.submit("small-changes", &format!("{settings}{changes}{RUNNING}"));
    std::thread::sleep(Duration::from_secs(90));
    let all = checkpoints(&server, &run);
    let sum = |of: &str, from: &[Value]| -> f64 {
        let operators = from.iter().filter_map(|checkpoint| checkpoint["operators"].as_array()).flatten();
        operators.filter_map(|operator| operator[of].as_f64()).sum()
    };
    let first = all.last().map(std::slice::from_ref).ok_or("no checkpoint was made")?;
    let row_bytes = sum("bytes", first) / sum("rows", first).max(1.0);
    let rows_in = wait(&server, &run, |_| true)?["progress"]["rows_in"].as_f64().unwrap_or_default();
    let ratio = sum("bytes", &all) / (rows_in * row_bytes);
    section.figure("bytes written for a byte changed", vec![ratio], Some(Thresholds::WRITTEN_PER_CHANGED));
    server.post(&path(&run, "/stop"), &json!({"mode": "now"})).expect(202);
    wait(&server, &run, |run| run["state"] == "cancelled")?;
    Ok(section)
}

/// State larger than its budget.
fn on_disk() -> Result<Section, String> {
    let mut section = Section::new(
        "State on disk, larger than its memory",
        "Aggregates by key with `state.backend = 'rocksdb'`, against the same job in memory; wall time of the whole job, one thread. Bounded: every key twice, results at \
         the end. Running: keys at random, so that nearly every row is read, changed and written.",
        &["figure", "median", "spread", "wanted", ""],
    );
    let server = Highwater::start();
    let bounded = |keys: u64| {
        format!(
            "CREATE TABLE events (k BIGINT, v BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '{}', 'fields.k.kind' = 'random', 'fields.k.min' = '0', \
             'fields.k.max' = '{}', 'fields.v.min' = '0', 'fields.v.max' = '1000');\n{RUNNING}",
            2 * keys,
            keys - 1
        )
    };
    let running = |keys: u64| format!("{}{RUNNING}", source(keys, Some(4 * keys), ""));
    let on_disk = |budget: &str, sql: &str| {
        format!(
            "SET 'state.backend' = 'rocksdb'; SET 'state.memory' = '{budget}'; SET 'checkpoint.interval' = '10s';\n{sql}"
        )
    };
    for (name, sql, budget, budget_mb) in [
        ("bounded, 90 M keys (4 GiB), 1 GiB", bounded(90_000_000), "1GiB", 1074.0),
        ("running, 2 M keys (96 MiB), 24 MiB", running(2_000_000), "24MiB", 25.0),
    ] {
        eprintln!("state on disk: {name}");
        let memory = run(&server, &format!("SET 'checkpoint.interval' = '10s';\n{sql}"))?;
        let idle = run(&server, &on_disk(budget, &bounded(1_000)))?;
        let disk = run(&server, &on_disk(budget, &sql))?;
        section.figure_at_least(
            &format!("{name}: rate over that in memory"),
            vec![memory.seconds / disk.seconds],
            Thresholds::ON_DISK,
        );
        section.figure(
            &format!("{name}: resident beyond a small job, MB"),
            vec![disk.resident_mb - idle.resident_mb],
            Some(1.25 * budget_mb),
        );
        section.figure(&format!("{name}: the same in memory, MB"), vec![memory.resident_mb - idle.resident_mb], None);
    }
    Ok(section)
}

/// Rows a second into a topic exactly once, over those at least once.
fn exactly_once(pairs: usize) -> Result<Section, String> {
    let mut section = Section::new(
        "Kafka, exactly once over at least once",
        "Rows a second from a generator into a topic of a real broker, 8 million rows, a checkpoint every 10 s, in turns.",
        &["figure", "median", "spread", "wanted", ""],
    );
    let (kafka, server) = (Kafka::start(), Highwater::start());
    let mut ratios = Vec::new();
    for _ in 0..pairs {
        eprintln!("exactly once");
        let into = |delivery: &str| {
            let topic = kafka.topic("into", 1);
            let sql = format!(
                "SET 'checkpoint.interval' = '10s';\n{}CREATE TABLE out (k BIGINT, v BIGINT, ts TIMESTAMP(3)) WITH ('connector' = 'kafka', 'topic' = '{topic}', \
                 'properties.bootstrap.servers' = '{}', 'format' = 'json', 'delivery' = '{delivery}');\nINSERT INTO out SELECT k, v, ts FROM events;",
                source(1_000_000, Some(8_000_000), ""),
                kafka.servers()
            );
            run(&server, &sql)
        };
        let (least, exactly) = (into("at_least_once")?, into("exactly_once")?);
        ratios.push(least.seconds / exactly.seconds);
    }
    section.figure_at_least("8 M rows", ratios, Thresholds::EXACTLY_ONCE);
    Ok(section)
}
