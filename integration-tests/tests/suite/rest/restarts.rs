//! Servers that end: in order and at once, while runs are active, right after an answer. Whatever was answered is there again.

use std::io::{Read, Write};
use std::time::Duration;

use integration_tests::rest::{Highwater, is_active, read_answer};
use serde_json::{Value, json};
use test_support::process::send;

use super::{counts, fresh, totals};

fn path(run: &Value, rest: &str) -> String {
    format!("/api/v1/runs/{}{rest}", run["id"].as_str().unwrap())
}

#[test]
fn runs_go_on_without_a_server_and_are_found_again() {
    let mut server = Highwater::start();
    let (job, going) = server.submit("going", &counts("going_view"));
    let (_, dying) = server.submit("dying", &counts("dying_view"));
    let (_, done) = server.submit("done", &totals(&server, "done_view"));
    assert_eq!(server.wait_for_end(&done)["state"], "finished");
    let before = server.wait_until_running(&going);
    server.wait_until_running(&dying);
    let (process, victim) = (server.process_of(&going), server.process_of(&dying));
    let rows = server.rows("done_view");

    server.kill();
    send(victim, 9);
    std::thread::sleep(Duration::from_millis(500));
    server.begin();

    assert_eq!(server.process_of(&going), process, "the same process works for it");
    let after = server.wait_for_run(&going, "more rows than before the crash", |run| {
        run["state"] == "running" && run["progress"]["rows_in"].as_u64() > before["progress"]["rows_in"].as_u64()
    });
    assert_eq!((&after["attempts"], &after["start_positions"]), (&json!(1), &before["start_positions"]));
    assert_eq!(
        server.get(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())).expect(200).json()["state"],
        "running"
    );
    let again = server.wait_for_run(&dying, "another attempt", |run| run["state"] == "running" && run["attempts"] == 2);
    assert_eq!(again["failure"], Value::Null, "{again}");
    assert_eq!(server.rows("done_view"), rows, "results survive the server");
    assert!(!server.rows("going_view").is_empty());

    // In order, the same; and it can be stopped by a server that did not start it.
    assert!(server.terminate().success());
    server.begin();
    let stop = server.post(&path(&going, "/stop"), &json!({"mode": "drain"})).expect(202);
    let operation = server.get(&format!("{}?wait=60s", stop.header("location").unwrap())).expect(200).json();
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(server.get(&path(&going, "")).expect(200).json()["state"], "finished");
}

