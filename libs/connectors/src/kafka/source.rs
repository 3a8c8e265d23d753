//! Topics as a source: a split per partition.
//!
//! Each reader has one consumer with a thread of its own, which takes whole fetches and decodes them; another looks now and then whether
//! the topics are still what they were. A position is the offset of the next record. Start positions given as latest or as a time, and
//! the ends of bounded sources, are resolved to offsets once, when the splits are listed.
//!
//! New partitions: splits are frozen when the run starts, so an unbounded source lists some that do not exist yet. Their readers say that
//! they are absent until they are found, and then read them from offset 0.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use engine::{
    BadRecord, Position, RowPositions, RunError, Source, SourceContext, SourceHints, SourceOutput, Split, SplitStart,
    Waiting,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::KafkaOptions;
use graph::kafka::{BoundedMode, StartupMode};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Surroundings;
use super::connect::{Opening, denied, is_missing, is_silence, not_allowed, reason, said};
use super::decode::{Layout, Rows};
use super::native::{Client, Code, Fetched, Record, Role};
use super::settings::{client, servers};
use crate::registry::Schemas;

/// How long a reader waits for records before it looks whether it is still wanted.
const WAIT: Duration = Duration::from_millis(100);
/// A partition's rows are sent when their records have this many bytes, even if they are few.
const BATCH_BYTES: usize = 4 << 20;
/// Bad records are handed over when there are this many, even without rows.
const BAD_AT_ONCE: usize = 256;
/// An answer about a topic may take so long.
const CHECK: Duration = Duration::from_secs(10);
/// A topic is gone when it was not there this many times in a row: while brokers change places it may be unknown for a moment.
const MISSING_TIMES: u32 = 3;
/// While all brokers are away, a reader asks so often whether one is back, and waits so long for the answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_WAIT: Duration = Duration::from_millis(500);
/// How often a reader says how many records are left.
const LAG: Duration = Duration::from_secs(1);
/// Splits for partitions that do not exist yet, per topic.
const ABSENT_MIN: i32 = 16;

#[derive(Clone)]
pub struct KafkaSource {
    table: String,
    options: KafkaOptions,
    layout: Arc<Layout>,
    around: Surroundings,
    /// Of a table whose format asks a registry.
    schemas: Option<Schemas>,
}

/// What a split's `spec` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct PartitionSplit {
    topic: String,
    partition: i32,
    /// Where reading begins.
    start: i64,
    /// The first offset that is not read.
    end: Option<i64>,
    /// Identity of the topic.
    topic_id: Option<String>,
    /// Partitions of the topic when it was listed.
    partitions: i32,
}

impl PartitionSplit {
    /// Did not exist when the splits were listed.
    fn absent(&self) -> bool {
        self.partition >= self.partitions
    }
}

impl KafkaSource {
    /// # Errors
    /// Options that are wrong or not allowed. Nothing is connected to.
    pub fn open(
        node: &graph::Source,
        options: &KafkaOptions,
        hints: SourceHints,
        around: Surroundings,
    ) -> Result<KafkaSource, RunError> {
        let layout = Arc::new(Layout::new(node, options, &hints)?);
        super::settings::client_options(&node.table, options, Role::Consumer, &around)?;
        let schemas = super::settings::schemas(&node.table, options, &around)?;
        Ok(KafkaSource { table: node.table.clone(), options: options.clone(), layout, around, schemas })
    }

    fn client(&self) -> Result<Arc<Client>, RunError> {
        client(&self.table, &self.options, Role::Consumer, &self.around).map(Arc::new)
    }

