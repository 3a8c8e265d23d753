//! Connectors, connections and tables.

use std::collections::BTreeMap;

use api::{
    Connection, ConnectionKind, ConnectionTest, Connections, Connector, ConnectorRole, Connectors, CreateConnection,
    CreateTable, Delivery, IdKind, Problem, ProblemItem, ReplaceConnection, Table, Tables,
};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use graph::connector::{SINK_CONNECTORS, SOURCE_CONNECTORS, is_secret_option, option_schema};
use metadata::MetadataError;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::jobs::check_name;
use crate::app::App;
use crate::auth::{Admin, Operator, Viewer};
use crate::http::creation::{Answer, Begun};
use crate::http::precondition::{IfMatch, etag};
use crate::http::{Body, Creation};
use crate::paths::PATH_NOT_ABSOLUTE;
use crate::planning::{self, Input, plan, secret_name};
use crate::problem::{ApiError, ApiResult, items};
use crate::time::now;
use crate::{inspect, planning::wrong_graph};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_connectors))
        .routes(routes!(list_connections, create_connection))
        .routes(routes!(get_connection, replace_connection, delete_connection))
        .routes(routes!(test_connection))
        .routes(routes!(list_tables, create_table))
        .routes(routes!(get_table, delete_table))
}

/// List connectors
///
/// The kinds of sources and sinks of this build, with their options and the strongest contract that each can keep.
#[utoipa::path(get, path = "/api/v1/connectors", operation_id = "list_connectors", tag = "catalogue", responses(
    (status = 200, description = "All connectors, by name", body = Connectors)))]
async fn list_connectors(Viewer(_): Viewer) -> Json<Connectors> {
    let connector = |name: &&str, role: ConnectorRole| Connector {
        name: name.to_string(),
        role,
        strongest_delivery: match (*name, role) {
            ("print" | "blackhole", ConnectorRole::Sink) => Delivery::AtLeastOnce,
            // Every source goes on from the positions of a checkpoint.
            _ => Delivery::ExactlyOnce,
        },
        about: about(name, role).into(),
        options: option_schema(name, role == ConnectorRole::Source),
    };
    let sources = SOURCE_CONNECTORS.iter().map(|name| connector(name, ConnectorRole::Source));
    let sinks = SINK_CONNECTORS.iter().map(|name| connector(name, ConnectorRole::Sink));
    Json(Connectors { items: sources.chain(sinks).collect() })
}

fn about(name: &str, role: ConnectorRole) -> &'static str {
    match (name, role) {
        ("filesystem", ConnectorRole::Source) => "Files, local or on S3; ends with the last of them",
        ("filesystem", ConnectorRole::Sink) => "Files, local or on S3; published by a manifest; takes inserts only",
        ("replay", _) => {
            "Files as a live stream, in the order of their event times with some disorder; never ends by itself"
        }
        ("datagen", _) => "Generated rows; ends if their number is given",
        ("kafka", ConnectorRole::Source) => "Topics; ends where 'scan.bounded.mode' says",
        ("kafka", ConnectorRole::Sink) => {
            "Topics; takes changed rows with a primary key; exactly once with 'delivery' = 'exactly_once', for readers that read committed"
        }
        ("postgres", _) => {
            "A table in PostgreSQL; takes changed rows with a primary key; exactly once in runs that keep checkpoints"
        }
        ("view", _) => "A named result, read over REST; takes changed rows with a primary key",
        ("print", _) => "Rows on standard output; only where a program runs one script",
        ("blackhole", _) => "Takes rows and forgets them",
        _ => "",
    }
}

fn kind_name(kind: ConnectionKind) -> &'static str {
    match kind {
        ConnectionKind::Kafka => "kafka",
        ConnectionKind::Postgres => "postgres",
        ConnectionKind::S3 => "s3",
        ConnectionKind::SchemaRegistry => "schema_registry",
    }
}

fn shown(connection: &metadata::Connection) -> Connection {
    Connection {
        id: IdKind::Connection.text(connection.connection_id),
        name: connection.name.clone(),
        kind: serde_json::from_value(Value::from(connection.kind.clone())).expect("the store has known kinds only"),
        options: connection.options.clone(),
        secrets: connection.secret_names.clone(),
        created_at: connection.created_at,
        updated_at: connection.updated_at,
    }
}

async fn find(app: &App, connection: &str) -> ApiResult<metadata::Connection> {
    Ok(app.store.connection(connection).await?)
}

