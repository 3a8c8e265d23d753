//! The command line: reads scripts and graphs, runs them in this process, shows what comes out; serves REST, and asks who serves it.
//!
//! [`main`] is the whole program. Rows and answers go to stdout, everything said about them to stderr; the exit codes are [`Exit`]'s.
//! `script` makes a file into a graph that can run, `run` runs it, `printing` shows its rows, `summary` and `progress` how it went,
//! `problems` what is wrong, and `secrets` what must not be shown of it. `serve` is the server, `remote` are the commands that ask one. This crate knows nothing of operators or of SQL's grammar.

mod answers;
mod arguments;
mod output;
mod printing;
mod problems;
mod progress;
mod remote;
mod roots;
mod run;
mod script;
mod secrets;
mod serve;
mod summary;

use std::io::IsTerminal;
use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::{CommandFactory, Parser};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; also when the reader of stdout has had enough.
    Done = 0,
    /// The run failed: its input, another system, or this machine.
    Failed = 1,
    /// The script, the graph, the arguments or the request are wrong; nothing ran.
    Invalid = 2,
    /// There is no such thing on the server.
    NotFound = 3,
    /// What is there on the server does not allow it: a name is taken, a run is active or has ended.
    Conflict = 4,
    /// The server (or its store, for who serves) cannot be reached, does not know who asks, or has no room now.
    Unreachable = 5,
    /// A bug of ours.
    Internal = worker::EXIT_INTERNAL as isize,
    /// Ended by Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// The program.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(help) if !help.use_stderr() => {
            let text = help.render();
            let colours = std::io::stdout().is_terminal() && !output::colourless();
            let text = if colours { text.ansi().to_string() } else { text.to_string() };
            return output::answer(text.as_bytes()).into();
        }
        Err(error) => {
            // If stderr takes nothing, the exit code has to do.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match &arguments.command {
        Command::Attempt { .. } | Command::JobProcess { log_lines: true } => worker::log_lines(),
        Command::Serve(_) => log(arguments.verbose.max(1), true),
        _ => log(arguments.verbose, false),
    }
    match &arguments.command {
        Command::JobProcess { .. } => return worker::job_process(),
        Command::Attempt { directory } => return worker::attempt_process(directory),
        Command::Inspect => return worker::inspect_process(),
        _ => {}
    }
    worker::report_panics(false);
    let exit = match &arguments.command {
        Command::Run(run) => run::run(run, arguments.verbose),
        Command::Serve(serve) => serve::serve(serve),
        Command::Remote(command) => remote::run(command),
        Command::Validate(validate) => answers::validate(validate),
        Command::Explain(script) => answers::explain(script),
        Command::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "highwater", &mut text);
            output::answer(&text)
        }
        Command::JobProcess { .. } | Command::Attempt { .. } | Command::Inspect => {
            unreachable!("a process for the program's own use has left already")
        }
    };
    exit.into()
}

/// Warnings always; with -v what goes on, with -vv everything. A command's user knows what time it is; who reads a server's log does not.
fn log(verbose: u8, times: bool) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    let subscriber =
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(verbose > 1);
    let subscriber = subscriber.with_ansi(output::colours());
    if times { subscriber.init() } else { subscriber.without_time().init() }
}
