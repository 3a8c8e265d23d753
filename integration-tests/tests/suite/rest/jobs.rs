//! Jobs: pages and filters, apply with a difference, patch, delete, idempotency, conflicts.

use std::collections::BTreeSet;
use std::time::Duration;

use integration_tests::rest::Highwater;
use serde_json::{Value, json};

use super::{counts, fresh, shared, totals};

/// A job that costs no process.
fn idle(server: &Highwater, name: &str, labels: Value) -> Value {
    let sql = totals(server, &fresh("idle"));
    let body = json!({"name": name, "sql": sql, "start": false, "labels": labels});
    server.post("/api/v1/jobs", &body).expect(201).json()["job"].clone()
}

fn names(page: &Value) -> Vec<String> {
    page["items"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn two_hundred_and_fifty_jobs_come_page_by_page_and_filtered() {
    let server = Highwater::start();
    let sql = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
               CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT n FROM s;";
    let create = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let team = if number % 5 == 0 { "red" } else { "blue" };
            let body = json!({"name": format!("job-{number:03}"), "sql": sql, "start": false,
                "labels": {"team": team, "even": (number % 2 == 0).to_string()}});
            server.post("/api/v1/jobs", &body).expect(201);
        }
    };
    std::thread::scope(|scope| {
        let create = &create;
        for part in 0..5 {
            scope.spawn(move || create(part * 50..part * 50 + 50));
        }
    });
    let walk = |filter: &str, size: usize| {
        let (mut all, mut pages, mut token) = (Vec::new(), 0, None);
        loop {
            let after = token.map(|token: String| format!("&page_token={token}")).unwrap_or_default();
            let page = server.get(&format!("/api/v1/jobs?page_size={size}{filter}{after}")).expect(200).json();
            pages += 1;
            assert!(page["items"].as_array().unwrap().len() <= size);
            all.extend(names(&page));
            match page["next_page_token"].as_str() {
                Some(next) => token = Some(next.to_string()),
                None => break (all, pages),
            }
        }
    };
    let (all, pages) = walk("", 100);
    assert_eq!((all.len(), pages, all.iter().collect::<BTreeSet<_>>().len()), (250, 3, 250));
    assert_eq!(walk("", 125).1, 2, "a page that ends with the list has no token");
    assert_eq!(walk("&label=team=red", 20).0.len(), 50);
    assert_eq!(walk("&label=team=red&label=even=true", 7).0.len(), 25);
    assert_eq!(walk("&label=team=green", 20).0.len(), 0);
    assert_eq!(walk("&q=JOB-00", 3).0.len(), 10);
    assert_eq!(walk("&state=created&state=failed", 1000).0.len(), 250);
    assert_eq!(walk("&state=running", 1000).0.len(), 0);

    // Whoever adds jobs while somebody walks neither repeats nor loses any.
    let first = server.get("/api/v1/jobs?page_size=100").expect(200).json();
    server.post("/api/v1/jobs", &json!({"name": "newer", "sql": sql, "start": false})).expect(201);
    let token = first["next_page_token"].as_str().unwrap();
    let second = server.get(&format!("/api/v1/jobs?page_size=100&page_token={token}")).expect(200).json();
    assert_eq!(names(&second), all[100..200]);

    // A token is good for its own list, unchanged.
    let tampered = format!("{}{}", if token.starts_with('A') { 'B' } else { 'A' }, &token[1..]);
    for (path, token) in [
        ("/api/v1/jobs?page_size=100", tampered.as_str()),
        ("/api/v1/jobs?page_size=100", "x"),
        ("/api/v1/jobs?page_size=100", ""),
        ("/api/v1/jobs?page_size=100", "%00%ff"),
        ("/api/v1/jobs?label=team=red", token),
        ("/api/v1/jobs?q=job", token),
        ("/api/v1/runs?page_size=100", token),
        ("/api/v1/audit?page_size=100", "-1x"),
    ] {
        server.get(&format!("{path}&page_token={token}")).refused(400, "invalid_cursor");
    }
}

