//! A source instance on a worker: takes what its reader sends, keeps its watermark, and cuts epochs.
//!
//! After its cut of epoch E an instance keeps its watermark until the probe has passed E, so that the closing watermark of E, the minimum
//! over all instances at their cuts, is the same on every worker. A finished instance goes on cutting at the final watermark until the
//! leader names the last epoch.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use timely::scheduling::activate::Activator;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::clock::SourceClock;
use super::driver::{Context, Ports};
use super::messages::{Cut, CutReport, FromWorker};
use super::metrics::{Holding, RowCounts};
use super::tail::Letters;
use super::time::{Time, WM_FINAL};
use crate::batch::{Batch, Origin};
use crate::error::{Result, RunError};
use crate::operator::{Output, Stateless};
use crate::operators::times;
use crate::plan::SourceTime;
use crate::source::{BadRecord, RowPositions, SourceEvent};

/// How much an instance may send in an epoch, and how often it moves its watermark.
#[derive(Clone, Copy)]
pub struct Limits {
    pub epoch_max_bytes: u64,
    pub epoch_every_rows: Option<u64>,
    pub watermark_interval_us: i64,
}

/// What the leader wants of an instance; filled by the step loop.
#[derive(Default)]
pub struct Orders {
    pub cuts: VecDeque<Cut>,
    pub drain: bool,
}

pub struct Ingest {
    pub context: Context,
    pub ports: Ports,
    pub activator: Activator,
    pub orders: Rc<RefCell<Orders>>,
    /// Cleared when the reader's channel has closed.
    pub events: Option<UnboundedReceiver<SourceEvent>>,
    pub clock: SourceClock,
    pub prelude: Option<Box<dyn Stateless>>,
    pub time: Option<SourceTime>,
    pub on_bad: graph::OnBad,
    pub origin: bool,
    pub limits: Limits,
    /// Names for messages: the table, and the id of a split by its number.
    pub table: Arc<str>,
    pub split_name: Arc<dyn Fn(u32) -> Arc<str> + Send + Sync>,
    /// Position among the sources of the plan.
    pub source: usize,
    pub epoch: u64,
    pub flow: Flow,
}

/// Where the instance is within its epoch.
pub struct Flow {
    rows: u64,
    bytes: u64,
    /// A cut was asked for: nothing is taken from the reader until it comes.
    waiting: Option<Holding>,
    finish_told: bool,
    /// The watermark that the capability is at.
    shown: i64,
    shown_at: Option<Instant>,
    ended: bool,
    drained: bool,
}

impl Flow {
    /// At the beginning of an attempt whose capability is at `watermark`.
    pub fn new(watermark: i64) -> Flow {
        Flow {
            rows: 0,
            bytes: 0,
            waiting: None,
            finish_told: false,
            shown: watermark,
            shown_at: None,
            ended: false,
            drained: false,
        }
    }
}

/// Events taken per activation, so that what they cause is worked on while it is warm.
const EVENTS_PER_ACTIVATION: usize = 4;

impl Ingest {
    pub fn activate(&mut self) {
        if self.context.state.failed() || self.flow.ended {
            return;
        }
        let begun = Instant::now();
        if let Err(error) = self.work() {
            self.context.state.fail(error.operator(&self.context.name));
        }
        self.context.metrics.busy(begun.elapsed());
    }

