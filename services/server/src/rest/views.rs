//! Views: results of jobs, read at one complete epoch.

use std::time::Duration;

use api::{Consistency, IdKind, Problem, RunFailure, View, ViewRows, Views};
use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use hyper::Method;
use hyper::body::Incoming;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use views::{Form, OrderBy, Query, ViewError};

use crate::app::App;
use crate::attempts::link::{Link, LinkError};
use crate::auth::Viewer;
use crate::facts::time;
use crate::http::Params;
use crate::http::precondition::none_match;
use crate::problem::{ApiError, ApiResult};

/// A running job that says nothing for so long is stopped, or has too much to sort.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_views)).routes(routes!(get_view)).routes(routes!(get_view_rows))
}

fn shown(view: &metadata::View) -> View {
    let part = |name: &str| view.definition.get(name).cloned().unwrap_or_default();
    View {
        name: view.name.clone(),
        job_id: IdKind::Job.text(view.job_id),
        job_name: view.job_name.clone(),
        columns: serde_json::from_value(part("columns")).unwrap_or_default(),
        key: serde_json::from_value(part("key")).unwrap_or_default(),
    }
}

/// List views
#[utoipa::path(get, path = "/api/v1/views", operation_id = "list_views", tag = "views", responses(
    (status = 200, description = "All views, by name", body = Views)))]
async fn list_views(Viewer(_): Viewer, State(app): State<App>) -> ApiResult<Json<Views>> {
    let mut items: Vec<View> = app.store.views().await?.iter().map(shown).collect();
    items.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Json(Views { items }))
}

/// Get a view
#[utoipa::path(get, path = "/api/v1/views/{view}", operation_id = "get_view", tag = "views",
    params(("view" = String, Path, description = "Name of a view")), responses(
        (status = 200, description = "The view", body = View),
        (status = 404, description = "There is no such view", body = Problem, content_type = "application/problem+json")))]
