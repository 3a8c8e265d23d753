//! The options of sources and sinks, typed, so that a job is validated without linking a client.
//!
//! Option names are the same in a graph's JSON and in SQL's `WITH (...)`; there every value is text, so each field also reads text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::kafka::KafkaOptions;
use crate::postgres::PostgresOptions;
use crate::{Period, Problem, suggestion};

/// Where a source's rows come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConnector {
    Filesystem(Box<FilesystemOptions>),
    Replay(Box<ReplayOptions>),
    Datagen(DatagenOptions),
    Kafka(Box<KafkaOptions>),
    /// The rows of a view as the server has put them down for a query; no table and no graph of a user can name it.
    #[schemars(skip)]
    ViewSnapshot(ViewSnapshotOptions),
}

/// Where a sink's rows go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SinkConnector {
    Filesystem(Box<FilesystemOptions>),
    Print(PrintOptions),
    Blackhole(BlackholeOptions),
    Kafka(Box<KafkaOptions>),
    Postgres(Box<PostgresOptions>),
    View(ViewOptions),
}

/// Into more splits no source deals its rows.
const SPLITS_MAX: u64 = 1024;

/// The names that `'connector' = ...` may have for a source.
pub const SOURCE_CONNECTORS: &[&str] = &["datagen", "filesystem", "kafka", "replay"];
/// The same for a sink.
pub const SINK_CONNECTORS: &[&str] = &["blackhole", "filesystem", "kafka", "postgres", "print", "view"];

impl SourceConnector {
    /// The value of `connector` in SQL and of `type` in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            SourceConnector::Filesystem(_) => "filesystem",
            SourceConnector::Replay(_) => "replay",
            SourceConnector::Datagen(_) => "datagen",
            SourceConnector::Kafka(_) => "kafka",
            SourceConnector::ViewSnapshot(_) => "view-snapshot",
        }
    }

    /// Whether the input ends by itself and is known to: a property of the source, never a flag.
    pub fn is_bounded(&self) -> bool {
        match self {
            SourceConnector::Filesystem(_) | SourceConnector::ViewSnapshot(_) => true,
            SourceConnector::Replay(_) => false,
            SourceConnector::Datagen(options) => options.number_of_rows.is_some(),
            SourceConnector::Kafka(options) => options.is_bounded(),
        }
    }

    /// Reads `{"type": ..., option: value, ...}`; reports every problem, with pointers below `at`.
    pub fn from_options(options: &Map<String, Value>, at: &str) -> Result<SourceConnector, Vec<Problem>> {
        let name = connector_name(options, SOURCE_CONNECTORS, "source", at)?;
        match name {
            "filesystem" => read::<FilesystemOptions>(options, at).map(|o| SourceConnector::Filesystem(Box::new(o))),
            "replay" => read::<ReplayOptions>(options, at).map(|o| SourceConnector::Replay(Box::new(o))),
            "datagen" => read::<DatagenOptions>(options, at).map(SourceConnector::Datagen),
            "kafka" => kafka(options, at).map(SourceConnector::Kafka),
            other => unreachable!("{other} is a known source connector"),
        }
        .and_then(|connector| match connector.out_of_range(at) {
            problems if problems.is_empty() => Ok(connector),
            problems => Err(problems),
        })
    }

    /// Values that can be read, and make no sense.
    fn out_of_range(&self, at: &str) -> Vec<Problem> {
        let wrong = |option: &str, value: String, must: &str| {
            let problem = Problem::new("invalid_option", format!("{option} is {value}; it must {must}"));
            Some(problem.pointer(format!("{at}/{option}")))
        };
        let splits = |option: &str, splits: u64| match splits {
            1..=SPLITS_MAX => None,
            _ => wrong(option, splits.to_string(), &format!("be 1 to {SPLITS_MAX}")),
        };
        let problems = match self {
            SourceConnector::Filesystem(_) | SourceConnector::ViewSnapshot(_) => [None, None],
            SourceConnector::Kafka(options) => return options.out_of_range(false, at),
            SourceConnector::Replay(options) => [
                splits("replay.splits", options.splits),
                (options.disorder.us < 0)
                    .then(|| wrong("replay.disorder", options.disorder.to_string(), "not be negative"))
                    .flatten(),
            ],
            SourceConnector::Datagen(options) => [
                splits("splits", options.splits),
                (options.rows_per_second == Some(0))
                    .then(|| wrong("rows-per-second", "0".into(), "be above 0"))
                    .flatten(),
            ],
        };
        problems.into_iter().flatten().collect()
    }
}

