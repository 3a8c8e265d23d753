//! Scripts, graphs, tables and connections that are wrong or forbidden: refused when they are submitted, with the place, and nothing happens.

use integration_tests::rest::Highwater;
use rstest::rstest;
use serde_json::{Value, json};

use super::{counts, fresh, shared, totals};

fn submit(server: &Highwater, sql: &str) -> integration_tests::rest::Request {
    server.post("/api/v1/jobs", &json!({"name": fresh("script"), "sql": sql}))
}

const TABLES: &str = "CREATE TABLE s (n BIGINT, x STRING, ts TIMESTAMP(3)) WITH ('connector' = 'datagen', 'number-of-rows' = '1');\n\
                      CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole');\n";

#[rstest]
#[case::syntax("INSERT INTO t SELEC n FROM s", "sql_syntax", "")]
#[case::unfinished("INSERT INTO t SELECT n FROM", "sql_syntax", "")]
#[case::unknown_column("INSERT INTO t SELECT nn FROM s", "unknown_column", "n")]
#[case::unknown_table("INSERT INTO t SELECT n FROM ss", "unknown_table", "s")]
#[case::unknown_sink("INSERT INTO tt SELECT n FROM s", "unknown_table", "t")]
#[case::wrong_type("INSERT INTO t SELECT x + ts FROM s", "", "")]
fn what_is_wrong_has_a_line_a_column_and_the_text(#[case] sql: &str, #[case] code: &str, #[case] suggests: &str) {
    let server = shared();
    let problem = submit(&server, &format!("{TABLES}{sql}")).refused(422, "invalid_graph");
    let error = &problem["errors"][0];
    if !code.is_empty() {
        assert_eq!(error["code"], code, "{problem}");
    }
    assert_eq!(error["line"], 3, "{problem}");
    assert!(error["column"].as_u64() >= Some(1), "{problem}");
    assert_eq!(error["excerpt"], sql, "{problem}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    if !suggests.is_empty() {
        assert!(error["hint"].as_str().unwrap_or_default().contains(suggests), "{problem}");
    }
    // Validation says the same, and is no error.
    let answer = server.post("/api/v1/graphs/validate", &json!({"sql": format!("{TABLES}{sql}")})).expect(200).json();
    assert_eq!((&answer["valid"], &answer["errors"]), (&json!(false), &problem["errors"]), "{answer}");
    assert!(answer.get("graph").is_none());
}

#[rstest]
#[case::empty("")]
#[case::comments("-- nothing\n/* at all */")]
#[case::semicolons(";;;")]
#[case::only_tables(TABLES)]
#[case::unbalanced("((((((")]
#[case::nul("SELECT \u{0}")]
#[case::copy("COPY s TO '/etc/passwd'")]
#[case::load("LOAD '/tmp/evil.so'")]
#[case::function("CREATE FUNCTION f AS 'evil' LANGUAGE JAVA")]
#[case::external("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'")]
#[case::drop_table("DROP TABLE jobs")]
#[case::unknown_setting(
    "SET 'parallelsm' = '2'; CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1'); CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT n FROM s"
)]
#[case::unknown_connector(
    "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagn'); CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT n FROM s"
)]
#[case::unknown_option(
    "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-row' = '1'); CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT n FROM s"
)]
#[case::explain(
    "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1'); CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); EXPLAIN INSERT INTO t SELECT n FROM s"
)]
#[case::zero_window(
    "CREATE TABLE s (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'datagen'); CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '0' SECOND)) GROUP BY window_start, window_end"
)]
#[case::no_watermark(
    "CREATE TABLE s (n BIGINT, ts TIMESTAMP(3)) WITH ('connector' = 'datagen'); CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE s, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end"
)]
#[case::order_of_a_stream(
    "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen'); CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT n FROM s ORDER BY n"
)]
fn a_script_that_cannot_run_is_refused(#[case] sql: &str) {
    let server = shared();
    let problem = submit(&server, sql).refused(422, "invalid_graph");
    let error = &problem["errors"][0];
    assert!(!error["code"].as_str().unwrap().is_empty() && !error["message"].as_str().unwrap().is_empty(), "{problem}");
    let answer = server.post("/api/v1/graphs/validate", &json!({"sql": sql})).expect(200).json();
    // What EXPLAIN shows is a valid graph; as a job it would show nothing.
    assert_eq!(answer["valid"], sql.contains("EXPLAIN"), "{answer}");
}

