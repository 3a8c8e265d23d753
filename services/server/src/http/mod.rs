//! What is the same for all requests: reading them, answering errors, limits, listening.

pub mod body;
pub mod creation;
pub mod edge;
pub mod json;
pub mod layers;
pub mod listen;
pub mod paging;
pub mod params;
pub mod precondition;

pub use body::Body;
pub use creation::Creation;
pub use params::Params;

use crate::problem::{ApiError, ApiResult};

/// Runs a change and what follows from it. It is not cut off when whoever asked for it goes away: one without the other would leave a run
/// that is stored and that nobody starts.
pub async fn to_the_end<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> ApiResult<T> {
    tokio::spawn(change).await.map_err(ApiError::internal)
}
