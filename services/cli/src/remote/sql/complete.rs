//! Completion of keywords, tables, views, their columns, and commands of the shell.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use reedline::{Completer, CompletionResult, Span, Suggestion};

use super::shell::COMMANDS;

/// Words of the dialect that are worth completing.
const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "ASC",
    "AVG",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "COUNT",
    "CREATE",
    "CUMULATE",
    "DATE",
    "DECIMAL",
    "DESC",
    "DESCRIPTOR",
    "DISTINCT",
    "DOUBLE",
    "ELSE",
    "END",
    "FALSE",
    "FILTER",
    "FROM",
    "GROUP BY",
    "HAVING",
    "HOP",
    "IN",
    "INT",
    "INTERVAL",
    "IS",
    "LIKE",
    "LIMIT",
    "MAX",
    "MIN",
    "NOT",
    "NULL",
    "ORDER BY",
    "SELECT",
    "SESSION",
    "SET",
    "STRING",
    "SUM",
    "TABLE",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "TUMBLE",
    "UNION ALL",
    "VIEW",
    "WATERMARK FOR",
    "WHEN",
    "WHERE",
    "WITH",
    "window_end",
    "window_start",
];

/// What the server has: tables and views with their columns.
#[derive(Clone, Debug, Default)]
pub struct Names(pub BTreeMap<String, Vec<String>>);

/// What may stand at the cursor: the bytes that are replaced, and by what.
pub fn candidates(names: &Names, line: &str, cursor: usize) -> (Range<usize>, Vec<String>) {
    let before = line.get(..cursor).unwrap_or(line);
    let trimmed = before.trim_start();
    let is_word = |c: char| c.is_alphanumeric() || "_\\-".contains(c);
    let start = before.char_indices().rev().take_while(|(_, c)| is_word(*c)).last().map_or(before.len(), |(at, _)| at);
    let (head, word) = before.split_at(start);
    let begins = |name: &&str| {
        name.len() >= word.len() && name.is_char_boundary(word.len()) && name[..word.len()].eq_ignore_ascii_case(word)
    };
    let found = |all: Vec<&str>| -> Vec<String> {
        let mut found: Vec<String> = all.into_iter().filter(begins).map(str::to_string).collect();
        found.sort_by_key(|name| name.to_lowercase());
        found.dedup();
        found
    };
    let objects = || names.0.keys().map(String::as_str).collect::<Vec<_>>();
    let all = if trimmed.starts_with('\\') {
        let command = trimmed.split_whitespace().next().unwrap_or_default();
        match trimmed == command {
            true => COMMANDS.iter().map(|(name, ..)| *name).collect(),
            false => objects(),
        }
    } else if let Some(table) = head.strip_suffix('.') {
        // Columns of what stands before the point.
        let from = table.char_indices().rev().take_while(|(_, c)| is_word(*c)).last().map_or(table.len(), |(at, _)| at);
        names.0.get(&table[from..]).map(|columns| columns.iter().map(String::as_str).collect()).unwrap_or_default()
    } else if ["FROM", "JOIN", "TABLE"]
        .contains(&head.split_whitespace().last().unwrap_or_default().to_uppercase().as_str())
    {
        objects()
    } else if word.is_empty() {
        Vec::new()
    } else {
        // Columns of what the statement speaks of come without asking; of everything if it speaks of nothing yet.
        let mentioned: Vec<&Vec<String>> =
            names.0.iter().filter(|(name, _)| line.contains(name.as_str())).map(|(_, columns)| columns).collect();
        let columns: Vec<&str> = match mentioned.is_empty() {
            true => names.0.values().flatten().map(String::as_str).collect(),
            false => mentioned.into_iter().flatten().map(String::as_str).collect(),
        };
        columns.into_iter().chain(objects()).chain(KEYWORDS.iter().copied()).collect()
    };
    (start..before.len(), found(all))
}

/// The same for the line editor.
pub struct SqlCompleter(pub Arc<Mutex<Names>>);

impl Completer for SqlCompleter {
    fn complete(&mut self, line: &str, cursor: usize) -> CompletionResult {
        let names = self.0.lock().expect("nothing panics while it holds the names");
        let (range, found) = candidates(&names, line, cursor);
        let suggestion = |value: String| Suggestion {
            value,
            span: Span::new(range.start, range.end),
            append_whitespace: true,
            ..Suggestion::default()
        };
        CompletionResult::fresh(found.into_iter().map(suggestion).collect::<Vec<_>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let columns = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Names(BTreeMap::from([
            ("bids".to_string(), columns(&["price", "item"])),
            ("busy_hours".to_string(), columns(&["hour_start", "departures"])),
        ]))
    }

    fn of(line: &str) -> Vec<String> {
        candidates(&names(), line, line.len()).1
    }

    #[test]
    fn what_fits_the_place_is_offered() {
        assert_eq!(of("SEL"), ["SELECT"]);
        assert_eq!(of("sel"), ["SELECT"]);
        assert_eq!(of("SELECT * FROM "), ["bids", "busy_hours"]);
        assert_eq!(of("SELECT * FROM bu"), ["busy_hours"]);
        assert_eq!(of("SELECT bids."), ["item", "price"]);
        assert_eq!(of("SELECT bids.pr"), ["price"]);
        assert_eq!(of("SELECT dep"), ["departures"]);
        assert_eq!(of("SELECT x FROM bids WHERE it"), ["item"]);
        assert_eq!(of("SELECT x FROM bids WHERE dep"), Vec::<String>::new(), "no column of another table");
        assert_eq!(of("\\vi"), ["\\views"]);
        assert_eq!(of("\\d bi"), ["bids"]);
        assert_eq!(of("SELECT "), Vec::<String>::new(), "not everything that there is");
    }

    #[test]
    fn only_the_word_at_the_cursor_is_replaced() {
        let line = "SELECT é FROM bi WHERE x";
        let cursor = line.find(" WHERE").expect("there");
        let (range, found) = candidates(&names(), line, cursor);
        assert_eq!((&line[range], found), ("bi", vec!["bids".to_string()]));
        assert_eq!(candidates(&names(), "é", 1).1, Vec::<String>::new(), "a cursor inside of a character");
    }
}
