//! Against a real server: what is written, and that it is written once, wherever a commit is broken off.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, SchemaRef};
use engine::runtime::Place;
use engine::{Batch, Committable, RunError, Sink, SinkCommitter, SinkContext, SinkWriter, Waiting, WriterContext};
use graph::SinkConnector;
use serde_json::{Value, json};
use state::files::MemoryFiles;
use test_support::postgres::Postgres;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::PostgresSink;
use super::commit::Transactions;
use crate::Egress;
use crate::kafka::Surroundings;
use crate::testing::sinks::{CHECKPOINT, alone, prepare, sink_node};
use crate::testing::{column, run};

/// A job with one sink, as its attempts see it, in a database of its own.
struct Job {
    server: &'static Postgres,
    url: String,
    files: Arc<MemoryFiles>,
    id: String,
    columns: &'static [&'static str],
    key: &'static [&'static str],
    more: Value,
}

const COLUMNS: &[&str] = &["id BIGINT NOT NULL", "name STRING"];

impl Job {
    fn new(key: &'static [&'static str]) -> Job {
        Job::on(Postgres::shared(), key)
    }

    fn on(server: &'static Postgres, key: &'static [&'static str]) -> Job {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("job-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let more = json!({"create": true});
        Job { server, url: server.database(), files: Arc::default(), id, columns: COLUMNS, key, more }
    }

    /// The same job with other options.
    fn with(&self, more: Value) -> Job {
        let mut all = self.more.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Job { more: all, url: self.url.clone(), files: self.files.clone(), id: self.id.clone(), ..*self }
    }

    fn place(&self) -> Place {
        Place { files: self.files.clone(), job: self.id.clone(), generation: 1 }
    }

    fn try_sink(&self, schema: SchemaRef, durable: bool) -> Result<PostgresSink, RunError> {
        let mut options = json!({"type": "postgres", "host": "127.0.0.1", "port": self.server.port(), "user": "app",
            "database": self.url.rsplit('/').next().unwrap(), "password": self.server.password(), "table": "out"});
        options.as_object_mut().unwrap().extend(self.more.as_object().unwrap().clone());
        let mut node = sink_node(options, &[]);
        node.columns = self.columns.iter().map(|text| column(text)).collect();
        node.primary_key = self.key.iter().map(|name| name.to_string()).collect();
        let SinkConnector::Postgres(options) = &node.connector else { panic!("no table") };
        let context = SinkContext {
            run_id: "run".into(),
            bounded: false,
            updating: !self.key.is_empty(),
            stateless: self.key.is_empty(),
            operator: "sink out".into(),
            durable,
        };
        PostgresSink::open(&node, options, schema, context, &around(Egress::everywhere()))
    }

    fn check(&self) -> Result<(), RunError> {
        super::check(&self.try_sink(named(&[]).schema(), true)?)
    }

    fn checked(&self) -> String {
        self.check().map_or_else(|error| error.code, |()| "ok".into())
    }

    fn writer_of(&self, schema: SchemaRef, worker: usize, durable: bool) -> Box<dyn SinkWriter> {
        let (failed, _) = tokio::sync::mpsc::unbounded_channel();
        let context = WriterContext {
            worker,
            workers: 2,
            generation: 1,
            schema: schema.clone(),
            tokio: tokio::runtime::Handle::current(),
            failed,
            waiting: Waiting::new(|_| {}),
            place: durable.then(|| self.place()),
        };
        self.try_sink(schema, durable).unwrap().writer(context).unwrap()
    }

    fn writer(&self) -> Box<dyn SinkWriter> {
        self.writer_of(named(&[]).schema(), 0, true)
    }

    fn committer(&self, previous: Option<u64>) -> Transactions {
        let mut committer = self.try_sink(named(&[]).schema(), true).unwrap().transactions();
        committer.keep(&self.place(), previous, &alone());
        committer
    }

    /// That of an attempt which goes on from an epoch that is decided, and not known to be committed.
    async fn restored(&self, previous: Option<u64>, epoch: u64, staged: &[Committable]) -> Transactions {
        let mut committer = self.committer(previous);
        committer.restore(epoch, staged.to_vec()).await.unwrap();
        committer
    }

    /// Rows as `id|name`, in the order of ids.
    fn rows(&self) -> Vec<String> {
        self.sql("SELECT id, coalesce(name, 'NULL') FROM out ORDER BY id, name")
    }

    fn sql(&self, sql: &str) -> Vec<String> {
        self.server.sql(&self.url, sql).lines().map(str::to_string).collect()
    }

    fn count(&self) -> u64 {
        self.sql("SELECT count(*) FROM out")[0].parse().unwrap()
    }
}