#[test]
fn sizes_and_parameters_have_their_ranges() {
    let server = shared();
    for size in ["0", "-1", "1000000000", "1001"] {
        let problem = server.get(&format!("/api/v1/jobs?page_size={size}")).refused(422, "validation_failed");
        assert!(problem["detail"].as_str().unwrap().contains("1 to 1000"), "{problem}");
        assert_eq!(problem["errors"][0]["pointer"], "?page_size");
    }
    for (query, code) in [
        ("page_size=many", "invalid_parameter"),
        ("page_size=", "invalid_parameter"),
        ("page_size=9223372036854775808", "invalid_parameter"),
        ("sort=name", "unknown_parameter"),
        ("state=asleep", "invalid_parameter"),
        ("page_size=1&page_size=2", "duplicate_parameter"),
    ] {
        let problem = server.get(&format!("/api/v1/jobs?{query}")).refused(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], code, "{problem}");
    }
    let problem = server.get("/api/v1/jobs?page_siz=1").refused(422, "validation_failed");
    assert_eq!(problem["errors"][0]["hint"], "did you mean page_size?");
    server.get("/api/v1/jobs?label=team").refused(422, "validation_failed");
    server.get("/api/v1/runs?job=nobody").refused(404, "job_not_found");
    for path in
        ["views/v/rows?limit=0", "views/v/rows?limit=-1", "views/v/rows?limit=1000000000", "views/v/rows?offset=-1"]
    {
        server.get(&format!("/api/v1/{path}")).refused(422, "validation_failed");
    }
}

#[test]
fn applying_says_what_changes_before_and_after() {
    let server = shared();
    let (name, view) = (fresh("applied"), fresh("applied_view"));
    let sql = totals(&server, &view);
    let path = format!("/api/v1/jobs/{name}");
    let body = json!({"sql": sql, "labels": {"team": "a"}});

    let dry = server.put(&format!("{path}?dry_run=true"), &body).expect(200).json();
    assert_eq!((&dry["outcome"], &dry["applied"]), (&json!("created"), &json!(false)));
    assert!(dry.get("job").is_none());
    server.get(&path).refused(404, "job_not_found");

    let created = server.put(&path, &body).expect(201);
    let job = created.json()["job"].clone();
    assert_eq!(created.header("location").unwrap(), format!("/api/v1/jobs/{}", job["id"].as_str().unwrap()));
    assert_eq!((&job["version"], &job["state"]), (&json!(1), &json!("created")));
    assert_eq!(job["definition"]["views"], json!([view]));

    let etag = created.header("etag").unwrap().to_string();
    let same = server.put(&path, &body).expect(200);
    assert_eq!(same.json()["outcome"], "unchanged");
    assert_eq!(same.header("etag").unwrap(), etag, "nothing was changed, so nothing is new");

    let relabelled = server.put(&path, &json!({"sql": sql, "labels": {"team": "b"}})).expect(200).json();
    assert_eq!(relabelled["outcome"], "relabelled");
    assert_eq!(relabelled["changes"], json!([{"change": "changed", "subject": "label:team"}]));
    assert_eq!(relabelled["job"]["version"], 1);

    let wider = json!({"sql": sql, "labels": {"team": "b"}, "parallelism": 2});
    let dry = server.put(&format!("{path}?dry_run=true"), &wider).expect(200).json();
    assert_eq!((&dry["outcome"], &dry["applied"]), (&json!("new_version"), &json!(false)));
    assert!(
        dry["changes"].as_array().unwrap().contains(&json!({"change": "changed", "subject": "setting:parallelism"})),
        "{dry}"
    );
    assert_eq!(server.get(&path).expect(200).json()["version"], 1);
    let applied = server.put(&path, &wider).expect(200).json();
    assert_eq!((&applied["outcome"], &applied["job"]["version"]), (&json!("new_version"), &json!(2)));

    server.put(&path, &wider).header("if-match", &etag).refused(412, "precondition_failed");
    server.put("/api/v1/jobs/nobody-has-this", &wider).header("if-match", "*").refused(412, "precondition_failed");
    server.put("/api/v1/jobs/a%20b", &wider).refused(422, "validation_failed");
}

