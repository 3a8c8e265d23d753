//! Settings of a job: how it runs, never what it means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::connector::{boolean, bytes, number, optional_number, read_object};
use crate::{Period, Problem};

/// Given with `--set name=value`, in SQL with `SET 'name' = 'value'`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// Worker threads per process. Default: 1.
    #[serde(deserialize_with = "number")]
    pub parallelism: u64,
    /// OS processes of the run. Default: 1.
    #[serde(deserialize_with = "number")]
    pub processes: u64,
    /// Results are complete per epoch; this is its length. The first one of a stream is a tenth as long. Default: 1s.
    #[serde(rename = "epoch.interval")]
    pub epoch_interval: Period,
    /// A source instance that has sent this many bytes in an epoch asks for its end. Default: 64 MiB.
    #[serde(rename = "epoch.max-bytes", deserialize_with = "bytes")]
    pub epoch_max_bytes: u64,
    /// A source instance that has sent this many rows in an epoch asks for its end. For tests. Default: no limit.
    #[serde(
        rename = "epoch.every-rows",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_number"
    )]
    pub epoch_every_rows: Option<u64>,
    /// From one checkpoint to the next; files are committed at checkpoints. Default: 10s.
    #[serde(rename = "checkpoint.interval")]
    pub checkpoint_interval: Period,
    /// How often a source moves its watermark; 0s: with every batch. Default: 50ms.
    #[serde(rename = "watermark.interval")]
    pub watermark_interval: Period,
    /// Rows per batch at the sources, at most. Default: 8192.
    #[serde(rename = "source.batch-rows", deserialize_with = "number")]
    pub batch_rows: u64,
    /// Bytes of batches in flight per process. Default: 256 MiB.
    #[serde(rename = "memory.in-flight", deserialize_with = "bytes")]
    pub in_flight_bytes: u64,
    /// Where operators keep their state: `memory`, or `rocksdb`, on the local disk, for aggregates, windows and sessions by key that do not fit in memory.
    /// Default: memory.
    #[serde(rename = "state.backend")]
    pub state_backend: StateBackend,
    /// Memory per process for state that is kept in RocksDB. Default: 1 GiB.
    #[serde(rename = "state.memory", deserialize_with = "bytes")]
    pub state_memory_bytes: u64,
    /// How long a process may be silent before the run fails. Default: 10s.
    #[serde(rename = "process.heartbeat-timeout")]
    pub heartbeat_timeout: Period,
    /// A run of a server whose attempt fails for a cause outside of it goes on from its last checkpoint; the same failure so many times in
    /// a row, with no checkpoint in between, fails the run. 0: the first one does. Default: 5.
    #[serde(rename = "restart.attempts", deserialize_with = "number")]
    pub restart_attempts: u64,
    /// Until the first restart; each further one waits twice as long, up to a minute, until one has run ten times as long as it waited. Default: 1s.
    #[serde(rename = "restart.delay")]
    pub restart_delay: Period,
    /// Integer overflow in expressions and sums wraps, as in Flink, instead of failing. Default: false.
    #[serde(rename = "overflow.wrap", deserialize_with = "boolean")]
    pub overflow_wrap: bool,
}

/// Where state is kept while a run works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateBackend {
    Memory,
    Rocksdb,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            parallelism: 1,
            processes: 1,
            epoch_interval: Period::from_secs(1),
            epoch_max_bytes: 64 << 20,
            epoch_every_rows: None,
            checkpoint_interval: Period::from_secs(10),
            watermark_interval: Period::from_millis(50),
            batch_rows: 8192,
            in_flight_bytes: 256 << 20,
            state_backend: StateBackend::Memory,
            state_memory_bytes: 1 << 30,
            heartbeat_timeout: Period::from_secs(10),
            restart_attempts: 5,
            restart_delay: Period::from_secs(1),
            overflow_wrap: false,
        }
    }
}

impl Settings {
    /// Reads names and values (text or JSON); reports every problem, with pointers `/name`.
    pub fn from_options(options: Map<String, Value>) -> Result<Settings, Vec<Problem>> {
        let settings: Settings = read_object(options, "", |_| false)?;
        let range = |name: &str, value: u64, min: u64, max: u64| {
            let message = format!("{name} is {value}; it must be {min} to {max}");
            (!(min..=max).contains(&value)).then(|| Problem::new("out_of_range", message).pointer(format!("/{name}")))
        };
        let positive = |name: &str, value: Period| {
            (value.us <= 0)
                .then(|| Problem::new("out_of_range", format!("{name} must be above 0")).pointer(format!("/{name}")))
        };
        let problems: Vec<Problem> = [
            range("parallelism", settings.parallelism, 1, 256),
            range("processes", settings.processes, 1, 64),
            range("source.batch-rows", settings.batch_rows, 1, 65_536),
            range("epoch.every-rows", settings.epoch_every_rows.unwrap_or(1), 1, u64::MAX),
            range("memory.in-flight", settings.in_flight_bytes, 1 << 20, u64::MAX),
            range("state.memory", settings.state_memory_bytes, 16 << 20, u64::MAX),
            positive("epoch.interval", settings.epoch_interval),
            positive("checkpoint.interval", settings.checkpoint_interval),
            positive("process.heartbeat-timeout", settings.heartbeat_timeout),
        ]
        .into_iter()
        .flatten()
        .collect();
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_read_text_and_say_what_is_wrong() {
        let read = |value: Value| Settings::from_options(value.as_object().cloned().unwrap_or_default());
        let settings =
            read(json!({"parallelism": "3", "epoch.interval": "100ms", "epoch.max-bytes": "1MiB"})).expect("good");
        assert_eq!(
            (settings.parallelism, settings.epoch_interval, settings.epoch_max_bytes),
            (3, Period::from_millis(100), 1 << 20)
        );
        let problems = read(json!({"paralelism": 3, "epoch.interval": "0s"})).expect_err("bad");
        assert!(problems[0].hint.as_deref() == Some("did you mean parallelism?"), "{problems:?}");
        assert!(read(json!({"parallelism": 0})).is_err());
    }

    /// What stands in `docs/cli.md` is what stands here.
    #[test]
    fn settings_are_documented_with_their_defaults() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).expect("a page");
        let schema = schemars::schema_for!(Settings);
        let settings = schema.get("properties").and_then(Value::as_object).expect("settings have names");
        let list = page.split("\n## Settings\n").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a chapter");
        let listed = list.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(listed, settings.len(), "a row of docs/cli.md is of no setting");
        for (name, field) in settings {
            let text = field["description"].as_str().expect("a comment").replace('\n', " ");
            let (meaning, default) = text.rsplit_once(" Default: ").expect("a default");
            let default = default.trim_end_matches('.');
            let row = format!("| `{name}` | {meaning} | {default} |");
            assert!(list.contains(&row), "docs/cli.md lacks\n{row}");
            let given: Map<String, Value> = [(name.clone(), default.into())].into_iter().collect();
            if default != "no limit" {
                assert_eq!(
                    Settings::from_options(given),
                    Ok(Settings::default()),
                    "{name} is not {default} by default"
                );
            }
        }
    }
}
