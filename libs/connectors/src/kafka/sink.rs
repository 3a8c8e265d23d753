//! A topic as a sink.
//!
//! A writer encodes on its worker's thread. At least once, a thread of its own sends; exactly once, it stages: see [`staging`](super::staging).
//!
//! Rows of a query without state are sent at once (an insert cannot be
//! taken back by what follows in the epoch); all others wait in a log, on disk where they are many, until their epoch is complete: then
//! the log is sent, of an upsert table what has become of each key. An epoch is prepared when every record of it is confirmed.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use engine::{
    Batch, Commits, Committable, RunError, Sink, SinkCommitter, SinkContext, SinkWriter, Waiting, WriterContext,
};
use graph::KafkaOptions;
use graph::kafka::{DeliveryGuarantee, Partitioner};

use super::Surroundings;
use super::commit::{Transactions, transactions};
use super::connect::{Opening, not_allowed, said};
use super::encode::{Encoder, Ids};
use super::native::{Client, Code, Context, Outgoing, Role, Target};
use super::settings::{client, client_options, registry_options, schemas, servers, transactional_options};
use super::staging::Staging;
use crate::blackhole::NoCommits;
use crate::registry::{Part, Schemas, subject};
use crate::staged::writer::{Encode, FrameWriter, Order, refuse};
use crate::staged::{EpochFrames, Frame, not_durable, unwritable};

/// While records are under way, what the broker says of them is looked at this often.
const LISTEN: Duration = Duration::from_millis(5);
/// A step of waiting for confirmations.
const STEP: Duration = Duration::from_millis(100);

pub struct KafkaSink {
    node: graph::Sink,
    options: KafkaOptions,
    schema: SchemaRef,
    /// Of a table whose formats ask a registry.
    schemas: Option<Schemas>,
    context: SinkContext,
    around: Surroundings,
}

impl KafkaSink {
    /// # Errors
    /// Options that are wrong or not allowed. Nothing is connected to.
    pub fn open(
        node: &graph::Sink,
        options: &KafkaOptions,
        schema: SchemaRef,
        context: SinkContext,
        around: Surroundings,
    ) -> Result<KafkaSink, RunError> {
        if context.updating && node.primary_key.is_empty() {
            let message = format!("table {} gets changes of rows, and it has no key to which they belong", node.table);
            return Err(RunError::user("sink_takes_no_updates", message)
                .hint("declare PRIMARY KEY (...) NOT ENFORCED: the records are then upserts by key"));
        }
        if !node.primary_key.is_empty() && options.partitioner != Partitioner::Default {
            let message = format!(
                "cannot write table {}: 'sink.partitioner' puts records of the same key into several partitions, and the table has a primary key",
                node.table
            );
            let hint = "leave 'sink.partitioner' out: the order of a key's records holds within a partition only";
            return Err(RunError::user("invalid_option", message).hint(hint));
        }
        let exactly_once = options.delivery == DeliveryGuarantee::ExactlyOnce;
        if exactly_once && !context.durable {
            return Err(not_durable(&node.table));
        }
        Encoder::new(node, options, &schema)?;
        let schemas = schemas(&node.table, options, &around)?;
        match exactly_once {
            true => drop(transactional_options(&node.table, options, "", &around)?),
            false => drop(client_options(&node.table, options, Role::Producer, &around)?),
        }
        Ok(KafkaSink { node: node.clone(), options: options.clone(), schema, schemas, context, around })
    }
}

