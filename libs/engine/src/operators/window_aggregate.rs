//! Aggregates by window and keys over tumbling, hopping, cumulating and attached windows.
//!
//! State: a table of groups per pane (see [`super::panes`]); rows that count only from a later window on, because they came too late for
//! the earlier ones, have tables of their own. A window fires when the watermark reaches its last instant (end - u): the states of its
//! panes are merged and its rows leave, in the order of window ends and then of the groups' arrival. Cumulating windows merge a pane once,
//! into the growing window. A pane goes when its last window has fired.
//!
//! With allowed lateness panes stay until their last window's lateness is over. A row for a fired window marks it; at the end of the epoch
//! the window's results are computed again and what changed leaves as -U/+U or +I. What was sent before is not kept: it is computed
//! from the panes just before the row is added.
//!
//! Rows late for all their windows never arrive here: the stage that assigned the panes took them out. The result does not depend on how
//! rows are cut into batches, nor on whether a partial stage aggregated some of them before.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use state::{KeyTable, NO_SLOT, SnapshotReader, SnapshotWriter};

use super::groups::{Groups, Layer, Layout, Pool};
use super::panes::{Panes, Rule};
use super::parts::parts;
use super::results::{Changes, Results, chunks, differs, record_batch};
use super::saved::{load, load_watermark, save, save_watermark};
use super::times::timestamps;
use super::window_assign::ALL;
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output};
use crate::plan::WindowSpec;

const TABLE: &str = "panes";

pub struct WindowAggregate {
    rule: Rule,
    /// `None`: windows are attached, each is a pane.
    grid: Option<Panes>,
    tumble: bool,
    pool: Pool,
    /// In the order in which panes are needed no longer. See [`WindowAggregate::place`].
    panes: BTreeMap<Place, Pane>,
    /// Windows have fired up to here.
    wm: i64,
    /// Fired windows that got rows since the last end of an epoch, and what was sent of them.
    touched: BTreeMap<Window, RecordBatch>,
    schema: SchemaRef,
    saved: SchemaRef,
}

/// (pane, from), or (end, start) of an attached window.
type Place = (i64, i64);

/// Ordered by end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Window {
    end: i64,
    start: i64,
}

#[derive(Default)]
struct Pane {
    /// Groups as columns, made when the first of several windows that share the pane fires.
    layers: Vec<Layer>,
    /// Groups that came since.
    table: Option<Groups>,
}

