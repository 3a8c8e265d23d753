use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt8Array};
use engine::{Batch, CommitKind, RunError, Sink, SinkContext, Waiting, WriterContext};
use graph::SinkConnector;
use serde_json::{Value, json};
use test_support::kafka::{Kafka, Record, shared};

use super::super::KafkaSink;
use super::{Surroundings, around, run};
use crate::Egress;
use crate::testing::column;
use crate::testing::sinks::{LAST, prepare, sink_node, writer};

const EPOCH: CommitKind = CommitKind { checkpoint: false, last: false };

fn batch(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id)));
    let names: ArrayRef = Arc::new(rows.iter().map(|(_, name)| *name).collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("name", names, true)]).unwrap()
}

struct Case<'a> {
    kafka: &'a Kafka,
    topic: &'a str,
    key: &'a [&'a str],
    updating: bool,
    stateless: bool,
    more: Value,
}

fn open(case: &Case, around: Surroundings) -> Result<Arc<dyn Sink>, RunError> {
    let mut options =
        json!({"type": "kafka", "topic": case.topic, "properties.bootstrap.servers": case.kafka.servers()});
    options.as_object_mut().unwrap().extend(case.more.as_object().unwrap().clone());
    let mut node = sink_node(options, &[]);
    node.columns = vec![column("id BIGINT NOT NULL"), column("name STRING")];
    node.primary_key = case.key.iter().map(|name| name.to_string()).collect();
    let SinkConnector::Kafka(options) = &node.connector else { panic!("no kafka") };
    let context = SinkContext {
        run_id: "run".into(),
        bounded: false,
        updating: case.updating,
        stateless: case.stateless,
        operator: "sink".into(),
        durable: false,
    };
    Ok(Arc::new(KafkaSink::open(&node, options, batch(&[]).schema(), context, around)?))
}

fn shown(records: &[Record]) -> Vec<String> {
    let text = |text: &Option<String>| text.clone().unwrap_or("-".into());
    records.iter().map(|record| format!("{} {}", text(&record.key), text(&record.value))).collect()
}

