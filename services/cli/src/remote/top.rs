//! `highwater top`: what runs, live on one screen; once and plain if stdout is no terminal.

use std::collections::HashMap;
use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use api::{Run, RunState};
use client::{Client, RunQuery};

use super::arguments::{Form, TopArguments};
use super::failure::{Done, Failure};
use super::listing::{Listing, Row, bytes, left, number, right, run_state, span, watermark};
use super::{connect, done, terminal};
use crate::output;

/// Runs that have ended are shown below the active ones, the newest first.
const ENDED: usize = 10;
const ACTIVE: usize = 200;
/// A rate needs two looks; so far apart when there is only one answer.
const BETWEEN: Duration = Duration::from_secs(1);

pub async fn top(arguments: &TopArguments) -> Done {
    let client = connect(&arguments.server)?;
    let mut rates = Rates::default();
    let mut runs = look(&client).await?;
    rates.see(&runs, Instant::now());
    if arguments.form.form != Form::Table || !std::io::stdout().is_terminal() {
        if runs.iter().any(is_active) {
            tokio::time::sleep(BETWEEN).await;
            runs = look(&client).await?;
            rates.see(&runs, Instant::now());
        }
        return listing(&runs, &rates).print(arguments.form.form);
    }
    let _screen = Screen::take()?;
    let mut keys = keys();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut has_keys = true;
    let mut said = None;
    loop {
        output::write(screen(&client, &runs, &rates, said.as_deref(), output::terminal_size()).as_bytes())?;
        let next = async {
            tokio::time::sleep(arguments.every.max(Duration::from_millis(100))).await;
            look(&client).await
        };
        tokio::pin!(next);
        // A look may take long, and who wants to leave does not wait for it.
        let seen = loop {
            tokio::select! {
                seen = &mut next => break seen,
                key = keys.recv(), if has_keys => match key {
                    Some(b'q' | b'Q') => return done(),
                    Some(_) => {}
                    // Stdin is no terminal, or has ended.
                    None => has_keys = false,
                },
                _ = tokio::signal::ctrl_c() => return done(),
                _ = terminate.recv() => return done(),
            }
        };
        match seen {
            Ok(seen) => {
                said = None;
                runs = seen;
                rates.see(&runs, Instant::now());
            }
            // It may come back: the last look stays on the screen.
            Err(error) => said = Some(error.to_string()),
        }
    }
}

fn is_active(run: &Run) -> bool {
    !client::is_over(run.state)
}

/// Active runs, then those that ended last.
async fn look(client: &Client) -> Result<Vec<Run>, client::Error> {
    let active = [RunState::Pending, RunState::Starting, RunState::Running, RunState::Restarting, RunState::Stopping];
    let ended = [RunState::Finished, RunState::Stopped, RunState::Cancelled, RunState::Failed];
    let query = |states: &[RunState]| RunQuery { job: None, states: states.to_vec() };
    let (active, ended) = (query(&active), query(&ended));
    let mut runs = client.runs(&active, ACTIVE).await?;
    runs.extend(client.runs(&ended, ENDED).await?);
    Ok(runs)
}

/// Rows per second of each run, from one look to the next.
#[derive(Default)]
struct Rates {
    before: HashMap<String, (Instant, u64)>,
    rates: HashMap<String, f64>,
}

impl Rates {
    fn see(&mut self, runs: &[Run], now: Instant) {
        let mut seen = HashMap::new();
        self.rates.clear();
        for run in runs.iter().filter(|run| is_active(run)) {
            let rows = run.progress.rows_in;
            if let Some((then, before)) = self.before.get(&run.id) {
                let seconds = now.duration_since(*then).as_secs_f64();
                if seconds > 0.0 {
                    self.rates.insert(run.id.clone(), rows.saturating_sub(*before) as f64 / seconds);
                }
            }
            seen.insert(run.id.clone(), (now, rows));
        }
        self.before = seen;
    }
}

fn listing(runs: &[Run], rates: &Rates) -> Listing {
    let row = |run: &Run| {
        let progress = &run.progress;
        let lag = match (progress.lag_records, progress.lag_ms) {
            _ if !is_active(run) => String::new(),
            (Some(records), _) => format!("{} rec", number(records)),
            (None, Some(ms)) if !progress.final_watermark => span(ms),
            _ => String::new(),
        };
        let cells = vec![
            run.job_name.clone(),
            run_state(run.state),
            number(progress.rows_in),
            rates.rates.get(&run.id).map(|rate| number(rate.round() as u64)).unwrap_or_default(),
            number(progress.rows_out),
            lag,
            watermark(progress),
            number(progress.late_rows),
            number(progress.dead_letters),
            bytes(progress.state_bytes),
            if is_active(run) { bytes(progress.resident_bytes) } else { String::new() },
            run.id.clone(),
        ];
        Row::new(cells, run, &run.id)
    };
    let columns = [
        left("job"),
        left("state"),
        right("rows in"),
        right("rows/s"),
        right("rows out"),
        right("lag"),
        left("watermark"),
        right("late"),
        right("dead"),
        right("state size"),
        right("memory"),
        left("run"),
    ];
    Listing::new(columns, runs.iter().map(row))
}

