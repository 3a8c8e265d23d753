//! Gives a body to the answers that hyper writes by itself: to what is no HTTP/1.1, before any of our layers can see it.
//!
//! hyper answers such bytes with a bare head (`400`, `414` or `431`, `content-length: 0`) and closes the connection. [`Edge`] is the stream
//! below hyper: while no answer of ours is under way it looks at the end of what is written, and writes the same status as a problem
//! instead. Every answer of ours has an `x-request-id`, so a head without one is not ours; [`Watch`] knows whether one is under way.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use api::PROBLEM_JSON;
use axum::http::StatusCode;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use crate::problem::ApiError;

/// A head of hyper's own is shorter.
const HEAD_BYTES_MAX: usize = 256;

/// What a connection is about: shared by the stream below hyper and the service above it.
#[derive(Clone, Default)]
pub struct Watch(Arc<Flags>);

#[derive(Default)]
struct Flags {
    /// A request was given to us, and the body of its answer has not ended.
    busy: AtomicBool,
    /// The last body ended like a head does: what is written next must not be mistaken for one.
    ends_like_a_head: AtomicBool,
}

impl Watch {
    /// A request has arrived.
    pub fn begin(&self) {
        self.0.busy.store(true, Ordering::Relaxed);
        self.0.ends_like_a_head.store(false, Ordering::Relaxed);
    }

    fn sees(&self, data: &[u8]) {
        if !data.is_empty() {
            // A short piece may be the end of an end.
            let ends = data.ends_with(b"\r\n\r\n") || (data.len() < 4 && data.ends_with(b"\n"));
            self.0.ends_like_a_head.store(ends, Ordering::Relaxed);
        }
    }

    fn may_be_hypers(&self) -> bool {
        !self.0.busy.load(Ordering::Relaxed) && !self.0.ends_like_a_head.load(Ordering::Relaxed)
    }
}

/// The body of an answer of ours; its end is the end of the answer.
pub struct Watched<B> {
    body: B,
    watch: Watch,
}

impl<B> Watched<B> {
    pub fn new(body: B, watch: Watch) -> Watched<B> {
        Watched { body, watch }
    }
}

impl<B> Drop for Watched<B> {
    fn drop(&mut self) {
        self.watch.0.busy.store(false, Ordering::Relaxed);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.watch.sees(data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stream of a connection.
pub struct Edge<S> {
    stream: S,
    watch: Watch,
    /// What is written in place of hyper's head, and how much of it has been.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> Edge<S> {
    pub fn new(stream: S, watch: Watch) -> Edge<S> {
        Edge { stream, watch, instead: None }
    }

    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Whether the client has an answer to what it sent last, or is getting it.
    pub fn has_answered(&self) -> bool {
        self.instead.is_some() || self.watch.0.busy.load(Ordering::Relaxed)
    }
}

impl<S: AsyncWrite + Unpin> Edge<S> {
    /// Writes the answer that stands in for hyper's head, which has `length` bytes.
    fn poll_instead(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        if let Some((bytes, written)) = &mut self.instead {
            while *written < bytes.len() {
                match ready!(Pin::new(&mut self.stream).poll_write(cx, &bytes[*written..]))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    more => *written += more,
                }
            }
        }
        Poll::Ready(Ok(length))
    }

    /// Where in the bytes that are to be written hyper's own head begins.
    fn hypers(&mut self, bytes: &[u8]) -> Option<usize> {
        let (at, status) = own_head(bytes).filter(|_| self.watch.may_be_hypers())?;
        if at == 0 {
            self.instead = Some((answer(&problem(status)), 0));
        }
        Some(at)
    }
}

/// A head without anything of ours at the end of `bytes`: where it begins, and its status.
fn own_head(bytes: &[u8]) -> Option<(usize, StatusCode)> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let from = bytes.len().saturating_sub(HEAD_BYTES_MAX);
    let start = b"HTTP/1.1 4";
    let at = from + bytes[from..].windows(start.len()).rposition(|window| window == start)?;
    let mut lines = std::str::from_utf8(&bytes[at..]).ok()?.trim_end().split("\r\n");
    let status = StatusCode::from_bytes(lines.next()?.as_bytes().get(9..12)?).ok()?;
    let mut empty = false;
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        match (name.to_ascii_lowercase().as_str(), value) {
            ("content-length", "0") => empty = true,
            ("connection" | "date", _) => {}
            _ => return None,
        }
    }
    empty.then_some((at, status))
}

