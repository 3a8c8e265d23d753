//! Work that outlives the request that asked for it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::records::Operation;
use crate::session::{Row, Session, arguments};
use crate::store::{MetadataError, Result};

pub(crate) async fn create(session: &mut Session, operation: &Operation) -> Result<()> {
    session
        .execute(
            "INSERT INTO operation (operation_id, kind, subject, state, progress, result, failure, created_at, ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            arguments![
                operation.operation_id,
                &operation.kind,
                &operation.subject,
                &operation.state,
                &operation.progress,
                &operation.result,
                &operation.failure,
                operation.created_at,
                operation.ended_at
            ],
        )
        .await?;
    Ok(())
}

pub(crate) async fn of_id(session: &mut Session, operation_id: Uuid) -> Result<Operation> {
    let sql = "SELECT operation_id, kind, subject, state, progress, result, failure, created_at, ended_at
         FROM operation WHERE operation_id = $1";
    match session.row(sql, arguments![operation_id]).await? {
        Some(row) => operation(&row),
        None => Err(MetadataError::NotFound { kind: "operation", name: operation_id.to_string() }),
    }
}

/// Oldest first.
pub(crate) async fn running(session: &mut Session) -> Result<Vec<Operation>> {
    let sql = "SELECT operation_id, kind, subject, state, progress, result, failure, created_at, ended_at
         FROM operation WHERE ended_at IS NULL ORDER BY operation_id";
    session.rows(sql, vec![]).await?.iter().map(operation).collect()
}

/// Changes an operation that is running.
pub(crate) async fn update(session: &mut Session, operation: &Operation) -> Result<()> {
    let changed = session
        .execute(
            "UPDATE operation SET state = $2, progress = $3, result = $4, failure = $5, ended_at = $6
             WHERE operation_id = $1 AND ended_at IS NULL",
            arguments![
                operation.operation_id,
                &operation.state,
                &operation.progress,
                &operation.result,
                &operation.failure,
                operation.ended_at
            ],
        )
        .await?;
    if changed == 0 {
        // One that has ended stays as it is; one that never was is an error.
        of_id(session, operation.operation_id).await?;
    }
    Ok(())
}

pub(crate) async fn forget(session: &mut Session, before: DateTime<Utc>) -> Result<()> {
    session.execute("DELETE FROM operation WHERE ended_at < $1", arguments![before]).await?;
    Ok(())
}

fn operation(row: &Row) -> Result<Operation> {
    Ok(Operation {
        operation_id: row.uuid("operation_id")?,
        kind: row.text("kind")?,
        subject: row.text("subject")?,
        state: row.text("state")?,
        progress: row.json("progress")?,
        result: row.optional_json("result")?,
        failure: row.optional_json("failure")?,
        created_at: row.time("created_at")?,
        ended_at: row.optional_time("ended_at")?,
    })
}