impl Sink for KafkaSink {
    fn writer(&self, context: WriterContext) -> Result<Box<dyn SinkWriter>, RunError> {
        let encoder = Encoder::new(&self.node, &self.options, &self.schema)?;
        let registering = self.schemas.clone().map(|schemas| Registering::new(schemas, self, &encoder));
        let client = Arc::new(client(&self.node.table, &self.options, Role::Producer, &self.around)?);
        let (orders, received) = channel();
        let wanted = Arc::new(());
        let entrance = Entrance {
            table: self.node.table.clone(),
            topic: self.options.topic.trim().to_string(),
            servers: servers(&self.options, &self.around),
            patience: self.options.startup_timeout.duration(),
            registering,
            tokio: context.tokio,
            waiting: context.waiting,
            wanted: Arc::downgrade(&wanted),
        };
        let choice = Choice { partitioner: self.options.partitioner, worker: context.worker, partitions: 0, turn: 0 };
        let failed = context.failed;
        let fail = move |error| drop(failed.send(error));
        let thread = std::thread::Builder::new().name("kafka-sink".into());
        let spawned = if self.is_exactly_once() {
            let place = context.place.ok_or_else(|| not_durable(&self.node.table))?;
            let operator = self.context.operator.clone();
            let upserts = self.context.updating.then(|| EpochFrames::new(true));
            let staging = Staging::new(entrance, choice, place, operator, upserts);
            thread.spawn(move || staging.run(client, &received, &fail))
        } else {
            let at_once = self.context.stateless && !self.context.updating && !self.options.whole_epochs;
            let log = EpochFrames::new(self.context.updating);
            let sending = Sending { entrance, choice, at_once, log, client, sent: 0 };
            thread.spawn(move || sending.run(&received, &fail))
        };
        spawned.map_err(|error| RunError::internal(format!("cannot start a thread: {error}")))?;
        Ok(Box::new(FrameWriter::new(Frames { encoder, _wanted: wanted }, orders)))
    }

    fn committer(&self) -> Result<Box<dyn SinkCommitter>, RunError> {
        match self.is_exactly_once() {
            true => Ok(Box::new(self.transactions())),
            false => Ok(Box::new(NoCommits)),
        }
    }

    fn commits(&self) -> Commits {
        match self.is_exactly_once() {
            true => Commits::EveryCheckpoint,
            false => Commits::EveryEpoch,
        }
    }
}

impl KafkaSink {
    pub fn transactions(&self) -> Transactions {
        transactions(&self.node.table, &self.options, &self.context, &self.around)
    }

    fn is_exactly_once(&self) -> bool {
        self.options.delivery == DeliveryGuarantee::ExactlyOnce
    }
}

/// The frames of a topic's records. Dropped with the writer: nobody waits for the topic any more.
struct Frames {
    encoder: Encoder,
    _wanted: Arc<()>,
}

impl Encode for Frames {
    fn encode(&mut self, batch: &Batch, frames: &mut Vec<u8>) -> Result<(), RunError> {
        self.encoder.encode(batch, frames)
    }
}

/// What is to be registered before anything is sent.
struct Registering {
    schemas: Schemas,
    table: String,
    /// Subject, name of the record, and columns.
    key: Option<(String, String, SchemaRef)>,
    value: Option<(String, String, SchemaRef)>,
}

impl Registering {
    fn new(schemas: Schemas, sink: &KafkaSink, encoder: &Encoder) -> Registering {
        let (avro, topic) = (registry_options(&sink.options, &sink.around), sink.options.topic.trim());
        let table = &sink.node.table;
        let (key, value) = encoder.registered();
        Registering {
            key: key.map(|columns| (subject(&avro, topic, Part::Key), format!("{table}_key"), columns)),
            value: value.map(|columns| (subject(&avro, topic, Part::Value), table.clone(), columns)),
            table: table.clone(),
            schemas,
        }
    }

    async fn ids(self) -> Result<Ids, RunError> {
        let mut ids = Ids::default();
        for (registered, id) in [(&self.key, &mut ids.key), (&self.value, &mut ids.value)] {
            if let Some((subject, record, columns)) = registered {
                let given = self.schemas.register(subject, columns, record).await;
                let named =
                    |error: RunError| RunError { message: format!("table {}: {}", self.table, error.message), ..error };
                *id = Some(given.map_err(named)?);
            }
        }
        Ok(ids)
    }
}

/// What a writer waits for before its first record.
pub struct Entrance {
    pub table: String,
    pub topic: String,
    servers: String,
    patience: Duration,
    registering: Option<Registering>,
    pub tokio: tokio::runtime::Handle,
    waiting: Waiting,
    /// Gone with the writer.
    wanted: Weak<()>,
}

impl Entrance {
    /// Waits for the topic and the ids of its schemas, if it has any; the number of its partitions.
    pub fn open(&mut self, client: &Client) -> Result<(i32, Option<Ids>), RunError> {
        let opening = Opening {
            table: &self.table,
            servers: &self.servers,
            patience: self.patience,
            waiting: Some(&self.waiting),
            given_up: &|| self.wanted.strong_count() == 0,
        };
        let partitions = topic_partitions(&opening, client, &self.topic)?;
        Ok((partitions, self.register()?))
    }