impl SinkConnector {
    /// The value of `connector` in SQL and of `type` in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            SinkConnector::Filesystem(_) => "filesystem",
            SinkConnector::Print(_) => "print",
            SinkConnector::Blackhole(_) => "blackhole",
            SinkConnector::Kafka(_) => "kafka",
            SinkConnector::Postgres(_) => "postgres",
            SinkConnector::View(_) => "view",
        }
    }

    /// Whether the sink can show that a row was changed or deleted, given the primary key of its table.
    pub fn takes_updates(&self, primary_key: &[String]) -> bool {
        match self {
            SinkConnector::Filesystem(_) => false,
            SinkConnector::Print(_) | SinkConnector::Blackhole(_) => true,
            SinkConnector::View(_) | SinkConnector::Kafka(_) | SinkConnector::Postgres(_) => !primary_key.is_empty(),
        }
    }

    /// Whether each writer by itself makes changes of rows upserts by key, so that all changes of a key must come to the same one. Other sinks
    /// that take changes bring those of all writers together first, or show every one.
    pub fn writers_upsert(&self) -> bool {
        matches!(self, SinkConnector::Kafka(_) | SinkConnector::Postgres(_))
    }

    /// Reads `{"type": ..., option: value, ...}`; reports every problem, with pointers below `at`.
    pub fn from_options(options: &Map<String, Value>, at: &str) -> Result<SinkConnector, Vec<Problem>> {
        let name = connector_name(options, SINK_CONNECTORS, "sink", at)?;
        match name {
            "filesystem" => read::<FilesystemOptions>(options, at).map(|o| SinkConnector::Filesystem(Box::new(o))),
            "print" => read::<PrintOptions>(options, at).map(SinkConnector::Print),
            "blackhole" => read::<BlackholeOptions>(options, at).map(SinkConnector::Blackhole),
            "kafka" => kafka(options, at).and_then(|options| match options.out_of_range(true, at) {
                problems if problems.is_empty() => Ok(SinkConnector::Kafka(options)),
                problems => Err(problems),
            }),
            "postgres" => read::<PostgresOptions>(options, at).and_then(|options| match options.out_of_range(at) {
                problems if problems.is_empty() => Ok(SinkConnector::Postgres(Box::new(options))),
                problems => Err(problems),
            }),
            "view" => read::<ViewOptions>(options, at).and_then(|view| match view.out_of_range(at) {
                problems if problems.is_empty() => Ok(SinkConnector::View(view)),
                problems => Err(problems),
            }),
            other => unreachable!("{other} is a known sink connector"),
        }
    }
}

/// How the bytes of a file are read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    Parquet,
    /// One JSON object per line.
    Json,
    Csv,
}

/// How epoch numbers stand for timestamps in JSON; texts are always read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JsonTimestamps {
    /// `2001-01-31 08:09:10.123`; ISO 8601 is read too. Numbers are refused.
    #[default]
    Sql,
    /// `2001-01-31T08:09:10.123Z`; SQL's form is read too. Numbers are refused.
    #[serde(rename = "ISO-8601", alias = "iso-8601")]
    Iso8601,
    EpochSeconds,
    EpochMillis,
    EpochMicros,
}

/// How the pages of Parquet files are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    None,
    Snappy,
    #[default]
    Zstd,
    Lz4,
}

