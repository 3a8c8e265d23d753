//! What every source and every sink must keep: suites that the tests of each call.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::{
    Position, RowPositions, RunError, Source, SourceContext, SourceEvent, SourceHints, SourceOutput, Split, SplitStart,
};
use graph::connector::SourceConnector;
use serde_json::{Value, json};

/// Runs a future on a runtime of its own; fails if it takes too long.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let result = runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("it takes too long") });
    runtime.shutdown_background();
    result
}

/// A source node from JSON options and `name TYPE [NOT NULL]` columns.
pub fn source_node(options: Value, columns: &[&str], partition_by: &[&str]) -> graph::Source {
    graph::Source {
        table: "t".into(),
        connector: SourceConnector::from_options(options.as_object().unwrap(), "").unwrap(),
        columns: columns.iter().map(|text| column(text)).collect(),
        on_bad_record: Default::default(),
        partition_by: partition_by.iter().map(|name| name.to_string()).collect(),
        metadata: Default::default(),
    }
}

pub fn column(text: &str) -> graph::Column {
    let (name, rest) = text.split_once(' ').unwrap();
    let (data_type, nullable) = rest.strip_suffix(" NOT NULL").map_or((rest, true), |data_type| (data_type, false));
    graph::Column::new(name, data_type.parse().unwrap(), nullable)
}

pub fn all_columns(node: &graph::Source) -> SourceHints {
    SourceHints { columns: graph::Schema::new(node.columns.clone()), ..SourceHints::default() }
}

pub fn files_node(path: &std::path::Path, format: &str, columns: &[&str]) -> graph::Source {
    source_node(json!({"type": "filesystem", "path": path.to_str().unwrap(), "format": format}), columns, &[])
}

/// Rows as text, `a|b|NULL`.
pub fn texts(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<ArrayFormatter> =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..rows.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

/// One event with rows, as far as tests compare it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub split: u32,
    /// `position: row`, and `position! code` for bad records.
    pub rows: Vec<String>,
    pub next: Position,
    pub len: usize,
}

pub fn starts(splits: &[Split]) -> Vec<SplitStart> {
    splits
        .iter()
        .enumerate()
        .map(|(at, split)| SplitStart { number: at as u32, split: split.clone(), position: None })
        .collect()
}

pub async fn collect(
    source: &Arc<dyn Source>,
    splits: Vec<SplitStart>,
    batch_rows: usize,
) -> Result<Vec<Seen>, RunError> {
    let (out, mut events) = SourceOutput::for_tests();
    let expected: BTreeSet<u32> = splits.iter().map(|start| start.number).collect();
    let schema = source.schema();
    let reading = source.clone().read(SourceContext { splits, batch_rows, waiting: engine::Waiting::new(|_| {}) }, out);
    let listening = async {
        let mut seen = Vec::new();
        let mut finished = BTreeSet::new();
        while let Some(event) = events.recv().await {
            match event {
                SourceEvent::Rows { split, rows, positions, bad, next, .. } => {
                    assert!(rows.num_rows() <= batch_rows && !finished.contains(&split));
                    assert_eq!(rows.schema(), schema);
                    let number = |row: usize| match &positions {
                        RowPositions::From(first) => first + row as i64,
                        RowPositions::Each(each) => each.value(row),
                    };
                    let len = rows.num_rows();
                    let mut rows: Vec<String> = texts(&rows)
                        .into_iter()
                        .enumerate()
                        .map(|(row, text)| format!("{}: {text}", number(row)))
                        .collect();
                    rows.extend(bad.iter().map(|bad| format!("{}! {}", bad.position, bad.code)));
                    seen.push(Seen { split, rows, next, len });
                }
                SourceEvent::Idle { .. } | SourceEvent::Absent { .. } | SourceEvent::Lag { .. } => {}
                SourceEvent::Finished { split } => assert!(finished.insert(split), "split {split} finishes once"),
            }
        }
        (seen, finished)
    };
    let (result, (seen, finished)) = tokio::join!(reading, listening);
    result?;
    assert_eq!(finished, expected, "every split finishes");
    Ok(seen)
}