fn around(egress: Egress) -> Surroundings {
    Surroundings { connections: Arc::default(), egress, restricted: false }
}

fn named(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, _)| *id)));
    let names: ArrayRef = Arc::new(rows.iter().map(|(_, name)| *name).collect::<StringArray>());
    RecordBatch::try_from_iter_with_nullable([("id", ids, false), ("name", names, true)]).unwrap()
}

fn ids(range: std::ops::Range<i64>) -> RecordBatch {
    named(&range.map(|id| (id, Some("n"))).collect::<Vec<_>>())
}

/// `+1 a`, `-1 a`.
fn changes(changes: &[&str]) -> Batch {
    let parsed: Vec<(u8, i64, &str)> = changes
        .iter()
        .map(|change| {
            let (id, name) = change[1..].split_once(' ').unwrap();
            (if change.starts_with('+') { 0 } else { 3 }, id.parse().unwrap(), name)
        })
        .collect();
    let rows = named(&parsed.iter().map(|(_, id, name)| (*id, Some(*name))).collect::<Vec<_>>());
    Batch::changes(rows, parsed.iter().map(|(kind, ..)| *kind).collect::<UInt8Array>())
}

/// Prepares an epoch with these rows, as an attempt does whose sink had committed `previous` before.
async fn staged(
    job: &Job,
    writer: &mut Box<dyn SinkWriter>,
    previous: Option<u64>,
    epoch: u64,
    rows: Batch,
) -> Vec<Committable> {
    writer.write(rows).unwrap();
    let prepared = prepare(writer, epoch, CHECKPOINT).await.unwrap();
    let mut sayer = job.committer(previous);
    let before = json!({"target": "", "records": [], "history": {"job": job.id, "previous": null}});
    let before = Committable { payload: before.to_string().into_bytes(), ..Committable::default() };
    sayer.restore(epoch, vec![before]).await.unwrap();
    sayer.stage(epoch, vec![prepared]).await.unwrap()
}

