//! Savepoints of a job that reads topics and writes topics exactly once: whoever goes on from one leaves no row out and writes none twice.

use std::collections::BTreeSet;

use test_support::kafka::{self, Record};

use super::*;

const RECORDS: i64 = 12_000;
const PARTITIONS: i64 = 3;
const KEYS: i64 = 7;

fn from_topics(input: &str, numbers: &str, sums: &str) -> String {
    let with = |topic: &str, more: &str| {
        let servers = kafka::shared().servers();
        format!(
            "('connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'properties.bootstrap.servers' = '{servers}'{more})"
        )
    };
    let exactly = ", 'delivery' = 'exactly_once'";
    format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '200ms'; SET 'restart.delay' = '20ms';
         CREATE TABLE input (n BIGINT) WITH {};
         CREATE TABLE numbers (n BIGINT) WITH {};
         CREATE TABLE sums (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH {};
         INSERT INTO numbers SELECT n FROM input;
         INSERT INTO sums SELECT n % {KEYS}, COUNT(*), SUM(n) FROM input GROUP BY n % {KEYS};",
        with(input, ", 'scan.startup.mode' = 'earliest-offset'"),
        with(numbers, exactly),
        with(sums, exactly)
    )
}

fn integer(record: &Record, name: &str) -> i64 {
    let value: Value = serde_json::from_str(record.value.as_ref().unwrap()).unwrap();
    value[name].as_i64().unwrap_or_else(|| panic!("no {name}: {value}"))
}

fn numbers(topic: &str) -> Vec<i64> {
    let mut numbers: Vec<i64> = kafka::shared().records(topic).iter().map(|record| integer(record, "n")).collect();
    numbers.sort_unstable();
    numbers
}

/// What an upsert topic ends with.
fn sums(topics: &[&str]) -> BTreeMap<i64, (i64, i64)> {
    let records = topics.iter().flat_map(|topic| kafka::shared().records(topic));
    records.map(|record| (integer(&record, "k"), (integer(&record, "c"), integer(&record, "s")))).collect()
}

fn all_sums() -> BTreeMap<i64, (i64, i64)> {
    let mut sums = BTreeMap::new();
    for n in 0..RECORDS {
        let (count, sum) = sums.entry(n % KEYS).or_insert((0, 0));
        (*count, *sum) = (*count + 1, *sum + n);
    }
    sums
}

/// Ends a run when its topic has so many records, with what it has read by then.
fn drain(server: &Highwater, run: &Value, topic: &str, wanted: usize) {
    let deadline = std::time::Instant::now() + integration_tests::rest::PATIENCE;
    while kafka::shared().records(topic).len() < wanted {
        assert!(std::time::Instant::now() < deadline, "{topic} does not get {wanted} records");
        std::thread::sleep(Duration::from_millis(100));
    }
    server.post(&format!("/api/v1/runs/{}/stop", id(run)), &json!({"mode": "drain"})).expect(202);
    let ended = server.wait_for_end(run);
    assert_eq!(ended["state"], "finished", "{ended}");
}

#[test]
fn from_topics_to_topics_no_row_is_lost_and_none_twice() {
    let (server, kafka) = (shared(), kafka::shared());
    let input = kafka.topic("saved_input", PARTITIONS as i32);
    let produce = |from: i64, to: i64| {
        let record = |n: i64| Record::value((n % PARTITIONS) as i32, format!("{{\"n\":{n}}}"));
        kafka.produce(&input, &(from..to).map(record).collect::<Vec<_>>());
    };
    // Two outputs: that of the first job, in which the last one goes on, and that of a copy.
    let topics =
        |name: &str| (kafka.topic(&format!("saved_numbers_{name}"), 2), kafka.topic(&format!("saved_sums_{name}"), 2));
    let (own, copy) = (topics("own"), topics("copy"));
    let names: Vec<String> = ["first", "copied", "next"].map(fresh).to_vec();
    for (name, (numbers, sums), threads) in [(&names[0], &own, 2), (&names[1], &copy, 1), (&names[2], &own, 3)] {
        job(&server, name, &from_topics(&input, numbers, sums), threads);
    }
    produce(0, RECORDS / 3);
    let first = server.post(&format!("/api/v1/jobs/{}/runs", names[0]), &json!({})).expect(202).json();
    server.wait_for_run(&first, "rows", |run| rows_in(run) > Some(1000));
    let path = format!("/api/v1/jobs/{}/savepoints", names[0]);
    let asked = server.post(&path, &json!({"name": "middle"})).expect(202).json();
    produce(RECORDS / 3, RECORDS / 2);
    let middle = succeeded(&server, &asked);
    let producing = |from: i64, to: i64| (from..to).step_by(500).for_each(|n| produce(n, (n + 500).min(to)));
    producing(RECORDS / 2, 3 * RECORDS / 4);
    let stop = json!({"mode": "savepoint", "name": "end"});
    let stopping = server.post(&format!("/api/v1/runs/{}/stop", id(&first)), &stop).expect(202).json();
    // While it stops, and when it has stopped.
    producing(3 * RECORDS / 4, 3 * RECORDS / 4 + 1000);
    let end = succeeded(&server, &stopping);
    producing(3 * RECORDS / 4 + 1000, RECORDS);
    assert_eq!(server.wait_for_end(&first)["state"], "stopped");
    let before = numbers(&own.0).len();
    assert!(before as i64 > RECORDS / 3 && (before as i64) < RECORDS, "it stops in the middle: {before}");

    // What was cut off is what comes.
    let at = PathBuf::from(middle["location"].as_str().unwrap());
    let splits = manifest(&at)["sources"][0]["splits"].as_array().unwrap().clone();
    let position = |partition: i64| -> i64 {
        let split = splits.iter().find(|split| split[0]["spec"]["partition"] == partition);
        let at = split.and_then(|split| split[1]["position"]["At"].as_str()?.parse().ok());
        at.unwrap_or_else(|| panic!("no position in partition {partition}: {splits:?}"))
    };
    let rest = |n: &i64| n / PARTITIONS >= position(n % PARTITIONS);
    let expected: Vec<i64> = (0..RECORDS).filter(rest).collect();
    assert!(expected.len() < RECORDS as usize && expected.len() as i64 > RECORDS / 2, "{splits:?}");
    let copied = start(&server, &names[1], &id(&middle));
    drain(&server, &copied, &copy.0, expected.len());
    assert_eq!(numbers(&copy.0), expected, "what came after the savepoint, once");
    // Sums of keys that did not change since are of the first job's topic.
    assert_eq!(sums(&[&own.1, &copy.1]), all_sums());

    // In the same topics: another job has transactional ids and marks of its own.
    let next = start(&server, &names[2], &id(&end));
    drain(&server, &next, &own.0, RECORDS as usize);
    assert_eq!(numbers(&own.0), (0..RECORDS).collect::<Vec<_>>(), "each number once");
    assert_eq!(sums(&[&own.1]), all_sums());
    let jobs: BTreeSet<&str> = [&first, &copied, &next].map(|run| run["job_id"].as_str().unwrap()).into();
    assert_eq!(jobs.len(), 3);
}
