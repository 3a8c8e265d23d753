//! The control socket of an attempt: HTTP/1.1, a handful of routes, every request with the token.

use std::convert::Infallible;
use std::io::Error;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use connectors::ViewHost;
use control::attempt::{Answer, CheckpointAsked, Status, StopMode};
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ALLOW, AUTHORIZATION, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::questions::Questions;
use super::rows::Piece;
use super::view;

/// What the routes need.
pub struct Service {
    pub token: String,
    /// Gets whether late rows and dead letters are wanted.
    pub status: Box<dyn Fn(bool) -> Status + Send + Sync>,
    pub stop: Box<dyn Fn(StopMode) + Send + Sync>,
    pub questions: Questions,
    /// Asks the run for a checkpoint; the answer is its epoch, if there will be one.
    pub checkpoint: Box<dyn Fn() -> oneshot::Receiver<Option<u64>> + Send + Sync>,
    /// Of a query, until its reader comes.
    pub rows: Mutex<Option<mpsc::Receiver<Piece>>>,
    pub views: Option<ViewHost>,
    /// How far the reader is that has the rows.
    pub reader: watch::Sender<Reader>,
}

/// The reader of a query's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Awaited,
    Reads,
    /// Has everything, or is gone.
    Done,
}

pub type Body = UnsyncBoxBody<Bytes, Error>;

/// A stop is a word.
const BODY_BYTES_MAX: usize = 1024;
/// An answer repeats its question.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long one who looks for a question is kept waiting.
const QUESTION_PATIENCE: Duration = Duration::from_secs(2);

/// How long one who asks for a checkpoint is kept waiting for its epoch: a run that begins answers once it reads.
const CHECKPOINT_PATIENCE: Duration = Duration::from_secs(3);

/// Serves for ever.
pub async fn serve(listener: UnixListener, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(connection(stream, service.clone()));
            }
            Err(error) => {
                // Out of file descriptors, most likely: some will be closed.
                tracing::warn!("cannot accept a connection on the control socket: {error}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: UnixStream, service: Arc<Service>) {
    let has_rows = Arc::new(AtomicBool::new(false));
    let answers = {
        let (service, has_rows) = (service.clone(), has_rows.clone());
        service_fn(move |request| {
            let (service, has_rows) = (service.clone(), has_rows.clone());
            async move { Ok::<_, Infallible>(answer(&service, request, &has_rows).await) }
        })
    };
    let mut http = hyper::server::conn::http1::Builder::new();
    let served = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), answers).await;
    if let Err(error) = served {
        tracing::debug!("a connection on the control socket has ended: {error}");
    }
    if has_rows.load(Relaxed) {
        service.reader.send_replace(Reader::Done);
    }
}

async fn answer(service: &Service, request: Request<Incoming>, has_rows: &AtomicBool) -> Response<Body> {
    if !is_allowed(&request, &service.token) {
        return refusal(StatusCode::UNAUTHORIZED, "unauthorized", "the token of the attempt is missing or another");
    }
    let only = |method: Method| if *request.method() == method { None } else { Some(wrong_method(&method)) };
    match request.uri().path() {
        "/status" => only(Method::GET).unwrap_or_else(|| {
            answer_json(StatusCode::OK, &(service.status)(request.uri().query() == Some("ledgers=true")))
        }),
        "/stop" => match only(Method::POST) {
            Some(refused) => refused,
            None => stop(service, request).await,
        },
        "/checkpoint" => match only(Method::POST) {
            Some(refused) => refused,
            None => checkpoint(service).await,
        },
        "/question" => match only(Method::GET) {
            Some(refused) => refused,
            None => match tokio::time::timeout(QUESTION_PATIENCE, service.questions.next()).await {
                Ok(question) => answer_json(StatusCode::OK, &question),
                Err(_) => {
                    let mut response = answer_json(StatusCode::NO_CONTENT, &());
                    *response.body_mut() = Full::default().map_err(|never| match never {}).boxed_unsync();
                    response
                }
            },
        },
        "/answer" => match only(Method::POST) {
            Some(refused) => refused,
            None => take_answer(service, request).await,
        },
        "/rows" => only(Method::GET).unwrap_or_else(|| rows(service, has_rows)),
        path if path.starts_with("/views/") => match only(Method::GET) {
            Some(refused) => refused,
            None => view::answer(service.views.as_ref(), &path["/views/".len()..], request.uri().query()).await,
        },
        path => {
            let message = format!(
                "there is nothing at {path}; there are /status, /stop, /checkpoint, /question, /answer, /rows, /views/NAME"
            );
            refusal(StatusCode::NOT_FOUND, "not_found", &message)
        }
    }
}

