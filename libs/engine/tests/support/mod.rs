//! Scripted sources and a sink that remembers what was committed, so that a test can play any history.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;
use arrow::util::display::array_value_to_string;
use engine::batch::Batch;
use engine::runtime::{Alone, Durable, Outcome, Progress, RestorePoint, RunRequest, Surroundings, Verb};
use engine::sink::*;
use engine::source::{RowPositions, SourceContext, SourceOutput};
use engine::{Connectors, Position, RunError, Sink, Source, SourceHints, Split};
use futures::future::BoxFuture;
use state::{Manifest, MemoryFiles, SnapshotReader, SnapshotWriter};
use tokio::sync::watch;

/// What a split does, in order.
#[derive(Clone, Debug)]
pub enum Act {
    /// Rows of (time in ms, key, value).
    Rows(Vec<(i64, &'static str, i64)>),
    Idle,
    /// Waits until this epoch is committed (or the run is over).
    AfterCommit(u64),
    /// Waits until this line is committed (or the run is over).
    AfterLine(&'static str),
    Pause(u64),
}

/// Per table its splits, each a list of acts; then the split ends.
pub type Scripts = BTreeMap<&'static str, Vec<Vec<Act>>>;

#[derive(Clone)]
pub struct World {
    scripts: Arc<Scripts>,
    committed: watch::Sender<u64>,
    lines: Arc<Mutex<Vec<(u64, String)>>>,
    /// Rows sent by sources minus rows written by sinks; and its maximum.
    pub in_flight: Arc<Mutex<(i64, i64)>>,
    /// Every written batch takes this long.
    pub slow_sink: Duration,
    pub checkpoints: MemoryFiles,
}

impl World {
    pub fn new(scripts: impl IntoIterator<Item = (&'static str, Vec<Vec<Act>>)>) -> World {
        World {
            scripts: Arc::new(scripts.into_iter().collect()),
            committed: watch::channel(0).0,
            lines: Arc::default(),
            in_flight: Arc::default(),
            slow_sink: Duration::ZERO,
            checkpoints: MemoryFiles::default(),
        }
    }

    /// What was committed, with epochs, in order.
    pub fn committed(&self) -> Vec<(u64, String)> {
        self.lines.lock().expect("lock").clone()
    }

    /// What was committed, sorted.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.committed().into_iter().map(|(_, line)| line).collect();
        lines.sort();
        lines
    }
}

/// Runs a graph over scripted sources.
pub fn run(world: &World, nodes: &str, settings: &str) -> Result<Outcome, RunError> {
    run_from(world, nodes, settings, None, None)
}

/// The same, beginning at a checkpoint and ending after an epoch.
pub fn run_from(
    world: &World,
    nodes: &str,
    settings: &str,
    restore: Option<&Manifest>,
    stop_after: Option<u64>,
) -> Result<Outcome, RunError> {
    let graph = graph::Graph::from_json(&format!("{{\"version\": 1, \"nodes\": [{nodes}]}}")).expect("a good graph");
    let settings: serde_json::Value = serde_json::from_str(settings).expect("settings are JSON");
    let settings =
        graph::Settings::from_options(settings.as_object().cloned().expect("an object")).expect("good settings");
    let request = RunRequest {
        run_id: "test".into(),
        generation: 1,
        graph,
        settings,
        start: Default::default(),
        first_epoch: restore.map_or(1, |manifest| manifest.epoch + 1),
        restore: restore.map(RestorePoint::committed).into_iter().collect(),
        stop_after,
    };
    let (_verb, verb) = watch::channel(Verb::Run);
    let (progress, _) = watch::channel(Progress::default());
    let durable = (restore.is_some() || stop_after.is_some()).then(|| Durable {
        job: "job_test".into(),
        files: Arc::new(world.checkpoints.clone()),
        authority: Arc::new(Alone),
    });
    let around =
        Surroundings { connectors: Arc::new(world.clone()), launch: None, verb, progress, durable, asked: None };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let timed = async { tokio::time::timeout(Duration::from_secs(60), engine::runtime::run(request, around)).await };
    runtime.block_on(timed).expect("the run ends within a minute")
}

impl Connectors for World {
    fn source(&self, node: &graph::Source, hints: SourceHints) -> Result<Arc<dyn Source>, RunError> {
        let splits = self.scripts.get(node.table.as_str()).cloned().unwrap_or_default();
        Ok(Arc::new(Scripted { splits, schema: expr::arrow_schema(&hints.columns), world: self.clone() }))
    }

    fn sink(&self, _: &graph::Sink, schema: SchemaRef, _: SinkContext) -> Result<Arc<dyn Sink>, RunError> {
        let _ = schema;
        Ok(Arc::new(self.clone()))
    }
}

struct Scripted {
    splits: Vec<Vec<Act>>,
    schema: SchemaRef,
    world: World,
}

impl Source for Scripted {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn splits(&self) -> BoxFuture<'_, Result<Vec<Split>, RunError>> {
        let split = |number: usize| Split {
            id: format!("split-{number}"),
            spec: number.into(),
            min_time_us: None,
            rows: None,
            bytes: None,
        };
        Box::pin(async move { Ok((0..self.splits.len()).map(split).collect()) })
    }

    fn read(self: Arc<Self>, context: SourceContext, out: SourceOutput) -> BoxFuture<'static, Result<(), RunError>> {
        Box::pin(async move {
            let out = tokio::sync::Mutex::new(out);
            let plays = context.splits.iter().map(|start| self.play(start, context.batch_rows, &out));
            futures::future::try_join_all(plays).await.map(drop)
        })
    }
}

impl Scripted {
    async fn play(
        &self,
        start: &engine::SplitStart,
        batch_rows: usize,
        out: &tokio::sync::Mutex<SourceOutput>,
    ) -> Result<(), RunError> {
        let script = &self.splits[start.split.spec.as_u64().expect("a number") as usize];
        let mut skip: usize = match &start.position {
            Some(Position::At(position)) => position.parse().expect("a row number"),
            _ => 0,
        };
        let mut sent = 0;
        for act in script {
            match act {
                Act::Idle if skip == 0 => out.lock().await.idle(start.number)?,
                Act::Pause(ms) if skip == 0 => tokio::time::sleep(Duration::from_millis(*ms)).await,
                Act::AfterCommit(epoch) if skip == 0 => {
                    let _ = self.world.committed.subscribe().wait_for(|committed| committed >= epoch).await;
                }
                Act::AfterLine(line) if skip == 0 => {
                    let is_there = |_: &u64| self.world.committed().iter().any(|(_, committed)| committed == line);
                    let _ = self.world.committed.subscribe().wait_for(is_there).await;
                }
                Act::Rows(rows) => {
                    let skipped = skip.min(rows.len());
                    skip -= skipped;
                    sent += skipped;
                    for chunk in rows[skipped..].chunks(batch_rows) {
                        {
                            let mut flight = self.world.in_flight.lock().expect("lock");
                            flight.0 += chunk.len() as i64;
                            flight.1 = flight.1.max(flight.0);
                        }
                        let next = Position::At((sent + chunk.len()).to_string());
                        let rows = columns(&self.schema, chunk);
                        out.lock()
                            .await
                            .rows(start.number, rows, RowPositions::From(sent as i64), vec![], next)
                            .await?;
                        sent += chunk.len();
                    }
                }
                _ => {}
            }
        }
        out.lock().await.finished(start.number)
    }
}

fn columns(schema: &SchemaRef, rows: &[(i64, &'static str, i64)]) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| -> Arc<dyn Array> {
        match field.name().as_str() {
            "ts" => Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0))),
            "k" => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
            "v" => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
            other => panic!("scripts have no column {other}"),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).expect("columns fit")
}

