//! From the SQL or graph of a request to what a job version stores, or everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{ColumnFacts, Delivery, GraphValidation, JobLimits, JobSpec, NodeFacts, ProblemItem};
use expr::{Analysis, Changelog};
use graph::{Graph, Operator, Place, Problem, Settings, SinkConnector};
use metadata::{JobVersion, ViewDefinition};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::paths::{self, PATH_NOT_ABSOLUTE};
use crate::problem::{ApiError, ApiResult, items};
use crate::retention;

/// Planning that takes longer is given up.
const PLANNING_TIMEOUT: Duration = Duration::from_secs(10);

/// A script or graph, as it was given.
#[derive(Clone, Debug, Default)]
pub struct Input {
    pub sql: Option<String>,
    pub graph: Option<Value>,
    /// Settings that come before those of the script.
    pub settings: Map<String, Value>,
    /// Where relative paths begin; absolute.
    pub base_directory: Option<String>,
}

/// A graph that can run.
#[derive(Debug)]
pub struct Planned {
    pub sql: Option<String>,
    pub graph: Graph,
    pub settings: Settings,
    pub analysis: Analysis,
    pub warnings: Vec<ProblemItem>,
    /// Per node id where it stands in the script.
    pub spans: BTreeMap<String, Place>,
    /// The script asks for an explanation.
    pub explain: bool,
}

/// What is wrong, and with what.
pub type Wrong = Vec<ProblemItem>;

impl Input {
    pub fn of(spec: &JobSpec) -> Input {
        let mut settings: Map<String, Value> =
            spec.settings.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect();
        for (name, value) in [
            ("parallelism", spec.parallelism.map(Value::from)),
            ("processes", spec.processes.map(Value::from)),
            ("checkpoint.interval", spec.checkpoint_interval.clone().map(Value::from)),
        ] {
            if let Some(value) = value {
                settings.insert(name.to_string(), value);
            }
        }
        let base_directory = spec.base_directory.clone();
        Input { sql: spec.sql.clone(), graph: spec.graph.clone(), settings, base_directory }
    }
}

/// Plans on a thread of its own, within a time; tables of the catalogue are known to scripts.
pub async fn plan(app: &App, input: Input) -> ApiResult<Result<Planned, Wrong>> {
    plan_with(app, input, Vec::new()).await
}

/// The same with more tables that scripts know: `CREATE TABLE` statements. Those of the catalogue come before them.
pub async fn plan_with(app: &App, input: Input, more: Vec<String>) -> ApiResult<Result<Planned, Wrong>> {
    let mut catalog: Vec<String> = match input.sql.is_some() {
        true => app.store.tables().await?.into_iter().map(|table| table.sql).collect(),
        false => Vec::new(),
    };
    catalog.extend(more);
    let planning = tokio::task::spawn_blocking(move || plan_now(input, catalog));
    match tokio::time::timeout(PLANNING_TIMEOUT, planning).await {
        Ok(Ok(planned)) => Ok(planned),
        Ok(Err(error)) => Err(ApiError::internal(error)),
        Err(_) => Ok(Err(vec![ProblemItem {
            code: "query_too_complex".into(),
            message: format!("planning took longer than {PLANNING_TIMEOUT:?}"),
            ..ProblemItem::default()
        }])),
    }
}

fn plan_now(input: Input, catalog: Vec<String>) -> Result<Planned, Wrong> {
    let Input { sql, graph, settings, base_directory } = input;
    match (sql, graph) {
        (Some(sql), None) => plan_sql(sql, settings, catalog, base_directory.as_deref()),
        (None, Some(graph)) => plan_graph(graph, settings, base_directory.as_deref()),
        (sql, _) => {
            let message = match sql {
                Some(_) => "both sql and graph are given; give one of them",
                None => "neither sql nor graph is given",
            };
            Err(vec![ProblemItem {
                pointer: Some("/sql".into()),
                code: "missing_field".into(),
                message: message.into(),
                ..ProblemItem::default()
            }])
        }
    }
}

