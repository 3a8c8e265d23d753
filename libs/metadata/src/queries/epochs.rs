//! Epochs: their numbers, their decision, and their end.
//!
//! Whatever changes an epoch holds its job first ([`jobs::hold`]), as the moves of runs and the making of runs do: what the guards have
//! compared stays true until the transaction ends. For the term that is so because a transaction that writes holds
//! the row of leadership against a take-over; SQLite has one writer. Who never led has no term: the newest is 0 until somebody leads,
//! and 0 decides nothing, on SQLite too, whose lock keeps other processes out and not an older control plane of this one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use crate::error::unusable;
use crate::queries::{Conditional, jobs, runs};
use crate::records::{Epoch, EpochDecision, EpochFilter, EpochPage, EpochStatement, Run};
use crate::session::{Argument, Row, Session, arguments};
use crate::store::{Fence, MetadataError, Result};

const SELECT: &str =
    "SELECT job_id, epoch, run_id, generation, previous, nonce, state, manifest, manifest_sha256, bytes, total_bytes,
     duration_ms, last, facts, proofs, decided_at, committed_at, retired_at FROM epoch";

pub(crate) async fn reserve(
    session: &mut Session,
    run_id: Uuid,
    generation: i64,
    term: i64,
    count: i64,
) -> Result<i64> {
    assert!(count > 0, "who reserves epochs wants some");
    let job_id = runs::of_id(session, run_id).await?.job_id;
    jobs::hold(session, job_id).await?;
    let reserved = if faults::broken("reuse_epoch") { 0 } else { reserved(session, job_id).await? };
    leads(session, job_id, reserved + 1, term).await?;
    runs_now(session, job_id, run_id, generation).await?;
    session
        .execute("UPDATE job SET reserved_epoch = reserved_epoch + $2 WHERE job_id = $1", arguments![job_id, count])
        .await?;
    Ok(reserved + 1)
}

