//! Wrong scripts: where, what code, and what is said.

use super::*;

/// The problems of a script over [`TABLES`], as `line:column code: message`; lines count from the query's first.
fn problems(query: &str) -> Vec<String> {
    let text = format!("{}{query}", TABLES.replace('\n', " "));
    let offset = TABLES.chars().count() as u64;
    let found = plan(&text, &Options::default()).map(|script| compact(&script.graph)).expect_err(query);
    let found = found.into_iter().map(|problem| match problem.place {
        graph::Place::Span { line, column, .. } => {
            let column = if line == 1 { column as i64 - offset as i64 } else { column as i64 };
            format!("{line}:{column} {}: {}", problem.code, problem.message)
        }
        _ => format!("- {}: {}", problem.code, problem.message),
    });
    found.collect()
}

/// Query, then the one problem: line, column, code, and a part of the message or hint.
const WRONG: &[(&str, &str, &str)] = &[];

#[test]
fn each_wrong_script_is_refused_with_its_place() {
    let mut wrong = String::new();
    for (query, place_and_code, part) in WRONG {
        let found = problems(query);
        if found.len() != 1 || !found[0].starts_with(&format!("{place_and_code}: ")) || !found[0].contains(part) {
            wrong.push_str(&format!("{query}\n  expected {place_and_code}: {part}\n  found    {}\n", found.join("\n           ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
