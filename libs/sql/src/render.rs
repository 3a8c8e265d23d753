//! Problems as text: the line, the excerpt with carets, what to do.

use std::fmt::Write;

use graph::{Place, Problem};

/// Of a long line so many characters around the place are shown.
const EXCERPT_CHARS: u64 = 160;

/// Every problem with its line of `source`, which is called `name`.
pub fn render(problems: &[Problem], source: &str, name: &str) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut text = String::new();
    for (at, problem) in problems.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        one(&mut text, problem, &lines, name);
    }
    text
}

fn one(text: &mut String, problem: &Problem, lines: &[&str], name: &str) {
    let _ = writeln!(text, "error[{}]: {}", problem.code, visible(&problem.message));
    let Place::Span { line, column, end_line, end_column } = problem.place else {
        match &problem.place {
            Place::Pointer { pointer } => drop(writeln!(text, "  --> {name}{pointer}")),
            _ => drop(writeln!(text, "  --> {name}")),
        }
        hint(text, problem, 2);
        return;
    };
    let width = line.to_string().len();
    let _ = writeln!(text, "{:width$}--> {name}:{line}:{column}", "");
    let shown =
        usize::try_from(line).ok().and_then(|line| lines.get(line.checked_sub(1)?)).copied().unwrap_or_default();
    let length = shown.chars().count() as u64;
    let last = if end_line == line { end_column } else { length + 1 };
    let from = if length <= EXCERPT_CHARS { 0 } else { column.saturating_sub(1).saturating_sub(EXCERPT_CHARS / 2) };
    let excerpt: String = visible(&shown.chars().skip(from as usize).take(EXCERPT_CHARS as usize).collect::<String>());
    let carets = last.saturating_sub(column).clamp(1, EXCERPT_CHARS);
    let carets =
        carets.min((excerpt.chars().count() as u64 + 1).saturating_sub(column.saturating_sub(1) - from).max(1));
    let indent = (column.saturating_sub(1) - from) as usize;
    let _ = writeln!(text, "{:width$} |", "");
    let _ = writeln!(text, "{line} | {}", excerpt.trim_end());
    let _ = writeln!(text, "{:width$} | {:indent$}{}", "", "", "^".repeat(carets as usize));
    hint(text, problem, width + 1);
}

fn hint(text: &mut String, problem: &Problem, indent: usize) {
    if let Some(hint) = &problem.hint {
        let _ = writeln!(text, "{:indent$}= help: {}", "", visible(hint));
    }
}

/// One column per character, and nothing that moves the cursor or the reading direction.
fn visible(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' => c,
        '\t' => ' ',
        c if c.is_control()
            || ('\u{200b}'..='\u{200f}').contains(&c)
            || ('\u{202a}'..='\u{202e}').contains(&c)
            || ('\u{2066}'..='\u{2069}').contains(&c) =>
        {
            '\u{fffd}'
        }
        c => c,
    };
    text.chars().map(shown).collect()
}