#[test]
fn a_change_says_which_version_was_read() {
    let server = shared();
    let name = fresh("patched");
    let job = idle(&server, &name, json!({}));
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    let read = server.get(&path).expect(200);
    let etag = read.header("etag").unwrap();

    server.patch(&path, &json!({"labels": {"a": "b"}})).refused(428, "precondition_required");
    server
        .patch(&path, &json!({"labels": {"a": "b"}}))
        .header("if-match", "\"r99\"")
        .refused(412, "precondition_failed");
    server
        .patch(&path, &json!({"labels": {"a": "b"}}))
        .header("if-match", "nonsense")
        .refused(412, "precondition_failed");
    let renamed = fresh("renamed");
    let patched =
        server.patch(&path, &json!({"name": renamed, "labels": {"a": "b"}})).header("if-match", etag).expect(200);
    assert_eq!(patched.json()["labels"], json!({"a": "b"}));
    server.patch(&path, &json!({"labels": {}})).header("if-match", etag).refused(412, "precondition_failed");
    // The name is free again, the id stays.
    server.get(&format!("/api/v1/jobs/{name}")).refused(404, "job_not_found");
    assert_eq!(server.get(&format!("/api/v1/jobs/{renamed}")).expect(200).json()["id"], job["id"]);
    let other = idle(&server, &name, json!({}));
    let problem = server
        .patch(&format!("/api/v1/jobs/{name}"), &json!({"name": renamed}))
        .header("if-match", "*")
        .refused(409, "name_taken");
    assert!(problem["detail"].as_str().unwrap().contains(job["id"].as_str().unwrap()), "{problem}");

    server.delete(&path).refused(428, "precondition_required");
    server.delete(&path).header("if-match", etag).refused(412, "precondition_failed");
    let newest = patched.header("etag").unwrap();
    server.delete(&path).header("if-match", newest).expect(204);
    server.get(&path).refused(404, "job_not_found");
    server.delete(&path).header("if-match", newest).refused(404, "job_not_found");
    server.delete(&format!("/api/v1/jobs/{}", other["id"].as_str().unwrap())).header("if-match", "*").expect(204);
}

