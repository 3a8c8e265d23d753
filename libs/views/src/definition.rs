//! What a view is: its name, its columns, and how its rows are kept.

use graph::Schema;
use serde::{Deserialize, Serialize};

use crate::error::ViewError;

/// A view as its table declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewDefinition {
    /// Passes [`check_name`].
    pub name: String,
    pub columns: Schema,
    /// The columns that tell rows apart: a later row of the same key replaces the earlier one. Empty: rows are only added.
    pub key: Vec<String>,
    pub retention: Retention,
    /// A run fails that would hold more in memory. See [`DEFAULT_MAX_BYTES`].
    pub max_bytes: u64,
}

/// How long rows stay that no key replaces; the oldest go first. Views with a key keep all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// Rows that stay, at most. See [`DEFAULT_RETENTION_ROWS`].
    pub rows: u64,
    /// Rows go that arrived longer ago than this, by the clock of whoever folds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_us: Option<i64>,
}

/// Default of [`Retention::rows`].
pub const DEFAULT_RETENTION_ROWS: u64 = graph::connector::ViewOptions::RETENTION_ROWS;
/// Default of [`ViewDefinition::max_bytes`]: 256 MiB.
pub const DEFAULT_MAX_BYTES: u64 = 256 << 20;
/// Longer names are refused.
pub const NAME_CHARACTERS_MAX: usize = 128;

impl Default for Retention {
    fn default() -> Retention {
        Retention { rows: DEFAULT_RETENTION_ROWS, age_us: None }
    }
}

impl ViewDefinition {
    /// With the default retention and limit.
    pub fn new(name: impl Into<String>, columns: Schema, key: Vec<String>) -> ViewDefinition {
        let name = name.into();
        ViewDefinition { name, columns, key, retention: Retention::default(), max_bytes: DEFAULT_MAX_BYTES }
    }

    pub fn is_keyed(&self) -> bool {
        !self.key.is_empty()
    }
}

/// See [`graph::connector::is_view_name`].
pub fn check_name(name: &str) -> Result<(), ViewError> {
    match graph::connector::is_view_name(name) {
        true => Ok(()),
        false => Err(ViewError::Name { name: name.chars().take(NAME_CHARACTERS_MAX).collect() }),
    }
}
