//! Aggregates whose keys do not fit in memory: the same results, through restarts, with other workers and other backends.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use graph::AggregateFunction::{Count, Max, Sum};
use state::{KEY_GROUPS, MemoryStore, SnapshotWriter, key_groups, key_hashes, owner};

use super::aggregate::{Aggregate, AggregatePartial};
use super::disk_aggregate::DiskAggregate;
use super::disk_fold::DiskFold;
use super::disk_testing::*;
use super::testing::*;
use crate::batch::Batch;
use crate::operator::{Operator, Output};
use crate::plan::{AggregateSpec, Call};

const ROWS: &str = "k STRING, v BIGINT";

fn make(around: &Around, spec: &AggregateSpec, kind: Kind) -> Box<dyn Operator> {
    match kind {
        Kind::Memory => Box::new(Aggregate::new(spec.clone(), false).unwrap()),
        Kind::Disk(slots) if spec.bounded && !spec.retracts => {
            Box::new(DiskFold::new(spec, around.disk(slots)).unwrap())
        }
        Kind::Disk(slots) => Box::new(DiskAggregate::new(spec.clone(), around.disk(slots)).unwrap()),
    }
}

fn spec(retracts: bool, bounded: bool) -> AggregateSpec {
    let calls = [call(Count, None), call(Sum, Some(1)), call(Max, Some(1))];
    AggregateSpec {
        keys: 1,
        calls: calls.into_iter().map(|call| Call { retracts, ..call }).collect(),
        partial_input: false,
        retracts,
        bounded,
        output: schema("k STRING, n BIGINT, total BIGINT, most BIGINT"),
    }
}

fn sums(rows: &[(u64, i64)]) -> Vec<String> {
    let mut sums: BTreeMap<u64, (i64, i64, i64)> = BTreeMap::new();
    for (key, value) in rows {
        let sum = sums.entry(*key).or_insert((0, 0, i64::MIN));
        *sum = (sum.0 + 1, sum.1 + value, sum.2.max(*value));
    }
    let mut lines: Vec<String> = sums.iter().map(|(k, (n, sum, most))| format!("k{k} {n} {sum} {most}")).collect();
    lines.sort();
    lines
}

