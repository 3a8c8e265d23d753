//! Tables of rows by key: where keyed state lies when it is not in an operator's slots.
//!
//! A row is addressed by a *namespace* (up to a few numbers that say what it belongs to: a pane of a window), and by its key; the key's
//! *group* ([`crate::key_groups`]) says which worker owns it. The values are columns. Every call takes a batch: what one call costs is
//! shared by all of its rows, and whoever has to change rows reads and writes each distinct key once per batch ([`hot`]), or does not read at all ([`runs`]).
//!
//! [`Table`] is the contract, [`MemoryTable`] and [`RocksTable`] keep it, and one conformance suite is called by both. Rows are ordered by
//! namespace, then group, then key: a namespace is one stretch, which is read and forgotten as a whole. (Ordered by group first, a
//! namespace would be as many stretches as there are groups, and a pane that goes would leave as many markers of deletion.)
//! A table's checkpoint is a list of files ([`part`]); restoring moves rows between kinds of tables and numbers of workers.
//!
//! A table belongs to one operator on one worker, which calls it alone. It knows nothing of epochs: what was put is there.

mod codec;
#[cfg(test)]
mod conformance;
mod cursor;
pub mod hot;
mod limit;
mod memory;
pub mod part;
mod rocks;
pub mod runs;
mod scratch;

pub use cursor::Cursor;
pub use hot::{HotTable, Values};
pub use limit::Limit;
pub use memory::MemoryTable;
pub use part::{PartFile, TablePart};
pub use rocks::{RocksMemory, RocksTable};
pub use runs::Runs;
pub use scratch::Scratch;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;

use crate::files::FileError;
use crate::manifest::ManifestError;
use crate::snapshot::SnapshotError;
use crate::{KeyTypeError, check_key_type, logical_type};
use part::Freeze;

