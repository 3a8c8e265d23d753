//! From a file, or stdin, to a graph that can run.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use connectors::{AllowedRoots, Registry};
use engine::RunError;
use engine::plan::Plan;
use expr::Analysis;
use graph::connector::is_left_behind;
use graph::{Graph, Place, Problem, Settings};
use miette::Severity;
use serde_json::{Map, Value};

use crate::arguments::ScriptArguments;
use crate::output::say;
use crate::problems::{Source, show};
use crate::roots::Roots;

/// Larger scripts and graphs are refused.
const SCRIPT_BYTES_MAX: u64 = 16 << 20;

/// A script or graph that can run.
#[derive(Debug)]
pub struct Script {
    pub source: Source,
    pub graph: Graph,
    pub settings: Settings,
    pub analysis: Analysis,
    /// What the arguments did to it.
    notes: Vec<Problem>,
    pub plan: Plan,
    /// The script asks for an explanation instead of a run.
    pub explain: bool,
    /// The settings that the script itself gives.
    pub given: Map<String, Value>,
    /// Per node id the text that it came from.
    spans: BTreeMap<String, Place>,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Refused {
    /// The script is right, and has neither INSERT nor SELECT.
    Nothing {
        name: String,
    },
    /// It could not be read, or an argument is wrong.
    Unreadable(String),
    Wrong {
        problems: Vec<Problem>,
        source: Source,
    },
}

impl Refused {
    /// Says on stderr what is wrong.
    pub fn show(&self) {
        match self {
            Refused::Nothing { name } => {
                say(&format!("{name} is valid: nothing to run, it has neither INSERT INTO nor SELECT\n"))
            }
            Refused::Unreadable(message) => say(&format!("error: {message}\n")),
            Refused::Wrong { problems, source } => show(problems, Severity::Error, source),
        }
    }
}

impl Script {
    /// Reads the file that the arguments name, and plans it.
    pub fn read(arguments: &ScriptArguments) -> Result<Script, Refused> {
        plan(read(&arguments.file)?, arguments)
    }

    /// Plans what was read already.
    pub fn of(source: Source, arguments: &ScriptArguments) -> Result<Script, Refused> {
        plan(source, arguments)
    }

    pub fn workers(&self) -> usize {
        (self.settings.parallelism * self.settings.processes) as usize
    }

    /// Warnings, with places in the script where that is known.
    pub fn warnings(&self) -> Vec<Problem> {
        self.analysis.warnings.iter().map(|warning| self.placed(warning)).chain(self.notes.iter().cloned()).collect()
    }

    /// Whether its sources and sinks can be used by a run in this process, as far as that can be told without reading or writing.
    pub fn check(&self, roots: &Roots) -> Result<(), Refused> {
        let problems = self.wrong(roots);
        if problems.is_empty() { Ok(()) } else { Err(Refused::Wrong { problems, source: self.source.clone() }) }
    }

    /// The same for a run here or of a server: what only a server can do is a warning.
    pub fn check_anywhere(&self, roots: &Roots) -> Result<Vec<Problem>, Refused> {
        let (warnings, problems): (Vec<_>, Vec<_>) =
            self.wrong(roots).into_iter().partition(|problem| problem.code == "views_not_served");
        if problems.is_empty() { Ok(warnings) } else { Err(Refused::Wrong { problems, source: self.source.clone() }) }
    }

    fn wrong(&self, roots: &Roots) -> Vec<Problem> {
        let wrong = Registry::new(AllowedRoots::new(&roots.directories)).check(&self.plan);
        let problem = |error: RunError| {
            let problem = Problem { hint: error.hint, ..Problem::new(error.code, error.message) };
            let operator = error.operator.unwrap_or_default();
            match self.spans.get(&operator) {
                Some(span) => problem.at(span.clone()),
                None => match self.graph.nodes.iter().position(|node| node.id == operator) {
                    Some(node) => problem.pointer(format!("/nodes/{node}/connector")),
                    None => problem,
                },
            }
        };
        wrong.into_iter().map(problem).collect()
    }