#[test]
fn every_type_arrives_as_it_was() {
    let mut job = Job::new(&[]);
    job.columns = &[
        "a BOOLEAN",
        "b TINYINT",
        "c SMALLINT",
        "d INT",
        "e BIGINT",
        "f FLOAT",
        "g DOUBLE",
        "h DECIMAL(20, 6)",
        "i STRING",
        "j BYTES",
        "k DATE",
        "l TIME",
        "m TIMESTAMP(0)",
        "n TIMESTAMP(3)",
        "o TIMESTAMP(6)",
        "p TIMESTAMP(9)",
        "q TIMESTAMP_LTZ(3)",
        "r ARRAY<INT>",
        "s ARRAY<STRING>",
        "t MAP<STRING, INT>",
        "u ROW<x INT, y STRING>",
        "v ARRAY<ROW<x INT>>",
        "w DECIMAL(38, 37)",
        "x DECIMAL(38, 0)",
    ];
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let numbers =
        || ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None, Some(-3)]), None, Some(vec![])]);
    let texts = {
        let mut texts = ListBuilder::new(StringBuilder::new());
        texts.append_value([Some("a\"b"), None, Some("{},é")]);
        texts.append_null();
        texts.append_value([Some("")]);
        texts.finish()
    };
    let map = {
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
        map.keys().append_value("k");
        map.values().append_value(7);
        map.append(true).unwrap();
        map.append(false).unwrap();
        map.append(true).unwrap();
        map.finish()
    };
    let part = |name: &str, array: ArrayRef| (Arc::new(field(name, array.data_type().clone())), array);
    let xs = || part("x", Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])));
    let ys = part("y", Arc::new(StringArray::from(vec![Some("é\n"), Some("b"), None])));
    let row = StructArray::from(vec![xs(), ys]);
    let inner = StructArray::from(vec![xs()]);
    let rows_of = ListArray::new(
        Arc::new(field("item", inner.data_type().clone())),
        OffsetBuffer::from_lengths([2, 0, 1]),
        Arc::new(inner),
        None,
    );
    let decimal = |values: [Option<i128>; 3], precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values.to_vec()).with_precision_and_scale(precision, scale).unwrap())
    };
    let most = 10i128.pow(38) - 1;
    let at = 951_782_399; // 2000-02-28T23:59:59
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])),
        Arc::new(Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)])),
        Arc::new(Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        Arc::new(Float32Array::from(vec![Some(0.1), None, Some(f32::NEG_INFINITY)])),
        Arc::new(PrimitiveArray::<Float64Type>::from(vec![Some(0.1), None, Some(f64::NAN)])),
        decimal([Some(-12_345_678_900_001), None, Some(10_000)], 20, 6),
        Arc::new(StringArray::from(vec![Some("a\tb\\N\n'é"), None, Some("")])),
        Arc::new(BinaryArray::from(vec![Some(&b"\0\xff"[..]), None, Some(b"")])),
        Arc::new(Date32Array::from(vec![Some(-719_162), None, Some(2_932_896)])),
        Arc::new(Time64MicrosecondArray::from(vec![Some(1), None, Some(86_399_999_999)])),
        Arc::new(TimestampSecondArray::from(vec![Some(at), None, Some(-1)])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(at * 1000 + 7), None, Some(-1)])),
        Arc::new(TimestampMicrosecondArray::from(vec![
            Some(-62_135_596_800_000_000),
            None,
            Some(253_402_300_799_999_999),
        ])),
        Arc::new(TimestampNanosecondArray::from(vec![Some(at * 1_000_000_000 + 1000), None, Some(-1000)])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(at * 1000), None, Some(0)]).with_timezone("UTC")),
        Arc::new(numbers()),
        Arc::new(texts),
        Arc::new(map),
        Arc::new(row),
        Arc::new(rows_of),
        decimal([Some(most), Some(0), Some(-1)], 38, 37),
        decimal([Some(-most), Some(0), Some(10_000)], 38, 0),
    ];
    let names: Vec<String> = job.columns.iter().map(|text| text[..1].to_string()).collect();
    let batch = RecordBatch::try_from_iter_with_nullable(
        names.iter().zip(&arrays).map(|(name, array)| (name, array.clone(), true)),
    )
    .unwrap();
    run(async {
        let mut writer = job.writer_of(batch.schema(), 0, false);
        writer.write(Batch::inserts(batch.clone())).unwrap();
        prepare(&mut writer, 1, CHECKPOINT).await.unwrap();
        // Through a temporary table, where the types are others.
        let other = job.with(json!({"table": "other", "create": false}));
        job.sql("CREATE TABLE other (a boolean, b int, c bigint, d numeric, e bigint, f float8, g float8, h numeric, i varchar, j bytea, k date,
            l time, m timestamp, n timestamp, o timestamp, p timestamp, q timestamptz, r int[], s text[], t json, u text, v jsonb, w numeric, x numeric)");
        let mut writer = other.writer_of(batch.schema(), 0, false);
        writer.write(Batch::inserts(batch.clone())).unwrap();
        prepare(&mut writer, 1, CHECKPOINT).await.unwrap();

        let mut nanoseconds = batch.columns().to_vec();
        nanoseconds[15] = Arc::new(TimestampNanosecondArray::from(vec![None, None, Some(-1)]));
        let wrong = RecordBatch::try_new(batch.schema(), nanoseconds).unwrap();
        let error = writer.write(Batch::inserts(wrong)).unwrap_err();
        assert!(error.code == "output_unwritable" && error.message.contains("column p"), "{error:?}");
        let mut zero = batch.columns().to_vec();
        zero[8] = Arc::new(StringArray::from(vec!["a", "b\0", "c"]));
        let error = writer.write(Batch::inserts(RecordBatch::try_new(batch.schema(), zero).unwrap())).unwrap_err();
        assert!(error.code == "output_unwritable" && error.message.contains("column i"), "{error:?}");
    });
    let shown = |table: &str| {
        let cells = names
            .iter()
            .map(|name| format!("coalesce({name}::text, 'NULL')"))
            .collect::<Vec<_>>()
            .join(" || ' ; ' || ");
        job.sql(&format!(
            "SET timezone = 'UTC'; SELECT replace({cells}, E'\\n', '<>') FROM {table} ORDER BY b NULLS FIRST"
        ))
    };
    assert_eq!(
        shown("out"),
        [
            r#"NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; NULL ; {"x": null, "y": "b"} ; [] ; 0.0000000000000000000000000000000000000 ; 0"#,
            "true ; -128 ; -32768 ; -2147483648 ; -9223372036854775808 ; 0.1 ; 0.1 ; -12345678.900001 ; a\tb\\N<>'é ; \\x00ff ; 0001-01-01 ; 00:00:00.000001 ; 2000-02-28 23:59:59 ; 2000-02-28 23:59:59.007 ; 0001-01-01 00:00:00 ; 2000-02-28 23:59:59.000001 ; 2000-02-28 23:59:59+00 ; {1,NULL,-3} ; {\"a\\\"b\",NULL,\"{},é\"} ; {\"k\": 7} ; {\"x\": 1, \"y\": \"é\\n\"} ; [{\"x\": 1}, {\"x\": null}] ; 9.9999999999999999999999999999999999999 ; -99999999999999999999999999999999999999",
            "false ; 127 ; 32767 ; 2147483647 ; 9223372036854775807 ; -Infinity ; NaN ; 0.010000 ;  ; \\x ; 9999-12-31 ; 23:59:59.999999 ; 1969-12-31 23:59:59 ; 1969-12-31 23:59:59.999 ; 9999-12-31 23:59:59.999999 ; 1969-12-31 23:59:59.999999 ; 1970-01-01 00:00:00+00 ; {} ; {\"\"} ; {} ; {\"x\": 3, \"y\": null} ; [{\"x\": 3}] ; -0.0000000000000000000000000000000000001 ; 10000",
        ]
    );
    assert_eq!(shown("out").len(), shown("other").len());
    let plain = "a b c d e h i j k l m n o p q r s v w x".split(' ');
    let mut equal: Vec<String> = plain.map(|name| format!("out.{name} = other.{name}")).collect();
    equal.extend(["out.t = other.t::jsonb", "out.u = other.u::jsonb"].map(String::from));
    let same = job.sql(&format!("SELECT count(*) FROM out, other WHERE {}", equal.join(" AND ")));
    assert_eq!(same, ["2"], "all but the row of NULLs are equal");
}

