//! Processes of a run, its server, its database and its broker are killed and stopped at random moments, its checkpoints' bucket goes away, and
//! the run is rescaled in between. Its state is in memory or on disk.
//! What has been put out in the end is what the input says, computed here by itself: windows over rows out of order into files, a running
//! aggregate into a view and into a topic, each row once into a view without a key and into a topic, and each record that is none as a dead letter.
//!
//! `HIGHWATER_CHAOS_KILLS` and `HIGHWATER_CHAOS_SEED` (`make chaos KILLS=n SEED=s`) make more of it. The seed stands in every message; the
//! next runs have the seeds after it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use integration_tests::rest::{Highwater, is_active};
use serde_json::{Value, json};
use test_support::kafka::{Kafka, Record};
use test_support::postgres::Postgres;
use test_support::process::send;

use super::faults::lines;
use super::proxy::{Fate, Proxy};
use super::storage;

/// Kills in `make test`.
const KILLS: u64 = 25;
/// Of them, those of one run.
const KILLS_PER_RUN: u64 = 7;
/// For a run with all that is done to it.
const PATIENCE: Duration = Duration::from_secs(240);

const ROWS: i64 = 16_000;
/// Between rows, in event time, which passes as fast as the clock.
const STEP_US: i64 = 1_000;
const WINDOW_MS: i64 = 250;
/// Every so many records, one more is none.
const POISON: i64 = 100;
/// Of the topic that rows come from.
const PARTITIONS: i64 = 3;

/// splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

pub fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn key(n: i64) -> i64 {
    (n * 7919) % 11
}

fn time_us(n: i64) -> i64 {
    1_600_000_000_000_000 + n * STEP_US
}

/// The record of a row, and behind some of them one that is none.
fn records(n: i64) -> Vec<String> {
    let row = format!("{{\"n\":{n},\"k\":{},\"ts\":\"{}\"}}", key(n), text(time_us(n)));
    let poison = || format!("{{\"n\":{n},\"k\":\"poison\"");
    std::iter::once(row).chain((n % POISON == POISON - 1).then(poison)).collect()
}

