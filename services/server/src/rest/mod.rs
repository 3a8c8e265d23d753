//! The resources, one file each: parse, call one function of the domain, convert.

mod access;
mod catalogue;
mod checkpoints;
mod docs;
mod graphs;
mod jobs;
mod operations;
mod query;
mod runs;
mod savepoints;
mod system;
mod views;

pub use query::{QUERY_PATH, remove_left as remove_left_queries};
pub use savepoints::conflict;

use api::IdKind;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

use crate::app::App;
use crate::document;
use crate::problem::{ApiError, ApiResult};

/// Every documented route.
pub fn routes() -> OpenApiRouter<App> {
    open_routes().merge(guarded_routes())
}

/// What is answered to everyone.
pub fn open_routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(document::beginning()).merge(system::open())
}

/// What needs a caller.
pub fn guarded_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(jobs::routes())
        .merge(runs::routes())
        .merge(savepoints::routes())
        .merge(checkpoints::routes())
        .merge(graphs::routes())
        .merge(views::routes())
        .merge(query::routes())
        .merge(catalogue::routes())
        .merge(operations::routes())
        .merge(access::routes())
        .merge(system::guarded())
        .merge(docs::routes())
}

/// The UUID of an identifier in a path.
pub fn parse_id(kind: IdKind, text: &str) -> ApiResult<Uuid> {
    kind.parse(text).ok_or_else(|| {
        let shown: String = text.chars().take(100).collect();
        ApiError::new("invalid_id", format!("{shown:?} is not the id of a {kind}"))
    })
}
