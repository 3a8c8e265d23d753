//! Processes of a run and its server are killed and stopped at random moments. What has been put out in the end is what the input says,
//! computed here by itself: windows over rows out of order into files, a running aggregate into a view; and each row once into a view without a key.
//!
//! `HIGHWATER_CHAOS_KILLS` and `HIGHWATER_CHAOS_SEED` (`make chaos KILLS=n SEED=s`) make more of it. The seed stands in every message.

use std::collections::BTreeMap;
use std::time::Duration;

use integration_tests::rest::{Highwater, is_active};
use serde_json::Value;
use test_support::process::send;

use super::faults::lines;

/// Kills in `make test`.
const KILLS: u64 = 25;
/// Of them, those of one run.
const KILLS_PER_RUN: u64 = 7;

const ROWS: i64 = 16_000;
/// Between rows, in event time, which passes as fast as the clock.
const STEP_US: i64 = 1_000;
const WINDOW_MS: i64 = 250;

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn key(n: i64) -> i64 {
    (n * 7919) % 11
}

fn time_us(n: i64) -> i64 {
    1_600_000_000_000_000 + n * STEP_US
}

fn input() -> String {
    let time = |n: i64| format!("{{\"n\":{n},\"k\":{},\"ts\":\"{}\"}}\n", key(n), text(time_us(n)));
    (0..ROWS).map(time).collect()
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

fn script(server: &Highwater, name: &str, random: &mut Random) -> String {
    let path = server.file(&format!("{name}.jsonl"), input());
    let (threads, processes) = ([1, 2, 3][random.below(3) as usize], 1 + random.below(2));
    format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '{}ms'; SET 'restart.delay' = '10ms';
         SET 'restart.attempts' = '50'; SET 'process.heartbeat-timeout' = '2s';
         SET 'parallelism' = '{threads}'; SET 'processes' = '{processes}';
         CREATE TABLE events (n BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
           WITH ('connector' = 'replay', 'path' = '{path}', 'format' = 'json', 'replay.speed' = '1', 'replay.disorder' = '900ms',
                 'replay.splits' = '3', 'replay.seed' = '{}');
         CREATE TABLE {name}_sums (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         CREATE TABLE windows (w TIMESTAMP(3), k BIGINT, c BIGINT, s BIGINT)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE {name}_rows (n BIGINT) WITH ('connector' = 'view');
         INSERT INTO {name}_sums SELECT k, COUNT(*), SUM(n) FROM events GROUP BY k;
         INSERT INTO windows SELECT window_start, k, COUNT(*), SUM(n)
           FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '0.25' SECOND)) GROUP BY window_start, window_end, k;
         INSERT INTO {name}_rows SELECT n FROM events;",
        [60, 150, 400][random.below(3) as usize],
        random.below(1000),
        server.files().join(name).display()
    )
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

fn found(rows: &[Value], what: &str) -> Sums {
    let mut sums = Sums::new();
    for row in rows {
        let integer = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{what}: {row}"));
        let window = plain(row["w"].as_str().unwrap_or_default());
        let before = sums.insert((window, integer("k")), (integer("c"), integer("s")));
        assert_eq!(before, None, "{what}: twice: {row}");
    }
    sums
}

/// One run, killed so many times; what it has put out.
fn run(seed: u64, kills: u64) {
    let mut random = Random(seed);
    let what = format!("seed {seed}");
    let mut server = Highwater::start();
    let (_, run) = server.submit("chaos", &script(&server, "chaos", &mut random));
    let path = format!("/api/v1/runs/{}", run["id"].as_str().unwrap());
    let mut killed = Vec::new();
    while (killed.len() as u64) < kills {
        std::thread::sleep(Duration::from_millis(100 + random.below(1200)));
        let now = server.get(&path).expect(200).json();
        if !is_active(&now) {
            break;
        }
        let process = server.process_of_any(&now);
        match (random.below(6), process) {
            (0, _) => {
                server.kill();
                killed.push("server");
                std::thread::sleep(Duration::from_millis(random.below(500)));
                server.begin();
            }
            (1, Some(process)) => {
                server.kill();
                send(process, 9);
                killed.push("server and run");
                server.begin();
            }
            (2, Some(process)) => {
                // For shorter or longer than anyone waits for it.
                send(process, 19);
                killed.push("stopped");
                std::thread::sleep(Duration::from_millis(random.below(3000)));
                send(process, 18);
            }
            (_, Some(process)) => {
                send(process, 9);
                killed.push("run");
            }
            (_, None) => {}
        }
    }
    let ended = server.wait_for_end(&run);
    let what = format!("{what}, {} attempts, killed: {killed:?}", ended["attempts"]);
    assert_eq!(ended["state"], "finished", "{what}: {ended}");
    let rows: Vec<Value> = lines(&server.files().join("chaos"))
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{what}: {error} in {line:?}")))
        .collect();
    let window = |n: i64| plain(&text(time_us(n) / (WINDOW_MS * 1000) * (WINDOW_MS * 1000)));
    let windows = found(&rows, &what);
    let wanted = expected(window);
    let sample = |sums: &Sums| sums.iter().take(2).map(|(key, sum)| format!("{key:?} {sum:?}")).collect::<Vec<_>>();
    assert_eq!(windows.len(), wanted.len(), "{what}: windows: {:?} {:?}", sample(&windows), sample(&wanted));
    for (key, sum) in &wanted {
        assert_eq!(windows.get(key), Some(sum), "{what}: window {key:?} of {:?}", sample(&windows));
    }
    assert_eq!(found(&server.rows("chaos_sums"), &what), expected(|_| String::new()), "{what}: sums");
    let mut all: Vec<i64> = server.rows("chaos_rows").iter().map(|row| row["n"].as_i64().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..ROWS).collect::<Vec<_>>(), "{what}: every row once");
    eprintln!("{what}: as it must be");
}

#[test]
fn random_kills_change_nothing() {
    let mut left = number("HIGHWATER_CHAOS_KILLS", KILLS);
    let mut seed = number("HIGHWATER_CHAOS_SEED", 1);
    while left > 0 {
        let kills = left.min(KILLS_PER_RUN);
        run(seed, kills);
        left -= kills;
        seed += 1;
    }
}
