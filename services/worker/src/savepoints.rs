//! Writes, judges and restores savepoints, in a process that looks at files for a control plane; see [`control::inspect`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connectors::AllowedRoots;
use control::inspect::{
    CheckpointFile, CheckpointPlace, Exported, IntoGraph, Judgement, Refused, SavepointPlace, in_object_store, is_below,
};
use control::savepoint::{Held, Judged, Part, Role, Wish, judge as judged, kept};
use engine::RunError;
use engine::plan::{AggregateSpec, Call, Plan, SortSpec, Stage, StageKind};
use graph::{Graph, Node, Operator, SinkConnector, SourceConnector};
use serde_json::{Value, json};
use state::savepoint::{self, Description, Savepoint, SavepointError, Target};
use state::{FileRef, Files, LocalFiles, Manifest};

use crate::Storage;

/// The table of one row that every operator keeps beside its own.
const WATERMARK: &str = "watermark";
/// Where a sink of files keeps those that it has not published.
const STAGED_FILES: &str = "staged_files";

pub async fn export(
    checkpoints: CheckpointPlace,
    job: &str,
    checkpoint: &CheckpointFile,
    description: Description,
    to: &SavepointPlace,
) -> Result<Exported, Refused> {
    let to = place_of(to, &checkpoints.options)?;
    let from = opened(checkpoints)?;
    let CheckpointFile { epoch, manifest, bytes, sha256 } = checkpoint.clone();
    let file = FileRef { path: manifest, bytes, sha256 };
    let manifest = Manifest::open(&*from, &file, job, epoch).await.map_err(SavepointError::from).map_err(refused)?;
    let (written, bytes) = savepoint::export(&*from, &manifest, description, &*to).await.map_err(refused)?;
    let state = held(&written).into_iter().map(|(operator, held)| (operator, (held.rows, held.bytes)));
    Ok(Exported { bytes, manifest_sha256: written.manifest_sha256.clone(), state: state.collect() })
}

pub async fn judge(
    from: &SavepointPlace,
    options: &BTreeMap<String, String>,
    into: &IntoGraph,
    patience: Duration,
) -> Result<Judgement, Refused> {
    let files = place_of(from, options)?;
    let read = savepoint::open(&*files).await.map_err(refused)?;
    let checked = savepoint::check(&*files, &read, patience).await.map_err(refused)?;
    Ok(Judgement {
        judged: verdicts(&read, into)?,
        job: read.job,
        job_name: read.job_name,
        epoch: read.epoch,
        manifest_sha256: read.manifest_sha256,
        checked,
    })
}

pub async fn import(
    from: &SavepointPlace,
    manifest_sha256: &str,
    into: &IntoGraph,
    checkpoints: CheckpointPlace,
    run: String,
    epoch: u64,
) -> Result<CheckpointFile, Refused> {
    let files = place_of(from, &checkpoints.options)?;
    let read = savepoint::open(&*files).await.map_err(refused)?;
    if read.manifest_sha256 != manifest_sha256 {
        let message = format!("{} is another savepoint than when the run was asked for", from.name());
        return Err(refusal("savepoint_corrupt", message));
    }
    let judged = verdicts(&read, into)?;
    if !judged.iter().all(|judged| judged.verdict.is_fine()) {
        let message = format!("{} does not fit the job", from.name());
        return Err(Refused { code: "savepoint_conflict".into(), message, judged });
    }
    let job = into.job.clone().ok_or_else(|| refusal("internal_error", "a savepoint is restored by a job"))?;
    let target = Target { job, run, epoch, kept: kept(&judged) };
    let written = savepoint::import(&*files, &read, &target, &*opened(checkpoints)?).await.map_err(refused)?;
    Ok(CheckpointFile { epoch, manifest: written.path, bytes: written.bytes, sha256: written.sha256 })
}

/// The place of all checkpoints. Its directory is not told to clients.
pub fn opened(checkpoints: CheckpointPlace) -> Result<Arc<dyn Files>, Refused> {
    let CheckpointPlace { place, options } = checkpoints;
    if !in_object_store(&place) {
        return Ok(Arc::new(LocalFiles::new(place).called("checkpoints")));
    }
    Storage { place, options }.open().map_err(not_planned)
}

