//! Programs that know the API from its document only: generated clients, and a fuzzer. All of them are pinned; none needs a network.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration_tests::program;
use integration_tests::rest::{Document, Highwater};

use serde_json::{Value, json};

use super::{fresh, shared, totals};

const LIMIT: Duration = Duration::from_secs(300);

fn run(command: &mut Command) -> String {
    let finished = program::finish(command.env("NO_COLOR", "1").env("PYTHONDONTWRITEBYTECODE", "1"), LIMIT);
    assert_eq!(finished.code, Some(0), "{command:?}: {}", finished.report());
    finished.stdout
}

fn document(server: &Highwater, folder: &Path) -> std::path::PathBuf {
    let path = folder.join("openapi.json");
    std::fs::write(&path, server.get("/openapi.json").expect(200).body).unwrap();
    path
}

#[test]
fn a_typescript_client_submits_reads_and_meets_errors() {
    let server = shared();
    let (folder, node) = (tempfile::tempdir().unwrap(), program::node_modules());
    let sources = program::repository().join("integration-tests/rest");
    std::os::unix::fs::symlink(&node, folder.path().join("node_modules")).unwrap();
    for file in ["client.ts", "package.json", "tsconfig.json"] {
        std::fs::copy(sources.join(file), folder.path().join(file)).unwrap();
    }
    let tool = |path: &str| {
        let mut command = Command::new("node");
        command.arg(node.join(path)).current_dir(folder.path());
        command
    };
    run(tool("openapi-typescript/bin/cli.js").arg(document(&server, folder.path())).args(["-o", "schema.d.ts"]));
    run(tool("typescript/bin/tsc").args(["-p", "."]));
    let view = fresh("typescript");
    let mut client = Command::new("node");
    client
        .arg("client.js")
        .arg(format!("http://{}", server.address))
        .arg(totals(&server, &view))
        .arg(fresh("typescript"))
        .arg(&view);
    assert_eq!(run(client.current_dir(folder.path())), "ok\n");
}

#[test]
fn a_python_client_submits_reads_and_meets_errors() {
    let server = shared();
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, "package_name_override: highwater_client\npost_hooks: []\ncontent_type_overrides: {application/openmetrics-text: text/plain}\n").unwrap();
    let generator = program::python().with_file_name("openapi-python-client");
    let said = run(Command::new(generator)
        .args(["generate", "--meta", "none", "--fail-on-warning", "--output-path", "highwater_client", "--config"])
        .arg(&config)
        .arg("--path")
        .arg(document(&server, folder.path()))
        .current_dir(folder.path()));
    assert!(!said.to_ascii_lowercase().contains("warning"), "{said}");
    let view = fresh("python");
    let mut client = Command::new(program::python());
    client
        .arg(program::repository().join("integration-tests/rest/client.py"))
        .arg(format!("http://{}", server.address))
        .arg(totals(&server, &view))
        .arg(fresh("python"))
        .arg(&view)
        .env("PYTHONPATH", folder.path());
    assert_eq!(run(client.current_dir(folder.path())), "ok\n");
}

/// No answer that the document does not describe, and none that says something is broken, whatever is asked.
#[test]
fn a_fuzzer_finds_no_answer_that_is_not_documented() {
    let mut server = Highwater::start();
    let folder = tempfile::tempdir().unwrap();
    let path = document(&server, folder.path());
    // From the first key on every request needs one, and the fuzzer makes keys: it gets one before, which may do everything.
    let key = server.post("/api/v1/keys", &json!({"name": "fuzzer", "role": "admin"})).expect(201).json();
    let key = key["secret"].as_str().unwrap().to_string();
    server.use_key(Some(&key));
    let fuzz = |which: [&str; 2], seconds: &str| {
        let report = folder.path().join("report.ndjson");
        let mut command = Command::new(program::python().with_file_name("schemathesis"));
        command.args(["run", "--no-color", "--phases", "coverage,fuzzing", "--seed", "4", "--max-examples", "20"]);
        command.args(["--max-time", seconds, "--generation-database", "none", "--request-timeout", "60"]);
        command.args(["--continue-on-failure", "--no-shrink", "--warnings", "off", "--suppress-health-check", "all"]);
        command.arg("--checks").arg(
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
             response_headers_conformance,unsupported_method,allow_header_conformance",
        );
        command.args(["--report", "ndjson", "--report-ndjson-path"]).arg(&report).args(which);
        command.arg("--header").arg(format!("Authorization: Bearer {key}"));
        command.arg("--url").arg(format!("http://{}", server.address)).arg(&path).current_dir(folder.path());
        let said = run(&mut command);
        assert!(said.contains("No issues found"), "{said}");
        (said, std::fs::read_to_string(report).unwrap())
    };
    // Something to find.
    let (_, found) = server.submit("found", &totals(&server, "found"));
    server.wait_for_end(&found);
    // It learns ids from answers, and would revoke its own key.
    let (said, report) = fuzz(["--exclude-operation-id", "revoke_key"], "60");
    // It has asked of every operation, and was let in to the end.
    let operations = Document::served().json["paths"].as_object().unwrap();
    let operations: usize = operations.values().map(|item| item.as_object().unwrap().len()).sum();
    assert!(said.contains(&format!("Tested: {}", operations - 1)), "{said}");
    server.get("/api/v1/whoami").expect(200);
    let answers = answers(&report);
    let good = |statuses: &Vec<u64>| statuses.iter().filter(|status| (200..300).contains(*status)).count();
    let (all, operations) =
        (answers.values().map(good).sum::<usize>(), answers.values().filter(|statuses| good(statuses) > 0).count());
    // As many as a busy machine comes to; one that is locked out comes to a handful.
    assert!(all >= 100 && operations >= 20, "{all} successes of {operations} operations: {answers:?}");
    assert!(!answers.values().flatten().any(|status| *status == 401), "it was locked out: {answers:?}");
    let (said, _) = fuzz(["--include-operation-id", "revoke_key"], "10");
    assert!(said.contains("Tested: 1"), "{said}");
    server.get("/readyz").expect(200);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// The statuses of all answers, by operation.
fn answers(report: &str) -> BTreeMap<String, Vec<u64>> {
    let mut answers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for line in report.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let recorder = &event["ScenarioFinished"]["recorder"];
        for interaction in recorder["interactions"].as_object().into_iter().flat_map(|all| all.values()) {
            let status = interaction["response"]["status_code"].as_u64();
            answers.entry(recorder["label"].to_string()).or_default().extend(status);
        }
    }
    answers
}
