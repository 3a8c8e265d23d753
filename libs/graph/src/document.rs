//! A graph as a document: reading, checking its form, ordering.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connector::{escaped, read_object};
use crate::*;

/// The version of the graph format that this crate reads and writes.
pub const GRAPH_VERSION: u32 = 1;

/// More nodes than this are refused.
pub const NODES_MAX: usize = 10_000;

/// Nodes and their inputs. A value of this type has passed [`Graph::check`] when it came from [`Graph::from_json`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Graph {
    /// 1.
    pub version: u32,
    pub nodes: Vec<Node>,
}

impl Graph {
    /// A graph of the current version; nothing is checked.
    pub fn new(nodes: Vec<Node>) -> Graph {
        Graph { version: GRAPH_VERSION, nodes }
    }

    /// The node with this id.
    pub fn node(&self, id: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// Reads a graph from JSON text; reports every problem of its form, with JSON Pointers.
    pub fn from_json(text: &str) -> Result<Graph, Vec<Problem>> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let place = Place::Span {
                line: error.line() as u64,
                column: error.column() as u64,
                end_line: error.line() as u64,
                end_column: error.column() as u64 + 1,
            };
            vec![Problem::new("malformed_json", format!("the graph is not JSON: {error}")).at(place)]
        })?;
        let Value::Object(mut object) = value else {
            return Err(vec![Problem::new(
                "malformed_graph",
                "a graph is a JSON object {\"version\": 1, \"nodes\": [...]}",
            )]);
        };
        let mut problems = Vec::new();
        match object.remove("version").as_ref().map(Value::as_u64) {
            Some(Some(1)) => {}
            Some(_) => problems.push(
                Problem::new("unknown_version", "this version of the graph format is not known; write 1")
                    .pointer("/version"),
            ),
            None => problems.push(
                Problem::new("missing_field", "the graph has no version; write \"version\": 1").pointer("/version"),
            ),
        }
        let nodes = match object.remove("nodes") {
            Some(Value::Array(nodes)) if nodes.len() <= NODES_MAX => nodes,
            Some(Value::Array(nodes)) => {
                let message = format!("the graph has {} nodes; {NODES_MAX} are the most", nodes.len());
                return Err(vec![Problem::new("graph_too_large", message).pointer("/nodes")]);
            }
            _ => {
                problems.push(Problem::new("missing_field", "the graph has no list of nodes").pointer("/nodes"));
                return Err(problems);
            }
        };
        for name in object.keys() {
            let problem = Problem::new("unknown_field", format!("a graph has no field {name:?}"));
            problems.push(problem.hint(suggestion(name, ["version", "nodes"])).pointer(format!("/{}", escaped(name))));
        }
        let mut read = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.into_iter().enumerate() {
            match read_node(node, &format!("/nodes/{index}")) {
                Ok(node) => read.push(node),
                Err(more) => problems.extend(more),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let graph = Graph::new(read);
        let problems = graph.check();
        if problems.is_empty() { Ok(graph) } else { Err(problems) }
    }

    /// As JSON text with the keys in a fixed order; secrets are replaced by `***` (such a text cannot be run).
    pub fn to_json_redacted(&self) -> String {
        let mut graph = self.clone();
        for node in &mut graph.nodes {
            let files = match &mut node.operator {
                Operator::Source(Source { connector: SourceConnector::Filesystem(files), .. }) => files,
                Operator::Source(Source { connector: SourceConnector::Replay(replay), .. }) => &mut replay.files,
                Operator::Sink(Sink { connector: SinkConnector::Filesystem(files), .. }) => files,
                Operator::Source(Source { connector: SourceConnector::Kafka(kafka), .. })
                | Operator::Sink(Sink { connector: SinkConnector::Kafka(kafka), .. }) => {
                    kafka.properties.redact();
                    kafka.avro.secrets_mut().for_each(|secret| secret.0 = "***".to_string());
                    continue;
                }
                Operator::Sink(Sink { connector: SinkConnector::Postgres(postgres), .. }) => {
                    if let Some(password) = &mut postgres.password {
                        password.0 = "***".to_string();
                    }
                    continue;
                }
                _ => continue,
            };
            for secret in [&mut files.s3_access_key, &mut files.s3_secret_key].into_iter().flatten() {
                secret.0 = "***".to_string();
            }
        }
        serde_json::to_string_pretty(&graph).expect("a graph has only text keys and finite numbers")
    }

    /// What is wrong with the form: ids, dangling inputs, numbers of inputs, cycles, nodes that lead nowhere.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut positions: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let at = format!("/nodes/{index}");
            if node.id.is_empty() || node.id.len() > 200 || node.id.chars().any(char::is_control) {
                problems.push(
                    Problem::new("invalid_id", "an id has 1 to 200 characters, none of them a control character")
                        .pointer(format!("{at}/id")),
                );
            }
            if let Some(first) = positions.insert(&node.id, index) {
                let message = format!("the id {:?} is taken by /nodes/{first}", node.id);
                problems.push(Problem::new("duplicate_id", message).pointer(format!("{at}/id")));
            }
        }
        let mut consumed: BTreeSet<&str> = BTreeSet::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let at = format!("/nodes/{index}/inputs");
            let kind = node.operator.type_name();
            let expected = match node.operator {
                Operator::Source(_) => 0..=0,
                Operator::Union(_) | Operator::LateRows(_) | Operator::DeadLetters(_) => 1..=NODES_MAX,
                _ => 1..=1,
            };
            if !expected.contains(&node.inputs.len()) {
                let expected = if *expected.end() > 1 {
                    "at least one input".to_string()
                } else {
                    format!("{} inputs", expected.end())
                };
                let message = format!("a {kind} has {expected}, not {}", node.inputs.len());
                problems.push(Problem::new("wrong_inputs", message).pointer(at.clone()));
            }
            for (position, input) in node.inputs.iter().enumerate() {
                let at = format!("{at}/{position}");
                let Some(&from) = positions.get(input.as_str()) else {
                    let hint = suggestion(input, positions.keys().copied());
                    problems.push(
                        Problem::new("unknown_input", format!("there is no node {input:?}")).hint(hint).pointer(at),
                    );
                    continue;
                };
                consumed.insert(input);
                let source = &self.nodes[from].operator;
                let wrong = match (&node.operator, source) {
                    (_, Operator::Sink(_)) => Some("a sink has no output".to_string()),
                    (Operator::LateRows(_), Operator::WindowAggregate(_) | Operator::WindowAssign(_)) => None,
                    (Operator::LateRows(_), other) => {
                        Some(format!("a {} has no late rows; only window operators do", other.type_name()))
                    }
                    (Operator::DeadLetters(_), Operator::Source(_)) => None,
                    (Operator::DeadLetters(_), other) => {
                        Some(format!("a {} has no dead letters; only sources do", other.type_name()))
                    }
                    _ => None,
                };
                if let Some(message) = wrong {
                    problems.push(Problem::new("wrong_input", message).pointer(at));
                }
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if !matches!(node.operator, Operator::Sink(_)) && !consumed.contains(node.id.as_str()) {
                let message = format!("nothing reads the output of {:?}", node.id);
                problems.push(
                    Problem::new("unused_output", message)
                        .hint("connect it to a sink, or remove it")
                        .pointer(format!("/nodes/{index}")),
                );
            }
        }
        if self.nodes.is_empty() {
            problems.push(Problem::new("empty_graph", "the graph has no nodes").pointer("/nodes"));
        }
        // With an id given twice it is not known who reads whom.
        let unique = positions.len() == self.nodes.len();
        if let Some(cycle) = self.cycle(&positions).filter(|_| unique) {
            let ids: Vec<String> = cycle.iter().map(|index| format!("{:?}", self.nodes[*index].id)).collect();
            let shown = ids.iter().chain(ids.first()).take(10).map(String::as_str).collect::<Vec<_>>().join(" -> ");
            let more = if ids.len() > 9 { format!(" ... ({} nodes)", ids.len()) } else { String::new() };
            problems.push(
                Problem::new("cycle", format!("nodes read one another in a cycle: {shown}{more}"))
                    .hint(
                        "a node reads only what does not come from it: take one of these out of the inputs of the next",
                    )
                    .pointer(format!("/nodes/{}/inputs", cycle[0])),
            );
        }
        problems
    }

    /// Positions of nodes of which each is an input of the next, and the last of the first. Inputs that are no nodes are passed over.
    fn cycle(&self, positions: &BTreeMap<&str, usize>) -> Option<Vec<usize>> {
        let inputs =
            |index: usize| self.nodes[index].inputs.iter().filter_map(|id| positions.get(id.as_str()).copied());
        let mut waiting: Vec<usize> = (0..self.nodes.len()).map(|index| inputs(index).count()).collect();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for index in 0..self.nodes.len() {
            inputs(index).for_each(|input| readers[input].push(index));
        }
        let mut ready: Vec<usize> = (0..self.nodes.len()).filter(|index| waiting[*index] == 0).collect();
        while let Some(index) = ready.pop() {
            for &reader in &readers[index] {
                waiting[reader] -= 1;
                if waiting[reader] == 0 {
                    ready.push(reader);
                }
            }
        }
        // What still waits is in a cycle or behind one, so going up from input to input comes back to where it was.
        let mut at = waiting.iter().position(|waiting| *waiting > 0)?;
        let mut path: Vec<usize> = Vec::new();
        let mut seen = vec![false; self.nodes.len()];
        while !seen[at] {
            seen[at] = true;
            path.push(at);
            at = inputs(at).find(|input| waiting[*input] > 0)?;
        }
        let start = path.iter().position(|index| *index == at)?;
        let mut cycle = path.split_off(start);
        cycle.reverse();
        Some(cycle)
    }

    /// Positions of the nodes such that inputs come first; among those that could be next, the first in the list. `None` if there is a cycle.
    pub fn ordered(&self) -> Option<Vec<usize>> {
        let positions: BTreeMap<&str, usize> =
            self.nodes.iter().enumerate().map(|(index, node)| (node.id.as_str(), index)).collect();
        let mut waiting: Vec<usize> = self.nodes.iter().map(|node| node.inputs.len()).collect();
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for input in &node.inputs {
                readers[*positions.get(input.as_str())?].push(index);
            }
        }
        let mut ready: BTreeSet<usize> = (0..self.nodes.len()).filter(|index| waiting[*index] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(index) = ready.pop_first() {
            order.push(index);
            for reader in &readers[index] {
                waiting[*reader] -= 1;
                if waiting[*reader] == 0 {
                    ready.insert(*reader);
                }
            }
        }
        (order.len() == self.nodes.len()).then_some(order)
    }
}

