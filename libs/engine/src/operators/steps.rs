//! Fused filters and projections.
//!
//! Each step sees the columns that the one before leaves. A filter copies only the columns that later steps read. Of an updated row
//! whose halves (-U, +U) lie side by side and of which only one passes a filter, that half becomes -D or +I. No state.

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt8Array};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use expr::{Compiled, EvalError};

use super::ledger::SplitNames;
use super::results::record_batch;
use crate::batch::{Batch, RowKind};
use crate::error::{Result, RunError};
use crate::operator::{Output, Stateless};

/// A step whose expressions are ready to run.
pub enum CompiledStep {
    Filter(Compiled),
    /// An expression per column of the schema.
    Project(Vec<Compiled>, SchemaRef),
}

pub struct Steps {
    operator: String,
    steps: Vec<CompiledStep>,
    /// For each filter the input columns that are read behind it; `None`: all.
    needed: Vec<Option<Vec<bool>>>,
    names: SplitNames,
}

impl Steps {
    /// `operator` is named in errors; `names` says there where a row came from.
    pub fn new(operator: &str, steps: Vec<CompiledStep>, names: SplitNames) -> Steps {
        let needed = (0..steps.len()).map(|at| needed(&steps[at + 1..])).collect();
        Steps { operator: operator.into(), steps, needed, names }
    }

    /// `kept` says which columns still hold the batch's rows; `None`: all.
    fn failed(&self, error: &EvalError, batch: &Batch, kept: Option<&[bool]>) -> RunError {
        let mut message = format!("{}: {}", self.operator, error.message);
        if let Some(row) = error.row.filter(|row| *row < batch.num_rows()) {
            message.push_str(&format!("; row: {}", shown(&batch.rows, row, kept)));
            if let Some(origin) = &batch.origin {
                let (source, split) = (self.names)(origin.splits.value(row));
                let position = origin.positions.value(row);
                message.push_str(&format!("; it is record {position} of {split} of {source}"));
            }
        }
        RunError::user("expression_failed", message).operator(&self.operator)
    }
}

impl Stateless for Steps {
    fn map(&mut self, mut batch: Batch, _wm: i64, out: &mut Output) -> Result<()> {
        // Columns that a filter did not copy hold other rows.
        let mut kept: Option<&[bool]> = None;
        for (step, needed) in self.steps.iter().zip(&self.needed) {
            match step {
                CompiledStep::Filter(predicate) => {
                    let mask =
                        predicate.evaluate_filter(&batch.rows).map_err(|error| self.failed(&error, &batch, kept))?;
                    let passing = mask.true_count();
                    out.counters.filtered += (mask.len() - passing) as u64;
                    if passing == 0 {
                        return Ok(());
                    }
                    if passing < mask.len() {
                        batch = filtered(batch, &mask, passing, needed.as_deref()).map_err(unfit)?;
                        kept = needed.as_deref();
                    }
                }
                CompiledStep::Project(columns, schema) => {
                    let columns: Vec<ArrayRef> = columns
                        .iter()
                        .map(|column| match column.column() {
                            Some(at) => Ok(batch.rows.column(at).clone()),
                            None => column.evaluate(&batch.rows).map_err(|error| self.failed(&error, &batch, kept)),
                        })
                        .collect::<Result<_>>()?;
                    let rows = record_batch(schema, columns, batch.num_rows())?;
                    batch = batch.with_rows(rows);
                    kept = None;
                }
            }
        }
        out.send(batch);
        Ok(())
    }
}

/// The columns that the steps read up to and with the next projection; `None` if there is none: all go on.
fn needed(steps: &[CompiledStep]) -> Option<Vec<bool>> {
    let mut needed = Vec::new();
    let mut read = |column: &Compiled| {
        for &at in column.columns().iter().chain(&column.column()) {
            needed.resize(needed.len().max(at + 1), false);
            needed[at] = true;
        }
    };
    for step in steps {
        match step {
            CompiledStep::Filter(predicate) => read(predicate),
            CompiledStep::Project(columns, _) => {
                columns.iter().for_each(read);
                return Some(needed);
            }
        }
    }
    None
}

fn filtered(
    batch: Batch,
    mask: &BooleanArray,
    passing: usize,
    needed: Option<&[bool]>,
) -> Result<Batch, arrow::error::ArrowError> {
    let kinds = batch.kinds.as_ref().map(|kinds| mended(kinds, mask));
    let Some(needed) = needed else {
        return Batch { kinds, ..batch }.filter(mask);
    };
    // Columns that nobody reads any more keep their place with rows that nobody looks at.
    let columns = batch.rows.columns().iter().enumerate().map(|(at, column)| match needed.get(at) {
        Some(true) => filter(column, mask),
        _ => Ok(column.slice(0, passing)),
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    // Only the cheap parts are filtered by the batch itself.
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let bare = RecordBatch::try_new_with_options(
        std::sync::Arc::new(arrow::datatypes::Schema::empty()),
        Vec::new(),
        &options,
    )?;
    let schema = batch.rows.schema();
    let rest = Batch { rows: bare, kinds, ..batch }.filter(mask)?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(passing));
    Ok(Batch { rows: RecordBatch::try_new_with_options(schema, columns, &options)?, ..rest })
}

/// The kinds, where an update loses one half, of what is left: the old row goes, or the new row comes.
fn mended(kinds: &UInt8Array, mask: &BooleanArray) -> UInt8Array {
    let mut mended: Vec<u8> = kinds.values().to_vec();
    for row in 1..mended.len() {
        let pair = mended[row - 1] == RowKind::UpdateBefore as u8 && mended[row] == RowKind::UpdateAfter as u8;
        if pair && mask.value(row - 1) != mask.value(row) {
            mended[row - 1] = RowKind::Delete as u8;
            mended[row] = RowKind::Insert as u8;
        }
    }
    mended.into()
}

/// A row for an error message: its first columns, long values cut.
fn shown(rows: &RecordBatch, row: usize, kept: Option<&[bool]>) -> String {
    const COLUMNS: usize = 8;
    const CHARS: usize = 40;
    let options = FormatOptions::default().with_null("NULL");
    let value = |column: &ArrayRef| -> String {
        let Ok(formatter) = ArrayFormatter::try_new(column, &options) else { return "?".into() };
        let text = formatter.value(row).to_string();
        match text.char_indices().nth(CHARS) {
            Some((cut, _)) => format!("{}...", &text[..cut]),
            None => text,
        }
    };
    let schema = rows.schema();
    let known = |at: usize| kept.is_none_or(|kept| kept.get(at) == Some(&true));
    let named = schema.fields().iter().zip(rows.columns()).enumerate().filter(|(at, _)| known(*at));
    let mut text: Vec<String> =
        named.take(COLUMNS + 1).map(|(_, (field, column))| format!("{} = {}", field.name(), value(column))).collect();
    if text.len() > COLUMNS {
        text[COLUMNS] = "...".into();
    }
    text.join(", ")
}

fn unfit(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot filter rows: {error}"))
}