#[test]
fn rows_are_appended_or_upserted_and_deleted_by_key() {
    let append = Job::new(&[]);
    let upsert = Job::new(&["id"]);
    run(async {
        let mut writer = append.writer();
        let mut committer = append.committer(None);
        let mut previous = None;
        for epoch in [1, 2] {
            let staged =
                staged(&append, &mut writer, previous, epoch, Batch::inserts(named(&[(1, Some("a")), (2, None)])))
                    .await;
            assert_eq!(staged[0].rows, 2);
            committer.commit(epoch, CHECKPOINT, staged).await.unwrap();
            previous = Some(epoch);
        }
        assert_eq!(append.rows(), ["1|a", "1|a", "2|NULL", "2|NULL"]);

        let mut writers = [upsert.writer(), upsert.writer_of(named(&[]).schema(), 1, true)];
        let mut committer = upsert.committer(None);
        let mut commit = async |epoch: u64, parts: [&[&str]; 2]| {
            let mut staged = vec![];
            for (writer, part) in writers.iter_mut().zip(parts) {
                writer.write(changes(part)).unwrap();
                staged.push(prepare(writer, epoch, CHECKPOINT).await.unwrap());
            }
            let staged = committer.stage(epoch, staged).await.unwrap();
            committer.commit(epoch, CHECKPOINT, staged).await.unwrap();
        };
        commit(3, [&["+1 a", "+3 c", "-3 c"], &["+2 b"]]).await;
        assert_eq!(upsert.rows(), ["1|a", "2|b"]);
        commit(7, [&["-1 a", "+1 z"], &["-2 b"]]).await;
        assert_eq!(upsert.rows(), ["1|z"]);
        commit(9, [&["-1 z", "+5 e", "-9 never"], &[]]).await;
        assert_eq!(upsert.rows(), ["5|e"]);
        assert_eq!(upsert.sql("SELECT sink, epoch FROM highwater_epochs"), ["sink out|9"]);
    });
}

