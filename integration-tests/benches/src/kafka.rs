//! Kafka in and out through the whole program: what a drained topic costs, and how long records are on their way.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use test_support::kafka::Kafka;

use crate::report::Section;
use crate::topics::{self, KEYS, Latencies, Way};
use crate::workloads;
use crate::{Bench, measure::measured};

/// Events per second on the way through.
const PER_SECOND: u64 = 10_000;
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(10);

impl Bench {
    pub fn kafka(&self, data: &Path) -> Result<Vec<Section>, String> {
        let kafka = Kafka::start();
        Ok(vec![self.drained(&kafka, data)?, self.on_the_way(&kafka)?])
    }

    fn drained(&self, kafka: &Kafka, data: &Path) -> Result<Section, String> {
        let mut section = Section::new(
            "Kafka JSON, drained, one partition, one thread",
            "Million bids per CPU-second of the program, which reads a topic of a real broker to its end; the start of the program included. \
             The client alone: librdkafka by batch, with nothing behind it.",
            &["query", "M bids/CPU-s", "spread", "wanted", ""],
        );
        let queries: Vec<_> = workloads::kafka().into_iter().filter(|(query, _)| self.wanted(query.name)).collect();
        if queries.is_empty() {
            return Ok(section);
        }
        let topic = kafka.topic("bids", 1);
        let servers = kafka.servers();
        let bids = topics::fill(&servers, &topic, &data.join("bids.jsonl"))? as f64;
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut client = Command::new(program);
        client.args(["drain", &servers, &topic]);
        let alone: Result<Vec<_>, _> = (0..self.pairs).map(|_| measured(&client)).collect();
        section.rate("the client alone", &alone?, bids, None);
        for (query, wanted) in queries {
            eprintln!("{}", query.name);
            let source = format!(
                "'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}', \
                 'scan.bounded.mode' = 'latest-offset', 'format' = 'json'"
            );
            let script = query.script(&workloads::bids_from(&source), "'connector' = 'blackhole'");
            let runs: Result<Vec<_>, _> = (0..self.pairs).map(|_| self.highwater(&script, &[])).collect();
            section.rate(query.name, &runs?, bids, Some(wanted));
        }
        Ok(section)
    }

    fn on_the_way(&self, kafka: &Kafka) -> Result<Section, String> {
        let mut section = Section::new(
            "Kafka to Kafka, milliseconds on the way",
            "10,000 events/s for ten seconds after three of warming up, each counted from the moment at which it was due. The echo is a bare \
             consumer and producer, in turns with the program. A running count shows its changes when an epoch is complete. Wanted: a p99 of at \
             most twice the echo's and 5 ms more, and for the count the length of its epoch.",
            &["way", "p50", "p99", "p99.9", "p99 wanted", ""],
        );
        if !self.wanted("on the way") {
            return Ok(section);
        }
        let ways = [
            ("filter and projection", None),
            ("running count, epochs of 1 s", Some(1_000)),
            ("running count, epochs of 100 ms", Some(100)),
        ];
        let mut echoes = Vec::new();
        let mut ours: Vec<Vec<Latencies>> = ways.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.pairs.div_ceil(2) {
            eprintln!("echo");
            let way = |from: &str, to: &str, command: &mut Command| latencies(&kafka.servers(), from, to, command);
            let (from, to) = (kafka.topic("from", 1), kafka.topic("to", 1));
            let mut echo = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
            echoes.push(way(&from, &to, echo.args(["echo", &kafka.servers(), &from, &to]))?);
            for ((name, epoch_ms), all) in ways.iter().zip(&mut ours) {
                eprintln!("{name}");
                let (from, to) = (kafka.topic("from", 1), kafka.topic("to", 1));
                let file = self.cache.join("way.sql");
                std::fs::write(&file, script(&kafka.servers(), &from, &to, *epoch_ms))
                    .map_err(|error| error.to_string())?;
                all.push(way(&from, &to, Command::new(&self.highwater).arg("run").arg(&file).arg("--quiet"))?);
            }
        }
        let median = |all: &[Latencies], percent: f64| {
            let mut values: Vec<f64> = all.iter().map(|one| one.percentile(percent)).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let echo_p99 = median(&echoes, 99.0);
        section.latencies("echo", [50.0, 99.0, 99.9].map(|percent| median(&echoes, percent)), None);
        for ((name, epoch_ms), all) in ways.iter().zip(&ours) {
            let wanted = 2.0 * echo_p99 + 5.0 + f64::from(epoch_ms.unwrap_or(0));
            section.latencies(name, [50.0, 99.0, 99.9].map(|percent| median(all, percent)), Some(wanted));
        }
        Ok(section)
    }
}

/// A program between two topics.
struct Between(Child);

impl Drop for Between {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn latencies(servers: &str, from: &str, to: &str, command: &mut Command) -> Result<Latencies, String> {
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut between = Between(started.map_err(|error| format!("cannot start {command:?}: {error}"))?);
    let way = Way { servers, from, to, per_second: PER_SECOND, warm_up: WARM_UP, measured: MEASURED };
    let measured = way.latencies();
    match between.0.try_wait() {
        Ok(None) => measured,
        ended => Err(format!("{command:?} has ended ({ended:?}); {:?}", measured.err())),
    }
}

fn script(servers: &str, from: &str, to: &str, epoch_ms: Option<u32>) -> String {
    let table = |name: &str, columns: &str, topic: &str| {
        format!(
            "CREATE TABLE {name} ({columns}) WITH ('connector' = 'kafka', 'topic' = '{topic}', \
             'properties.bootstrap.servers' = '{servers}', 'format' = 'json');\n"
        )
    };
    let source = table("events", "i BIGINT, k BIGINT, price BIGINT, url STRING", from);
    match epoch_ms {
        None => {
            source
                + &table("out", "i BIGINT, euro DOUBLE, url STRING", to)
                + "INSERT INTO out SELECT i, price * 0.908e0, url FROM events WHERE price >= 0;"
        }
        Some(epoch_ms) => {
            format!("SET 'epoch.interval' = '{epoch_ms}ms';\n{source}")
                + &table("out", "k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED", to)
                + "INSERT INTO out SELECT k, COUNT(*) FROM events GROUP BY k;"
        }
    }
}

const _: () = assert!(KEYS < PER_SECOND, "every key comes up within a second");
