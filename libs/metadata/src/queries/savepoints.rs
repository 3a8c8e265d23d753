//! Savepoints, and which runs restore from them.

use uuid::Uuid;

use crate::queries::{Conditional, epochs, jobs, runs};
use crate::records::{Page, Savepoint, SavepointFilter};
use crate::session::{Argument, Row, Session, arguments};
use crate::store::{MetadataError, Result};

const SELECT: &str =
    "SELECT savepoint_id, job_id, job_name, run_id, name, state, epoch, location, format_version, bytes, facts, failure,
     created_at, ended_at FROM savepoint";

/// False if it is there already.
pub(crate) async fn create(session: &mut Session, savepoint: &Savepoint) -> Result<bool> {
    let owner = session
        .row(
            "SELECT savepoint_id FROM savepoint WHERE job_id = $1 AND name = $2",
            arguments![savepoint.job_id, &savepoint.name],
        )
        .await?
        .map(|row| row.uuid("savepoint_id"))
        .transpose()?;
    match owner {
        Some(id) if id == savepoint.savepoint_id => return Ok(false),
        Some(id) => return Err(MetadataError::Exists { kind: "savepoint", name: savepoint.name.clone(), id }),
        None => {}
    }
    // Held, so that its epoch is not retired meanwhile.
    jobs::hold(session, savepoint.job_id).await?;
    if runs::of_id(session, savepoint.run_id).await?.job_id != savepoint.job_id {
        return Err(runs::not_found(savepoint.run_id));
    }
    if let Some(epoch) = savepoint.epoch {
        epochs::live(session, savepoint.job_id, epoch).await?;
    }
    session
        .execute(
            "INSERT INTO savepoint (savepoint_id, job_id, job_name, run_id, name, state, epoch, location, format_version,
                                    bytes, facts, failure, created_at, ended_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            arguments![
                savepoint.savepoint_id,
                savepoint.job_id,
                &savepoint.job_name,
                savepoint.run_id,
                &savepoint.name,
                &savepoint.state,
                savepoint.epoch,
                &savepoint.location,
                savepoint.format_version,
                savepoint.bytes,
                &savepoint.facts,
                &savepoint.failure,
                savepoint.created_at,
                savepoint.ended_at
            ],
        )
        .await?;
    Ok(true)
}

pub(crate) async fn of_id(session: &mut Session, savepoint_id: Uuid) -> Result<Savepoint> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE savepoint_id = $1"));
    match session.row(sql, arguments![savepoint_id]).await? {
        Some(row) => savepoint_of(&row),
        None => Err(not_found("savepoint", savepoint_id)),
    }
}

pub(crate) async fn list(session: &mut Session, filter: &SavepointFilter, page: Page) -> Result<Vec<Savepoint>> {
    let mut query = Conditional::new(format!("{SELECT} WHERE TRUE"));
    if let Some(job_id) = filter.job_id {
        query.push(" AND job_id = ?", [job_id.into()]);
    }
    if let Some(name) = &filter.name {
        query.push(" AND name = ?", [name.into()]);
    }
    query.any_of(" AND state IN (", &filter.states);
    if let Some(after) = page.after {
        query.push(" AND savepoint_id < ?", [after.into()]);
    }
    query.push(" ORDER BY savepoint_id DESC LIMIT ?", [Argument::from(page.limit)]);
    let rows = session.rows(sqlx::AssertSqlSafe(query.sql), query.arguments).await?;
    rows.iter().map(savepoint_of).collect()
}

