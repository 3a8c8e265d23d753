//! Exactly once: what is staged is seen with its commit, and once, wherever a commit is broken off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt8Array};
use engine::runtime::Place;
use engine::{
    Batch, Commits, Committable, RunError, Sink, SinkCommitter, SinkContext, SinkWriter, Waiting, WriterContext,
};
use graph::SinkConnector;
use serde_json::{Value, json};
use state::Files;
use state::files::MemoryFiles;
use test_support::kafka::{Kafka, Record, shared};

use super::super::KafkaSink;
use super::super::commit::Transactions;
use super::{around, run};
use crate::testing::column;
use crate::testing::sinks::{CHECKPOINT, alone, prepare, sink_node};

/// A job with one sink, as its attempts see it.
struct Job {
    kafka: &'static Kafka,
    topic: String,
    files: Arc<MemoryFiles>,
    id: String,
    key: &'static [&'static str],
    more: Value,
}

impl Job {
    fn new(partitions: i32) -> Job {
        Job::on(shared(), partitions)
    }

    fn on(kafka: &'static Kafka, partitions: i32) -> Job {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let topic = kafka.topic("exactly", partitions);
        let id = format!("job-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Job { kafka, topic, files: Arc::default(), id, key: &[], more: json!({}) }
    }

    /// Of another name, or with another topic, beside it.
    fn other(&self, id: String, topic: String) -> Job {
        Job { id, topic, files: self.files.clone(), more: self.more.clone(), ..*self }
    }

    fn place(&self) -> Place {
        Place { files: self.files.clone(), job: self.id.clone(), generation: 1 }
    }

    fn try_sink(&self, durable: bool) -> Result<KafkaSink, RunError> {
        let mut node = self.options();
        node.columns = vec![column("id BIGINT NOT NULL"), column("name STRING")];
        node.primary_key = self.key.iter().map(|name| name.to_string()).collect();
        let SinkConnector::Kafka(options) = &node.connector else { panic!("no kafka") };
        let context = SinkContext {
            run_id: "run".into(),
            bounded: false,
            updating: !self.key.is_empty(),
            stateless: self.key.is_empty(),
            operator: "sink out".into(),
            durable,
        };
        KafkaSink::open(&node, options, batch(0..0).schema(), context, around())
    }

    fn options(&self) -> graph::Sink {
        let mut options = json!({"type": "kafka", "topic": self.topic, "delivery": "exactly_once",
            "properties.bootstrap.servers": self.kafka.servers()});
        options.as_object_mut().unwrap().extend(self.more.as_object().unwrap().clone());
        sink_node(options, &[])
    }

    fn check(&self) -> Result<(), RunError> {
        let SinkConnector::Kafka(options) = &self.options().connector else { panic!("no kafka") };
        super::super::check_broker("out", options, &around())
    }

    fn sink(&self) -> KafkaSink {
        self.try_sink(true).unwrap()
    }

    fn writer(&self, worker: usize) -> Box<dyn SinkWriter> {
        let (failed, _) = tokio::sync::mpsc::unbounded_channel();
        let context = WriterContext {
            worker,
            workers: 4,
            generation: 1,
            schema: batch(0..0).schema(),
            tokio: tokio::runtime::Handle::current(),
            failed,
            waiting: Waiting::new(|_| {}),
            place: Some(self.place()),
        };
        self.sink().writer(context).unwrap()
    }

    /// The committer of an attempt that begins after `previous`.
    fn committer(&self, previous: Option<u64>) -> Transactions {
        let mut committer = self.sink().transactions();
        committer.keep(&self.place(), previous, &alone());
        committer
    }

    /// That of an attempt which goes on from an epoch that is decided, and not known to be committed.
    async fn restored(&self, previous: Option<u64>, epoch: u64, staged: &[Committable]) -> Transactions {
        let mut committer = self.committer(previous);
        committer.restore(epoch, staged.to_vec()).await.unwrap();
        committer
    }

    fn records(&self) -> Vec<Record> {
        self.kafka.records(&self.topic)
    }

    /// The ids of all rows that can be seen, by partition, in order.
    fn ids(&self) -> Vec<i64> {
        let id = |record: &Record| {
            let value: Value = serde_json::from_str(record.value.as_ref().unwrap()).unwrap();
            value["id"].as_i64().unwrap()
        };
        self.records().iter().map(id).collect()
    }
}

fn batch(ids: std::ops::Range<i64>) -> RecordBatch {
    named(&ids.map(|id| (id, None)).collect::<Vec<_>>())
}

fn named(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id)));
    let names: ArrayRef = Arc::new(rows.iter().map(|(_, name)| *name).collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("name", names, true)]).unwrap()
}

