//! The lateness ledger: late rows as rows of `graph::late_rows_schema`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringBuilder, UInt32Array};
use arrow::compute::take_arrays;
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::json::writer::{LineDelimited, WriterBuilder};

use super::panes::{TIME_MAX, TIME_MIN};
use super::results::record_batch;
use super::times::timestamps;
use crate::batch::{Batch, Origin};
use crate::error::{Result, RunError};
use crate::operator::{LateRows, Output};
use crate::plan::LedgerRow;
use crate::runtime::{KEPT_BYTES, NEWEST};

/// The names of the source and of the split behind a split's number in the run's frozen list.
pub type SplitNames = Arc<dyn Fn(u32) -> (Arc<str>, Arc<str>) + Send + Sync>;

/// Rows of a batch that came too late, with event times in microseconds and for how many of its windows each came too late.
pub struct Late {
    pub rows: Vec<u32>,
    pub event_times: Vec<i64>,
    pub missed: Vec<i64>,
}

/// Writes down what one operator could not count.
#[derive(Clone)]
pub struct Ledger {
    operator: String,
    /// Something reads all of it; else the newest rows are kept for whoever looks.
    is_read: bool,
    row: LedgerRow,
    names: SplitNames,
    schema: SchemaRef,
}

impl Ledger {
    /// `row` says what is shown of a row; without a `ledger` that is read, it is `shown`.
    pub fn new(operator: &str, ledger: &Option<LedgerRow>, shown: &LedgerRow, names: SplitNames) -> Ledger {
        let (is_read, row) = (ledger.is_some(), ledger.as_ref().unwrap_or(shown).clone());
        Ledger {
            operator: operator.into(),
            is_read,
            row,
            names,
            schema: expr::arrow_schema(&graph::late_rows_schema()),
        }
    }

    /// Writes down the rows of a batch whose numbers are `late`, ascending.
    pub fn write(&self, batch: &Batch, late: Late, stamp: i64, out: &mut Output) -> Result<()> {
        let shown = self.shown(&batch.rows)?;
        let newest = late.rows.len().saturating_sub(kept_rows(&shown));
        let numbers = UInt32Array::from(late.rows[newest..].to_vec());
        // Of a row without a column that anybody reads, only its times are known.
        let columns = take_arrays(shown.columns(), &numbers, None)?;
        let rows = record_batch(&shown.schema(), columns, numbers.len())?;
        out.late.push(LateRows {
            operator: self.operator.clone(),
            rows,
            event_times: late.event_times[newest..].to_vec(),
            stamp,
        });
        if self.is_read {
            let rows = batch.take(&UInt32Array::from(late.rows))?;
            out.send_side(self.entries(&rows, late.event_times, stamp, late.missed)?);
        }
        Ok(())
    }

    /// A ledger row for each row of `late`, which all came with the same stamp. `event_times` are in microseconds; `missed` says for how
    /// many of its windows each row came too late: all, or the first ones.
    fn entries(&self, late: &Batch, event_times: Vec<i64>, stamp: i64, missed: Vec<i64>) -> Result<Batch> {
        let rows = late.num_rows();
        let instant = DataType::Timestamp(TimeUnit::Microsecond, None);
        let [sources, splits, positions] = self.origins(late.origin.as_ref(), rows);
        let columns: Vec<ArrayRef> = vec![
            sources,
            splits,
            positions,
            timestamps(event_times, &instant),
            timestamps(vec![stamp.clamp(TIME_MIN, TIME_MAX); rows], &instant),
            Arc::new(StringArray::from(vec![self.operator.as_str(); rows])),
            Arc::new(Int64Array::from(missed)),
            Arc::new(StringArray::from(json_lines(&self.shown(&late.rows)?)?)),
        ];
        let rows = RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|error| RunError::internal(format!("cannot write the lateness ledger: {error}")))?;
        Ok(Batch::inserts(rows))
    }

    fn shown(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let schema = rows.schema();
        let fields = self.row.iter().map(|(name, column)| schema.field(*column).clone().with_name(name));
        let columns = self.row.iter().map(|(_, column)| rows.column(*column).clone()).collect();
        record_batch(&Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns, rows.num_rows())
    }

    fn origins(&self, origin: Option<&Origin>, rows: usize) -> [ArrayRef; 3] {
        let Some(origin) = origin else {
            let nulls = || Arc::new(StringArray::new_null(rows)) as ArrayRef;
            return [nulls(), nulls(), Arc::new(Int64Array::new_null(rows))];
        };
        let (mut sources, mut splits) = (StringBuilder::new(), StringBuilder::new());
        let mut known: Option<(u32, _)> = None;
        for &split in origin.splits.values() {
            // Rows of one split follow one another.
            let names = match known.take() {
                Some((of, names)) if of == split => names,
                _ => (self.names)(split),
            };
            sources.append_value(&names.0);
            splits.append_value(&names.1);
            known = Some((split, names));
        }
        [Arc::new(sources.finish()), Arc::new(splits.finish()), Arc::new(origin.positions.clone())]
    }
}

/// How many rows of this size are kept for whoever looks: of large rows fewer.
fn kept_rows(rows: &RecordBatch) -> usize {
    let sizes = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    let row_bytes = sizes.sum::<usize>() / rows.num_rows().max(1);
    NEWEST.min(KEPT_BYTES / row_bytes.max(1)).max(1)
}

/// Each row as one JSON object, with its NULLs.
pub fn json_lines(rows: &RecordBatch) -> Result<Vec<String>> {
    let failed = |error: String| RunError::internal(format!("cannot write a late row as JSON: {error}"));
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(rows).and_then(|()| writer.finish()).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(writer.into_inner()).map_err(|error| failed(error.to_string()))?;
    // Line breaks within texts are escaped in JSON, so a line is a row.
    let lines: Vec<String> = text.lines().map(str::to_string).collect();
    assert!(lines.len() == rows.num_rows(), "a row is written as one line of JSON");
    Ok(lines)
}
