//! Running aggregates: changes folded per epoch, retractions, restarts.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use graph::AggregateFunction::{Count, Max, Sum};
use state::{KEY_GROUPS, key_groups, key_hashes, owner};

use super::aggregate::{Aggregate, AggregatePartial};
use super::testing::*;
use crate::batch::Batch;
use crate::operator::{Operator, Output};
use crate::plan::{AggregateSpec, Call};

const ROWS: &str = "k STRING, v BIGINT";

fn spec(keys: usize) -> AggregateSpec {
    let columns = ["k STRING, "][..keys].concat();
    AggregateSpec {
        keys,
        calls: vec![call(Count, None), call(Sum, Some(1))],
        partial_input: false,
        retracts: false,
        bounded: false,
        output: schema(&format!("{columns}n BIGINT, total BIGINT")),
    }
}

fn retracting(keys: usize) -> AggregateSpec {
    let plain = spec(keys);
    let calls = plain.calls.iter().map(|call| Call { retracts: true, ..call.clone() }).collect();
    AggregateSpec { calls, retracts: true, ..plain }
}

/// Feeds a batch and ends the epoch.
fn epoch(aggregate: &mut Aggregate, rows: &str) -> String {
    let sent = sent(|out| {
        aggregate.process(0, batch(ROWS, rows), 0, out)?;
        assert!(out.main.is_empty(), "nothing leaves within an epoch");
        aggregate.epoch_end(1, out)
    });
    updates_are_paired(&sent);
    text(&sent)
}

#[test]
fn changes_are_folded_per_epoch() {
    let mut aggregate = Aggregate::new(spec(1), true).unwrap();
    assert_eq!(epoch(&mut aggregate, "a 1\nb 2\na 3"), "a 2 4\nb 1 2", "new keys are plain inserts");
    assert_eq!(epoch(&mut aggregate, "b 5\nc 1\nb 1"), "-U b 1 2\n+U b 3 8\n+I c 1 1");
    assert_eq!(text(&sent(|out| aggregate.epoch_end(3, out))), "", "an epoch without rows changes nothing");
    let mut totals = spec(1);
    totals.calls.remove(0);
    totals.output = schema("k STRING, total BIGINT");
    let mut totals = Aggregate::new(totals, true).unwrap();
    epoch(&mut totals, "a 1");
    assert_eq!(
        epoch(&mut totals, "a 0\nNULL 7\na NULL"),
        "NULL 7",
        "a result that is the same as before does not leave"
    );
}

#[test]
fn rows_that_are_taken_back_are_subtracted_and_empty_groups_go() {
    let mut aggregate = Aggregate::new(retracting(1), true).unwrap();
    assert_eq!(epoch(&mut aggregate, "+I a 1\n+I b 2\n+I c 9\n-D c 9"), "a 1 1\nb 1 2", "c came and went unseen");
    assert_eq!(epoch(&mut aggregate, "-U a 1\n+U a 4\n-D b 2"), "-U a 1 1\n+U a 1 4\n-D b 1 2");
    assert_eq!(epoch(&mut aggregate, "+I b 3\n-U a 4\n+U a 4"), "b 1 3", "b is new again, a is as it was");
    assert_eq!(epoch(&mut aggregate, "-D a 4\n+I a 5\n-D b 3\n+I d 1"), "-U a 1 4\n+U a 1 5\n-D b 1 3\n+I d 1 1");
}

/// `SELECT n, COUNT(*) FROM (SELECT k, COUNT(*) AS n ... GROUP BY k) GROUP BY n`.
#[test]
fn counts_of_counts_are_right_in_a_stream() {
    let mut inner = spec(1);
    inner.calls.truncate(1);
    inner.output = schema("k STRING, n BIGINT");
    let outer = AggregateSpec {
        calls: vec![Call { retracts: true, ..call(Count, None) }],
        output: schema("n BIGINT, keys BIGINT"),
        ..retracting(1)
    };
    let mut inner = Aggregate::new(inner, true).unwrap();
    let mut outer = Aggregate::new(outer, true).unwrap();
    let mut all = Vec::new();
    for rows in ["a 0\nb 0", "a 0\nc 0", "b 0\nb 0", "c 0\nd 0"] {
        let mut out = Output::new();
        inner.process(0, batch(ROWS, rows), 0, &mut out).unwrap();
        inner.epoch_end(0, &mut out).unwrap();
        for batch in out.take() {
            let counts = batch.with_rows(batch.rows.project(&[1]).unwrap());
            outer.process(0, counts, 0, &mut out).unwrap();
        }
        outer.epoch_end(0, &mut out).unwrap();
        updates_are_paired(&out.main);
        all.extend(out.take());
    }
    assert_eq!(relation(&all), ["1 1", "2 2", "3 1"], "d once, a and c twice, b three times");
}

