//! Keys and the aggregates of each: what all aggregating operators hold.
//!
//! A batch is first reduced to slots, one per distinct key ([`KeyTable`]); then each aggregate function takes whole columns with the slot of
//! each row. States are read, merged and cleared by slot, so the same table serves partial and final stages, panes and running results.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take_arrays;
use arrow::datatypes::{Field, FieldRef, Fields};
use state::{KeyTable, Marks, NO_SLOT};

use super::saved::change;
use super::times::micros;
use crate::aggregate::{Accumulator, AggregateError, accumulator};
use crate::error::{Result, RunError};
use crate::plan::Call;

/// The columns of an aggregating operator's rows and states.
#[derive(Debug)]
pub struct Layout {
    key_fields: Fields,
    calls: Vec<Call>,
    /// The input holds partial states behind the keys, instead of arguments.
    partial_input: bool,
    /// All state columns of all calls, in order; a name is `result.state`.
    state_fields: Fields,
    /// How many of them each call has.
    widths: Vec<usize>,
}

impl Layout {
    /// `output` has the keys first and the results last.
    pub fn new(keys: usize, output: &Fields, calls: &[Call], partial_input: bool) -> Result<Arc<Layout>> {
        let results = &output[output.len() - calls.len()..];
        let (mut state_fields, mut widths) = (Vec::<FieldRef>::new(), Vec::new());
        for (call, result) in calls.iter().zip(results) {
            let fields = accumulator(call).map_err(failed)?.state_fields();
            widths.push(fields.len());
            state_fields.extend(fields.into_iter().map(|field| {
                let name = format!("{}.{}", result.name(), field.name());
                Arc::new(Field::new(name, field.data_type().clone(), field.is_nullable()))
            }));
        }
        Ok(Arc::new(Layout {
            key_fields: output[..keys].to_vec().into(),
            calls: calls.to_vec(),
            partial_input,
            state_fields: state_fields.into(),
            widths,
        }))
    }

    pub fn keys(&self) -> usize {
        self.key_fields.len()
    }

    pub fn key_fields(&self) -> &Fields {
        &self.key_fields
    }

    /// The columns of partial states: what a partial stage sends behind the keys, and what snapshots hold.
    pub fn state_fields(&self) -> &Fields {
        &self.state_fields
    }

    pub fn key_table(&self) -> Result<KeyTable> {
        KeyTable::new(&self.key_fields).map_err(|error| RunError::user("key_type", error.to_string()))
    }

    pub fn accumulators(self: &Arc<Self>) -> Result<Accumulators> {
        let each = self.calls.iter().map(accumulator).collect::<Result<_, _>>().map_err(failed)?;
        Ok(Accumulators { layout: self.clone(), each })
    }
}

/// The aggregates of all calls, by slot.
pub struct Accumulators {
    layout: Arc<Layout>,
    each: Vec<Box<dyn Accumulator>>,
}

impl Accumulators {
    /// Makes room for slots below `slots`; new ones are empty.
    pub fn resize(&mut self, slots: usize) {
        self.each.iter_mut().for_each(|each| each.resize(slots));
    }

    /// Adds rows of the input; `slots` names the group of each.
    pub fn add(&mut self, slots: &[u32], rows: &RecordBatch) -> Result<()> {
        let keys = self.layout.keys();
        if self.layout.partial_input {
            return self.merge(slots, &rows.columns()[keys..]);
        }
        self.each_call(rows, |each, arg, filter, time| each.update(slots, arg, filter, time))
    }

    /// Takes rows of the input back.
    pub fn retract(&mut self, slots: &[u32], rows: &RecordBatch) -> Result<()> {
        assert!(!self.layout.partial_input, "planning does not pre-aggregate an updating input");
        self.each_call(rows, |each, arg, filter, time| each.retract(slots, arg, filter, time))
    }

    fn each_call(
        &mut self,
        rows: &RecordBatch,
        mut apply: impl FnMut(
            &mut dyn Accumulator,
            Option<&ArrayRef>,
            Option<&arrow::array::BooleanArray>,
            Option<&[i64]>,
        ) -> Result<(), AggregateError>,
    ) -> Result<()> {
        // Calls share the time attribute; it is converted once.
        let mut times: Option<(usize, ScalarBuffer<i64>)> = None;
        for (each, call) in self.each.iter_mut().zip(&self.layout.calls) {
            if let Some(column) = call.time.filter(|column| times.as_ref().is_none_or(|(of, _)| of != column)) {
                times = Some((column, micros(rows.column(column))?));
            }
            let time = call.time.and(times.as_ref()).map(|(_, time)| &time[..]);
            let arg = call.arg.map(|column| rows.column(column));
            let filter = call.filter.map(|column| rows.column(column).as_boolean());
            apply(each.as_mut(), arg, filter, time).map_err(failed)?;
        }
        Ok(())
    }

