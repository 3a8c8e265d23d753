//! Rows to whoever prints them: a sink whose committed epochs are handed to a callback, in order.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt8Array};
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use engine::{CommitKind, Commits, Committable, RunError, Sink, SinkCommitter, SinkContext, SinkWriter, WriterContext};
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::epoch_rows::{EpochRows, decode};

/// What one epoch of one print table shows.
#[derive(Clone, Debug)]
pub struct PrintedRows {
    pub table: String,
    /// The sink's node in the graph.
    pub operator: String,
    /// The table's `print-identifier`; may be empty.
    pub identifier: String,
    pub epoch: u64,
    /// Rows of all workers, possibly none.
    pub rows: RecordBatch,
    /// Kinds of the rows, where not all are inserts.
    pub kinds: Option<UInt8Array>,
    /// Nothing follows.
    pub last: bool,
}

/// Called once per committed epoch that has rows, and for the last epoch in any case.
pub type OnPrint = Arc<dyn Fn(PrintedRows) + Send + Sync>;

pub struct PrintSink {
    pub table: String,
    pub identifier: String,
    pub schema: SchemaRef,
    pub context: SinkContext,
    pub on_print: OnPrint,
}

impl Sink for PrintSink {
    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        Ok(EpochRows::writer(self.schema.clone()))
    }

    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        Ok(Box::new(PrintCommitter {
            shown: PrintedRows {
                table: self.table.clone(),
                operator: self.context.operator.clone(),
                identifier: self.identifier.clone(),
                epoch: 0,
                rows: RecordBatch::new_empty(self.schema.clone()),
                kinds: None,
                last: false,
            },
            committed: None,
            on_print: self.on_print.clone(),
        }))
    }

    fn commits(&self) -> Commits {
        Commits::EveryEpoch
    }
}

struct PrintCommitter {
    /// All that is the same in every epoch; its rows are none.
    shown: PrintedRows,
    committed: Option<u64>,
    on_print: OnPrint,
}

impl PrintCommitter {
    fn print(&self, epoch: u64, last: bool, committables: &[Committable]) -> Result<(), ArrowError> {
        let schema = self.shown.rows.schema();
        let mut batches = Vec::new();
        for committable in committables {
            batches.extend(decode(&schema, &committable.payload)?);
        }
        let mut shown = PrintedRows { epoch, last, ..self.shown.clone() };
        if !batches.is_empty() {
            shown.rows = concat_batches(&schema, batches.iter().map(|batch| &batch.rows))?;
            let kinds: Vec<u8> = batches.iter().flat_map(|batch| batch.all_kinds().values().to_vec()).collect();
            shown.kinds = (kinds.iter().any(|kind| *kind != 0)).then(|| UInt8Array::from(kinds));
        }
        if shown.rows.num_rows() > 0 || last {
            (self.on_print)(shown);
        }
        Ok(())
    }
}

impl SinkCommitter for PrintCommitter {
    fn commit(
        &mut self,
        epoch: u64,
        kind: CommitKind,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<(), RunError>> {
        async move {
            if self.committed.is_some_and(|committed| epoch <= committed) {
                return Ok(());
            }
            self.print(epoch, kind.last, &committables)
                .map_err(|error| RunError::internal(format!("cannot read rows to print: {error}")))?;
            self.committed = Some(epoch);
            Ok(())
        }
        .boxed()
    }

    fn abort(&mut self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::sinks::{LAST, prepare, writer};
    use crate::testing::{run, sample, texts};
    use engine::Batch;
    use std::sync::Mutex;

    #[test]
    fn epochs_are_printed_once_in_order_with_kinds() {
        let printed: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = printed.clone();
        let on_print: OnPrint = Arc::new(move |rows: PrintedRows| {
            let kinds = rows.kinds.as_ref().map(|kinds| kinds.values().to_vec());
            seen.lock().unwrap().push(format!(
                "{} {} {} {kinds:?} {}",
                rows.identifier,
                rows.epoch,
                texts(&rows.rows).len(),
                rows.last
            ));
        });
        let schema = sample::rows(0, 0).schema();
        let context = SinkContext {
            run_id: "r".into(),
            bounded: true,
            updating: true,
            stateless: false,
            operator: "o".into(),
            durable: false,
        };
        let sink: Arc<dyn Sink> = Arc::new(PrintSink {
            table: "t".into(),
            identifier: ">".into(),
            schema: schema.clone(),
            context,
            on_print,
        });
        run(async {
            let (mut one, mut two, mut committer) =
                (writer(&sink, &schema, 0, 2), writer(&sink, &schema, 1, 2), sink.committer().unwrap());
            let kind = CommitKind { checkpoint: false, last: false };
            for epoch in 1..4 {
                if epoch == 1 {
                    one.write(Batch::inserts(sample::rows(0, 2))).unwrap();
                }
                if epoch == 3 {
                    one.write(Batch::inserts(sample::rows(2, 1))).unwrap();
                    two.write(Batch::changes(sample::rows(3, 2), UInt8Array::from(vec![1, 2]))).unwrap();
                }
                let prepared =
                    vec![prepare(&mut one, epoch, kind).await.unwrap(), prepare(&mut two, epoch, kind).await.unwrap()];
                committer.commit(epoch, kind, prepared.clone()).await.unwrap();
                committer.commit(epoch, kind, prepared).await.unwrap();
            }
            let prepared = vec![prepare(&mut one, 4, LAST).await.unwrap()];
            committer.commit(4, LAST, prepared).await.unwrap();
        });
        assert_eq!(*printed.lock().unwrap(), ["> 1 2 None false", "> 3 3 Some([0, 1, 2]) false", "> 4 0 None true"]);
    }
}