/// Writes rows and prepares them for a checkpoint.
async fn stage(writer: &mut Box<dyn SinkWriter>, epoch: u64, ids: std::ops::Range<i64>) -> Vec<Committable> {
    writer.write(Batch::inserts(batch(ids))).unwrap();
    vec![prepare(writer, epoch, CHECKPOINT).await.unwrap()]
}

/// Stages in the committer and commits, as the engine does.
async fn commit(
    committer: &mut Transactions,
    epoch: u64,
    staged: Vec<Committable>,
) -> Result<Vec<Committable>, RunError> {
    let staged = committer.stage(epoch, staged).await?;
    committer.commit(epoch, CHECKPOINT, staged.clone()).await?;
    Ok(staged)
}

#[test]
fn rows_are_seen_once_and_with_their_checkpoint() {
    let job = Job::new(1);
    run(async {
        assert_eq!(job.sink().commits(), Commits::EveryCheckpoint);
        let mut writers = [job.writer(0), job.writer(1)];
        let mut committer = job.committer(None);
        let mut staged = stage(&mut writers[0], 5, 0..3).await;
        staged.extend(stage(&mut writers[1], 5, 3..5).await);
        assert_eq!(staged.iter().map(|one| one.rows).sum::<u64>(), 5);
        let payload = String::from_utf8(staged[0].payload.clone()).unwrap();
        assert!(staged[0].files.len() == 1 && !payload.contains(&staged[0].files[0].path), "files can be moved");
        assert_eq!(job.records(), [], "what is staged cannot be seen");
        let staged = commit(&mut committer, 5, staged).await.unwrap();
        assert_eq!(job.ids(), [0, 1, 2, 3, 4]);
        committer.commit(5, CHECKPOINT, staged).await.unwrap();
        assert_eq!(job.ids(), [0, 1, 2, 3, 4], "a repeated commit changes nothing");
        // Without rows the marker goes on: it is as young as the newest checkpoint.
        for epoch in [15, 25] {
            let empty = vec![prepare(&mut writers[0], epoch, CHECKPOINT).await.unwrap()];
            assert!(empty[0].rows == 0 && empty[0].files.is_empty() && !empty[0].payload.is_empty());
            commit(&mut committer, epoch, empty).await.unwrap();
            assert_eq!(committer.shown(&job.id).await, Some(epoch));
        }
        let staged = stage(&mut writers[1], 35, 5..7).await;
        commit(&mut committer, 35, staged).await.unwrap();
        assert_eq!(job.ids(), [0, 1, 2, 3, 4, 5, 6]);
    });
    let error = job.try_sink(false).err().unwrap();
    assert!(
        error.code == "guarantee_not_available" && error.hint.unwrap().contains("server"),
        "a run without checkpoints"
    );
}

