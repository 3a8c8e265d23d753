//! The commit of a decided checkpoint in a topic: its logs and its epoch, the marker, in one transaction.
//!
//! librdkafka cannot go on with a transaction of another process. So nothing of an epoch is sent before it is decided, and a commit that
//! was broken off is repeated from the logs: a new producer of the same transactional id ends what the old one left open, and then the
//! marker (the offset of a group of the sink's own) says whether the epoch is in the topic. [`MarkerCommit`] decides; this does what it says.
//! Each commit has a producer of its own: the end of a transaction that is asked for again unseen, by the client or the network, could end the
//! next one of the same producer half-way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use control::epochs::sinks::{Expect, MarkerCommit, MarkerEffect, MarkerEvent, Place as InHistory};
use control::epochs::{GuardedReply, SinkReply};
use engine::runtime::Place;
use engine::{CommitKind, Committable, RunError, SinkCommitter, SinkContext};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::KafkaOptions;
use graph::kafka::DeliveryGuarantee;
use state::{FileRef, files};

use super::Surroundings;
use super::connect::{Opening, said};
use super::log::read_file;
use super::native::{Client, Code, Failure, Role, Target};
use super::settings::{client, group_client, servers, transactional_client, transactional_options};
use super::sink::{Delivery, fenced, not_durable, topic_partitions};
use super::staging::{History, Staged};

/// How long a commit is tried for.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a commit is ended by another producer before it is left to that.
const FENCED_MAX: u32 = 5;
/// Between two tries: the first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// For one answer of the coordinator.
const ANSWER: Duration = Duration::from_secs(30);
/// For a broker to tell its settings.
const TELLING: Duration = Duration::from_secs(2);
/// A step of waiting for confirmations.
const STEP: Duration = Duration::from_millis(2);

/// The committer of one topic.
pub struct Transactions {
    output: Arc<Output>,
    /// Where the logs are; `None` in a run without checkpoints.
    place: Option<Place>,
    /// The epoch that the line of runs committed before this attempt.
    before: Option<u64>,
    /// The newest epoch that the sink itself has committed in this line of runs.
    previous: Option<u64>,
    /// The newest epoch that was committed here.
    shown: Option<u64>,
}

/// What is written to.
struct Output {
    table: String,
    topic: String,
    operator: String,
    options: KafkaOptions,
    around: Surroundings,
}

struct Producer {
    client: Arc<Client>,
    target: Target,
    /// Records given to the client.
    sent: u64,
    limit_ms: u64,
}

/// A file of an epoch's log.
#[derive(Clone)]
struct LogFile {
    file: FileRef,
    records: u64,
}

/// The names by which the broker knows the sink of a job.
#[derive(Clone)]
struct Names {
    /// Without the attempt: a new one must fence the old.
    transactional_id: String,
    /// Its offset is the marker.
    group: String,
}

impl Transactions {
    pub fn new(table: &str, options: &KafkaOptions, context: &SinkContext, around: &Surroundings) -> Transactions {
        let output = Output {
            table: table.to_string(),
            topic: options.topic.trim().to_string(),
            operator: context.operator.clone(),
            options: options.clone(),
            around: around.clone(),
        };
        Transactions { output: Arc::new(output), place: None, before: None, previous: None, shown: None }
    }