/// Stores an epoch if every guard holds; one that is there with this nonce is done.
pub(crate) async fn decide(session: &mut Session, decision: &EpochDecision) -> Result<()> {
    let EpochDecision { job_id, epoch, .. } = *decision;
    assert!(decision.reserve >= 0, "numbers are reserved above an epoch");
    jobs::hold(session, job_id).await?;
    let fenced = |found| Err(MetadataError::Fenced { job_id, epoch, found });
    match of_number(session, job_id, epoch).await {
        Ok(there) if there.nonce != decision.nonce && !faults::broken("skip_nonce_guard") => {
            return fenced(Fence::Nonce(there.nonce));
        }
        // Given up: whoever decided it must not think that it stands.
        Ok(there) if there.state == "retired" && there.committed_at.is_none() => return fenced(Fence::Retired),
        Ok(_) => return Ok(()),
        Err(MetadataError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    leads(session, job_id, epoch, decision.term).await?;
    let run = runs_now(session, job_id, decision.run_id, decision.generation).await?;
    let newest = session
        .row("SELECT epoch FROM epoch WHERE job_id = $1 ORDER BY epoch DESC LIMIT 1", arguments![job_id])
        .await?
        .map(|row| row.integer("epoch"))
        .transpose()?;
    if let Some(newest) = newest.filter(|newest| *newest >= epoch) {
        return fenced(Fence::Newest(newest));
    }
    let previous = head(session, &run).await?;
    if previous != decision.previous && !faults::broken("skip_previous_guard") {
        return fenced(Fence::Previous(previous));
    }
    session
        .execute(
            "INSERT INTO epoch (job_id, epoch, run_id, generation, previous, nonce, state, manifest, manifest_sha256,
                                bytes, total_bytes, duration_ms, last, facts, decided_at)
             VALUES ($1, $2, $3, $4, $5, $6, 'decided', $7, $8, $9, $10, $11, $12, $13, $14)",
            arguments![
                job_id,
                epoch,
                decision.run_id,
                decision.generation,
                decision.previous,
                decision.nonce,
                &decision.manifest,
                &decision.manifest_sha256,
                decision.bytes,
                decision.total_bytes,
                decision.duration_ms,
                decision.last,
                &decision.facts,
                decision.at
            ],
        )
        .await?;
    session
        .execute(
            "UPDATE job SET reserved_epoch = $2 WHERE job_id = $1 AND reserved_epoch < $2",
            arguments![job_id, epoch + decision.reserve],
        )
        .await?;
    Ok(())
}

pub(crate) async fn confirm(session: &mut Session, statement: &EpochStatement, proofs: &Value) -> Result<()> {
    let EpochStatement { job_id, epoch, at, .. } = *statement;
    let (_, found) = stated(session, statement).await?;
    match found.state.as_str() {
        "retired" if found.committed_at.is_some() => return Ok(()),
        "retired" => return Err(MetadataError::Fenced { job_id, epoch, found: Fence::Retired }),
        _ => {}
    }
    session
        .execute(
            "UPDATE epoch SET state = 'committed', proofs = $3, committed_at = $4
             WHERE job_id = $1 AND epoch = $2 AND state = 'decided'",
            arguments![job_id, epoch, proofs, at],
        )
        .await?;
    Ok(())
}

/// The run that says something of an epoch, and the epoch, if it is one of its lineage.
async fn stated(session: &mut Session, statement: &EpochStatement) -> Result<(Run, Epoch)> {
    let EpochStatement { job_id, epoch, run_id, generation, term, .. } = *statement;
    jobs::hold(session, job_id).await?;
    leads(session, job_id, epoch, term).await?;
    let run = runs_now(session, job_id, run_id, generation).await?;
    let found = of_number(session, job_id, epoch).await?;
    // Its own, or what it continues. What is below its base and in no lineage of its own is nobody's any more.
    if found.run_id != run.run_id && run.base_epoch.is_none_or(|base| epoch > base) {
        return Err(MetadataError::Fenced { job_id, epoch, found: Fence::Run(found.run_id) });
    }
    Ok((run, found))
}

pub(crate) async fn abandon(session: &mut Session, statement: &EpochStatement) -> Result<()> {
    let EpochStatement { job_id, epoch, run_id, at, .. } = *statement;
    jobs::hold(session, job_id).await?;
    let fenced = |found| Err(MetadataError::Fenced { job_id, epoch, found });
    // What was the run's base is in its lineage no more.
    if of_number(session, job_id, epoch).await?.state == "retired" {
        leads(session, job_id, epoch, statement.term).await?;
        return runs_now(session, job_id, run_id, statement.generation).await.map(|_| ());
    }
    let (run, found) = stated(session, statement).await?;
    let newest = head(session, &run).await?;
    if newest != Some(epoch) {
        return fenced(Fence::Previous(newest));
    }
    if let Some(previous) = found.previous
        && of_number(session, job_id, previous).await?.state == "retired"
    {
        return fenced(Fence::Retired);
    }
    session
        .execute(
            "UPDATE epoch SET state = 'retired', retired_at = $3 WHERE job_id = $1 AND epoch = $2",
            arguments![job_id, epoch, at],
        )
        .await?;
    session
        .execute(
            "UPDATE run SET base_epoch = $3 WHERE run_id = $1 AND base_epoch = $2",
            arguments![run_id, epoch, found.previous],
        )
        .await?;
    Ok(())
}

pub(crate) async fn retire(
    session: &mut Session,
    job_id: Uuid,
    epochs: &[i64],
    term: i64,
    at: DateTime<Utc>,
) -> Result<()> {
    jobs::hold(session, job_id).await?;
    leads(session, job_id, epochs.first().copied().unwrap_or_default(), term).await?;
    let needed = needed(session, job_id).await?;
    for epoch in epochs {
        if of_number(session, job_id, *epoch).await?.state == "retired" {
            continue;
        }
        if let Some(by) = needed.get(epoch).filter(|_| !faults::broken("retire_what_is_needed")) {
            return Err(MetadataError::InUse { kind: "epoch", name: epoch.to_string(), by: by.clone() });
        }
        session
            .execute(
                "UPDATE epoch SET state = 'retired', retired_at = $3 WHERE job_id = $1 AND epoch = $2",
                arguments![job_id, *epoch, at],
            )
            .await?;
    }
    Ok(())
}

/// What must not be retired, and what for.
async fn needed(session: &mut Session, job_id: Uuid) -> Result<BTreeMap<i64, String>> {
    let mut needed = BTreeMap::new();
    let Some(last) = last(session, job_id).await? else { return Ok(needed) };
    // A run that has begun from an epoch and decided none is at this epoch; else the newest epoch is of the newest run that has any.
    let newest = match jobs::of_id(session, job_id).await?.latest_run {
        Some(run_id) => {
            let run = runs::of_id(session, run_id).await?;
            head(session, &run).await?
        }
        None => None,
    };
    let (mut next, mut committed) = (Some(newest.unwrap_or(last.epoch)), 0);
    while let Some(epoch) = next.filter(|_| committed < 2) {
        let epoch = of_number(session, job_id, epoch).await?;
        if epoch.state == "retired" {
            break;
        }
        committed += u8::from(epoch.state == "committed");
        needed.insert(epoch.epoch, "recovery".to_owned());
        next = epoch.previous;
    }
    needed.insert(last.epoch, "recovery".to_owned());
    let savepoints = session
        .rows(
            "SELECT s.epoch, s.name FROM savepoint s WHERE s.job_id = $1 AND s.epoch IS NOT NULL
             AND (s.state = 'running' OR EXISTS (SELECT 1 FROM savepoint_use u WHERE u.savepoint_id = s.savepoint_id))",
            arguments![job_id],
        )
        .await?;
    for row in savepoints {
        needed.insert(row.integer("epoch")?, format!("savepoint '{}'", row.text("name")?));
    }
    Ok(needed)
}

/// Where the lineage of a run is: its newest epoch, or what it continues.
async fn head(session: &mut Session, run: &Run) -> Result<Option<i64>> {
    let sql = "SELECT epoch FROM epoch WHERE run_id = $1 AND state <> 'retired' ORDER BY epoch DESC LIMIT 1";
    match session.row(sql, arguments![run.run_id]).await? {
        Some(row) => row.integer("epoch").map(Some),
        None => Ok(run.base_epoch),
    }
}

async fn reserved(session: &mut Session, job_id: Uuid) -> Result<i64> {
    let row = session.row("SELECT reserved_epoch FROM job WHERE job_id = $1", arguments![job_id]).await?;
    row.expect("the job is held").integer("reserved_epoch")
}

async fn leads(session: &mut Session, job_id: Uuid, epoch: i64, term: i64) -> Result<()> {
    let row = session.row("SELECT term FROM leadership WHERE only_row = 1", vec![]).await?;
    let newest = row.ok_or_else(|| unusable("its row of leadership is missing"))?.integer("term")?;
    if (newest == term && term > 0) || faults::broken("skip_term_guard") {
        return Ok(());
    }
    Err(MetadataError::Fenced { job_id, epoch, found: Fence::Term(newest) })
}

/// The run, which is of the job, active and in this attempt.
async fn runs_now(session: &mut Session, job_id: Uuid, run_id: Uuid, generation: i64) -> Result<Run> {
    let run = runs::of_id(session, run_id).await?;
    if run.job_id != job_id {
        return Err(runs::not_found(run_id));
    }
    if !run.active || (run.generation != generation && !faults::broken("skip_generation_guard")) {
        return Err(MetadataError::Moved { run_id, state: run.state, generation: run.generation });
    }
    Ok(run)
}

pub(crate) async fn of_number(session: &mut Session, job_id: Uuid, epoch: i64) -> Result<Epoch> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE job_id = $1 AND epoch = $2"));
    match session.row(sql, arguments![job_id, epoch]).await? {
        Some(row) => epoch_of(&row),
        None => Err(not_found(epoch)),
    }
}