fn problem(status: StatusCode) -> ApiError {
    match status {
        StatusCode::BAD_REQUEST => ApiError::new("bad_request", "what was sent is no request of HTTP/1.1")
            .hint("the request line, the headers or their lengths are malformed; TLS and HTTP/2 are not spoken here"),
        other => ApiError::of_status(other),
    }
}

/// An answer to what is no request of HTTP/1.1.
pub fn no_request() -> Vec<u8> {
    answer(&problem(StatusCode::BAD_REQUEST))
}

/// A whole answer, after which the connection is closed.
fn answer(error: &ApiError) -> Vec<u8> {
    let id = Uuid::now_v7().simple().to_string();
    let mut problem = error.problem().clone();
    problem.request_id = Some(id.clone());
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::BAD_REQUEST);
    tracing::debug!(id, %status, "answered what is no request");
    let body = serde_json::to_vec(&problem).expect("a problem has only text keys and numbers");
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nconnection: close\r\nx-request-id: {id}\r\n\
         x-content-type-options: nosniff\r\ncache-control: no-store\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

impl<S: AsyncRead + Unpin> AsyncRead for Edge<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Edge<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.instead.is_some() {
            return self.poll_instead(cx, bytes.len());
        }
        match self.hypers(bytes) {
            Some(0) => self.poll_instead(cx, bytes.len()),
            // What is before it is ours, and goes first.
            Some(at) => Pin::new(&mut self.stream).poll_write(cx, &bytes[..at]),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(last) = slices.iter().rposition(|slice| !slice.is_empty()) else {
            return Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        };
        let before = &slices[..last];
        // hyper writes a head into a buffer of its own, so it is never cut in two.
        if before.iter().all(|slice| slice.is_empty()) {
            return self.poll_write(cx, &slices[last]);
        }
        match own_head(&slices[last]).is_some() && self.watch.may_be_hypers() {
            true => Pin::new(&mut self.stream).poll_write_vectored(cx, before),
            false => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const BARE: &[u8] =
        b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: Sat, 01 Jan 2000 00:00:00 GMT\r\n\r\n";

    /// What arrives when these pieces are written one after the other, through a pipe that takes few bytes at a time.
    async fn written(watch: &Watch, pieces: &[&[u8]]) -> String {
        let (here, mut there) = tokio::io::duplex(7);
        let mut edge = Edge::new(here, watch.clone());
        let read = tokio::spawn(async move {
            let mut all = String::new();
            there.read_to_string(&mut all).await.expect("text");
            all
        });
        for piece in pieces {
            edge.write_all(piece).await.expect("the other end reads");
        }
        drop(edge);
        read.await.expect("no panic")
    }

    #[tokio::test]
    async fn a_bare_head_of_hyper_becomes_a_problem_of_the_same_status() {
        let text = written(&Watch::default(), &[BARE]).await;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())) && head.contains("connection: close"));
        let problem: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((&problem["code"], &problem["status"]), (&"headers_too_large".into(), &431.into()));
    }

    #[tokio::test]
    async fn what_is_written_before_it_stays() {
        let ours = b"HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 2\r\n\r\n{}";
        let text = written(&Watch::default(), &[&[ours, BARE].concat()]).await;
        let rest = text.strip_prefix(std::str::from_utf8(ours).expect("text")).expect("ours comes first");
        assert!(rest.starts_with("HTTP/1.1 431 ") && rest.contains(PROBLEM_JSON), "{rest}");
    }

    #[tokio::test]
    async fn what_is_ours_is_left_alone() {
        let bare = std::str::from_utf8(BARE).expect("text");
        // An answer of ours is under way, and its body looks like a head.
        let watch = Watch::default();
        watch.begin();
        assert_eq!(written(&watch, &[BARE]).await, bare);
        // It has ended, but may not have been written to its end.
        let body = Watched::new(http_body_util::Full::new(Bytes::from_static(BARE)), watch.clone());
        http_body_util::BodyExt::collect(body).await.expect("a body");
        assert_eq!(written(&watch, &[BARE]).await, bare);
        // Heads of ours have an id.
        let ours = "HTTP/1.1 404 Not Found\r\nx-request-id: 1\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(written(&Watch::default(), &[ours.as_bytes()]).await, ours);
        for text in ["HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "\r\n\r\n"] {
            assert_eq!(own_head(text.as_bytes()), None);
        }
    }
}