    /// Adds partial states: the columns of [`Layout::state_fields`], perhaps followed by others.
    pub fn merge(&mut self, slots: &[u32], mut states: &[ArrayRef]) -> Result<()> {
        for (each, &width) in self.each.iter_mut().zip(&self.layout.widths) {
            let (own, rest) = states.split_at(width);
            each.merge(slots, own).map_err(failed)?;
            states = rest;
        }
        Ok(())
    }

    /// The partial states of the slots.
    pub fn states(&self, slots: &[u32]) -> Vec<ArrayRef> {
        self.each.iter().flat_map(|each| each.state(slots)).collect()
    }

    /// The results of the slots.
    pub fn values(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        self.each.iter().map(|each| each.value(slots).map_err(failed)).collect()
    }

    /// Makes the groups of the slots empty.
    pub fn clear(&mut self, slots: &[u32]) {
        self.each.iter_mut().for_each(|each| each.clear(slots));
    }

    pub fn bytes(&self) -> usize {
        self.each.iter().map(|each| each.bytes()).sum()
    }
}

/// Groups that come and are never removed one by one: slots are `0..len`, in the order of arrival.
pub struct Groups {
    keys: KeyTable,
    accumulators: Accumulators,
    /// The slot of each row of the batch at hand; kept for its memory.
    slots: Vec<u32>,
    /// The most groups ever held: what the tables have room for.
    room: usize,
    /// What checkpoints have yet to copy; of the one at hand, groups as they were before they changed.
    marks: Marks,
    early: Vec<Layer>,
}

/// Groups that no longer change, as columns.
pub struct Layer {
    pub keys: Vec<ArrayRef>,
    pub states: Vec<ArrayRef>,
    pub rows: usize,
}

impl Layer {
    fn take(&self, rows: Vec<u32>) -> Result<Layer> {
        let rows = UInt32Array::from(rows);
        let (keys, states) = (take_arrays(&self.keys, &rows, None)?, take_arrays(&self.states, &rows, None)?);
        Ok(Layer { keys, states, rows: rows.len() })
    }
}

/// A layer of which checkpoints have copied some, or all.
pub struct Sealed {
    pub layer: Layer,
    marks: Marks,
}

