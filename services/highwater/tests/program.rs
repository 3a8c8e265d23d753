//! The program as its user meets it: streams, exit codes, signals, and what is left running (nothing).

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

const TEN: &str = "CREATE TABLE g (a BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10', 'fields.a.kind' = 'sequence');\n\
                   SELECT a FROM g ORDER BY a;";

/// Rows until it is stopped.
const LIVE: &str = "CREATE TABLE g (a BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000');\n\
                    SET 'epoch.interval' = '50ms';\n\
                    SELECT a FROM g;";

/// Far more rows than a test lasts.
const LONG: &str = "CREATE TABLE g (a BIGINT, b BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1000000000000');\n\
                    SELECT COUNT(*) AS n FROM g WHERE a > b;";

/// A command takes milliseconds; this is for machines that are busy with something else.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder(scripts: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in scripts {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn highwater(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command
        .args(line.split_whitespace())
        .current_dir(folder)
        .env("NO_COLOR", "1")
        .env_remove("HIGHWATER_ALLOWED_ROOTS");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finished(folder: &Path, line: &str) -> (Option<i32>, String, String) {
    read(&highwater(folder, line).output().unwrap())
}

fn read(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
}

/// Waits for the end of a program, which must come.
fn ended(mut child: Child) -> (Option<i32>, String, String) {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the program did not end: {:?}", read(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    read(&child.wait_with_output().unwrap())
}

/// The processes that a program has started and that still run.
fn children(pid: u32) -> Vec<u32> {
    let listed = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let mut found: Vec<u32> = listed.unwrap_or_default().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    // Threads of the program start them, too.
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten() {
        let listed = std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        found.extend(listed.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

fn runs(pid: u32) -> bool {
    // A zombie that nobody has waited for does not run.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A live run that has shown its first row; the rest of its rows go unread into the pipe until `rest` is read.
fn running(folder: &Path, line: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = highwater(folder, line).spawn().unwrap();
    let mut rows = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    rows.read_line(&mut first).unwrap();
    assert!(!first.is_empty(), "{:?}", ended(child));
    (child, rows)
}

/// Goes on reading, so that the program is not held up.
fn drain(mut rows: BufReader<std::process::ChildStdout>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = rows.read_to_string(&mut text);
        text
    })
}

fn last_line(stderr: &str) -> Value {
    serde_json::from_str(stderr.lines().last().unwrap()).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

#[test]
fn rows_go_to_stdout_and_the_summary_to_stderr() {
    let folder = folder(&[("ten.sql", TEN)]);
    for processes in [1, 2] {
        let (code, stdout, stderr) =
            finished(folder.path(), &format!("run ten.sql -o csv --summary json --processes {processes}"));
        assert_eq!(code, Some(0), "{stderr}");
        let rows: Vec<&str> = stdout.lines().collect();
        assert_eq!((rows.len(), rows[0]), (11, "a"), "{stdout}");
        let summary = last_line(&stderr);
        assert_eq!((&summary["state"], &summary["rows_in"]), (&"finished".into(), &10.into()), "{stderr}");
        for figure in
            ["rows_out", "late", "partially_late", "dropped", "dead", "filtered", "elapsed_ms", "cpu_ms", "epochs"]
        {
            assert!(summary[figure].is_u64(), "{figure}: {stderr}");
        }
    }
    let (code, stdout, stderr) = finished(folder.path(), "run ten.sql");
    assert_eq!(code, Some(0));
    assert!(stdout.contains("│ a │") && stderr.contains("rows in   g 10\nrows out  result 10\n"), "{stdout}{stderr}");
    let (_, stdout, stderr) = finished(folder.path(), "run ten.sql -q -o json");
    assert_eq!((stdout.lines().count(), stderr.as_str()), (10, ""));
}

#[test]
fn what_is_wrong_is_said_with_exit_code_2_and_nothing_runs() {
    let wrong = TEN.replace("SELECT a", "SELECT b");
    let good =
        [("ten.sql", TEN), ("wrong.sql", &wrong), ("bytes.sql", "SELECT '\u{1}"), ("graph.json", "{\"version\": 1")];
    let folder = folder(&good);
    std::fs::write(folder.path().join("latin.sql"), b"SELECT '\xe9'").unwrap();
    for (line, said) in [
        ("run wrong.sql", "wrong.sql:2:8"),
        ("validate wrong.sql", "unknown_column"),
        ("explain wrong.sql", "unknown_column"),
        ("run bytes.sql", "bytes.sql:1:"),
        ("run graph.json", "graph.json:1:"),
        ("run latin.sql", "line 1 is not UTF-8"),
        ("run missing.sql", "cannot read missing.sql"),
        ("run ten.sql --set paralelism=2", "did you mean parallelism?"),
        ("run ten.sql --set tables.h.seed=2", "did you mean g?"),
        ("run ten.sql --allow-root missing", "there is no such directory"),
        ("validate ten.sql --allow-root ten.sql", "it is not a directory"),
        ("run ten.sql --output xml", "possible values"),
        ("job-process", "never started by hand"),
    ] {
        let (code, stdout, stderr) = finished(folder.path(), line);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{line}: {stderr}");
        assert!(stderr.contains(said), "{line}: {stderr}");
    }
    let (code, stdout, stderr) = finished(folder.path(), "validate wrong.sql -o json");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, stderr.as_str(), &answer["valid"]), (Some(2), "", &false.into()));
    assert_eq!((&answer["problems"][0]["line"], &answer["problems"][0]["column"]), (&2.into(), &8.into()), "{stdout}");
}

#[test]
fn scripts_and_graphs_come_from_stdin_too() {
    let folder = folder(&[("nothing.sql", TEN.split('\n').next().unwrap())]);
    let graph = r#"{"version": 1, "nodes": [
        {"id": "s", "type": "source", "table": "g", "connector": {"type": "datagen", "number-of-rows": 3}, "columns": [{"name": "a", "type": "BIGINT"}]},
        {"id": "o", "type": "sink", "table": "out", "inputs": ["s"], "connector": {"type": "print"}}]}"#;
    for (text, line, lines) in
        [(TEN, "run - -o json -q", 10), (graph, "run - -o json -q --set tables.g.number-of-rows=2", 2)]
    {
        let mut child = highwater(folder.path(), line).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let (code, stdout, stderr) = ended(child);
        assert_eq!((code, stdout.lines().count()), (Some(0), lines), "{stderr}");
    }
    let (code, stdout, stderr) = finished(folder.path(), "run nothing.sql");
    assert_eq!((code, stdout.as_str()), (Some(0), ""));
    assert!(stderr.contains("nothing to run"), "{stderr}");
}