impl Sink for World {
    fn writer(&self, _: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        Ok(Box::new(Lines { world: self.clone(), lines: Vec::new() }))
    }

    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        Ok(Box::new(self.clone()))
    }

    fn commits(&self) -> Commits {
        Commits::EveryEpoch
    }
}

struct Lines {
    world: World,
    lines: Vec<String>,
}

impl SinkWriter for Lines {
    fn write(&mut self, batch: Batch) -> Result<(), RunError> {
        std::thread::sleep(self.world.slow_sink);
        self.world.in_flight.lock().expect("lock").0 -= batch.num_rows() as i64;
        for row in 0..batch.num_rows() {
            let values = batch.rows.columns().iter().map(|column| match column.is_null(row) {
                true => "NULL".to_string(),
                false => array_value_to_string(column, row).expect("a value shows").replace("1970-01-01T", ""),
            });
            let mark = if batch.kinds.is_some() { format!("{} ", batch.kind(row).mark()) } else { String::new() };
            self.lines.push(format!("{mark}{}", values.collect::<Vec<_>>().join(" ")));
        }
        Ok(())
    }

    fn prepare(&mut self, _: u64, _: CommitKind, reply: Prepared) -> Result<(), RunError> {
        let lines = std::mem::take(&mut self.lines);
        reply.done(Ok(Committable {
            rows: lines.len() as u64,
            payload: serde_json::to_vec(&lines).expect("text"),
            files: vec![],
        }));
        Ok(())
    }