    fn register(&mut self) -> Result<Option<Ids>, RunError> {
        let Some(registering) = self.registering.take() else { return Ok(None) };
        let (tell, told) = channel();
        self.tokio.spawn(async move { drop(tell.send(registering.ids().await)) });
        // Dropped with its runtime, at the end of the process.
        let ids = told.recv().map_err(|_| RunError::internal("the registering of a schema was broken off"))?;
        ids.map(Some)
    }
}

/// Waits for a topic with partitions; how many.
pub fn topic_partitions(opening: &Opening<'_>, client: &Client, topic: &str) -> Result<i32, RunError> {
    opening.ask(client, &format!("topic '{topic}'"), |wait| match client.partitions(topic, wait) {
        Ok(0) => Err(Code::UnknownTopicOrPartition),
        other => other,
    })
}

/// Chooses partitions.
pub struct Choice {
    pub partitioner: Partitioner,
    pub worker: usize,
    pub partitions: i32,
    pub turn: i32,
}

impl Choice {
    /// The partition of the next record; `None`: by its key, and anywhere without one.
    pub fn next(&mut self) -> Option<i32> {
        match self.partitioner {
            Partitioner::Default => None,
            Partitioner::Fixed => Some((self.worker % self.partitions.max(1) as usize) as i32),
            Partitioner::RoundRobin => {
                self.turn = (self.turn + 1) % self.partitions.max(1);
                Some(self.turn)
            }
        }
    }
}

/// The thread that sends.
struct Sending {
    entrance: Entrance,
    choice: Choice,
    at_once: bool,
    log: EpochFrames,
    client: Arc<Client>,
    /// Records given to the client.
    sent: u64,
}

impl Sending {
    fn run(mut self, orders: &Receiver<Order>, fail: &dyn Fn(RunError)) {
        let (target, ids) = match self.open() {
            Ok(opened) => opened,
            Err(error) => {
                fail(error.clone());
                return refuse(orders, &error);
            }
        };
        loop {
            let order = match self.client.context().reported() < self.sent {
                true => match orders.recv_timeout(LISTEN) {
                    Ok(order) => Some(order),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return,
                },
                // The writer is gone: the run is over, and what is not prepared is not wanted.
                false => match orders.recv() {
                    Ok(order) => Some(order),
                    Err(_) => return,
                },
            };
            self.client.poll(Duration::ZERO);
            let done = match order {
                None => self.look(),
                Some(Order::Write(mut frames, permit)) => {
                    if let Some(ids) = ids {
                        ids.fill_in(&mut frames);
                    }
                    let done = self.write(&target, &frames);
                    drop(permit);
                    done
                }
                Some(Order::Prepare(_, rows, reply)) => {
                    let done = self.prepare(&target);
                    reply.done(done.clone().map(|()| Committable { rows, ..Committable::default() }));
                    done
                }
            };
            if let Err(error) = done {
                fail(error.clone());
                return refuse(orders, &error);
            }
        }
    }

    fn open(&mut self) -> Result<(Target, Option<Ids>), RunError> {
        let (partitions, ids) = self.entrance.open(&self.client)?;
        self.choice.partitions = partitions;
        let target = self.client.target(&self.entrance.topic).map_err(|code| RunError::internal(said(code)))?;
        Ok((target, ids))
    }

    fn write(&mut self, target: &Target, frames: &[u8]) -> Result<(), RunError> {
        if !self.at_once {
            return self.log.append(frames).map_err(unwritable);
        }
        let mut rest = frames;
        while let Some((frame, behind)) = Frame::read(rest) {
            self.send(target, &frame)?;
            rest = behind;
        }
        self.look()
    }

    fn prepare(&mut self, target: &Target) -> Result<(), RunError> {
        let mut log = std::mem::replace(&mut self.log, EpochFrames::new(false));
        let sent = log.take(|frame| self.send(target, frame));
        self.log = log;
        sent?;
        while self.client.context().reported() < self.sent {
            self.client.drain(STEP);
            self.look()?;
        }
        self.look()
    }

