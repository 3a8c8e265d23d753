//! What an error of a database means to who asked.

use std::time::Duration;

use sqlx::migrate::MigrateError;

use crate::store::MetadataError;

/// The cause of `Unavailable` when the database has no room left, at its end; all other causes are for the log.
pub const DISK_FULL: &str = "the disk of the database is full";

pub(crate) fn unusable(cause: impl Into<String>) -> MetadataError {
    MetadataError::Unusable(cause.into())
}

pub(crate) fn unavailable(cause: impl Into<String>) -> MetadataError {
    MetadataError::Unavailable { cause: cause.into(), ambiguous: false }
}

pub(crate) fn gave_up(limit: Duration) -> MetadataError {
    unavailable(format!("the database did not answer within {} ms", limit.as_millis()))
}

/// A test wants a statement to fail, or the answer to a commit to be lost.
impl From<faults::Injected> for MetadataError {
    fn from(injected: faults::Injected) -> MetadataError {
        MetadataError::Unavailable { ambiguous: injected.lost, cause: injected.to_string() }
    }
}

/// Before a commit nothing is ambiguous: what was not committed did not happen. Never says more than the database did: no URL, no path.
pub(crate) fn translate(error: sqlx::Error) -> MetadataError {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default().into_owned();
            let message = error.message().to_owned();
            let (temporary, full) = match error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                Some(_) => (temporary_in_postgres(&code), code == "53100"),
                None => (temporary_in_sqlite(&code), primary(&code) == Some(13)),
            };
            if full {
                unavailable(DISK_FULL)
            } else if temporary {
                unavailable(message)
            } else {
                unusable(format!("{message} ({code})"))
            }
        }
        sqlx::Error::Io(error) => unavailable(format!("connection to the database: {error}")),
        sqlx::Error::PoolTimedOut => unavailable("no connection to the database in time"),
        sqlx::Error::PoolClosed => unavailable("the store is closed"),
        sqlx::Error::WorkerCrashed => unavailable("the thread of the database ended"),
        sqlx::Error::Protocol(_) => unavailable("the connection to the database was lost in the middle of an answer"),
        sqlx::Error::Tls(error) => unavailable(format!("TLS connection to the database: {error}")),
        // Its text may hold parts of the URL.
        sqlx::Error::Configuration(_) => unusable("the address of the database is not understood"),
        sqlx::Error::Migrate(error) => migration(*error),
        other => unusable(other.to_string()),
    }
}

pub(crate) fn migration(error: MigrateError) -> MetadataError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => translate(error),
        MigrateError::VersionMissing(version) => unusable(format!(
            "its schema has step {version}, which this program does not know: it was written by a newer one; use that"
        )),
        MigrateError::VersionMismatch(version) => unusable(format!(
            "step {version} of its schema is not the one of this program: use the program that made it"
        )),
        other => unusable(other.to_string()),
    }
}

/// By class of SQLSTATE (Appendix A of the PostgreSQL manual).
fn temporary_in_postgres(code: &str) -> bool {
    // 08 connection, 40 rolled back for another, 53 resources, 55P03 lock timeout, 57 operator intervention, 58 system.
    matches!(code.get(..2), Some("08" | "40" | "53" | "57" | "58"))
        || matches!(code, "55P03" | "25006" | "25P03" | "25P04")
}

/// The primary result code (sqlite.org/rescode.html): the low byte.
fn primary(code: &str) -> Option<i64> {
    code.parse::<i64>().ok().map(|code| code & 0xff)
}

fn temporary_in_sqlite(code: &str) -> bool {
    // BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN.
    matches!(primary(code), Some(5 | 6 | 7 | 8 | 9 | 10 | 13 | 14))
}

/// Whether a failed COMMIT may yet be found done after a crash: its pages may have reached the log.
pub(crate) fn unknown_in_sqlite(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error.code().is_some_and(|code| primary(&code) == Some(10)),
        _ => true,
    }
}