#[test]
fn a_valid_script_is_described() {
    let explained = TEN.replace("SELECT a", "EXPLAIN SELECT a");
    let folder = folder(&[("ten.sql", TEN), ("explained.sql", &explained)]);
    let (code, stdout, _) = finished(folder.path(), "validate ten.sql");
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("ten.sql is valid: bounded, "), "{stdout}");
    let (_, stdout, _) = finished(folder.path(), "validate ten.sql -o json");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&answer["valid"], &answer["bounded"]), (&true.into(), &true.into()));
    assert_eq!(answer["operators"][0]["columns"][0]["type"], "BIGINT", "{stdout}");
    for line in ["explain ten.sql --parallelism 2 --processes 3", "run explained.sql --parallelism 6"] {
        let (code, stdout, _) = finished(folder.path(), line);
        assert_eq!(code, Some(0));
        assert!(stdout.contains("stages, on 6 workers:") && stdout.contains("source g (datagen)"), "{stdout}");
    }
    let (code, stdout, _) = finished(folder.path(), "completion zsh");
    assert!(code == Some(0) && stdout.contains("--allow-root"), "{stdout}");
}

#[test]
fn what_only_a_server_can_do_is_valid_and_does_not_run_here() {
    let script =
        TEN.replace("SELECT a", "CREATE TABLE v (a BIGINT) WITH ('connector' = 'view');\nINSERT INTO v SELECT a");
    let folder = folder(&[("view.sql", &script)]);
    let (code, stdout, stderr) = finished(folder.path(), "validate view.sql");
    assert!(code == Some(0) && stdout.starts_with("view.sql is valid"), "{stdout}{stderr}");
    assert!(stderr.contains("warning[views_not_served]") && stderr.contains("highwater serve"), "{stderr}");
    let (code, stdout, _) = finished(folder.path(), "validate view.sql -o json");
    let answer: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &answer["valid"]), (Some(0), &true.into()));
    assert_eq!(answer["warnings"][0]["code"], "views_not_served", "{stdout}");
    let (code, _, stderr) = finished(folder.path(), "run view.sql");
    assert!(code == Some(2) && stderr.contains("error[views_not_served]"), "{stderr}");
}