#[test]
fn without_keys_there_is_always_one_row() {
    let mut global = spec(0);
    let mut empty = Aggregate::new(global.clone(), true).unwrap();
    assert_eq!(text(&sent(|out| empty.epoch_end(1, out))), "0 NULL");
    assert_eq!(text(&sent(|out| empty.epoch_end(2, out))), "");
    assert_eq!(epoch(&mut empty, "a 5"), "-U 0 NULL\n+U 1 5");
    let mut not_owner = Aggregate::new(global.clone(), false).unwrap();
    assert_eq!(text(&sent(|out| not_owner.epoch_end(1, out))), "");

    // What was sent once is not sent again by whoever restores it.
    let store = saved(&mut [&mut not_owner, &mut empty]);
    let group = key_groups(&key_hashes(&[], 1), KEY_GROUPS)[0];
    for worker in 0..3 {
        let owns = owner(group, 3) == worker;
        let mut restored = Aggregate::new(global.clone(), owns).unwrap();
        restored.restore(&store.reader("it", worker, 3)).unwrap();
        assert_eq!(text(&sent(|out| restored.epoch_end(3, out))), "");
        if owns {
            assert_eq!(epoch(&mut restored, "a 6"), "-U 1 5\n+U 2 11");
        }
    }

    let mut taken_back = Aggregate::new(retracting(0), true).unwrap();
    assert_eq!(epoch(&mut taken_back, "+I a 1"), "1 1");
    assert_eq!(epoch(&mut taken_back, "-D a 1"), "-U 1 1\n+U 0 NULL");

    global.bounded = true;
    let mut bounded = Aggregate::new(global, true).unwrap();
    assert_eq!(text(&sent(|out| bounded.epoch_end(1, out))), "");
    assert_eq!(text(&sent(|out| bounded.watermark(i64::MAX, out))), "0 NULL");
}

#[test]
fn bounded_input_gives_each_row_once_at_the_end() {
    let spec = AggregateSpec { bounded: true, ..spec(1) };
    let mut aggregate = Aggregate::new(spec.clone(), true).unwrap();
    assert_eq!(epoch(&mut aggregate, "a 1\nb 2"), "");
    let store = saved(&mut [&mut aggregate]);
    let mut aggregate = Aggregate::new(spec.clone(), true).unwrap();
    aggregate.restore(&store.reader("it", 0, 1)).unwrap();
    assert_eq!(epoch(&mut aggregate, "a 3"), "");
    assert_eq!(sorted(&text(&sent(|out| aggregate.watermark(i64::MAX, out)))), ["a 2 4", "b 1 2"]);
    assert_eq!(text(&sent(|out| aggregate.epoch_end(2, out))), "");
    // A restart after the end, before the last epoch was decided, does not repeat it.
    let store = saved(&mut [&mut aggregate]);
    let mut again = Aggregate::new(spec, true).unwrap();
    again.restore(&store.reader("it", 0, 1)).unwrap();
    assert_eq!(text(&sent(|out| again.watermark(i64::MAX, out))), "");
}

/// Random changes, in any cut, with or without a partial stage, with restarts at any parallelism: they add up to the sums of what is there.
#[test]
fn changes_add_up_to_the_sums() {
    let mut changes = 0;
    for seed in 0..80 {
        let mut random = Random(seed);
        let (retracts, partial) = [(false, false), (false, true), (true, false)][random.below(3) as usize];
        let mut plan = if retracts { retracting(1) } else { spec(1) };
        plan.calls.push(Call { retracts, ..call(Max, Some(1)) });
        plan.output = schema("k STRING, n BIGINT, total BIGINT, most BIGINT");
        let last = AggregateSpec { partial_input: partial, ..plan.clone() };
        let build = |workers: usize| -> Vec<Aggregate> {
            (0..workers).map(|worker| Aggregate::new(last.clone(), worker == 0).unwrap()).collect()
        };
        let mut workers = build(1 + random.below(3) as usize);
        let mut before = (!retracts).then(|| AggregatePartial::new(&plan).unwrap()).filter(|_| partial);
        let mut there: Vec<(u64, i64)> = Vec::new();
        let mut all = Vec::new();
        let mut checkpoints = Checkpoints::default();
        for _ in 0..20 {
            let mut out = Output::new();
            let mut lines = Vec::new();
            for _ in 0..random.below(30) {
                if retracts && random.below(2) == 0 && !there.is_empty() {
                    let (key, value) = there.swap_remove(random.below(there.len() as u64) as usize);
                    lines.push(format!("-D k{key} {value}"));
                } else {
                    let row = (random.below(60), random.below(50) as i64 - 20);
                    there.push(row);
                    lines.push(format!("{}k{} {}", if retracts { "+I " } else { "" }, row.0, row.1));
                }
            }
            let rows = batch(ROWS, &lines.join("\n"));
            let mut at = 0;
            while at < rows.num_rows() {
                let length = (1 + random.below(9) as usize).min(rows.num_rows() - at);
                let piece = rows.slice(at, length);
                at += length;
                match &mut before {
                    Some(before) => before.process(0, piece, 0, &mut out).unwrap(),
                    None => out.send(piece),
                }
            }
            if let Some(before) = &mut before {
                before.epoch_end(0, &mut out).unwrap();
            }
            for piece in out.take() {
                let keys = key_hashes(&piece.rows.columns()[..1], piece.num_rows());
                let groups = key_groups(&keys, KEY_GROUPS);
                let count = workers.len();
                for (number, worker) in workers.iter_mut().enumerate() {
                    let mask = groups.iter().map(|group| Some(owner(*group, count) == number)).collect();
                    worker.process(0, piece.filter(&mask).unwrap(), 0, &mut out).unwrap();
                }
            }
            workers.iter_mut().for_each(|worker| worker.epoch_end(0, &mut out).unwrap());
            updates_are_paired(&out.main);
            all.extend(out.take());
            assert_eq!(
                relation(&all),
                sums(&there),
                "seed {seed}: what left an epoch is true of a prefix of the input"
            );
            workers = checkpoints.perhaps(workers, build, &mut random);
        }
        changes += checkpoints.changes;
    }
    assert!(changes > 500, "{changes} parts of checkpoints were changes");
}

