//! How many nanoseconds of CPU does a row cost in a window, from pane to result?
//!
//! Bids of an auction site: about ten of eleven new auctions in every 15 bids, times that rise by about 109 microseconds per row, so that a
//! tumble of ten seconds has some 92,000 rows. Batches of 8,192 rows lie in memory; one thread; no exchange, no output.
//! `cargo bench -p engine --bench windows [-- rows]`.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use engine::Batch;
use engine::operator::{Operator, Output, Stateless};
use engine::operators::aggregate::Aggregate;
use engine::operators::session::SessionAggregate;
use engine::operators::window_aggregate::WindowAggregate;
use engine::operators::window_assign::WindowAssign;
use engine::operators::window_partial::WindowPartial;
use engine::plan::{AggregateSpec, AssignSpec, Call, SessionSpec, WindowSpec, Windows};
use graph::AggregateFunction::{self, Count, Max, Sum};

const SECOND: i64 = 1_000_000;
const BATCH: usize = 8192;

fn main() {
    let rows = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    // Under `cargo test` a bench only has to run.
    let rows: usize = rows.unwrap_or(if std::env::args().any(|arg| arg == "--bench") { 10_000_000 } else { 50_000 });
    let input = bids(rows, 0);
    let shuffled = bids(rows, 2 * SECOND);
    let tumble = Windows::Hop { size: 10 * SECOND, slide: 10 * SECOND, offset: 0 };
    let hop = Windows::Hop { size: 10 * SECOND, slide: 2 * SECOND, offset: 0 };
    let wide = Windows::Hop { size: 60 * SECOND, slide: SECOND, offset: 0 };
    let steps = Windows::Cumulate { size: 60 * SECOND, step: 2 * SECOND, offset: 0 };
    let count = [(Count, None)];
    let three = [(Count, None), (Sum, Some(1)), (Max, Some(1))];
    for (name, input, windows, calls, partial) in [
        ("tumble 10 s, count", &input, tumble, &count[..], false),
        ("tumble 10 s, count, partial and final", &input, tumble, &count[..], true),
        ("tumble 10 s, count, sum, max", &input, tumble, &three[..], false),
        ("tumble 10 s, count, 2 s of disorder", &shuffled, tumble, &count[..], false),
        ("hop 10 s by 2 s, count", &input, hop, &count[..], false),
        ("hop 60 s by 1 s, count", &input, wide, &count[..], false),
        ("cumulate 60 s by 2 s, count", &input, steps, &count[..], false),
    ] {
        windowed(name, input, windows, calls, partial);
    }
    session(&input);
    running(&input);
}

fn bids(rows: usize, disorder: i64) -> Vec<RecordBatch> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("auction", DataType::Int64, false),
        Field::new("price", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
    ]));
    let mut state = 42u64;
    let mut random = move |below: u64| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    };
    let mut batches = Vec::new();
    for start in (0..rows).step_by(BATCH) {
        let range = start..(start + BATCH).min(rows);
        let (mut auctions, mut prices, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for row in range {
            // Half of the bids go to the hottest auction of the moment, the others to one of the last hundred.
            let newest = row as u64 * 3 / 46 + 1000;
            let auction = if random(2) == 0 { newest / 100 * 100 } else { newest - random(100) };
            auctions.push(auction as i64);
            prices.push(random(10_000) as i64);
            let time = row as i64 * 109 - if disorder > 0 { random(disorder as u64) as i64 } else { 0 };
            times.push(1_500_000_000_000 + time / 1000);
        }
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(auctions)),
            Arc::new(Int64Array::from(prices)),
            Arc::new(TimestampMillisecondArray::from(times)),
        ];
        batches.push(RecordBatch::try_new(schema.clone(), columns).expect("the columns fit the schema"));
    }
    batches
}

fn call((function, arg): (AggregateFunction, Option<usize>)) -> Call {
    Call {
        function,
        arg,
        arg_type: arg.map(|_| graph::DataType::BigInt),
        filter: None,
        distinct: false,
        fraction: None,
        time: None,
        retracts: false,
        wrap: false,
        result: graph::DataType::BigInt,
    }
}

fn output(windows: bool, calls: usize) -> graph::Schema {
    let mut columns = vec![graph::Column::new("auction", graph::DataType::BigInt, false)];
    if windows {
        let bound = |name: &str| graph::Column::new(name, graph::DataType::Timestamp(3), false);
        columns.extend(["window_start", "window_end", "window_time"].map(bound));
    }
    columns.extend((0..calls).map(|call| graph::Column::new(format!("r{call}"), graph::DataType::BigInt, true)));
    graph::Schema::new(columns)
}

/// The watermark after a batch: behind the largest time seen by the disorder and a unit.
fn watermark(batch: &RecordBatch) -> i64 {
    let times = batch.column(2).as_any().downcast_ref::<TimestampMillisecondArray>();
    times.and_then(arrow::compute::max).map_or(i64::MIN, |ms| ms * 1000 - 2 * SECOND - 1000)
}

struct Measure {
    begun: Instant,
    cpu: f64,
    rows: usize,
    out: usize,
    state: usize,
}

impl Measure {
    fn begin(input: &[RecordBatch]) -> Measure {
        let rows = input.iter().map(RecordBatch::num_rows).sum();
        Measure { begun: Instant::now(), cpu: cpu_seconds(), rows, out: 0, state: 0 }
    }