#[test]
fn files_outside_of_the_allowed_directories_are_refused() {
    // Not below the directory for temporary files, which is allowed.
    let outside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(outside.path().join("a.jsonl"), "{\"a\": 1}\n").unwrap();
    let path = outside.path().join("a.jsonl");
    let script = format!(
        "CREATE TABLE t (a BIGINT) WITH ('connector' = 'filesystem', 'format' = 'json', 'path' = '{}');\nSELECT a FROM t;",
        path.display()
    );
    let folder = folder(&[("t.sql", &script)]);
    let line = "run t.sql -o json --summary json";
    for line in [line, "validate t.sql"] {
        let (code, stdout, stderr) = finished(folder.path(), line);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains("error[location_not_allowed]") && stderr.contains("t.sql:1:"), "{stderr}");
    }
    let allowed = format!("--allow-root {}", outside.path().display());
    let (code, stdout, stderr) = finished(folder.path(), &format!("{line} --processes 2 {allowed}"));
    assert_eq!((code, stdout.as_str()), (Some(0), "{\"a\":1}\n"), "{stderr}");
    assert_eq!(finished(folder.path(), &format!("validate t.sql {allowed}")).0, Some(0));
    let mut command = highwater(folder.path(), line);
    let (code, ..) = read(
        &command.env("HIGHWATER_ALLOWED_ROOTS", format!("/nowhere:{}", outside.path().display())).output().unwrap(),
    );
    assert_eq!(code, Some(0));
    let mut command = highwater(folder.path(), line);
    let (code, _, stderr) = read(&command.env("HIGHWATER_ALLOWED_ROOTS", "").output().unwrap());
    assert!(code == Some(2) && stderr.contains("location_not_allowed"), "{stderr}");
}

#[test]
fn secrets_are_not_shown_with_what_is_wrong() {
    let table = "CREATE TABLE i (n BIGINT) WITH ('connector'='filesystem','path'='s3://b/k','format'='json',\
                 's3.access-key'='AKIDSECRETX','s3.secretkey'='VERYSECRET'); SELECT n FROM i;";
    let unparsed = table.replace("'s3.secretkey'=", "'s3.secretkey' ");
    let folder =
        folder(&[("wrong.sql", table), ("unparsed.sql", &unparsed), ("open.sql", &format!("SELECT 'a; {table}"))]);
    for script in ["wrong.sql", "unparsed.sql", "open.sql"] {
        for command in ["run", "validate", "validate -o json", "explain"] {
            let line = format!("{command} {script} --set tables.i.s3.secret-key=THIRDSECRET");
            let (code, stdout, stderr) = finished(folder.path(), &line);
            assert_eq!(code, Some(2), "{line}: {stderr}");
            assert!(!format!("{stdout}{stderr}").contains("SECRET"), "{line}: {stdout}{stderr}");
        }
    }
    let (.., stderr) = finished(folder.path(), "run wrong.sql");
    assert!(stderr.contains("'path'='s3://b/k'") && stderr.contains("'s3.secretkey'='**********'"), "{stderr}");
}