impl WindowAggregate {
    pub fn new(spec: &WindowSpec) -> Result<WindowAggregate> {
        let schema = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, schema.fields(), &spec.calls, spec.partial_input)?;
        let rule = Rule { unit: spec.unit, lateness: spec.lateness };
        Ok(WindowAggregate {
            rule,
            grid: Panes::new(spec.windows, rule),
            tumble: spec.windows.is_tumble(),
            saved: Arc::new(saved_schema(&layout)),
            pool: Pool::new(layout),
            panes: BTreeMap::new(),
            wm: i64::MIN,
            touched: BTreeMap::new(),
            schema,
        })
    }

    fn keys(&self) -> usize {
        self.pool.layout().keys()
    }

    /// Where the rows of a pane are kept.
    fn place(&self, (pane, from): (i64, i64)) -> Place {
        if self.grid.is_some() { (pane, from) } else { (from, pane) }
    }

    /// End of the last window that needs the pane.
    fn last_end(&self, place: Place) -> i64 {
        self.grid.map_or(place.0, |grid| grid.last_end(place.0))
    }

    /// Fires windows that the watermark closes, in the order of their ends; returns whether there are more.
    fn fire(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        let mut results = Results::new(&self.schema);
        while let Some(windows) = self.next_windows(wm) {
            let end = windows[0].end;
            for window in windows {
                if self.rule.lateness == 0 && self.grid.is_some_and(|grid| grid.grows()) {
                    self.grow(window)?;
                }
                self.rows_of(window, |rows| results.push(rows, out))?;
            }
            self.wm = end - self.rule.unit;
            self.retire_fired(end);
            if results.are_many() {
                results.flush(out)?;
                return Ok(true);
            }
        }
        results.flush(out)?;
        self.wm = wm;
        Ok(false)
    }

    /// The windows with the next end that have rows and that the watermark closes; never none.
    fn next_windows(&self, wm: i64) -> Option<Vec<Window>> {
        let Some(grid) = self.grid else {
            let (&(end, _), _) = self.panes.range((self.wm.saturating_add(self.rule.unit + 1), i64::MIN)..).next()?;
            let windows = self.panes.range((end, i64::MIN)..=(end, i64::MAX));
            return self.rule.fires(end, wm).then(|| windows.map(|(&(end, start), _)| Window { end, start }).collect());
        };
        let (&(first, _), _) = self.panes.first_key_value()?;
        let mut end = match self.wm {
            i64::MIN => grid.first_end(first),
            fired => grid.next_end(fired + self.rule.unit).max(grid.first_end(first)),
        };
        // Windows without rows are skipped: the next one worth a look covers the next pane there is.
        let (&(pane, _), _) = self.panes.range((grid.start(end), i64::MIN)..).next()?;
        if pane >= end {
            end = grid.first_end(pane);
        }
        self.rule.fires(end, wm).then(|| vec![Window { end, start: grid.start(end) }])
    }

    /// The places that a window reads.
    fn places_of(&self, window: Window) -> Vec<Place> {
        if self.grid.is_none() {
            return vec![(window.end, window.start)];
        }
        let panes = self.panes.range((window.start, i64::MIN)..(window.end, i64::MIN));
        panes.map(|(place, _)| *place).filter(|(_, from)| *from <= window.end).collect()
    }

    /// Merges the panes of a cumulating window into its first: the later windows with this start need them together only.
    fn grow(&mut self, window: Window) -> Result<()> {
        let mut whole: Option<Groups> = None;
        for place in self.places_of(window) {
            let pane = self.panes.remove(&place).expect("a window reads panes that exist");
            assert!(pane.layers.is_empty(), "panes of cumulating windows are never sealed");
            let Some(table) = pane.table else { continue };
            match &mut whole {
                Some(whole) => {
                    whole.merge(&table.layer())?;
                    self.pool.recycle(table);
                }
                None => whole = Some(table),
            }
        }
        if whole.is_some() {
            self.panes.insert((window.start, ALL), Pane { layers: Vec::new(), table: whole });
        }
        Ok(())
    }

    /// Gives the result rows of a window as of now.
    fn rows_of(&mut self, window: Window, mut give: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let places = self.places_of(window);
        if let [place] = places.as_slice()
            && let Some(Pane { layers, table }) = self.panes.get(place)
            && layers.is_empty()
        {
            return table.iter().try_for_each(|table| self.rows_of_table(table, window, &mut give));
        }
        if places.is_empty() {
            return Ok(());
        }
        let mut merged = self.pool.table()?;
        for place in places {
            let Some(pane) = self.panes.get_mut(&place) else { continue };
            if let Some(table) = pane.table.take() {
                pane.layers.push(table.layer());
                self.pool.recycle(table);
            }
            pane.layers.iter().try_for_each(|layer| merged.merge(layer))?;
        }
        self.rows_of_table(&merged, window, &mut give)?;
        self.pool.recycle(merged);
        Ok(())
    }

    fn rows_of_table(
        &self,
        table: &Groups,
        window: Window,
        give: &mut impl FnMut(RecordBatch) -> Result<()>,
    ) -> Result<()> {
        let fields = self.schema.fields();
        for slots in chunks(table.len()) {
            let (mut columns, values) = table.results(&slots)?;
            for bound in [window.start, window.end, window.end - self.rule.unit] {
                columns.push(timestamps(vec![bound; slots.len()], fields[columns.len()].data_type()));
            }
            columns.extend(values);
            give(record_batch(&self.schema, columns, slots.len())?)?;
        }
        Ok(())
    }

    /// Groups in all panes.
    #[cfg(test)]
    pub fn state_rows(&self) -> usize {
        let rows = |pane: &Pane| {
            pane.layers.iter().map(|layer| layer.rows).sum::<usize>() + pane.table.as_ref().map_or(0, Groups::len)
        };
        self.panes.values().map(rows).sum()
    }

    fn window_rows(&mut self, window: Window) -> Result<RecordBatch> {
        let mut batches = Vec::new();
        self.rows_of(window, |rows| {
            batches.push(rows);
            Ok(())
        })?;
        concat_batches(&self.schema, &batches).map_err(failed)
    }

    /// Keeps what was sent of the fired windows that rows of this pane now change.
    fn touch(&mut self, (pane, from): (i64, i64)) -> Result<()> {
        let windows: Vec<Window> = match self.grid {
            None => vec![Window { end: from, start: pane }],
            Some(grid) => (0..grid.windows_of(pane))
                .map(|n| grid.first_end(pane) + n * grid.end_step())
                .filter(|end| *end >= from)
                .map(|end| Window { end, start: grid.start(end) })
                .collect(),
        };
        for window in windows {
            if self.rule.fires(window.end, self.wm) && !self.touched.contains_key(&window) {
                let sent = self.window_rows(window)?;
                self.touched.insert(window, sent);
            }
        }
        Ok(())
    }

    /// Sends what changed in a fired window.
    fn send_changes(&mut self, window: Window, before: &RecordBatch, out: &mut Output) -> Result<()> {
        let after = self.window_rows(window)?;
        let keys = self.keys();
        let mut known: KeyTable = self.pool.layout().key_table()?;
        let mut slots = Vec::new();
        known.intern(&before.columns()[..keys], before.num_rows(), &mut slots);
        slots.clear();
        known.lookup(&after.columns()[..keys], after.num_rows(), &mut slots);
        // Rows are in the order of slots, on both sides; keys never go, because rows are only added.
        let same: Vec<u32> = (0..slots.len() as u32).filter(|&row| slots[row as usize] != NO_SLOT).collect();
        let before_rows = same.iter().map(|&row| slots[row as usize]).collect();
        let (values_before, values_after) = (taken(before, keys + 3, before_rows)?, taken(&after, keys + 3, same)?);
        let changed = differs(&values_before, &values_after, slots.iter().filter(|slot| **slot != NO_SLOT).count())?;
        let mut changed = changed.into_iter();
        let mut changes = Changes::new(before, &after);
        for (row, &slot) in slots.iter().enumerate() {
            match slot {
                NO_SLOT => changes.insert(row),
                slot if changed.next() == Some(true) => changes.update(slot as usize, row),
                _ => {}
            }
        }
        changes.send(out)
    }

    /// Drops panes all of whose windows have fired, as soon as they have, unless late rows may come.
    fn retire_fired(&mut self, end: i64) {
        if self.rule.lateness == 0 {
            self.retire(end);
        }
    }

    /// Drops the panes whose last window ends up to `end`: they come first in their order.
    fn retire(&mut self, end: i64) {
        while let Some((&place, _)) = self.panes.first_key_value()
            && self.last_end(place) <= end
        {
            let (_, pane) = self.panes.pop_first().expect("there is a first pane");
            if let Some(table) = pane.table {
                self.pool.recycle(table);
            }
        }
    }
}

