//! Aggregates by window and keys over tumbling, hopping, cumulating and attached windows.
//!
//! State: a table of groups per pane (see [`super::panes`]); rows that count only from a later window on, because they came too late for
//! the earlier ones, have tables of their own. A window fires when the watermark reaches its last instant (end - u): the states of its
//! panes are merged and its rows leave, in the order of window ends and then of the groups' arrival. Cumulating windows merge a pane once,
//! into the growing window. A pane goes when its last window has fired.
//!
//! Where panes may lie on disk ([`super::disk_window`]), the largest do when there are too many groups. A window that counts some of these
//! fires some key groups at a time, and its rows leave in their order.
//!
//! With allowed lateness panes stay until their last window's lateness is over. Rows for fired windows are kept apart. At the end of the
//! epoch, or before the next window fires that counts them, the results of their keys are computed without and with them; what changed leaves
//! as -U/+U or +I, and the rows are added to their panes.
//!
//! A checkpoint has the groups in memory that changed since the one before ([`super::pane_copies`]), and a list of the panes that there are: a
//! pane goes without naming its groups. What is on disk has files of its own.
//!
//! Rows late for all their windows never arrive here: the stage that assigned the panes took them out. The result does not depend on how
//! rows are cut into batches, nor on whether a partial stage aggregated some of them before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::table::runs::Reader;
use state::{Chain, SnapshotReader, SnapshotWriter};

use super::disk::{Disk, loaded_rows};
use super::disk_window::{DiskPanes, RUNS};
use super::groups::{Groups, Layer, Layout, Pool};
use super::pane_copies::{Name, Pane, PaneCopies};
use super::panes::Rule;
use super::parts::parts;
use super::places::{Place, Places, Window};
use super::results::{Changes, Results, STEP_ROWS, chunks, differs, record_batch};
use super::saved::{SAVE_ROWS, load, load_watermark, save, save_changes, save_kept, save_watermark};
use super::times::timestamps;
use super::window_assign::ALL;
use crate::batch::Batch;
use crate::error::{Result, RunError};
use crate::operator::{Operator, Output};
use crate::plan::WindowSpec;

const TABLE: &str = "panes";

pub struct WindowAggregate {
    places: Places,
    tumble: bool,
    pool: Pool,
    /// In the order in which panes are needed no longer.
    panes: BTreeMap<Place, Pane>,
    /// Rows of this epoch that fired windows count too.
    late: BTreeMap<Place, Groups>,
    disk: Option<DiskPanes>,
    /// Bytes of panes and late rows in memory, or more.
    bytes: usize,
    /// Windows have fired, or are firing, up to here.
    wm: i64,
    firing: Option<Firing>,
    /// Rows after which a step of firing ends.
    step_rows: usize,
    chain: Chain,
    copies: PaneCopies,
    schema: SchemaRef,
    saved: SchemaRef,
}

/// Windows with one end whose rows are leaving.
struct Firing {
    end: i64,
    windows: VecDeque<Window>,
    /// How far the first of them has been read from disk.
    reader: Option<Reader>,
}

