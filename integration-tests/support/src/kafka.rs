//! A real Kafka broker (one KRaft node), and what tests do with topics.
//!
//! The jars come from Maven once, by `integration-tests/setup.sh`. [`shared`] is one broker for all tests of a process; tests that break
//! their broker [`start`](Kafka::start) one of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::process::{Server, free_port, wait_until};

/// As `setup.sh` fetches it.
const VERSION: &str = "4.3.1";
/// For everything that a broker on this machine should answer at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// For its start, on a machine that is busy with something else.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// Logins of the listener with SASL: by PLAIN, and by SCRAM-SHA-256.
pub const PLAIN_LOGIN: (&str, &str) = ("alice", "alice-canary-5c1d");
pub const SCRAM_LOGIN: (&str, &str) = ("bob", "bob-canary-77aa");

/// Bytes of a key or a value, if there are some.
pub type Cell<'a> = Option<&'a [u8]>;
/// Key and value of a record.
pub type KeyValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A broker.
pub struct Kafka {
    folder: tempfile::TempDir,
    plain: u16,
    sasl: u16,
    tls: u16,
    server: Mutex<Option<Server>>,
}

/// A record as it is read back, or to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub headers: Vec<(String, Option<String>)>,
}

impl Record {
    pub fn value(partition: i32, value: impl Into<String>) -> Record {
        Record { partition, value: Some(value.into()), ..Record::default() }
    }
}

/// The broker of this test process; it ends with it.
pub fn shared() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(Kafka::start)
}

fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    let base = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    base.join("highwater").join(format!("kafka-{VERSION}"))
}

