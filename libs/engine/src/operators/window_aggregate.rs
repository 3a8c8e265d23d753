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
//! A checkpoint names groups by their keys, the pane and, since a sealed table and the one after it may both have a key, by the number of the
//! layer. It has those that changed since the one before, and a list of the panes that there are: a pane goes without naming its groups.
//!
//! Rows late for all their windows never arrive here: the stage that assigned the panes took them out. The result does not depend on how
//! rows are cut into batches, nor on whether a partial stage aggregated some of them before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::{Chain, KeyTable, NO_SLOT, SnapshotReader, SnapshotWriter};

use super::groups::{Groups, Layer, Layout, Pool, Sealed};
use super::panes::{Panes, Rule};
use super::parts::parts;
use super::results::{Changes, Results, chunks, differs, record_batch};
use super::saved::{SAVE_ROWS, load, load_watermark, save, save_changes, save_kept, save_watermark};
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
    chain: Chain,
    copying: Copying,
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
    layers: Vec<Sealed>,
    /// Groups that came since.
    table: Option<Groups>,
}

impl Pane {
    fn rows(&self) -> usize {
        self.layers.iter().map(|layer| layer.layer.rows).sum::<usize>() + self.table.as_ref().map_or(0, Groups::len)
    }

    fn unsaved(&self) -> usize {
        self.layers.iter().map(Sealed::unsaved).sum::<usize>() + self.table.as_ref().map_or(0, Groups::unsaved)
    }
}

/// Groups that belong together in a checkpoint: a place and the number of a layer.
type Name = (Place, i64);

/// What is left to copy of a checkpoint.
#[derive(Default)]
struct Copying {
    /// Panes to look at, in the order of their places when it was cut.
    places: VecDeque<Place>,
    /// Panes that have gone since.
    gone: VecDeque<(Name, Gone)>,
    /// What is copied and not handed over.
    copied: Vec<(Name, Layer)>,
}

