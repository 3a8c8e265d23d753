//! What the fuzz targets of scripts and graphs check, for any text: no panic, and what is accepted can be lowered and is the same graph
//! after a way through JSON. Each answers whether the text was accepted.
#![allow(dead_code)] // each target uses one of them

use engine::Fault;
use graph::{Graph, Settings};

/// Lowered for these numbers of workers: with one there is no exchange, and nothing is aggregated before it.
const WORKERS: [usize; 2] = [1, 3];

pub fn script(text: &str) -> bool {
    match sql::plan(text, &sql::Options::default()) {
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            sql::render(&problems, text, "script.sql");
            false
        }
        Ok(script) => {
            survives_json(&script.graph);
            let settings = Settings::from_options(script.settings).expect("SET was checked with its script");
            for workers in WORKERS {
                if let Err(error) = engine::plan::plan(&script.graph, &settings, workers) {
                    panic!("a script was accepted and cannot be lowered for {workers} workers: {error}");
                }
            }
            true
        }
    }
}

/// A graph of a good form may still be wrong in its meaning, which lowering reports; a failure of lowering itself is a bug.
pub fn graph(text: &str) -> bool {
    match Graph::from_json(text) {
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal has a reason");
            sql::render(&problems, text, "graph.json");
            false
        }
        Ok(graph) => {
            assert_eq!(graph.check(), [], "what was read is of a good form");
            survives_json(&graph);
            let lowered = WORKERS.map(|workers| engine::plan::plan(&graph, &Settings::default(), workers));
            for error in lowered.iter().filter_map(|lowered| lowered.as_ref().err()) {
                assert!(error.fault == Fault::User, "{error:?}");
            }
            assert_eq!(lowered[0].is_ok(), lowered[1].is_ok(), "the number of workers decides nothing");
            lowered[0].is_ok()
        }
    }
}

fn survives_json(graph: &Graph) {
    let text = serde_json::to_string(graph).expect("a graph is JSON");
    assert_eq!(Graph::from_json(&text).as_ref(), Ok(graph), "a graph is the same after a way through JSON");
}
