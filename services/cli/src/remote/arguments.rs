//! The arguments of the commands that ask a server. What stands here as a comment is what `--help` says.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::arguments::{Output, key_value};

pub const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

#[derive(Clone, Debug, Args)]
pub struct ServerArguments {
    /// Address of the server.
    #[arg(long, value_name = "URL", env = "HIGHWATER_SERVER", default_value = DEFAULT_SERVER, global = true)]
    #[arg(help_heading = "Server")]
    pub server: String,
    /// API key, where the server has keys. Better in the environment, where other users do not see it.
    #[arg(long, value_name = "KEY", env = "HIGHWATER_KEY", hide_env_values = true, global = true)]
    #[arg(help_heading = "Server")]
    pub key: Option<String>,
}

#[derive(Clone, Copy, Debug, Args)]
pub struct FormArguments {
    /// How the answer is printed.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Form::Table, global = true)]
    pub form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Table,
    /// One object of the API per line.
    Json,
    /// Comma separated values with a header.
    Csv,
    /// Only names or ids, one per line.
    Name,
}

impl Form {
    /// Whether what is followed is printed once it has ended. A person sees at once what was made, and its end on stderr; a name does not
    /// change.
    pub fn shows_the_end(self) -> bool {
        matches!(self, Form::Json | Form::Csv)
    }
}

