//! The state of an operator as one worker would have written it at once, a piece at a time: tables with files of their own need not fit in
//! memory, and of the others only a piece is copied.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::files::Files;
use crate::key_group::{KEY_GROUPS, key_groups, key_hashes, owned};
use crate::snapshot::{MemoryStore, Snapshot, SnapshotWriter};

use crate::table::{COPY_ROWS, Cursor, RocksMemory, Table, TableError, TableSchema, part};

/// Rows of a piece, about.
pub const PIECE_ROWS: usize = 1 << 20;
/// What a row of a table with files of its own takes there, about: it is compressed.
const STORED_ROW_BYTES: usize = 32;

/// How many pieces rows make: each has the key groups of one of so many workers.
pub fn pieces_of(rows: usize, piece_rows: usize) -> usize {
    rows.div_ceil(piece_rows).clamp(1, usize::from(KEY_GROUPS))
}

/// See the module's documentation.
pub struct Pieces<'a> {
    store: &'a MemoryStore,
    operator: &'a str,
    stored: Vec<Stored>,
    pieces: usize,
}

/// What a worker had of a table.
struct Stored {
    name: String,
    columns: SchemaRef,
    schema: TableSchema,
    keys: usize,
    table: Box<dyn Table>,
}

impl<'a> Pieces<'a> {
    /// `scratch` names directories for tables that are opened, each for one alone.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn open(
        store: &'a MemoryStore,
        operator: &'a str,
        files: &dyn Files,
        scratch: impl Fn() -> std::path::PathBuf,
        memory: &RocksMemory,
        piece_rows: usize,
    ) -> Result<Pieces<'a>, TableError> {
        let (mut stored, mut rows) = (Vec::new(), store.rows(operator));
        for (name, columns, part) in store.stored(operator) {
            let columns = part::columns_of(name, columns, files)?;
            let schema = TableSchema::of_operator(&columns, part.keys, part.namespace, part.runs)?;
            let directory = scratch();
            let table = part::open(&schema, part, files, Path::new(&directory), memory).await?;
            rows += part.bytes() as usize / STORED_ROW_BYTES;
            stored.push(Stored { name: name.to_owned(), columns, schema, keys: part.keys, table });
        }
        Ok(Pieces { store, operator, stored, pieces: pieces_of(rows, piece_rows) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pieces
    }

    /// A piece, its tables in the order of their key groups; those without keys are in the first. Every piece has every keyed table.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn piece(&mut self, piece: usize) -> Result<Snapshot, TableError> {
        let groups = owned(piece, self.pieces);
        let mut writer = SnapshotWriter::new();
        for Stored { name, columns, schema, keys, table } in &mut self.stored {
            let mut cursor = Cursor::all(schema, groups.clone());
            writer.keyed(name, RecordBatch::new_empty(columns.clone()), &[])?;
            while let Some(batch) = table.scan(&mut cursor, COPY_ROWS)? {
                let batch = schema.to_operator(&batch, columns);
                let groups = key_groups(&key_hashes(&batch.columns()[..*keys], batch.num_rows()), KEY_GROUPS);
                writer.keyed(name, batch, &groups)?;
            }
        }
        Ok(self.store.merged_piece(self.operator, piece, self.pieces, writer)?)
    }
}