/// Random rows and restarts. Returns whether more was kept than fits into slots.
fn agrees(seed: u64, retracts: bool, bounded: bool, kinds: &[Kind]) {
    let around = Around::new();
    let mut random = Random(seed);
    let spec = spec(retracts, bounded);
    let partial = !retracts && random.below(2) == 0;
    let last = AggregateSpec { partial_input: partial, ..spec.clone() };
    let mut before = partial.then(|| AggregatePartial::new(&spec).unwrap());
    let pick = |random: &mut Random| kinds[random.below(kinds.len() as u64) as usize];
    let mut workers: Vec<Box<dyn Operator>> = vec![make(&around, &last, pick(&mut random))];
    let (mut store, mut wrote) = (MemoryStore::new(), 0);
    let mut there: Vec<(u64, i64)> = Vec::new();
    let mut all: Vec<Batch> = Vec::new();
    let deliver = |out: &mut Output, workers: &mut Vec<Box<dyn Operator>>| {
        for piece in out.take() {
            let groups = key_groups(&key_hashes(&piece.rows.columns()[..1], piece.num_rows()), KEY_GROUPS);
            let count = workers.len();
            for (number, worker) in workers.iter_mut().enumerate() {
                let mask = groups.iter().map(|group| Some(owner(*group, count) == number)).collect();
                let mut own = Output::new();
                worker.process(0, piece.filter(&mask).unwrap(), 0, &mut own).unwrap();
                out.main.extend(own.take());
            }
        }
    };
    for _ in 0..12 {
        let (mut out, mut lines) = (Output::new(), Vec::new());
        for _ in 0..random.below(300) {
            if retracts && random.below(2) == 0 && !there.is_empty() {
                let (key, value) = there.swap_remove(random.below(there.len() as u64) as usize);
                lines.push(format!("-D k{key} {value}"));
            } else {
                let row = (random.below(400), random.below(50) as i64 - 20);
                there.push(row);
                lines.push(format!("{}k{} {}", if retracts { "+I " } else { "" }, row.0, row.1));
            }
        }
        // What is taken back was there in an earlier batch, or in the same.
        for lines in lines.chunks(40) {
            let rows = batch(ROWS, &lines.join("\n"));
            match &mut before {
                Some(before) => before.process(0, rows, 0, &mut out).unwrap(),
                None => out.send(rows),
            }
            if let Some(before) = &mut before {
                before.epoch_end(0, &mut out).unwrap();
            }
            deliver(&mut out, &mut workers);
            all.extend(out.take());
        }
        workers.iter_mut().for_each(|worker| worker.epoch_end(0, &mut out).unwrap());
        updates_are_paired(&out.main);
        all.extend(out.take());
        if bounded {
            assert!(all.is_empty(), "rows leave at the end");
        } else {
            assert_eq!(relation(&all), sums(&there), "seed {seed}, {kinds:?}");
        }
        if random.below(3) == 0 {
            let from = if wrote == workers.len() { std::mem::take(&mut store) } else { MemoryStore::new() };
            store = around.saved(&mut workers, from);
            wrote = workers.len();
            let (count, kind) = (1 + random.below(3) as usize, pick(&mut random));
            workers = around.restored(store.clone(), kind, count, |kind| make(&around, &last, kind));
        }
    }
    if bounded {
        let mut out = Output::new();
        for worker in &mut workers {
            while worker.advance(i64::MAX, &mut out).unwrap() {}
            worker.epoch_end(0, &mut out).unwrap();
        }
        assert_eq!(relation(&out.take()), sums(&there), "seed {seed}, {kinds:?}");
        let from = if wrote == workers.len() { store } else { MemoryStore::new() };
        let store = around.saved(&mut workers, from);
        let mut again = around.restored(store, pick(&mut random), 1, |kind| make(&around, &last, kind));
        while again[0].advance(i64::MAX, &mut out).unwrap() {}
        assert_eq!(text(&out.take()), "", "the last rows leave once");
    }
}

#[test]
fn changes_add_up_to_the_sums_with_few_keys_in_memory() {
    for seed in 0..6 {
        for (retracts, bounded) in [(false, false), (true, false), (false, true), (true, true)] {
            agrees(seed, retracts, bounded, &[Kind::Disk(2_000)]);
        }
    }
}

#[test]
fn state_moves_between_memory_and_disk() {
    for seed in 10..16 {
        for (retracts, bounded) in [(false, false), (true, false), (false, true), (true, true)] {
            agrees(seed, retracts, bounded, &[Kind::Memory, Kind::Disk(4_000), Kind::Disk(1 << 20)]);
        }
    }
}

/// Far more keys than the budget, and what is held stays within it.
#[test]
fn what_is_held_in_memory_is_bounded() {
    let around = Around::new();
    for (retracts, bounded) in [(false, false), (true, false), (false, true)] {
        let budget = 400_000;
        let mut operator = make(&around, &spec(retracts, bounded), Kind::Disk(budget));
        let mut most = 0;
        let (mut out, mut sent) = (Output::new(), 0);
        let mark = if retracts { "+I " } else { "" };
        for round in 0..60 {
            let lines: Vec<String> = (0..1_000).map(|n| format!("{mark}k{} 1", round * 1_000 + n)).collect();
            operator.process(0, batch(ROWS, &lines.join("\n")), 0, &mut out).unwrap();
            operator.epoch_end(0, &mut out).unwrap();
            sent += out.take().iter().map(Batch::num_rows).sum::<usize>();
            most = most.max(operator.state_bytes());
        }
        while operator.advance(i64::MAX, &mut out).unwrap() {}
        sent += out.take().iter().map(Batch::num_rows).sum::<usize>();
        assert_eq!(sent, 60_000);
        assert!(most <= budget + budget / 4, "{most} bytes held, {budget} allowed");
    }
}

