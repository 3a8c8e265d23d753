//! The shell: lines with history and completion, statements until `;`, and commands that begin with `\`.

use std::borrow::Cow;
use std::convert::Infallible;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::JobQuery;
use reedline::{
    ColumnarMenu, Emacs, FileBackedHistory, KeyCode, KeyModifiers, MenuBuilder, Prompt, PromptEditMode,
    PromptHistorySearch, Reedline, ReedlineEvent, ReedlineMenu, Signal, ValidationResult, Validator,
    default_emacs_keybindings,
};

use super::complete::{Names, SqlCompleter};
use super::session::{Session, interruptible};
use super::statements::{is_complete, is_open, statements};
use crate::Exit;
use crate::arguments::Output;
use crate::output::{self, say};
use crate::remote::arguments::Form;
use crate::remote::failure::{Done, Failure};
use crate::remote::{done, jobs, tables, terminal, views};

const HISTORY_LINES: usize = 10_000;
/// Names for completion are asked for again when they are older.
const NAMES_FRESH: Duration = Duration::from_secs(10);
const MENU: &str = "completion";

/// Commands: their names, what stands behind them, and what they do.
pub const COMMANDS: &[(&str, &str, &str)] = &[
    ("\\d", "[NAME]", "list tables and views, or show the columns of one"),
    ("\\views", "", "list views and the jobs that write them"),
    ("\\jobs", "", "list jobs and their states"),
    ("\\watch", "[SECONDS]", "run the last query again and again, until Ctrl-C"),
    ("\\reset", "", "forget the tables and settings of this session"),
    ("\\h", "", "show this"),
    ("\\q", "", "leave; so do exit, quit and Ctrl-D"),
];

/// Reads and does until the user leaves.
pub async fn shell(mut session: Session) -> Done {
    // A server that is not there is said before the first line is typed.
    let version = session.client.version().await?;
    say(&format!(
        "{} {} at {}; statements end with ;  \\h for help, \\q to leave\n",
        version.name,
        version.version,
        session.client.url()
    ));
    let names = Arc::new(Mutex::new(known(&session.client).await));
    let mut looked = Instant::now();
    terminal::have_size();
    let mut editor = editor(names.clone());
    let mut last = String::new();
    loop {
        // The editor blocks; nothing else is going on meanwhile.
        let read = tokio::task::spawn_blocking(move || {
            let signal = editor.read_line(&Prompts);
            (editor, signal)
        });
        let (back, signal) = read.await.map_err(|error| Failure::Rows(format!("the line editor failed: {error}")))?;
        editor = back;
        let line = match signal {
            Ok(Signal::Success(line)) => line,
            Ok(Signal::CtrlC) => continue,
            Ok(_) => return done(),
            Err(error) => return Err(Failure::Rows(format!("the terminal cannot be read: {error}"))),
        };
        if let Some(line) = command_of(&line) {
            match interruptible(command(&session, line, &last)).await {
                Ok(Next::Go) => {}
                Ok(Next::Reset) => session.reset(),
                Ok(Next::Leave) => return done(),
                Err(failure) => told(&failure)?,
            }
            continue;
        }
        let mut answered = true;
        for range in statements(&line) {
            let statement = &line[range];
            let began = Instant::now();
            match interruptible(session.statement(statement)).await {
                Ok(Some(rows)) => {
                    last = statement.to_string();
                    after(&session, rows, began.elapsed());
                }
                Ok(None) => say("kept for this session\n"),
                Err(failure) => {
                    told(&failure)?;
                    answered = false;
                    break;
                }
            }
        }
        if answered && looked.elapsed() > NAMES_FRESH {
            looked = Instant::now();
            // While the next line is typed.
            let (client, names) = (session.client.clone(), names.clone());
            tokio::spawn(async move {
                let known = known(&client).await;
                *names.lock().expect("nothing panics while it holds the names") = known;
            });
        }
    }
}

fn after(session: &Session, rows: u64, elapsed: Duration) {
    if session.output == Output::Table {
        let count = if rows == 1 { "1 row".to_string() } else { format!("{rows} rows") };
        say(&format!("{count} in {:.3} s\n", elapsed.as_secs_f64()));
    }
}

/// Shows what went wrong; the shell goes on, unless nobody reads it.
fn told(failure: &Failure) -> Result<(), Failure> {
    match failure {
        Failure::Interrupted => say("cancelled\n"),
        Failure::Output(_) => return Err(Failure::Told),
        other => drop::<Exit>(other.show()),
    }
    Ok(())
}

enum Next {
    Go,
    Reset,
    Leave,
}

async fn command(session: &Session, line: &str, last: &str) -> Result<Next, Failure> {
    let mut words = line.trim_end_matches(';').split_whitespace();
    let (command, argument) = (words.next().unwrap_or_default().to_ascii_lowercase(), words.next());
    let client = &session.client;
    match (command.as_str(), argument) {
        ("\\q" | "\\quit" | "\\exit" | "exit" | "quit", _) => return Ok(Next::Leave),
        ("\\reset", _) => return Ok(Next::Reset),
        ("\\h" | "\\help" | "\\?", _) => {
            let line =
                |(name, argument, does): &(&str, &str, &str)| format!("  {:<20}{does}\n", format!("{name} {argument}"));
            let commands: String = COMMANDS.iter().map(line).collect();
            output::write(format!("{commands}  SELECT ...;         run a query; Ctrl-C ends it\n").as_bytes())?;
        }
        ("\\d", None) => {
            output::write(&tables::list(client).await?.text(Form::Table, true))?;
            output::write(&views::list(client).await?.text(Form::Table, true))?;
        }
        ("\\d", Some(name)) => output::write(format!("{}\n", described(client, name).await?).as_bytes())?,
        ("\\views", _) => output::write(&views::list(client).await?.text(Form::Table, true))?,
        ("\\jobs", _) => output::write(&jobs::list(client, &JobQuery::default(), 100).await?.text(Form::Table, true))?,
        ("\\watch", every) => {
            let every = every.unwrap_or("2").parse::<f64>().ok().filter(|seconds| (0.1..=86_400.0).contains(seconds));
            let every = every.ok_or_else(|| Failure::Wrong("write \\watch SECONDS, 0.1 or more".into()))?;
            match watch(session, last, Duration::from_secs_f64(every)).await? {}
        }
        _ => return Err(Failure::Wrong(format!("there is no command {}: \\h lists them", output::visible(&command)))),
    }
    Ok(Next::Go)
}

