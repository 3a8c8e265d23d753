//! `GET /views/{view}?query=QUERY`: a view of the run at its newest epoch that may be shown, as an Arrow IPC stream.
//!
//! QUERY is [`views::Query`] as JSON, percent-encoded; without it the whole view is the answer. Headers: `x-epoch`, `x-watermark-us`
//! (missing before the first watermark), `x-at-us` (when the epoch was folded), `x-rows` (of the view in all), `x-removed` (rows that its retention has removed), `x-more` (`true` if rows
//! follow behind the limit).

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use connectors::ViewHost;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::{mpsc, oneshot};
use views::{Answer, Fault, Form, Query, ViewError, ViewSnapshot};

use super::rows::Piece;
use super::socket::{Body, refusal, streamed};
use crate::panics;

/// Pieces that wait for who asked.
const PIECES: usize = 2;

pub async fn answer(host: Option<&ViewHost>, name: &str, query: Option<&str>) -> Response<Body> {
    let asked = match asked(query) {
        Some(asked) => asked,
        None => {
            let message = "?query= must be an object of views::Query as JSON, percent-encoded";
            return refusal(StatusCode::BAD_REQUEST, "invalid_query", message);
        }
    };
    let Some(view) = percent_decoded(name).and_then(|name| host?.view(&name)) else {
        return refusal(StatusCode::NOT_FOUND, "unknown_view", "the run writes no such view");
    };
    let Some(snapshot) = view.latest() else {
        return refusal(StatusCode::NOT_FOUND, "view_empty", "the view has no complete epoch yet");
    };
    let shown = snapshot.clone();
    let (head, headed) = oneshot::channel();
    let (pieces, streaming) = mpsc::channel(PIECES);
    // Sorting a large view takes a while.
    tokio::task::spawn_blocking(move || panics::answering(|| ask(&snapshot, asked, head, &pieces)));
    let more = match headed.await {
        Ok(Ok(more)) => more,
        Ok(Err(error)) => return refused(&error),
        // It panicked, and has said so.
        Err(_) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the view could not be asked"),
    };
    let mut response = Response::new(streamed(streaming));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(Form::Arrow.media_type()));
    headers.insert(HeaderName::from_static("x-epoch"), HeaderValue::from(shown.epoch));
    headers.insert(HeaderName::from_static("x-at-us"), HeaderValue::from(shown.at_us));
    headers.insert(HeaderName::from_static("x-rows"), HeaderValue::from(shown.rows));
    headers.insert(HeaderName::from_static("x-removed"), HeaderValue::from(shown.dropped));
    headers.insert(HeaderName::from_static("x-more"), HeaderValue::from_static(if more { "true" } else { "false" }));
    if let Some(watermark_us) = shown.watermark_us {
        headers.insert(HeaderName::from_static("x-watermark-us"), HeaderValue::from(watermark_us));
    }
    response
}

/// Gets whether rows follow behind the limit, or why there is no answer.
type Head = oneshot::Sender<Result<bool, ViewError>>;

/// Asks the view, and hands the answer out as it is taken: whatever it is, little of it is in memory twice.
fn ask(snapshot: &ViewSnapshot, asked: Option<Query>, head: Head, pieces: &mpsc::Sender<Piece>) {
    let Some(asked) = asked else {
        return hand_out(&snapshot.schema, snapshot.batches(), false, head, pieces);
    };
    match snapshot.query(&asked) {
        Ok(Answer { rows, more }) => hand_out(&rows.schema(), std::iter::once(Ok(rows)), more, head, pieces),
        // Who asked may be gone, here as below.
        Err(error) => _ = head.send(Err(error)),
    }
}

fn hand_out(
    schema: &SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ViewError>>,
    more: bool,
    head: Head,
    pieces: &mpsc::Sender<Piece>,
) {
    let encoded = match Form::Arrow.encode(schema, batches) {
        Ok(encoded) => encoded,
        Err(error) => {
            let _ = head.send(Err(error));
            return;
        }
    };
    if head.send(Ok(more)).is_err() {
        return;
    }
    for bytes in encoded {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // Without a last piece the body breaks off.
            Err(error) => return tracing::error!("cannot hand out a view: {error}"),
        };
        if pieces.blocking_send(Piece::Bytes(bytes.into())).is_err() {
            return;
        }
    }
    let _ = pieces.blocking_send(Piece::Last(Bytes::new()));
}

fn refused(error: &ViewError) -> Response<Body> {
    let status = match error.fault() {
        Fault::User => StatusCode::BAD_REQUEST,
        Fault::External | Fault::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let message = error.to_string();
    let text = error.hint().map_or(message.clone(), |hint| format!("{message}; {hint}"));
    refusal(status, error.code(), &text)
}

/// The query, if there is one; none at all if it cannot be read.
fn asked(query: Option<&str>) -> Option<Option<Query>> {
    let Some(query) = query else { return Some(None) };
    serde_json::from_str(&percent_decoded(query.strip_prefix("query=")?)?).ok().map(Some)
}

/// Text in which some bytes are written as `%XX` (RFC 3986, section 2.1).
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut half = || (rest.next()? as char).to_digit(16).map(|half| half as u8);
        bytes.push(if byte == b'%' { half()? << 4 | half()? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_json_in_percent_signs() {
        assert_eq!(asked(None), Some(None));
        let query = asked(Some("query=%7B%22limit%22:7%2C%22filter%22%3A%22a%20%3D%20%27%C3%BC%27%22%7D"));
        assert_eq!(query, Some(Some(Query { limit: 7, filter: Some("a = 'ü'".into()), ..Query::default() })));
        for wrong in ["", "query=", "query=%7", "query=%zz", "query=%ff", "limit=7", "query={\"limits\":7}"] {
            assert_eq!(asked(Some(wrong)), None, "{wrong}");
        }
    }
}
