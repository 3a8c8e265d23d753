//! What the benches do with topics themselves: fill one, read one with the bare client, echo one into another, and measure how long records
//! are on their way.
//!
//! The bare client is the zero line: librdkafka by batch (`rd_kafka_consume_batch_queue`), as the source of the program reads, with nothing
//! behind it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::bindings as native;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(60);
/// Messages that are asked of the client at once.
const BATCH: usize = 10_000;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn client(servers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers);
    config
}

/// Sends what `record` gives, waiting where the client's queue is full.
fn send(producer: &BaseProducer, topic: &str, key: Option<&[u8]>, payload: &[u8]) -> Result<(), String> {
    let mut next = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(payload);
    if let Some(key) = key {
        next = next.key(key);
    }
    while let Err((error, again)) = producer.send(next) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
            return Err(text(error));
        }
        producer.poll(Duration::from_millis(1));
        next = again;
    }
    Ok(())
}

/// Writes each line of a file as a record into partition 0. Their number.
pub fn fill(servers: &str, topic: &str, file: &Path) -> Result<u64, String> {
    let mut config = client(servers);
    config.set("linger.ms", "20").set("batch.num.messages", "10000").set("batch.size", "900000");
    config.set("queue.buffering.max.messages", "200000");
    let producer: BaseProducer = config.create().map_err(text)?;
    let lines = BufReader::with_capacity(1 << 20, std::fs::File::open(file).map_err(text)?).split(b'\n');
    let mut records = 0;
    for line in lines {
        send(&producer, topic, None, &line.map_err(text)?)?;
        records += 1;
        if records % 1_000 == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(PATIENCE).map_err(text)?;
    Ok(records)
}

/// A consumer of partition 0, read by batch.
struct Batches {
    consumer: BaseConsumer,
    queue: *mut native::rd_kafka_queue_t,
    messages: Vec<*mut native::rd_kafka_message_t>,
}

impl Batches {
    fn open(servers: &str, topic: &str, from: Offset) -> Result<Batches, String> {
        let mut config = client(servers);
        config.set("group.id", "bench").set("enable.auto.commit", "false").set("fetch.queue.backoff.ms", "10");
        let consumer: BaseConsumer = config.create().map_err(text)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, from).map_err(text)?;
        consumer.assign(&list).map_err(text)?;
        // SAFETY: the client outlives the queue, which is destroyed before it is dropped.
        let queue = unsafe { native::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        Ok(Batches { consumer, queue, messages: vec![std::ptr::null_mut(); BATCH] })
    }

    /// Gives what has come within `wait` to `each`: offset and payload.
    fn next(&mut self, wait: Duration, mut each: impl FnMut(i64, &[u8])) -> Result<usize, String> {
        let wait = i32::try_from(wait.as_millis()).map_err(text)?;
        // SAFETY: the array has room for BATCH pointers, and the queue is alive.
        let count =
            unsafe { native::rd_kafka_consume_batch_queue(self.queue, wait, self.messages.as_mut_ptr(), BATCH) };
        let count = usize::try_from(count).map_err(|_| "the client cannot be read".to_owned())?;
        let mut failure = None;
        for message in &self.messages[..count] {
            // SAFETY: the client gave these messages to us; each is destroyed once, after its last use.
            unsafe {
                let it = &**message;
                if it.err == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    let payload = if it.payload.is_null() {
                        &[]
                    } else {
                        std::slice::from_raw_parts(it.payload.cast::<u8>(), it.len)
                    };
                    each(it.offset, payload);
                } else {
                    failure = Some(format!("error {:?} of the client", it.err));
                }
                native::rd_kafka_message_destroy(*message);
            }
        }
        failure.map_or(Ok(count), Err)
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        // SAFETY: it was got once, in `open`, and the consumer is still alive.
        unsafe { native::rd_kafka_queue_destroy(self.queue) };
    }
}

