//! One final row per key of a bounded input, with more keys than memory.
//!
//! State: groups in memory, and runs of partial states on disk. When the groups are too many they are written as a run and begin anew;
//! nothing is looked up before the final watermark. Then the runs are put together by key group and their rows leave. Rows are only added,
//! so partial states of a key, however many, add up to its state.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::table::runs::Reader;
use state::table::{Runs, TableSchema};
use state::{SnapshotReader, SnapshotWriter};

use super::disk::{Disk, loaded_rows};
use super::groups::{Groups, Layer, Layout};
use super::results::{Results, chunks, record_batch};
use super::saved::{load_all, load_watermark, save_all, save_watermark};
use crate::batch::Batch;
use crate::error::Result;
use crate::operator::{Operator, Output};
use crate::plan::AggregateSpec;

const TABLE: &str = "groups";
const RUNS: &str = "runs";

pub struct DiskFold {
    keys: usize,
    layout: Arc<Layout>,
    disk: Arc<Disk>,
    groups: Groups,
    room: Room,
    runs: Runs,
    /// `i64::MAX` once the final rows are leaving.
    wm: i64,
    /// Up to where they have left.
    leaving: Option<Reader>,
    schema: SchemaRef,
    saved: SchemaRef,
    table: TableSchema,
}

/// How many groups there may be in memory.
#[derive(Clone, Copy)]
pub struct Room {
    bytes: usize,
    /// Known when the groups have taken half of the room: vectors double, and keep their size when they are emptied.
    groups_max: Option<usize>,
}

impl Room {
    pub fn new(bytes: usize) -> Room {
        Room { bytes, groups_max: None }
    }

    /// Whether so many groups of so many bytes have to go.
    pub fn is_full(&mut self, groups: usize, bytes: usize) -> bool {
        if bytes > self.bytes / 2 {
            self.groups_max.get_or_insert(groups);
        }
        self.groups_max.is_some_and(|max| groups >= max) || (bytes > self.bytes && groups > 0)
    }
}

impl DiskFold {
    pub fn new(spec: &AggregateSpec, disk: Arc<Disk>) -> Result<DiskFold> {
        assert!(spec.bounded && !spec.retracts && spec.keys > 0, "rows are added only, and seen at the end");
        let schema = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, schema.fields(), &spec.calls, spec.partial_input)?;
        let rows: FieldRef = Arc::new(Field::new("rows", DataType::Int64, false));
        let columns = layout.key_fields().iter().chain(layout.state_fields()).cloned();
        let saved: SchemaRef = Arc::new(Schema::new(columns.chain([rows]).collect::<Vec<_>>()));
        let table = TableSchema::of_operator(&saved, spec.keys, 0, true)?;
        Ok(DiskFold {
            keys: spec.keys,
            groups: Groups::new(&layout)?,
            room: Room::new(disk.slots_bytes()),
            runs: Runs::new(disk.table(&table)?, 0),
            layout,
            disk,
            wm: i64::MIN,
            leaving: None,
            schema,
            saved,
            table,
        })
    }

    /// Writes the groups as a run, and begins with none.
    fn write(&mut self) -> Result<()> {
        if self.groups.is_empty() {
            return Ok(());
        }
        let Layer { keys, states, rows } = self.groups.layer();
        // Not counted where rows are only added.
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        self.runs.write(&[], &keys, &[states, vec![counts]].concat(), rows)?;
        self.groups.clear();
        if self.groups.bytes() > self.room.bytes {
            self.groups = Groups::new(&self.layout)?;
        }
        Ok(())
    }

    fn merge(&self, groups: &mut Groups, rows: &RecordBatch) -> Result<()> {
        let (keys, states) = rows.columns().split_at(self.keys);
        groups.merge(&Layer { keys: keys.to_vec(), states: states.to_vec(), rows: rows.num_rows() })
    }

    fn send(&self, groups: &Groups, results: &mut Results, out: &mut Output) -> Result<()> {
        for slots in chunks(groups.len()) {
            let (keys, values) = groups.results(&slots)?;
            results.push(record_batch(&self.schema, [keys, values].concat(), slots.len())?, out)?;
        }
        Ok(())
    }

    /// Sends more of the final rows; returns whether there are more still.
    fn send_final(&mut self, out: &mut Output) -> Result<bool> {
        let Some(mut reader) = self.leaving.take() else { return Ok(false) };
        let mut results = Results::new(&self.schema);
        while let Some(parts) = self.runs.read(&mut reader)? {
            let mut groups = Groups::new(&self.layout)?;
            for rows in parts {
                self.merge(&mut groups, &self.table.to_operator(&rows, &self.saved))?;
            }
            self.send(&groups, &mut results, out)?;
            if results.are_many() {
                results.flush(out)?;
                self.leaving = Some(reader);
                return Ok(true);
            }
        }
        results.flush(out)?;
        // Nothing is left.
        self.runs = Runs::new(self.disk.table(&self.table)?, 0);
        Ok(false)
    }
}

impl Operator for DiskFold {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, _out: &mut Output) -> Result<()> {
        assert!(self.wm != i64::MAX, "no rows come after the final watermark");
        assert!(batch.kinds.is_none(), "planning says where rows may be taken back");
        self.groups.add(&batch.rows)?;
        if self.room.is_full(self.groups.len(), self.groups.bytes()) { self.write() } else { Ok(()) }
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        while self.advance(wm, out)? {}
        Ok(())
    }

    fn advance(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        if wm > self.wm {
            self.wm = wm;
            if wm == i64::MAX {
                self.write()?;
                self.groups = Groups::new(&self.layout)?;
                self.leaving = Some(self.runs.reader(&[], &[]));
            }
        }
        self.send_final(out)
    }

    fn epoch_end(&mut self, _epoch: u64, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.leaving.is_none(), "an epoch ends before its snapshot");
        save_watermark(writer, self.wm)?;
        self.write()?;
        let number: ArrayRef = Arc::new(Int64Array::from(vec![self.runs.next()]));
        save_all(writer, RUNS, RecordBatch::try_from_iter([("next", number)])?)?;
        self.disk.save_table(writer, TABLE, self.runs.table(), RecordBatch::new_empty(self.saved.clone()))
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        // Above those of every worker: no two runs of theirs have a key in common, but those to come may.
        let saved = load_all(reader, RUNS)?;
        let next = saved.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().iter().copied());
        let next = next.max().unwrap_or(0);
        if let Some(table) = self.disk.restored(&self.table, reader, TABLE)? {
            self.runs = Runs::new(table, next);
        }
        for rows in loaded_rows(reader, TABLE)? {
            let mut groups = std::mem::replace(&mut self.groups, Groups::new(&self.layout)?);
            self.merge(&mut groups, &rows)?;
            self.groups = groups;
            if self.room.is_full(self.groups.len(), self.groups.bytes()) {
                self.write()?;
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        // What is on disk is not held: RocksDB has a budget of its own.
        self.groups.bytes()
    }
}
