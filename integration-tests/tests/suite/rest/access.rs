//! Who may do what, and who did: keys and roles, the audit log, secrets, limits of rate, where a server may listen.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use integration_tests::program;
use integration_tests::rest::{Document, Highwater};
use reqwest::Method;
use serde_json::{Value, json};
use test_support::kafka::{self, PLAIN_LOGIN};
use test_support::postgres::Postgres;
use test_support::registry::SchemaRegistry;

use super::{counts, fresh, totals};
use crate::s3;

/// What each operation needs. One that is not in here fails the test: whoever adds an operation decides it.
const NEEDS: &[(&str, &[&str])] = &[
    ("nothing", &["docs", "livez", "openapi", "problem_page", "readyz"]),
    (
        "viewer",
        &[
            "get_connection",
            "get_job",
            "get_operation",
            "get_run",
            "get_run_dead_letters",
            "get_run_errors",
            "get_run_checkpoints",
            "get_run_events",
            "get_run_graph",
            "get_run_late_rows",
            "get_run_logs",
            "get_run_metrics",
            "get_run_watermarks",
            "get_savepoint",
            "get_table",
            "get_view",
            "get_view_rows",
            "list_connections",
            "list_connectors",
            "list_jobs",
            "list_runs",
            "list_savepoints",
            "list_tables",
            "list_views",
            "metrics",
            "validate_graph",
            "version",
            "whoami",
        ],
    ),
    (
        "operator",
        &[
            "apply_job",
            "check_checkpoints",
            "check_savepoint",
            "create_job",
            "create_savepoint",
            "create_table",
            "delete_job",
            "delete_savepoint",
            "delete_table",
            "patch_job",
            "query_sql",
            "start_run",
            "test_connection",
            "stop_run",
        ],
    ),
    (
        "admin",
        &[
            "create_connection",
            "create_key",
            "delete_connection",
            "list_audit",
            "list_keys",
            "replace_connection",
            "revoke_key",
        ],
    ),
];

fn create_key(server: &Highwater, role: &str) -> Value {
    server.post("/api/v1/keys", &json!({"name": fresh(role), "role": role})).expect(201).json()
}

/// A server with keys: it, and a key for each role.
fn guarded() -> (Highwater, BTreeMap<&'static str, String>) {
    let mut server = Highwater::start();
    let admin = create_key(&server, "admin")["secret"].as_str().unwrap().to_string();
    server.use_key(Some(&admin));
    let mut keys = BTreeMap::from([("admin", admin)]);
    for role in ["viewer", "operator"] {
        keys.insert(role, create_key(&server, role)["secret"].as_str().unwrap().to_string());
    }
    (server, keys)
}