#[test]
fn rows_wait_for_their_epoch_unless_they_follow_from_one_row_alone() {
    let kafka = shared();
    for (stateless, more, at_once) in
        [(true, json!({}), true), (false, json!({}), false), (true, json!({"sink.whole-epochs": "true"}), false)]
    {
        let topic = kafka.topic("epochs", 1);
        let case = Case { kafka, topic: &topic, key: &[], updating: false, stateless, more };
        run(async {
            let sink = open(&case, around()).unwrap();
            let mut one = writer(&sink, &batch(&[]).schema(), 0, 1);
            one.write(Batch::inserts(batch(&[(1, Some("a")), (2, None)]))).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            assert_eq!(kafka.records(&topic).len(), if at_once { 2 } else { 0 }, "{stateless} {}", case.more);
            assert_eq!(prepare(&mut one, 1, EPOCH).await.unwrap().rows, 2);
            let expected = [r#"- {"id":1,"name":"a"}"#, r#"- {"id":2,"name":null}"#];
            assert_eq!(shown(&kafka.records(&topic)), expected);
            assert_eq!(prepare(&mut one, 2, EPOCH).await.unwrap().rows, 0, "an epoch without rows");
            one.write(Batch::inserts(batch(&[(3, None)]))).unwrap();
            assert_eq!(prepare(&mut one, 3, LAST).await.unwrap().rows, 1);
            assert_eq!(kafka.records(&topic).len(), 3);
        });
    }
}

#[test]
fn a_table_with_a_primary_key_is_upserted_with_tombstones() {
    let kafka = shared();
    let topic = kafka.topic("upserts", 3);
    let case = Case { kafka, topic: &topic, key: &["id"], updating: true, stateless: false, more: json!({}) };
    run(async {
        let sink = open(&case, around()).unwrap();
        let mut one = writer(&sink, &batch(&[]).schema(), 0, 1);
        let rows =
            batch(&[(1, Some("a")), (2, Some("a")), (1, Some("a")), (1, Some("b")), (3, Some("x")), (3, Some("x"))]);
        // +I 1, +I 2, -U 1, +U 1, +I 3, -D 3
        one.write(Batch::changes(rows, UInt8Array::from(vec![0, 0, 1, 2, 0, 3]))).unwrap();
        prepare(&mut one, 1, EPOCH).await.unwrap();
        let mut all = shown(&kafka.records(&topic));
        all.sort();
        assert_eq!(all, [r#"{"id":1} {"id":1,"name":"b"}"#, r#"{"id":2} {"id":2,"name":"a"}"#], "3 is as it was");
        // Key 2 goes from one group of the query to another, and the other's change comes first: +I 2, -D 2
        let moved = batch(&[(2, Some("moved")), (2, Some("a"))]);
        one.write(Batch::changes(moved, UInt8Array::from(vec![0, 3]))).unwrap();
        prepare(&mut one, 2, EPOCH).await.unwrap();
        one.write(Batch::changes(batch(&[(2, Some("moved"))]), UInt8Array::from(vec![3]))).unwrap();
        prepare(&mut one, 3, LAST).await.unwrap();
        let of_two: Vec<Record> =
            kafka.records(&topic).into_iter().filter(|record| record.key.as_deref() == Some(r#"{"id":2}"#)).collect();
        let expected = [r#"{"id":2} {"id":2,"name":"a"}"#, r#"{"id":2} {"id":2,"name":"moved"}"#, r#"{"id":2} -"#];
        assert_eq!(shown(&of_two), expected);
        assert!(
            of_two.is_sorted_by(|one, next| one.partition == next.partition && one.offset < next.offset),
            "in the order of changes"
        );
    });
    let scattered = Case { more: json!({"sink.partitioner": "round-robin"}), ..case };
    let error = open(&scattered, around()).err().unwrap();
    assert!(error.code == "invalid_option" && error.message.contains("sink.partitioner"), "{error:?}");
    let without = Case { key: &[], more: json!({}), ..scattered };
    let error = open(&without, around()).err().unwrap();
    assert!(error.code == "sink_takes_no_updates" && error.hint.unwrap().contains("PRIMARY KEY"));
}

#[test]
fn partitions_are_chosen_by_key_in_turn_or_by_worker() {
    let kafka = shared();
    let rows: Vec<(i64, Option<&str>)> = (0..30).map(|id| (id, None)).collect();
    for (more, worker, expected) in [
        (json!({"sink.partitioner": "round-robin"}), 0, [10, 10, 10]),
        (json!({"sink.partitioner": "fixed"}), 4, [0, 30, 0]),
        // As Java's client puts these keys: murmur2.
        (json!({"key.fields": "id", "key.format": "json"}), 0, [0, 0, 0]),
    ] {
        let topic = kafka.topic("partitioners", 3);
        let by_key = more.get("key.fields").is_some();
        let case = Case { kafka, topic: &topic, key: &[], updating: false, stateless: true, more };
        run(async {
            let sink = open(&case, around()).unwrap();
            let mut one = writer(&sink, &batch(&[]).schema(), worker, 5);
            for _ in 0..2 {
                one.write(Batch::inserts(batch(&rows))).unwrap();
            }
            prepare(&mut one, 1, LAST).await.unwrap();
            let records = kafka.records(&topic);
            assert_eq!(records.len(), 60);
            if by_key {
                let place = |key: &str| {
                    let places: Vec<i32> = records
                        .iter()
                        .filter(|record| record.key.as_deref() == Some(key))
                        .map(|record| record.partition)
                        .collect();
                    assert!(places.len() == 2 && places[0] == places[1], "{key}: {places:?}");
                    places[0]
                };
                let places: Vec<i32> = (0..30).map(|id| place(&format!(r#"{{"id":{id}}}"#))).collect();
                assert!((0..3).all(|partition| places.contains(&partition)), "{places:?}");
                return;
            }
            let counts = [0, 1, 2].map(|partition| records.iter().filter(|one| one.partition == partition).count());
            assert_eq!(counts, expected.map(|count| count * 2));
        });
    }
}

#[test]
fn deliveries_that_fail_end_the_run_with_the_record() {
    let kafka = shared();
    let topic = kafka.topic_with("failures", 1, &[("max.message.bytes", "5000")]);
    let failed = |topic: &str, more: Value, bytes: usize, egress: Egress| {
        let case = Case { kafka, topic, key: &["name"], updating: false, stateless: true, more };
        run(async {
            let sink = open(&case, Surroundings { egress, ..around() }).unwrap();
            let mut one = writer(&sink, &batch(&[]).schema(), 0, 1);
            one.write(Batch::inserts(batch(&[(1, Some("small")), (2, Some("long ".repeat(bytes / 5).as_str()))])))
                .unwrap();
            prepare(&mut one, 1, LAST).await.unwrap_err()
        })
    };
    let everywhere = Egress::everywhere;
    for bytes in [20_000, 2_000_000] {
        let error = failed(&topic, json!({}), bytes, everywhere());
        assert!(error.code == "record_too_large" && error.message.contains("long long"), "{bytes}: {error:?}");
        assert!(error.message.len() < 500, "{error:?}");
    }
    let error = failed("no-such-topic", json!({"startup.timeout": "500ms"}), 5, everywhere());
    assert_eq!(error.code, "topic_not_found");
    let error = failed(&topic, json!({}), 5, Egress::default());
    assert_eq!(error.code, "endpoint_not_allowed");
}

#[test]
fn a_sink_says_what_it_waits_for_while_it_opens() {
    let kafka = shared();
    let topic = format!("late-sink-{}", std::process::id());
    let case = Case { kafka, topic: &topic, key: &[], updating: false, stateless: true, more: json!({}) };
    run(async {
        let sink = open(&case, around()).unwrap();
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let (failed, _failures) = tokio::sync::mpsc::unbounded_channel();
        let context = WriterContext {
            worker: 0,
            workers: 1,
            generation: 1,
            schema: batch(&[]).schema(),
            tokio: tokio::runtime::Handle::current(),
            failed,
            waiting: Waiting::new(move |what| drop(said.send(what))),
            place: None,
        };
        let mut one = sink.writer(context).unwrap();
        let what = heard.recv().await.unwrap().unwrap();
        assert!(what.contains(&format!("topic '{topic}' at {}", kafka.servers())), "{what}");
        tokio::task::block_in_place(|| kafka.create(&topic, 1, &[]));
        prepare(&mut one, 1, LAST).await.unwrap();
        let mut last = heard.recv().await.unwrap();
        while let Ok(next) = heard.try_recv() {
            last = next;
        }
        assert_eq!(last, None, "the waiting is over");
    });
}

#[test]
fn a_broker_that_goes_away_and_comes_back_gets_everything() {
    let kafka = Kafka::start();
    let topic = kafka.topic("away", 1);
    let case = Case { kafka: &kafka, topic: &topic, key: &[], updating: false, stateless: true, more: json!({}) };
    run(async {
        let sink = open(&case, around()).unwrap();
        let mut one = writer(&sink, &batch(&[]).schema(), 0, 1);
        one.write(Batch::inserts(batch(&[(1, None)]))).unwrap();
        prepare(&mut one, 1, EPOCH).await.unwrap();
        tokio::task::block_in_place(|| kafka.kill());
        let rows: Vec<(i64, Option<&str>)> = (2..500).map(|id| (id, None)).collect();
        one.write(Batch::inserts(batch(&rows))).unwrap();
        let restarting = async { tokio::task::block_in_place(|| kafka.restart()) };
        let (prepared, ()) = tokio::join!(prepare(&mut one, 2, LAST), restarting);
        assert_eq!(prepared.unwrap().rows, 498);
        let values: Vec<String> = kafka.records(&topic).into_iter().filter_map(|record| record.value).collect();
        assert_eq!(values, (1..500).map(|id| format!(r#"{{"id":{id},"name":null}}"#)).collect::<Vec<_>>());
    });
    // Nobody comes back: the delivery fails in its time.
    let more = json!({"properties.delivery.timeout.ms": 2000});
    let case = Case { kafka: &kafka, topic: &topic, key: &["id"], updating: false, stateless: true, more };
    run(async {
        let sink = open(&case, around()).unwrap();
        let mut one = writer(&sink, &batch(&[]).schema(), 0, 1);
        prepare(&mut one, 1, EPOCH).await.unwrap();
        tokio::task::block_in_place(|| kafka.stop());
        one.write(Batch::inserts(batch(&[(7, None)]))).unwrap();
        let error = prepare(&mut one, 2, LAST).await.unwrap_err();
        assert!(error.code == "delivery_failed" && error.message.contains(r#"key {"id":7}"#), "{error:?}");
    });
}
