//! Savepoints: what goes on from one gives what an undisturbed run gives, in another job, with more or fewer threads, from another
//! directory; and what is no savepoint of the job is refused by name.

mod s3;
mod topics;
mod wrong;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use integration_tests::program;
use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::process::send;

use super::{counts, fresh, shared};

const ROWS: i64 = 12_000;
/// Between rows, in event time, which passes four times as fast as the clock.
const STEP_MS: i64 = 1;
const WINDOW_MS: i64 = 250;

fn key(n: i64) -> i64 {
    (n * 7919) % 11
}

/// Milliseconds after midnight as a time of a day.
fn text(ms: i64) -> String {
    format!("2020-09-13 {:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000)
}

/// The same time, written one way.
fn plain(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{fraction:0<3}"),
        None => format!("{time}.000"),
    }
}

/// Windows of rows out of order into files, sums into a view, and each row into a view without a key.
fn script(input: &str, views: &str, files: &Path, more: &str) -> String {
    format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '150ms'; SET 'restart.delay' = '10ms';
         CREATE TABLE events (n BIGINT, k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
           WITH ('connector' = 'replay', 'path' = '{input}', 'format' = 'json', 'replay.speed' = '4', 'replay.disorder' = '900ms',
                 'replay.splits' = '3', 'replay.seed' = '7');
         CREATE TABLE {views}_sums (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         CREATE TABLE windows (w TIMESTAMP(3), k BIGINT, c BIGINT, s BIGINT)
           WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         CREATE TABLE {views}_rows (n BIGINT) WITH ('connector' = 'view');
         INSERT INTO {views}_sums SELECT k, COUNT(*), SUM(n) FROM events GROUP BY k;
         INSERT INTO windows SELECT window_start, k, COUNT(*), SUM(n)
           FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '0.25' SECOND)) GROUP BY window_start, window_end, k;
         INSERT INTO {views}_rows SELECT n FROM events;{more}",
        files.display()
    )
}

fn input(server: &Highwater, name: &str) -> String {
    let lines: String =
        (0..ROWS).map(|n| format!("{{\"n\":{n},\"k\":{},\"ts\":\"{}\"}}\n", key(n), text(n * STEP_MS))).collect();
    server.file(&format!("{name}.jsonl"), lines)
}

type Sums = BTreeMap<(String, i64), (i64, i64)>;

fn expected(window: impl Fn(i64) -> String) -> Sums {
    let mut sums = Sums::new();
    for n in 0..ROWS {
        let sum = sums.entry((window(n), key(n))).or_default();
        *sum = (sum.0 + 1, sum.1 + n);
    }
    sums
}

fn expected_windows() -> Sums {
    expected(|n| text(n * STEP_MS / WINDOW_MS * WINDOW_MS))
}

fn add(sums: &mut Sums, rows: impl IntoIterator<Item = Value>, what: &str) {
    for row in rows {
        let integer = |name: &str| row[name].as_i64().unwrap_or_else(|| panic!("{what}: {row}"));
        let window = row["w"].as_str().map(plain).unwrap_or_default();
        let before = sums.insert((window, integer("k")), (integer("c"), integer("s")));
        assert_eq!(before, None, "{what}: twice: {row}");
    }
}

