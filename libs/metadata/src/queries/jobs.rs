//! Jobs, their versions and the views that they write.

use uuid::Uuid;

use crate::queries::{Conditional, catalogue};
use crate::records::{Job, JobFilter, JobVersion, Page, View, ViewDefinition};
use crate::session::{Argument, Row, Session, arguments, json};
use crate::store::{MetadataError, Result};

pub(crate) async fn create(session: &mut Session, job: &Job, version: &JobVersion) -> Result<()> {
    assert!(
        job.job_id == version.job_id && job.version == version.version,
        "a job is created with the version that it names"
    );
    name_is_free(session, job).await?;
    session
        .execute(
            "INSERT INTO job (job_id, name, name_folded, labels, version, revision, state, latest_run, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            arguments![
                job.job_id,
                &job.name,
                job.name.to_lowercase(),
                json(&job.labels),
                job.version,
                job.revision,
                &job.state,
                job.latest_run,
                job.created_at,
                job.updated_at
            ],
        )
        .await?;
    set_labels(session, job).await?;
    add_version(session, version).await?;
    claim(session, version).await
}

/// Writes what of `job` may change; its `revision` is the one that was read. Returns the job as it is now.
pub(crate) async fn update(session: &mut Session, job: &Job, version: Option<&JobVersion>) -> Result<Job> {
    let current = of_id(session, job.job_id).await?;
    is_fresh(&current, job.revision)?;
    name_is_free(session, job).await?;
    if let Some(version) = version {
        assert!(
            version.job_id == job.job_id && version.version == job.version,
            "a new version of a job is the one that the job names"
        );
        let newest = session
            .row("SELECT max(version) AS newest FROM job_version WHERE job_id = $1", arguments![job.job_id])
            .await?
            .map_or(Ok(0), |row| row.integer("newest"))?;
        assert_eq!(version.version, newest + 1, "versions of a job are numbered without a gap");
        add_version(session, version).await?;
        claim(session, version).await?;
    } else {
        assert_eq!(job.version, current.version, "the version of a job changes with a new one only");
    }
    session
        .execute(
            "UPDATE job SET name = $2, name_folded = $3, labels = $4, version = $5, updated_at = $6, revision = revision + 1
             WHERE job_id = $1",
            arguments![
                job.job_id,
                &job.name,
                job.name.to_lowercase(),
                json(&job.labels),
                job.version,
                job.updated_at
            ],
        )
        .await?;
    session.execute("DELETE FROM job_label WHERE job_id = $1", arguments![job.job_id]).await?;
    set_labels(session, job).await?;
    of_id(session, job.job_id).await
}

pub(crate) async fn delete(session: &mut Session, job_id: Uuid, revision: i64) -> Result<()> {
    hold(session, job_id).await?;
    let current = of_id(session, job_id).await?;
    is_fresh(&current, revision)?;
    no_active_run(session, job_id).await?;
    // Before the versions that they refer to.
    session.execute("DELETE FROM run WHERE job_id = $1", arguments![job_id]).await?;
    session.execute("DELETE FROM job WHERE job_id = $1", arguments![job_id]).await?;
    Ok(())
}

/// Keeps moves of the job's runs, and decisions about its epochs, back until the transaction ends. Who locks more than one thing locks the end of the audit log first,
/// then the job, then a savepoint, then
/// a run.
pub(crate) async fn hold(session: &mut Session, job_id: Uuid) -> Result<()> {
    match hold_if_there(session, job_id).await? {
        true => Ok(()),
        false => Err(MetadataError::NotFound { kind: "job", name: job_id.to_string() }),
    }
}

/// The same for what outlives its job; whether the job is there.
pub(crate) async fn hold_if_there(session: &mut Session, job_id: Uuid) -> Result<bool> {
    let sql =
        session.pick("SELECT job_id FROM job WHERE job_id = $1", "SELECT job_id FROM job WHERE job_id = $1 FOR UPDATE");
    Ok(session.row(sql, arguments![job_id]).await?.is_some())
}

pub(crate) async fn no_active_run(session: &mut Session, job_id: Uuid) -> Result<()> {
    match session.row("SELECT run_id, state FROM run WHERE job_id = $1 AND active", arguments![job_id]).await? {
        None => Ok(()),
        Some(row) => Err(MetadataError::RunActive { run_id: row.uuid("run_id")?, state: row.text("state")? }),
    }
}

pub(crate) async fn of_id(session: &mut Session, job_id: Uuid) -> Result<Job> {
    let sql = "SELECT job_id, name, labels, version, revision, state, latest_run, created_at, updated_at
         FROM job WHERE job_id = $1";
    match session.row(sql, arguments![job_id]).await? {
        Some(row) => job(&row),
        None => Err(MetadataError::NotFound { kind: "job", name: job_id.to_string() }),
    }
}

pub(crate) async fn of_name(session: &mut Session, name: &str) -> Result<Job> {
    let sql = "SELECT job_id, name, labels, version, revision, state, latest_run, created_at, updated_at
         FROM job WHERE name = $1";
    match session.row(sql, arguments![name]).await? {
        Some(row) => job(&row),
        None => Err(MetadataError::NotFound { kind: "job", name: name.to_owned() }),
    }
}

