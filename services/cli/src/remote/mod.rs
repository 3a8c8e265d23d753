//! Commands that ask a server: they are clients of REST, as any other program would be.
//!
//! `arguments` says what they take; a file per command says what they do; `failure` what it means when that does not work, `listing` how
//! answers are shown, `waiting` how a run is followed. Nothing here knows how a server works inside, except `keys`, which can also make the
//! first key before there is a server.

pub mod arguments;
mod connections;
mod failure;
mod fsck;
mod jobs;
mod keys;
mod listing;
mod runs;
mod savepoints;
mod sql;
mod startstop;
mod submit;
mod tables;
mod terminal;
mod top;
mod views;
mod waiting;
mod whoami;

use std::time::Duration;

use client::{Client, Retries};

use crate::Exit;
use arguments::{
    ConnectionsArguments, FsckArguments, JobsArguments, KeysArguments, RunsArguments, SavepointArguments,
    ServerArguments, SqlArguments, StartArguments, StopArguments, SubmitArguments, TablesArguments, TopArguments,
    ViewArguments, ViewsArguments, WhoamiArguments,
};
use failure::{Done, Failure};

/// Who sits at a terminal wants to know soon that nobody listens.
const RETRIES: Retries = Retries { attempts: 4, within: Duration::from_secs(5) };

/// A command that asks a server.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Store a script or graph as a job of a server, and start it.
    Submit(SubmitArguments),
    /// List, show and delete jobs.
    Jobs(JobsArguments),
    /// List runs, and see what they do.
    Runs(RunsArguments),
    /// Start a run of a job.
    Start(StartArguments),
    /// Stop a run.
    Stop(StopArguments),
    /// Take, list, show, check and delete savepoints: copies of jobs' states in an open format.
    Savepoint(SavepointArguments),
    /// Compare the checkpoints of a job with their files: all there, each as it was written, nothing left over.
    Fsck(FsckArguments),
    /// Show the rows of a view.
    View(ViewArguments),
    /// List views.
    Views(ViewsArguments),
    /// Query tables and views; without -e and -f a shell with history and completion.
    Sql(SqlArguments),
    /// Show what runs, live; q ends it. Once, if stdout is no terminal.
    Top(TopArguments),
    /// Create, list and revoke API keys.
    Keys(KeysArguments),
    /// Create, list, test and delete connections to other systems.
    Connections(ConnectionsArguments),
    /// Create, list and delete tables that every script may use.
    Tables(TablesArguments),
    /// Say who the server takes you for.
    Whoami(WhoamiArguments),
}

/// Runs a command to its exit code; what went wrong is on stderr then.
pub fn run(command: &Command) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::output::say(&format!("error: cannot start threads: {error}\n"));
            return Exit::Failed;
        }
    };
    let done = runtime.block_on(async {
        match command {
            Command::Submit(submit) => submit::submit(submit).await,
            Command::Jobs(jobs) => jobs::jobs(jobs).await,
            Command::Runs(runs) => runs::runs(runs).await,
            Command::Start(start) => startstop::start(start).await,
            Command::Stop(stop) => startstop::stop(stop).await,
            Command::Savepoint(savepoint) => savepoints::savepoint(savepoint).await,
            Command::Fsck(arguments) => fsck::fsck(arguments).await,
            Command::View(view) => views::view(view).await,
            Command::Views(views) => views::views(views).await,
            Command::Sql(sql) => sql::sql(sql).await,
            Command::Top(top) => top::top(top).await,
            Command::Keys(keys) => keys::keys(keys).await,
            Command::Connections(connections) => connections::connections(connections).await,
            Command::Tables(tables) => tables::tables(tables).await,
            Command::Whoami(whoami) => whoami::whoami(whoami).await,
        }
    });
    runtime.shutdown_background();
    done.unwrap_or_else(|failure| failure.show())
}

fn connect(arguments: &ServerArguments) -> Result<Client, Failure> {
    let key = arguments.key.clone().filter(|key| !key.is_empty());
    Ok(Client::new(&arguments.server, key)?.retries(RETRIES))
}

/// The run that is meant: by its id, or as the newest run of a job.
async fn run_of(client: &Client, named: &str) -> Result<String, Failure> {
    if api::IdKind::Run.parse(named).is_some() {
        return Ok(named.to_string());
    }
    let job = client.job(named).await?.job;
    job.latest_run.ok_or_else(|| Failure::NotThere(format!("job '{}' has no run yet", job.name)))
}

/// Where relative paths of a script begin, which the server cannot know; `None` if it has gone, or has no name in Unicode.
fn working_directory() -> Option<String> {
    std::env::current_dir().ok()?.to_str().map(str::to_string)
}

/// What chooses among all stands before a command for one of them.
fn only_of_list(of: &str) -> Failure {
    Failure::Wrong(format!("what {of} are listed stands behind list: highwater {of} list ..."))
}

/// Asks before something is gone.
fn sure(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !terminal::can_ask() {
        return Err(Failure::Wrong(format!("{what} needs --yes where stdin is no terminal")));
    }
    match terminal::ask(&format!("{what}? [y/N] ")) {
        Some(answer) if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) => Ok(()),
        _ => Err(Failure::Wrong("nothing was done".into())),
    }
}

fn done() -> Done {
    Ok(Exit::Done)
}
