//! Sessions: merging, lateness, corrections, restarts.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use arrow::array::UInt32Array;
use graph::AggregateFunction::{Count, Sum};
use state::{KEY_GROUPS, key_groups, key_hashes, owner};

use super::session::SessionAggregate;
use super::testing::*;
use crate::batch::{Batch, Origin};
use crate::operator::{Operator, Output};
use crate::plan::SessionSpec;

pub const MINUTE: i64 = 60_000_000;
const ROWS: &str = "k STRING, v BIGINT, ts TIMESTAMP(3)";

pub fn spec(lateness: i64) -> SessionSpec {
    SessionSpec {
        gap: 5 * MINUTE,
        unit: 1_000,
        lateness,
        keys: 1,
        time: 2,
        calls: vec![call(Count, None), call(Sum, Some(1))],
        output: schema(
            "k STRING, window_start TIMESTAMP(3), window_end TIMESTAMP(3), window_time TIMESTAMP(3), n BIGINT, total BIGINT",
        ),
        ledger: Some(vec![("k".into(), 0), ("v".into(), 1), ("ts".into(), 2)]),
        shown: vec![],
        operator: "sessions".into(),
    }
}

fn sessions(lateness: i64) -> SessionAggregate {
    SessionAggregate::new(&spec(lateness), names(), None).unwrap()
}

fn at(minute: i64) -> i64 {
    minute * MINUTE
}

fn add(operator: &mut SessionAggregate, rows: &str, stamp: i64) -> Output {
    let mut out = Output::new();
    operator.process(0, batch(ROWS, rows), stamp, &mut out).unwrap();
    assert!(out.main.is_empty());
    out
}

fn fired(operator: &mut SessionAggregate, wm: i64) -> String {
    text(&sent(|out| operator.watermark(wm, out)))
}

#[test]
fn rows_within_the_gap_share_a_session() {
    let mut operator = sessions(0);
    add(&mut operator, "a 1 00:10\nb 2 00:10\na 4 00:15\na 8 00:21\nb 16 00:12", i64::MIN);
    // The first session of a ends at 00:20: a row of that very time would still share it.
    assert_eq!(fired(&mut operator, at(20) - 1), "b 00:10 00:17 00:16:59.999 2 18");
    assert_eq!(fired(&mut operator, at(20)), "a 00:10 00:20 00:19:59.999 2 5");
    assert_eq!(fired(&mut operator, i64::MAX), "a 00:21 00:26 00:25:59.999 1 8");
    assert_eq!(operator.open_sessions(), 0);
}

#[test]
fn a_row_may_join_two_sessions() {
    let mut operator = sessions(0);
    add(&mut operator, "a 1 00:10\na 2 00:20\na 4 00:30\na 8 00:05", i64::MIN);
    add(&mut operator, "a 16 00:15\na 32 00:25", i64::MIN);
    assert_eq!(fired(&mut operator, i64::MAX), "a 00:05 00:35 00:34:59.999 6 63");
    let mut operator = sessions(0);
    add(&mut operator, "a 1 00:10\na 2 00:20\na 4 00:30\na 16 00:15\na 32 00:25\na 8 00:05", i64::MIN);
    assert_eq!(fired(&mut operator, i64::MAX), "a 00:05 00:35 00:34:59.999 6 63", "also within one batch");
}

#[test]
fn a_row_is_late_unless_it_joins_an_open_session() {
    let mut operator = sessions(0);
    add(&mut operator, "a 1 00:10", i64::MIN);
    assert_eq!(fired(&mut operator, at(12)), "");
    let rows = batch(ROWS, "a 2 00:06\nb 4 00:06\na 8 00:02\nb 16 00:08\na 32 00:08");
    let origin = Origin { splits: UInt32Array::from(vec![3; 5]), positions: vec![0, 1, 2, 3, 4].into() };
    let mut out = Output::new();
    operator.process(0, Batch { origin: Some(origin), ..rows }, at(12), &mut out).unwrap();
    // a at 00:06 joins 00:10 and so does 00:02 then; b at 00:06 would be [00:06, 00:11), which is over.
    assert_eq!(out.counters.late, 1);
    assert_eq!(
        text(&out.take_side()),
        "source split-3 1 00:06 00:12 sessions 1 {\"k\":\"b\",\"v\":4,\"ts\":\"1970-01-01T00:06:00\"}"
    );
    assert_eq!(fired(&mut operator, i64::MAX), "b 00:08 00:13 00:12:59.999 1 16\na 00:02 00:15 00:14:59.999 4 43");
    let mut operator = sessions(0);
    let late = add(&mut operator, "a 1 00:05", at(10));
    assert_eq!((late.counters.late, operator.known_keys()), (1, 0), "exactly at the end, and no trace of the key");
    assert_eq!(add(&mut operator, "a 1 00:05", at(10) - 1).counters.late, 0);
}

