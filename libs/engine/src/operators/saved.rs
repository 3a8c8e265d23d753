//! State of operators as tables of a snapshot.
//!
//! A large table is handed over whole or as changes, whichever is due ([`state::Chain`]), and copied in steps ([`state::Marks`]).
//! Rows carry the key group of their key, by the hash that the exchange uses, so that each is restored where its key's rows go.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use state::{KEY_GROUPS, Marks, SnapshotError, SnapshotReader, SnapshotWriter, key_groups, key_hashes};

use crate::error::{Result, RunError};

const WATERMARK: &str = "watermark";
/// Rows that a step of a snapshot copies, about: some milliseconds. Few in tests, so that steps matter there.
pub const SAVE_ROWS: usize = if cfg!(test) { 3 } else { 16 << 10 };
/// Rows that are copied early at least: a few at a time would make many small pieces.
const EARLY_ROWS: usize = if cfg!(test) { 1 } else { 1 << 10 };

/// Notes that slots, all below `room`, are about to change, and returns those that have to be copied before, with some that would be copied
/// next.
pub fn change(marks: &mut Marks, slots: &[u32], room: usize) -> Vec<u32> {
    let mut early = marks.change(slots, room);
    if !early.is_empty() && early.len() < EARLY_ROWS {
        early.extend(marks.next(EARLY_ROWS - early.len()));
    }
    early
}

/// Adds rows that belong to `keys` (a column per key, a value per row). Without keys they belong to the owner of the empty key.
pub fn save(writer: &mut SnapshotWriter, table: &str, keys: &[ArrayRef], rows: RecordBatch) -> Result<()> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let groups = key_groups(&key_hashes(keys, rows.num_rows()), KEY_GROUPS);
    writer.keyed(table, rows, &groups).map_err(failed)
}

/// Makes a table one of changes; `identity` are the columns that name a row.
pub fn save_changes(writer: &mut SnapshotWriter, table: &str, schema: &SchemaRef, identity: &[usize]) -> Result<()> {
    writer.changes(table, schema, identity).map_err(failed)
}

/// Removes rows that belong to `keys` from a table of changes; `identity` are the values that name them.
pub fn save_removal(
    writer: &mut SnapshotWriter,
    table: &str,
    keys: &[ArrayRef],
    identity: Vec<ArrayRef>,
    rows: usize,
) -> Result<()> {
    let groups = key_groups(&key_hashes(keys, rows), KEY_GROUPS);
    writer.remove(table, identity, &groups).map_err(failed)
}

/// Of what earlier snapshots have of a table of changes, only rows with these values in these columns stay.
pub fn save_kept(writer: &mut SnapshotWriter, table: &str, columns: &[usize], values: Vec<ArrayRef>) -> Result<()> {
    writer.keep(table, columns, values).map_err(failed)
}

/// The rows of a table that this worker owns.
pub fn load(reader: &SnapshotReader, table: &str) -> Result<Vec<RecordBatch>> {
    reader.table(table).map_err(failed)
}

/// Adds rows that have no key: whoever is the only one to have such rows restores them.
pub fn save_all(writer: &mut SnapshotWriter, table: &str, rows: RecordBatch) -> Result<()> {
    writer.unkeyed(table, rows).map_err(failed)
}

/// All rows of a table without keys.
pub fn load_all(reader: &SnapshotReader, table: &str) -> Result<Vec<RecordBatch>> {
    reader.all(table).map_err(failed)
}

/// Saves up to which watermark windows have fired, so that a restored operator does not fire them again.
pub fn save_watermark(writer: &mut SnapshotWriter, wm: i64) -> Result<()> {
    let schema = Arc::new(Schema::new(vec![Field::new("watermark", DataType::Int64, false)]));
    let column: ArrayRef = Arc::new(Int64Array::from(vec![wm]));
    let rows = RecordBatch::try_new(schema, vec![column]).map_err(|error| RunError::internal(error.to_string()))?;
    writer.unkeyed(WATERMARK, rows).map_err(failed)
}

/// The watermark of the snapshot. It is the closing watermark of the epoch, so all workers saved the same.
pub fn load_watermark(reader: &SnapshotReader) -> Result<i64> {
    let rows = reader.all(WATERMARK).map_err(failed)?;
    let saved = || rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().iter().copied());
    let wm = saved().max().unwrap_or(i64::MIN);
    assert!(saved().all(|other| other == wm), "all workers close an epoch with the same watermark");
    Ok(wm)
}

fn failed(error: SnapshotError) -> RunError {
    RunError::internal(format!("cannot save or restore state: {error}"))
}
