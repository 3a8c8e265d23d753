//! Windows from rows to results: lateness, panes, before and after the exchange.

#![allow(clippy::unwrap_used)]

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use graph::AggregateFunction::{Count, Sum};
use state::{KEY_GROUPS, key_groups, key_hashes, owner};

use super::testing::*;
use super::window_aggregate::WindowAggregate;
use super::window_assign::WindowAssign;
use super::window_expand::WindowExpand;
use super::window_partial::WindowPartial;
use crate::batch::{Batch, Origin};
use crate::operator::{Operator, Output, Stateless};
use crate::plan::{AssignSpec, WindowSpec, Windows};

pub const MINUTE: i64 = 60_000_000;
pub const UNIT: i64 = 1_000;
/// Rows: key, value, time.
pub const ROWS: &str = "k STRING, v BIGINT, ts TIMESTAMP(3)";
const WINDOW: &str = "window_start TIMESTAMP(3), window_end TIMESTAMP(3), window_time TIMESTAMP(3)";

pub fn minutes(size: i64, slide: i64) -> Windows {
    Windows::Hop { size: size * MINUTE, slide: slide * MINUTE, offset: 0 }
}

fn at(text: &str) -> i64 {
    let time = batch("ts TIMESTAMP(6)", text);
    time.rows.column(0).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().value(0)
}

/// A windowed aggregate of `keys` columns: lateness stage, perhaps a partial stage, final stage.
pub struct Job {
    pub assign: AssignSpec,
    pub window: WindowSpec,
}

impl Job {
    pub fn new(windows: Windows, keys: usize, lateness: i64) -> Job {
        let columns = ["k STRING, "][..keys].concat();
        let calls = vec![call(Count, None), call(Sum, Some(keys))];
        let assign = AssignSpec {
            time: 2,
            unit: UNIT,
            windows,
            lateness,
            keep: if keys == 1 { vec![0, 1] } else { vec![1] },
            ledger: Some(vec![("k".into(), 0), ("v".into(), 1), ("ts".into(), 2)]),
            shown: vec![],
            operator: "windows".into(),
        };
        let output = schema(&format!("{columns}{WINDOW}, n BIGINT, total BIGINT"));
        let window = WindowSpec { windows, unit: UNIT, lateness, keys, calls, partial_input: false, output };
        Job { assign, window }
    }

    pub fn assign(&self) -> WindowAssign {
        let mut kept = if self.window.keys == 1 { "k STRING, v BIGINT" } else { "v BIGINT" }.to_string();
        kept.push_str(if self.assign.windows.is_tumble() { ", pane BIGINT" } else { ", pane BIGINT, from BIGINT" });
        let nullable = arrow(&schema(&kept));
        WindowAssign::new(self.assign.clone(), nullable, names())
    }

    fn aggregate(&self) -> WindowAggregate {
        WindowAggregate::new(&self.window, None).unwrap()
    }

    fn after_partial(&self) -> WindowAggregate {
        WindowAggregate::new(&WindowSpec { partial_input: true, ..self.window.clone() }, None).unwrap()
    }

    /// The rows in one batch, bounded: only the final watermark.
    fn bounded(&self, rows: &str) -> Vec<Batch> {
        let mut aggregate = self.aggregate();
        let mut sent = Vec::new();
        let mut out = Output::new();
        for batch in assigned(&mut self.assign(), batch(ROWS, rows), i64::MIN) {
            aggregate.process(0, batch, i64::MIN, &mut out).unwrap();
        }
        assert!(out.take().is_empty(), "nothing leaves before the end");
        aggregate.watermark(i64::MAX, &mut out).unwrap();
        sent.extend(out.take());
        assert_eq!(aggregate.state_rows(), 0, "nothing is left");
        sent
    }
}

pub fn assigned(assign: &mut WindowAssign, batch: Batch, stamp: i64) -> Vec<Batch> {
    sent(|out| assign.map(batch, stamp, out))
}

/// The bids of Flink's documentation.
const BIDS: &str = "C 4 08:05
    A 2 08:07
    D 5 08:09
    B 3 08:11
    E 1 08:13
    F 6 08:17";

