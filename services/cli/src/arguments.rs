//! The arguments of the program. What stands here as a comment is what `--help` says.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::remote;

/// Unified batch/stream analytics: one graph, written as SQL or JSON, over files or live streams.
#[derive(Debug, Parser)]
#[command(name = "highwater", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done; 1 the run failed; 2 the script, the graph, the arguments or the request are wrong; \
                  3 there is no such thing; 4 it conflicts with what is there; 5 no server, no key, or no room; \
                  70 a bug of highwater; 130 interrupted."
)]
pub struct Arguments {
    /// Say more on stderr about what goes on; twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a SQL script or a graph in this process, without a server.
    ///
    /// A run over bounded input ends with it, and publishes its results then, or nothing. A run with an unbounded source goes on until
    /// Ctrl-C, which commits the last complete epoch; a second Ctrl-C ends the program at once.
    Run(RunArguments),
    /// Say whether a script or graph can run, and what holds for each of its operators; nothing is read or run.
    Validate(ValidateArguments),
    /// Show the graph of a script and the stages that it runs as.
    Explain(ScriptArguments),
    /// Serve REST: jobs, runs, views and queries. Runs go on when the server ends, and are found again.
    ///
    /// The first line of stdout is `listening on http://ADDRESS`. Ctrl-C or SIGTERM ends the server in order.
    Serve(ServeArguments),
    #[command(flatten)]
    Remote(remote::Command),
    /// Print a script that completes commands and options in a shell.
    Completion {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Take part in a run of another process of the program.
    #[command(hide = true)]
    JobProcess {
        /// Logs as lines of JSON.
        #[arg(long)]
        log_lines: bool,
    },
    /// Look at files and networks for a server: a question on stdin, an answer on stdout.
    #[command(hide = true)]
    Inspect,
    /// Run the attempt that a server describes in a directory.
    #[command(hide = true)]
    Attempt {
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct ServeArguments {
    /// Address and port; port 0 takes a free one. Another than a loopback address needs an API key. [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Directory of everything that the server keeps. [default: ./highwater-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// `postgres://...` for the metadata; without it SQLite below the data directory.
    #[arg(long, value_name = "URL", env = "HIGHWATER_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Where checkpoints are kept: a directory, or s3://bucket/prefix. [default: checkpoints/ below the data directory]
    #[arg(long, value_name = "PLACE")]
    pub storage: Option<String>,
    /// How an object store is reached, as NAME=VALUE: s3.endpoint, s3.region; may be repeated. Keys belong into the environment
    /// (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) or the configuration file.
    #[arg(long = "storage-option", value_name = "NAME=VALUE", value_parser = key_value)]
    pub storage_options: Vec<(String, String)>,
    /// A local directory that tables and savepoints may use, or s3://bucket/prefix for savepoints, reached as the storage is; may be
    /// repeated. Default: none.
    #[arg(long, value_name = "DIR")]
    pub allow_root: Vec<PathBuf>,
    /// Where connectors may connect: HOST, HOST:PORT, a network as 10.0.0.0/8, `loopback` or `anywhere`; may be repeated.
    /// Default: `loopback` where the server listens on a loopback address, else nowhere.
    #[arg(long, value_name = "ENDPOINT")]
    pub allow_endpoint: Vec<String>,
    /// A file in JSON with these and further settings, see docs/service.md; arguments come before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ScriptArguments {
    /// A SQL script, or a graph (a name that ends with .json); `-` reads either from stdin.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Worker threads per process.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    pub parallelism: Option<u64>,
    /// Processes of the run, all on this machine.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub processes: Option<u64>,
    /// A setting of the job, or an option of a table as tables.NAME.OPTION=VALUE; stands above what the script says. Repeatable.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct RootArguments {
    /// A further directory whose files tables may read and write. Repeatable.
    ///
    /// Without it: the working directory and the directory for temporary files, or instead of these the directories of
    /// HIGHWATER_ALLOWED_ROOTS (separated by colons).
    #[arg(long = "allow-root", value_name = "DIR")]
    pub allow_roots: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ValidateArguments {
    #[command(flatten)]
    pub script: ScriptArguments,
    #[command(flatten)]
    pub roots: RootArguments,
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value_t = Answer::Text)]
    pub output: Answer,
}

#[derive(Debug, Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub script: ScriptArguments,
    /// How the rows of print tables, and of a SELECT, are printed on stdout.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    #[command(flatten)]
    pub roots: RootArguments,
    /// Only rows and errors: no progress, warnings or summary.
    #[arg(short, long)]
    pub quiet: bool,
    /// No progress bar.
    #[arg(long)]
    pub no_progress: bool,
    /// How the run is summed up on stderr; json is one object on the last line.
    #[arg(long, value_enum, default_value_t = Answer::Text)]
    pub summary: Answer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table; rows as aligned lines if the run is unbounded.
    Table,
    /// One JSON object per line.
    Json,
    /// Comma separated values with a header.
    Csv,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Answer {
    Text,
    Json,
}

pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_string(), value.to_string())),
        _ => Err("write KEY=VALUE, such as epoch.interval=500ms or tables.bids.path=bids.jsonl".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_declaration_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_run_takes_its_options_in_any_order() {
        let line = "highwater run -o json q.sql --set a.b=c=d --parallelism 3 --set tables.t.path=x.csv --processes 2 \
                    --allow-root /a --allow-root /b -q --no-progress --summary json -vv";
        let Arguments { verbose: 2, command: Command::Run(run) } = parse(line).unwrap() else { panic!("{line}") };
        let set = [("a.b", "c=d"), ("tables.t.path", "x.csv")].map(|(key, value)| (key.to_string(), value.to_string()));
        assert_eq!(run.script.set, set, "only the first = separates");
        assert_eq!((run.script.parallelism, run.script.processes), (Some(3), Some(2)));
        assert_eq!((run.output, run.summary, run.quiet, run.no_progress), (Output::Json, Answer::Json, true, true));
        assert_eq!(run.roots.allow_roots, [PathBuf::from("/a"), PathBuf::from("/b")]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_2() {
        for line in [
            "highwater",
            "highwater run",
            "highwater run a.sql b.sql",
            "highwater run a.sql -o xml",
            "highwater run a.sql --parallelism 0",
            "highwater run a.sql --processes 65",
            "highwater run a.sql --set parallelism",
            "highwater run a.sql --set =3",
            "highwater explain a.sql --allow-root /",
            "highwater completion tcsh",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("highwater --version").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn help_hides_what_is_for_the_program_itself() {
        let help = Arguments::command().render_long_help().to_string();
        assert!(help.contains("validate") && help.contains("130 interrupted"), "{help}");
        assert!(!help.contains("job-process") && !help.contains("attempt"), "{help}");
    }
}
