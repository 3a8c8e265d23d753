//! Every folder of `cases/` in every mode, against one golden result.
//!
//! A case is `query.sql`, its input files, and `expected.jsonl`: the rows that its table `result` ends with. Modes differ
//! in how the rows come, how they are cut and who works on them; none of that may show. Lines `--! name: value` at the
//! head of a query say what a mode cannot know:
//!
//! - `bounded-only: REASON`: the query has no meaning in a stream.
//! - `ordered: REASON`: the order of the rows counts, too.
//! - `key: COLUMNS`: the result is an upsert changelog with this key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use integration_tests::compare::{self, Row};
use integration_tests::program::Finished;
use parquet::file::reader::{FileReader, SerializedFileReader};
use regex::Regex;
use rstest::rstest;
use serde_json::Value;
use test_support::kafka::{Record, shared};

use super::support;

/// How a case is run.
#[derive(Clone, Copy, Debug)]
enum Mode {
    Bounded {
        threads: u32,
        processes: u32,
    },
    Streamed {
        batch_rows: u32,
        threads: u32,
        processes: u32,
    },
    /// Rows arrive out of the order of event time, as far as the watermark allows.
    Shuffled {
        seed: u32,
        batch_rows: u32,
        threads: u32,
    },
}

use Mode::{Bounded, Shuffled, Streamed};

/// Each streamed case crosses at least this many epochs (when it has as many rows).
pub const EPOCHS: usize = 5;

#[rstest]
fn case_gives_its_golden_rows(
    #[files("cases/*/query.sql")] query: PathBuf,
    #[values(
        Bounded { threads: 1, processes: 1 },
        Bounded { threads: 3, processes: 1 },
        Bounded { threads: 1, processes: 2 },
        Streamed { batch_rows: 1, threads: 1, processes: 1 },
        Streamed { batch_rows: 7, threads: 1, processes: 1 },
        Streamed { batch_rows: 4096, threads: 1, processes: 1 },
        Streamed { batch_rows: 7, threads: 3, processes: 1 },
        Streamed { batch_rows: 7, threads: 1, processes: 2 },
        Shuffled { seed: 1, batch_rows: 1, threads: 1 },
        Shuffled { seed: 2, batch_rows: 7, threads: 1 },
        Shuffled { seed: 3, batch_rows: 7, threads: 3 }
    )]
    mode: Mode,
) {
    let case = Case::read(query.parent().unwrap());
    if case.is_bounded_only() && !matches!(mode, Bounded { .. }) {
        return;
    }
    let rows = case.run(mode);
    let same = if case.directives.contains_key("ordered") { compare::same_sequence } else { compare::same_rows };
    if let Err(report) = same(&case.expected, &rows) {
        panic!("{} in mode {mode:?}: expected (<) and actual (>) rows differ: {report}", case.name);
    }
}

/// The same rows as records of topics, dealt to partitions and shuffled in each as far as the watermark allows. The read is bounded, so that
/// no row can be late; unbounded, and drained, it is in `rest/cases.rs`.
#[rstest]
fn case_gives_its_golden_rows_from_topics(#[files("cases/*/query.sql")] query: PathBuf) {
    let case = Case::read(query.parent().unwrap());
    if !case.fits_topics() {
        return;
    }
    let rows = case.run_from_topics();
    let same = if case.directives.contains_key("ordered") { compare::same_sequence } else { compare::same_rows };
    if let Err(report) = same(&case.expected, &rows) {
        panic!("{} from topics: expected (<) and actual (>) rows differ: {report}", case.name);
    }
}

pub struct Case {
    pub name: String,
    pub folder: PathBuf,
    pub directives: BTreeMap<String, String>,
    pub sources: Vec<Source>,
    pub expected: Vec<Row>,
}

/// A table that the query reads from files.
#[derive(Debug, PartialEq)]
pub struct Source {
    pub table: String,
    pub path: String,
    /// What its watermark allows, such as `5s`; 0s where it declares none or allows none.
    disorder: String,
    /// The column of the event time, or that of which it is computed.
    time: Option<String>,
    is_json: bool,
}

