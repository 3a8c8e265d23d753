//! What can go wrong with files, and the codes that programs match on.

use engine::{Fault, RunError};

/// A failure of reading or writing files. `shown` fields are locations as people write them: `data/a.parquet`, `s3://bucket/key`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot use {shown}: it is outside of the allowed directories {roots}")]
    LocationNotAllowed { shown: String, roots: String },
    #[error("cannot use {shown} as a location: {reason}")]
    LocationInvalid { shown: String, reason: String },
    #[error("found no input at {shown}: {looked_for}")]
    InputNotFound { shown: String, looked_for: String },
    #[error("cannot read {file}{place}: {reason}")]
    InputFileInvalid { file: String, place: String, reason: String },
    #[error("{file} has changed since the run began: it was {before}, it is {after}")]
    InputChanged { file: String, before: String, after: String },
    #[error("{file} does not fit the table: {reason}")]
    InputSchemaMismatch { file: String, reason: String },
    #[error("column {column} is declared NOT NULL, but row {row} of {file} is NULL")]
    InputNull { file: String, column: String, row: u64 },
    #[error("row {row} of {file} has a value in column {column} that does not fit {data_type}: {reason}")]
    InputOutOfRange { file: String, column: String, row: u64, data_type: String, reason: String },
    #[error("cannot use option {option}: {reason}")]
    Option { option: String, reason: String },
    #[error("{action} {shown} was refused: {reason}")]
    AccessDenied { action: &'static str, shown: String, reason: String },
    #[error("{action} {shown} is not allowed here: no address of its server is one to connect to")]
    EndpointNotAllowed { action: &'static str, shown: String },
    #[error("{action} {shown} failed: {reason}")]
    Unreachable { action: &'static str, shown: String, reason: String },
    #[error("cannot write to {shown}: it holds files that are not ours, such as {file}")]
    OutputExists { shown: String, file: String },
    #[error("cannot write {shown}: {reason}")]
    OutputFailed { shown: String, reason: String },
    #[error("cannot write rows to {shown}: {reason}")]
    OutputRefused { shown: String, reason: String },
}

/// A test wants a step to fail.
impl From<faults::Injected> for FileError {
    fn from(injected: faults::Injected) -> FileError {
        FileError::OutputFailed { shown: "files".into(), reason: injected.to_string() }
    }
}

impl From<FileError> for RunError {
    fn from(error: FileError) -> RunError {
        use FileError::*;
        let (fault, code, hint) = match &error {
            LocationNotAllowed { .. } => {
                (Fault::User, "location_not_allowed", Some("allow it with --allow-root DIR or HIGHWATER_ALLOWED_ROOTS"))
            }
            LocationInvalid { .. } => (Fault::User, "location_invalid", None),
            InputNotFound { .. } => (Fault::User, "input_not_found", None),
            InputFileInvalid { .. } => (Fault::User, "input_file_invalid", None),
            InputChanged { .. } => (
                Fault::User,
                "input_changed",
                Some("files must stay as they are while they are read; start the run again"),
            ),
            InputSchemaMismatch { .. } => (Fault::User, "input_schema_mismatch", None),
            InputNull { .. } => (Fault::User, "input_null", Some("declare the column without NOT NULL")),
            InputOutOfRange { .. } => (Fault::User, "input_out_of_range", Some("declare a wider type")),
            Option { .. } => (Fault::User, "invalid_option", None),
            AccessDenied { .. } => {
                (Fault::User, "access_denied", Some("check permissions, or the credentials of the table"))
            }
            EndpointNotAllowed { .. } => {
                (Fault::User, "endpoint_not_allowed", Some("ask the operator to allow it: --allow-endpoint HOST:PORT"))
            }
            Unreachable { .. } => (Fault::External, "storage_unreachable", None),
            OutputExists { .. } => {
                (Fault::User, "output_exists", Some("write to a new directory, or remove the files"))
            }
            OutputFailed { .. } => (Fault::External, "output_failed", None),
            OutputRefused { .. } => (Fault::User, "output_refused", None),
        };
        RunError { fault, hint: hint.map(str::to_string), ..RunError::user(code, error.to_string()) }
    }
}

pub type Result<T, E = FileError> = std::result::Result<T, E>;
