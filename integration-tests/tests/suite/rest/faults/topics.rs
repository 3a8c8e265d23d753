//! Topics and brokers that go away under a run. What the connector does by itself is shown beside it; here is what a caller sees of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::kafka::{Kafka, Record, shared as broker};
use test_support::process::{free_port, send, wait_until};
use test_support::registry::SchemaRegistry;

use super::super::{fresh, shared};
use super::lines;

const STOP: i32 = 19;
const CONTINUE: i32 = 18;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// A table over a topic; looks once a second whether that is still the same.
fn table(name: &str, columns: &str, servers: &str, topic: &str, more: &str) -> String {
    format!(
        "CREATE TABLE {name} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}',
           'format' = 'json'{more});\n"
    )
}

const LIVE: &str = ", 'scan.topic-partition-discovery.interval' = '1s'";

fn numbers(range: std::ops::Range<i64>) -> Vec<Record> {
    range.map(|n| Record::value(0, format!("{{\"n\":{n}}}"))).collect()
}

/// From a topic into files, an epoch each 100 ms: the script, and where the files are.
fn into_files(server: &Highwater, servers: &str, topic: &str) -> (String, std::path::PathBuf) {
    let out = server.files().join(topic);
    let script = format!(
        "SET 'epoch.interval' = '100ms'; SET 'restart.attempts' = '0';\n{}CREATE TABLE files (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO files SELECT n FROM records;",
        table("records", "n BIGINT", servers, topic, LIVE),
        out.display()
    );
    (script, out)
}

/// A run that has read the ten records of a new topic.
fn reading(server: &Highwater, name: &str) -> (String, Value) {
    let topic = broker().topic(name, 1);
    broker().produce(&topic, &numbers(0..10));
    let (script, out) = into_files(server, &broker().servers(), &topic);
    let (_, run) = server.submit(&fresh(name), &script);
    wait_until("ten records are read", Duration::from_secs(60), || lines(&out).len() == 10);
    (topic, run)
}

/// The run has failed for this reason, and says so wherever one looks.
fn failed(server: &Highwater, run: &Value, code: &str, parts: &[&str]) {
    let run = server.wait_for_end(run);
    assert_eq!((&run["state"], &run["failure"]["code"]), (&json!("failed"), &json!(code)), "{run}");
    let failure = &run["failure"];
    assert!(parts.iter().all(|part| text(failure, "detail").contains(part)), "{parts:?}: {failure}");
    let errors = server.get(&format!("/api/v1/runs/{}/errors", text(&run, "id"))).expect(200).json();
    assert_eq!(errors["items"][0]["failure"], *failure);
}

#[test]
fn a_topic_that_is_deleted_made_anew_or_cut_ends_its_run_with_the_cause() {
    let server = shared();
    let (deleted, deleted_run) = reading(&server, "deleted");
    let (anew, anew_run) = reading(&server, "anew");
    let (cut, cut_run) = reading(&server, "cut");

    broker().delete(&deleted);
    broker().delete(&anew);
    broker().create(&anew, 1, &[]);
    broker().produce(&anew, &numbers(50..90));
    // While its process stands still, what it has not read yet goes. Its open request gets the first of the new records.
    let process = server.process_of(&cut_run);
    send(process, STOP);
    for from in [10, 20, 30] {
        broker().produce(&cut, &numbers(from..from + 10));
    }
    broker().delete_before(&cut, 0, 40);
    send(process, CONTINUE);

    failed(&server, &deleted_run, "data_loss_detected", &[&deleted, "deleted"]);
    failed(&server, &anew_run, "data_loss_detected", &[&anew]);
    failed(&server, &cut_run, "data_loss_detected", &[&cut, "begins at offset 40"]);
}

