//! What can go wrong with a view, and who can do something about it.

use std::io;
use std::path::{Path, PathBuf};

use arrow::error::ArrowError;

use crate::query::{FILTER_BYTES_MAX, LIMIT_MAX, OFFSET_MAX};

/// Who can do something about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The query or the definition: the user must change something.
    User,
    /// The disk did not do what was asked, or others were faster: ask again.
    External,
    /// What was kept is damaged, or a bug of ours.
    Internal,
}

/// A view that cannot be folded, asked or kept.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    #[error("a view cannot be called {name:?}")]
    Name { name: String },
    #[error("view {view}: the key column {column} {reason}")]
    Key { view: String, column: String, reason: String },
    #[error("view {view} has no column {column}")]
    UnknownColumn { view: String, column: String, hint: String },
    #[error("view {view} has no order by {column}: it is a {data_type}")]
    NoOrder { view: String, column: String, data_type: String },
    #[error("the limit {0} is above {LIMIT_MAX}")]
    Limit(u64),
    #[error("the offset {0} is above {OFFSET_MAX}")]
    Offset(u64),
    #[error("the filter has {0} bytes; it may have {FILTER_BYTES_MAX}")]
    FilterTooLong(usize),
    #[error("the filter is wrong: {}", .0.message)]
    Filter(expr::ExprError),
    #[error("the filter is a {0}, not a condition")]
    FilterType(graph::DataType),
    #[error("the filter fails for a row: {0}")]
    FilterFailed(String),
    #[error("the answer cannot be written as {form}: {source}")]
    Form { form: &'static str, source: formats::FormatError },
    #[error("view {view} has {bytes} bytes, more than its limit of {max}")]
    TooLarge { view: String, bytes: u64, max: u64, is_keyed: bool },
    #[error("view {view} only adds rows, and a row was changed or deleted")]
    NotKeyed { view: String },
    #[error("there is no version {version} of this view any more")]
    Gone { version: u64 },
    #[error("{} is damaged: {reason}", file.display())]
    Damaged { file: PathBuf, reason: String },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("rows of a view could not be computed: {0}")]
    Arrow(#[from] ArrowError),
}

impl ViewError {
    /// Stable, snake_case; what programs match on.
    pub fn code(&self) -> &'static str {
        match self {
            ViewError::Name { .. } => "invalid_view_name",
            ViewError::Key { .. } => "invalid_view_key",
            ViewError::UnknownColumn { .. } => "unknown_column",
            ViewError::NoOrder { .. } => "no_order",
            ViewError::Limit(_) => "limit_out_of_range",
            ViewError::Offset(_) => "offset_out_of_range",
            ViewError::FilterTooLong(_) => "filter_too_long",
            ViewError::Filter(error) => error.code,
            ViewError::FilterType(_) => "type_mismatch",
            ViewError::FilterFailed(_) => "filter_failed",
            ViewError::Form { .. } => "form_not_possible",
            ViewError::TooLarge { .. } => "view_too_large",
            ViewError::NotKeyed { .. } => "view_takes_no_updates",
            ViewError::Gone { .. } => "view_version_gone",
            ViewError::Damaged { .. } => "view_damaged",
            ViewError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "disk_full",
            ViewError::Io { .. } => "storage_failed",
            ViewError::Arrow(_) => "internal",
        }
    }

    pub fn fault(&self) -> Fault {
        match self {
            // Newer versions came faster than it was read: asked again, there is one.
            ViewError::Gone { .. } | ViewError::Io { .. } => Fault::External,
            ViewError::Damaged { .. } | ViewError::Arrow(_) => Fault::Internal,
            _ => Fault::User,
        }
    }

    /// What to do instead.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ViewError::Name { .. } => graph::connector::VIEW_NAMES.into(),
            ViewError::UnknownColumn { hint, .. } => hint.clone(),
            ViewError::NoOrder { .. } => "order by another column".into(),
            ViewError::Limit(_) => "ask for pages, or query the view with SQL".into(),
            ViewError::Offset(_) => "go on with a filter: the last key of a page is below all of the next".into(),
            ViewError::FilterTooLong(_) => "query the view with SQL".into(),
            ViewError::Filter(error) => return error.hint.clone(),
            ViewError::FilterType(_) => "compare something: column = value".into(),
            ViewError::Form { form: "csv", .. } => "ask for JSON or Arrow, or leave the column out".into(),
            ViewError::TooLarge { is_keyed: true, .. } => {
                "choose a key with fewer values, keep fewer columns, or raise 'view.max-bytes'".into()
            }
            ViewError::TooLarge { .. } => {
                "aggregate further, keep fewer rows ('retention.rows'), or raise 'view.max-bytes'".into()
            }
            ViewError::NotKeyed { .. } => "declare PRIMARY KEY (...) NOT ENFORCED".into(),
            ViewError::Gone { .. } => "newer versions came while it was read: ask again".into(),
            ViewError::Damaged { .. } => "run the job again to publish the view anew".into(),
            _ => return None,
        })
    }
}

/// For `map_err`: what was attempted, on which path.
pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ViewError {
    let path = path.to_path_buf();
    move |source| ViewError::Io { doing, path, source }
}