/// Refuses secrets among the options, and options that stand in both.
fn check_options(options: &BTreeMap<String, String>, secrets: &BTreeMap<String, String>) -> ApiResult<()> {
    if let Some(option) = options.keys().find(|option| is_secret_option(option)) {
        let error = ApiError::new("inline_secret", format!("{option} is a secret and stands among the options"));
        return Err(error.hint("put it under secrets, where it is stored sealed"));
    }
    if secrets.keys().any(|option| !(1..=128).contains(&option.chars().count())) {
        return Err(ApiError::new("validation_failed", "names of secrets have 1 to 128 characters"));
    }
    if let Some(option) = options.keys().find(|option| secrets.contains_key(*option)) {
        return Err(ApiError::new("validation_failed", format!("{option} stands among the options and the secrets")));
    }
    Ok(())
}

fn sealed(app: &App, name: &str, secrets: &BTreeMap<String, String>) -> BTreeMap<String, Vec<u8>> {
    let seal =
        |(option, secret): (&String, &String)| (option.clone(), app.sealing.seal(&secret_name(name, option), secret));
    secrets.iter().map(seal).collect()
}

/// List connections
#[utoipa::path(get, path = "/api/v1/connections", operation_id = "list_connections", tag = "catalogue", responses(
    (status = 200, description = "All connections, by name; secrets are only named", body = Connections)))]
async fn list_connections(Viewer(_): Viewer, State(app): State<App>) -> ApiResult<Json<Connections>> {
    let mut items: Vec<Connection> = app.store.connections().await?.iter().map(shown).collect();
    items.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Json(Connections { items }))
}

/// Create a connection
///
/// Tables name it with `'connection' = 'name'`. Its secrets are stored sealed and never shown again.
#[utoipa::path(post, path = "/api/v1/connections", operation_id = "create_connection", tag = "catalogue",
    request_body(content = CreateConnection, description = "Name, kind, options and secrets"), responses(
        (status = 201, description = "Stored", body = Connection,
            headers(("location" = String, description = "Path of the connection"), ("etag" = String, description = "Revision of the connection"))),
        (status = 403, description = "An option is not allowed, or the key does not allow it", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json")))]
async fn create_connection(
    Admin(caller): Admin,
    State(app): State<App>,
    creation: Creation,
    body: Body<CreateConnection>,
) -> ApiResult<Response> {
    let _flight = match creation.begin(&app, &caller, &body.hash).await? {
        Begun::Replay(response) => return Ok(response),
        begun => begun,
    };
    let CreateConnection { name, kind, options, secrets } = body.value;
    check_name(&name)?;
    check_options(&options, &secrets)?;
    let now = now();
    let connection = metadata::Connection {
        connection_id: Uuid::now_v7(),
        name,
        kind: kind_name(kind).into(),
        options,
        secret_names: secrets.keys().cloned().collect(),
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let answer = Answer::new(StatusCode::CREATED, &shown(&connection))
        .header(header::LOCATION, format!("/api/v1/connections/{}", connection.name))
        .header(header::ETAG, etag(1));
    let object = IdKind::Connection.text(connection.connection_id);
    let detail = json!({"name": connection.name, "kind": connection.kind});
    let change = creation.change(&caller, "connection.create", &object, detail, &answer, &body.hash);
    let sealed = sealed(&app, &connection.name, &secrets);
    let stored = app.store.put_connection(&connection, &sealed, &change).await;
    creation.finish(stored, answer, &body.hash)
}

/// Get a connection
#[utoipa::path(get, path = "/api/v1/connections/{connection}", operation_id = "get_connection", tag = "catalogue",
    params(("connection" = String, Path, description = "Name of a connection")), responses(
        (status = 200, description = "The connection; secrets are only named", body = Connection, headers(("etag" = String, description = "Revision of the connection"))),
        (status = 404, description = "There is no such connection", body = Problem, content_type = "application/problem+json")))]
async fn get_connection(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(connection): Path<String>,
) -> ApiResult<Response> {
    let connection = find(&app, &connection).await?;
    Ok(([(header::ETAG, etag(connection.revision))], Json(shown(&connection))).into_response())
}

/// Replace a connection
///
/// All options and all secrets. Active runs go on with what they were started with.
#[utoipa::path(put, path = "/api/v1/connections/{connection}", operation_id = "replace_connection", tag = "catalogue",
    params(("connection" = String, Path, description = "Name of a connection"), ("if-match" = String, Header, description = "ETag of the connection that was read, or `*`")),
    request_body(content = ReplaceConnection, description = "Kind, options and secrets as they shall be"), responses(
        (status = 200, description = "Replaced", body = Connection, headers(("etag" = String, description = "Revision of the connection"))),
        (status = 404, description = "There is no such connection", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "if-match is missing", body = Problem, content_type = "application/problem+json")))]