    fn send(&mut self, target: &Target, frame: &Frame<'_>) -> Result<(), RunError> {
        let partition = self.choice.next();
        let Entrance { table, topic, .. } = &self.entrance;
        Delivery { table, topic, client: &self.client }.send(target, partition, frame)?;
        self.sent += 1;
        Ok(())
    }

    /// Whether a delivery has failed.
    fn look(&self) -> Result<(), RunError> {
        let Entrance { table, topic, .. } = &self.entrance;
        Delivery { table, topic, client: &self.client }.look()
    }
}

/// Records on their way, and what is said of them.
pub struct Delivery<'a> {
    pub table: &'a str,
    pub topic: &'a str,
    pub client: &'a Client,
}

impl Delivery<'_> {
    /// Gives a record to the client, when there is room.
    pub fn send(&self, target: &Target, partition: Option<i32>, frame: &Frame<'_>) -> Result<(), RunError> {
        let record = Outgoing {
            partition,
            key: frame.key,
            value: frame.value,
            timestamp_ms: frame.timestamp,
            headers: &frame.headers,
        };
        loop {
            match target.send(&record) {
                Ok(()) => return Ok(()),
                Err(Code::QueueFull) => {
                    self.client.poll(LISTEN);
                    self.look()?;
                }
                Err(code) => {
                    self.look()?;
                    let bytes = frame.value.map_or(0, <[u8]>::len);
                    return Err(self.undelivered(code, partition, frame.key, bytes));
                }
            }
        }
    }

    /// Whether a delivery has failed, or the client.
    pub fn look(&self) -> Result<(), RunError> {
        let context: &Context = self.client.context();
        if let Some(address) = context.refused() {
            return Err(not_allowed(&format!("cannot write table {}", self.table), &address));
        }
        if let Some(failed) = context.undelivered().filter(|_| !faults::broken("ignore_delivery_error")) {
            return Err(self.undelivered(failed.code, Some(failed.partition), failed.key.as_deref(), failed.bytes));
        }
        match context.fatal() {
            Some((Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch, reason)) => {
                Err(fenced(self.table, self.topic, &reason))
            }
            Some((_, reason)) => {
                let message =
                    format!("table {}: the producer of topic '{}' cannot go on: {reason}", self.table, self.topic);
                Err(RunError::external("delivery_failed", message))
            }
            None => Ok(()),
        }
    }

    fn undelivered(&self, code: Code, partition: Option<i32>, key: Option<&[u8]>, bytes: usize) -> RunError {
        let key = match key {
            Some(key) => {
                let shown: String = String::from_utf8_lossy(&key[..key.len().min(200)]).chars().take(100).collect();
                format!("key {shown}")
            }
            None => "no key".to_string(),
        };
        let place = match partition.filter(|partition| *partition >= 0) {
            Some(partition) => format!("partition {partition} of topic '{}'", self.topic),
            None => format!("topic '{}'", self.topic),
        };
        let reason = match self.client.context().reason().filter(|_| code == Code::MessageTimedOut) {
            Some(reason) => format!("{} ({reason})", said(code)),
            None => said(code),
        };
        let message =
            format!("table {}: a record of {bytes} bytes with {key} did not reach {place}: {reason}", self.table);
        match code {
            Code::MessageSizeTooLarge => RunError::user("record_too_large", message).hint(
                "the limits are 'properties.message.max.bytes' here (1 MB), and max.message.bytes of the topic; raise both, or write less into a row",
            ),
            Code::TopicAuthorizationFailed => RunError::user("authorization_failed", message).hint("the user needs an ACL for the topic"),
            code if super::connect::is_missing(code) => {
                RunError::user("topic_not_found", message).hint("the topic, or the partition, is not there any more")
            }
            _ => RunError::external("delivery_failed", message)
                .hint("'properties.delivery.timeout.ms' says how long a record is tried for (5 minutes)"),
        }
    }
}

/// Another producer has the transactional id, or the transaction took too long.
pub fn fenced(table: &str, topic: &str, reason: &str) -> RunError {
    let message = format!("table {table}: the transaction of topic '{topic}' was ended by the broker: {reason}");
    RunError::external("fenced", message).hint(
        "either another attempt writes in the place of this one, or sending took longer than 'properties.transaction.timeout.ms' (60 s)",
    )
}
