//! Panes that do not fit in memory: groups of [`super::window_aggregate`] as runs of partial states on disk.
//!
//! When the operator's share of the budget is used the largest panes are written as runs, and begin anew in memory. Of a place there may be
//! runs on disk and groups in memory; a key's partial states, wherever they are, add up to its state. Windows read runs some key groups at a
//! time, so never all of one is in memory. A pane's runs go when its last window has fired; nothing is written twice but by RocksDB.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, SchemaRef};
use state::table::runs::Reader;
use state::table::{Runs, TableSchema};
use state::{KEY_GROUPS, SnapshotReader, SnapshotWriter, key_groups, key_hashes};

use super::disk::Disk;
use super::groups::Layer;
use super::places::{Places, Window};
use super::saved::{load_all, save_all};
use crate::error::Result;

/// The table of runs: as the table of panes, whose rows are added to these.
pub const RUNS: &str = "pane_runs";
/// The places that have runs.
const PLACES: &str = "pane_runs_places";

pub struct DiskPanes {
    disk: Arc<Disk>,
    keys: usize,
    /// The columns of a pane's rows in a checkpoint: keys, states, `layer`, `pane`, `from`.
    saved: SchemaRef,
    table: TableSchema,
    /// Where some place has runs.
    runs: Option<Runs>,
}

impl DiskPanes {
    pub fn new(keys: usize, saved: &SchemaRef, disk: Arc<Disk>) -> Result<DiskPanes> {
        let table = TableSchema::of_operator(saved, keys, 2, true)?;
        Ok(DiskPanes { disk, keys, saved: saved.clone(), table, runs: None })
    }

    /// Bytes that panes may take in memory. What a checkpoint copies of them takes as much again.
    pub fn bytes_max(&self) -> usize {
        self.disk.slots_bytes() / 2
    }

    /// Writes groups of a pane as a run.
    pub fn write(&mut self, (pane, from): (i64, i64), layer: Layer) -> Result<()> {
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert(Runs::new(self.disk.table(&self.table)?, 0)),
        };
        // Runs are not told apart but by their own number.
        let number: ArrayRef = Arc::new(Int64Array::from(vec![0; layer.rows]));
        let values = [layer.states, vec![number]].concat();
        Ok(runs.write(&[pane, from], &layer.keys, &values, layer.rows)?)
    }

    /// Removes the runs of a pane.
    pub fn remove(&mut self, (pane, from): (i64, i64)) -> Result<()> {
        match &mut self.runs {
            Some(runs) => Ok(runs.remove(&[pane, from], &[pane, from])?),
            None => Ok(()),
        }
    }

    /// Nothing is left: the table goes.
    pub fn clear(&mut self) {
        self.runs = None;
    }

    /// Reads what a window counts.
    pub fn reader(&self, places: &Places, window: Window) -> Reader {
        let runs = self.runs.as_ref().expect("what is read was written");
        let [first, last] = places.span(window).map(|(pane, from)| [pane, from]);
        runs.reader(&first, &last)
    }

    /// Partial states of the next key groups; `None` after the last. A key is in several.
    pub fn read(&mut self, reader: &mut Reader, window: Window) -> Result<Option<Vec<Layer>>> {
        let runs = self.runs.as_mut().expect("what is read was written");
        let Some(batches) = runs.read(reader)? else { return Ok(None) };
        Ok(Some(batches.iter().map(|rows| self.layer(rows, window)).collect::<Result<_>>()?))
    }

    /// Partial states of the key groups of these keys, group by group; others of these groups are among them.
    pub fn read_near(
        &mut self,
        places: &Places,
        window: Window,
        keys: &[ArrayRef],
        rows: usize,
        mut take: impl FnMut(Layer) -> Result<()>,
    ) -> Result<()> {
        let mut groups = key_groups(&key_hashes(keys, rows), KEY_GROUPS);
        groups.sort_unstable();
        groups.dedup();
        let reader = self.reader(places, window);
        for group in groups {
            let runs = self.runs.as_mut().expect("what is read was written");
            for rows in runs.read_groups(&reader, group..group + 1)? {
                take(self.layer(&rows, window)?)?;
            }
        }
        Ok(())
    }

    /// Rows of the table as partial states: those that the window counts.
    fn layer(&self, rows: &RecordBatch, window: Window) -> Result<Layer> {
        let rows = self.table.to_operator(rows, &self.saved);
        let froms = rows.column(rows.num_columns() - 1).as_primitive::<Int64Type>().values();
        let rows = if froms.iter().all(|from| *from <= window.end) {
            rows
        } else {
            let counts: BooleanArray = froms.iter().map(|from| Some(*from <= window.end)).collect();
            filter_record_batch(&rows, &counts)?
        };
        let (keys, rest) = rows.columns().split_at(self.keys);
        Ok(Layer { keys: keys.to_vec(), states: rest[..rest.len() - 3].to_vec(), rows: rows.num_rows() })
    }

    /// `places`: panes and `from`s that have runs.
    pub fn save(&mut self, writer: &mut SnapshotWriter, places: &[(i64, i64)]) -> Result<()> {
        let Some(runs) = &mut self.runs else { return Ok(()) };
        let number = |of: &dyn Fn(&(i64, i64)) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(places.iter().map(of)))
        };
        let next = runs.next();
        let columns =
            [("pane", number(&|place| place.0)), ("from", number(&|place| place.1)), ("next", number(&|_| next))];
        save_all(writer, PLACES, RecordBatch::try_from_iter(columns)?)?;
        self.disk.save_table(writer, RUNS, runs.table(), RecordBatch::new_empty(self.saved.clone()))
    }

    /// Returns the panes and `from`s that have runs, of this worker or another.
    pub fn restore(&mut self, reader: &SnapshotReader) -> Result<Vec<(i64, i64)>> {
        let Some(table) = self.disk.restored(&self.table, reader, RUNS)? else { return Ok(Vec::new()) };
        let (mut places, mut next) = (Vec::new(), 0);
        for rows in load_all(reader, PLACES)? {
            let [panes, froms, nexts] = [0, 1, 2].map(|at| rows.column(at).as_primitive::<Int64Type>().values());
            places.extend(panes.iter().copied().zip(froms.iter().copied()));
            // Above those of every worker: no two runs of theirs have a key in common, but those to come may.
            next = nexts.iter().copied().fold(next, i64::max);
        }
        self.runs = Some(Runs::new(table, next));
        Ok(places)
    }
}
