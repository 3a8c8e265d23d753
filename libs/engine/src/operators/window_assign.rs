//! Gives each row its pane, and takes out the rows that are late for all their windows.
//!
//! Lateness is decided here, once, by the batch's stamp: before pre-aggregation and the exchange, where split and position of a row
//! are known. A row that missed some of its windows brings along the end of the first one that it still counts in (`from`), so that
//! whoever combines panes leaves the earlier windows out. The ledger has an entry for every row that missed a window. No state.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::SchemaRef;

use super::ledger::{Late, Ledger, SplitNames};
use super::panes::{Panes, Rule};
use super::times::Times;
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Output, Stateless};
use crate::plan::{AssignSpec, Windows};

/// A row with this `from` counts in all windows of its pane.
pub const ALL: i64 = i64::MIN;

pub struct WindowAssign {
    spec: AssignSpec,
    rule: Rule,
    /// `None`: windows are attached.
    panes: Option<Panes>,
    ledger: Ledger,
    schema: SchemaRef,
}

/// What was found out about the rows of a batch.
struct Assigned {
    panes: Vec<i64>,
    /// Empty where windows tumble: a row has one window then.
    froms: Vec<i64>,
    /// Row numbers that leave: late for all windows, ascending.
    late: Vec<usize>,
    /// Row numbers that missed windows, and how many: those late for all, and those late for some; ascending.
    missed: Vec<(usize, i64)>,
    /// Row numbers that lie between windows (a slide longer than the size), ascending.
    outside: Vec<usize>,
    partially_late: u64,
}

impl WindowAssign {
    /// `output` has the columns kept, `pane`, and except for tumbling windows `from` (both BIGINT); `names` serves the ledger.
    pub fn new(spec: AssignSpec, output: SchemaRef, names: SplitNames) -> WindowAssign {
        let rule = Rule { unit: spec.unit, lateness: spec.lateness };
        WindowAssign {
            rule,
            panes: Panes::new(spec.windows, rule),
            ledger: Ledger::new(&spec.operator, &spec.ledger, &spec.shown, names),
            schema: output,
            spec,
        }
    }

    fn assign(&self, panes: &Panes, times: &Times, stamp: i64) -> Assigned {
        let rows = times.micros.len();
        let tumble = self.spec.windows.is_tumble();
        let mut found = Assigned::new(Vec::with_capacity(rows));
        let first = panes.pane(times.min);
        let gaps = panes.end_step() > panes.size();
        if first == panes.pane(times.max) {
            found.panes.resize(rows, first);
        } else {
            // Rows of a pane follow one another, mostly: a division per change of pane, not per row.
            let (mut pane, length) = (first, panes.length());
            for &time in times.micros.iter() {
                if time < pane || time - pane >= length {
                    pane = panes.pane(time);
                }
                found.panes.push(pane);
            }
        }
        // First ends rise with panes: if the earliest row is in time for its first window, every row is for all of its own.
        if !gaps && !self.rule.late(panes.first_end(first), stamp) {
            if !tumble {
                found.froms.resize(rows, ALL);
            }
            return found;
        }
        let mut known: Option<(i64, Verdict)> = None;
        for (row, &pane) in found.panes.iter().enumerate() {
            let verdict = match known {
                Some((of, verdict)) if of == pane => verdict,
                _ => Verdict::of(panes, pane, stamp),
            };
            known = Some((pane, verdict));
            let from = match verdict {
                Verdict::Open => ALL,
                Verdict::From(end) => {
                    found.partially_late += 1;
                    found.missed.push((row, (end - panes.first_end(pane)) / panes.end_step()));
                    end
                }
                Verdict::Late => {
                    found.late.push(row);
                    found.missed.push((row, panes.windows_of(pane)));
                    ALL
                }
                Verdict::Outside => {
                    found.outside.push(row);
                    ALL
                }
            };
            if !tumble {
                found.froms.push(from);
            }
        }
        found
    }

    /// Attached windows: the window is the pane, and its end travels as `from`.
    fn attached(&self, starts: Times, ends: &Times, stamp: i64) -> Assigned {
        let mut found = Assigned::new(starts.micros.to_vec());
        found.froms = ends.micros.to_vec();
        if !ends.micros.is_empty() && self.rule.late(ends.min, stamp) {
            found.late = (0..found.froms.len()).filter(|&row| self.rule.late(found.froms[row], stamp)).collect();
            found.missed = found.late.iter().map(|&row| (row, 1)).collect();
        }
        found
    }

    fn write_ledger(&self, batch: &Batch, times: &Times, found: &Assigned, stamp: i64, out: &mut Output) -> Result<()> {
        let (rows, missed): (Vec<usize>, Vec<i64>) = found.missed.iter().copied().unzip();
        // The time attribute of a row with an attached window is the window's last instant.
        let back = if self.panes.is_none() { self.spec.unit } else { 0 };
        let event_times = rows.iter().map(|&row| times.micros[row] - back).collect();
        let rows = rows.into_iter().map(|row| row as u32).collect();
        self.ledger.write(batch, Late { rows, event_times, missed }, stamp, out)
    }
}

#[derive(Clone, Copy)]
enum Verdict {
    Open,
    From(i64),
    Late,
    Outside,
}

impl Verdict {
    fn of(panes: &Panes, pane: i64, stamp: i64) -> Verdict {
        match panes.first_open_end(pane, stamp) {
            Some(end) if end == panes.first_end(pane) => Verdict::Open,
            Some(end) => Verdict::From(end),
            None if panes.windows_of(pane) <= 0 => Verdict::Outside,
            None => Verdict::Late,
        }
    }
}

impl Assigned {
    fn new(panes: Vec<i64>) -> Assigned {
        Assigned {
            panes,
            froms: Vec::new(),
            late: Vec::new(),
            missed: Vec::new(),
            outside: Vec::new(),
            partially_late: 0,
        }
    }
}

impl Stateless for WindowAssign {
    fn map(&mut self, batch: Batch, stamp: i64, out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning refuses windows over an updating input");
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        let times = Times::read(batch.rows.column(self.spec.time))?;
        let found = match (&self.panes, self.spec.windows) {
            (Some(panes), _) => self.assign(panes, &times, stamp),
            (None, Windows::Attached { start }) => self.attached(Times::read(batch.rows.column(start))?, &times, stamp),
            (None, _) => unreachable!("only attached windows have no panes"),
        };
        out.counters.late += found.late.len() as u64;
        out.counters.filtered += found.outside.len() as u64;
        out.counters.partially_late += found.partially_late;
        if !found.missed.is_empty() {
            self.write_ledger(&batch, &times, &found, stamp, out)?;
        }
        let gone = (!found.late.is_empty() || !found.outside.is_empty()).then(|| {
            let mut stays = vec![true; rows];
            found.late.iter().chain(&found.outside).for_each(|&row| stays[row] = false);
            BooleanArray::new(BooleanBuffer::from(stays), None)
        });
        let mut columns: Vec<ArrayRef> = self.spec.keep.iter().map(|&at| batch.rows.column(at).clone()).collect();
        columns.push(Arc::new(Int64Array::from(found.panes)));
        if !self.spec.windows.is_tumble() {
            columns.push(Arc::new(Int64Array::from(found.froms)));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).map_err(failed)?;
        // Behind here nobody asks where a row came from.
        let assigned = Batch { rows, kinds: None, origin: None, permit: batch.permit.clone() };
        out.send(match gone {
            Some(stays) => assigned.filter(&stays).map_err(failed)?,
            None => assigned,
        });
        Ok(())
    }
}

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot put rows into panes: {error}"))
}