#[rstest]
#[case::sum("n", " + 1", 20_000)]
#[case::condition("n = 1", " OR n = 1", 20_000)]
#[case::parentheses("n", "", 10_000)]
fn a_script_that_is_too_complex_is_refused_and_harms_nobody(
    #[case] first: &str,
    #[case] more: &str,
    #[case] times: usize,
) {
    let server = shared();
    let expression = match more {
        "" => format!("{}{first}{}", "(".repeat(times), ")".repeat(times)),
        more => format!("{first}{}", more.repeat(times)),
    };
    let sql = format!("{TABLES}INSERT INTO t SELECT CAST(1 AS BIGINT) FROM s WHERE ({expression}) IS NOT NULL");
    let problem = submit(&server, &sql).refused(422, "invalid_graph");
    assert_eq!(problem["errors"][0]["code"], "query_too_complex", "{problem}");
    server.get("/readyz").expect(200);
}

#[test]
fn what_nobody_would_see_or_keep_is_refused() {
    let server = shared();
    let print = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
                 CREATE TABLE p (n BIGINT) WITH ('connector' = 'print'); INSERT INTO p SELECT n FROM s";
    let problem = submit(&server, print).refused(422, "invalid_graph");
    assert_eq!(problem["errors"][0]["code"], "print_has_no_reader");
    assert_eq!(problem["errors"][0]["line"], 2);
    assert!(problem["errors"][0]["hint"].as_str().unwrap().contains("view"));

    let forgets = "CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
                   CREATE TABLE hole (n BIGINT) WITH ('connector' = 'blackhole'); INSERT INTO hole SELECT n FROM s";
    let body = json!({"name": fresh("exact"), "sql": forgets, "delivery": "exactly_once"});
    let problem = server.post("/api/v1/jobs", &body).refused(422, "guarantee_not_available");
    assert!(problem["detail"].as_str().unwrap().contains("at_least_once: hole (blackhole)"), "{problem}");
    let kept = json!({"name": fresh("exact"), "sql": totals(&server, &fresh("exact")), "delivery": "exactly_once"});
    server.post("/api/v1/jobs", &kept).expect(201);

    let both = json!({"name": fresh("both"), "sql": "SELECT 1", "graph": {"version": 1, "nodes": []}});
    server.post("/api/v1/jobs", &both).refused(422, "invalid_graph");
    server.post("/api/v1/jobs", &json!({"name": fresh("neither")})).refused(422, "invalid_graph");
}

