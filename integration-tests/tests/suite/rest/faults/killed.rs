//! The server is killed in the middle of changes, at random moments, and started again on the same data.
//!
//! What was answered is there. What was not answered happened whole or not at all. Every run has a process or an end.

use std::cell::RefCell;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use integration_tests::rest::{Answer, Highwater, is_active, read_answer};
use serde_json::{Value, json};
use test_support::process::wait_until;

use super::super::{counts, totals};

const ROUNDS: usize = 2;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % (most.as_micros() as u64 + 1))
    }
}

/// A request whose answer may never come.
fn send(server: &Highwater, key: &str, method: &str, path: &str, body: &Value) -> TcpStream {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let condition = if method == "DELETE" { "if-match: *\r\n" } else { "" };
    let mut stream = server.connect();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n{condition}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a small request fits into the buffers");
    stream
}

fn job(server: &Highwater, name: &str, start: bool) -> Value {
    json!({"name": name, "sql": totals(server, &format!("{name}_view")), "start": start})
}

/// A job that is there is whole: its version, its graph, its run if it was to have one.
fn whole(server: &Highwater, name: &str, has_run: bool) {
    let job = server.get(&format!("/api/v1/jobs/{name}")).expect(200).json();
    assert!(job["definition"]["graph"]["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty()), "{job}");
    let runs = server.get(&format!("/api/v1/runs?job={name}")).expect(200).json()["items"].as_array().unwrap().clone();
    assert_eq!((runs.len(), job["latest_run"].is_string()), (usize::from(has_run), has_run), "{job}: {runs:?}");
}

fn there(server: &Highwater, path: &str) -> bool {
    let answer = server.get(path).send();
    assert!([200, 404].contains(&answer.status), "{path}: {}", answer.text());
    answer.status == 200
}

fn keys(server: &Highwater, name: &str) -> Vec<Value> {
    let all = server.get("/api/v1/keys").expect(200).json()["items"].as_array().unwrap().clone();
    all.into_iter().filter(|key| key["name"] == name).collect()
}

const SECRETS: &str = "s3.secret-key";

/// A change: what must be there before, how it is asked for, and what must hold after the restart, given the answer if there was one.
struct Change {
    what: &'static str,
    begin: fn(&Highwater, &str) -> (&'static str, String, Value),
    check: fn(&Highwater, &str, Option<&Answer>),
}

thread_local! {
    /// What a change must know of what was before it.
    static BEFORE: RefCell<Value> = const { RefCell::new(Value::Null) };
}

fn remember(value: Value) {
    BEFORE.with_borrow_mut(|before| *before = value);
}

fn remembered() -> Value {
    BEFORE.with_borrow(Value::clone)
}

/// Checks that the answer is the one of success, or missing.
fn answered(answer: Option<&Answer>, status: u16) -> bool {
    if let Some(answer) = answer {
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    answer.is_some()
}

const CHANGES: &[Change] = &[
    Change {
        what: "create a job",
        begin: |server, name| ("POST", "/api/v1/jobs".into(), job(server, name, false)),
        check: |server, name, answer| {
            let must = answered(answer, 201);
            if there(server, &format!("/api/v1/jobs/{name}")) {
                return whole(server, name, false);
            }
            assert!(!must, "a created job is gone");
        },
    },
    Change {
        what: "create a job and start it",
        begin: |server, name| ("POST", "/api/v1/jobs".into(), job(server, name, true)),
        check: |server, name, answer| {
            let must = answered(answer, 201);
            if there(server, &format!("/api/v1/jobs/{name}")) {
                return whole(server, name, true);
            }
            assert!(!must, "a created job is gone");
        },
    },
    Change {
        what: "apply a new job",
        begin: |server, name| {
            ("PUT", format!("/api/v1/jobs/{name}"), json!({"sql": totals(server, &format!("{name}_view"))}))
        },
        check: |server, name, answer| {
            let must = answered(answer, 201);
            if there(server, &format!("/api/v1/jobs/{name}")) {
                return whole(server, name, false);
            }
            assert!(!must, "an applied job is gone");
        },
    },
    Change {
        what: "apply a new version",
        begin: |server, name| {
            let created = server.post("/api/v1/jobs", &job(server, name, false)).expect(201).json();
            remember(created["job"]["definition"]["hash"].clone());
            let spec = json!({"sql": totals(server, &format!("{name}_view")), "parallelism": 2, "labels": {"a": "b"}});
            ("PUT", format!("/api/v1/jobs/{name}"), spec)
        },
        check: |server, name, answer| {
            let must = answered(answer, 200);
            whole(server, name, false);
            let job = server.get(&format!("/api/v1/jobs/{name}")).expect(200).json();
            let is_new = job["version"] == 2;
            assert!(is_new || (!must && job["version"] == 1), "{job}");
            // Version, definition and labels change together.
            assert_eq!(job["definition"]["hash"] != remembered(), is_new, "{job}");
            assert_eq!(job["labels"] == json!({"a": "b"}), is_new, "{job}");
        },
    },
    Change {
        what: "delete a job",
        begin: |server, name| {
            let created = server.post("/api/v1/jobs", &job(server, name, true)).expect(201).json();
            server.wait_for_end(&created["run"]);
            remember(created["run"]["id"].clone());
            ("DELETE", format!("/api/v1/jobs/{name}"), Value::Null)
        },
        check: |server, name, answer| {
            let must = answered(answer, 204);
            let run = remembered();
            let kept = there(server, &format!("/api/v1/jobs/{name}"));
            assert!(!kept || !must, "a deleted job is there");
            assert_eq!(there(server, &format!("/api/v1/runs/{}", run.as_str().unwrap())), kept, "its run goes with it");
            assert_eq!(there(server, &format!("/api/v1/views/{name}_view")), kept, "its view goes with it");
            if kept {
                whole(server, name, true);
                assert_eq!(server.rows(&format!("{name}_view")).len(), 3, "what is not deleted keeps its rows");
            }
        },
    },
    Change {
        what: "start a run",
        begin: |server, name| {
            server.post("/api/v1/jobs", &job(server, name, false)).expect(201);
            ("POST", format!("/api/v1/jobs/{name}/runs"), json!({}))
        },
        check: |server, name, answer| {
            let must = answered(answer, 202);
            let runs = server.get(&format!("/api/v1/runs?job={name}")).expect(200).json();
            let runs = runs["items"].as_array().unwrap().clone();
            assert!(runs.len() == 1 || (!must && runs.is_empty()), "{runs:?}");
            whole(server, name, !runs.is_empty());
            if let Some(answer) = answer {
                assert_eq!(runs[0]["id"], answer.json()["id"]);
            }
        },
    },
    Change {
        what: "stop a run",
        begin: |server, name| {
            let (_, run) = server.submit(name, &counts(&format!("{name}_view")));
            server.wait_until_running(&run);
            remember(run["id"].clone());
            ("POST", format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap()), json!({"mode": "now"}))
        },
        check: |server, _, answer| {
            let must = answered(answer, 202);
            let run = json!({"id": remembered()});
            let path = format!("/api/v1/runs/{}", run["id"].as_str().unwrap());
            if must {
                let operation = answer.unwrap().header("location").unwrap().to_string();
                assert_eq!(server.get(&format!("{operation}?wait=30s")).expect(200).json()["state"], "succeeded");
            } else if is_active(&server.get(&path).expect(200).json()) {
                // It may be about to stop; asking again is no error.
                let again = server.post(&format!("{path}/stop"), &json!({"mode": "now"})).send();
                assert!([202, 409].contains(&again.status), "{}", again.text());
            }
            assert_eq!(server.wait_for_end(&run)["state"], "cancelled");
        },
    },
    Change {
        what: "create a connection",
        begin: |_, name| {
            let secrets = json!({SECRETS: "x"});
            let options = json!({"s3.region": "eu-north-1"});
            let body = json!({"name": name, "kind": "s3", "options": options, "secrets": secrets});
            ("POST", "/api/v1/connections".into(), body)
        },
        check: |server, name, answer| {
            let (must, path) = (answered(answer, 201), format!("/api/v1/connections/{name}"));
            if there(server, &path) {
                let connection = server.get(&path).expect(200).json();
                assert_eq!(connection["secrets"], json!([SECRETS]), "a connection without its secret");
                assert_eq!(connection["options"], json!({"s3.region": "eu-north-1"}));
                return;
            }
            assert!(!must, "a created connection is gone");
        },
    },
    Change {
        what: "delete a connection",
        begin: |server, name| {
            let body =
                json!({"name": name, "kind": "s3", "options": {"s3.region": "eu-north-1"}, "secrets": {SECRETS: "x"}});
            server.post("/api/v1/connections", &body).expect(201);
            ("DELETE", format!("/api/v1/connections/{name}"), Value::Null)
        },
        check: |server, name, answer| {
            let (must, path) = (answered(answer, 204), format!("/api/v1/connections/{name}"));
            if there(server, &path) {
                assert!(!must, "a deleted connection is there");
                assert_eq!(server.get(&path).expect(200).json()["secrets"], json!([SECRETS]));
            }
        },
    },
    Change {
        what: "create a key",
        begin: |_, name| ("POST", "/api/v1/keys".into(), json!({"name": name, "role": "viewer"})),
        check: |server, name, answer| {
            let must = answered(answer, 201);
            let found = keys(server, name);
            assert!(found.len() == 1 || (!must && found.is_empty()), "{found:?}");
            if let Some(answer) = answer {
                server.get("/api/v1/jobs").key(answer.json()["secret"].as_str().unwrap()).expect(200);
            }
        },
    },
    Change {
        what: "revoke a key",
        begin: |server, name| {
            let key = server.post("/api/v1/keys", &json!({"name": name, "role": "viewer"})).expect(201).json();
            remember(key["secret"].clone());
            (
                "DELETE",
                format!("/api/v1/keys/{}", key["key"]["id"].as_str().or(key["id"].as_str()).unwrap()),
                Value::Null,
            )
        },
        check: |server, name, answer| {
            let must = answered(answer, 200);
            let revoked = keys(server, name)[0]["revoked_at"].is_string();
            assert!(revoked || !must, "a revoked key is valid");
            let status = server.get("/api/v1/jobs").key(remembered().as_str().unwrap()).send().status;
            assert_eq!(status, if revoked { 401 } else { 200 });
        },
    },
];

/// Every run has ended or has a process, and every process has a run.
fn nothing_is_left_over(server: &Highwater) {
    wait_until("a process or an end of every run", Duration::from_secs(30), || {
        let runs = server.get("/api/v1/runs?page_size=1000").expect(200).json()["items"].as_array().unwrap().clone();
        let fine = |run: &Value| !is_active(run) || (run["state"] == "running" && server.process_of_any(run).is_some());
        runs.iter().all(fine)
    });
    let runs = server.get("/api/v1/runs?page_size=1000").expect(200).json()["items"].as_array().unwrap().clone();
    for entry in std::fs::read_dir(server.data().join("runs")).unwrap().flatten() {
        let id = entry.file_name().into_string().unwrap();
        let run = runs.iter().find(|run| run["id"] == id.as_str());
        let is_wanted = run.is_some_and(is_active);
        if !is_wanted {
            let run = json!({"id": id});
            wait_until("the end of a process without a run", Duration::from_secs(10), || {
                server.process_of_any(&run).is_none()
            });
        }
    }
    // What could not begin says so.
    for run in runs.iter().filter(|run| run["state"] == "failed") {
        let failure = &run["failure"];
        assert!(failure["code"] == "process_lost" && failure["retryable"] == true, "{run}");
    }
}

#[test]
fn a_change_that_the_server_is_killed_in_is_whole_or_did_not_happen() {
    let seed = std::env::var("HIGHWATER_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_micros() as u64));
    eprintln!("HIGHWATER_SEED={seed}");
    let mut random = Random(seed);
    let mut server = Highwater::start();
    let key = server.post("/api/v1/keys", &json!({"name": "admin", "role": "admin"})).expect(201).json();
    let key = key["secret"].as_str().unwrap().to_string();
    server.use_key(Some(&key));
    // How long each takes when nobody is killed.
    let usual: Vec<Duration> = CHANGES
        .iter()
        .enumerate()
        .map(|(number, change)| {
            let name = format!("usual{number}");
            let (method, path, body) = (change.begin)(&server, &name);
            let begun = Instant::now();
            let answer = read_answer(&mut send(&server, &key, method, &path, &body));
            let took = begun.elapsed();
            (change.check)(&server, &name, Some(&answer.unwrap_or_else(|| panic!("{}: no answer", change.what))));
            took
        })
        .collect();
    let (mut with, mut without) = (0, 0);
    for round in 0..ROUNDS {
        for (number, change) in CHANGES.iter().enumerate() {
            let name = format!("killed{round}x{number}");
            let (method, path, body) = (change.begin)(&server, &name);
            let delay = random.below(usual[number] * 2);
            let mut stream = send(&server, &key, method, &path, &body);
            std::thread::sleep(delay);
            server.kill();
            let answer = read_answer(&mut stream);
            server.begin();
            let is_answered = answer.is_some();
            let checked = std::panic::AssertUnwindSafe(|| (change.check)(&server, &name, answer.as_ref()));
            if let Err(panic) = std::panic::catch_unwind(checked) {
                eprintln!("{}, killed after {delay:?}, answered: {is_answered}; HIGHWATER_SEED={seed}", change.what);
                std::panic::resume_unwind(panic);
            }
            *(if is_answered { &mut with } else { &mut without }) += 1;
        }
    }
    eprintln!("{with} answered, {without} not");
    nothing_is_left_over(&server);
    every_change_is_in_the_log_once(&server);
}

/// What is there was created by one entry of the log, and what was created by an entry is there or was deleted by another.
fn every_change_is_in_the_log_once(server: &Highwater) {
    let log = server.get("/api/v1/audit?page_size=1000").expect(200).json()["items"].as_array().unwrap().clone();
    let entries = |action: &str, object: &Value| {
        log.iter().filter(|entry| entry["action"] == action && entry["object"] == *object).count()
    };
    let list = |path: &str| server.get(path).expect(200).json()["items"].as_array().unwrap().clone();
    let jobs = list("/api/v1/jobs?page_size=1000");
    for job in &jobs {
        assert_eq!(entries("job.create", &job["id"]), 1, "{job}");
        assert_eq!(entries("job.apply", &job["id"]) as u64 + 1, job["version"].as_u64().unwrap(), "{job}");
    }
    for key in list("/api/v1/keys") {
        assert_eq!(entries("key.create", &key["id"]), 1, "{key}");
        assert_eq!(entries("key.revoke", &key["id"]), usize::from(key["revoked_at"].is_string()), "{key}");
    }
    for created in log.iter().filter(|entry| entry["action"] == "job.create") {
        let is_there = jobs.iter().any(|job| job["id"] == created["object"]);
        assert_eq!(entries("job.delete", &created["object"]), usize::from(!is_there), "{created}");
    }
}
