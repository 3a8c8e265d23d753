//! Windows whose panes do not fit in memory: what they send adds up to what windows in memory send, through restarts, with other workers and
//! other backends.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use state::{MemoryStore, SnapshotWriter};

use super::disk_testing::*;
use super::results::STEP_ROWS;
use super::testing::*;
use super::window_aggregate::WindowAggregate;
use super::window_assign::WindowAssign;
use super::window_partial::WindowPartial;
use super::window_tests::*;
use crate::batch::Batch;
use crate::operator::{Operator, Output, Stateless};
use crate::plan::{WindowSpec, Windows};

fn make(around: &Around, spec: &WindowSpec, kind: Kind) -> Box<dyn Operator> {
    make_with_steps(around, spec, kind, STEP_ROWS)
}

fn make_with_steps(around: &Around, spec: &WindowSpec, kind: Kind, step_rows: usize) -> Box<dyn Operator> {
    Box::new(WindowAggregate::new(spec, around.disk_of(kind)).unwrap().with_steps(step_rows))
}

/// Rows of many keys, roughly in order, some far behind.
fn input(random: &mut Random, count: usize) -> Vec<Row> {
    let row = |at: usize, random: &mut Random, behind: u64| Row {
        key: 5 + random.below(60),
        value: random.below(100) as i64,
        minute_tenths: at as i64 - 300 - random.below(behind) as i64,
    };
    (0..count).map(|at| if at % 9 == 0 { row(at, random, 150) } else { row(at, random, 40) }).collect()
}

/// Sends what workers do with a batch.
fn deliver(workers: &mut [Box<dyn Operator>], batch: &Batch, stamp: i64, out: &mut Output) {
    for (worker, part) in exchanged(batch, workers.len()) {
        workers[worker].process(0, part, stamp, out).unwrap();
    }
}

/// Random rows, late ones among them, watermarks and restarts. The same goes to one operator in memory, which is never restarted.
fn agrees(seed: u64, windows: Windows, lateness: i64, kinds: &[Kind]) -> usize {
    let around = Around::new();
    let mut random = Random(seed);
    let attached = matches!(windows, Windows::Attached { .. });
    let mut job = Job::new(if attached { minutes(10, 5) } else { windows }, 1, lateness);
    let partial = !attached && random.below(2) == 0;
    let mut assign = job.assign();
    if attached {
        // The windows that rows come with are those of an aggregate before.
        job.window.windows = windows;
    }
    let last = WindowSpec { partial_input: partial, ..job.window.clone() };
    let mut before = partial.then(|| WindowPartial::new(&job.window).unwrap());
    let pick = |random: &mut Random| kinds[random.below(kinds.len() as u64) as usize];
    // A read of some key groups, several, or all of them.
    let step_rows = [1, 20, STEP_ROWS][seed as usize % 3];
    let make_stepped = |kind| make_with_steps(&around, &last, kind, step_rows);
    let mut workers = vec![make_stepped(pick(&mut random))];
    let mut memory: Vec<Box<dyn Operator>> = vec![make(&around, &last, Kind::Memory)];
    let (mut store, mut wrote, mut wm, mut on_disk) = (MemoryStore::new(), 0, i64::MIN, 0);
    let (mut found, mut wanted) = (Vec::new(), Vec::new());
    let (mut out, mut out_of_memory) = (Output::new(), Output::new());
    let rows = input(&mut random, 900);
    let mut left: VecDeque<&[Row]> = rows.chunks(30).collect();
    while let Some(piece) = left.pop_front() {
        let mut batches = VecDeque::from(assigned_to(&mut assign, attached, piece, wm, lateness));
        if let Some(before) = &mut before {
            let partial = sent(|out| {
                batches.drain(..).try_for_each(|batch| before.process(0, batch, wm, out))?;
                before.epoch_end(0, out)
            });
            batches.extend(partial);
        }
        batches.iter().for_each(|batch| deliver(&mut memory, batch, wm, &mut out_of_memory));
        batches.iter().for_each(|batch| deliver(&mut workers, batch, wm, &mut out));
        if random.below(2) == 0 || left.is_empty() {
            let newest = piece.iter().map(|row| row.minute_tenths).max().unwrap() * 6_000_000;
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
                // Rows may come while windows fire in steps: stamped with the watermark.
                if !partial
                    && random.below(4) == 0
                    && left.len() > 1
                    && let Some(piece) = left.pop_front()
                {
                    for batch in assigned_to(&mut assign, attached, piece, wm, lateness) {
                        deliver(&mut memory, &batch, wm, &mut out_of_memory);
                        deliver(&mut workers, &batch, wm, &mut out);
                    }
                }
            }
        }
        if random.below(3) == 0 || left.is_empty() {
            memory[0].epoch_end(0, &mut out_of_memory).unwrap();
            workers.iter_mut().for_each(|worker| worker.epoch_end(0, &mut out).unwrap());
            updates_are_paired(&out.main);
            found.extend(out.take());
            wanted.extend(out_of_memory.take());
            assert_eq!(relation(&found), relation(&wanted), "{windows:?}, lateness {lateness}, seed {seed}, {kinds:?}");
            let choice = random.below(4);
            if choice > 0 {
                let from = if wrote == workers.len() { std::mem::take(&mut store) } else { MemoryStore::new() };
                store = around.saved(&mut workers, from);
                wrote = workers.len();
                on_disk += usize::from(store.has_stored());
                if !attached {
                    nothing_outlives_its_windows(&around.rows(&store), wm, lateness);
                }
            }
            if choice > 1 {
                let (count, kind) = (1 + random.below(3) as usize, pick(&mut random));
                // Often the chains go on.
                let count = if choice == 2 { wrote } else { count };
                workers = around.restored(store.clone(), kind, count, make_stepped);
            }
        }
    }
    let mut writer = SnapshotWriter::new();
    workers[0].snapshot(1, &mut writer).unwrap();
    while workers[0].snapshot_more(&mut writer).unwrap() {}
    assert_eq!(around.finished(writer).rows(), 1, "nothing but the watermark is left");
    on_disk
}