#[test]
fn locations_outside_are_forbidden_however_they_are_written() {
    let server = shared();
    let files = server.files();
    std::os::unix::fs::symlink("/etc/passwd", files.join("link.csv")).unwrap();
    std::os::unix::fs::symlink("/etc", files.join("linked")).unwrap();
    std::os::unix::fs::symlink(server.data().join("sealing.key"), files.join("key.csv")).unwrap();
    let inside = files.to_str().unwrap().to_string();
    let outside = [
        "/etc/passwd".to_string(),
        "file:///etc/passwd".into(),
        "file:///proc/self/environ".into(),
        "/proc/self/environ".into(),
        "/home/someone/.ssh/id_rsa".into(),
        "/etc/*".into(),
        format!("{inside}/link.csv"),
        format!("{inside}/linked/passwd"),
        format!("{inside}/../data/sealing.key"),
        format!("{inside}/../../../../../../etc/passwd"),
        format!("{inside}/key.csv"),
        format!("{inside}/nothing/../../data/metadata.sqlite"),
    ];
    for path in &outside {
        let reads_and_writes = if path.contains('*') { 1 } else { 2 }; // a pattern is nothing to write to
        let scripts = [
            format!("CREATE TABLE s (l STRING) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv');
                     CREATE TABLE t (l STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT l FROM s"),
            format!("CREATE TABLE s (l STRING) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
                     CREATE TABLE t (l STRING) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv'); INSERT INTO t SELECT l FROM s"),
        ];
        for sql in scripts.iter().take(reads_and_writes) {
            let answer = submit(&server, sql).send();
            let problem = answer.json();
            let refused = (answer.status, problem["code"].as_str().unwrap());
            // Behind what does not exist `..` means nothing, so it is refused as a location.
            let expected =
                if path.contains("nothing/..") { (422, "invalid_graph") } else { (403, "location_not_allowed") };
            assert_eq!(refused, expected, "{path}: {problem}");
            assert!(
                !problem["detail"].as_str().unwrap().contains("directories /"),
                "directories of the machine: {problem}"
            );
            assert!(!answer.text().contains("root:x:"), "{problem}");
        }
    }
    // A table of the catalogue is no way round.
    let table = format!(
        "CREATE TABLE passwords (l STRING) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'csv')",
        outside[0]
    );
    server.post("/api/v1/tables", &json!({"sql": table})).refused(403, "location_not_allowed");
    let missing = format!("CREATE TABLE s (l STRING) WITH ('connector' = 'filesystem', 'path' = '{inside}/missing.csv', 'format' = 'csv');
                           CREATE TABLE t (l STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT l FROM s");
    // What is not there yet may be when the run begins; if it is not, the run says so.
    let run = server.wait_for_end(&submit(&server, &missing).expect(201).json()["run"]);
    assert_eq!((&run["state"], &run["failure"]["code"]), (&json!("failed"), &json!("input_not_found")), "{run}");
}

#[test]
fn a_link_that_turns_outside_after_the_check_is_forbidden_to_the_run() {
    let server = shared();
    let name = fresh("turned");
    let path = server.file(&format!("{name}.csv"), "a\n1\n");
    let sql = format!(
        "CREATE TABLE s (a STRING) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv');
                       CREATE TABLE t (a STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT a FROM s"
    );
    server.post("/api/v1/jobs", &json!({"name": name, "sql": sql, "start": false})).expect(201);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    let run = server.post(&format!("/api/v1/jobs/{name}/runs"), &json!({})).expect(202).json();
    let run = server.wait_for_end(&run);
    assert_eq!((&run["state"], &run["failure"]["code"]), (&json!("failed"), &json!("location_not_allowed")), "{run}");
}

#[test]
fn endpoints_outside_are_forbidden_however_they_are_written() {
    let server = shared();
    for host in
        ["169.254.169.254", "[::ffff:169.254.169.254]", "10.0.0.1", "2852039166", "0xa9fea9fe", "[fd00:ec2::254]"]
    {
        let connection = fresh("s3");
        let body = json!({"name": connection, "kind": "s3",
            "options": {"s3.endpoint": format!("http://{host}/"), "s3.region": "us-east-1"},
            "secrets": {"s3.access-key": "a", "s3.secret-key": "b"}});
        server.post("/api/v1/connections", &body).expect(201);
        let s3 = format!(
            "CREATE TABLE s (l STRING) WITH ('connector' = 'filesystem', 'connection' = '{connection}', 'path' = 's3://bucket/x.csv', 'format' = 'csv');
             CREATE TABLE t (l STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT l FROM s"
        );
        let answer = submit(&server, &s3).send();
        assert_eq!(
            (answer.status, answer.json()["code"].clone()),
            (403, json!("endpoint_not_allowed")),
            "{host}: {}",
            answer.text()
        );
    }
    for host in ["169.254.169.254", "10.0.0.1", "2852039166", "[::ffff:169.254.169.254]"] {
        let kafka = format!(
            "CREATE TABLE s (l STRING) WITH ('connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'PLAINTEXT://{host}:9092', 'format' = 'json');
             CREATE TABLE t (l STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT l FROM s"
        );
        let answer = submit(&server, &kafka).expect(403);
        assert_eq!(answer.json()["code"], "endpoint_not_allowed", "{host}: {}", answer.text());
    }
}

#[test]
fn secrets_do_not_stand_in_jobs() {
    let server = shared();
    for (options, secret) in [
        (
            "'connector' = 'filesystem', 'path' = 's3://b/x.csv', 'format' = 'csv', 's3.access-key' = 'AKIA1', 's3.secret-key' = 'canary-inline'",
            "canary-inline",
        ),
        (
            "'connector' = 'kafka', 'topic' = 't', 'properties.bootstrap.servers' = 'localhost:9', 'format' = 'json', 'properties.sasl.password' = 'canary-inline'",
            "canary-inline",
        ),
    ] {
        let sql = format!(
            "CREATE TABLE s (l STRING) WITH ({options}); CREATE TABLE t (l STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT l FROM s"
        );
        let answer = submit(&server, &sql).expect(422);
        assert_eq!(answer.json()["code"], "inline_secret", "{}", answer.text());
        assert!(!answer.text().contains(secret), "{}", answer.text());
        let validated = server.post("/api/v1/graphs/validate", &json!({"sql": sql})).expect(200);
        assert!(!validated.text().contains(secret), "{}", validated.text());
    }
    let connection =
        json!({"name": fresh("inline"), "kind": "kafka", "options": {"properties.sasl.password": "canary-inline"}});
    let answer = server.post("/api/v1/connections", &connection).expect(422);
    assert_eq!(answer.json()["code"], "inline_secret");
    assert!(!answer.text().contains("canary-inline"));
    // Names of what does not exist.
    let sql = "CREATE TABLE s (l STRING) WITH ('connector' = 'kafka', 'connection' = 'nobody', 'topic' = 't', 'format' = 'json');
               CREATE TABLE t (l STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT l FROM s";
    let problem = submit(&server, sql).refused(422, "invalid_graph");
    assert_eq!(problem["errors"][0]["code"], "connection_not_found", "{problem}");
    let table = "CREATE TABLE s (l STRING) WITH ('connector' = 'kafka', 'connection' = 'nobody', 'topic' = 't', 'format' = 'json')";
    let problem = server.post("/api/v1/tables", &json!({"sql": table})).refused(422, "invalid_graph");
    assert_eq!(problem["errors"][0]["code"], "connection_not_found", "{problem}");
}

#[rstest]
#[case::no_graph(json!("graph"))]
#[case::unknown_version(json!({"version": 99, "nodes": []}))]
#[case::empty(json!({"version": 1, "nodes": []}))]
#[case::cycle(json!({"version": 1, "nodes": [
    {"id": "a", "type": "filter", "input": "b", "predicate": "true"}, {"id": "b", "type": "filter", "input": "a", "predicate": "true"}]}))]
#[case::dangling(json!({"version": 1, "nodes": [{"id": "t", "type": "sink", "table": "t", "connector": {"type": "blackhole"}, "input": "nobody"}]}))]
#[case::unknown_operator(json!({"version": 1, "nodes": [{"id": "a", "type": "teleport"}]}))]
#[case::duplicate_id(json!({"version": 1, "nodes": [
    {"id": "a", "type": "source", "table": "a", "connector": {"type": "datagen", "number-of-rows": 1}, "columns": [{"name": "n", "type": "BIGINT"}]},
    {"id": "a", "type": "source", "table": "b", "connector": {"type": "datagen", "number-of-rows": 1}, "columns": [{"name": "n", "type": "BIGINT"}]}]}))]
