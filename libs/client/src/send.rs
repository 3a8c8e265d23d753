//! Requests on their way: what is sent again, how often, and what an answer means.

use std::time::Duration;

use api::{PROBLEM_JSON, Problem};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::error::chain;
use crate::{Client, Error, Result};

/// How long one request may take, and how long a stream of stored rows may pause. A long poll takes a minute of it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);
/// How long a query may send nothing. The server has a shorter limit, which is configured there and not known here.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(3600);
/// Before the first repetition; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How often, and how long, what may be repeated is repeated: when there is no connection, or with 429 and 503 as `retry-after` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Requests in all; 1 repeats nothing.
    pub attempts: u32,
    /// No attempt begins later than this after the first. A longer `retry-after` ends the attempts at once.
    pub within: Duration,
}

impl Default for Retries {
    fn default() -> Retries {
        Retries { attempts: 5, within: Duration::from_secs(10) }
    }
}

/// Whether a request that may have arrived can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It changes nothing, or says what shall be.
    Safe,
    /// It creates something, once per idempotency key.
    Keyed,
    /// What it removes is gone the second time, and that is no error then.
    Removal,
    /// Only if it never left.
    Never,
}

/// A request before it is sent.
pub struct Request {
    method: Method,
    url: Url,
    body: Option<Vec<u8>>,
    accept: &'static str,
    if_match: Option<String>,
    repeat: Repeat,
    limit: Limit,
}

/// How long a server may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// For the answer, all of it.
    Whole(Duration),
    /// For the head of the answer; then [`Body`](crate::Body) limits each pause, and rows may come for as long as they like.
    Head(Duration),
}

impl Request {
    /// With a parameter behind the path.
    pub fn parameter(mut self, name: &str, value: impl AsRef<str>) -> Request {
        self.url.query_pairs_mut().append_pair(name, value.as_ref());
        self
    }

    pub fn parameters(self, name: &str, values: &[String]) -> Request {
        values.iter().fold(self, |request, value| request.parameter(name, value))
    }

    pub fn optional(self, name: &str, value: Option<impl AsRef<str>>) -> Request {
        match value {
            Some(value) => self.parameter(name, value),
            None => self,
        }
    }

    pub fn body(mut self, body: &impl Serialize) -> Request {
        self.body = Some(serde_json::to_vec(body).expect("bodies have only text keys and finite numbers"));
        self
    }

    /// The revision that is changed: an ETag, or `*`.
    pub fn if_match(mut self, etag: &str) -> Request {
        self.if_match = Some(etag.to_string());
        self
    }

    pub fn repeat(mut self, repeat: Repeat) -> Request {
        self.repeat = repeat;
        self
    }

    pub fn accept(mut self, media_type: &'static str) -> Request {
        self.accept = media_type;
        self
    }

    /// The body is read piece by piece; `pause` is until its head.
    pub fn streamed(mut self, pause: Duration) -> Request {
        self.limit = Limit::Head(pause);
        self
    }
}

/// Page after page, at most `limit` items; `page` gets how many are wanted, and the token of the page before.
pub async fn pages<T>(
    limit: usize,
    page: impl AsyncFn(u32, Option<String>) -> Result<(Vec<T>, Option<String>)>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    let mut token = None;
    while all.len() < limit {
        let (items, next) = page((limit - all.len()).clamp(1, 1000) as u32, token).await?;
        all.extend(items);
        token = next;
        if token.is_none() {
            break;
        }
    }
    Ok(all)
}

impl Client {
    /// A request to a path: its segments, which are escaped.
    pub(crate) fn request(&self, method: Method, path: &[&str]) -> Request {
        let mut url = self.url.clone();
        url.path_segments_mut().expect("an http URL has a path").pop_if_empty().extend(path);
        let repeat = match method {
            Method::GET | Method::PUT => Repeat::Safe,
            Method::DELETE => Repeat::Removal,
            _ => Repeat::Never,
        };
        Request {
            method,
            url,
            body: None,
            accept: "application/json",
            if_match: None,
            repeat,
            limit: Limit::Whole(REQUEST_TIMEOUT),
        }
    }

    pub(crate) fn get(&self, path: &[&str]) -> Request {
        self.request(Method::GET, &[&["api", "v1"], path].concat())
    }

    /// A request that creates something, under an idempotency key of its own.
    pub(crate) fn create(&self, path: &[&str]) -> Request {
        self.request(Method::POST, &[&["api", "v1"], path].concat()).repeat(Repeat::Keyed)
    }

    pub(crate) fn change(&self, method: Method, path: &[&str]) -> Request {
        self.request(method, &[&["api", "v1"], path].concat())
    }