#[test]
fn late_rows_correct_fired_sessions() {
    let mut operator = sessions(20 * MINUTE);
    add(&mut operator, "a 1 00:10\na 2 00:30\nb 1 00:10\nc 1 00:10\nd 1 00:10\nd 2 00:17", i64::MIN);
    fired(&mut operator, at(22));
    let mut correct = |rows: &str, stamp: i64| {
        add(&mut operator, rows, stamp);
        let sent = sent(|out| operator.epoch_end(1, out));
        updates_are_paired(&sent);
        text(&sent)
    };
    assert_eq!(correct("a 4 00:12", at(22)), "-U a 00:10 00:15 00:14:59.999 1 1\n+U a 00:10 00:17 00:16:59.999 2 5");
    assert_eq!(
        correct("c 2 00:14\nc 3 00:18", at(22)),
        "-D c 00:10 00:15 00:14:59.999 1 1",
        "widened beyond the watermark"
    );
    assert_eq!(
        correct("d 4 00:13", at(22)),
        "-U d 00:10 00:15 00:14:59.999 1 1\n+U d 00:10 00:22 00:21:59.999 3 7\n-D d 00:17 00:22 00:21:59.999 1 2",
        "joined"
    );
    assert_eq!(correct("e 1 00:05", at(22)), "e 00:05 00:10 00:09:59.999 1 1", "a session of late rows alone");
    assert_eq!(correct("f 1 00:20", at(22)), "", "not due yet");
    assert_eq!(
        sorted(&fired(&mut operator, at(40))),
        ["a 00:30 00:35 00:34:59.999 1 2", "c 00:10 00:23 00:22:59.999 3 6", "f 00:20 00:25 00:24:59.999 1 1"]
    );
    operator.epoch_end(2, &mut Output::new()).unwrap();
    // Lateness is over for sessions that ended by 00:20.
    assert_eq!(add(&mut operator, "b 7 00:12", at(40)).counters.late, 1);
    fired(&mut operator, i64::MAX);
    assert_eq!(text(&sent(|out| operator.epoch_end(3, out))), "");
    assert_eq!((operator.open_sessions(), operator.known_keys()), (0, 0));
}

pub type Rows = Vec<(u64, i64, i64)>;

/// Sessions by definition: (key, value, ms).
fn expected(rows: &Rows) -> Vec<String> {
    let mut by_key: BTreeMap<u64, Vec<(i64, i64)>> = BTreeMap::new();
    rows.iter().for_each(|(key, value, ms)| by_key.entry(*key).or_default().push((*ms, *value)));
    let mut lines = Vec::new();
    for (key, mut rows) in by_key {
        rows.sort_unstable();
        let mut from = 0;
        for to in 1..=rows.len() {
            if to == rows.len() || rows[to].0 - rows[to - 1].0 > 300_000 {
                let (start, end) = (rows[from].0, rows[to - 1].0 + 300_000);
                let bounds =
                    batch("a TIMESTAMP(3), b TIMESTAMP(3), c TIMESTAMP(3)", &[start, end, end - 1].map(time).join(" "));
                let total: i64 = rows[from..to].iter().map(|row| row.1).sum();
                lines.push(format!("k{key} {} {} {total}", text(&[bounds]), to - from));
                from = to;
            }
        }
    }
    lines.sort();
    lines
}

fn time(ms: i64) -> String {
    let s = ms / 1000;
    format!("{:02}:{:02}:{:02}.{:03}", s / 3600, s / 60 % 60, s % 60, ms % 1000)
}

pub fn as_batch(rows: &[(u64, i64, i64)]) -> Batch {
    let lines: Vec<String> = rows.iter().map(|(key, value, ms)| format!("k{key} {value} {}", time(*ms))).collect();
    batch(ROWS, &lines.join("\n"))
}