/// Rows per split.
pub fn by_split(seen: &[Seen]) -> BTreeMap<u32, Vec<String>> {
    let mut rows: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for event in seen {
        rows.entry(event.split).or_default().extend(event.rows.iter().cloned());
    }
    for rows in rows.values_mut() {
        // Bad records stand behind the rows of their event.
        rows.sort_by_key(|row| row.split_once([':', '!']).unwrap().0.parse::<i64>().unwrap());
    }
    rows
}

/// What every bounded source keeps: one list of splits, every row once whatever the batches, exact resumption, harmless cancellation.
/// Gives all rows, without their positions, sorted.
pub async fn source_conformance(source: Arc<dyn Source>) -> Vec<String> {
    let splits = source.splits().await.unwrap();
    assert_eq!(splits, source.splits().await.unwrap(), "the list of splits is stable");
    let ids: BTreeSet<&str> = splits.iter().map(|split| split.id.as_str()).collect();
    assert_eq!(ids.len(), splits.len(), "ids are unique");
    let as_json: Vec<Split> = serde_json::from_str(&serde_json::to_string(&splits).unwrap()).unwrap();
    assert_eq!(as_json, splits, "splits travel between processes");

    let whole = collect(&source, starts(&splits), 8192).await.unwrap();
    let expected = by_split(&whole);
    for batch_rows in [1, 7] {
        let seen = collect(&source, starts(&splits), batch_rows).await.unwrap();
        assert_eq!(by_split(&seen), expected, "batches of {batch_rows} rows");
    }
    let seen = collect(&source, starts(&splits), 7).await.unwrap();
    let every = (seen.len() / 40).max(1);
    for (at, event) in seen.iter().enumerate().filter(|(at, _)| at % every == 0) {
        let mut start = starts(&splits)[event.split as usize].clone();
        start.position = Some(event.next.clone());
        let rest = by_split(&collect(&source, vec![start], 5).await.unwrap()).remove(&event.split).unwrap_or_default();
        let before: usize =
            seen[..=at].iter().filter(|earlier| earlier.split == event.split).map(|earlier| earlier.rows.len()).sum();
        assert_eq!(rest, expected[&event.split][before..], "resumed after {:?}", event.next);
    }
    for split in starts(&splits) {
        // Split by split is the same as all at once.
        let number = split.number;
        let alone = by_split(&collect(&source, vec![split], 8192).await.unwrap());
        assert_eq!(alone.get(&number), expected.get(&number));
    }
    let (out, mut events) = SourceOutput::for_tests();
    let reading = source
        .clone()
        .read(SourceContext { splits: starts(&splits), batch_rows: 1, waiting: engine::Waiting::new(|_| {}) }, out);
    tokio::select! {
        biased;
        _ = events.recv() => {}
        _ = reading => {}
    }
    assert_eq!(
        by_split(&collect(&source, starts(&splits), 8192).await.unwrap()),
        expected,
        "after a reader was dropped"
    );
    let mut rows: Vec<String> =
        expected.into_values().flatten().map(|row| row.split_once([':', '!']).unwrap().1.trim().to_string()).collect();
    rows.sort();
    rows
}

/// Small tables of many types for the tests of formats.
pub mod sample {
    use super::*;
    use arrow::array::*;
    use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

    /// `id BIGINT NOT NULL, name STRING, price DECIMAL(10, 2), ts TIMESTAMP(3), day DATE, ok BOOLEAN, x DOUBLE`.
    pub const COLUMNS: &[&str] = &[
        "id BIGINT NOT NULL",
        "name STRING",
        "price DECIMAL(10, 2)",
        "ts TIMESTAMP(3)",
        "day DATE",
        "ok BOOLEAN",
        "x DOUBLE",
    ];