#[test]
fn an_epoch_is_there_once_wherever_its_commit_is_broken_off() {
    for key in [&[][..], &["id"]] {
        let job = Job::new(key);
        let primary = if key.is_empty() { "" } else { "PRIMARY KEY" };
        job.sql(&format!("CREATE TABLE out (id bigint {primary}, name text)"));
        run(async {
            let mut writer = job.writer();
            let mut previous = None;
            let mut expected = 0;
            let mut zombies = vec![];
            for (at, kill) in ["before", "open", "after", "open", "held"].into_iter().enumerate() {
                let epoch = 10 * (at as u64 + 1);
                let staged =
                    staged(&job, &mut writer, previous, epoch, Batch::inserts(ids(expected..expected + 400))).await;
                let broken = job.restored(previous, epoch, &staged).await;
                match kill {
                    "before" => {}
                    "open" => drop(broken.break_off(epoch, &staged).await),
                    // It stands still with the lock: the new attempt ends its session.
                    "held" => zombies.push(broken.break_off(epoch, &staged).await),
                    _ => job
                        .restored(previous, epoch, &staged)
                        .await
                        .commit(epoch, CHECKPOINT, staged.clone())
                        .await
                        .unwrap(),
                }
                if kill != "after" {
                    assert_eq!(job.count(), expected as u64, "{kill}: nothing is seen before the commit");
                }
                let mut next = job.restored(previous, epoch, &staged).await;
                next.commit(epoch, CHECKPOINT, staged.clone()).await.unwrap();
                expected += 400;
                assert_eq!(job.count(), expected as u64, "{kill}");
                // Again, by the same and by others, who know that it was the newest.
                next.commit(epoch, CHECKPOINT, staged.clone()).await.unwrap();
                job.restored(previous, epoch, &staged).await.commit(epoch, CHECKPOINT, staged).await.unwrap();
                assert_eq!(job.count(), expected as u64, "{kill}");
                previous = Some(epoch);
            }
            for mut zombie in zombies {
                let ended = sqlx::raw_sql("COMMIT").execute(&mut zombie.connection).await;
                assert!(ended.is_err(), "its session was ended");
            }
            assert_eq!(job.count(), expected as u64);
        });
    }
}

#[test]
fn an_attempt_that_was_replaced_commits_nothing() {
    let job = Job::new(&[]);
    run(async {
        let mut writer = job.writer();
        let first = staged(&job, &mut writer, None, 5, Batch::inserts(ids(0..10))).await;
        job.restored(None, 5, &first).await.commit(5, CHECKPOINT, first.clone()).await.unwrap();
        let old = staged(&job, &mut writer, Some(5), 8, Batch::inserts(ids(10..20))).await;
        let new = staged(&job, &mut writer, Some(5), 30, Batch::inserts(ids(20..30))).await;
        let mut zombie = job.restored(Some(5), 8, &old).await;
        job.restored(Some(5), 30, &new).await.commit(30, CHECKPOINT, new).await.unwrap();
        let error = zombie.commit(8, CHECKPOINT, old).await.unwrap_err();
        assert!(error.code == "fenced" && error.message.contains("epoch 30"), "{error:?}");
        assert_eq!(job.count(), 20);

        // The marker is gone, or older than what was committed.
        for (loss, shows) in
            [("UPDATE highwater_epochs SET epoch = 5", "shows epoch 5"), ("DELETE FROM highwater_epochs", "is gone")]
        {
            job.sql(loss);
            let next = staged(&job, &mut writer, Some(30), 40, Batch::inserts(ids(30..40))).await;
            let error = job.restored(Some(30), 40, &next).await.commit(40, CHECKPOINT, next).await.unwrap_err();
            assert!(error.code == "sink_state_lost" && error.message.contains(shows), "{error:?}");
            assert_eq!((job.count(), job.sql("SELECT epoch FROM highwater_epochs WHERE epoch > 5").len()), (20, 0));
        }
        // Another table than the one for which rows were staged.
        let next = staged(&job, &mut writer, Some(30), 50, Batch::inserts(ids(30..40))).await;
        let moved = job.with(json!({"table": "elsewhere"}));
        let error = moved.restored(Some(30), 50, &next).await.commit(50, CHECKPOINT, next).await.unwrap_err();
        assert_eq!(error.code, "sink_changed");
    });
}

