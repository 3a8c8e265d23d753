//! Bounded queries: planned here, run in a process of their own with a limit of time and memory, streamed back as they come.

use std::path::Path;
use std::time::Duration;

use api::{ColumnFacts, Problem, QueryRows, SqlQuery};
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::record_batch::RecordBatch;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use control::attempt::{AttemptSpec, Credentials, End, Limits};
use futures::StreamExt;
use graph::connector::ViewSnapshotOptions;
use graph::{Graph, Operator, SinkConnector, SourceConnector};
use hyper::Method;
use serde_json::Value;
use tokio::process::Child;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;
use views::{Form, ViewError};

use super::views::{choose, put_down, refused};
use crate::app::App;
use crate::attempts::link::{Link, LinkError};
use crate::attempts::process;
use crate::auth::Operator as OperatorRole;
use crate::http::Body;
use crate::inspect;
use crate::planning::{self, Input, Planned, plan_with, wrong_graph};
use crate::problem::{ApiError, ApiResult, told};

pub const QUERY_PATH: &str = "/api/v1/sql/query";
/// A table of this path stands for a view until the query is planned. A storage that there is not: nothing can be read there.
const VIEW_PATH: &str = "highwater-view://";
const QUERY_PREFIX: &str = "query_";
/// Between two looks whether the process listens.
const LOOK: Duration = Duration::from_millis(5);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(query_sql))
}

