//! `replay`: files as a live stream, in order of arrival.
//!
//! A row arrives at its event time plus a draw in `[0, disorder]` that depends on the seed, its file and its place there alone. All rows
//! are read and sorted once, into a [`cache`] that later runs over the same files and options use again; readers of a run only read the
//! cache. The semantics are those of a live source whatever the speed. Rows are dealt into splits by a hash, so that every split is in
//! order of arrival; a position is a row number in the split. Rows without a time arrive with the row before them in their file; without
//! a time column rows arrive in the order of the files.

mod cache;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use engine::{BadRecord, Position, RowPositions, RunError, Source, SourceContext, SourceHints, SourceOutput, Split};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::ReplayOptions;
use graph::connector::{ReplaySpeed, ReplayThen};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::files::{FilesystemSource, Reach};
use cache::{Cache, SplitReader};
use expr::arrow_schema;

/// At a factor, batches are sent at least this far apart.
const TICK: Duration = Duration::from_millis(5);

pub struct ReplaySource {
    files: Arc<FilesystemSource>,
    options: ReplayOptions,
    /// What readers give: the wanted columns.
    schema: SchemaRef,
    time_column: Option<String>,
    cache: OnceCell<Arc<Cache>>,
}

impl ReplaySource {
    /// # Errors
    /// As of files; and a factor of speed without a time column.
    pub fn open(
        node: &graph::Source,
        options: &ReplayOptions,
        hints: SourceHints,
        reach: &Reach,
    ) -> Result<ReplaySource, RunError> {
        let invalid =
            |reason: String| RunError::user("invalid_option", format!("cannot replay {}: {reason}", node.table));
        if hints.time_column.is_none() && matches!(options.speed, ReplaySpeed::Factor(_)) {
            let reason = "replay.speed is a factor of recorded time, but no column of the files is the time attribute"
                .to_string();
            return Err(
                invalid(reason).hint("declare WATERMARK FOR a column of the files, or write 'replay.speed' = 'max'")
            );
        }
        let schema = arrow_schema(&hints.columns);
        let time_column = hints.time_column.clone();
        // The order of arrival needs the time, even if nobody else does. Conditions are not used: they must not change what a row draws.
        let mut columns = hints.columns;
        if let Some(name) = &time_column
            && columns.column(name).is_none()
        {
            let column = node.columns.iter().find(|column| column.name == *name);
            columns.columns.push(column.ok_or_else(|| invalid(format!("there is no column {name}")))?.clone());
        }
        let hints = SourceHints { columns, time_column: None, pushed: vec![] };
        let files = Arc::new(FilesystemSource::open(node, &options.files, hints, reach)?);
        Ok(ReplaySource { files, options: options.clone(), schema, time_column, cache: OnceCell::new() })
    }

    async fn cache(&self) -> Result<&Arc<Cache>, RunError> {
        let make = async || {
            let parts = cache::Parts {
                disorder_us: self.options.disorder.us,
                seed: self.options.seed,
                splits: self.options.splits,
                time_column: self.time_column.clone(),
                columns: self.schema.fields().len(),
            };
            cache::open_or_make(self.files.clone(), parts).await.map(Arc::new)
        };
        self.cache.get_or_try_init(make).await
    }
}

/// A split that is being read.
struct Cursor {
    number: u32,
    reader: SplitReader,
    /// Rows that were sent.
    done: u64,
    /// The block that holds row `done`, from that row on, with its keys.
    block: Option<(RecordBatch, Vec<i64>)>,
    /// Rows of the block that were sent.
    used: usize,
    bad: Vec<BadRecord>,
}

impl Cursor {
    /// Arrival of the next row; `None` at the end.
    async fn next_key(&mut self) -> Result<Option<i64>, RunError> {
        if self.block.as_ref().is_none_or(|(rows, _)| self.used == rows.num_rows()) {
            self.used = 0;
            self.block = None;
            if self.done < self.reader.rows() {
                let (reader, done) = (self.reader.clone(), self.done);
                let block = tokio::task::spawn_blocking(move || reader.block_at(done)).await;
                let (rows, keys) =
                    block.map_err(|_| RunError::internal("reading the replay cache was broken off"))??;
                self.block = Some((rows, keys.as_primitive::<Int64Type>().values().to_vec()));
            }
        }
        Ok(self.block.as_ref().map(|(_, keys)| keys[self.used]))
    }

