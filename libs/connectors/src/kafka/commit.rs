//! The commit of a decided checkpoint in a topic: its logs and its epoch, the marker, in one transaction.
//!
//! librdkafka cannot go on with a transaction of another process. So nothing of an epoch is sent before it is decided, and a commit that
//! was broken off is repeated from the logs ([`staged::commit`](crate::staged::commit)): a new producer of the same transactional id ends what
//! the old one left open, and then the marker (the offset of a group of the sink's own) says whether the epoch is in the topic.
//! Each commit has a producer of its own: the end of a transaction that is asked for again unseen, by the client or the network, could end the
//! next one of the same producer half-way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::runtime::Place;
use engine::{RunError, SinkContext};
use graph::KafkaOptions;
use graph::kafka::DeliveryGuarantee;
use state::files;

use super::Surroundings;
use super::connect::{Opening, said};
use super::native::{Client, Code, Failure, Role, Target};
use super::settings::{client, group_client, servers, transactional_client, transactional_options};
use super::sink::{Delivery, fenced, topic_partitions};
use crate::staged::commit::{Commits, LogFile, PAUSE, System};
use crate::staged::log::read_file;

/// For one answer of the coordinator.
const ANSWER: Duration = Duration::from_secs(30);
/// For a broker to tell its settings.
const TELLING: Duration = Duration::from_secs(2);
/// A step of waiting for confirmations.
const STEP: Duration = Duration::from_millis(2);

/// The committer of one topic.
pub type Transactions = Commits<Output>;

/// What is written to.
#[derive(Clone)]
pub struct Output {
    table: String,
    topic: String,
    operator: String,
    options: KafkaOptions,
    around: Surroundings,
}

pub struct Producer {
    client: Arc<Client>,
    target: Target,
    /// Records given to the client.
    sent: u64,
    limit_ms: u64,
    /// Its offset is the marker.
    group: String,
}

/// The names by which the broker knows the sink of a job.
#[derive(Clone)]
struct Names {
    /// Without the attempt: a new one must fence the old.
    transactional_id: String,
    /// Its offset is the marker.
    group: String,
}

/// The committer of a table.
pub fn transactions(table: &str, options: &KafkaOptions, context: &SinkContext, around: &Surroundings) -> Transactions {
    Commits::new(Output {
        table: table.to_string(),
        topic: options.topic.trim().to_string(),
        operator: context.operator.clone(),
        options: options.clone(),
        around: around.clone(),
    })
}

impl System for Output {
    type Open = Producer;

    fn table_name(&self) -> &str {
        &self.table
    }

    fn target(&self) -> String {
        target(&self.topic)
    }

    /// A producer that has fenced all before it and ended what they left open.
    async fn open(self: &Arc<Self>, job: &str) -> Result<Producer, RunError> {
        let (output, names) = (self.clone(), self.names(job));
        blocking(move || output.producer(names)).await
    }

    async fn marker(self: &Arc<Self>, producer: Producer, _: &str) -> Result<(Producer, Option<u64>), RunError> {
        let output = self.clone();
        blocking(move || {
            let marker = output.offset(&producer.group)?;
            Ok((producer, marker))
        })
        .await
    }

    async fn send(
        self: &Arc<Self>,
        producer: Producer,
        place: &Place,
        logs: &[LogFile],
        epoch: u64,
    ) -> Result<Producer, RunError> {
        self.send_all(producer, place, logs, epoch).await
    }

    async fn end(self: &Arc<Self>, producer: Producer) -> Result<Producer, RunError> {
        let output = self.clone();
        blocking(move || match producer.client.commit_transaction(ANSWER) {
            Ok(()) => Ok(producer),
            Err(failure) => Err(output.failed(&producer, "commit", failure)),
        })
        .await
    }

    async fn close(self: &Arc<Self>, producer: Producer) {
        let dropped = blocking(move || {
            drop(producer);
            Ok(())
        });
        if let Err(error) = dropped.await {
            tracing::warn!(%error, "a producer was not closed");
        }
    }

    fn state_lost(&self, job: &str, epoch: u64, previous: Option<u64>, found: Option<u64>) -> RunError {
        let Output { table, topic, .. } = self;
        let shows = match found {
            Some(found) => format!("shows epoch {found}"),
            None => "is gone".to_string(),
        };
        let before = previous.map_or("none".to_string(), |epoch| epoch.to_string());
        let message = format!(
            "table {table}: epoch {epoch} cannot be committed to topic '{topic}': the mark of what it holds, the offset of group '{}', {shows}, and the epoch before was {before}. Sending could write rows twice, not sending could lose some",
            self.names(job).group
        );
        RunError::user("sink_state_lost", message).hint(
            "the mark is lost with a topic or cluster that was made anew, and some days (offsets.retention.minutes) after the last commit; an older epoch than the job's newest shows others. Compare the topic with the checkpoint, then begin the job afresh, or write 'delivery' = 'at_least_once'",
        )
    }

