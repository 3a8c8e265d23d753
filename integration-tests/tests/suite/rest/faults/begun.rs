//! What the store has is begun: also when its commit was not answered, and when whoever asked for it has left.

use std::io::Write;
use std::time::{Duration, Instant};

use integration_tests::rest::{Highwater, read_answer};
use serde_json::{Value, json};
use test_support::postgres::Postgres;
use test_support::process::wait_until;

use super::super::{counts, totals};

const BOUND: Duration = Duration::from_secs(10);
const BACK: Duration = Duration::from_secs(20);

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn is_ready(server: &Highwater) -> bool {
    server.get("/readyz").send().status == 200
}

/// A database that has committed and does not say so: the answer is 503, the change is there. What follows from it must happen all the same.
#[test]
fn a_run_whose_commit_was_not_answered_comes_to_an_end() {
    let postgres = Postgres::start(&[]);
    let server = Highwater::with(&["--database", &postgres.database()]);
    let (_, streaming) = server.submit("streaming", &counts("streaming_view"));
    server.wait_until_running(&streaming);
    let body = json!({"name": "unanswered", "sql": totals(&server, "unanswered_view")});
    let create = || server.post("/api/v1/jobs", &body).header("idempotency-key", "unanswered-1");
    let stop = || {
        server
            .post(&format!("/api/v1/runs/{}/stop", text(&streaming, "id")), &json!({"mode": "now"}))
            .header("idempotency-key", "stop-1")
    };
    // A commit waits for a standby that does not exist, after it has been written.
    let standby = |name: &str| {
        postgres.sql("postgres", &format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"));
        postgres.sql("postgres", "SELECT pg_reload_conf()");
        std::thread::sleep(Duration::from_millis(300));
    };
    // One after the other: changes wait for one another.
    for request in [create(), stop()] {
        standby("nobody");
        let begun = Instant::now();
        let problem = request.refused(503, "metadata_unavailable");
        assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
        assert!(text(&problem, "detail").contains("whole or not at all"), "{problem}");
        standby("");
        wait_until("readiness, without a restart", BACK, || is_ready(&server));
    }
    let created = create().expect(201).json();
    let operation = stop().expect(202);
    assert_eq!(server.wait_for_end(&created["run"])["state"], "finished");
    let operation = server.get(&format!("{}?wait=30s", operation.header("location").unwrap())).expect(200).json();
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(server.wait_for_end(&streaming)["state"], "cancelled");
}

/// Whoever hangs up right after the request has still asked: the run is there and ends, or it is not there at all.
#[test]
fn a_run_whose_client_has_left_comes_to_an_end() {
    let server = Highwater::start();
    let create = |name: &str| {
        let body = json!({"name": name, "sql": totals(&server, &format!("{name}_view")), "start": false});
        server.post("/api/v1/jobs", &body).expect(201);
    };
    let start = |name: &str| {
        let mut stream = server.connect();
        let head = "HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        write!(stream, "POST /api/v1/jobs/{name}/runs {head}").unwrap();
        stream
    };
    // How long starting takes here, so that clients leave in the middle of each step.
    create("measured");
    let begun = Instant::now();
    assert_eq!(read_answer(&mut start("measured")).unwrap().status, 202);
    let usual = begun.elapsed();
    for number in 0..100 {
        let name = format!("left_{number}");
        create(&name);
        let stream = start(&name);
        std::thread::sleep(usual * number / 80);
        drop(stream);
    }
    std::thread::sleep(Duration::from_secs(1));
    let runs = server.get("/api/v1/runs?page_size=1000").expect(200).json();
    let runs = runs["items"].as_array().unwrap();
    eprintln!("{} of 101 runs are there, a start takes {usual:?}", runs.len());
    assert!(runs.len() > 1);
    let deadline = Instant::now() + Duration::from_secs(30);
    for run in runs {
        while server.get(&format!("/api/v1/runs/{}", text(run, "id"))).expect(200).json()["state"] != "finished" {
            assert!(Instant::now() < deadline, "{run}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
