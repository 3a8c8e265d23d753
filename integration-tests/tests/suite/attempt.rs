//! The process of an attempt as a control plane meets it: a directory with a specification, a socket, an outcome.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::ipc::reader::StreamReader;
use integration_tests::program;
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Shown with every request; searched for in all that a process leaves.
const TOKEN: &str = "canary-8c1f0b7e5a";

struct Attempt {
    folder: TempDir,
    /// Deeper than the path of a Unix socket may be long.
    directory: PathBuf,
    child: Child,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // It has ended already, in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What came back. `whole` says whether the body came to its end.
struct Answer {
    status: u16,
    body: Vec<u8>,
    whole: bool,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.body)))
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A specification for a script, before a test changes it.
fn spec(folder: &Path, script: &str) -> Value {
    let script = sql::plan(script, &sql::Options::default()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let settings = graph::Settings::from_options(script.settings).unwrap();
    json!({
        "job": "j", "run_id": "r-1", "generation": 1, "graph": script.graph, "settings": settings,
        "allowed_roots": [folder], "egress": { "loopback": true, "anywhere": false, "allowed": [] },
        "views_dir": folder.join("views"), "start": {},
        "limits": { "memory_bytes": null, "cpu_percent": null, "seconds": null }, "serve_rows": false,
    })
}

fn write_spec(folder: &Path, spec: &Value) -> PathBuf {
    let directory = folder.join("runs").join("a-very-long-name-of-a-run-".repeat(6)).join("1");
    assert!(directory.as_os_str().len() > 150);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("spec.json"), spec.to_string()).unwrap();
    directory
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(program::path());
    command.arg("attempt").arg("--directory").arg(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(directory.join("log.jsonl")).unwrap());
    command
}

fn give_credentials(stdin: Option<ChildStdin>) {
    let line = json!({ "token": TOKEN, "connections": { "c": { "password": "canary-password" } } });
    writeln!(stdin.unwrap(), "{line}").unwrap();
}

fn start(folder: TempDir, spec: &Value) -> Attempt {
    let directory = write_spec(folder.path(), spec);
    let mut child = command(&directory).spawn().unwrap();
    give_credentials(child.stdin.take());
    Attempt { folder, directory, child }
}

/// Waits for what must come; a test fails when it does not.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn dial(directory: &Path) -> Option<UnixStream> {
    let held = File::open(directory).unwrap();
    UnixStream::connect(format!("/proc/self/fd/{}/control.sock", held.as_raw_fd())).ok()
}

fn send(mut stream: &UnixStream, method: &str, path: &str, token: Option<&str>, body: &str) {
    let token = token.map_or(String::new(), |token| format!("authorization: Bearer {token}\r\n"));
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: attempt\r\n{token}connection: close\r\ncontent-length: {length}");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
}

fn receive(stream: &UnixStream) -> Answer {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("{line:?}")).parse().unwrap();
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        stream.read_line(&mut line).unwrap();
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        length = length.or(header.strip_prefix("content-length: ").map(|length| length.parse::<usize>().unwrap()));
        chunked |= header == "transfer-encoding: chunked";
    }
    let mut body = Vec::new();
    if !chunked {
        let whole = stream.read_to_end(&mut body).is_ok() && Some(body.len()) == length;
        return Answer { status, body, whole };
    }
    let mut chunk = || -> Option<usize> {
        let mut size = String::new();
        stream.read_line(&mut size).ok()?;
        let size = usize::from_str_radix(size.trim_end(), 16).ok()?;
        let mut bytes = vec![0; size + 2];
        stream.read_exact(&mut bytes).ok()?;
        body.extend_from_slice(&bytes[..size]);
        Some(size)
    };
    loop {
        match chunk() {
            Some(0) => return Answer { status, body, whole: true },
            Some(_) => {}
            None => return Answer { status, body, whole: false },
        }
    }
}

impl Attempt {
    fn of(script: &str) -> Attempt {
        let folder = folder();
        let spec = spec(folder.path(), script);
        start(folder, &spec)
    }