/// Files of one format under a path, local or `s3://bucket/prefix`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct FilesystemOptions {
    /// A file, a directory, or a pattern with `*`, `?`, `[..]` and `**`. A sink's path is a directory.
    pub path: String,
    pub format: FileFormat,
    /// How JSON shows timestamps. Default: `SQL`.
    #[serde(rename = "json.timestamp-format.standard", default, deserialize_with = "timestamps")]
    pub json_timestamps: JsonTimestamps,
    /// One character between the fields of CSV. Default: `,`.
    #[serde(rename = "csv.field-delimiter", default = "comma")]
    pub csv_delimiter: char,
    /// Whether CSV files begin with a line of column names. Default: true.
    #[serde(rename = "csv.header", default = "crate::types::yes", deserialize_with = "boolean")]
    pub csv_header: bool,
    /// The text that stands for NULL in CSV. Default: the empty text.
    #[serde(rename = "csv.null-literal", default)]
    pub csv_null_literal: String,
    /// Default: `zstd`.
    #[serde(rename = "parquet.compression", default)]
    pub parquet_compression: Compression,
    /// A connection of the server: its `s3.*` options hold where the table has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// For `s3://` paths: the server, such as `http://127.0.0.1:9000`. Default: Amazon's.
    #[serde(rename = "s3.endpoint", default, skip_serializing_if = "Option::is_none")]
    pub s3_endpoint: Option<String>,
    /// Default: `AWS_REGION`, or `us-east-1`.
    #[serde(rename = "s3.region", default, skip_serializing_if = "Option::is_none")]
    pub s3_region: Option<String>,
    /// Default: `AWS_ACCESS_KEY_ID`.
    #[serde(rename = "s3.access-key", default, skip_serializing_if = "Option::is_none")]
    pub s3_access_key: Option<Secret>,
    /// Default: `AWS_SECRET_ACCESS_KEY`.
    #[serde(rename = "s3.secret-key", default, skip_serializing_if = "Option::is_none")]
    pub s3_secret_key: Option<Secret>,
    /// A sink closes a file when it has this many bytes. Default: 128 MiB.
    #[serde(rename = "sink.rolling-policy.file-size", default = "file_size", deserialize_with = "bytes")]
    pub rolling_file_size_bytes: u64,
    /// A sink closes a file at the first commit after it has been open this long. Default: 10 min.
    #[serde(rename = "sink.rolling-policy.rollover-interval", default = "rollover")]
    pub rollover_interval: Period,
}

/// Files as a live stream, in order of event time with disorder: always unbounded in its semantics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReplayOptions {
    #[serde(flatten)]
    pub files: FilesystemOptions,
    /// `max`, or a factor of the speed of the recorded time. Default: `max`.
    #[serde(rename = "replay.speed", default)]
    pub speed: ReplaySpeed,
    /// How far rows may arrive out of the order of event time. Default: 0s.
    #[serde(rename = "replay.disorder", default)]
    pub disorder: Period,
    /// Draws the disorder. Default: 0.
    #[serde(rename = "replay.seed", default, deserialize_with = "number")]
    pub seed: u64,
    /// At the end of the files: `end` with the final watermark, or stay open, `idle`. Default: `end`.
    #[serde(rename = "replay.then", default)]
    pub then: ReplayThen,
    /// Into how many splits the rows are dealt, each with a watermark of its own. Default: 1.
    #[serde(rename = "replay.splits", default = "one", deserialize_with = "number")]
    pub splits: u64,
}

/// How fast recorded time passes: as fast as it can, or this many times as fast as the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplaySpeed {
    #[default]
    Max,
    #[serde(untagged)]
    Factor(f64),
}

/// What follows the last row: the end of the input, or silence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayThen {
    #[default]
    End,
    Idle,
}

/// Generated rows, the same for the same seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DatagenOptions {
    /// Default: as fast as possible.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_number")]
    pub rows_per_second: Option<u64>,
    /// The source is bounded iff this is given.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "optional_number")]
    pub number_of_rows: Option<u64>,
    /// Default: 0.
    #[serde(default, deserialize_with = "number")]
    pub seed: u64,
    /// Into how many splits the rows are dealt. Default: 1.
    #[serde(default = "one", deserialize_with = "number")]
    pub splits: u64,
    /// Per column, `fields.NAME.OPTION`: kind (`random`, `sequence`), min, max, start, end, length, null-rate.
    #[serde(flatten)]
    pub fields: BTreeMap<String, String>,
}