enum Gone {
    Table(Groups),
    Layer(Sealed),
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
            saved: Arc::new(with_layers(&saved_schema(&layout))),
            pool: Pool::new(layout),
            panes: BTreeMap::new(),
            wm: i64::MIN,
            touched: BTreeMap::new(),
            chain: Chain::default(),
            copying: Copying::default(),
            schema,
        })
    }

    fn keys(&self) -> usize {
        self.pool.layout().keys()
    }

    /// The inverse of [`WindowAggregate::place`].
    fn pane_of(&self, place: Place) -> (i64, i64) {
        if self.grid.is_some() { place } else { (place.1, place.0) }
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
            let Some(mut table) = pane.table else { continue };
            match &mut whole {
                Some(whole) => {
                    whole.merge(&table.layer())?;
                    self.let_go((place, 0), table);
                }
                None => {
                    if place != (window.start, ALL) {
                        // It gets another name: the checkpoint at hand knows it by the old one, the next by the new one.
                        self.copying.copied.extend(table.save(usize::MAX).into_iter().map(|layer| ((place, 0), layer)));
                        table.is_new();
                    }
                    whole = Some(table);
                }
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
            if let Some(mut table) = pane.table.take() {
                let name = (place, pane.layers.len() as i64);
                // Of what waits only that which was copied early is handed over here; the rest waits as a layer.
                self.copying.copied.extend(table.save(0).into_iter().map(|layer| (name, layer)));
                pane.layers.push(table.seal());
                self.pool.recycle(table);
            }
            pane.layers.iter().try_for_each(|layer| merged.merge(&layer.layer))?;
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
        self.panes.values().map(Pane::rows).sum()
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
            let number = pane.layers.len() as i64;
            for (number, layer) in pane.layers.into_iter().enumerate() {
                if layer.waits() {
                    self.copying.gone.push_back(((place, number as i64), Gone::Layer(layer)));
                }
            }
            if let Some(table) = pane.table {
                self.let_go((place, number), table);
            }
        }
    }

    /// A table is no longer needed, but for a checkpoint that has yet to copy it.
    fn let_go(&mut self, name: Name, table: Groups) {
        if table.waits() {
            self.copying.gone.push_back((name, Gone::Table(table)));
        } else {
            self.pool.recycle(table);
        }
    }

    /// Copies about as many groups of the checkpoint at hand.
    fn copy(&mut self, mut room: usize) -> Result<()> {
        let Copying { places, gone, copied } = &mut self.copying;
        let mut keep = |name: Name, layers: Vec<Layer>, room: &mut usize| {
            *room = room.saturating_sub(layers.iter().map(|layer| layer.rows).sum());
            copied.extend(layers.into_iter().map(|layer| (name, layer)));
        };
        while let Some((name, what)) = gone.front_mut().filter(|_| room > 0) {
            let (layers, waits) = match what {
                Gone::Table(table) => (table.save(room), table.waits()),
                Gone::Layer(layer) => (layer.save(room)?, layer.waits()),
            };
            keep(*name, layers, &mut room);
            if !waits && let Some((_, Gone::Table(table))) = gone.pop_front() {
                self.pool.recycle(table);
            }
        }
        while let Some(&place) = places.front().filter(|_| room > 0) {
            let mut waits = false;
            // One that is not there any more went with all that waited.
            if let Some(pane) = self.panes.get_mut(&place) {
                for (number, layer) in pane.layers.iter_mut().enumerate() {
                    keep((place, number as i64), layer.save(room)?, &mut room);
                    waits |= layer.waits();
                }
                if let Some(table) = &mut pane.table {
                    keep((place, pane.layers.len() as i64), table.save(room), &mut room);
                    waits |= table.waits();
                }
            }
            if !waits {
                places.pop_front();
            }
        }
        Ok(())
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
        let rows = self.panes.values().map(Pane::rows).sum();
        let unsaved = self.panes.values().map(Pane::unsaved).sum();
        let whole = self.chain.next_is_whole(unsaved, rows);
        if !whole {
            let [layer, pane, from] = [3, 2, 1].map(|back| self.saved.fields().len() - back);
            let identity: Vec<usize> = (0..self.keys()).chain([layer, pane, from]).collect();
            save_changes(writer, TABLE, &self.saved, &identity)?;
            let names: Vec<(i64, i64)> = self.panes.keys().map(|place| self.pane_of(*place)).collect();
            let column =
                |of: fn(&(i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(names.iter().map(of))) as ArrayRef;
            save_kept(writer, TABLE, &[pane, from], vec![column(|name| name.0), column(|name| name.1)])?;
        }
        for pane in self.panes.values_mut() {
            pane.layers.iter_mut().for_each(|layer| layer.begin_save(whole));
            pane.table.iter_mut().for_each(|table| table.begin_save(whole));
        }
        self.copying.places = self.panes.keys().copied().collect();
        Ok(())
    }

    fn snapshot_more(&mut self, writer: &mut SnapshotWriter) -> Result<bool> {
        self.copy(SAVE_ROWS)?;
        for ((place, number), layer) in mem::take(&mut self.copying.copied) {
            let (pane, from) = self.pane_of(place);
            let constant = |value| Arc::new(Int64Array::from(vec![value; layer.rows])) as ArrayRef;
            let rest = [constant(number), constant(pane), constant(from)];
            let columns = [&layer.keys[..], &layer.states, &rest].concat();
            save(writer, TABLE, &layer.keys, record_batch(&self.saved, columns, layer.rows)?)?;
        }
        Ok(!self.copying.places.is_empty() || !self.copying.gone.is_empty())
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        let keys = self.keys();
        let states = self.pool.layout().state_fields().len();
        let mut named: BTreeMap<Name, Groups> = BTreeMap::new();
        for rows in load(reader, TABLE)? {
            for (key, rows) in parts(&rows, false)? {
                for (number, rows) in layers(&rows, keys + states)? {
                    let columns = rows.columns();
                    let (keys, states) = (columns[..keys].to_vec(), columns[keys..keys + states].to_vec());
                    let table = match named.entry((self.place(key), number)) {
                        Entry::Occupied(table) => table.into_mut(),
                        Entry::Vacant(none) => none.insert(self.pool.table()?),
                    };
                    table.merge(&Layer { keys, states, rows: rows.num_rows() })?;
                }
            }
        }
        let chain = reader.chain(TABLE);
        for ((place, number), mut table) in named {
            if chain.is_some() {
                table.is_saved();
            }
            let pane = self.panes.entry(place).or_default();
            // The layer with the last number is that of the table; the ones before do not change.
            if let Some(mut before) = pane.table.replace(table) {
                pane.layers.push(before.seal());
                self.pool.recycle(before);
            }
            // Other workers may have sealed other layers. Then numbers change, and the chain is begun anew.
            assert!(chain.is_none() || number == pane.layers.len() as i64, "a worker numbers layers without gaps");
        }
        self.chain = chain.unwrap_or_default();
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let columns = |columns: &[ArrayRef]| columns.iter().map(|c| c.get_array_memory_size()).sum::<usize>();
        let layer = |Sealed { layer, .. }: &Sealed| columns(&layer.keys) + columns(&layer.states);
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

/// As [`saved_schema`], with the number of the layer before the pane.
fn with_layers(schema: &Schema) -> Schema {
    let mut fields = schema.fields().to_vec();
    fields.insert(fields.len() - 2, Arc::new(Field::new("layer", DataType::Int64, false)));
    Schema::new(fields)
}

/// The rows of each layer, whose number is in this column.
fn layers(rows: &RecordBatch, column: usize) -> Result<Vec<(i64, RecordBatch)>> {
    let numbers = rows.column(column).as_primitive::<Int64Type>().values();
    let mut lists: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, &number) in numbers.iter().enumerate() {
        lists.entry(number).or_default().push(row as u32);
    }
    if lists.len() == 1 {
        return Ok(vec![(numbers[0], rows.clone())]);
    }
    let take = |(number, list)| Ok((number, take_record_batch(rows, &UInt32Array::from(list)).map_err(failed)?));
    lists.into_iter().map(take).collect()
}

fn taken(rows: &RecordBatch, first: usize, at: Vec<u32>) -> Result<Vec<ArrayRef>> {
    arrow::compute::take_arrays(&rows.columns()[first..], &UInt32Array::from(at), None).map_err(failed)
}

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot build the rows of a window: {error}"))
}
