//! The lateness ledger: late rows as rows of `graph::late_rows_schema`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Schema, SchemaRef, TimeUnit};
use arrow::json::writer::{LineDelimited, WriterBuilder};

use super::panes::{TIME_MAX, TIME_MIN};
use super::results::record_batch;
use super::times::timestamps;
use crate::batch::{Batch, Origin};
use crate::error::{Result, RunError};
use crate::plan::LedgerRow;

/// The names of the source and of the split behind a split's number in the run's frozen list.
pub type SplitNames = Arc<dyn Fn(u32) -> (String, String) + Send + Sync>;

/// Writes down what one operator could not count.
#[derive(Clone)]
pub struct Ledger {
    operator: String,
    row: LedgerRow,
    names: SplitNames,
    schema: SchemaRef,
}

impl Ledger {
    /// `row` says what is shown of a row.
    pub fn new(operator: &str, row: LedgerRow, names: SplitNames) -> Ledger {
        Ledger { operator: operator.into(), row, names, schema: expr::arrow_schema(&graph::late_rows_schema()) }
    }

    /// A ledger row for each row of `late`, which all came with the same stamp. `event_times` are in microseconds; `missed` says for how
    /// many of its windows each row came too late: all, or the first ones.
    pub fn entries(&self, late: &Batch, event_times: Vec<i64>, stamp: i64, missed: Vec<i64>) -> Result<Batch> {
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
            Arc::new(json_rows(&self.shown(&late.rows)?)?),
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
        let mut known: Option<(u32, (String, String))> = None;
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

/// Each row as one JSON object, with its NULLs.
fn json_rows(rows: &RecordBatch) -> Result<StringArray> {
    let failed = |error: String| RunError::internal(format!("cannot write a late row as JSON: {error}"));
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(Vec::new());
    writer.write(rows).and_then(|()| writer.finish()).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(writer.into_inner()).map_err(|error| failed(error.to_string()))?;
    // Line breaks within texts are escaped in JSON, so a line is a row.
    let lines: StringArray = text.lines().map(Some).collect();
    assert!(lines.len() == rows.num_rows(), "a row is written as one line of JSON");
    Ok(lines)
}