/// Rows to the standard output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct PrintOptions {
    /// Stands before every row of a stream.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub print_identifier: String,
}

/// Takes rows, touches every column, and keeps nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BlackholeOptions {}

/// Rows that can be asked while the job runs and after it: kept by key, or the newest ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ViewOptions {
    /// What the view is called: letters, digits, `_`, `-` and `.`, at most 128. Default: the table's name.
    #[serde(rename = "view.name", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A run fails when the view has more bytes in memory. Default: 256 MiB.
    #[serde(rename = "view.max-bytes", default = "view_bytes", deserialize_with = "bytes")]
    pub max_bytes: u64,
    /// Without a primary key: rows that are kept, the newest ones. Default: 100,000.
    #[serde(
        rename = "retention.rows",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_number"
    )]
    pub retention_rows: Option<u64>,
    /// Without a primary key: how long after its arrival a row is kept, at most. Default: as long as `retention.rows` keeps it.
    #[serde(rename = "retention.age", default, skip_serializing_if = "Option::is_none")]
    pub retention_age: Option<Period>,
}

impl ViewOptions {
    /// Rows that a view without a primary key keeps by default.
    pub const RETENTION_ROWS: u64 = 100_000;

    fn out_of_range(&self, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |option: &str, message: String| {
            problems.push(Problem::new("invalid_option", message).pointer(format!("{at}/{option}")));
        };
        if let Some(name) = self.name.as_ref().filter(|name| !is_view_name(name)) {
            wrong("view.name", format!("a view cannot be called {name:?}; {VIEW_NAMES}"));
        }
        if self.retention_rows == Some(0) {
            wrong("retention.rows", "retention.rows is 0; it must be above 0".into());
        }
        if let Some(age) = self.retention_age.filter(|age| age.us <= 0) {
            wrong("retention.age", format!("retention.age is {age}; it must be above 0"));
        }
        problems
    }
}

/// What [`is_view_name`] asks for.
pub const VIEW_NAMES: &str = "use letters, digits, _, - and ., at most 128, and begin with another than .";

/// Whether a view can have this name: it stands in paths and file names.
pub fn is_view_name(name: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=128).contains(&name.len()) && name.chars().all(known) && !name.starts_with('.')
}

/// One Arrow IPC file or stream, with exactly the columns of its table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ViewSnapshotOptions {
    /// A local file, below a root that the run may use.
    pub path: String,
}

/// Parts of the names of options whose values are secrets, with one sign between the words.
const SECRET_WORDS: &[&str] = &[
    "access.key",
    "accesskey",
    "api.key",
    "apikey",
    "credential",
    "jaas",
    "key.pem",
    "keystore.key",
    "passphrase",
    "passwd",
    "password",
    "private.key",
    "privatekey",
    "sasl.oauthbearer.config",
    "secret",
    "token",
    "user.info",
    "userinfo",
];

/// Whether the value of an option must not be shown, nor stand where it is stored in the open: by the option's name, in any connector or connection.
pub fn is_secret_option(name: &str) -> bool {
    let sign = |c: char| if c.is_alphanumeric() { c } else { '.' };
    let name: String = name.chars().flat_map(char::to_lowercase).map(sign).collect();
    // Those of generated columns carry the columns' names.
    !name.starts_with("fields.") && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// A text that is never shown. It is serialised as it is, because graphs are shipped to processes; whoever prints a graph redacts it first.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn comma() -> char {
    ','
}

fn one() -> u64 {
    1
}

fn file_size() -> u64 {
    128 << 20
}

fn view_bytes() -> u64 {
    256 << 20
}

fn rollover() -> Period {
    Period::from_secs(600)
}

fn connector_name<'a>(
    options: &'a Map<String, Value>,
    known: &[&'static str],
    role: &str,
    at: &str,
) -> Result<&'a str, Vec<Problem>> {
    let Some(name) = options.get("type").and_then(Value::as_str) else {
        let problem = Problem::new("missing_option", format!("the {role} names no connector"));
        return Err(vec![problem.hint(format!("there is {}", known.join(", "))).pointer(format!("{at}/type"))]);
    };
    if known.contains(&name) {
        return Ok(name);
    }
    let problem = Problem::new("unknown_connector", format!("there is no {role} connector {name:?}"));
    Err(vec![problem.hint(suggestion(name, known.iter().copied())).pointer(format!("{at}/type"))])
}