#[test]
fn an_interrupted_bounded_run_publishes_nothing() {
    let folder = folder(&[("long.sql", LONG)]);
    for (name, processes) in [("INT", 1), ("TERM", 1), ("INT", 2)] {
        let line = format!("run long.sql --summary json --processes {processes} --set epoch.interval=20ms");
        let child = highwater(folder.path(), &line).spawn().unwrap();
        eventually("the start of the processes", || children(child.id()).len() == processes - 1);
        std::thread::sleep(Duration::from_millis(300));
        signal(child.id(), name);
        let (code, stdout, stderr) = ended(child);
        assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
        assert!(stderr.contains("nothing was published"), "{stderr}");
        let summary = last_line(&stderr);
        assert_eq!(summary["state"], "cancelled", "{stderr}");
        assert_eq!((&summary["rows_out"], &summary["epochs"]), (&0.into(), &0.into()), "{stderr}");
    }
}

/// A cancelled run of plain rows has handed epochs of them to its sink; none of them was shown.
#[test]
fn rows_of_a_cancelled_run_are_not_counted() {
    let plain = LIVE.replace("'rows-per-second'", "'number-of-rows' = '1000000000', 'rows-per-second'");
    let folder = folder(&[("plain.sql", &plain)]);
    let child = highwater(folder.path(), "run plain.sql -o json --summary json").spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    signal(child.id(), "INT");
    let (code, stdout, stderr) = ended(child);
    assert_eq!((code, stdout.as_str()), (Some(130), ""), "{stderr}");
    let summary = last_line(&stderr);
    assert_eq!((&summary["rows_out"], &summary["epochs"]), (&0.into(), &0.into()), "{stderr}");
}

/// Publishing many files takes a while; once it has begun, there is no way back.
#[test]
fn an_interrupt_while_a_run_publishes_comes_too_late() {
    let many = "CREATE TABLE g (n BIGINT, k INT) WITH ('connector' = 'datagen', 'number-of-rows' = '2000',\n\
                'fields.n.kind' = 'sequence', 'fields.k.kind' = 'sequence', 'fields.k.end' = '999');\n\
                CREATE TABLE o (n BIGINT, k INT) PARTITIONED BY (k) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n\
                INSERT INTO o SELECT n, k FROM g;";
    let folder = folder(&[("many.sql", many)]);
    let mut child = highwater(folder.path(), "run many.sql --summary json").spawn().unwrap();
    let manifest = folder.path().join("out/_manifests/00000000000000000001.json");
    eventually("the manifest", || manifest.exists() || child.try_wait().unwrap().is_some());
    signal(child.id(), "INT");
    let (code, _, stderr) = ended(child);
    assert_eq!(code, Some(0), "{stderr}");
    let summary = last_line(&stderr);
    assert_eq!((&summary["state"], &summary["rows_out"]), (&"finished".into(), &2000.into()), "{stderr}");
    assert!(stderr.contains("too late to cancel"), "{stderr}");
}

#[test]
fn an_interrupted_unbounded_run_commits_its_last_epoch() {
    let folder = folder(&[("live.sql", LIVE)]);
    for processes in [1, 2] {
        let (child, rows) =
            running(folder.path(), &format!("run live.sql -o json --summary json --processes {processes}"));
        let rest = drain(rows);
        signal(child.id(), "INT");
        let (code, _, stderr) = ended(child);
        assert_eq!(code, Some(130), "{stderr}");
        let summary = last_line(&stderr);
        assert_eq!(summary["state"], "stopped", "{stderr}");
        assert!(summary["epochs"].as_u64().unwrap() > 0, "{stderr}");
        let rest = rest.join().unwrap();
        assert!(rest.is_empty() || rest.ends_with("}\n"), "the last row is whole");
        assert_eq!(summary["rows_out"], 1 + rest.lines().count(), "what was shown is what is counted: {stderr}");
    }
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let folder = folder(&[("live.sql", LIVE)]);
    // Nobody reads: the run cannot stop in order while its rows have nowhere to go.
    let (child, _rows) =
        running(folder.path(), "run live.sql -o json --processes 2 --set tables.g.rows-per-second=10000000");
    std::thread::sleep(Duration::from_millis(500));
    let processes = children(child.id());
    assert_eq!(processes.len(), 1);
    signal(child.id(), "INT");
    std::thread::sleep(Duration::from_millis(200));
    signal(child.id(), "INT");
    assert_eq!(ended(child).0, Some(130));
    eventually("the end of the other process", || !processes.iter().any(|pid| runs(*pid)));
}

