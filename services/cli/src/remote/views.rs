//! `highwater view` and `highwater views`.

use api::Consistency;
use client::{Client, RowForm, ViewQuery};

use super::arguments::{ViewArguments, ViewsArguments};
use super::failure::{Done, Failure};
use super::listing::{Listing, Row, left, span};
use super::sql::rows;
use super::{connect, done};
use crate::arguments::Output;
use crate::output::say;

/// Rows that are shown where nothing else is said, and the most that a server gives at once.
const LIMIT: u64 = 1000;
const LIMIT_MAX: u64 = 100_000;

pub async fn view(arguments: &ViewArguments) -> Done {
    let client = connect(&arguments.server)?;
    let consistency = match (arguments.latest, arguments.durable) {
        (true, _) => Some(Consistency::Latest),
        (_, true) => Some(Consistency::Durable),
        _ => None,
    };
    // One row more than is shown says whether there are more.
    let limit = arguments.limit.unwrap_or(LIMIT);
    let probe = arguments.output == Output::Table && limit < LIMIT_MAX;
    let query = ViewQuery {
        consistency,
        columns: arguments.columns.clone(),
        filter: arguments.filter.clone(),
        order_by: arguments.order_by.clone(),
        limit: if probe { Some(limit + 1) } else { arguments.limit },
        offset: arguments.offset,
    };
    let answer = client.view_bytes(&arguments.view, &query, RowForm::Arrow).await?;
    let (shown, came) = rows::show(answer.body, arguments.output, limit).await?;
    if arguments.output == Output::Table {
        let watermark = answer.watermark.map(|watermark| format!(", complete up to {watermark}")).unwrap_or_default();
        let durable = if answer.durable { "durable" } else { "of a running job" };
        let more = match came > shown {
            true => "; there are more: see --limit and --offset",
            false if came == LIMIT_MAX => "; there may be more: see --offset",
            false => "",
        };
        let count = if shown == 1 { "1 row".to_string() } else { format!("{shown} rows") };
        say(&format!("{count}, version {}, {durable}, {} old{watermark}{more}\n", answer.version, span(answer.lag_ms)));
    }
    done()
}

pub async fn views(arguments: &ViewsArguments) -> Done {
    list(&connect(&arguments.server)?).await?.print(arguments.form.form)
}

pub async fn list(client: &Client) -> Result<Listing, Failure> {
    let views = client.views().await?;
    let row = |view: &api::View| {
        let columns: Vec<&str> = view.columns.iter().map(|column| column.name.as_str()).collect();
        let cells = vec![view.name.clone(), view.job_name.clone(), view.key.join(", "), columns.join(", ")];
        Row::new(cells, view, &view.name)
    };
    Ok(Listing::new([left("name"), left("job"), left("key"), left("columns")], views.iter().map(row)))
}
