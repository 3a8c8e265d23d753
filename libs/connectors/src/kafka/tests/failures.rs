use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::{Position, RunError, Source, SourceContext, SourceEvent, SourceOutput, SplitStart, Waiting};
use serde_json::{Value, json};
use test_support::kafka::{Kafka, PLAIN_LOGIN, Record, SCRAM_LOGIN, shared};
use test_support::process::free_port;

use super::{Surroundings, around, numbers, open, open_in, run, table};
use crate::Egress;
use crate::testing::{by_split, collect, starts, texts};

fn listed(options: Value, around: Surroundings) -> Result<usize, RunError> {
    listed_and_heard(options, around, &Waiting::new(|_| {}))
}

fn listed_and_heard(options: Value, around: Surroundings, waiting: &Waiting) -> Result<usize, RunError> {
    let source = open_in(options, &["n BIGINT"], &[], around)?;
    run(async { source.list(waiting).await.map(|splits| splits.len()) })
}

#[test]
fn what_is_not_there_is_waited_for_and_then_named() {
    let kafka = shared();
    let said: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
    let hear = said.clone();
    let waiting = Waiting::new(move |what| hear.lock().unwrap().push(what));
    let error = listed_and_heard(table(kafka, "no-such-topic", json!({"startup.timeout": "1s"})), around(), &waiting)
        .unwrap_err();
    assert_eq!(error.code, "topic_not_found");
    assert!(error.message.contains("'no-such-topic'") && error.message.contains(&kafka.servers()), "{error:?}");
    assert!(said.lock().unwrap()[0].as_ref().unwrap().contains("topic 'no-such-topic' at"), "{said:?}");

    let nobody = format!("127.0.0.1:{}", free_port());
    let begun = Instant::now();
    let options = json!({"properties.bootstrap.servers": nobody, "startup.timeout": "2s"});
    let error = listed(table(kafka, "t", options), around()).unwrap_err();
    assert!(error.code == "kafka_unreachable" && begun.elapsed() < Duration::from_secs(10), "{error:?}");
    assert!(error.message.contains("Connection refused") && error.message.contains(&nobody), "{error:?}");

    // A topic that comes late is found.
    let topic = format!("late-{}", std::process::id());
    let source = open(table(kafka, &topic, json!({})), &["n BIGINT"]);
    said.lock().unwrap().clear();
    run(async {
        let making = tokio::task::spawn_blocking({
            let topic = topic.clone();
            move || {
                std::thread::sleep(Duration::from_millis(700));
                kafka.create(&topic, 3, &[]);
            }
        });
        assert_eq!(source.list(&waiting).await.unwrap().len(), 3);
        making.await.unwrap();
    });
    let said = said.lock().unwrap();
    assert!(said.len() >= 2 && said.last() == Some(&None), "the waiting is over: {said:?}");
}

