//! The rows of views: folded from changes, asked by queries, kept in files.
//!
//! A [`ViewTable`] folds the changes of one epoch after another, for one owner. A [`ViewSnapshot`] is what it holds after an epoch:
//! immutable, cheap to take, asked with a [`Query`]. [`LiveView`] hands the newest one from the owner to any number of readers, who never
//! wait for each other. [`ViewFiles`] keeps a snapshot so that it outlives its run; [`Form`] turns answers into JSON, CSV or Arrow.
//! This crate knows nothing of the engine, connectors or HTTP: row kinds are plain codes, times are plain microseconds.

mod answer;
mod append;
mod chunk;
mod definition;
mod error;
mod files;
mod keyed;
mod query;
mod snapshot;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use answer::{Encoded, Form};
pub use definition::{
    DEFAULT_MAX_BYTES, DEFAULT_RETENTION_ROWS, NAME_CHARACTERS_MAX, Retention, ViewDefinition, check_name,
};
pub use error::{Fault, ViewError};
pub use files::{DataFile, Manifest, PublishedBy, StoredView, ViewFiles};
pub use query::{Answer, DEFAULT_LIMIT, FILTER_BYTES_MAX, LIMIT_MAX, OFFSET_MAX, OrderBy, Query};
pub use snapshot::{LiveView, ViewSnapshot};
pub use table::{Changes, ViewTable};
