//! A running aggregate by key: an updating result, or one final row per key where the input is bounded.
//!
//! State: per key the aggregates and, where rows may be taken back, how many rows it has. Changes are folded: at the end of an epoch
//! each key that was touched leaves as nothing (unchanged), +I, -U/+U or -D. What was sent before is not kept: it is computed just before
//! a key's first change in an epoch. A checkpoint has the keys that were touched since the one before, and which ones went. Without keys there is always one row, also over an empty input, on the worker that owns it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::{Chain, KeyTable, Marks, SlotVec, SnapshotReader, SnapshotWriter};

use super::groups::{Accumulators, Groups, Layout, Pool};
use super::results::{BATCH_ROWS, Results, record_batch};
use super::saved::{SAVE_ROWS, change, load_watermark, save, save_changes, save_removal, save_watermark};
use super::touched::{Touched, by_kind};
use super::window_partial::GROUPS_MAX;
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output};
use crate::plan::AggregateSpec;

const TABLE: &str = "groups";

pub struct Aggregate {
    spec: AggregateSpec,
    layout: Arc<Layout>,
    keys: KeyTable,
    accumulators: Accumulators,
    /// Rows per key; only where rows may be taken back.
    counts: SlotVec<i64>,
    touched: Touched,
    /// What the next checkpoint has to copy of the slots, and the chain of parts that it is added to.
    marks: Marks,
    chain: Chain,
    /// Rows of the checkpoint that is being copied, from before they changed; and keys removed since the last one.
    early: Vec<RecordBatch>,
    removed: Vec<(Vec<ArrayRef>, usize)>,
    /// `i64::MAX` once the final rows of a bounded input have left.
    wm: i64,
    owns_global: bool,
    schema: SchemaRef,
    saved: SchemaRef,
    slots: Vec<u32>,
}