    fn overtaken(&self, epoch: u64, newer: u64) -> RunError {
        let Output { table, topic, .. } = self;
        let message = format!(
            "table {table}: topic '{topic}' shows epoch {newer}, which this attempt does not know; it was to commit epoch {epoch}"
        );
        RunError::external("fenced", message)
            .hint("another attempt of the run has taken over, or the metadata database was set back to an older state")
    }
}

/// As it stands in what is staged.
pub fn target(topic: &str) -> String {
    format!("topic '{topic}'")
}

/// Whether the broker of a table that is written exactly once allows its transactions, as far as it tells within two seconds; else the first
/// commit will say it.
///
/// # Errors
/// `guarantee_not_available`, with what it allows.
pub fn check_broker(table: &str, options: &KafkaOptions, around: &Surroundings) -> Result<(), RunError> {
    if options.delivery != DeliveryGuarantee::ExactlyOnce {
        return Ok(());
    }
    let (_, limit_ms) = transactional_options(table, options, "", around)?;
    let client = client(table, options, Role::Producer, around)?;
    let told = client.broker_setting("transaction.max.timeout.ms", TELLING).ok().flatten();
    match told.and_then(|told| told.parse::<u64>().ok()).filter(|most_ms| *most_ms < limit_ms) {
        Some(most_ms) => Err(too_long(table, limit_ms, &format!("its transaction.max.timeout.ms is {most_ms}"))),
        None => Ok(()),
    }
}

fn too_long(table: &str, limit_ms: u64, why: &str) -> RunError {
    let message = format!(
        "table {table} is to be written exactly once, by transactions of up to {limit_ms} ms, and the broker allows less: {why}"
    );
    RunError::user("guarantee_not_available", message).hint(
        "raise it at the broker, set 'properties.transaction.timeout.ms' to what it allows, or write 'delivery' = 'at_least_once'",
    )
}

/// Calls of librdkafka wait on their thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| RunError::internal(format!("a call of Kafka's client was broken off: {error}")))?
}

impl Output {
    fn names(&self, job: &str) -> Names {
        let Output { operator, .. } = self;
        Names { transactional_id: format!("highwater/{job}/{operator}"), group: format!("highwater.{job}.{operator}") }
    }

    fn opening<'a>(&'a self, servers: &'a str) -> Opening<'a> {
        let patience = self.options.startup_timeout.duration();
        Opening { table: &self.table, servers, patience, waiting: None, given_up: &|| false }
    }

    /// A producer that has fenced all before it and ended what they left open.
    fn producer(&self, names: Names) -> Result<Producer, RunError> {
        let id = &names.transactional_id;
        let (client, limit_ms) = transactional_client(&self.table, &self.options, id, &self.around)?;
        let client = Arc::new(client);
        // Connected first: the coordinator is found by a broker that is known.
        let servers = servers(&self.options, &self.around);
        topic_partitions(&self.opening(&servers), &client, &self.topic)?;
        let target = client.target(&self.topic).map_err(|code| RunError::internal(said(code)))?;
        let producer = Producer { client, target, sent: 0, limit_ms, group: names.group };
        let ready = producer.client.init_transactions(ANSWER);
        ready.map_err(|failure| self.failed(&producer, "begin to use transactions", failure))?;
        Ok(producer)
    }

    /// The epoch that the topic shows.
    fn offset(&self, group: &str) -> Result<Option<u64>, RunError> {
        let client = group_client(&self.table, &self.options, group, &self.around)?;
        let servers = servers(&self.options, &self.around);
        topic_partitions(&self.opening(&servers), &client, &self.topic)?;
        // Also waits for a transaction that is still being ended: `read_committed`.
        let what = format!("the offset of group '{group}'");
        let deadline = Instant::now() + ANSWER;
        loop {
            match client.committed(&self.topic, ANSWER / 3) {
                Ok(offset) => return Ok(offset.map(|offset| offset as u64)),
                Err(code @ (Code::GroupAuthorizationFailed | Code::TopicAuthorizationFailed)) => {
                    return Err(self.refused(&format!("read {what}"), &said(code)));
                }
                Err(code) if Instant::now() > deadline => {
                    let message = format!("table {}: cannot read {what}: {}", self.table, said(code));
                    // A cluster of one that crashes between a commit and its markers forgets these for good.
                    let hint = "if the brokers are well, one that crashed has left a transaction open for ever: kafka-transactions.sh find-hanging names it and abort ends it; what was not shown is sent again then";
                    return Err(RunError::external("kafka_failed", message).hint(hint));
                }
                // A coordinator that has just moved.
                Err(_) => std::thread::sleep(PAUSE.0 * 5),
            }
        }
    }