fn read_node(node: Value, at: &str) -> Result<Node, Vec<Problem>> {
    let Value::Object(mut object) = node else {
        return Err(vec![Problem::new("malformed_graph", "a node is a JSON object").pointer(at)]);
    };
    let mut problems = Vec::new();
    let id = match object.remove("id") {
        Some(Value::String(id)) => id,
        _ => {
            problems.push(Problem::new("missing_field", "the node has no id").pointer(format!("{at}/id")));
            String::new()
        }
    };
    let inputs = match object.remove("inputs").map(serde_json::from_value::<Vec<String>>) {
        None => Vec::new(),
        Some(Ok(inputs)) => inputs,
        Some(Err(_)) => {
            problems.push(Problem::new("invalid_field", "inputs is a list of ids").pointer(format!("{at}/inputs")));
            Vec::new()
        }
    };
    let operator = read_operator(object, at).map_err(|more| problems.extend(more)).ok();
    match operator {
        Some(operator) if problems.is_empty() => Ok(Node { id, inputs, operator }),
        _ => Err(problems),
    }
}

fn read_operator(mut object: Map<String, Value>, at: &str) -> Result<Operator, Vec<Problem>> {
    let kind = object.remove("type");
    let Some(kind) = kind.as_ref().and_then(Value::as_str) else {
        let problem = Problem::new("missing_field", "the node has no type");
        return Err(vec![
            problem.hint(format!("there is {}", Operator::TYPE_NAMES.join(", "))).pointer(format!("{at}/type")),
        ]);
    };
    let plain = |_: &str| false;
    Ok(match kind {
        "source" => {
            let connector = connector_options(&object, at)?;
            let connector = SourceConnector::from_options(&connector, &format!("{at}/connector"))?;
            object.insert("connector".into(), serde_json::to_value(connector).expect("options are JSON"));
            Operator::Source(read_object(object, at, plain)?)
        }
        "sink" => {
            let connector = connector_options(&object, at)?;
            let connector = SinkConnector::from_options(&connector, &format!("{at}/connector"))?;
            object.insert("connector".into(), serde_json::to_value(connector).expect("options are JSON"));
            Operator::Sink(read_object(object, at, plain)?)
        }
        "project" => Operator::Project(read_object(object, at, plain)?),
        "filter" => Operator::Filter(read_object(object, at, plain)?),
        "union" => Operator::Union(read_object(object, at, plain)?),
        "watermark" => Operator::Watermark(read_object(object, at, plain)?),
        "window_assign" => Operator::WindowAssign(read_object(object, at, plain)?),
        "window_aggregate" => Operator::WindowAggregate(read_object(object, at, plain)?),
        "aggregate" => Operator::Aggregate(read_object(object, at, plain)?),
        "sort" => Operator::Sort(read_object(object, at, plain)?),
        "late_rows" => Operator::LateRows(read_object(object, at, plain)?),
        "dead_letters" => Operator::DeadLetters(read_object(object, at, plain)?),
        other => {
            let problem = Problem::new("unknown_type", format!("there is no node type {other:?}"));
            return Err(vec![
                problem.hint(suggestion(other, Operator::TYPE_NAMES.iter().copied())).pointer(format!("{at}/type")),
            ]);
        }
    })
}