#[test]
fn each_operation_needs_its_role() {
    let (server, keys) = guarded();
    let document = Document::served();
    let ranks = ["nothing", "viewer", "operator", "admin"];
    let rank = |role: &str| ranks.iter().position(|known| *known == role).unwrap();
    let mut seen = 0;
    for (template, item) in document.json["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let needed = NEEDS.iter().find(|(_, ids)| ids.contains(&id));
            let (needed, _) = needed.unwrap_or_else(|| panic!("say in NEEDS which role {id} needs"));
            // Things that are not there: who may ask learns that, and who may not learns nothing.
            let path = template
                .replace("{run}", "run_0193456789ab7def8123456789abcdef")
                .replace("{operation}", "op_0193456789ab7def8123456789abcdef")
                .replace("{savepoint}", "svp_0193456789ab7def8123456789abcdef")
                .replace("{key}", "key_0193456789ab7def8123456789abcdef")
                .replace("{code}", "internal");
            let path = path
                .split('/')
                .map(|part| if part.starts_with('{') { "none" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            for role in ranks {
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let ask = || {
                    let mut request = server.request(method.clone(), &path);
                    if operation["requestBody"].is_object() {
                        request = request.json(&json!({"nonsense": true}));
                    }
                    request = match keys.get(role) {
                        Some(key) => request.key(key),
                        None => request.header("authorization", "Basic eDp5"),
                    };
                    request.send()
                };
                let mut answer = ask();
                while answer.status == 429 {
                    // Whoever is nobody may try so often only.
                    assert_eq!(role, "nothing");
                    std::thread::sleep(Duration::from_secs(1));
                    answer = ask();
                }
                let refused = if role == "nothing" { 401 } else { 403 };
                let may = rank(role) >= rank(needed);
                assert_eq!(answer.status != refused, may, "{role} {id}: {} {}", answer.status, answer.text());
            }
            seen += 1;
        }
    }
    assert_eq!(seen, NEEDS.iter().map(|(_, ids)| ids.len()).sum::<usize>(), "NEEDS names operations that are gone");
}

#[test]
fn a_key_counts_until_it_is_revoked_or_expires() {
    let (server, keys) = guarded();
    let who = |key: &str| server.get("/api/v1/whoami").key(key);
    assert_eq!(who(&keys["viewer"]).expect(200).json()["role"], "viewer");
    let bare = server.get("/api/v1/jobs").header("authorization", "").send();
    assert_eq!((bare.status, bare.header("www-authenticate")), (401, Some("Bearer")));
    for wrong in ["hw_", "hw_x", &keys["viewer"].to_uppercase(), &format!("{}x", keys["viewer"]), "' OR 1=1 --"] {
        who(wrong).refused(401, "unauthenticated");
    }
    let listed = server.get("/api/v1/keys").expect(200);
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 3);
    assert!(keys.values().all(|key| !listed.text().contains(key.as_str())));
    let viewer = listed.json()["items"].as_array().unwrap().iter().find(|key| key["role"] == "viewer").unwrap().clone();
    let path = format!("/api/v1/keys/{}", viewer["id"].as_str().unwrap());
    assert!(server.delete(&path).expect(200).json()["revoked_at"].is_string());
    who(&keys["viewer"]).refused(401, "unauthenticated");
    server.delete("/api/v1/keys/key_0193456789ab7def8123456789abcdef").refused(404, "key_not_found");

    let soon = json!({"name": "short", "role": "viewer", "expires_at": in_two_seconds()});
    let short = server.post("/api/v1/keys", &soon).expect(201).json();
    let secret = short["secret"].as_str().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while who(secret).send().status != 401 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(200));
    }
    for wrong in [
        json!({"name": "", "role": "viewer"}),
        json!({"name": "n", "role": "root"}),
        json!({"name": "n", "role": "viewer", "expires_at": "tomorrow"}),
    ] {
        server.post("/api/v1/keys", &wrong).refused(422, "validation_failed");
    }
}

#[test]
fn the_last_admin_key_stays_until_there_is_another() {
    let (server, keys) = guarded();
    let id = |key: &str| server.get("/api/v1/whoami").key(key).expect(200).json()["principal"].clone();
    let path = |id: &Value| format!("/api/v1/keys/{}", id.as_str().unwrap());
    let last = path(&id(&keys["admin"]));
    let problem = server.delete(&last).refused(409, "last_admin_key");
    let hint = problem["hint"].as_str().unwrap();
    assert!(hint.contains("create another admin key first") && hint.contains("--data DIR"), "{problem}");
    let other = create_key(&server, "admin");
    // Of two that revoke each other at once, one stays.
    let other_secret = other["secret"].as_str().unwrap();
    let statuses = std::thread::scope(|scope| {
        let one = scope.spawn(|| server.delete(&last).key(other_secret).send().status);
        let two = scope.spawn(|| server.delete(&path(&other["id"])).key(&keys["admin"]).send().status);
        let mut statuses = [one.join().unwrap(), two.join().unwrap()];
        statuses.sort_unstable();
        statuses
    });
    // Who is revoked first may not even be let in.
    assert!(statuses[0] == 200 && [401, 409].contains(&statuses[1]), "{statuses:?}");
    let still = [&keys["admin"], other_secret]
        .iter()
        .filter(|key| server.get("/api/v1/keys").key(key).send().status == 200)
        .count();
    assert_eq!(still, 1);
}

