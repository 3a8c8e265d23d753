//! The audit log: numbered without a gap, chained by hashes.
//!
//! The hash of a line is the sha256 over the hash of the line before (empty for the first) and the fields, each as its length (8 bytes,
//! little-endian) and its bytes; numbers and times (microseconds since 1970) are 8 bytes, little-endian; the detail is its JSON text as it is
//! stored. Others compute it too (docs/service.md, "Checking the audit log"): it never changes. So a line that was changed, removed or
//! put between shows, unless all later lines were computed anew; keep a hash elsewhere to notice that, too.

use chrono::DurationRound;
use sha2::{Digest, Sha256};

use crate::error::unusable;
use crate::records::{AuditEntry, Change};
use crate::session::{Row, Session, arguments, storable};
use crate::store::Result;

/// Number and hash of the last line; `(0, "")` if there is none. Holds the end of the chain until the transaction ends, and with it all
/// other changes back: SQLite has one writer anyway.
pub(crate) async fn take_turn(session: &mut Session) -> Result<(i64, String)> {
    let sql = session.pick(
        "SELECT sequence, hash FROM audit_head WHERE only_row = 1",
        "SELECT sequence, hash FROM audit_head WHERE only_row = 1 FOR UPDATE",
    );
    head_of(session.row(sql, vec![]).await?)
}

pub(crate) async fn head(session: &mut Session) -> Result<(i64, String)> {
    head_of(session.row("SELECT sequence, hash FROM audit_head WHERE only_row = 1", vec![]).await?)
}

fn head_of(row: Option<Row>) -> Result<(i64, String)> {
    let row = row.ok_or_else(|| unusable("the end of its audit log is missing"))?;
    Ok((row.integer("sequence")?, row.text("hash")?))
}

/// Adds a line after `head`, what [`take_turn`] gave in this transaction.
pub(crate) async fn append(session: &mut Session, head: (i64, String), change: &Change, outcome: &str) -> Result<()> {
    let (sequence, previous) = head;
    let mut entry = AuditEntry {
        sequence: sequence + 1,
        at: change.at.duration_trunc(chrono::Duration::microseconds(1)).unwrap_or(change.at),
        principal: storable(&change.principal).into_owned(),
        request_id: storable(&change.request_id).into_owned(),
        action: storable(&change.action).into_owned(),
        object: storable(&change.object).into_owned(),
        outcome: outcome.to_owned(),
        detail: change.detail.clone(),
        hash: String::new(),
    };
    entry.hash = entry_hash(&previous, &entry);
    session
        .execute(
            "INSERT INTO audit_entry (sequence, at, principal, request_id, action, object, outcome, detail, hash)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            arguments![
                entry.sequence,
                entry.at,
                &entry.principal,
                &entry.request_id,
                &entry.action,
                &entry.object,
                &entry.outcome,
                &entry.detail,
                &entry.hash
            ],
        )
        .await?;
    session
        .execute(
            "UPDATE audit_head SET sequence = $1, hash = $2 WHERE only_row = 1",
            arguments![entry.sequence, entry.hash],
        )
        .await?;
    Ok(())
}

pub(crate) async fn log(session: &mut Session, after: i64, limit: i64) -> Result<Vec<AuditEntry>> {
    let sql = "SELECT sequence, at, principal, request_id, action, object, outcome, detail, hash
         FROM audit_entry WHERE sequence > $1 ORDER BY sequence LIMIT $2";
    let rows = session.rows(sql, arguments![after, limit]).await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &Row) -> Result<AuditEntry> {
    Ok(AuditEntry {
        sequence: row.integer("sequence")?,
        at: row.time("at")?,
        principal: row.text("principal")?,
        request_id: row.text("request_id")?,
        action: row.text("action")?,
        object: row.text("object")?,
        outcome: row.text("outcome")?,
        detail: row.json("detail")?,
        hash: row.text("hash")?,
    })
}

/// The hash that `entry` must have after a line with the hash `previous`.
fn entry_hash(previous: &str, entry: &AuditEntry) -> String {
    let mut hasher = Sha256::new();
    let mut field = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(previous.as_bytes());
    field(&entry.sequence.to_le_bytes());
    field(&entry.at.timestamp_micros().to_le_bytes());
    for text in [&entry.principal, &entry.request_id, &entry.action, &entry.object, &entry.outcome] {
        field(text.as_bytes());
    }
    field(crate::session::json(&entry.detail).as_bytes());
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `entries` follow, without a gap or a change, a line with number and hash `before` (`(0, "")`: they begin the log). Returns number
/// and hash of the last line, for the next page and at the end for comparing with [`audit_head`](crate::MetadataStore::audit_head);
/// or the number of the first line that is missing or was changed.
pub fn verify_audit(before: (i64, String), entries: &[AuditEntry]) -> std::result::Result<(i64, String), i64> {
    let (mut sequence, mut hash) = before;
    for entry in entries {
        sequence += 1;
        if entry.sequence != sequence || entry.hash != entry_hash(&hash, entry) {
            return Err(sequence);
        }
        hash.clone_from(&entry.hash);
    }
    Ok((sequence, hash))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use chrono::DateTime;
    use serde_json::json;

    use super::*;

    /// By the program in docs/service.md: what others compute stays what is computed here.
    #[test]
    fn the_hash_of_a_line_is_what_the_documents_say() {
        let line = |sequence, micros, object: &str, detail| AuditEntry {
            sequence,
            at: DateTime::from_timestamp_micros(micros).unwrap(),
            principal: "key_01".into(),
            request_id: "req_ü".into(),
            action: "job.create".into(),
            object: object.into(),
            outcome: "done".into(),
            detail,
            hash: String::new(),
        };
        let first = line(1, 1_700_000_000_123_456, "job_1", json!({"name": "Gebot \"ä\"\n", "b": [1, null], "a": 0.3}));
        let first_hash = entry_hash("", &first);
        assert_eq!(first_hash, "ae70890142d24f453ca3e214437517cbe49d063a41cc28b31f482e0f9ce6d3aa");
        let second = line(2, 1_700_000_001_000_000, "", json!({}));
        let second_hash = entry_hash(&first_hash, &second);
        assert_eq!(second_hash, "3e6542cc27d0731cb6084c42790db2b009d5fc1d4ce2a337436f8006fbc68e2b");
        let log = [AuditEntry { hash: first_hash, ..first }, AuditEntry { hash: second_hash.clone(), ..second }];
        assert_eq!(verify_audit((0, String::new()), &log), Ok((2, second_hash)));
        // Numbers count by themselves: what was removed shows although the hashes of the rest were computed anew.
        let rest = AuditEntry { hash: entry_hash("", &log[1]), ..log[1].clone() };
        assert_eq!(verify_audit((0, String::new()), &[rest]), Err(1));
    }
}