#[derive(Debug, Args)]
pub struct SubmitArguments {
    /// A SQL script, or a graph (a name that ends with .json); `-` reads either from stdin.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Name of the job. [default: the file's name without its ending]
    #[arg(long)]
    pub name: Option<String>,
    /// Worker threads per process.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    pub parallelism: Option<u64>,
    /// Processes of each run.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub processes: Option<u64>,
    /// Resident bytes of each process: 512MiB, 2GiB; at least 32MiB. A run that needs more fails.
    #[arg(long, value_name = "SIZE", value_parser = memory_bytes)]
    pub memory_bytes: Option<u64>,
    /// A setting of the job, or an option of a table as tables.NAME.OPTION=VALUE. Repeatable.
    ///
    /// With an option of a table the script is planned here and sent as a graph: tables of the server's catalogue are not known to it then.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
    /// A label. Repeatable.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = key_value)]
    pub labels: Vec<(String, String)>,
    /// Change the job if there is one of this name. A run that is active goes on with its own version.
    #[arg(long)]
    pub apply: bool,
    /// Only say what applying would change.
    #[arg(long)]
    pub dry_run: bool,
    /// Start no run.
    #[arg(long, conflicts_with = "wait")]
    pub no_start: bool,
    /// Follow the run to its end. Ctrl-C leaves it running.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct JobsArguments {
    #[command(subcommand)]
    pub verb: Option<JobsVerb>,
    #[command(flatten)]
    pub list: JobsListArguments,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// Which jobs are listed, by `jobs list` and by `jobs` alone.
#[derive(Debug, Default, PartialEq, Args)]
pub struct JobsListArguments {
    /// Only jobs in this state. Repeatable.
    #[arg(long, value_name = "STATE", value_parser = named::<api::JobState>)]
    pub state: Vec<api::JobState>,
    /// Only jobs with this label. Repeatable.
    #[arg(long, value_name = "NAME=VALUE")]
    pub label: Vec<String>,
    /// Only jobs with this in their names.
    #[arg(short, value_name = "TEXT")]
    pub q: Option<String>,
    /// At most so many. [default: 100]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub enum JobsVerb {
    /// List jobs, newest first. This is what `jobs` alone does.
    List(JobsListArguments),
    /// Show a job and what it computes.
    Get {
        /// Id or name.
        job: String,
    },
    /// Delete a job with its versions, runs and views.
    Delete {
        /// Id or name.
        job: String,
        #[command(flatten)]
        sure: SureArguments,
    },
}

#[derive(Debug, Args)]
pub struct SureArguments {
    /// Do not ask. Needed where stdin is no terminal.
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct RunsArguments {
    #[command(subcommand)]
    pub verb: Option<RunsVerb>,
    #[command(flatten)]
    pub list: RunsListArguments,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// Which runs are listed, by `runs list` and by `runs` alone.
#[derive(Debug, Default, PartialEq, Args)]
pub struct RunsListArguments {
    /// Only runs of this job: its id or name.
    #[arg(long)]
    pub job: Option<String>,
    /// Only runs in this state. Repeatable.
    #[arg(long, value_name = "STATE", value_parser = named::<api::RunState>)]
    pub state: Vec<api::RunState>,
    /// At most so many. [default: 100]
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub enum RunsVerb {
    /// List runs, newest first. This is what `runs` alone does.
    List(RunsListArguments),
    /// Show a run. Instead of a run's id the id or name of a job means its newest run; also in the commands below.
    Get {
        run: String,
        /// Follow it to its end. Ctrl-C leaves it running.
        #[arg(long)]
        wait: bool,
    },
    /// Show its stages with rows, rates, busy and backpressured time.
    Graph { run: String },
    /// Show where each split stands, and which holds the watermark back.
    Watermarks { run: String },
    /// Show the newest rows that came too late.
    LateRows { run: String },
    /// Show the newest records that could not be used.
    DeadLetters { run: String },
    /// Show why it failed.
    Errors { run: String },
    /// Show its moves from state to state.
    Events { run: String },
    /// Show what its processes have logged.
    Logs {
        run: String,
        /// The newest lines, at most so many.
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
        lines: u32,
    },
    /// Show its figures over time.
    Metrics {
        run: String,
        /// Only this series. Repeatable.
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
        /// How far back: 15m. [default: 5m]
        #[arg(long, value_parser = humantime::parse_duration)]
        window: Option<std::time::Duration>,
        /// From one point to the next: 10s.
        #[arg(long, value_parser = humantime::parse_duration)]
        step: Option<std::time::Duration>,
    },
}

#[derive(Debug, Args)]
pub struct StartArguments {
    /// Id or name of a job.
    pub job: String,
    /// Go on from the job's newest checkpoint.
    #[arg(long, conflicts_with = "positions_of")]
    pub latest: bool,
    /// Begin where this run of the job began.
    #[arg(long, value_name = "RUN")]
    pub positions_of: Option<String>,
    /// Go on from a savepoint: its id, the name of one of this job, or its place: a directory on the server's machine, or
    /// s3://bucket/prefix.
    #[arg(long, value_name = "SAVEPOINT", conflicts_with_all = ["latest", "positions_of"])]
    pub savepoint: Option<String>,
    /// A source, operator or sink of the savepoint whose state may be lost, by its id. Repeatable.
    #[arg(long, value_name = "ID", requires = "savepoint")]
    pub allow_dropped_state: Vec<String>,
    /// What happens to what the sinks show of the time after an older savepoint of the same job: error, append_again or truncate_after.
    #[arg(long, value_name = "HOW", requires = "savepoint", value_parser = named::<api::OnRewind>)]
    pub on_rewind: Option<api::OnRewind>,
    /// Follow the run to its end. Ctrl-C leaves it running.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct StopArguments {
    /// Id of a run, or id or name of a job: its newest run.
    pub run: String,
    /// At once; nothing more is committed.
    #[arg(long, conflicts_with = "drain")]
    pub now: bool,
    /// Take the input as ended: windows fire, everything is committed. This is the default.
    #[arg(long)]
    pub drain: bool,
    /// Commit one last checkpoint, leave windows open, and copy the checkpoint into a savepoint, whose name may follow as --savepoint=NAME.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    #[arg(conflicts_with_all = ["now", "drain"])]
    pub savepoint: Option<String>,
    /// Wait until it has stopped.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct SavepointArguments {
    #[command(subcommand)]
    pub verb: SavepointVerb,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Subcommand)]
pub enum SavepointVerb {
    /// Take a savepoint of a job. If it runs, it goes on; else its last checkpoint is copied.
    Create {
        /// Id or name of a job.
        job: String,
        /// Unique among the savepoints of the job: asking again with it finds the first. [default: its id]
        #[arg(long)]
        name: Option<String>,
        /// A directory on the server's machine to put it in, or s3://bucket/prefix. [default: among the data of the server]
        #[arg(long, value_name = "PLACE")]
        location: Option<String>,
        /// Wait until it is completed.
        #[arg(long)]
        wait: bool,
    },
    /// List the savepoints of a job, newest first.
    List {
        /// Id or name of a job.
        job: String,
        /// At most so many. [default: 100]
        #[arg(long, value_name = "N")]
        limit: Option<usize>,
    },
    /// Show a savepoint.
    Show {
        /// Its id.
        savepoint: String,
    },
    /// Say what would become of its state in a job, or in the script or graph of a file.
    Check {
        /// Its id.
        savepoint: String,
        /// Id or name of a job: its newest version.
        #[arg(long, conflicts_with = "file", required_unless_present = "file")]
        job: Option<String>,
        /// A SQL script, or a graph (a name that ends with .json).
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// A source, operator or sink of the savepoint whose state may be lost, by its id. Repeatable.
        #[arg(long, value_name = "ID")]
        allow_dropped_state: Vec<String>,
    },
    /// Delete a savepoint with its files.
    Delete {
        /// Its id.
        savepoint: String,
        #[command(flatten)]
        sure: SureArguments,
    },
}

#[derive(Debug, Args)]
pub struct ViewArguments {
    /// Name of a view.
    pub view: String,
    /// Only rows for which this SQL condition is true: "price > 10 AND item = 'A'".
    #[arg(long, value_name = "CONDITION")]
    pub filter: Option<String>,
    /// COLUMN or "COLUMN desc". Repeatable, or separated by commas.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub order_by: Vec<String>,
    /// Rows at most. [default: 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub limit: Option<u64>,
    /// Rows to leave out at the beginning.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pub offset: Option<u64>,
    /// Only these columns, in this order. Repeatable, or separated by commas.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// The newest complete epoch; this is the default while the job runs.
    #[arg(long, conflicts_with = "durable")]
    pub latest: bool,
    /// What survives the run and the server; this is the default when the job does not run.
    #[arg(long)]
    pub durable: bool,
    /// How the rows are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct ViewsArguments {
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct SqlArguments {
    /// Run this and end. Several statements end with `;` each.
    #[arg(short = 'e', long, value_name = "SQL", conflicts_with = "file")]
    pub execute: Option<String>,
    /// Run this file and end; `-` reads stdin.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// End a query after this time: 30s. Default and maximum: as the server is configured.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub timeout: Option<std::time::Duration>,
    /// How the rows are printed.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct TopArguments {
    /// From one look to the next.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    pub every: std::time::Duration,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct KeysArguments {
    #[command(subcommand)]
    pub verb: KeysVerb,
    /// Work on the metadata below this data directory, without a server.
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "database")]
    pub data: Option<PathBuf>,
    /// Work on the metadata in the Postgres of HIGHWATER_DATABASE (`postgres://...`), without a server.
    #[arg(long, global = true)]
    pub database: bool,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Subcommand)]
pub enum KeysVerb {
    /// Create a key and print it, this once. From the first key on, every request needs one.
    Create {
        /// For people; unique.
        name: String,
        /// viewer sees; operator changes jobs and runs queries too; admin everything.
        #[arg(long, value_parser = named::<api::Role>)]
        role: api::Role,
        /// Refuse it after this time: 30d.
        #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
        expires_in: Option<std::time::Duration>,
    },
    /// List keys; never the keys themselves.
    List,
    /// Refuse a key from now on.
    Revoke {
        /// Its id.
        #[arg(value_name = "KEY")]
        id: String, // an argument called `key` would be the API key of the request
        #[command(flatten)]
        sure: SureArguments,
    },
}

#[derive(Debug, Args)]
pub struct ConnectionsArguments {
    #[command(subcommand)]
    pub verb: Option<ConnectionsVerb>,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Subcommand)]