#[test]
fn a_name_belongs_to_one_job_also_when_many_ask_at_once() {
    let server = shared();
    let name = fresh("taken");
    let answers: Vec<(u16, Value)> = std::thread::scope(|scope| {
        let ask = || {
            let view = fresh("taken_view");
            let body = json!({"name": name, "sql": totals(&server, &view), "start": false});
            let answer = server.post("/api/v1/jobs", &body).send();
            (answer.status, answer.json())
        };
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let created: Vec<_> = answers.iter().filter(|(status, _)| *status == 201).collect();
    assert_eq!(created.len(), 1, "{answers:?}");
    let id = created[0].1["job"]["id"].as_str().unwrap();
    for (_, problem) in answers.iter().filter(|(status, _)| *status != 201) {
        assert_eq!(problem["code"], "name_taken");
        assert!(problem["detail"].as_str().unwrap().contains(id), "{problem}");
    }
    // Views have names, too.
    let view = fresh("taken_view");
    let body = |name: &str| json!({"name": name, "sql": totals(&server, &view), "start": false});
    server.post("/api/v1/jobs", &body(&fresh("first"))).expect(201);
    let problem = server.post("/api/v1/jobs", &body(&fresh("second"))).refused(409, "name_taken");
    assert!(problem["detail"].as_str().unwrap().contains(&view), "{problem}");
}

#[test]
fn a_repeated_request_creates_nothing() {
    let server = shared();
    let name = fresh("once");
    let body = json!({"name": name, "sql": totals(&server, &fresh("once_view")), "start": false});
    let key = fresh("key");
    let ask = || server.post("/api/v1/jobs", &body).header("idempotency-key", &key);
    let first = ask().expect(201);
    assert_eq!(first.header("idempotency-replayed"), None);
    let second = ask().expect(201);
    assert_eq!(second.header("idempotency-replayed"), Some("true"));
    assert_eq!(
        (first.body.clone(), first.header("location"), first.header("etag")),
        (second.body.clone(), second.header("location"), second.header("etag"))
    );
    let other = json!({"name": fresh("other"), "sql": "SELECT 1", "start": false});
    server.post("/api/v1/jobs", &other).header("idempotency-key", &key).refused(422, "idempotency_mismatch");
    // The key is one of this path.
    server.post("/api/v1/tables", &json!({"sql": "x"})).header("idempotency-key", &key).refused(422, "invalid_graph");
    for wrong in [String::new(), "k".repeat(257)] {
        server.post("/api/v1/jobs", &body).header("idempotency-key", &wrong).refused(400, "bad_request");
    }

    // A failed request is not remembered: it may be mended under its key.
    let key = fresh("key");
    let wrong = json!({"name": fresh("wrong"), "sql": "SELEC", "start": false});
    server.post("/api/v1/jobs", &wrong).header("idempotency-key", &key).refused(422, "invalid_graph");
    let right = json!({"name": fresh("right"), "sql": totals(&server, &fresh("right_view")), "start": false});
    server.post("/api/v1/jobs", &right).header("idempotency-key", &key).expect(201);

    // At once: one creates, the others are told to wait, or get its answer.
    let key = fresh("key");
    let body = json!({"name": fresh("burst"), "sql": totals(&server, &fresh("burst_view")), "start": false});
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| server.post("/api/v1/jobs", &body).header("idempotency-key", &key).send()))
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let new = answers.iter().filter(|answer| answer.status == 201 && answer.header("idempotency-replayed").is_none());
    assert_eq!(new.count(), 1, "{answers:?}");
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(answer.json()["code"], "request_in_flight");
        assert!(answer.header("retry-after").is_some());
    }
}

#[test]
fn a_job_has_one_active_run() {
    let server = shared();
    let (job, run) = server.submit(&fresh("active"), &counts(&fresh("active_view")));
    let path = format!("/api/v1/jobs/{}", job["id"].as_str().unwrap());
    server.wait_until_running(&run);
    let problem = server.post(&format!("{path}/runs"), &json!({})).refused(409, "run_active");
    assert!(problem["detail"].as_str().unwrap().contains("running"), "{problem}");
    assert!(problem["hint"].as_str().unwrap().contains("stop"), "{problem}");
    server.delete(&path).header("if-match", "*").refused(409, "run_active");
    let stop = format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap());
    // Asking again is no error, also at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let status = server.post(&stop, &json!({"mode": "now"})).send().status;
                assert!([202, 409].contains(&status), "{status}");
            });
        }
    });
    assert_eq!(server.wait_for_end(&run)["state"], "cancelled");
    server.post(&stop, &json!({"mode": "drain"})).refused(409, "invalid_state");

    // Of many who start it, one does.
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let start = || server.post(&format!("{path}/runs"), &json!({})).send().status;
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 409).count(), 5, "{answers:?}");
    let runs = server.get(&format!("/api/v1/runs?job={}", job["id"].as_str().unwrap())).expect(200).json();
    assert_eq!(runs["items"].as_array().unwrap().len(), 2);
    let second = runs["items"][0].clone();
    server.post(&format!("/api/v1/runs/{}/stop", second["id"].as_str().unwrap()), &json!({"mode": "now"})).expect(202);
    server.wait_for_end(&second);
    server.delete(&path).header("if-match", "*").expect(204);
    server.get(&format!("/api/v1/runs/{}", second["id"].as_str().unwrap())).refused(404, "run_not_found");
}

