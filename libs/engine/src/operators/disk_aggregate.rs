//! A running aggregate by key with more keys than memory: [`super::aggregate`] over a table on disk.
//!
//! State: a row per key with the states of its aggregates and how many rows it has, in slots while it is worked on and else in the table.
//! A batch fetches those of its keys that are not in slots together. Whatever is in the table has been sent: keys that changed in this epoch
//! stay in slots until it ends, and until a checkpoint that was cut before is copied. Where they are too many, their changes leave before: a
//! key may then change more than once in an epoch, and what its changes add up to is the same. The rows of a bounded
//! input leave group of rows by group of rows, in the order of the table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::table::part::Freeze;
use state::table::{Cursor, HotTable, TableSchema, Values};
use state::{KEY_GROUPS, SlotVec, SnapshotReader, SnapshotWriter};

use super::disk::{Disk, loaded_rows};
use super::groups::{Accumulators, Layout};
use super::results::{BATCH_ROWS, Results, record_batch};
use super::saved::{load_watermark, save_watermark};
use super::touched::{Touched, by_kind};
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output};
use crate::plan::AggregateSpec;

const TABLE: &str = "groups";
/// Rows that are written at once for a checkpoint: some milliseconds.
const COPY_ROWS: usize = if cfg!(test) { 3 } else { 4 << 10 };

pub struct DiskAggregate {
    spec: AggregateSpec,
    layout: Arc<Layout>,
    disk: Arc<Disk>,
    hot: HotTable,
    rows: Rows,
    /// The table as of the last cut, and for how long all that was left to copy held up the operator.
    frozen: Option<(Box<dyn Freeze>, Duration)>,
    /// `i64::MAX` once the final rows of a bounded input are leaving.
    wm: i64,
    /// Up to where the final rows have left.
    leaving: Option<Cursor>,
    schema: SchemaRef,
    saved: SchemaRef,
    table: TableSchema,
    slots: Vec<u32>,
}

/// What a key has, by slot.
struct Rows {
    accumulators: Accumulators,
    states: usize,
    /// Rows of the key; only where rows may be taken back.
    counts: SlotVec<i64>,
    touched: Touched,
}

impl Values for Rows {
    type Error = RunError;

    fn resize(&mut self, slots: usize) {
        self.accumulators.resize(slots);
        self.counts.grow(slots);
        self.touched.grow(slots);
    }

    fn rows(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(slots.iter().map(|&slot| self.counts[slot])));
        Ok([self.accumulators.states(slots), vec![counts]].concat())
    }

    fn load(&mut self, slots: &[u32], rows: &[ArrayRef]) -> Result<()> {
        self.accumulators.merge(slots, rows)?;
        let counts = rows[self.states].as_primitive::<Int64Type>();
        for (row, &slot) in slots.iter().enumerate() {
            self.counts[slot] = counts.value(row);
            self.touched.is_sent(slot);
        }
        Ok(())
    }

    fn clear(&mut self, slots: &[u32]) {
        self.accumulators.clear(slots);
        for &slot in slots {
            self.counts.reset(slot);
            self.touched.reset(slot);
        }
    }

    fn bytes(&self) -> usize {
        self.accumulators.bytes() + self.counts.bytes() + self.touched.bytes()
    }
}