/// The place of a savepoint: a directory without links or a part of an object store, below an allowed one where that matters.
fn place_of(savepoint: &SavepointPlace, options: &BTreeMap<String, String>) -> Result<Arc<dyn Files>, Refused> {
    let SavepointPlace { place, allowed_roots } = savepoint;
    if in_object_store(place) {
        if allowed_roots.as_ref().is_some_and(|roots| !is_below(place, roots)) {
            let message = format!("{place} is outside of the places that the server allows");
            return Err(refusal("location_not_allowed", message));
        }
        let opened = state::objects::open(place, options);
        return opened.map_err(|why| refusal("validation_failed", format!("{place} cannot be used: {why}")));
    }
    let directory = match allowed_roots {
        Some(roots) => AllowedRoots::new(roots).directory(Path::new(place)).map_err(not_planned)?,
        None => place.into(),
    };
    Ok(Arc::new(LocalFiles::new(directory).called(savepoint.name())))
}

pub fn refusal(code: &str, message: impl Into<String>) -> Refused {
    Refused { code: code.into(), message: message.into(), judged: Vec::new() }
}

fn refused(error: SavepointError) -> Refused {
    refusal(error.code(), error.to_string())
}

fn not_planned(error: RunError) -> Refused {
    refusal(&error.code.clone(), error.to_string())
}

fn verdicts(savepoint: &Savepoint, into: &IntoGraph) -> Result<Vec<Judged>, Refused> {
    let old = Graph::from_json(&savepoint.graph.to_string()).map_err(|problems| {
        let why = problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
        refusal("savepoint_format", format!("the graph of the savepoint cannot be read by this program: {why}"))
    })?;
    let (old, new) = (parts(&old, &into.settings)?, parts(&into.graph, &into.settings)?);
    let held = held(savepoint);
    let known = |id: &String| old.iter().any(|part| part.id == *id);
    if let Some(unknown) = into.may_drop.iter().find(|id| !known(id)) {
        let names: Vec<&str> = old.iter().map(|part| part.id.as_str()).collect();
        let message = format!(
            "allow_dropped_state names {unknown:?}, which the savepoint does not have; it has {}",
            names.join(", ")
        );
        return Err(refusal("validation_failed", message));
    }
    let same_job = into.job.as_ref() == Some(&savepoint.job);
    Ok(judged(&old, &new, &held, &Wish { may_drop: &into.may_drop, same_job }))
}

/// What the savepoint has, by operator. What serves an operator under a name of its own holds nothing.
fn held(savepoint: &Savepoint) -> BTreeMap<String, Held> {
    let mut all: BTreeMap<String, Held> = BTreeMap::new();
    for operator in &savepoint.operators {
        let held = all.entry(operator.operator.clone()).or_default();
        for table in &operator.tables {
            held.bytes += table.files.iter().map(|file| file.file.bytes).sum::<u64>();
            if table.table != WATERMARK {
                held.rows += table.rows;
            }
            if table.table == STAGED_FILES && table.rows > 0 {
                held.only_for_its_job = Some(format!(
                    "{} files of it are not published: a bounded run publishes at its end. They lie in its own directory, and only a run of \
                     its own job can do it",
                    table.rows
                ));
            }
        }
    }
    for sink in &savepoint.sinks {
        let held = all.entry(sink.operator.clone()).or_default();
        held.bytes += sink.files.iter().map(|file| file.bytes).sum::<u64>();
        // A view keeps its rows in a file.
        held.rows += sink.files.len() as u64;
    }
    all
}