/// Rows of files that were committed up to an epoch.
fn committed(directory: &Path, epoch: i64) -> Vec<Value> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(directory.join("_manifests")).into_iter().flatten().flatten() {
        let Ok(manifest) = serde_json::from_slice::<Value>(&std::fs::read(entry.path()).unwrap()) else { continue };
        for file in manifest["files"].as_array().unwrap() {
            if manifest["epoch"].as_i64().unwrap() <= epoch {
                let content = std::fs::read_to_string(directory.join(file["path"].as_str().unwrap())).unwrap();
                rows.extend(content.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
        }
    }
    rows
}

/// The operation when it has ended.
fn wait(server: &Highwater, operation: &Value) -> Value {
    let id = operation["id"].as_str().unwrap_or_else(|| panic!("no operation: {operation}"));
    let deadline = std::time::Instant::now() + integration_tests::rest::PATIENCE;
    loop {
        let now = server.get(&format!("/api/v1/operations/{id}?wait=20s")).expect(200).json();
        if now["state"] != "running" {
            return now;
        }
        assert!(std::time::Instant::now() < deadline, "it does not end: {now}");
    }
}

fn succeeded(server: &Highwater, operation: &Value) -> Value {
    let ended = wait(server, operation);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    let id = ended["savepoint"].as_str().unwrap();
    let savepoint = server.get(&format!("/api/v1/savepoints/{id}")).expect(200).json();
    assert_eq!(savepoint["state"], "completed", "{savepoint}");
    let location = savepoint["location"].as_str().unwrap();
    assert!(location.contains("://") || Path::new(location).join("manifest.json").is_file(), "{savepoint}");
    savepoint
}

/// A job that is stored and not started.
fn job(server: &Highwater, name: &str, sql: &str, parallelism: u64) {
    let job = json!({"name": name, "sql": sql, "parallelism": parallelism, "start": false});
    server.post("/api/v1/jobs", &job).expect(201);
}

fn start(server: &Highwater, job: &str, savepoint: &str) -> Value {
    let start = json!({"from": "savepoint", "savepoint": savepoint});
    server.post(&format!("/api/v1/jobs/{job}/runs"), &start).expect(202).json()
}

fn rows_in(run: &Value) -> Option<u64> {
    run["progress"]["rows_in"].as_u64()
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap_or_else(|| panic!("no id: {value}")).to_string()
}

fn manifest(directory: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(directory.join("manifest.json")).unwrap()).unwrap()
}