async fn described(client: &client::Client, name: &str) -> Result<String, Failure> {
    match client.view(name).await {
        Ok(view) => Ok(tables::columns(&view.columns)),
        Err(error) if error.code() == Some("view_not_found") => Ok(tables::columns(&client.table(name).await?.columns)),
        Err(error) => Err(error.into()),
    }
}

/// Until Ctrl-C.
async fn watch(session: &Session, query: &str, every: Duration) -> Result<Infallible, Failure> {
    if query.is_empty() {
        return Err(Failure::Wrong("there is no query yet that could be watched".into()));
    }
    loop {
        session.again(query).await?;
        tokio::time::sleep(every).await;
    }
}

/// Names for completion. Without them it completes less; whatever is wrong is said by the next statement.
async fn known(client: &client::Client) -> Names {
    let columns = |columns: &[api::ColumnFacts]| columns.iter().map(|column| column.name.clone()).collect();
    let mut names = Names::default();
    for view in client.views().await.unwrap_or_default() {
        names.0.insert(view.name, columns(&view.columns));
    }
    for table in client.tables().await.unwrap_or_default() {
        names.0.insert(table.name, columns(&table.columns));
    }
    names
}

fn editor(names: Arc<Mutex<Names>>) -> Reedline {
    let mut keys = default_emacs_keybindings();
    let complete = ReedlineEvent::UntilFound(vec![ReedlineEvent::Menu(MENU.into()), ReedlineEvent::MenuNext]);
    keys.add_binding(KeyModifiers::NONE, KeyCode::Tab, complete);
    let mut editor = Reedline::create()
        .with_completer(Box::new(SqlCompleter(names)))
        .with_menu(ReedlineMenu::EngineCompleter(Box::new(ColumnarMenu::default().with_name(MENU))))
        .with_edit_mode(Box::new(Emacs::new(keys)))
        .with_validator(Box::new(Whole))
        .with_quick_completions(true)
        .with_partial_completions(true)
        .with_ansi_colors(!output::colourless());
    if let Some(history) = history() {
        editor = editor.with_history(history);
    }
    editor
}

/// Lines of earlier sessions, readable for their user only. Without a place for them there is no history.
fn history() -> Option<Box<FileBackedHistory>> {
    let state = std::env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let state = state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")))?;
    let directory = state.join("highwater");
    let path = directory.join("sql_history");
    let made = std::fs::create_dir_all(&directory)
        .and_then(|()| std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path));
    if let Err(error) = made {
        say(&format!("warning: no history: cannot use {}: {error}\n", path.display()));
        return None;
    }
    FileBackedHistory::with_file(HISTORY_LINES, path).ok().map(Box::new)
}

/// The command in what was typed: all of it, or a last line that only leaves or begins anew, wherever the statement before it stands.
fn command_of(typed: &str) -> Option<&str> {
    let word = |line: &str| line.trim().trim_end_matches(';').trim_end().to_ascii_lowercase();
    let whole = typed.trim();
    if whole.starts_with('\\') || ["exit", "quit"].contains(&word(whole).as_str()) {
        return Some(whole);
    }
    let (before, last) = typed.trim_end().rsplit_once('\n')?;
    // In a text or a comment it is a part of that.
    let leaves = ["\\q", "\\quit", "\\exit", "exit", "quit"].contains(&word(last).as_str()) && !is_open(before);
    leaves.then(|| last.trim())
}

/// A line goes on until the statement ends.
struct Whole;

impl Validator for Whole {
    fn validate(&self, line: &str) -> ValidationResult {
        if command_of(line).is_some() || is_complete(line) {
            ValidationResult::Complete
        } else {
            ValidationResult::Incomplete
        }
    }
}

struct Prompts;

impl Prompt for Prompts {
    fn render_prompt_left(&self) -> Cow<'_, str> {
        "highwater".into()
    }

    fn render_prompt_right(&self) -> Cow<'_, str> {
        "".into()
    }

    fn render_prompt_indicator(&self, _: PromptEditMode) -> Cow<'_, str> {
        "> ".into()
    }

    fn render_prompt_multiline_indicator(&self) -> Cow<'_, str> {
        "       -> ".into()
    }

    fn render_prompt_history_search_indicator(&self, search: PromptHistorySearch) -> Cow<'_, str> {
        format!("(search: {}) ", search.term).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_is_understood_wherever_it_is_typed() {
        for (typed, command) in [
            ("\\d totals", "\\d totals"),
            (" exit ; ", "exit ;"),
            ("QUIT", "QUIT"),
            ("SELECT 1\n\\q", "\\q"),
            ("SELECT 1\nFROM t\n  exit;", "exit;"),
        ] {
            assert_eq!(command_of(typed), Some(command), "{typed:?}");
        }
        for typed in
            ["SELECT quit", "SELECT 1\nFROM exits;", "SELECT 'a\n\\q", "SELECT 1 /*\nexit", "SELECT 1\n\\d", ""]
        {
            assert_eq!(command_of(typed), None, "{typed:?}");
        }
    }
}
