//! What every request goes through, from the outside in: an id, limits, who asks; and on the way out: problems, written once.

use std::time::Duration;

use api::PROBLEM_JSON;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use crate::app::App;
use crate::problem::ApiError;

const HEADER_BYTES_MAX: usize = 16 << 10;
const HEADER_FIELDS_MAX: usize = 100;
const URI_BYTES_MAX: usize = 8 << 10;

/// The id of a request: its own if that is harmless, else a new one.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// The outermost layer: gives the request its id, and every error the form of a problem.
pub async fn answer(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let given = request.headers().get("x-request-id").and_then(|value| value.to_str().ok());
    let harmless = |id: &&str| {
        (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let id = given.filter(harmless).map_or_else(|| Uuid::now_v7().simple().to_string(), str::to_string);
    let instance: String = request.uri().path().chars().take(500).collect();
    let method = request.method().clone();
    let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_string);
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", id, %method, path = instance, traceparent = trace);
    let began = tokio::time::Instant::now();
    let mut response = match limits(&app, &request) {
        Ok(()) => next.run(request).instrument(span.clone()).await,
        Err(error) => error.into_response(),
    };
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        write_problem(&mut response, &id, &instance);
    }
    app.metrics.request(&method, response.status(), began.elapsed());
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), elapsed = ?began.elapsed(), "answered"));
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The problem that a handler left beside its response, or the one for the status that a library answered with.
fn write_problem(response: &mut Response, id: &str, instance: &str) {
    let left = response.extensions_mut().remove::<Box<api::Problem>>();
    let mut problem = left.unwrap_or_else(|| Box::new(ApiError::of_status(response.status()).problem().clone()));
    problem.request_id = Some(id.to_string());
    problem.instance = Some(instance.to_string());
    let body = serde_json::to_vec(&problem).expect("a problem has only text keys and numbers");
    *response.status_mut() = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.body_mut() = body.into();
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
}

fn limits(app: &App, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if bytes > HEADER_BYTES_MAX || headers.len() > HEADER_FIELDS_MAX {
        let detail = format!(
            "{} fields of {bytes} bytes; at most {HEADER_FIELDS_MAX} of {HEADER_BYTES_MAX} are read",
            headers.len()
        );
        return Err(ApiError::new("headers_too_large", detail));
    }
    if request.uri().path_and_query().is_some_and(|uri| uri.as_str().len() > URI_BYTES_MAX) {
        return Err(ApiError::of_status(StatusCode::URI_TOO_LONG));
    }
    if matches!(*request.method(), Method::TRACE | Method::CONNECT) {
        return Err(ApiError::of_status(StatusCode::METHOD_NOT_ALLOWED)
            .header(header::ALLOW, "GET, HEAD, POST, PUT, PATCH, DELETE"));
    }
    if app.is_stopping() && request.method() != Method::GET {
        return Err(ApiError::new("not_ready", "the server is shutting down").header(header::RETRY_AFTER, "5"));
    }
    Ok(())
}

/// A handler that panicked has met a bug: the caller learns that, and the server lives.
pub fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    ApiError::internal(text.unwrap_or("a panic without a text")).into_response()
}

/// An answer that takes longer to begin is given up. Long polls wait for a minute at most.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
