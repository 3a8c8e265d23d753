//! Looks at files and networks for a control plane, and ends: see [`control::inspect`].

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use connectors::ViewHost;
use control::inspect::{Answer, Found, Question, Refused, Step};
use state::savepoint::Description;
use views::PublishedBy;

use crate::access::{Access, egress};
use crate::{close_up, fsck, savepoints};

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
        Question::Export { checkpoints, job, checkpoint, job_name, graph, to } => {
            let description = Description { job_name, graph };
            let exported = savepoints::export(checkpoints, &job, &checkpoint, description, &to);
            Answer::Exported(wait(exported).unwrap_or_else(Err))
        }
        Question::Judge { from, options, into, seconds } => {
            let judged = savepoints::judge(&from, &options, &into, Duration::from_secs(seconds));
            Answer::Judged(wait(judged).unwrap_or_else(Err))
        }
        Question::Import { from, manifest_sha256, into, checkpoints, run, epoch } => {
            let imported = savepoints::import(&from, &manifest_sha256, &into, checkpoints, run, epoch);
            Answer::Imported(wait(imported).unwrap_or_else(Err))
        }
        Question::Fsck { checkpoints, job, retained, grace_us } => {
            let compared = fsck::compare(checkpoints, &job, &retained, grace_us);
            Answer::Compared(wait(compared).unwrap_or_else(Err))
        }
    };
    let text = serde_json::to_vec(&answer).map_err(std::io::Error::other);
    let written = text.and_then(|text| std::io::stdout().write_all(&text));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn wait<T>(work: impl Future<Output = T>) -> Result<T, Refused> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| Refused {
        code: "process_failed".into(),
        message: format!("cannot start threads: {error}"),
        judged: Vec::new(),
    })?;
    Ok(runtime.block_on(work))
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
