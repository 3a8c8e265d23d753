#![allow(clippy::unwrap_used)]
//! Scripts in, graphs as text out; wrong scripts in, places and codes out.

mod documents;
mod good;
mod limits;
mod wrong;

use std::collections::BTreeMap;

use graph::{Graph, Operator};

use crate::{Options, Script, plan};

/// The tables that most tests read and write.
const TABLES: &str = "
CREATE TABLE bid (auction BIGINT NOT NULL, bidder BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),
    WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH ('connector' = 'filesystem', 'path' = 'bid', 'format' = 'json');
CREATE TABLE out (k BIGINT, n BIGINT) WITH ('connector' = 'print');
";

fn planned(text: &str) -> Script {
    match plan(text, &Options::default()) {
        Ok(script) => script,
        Err(problems) => panic!("{}", crate::render(&problems, text, "script.sql")),
    }
}

/// The graph of a query over [`TABLES`].
fn graph(query: &str) -> String {
    let script = planned(&format!("{TABLES}{query}"));
    let json = serde_json::to_string(&script.graph).unwrap();
    assert_eq!(Graph::from_json(&json).as_ref(), Ok(&script.graph), "a script compiles to what a graph file can say");
    compact(&script.graph)
}

/// A line per node, without the hashes of the ids.
fn compact(graph: &Graph) -> String {
    let mut names: BTreeMap<&str, String> = BTreeMap::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for node in &graph.nodes {
        let kind = node.operator.type_name();
        let name = match &node.operator {
            Operator::Source(_) | Operator::Sink(_) => node.id.clone(),
            _ => {
                let count = counts.entry(kind).or_default();
                *count += 1;
                if *count == 1 { kind.to_string() } else { format!("{kind}{count}") }
            }
        };
        names.insert(&node.id, name);
    }
    let mut text = String::new();
    for node in &graph.nodes {
        let inputs: Vec<&str> = node.inputs.iter().map(|input| names[input.as_str()].as_str()).collect();
        let details = crate::explain::details(&node.operator).join("; ");
        let arrow = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(", ")) };
        text.push_str(&format!("{}: {details}{arrow}\n", names[node.id.as_str()]));
    }
    text
}