/// Between a client and the server: ends connections where it is told.
struct Proxy {
    port: u16,
    /// Cut when the client has said so many bytes in one connection.
    after_bytes: Arc<AtomicU64>,
    /// Cut at the next COMMIT: before the server has it, or before the client has the answer.
    at_commit: Arc<Mutex<Option<bool>>>,
    cuts: Arc<AtomicU32>,
}

impl Proxy {
    async fn to(server: u16) -> Proxy {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            after_bytes: Arc::new(AtomicU64::new(u64::MAX)),
            at_commit: Arc::default(),
            cuts: Arc::default(),
        };
        let (after_bytes, at_commit, cuts) = (proxy.after_bytes.clone(), proxy.at_commit.clone(), proxy.cuts.clone());
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = tokio::net::TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let mute = Arc::new(AtomicBool::new(false));
                let muted = mute.clone();
                let answers = tokio::spawn(async move {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                        if muted.load(Ordering::SeqCst) || to_client.write_all(&bytes[..count]).await.is_err() {
                            break;
                        }
                    }
                });
                let (after_bytes, at_commit, cuts) = (after_bytes.clone(), at_commit.clone(), cuts.clone());
                tokio::spawn(async move {
                    let (mut bytes, mut said) = (vec![0; 1 << 16], 0);
                    while let Ok(count @ 1..) = from_client.read(&mut bytes).await {
                        said += count as u64;
                        let commit = bytes[..count].windows(6).any(|word| word == b"COMMIT");
                        let when = if commit { at_commit.lock().unwrap().take() } else { None };
                        if said > after_bytes.load(Ordering::SeqCst) || when == Some(false) {
                            cuts.fetch_add(1, Ordering::SeqCst);
                            after_bytes.store(u64::MAX, Ordering::SeqCst);
                            answers.abort();
                            return;
                        }
                        mute.store(when == Some(true), Ordering::SeqCst);
                        if to_server.write_all(&bytes[..count]).await.is_err() {
                            return;
                        }
                        if when == Some(true) {
                            cuts.fetch_add(1, Ordering::SeqCst);
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            answers.abort();
                            return;
                        }
                    }
                });
            }
        });
        proxy
    }
}

#[test]
fn a_connection_that_breaks_costs_and_doubles_nothing() {
    for key in [&[][..], &["id"]] {
        let job = Job::new(key);
        run(async {
            let proxy = Proxy::to(job.server.port()).await;
            let job = job.with(json!({"port": proxy.port}));
            let mut writer = job.writer();
            let mut committer = job.committer(None);
            let (mut previous, mut expected) = (None, 0);
            let name = "x".repeat(100);
            for (at, cut) in ["copy", "commit", "answer", "copy", "nothing", "answer"].into_iter().enumerate() {
                let epoch = at as u64 + 1;
                let rows: Vec<(i64, Option<&str>)> =
                    (expected..expected + 3000).map(|id| (id, Some(name.as_str()))).collect();
                let staged = staged(&job, &mut writer, previous, epoch, Batch::inserts(named(&rows))).await;
                match cut {
                    "copy" => proxy.after_bytes.store(150_000, Ordering::SeqCst),
                    "commit" => *proxy.at_commit.lock().unwrap() = Some(false),
                    "answer" => *proxy.at_commit.lock().unwrap() = Some(true),
                    _ => {}
                }
                committer.commit(epoch, CHECKPOINT, staged).await.unwrap();
                expected += 3000;
                assert_eq!(job.count(), expected as u64, "{cut}");
                previous = Some(epoch);
            }
            assert_eq!(proxy.cuts.load(Ordering::SeqCst), 5);
        });
    }
}

