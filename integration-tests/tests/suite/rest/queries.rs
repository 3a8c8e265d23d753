//! Bounded queries over files and views: rows, limits, refusals, and what becomes of them when nobody listens any more.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use integration_tests::rest::{Highwater, Request};
use serde_json::{Value, json};
use test_support::process::wait_until;

use super::{BIDS, counts, fresh, shared, totals};

fn query(server: &Highwater, sql: &str) -> Request {
    server.post("/api/v1/sql/query", &json!({"sql": sql}))
}

fn bids(server: &Highwater) -> String {
    let path = server.file("queried.jsonl", BIDS);
    format!(
        "CREATE TABLE queried (auction BIGINT, price BIGINT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json');"
    )
}

/// Rows that take longer than any test.
const ENDLESS: &str =
    "CREATE TABLE many (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1000000000000');";

#[test]
fn a_query_reads_files_and_views() {
    let server = shared();
    let answer =
        query(&server, &format!("{} SELECT auction, price FROM queried WHERE price > 9 ORDER BY price", bids(&server)));
    let answer = answer.expect(200).json();
    assert_eq!(answer["columns"][0], json!({"name": "auction", "type": "BIGINT", "nullable": true}));
    assert_eq!(
        answer["rows"],
        json!([{"auction": 1, "price": 10}, {"auction": 1, "price": 50}, {"auction": 2, "price": 400}])
    );
    assert_eq!(answer["truncated"], false);

    let view = fresh("joined");
    let (_, run) = server.submit(&fresh("joined"), &totals(&server, &view));
    server.wait_for_end(&run);
    let answer =
        query(&server, &format!("SELECT COUNT(*) n, SUM(total) total FROM {view} WHERE total > 50")).expect(200);
    assert_eq!(answer.json()["rows"], json!([{"n": 2, "total": 460}]));

    // A running job's view, at one of its epochs.
    let live = fresh("queried");
    let (_, run) = server.submit(&fresh("queried"), &counts(&live));
    server.wait_until_running(&run);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = query(&server, &format!("SELECT COUNT(*) keys, SUM(n) n FROM {live}")).expect(200).json();
        if answer["rows"][0]["keys"] == 10 {
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
        std::thread::sleep(Duration::from_millis(200));
    }
    server.post(&format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap()), &json!({"mode": "now"})).expect(202);
    server.wait_for_end(&run);

    let limited = server
        .post(
            "/api/v1/sql/query",
            &json!({"sql": format!("{} SELECT auction FROM queried", bids(&server)), "limit": 2}),
        )
        .expect(200)
        .json();
    assert_eq!((limited["rows"].as_array().unwrap().len(), &limited["truncated"]), (2, &json!(true)));
    let sql = format!("{} SELECT price FROM queried ORDER BY price", bids(&server));
    let csv = query(&server, &sql).header("accept", "text/csv").expect(200);
    assert_eq!(csv.text(), "price\n5\n10\n50\n400\n");
    let stream = query(&server, &sql).header("accept", "application/vnd.apache.arrow.stream").expect(200);
    let reader = arrow::ipc::reader::StreamReader::try_new(std::io::Cursor::new(stream.body), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
    query(&server, &sql).header("accept", "image/png").refused(406, "not_acceptable");
    // No rows are an answer, too.
    let none =
        query(&server, &format!("{} SELECT price FROM queried WHERE price < 0", bids(&server))).expect(200).json();
    assert_eq!(none["rows"], json!([]));
}

#[test]
fn a_query_that_cannot_be_answered_is_refused() {
    let server = shared();
    query(&server, "SELECT n FROM nowhere").refused(422, "invalid_graph");
    let endless = "CREATE TABLE for_ever (n BIGINT) WITH ('connector' = 'datagen'); SELECT n FROM for_ever";
    let problem = query(&server, endless).refused(422, "unbounded_query");
    assert!(problem["detail"].as_str().unwrap().contains("for_ever") && problem["hint"].is_string(), "{problem}");
    let sink = "CREATE TABLE b (price BIGINT) WITH ('connector' = 'blackhole');";
    query(&server, &format!("{}{sink} INSERT INTO b SELECT price FROM queried", bids(&server)))
        .refused(422, "validation_failed");
    let explain = format!("{} EXPLAIN SELECT price FROM queried", bids(&server));
    let problem = query(&server, &explain).refused(422, "validation_failed");
    assert!(problem["detail"].as_str().unwrap().contains("EXPLAIN"), "{problem}");
    let outside = "CREATE TABLE p (l STRING) WITH ('connector' = 'filesystem', 'path' = '/etc/passwd', 'format' = 'csv'); SELECT l FROM p";
    query(&server, outside).refused(403, "location_not_allowed");
    let own = format!(
        "CREATE TABLE p (l STRING) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv'); SELECT l FROM p",
        server.data().join("sealing.key").display()
    );
    let answer = query(&server, &own).send();
    assert_eq!(answer.status, 403, "{}", answer.text());
    for (field, value) in
        [("timeout", json!("soon")), ("limit", json!(0)), ("memory_bytes", json!(1)), ("timeout", json!(5))]
    {
        let mut body = json!({"sql": "SELECT 1"});
        body[field] = value;
        server.post("/api/v1/sql/query", &body).refused(422, "validation_failed");
    }
    let view = fresh("unpublished");
    let body = json!({"name": fresh("unpublished"), "sql": totals(&server, &view), "start": false});
    server.post("/api/v1/jobs", &body).expect(201);
    query(&server, &format!("SELECT total FROM {view}")).refused(404, "no_rows_yet");
}