/// Rows that DuckDB finds.
fn duckdb(query: &str) -> Vec<Value> {
    let mut process = Command::new(program::python())
        .arg(program::repository().join("integration-tests/oracle.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let request = json!({"files": {}, "queries": [query]});
    process.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "DuckDB failed over {query}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The files of a table as DuckDB reads them; the operator is found by the beginning of its id.
fn files_of(directory: &Path, operator: &str, keyed: bool) -> String {
    let manifest = manifest(directory);
    let operators = manifest["operators"].as_array().unwrap();
    let found = operators.iter().find(|one| one["operator"].as_str().unwrap().starts_with(operator)).unwrap();
    let table = found["tables"].as_array().unwrap().iter().find(|table| table["keyed"] == keyed).unwrap();
    let paths = table["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| format!("'{}'", directory.join(file["path"].as_str().unwrap()).display()));
    format!("read_parquet([{}])", paths.collect::<Vec<_>>().join(", "))
}

/// What DuckDB makes of the state of windows and sums: the rows of open windows are those that were counted and are in no window yet.
fn duckdb_recomputes(directory: &Path, fired: &Sums) {
    let windows = files_of(directory, "window_aggregate", true);
    let sums = files_of(directory, "aggregate", true);
    let columns = |files: &str| -> Vec<String> {
        let described = duckdb(&format!("SELECT column_name FROM (DESCRIBE SELECT * FROM {files})"));
        described.iter().map(|row| row["column_name"].as_str().unwrap().to_string()).collect()
    };
    let (of_windows, of_sums) = (columns(&windows), columns(&sums));
    assert_eq!(of_windows.last().map(String::as_str), Some("key_group"));
    // The key first, then the states of COUNT and of SUM.
    let by_key = |files: &str, columns: &[String]| -> BTreeMap<i64, i64> {
        let query =
            format!("SELECT \"{}\" AS k, SUM(\"{}\")::BIGINT AS c FROM {files} GROUP BY 1", columns[0], columns[1]);
        duckdb(&query).iter().map(|row| (row["k"].as_i64().unwrap(), row["c"].as_i64().unwrap())).collect()
    };
    let (open, all) = (by_key(&windows, &of_windows), by_key(&sums, &of_sums));
    assert!(!open.is_empty() && all.len() == 11, "{open:?} {all:?}");
    for (k, counted) in all {
        let fired: i64 = fired.iter().filter(|((_, of), _)| *of == k).map(|(_, (count, _))| count).sum();
        assert_eq!(open.get(&k).copied().unwrap_or(0), counted - fired, "key {k} of {of_windows:?}");
    }
}

#[test]
fn a_savepoint_goes_on_in_other_jobs_with_more_and_fewer_threads() {
    let server = shared();
    let names: Vec<String> = (0..3).map(|_| fresh("chain")).collect();
    let input = input(&server, &names[0]);
    let directory = |name: &str| server.files().join(name);
    for (name, threads) in names.iter().zip([1, 3, 2]) {
        job(&server, name, &script(&input, name, &directory(name), ""), threads);
    }
    let first = server.post(&format!("/api/v1/jobs/{}/runs", names[0]), &json!({})).expect(202).json();
    server.wait_for_run(&first, "a third of the rows", |run| rows_in(run) > Some(4000));
    // While it runs; it goes on, and what it puts out later is not of the savepoint.
    let path = format!("/api/v1/jobs/{}/savepoints", names[0]);
    let asked = server.post(&path, &json!({"name": "third"})).expect(202).json();
    let again = server.post(&path, &json!({"name": "third"})).expect(202).json();
    assert_eq!(again["id"], asked["id"], "the name says which: {again}");
    let taken = succeeded(&server, &asked);
    assert_eq!(server.post(&path, &json!({"name": "third"})).expect(202).json()["state"], "succeeded");
    let listed = server.get(&path).expect(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    let running = server.get(&format!("/api/v1/runs/{}", id(&first))).expect(200).json();
    assert_eq!(running["state"], "running", "{running}");
    let mut windows = Sums::new();
    add(&mut windows, committed(&directory(&names[0]), taken["epoch"].as_i64().unwrap()), "first");
    let at = PathBuf::from(taken["location"].as_str().unwrap());
    duckdb_recomputes(&at, &windows);
    // The verdicts, before anything runs: the views have other names.
    let check = format!("/api/v1/savepoints/{}/check", id(&taken));
    let verdicts = server.post(&check, &json!({"job": names[1]})).expect(200).json();
    assert_eq!((&verdicts["fits"], &verdicts["verified"]), (&json!(true), &json!(true)), "{verdicts}");
    let fates: BTreeMap<&str, &str> = verdicts["operators"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["operator"].as_str().unwrap(), one["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(fates.get("events"), Some(&"reuse"), "{verdicts}");
    assert_eq!(fates.get(format!("sink_{}_sums", names[1]).as_str()), Some(&"migrate"), "{verdicts}");
    assert!(fates.values().all(|fate| ["reuse", "migrate"].contains(fate)), "{verdicts}");

    let second = start(&server, &names[1], &id(&taken));
    assert_eq!((&second["from"], &second["savepoint"]), (&json!("savepoint"), &taken["id"]), "{second}");
    server.wait_for_run(&second, "some more rows", |run| rows_in(run) > Some(3000));
    let stop = json!({"mode": "savepoint", "name": "half"});
    let stopping = server.post(&format!("/api/v1/runs/{}/stop", id(&second)), &stop).expect(202).json();
    let twice = server.post(&format!("/api/v1/runs/{}/stop", id(&second)), &stop).expect(202).json();
    assert_eq!((&stopping["kind"], &twice["id"]), (&json!("stop_savepoint"), &stopping["id"]), "{twice}");
    let half = succeeded(&server, &stopping);
    let stopped = server.wait_for_end(&second);
    assert_eq!(stopped["state"], "stopped", "{stopped}");
    add(&mut windows, committed(&directory(&names[1]), i64::MAX), "second");
    assert!(windows.len() < expected_windows().len(), "its windows did not fire");

    // From another directory, as it would be copied from another machine.
    let moved = server.files().join(format!("{}-moved", names[0]));
    copy(Path::new(half["location"].as_str().unwrap()), &moved);
    server.delete(&format!("/api/v1/savepoints/{}", id(&half))).expect(204);
    server.get(&format!("/api/v1/savepoints/{}", id(&half))).refused(404, "savepoint_not_found");
    assert!(!Path::new(half["location"].as_str().unwrap()).exists(), "its files are gone");
    let third = start(&server, &names[2], moved.to_str().unwrap());
    let ended = server.wait_for_end(&third);
    assert_eq!(ended["state"], "finished", "{ended}");
    assert!(rows_in(&ended) < Some(ROWS as u64 - 5000), "what was read before is not read again: {ended}");
    add(&mut windows, committed(&directory(&names[2]), i64::MAX), "third");
    assert_eq!(windows, expected_windows());
    let mut sums = Sums::new();
    add(&mut sums, server.rows(&format!("{}_sums", names[2])), "sums");
    assert_eq!(sums, expected(|_| String::new()));
    let mut all: Vec<i64> =
        server.rows(&format!("{}_rows", names[2])).iter().map(|row| row["n"].as_i64().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..ROWS).collect::<Vec<_>>(), "each row once");
    // The first job has seen nothing of all that.
    let undisturbed = server.wait_for_end(&first);
    assert_eq!((&undisturbed["state"], &undisturbed["attempts"]), (&json!("finished"), &json!(1)), "{undisturbed}");
    let mut windows = Sums::new();
    add(&mut windows, committed(&directory(&names[0]), i64::MAX), "undisturbed");
    assert_eq!(windows, expected_windows());
    // After its last epoch there is nothing to go on with.
    server.post(&path, &json!({})).refused(409, "invalid_state");
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// A job without end over numbers, counted by key into a view: its run, once there are checkpoints.
fn endless(server: &Highwater, name: &str) -> Value {
    let (_, run) = server.submit(name, &endless_script(name));
    wait_for_checkpoints(server, &run);
    run
}

fn wait_for_checkpoints(server: &Highwater, run: &Value) {
    let path = format!("/api/v1/runs/{}/checkpoints", id(run));
    let deadline = std::time::Instant::now() + integration_tests::rest::PATIENCE;
    while server.get(&path).expect(200).json()["items"].as_array().unwrap().len() < 2 {
        assert!(std::time::Instant::now() < deadline, "no checkpoints");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn endless_script(view: &str) -> String {
    format!("SET 'checkpoint.interval' = '200ms'; SET 'restart.delay' = '20ms'; {}", counts(view))
}

fn cancel(server: &Highwater, run: &Value) {
    server.post(&format!("/api/v1/runs/{}/stop", id(run)), &json!({"mode": "now"})).expect(202);
    assert_eq!(server.wait_for_end(run)["state"], "cancelled");
}

/// A copy of a savepoint, changed.
fn changed(server: &Highwater, from: &Path, name: &str, change: impl FnOnce(&Path)) -> String {
    let to = server.files().join(name);
    copy(from, &to);
    change(&to);
    to.to_str().unwrap().to_string()
}

/// Names are told from the savepoint on, since directories of the machine are nobody's business.
fn hides_directories(server: &Highwater, problem: &Value) {
    let detail = problem["detail"].as_str().unwrap();
    let told = [server.files(), server.data()].map(|directory| detail.contains(directory.to_str().unwrap()));
    assert_eq!(told, [false, false], "{detail}");
}

#[test]
fn what_is_no_savepoint_of_the_job_is_refused_by_name() {
    let server = shared();
    let name = fresh("refused");
    let run = endless(&server, &name);
    let (jobs, runs) = (format!("/api/v1/jobs/{name}/savepoints"), format!("/api/v1/jobs/{name}/runs"));
    let taken = succeeded(&server, &server.post(&jobs, &json!({"name": "good"})).expect(202).json());
    let from = |savepoint: &str| json!({"from": "savepoint", "savepoint": savepoint});
    // While it runs.
    server.post(&runs, &from("good")).refused(409, "run_active");
    cancel(&server, &run);
    let at = PathBuf::from(taken["location"].as_str().unwrap());
    server.post(&runs, &from("nothing")).refused(404, "savepoint_not_found");
    server.post(&runs, &from("svp_0193456789ab7def8123456789abcdef")).refused(404, "savepoint_not_found");
    server.post(&runs, &from("/etc")).refused(403, "location_not_allowed");
    server.post(&runs, &json!({"from": "savepoint"})).refused(422, "validation_failed");
    server.post(&runs, &json!({"savepoint": "good"})).refused(422, "validation_failed");
    server.post(&runs, &json!({"on_rewind": "append_again"})).refused(422, "validation_failed");
    let unknown = json!({"from": "savepoint", "savepoint": "good", "allow_dropped_state": ["nobody"]});
    server.post(&runs, &unknown).refused(422, "validation_failed");
    server.post(&jobs, &json!({"name": "svp_0193456789ab7def8123456789abcdef"})).refused(422, "validation_failed");
    server.post(&jobs, &json!({"location": "/etc"})).refused(403, "location_not_allowed");
    server.post(&jobs, &json!({"name": "good", "location": server.files()})).refused(409, "name_taken");

    // Copied by halves, edited, newer.
    let manifest_of = |at: &Path| std::fs::read_to_string(at.join("manifest.json")).unwrap();
    let one = manifest(&at)["operators"][0]["tables"][0]["files"][0]["path"].as_str().unwrap().to_string();
    let half = changed(&server, &at, &fresh("half"), |at| std::fs::remove_file(at.join("manifest.json")).unwrap());
    let problem = server.post(&runs, &from(&half)).refused(404, "savepoint_not_found");
    hides_directories(&server, &problem);
    let lost = changed(&server, &at, &fresh("lost"), |at| std::fs::remove_file(at.join(&one)).unwrap());
    let problem = server.post(&runs, &from(&lost)).refused(422, "savepoint_corrupt");
    assert!(problem["detail"].as_str().unwrap().contains(&one), "{problem}");
    hides_directories(&server, &problem);
    let flipped = changed(&server, &at, &fresh("flipped"), |at| {
        let mut content = std::fs::read(at.join(&one)).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        std::fs::write(at.join(&one), content).unwrap();
    });
    let problem = server.post(&runs, &from(&flipped)).refused(422, "savepoint_corrupt");
    assert!(problem["detail"].as_str().unwrap().contains(&one), "{problem}");
    hides_directories(&server, &problem);
    let edit = |from: &str, to: &str| {
        changed(&server, &at, &fresh("edited"), |at| {
            let text = manifest_of(at);
            assert!(text.contains(from), "{text}");
            std::fs::write(at.join("manifest.json"), text.replacen(from, to, 1)).unwrap();
        })
    };
    for (before, after, code) in [
        ("\"job_name\": \"", "\"job_name\": \"x", "savepoint_corrupt"),
        ("highwater-savepoint/1", "highwater-savepoint/2", "savepoint_format"),
        ("{", "[", "savepoint_corrupt"),
    ] {
        hides_directories(&server, &server.post(&runs, &from(&edit(before, after))).refused(422, code));
    }

    // Of another job, which is another graph.
    let other = fresh("other");
    let changed_key = endless_script(&other).replace("n % 10", "n % 9");
    job(&server, &other, &changed_key, 1);
    let other_runs = format!("/api/v1/jobs/{other}/runs");
    let problem = server.post(&other_runs, &from(&id(&taken))).refused(409, "savepoint_conflict");
    let said = problem["errors"].to_string();
    assert!(said.contains("allow_dropped_state"), "{said}");
    // Named, it may go: the counts begin again, the positions stay.
    let lost: Vec<String> = manifest(&at)["operators"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["operator"].as_str().unwrap().to_string())
        .chain(
            manifest(&at)["sinks"].as_array().unwrap().iter().map(|one| one["operator"].as_str().unwrap().to_string()),
        )
        .collect();
    let check = json!({"sql": changed_key, "allow_dropped_state": lost});
    let verdicts = server.post(&format!("/api/v1/savepoints/{}/check", id(&taken)), &check).expect(200).json();
    assert_eq!(verdicts["fits"], true, "{verdicts}");
    let mut allowed = from(&id(&taken));
    allowed["allow_dropped_state"] = json!(lost);
    let begun = server.post(&other_runs, &allowed).expect(202).json();
    server.wait_for_run(&begun, "rows of the other job", |run| rows_in(run) > Some(100));
    // It has decided an epoch of its own, or does so soon: then the savepoint can go.
    let path = format!("/api/v1/savepoints/{}", id(&taken));
    let deadline = std::time::Instant::now() + integration_tests::rest::PATIENCE;
    while server.delete(&path).send().status != 204 {
        assert!(std::time::Instant::now() < deadline, "the savepoint stays in use");
        std::thread::sleep(Duration::from_millis(50));
    }
    cancel(&server, &begun);
}

/// A job goes back to an older savepoint of its own only where it is said what becomes of the rows since.
#[test]
fn a_job_goes_back_only_if_it_is_said_how() {
    let server = shared();
    let name = fresh("rewind");
    let run = endless(&server, &name);
    let (jobs, runs) = (format!("/api/v1/jobs/{name}/savepoints"), format!("/api/v1/jobs/{name}/runs"));
    let early = succeeded(&server, &server.post(&jobs, &json!({"name": "early"})).expect(202).json());
    server.wait_for_run(&run, "a later epoch", |run| {
        run["progress"]["committed_epoch"].as_i64() > early["epoch"].as_i64().map(|epoch| epoch + 5)
    });
    cancel(&server, &run);
    // Of a job that does not run: of its last checkpoint, which is not older than what it shows.
    let late = succeeded(&server, &server.post(&jobs, &json!({"name": "late"})).expect(202).json());
    assert!(late["epoch"].as_i64() > early["epoch"].as_i64(), "{late}");
    let from = |savepoint: &str, how: &str| json!({"from": "savepoint", "savepoint": savepoint, "on_rewind": how});
    server.post(&runs, &from("early", "error")).refused(409, "savepoint_rewind");
    let back = server.post(&runs, &from("early", "truncate_after")).expect(202).json();
    server.wait_for_run(&back, "rows", |run| rows_in(run) > Some(100));
    let stop = json!({"mode": "savepoint"});
    let operation = server.post(&format!("/api/v1/runs/{}/stop", id(&back)), &stop).expect(202).json();
    // Drained it cannot be any more.
    let drained = server.post(&format!("/api/v1/runs/{}/stop", id(&back)), &json!({"mode": "drain"})).send();
    assert_eq!(drained.status, 409, "{}", drained.text());
    let stopped = succeeded(&server, &operation);
    assert_eq!(server.wait_for_end(&back)["state"], "stopped");
    server.post(&format!("/api/v1/runs/{}/stop", id(&back)), &stop).refused(409, "invalid_state");
    // Exactly what was stopped goes on: no rewind.
    let on = start(&server, &name, &id(&stopped));
    server.wait_for_run(&on, "rows", |run| rows_in(run) > Some(100));
    let counted: i64 = server.rows(&name).iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert!(counted > 0);
    cancel(&server, &on);
}

/// The row of a savepoint is all that is needed to make it, whoever dies meanwhile.
#[test]
fn a_savepoint_is_made_although_server_and_run_are_killed() {
    let mut server = Highwater::start();
    let run = endless(&server, "killed");
    let path = "/api/v1/jobs/killed/savepoints";
    // The run first: it is asked again when its next attempt runs.
    send(server.process_of(&run), 9);
    let of_restart = server.post(path, &json!({"name": "restart"})).expect(202).json();
    succeeded(&server, &of_restart);
    // Between request and end, the server.
    send(server.process_of(&run), 19);
    let asked = server.post(path, &json!({"name": "x"})).expect(202).json();
    server
        .delete(&format!("/api/v1/savepoints/{}", asked["savepoint"].as_str().unwrap()))
        .refused(409, "invalid_state");
    server.kill();
    send(server.process_of(&run), 18);
    server.begin();
    let taken = succeeded(&server, &asked);
    assert_eq!(taken["name"], "x");
    // A stop that was asked for, too.
    send(server.process_of(&run), 19);
    let stop =
        server.post(&format!("/api/v1/runs/{}/stop", id(&run)), &json!({"mode": "savepoint"})).expect(202).json();
    server.kill();
    send(server.process_of(&run), 18);
    server.begin();
    succeeded(&server, &stop);
    assert_eq!(server.wait_for_end(&run)["state"], "stopped");
    // Cut off before its checkpoint, it says so.
    let next = server.post("/api/v1/jobs/killed/runs", &json!({"from": "latest"})).expect(202).json();
    server.wait_until_running(&next);
    send(server.process_of(&next), 19);
    let never = server.post(path, &json!({"name": "never"})).expect(202).json();
    cancel(&server, &next);
    let ended = wait(&server, &never);
    assert_eq!((&ended["state"], &ended["failure"]["code"]), (&json!("failed"), &json!("invalid_state")), "{ended}");
    let failed = ended["savepoint"].as_str().unwrap();
    server
        .post("/api/v1/jobs/killed/runs", &json!({"from": "savepoint", "savepoint": failed}))
        .refused(409, "invalid_state");
}