#[test]
fn pages_about_the_api_need_no_key_and_others_say_how_it_is_sent() {
    let (mut server, _) = guarded();
    server.use_key(None);
    for path in ["/docs", "/docs/problems/unauthenticated", "/openapi.json"] {
        server.get(path).expect(200);
    }
    server.get("/docs/problems/none").refused(404, "not_found");
    for path in ["/version", "/metrics", "/docs/", "/docsx", "/api/v1/jobs"] {
        let hint = server.get(path).refused(401, "unauthenticated")["hint"].clone();
        assert!(hint.as_str().unwrap().contains("`Authorization: Bearer KEY`"), "{path}: {hint}");
    }
}

fn in_two_seconds() -> String {
    let at = Command::new("date").args(["-u", "-d", "+2 seconds", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(at.stdout).unwrap().trim().to_string()
}

fn log(server: &Highwater) -> Vec<Value> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/api/v1/audit?page_size=50{token}")).expect(200).json();
        all.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return all,
        }
    }
}

#[test]
fn every_change_and_every_denial_is_recorded_once() {
    let (server, keys) = guarded();
    let operator = &keys["operator"];
    let principal = server.get("/api/v1/whoami").key(operator).expect(200).json()["principal"].clone();
    let before = log(&server).len();
    let mut expected: Vec<(String, &str)> = Vec::new();
    let mut did = |action: &str, outcome: &'static str| expected.push((action.to_string(), outcome));
    let mark = |request: integration_tests::rest::Request| request.key(operator).header("x-request-id", "marked");

    let body = json!({"name": "a", "sql": totals(&server, "audited"), "start": false});
    mark(server.post("/api/v1/jobs", &body)).header("idempotency-key", "k").expect(201);
    did("job.create", "done");
    mark(server.post("/api/v1/jobs", &body)).header("idempotency-key", "k").expect(201); // replayed: no change
    mark(server.post("/api/v1/jobs", &body)).refused(409, "name_taken");
    mark(server.put("/api/v1/jobs/a?dry_run=true", &json!({"sql": totals(&server, "audited"), "parallelism": 2})))
        .expect(200);
    mark(server.put("/api/v1/jobs/a", &json!({"sql": totals(&server, "audited"), "parallelism": 2}))).expect(200);
    did("job.apply", "done");
    mark(server.put("/api/v1/jobs/a", &json!({"sql": totals(&server, "audited"), "parallelism": 2}))).expect(200); // nothing differs
    mark(server.patch("/api/v1/jobs/a", &json!({"labels": {"x": "y"}}))).header("if-match", "*").expect(200);
    did("job.patch", "done");
    let run = mark(server.post("/api/v1/jobs/a/runs", &json!({}))).expect(202).json();
    did("run.start", "done");
    server.wait_for_end(&run);
    let (_, streaming) = {
        let created = mark(server.post("/api/v1/jobs", &json!({"name": "b", "sql": counts("audited_counts")})))
            .expect(201)
            .json();
        (created["job"].clone(), created["run"].clone())
    };
    did("job.create", "done");
    server.wait_until_running(&streaming);
    mark(server.post(&format!("/api/v1/runs/{}/stop", streaming["id"].as_str().unwrap()), &json!({"mode": "now"})))
        .expect(202);
    did("run.stop", "done");
    server.wait_for_end(&streaming);
    mark(server.post("/api/v1/sql/query", &json!({"sql": "SELECT total FROM audited"}))).expect(200);
    did("sql.query", "done");
    mark(server.delete("/api/v1/jobs/b")).header("if-match", "*").expect(204);
    did("job.delete", "done");
    mark(server.get("/api/v1/keys")).refused(403, "forbidden");
    did("GET /api/v1/keys", "denied");
    mark(server.post("/api/v1/connections", &json!({}))).refused(403, "forbidden");
    did("POST /api/v1/connections", "denied");

    let entries: Vec<Value> =
        log(&server).into_iter().skip(before).filter(|entry| entry["request_id"] == "marked").collect();
    let found: Vec<(String, &str)> = entries
        .iter()
        .map(|entry| {
            (entry["action"].as_str().unwrap().to_string(), if entry["outcome"] == "done" { "done" } else { "denied" })
        })
        .collect();
    assert_eq!(found, expected);
    assert!(entries.iter().all(|entry| entry["principal"] == principal));
    let all = log(&server);
    let sequences: Vec<i64> = all.iter().map(|entry| entry["sequence"].as_i64().unwrap()).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
    let mut hashes: Vec<&str> = all.iter().map(|entry| entry["hash"].as_str().unwrap()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), all.len());
}