fn a_graph_that_is_wrong_is_told_by_pointers(#[case] graph: Value) {
    let server = shared();
    let body = json!({"name": fresh("graph"), "graph": graph});
    let answer = server.post("/api/v1/jobs", &body).expect(422).json();
    let errors = answer["errors"].as_array().unwrap();
    assert!(!errors.is_empty(), "{answer}");
    assert!(
        errors.iter().any(|error| error["pointer"].as_str().is_some_and(|at| at.starts_with("/graph"))),
        "{answer}"
    );
    if graph.is_object() {
        let validated = server.post("/api/v1/graphs/validate", &json!({"graph": graph})).expect(200).json();
        assert_eq!(validated["valid"], false);
    }
}

#[test]
fn a_large_graph_is_refused() {
    let server = shared();
    let node = |number: usize| json!({"id": format!("n{number}"), "type": "filter", "input": format!("n{}", number + 1), "predicate": "true"});
    let nodes: Vec<Value> = (0..30_000).map(node).collect();
    let problem =
        server.post("/api/v1/graphs/validate", &json!({"graph": {"version": 1, "nodes": nodes}})).expect(200).json();
    assert_eq!(problem["valid"], false);
    assert_eq!(problem["errors"][0]["code"], "graph_too_large", "{}", problem["errors"][0]);
}

