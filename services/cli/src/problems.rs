//! What is wrong with a script, a graph or a run, for people: with the line, carets and what to do.

use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;

use engine::{Fault, RunError};
use graph::{Place, Problem};
use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity, SourceCode};

use crate::output::{colours, is_active, say, visible};
use crate::secrets::Secrets;

/// More are counted only.
const SHOWN_MAX: usize = 50;
/// Longer lines are shown in part, which the plain form does.
const GRAPHICAL_LINE_CHARS: usize = 400;

/// The text that problems point into.
#[derive(Clone, Debug)]
pub struct Source {
    /// What the user called it.
    pub name: String,
    pub text: String,
    /// What must not be shown of it, and of what is said about it.
    pub secrets: Secrets,
    /// The text without secrets, character for character.
    shown: String,
}

impl Source {
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        let text = text.into();
        let (shown, secrets) = Secrets::masked(&text);
        Source { name: name.into(), text, secrets, shown }
    }
}

/// Shows problems on stderr.
pub fn show(problems: &[Problem], severity: Severity, source: &Source) {
    let graphical =
        std::io::stderr().is_terminal() && source.text.lines().all(|line| line.len() <= GRAPHICAL_LINE_CHARS);
    let text = match graphical {
        true => render_graphical(problems, severity, source, colours()),
        false => render_plain(problems, severity, source),
    };
    say(&text);
}

fn render_plain(problems: &[Problem], severity: Severity, source: &Source) -> String {
    let mut text = String::new();
    for problem in problems.iter().take(SHOWN_MAX) {
        if !text.is_empty() {
            text.push('\n');
        }
        let one = sql::render(&[source.secrets.hidden(problem)], &source.shown, &source.name);
        match one.strip_prefix("error") {
            Some(rest) if severity == Severity::Warning => text.extend(["warning", rest]),
            _ => text.push_str(&one),
        }
    }
    more(&mut text, problems.len());
    text
}

fn render_graphical(problems: &[Problem], severity: Severity, source: &Source, colours: bool) -> String {
    let theme = if colours { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100);
    // One character for one, so that lines and columns stay true.
    let clean = |c: char| if c != '\n' && is_active(c) { if c == '\t' { ' ' } else { '\u{fffd}' } } else { c };
    let text: String = source.shown.chars().map(clean).collect();
    let mut rendered = String::new();
    for problem in problems.iter().take(SHOWN_MAX).map(|problem| source.secrets.hidden(problem)) {
        let label = span(&problem.place, &text).map(|range| LabeledSpan::new(None, range.start, range.len()));
        let code = match &problem.place {
            Place::Pointer { pointer } if !pointer.is_empty() => format!("{} at {}", problem.code, visible(pointer)),
            _ => problem.code.clone(),
        };
        let report = Report {
            message: visible(&problem.message),
            code,
            hint: problem.hint.as_deref().map(visible),
            severity,
            source: NamedSource::new(&source.name, text.clone()),
            label,
        };
        handler.render_report(&mut rendered, &report).expect("writing to memory does not fail");
    }
    more(&mut rendered, problems.len());
    rendered
}

fn more(text: &mut String, problems: usize) {
    if problems > SHOWN_MAX {
        text.push_str(&format!("\n... and {} more\n", problems - SHOWN_MAX));
    }
}

/// The bytes of `text` that a place means; of several lines the first.
fn span(place: &Place, text: &str) -> Option<Range<usize>> {
    let Place::Span { line, column, end_line, end_column } = *place else { return None };
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let start: usize = text.split_inclusive('\n').take(index).map(str::len).sum();
    let shown = text.get(start..)?.lines().next().unwrap_or_default();
    let byte = |column: u64| {
        let chars = usize::try_from(column).unwrap_or(usize::MAX).saturating_sub(1);
        shown.char_indices().nth(chars).map_or(shown.len(), |(byte, _)| byte)
    };
    let end = if end_line == line { byte(end_column) } else { shown.trim_end().len() };
    let from = byte(column);
    Some(start + from..start + end.max(from))
}