/// All of the screen: from its corner, every line to its end, and what is below cleared.
fn screen(client: &Client, runs: &[Run], rates: &Rates, said: Option<&str>, size: Option<(usize, usize)>) -> String {
    let (width, height) = size.unwrap_or((120, 40));
    let active = runs.iter().filter(|run| is_active(run)).count();
    let total: f64 = rates.rates.values().sum();
    let mut lines =
        vec![format!("{}   {active} active, {} rows/s   q to leave", client.url(), number(total.round() as u64))];
    lines.extend(said.map(|said| format!("! {}", output::visible(said))));
    let text = plain(&listing(runs, rates));
    lines.extend(if runs.is_empty() { vec!["no runs yet".to_string()] } else { text });
    let shown = lines.into_iter().take(height.saturating_sub(1).max(1));
    let shown: String =
        shown.map(|line| format!("{}\x1b[K\r\n", line.chars().take(width).collect::<String>())).collect();
    format!("\x1b[H{shown}\x1b[J")
}

/// Aligned lines without a frame: more fits.
fn plain(listing: &Listing) -> Vec<String> {
    let cells: Vec<Vec<String>> = std::iter::once(listing.columns.iter().map(|(name, _)| name.to_string()).collect())
        .chain(listing.rows.iter().map(|row| row.cells.iter().map(|cell| output::visible(cell)).collect()))
        .collect();
    let widths: Vec<usize> = (0..listing.columns.len())
        .map(|column| cells.iter().map(|row: &Vec<String>| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let cell = |(at, cell): (usize, &String)| {
            let blanks = " ".repeat(widths[at].saturating_sub(cell.chars().count()));
            if listing.columns[at].1 { format!("{blanks}{cell}") } else { format!("{cell}{blanks}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    cells.iter().map(line).collect()
}

/// Single keys, from a thread that ends with the program.
fn keys() -> tokio::sync::mpsc::Receiver<u8> {
    let (sender, keys) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        let mut byte = [0];
        // A byte at a time: a key is obeyed when it is pressed.
        while std::io::stdin().read_exact(&mut byte).is_ok() {
            if sender.blocking_send(byte[0]).is_err() {
                return;
            }
        }
    });
    keys
}

/// A screen of its own, without a cursor, and keys without Enter; what was there before comes back at the end.
struct Screen {
    _mode: Option<terminal::Mode>,
}

impl Screen {
    fn take() -> Result<Screen, Failure> {
        let mode = terminal::Mode::of_stdin(libc::ICANON | libc::ECHO);
        output::write(b"\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Screen { _mode: mode })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = output::write(b"\x1b[?25h\x1b[?1049l");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn run(id: &str, state: &str, rows_in: u64) -> Run {
        let run = json!({
            "id": id, "job_id": "job_1", "job_name": "flights", "version": 1, "state": state,
            "since": "2026-01-02T03:04:05Z", "attempts": 1, "from": "fresh", "start_positions": {},
            "progress": {
                "epoch": 7, "committed_epoch": 6, "rows_in": rows_in, "rows_out": 10, "final_watermark": false,
                "late_rows": 2, "dead_letters": 3, "state_bytes": 2048, "resident_bytes": 1 << 20,
                "watermark": "2001-01-01T00:00:00Z", "lag_ms": 1500
            },
            "created_at": "2026-01-02T03:04:05Z"
        });
        serde_json::from_value(run).unwrap()
    }

    #[test]
    fn rates_are_from_look_to_look_and_only_of_what_runs() {
        let mut rates = Rates::default();
        let began = Instant::now();
        rates.see(&[run("run_1", "running", 1000), run("run_2", "finished", 5)], began);
        assert!(rates.rates.is_empty());
        let now = [run("run_1", "running", 3000), run("run_2", "finished", 5)];
        rates.see(&now, began + Duration::from_secs(2));
        assert_eq!(rates.rates, HashMap::from([("run_1".to_string(), 1000.0)]));
        let client = Client::new("http://127.0.0.1:1", None).unwrap();
        let screen = screen(&client, &now, &rates, Some("away\x1b"), Some((90, 4)));
        let lines: Vec<&str> = screen.split("\r\n").collect();
        assert_eq!(lines.len(), 4, "as many lines as the terminal has, one of them free: {screen:?}");
        assert!(lines[0].contains("1 active, 1,000 rows/s") && lines[1].starts_with("! away\u{fffd}"), "{screen:?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 90 + 6));
    }
}
