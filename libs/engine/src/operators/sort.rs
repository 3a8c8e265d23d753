//! Orders a bounded result, with limit and offset.
//!
//! State: the rows so far; with a limit no more than a few times as many as leave. Rows that agree in all sort columns are ordered by their
//! remaining columns, so that the result does not depend on the order of arrival. Everything leaves at the final watermark.

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::{BatchCoalescer, SortOptions, concat_batches, take_record_batch};
use arrow::row::{RowConverter, SortField};
use state::{SnapshotReader, SnapshotWriter};

use super::results::BATCH_ROWS;
use super::saved::{load_all, load_watermark, save_all, save_watermark};
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output};
use crate::plan::SortSpec;

const TABLE: &str = "rows";
/// Candidates are thinned when there are this many times the rows that can leave.
const SURPLUS: usize = 4;

pub struct Sort {
    spec: SortSpec,
    /// Rows are copied into larger batches: what came may hold on to a buffer of the network.
    rows: Option<BatchCoalescer>,
    kept: Vec<RecordBatch>,
    count: usize,
    wm: i64,
    owns_global: bool,
}

impl Sort {
    /// `owns_global`: whether this is worker 0, to which all rows go.
    pub fn new(spec: SortSpec, owns_global: bool) -> Sort {
        Sort { spec, rows: None, kept: Vec::new(), count: 0, wm: i64::MIN, owns_global }
    }

    #[cfg(test)]
    pub fn held_rows(&self) -> usize {
        self.count
    }

    /// Rows from the first that can leave; `None` without a limit.
    fn wanted(&self) -> Option<usize> {
        let limit = usize::try_from(self.spec.limit?).ok()?;
        limit.checked_add(usize::try_from(self.spec.offset).ok()?)
    }

    fn add(&mut self, rows: RecordBatch) -> Result<()> {
        self.count += rows.num_rows();
        let coalescer = self.rows.get_or_insert_with(|| BatchCoalescer::new(rows.schema(), BATCH_ROWS));
        coalescer.push_batch(rows).map_err(failed)?;
        while let Some(batch) = coalescer.next_completed_batch() {
            self.kept.push(batch);
        }
        if let Some(wanted) = self.wanted()
            && self.count > (wanted.max(BATCH_ROWS / SURPLUS)).saturating_mul(SURPLUS)
        {
            let best = self.sorted(Some(wanted))?;
            self.count = best.as_ref().map_or(0, RecordBatch::num_rows);
            self.kept.extend(best);
        }
        Ok(())
    }

    /// Takes all rows out, in order; at most `wanted`.
    fn sorted(&mut self, wanted: Option<usize>) -> Result<Option<RecordBatch>> {
        let mut kept = std::mem::take(&mut self.kept);
        if let Some(coalescer) = &mut self.rows {
            coalescer.finish_buffered_batch().map_err(failed)?;
            kept.extend(std::iter::from_fn(|| coalescer.next_completed_batch()));
        }
        let Some(first) = kept.first() else { return Ok(None) };
        let all = concat_batches(&first.schema(), &kept).map_err(failed)?;
        let order = self.order(&all, wanted)?;
        take_record_batch(&all, &order).map(Some).map_err(failed)
    }

    fn order(&self, all: &RecordBatch, wanted: Option<usize>) -> Result<UInt32Array> {
        let (mut fields, mut columns) = (Vec::new(), Vec::new());
        for by in &self.spec.by {
            let options = SortOptions { descending: by.descending, nulls_first: by.nulls_first };
            fields.push(SortField::new_with_options(all.column(by.column).data_type().clone(), options));
            columns.push(all.column(by.column).clone());
        }
        for (at, column) in all.columns().iter().enumerate() {
            let field = SortField::new(column.data_type().clone());
            if self.spec.by.iter().all(|by| by.column != at)
                && RowConverter::supports_fields(std::slice::from_ref(&field))
            {
                fields.push(field);
                columns.push(column.clone());
            }
        }
        if fields.is_empty() {
            let leave = wanted.unwrap_or(usize::MAX).min(all.num_rows());
            return Ok((0..leave as u32).collect::<Vec<u32>>().into()); // Nothing about these rows can be ordered.
        }
        let rows = RowConverter::new(fields).and_then(|c| c.convert_columns(&columns)).map_err(failed)?;
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        let compare = |a: &u32, b: &u32| rows.row(*a as usize).cmp(&rows.row(*b as usize));
        match wanted {
            Some(0) => order.clear(),
            Some(wanted) if wanted < order.len() => {
                order.select_nth_unstable_by(wanted - 1, compare);
                order.truncate(wanted);
            }
            _ => {}
        }
        order.sort_unstable_by(compare);
        Ok(order.into())
    }
}

impl Operator for Sort {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, _out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning sorts bounded results, which are final rows");
        self.add(batch.rows)
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        if wm <= self.wm {
            return Ok(());
        }
        self.wm = wm;
        if wm < i64::MAX {
            return Ok(());
        }
        self.count = 0;
        let Some(rows) = self.sorted(self.wanted())? else { return Ok(()) };
        let columns: Vec<usize> = (0..rows.num_columns() - self.spec.drop_last).collect();
        let rows = rows.project(&columns).map_err(failed)?;
        let offset = usize::try_from(self.spec.offset).unwrap_or(usize::MAX);
        for start in (offset.min(rows.num_rows())..rows.num_rows()).step_by(BATCH_ROWS) {
            out.send(Batch::inserts(rows.slice(start, BATCH_ROWS.min(rows.num_rows() - start))));
        }
        Ok(())
    }

    fn epoch_end(&mut self, _epoch: u64, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        save_watermark(writer, self.wm)?;
        if let Some(coalescer) = &mut self.rows {
            coalescer.finish_buffered_batch().map_err(failed)?;
            self.kept.extend(std::iter::from_fn(|| coalescer.next_completed_batch()));
        }
        self.kept.iter().try_for_each(|rows| save_all(writer, TABLE, rows.clone()))
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        if self.owns_global {
            load_all(reader, TABLE)?.into_iter().try_for_each(|rows| self.add(rows))?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.kept.iter().map(RecordBatch::get_array_memory_size).sum::<usize>()
            + self.rows.as_ref().map_or(0, BatchCoalescer::size)
    }
}

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot sort rows: {error}"))
}