/// While a checkpoint is copied in steps, rows change keys, take them away and bring new ones: it is as if it had been copied at once.
#[test]
fn a_checkpoint_is_copied_while_rows_arrive() {
    let mut compared = 0;
    for seed in 0..100 {
        let mut random = Random(seed);
        let plan = if seed % 3 == 0 { spec(1) } else { retracting(1) };
        let build = || Aggregate::new(plan.clone(), true).unwrap();
        let mut twins = Twins::new(build);
        let mut there: Vec<(u64, i64)> = Vec::new();
        for epoch in 0..30 {
            for _ in 0..random.below(6) {
                let mut lines = Vec::new();
                for _ in 0..1 + random.below(6) {
                    if plan.retracts && random.below(2) == 0 && !there.is_empty() {
                        let (key, value) = there.swap_remove(random.below(there.len() as u64) as usize);
                        lines.push(format!("-D k{key} {value}"));
                    } else {
                        let row = (random.below(60), random.below(50) as i64);
                        there.push(row);
                        lines.push(format!("{}k{} {}", if plan.retracts { "+I " } else { "" }, row.0, row.1));
                    }
                }
                let rows = batch(ROWS, &lines.join("\n"));
                twins.call(|operator, out| operator.process(0, rows.clone(), 0, out));
                twins.between(&mut random);
            }
            twins.call(|operator, out| operator.epoch_end(epoch, out));
            twins.after_epoch(build, &mut random);
        }
        compared += twins.compared;
    }
    assert!(compared > 300, "{compared} checkpoints had changes");
}

fn sums(rows: &[(u64, i64)]) -> Vec<String> {
    let mut sums: BTreeMap<u64, (i64, i64, i64)> = BTreeMap::new();
    for (key, value) in rows {
        let sum = sums.entry(*key).or_insert((0, 0, i64::MIN));
        *sum = (sum.0 + 1, sum.1 + value, sum.2.max(*value));
    }
    let mut lines: Vec<String> =
        sums.iter().map(|(key, (count, sum, most))| format!("k{key} {count} {sum} {most}")).collect();
    lines.sort();
    lines
}

#[test]
fn the_state_of_a_partial_stage_is_bounded() {
    let mut partial = AggregatePartial::new(&spec(1)).unwrap();
    let lines: Vec<String> = (0..70_000).map(|n| format!("k{n} 1")).collect();
    let mut out = Output::new();
    for lines in lines.chunks(10_000) {
        partial.process(0, batch(ROWS, &lines.join("\n")), 0, &mut out).unwrap();
    }
    let early: usize = out.main.iter().map(Batch::num_rows).sum();
    assert_eq!(early, 70_000, "too many groups leave before the epoch ends");
    partial.process(0, batch(ROWS, "a 1"), 0, &mut out).unwrap();
    partial.watermark(5, &mut out).unwrap();
    assert_eq!(out.take().iter().map(Batch::num_rows).sum::<usize>(), early);
    partial.watermark(i64::MAX, &mut out).unwrap();
    assert_eq!(
        out.take().iter().map(Batch::num_rows).sum::<usize>(),
        1,
        "a bounded final stage acts on the final watermark"
    );
}

#[test]
fn an_update_is_never_cut_in_two_by_the_size_of_a_batch() {
    let mut aggregate = Aggregate::new(spec(1), true).unwrap();
    let lines: Vec<String> = (0..5_000).map(|n| format!("k{n} 1")).collect();
    epoch(&mut aggregate, &lines.join("\n"));
    let mut out = Output::new();
    aggregate.process(0, batch(ROWS, &format!("new 1\n{}", lines.join("\n"))), 0, &mut out).unwrap();
    aggregate.epoch_end(2, &mut out).unwrap();
    updates_are_paired(&out.main);
    let sizes: Vec<usize> = out.take().iter().map(Batch::num_rows).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (2, 10_001));
}