    fn work(&mut self) -> Result<()> {
        let (mut taken, mut more) = (0, false);
        loop {
            if self.obey() {
                if self.flow.ended {
                    return Ok(());
                }
                continue;
            }
            if self.flow.waiting.is_some() {
                break;
            }
            if taken == EVENTS_PER_ACTIVATION {
                more = true;
                self.activator.activate();
                break;
            }
            taken += 1;
            let Some(events) = &mut self.events else { break };
            match events.try_recv() {
                Ok(event) => self.take(event)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.events = None;
                    if !self.clock.finished() {
                        // A reader that failed has said why before its channel closed, and the first cause counts.
                        return Err(RunError::internal("the reader returned before its splits had ended"));
                    }
                }
            }
        }
        if let Some(wait_us) = self.clock.look(now_us()) {
            self.activator.activate_after(std::time::Duration::from_micros(wait_us as u64));
        }
        self.show_watermark(false);
        if !more {
            self.ports.flush();
        }
        if self.clock.finished() && !self.flow.finish_told {
            self.flow.finish_told = true;
            self.context
                .state
                .send(FromWorker::SourceFinished { source: self.source, worker: self.context.state.worker });
        }
        Ok(())
    }

    /// Does what the leader wants, if it can be done now. Returns whether anything was done.
    fn obey(&mut self) -> bool {
        let (drain, cut) = {
            let orders = self.orders.borrow();
            (orders.drain, orders.cuts.front().cloned())
        };
        if drain && !self.flow.drained {
            self.flow.drained = true;
            self.events = None;
            self.clock.drain();
            return true;
        }
        // At most two epochs are open: the next one begins when the one before this has passed.
        match cut {
            Some(cut) if self.context.state.passed().saturating_add(1) >= cut.epoch => {
                assert!(cut.epoch == self.epoch, "epochs are cut in order");
                self.orders.borrow_mut().cuts.pop_front();
                self.cut(&cut);
                true
            }
            _ => false,
        }
    }

    fn cut(&mut self, cut: &Cut) {
        if cut.kind.checkpoint {
            faults::pass("cut.source.before");
        }
        self.clock.look(now_us());
        self.show_watermark(true);
        let worker = self.context.state.worker;
        let watermark = self.flow.shown;
        let report =
            CutReport { source: self.source, worker, epoch: cut.epoch, watermark, splits: self.clock.states() };
        self.context.state.send(FromWorker::Cut(report));
        if cut.kind.checkpoint {
            faults::pass("cut.source.after");
        }
        if cut.kind.last {
            assert!(self.clock.finished(), "the last epoch is named only when every source has finished");
            self.ports.close();
            self.flow.ended = true;
            return;
        }
        self.clock.set_floor(cut.floor);
        self.epoch = cut.epoch + 1;
        self.ports.downgrade(Time::new(self.epoch, self.flow.shown));
        (self.flow.rows, self.flow.bytes, self.flow.waiting) = (0, 0, None);
    }

    /// Moves the capability to the clock's watermark: where allowed (rule 2), and not more often than asked for.
    fn show_watermark(&mut self, at_cut: bool) {
        if self.context.state.passed().saturating_add(1) < self.epoch {
            return;
        }
        let wm = self.clock.watermark();
        if wm <= self.flow.shown {
            return;
        }
        let interval = std::time::Duration::from_micros(self.limits.watermark_interval_us.max(0) as u64);
        if let Some(since) = self.flow.shown_at.map(|at| at.elapsed())
            && !at_cut
            && wm != WM_FINAL
            && since < interval
        {
            self.activator.activate_after(interval - since);
            return;
        }
        self.flow.shown = wm;
        self.flow.shown_at = Some(Instant::now());
        self.context.metrics.watermark(wm);
        self.ports.downgrade(Time::new(self.epoch, wm));
    }

    fn take(&mut self, event: SourceEvent) -> Result<()> {
        match event {
            SourceEvent::Idle { split } => self.clock.idle(split),
            SourceEvent::Absent { split } => self.clock.absent(split),
            SourceEvent::Finished { split } => self.clock.ended(split),
            SourceEvent::Lag { split, records } => self.clock.lag(split, records),
            SourceEvent::Rows { split, rows, positions, bad, next, permit } => {
                let records = rows.num_rows() as u64 + bad.len() as u64;
                self.context.state.enter(self.epoch);
                self.context.count(RowCounts::taken(records as usize));
                self.flow.rows += records;
                self.flow.bytes += rows.get_array_memory_size() as u64;
                let mut out = Output::new();
                if !bad.is_empty() {
                    self.bad_records(split, bad, &mut out)?;
                }
                let max_time =
                    if rows.num_rows() > 0 { self.rows(split, rows, positions, permit, &mut out)? } else { None };
                self.ports.send(&mut out, &self.context);
                self.clock.rows(split, max_time, records, next, now_us());
                let full = self.flow.bytes >= self.limits.epoch_max_bytes
                    || self.limits.epoch_every_rows.is_some_and(|most| self.flow.rows >= most);
                if full {
                    self.flow.waiting = Some(self.context.metrics.pressure.hold());
                    self.context.state.send(FromWorker::CutWanted { epoch: self.epoch });
                } else if self.limits.watermark_interval_us == 0 {
                    self.show_watermark(false);
                }
            }
        }
        Ok(())
    }

    /// Runs the prelude and judges event times. Returns the largest.
    fn rows(
        &mut self,
        split: u32,
        rows: RecordBatch,
        positions: RowPositions,
        permit: Option<Arc<crate::batch::Permit>>,
        out: &mut Output,
    ) -> Result<Option<i64>> {
        let count = rows.num_rows();
        let mut batch = Batch { permit, ..Batch::inserts(rows) };
        if self.origin {
            let positions = match positions {
                RowPositions::From(first) => Int64Array::from_iter_values(first..first + count as i64),
                RowPositions::Each(positions) => positions,
            };
            batch.origin = Some(Origin { splits: UInt32Array::from_value(split, count), positions });
        }
        let mut prepared = Output::new();
        match &mut self.prelude {
            Some(prelude) => prelude.map(batch, self.flow.shown, &mut prepared)?,
            None => prepared.send(batch),
        }
        out.counters.filtered += prepared.counters.filtered;
        let mut max_time = None;
        for batch in prepared.take() {
            let (batch, max) = self.judge_times(split, batch, out)?;
            max_time = max_time.max(max);
            if let Some(batch) = batch {
                out.send(batch);
            }
        }
        Ok(max_time)
    }

    /// Takes out rows whose event time is NULL, by their policy, or too far ahead: those are dead letters.
    fn judge_times(&self, split: u32, batch: Batch, out: &mut Output) -> Result<(Option<Batch>, Option<i64>)> {
        let Some(time) = &self.time else { return Ok((Some(batch), None)) };
        let column = batch.rows.column(time.column);
        let bounds = times::bounds(column)?;
        let ahead = time.max_ahead_us.map(|most| now_us().saturating_add(most));
        let too_far = |us: i64| ahead.is_some_and(|ahead| us > ahead);
        self.check_proof(split, bounds)?;
        if column.null_count() == 0 && !bounds.is_some_and(|(_, max)| too_far(max)) {
            return Ok((Some(batch), bounds.map(|(_, max)| max)));
        }
        let micros = times::micros(column)?;
        let usable = |row: &usize| column.is_valid(*row) && !too_far(micros[*row]);
        let max = (0..micros.len()).filter(usable).map(|row| micros[row]).max();
        if !time.judged {
            return Ok((Some(batch), max));
        }
        let good: BooleanArray = (0..micros.len()).map(|row| Some(usable(&row))).collect();
        let bad = batch.filter(&arrow::compute::not(&good)?)?;
        let bad_times = bad.rows.column(time.column);
        let (mut letters, mut dropped) = (Vec::new(), 0);
        for row in 0..bad.num_rows() {
            // A clock that is wrong must not end a run: what it says always goes to the dead letters.
            let (code, message, policy) = match bad_times.is_null(row) {
                true => ("null_event_time", "the event time is NULL", time.on_null),
                false => (
                    "future_event_time",
                    "the event time is further ahead of the clock than max_ahead allows",
                    graph::OnBad::DeadLetter,
                ),
            };
            let payload = || row_json(&bad.rows.slice(row, 1));
            match policy {
                graph::OnBad::Fail => {
                    let (table, split, row) = (&self.table, (self.split_name)(split), payload()?);
                    let error = RunError::user(code, format!("in table {table}, split {split}: {message}: {row}"));
                    return Err(error.hint("set 'null_event_time' = 'drop' or 'dead_letter' for the table"));
                }
                graph::OnBad::Drop => dropped += 1,
                graph::OnBad::DeadLetter => {
                    // Not looked at where rows carry none.
                    let position = bad.origin.as_ref().map_or(0, |origin| origin.positions.value(row));
                    let payload = payload()?.into_bytes();
                    letters.push(BadRecord { position, code: code.into(), message: message.into(), payload });
                }
            }
        }
        out.counters.dropped += dropped;
        if !letters.is_empty() {
            self.dead_letters(split, letters, bad.origin.is_some(), out)?;
        }
        let batch = batch.filter(&good)?;
        Ok(((batch.num_rows() > 0).then_some(batch), max))
    }

    /// A bounded run relies on lower bounds from statistics: statistics that lie must not lose a row.
    fn check_proof(&self, split: u32, bounds: Option<(i64, i64)>) -> Result<()> {
        match self.clock.proved(split).zip(bounds) {
            Some((proved, (min, _))) if min < proved => {
                let message = format!(
                    "in table {}, split {}: a row is older than the file's statistics say",
                    self.table,
                    (self.split_name)(split)
                );
                Err(RunError::user("input_file_invalid", message)
                    .hint("write the file again; its column statistics are wrong"))
            }
            _ => Ok(()),
        }
    }

    fn bad_records(&self, split: u32, bad: Vec<BadRecord>, out: &mut Output) -> Result<()> {
        match self.on_bad {
            graph::OnBad::Fail => {
                let first = &bad[0];
                let excerpt: String = String::from_utf8_lossy(&first.payload).chars().take(120).collect();
                let message = format!(
                    "in table {}, split {}, record {}: {}: {excerpt}",
                    self.table,
                    (self.split_name)(split),
                    first.position,
                    first.message
                );
                Err(RunError::user("bad_record", message)
                    .hint("set 'on_bad_record' = 'dead_letter' or 'drop' for the table"))
            }
            graph::OnBad::Drop => {
                out.counters.dropped += bad.len() as u64;
                Ok(())
            }
            graph::OnBad::DeadLetter => self.dead_letters(split, bad, true, out),
        }
    }

    /// `numbered` says whether the records have positions: rows do only where something reads them, as a table of dead letters does.
    fn dead_letters(&self, split: u32, bad: Vec<BadRecord>, numbered: bool, out: &mut Output) -> Result<()> {
        out.counters.dead += bad.len() as u64;
        let split = (self.split_name)(split);
        if self.ports.side.is_some() {
            out.send_side(self.letter_rows(&split, &bad)?);
        }
        self.context.metrics.tail.dead(Letters { source: self.table.clone(), split, records: bad, numbered });
        Ok(())
    }

    /// Dead letters as rows of `graph::dead_letters_schema`.
    fn letter_rows(&self, split: &str, bad: &[BadRecord]) -> Result<Batch> {
        let count = bad.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.table, count))),
            Arc::new(StringArray::from_iter_values(std::iter::repeat_n(split, count))),
            Arc::new(Int64Array::from_iter_values(bad.iter().map(|record| record.position))),
            Arc::new(StringArray::from_iter_values(bad.iter().map(|record| &record.code))),
            Arc::new(StringArray::from_iter_values(bad.iter().map(|record| &record.message))),
            Arc::new(BinaryArray::from_iter_values(bad.iter().map(|record| &record.payload))),
        ];
        let schema = expr::arrow_schema(&graph::dead_letters_schema());
        Ok(Batch::inserts(RecordBatch::try_new(schema, columns)?))
    }
}

pub fn now_us() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Rows as JSON objects, one per line.
pub fn row_json(rows: &RecordBatch) -> Result<String> {
    let mut bytes = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut bytes);
    writer.write(rows)?;
    writer.finish()?;
    drop(writer);
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_string())
}