#[test]
fn a_run_that_comes_to_its_end_while_no_server_is_there_ends_with_the_next() {
    let mut server = Highwater::start();
    // Ends by itself, some seconds from now.
    let sql = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'number-of-rows' = '2000',
                 'fields.n.kind' = 'sequence');
               CREATE TABLE meanwhile_view (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
               INSERT INTO meanwhile_view SELECT n % 4, COUNT(*) FROM s GROUP BY n % 4;";
    let (_, run) = server.submit("meanwhile", sql);
    server.wait_for_run(&run, "running", |run| run["state"] == "running");
    let process = server.process_of(&run);
    server.kill();
    // It reads to its end, and waits: that its last epoch happened is for a server to say.
    std::thread::sleep(Duration::from_secs(6));
    assert!(std::fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z ")));
    server.begin();
    let run = server.wait_for_end(&run);
    assert_eq!((&run["state"], &run["progress"]["rows_in"]), (&json!("finished"), &json!(2000)), "{run}");
    assert_eq!(server.rows("meanwhile_view").len(), 4);
}

#[test]
fn whatever_was_answered_is_there_after_a_crash() {
    let mut server = Highwater::start();
    let crash = |server: &mut Highwater| {
        server.kill();
        server.begin();
    };
    let body = json!({"name": "kept", "sql": totals(&server, "kept_view"), "start": false, "labels": {"a": "b"}});
    let created = server.post("/api/v1/jobs", &body).header("idempotency-key", "kept-1").expect(201);
    crash(&mut server);
    // The very answer, for whoever did not get it.
    let again = server.post("/api/v1/jobs", &body).header("idempotency-key", "kept-1").expect(201);
    assert_eq!((again.header("idempotency-replayed"), &again.body), (Some("true"), &created.body));
    let job = server.get("/api/v1/jobs/kept").expect(200);
    assert_eq!(job.json()["labels"], json!({"a": "b"}));

    let patch = json!({"labels": {"a": "c"}});
    let patched = server.patch("/api/v1/jobs/kept", &patch).header("if-match", job.header("etag").unwrap()).expect(200);
    crash(&mut server);
    let job = server.get("/api/v1/jobs/kept").expect(200);
    assert_eq!((&job.json()["labels"], job.header("etag")), (&json!({"a": "c"}), patched.header("etag")));

    let run = server.post("/api/v1/jobs/kept/runs", &json!({})).header("idempotency-key", "run-1").expect(202).json();
    crash(&mut server);
    // It was accepted, so it is there, and it comes to an end: it ran, or it says that it could not be started.
    let ended = server.wait_for_end(&run);
    assert_eq!(ended["state"], "finished", "{ended}");
    let replayed = server.post("/api/v1/jobs/kept/runs", &json!({})).header("idempotency-key", "run-1").expect(202);
    assert_eq!(replayed.json()["id"], run["id"]);

    let applied = json!({"sql": totals(&server, "kept_view"), "parallelism": 2});
    server.put("/api/v1/jobs/kept", &applied).expect(200);
    crash(&mut server);
    assert_eq!(server.get("/api/v1/jobs/kept").expect(200).json()["version"], 2);

    let (_, run) = server.submit("stopped", &counts("stopped_view"));
    server.wait_until_running(&run);
    let stop = server.post(&path(&run, "/stop"), &json!({"mode": "now"})).expect(202);
    crash(&mut server);
    let operation = server.get(&format!("{}?wait=60s", stop.header("location").unwrap())).expect(200).json();
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(server.get(&path(&run, "")).expect(200).json()["state"], "cancelled");

    let table = json!({"sql": "CREATE TABLE known (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3')"});
    server.post("/api/v1/tables", &table).expect(201);
    let connection = json!({"name": "store", "kind": "s3", "options": {"s3.region": "eu-north-1"}, "secrets": {"s3.secret-key": "x"}});
    server.post("/api/v1/connections", &connection).expect(201);
    crash(&mut server);
    server.get("/api/v1/tables/known").expect(200);
    assert_eq!(server.get("/api/v1/connections/store").expect(200).json()["secrets"], json!(["s3.secret-key"]));
    server.delete("/api/v1/tables/known").header("if-match", "*").expect(204);
    server.delete("/api/v1/jobs/stopped").header("if-match", "*").expect(204);
    crash(&mut server);
    server.get("/api/v1/tables/known").refused(404, "table_not_found");
    server.get("/api/v1/jobs/stopped").refused(404, "job_not_found");
    // Each of them happened once.
    let log = server.get("/api/v1/audit?page_size=1000").expect(200).json();
    let actions: Vec<&str> =
        log["items"].as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    for once in
        ["job.patch", "job.apply", "run.stop", "table.create", "connection.create", "table.delete", "job.delete"]
    {
        assert_eq!(actions.iter().filter(|action| **action == once).count(), 1, "{once}: {actions:?}");
    }
}

#[test]
fn a_server_that_is_asked_to_end_answers_what_it_has_begun() {
    let mut server = Highwater::start();
    let (_, run) = server.submit(&fresh("onward"), &counts(&fresh("onward")));
    server.wait_until_running(&run);
    let process = server.process_of(&run);
    // A request whose body is under way, and a connection that is open.
    let body = json!({"sql": totals(&server, "late")}).to_string();
    let mut begun = server.connect();
    write!(
        begun,
        "POST /api/v1/graphs/validate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        body.len(),
        &body[..10]
    )
    .unwrap();
    let mut open = server.connect();
    open.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut open).unwrap().status, 200);
    // Somebody waits for the run; the answer comes when the server ends.
    let mut waiting = server.connect();
    write!(waiting, "GET {}?wait=60s HTTP/1.1\r\nhost: localhost\r\n\r\n", path(&run, "")).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    server.ask_to_end();
    std::thread::sleep(Duration::from_millis(300));
    // Whoever asks now learns that it ends, or finds the door shut.
    if let Ok(answer) = server.get("/readyz").try_send() {
        assert_eq!(answer.status, 503);
    }
    begun.write_all(&body.as_bytes()[10..]).unwrap();
    assert_eq!(read_answer(&mut begun).expect("an answer to what had begun").status, 200);
    let waited = read_answer(&mut waiting).expect("an answer to who waited");
    assert_eq!((waited.status, waited.json()["state"].clone()), (200, json!("running")));
    let mut rest = Vec::new();
    let _ = open.read_to_end(&mut rest);
    assert!(server.ended().success());
    assert!(std::path::Path::new(&format!("/proc/{process}")).exists(), "the run goes on");
    server.begin();
    let run = server.get(&path(&run, "")).expect(200).json();
    assert!(is_active(&run), "{run}");
}

#[test]
fn two_servers_do_not_share_a_data_directory() {
    let server = Highwater::start();
    let output = std::process::Command::new(integration_tests::program::path())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(server.data())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("error: ") && said.lines().count() <= 3, "{said}");
    server.get("/readyz").expect(200);
}