    /// Lists the partitions and resolves where they begin and end. Blocks.
    fn listed(&self, waiting: &Waiting, given_up: &dyn Fn() -> bool) -> Result<Vec<Split>, RunError> {
        let client = self.client()?;
        let servers = servers(&self.options, &self.around);
        let opening = Opening {
            table: &self.table,
            servers: &servers,
            patience: self.options.startup_timeout.duration(),
            waiting: Some(waiting),
            given_up,
        };
        let mut splits = Vec::new();
        for topic in self.options.topics() {
            let what = format!("topic '{topic}'");
            opening.ask(&client, &what, |wait| match client.partitions(topic, wait) {
                Ok(0) => Err(Code::UnknownTopicOrPartition),
                other => other,
            })?;
            let found = opening.ask(&client, &what, |wait| client.describe(topic, wait))?;
            let present = self.resolve(&opening, &client, topic, found.partitions)?;
            let spec = |partition: i32, start: i64, end: Option<i64>| PartitionSplit {
                topic: topic.to_string(),
                partition,
                start,
                end,
                topic_id: found.id.clone(),
                partitions: found.partitions,
            };
            let mut listed: Vec<PartitionSplit> =
                (0..).zip(present).map(|(partition, (start, end))| spec(partition, start, end)).collect();
            if !self.options.is_bounded() && self.options.discovery_interval.us > 0 {
                let more = found.partitions.max(ABSENT_MIN);
                listed.extend((found.partitions..found.partitions + more).map(|partition| spec(partition, 0, None)));
            }
            splits.extend(listed.into_iter().map(|spec| Split {
                id: format!("{topic}-{}", spec.partition),
                rows: spec.end.map(|end| (end - spec.start).max(0) as u64),
                spec: serde_json::to_value(spec).expect("a split is plain data"),
                min_time_us: None,
                bytes: None,
            }));
        }
        Ok(splits)
    }

    /// Start and end of each partition.
    fn resolve(
        &self,
        opening: &Opening<'_>,
        client: &Client,
        topic: &str,
        partitions: i32,
    ) -> Result<Vec<(i64, Option<i64>)>, RunError> {
        let mut bounds = Vec::with_capacity(partitions as usize);
        for partition in 0..partitions {
            let what = format!("partition {partition} of topic '{topic}'");
            bounds.push(opening.ask(client, &what, |wait| client.watermarks(topic, partition, wait))?);
        }
        let all: Vec<(String, i32)> = (0..partitions).map(|partition| (topic.to_string(), partition)).collect();
        let at_time = |ms: Option<u64>| {
            let ms = ms.expect("the option was checked").min(i64::MAX as u64) as i64;
            opening.ask(client, &format!("topic '{topic}'"), |wait| client.offsets_for_time(&all, ms, wait))
        };
        let specific = |offsets: &Option<graph::kafka::Offsets>, what: &str| {
            let offsets = offsets.as_ref().expect("the option was checked").by_partition().clone();
            if let Some(partition) = offsets.keys().find(|partition| **partition >= partitions) {
                let message = format!(
                    "table {}: '{what}' names partition {partition}, and topic '{topic}' has {partitions}",
                    self.table
                );
                return Err(RunError::user("invalid_option", message).hint("partitions count from 0"));
            }
            Ok(offsets)
        };
        let starts: Vec<i64> = match self.options.startup_mode {
            StartupMode::EarliestOffset => bounds.iter().map(|(low, _)| *low).collect(),
            StartupMode::LatestOffset => bounds.iter().map(|(_, high)| *high).collect(),
            StartupMode::Timestamp => {
                let found = at_time(self.options.startup_timestamp_ms)?;
                found.into_iter().zip(&bounds).map(|(found, (_, high))| found.unwrap_or(*high)).collect()
            }
            StartupMode::SpecificOffsets => {
                let offsets = specific(&self.options.startup_offsets, "scan.startup.specific-offsets")?;
                for (partition, offset) in &offsets {
                    let (low, high) = bounds[*partition as usize];
                    if *offset < low || *offset > high {
                        let message = format!(
                            "table {}: 'scan.startup.specific-offsets' begins at {offset} in partition {partition} of topic '{topic}', which holds {low} to {high}",
                            self.table
                        );
                        return Err(RunError::user("offset_out_of_range", message).hint(
                            "begin at an offset that is there, or with 'scan.startup.mode' = 'earliest-offset'",
                        ));
                    }
                }
                // As in Flink, partitions that are not named go on where the group is; a group says nothing here, so: the beginning.
                bounds.iter().enumerate().map(|(at, (low, _))| *offsets.get(&(at as i32)).unwrap_or(low)).collect()
            }
        };
        let ends: Vec<Option<i64>> = match self.options.bounded_mode {
            BoundedMode::Unbounded => vec![None; bounds.len()],
            BoundedMode::LatestOffset => bounds.iter().map(|(_, high)| Some(*high)).collect(),
            BoundedMode::Timestamp => {
                let found = at_time(self.options.bounded_timestamp_ms)?;
                found.into_iter().zip(&bounds).map(|(found, (_, high))| Some(found.unwrap_or(*high))).collect()
            }
            BoundedMode::SpecificOffsets => {
                let offsets = specific(&self.options.bounded_offsets, "scan.bounded.specific-offsets")?;
                // A partition that is not named is not to be read beyond what is there.
                let end = |(at, (_, high)): (usize, &(i64, i64))| Some(*offsets.get(&(at as i32)).unwrap_or(high));
                bounds.iter().enumerate().map(end).collect()
            }
        };
        Ok(starts.into_iter().zip(ends).collect())
    }
}