    fn take(&mut self, out: &mut Output, operator: &dyn Operator) {
        self.out += out.take().iter().map(Batch::num_rows).sum::<usize>();
        self.state = self.state.max(operator.state_bytes());
    }

    #[allow(clippy::print_stdout)] // What a bench is for.
    fn end(self, name: &str) {
        let cpu = (cpu_seconds() - self.cpu) * 1e9 / self.rows as f64;
        let wall = self.begun.elapsed().as_secs_f64() * 1e9 / self.rows as f64;
        let state = self.state as f64 / 1e6;
        println!(
            "{name:<40} {cpu:>6.1} ns CPU per row, {wall:>6.1} ns wall, {:>9} rows out, state {state:.1} MB",
            self.out
        );
    }
}

fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a valid place for the result, and all bits zero are a valid `rusage`.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn windowed(
    name: &str,
    input: &[RecordBatch],
    windows: Windows,
    calls: &[(AggregateFunction, Option<usize>)],
    with_partial: bool,
) {
    let calls: Vec<Call> = calls.iter().copied().map(call).collect();
    let argument = calls.iter().any(|call| call.arg.is_some());
    let assign = AssignSpec {
        time: 2,
        unit: 1000,
        windows,
        lateness: 0,
        keep: if argument { vec![0, 1] } else { vec![0] },
        ledger: None,
        shown: vec![],
        operator: "windows".into(),
    };
    let spec = WindowSpec {
        windows,
        unit: 1000,
        lateness: 0,
        keys: 1,
        output: output(true, calls.len()),
        calls,
        partial_input: with_partial,
    };
    let mut kept: Vec<Field> = assign.keep.iter().map(|at| input[0].schema().field(*at).clone()).collect();
    kept.push(Field::new("pane", DataType::Int64, false));
    if !windows.is_tumble() {
        kept.push(Field::new("from", DataType::Int64, false));
    }
    let names = Arc::new(|_| ("".into(), "".into()));
    let mut assign = WindowAssign::new(assign, Arc::new(Schema::new(kept)), names);
    let mut partial =
        WindowPartial::new(&WindowSpec { partial_input: false, ..spec.clone() }).expect("the plan is right");
    let mut last = WindowAggregate::new(&spec, None).expect("the plan is right");
    let mut measure = Measure::begin(input);
    let mut out = Output::new();
    for (number, rows) in input.iter().enumerate() {
        assign.map(Batch::inserts(rows.clone()), i64::MIN, &mut out).expect("it runs");
        // A watermark every ten batches: some 10 ms of a fast stream.
        let moves = number % 10 == 9;
        if with_partial {
            for batch in out.take() {
                partial.process(0, batch, 0, &mut out).expect("it runs");
            }
            if moves {
                partial.watermark(0, &mut out).expect("it runs");
            }
        }
        for batch in out.take() {
            last.process(0, batch, 0, &mut out).expect("it runs");
        }
        if moves {
            last.watermark(watermark(rows), &mut out).expect("it runs");
            measure.take(&mut out, &last);
        }
    }
    if with_partial {
        partial.epoch_end(0, &mut out).expect("it runs");
        for batch in out.take() {
            last.process(0, batch, 0, &mut out).expect("it runs");
        }
    }
    last.watermark(i64::MAX, &mut out).expect("it runs");
    measure.take(&mut out, &last);
    measure.end(name);
}

fn session(input: &[RecordBatch]) {
    let spec = SessionSpec {
        gap: SECOND,
        unit: 1000,
        lateness: 0,
        keys: 1,
        time: 2,
        calls: vec![call((Count, None))],
        output: output(true, 1),
        ledger: None,
        shown: vec![],
        operator: "sessions".into(),
    };
    let names = Arc::new(|_| ("".into(), "".into()));
    let mut operator = SessionAggregate::new(&spec, names, None).expect("the plan is right");
    let mut measure = Measure::begin(input);
    let mut out = Output::new();
    for (number, rows) in input.iter().enumerate() {
        operator.process(0, Batch::inserts(rows.clone()), 0, &mut out).expect("it runs");
        if number % 10 == 9 {
            operator.watermark(watermark(rows), &mut out).expect("it runs");
            measure.take(&mut out, &operator);
        }
    }
    operator.watermark(i64::MAX, &mut out).expect("it runs");
    measure.take(&mut out, &operator);
    measure.end("session of 1 s, count");
}

fn running(input: &[RecordBatch]) {
    for bounded in [false, true] {
        let calls = vec![call((Count, None)), call((Sum, Some(1)))];
        let spec =
            AggregateSpec { keys: 1, output: output(false, 2), calls, partial_input: false, retracts: false, bounded };
        let mut operator = Aggregate::new(spec, true).expect("the plan is right");
        let mut measure = Measure::begin(input);
        let mut out = Output::new();
        for (number, rows) in input.iter().enumerate() {
            operator.process(0, Batch::inserts(rows.clone()), 0, &mut out).expect("it runs");
            if number % 100 == 99 {
                operator.epoch_end(0, &mut out).expect("it runs");
                measure.take(&mut out, &operator);
            }
        }
        operator.watermark(i64::MAX, &mut out).expect("it runs");
        operator.epoch_end(0, &mut out).expect("it runs");
        measure.take(&mut out, &operator);
        measure.end(if bounded { "running count, sum; at the end" } else { "running count, sum; changes per epoch" });
    }
}
