//! What a graph means: the facts of every edge, or everything that is wrong with it.
//!
//! Nodes are visited inputs first; each operator's rule ([`node`]) derives the facts of its output from those of its inputs. A node whose
//! input has no facts is passed over, so that one mistake is reported once.

mod node;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use graph::{Graph, Operator, Place, Problem, Schema, Settings};

use crate::compiled::{Compiled, Env, compile_all, parse};
use crate::error::ExprError;

/// The column by which event time is told on an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeAttribute {
    pub column: String,
    /// The unit u of the column's precision, in microseconds: TIMESTAMP(3) has 1,000.
    pub unit_us: i64,
}

/// What kinds of rows an edge carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changelog {
    /// Rows are only added.
    InsertOnly,
    /// A change takes back the old row (-U, -D) before the new one.
    Retract,
    /// A change names its row by these columns; the old row is not sent.
    Upsert(Vec<String>),
}

/// For people: `updating (by k)`.
impl fmt::Display for Changelog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Changelog::InsertOnly => f.write_str("insert-only"),
            Changelog::Retract => f.write_str("updating (retractions)"),
            Changelog::Upsert(key) if key.is_empty() => f.write_str("updating (one row)"),
            Changelog::Upsert(key) => write!(f, "updating (by {})", key.join(", ")),
        }
    }
}

/// What holds for the output of a node; for a sink, for what it writes.
///
/// These are all that `sql` and the engine need; they derive none of it again:
/// - a project's, filter's or aggregate's result types are those of `schema`;
/// - a window operator's time column is the `time` of its input's facts, and `schema` gives the types of `window_start`, `window_end` (as
///   precise as the time attribute, at least milliseconds) and `window_time` (the time attribute's own type);
/// - first_value and last_value order by `order` of their input's facts;
/// - a union casts its inputs by position to `schema` (times to the finest precision);
/// - a sink casts its input by position to `schema`, and fails on NULL in a column that is NOT NULL there.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub schema: Schema,
    /// Whether the edge ends: all sources above it do.
    pub bounded: bool,
    pub time: Option<TimeAttribute>,
    pub changelog: Changelog,
    /// Columns that tell the rows of the result apart; `Some` of no columns: there is at most one row.
    pub key: Option<Vec<String>>,
    /// By what first_value and last_value go: the time attribute; behind `window_assign` the one from before, if its column is still there.
    pub order: Option<String>,
    /// Whether `window_start`, `window_end` and `window_time` are here and come from a window operator, so that windows can be `attached`.
    pub windowed: bool,
    /// Why the rows can change: the id of the nearest node above (or this one) whose result is updating.
    pub updates_from: Option<String>,
}

/// A graph that has passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// By node id.
    pub facts: BTreeMap<String, Facts>,
    /// Whether all sources are bounded.
    pub bounded: bool,
    pub warnings: Vec<Problem>,
}