/// Rows of panes end with the pane and the end of the first window that counts them. No window is longer than 12 minutes.
fn nothing_outlives_its_windows(rows: &[String], wm: i64, lateness: i64) {
    for row in rows.iter().filter(|row| row.starts_with("pane")) {
        let pane: i64 = match row.split(' ').collect::<Vec<_>>().as_slice() {
            ["pane_runs_places", pane, ..] => pane.parse().unwrap(),
            [.., pane, _] => pane.parse().unwrap(),
            _ => panic!("{row}"),
        };
        assert!(pane.saturating_add(12 * MINUTE + lateness) > wm, "{row} is there at {wm}");
    }
}

/// Rows with their panes; for attached windows, with windows that they are given.
fn assigned_to(assign: &mut WindowAssign, attached: bool, piece: &[Row], stamp: i64, lateness: i64) -> Vec<Batch> {
    let rows = sent(|out| assign.map(as_batch(piece), stamp, out));
    if !attached {
        return rows;
    }
    // `from` of a row that is late for nothing says nothing: its first window is given instead.
    rows.into_iter().map(|rows| with_windows(&rows, stamp.saturating_sub(lateness))).collect()
}

fn with_windows(rows: &Batch, closed: i64) -> Batch {
    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    let columns = rows.rows.columns();
    let panes = columns[columns.len() - 2].as_primitive::<arrow::datatypes::Int64Type>();
    // Each with an end that no row may be late for.
    let ends =
        panes.values().iter().map(|pane| (pane + 10 * MINUTE).max(closed.saturating_add(UNIT + 1).min(i64::MAX / 4)));
    let ends: ArrayRef = std::sync::Arc::new(Int64Array::from_iter_values(ends));
    let mut columns = columns.to_vec();
    let last = columns.len() - 1;
    columns[last] = ends;
    Batch::inserts(RecordBatch::try_new(rows.rows.schema(), columns).unwrap())
}

fn all_shapes() -> Vec<Windows> {
    [shapes(), vec![Windows::Attached { start: 0 }]].concat()
}

#[test]
fn windows_over_few_groups_in_memory_agree_with_windows_in_memory() {
    let mut on_disk = 0;
    for seed in 0..3 {
        for windows in all_shapes() {
            for lateness in [0, 6 * MINUTE] {
                // Of the larger ones some panes have been in checkpoints when they are written to disk.
                for slots in [2_000, 15_000, 40_000] {
                    on_disk += agrees(seed, windows, lateness, &[Kind::Disk(slots)]);
                }
            }
        }
    }
    assert!(on_disk > 50, "{on_disk} checkpoints had files");
}

#[test]
fn windows_move_between_memory_and_disk() {
    for seed in 10..14 {
        for windows in all_shapes() {
            for lateness in [0, 6 * MINUTE] {
                agrees(
                    seed,
                    windows,
                    lateness,
                    &[Kind::Memory, Kind::Disk(2_000), Kind::Disk(60_000), Kind::Disk(1 << 20)],
                );
            }
        }
    }
}