impl Source for KafkaSource {
    fn schema(&self) -> SchemaRef {
        self.layout.schema.clone()
    }

    fn splits(&self) -> BoxFuture<'_, Result<Vec<Split>, RunError>> {
        async move { self.list(&Waiting::new(|_| {})).await }.boxed()
    }

    fn start(&self, split: &Split) -> Option<String> {
        let spec: PartitionSplit = serde_json::from_value(split.spec.clone()).ok()?;
        // Also of one that does not exist yet: read it from there, wherever a later run would begin.
        Some(spec.start.to_string())
    }

    fn exists(&self, split: &Split) -> bool {
        serde_json::from_value(split.spec.clone()).is_ok_and(|spec: PartitionSplit| !spec.absent())
    }

    fn is_nothing(&self, split: &str, position: &str) -> bool {
        // A partition that did not exist would have been read from there.
        let topic = split.rsplit_once('-').filter(|(_, partition)| partition.parse::<i32>().is_ok());
        position == "0" && topic.is_some_and(|(topic, _)| self.options.topics().contains(&topic))
    }

    fn list<'a>(&'a self, waiting: &'a Waiting) -> BoxFuture<'a, Result<Vec<Split>, RunError>> {
        async move {
            let source = self.clone();
            let dropped = GiveUp::default();
            let given_up = dropped.0.clone();
            let waiting = waiting.clone();
            let listing =
                tokio::task::spawn_blocking(move || source.listed(&waiting, &|| given_up.load(Ordering::Relaxed)));
            let listed = listing.await;
            listed
                .unwrap_or_else(|error| Err(RunError::internal(format!("listing partitions was broken off: {error}"))))
        }
        .boxed()
    }

    fn read(self: Arc<Self>, context: SourceContext, out: SourceOutput) -> BoxFuture<'static, Result<(), RunError>> {
        async move {
            let runtime = tokio::runtime::Handle::current();
            let (alive, gone) = oneshot::channel::<()>();
            let reading = tokio::task::spawn_blocking(move || {
                let sender = Sender { out, runtime, gone };
                Reader::new(self, &context, sender)?.run()
            });
            let ended = reading.await;
            drop(alive);
            ended.unwrap_or_else(|error| Err(RunError::internal(format!("reading from Kafka was broken off: {error}"))))
        }
        .boxed()
    }
}

/// Set when the future that holds it is dropped.
#[derive(Default)]
struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// To the engine, from a thread.
struct Sender {
    out: SourceOutput,
    runtime: tokio::runtime::Handle,
    /// Closed when the reader's future is dropped.
    gone: oneshot::Receiver<()>,
}

impl Sender {
    fn is_over(&mut self) -> bool {
        !matches!(self.gone.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    fn rows(
        &mut self,
        split: u32,
        (rows, positions, bad): (RecordBatch, RowPositions, Vec<BadRecord>),
        next: i64,
    ) -> Result<(), RunError> {
        let Sender { out, runtime, gone } = self;
        wait(runtime, gone, out.rows(split, rows, positions, bad, Position::At(next.to_string())))
    }

    /// Waits for something else than the engine.
    fn wait(&mut self, done: impl Future<Output = Result<(), RunError>>) -> Result<(), RunError> {
        wait(&self.runtime, &mut self.gone, done)
    }
}

/// Blocks this thread, which is none of the runtime's workers, until something is done or the reader is not wanted any more.
fn wait(
    runtime: &tokio::runtime::Handle,
    gone: &mut oneshot::Receiver<()>,
    done: impl Future<Output = Result<(), RunError>>,
) -> Result<(), RunError> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            _ = gone => Err(RunError::internal("the reader was dropped")),
            done = done => done,
        }
    })
}

