//! Programs that know the API from its document only: generated clients, and a fuzzer. All of them are pinned; none needs a network.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use integration_tests::program;
use integration_tests::rest::{Document, Highwater};

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
    let server = Highwater::start();
    let folder = tempfile::tempdir().unwrap();
    let path = document(&server, folder.path());
    let fuzzer = program::python().with_file_name("schemathesis");
    let said = run(Command::new(fuzzer)
        .args([
            "run",
            "--no-color",
            "--phases",
            "coverage,fuzzing",
            "--seed",
            "4",
            "--max-time",
            "60",
            "--max-examples",
            "20",
        ])
        .args([
            "--generation-database",
            "none",
            "--request-timeout",
            "60",
            "--continue-on-failure",
            "--no-shrink",
            "--warnings",
            "off",
        ])
        .args(["--suppress-health-check", "all", "--checks"])
        .arg(
            "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
             response_headers_conformance,unsupported_method,allow_header_conformance",
        )
        .arg("--url")
        .arg(format!("http://{}", server.address))
        .arg(path)
        .current_dir(folder.path()));
    // It has asked, and of every operation.
    let operations = Document::served().json["paths"].as_object().unwrap();
    let operations: usize = operations.values().map(|item| item.as_object().unwrap().len()).sum();
    assert!(said.contains(&format!("Tested: {operations}")) && said.contains("No issues found"), "{said}");
    server.get("/readyz").expect(200);
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