pub enum ConnectionsVerb {
    /// List connections; secrets are only named. This is what `connections` alone does.
    List,
    /// Show a connection; its secrets are only named.
    Get { name: String },
    /// Create a connection. Tables name it with 'connection' = 'NAME'.
    Create {
        name: String,
        #[arg(long, value_parser = named::<api::ConnectionKind>)]
        kind: api::ConnectionKind,
        /// An option, by the name that tables use. Repeatable.
        #[arg(long = "option", value_name = "NAME=VALUE", value_parser = key_value)]
        options: Vec<(String, String)>,
        /// An option whose value is secret: it is asked for, or read as a line of stdin. Repeatable, a line each.
        #[arg(long = "secret", value_name = "NAME")]
        secrets: Vec<String>,
        /// An option whose value is secret and stands in a file. Repeatable.
        #[arg(long = "secret-file", value_name = "NAME=FILE", value_parser = key_value)]
        secret_files: Vec<(String, String)>,
        /// Replace all options and secrets of one that is there.
        #[arg(long)]
        replace: bool,
    },
    /// Say how far a connection leads, step by step.
    Test { name: String },
    /// Delete a connection that nothing uses.
    Delete {
        name: String,
        #[command(flatten)]
        sure: SureArguments,
    },
}

#[derive(Debug, Args)]
pub struct TablesArguments {
    #[command(subcommand)]
    pub verb: Option<TablesVerb>,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Subcommand)]
