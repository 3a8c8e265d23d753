//! What a graph means.
use std::collections::BTreeMap;

use graph::{Graph, Problem, Schema, Settings};

/// The column by which event time is told on an edge, and the unit of its precision in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeAttribute {
    pub column: String,
    pub unit_us: i64,
}

/// What kinds of rows an edge carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changelog {
    InsertOnly,
    Retract,
    Upsert(Vec<String>),
}

/// What holds for the output of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    pub schema: Schema,
    pub bounded: bool,
    pub time: Option<TimeAttribute>,
    pub changelog: Changelog,
}

/// A graph that has passed.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    pub facts: BTreeMap<String, Facts>,
    pub bounded: bool,
    pub warnings: Vec<Problem>,
}

pub fn analyze(_graph: &Graph, _settings: &Settings) -> Result<Analysis, Vec<Problem>> {
    Err(vec![Problem::new("internal", "analysis follows in the next commit")])
}
