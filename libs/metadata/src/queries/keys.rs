//! Keys to the API.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::records::ApiKey;
use crate::session::{Row, Session, arguments};
use crate::store::{MetadataError, Result};

pub(crate) async fn create(session: &mut Session, key: &ApiKey) -> Result<()> {
    let owner =
        session.row("SELECT key_id FROM api_key WHERE name = $1 AND revoked_at IS NULL", arguments![&key.name]).await?;
    if let Some(row) = owner {
        return Err(MetadataError::Exists { kind: "key", name: key.name.clone(), id: row.uuid("key_id")? });
    }
    session
        .execute(
            "INSERT INTO api_key (key_id, name, role, hash, created_at, expires_at, revoked_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            arguments![key.key_id, &key.name, &key.role, &key.hash, key.created_at, key.expires_at, key.revoked_at],
        )
        .await?;
    Ok(())
}

pub(crate) async fn list(session: &mut Session) -> Result<Vec<ApiKey>> {
    let sql = "SELECT key_id, name, role, hash, created_at, expires_at, revoked_at FROM api_key ORDER BY key_id DESC";
    session.rows(sql, vec![]).await?.iter().map(key).collect()
}

/// The key, and whether it was revoked now; one that was revoked before stays as it is.
pub(crate) async fn revoke(session: &mut Session, key_id: Uuid, at: DateTime<Utc>) -> Result<(ApiKey, bool)> {
    let changed = session
        .execute("UPDATE api_key SET revoked_at = $2 WHERE key_id = $1 AND revoked_at IS NULL", arguments![key_id, at])
        .await?;
    let sql = "SELECT key_id, name, role, hash, created_at, expires_at, revoked_at FROM api_key WHERE key_id = $1";
    match session.row(sql, arguments![key_id]).await? {
        Some(row) => Ok((key(&row)?, changed == 1)),
        None => Err(MetadataError::NotFound { kind: "key", name: key_id.to_string() }),
    }
}

fn key(row: &Row) -> Result<ApiKey> {
    Ok(ApiKey {
        key_id: row.uuid("key_id")?,
        name: row.text("name")?,
        role: row.text("role")?,
        hash: row.bytes("hash")?,
        created_at: row.time("created_at")?,
        expires_at: row.optional_time("expires_at")?,
        revoked_at: row.optional_time("revoked_at")?,
    })
}
