//! The life of runs: seen while they run, stopped both ways, failed, lost.

use std::time::{Duration, Instant};

use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::kafka::{self, Record};
use test_support::process::send;

use super::{counts, fresh, shared, totals};

fn path(run: &Value, rest: &str) -> String {
    format!("/api/v1/runs/{}{rest}", run["id"].as_str().unwrap())
}

/// Moves of a run as `from>to`.
fn moves(server: &Highwater, run: &Value) -> Vec<String> {
    let events = server.get(&path(run, "/events")).expect(200).json();
    let items = events["items"].as_array().unwrap().clone();
    for (position, event) in items.iter().enumerate() {
        assert_eq!(event["sequence"], position + 1);
    }
    items
        .iter()
        .map(|event| format!("{}>{}", event["from"].as_str().unwrap_or(""), event["to"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_bounded_job_runs_to_its_end_and_leaves_its_figures() {
    let server = shared();
    let view = fresh("bounded");
    let (job, run) = server.submit(&fresh("bounded"), &totals(&server, &view));
    assert_eq!((&job["state"], &run["state"], &run["attempts"]), (&json!("pending"), &json!("pending"), &json!(0)));
    let run = server.wait_for_end(&run);
    assert_eq!(run["state"], "finished", "{run}");
    assert_eq!((&run["progress"]["rows_in"], &run["attempts"]), (&json!(4), &json!(1)));
    assert_eq!(run["progress"]["final_watermark"], true, "{run}");
    assert!(run["ended_at"].is_string() && run["started_at"].is_string() && run.get("failure").is_none());
    assert!(!run["start_positions"].as_object().unwrap().is_empty(), "{run}");
    assert_eq!(
        server.get(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())).expect(200).json()["state"],
        "finished"
    );
    let moves = moves(&server, &run);
    // A run this short may have ended before anyone saw it run.
    assert_eq!(moves.first().unwrap(), ">pending", "{moves:?}");
    assert!(["running>finished", "starting>finished"].contains(&moves.last().unwrap().as_str()), "{moves:?}");
    // What could be seen of it can still be.
    let graph = server.get(&path(&run, "/graph")).expect(200).json();
    assert!(!graph["operators"].as_array().unwrap().is_empty() && !graph["edges"].as_array().unwrap().is_empty());
    for part in ["/watermarks", "/late_rows", "/dead_letters", "/errors", "/logs", "/metrics"] {
        server.get(&path(&run, part)).expect(200);
    }
    assert_eq!(server.get(&path(&run, "/errors")).expect(200).json()["items"], json!([]));

    // The same again, from where it began.
    let again = json!({"start_positions_of": run["id"]});
    let second = server.post(&format!("/api/v1/jobs/{}/runs", job["name"].as_str().unwrap()), &again).expect(202);
    assert!(second.header("location").unwrap().starts_with("/api/v1/runs/run_"));
    let second = server.wait_for_end(&second.json());
    assert_eq!((&second["state"], &second["start_positions"]), (&json!("finished"), &run["start_positions"]));
    let runs = server
        .get(&format!("/api/v1/runs?job={}&state=finished&page_size=1", job["id"].as_str().unwrap()))
        .expect(200)
        .json();
    assert_eq!(runs["items"][0]["id"], second["id"]);
    let token = runs["next_page_token"].as_str().unwrap();
    let rest = server
        .get(&format!("/api/v1/runs?job={}&state=finished&page_size=1&page_token={token}", job["id"].as_str().unwrap()))
        .expect(200)
        .json();
    assert_eq!((&rest["items"][0]["id"], rest.get("next_page_token")), (&run["id"], None));
    let problem = server
        .post(
            &format!("/api/v1/jobs/{}/runs", job["name"].as_str().unwrap()),
            &json!({"start_positions": {"bid": {"0": "0"}}}),
        )
        .refused(422, "validation_failed");
    assert!(problem["detail"].as_str().unwrap().contains("bid"), "{problem}");
}

#[test]
fn a_running_job_shows_what_it_does() {
    let server = shared();
    let (_, run) = server.submit(&fresh("live"), &counts(&fresh("live")));
    let run = server.wait_until_running(&run);

    // Rates need two looks at it.
    let deadline = Instant::now() + Duration::from_secs(60);
    let graph = loop {
        let graph = server.get(&path(&run, "/graph")).expect(200);
        let json = graph.json();
        let source =
            json["operators"].as_array().unwrap().iter().find(|operator| operator["kind"] == "source").cloned();
        if source.as_ref().is_some_and(|source| source["total"]["rows_out_per_second"].as_f64() > Some(1.0)) {
            break json;
        }
        assert!(Instant::now() < deadline, "{json}");
        std::thread::sleep(Duration::from_millis(200));
    };
    let operators = graph["operators"].as_array().unwrap();
    let ids: Vec<&Value> = operators.iter().map(|operator| &operator["id"]).collect();
    for edge in graph["edges"].as_array().unwrap() {
        assert!(ids.contains(&&edge["from"]) && ids.contains(&&edge["to"]), "{edge}");
    }
    for operator in operators {
        assert!(!operator["subtasks"].as_array().unwrap().is_empty(), "{operator}");
        let subtask = &operator["subtasks"][0];
        for share in ["busy_ratio", "backpressured_ratio", "idle_ratio"] {
            let share = subtask[share].as_f64().unwrap_or_else(|| panic!("{operator}"));
            assert!((0.0..=1.0).contains(&share), "{operator}");
        }
    }
    let watermarks = server.get(&path(&run, "/watermarks")).expect(200).json();
    assert!(watermarks["minimum"].is_string(), "{watermarks}");
    assert_eq!(watermarks["held_back_by"].as_array().unwrap().len(), 1, "{watermarks}");
    assert_eq!(watermarks["splits"][0]["table"], "ticks");

    server.wait_for_run(&run, "a series of two points", |run| {
        let metrics = server.get(&path(run, "/metrics?names=rows_in_per_second&window=1m")).expect(200).json();
        let series = metrics["series"].as_array().unwrap();
        assert!(series.iter().all(|series| series["name"] == "rows_in_per_second"), "{metrics}");
        series.iter().any(|series| {
            series["points"].as_array().unwrap().iter().filter(|point| point["value"].is_number()).count() >= 2
        })
    });
    let all = server.get(&path(&run, "/metrics")).expect(200).json();
    assert!(all["series"].as_array().unwrap().len() > 5, "{all}");
    let problem = server.get(&path(&run, "/metrics?names=rows_in_per_secnd")).refused(422, "validation_failed");
    assert_eq!(problem["hint"], "did you mean rows_in_per_second?");
    for wrong in ["window=soon", "step=-1s", "window="] {
        server.get(&path(&run, &format!("/metrics?{wrong}"))).refused(422, "validation_failed");
    }
    server.get(&path(&run, "/logs?lines=1")).expect(200);
    assert_eq!(moves(&server, &run), [">pending", "pending>starting", "starting>running"]);
    let metrics = server.get("/metrics").expect(200).text();
    assert!(metrics.contains(run["id"].as_str().unwrap()), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));

    // A wait is over when the time is, also if the run is not.
    let begun = Instant::now();
    assert_eq!(server.get(&path(&run, "?wait=1s")).expect(200).json()["state"], "running");
    assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(20));
    server.get(&path(&run, "?wait=long")).refused(422, "validation_failed");

    // Stopped now: cancelled, and the operation says so to whoever waits for it.
    let stop = server.post(&path(&run, "/stop"), &json!({"mode": "now"})).expect(202);
    let operation = server.get(&format!("{}?wait=30s", stop.header("location").unwrap())).expect(200).json();
    assert_eq!((&operation["state"], &operation["kind"]), (&json!("succeeded"), &json!("stop_now")), "{operation}");
    assert_eq!(operation["subject"], run["id"]);
    let ended = server.get(&path(&run, "")).expect(200).json();
    assert_eq!(ended["state"], "cancelled");
    assert_eq!(moves(&server, &run).last().unwrap(), "stopping>cancelled");
}

#[test]
fn a_drain_finishes_what_has_begun() {
    let server = shared();
    let view = fresh("drained");
    let (_, run) = server.submit(&fresh("drained"), &counts(&view));
    server.wait_until_running(&run);
    let stop = server.post(&path(&run, "/stop"), &json!({"mode": "drain"})).expect(202);
    let operation = server.get(&format!("{}?wait=60s", stop.header("location").unwrap())).expect(200).json();
    assert_eq!((&operation["state"], &operation["kind"]), (&json!("succeeded"), &json!("stop_drain")), "{operation}");
    let run = server.get(&path(&run, "")).expect(200).json();
    assert_eq!((&run["state"], &run["progress"]["final_watermark"]), (&json!("finished"), &json!(true)), "{run}");
    // Every row that was read is counted in what stays.
    let counted: i64 = server.rows(&view).iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert_eq!(json!(counted), run["progress"]["rows_in"], "{run}");
    let answer = server.get(&format!("/api/v1/views/{view}/rows")).expect(200).json();
    assert_eq!(answer["durable"], true);
}

#[test]
fn a_bad_record_fails_the_run_and_is_named() {
    let server = shared();
    let view = fresh("failed");
    let sql = totals(&server, &view);
    server.file(&format!("{view}.jsonl"), "{\"auction\":1,\"price\":10}\n{\"auction\":2,\"price\":\"cheap\"}\n");
    let (job, run) = server.submit(&fresh("failed"), &sql);
    let run = server.wait_for_end(&run);
    assert_eq!(run["state"], "failed", "{run}");
    let failure = &run["failure"];
    assert_eq!((&failure["fault"], &failure["operator"]), (&json!("user"), &json!("bids")), "{failure}");
    assert!(!failure["code"].as_str().unwrap().is_empty() && failure["hint"].is_string(), "{failure}");
    assert!(failure["detail"].as_str().unwrap().contains("price"), "{failure}");
    let errors = server.get(&path(&run, "/errors")).expect(200).json();
    assert_eq!(errors["items"][0]["failure"], *failure);
    assert_eq!(moves(&server, &run).last().unwrap().split('>').next_back(), Some("failed"));
    assert_eq!(
        server.get(&format!("/api/v1/jobs/{}", job["id"].as_str().unwrap())).expect(200).json()["state"],
        "failed"
    );
    // A run that fails publishes nothing.
    server.get(&format!("/api/v1/views/{view}/rows")).refused(404, "no_rows_yet");
    // Mended, the same job runs.
    server.file(&format!("{view}.jsonl"), "{\"auction\":1,\"price\":10}\n");
    let second =
        server.post(&format!("/api/v1/jobs/{}/runs", job["id"].as_str().unwrap()), &json!({})).expect(202).json();
    assert_eq!(server.wait_for_end(&second)["state"], "finished");
    assert_eq!(server.rows(&view), [json!({"auction": 1, "total": 10})]);
}

#[test]
fn a_process_that_is_killed_fails_a_run_that_is_not_tried_again_and_nothing_else() {
    let server = shared();
    let once = format!("SET 'restart.attempts' = '0';{}", counts(&fresh("victim")));
    let (job, run) = server.submit(&fresh("victim"), &once);
    let (_, bystander) = server.submit(&fresh("bystander"), &counts(&fresh("bystander")));
    server.wait_until_running(&run);
    server.wait_until_running(&bystander);
    send(server.process_of(&run), 9);
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["failure"]["code"]), (&json!("failed"), &json!("process_lost")), "{ended}");
    assert_eq!(ended["failure"]["retryable"], true);
    assert!(ended["failure"]["detail"].as_str().unwrap().contains("SIGKILL"), "{ended}");
    let before = server.get(&path(&bystander, "")).expect(200).json();
    server.wait_for_run(&bystander, "more rows", |run| {
        run["progress"]["rows_in"].as_u64() > before["progress"]["rows_in"].as_u64()
    });
    // The job can be started again.
    let second =
        server.post(&format!("/api/v1/jobs/{}/runs", job["id"].as_str().unwrap()), &json!({})).expect(202).json();
    server.wait_until_running(&second);
    for run in [&second, &bystander] {
        server.post(&path(run, "/stop"), &json!({"mode": "now"})).expect(202);
        assert_eq!(server.wait_for_end(run)["state"], "cancelled");
    }
}