#[test]
fn a_query_that_fails_midway_says_so_behind_its_rows() {
    let server = shared();
    let good = "{\"n\":1}\n".repeat(200_000);
    let path = server.file("midway.jsonl", format!("{good}{{\"n\":\"bad\"}}\n"));
    let sql = format!(
        "SET 'source.batch-rows' = '1000'; SET 'epoch.every-rows' = '1000';
         CREATE TABLE midway (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json'); SELECT n FROM midway"
    );
    let answer = query(&server, &sql).expect(200).json();
    assert!(!answer["rows"].as_array().unwrap().is_empty());
    let problem = &answer["error"];
    assert_eq!(problem["code"], "query_failed", "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("midway"), "{problem}");
}

#[test]
fn a_query_has_a_time() {
    let server = shared();
    let begun = Instant::now();
    let body = json!({"sql": format!("{ENDLESS} SELECT COUNT(*) n FROM many"), "timeout": "1s"});
    server.post("/api/v1/sql/query", &body).refused(504, "query_timeout");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_no_queries(&server.data());
}

/// The directories of queries are those of processes that still are.
fn assert_no_queries(data: &Path) {
    wait_until("the end of all queries", Duration::from_secs(30), || queries(data) == 0);
}

fn queries(data: &Path) -> usize {
    let runs = std::fs::read_dir(data.join("runs")).into_iter().flatten().flatten();
    runs.filter(|entry| entry.file_name().to_string_lossy().starts_with("query_")).count()
}

/// Processes of the program that work in a directory.
fn processes(data: &Path) -> usize {
    let data = data.to_string_lossy().into_owned();
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("attempt") && line.contains(&data)
    })
    .count()
}

#[test]
fn a_query_ends_when_nobody_waits_for_it() {
    let server = Highwater::start();
    for sql in [
        // Rows that come for ever, and none before the end.
        format!("{ENDLESS} SELECT n FROM many"),
        format!("{ENDLESS} SELECT COUNT(*) n FROM many"),
    ] {
        let body = json!({"sql": sql}).to_string();
        let mut stream = server.connect();
        write!(
            stream,
            "POST /api/v1/sql/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        wait_until("the process of the query", Duration::from_secs(60), || processes(&server.data()) == 1);
        std::thread::sleep(Duration::from_millis(500));
        drop(stream);
        let left = Instant::now();
        wait_until("its end", Duration::from_secs(20), || processes(&server.data()) == 0);
        // It takes 1 s at most on a machine that has time; here others want it, too.
        assert!(left.elapsed() < Duration::from_secs(3), "{sql}: {:?}", left.elapsed());
        assert_no_queries(&server.data());
    }
    server.get("/readyz").expect(200);
}

#[test]
fn queries_have_a_number_and_a_memory() {
    let server = Highwater::configured(&json!({"max-active-queries": 1}));
    let body = json!({"sql": format!("{ENDLESS} SELECT COUNT(*) n FROM many"), "timeout": "20s"}).to_string();
    let mut stream = server.connect();
    write!(
        stream,
        "POST /api/v1/sql/query HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    wait_until("the process of the query", Duration::from_secs(60), || processes(&server.data()) == 1);
    query(&server, "SELECT 1").refused(429, "too_many_requests");
    drop(stream);
    wait_until("its end", Duration::from_secs(20), || processes(&server.data()) == 0);
    // More state than its memory: the query fails, and the server does not.
    let greedy =
        "CREATE TABLE many (n BIGINT, s STRING) WITH ('connector' = 'datagen', 'number-of-rows' = '100000000');
                  SELECT n, COUNT(*) c, MAX(s) s FROM many GROUP BY n";
    let body = json!({"sql": greedy, "memory_bytes": 200 << 20, "timeout": "60s"});
    let deadline = Instant::now() + Duration::from_secs(20);
    let answer = loop {
        let answer = server.post("/api/v1/sql/query", &body).send();
        if answer.status != 429 {
            break answer;
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(50));
    };
    let problem: Value = answer.json();
    assert_eq!((answer.status, &problem["code"]), (422, &json!("query_failed")), "{problem}");
    server.get("/readyz").expect(200);
}