#[test]
fn a_secret_is_nowhere_but_sealed() {
    const SECRET: &str = "canary-5f0c9a-secret";
    let server = Highwater::start();
    let connection = json!({
        "name": "broker", "kind": "kafka",
        "options": {"properties.bootstrap.servers": "127.0.0.1:9", "properties.security.protocol": "SASL_PLAINTEXT",
            "properties.sasl.mechanism": "PLAIN", "properties.sasl.username": "user"},
        "secrets": {"properties.sasl.password": SECRET},
    });
    let mut answers = Vec::new();
    let mut keep = |answer: integration_tests::rest::Answer| {
        let headers = format!("{:?}", answer.headers);
        answers.push(format!("{headers}{}", answer.text()));
        answer
    };
    let created = keep(server.post("/api/v1/connections", &connection).header("idempotency-key", "c").expect(201));
    assert_eq!(created.json()["secrets"], json!(["properties.sasl.password"]));
    keep(server.post("/api/v1/connections", &connection).header("idempotency-key", "c").expect(201));
    keep(server.post("/api/v1/connections", &connection).expect(409));
    keep(server.get("/api/v1/connections").expect(200));
    let test = keep(server.post("/api/v1/connections/broker/test", &json!({})).send());
    assert!(test.status == 200 && test.json()["ok"] == false, "{}", test.text());
    let replaced = json!({"kind": "kafka", "options": connection["options"], "secrets": connection["secrets"]});
    keep(server.put("/api/v1/connections/broker", &replaced).header("if-match", "*").expect(200));
    // A run that is given it, and fails for want of a broker.
    let sql = "CREATE TABLE s (l STRING) WITH ('connector' = 'kafka', 'connection' = 'broker', 'topic' = 't', 'format' = 'json');
               CREATE TABLE t (l STRING) WITH ('connector' = 'blackhole'); INSERT INTO t SELECT l FROM s";
    let job = keep(server.post("/api/v1/jobs", &json!({"name": "uses-it", "sql": sql})).expect(201));
    let run = server.wait_for_run(&job.json()["run"], "a broker is waited for", |run| run["waiting_for"].is_string());
    for part in PARTS_OF_RUN {
        keep(server.get(&format!("/api/v1/runs/{}{part}", run["id"].as_str().unwrap())).expect(200));
    }
    assert_not_told(server.process_of(&run), &[SECRET]);
    server.delete("/api/v1/connections/broker").header("if-match", "*").refused(409, "in_use");
    keep(server.post(&format!("/api/v1/runs/{}/stop", run["id"].as_str().unwrap()), &json!({"mode": "now"})).send());
    server.wait_for_end(&run);
    for path in ["/api/v1/connections/broker", "/api/v1/jobs/uses-it", "/api/v1/audit", "/metrics", "/api/v1/runs"] {
        keep(server.get(path).send());
    }
    for answer in &answers {
        assert!(!answer.contains(SECRET), "{answer}");
    }
    assert!(!server.log().contains(SECRET));
    let mut files = 0;
    search(&server.data(), SECRET.as_bytes(), &mut files);
    assert!(files > 3, "{files} files were looked at");
}

const PARTS_OF_RUN: [&str; 7] = ["", "/logs?lines=5000", "/errors", "/graph", "/watermarks", "/events", "/metrics"];

