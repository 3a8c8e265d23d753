//! Keyed state of operators, and its snapshots.
//!
//! An operator's task owns its state alone: no locks, no sharing. A batch of rows is first reduced to *slots*: [`KeyTable`] gives
//! every distinct key a dense `u32`, and everything else an operator keeps per key ([`slots::SlotVec`], accumulators) is a vector
//! indexed by slot. [`key_group`] says which worker owns a key, now and after a rescale; [`marks`] which slots a checkpoint
//! has to copy; [`snapshot`] hands the state over, ordered by key group, and gives it back to any number of workers.
//! [`files`] keeps it where it survives, and a [`manifest`] says which files are a checkpoint;
//! a [`savepoint`] is one that belongs to the user.
//! What does not fit in memory rests in a [`table`], which checkpoints keep by its own files.
//! This crate knows nothing of operators, graphs or time: it sees columns.

pub mod files;
pub mod key_group;
pub mod key_table;
pub mod manifest;
pub mod marks;
pub mod objects;
mod pieces;
pub mod savepoint;
pub mod slots;
pub mod snapshot;
pub mod table;
#[cfg(test)]
mod test_data;
mod words;

pub use files::{FileError, FileRef, Files, LocalFiles, MemoryFiles};
pub use key_group::{KEY_GROUPS, key_groups, key_hashes, owned, owner};
pub use key_table::{KeyTable, NO_SLOT};
pub use manifest::{Manifest, ManifestError};
pub use marks::{Chain, Marks};
pub use slots::{DirtySet, SlotVec};
pub use snapshot::{MemoryStore, Snapshot, SnapshotError, SnapshotReader, SnapshotWriter};

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float32Array, Float64Array, ListArray, StructArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type};

use words::Word;

/// A column type that cannot be a key.
#[derive(Debug, thiserror::Error)]
#[error("cannot use a column of type {0} as a key: it has no canonical form; cast it, or use its fields as keys")]
pub struct KeyTypeError(pub DataType);

/// Whether columns of this type can be keys (of a group, a join, an exchange). Planning asks; execution relies on it.
pub fn check_key_type(data_type: &DataType) -> Result<(), KeyTypeError> {
    match logical_type(data_type) {
        DataType::Null | DataType::Utf8 | DataType::Binary | DataType::Decimal128(_, _) | DataType::Boolean => Ok(()),
        DataType::List(field) => check_key_type(field.data_type()),
        DataType::Struct(fields) => fields.iter().try_for_each(|field| check_key_type(field.data_type())),
        other if words::is_word(&other) => Ok(()),
        other => Err(KeyTypeError(other)),
    }
}

/// The type that stands for all physical encodings of the same values: a dictionary is its values, a string view a string.
pub(crate) fn logical_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => logical_type(values),
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
        other => other.clone(),
    }
}

/// The column in its logical type; free when it already is.
pub(crate) fn logical(column: &ArrayRef) -> ArrayRef {
    let wanted = logical_type(column.data_type());
    if *column.data_type() == wanted {
        return column.clone();
    }
    arrow::compute::cast(column, &wanted).expect("an encoding of a type always casts to the type itself")
}

/// The column with one zero and one NaN, at any depth: SQL takes them for equal, Arrow's row format does not.
pub fn canonical_floats(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float64 => {
            let array: Float64Array =
                column.as_primitive::<Float64Type>().unary(|value: f64| f64::from_word(value.word()));
            Arc::new(array)
        }
        DataType::Float32 => {
            let array: Float32Array =
                column.as_primitive::<Float32Type>().unary(|value: f32| f32::from_word(value.word()));
            Arc::new(array)
        }
        DataType::List(field) if field.data_type().is_nested() || field.data_type().is_floating() => {
            let list = column.as_list::<i32>();
            let values = canonical_floats(list.values());
            Arc::new(ListArray::new(field.clone(), list.offsets().clone(), values, list.nulls().cloned()))
        }
        DataType::Struct(fields) => {
            let row = column.as_struct();
            let columns = row.columns().iter().map(canonical_floats).collect();
            Arc::new(StructArray::new(fields.clone(), columns, row.nulls().cloned()))
        }
        _ => column.clone(),
    }
}