/// Derives the facts of every edge; all problems at once, each with a JSON Pointer into the graph's document.
pub fn analyze(graph: &Graph, settings: &Settings) -> Result<Analysis, Vec<Problem>> {
    let mut problems = graph.check();
    let Some(order) = graph.ordered().filter(|_| problems.is_empty()) else { return Err(problems) };
    let bounded = graph.nodes.iter().all(|node| match &node.operator {
        Operator::Source(source) => source.connector.is_bounded(),
        _ => true,
    });
    let mut walk = Walk {
        graph,
        bounded,
        env: Env { overflow_wrap: settings.overflow_wrap, ..Env::default() },
        known: BTreeMap::new(),
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    for index in order {
        walk.visit(index);
    }
    problems.append(&mut walk.problems);
    if !problems.is_empty() {
        problems.sort_by_key(|problem| position(&problem.place));
        return Err(problems);
    }
    let facts = walk.known.into_iter().map(|(id, known)| (id, known.facts)).collect();
    walk.warnings.sort_by_key(|problem| position(&problem.place));
    Ok(Analysis { facts, bounded, warnings: walk.warnings })
}

/// Problems are told in the order of the document.
fn position(place: &Place) -> (usize, String) {
    match place {
        Place::Pointer { pointer } => {
            let index = pointer
                .strip_prefix("/nodes/")
                .and_then(|rest| rest.split('/').next())
                .and_then(|index| index.parse().ok());
            (index.unwrap_or(usize::MAX), pointer.clone())
        }
        _ => (usize::MAX, String::new()),
    }
}

/// Facts with what only the analysis needs.
#[derive(Clone, Debug)]
struct Known {
    facts: Facts,
    /// The source, if there are only projections and filters since: a watermark can be declared here.
    raw_source: Option<usize>,
    /// Whether any source above declares no watermark, for the message where a window misses its time attribute.
    no_watermark: Option<String>,
    /// Columns whose values depend on the clock: computed again for the row that takes back, they may differ.
    unstable: BTreeSet<String>,
}

impl Known {
    fn updating(&self) -> bool {
        self.facts.changelog != Changelog::InsertOnly
    }
}

struct Walk<'a> {
    graph: &'a Graph,
    /// Whether all sources are bounded.
    bounded: bool,
    env: Env,
    known: BTreeMap<String, Known>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Walk<'_> {
    fn visit(&mut self, index: usize) {
        let node = &self.graph.nodes[index];
        let inputs: Option<Vec<Known>> = node.inputs.iter().map(|input| self.known.get(input).cloned()).collect();
        let Some(inputs) = inputs else { return };
        let before = self.problems.len();
        let result = node::derive(self, index, &inputs);
        if let (Some(known), true) = (result, self.problems.len() == before) {
            self.known.insert(node.id.clone(), known);
        }
    }

    fn problem(&mut self, code: &str, message: impl Into<String>, hint: impl Into<String>, pointer: String) {
        let problem = Problem::new(code, message).pointer(pointer);
        let hint = hint.into();
        self.problems.push(if hint.is_empty() { problem } else { problem.hint(hint) });
    }

    fn warning(&mut self, code: &str, message: impl Into<String>, hint: impl Into<String>, pointer: String) {
        self.warnings.push(Problem::new(code, message).hint(hint).pointer(pointer));
    }

    /// Compiles a text of the graph, or reports why not.
    fn compile(&mut self, text: &str, input: &Known, pointer: String) -> Option<Compiled> {
        let parsed = parse(text).map_err(|error| vec![error]);
        let compiled = match parsed.and_then(|expr| compile_all(&expr, &input.facts.schema, &self.env)) {
            Ok(compiled) => compiled,
            Err(errors) => {
                let found = errors.iter().map(|error| expression_problem(error, text, pointer.clone()));
                self.problems.extend(found);
                return None;
            }
        };
        if compiled.processing_time() && input.facts.bounded {
            let message =
                "PROCTIME() has no meaning over a bounded input: the result would depend on when it is computed";
            self.problem("processing_time_bounded", message, "use a column of event time", pointer);
            return None;
        }
        if compiled.volatile() && input.updating() && input.facts.key.is_none() {
            let from = input.facts.updates_from.clone().unwrap_or_default();
            let message = format!(
                "the rows of {from:?} change and have no key, so a column that depends on the clock would take back other rows than it gave"
            );
            self.problem(
                "non_deterministic_update",
                message,
                "keep the key's columns, or compute it before the aggregation",
                pointer,
            );
            return None;
        }
        Some(compiled)
    }
}

fn expression_problem(error: &ExprError, text: &str, pointer: String) -> Problem {
    let place = match error.span {
        Some((1, column, _, _)) if !text.contains('\n') => format!(" (at character {column} of {})", shortened(text)),
        Some((line, column, _, _)) => format!(" (at line {line}, character {column} of the expression)"),
        None => String::new(),
    };
    let mut problem = Problem::new(error.code, format!("{}{place}", error.message)).pointer(pointer);
    problem.hint = error.hint.clone();
    problem
}

fn shortened(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}
