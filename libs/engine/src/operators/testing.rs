//! Rows as text for the tests of operators, and snapshots by way of bytes.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use graph::AggregateFunction;
use state::{MemoryStore, Snapshot, SnapshotWriter};

use super::ledger::SplitNames;
pub use crate::aggregate::tests::Random;
use crate::batch::{Batch, RowKind};
use crate::operator::{Operator, Output};
use crate::plan::Call;

/// A batch from text: `columns` like `k STRING, v BIGINT`, then a row per line, values divided by blanks. Times of day are on 1970-01-01.
/// Rows may begin with a kind mark.
pub fn batch(columns: &str, rows: &str) -> Batch {
    let schema = schema(columns);
    let lines: Vec<&str> = rows.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let marks = ["+I", "-U", "+U", "-D"];
    let kinds: Vec<u8> =
        lines.iter().filter_map(|line| marks.iter().position(|mark| line.starts_with(mark))).map(|k| k as u8).collect();
    let cells: Vec<Vec<&str>> =
        lines.iter().map(|line| line.split_whitespace().skip(usize::from(!kinds.is_empty())).collect()).collect();
    let arrays: Vec<ArrayRef> = arrow(&schema)
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| {
            let texts = cells.iter().map(|row| (row[at] != "NULL").then(|| spelled(row[at], field.data_type())));
            cast(&texts.collect::<StringArray>(), field.data_type()).unwrap()
        })
        .collect();
    let rows = RecordBatch::try_new(arrow(&schema), arrays).unwrap();
    if kinds.is_empty() { Batch::inserts(rows) } else { Batch::changes(rows, kinds.into()) }
}

fn spelled(text: &str, data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(_, _) if text.contains(':') && !text.contains('T') => {
            format!("1970-01-01T{text}{}", if text.matches(':').count() == 1 { ":00" } else { "" })
        }
        _ => text.to_string(),
    }
}

pub fn schema(columns: &str) -> graph::Schema {
    let column = |text: &str| {
        let (name, data_type) = text.trim().split_once(' ').unwrap();
        graph::Column::new(name, data_type.parse().unwrap(), true)
    };
    graph::Schema::new(columns.split(',').map(column).collect())
}

pub fn arrow(schema: &graph::Schema) -> arrow::datatypes::SchemaRef {
    expr::arrow_schema(schema)
}

/// A row per line, as [`batch`] reads them; a kind mark before each row of a batch with kinds.
pub fn text(batches: &[Batch]) -> String {
    let mut lines = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<ArrayFormatter> =
            batch.rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let kind = batch.kinds.as_ref().map(|_| batch.kind(row).mark().to_string());
            let cells = columns.iter().map(|column| short(&column.value(row).to_string()));
            lines.push(kind.into_iter().chain(cells).collect::<Vec<_>>().join(" "));
        }
    }
    lines.join("\n")
}

fn short(text: &str) -> String {
    let Some(time) = text.strip_prefix("1970-01-01T") else { return text.to_string() };
    time.strip_suffix(":00").filter(|rest| rest.contains(':')).unwrap_or(time).to_string()
}

/// The lines of a text, ordered: for comparisons where the order of rows is free.
pub fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    lines.sort();
    lines
}

/// The relation that changes add up to, each row with how often it is there; panics when a row is taken back that is not there.
pub fn relation(batches: &[Batch]) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let line = text(&[Batch::inserts(batch.rows.slice(row, 1))]);
            if batch.kind(row).adds() {
                rows.push(line);
            } else {
                let at = rows.iter().position(|known| *known == line);
                rows.remove(at.unwrap_or_else(|| panic!("{line} is taken back but was never there")));
            }
        }
    }
    rows.sort();
    rows
}

/// Asserts that each -U has its +U behind it, in one batch.
pub fn updates_are_paired(batches: &[Batch]) {
    for batch in batches {
        for row in 0..batch.num_rows() {
            match batch.kind(row) {
                RowKind::UpdateBefore => assert_eq!(batch.kind(row + 1), RowKind::UpdateAfter),
                RowKind::UpdateAfter => assert_eq!(batch.kind(row - 1), RowKind::UpdateBefore),
                _ => {}
            }
        }
    }
}

pub fn names() -> SplitNames {
    Arc::new(|split| ("source".into(), format!("split-{split}").into()))
}

pub fn call(function: AggregateFunction, arg: Option<usize>) -> Call {
    Call {
        function,
        arg,
        arg_type: arg.map(|_| graph::DataType::BigInt),
        filter: None,
        distinct: false,
        fraction: None,
        time: None,
        retracts: false,
        wrap: false,
        result: graph::DataType::BigInt,
    }
}

/// Checkpoints of a run in chains, as manifests name them.
#[derive(Default)]
pub struct Checkpoints {
    store: MemoryStore,
    /// The workers that wrote it.
    workers: usize,
    /// Parts that were changes to the one before.
    pub changes: usize,
}

impl Checkpoints {
    /// Adds a checkpoint to the chains of the workers, by way of bytes.
    pub fn take<O: Operator>(&mut self, workers: &mut [O]) {
        if std::mem::replace(&mut self.workers, workers.len()) != workers.len() {
            self.store = MemoryStore::new();
        }
        for (worker, operator) in workers.iter_mut().enumerate() {
            let part = snapshot(operator);
            self.changes += usize::from(!part.is_whole());
            self.store.put("it", worker, part);
        }
        self.store = MemoryStore::from_bytes(&self.store.to_bytes().unwrap()).unwrap();
    }

