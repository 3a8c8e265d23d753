//! Measures the program end to end and writes docs/bench.md, docs/bench-service.md and docs/bench-durability.md: `make bench`.
//!
//! The unit is CPU-seconds (user and system) of a whole process tree, as `wait4` reports them. Two sides of a comparison
//! run as child processes in turns, A B A B; a ratio is taken within each pair, so that a busy machine slows both. Medians
//! and spreads are reported, never a best run. A comparison counts only when both sides give the same rows, which is
//! checked first, on a smaller input.
#![allow(clippy::print_stdout)]

mod durability;
mod kafka;
mod measure;
#[cfg(feature = "datafusion")]
mod peer;
mod report;
mod service;
mod topics;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use measure::{Measured, measured};
use report::{Report, Section};
use workloads::Thresholds;

/// What is measured, and with which programs.
pub struct Bench {
    highwater: PathBuf,
    generator: PathBuf,
    /// Generated input stays here from one run to the next.
    cache: PathBuf,
    events: u64,
    pairs: usize,
    /// Only workloads whose name contains this.
    only: String,
    part: Part,
}

/// What there is a report of.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// The engine over files: `bench.md`.
    Engine,
    /// Kafka and the service: `bench-service.md`.
    Service,
    /// Checkpoints, recoveries, state on disk: `bench-durability.md`.
    Durability,
    All,
}

const USAGE: &str = "usage: benches --highwater PATH --gen PATH --cache DIR --report DIR [--events N] [--pairs N] [--part engine|service|durability] [--only TEXT]";

/// Events per second of event time: a window of ten seconds holds a hundred thousand.
const RATE: u64 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "measure") {
        return measure::main(&arguments[1..]);
    }
    #[cfg(feature = "datafusion")]
    if arguments.first().is_some_and(|first| first == "datafusion") {
        return peer::main(&arguments[1..]);
    }
    match arguments.split_first() {
        Some((first, rest)) if first == "drain" => return topics::drain(rest),
        Some((first, rest)) if first == "echo" => return topics::echo(rest),
        _ => {}
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), String> {
    let value = |name: &str| {
        let index = arguments.iter().position(|argument| argument == name)?;
        arguments.get(index + 1).cloned()
    };
    let path = |name: &str| value(name).map(PathBuf::from).ok_or_else(|| format!("{name} is missing\n{USAGE}"));
    let number = |name: &str, default: u64| match value(name) {
        Some(text) => text.parse().map_err(|_| format!("{name} is not a number: {text}")),
        None => Ok(default),
    };
    let bench = Bench {
        highwater: path("--highwater")?,
        generator: path("--gen")?,
        cache: path("--cache")?,
        events: number("--events", 10_000_000)?,
        pairs: usize::try_from(number("--pairs", 5)?).map_err(|error| error.to_string())?.max(1),
        only: value("--only").unwrap_or_default(),
        part: match value("--part").as_deref() {
            None => Part::All,
            Some("engine") => Part::Engine,
            Some("service") => Part::Service,
            Some("durability") => Part::Durability,
            Some(other) => return Err(format!("--part is {other:?}\n{USAGE}")),
        },
    };
    let folder = path("--report")?;
    let is_wanted = |part| bench.part == part || bench.part == Part::All;
    if is_wanted(Part::Durability) {
        let mut report = Report::new(bench.events, bench.pairs, RATE);
        report.sections = durability::sections(bench.pairs, |name| bench.wanted(name))?;
        report.write(
            &folder,
            "bench-durability",
            "Measurements of durability",
            include_str!("../notes-durability.md"),
        )?;
    }
    if bench.part == Part::Durability {
        println!("{}", folder.display());
        return Ok(());
    }
    let data = bench.data(bench.events)?;
    if is_wanted(Part::Engine) {
        let report = bench.engine(&data)?;
        report.write(&folder, "bench", "Measurements", include_str!("../notes.md"))?;
    }
    if is_wanted(Part::Service) {
        let report = bench.service(&data)?;
        report.write(
            &folder,
            "bench-service",
            "Measurements of Kafka and the service",
            include_str!("../notes-service.md"),
        )?;
    }
    println!("{}", folder.display());
    Ok(())
}

impl Bench {
    fn service(&self, data: &Path) -> Result<Report, String> {
        let mut report = Report::new(self.events, self.pairs, RATE);
        report.sections.extend(self.kafka(data)?);
        if self.wanted("the service") {
            report.sections.extend(service::sections(self.pairs)?);
        }
        Ok(report)
    }

    fn engine(&self, data: &Path) -> Result<Report, String> {
        let mut report = Report::new(self.events, self.pairs, RATE);
        report.sections.push(self.against_datafusion(data)?);
        report.sections.push(self.json(data)?);
        report.sections.push(self.streamed(data)?);
        report.sections.push(self.scaling(data)?);
        report.sections.push(self.memory(data)?);
        report.sections.push(self.start_up()?);
        Ok(report)
    }