fn plan_sql(
    text: String,
    given: Map<String, Value>,
    catalog: Vec<String>,
    base: Option<&str>,
) -> Result<Planned, Wrong> {
    let mut script = sql::plan(&text, &sql::Options { catalog, ..sql::Options::default() })
        .map_err(|problems| items(&problems, Some(&text), ""))?;
    let mut settings = script.settings;
    settings.extend(given);
    let settings = read_settings(settings)?;
    let spans = script.spans;
    let shown = |problems: Vec<Problem>, graph: &Graph| {
        let placed: Vec<Problem> = problems.into_iter().map(|problem| placed(problem, graph, &spans)).collect();
        items(&placed, Some(&text), "/graph")
    };
    let (analysis, warnings) =
        analyzed(&mut script.graph, &settings, base).map_err(|problems| shown(problems, &script.graph))?;
    Ok(Planned {
        warnings: shown(warnings, &script.graph),
        sql: Some(text),
        graph: script.graph,
        settings,
        analysis,
        spans,
        explain: script.explain,
    })
}

/// What holds for the rows of every node, and what is worth a warning; paths are whole then.
fn analyzed(
    graph: &mut Graph,
    settings: &Settings,
    base: Option<&str>,
) -> Result<(Analysis, Vec<Problem>), Vec<Problem>> {
    let mut problems = paths::make_whole(graph, base);
    match expr::analyze(graph, settings) {
        Ok(analysis) if problems.is_empty() => {
            let mut warnings = analysis.warnings.clone();
            if analysis.bounded {
                warnings.extend(retention::cut_short(graph));
            }
            Ok((analysis, warnings))
        }
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

fn plan_graph(value: Value, given: Map<String, Value>, base: Option<&str>) -> Result<Planned, Wrong> {
    let settings = read_settings(given);
    let graph = Graph::from_json(&value.to_string()).map_err(|problems| items(&problems, None, "/graph"));
    let (settings, mut graph) = match (settings, graph) {
        (Ok(settings), Ok(graph)) => (settings, graph),
        (settings, graph) => return Err([settings.err(), graph.err()].into_iter().flatten().flatten().collect()),
    };
    let (analysis, warnings) =
        analyzed(&mut graph, &settings, base).map_err(|problems| items(&problems, None, "/graph"))?;
    let warnings = items(&warnings, None, "/graph");
    Ok(Planned { sql: None, graph, settings, analysis, warnings, spans: BTreeMap::new(), explain: false })
}

fn read_settings(settings: Map<String, Value>) -> Result<Settings, Wrong> {
    Settings::from_options(settings).map_err(|problems| items(&problems, None, "/settings"))
}

/// A problem of a planned graph is shown where its node stands in the script.
fn placed(problem: Problem, graph: &Graph, spans: &BTreeMap<String, Place>) -> Problem {
    let node = match &problem.place {
        Place::Pointer { pointer } => pointer
            .strip_prefix("/nodes/")
            .and_then(|rest| rest.split('/').next()?.parse::<usize>().ok())
            .and_then(|index| graph.nodes.get(index)),
        _ => None,
    };
    match node.and_then(|node| spans.get(&node.id)) {
        Some(span) => problem.at(span.clone()),
        None => problem,
    }
}

/// What a job version keeps of a plan.
pub struct Stored {
    pub graph: Graph,
    pub settings: Settings,
    pub limits: JobLimits,
}

impl Stored {
    pub fn of(version: &JobVersion) -> Result<Stored, String> {
        let graph = Graph::from_json(&version.graph.to_string())
            .map_err(|problems| format!("the stored graph cannot be read: {}", problems[0]))?;
        let part = |name: &str| version.settings.get(name).cloned().unwrap_or_default();
        let settings = serde_json::from_value(part("settings")).map_err(|error| error.to_string())?;
        let limits = serde_json::from_value(part("limits")).unwrap_or_default();
        Ok(Stored { graph, settings, limits })
    }
}

impl Planned {
    pub fn graph_json(&self) -> Value {
        serde_json::to_value(&self.graph).expect("a graph has only text keys and finite numbers")
    }

    /// What the version of a job keeps beside its graph.
    pub fn settings_json(&self, limits: &JobLimits, delivery: Delivery) -> Value {
        json!({"settings": self.settings, "limits": limits, "delivery": delivery})
    }

    /// sha256 over what the job means and how it runs, hexadecimal.
    pub fn hash(&self, settings: &Value) -> String {
        let mut hash = Sha256::new();
        hash.update(self.graph_json().to_string());
        hash.update(settings.to_string());
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What a service refuses of a graph that could run elsewhere.
    pub fn refuse(&self, delivery: Delivery) -> ApiResult<()> {
        if self.explain {
            return Err(wrong_graph(vec![ProblemItem {
                code: "statement_not_supported".into(),
                message: "EXPLAIN asks to see the plan, and a job is to run".into(),
                hint: Some("remove EXPLAIN, or validate the script: POST /api/v1/graphs/validate".into()),
                ..ProblemItem::default()
            }]));
        }
        self.refuse_inline_secrets()?;
        let mut unseen = Vec::new();
        for (index, node) in self.graph.nodes.iter().enumerate() {
            let Operator::Sink(sink) = &node.operator else { continue };
            if matches!(sink.connector, SinkConnector::Print(_)) {
                let problem = Problem::new(
                    "print_has_no_reader",
                    format!("{} prints its rows, and nobody would see them", sink.table),
                )
                .hint("INSERT INTO a table WITH ('connector' = 'view') and read GET /api/v1/views/{view}/rows")
                .pointer(format!("/nodes/{index}/connector"));
                unseen.push(placed(problem, &self.graph, &self.spans));
            }
        }
        if !unseen.is_empty() {
            return Err(wrong_graph(items(&unseen, self.sql.as_deref(), "/graph")));
        }
        let weaker = self.sinks().filter(|sink| !is_exactly_once(sink));
        let weaker: Vec<String> = weaker.map(|sink| format!("{} ({})", sink.table, sink.connector.name())).collect();
        if delivery > Delivery::AtLeastOnce && !weaker.is_empty() {
            let detail = format!("exactly_once is asked for, and gives at_least_once: {}", weaker.join(", "));
            let error = ApiError::new("guarantee_not_available", detail);
            return Err(
                error.hint("write a Kafka table WITH ('delivery' = 'exactly_once'), or ask for delivery at_least_once")
            );
        }
        Ok(())
    }

    /// Secrets of a job would be stored and shown with it.
    pub fn refuse_inline_secrets(&self) -> ApiResult<()> {
        let redacted: Value = serde_json::from_str(&self.graph.to_json_redacted()).unwrap_or_default();
        let mut found = Vec::new();
        differences(&self.graph_json(), &redacted, "/graph", &mut found);
        if found.is_empty() {
            return Ok(());
        }
        let item = |pointer: String| ProblemItem {
            message: format!("{} is a secret", pointer.rsplit('/').next().unwrap_or_default()),
            hint: Some("store it in a connection and name that: 'connection' = 'name'".into()),
            pointer: Some(pointer),
            code: "inline_secret".into(),
            ..ProblemItem::default()
        };
        Err(ApiError::new("inline_secret", "the job has secrets among its options").errors(found.into_iter().map(item)))
    }

    fn sinks(&self) -> impl Iterator<Item = &graph::Sink> {
        self.graph.nodes.iter().filter_map(|node| match &node.operator {
            Operator::Sink(sink) => Some(sink),
            _ => None,
        })
    }

    /// Where something that was found stands: in the script or in the graph.
    pub fn place(&self, found: &control::inspect::Found) -> ProblemItem {
        let Some(operator) = &found.operator else { return ProblemItem::default() };
        let position = self.graph.nodes.iter().position(|node| node.id == *operator);
        let place = match self.spans.get(operator) {
            Some(span) => span.clone(),
            None => {
                Place::Pointer { pointer: position.map_or(String::new(), |index| format!("/nodes/{index}/connector")) }
            }
        };
        let problem = Problem::new("", "").at(place);
        items(&[problem], self.sql.as_deref(), "/graph").remove(0)
    }

    /// The views that the graph writes.
    pub fn views(&self) -> ApiResult<Vec<ViewDefinition>> {
        let mut views = Vec::new();
        let mut names = BTreeSet::new();
        for node in &self.graph.nodes {
            let Operator::Sink(sink) = &node.operator else { continue };
            let Some(name) = sink.view_name().map(str::to_string) else { continue };
            if !names.insert(name.clone()) {
                return Err(wrong_graph(vec![ProblemItem {
                    code: "duplicate_name".into(),
                    message: format!("two sinks write the view {name}"),
                    ..ProblemItem::default()
                }]));
            }
            let columns = match sink.columns.is_empty() {
                false => columns(&sink.columns),
                true => {
                    self.analysis.facts.get(&node.id).map(|facts| columns(&facts.schema.columns)).unwrap_or_default()
                }
            };
            let definition = json!({"columns": columns, "key": sink.primary_key});
            views.push(ViewDefinition { name, definition });
        }
        Ok(views)
    }

    pub fn validation(&self) -> GraphValidation {
        let nodes = self.graph.nodes.iter().filter_map(|node| {
            let facts = self.analysis.facts.get(&node.id)?;
            Some(NodeFacts {
                id: node.id.clone(),
                columns: columns(&facts.schema.columns),
                bounded: facts.bounded,
                time_attribute: facts.time.as_ref().map(|time| time.column.clone()),
                changelog: match &facts.changelog {
                    Changelog::InsertOnly => "insert_only",
                    Changelog::Retract => "retract",
                    Changelog::Upsert(_) => "upsert",
                }
                .into(),
                key: facts.key.clone(),
            })
        });
        GraphValidation {
            valid: true,
            graph: serde_json::from_str(&self.graph.to_json_redacted()).ok(),
            bounded: Some(self.analysis.bounded),
            nodes: nodes.collect(),
            errors: Vec::new(),
            warnings: self.warnings.clone(),
        }
    }
}

pub fn columns(schema: &[graph::Column]) -> Vec<ColumnFacts> {
    let column = |column: &graph::Column| ColumnFacts {
        name: column.name.clone(),
        data_type: column.data_type.to_string(),
        nullable: column.nullable,
    };
    schema.iter().map(column).collect()
}

pub fn wrong_graph(errors: Vec<ProblemItem>) -> ApiError {
    let detail = match errors.as_slice() {
        [one] => one.message.clone(),
        many => format!("{} things in the script or graph are wrong", many.len()),
    };
    let relative = !errors.is_empty() && errors.iter().all(|error| error.code == PATH_NOT_ABSOLUTE);
    ApiError::new(if relative { PATH_NOT_ABSOLUTE } else { "invalid_graph" }, detail).errors(errors)
}

/// Whether a sink shows every row once, whatever its run meets.
fn is_exactly_once(sink: &graph::Sink) -> bool {
    match &sink.connector {
        SinkConnector::Filesystem(_) | SinkConnector::View(_) => true,
        SinkConnector::Kafka(kafka) => kafka.delivery == graph::kafka::DeliveryGuarantee::ExactlyOnce,
        // Where nothing is said, a run that keeps checkpoints writes exactly once.
        SinkConnector::Postgres(postgres) => postgres.delivery != Some(graph::kafka::DeliveryGuarantee::AtLeastOnce),
        _ => false,
    }
}

fn differences(one: &Value, other: &Value, at: &str, found: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            for (name, value) in ones {
                let below = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                differences(value, others.get(name).unwrap_or(&Value::Null), &below, found);
            }
        }
        (Value::Array(ones), Value::Array(others)) => {
            for (index, (value, other)) in ones.iter().zip(others).enumerate() {
                differences(value, other, &format!("{at}/{index}"), found);
            }
        }
        _ if one != other => found.push(at.to_string()),
        _ => {}
    }
}

/// Directories that a graph writes, in one spelling, however they are named and whether they exist or not.
pub async fn outputs(graph: &Graph) -> ApiResult<Vec<String>> {
    let written = graph.nodes.iter().filter_map(|node| match &node.operator {
        Operator::Sink(graph::Sink { connector: SinkConnector::Filesystem(files), .. }) => Some(&files.path),
        _ => None,
    });
    let written: Vec<String> = written.cloned().collect();
    let spelled = tokio::task::spawn_blocking(move || written.iter().map(|path| spelled(path)).collect());
    spelled.await.map_err(ApiError::internal)
}

fn spelled(path: &str) -> String {
    let path = path.strip_prefix("file://").unwrap_or(path);
    let path = path.strip_prefix("s3a://").map_or_else(|| path.to_string(), |rest| format!("s3://{rest}"));
    if path.starts_with("s3://") {
        return path.trim_end_matches('/').to_string();
    }
    // What exists of it may lead elsewhere through a link; what does not exist yet is as it stands.
    let path = Path::new(&path);
    let real = path.ancestors().find_map(|part| Some((part, std::fs::canonicalize(part).ok()?)));
    let whole = real.and_then(|(part, real)| Some(real.join(path.strip_prefix(part).ok()?)));
    whole.unwrap_or_else(|| path.to_path_buf()).components().collect::<PathBuf>().display().to_string()
}

/// Names of the connections that a graph uses.
pub fn connections(graph: &Graph) -> BTreeSet<String> {
    let named = |connector: Value| {
        let named = ["connection", "avro-confluent.connection"].map(|option| connector.get(option).cloned());
        named.into_iter().flatten().filter_map(|name| name.as_str().map(str::to_string)).collect::<Vec<_>>()
    };
    let connector = |node: &graph::Node| match &node.operator {
        Operator::Source(source) => serde_json::to_value(&source.connector).ok(),
        Operator::Sink(sink) => serde_json::to_value(&sink.connector).ok(),
        _ => None,
    };
    graph.nodes.iter().filter_map(connector).flat_map(named).collect()
}

/// The options of the connections that a graph uses, secrets included: for the process of a run, and nobody else.
pub async fn credentials(app: &App, graph: &Graph) -> ApiResult<BTreeMap<String, BTreeMap<String, String>>> {
    let mut all = BTreeMap::new();
    for name in connections(graph) {
        let (connection, sealed) = app.store.connection_with_secrets(&name).await?;
        all.insert(name.clone(), options(app, connection, &sealed)?);
    }
    Ok(all)
}

/// The options of a connection with its secrets opened.
pub fn options(
    app: &App,
    connection: metadata::Connection,
    sealed: &BTreeMap<String, Vec<u8>>,
) -> ApiResult<BTreeMap<String, String>> {
    let mut options = connection.options;
    for (option, sealed) in sealed {
        let opened = app.sealing.unseal(&secret_name(&connection.name, option), sealed);
        let opened = opened.ok_or_else(|| {
            ApiError::internal(format!(
                "the secret {option} of connection {} was sealed with another key",
                connection.name
            ))
        })?;
        options.insert(option.clone(), opened);
    }
    Ok(options)
}

/// What a sealed secret is bound to.
pub fn secret_name(connection: &str, option: &str) -> String {
    format!("{connection}/{option}")
}