#[test]
fn a_broker_that_cannot_be_reached_is_told_in_a_bounded_time() {
    let server = shared();
    let nobody = format!("127.0.0.1:{}", free_port());
    let topic_of = |more: &str| table("records", "n BIGINT", &nobody, "records", more);
    let view = fresh("unreachable");
    let script = format!(
        "SET 'restart.attempts' = '0';\n{}CREATE TABLE {view} (n BIGINT) WITH ('connector' = 'view');\nINSERT INTO {view} SELECT n FROM records;",
        topic_of(", 'startup.timeout' = '4s'")
    );
    let begun = Instant::now();
    let (_, run) = server.submit(&fresh("unreachable"), &script);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // The broker may come yet: the run waits, says for what, and gives up when the table's time is over.
    let waits = server.wait_for_run(&run, "it says what it waits for", |run| run["waiting_for"].is_string());
    assert!(text(&waits, "waiting_for").contains(&nobody), "{waits}");
    failed(&server, &run, "kafka_unreachable", &[&nobody]);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());

    // A connection is tested at once.
    let name = fresh("unreachable");
    let connection = json!({"name": name, "kind": "kafka", "options": {"properties.bootstrap.servers": nobody}});
    server.post("/api/v1/connections", &connection).expect(201);
    let begun = Instant::now();
    let tested = server.post(&format!("/api/v1/connections/{name}/test"), &json!({})).expect(200).json();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(tested["ok"], false, "{tested}");
    assert!(tested.to_string().contains(&nobody), "{tested}");
}

#[test]
fn a_broker_that_is_killed_is_waited_for_and_no_row_is_lost() {
    let (server, kafka) = (shared(), Kafka::start());
    let topic = kafka.topic("survives", 1);
    kafka.produce(&topic, &numbers(0..1000));
    let (script, out) = into_files(&server, &kafka.servers(), &topic);
    let (_, from) = server.submit(&fresh("from"), &script);
    // Another one writes all the time.
    let target = kafka.topic("target", 1);
    let script = format!(
        "SET 'epoch.interval' = '100ms';
         CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'fields.n.kind' = 'sequence');
         {}INSERT INTO target SELECT n FROM ticks;",
        table("target", "n BIGINT", &kafka.servers(), &target, "")
    );
    let (_, into) = server.submit(&fresh("into"), &script);
    wait_until("a thousand records are read", Duration::from_secs(60), || lines(&out).len() == 1000);
    wait_until("some are written", Duration::from_secs(60), || kafka.bounds(&target, 0).1 > 500);

    let before = logged(&server, &into, &kafka.servers()).len();
    kafka.kill();
    let waits = |run: &Value| run["waiting_for"].as_str().is_some_and(|what| what.contains(&kafka.servers()));
    let said = server.wait_for_run(&from, "it waits for the broker", waits);
    assert_eq!(said["state"], "running", "{said}");
    assert!(text(&said, "waiting_for").contains(&topic), "{said}");
    let said = server.wait_for_run(&into, "it says that the broker is away", |run| {
        waits(run) || logged(&server, run, &kafka.servers()).len() > before
    });
    assert_eq!(said["state"], "running", "{said}");
    // As long as it lasts, and no longer: the topic has nothing new that could say so.
    std::thread::sleep(Duration::from_secs(3));
    assert!(waits(&server.get(&format!("/api/v1/runs/{}", text(&from, "id"))).expect(200).json()));
    kafka.restart();
    server.wait_for_run(&from, "it waits no more", |run| run["waiting_for"].is_null());

    kafka.produce(&topic, &numbers(1000..1500));
    wait_until("all records are read", Duration::from_secs(90), || lines(&out).len() >= 1500);
    let read: BTreeSet<i64> =
        lines(&out).iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_i64().unwrap()).collect();
    assert_eq!(read, (0..1500).collect::<BTreeSet<_>>());
    let before = kafka.bounds(&target, 0).1;
    wait_until("more is written", Duration::from_secs(90), || kafka.bounds(&target, 0).1 > before + 2000);
    let stop = server.post(&format!("/api/v1/runs/{}/stop", text(&into, "id")), &json!({"mode": "drain"})).expect(202);
    let operation = server.get(&format!("{}?wait=60s", stop.header("location").unwrap())).expect(200).json();
    assert_eq!(operation["state"], "succeeded", "{operation}");
    let rows =
        server.get(&format!("/api/v1/runs/{}", text(&into, "id"))).expect(200).json()["progress"]["rows_in"].as_i64();
    let number = |record: Record| serde_json::from_str::<Value>(&record.value.unwrap()).unwrap()["n"].as_i64().unwrap();
    let written: BTreeSet<i64> = kafka.records(&target).into_iter().map(number).collect();
    // Each at least once, without a gap.
    assert_eq!(Some(written.len() as i64), rows);
    assert_eq!(written.last().unwrap() - written.first().unwrap() + 1, written.len() as i64);
    server.post(&format!("/api/v1/runs/{}/stop", text(&from, "id")), &json!({"mode": "now"})).expect(202);
    assert_eq!(server.wait_for_end(&from)["state"], "cancelled");
}