    pub fn rows(from: i64, count: usize) -> RecordBatch {
        let ids = || (0..count).map(move |at| from + at as i64);
        let null = |id: i64, every: i64| id % every == 0;
        let columns: Vec<(Field, ArrayRef)> = vec![
            (Field::new("id", DataType::Int64, false), Arc::new(Int64Array::from_iter_values(ids()))),
            (
                Field::new("name", DataType::Utf8, true),
                Arc::new(ids().map(|id| (!null(id, 7)).then(|| format!("name {}", id % 13))).collect::<StringArray>()),
            ),
            (
                Field::new("price", DataType::Decimal128(10, 2), true),
                Arc::new(
                    ids()
                        .map(|id| (!null(id, 11)).then_some(id as i128 * 101))
                        .collect::<Decimal128Array>()
                        .with_precision_and_scale(10, 2)
                        .unwrap(),
                ),
            ),
            (
                Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
                Arc::new(TimestampMillisecondArray::from_iter_values(ids().map(|id| 1_700_000_000_000 + id * 250))),
            ),
            (
                Field::new("day", DataType::Date32, true),
                Arc::new(Date32Array::from_iter_values(ids().map(|id| 19_000 + (id / 10) as i32))),
            ),
            (
                Field::new("ok", DataType::Boolean, true),
                Arc::new(ids().map(|id| (!null(id, 5)).then_some(id % 2 == 0)).collect::<BooleanArray>()),
            ),
            (
                Field::new("x", DataType::Float64, true),
                Arc::new(Float64Array::from_iter_values(ids().map(|id| id as f64 / 8.0))),
            ),
        ];
        let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
    }
}

/// A sink under test: its writers, prepared and committed as the engine does.
pub mod sinks {
    use super::*;
    use engine::runtime::{Alone, Authority};
    use engine::{Batch, CommitKind, Committable, Prepared, Sink, SinkWriter, WriterContext};
    use state::{Snapshot, SnapshotReader, SnapshotWriter};

    pub const CHECKPOINT: CommitKind = CommitKind { checkpoint: true, last: false };
    pub const LAST: CommitKind = CommitKind { checkpoint: true, last: true };

    /// No other attempt ever takes over.
    pub fn alone() -> Arc<dyn Authority> {
        Arc::new(Alone)
    }

    pub fn sink_node(options: Value, partition_by: &[&str]) -> graph::Sink {
        graph::Sink {
            table: "out".into(),
            connector: graph::SinkConnector::from_options(options.as_object().unwrap(), "").unwrap(),
            columns: vec![],
            primary_key: vec![],
            partition_by: partition_by.iter().map(|name| name.to_string()).collect(),
            metadata: Default::default(),
        }
    }

    pub fn writer(
        sink: &Arc<dyn Sink>,
        schema: &arrow::datatypes::SchemaRef,
        worker: usize,
        workers: usize,
    ) -> Box<dyn SinkWriter> {
        let (failed, _) = tokio::sync::mpsc::unbounded_channel();
        let (tokio, waiting) = (tokio::runtime::Handle::current(), engine::Waiting::new(|_| {}));
        let schema = schema.clone();
        sink.writer(WriterContext { worker, workers, generation: 1, schema, tokio, failed, waiting, place: None })
            .unwrap()
    }

    pub async fn prepare(
        writer: &mut Box<dyn SinkWriter>,
        epoch: u64,
        kind: CommitKind,
    ) -> Result<Committable, RunError> {
        let (sender, answer) = tokio::sync::oneshot::channel();
        writer.prepare(epoch, kind, Prepared::new(move |result| drop(sender.send(result))))?;
        answer.await.expect("every prepare is answered")
    }

    pub fn snapshot(writer: &mut Box<dyn SinkWriter>, epoch: u64) -> Snapshot {
        let mut snapshot = SnapshotWriter::new();
        writer.snapshot(epoch, &mut snapshot).unwrap();
        // As it travels between processes.
        Snapshot::from_bytes(snapshot.finish().unwrap().to_bytes().unwrap()).unwrap()
    }