impl WindowAggregate {
    /// With `disk`, what does not fit in memory lies there.
    pub fn new(spec: &WindowSpec, disk: Option<Arc<Disk>>) -> Result<WindowAggregate> {
        let schema = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, schema.fields(), &spec.calls, spec.partial_input)?;
        let rule = Rule { unit: spec.unit, lateness: spec.lateness };
        let saved: SchemaRef = Arc::new(with_layers(&saved_schema(&layout)));
        Ok(WindowAggregate {
            places: Places::new(spec.windows, rule),
            tumble: spec.windows.is_tumble(),
            pool: Pool::new(layout),
            panes: BTreeMap::new(),
            late: BTreeMap::new(),
            disk: disk.map(|disk| DiskPanes::new(spec.keys, &saved, disk)).transpose()?,
            bytes: 0,
            wm: i64::MIN,
            firing: None,
            step_rows: STEP_ROWS,
            chain: Chain::default(),
            copies: PaneCopies::default(),
            schema,
            saved,
        })
    }

    /// With steps of so many rows.
    #[cfg(test)]
    pub fn with_steps(self, step_rows: usize) -> WindowAggregate {
        WindowAggregate { step_rows, ..self }
    }

    fn rule(&self) -> Rule {
        self.places.rule
    }

    fn keys(&self) -> usize {
        self.pool.layout().keys()
    }

    /// Fires windows that the watermark closes, in the order of their ends; returns whether there are more.
    fn fire(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        let mut results = Results::new(&self.schema);
        while let Some(mut firing) = self.next_firing(wm, &mut results, out)? {
            let fired = self.fire_some(&mut firing, &mut results, out)?;
            if fired {
                self.retire_fired(firing.end)?;
            } else {
                self.firing = Some(firing);
            }
            if !fired || results.made() >= self.step_rows {
                results.flush(out)?;
                return Ok(true);
            }
        }
        results.flush(out)?;
        self.wm = wm;
        Ok(false)
    }

    /// What is firing, or the windows that fire next.
    fn next_firing(&mut self, wm: i64, results: &mut Results, out: &mut Output) -> Result<Option<Firing>> {
        if self.firing.is_some() {
            return Ok(self.firing.take());
        }
        let Some(windows) = self.places.next(self.wm, wm, &self.panes) else { return Ok(None) };
        if windows.iter().any(|window| self.late.keys().any(|place| self.places.reads(*window, *place))) {
            // Rows that came while the window before fired in steps correct it: the rest of its results goes first.
            results.flush(out)?;
            self.correct(out)?;
        }
        let end = windows[0].end;
        self.wm = end - self.rule().unit;
        Ok(Some(Firing { end, windows: windows.into(), reader: None }))
    }

    /// Gives rows of windows until there are many; returns whether these were all.
    fn fire_some(&mut self, firing: &mut Firing, results: &mut Results, out: &mut Output) -> Result<bool> {
        while let Some(&window) = firing.windows.front() {
            if firing.reader.is_none() {
                let places = self.places.read_by(window, &self.panes);
                if !places.iter().any(|place| self.panes[place].is_on_disk) {
                    if self.places.grow() {
                        self.grow(window)?;
                    }
                    self.rows_of(window, |rows| results.push(rows, out))?;
                    firing.windows.pop_front();
                    continue;
                }
                places.into_iter().try_for_each(|place| self.write(place))?;
            }
            let disk = self.disk.as_mut().expect("what is on disk was written there");
            let reader = firing.reader.get_or_insert_with(|| disk.reader(&self.places, window));
            while let Some(layers) = disk.read(reader, window)? {
                let mut merged = Groups::new(self.pool.layout())?;
                layers.iter().try_for_each(|layer| merged.merge(layer))?;
                rows_of_table(&self.schema, self.places.rule, &merged, window, |rows| results.push(rows, out))?;
                if results.made() >= self.step_rows {
                    return Ok(false);
                }
            }
            firing.reader = None;
            firing.windows.pop_front();
        }
        Ok(true)
    }

    /// Merges the panes of a cumulating window into its first: the later windows with this start need them together only.
    fn grow(&mut self, window: Window) -> Result<()> {
        let mut whole: Option<Groups> = None;
        for place in self.places.read_by(window, &self.panes) {
            let pane = self.panes.remove(&place).expect("a window reads panes that exist");
            assert!(pane.layers.is_empty(), "panes of cumulating windows are never sealed");
            let Some(mut table) = pane.table else { continue };
            match &mut whole {
                Some(whole) => {
                    whole.merge(&table.layer())?;
                    self.copies.let_go((place, 0), table, &mut self.pool);
                }
                None => {
                    if place != (window.start, ALL) {
                        self.copies.rename((place, 0), &mut table);
                    }
                    whole = Some(table);
                }
            }
        }
        if whole.is_some() {
            self.panes.insert((window.start, ALL), Pane { table: whole, ..Pane::default() });
        }
        Ok(())
    }

    /// Gives the result rows of a window all of whose panes are in memory.
    fn rows_of(&mut self, window: Window, give: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
        let places = self.places.read_by(window, &self.panes);
        let (schema, rule) = (self.schema.clone(), self.rule());
        if let [place] = places.as_slice()
            && let Some(Pane { layers, table, .. }) = self.panes.get(place)
            && layers.is_empty()
        {
            return table.as_ref().map_or(Ok(()), |table| rows_of_table(&schema, rule, table, window, give));
        }
        if places.is_empty() {
            return Ok(());
        }
        let mut merged = self.pool.table()?;
        for place in places {
            let Some(pane) = self.panes.get_mut(&place) else { continue };
            if let Some(mut table) = pane.table.take() {
                self.copies.seal((place, pane.layers.len() as i64), &mut table);
                pane.layers.push(table.seal());
                self.pool.recycle(table);
            }
            pane.layers.iter().try_for_each(|layer| merged.merge(&layer.layer))?;
        }
        rows_of_table(&schema, rule, &merged, window, give)?;
        self.pool.recycle(merged);
        Ok(())
    }

    /// Groups in all panes.
    #[cfg(test)]
    pub fn state_rows(&self) -> usize {
        self.panes.values().map(Pane::rows).sum()
    }

    /// Corrects the fired windows that late rows belong to, and adds these rows to their panes.
    fn correct(&mut self, out: &mut Output) -> Result<()> {
        let late = mem::take(&mut self.late);
        let windows: BTreeSet<Window> = late.keys().flat_map(|place| self.places.fired(*place, self.wm)).collect();
        for window in windows {
            self.correct_window(window, &late, out)?;
        }
        for (place, groups) in late {
            let pane = self.panes.entry(place).or_default();
            match &mut pane.table {
                Some(table) => {
                    table.merge(&groups.layer())?;
                    self.pool.recycle(groups);
                }
                none => *none = Some(groups),
            }
        }
        Ok(())
    }

    /// Sends what late rows change in a fired window.
    fn correct_window(&mut self, window: Window, late: &BTreeMap<Place, Groups>, out: &mut Output) -> Result<()> {
        let mut fresh = self.pool.table()?;
        for (_, groups) in late.iter().filter(|(place, _)| self.places.reads(window, **place)) {
            fresh.merge(&groups.layer())?;
        }
        let added = fresh.layer();
        let mut whole = self.pool.table()?;
        let mut is_on_disk = false;
        for place in self.places.read_by(window, &self.panes) {
            let Some(pane) = self.panes.get_mut(&place) else { continue };
            is_on_disk |= pane.is_on_disk;
            pane.layers.iter().try_for_each(|layer| whole.merge(&fresh.shared(&layer.layer)?))?;
            if let Some(table) = &mut pane.table {
                whole.merge(&table.of_keys(&added.keys, added.rows))?;
            }
        }
        if let Some(disk) = self.disk.as_mut().filter(|_| is_on_disk) {
            disk.read_near(&self.places, window, &added.keys, added.rows, |layer| whole.merge(&fresh.shared(&layer)?))?;
        }
        // Slots stay what they are: those that were sent come first.
        let sent = whole.len();
        let before = self.window_rows(&whole, window)?;
        whole.merge(&added)?;
        let after = self.window_rows(&whole, window)?;
        let first = self.keys() + BOUNDS;
        let values_after: Vec<ArrayRef> = after.columns()[first..].iter().map(|column| column.slice(0, sent)).collect();
        let changed = differs(&before.columns()[first..], &values_after, sent)?;
        let mut changes = Changes::new(&before, &after);
        (0..sent).filter(|&row| changed[row]).for_each(|row| changes.update(row, row));
        (sent..whole.len()).for_each(|row| changes.insert(row));
        changes.send(out)?;
        self.pool.recycle(fresh);
        self.pool.recycle(whole);
        Ok(())
    }

    fn window_rows(&self, table: &Groups, window: Window) -> Result<RecordBatch> {
        let mut batches = Vec::new();
        rows_of_table(&self.schema, self.places.rule, table, window, |rows| {
            batches.push(rows);
            Ok(())
        })?;
        concat_batches(&self.schema, &batches).map_err(failed)
    }

    /// Drops panes all of whose windows have fired, as soon as they have, unless late rows may come.
    fn retire_fired(&mut self, end: i64) -> Result<()> {
        if self.rule().lateness == 0 { self.retire(end) } else { Ok(()) }
    }

    /// Drops the panes whose last window ends up to `end`: they come first in their order.
    fn retire(&mut self, end: i64) -> Result<()> {
        let mut was_on_disk = false;
        while let Some((&place, _)) = self.panes.first_key_value()
            && self.places.last_end(place) <= end
        {
            let (_, pane) = self.panes.pop_first().expect("there is a first pane");
            if let Some(disk) = self.disk.as_mut().filter(|_| pane.is_on_disk) {
                disk.remove(self.places.pane_of(place))?;
                was_on_disk = true;
            }
            self.copies.let_pane_go(place, pane, &mut self.pool);
        }
        if let Some(disk) = self.disk.as_mut().filter(|_| was_on_disk)
            && !self.panes.values().any(|pane| pane.is_on_disk)
        {
            disk.clear();
        }
        Ok(())
    }

    /// Writes the groups of a pane to disk.
    pub(super) fn write(&mut self, place: Place) -> Result<()> {
        let (Some(pane), Some(disk)) = (self.panes.get_mut(&place), &mut self.disk) else { return Ok(()) };
        for layer in self.copies.take_out(place, pane)? {
            disk.write(self.places.pane_of(place), layer)?;
            pane.is_on_disk = true;
            // A checkpoint that has these groups does not go on: whatever is in this pane from now on is other groups.
            self.chain = Chain::default();
        }
        Ok(())
    }

    /// Writes the largest panes to disk if there is too much in memory.
    fn make_room(&mut self, out: &mut Output) -> Result<()> {
        let Some(bytes_max) = self.disk.as_ref().map(DiskPanes::bytes_max).filter(|max| self.bytes > *max) else {
            return Ok(());
        };
        self.bytes = self.memory();
        if self.bytes <= bytes_max {
            return Ok(());
        }
        self.pool.shrink();
        // While a window fires it is not corrected: rows late for it stay in memory, which they alone may fill.
        if self.firing.is_none() {
            self.correct(out)?;
        }
        let mut panes: Vec<(usize, Place)> = self.panes.iter().map(|(place, pane)| (pane.bytes(), *place)).collect();
        panes.sort_unstable();
        let mut left: usize = panes.iter().map(|(bytes, _)| bytes).sum();
        while let Some((bytes, place)) = panes.pop().filter(|_| left > bytes_max / 4) {
            self.write(place)?;
            left -= bytes;
        }
        self.bytes = self.memory();
        Ok(())
    }

    /// Bytes of panes and late rows in memory.
    fn memory(&self) -> usize {
        let panes = self.panes.values().map(Pane::bytes).sum::<usize>();
        panes + self.late.values().map(Groups::bytes).sum::<usize>() + self.pool.bytes()
    }
}