    /// Commits an epoch, however often that was tried before.
    async fn commit_epoch(&mut self, epoch: u64, committables: &[Committable]) -> Result<(), RunError> {
        if self.shown == Some(epoch) {
            return Ok(());
        }
        assert!(self.shown.is_none_or(|shown| shown < epoch), "epochs commit in order");
        let place = self.place.clone().ok_or_else(|| not_durable(&self.output.table))?;
        let names = self.output.names(&place.job);
        let (logs, history) = self.output.logs(epoch, committables)?;
        let previous = match history {
            Some(history) if history.job == place.job => history.previous,
            // A new job begins a history of its own.
            Some(_) => None,
            None => self.previous,
        };
        let expect = InHistory {
            epoch,
            previous,
            // Below its first commit an attempt has used no number itself: what is there and not `previous` is of an older line of runs.
            older: self.shown.is_none().then(|| epoch.saturating_sub(1)),
            had_earlier: previous.is_some(),
            proved: false,
        };
        let mut producer: Option<Producer> = None;
        let (mut machine, mut effect) = MarkerCommit::new(Expect::Epoch(expect), false);
        let began = Instant::now();
        let (mut why, mut fences, mut found) = (None, 0, None);
        loop {
            // Nothing mends some errors.
            let mut event = |event: Result<MarkerEvent, RunError>, doubt: MarkerEvent| {
                event.unwrap_or_else(|error| {
                    tracing::warn!(table = self.output.table, epoch, %error, "a commit is in doubt");
                    fences += u32::from(error.code == "fenced");
                    let hopeless = !error.is_retryable() || fences >= FENCED_MAX;
                    why = Some(error);
                    if hopeless { MarkerEvent::GiveUp } else { doubt }
                })
            };
            let next = match effect {
                MarkerEffect::NewProducer => {
                    let (old, output, id) = (producer.take(), self.output.clone(), names.transactional_id.clone());
                    let made = blocking(move || {
                        drop(old);
                        output.producer(&id)
                    });
                    let made = made.await.map(|made| producer = Some(made));
                    let ready = made.map(|()| MarkerEvent::Producer { ready: true });
                    event(ready, MarkerEvent::Producer { ready: false })
                }
                MarkerEffect::ReadMarker => {
                    let (output, group) = (self.output.clone(), names.group.clone());
                    let marker = blocking(move || output.marker(&group)).await;
                    found = marker.as_ref().ok().copied().flatten();
                    event(marker.map(MarkerEvent::Marker), MarkerEvent::MarkerUnknown)
                }
                MarkerEffect::Send => {
                    let sent = match producer.take() {
                        Some(ready) => self.output.send(ready, &place, &logs, &names.group, epoch).await,
                        None => Err(RunError::internal("a log is sent by a producer")),
                    };
                    let sent = sent.map(|sent| {
                        producer = Some(sent);
                        MarkerEvent::Sent { ok: true }
                    });
                    event(sent, MarkerEvent::Sent { ok: false })
                }
                MarkerEffect::End => {
                    let ended = match producer.take() {
                        Some(open) => {
                            let output = self.output.clone();
                            blocking(move || output.end(open)).await
                        }
                        None => Err(RunError::internal("a transaction is ended by its producer")),
                    };
                    let ended = ended.map(|ended| {
                        producer = Some(ended);
                        MarkerEvent::Ended { ok: true }
                    });
                    event(ended, MarkerEvent::Ended { ok: false })
                }
                MarkerEffect::Wait { tries } => {
                    let old = producer.take();
                    blocking(move || {
                        drop(old);
                        Ok(())
                    })
                    .await?;
                    match began.elapsed() < PATIENCE {
                        true => {
                            let (first, longest) = PAUSE;
                            tokio::time::sleep((first * 2u32.pow(tries.min(9))).min(longest)).await;
                            MarkerEvent::Retry
                        }
                        false => MarkerEvent::GiveUp,
                    }
                }
                // Nobody to ask here. The try is harmless, and the one after some ends.
                MarkerEffect::AskGeneration => MarkerEvent::Generation(GuardedReply::Unknown),
                MarkerEffect::Done(reply) => {
                    return match reply {
                        SinkReply::Committed => {
                            (self.shown, self.previous) = (Some(epoch), Some(epoch));
                            blocking(move || {
                                drop(producer);
                                Ok(())
                            })
                            .await
                        }
                        SinkReply::StateLost => Err(self.output.state_lost(epoch, previous, found, &names)),
                        SinkReply::Fenced(newer) => Err(self.output.overtaken(epoch, newer)),
                        SinkReply::Superseded => {
                            Err(fenced(&self.output.table, &self.output.topic, "a newer attempt runs"))
                        }
                        SinkReply::Failed => {
                            Err(why.unwrap_or_else(|| RunError::internal("a commit was given up without a cause")))
                        }
                    };
                }
            };
            effect = machine.step(next).ok_or_else(|| RunError::internal("a commit has come to no end"))?;
        }
    }

    /// Breaks a commit off when all is sent and the transaction is open, as a crash would.
    #[cfg(test)]
    pub async fn break_off(&self, epoch: u64, committables: &[Committable]) {
        let place = self.place.clone().expect("a run with checkpoints");
        let names = self.output.names(&place.job);
        let (logs, _) = self.output.logs(epoch, committables).expect("logs");
        let output = self.output.clone();
        let id = names.transactional_id.clone();
        let producer = blocking(move || output.producer(&id)).await.expect("a producer");
        let open = self.output.send(producer, &place, &logs, &names.group, epoch).await.expect("sent");
        let dropped = blocking(move || {
            drop(open);
            Ok(())
        });
        dropped.await.expect("dropped");
    }

    /// The epoch that the topic shows for a job.
    #[cfg(test)]
    pub async fn marker(&self, job: &str) -> Option<u64> {
        let (output, group) = (self.output.clone(), self.output.names(job).group);
        blocking(move || output.marker(&group)).await.expect("a marker can be read")
    }
}

impl SinkCommitter for Transactions {
    fn keep(&mut self, place: &Place, previous: Option<u64>) {
        self.place = Some(place.clone());
        self.before = previous;
    }