#[test]
fn two_runs_do_not_write_one_directory() {
    let server = shared();
    let directory = server.files().join(fresh("written"));
    let sql = |path: &std::path::Path| {
        format!(
            "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10');
             CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
             INSERT INTO t SELECT n FROM s;",
            path.display()
        )
    };
    let (job, run) = server.submit(&fresh("writer"), &sql(&directory));
    // The same directory, however it is spelled.
    let spelled = server.files().join(".").join(directory.file_name().unwrap()).join("");
    for path in [&directory, &spelled] {
        let body = json!({"name": fresh("writer"), "sql": sql(path)});
        let problem = server.post("/api/v1/jobs", &body).refused(409, "sink_conflict");
        assert!(problem["detail"].as_str().unwrap().contains(job["name"].as_str().unwrap()), "{problem}");
        server.get(&format!("/api/v1/jobs/{}", body["name"].as_str().unwrap())).refused(404, "job_not_found");
    }
    // Stored it may be; started not before the other one has ended.
    let waiting = json!({"name": fresh("writer"), "sql": sql(&directory), "start": false});
    let name = waiting["name"].as_str().unwrap();
    server.post("/api/v1/jobs", &waiting).expect(201);
    server.post(&format!("/api/v1/jobs/{name}/runs"), &json!({})).refused(409, "sink_conflict");
    server.post(&format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap()), &json!({"mode": "now"})).expect(202);
    server.wait_for_end(&run);
    let second = server.post(&format!("/api/v1/jobs/{name}/runs"), &json!({})).expect(202).json();
    server.post(&format!("/api/v1/runs/{}/stop", second["id"].as_str().unwrap()), &json!({"mode": "now"})).expect(202);
    server.wait_for_end(&second);
}

