//! Errors of requests: every kind with its status, and how others' errors become one.

use api::{PROBLEM_ERRORS_MAX, Problem, ProblemItem};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metadata::MetadataError;

/// Code, status, title, and what the page about it says.
pub type Kind = (&'static str, u16, &'static str, &'static str);

/// Every kind of error that a request can meet. The page about a code is served under `/docs/problems/{code}`.
#[rustfmt::skip]
pub const KINDS: &[Kind] = &[
    ("bad_request", 400, "The request cannot be read", "Its form is not that of HTTP or of this API: the detail says where."),
    ("malformed_json", 400, "The body is not JSON", "Send one JSON document in UTF-8, without a byte order mark. Line and column say where it breaks off."),
    ("duplicate_key", 400, "A key stands twice in an object", "JSON leaves open which one counts, so neither is taken: remove one."),
    ("too_deep", 400, "The body is nested too deeply", "At most 64 levels are read."),
    ("invalid_id", 400, "The identifier has another form", "Identifiers are a prefix and 32 hexadecimal digits, as the API has given them; jobs are also known by name."),
    ("invalid_cursor", 400, "The page token cannot be used", "Give the token of the page before, with the same filters, unchanged; or begin without one."),
    ("unauthenticated", 401, "An API key is needed", "Send the header `Authorization: Bearer KEY`. An admin makes keys with `highwater keys create NAME --role ROLE`; whoever has none makes one on the machine of the server, while it is stopped: `highwater keys create NAME --role admin --data DIR`."),
    ("forbidden", 403, "The key does not allow it", "Ask for a key with the role that the detail names."),
    ("host_not_allowed", 403, "The host of the request is not this server's", "Without keys the server answers only to requests for a loopback name: a page in a browser cannot reach it by a name of its own."),
    ("location_not_allowed", 403, "The location is not allowed", "Tables and savepoints may use files below the directories that the server was started with (`--allow-root`), savepoints also the places in S3 among them."),
    ("endpoint_not_allowed", 403, "The endpoint is not allowed", "Connectors may connect where the server's configuration allows it (`--allow-endpoint`). Cloud metadata addresses are never allowed."),
    ("not_found", 404, "There is no such thing", "The path or the name is unknown."),
    ("job_not_found", 404, "There is no such job", "List the jobs: `GET /api/v1/jobs`."),
    ("run_not_found", 404, "There is no such run", "List the runs: `GET /api/v1/runs`."),
    ("savepoint_not_found", 404, "There is no such savepoint", "List those of a job: `GET /api/v1/jobs/{job}/savepoints`. A directory is a savepoint once it has its `manifest.json`, which is written and copied last."),
    ("operation_not_found", 404, "There is no such operation", "Operations are kept for seven days after their end."),
    ("view_not_found", 404, "There is no such view", "List the views: `GET /api/v1/views`."),
    ("connection_not_found", 404, "There is no such connection", "List the connections: `GET /api/v1/connections`."),
    ("table_not_found", 404, "There is no such table", "List the tables: `GET /api/v1/tables`."),
    ("key_not_found", 404, "There is no such key", "List the keys: `GET /api/v1/keys`."),
    ("no_rows_yet", 404, "The view has no rows to show yet", "While its first run goes on: ask again, or for the latest epoch with `consistency=latest`. A run that was cancelled or has failed publishes nothing more: start another one."),
    ("method_not_allowed", 405, "The method is not allowed here", "The header `allow` lists those that are."),
    ("not_acceptable", 406, "None of the accepted media types can be given", "The detail lists those that can."),
    ("request_timeout", 408, "The request took too long to arrive", "Send the whole request without stopping."),
    ("name_taken", 409, "The name is taken", "Choose another name, or change what has it."),
    ("run_active", 409, "The job has an active run", "Wait for its end or stop it: `POST /api/v1/runs/{run}/stop`."),
    ("invalid_state", 409, "The state does not allow it", "The detail names the state and what is possible in it."),
    ("in_use", 409, "It is in use", "Remove what uses it first."),
    ("last_admin_key", 409, "The last admin key stays", "Without it nobody could make keys any more. Create another admin key first, or revoke it on the machine of the server, while it is stopped: `highwater keys revoke KEY --data DIR`."),
    ("savepoint_conflict", 409, "The savepoint does not fit", "Each part that does not fit is listed under `errors` with its reason. `POST /api/v1/savepoints/{savepoint}/check` says it before anything runs; what may be lost is named in `allow_dropped_state`."),
    ("savepoint_rewind", 409, "The savepoint is older than what the sinks show", "Say with `on_rewind` what happens to the rows of the time after it: `append_again` or `truncate_after`, where the sinks can; or restore it in another job."),
    ("sink_conflict", 409, "Another job writes there", "Two jobs cannot write one output: change one of them."),
    ("request_in_flight", 409, "The same request is being answered", "Wait for the first one, then ask again with the same key."),
    ("precondition_failed", 412, "It was changed in the meantime", "Read it again and decide anew; `if-match` takes its new ETag."),
    ("body_too_large", 413, "The body is too large", "The detail names the limit."),
    ("uri_too_long", 414, "The path is too long", "At most 8 KiB are read."),
    ("unsupported_media_type", 415, "The media type is not understood", "Send `content-type: application/json`, not compressed."),
    ("validation_failed", 422, "The request is not valid", "Everything that is wrong is listed under `errors`."),
    ("invalid_graph", 422, "The script or graph cannot run", "Everything that is wrong is listed under `errors`, with its place in the script or graph."),
    ("savepoint_format", 422, "The savepoint has another format", "It was written by another version of Highwater: restore it with one that knows its format."),
    ("savepoint_corrupt", 422, "The savepoint is not what was written", "A file of it is missing or was changed; the detail names it. Copy it again, whole."),
    ("savepoint_storage", 422, "The savepoint cannot be written or read", "The detail says why: make room, or give the server access to its directory or bucket. Nothing is lost: what it was to be a copy of, or is, was not changed."),
    ("idempotency_mismatch", 422, "The idempotency key was used with another body", "Use a new key for a new request."),
    ("guarantee_not_available", 422, "The sink cannot guarantee that", "The detail says what is possible."),
    ("inline_secret", 422, "A secret stands in the job", "Put it into a connection (`POST /api/v1/connections`) and name that: `'connection' = 'name'`."),
    ("path_not_absolute", 422, "A path is relative, and nothing says where it begins", "Write paths of tables from `/` on, or give `base_directory`, an absolute path that relative ones begin at: the server's own directory is nobody's business."),
    ("unbounded_query", 422, "The query never ends", "Query bounded tables and views only, or submit a job."),
    ("query_failed", 422, "The query failed", "The detail says why."),
    ("precondition_required", 428, "The request must say which version it changes", "Send `if-match` with the ETag that was read, or `*`."),
    ("too_many_requests", 429, "Too many requests", "Wait as long as `retry-after` says."),
    ("too_many_runs", 429, "Too many runs are active", "Stop one, or raise the limit of the server."),
    ("headers_too_large", 431, "The headers are too large", "At most 16 KiB and 100 fields are read."),
    ("run_failed", 422, "The run failed", "The code of its failure says why, and its detail on what: those of tables are listed with the connectors in the documentation. `fault` says whose it is (yours, of another system, of Highwater), `retryable` whether the same run may succeed when it is started again."),
    ("internal", 500, "Something is broken in Highwater", "The log of the server has the cause under the request id. Please report it."),
    ("metadata_unavailable", 503, "The metadata store cannot be reached", "Running jobs go on. Ask again as `retry-after` says; if the detail says that a disk is full, someone must make room on it first."),
    ("not_ready", 503, "The server is not ready", "It starts or ends: ask again."),
    ("query_timeout", 504, "The query took too long", "Ask for less, or give it more time."),
];

/// What is sent instead of an answer.
#[derive(Debug)]
pub struct ApiError {
    problem: Box<Problem>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// Of a kind of [`KINDS`]; `detail` says what was attempted, on what, and why not.
    pub fn new(code: &'static str, detail: impl Into<String>) -> ApiError {
        let (_, status, title, _) = kind(code);
        let problem = Problem {
            kind: format!("/docs/problems/{code}"),
            title: (*title).to_string(),
            status: *status,
            detail: detail.into(),
            instance: None,
            code: code.to_string(),
            hint: None,
            request_id: None,
            errors: Vec::new(),
        };
        let retry = matches!(status, 429 | 503).then(|| (header::RETRY_AFTER, HeaderValue::from_static("1")));
        ApiError { problem: Box::new(problem), headers: retry.into_iter().collect() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> ApiError {
        self.problem.hint = Some(hint.into());
        self
    }

    /// With everything that is wrong; the first fifty are shown.
    pub fn errors(mut self, errors: impl IntoIterator<Item = ProblemItem>) -> ApiError {
        self.problem.errors = errors.into_iter().take(PROBLEM_ERRORS_MAX).collect();
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> ApiError {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.retain(|(known, _)| *known != name);
            self.headers.push((name, value));
        }
        self
    }

    /// Something of ours is broken: the cause is logged, and not sent.
    pub fn internal(cause: impl std::fmt::Display) -> ApiError {
        tracing::error!(%cause, "a request met a bug");
        ApiError::new("internal", "the request could not be answered; the server's log has the cause")
    }

    pub fn code(&self) -> &str {
        &self.problem.code
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The error for a status that a library has answered with.
    pub fn of_status(status: StatusCode) -> ApiError {
        match status {
            StatusCode::NOT_FOUND => ApiError::new("not_found", "there is nothing at this path"),
            StatusCode::METHOD_NOT_ALLOWED => ApiError::new("method_not_allowed", "the path does not take this method"),
            StatusCode::PAYLOAD_TOO_LARGE => ApiError::new("body_too_large", "the body is larger than is read here"),
            StatusCode::URI_TOO_LONG => ApiError::new("uri_too_long", "the path and query have more than 8 KiB"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
                ApiError::new("headers_too_large", "the headers have more than 16 KiB or 100 fields")
            }
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ApiError::new("unsupported_media_type", "the body is not JSON"),
            StatusCode::REQUEST_TIMEOUT => ApiError::new("request_timeout", "the request took too long to arrive"),
            StatusCode::SERVICE_UNAVAILABLE => ApiError::new("not_ready", "the server cannot answer now"),
            other if other.is_client_error() => {
                ApiError::new("bad_request", "the request has not the form that is expected here")
            }
            other => ApiError::internal(format!("an answer with status {other} that nothing explains")),
        }
    }
}

fn kind(code: &str) -> &'static Kind {
    KINDS.iter().find(|(known, ..)| *known == code).expect("every code that is answered is a row of KINDS")
}

/// The problem travels beside the response; the outermost layer adds the request id and writes it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.problem.status).expect("KINDS has statuses of HTTP");
        let mut response = status.into_response();
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(self.problem);
        response
    }
}

/// The one place where the store's errors get a status.
impl From<MetadataError> for ApiError {
    fn from(error: MetadataError) -> ApiError {
        let detail = error.to_string();
        match error {
            MetadataError::NotFound { kind, .. } => {
                let code = match kind {
                    "job" | "version" => "job_not_found",
                    "run" => "run_not_found",
                    "operation" => "operation_not_found",
                    "savepoint" | "completed savepoint" => "savepoint_not_found",
                    "view" => "view_not_found",
                    "connection" => "connection_not_found",
                    "table" => "table_not_found",
                    "key" => "key_not_found",
                    _ => "not_found",
                };
                ApiError::new(code, detail)
            }
            MetadataError::Exists { kind, name, id } => {
                let id = match kind {
                    "job" | "view" => api::IdKind::Job.text(id),
                    "connection" => api::IdKind::Connection.text(id),
                    "table" => api::IdKind::Table.text(id),
                    "key" => api::IdKind::Key.text(id),
                    "savepoint" => api::IdKind::Savepoint.text(id),
                    _ => id.to_string(),
                };
                let detail = match kind {
                    "view" => format!("a view named '{name}' belongs to {id}"),
                    kind => format!("there is a {kind} named '{name}': {id}"),
                };
                ApiError::new("name_taken", detail)
            }
            MetadataError::Stale { .. } => ApiError::new("precondition_failed", detail),
            MetadataError::RunActive { run_id, state } => {
                let run = api::IdKind::Run.text(run_id);
                ApiError::new("run_active", format!("{run} of the job is {state}")).hint(format!(
                    "wait for its end, or stop it with POST /api/v1/runs/{run}/stop; allowed now: stop now, stop drain"
                ))
            }
            MetadataError::InUse { .. } => ApiError::new("in_use", detail),
            MetadataError::Moved { .. } | MetadataError::Fenced { .. } => ApiError::new("invalid_state", detail),
            MetadataError::Answered(_) => ApiError::internal("an answer that was stored reached the last resort"),
            MetadataError::Unavailable { cause, ambiguous } => {
                tracing::warn!(%cause, ambiguous, "the metadata store is not available");
                let detail = match (ambiguous, cause.ends_with(metadata::DISK_FULL)) {
                    (false, true) => "the disk of the metadata store is full; nothing was changed",
                    (false, false) => "the metadata store cannot be reached; nothing was changed",
                    (true, _) => {
                        "the metadata store went away while it committed: the change happened whole or not at all; read before you repeat it, or repeat it with the same idempotency key"
                    }
                };
                ApiError::new("metadata_unavailable", detail)
            }
            MetadataError::Owned(_) | MetadataError::Unusable(_) => {
                tracing::error!(%detail, "the metadata store cannot be used");
                ApiError::new("metadata_unavailable", "the metadata store cannot be used by this server")
            }
        }
    }
}

/// What a process has found, as it is told over REST: neither the directories of this machine nor how its program is started.
pub fn told(code: &str, message: &str, hint: Option<&str>) -> (String, Option<String>) {
    match message.split_once(" the allowed directories ") {
        Some((outside, _)) if code == "location_not_allowed" => (
            format!("{outside} the directories that the server allows"),
            Some("whoever runs the server can allow a directory".to_string()),
        ),
        _ => (message.to_string(), hint.map(str::to_string)),
    }
}

/// Problems of scripts and graphs, with places.
pub fn items(problems: &[graph::Problem], sql: Option<&str>, prefix: &str) -> Vec<ProblemItem> {
    problems.iter().map(|problem| item(problem, sql, prefix)).collect()
}

fn item(problem: &graph::Problem, sql: Option<&str>, prefix: &str) -> ProblemItem {
    let mut item = ProblemItem {
        code: problem.code.clone(),
        message: problem.message.clone(),
        hint: problem.hint.clone(),
        ..ProblemItem::default()
    };
    match &problem.place {
        graph::Place::Span { line, column, end_line, end_column } => {
            (item.line, item.column) = (Some(*line), Some(*column));
            (item.end_line, item.end_column) = (Some(*end_line), Some(*end_column));
            let text = sql.and_then(|sql| sql.lines().nth((*line as usize).saturating_sub(1)));
            item.excerpt = text.map(|line| line.chars().take(500).collect());
        }
        graph::Place::Pointer { pointer } => item.pointer = Some(format!("{prefix}{pointer}")),
        graph::Place::Nowhere => {}
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_the_machine_are_not_told() {
        let message = "cannot use /etc/passwd: it is outside of the allowed directories /data/runs/1, /data/files";
        let (told, hint) = told("location_not_allowed", message, Some("allow it with --allow-root DIR"));
        assert_eq!(told, "cannot use /etc/passwd: it is outside of the directories that the server allows");
        assert!(hint.is_some_and(|hint| !hint.contains("--allow-root")));
        assert_eq!(super::told("a", "b", Some("c")), ("b".to_string(), Some("c".to_string())));
    }

    #[test]
    fn every_kind_stands_once_and_has_a_status_of_an_error() {
        let mut codes: Vec<&str> = KINDS.iter().map(|(code, ..)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), KINDS.len());
        assert!(KINDS.iter().all(|(_, status, ..)| (400..600).contains(status)));
    }
}
