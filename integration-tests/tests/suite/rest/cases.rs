//! Every case whose result can be a view, as a job over REST: the rows of the view are the golden ones. Bounded over its files, and as a
//! stream over topics, which is drained when all rows have been read.

use std::path::PathBuf;

use integration_tests::compare;
use integration_tests::rest::Highwater;
use regex::{Captures, NoExpand, Regex};
use rstest::rstest;
use serde_json::{Value, json};

use super::{fresh, shared};
use crate::cases::{Case, EPOCHS};

/// Cases whose rows change in a stream, without a key to keep them by: no view can hold them.
const CHANGING: &[&str] = &["aggregate_of_empty_input", "global_aggregate", "group_by_expression", "overflow_wrap_sum"];

#[rstest]
fn a_case_gives_its_golden_rows_over_rest(#[files("cases/*/query.sql")] query: PathBuf) {
    let case = Case::read(query.parent().unwrap());
    let server = shared();
    let view = fresh(&case.name);
    let sql = as_job(&std::fs::read_to_string(&query).unwrap(), &case, &view);
    let created = server.post("/api/v1/jobs", &json!({"name": view, "sql": sql})).expect(201).json();
    let run = server.wait_for_end(&created["run"]);
    assert_golden(&server, &case, &view, &run);
}

/// Only here rows can be late: watermarks come while rows do, from partitions that are out of step.
#[rstest]
fn a_case_gives_its_golden_rows_as_a_stream_over_rest(#[files("cases/*/query.sql")] query: PathBuf) {
    let case = Case::read(query.parent().unwrap());
    if case.is_bounded_only() || !case.fits_topics() {
        return;
    }
    let server = shared();
    let view = fresh(&case.name);
    let mut sql = as_job(&std::fs::read_to_string(&query).unwrap(), &case, &view);
    let file = Regex::new(r"'connector'\s*=\s*'filesystem',\s*'path'\s*=\s*'[^']+'").unwrap();
    let mut rows = 0;
    for (at, source) in case.sources.iter().enumerate() {
        let (topic, produced) = source.topic(&case, 7 + at as u64);
        let servers = test_support::kafka::shared().servers();
        let kafka = format!("'connector' = 'kafka', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{servers}'");
        sql = file.replace(&sql, NoExpand(&kafka)).into_owned();
        rows += produced;
    }
    // Cuts as often as may be: one that comes while the epoch before is still open is none.
    let every_rows = (case.rows() / 40).max(1).to_string();
    let settings = json!({"source.batch-rows": "7", "epoch.every-rows": every_rows, "watermark.interval": "0s"});
    let job = json!({"name": view, "sql": sql, "settings": settings, "parallelism": 2});
    if CHANGING.contains(&case.name.as_str()) {
        let problem = server.post("/api/v1/jobs", &job).refused(422, "invalid_graph");
        assert!(problem.to_string().contains("sink_takes_no_updates"), "{problem}");
        return;
    }
    let created = server.post("/api/v1/jobs", &job).expect(201).json();
    let run = server.wait_for_run(&created["run"], "all rows are read", |run| run["progress"]["rows_in"] == rows);
    let id = run["id"].as_str().unwrap();
    server.post(&format!("/api/v1/runs/{id}/stop"), &json!({"mode": "drain"})).expect(202);
    let run = server.wait_for_end(&run);
    assert_golden(&server, &case, &view, &run);
    assert_eq!(run["progress"]["late_rows"], 0, "{}: {run}", case.name);
    let wanted = if case.rows() < 3 * EPOCHS { 1 } else { EPOCHS as u64 };
    assert!(run["progress"]["epoch"].as_u64() >= Some(wanted), "{}: fewer than {wanted} epochs: {run}", case.name);
}

fn assert_golden(server: &Highwater, case: &Case, view: &str, run: &Value) {
    assert_eq!(run["state"], "finished", "{}: {run}", case.name);
    let lines: Vec<String> = server.rows(view).iter().map(|row| row.to_string()).collect();
    let rows = compare::rows(&lines.join("\n"), view).unwrap();
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