#[test]
fn late_rows_and_dead_letters_are_shown() {
    let server = shared();
    let view = fresh("letters");
    let lines = "{\"k\":1,\"ts\":\"2024-01-01 00:00:00\"}\n{\"k\":\"x\",\"ts\":\"2024-01-01 00:00:01\"}\n\
                 {\"k\":2,\"ts\":\"2024-01-01 01:00:00\"}\n{\"k\":3,\"ts\":\"2024-01-01 00:00:02\"}\n";
    let file = server.file(&format!("{view}.jsonl"), lines);
    let sql = format!(
        "SET 'source.batch-rows' = '1';
         SET 'watermark.interval' = '0s';
         CREATE TABLE rows_in (k BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'filesystem', 'path' = '{file}', 'format' = 'json', 'on_bad_record' = 'dead_letter');
         CREATE TABLE {view} (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'view');
         CREATE TABLE bin (payload BYTES) WITH ('connector' = 'blackhole');
         EXECUTE STATEMENT SET BEGIN
         INSERT INTO bin SELECT payload FROM highwater.dead_letters;
         INSERT INTO {view} SELECT window_start, SUM(k) FROM TABLE(TUMBLE(TABLE rows_in, DESCRIPTOR(ts), INTERVAL '1' MINUTE))
           GROUP BY window_start, window_end;
         END;"
    );
    let (_, run) = server.submit(&fresh("letters"), &sql);
    let run = server.wait_for_end(&run);
    assert_eq!(run["state"], "finished", "{run}");
    let letters = server.get(&path(&run, "/dead_letters")).expect(200).json();
    assert_eq!(letters["total"], 1, "{letters}");
    assert!(letters["items"][0]["payload"].as_str().unwrap().contains("\"x\""), "{letters}");
    assert_eq!(run["progress"]["dead_letters"], 1);

    // In a bounded read no row is late; in a stream that is further out of order than its watermark allows some are.
    let view = fresh("late");
    let lines: String =
        (0..200).map(|n| format!("{{\"ts\":\"2024-01-01 00:{:02}:{:02}\"}}\n", n / 60, n % 60)).collect();
    let file = server.file(&format!("{view}.jsonl"), lines);
    let sql = format!(
        "SET 'source.batch-rows' = '1';
         SET 'watermark.interval' = '0s';
         CREATE TABLE shuffled (ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND)
           WITH ('connector' = 'replay', 'path' = '{file}', 'format' = 'json', 'replay.disorder' = '1min');
         CREATE TABLE {view} (s TIMESTAMP(3), n BIGINT) WITH ('connector' = 'view');
         INSERT INTO {view} SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE shuffled, DESCRIPTOR(ts), INTERVAL '10' SECOND))
           GROUP BY window_start, window_end;"
    );
    let (_, run) = server.submit(&fresh("late"), &sql);
    let run = server.wait_for_end(&run);
    assert_eq!(run["state"], "finished", "{run}");
    let late = server.get(&path(&run, "/late_rows")).expect(200).json();
    let total = late["total"].as_i64().unwrap();
    assert!(total > 10 && run["progress"]["late_rows"] == total, "{late}");
    // Every row is counted, or on record.
    let counted: i64 = server.rows(&view).iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert_eq!(counted + total, 200, "{late}");
    let items = late["items"].as_array().unwrap();
    assert!(!items.is_empty());
    for item in items {
        let (time, watermark) = (item["event_time"].as_str().unwrap(), item["watermark"].as_str().unwrap());
        assert!(time.starts_with("2024-01-01T00:0") && time < watermark, "{item}");
        assert!(!item["operator"].as_str().unwrap().is_empty() && item["epoch"].as_u64() > Some(0), "{item}");
        let row: Value = serde_json::from_str(item["row"].as_str().unwrap()).unwrap();
        assert_eq!(row["ts"].as_str(), time.strip_suffix('Z'), "{item}");
    }
}