fn connector_options(object: &Map<String, Value>, at: &str) -> Result<Map<String, Value>, Vec<Problem>> {
    let missing = || {
        vec![
            Problem::new("missing_field", "connector is an object {\"type\": ..., options}")
                .pointer(format!("{at}/connector")),
        ]
    };
    object.get("connector").and_then(Value::as_object).cloned().ok_or_else(missing)
}

/// The columns of a `late_rows` node.
pub fn late_rows_schema() -> Schema {
    Schema::new(vec![
        Column::new("source", DataType::String, true),
        Column::new("split", DataType::String, true),
        Column::new("position", DataType::BigInt, true),
        Column::new("event_time", DataType::Timestamp(6), false),
        Column::new("watermark", DataType::Timestamp(6), false),
        Column::new("operator", DataType::String, false),
        Column::new("windows_missed", DataType::BigInt, false),
        Column::new("row", DataType::String, false),
    ])
}

/// The columns of a `dead_letters` node.
pub fn dead_letters_schema() -> Schema {
    Schema::new(vec![
        Column::new("source", DataType::String, false),
        Column::new("split", DataType::String, false),
        Column::new("position", DataType::BigInt, false),
        Column::new("code", DataType::String, false),
        Column::new("message", DataType::String, false),
        Column::new("payload", DataType::Bytes, true),
    ])
}