#[test]
fn logins_and_certificates_are_right_or_named() {
    let kafka = shared();
    let topic = kafka.topic("secure", 2);
    let login = |mechanism: &str, (user, password): (&str, &str)| {
        json!({"properties.bootstrap.servers": kafka.sasl_servers(), "properties.security.protocol": "SASL_PLAINTEXT",
            "properties.sasl.mechanism": mechanism, "properties.sasl.username": user,
            "properties.sasl.password": password, "startup.timeout": "10s"})
    };
    let tls = |ca: String| {
        json!({"properties.bootstrap.servers": kafka.tls_servers(), "properties.security.protocol": "SSL",
            "properties.ssl.ca.pem": ca, "startup.timeout": "10s"})
    };
    for good in [login("PLAIN", PLAIN_LOGIN), login("SCRAM-SHA-256", SCRAM_LOGIN), tls(kafka.ca())] {
        assert_eq!(
            listed(table(kafka, &topic, good.clone()), around()).map_err(|error| error.message),
            Ok(2),
            "{good}"
        );
    }
    for (bad, part) in [
        (login("PLAIN", (PLAIN_LOGIN.0, "wrong-canary-9")), "uthentication"),
        (login("SCRAM-SHA-256", (SCRAM_LOGIN.0, "wrong-canary-9")), "uthentication"),
        (tls(kafka.other_ca()), "certificate"),
    ] {
        let begun = Instant::now();
        let error = listed(table(kafka, &topic, bad.clone()), around()).unwrap_err();
        assert!(error.code == "authentication_failed" && error.message.contains(part), "{bad}: {error:?}");
        assert!(begun.elapsed() < Duration::from_secs(9), "told at once: {:?}", begun.elapsed());
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
    // Rows come through a login, too.
    kafka.produce(&topic, &numbers(0..10, 2));
    run(async {
        let source = open(table(kafka, &topic, login("SCRAM-SHA-256", SCRAM_LOGIN)), &["n BIGINT"]);
        let splits = source.splits().await.unwrap();
        let rows = by_split(&collect(&source, starts(&splits), 100).await.unwrap());
        assert_eq!(rows.values().map(Vec::len).sum::<usize>(), 10);
    });
}

#[test]
fn connections_go_only_where_they_may() {
    let kafka = shared();
    let topic = kafka.topic("egress", 1);
    let none = Surroundings { egress: Egress::default(), ..around() };
    let error = listed(table(kafka, &topic, json!({})), none).unwrap_err();
    assert!(error.code == "endpoint_not_allowed" && error.message.contains(&kafka.servers()), "{error:?}");
    let one = Egress { allowed: vec![kafka.servers()], ..Egress::default() };
    assert_eq!(listed(table(kafka, &topic, json!({})), Surroundings { egress: one, ..around() }).unwrap(), 1);
    // The name is allowed, and what it advertises is elsewhere: here, another port of the same machine.
    let other = Egress { allowed: vec![kafka.tls_servers()], ..Egress::default() };
    let error = listed(table(kafka, &topic, json!({})), Surroundings { egress: other, ..around() }).unwrap_err();
    assert_eq!(error.code, "endpoint_not_allowed");
    let metadata = json!({"properties.bootstrap.servers": "169.254.169.254:80"});
    let error = listed(table(kafka, &topic, metadata), around()).unwrap_err();
    assert_eq!(error.code, "endpoint_not_allowed");
}

/// Reads an unbounded table until `enough`, or its failure; gives the rows by split and the splits that were absent.
async fn follow(
    source: &Arc<dyn Source>,
    mut step: impl FnMut(usize) -> bool,
) -> (Vec<(u32, String)>, Vec<u32>, Result<(), RunError>) {
    let splits = starts(&source.splits().await.unwrap());
    follow_from(source, splits, &mut step).await
}

async fn follow_from(
    source: &Arc<dyn Source>,
    splits: Vec<SplitStart>,
    step: &mut impl FnMut(usize) -> bool,
) -> (Vec<(u32, String)>, Vec<u32>, Result<(), RunError>) {
    let (out, mut events) = SourceOutput::for_tests();
    let reading = source.clone().read(SourceContext { splits, batch_rows: 100, waiting: Waiting::new(|_| {}) }, out);
    let (mut rows, mut absent) = (vec![], vec![]);
    let listening = async {
        while let Some(event) = events.recv().await {
            match event {
                SourceEvent::Rows { split, rows: batch, .. } => {
                    rows.extend(texts(&batch).into_iter().map(|row| (split, row)));
                    if tokio::task::block_in_place(|| !step(rows.len())) {
                        return;
                    }
                }
                SourceEvent::Absent { split } => absent.push(split),
                _ => {}
            }
        }
        // The reader's own result says why.
        futures::future::pending::<()>().await;
    };
    let result = tokio::select! {
        result = reading => result,
        () = listening => Ok(()),
    };
    (rows, absent, result)
}

fn live(kafka: &Kafka, topic: &str) -> Arc<dyn Source> {
    let more = json!({"scan.bounded.mode": "unbounded", "scan.topic-partition-discovery.interval": "300ms"});
    open(table(kafka, topic, more), &["n BIGINT"])
}

#[test]
fn partitions_that_come_later_are_read_from_their_beginning() {
    let kafka = shared();
    let topic = kafka.topic("grows", 1);
    kafka.produce(&topic, &numbers(0..5, 1));
    let mut grown = false;
    let (rows, absent, result) = run(follow(&live(kafka, &topic), |seen| {
        if seen == 5 && !grown {
            grown = true;
            kafka.add_partitions(&topic, 3);
            kafka.produce(&topic, &[Record::value(2, r#"{"n":100}"#), Record::value(1, r#"{"n":101}"#)]);
            kafka.produce(&topic, &numbers(5..7, 1));
        }
        seen < 9
    }));
    result.unwrap();
    assert_eq!(absent, (1..17).collect::<Vec<u32>>());
    let mut rows = rows;
    rows.sort();
    let old = (0..7).map(|n| (0, n.to_string()));
    assert_eq!(rows, old.chain([(1, "101".into()), (2, "100".into())]).collect::<Vec<_>>());

    // A later run that begins where this one began reads them too, wherever it would begin by itself.
    let topic = kafka.topic("grows-again", 1);
    kafka.produce(&topic, &numbers(0..5, 1));
    let more = json!({"scan.bounded.mode": "unbounded", "scan.startup.mode": "latest-offset"});
    let latest = open(table(kafka, &topic, more), &["n BIGINT"]);
    let begun: Vec<_> = run(latest.splits()).unwrap().iter().map(|split| latest.start(split)).collect();
    assert_eq!((begun[0].as_deref(), begun[1].as_deref()), (Some("5"), Some("0")));
    assert!(latest.is_nothing(&format!("{topic}-7"), "0"), "a bounded run lists no such partition");
    assert!(!latest.is_nothing(&format!("{topic}-7"), "3") && !latest.is_nothing("other-7", "0"));
    let from_start = |source: &Arc<dyn Source>| {
        let mut again = starts(&run(source.splits()).unwrap());
        for (start, begun) in again.iter_mut().zip(&begun) {
            start.position = begun.clone().map(Position::At);
        }
        again
    };
    let source = live(kafka, &topic);
    let mut step = |seen: usize| {
        if seen == 1 {
            kafka.add_partitions(&topic, 2);
            kafka.produce(&topic, &[Record::value(1, r#"{"n":8}"#)]);
        }
        seen < 2
    };
    let splits = from_start(&source);
    kafka.produce(&topic, &[Record::value(0, r#"{"n":7}"#)]);
    let (rows, absent, result) = run(follow_from(&source, splits, &mut step));
    result.unwrap();
    assert_eq!((rows, absent[0]), (vec![(0, "7".into()), (1, "8".into())], 1));
    // By now it is there.
    let source = open(table(kafka, &topic, json!({})), &["n BIGINT"]);
    let mut splits = from_start(&source);
    splits.truncate(2);
    let rows = run(async { by_split(&collect(&source, splits, 100).await.unwrap()) });
    assert_eq!(rows[&1][0], "0: 8", "{rows:?}");
}

#[test]
fn a_reader_whom_the_brokers_do_not_let_in_any_more_says_so() {
    let kafka = shared();
    let topic = kafka.topic("silent", 1);
    let more = json!({"scan.bounded.mode": "unbounded", "scan.topic-partition-discovery.interval": "200ms",
        "startup.timeout": "1s"});
    // Partitions that do not exist yet: nothing is looked at when the reader begins.
    let splits = || {
        let source = open(table(kafka, &topic, more.clone()), &["n BIGINT"]);
        starts(&run(source.splits()).unwrap()).split_off(1)
    };
    let failure = |options: Value, around: Surroundings| {
        let source = open_in(options, &["n BIGINT"], &[], around).unwrap();
        let (_, _, result) = run(follow_from(&source, splits(), &mut |_| true));
        result.unwrap_err()
    };
    let error = failure(table(kafka, &topic, more.clone()), Surroundings { egress: Egress::default(), ..around() });
    assert_eq!(error.code, "endpoint_not_allowed", "{error:?}");
    let mut login = more.as_object().unwrap().clone();
    login.extend(
        json!({"properties.bootstrap.servers": kafka.sasl_servers(), "properties.security.protocol": "SASL_PLAINTEXT",
            "properties.sasl.mechanism": "PLAIN", "properties.sasl.username": PLAIN_LOGIN.0,
            "properties.sasl.password": "hunter2"})
        .as_object()
        .unwrap()
        .clone(),
    );
    let error = failure(table(kafka, &topic, login.into()), around());
    assert!(error.code == "authentication_failed" && !error.message.contains("hunter2"), "{error:?}");
}

#[test]
fn a_topic_that_goes_or_is_made_anew_ends_the_run() {
    let kafka = shared();
    for anew in [None, Some(2), Some(1)] {
        let topic = kafka.topic("goes", 2);
        kafka.produce(&topic, &numbers(0..10, 2));
        let mut done = false;
        let (rows, _, result) = run(follow(&live(kafka, &topic), |seen| {
            if seen == 10 && !done {
                done = true;
                kafka.delete(&topic);
                if let Some(partitions) = anew {
                    kafka.create(&topic, partitions, &[]);
                    kafka.produce(&topic, &numbers(50..90, partitions));
                }
            }
            true
        }));
        let error = result.unwrap_err();
        assert_eq!(error.code, "data_loss_detected", "{anew:?}: {error:?}");
        // Who notices first depends on when it is looked at.
        let ways: &[&str] = if anew.is_some() { &["made anew", "gone back"] } else { &["deleted"] };
        assert!(error.message.contains(&topic), "{anew:?}: {error:?}");
        assert!(ways.iter().any(|way| error.message.contains(way)), "{anew:?}: {error:?}");
        assert!(rows.len() >= 10);
    }
}

#[test]
fn offsets_that_are_gone_or_not_there_yet_end_the_run_with_numbers() {
    let kafka = shared();
    let topic = kafka.topic("range", 1);
    kafka.produce(&topic, &numbers(0..20, 1));
    kafka.delete_before(&topic, 0, 8);
    run(async {
        let source = open(table(kafka, &topic, json!({})), &["n BIGINT"]);
        let splits = source.splits().await.unwrap();
        for (position, parts) in
            [("3", ["begins at offset 8", "5 offsets are gone"]), ("25", ["ends at offset 20", "25 was to be read"])]
        {
            let mut begin = starts(&splits);
            begin[0].position = Some(Position::At(position.into()));
            begin[0].split.spec["end"] = 100.into();
            let error = collect(&source, begin, 100).await.unwrap_err();
            assert_eq!(error.code, "data_loss_detected");
            assert!(parts.iter().all(|part| error.message.contains(part)), "{error:?}");
        }
    });
}

#[test]
fn records_that_are_too_long_are_bad_and_large_ones_are_not() {
    let kafka = shared();
    let topic = kafka.topic_with("large", 1, &[("max.message.bytes", "20000000")]);
    let large = |bytes: usize| Record::value(0, format!(r#"{{"n":1,"rest":"{}"}}"#, "x".repeat(bytes)));
    kafka.produce(&topic, &[large(3 << 20), large(17 << 20), large(10)]);
    run(async {
        let more = json!({"properties.fetch.message.max.bytes": 20_000_000});
        let source = open(table(kafka, &topic, more), &["n BIGINT"]);
        let splits = source.splits().await.unwrap();
        let rows = by_split(&collect(&source, starts(&splits), 100).await.unwrap());
        assert_eq!(rows[&0], ["0: 1", "1! record_too_long", "2: 1"]);
    });
}