async fn replace_connection(
    Admin(caller): Admin,
    State(app): State<App>,
    Path(connection): Path<String>,
    if_match: IfMatch,
    body: Body<ReplaceConnection>,
) -> ApiResult<Response> {
    let before = find(&app, &connection).await?;
    if_match.check(&format!("connection '{}'", before.name), before.revision)?;
    let ReplaceConnection { kind, options, secrets } = body.value;
    check_options(&options, &secrets)?;
    let after = metadata::Connection {
        kind: kind_name(kind).into(),
        options,
        secret_names: secrets.keys().cloned().collect(),
        revision: before.revision + 1,
        updated_at: now(),
        ..before
    };
    let object = IdKind::Connection.text(after.connection_id);
    let change = caller.change("connection.replace", &object, json!({"name": after.name, "kind": after.kind}));
    app.store.put_connection(&after, &sealed(&app, &after.name, &secrets), &change).await?;
    Ok(([(header::ETAG, etag(after.revision))], Json(shown(&after))).into_response())
}

/// Delete a connection
#[utoipa::path(delete, path = "/api/v1/connections/{connection}", operation_id = "delete_connection", tag = "catalogue",
    params(("connection" = String, Path, description = "Name of a connection"), ("if-match" = String, Header, description = "ETag of the connection that was read, or `*`")), responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "There is no such connection", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A job or table uses it", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "if-match is missing", body = Problem, content_type = "application/problem+json")))]
async fn delete_connection(
    Admin(caller): Admin,
    State(app): State<App>,
    Path(connection): Path<String>,
    if_match: IfMatch,
) -> ApiResult<StatusCode> {
    let before = find(&app, &connection).await?;
    if_match.check(&format!("connection '{}'", before.name), before.revision)?;
    let object = IdKind::Connection.text(before.connection_id);
    let change = caller.change("connection.delete", &object, json!({"name": before.name}));
    app.store.delete_connection(&before.name, before.revision, &change).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Test a connection
///
/// Step by step, within ten seconds; the first step that fails is the last. Nothing is changed.
#[utoipa::path(post, path = "/api/v1/connections/{connection}/test", operation_id = "test_connection", tag = "catalogue",
    params(("connection" = String, Path, description = "Name of a connection")), responses(
        (status = 200, description = "How far it leads", body = ConnectionTest),
        (status = 404, description = "There is no such connection", body = Problem, content_type = "application/problem+json")))]
async fn test_connection(
    Operator(_): Operator,
    State(app): State<App>,
    Path(connection): Path<String>,
) -> ApiResult<Json<ConnectionTest>> {
    let (connection, sealed) = app.store.connection_with_secrets(&connection).await?;
    let kind = connection.kind.clone();
    let options = planning::options(&app, connection, &sealed)?;
    Ok(Json(inspect::test_connection(&app, &kind, options).await?))
}

fn table_shown(table: &metadata::Table) -> Table {
    let part = |name: &str| table.definition.get(name).cloned().unwrap_or_default();
    Table {
        id: IdKind::Table.text(table.table_id),
        name: table.name.clone(),
        sql: table.sql.clone(),
        connector: part("connector").as_str().unwrap_or_default().to_string(),
        columns: serde_json::from_value(part("columns")).unwrap_or_default(),
        created_at: table.created_at,
        updated_at: table.updated_at,
    }
}

/// List tables
#[utoipa::path(get, path = "/api/v1/tables", operation_id = "list_tables", tag = "catalogue", responses(
    (status = 200, description = "All tables of the catalogue, by name", body = Tables)))]
async fn list_tables(Viewer(_): Viewer, State(app): State<App>) -> ApiResult<Json<Tables>> {
    let mut items: Vec<Table> = app.store.tables().await?.iter().map(table_shown).collect();
    items.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Json(Tables { items }))
}