#[test]
fn golden_numbers() {
    let mut job = Job::new(minutes(10, 10), 0, 0);
    assert_eq!(text(&job.bounded(BIDS)), "08:00 08:10 08:09:59.999 3 11\n08:10 08:20 08:19:59.999 3 10");
    job = Job::new(minutes(10, 5), 0, 0);
    assert_eq!(
        text(&job.bounded(BIDS)),
        "08:00 08:10 08:09:59.999 3 11
08:05 08:15 08:14:59.999 5 15
08:10 08:20 08:19:59.999 3 10
08:15 08:25 08:24:59.999 1 6"
    );
    job = Job::new(Windows::Cumulate { size: 10 * MINUTE, step: 2 * MINUTE, offset: 0 }, 0, 0);
    assert_eq!(
        text(&job.bounded(BIDS)),
        "08:00 08:06 08:05:59.999 1 4
08:00 08:08 08:07:59.999 2 6
08:00 08:10 08:09:59.999 3 11
08:10 08:12 08:11:59.999 1 3
08:10 08:14 08:13:59.999 2 4
08:10 08:16 08:15:59.999 2 4
08:10 08:18 08:17:59.999 3 10
08:10 08:20 08:19:59.999 3 10"
    );
}

#[test]
fn expanded_rows_have_every_window() {
    let job = Job::new(minutes(10, 5), 0, 0);
    let mut expand = WindowExpand::new(&job.assign, arrow(&schema(&format!("{ROWS}, {WINDOW}"))), names());
    let rows = sent(|out| expand.map(batch(ROWS, "C 4 08:05\nF 6 08:17"), i64::MIN, out));
    assert_eq!(
        text(&rows),
        "C 4 08:05 08:00 08:10 08:09:59.999
C 4 08:05 08:05 08:15 08:14:59.999
F 6 08:17 08:10 08:20 08:19:59.999
F 6 08:17 08:15 08:25 08:24:59.999"
    );
    // At 08:12 the window that ended at 08:10 is closed; C still counts in the next one.
    let mut out = Output::new();
    let stamped = with_origin(batch(ROWS, "A 1 07:59\nC 4 08:05\nF 6 08:17"));
    expand.map(stamped, at("08:12:00"), &mut out).unwrap();
    assert_eq!(sorted(&text(&out.take()))[0], "C 4 08:05 08:05 08:15 08:14:59.999");
    assert_eq!((out.counters.late, out.counters.partially_late), (1, 1));
    assert_eq!(
        text(&out.take_side()),
        "source split-7 10 07:59 08:12 windows 2 {\"k\":\"A\",\"v\":1,\"ts\":\"1970-01-01T07:59:00\"}
source split-7 11 08:05 08:12 windows 1 {\"k\":\"C\",\"v\":4,\"ts\":\"1970-01-01T08:05:00\"}"
    );
}

fn with_origin(batch: Batch) -> Batch {
    let rows = batch.num_rows();
    let positions = (10..10 + rows as i64).collect::<Vec<_>>().into();
    Batch { origin: Some(Origin { splits: UInt32Array::from(vec![7; rows]), positions }), ..batch }
}

#[test]
fn lateness_is_decided_by_the_stamp_one_unit_before_the_end() {
    let job = Job::new(minutes(10, 10), 1, 0);
    let mut assign = job.assign();
    let row = || with_origin(batch(ROWS, "A 1 08:05"));
    let mut out = Output::new();
    assign.map(row(), at("08:09:59.998"), &mut out).unwrap();
    assert_eq!((out.take().len(), out.counters.late), (1, 0), "the window is still open");
    assign.map(row(), at("08:09:59.999"), &mut out).unwrap();
    assert_eq!((out.take().len(), out.counters.late), (0, 1), "the window is closed");
    assert_eq!(
        text(&out.take_side()),
        "source split-7 10 08:05 08:09:59.999 windows 1 {\"k\":\"A\",\"v\":1,\"ts\":\"1970-01-01T08:05:00\"}"
    );
    let mut lenient = Job::new(minutes(10, 10), 1, 2 * MINUTE).assign();
    lenient.map(row(), at("08:11:59.998"), &mut out).unwrap();
    assert_eq!(out.take().len(), 1);
    lenient.map(row(), at("08:11:59.999"), &mut out).unwrap();
    assert_eq!((out.take().len(), out.counters.late), (0, 2));
}

#[test]
fn a_partially_late_row_counts_from_its_first_open_window_on() {
    let job = Job::new(minutes(10, 5), 0, 0);
    let (mut assign, mut aggregate) = (job.assign(), job.aggregate());
    let mut out = Output::new();
    assign.map(batch(ROWS, "A 1 08:06\nB 2 08:11"), i64::MIN, &mut out).unwrap();
    assert!(out.take_side().is_empty());
    // 08:07 is late for [08:00, 08:10), although this operator's watermark has not got there yet.
    let rows = "C 4 08:07\nD 8 08:12\nE 16 07:59";
    assign.map(with_origin(batch(ROWS, rows)), at("08:10:00"), &mut out).unwrap();
    assert_eq!((out.counters.late, out.counters.partially_late), (1, 1));
    assert_eq!(
        text(&out.take_side()),
        "source split-7 10 08:07 08:10 windows 1 {\"k\":\"C\",\"v\":4,\"ts\":\"1970-01-01T08:07:00\"}
source split-7 12 07:59 08:10 windows 2 {\"k\":\"E\",\"v\":16,\"ts\":\"1970-01-01T07:59:00\"}"
    );
    for rows in out.take() {
        aggregate.process(0, rows, 0, &mut out).unwrap();
    }
    aggregate.watermark(at("08:30:00"), &mut out).unwrap();
    assert_eq!(
        text(&out.take()),
        "08:00 08:10 08:09:59.999 1 1
08:05 08:15 08:14:59.999 4 15
08:10 08:20 08:19:59.999 2 10"
    );
}

#[test]
fn windows_fire_in_order_one_unit_before_their_end_and_once() {
    let job = Job::new(minutes(10, 10), 1, 0);
    let mut aggregate = job.aggregate();
    let mut out = Output::new();
    for rows in assigned(&mut job.assign(), batch(ROWS, "A 1 08:25\nB 2 08:05\nA 3 08:07\nA 4 08:15"), i64::MIN) {
        aggregate.process(0, rows, i64::MIN, &mut out).unwrap();
    }
    let mut fire = |wm: &str| text(&sent(|out| aggregate.watermark(at(wm), out)));
    assert_eq!(fire("08:09:59.998"), "");
    assert_eq!(fire("08:09:59.999"), "B 08:00 08:10 08:09:59.999 1 2\nA 08:00 08:10 08:09:59.999 1 3");
    assert_eq!(fire("08:10:00"), "");
    assert_eq!(fire("09:00:00"), "A 08:10 08:20 08:19:59.999 1 4\nA 08:20 08:30 08:29:59.999 1 1");
    assert_eq!(aggregate.state_rows(), 0);
}

#[test]
#[should_panic(expected = "a row late for all its windows passed the lateness stage")]
fn a_row_for_a_closed_window_is_a_defect() {
    let job = Job::new(minutes(10, 10), 1, 0);
    let mut aggregate = job.aggregate();
    let mut out = Output::new();
    aggregate.watermark(at("08:09:59.999"), &mut out).unwrap();
    for rows in assigned(&mut job.assign(), batch(ROWS, "A 1 08:05"), i64::MIN) {
        aggregate.process(0, rows, i64::MIN, &mut out).unwrap();
    }
}

#[test]
fn windows_over_windows() {
    let spec = AssignSpec {
        time: 1,
        unit: UNIT,
        windows: Windows::Attached { start: 0 },
        lateness: 0,
        keep: vec![2],
        ledger: None,
        shown: vec![],
        operator: "top".into(),
    };
    let kept = arrow(&schema("v BIGINT, pane BIGINT, from BIGINT"));
    let mut assign = WindowAssign::new(spec.clone(), kept, names());
    let window = WindowSpec {
        windows: spec.windows,
        unit: UNIT,
        lateness: 0,
        keys: 0,
        calls: vec![call(Count, None), call(Sum, Some(0))],
        partial_input: false,
        output: schema(&format!("{WINDOW}, n BIGINT, total BIGINT")),
    };
    let mut aggregate = WindowAggregate::new(&window, None).unwrap();
    let mut out = Output::new();
    let rows = "08:00 08:10 1\n08:05 08:15 2\n08:00 08:10 4\n08:00 08:05 8";
    let columns = "window_start TIMESTAMP(3), window_end TIMESTAMP(3), v BIGINT";
    assign.map(batch(columns, rows), at("08:01:00"), &mut out).unwrap();
    assign.map(batch(columns, rows), at("08:04:59.999"), &mut out).unwrap();
    assert_eq!(out.counters.late, 1, "the window up to 08:05 is closed in the second batch");
    for rows in out.take() {
        aggregate.process(0, rows, 0, &mut out).unwrap();
    }
    aggregate.watermark(at("08:10:00"), &mut out).unwrap();
    assert_eq!(text(&out.take()), "08:00 08:05 08:04:59.999 1 8\n08:00 08:10 08:09:59.999 4 10");
    aggregate.watermark(i64::MAX, &mut out).unwrap();
    assert_eq!(text(&out.take()), "08:05 08:15 08:14:59.999 2 4");
}

#[test]
fn keys_alone_are_the_distinct_keys_of_each_window() {
    let mut job = Job::new(minutes(10, 10), 1, 0);
    job.assign.keep = vec![0];
    job.window.calls.clear();
    job.window.output = schema(&format!("k STRING, {WINDOW}"));
    let mut assign = WindowAssign::new(job.assign.clone(), arrow(&schema("k STRING, pane BIGINT")), names());
    let mut aggregate = job.aggregate();
    let mut out = Output::new();
    for rows in assigned(&mut assign, batch(ROWS, "A 1 08:05\nNULL 1 08:06\nA 2 08:07"), i64::MIN) {
        aggregate.process(0, rows, i64::MIN, &mut out).unwrap();
    }
    aggregate.watermark(i64::MAX, &mut out).unwrap();
    assert_eq!(text(&out.take()), "A 08:00 08:10 08:09:59.999\nNULL 08:00 08:10 08:09:59.999");
}

#[test]
fn a_fired_window_is_corrected_at_the_end_of_the_epoch() {
    let job = Job::new(minutes(10, 10), 1, 5 * MINUTE);
    let (mut assign, mut aggregate) = (job.assign(), job.aggregate());
    let mut add = |aggregate: &mut WindowAggregate, rows: &str, stamp: i64| {
        for rows in assigned(&mut assign, batch(ROWS, rows), stamp) {
            assert!(sent(|out| aggregate.process(0, rows, stamp, out)).is_empty());
        }
    };
    add(&mut aggregate, "A 1 08:05\nB 2 08:06\nC 3 08:07", i64::MIN);
    assert_eq!(sent(|out| aggregate.watermark(at("08:11:00"), out)).iter().map(Batch::num_rows).sum::<usize>(), 3);
    assert!(sent(|out| aggregate.epoch_end(1, out)).is_empty());
    add(&mut aggregate, "A 4 08:08\nD 5 08:09", at("08:11:00"));
    add(&mut aggregate, "A 6 08:08\nC 0 08:12", at("08:12:00"));
    // Lateness ends with the epoch; the correction still leaves.
    assert!(sent(|out| aggregate.watermark(at("08:14:59.999"), out)).is_empty());
    let corrections = sent(|out| aggregate.epoch_end(2, out));
    updates_are_paired(&corrections);
    assert_eq!(
        text(&corrections),
        "-U A 08:00 08:10 08:09:59.999 1 1
+U A 08:00 08:10 08:09:59.999 3 11
+I D 08:00 08:10 08:09:59.999 1 5"
    );
    assert!(sent(|out| aggregate.epoch_end(3, out)).is_empty(), "corrected once");
    assert_eq!(aggregate.state_rows(), 1, "the window is gone with its lateness, the next one is there");
}

#[test]
fn a_row_that_is_late_for_one_window_is_in_time_for_the_next() {
    let job = Job::new(minutes(10, 5), 1, 20 * MINUTE);
    let (mut assign, mut aggregate) = (job.assign(), job.aggregate());
    let mut add = |aggregate: &mut WindowAggregate, rows: &str, stamp: i64| {
        for rows in assigned(&mut assign, batch(ROWS, rows), stamp) {
            aggregate.process(0, rows, stamp, &mut Output::new()).unwrap();
        }
    };
    add(&mut aggregate, "A 1 08:07", i64::MIN);
    assert_eq!(text(&sent(|out| aggregate.watermark(at("08:10:00"), out))), "A 08:00 08:10 08:09:59.999 1 1");
    add(&mut aggregate, "A 2 08:08", at("08:10:00"));
    assert_eq!(
        sorted(&text(&sent(|out| aggregate.watermark(at("08:15:00"), out)))),
        ["+U A 08:00 08:10 08:09:59.999 2 3", "-U A 08:00 08:10 08:09:59.999 1 1", "A 08:05 08:15 08:14:59.999 2 3"],
        "the second window has it from the start, and the first one is corrected before"
    );
    assert_eq!(text(&sent(|out| aggregate.epoch_end(1, out))), "");
}

/// A row of a generated input.
#[derive(Clone, Copy)]
pub struct Row {
    pub key: u64,
    pub value: i64,
    pub minute_tenths: i64,
}

pub fn rows(random: &mut Random, count: usize) -> Vec<Row> {
    // Roughly in order, with some disorder, from before 1970 on.
    let row = |at: usize, random: &mut Random| Row {
        key: random.below(5),
        value: random.below(100) as i64,
        minute_tenths: at as i64 * 3 - 300 - random.below(60) as i64,
    };
    (0..count).map(|at| row(at, random)).collect()
}

pub fn as_batch(rows: &[Row]) -> Batch {
    let line = |row: &Row| {
        let ms = row.minute_tenths * 6_000;
        let key = if row.key == 4 { "NULL".to_string() } else { format!("k{}", row.key) };
        let time = spelled(ms);
        format!("{key} {} {time}", row.value)
    };
    batch(ROWS, &rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Milliseconds of 1969 or 1970 as a timestamp's text.
fn spelled(ms: i64) -> String {
    let (day, date) = if ms < 0 { (ms + 86_400_000, "1969-12-31") } else { (ms, "1970-01-01") };
    let (s, ms) = (day / 1000, day % 1000);
    format!("{date}T{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// What windows hold by definition.
pub fn expected(windows: Windows, rows: &[Row]) -> Vec<String> {
    let mut all: std::collections::BTreeMap<(i64, i64, u64), (i64, i64)> = Default::default();
    for row in rows {
        let time = row.minute_tenths * 6_000_000;
        let mut spans = Vec::new();
        for start in (-200..200).map(|minute| minute * MINUTE) {
            match windows {
                Windows::Hop { size, slide, offset } if (start - offset).rem_euclid(slide) == 0 => {
                    spans.push((start, start + size))
                }
                Windows::Cumulate { size, step, offset } if (start - offset).rem_euclid(size) == 0 => {
                    spans.extend((1..=size / step).map(|n| (start, start + n * step)))
                }
                _ => {}
            }
        }
        for (start, end) in spans.into_iter().filter(|(start, end)| (*start..*end).contains(&time)) {
            let sum = all.entry((end, start, row.key)).or_default();
            *sum = (sum.0 + 1, sum.1 + row.value);
        }
    }
    let line = |(&(end, start, key), &(count, sum)): (&(i64, i64, u64), &(i64, i64))| {
        let key = if key == 4 { "NULL".to_string() } else { format!("k{key}") };
        let time = |us: i64| spelled(us / 1000);
        let bounds = Batch::inserts(batch(WINDOW, &format!("{} {} {}", time(start), time(end), time(end - UNIT))).rows);
        format!("{key} {} {count} {sum}", text(&[bounds]))
    };
    let mut lines: Vec<String> = all.iter().map(line).collect();
    lines.sort();
    lines
}

pub fn shapes() -> Vec<Windows> {
    vec![
        minutes(10, 10),
        Windows::Hop { size: 10 * MINUTE, slide: 4 * MINUTE, offset: -MINUTE },
        Windows::Hop { size: 12 * MINUTE, slide: MINUTE, offset: 0 },
        Windows::Hop { size: 2 * MINUTE, slide: 5 * MINUTE, offset: MINUTE },
        Windows::Cumulate { size: 12 * MINUTE, step: 3 * MINUTE, offset: 2 * MINUTE },
    ]
}

/// Sends rows in pieces, with watermarks, epochs, perhaps a partial stage, and restarts with other parallelism between epochs: always the same
/// rows, because the watermark stays behind all that is still to come.
#[test]
fn any_cut_any_split_and_any_restart_give_the_same_rows() {
    for seed in 0..60 {
        let mut random = Random(seed);
        for windows in shapes() {
            let job = Job::new(windows, 1, [0, 3 * MINUTE][random.below(2) as usize]);
            let input = rows(&mut random, 150);
            let partial = random.below(2) == 1;
            let found = streamed(&job, &input, partial, &mut random);
            assert_eq!(found, expected(windows, &input), "{windows:?}, seed {seed}, partial {partial}");
        }
    }
}

fn streamed(job: &Job, input: &[Row], partial: bool, random: &mut Random) -> Vec<String> {
    let build = |workers: usize| -> Vec<WindowAggregate> {
        (0..workers).map(|_| if partial { job.after_partial() } else { job.aggregate() }).collect()
    };
    let mut workers = build(1 + random.below(3) as usize);
    let mut before = WindowPartial::new(&job.window).unwrap();
    let mut assign = job.assign();
    let (mut sent, mut out) = (Vec::new(), Output::new());
    let (mut wm, mut at) = (i64::MIN, 0);
    let mut checkpoints = Checkpoints::default();
    while at < input.len() {
        let next = (at + 1 + random.below(40) as usize).min(input.len());
        let mut batches = assigned(&mut assign, as_batch(&input[at..next]), wm);
        assert!(out.counters.late == 0);
        at = next;
        if partial {
            batches.drain(..).for_each(|batch| before.process(0, batch, wm, &mut out).unwrap());
        }
        // The largest watermark that is true of what is still to come.
        let behind = input[at..].iter().map(|row| row.minute_tenths).min().map(|tenths| tenths * 6_000_000 - UNIT);
        let next_wm = behind.unwrap_or(i64::MAX);
        let (advance, epoch) = (random.below(3) == 0 || at == input.len(), random.below(4) == 0 || at == input.len());
        if partial && (advance || epoch) {
            before.epoch_end(0, &mut out).unwrap();
        }
        batches.extend(out.take());
        for batch in batches {
            for (worker, part) in exchanged(&batch, workers.len()) {
                workers[worker].process(0, part, wm, &mut out).unwrap();
            }
        }
        if advance && next_wm > wm {
            wm = next_wm;
            workers.iter_mut().for_each(|worker| worker.watermark(wm, &mut out).unwrap());
        }
        if epoch {
            workers.iter_mut().for_each(|worker| worker.epoch_end(0, &mut out).unwrap());
            workers = checkpoints.perhaps(workers, build, random);
        }
        sent.extend(out.take());
    }
    relation(&sent)
}

/// While a checkpoint is copied in steps, panes get rows, are sealed, merged and retired: it is as if it had been copied at once.
#[test]
fn a_checkpoint_is_copied_while_rows_arrive() {
    let mut compared = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        for windows in shapes() {
            let job = Job::new(windows, 1, [0, 6 * MINUTE][random.below(2) as usize]);
            let input = rows(&mut random, 200);
            let mut assign = job.assign();
            let build = || job.aggregate();
            let mut twins = Twins::new(build);
            let (mut wm, mut at) = (i64::MIN, 0);
            while at < input.len() {
                let next = (at + 1 + random.below(8) as usize).min(input.len());
                for rows in assigned(&mut assign, as_batch(&input[at..next]), wm) {
                    twins.call(|operator, out| operator.process(0, rows.clone(), wm, out));
                    twins.between(&mut random);
                }
                at = next;
                if random.below(3) == 0 {
                    let newest = input[..at].iter().map(|row| row.minute_tenths).max().unwrap() * 6_000_000;
                    wm = wm.max(newest - random.below(5 * MINUTE as u64) as i64);
                    twins.call(|operator, out| operator.watermark(wm, out));
                    twins.between(&mut random);
                }
                if random.below(3) == 0 {
                    twins.call(|operator, out| operator.epoch_end(0, out));
                    twins.after_epoch(build, &mut random);
                }
            }
            compared += twins.compared;
        }
    }
    assert!(compared > 1_000, "{compared} checkpoints had changes");
}

pub fn exchanged(batch: &Batch, workers: usize) -> Vec<(usize, Batch)> {
    let groups = key_groups(&key_hashes(&batch.rows.columns()[..1], batch.num_rows()), KEY_GROUPS);
    (0..workers)
        .map(|worker| {
            let mask = groups.iter().map(|group| Some(owner(*group, workers) == worker)).collect();
            (worker, batch.filter(&mask).unwrap())
        })
        .filter(|(_, part)| part.num_rows() > 0)
        .collect()
}

/// With lateness, whatever the watermark does: what the changes add up to is the windows over the rows that were not late.
#[test]
fn corrections_add_up_to_the_rows_in_time() {
    for seed in 0..60 {
        let mut random = Random(seed);
        for windows in shapes() {
            let lateness = 6 * MINUTE;
            let job = Job::new(windows, 1, lateness);
            let input = rows(&mut random, 120);
            let (mut assign, mut aggregate) = (job.assign(), job.aggregate());
            let (mut out, mut sent) = (Output::new(), Vec::new());
            let mut wm = i64::MIN;
            let mut kept: Vec<Row> = Vec::new();
            for (at, piece) in input.chunks(7).enumerate() {
                let before = out.counters;
                assign.map(as_batch(piece), wm, &mut out).unwrap();
                let assigned = out.take();
                if out.counters.late + out.counters.partially_late > before.late + before.partially_late {
                    continue; // Which windows a late row counts in is tested elsewhere.
                }
                kept.extend(piece);
                for rows in assigned {
                    aggregate.process(0, rows, wm, &mut out).unwrap();
                }
                let newest = piece.iter().map(|row| row.minute_tenths * 6_000_000).max().unwrap();
                if random.below(2) == 0 && newest - MINUTE > wm {
                    wm = newest - MINUTE;
                    aggregate.watermark(wm, &mut out).unwrap();
                }
                if at % 3 == 2 {
                    aggregate.epoch_end(0, &mut out).unwrap();
                }
                updates_are_paired(&out.main);
                sent.extend(out.take());
            }
            aggregate.watermark(i64::MAX, &mut out).unwrap();
            aggregate.epoch_end(0, &mut out).unwrap();
            sent.extend(out.take());
            assert_eq!(relation(&sent), expected(windows, &kept), "{windows:?}, seed {seed}");
            assert_eq!(aggregate.state_rows(), 0);
        }
    }
}

#[test]
fn large_windows_leave_in_batches_and_small_ones_together() {
    let job = Job::new(minutes(10, 10), 1, 0);
    let mut aggregate = job.aggregate();
    let many = 20_000;
    let lines: Vec<String> = (0..many).map(|n| format!("k{n} 1 08:05")).collect();
    let small: Vec<String> = (0..80).map(|n| format!("a 1 {:02}:{:02}", 9 + n / 6, n % 6 * 10)).collect();
    let mut out = Output::new();
    for rows in [lines, small] {
        for rows in assigned(&mut job.assign(), batch(ROWS, &rows.join("\n")), i64::MIN) {
            aggregate.process(0, rows, i64::MIN, &mut out).unwrap();
        }
    }
    aggregate.watermark(i64::MAX, &mut out).unwrap();
    let sent = out.take();
    assert_eq!(sent.iter().map(Batch::num_rows).take(3).collect::<Vec<_>>(), [8192, 8192, 3616]);
    assert_eq!(sent.len(), 4, "windows of one row are one batch");
    let rows: Vec<RecordBatch> = sent.into_iter().map(|batch| batch.rows).collect();
    let all = concat_batches(&rows[0].schema(), &rows).unwrap();
    let counts = all.column(4).as_primitive::<Int64Type>();
    assert_eq!(counts.values().iter().sum::<i64>(), many + 80);
}

#[test]
fn a_partial_stage_holds_few_groups_and_none_across_an_epoch() {
    let job = Job::new(minutes(10, 10), 1, 0);
    let mut partial = WindowPartial::new(&job.window).unwrap();
    let (mut assign, mut out) = (job.assign(), Output::new());
    for round in 0..7 {
        let lines: Vec<String> = (0..10_000).map(|n| format!("k{round}-{n} 1 08:0{round}")).collect();
        for rows in assigned(&mut assign, batch(ROWS, &lines.join("\n")), i64::MIN) {
            partial.process(0, rows, i64::MIN, &mut out).unwrap();
        }
    }
    assert_eq!(out.take().iter().map(Batch::num_rows).sum::<usize>(), 70_000, "too many groups leave early");
    for rows in assigned(&mut assign, batch(ROWS, "a 1 08:05\na 2 08:05\na 4 08:15"), i64::MIN) {
        partial.process(0, rows, i64::MIN, &mut out).unwrap();
    }
    assert!(out.main.is_empty());
    partial.watermark(0, &mut out).unwrap();
    assert_eq!(out.take().iter().map(Batch::num_rows).sum::<usize>(), 2, "a state per pane and key");
}

#[test]
fn bounds_have_the_precision_and_type_of_the_time_attribute() {
    for (data_type, unit, last) in [
        ("TIMESTAMP(0)", 1_000_000, "08:09:59"),
        ("TIMESTAMP(6)", 1, "08:09:59.999999"),
        ("TIMESTAMP_LTZ(3)", 1_000, "08:09:59.999Z"),
    ] {
        let columns = format!("k STRING, v BIGINT, ts {data_type}");
        let job = Job::new(minutes(10, 10), 0, 0);
        let spec = AssignSpec { unit, ..job.assign.clone() };
        let mut assign = WindowAssign::new(spec, arrow(&schema("v BIGINT, pane BIGINT")), names());
        let bounds = format!("window_start {data_type}, window_end {data_type}, window_time {data_type}");
        let output = schema(&format!("{bounds}, n BIGINT, total BIGINT"));
        let mut aggregate = WindowAggregate::new(&WindowSpec { unit, output, ..job.window }, None).unwrap();
        let mut out = Output::new();
        for rows in assigned(&mut assign, batch(&columns, "A 1 08:05:00"), i64::MIN) {
            aggregate.process(0, rows, i64::MIN, &mut out).unwrap();
        }
        aggregate.watermark(at("08:10:00") - unit - 1, &mut out).unwrap();
        assert!(out.main.is_empty(), "{data_type}");
        aggregate.watermark(at("08:10:00") - unit, &mut out).unwrap();
        let found = text(&out.take());
        assert_eq!(
            found.split(' ').nth(2).map(|time| time.trim_start_matches("1970-01-01T")),
            Some(last),
            "{data_type}: {found}"
        );
    }
}

#[test]
fn a_time_that_no_window_can_hold_is_refused() {
    let job = Job::new(minutes(10, 10), 1, 0);
    let far = Batch::inserts(
        RecordBatch::try_new(
            arrow(&schema("k STRING, v BIGINT, ts TIMESTAMP(0)")),
            vec![
                std::sync::Arc::new(arrow::array::StringArray::from(vec!["a"])),
                std::sync::Arc::new(arrow::array::Int64Array::from(vec![1])),
                std::sync::Arc::new(arrow::array::TimestampSecondArray::from(vec![i64::MAX / 2])),
            ],
        )
        .unwrap(),
    );
    let error = job.assign().map(far, i64::MIN, &mut Output::new()).unwrap_err();
    assert_eq!(error.code, "time_out_of_range");
}

#[test]
fn rows_between_windows_are_counted_and_leave() {
    let job = Job::new(Windows::Hop { size: 2 * MINUTE, slide: 5 * MINUTE, offset: 0 }, 1, 0);
    let mut out = Output::new();
    job.assign().map(batch(ROWS, "a 1 08:01\na 2 08:03\na 4 08:05"), i64::MIN, &mut out).unwrap();
    assert_eq!((out.counters.filtered, out.counters.late), (1, 0));
    assert_eq!(out.take().iter().map(Batch::num_rows).sum::<usize>(), 2);
}

#[test]
fn many_windows_fire_in_steps() {
    let job = Job::new(Windows::Hop { size: 60 * MINUTE, slide: MINUTE, offset: 0 }, 1, 0);
    let input: Vec<String> = (0..4_000).map(|n| format!("k{n} 1 08:{:02}", n % 50)).collect();
    let (mut whole, mut steps) = (job.aggregate(), job.aggregate());
    let mut out = Output::new();
    for rows in assigned(&mut job.assign(), batch(ROWS, &input.join("\n")), i64::MIN) {
        whole.process(0, rows.clone(), i64::MIN, &mut out).unwrap();
        steps.process(0, rows, i64::MIN, &mut out).unwrap();
    }
    whole.watermark(i64::MAX, &mut out).unwrap();
    let expected = text(&out.take());
    let (mut found, mut count) = (Vec::new(), 0);
    loop {
        let more = steps.advance(i64::MAX, &mut out).unwrap();
        assert!(out.main.iter().map(Batch::num_rows).sum::<usize>() < 80_000);
        found.extend(out.take());
        count += 1;
        if !more {
            break;
        }
    }
    assert_eq!(count, 4, "240,000 rows");
    assert_eq!(text(&found), expected);
    assert!(!steps.advance(i64::MAX, &mut out).unwrap() && out.main.is_empty());
}