    /// The state of the last checkpoint in `1 + below(3)` new workers, which `build` makes by their number.
    pub fn restart<O: Operator>(&self, build: impl Fn(usize) -> Vec<O>, random: &mut Random) -> Vec<O> {
        let count = 1 + random.below(3) as usize;
        let mut restored = build(count);
        for (number, worker) in restored.iter_mut().enumerate() {
            worker.restore(&self.store.reader("it", number, count)).unwrap();
        }
        restored
    }

    /// At the end of an epoch: perhaps takes a checkpoint, perhaps goes on from it with other workers.
    pub fn perhaps<O: Operator>(
        &mut self,
        mut workers: Vec<O>,
        build: impl Fn(usize) -> Vec<O>,
        random: &mut Random,
    ) -> Vec<O> {
        let choice = random.below(8);
        if choice < 6 {
            self.take(&mut workers);
        }
        // Often with as many workers: then the chains go on.
        if choice < 3 { self.restart(build, random) } else { workers }
    }
}

/// A snapshot of an operator, copied at once.
fn snapshot(operator: &mut dyn Operator) -> Snapshot {
    let mut writer = SnapshotWriter::new();
    operator.snapshot(1, &mut writer).unwrap();
    while operator.snapshot_more(&mut writer).unwrap() {}
    writer.finish().unwrap()
}

/// Snapshots of operators, one per worker, each by way of bytes.
pub fn saved(operators: &mut [&mut dyn Operator]) -> MemoryStore {
    let mut store = MemoryStore::new();
    for (worker, operator) in operators.iter_mut().enumerate() {
        store.put("it", worker, snapshot(*operator));
    }
    MemoryStore::from_bytes(&store.to_bytes().unwrap()).unwrap()
}

/// Two of an operator that see the same. Checkpoints of one are copied at once, those of the other in steps while rows go on to arrive: they
/// must be the same.
pub struct Twins<O> {
    at_once: O,
    stepped: O,
    stores: [MemoryStore; 2],
    open: Option<SnapshotWriter>,
    /// Checkpoints that were copied in several steps and had changes.
    pub compared: usize,
}

impl<O: Operator> Twins<O> {
    pub fn new(build: impl Fn() -> O) -> Twins<O> {
        Twins { at_once: build(), stepped: build(), stores: Default::default(), open: None, compared: 0 }
    }

    /// Calls both, and compares what they send.
    pub fn call(&mut self, call: impl Fn(&mut O, &mut Output) -> crate::error::Result<()>) {
        let at_once = sent(|out| call(&mut self.at_once, out));
        let stepped = sent(|out| call(&mut self.stepped, out));
        assert_eq!(text(&at_once), text(&stepped));
    }

    pub fn step(&mut self) {
        if let Some(writer) = &mut self.open
            && !self.stepped.snapshot_more(writer).unwrap()
        {
            let snapshot = self.open.take().unwrap().finish().unwrap();
            self.compared += usize::from(!snapshot.is_whole());
            self.stores[1].put("it", 0, snapshot);
            let [at_once, stepped] = self.stores.each_ref().map(|store| store.merged("it").unwrap());
            let rows = |snapshot: &Snapshot| -> Vec<String> {
                let tables = snapshot.tables().map(|(name, rows, _)| (name, text(&[Batch::inserts(rows.clone())])));
                tables
                    .flat_map(|(name, rows)| sorted(&rows).into_iter().map(move |row| format!("{name} {row}")))
                    .collect()
            };
            assert_eq!(rows(&stepped), rows(&at_once));
        }
    }

    /// At the end of an epoch.
    pub fn checkpoint(&mut self) {
        while self.open.is_some() {
            self.step();
        }
        self.stores[0].put("it", 0, snapshot(&mut self.at_once));
        let mut writer = SnapshotWriter::new();
        self.stepped.snapshot(1, &mut writer).unwrap();
        self.open = Some(writer);
    }

    /// Copies what is left, and goes on from there: right after a checkpoint.
    pub fn restart(&mut self, build: impl Fn() -> O) {
        while self.open.is_some() {
            self.step();
        }
        (self.at_once, self.stepped) = (build(), build());
        self.at_once.restore(&self.stores[0].reader("it", 0, 1)).unwrap();
        self.stepped.restore(&self.stores[1].reader("it", 0, 1)).unwrap();
    }

    /// What may come between any two calls.
    pub fn between(&mut self, random: &mut Random) {
        if random.below(3) == 0 {
            self.step();
        }
    }

    /// What may come at the end of an epoch.
    pub fn after_epoch(&mut self, build: impl Fn() -> O, random: &mut Random) {
        match random.below(6) {
            0..3 => self.checkpoint(),
            3 => {
                self.checkpoint();
                self.restart(build);
            }
            _ => {}
        }
    }
}

/// What an operator sends when called so.
pub fn sent(call: impl FnOnce(&mut Output) -> crate::error::Result<()>) -> Vec<Batch> {
    let mut out = Output::new();
    call(&mut out).unwrap();
    out.take()
}
