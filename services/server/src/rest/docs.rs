//! Pages for people, without anything from elsewhere: the operations of the document, and a page for each kind of error.

use axum::extract::Path;
use axum::response::Html;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use api::Problem;

use crate::app::App;
use crate::auth::Viewer;
use crate::document;
use crate::problem::{ApiError, ApiResult, KINDS};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(docs)).routes(routes!(problem_page))
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
    code,pre{font-family:ui-monospace,monospace;background:#8881;padding:.1rem .3rem;border-radius:.2rem}\
    pre{padding:.6rem;overflow:auto}summary{cursor:pointer;padding:.3rem 0}details{border-bottom:1px solid #8884}\
    b.method{display:inline-block;width:4.5rem}table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}\
    :root{color-scheme:light dark}";

/// Show the operations as a page
///
/// To everyone: it needs no key, like `/openapi.json`.
#[utoipa::path(get, path = "/docs", operation_id = "docs", tag = "system", security(()), responses(
    (status = 200, description = "A page that needs nothing from elsewhere", body = String, content_type = "text/html")))]
async fn docs(Viewer(_): Viewer) -> Html<String> {
    Html(operations_page(document::value()))
}

/// Show what an error means
///
/// To everyone: it needs no key.
#[utoipa::path(get, path = "/docs/problems/{code}", operation_id = "problem_page", tag = "system", security(()),
    params(("code" = String, Path, description = "Code of an error")), responses(
        (status = 200, description = "A page about the error", body = String, content_type = "text/html"),
        (status = 404, description = "There is no such error", body = Problem, content_type = "application/problem+json")))]
async fn problem_page(Viewer(_): Viewer, Path(code): Path<String>) -> ApiResult<Html<String>> {
    let found = KINDS.iter().find(|(known, ..)| *known == code);
    let (code, status, title, text) =
        found.ok_or_else(|| ApiError::new("not_found", "there is no error of this code"))?;
    let body = format!("<h1>{}</h1><p><code>{code}</code>, status {status}</p><p>{}</p>", escape(title), escape(text));
    Ok(Html(page(title, &body)))
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body>{body}</body></html>",
        escape(title)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn operations_page(document: &Value) -> String {
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let mut body = format!(
        "<h1>Highwater {}</h1><p>{}</p><p>The whole document: <a href=\"/openapi.json\">openapi.json</a></p>",
        text(&document["info"]["version"]),
        text(&document["info"]["description"])
    );
    for tag in document["tags"].as_array().into_iter().flatten() {
        body.push_str(&format!("<h2>{}</h2><p>{}</p>", text(&tag["name"]), text(&tag["description"])));
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                if operation["tags"].as_array().is_some_and(|tags| tags.contains(&tag["name"])) {
                    body.push_str(&operation_part(path, method, operation));
                }
            }
        }
    }
    body.push_str("<h2>Schemas</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let json = serde_json::to_string_pretty(schema).unwrap_or_default();
        body.push_str(&format!(
            "<details id=\"{name}\"><summary>{name}</summary><pre>{}</pre></details>",
            escape(&json)
        ));
    }
    page("Highwater API", &body)
}

fn operation_part(path: &str, method: &str, operation: &Value) -> String {
    let text = |value: &Value| escape(value.as_str().unwrap_or_default());
    let mut part = format!(
        "<details><summary><b class=\"method\">{}</b><code>{}</code> {}</summary><p>{}</p>",
        method.to_uppercase(),
        escape(path),
        text(&operation["summary"]),
        text(&operation["description"])
    );
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    if !parameters.is_empty() {
        part.push_str("<table><tr><th>parameter</th><th>in</th><th></th></tr>");
        for parameter in &parameters {
            part.push_str(&format!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
                text(&parameter["name"]),
                text(&parameter["in"]),
                text(&parameter["description"])
            ));
        }
        part.push_str("</table>");
    }
    let schema = |content: &Value| {
        let references = content.as_object().into_iter().flatten().map(|(media, content)| {
            let name = content["schema"]["$ref"].as_str().and_then(|path| path.rsplit('/').next());
            match name {
                Some(name) => format!("{} <a href=\"#{name}\">{name}</a>", escape(media)),
                None => escape(media),
            }
        });
        references.collect::<Vec<_>>().join(", ")
    };
    if operation["requestBody"].is_object() {
        part.push_str(&format!("<p>Body: {}</p>", schema(&operation["requestBody"]["content"])));
    }
    part.push_str("<table><tr><th>status</th><th></th><th></th></tr>");
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        part.push_str(&format!(
            "<tr><td>{status}</td><td>{}</td><td>{}</td></tr>",
            text(&answer["description"]),
            schema(&answer["content"])
        ));
    }
    part.push_str("</table></details>");
    part
}