impl Operator for WindowAggregate {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, _out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning refuses windows over an updating input");
        for (key, rows) in parts(&batch.rows, self.tumble)? {
            let place = self.place(key);
            assert!(
                !self.rule.late(self.last_end(place), self.wm),
                "a row late for all its windows passed the lateness stage: the last one of its pane {} ends at {}, the watermark is {}",
                key.0,
                self.last_end(place),
                self.wm
            );
            if self.rule.lateness > 0 && self.wm > i64::MIN {
                self.touch(key)?;
            }
            let pane = self.panes.entry(place).or_default();
            let table = match &mut pane.table {
                Some(table) => table,
                none => none.insert(self.pool.table()?),
            };
            table.add(&rows)?;
        }
        Ok(())
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        while self.advance(wm, out)? {}
        Ok(())
    }

    fn advance(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        // After a restore the watermark may rise up to where it was: those windows have fired.
        if wm <= self.wm {
            return Ok(false);
        }
        let more = self.fire(wm, out)?;
        if !more && self.rule.lateness == 0 {
            self.retire(self.rule.last_late_end(wm));
        }
        Ok(more)
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        for (window, before) in mem::take(&mut self.touched) {
            self.send_changes(window, &before, out)?;
        }
        // Not before: a window that was touched in this epoch is read once more, even if its lateness ended meanwhile.
        if self.rule.lateness > 0 {
            self.retire(self.rule.last_late_end(self.wm));
        }
        Ok(())
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.touched.is_empty(), "an epoch ends before its snapshot");
        save_watermark(writer, self.wm)?;
        for (&place, pane) in &self.panes {
            let key = if self.grid.is_some() { place } else { (place.1, place.0) };
            let live = pane.table.as_ref().map(Groups::layer);
            for layer in pane.layers.iter().chain(&live) {
                let constant = |value| Arc::new(Int64Array::from(vec![value; layer.rows])) as ArrayRef;
                let columns = [&layer.keys[..], &layer.states, &[constant(key.0), constant(key.1)]].concat();
                save(writer, TABLE, &layer.keys, record_batch(&self.saved, columns, layer.rows)?)?;
            }
        }
        Ok(())
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        let keys = self.keys();
        let states = self.pool.layout().state_fields().len();
        for rows in load(reader, TABLE)? {
            for (key, rows) in parts(&rows, false)? {
                let columns = rows.columns();
                let (keys, states) = (columns[..keys].to_vec(), columns[keys..keys + states].to_vec());
                let place = self.place(key);
                let pane = self.panes.entry(place).or_default();
                let table = match &mut pane.table {
                    Some(table) => table,
                    none => none.insert(self.pool.table()?),
                };
                table.merge(&Layer { keys, states, rows: rows.num_rows() })?;
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let columns = |columns: &[ArrayRef]| columns.iter().map(|c| c.get_array_memory_size()).sum::<usize>();
        let layer = |layer: &Layer| columns(&layer.keys) + columns(&layer.states);
        let pane =
            |pane: &Pane| pane.layers.iter().map(layer).sum::<usize>() + pane.table.as_ref().map_or(0, Groups::bytes);
        self.panes.values().map(pane).sum::<usize>() + self.pool.bytes()
    }
}

/// The columns of a table of panes: keys, states, `pane`, `from`; as a partial stage sends them.
pub(super) fn saved_schema(layout: &Layout) -> Schema {
    let number = |name: &str| Arc::new(Field::new(name, DataType::Int64, false)) as FieldRef;
    let columns = layout.key_fields().iter().chain(layout.state_fields()).cloned();
    Schema::new(columns.chain([number("pane"), number("from")]).collect::<Vec<FieldRef>>())
}

fn taken(rows: &RecordBatch, first: usize, at: Vec<u32>) -> Result<Vec<ArrayRef>> {
    arrow::compute::take_arrays(&rows.columns()[first..], &UInt32Array::from(at), None).map_err(failed)
}

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot build the rows of a window: {error}"))
}