impl Aggregate {
    /// `owns_global`: whether the row of an aggregate without keys is this worker's.
    pub fn new(spec: AggregateSpec, owns_global: bool) -> Result<Aggregate> {
        assert!(!(spec.retracts && spec.partial_input), "planning does not pre-aggregate an updating input");
        let schema = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, schema.fields(), &spec.calls, spec.partial_input)?;
        let rows: FieldRef = Arc::new(Field::new("rows", DataType::Int64, false));
        let columns = layout.key_fields().iter().chain(layout.state_fields()).cloned();
        Ok(Aggregate {
            keys: layout.key_table()?,
            accumulators: layout.accumulators()?,
            saved: Arc::new(Schema::new(columns.chain([rows]).collect::<Vec<_>>())),
            spec,
            layout,
            counts: SlotVec::default(),
            touched: Touched::default(),
            marks: Marks::default(),
            chain: Chain::default(),
            early: Vec::new(),
            removed: Vec::new(),
            wm: i64::MIN,
            owns_global,
            schema,
            slots: Vec::new(),
        })
    }

    fn grow(&mut self) {
        let slots = self.keys.slots_capacity();
        self.accumulators.resize(slots);
        self.touched.grow(slots);
        if self.counts_rows() {
            self.counts.grow(slots);
        }
    }

    /// Whether a key goes when its last row is taken back.
    fn counts_rows(&self) -> bool {
        self.spec.retracts && self.spec.keys > 0
    }

    /// The one row of an aggregate without keys exists from the start.
    fn ensure_global(&mut self) -> Result<()> {
        if self.spec.keys == 0 && self.owns_global && self.keys.is_empty() {
            let mut slots = Vec::new();
            self.keys.intern(&[], 1, &mut slots);
            self.grow();
            if !self.spec.bounded {
                self.touched.mark(&slots, &self.accumulators)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, slots: &[u32], rows: &RecordBatch, adds: bool) -> Result<()> {
        if self.counts_rows() {
            let sign = if adds { 1 } else { -1 };
            slots.iter().for_each(|&slot| self.counts[slot] += sign);
        }
        if adds { self.accumulators.add(slots, rows) } else { self.accumulators.retract(slots, rows) }
    }

    fn send_changes(&mut self, out: &mut Output) -> Result<()> {
        let counted = self.counts_rows();
        let exists = |slot| !counted || self.counts[slot] != 0;
        let gone = self.touched.send(&self.schema, &self.keys, &self.accumulators, exists, out)?;
        if self.marks.tracks() && !gone.is_empty() {
            self.removed.push((self.keys.keys(&gone), gone.len()));
        }
        self.keys.remove(&gone);
        self.accumulators.clear(&gone);
        Ok(())
    }

    /// The final rows of a bounded input; afterwards nothing is left.
    fn send_final(&mut self, out: &mut Output) -> Result<()> {
        self.ensure_global()?;
        let mut results = Results::new(&self.schema);
        for slots in self.live().chunks(BATCH_ROWS) {
            let columns = [self.keys.keys(slots), self.accumulators.values(slots)?].concat();
            results.push(record_batch(&self.schema, columns, slots.len())?, out)?;
        }
        results.flush(out)?;
        // The checkpoint before still has all of it, the next one nothing.
        while self.marks.waits() {
            let slots = self.marks.next(SAVE_ROWS);
            self.copy(&slots)?;
        }
        (self.marks, self.chain) = (Marks::default(), Chain::default());
        self.removed.clear();
        self.keys = self.layout.key_table()?;
        self.accumulators = self.layout.accumulators()?;
        self.counts = SlotVec::default();
        Ok(())
    }

    /// Copies the rows of those of the slots that hold keys, for the checkpoint at hand.
    fn copy(&mut self, slots: &[u32]) -> Result<()> {
        let counted = self.counts_rows();
        let slots: Vec<u32> = slots.iter().copied().filter(|&slot| !counted || self.counts[slot] != 0).collect();
        if !slots.is_empty() {
            let count = |&slot: &u32| if counted { self.counts[slot] } else { 0 };
            let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(slots.iter().map(count)));
            let columns = [self.keys.keys(&slots), self.accumulators.states(&slots), vec![counts]].concat();
            self.early.push(record_batch(&self.saved, columns, slots.len())?);
        }
        Ok(())
    }

    /// Slots of keys that have rows.
    fn live(&self) -> Vec<u32> {
        let mut slots = self.keys.live_slots();
        if self.counts_rows() {
            slots.retain(|&slot| self.counts[slot] != 0);
        }
        slots
    }
}