    fn ask(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> Answer {
        let stream = wait_for("a socket", || dial(&self.directory));
        send(&stream, method, path, token, body);
        receive(&stream)
    }

    fn status(&self) -> Value {
        let answer = self.ask("GET", "/status", Some(TOKEN), "");
        assert_eq!(answer.status, 200);
        answer.json()
    }

    fn status_when(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.status()).filter(|status| is(status)))
    }

    fn stop(&self, mode: &str) {
        let answer = self.ask("POST", "/stop", Some(TOKEN), &format!("\"{mode}\""));
        assert_eq!((answer.status, answer.json()), (202, json!(mode)));
    }

    /// Waits for the end of the process; returns its exit code.
    fn end(&mut self) -> Option<i32> {
        wait_for("the end of the process", || self.child.try_wait().unwrap()).code()
    }

    fn read(&self, file: &str) -> Option<Value> {
        let bytes = std::fs::read(self.directory.join(file)).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    /// The outcome of a process that has ended, after what holds for all of them.
    fn outcome(&self) -> Value {
        let log = std::fs::read_to_string(self.directory.join("log.jsonl")).unwrap();
        for line in log.lines() {
            let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no line of JSON: {line}"));
            assert!(line["time"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
        }
        let outcome = self.read("outcome.json").unwrap_or_else(|| panic!("no outcome; log:\n{log}"));
        for text in [&log, &outcome.to_string(), &self.read("process.json").unwrap().to_string()] {
            assert!(!text.contains("canary"), "a secret was told: {text}");
        }
        outcome
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

/// The stage of a kind; null before the plan is known.
fn operator<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let operators = status["operators"].as_array().unwrap();
    let found = operators.iter().find(|operator| operator["kind"] == kind);
    assert!(found.is_some() || operators.is_empty(), "no {kind} in {status:#}");
    found.unwrap_or(&Value::Null)
}

/// Over the subtasks that are known yet.
fn sum(operator: &Value, counter: &str) -> u64 {
    operator["subtasks"].as_array().into_iter().flatten().map(|subtask| subtask[counter].as_u64().unwrap()).sum()
}

fn clicks(rows: &str, rate: &str) -> String {
    format!(
        "CREATE TABLE clicks (id BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH (
           'connector' = 'datagen', 'splits' = '4', {rows} {rate}
           'fields.id.kind' = 'sequence', 'fields.k.min' = '0', 'fields.k.max' = '99');"
    )
}

fn per_second(rows: u64) -> String {
    clicks("", &format!("'rows-per-second' = '{rows}',"))
}

/// A file with so many rows of one column.
fn numbers(folder: &Path, rows: u64) -> String {
    let lines: String = (0..rows).map(|row| format!("{row}\n")).collect();
    std::fs::write(folder.join("in.csv"), lines).unwrap();
    format!(
        "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv', 'csv.header' = 'false');",
        folder.join("in.csv").display()
    )
}

fn files_out(folder: &Path, columns: &str) -> String {
    let out = folder.join("out").display().to_string();
    format!(
        "CREATE TABLE result ({columns}) WITH ('connector' = 'filesystem', 'path' = '{out}', 'format' = 'csv', 'csv.header' = 'false');"
    )
}

/// All committed lines.
fn lines_out(folder: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for file in std::fs::read_dir(folder.join("out")).into_iter().flatten() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "csv") {
            lines.extend(std::fs::read_to_string(path).unwrap().lines().map(str::to_string));
        }
    }
    lines
}

#[test]
fn a_bounded_run_ends_with_its_outcome() {
    let folder = folder();
    let script = format!(
        "{}{} INSERT INTO result SELECT n * 2 FROM numbers WHERE n >= 10;",
        numbers(folder.path(), 1000),
        files_out(folder.path(), "n BIGINT")
    );
    let spec = spec(folder.path(), &script);
    let mut attempt = start(folder, &spec);
    assert_eq!(attempt.end(), Some(0));
    let outcome = attempt.outcome();
    assert_eq!(outcome["end"], json!({ "state": "finished" }));
    assert!(outcome["committed"].as_u64().unwrap() >= 1 && outcome["epoch"] == outcome["committed"], "{outcome}");
    assert_eq!(sum(operator(&outcome, "source"), "rows_in"), 1000);
    assert_eq!(sum(operator(&outcome, "sink"), "rows_out"), 990);
    let split = &outcome["splits"][0];
    assert_eq!((&split["finished"], &split["table"]), (&json!(true), &json!("numbers")), "{split}");
    let begun = &outcome["start_positions"][split["operator"].as_str().unwrap()];
    assert_eq!(begun, &json!({}), "there is no word for the beginning of a file");
    assert_eq!(lines_out(attempt.folder.path()).len(), 990);
}