/// Whether an option that the connector `was` knows means nothing to the connector `now`, for which a table is to have it replaced.
pub fn is_left_behind(option: &str, was: &str, now: &str) -> bool {
    knows(was, option) && !knows(now, option)
}

/// A connector's name as it is known, however it is written in a table.
pub fn plain_name(connector: &str) -> String {
    connector.trim().to_lowercase()
}

fn knows(connector: &str, option: &str) -> bool {
    match plain_name(connector).as_str() {
        "filesystem" => names_of::<FilesystemOptions>().contains(option),
        "replay" => names_of::<ReplayOptions>().contains(option),
        "datagen" => option.starts_with("fields.") || names_of::<DatagenOptions>().contains(option),
        "print" => names_of::<PrintOptions>().contains(option),
        "blackhole" => names_of::<BlackholeOptions>().contains(option),
        "kafka" => {
            option.starts_with("properties.") || names_of::<KafkaOptions>().contains(KafkaOptions::short(option))
        }
        "postgres" => names_of::<PostgresOptions>().contains(option),
        "view" => names_of::<ViewOptions>().contains(option),
        _ => false,
    }
}

fn names_of<T: JsonSchema>() -> BTreeSet<String> {
    let schema = schemars::schema_for!(T);
    schema.get("properties").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect()
}

/// The JSON Schema of a connector's options, by its name in SQL. Empty for a name that is unknown in that role.
pub fn option_schema(connector: &str, is_source: bool) -> Value {
    let schema = match is_source {
        true => schemars::schema_for!(SourceConnector),
        false => schemars::schema_for!(SinkConnector),
    };
    let whole = schema.to_value();
    let variants = whole["oneOf"].as_array().cloned().unwrap_or_default();
    let found = variants.into_iter().find(|variant| variant["properties"]["type"]["const"] == connector);
    let Some(mut variant) = found else { return Value::Null };
    let reference = variant["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")).map(str::to_string);
    if let Some(name) = reference {
        variant = whole["$defs"][&name].clone();
    }
    if let Some(properties) = variant["properties"].as_object_mut() {
        properties.remove("type");
    }
    if let Some(definitions) = whole.get("$defs") {
        variant["$defs"] = definitions.clone();
    }
    variant
}

/// Option structs, checked for unknown names with the names of their JSON Schema.
fn read<T: DeserializeOwned + JsonSchema>(options: &Map<String, Value>, at: &str) -> Result<T, Vec<Problem>> {
    let mut rest = options.clone();
    rest.remove("type");
    read_object(rest, at, |name| name.starts_with("fields."))
}

fn kafka(options: &Map<String, Value>, at: &str) -> Result<Box<KafkaOptions>, Vec<Problem>> {
    let mut rest = KafkaOptions::renamed(options);
    rest.remove("type");
    read_object(rest, at, |name| name.starts_with("properties.")).map(Box::new)
}

/// Deserialises an object, one problem per unknown field, else the first that serde finds.
pub(crate) fn read_object<T: DeserializeOwned + JsonSchema>(
    object: Map<String, Value>,
    at: &str,
    also_known: impl Fn(&str) -> bool,
) -> Result<T, Vec<Problem>> {
    let schema = schemars::schema_for!(T);
    let known: Vec<&str> = schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|p| p.keys().map(String::as_str))
        .collect();
    let open = schema.get("additionalProperties").is_some_and(|more| more.is_object());
    let mut problems: Vec<Problem> = object
        .keys()
        .filter(|name| !(known.contains(&name.as_str()) || open && also_known(name)))
        .map(|name| {
            Problem::new("unknown_option", format!("there is no option {name:?} here"))
                .hint(suggestion(name, known.iter().copied()))
                .pointer(format!("{at}/{}", escaped(name)))
        })
        .collect();
    let unknown: Vec<String> = object.keys().filter(|name| !known.contains(&name.as_str()) && !open).cloned().collect();
    let mut clean = object;
    for name in unknown {
        clean.remove(&name);
    }
    match serde_path_to_error::deserialize(Value::Object(clean)) {
        Ok(value) if problems.is_empty() => Ok(value),
        Ok(_) => Err(problems),
        Err(error) => {
            let path: String = error.path().iter().filter_map(segment).map(|s| format!("/{}", escaped(&s))).collect();
            problems.push(misread(&error.inner().to_string()).pointer(format!("{at}{path}")));
            Err(problems)
        }
    }
}