    /// Sends, reads the answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let response = self.send(request).await?;
        let bytes = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        self.read(&bytes)
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|error| self.not_ours(format!("its answer cannot be read: {error}")))
    }

    /// Sends, and expects nothing back.
    pub(crate) async fn done(&self, request: Request) -> Result<()> {
        self.send(request).await.map(drop)
    }

    /// Sends until there is an answer that counts, or patience ends.
    pub(crate) async fn send(&self, request: Request) -> Result<Response> {
        let idempotency = (request.repeat == Repeat::Keyed).then(|| uuid::Uuid::new_v4().to_string());
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut lost = false;
        let mut attempt = 1;
        loop {
            let answer = self.once(&request, idempotency.as_deref()).await;
            let wait = match &answer {
                Ok(response) if is_success(response.status()) => {
                    return answer.map_err(|error| self.lost(error));
                }
                // What lies behind the server did not answer it in time: the change may have happened.
                Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
                    lost = true;
                    retry_after(response).filter(|_| request.repeat != Repeat::Never)
                }
                Ok(response) => retry_after(response),
                Err(Lost::Way(error)) if error.is_connect() => Some(pause),
                Err(Lost::Way(error)) if error.is_builder() => None,
                Err(_) if request.repeat != Repeat::Never => {
                    lost = true;
                    Some(pause)
                }
                Err(_) => None,
            };
            let again =
                wait.filter(|wait| attempt < self.retries.attempts && began.elapsed() + *wait <= self.retries.within);
            let Some(wait) = again else {
                return match answer {
                    Err(error) => Err(self.lost(error)),
                    // The request before had arrived; only its answer was lost.
                    Ok(response)
                        if lost && request.repeat == Repeat::Removal && response.status() == StatusCode::NOT_FOUND =>
                    {
                        Ok(response)
                    }
                    Ok(response) => Err(self.refusal(response).await),
                };
            };
            tokio::time::sleep(wait).await;
            attempt += 1;
            pause = pause.saturating_mul(2);
        }
    }

    async fn once(&self, request: &Request, idempotency: Option<&str>) -> std::result::Result<Response, Lost> {
        let mut builder = self.http.request(request.method.clone(), request.url.clone()).header(ACCEPT, request.accept);
        if let Limit::Whole(limit) = request.limit {
            builder = builder.timeout(limit);
        }
        if let Some(key) = &self.key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}")).expect("a key was checked");
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        if let Some(key) = idempotency {
            builder = builder.header("idempotency-key", key);
        }
        if let Some(etag) = &request.if_match {
            builder = builder.header("if-match", etag);
        }
        if let Some(body) = &request.body {
            builder = builder.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let answer = match request.limit {
            Limit::Whole(_) => builder.send().await,
            Limit::Head(limit) => tokio::time::timeout(limit, builder.send()).await.map_err(|_| Lost::Silent)?,
        };
        answer.map_err(Lost::Way)
    }

    /// What an answer says that is no success.
    async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        let media = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_problem = media.starts_with(PROBLEM_JSON);
        let reason = format!("status {status}, {}", if media.is_empty() { "no content type" } else { media });
        if !is_problem {
            return self.not_ours(reason);
        }
        match response.bytes().await {
            Ok(bytes) => match serde_json::from_slice::<Problem>(&bytes) {
                Ok(problem) => Error::Problem(Box::new(problem)),
                Err(error) => self.not_ours(format!("{reason}: {error}")),
            },
            Err(error) => self.unreachable(&error),
        }
    }

    fn lost(&self, lost: Lost) -> Error {
        match lost {
            Lost::Way(error) => self.unreachable(&error),
            Lost::Silent => Error::Unreachable { url: self.url().to_string(), cause: LATE.into() },
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        let cause = if error.is_timeout() { LATE.into() } else { innermost(error) };
        Error::Unreachable { url: self.url().to_string(), cause }
    }

    pub(crate) fn not_ours(&self, reason: String) -> Error {
        Error::NotOurs { url: self.url().to_string(), reason }
    }
}

const LATE: &str = "it did not answer in time";

/// Why there is no answer.
enum Lost {
    /// The way to the server, or back.
    Way(reqwest::Error),
    /// No head of an answer came in time.
    Silent,
}

fn is_success(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::NOT_MODIFIED
}

/// Whether an answer asks to come again, and after how long.
fn retry_after(response: &Response) -> Option<Duration> {
    // 409 with `retry-after`: the same request is still being answered.
    let asked = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT];
    if !asked.contains(&response.status()) {
        return None;
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What lies at the bottom of an error: the layers above say only that something failed.
fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if cause.to_string().is_empty() { chain(error) } else { cause.to_string() }
}

#[cfg(test)]
#[path = "send_tests.rs"]
mod tests;
