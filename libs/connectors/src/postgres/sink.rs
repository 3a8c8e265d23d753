//! A table as a sink.
//!
//! A writer makes tuples on its worker's thread; a thread of its own keeps them until the epoch is complete: all of them, or with a primary key
//! what has become of each key. Exactly once, the rows then go to the log of their checkpoint; at least once, this thread
//! writes them, in one transaction per epoch and writer, before the epoch is prepared.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::datatypes::SchemaRef;
use engine::runtime::Place;
use engine::{
    Batch, Commits, Committable, Prepared, RunError, Sink, SinkCommitter, SinkContext, SinkWriter, WriterContext,
};
use graph::PostgresOptions;
use graph::kafka::DeliveryGuarantee;
use sqlx::PgConnection;

use super::commit::{Output, Transactions};
use super::connect::Server;
use super::encode::Encoder;
use super::target::{Target, Way};
use super::write::{Logs, Needs, Table, TableRef};
use crate::Egress;
use crate::blackhole::NoCommits;
use crate::kafka::Surroundings;
use crate::staged::writer::{Encode, FrameWriter, Order, refuse};
use crate::staged::{EpochFrames, Frame, LogFiles, RecordLog, Upload, not_durable, unwritable};

/// How long a database that cannot be reached is waited for, where nothing else tries again; and how long between two tries.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// For a database to answer while a job is checked.
const LOOKING: Duration = Duration::from_secs(8);

pub struct PostgresSink {
    table: TableRef,
    operator: String,
    exactly_once: bool,
}

impl PostgresSink {
    /// # Errors
    /// Options that are wrong or not allowed. Nothing is connected to.
    pub fn open(
        node: &graph::Sink,
        options: &PostgresOptions,
        schema: SchemaRef,
        context: SinkContext,
        around: &Surroundings,
    ) -> Result<PostgresSink, RunError> {
        if context.updating && node.primary_key.is_empty() {
            let message = format!("table {} gets changes of rows, and it has no key to which they belong", node.table);
            return Err(RunError::user("sink_takes_no_updates", message)
                .hint("declare PRIMARY KEY (...) NOT ENFORCED: rows are then upserted and deleted by key"));
        }
        let exactly_once = options.delivery.map_or(context.durable, |asked| asked == DeliveryGuarantee::ExactlyOnce);
        if exactly_once && !context.durable {
            return Err(not_durable(&node.table));
        }
        let target = Target::new(node, options, &schema)?;
        let server = Server::of(&node.table, options, around)?;
        Ok(PostgresSink { table: Arc::new(Table { server, target }), operator: context.operator, exactly_once })
    }

    pub fn transactions(&self) -> Transactions {
        let (table, operator) = (self.table.clone(), self.operator.clone());
        Transactions::new(Output { table, operator, idle: Mutex::default() })
    }
}

/// Whether a table can be written, as far as its database tells now; one that cannot be reached is no matter of this. Blocks for some seconds.
///
/// # Errors
/// Those of [`PostgresSink::open`]; wrong credentials, a missing table, missing rights; all columns that do not fit.
pub(crate) fn check(sink: &PostgresSink) -> Result<(), RunError> {
    let table = sink.table.clone();
    let needs = Needs { epochs: sink.exactly_once };
    let asked = asked(LOOKING, async move {
        let mut connection = table.server.connect("highwater check").await?;
        table.look(&mut connection, needs).await
    });
    match asked {
        Some(Err(error)) if !error.is_retryable() => Err(error),
        _ => Ok(()),
    }
}

/// What a connection of the service leads to: the version of the server.
pub(crate) fn probe(
    options: &BTreeMap<String, String>,
    egress: &Egress,
    patience: Duration,
) -> Result<String, RunError> {
    let server = probe_server(options, egress)?;
    let asked = asked(patience, async move {
        let mut connection = server.connect("highwater test").await?;
        let sql = "SELECT current_setting('server_version'), current_database()::text, current_user::text";
        let asking = sqlx::query_as(sql).fetch_one(&mut connection);
        let (version, database, user): (String, String, String) = server.answer("ask", patience, asking).await?;
        Ok(format!("PostgreSQL {version}, database {database}, user {user}"))
    });
    asked.unwrap_or_else(|| {
        Err(RunError::external("postgres_unreachable", format!("no answer within {} s", patience.as_secs())))
    })
}

/// Where the options of a connection lead to. A database that it does not name is named by tables: here it is `postgres`.
pub(crate) fn probe_server(options: &BTreeMap<String, String>, egress: &Egress) -> Result<Server, RunError> {
    let name = "connection".to_string();
    let around = Surroundings {
        connections: Arc::new(BTreeMap::from([(name.clone(), options.clone())])),
        egress: egress.clone(),
        restricted: true,
    };
    let database = if options.contains_key("database") { None } else { Some("postgres") };
    let table = serde_json::json!({"connection": name, "table": "none", "database": database});
    let table: PostgresOptions = serde_json::from_value(table)
        .map_err(|error| RunError::internal(format!("a table without more than a name is refused: {error}")))?;
    Server::of(&name, &table, &around)
}

/// The answer of a future, on a thread of its own, for the caller's may be a runtime's; `None` if there is none in time.
fn asked<T: Send>(
    patience: Duration,
    asking: impl Future<Output = Result<T, RunError>> + Send,
) -> Option<Result<T, RunError>> {
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| RunError::internal(error.to_string())).ok()?;
        runtime.block_on(async { tokio::time::timeout(patience, asking).await.ok() })
    };
    std::thread::scope(|scope| scope.spawn(work).join()).ok().flatten()
}