#[test]
fn a_process_says_who_it_is_and_lets_nobody_else_in() {
    let script = per_second(100)
        + "CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT id FROM clicks;";
    let mut attempt = Attempt::of(&script);
    attempt.status_when("a run", |status| status["phase"] == "running");
    let facts = attempt.read("process.json").unwrap();
    assert_eq!(facts["pid"], attempt.child.id());
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", attempt.child.id())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(facts["start_ticks"].to_string(), fields[19]);
    // Its session and its group are its own.
    assert_eq!((fields[2], fields[3]), (&*attempt.child.id().to_string(), &*attempt.child.id().to_string()));
    let mode = std::fs::metadata(attempt.directory.join("control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", attempt.child.id())).unwrap();
    assert!(
        limits.lines().any(|line| line.split_whitespace().eq("Max core file size 0 0 bytes".split(' '))),
        "{limits}"
    );

    for token in [None, Some(""), Some("canary-8c1f0b7e5"), Some("canary-8c1f0b7e5b")] {
        for path in ["/status", "/nothing", "/rows"] {
            assert_eq!(attempt.ask("GET", path, token, "").status, 401, "{token:?}");
        }
        assert_eq!(attempt.ask("POST", "/stop", token, "\"now\"").status, 401);
    }
    let refused = |method, path, body| {
        let answer = attempt.ask(method, path, Some(TOKEN), body);
        (answer.status, answer.json()["code"].as_str().unwrap().to_string())
    };
    assert_eq!(refused("GET", "/", ""), (404, "not_found".into()));
    assert_eq!(refused("POST", "/status", ""), (405, "method_not_allowed".into()));
    assert_eq!(refused("GET", "/stop", ""), (405, "method_not_allowed".into()));
    let long = format!("\"{}\"", "now".repeat(1000));
    for body in ["", "now", "\"later\"", &long] {
        assert_eq!(refused("POST", "/stop", body), (400, "invalid_body".into()), "{body}");
    }
    assert_eq!(refused("GET", "/rows", ""), (409, "no_rows".into()));
    // None of this has ended it, nor does an interrupt at somebody's terminal.
    attempt.signal("INT");
    attempt.status_when("more rows", |status| sum(operator(status, "source"), "rows_in") > 50);
    attempt.signal("TERM");
    assert_eq!(attempt.end(), Some(130));
    assert_eq!(attempt.outcome()["end"], json!({ "state": "cancelled" }));
}

#[test]
fn all_processes_of_a_run_are_closed_to_others_and_as_nice_as_its_share() {
    let folder = folder();
    let script = per_second(100)
        + "CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT id FROM clicks;";
    let mut spec = spec(folder.path(), &script);
    spec["settings"]["processes"] = json!(2);
    spec["limits"]["cpu_percent"] = json!(25);
    let directory = write_spec(folder.path(), &spec);
    let mut command = command(&directory);
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        // Files of a closed process are of group 0: another group of its own shows the difference.
        std::os::unix::process::CommandExt::gid(&mut command, 1);
    }
    let mut child = command.spawn().unwrap();
    give_credentials(child.stdin.take());
    let mut attempt = Attempt { folder, directory, child };
    attempt.status_when("a run", |status| status["phase"] == "running");
    let mut all = children_of(attempt.child.id());
    all.push(attempt.child.id());
    assert_eq!(all.len(), 2);
    for pid in all {
        let files = std::fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!((files.uid(), files.gid()), (0, 0), "of {pid}");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // Field 19, the seventeenth behind the name.
        assert_eq!(stat.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("6"), "{stat}");
    }
    attempt.stop("now");
    assert_eq!(attempt.end(), Some(130));
}

