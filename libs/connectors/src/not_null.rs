//! A NULL for a column that its table declares NOT NULL is never written: the writer refuses the batch, and the run fails with the row.
//!
//! As in Flink with `table.exec.sink.not-null-enforcer` = `error`. Checked here, for every connector alike, because nothing before it
//! does: a statement may write a nullable expression to such a column, and only its rows tell whether that was right.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::{Batch, CommitKind, Commits, Prepared, RunError, Sink, SinkCommitter, SinkWriter, WriterContext};
use state::{SnapshotReader, SnapshotWriter};

/// Characters of a row that an error shows.
const SHOWN_CHARS: usize = 300;

/// What a table declares NOT NULL.
struct Required {
    table: String,
    /// Position and name.
    columns: Vec<(usize, String)>,
}

struct NotNullSink {
    inner: Arc<dyn Sink>,
    required: Arc<Required>,
}

/// The sink itself, if its table declares no column NOT NULL.
pub fn enforced(inner: Arc<dyn Sink>, node: &graph::Sink) -> Arc<dyn Sink> {
    let columns: Vec<(usize, String)> = node
        .columns
        .iter()
        .enumerate()
        .filter(|(_, column)| !column.nullable)
        .map(|(at, column)| (at, column.name.clone()))
        .collect();
    if columns.is_empty() {
        return inner;
    }
    Arc::new(NotNullSink { inner, required: Arc::new(Required { table: node.table.clone(), columns }) })
}

impl Sink for NotNullSink {
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        Ok(Box::new(NotNullWriter { inner: self.inner.writer(context)?, required: self.required.clone() }))
    }

    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        self.inner.committer()
    }

    fn commits(&self) -> Commits {
        self.inner.commits()
    }
}

struct NotNullWriter {
    inner: Box<dyn SinkWriter>,
    required: Arc<Required>,
}

impl Required {
    fn check(&self, rows: &RecordBatch) -> Result<(), RunError> {
        for (at, name) in &self.columns {
            let column = rows.column(*at);
            if column.logical_null_count() == 0 {
                continue;
            }
            let nulls = column.logical_nulls().expect("an array with nulls says where they are");
            let row = (0..rows.num_rows()).find(|row| nulls.is_null(*row)).expect("one of them is null");
            let message = format!(
                "cannot write to table {}: its column {name} is declared NOT NULL, and it would be NULL in the row {}",
                self.table,
                shown(rows, row)
            );
            let hint = "leave such rows out (WHERE ... IS NOT NULL), replace the NULL (COALESCE), or declare the column without NOT NULL";
            return Err(RunError::user("output_null", message).hint(hint));
        }
        Ok(())
    }
}

/// `a = 1, b = NULL`, cut where it is long.
fn shown(rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let cells = rows
        .schema()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| {
            let value = ArrayFormatter::try_new(column, &options)
                .map_or_else(|_| "?".to_string(), |formatter| formatter.value(row).to_string());
            format!("{} = {value}", field.name())
        })
        .collect::<Vec<_>>();
    let text = cells.join(", ");
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

impl SinkWriter for NotNullWriter {
    fn write(&mut self, batch: Batch) -> Result<(), RunError> {
        self.required.check(&batch.rows)?;
        self.inner.write(batch)
    }

    fn prepare(&mut self, epoch: u64, kind: CommitKind, reply: Prepared) -> Result<(), RunError> {
        self.inner.prepare(epoch, kind, reply)
    }

    fn snapshot(&mut self, epoch: u64, writer: &mut SnapshotWriter) -> Result<(), RunError> {
        self.inner.snapshot(epoch, writer)
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<(), RunError> {
        self.inner.restore(reader)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, NullArray, RecordBatch, StringArray};
    use engine::{Batch, Connectors, SinkContext};
    use serde_json::json;

    use crate::testing::column;
    use crate::testing::sinks::{LAST, prepare, sink_node, writer};
    use crate::{AllowedRoots, Registry};

    fn rows(b: ArrayRef) -> RecordBatch {
        let a = StringArray::from(vec![Some("x"), None, Some(&"long ".repeat(200))]);
        RecordBatch::try_from_iter_with_nullable([("a", Arc::new(a) as ArrayRef, true), ("b", b, true)]).unwrap()
    }

    #[test]
    fn a_null_for_a_required_column_is_refused_by_every_connector() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("out");
        for options in [
            json!({"type": "blackhole"}),
            json!({"type": "print"}),
            json!({"type": "filesystem", "path": path.to_str().unwrap(), "format": "json"}),
        ] {
            let registry = Registry::new(AllowedRoots::new([root.path()]));
            let mut node = sink_node(options.clone(), &[]);
            // Names of the table, which need not be those of what comes in.
            node.columns = vec![column("name STRING"), column("count BIGINT NOT NULL")];
            let good = rows(Arc::new(Int64Array::from(vec![1, 2, 3])));
            let context = SinkContext {
                run_id: "run".into(),
                bounded: true,
                updating: false,
                stateless: true,
                operator: "sink out".into(),
                durable: false,
            };
            crate::testing::run(async {
                let sink = registry.sink(&node, good.schema(), context.clone()).unwrap();
                let mut one = writer(&sink, &good.schema(), 0, 1);
                one.write(Batch::inserts(good.clone())).unwrap();
                for (nulls, row) in [
                    (Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef, "a = NULL, b = NULL"),
                    (Arc::new(Int64Array::from(vec![Some(1), Some(2), None])), "a = long long "),
                    (Arc::new(NullArray::new(3)), "a = x, b = "),
                ] {
                    let error = one.write(Batch::inserts(rows(nulls))).unwrap_err();
                    assert_eq!(error.code, "output_null", "{options}");
                    for part in ["table out", "column count", row] {
                        assert!(error.message.contains(part), "{options}: {error:?}");
                    }
                    assert!(error.message.chars().count() < 500, "{error:?}");
                }
                // What was refused is not there, and what was not is.
                let prepared = prepare(&mut one, 1, LAST).await.unwrap();
                assert!(prepared.rows == 3 || options["type"] == "blackhole", "{options}: {} rows", prepared.rows);
            });
        }
    }
}