/// The sources, operators with state and sinks of a graph, with what their state depends on.
fn parts(graph: &Graph, settings: &graph::Settings) -> Result<Vec<Part>, Refused> {
    let workers = (settings.parallelism * settings.processes) as usize;
    let plan = engine::plan::plan(graph, settings, workers).map_err(not_planned)?;
    let (meaning, mut lineages) = (Meaning { graph }, BTreeMap::new());
    let part = |node: &Node| {
        let stage = stage_of(&plan, node);
        let (role, needs) = match &node.operator {
            Operator::Source(source) => (Role::Source, vec![("reads", reads(&source.connector))]),
            Operator::WindowAggregate(aggregate) => {
                let mut needs = meaning.groups(node, &aggregate.keys, &aggregate.aggregates);
                needs.push(("window", meaning.window(node, &aggregate.window)));
                needs.extend(stage.map(layout));
                (Role::Operator, needs)
            }
            Operator::Aggregate(aggregate) => {
                let mut needs = meaning.groups(node, &aggregate.keys, &aggregate.aggregates);
                needs.extend(stage.map(layout));
                (Role::Operator, needs)
            }
            Operator::Sort(sort) => {
                let by = sort.by.iter().map(|key| meaning.of_text(node, &key.expr)).collect::<Vec<_>>().join(", ");
                let mut needs = vec![("order", by)];
                needs.extend(stage.map(layout));
                (Role::Operator, needs)
            }
            Operator::Sink(sink) => {
                let mut needs = vec![("connector", sink.connector.name().to_string())];
                if matches!(sink.connector, SinkConnector::View(_)) {
                    needs.push(("key", sink.primary_key.join(", ")));
                    needs.extend(stage.map(|stage| ("columns", columns(&stage.schema))));
                    needs.extend(stage.map(|stage| ("rows", meaning.columns(node, &stage.schema))));
                }
                (Role::Sink, needs)
            }
            _ => return None,
        };
        let needs = needs.into_iter().map(|(name, text)| (name.to_string(), text)).collect();
        let sources = if role == Role::Source { BTreeSet::new() } else { meaning.sources(node) };
        let is_copied = match &node.operator {
            // What others have of the outside is theirs: files that wait, marks, positions.
            Operator::Sink(sink) => matches!(sink.connector, SinkConnector::View(_)),
            _ => role == Role::Operator,
        };
        let lineage = is_copied.then(|| meaning.lineage(node, &mut lineages));
        Some(Part { id: node.id.clone(), role, needs, sources, lineage })
    };
    Ok(graph.nodes.iter().filter_map(part).collect())
}

/// The stage that has the state of a node.
fn stage_of<'a>(plan: &'a Plan, node: &Node) -> Option<&'a Stage> {
    plan.stages.iter().find(|stage| stage.operator == node.id && stage.kind.has_state())
}

/// What positions are of.
fn reads(connector: &SourceConnector) -> String {
    match connector {
        SourceConnector::Kafka(kafka) if connector.is_bounded() => format!("topic {} to its end", kafka.topic.trim()),
        SourceConnector::Kafka(kafka) => format!("topic {}", kafka.topic.trim()),
        SourceConnector::Filesystem(files) => format!("files {}", files.path),
        SourceConnector::Replay(replay) => format!("replayed files {}", replay.files.path),
        other => {
            let mut options = serde_json::to_value(other).unwrap_or_default();
            if let Some(options) = options.as_object_mut() {
                // How fast rows come is nothing that they depend on.
                options.remove("rows-per-second");
            }
            options.to_string()
        }
    }
}

fn columns(schema: &graph::Schema) -> String {
    let shown = schema.columns.iter().map(|column| format!("{}: {}", column.name, column.data_type));
    shown.collect::<Vec<_>>().join(", ")
}

/// The types of the columns in which the state is kept.
fn layout(stage: &Stage) -> (&'static str, String) {
    let calls = |calls: &[Call]| {
        let shown = calls.iter().map(|call| {
            let of = call.arg_type.as_ref().map_or(String::new(), |of| format!(" of {of}"));
            let retracts = if call.retracts { ", taken back" } else { "" };
            format!("{}{of} as {}{retracts}", call.function.name(), call.result)
        });
        shown.collect::<Vec<_>>().join(", ")
    };
    let keys = |output: &graph::Schema, keys: usize| {
        let shown = output.columns[..keys].iter().map(|column| column.data_type.to_string());
        shown.collect::<Vec<_>>().join(", ")
    };
    let text = match &stage.kind {
        StageKind::Aggregate(AggregateSpec { keys: count, calls: all, retracts, bounded, output, .. }) => {
            let bounded = if *bounded { "; results at the end only" } else { "" };
            let retracts = if *retracts { "; rows are taken back" } else { "" };
            format!("keys {}; {}{retracts}{bounded}", keys(output, *count), calls(all))
        }
        StageKind::WindowAggregate(spec) => format!("keys {}; {}", keys(&spec.output, spec.keys), calls(&spec.calls)),
        StageKind::SessionAggregate(spec) => format!("keys {}; {}", keys(&spec.output, spec.keys), calls(&spec.calls)),
        StageKind::Sort(SortSpec { drop_last, .. }) => format!("{}; {drop_last} to sort by", columns(&stage.schema)),
        _ => columns(&stage.schema),
    };
    ("types", text)
}

/// What columns mean, down to those of the sources. Filters are left out: state fits whichever rows are still to come.
struct Meaning<'a> {
    graph: &'a Graph,
}