/// Run a bounded query
///
/// One SELECT over tables and views, after any CREATE statements; every view is read at one complete epoch. Rows are streamed as they come.
/// If the query fails after the first row, the JSON answer ends with `error`, and CSV and Arrow break off without their end.
#[utoipa::path(post, path = "/api/v1/sql/query", operation_id = "query_sql", tag = "sql",
    params(("accept" = Option<String>, Header, description = "`application/json`, `text/csv` or `application/vnd.apache.arrow.stream`")),
    request_body(content = SqlQuery, description = "The query and its limits"), responses(
        (status = 200, description = "The rows", content(
            (QueryRows = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
        (status = 403, description = "A table uses a location or an endpoint that is not allowed, or the key does not allow it", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "A view that it reads has published nothing yet", body = Problem, content_type = "application/problem+json"),
        (status = 406, description = "None of the accepted media types can be given", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The query cannot run, never ends, or failed", body = Problem, content_type = "application/problem+json"),
        (status = 504, description = "The query took too long", body = Problem, content_type = "application/problem+json")))]
async fn query_sql(
    OperatorRole(caller): OperatorRole,
    State(app): State<App>,
    headers: HeaderMap,
    body: Body<SqlQuery>,
) -> ApiResult<Response> {
    let form = choose(&headers, &[Form::Json, Form::Csv, Form::Arrow])?;
    let permit = app.queries.clone().try_acquire_owned().map_err(|_| {
        let most = app.config.max_active_queries;
        ApiError::new("too_many_requests", format!("{most} queries run already, and the server allows no more"))
    })?;
    let query = body.value;
    let limits = limits(&app, &query)?;
    let planned = planned(&app, query.sql, query.base_directory).await?;
    let change = caller.change("sql.query", "", serde_json::json!({"hash": planned.hash(&Value::Null)}));
    app.store.audit(&change, "done").await?;
    let columns = result_columns(&planned);
    let running = Running::start(&app, planned, limits, permit).await?;
    let truncate = query.limit.unwrap_or(u64::MAX);
    let (pieces, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let stream = Stream { running, form, columns, left: truncate, pieces };
    let listener = stream.begin().await?;
    let body = futures::stream::unfold((body, listener), |(mut body, listener)| async move {
        Some((body.recv().await?, (body, listener)))
    });
    Ok(([(header::CONTENT_TYPE, form.media_type())], HttpBody::from_stream(body)).into_response())
}

fn limits(app: &App, query: &SqlQuery) -> ApiResult<Limits> {
    let timeout = match &query.timeout {
        None => app.config.query_timeout,
        Some(text) => humantime::parse_duration(text)
            .map_err(|error| ApiError::new("validation_failed", format!("timeout is {text:?}: {error}; write 30s")))?,
    };
    let seconds = timeout.min(app.config.query_timeout).as_secs_f64().ceil().max(1.0) as u64;
    let memory = query.memory_bytes.unwrap_or(u64::MAX).min(app.config.query_memory_bytes);
    Ok(Limits { memory_bytes: Some(memory), cpu_percent: app.config.run_cpu_percent, seconds: Some(seconds) })
}

/// The plan of a query: one bounded SELECT. Views are known as tables.
async fn planned(app: &App, sql: String, base_directory: Option<String>) -> ApiResult<Planned> {
    let views = app.store.views().await?;
    let declared = |view: &metadata::View| {
        let columns: Vec<ColumnFacts> = serde_json::from_value(view.definition["columns"].clone()).unwrap_or_default();
        let column = |column: &ColumnFacts| {
            let null = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{null}", graph::quoted(&column.name), column.data_type)
        };
        let columns = columns.iter().map(column).collect::<Vec<_>>().join(", ");
        let name = graph::quoted(&view.name);
        format!(
            "CREATE TABLE {name} ({columns}) WITH ('connector' = 'filesystem', 'format' = 'parquet', 'path' = '{VIEW_PATH}{}')",
            view.name
        )
    };
    let declarations = views.iter().map(declared).collect();
    let input = Input { sql: Some(sql), base_directory, ..Input::default() };
    let planned = plan_with(app, input, declarations).await?.map_err(wrong_graph)?;
    if planned.explain {
        return Err(ApiError::new("validation_failed", "EXPLAIN asks to see the plan, and a query is to run")
            .hint("validate the script: POST /api/v1/graphs/validate"));
    }
    let sinks: Vec<&graph::Sink> = planned
        .graph
        .nodes
        .iter()
        .filter_map(|node| match &node.operator {
            Operator::Sink(sink) => Some(sink),
            _ => None,
        })
        .collect();
    if !matches!(sinks.as_slice(), [sink] if matches!(sink.connector, SinkConnector::Print(_))) {
        let error = ApiError::new("validation_failed", "a query is one SELECT that is inserted nowhere");
        return Err(error.hint("submit what writes as a job: POST /api/v1/jobs"));
    }
    if !planned.analysis.bounded {
        let endless: Vec<&str> = planned
            .graph
            .nodes
            .iter()
            .filter_map(|node| match &node.operator {
                Operator::Source(source) if !source.connector.is_bounded() => Some(source.table.as_str()),
                _ => None,
            })
            .collect();
        let detail = format!("{} never ends, so the query would not either", endless.join(", "));
        return Err(ApiError::new("unbounded_query", detail)
            .hint("give the table an end ('scan.bounded.mode', 'number-of-rows'), or submit a job"));
    }
    planned.refuse_inline_secrets()?;
    Ok(planned)
}

fn result_columns(planned: &Planned) -> Vec<ColumnFacts> {
    let sink = planned.graph.nodes.iter().find(|node| matches!(node.operator, Operator::Sink(_)));
    let facts = sink.and_then(|node| planned.analysis.facts.get(&node.id));
    facts.map(|facts| planning::columns(&facts.schema.columns)).unwrap_or_default()
}

/// The process of a query. It ends with this, and its directory with it.
struct Running {
    link: Link,
    /// Until this is dropped.
    child: Option<Child>,
    ends: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Running {
    fn drop(&mut self) {
        let directory = self.link.directory.clone();
        let Some(mut child) = self.child.take() else { return };
        let _ = child.start_kill();
        tokio::spawn(async move {
            // It may still write its last words.
            let _ = child.wait().await;
            remove(&directory).await;
        });
    }
}

/// Removes the directory of a query, which is the parent of its attempt's.
async fn remove(attempt: &Path) {
    let query = attempt.parent().unwrap_or(attempt);
    if let Err(error) = tokio::fs::remove_dir_all(query).await {
        tracing::warn!(%error, directory = %query.display(), "the files of a query could not be removed");
    }
}

/// Removes the files of queries that were cut off with the server before this one. Blocks.
pub fn remove_left(app: &App) {
    let runs = app.config.data.join("runs");
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(QUERY_PREFIX) {
            for attempt in std::fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                process::kill(&attempt.path());
            }
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::warn!(%error, directory = %entry.path().display(), "the files of a query could not be removed");
            }
        }
    }
}

impl Running {
    async fn start(app: &App, planned: Planned, limits: Limits, permit: OwnedSemaphorePermit) -> ApiResult<Running> {
        let query_id = format!("{QUERY_PREFIX}{}", Uuid::now_v7().simple());
        let directory = process::directory(&app.config.data, &query_id, 1);
        process::make_directory(&directory).map_err(ApiError::internal)?;
        let mut graph = planned.graph.clone();
        let used = snapshots(app, &mut graph, &directory).await;
        let mut allowed_roots = app.config.allow_roots.clone();
        allowed_roots.push(directory.clone());
        let checked = match used {
            Ok(()) => inspect::check_graph(app, &graph, &planned.settings, &allowed_roots).await,
            Err(error) => Err(error),
        };
        let credentials = match checked {
            Ok(()) => planning::credentials(app, &graph).await,
            Err(error) => Err(error),
        };
        let started = credentials.and_then(|connections| {
            let spec = AttemptSpec {
                job: query_id.clone(),
                run_id: query_id,
                generation: 1,
                graph,
                settings: planned.settings.clone(),
                allowed_roots,
                egress: app.config.egress(),
                views_dir: directory.join("views"),
                start: Default::default(),
                checkpoints: None,
                limits: limits.clone(),
                serve_rows: true,
            };
            let token = process::prepare(&directory, &spec).map_err(ApiError::internal)?;
            let credentials = Credentials { token: token.clone(), connections, storage: Default::default() };
            let child = process::start(&app.config.program, &directory, &credentials).map_err(ApiError::internal)?;
            Ok((token, child))
        });
        match started {
            Ok((token, child)) => Ok(Running {
                link: Link { directory, token },
                child: Some(child),
                // The process gives up by itself; this is for one that cannot.
                ends: Instant::now() + Duration::from_secs(limits.seconds.unwrap_or(60)) + Duration::from_secs(5),
                _permit: permit,
            }),
            Err(error) => {
                remove(&directory).await;
                Err(error)
            }
        }
    }

    /// The stream of rows, once the process serves it.
    async fn rows(&mut self) -> ApiResult<hyper::Response<hyper::body::Incoming>> {
        loop {
            match self.link.open(Method::GET, "/rows", Bytes::new()).await {
                Ok(response) => return Ok(response),
                Err(LinkError::Closed) => {}
                Err(error) => tracing::debug!(%error, "a query's process does not serve its rows yet"),
            }
            let ended = self.child.as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
            if ended || Instant::now() > self.ends {
                return Err(self.failure().await);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Why the rows broke off.
    async fn failure(&mut self) -> ApiError {
        // The outcome is written before the stream ends; a process that was killed leaves none.
        if let Some(child) = &mut self.child {
            let _ = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
        }
        let Some(End::Failed(failure)) = process::outcome(&self.link.directory).map(|outcome| outcome.end) else {
            return ApiError::new(
                "query_failed",
                "the process of the query was lost; it may have had too little memory",
            );
        };
        let code = match failure.code.as_str() {
            "time_limit" => "query_timeout",
            "location_not_allowed" => "location_not_allowed",
            "endpoint_not_allowed" => "endpoint_not_allowed",
            _ if failure.fault == "internal" => {
                return ApiError::internal(format!("{}: {}", failure.code, failure.message));
            }
            _ => "query_failed",
        };
        let (message, hint) = told(&failure.code, &failure.message, failure.hint.as_deref());
        let item =
            api::ProblemItem { code: failure.code, message: message.clone(), hint: hint.clone(), ..Default::default() };
        let error = ApiError::new(code, message).errors([item]);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Writes down the rows of every view that the query reads, and lets it read them there.
async fn snapshots(app: &App, graph: &mut Graph, directory: &std::path::Path) -> ApiResult<()> {
    for node in &mut graph.nodes {
        let Operator::Source(source) = &mut node.operator else { continue };
        let SourceConnector::Filesystem(files) = &source.connector else { continue };
        let Some(name) = files.path.strip_prefix(VIEW_PATH) else { continue };
        let view = app.store.view(name).await?;
        let path = directory.join(format!("view-{}.arrow", Uuid::now_v7().simple()));
        if !put_down(app, &view, &path).await? {
            return Err(super::views::unpublished(app, &view).await);
        }
        source.connector = SourceConnector::ViewSnapshot(ViewSnapshotOptions { path: path.display().to_string() });
    }
    Ok(())
}

/// Whoever waits for the rows. When this is dropped nobody does, and the process ends, also one that has no rows to give yet.
struct Listener(#[expect(dead_code, reason = "its drop is what it is for")] oneshot::Sender<()>);

/// Rows on their way from the process to the caller, on a thread that may block.
struct Stream {
    running: Running,
    form: Form,
    columns: Vec<ColumnFacts>,
    /// Rows that may still be sent.
    left: u64,
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
}

impl Stream {
    /// Waits for the first rows, or the end: what fails until then is a problem with a status of its own.
    async fn begin(mut self) -> ApiResult<Listener> {
        let response = self.running.rows().await?;
        let (chunks, received) = mpsc::channel(2);
        let ends = self.running.ends;
        let directory = self.running.link.directory.clone();
        let (listener, mut left) = oneshot::channel();
        let listener = Listener(listener);
        tokio::spawn(async move {
            let mut body = HttpBody::new(response.into_body()).into_data_stream();
            loop {
                let chunk = tokio::select! {
                    chunk = tokio::time::timeout_at(ends, body.next()) => match chunk {
                        Ok(Some(Ok(chunk))) => Chunk::Bytes(chunk),
                        Ok(None) => Chunk::End,
                        Ok(Some(Err(_))) | Err(_) => Chunk::Broken,
                    },
                    _ = &mut left => {
                        process::kill(&directory);
                        Chunk::Broken
                    }
                };
                let last = !matches!(chunk, Chunk::Bytes(_));
                if chunks.send(chunk).await.is_err() || last {
                    return;
                }
            }
        });
        let (begun, answer) = oneshot::channel();
        tokio::task::spawn_blocking(move || self.run(Batches::new(received), begun));
        match answer.await {
            Ok(begun) => begun.map(|()| listener),
            Err(_) => Err(ApiError::internal("the thread of a query's rows has ended")),
        }
    }

    fn run(mut self, mut batches: Batches, begun: oneshot::Sender<ApiResult<()>>) {
        let tokio = tokio::runtime::Handle::current();
        let first = batches.next();
        let schema = batches.decoder.schema();
        let (Some(schema), false) = (schema, matches!(first, Some(Err(_)))) else {
            let _ = begun.send(Err(tokio.block_on(self.running.failure())));
            return;
        };
        // Behind its end a stream looks as if it had broken off: it is not asked again.
        let rest = if first.is_some() { usize::MAX } else { 0 };
        let mut rows = Limited {
            batches: first.into_iter().chain(batches.by_ref().take(rest)),
            left: self.left,
            truncated: false,
            broken: false,
        };
        let encoded = match self.form.encode(&schema, &mut rows) {
            Ok(encoded) => encoded,
            Err(error) => return drop(begun.send(Err(refused(error)))),
        };
        if begun.send(Ok(())).is_err() {
            return;
        }
        // A reader that takes nothing for so long gives its place to others.
        let ends = self.running.ends;
        let send = |piece: Result<Bytes, std::io::Error>| {
            tokio.block_on(async { matches!(tokio::time::timeout_at(ends, self.pieces.send(piece)).await, Ok(Ok(()))) })
        };
        let send_bytes = |bytes: Vec<u8>| send(Ok(bytes.into()));
        if self.form == Form::Json {
            let columns = serde_json::to_string(&self.columns).unwrap_or_else(|_| "[]".into());
            if !send_bytes(format!("{{\"columns\":{columns},\"rows\":").into_bytes()) {
                return;
            }
        }
        let mut wrong = None;
        // The end of the rows is held back: of rows that broke off it must not be sent.
        let mut held: Option<Vec<u8>> = None;
        for piece in encoded {
            match piece {
                Ok(piece) => {
                    if let Some(piece) = held.replace(piece)
                        && !send_bytes(piece)
                    {
                        return;
                    }
                }
                Err(error) => wrong = Some(refused(error)),
            }
        }
        let truncated = rows.truncated;
        if rows.broken {
            wrong = Some(tokio.block_on(self.running.failure()));
        }
        match (wrong, self.form) {
            (Some(wrong), Form::Csv | Form::Arrow) => {
                // Without its end the reader knows that rows are missing.
                send(Err(std::io::Error::other(wrong.problem().detail.clone())));
            }
            (wrong, form) => {
                let mut last = held.unwrap_or_default();
                if form == Form::Json {
                    let error = wrong.and_then(|wrong| serde_json::to_string(wrong.problem()).ok());
                    let error = error.map_or_else(String::new, |error| format!(",\"error\":{error}"));
                    last.extend(format!(",\"truncated\":{truncated}{error}}}").into_bytes());
                }
                send_bytes(last);
            }
        }
    }
}

enum Chunk {
    Bytes(Bytes),
    End,
    /// The process has failed, or its time is over.
    Broken,
}

/// Batches out of the chunks of an Arrow IPC stream. Blocks.
struct Batches {
    chunks: mpsc::Receiver<Chunk>,
    decoder: StreamDecoder,
    rest: Buffer,
}

impl Batches {
    fn new(chunks: mpsc::Receiver<Chunk>) -> Batches {
        Batches { chunks, decoder: StreamDecoder::new(), rest: Buffer::from(Vec::<u8>::new()) }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.decoder.decode(&mut self.rest) {
                Ok(Some(batch)) => return Some(Ok(batch)),
                Ok(None) => {}
                Err(error) => return Some(Err(error.into())),
            }
            match self.chunks.blocking_recv() {
                Some(Chunk::Bytes(bytes)) => self.rest = Buffer::from(bytes),
                Some(Chunk::End) => return None,
                Some(Chunk::Broken) | None => {
                    let broken = std::io::Error::other("the rows broke off");
                    return Some(Err(arrow::error::ArrowError::from(broken).into()));
                }
            }
        }
    }
}

/// At most so many rows; an error ends them and is noted, not passed on.
struct Limited<I> {
    batches: I,
    left: u64,
    truncated: bool,
    broken: bool,
}

impl<I: Iterator<Item = Result<RecordBatch, ViewError>>> Iterator for Limited<I> {
    type Item = Result<RecordBatch, ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.truncated || self.broken {
            return None;
        }
        match self.batches.next()? {
            Ok(batch) => {
                let rows = (batch.num_rows() as u64).min(self.left);
                self.truncated = rows < batch.num_rows() as u64;
                self.left -= rows;
                Some(Ok(batch.slice(0, rows as usize)))
            }
            Err(_) => {
                self.broken = true;
                None
            }
        }
    }
}
