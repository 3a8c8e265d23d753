//! Sources and sinks: one folder or file per system.
//!
//! [`Registry`] opens what a graph's nodes name. Each connector implements `engine::Source` or `engine::Sink`: it reads and stages;
//! time, epochs and policies are the engine's. This crate knows nothing of operators.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use engine::plan::{Plan, Stage, StageKind};
use engine::{Connectors, RunError, Sink, SinkContext, Source, SourceHints};
use graph::{FilesystemOptions, SinkConnector, SourceConnector};

pub mod blackhole;
mod egress;
mod epoch_rows;
pub mod files;
pub mod generator;
mod http;
pub mod kafka;
mod not_null;
pub mod postgres;
pub mod print;
pub mod probe;
pub mod registry;
pub mod replay;
mod staged;
#[cfg(test)]
mod testing;
mod types;
pub mod view;

pub use egress::Egress;
pub use files::AllowedRoots;
pub use print::{OnPrint, PrintedRows};
pub use view::ViewHost;

/// All connectors of this build, with what they may touch.
pub struct Registry {
    roots: AllowedRoots,
    on_print: OnPrint,
    kafka: kafka::Surroundings,
    views: Option<ViewHost>,
}

impl Registry {
    /// Local files are limited to the roots. Printed rows go nowhere until [`on_print`](Self::on_print) says where.
    pub fn new(roots: AllowedRoots) -> Registry {
        let kafka =
            kafka::Surroundings { connections: Arc::default(), egress: Egress::everywhere(), restricted: false };
        Registry { roots, on_print: Arc::new(|_| {}), views: None, kafka }
    }

    /// Options of connections by name, secrets included, for tables that name one.
    pub fn with_connections(mut self, connections: BTreeMap<String, BTreeMap<String, String>>) -> Registry {
        self.kafka.connections = Arc::new(connections);
        self
    }

    /// Where to connect to. Default: everywhere but cloud metadata services.
    pub fn with_egress(mut self, egress: Egress) -> Registry {
        self.kafka.egress = egress;
        self
    }

    /// For runs of other people: options that name local files, commands, libraries or URLs are refused.
    pub fn restricted(mut self) -> Registry {
        self.kafka.restricted = true;
        self
    }

    /// Whom to call with the rows of `print` tables; called in the leader, in the order of epochs per table.
    pub fn on_print(self, on_print: OnPrint) -> Registry {
        Registry { on_print, ..self }
    }

    /// Who keeps the rows of `view` tables; without one they are refused. Only the leader's registry needs it.
    pub fn with_views(self, views: ViewHost) -> Registry {
        Registry { views: Some(views), ..self }
    }

    fn reach(&self) -> files::Reach {
        files::Reach { roots: self.roots.clone(), egress: self.kafka.egress.clone() }
    }