/// What serde says, in our words: of a name that it does not know, the nearest of those that it lists.
fn misread(message: &str) -> Problem {
    let is_name = message.starts_with("unknown variant `");
    if !is_name && !message.starts_with("unknown field `") {
        return Problem::new("invalid_option", message);
    }
    // Every second part stands between backquotes: the name, then those that are known.
    let mut quoted = message.split('`').skip(1).step_by(2);
    let wrong = quoted.next().unwrap_or_default();
    let known: Vec<&str> = quoted.collect();
    let problem = match is_name {
        true => Problem::new("invalid_option", format!("{wrong:?} is none of the names that can stand here")),
        false => Problem::new("unknown_option", format!("there is no field {wrong:?} here")),
    };
    problem.hint(suggestion(wrong, known.iter().copied()))
}

fn segment(segment: &serde_path_to_error::Segment) -> Option<String> {
    match segment {
        serde_path_to_error::Segment::Map { key } => Some(key.clone()),
        serde_path_to_error::Segment::Seq { index } => Some(index.to_string()),
        _ => None,
    }
}

/// A name as a part of a JSON Pointer.
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// SQL's options are text; JSON's may be numbers and booleans.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Lenient {
    Text(String),
    Flag(bool),
    Number(serde_json::Number),
}

impl Lenient {
    pub(crate) fn text(self) -> String {
        match self {
            Lenient::Text(text) => text.trim().to_string(),
            Lenient::Flag(flag) => flag.to_string(),
            Lenient::Number(number) => number.to_string(),
        }
    }
}

pub(crate) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = Lenient::deserialize(deserializer)?.text();
    text.replace('_', "").parse().map_err(|_| de::Error::custom(format!("{text:?} is not a whole number")))
}

pub(crate) fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    number(deserializer).map(Some)
}

pub(crate) fn boolean<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let text = Lenient::deserialize(deserializer)?.text();
    text.to_lowercase().parse().map_err(|_| de::Error::custom(format!("{text:?} is neither true nor false")))
}

/// `134217728`, `128MiB`, `128 MB` (both binary, as in Flink).
pub(crate) fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = Lenient::deserialize(deserializer)?.text();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[end..].trim().to_lowercase().as_str() {
        "" | "b" | "bytes" => Some(1u64),
        "k" | "kb" | "kib" => Some(1 << 10),
        "m" | "mb" | "mib" => Some(1 << 20),
        "g" | "gb" | "gib" => Some(1 << 30),
        _ => None,
    };
    let size = text[..end].parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.filter(|size| *size > 0).ok_or_else(|| de::Error::custom(format!("{text:?} is not a size; write 128MiB")))
}

pub(crate) fn timestamps<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JsonTimestamps, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.to_lowercase().as_str() {
        "sql" => Ok(JsonTimestamps::Sql),
        "iso-8601" => Ok(JsonTimestamps::Iso8601),
        "epoch-seconds" => Ok(JsonTimestamps::EpochSeconds),
        "epoch-millis" => Ok(JsonTimestamps::EpochMillis),
        "epoch-micros" => Ok(JsonTimestamps::EpochMicros),
        _ => Err(de::Error::custom(format!(
            "{text:?} is not one of SQL, ISO-8601, epoch-seconds, epoch-millis, epoch-micros"
        ))),
    }
}