/// `java` with the classes of the broker.
fn java() -> Command {
    let cache = cache();
    assert!(cache.join("complete").exists(), "Kafka is missing; run: integration-tests/setup.sh test");
    let mut jars: Vec<PathBuf> = fs::read_dir(cache.join("jars"))
        .expect("the jars are there")
        .map(|entry| entry.expect("a folder can be read").path())
        .collect();
    jars.sort();
    let jars: Vec<String> = jars.iter().map(|jar| jar.display().to_string()).collect();
    let mut java = Command::new("java");
    java.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    let archive = cache.join("classes.jsa");
    if archive.exists() {
        // One that was made by another Java is passed over.
        java.arg(format!("-XX:SharedArchiveFile={}", archive.display()))
            .arg("-Xlog:cds=off")
            .arg("-Xlog:cds+dynamic=off");
    }
    java.args(["-Dorg.slf4j.simpleLogger.logFile=System.out", "-cp", &jars.join(":")]);
    java
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output();
    let output = output.expect("openssl is missing; run: integration-tests/setup.sh test");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Kafka {
    /// A broker of one's own.
    pub fn start() -> Kafka {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let kafka = Kafka { plain: free_port(), sasl: free_port(), tls: free_port(), server: Mutex::default(), folder };
        kafka.configure(free_port());
        kafka.format();
        kafka.restart();
        kafka
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, controller: u16) {
        let folder = self.folder.path();
        // A CA, a certificate of 127.0.0.1 by it, and another CA that knows nobody.
        for ca in ["ca", "other-ca"] {
            openssl(
                folder,
                &format!("req -x509 -newkey rsa:2048 -nodes -days 30 -keyout {ca}.key -out {ca}.pem -subj /CN={ca}"),
            );
        }
        fs::write(folder.join("san"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").expect("written");
        openssl(folder, "req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost");
        openssl(
            folder,
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile san -out server.pem",
        );
        let both = ["server.key", "server.pem"].map(|name| fs::read_to_string(folder.join(name)).expect("made"));
        fs::write(folder.join("keystore.pem"), both.concat()).expect("written");
        let (plain, sasl, tls) = (self.plain, self.sasl, self.tls);
        let (user, password) = PLAIN_LOGIN;
        let (data, keystore) =
            (self.path("data").display().to_string(), self.path("keystore.pem").display().to_string());
        let listeners = format!("PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls}");
        let login = "org.apache.kafka.common.security";
        // The short session lets a broker come back soon after a crash: until the old session ends, the controller refuses the new one.
        let properties = format!(
            "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners={listeners},CONTROLLER://127.0.0.1:{controller}
advertised.listeners={listeners}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl.plain.sasl.jaas.config={login}.plain.PlainLoginModule required username=\"x\" password=\"x\" user_{user}=\"{password}\";
listener.name.sasl.scram-sha-256.sasl.jaas.config={login}.scram.ScramLoginModule required;
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={keystore}
log.dirs={data}
num.network.threads=2
num.io.threads=4
background.threads=2
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
log.cleaner.dedupe.buffer.size=16777216
log.cleaner.backoff.ms=200
log.retention.ms=-1
file.delete.delay.ms=100
auto.create.topics.enable=false
num.partitions=1
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
"
        );
        fs::write(self.path("server.properties"), properties).expect("written");
    }

    fn format(&self) {
        let (user, password) = SCRAM_LOGIN;
        let mut command = java();
        command.args(["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c"]);
        command.arg(self.path("server.properties"));
        command.arg("--add-scram").arg(format!("SCRAM-SHA-256=[name={user},password={password}]"));
        let output = command.output().expect("java is missing; run: integration-tests/setup.sh test");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the storage of Kafka cannot be formatted: {said}");
    }

    /// Starts it again on the same data and ports, and waits until it answers.
    pub fn restart(&self) {
        let log = fs::File::options().create(true).append(true).open(self.path("broker.log")).expect("a log");
        let mut command = java();
        command.arg("kafka.Kafka").arg(self.path("server.properties"));
        command.stdout(log.try_clone().expect("a second handle")).stderr(Stdio::from(log));
        let server = Server::start(command, "KILL", self.folder.path());
        *self.server() = Some(server);
        let client: BaseConsumer = self.client().create().expect("a client");
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let answer = client.fetch_metadata(None, Duration::from_millis(500));
            if answer
                .is_ok_and(|metadata| metadata.brokers().iter().any(|broker| broker.port() == i32::from(self.plain)))
            {
                return;
            }
            let ended = self.server().as_mut().and_then(Server::ended);
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.path("broker.log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("Kafka does not start ({ended:?}):\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"));
            }
        }
    }

    fn server(&self) -> std::sync::MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Crashes it.
    pub fn kill(&self) {
        if let Some(server) = self.server().take() {
            server.end(libc::SIGKILL, PATIENCE);
        }
    }

    /// Stops it in order.
    pub fn stop(&self) {
        if let Some(server) = self.server().take() {
            server.end(libc::SIGTERM, PATIENCE);
        }
    }

    /// The lines of its log in which this stands.
    pub fn said(&self, what: &str) -> Vec<String> {
        let log = fs::read_to_string(self.path("broker.log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(what)).map(str::to_string).collect()
    }

    /// `host:port` without a login.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }

    /// `host:port` with [`PLAIN_LOGIN`] and [`SCRAM_LOGIN`].
    pub fn sasl_servers(&self) -> String {
        format!("127.0.0.1:{}", self.sasl)
    }

    /// `host:port` with TLS.
    pub fn tls_servers(&self) -> String {
        format!("127.0.0.1:{}", self.tls)
    }

    /// The CA that signed its certificate, as PEM.
    pub fn ca(&self) -> String {
        fs::read_to_string(self.path("ca.pem")).expect("made at the start")
    }

    /// A CA that did not.
    pub fn other_ca(&self) -> String {
        fs::read_to_string(self.path("other-ca.pem")).expect("made at the start")
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.servers()).set("reconnect.backoff.max.ms", "200");
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client().create().expect("a client")
    }

    /// A new topic with a name of its own that begins with `name`.
    pub fn topic(&self, name: &str, partitions: i32) -> String {
        self.topic_with(name, partitions, &[])
    }

    /// The same with options, such as `cleanup.policy`.
    pub fn topic_with(&self, name: &str, partitions: i32, options: &[(&str, &str)]) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let topic = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.create(&topic, partitions, options);
        topic
    }

    /// A topic of this name, when one that was deleted is gone.
    pub fn create(&self, topic: &str, partitions: i32, options: &[(&str, &str)]) {
        let admin = self.admin();
        wait_until(&format!("topic {topic} is made"), PATIENCE, || {
            let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
            for (name, value) in options {
                new = new.set(name, value);
            }
            let made = block_on(admin.create_topics(&[new], &AdminOptions::new()));
            made.is_ok_and(|all| all.iter().all(Result::is_ok))
        });
        self.await_partitions(topic, partitions);
    }

    pub fn add_partitions(&self, topic: &str, partitions: i32) {
        let new = NewPartitions::new(topic, partitions as usize);
        let made = block_on(self.admin().create_partitions(&[new], &AdminOptions::new())).expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        self.await_partitions(topic, partitions);
    }

    fn await_partitions(&self, topic: &str, partitions: i32) {
        let client: BaseConsumer = self.client().create().expect("a client");
        wait_until(&format!("topic {topic} is known"), PATIENCE, || {
            let found = client.fetch_metadata(Some(topic), Duration::from_secs(5));
            found.is_ok_and(|found| {
                let all = found.topics()[0].partitions();
                all.len() == partitions as usize && all.iter().all(|partition| partition.leader() >= 0)
            })
        });
    }

    pub fn delete(&self, topic: &str) {
        let gone = block_on(self.admin().delete_topics(&[topic], &AdminOptions::new())).expect("an answer");
        assert!(gone.iter().all(Result::is_ok), "{gone:?}");
    }

    /// Removes the records of a partition before an offset, as retention would.
    pub fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("an offset");
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).expect("records can be deleted");
    }

    /// Writes records, and waits until all have arrived.
    pub fn produce(&self, topic: &str, records: &[Record]) {
        let mut config = self.client();
        config.set("linger.ms", "1").set("message.max.bytes", "20000000");
        let producer: BaseProducer = config.create().expect("a client");
        send(&producer, topic, records);
        flush(&producer);
    }

    /// Writes a key and a value of any bytes for each record, and waits until all have arrived.
    pub fn produce_bytes(&self, topic: &str, partition: i32, records: &[(Cell<'_>, Cell<'_>)]) {
        let mut config = self.client();
        let producer: BaseProducer = config.set("linger.ms", "1").create().expect("a client");
        for (key, value) in records {
            let mut next = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
            if let Some(key) = key {
                next = next.key(key);
            }
            if let Some(value) = value {
                next = next.payload(value);
            }
            assert!(producer.send(next).is_ok(), "a few records have room");
        }
        flush(&producer);
    }

    /// Writes records in a transaction that is committed or aborted.
    pub fn produce_in_transaction(&self, topic: &str, records: &[Record], commit: bool) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut config = self.client();
        let id = format!("{topic}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let producer: BaseProducer = config.set("transactional.id", id).create().expect("a client");
        producer.init_transactions(PATIENCE).expect("transactions");
        producer.begin_transaction().expect("a transaction");
        send(&producer, topic, records);
        flush(&producer);
        if commit {
            producer.commit_transaction(PATIENCE).expect("a commit");
        } else {
            producer.abort_transaction(PATIENCE).expect("an abort");
        }
    }

    /// First offset of a partition, and the one behind its last record.
    pub fn bounds(&self, topic: &str, partition: i32) -> (i64, i64) {
        let client: BaseConsumer = self.client().create().expect("a client");
        client.fetch_watermarks(topic, partition, PATIENCE).expect("bounds")
    }

    /// All committed records of a topic, by partition and offset.
    pub fn records(&self, topic: &str) -> Vec<Record> {
        let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let read = |message: &BorrowedMessage<'_>| {
            let headers = message
                .headers()
                .map(|headers| headers.iter().map(|header| (header.key.to_string(), text(header.value))).collect());
            Record {
                partition: message.partition(),
                offset: message.offset(),
                key: text(message.key()),
                value: text(message.payload()),
                timestamp: message.timestamp().to_millis(),
                headers: headers.unwrap_or_default(),
            }
        };
        let mut all = self.read(topic, read);
        all.sort_by_key(|record| (record.partition, record.offset));
        all
    }

    /// Keys and values of all committed records as they are, those of a partition in order.
    pub fn messages(&self, topic: &str) -> Vec<KeyValue> {
        self.read(topic, |message| {
            let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            (bytes(message.key()), bytes(message.payload()))
        })
    }

    fn read<T>(&self, topic: &str, each: impl Fn(&BorrowedMessage<'_>) -> T) -> Vec<T> {
        let mut config = self.client();
        config.set("group.id", "test").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "earliest").set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().expect("a client");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        let mut list = TopicPartitionList::new();
        let partitions = metadata.topics()[0].partitions().len();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition as i32, Offset::Beginning).expect("an offset");
        }
        consumer.assign(&list).expect("an assignment");
        let (mut all, mut ended) = (Vec::new(), 0);
        let deadline = Instant::now() + PATIENCE;
        while ended < partitions {
            assert!(Instant::now() < deadline, "topic {topic} cannot be read to its end");
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => panic!("topic {topic}: {error}"),
                Some(Ok(message)) => all.push(each(&message)),
            }
        }
        all
    }
}

fn send(producer: &BaseProducer, topic: &str, records: &[Record]) {
    for record in records {
        let mut next = BaseRecord::<str, str>::to(topic).partition(record.partition);
        if let Some(key) = &record.key {
            next = next.key(key);
        }
        if let Some(value) = &record.value {
            next = next.payload(value);
        }
        if let Some(timestamp) = record.timestamp {
            next = next.timestamp(timestamp);
        }
        if !record.headers.is_empty() {
            let headers = record
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: value.as_deref() }));
            next = next.headers(headers);
        }
        while let Err((error, again)) = producer.send(next) {
            let full = rdkafka::error::RDKafkaErrorCode::QueueFull;
            assert!(error.rdkafka_error_code() == Some(full), "{error}");
            producer.poll(Duration::from_millis(1));
            next = again;
        }
    }
}

fn flush(producer: &BaseProducer) {
    producer.flush(PATIENCE).expect("all records arrive");
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}