/// An epoch that changes more keys than fit sends some of its changes early; they add up to the same.
#[test]
fn an_epoch_may_change_more_keys_than_fit() {
    let around = Around::new();
    let mut operator = make(&around, &spec(true, false), Kind::Disk(20_000));
    let (mut all, mut there, mut early) = (Vec::new(), Vec::new(), 0);
    for round in 0..3 {
        let mut out = Output::new();
        for part in 0..20 {
            let lines: Vec<String> = (0..200).map(|n| format!("+I k{} {round}", (part * 150 + n) % 2_500)).collect();
            there.extend((0..200).map(|n| ((part * 150 + n) % 2_500, round)));
            operator.process(0, batch(ROWS, &lines.join("\n")), 0, &mut out).unwrap();
            early += out.main.len();
        }
        operator.epoch_end(0, &mut out).unwrap();
        updates_are_paired(&out.main);
        all.extend(out.take());
    }
    assert!(early > 0, "some left before the end of the epoch");
    let there: Vec<(u64, i64)> = there;
    assert_eq!(relation(&all), sums(&there));
}

/// A checkpoint is copied while rows arrive, are taken back, and leave memory: it is as it was cut.
#[test]
fn a_checkpoint_is_copied_while_rows_change() {
    let around = Around::new();
    let mut compared = 0;
    for (seed, retracts, slots) in
        (0..2).flat_map(|seed| [(seed, false, 1_500), (seed, true, 20_000), (seed, true, 1 << 20)])
    {
        let (mut random, spec) = (Random(seed), spec(retracts, false));
        let mut twins = [make(&around, &spec, Kind::Disk(slots)), make(&around, &spec, Kind::Disk(slots))];
        let (mut there, mut out, mut open) = (Vec::<(u64, i64)>::new(), Output::new(), None);
        for _ in 0..60 {
            let lines = (0..random.below(30)).map(|_| {
                if retracts && random.below(2) == 0 && !there.is_empty() {
                    let (key, value) = there.swap_remove(random.below(there.len() as u64) as usize);
                    return format!("-D k{key} {value}");
                }
                let row = (random.below(60), random.below(50) as i64);
                there.push(row);
                format!("{}k{} {}", if retracts { "+I " } else { "" }, row.0, row.1)
            });
            let rows = batch(ROWS, &lines.collect::<Vec<_>>().join("\n"));
            twins.iter_mut().for_each(|twin| twin.process(0, rows.clone(), 0, &mut out).unwrap());
            if let Some((writer, wanted)) = &mut open
                && !twins[1].snapshot_more(writer).unwrap()
            {
                let mut store = MemoryStore::new();
                let (writer, wanted): (SnapshotWriter, Vec<String>) = (std::mem::take(writer), std::mem::take(wanted));
                store.put("it", 0, around.finished(writer));
                assert_eq!(around.rows(&store), wanted, "seed {seed}, {retracts}, {slots}");
                open = None;
                compared += 1;
            }
            if random.below(3) == 0 {
                twins.iter_mut().for_each(|twin| twin.epoch_end(0, &mut out).unwrap());
                if open.is_none() {
                    let [at_once, stepped] = &mut twins;
                    let wanted = around.saved(std::slice::from_mut(at_once), MemoryStore::new());
                    let mut writer = SnapshotWriter::new();
                    stepped.snapshot(1, &mut writer).unwrap();
                    open = Some((writer, around.rows(&wanted)));
                }
            }
            out.take();
        }
    }
    assert!(compared > 10, "{compared} checkpoints were compared");
}