/// Compares in a time that does not depend on what was shown, but for its length.
fn is_allowed<T>(request: &Request<T>, token: &str) -> bool {
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    shown.is_some_and(|shown| shown.ct_eq(token.as_bytes()).into())
}

async fn stop(service: &Service, request: Request<Incoming>) -> Response<Body> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await;
    match body.map(|body| serde_json::from_slice::<StopMode>(&body.to_bytes())) {
        Ok(Ok(mode)) => {
            (service.stop)(mode);
            answer_json(StatusCode::ACCEPTED, &mode)
        }
        _ => refusal(
            StatusCode::BAD_REQUEST,
            "invalid_body",
            "the body must be \"now\", \"drain\" or \"savepoint\", as JSON",
        ),
    }
}

async fn checkpoint(service: &Service) -> Response<Body> {
    match tokio::time::timeout(CHECKPOINT_PATIENCE, (service.checkpoint)()).await {
        Ok(Ok(Some(epoch))) => answer_json(StatusCode::OK, &CheckpointAsked { epoch }),
        Ok(_) => refusal(StatusCode::CONFLICT, "no_checkpoint", "the run ends, or keeps no checkpoints"),
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the run has not begun yet: ask again"),
    }
}

async fn take_answer(service: &Service, request: Request<Incoming>) -> Response<Body> {
    let body = Limited::new(request.into_body(), ANSWER_BYTES_MAX).collect().await;
    match body.map(|body| serde_json::from_slice::<Answer>(&body.to_bytes())) {
        Ok(Ok(answer)) => {
            service.questions.answer(answer);
            answer_json(StatusCode::ACCEPTED, &())
        }
        _ => refusal(StatusCode::BAD_REQUEST, "invalid_body", "the body must be an answer to a question, as JSON"),
    }
}

fn rows(service: &Service, has_rows: &AtomicBool) -> Response<Body> {
    let taken = service.rows.lock().expect("nothing panics while it takes the rows").take();
    let Some(pieces) = taken else {
        return refusal(StatusCode::CONFLICT, "no_rows", "the run is no query, or its rows have their reader already");
    };
    has_rows.store(true, Relaxed);
    service.reader.send_replace(Reader::Reads);
    let mut response = Response::new(streamed(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/vnd.apache.arrow.stream"));
    // So that the connection ends when the last byte has left.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A body that ends well only with its last piece: without it, it breaks off.
pub fn streamed(pieces: mpsc::Receiver<Piece>) -> Body {
    let frames = futures::stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        Some(match pieces.recv().await {
            Some(Piece::Bytes(bytes)) => (Ok(Frame::data(bytes)), Some(pieces)),
            Some(Piece::Last(bytes)) => (Ok(Frame::data(bytes)), None),
            Some(Piece::Broken) | None => (Err(Error::other("this was not all: making it has failed")), None),
        })
    });
    StreamBody::new(frames.boxed()).boxed_unsync()
}

fn wrong_method(allowed: &Method) -> Response<Body> {
    let mut response =
        refusal(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", &format!("only {allowed} is possible here"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_str(allowed.as_str()).expect("a method is plain text"));
    response
}

pub fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Body> {
    answer_json(status, &json!({ "code": code, "message": message }))
}

fn answer_json(status: StatusCode, content: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(content).expect("answers have text for keys, so they are JSON");
    let mut response = Response::new(Full::from(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_token_is_let_in() {
        let shown = |header: Option<&str>| {
            let mut request = Request::new(());
            if let Some(header) = header {
                request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_str(header).expect("plain text"));
            }
            is_allowed(&request, "abc")
        };
        assert!(shown(Some("Bearer abc")));
        for wrong in [
            None,
            Some("abc"),
            Some("Bearer "),
            Some("Bearer ab"),
            Some("Bearer abcd"),
            Some("Bearer abd"),
            Some("Basic abc"),
        ] {
            assert!(!shown(wrong), "{wrong:?}");
        }
    }
}