/// A partition that is read.
struct Partition {
    number: u32,
    spec: PartitionSplit,
    rows: Rows,
    /// The offset of the next record.
    next: i64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It does not exist yet.
    Absent,
    Reading,
    Finished,
}

struct Reader {
    source: Arc<KafkaSource>,
    batch_rows: usize,
    out: Sender,
    client: Arc<Client>,
    partitions: Vec<Partition>,
    /// Places in `partitions` by topic and partition.
    places: BTreeMap<(String, i32), usize>,
    /// The place of the record before: records of a partition come together.
    last: Option<(usize, i32, usize)>,
    watch: Arc<Watch>,
    /// Why reading cannot go on.
    failed: Option<RunError>,
    /// The broker knows a partition no more, or not now.
    doubts: bool,
    /// A record has come since the last look.
    heard: bool,
    /// Since when credentials are refused without a record.
    denied: Option<Instant>,
    waiting: Waiting,
    /// All brokers are away, which was said; when one was asked last.
    away: Option<Instant>,
    lag_told: Instant,
}

/// What the thread that looks after the topics has found.
#[derive(Default)]
struct Watch {
    found: Mutex<BTreeMap<String, i32>>,
    failed: Mutex<Option<RunError>>,
    hurry: AtomicBool,
    over: AtomicBool,
}

impl Reader {
    fn new(source: Arc<KafkaSource>, context: &SourceContext, out: Sender) -> Result<Reader, RunError> {
        let mut partitions = Vec::with_capacity(context.splits.len());
        for start in &context.splits {
            partitions.push(Partition::new(&source, start)?);
        }
        let places = partitions.iter().enumerate();
        let places = places.map(|(at, one)| ((one.spec.topic.clone(), one.spec.partition), at)).collect();
        Ok(Reader {
            client: source.client()?,
            batch_rows: context.batch_rows.max(1),
            out,
            partitions,
            places,
            last: None,
            watch: Arc::default(),
            failed: None,
            doubts: false,
            heard: false,
            denied: None,
            waiting: context.waiting.clone(),
            away: None,
            lag_told: Instant::now(),
            source,
        })
    }