/// A time of that day as text.
fn text(us: i64) -> String {
    let ms = us / 1000;
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let of_day = seconds - 1_600_000_000 + 12 * 3600 + 26 * 60 + 40;
    format!("2020-09-13 {:02}:{:02}:{:02}.{ms:03}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The same time, written one way.
fn plain(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{fraction:0<3}"),
        None if time.is_empty() => String::new(),
        None => format!("{time}.000"),
    }
}

/// What is around the run, beside its server.
struct World {
    server: Highwater,
    /// The server's database; else it is SQLite.
    postgres: Option<Postgres>,
    broker: Option<Broker>,
    /// The way to the bucket that has the checkpoints; else they are in the server's directory.
    bucket: Option<Bucket>,
    /// State is on disk, with room for little of it in memory.
    on_disk: bool,
}

struct Bucket {
    proxy: Proxy,
    /// Nobody is answered.
    away: Arc<AtomicBool>,
}

impl Bucket {
    fn new() -> Bucket {
        let away = Arc::new(AtomicBool::new(false));
        let (is_away, unlucky) = (away.clone(), storage::unlucky(30, Arc::default()));
        let proxy = Proxy::start(move |request| match is_away.load(Ordering::SeqCst) {
            true => Fate::Closed,
            false => unlucky(request),
        });
        Bucket { proxy, away }
    }
}

/// Where rows come from and go to.
struct Broker {
    kafka: Kafka,
    rows: String,
    sums: String,
    all: String,
    /// Rows written so far.
    written: i64,
}

impl World {
    /// Each seed has one of twelve.
    fn of(seed: u64) -> World {
        let postgres = (seed % 4 >= 2).then(|| Postgres::start(&[]));
        let broker = seed.is_multiple_of(2).then(|| {
            let kafka = Kafka::start();
            let topic = |name: &str, partitions| kafka.topic(name, partitions);
            let (rows, sums, all) = (topic("rows", PARTITIONS as i32), topic("sums", 2), topic("all", 2));
            Broker { rows, sums, all, written: 0, kafka }
        });
        let mut config = json!({});
        if let Some(postgres) = &postgres {
            config["database"] = postgres.database().into();
        }
        let bucket = (seed % 3 == 2).then(Bucket::new);
        if let Some(Bucket { proxy, .. }) = &bucket {
            config["storage"] = format!("s3://{}/chaos", storage::bucket()).into();
            config["storage-options"] = json!(storage::options(&proxy.address));
        }
        World { server: Highwater::configured(&config), postgres, broker, bucket, on_disk: seed % 3 == 1 }
    }

    fn script(&self, random: &mut Random) -> String {
        let [disorder, seed, interval] = [900, random.below(1000), [60, 150, 400][random.below(3) as usize]];
        let topic = |broker: &Broker, topic: &str, more: &str| {
            format!(
                "'connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'properties.bootstrap.servers' = '{}'{more}",
                broker.kafka.servers()
            )
        };
        let source = match &self.broker {
            Some(broker) => topic(broker, &broker.rows, ""),
            None => {
                let input: String = (0..ROWS).flat_map(records).map(|record| record + "\n").collect();
                let path = self.server.file("rows.jsonl", input);
                format!(
                    "'connector' = 'replay', 'path' = '{path}', 'format' = 'json', 'replay.speed' = '1',
                     'replay.disorder' = '{disorder}ms', 'replay.splits' = '3', 'replay.seed' = '{seed}'"
                )
            }
        };
        let exactly = ", 'delivery' = 'exactly_once'";
        let into_topics = self.broker.as_ref().map(|broker| {
            format!(
                "CREATE TABLE topic_sums (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ({});
                 CREATE TABLE topic_rows (n BIGINT) WITH ({});
                 INSERT INTO topic_sums SELECT k, COUNT(*), SUM(n) FROM events GROUP BY k;
                 INSERT INTO topic_rows SELECT n FROM events;",
                topic(broker, &broker.sums, exactly),
                topic(broker, &broker.all, exactly)
            )
        });
        let files = |name: &str| {
            let path = self.server.files().join(name);
            format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'json'", path.display())
        };
        format!(
            "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '{interval}ms'; SET 'restart.delay' = '10ms';
             SET 'restart.attempts' = '50'; SET 'process.heartbeat-timeout' = '2s'; {}
             CREATE TABLE events (n BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
               WITH ({source}, 'on_bad_record' = 'dead_letter');
             CREATE TABLE sums (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
             CREATE TABLE windows (w TIMESTAMP(3), k BIGINT, c BIGINT, s BIGINT) WITH ({});
             CREATE TABLE all_rows (n BIGINT) WITH ('connector' = 'view');
             CREATE TABLE dead (record STRING) WITH ({});
             INSERT INTO sums SELECT k, COUNT(*), SUM(n) FROM events GROUP BY k;
             INSERT INTO windows SELECT window_start, k, COUNT(*), SUM(n)
               FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '0.25' SECOND)) GROUP BY window_start, window_end, k;
             INSERT INTO all_rows SELECT n FROM events;
             INSERT INTO dead SELECT DECODE(payload, 'UTF-8') FROM highwater.dead_letters;
             {}",
            if self.on_disk { "SET 'state.backend' = 'rocksdb'; SET 'state.memory' = '16MiB';" } else { "" },
            files("windows"),
            files("dead"),
            into_topics.unwrap_or_default()
        )
    }

    /// Some more rows into the topic, if they come from one; whether all are there.
    fn write(&mut self, more: i64) -> bool {
        let Some(Broker { kafka, rows, written, .. }) = &mut self.broker else { return true };
        let until = (*written + more).min(ROWS);
        let record = |n: i64| records(n).into_iter().map(move |text| Record::value((n % PARTITIONS) as i32, text));
        let batch: Vec<Record> = (*written..until).flat_map(record).collect();
        kafka.produce(rows, &batch);
        *written = until;
        until == ROWS
    }

    /// The run as it is, if anybody can say.
    fn look(&self, run: &str) -> Option<Value> {
        let answer = self.server.get(&format!("/api/v1/runs/{run}")).try_send().ok()?;
        (answer.status == 200).then(|| answer.json())
    }
}

type Sums = BTreeMap<(String, i64), (i64, i64)>;

fn expected(window: impl Fn(i64) -> String) -> Sums {
    let mut sums = Sums::new();
    for n in 0..ROWS {
        let sum = sums.entry((window(n), key(n))).or_default();
        *sum = (sum.0 + 1, sum.1 + n);
    }
    sums
}

/// By window and key; a later one replaces an earlier one only where that is what `updates` says.
fn found(rows: &[Value], what: &str, updates: bool) -> Sums {
    let mut sums = Sums::new();
    for row in rows {
        let integer = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{what}: {row}"));
        let window = plain(row["w"].as_str().unwrap_or_default());
        let before = sums.insert((window, integer("k")), (integer("c"), integer("s")));
        assert!(updates || before.is_none(), "{what}: twice: {row}");
    }
    sums
}

fn numbers(rows: &[Value]) -> Vec<i64> {
    let mut all: Vec<i64> = rows.iter().map(|row| row["n"].as_i64().unwrap()).collect();
    all.sort_unstable();
    all
}

/// A fault that the run and what is around it must get over.
fn harm(world: &mut World, random: &mut Random, run: &Value) -> Option<&'static str> {
    let process = world.server.process_of_any(run);
    let pause = |random: &mut Random, most_ms| std::thread::sleep(Duration::from_millis(random.below(most_ms)));
    match (random.below(10), process) {
        (0, _) => {
            world.server.kill();
            pause(random, 500);
            world.server.begin();
            Some("server")
        }
        (1, Some(process)) => {
            world.server.kill();
            send(process, 9);
            world.server.begin();
            Some("server and run")
        }
        (2, Some(process)) => {
            // For shorter or longer than anyone waits for it.
            send(process, 19);
            pause(random, 3000);
            send(process, 18);
            Some("stopped")
        }
        (3, _) => {
            let broker = world.broker.as_ref()?;
            broker.kafka.kill();
            pause(random, 1500);
            broker.kafka.restart();
            Some("broker")
        }
        (4, _) => {
            let postgres = world.postgres.as_ref()?;
            if random.below(2) == 0 {
                postgres.kill()
            } else {
                postgres.stop_immediately()
            }
            pause(random, 1500);
            postgres.restart();
            Some("database")
        }
        (5, Some(process)) => {
            let (broker, postgres) = (world.broker.as_ref(), world.postgres.as_ref());
            if let Some(broker) = broker {
                broker.kafka.kill();
            }
            postgres.map(Postgres::kill);
            send(process, 9);
            if let Some(broker) = broker {
                broker.kafka.restart();
            }
            postgres.map(Postgres::restart);
            Some("run and all around it")
        }
        (6, _) => {
            let bucket = world.bucket.as_ref()?;
            bucket.away.store(true, Ordering::SeqCst);
            pause(random, 1500);
            if let Some(process) = process.filter(|_| random.below(2) == 0) {
                send(process, 9);
                pause(random, 500);
            }
            bucket.away.store(false, Ordering::SeqCst);
            Some("bucket")
        }
        (_, Some(process)) => {
            send(process, 9);
            Some("run")
        }
        (_, None) => None,
    }
}

