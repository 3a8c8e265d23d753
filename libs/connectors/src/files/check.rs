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

/// # Errors
/// The location is not allowed, is a pattern or a file, or its directories or the format do not take a column.
pub fn check_sink(
    node: &graph::Sink,
    options: &FilesystemOptions,
    schema: &SchemaRef,
    roots: &AllowedRoots,
) -> Result<()> {
    let location = Location::open(options, roots)?;
    let refused = |reason: String| FileError::OutputRefused { shown: location.shown(), reason };
    check_path(&location)?;
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