/// Lines of a run's log that name these servers.
fn logged(server: &Highwater, run: &Value, servers: &str) -> Vec<String> {
    let logs = server.get(&format!("/api/v1/runs/{}/logs", text(run, "id"))).expect(200).json();
    let lines = logs["items"].as_array().unwrap().iter().map(|line| text(line, "message").to_string());
    lines.filter(|line| line.contains(servers)).collect()
}

#[test]
fn a_record_that_a_topic_does_not_take_fails_the_run_with_topic_and_size() {
    let server = shared();
    let topic = broker().topic_with("small", 1, &[("max.message.bytes", "5000")]);
    let script = format!(
        "CREATE TABLE one (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1', 'fields.n.kind' = 'sequence');
         {}INSERT INTO small SELECT LPAD('x', 20000, 'x') FROM one;",
        table("small", "note STRING", &broker().servers(), &topic, "")
    );
    let (_, run) = server.submit(&fresh("small"), &script);
    failed(&server, &run, "record_too_large", &[&topic, "20011"]);
    assert_eq!(server.wait_for_end(&run)["failure"]["fault"], "user");
}

#[test]
fn a_record_of_an_unknown_schema_is_a_dead_letter() {
    let (server, registry) = (shared(), SchemaRegistry::start());
    let topic = broker().topic("avro", 1);
    let known =
        registry.put(&format!("{topic}-value"), r#"{"type":"record","name":"R","fields":[{"name":"n","type":"int"}]}"#);
    let framed = |id: u32| [&[0][..], &id.to_be_bytes(), &[14]].concat();
    broker().produce_bytes(&topic, 0, &[(None, Some(&framed(known))), (None, Some(&framed(77)))]);
    let view = fresh("avro");
    let script = format!(
        "{}CREATE TABLE {view} (n BIGINT) WITH ('connector' = 'view');
         CREATE TABLE bin (payload BYTES) WITH ('connector' = 'blackhole');
         EXECUTE STATEMENT SET BEGIN
         INSERT INTO bin SELECT payload FROM highwater.dead_letters;
         INSERT INTO {view} SELECT n FROM records;
         END;",
        table(
            "records",
            "n BIGINT",
            &broker().servers(),
            &topic,
            &format!(
                ", 'avro-confluent.url' = '{}', 'scan.bounded.mode' = 'latest-offset', 'on_bad_record' = 'dead_letter'",
                registry.url()
            )
        )
        .replace("'format' = 'json'", "'format' = 'avro-confluent'")
    );
    let (_, run) = server.submit(&fresh("avro"), &script);
    assert_eq!(server.wait_for_end(&run)["state"], "finished");
    assert_eq!(server.rows(&view), [json!({"n": 7})]);
    let letters = server.get(&format!("/api/v1/runs/{}/dead_letters", text(&run, "id"))).expect(200).json();
    assert_eq!((&letters["total"], &letters["items"][0]["code"]), (&json!(1), &json!("schema_unknown")), "{letters}");
    assert_eq!(
        (&letters["items"][0]["split"], &letters["items"][0]["position"]),
        (&json!(format!("{topic}-0")), &json!("1")),
        "{letters}"
    );
}