#[test]
fn a_commit_that_is_broken_off_anywhere_is_repeated_to_the_same_end() {
    let job = Job::new(3);
    run(async {
        let mut writer = job.writer(0);
        let mut previous = None;
        let mut expected = 0;
        for (at, kill) in ["before", "open", "after", "open", "open twice"].into_iter().enumerate() {
            let epoch = 10 * (at as u64 + 1);
            let broken = job.restored(previous, epoch, &[]).await;
            let mut staged = stage(&mut writer, epoch, expected..expected + 400).await;
            // What an attempt that committed the epoch before would say.
            let mut sayer = job.restored(previous, epoch, &history(&job)).await;
            staged = sayer.stage(epoch, staged).await.unwrap();
            match kill {
                "before" => {}
                "open" => broken.crash(broken.break_off(epoch, &staged).await).await,
                "open twice" => {
                    broken.crash(broken.break_off(epoch, &staged).await).await;
                    broken.crash(broken.break_off(epoch, &staged).await).await;
                }
                _ => job.committer(None).commit(epoch, CHECKPOINT, staged.clone()).await.unwrap(),
            }
            drop(broken);
            if kill != "after" {
                assert_eq!(job.ids().len(), expected as usize, "{kill}: nothing is seen before the commit");
            }
            let mut next = job.restored(previous, epoch, &staged).await;
            next.commit(epoch, CHECKPOINT, staged).await.unwrap();
            expected += 400;
            let mut ids = job.ids();
            ids.sort_unstable();
            assert_eq!(ids, (0..expected).collect::<Vec<_>>(), "{kill}");
            previous = Some(epoch);
        }
        let number = |record: &Record| {
            serde_json::from_str::<Value>(record.value.as_ref().unwrap()).unwrap()["id"].as_i64().unwrap()
        };
        // Where the writer had put them, which chose once for each batch.
        let chosen = |at: i64| {
            job.records().iter().filter(|one| number(one) / 400 == at).map(|one| one.partition).collect::<BTreeSet<_>>()
        };
        assert_eq!((0..5).map(|at| chosen(at).len()).collect::<Vec<_>>(), [1; 5]);
        for partition in 0..3 {
            let of_partition: Vec<Record> =
                job.records().into_iter().filter(|record| record.partition == partition).collect();
            let ids: Vec<i64> = of_partition.iter().map(number).collect();
            assert!(ids.is_sorted() && !ids.is_empty(), "{ids:?}");
        }
    });
}

/// What a checkpoint of the job left, without rows.
fn history(job: &Job) -> Vec<Committable> {
    let target = format!("topic '{}'", job.topic);
    let payload = json!({"target": target, "records": [], "history": {"job": job.id, "previous": null}});
    vec![Committable { rows: 0, payload: payload.to_string().into_bytes(), files: vec![] }]
}

#[test]
fn attempts_that_are_left_behind_in_their_commit_write_nothing_twice() {
    let job = Job::new(2);
    run(async {
        let mut writer = job.writer(0);
        let mut previous = None;
        for round in 0..14u64 {
            let epoch = 10 * (round + 1);
            let staged = stage(&mut writer, epoch, round as i64 * 500..(round as i64 + 1) * 500).await;
            let mut left = job.restored(previous, epoch, &history(&job)).await;
            let staged = left.stage(epoch, staged).await.unwrap();
            // The calls that are under way go on without it.
            let patience = Duration::from_millis(round * 17);
            let _ = tokio::time::timeout(patience, left.commit(epoch, CHECKPOINT, staged.clone())).await;
            let mut next = job.restored(previous, epoch, &staged).await;
            next.commit(epoch, CHECKPOINT, staged).await.unwrap();
            previous = Some(epoch);
        }
        let mut ids = job.ids();
        ids.sort_unstable();
        assert_eq!(ids, (0..14 * 500).collect::<Vec<_>>());
    });
}

