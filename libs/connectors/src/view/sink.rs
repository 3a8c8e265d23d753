//! The sink of a view: see the module above.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use engine::{CommitKind, Commits, Committable, RunError, Sink, SinkCommitter, SinkContext, SinkWriter, WriterContext};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::connector::ViewOptions;
use views::{Changes, LiveView, PublishedBy, ViewDefinition, ViewFiles, ViewTable};

use super::{ViewHost, definition, no_host, run_error};
use crate::epoch_rows::{EpochRows, decode};

pub struct ViewSink {
    definition: ViewDefinition,
    table: String,
    schema: SchemaRef,
    bounded: bool,
    host: Option<ViewHost>,
}

impl ViewSink {
    /// # Errors
    /// A definition that cannot be kept, or changing rows without a key to keep them by.
    pub fn open(
        node: &graph::Sink,
        options: &ViewOptions,
        schema: SchemaRef,
        context: SinkContext,
        host: Option<ViewHost>,
    ) -> Result<ViewSink, RunError> {
        let column = |field: &arrow::datatypes::FieldRef| {
            let data_type = expr::sql_type(field.data_type()).ok_or_else(|| {
                RunError::internal(format!("column {} of {} has no SQL type", field.name(), node.table))
            })?;
            Ok(graph::Column::new(field.name(), data_type, field.is_nullable()))
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_, RunError>>()?;
        let definition = definition(node, options, &graph::Schema::new(columns))?;
        super::checked(definition.clone())?;
        if context.updating && !definition.is_keyed() {
            return Err(run_error(views::ViewError::NotKeyed { view: definition.name }));
        }
        Ok(ViewSink { definition, table: node.table.clone(), schema, bounded: context.bounded, host })
    }
}

impl Sink for ViewSink {
    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        Ok(EpochRows::writer(self.schema.clone()))
    }

    /// Only here the host matters: the processes that only write have none.
    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        let host = self.host.as_ref().ok_or_else(|| no_host(&self.table))?;
        let table = ViewTable::new(self.definition.clone()).map_err(run_error)?;
        let files = ViewFiles::new(host.views_dir(), &self.definition.name).map_err(run_error)?;
        let live = host.begin(table.definition())?;
        let fold =
            Fold { schema: self.schema.clone(), table, live, files, by: host.by().clone(), bounded: self.bounded };
        Ok(Box::new(ViewCommitter { fold: Arc::new(Mutex::new(fold)), watermark_us: None }))
    }

    fn commits(&self) -> Commits {
        Commits::EveryEpoch
    }
}

struct ViewCommitter {
    fold: Arc<Mutex<Fold>>,
    /// Of the epoch that is committed next.
    watermark_us: Option<i64>,
}

/// What is at work in a commit, on a thread that may block.
struct Fold {
    schema: SchemaRef,
    table: ViewTable,
    live: Arc<LiveView>,
    files: ViewFiles,
    by: PublishedBy,
    bounded: bool,
}

impl Fold {
    fn commit(
        &mut self,
        epoch: u64,
        kind: CommitKind,
        watermark_us: Option<i64>,
        committables: Vec<Committable>,
    ) -> Result<(), RunError> {
        if epoch <= self.table.epoch() {
            return Ok(());
        }
        let mut changes = Vec::new();
        for committable in committables {
            let batches = decode(&self.schema, &committable.payload)
                .map_err(|error: ArrowError| RunError::internal(format!("cannot read rows of a view: {error}")))?;
            changes.extend(batches.into_iter().map(|batch| Changes { rows: batch.rows, kinds: batch.kinds }));
        }
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_micros() as i64);
        self.table.apply(epoch, watermark_us, now_us, &changes).map_err(run_error)?;
        self.live.set_removed_rows(self.table.dropped());
        if kind.last {
            self.files.publish(&self.table.snapshot(), &self.by).map_err(run_error)?;
        }
        if kind.last || !self.bounded {
            self.live.show(self.table.snapshot());
        }
        Ok(())
    }
}

impl SinkCommitter for ViewCommitter {
    fn watermark(&mut self, _: u64, watermark_us: i64) {
        self.watermark_us = (watermark_us != i64::MIN).then_some(watermark_us);
    }

    fn commit(
        &mut self,
        epoch: u64,
        kind: CommitKind,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<(), RunError>> {
        let (fold, watermark_us) = (self.fold.clone(), self.watermark_us);
        let folding = tokio::task::spawn_blocking(move || {
            let mut fold = fold.lock().map_err(|_| RunError::internal("folding a view has failed before"))?;
            fold.commit(epoch, kind, watermark_us, committables)
        });
        async { folding.await.map_err(|_| RunError::internal("folding a view was broken off"))? }.boxed()
    }

    /// What was shown was true when it was shown; what was published stays.
    fn abort(&mut self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