/// What others can see of a process of ours.
fn assert_not_told(pid: u32, secrets: &[&str]) {
    for file in ["environ", "cmdline"] {
        let text = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.is_empty(), "{file} of {pid}");
        for secret in secrets {
            assert!(!text.contains(secret), "{file} of the process holds {secret}");
        }
    }
}

/// Logged in with, and not only stored: a broker, a registry, an object store, the metadata store.
#[test]
fn what_was_logged_in_with_is_nowhere_but_sealed() {
    let (user, broker) = PLAIN_LOGIN;
    let registry = SchemaRegistry::start_closed("Basic dXNlcjpjYW5hcnktcmVnaXN0cnktNmUwMQ==");
    let database = Postgres::shared();
    let server = Highwater::configured(&json!({"database": database.database()}));
    let topic = kafka::shared().topic("sealed", 1);
    let connections = [
        json!({
            "name": "broker", "kind": "kafka",
            "options": {"properties.bootstrap.servers": kafka::shared().sasl_servers(),
                "properties.security.protocol": "SASL_PLAINTEXT", "properties.sasl.mechanism": "PLAIN",
                "properties.sasl.username": user, "avro-confluent.url": registry.url()},
            "secrets": {"properties.sasl.password": broker,
                "avro-confluent.basic-auth.user-info": "user:canary-registry-6e01"},
        }),
        json!({
            "name": "store", "kind": "s3", "options": {"s3.endpoint": s3::endpoint(), "s3.region": "us-east-1"},
            "secrets": {"s3.access-key": "canary-s3-access-93b2", "s3.secret-key": "canary-s3-secret-3c7d"},
        }),
    ];
    let secrets = [
        broker,
        "canary-registry-6e01",
        "dXNlcjpjYW5hcnktcmVnaXN0cnktNmUwMQ==",
        "canary-s3-access-93b2",
        "canary-s3-secret-3c7d",
        database.password(),
    ];
    let mut answers = Vec::new();
    let mut keep = |answer: integration_tests::rest::Answer| {
        answers.push(format!("{:?}{}", answer.headers, answer.text()));
        answer
    };
    for connection in &connections {
        keep(server.post("/api/v1/connections", connection).expect(201));
        let name = connection["name"].as_str().unwrap();
        let test = keep(server.post(&format!("/api/v1/connections/{name}/test"), &json!({})).expect(200));
        assert_eq!(test.json()["ok"], true, "{}", test.text());
    }
    s3::bucket("sealed");
    let avro =
        format!("'connector' = 'kafka', 'connection' = 'broker', 'topic' = '{topic}', 'format' = 'avro-confluent'");
    let into = format!(
        "CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '100');
         CREATE TABLE t (n BIGINT) WITH ({avro}); INSERT INTO t SELECT n FROM numbers"
    );
    let out = format!(
        "CREATE TABLE t (n BIGINT) WITH ({avro});
         CREATE TABLE o (n BIGINT) WITH ('connector' = 'filesystem', 'connection' = 'store', 'path' = 's3://sealed/out', 'format' = 'json');
         INSERT INTO o SELECT n FROM t"
    );
    let begin = |name: &str, sql: &str| server.post("/api/v1/jobs", &json!({"name": name, "sql": sql})).expect(201);
    let written = keep(begin("into", &into)).json()["run"].clone();
    let ended = server.wait_for_end(&written);
    assert_eq!((&ended["state"], &ended["progress"]["rows_out"]), (&json!("finished"), &json!(100)), "{ended}");
    let read = keep(begin("out", &out)).json()["run"].clone();
    server.wait_for_run(&read, "all is read", |run| run["progress"]["rows_in"] == 100);
    assert_not_told(server.process_of(&read), &secrets);
    assert_not_told(server.pid(), &secrets);
    keep(server.post(&format!("/api/v1/runs/{}/stop", read["id"].as_str().unwrap()), &json!({"mode": "drain"})).send());
    assert_eq!(server.wait_for_end(&read)["state"], "finished");
    assert!(!s3::keys("sealed").is_empty(), "nothing was written");
    assert!(
        registry.requests().iter().any(|request| request.starts_with("GET /schemas/ids/")),
        "{:?}",
        registry.requests()
    );

    for run in [&written, &read] {
        for part in PARTS_OF_RUN {
            keep(server.get(&format!("/api/v1/runs/{}{part}", run["id"].as_str().unwrap())).expect(200));
        }
    }
    for path in ["/api/v1/connections", "/api/v1/jobs/into", "/api/v1/jobs/out", "/api/v1/audit", "/metrics", "/readyz"]
    {
        keep(server.get(path).expect(200));
    }
    let log = server.log();
    for secret in secrets {
        assert!(!answers.iter().any(|answer| answer.contains(secret)), "{secret} is in an answer");
        assert!(!log.contains(secret), "{secret} is in the log");
        let mut files = 0;
        search(&server.data(), secret.as_bytes(), &mut files);
        assert!(files > 3, "{files} files were looked at");
    }
}

