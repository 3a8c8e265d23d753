//! Looks at files and networks for a control plane, and ends: see [`control::inspect`].

use std::io::{Read, Write};
use std::process::ExitCode;

use connectors::{AllowedRoots, Registry, ViewHost};
use control::inspect::{Answer, Found, Question};
use views::PublishedBy;

/// Answers the question on standard input.
pub fn inspect_process() -> ExitCode {
    let mut text = Vec::new();
    let read = std::io::stdin().lock().read_to_end(&mut text);
    let Some(question) = read.ok().and_then(|_| serde_json::from_slice::<Question>(&text).ok()) else {
        eprintln!("highwater: this command is for the program's own use; it is never started by hand");
        return ExitCode::from(2);
    };
    let answer = match question {
        Question::Check { graph, settings, allowed_roots, egress: _ } => {
            // Views are served where the run will be.
            let registry =
                Registry::new(AllowedRoots::new(&allowed_roots)).with_views(ViewHost::new("", PublishedBy::default()));
            let workers = (settings.parallelism * settings.processes) as usize;
            let wrong = match engine::plan::plan(&graph, &settings, workers) {
                Ok(plan) => registry.check(&plan),
                Err(error) => vec![error],
            };
            let found = |error: engine::RunError| Found {
                operator: error.operator,
                code: error.code.to_string(),
                message: error.message,
                hint: error.hint,
            };
            Answer::Checked(wrong.into_iter().map(found).collect())
        }
        Question::Connect { .. } => Answer::Connected(Vec::new()),
    };
    let written =
        serde_json::to_vec(&answer).map_err(std::io::Error::other).and_then(|text| std::io::stdout().write_all(&text));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