/// Changes a savepoint that is running.
pub(crate) async fn update(session: &mut Session, savepoint: &Savepoint) -> Result<()> {
    // What is stored says which job it is; held, so that an epoch that is named here is not retired meanwhile.
    let current = of_id(session, savepoint.savepoint_id).await?;
    let there = jobs::hold_if_there(session, current.job_id).await?;
    let current = hold(session, savepoint.savepoint_id).await?;
    if current.state != "running" {
        return Ok(());
    }
    if let Some(epoch) = savepoint.epoch.filter(|_| there && savepoint.epoch != current.epoch) {
        epochs::live(session, current.job_id, epoch).await?;
    }
    session
        .execute(
            "UPDATE savepoint SET state = $2, epoch = $3, bytes = $4, facts = $5, failure = $6, ended_at = $7
             WHERE savepoint_id = $1",
            arguments![
                savepoint.savepoint_id,
                &savepoint.state,
                savepoint.epoch,
                savepoint.bytes,
                &savepoint.facts,
                &savepoint.failure,
                savepoint.ended_at
            ],
        )
        .await?;
    Ok(())
}

pub(crate) async fn delete(session: &mut Session, savepoint_id: Uuid) -> Result<()> {
    let current = hold(session, savepoint_id).await?;
    let user = session
        .row(
            "SELECT run_id FROM savepoint_use WHERE savepoint_id = $1 ORDER BY run_id LIMIT 1",
            arguments![savepoint_id],
        )
        .await?;
    if let Some(row) = user {
        let by = format!("run {}, which restores from it", row.uuid("run_id")?);
        return Err(MetadataError::InUse { kind: "savepoint", name: current.name, by });
    }
    session.execute("DELETE FROM savepoint WHERE savepoint_id = $1", arguments![savepoint_id]).await?;
    Ok(())
}

pub(crate) async fn take(session: &mut Session, savepoint_id: Uuid, run_id: Uuid) -> Result<()> {
    let job_id = of_id(session, savepoint_id).await?.job_id;
    jobs::hold_if_there(session, job_id).await?;
    let savepoint = hold(session, savepoint_id).await?;
    if savepoint.state != "completed" {
        return Err(not_found("completed savepoint", savepoint_id));
    }
    // The run may be of another job, which may be deleted at this moment.
    let sql = session.pick(
        "SELECT active, state, generation FROM run WHERE run_id = $1",
        "SELECT active, state, generation FROM run WHERE run_id = $1 FOR KEY SHARE",
    );
    let run = session.row(sql, arguments![run_id]).await?.ok_or_else(|| runs::not_found(run_id))?;
    if !run.flag("active")? {
        return Err(MetadataError::Moved { run_id, state: run.text("state")?, generation: run.integer("generation")? });
    }
    session
        .execute(
            "INSERT INTO savepoint_use (savepoint_id, run_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            arguments![savepoint_id, run_id],
        )
        .await?;
    Ok(())
}

pub(crate) async fn release(session: &mut Session, savepoint_id: Uuid, run_id: Uuid) -> Result<()> {
    session
        .execute("DELETE FROM savepoint_use WHERE savepoint_id = $1 AND run_id = $2", arguments![savepoint_id, run_id])
        .await?;
    Ok(())
}

/// Keeps changes of the savepoint back until the transaction ends.
async fn hold(session: &mut Session, savepoint_id: Uuid) -> Result<Savepoint> {
    let lock = session.pick("", " FOR UPDATE");
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE savepoint_id = $1{lock}"));
    match session.row(sql, arguments![savepoint_id]).await? {
        Some(row) => savepoint_of(&row),
        None => Err(not_found("savepoint", savepoint_id)),
    }
}

fn not_found(kind: &'static str, savepoint_id: Uuid) -> MetadataError {
    MetadataError::NotFound { kind, name: savepoint_id.to_string() }
}

fn savepoint_of(row: &Row) -> Result<Savepoint> {
    Ok(Savepoint {
        savepoint_id: row.uuid("savepoint_id")?,
        job_id: row.uuid("job_id")?,
        job_name: row.text("job_name")?,
        run_id: row.uuid("run_id")?,
        name: row.text("name")?,
        state: row.text("state")?,
        epoch: row.optional_integer("epoch")?,
        location: row.text("location")?,
        format_version: row.integer("format_version")?,
        bytes: row.optional_integer("bytes")?,
        facts: row.json("facts")?,
        failure: row.optional_json("failure")?,
        created_at: row.time("created_at")?,
        ended_at: row.optional_time("ended_at")?,
    })
}
