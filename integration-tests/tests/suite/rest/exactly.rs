//! Topics and tables of PostgreSQL that are written exactly once: whatever is killed, each row is there once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use test_support::kafka;
use test_support::postgres::Postgres;
use test_support::process::send;

use super::{fresh, shared};

const ROWS: i64 = 12_000;

fn value(record: &kafka::Record) -> Value {
    serde_json::from_str(record.value.as_ref().unwrap()).unwrap()
}

#[test]
fn a_killed_run_writes_each_record_to_its_topic_once() {
    let (server, kafka) = (shared(), kafka::shared());
    let (numbers, counts) = (kafka.topic("numbers", 3), kafka.topic("counts", 2));
    let with = |topic: &str| {
        format!(
            "('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'delivery' = 'exactly_once',
              'properties.bootstrap.servers' = '{}')",
            kafka.servers()
        )
    };
    let script = format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '200ms'; SET 'restart.delay' = '20ms';
         SET 'parallelism' = '2'; SET 'processes' = '2';
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'rows-per-second' = '2000', 'number-of-rows' = '{ROWS}', 'fields.n.kind' = 'sequence');
         CREATE TABLE numbers (n BIGINT) WITH {};
         CREATE TABLE counts (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH {};
         INSERT INTO numbers SELECT n FROM ticks;
         INSERT INTO counts SELECT n % 7, COUNT(*) FROM ticks GROUP BY n % 7;",
        with(&numbers),
        with(&counts)
    );
    let name = fresh("exactly");
    let (_, run) = server.submit(&name, &script);
    for kill in 1..=5 {
        let before = server.wait_for_run(&run, "a running attempt", |run| {
            run["state"] == "running" && run["attempts"] == kill && run["progress"]["rows_in"].as_u64() > Some(500)
        });
        std::thread::sleep(Duration::from_millis(97 * kill));
        send(server.process_of(&before), 9);
    }
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("finished"), &json!(6)), "{ended}");
    let seen = || {
        let mut all: Vec<i64> =
            kafka.records(&numbers).iter().map(|record| value(record)["n"].as_i64().unwrap()).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(seen(), (0..ROWS).collect::<Vec<_>>(), "each number once");
    let last: BTreeMap<i64, i64> = kafka
        .records(&counts)
        .iter()
        .map(value)
        .map(|value| (value["k"].as_i64().unwrap(), value["n"].as_i64().unwrap()))
        .collect();
    assert_eq!(last, (0..7).map(|k| (k, (0..ROWS).filter(|n| n % 7 == k).count() as i64)).collect());
    // The job begins afresh: what the run before left in its topics is no obstacle.
    let again = server.post(&format!("/api/v1/jobs/{name}/runs"), &json!({})).expect(202).json();
    let ended = server.wait_for_end(&again);
    assert_eq!(ended["state"], "finished", "{ended}");
    assert_eq!(seen().len() as i64, 2 * ROWS);
}

