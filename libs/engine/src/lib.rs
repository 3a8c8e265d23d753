//! Plans graphs and runs them: one dataflow for bounded and unbounded input.
//!
//! [`plan`] turns a graph into physical stages, purely. [`operators`] hold all keyed and stateful logic, synchronous and free of any
//! engine. [`runtime`] runs them on timely dataflow: time, exchange, flow control, epochs and failure. Connectors implement
//! [`Source`] and [`Sink`]. This crate knows nothing of Kafka, HTTP, SQL scripts or the metadata store.

pub mod aggregate;
pub mod batch;
pub mod error;
pub mod operator;
pub mod operators;
pub mod plan;
pub mod runtime;
pub mod sink;
pub mod source;

pub use batch::{Batch, Origin, Permit, RowKind};
pub use error::{Fault, RunError};
pub use operator::{Operator, Output};
pub use sink::{
    CommitKind, Commits, Committable, Prepared, Sink, SinkCommitter, SinkContext, SinkWriter, WriterContext,
};
pub use source::{
    BadRecord, Position, Pushed, RowPositions, Source, SourceContext, SourceEvent, SourceHints, SourceOutput, Split,
    SplitStart, Waiting,
};

/// What connectors a process can open; implemented by the `connectors` crate.
pub trait Connectors: Send + Sync {
    /// Opens a source: checks paths and credentials as far as that is cheap.
    fn source(&self, node: &graph::Source, hints: source::SourceHints) -> Result<std::sync::Arc<dyn Source>, RunError>;

    /// Opens a sink for rows of `schema`.
    fn sink(
        &self,
        node: &graph::Sink,
        schema: arrow::datatypes::SchemaRef,
        context: sink::SinkContext,
    ) -> Result<std::sync::Arc<dyn Sink>, RunError>;
}
