//! Connections and tables.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::records::{Connection, Table};
use crate::session::{Row, Session, arguments, json};
use crate::store::{MetadataError, Result};

pub(crate) async fn put_connection(
    session: &mut Session,
    connection: &Connection,
    secrets: &BTreeMap<String, Vec<u8>>,
) -> Result<()> {
    let current = session
        .row("SELECT connection_id AS id, revision FROM connection WHERE name = $1", arguments![&connection.name])
        .await?;
    let id = replaceable(connection, current)?;
    let connection_id = id.unwrap_or(connection.connection_id);
    let sql = match id {
        None => {
            "INSERT INTO connection (connection_id, name, kind, options, secret_names, revision, updated_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        }
        Some(_) => {
            "UPDATE connection SET name = $2, kind = $3, options = $4, secret_names = $5, revision = $6, updated_at = $7
             WHERE connection_id = $1"
        }
    };
    let mut values = arguments![
        connection_id,
        &connection.name,
        &connection.kind,
        json(&connection.options),
        json(&connection.secret_names),
        connection.revision,
        connection.updated_at
    ];
    if id.is_none() {
        values.push(connection.created_at.into());
    }
    session.execute(sql, values).await?;
    session.execute("DELETE FROM connection_secret WHERE connection_id = $1", arguments![connection_id]).await?;
    for (name, sealed) in secrets {
        session
            .execute(
                "INSERT INTO connection_secret (connection_id, name, sealed) VALUES ($1, $2, $3)",
                arguments![connection_id, name, sealed],
            )
            .await?;
    }
    Ok(())
}

pub(crate) async fn connection(session: &mut Session, name: &str) -> Result<Connection> {
    let sql = "SELECT connection_id, name, kind, options, secret_names, revision, created_at, updated_at
         FROM connection WHERE name = $1";
    match session.row(sql, arguments![name]).await? {
        Some(row) => connection_of(&row),
        None => Err(not_found("connection", name)),
    }
}

pub(crate) async fn connections(session: &mut Session) -> Result<Vec<Connection>> {
    let sql = "SELECT connection_id, name, kind, options, secret_names, revision, created_at, updated_at
         FROM connection ORDER BY connection_id DESC";
    session.rows(sql, vec![]).await?.iter().map(connection_of).collect()
}

pub(crate) async fn connection_with_secrets(
    session: &mut Session,
    name: &str,
) -> Result<(Connection, BTreeMap<String, Vec<u8>>)> {
    // One statement: options and secrets of one revision. The connection comes once for each secret, and once if there is none.
    let sql = "SELECT c.connection_id, c.name, kind, options, secret_names, revision, created_at, updated_at,
                s.name AS secret_name, s.sealed
         FROM connection c LEFT JOIN connection_secret s ON s.connection_id = c.connection_id WHERE c.name = $1";
    let rows = session.rows(sql, arguments![name]).await?;
    let connection = connection_of(rows.first().ok_or_else(|| not_found("connection", name))?)?;
    let mut secrets = BTreeMap::new();
    for row in &rows {
        if let Some(secret) = row.optional_text("secret_name")? {
            secrets.insert(secret, row.bytes("sealed")?);
        }
    }
    Ok((connection, secrets))
}

pub(crate) async fn delete_connection(session: &mut Session, name: &str, revision: i64) -> Result<()> {
    let current = connection(session, name).await?;
    is_fresh("connection", name, revision, current.revision)?;
    let user = session
        .row(
            "SELECT 'table' AS kind, t.name FROM table_connection u JOIN catalogue_table t ON t.table_id = u.table_id
             WHERE u.connection_id = $1
             UNION ALL
             SELECT 'job' AS kind, j.name FROM job_connection u JOIN job j ON j.job_id = u.job_id WHERE u.connection_id = $1
             ORDER BY 1, 2 LIMIT 1",
            arguments![current.connection_id],
        )
        .await?;
    if let Some(row) = user {
        let by = format!("{} '{}'", row.text("kind")?, row.text("name")?);
        return Err(MetadataError::InUse { kind: "connection", name: name.to_owned(), by });
    }
    session.execute("DELETE FROM connection WHERE connection_id = $1", arguments![current.connection_id]).await?;
    Ok(())
}

pub(crate) async fn create_table(session: &mut Session, table: &Table) -> Result<()> {
    let owner = session.row("SELECT table_id FROM catalogue_table WHERE name = $1", arguments![&table.name]).await?;
    if let Some(row) = owner {
        return Err(MetadataError::Exists { kind: "table", name: table.name.clone(), id: row.uuid("table_id")? });
    }
    session
        .execute(
            "INSERT INTO catalogue_table (table_id, name, sql, definition, connections, revision, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            arguments![
                table.table_id,
                &table.name,
                &table.sql,
                &table.definition,
                json(&table.connections),
                table.revision,
                table.created_at,
                table.updated_at
            ],
        )
        .await?;
    for name in &table.connections {
        let connection = connection(session, name).await?;
        session
            .execute(
                "INSERT INTO table_connection (table_id, connection_id) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                arguments![table.table_id, connection.connection_id],
            )
            .await?;
    }
    Ok(())
}