impl Groups {
    pub fn new(layout: &Arc<Layout>) -> Result<Groups> {
        Ok(Groups {
            keys: layout.key_table()?,
            accumulators: layout.accumulators()?,
            slots: Vec::new(),
            room: 0,
            marks: Marks::default(),
            early: Vec::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds rows of the input.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = self.accumulators.layout.keys();
        self.intern(&rows.columns()[..keys], rows.num_rows());
        self.accumulators.add(&self.slots, rows)
    }

    /// Adds partial states, one row per key.
    pub fn merge(&mut self, layer: &Layer) -> Result<()> {
        self.intern(&layer.keys, layer.rows);
        self.accumulators.merge(&self.slots, &layer.states)
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize) {
        self.slots.clear();
        self.keys.intern(keys, rows, &mut self.slots);
        self.accumulators.resize(self.keys.slots_capacity());
        let early = change(&mut self.marks, &self.slots, self.keys.len());
        if !early.is_empty() {
            self.early.push(self.columns(&early));
        }
    }

    /// All keys and partial states.
    pub fn layer(&self) -> Layer {
        self.columns(&(0..self.len() as u32).collect::<Vec<u32>>())
    }

    /// Partial states of those of the keys that are here.
    pub fn of_keys(&mut self, keys: &[ArrayRef], rows: usize) -> Layer {
        let mut slots = Vec::new();
        self.keys.lookup(keys, rows, &mut slots);
        slots.retain(|&slot| slot != NO_SLOT);
        self.columns(&slots)
    }

    /// Those rows of a layer whose keys are here.
    pub fn shared(&mut self, layer: &Layer) -> Result<Layer> {
        let mut slots = Vec::new();
        self.keys.lookup(&layer.keys, layer.rows, &mut slots);
        layer.take((0..).zip(slots).filter(|(_, slot)| *slot != NO_SLOT).map(|(row, _)| row).collect())
    }

    fn columns(&self, slots: &[u32]) -> Layer {
        Layer { keys: self.keys.keys(slots), states: self.accumulators.states(slots), rows: slots.len() }
    }

    /// All groups as columns, with what checkpoints have copied of them.
    pub fn seal(&mut self) -> Sealed {
        assert!(self.early.is_empty(), "what was copied early is handed over before");
        Sealed { layer: self.layer(), marks: std::mem::take(&mut self.marks) }
    }

    /// A checkpoint has all groups as they are now.
    pub fn is_saved(&mut self) {
        self.marks.track();
    }

    /// No checkpoint has any of them under the name that they have now.
    pub fn is_new(&mut self) {
        assert!(!self.marks.waits(), "what waits is copied before");
        self.marks = Marks::default();
    }

    /// Groups that the next checkpoint has to copy, if it holds changes.
    pub fn unsaved(&self) -> usize {
        if self.marks.tracks() { self.marks.changed() } else { self.len() }
    }

    /// Cuts a checkpoint: all of it, or what changed.
    pub fn begin_save(&mut self, whole: bool) {
        begin_save(&mut self.marks, self.keys.len(), whole);
    }

    /// Whether there is something for [`Groups::save`].
    pub fn waits(&self) -> bool {
        self.marks.waits() || !self.early.is_empty()
    }

    /// Groups of the checkpoint at hand: those that were copied early, and about `max` more.
    pub fn save(&mut self, max: usize) -> Vec<Layer> {
        let slots = self.marks.next(max);
        let mut layers = std::mem::take(&mut self.early);
        if !slots.is_empty() {
            layers.push(self.columns(&slots));
        }
        layers
    }

    /// Keys and results of the slots.
    pub fn results(&self, slots: &[u32]) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>)> {
        Ok((self.keys.keys(slots), self.accumulators.values(slots)?))
    }

    /// Forgets all groups and keeps the memory.
    pub fn clear(&mut self) {
        let slots: Vec<u32> = (0..self.len() as u32).collect();
        self.accumulators.clear(&slots);
        self.keys.clear();
        self.marks = Marks::default();
    }

    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.accumulators.bytes() + self.slots.capacity() * size_of::<u32>() + self.marks.bytes()
    }
}

impl Sealed {
    /// See [`Groups::unsaved`].
    pub fn unsaved(&self) -> usize {
        if self.marks.tracks() { self.marks.changed() } else { self.layer.rows }
    }

    /// See [`Groups::is_saved`].
    pub fn is_saved(&mut self) {
        self.marks.track();
    }

    /// See [`Groups::begin_save`].
    pub fn begin_save(&mut self, whole: bool) {
        begin_save(&mut self.marks, self.layer.rows, whole);
    }

    pub fn waits(&self) -> bool {
        self.marks.waits()
    }

    /// See [`Groups::save`].
    pub fn save(&mut self, max: usize) -> Result<Vec<Layer>> {
        let rows = self.marks.next(max);
        if rows.is_empty() { Ok(Vec::new()) } else { Ok(vec![self.layer.take(rows)?]) }
    }
}

/// What was never saved is copied whole; of what has not changed nothing is.
fn begin_save(marks: &mut Marks, rows: usize, whole: bool) {
    let whole = whole || !marks.tracks();
    if whole || marks.changed() > 0 {
        marks.begin(rows, whole);
    }
}

/// Makes tables of groups, out of emptied ones where there are some.
pub struct Pool {
    layout: Arc<Layout>,
    spare: Vec<Groups>,
}

/// Emptied tables kept at most.
const SPARE_MAX: usize = 4;

impl Pool {
    pub fn new(layout: Arc<Layout>) -> Pool {
        Pool { layout, spare: Vec::new() }
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub fn table(&mut self) -> Result<Groups> {
        match self.spare.pop() {
            Some(table) => Ok(table),
            None => Groups::new(&self.layout),
        }
    }

    /// Takes a table that is no longer needed. One that was mostly empty is dropped: emptying it costs its room, not its groups, and
    /// after a spike its memory should go back.
    pub fn recycle(&mut self, mut table: Groups) {
        assert!(!table.waits(), "a checkpoint copies a table before it is emptied");
        table.room = table.room.max(table.len());
        if self.spare.len() < SPARE_MAX && table.len() >= table.room / 4 {
            table.clear();
            self.spare.push(table);
        }
    }

    /// Gives the memory of emptied tables back.
    pub fn shrink(&mut self) {
        self.spare.clear();
    }

    pub fn bytes(&self) -> usize {
        self.spare.iter().map(Groups::bytes).sum()
    }
}

fn failed(error: AggregateError) -> RunError {
    RunError::user("aggregate_failed", error.to_string())
}