#[test]
fn of_jobs_that_are_started_at_once_one_writes_a_directory() {
    let server = shared();
    let directory = server.files().join(fresh("at-once"));
    let sql = format!(
        "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10');
         CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO t SELECT n FROM s;",
        directory.display()
    );
    let answers: Vec<_> = std::thread::scope(|scope| {
        let submit = || server.post("/api/v1/jobs", &json!({"name": fresh("at-once"), "sql": sql})).send();
        let asked: Vec<_> = (0..5).map(|_| scope.spawn(submit)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    for answer in answers {
        if answer.status == 201 {
            let run = answer.json()["run"].clone();
            let stop = format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap());
            server.post(&stop, &json!({"mode": "now"})).expect(202);
            server.wait_for_end(&run);
        } else {
            assert_eq!((answer.status, &answer.json()["code"]), (409, &json!("sink_conflict")));
        }
    }
}

#[test]
fn who_hangs_up_leaves_no_run_behind_that_nobody_starts() {
    use std::io::Write;
    let server = shared();
    let sql = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '10');
               CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole');
               INSERT INTO t SELECT n FROM s;";
    let mut stored = 0;
    for delay_ms in 0..24_u64 {
        let name = fresh("hung-up");
        let body = json!({"name": name, "sql": sql}).to_string();
        let head = format!(
            "POST /api/v1/jobs HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            server.address,
            body.len()
        );
        let mut stream = server.connect();
        stream.write_all((head + &body).as_bytes()).unwrap();
        // From before it is planned until after it is answered.
        std::thread::sleep(Duration::from_millis(delay_ms * 3));
        drop(stream);
        // It is stored a little later, or not at all.
        std::thread::sleep(Duration::from_millis(20));
        let found = server.get(&format!("/api/v1/jobs/{name}")).send();
        if found.status == 200 {
            stored += 1;
            let run = json!({"id": found.json()["latest_run"]});
            assert_eq!(server.wait_for_end(&run)["state"], "finished");
        }
    }
    assert!(stored > 0, "none of them came far enough");
}

#[test]
fn relative_paths_begin_where_the_request_says_and_nowhere_else() {
    let server = shared();
    let name = fresh("relative");
    // A directory of its own: others put things into the common one that a pattern must not meet.
    std::fs::create_dir(server.files().join(&name)).unwrap();
    server.file(&format!("{name}/in.jsonl"), "{\"n\":1}\n{\"n\":2}\n");
    let base = server.files().join(&name).display().to_string();
    let tables = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in.js*', 'format' = 'json');
CREATE TABLE t (n BIGINT) WITH ('connector' = 'filesystem', 'path' = './out', 'format' = 'json');\n";
    let job = format!("{tables}INSERT INTO t SELECT n FROM s;");
    let query = format!("{}SELECT n FROM s", tables.lines().next().unwrap());

    // Nobody's directory is taken instead.
    let problem = server.post("/api/v1/jobs", &json!({"name": name, "sql": job})).refused(422, "path_not_absolute");
    let lines: Vec<_> = problem["errors"].as_array().unwrap().iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(lines.len(), 2, "{problem}");
    assert!(problem["errors"][0]["hint"].as_str().unwrap().contains("base_directory"), "{problem}");
    server.put(&format!("/api/v1/jobs/{name}"), &json!({"sql": job})).refused(422, "path_not_absolute");
    server.post("/api/v1/sql/query", &json!({"sql": query})).refused(422, "path_not_absolute");
    let found = server.post("/api/v1/graphs/validate", &json!({"sql": job})).expect(200).json();
    assert_eq!((&found["valid"], &found["errors"][0]["code"]), (&json!(false), &json!("path_not_absolute")), "{found}");
    for wrong in ["examples", ""] {
        let body = json!({"name": name, "sql": job, "base_directory": wrong});
        let problem = server.post("/api/v1/jobs", &body).refused(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], "/base_directory", "{problem}");
    }
    // A table of the catalogue is read from everywhere.
    let table = tables.lines().next().unwrap().replace("TABLE s", &format!("TABLE {name}"));
    let problem = server.post("/api/v1/tables", &json!({"sql": table})).refused(422, "path_not_absolute");
    assert!(!problem.to_string().contains("base_directory"), "{problem}");

    let found = server.post("/api/v1/graphs/validate", &json!({"sql": job, "base_directory": base})).expect(200).json();
    assert_eq!(found["valid"], true, "{found}");
    let rows = server.post("/api/v1/sql/query", &json!({"sql": query, "base_directory": base})).expect(200).json();
    assert_eq!(rows["rows"], json!([{"n": 1}, {"n": 2}]));
    let created = server.post("/api/v1/jobs", &json!({"name": name, "sql": job, "base_directory": base})).expect(201);
    let created = created.json();
    assert_eq!(server.wait_for_end(&created["run"])["state"], "finished");
    assert!(server.files().join(&name).join("out").is_dir());
    // Whole paths are stored: where a later server is started changes nothing. They can be sent as they are.
    let graph = &created["job"]["definition"]["graph"];
    let paths: Vec<&str> =
        graph["nodes"].as_array().unwrap().iter().filter_map(|node| node["connector"]["path"].as_str()).collect();
    assert_eq!(paths, [format!("{base}/in.js*"), format!("{base}/out")]);
    let again = server.put(&format!("/api/v1/jobs/{name}"), &json!({"graph": graph})).expect(200).json();
    assert_eq!(again["changes"], json!([]), "{again}");

    // In a graph the operator is named.
    let mut graph = graph.clone();
    let place = graph["nodes"].as_array().unwrap().iter().position(|node| node["type"] == "source").unwrap();
    graph["nodes"][place]["connector"]["path"] = json!("x.jsonl");
    let problem = server
        .post("/api/v1/jobs", &json!({"name": fresh("relative"), "graph": graph}))
        .refused(422, "path_not_absolute");
    assert_eq!(problem["errors"][0]["pointer"], json!(format!("/graph/nodes/{place}/connector/path")), "{problem}");
}
