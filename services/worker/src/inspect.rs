//! Looks at files and networks for a control plane, and ends: see [`control::inspect`].

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use connectors::ViewHost;
use control::inspect::{Answer, Found, Question, Step};
use views::PublishedBy;

use crate::access::{Access, egress};
use crate::close_up;

/// Answers the question on standard input.
pub fn inspect_process() -> ExitCode {
    if let Err(error) = close_up() {
        eprintln!("highwater: cannot keep others from looking into the process: {error}");
        return ExitCode::FAILURE;
    }
    let mut text = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut text);
    let Some(question) = read.ok().and_then(|_| serde_json::from_slice::<Question>(&text).ok()) else {
        eprintln!("highwater: this command is for the program's own use; it is never started by hand");
        return ExitCode::from(2);
    };
    let answer = match question {
        Question::Check { graph, settings, allowed_roots, connections, egress } => {
            let access = Access { allowed_roots, connections, egress, restricted: true };
            Answer::Checked(check(&graph, &settings, &access))
        }
        Question::Connect { kind, options, egress: allowed, seconds } => {
            let steps = connectors::probe::connect(&kind, &options, &egress(&allowed), Duration::from_secs(seconds));
            let step = |step: connectors::probe::Step| Step {
                name: step.name.to_string(),
                ok: step.ok,
                detail: step.detail,
                elapsed_ms: step.elapsed.as_millis() as u64,
            };
            Answer::Connected(steps.into_iter().map(step).collect())
        }
    };
    let text = serde_json::to_vec(&answer).map_err(std::io::Error::other);
    let written = text.and_then(|text| std::io::stdout().write_all(&text));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(graph: &graph::Graph, settings: &graph::Settings, access: &Access) -> Vec<Found> {
    // Views are served where the run will be.
    let registry = access.registry().with_views(ViewHost::new("", PublishedBy::default()));
    let workers = (settings.parallelism * settings.processes) as usize;
    let wrong = match engine::plan::plan(graph, settings, workers) {
        Ok(plan) => registry.check(&plan),
        Err(error) => vec![error],
    };
    let found = |error: engine::RunError| Found {
        operator: error.operator,
        code: error.code.to_string(),
        message: error.message,
        hint: error.hint,
    };
    wrong.into_iter().map(found).collect()
}