impl Operator for WindowAggregate {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning refuses windows over an updating input");
        for (key, rows) in parts(&batch.rows, self.tumble)? {
            let place = self.places.place(key);
            assert!(
                !self.rule().late(self.places.last_end(place), self.wm),
                "a row late for all its windows passed the lateness stage: the last one of its pane {} ends at {}, the watermark is {}",
                key.0,
                self.places.last_end(place),
                self.wm
            );
            // There is a pane even of late rows alone: whatever fires next finds it.
            let pane = self.panes.entry(place).or_default();
            let is_late = self.places.rule.lateness > 0 && self.places.has_fired(place, self.wm);
            let mut fresh = || -> Result<Groups> {
                let table = self.pool.table()?;
                self.bytes += table.bytes();
                Ok(table)
            };
            let table = match is_late {
                true => match self.late.entry(place) {
                    Entry::Occupied(table) => table.into_mut(),
                    Entry::Vacant(none) => none.insert(fresh()?),
                },
                false => match &mut pane.table {
                    Some(table) => table,
                    none => none.insert(fresh()?),
                },
            };
            let before = table.bytes();
            table.add(&rows)?;
            self.bytes += table.bytes().saturating_sub(before);
        }
        self.make_room(out)
    }

    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()> {
        while self.advance(wm, out)? {}
        Ok(())
    }

    fn advance(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        // After a restore the watermark may rise up to where it was: those windows have fired.
        if wm <= self.wm && self.firing.is_none() {
            return Ok(false);
        }
        let more = self.fire(wm, out)?;
        if !more {
            self.retire_fired(self.rule().last_late_end(wm))?;
        }
        Ok(more)
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        self.correct(out)?;
        // Not before: a window that got rows in this epoch is read once more, even if its lateness ended meanwhile.
        if self.rule().lateness > 0 {
            self.retire(self.rule().last_late_end(self.wm))?;
        }
        Ok(())
    }

    fn snapshot(&mut self, _epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.late.is_empty() && self.firing.is_none(), "an epoch ends before its snapshot");
        save_watermark(writer, self.wm)?;
        let rows = self.panes.values().map(Pane::rows).sum();
        let unsaved = self.panes.values().map(Pane::unsaved).sum();
        let whole = self.chain.next_is_whole(unsaved, rows);
        if !whole {
            let [layer, pane, from] = [3, 2, 1].map(|back| self.saved.fields().len() - back);
            let identity: Vec<usize> = (0..self.keys()).chain([layer, pane, from]).collect();
            save_changes(writer, TABLE, &self.saved, &identity)?;
            let names: Vec<(i64, i64)> = self.panes.keys().map(|place| self.places.pane_of(*place)).collect();
            let column =
                |of: fn(&(i64, i64)) -> i64| Arc::new(Int64Array::from_iter_values(names.iter().map(of))) as ArrayRef;
            save_kept(writer, TABLE, &[pane, from], vec![column(|name| name.0), column(|name| name.1)])?;
        }
        self.panes.values_mut().for_each(|pane| pane.begin_save(whole));
        self.copies.begin(self.panes.keys().copied());
        if let Some(disk) = &mut self.disk {
            let there = self.panes.iter().filter(|(_, pane)| pane.is_on_disk);
            let there: Vec<(i64, i64)> = there.map(|(place, _)| self.places.pane_of(*place)).collect();
            disk.save(writer, &there)?;
        }
        Ok(())
    }

    fn snapshot_more(&mut self, writer: &mut SnapshotWriter) -> Result<bool> {
        self.copies.copy(SAVE_ROWS, &mut self.panes, &mut self.pool)?;
        for ((place, number), layer) in self.copies.take() {
            let (pane, from) = self.places.pane_of(place);
            let constant = |value| Arc::new(Int64Array::from(vec![value; layer.rows])) as ArrayRef;
            let rest = [constant(number), constant(pane), constant(from)];
            let columns = [&layer.keys[..], &layer.states, &rest].concat();
            save(writer, TABLE, &layer.keys, record_batch(&self.saved, columns, layer.rows)?)?;
        }
        Ok(self.copies.wait())
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.wm = load_watermark(reader)?;
        let mut chain = reader.chain(TABLE);
        if let Some(disk) = &mut self.disk {
            for place in disk.restore(reader)? {
                self.panes.entry(self.places.place(place)).or_default().is_on_disk = true;
            }
        }
        let mut named: BTreeMap<Name, Groups> = BTreeMap::new();
        for rows in load(reader, TABLE)? {
            self.merge_named(&mut named, &rows, &mut chain)?;
        }
        // Of an operator that had them on disk, and now has not, or of a savepoint.
        for rows in loaded_rows(reader, RUNS)? {
            chain = None;
            self.merge_named(&mut named, &rows, &mut chain)?;
        }
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
        self.bytes = self.memory();
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        // What is on disk is not held: RocksDB has a budget of its own.
        self.memory()
    }
}

