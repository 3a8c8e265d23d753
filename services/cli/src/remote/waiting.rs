//! Following a run to its end. Ctrl-C leaves the run alone: it says how to go on.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use api::{Run, RunState};
use client::Client;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::arguments::DEFAULT_SERVER;
use super::failure::{Failure, run_failure};
use super::listing::{number, run_state, span, watermark};
use crate::Exit;
use crate::output::say;

/// Shorter runs show no bar.
const PATIENCE: Duration = Duration::from_millis(300);

/// What a command must say to reach the same server again.
pub struct Hints {
    pub server: String,
}

impl Hints {
    fn suffix(&self) -> String {
        let known = std::env::var("HIGHWATER_SERVER").unwrap_or_else(|_| DEFAULT_SERVER.into());
        if self.server == known { String::new() } else { format!(" --server {}", self.server) }
    }
}

/// Waits for the end of a run, and says how it ended.
pub async fn wait(client: &Client, run: &str, hints: &Hints) -> Result<Run, Failure> {
    let mut bar = Bar::new();
    let every = if bar.wanted { Duration::from_millis(500) } else { Duration::from_secs(30) };
    let ended = {
        let follow = client.wait_run(run, every, |run| bar.show(run));
        tokio::select! {
            ended = follow => Some(ended),
            _ = tokio::signal::ctrl_c() => None,
        }
    };
    bar.clear();
    let Some(ended) = ended else {
        let suffix = hints.suffix();
        say(&format!(
            "left {run} running\n  follow it again:  highwater runs get {run} --wait{suffix}\n  stop it:          highwater stop {run}{suffix}\n"
        ));
        return Err(Failure::Interrupted);
    };
    let run = ended?;
    say(&ending(&run));
    Ok(run)
}

/// What the end of a run means for who has waited for it.
pub fn exit(run: &Run) -> Exit {
    match run.state {
        RunState::Finished => Exit::Done,
        _ => Exit::Failed,
    }
}

/// A few lines about a run that has ended.
fn ending(run: &Run) -> String {
    let progress = &run.progress;
    let took = run.started_at.zip(run.ended_at).map(|(from, to)| (to - from).num_milliseconds());
    let took = took.map(|ms| format!(" in {}", span(ms))).unwrap_or_default();
    format!(
        "{}{} {}{took}: {} rows in, {} rows out, late {}, dead letters {}\n",
        run_failure(run),
        run.job_name,
        run_state(run.state),
        number(progress.rows_in),
        number(progress.rows_out),
        number(progress.late_rows),
        number(progress.dead_letters)
    )
}

/// How far a run is, in words.
fn state(run: &Run, rate: Option<f64>) -> String {
    let progress = &run.progress;
    let mut text = format!("{}: {} rows", run_state(run.state), number(progress.rows_in));
    if let Some(rate) = rate {
        text.push_str(&format!(", {}/s", number(rate as u64)));
    }
    let watermark = watermark(progress);
    if !watermark.is_empty() {
        text.push_str(&format!(", watermark {watermark}"));
    }
    if let (Some(lag), false) = (progress.lag_ms, progress.final_watermark) {
        text.push_str(&format!(", lag {}", span(lag)));
    }
    if let Some(records) = progress.lag_records {
        text.push_str(&format!(", {} records behind", number(records)));
    }
    if let Some(waiting) = &run.waiting_for {
        text.push_str(&format!(", waiting for {}", crate::output::visible(waiting)));
    }
    text
}

/// Draws on stderr, if that is a terminal.
struct Bar {
    wanted: bool,
    began: Instant,
    bar: Option<ProgressBar>,
    last: Option<(Instant, u64)>,
    rate: Option<f64>,
}

impl Bar {
    fn new() -> Bar {
        Bar { wanted: std::io::stderr().is_terminal(), began: Instant::now(), bar: None, last: None, rate: None }
    }

    fn show(&mut self, run: &Run) {
        let now = Instant::now();
        let rows = run.progress.rows_in;
        if let Some((then, before)) = self.last {
            let seconds = now.duration_since(then).as_secs_f64().max(1e-3);
            self.rate = Some(rows.saturating_sub(before) as f64 / seconds);
        }
        self.last = Some((now, rows));
        if !self.wanted || self.began.elapsed() < PATIENCE {
            return;
        }
        let expected = run.progress.expected_rows.filter(|rows| *rows > 0);
        if self.bar.as_ref().is_some_and(|bar| bar.length() != expected) {
            self.clear();
        }
        let bar = self.bar.get_or_insert_with(|| drawn(expected));
        bar.set_position(rows);
        bar.set_message(state(run, self.rate));
        bar.tick();
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn drawn(expected: Option<u64>) -> ProgressBar {
    let (bar, template) = match expected {
        Some(rows) => (ProgressBar::new(rows), "{spinner} [{bar:30}] {percent:>3}% {msg}"),
        None => (ProgressBar::no_length(), "{spinner} {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    bar.with_style(ProgressStyle::with_template(template).expect("the template is right").progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(changes: serde_json::Value) -> Run {
        let mut run = json!({
            "id": "run_1", "job_id": "job_1", "job_name": "flights", "version": 1, "state": "running",
            "since": "2026-01-02T03:04:05Z", "attempts": 1, "from": "fresh", "start_positions": {},
            "progress": {
                "epoch": 7, "committed_epoch": 6, "rows_in": 12345, "rows_out": 10, "final_watermark": false,
                "late_rows": 2, "dead_letters": 3, "state_bytes": 0, "resident_bytes": 0,
                "watermark": "2001-01-01T00:00:00Z", "lag_ms": 1500
            },
            "created_at": "2026-01-02T03:04:05Z", "started_at": "2026-01-02T03:04:05Z"
        });
        for (name, value) in changes.as_object().expect("an object") {
            run[name] = value.clone();
        }
        serde_json::from_value(run).expect("a run")
    }

    #[test]
    fn a_run_is_followed_in_words() {
        assert_eq!(
            state(&run(json!({})), Some(1000.4)),
            "running: 12,345 rows, 1,000/s, watermark 2001-01-01 00:00:00, lag 1.5 s"
        );
        assert_eq!(
            ending(&run(json!({"state": "finished", "ended_at": "2026-01-02T03:04:07Z"}))),
            "flights finished in 2.0 s: 12,345 rows in, 10 rows out, late 2, dead letters 3\n"
        );
    }

    #[test]
    fn only_a_finished_run_is_a_success() {
        for (state, expected) in [("finished", Exit::Done), ("failed", Exit::Failed), ("cancelled", Exit::Failed)] {
            assert_eq!(exit(&run(json!({"state": state}))), expected, "{state}");
        }
    }
}