impl Case {
    pub fn read(folder: &Path) -> Case {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let sql = std::fs::read_to_string(folder.join("query.sql")).unwrap();
        let directives = directives(&sql);
        for directive in directives.keys() {
            assert!(
                ["bounded-only", "ordered", "key"].contains(&directive.as_str()),
                "{name}: unknown directive {directive}"
            );
        }
        let expected = compare::rows_at(&folder.join("expected.jsonl")).unwrap();
        Case { name, folder: folder.into(), directives, sources: sources(&sql), expected }
    }

    fn run(&self, mode: Mode) -> Vec<Row> {
        let finished = support::highwater(&self.folder, self.arguments(mode).iter().map(String::as_str));
        assert_eq!(finished.code, Some(0), "{} in mode {mode:?}: {}", self.name, finished.report());
        if !matches!(mode, Bounded { .. }) {
            self.assert_streamed(&finished);
        }
        self.fold(
            compare::rows(&finished.stdout, "stdout").unwrap_or_else(|error| panic!("{error}\n{}", finished.report())),
        )
    }

    /// What a changelog ends with.
    pub fn fold(&self, rows: Vec<Row>) -> Vec<Row> {
        let key: Vec<String> = self
            .directives
            .get("key")
            .map(|names| names.split(',').map(|name| name.trim().to_owned()).collect())
            .unwrap_or_default();
        compare::fold(rows, &key).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// The query has no meaning in a stream.
    pub fn is_bounded_only(&self) -> bool {
        self.directives.contains_key("bounded-only")
    }

    /// A streamed run that crosses few epochs, or drops rows as late, shows nothing.
    fn assert_streamed(&self, finished: &Finished) {
        let summary: Value =
            finished.stderr.lines().next_back().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        let figure = |name: &str| {
            summary.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {name}: {}", finished.report()))
        };
        let wanted = self.rows().min(EPOCHS) as u64;
        assert!(figure("epochs") >= wanted, "{}: fewer than {wanted} epochs: {}", self.name, finished.report());
        assert_eq!(figure("late"), 0, "{}: {}", self.name, finished.report());
    }

    /// Of the smallest source: each of them must cross the epochs.
    pub fn rows(&self) -> usize {
        self.sources.iter().map(|source| count_rows(&self.folder.join(&source.path))).min().unwrap_or(0)
    }

    /// All that it reads are files of JSON, and their order means nothing.
    pub fn fits_topics(&self) -> bool {
        let json =
            |source: &Source| !lines_of(&self.folder.join(&source.path)).is_empty() || self.name == "empty_input";
        self.sources.iter().all(|source| source.is_json && json(source)) && self.name != "first_last_value_without_time"
    }

    /// How many rows there are to an epoch, so that the smallest source crosses enough of them.
    pub fn epoch_rows(&self) -> usize {
        (self.rows() / (EPOCHS + 1)).max(1)
    }

    fn run_from_topics(&self) -> Vec<Row> {
        let servers = shared().servers();
        let mut arguments: Vec<String> =
            ["run", "query.sql", "-o", "json", "--summary", "json", "--no-progress", "--parallelism", "2"]
                .map(String::from)
                .into();
        let mut set = |name: String, value: &str| arguments.extend(["--set".into(), format!("{name}={value}")]);
        if !self.is_bounded_only() {
            set("source.batch-rows".into(), "7");
            set("epoch.every-rows".into(), &self.epoch_rows().to_string());
            set("watermark.interval".into(), "0s");
        }
        for (at, source) in self.sources.iter().enumerate() {
            let (topic, _) = source.topic(self, 1 + at as u64);
            for (option, value) in [
                ("connector", "kafka"),
                ("topic", topic.as_str()),
                ("properties.bootstrap.servers", servers.as_str()),
                ("scan.bounded.mode", "latest-offset"),
            ] {
                set(format!("tables.{}.{option}", source.table), value);
            }
        }
        let finished = support::highwater(&self.folder, arguments.iter().map(String::as_str));
        assert_eq!(finished.code, Some(0), "{} from topics: {}", self.name, finished.report());
        self.assert_none_late(&finished);
        self.fold(
            compare::rows(&finished.stdout, "stdout").unwrap_or_else(|error| panic!("{error}\n{}", finished.report())),
        )
    }

    fn assert_none_late(&self, finished: &Finished) {
        let summary: Value =
            finished.stderr.lines().next_back().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        assert_eq!(summary["late"].as_u64(), Some(0), "{}: {}", self.name, finished.report());
    }

    fn arguments(&self, mode: Mode) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["run", "query.sql", "-o", "json", "--summary", "json", "--no-progress"].map(String::from).into();
        let mut set = |name: String, value: String| arguments.extend(["--set".into(), format!("{name}={value}")]);
        let (threads, processes) = match mode {
            Bounded { threads, processes } | Streamed { threads, processes, .. } => (threads, processes),
            Shuffled { threads, .. } => (threads, 1),
        };
        if let Streamed { batch_rows, .. } | Shuffled { batch_rows, .. } = mode {
            // An epoch ends after a batch, so a small case has small batches, whatever the mode says.
            set("source.batch-rows".into(), batch_rows.to_string());
            set("epoch.every-rows".into(), self.epoch_rows().to_string());
            set("watermark.interval".into(), "0s".into());
            for source in &self.sources {
                set(format!("tables.{}.connector", source.table), "replay".into());
                if let Shuffled { seed, .. } = mode {
                    set(format!("tables.{}.replay.disorder", source.table), source.disorder.clone());
                    set(format!("tables.{}.replay.seed", source.table), seed.to_string());
                }
            }
        }
        arguments.extend(["--parallelism".into(), threads.to_string(), "--processes".into(), processes.to_string()]);
        arguments
    }
}

