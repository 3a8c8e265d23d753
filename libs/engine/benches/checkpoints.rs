//! For how long does a checkpoint hold up a keyed aggregate, and how much is written for what changed?
//!
//! Counts and sums by key over as many keys; then batches of 8,192 rows go on to arrive, a hundredth of the keys between two checkpoints, and
//! a step of the copy comes after each batch, as the driver does it. All in memory; writing the files is a task's business and not counted.
//! `cargo bench -p engine --bench checkpoints [-- keys]`; 16 million keys are about 1 GiB of state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use engine::Batch;
use engine::operator::{Operator, Output};
use engine::operators::aggregate::Aggregate;
use engine::plan::{AggregateSpec, Call};
use graph::AggregateFunction::{Count, Sum};
use state::SnapshotWriter;

const BATCH: u64 = 8192;
const CHECKPOINTS: u64 = 20;

fn main() {
    let keys = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    // Under `cargo test` a bench only has to run.
    let keys: u64 = keys.unwrap_or(if std::env::args().any(|arg| arg == "--bench") { 16_000_000 } else { 20_000 });
    let mut operator = Aggregate::new(spec(), true).expect("the plan is right");
    let begun = Instant::now();
    let mut longest_batch = Duration::ZERO;
    for start in (0..keys).step_by(BATCH as usize) {
        process(&mut operator, start..(start + BATCH).min(keys));
    }
    let rows = keys as f64;
    eprintln!("{:>6} MiB of state, filled in {:.0} ns per row", operator.state_bytes() >> 20, per(begun, rows));
    let begun = Instant::now();
    for batch in 0..keys / BATCH {
        longest_batch = longest_batch.max(process(&mut operator, spread(batch, keys)));
    }
    eprintln!("before the first checkpoint: {:.0} ns per row, a batch {longest_batch:?} at most", per(begun, rows));
    let (mut changed, mut written, mut whole, mut pause, mut during) = (0, 0, 0, Duration::ZERO, Duration::ZERO);
    let mut batch = 0;
    for checkpoint in 0..CHECKPOINTS {
        operator.epoch_end(checkpoint, &mut Output::new()).expect("sums do not overflow");
        let mut writer = SnapshotWriter::new();
        let begun = Instant::now();
        operator.snapshot(checkpoint, &mut writer).expect("it can be saved");
        pause = pause.max(begun.elapsed());
        let mut more = true;
        // At least a hundredth of the keys between two checkpoints, each of them once.
        let next = batch + (keys / 100 / BATCH).max(1);
        while more || batch < next {
            if batch < next {
                during = during.max(process(&mut operator, spread(batch, keys)));
                batch += 1;
                changed += BATCH * 40;
            }
            let begun = Instant::now();
            more = more && operator.snapshot_more(&mut writer).expect("it can be saved");
            pause = pause.max(begun.elapsed());
        }
        let snapshot = writer.finish().expect("it can be saved");
        let bytes = snapshot.to_bytes().expect("it can be saved").len();
        if checkpoint == 0 {
            eprintln!("the first checkpoint: {} MiB", bytes >> 20);
            changed = 0;
        } else {
            written += bytes as u64;
            whole += u32::from(snapshot.is_whole());
        }
    }
    eprintln!(
        "{} checkpoints of changes: {:.2} bytes written for a byte changed, {whole} of them whole; longest pause {pause:?}, batch {during:?}",
        CHECKPOINTS - 1,
        written as f64 / changed.max(1) as f64,
    );
    let (begun, batches) = (Instant::now(), keys / BATCH);
    for batch in batch..batch + batches {
        process(&mut operator, spread(batch, keys));
    }
    eprintln!("while changes are noted: {:.0} ns per row", per(begun, rows));
}

fn per(begun: Instant, rows: f64) -> f64 {
    begun.elapsed().as_nanos() as f64 / rows
}

/// Keys of a batch, all over the table; those of successive batches differ.
fn spread(batch: u64, keys: u64) -> impl Iterator<Item = u64> {
    (0..BATCH).map(move |row| (batch * BATCH + row) * 7919 % keys)
}

fn process(operator: &mut Aggregate, keys: impl Iterator<Item = u64>) -> Duration {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.map(|key| key as i64)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..keys.len() as i64));
    let rows = RecordBatch::try_from_iter([("key", keys), ("value", values)]).expect("two columns");
    let begun = Instant::now();
    operator.process(0, Batch::inserts(rows), 0, &mut Output::new()).expect("sums do not overflow");
    begun.elapsed()
}

fn spec() -> AggregateSpec {
    let number = graph::DataType::BigInt;
    let call = |function, arg: Option<usize>| Call {
        function,
        arg,
        arg_type: arg.map(|_| number.clone()),
        filter: None,
        distinct: false,
        fraction: None,
        time: None,
        retracts: false,
        wrap: false,
        result: number.clone(),
    };
    let column = |name: &str| graph::Column::new(name, number.clone(), true);
    AggregateSpec {
        keys: 1,
        calls: vec![call(Count, None), call(Sum, Some(1))],
        partial_input: false,
        retracts: false,
        // Keeps no results per epoch: what is measured is the state.
        bounded: true,
        output: graph::Schema::new(vec![column("key"), column("n"), column("total")]),
    }
}
