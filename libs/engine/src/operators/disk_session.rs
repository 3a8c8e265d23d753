//! Keys whose sessions do not fit in memory: [`super::session`] over tables on disk.
//!
//! A key's sessions are all in memory or all on disk: they leave together when the key was not touched lately, and come back together when it
//! gets a row, or when something of it is due. On disk they are rows by key under the number of the session, in the order of their starts;
//! the first row says how many there are. When something is due is a second table, ordered by that time.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_arrays;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use state::table::{Cursor, Limit, Table, TableSchema};
use state::{KEY_GROUPS, SnapshotReader, SnapshotWriter};

use super::disk::Disk;
use super::groups::Layout;
use crate::error::Result;

/// Sessions on disk: as the table of sessions, with more columns behind.
pub const SESSIONS: &str = "sessions_on_disk";
const WAKES: &str = "sessions_on_disk_due";
/// Keys that come back at once, at most.
const WAKE_KEYS: usize = 8 * 1024;

pub struct DiskSessions {
    disk: Arc<Disk>,
    keys: usize,
    /// Keys, states, `start`, `last`, `sessions`, `due`, `fired`, `number`.
    saved: SchemaRef,
    sessions: TableSchema,
    /// Keys, `due`.
    saved_wakes: SchemaRef,
    wakes: TableSchema,
    /// Sessions and when they are due, once something was written.
    tables: Option<(Box<dyn Table>, Box<dyn Table>)>,
    limit: Limit,
    /// Where the search for what is due goes on, and whether it found something.
    waking: Option<(Cursor, bool)>,
}

/// Sessions that came back: one of each key.
pub struct Back {
    pub keys: Vec<ArrayRef>,
    /// States, `start`, `last`, and more.
    pub values: Vec<ArrayRef>,
    pub rows: usize,
}

impl Back {
    fn number(&self, back: usize) -> &[i64] {
        self.values[self.values.len() - back].as_primitive::<Int64Type>().values()
    }

    pub fn starts(&self) -> &[i64] {
        self.number(5)
    }

    pub fn lasts(&self) -> &[i64] {
        self.number(4)
    }

    /// How many sessions the key has.
    fn sessions(&self) -> &[i64] {
        self.number(3)
    }

    fn due(&self) -> &[i64] {
        self.number(2)
    }

    pub fn fired(&self) -> &BooleanArray {
        self.values[self.values.len() - 1].as_boolean()
    }

    fn take(self, rows: Vec<u32>) -> Result<Back> {
        if rows.len() == self.rows {
            return Ok(self);
        }
        let rows = UInt32Array::from(rows);
        let (keys, values) = (take_arrays(&self.keys, &rows, None)?, take_arrays(&self.values, &rows, None)?);
        Ok(Back { keys, values, rows: rows.len() })
    }
}

