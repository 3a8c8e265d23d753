//! A bar, or a line, that says how far a run has come.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::plan::{Plan, StageKind};
use engine::runtime::{Progress, WM_FINAL, WM_MIN};
use formats::text::{TimestampFormat, write_timestamp};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::summary::grouped;

/// Runs shorter than this show nothing.
const PATIENCE: Duration = Duration::from_millis(300);

/// Draws on stderr, if that is a terminal.
pub struct Bar {
    bar: Mutex<Option<ProgressBar>>,
    wanted: bool,
    /// How many others are writing to the terminal; meanwhile nothing is drawn.
    others: AtomicUsize,
    began: Instant,
    /// Positions of the sources among the plan's stages.
    sources: Vec<usize>,
}

impl Bar {
    pub fn new(plan: &Plan, wanted: bool) -> Bar {
        let sources = plan.stages.iter().enumerate().filter(|(_, stage)| matches!(stage.kind, StageKind::Source(_)));
        Bar {
            bar: Mutex::new(None),
            others: AtomicUsize::new(0),
            wanted: wanted && std::io::stderr().is_terminal(),
            began: Instant::now(),
            sources: sources.map(|(position, _)| position).collect(),
        }
    }

    pub fn show(&self, progress: &Progress) {
        if !self.wanted || self.began.elapsed() < PATIENCE || self.others.load(Ordering::SeqCst) > 0 {
            return;
        }
        let mut bar = self.bar.lock().expect("nothing panics while it draws");
        let bar = bar.get_or_insert_with(|| drawn(progress.expected_rows));
        let state = self.state(progress, self.began.elapsed());
        bar.set_position(state.rows);
        bar.set_message(state.text);
        bar.tick();
    }

    fn state(&self, progress: &Progress, elapsed: Duration) -> Shown {
        let counts = || self.sources.iter().filter_map(|position| progress.counts.get(*position));
        let rows: u64 = counts().map(|count| count.rows_in).sum();
        let rate = (rows as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
        let mut text = format!("{} rows, {}/s", grouped(rows), grouped(rate));
        // The run is as far as its slowest source.
        match counts().map(|count| count.watermark).min() {
            None | Some(WM_MIN) => {}
            // The furthest of several processes has read all that is its own: that is not how far the run is.
            Some(WM_FINAL) if progress.expected_rows.is_some_and(|expected| rows < expected) => {}
            Some(WM_FINAL) => text.push_str(", input read"),
            Some(watermark) => {
                let mut time = Vec::new();
                if write_timestamp(&mut time, watermark.div_euclid(1_000_000), 0, false, TimestampFormat::Sql).is_ok() {
                    text.push_str(&format!(", watermark {}", String::from_utf8_lossy(&time)));
                }
            }
        }
        text.push_str(&format!(", epoch {}", progress.epoch));
        Shown { rows, text }
    }

    /// Does something with the terminal while the bar is away. No lock is held meanwhile: what is done may take for ever, when nobody
    /// reads, and a Ctrl-C must still be obeyed.
    pub fn without<T>(&self, does: impl FnOnce() -> T) -> T {
        self.others.fetch_add(1, Ordering::SeqCst);
        self.clear();
        let done = does();
        self.others.fetch_sub(1, Ordering::SeqCst);
        done
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = self.bar.lock().expect("nothing panics while it draws").take() {
            bar.finish_and_clear();
        }
    }
}

struct Shown {
    rows: u64,
    text: String,
}

fn drawn(expected: Option<u64>) -> ProgressBar {
    let (bar, template) = match expected {
        Some(rows) if rows > 0 => (ProgressBar::new(rows), "{spinner} [{bar:30}] {percent:>3}% {msg}"),
        _ => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template(template).expect("the template is right");
    bar.with_style(style.progress_chars("=> "))
}

#[cfg(test)]
mod tests {
    use engine::runtime::OperatorCounts;

    use super::*;

    #[test]
    fn the_slowest_source_is_how_far_a_run_is() {
        let bar = Bar {
            bar: Mutex::new(None),
            wanted: false,
            others: AtomicUsize::new(0),
            began: Instant::now(),
            sources: vec![0, 2],
        };
        let count = |rows_in, watermark| OperatorCounts { rows_in, watermark, ..OperatorCounts::default() };
        let shown = |first, second| {
            let counts = vec![count(1500, first), count(9, 9), count(500, second)];
            bar.state(&Progress { epoch: 7, counts, ..Progress::default() }, Duration::from_secs(2)).text
        };
        let day_us = 86_400_000_000;
        assert_eq!(shown(365 * day_us, 366 * day_us), "2,000 rows, 1,000/s, watermark 1971-01-01 00:00:00, epoch 7");
        assert_eq!(shown(WM_MIN, day_us), "2,000 rows, 1,000/s, epoch 7");
        assert_eq!(shown(WM_FINAL, WM_FINAL), "2,000 rows, 1,000/s, input read, epoch 7");
        let counts = vec![count(1500, WM_FINAL), count(9, 9), count(500, WM_FINAL)];
        let shown = |expected| {
            let progress = Progress { counts: counts.clone(), expected_rows: Some(expected), ..Progress::default() };
            bar.state(&progress, Duration::from_secs(2)).text
        };
        assert!(shown(2000).contains("input read") && !shown(2001).contains("input read"));
        assert_eq!(bar.without(|| 3), 3);
    }
}
