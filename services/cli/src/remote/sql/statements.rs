//! Where statements of SQL end, without knowing what they mean.

use std::ops::Range;

/// The statements of a text, each with its `;`; the last one may lack it. What is only white space and comments is none.
pub fn statements(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    for end in ends(text) {
        found.push(start..end);
        start = end;
    }
    found.push(start..text.len());
    found.retain(|range| first_word(&text[range.clone()]).is_some());
    found
}

/// Whether the last statement has its `;`, or there is none.
pub fn is_complete(text: &str) -> bool {
    let rest = ends(text).last().map_or(text, |end| &text[*end..]);
    !is_open(rest) && first_word(rest).is_none()
}

/// The word that a statement begins with, in capitals.
pub fn first_word(statement: &str) -> Option<String> {
    let mut rest = statement;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
        rest = if rest.starts_with("--") {
            rest.find('\n').map_or("", |end| &rest[end..])
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or("", |end| &rest[end + 2..])
        } else {
            break;
        };
    }
    let first = rest.chars().next()?;
    let word: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    Some(if word.is_empty() { first.to_string() } else { word.to_uppercase() })
}

/// Whether a later statement needs this one: a table, a view, a setting.
pub fn is_kept(statement: &str) -> bool {
    first_word(statement).is_some_and(|word| ["CREATE", "SET"].contains(&word.as_str()))
}

/// Behind each `;` that ends a statement.
fn ends(text: &str) -> Vec<usize> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let length = piece(&text[at..], first).0;
        if first == ';' {
            all.push(at + 1);
        }
        at += length;
    }
    all
}

/// Whether the text ends inside of quotes or a comment.
pub fn is_open(text: &str) -> bool {
    let mut at = 0;
    let mut open = false;
    while let Some(first) = text[at..].chars().next() {
        let (length, closed) = piece(&text[at..], first);
        open = !closed;
        at += length;
    }
    open
}

/// The length of what stands at the beginning: a quoted text, a comment, or one character; and whether it is closed.
fn piece(rest: &str, first: char) -> (usize, bool) {
    match first {
        '\'' | '"' | '`' => rest[1..].find(first).map_or((rest.len(), false), |end| (end + 2, true)),
        '-' if rest.starts_with("--") => (rest.find('\n').unwrap_or(rest.len()), true),
        '/' if rest.starts_with("/*") => rest.find("*/").map_or((rest.len(), false), |end| (end + 2, true)),
        c => (c.len_utf8(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<&str> {
        statements(text).into_iter().map(|range| text[range].trim()).collect()
    }

    #[test]
    fn a_semicolon_ends_a_statement_but_not_in_quotes_and_comments() {
        assert_eq!(split("SELECT 1; SELECT 2"), ["SELECT 1;", "SELECT 2"]);
        assert_eq!(split("SELECT ';''--' -- a; b\n, `;`;\n/* ; */ SELECT 2;").len(), 2);
        assert_eq!(split(" ;; -- nothing\n;"), Vec::<&str>::new());
        assert_eq!(split("SELECT 'é;"), ["SELECT 'é;"]);
    }

    #[test]
    fn input_goes_on_until_its_semicolon() {
        for whole in ["SELECT 1;", "SELECT 1; -- done", "", "  ", "SELECT ';';"] {
            assert!(is_complete(whole), "{whole:?}");
        }
        for part in ["SELECT 1", "SELECT ';", "SELECT 1; SELECT", "/* ;", "SELECT 1 -- ;"] {
            assert!(!is_complete(part), "{part:?}");
        }
    }

    #[test]
    fn tables_and_settings_are_kept_for_the_next_statement() {
        assert!(is_kept("-- a\n create table t (a INT);") && is_kept("/* b */SET 'a' = 'b';"));
        assert!(!is_kept("SELECT 'CREATE'") && !is_kept("-- CREATE"));
    }
}