/// One that is not retired.
pub(crate) async fn live(session: &mut Session, job_id: Uuid, epoch: i64) -> Result<Epoch> {
    let found = of_number(session, job_id, epoch).await?;
    if found.state == "retired" { Err(not_found(epoch)) } else { Ok(found) }
}

pub(crate) async fn last(session: &mut Session, job_id: Uuid) -> Result<Option<Epoch>> {
    let sql = format!("{SELECT} WHERE job_id = $1 AND state <> 'retired' ORDER BY epoch DESC LIMIT 1");
    session.row(sqlx::AssertSqlSafe(sql), arguments![job_id]).await?.as_ref().map(epoch_of).transpose()
}

pub(crate) async fn list(session: &mut Session, filter: &EpochFilter, page: EpochPage) -> Result<Vec<Epoch>> {
    let mut query = Conditional::new(SELECT);
    query.push(" WHERE job_id = ?", [filter.job_id.into()]);
    if let Some(run_id) = filter.run_id {
        query.push(" AND run_id = ?", [run_id.into()]);
    }
    query.any_of(" AND state IN (", &filter.states);
    if let Some(after) = page.after {
        query.push(" AND epoch < ?", [after.into()]);
    }
    query.push(" ORDER BY epoch DESC LIMIT ?", [Argument::from(page.limit)]);
    let rows = session.rows(sqlx::AssertSqlSafe(query.sql), query.arguments).await?;
    rows.iter().map(epoch_of).collect()
}

fn not_found(epoch: i64) -> MetadataError {
    MetadataError::NotFound { kind: "epoch", name: epoch.to_string() }
}

fn epoch_of(row: &Row) -> Result<Epoch> {
    Ok(Epoch {
        job_id: row.uuid("job_id")?,
        epoch: row.integer("epoch")?,
        run_id: row.uuid("run_id")?,
        generation: row.integer("generation")?,
        previous: row.optional_integer("previous")?,
        nonce: row.uuid("nonce")?,
        state: row.text("state")?,
        manifest: row.text("manifest")?,
        manifest_sha256: row.text("manifest_sha256")?,
        bytes: row.integer("bytes")?,
        total_bytes: row.integer("total_bytes")?,
        duration_ms: row.integer("duration_ms")?,
        last: row.flag("last")?,
        facts: row.json("facts")?,
        proofs: row.optional_json("proofs")?,
        decided_at: row.time("decided_at")?,
        committed_at: row.optional_time("committed_at")?,
        retired_at: row.optional_time("retired_at")?,
    })
}