const TOPIC_PARTITIONS: i32 = 3;

impl Source {
    /// A topic with its rows, in which none is late; and how many count as read: all but those that are dropped for want of a time.
    pub fn topic(&self, case: &Case, seed: u64) -> (String, u64) {
        let topic = shared().topic(&case.name, TOPIC_PARTITIONS);
        let lines = lines_of(&case.folder.join(&self.path));
        let counts = |line: &&String| self.time.as_ref().is_none_or(|column| time_ms(line, column).is_some());
        let rows = lines.iter().filter(counts).count() as u64;
        shared().produce(&topic, &self.shuffled(lines, seed));
        (topic, rows)
    }

    /// Records in partitions, so that in each of them no row comes later than the watermark allows.
    fn shuffled(&self, lines: Vec<String>, seed: u64) -> Vec<Record> {
        let mut state = seed;
        let mut random = move |below: u64| {
            // Knuth's MMIX; the high bits are the better ones.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below.max(1)
        };
        let disorder_ms = milliseconds(&self.disorder);
        let mut before = i64::MIN / 2;
        let mut all: Vec<(i64, Record)> = Vec::new();
        for line in lines {
            let at = match &self.time {
                // Rows without a time go with the one before.
                Some(column) => time_ms(&line, column).unwrap_or(before),
                None => 0,
            };
            before = at;
            let range = if self.time.is_some() { disorder_ms } else { u64::from(u32::MAX) };
            let place = at.saturating_add(random(range) as i64);
            all.push((place, Record::value(random(TOPIC_PARTITIONS as u64) as i32, line)));
        }
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, record)| record).collect()
    }
}

/// The event time of a row: text, or a number of milliseconds.
fn time_ms(line: &str, column: &str) -> Option<i64> {
    let row: Value = serde_json::from_str(line).ok()?;
    match row.get(column)? {
        Value::String(text) => Some(string_to_timestamp_nanos(text).ok()?.div_euclid(1_000_000)),
        number => number.as_i64(),
    }
}

fn milliseconds(text: &str) -> u64 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap();
    let unit = match &text[end..] {
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        unit => panic!("{unit}"),
    };
    text[..end].parse::<u64>().unwrap() * unit
}

/// The records of a file of JSON, or of all files of a folder.
fn lines_of(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        // As a reader of a directory does.
        files.retain(|file| !file.file_name().unwrap().to_string_lossy().starts_with(['.', '_']));
        files.sort();
        return files.iter().flat_map(|file| lines_of(file)).collect();
    }
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}