#[test]
fn a_server_that_is_killed_and_comes_back_has_every_epoch_once() {
    let server: &'static Postgres = Box::leak(Box::new(Postgres::start(&[])));
    let job = Job::on(server, &["id"]);
    run(async {
        let mut writer = job.writer();
        let mut committer = job.committer(None);
        let first = staged(&job, &mut writer, None, 1, Batch::inserts(ids(0..100))).await;
        committer.commit(1, CHECKPOINT, first).await.unwrap();
        let second = staged(&job, &mut writer, Some(1), 2, Batch::inserts(ids(100..200))).await;
        tokio::task::spawn_blocking(|| server.kill()).await.unwrap();
        let back = tokio::task::spawn_blocking(|| {
            std::thread::sleep(Duration::from_secs(1));
            server.restart();
        });
        committer.commit(2, CHECKPOINT, second).await.unwrap();
        back.await.unwrap();
        assert_eq!(job.count(), 200);
    });
    // It is never dropped.
    server.stop_immediately();
}

#[test]
fn a_row_that_is_refused_ends_the_run_with_its_key() {
    let job = Job::new(&[]).with(json!({"create": false}));
    job.sql("CREATE TABLE out (id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))");
    run(async {
        for (durable, rows, parts) in [
            (true, vec![(1, Some("a")), (7, Some("b")), (7, Some("c"))], ["(id)=(7)", "out_pkey"]),
            (true, vec![(3, Some("bad"))], ["out_name_check", "(3, bad)"]),
            (false, vec![(3, Some("bad"))], ["out_name_check", "(3, bad)"]),
        ] {
            let mut writer = job.writer_of(named(&[]).schema(), 0, durable);
            let error = match durable {
                true => {
                    let staged = staged(&job, &mut writer, None, 1, Batch::inserts(named(&rows))).await;
                    job.committer(None).commit(1, CHECKPOINT, staged).await.unwrap_err()
                }
                false => {
                    writer.write(Batch::inserts(named(&rows))).unwrap();
                    prepare(&mut writer, 1, CHECKPOINT).await.unwrap_err()
                }
            };
            assert!(error.code == "row_refused" && !error.is_retryable(), "{error:?}");
            assert!(parts.iter().all(|part| error.message.contains(part)), "{error:?}");
            assert_eq!(job.count(), 0, "nothing of the epoch is there");
        }
    });
}

#[test]
fn without_checkpoints_each_epoch_is_written_when_it_is_prepared() {
    let job = Job::new(&["id"]);
    run(async {
        let mut writer = job.writer_of(named(&[]).schema(), 0, false);
        writer.write(changes(&["+1 a", "+2 b"])).unwrap();
        assert_eq!(prepare(&mut writer, 1, CHECKPOINT).await.unwrap().rows, 2);
        assert_eq!(job.rows(), ["1|a", "2|b"]);
        // The idle connection is dead.
        job.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
        writer.write(changes(&["-1 a"])).unwrap();
        prepare(&mut writer, 2, CHECKPOINT).await.unwrap();
        assert_eq!(job.rows(), ["2|b"]);
        assert_eq!(job.sql("SELECT count(*) FROM pg_tables WHERE tablename = 'highwater_epochs'"), ["0"]);
    });
    let asked = job.with(json!({"delivery": "exactly_once"})).try_sink(named(&[]).schema(), false);
    assert_eq!(asked.err().unwrap().code, "guarantee_not_available");
}