impl Sink for PostgresSink {
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        let ends = match (self.exactly_once, context.place) {
            (false, _) => Ends::Written(Writing { table: self.table.clone(), session: None }),
            (true, Some(place)) => Ends::Staged { place, operator: self.operator.clone(), worker: context.worker },
            (true, None) => return Err(not_durable(&self.table.target.shown)),
        };
        let keyed = !self.table.target.key.is_empty();
        let (orders, received) = channel();
        let keeping = Keeping {
            rows: RecordLog::default(),
            keys: keyed.then(|| EpochFrames::new(true)),
            target: self.table.named(),
            ends,
            tokio: context.tokio,
        };
        let failed = context.failed;
        let thread = std::thread::Builder::new().name("postgres-sink".into());
        let spawned = thread.spawn(move || keeping.run(&received, &|error| drop(failed.send(error))));
        spawned.map_err(|error| RunError::internal(format!("cannot start a thread: {error}")))?;
        Ok(Box::new(FrameWriter::new(Encoder::new(&self.table.target), orders)))
    }

    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        match self.exactly_once {
            true => Ok(Box::new(self.transactions())),
            false => Ok(Box::new(NoCommits)),
        }
    }

    fn commits(&self) -> Commits {
        match self.exactly_once {
            true => Commits::EveryCheckpoint,
            false => Commits::EveryEpoch,
        }
    }
}

impl Encode for Encoder {
    fn encode(&mut self, batch: &Batch, frames: &mut Vec<u8>) -> Result<(), RunError> {
        Encoder::encode(self, batch, frames)
    }
}

/// The thread that keeps rows until their epoch is complete.
struct Keeping {
    rows: RecordLog,
    /// With a primary key: what becomes of each key is known at the end of the epoch.
    keys: Option<EpochFrames>,
    target: String,
    ends: Ends,
    tokio: tokio::runtime::Handle,
}

/// What becomes of an epoch.
enum Ends {
    /// It is uploaded; the committer writes it.
    Staged { place: Place, operator: String, worker: usize },
    /// This thread writes it.
    Written(Writing),
}

impl Keeping {
    fn run(mut self, orders: &Receiver<Order>, fail: &dyn Fn(RunError)) {
        // Ends with the writer: the run is over, and what is not prepared is not wanted.
        while let Ok(order) = orders.recv() {
            let done = match order {
                Order::Write(frames, permit) => {
                    let done = self.keep(&frames);
                    drop(permit);
                    done
                }
                Order::Prepare(epoch, rows, reply) => self.prepare(epoch, rows, reply),
            };
            if let Err(error) = done {
                fail(error.clone());
                return refuse(orders, &error);
            }
        }
    }

    fn keep(&mut self, frames: &[u8]) -> Result<(), RunError> {
        if let Some(keys) = &mut self.keys {
            return keys.append(frames).map_err(unwritable);
        }
        let mut rest = frames;
        while let Some((_, behind)) = Frame::read(rest) {
            self.rows.append(0, &rest[..rest.len() - behind.len()]).map_err(unwritable)?;
            rest = behind;
        }
        Ok(())
    }

    fn prepare(&mut self, epoch: u64, rows: u64, reply: Prepared) -> Result<(), RunError> {
        let log = match self.complete() {
            Ok(log) => log,
            Err(error) => {
                reply.done(Err(error.clone()));
                return Err(error);
            }
        };
        match &mut self.ends {
            Ends::Staged { place, operator, worker } => {
                let (place, operator, target) = (place.clone(), operator.clone(), self.target.clone());
                let upload = Upload { place, epoch, operator, worker: *worker, target, rows };
                self.tokio.spawn(async move { reply.done(upload.run(log).await) });
                Ok(())
            }
            Ends::Written(writing) => {
                let done = self.tokio.block_on(writing.write(log));
                reply.done(done.clone().map(|()| Committable { rows, ..Committable::default() }));
                done
            }
        }
    }

    /// The log of the epoch; a new one begins.
    fn complete(&mut self) -> Result<LogFiles, RunError> {
        let Keeping { rows, keys, .. } = self;
        if let Some(keys) = keys {
            let mut bytes = Vec::new();
            keys.take(|frame| {
                bytes.clear();
                frame.write(&mut bytes);
                rows.append(0, &bytes).map_err(unwritable)
            })?;
        }
        std::mem::take(rows).finish().map_err(unwritable)
    }
}

/// Writes epochs at least once.
struct Writing {
    table: TableRef,
    /// A connection whose last transaction was committed.
    session: Option<(PgConnection, Way)>,
}

impl Writing {
    async fn write(&mut self, log: LogFiles) -> Result<(), RunError> {
        // An idle connection may be dead by now, and what is given to it lost.
        let (mut connection, way) = match self.session.take() {
            Some((mut connection, way)) => match self.table.begin(&mut connection).await {
                Ok(()) => (connection, way),
                Err(_) => self.open().await?,
            },
            None => self.open().await?,
        };
        self.table.write(&mut connection, &way, &mut Logs::Own(Some(log))).await?;
        self.table.commit(&mut connection).await?;
        self.session = Some((connection, way));
        Ok(())
    }

    async fn open(&self) -> Result<(PgConnection, Way), RunError> {
        let began = Instant::now();
        loop {
            match self.try_open().await {
                Err(error) if error.is_retryable() && began.elapsed() < PATIENCE => {
                    tracing::info!(table = self.table.target.shown, %error, "the database is waited for");
                    tokio::time::sleep(PAUSE).await;
                }
                other => return other,
            }
        }
    }

    async fn try_open(&self) -> Result<(PgConnection, Way), RunError> {
        let mut connection = self.table.server.connect("highwater sink").await?;
        let way = self.table.prepare(&mut connection, Needs { epochs: false }).await?;
        self.table.begin(&mut connection).await?;
        Ok((connection, way))
    }
}