#[test]
fn a_topic_is_read_from_where_another_run_began() {
    let (server, kafka) = (shared(), kafka::shared());
    let topic = kafka.topic("positions", 2);
    let produce = |numbers: std::ops::Range<i32>| {
        let records: Vec<Record> = numbers.map(|n| Record::value(n % 2, format!("{{\"n\":{n}}}"))).collect();
        kafka.produce(&topic, &records);
    };
    produce(0..5);
    let view = fresh("positions");
    let sql = |topic: &str, view: &str| {
        format!(
            "SET 'epoch.interval' = '100ms';
             CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'kafka', 'topic' = '{topic}', 'scan.startup.mode' = 'latest-offset',
               'properties.bootstrap.servers' = '{}', 'format' = 'json');
             CREATE TABLE {view} (n BIGINT) WITH ('connector' = 'view'); INSERT INTO {view} SELECT n FROM numbers;",
            kafka.servers()
        )
    };
    let (job, run) = server.submit(&fresh("positions"), &sql(&topic, &view));
    let first = server.wait_until_running(&run);
    let positions = first["start_positions"]["numbers"].clone();
    assert_eq!(positions[format!("{topic}-0")], "3", "{first}");
    assert_eq!(positions[format!("{topic}-1")], "2", "{first}");
    produce(5..25);
    let first = server.wait_for_run(&first, "20 rows", |run| run["progress"]["rows_in"] == 20);
    server.wait_for_run(&first, "no lag", |run| {
        let splits = server.get(&path(run, "/watermarks")).expect(200).json()["splits"].clone();
        let splits = splits.as_array().unwrap();
        splits.len() == 2 && splits.iter().all(|split| split["lag_records"] == 0)
    });
    let drain = |run: &Value| {
        server.post(&path(run, "/stop"), &json!({"mode": "drain"})).expect(202);
        assert_eq!(server.wait_for_end(run)["state"], "finished");
        let mut numbers: Vec<i64> = server.rows(&view).iter().map(|row| row["n"].as_i64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(drain(&first), (5..25).collect::<Vec<i64>>());

    produce(25..35);
    let again = json!({"start_positions_of": first["id"]});
    let runs = format!("/api/v1/jobs/{}/runs", job["id"].as_str().unwrap());
    let second = server.post(&runs, &again).expect(202).json();
    let second = server.wait_for_run(&second, "20 and 10 rows", |run| run["progress"]["rows_in"] == 30);
    assert_eq!(second["start_positions"]["numbers"], positions, "{second}");
    assert_eq!(drain(&second), (5..35).collect::<Vec<i64>>());

    // What is not there yet is waited for, and said.
    let missing = format!("{topic}-later");
    let view = fresh("positions");
    let sql = sql(&missing, &view)
        .replace("latest-offset", "earliest-offset")
        .replace("'format'", "'startup.timeout' = '5min', 'format'");
    let (_, run) = server.submit(&view, &sql);
    let says = |run: &Value| run["waiting_for"].as_str().is_some_and(|what| what.contains(&missing));
    let run = server.wait_for_run(&run, "it says what it waits for", says);
    kafka.create(&missing, 1, &[]);
    kafka.produce(&missing, &[Record::value(0, "{\"n\":1}")]);
    let run = server.wait_for_run(&run, "a row", |run| run["progress"]["rows_in"] == 1);
    assert!(run.get("waiting_for").is_none_or(Value::is_null), "{run}");
    server.post(&path(&run, "/stop"), &json!({"mode": "now"})).expect(202);
    server.wait_for_end(&run);
}

#[test]
fn more_runs_than_the_server_allows_are_refused() {
    let server = Highwater::configured(&json!({"max-active-runs": 2}));
    let runs: Vec<Value> = (0..2).map(|_| server.submit(&fresh("crowd"), &counts(&fresh("crowd"))).1).collect();
    let body = json!({"name": fresh("crowd"), "sql": counts(&fresh("crowd"))});
    let problem = server.post("/api/v1/jobs", &body).refused(429, "too_many_runs");
    assert!(problem["detail"].as_str().unwrap().contains('2'), "{problem}");
    // Nothing of the refused request stays.
    server.get(&format!("/api/v1/jobs/{}", body["name"].as_str().unwrap())).refused(404, "job_not_found");
    server.post(&path(&runs[0], "/stop"), &json!({"mode": "now"})).expect(202);
    server.wait_for_end(&runs[0]);
    let created = server.post("/api/v1/jobs", &body).expect(201).json();
    server.wait_until_running(&created["run"]);
}
