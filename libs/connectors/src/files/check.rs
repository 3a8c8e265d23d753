//! What is wrong with tables of files before anything is opened: where they are, and what the format of a sink takes.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use graph::FilesystemOptions;

use super::encode::Encoder;
use super::error::{FileError, Result};
use super::reach::Reach;
use super::store::Location;

/// Looks at the directory of a pattern, which opening a source leaves to its listing.
///
/// # Errors
/// The location is not allowed.
pub fn check_source(options: &FilesystemOptions, reach: &Reach) -> Result<()> {
    let Location { store, path } = Location::open(options, reach)?;
    let Some((directory, _)) = path.find(['*', '?', '[']).and_then(|pattern| path[..pattern].rsplit_once('/')) else {
        return Ok(());
    };
    // A name that exists is no pattern.
    if store.local(&path).is_ok_and(|local| local.is_some_and(|local| local.exists())) {
        return Ok(());
    }
    store.local(if directory.is_empty() { "/" } else { directory }).map(drop)
}

/// What a sink's path may be.
///
/// # Errors
/// It is not allowed, is a pattern, or is there and no directory.
pub fn check_path(location: &Location) -> Result<()> {
    let Location { store, path } = location;
    if let Some(sign) = path.chars().find(|sign| ['*', '?', '['].contains(sign)) {
        let reason = format!("{sign} makes a path a pattern when it is read; a sink's path names one directory");
        return Err(FileError::LocationInvalid { shown: location.shown(), reason });
    }
    if store.local(path)?.and_then(|local| local.metadata().ok()).is_some_and(|meta| !meta.is_dir()) {
        let reason = "it is a file, or a device; a sink's path is a directory".to_string();
        return Err(FileError::OutputRefused { shown: location.shown(), reason });
    }
    Ok(())
}

/// Which columns of a sink name directories, and which are in its files.
pub struct Division {
    pub partition_columns: Vec<usize>,
    pub file_columns: Vec<usize>,
    pub file_schema: SchemaRef,
}

/// # Errors
/// A partition column is not there or is nested, no column is left for the files, or the format does not take one.
pub fn divided(
    location: &Location,
    node: &graph::Sink,
    options: &FilesystemOptions,
    schema: &SchemaRef,
) -> Result<Division> {
    let refused = |reason: String| FileError::OutputRefused { shown: location.shown(), reason };
    let partition_columns = node.partition_by.iter().map(|name| {
        let column = schema.index_of(name);
        column.map_err(|_| refused(format!("there is no column {name} to put files into directories by")))
    });
    let partition_columns: Vec<usize> = partition_columns.collect::<Result<_>>()?;
    if let Some(nested) = partition_columns.iter().find(|at| schema.field(**at).data_type().is_nested()) {
        return Err(refused(format!("column {} is nested and cannot name directories", schema.field(*nested).name())));
    }
    let file_columns: Vec<usize> = (0..schema.fields().len()).filter(|at| !partition_columns.contains(at)).collect();
    if file_columns.is_empty() {
        return Err(refused("all columns are partition columns; files need at least one of their own".into()));
    }
    let file_schema: SchemaRef = Arc::new(schema.project(&file_columns).expect("the columns are those of the schema"));
    Encoder::begin(options, &file_schema).map_err(refused)?;
    Ok(Division { partition_columns, file_columns, file_schema })
}

/// # Errors
/// The location is not allowed, is a pattern or a file, or its directories or the format do not take a column.
pub fn check_sink(node: &graph::Sink, options: &FilesystemOptions, schema: &SchemaRef, reach: &Reach) -> Result<()> {
    let location = Location::open(options, reach)?;
    check_path(&location)?;
    divided(&location, node, options, schema).map(drop)
}
