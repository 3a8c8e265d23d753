//! Accepts connections until told to stop, then lets what is under way end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::ServiceExt;

use super::edge::{Edge, Watch, Watched, no_request};

/// More connections wait until one closes.
const CONNECTIONS_MAX: usize = 4096;
/// Headers that take longer to arrive close the connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Beyond this hyper itself refuses; below it the layer for limits does, with a problem.
const BUFFER_BYTES: usize = 128 << 10;
const FIELDS_MAX: usize = 512;
/// How long is waited for a client to read why its connection ends.
const LINGER: Duration = Duration::from_secs(2);

/// Serves until `stop` becomes true; then waits at most `grace` for requests that are being answered.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>, grace: Duration) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let permit = tokio::select! {
            permit = permits.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
            () = told(&mut stop) => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, for one: others will be closed.
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = told(&mut stop) => break,
        };
        // Answers are written whole: waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let (router, mut stop) = (router.clone(), stop.clone());
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let watch = Watch::default();
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
                watch.begin();
                let (router, watch) = (router.clone(), watch.clone());
                async move {
                    let request: Request = request.map(Body::new);
                    let answer = router.oneshot(request).await;
                    answer.map(|response| response.map(|body| Watched::new(body, watch)))
                }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            builder.max_buf_size(BUFFER_BYTES).max_headers(FIELDS_MAX);
            let stream = TokioIo::new(Edge::new(stream, watch.clone()));
            let mut connection = builder.serve_connection(stream, service);
            let ended = tokio::select! {
                ended = &mut connection => ended,
                () = told(&mut stop) => {
                    Pin::new(&mut connection).graceful_shutdown();
                    (&mut connection).await
                }
            };
            if ended.is_err_and(|error| error.is_parse()) {
                let edge = connection.into_parts().io.into_inner();
                // To the preface of HTTP/2 hyper says nothing.
                let answer = (!edge.has_answered()).then(no_request);
                let _ = tokio::time::timeout(LINGER, linger(edge.into_inner(), answer)).await;
            }
            drop(permit);
        });
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, rest).await.is_err() {
        tracing::warn!("some requests were not answered in time and are cut off");
    }
}

/// Ends a connection on which something came that is no request. What else comes is read for a moment: bytes that nobody read would reset
/// the connection, and the answer would be lost on its way.
async fn linger(mut stream: TcpStream, answer: Option<Vec<u8>>) -> std::io::Result<()> {
    if let Some(answer) = answer {
        stream.write_all(&answer).await?;
    }
    stream.shutdown().await?;
    let mut bytes = vec![0; 16 << 10];
    while stream.read(&mut bytes).await? > 0 {}
    Ok(())
}

/// Returns when the server is to end, or nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