/// Any order within the disorder, any cut, any watermark that is true, restarts at any parallelism.
#[test]
fn any_cut_and_any_restart_give_the_same_sessions() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let lateness = [0, 10 * MINUTE][random.below(2) as usize];
        let disorder = [1, 600_000, 20_000_000][random.below(3) as usize];
        let input: Rows = (0..150)
            .map(|n| {
                let ms = 20_000_000 + n * 60_000 - random.below(disorder) as i64;
                (random.below(4), random.below(100) as i64, ms)
            })
            .collect();
        let build = |workers: usize| -> Vec<SessionAggregate> { (0..workers).map(|_| sessions(lateness)).collect() };
        let mut workers = build(1 + random.below(3) as usize);
        let (mut all, mut at, mut wm) = (Vec::new(), 0, i64::MIN);
        let mut checkpoints = Checkpoints::default();
        while at < input.len() {
            let next = (at + 1 + random.below(25) as usize).min(input.len());
            let piece = as_batch(&input[at..next]);
            at = next;
            let mut out = Output::new();
            let groups = key_groups(&key_hashes(&piece.rows.columns()[..1], piece.num_rows()), KEY_GROUPS);
            let count = workers.len();
            for (number, worker) in workers.iter_mut().enumerate() {
                let mask = groups.iter().map(|group| Some(owner(*group, count) == number)).collect();
                worker.process(0, piece.filter(&mask).unwrap(), wm, &mut out).unwrap();
            }
            assert_eq!(out.counters.late, 0);
            // One unit less than could be said: see "not guaranteed" in the operator's documentation.
            let true_wm = input[at..].iter().map(|row| row.2 * 1_000 - 2_000).min().unwrap_or(i64::MAX);
            if (random.below(2) == 0 || at == input.len()) && true_wm > wm {
                wm = true_wm;
                workers.iter_mut().for_each(|worker| worker.watermark(wm, &mut out).unwrap());
            }
            if random.below(3) == 0 || at == input.len() {
                workers.iter_mut().for_each(|worker| worker.epoch_end(0, &mut out).unwrap());
                workers = checkpoints.perhaps(workers, build, &mut random);
            }
            all.extend(out.take());
        }
        assert_eq!(relation(&all), expected(&input), "seed {seed}");
        assert!(workers.iter().all(|worker| worker.open_sessions() == 0 && worker.known_keys() == 0));
    }
}

/// While a checkpoint is copied in steps, sessions are widened, renamed, joined, fired and dropped: it is as if it had been copied at once.
#[test]
fn a_checkpoint_is_copied_while_rows_arrive() {
    let mut compared = 0;
    for seed in 0..150 {
        let mut random = Random(seed);
        let lateness = [0, 30 * MINUTE][random.below(2) as usize];
        let build = || sessions(lateness);
        let mut twins = Twins::new(build);
        let mut wm = i64::MIN;
        for n in 0..60 {
            let newest = 20_000_000 + n * 120_000;
            let row = |random: &mut Random| {
                (random.below(30), random.below(100) as i64, newest - random.below(4_000_000) as i64)
            };
            let rows: Rows = (0..1 + random.below(8)).map(|_| row(&mut random)).collect();
            let rows = as_batch(&rows);
            twins.call(|operator, out| operator.process(0, rows.clone(), wm, out));
            twins.between(&mut random);
            if random.below(3) == 0 {
                wm = wm.max((newest - random.below(4_000_000) as i64) * 1_000);
                twins.call(|operator, out| operator.watermark(wm, out));
                twins.between(&mut random);
            }
            if random.below(3) == 0 {
                twins.call(|operator, out| operator.epoch_end(n as u64, out));
                twins.after_epoch(build, &mut random);
            }
        }
        compared += twins.compared;
    }
    assert!(compared > 300, "{compared} checkpoints had changes");
}

/// With watermarks that run ahead: corrections add up to the sessions of the rows that were in time, if none was late.
#[test]
fn corrections_add_up_to_the_sessions() {
    let mut corrected = 0;
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut operator = sessions(60 * MINUTE);
        let mut out = Output::new();
        let (mut all, mut wm) = (Vec::new(), i64::MIN);
        let input: Rows = (0..80)
            .map(|n| {
                (random.below(3), random.below(100) as i64, 20_000_000 + n * 120_000 - random.below(3_000_000) as i64)
            })
            .collect();
        for piece in input.chunks(4) {
            operator.process(0, as_batch(piece), wm, &mut out).unwrap();
            let newest = piece.iter().map(|row| row.2 * 1_000).max().unwrap();
            if random.below(2) == 0 && newest > wm {
                wm = newest;
                operator.watermark(wm, &mut out).unwrap();
            }
            if random.below(3) == 0 {
                operator.epoch_end(0, &mut out).unwrap();
            }
            updates_are_paired(&out.main);
            all.extend(out.take());
        }
        operator.watermark(i64::MAX, &mut out).unwrap();
        operator.epoch_end(0, &mut out).unwrap();
        all.extend(out.take());
        assert_eq!(out.counters.late, 0);
        corrected += all.iter().filter(|batch| batch.kinds.is_some()).count();
        assert_eq!(relation(&all), expected(&input), "seed {seed}");
        assert_eq!((operator.open_sessions(), operator.known_keys()), (0, 0));
    }
    assert!(corrected > 100, "the inputs make corrections necessary");
}