impl DiskAggregate {
    pub fn new(spec: AggregateSpec, disk: Arc<Disk>) -> Result<DiskAggregate> {
        assert!(spec.keys > 0, "an aggregate without keys has one row, which is in memory");
        assert!(!(spec.retracts && spec.partial_input), "planning does not pre-aggregate an updating input");
        let schema = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, schema.fields(), &spec.calls, spec.partial_input)?;
        let rows: FieldRef = Arc::new(Field::new("rows", DataType::Int64, false));
        let columns = layout.key_fields().iter().chain(layout.state_fields()).cloned();
        let saved: SchemaRef = Arc::new(Schema::new(columns.chain([rows]).collect::<Vec<_>>()));
        let table = TableSchema::of_operator(&saved, spec.keys, 0, false)?;
        Ok(DiskAggregate {
            hot: HotTable::new(disk.table(&table)?, &[], disk.slots_bytes(), false)?,
            rows: Rows {
                accumulators: layout.accumulators()?,
                states: layout.state_fields().len(),
                counts: SlotVec::default(),
                touched: Touched::default(),
            },
            frozen: None,
            spec,
            layout,
            disk,
            wm: i64::MIN,
            leaving: None,
            schema,
            saved,
            table,
            slots: Vec::new(),
        })
    }

    fn apply(&mut self, slots: &[u32], rows: &RecordBatch, adds: bool) -> Result<()> {
        if self.spec.retracts {
            let sign = if adds { 1 } else { -1 };
            slots.iter().for_each(|&slot| self.rows.counts[slot] += sign);
        }
        let accumulators = &mut self.rows.accumulators;
        if adds { accumulators.add(slots, rows) } else { accumulators.retract(slots, rows) }
    }

    fn make_room(&mut self, out: &mut Output) -> Result<()> {
        if !self.hot.make_room(&mut self.rows, |rows, slot| rows.touched.contains(slot))? {
            self.send_changes(out)?;
            self.settle()?;
            self.hot.make_room(&mut self.rows, |_, _| false)?;
        }
        Ok(())
    }

    /// Copies all that is left of a checkpoint: the table may be written again.
    fn settle(&mut self) -> Result<()> {
        if self.hot.copies() {
            let begun = Instant::now();
            self.frozen = Some((self.hot.freeze(&self.rows)?, begun.elapsed()));
        }
        Ok(())
    }

    fn send_changes(&mut self, out: &mut Output) -> Result<()> {
        let Rows { accumulators, counts, touched, .. } = &mut self.rows;
        let exists = |slot| !self.spec.retracts || counts[slot] != 0;
        let gone = touched.send(&self.schema, self.hot.keys(), accumulators, exists, out)?;
        self.hot.remove(&mut self.rows, &gone)
    }

    /// Sends more of the final rows; returns whether there are more still.
    fn send_final(&mut self, out: &mut Output) -> Result<bool> {
        let Some(mut cursor) = self.leaving.take() else { return Ok(false) };
        let mut results = Results::new(&self.schema);
        while let Some(rows) = self.hot.scan(&mut cursor, BATCH_ROWS)? {
            let rows = self.table.to_operator(&rows, &self.saved);
            let (keys, values) = rows.columns().split_at(self.spec.keys);
            let counts = rows.column(rows.num_columns() - 1).as_primitive::<Int64Type>();
            let exists = |row: &u32| !self.spec.retracts || counts.value(*row as usize) != 0;
            let there: Vec<u32> = (0..rows.num_rows() as u32).filter(exists).collect();
            let mut accumulators = self.layout.accumulators()?;
            accumulators.resize(rows.num_rows());
            accumulators.merge(&(0..rows.num_rows() as u32).collect::<Vec<_>>(), values)?;
            let keys = arrow::compute::take_arrays(keys, &UInt32Array::from(there.clone()), None)?;
            let columns = [keys, accumulators.values(&there)?].concat();
            results.push(record_batch(&self.schema, columns, there.len())?, out)?;
            if results.are_many() {
                results.flush(out)?;
                self.leaving = Some(cursor);
                return Ok(true);
            }
        }
        results.flush(out)?;
        // Nothing is left.
        self.hot = HotTable::new(self.disk.table(&self.table)?, &[], self.disk.slots_bytes(), false)?;
        Ok(false)
    }
}

impl Operator for DiskAggregate {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, out: &mut Output) -> Result<()> {
        assert!(!(self.spec.bounded && self.wm == i64::MAX), "no rows come after the final watermark");
        let mut slots = std::mem::take(&mut self.slots);
        slots.clear();
        let keys = &batch.rows.columns()[..self.spec.keys];
        self.hot.touch(&mut self.rows, keys, batch.num_rows(), &mut slots)?;
        if !self.spec.bounded {
            self.rows.touched.mark(&slots, &self.rows.accumulators)?;
        }
        assert!(batch.kinds.is_none() || self.spec.retracts, "planning says where rows may be taken back");
        by_kind(&slots, &batch, |slots, rows, adds| self.apply(slots, rows, adds))?;
        self.slots = slots;
        self.make_room(out)
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        while self.advance(wm, out)? {}
        Ok(())
    }

    fn advance(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        if wm > self.wm {
            self.wm = wm;
            if self.spec.bounded && wm == i64::MAX {
                self.settle()?;
                self.hot.take_all(&mut self.rows)?;
                self.leaving = Some(Cursor::all(&self.table, 0..KEY_GROUPS));
            }
        }
        self.send_final(out)
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        if self.spec.bounded {
            return Ok(());
        }
        self.send_changes(out)
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.rows.touched.is_empty() && self.leaving.is_none(), "an epoch ends before its snapshot");
        save_watermark(writer, self.wm)?;
        Ok(self.hot.cut()?)
    }

    fn snapshot_more(&mut self, writer: &mut SnapshotWriter) -> Result<bool> {
        if self.hot.copy_some(&self.rows, COPY_ROWS)? {
            return Ok(true);
        }
        self.settle()?;
        if let Some((frozen, held)) = self.frozen.take() {
            self.disk.save_frozen(writer, TABLE, frozen, held, RecordBatch::new_empty(self.saved.clone()))?;
        }
        Ok(false)
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        let mut table = match self.disk.restored(&self.table, reader, TABLE)? {
            Some(table) => table,
            None => self.disk.table(&self.table)?,
        };
        for rows in loaded_rows(reader, TABLE)? {
            self.table.put_operator(&rows, &mut *table)?;
        }
        self.hot = HotTable::new(table, &[], self.disk.slots_bytes(), true)?;
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        // What is on disk is not held: RocksDB has a budget of its own.
        self.hot.bytes(&self.rows)
    }
}