#[test]
fn processes_end_with_the_one_that_leads() {
    let folder = folder(&[("live.sql", LIVE)]);
    let (mut child, _rows) = running(folder.path(), "run live.sql -o json --processes 3");
    let processes = children(child.id());
    assert_eq!(processes.len(), 2);
    for pid in &processes {
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        let environment = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
        assert!(arguments.ends_with("highwater\0job-process\0"), "no secret is an argument: {arguments:?}");
        assert!(!environment.contains("token"), "no secret is in the environment");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let began = Instant::now();
    eventually("the end of the other processes", || !processes.iter().any(|pid| runs(*pid)));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A live run whose processes send each other rows all the time.
const BUSY: &str = "CREATE TABLE g (a BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen', \
                    'rows-per-second' = '50000', 'splits' = '3', 'fields.a.min' = '0', 'fields.a.max' = '999');\n\
                    SET 'epoch.interval' = '50ms';\n\
                    SELECT a, COUNT(*) AS n FROM TABLE(SESSION(TABLE g PARTITION BY a, DESCRIPTOR(ts), INTERVAL '1' SECOND)) \
                    GROUP BY a, window_start, window_end;";

/// Whoever hears of what first: the run names the process that was lost, not one that suffered from it.
#[test]
fn a_lost_process_is_named_as_the_cause() {
    let folder = folder(&[("live.sql", LIVE), ("busy.sql", BUSY)]);
    let killed = "has ended unexpectedly (signal: 9 (SIGKILL))";
    for (script, name, said, times) in
        [("live", "KILL", killed, 2), ("busy", "KILL", killed, 6), ("live", "STOP", "has said nothing for 1s", 1)]
    {
        for time in 0..times {
            let line =
                format!("run {script}.sql -o json --processes 3 --set process.heartbeat-timeout=1s --summary json");
            // Rows that nobody reads would hold the run up.
            let child = highwater(folder.path(), &line).stdout(Stdio::null()).spawn().unwrap();
            eventually("the start of the processes", || children(child.id()).len() == 2);
            std::thread::sleep(Duration::from_millis(500 + 30 * time));
            let processes = children(child.id());
            let began = Instant::now();
            // They are started in the order of their numbers.
            let lost = time as usize % 2;
            signal(processes[lost], name);
            let (code, _, stderr) = ended(child);
            assert_eq!(code, Some(1), "{stderr}");
            let cause = format!("process {} of the run {said}", lost + 1);
            assert!(stderr.contains("error[process_lost]") && squeezed(&stderr).contains(&cause), "{cause}: {stderr}");
            assert_eq!(last_line(&stderr)["state"], "failed");
            eventually("the end of the other processes", || !processes.iter().any(|pid| runs(*pid)));
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        }
    }
}

/// Terminal decoration may break lines.
fn squeezed(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || "│╭╰─·".contains(c)).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Wherever a start has got to, a process that is lost is noticed soon and named.
#[test]
fn a_process_that_is_lost_at_the_start_is_named() {
    let folder = folder(&[("live.sql", LIVE)]);
    for (name, delay_ms) in [("KILL", 0), ("STOP", 0), ("KILL", 10), ("STOP", 20), ("STOP", 40)] {
        let line = "run live.sql -o json --processes 3 --summary json --set process.heartbeat-timeout=3s";
        let mut child = highwater(folder.path(), line).spawn().unwrap();
        let rows = drain(BufReader::new(child.stdout.take().unwrap()));
        let begun = |pid: &u32| {
            let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            arguments.is_ok_and(|arguments| arguments.ends_with("job-process\0"))
        };
        eventually("the start of a process", || children(child.id()).iter().any(begun));
        let first = children(child.id())[0];
        std::thread::sleep(Duration::from_millis(delay_ms));
        signal(first, name);
        let began = Instant::now();
        let (code, _, stderr) = ended(child);
        assert_eq!(code, Some(1), "{name} after {delay_ms} ms: {stderr}");
        assert!(stderr.contains("error[process_lost]") && squeezed(&stderr).contains("process 1 "), "{stderr}");
        assert!(began.elapsed() < Duration::from_secs(15), "{name} after {delay_ms} ms: {:?}", began.elapsed());
        eventually("the end of the process", || !runs(first));
        drop(rows.join().unwrap());
    }
}

/// Heartbeats go both ways: what nobody leads ends by itself, although nothing is closed.
#[test]
fn processes_end_when_their_leader_is_stopped() {
    let folder = folder(&[("live.sql", LIVE)]);
    let line = "run live.sql -o json --processes 3 --set process.heartbeat-timeout=1s --summary json";
    let (child, rows) = running(folder.path(), line);
    let rest = drain(rows);
    let processes = children(child.id());
    assert_eq!(processes.len(), 2);
    signal(child.id(), "STOP");
    let began = Instant::now();
    eventually("the end of the other processes", || !processes.iter().any(|pid| runs(*pid)));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    signal(child.id(), "CONT");
    let (code, _, stderr) = ended(child);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("error[process_lost]"), "{stderr}");
    drop(rest.join().unwrap());
}

/// Counters come with heartbeats, which a short run does not live to see: the last ones are waited for.
#[test]
fn the_summary_counts_the_rows_of_all_processes() {
    let many = "CREATE TABLE g (a BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3001', 'splits' = '6', \
                'fields.a.kind' = 'sequence');\nSELECT a FROM g WHERE a % 10 = 1;";
    let folder = folder(&[("many.sql", many)]);
    for processes in [2, 3, 2, 3] {
        let (code, stdout, stderr) =
            finished(folder.path(), &format!("run many.sql -o json --summary json --processes {processes}"));
        assert_eq!((code, stdout.lines().count()), (Some(0), 300), "{stderr}");
        let summary = last_line(&stderr);
        let figures = ["rows_in", "rows_out", "filtered"].map(|figure| summary[figure].as_u64().unwrap());
        assert_eq!(figures, [3001, 300, 2701], "{processes} processes: {stderr}");
    }
}

#[test]
fn a_reader_that_leaves_ends_the_run_quietly() {
    let folder = folder(&[("live.sql", LIVE)]);
    for output in ["table", "json", "csv"] {
        let (child, rows) = running(folder.path(), &format!("run live.sql -q -o {output}"));
        drop(rows);
        assert_eq!(ended(child), (Some(0), String::new(), String::new()));
    }
}

#[test]
fn a_full_disk_under_stdout_is_a_failure() {
    let folder = folder(&[("ten.sql", TEN), ("live.sql", LIVE)]);
    for script in ["ten.sql", "live.sql"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let child = highwater(folder.path(), &format!("run {script}")).stdout(full).spawn().unwrap();
        let (code, _, stderr) = ended(child);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("cannot write to stdout"), "{stderr}");
    }
}

