//! Expression text to typed expressions that run over Arrow, and what a graph of them means.
//!
//! [`compile`] takes SQL text and the columns it stands on, and gives a [`Compiled`] expression with its type; [`analyze`] takes a graph
//! and gives the [`Facts`] of every edge: its columns, boundedness, time attribute and changelog kind, or everything that is wrong.
//! Meaning is Flink's, with the exceptions of docs/sql.md (overflow is an error). Names and types are bound here, node by node, so
//! that each refusal has its span; evaluation is Arrow's kernels and DataFusion's physical expressions and scalar functions.
//! This crate knows nothing of statements, connectors' files, state or threads.

mod aggregate;
mod analysis;
mod bind;
mod calendar;
mod cast;
mod compiled;
mod conditions;
mod decimal;
mod dialect;
mod error;
mod faults;
mod functions;
mod limits;
mod operators;
mod physical;
mod steps;
mod temporal;
#[cfg(test)]
mod tests;
mod types;

pub use aggregate::aggregate_type;
pub use analysis::{Analysis, Changelog, Facts, TimeAttribute, analyze};
pub use compiled::{Compiled, Env, cast, compile, compile_all, compile_ast};
pub use conditions::simple_conditions;
pub use dialect::{ExprDialect, HINT_MARK, syntax_error};
pub use error::{EvalError, ExprError, Span};
pub use functions::functions;
pub use limits::{CHAIN_MAX, DEPTH_MAX, PARSER_RECURSION, RELATIONS_MAX, TOKENS_MAX, check_tokens};
pub use steps::bounded;
pub use types::{arrow_schema, arrow_type, casts_implicitly, sql_type};