    fn snapshot(&mut self, _: u64, _: &mut SnapshotWriter) -> Result<(), RunError> {
        assert!(self.lines.is_empty(), "everything was prepared before the snapshot");
        Ok(())
    }

    fn restore(&mut self, _: &SnapshotReader) -> Result<(), RunError> {
        Ok(())
    }
}

impl SinkCommitter for World {
    fn commit(
        &mut self,
        epoch: u64,
        _: CommitKind,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<(), RunError>> {
        Box::pin(async move {
            for committable in committables {
                let lines: Vec<String> = serde_json::from_slice(&committable.payload).expect("lines");
                self.lines.lock().expect("lock").extend(lines.into_iter().map(|line| (epoch, line)));
            }
            self.committed.send_replace(epoch);
            Ok(())
        })
    }

    fn abort(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A source node with a watermark: columns ts (time attribute), k, v.
pub fn source(table: &str, delay: &str, idle: Option<&str>) -> String {
    let idle = idle.map(|idle| format!(", \"idle_timeout\": \"{idle}\"")).unwrap_or_default();
    format!(
        r#"{{"id": "{table}", "type": "source", "table": "{table}", "connector": {{"type": "datagen"}}, "columns": [
            {{"name": "ts", "type": "TIMESTAMP(3)"}}, {{"name": "k", "type": "STRING"}}, {{"name": "v", "type": "BIGINT"}}]}},
           {{"id": "{table}-time", "type": "watermark", "inputs": ["{table}"], "column": "ts", "delay": "{delay}", "max_ahead": "365000days"{idle}}}"#
    )
}

/// Tumbling windows of `size` by key: sum of v and number of rows, into the sink.
pub fn tumble(input: &str, size: &str) -> String {
    format!(
        r#"{{"id": "sums", "type": "window_aggregate", "inputs": ["{input}"], "window": {{"kind": "tumble", "time": "ts", "size": "{size}"}},
            "keys": [{{"name": "k", "expr": "k"}}],
            "aggregates": [{{"name": "total", "function": "sum", "args": ["v"]}}, {{"name": "n", "function": "count"}}]}},
           {{"id": "short", "type": "project", "inputs": ["sums"], "columns": [
            {{"name": "k", "expr": "k"}}, {{"name": "window_start", "expr": "window_start"}}, {{"name": "total", "expr": "total"}}, {{"name": "n", "expr": "n"}}]}},
           {{"id": "out", "type": "sink", "inputs": ["short"], "table": "out", "connector": {{"type": "blackhole"}}}}"#
    )
}
