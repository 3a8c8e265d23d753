//! Runs and the moves that they make.

use serde_json::Value;
use uuid::Uuid;

use crate::queries::{Conditional, epochs, jobs};
use crate::records::{Page, Run, RunEvent, RunFilter, RunMove};
use crate::session::{Argument, Row, Session, arguments};
use crate::store::{MetadataError, Result};

const SELECT: &str =
    "SELECT r.run_id, r.job_id, j.name AS job_name, r.version, r.state, r.active, r.generation, r.request,
     r.base_epoch, r.facts, r.failure, r.revision, r.created_at, r.started_at, r.ended_at
     FROM run r JOIN job j ON j.job_id = r.job_id";

pub(crate) async fn create(session: &mut Session, run: &Run) -> Result<()> {
    jobs::hold(session, run.job_id).await?;
    jobs::no_active_run(session, run.job_id).await?;
    jobs::version(session, run.job_id, run.version).await?;
    if let Some(base) = run.base_epoch {
        epochs::live(session, run.job_id, base).await?;
    }
    session
        .execute(
            "INSERT INTO run (run_id, job_id, version, state, active, generation, request, facts, failure, revision,
                              created_at, started_at, ended_at, base_epoch)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
            arguments![
                run.run_id,
                run.job_id,
                run.version,
                &run.state,
                run.active,
                run.generation,
                &run.request,
                &run.facts,
                &run.failure,
                run.revision,
                run.created_at,
                run.started_at,
                run.ended_at,
                run.base_epoch
            ],
        )
        .await?;
    session
        .execute(
            "INSERT INTO run_event (run_id, sequence, at, to_state) VALUES ($1, 1, $2, $3)",
            arguments![run.run_id, run.created_at, &run.state],
        )
        .await?;
    session
        .execute(
            "UPDATE job SET state = $2, latest_run = $3 WHERE job_id = $1",
            arguments![run.job_id, &run.state, run.run_id],
        )
        .await?;
    Ok(())
}

pub(crate) async fn of_id(session: &mut Session, run_id: Uuid) -> Result<Run> {
    match session.row(sqlx::AssertSqlSafe(format!("{SELECT} WHERE r.run_id = $1")), arguments![run_id]).await? {
        Some(row) => run(&row),
        None => Err(not_found(run_id)),
    }
}

pub(crate) async fn list(session: &mut Session, filter: &RunFilter, page: Page) -> Result<Vec<Run>> {
    let mut query = Conditional::new(format!("{SELECT} WHERE TRUE"));
    if let Some(job_id) = filter.job_id {
        query.push(" AND r.job_id = ?", [job_id.into()]);
    }
    query.any_of(" AND r.state IN (", &filter.states);
    if let Some(after) = page.after {
        query.push(" AND r.run_id < ?", [after.into()]);
    }
    query.push(" ORDER BY r.run_id DESC LIMIT ?", [Argument::from(page.limit)]);
    let rows = session.rows(sqlx::AssertSqlSafe(query.sql), query.arguments).await?;
    rows.iter().map(run).collect()
}

pub(crate) async fn active(session: &mut Session) -> Result<Vec<Run>> {
    let rows = session.rows(sqlx::AssertSqlSafe(format!("{SELECT} WHERE r.active ORDER BY r.run_id")), vec![]).await?;
    rows.iter().map(run).collect()
}

/// Moves a run if it is where the move begins; a move that was done already is done.
pub(crate) async fn step(session: &mut Session, step: &RunMove) -> Result<Run> {
    let job = session.row("SELECT job_id FROM run WHERE run_id = $1", arguments![step.run_id]).await?;
    let job_id = job.ok_or_else(|| not_found(step.run_id))?.uuid("job_id")?;
    // Moves of one job's runs come one after the other.
    jobs::hold(session, job_id).await.map_err(|error| match error {
        MetadataError::NotFound { .. } => not_found(step.run_id),
        other => other,
    })?;
    let current = of_id(session, step.run_id).await?;
    let generation = step.new_generation.unwrap_or(step.generation);
    if current.generation != step.generation || !step.from.contains(&current.state) {
        if current.state == step.to && current.generation == generation {
            return Ok(current);
        }
        return Err(MetadataError::Moved { run_id: step.run_id, state: current.state, generation: current.generation });
    }
    session
        .execute(
            "UPDATE run SET state = $2, active = $3, generation = $4, facts = coalesce($5, facts),
                            failure = coalesce($6, failure), started_at = coalesce($7, started_at),
                            ended_at = coalesce($8, ended_at), revision = revision + 1
             WHERE run_id = $1",
            arguments![
                step.run_id,
                &step.to,
                step.active,
                generation,
                &step.facts,
                &step.failure,
                step.started_at,
                step.ended_at
            ],
        )
        .await?;
    session
        .execute(
            "INSERT INTO run_event (run_id, sequence, at, from_state, to_state, cause)
             SELECT $1, max(sequence) + 1, $2, $3, $4, $5 FROM run_event WHERE run_id = $1",
            arguments![step.run_id, step.at, &current.state, &step.to, &step.cause],
        )
        .await?;
    session
        .execute(
            "UPDATE job SET state = $3 WHERE job_id = $1 AND latest_run = $2",
            arguments![job_id, step.run_id, &step.to],
        )
        .await?;
    of_id(session, step.run_id).await
}

pub(crate) async fn set_facts(session: &mut Session, run_id: Uuid, generation: i64, facts: &Value) -> Result<()> {
    let changed = session
        .execute(
            "UPDATE run SET facts = $3, revision = revision + 1 WHERE run_id = $1 AND generation = $2",
            arguments![run_id, generation, facts],
        )
        .await?;
    if changed == 1 {
        return Ok(());
    }
    let current = of_id(session, run_id).await?;
    Err(MetadataError::Moved { run_id, state: current.state, generation: current.generation })
}

pub(crate) async fn events(session: &mut Session, run_id: Uuid) -> Result<Vec<RunEvent>> {
    let sql = "SELECT sequence, at, from_state, to_state, cause FROM run_event WHERE run_id = $1 ORDER BY sequence";
    let rows = session.rows(sql, arguments![run_id]).await?;
    if rows.is_empty() {
        return Err(not_found(run_id)); // there is always the first
    }
    rows.iter().map(event).collect()
}

pub(crate) fn not_found(run_id: Uuid) -> MetadataError {
    MetadataError::NotFound { kind: "run", name: run_id.to_string() }
}

fn event(row: &Row) -> Result<RunEvent> {
    Ok(RunEvent {
        sequence: row.integer("sequence")?,
        at: row.time("at")?,
        from: row.optional_text("from_state")?,
        to: row.text("to_state")?,
        cause: row.optional_text("cause")?,
    })
}

fn run(row: &Row) -> Result<Run> {
    Ok(Run {
        run_id: row.uuid("run_id")?,
        job_id: row.uuid("job_id")?,
        job_name: row.text("job_name")?,
        version: row.integer("version")?,
        state: row.text("state")?,
        active: row.flag("active")?,
        generation: row.integer("generation")?,
        request: row.json("request")?,
        base_epoch: row.optional_integer("base_epoch")?,
        facts: row.json("facts")?,
        failure: row.optional_json("failure")?,
        revision: row.integer("revision")?,
        created_at: row.time("created_at")?,
        started_at: row.optional_time("started_at")?,
        ended_at: row.optional_time("ended_at")?,
    })
}