    fn run(mut self) -> Result<(), RunError> {
        for at in 0..self.partitions.len() {
            let one = &mut self.partitions[at];
            match one.spec.end {
                Some(end) if one.next >= end => {
                    one.state = State::Finished;
                    self.out.out.finished(one.number)?;
                }
                _ if one.state == State::Absent => self.out.out.absent(one.number)?,
                _ => {}
            }
        }
        if self.is_finished() {
            return Ok(());
        }
        let watching = Watching::start(&self);
        self.check_positions()?;
        self.assign()?;
        let mut fetched = self.client.fetched();
        while !self.out.is_over() {
            self.take(&mut fetched)?;
            if let Some(error) = self.failed.take().or_else(|| self.watch.failed()) {
                return Err(error);
            }
            self.look()?;
            self.tell_away();
            if std::mem::take(&mut self.doubts) {
                watching.hurry();
            }
            self.find_new()?;
            self.tell_lag()?;
            if self.is_finished() {
                if self.away.is_some() {
                    self.waiting.over();
                }
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says that all brokers are away, and when one is back.
    fn tell_away(&mut self) {
        if !self.client.context().all_down() {
            return;
        }
        // Records that were fetched before may still come: only an answer says that a broker is back. A topic without new records is silent.
        let topic = self.source.options.topics().first().copied().unwrap_or_default();
        if self.away.is_some_and(|asked| asked.elapsed() < ASK_AGAIN) {
            return;
        }
        match self.client.partitions(topic, ASK_AGAIN_WAIT) {
            Err(code) if is_silence(code) => {
                if self.away.is_none() {
                    let servers = servers(&self.source.options, &self.source.around);
                    let topics = self.source.options.topics().join("', '");
                    let what = format!("topic '{topics}' at {servers} ({})", reason(&self.client, code));
                    tracing::info!("table {} waits for {what}", self.source.table);
                    self.waiting.on(what);
                }
                self.away = Some(Instant::now());
            }
            _ => {
                self.client.context().answered();
                if self.away.take().is_some() {
                    tracing::info!("table {} waits no more", self.source.table);
                    self.waiting.over();
                }
            }
        }
    }

    /// Whether the brokers can still be spoken to: what is told beside the records, and would else be tried again for ever.
    fn look(&mut self) -> Result<(), RunError> {
        let heard = std::mem::take(&mut self.heard);
        let context = self.client.context();
        let what = || {
            format!("cannot read table {} at {}", self.source.table, servers(&self.source.options, &self.source.around))
        };
        if let Some(address) = context.refused() {
            return Err(not_allowed(&what(), &address));
        }
        let Some(reason) = context.credentials() else {
            self.denied = None;
            return Ok(());
        };
        let since = *self.denied.get_or_insert_with(Instant::now);
        if !heard && since.elapsed() < self.source.options.startup_timeout.duration() {
            return Ok(());
        }
        // A topic without new records is silent too: whoever answers a question believes us again.
        if !heard && self.client.cluster(CHECK).is_err() {
            return Err(denied(&what(), &reason));
        }
        context.forgive();
        self.denied = None;
        Ok(())
    }

    /// How far each partition is behind its end, now and then.
    fn tell_lag(&mut self) -> Result<(), RunError> {
        if self.lag_told.elapsed() < LAG {
            return Ok(());
        }
        self.lag_told = Instant::now();
        for one in self.partitions.iter().filter(|one| one.state == State::Reading) {
            let end = one.spec.end.or_else(|| self.client.end_seen(&one.spec.topic, one.spec.partition));
            if let Some(end) = end {
                self.out.out.lag(one.number, (end - one.next).max(0) as u64)?;
            }
        }
        Ok(())
    }

    fn is_finished(&self) -> bool {
        self.partitions.iter().all(|one| one.state == State::Finished)
    }

    /// The positions that reading goes on from must be there.
    fn check_positions(&mut self) -> Result<(), RunError> {
        let source = &self.source;
        let out = RefCell::new(&mut self.out);
        let servers = servers(&source.options, &source.around);
        let opening = Opening {
            table: &source.table,
            servers: &servers,
            patience: source.options.startup_timeout.duration(),
            waiting: Some(&self.waiting),
            given_up: &|| out.borrow_mut().is_over(),
        };
        for one in self.partitions.iter().filter(|one| one.state == State::Reading) {
            let (topic, partition) = (&one.spec.topic, one.spec.partition);
            let what = format!("partition {partition} of topic '{topic}'");
            let (low, high) =
                opening.ask(&self.client, &what, |wait| self.client.watermarks(topic, partition, wait))?;
            if one.next < low || one.next > high {
                return Err(source.lost(one, (low, high)));
            }
            // Before it is read to there, it is not idle.
            let end = one.spec.end.unwrap_or(high);
            out.borrow_mut().out.lag(one.number, (end - one.next).max(0) as u64)?;
        }
        Ok(())
    }

    fn assign(&self) -> Result<(), RunError> {
        let reading = self.partitions.iter().filter(|one| one.state == State::Reading);
        let all: Vec<_> = reading.map(|one| (one.spec.topic.clone(), one.spec.partition, one.next)).collect();
        self.client
            .assign(&all)
            .map_err(|code| RunError::internal(format!("librdkafka took no assignment: {}", said(code))))
    }

    /// Takes what was fetched and sends it.
    fn take(&mut self, fetched: &mut Fetched) -> Result<(), RunError> {
        let mut result = Ok(());
        fetched.take(WAIT, |record| {
            if result.is_ok() && self.failed.is_none() {
                result = self.record(&record);
            }
        });
        result?;
        for at in 0..self.partitions.len() {
            self.send(at)?;
        }
        Ok(())
    }

    fn record(&mut self, record: &Record<'_>) -> Result<(), RunError> {
        let (mark, partition) = (record.topic_mark(), record.partition());
        let at = match self.last {
            Some((last_mark, last_partition, at)) if last_mark == mark && last_partition == partition => at,
            _ => {
                let place = self.places.get(&(record.topic(), partition)).copied();
                if let (Some(at), true) = (place, mark != 0) {
                    self.last = Some((mark, partition, at));
                }
                match place {
                    Some(at) => at,
                    None => {
                        if let Some(code) = record.error() {
                            self.trouble(None, code, record);
                        }
                        return Ok(());
                    }
                }
            }
        };
        match record.error() {
            None => self.heard = true,
            // Control records and records of aborted transactions are passed over: this says how far.
            Some(Code::PartitionEOF) => {
                let one = &mut self.partitions[at];
                one.next = one.next.max(record.offset());
                self.out.out.lag(one.number, 0)?;
                return self.finish_at_end(at);
            }
            Some(code) => {
                self.trouble(Some(at), code, record);
                return Ok(());
            }
        }
        let one = &mut self.partitions[at];
        let offset = record.offset();
        // Fetched before an assignment was renewed.
        if one.state != State::Reading || offset < one.next {
            return Ok(());
        }
        if one.spec.end.is_some_and(|end| offset >= end) {
            one.next = offset;
            return self.finish_at_end(at);
        }
        if let Some(schemas) = self.source.schemas.as_ref().filter(|_| one.rows.needs_schema(record)) {
            let fetching = one.rows.fetch_schemas(record, schemas);
            let table = &self.source.table;
            self.out.wait(fetching).map_err(|error| named(error, table))?;
        }
        if !one.rows.push(record) {
            self.send(at)?;
            let taken = self.partitions[at].rows.push(record);
            assert!(taken, "a record fits into empty columns");
        }
        let one = &mut self.partitions[at];
        one.next = offset + 1;
        if one.rows.len() >= self.batch_rows || one.rows.bytes() >= BATCH_BYTES || one.rows.bad() >= BAD_AT_ONCE {
            self.send(at)?;
        }
        self.finish_at_end(at)
    }

    /// A bounded partition ends when its position has reached the end; nothing needs to be there.
    fn finish_at_end(&mut self, at: usize) -> Result<(), RunError> {
        let one = &self.partitions[at];
        if one.state == State::Reading && one.spec.end.is_some_and(|end| one.next >= end) {
            self.send(at)?;
            let one = &mut self.partitions[at];
            one.state = State::Finished;
            // What is fetched beyond the end is thrown away; failing to stop it costs only that.
            let _ = self.client.pause(&one.spec.topic, one.spec.partition);
            let number = one.number;
            self.out.out.finished(number)?;
        }
        Ok(())
    }

    fn send(&mut self, at: usize) -> Result<(), RunError> {
        let one = &mut self.partitions[at];
        if one.rows.is_empty() {
            return Ok(());
        }
        let rows = one.rows.take()?;
        self.out.rows(one.number, rows, one.next)
    }

    /// Something other than a record came.
    fn trouble(&mut self, at: Option<usize>, code: Code, record: &Record<'_>) {
        match code {
            Code::AutoOffsetReset | Code::OffsetOutOfRange => {
                let Some(at) = at else { return };
                let one = &self.partitions[at];
                let (topic, partition) = (&one.spec.topic, one.spec.partition);
                let bounds = self.client.watermarks(topic, partition, CHECK);
                self.failed = Some(match bounds {
                    // librdkafka says so for other reasons too, such as a broker that is away: only what is out of range is lost.
                    Ok((low, high)) if one.next >= low && one.next <= high => {
                        if let Err(error) = self.assign() {
                            self.failed = Some(error);
                        }
                        return;
                    }
                    Ok(bounds) => self.source.lost(one, bounds),
                    Err(code) if is_missing(code) => {
                        self.doubts = true;
                        return;
                    }
                    Err(_) => RunError::external(
                        "kafka_unreachable",
                        format!("table {}: {}", self.source.table, record.explanation()),
                    ),
                });
            }
            Code::TopicAuthorizationFailed => {
                let message = format!("table {}: {}", self.source.table, record.explanation());
                self.failed =
                    Some(RunError::user("authorization_failed", message).hint("the user needs an ACL for the topic"));
            }
            code if is_missing(code) => self.doubts = true,
            Code::Fatal => {
                let message = format!("table {}: {}", self.source.table, record.explanation());
                self.failed = Some(RunError::external("kafka_failed", message));
            }
            // Brokers that are away come back; librdkafka goes on where it was.
            _ => tracing::debug!(target: "kafka", "{code}: {}", record.explanation()),
        }
    }

    /// Begins to read partitions that were found.
    fn find_new(&mut self) -> Result<(), RunError> {
        let found = std::mem::take(&mut *self.watch.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        if found.is_empty() {
            return Ok(());
        }
        let mut more = false;
        for one in self.partitions.iter_mut().filter(|one| one.state == State::Absent) {
            if found.get(&one.spec.topic).is_some_and(|partitions| one.spec.partition < *partitions) {
                tracing::info!(
                    "table {} reads the new partition {}-{}",
                    self.source.table,
                    one.spec.topic,
                    one.spec.partition
                );
                one.state = State::Reading;
                more = true;
            }
        }
        if more { self.assign() } else { Ok(()) }
    }
}

impl Partition {
    fn new(source: &KafkaSource, start: &SplitStart) -> Result<Partition, RunError> {
        let wrong = |what: &str| RunError::internal(format!("split {} is no partition: {what}", start.split.id));
        let spec: PartitionSplit =
            serde_json::from_value(start.split.spec.clone()).map_err(|error| wrong(&error.to_string()))?;
        let next = match &start.position {
            None => spec.start,
            Some(Position::At(text)) => text.parse().ok().filter(|offset| *offset >= 0).ok_or_else(|| {
                let message = format!(
                    "table {}: {text:?} is no offset to begin at in partition {} of topic '{}'",
                    source.table, spec.partition, spec.topic
                );
                RunError::user("invalid_position", message).hint("an offset is a whole number from 0")
            })?,
            Some(Position::End) => spec.end.ok_or_else(|| wrong("an unbounded partition has no end"))?,
        };
        let rows = source.layout.decoder(&spec.topic, spec.partition);
        // One that was read before the run went on exists by now.
        let absent = spec.absent() && next == spec.start;
        let state = if absent { State::Absent } else { State::Reading };
        Ok(Partition { number: start.number, rows, next, state, spec })
    }
}

impl KafkaSource {
    fn lost(&self, one: &Partition, (low, high): (i64, i64)) -> RunError {
        let PartitionSplit { topic, partition, .. } = &one.spec;
        let (next, table) = (one.next, &self.table);
        let message = if next > high {
            format!(
                "table {table}: partition {partition} of topic '{topic}' ends at offset {high}, and {next} was to be read next: its offsets have gone back"
            )
        } else {
            format!(
                "table {table}: partition {partition} of topic '{topic}' begins at offset {low}, and {next} was to be read next: {} offsets are gone",
                low - next
            )
        };
        data_loss(message)
    }
}

/// What a registry's refusal does not know.
fn named(error: RunError, table: &str) -> RunError {
    RunError { message: format!("table {table}: {}", error.message), ..error }
}

fn data_loss(message: String) -> RunError {
    RunError::user("data_loss_detected", message)
        .hint("nothing is skipped silently: start a new run where it is to go on, and see why the records went (retention, a topic made anew)")
}

impl Watch {
    fn failed(&self) -> Option<RunError> {
        self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

/// The thread that looks after the topics; ends with its owner.
struct Watching {
    watch: Arc<Watch>,
    thread: Option<std::thread::Thread>,
}

impl Watching {
    fn start(reader: &Reader) -> Watching {
        let watch = reader.watch.clone();
        let interval = reader.source.options.discovery_interval.duration();
        let mut topics: BTreeMap<String, PartitionSplit> = BTreeMap::new();
        for one in &reader.partitions {
            topics.entry(one.spec.topic.clone()).or_insert_with(|| one.spec.clone());
        }
        let (client, table, inner) = (reader.client.clone(), reader.source.table.clone(), watch.clone());
        let discovers = !reader.source.options.is_bounded() && !interval.is_zero();
        let spawned = std::thread::Builder::new().name("kafka-watch".into()).spawn(move || {
            let mut missing = 0;
            loop {
                if missing > 0 {
                    std::thread::park_timeout(Duration::from_secs(1));
                } else if discovers {
                    let until = Instant::now() + interval;
                    while Instant::now() < until
                        && !inner.hurry.load(Ordering::Acquire)
                        && !inner.over.load(Ordering::Acquire)
                    {
                        std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
                    }
                } else {
                    while !inner.hurry.load(Ordering::Acquire) && !inner.over.load(Ordering::Acquire) {
                        std::thread::park();
                    }
                }
                if inner.over.load(Ordering::Acquire) {
                    return;
                }
                inner.hurry.store(false, Ordering::Release);
                let mut found = BTreeMap::new();
                let (mut gone, mut lost) = (None, None);
                for (topic, was) in &topics {
                    match client.describe(topic, CHECK) {
                        Ok(now) => match changed(&table, was, &now) {
                            Some(error) => gone = Some(error),
                            None => drop(found.insert(topic.clone(), now.partitions)),
                        },
                        Err(code) if is_missing(code) => {
                            lost = Some(format!("table {table}: topic '{topic}' was deleted while it was read"));
                        }
                        // A broker that does not answer says nothing about the topic.
                        Err(_) => {}
                    }
                }
                missing = if lost.is_some() { missing + 1 } else { 0 };
                let lost = lost.filter(|_| missing >= MISSING_TIMES).map(data_loss);
                if let Some(error) = gone.or(lost) {
                    *inner.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                    return;
                }
                *inner.found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = found;
            }
        });
        // Without the thread nothing is found; reading goes on.
        Watching { watch, thread: spawned.ok().map(|handle| handle.thread().clone()) }
    }

    /// Looks now.
    fn hurry(&self) {
        self.watch.hurry.store(true, Ordering::Release);
        self.thread.iter().for_each(std::thread::Thread::unpark);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.watch.over.store(true, Ordering::Release);
        self.thread.iter().for_each(std::thread::Thread::unpark);
    }
}

/// Why a topic is not the one that was listed, or cannot be read any more.
fn changed(table: &str, was: &PartitionSplit, now: &super::native::Topic) -> Option<RunError> {
    let topic = &was.topic;
    if let (Some(before), Some(id)) = (&was.topic_id, &now.id)
        && before != id
    {
        let message =
            format!("table {table}: topic '{topic}' was deleted and made anew: its id was {before} and is {id}");
        return Some(data_loss(message));
    }
    if now.partitions < was.partitions {
        let message =
            format!("table {table}: topic '{topic}' had {} partitions and has {}", was.partitions, now.partitions);
        return Some(data_loss(message));
    }
    let most = was.partitions + was.partitions.max(ABSENT_MIN);
    if now.partitions > most {
        let message = format!(
            "table {table}: topic '{topic}' had {} partitions when the run started and has {}, and a run can read {most}",
            was.partitions, now.partitions
        );
        return Some(
            RunError::external("too_many_new_partitions", message).hint("start the run again: it will read them all"),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::kafka::native::Topic;

    #[test]
    fn a_topic_that_is_another_one_is_told_with_numbers() {
        let was = PartitionSplit {
            topic: "bids".into(),
            partition: 0,
            start: 0,
            end: None,
            topic_id: Some("x".into()),
            partitions: 4,
        };
        let now = |partitions: i32, id: Option<&str>| Topic { partitions, id: id.map(String::from) };
        for (now, expected) in [
            (now(4, Some("x")), None),
            (now(4, None), None),
            (now(20, Some("x")), None),
            (now(4, Some("y")), Some("its id was x and is y")),
            (now(3, Some("x")), Some("had 4 partitions and has 3")),
            (now(21, Some("x")), Some("has 21, and a run can read 20")),
        ] {
            let error = changed("t", &was, &now);
            assert_eq!(error.is_some(), expected.is_some(), "{now:?}");
            if let (Some(error), Some(part)) = (error, expected) {
                assert!(error.message.contains(part) && error.message.contains("'bids'"), "{error:?}");
            }
        }
    }
}