#[test]
fn a_check_tells_what_is_wrong_by_name() {
    let job = Job::new(&[]);
    let kept = job.with(json!({"create": false}));
    assert_eq!(job.checked(), "ok");
    assert_eq!(job.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), ["0"], "a check makes nothing");
    assert_eq!(kept.checked(), "sink_table_not_found");
    let database = job.url.rsplit('/').next().unwrap().to_string();
    job.sql(&format!("CREATE ROLE reader_{database} LOGIN PASSWORD 'pass'; CREATE TABLE out (id text, name text); GRANT SELECT ON out TO reader_{database};
        CREATE TABLE good (id bigint, name varchar(100)); CREATE VIEW seen AS SELECT * FROM good; CREATE SCHEMA closed"));
    let reader = format!("reader_{database}");
    for (more, code, part) in [
        (json!({"password": "hunter2"}), "authentication_failed", "password"),
        (json!({"database": "none"}), "database_not_found", "none"),
        (json!({"schema": "none"}), "sink_table_not_found", "schema"),
        (json!({"table": "OUT"}), "sink_table_not_found", "\"OUT\""),
        (json!({}), "sink_table_mismatch", "column id is text there, and BIGINT here"),
        (json!({"table": "seen"}), "sink_table_mismatch", "no table"),
        (
            json!({"user": reader, "password": "pass"}),
            "authorization_failed",
            "highwater_epochs, in schema \"public\", nor write \"public\".\"out\"",
        ),
        (json!({"table": "good"}), "ok", ""),
        (json!({"port": 1}), "ok", ""),
        (json!({"ssl.mode": "require"}), "tls_failed", "TLS"),
    ] {
        let checked = kept.with(more.clone()).check();
        let (got, message) =
            checked.map_or_else(|error| (error.code, error.message), |()| ("ok".into(), String::new()));
        assert!(got == code && message.contains(part), "{more}: {got}: {message}");
        assert!(!message.contains("hunter2") && !message.contains(job.server.password()));
    }
}

#[test]
fn addresses_that_must_not_be_reached_are_refused() {
    let job = Job::new(&[]);
    let node = |more: Value| {
        let mut options = json!({"type": "postgres", "table": "t"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sink_node(options, &[])
    };
    let opened = |more: Value, around: &Surroundings| {
        let node = node(more);
        let SinkConnector::Postgres(options) = &node.connector else { panic!("no table") };
        super::connect::Server::of("t", options, around).map(drop).map_err(|error| error.code)
    };
    let own = json!({"host": "127.0.0.1", "user": "u", "database": "d"});
    assert_eq!(opened(own.clone(), &around(Egress::everywhere())), Ok(()));
    assert_eq!(opened(own, &around(Egress::default())), Err("endpoint_not_allowed".into()));
    let metadata = json!({"host": "169.254.169.254", "user": "u", "database": "d"});
    assert_eq!(opened(metadata, &around(Egress::everywhere())), Err("endpoint_not_allowed".into()));
    let socket = json!({"host": "/var/run", "user": "u", "database": "d"});
    assert_eq!(opened(socket, &around(Egress::everywhere())), Err("invalid_option".into()));
    let connection: BTreeMap<String, String> =
        [("host", "127.0.0.1"), ("user", "app"), ("database", "postgres"), ("ssl.mode", "prefer")]
            .into_iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .chain([
                ("port".to_string(), job.server.port().to_string()),
                ("password".to_string(), job.server.password().to_string()),
            ])
            .collect();
    let with = Surroundings {
        connections: Arc::new(BTreeMap::from([("main".to_string(), connection.clone())])),
        egress: Egress::everywhere(),
        restricted: true,
    };
    assert_eq!(opened(json!({"connection": "main"}), &with), Ok(()));
    assert_eq!(opened(json!({"connection": "other"}), &with), Err("unknown_connection".into()));

    let mine = Egress { loopback: true, ..Egress::default() };
    let wait = Duration::from_secs(8);
    let steps = crate::probe::connect("postgres", &connection, &mine, wait);
    let last = steps.last().unwrap();
    assert!(steps.len() == 5 && last.ok && last.detail.contains("database postgres, user app"), "{steps:?}");
    let mut wrong = connection.clone();
    wrong.insert("password".into(), "hunter2".into());
    let steps = crate::probe::connect("postgres", &wrong, &mine, wait);
    let last = steps.last().unwrap();
    assert!(!last.ok && last.detail.contains("password") && !last.detail.contains("hunter2"), "{steps:?}");
    let steps = crate::probe::connect("postgres", &connection, &Egress::default(), wait);
    assert!(steps.last().is_some_and(|step| step.name == "egress" && !step.ok), "{steps:?}");
}
