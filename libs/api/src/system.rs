//! The server itself.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether the server lives or is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok`.
    pub status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Version {
    /// `highwater`.
    pub name: String,
    pub version: String,
    /// Versions of the API that are served.
    pub api: Vec<String>,
    /// Versions of the graph that are understood.
    pub graph: Vec<u64>,
}
