//! Sessions whose keys do not fit in memory: they send what sessions in memory send, through restarts, with other workers and backends.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use state::{KEY_GROUPS, MemoryStore, SnapshotWriter, key_groups, key_hashes, owner};

use super::disk_testing::*;
use super::session::SessionAggregate;
use super::session_tests::*;
use super::testing::*;
use crate::batch::Batch;
use crate::operator::{Operator, Output};

fn make(around: &Around, lateness: i64, kind: Kind) -> Box<dyn Operator> {
    Box::new(SessionAggregate::new(&spec(lateness), names(), around.disk_of(kind)).unwrap())
}

fn deliver(workers: &mut [Box<dyn Operator>], batch: &Batch, stamp: i64, out: &mut Output) {
    let groups = key_groups(&key_hashes(&batch.rows.columns()[..1], batch.num_rows()), KEY_GROUPS);
    let count = workers.len();
    for (number, worker) in workers.iter_mut().enumerate() {
        let mask = groups.iter().map(|group| Some(owner(*group, count) == number)).collect();
        worker.process(0, batch.filter(&mask).unwrap(), stamp, out).unwrap();
    }
}

/// Random rows, late ones among them, watermarks and restarts. The same goes to one operator in memory, which is never restarted. Returns how
/// many checkpoints had files.
fn agrees(seed: u64, lateness: i64, distinct: u64, kinds: &[Kind]) -> usize {
    let around = Around::new();
    let mut random = Random(seed);
    let pick = |random: &mut Random| kinds[random.below(kinds.len() as u64) as usize];
    let mut workers = vec![make(&around, lateness, pick(&mut random))];
    let mut memory = vec![make(&around, lateness, Kind::Memory)];
    let (mut store, mut wrote, mut wm, mut on_disk) = (MemoryStore::new(), 0, i64::MIN, 0);
    let (mut found, mut wanted) = (Vec::new(), Vec::new());
    let (mut out, mut out_of_memory) = (Output::new(), Output::new());
    let row = |n: i64, random: &mut Random| {
        let behind = [400_000, 400_000, 400_000, 4_000_000][random.below(4) as usize];
        (random.below(distinct), random.below(100) as i64, 20_000_000 + n * 6_000 - random.below(behind) as i64)
    };
    let rows: Rows = (0..1_000).map(|n| row(n, &mut random)).collect();
    let mut left: VecDeque<&[(u64, i64, i64)]> = rows.chunks(25).collect();
    while let Some(piece) = left.pop_front() {
        deliver(&mut memory, &as_batch(piece), wm, &mut out_of_memory);
        deliver(&mut workers, &as_batch(piece), wm, &mut out);
        if random.below(2) == 0 || left.is_empty() {
            let newest = piece.iter().map(|row| row.2).max().unwrap() * 1_000;
            wm = wm.max(newest - random.below(4 * MINUTE as u64) as i64);
            if left.is_empty() {
                wm = i64::MAX;
            }
            memory[0].watermark(wm, &mut out_of_memory).unwrap();
            loop {
                let more = workers.iter_mut().fold(false, |more, worker| worker.advance(wm, &mut out).unwrap() | more);
                if !more {
                    break;
                }
                // Rows may come while sessions fire in steps: stamped with the watermark.
                if random.below(2) == 0
                    && left.len() > 1
                    && let Some(piece) = left.pop_front()
                {
                    deliver(&mut memory, &as_batch(piece), wm, &mut out_of_memory);
                    deliver(&mut workers, &as_batch(piece), wm, &mut out);
                }
            }
        }
        assert_eq!(out.counters.late, out_of_memory.counters.late, "seed {seed}, {kinds:?}");
        if random.below(3) == 0 || left.is_empty() {
            memory[0].epoch_end(0, &mut out_of_memory).unwrap();
            workers.iter_mut().for_each(|worker| worker.epoch_end(0, &mut out).unwrap());
            updates_are_paired(&out.main);
            found.extend(out.take());
            wanted.extend(out_of_memory.take());
            assert_eq!(relation(&found), relation(&wanted), "lateness {lateness}, seed {seed}, {kinds:?}");
            let choice = random.below(4);
            if choice > 0 {
                let from = if wrote == workers.len() { std::mem::take(&mut store) } else { MemoryStore::new() };
                store = around.saved(&mut workers, from);
                wrote = workers.len();
                on_disk += usize::from(store.has_stored());
            }
            if choice > 1 {
                let (count, kind) = (1 + random.below(3) as usize, pick(&mut random));
                // Often the chains go on.
                let count = if choice == 2 { wrote } else { count };
                workers = around.restored(store.clone(), kind, count, |kind| make(&around, lateness, kind));
            }
        }
    }
    let store = around.saved(&mut workers, MemoryStore::new());
    let left = around.rows(&store);
    assert!(left.iter().all(|row| row.starts_with("watermark")), "nothing is left: {left:?}");
    on_disk
}

#[test]
fn sessions_over_few_keys_in_memory_agree_with_sessions_in_memory() {
    let mut on_disk = 0;
    for seed in 0..8 {
        for lateness in [0, 20 * MINUTE] {
            for distinct in [10, 200] {
                on_disk += agrees(seed, lateness, distinct, &[Kind::Disk(1_000)]);
            }
        }
    }
    assert!(on_disk > 50, "{on_disk} checkpoints had files");
}

#[test]
fn sessions_move_between_memory_and_disk() {
    for seed in 10..18 {
        for lateness in [0, 20 * MINUTE] {
            let kinds = [Kind::Memory, Kind::Disk(1_000), Kind::Disk(20_000), Kind::Disk(1 << 20)];
            agrees(seed, lateness, 100, &kinds);
        }
    }
}