impl Meaning<'_> {
    /// The ids of the sources that a node's rows come from.
    fn sources(&self, node: &Node) -> BTreeSet<String> {
        let (mut seen, mut left, mut found) = (BTreeSet::new(), vec![node], BTreeSet::new());
        while let Some(node) = left.pop() {
            if !seen.insert(node.id.clone()) {
                continue;
            }
            if matches!(node.operator, Operator::Source(_)) {
                found.insert(node.id.clone());
            }
            left.extend(node.inputs.iter().filter_map(|id| self.graph.node(id)));
        }
        found
    }

    /// Everything that is done from the sources to a node, filters too, and nothing of how nodes are called. Sources are called by their
    /// names, because positions are theirs. It stands for that, short: nodes share inputs, and what is written out would double at each.
    fn lineage(&self, node: &Node, known: &mut BTreeMap<String, String>) -> String {
        if let Some(known) = known.get(&node.id) {
            return known.clone();
        }
        let does = match &node.operator {
            Operator::Source(source) => json!({"source": node.id, "reads": reads(&source.connector), "is": source}),
            _ => self.does(node, known),
        };
        let lineage = state::files::sha256(does.to_string().as_bytes());
        known.insert(node.id.clone(), lineage.clone());
        lineage
    }

    fn does(&self, node: &Node, known: &mut BTreeMap<String, String>) -> Value {
        let mut does = serde_json::to_value(&node.operator).unwrap_or_default();
        if let (Operator::Sink(_), Some(sink)) = (&node.operator, does.as_object_mut()) {
            sink.remove("table");
            if let Some(connector) = sink.get_mut("connector").and_then(Value::as_object_mut) {
                connector.remove("view.name");
            }
        }
        let inputs = node.inputs.iter().filter_map(|id| self.graph.node(id));
        let inputs: Vec<String> = inputs.map(|input| self.lineage(input, known)).collect();
        json!({"does": does, "with": inputs})
    }

    fn groups(
        &self,
        node: &Node,
        keys: &[graph::NamedExpr],
        aggregates: &[graph::AggregateCall],
    ) -> Vec<(&'static str, String)> {
        let keys: Vec<String> = keys.iter().map(|key| self.of_text(node, &key.expr)).collect();
        let aggregates: Vec<String> = aggregates.iter().map(|call| self.call(node, call)).collect();
        vec![("keys", keys.join(", ")), ("aggregates", aggregates.join(", "))]
    }

    fn call(&self, node: &Node, call: &graph::AggregateCall) -> String {
        let arguments: Vec<String> = call.args.iter().map(|text| self.of_text(node, text)).collect();
        let distinct = if call.distinct { "distinct " } else { "" };
        let filter = call.filter.as_ref().map(|text| format!(" filter {}", self.of_text(node, text)));
        let fraction = call.fraction.map(|fraction| format!(" at {fraction}"));
        let (filter, fraction) = (filter.unwrap_or_default(), fraction.unwrap_or_default());
        format!("{}({distinct}{}){filter}{fraction}", call.function.name(), arguments.join(", "))
    }

    fn window(&self, node: &Node, window: &graph::Window) -> String {
        let text = serde_json::to_value(window).unwrap_or_default();
        let time = text["time"].as_str().map(|time| self.of_text(node, time));
        match window {
            // What was attached before says which windows they are.
            graph::Window::Attached {} => self.of_text(node, "window_end"),
            _ => format!("{} by {}", without(&text, "time"), time.unwrap_or_default()),
        }
    }

    /// The columns of a sink, by position.
    fn columns(&self, node: &Node, schema: &graph::Schema) -> String {
        let names: Vec<String> = match node.inputs.first().and_then(|input| self.names(input)) {
            Some(names) => names,
            None => schema.columns.iter().map(|column| column.name.clone()).collect(),
        };
        let shown: Vec<String> = names.iter().map(|name| self.of_input(node, name)).collect();
        shown.join(", ")
    }

    /// Names of a node's columns, where the graph says them.
    fn names(&self, id: &str) -> Option<Vec<String>> {
        let node = self.graph.node(id)?;
        let named = |keys: &[graph::NamedExpr]| keys.iter().map(|key| key.name.clone()).collect::<Vec<_>>();
        match &node.operator {
            Operator::Project(project) => Some(named(&project.columns)),
            Operator::Filter(_) | Operator::Watermark(_) | Operator::Sort(_) | Operator::Union(_) => {
                self.names(node.inputs.first()?)
            }
            Operator::Source(source) => Some(source.columns.iter().map(|column| column.name.clone()).collect()),
            Operator::Aggregate(aggregate) => {
                let mut names = named(&aggregate.keys);
                names.extend(aggregate.aggregates.iter().map(|call| call.name.clone()));
                Some(names)
            }
            Operator::WindowAggregate(aggregate) => {
                let mut names = named(&aggregate.keys);
                names.extend(["window_start", "window_end", "window_time"].map(str::to_string));
                names.extend(aggregate.aggregates.iter().map(|call| call.name.clone()));
                Some(names)
            }
            _ => None,
        }
    }

    /// An expression over the columns of a node's input, with what they mean.
    fn of_text(&self, node: &Node, text: &str) -> String {
        let trimmed = text.trim();
        let words = words(trimmed);
        if let [only] = &words[..]
            && (only == trimmed || format!("\"{only}\"") == trimmed)
        {
            return self.of_input(node, only);
        }
        let mut meant: Vec<String> = Vec::new();
        for word in &words {
            let meaning = self.of_input(node, word);
            // Names of functions and words of SQL mean themselves, and are the same anywhere.
            if meaning != *word && !meant.contains(&format!("{word} = {meaning}")) {
                meant.push(format!("{word} = {meaning}"));
            }
        }
        if meant.is_empty() { trimmed.to_string() } else { format!("({trimmed} with {})", meant.join(", ")) }
    }

    fn of_input(&self, node: &Node, column: &str) -> String {
        match node.inputs.first().and_then(|input| self.graph.node(input)) {
            Some(input) => self.of(input, column),
            None => column.to_string(),
        }
    }

    /// A column of a node's output; a word that is none of its columns is itself.
    fn of(&self, node: &Node, column: &str) -> String {
        let find = |all: &[graph::NamedExpr]| all.iter().find(|one| one.name == column).map(|one| one.expr.clone());
        let call = |all: &[graph::AggregateCall]| all.iter().find(|one| one.name == column).cloned();
        match &node.operator {
            Operator::Source(source) => {
                let known = source.columns.iter().any(|known| known.name == column);
                let known = known || source.metadata.contains_key(column);
                if known { format!("{column} of {}", reads(&source.connector)) } else { column.to_string() }
            }
            Operator::Project(project) => match find(&project.columns) {
                Some(expr) => self.of_text(node, &expr),
                None => column.to_string(),
            },
            Operator::Union(_) => self.of_union(node, column),
            Operator::Aggregate(aggregate) => match (find(&aggregate.keys), call(&aggregate.aggregates)) {
                (Some(key), _) => self.of_text(node, &key),
                (None, Some(call)) => {
                    let keys: Vec<String> = aggregate.keys.iter().map(|key| self.of_text(node, &key.expr)).collect();
                    format!("{} by {}", self.call(node, &call), keys.join(", "))
                }
                (None, None) => column.to_string(),
            },
            Operator::WindowAggregate(aggregate) => match (find(&aggregate.keys), call(&aggregate.aggregates)) {
                (Some(key), _) => self.of_text(node, &key),
                (None, Some(call)) => {
                    let keys: Vec<String> = aggregate.keys.iter().map(|key| self.of_text(node, &key.expr)).collect();
                    let window = self.window(node, &aggregate.window);
                    format!("{} by {}, {window}", self.call(node, &call), keys.join(", "))
                }
                (None, None) if column.starts_with("window_") => {
                    format!("{column} of {}", self.window(node, &aggregate.window))
                }
                (None, None) => column.to_string(),
            },
            Operator::WindowAssign(assign) if column.starts_with("window_") => {
                format!("{column} of {}", self.window(node, &assign.window))
            }
            Operator::LateRows(_) | Operator::DeadLetters(_) => format!("{column} of {}", node.operator.type_name()),
            Operator::Filter(_)
            | Operator::Watermark(_)
            | Operator::WindowAssign(_)
            | Operator::Sort(_)
            | Operator::Sink(_) => self.of_input(node, column),
        }
    }

    /// The columns of all inputs at the place of the first one's.
    fn of_union(&self, node: &Node, column: &str) -> String {
        let names = node.inputs.first().and_then(|input| self.names(input));
        let Some(at) = names.and_then(|names| names.iter().position(|name| name == column)) else {
            return column.to_string();
        };
        let meant = node.inputs.iter().map(|id| {
            let input = self.graph.node(id);
            let name = self.names(id).and_then(|names| names.get(at).cloned());
            match (input, name) {
                (Some(input), Some(name)) => self.of(input, &name),
                _ => id.clone(),
            }
        });
        format!("either of {}", meant.collect::<Vec<_>>().join(" and "))
    }
}

