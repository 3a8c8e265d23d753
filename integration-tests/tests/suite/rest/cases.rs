//! Every case whose result can be a view, as a bounded job over REST: the rows of the view are the golden ones.

use std::path::PathBuf;

use integration_tests::compare;
use regex::{Captures, Regex};
use rstest::rstest;
use serde_json::json;

use super::{fresh, shared};
use crate::cases::Case;

#[rstest]
fn a_case_gives_its_golden_rows_over_rest(#[files("cases/*/query.sql")] query: PathBuf) {
    let case = Case::read(query.parent().unwrap());
    let server = shared();
    let view = fresh(&case.name);
    let sql = as_job(&std::fs::read_to_string(&query).unwrap(), &case, &view);
    let created = server.post("/api/v1/jobs", &json!({"name": view, "sql": sql})).send();
    if created.status == 422 && created.text().contains("sink_takes_no_updates") {
        // Rows that change, without a key to keep them by: no view can hold them.
        assert!(!case.directives.contains_key("key"), "{}: {}", case.name, created.text());
        return;
    }
    assert_eq!(created.status, 201, "{}: {}\n{sql}", case.name, created.text());
    let run = server.wait_for_end(&created.json()["run"]);
    assert_eq!(run["state"], "finished", "{}: {run}", case.name);
    let lines: Vec<String> = server.rows(&view).iter().map(|row| row.to_string()).collect();
    let rows = compare::rows(&lines.join("\n"), &view).unwrap();
    let same = if case.directives.contains_key("ordered") { compare::same_sequence } else { compare::same_rows };
    if let Err(report) = same(&case.expected, &case.fold(rows)) {
        panic!("{}: expected (<) and actual (>) rows differ: {report}", case.name);
    }
}

/// The script with whole paths, and a view in place of what it prints.
fn as_job(sql: &str, case: &Case, view: &str) -> String {
    let path = Regex::new(r"'path'\s*=\s*'([^']+)'").unwrap();
    let sql =
        path.replace_all(sql, |found: &Captures<'_>| format!("'path' = '{}'", case.folder.join(&found[1]).display()));
    let result =
        Regex::new(r"(?is)(CREATE TABLE\s+`?result`?\s*\()(.*?)\)\s*WITH\s*\(\s*'connector'\s*=\s*'print'\s*\)")
            .unwrap();
    assert!(result.is_match(&sql), "{}: no table result", case.name);
    let key = case.directives.get("key").map_or(String::new(), |key| format!(", PRIMARY KEY ({key}) NOT ENFORCED"));
    result
        .replace(&sql, |found: &Captures<'_>| {
            format!("{}{}{key}) WITH ('connector' = 'view', 'view.name' = '{view}')", &found[1], &found[2])
        })
        .into_owned()
}