fn directives(sql: &str) -> BTreeMap<String, String> {
    let head = Regex::new(r"(?m)^--! ([a-z-]+): (.+)$").unwrap();
    head.captures_iter(sql).map(|found| (found[1].to_owned(), found[2].trim().to_owned())).collect()
}

/// The tables with a path: what the cases write goes to the standard output.
fn sources(sql: &str) -> Vec<Source> {
    let table = Regex::new(r"(?is)CREATE TABLE\s+`?(\w+)`?\s*\((.*?)\)\s*WITH\s*\((.*?)\);").unwrap();
    let path = Regex::new(r"'path'\s*=\s*'([^']+)'").unwrap();
    let json = Regex::new(r"'format'\s*=\s*'json'").unwrap();
    let watermark = Regex::new(r"(?i)WATERMARK FOR (\S+) AS").unwrap();
    let lag = Regex::new(r"(?i)WATERMARK FOR \S+ AS \S+ - INTERVAL '(\d+)' (SECOND|MINUTE|HOUR)").unwrap();
    let found = table.captures_iter(sql).filter_map(|table| {
        let path = path.captures(&table[3])?[1].to_owned();
        let disorder = lag.captures(&table[2]).map_or("0s".into(), |lag| {
            let unit = [("SECOND", "s"), ("MINUTE", "min"), ("HOUR", "h")]
                .iter()
                .find(|unit| lag[2].eq_ignore_ascii_case(unit.0));
            format!("{}{}", &lag[1], unit.unwrap().1)
        });
        let time = watermark.captures(&table[2]).map(|found| {
            let computed = Regex::new(&format!(r"(?i)\b{} AS .*TO_TIMESTAMP_LTZ\((\w+), 3\)", &found[1])).unwrap();
            computed.captures(&table[2]).map_or(found[1].to_owned(), |computed| computed[1].to_owned())
        });
        Some(Source { table: table[1].to_owned(), path, disorder, time, is_json: json.is_match(&table[3]) })
    });
    found.collect()
}

fn count_rows(path: &Path) -> usize {
    if path.is_dir() {
        return std::fs::read_dir(path).unwrap().map(|entry| count_rows(&entry.unwrap().path())).sum();
    }
    if path.extension().is_some_and(|extension| extension == "parquet") {
        let file = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
        return usize::try_from(file.metadata().file_metadata().num_rows()).unwrap();
    }
    // A pattern is counted as nothing: its case then ends an epoch after every row.
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[test]
fn the_head_of_a_query_is_read() {
    let sql = "--! key: a, b\n-- a comment\nCREATE TABLE bids (p DECIMAL(10, 2), ts TIMESTAMP(3),\n\
               WATERMARK FOR ts AS ts - INTERVAL '4' SECOND) WITH ('path' = 'bids.jsonl');\n\
               CREATE TABLE result (a BIGINT) WITH ('connector' = 'print');";
    assert_eq!(directives(sql), BTreeMap::from([("key".into(), "a, b".into())]));
    assert_eq!(
        sources(sql),
        [Source {
            table: "bids".into(),
            path: "bids.jsonl".into(),
            disorder: "4s".into(),
            time: Some("ts".into()),
            is_json: false
        }]
    );
}

/// A folder that is no case, or a case without rows to compare, would be a test that cannot fail.
#[test]
fn every_folder_is_a_case() {
    let cases = integration_tests::program::repository().join("integration-tests/cases");
    let (mut count, mut from_topics) = (0, 0);
    for entry in std::fs::read_dir(cases).unwrap() {
        let case = Case::read(&entry.unwrap().path());
        assert!(!case.sources.is_empty(), "{}: reads no file", case.name);
        assert!(!case.expected.is_empty() || case.name.contains("empty"), "{}: expects nothing", case.name);
        count += 1;
        from_topics += usize::from(case.fits_topics());
    }
    assert!(from_topics >= 50, "{from_topics} cases are run from topics");
    assert!(count >= 25, "{count} cases");
}