impl DiskSessions {
    pub fn new(layout: &Layout, disk: Arc<Disk>) -> Result<DiskSessions> {
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, false)) as FieldRef;
        let number = |name: &str| field(name, DataType::Int64);
        let keys = || layout.key_fields().iter().cloned();
        let behind = [
            number("start"),
            number("last"),
            number("sessions"),
            number("due"),
            field("fired", DataType::Boolean),
            number("number"),
        ];
        let columns = keys().chain(layout.state_fields().iter().cloned()).chain(behind);
        let saved: SchemaRef = Arc::new(Schema::new(columns.collect::<Vec<_>>()));
        let saved_wakes: SchemaRef = Arc::new(Schema::new(keys().chain([number("due")]).collect::<Vec<_>>()));
        Ok(DiskSessions {
            keys: layout.keys(),
            sessions: TableSchema::of_operator(&saved, layout.keys(), 1, false)?,
            wakes: TableSchema::of_operator(&saved_wakes, layout.keys(), 1, false)?,
            saved,
            saved_wakes,
            tables: None,
            // What a checkpoint copies takes as much again.
            limit: Limit::new(disk.slots_bytes() / 2),
            waking: None,
            disk,
        })
    }

    /// How many of the sessions in memory have to go: some, if there is no room. `slots` as many as were ever there at once, which take so
    /// many bytes.
    pub fn excess(&mut self, sessions: usize, slots: usize, bytes: usize) -> usize {
        self.limit.excess(sessions, slots, bytes)
    }

    /// Whether there may be any.
    pub fn is_used(&self) -> bool {
        self.tables.is_some()
    }

    /// Writes a session for each of the keys, the one with this number; `values` as [`Back::values`].
    pub fn put(&mut self, number: i64, keys: &[ArrayRef], values: &[ArrayRef], rows: usize) -> Result<()> {
        if self.tables.is_none() {
            self.tables = Some((self.disk.table(&self.sessions)?, self.disk.table(&self.wakes)?));
        }
        let (sessions, wakes) = self.tables.as_mut().expect("it was just made");
        sessions.put(&[number], keys, values, rows)?;
        if number == 0 {
            let due = values[values.len() - 2].clone();
            wakes.put_all(&[due], keys, &[], rows)?;
        }
        Ok(())
    }

    /// Takes back the sessions of those of the keys, each named once, that have some here. With `due` only of those for which something is
    /// due at just that time.
    pub fn take(&mut self, keys: &[ArrayRef], rows: usize, due: Option<&[i64]>) -> Result<Vec<Back>> {
        let Some((table, _)) = &mut self.tables else { return Ok(Vec::new()) };
        let mut taken = Vec::new();
        let (mut keys, mut rows) = (keys.to_vec(), rows);
        for number in 0.. {
            if rows == 0 {
                break;
            }
            let found = table.get(&[number], &keys, rows)?;
            let at = UInt32Array::from(found.at);
            let mut back = Back { keys: take_arrays(&keys, &at, None)?, values: found.values, rows: at.len() };
            if let Some(due) = due.filter(|_| number == 0) {
                let is_due = |row: &u32| back.due()[*row as usize] == due[at.value(*row as usize) as usize];
                let wanted = (0..back.rows as u32).filter(is_due).collect();
                back = back.take(wanted)?;
            }
            table.remove(&[number], &back.keys, back.rows)?;
            let has_more = |row: &u32| back.sessions()[*row as usize] > number + 1;
            let more = UInt32Array::from_iter_values((0..back.rows as u32).filter(has_more));
            keys = take_arrays(&back.keys, &more, None)?;
            rows = more.len();
            taken.push(back);
        }
        Ok(taken)
    }

    /// Begins the search for what is due up to this time.
    pub fn wake(&mut self, wm: i64) {
        self.waking = self.tables.as_ref().map(|_| (Cursor::namespaces(0..KEY_GROUPS, &[i64::MIN], &[wm]), false));
    }

    /// Whether something due may be on disk.
    pub fn is_waking(&self) -> bool {
        self.waking.is_some()
    }

    /// Takes back some keys of which something is due up to `wm`; `None` after the last.
    pub fn next_due(&mut self, wm: i64) -> Result<Option<Vec<Back>>> {
        let (Some((mut cursor, found)), Some((_, wakes))) = (self.waking.take(), &mut self.tables) else {
            return Ok(None);
        };
        // They need room beside those that are there.
        let room = self.limit.rows_max().map_or(WAKE_KEYS, |max| (max / 4).clamp(1, WAKE_KEYS));
        let Some(rows) = wakes.scan(&mut cursor, room)? else {
            // Else nothing is written: a write may wait for a checkpoint.
            if found {
                wakes.remove_namespaces(&[i64::MIN], &[wm])?;
            }
            return Ok(None);
        };
        self.waking = Some((cursor, true));
        let due = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        self.take(&rows.columns()[1..][..self.keys], rows.num_rows(), Some(&due)).map(Some)
    }

    pub fn save(&mut self, writer: &mut SnapshotWriter) -> Result<()> {
        let Some((sessions, wakes)) = &mut self.tables else { return Ok(()) };
        self.disk.save_table(writer, SESSIONS, &mut **sessions, RecordBatch::new_empty(self.saved.clone()))?;
        self.disk.save_table(writer, WAKES, &mut **wakes, RecordBatch::new_empty(self.saved_wakes.clone()))
    }

    pub fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        let sessions = self.disk.restored(&self.sessions, reader, SESSIONS)?;
        let wakes = self.disk.restored(&self.wakes, reader, WAKES)?;
        self.tables = sessions.zip(wakes);
        Ok(())
    }
}

/// The columns behind the states of sessions on disk, as [`Back`] has them.
pub fn behind(starts: Vec<i64>, lasts: Vec<i64>, sessions: Vec<i64>, due: Vec<i64>, fired: Vec<bool>) -> Vec<ArrayRef> {
    let number = |numbers: Vec<i64>| Arc::new(Int64Array::from(numbers)) as ArrayRef;
    vec![number(starts), number(lasts), number(sessions), number(due), Arc::new(BooleanArray::from(fired))]
}