pub(crate) async fn list(session: &mut Session, filter: &JobFilter, page: Page) -> Result<Vec<Job>> {
    let mut query = Conditional::new(
        "SELECT job_id, name, labels, version, revision, state, latest_run, created_at, updated_at
         FROM job WHERE TRUE",
    );
    query.any_of(" AND state IN (", &filter.states);
    for (name, value) in &filter.labels {
        query.push(
            // The beginning is what the index of PostgreSQL has.
            " AND EXISTS (SELECT 1 FROM job_label WHERE job_label.job_id = job.job_id AND job_label.name = ?
                          AND substr(value, 1, 64) = substr(?, 1, 64) AND value = ?)",
            [name.into(), value.into(), value.into()],
        );
    }
    if let Some(part) = &filter.q {
        let find = session.pick(" AND instr(name_folded, ?) > 0", " AND strpos(name_folded, ?) > 0");
        query.push(find, [part.to_lowercase().into()]);
    }
    if let Some(after) = page.after {
        query.push(" AND job_id < ?", [after.into()]);
    }
    query.push(" ORDER BY job_id DESC LIMIT ?", [Argument::from(page.limit)]);
    let rows = session.rows(sqlx::AssertSqlSafe(query.sql), query.arguments).await?;
    rows.iter().map(job).collect()
}

pub(crate) async fn version(session: &mut Session, job_id: Uuid, version: i64) -> Result<JobVersion> {
    let sql = "SELECT job_id, version, sql, graph, hash, settings, views, connections, created_at
         FROM job_version WHERE job_id = $1 AND version = $2";
    let row = session.row(sql, arguments![job_id, version]).await?;
    let row = row.ok_or_else(|| MetadataError::NotFound { kind: "version", name: version.to_string() })?;
    Ok(JobVersion {
        job_id: row.uuid("job_id")?,
        version: row.integer("version")?,
        sql: row.optional_text("sql")?,
        graph: row.json("graph")?,
        hash: row.text("hash")?,
        settings: row.json("settings")?,
        views: row.json("views")?,
        connections: row.json("connections")?,
        created_at: row.time("created_at")?,
    })
}

pub(crate) async fn views(session: &mut Session) -> Result<Vec<View>> {
    let sql = "SELECT v.name, v.job_id, j.name AS job_name, v.definition
         FROM job_view v JOIN job j ON j.job_id = v.job_id ORDER BY v.job_id DESC, v.name";
    session.rows(sql, vec![]).await?.iter().map(view_of).collect()
}

pub(crate) async fn view(session: &mut Session, name: &str) -> Result<View> {
    let sql = "SELECT v.name, v.job_id, j.name AS job_name, v.definition
         FROM job_view v JOIN job j ON j.job_id = v.job_id WHERE v.name = $1";
    match session.row(sql, arguments![name]).await? {
        Some(row) => view_of(&row),
        None => Err(MetadataError::NotFound { kind: "view", name: name.to_owned() }),
    }
}

fn is_fresh(current: &Job, expected: i64) -> Result<()> {
    if current.revision == expected {
        return Ok(());
    }
    Err(MetadataError::Stale { kind: "job", name: current.name.clone(), expected, current: current.revision })
}

async fn name_is_free(session: &mut Session, job: &Job) -> Result<()> {
    let owner = session
        .row("SELECT job_id FROM job WHERE name = $1 AND job_id <> $2", arguments![&job.name, job.job_id])
        .await?;
    match owner {
        None => Ok(()),
        Some(row) => Err(MetadataError::Exists { kind: "job", name: job.name.clone(), id: row.uuid("job_id")? }),
    }
}

async fn set_labels(session: &mut Session, job: &Job) -> Result<()> {
    for (name, value) in &job.labels {
        session
            .execute(
                "INSERT INTO job_label (job_id, name, value) VALUES ($1, $2, $3)",
                arguments![job.job_id, name, value],
            )
            .await?;
    }
    Ok(())
}

async fn add_version(session: &mut Session, version: &JobVersion) -> Result<()> {
    session
        .execute(
            "INSERT INTO job_version (job_id, version, sql, graph, hash, settings, views, connections, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            arguments![
                version.job_id,
                version.version,
                &version.sql,
                &version.graph,
                &version.hash,
                &version.settings,
                json(&version.views),
                json(&version.connections),
                version.created_at
            ],
        )
        .await?;
    Ok(())
}

/// Makes the job the owner of what `version` writes and the user of what it needs; what an earlier version had is given up.
async fn claim(session: &mut Session, version: &JobVersion) -> Result<()> {
    let job_id = version.job_id;
    session.execute("DELETE FROM job_view WHERE job_id = $1", arguments![job_id]).await?;
    for ViewDefinition { name, definition } in &version.views {
        if let Some(row) = session.row("SELECT job_id FROM job_view WHERE name = $1", arguments![name]).await? {
            return Err(MetadataError::Exists { kind: "view", name: name.clone(), id: row.uuid("job_id")? });
        }
        session
            .execute(
                "INSERT INTO job_view (name, job_id, definition) VALUES ($1, $2, $3)",
                arguments![name, job_id, definition],
            )
            .await?;
    }
    session.execute("DELETE FROM job_connection WHERE job_id = $1", arguments![job_id]).await?;
    for name in &version.connections {
        let connection = catalogue::connection(session, name).await?;
        session
            .execute(
                "INSERT INTO job_connection (job_id, connection_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                arguments![job_id, connection.connection_id],
            )
            .await?;
    }
    Ok(())
}

fn job(row: &Row) -> Result<Job> {
    Ok(Job {
        job_id: row.uuid("job_id")?,
        name: row.text("name")?,
        labels: row.json("labels")?,
        version: row.integer("version")?,
        revision: row.integer("revision")?,
        state: row.text("state")?,
        latest_run: row.optional_uuid("latest_run")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn view_of(row: &Row) -> Result<View> {
    Ok(View {
        name: row.text("name")?,
        job_id: row.uuid("job_id")?,
        job_name: row.text("job_name")?,
        definition: row.json("definition")?,
    })
}