async fn get_view(Viewer(_): Viewer, State(app): State<App>, Path(view): Path<String>) -> ApiResult<Json<View>> {
    Ok(Json(shown(&app.store.view(&view).await?)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Rows {
    /// Which version is read. `latest` is what a running job shows; `durable` what survives it. Default: `latest` while the job runs, else
    /// `durable`.
    consistency: Option<Consistency>,
    /// Columns of the answer, in this order; may be repeated. Default: all.
    #[serde(default)]
    column: Vec<String>,
    /// Only rows for which this SQL condition over the columns is true.
    #[param(max_length = 4096)]
    filter: Option<String>,
    /// `column` or `column desc`; may be repeated. Default: by key, or in the order of arrival.
    #[serde(default)]
    order_by: Vec<String>,
    /// Rows at most. Default: 1000.
    #[param(minimum = 1, maximum = 100000)]
    limit: Option<i64>,
    /// Rows to leave out at the beginning. Default: 0.
    #[param(minimum = 0, maximum = 1000000)]
    offset: Option<i64>,
}

/// Get rows of a view
///
/// All of one complete epoch. The ETag is its version: with `if-none-match` an unchanged view answers 304. As JSON the answer says how stale
/// it is; CSV and Arrow carry only rows, and the headers say it.
#[utoipa::path(get, path = "/api/v1/views/{view}/rows", operation_id = "get_view_rows", tag = "views",
    params(("view" = String, Path, description = "Name of a view"), Rows,
        ("if-none-match" = Option<String>, Header, description = "ETag that is known already"),
        ("accept" = Option<String>, Header, description = "`application/json`, `text/csv` or `application/vnd.apache.arrow.stream`")), responses(
        (status = 200, description = "Rows of one complete epoch", content(
            (ViewRows = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream")),
            headers(("etag" = String, description = "The version"), ("highwater-durable" = String, description = "`true` or `false`"),
                ("highwater-watermark" = Option<String>, description = "Results are complete up to this time"),
                ("highwater-lag-ms" = String, description = "How long ago the version was made"),
                ("highwater-removed-rows" = String, description = "Rows that a view without a key has removed"))),
        (status = 304, description = "The version is the one that is known already"),
        (status = 404, description = "There is no such view, or it has no rows yet", body = Problem, content_type = "application/problem+json"),
        (status = 406, description = "None of the accepted media types can be given", body = Problem, content_type = "application/problem+json")))]
async fn get_view_rows(
    Viewer(_): Viewer,
    State(app): State<App>,
    Path(view): Path<String>,
    Params(rows): Params<Rows>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let form = accepted(&headers)?;
    let view = app.store.view(&view).await?;
    let query = query(&rows)?;
    let live = live(&app, &view).await?;
    let consistency =
        rows.consistency.unwrap_or(if live.is_some() { Consistency::Latest } else { Consistency::Durable });
    let read = match (consistency, live) {
        (Consistency::Latest, Some(link)) => match latest(&link, &view.name, &query, form, &headers).await? {
            Some(read) => Some(read),
            None => durable(&app, &view, query, form, &headers).await?,
        },
        _ => durable(&app, &view, query, form, &headers).await?,
    };
    let Some(read) = read else { return Err(unpublished(&app, &view).await) };
    Ok(read.into_response(form))
}

/// Why nothing can be read of a view: whoever waits for a run that has ended waits in vain.
pub async fn unpublished(app: &App, view: &metadata::View) -> ApiError {
    let newest = async { app.store.run(app.store.job(view.job_id).await.ok()?.latest_run?).await.ok() };
    let refusal = |why: &str| ApiError::new("no_rows_yet", format!("view '{}' has published nothing{why}", view.name));
    let start = || format!("start a run of job '{0}': `highwater start {0}`", view.job_name);
    match newest.await {
        Some(run) if run.active => refusal(" yet"),
        Some(run) => {
            let run_id = IdKind::Run.text(run.run_id);
            let failure = run.failure.and_then(|failure| serde_json::from_value::<RunFailure>(failure).ok());
            let cause = failure.map(|RunFailure { problem, .. }| format!(" ({}: {})", problem.code, problem.detail));
            let cause = cause.unwrap_or_default();
            refusal(&format!(": {run_id} became {}{cause} before it published", run.state)).hint(start())
        }
        None => refusal(" yet").hint(start()),
    }
}

/// The control socket of the run that writes the view now.
pub async fn live(app: &App, view: &metadata::View) -> ApiResult<Option<Link>> {
    let job = app.store.job(view.job_id).await?;
    Ok(job.latest_run.and_then(|run_id| app.attempts.get(run_id)).and_then(|live| live.link()))
}

fn accepted(headers: &HeaderMap) -> ApiResult<Form> {
    choose(headers, &[Form::Json, Form::Csv, Form::Arrow])
}

/// The first form that the request accepts, by its own order of wishes.
pub fn choose(headers: &HeaderMap, forms: &[Form]) -> ApiResult<Form> {
    let given = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let mut wishes: Vec<(f32, &str)> = given
        .split(',')
        .filter_map(|wish| {
            let mut parts = wish.split(';').map(str::trim);
            let media = parts.next()?;
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
            (quality > 0.0).then_some((quality, media))
        })
        .collect();
    wishes.sort_by(|one, other| other.0.total_cmp(&one.0));
    let essence = |form: &Form| form.media_type().split(';').next().unwrap_or_default().to_string();
    for (_, media) in &wishes {
        let found = forms.iter().find(|form| {
            let essence = essence(form);
            let group = essence.split('/').next().unwrap_or_default();
            *media == "*/*" || media.eq_ignore_ascii_case(&essence) || *media == format!("{group}/*")
        });
        if let Some(form) = found {
            return Ok(*form);
        }
    }
    let can: Vec<String> = forms.iter().map(essence).collect();
    Err(ApiError::new("not_acceptable", format!("the answer can be {}", can.join(", "))))
}

fn query(rows: &Rows) -> ApiResult<Query> {
    let order = |text: &String| {
        let (column, direction) = match text.rsplit_once(' ') {
            Some((column, direction)) if ["asc", "desc"].contains(&direction.to_ascii_lowercase().as_str()) => {
                (column.trim(), direction.to_ascii_lowercase())
            }
            _ => (text.as_str(), "asc".into()),
        };
        OrderBy { column: column.to_string(), descending: direction == "desc", nulls_first: None }
    };
    Ok(Query {
        columns: rows.column.clone(),
        filter: rows.filter.clone(),
        order_by: rows.order_by.iter().map(order).collect(),
        limit: rows.limit.unwrap_or(views::DEFAULT_LIMIT as i64) as u64,
        offset: rows.offset.unwrap_or(0) as u64,
    })
}

/// Rows of a version, encoded, and what is said with them.
struct Read {
    version: String,
    durable: bool,
    watermark: Option<DateTime<Utc>>,
    at: DateTime<Utc>,
    total_rows: u64,
    removed_rows: u64,
    /// `None`: the caller knows the version.
    body: Option<Vec<u8>>,
}

impl Read {
    /// A weak one: the forms of a version differ, and mean the same.
    fn tag(&self) -> String {
        format!("W/\"{}\"", self.version)
    }

    fn into_response(self, form: Form) -> Response {
        let tag = self.tag();
        let lag_ms = (Utc::now() - self.at).num_milliseconds().max(0);
        let mut response = match self.body {
            None => StatusCode::NOT_MODIFIED.into_response(),
            Some(rows) => {
                let body = match form {
                    Form::Json => {
                        // The rows are JSON already: they are set in as they are.
                        let head = serde_json::json!({
                            "version": self.version,
                            "durable": self.durable,
                            "watermark": self.watermark,
                            "lag_ms": lag_ms,
                            "total_rows": self.total_rows,
                            "removed_rows": self.removed_rows,
                        });
                        let mut head = head.as_object().cloned().unwrap_or_default();
                        head.retain(|_, value| !value.is_null());
                        let mut text = serde_json::to_vec(&head).expect("texts and numbers are JSON");
                        text.pop();
                        text.extend(b",\"rows\":");
                        text.extend(rows);
                        text.push(b'}');
                        text
                    }
                    Form::Csv | Form::Arrow => rows,
                };
                ([(header::CONTENT_TYPE, form.media_type())], body).into_response()
            }
        };
        let headers = response.headers_mut();
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set("etag", tag);
        set("cache-control", "no-cache".into());
        set("vary", "accept".into());
        set("highwater-durable", self.durable.to_string());
        set("highwater-lag-ms", lag_ms.to_string());
        set("highwater-removed-rows", self.removed_rows.to_string());
        if let Some(watermark) = self.watermark {
            set("highwater-watermark", watermark.to_rfc3339());
        }
        response
    }
}

/// What a running job shows; `None` before its first complete epoch.
async fn latest(link: &Link, view: &str, query: &Query, form: Form, headers: &HeaderMap) -> ApiResult<Option<Read>> {
    let Some((read, rows)) = ask(link, view, query).await? else { return Ok(None) };
    if none_match(headers, &read.tag()) {
        return Ok(Some(read));
    }
    let rows = http_body_util::BodyExt::collect(rows).await;
    let rows = rows.map_err(|_| ApiError::new("not_ready", "the run ended while it showed the view; ask again"))?;
    let batches = rows.to_bytes();
    let body = tokio::task::spawn_blocking(move || {
        let rows = arrow::ipc::reader::StreamReader::try_new(std::io::Cursor::new(batches), None)?;
        let schema = rows.schema();
        join(form.encode(&schema, rows.map(|batch| batch.map_err(ViewError::from)))?)
    });
    let body = body.await.map_err(ApiError::internal)?.map_err(refused)?;
    Ok(Some(Read { body: Some(body), ..read }))
}

async fn open(link: &Link, path: &str) -> Result<hyper::Response<Incoming>, LinkError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, link.open(Method::GET, path, Bytes::new()));
    answer.await.unwrap_or(Err(LinkError::Silent))
}

/// The answer of a running job to a query at its newest epoch: what it says of it, and an Arrow IPC stream with the rows, not read yet.
async fn ask(link: &Link, view: &str, query: &Query) -> ApiResult<Option<(Read, Incoming)>> {
    let text = serde_json::to_string(query).map_err(ApiError::internal)?;
    let text: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    let path = format!("/views/{view}?query={}", text.replace('+', "%20"));
    let response = match open(link, &path).await {
        Ok(response) => response,
        Err(LinkError::Refused { status: StatusCode::NOT_FOUND, .. } | LinkError::Closed) => return Ok(None),
        Err(LinkError::Refused { status, body }) if status.is_client_error() => {
            let said: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let message = said["message"].as_str().unwrap_or("the question cannot be answered");
            let error = ApiError::new("validation_failed", message);
            return Err(match said["hint"].as_str() {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
        Err(error) => {
            tracing::warn!(%error, view, "a running job did not show its view");
            return Err(ApiError::new("not_ready", "the run that writes the view does not answer now"));
        }
    };
    let number = |name: &str| -> Option<i64> { response.headers().get(name)?.to_str().ok()?.parse().ok() };
    let head = Read {
        version: format!("{}-e{}", link.attempt(), number("x-epoch").unwrap_or(0)),
        durable: false,
        watermark: time(number("x-watermark-us")),
        at: number("x-at-us").and_then(DateTime::from_timestamp_micros).unwrap_or_default(),
        total_rows: number("x-rows").unwrap_or(0) as u64,
        removed_rows: number("x-removed").unwrap_or(0) as u64,
        body: None,
    };
    Ok(Some((head, response.into_body())))
}

/// What outlives runs and server; `None` before the first finished run.
async fn durable(
    app: &App,
    view: &metadata::View,
    query: Query,
    form: Form,
    headers: &HeaderMap,
) -> ApiResult<Option<Read>> {
    let files = app.view_files(view).map_err(refused)?;
    let headers = headers.clone();
    let read = tokio::task::spawn_blocking(move || -> Result<Option<Read>, ViewError> {
        let Some(stored) = files.newest()? else { return Ok(None) };
        let manifest = &stored.manifest;
        let read = Read {
            // Numbers begin anew with a new job of the view's name.
            version: format!("{}-v{}", manifest.by.run_id, manifest.version),
            durable: true,
            watermark: time(manifest.watermark_us),
            at: DateTime::from_timestamp_micros(manifest.at_us).unwrap_or_default(),
            total_rows: manifest.rows,
            removed_rows: manifest.dropped,
            body: None,
        };
        if none_match(&headers, &read.tag()) {
            return Ok(Some(read));
        }
        let answer = stored.query(&query)?;
        let body = join(form.encode(&answer.rows.schema(), std::iter::once(Ok(answer.rows.clone())))?)?;
        Ok(Some(Read { body: Some(body), ..read }))
    });
    read.await.map_err(ApiError::internal)?.map_err(refused)
}

fn join(pieces: impl Iterator<Item = Result<Vec<u8>, ViewError>>) -> Result<Vec<u8>, ViewError> {
    let mut all = Vec::new();
    for piece in pieces {
        all.extend(piece?);
    }
    Ok(all)
}

pub fn refused(error: ViewError) -> ApiError {
    let refused = match error.fault() {
        views::Fault::User => ApiError::new("validation_failed", error.to_string()),
        views::Fault::External => ApiError::new("not_ready", error.to_string()),
        _ => ApiError::internal(&error),
    };
    match error.hint() {
        Some(hint) => refused.hint(hint),
        None => refused,
    }
}

/// Writes the rows of a view as a query will read them, to a file. False if there are none yet.
pub async fn put_down(app: &App, view: &metadata::View, path: &std::path::Path) -> ApiResult<bool> {
    if let Some(link) = live(app, view).await? {
        match open(&link, &format!("/views/{}", view.name)).await {
            Ok(response) => {
                let mut file = tokio::fs::File::create(path).await.map_err(ApiError::internal)?;
                let mut body = HttpBody::new(response.into_body()).into_data_stream();
                while let Some(chunk) = body.next().await {
                    let chunk = chunk
                        .map_err(|_| ApiError::new("not_ready", "the run ended while it showed the view; ask again"))?;
                    tokio::io::AsyncWriteExt::write_all(&mut file, &chunk).await.map_err(ApiError::internal)?;
                }
                tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(ApiError::internal)?;
                return Ok(true);
            }
            Err(LinkError::Refused { status: StatusCode::NOT_FOUND, .. } | LinkError::Closed) => {}
            Err(error) => {
                tracing::warn!(%error, view = view.name, "a running job did not show its view");
                return Err(ApiError::new(
                    "not_ready",
                    format!("the run that writes the view {} does not answer now", view.name),
                ));
            }
        }
    }
    let files = app.view_files(view).map_err(refused)?;
    let path = path.to_path_buf();
    let written = tokio::task::spawn_blocking(move || -> Result<bool, ViewError> {
        let Some(stored) = files.newest()? else { return Ok(false) };
        let file = std::io::BufWriter::new(
            std::fs::File::create(&path).map_err(|error| ViewError::from(arrow::error::ArrowError::from(error)))?,
        );
        let mut writer = arrow::ipc::writer::StreamWriter::try_new(file, &stored.schema())?;
        for batch in stored.batches()? {
            writer.write(&batch?)?;
        }
        writer.finish()?;
        Ok(true)
    });
    written.await.map_err(ApiError::internal)?.map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_that_is_wished_for_most() {
        let form = |accept: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
            }
            accepted(&headers).map_err(|error| error.code().to_string())
        };
        assert_eq!(form(None), Ok(Form::Json));
        assert_eq!(form(Some("text/csv;q=0.5, application/json;q=0.4")), Ok(Form::Csv));
        assert_eq!(form(Some("text/html, */*;q=0.1")), Ok(Form::Json));
        assert_eq!(form(Some("application/vnd.apache.arrow.stream")), Ok(Form::Arrow));
        assert_eq!(form(Some("image/png")), Err("not_acceptable".into()));
        assert_eq!(form(Some("text/csv;q=0")), Err("not_acceptable".into()));
    }
}