pub(crate) async fn table(session: &mut Session, name: &str) -> Result<Table> {
    let sql = "SELECT table_id, name, sql, definition, connections, revision, created_at, updated_at
         FROM catalogue_table WHERE name = $1";
    match session.row(sql, arguments![name]).await? {
        Some(row) => table_of(&row),
        None => Err(not_found("table", name)),
    }
}

pub(crate) async fn tables(session: &mut Session) -> Result<Vec<Table>> {
    let sql = "SELECT table_id, name, sql, definition, connections, revision, created_at, updated_at
         FROM catalogue_table ORDER BY table_id DESC";
    session.rows(sql, vec![]).await?.iter().map(table_of).collect()
}

pub(crate) async fn delete_table(session: &mut Session, name: &str, revision: i64) -> Result<()> {
    let current = table(session, name).await?;
    is_fresh("table", name, revision, current.revision)?;
    session.execute("DELETE FROM catalogue_table WHERE table_id = $1", arguments![current.table_id]).await?;
    Ok(())
}

/// The id of the connection that is to be replaced; `None` if it is to be created.
fn replaceable(connection: &Connection, current: Option<Row>) -> Result<Option<Uuid>> {
    let name = &connection.name;
    let Some(row) = current else {
        return if connection.revision == 1 { Ok(None) } else { Err(not_found("connection", name)) };
    };
    let (owner, revision) = (row.uuid("id")?, row.integer("revision")?);
    if connection.revision == 1 {
        return Err(MetadataError::Exists { kind: "connection", name: name.clone(), id: owner });
    }
    // Another one by that name: the one that was read is gone.
    if owner != connection.connection_id {
        return Err(not_found("connection", name));
    }
    is_fresh("connection", name, connection.revision - 1, revision).map(|()| Some(owner))
}

fn is_fresh(kind: &'static str, name: &str, expected: i64, current: i64) -> Result<()> {
    if current == expected {
        return Ok(());
    }
    Err(MetadataError::Stale { kind, name: name.to_owned(), expected, current })
}

fn not_found(kind: &'static str, name: &str) -> MetadataError {
    MetadataError::NotFound { kind, name: name.to_owned() }
}

fn connection_of(row: &Row) -> Result<Connection> {
    Ok(Connection {
        connection_id: row.uuid("connection_id")?,
        name: row.text("name")?,
        kind: row.text("kind")?,
        options: row.json("options")?,
        secret_names: row.json("secret_names")?,
        revision: row.integer("revision")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}

fn table_of(row: &Row) -> Result<Table> {
    Ok(Table {
        table_id: row.uuid("table_id")?,
        name: row.text("name")?,
        sql: row.text("sql")?,
        definition: row.json("definition")?,
        connections: row.json("connections")?,
        revision: row.integer("revision")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
    })
}
