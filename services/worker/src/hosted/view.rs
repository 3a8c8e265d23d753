//! `GET /views/{view}?query=QUERY`: a view of the run at its newest epoch that may be shown, as an Arrow IPC stream.
//!
//! QUERY is [`views::Query`] as JSON, percent-encoded; without it the whole view is the answer. Headers: `x-epoch`, `x-watermark-us`
//! (missing before the first watermark), `x-at-us` (when the epoch was folded), `x-rows` (of the view in all), `x-more` (`true` if rows
//! follow behind the limit).

use std::io::Error;

use bytes::Bytes;
use connectors::ViewHost;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use views::{Fault, Form, Query, ViewError};

use super::socket::{Body, refusal};

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
    // Sorting a large view takes a while.
    let answered = tokio::task::spawn_blocking(move || {
        let Some(asked) = asked else {
            let pieces = Form::Arrow.encode(&snapshot.schema, snapshot.batches())?;
            return Ok::<_, ViewError>((pieces.collect::<Result<Vec<_>, _>>()?.concat(), false));
        };
        let answer = snapshot.query(&asked)?;
        let pieces = Form::Arrow.encode(&answer.rows.schema(), std::iter::once(Ok(answer.rows)))?;
        Ok((pieces.collect::<Result<Vec<_>, _>>()?.concat(), answer.more))
    });
    let (bytes, more) = match answered.await {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return refused(&error),
        Err(_) => return refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the view could not be asked"),
    };
    let mut response = Response::new(whole(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(Form::Arrow.media_type()));
    headers.insert(HeaderName::from_static("x-epoch"), HeaderValue::from(shown.epoch));
    headers.insert(HeaderName::from_static("x-at-us"), HeaderValue::from(shown.at_us));
    headers.insert(HeaderName::from_static("x-rows"), HeaderValue::from(shown.rows));
    headers.insert(HeaderName::from_static("x-more"), HeaderValue::from_static(if more { "true" } else { "false" }));
    if let Some(watermark_us) = shown.watermark_us {
        headers.insert(HeaderName::from_static("x-watermark-us"), HeaderValue::from(watermark_us));
    }
    response
}

fn whole(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes)).map_err(|never| -> Error { match never {} }).boxed_unsync()
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
