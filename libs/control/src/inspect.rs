//! What the control plane asks a short-lived process to look at: it may touch files and networks, and its death costs nothing.
//!
//! The process reads one [`Question`] from its standard input and writes one [`Answer`] to its standard output.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attempt::Egress;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Whether the sources and sinks of a graph can be used, as far as that can be told without reading or writing.
    /// Connections with their secrets.
    Check {
        graph: Box<graph::Graph>,
        settings: Box<graph::Settings>,
        allowed_roots: Vec<PathBuf>,
        connections: BTreeMap<String, BTreeMap<String, String>>,
        egress: Egress,
    },
    /// How far a connection leads. The options hold secrets.
    Connect { kind: String, options: BTreeMap<String, String>, egress: Egress, seconds: u64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Checked(Vec<Found>),
    Connected(Vec<Step>),
}

/// Something that is wrong with an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub operator: Option<String>,
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

/// A step towards a system; the first that fails is the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub ok: bool,
    pub detail: String,
    pub elapsed_ms: u64,
}
