//! What is wrong with tables of files before anything is opened: where they are, and what the format of a sink takes.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use graph::FilesystemOptions;

use super::encode::Encoder;
use super::error::{FileError, Result};
use super::store::{AllowedRoots, Location};

/// Looks at the directory of a pattern, which opening a source leaves to its listing.
///
/// # Errors
/// The location is not allowed.
pub fn check_source(options: &FilesystemOptions, roots: &AllowedRoots) -> Result<()> {
    let Location { store, path } = Location::open(options, roots)?;
    let Some((directory, _)) = path.find(['*', '?', '[']).and_then(|pattern| path[..pattern].rsplit_once('/')) else {
        return Ok(());
    };
    // A name that exists is no pattern.
    if store.local(&path).is_ok_and(|local| local.is_some_and(|local| local.exists())) {
        return Ok(());
    }
    store.local(if directory.is_empty() { "/" } else { directory }).map(drop)
}

/// # Errors
/// The location is not allowed or is a file, or its directories or the format do not take a column.
pub fn check_sink(
    node: &graph::Sink,
    options: &FilesystemOptions,
    schema: &SchemaRef,
    roots: &AllowedRoots,
) -> Result<()> {
    let location = Location::open(options, roots)?;
    let refused = |reason: String| FileError::OutputRefused { shown: location.shown(), reason };
    if location.store.local(&location.path)?.is_some_and(|local| local.is_file()) {
        return Err(refused("it is a file; a sink's path is a directory".into()));
    }
    let (directories, files): (Vec<_>, Vec<_>) =
        schema.fields().iter().cloned().partition(|field| node.partition_by.contains(field.name()));
    if let Some(nested) = directories.iter().find(|field| field.data_type().is_nested()) {
        return Err(refused(format!("column {} is nested and cannot name directories", nested.name())));
    }
    if files.is_empty() {
        return Err(refused("all columns are partition columns; files need at least one of their own".into()));
    }
    Encoder::begin(options, &Arc::new(arrow::datatypes::Schema::new(files))).map(drop).map_err(refused)
}
