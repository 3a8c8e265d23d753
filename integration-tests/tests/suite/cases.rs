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

use integration_tests::compare::{self, Row};
use integration_tests::program::Finished;
use parquet::file::reader::{FileReader, SerializedFileReader};
use regex::Regex;
use rstest::rstest;
use serde_json::Value;

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
const EPOCHS: usize = 5;

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

    fn arguments(&self, mode: Mode) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["run", "query.sql", "-o", "json", "--summary", "json", "--no-progress"].map(String::from).into();
        let mut set = |name: String, value: String| arguments.extend(["--set".into(), format!("{name}={value}")]);
        let (threads, processes) = match mode {
            Bounded { threads, processes } | Streamed { threads, processes, .. } => (threads, processes),
            Shuffled { threads, .. } => (threads, 1),
        };
        if let Streamed { batch_rows, .. } | Shuffled { batch_rows, .. } = mode {
            let every_rows = (self.rows() / (EPOCHS + 1)).max(1);
            // An epoch ends after a batch, so a small case has small batches, whatever the mode says.
            set("source.batch-rows".into(), batch_rows.to_string());
            set("epoch.every-rows".into(), every_rows.to_string());
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

fn directives(sql: &str) -> BTreeMap<String, String> {
    let head = Regex::new(r"(?m)^--! ([a-z-]+): (.+)$").unwrap();
    head.captures_iter(sql).map(|found| (found[1].to_owned(), found[2].trim().to_owned())).collect()
}

/// The tables with a path: what the cases write goes to the standard output.
fn sources(sql: &str) -> Vec<Source> {
    let table = Regex::new(r"(?is)CREATE TABLE\s+`?(\w+)`?\s*\((.*?)\)\s*WITH\s*\((.*?)\);").unwrap();
    let path = Regex::new(r"'path'\s*=\s*'([^']+)'").unwrap();
    let lag = Regex::new(r"(?i)WATERMARK FOR \S+ AS \S+ - INTERVAL '(\d+)' (SECOND|MINUTE|HOUR)").unwrap();
    let found = table.captures_iter(sql).filter_map(|table| {
        let path = path.captures(&table[3])?[1].to_owned();
        let disorder = lag.captures(&table[2]).map_or("0s".into(), |lag| {
            let unit = [("SECOND", "s"), ("MINUTE", "min"), ("HOUR", "h")]
                .iter()
                .find(|unit| lag[2].eq_ignore_ascii_case(unit.0));
            format!("{}{}", &lag[1], unit.unwrap().1)
        });
        Some(Source { table: table[1].to_owned(), path, disorder })
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
    assert_eq!(sources(sql), [Source { table: "bids".into(), path: "bids.jsonl".into(), disorder: "4s".into() }]);
}

/// A folder that is no case, or a case without rows to compare, would be a test that cannot fail.
#[test]
fn every_folder_is_a_case() {
    let cases = integration_tests::program::repository().join("integration-tests/cases");
    let mut count = 0;
    for entry in std::fs::read_dir(cases).unwrap() {
        let case = Case::read(&entry.unwrap().path());
        assert!(!case.sources.is_empty(), "{}: reads no file", case.name);
        assert!(!case.expected.is_empty() || case.name.contains("empty"), "{}: expects nothing", case.name);
        count += 1;
    }
    assert!(count >= 25, "{count} cases");
}