/// A pane of which a checkpoint has groups goes to disk, and gets others: what the earlier checkpoint has of it counts no more.
#[test]
fn a_pane_that_was_in_a_checkpoint_and_went_to_disk_counts_once() {
    let around = Around::new();
    let job = Job::new(minutes(10, 10), 1, 0);
    let build = || WindowAggregate::new(&job.window, Some(around.disk(1 << 20))).unwrap();
    let (mut operator, mut assign, mut out) = (build(), job.assign(), Output::new());
    let many: Vec<Row> = (0..100).map(|key| Row { key: key + 5, value: 1, minute_tenths: 1 }).collect();
    let few: Vec<Row> = (0..10).map(|key| Row { key: key + 5, value: 1, minute_tenths: 101 }).collect();
    let mut store = MemoryStore::new();
    for (step, rows) in [[many, few.clone()].concat(), few[..1].to_vec()].iter().enumerate() {
        for rows in assigned(&mut assign, as_batch(rows), i64::MIN) {
            operator.process(0, rows, i64::MIN, &mut out).unwrap();
        }
        let mut workers: Vec<Box<dyn Operator>> = vec![Box::new(operator)];
        store = around.saved(&mut workers, store);
        operator = build();
        operator.restore(&store.reader("it", 0, 1)).unwrap();
        if step == 0 {
            operator.write((10 * MINUTE, i64::MIN)).unwrap();
        }
    }
    operator.watermark(i64::MAX, &mut out).unwrap();
    let counts: Vec<String> =
        sorted(&text(&out.take())).into_iter().filter(|row| row.contains(" 00:10 00:20 ")).collect();
    assert_eq!(counts.len(), 10);
    assert_eq!(counts.iter().filter(|row| row.ends_with(" 1 1")).count(), 9, "{counts:?}");
    assert_eq!(counts.iter().filter(|row| row.ends_with(" 2 2")).count(), 1, "{counts:?}");
}

/// Far more groups than the budget, and what is held stays within it.
#[test]
fn what_windows_hold_in_memory_is_bounded() {
    let around = Around::new();
    for windows in
        [minutes(10, 10), minutes(10, 5), Windows::Cumulate { size: 12 * MINUTE, step: 3 * MINUTE, offset: 0 }]
    {
        for lateness in [0, 30 * MINUTE] {
            let job = Job::new(windows, 1, lateness);
            let budget = 800_000;
            let mut operator = make(&around, &job.window, Kind::Disk(budget));
            let (mut assign, mut out) = (job.assign(), Output::new());
            let (mut most, mut sent) = (0, 0);
            for round in 0..60u64 {
                let rows: Vec<Row> =
                    (0..1_000).map(|n| Row { key: round * 1_000 + n, value: 1, minute_tenths: 1 }).collect();
                for rows in assigned(&mut assign, as_batch(&rows), i64::MIN) {
                    operator.process(0, rows, i64::MIN, &mut out).unwrap();
                }
                most = most.max(operator.state_bytes());
            }
            while operator.advance(i64::MAX - 1, &mut out).unwrap() {
                sent += out.take().iter().map(Batch::num_rows).sum::<usize>();
                most = most.max(operator.state_bytes());
            }
            sent += out.take().iter().map(Batch::num_rows).sum::<usize>();
            let each = 60_000
                * if windows == minutes(10, 5) {
                    2
                } else if windows == minutes(10, 10) {
                    1
                } else {
                    4
                };
            assert_eq!(sent, each, "{windows:?}");
            assert!(most <= budget, "{most} bytes held, {budget} allowed: {windows:?}");
        }
    }
}

/// A checkpoint of what is in memory and on disk is copied while rows arrive, and panes are written, fire and go: it is as it was cut.
#[test]
fn a_checkpoint_is_copied_while_panes_go_to_disk() {
    let around = Around::new();
    let mut compared = 0;
    for seed in 0..2 {
        let mut random = Random(seed);
        for windows in shapes() {
            let job = Job::new(windows, 1, [0, 6 * MINUTE][random.below(2) as usize]);
            let (mut assign, mut out) = (job.assign(), Output::new());
            let kind = Kind::Disk([2_000, 30_000][random.below(2) as usize]);
            let mut twins = [make(&around, &job.window, kind), make(&around, &job.window, kind)];
            let mut wm = i64::MIN;
            let (mut stores, mut open) = ([MemoryStore::new(), MemoryStore::new()], None::<SnapshotWriter>);
            for piece in input(&mut random, 400).chunks(10) {
                for rows in assigned(&mut assign, as_batch(piece), wm) {
                    twins.iter_mut().for_each(|twin| twin.process(0, rows.clone(), wm, &mut out).unwrap());
                }
                if random.below(2) == 0 {
                    let newest = piece.iter().map(|row| row.minute_tenths).max().unwrap() * 6_000_000;
                    wm = wm.max(newest - random.below(4 * MINUTE as u64) as i64);
                    twins.iter_mut().for_each(|twin| twin.watermark(wm, &mut out).unwrap());
                }
                if let Some(writer) = &mut open
                    && (random.below(3) == 0 || !twins[1].snapshot_more(writer).unwrap())
                {
                    while twins[1].snapshot_more(writer).unwrap() {}
                    let snapshot = around.finished(open.take().unwrap());
                    stores[1].put("it", 0, snapshot);
                    let rows = stores.each_ref().map(|store| around.rows(store));
                    assert_eq!(rows[1], rows[0], "{windows:?}, seed {seed}");
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
    }
    assert!(compared > 60, "{compared} checkpoints were compared");
}
