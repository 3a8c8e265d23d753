//! Validation: what a script or graph means, before anything runs.

use api::{GraphValidation, Problem, ValidateGraph};
use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::auth::Viewer;
use crate::http::Body;
use crate::planning::{Input, plan};
use crate::problem::ApiResult;

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(validate_graph))
}

/// Validate a script or graph
///
/// Plans it and says what holds for the rows of every node, or everything that is wrong. Nothing is stored and nothing runs.
#[utoipa::path(post, path = "/api/v1/graphs/validate", operation_id = "validate_graph", tag = "graphs",
    request_body(content = ValidateGraph, description = "A script or a graph"), responses(
        (status = 200, description = "What was found, also when it is not valid", body = GraphValidation),
        (status = 422, description = "The body has not the form of a validation", body = Problem, content_type = "application/problem+json")))]
async fn validate_graph(
    Viewer(_): Viewer,
    State(app): State<App>,
    body: Body<ValidateGraph>,
) -> ApiResult<Json<GraphValidation>> {
    let ValidateGraph { sql, graph, base_directory } = body.value;
    let input = Input { sql, graph, base_directory, ..Input::default() };
    let validation = match plan(&app, input).await? {
        Ok(planned) => planned.validation(),
        Err(errors) => GraphValidation { errors, ..GraphValidation::default() },
    };
    Ok(Json(validation))
}
