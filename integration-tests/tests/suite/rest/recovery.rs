//! Runs whose processes are killed go on from their last checkpoint: what they have put out in all is what an undisturbed run puts out.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::process::send;

use super::{fresh, shared};

const ROWS: i64 = 12_000;

/// Numbers from 0, counted by their remainder into a view, windows of them into another one, and as they are into files.
fn script(directory: &Path, view: &str, more: &str) -> String {
    format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '200ms'; SET 'restart.delay' = '20ms';{more}
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'rows-per-second' = '2000', 'number-of-rows' = '{ROWS}', 'fields.n.kind' = 'sequence');
         CREATE TABLE {view} (k BIGINT, n BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         CREATE TABLE out (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO {view} SELECT n % 7, COUNT(*), SUM(n) FROM ticks GROUP BY n % 7;
         INSERT INTO out SELECT n FROM ticks;",
        directory.display()
    )
}

fn numbers(directory: &Path) -> Vec<i64> {
    let mut numbers: Vec<i64> = super::faults::lines(directory)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["n"].as_i64().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// What the view must hold in the end.
fn expected() -> Vec<Value> {
    let of = |k: i64| (0..ROWS).filter(move |n| n % 7 == k);
    (0..7).map(|k| json!({"k": k, "n": of(k).count(), "s": of(k).sum::<i64>()})).collect()
}

fn rows(server: &Highwater, view: &str) -> Vec<Value> {
    let mut rows = server.rows(view);
    rows.sort_by_key(|row| row["k"].as_i64());
    rows
}

fn goes_on(name: &str, more: &str) {
    let server = shared();
    let view = fresh(name);
    let directory = server.files().join(&view);
    let (_, run) = server.submit(&fresh(name), &script(&directory, &view, more));
    for kill in 1..=3 {
        // Of two thousand a second: there have been checkpoints.
        let before = server.wait_for_run(&run, "a running attempt with checkpoints", |run| {
            run["state"] == "running" && run["attempts"] == kill && run["progress"]["rows_in"].as_u64() > Some(1200)
        });
        std::thread::sleep(Duration::from_millis(150 * kill));
        send(server.process_of(&before), 9);
    }
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("finished"), &json!(4)), "{ended}");
    assert_eq!(ended["progress"]["rows_in"], ROWS, "counted once: {ended}");
    assert_eq!(rows(&server, &view), expected());
    assert_eq!(numbers(&directory), (0..ROWS).collect::<Vec<_>>(), "every number once");
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    goes_on("killed", "");
}

#[test]
fn so_does_one_of_several_threads_and_processes() {
    goes_on("spread", "SET 'parallelism' = '2'; SET 'processes' = '2';");
}

/// Rows in order of time, a second of it for every thousand: as they are counted by key, by window, and by session.
fn script_of_much_state(directory: &Path, view: &str, more: &str) -> String {
    let sink = |name: &str| {
        format!("'connector' = 'filesystem', 'path' = '{}', 'format' = 'json'", directory.join(name).display())
    };
    format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '200ms'; SET 'restart.delay' = '20ms';{more}
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'rows-per-second' = '{}', 'number-of-rows' = '{MUCH}', 'fields.n.kind' = 'sequence');
         CREATE TABLE {view} (k BIGINT, n BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         CREATE TABLE hops (k BIGINT, window_start TIMESTAMP(3), n BIGINT, s BIGINT) WITH ({});
         CREATE TABLE visits (k BIGINT, window_start TIMESTAMP(3), n BIGINT, s BIGINT) WITH ({});
         INSERT INTO {view} SELECT n % 20000, COUNT(*), SUM(n) FROM ticks GROUP BY n % 20000;
         INSERT INTO hops SELECT n % 40000, window_start, COUNT(*), SUM(n)
           FROM TABLE(HOP(TABLE ticks, DESCRIPTOR(ts), INTERVAL '20' SECOND, INTERVAL '40' SECOND))
           GROUP BY n % 40000, window_start, window_end;
         INSERT INTO visits SELECT n % 30000, window_start, COUNT(*), SUM(n)
           FROM TABLE(SESSION(TABLE ticks PARTITION BY n % 30000, DESCRIPTOR(ts), INTERVAL '35' SECOND))
           GROUP BY n % 30000, window_start, window_end;",
        MUCH / 6,
        sink("hops"),
        sink("visits"),
    )
}