fn search(folder: &Path, secret: &[u8], files: &mut usize) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            search(&path, secret, files);
        } else if let Ok(bytes) = std::fs::read(&path) {
            *files += 1;
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
}

#[test]
fn a_caller_has_a_rate_and_others_do_not_feel_it() {
    let mut server = Highwater::configured(&json!({"requests-per-second": 20}));
    let greedy = create_key(&server, "admin")["secret"].as_str().unwrap().to_string();
    let modest =
        server.post("/api/v1/keys", &json!({"name": "modest", "role": "viewer"})).key(&greedy).expect(201).json();
    server.use_key(None);
    let ask = |key: &str| server.get("/api/v1/whoami").key(key).send();
    let refused = (0..200).map(|_| ask(&greedy)).find(|answer| answer.status == 429);
    let refused = refused.expect("200 requests at once are too many");
    assert_eq!(refused.json()["code"], "too_many_requests");
    let wait: f64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1.0..=2.0).contains(&wait));
    assert_eq!(ask(modest["secret"].as_str().unwrap()).status, 200);
    std::thread::sleep(Duration::from_secs_f64(wait));
    assert_eq!(ask(&greedy).status, 200);
    // Guessing is slowed down, too.
    let guess = |number: usize| server.get("/api/v1/whoami").key(&format!("hw_{number}")).send().status;
    assert!((0..200).any(|number| guess(number) == 429));
    server.get("/livez").expect(200);
}

#[test]
fn a_server_that_others_can_reach_needs_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(program::path());
    command.args(["serve", "--listen", "0.0.0.0:0", "--data"]).arg(folder.path().join("data")).stdin(Stdio::null());
    let finished = program::finish(&mut command, Duration::from_secs(60));
    assert_eq!(finished.code, Some(2), "{}", finished.report());
    assert!(finished.stderr.contains("API key") && finished.stderr.contains("keys create"), "{}", finished.report());
    let help = format!("--role admin --data {}", folder.path().join("data").display());
    assert!(finished.stderr.contains(&help), "{}", finished.report());
    assert!(finished.stdout.is_empty(), "it never listened");
}

#[test]
fn a_configuration_that_is_wrong_is_told_before_anything_is_listened_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    for (text, says) in [
        ("{\"query-timeot\": \"5s\"}", "unknown field `query-timeot`"),
        ("{\"query-timeout\": 5}", "integer `5`, expected a string at line 1 column 19"),
        ("{", "EOF while parsing an object at line 1"),
    ] {
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program::path());
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
            .arg("--data")
            .arg(folder.path().join("data"));
        let finished = program::finish(&mut command, Duration::from_secs(60));
        assert_eq!(finished.code, Some(2), "{}", finished.report());
        assert!(finished.stderr.contains(&format!("{}: ", file.display())), "{}", finished.report());
        assert!(finished.stderr.contains(says), "{}", finished.report());
    }
    let mut command = Command::new(program::path());
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--allow-root", "/nothing/here", "--data"])
        .arg(folder.path().join("data"));
    let finished = program::finish(&mut command, Duration::from_secs(60));
    assert!(finished.code == Some(2) && finished.stderr.contains("/nothing/here"), "{}", finished.report());
}
