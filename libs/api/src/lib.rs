//! The types that travel over REST: serde for the wire, utoipa schemas for the OpenAPI document.
//!
//! Shared by the server, the Rust client and the command line. Times are RFC 3339 in UTC, durations texts (`10s`), sizes end in `_bytes`,
//! 64-bit positions are texts, because JavaScript loses their last digits. Enums may grow. This crate knows neither axum nor the
//! metadata store.

mod catalog;
mod graphs;
mod ids;
mod jobs;
mod keys;
mod operations;
mod problem;
mod runs;
mod system;
mod views;

pub use catalog::*;
pub use graphs::*;
pub use ids::*;
pub use jobs::*;
pub use keys::*;
pub use operations::*;
pub use problem::*;
pub use runs::*;
pub use system::*;
pub use views::*;

use std::collections::BTreeMap;

/// Names and values that mean something to the user only.
pub type Labels = BTreeMap<String, String>;