#[test]
fn an_answer_that_nobody_gets_is_a_failure() {
    let folder = folder(&[("ten.sql", TEN)]);
    for line in ["--help", "--version", "run --help", "completion bash", "validate ten.sql", "explain ten.sql"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (code, _, stderr) = ended(highwater(folder.path(), line).stdout(full).spawn().unwrap());
        assert_eq!(code, Some(1), "{line}: {stderr}");
        assert!(stderr.contains("cannot write to stdout"), "{line}: {stderr}");
    }
    for line in ["run ten.sql", "run ten.sql -o json", "validate ten.sql"] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" {line} >&-"), env!("CARGO_BIN_EXE_highwater")]);
        let (code, _, stderr) = read(&shell.current_dir(folder.path()).output().unwrap());
        assert_eq!(code, Some(1), "{line}: {stderr}");
        assert!(stderr.contains("cannot write to stdout: it is closed"), "{line}: {stderr}");
    }
    let (code, stdout, stderr) = finished(folder.path(), "--help");
    assert!(code == Some(0) && stdout.contains("validate") && stderr.is_empty(), "{stdout}{stderr}");
    let (code, stdout, stderr) = finished(folder.path(), "run --nonsense");
    assert!(code == Some(2) && stdout.is_empty() && stderr.contains("--nonsense"), "{stdout}{stderr}");
}