fn without(value: &Value, name: &str) -> String {
    let mut value = value.clone();
    if let Some(object) = value.as_object_mut() {
        object.remove(name);
    }
    value.to_string()
}

/// The words of an expression that may be names of columns: identifiers, quoted ones without their quotes. What stands in quotes as a text
/// is none.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\'' => while rest.next().is_some_and(|letter| letter != '\'') {},
            '"' | '`' => {
                let mut word = String::new();
                for inner in rest.by_ref() {
                    if inner == letter {
                        break;
                    }
                    word.push(inner);
                }
                words.push(word);
            }
            letter if letter.is_alphabetic() || letter == '_' => {
                let mut word = String::from(letter);
                while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                words.push(word);
            }
            letter if letter.is_ascii_digit() => {
                while rest.next_if(|next| next.is_alphanumeric() || *next == '.').is_some() {}
            }
            _ => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::savepoint::Verdict;

    /// A graph as SQL plans it, by hand: a source, a projection, a count by key into a view.
    fn graph(key: &str, more: &str) -> Graph {
        let text = format!(
            r#"{{"version": 1, "nodes": [
                {{"id": "ticks", "type": "source", "table": "ticks", "connector": {{"type": "datagen", "rows-per-second": "10"}},
                  "columns": [{{"name": "n", "type": "BIGINT"}}{more}]}},
                {{"id": "p", "type": "project", "inputs": ["ticks"], "columns": [{{"name": "k", "expr": "{key}"}}, {{"name": "n", "expr": "n"}}]}},
                {{"id": "c", "type": "aggregate", "inputs": ["p"], "keys": [{{"name": "k", "expr": "k"}}],
                  "aggregates": [{{"name": "s", "function": "sum", "args": ["n"]}}]}},
                {{"id": "v", "type": "sink", "inputs": ["c"], "table": "v", "connector": {{"type": "view"}}, "primary_key": ["k"],
                  "columns": [{{"name": "k", "type": "BIGINT"}}, {{"name": "s", "type": "BIGINT"}}]}}
            ]}}"#
        );
        Graph::from_json(&text).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    fn verdicts_of(old: &Graph, new: &Graph) -> Vec<Verdict> {
        let settings = graph::Settings::default();
        let parts = |graph: &Graph| parts(graph, &settings).expect("it can be planned");
        let none = std::collections::BTreeSet::new();
        let wish = Wish { may_drop: &none, same_job: false };
        judged(&parts(old), &parts(new), &BTreeMap::new(), &wish).into_iter().map(|judged| judged.verdict).collect()
    }

    #[test]
    fn what_state_depends_on_is_seen_through_projections() {
        let old = graph("n % 7", "");
        assert_eq!(verdicts_of(&old, &old), vec![Verdict::Reuse; 3]);
        // Another column, and another rate.
        let mut wider = graph("n % 7", r#", {"name": "m", "type": "INT"}"#);
        if let Operator::Source(source) = &mut wider.nodes[0].operator
            && let SourceConnector::Datagen(datagen) = &mut source.connector
        {
            datagen.rows_per_second = Some(99);
        }
        assert_eq!(verdicts_of(&old, &wider), vec![Verdict::Reuse; 3]);
        // The key of the aggregate is called as before, and means something else.
        let other = verdicts_of(&old, &graph("n % 5", ""));
        assert_eq!(other[0], Verdict::Reuse);
        assert!(
            matches!(&other[1], Verdict::Conflict { why } if why.contains("n % 7") && why.contains("n % 5")),
            "{other:?}"
        );
        assert!(matches!(&other[2], Verdict::Conflict { why } if why.starts_with("rows")), "{other:?}");
        let typed = verdicts_of(&old, &graph("CAST(n AS INT)", ""));
        assert!(matches!(&typed[1], Verdict::Conflict { .. }), "{typed:?}");
    }

    #[test]
    fn texts_and_numbers_are_no_names() {
        assert_eq!(words("a + 1e5 * \"b c\" || 'd' || f(g_1)"), ["a", "b c", "f", "g_1"]);
    }
}
