//! The sink of a view: see the module above.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use engine::runtime::{Authority, Place};
use engine::{CommitKind, Commits, Committable, RunError, Sink, SinkCommitter, SinkContext, SinkWriter, WriterContext};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::connector::ViewOptions;
use views::{Changes, LiveView, PublishedBy, ViewDefinition, ViewFiles, ViewTable};

use super::kept::Kept;
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
        let definition = self.definition.clone();
        Ok(Box::new(ViewCommitter { fold: Arc::new(Mutex::new(fold)), watermark_us: None, definition, kept: None }))
    }

    fn commits(&self) -> Commits {
        Commits::EveryEpoch
    }
}

struct ViewCommitter {
    fold: Arc<Mutex<Fold>>,
    /// Of the epoch that is committed next.
    watermark_us: Option<i64>,
    definition: ViewDefinition,
    /// If the run keeps checkpoints.
    kept: Option<Kept>,
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
    /// When it was applied, microseconds; `None` if it had been before.
    fn apply(
        &mut self,
        epoch: u64,
        watermark_us: Option<i64>,
        committables: &[Committable],
    ) -> Result<Option<i64>, RunError> {
        if epoch <= self.table.epoch() {
            return Ok(None);
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
        Ok(Some(now_us))
    }

    fn show(&mut self, kind: CommitKind) -> Result<(), RunError> {
        if kind.last {
            faults::hit("view.publish.before")?;
            self.files.publish(&self.table.snapshot(), &self.by).map_err(run_error)?;
            faults::hit("view.publish.after")?;
        }
        if kind.last || !self.bounded {
            self.live.show(self.table.snapshot());
        }
        Ok(())
    }
}

impl ViewCommitter {
    /// Works at the fold on a thread that may block.
    async fn folding<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Fold) -> Result<T, RunError> + Send + 'static,
    ) -> Result<T, RunError> {
        let fold = self.fold.clone();
        let folding = tokio::task::spawn_blocking(move || {
            work(&mut *fold.lock().map_err(|_| RunError::internal("folding a view has failed before"))?)
        });
        folding.await.map_err(|_| RunError::internal("folding a view was broken off"))?
    }

    /// Folds the rows of an epoch, once.
    async fn apply(&mut self, epoch: u64, committables: Vec<Committable>) -> Result<(), RunError> {
        let watermark_us = self.watermark_us;
        let applied = self.folding(move |fold| Ok((fold.apply(epoch, watermark_us, &committables)?, committables)));
        if let (Some(at_us), committables) = applied.await?
            && let Some(kept) = &mut self.kept
        {
            kept.applied(epoch, watermark_us, at_us, &committables);
        }
        Ok(())
    }
}

impl SinkCommitter for ViewCommitter {
    fn keep(&mut self, place: &Place, _: Option<u64>, _: &Arc<dyn Authority>) {
        self.kept = Some(Kept::new(place.clone(), &self.definition.name));
    }

    fn restore(&mut self, _: u64, staged: Vec<Committable>) -> BoxFuture<'_, Result<(), RunError>> {
        async move {
            let (Some(kept), [staged]) = (&mut self.kept, &staged[..]) else {
                return Err(RunError::internal("a checkpoint keeps one thing of a view"));
            };
            let table = kept.restore(&self.definition, staged).await?;
            self.folding(move |fold| {
                fold.table = table;
                // What was shown before the failure is shown until there is more.
                fold.show(CommitKind { checkpoint: true, last: false })
            })
            .await
        }
        .boxed()
    }

    fn stage(
        &mut self,
        epoch: u64,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<Vec<Committable>, RunError>> {
        async move {
            self.apply(epoch, committables).await?;
            let snapshot = self.folding(|fold| Ok(fold.table.snapshot())).await?;
            match &mut self.kept {
                Some(kept) => Ok(vec![kept.stage(&snapshot).await?]),
                None => Ok(Vec::new()),
            }
        }
        .boxed()
    }

    fn watermark(&mut self, _: u64, watermark_us: i64) {
        self.watermark_us = (watermark_us != i64::MIN).then_some(watermark_us);
    }

    fn commit(
        &mut self,
        epoch: u64,
        kind: CommitKind,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<(), RunError>> {
        async move {
            self.apply(epoch, committables).await?;
            self.folding(move |fold| fold.show(kind)).await
        }
        .boxed()
    }

    /// What was shown was true when it was shown; what was published stays.
    fn abort(&mut self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
}