impl Operator for Aggregate {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, _out: &mut Output) -> Result<()> {
        assert!(!(self.spec.bounded && self.wm == i64::MAX), "no rows come after the final watermark");
        let mut slots = std::mem::take(&mut self.slots);
        slots.clear();
        self.keys.intern(&batch.rows.columns()[..self.spec.keys], batch.num_rows(), &mut slots);
        self.grow();
        let early = change(&mut self.marks, &slots, self.keys.slots_capacity());
        self.copy(&early)?;
        if !self.spec.bounded {
            self.touched.mark(&slots, &self.accumulators)?;
        }
        assert!(batch.kinds.is_none() || self.spec.retracts, "planning says where rows may be taken back");
        by_kind(&slots, &batch, |slots, rows, adds| self.apply(slots, rows, adds))?;
        self.slots = slots;
        Ok(())
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        if wm <= self.wm {
            return Ok(());
        }
        self.wm = wm;
        if self.spec.bounded && wm == i64::MAX { self.send_final(out) } else { Ok(()) }
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        if self.spec.bounded {
            return Ok(());
        }
        self.ensure_global()?;
        self.send_changes(out)
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.touched.is_empty(), "an epoch ends before its snapshot");
        save_watermark(writer, self.wm)?;
        let removed = std::mem::take(&mut self.removed);
        let changed = self.marks.changed() + removed.iter().map(|(_, rows)| rows).sum::<usize>();
        let whole = self.chain.next_is_whole(changed, self.keys.len()) || self.spec.keys == 0;
        if !whole {
            save_changes(writer, TABLE, &self.saved, &(0..self.spec.keys).collect::<Vec<_>>())?;
            for (keys, rows) in removed {
                save_removal(writer, TABLE, &keys.clone(), keys, rows)?;
            }
        }
        self.marks.begin(self.keys.slots_capacity(), whole);
        Ok(())
    }

    fn snapshot_more(&mut self, writer: &mut SnapshotWriter) -> Result<bool> {
        let slots = self.marks.next(SAVE_ROWS);
        self.copy(&slots)?;
        for rows in self.early.drain(..) {
            save(writer, TABLE, &rows.columns()[..self.spec.keys], rows.clone())?;
        }
        Ok(self.marks.waits())
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        let counted = self.counts_rows();
        let Aggregate { spec, keys, accumulators, counts, touched, .. } = self;
        let mut room = reader.room(TABLE);
        reader.intern(TABLE, spec.keys, keys, |keys, slots, rows| {
            room = room.max(keys.slots_capacity());
            accumulators.resize(room);
            touched.grow(room);
            accumulators.merge(slots, &rows.columns()[spec.keys..])?;
            // A snapshot follows the end of an epoch, so whatever it holds has been sent.
            if !spec.bounded {
                slots.iter().for_each(|&slot| touched.is_sent(slot));
            }
            if counted {
                counts.grow(room);
                let saved = rows.column(rows.num_columns() - 1).as_primitive::<Int64Type>();
                slots.iter().zip(saved.values()).for_each(|(&slot, &rows)| counts[slot] = rows);
            }
            Ok::<_, RunError>(())
        })?;
        self.grow();
        if let Some(chain) = reader.chain(TABLE) {
            self.chain = chain;
            self.marks.track();
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.keys.bytes() + self.accumulators.bytes() + self.counts.bytes() + self.touched.bytes() + self.marks.bytes()
    }
}

/// Aggregates by key before the exchange.
///
/// State: groups of one epoch. They leave as partial states at its end, at the final watermark (on which a bounded final stage acts), and
/// when there are many.
pub struct AggregatePartial {
    pool: Pool,
    table: Option<Groups>,
    schema: SchemaRef,
}

impl AggregatePartial {
    /// `spec` is that of the final stage, except that it tells of arguments, not of partial states.
    pub fn new(spec: &AggregateSpec) -> Result<AggregatePartial> {
        assert!(!spec.retracts, "planning does not pre-aggregate an updating input");
        let output = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, output.fields(), &spec.calls, false)?;
        let columns: Vec<FieldRef> = layout.key_fields().iter().chain(layout.state_fields()).cloned().collect();
        Ok(AggregatePartial { pool: Pool::new(layout), table: None, schema: Arc::new(Schema::new(columns)) })
    }

    /// The columns of the output: keys, states.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn send_all(&mut self, out: &mut Output) -> Result<()> {
        let Some(table) = self.table.take() else { return Ok(()) };
        let layer = table.layer();
        self.pool.recycle(table);
        let rows = record_batch(&self.schema, [layer.keys, layer.states].concat(), layer.rows)?;
        for start in (0..layer.rows).step_by(BATCH_ROWS) {
            out.send(Batch::inserts(rows.slice(start, BATCH_ROWS.min(layer.rows - start))));
        }
        Ok(())
    }
}

impl Operator for AggregatePartial {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning does not pre-aggregate an updating input");
        let table = match &mut self.table {
            Some(table) => table,
            none => none.insert(self.pool.table()?),
        };
        table.add(&batch.rows)?;
        if table.len() > GROUPS_MAX { self.send_all(out) } else { Ok(()) }
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        if wm == i64::MAX { self.send_all(out) } else { Ok(()) }
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        self.send_all(out)
    }

    fn snapshot(&mut self, _epoch: u64, _writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.table.is_none(), "a partial stage holds nothing across epochs");
        Ok(())
    }

    fn restore(&mut self, _reader: &SnapshotReader) -> Result<()> {
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, Groups::bytes) + self.pool.bytes()
    }
}