    /// The folder with the input of so many events.
    fn data(&self, events: u64) -> Result<PathBuf, String> {
        let folder = self.cache.join(format!("nexmark-{RATE}-{events}"));
        eprintln!("input: {}", folder.display());
        let mut command = Command::new(&self.generator);
        command.arg(&folder).args([events.to_string(), RATE.to_string()]);
        measured(&command)?;
        Ok(folder)
    }

    /// Of 50 events, 46 are bids.
    fn bids(&self) -> f64 {
        self.events as f64 * 46.0 / 50.0
    }

    fn wanted(&self, name: &str) -> bool {
        name.contains(&self.only)
    }

    /// A run of the program over a script of its own.
    fn highwater(&self, script: &str, arguments: &[&str]) -> Result<Measured, String> {
        let file = self.cache.join("bench.sql");
        std::fs::write(&file, script).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        let mut command = Command::new(&self.highwater);
        command.arg("run").arg(&file).arg("--quiet").arg("--allow-root").arg(&self.cache).args(arguments);
        measured(&command)
    }

    #[cfg(feature = "datafusion")]
    fn datafusion(&self, data: &Path, sql: &str, rows: Option<&Path>) -> Result<Measured, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg("datafusion").arg(data.join("bids.parquet")).arg(sql).args(rows);
        measured(&command)
    }

    #[cfg(feature = "datafusion")]
    fn against_datafusion(&self, data: &Path) -> Result<Section, String> {
        let mut section = Section::new(
            "Bounded Parquet, one thread, against the DataFusion crate",
            "CPU-seconds; the ratio is DataFusion's over ours, above 1 is better.",
            &["query", "ours", "DataFusion", "ratio (min..max)", "wanted", ""],
        );
        let small = self.data(200_000)?;
        for query in workloads::bounded().iter().filter(|query| self.wanted(query.name)) {
            eprintln!("{}", query.name);
            self.check_equal(query, &small)?;
            let script = query.script(&workloads::bids(data, "bids.parquet", "parquet"), "'connector' = 'blackhole'");
            let mut pairs = Vec::new();
            for _ in 0..self.pairs {
                pairs.push((self.highwater(&script, &[])?, self.datafusion(data, query.datafusion, None)?));
            }
            section.compare(query.name, &pairs, |ours, peer| peer.cpu_s / ours.cpu_s, query.at_least);
        }
        Ok(section)
    }

    /// Without the feature there is no peer; the figures alone.
    #[cfg(not(feature = "datafusion"))]
    fn against_datafusion(&self, data: &Path) -> Result<Section, String> {
        let columns = ["query", "M bids/CPU-s", "spread", "wanted", ""];
        let mut section =
            Section::new("Bounded Parquet, one thread", "Built without DataFusion: no comparison.", &columns);
        for query in workloads::bounded().iter().filter(|query| self.wanted(query.name)) {
            let script = query.script(&workloads::bids(data, "bids.parquet", "parquet"), "'connector' = 'blackhole'");
            let runs: Result<Vec<_>, _> = (0..self.pairs).map(|_| self.highwater(&script, &[])).collect();
            section.rate(query.name, &runs?, self.bids(), None);
        }
        Ok(section)
    }

    #[cfg(feature = "datafusion")]
    fn check_equal(&self, query: &workloads::Query, data: &Path) -> Result<(), String> {
        let folder = self.cache.join("equal");
        // What an earlier run left.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let (ours, peer) = (folder.join("ours"), folder.join("peer.jsonl"));
        let sink = format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'json'", ours.display());
        self.highwater(&query.script(&workloads::bids(data, "bids.parquet", "parquet"), &sink), &[])?;
        self.datafusion(data, query.datafusion, Some(&peer))?;
        let read = |path: &Path| integration_tests::compare::rows_at(path).map_err(|error| error.to_string());
        let (ours, peer) = (read(&ours)?, read(&peer)?);
        if ours.is_empty() {
            return Err(format!("{}: no rows to compare", query.name));
        }
        integration_tests::compare::same_rows(&ours, &peer)
            .map_err(|report| format!("{}: ours (<) and DataFusion's (>) differ: {report}", query.name))
    }

    fn json(&self, data: &Path) -> Result<Section, String> {
        let mut section = Section::new(
            "Bounded JSON lines, one thread",
            "Million bids per CPU-second, of a tenth of the input.",
            &["query", "M bids/CPU-s", "spread", "wanted", ""],
        );
        for query in workloads::json().iter().filter(|query| self.wanted(query.name)) {
            eprintln!("{}", query.name);
            let script = query.script(&workloads::bids(data, "bids.jsonl", "json"), "'connector' = 'blackhole'");
            let runs: Result<Vec<_>, _> = (0..self.pairs).map(|_| self.highwater(&script, &[])).collect();
            section.rate(query.name, &runs?, self.bids() / 10.0, Some(Thresholds::JSON_EVENTS_PER_CPU_S));
        }
        Ok(section)
    }

    fn streamed(&self, data: &Path) -> Result<Section, String> {
        let mut section = Section::new(
            "Streamed against bounded",
            "The same Parquet, replayed at full speed from its sorted cache; CPU-seconds; the ratio is bounded over streamed.",
            &["query", "bounded", "streamed", "ratio (min..max)", "wanted", ""],
        );
        let replay = ["--set", "tables.bids.connector=replay"];
        for query in workloads::bounded().iter().filter(|query| query.streams && self.wanted(query.name)) {
            eprintln!("streamed {}", query.name);
            let script = query.script(&workloads::bids(data, "bids.parquet", "parquet"), "'connector' = 'blackhole'");
            // Sorts the rows into the cache, which is no part of the figure.
            self.highwater(&script, &replay)?;
            let mut pairs = Vec::new();
            for _ in 0..self.pairs {
                pairs.push((self.highwater(&script, &[])?, self.highwater(&script, &replay)?));
            }
            section.compare(
                query.name,
                &pairs,
                |bounded, streamed| bounded.cpu_s / streamed.cpu_s,
                Some(Thresholds::STREAMED),
            );
        }
        Ok(section)
    }

    fn scaling(&self, data: &Path) -> Result<Section, String> {
        let mut section = Section::new(
            "More threads, more processes",
            "CPU: the CPU-seconds of two over those of one, below is better. Wall: the time of one over that of two; it means \
             something on an idle machine with two cores only.",
            &["query", "one", "two", "ratio (min..max)", "wanted", ""],
        );
        let two_ways: [(&str, [&str; 2], f64); 2] = [
            ("2 threads", ["--parallelism", "2"], Thresholds::THREADS),
            ("2 processes", ["--processes", "2"], Thresholds::PROCESSES),
        ];
        for query in workloads::bounded().iter().filter(|query| query.keyed && self.wanted(query.name)) {
            let script = query.script(&workloads::bids(data, "bids.parquet", "parquet"), "'connector' = 'blackhole'");
            for (name, arguments, at_most) in &two_ways {
                eprintln!("{name} {}", query.name);
                let mut pairs = Vec::new();
                for _ in 0..self.pairs {
                    pairs.push((self.highwater(&script, &[])?, self.highwater(&script, arguments)?));
                }
                let label = format!("{}, {name}: CPU", query.name);
                section.compare_at_most(&label, &pairs, |one, two| two.cpu_s / one.cpu_s, *at_most);
                if *name == "2 threads" {
                    let label = format!("{}, {name}: wall", query.name);
                    section.compare_wall(&label, &pairs, |one, two| one.wall_s / two.wall_s, Thresholds::WALL);
                }
            }
        }
        Ok(section)
    }

    fn memory(&self, data: &Path) -> Result<Section, String> {
        let mut section = Section::new(
            "Memory of a windowed aggregate",
            "Largest resident set in MB, replayed, over ten times the input; the open windows are the same, so it should not grow with it. \
             What readers may be ahead is set to 16 MiB, because by default (256 MiB) it would hide the rest in a run so short.",
            &["query", "a tenth of the input", "all of it", "ratio (min..max)", "wanted", ""],
        );
        let tenth = self.data(self.events / 10)?;
        for query in workloads::bounded().iter().filter(|query| query.streams && self.wanted(query.name)) {
            eprintln!("memory {}", query.name);
            let script = |data: &Path| {
                query.script(&workloads::bids(data, "bids.parquet", "parquet"), "'connector' = 'blackhole'")
            };
            let set = ["tables.bids.connector=replay", "memory.in-flight=16777216", "epoch.max-bytes=4194304"];
            let replay = ["--set", set[0], "--set", set[1], "--set", set[2]];
            for data in [&tenth, data] {
                self.highwater(&script(data), &replay)?;
            }
            let mut pairs = Vec::new();
            for _ in 0..self.pairs {
                pairs.push((self.highwater(&script(&tenth), &replay)?, self.highwater(&script(data), &replay)?));
            }
            section.compare_memory(
                query.name,
                &pairs,
                |small, large| large.resident_mb / small.resident_mb,
                Thresholds::MEMORY,
            );
        }
        Ok(section)
    }

    fn start_up(&self) -> Result<Section, String> {
        let mut section = Section::new(
            "A query over ten rows",
            "From start to end of the program.",
            &["figure", "median", "spread", "wanted", ""],
        );
        if !self.wanted("ten rows") {
            return Ok(section);
        }
        let folder = self.cache.join("ten-rows");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let rows: String = (0..10).map(|row| format!("{{\"k\":{row}}}\n")).collect();
        std::fs::write(folder.join("rows.jsonl"), rows).map_err(|error| error.to_string())?;
        let script = format!(
            "CREATE TABLE t (k BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}/rows.jsonl', 'format' = 'json');\nSELECT k + 1 AS k FROM t;",
            folder.display()
        );
        let runs: Result<Vec<_>, _> =
            (0..self.pairs.max(5)).map(|_| self.highwater(&script, &["-o", "json"])).collect();
        let runs = runs?;
        section.figure("wall, ms", runs.iter().map(|run| run.wall_s * 1_000.0).collect(), Some(Thresholds::START_MS));
        section.figure(
            "largest resident set, MB",
            runs.iter().map(|run| run.resident_mb).collect(),
            Some(Thresholds::START_MB),
        );
        Ok(section)
    }
}