const MUCH: i64 = 120_000;

#[test]
fn so_does_one_with_state_on_disk() {
    let server = shared();
    // 16 MiB, in shares of three operators on two threads.
    let on_disk = "SET 'state.backend' = 'rocksdb'; SET 'state.memory' = '16 MiB'; SET 'parallelism' = '2';";
    let [disturbed, undisturbed] = [on_disk, ""].map(|more| {
        let view = fresh("much");
        let directory = server.files().join(&view);
        let (_, run) = server.submit(&fresh("much"), &script_of_much_state(&directory, &view, more));
        (view, directory, run)
    });
    for kill in 1..=3 {
        let before = server.wait_for_run(&disturbed.2, "a running attempt with state on disk", |run| {
            let rows = run["progress"]["rows_in"].as_u64();
            run["state"] == "running" && run["attempts"] == kill && rows > Some(kill * MUCH as u64 / 5)
        });
        send(server.process_of(&before), 9);
    }
    // EPOCH-GENERATION-WORKER-OPERATOR-...
    let operators: BTreeSet<String> = checkpoint_files(&server, &disturbed.2, "state")
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .filter(|name| name.ends_with(".sst"))
        .map(|name| name.split('-').nth(3).unwrap().to_owned())
        .collect();
    assert_eq!(operators.len(), 3, "all of them had tables on disk: {operators:?}");
    let ended = server.wait_for_end(&disturbed.2);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("finished"), &json!(4)), "{ended}");
    assert_eq!(server.wait_for_end(&undisturbed.2)["state"], "finished");
    assert_eq!(rows(&server, &disturbed.0), rows(&server, &undisturbed.0));
    for sink in ["hops", "visits"] {
        let [found, wanted] = [&disturbed.1, &undisturbed.1].map(|directory| {
            let mut lines = super::faults::lines(&directory.join(sink));
            lines.sort_unstable();
            lines
        });
        assert!(wanted.len() >= MUCH as usize / 4, "{} rows in {sink}", wanted.len());
        assert!(found == wanted, "{sink}: {} rows, undisturbed {}", found.len(), wanted.len());
    }
}

