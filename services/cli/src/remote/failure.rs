//! What went wrong between this program and a server: for people, and as an exit code.

use api::{Problem, ProblemItem, Run};
use graph::Place;
use miette::Severity;

use crate::Exit;
use crate::output::{say, visible};
use crate::problems::{self, Source};
use crate::script::Refused;

/// How a command ends.
pub type Done = Result<Exit, Failure>;

/// Why a command did not do what it should.
#[derive(Debug)]
pub enum Failure {
    /// The server, or the way to it; perhaps with the script that it is about.
    Server { error: client::Error, source: Option<Box<Source>> },
    /// An argument, or what it names.
    Wrong(String),
    /// The script cannot be planned.
    Refused(Box<Refused>),
    /// What is asked for is not there, though the server is.
    NotThere(String),
    /// What is there does not allow it.
    Taken(String),
    /// A store that cannot be reached.
    Away(String),
    /// Stdout takes nothing, or not this.
    Output(std::io::Error),
    /// Rows came that cannot be shown.
    Rows(String),
    /// Ctrl-C.
    Interrupted,
    /// What is wrong stands on stderr already.
    Told,
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        Failure::Server { error, source: None }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        Failure::Refused(Box::new(refused))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl Failure {
    /// With the script that the server was given.
    pub fn about(error: client::Error, source: &Source) -> Failure {
        Failure::Server { error, source: Some(Box::new(source.clone())) }
    }

    /// Says it on stderr.
    pub fn show(&self) -> Exit {
        match self {
            Failure::Server { error, source } => {
                show_error(error, source.as_deref());
                exit(error)
            }
            Failure::Wrong(message) => {
                say(&format!("error: {message}\n"));
                Exit::Invalid
            }
            Failure::Refused(refused) => {
                refused.show();
                Exit::Invalid
            }
            Failure::NotThere(message) => {
                say(&format!("error: {message}\n"));
                Exit::NotFound
            }
            Failure::Taken(message) => {
                say(&format!("error: {message}\n"));
                Exit::Conflict
            }
            Failure::Away(message) => {
                say(&format!("error: {message}\n"));
                Exit::Unreachable
            }
            Failure::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
            Failure::Output(error) => crate::output::unwritable(error),
            Failure::Rows(message) => {
                say(&format!("error: {message}\n"));
                Exit::Failed
            }
            Failure::Interrupted => Exit::Interrupted,
            Failure::Told => Exit::Invalid,
        }
    }
}

/// Which exit code an error of the server means.
fn exit(error: &client::Error) -> Exit {
    let client::Error::Problem(problem) = error else {
        return match error {
            client::Error::Url { .. } | client::Error::Key => Exit::Invalid,
            client::Error::Broken { .. } => Exit::Failed,
            _ => Exit::Unreachable,
        };
    };
    match problem.status {
        _ if ["query_failed", "query_timeout"].contains(&problem.code.as_str()) => Exit::Failed,
        401 | 429 | 503 => Exit::Unreachable,
        404 => Exit::NotFound,
        409 | 412 | 428 => Exit::Conflict,
        500 => Exit::Internal,
        _ => Exit::Invalid,
    }
}

fn show_error(error: &client::Error, source: Option<&Source>) {
    let text = match error {
        client::Error::Problem(problem) => {
            if !problem.errors.is_empty() {
                show_items(&problem.errors, Severity::Error, source);
                say("\n");
            }
            problem_text(problem)
        }
        client::Error::Unreachable { .. } => format!(
            "error[unreachable]: {}\n  = help: start one with `highwater serve`, or name it with --server or HIGHWATER_SERVER\n",
            visible(&error.to_string())
        ),
        client::Error::NotOurs { .. } => {
            format!("error[no_server]: {}\n  = help: check --server or HIGHWATER_SERVER\n", visible(&error.to_string()))
        }
        client::Error::Broken { .. } => format!(
            "error[rows_broke_off]: {}\n  = help: the query failed or took too long after its first rows, or the server ended; ask again\n",
            visible(&error.to_string())
        ),
        other => format!("error: {}\n", visible(&other.to_string())),
    };
    let text = match source {
        Some(source) => source.secrets.hide(&text),
        None => text,
    };
    say(&text);
}

/// Title, detail, what to do, and how the request is called in the server's log.
fn problem_text(problem: &Problem) -> String {
    let mut text = format!("error[{}]: {}\n", visible(&problem.code), visible(&problem.title));
    if !problem.detail.is_empty() {
        text.push_str(&format!("  {}\n", visible(&problem.detail)));
    }
    if let Some(hint) = hint(problem) {
        text.push_str(&format!("  = help: {}\n", visible(&hint)));
    }
    if let Some(request) = &problem.request_id {
        text.push_str(&format!("  = request: {}\n", visible(request)));
    }
    text
}

/// What to do, as a command where the server names a path of REST.
fn hint(problem: &Problem) -> Option<String> {
    match problem.code.as_str() {
        "unauthenticated" => Some(
            "set HIGHWATER_KEY to an API key; an admin makes keys with `highwater keys create NAME --role ROLE`, and whoever has none \
             makes one on the machine of the server, while it is stopped: `highwater keys create NAME --role admin --data DIR`"
                .into(),
        ),
        "run_active" => {
            let named = problem.detail.split_whitespace().next();
            let run = named.filter(|word| api::IdKind::Run.parse(word).is_some()).unwrap_or("JOB");
            Some(format!("wait for its end, or stop it: `highwater stop {run} --wait`"))
        }
        _ => problem.hint.clone(),
    }
}

/// Shows what is wrong with, or should be known about, a script or graph.
pub fn show_items(items: &[ProblemItem], severity: Severity, source: Option<&Source>) {
    let of_items;
    let source = match source {
        Some(source) => source,
        None => {
            // The lines that are spoken of are all that is known of the script.
            let lines = items.iter().filter_map(|item| item.line).max().unwrap_or(0);
            let line = |number: u64| items.iter().find(|item| item.line == Some(number))?.excerpt.clone();
            let text: Vec<String> = (1..=lines.min(100_000)).map(|number| line(number).unwrap_or_default()).collect();
            of_items = Source::new("script", text.join("\n"));
            &of_items
        }
    };
    let problems: Vec<graph::Problem> = items.iter().map(problem_of).collect();
    problems::show(&problems, severity, source);
}

fn problem_of(item: &ProblemItem) -> graph::Problem {
    let mut problem = graph::Problem::new(item.code.clone(), item.message.clone());
    problem.hint = item.hint.clone();
    match (item.line, item.column, &item.pointer) {
        (Some(line), Some(column), _) => {
            let end_line = item.end_line.unwrap_or(line);
            problem.at(Place::Span { line, column, end_line, end_column: item.end_column.unwrap_or(column + 1) })
        }
        (_, _, Some(pointer)) => problem.pointer(pointer.strip_prefix("/graph").unwrap_or(pointer)),
        _ => problem,
    }
}

/// Why a run failed.
pub fn run_failure(run: &Run) -> String {
    let Some(failure) = &run.failure else { return String::new() };
    let problem = &failure.problem;
    let mut text = format!("error[{}]: {}\n", visible(&problem.code), visible(&problem.detail));
    if let Some(operator) = &failure.operator {
        text.push_str(&format!("  operator: {}\n", visible(operator)));
    }
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("  = help: {}\n", visible(hint)));
    }
    if failure.fault == api::Fault::Internal {
        text.push_str("  This is a bug of highwater: see `highwater runs logs`.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, code: &str) -> client::Error {
        client::Error::Problem(Box::new(Problem {
            kind: format!("/docs/problems/{code}"),
            title: "A title".into(),
            status,
            detail: "what was tried, and why not".into(),
            instance: None,
            code: code.into(),
            hint: Some("do this".into()),
            request_id: Some("r-1".into()),
            errors: Vec::new(),
        }))
    }

    #[test]
    fn every_kind_of_failure_has_its_exit_code() {
        for (status, code, expected) in [
            (401, "unauthenticated", Exit::Unreachable),
            (403, "forbidden", Exit::Invalid),
            (404, "job_not_found", Exit::NotFound),
            (409, "name_taken", Exit::Conflict),
            (412, "precondition_failed", Exit::Conflict),
            (422, "invalid_graph", Exit::Invalid),
            (422, "query_failed", Exit::Failed),
            (504, "query_timeout", Exit::Failed),
            (503, "not_ready", Exit::Unreachable),
            (500, "internal", Exit::Internal),
        ] {
            assert_eq!(exit(&problem(status, code)), expected, "{status} {code}");
        }
        let unreachable = client::Error::Unreachable { url: "http://a".into(), cause: "no".into() };
        assert_eq!(exit(&unreachable), Exit::Unreachable);
    }

    #[test]
    fn a_run_that_is_in_the_way_is_stopped_with_a_command() {
        let client::Error::Problem(mut problem) = problem(409, "run_active") else { panic!() };
        problem.detail = "run_0193456789ab7def8123456789abcdef of the job is running".into();
        let text = problem_text(&problem);
        assert!(text.contains("`highwater stop run_0193456789ab7def8123456789abcdef --wait`"), "{text}");
        problem.detail = "another is active".into();
        assert!(problem_text(&problem).contains("`highwater stop JOB --wait`"));
    }

    #[test]
    fn a_problem_says_title_detail_help_and_request() {
        let client::Error::Problem(problem) = problem(409, "name_taken") else { panic!() };
        assert_eq!(
            problem_text(&problem),
            "error[name_taken]: A title\n  what was tried, and why not\n  = help: do this\n  = request: r-1\n"
        );
    }
}
