//! The job graph: a versioned, flat list of typed nodes, written as JSON or planned from SQL.
//!
//! The narrow waist of the product: front ends make graphs, the engine runs them, and neither sees the other. [`Graph::from_json`]
//! reads and checks the form of a graph; what the expressions mean is found out by the `expr` crate's analysis.
//! This crate knows nothing of SQL planning, Arrow, I/O or HTTP.

mod avro;
pub mod connector;
mod document;
pub mod kafka;
mod node;
mod period;
pub mod postgres;
mod problem;
mod settings;
mod types;

pub use avro::AvroConfluentOptions;
pub use connector::{FileFormat, FilesystemOptions, ReplayOptions, Secret, SinkConnector, SourceConnector};
pub use document::{GRAPH_VERSION, Graph, NODES_MAX, dead_letters_schema, json_schema, late_rows_schema};
pub use kafka::KafkaOptions;
pub use node::*;
pub use period::Period;
pub use postgres::PostgresOptions;
pub use problem::{Place, Problem, nearest, suggestion};
pub use settings::{Settings, StateBackend};
pub use types::{Column, DataType, Schema, TypeError, quoted};
