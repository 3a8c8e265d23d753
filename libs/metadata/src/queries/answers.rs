//! Answers that were given to requests with an idempotency key.

use chrono::{DateTime, Utc};

use crate::records::{Change, StoredAnswer};
use crate::session::{Row, Session, arguments, json};
use crate::store::{MetadataError, Result};

/// Stores the answer that a change brings, unless there is one for this key: then nothing else of the change may happen. First in its
/// transaction: a second request with the key waits here for the fate of the first.
pub(crate) async fn claim(session: &mut Session, change: &Change) -> Result<()> {
    let Some(idempotency) = &change.idempotency else { return Ok(()) };
    let answer = &idempotency.answer;
    let stored = session
        .execute(
            "INSERT INTO answer (principal, request, key, body_hash, status, headers, body, answered_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
            arguments![
                &change.principal,
                &idempotency.request,
                &idempotency.key,
                &answer.body_hash,
                i64::from(answer.status),
                json(&answer.headers),
                &answer.body,
                change.at
            ],
        )
        .await?;
    if stored == 1 {
        return Ok(());
    }
    match find(session, &change.principal, &idempotency.request, &idempotency.key).await? {
        Some(answer) => Err(MetadataError::Answered(Box::new(answer))),
        None => Err(crate::error::unavailable("the answer to this key was removed at this moment")),
    }
}

pub(crate) async fn find(
    session: &mut Session,
    principal: &str,
    request: &str,
    key: &str,
) -> Result<Option<StoredAnswer>> {
    let row = session
        .row(
            "SELECT body_hash, status, headers, body FROM answer WHERE principal = $1 AND request = $2 AND key = $3",
            arguments![principal, request, key],
        )
        .await?;
    row.as_ref().map(answer).transpose()
}

pub(crate) async fn forget(session: &mut Session, before: DateTime<Utc>) -> Result<()> {
    session.execute("DELETE FROM answer WHERE answered_at < $1", arguments![before]).await?;
    Ok(())
}

fn answer(row: &Row) -> Result<StoredAnswer> {
    Ok(StoredAnswer {
        body_hash: row.bytes("body_hash")?,
        status: u16::try_from(row.integer("status")?).expect("a constraint of the table keeps it below 600"),
        headers: row.json("headers")?,
        body: row.bytes("body")?,
    })
}