/// A stream over two threads: per worker counters, watermarks, splits.
fn a_stream(processes: u64) {
    let folder = folder();
    let script = per_second(20_000)
        + "CREATE TABLE b (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
           INSERT INTO b SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY k, window_start, window_end;";
    let mut spec = spec(folder.path(), &script);
    spec["settings"]["processes"] = json!(processes);
    spec["settings"]["parallelism"] = json!(2 / processes);
    spec["settings"]["epoch.interval"] = json!("200ms");
    spec["settings"]["checkpoint.interval"] = json!("200ms");
    let mut attempt = start(folder, &spec);
    let far = |status: &Value| {
        let windows = operator(status, "window_aggregate");
        let all = |counter: &str| {
            windows["subtasks"].as_array().is_some_and(|all| all.iter().all(|one| one[counter].as_u64() > Some(0)))
        };
        all("rows_in") && all("watermark_us") && sum(operator(status, "sink"), "rows_out") > 0
    };
    let status = attempt.status_when("windows", far);
    assert_eq!(status["phase"], "running");
    let operators = status["operators"].as_array().unwrap();
    for (position, one) in operators.iter().enumerate() {
        let who: Vec<(u64, u64)> = one["subtasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|subtask| (subtask["process"].as_u64().unwrap(), subtask["worker"].as_u64().unwrap()))
            .collect();
        assert_eq!(who, [(0, 0), (processes - 1, 1)]);
        assert!(one["inputs"].as_array().unwrap().iter().all(|input| input.as_u64().unwrap() < position as u64));
        assert_eq!(one["inputs"].as_array().unwrap().is_empty(), one["kind"] == "source");
    }
    let kinds: BTreeSet<&str> = operators.iter().map(|one| one["kind"].as_str().unwrap()).collect();
    assert!(kinds.is_superset(&["source", "window_assign", "window_aggregate", "sink"].into()), "{kinds:?}");
    // Both workers read, and are idle most of the time.
    for subtask in operator(&status, "source")["subtasks"].as_array().unwrap() {
        let time = |of: &str| subtask[of].as_u64().unwrap();
        assert!(time("rows_in") > 0 && time("busy_us") > 0 && time("idle_us") > time("busy_us"), "{subtask}");
    }
    let splits = status["splits"].as_array().unwrap();
    assert_eq!(splits.len(), 4);
    assert!(splits.iter().all(|split| split["position"].is_string() && split["watermark_us"].is_i64()), "{splits:?}");
    let begun = status["start_positions"].as_object().unwrap();
    assert!(
        begun.len() == 1 && begun.values().all(|of| *of == json!({})),
        "there is no word for the beginning: {begun:?}"
    );
    // Less than three programs that have just begun would be none at all.
    assert!(status["resident_bytes"].as_u64().unwrap() > processes * (5 << 20), "{}", status["resident_bytes"]);
    let before = status["cpu_us"].as_u64().unwrap();
    attempt.status_when("more work", |status| status["cpu_us"].as_u64().unwrap() > before);

    let children = children_of(attempt.child.id());
    assert_eq!(children.len() as u64, processes - 1);
    let asked = Instant::now();
    attempt.stop("now");
    assert_eq!(attempt.end(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    let outcome = attempt.outcome();
    assert_eq!(outcome["end"], json!({ "state": "cancelled" }));
    assert!(outcome["committed"].as_u64().unwrap() > 0 && outcome["splits"].as_array().unwrap().len() == 4);
    wait_for("the end of its children", || children.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

fn children_of(pid: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(of) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if stat(of).is_some_and(|(_, parent)| parent == pid) {
            children.push(of);
        }
    }
    children
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

#[test]
fn a_stream_in_one_process_can_be_watched_and_stopped() {
    a_stream(1);
}

#[test]
fn a_stream_in_two_processes_can_be_watched_and_stopped() {
    a_stream(2);
}

#[test]
fn a_drained_run_loses_nothing_and_the_next_one_goes_on_where_it_was() {
    let mut total = 0;
    let mut positions = json!({});
    for attempt_no in 0..2 {
        let folder = folder();
        let rate = if attempt_no == 0 { "'rows-per-second' = '2000'," } else { "" };
        let script = clicks("'number-of-rows' = '20000',", rate)
            + &files_out(folder.path(), "n BIGINT")
            + "INSERT INTO result SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE clicks, DESCRIPTOR(ts), INTERVAL '1' DAY)) GROUP BY window_start, window_end;";
        let mut spec = spec(folder.path(), &script);
        spec["settings"]["parallelism"] = json!(2);
        spec["settings"]["processes"] = json!(2);
        spec["start"] = positions.clone();
        let mut attempt = start(folder, &spec);
        if attempt_no == 0 {
            attempt.status_when("rows", |status| sum(operator(status, "source"), "rows_in") > 500);
            attempt.stop("drain");
            attempt.stop("drain");
            // It may be over already.
        }
        assert_eq!(attempt.end(), Some(0));
        let outcome = attempt.outcome();
        assert_eq!(outcome["end"], json!({ "state": "finished" }));
        let read = sum(operator(&outcome, "source"), "rows_in");
        let lines = lines_out(attempt.folder.path());
        assert_eq!(
            lines,
            [read.to_string()],
            "the window fires although its end is a day away, with every row that was read"
        );
        if attempt_no == 0 {
            assert!((500..20_000).contains(&read), "{read}");
            for split in outcome["splits"].as_array().unwrap() {
                assert_eq!(split["finished"], json!(true));
                positions[split["operator"].as_str().unwrap()][split["split"].as_str().unwrap()] =
                    split["position"].clone();
            }
        } else {
            assert_eq!(outcome["start_positions"], positions);
        }
        total += read;
    }
    assert_eq!(total, 20_000);
}

#[test]
fn a_run_goes_on_without_a_split_that_began_at_its_beginning_and_is_gone() {
    let folder = folder();
    let script = numbers(folder.path(), 10)
        + &files_out(folder.path(), "n BIGINT")
        + "INSERT INTO result SELECT n FROM numbers;";
    let mut spec = spec(folder.path(), &script);
    let operator = spec["graph"]["nodes"][0]["id"].as_str().unwrap().to_string();
    spec["start"] = json!({ operator: { "a file of last week": "" } });
    let mut attempt = start(folder, &spec);
    assert_eq!(attempt.end(), Some(0));
    assert_eq!(lines_out(attempt.folder.path()).len(), 10);
}

#[test]
fn positions_of_splits_that_are_not_there_are_refused_by_name() {
    let script = per_second(10)
        + "CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT id FROM clicks;";
    for (start_at, named, known) in [
        (json!({ "clicks": { "77": "5" } }), "'77'", "its splits are: "),
        (json!({ "klicks": { "0": "5" } }), "'klicks'", "its sources are: "),
    ] {
        let folder = folder();
        let mut spec = spec(folder.path(), &script);
        let operator = spec["graph"]["nodes"][0]["id"].as_str().unwrap().to_string();
        spec["start"] = serde_json::from_str(&start_at.to_string().replace("clicks", &operator)).unwrap();
        let mut attempt = start(folder, &spec);
        assert_eq!(attempt.end(), Some(1));
        let end = &attempt.outcome()["end"];
        assert_eq!(
            (&end["state"], &end["code"], &end["fault"]),
            (&json!("failed"), &json!("unknown_split"), &json!("user"))
        );
        assert!(end["message"].as_str().unwrap().contains(&named.replace("clicks", &operator)), "{end}");
        assert!(end["hint"].as_str().unwrap().starts_with(known), "{end}");
    }
}

#[test]
fn a_killed_process_leaves_no_outcome_and_no_children() {
    let folder = folder();
    let script = per_second(10)
        + "CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT id FROM clicks;";
    let mut spec = spec(folder.path(), &script);
    spec["settings"]["processes"] = json!(2);
    let mut attempt = start(folder, &spec);
    attempt.status_when("a run", |status| status["phase"] == "running");
    let children = children_of(attempt.child.id());
    assert_eq!(children.len(), 1);
    attempt.signal("KILL");
    assert_eq!(attempt.end(), None);
    assert!(attempt.read("outcome.json").is_none());
    wait_for("the end of its child", || (!is_alive(children[0])).then_some(()));
}

#[test]
fn a_process_that_was_given_up_does_not_begin() {
    let folder = folder();
    let script = numbers(folder.path(), 10)
        + &files_out(folder.path(), "n BIGINT")
        + "INSERT INTO result SELECT n FROM numbers;";
    let spec = spec(folder.path(), &script);
    let directory = write_spec(folder.path(), &spec);
    // As a server does that has waited too long for it, and has told its run failed.
    std::fs::write(directory.join("process.json"), "").unwrap();
    let child = command(&directory).spawn().unwrap();
    let mut attempt = Attempt { folder, directory, child };
    assert_eq!(attempt.end(), Some(2));
    assert!(attempt.read("outcome.json").is_none() && lines_out(attempt.folder.path()).is_empty());
}

#[test]
fn the_cause_of_a_failure_is_in_the_outcome() {
    let folder = folder();
    let script = numbers(folder.path(), 10)
        + &files_out(folder.path(), "n BIGINT")
        + "INSERT INTO result SELECT n FROM numbers;";
    std::fs::write(folder.path().join("in.csv"), "1\n2\nthree\n").unwrap();
    let spec = spec(folder.path(), &script);
    let mut attempt = start(folder, &spec);
    assert_eq!(attempt.end(), Some(1));
    let end = &attempt.outcome()["end"];
    assert_eq!(
        (&end["state"], &end["code"], &end["retryable"]),
        (&json!("failed"), &json!("bad_record"), &json!(false)),
        "{end}"
    );
    assert!(end["message"].as_str().unwrap().contains("three") && end["hint"].is_string(), "{end}");
    assert_eq!(end["operator"], spec["graph"]["nodes"][0]["id"]);
    assert_eq!(lines_out(attempt.folder.path()), Vec::<String>::new());
}

#[test]
fn a_run_that_takes_too_much_memory_or_time_ends_with_that_cause() {
    let folder = folder();
    let script = clicks("", "")
        + "CREATE TABLE b (id BIGINT, n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT id, COUNT(*) FROM clicks GROUP BY id;";
    let mut spec = spec(folder.path(), &script);
    spec["limits"]["memory_bytes"] = json!(200 << 20);
    let mut attempt = start(folder, &spec);
    assert_eq!(attempt.end(), Some(1));
    let end = &attempt.outcome()["end"];
    assert_eq!(
        (&end["state"], &end["code"], &end["fault"]),
        (&json!("failed"), &json!("memory_limit"), &json!("user"))
    );
    let message = end["message"].as_str().unwrap();
    assert!(message.contains("may have 200 MiB"), "{message}");

    let script = per_second(10)
        + "CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT id FROM clicks;";
    let folder = self::folder();
    let mut spec = self::spec(folder.path(), &script);
    spec["limits"]["seconds"] = json!(1);
    let begun = Instant::now();
    let mut attempt = start(folder, &spec);
    assert_eq!(attempt.end(), Some(1));
    assert!((1.0..4.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
    assert_eq!(attempt.outcome()["end"]["code"], "time_limit");
}

#[test]
fn a_process_outlives_who_started_it() {
    let folder = folder();
    let script = clicks("'number-of-rows' = '3000',", "'rows-per-second' = '1500',")
        + &files_out(folder.path(), "n BIGINT")
        + "INSERT INTO result SELECT id FROM clicks;";
    let directory = write_spec(folder.path(), &spec(folder.path(), &script));
    // A shell that starts it in the background and is killed with its whole group.
    let line = json!({ "token": TOKEN, "connections": {} }).to_string();
    std::fs::write(directory.join("line"), line + "\n").unwrap();
    let shell = "\"$0\" attempt --directory \"$1\" < \"$1/line\" 2> \"$1/log.jsonl\" & echo $!; sleep 60";
    let mut starter = Command::new("sh");
    starter.args(["-c", shell]).arg(program::path()).arg(&directory).stdout(Stdio::piped());
    let mut starter = std::os::unix::process::CommandExt::process_group(&mut starter, 0).spawn().unwrap();
    wait_for("a run", || dial(&directory));
    let group = format!("-{}", starter.id());
    assert!(Command::new("kill").args(["-s", "KILL", "--", &group]).status().unwrap().success());
    starter.wait().unwrap();
    let outcome = wait_for("an outcome", || std::fs::read(directory.join("outcome.json")).ok());
    let outcome: Value = serde_json::from_slice(&outcome).unwrap();
    assert_eq!(outcome["end"], json!({ "state": "finished" }));
    assert_eq!(lines_out(folder.path()).len(), 3000);
}

/// An attempt whose input is at a server that says nothing, and the connection to it.
fn waiting() -> (Attempt, TcpStream) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let script = format!(
        "CREATE TABLE far (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 's3://b/in', 'format' = 'json',
           's3.endpoint' = 'http://{}', 's3.region' = 'r', 's3.access-key' = 'a', 's3.secret-key' = 'canary-key');
         CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO b SELECT n FROM far;",
        silent.local_addr().unwrap()
    );
    let attempt = Attempt::of(&script);
    let (connection, _) = silent.accept().unwrap();
    assert_eq!(attempt.status()["phase"], "starting");
    (attempt, connection)
}

/// A run that waits for its input has read nothing: it is cancelled either way, when it is to be drained after a grace.
#[rstest]
#[case::now("now", 1)]
#[case::drain("drain", 5)]
fn a_run_that_waits_for_its_input_can_be_stopped(#[case] mode: &str, #[case] seconds: u64) {
    let (mut attempt, _connection) = waiting();
    let asked = Instant::now();
    attempt.stop(mode);
    assert_eq!(attempt.end(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(seconds), "{:?}", asked.elapsed());
    assert_eq!(attempt.outcome()["end"], json!({ "state": "cancelled" }));
}

fn query(rows: u64) -> (TempDir, Value) {
    let folder = folder();
    let script = clicks(&format!("'number-of-rows' = '{rows}',"), "")
        + "CREATE TABLE p (id BIGINT) WITH ('connector' = 'print'); INSERT INTO p SELECT id FROM clicks;";
    let mut spec = spec(folder.path(), &script);
    spec["serve_rows"] = json!(true);
    (folder, spec)
}

#[test]
fn the_rows_of_a_query_are_streamed_to_its_reader() {
    let (folder, spec) = query(100_000);
    let mut attempt = start(folder, &spec);
    let answer = attempt.ask("GET", "/rows", Some(TOKEN), "");
    assert!(answer.status == 200 && answer.whole);
    let batches: Vec<_> = StreamReader::try_new(&answer.body[..], None).unwrap().collect::<Result<_, _>>().unwrap();
    let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
    assert_eq!((rows, batches[0].schema().field(0).name().as_str()), (100_000, "id"));
    // The outcome was there before the end of the rows.
    assert_eq!(attempt.read("outcome.json").unwrap()["end"], json!({ "state": "finished" }));
    assert_eq!(attempt.end(), Some(0));
    attempt.outcome();
}

#[test]
fn a_query_that_returns_nothing_has_columns() {
    let (folder, mut spec) = query(10);
    let text = spec["graph"].to_string().replace("\"number-of-rows\":10", "\"number-of-rows\":0");
    spec["graph"] = serde_json::from_str(&text).unwrap();
    let mut attempt = start(folder, &spec);
    let answer = attempt.ask("GET", "/rows", Some(TOKEN), "");
    assert!(answer.whole);
    let mut reader = StreamReader::try_new(&answer.body[..], None).unwrap();
    assert_eq!(reader.schema().field(0).name(), "id");
    assert!(reader.next().is_none_or(|batch| batch.unwrap().num_rows() < 11));
    assert_eq!(attempt.end(), Some(0));
}

#[test]
fn a_query_without_its_reader_ends_and_a_slow_one_costs_no_memory() {
    let (folder, spec) = query(1_000_000_000);
    let mut attempt = start(folder, &spec);
    let stream = wait_for("a socket", || dial(&attempt.directory));
    send(&stream, "GET", "/rows", Some(TOKEN), "");
    let mut first = [0; 4096];
    (&stream).read_exact(&mut first).unwrap();
    assert_eq!(attempt.ask("GET", "/rows", Some(TOKEN), "").status, 409);
    // Nobody reads on: what is read of the input stands still, and so does memory.
    let read = |attempt: &Attempt| sum(operator(&attempt.status(), "source"), "rows_in");
    let mut last = 0;
    wait_for("a standstill", || {
        std::thread::sleep(Duration::from_millis(700));
        let now = read(&attempt);
        (std::mem::replace(&mut last, now) == now && now > 0).then_some(())
    });
    let status = attempt.status();
    assert!(status["resident_bytes"].as_u64().unwrap() < 300 << 20, "{}", status["resident_bytes"]);
    assert!(sum(operator(&status, "source"), "backpressured_us") > 100_000, "{:#}", operator(&status, "source"));
    let gone = Instant::now();
    drop(stream);
    assert_eq!(attempt.end(), Some(130));
    assert!(gone.elapsed() < Duration::from_secs(1), "{:?}", gone.elapsed());
}

#[test]
fn a_query_that_runs_out_of_time_while_its_last_rows_are_read_has_failed() {
    let folder = folder();
    let script = clicks("'number-of-rows' = '200000',", "")
        + "CREATE TABLE p (id BIGINT, k BIGINT) WITH ('connector' = 'print'); INSERT INTO p SELECT id, k FROM clicks ORDER BY id;";
    let mut spec = spec(folder.path(), &script);
    spec["serve_rows"] = json!(true);
    spec["limits"]["seconds"] = json!(6);
    let mut attempt = start(folder, &spec);
    let stream = wait_for("a socket", || dial(&attempt.directory));
    send(&stream, "GET", "/rows", Some(TOKEN), "");
    // Sorted rows come at the end, all at once; nobody reads on.
    let mut first = [0; 1000];
    (&stream).read_exact(&mut first).unwrap();
    assert!(attempt.read("outcome.json").is_none());
    let outcome = wait_for("an outcome", || attempt.read("outcome.json"));
    assert_eq!((&outcome["end"]["state"], &outcome["end"]["code"]), (&json!("failed"), &json!("time_limit")));
    let mut rest = Vec::new();
    let _ = (&stream).read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the end of the body would say that this was all");
    assert_eq!(attempt.end(), Some(1));
}

#[test]
fn the_rows_of_a_query_that_fails_break_off() {
    let folder = folder();
    let script = numbers(folder.path(), 50_000)
        + "CREATE TABLE p (n BIGINT) WITH ('connector' = 'print'); INSERT INTO p SELECT 1000000 / (40000 - n) FROM numbers;";
    let mut spec = spec(folder.path(), &script);
    spec["serve_rows"] = json!(true);
    spec["settings"]["epoch.every-rows"] = json!(1000);
    let mut attempt = start(folder, &spec);
    let answer = attempt.ask("GET", "/rows", Some(TOKEN), "");
    assert!(answer.status == 200 && !answer.whole, "{} bytes", answer.body.len());
    let outcome = attempt.read("outcome.json").unwrap();
    assert_eq!(outcome["end"]["state"], "failed", "the cause is there when the stream breaks");
    assert_eq!(attempt.end(), Some(1));
}

#[test]
fn late_rows_and_dead_letters_can_be_seen_when_no_table_reads_them() {
    let folder = folder();
    let mut lines: Vec<String> =
        (0..3000).map(|row| format!("{row},2020-01-01 00:{:02}:{:02}", row / 60 % 60, row % 60)).collect();
    lines.push("7,2199-01-01 00:00:00".into());
    std::fs::write(folder.path().join("in.csv"), lines.join("\n") + "\n").unwrap();
    let script = format!(
        "CREATE TABLE t (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND) WITH (
           'connector' = 'replay', 'path' = '{}', 'format' = 'csv', 'csv.header' = 'false', 'replay.disorder' = '2min',
           'max_ahead' = '1h');
         CREATE TABLE sums (n BIGINT) WITH ('connector' = 'blackhole');
         INSERT INTO sums SELECT SUM(n) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;",
        folder.path().join("in.csv").display()
    );
    let mut spec = spec(folder.path(), &script);
    spec["settings"]["watermark.interval"] = json!("0s");
    spec["settings"]["source.batch-rows"] = json!(100);
    spec["settings"]["processes"] = json!(2);
    let mut attempt = start(folder, &spec);
    assert_eq!(attempt.end(), Some(0));
    let outcome = attempt.outcome();
    let late = sum(operator(&outcome, "window_assign"), "late");
    let shown = outcome["late_rows"].as_array().unwrap();
    assert!(late > 100 && shown.len() as u64 == late.min(1000), "{late} late, {} shown", shown.len());
    let nodes: Vec<&str> =
        spec["graph"]["nodes"].as_array().unwrap().iter().map(|node| node["id"].as_str().unwrap()).collect();
    for row in shown {
        assert!(row["event_time_us"].as_i64() < row["watermark_us"].as_i64(), "{row}");
        assert!(nodes.contains(&row["operator"].as_str().unwrap()), "{row}");
        let values: Value = serde_json::from_str(row["row"].as_str().unwrap()).unwrap();
        assert!(values["n"].is_u64(), "{row}");
    }
    for stage in outcome["operators"].as_array().unwrap() {
        assert!(nodes.contains(&stage["operator"].as_str().unwrap()), "{stage}");
    }
    // A time too far ahead is a dead letter whether or not anything reads these.
    let letters = outcome["dead_letters"].as_array().unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["code"], letters[0].get("position")), (&json!("future_event_time"), None), "{letters:?}");
    assert!(letters[0]["payload"].as_str().unwrap().contains("2199"), "{letters:?}");
}