    /// What every sink of results keeps. `open` makes a sink of run `run`; `visible` reads what everybody can see, sorted, `None` if there
    /// is no result yet. `rows` gives distinct batches of the sink's schema by number.
    pub async fn sink_conformance(
        open: impl Fn(&str, bool) -> Arc<dyn Sink>,
        visible: impl AsyncFn() -> Option<Vec<String>>,
        rows: impl Fn(i64) -> RecordBatch,
    ) {
        let schema = rows(0).schema();
        let texts_of = |numbers: &[i64]| {
            let mut all: Vec<String> = numbers.iter().flat_map(|number| texts(&rows(*number))).collect();
            all.sort();
            all
        };
        let batch = |number: i64| Batch::inserts(rows(number));
        let before = visible().await;
        let so_far = before.clone().unwrap_or_default();
        assert_eq!(so_far, Vec::<String>::new(), "the suite begins without rows");

        // A run that is aborted leaves nothing.
        let sink = open("aborted", true);
        let (mut one, mut committer) = (writer(&sink, &schema, 0, 1), sink.committer().unwrap());
        one.write(batch(99)).unwrap();
        prepare(&mut one, 1, CHECKPOINT).await.unwrap();
        committer.abort().await;
        assert_eq!(visible().await.unwrap_or_default(), so_far, "after an abort");

        // A bounded run shows nothing before its end, and everything after, once.
        let sink = open("bounded", true);
        let mut writers = [writer(&sink, &schema, 0, 2), writer(&sink, &schema, 1, 2)];
        let mut committer = sink.committer().unwrap();
        writers[0].write(batch(0)).unwrap();
        writers[1].write(batch(1)).unwrap();
        let mut first = vec![];
        for writer in &mut writers {
            first.push(prepare(writer, 3, CHECKPOINT).await.unwrap());
        }
        committer.commit(3, CHECKPOINT, first).await.unwrap();
        assert_eq!(visible().await.unwrap_or_default(), so_far, "a bounded run is not shown in parts");
        // Restarted with three workers from the snapshots of two; what was written after them is written again.
        let parts: Vec<Snapshot> = writers.iter_mut().map(|writer| snapshot(writer, 3)).collect();
        writers[0].write(batch(98)).unwrap();
        drop((writers, committer));
        let sink = open("bounded", true);
        let mut writers: Vec<_> = (0..3).map(|worker| writer(&sink, &schema, worker, 3)).collect();
        for (worker, writer) in writers.iter_mut().enumerate() {
            writer.restore(&SnapshotReader::new(parts.clone(), worker, 3)).unwrap();
        }
        let mut committer = sink.committer().unwrap();
        writers[2].write(batch(2)).unwrap();
        let mut last = vec![];
        for writer in &mut writers {
            last.push(prepare(writer, 4, LAST).await.unwrap());
        }
        assert_eq!(last.iter().map(|one| one.rows).sum::<u64>(), texts_of(&[0, 1, 2]).len() as u64);
        assert_eq!(visible().await.unwrap_or_default(), so_far, "prepared is not committed");
        committer.commit(4, LAST, last.clone()).await.unwrap();
        assert_eq!(visible().await, Some(texts_of(&[0, 1, 2])));
        // Decided is decided: a new attempt's committer is told again, and an abort changes nothing.
        committer.commit(4, LAST, last.clone()).await.unwrap();
        let mut again = open("bounded", true).committer().unwrap();
        again.commit(4, LAST, last).await.unwrap();
        again.abort().await;
        assert_eq!(visible().await, Some(texts_of(&[0, 1, 2])), "a repeated commit changes nothing");

        // An unbounded run shows each checkpoint, after what was there.
        let sink = open("unbounded", false);
        let (mut one, mut committer) = (writer(&sink, &schema, 0, 1), sink.committer().unwrap());
        for epoch in 3..6 {
            one.write(batch(epoch)).unwrap();
            let prepared = prepare(&mut one, epoch as u64, CHECKPOINT).await.unwrap();
            committer.commit(epoch as u64, CHECKPOINT, vec![prepared.clone()]).await.unwrap();
            committer.commit(epoch as u64, CHECKPOINT, vec![prepared]).await.unwrap();
            assert_eq!(visible().await, Some(texts_of(&(0..=epoch).collect::<Vec<_>>())), "epoch {epoch}");
        }
        one.write(batch(97)).unwrap();
        prepare(&mut one, 6, CHECKPOINT).await.unwrap();
        committer.abort().await;
        assert_eq!(
            visible().await,
            Some(texts_of(&[0, 1, 2, 3, 4, 5])),
            "an abort takes back what was not committed, and nothing else"
        );

        // No rows are a result too.
        let sink = open("empty", true);
        let (mut one, mut committer) = (writer(&sink, &schema, 0, 1), sink.committer().unwrap());
        let prepared = prepare(&mut one, 1, LAST).await.unwrap();
        assert_eq!(prepared.rows, 0);
        committer.commit(1, LAST, vec![prepared]).await.unwrap();
        assert_eq!(visible().await, Some(texts_of(&[0, 1, 2, 3, 4, 5])));
    }
}