/// How many threads and processes a run has.
fn scaled(random: &mut Random, script: &str) -> Value {
    json!({"sql": script, "parallelism": 1 + random.below(3), "processes": 1 + random.below(2)})
}

/// Stops the run and lets another go on in its place, with another number of threads and processes.
fn rescale(world: &World, random: &mut Random, script: &str, run: &str) -> Option<Value> {
    let path = format!("/api/v1/runs/{run}/stop");
    // It may be away, or the run at its end.
    let asked = world.server.post(&path, &json!({"mode": "now"})).try_send().ok()?;
    if asked.status != 202 {
        return None;
    }
    let ended = world.server.wait_for_end(&json!({"id": run}));
    if ended["state"] != "cancelled" {
        return None;
    }
    world.server.put("/api/v1/jobs/chaos", &scaled(random, script)).header("if-match", "*").expect(200);
    let start = |from: &str| world.server.post("/api/v1/jobs/chaos/runs", &json!({"from": from}));
    let latest = start("latest").send();
    if latest.status == 409 && latest.text().contains("has no checkpoint yet") {
        // Then it has put out nothing.
        return Some(start("fresh").expect(202).json());
    }
    assert_eq!(latest.status, 202, "{}", latest.text());
    Some(latest.json())
}

/// One run, killed so many times; what it has put out.
fn run(seed: u64, kills: u64) {
    let mut random = Random(seed);
    let mut world = World::of(seed);
    let script = world.script(&mut random);
    let mut spec = scaled(&mut random, &script);
    spec["name"] = "chaos".into();
    let created = world.server.post("/api/v1/jobs", &spec).expect(201).json();
    let mut id = created["run"]["id"].as_str().unwrap().to_string();
    let (mut killed, mut drained) = (Vec::new(), false);
    let deadline = Instant::now() + PATIENCE;
    let ended = loop {
        let what = format!("seed {seed}, so far: {killed:?}");
        assert!(
            Instant::now() < deadline,
            "{what}: the run does not end: {:?}\n{}\n{:?}",
            world.look(&id),
            world.server.log(),
            // A broker that forgets a transaction says so: docs/connectors.md, "kafka".
            world.broker.as_ref().map(|broker| broker.kafka.said("can be skipped"))
        );
        let all = world.write(ROWS / (2 * kills as i64 + 2));
        std::thread::sleep(Duration::from_millis(100 + random.below(1200)));
        let Some(now) = world.look(&id) else { continue };
        if !is_active(&now) {
            break now;
        }
        if (killed.len() as u64) < kills {
            if random.below(8) == 0 {
                if let Some(next) = rescale(&world, &mut random, &script, &id) {
                    id = next["id"].as_str().unwrap().to_string();
                    killed.push("rescaled");
                }
            } else {
                killed.extend(harm(&mut world, &mut random, &now));
            }
        } else if world.broker.is_some() && all && !drained && now["state"] == "running" {
            // A topic has no end: all of it was read when all of it is shown.
            let shown = world.server.get("/api/v1/views/all_rows/rows?limit=1").try_send();
            let rows =
                shown.ok().filter(|answer| answer.status == 200).map(|answer| answer.json()["total_rows"].clone());
            if rows == Some(json!(ROWS)) {
                let stop = world.server.post(&format!("/api/v1/runs/{id}/stop"), &json!({"mode": "drain"}));
                drained = stop.try_send().is_ok_and(|answer| answer.status == 202);
            }
        }
    };
    let what = format!("seed {seed}, {} attempts, {killed:?}", ended["attempts"]);
    assert_eq!(ended["state"], "finished", "{what}: {ended}");
    compare(&world, &what);
    eprintln!("{what}: as it must be");
}