    /// Where an operator stands in the script.
    pub fn place(&self, operator: &str) -> Option<String> {
        match self.spans.get(operator)? {
            Place::Span { line, column, .. } => Some(format!("{}:{line}:{column}", self.source.name)),
            _ => None,
        }
    }

    fn placed(&self, problem: &Problem) -> Problem {
        let span = match &problem.place {
            Place::Pointer { pointer } => {
                node_of(pointer).and_then(|index| self.graph.nodes.get(index)).and_then(|node| self.spans.get(&node.id))
            }
            _ => None,
        };
        match span {
            Some(span) => problem.clone().at(span.clone()),
            None => problem.clone(),
        }
    }
}

/// Which node a pointer into a graph leads to.
fn node_of(pointer: &str) -> Option<usize> {
    pointer.strip_prefix("/nodes/")?.split('/').next()?.parse().ok()
}

/// A script or graph as text; `-` is stdin.
pub fn read(path: &Path) -> Result<Source, Refused> {
    let stdin = path == Path::new("-");
    let name = if stdin { "stdin".to_string() } else { path.display().to_string() };
    let unreadable = |reason: String| Refused::Unreadable(format!("cannot read {name}: {reason}"));
    let mut bytes = Vec::new();
    let opened: std::io::Result<Box<dyn Read>> = match stdin {
        true => Ok(Box::new(std::io::stdin())),
        false => std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
    };
    let read = opened.and_then(|file| file.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(unreadable(format!("it has more than {} MiB", SCRIPT_BYTES_MAX >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(format!("line {line} is not UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').map(str::to_string).unwrap_or(text);
    Ok(Source::new(name, text))
}

/// Whether a file holds a graph rather than SQL: by its name, or, on stdin, by its first letter.
pub fn is_graph(file: &Path, text: &str) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        || (file == Path::new("-") && text.trim_start().starts_with('{'))
}

fn plan(mut source: Source, arguments: &ScriptArguments) -> Result<Script, Refused> {
    for (key, value) in &arguments.set {
        source.secrets.option(key, value);
    }
    let (overrides, given) = split(arguments);
    let is_graph = is_graph(&arguments.file, &source.text);
    let mut notes = Vec::new();
    let planned = match is_graph {
        true => graph(&source.text, &overrides, &mut notes).map(|graph| sql::Script {
            graph,
            settings: Map::new(),
            spans: BTreeMap::new(),
            explain: false,
        }),
        false => sql::plan(&source.text, &sql::Options { overrides, ..sql::Options::default() }),
    };
    let planned = match planned {
        Ok(planned) => planned,
        Err(problems) if problems.len() == 1 && problems[0].code == "nothing_to_run" => {
            return Err(Refused::Nothing { name: source.name });
        }
        Err(problems) => return Err(Refused::Wrong { problems, source }),
    };
    let own = planned.settings.clone();
    let settings = settings(planned.settings, given)?;
    let analysis = match expr::analyze(&planned.graph, &settings) {
        Ok(analysis) => analysis,
        Err(problems) => return Err(Refused::Wrong { problems, source }),
    };
    let workers = (settings.parallelism * settings.processes) as usize;
    let plan = engine::plan::plan(&planned.graph, &settings, workers)
        .map_err(|error| Refused::Unreadable(format!("{} cannot run: {error}", source.name)))?;
    let (graph, spans, explain) = (planned.graph, planned.spans, planned.explain);
    Ok(Script { source, graph, settings, analysis, notes, plan, explain, given: own, spans })
}

type Overrides = Vec<(String, String, String)>;

/// What `--set` and its relatives give: options of tables, and settings.
fn split(arguments: &ScriptArguments) -> (Overrides, Map<String, Value>) {
    let mut overrides = Vec::new();
    let mut settings = Map::new();
    for (key, value) in &arguments.set {
        match key.strip_prefix("tables.").and_then(|rest| rest.split_once('.')) {
            Some((table, option)) => overrides.push((table.to_string(), option.to_string(), value.clone())),
            None => drop(settings.insert(key.clone(), Value::String(value.clone()))),
        }
    }
    for (key, value) in [("parallelism", arguments.parallelism), ("processes", arguments.processes)] {
        if let Some(value) = value {
            settings.insert(key.to_string(), value.into());
        }
    }
    (overrides, settings)
}

/// The arguments' settings above the script's, which are known to be right.
fn settings(mut script: Map<String, Value>, given: Map<String, Value>) -> Result<Settings, Refused> {
    script.extend(given);
    Settings::from_options(script).map_err(|problems| {
        let source = Source::new("--set ", "");
        let named = |mut problem: Problem| {
            if let Place::Pointer { pointer } = &mut problem.place {
                *pointer = pointer.trim_start_matches('/').replace("~1", "/").replace("~0", "~");
            }
            problem
        };
        Refused::Wrong { problems: problems.into_iter().map(named).collect(), source }
    })
}

/// A graph from its JSON text, with options of its tables replaced. A table that gets another connector loses the options that only its
/// former one has a meaning for, and `notes` get them.
fn graph(text: &str, overrides: &Overrides, notes: &mut Vec<Problem>) -> Result<Graph, Vec<Problem>> {
    let mut document = match serde_json::from_str::<Value>(text) {
        Ok(document) if !overrides.is_empty() => document,
        // What is wrong with the text is said with its place.
        _ => return Graph::from_json(text),
    };
    let mut problems = Vec::new();
    // What is given for the new connector must not be taken for the former one's.
    let (connectors, others): (Vec<_>, Vec<_>) = overrides.iter().partition(|(_, option, _)| option == "connector");
    for (table, option, value) in connectors.into_iter().chain(others) {
        let nodes = document.get_mut("nodes").and_then(Value::as_array_mut).into_iter().flatten();
        let mut found = false;
        for node in nodes.filter(|node| node.get("table").and_then(Value::as_str) == Some(table)) {
            if let Some(connector) = node.get_mut("connector").and_then(Value::as_object_mut) {
                let option = if option == "connector" { "type" } else { option };
                let was = connector.get("type").and_then(Value::as_str).unwrap_or_default().to_string();
                let (left, kept): (Map<_, _>, Map<_, _>) = std::mem::take(connector)
                    .into_iter()
                    .partition(|(name, _)| option == "type" && is_left_behind(name, &was, value));
                *connector = kept;
                if !left.is_empty() {
                    let mut left: Vec<&str> = left.keys().map(String::as_str).collect();
                    left.sort_unstable();
                    let message = format!("the table {table} is {value} now, without its {}", left.join(", "));
                    notes.push(Problem::new("options_left_out", message));
                }
                connector.insert(option.to_string(), Value::String(value.clone()));
                found = true;
            }
        }
        if !found {
            let message = format!("cannot set tables.{table}.{option}: there is no table {table}");
            problems.push(Problem::new("unknown_table", message).hint("name a table of a source or a sink"));
        }
    }
    if problems.is_empty() { Graph::from_json(&document.to_string()) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn arguments(set: &[(&str, &str)], parallelism: Option<u64>) -> ScriptArguments {
        let set = set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        ScriptArguments { file: "q.sql".into(), parallelism, processes: None, set }
    }

    #[test]
    fn arguments_stand_above_the_script() {
        let (overrides, given) = split(&arguments(
            &[("parallelism", "2"), ("tables.t.replay.speed", "max"), ("epoch.interval", "2s")],
            Some(5),
        ));
        assert_eq!(overrides, [("t".to_string(), "replay.speed".to_string(), "max".to_string())]);
        let script =
            [("epoch.interval", "9s"), ("source.batch-rows", "7")].map(|(key, value)| (key.to_string(), value.into()));
        let read = settings(script.into_iter().collect(), given).unwrap();
        assert_eq!((read.parallelism, read.epoch_interval, read.batch_rows), (5, graph::Period::from_secs(2), 7));
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let (_, given) = split(&arguments(&[("paralelism", "2"), ("epoch.interval", "0s")], None));
        let Err(Refused::Wrong { problems, source }) = settings(Map::new(), given) else { panic!("it is wrong") };
        let text = sql::render(&problems, &source.text, &source.name);
        assert!(text.contains("--> --set paralelism") && text.contains("did you mean parallelism?"), "{text}");
    }

    const GRAPH: &str = r#"{"version": 1, "nodes": [
        {"id": "s", "type": "source", "table": "t", "connector": {"type": "filesystem", "path": "a.csv", "format": "csv"},
         "columns": [{"name": "a", "type": "BIGINT"}]},
        {"id": "o", "type": "sink", "table": "out", "inputs": ["s"], "connector": {"type": "print"}}]}"#;

    #[test]
    fn options_of_a_graph_can_be_replaced() {
        let set = |table: &str, option: &str, value: &str| (table.to_string(), option.to_string(), value.to_string());
        let mut notes = Vec::new();
        let mut graph = |text: &str, overrides: &Overrides| super::graph(text, overrides, &mut notes);
        assert_eq!(graph(GRAPH, &vec![]).unwrap(), Graph::from_json(GRAPH).unwrap());
        let replaced = graph(GRAPH, &vec![set("t", "connector", "replay"), set("t", "replay.seed", "7")]).unwrap();
        let graph::Operator::Source(source) = &replaced.nodes[0].operator else { panic!("a source") };
        let graph::SourceConnector::Replay(options) = &source.connector else { panic!("{source:?}") };
        assert_eq!(options.seed, 7);
        assert_eq!(graph(GRAPH, &vec![set("u", "path", "b")]).unwrap_err()[0].code, "unknown_table");
        assert_eq!(graph(GRAPH, &vec![set("t", "pth", "b")]).unwrap_err()[0].code, "unknown_option");
        assert_eq!(graph("{", &vec![set("t", "path", "b")]).unwrap_err()[0].code, "malformed_json");
        assert_eq!(notes, []);
    }

    #[test]
    fn a_table_of_another_connector_leaves_the_options_of_the_former_behind() {
        let set = |option: &str, value: &str| ("t".to_string(), option.to_string(), value.to_string());
        let mut notes = Vec::new();
        let overrides = vec![set("fields.a.kind", "sequence"), set("connector", "datagen")];
        let replaced = graph(GRAPH, &overrides, &mut notes).unwrap();
        let graph::Operator::Source(source) = &replaced.nodes[0].operator else { panic!("a source") };
        let graph::SourceConnector::Datagen(options) = &source.connector else { panic!("{source:?}") };
        assert_eq!(options.fields["fields.a.kind"], "sequence");
        assert!(notes.len() == 1 && notes[0].message.contains("without its format, path"), "{notes:?}");
        let misspelt = GRAPH.replace("\"path\"", "\"pth\"");
        let problems = graph(&misspelt, &overrides, &mut notes).unwrap_err();
        assert_eq!(problems[0].code, "unknown_option", "what nobody knows is not left out");
    }

    #[test]
    fn a_graph_is_known_by_its_name_or_its_first_letter() {
        assert!(is_graph(Path::new("a.JSON"), "") && is_graph(Path::new("-"), " {}"));
        assert!(!is_graph(Path::new("a.sql"), "{}") && !is_graph(Path::new("-"), "SELECT"));
    }

    #[test]
    fn pointers_lead_to_nodes() {
        assert_eq!(
            (node_of("/nodes/12/columns/0"), node_of("/nodes/3"), node_of("/version")),
            (Some(12), Some(3), None)
        );
    }
}