#[test]
fn an_attempt_that_was_overtaken_writes_nothing() {
    let job = Job::new(1);
    run(async {
        let mut writer = job.writer(0);
        let mut old = job.committer(None);
        let first = stage(&mut writer, 5, 0..3).await;
        let first = commit(&mut old, 5, first).await.unwrap();
        // Another goes on from there.
        let mut new = job.restored(Some(5), 5, &first).await;
        let staged = stage(&mut writer, 10_005, 3..5).await;
        commit(&mut new, 10_005, staged).await.unwrap();
        // The old one has a producer of which it has no doubt.
        let late = stage(&mut writer, 15, 100..103).await;
        let error = commit(&mut old, 15, late).await.unwrap_err();
        assert!(error.code == "fenced" && error.message.contains("10005"), "{error:?}");
        assert_eq!(job.ids(), [0, 1, 2, 3, 4]);
        // Which takes nothing from the new one.
        let staged = stage(&mut writer, 10_015, 5..6).await;
        commit(&mut new, 10_015, staged).await.unwrap();
        assert_eq!(job.ids(), [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_marker_that_is_lost_or_unknown_stops_the_sink() {
    let job = Job::new(1);
    run(async {
        let mut writer = job.writer(0);
        // It had an epoch, and the topic knows of none.
        let mut lost = job.restored(Some(5), 5, &history(&job)).await;
        let staged = stage(&mut writer, 15, 0..2).await;
        let error = commit(&mut lost, 15, staged).await.unwrap_err();
        assert!(error.code == "sink_state_lost" && error.message.contains(&job.id), "{error:?}");
        assert!(!error.is_retryable());
        assert!(job.ids().is_empty());
        // A sink that came after the checkpoint has lost nothing, nor has the sink of a job that was made of another's.
        let mut added = job.committer(Some(5));
        let staged = stage(&mut writer, 15, 0..2).await;
        commit(&mut added, 15, staged).await.unwrap();
        assert_eq!(job.ids(), [0, 1]);
        let copy = job.other(format!("{}-copy", job.id), job.topic.clone());
        let mut copied = copy.restored(Some(5), 5, &history(&job)).await;
        let staged = stage(&mut writer, 15, 2..3).await;
        commit(&mut copied, 15, staged).await.unwrap();
        assert_eq!(job.ids(), [0, 1, 2]);
        // Nor has one that wrote at least once until then.
        let weaker = job.other(format!("{}-weaker", job.id), job.topic.clone());
        let mut stronger = weaker.restored(None, 5, &[Committable::default()]).await;
        stronger.commit(5, CHECKPOINT, vec![Committable::default()]).await.unwrap();
        let staged = stage(&mut writer, 15, 3..3).await;
        commit(&mut stronger, 15, staged).await.unwrap();
        // The job begins afresh: what an older line of runs left is no obstacle.
        let mut afresh = job.committer(None);
        let staged = stage(&mut writer, 25, 3..4).await;
        commit(&mut afresh, 25, staged).await.unwrap();
        // It goes back to an older checkpoint than the topic shows.
        let mut back = job.restored(Some(15), 15, &history(&job)).await;
        let staged = stage(&mut writer, 10_025, 4..5).await;
        let error = commit(&mut back, 10_025, staged).await.unwrap_err();
        assert!(error.code == "sink_state_lost" && error.message.contains("shows epoch 25"), "{error:?}");
        assert_eq!(job.ids(), [0, 1, 2, 3]);
    });
}

#[test]
fn a_checkpoint_of_upserts_is_what_became_of_each_key_where_its_key_belongs() {
    let job = Job { key: &["id"], ..Job::new(3) };
    run(async {
        let mut one = job.writer(0);
        let mut committer = job.committer(None);
        one.write(Batch::inserts(batch(0..30))).unwrap();
        let staged = vec![prepare(&mut one, 1, CHECKPOINT).await.unwrap()];
        commit(&mut committer, 1, staged).await.unwrap();
        // -D 3; -U 4, +U 4; +I 50, -D 50
        let rows = named(&[(3, None), (4, None), (4, Some("new")), (50, Some("x")), (50, Some("x"))]);
        one.write(Batch::changes(rows, UInt8Array::from(vec![3, 1, 2, 0, 3]))).unwrap();
        let staged = vec![prepare(&mut one, 2, CHECKPOINT).await.unwrap()];
        commit(&mut committer, 2, staged).await.unwrap();
    });
    let records = job.records();
    assert_eq!(records.len(), 32);
    let of = |key: &str| records.iter().filter(|record| record.key.as_deref() == Some(key)).collect::<Vec<_>>();
    let three = of(r#"{"id":3}"#);
    assert!(three.len() == 2 && three[1].value.is_none() && three[0].partition == three[1].partition, "{three:?}");
    let four = of(r#"{"id":4}"#);
    assert_eq!(four[1].value.as_deref(), Some(r#"{"id":4,"name":"new"}"#));
    // The same keys go where the client itself puts them.
    let more = json!({"delivery": "at_least_once"});
    let plain = Job { more, key: &["id"], ..Job::new(3) };
    run(async {
        let mut one = plain.writer(0);
        one.write(Batch::inserts(batch(0..30))).unwrap();
        prepare(&mut one, 1, CHECKPOINT).await.unwrap();
    });
    let there = plain.records();
    assert_eq!(there.len(), 30);
    for record in there {
        assert_eq!(of(record.key.as_ref().unwrap())[0].partition, record.partition, "{record:?}");
    }
}

#[test]
fn records_go_to_the_partitions_that_were_chosen_when_they_were_staged() {
    for (partitioner, expected) in [("round-robin", [10, 10, 10]), ("fixed", [0, 30, 0])] {
        let job = Job { more: json!({"sink.partitioner": partitioner}), ..Job::new(3) };
        run(async {
            let staged = stage(&mut job.writer(1), 1, 0..30).await;
            commit(&mut job.committer(None), 1, staged).await.unwrap();
        });
        let records = job.records();
        let counts = [0, 1, 2].map(|partition| records.iter().filter(|one| one.partition == partition).count());
        assert_eq!(counts, expected, "{partitioner}");
    }
}

#[test]
fn a_large_log_is_sent_whole_and_a_damaged_one_is_refused_by_name() {
    let job = Job::new(2);
    run(async {
        let mut writer = job.writer(0);
        let mut state = 7u64;
        let mut noise = || {
            let next = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                char::from(b'!' + ((state >> 32) % 90) as u8)
            });
            next.filter(|letter| !matches!(letter, '"' | '\\')).take(50_000).collect::<String>()
        };
        let names: Vec<String> = (0..900).map(|_| noise()).collect();
        for (at, names) in names.chunks(50).enumerate() {
            let rows: Vec<(i64, Option<&str>)> =
                names.iter().enumerate().map(|(n, name)| ((at * 50 + n) as i64, Some(name.as_str()))).collect();
            writer.write(Batch::inserts(named(&rows))).unwrap();
        }
        let staged = vec![prepare(&mut writer, 1, CHECKPOINT).await.unwrap()];
        assert!(staged[0].files.len() > 2 && staged[0].rows == 900, "{} files", staged[0].files.len());
        // A byte of the second file is another.
        let damaged = &staged[0].files[1];
        let content = job.files.read(&damaged.path).await.unwrap().unwrap();
        let mut other = content.to_vec();
        other[1000] ^= 1;
        job.files.write(&damaged.path, other.into()).await.unwrap();
        let mut committer = job.committer(None);
        let error = commit(&mut committer, 1, staged.clone()).await.unwrap_err();
        assert!(error.code == "checkpoint_corrupt" && error.message.contains(&damaged.path), "{error:?}");
        assert_eq!(job.records().len(), 0);
        job.files.remove(&damaged.path).await.unwrap();
        let error = commit(&mut committer, 1, staged.clone()).await.unwrap_err();
        assert!(error.code == "checkpoint_corrupt" && error.message.contains(&damaged.path), "{error:?}");
        job.files.write(&damaged.path, content).await.unwrap();
        commit(&mut committer, 1, staged).await.unwrap();
        let mut ids = job.ids();
        ids.sort_unstable();
        assert_eq!(ids, (0..900).collect::<Vec<_>>());
        for record in job.records() {
            let value: Value = serde_json::from_str(record.value.as_ref().unwrap()).unwrap();
            assert_eq!(value["name"].as_str().unwrap(), names[value["id"].as_u64().unwrap() as usize]);
        }
    });
}

#[test]
fn what_the_broker_or_the_topic_cannot_do_is_told() {
    let job = Job { more: json!({"properties.transaction.timeout.ms": 1_000_000}), ..Job::new(1) };
    let gone = json!({"properties.bootstrap.servers": "127.0.0.1:1", "properties.transaction.timeout.ms": 1_000_000});
    let (usual, gone) = (Job::new(1), Job { more: gone, ..Job::new(1) });
    run(async {
        let mut writer = job.writer(0);
        let staged = stage(&mut writer, 1, 0..1).await;
        let error = commit(&mut job.committer(None), 1, staged).await.unwrap_err();
        assert!(error.code == "guarantee_not_available" && error.message.contains("1000000 ms"), "{error:?}");
        // Already when the job is submitted, with the broker's number.
        let error = job.check().unwrap_err();
        assert!(error.code == "guarantee_not_available" && error.message.contains("ms is 900000"), "{error:?}");
        assert_eq!(usual.check(), Ok(()));
        assert_eq!(gone.check(), Ok(()), "nobody tells");
    });
    let small = shared().topic_with("exactly-small", 1, &[("max.message.bytes", "5000")]);
    let job = Job { topic: small, ..Job::new(1) };
    let elsewhere = job.kafka.topic("exactly", 1);
    run(async {
        let mut writer = job.writer(0);
        writer.write(Batch::inserts(named(&[(1, Some("long ".repeat(4000).as_str()))]))).unwrap();
        let staged = vec![prepare(&mut writer, 1, CHECKPOINT).await.unwrap()];
        let error = commit(&mut job.committer(None), 1, staged).await.unwrap_err();
        assert_eq!(error.code, "record_too_large", "{error:?}");
        // The topic is another than the one that partitions were chosen for.
        let staged = stage(&mut writer, 2, 0..1).await;
        let other = job.other(job.id.clone(), elsewhere.clone());
        let error = commit(&mut other.committer(None), 2, staged).await.unwrap_err();
        assert_eq!(error.code, "sink_changed", "{error:?}");
    });
}

/// A broker is killed before a commit, while it begins, and when everything is sent and the transaction is open. Not in the moment after the
/// end was asked for: a cluster of one broker that comes back then takes the partitions for deleted, because nobody leads them yet, and never
/// writes the markers of the commit ("these partitions are likely deleted already and hence can be skipped", Kafka 4.3.1). Nobody can
/// read behind such a transaction before it was aborted by hand.
#[test]
fn a_broker_that_crashes_while_an_epoch_is_committed_shows_it_once() {
    // Kept to the end of the process: the job holds on to it.
    let job = Job::on(Box::leak(Box::new(Kafka::start())), 2);
    let crash = |after: Duration| {
        let kafka = job.kafka;
        tokio::task::spawn_blocking(move || {
            std::thread::sleep(after);
            kafka.kill();
            kafka.restart();
        })
    };
    run(async {
        let mut writer = job.writer(0);
        let mut committer = job.committer(None);
        for round in 0..4u64 {
            let staged = stage(&mut writer, round + 1, round as i64 * 3000..(round as i64 + 1) * 3000).await;
            let committing = async |committer: &mut Transactions| {
                let committed = commit(committer, round + 1, staged.clone());
                tokio::time::timeout(Duration::from_secs(100), committed).await.unwrap().unwrap();
            };
            match round {
                3 => {
                    committer.break_off(round + 1, &staged).await;
                    crash(Duration::ZERO).await.unwrap();
                    committing(&mut committer).await;
                }
                _ => {
                    let crash = crash(Duration::from_millis(10 * round));
                    let ((), crashed) = tokio::join!(committing(&mut committer), crash);
                    crashed.unwrap();
                }
            }
            // The markers of the commit are written.
            assert_eq!(committer.shown(&job.id).await, Some(round + 1));
        }
    });
    let mut ids = job.ids();
    ids.sort_unstable();
    assert_eq!(ids, (0..12_000).collect::<Vec<_>>());
    job.kafka.kill();
}

/// Prints how fast both deliveries are: rows of about 120 bytes, a checkpoint per 200,000 of them.
#[test]
#[ignore = "a measurement"]
fn how_fast_both_deliveries_are() {
    const ROWS: i64 = 2_000_000;
    for delivery in ["at_least_once", "exactly_once", "at_least_once", "exactly_once"] {
        let job = Job { more: json!({"delivery": delivery}), ..Job::new(4) };
        run(async {
            let mut writer = job.writer(0);
            let mut committer = job.sink().committer().unwrap();
            committer.keep(&job.place(), None, &alone());
            prepare(&mut writer, 1, CHECKPOINT).await.unwrap();
            let filler = "a word and another word ".repeat(4);
            let rows: Vec<(i64, Option<&str>)> = (0..8000).map(|id| (id, Some(filler.as_str()))).collect();
            let rows = named(&rows);
            let began = std::time::Instant::now();
            for at in 0..ROWS / 8000 {
                writer.write(Batch::inserts(rows.clone())).unwrap();
                if at % 25 == 24 {
                    let epoch = at as u64 + 2;
                    let staged = vec![prepare(&mut writer, epoch, CHECKPOINT).await.unwrap()];
                    let staged = committer.stage(epoch, staged).await.unwrap();
                    committer.commit(epoch, CHECKPOINT, staged).await.unwrap();
                }
            }
            let seconds = began.elapsed().as_secs_f64();
            eprintln!("{delivery}: {:.0} rows/s", ROWS as f64 / seconds);
        });
    }
}