pub enum TablesVerb {
    /// List the tables that every script may use. This is what `tables` alone does.
    List,
    /// Show a table and its columns.
    Get { name: String },
    /// Create a table from a file with one CREATE TABLE statement; `-` reads stdin.
    Create { file: PathBuf },
    /// Delete a table. Jobs that were planned with it go on.
    Delete {
        name: String,
        #[command(flatten)]
        sure: SureArguments,
    },
}

#[derive(Debug, Args)]
pub struct FsckArguments {
    /// Id or name of the job.
    pub job: String,
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct WhoamiArguments {
    #[command(flatten)]
    pub form: FormArguments,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// Bytes of a process, written as sizes in settings are, by their parser.
fn memory_bytes(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 32 << 20;
    let size = serde_json::Map::from_iter([("epoch.max-bytes".to_string(), text.into())]);
    let bytes = graph::Settings::from_options(size)
        .map(|settings| settings.epoch_max_bytes)
        .map_err(|_| "it is not a size: write bytes, or 512MiB, 2GiB (KB, MB and GB mean the same)".to_string())?;
    match bytes {
        LEAST.. => Ok(bytes),
        _ => Err(format!("a process needs 32MiB ({LEAST} bytes) at least")),
    }
}

/// A value of an enum by the name that the API gives it.
fn named<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(serde_json::Value::from(text)).map_err(|error| {
        // "unknown variant `x`, expected one of `a`, `b`"
        let text = error.to_string();
        text.split_once(", ").map_or(text.clone(), |(_, expected)| expected.replace('`', ""))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_a_size() {
        for (text, bytes) in [("33554432", 32 << 20), ("100MB", 100 << 20), ("64 MiB", 64 << 20), ("2g", 2 << 30)] {
            assert_eq!(memory_bytes(text), Ok(bytes), "{text}");
        }
        for (text, says) in [("1", "32MiB"), ("31MB", "32MiB"), ("100 MX", "write bytes, or 512MiB"), ("", "2GiB")] {
            assert!(memory_bytes(text).is_err_and(|message| message.contains(says)), "{text}");
        }
    }
}