#[test]
fn a_killed_run_writes_each_row_to_its_table_once() {
    let (server, postgres) = (shared(), Postgres::shared());
    let database = postgres.database();
    let name = fresh("tables");
    let connection = json!({"name": name, "kind": "postgres",
        "options": {"host": "127.0.0.1", "port": postgres.port().to_string(), "user": "app",
            "database": database.rsplit('/').next().unwrap()},
        "secrets": {"password": postgres.password()}});
    server.post("/api/v1/connections", &connection).expect(201);
    let test = server.post(&format!("/api/v1/connections/{name}/test"), &json!({})).expect(200).json();
    assert_eq!(test["ok"], json!(true), "{test}");
    let with = |table: &str| {
        format!("('connector' = 'postgres', 'connection' = '{name}', 'table' = '{table}', 'create' = 'true')")
    };
    let script = format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '200ms'; SET 'restart.delay' = '20ms';
         SET 'parallelism' = '2'; SET 'processes' = '2';
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'rows-per-second' = '2000', 'number-of-rows' = '{ROWS}', 'fields.n.kind' = 'sequence',
             'fields.ts.kind' = 'sequence', 'fields.ts.step' = '1ms');
         CREATE TABLE numbers (n BIGINT) WITH {};
         CREATE TABLE counts (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH {};
         CREATE TABLE windows (start_at TIMESTAMP(3), k BIGINT, n BIGINT) WITH {};
         INSERT INTO numbers SELECT n FROM ticks;
         INSERT INTO counts SELECT n % 7, COUNT(*) FROM ticks GROUP BY n % 7;
         INSERT INTO windows SELECT window_start, n % 3, COUNT(*)
           FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '250' MILLISECONDS)) GROUP BY window_start, window_end, n % 3;",
        with("numbers"),
        with("counts"),
        with("windows")
    );
    let job = fresh("tables");
    let spec = json!({"name": job, "sql": script, "delivery": "exactly_once"});
    let run = server.post("/api/v1/jobs", &spec).expect(201).json()["run"].clone();
    for kill in 1..=5 {
        let before = server.wait_for_run(&run, "a running attempt", |run| {
            run["state"] == "running" && run["attempts"] == kill && run["progress"]["rows_in"].as_u64() > Some(500)
        });
        std::thread::sleep(Duration::from_millis(97 * kill));
        send(server.process_of(&before), 9);
    }
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("finished"), &json!(6)), "{ended}");
    let asked = |sql: &str| postgres.sql(&database, sql);
    let numbers = format!("{ROWS}|{ROWS}|0|{}", ROWS - 1);
    assert_eq!(asked("SELECT count(*), count(DISTINCT n), min(n), max(n) FROM numbers"), numbers);
    let expected: Vec<String> = (0..7).map(|k| format!("{k}|{}", (0..ROWS).filter(|n| n % 7 == k).count())).collect();
    assert_eq!(asked("SELECT k, n FROM counts ORDER BY k"), expected.join("\n"));
    // A row per millisecond: the windows by themselves.
    let windows = format!(
        "WITH expected AS (SELECT timestamp '2000-01-01' + n / 250 * interval '250 ms' AS start_at, n % 3 AS k, count(*) AS n
           FROM generate_series(0, {} - 1) n GROUP BY 1, 2),
         wrong AS ((TABLE expected EXCEPT ALL SELECT start_at, k, n FROM windows) UNION ALL (SELECT start_at, k, n FROM windows EXCEPT ALL TABLE expected))
         SELECT (SELECT count(*) FROM wrong), (SELECT count(*) FROM windows)",
        ROWS
    );
    assert_eq!(asked(&windows), format!("0|{}", ROWS / 250 * 3));
    // The job begins afresh: what the run before left is no obstacle.
    let again = server.post(&format!("/api/v1/jobs/{job}/runs"), &json!({})).expect(202).json();
    let ended = server.wait_for_end(&again);
    assert_eq!(ended["state"], "finished", "{ended}");
    assert_eq!(asked("SELECT count(*), count(DISTINCT n) FROM numbers"), format!("{}|{ROWS}", 2 * ROWS));
    assert_eq!(asked("SELECT k, n FROM counts ORDER BY k"), expected.join("\n"));

    // What does not fit is said when the job is submitted, all at once.
    let wrong = format!(
        "CREATE TABLE ticks (n STRING, extra INT) WITH ('connector' = 'datagen', 'number-of-rows' = '10');
         CREATE TABLE numbers (n STRING, extra INT) WITH {}; INSERT INTO numbers SELECT n, extra FROM ticks;",
        with("numbers")
    );
    let refused = server.post("/api/v1/jobs", &json!({"name": fresh("tables"), "sql": wrong})).expect(422).json();
    let message = refused["errors"][0]["message"].as_str().unwrap_or_default();
    assert!(message.contains("column n is bigint there") && message.contains("no column extra"), "{refused}");
    assert_eq!(refused["errors"][0]["code"], "sink_table_mismatch");
}