/// The JSON Schema of a graph document.
pub fn json_schema() -> Value {
    let mut schema = schemars::schema_for!(Graph).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.insert("title".into(), "Highwater job graph, version 1".into());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version": 1, "nodes": [
        {"id": "bids", "type": "source", "table": "bids", "connector": {"type": "filesystem", "path": "bids.json", "format": "json"},
         "columns": [{"name": "price", "type": "BIGINT"}]},
        {"id": "dear", "type": "filter", "inputs": ["bids"], "predicate": "price > 10"},
        {"id": "out", "type": "sink", "inputs": ["dear"], "table": "out", "connector": {"type": "print"}}]}"#;

    #[test]
    fn a_graph_survives_its_json() {
        let graph = Graph::from_json(GOOD).expect("good");
        assert_eq!(Graph::from_json(&graph.to_json_redacted()), Ok(graph));
    }

    #[test]
    fn every_problem_of_the_form_is_reported_at_once() {
        let text = r#"{"version": 1, "nodes": [
            {"id": "a", "type": "filter", "inputs": ["b"], "predicat": "x"},
            {"id": "b", "type": "sorce"},
            {"id": "c", "type": "source", "table": "c", "columns": [{"name": "x", "type": "BIGNT"}], "connector": {"type": "print"}}]}"#;
        let problems = Graph::from_json(text).expect_err("bad");
        let text = problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n");
        for part in ["/nodes/0/predicat", "did you mean predicate?", "did you mean source?", "/nodes/2/connector/type"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn names_inside_of_nodes_are_told_with_the_nearest() {
        let read = |window: &str, aggregate: &str| {
            let text = format!(
                r#"{{"version": 1, "nodes": [{{"id": "a", "type": "window_aggregate", "inputs": ["s"], "window": {window}, "aggregates": [{aggregate}]}}]}}"#
            );
            let problems = Graph::from_json(&text).expect_err("there is no node s");
            problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
        };
        let (window, count) =
            (r#"{"kind": "session", "time": "t", "gap": "1s"}"#, r#"{"name": "n", "function": "count"}"#);
        assert!(read(window, count).starts_with("/nodes/0/inputs/0: there is no node"), "{}", read(window, count));
        for (window, aggregate, expected) in [
            (
                r#"{"kind": "session", "time": "t", "gap": "1s", "offset": "1s"}"#,
                count,
                "there is no field \"offset\" here",
            ),
            (r#"{"kind": "tumbel", "time": "t", "size": "1s"}"#, count, "did you mean tumble?"),
            (r#"{"kind": "tumble", "time": "t", "size": "1s", "ofset": "1s"}"#, count, "did you mean offset?"),
            (window, r#"{"name": "n", "function": "cuont"}"#, "did you mean count?"),
            (window, r#"{"name": "n", "function": "count", "filtr": "x"}"#, "did you mean filter?"),
        ] {
            let found = read(window, aggregate);
            assert!(found.contains(expected) && !found.contains("unknown variant"), "{expected} in {found}");
        }
    }

    #[test]
    fn the_shape_is_checked() {
        let shape =
            |text: &str| Graph::from_json(text).expect_err("bad").iter().map(|p| p.code.clone()).collect::<Vec<_>>();
        let cycle = r#"{"version": 1, "nodes": [
            {"id": "a", "type": "union", "inputs": ["b"]}, {"id": "b", "type": "union", "inputs": ["a"]}]}"#;
        assert_eq!(shape(cycle), ["cycle"]);
        let message = Graph::from_json(cycle).expect_err("bad")[0].to_string();
        assert!(
            message.contains(r#"/nodes/1/inputs: nodes read one another in a cycle: "b" -> "a" -> "b""#),
            "{message}"
        );
        let beside = r#"{"version": 1, "nodes": [
            {"id": "s", "type": "source", "table": "r", "columns": [{"name": "x", "type": "INT"}], "connector": {"type": "datagen"}},
            {"id": "f", "type": "union", "inputs": ["g"]}, {"id": "g", "type": "union", "inputs": ["f"]},
            {"id": "o", "type": "sink", "inputs": ["f"], "table": "o", "connector": {"type": "print"}}]}"#;
        assert_eq!(shape(beside), ["unused_output", "cycle"]);
        let twice = GOOD.replace("\"id\": \"dear\"", "\"id\": \"bids\"");
        assert_eq!(shape(&twice), ["duplicate_id", "unknown_input", "unused_output"][..2].to_vec());
        assert_eq!(shape(r#"{"version": 1, "nodes": []}"#), ["empty_graph"]);
        assert_eq!(shape(r#"{"version": 2, "nodes": []}"#), ["unknown_version"]);
        assert_eq!(shape("{\"version\""), ["malformed_json"]);
    }

    #[test]
    fn secrets_are_redacted() {
        let text = GOOD.replace("\"format\": \"json\"", "\"format\": \"json\", \"s3.secret-key\": \"hunter2\"");
        let graph = Graph::from_json(&text).expect("good");
        assert!(!graph.to_json_redacted().contains("hunter2"));
        let kafka = r#"{"version": 1, "nodes": [
            {"id": "s", "type": "source", "table": "r", "columns": [{"name": "x", "type": "INT"}], "connector": {"type": "kafka",
             "topic": "t", "properties.bootstrap.servers": "b:1", "properties.sasl.password": "hunter2", "format": "avro-confluent",
             "avro-confluent.url": "http://r:1", "avro-confluent.basic-auth.user-info": "u:hunter2"}},
            {"id": "o", "type": "sink", "inputs": ["s"], "table": "o", "connector": {"type": "print"}}]}"#;
        let shown = Graph::from_json(kafka).expect("good").to_json_redacted();
        assert!(shown.contains("http://r:1") && !shown.contains("hunter2"), "{shown}");
    }
}