impl<'de> Deserialize<'de> for ReplaySpeed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Lenient::deserialize(deserializer)?.text();
        match text.parse::<f64>() {
            _ if text == "max" => Ok(ReplaySpeed::Max),
            Ok(factor) if factor.is_finite() && factor > 0.0 => Ok(ReplaySpeed::Factor(factor)),
            _ => Err(de::Error::custom(format!("{text:?} is neither max nor a factor above 0"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn source(options: Value) -> Result<SourceConnector, Vec<String>> {
        let object = options.as_object().cloned().unwrap_or_default();
        SourceConnector::from_options(&object, "").map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn options_read_text_as_sql_gives_it() {
        let read = source(
            json!({"type": "replay", "path": "a", "format": "csv", "csv.header": "FALSE", "replay.speed": "2.5",
            "replay.disorder": "10 s", "replay.seed": "7", "sink.rolling-policy.file-size": "1 MB"}),
        );
        let Ok(SourceConnector::Replay(options)) = read else { panic!("{read:?}") };
        assert_eq!(
            (options.seed, options.speed, options.disorder),
            (7, ReplaySpeed::Factor(2.5), Period::from_secs(10))
        );
        assert_eq!((options.files.csv_header, options.files.rolling_file_size_bytes), (false, 1 << 20));
    }

    #[test]
    fn wrong_options_are_all_reported_with_the_nearest_name() {
        let problems = source(json!({"type": "filesystem", "pth": "a", "formt": "csv"})).expect_err("wrong");
        let text = problems.join("\n");
        assert!(
            text.contains("/pth: there is no option \"pth\" here") && text.contains("did you mean path?"),
            "{text}"
        );
        assert!(text.contains("did you mean format?") && text.contains("missing field `path`"), "{text}");
        assert!(
            source(json!({"type": "pulsar"})).expect_err("none")[0]
                .contains("there is datagen, filesystem, kafka, replay")
        );
    }

    #[test]
    fn a_mistyped_value_is_told_with_the_nearest() {
        let problems = source(json!({"type": "filesystem", "path": "a", "format": "jsn"})).expect_err("wrong");
        let expected =
            "/format: \"jsn\" is none of the names that can stand here [invalid_option]\n  did you mean json?";
        assert_eq!(problems, [expected]);
    }

    #[test]
    fn datagen_takes_options_of_fields() {
        let read = source(json!({"type": "datagen", "number-of-rows": "10", "fields.a.kind": "sequence"}));
        let Ok(SourceConnector::Datagen(options)) = read else { panic!("{read:?}") };
        assert_eq!(options.fields["fields.a.kind"], "sequence");
        assert!(source(json!({"type": "datagen", "number-of-row": "10"})).is_err());
    }

    #[test]
    fn every_connector_knows_its_options() {
        for (option, was, now, left) in [
            ("path", "filesystem", "blackhole", true),
            ("s3.secret-key", "filesystem", "print", true),
            ("path", "filesystem", "replay", false),
            ("replay.seed", "replay", "filesystem", true),
            ("seed", "replay", "datagen", false),
            ("seed", "datagen", "replay", true),
            ("fields.a.kind", "datagen", "replay", true),
            ("print-identifier", "print", "blackhole", true),
            ("pth", "filesystem", "blackhole", false),
            ("path", "filesystem", "filesystem", false),
            ("path", "pulsar", "blackhole", false),
            ("properties.sasl.password", "kafka", "blackhole", true),
            ("scan.startup.mode", "kafka", "filesystem", true),
            ("avro-confluent.url", "kafka", "filesystem", true),
            ("value.format", "Kafka ", "blackhole", true),
            ("value.avro-confluent.url", "kafka", "blackhole", true),
            ("value.fields-include", "kafka", "blackhole", true),
            ("format", "KAFKA", " Filesystem", false),
        ] {
            assert_eq!(is_left_behind(option, was, now), left, "{option} from {was} to {now}");
        }
        for name in SOURCE_CONNECTORS {
            assert!(["path", "seed", "topic"].iter().any(|option| knows(name, option)), "{name}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for (options, wrong) in [
            (
                json!({"type": "replay", "path": "a", "format": "csv", "replay.splits": 0}),
                "/replay.splits: replay.splits is 0; it must be 1 to 1024",
            ),
            (
                json!({"type": "replay", "path": "a", "format": "csv", "replay.disorder": "-5s"}),
                "/replay.disorder: replay.disorder is -5s; it must not be",
            ),
            (json!({"type": "datagen", "splits": "1025"}), "/splits: splits is 1025"),
            (
                json!({"type": "datagen", "rows-per-second": 0}),
                "/rows-per-second: rows-per-second is 0; it must be above 0",
            ),
        ] {
            let problems = source(options).expect_err(wrong);
            assert!(problems.len() == 1 && problems[0].contains(wrong), "{problems:?}");
        }
        assert!(source(json!({"type": "datagen", "splits": 1024, "rows-per-second": 1})).is_ok());
    }

    #[test]
    fn options_of_views_are_checked() {
        let sink = |options: Value| {
            let object = options.as_object().cloned().unwrap_or_default();
            SinkConnector::from_options(&object, "")
                .map_err(|problems| problems.iter().map(Problem::to_string).collect::<Vec<_>>())
        };
        let read = sink(
            json!({"type": "view", "view.name": "Top-10.v2", "view.max-bytes": "1 MiB", "retention.rows": "1_000", "retention.age": "2 h"}),
        );
        let Ok(SinkConnector::View(options)) = read else { panic!("{read:?}") };
        assert_eq!((options.max_bytes, options.retention_rows), (1 << 20, Some(1000)));
        assert_eq!(options.retention_age.map(|age| age.us), Some(7_200_000_000));
        let again = serde_json::to_value(SinkConnector::View(options.clone())).and_then(serde_json::from_value);
        assert!(matches!(again, Ok(SinkConnector::View(again)) if again == options));
        let wrong = sink(json!({"type": "view", "view.name": "../a", "retention.rows": 0, "retention.age": "0s"}));
        assert_eq!(wrong.as_ref().map_err(Vec::len), Err(3), "{wrong:?}");
        assert!(
            sink(json!({"type": "view", "retention.row": 1}))
                .is_err_and(|all| all[0].contains("did you mean retention.rows?"))
        );
        assert!(source(json!({"type": "view-snapshot", "path": "a"})).is_err(), "no user reads a snapshot by its path");
        assert!(source(json!({"type": "view_snapshot", "path": "a"})).is_err());
        for name in ["v", "Top_10.by-hour", "_", "0", &"a".repeat(128)] {
            assert!(is_view_name(name), "{name}");
        }
        for name in ["", ".", "..", ".hidden", "a/b", "a b", "a\0", "é", "a\n", &"a".repeat(129)] {
            assert!(!is_view_name(name), "{name:?}");
        }
    }

    #[test]
    fn options_with_secrets_are_known_by_their_names() {
        for (option, secret) in [
            ("s3.access-key", true),
            ("S3.Secret-Key", true),
            ("avro-confluent.basic-auth.user-info", true),
            ("avro-confluent.bearer-auth.token", true),
            ("properties.sasl.password", true),
            ("properties.sasl.jaas.config", true),
            ("properties.sasl.oauthbearer.config", true),
            ("properties.sasl.oauthbearer.client.secret", true),
            ("properties.sasl.oauthbearer.assertion.private.key.pem", true),
            ("properties.sasl.oauthbearer.assertion.private.key.passphrase", true),
            ("properties.ssl.key.pem", true),
            ("properties.ssl.key.password", true),
            ("properties.ssl.keystore.password", true),
            ("properties.schema.registry.basic.auth.user.info", true),
            ("gcs.credentials", true),
            ("api_key", true),
            ("topic", false),
            ("key.fields", false),
            ("key.format", false),
            ("value.fields-include", false),
            ("key.avro-confluent.subject", false),
            ("s3.endpoint", false),
            ("properties.ssl.ca.pem", false),
            ("properties.ssl.certificate.pem", false),
            ("properties.ssl.key.location", false),
            ("properties.sasl.username", false),
            ("fields.token.kind", false),
        ] {
            assert_eq!(is_secret_option(option), secret, "{option}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        assert!(!format!("{:?}", Secret("hunter2".into())).contains("hunter2"));
    }
}