/// Why a table cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error(transparent)]
    Key(#[from] KeyTypeError),
    #[error("a table cannot hold values of these types: {0}")]
    Values(ArrowError),
    #[error("{action} the table in {place} failed: {reason}")]
    Failed { action: &'static str, place: String, reason: String },
    /// The files are what was written, and yet not what they should be.
    #[error("the table in {place} is damaged: {reason}")]
    Damaged { place: String, reason: String },
    #[error("a part of a table holds {found}, which is not {wanted}: it belongs to another operator or version")]
    Foreign { wanted: String, found: String },
    #[error("a part of a table has the format '{found}'; this program reads {}", part::FORMATS)]
    Format { found: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Rows(#[from] SnapshotError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

pub type Result<T> = std::result::Result<T, TableError>;

/// The columns of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableSchema {
    /// BIGINT columns that name what a row belongs to.
    pub namespace: Fields,
    pub key: Fields,
    pub values: Fields,
    /// The last number of the namespace is a run: see [`runs`].
    pub runs: bool,
    rows: SchemaRef,
}

impl TableSchema {
    /// `namespace` are the names of its numbers. Keys have their logical types.
    ///
    /// # Errors
    /// `Key` if a column cannot be a key, `Values` if a column cannot be stored.
    pub fn new(namespace: &[&str], key: &Fields, values: &Fields) -> Result<TableSchema> {
        key.iter().try_for_each(|field| check_key_type(field.data_type()))?;
        codec::check_values(values)?;
        let namespace: Fields = namespace.iter().map(|name| Field::new(*name, DataType::Int64, false)).collect();
        let key: Fields =
            key.iter().map(|field| field.as_ref().clone().with_data_type(logical_type(field.data_type()))).collect();
        let columns: Vec<FieldRef> = namespace.iter().chain(&key).chain(values).cloned().collect();
        Ok(TableSchema { namespace, key, values: values.clone(), runs: false, rows: Arc::new(Schema::new(columns)) })
    }

    /// With a run as the last number of the namespace.
    pub fn with_runs(self) -> TableSchema {
        let run: FieldRef = Arc::new(Field::new("run", DataType::Int64, false));
        let namespace: Fields = self.namespace.iter().cloned().chain([run]).collect();
        let columns: Vec<FieldRef> = namespace.iter().chain(&self.key).chain(&self.values).cloned().collect();
        TableSchema { namespace, runs: true, rows: Arc::new(Schema::new(columns)), ..self }
    }

    /// The table of rows as operators give and take them: keys, values, and behind them the namespace without its run.
    ///
    /// # Errors
    /// As [`TableSchema::new`].
    pub fn of_operator(rows: &SchemaRef, keys: usize, namespace: usize, runs: bool) -> Result<TableSchema> {
        let fields = rows.fields();
        let values = fields.len().checked_sub(namespace).filter(|end| *end >= keys);
        let Some(values) = values else {
            let wanted = format!("{keys} keys and {namespace} numbers of a namespace");
            return Err(TableError::Foreign { wanted, found: format!("{} columns", fields.len()) });
        };
        let part = |range: std::ops::Range<usize>| -> Fields { fields[range].to_vec().into() };
        let names: Vec<&str> = fields[values..].iter().map(|field| field.name().as_str()).collect();
        let schema = TableSchema::new(&names, &part(0..keys), &part(keys..values))?;
        Ok(if runs { schema.with_runs() } else { schema })
    }

    /// Rows of the table as operators take them; `to` are their columns.
    pub fn to_operator(&self, rows: &RecordBatch, to: &SchemaRef) -> RecordBatch {
        let (namespace, rest) = rows.columns().split_at(self.namespace.len());
        let numbers = namespace.len() - usize::from(self.runs);
        let columns = [rest, &namespace[..numbers]].concat();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(to.clone(), columns, &options).expect("the columns are those of the table")
    }

    /// Puts rows as operators give them into a table that has no runs.
    pub fn put_operator(&self, rows: &RecordBatch, table: &mut dyn Table) -> Result<()> {
        assert!(!self.runs, "rows of runs are written by runs");
        let (rest, namespace) = rows.columns().split_at(rows.num_columns() - self.namespace.len());
        let columns = [namespace, rest].concat();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let rows = RecordBatch::try_new_with_options(self.rows.clone(), columns, &options)
            .map_err(|error| TableError::Foreign { wanted: self.shown(), found: error.to_string() })?;
        put_rows(self, &rows, table)
    }

    /// Namespace, key and values, as [`Table::scan`] gives them.
    pub fn rows(&self) -> &SchemaRef {
        &self.rows
    }

    /// The types by which a part of a table is known for its own; names do not matter.
    fn shown(&self) -> String {
        let types = |fields: &Fields| fields.iter().map(|f| f.data_type().to_string()).collect::<Vec<_>>().join(", ");
        format!(
            "{} numbers of namespace, keys ({}), values ({})",
            self.namespace.len(),
            types(&self.key),
            types(&self.values)
        )
    }
}

/// Rows that were found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Which of the keys asked for, ascending.
    pub at: Vec<u32>,
    /// The value columns, a row for each of them.
    pub values: Vec<ArrayRef>,
}

/// Rows by namespace and key; see the module's documentation.
///
/// `namespace` has the numbers that the schema names; `keys` are the key columns, in any encoding of their types, each with `rows` values.
/// NULL is a key like any other, -0.0 is 0.0 and all NaN are one key, as in [`crate::KeyTable`].
pub trait Table: Send {
    fn schema(&self) -> &TableSchema;

    /// The rows of those keys that have one. A key may be asked for more than once.
    fn get(&mut self, namespace: &[i64], keys: &[ArrayRef], rows: usize) -> Result<Found>;

    /// Puts rows in the place of what their keys had. Of several rows with one key the last is kept.
    fn put(&mut self, namespace: &[i64], keys: &[ArrayRef], values: &[ArrayRef], rows: usize) -> Result<()>;

    /// As [`Table::put`], with a namespace for each row: a column per number.
    fn put_all(&mut self, namespaces: &[ArrayRef], keys: &[ArrayRef], values: &[ArrayRef], rows: usize) -> Result<()> {
        for (namespace, range) in cursor::namespaces(namespaces, rows) {
            let cut = |columns: &[ArrayRef]| -> Vec<ArrayRef> {
                columns.iter().map(|column| column.slice(range.start, range.len())).collect()
            };
            self.put(&namespace, &cut(keys), &cut(values), range.len())?;
        }
        Ok(())
    }

    /// Removes the rows of keys; a key without a row is removed.
    fn remove(&mut self, namespace: &[i64], keys: &[ArrayRef], rows: usize) -> Result<()>;

    /// Removes all rows of the namespaces from the first to the last, both included.
    fn remove_namespaces(&mut self, first: &[i64], last: &[i64]) -> Result<()>;

    /// The next rows of a cursor, at most `rows_max`, in the order of the table; `None` at its end. What is put between two calls is seen
    /// if it comes after the rows given so far.
    fn scan(&mut self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<RecordBatch>>;

    /// Bytes of the rows, as far as they are known without looking: an estimate, for metrics.
    fn bytes(&self) -> usize;

    /// The table as of now, to be written while it goes on changing. Quick: nothing is copied. The next write may wait for it to be done.
    fn freeze(&mut self) -> Result<Box<dyn Freeze>>;
}

/// Copies the rows of a cursor into another table with these columns.
pub fn copy(from: &mut dyn Table, cursor: &mut Cursor, to: &mut dyn Table) -> Result<u64> {
    let mut copied = 0;
    while let Some(rows) = from.scan(cursor, COPY_ROWS)? {
        copied += rows.num_rows() as u64;
        put_rows(from.schema(), &rows, to)?;
    }
    Ok(copied)
}

/// Puts rows with the columns of [`TableSchema::rows`].
fn put_rows(schema: &TableSchema, rows: &RecordBatch, to: &mut dyn Table) -> Result<()> {
    let (first, rest) = rows.columns().split_at(schema.namespace.len());
    let (keys, values) = rest.split_at(schema.key.len());
    to.put_all(first, keys, values, rows.num_rows())
}

pub(crate) const COPY_ROWS: usize = 16 * 1024;

fn io_failed(action: &'static str, place: &Path, error: std::io::Error) -> TableError {
    TableError::Failed { action, place: place.display().to_string(), reason: error.to_string() }
}
