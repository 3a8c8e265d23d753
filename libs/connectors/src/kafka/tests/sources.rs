use engine::Position;
use serde_json::{Value, json};
use test_support::kafka::{Kafka, Record, shared};

use super::{numbers, open, open_in, run, table};
use crate::testing::{Seen, by_split, collect, source_conformance, starts};

async fn all(options: Value) -> Vec<Seen> {
    let source = open(options, &["n BIGINT"]);
    let splits = source.splits().await.unwrap();
    collect(&source, starts(&splits), 1000).await.unwrap()
}

/// `offset: n` by split.
async fn read(options: Value) -> Vec<Vec<String>> {
    let rows = by_split(&all(options).await);
    rows.into_values().collect()
}

#[test]
fn a_topic_keeps_what_every_bounded_source_keeps() {
    let kafka = shared();
    let topic = kafka.topic("conformance", 3);
    kafka.produce(&topic, &numbers(0..100, 3));
    kafka.produce_in_transaction(&topic, &numbers(100..110, 3), true);
    kafka.produce_in_transaction(&topic, &numbers(900..950, 3), false);
    kafka.produce(&topic, &[Record::value(1, "{"), Record::value(1, r#"{"n":"x"}"#), Record::default()]);
    kafka.produce(&topic, &numbers(110..120, 3));
    // At the end of each partition there is nothing but what was aborted.
    kafka.produce_in_transaction(&topic, &numbers(900..930, 3), false);
    run(async {
        let rows = source_conformance(open(table(kafka, &topic, json!({})), &["n BIGINT"])).await;
        let mut expected: Vec<String> = (0..120).map(|n| n.to_string()).collect();
        expected.extend(["truncated", "wrong_type", "no_value"].map(String::from));
        let numbers = |rows: &[String]| {
            let mut rows: Vec<String> = rows.iter().filter(|row| row.parse::<i64>().is_ok()).cloned().collect();
            rows.sort();
            rows
        };
        assert_eq!(numbers(&rows), numbers(&expected));
        assert_eq!(rows.len(), 123, "{rows:?}");
        assert!(rows.contains(&"no_value".to_string()) && rows.contains(&"truncated".to_string()), "{rows:?}");
    });
}

#[test]
fn reading_begins_and_ends_where_it_is_told() {
    let kafka = shared();
    let topic = kafka.topic("modes", 2);
    let at = |n: i32, ms: i64| Record { timestamp: Some(ms), ..numbers(n..n + 1, 2).remove(0) };
    let now = 1_700_000_000_000;
    kafka.produce(&topic, &(0..20).map(|n| at(n, now + i64::from(n) * 1000)).collect::<Vec<_>>());
    let counts = |more: Value| {
        let splits = run(read(table(kafka, &topic, more)));
        splits.iter().map(|rows| (rows.first().cloned(), rows.len())).collect::<Vec<_>>()
    };
    let some = |text: &str, count: usize| (Some(text.to_string()), count);
    assert_eq!(counts(json!({})), [some("0: 0", 10), some("0: 1", 10)]);
    assert!(counts(json!({"scan.startup.mode": "latest-offset"})).is_empty());
    // 10 is at offset 5 of partition 0, 11 of partition 1.
    let from = json!({"scan.startup.mode": "timestamp", "scan.startup.timestamp-millis": now + 9_500});
    assert_eq!(counts(from), [some("5: 10", 5), some("5: 11", 5)]);
    let beyond = json!({"scan.startup.mode": "timestamp", "scan.startup.timestamp-millis": now + 1_000_000});
    assert!(counts(beyond).is_empty());
    let to = json!({"scan.bounded.mode": "timestamp", "scan.bounded.timestamp-millis": (now + 9_000).to_string()});
    assert_eq!(counts(to), [some("0: 0", 5), some("0: 1", 4)]);
    let offsets = json!({"scan.startup.mode": "specific-offsets",
        "scan.startup.specific-offsets": "partition:0,offset:3;partition:1,offset:10",
        "scan.bounded.mode": "specific-offsets", "scan.bounded.specific-offsets": "partition:0,offset:4;partition:1,offset:10"});
    assert_eq!(counts(offsets), [some("3: 6", 1)]);
    let error = run(async {
        let options = json!({"scan.startup.mode": "specific-offsets",
            "scan.startup.specific-offsets": "partition:1,offset:11"});
        open(table(kafka, &topic, options), &["n BIGINT"]).splits().await.unwrap_err()
    });
    assert!(error.code == "offset_out_of_range" && error.message.contains("which holds 0 to 10"), "{error:?}");
    // What comes after the run has started is not of this run.
    run(async {
        let source = open(table(kafka, &topic, json!({})), &["n BIGINT"]);
        let splits = source.splits().await.unwrap();
        kafka.produce(&topic, &numbers(20..40, 2));
        let rows = by_split(&collect(&source, starts(&splits), 1000).await.unwrap());
        assert_eq!(rows.values().map(Vec::len).collect::<Vec<_>>(), [10, 10]);
    });
}

#[test]
fn what_stands_beside_a_record_can_be_a_column() {
    let kafka = shared();
    let topic = kafka.topic("metadata", 2);
    let record = |partition: i32, key: Option<&str>, value: &str, headers: &[(&str, Option<&str>)]| Record {
        partition,
        key: key.map(String::from),
        value: Some(value.into()),
        timestamp: Some(1_700_000_000_123),
        headers: headers.iter().map(|(name, value)| (name.to_string(), value.map(String::from))).collect(),
        ..Record::default()
    };
    kafka.produce(
        &topic,
        &[
            record(1, Some(r#"{"k":7}"#), r#"{"n":1}"#, &[("a", Some("x")), ("b", None), ("a", Some("y"))]),
            record(1, Some(r#"{"k":8}"#), "no object", &[]),
            record(1, None, r#"{"n":2}"#, &[]),
            record(1, Some(r#"{"k":9}"#), r#"{"n":3,"k":1}"#, &[]),
        ],
    );
    let columns = [
        "k BIGINT",
        "n BIGINT",
        "topic STRING",
        "p INT",
        "o BIGINT",
        "at TIMESTAMP(3)",
        "kind STRING",
        "key STRING",
        "h MAP<STRING, STRING>",
    ];
    let metadata = [
        ("topic", "topic"),
        ("p", "partition"),
        ("o", "offset"),
        ("at", "timestamp"),
        ("kind", "timestamp-type"),
        ("key", "key"),
        ("h", "headers"),
    ];
    let read = |more: Value| {
        let source = open_in(table(kafka, &topic, more), &columns, &metadata, super::around()).unwrap();
        run(async {
            let splits = source.splits().await.unwrap();
            by_split(&collect(&source, starts(&splits), 1000).await.unwrap()).remove(&1).unwrap()
        })
    };
    let beside =
        |o: i32, key: &str, headers: &str| format!("{topic}|1|{o}|2023-11-14T22:13:20.123|CreateTime|{key}|{headers}");
    let rows = read(json!({"key.fields": "k", "value.fields-include": "EXCEPT_KEY"}));
    assert_eq!(
        rows,
        [
            format!("0: 7|1|{}", beside(0, r#"{"k":7}"#, "{a: x, b: NULL, a: y}")),
            "1! not_an_object".to_string(),
            "2! no_key".to_string(),
            format!("3: 9|3|{}", beside(3, r#"{"k":9}"#, "{}")),
        ]
    );
    // In both: the value's.
    let rows = read(json!({"key.fields": "k"}));
    assert_eq!(rows[3], format!("3: 1|3|{}", beside(3, r#"{"k":9}"#, "{}")));
}

#[test]
fn partitions_that_may_come_are_listed_as_such() {
    let kafka = shared();
    let topic = kafka.topic("places", 3);
    let source = open(table(kafka, &topic, json!({"scan.bounded.mode": "unbounded"})), &["n BIGINT"]);
    let splits = run(source.splits()).unwrap();
    let there: Vec<bool> = splits.iter().map(|split| source.exists(split)).collect();
    assert_eq!((there.len(), &there[..4]), (19, &[true, true, true, false][..]));
    assert!(there[3..].iter().all(|there| !there));
}

#[test]
fn raw_values_are_one_column() {
    let kafka = shared();
    let topic = kafka.topic("raw", 1);
    kafka.produce(&topic, &[Record::value(0, "a\nb"), Record::default(), Record::value(0, "")]);
    run(async {
        let source = open(table(kafka, &topic, json!({"format": "raw"})), &["line STRING"]);
        let splits = source.splits().await.unwrap();
        let rows = by_split(&collect(&source, starts(&splits), 10).await.unwrap());
        assert_eq!(rows[&0], ["0: a\nb", "1: NULL", "2: "]);
        let error =
            open_in(table(kafka, &topic, json!({"format": "raw"})), &["a STRING", "b STRING"], &[], super::around());
        assert!(error.is_err_and(|error| error.message.contains("one column of BYTES or STRING")));
    });
}

#[test]
fn holes_are_passed_over() {
    let kafka = shared();
    let topic = kafka.topic("holes", 1);
    kafka.produce(&topic, &numbers(0..10, 1));
    kafka.delete_before(&topic, 0, 4);
    kafka.produce_in_transaction(&topic, &numbers(90..95, 1), false);
    kafka.produce_in_transaction(&topic, &numbers(10..12, 1), true);
    let rows = run(read(table(kafka, &topic, json!({}))));
    let numbers: Vec<&str> = rows[0].iter().map(|row| row.split_once(": ").unwrap().1).collect();
    assert_eq!(numbers, ["4", "5", "6", "7", "8", "9", "10", "11"]);
    let places: Vec<&str> = rows[0].iter().map(|row| row.split_once(": ").unwrap().0).collect();
    assert_eq!(places, ["4", "5", "6", "7", "8", "9", "16", "17"], "5 records and a marker were aborted");
    // Only what is aborted: finished all the same, without a row.
    let empty = kafka.topic("only-aborted", 1);
    kafka.produce_in_transaction(&empty, &super::numbers(0..5, 1), false);
    assert_eq!(run(read(table(kafka, &empty, json!({})))), Vec::<Vec<String>>::new());
}

#[test]
fn several_topics_and_explicit_positions() {
    let kafka = shared();
    let (one, two) = (kafka.topic("one", 1), kafka.topic("two", 2));
    kafka.produce(&one, &numbers(0..4, 1));
    kafka.produce(&two, &numbers(10..16, 2));
    run(async {
        let source = open(table(kafka, &format!("{one}; {two}"), json!({})), &["n BIGINT"]);
        let splits = source.splits().await.unwrap();
        let ids: Vec<&str> = splits.iter().map(|split| split.id.as_str()).collect();
        assert_eq!(ids, [format!("{one}-0"), format!("{two}-0"), format!("{two}-1")]);
        let mut begin = starts(&splits);
        begin[1].position = Some(Position::At("2".into()));
        let rows = by_split(&collect(&source, begin, 1000).await.unwrap());
        assert_eq!(rows[&0].len(), 4);
        assert_eq!(rows[&1], ["2: 14"]);
        let mut wrong = starts(&splits);
        wrong[0].position = Some(Position::At("x".into()));
        assert_eq!(collect(&source, wrong, 10).await.unwrap_err().code, "invalid_position");
    });
}

#[test]
fn a_broker_that_comes_back_is_read_on() {
    let kafka = Kafka::start();
    let topic = kafka.topic("restart", 2);
    kafka.produce(&topic, &numbers(0..2_000, 2));
    run(async {
        let more = json!({"scan.bounded.mode": "specific-offsets", "startup.timeout": "200s",
            "scan.bounded.specific-offsets": "partition:0,offset:2000;partition:1,offset:2000"});
        let source = open(table(&kafka, &topic, more), &["n BIGINT"]);
        let splits = source.splits().await.unwrap();
        let reading = collect(&source, starts(&splits), 100);
        let breaking = async {
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            tokio::task::block_in_place(|| {
                kafka.kill();
                kafka.restart();
                kafka.produce(&topic, &numbers(2_000..4_000, 2));
            });
        };
        let (rows, ()) = tokio::join!(reading, breaking);
        let mut all: Vec<i64> = by_split(&rows.unwrap())
            .into_values()
            .flatten()
            .map(|row| row.split_once(": ").unwrap().1.parse().unwrap())
            .collect();
        all.sort();
        assert_eq!(all, (0..4_000).collect::<Vec<i64>>());
    });
}