struct Report {
    message: String,
    code: String,
    hint: Option<String>,
    severity: Severity,
    source: NamedSource<String>,
    label: Option<LabeledSpan>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Report {}

impl Diagnostic for Report {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint.as_ref().map(|hint| Box::new(hint) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.label.as_ref().map(|_| &self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.label.clone().map(|label| Box::new(std::iter::once(label)) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

/// Why a run failed, as text. `place` finds the operator in the script.
pub fn run_error(error: &RunError, place: Option<&str>) -> String {
    let mut text = match error.fault {
        Fault::Internal => format!("highwater: internal error: {}\n", visible(&error.message)),
        Fault::User | Fault::External => format!("error[{}]: {}\n", error.code, visible(&error.message)),
    };
    if let Some(operator) = &error.operator {
        let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
        text.push_str(&format!("  operator: {}{place}\n", visible(operator)));
    }
    if let Some(hint) = &error.hint {
        text.push_str(&format!("  = help: {}\n", visible(hint)));
    }
    if error.fault == Fault::Internal {
        text.push_str("  This is a bug of highwater, not of the script or the data. Please report it with the script and the line above.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn source() -> Source {
        Source::new("q.sql", "SELECT é,\tfoo\nFROM t;\n")
    }

    fn problems() -> Vec<Problem> {
        let span = Place::Span { line: 1, column: 11, end_line: 1, end_column: 14 };
        let lines = Place::Span { line: 1, column: 1, end_line: 2, end_column: 7 };
        vec![
            Problem::new("unknown_column", "t has no column foo").hint("did you mean fou?").at(span),
            Problem::new("no_watermark", "the windows never close").at(lines),
            Problem::new("unknown_option", "there is no option \"a\x1b\" here").pointer("/nodes/0/a"),
        ]
    }

    #[test]
    fn problems_in_a_terminal_have_carets() {
        expect![[r#"
            unknown_column

              × t has no column foo
               ╭─[q.sql:1:12]
             1 │ SELECT é, foo
               ·           ───
             2 │ FROM t;
               ╰────
              help: did you mean fou?
            no_watermark

              × the windows never close
               ╭─[q.sql:1:1]
             1 │ SELECT é, foo
               · ─────────────
             2 │ FROM t;
               ╰────
            unknown_option at /nodes/0/a

              × there is no option "a�" here
        "#]]
        .assert_eq(&render_graphical(&problems(), Severity::Error, &source(), false));
    }

    #[test]
    fn problems_in_a_file_are_plain_and_warnings_say_so() {
        expect![[r#"
            warning[unknown_column]: t has no column foo
             --> q.sql:1:11
              |
            1 | SELECT é, foo
              |           ^^^
              = help: did you mean fou?

            warning[no_watermark]: the windows never close
             --> q.sql:1:1
              |
            1 | SELECT é, foo
              | ^^^^^^^^^^^^^

            warning[unknown_option]: there is no option "a�" here
              --> q.sql/nodes/0/a
        "#]]
        .assert_eq(&render_plain(&problems(), Severity::Warning, &source()));
        let many = vec![Problem::new("x", "y"); SHOWN_MAX + 7];
        assert!(render_plain(&many, Severity::Error, &source()).ends_with("... and 7 more\n"));
    }

    #[test]
    fn places_outside_of_the_text_point_at_its_end() {
        let place = |line, column| Place::Span { line, column, end_line: line, end_column: column + 5 };
        assert_eq!(span(&place(1, 3), "abc"), Some(2..3));
        assert_eq!(span(&place(1, 30), "abc"), Some(3..3));
        assert_eq!(span(&place(7, 1), "abc\n"), Some(4..4));
        assert_eq!(span(&place(0, 0), "abc\n"), None);
    }

    #[test]
    fn a_failed_run_says_who_must_act() {
        let error =
            RunError::user("file_missing", "there is no file a.csv").hint("check the path").operator("source_t");
        expect![[r#"
            error[file_missing]: there is no file a.csv
              operator: source_t (q.sql:3:1)
              = help: check the path
        "#]]
        .assert_eq(&run_error(&error, Some("q.sql:3:1")));
        expect![[r#"
            highwater: internal error: a worker stopped: oh
              This is a bug of highwater, not of the script or the data. Please report it with the script and the line above.
        "#]]
        .assert_eq(&run_error(&RunError::internal("a worker stopped: oh"), None));
    }
}
