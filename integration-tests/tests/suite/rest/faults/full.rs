//! Disks without room: of a run's output, and of everything that the server keeps.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::process::wait_until;

use super::super::counts;
use super::lines;

/// Takes all room that is left on the disk of `directory`, until the file is removed.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("ballast");
    let mut file = std::fs::File::create(&path).expect("a file without contents has room");
    for size in [64 << 10, 4 << 10, 1] {
        let block = vec![0; size];
        loop {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    path
}

/// Rows of about 200 bytes into files, an epoch each 100 ms.
fn into_files(directory: &Path, rows: u32) -> String {
    format!(
        "SET 'epoch.interval' = '100ms'; SET 'restart.attempts' = '0';
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3)) WITH ('connector' = 'datagen', 'rows-per-second' = '20000',
           'number-of-rows' = '{rows}', 'fields.n.kind' = 'sequence', 'fields.n.start' = '0', 'fields.n.end' = '{}');
         CREATE TABLE out_files (n BIGINT, note STRING) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO out_files SELECT n, LPAD('x', 180, 'x') FROM ticks;",
        rows - 1,
        directory.display()
    )
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// The numbers that are published; every line must be whole.
fn numbers(directory: &Path) -> Vec<i64> {
    let number = |line: &String| {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        row["n"].as_i64().unwrap_or_else(|| panic!("{row}"))
    };
    let mut numbers: Vec<i64> = lines(directory).iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_run_whose_output_has_no_room_fails_with_the_path_and_publishes_nothing_by_halves() {
    let server = Highwater::with_small_disks(64, 2);
    let directory = server.files().join("crowded");
    let sql = into_files(&directory, 40_000);
    let (job, run) = server.submit("crowded", &sql);
    let run = server.wait_for_end(&run);
    assert_eq!(run["state"], "failed", "{run}");
    let failure = &run["failure"];
    let said = text(failure, "detail");
    assert!(said.contains("crowded") && said.contains("no space is left on the disk"), "{failure}");
    assert_eq!((&failure["operator"], &failure["fault"]), (&json!("sink_out_files"), &json!("external")), "{failure}");
    // Whole epochs, in order, and not all of them.
    let published = numbers(&server.on_disk(&directory));
    assert_eq!(published, (0..published.len() as i64).collect::<Vec<_>>());
    assert!(published.len() < 40_000);
    server.get("/readyz").expect(200);
    // With room, the same job runs.
    std::fs::remove_dir_all(server.on_disk(&directory)).unwrap();
    server
        .put(&format!("/api/v1/jobs/{}", text(&job, "name")), &json!({"sql": into_files(&directory, 1_000)}))
        .expect(200);
    let run = server.post("/api/v1/jobs/crowded/runs", &json!({})).expect(202).json();
    let run = server.wait_for_end(&run);
    assert_eq!(run["state"], "finished", "{run}");
    assert_eq!(numbers(&server.on_disk(&directory)), (0..1_000).collect::<Vec<_>>());
}

#[test]
fn a_server_whose_own_disk_is_full_says_so_and_works_again_when_there_is_room() {
    let server = Highwater::with_small_disks(16, 16);
    let (_, viewed) = server.submit("viewed", &counts("viewed_view"));
    let (_, filed) = server.submit("filed", &into_files(&server.files().join("filed"), 1_000));
    assert_eq!(server.wait_for_end(&filed)["state"], "finished");
    server.wait_until_running(&viewed);
    let sql =
        "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'number-of-rows' = '1500',
                 'fields.n.kind' = 'sequence');
               CREATE TABLE ending_view (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
               INSERT INTO ending_view SELECT n % 4, COUNT(*) FROM s GROUP BY n % 4;";
    let (_, ending) = server.submit("ending", sql);
    server.wait_for_run(&ending, "running", |run| run["state"] == "running");
    let idle = json!({"name": "idle", "sql": into_files(&server.files().join("idle"), 1_000), "start": false});
    server.post("/api/v1/jobs", &idle).expect(201);
    let ballast = fill(&server.on_disk(&server.data()));

    let new = json!({"name": "new", "sql": into_files(&server.files().join("new"), 1_000)});
    let create = || server.post("/api/v1/jobs", &new).header("idempotency-key", "new-1");
    let connection = json!({"name": "store", "kind": "s3", "options": {"s3.region": "eu-north-1"}, "secrets": {"s3.secret-key": "x"}});
    let changes = || {
        vec![
            create(),
            server.put("/api/v1/jobs/idle", &json!({"sql": counts("idle_view")})),
            server.patch("/api/v1/jobs/idle", &json!({"labels": {"a": "b".repeat(100)}})).header("if-match", "*"),
            server.post("/api/v1/jobs/idle/runs", &json!({})),
            server.post("/api/v1/connections", &connection),
            server.post("/api/v1/keys", &json!({"name": "k", "role": "viewer"})),
            server.delete("/api/v1/jobs/filed").header("if-match", "*"),
        ]
    };
    for change in changes() {
        let problem = change.refused(503, "metadata_unavailable");
        assert!(text(&problem, "detail").contains("disk"), "it says what is missing: {problem}");
    }
    for path in
        ["/livez", "/metrics", "/api/v1/jobs", "/api/v1/jobs/idle", "/api/v1/runs", "/api/v1/audit", "/openapi.json"]
    {
        server.get(path).expect(200);
    }
    // Its last checkpoint has no room meanwhile.
    std::thread::sleep(Duration::from_secs(5));

    std::fs::remove_file(ballast).unwrap();
    wait_until("readiness", Duration::from_secs(10), || server.get("/readyz").send().status == 200);
    let created = create().expect(201).json();
    assert_eq!(server.wait_for_end(&created["run"])["state"], "finished");
    let run = server.post("/api/v1/jobs/idle/runs", &json!({})).expect(202).json();
    assert_eq!(server.wait_for_end(&run)["state"], "finished");
    let job = server.get("/api/v1/jobs/idle").expect(200).json();
    assert_eq!((&job["version"], &job["labels"]), (&json!(1), &json!({})), "what was refused did not happen");
    server.post("/api/v1/connections", &connection).expect(201);
    server.delete("/api/v1/jobs/filed").header("if-match", "*").expect(204);
    let ended = server.wait_for_end(&ending);
    assert_eq!(ended["state"], "finished", "{ended}");
    let counted: i64 = server.rows("ending_view").iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert_eq!(counted, 1500);
    server.wait_until_running(&viewed);
    assert!(!server.rows("viewed_view").is_empty());
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// Of a savepoint that has no room nothing is left that looks like one, and the run goes on.
#[test]
fn a_savepoint_without_room_fails_and_says_so() {
    let server = Highwater::with_small_disks(32, 8);
    let (_, run) = server.submit("saved", &format!("SET 'checkpoint.interval' = '200ms'; {}", counts("saved_view")));
    server.wait_for_run(&run, "rows", |run| run["progress"]["rows_in"].as_u64() > Some(200));
    let ballast = fill(&server.on_disk(&server.files()));
    let path = "/api/v1/jobs/saved/savepoints";
    let wait = |asked: &Value| {
        let operation = format!("/api/v1/operations/{}?wait=30s", text(asked, "id"));
        server.get(&operation).expect(200).json()
    };
    let ask =
        |name: &str| wait(&server.post(path, &json!({"name": name, "location": server.files()})).expect(202).json());
    let failed = ask("crowded");
    assert_eq!(
        (&failed["state"], &failed["failure"]["code"]),
        (&json!("failed"), &json!("savepoint_storage")),
        "{failed}"
    );
    let said = text(&failed["failure"], "detail");
    assert!(said.contains("no space is left") && !said.contains(server.files().to_str().unwrap()), "{said}");
    let left = server.on_disk(&server.files()).join(text(&failed, "savepoint")).join("manifest.json");
    assert!(!left.exists(), "half of one is none");
    std::fs::remove_file(ballast).unwrap();
    assert_eq!(ask("roomy")["state"], "succeeded");
    let still = server.get(&format!("/api/v1/runs/{}", text(&run, "id"))).expect(200).json();
    assert_eq!((&still["state"], &still["attempts"]), (&json!("running"), &json!(1)), "{still}");
}

/// A run that has come to its end is `finished`, although there was no room for its last checkpoint then.
#[test]
fn a_run_that_ends_while_the_disk_of_the_server_is_full_finishes_when_there_is_room() {
    let server = Highwater::with_small_disks(16, 16);
    let out = server.files().join("ending");
    let sql = format!(
        "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'number-of-rows' = '1500',
           'fields.n.kind' = 'sequence');
         CREATE TABLE f (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO f SELECT n FROM s;",
        out.display()
    );
    let (_, ending) = server.submit("ending", &sql);
    server.wait_for_run(&ending, "running", |run| run["state"] == "running");
    let ballast = fill(&server.on_disk(&server.data()));
    let out = server.on_disk(&out);
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(lines(&out), Vec::<String>::new(), "without a checkpoint nothing is published");
    std::fs::remove_file(ballast).unwrap();
    let ended = server.wait_for_end(&ending);
    assert_eq!(ended["state"], "finished", "{ended}");
    assert_eq!(lines(&out).len(), 1500);
}