impl WindowAggregate {
    /// Adds rows of a checkpoint to groups by their names. What does not fit goes to disk; then no chain goes on.
    fn merge_named(
        &mut self,
        named: &mut BTreeMap<Name, Groups>,
        rows: &RecordBatch,
        chain: &mut Option<Chain>,
    ) -> Result<()> {
        let keys = self.keys();
        let states = self.pool.layout().state_fields().len();
        for (key, rows) in parts(rows, false)? {
            for (number, rows) in layers(&rows, keys + states)? {
                let columns = rows.columns();
                let (keys, states) = (columns[..keys].to_vec(), columns[keys..keys + states].to_vec());
                let table = match named.entry((self.places.place(key), number)) {
                    Entry::Occupied(table) => table.into_mut(),
                    Entry::Vacant(none) => none.insert(self.pool.table()?),
                };
                table.merge(&Layer { keys, states, rows: rows.num_rows() })?;
            }
        }
        let Some(disk) = self.disk.as_mut() else { return Ok(()) };
        if named.values().map(Groups::bytes).sum::<usize>() > disk.bytes_max() {
            for ((place, _), table) in mem::take(named) {
                disk.write(self.places.pane_of(place), table.layer())?;
                self.panes.entry(place).or_default().is_on_disk = true;
            }
            *chain = None;
        }
        Ok(())
    }
}

/// Columns of a result between keys and values: start, end and time of the window.
const BOUNDS: usize = 3;

/// Gives the result rows of a window from the states of all of its groups, or of some.
fn rows_of_table(
    schema: &SchemaRef,
    rule: Rule,
    table: &Groups,
    window: Window,
    mut give: impl FnMut(RecordBatch) -> Result<()>,
) -> Result<()> {
    let fields = schema.fields();
    for slots in chunks(table.len()) {
        let (mut columns, values) = table.results(&slots)?;
        let bounds: [i64; BOUNDS] = [window.start, window.end, window.end - rule.unit];
        for bound in bounds {
            columns.push(timestamps(vec![bound; slots.len()], fields[columns.len()].data_type()));
        }
        columns.extend(values);
        give(record_batch(schema, columns, slots.len())?)?;
    }
    Ok(())
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

fn failed(error: arrow::error::ArrowError) -> RunError {
    RunError::internal(format!("cannot build the rows of a window: {error}"))
}
