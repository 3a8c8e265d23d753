//! State of operators as tables of a snapshot.
//!
//! Rows carry the key group of their key, by the hash that the exchange uses, so that each is restored where its key's rows go.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use state::{KEY_GROUPS, SnapshotError, SnapshotReader, SnapshotWriter, key_groups, key_hashes};

use crate::error::{Result, RunError};

const WATERMARK: &str = "watermark";

/// Adds rows that belong to `keys` (a column per key, a value per row). Without keys they belong to the owner of the empty key.
pub fn save(writer: &mut SnapshotWriter, table: &str, keys: &[ArrayRef], rows: RecordBatch) -> Result<()> {
    if rows.num_rows() == 0 {
        return Ok(());
    }
    let groups = key_groups(&key_hashes(keys, rows.num_rows()), KEY_GROUPS);
    writer.keyed(table, rows, &groups).map_err(failed)
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