    /// The logs and the marker, in a transaction that is left open.
    async fn send_all(
        self: &Arc<Output>,
        mut producer: Producer,
        place: &Place,
        logs: &[LogFile],
        epoch: u64,
    ) -> Result<Producer, RunError> {
        let begun = producer.client.begin_transaction();
        begun.map_err(|failure| self.failed(&producer, "begin a transaction", failure))?;
        let read = |log: &LogFile| {
            let (files, file) = (place.files.clone(), log.file.clone());
            tokio::spawn(async move { files::get(&*files, &file).await })
        };
        let mut next = logs.first().map(read);
        for (at, log) in logs.iter().enumerate() {
            let reading = next.take().ok_or_else(|| RunError::internal("a log is read before it is sent"))?;
            let read_now = reading.await.map_err(|error| RunError::internal(error.to_string()));
            let content = match read_now.and_then(|content| content.map_err(RunError::from)) {
                Ok(content) => content,
                Err(error) => {
                    return blocking(move || {
                        drop(producer);
                        Err(error)
                    })
                    .await;
                }
            };
            // The next file is read while this one is sent.
            next = logs.get(at + 1).map(read);
            let (output, log) = (self.clone(), log.clone());
            producer = blocking(move || output.send_file(producer, &log, &content)).await?;
            faults::reach("kafka.send.half").await?;
        }
        let output = self.clone();
        blocking(move || {
            if faults::broken("marker_outside_transaction") {
                output.drain(&producer)?;
                let apart =
                    producer.client.commit_transaction(ANSWER).and_then(|()| producer.client.begin_transaction());
                apart.map_err(|failure| output.failed(&producer, "commit", failure))?;
            }
            let marked = producer.client.send_offset(&producer.group, &output.topic, epoch as i64, ANSWER);
            marked.map_err(|failure| output.failed(&producer, "send the epoch", failure))?;
            output.drain(&producer)?;
            Ok(producer)
        })
        .await
    }

    fn send_file(&self, mut producer: Producer, log: &LogFile, content: &[u8]) -> Result<Producer, RunError> {
        let delivery = Delivery { table: &self.table, topic: &self.topic, client: &producer.client };
        let mut given = 0;
        let read = read_file(&log.file.path, content, |partition, frame| {
            delivery.send(&producer.target, Some(partition), frame)?;
            given += 1;
            if given % 256 == 0 {
                producer.client.poll(Duration::ZERO);
            }
            Ok(())
        })?;
        delivery.look()?;
        if read != log.records {
            let message = format!("{} is damaged: it has {read} records, written were {}", log.file.path, log.records);
            return Err(RunError::external("checkpoint_corrupt", message));
        }
        producer.sent += given;
        Ok(producer)
    }

    /// Waits until every record is confirmed. `commit_transaction` would do so too, but in steps of 100 ms.
    fn drain(&self, producer: &Producer) -> Result<(), RunError> {
        let delivery = Delivery { table: &self.table, topic: &self.topic, client: &producer.client };
        while producer.client.context().reported() < producer.sent {
            producer.client.drain(STEP);
            delivery.look()?;
        }
        delivery.look()
    }

    fn failed(&self, producer: &Producer, what: &str, failure: Failure) -> RunError {
        let delivery = Delivery { table: &self.table, topic: &self.topic, client: &producer.client };
        let Output { table, topic, .. } = self;
        let message = format!("table {table}: cannot {what} in topic '{topic}': {}", failure.reason);
        match failure.code {
            Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => fenced(table, topic, &failure.reason),
            Code::TransactionalIdAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed => self.refused(what, &failure.reason),
            Code::InvalidTransactionTimeout => {
                too_long(table, producer.limit_ms, "its transaction.max.timeout.ms is smaller")
            }
            Code::UnsupportedFeature | Code::UnsupportedVersion | Code::UnsupportedForMessageFormat => {
                let hint =
                    "use a broker with transactions (Kafka 0.11 or later), or write 'delivery' = 'at_least_once'";
                RunError::user("guarantee_not_available", message).hint(hint)
            }
            _ => match delivery.look() {
                // Why a record did not arrive says more than that the transaction cannot be committed.
                Err(error) => error,
                Ok(()) => RunError::external("delivery_failed", message),
            },
        }
    }

    fn refused(&self, what: &str, reason: &str) -> RunError {
        let message = format!("table {}: cannot {what} for topic '{}': {reason}", self.table, self.topic);
        RunError::user("authorization_failed", message).hint(
            "the user needs ACLs: Write for the topic, Write and Describe for transactional ids with the prefix 'highwater/', Read for groups with the prefix 'highwater.'",
        )
    }
}

#[cfg(test)]
impl Transactions {
    /// Drops what a commit that was broken off has open, as the end of its process does.
    pub async fn crash(&self, open: Producer) {
        self.system().close(open).await;
    }

    /// The epoch that the topic shows for a job.
    pub async fn shown(&self, job: &str) -> Option<u64> {
        let (output, group) = (self.system().clone(), self.system().names(job).group);
        blocking(move || output.offset(&group)).await.expect("a marker can be read")
    }
}