/// At the end of a run operators go before their last checkpoint is written.
#[test]
fn a_checkpoint_is_written_of_operators_that_are_gone() {
    let around = Around::new();
    let (spec, mut store) = (spec(false, false), MemoryStore::new());
    let mut operator = make(&around, &spec, Kind::Disk(1_000));
    let mut out = Output::new();
    operator.process(0, batch(ROWS, "k1 1\nk2 2\nk3 3"), 0, &mut out).unwrap();
    operator.epoch_end(0, &mut out).unwrap();
    let mut writer = SnapshotWriter::new();
    operator.snapshot(1, &mut writer).unwrap();
    while operator.snapshot_more(&mut writer).unwrap() {}
    drop(operator);
    store.put("it", 0, around.finished(writer));
    assert_eq!(around.rows(&store).len(), 4, "the rows, and the watermark");
}

/// For how long checkpoints hold up an operator: the cut, the longest step of copying, and how long a write right after the cut waits.
#[test]
#[ignore = "a measurement: cargo test -p engine --lib -- --ignored --nocapture pause"]
fn pause_of_a_checkpoint_with_a_million_keys() {
    use std::time::{Duration, Instant};

    let around = Around::new();
    let day = crate::plan::Windows::Hop { size: 86_400_000_000, slide: 86_400_000_000, offset: 0 };
    let window = super::window_tests::Job::new(day, 1, 0);
    let sessions = super::session_tests::spec(0);
    for slots in [1usize << 30, 64 << 20] {
        let disk = || Some(around.disk(slots));
        let aggregate = make(&around, &spec(false, false), Kind::Disk(slots));
        let windows = super::window_aggregate::WindowAggregate::new(&window.window, disk()).unwrap();
        let sessions = super::session::SessionAggregate::new(&sessions, names(), disk()).unwrap();
        let operators: [(&str, Box<dyn Operator>); 3] =
            [("aggregate", aggregate), ("windows", Box::new(windows)), ("sessions", Box::new(sessions))];
        for (name, mut operator) in operators {
            let rows_of = |keys: std::ops::Range<u64>| {
                keys.clone().step_by(8192).map(move |start| {
                    let lines: Vec<String> =
                        (start..(start + 8192).min(keys.end)).map(|n| format!("k{n} 1 00:00:01")).collect();
                    let columns = match name {
                        "windows" => "k STRING, v BIGINT, pane BIGINT",
                        "sessions" => "k STRING, v BIGINT, ts TIMESTAMP(3)",
                        _ => "k STRING, v BIGINT, unused STRING",
                    };
                    let lines = lines.join("\n");
                    let lines = if name == "windows" { lines.replace("00:00:01", "0") } else { lines };
                    batch(columns, &lines)
                })
            };
            let mut out = Output::new();
            // Much of this comes back from disk, and makes others leave.
            let others: Vec<Batch> = rows_of(0..50_000).collect();
            for keys in [0..1_000_000, 450_000..550_000, 0..0] {
                rows_of(keys.clone()).for_each(|rows| operator.process(0, rows, 0, &mut out).unwrap());
                operator.epoch_end(1, &mut out).unwrap();
                let mut writer = SnapshotWriter::new();
                let begun = Instant::now();
                operator.snapshot(1, &mut writer).unwrap();
                let cut = begun.elapsed();
                others.iter().for_each(|rows| operator.process(0, rows.clone(), 0, &mut out).unwrap());
                operator.epoch_end(2, &mut out).unwrap();
                let mut step = Duration::ZERO;
                loop {
                    let begun = Instant::now();
                    let more = operator.snapshot_more(&mut writer).unwrap();
                    step = step.max(begun.elapsed());
                    if !more {
                        break;
                    }
                }
                let (part, held) = around.finished_and_held(writer);
                let rows = part.rows();
                let changed = keys.end - keys.start;
                eprintln!(
                    "{name}, {} MiB of slots, {changed} changed: cut {cut:?}, step {step:?}, writes waited {held:?}, {rows} rows copied",
                    slots >> 20
                );
            }
        }
    }
}
