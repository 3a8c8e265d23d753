//! Window table functions without an aggregation: one row per row and window, with the window's bounds.
//!
//! A row leaves without the windows for which it is late by the batch's stamp; the ledger then has an entry for it, with how many windows it
//! missed. Rows late for all windows are counted `late`, others that missed some `partially_late`. No state.

use std::mem;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take_arrays;
use arrow::datatypes::SchemaRef;

use super::ledger::{Late, Ledger, SplitNames};
use super::panes::{Panes, Rule};
use super::times::{Times, timestamps};
use crate::batch::{Batch, Origin};
use crate::error::{Result, RunError};
use crate::operator::{Output, Stateless};
use crate::plan::AssignSpec;

/// Many windows per row make large batches; they are cut at about this many rows.
const ROWS_MAX: usize = 32 * 1024;

pub struct WindowExpand {
    time: usize,
    unit: i64,
    panes: Panes,
    ledger: Ledger,
    schema: SchemaRef,
}

impl WindowExpand {
    /// `output` has all columns of the input, then `window_start`, `window_end`, `window_time`.
    pub fn new(spec: &AssignSpec, output: SchemaRef, names: SplitNames) -> WindowExpand {
        let rule = Rule { unit: spec.unit, lateness: spec.lateness };
        WindowExpand {
            time: spec.time,
            unit: spec.unit,
            panes: Panes::new(spec.windows, rule).expect("windows are attached only to rows that have none"),
            ledger: Ledger::new(&spec.operator, &spec.ledger, &spec.shown, names),
            schema: output,
        }
    }
}

impl Stateless for WindowExpand {
    fn map(&mut self, batch: Batch, stamp: i64, out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning refuses windows over an updating input");
        let times = Times::read(batch.rows.column(self.time))?;
        let (mut rows, mut starts, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut late, mut missed) = (Vec::new(), Vec::new());
        let mut pane = None;
        for (row, &time) in times.micros.iter().enumerate() {
            let current = match pane {
                Some(start) if time >= start && time - start < self.panes.length() => start,
                _ => self.panes.pane(time),
            };
            pane = Some(current);
            let (first, step) = (self.panes.first_end(current), self.panes.end_step());
            let windows = self.panes.windows_of(current);
            let open = self.panes.first_open_end(current, stamp);
            let skipped = open.map_or(windows.max(0), |open| (open - first) / step);
            for n in skipped..windows {
                let end = first + n * step;
                rows.push(row as u32);
                starts.push(self.panes.start(end));
                ends.push(end);
            }
            match open {
                _ if windows <= 0 => out.counters.filtered += 1,
                None => out.counters.late += 1,
                Some(_) if skipped > 0 => out.counters.partially_late += 1,
                Some(_) => {}
            }
            if skipped > 0 {
                late.push(row as u32);
                missed.push(skipped);
            }
            if rows.len() >= ROWS_MAX {
                self.send(&batch, mem::take(&mut rows), mem::take(&mut starts), mem::take(&mut ends), out)?;
            }
        }
        if !late.is_empty() {
            let event_times = late.iter().map(|&row| times.micros[row as usize]).collect();
            self.ledger.write(&batch, Late { rows: late, event_times, missed }, stamp, out)?;
        }
        self.send(&batch, rows, starts, ends, out)
    }
}

impl WindowExpand {
    fn send(&self, batch: &Batch, rows: Vec<u32>, starts: Vec<i64>, ends: Vec<i64>, out: &mut Output) -> Result<()> {
        let count = rows.len();
        if count == 0 {
            return Ok(());
        }
        let one_each = count == batch.num_rows() && rows.iter().enumerate().all(|(at, &row)| at == row as usize);
        let rows = UInt32Array::from(rows);
        let mut columns: Vec<ArrayRef> = match one_each {
            true => batch.rows.columns().to_vec(),
            false => take_arrays(batch.rows.columns(), &rows, None).map_err(failed)?,
        };
        let bounds = &self.schema.fields()[columns.len()..];
        let last_times: Vec<i64> = ends.iter().map(|end| end - self.unit).collect();
        for (times, field) in [starts, ends, last_times].into_iter().zip(bounds) {
            columns.push(timestamps(times, field.data_type()));
        }
        let origin = match &batch.origin {
            Some(origin) if !one_each => Some(Origin {
                splits: rows.values().iter().map(|&row| origin.splits.value(row as usize)).collect(),
                positions: rows.values().iter().map(|&row| origin.positions.value(row as usize)).collect(),
            }),
            origin => origin.clone(),
        };
        let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(failed)?;
        out.send(Batch { rows, kinds: None, origin, permit: batch.permit.clone() });
        Ok(())
    }
}

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot put rows into windows: {error}"))
}