    /// What came before counts only where the sink was part of it, and for the same job.
    fn restore(&mut self, _: u64, staged: Vec<Committable>) -> BoxFuture<'_, Result<(), RunError>> {
        async move {
            let history = match staged.first() {
                Some(first) => Staged::read(first)?.and_then(|staged| staged.history),
                None => None,
            };
            let is_ours = |history: &History| self.place.as_ref().is_some_and(|place| place.job == history.job);
            self.previous = history.is_some_and(|history| is_ours(&history)).then_some(self.before).flatten();
            Ok(())
        }
        .boxed()
    }

    /// Says what the sink itself had before: what the marker means depends on that, and the next attempt cannot know it otherwise.
    fn stage(&mut self, _: u64, committables: Vec<Committable>) -> BoxFuture<'_, Result<Vec<Committable>, RunError>> {
        async move {
            let mut committables = committables;
            if let (Some(first), Some(place)) = (committables.first_mut(), &self.place)
                && let Some(staged) = Staged::read(first)?
            {
                let history = History { job: place.job.clone(), previous: self.previous };
                first.payload = Staged { history: Some(history), ..staged }.payload();
            }
            Ok(committables)
        }
        .boxed()
    }

    fn commit(
        &mut self,
        epoch: u64,
        _: CommitKind,
        committables: Vec<Committable>,
    ) -> BoxFuture<'_, Result<(), RunError>> {
        async move { self.commit_epoch(epoch, &committables).await }.boxed()
    }

    /// What is not decided was never sent; its logs go with their checkpoint.
    fn abort(&mut self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }
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

    /// The files of an epoch in their order, and what was said of the time before it.
    fn logs(&self, epoch: u64, committables: &[Committable]) -> Result<(Vec<LogFile>, Option<History>), RunError> {
        let (mut logs, mut history) = (Vec::new(), None);
        for committable in committables {
            let Some(staged) = Staged::read(committable)? else { continue };
            if staged.topic != self.topic {
                let message = format!(
                    "table {}: checkpoint {epoch} holds records for topic '{}', which are not committed yet, and the table names '{}'",
                    self.table, staged.topic, self.topic
                );
                return Err(RunError::user("sink_changed", message)
                    .hint("let the job commit them with the table as it was, then change the topic"));
            }
            history = history.or(staged.history);
            let files = committable.files.iter().cloned().zip(staged.records);
            logs.extend(files.map(|(file, records)| LogFile { file, records }));
        }
        Ok((logs, history))
    }

    fn opening<'a>(&'a self, servers: &'a str) -> Opening<'a> {
        let patience = self.options.startup_timeout.duration();
        Opening { table: &self.table, servers, patience, waiting: None, given_up: &|| false }
    }

    /// A producer that has fenced all before it and ended what they left open.
    fn producer(&self, id: &str) -> Result<Producer, RunError> {
        let (client, limit_ms) = transactional_client(&self.table, &self.options, id, &self.around)?;
        let client = Arc::new(client);
        // Connected first: the coordinator is found by a broker that is known.
        let servers = servers(&self.options, &self.around);
        topic_partitions(&self.opening(&servers), &client, &self.topic)?;
        let target = client.target(&self.topic).map_err(|code| RunError::internal(said(code)))?;
        let producer = Producer { client, target, sent: 0, limit_ms };
        let ready = producer.client.init_transactions(ANSWER);
        ready.map_err(|failure| self.failed(&producer, "begin to use transactions", failure))?;
        Ok(producer)
    }

    /// The epoch that the topic shows.
    fn marker(&self, group: &str) -> Result<Option<u64>, RunError> {
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
                    return Err(RunError::external("kafka_failed", message));
                }
                // A coordinator that has just moved.
                Err(_) => std::thread::sleep(PAUSE.0 * 5),
            }
        }
    }

    /// The logs and the marker, in a transaction that is left open.
    async fn send(
        self: &Arc<Output>,
        mut producer: Producer,
        place: &Place,
        logs: &[LogFile],
        group: &str,
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
        }
        let (output, group) = (self.clone(), group.to_string());
        blocking(move || {
            let marked = producer.client.send_offset(&group, &output.topic, epoch as i64, ANSWER);
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

    fn end(&self, producer: Producer) -> Result<Producer, RunError> {
        match producer.client.commit_transaction(ANSWER) {
            Ok(()) => Ok(producer),
            Err(failure) => Err(self.failed(&producer, "commit", failure)),
        }
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

    fn state_lost(&self, epoch: u64, previous: Option<u64>, found: Option<u64>, names: &Names) -> RunError {
        let Output { table, topic, .. } = self;
        let shows = match found {
            Some(found) => format!("shows epoch {found}"),
            None => "is gone".to_string(),
        };
        let before = previous.map_or("none".to_string(), |epoch| epoch.to_string());
        let message = format!(
            "table {table}: epoch {epoch} cannot be committed to topic '{topic}': the mark of what it holds, the offset of group '{}', {shows}, and the epoch before was {before}. Sending could write rows twice, not sending could lose some",
            names.group
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
