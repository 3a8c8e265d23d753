//! Topics that are written exactly once: whatever is killed, readers of committed records see each once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use test_support::kafka;
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
