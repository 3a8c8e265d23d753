//! The requests to a schema registry: few, bounded in time and size, and tried again where that may help.
//!
//! The routes are those of Confluent: <https://docs.confluent.io/platform/current/schema-registry/develop/api.html>.

use std::time::Duration;

use engine::RunError;
use graph::AvroConfluentOptions;
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};

use crate::http::{self, Allows};

/// What a request may take, with everything.
const TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pauses before a request is tried again.
const PAUSES: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1600)];
/// Longer answers are refused.
const MAX_ANSWER_BYTES: usize = 4 << 20;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Why an answer is none.
#[derive(Debug)]
pub(super) enum Failure {
    /// The registry says that there is no such thing, or no such usable thing.
    Missing(String),
    Fatal(RunError),
}

pub(super) struct Found {
    pub(super) text: String,
    /// `AVRO`, `JSON`, `PROTOBUF`.
    pub(super) kind: String,
    /// Subjects and versions.
    pub(super) references: Vec<(String, u64)>,
}

#[derive(Clone)]
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    user: Option<(String, String)>,
    token: Option<String>,
    allows: Allows,
}

impl Client {
    pub(super) fn new(options: &AvroConfluentOptions, allows: Allows) -> Result<Client, RunError> {
        let url = options.url.clone().unwrap_or_default();
        let invalid = |why: String| {
            RunError::user("invalid_option", format!("'avro-confluent.url' is {url:?}, and that is no URL: {why}"))
        };
        let base = Url::parse(&url).map_err(|error| invalid(error.to_string()))?;
        let port = base.port_or_known_default().ok_or_else(|| invalid("it has no port".into()))?;
        let http = http::client(allows.clone(), port)
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| RunError::internal(format!("no HTTP client could be made: {}", chain(&error))))?;
        let user = options.user_info.as_ref().and_then(|info| info.0.split_once(':'));
        let user = user.map(|(user, password)| (user.to_string(), password.to_string()));
        Ok(Client { http, base, user, token: options.token.as_ref().map(|token| token.0.clone()), allows })
    }

    pub(super) async fn by_id(&self, id: u32) -> Result<Found, Failure> {
        found(&self.send(Method::GET, &["schemas", "ids", &id.to_string()], None).await?)
    }

    pub(super) async fn by_version(&self, subject: &str, version: u64) -> Result<Found, Failure> {
        found(&self.send(Method::GET, &["subjects", subject, "versions", &version.to_string()], None).await?)
    }

    pub(super) async fn subjects(&self) -> Result<usize, Failure> {
        let answer = self.send(Method::GET, &["subjects"], None).await?;
        let subjects = answer.as_array().map(Vec::len);
        subjects.ok_or_else(|| self.failed("its answer is no list of subjects".into()))
    }

    /// Gives the id, new or not.
    pub(super) async fn register(&self, subject: &str, schema: &str) -> Result<u32, Failure> {
        let body = json!({"schema": schema});
        let answer = self.send(Method::POST, &["subjects", subject, "versions"], Some(body)).await?;
        let id = answer.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.failed("its answer to a registration has no id".into()))
    }

    fn failed(&self, what: String) -> Failure {
        Failure::Fatal(RunError::external("registry_failed", format!("the schema registry {}: {what}", self.place())))
    }

    /// Scheme, host, port and path: there are no secrets in it.
    fn place(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    async fn send(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Value, Failure> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Subjects may have any character: each is one segment.
            segments.pop_if_empty().extend(path);
        }
        self.check_literal()?;
        let mut pauses = PAUSES.iter();
        loop {
            let (why, status) = match self.once(&method, &url, body.as_ref()).await {
                Ok((status, answer)) if !is_passing(status) => return self.answer(status, answer, path),
                Ok((status, _)) => (format!("it answered {status}"), Some(status)),
                Err(error) if http::is_not_allowed(&error) => return Err(self.forbidden()),
                Err(error) => (chain(&error), None),
            };
            match pauses.next() {
                Some(pause) => {
                    tracing::debug!(registry = self.place(), why, "the schema registry is asked again");
                    tokio::time::sleep(*pause).await;
                }
                None => {
                    let attempts = PAUSES.len() + 1;
                    let code = if status.is_some() { "registry_failed" } else { "registry_unreachable" };
                    let message = format!("the schema registry {} was asked {attempts} times: {why}", self.place());
                    let error = RunError::external(code, message);
                    return Err(Failure::Fatal(match status {
                        Some(_) => error,
                        None => error.hint("is it running, and is 'avro-confluent.url' its address from here?"),
                    }));
                }
            }
        }
    }

    /// A host that is an address is not resolved, so the resolver cannot refuse it.
    fn check_literal(&self) -> Result<(), Failure> {
        let port = self.base.port_or_known_default().unwrap_or_default();
        match http::is_refused_literal(&self.allows, self.base.host_str().unwrap_or_default(), port) {
            true => Err(self.forbidden()),
            false => Ok(()),
        }
    }

    fn forbidden(&self) -> Failure {
        let message = format!("connections to the schema registry {} are not allowed", self.place());
        let hint = "whoever runs the service can allow its address in the configuration";
        Failure::Fatal(RunError::user("location_not_allowed", message).hint(hint))
    }

    async fn once(&self, method: &Method, url: &Url, body: Option<&Value>) -> Result<(StatusCode, Vec<u8>), Error> {
        let mut request = self.http.request(method.clone(), url.clone()).header("Accept", MEDIA_TYPE);
        if let Some((user, password)) = &self.user {
            request = request.basic_auth(user, Some(password));
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("Content-Type", MEDIA_TYPE).body(body.to_string());
        }
        let mut response = request.send().await?;
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if answer.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Error::TooLong);
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((response.status(), answer))
    }

    fn answer(&self, status: StatusCode, answer: Vec<u8>, path: &[&str]) -> Result<Value, Failure> {
        let answer: Option<Value> = serde_json::from_slice(&answer).ok();
        if status.is_success() {
            return answer.ok_or_else(|| self.failed("its answer is not JSON".into()));
        }
        let said = answer.as_ref().and_then(|answer| answer.get("message")).and_then(Value::as_str);
        let said = said.map(|said| format!(": {}", said.chars().take(500).collect::<String>())).unwrap_or_default();
        let code = answer.as_ref().and_then(|answer| answer.get("error_code")).and_then(Value::as_u64);
        let subject = path.get(1).copied().unwrap_or_default();
        let fatal = |error: RunError| Err(Failure::Fatal(error));
        match status.as_u16() {
            // Without a code of the registry it is somebody else who does not know the path.
            404 if matches!(code, Some(40401..=40403)) => {
                Err(Failure::Missing(format!("the registry has no such schema{said} [{}]", code.unwrap_or_default())))
            }
            404 => fatal(
                RunError::external(
                    "registry_failed",
                    format!("{} answered 404 and is no schema registry", self.place()),
                )
                .hint("'avro-confluent.url' may lack a path, such as /apis/ccompat/v7"),
            ),
            401 | 403 => {
                let message = format!("the schema registry {} refused our credentials ({status}){said}", self.place());
                let hint = "look at 'avro-confluent.basic-auth.user-info' or 'avro-confluent.bearer-auth.token'";
                fatal(RunError::user("registry_denied", message).hint(hint))
            }
            409 => {
                let message = format!(
                    "the schema of the rows is not compatible with those of {subject} in the registry {}{said}",
                    self.place()
                );
                let hint = "keep the columns that are there, make new ones nullable, write under another 'avro-confluent.subject', \
                     or relax the compatibility of the subject";
                fatal(RunError::user("schema_incompatible", message).hint(hint))
            }
            422 => {
                let message = format!("the schema registry {} refused a schema for {subject}{said}", self.place());
                fatal(RunError::user("schema_refused", message))
            }
            _ => Err(self.failed(format!("it answered {status}{said}"))),
        }
    }
}

/// A failure of now, which may be none in a second.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

fn found(answer: &Value) -> Result<Found, Failure> {
    let text = |member: &str| answer.get(member).and_then(Value::as_str).map(String::from);
    let references = answer.get("references").and_then(Value::as_array).into_iter().flatten();
    let references = references.map(|reference| {
        let subject = reference.get("subject").and_then(Value::as_str)?;
        Some((subject.to_string(), reference.get("version").and_then(Value::as_u64)?))
    });
    match (text("schema"), references.collect::<Option<Vec<_>>>()) {
        (Some(schema), Some(references)) => {
            Ok(Found { text: schema, kind: text("schemaType").unwrap_or_else(|| "AVRO".into()), references })
        }
        _ => Err(Failure::Missing("the registry's answer holds no schema".into())),
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("its answer is longer than 4 MiB")]
    TooLong,
}

/// An error with its causes. The URL has no secrets, but stands in the message already.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<reqwest::Error>() {
            Some(http) if http.is_timeout() => "it did not answer in time".to_string(),
            Some(http) if http.is_connect() => "it cannot be connected to".to_string(),
            Some(_) => "the request failed".to_string(),
            None => error.to_string(),
        };
        if !texts.last().is_some_and(|last| last.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}