/// Sessions of a key lie in several parts of a chain, and there is little room while they are read: those that leave and come back meanwhile
/// are in the checkpoints that follow.
#[test]
fn what_comes_back_during_a_restore_is_in_the_next_checkpoint() {
    let mut changes = 0;
    for room in [600_000, 700_000, 1_000_000] {
        let around = Around::new();
        let mut workers = vec![make(&around, 0, Kind::Disk(1 << 24))];
        let (mut store, mut out) = (MemoryStore::new(), Output::new());
        for (part, keys) in [2_000, 100, 100].into_iter().enumerate() {
            let rows: Rows = (0..keys).map(|key| (key * 17 % 2_000, 1, 20_000_000 + part as i64 * 1_000_000)).collect();
            workers[0].process(0, as_batch(&rows), i64::MIN, &mut out).unwrap();
            workers[0].epoch_end(0, &mut out).unwrap();
            store = around.saved(&mut workers, store);
        }
        for _ in 0..2 {
            workers = around.restored(store.clone(), Kind::Disk(room), 1, |kind| make(&around, 0, kind));
            let mut writer = SnapshotWriter::new();
            workers[0].snapshot(1, &mut writer).unwrap();
            while workers[0].snapshot_more(&mut writer).unwrap() {}
            let part = around.finished(writer);
            changes += usize::from(!part.is_whole());
            store.put("it", 0, part);
        }
        workers = around.restored(store, Kind::Disk(room), 1, |kind| make(&around, 0, kind));
        workers[0].watermark(i64::MAX, &mut out).unwrap();
        let sent: usize = out.take().iter().map(Batch::num_rows).sum();
        assert_eq!(sent, 2_200, "{room} bytes of room");
    }
    assert!(changes > 1, "{changes} checkpoints were of changes");
}

/// Far more sessions than the budget, and what is held stays within it.
#[test]
fn what_sessions_hold_in_memory_is_bounded() {
    let around = Around::new();
    for lateness in [0, 20 * MINUTE] {
        let budget = 1_000_000;
        let mut operator = make(&around, lateness, Kind::Disk(budget));
        let (mut out, mut most, mut sent) = (Output::new(), 0, 0);
        for round in 0..60u64 {
            let rows: Rows = (0..1_000).map(|n| (round * 1_000 + n, 1, 20_000_000)).collect();
            operator.process(0, as_batch(&rows), i64::MIN, &mut out).unwrap();
            most = most.max(operator.state_bytes());
        }
        let mut more = true;
        while more {
            more = operator.advance(i64::MAX - 1, &mut out).unwrap();
            sent += out.take().iter().map(Batch::num_rows).sum::<usize>();
            most = most.max(operator.state_bytes());
        }
        assert_eq!(sent, 60_000);
        assert!(most <= budget, "{most} bytes held, {budget} allowed");
    }
}

/// A checkpoint of what is in memory and on disk is copied while rows arrive, and keys leave and come back: it is as it was cut.
#[test]
fn a_checkpoint_is_copied_while_keys_leave() {
    let around = Around::new();
    let mut compared = 0;
    for seed in 0..4 {
        let mut random = Random(seed);
        let lateness = [0, 20 * MINUTE][random.below(2) as usize];
        let mut twins = [0, 1].map(|_| make(&around, lateness, Kind::Disk(1_000)));
        let (mut wm, mut out) = (i64::MIN, Output::new());
        let (mut stores, mut open) = ([MemoryStore::new(), MemoryStore::new()], None::<SnapshotWriter>);
        for n in 0..120i64 {
            let newest = 20_000_000 + n * 60_000;
            let row = |random: &mut Random| (random.below(60), 1, newest - random.below(1_000_000) as i64);
            let rows: Rows = (0..10).map(|_| row(&mut random)).collect();
            let rows = as_batch(&rows);
            twins.iter_mut().for_each(|twin| twin.process(0, rows.clone(), wm, &mut out).unwrap());
            if random.below(2) == 0 {
                wm = wm.max((newest - random.below(1_000_000) as i64) * 1_000);
                twins.iter_mut().for_each(|twin| twin.watermark(wm, &mut out).unwrap());
            }
            if let Some(writer) = &mut open
                && (random.below(3) == 0 || !twins[1].snapshot_more(writer).unwrap())
            {
                while twins[1].snapshot_more(writer).unwrap() {}
                stores[1].put("it", 0, around.finished(open.take().unwrap()));
                // Which keys are on disk differs: what waits to be copied takes memory too.
                let sessions = |store| {
                    let rows: Vec<String> = around.rows(store);
                    let columns = |row: &String| row.split(' ').skip(1).take(6).collect::<Vec<_>>().join(" ");
                    let mut rows: Vec<String> = rows.iter().filter(|row| !row.contains("_due ")).map(columns).collect();
                    rows.sort();
                    rows
                };
                let rows = stores.each_ref().map(sessions);
                assert_eq!(rows[1], rows[0], "seed {seed}");
                compared += 1;
            }
            if random.below(2) == 0 && open.is_none() {
                twins.iter_mut().for_each(|twin| twin.epoch_end(0, &mut out).unwrap());
                let [at_once, stepped] = &mut twins;
                stores[0] = around.saved(std::slice::from_mut(at_once), std::mem::take(&mut stores[0]));
                let mut writer = SnapshotWriter::new();
                stepped.snapshot(1, &mut writer).unwrap();
                open = Some(writer);
            }
            out.take();
        }
    }
    assert!(compared > 60, "{compared} checkpoints were compared");
}