/// Create a table
///
/// From one `CREATE TABLE` statement. Every script then knows it; jobs keep what it was when they were planned.
#[utoipa::path(post, path = "/api/v1/tables", operation_id = "create_table", tag = "catalogue",
    request_body(content = CreateTable, description = "The statement"), responses(
        (status = 201, description = "Stored", body = Table,
            headers(("location" = String, description = "Path of the table"), ("etag" = String, description = "Revision of the table"))),
        (status = 403, description = "It uses a location or an endpoint that is not allowed, or the key does not allow it", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json")))]
async fn create_table(
    Operator(caller): Operator,
    State(app): State<App>,
    creation: Creation,
    body: Body<CreateTable>,
) -> ApiResult<Response> {
    let _flight = match creation.begin(&app, &caller, &body.hash).await? {
        Begun::Replay(response) => return Ok(response),
        begun => begun,
    };
    let sql = body.value.sql;
    let text = sql.clone();
    let described =
        tokio::task::spawn_blocking(move || sql::describe_table(&text)).await.map_err(ApiError::internal)?;
    let described = described.map_err(|problems| wrong_graph(items(&problems, Some(&sql), "")))?;
    if let Some(secret) = described.secret_option {
        let error = ApiError::new("inline_secret", format!("the table has the secret {secret} among its options"));
        return Err(error.hint("store it in a connection and name that: 'connection' = 'name'"));
    }
    for connection in &described.connections {
        find(&app, connection).await.map_err(|error| match error.code() {
            // It is the statement that is wrong, not the path of the request.
            "connection_not_found" => wrong_graph(vec![ProblemItem {
                code: "connection_not_found".into(),
                message: error.problem().detail.clone(),
                hint: Some("create it: POST /api/v1/connections; GET lists those that are there".into()),
                ..ProblemItem::default()
            }]),
            _ => error,
        })?;
    }
    if SOURCE_CONNECTORS.contains(&described.connector.as_str()) {
        // What reads it may not go elsewhere than what any script may.
        let name = graph::quoted(&described.name);
        let reading = Input { sql: Some(format!("{sql}\n;\nSELECT * FROM {name}")), ..Input::default() };
        let planned = plan(&app, reading).await?.map_err(|mut wrong| {
            // It is read from scripts of many directories.
            for item in wrong.iter_mut().filter(|item| item.code == PATH_NOT_ABSOLUTE) {
                item.hint = Some("write the whole path, from / on: every script shall find the same files".into());
            }
            wrong_graph(wrong)
        })?;
        inspect::check(&app, &planned).await?;
    }
    let now = now();
    let table = metadata::Table {
        table_id: Uuid::now_v7(),
        name: described.name,
        sql,
        definition: json!({"connector": described.connector, "columns": planning::columns(&described.columns.columns)}),
        connections: described.connections,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let path: String = url::form_urlencoded::byte_serialize(table.name.as_bytes()).collect();
    let answer = Answer::new(StatusCode::CREATED, &table_shown(&table))
        .header(header::LOCATION, format!("/api/v1/tables/{path}"))
        .header(header::ETAG, etag(1));
    let object = IdKind::Table.text(table.table_id);
    let change = creation.change(&caller, "table.create", &object, json!({"name": table.name}), &answer, &body.hash);
    let stored = app.store.create_table(&table, &change).await;
    creation.finish(stored, answer, &body.hash)
}

async fn find_table(app: &App, table: &str) -> ApiResult<metadata::Table> {
    app.store.table(table).await.map_err(|error: MetadataError| error.into())
}

/// Get a table
#[utoipa::path(get, path = "/api/v1/tables/{table}", operation_id = "get_table", tag = "catalogue",
    params(("table" = String, Path, description = "Name of a table")), responses(
        (status = 200, description = "The table", body = Table, headers(("etag" = String, description = "Revision of the table"))),
        (status = 404, description = "There is no such table", body = Problem, content_type = "application/problem+json")))]
async fn get_table(Viewer(_): Viewer, State(app): State<App>, Path(table): Path<String>) -> ApiResult<Response> {
    let table = find_table(&app, &table).await?;
    Ok(([(header::ETAG, etag(table.revision))], Json(table_shown(&table))).into_response())
}

/// Delete a table
///
/// Jobs that were planned with it go on.
#[utoipa::path(delete, path = "/api/v1/tables/{table}", operation_id = "delete_table", tag = "catalogue",
    params(("table" = String, Path, description = "Name of a table"), ("if-match" = String, Header, description = "ETag of the table that was read, or `*`")), responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "There is no such table", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 428, description = "if-match is missing", body = Problem, content_type = "application/problem+json")))]
async fn delete_table(
    Operator(caller): Operator,
    State(app): State<App>,
    Path(table): Path<String>,
    if_match: IfMatch,
) -> ApiResult<StatusCode> {
    let before = find_table(&app, &table).await?;
    if_match.check(&format!("table '{}'", before.name), before.revision)?;
    let change = caller.change("table.delete", &IdKind::Table.text(before.table_id), json!({"name": before.name}));
    app.store.delete_table(&before.name, before.revision, &change).await?;
    Ok(StatusCode::NO_CONTENT)
}