    /// At most `most` rows that arrive until `until`; there is at least one.
    fn take(&mut self, most: usize, until: i64) -> RecordBatch {
        let (rows, keys) = self.block.as_ref().expect("the next row was looked at");
        let due = keys[self.used..].partition_point(|key| *key <= until);
        let count = due.clamp(1, most);
        let taken = rows.slice(self.used, count);
        self.used += count;
        self.done += count as u64;
        taken
    }
}

impl Source for ReplaySource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn splits(&self) -> BoxFuture<'_, Result<Vec<Split>, RunError>> {
        async {
            let cache = self.cache().await?;
            let split = |at: usize| Split {
                id: format!("replay-{at}"),
                spec: at.into(),
                min_time_us: None,
                rows: Some(cache.info.rows[at]),
                bytes: None,
            };
            Ok((0..cache.info.rows.len()).map(split).collect())
        }
        .boxed()
    }

    fn read(
        self: Arc<Self>,
        context: SourceContext,
        mut out: SourceOutput,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        async move {
            let cache = self.cache().await?.clone();
            let mut cursors = Vec::with_capacity(context.splits.len());
            for start in &context.splits {
                let split = start.split.spec.as_u64().filter(|split| *split < cache.info.rows.len() as u64);
                let split =
                    split.ok_or_else(|| RunError::internal("a split of a replay is not one of the cache"))? as usize;
                let reader = cache.reader(split)?;
                let (done, bad) = match &start.position {
                    // Records that cannot be read have no time: they come first.
                    None => (0, if split == 0 { cache.info.bad_records() } else { vec![] }),
                    Some(Position::At(text)) => (
                        text.parse().map_err(|_| RunError::internal("a position of a replay is not a number"))?,
                        vec![],
                    ),
                    Some(Position::End) => (reader.rows(), vec![]),
                };
                cursors.push(Cursor { number: start.number, reader, done, block: None, used: 0, bad });
            }
            let mut clock: Option<(Instant, i64)> = None;
            let fresh = context.splits.iter().all(|start| start.position.is_none());
            loop {
                let mut next: Option<(i64, usize)> = None;
                for (at, cursor) in cursors.iter_mut().enumerate() {
                    if !cursor.bad.is_empty() {
                        let bad = std::mem::take(&mut cursor.bad);
                        let none = RecordBatch::new_empty(self.schema.clone());
                        out.rows(cursor.number, none, RowPositions::From(0), bad, Position::At("0".into())).await?;
                    }
                    if let Some(key) = cursor.next_key().await?
                        && next.is_none_or(|(least, _)| key < least)
                    {
                        next = Some((key, at));
                    }
                }
                let Some((key, at)) = next else { break };
                let mut until = i64::MAX;
                if let ReplaySpeed::Factor(factor) = self.options.speed {
                    // All readers of a fresh run begin at the first arrival of all; a resumed one at its own.
                    let (begun, first) =
                        *clock.get_or_insert_with(|| (Instant::now(), if fresh { cache.info.first_key } else { key }));
                    let due = begun + Duration::from_secs_f64(key.saturating_sub(first).max(0) as f64 / 1e6 / factor);
                    if due > Instant::now() {
                        tokio::time::sleep_until(due.max(Instant::now() + TICK)).await;
                    }
                    until = first.saturating_add((begun.elapsed().as_secs_f64() * factor * 1e6) as i64);
                }
                let cursor = &mut cursors[at];
                let first = cursor.done;
                let rows = cursor.take(context.batch_rows.max(1), until);
                let next = Position::At(cursor.done.to_string());
                out.rows(cursor.number, rows, RowPositions::From(first as i64), vec![], next).await?;
                if self.options.then == ReplayThen::End && cursor.done == cursor.reader.rows() {
                    out.finished(cursor.number)?;
                    cursors.remove(at);
                }
                tokio::task::yield_now().await;
            }
            for cursor in &cursors {
                match self.options.then {
                    ReplayThen::End => out.finished(cursor.number)?,
                    ReplayThen::Idle => out.idle(cursor.number)?,
                }
            }
            if self.options.then == ReplayThen::Idle && !cursors.is_empty() {
                futures::future::pending::<()>().await;
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
