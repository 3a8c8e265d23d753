//! The database of the metadata stops, hangs, or leaves a commit unanswered.

use std::time::{Duration, Instant};

use integration_tests::rest::{Highwater, Request};
use serde_json::{Value, json};
use test_support::postgres::Postgres;
use test_support::process::wait_until;

use super::super::{counts, totals};
use super::lines;

/// No request takes longer than this to say that the database is away.
const BOUND: Duration = Duration::from_secs(10);
/// From the return of the database to a server that is ready.
const BACK: Duration = Duration::from_secs(20);

fn start(postgres: &Postgres) -> Highwater {
    Highwater::with(&["--database", &postgres.database()])
}

/// Rows into files for ever, an epoch each 100 ms.
fn into_files(server: &Highwater, directory: &str) -> String {
    let path = server.files().join(directory);
    format!(
        "SET 'epoch.interval' = '100ms';
         CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'fields.n.kind' = 'sequence');
         CREATE TABLE files (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO files SELECT n FROM ticks;",
        path.display()
    )
}

/// 500 rows per second into a view, then the end.
fn ends_after(seconds: u64, view: &str) -> String {
    format!(
        "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'number-of-rows' = '{}',
           'fields.n.kind' = 'sequence');
         CREATE TABLE {view} (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         INSERT INTO {view} SELECT n % 4, COUNT(*) FROM s GROUP BY n % 4;",
        seconds * 500
    )
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// By the figures for Prometheus, which need no database.
fn rows_read(server: &Highwater, run: &str) -> u64 {
    let figures = server.get("/metrics").expect(200).text();
    let line = figures.lines().find(|line| line.contains("run_rows_in") && line.contains(run));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

fn is_ready(server: &Highwater) -> bool {
    server.get("/readyz").send().status == 200
}

/// What happens while the database does not answer, however it came to that, and what is there when it does again.
fn outage(begin: impl Fn(&Postgres), end: impl Fn(&Postgres)) {
    let postgres = Postgres::start(&[]);
    let server = start(&postgres);
    let (going_job, going) = server.submit("going", &into_files(&server, "going"));
    let (_, to_stop) = server.submit("to_stop", &counts("to_stop_view"));
    let (_, ending) = server.submit("ending", &ends_after(4, "ending_view"));
    for run in [&going, &to_stop, &ending] {
        server.wait_for_run(run, "running", |run| run["state"] == "running");
    }
    let processes: Vec<u32> = [&going, &to_stop].iter().map(|run| server.process_of(run)).collect();
    let idle = json!({"name": "idle", "sql": totals(&server, "idle_view"), "start": false});
    server.post("/api/v1/jobs", &idle).expect(201);

    begin(&postgres);

    let new = json!({"name": "new", "sql": totals(&server, "new_view")});
    let connection = json!({"name": "store", "kind": "s3", "options": {"s3.region": "eu-north-1"}, "secrets": {"s3.secret-key": "x"}});
    let table = json!({"sql": "CREATE TABLE known (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3')"});
    let (run, job) = (text(&going, "id"), text(&going_job, "id"));
    let stop = |server: &Highwater| {
        server
            .post(&format!("/api/v1/runs/{}/stop", text(&to_stop, "id")), &json!({"mode": "drain"}))
            .header("idempotency-key", "stop-1")
    };
    let refused: Vec<(&str, Request)> = vec![
        ("a job", server.get("/api/v1/jobs/going")),
        ("a job by its id", server.get(&format!("/api/v1/jobs/{job}"))),
        ("jobs", server.get("/api/v1/jobs")),
        ("a run", server.get(&format!("/api/v1/runs/{run}"))),
        ("a run that is waited for", server.get(&format!("/api/v1/runs/{run}?wait=30s"))),
        ("runs", server.get("/api/v1/runs")),
        ("create a job", server.post("/api/v1/jobs", &new).header("idempotency-key", "new-1")),
        (
            "apply a job",
            server.put("/api/v1/jobs/idle", &json!({"sql": totals(&server, "idle_view"), "parallelism": 2})),
        ),
        ("change a job", server.patch("/api/v1/jobs/idle", &json!({"labels": {"a": "b"}})).header("if-match", "*")),
        ("delete a job", server.delete("/api/v1/jobs/idle").header("if-match", "*")),
        ("start a run", server.post("/api/v1/jobs/idle/runs", &json!({})).header("idempotency-key", "run-1")),
        ("stop a run", stop(&server)),
        ("a connection", server.post("/api/v1/connections", &connection)),
        ("a table", server.post("/api/v1/tables", &table)),
        ("a key", server.post("/api/v1/keys", &json!({"name": "k", "role": "viewer"}))),
        ("the log of changes", server.get("/api/v1/audit")),
        ("readiness", server.get("/readyz")),
    ];
    // All at once: those that wait for a connection wait beside one another.
    std::thread::scope(|scope| {
        for (what, request) in refused {
            scope.spawn(move || {
                let begun = Instant::now();
                let answer = request.send();
                let took = begun.elapsed();
                assert!(took < BOUND, "{what}: answered after {took:?}");
                // Retry-After and the form are checked with every answer.
                assert_eq!(
                    (answer.status, answer.json()["code"].clone()),
                    (503, json!("metadata_unavailable")),
                    "{what}: {}",
                    answer.text()
                );
            });
        }
        for path in ["/livez", "/metrics", "/version", "/openapi.json"] {
            let server = &server;
            scope.spawn(move || {
                let begun = Instant::now();
                server.get(path).expect(200);
                assert!(begun.elapsed() < BOUND, "{path}: answered after {:?}", begun.elapsed());
            });
        }
    });
    let unready = server.get("/readyz").refused(503, "metadata_unavailable");
    assert!(text(&unready, "detail").contains("metadata store"), "it says what is away: {unready}");
    // Alone: nobody else is in the way.
    let begun = Instant::now();
    server.get("/api/v1/jobs/going").refused(503, "metadata_unavailable");
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    // Runs go on: they read. What they write is for the database to decide, and so is that one has come to its end.
    let before = rows_read(&server, run);
    wait_until("more rows while the database is away", BOUND, || rows_read(&server, run) > before + 500);
    std::thread::sleep(Duration::from_secs(3));
    assert!(server.process_of_any(&ending).is_some(), "it waits");
    let directory = server.files().join("going");
    let published = lines(&directory).len();

    end(&postgres);

    wait_until("readiness, without a restart", BACK, || is_ready(&server));
    let ended = server.wait_for_end(&ending);
    assert_eq!((&ended["state"], &ended["progress"]["rows_in"]), (&json!("finished"), &json!(2000)), "{ended}");
    let counted: i64 = server.rows("ending_view").iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert_eq!(counted, 2000);
    for (run, process) in [&going, &to_stop].iter().zip(processes) {
        assert_eq!(server.process_of(run), process, "the same process works for it");
        server.wait_until_running(run);
    }
    wait_until("commits go on", Duration::from_secs(60), || lines(&directory).len() > published + 500);
    // What was refused did not happen.
    assert_eq!(server.get("/api/v1/jobs/going").expect(200).json()["state"], "running");
    let idle = server.get("/api/v1/jobs/idle").expect(200).json();
    assert_eq!((&idle["version"], &idle["labels"], idle.get("latest_run")), (&json!(1), &json!({}), None), "{idle}");
    server.get("/api/v1/jobs/new").refused(404, "job_not_found");
    server.get("/api/v1/connections/store").refused(404, "connection_not_found");
    server.get("/api/v1/tables/known").refused(404, "table_not_found");
    assert_eq!(server.get("/api/v1/keys").expect(200).json()["items"], json!([]));
    // Repeated, it does, once.
    let created = server.post("/api/v1/jobs", &new).header("idempotency-key", "new-1").expect(201).json();
    let again = server.post("/api/v1/jobs", &new).header("idempotency-key", "new-1").expect(201);
    assert_eq!(
        (again.header("idempotency-replayed"), &again.json()["job"]["id"]),
        (Some("true"), &created["job"]["id"])
    );
    assert_eq!(server.wait_for_end(&created["run"])["state"], "finished");
    let operation = stop(&server).expect(202);
    let operation = server.get(&format!("{}?wait=60s", operation.header("location").unwrap())).expect(200).json();
    assert_eq!(operation["state"], "succeeded", "{operation}");
    assert_eq!(server.wait_for_end(&to_stop)["state"], "finished");
}

#[test]
fn runs_go_on_while_the_database_is_stopped_and_all_is_well_when_it_is_back() {
    outage(Postgres::stop_immediately, Postgres::restart);
}

#[test]
fn runs_go_on_while_the_database_hangs_and_all_is_well_when_it_is_back() {
    outage(Postgres::freeze, Postgres::thaw);
}

/// Clients create jobs without a pause while the database dies: each is there whole or not at all, and once after it was repeated.
#[test]
fn jobs_that_were_being_created_when_the_database_died_are_whole_or_not_there() {
    let postgres = Postgres::start(&[]);
    let server = start(&postgres);
    let body = |name: &str| json!({"name": name, "sql": totals(&server, name)});
    let create = |name: &str| server.post("/api/v1/jobs", &body(name)).header("idempotency-key", name);
    let (clients, dead) = (4, std::sync::atomic::AtomicBool::new(false));
    let answers: Vec<(String, u16)> = std::thread::scope(|scope| {
        let client = |number: usize| {
            let (create, dead) = (&create, &dead);
            move || {
                let mut answers = Vec::new();
                while !dead.load(std::sync::atomic::Ordering::SeqCst) {
                    let name = format!("job_{number}_{}", answers.len());
                    let status = create(&name).send().status;
                    answers.push((name, status));
                }
                answers
            }
        };
        let clients: Vec<_> = (0..clients).map(|number| scope.spawn(client(number))).collect();
        std::thread::sleep(Duration::from_millis(1500));
        postgres.stop_immediately();
        dead.store(true, std::sync::atomic::Ordering::SeqCst);
        clients.into_iter().flat_map(|client| client.join().expect("a client does not panic")).collect()
    });
    postgres.restart();
    wait_until("readiness, without a restart", BACK, || is_ready(&server));
    let refused = answers.iter().filter(|(_, status)| *status == 503).count();
    eprintln!("{} jobs created, {refused} refused", answers.len() - refused);
    assert!(refused > 0 && refused < answers.len(), "the database died before or after: {answers:?}");
    let runs_of = |name: &str| {
        server.get(&format!("/api/v1/runs?job={name}")).expect(200).json()["items"].as_array().unwrap().clone()
    };
    for (name, status) in &answers {
        assert!([201, 503].contains(status), "{name}: {status}");
        let there = server.get(&format!("/api/v1/jobs/{name}")).send();
        if *status == 201 || there.status == 200 {
            assert_eq!(
                (there.status, &there.json()["version"], runs_of(name).len()),
                (200, &json!(1), 1),
                "{name}: {}",
                there.text()
            );
        }
    }
    for (name, _) in &answers {
        create(name).expect(201);
        let runs = runs_of(name);
        assert_eq!(runs.len(), 1, "{name}: {runs:?}");
        assert_eq!(server.wait_for_end(&runs[0])["state"], "finished", "{name}");
    }
    let jobs = server.get("/api/v1/jobs?page_size=1000").expect(200).json();
    assert_eq!(jobs["items"].as_array().unwrap().len(), answers.len());
}
