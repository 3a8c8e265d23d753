//! SQL scripts to job graphs.
//!
//! [`plan`] reads a script in Flink's SQL and gives the graph that runs it, or everything that is wrong with it, each with its place in the
//! text. The planner is our own, over sqlparser's syntax tree: names, windows, grouping and casts are settled here, and expressions go into
//! the graph as SQL text over the columns of their input, checked with `expr`. A script compiles to exactly what a graph file can say.
//! This crate knows nothing of I/O, timely or HTTP.
//!
//! `script` splits the text into statements and `ddl` reads CREATE; `planner` goes through the statements, `tables` makes sources and sinks,
//! `query` makes SELECTs (with `from`, `windows`, `grouping` and `order`) into [`relation::Relation`]s, and `nodes` holds the graph as it grows.

mod aggregates;
mod ddl;
mod dialect;
mod explain;
mod from;
mod grouping;
mod nodes;
mod order;
mod period;
mod planner;
mod query;
mod relation;
mod render;
mod resolve;
mod script;
mod tables;
#[cfg(test)]
mod tests;
mod types;
mod windows;

use std::collections::BTreeMap;

use datafusion_sql::sqlparser::tokenizer::Span;
use graph::{Graph, Place, Problem};
use serde_json::{Map, Value};

pub use explain::explain;
pub use render::render;

/// A planned script.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// `SET 'name' = 'value'`, in the order of the script; checked to be settings of a job.
    pub settings: Map<String, Value>,
    pub graph: Graph,
    /// Per node id the SQL that it came from.
    pub spans: BTreeMap<String, Place>,
    /// Whether a statement says EXPLAIN: the graph is to be shown, nothing of the script is to run.
    pub explain: bool,
}

/// What is given beside the text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// Table, option, value: replaces or adds an option of `WITH (...)`.
    pub overrides: Vec<(String, String, String)>,
    /// `CREATE TABLE` statements whose tables every script knows; one that the script creates itself under the same name comes before.
    /// Problems in them have no place, since the script's text does not hold them.
    pub catalog: Vec<String>,
}

/// What a `CREATE TABLE` statement says, without its options.
#[derive(Clone, Debug, PartialEq)]
pub struct TableDescription {
    pub name: String,
    pub connector: String,
    /// The columns as they stand in files and messages.
    pub columns: graph::Schema,
    /// Names of the connections that it uses.
    pub connections: Vec<String>,
    /// The name of an option that holds a secret, if one does.
    pub secret_option: Option<String>,
}

/// Reads and checks one `CREATE TABLE` statement.
pub fn describe_table(text: &str) -> Result<TableDescription, Vec<Problem>> {
    on_a_large_stack(|| planner::describe(text))
}

/// Bytes of stack for planning: far above what the limits on nesting and chains can need.
const STACK_BYTES: usize = 64 << 20;

/// Plans a script; reports every problem of all its statements at once, in the order of the text.
pub fn plan(text: &str, options: &Options) -> Result<Script, Vec<Problem>> {
    on_a_large_stack(|| planner::plan(text, options))
}

/// The parser and the checks recurse to the depth of the expressions, which is limited, but callers' stacks may be small.
fn on_a_large_stack<T: Send>(work: impl FnOnce() -> Result<T, Vec<Problem>> + Send) -> Result<T, Vec<Problem>> {
    std::thread::scope(|scope| {
        let planning = std::thread::Builder::new().name("sql".into()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        match planning.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => std::panic::resume_unwind(panic),
            Err(error) => {
                Err(vec![Problem::new("resource_limit", format!("cannot start a thread for planning: {error}"))])
            }
        }
    })
}

fn place(span: Span) -> Place {
    if span == Span::empty() {
        return Place::Nowhere;
    }
    Place::Span {
        line: span.start.line,
        column: span.start.column,
        end_line: span.end.line,
        end_column: span.end.column,
    }
}