#[test]
fn a_run_whose_process_is_stopped_goes_on_without_it() {
    let server = shared();
    let view = fresh("frozen");
    let directory = server.files().join(&view);
    let (_, run) =
        server.submit(&fresh("frozen"), &script(&directory, &view, "SET 'process.heartbeat-timeout' = '2s';"));
    let running = server.wait_for_run(&run, "rows", |run| run["progress"]["rows_in"].as_u64() > Some(1200));
    let frozen = server.process_of(&running);
    let figure = |name: &str| -> f64 {
        let figures = server.get("/metrics").expect(200).text();
        let of_run = |line: &&str| line.starts_with(name) && line.contains(run["id"].as_str().unwrap());
        let line = figures.lines().find(of_run).unwrap_or_else(|| panic!("no {name} in {figures}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(figure("highwater_run_checkpoints_total") >= 2.0 && figure("highwater_run_checkpoint_bytes_total") > 0.0);
    assert!(figure("highwater_run_decided_epoch") >= figure("highwater_run_confirmed_epoch"));
    assert_eq!(figure("highwater_run_attempts"), 1.0);
    send(frozen, 19);
    let again = server.wait_for_run(&run, "another attempt", |run| run["attempts"] == 2 && run["state"] == "running");
    assert_ne!(server.process_of(&again), frozen);
    let events = server.get(&format!("/api/v1/runs/{}/events", run["id"].as_str().unwrap())).expect(200).json();
    assert!(events.to_string().contains("said nothing for"), "{events}");
    let recovered = format!("highwater_run_recovery_seconds{{run=\"{}\"}}", run["id"].as_str().unwrap());
    server.wait_for_run(&run, "a checkpoint of the second attempt", |_| {
        server.get("/metrics").expect(200).text().contains(&recovered)
    });
    let path = |part: &str| format!("/api/v1/runs/{}/{part}", run["id"].as_str().unwrap());
    assert!(figure("highwater_run_recovery_seconds") > 0.0);
    let newest = server.get(&path("checkpoints")).expect(200).json()["items"][0].clone();
    let operators = newest["operators"].as_array().unwrap();
    let pauses = operators.iter().map(|operator| operator["pause_us"].as_i64().unwrap());
    assert_eq!(newest["longest_pause_us"].as_i64(), pauses.max(), "{newest}");
    assert!(operators.iter().any(|operator| operator["bytes"].as_i64() > Some(0)), "{newest}");
    assert!(operators.iter().all(|operator| operator["alignment_us"].as_i64().is_some()), "{newest}");
    let series =
        server.get(&path("metrics?names=recovery_ms&names=operator_alignment_ms&window=1m")).expect(200).json();
    let names: Vec<&Value> = series["series"].as_array().unwrap().iter().map(|series| &series["name"]).collect();
    assert!(names.contains(&&json!("recovery_ms")) && names.contains(&&json!("operator_alignment_ms")), "{series}");
    let ended = server.wait_for_end(&run);
    assert_eq!(ended["state"], "finished", "{ended}");
    assert_eq!(rows(&server, &view), expected());
    assert_eq!(numbers(&directory), (0..ROWS).collect::<Vec<_>>(), "every number once");
}

#[test]
fn a_run_goes_on_where_a_cancelled_one_of_its_job_had_its_last_checkpoint() {
    let server = shared();
    let (name, view) = (fresh("resumed"), fresh("resumed"));
    let directory = server.files().join(&view);
    let (_, first) = server.submit(&name, &script(&directory, &view, ""));
    server.wait_for_run(&first, "rows", |run| run["progress"]["rows_in"].as_u64() > Some(1200));
    let run_path = |run: &Value, rest: &str| format!("/api/v1/runs/{}{rest}", run["id"].as_str().unwrap());
    server.post(&run_path(&first, "/stop"), &json!({"mode": "now"})).expect(202);
    assert_eq!(server.wait_for_end(&first)["state"], "cancelled");
    let checkpoints =
        server.get(&run_path(&first, "/checkpoints")).expect(200).json()["items"].as_array().unwrap().clone();
    let newest = &checkpoints[0];
    assert!(checkpoints.len() >= 2 && newest["previous"] == checkpoints[1]["epoch"], "{checkpoints:?}");
    assert!(newest["bytes"].as_u64() > Some(0) && newest["last"] == false, "{newest}");

    let verdict = |settings: &str, filter: &str| {
        let sql = script(&directory, &view, settings).replace("n % 7", filter);
        let path = format!("/api/v1/jobs/{name}?dry_run=true");
        server.put(&path, &json!({"sql": sql})).expect(200).json()["state_verdict"].clone()
    };
    assert_eq!(verdict("SET 'parallelism' = '2';", "n % 7"), "reuse", "how many run it is free");
    assert_eq!(verdict("", "n % 5"), "fresh", "keys differ");

    let runs = format!("/api/v1/jobs/{name}/runs");
    let both = json!({"from": "latest", "start_positions": {"ticks": {}}});
    server.post(&runs, &both).refused(422, "validation_failed");
    let second = server.post(&runs, &json!({"from": "latest"})).expect(202).json();
    assert_eq!(second["from"], "latest");
    let ended = server.wait_for_end(&second);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("finished"), &json!(1)), "{ended}");
    assert_eq!(ended["progress"]["rows_in"], ROWS, "what was read before is not read again: {ended}");
    assert_eq!(rows(&server, &view), expected());
    assert_eq!(numbers(&directory), (0..ROWS).collect::<Vec<_>>(), "every number once");
    // What is kept is whole, and nothing is left over but what is younger than ten minutes.
    let check = server.post(&format!("/api/v1/jobs/{name}/checkpoints/check"), &Value::Null).expect(200).json();
    assert!(check["ok"] == true && check["checkpoints"].as_u64() >= Some(2), "{check}");
    assert!(check["files"].as_u64() > check["checkpoints"].as_u64(), "manifests and states: {check}");
    let first_of_second =
        server.get(&run_path(&second, "/checkpoints")).expect(200).json()["items"].as_array().unwrap().clone();
    assert_eq!(first_of_second.last().unwrap()["previous"], newest["epoch"], "one line of epochs");
    assert_eq!(first_of_second[0]["last"], true);
    // Nothing is left to be done after the last epoch.
    server.post(&runs, &json!({"from": "latest"})).refused(409, "invalid_state");
}

/// A server with a run that has checkpoints; both are dead.
fn dead(server: &mut Highwater, name: &str) -> Value {
    let (_, run) = server.submit(name, &script(&server.files().join(name), name, ""));
    let running = server.wait_for_run(&run, "rows", |run| run["progress"]["rows_in"].as_u64() > Some(1200));
    let process = server.process_of(&running);
    server.kill();
    send(process, 9);
    run
}

/// Files of checkpoints below this folder, oldest first.
fn checkpoint_files(server: &Highwater, run: &Value, folder: &str) -> Vec<std::path::PathBuf> {
    let directory = server.data().join("checkpoints").join(run["job_id"].as_str().unwrap()).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name() {
    let mut server = Highwater::start();
    let run = dead(&mut server, "damaged");
    // The state of every epoch: one that was not decided does not matter.
    for file in checkpoint_files(&server, &run, "state") {
        let mut content = std::fs::read(&file).unwrap();
        let middle = content.len() / 2;
        content[middle] ^= 1;
        std::fs::write(&file, content).unwrap();
    }
    server.begin();
    let ended = server.wait_for_end(&run);
    assert_eq!(
        (&ended["state"], &ended["failure"]["code"]),
        (&json!("failed"), &json!("checkpoint_corrupt")),
        "{ended}"
    );
    let check = server.post("/api/v1/jobs/damaged/checkpoints/check", &Value::Null).expect(200).json();
    let findings = check["findings"].as_array().unwrap();
    assert!(check["ok"] == false && findings.iter().all(|finding| finding["kind"] == "content"), "{check}");
    assert!(!findings.is_empty() && findings[0]["path"].as_str().unwrap().contains("/state/"), "{check}");
    let states = checkpoint_files(&server, &run, "state");
    let name = |path: &std::path::PathBuf| path.file_name().unwrap().to_str().unwrap().to_string();
    let named = findings[0]["path"].as_str().unwrap();
    std::fs::remove_file(states.iter().find(|state| named.ends_with(&name(state))).unwrap()).unwrap();
    let check = server.post("/api/v1/jobs/damaged/checkpoints/check", &Value::Null).expect(200).json();
    assert_eq!((&check["findings"][0]["kind"], &check["findings"][0]["path"]), (&json!("missing"), &json!(named)));
    let detail = ended["failure"]["detail"].as_str().unwrap();
    assert!(detail.contains("/state/") && detail.contains("is damaged"), "{detail}");
    assert_eq!(numbers(&server.files().join("damaged")), Vec::<i64>::new());
}

/// Nothing of a bounded run is published before its end, so an older checkpoint can take the place of a damaged one.
#[test]
fn a_damaged_checkpoint_of_which_nothing_was_published_gives_way_to_the_one_before() {
    let mut server = Highwater::start();
    let directory = server.files().join("given-way");
    let only_files = script(&directory, "v", "");
    let only_files = only_files
        .split_inclusive(';')
        .filter(|statement| !statement.contains("CREATE TABLE v ") && !statement.contains("INSERT INTO v "));
    let (_, run) = server.submit("given-way", &only_files.collect::<String>());
    let running = server.wait_for_run(&run, "rows", |run| run["progress"]["rows_in"].as_u64() > Some(2000));
    let process = server.process_of(&running);
    server.kill();
    send(process, 9);
    let manifests = checkpoint_files(&server, &run, "epochs");
    // The newest two: one of them was decided.
    let damaged = &manifests[manifests.len() - 2..];
    for manifest in damaged {
        std::fs::write(manifest, "{}").unwrap();
    }
    server.begin();
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["progress"]["rows_in"]), (&json!("finished"), &json!(ROWS)), "{ended}");
    assert_eq!(numbers(&directory), (0..ROWS).collect::<Vec<_>>(), "every number once");
}

#[test]
fn metadata_that_is_older_than_its_checkpoints_is_noticed() {
    let mut server = Highwater::start();
    let run = dead(&mut server, "older");
    // As a copy of the database that was put back: a manifest of an epoch that it never gave a number to.
    let newest = checkpoint_files(&server, &run, "epochs").pop().unwrap();
    std::fs::copy(&newest, newest.with_file_name(format!("{:020}.json", 1_000_000))).unwrap();
    server.begin();
    let ended = server.wait_for_end(&run);
    assert_eq!(
        (&ended["state"], &ended["failure"]["code"]),
        (&json!("failed"), &json!("metadata_regressed")),
        "{ended}"
    );
    assert!(ended["failure"]["detail"].as_str().unwrap().contains("1000000"), "{ended}");
}
