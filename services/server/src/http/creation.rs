//! Requests that create something, and may be repeated under an idempotency key.
//!
//! The answer is stored with the resource in one transaction, so a repeated request gets the very same one, also after a crash between
//! the commit and the answer.

use std::collections::BTreeMap;

use axum::body::Body as HttpBody;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metadata::{Change, Idempotency, MetadataError, StoredAnswer};
use serde::Serialize;
use serde_json::Value;

use crate::app::App;
use crate::auth::Caller;
use crate::problem::{ApiError, ApiResult};
use crate::sealing::Sealing;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const KEY_LENGTH_MAX: usize = 256;

/// Method, path and idempotency key of a creating request.
pub struct Creation {
    request: String,
    key: Option<String>,
    sealing: Sealing,
}

impl FromRequestParts<App> for Creation {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> ApiResult<Creation> {
        let request = format!("{} {}", parts.method, parts.uri.path());
        let key = match parts.headers.get("idempotency-key") {
            None => None,
            Some(value) => match value.to_str() {
                Ok(text) if (1..=KEY_LENGTH_MAX).contains(&text.len()) => Some(text.to_string()),
                _ => {
                    let detail = format!("an idempotency-key has 1 to {KEY_LENGTH_MAX} visible ASCII characters");
                    return Err(ApiError::new("bad_request", detail));
                }
            },
        };
        Ok(Creation { request, key, sealing: app.sealing.clone() })
    }
}

/// What a creating request found.
pub enum Begun {
    /// It was answered before.
    Replay(Response),
    /// It is new; while this lives, the same request is refused.
    New(#[expect(dead_code, reason = "its drop is what it is for")] InFlight),
}

/// The key of a request that is being answered.
pub struct InFlight {
    app: App,
    entry: Option<(String, String, String)>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            self.app.in_flight.lock().expect("nothing panics while it holds the set").remove(entry);
        }
    }
}

impl Creation {
    /// Looks for an answer that was given to the same key; marks the request as being answered.
    pub async fn begin(&self, app: &App, caller: &Caller, body_hash: &[u8]) -> ApiResult<Begun> {
        let Some(key) = &self.key else { return Ok(Begun::New(InFlight { app: app.clone(), entry: None })) };
        let entry = (caller.principal.clone(), self.request.clone(), key.clone());
        if !app.in_flight.lock().expect("nothing panics while it holds the set").insert(entry.clone()) {
            let error = ApiError::new("request_in_flight", "a request with this idempotency-key is being answered");
            return Err(error.header(header::RETRY_AFTER, "1"));
        }
        let flight = InFlight { app: app.clone(), entry: Some(entry) };
        match app.store.answer(&caller.principal, &self.request, key).await? {
            Some(stored) => self.replay(stored, body_hash).map(Begun::Replay),
            None => Ok(Begun::New(flight)),
        }
    }

    /// Who changes what, with the answer where the request has a key.
    pub fn change(
        &self,
        caller: &Caller,
        action: &str,
        object: &str,
        detail: Value,
        answer: &Answer,
        body_hash: &[u8],
    ) -> Change {
        let idempotency = self.key.as_ref().map(|key| Idempotency {
            key: key.clone(),
            request: self.request.clone(),
            answer: StoredAnswer {
                body_hash: self.sealing.fingerprint(body_hash),
                status: answer.status.as_u16(),
                headers: answer.headers.clone(),
                body: answer.body.clone(),
            },
        });
        Change { idempotency, ..caller.change(action, object, detail) }
    }

    /// The answer, unless the store says that another one was given meanwhile.
    pub fn finish(&self, stored: Result<(), MetadataError>, answer: Answer, body_hash: &[u8]) -> ApiResult<Response> {
        match stored {
            Ok(()) => Ok(answer.into_response()),
            Err(MetadataError::Answered(before)) => self.replay(*before, body_hash),
            Err(error) => Err(error.into()),
        }
    }

    fn replay(&self, stored: StoredAnswer, body_hash: &[u8]) -> ApiResult<Response> {
        if stored.body_hash != self.sealing.fingerprint(body_hash) {
            let detail = "the idempotency-key was used for a request with another body";
            return Err(ApiError::new("idempotency_mismatch", detail));
        }
        let status = StatusCode::from_u16(stored.status).map_err(ApiError::internal)?;
        let mut response = Answer { status, headers: stored.headers, body: stored.body }.into_response();
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

/// An answer in JSON that can be kept.
pub struct Answer {
    status: StatusCode,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    pub fn new(status: StatusCode, body: &impl Serialize) -> Answer {
        let body = serde_json::to_vec(body).expect("answers have only text keys and finite numbers");
        Answer { status, headers: BTreeMap::new(), body }
    }

    pub fn header(mut self, name: HeaderName, value: String) -> Answer {
        self.headers.insert(name.to_string(), value);
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(HttpBody::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        response
    }
}
