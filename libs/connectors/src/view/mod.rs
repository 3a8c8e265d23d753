//! `view`: rows that can be asked while the job runs and after it. And their snapshots as a bounded source, for queries over views.
//!
//! Writers hand every epoch's rows to the committer, which folds them (`views::ViewTable`) and shows the epoch to whoever reads from the
//! [`ViewHost`]. What it has folded goes into the checkpoints of the run ([`kept`]). A bounded run shows its last epoch only. The last epoch of a run is on the disk before its commit is acknowledged.

mod host;
mod kept;
mod sink;
mod source;

use engine::RunError;
use graph::connector::ViewOptions;
use views::{Fault, Retention, ViewDefinition, ViewError, ViewTable};

pub use host::ViewHost;
pub use sink::ViewSink;
pub use source::SnapshotSource;

/// The view of a sink with these columns.
pub fn definition(
    node: &graph::Sink,
    options: &ViewOptions,
    columns: &graph::Schema,
) -> Result<ViewDefinition, RunError> {
    let default = Retention::default();
    let retention = Retention {
        rows: options.retention_rows.unwrap_or(default.rows),
        age_us: options.retention_age.map(|age| age.us),
    };
    let name = options.name.clone().unwrap_or_else(|| node.table.clone());
    let (columns, key) = (columns.clone(), node.primary_key.clone());
    Ok(ViewDefinition { name, columns, key, retention, max_bytes: options.max_bytes })
}

/// Whether it can be kept.
pub fn checked(definition: ViewDefinition) -> Result<(), RunError> {
    ViewTable::new(definition).map(drop).map_err(run_error)
}

pub fn no_host(table: &str) -> RunError {
    let message = format!("nobody can ask the view {table}: this run has no server");
    let hint = "submit the job to `highwater serve`; `highwater run` writes files, or prints";
    RunError::user("views_not_served", message).hint(hint)
}

fn run_error(error: ViewError) -> RunError {
    let (code, message) = (error.code(), error.to_string());
    let failed = match error.fault() {
        Fault::User => RunError::user(code, message),
        Fault::External => RunError::external(code, message),
        Fault::Internal => RunError::internal(message),
    };
    match error.hint() {
        Some(hint) => failed.hint(hint),
        None => failed,
    }
}

#[cfg(test)]
mod tests;