fn compare(world: &World, what: &str) {
    let World { server, broker, .. } = world;
    let parsed =
        |line: &String| serde_json::from_str(line).unwrap_or_else(|error| panic!("{what}: {error} in {line:?}"));
    let of_files = |name: &str| lines(&server.files().join(name)).iter().map(parsed).collect::<Vec<Value>>();
    let window = |n: i64| plain(&text(time_us(n) / (WINDOW_MS * 1000) * (WINDOW_MS * 1000)));
    let windows = found(&of_files("windows"), what, false);
    let wanted = expected(window);
    let sample = |sums: &Sums| sums.iter().take(2).map(|(key, sum)| format!("{key:?} {sum:?}")).collect::<Vec<_>>();
    assert_eq!(windows.len(), wanted.len(), "{what}: windows: {:?} {:?}", sample(&windows), sample(&wanted));
    for (key, sum) in &wanted {
        assert_eq!(windows.get(key), Some(sum), "{what}: window {key:?} of {:?}", sample(&windows));
    }
    let sums = expected(|_| String::new());
    assert_eq!(found(&server.rows("sums"), what, false), sums, "{what}: sums");
    let every: Vec<i64> = (0..ROWS).collect();
    assert_eq!(numbers(&server.rows("all_rows")), every, "{what}: every row once");
    let mut dead: Vec<String> =
        of_files("dead").iter().map(|row| row["record"].as_str().unwrap().to_string()).collect();
    let mut poison: Vec<String> = (0..ROWS).flat_map(|n| records(n).into_iter().skip(1)).collect();
    dead.sort();
    poison.sort();
    assert_eq!(dead, poison, "{what}: every record that is none, once");
    let Some(Broker { kafka, sums: topic_sums, all, .. }) = broker else { return };
    let of_topic = |topic: &str| -> Vec<Value> {
        kafka.records(topic).iter().map(|record| parsed(record.value.as_ref().unwrap())).collect()
    };
    assert_eq!(found(&of_topic(topic_sums), what, true), sums, "{what}: sums in the topic");
    assert_eq!(numbers(&of_topic(all)), every, "{what}: every row once in the topic");
}

#[test]
fn random_kills_change_nothing() {
    let (kills, first) = (number("HIGHWATER_CHAOS_KILLS", KILLS), number("HIGHWATER_CHAOS_SEED", 1));
    let runs = kills.div_ceil(KILLS_PER_RUN);
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= runs {
                return;
            }
            let of_run = KILLS_PER_RUN.min(kills - at * KILLS_PER_RUN);
            if std::panic::catch_unwind(|| run(first + at, of_run)).is_err() {
                failed.lock().unwrap().push(first + at);
            }
        }
    };
    // Most of them wait most of the time.
    let jobs = number("HIGHWATER_CHAOS_JOBS", 2);
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().unwrap();
    eprintln!("{kills} kills in {runs} runs with seeds from {first} on, {} diverged", failed.len());
    assert!(failed.is_empty(), "make chaos KILLS={KILLS_PER_RUN} SEED=<one of these>: {failed:?}");
}
