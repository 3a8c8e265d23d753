//! Rows of views and queries, as the bytes that were asked for.

use std::time::Duration;

use api::{Consistency, SqlQuery, View, ViewRows, Views};
use reqwest::Method;
use reqwest::header::HeaderMap;

use crate::send::{QUERY_TIMEOUT, REQUEST_TIMEOUT, Repeat, Request};
use crate::{Client, Error, Result};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowForm {
    Json,
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl RowForm {
    fn media_type(self) -> &'static str {
        match self {
            RowForm::Json => "application/json",
            RowForm::Csv => "text/csv",
            RowForm::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// What of a view is read. The default is what the server takes by default: all columns, 1,000 rows, in the order of the key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ViewQuery {
    pub consistency: Option<Consistency>,
    pub columns: Vec<String>,
    /// A SQL condition over the columns.
    pub filter: Option<String>,
    /// Each `column` or `column desc`.
    pub order_by: Vec<String>,
    pub limit: Option<u64>,
    pub offset: Option<u64>,
}

/// Rows of a view at one complete epoch, and how stale they are.
#[derive(Debug)]
pub struct Rows {
    /// The version that was read.
    pub version: String,
    /// Whether the version survives the run and the server.
    pub durable: bool,
    /// Results are complete up to this event time (RFC 3339).
    pub watermark: Option<String>,
    /// How long ago the version was made.
    pub lag_ms: i64,
    pub body: Body,
}

/// Bytes as they come.
#[derive(Debug)]
pub struct Body {
    response: reqwest::Response,
    /// How long nothing may come.
    pause: Duration,
}

impl Body {
    pub(crate) fn new(response: reqwest::Response, pause: Duration) -> Body {
        Body { response, pause }
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Broken`]: what came until then is not all.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let chunk = tokio::time::timeout(self.pause, self.response.chunk()).await;
        let chunk =
            chunk.map_err(|_| Error::Broken { cause: format!("nothing came for {} s", self.pause.as_secs_f64()) })?;
        let chunk = chunk.map_err(|error| Error::Broken { cause: crate::error::chain(&error) })?;
        Ok(chunk.map(Vec::from))
    }

    /// All that is left.
    pub async fn all(mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(chunk) = self.next().await? {
            all.extend(chunk);
        }
        Ok(all)
    }
}

impl Client {
    pub async fn views(&self) -> Result<Vec<View>> {
        Ok(self.json::<Views>(self.get(&["views"])).await?.items)
    }

    pub async fn view(&self, view: &str) -> Result<View> {
        self.json(self.get(&["views", view])).await
    }

    /// Rows of a view as values in JSON.
    pub async fn view_rows(&self, view: &str, query: &ViewQuery) -> Result<ViewRows> {
        self.json(self.rows_request(view, query)).await
    }

    /// Rows of a view in a form.
    pub async fn view_bytes(&self, view: &str, query: &ViewQuery, form: RowForm) -> Result<Rows> {
        let request = self.rows_request(view, query).accept(form.media_type()).streamed(REQUEST_TIMEOUT);
        let response = self.send(request).await?;
        let headers = response.headers();
        Ok(Rows {
            version: text(headers, "etag").unwrap_or_default().trim_start_matches("W/").trim_matches('"').to_string(),
            durable: text(headers, "highwater-durable").as_deref() == Some("true"),
            watermark: text(headers, "highwater-watermark"),
            lag_ms: text(headers, "highwater-lag-ms").and_then(|lag| lag.parse().ok()).unwrap_or(0),
            body: Body::new(response, REQUEST_TIMEOUT),
        })
    }

    fn rows_request(&self, view: &str, query: &ViewQuery) -> Request {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        self.get(&["views", view, "rows"])
            .optional("consistency", query.consistency.as_ref().map(crate::runs::name))
            .parameters("column", &query.columns)
            .optional("filter", query.filter.as_ref())
            .parameters("order_by", &query.order_by)
            .optional("limit", number(query.limit))
            .optional("offset", number(query.offset))
    }

    /// Runs a bounded query; its rows come while it runs. To drop the body is to give the query up.
    pub async fn query(&self, query: &SqlQuery, form: RowForm) -> Result<Body> {
        let request = self.change(Method::POST, &["sql", "query"]).repeat(Repeat::Safe).body(query);
        let response = self.send(request.accept(form.media_type()).streamed(QUERY_TIMEOUT)).await?;
        Ok(Body::new(response, QUERY_TIMEOUT))
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_string())
}
