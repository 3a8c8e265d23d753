//! The control socket of an attempt, from the control plane's side: HTTP/1.1 over a Unix socket.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use control::attempt::{Answer, CheckpointAsked, Question, Status, StopMode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

const SOCKET: &str = "control.sock";
/// A process that takes longer is busy or stopped, which its silence says.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A status is small.
const STATUS_BYTES_MAX: usize = 64 << 20;

/// Why a process did not answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no socket, or nobody listens at it.
    #[error("nobody listens")]
    Closed,
    #[error("no answer within {ANSWER_TIMEOUT:?}")]
    Silent,
    #[error("{0}")]
    Broken(String),
    /// It answers, and refuses.
    #[error("{status}: {body}")]
    Refused { status: StatusCode, body: String },
}

/// How to reach the leader of an attempt.
#[derive(Clone)]
pub struct Link {
    pub directory: PathBuf,
    pub token: String,
}

impl Link {
    /// Names the attempt among all runs: an epoch number alone means nothing across them.
    pub fn attempt(&self) -> String {
        let part = |path: Option<&Path>| {
            path.and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned())
        };
        let (run, generation) = (part(self.directory.parent()), part(Some(&self.directory)));
        format!("{}-g{}", run.unwrap_or_default(), generation.unwrap_or_default())
    }

    /// With the newest late rows and dead letters only where they are wanted.
    pub async fn status(&self, ledgers: bool) -> Result<Status, LinkError> {
        let path = if ledgers { "/status?ledgers=true" } else { "/status" };
        let body = self.whole(Method::GET, path, Bytes::new()).await?;
        serde_json::from_slice(&body)
            .map_err(|error| LinkError::Broken(format!("a status that cannot be read: {error}")))
    }

    pub async fn stop(&self, mode: StopMode) -> Result<(), LinkError> {
        let body = serde_json::to_vec(&mode).expect("a mode is a text");
        self.whole(Method::POST, "/stop", body.into()).await.map(drop)
    }

    /// Asks for a checkpoint now; its epoch.
    pub async fn checkpoint(&self) -> Result<u64, LinkError> {
        let body = self.whole(Method::POST, "/checkpoint", Bytes::new()).await?;
        let asked: CheckpointAsked = serde_json::from_slice(&body)
            .map_err(|error| LinkError::Broken(format!("an answer that cannot be read: {error}")))?;
        Ok(asked.epoch)
    }

    /// What the attempt asks, if it asks something within a while.
    pub async fn question(&self) -> Result<Option<Question>, LinkError> {
        let body = self.whole(Method::GET, "/question", Bytes::new()).await?;
        if body.is_empty() {
            return Ok(None);
        }
        let question = serde_json::from_slice(&body);
        question.map(Some).map_err(|error| LinkError::Broken(format!("a question that cannot be read: {error}")))
    }

    pub async fn answer(&self, answer: &Answer) -> Result<(), LinkError> {
        let body = serde_json::to_vec(answer).expect("an answer has text for keys");
        self.whole(Method::POST, "/answer", body.into()).await.map(drop)
    }

    async fn whole(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, LinkError> {
        let all = async {
            let response = self.open(method, path, body).await?;
            let limited = http_body_util::Limited::new(response.into_body(), STATUS_BYTES_MAX);
            let collected = limited.collect().await.map_err(|error| LinkError::Broken(error.to_string()))?;
            Ok(collected.to_bytes())
        };
        tokio::time::timeout(ANSWER_TIMEOUT, all).await.unwrap_or(Err(LinkError::Silent))
    }

    /// Sends a request and waits for the head of its answer; the body is the caller's to read.
    pub async fn open(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, LinkError> {
        let broken = |error: hyper::Error| LinkError::Broken(error.to_string());
        let stream = connect(&self.directory).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "attempt")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(body))
            .map_err(|error| LinkError::Broken(error.to_string()))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http_body_util::Limited::new(response.into_body(), 64 << 10).collect().await;
        let body = body.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
        Err(LinkError::Refused { status, body })
    }
}

/// A path to a socket has at most 107 bytes; through the directory's descriptor every directory is near.
async fn connect(directory: &Path) -> Result<UnixStream, LinkError> {
    let opened = File::open(directory).map_err(|_| LinkError::Closed)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    UnixStream::connect(path).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => LinkError::Closed,
        _ => LinkError::Broken(error.to_string()),
    })
}
