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
mod savepoints;
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
pub use savepoints::*;
pub use system::*;
pub use views::*;

use std::collections::BTreeMap;

use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// Names and values that mean something to the user only.
pub type Labels = BTreeMap<String, String>;

/// Labels as they are shown.
pub fn labels() -> Schema {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let labels = ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(Schema::Object(text)));
    Schema::Object(labels.description(Some("Names and values that mean something to the user only")).build())
}

/// What labels may be given: at most 64, names of 128 characters and values of 1024.
pub fn given_labels() -> Schema {
    let text = |most| ObjectBuilder::new().schema_type(Type::String).max_length(Some(most)).build();
    let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128)).build();
    let labels = ObjectBuilder::new().schema_type(Type::Object).max_properties(Some(64));
    let labels = labels.property_names(Some(name)).additional_properties(Some(Schema::Object(text(1024))));
    Schema::Object(labels.description(Some("Names and values that mean something to the user only")).build())
}