    /// The options of a table of files, with what its connection says, if its endpoint is allowed.
    fn files<'a>(&self, table: &str, options: &'a FilesystemOptions) -> Result<Cow<'a, FilesystemOptions>, RunError> {
        let kafka::Surroundings { connections, egress, restricted } = &self.kafka;
        files::reachable(table, options, connections, egress, *restricted)
    }

    /// What is wrong with the sources and sinks of a plan, as far as it can be told without reading or writing: one error for each,
    /// with its operator. What is found here would fail the run when it opens them. The brokers of tables that are written exactly once are
    /// asked whether they allow it, for some seconds.
    pub fn check(&self, plan: &Plan) -> Vec<RunError> {
        let checked = plan.stages.iter().filter_map(|stage| {
            let wrong = match &stage.kind {
                // Opening a source looks at nothing but the links of its path.
                StageKind::Source(source) => {
                    let hints = SourceHints {
                        columns: source.read.clone(),
                        time_column: source.time.as_ref().and_then(|time| time.read_column.clone()),
                        pushed: source.pushed.clone(),
                    };
                    let files = match &source.node.connector {
                        SourceConnector::Filesystem(options) => Some(&**options),
                        SourceConnector::Replay(options) => Some(&options.files),
                        SourceConnector::Datagen(_) | SourceConnector::Kafka(_) | SourceConnector::ViewSnapshot(_) => {
                            None
                        }
                    };
                    let opened = self.source(&source.node, hints).err();
                    let opened = opened.or_else(|| match &source.node.connector {
                        SourceConnector::Kafka(options) => {
                            kafka::check_servers(&source.node.table, options, &self.kafka).err()
                        }
                        _ => None,
                    });
                    opened.or_else(|| files::check_source(files?, &self.reach()).err().map(RunError::from))
                }
                StageKind::Sink(node) => match &node.connector {
                    SinkConnector::Filesystem(options) => {
                        let schema = expr::arrow_schema(&stage.schema);
                        let checked = self.files(&node.table, options).and_then(|options| {
                            files::check_sink(node, &options, &schema, &self.reach()).map_err(RunError::from)
                        });
                        checked.err()
                    }
                    SinkConnector::Kafka(options) => {
                        let context = context_of(plan, stage);
                        let schema = expr::arrow_schema(&stage.schema);
                        let opened = kafka::KafkaSink::open(node, options, schema, context, self.kafka.clone()).err();
                        let opened = opened.or_else(|| kafka::check_servers(&node.table, options, &self.kafka).err());
                        opened.or_else(|| kafka::check_broker(&node.table, options, &self.kafka).err())
                    }
                    SinkConnector::Postgres(options) => {
                        let context = context_of(plan, stage);
                        let schema = expr::arrow_schema(&stage.schema);
                        let opened = postgres::PostgresSink::open(node, options, schema, context, &self.kafka);
                        opened.and_then(|sink| postgres::check(&sink)).err()
                    }
                    SinkConnector::View(options) => {
                        let defined = view::definition(node, options, &stage.schema);
                        let host = self.views.is_none().then(|| view::no_host(&node.table));
                        host.or_else(|| defined.and_then(view::checked).err())
                    }
                    SinkConnector::Print(_) | SinkConnector::Blackhole(_) => None,
                },
                _ => None,
            };
            wrong.map(|error| error.operator(&stage.operator))
        });
        checked.collect()
    }
}

/// As far as it is known before a run.
fn context_of(plan: &Plan, stage: &Stage) -> SinkContext {
    SinkContext {
        run_id: String::new(),
        bounded: plan.bounded,
        updating: stage.updating,
        stateless: plan.is_stateless_before(stage),
        operator: stage.operator.clone(),
        // Whether the run will keep checkpoints is known when it begins.
        durable: true,
    }
}

impl Connectors for Registry {
    fn source(&self, node: &graph::Source, hints: SourceHints) -> Result<Arc<dyn Source>, RunError> {
        match &node.connector {
            SourceConnector::Filesystem(options) => {
                let options = self.files(&node.table, options)?;
                Ok(Arc::new(files::FilesystemSource::open(node, &options, hints, &self.reach())?))
            }
            SourceConnector::Replay(options) => {
                let mut options = options.clone();
                options.files = self.files(&node.table, &options.files)?.into_owned();
                Ok(Arc::new(replay::ReplaySource::open(node, &options, hints, &self.reach())?))
            }
            SourceConnector::Datagen(options) => {
                Ok(Arc::new(generator::datagen::DatagenSource::open(node, options, hints)?))
            }
            SourceConnector::Kafka(options) => {
                Ok(Arc::new(kafka::KafkaSource::open(node, options, hints, self.kafka.clone())?))
            }
            SourceConnector::ViewSnapshot(options) => {
                Ok(Arc::new(view::SnapshotSource::open(node, options, hints, &self.roots)?))
            }
        }
    }

    fn sink(&self, node: &graph::Sink, schema: SchemaRef, context: SinkContext) -> Result<Arc<dyn Sink>, RunError> {
        let sink: Arc<dyn Sink> = match &node.connector {
            SinkConnector::Print(options) => Arc::new(print::PrintSink {
                table: node.table.clone(),
                identifier: options.print_identifier.clone(),
                schema,
                context,
                on_print: self.on_print.clone(),
            }),
            SinkConnector::Blackhole(_) => blackhole::sink(),
            SinkConnector::Kafka(options) => {
                Arc::new(kafka::KafkaSink::open(node, options, schema, context, self.kafka.clone())?)
            }
            SinkConnector::Postgres(options) => {
                Arc::new(postgres::PostgresSink::open(node, options, schema, context, &self.kafka)?)
            }
            SinkConnector::View(options) => {
                Arc::new(view::ViewSink::open(node, options, schema, context, self.views.clone())?)
            }
            SinkConnector::Filesystem(options) => {
                let options = self.files(&node.table, options)?;
                Arc::new(files::FilesystemSink::open(node, &options, schema, context, &self.reach())?)
            }
        };
        Ok(not_null::enforced(sink, node))
    }
}
