//! Why a run failed: what was attempted, on what, why not, and who must act.

use serde::{Deserialize, Serialize};

/// Who can do something about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The query, the options or the data: the user must change something.
    User,
    /// Another system did not answer or refused; trying again may help.
    External,
    /// A bug of ours.
    Internal,
}

/// The cause of a run's end. Serialisable, because it crosses processes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct RunError {
    pub fault: Fault,
    /// Stable, snake_case; what programs match on.
    pub code: String,
    /// Lower case; one sentence, with names and positions.
    pub message: String,
    /// What to do instead.
    pub hint: Option<String>,
    /// The operator, source or sink that failed.
    pub operator: Option<String>,
}

impl RunError {
    pub fn user(code: &str, message: impl Into<String>) -> RunError {
        RunError { fault: Fault::User, code: code.into(), message: message.into(), hint: None, operator: None }
    }

    pub fn external(code: &str, message: impl Into<String>) -> RunError {
        RunError { fault: Fault::External, ..RunError::user(code, message) }
    }

    pub fn internal(message: impl Into<String>) -> RunError {
        RunError { fault: Fault::Internal, ..RunError::user("internal", message) }
    }

    /// Whether the same may go well later, with nothing changed. What is lost stays lost.
    pub fn is_retryable(&self) -> bool {
        self.fault == Fault::External && !matches!(self.code.as_str(), "data_loss_detected" | "checkpoint_corrupt")
    }

    pub fn hint(mut self, hint: impl Into<String>) -> RunError {
        self.hint = Some(hint.into());
        self
    }

    /// Names the operator, unless one nearer to the cause did.
    pub fn operator(mut self, operator: &str) -> RunError {
        self.operator.get_or_insert_with(|| operator.to_string());
        self
    }
}

pub type Result<T, E = RunError> = std::result::Result<T, E>;

impl From<state::SnapshotError> for RunError {
    fn from(error: state::SnapshotError) -> RunError {
        RunError::internal(format!("a snapshot could not be made or read: {error}"))
    }
}

impl From<arrow::error::ArrowError> for RunError {
    fn from(error: arrow::error::ArrowError) -> RunError {
        RunError::internal(format!("a batch could not be built: {error}"))
    }
}