#[test]
fn a_valid_script_is_explained() {
    let server = shared();
    let answer = server.post("/api/v1/graphs/validate", &json!({"sql": counts("explained")})).expect(200).json();
    assert_eq!(
        (&answer["valid"], &answer["bounded"], &answer["errors"]),
        (&json!(true), &json!(false), &json!([])),
        "{answer}"
    );
    let nodes = answer["nodes"].as_array().unwrap();
    assert!(nodes.iter().any(|node| node["changelog"] != "insert_only"), "{answer}");
    assert!(nodes.iter().any(|node| node["time_attribute"] == "ts"), "{answer}");
    // The graph that it shows is one that can be submitted.
    let body = json!({"name": fresh("explained"), "graph": answer["graph"], "start": false});
    server.post("/api/v1/jobs", &body).expect(201);
}

#[test]
fn names_and_tables_are_kept_apart() {
    let server = shared();
    let name = fresh("catalogued");
    let sql = format!(
        "CREATE TABLE {name} (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3', 'fields.n.kind' = 'sequence')"
    );
    let created = server.post("/api/v1/tables", &json!({"sql": sql})).expect(201).json();
    assert_eq!((&created["name"], &created["connector"]), (&json!(name), &json!("datagen")));
    server.post("/api/v1/tables", &json!({"sql": sql})).refused(409, "name_taken");
    for wrong in [
        "",
        "SELECT 1",
        "CREATE TABLE a (n BIGINT) WITH ('connector' = 'blackhole'); CREATE TABLE b (n BIGINT) WITH ('connector' = 'blackhole')",
        "CREATE VIEW v AS SELECT 1",
    ] {
        let answer = server.post("/api/v1/tables", &json!({"sql": wrong})).expect(422).json();
        assert!(["invalid_graph", "validation_failed"].contains(&answer["code"].as_str().unwrap()), "{answer}");
    }
    // Every script knows it.
    let answer =
        server.post("/api/v1/sql/query", &json!({"sql": format!("SELECT SUM(n) n FROM {name}")})).expect(200).json();
    assert_eq!(answer["rows"], json!([{"n": 3}]));
    let long = format!("CREATE TABLE `{}` (n BIGINT) WITH ('connector' = 'blackhole')", "x".repeat(129));
    let problem = server.post("/api/v1/tables", &json!({"sql": long})).refused(422, "invalid_graph");
    assert_eq!(problem["errors"][0]["code"], "invalid_name", "{problem}");
    let secrets = json!({"x".repeat(129): "s"});
    let connection = json!({"name": fresh("long"), "kind": "kafka", "options": {}, "secrets": secrets});
    server.post("/api/v1/connections", &connection).refused(422, "validation_failed");
    server.delete(&format!("/api/v1/tables/{name}")).refused(428, "precondition_required");
    server.delete(&format!("/api/v1/tables/{name}")).header("if-match", "*").expect(204);
    server.post("/api/v1/sql/query", &json!({"sql": format!("SELECT n FROM {name}")})).refused(422, "invalid_graph");
}