/// `benches drain SERVERS TOPIC`: reads partition 0 to its end and does nothing with it.
pub fn drain(arguments: &[String]) -> ExitCode {
    let [servers, topic] = arguments else {
        eprintln!("usage: benches drain SERVERS TOPIC");
        return ExitCode::from(2);
    };
    ended(drained(servers, topic).map(|bytes| println!("{bytes} bytes")))
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn drained(servers: &str, topic: &str) -> Result<usize, String> {
    let mut batches = Batches::open(servers, topic, Offset::Beginning)?;
    let (_, end) = batches.consumer.fetch_watermarks(topic, 0, PATIENCE).map_err(text)?;
    let (mut position, mut bytes) = (0, 0);
    while position < end {
        batches.next(Duration::from_secs(1), |offset, payload| {
            position = offset + 1;
            bytes += payload.len();
        })?;
    }
    Ok(bytes)
}

/// `benches echo SERVERS FROM TO`: sends each record of one topic to the other at once, until it is killed.
pub fn echo(arguments: &[String]) -> ExitCode {
    let [servers, from, to] = arguments else {
        eprintln!("usage: benches echo SERVERS FROM TO");
        return ExitCode::from(2);
    };
    ended(echoed(servers, from, to))
}

fn echoed(servers: &str, from: &str, to: &str) -> Result<(), String> {
    let mut config = client(servers);
    // As the program's sink: confirmed by all replicas, nothing twice, a millisecond to gather.
    config.set("linger.ms", "1").set("enable.idempotence", "true").set("acks", "all");
    let producer: BaseProducer = config.create().map_err(text)?;
    let mut batches = Batches::open(servers, from, Offset::Beginning)?;
    loop {
        let mut failure = None;
        batches.next(Duration::from_millis(1), |_, payload| {
            if let Err(error) = send(&producer, to, None, payload) {
                failure = Some(error);
            }
        })?;
        producer.poll(Duration::ZERO);
        if let Some(error) = failure {
            return Err(error);
        }
    }
}

/// Milliseconds on the way, sorted.
pub struct Latencies(Vec<f64>);

impl Latencies {
    /// The value that so many of a hundred do not exceed.
    pub fn percentile(&self, percent: f64) -> f64 {
        let at = ((self.0.len() as f64 * percent / 100.0).ceil() as usize).clamp(1, self.0.len());
        self.0[at - 1]
    }
}

/// What is sent at a fixed rate, and where its results come back.
pub struct Way<'a> {
    pub servers: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub per_second: u64,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// How many keys the events have in turn.
pub const KEYS: u64 = 100;

impl Way<'_> {
    /// Sends events for warm-up and measured time, and says how long after the moment at which an event was due its result came back.
    ///
    /// A result names an event by `"i"`, or all events of a key up to a count by `"k"` and `"n"`: a running count shows every event, but not
    /// each by a row of its own.
    pub fn latencies(&self) -> Result<Latencies, String> {
        let mut results = Batches::open(self.servers, self.to, Offset::End)?;
        // The end of the topic is asked for before anything is sent.
        results.next(Duration::from_millis(500), |_, _| {})?;
        let warm = self.warm_up.as_secs() * self.per_second;
        let events = warm + self.measured.as_secs() * self.per_second;
        let period = Duration::from_secs(1) / u32::try_from(self.per_second).map_err(text)?;
        let start = Instant::now() + Duration::from_millis(50);
        let due = |event: u64| start + period * u32::try_from(event).unwrap_or(u32::MAX);
        let gone = AtomicBool::new(false);
        let deadline = due(events) + PATIENCE;
        let mut on_the_way = vec![f64::NAN; usize::try_from(events).map_err(text)?];
        let mut counted: HashMap<u64, u64> = HashMap::new();
        let mut missing = events;
        let (sent, read) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| self.send_all(events, &due, &gone));
            let read = loop {
                let seen = results.next(Duration::from_millis(1), |_, payload| {
                    let now = Instant::now();
                    let mut arrived = |event: u64| {
                        if let Some(slot) = on_the_way.get_mut(event as usize)
                            && slot.is_nan()
                        {
                            *slot = now.saturating_duration_since(due(event)).as_secs_f64() * 1e3;
                            missing -= 1;
                        }
                    };
                    match (field(payload, b"\"i\":"), field(payload, b"\"k\":"), field(payload, b"\"n\":")) {
                        (Some(event), ..) => arrived(event),
                        (None, Some(key), Some(count)) => {
                            let before = counted.entry(key).or_default();
                            (*before..count).for_each(|nth| arrived(nth * KEYS + key));
                            *before = count.max(*before);
                        }
                        _ => {}
                    }
                });
                if let Err(error) = seen {
                    break Err(error);
                }
                if missing == 0 {
                    break Ok(());
                }
                if Instant::now() > deadline {
                    break Err(format!("{missing} of {events} results are missing in {}", self.to));
                }
            };
            gone.store(true, Ordering::Relaxed);
            (sender.join().map_err(|_| "the sender panicked".to_owned()), read)
        });
        sent??;
        read?;
        let mut latencies = on_the_way.split_off(usize::try_from(warm).map_err(text)?);
        latencies.sort_by(f64::total_cmp);
        Ok(Latencies(latencies))
    }

    fn send_all(&self, events: u64, due: &dyn Fn(u64) -> Instant, gone: &AtomicBool) -> Result<(), String> {
        let mut config = client(self.servers);
        config.set("linger.ms", "0");
        let producer: BaseProducer = config.create().map_err(text)?;
        let mut next = 0;
        while next < events && !gone.load(Ordering::Relaxed) {
            let now = Instant::now();
            while next < events && due(next) <= now {
                let payload = format!(
                    r#"{{"i":{next},"k":{},"price":{},"url":"https://www.auction.example/item.html?query=1"}}"#,
                    next % KEYS,
                    next % 997
                );
                send(&producer, self.from, None, payload.as_bytes())?;
                next += 1;
            }
            producer.poll(Duration::ZERO);
            std::thread::sleep(Duration::from_micros(500));
        }
        producer.flush(PATIENCE).map_err(text)
    }
}

/// The number behind a name in a flat JSON object.
fn field(payload: &[u8], name: &[u8]) -> Option<u64> {
    let at = payload.windows(name.len()).position(|window| window == name)? + name.len();
    let digits = payload[at..].iter().take_while(|byte| byte.is_ascii_digit());
    let mut any = false;
    let value = digits.fold(0_u64, |value, digit| {
        any = true;
        value * 10 + u64::from(digit - b'0')
    });
    any.then_some(value)
}
