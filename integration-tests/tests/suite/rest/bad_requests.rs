//! Requests that are wrong as HTTP or as JSON. None of them may harm the server, and each gets a problem that says what is wrong.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use integration_tests::rest::{Answer, Highwater, read_answer};
use rstest::rstest;
use serde_json::{Value, json};

use super::{fresh, shared};

fn alive(server: &Highwater) {
    server.get("/readyz").expect(200);
}

fn job(text: &str) -> Vec<u8> {
    // A name that nobody has, in case the body is accepted after all.
    text.replace("NAME", &fresh("bad")).into_bytes()
}

#[rstest]
#[case::empty(b"".to_vec(), "malformed_json", "empty")]
#[case::blank(b" \n ".to_vec(), "malformed_json", "empty")]
#[case::truncated(job("{\"name\": \"NAME\",\n \"sql\": \"SEL"), "malformed_json", "line 2, column")]
#[case::unclosed(job("{\"name\": \"NAME\""), "malformed_json", "line 1, column")]
#[case::not_utf8(b"{\"name\": \"\xff\xfe\"}".to_vec(), "malformed_json", "byte 10")]
#[case::overlong_utf8(b"{\"name\": \"\xc0\xaf\"}".to_vec(), "malformed_json", "UTF-8")]
#[case::byte_order_mark(b"\xef\xbb\xbf{}".to_vec(), "malformed_json", "byte order mark")]
#[case::utf16(b"\xff\xfe{\0}\0".to_vec(), "malformed_json", "UTF-8")]
#[case::two_documents(b"{} {}".to_vec(), "malformed_json", "line 1, column 4")]
#[case::comment(b"{/* */}".to_vec(), "malformed_json", "line 1")]
#[case::not_a_number(b"{\"parallelism\": NaN}".to_vec(), "malformed_json", "line 1")]
#[case::too_large_a_number(b"{\"parallelism\": 1e999}".to_vec(), "malformed_json", "number out of range")]
#[case::lone_surrogate(b"{\"name\": \"\\ud800\"}".to_vec(), "malformed_json", "line 1")]
#[case::duplicate_key(job("{\"name\": \"a\", \"name\": \"NAME\"}"), "duplicate_key", "/name")]
#[case::duplicate_key_below(
    job("{\"name\": \"NAME\", \"labels\": {\"a/b\": \"1\", \"a/b\": \"2\"}}"),
    "duplicate_key",
    "/labels/a~1b"
)]
#[case::deep_arrays("[".repeat(10_000).into_bytes(), "too_deep", "64")]
#[case::deep_objects("{\"a\":".repeat(10_000).into_bytes(), "too_deep", "64")]
fn a_body_that_cannot_be_read_is_told_where(#[case] body: Vec<u8>, #[case] code: &str, #[case] says: &str) {
    let server = shared();
    let request = server.request(reqwest::Method::POST, "/api/v1/jobs").header("content-type", "application/json");
    let problem = request.body(body).refused(400, code);
    assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    alive(&server);
}

#[test]
fn a_body_that_is_needed_is_asked_for() {
    let server = shared();
    let post = |path: &str| server.request(reqwest::Method::POST, path);
    for (path, needed) in [("/api/v1/jobs", "CreateJob"), ("/api/v1/graphs/validate", "ValidateGraph")] {
        let problem = post(path).refused(400, "malformed_json");
        assert_eq!(problem["detail"], format!("the request has no body; it needs a {needed} as JSON"));
        assert!(problem["hint"].as_str().unwrap().contains("content-type: application/json"), "{problem}");
    }
    // What takes none does not miss it.
    post("/api/v1/connections/none/test").refused(404, "connection_not_found");
    let problem = server.post("/api/v1/jobs", &json!([])).refused(422, "validation_failed");
    assert_eq!(problem["detail"], "the body: [] is not of type object");
}

#[rstest]
#[case::unknown_field(json!({"name": "n", "sql": "SELECT 1", "paralelism": 2}), "/paralelism", "unknown_field", "did you mean parallelism?")]
#[case::unknown_field_below(json!({"name": "n", "sql": "SELECT 1", "limits": {"memory_byte": 1}}), "/limits/memory_byte", "unknown_field", "did you mean memory_bytes?")]
#[case::missing_field(json!({"sql": "SELECT 1"}), "/name", "missing_field", "")]
#[case::number_for_text(json!({"name": 5, "sql": "SELECT 1"}), "/name", "wrong_type", "")]
#[case::text_for_number(json!({"name": "n", "sql": "SELECT 1", "parallelism": "2"}), "/parallelism", "wrong_type", "")]
#[case::null_for_text(json!({"name": null, "sql": "SELECT 1"}), "/name", "wrong_type", "")]
#[case::fraction(json!({"name": "n", "sql": "SELECT 1", "parallelism": 1.5}), "/parallelism", "wrong_type", "")]
#[case::too_few(json!({"name": "n", "sql": "SELECT 1", "parallelism": 0}), "/parallelism", "invalid_value", "")]
#[case::negative(json!({"name": "n", "sql": "SELECT 1", "parallelism": -1}), "/parallelism", "invalid_value", "")]
#[case::too_many(json!({"name": "n", "sql": "SELECT 1", "parallelism": 10_000}), "/parallelism", "invalid_value", "")]
#[case::beyond_doubles(json!({"name": "n", "sql": "SELECT 1", "parallelism": 9_007_199_254_740_993_u64}), "/parallelism", "invalid_value", "")]
#[case::empty_name(json!({"name": "", "sql": "SELECT 1"}), "/name", "invalid_value", "")]
#[case::control_characters(json!({"name": "a\u{0}b", "sql": "SELECT 1"}), "/name", "invalid_value", "")]
#[case::right_to_left(json!({"name": "a\u{202e}b", "sql": "SELECT 1"}), "/name", "invalid_value", "")]
#[case::quotation(json!({"name": "\"; DROP TABLE jobs; --", "sql": "SELECT 1"}), "/name", "invalid_value", "")]
#[case::path_as_name(json!({"name": "../../etc", "sql": "SELECT 1"}), "/name", "invalid_value", "")]
#[case::unknown_delivery(json!({"name": "n", "sql": "SELECT 1", "delivery": "exactly_onse"}), "/delivery", "unknown_value", "did you mean exactly_once?")]
#[case::unknown_label_type(json!({"name": "n", "sql": "SELECT 1", "labels": {"a": 1}}), "/labels/a", "wrong_type", "")]
fn a_field_that_is_wrong_is_told_by_its_pointer(
    #[case] body: Value,
    #[case] pointer: &str,
    #[case] code: &str,
    #[case] hint: &str,
) {
    let problem = shared().post("/api/v1/jobs", &body).refused(422, "validation_failed");
    let errors = problem["errors"].as_array().unwrap();
    let found = errors.iter().find(|error| error["pointer"] == pointer).unwrap_or_else(|| panic!("{problem}"));
    assert_eq!(found["code"], code, "{problem}");
    assert!(!found["message"].as_str().unwrap().is_empty());
    if !hint.is_empty() {
        assert_eq!(found["hint"], hint, "{problem}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_up_to_fifty() {
    let server = shared();
    let problem = server
        .post("/api/v1/jobs", &json!({"name": 1, "parallelism": "x", "delivery": 0, "colour": "red"}))
        .refused(422, "validation_failed");
    let mut pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().filter_map(|error| error["pointer"].as_str()).collect();
    pointers.sort_unstable();
    // A number where a word is expected is of the wrong type, and none of the words.
    pointers.dedup();
    assert_eq!(pointers, ["/colour", "/delivery", "/name", "/parallelism"]);
    let many: serde_json::Map<String, Value> = (0..1000).map(|number| (format!("f{number}"), json!(1))).collect();
    let problem = server.post("/api/v1/jobs", &Value::Object(many)).refused(422, "validation_failed");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 50);
}

#[test]
fn large_values_are_refused_without_being_shown() {
    let server = shared();
    let long = "n".repeat(1 << 20);
    let wide = format!("[{}1]", "1,".repeat(1_000_000));
    for (body, code) in [
        (json!({"name": long, "sql": "SELECT 1"}).to_string(), "validation_failed"),
        (json!({"name": "n", long.as_str(): 1}).to_string(), "validation_failed"),
        (json!({"name": "n", "sql": "x".repeat((1 << 20) + 1)}).to_string(), "validation_failed"),
        (wide, "validation_failed"),
        (json!({"name": "n", "sql": "SELECT 1", "labels": {"a": long}}).to_string(), "validation_failed"),
    ] {
        let begun = Instant::now();
        let request = server.request(reqwest::Method::POST, "/api/v1/jobs").header("content-type", "application/json");
        let answer = request.body(body).expect(422);
        assert_eq!(answer.json()["code"], code);
        assert!(answer.body.len() < 4096, "{} bytes: {}...", answer.body.len(), &answer.text()[..300]);
        // On a machine that is busy; by itself it takes milliseconds.
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
    alive(&server);
}

#[test]
fn a_body_has_a_size_and_a_form() {
    let server = shared();
    let post = |headers: &str, body: &[u8]| -> Answer {
        let mut bytes = format!("POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        server.raw(&bytes).expect("an answer")
    };
    let refused = |answer: Answer, status: u16, code: &str| {
        assert_eq!((answer.status, answer.json()["code"].clone()), (status, json!(code)), "{}", answer.text());
    };
    // Said at once: nobody waits for 100 MB.
    let length = "content-type: application/json\r\ncontent-length: 104857600\r\n";
    refused(post(length, b"{"), 413, "body_too_large");
    let json = "content-type: application/json\r\n";
    refused(
        post(&format!("{json}content-encoding: gzip\r\ncontent-length: 2\r\n"), b"{}"),
        415,
        "unsupported_media_type",
    );
    refused(post("content-type: text/plain\r\ncontent-length: 2\r\n", b"{}"), 415, "unsupported_media_type");
    refused(
        post("content-type: application/x-www-form-urlencoded\r\ncontent-length: 3\r\n", b"a=b"),
        415,
        "unsupported_media_type",
    );
    refused(post("content-length: 2\r\n", b"{}"), 415, "unsupported_media_type");
    refused(
        post("content-type: Application/JSON; charset=utf-8\r\ncontent-length: 2\r\n", b"{}"),
        422,
        "validation_failed",
    );

    // Chunks without end: refused as soon as they are too many.
    let mut stream = server.connect();
    write!(stream, "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\n{json}transfer-encoding: chunked\r\n\r\n")
        .unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 20, " ".repeat(1 << 20));
    let sent = (0..100).take_while(|_| stream.write_all(chunk.as_bytes()).is_ok()).count();
    assert!(sent < 100, "100 MB were taken");
    if let Some(answer) = read_answer(&mut stream) {
        assert_eq!(answer.status, 413);
    }
    alive(&server);
}

#[test]
fn a_body_that_stands_still_is_given_up() {
    let server = shared();
    let head = "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let stall = |rest: &str| {
            let answer = server.raw(format!("{head}{rest}").as_bytes()).expect("an answer");
            assert_eq!((answer.status, answer.json()["code"].clone()), (408, json!("request_timeout")));
        };
        scope.spawn(move || stall("transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"));
        scope.spawn(move || stall("content-length: 100\r\n\r\n{\"name\""));
        // Headers that never end.
        scope.spawn(|| {
            let mut stream = server.connect();
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: loc").unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
        });
    });
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    alive(&server);
}

#[rstest]
#[case("DELETE", "/api/v1/jobs", &["GET", "POST"])]
#[case("PUT", "/api/v1/runs", &["GET"])]
#[case("POST", "/api/v1/jobs/a", &["GET", "PUT", "PATCH", "DELETE"])]
#[case("GET", "/api/v1/sql/query", &["POST"])]
#[case("PROPFIND", "/api/v1/jobs", &["GET", "POST"])]
#[case("OPTIONS", "/api/v1/jobs", &["GET", "POST"])]
#[case("BREW", "/livez", &["GET"])]
#[case("TRACE", "/api/v1/jobs", &["GET"])]
fn a_method_that_a_path_does_not_take_is_told_with_those_it_does(
    #[case] method: &str,
    #[case] path: &str,
    #[case] allowed: &[&str],
) {
    let server = shared();
    let answer = server.raw(format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    assert_eq!((answer.status, answer.json()["code"].clone()), (405, json!("method_not_allowed")));
    let allow: Vec<&str> = answer.header("allow").unwrap().split(',').map(str::trim).collect();
    for method in allowed {
        assert!(allow.contains(method), "{allow:?}");
    }
}

#[test]
fn a_method_is_what_it_says_and_a_body_of_get_is_no_matter() {
    let server = shared();
    let get = |more: &str| {
        server
            .raw(format!("GET /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\n{more}").as_bytes())
            .expect("an answer")
            .status
    };
    assert_eq!(get("x-http-method-override: DELETE\r\n\r\n"), 200);
    assert_eq!(get("content-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"), 200);
    let head = server.raw(b"HEAD /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[rstest]
#[case("/api/v1/jobs/..%2f..%2fetc%2fpasswd")]
#[case("/api/v1/jobs/%2e%2e/%2e%2e/etc/passwd")]
#[case("/api/v1/views/..%2f..%2fmetadata.sqlite")]
#[case("/api/v1/views/..%2f..%2fmetadata.sqlite/rows")]
#[case("/api/v1/views/%2fetc%2fpasswd/rows")]
#[case("/api/v1/runs/..%2f..%2fsealing.key/logs")]
#[case("/api/v1/jobs/%00")]
#[case("/api/v1/jobs/a%00b")]
#[case("/api/v1/jobs/%c0%ae%c0%ae")]
#[case("/api/v1/jobs/%ff")]
#[case("/api/v1/jobs/%")]
#[case("/api/v1/jobs/%zz")]
#[case("//api/v1/jobs")]
#[case("/api//v1/jobs")]
#[case("/api/v1/jobs/")]
#[case("/api/v1/../v1/jobs")]
#[case("/api/v1/jobs/\\..\\..")]
#[case("/API/V1/JOBS")]
#[case("/docs/problems/..%2f..")]
#[case("/etc/passwd")]
#[case("/.git/config")]
#[case("/api/v2/jobs")]
#[case("/api/v1/runs/")]
fn a_path_is_no_way_to_files(#[case] path: &str) {
    let server = shared();
    let answer = server.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
    assert!([400, 404].contains(&answer.status), "{}: {}", answer.status, answer.text());
    assert!(!answer.text().contains("root:"));
    alive(&server);
}

#[rstest]
#[case("/api/v1/runs/run", 400, "invalid_id")]
#[case("/api/v1/runs/run_", 400, "invalid_id")]
#[case("/api/v1/runs/job_0193456789ab7def8123456789abcdef", 400, "invalid_id")]
#[case("/api/v1/runs/run_0193456789AB7DEF8123456789ABCDEF", 400, "invalid_id")]
#[case("/api/v1/runs/0193456789ab7def8123456789abcdef", 400, "invalid_id")]
#[case("/api/v1/runs/run_0193456789ab7def8123456789abcdef", 404, "run_not_found")]
#[case("/api/v1/runs/run_0193456789ab7def8123456789abcdef/graph", 404, "run_not_found")]
#[case("/api/v1/runs/x/metrics", 400, "invalid_id")]
#[case("/api/v1/operations/op_1", 400, "invalid_id")]
#[case("/api/v1/operations/op_0193456789ab7def8123456789abcdef", 404, "operation_not_found")]
#[case("/api/v1/jobs/job_0193456789ab7def8123456789abcdef", 404, "job_not_found")]
#[case("/api/v1/jobs/job_1", 404, "job_not_found")]
#[case("/api/v1/views/none", 404, "view_not_found")]
#[case("/api/v1/views/none/rows", 404, "view_not_found")]
#[case("/api/v1/connections/none", 404, "connection_not_found")]
#[case("/api/v1/tables/none", 404, "table_not_found")]
#[case("/docs/problems/none", 404, "not_found")]
fn an_id_has_a_form_and_names_something(#[case] path: &str, #[case] status: u16, #[case] code: &str) {
    shared().get(path).refused(status, code);
}

#[test]
fn headers_have_their_limits() {
    let server = shared();
    let get = |headers: String| {
        server.raw(format!("GET /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n").as_bytes())
    };
    for headers in [format!("x-a: {}\r\n", "a".repeat(20 << 10)), (0..150).map(|n| format!("x-{n}: 1\r\n")).collect()] {
        let answer = get(headers).expect("an answer");
        assert_eq!((answer.status, answer.json()["code"].clone()), (431, json!("headers_too_large")));
    }
    let long = server
        .raw(format!("GET /api/v1/jobs?q={} HTTP/1.1\r\nhost: localhost\r\n\r\n", "q".repeat(9 << 10)).as_bytes());
    assert_eq!(long.expect("an answer").json()["code"], "uri_too_long");
    // Two lengths that could be two requests: one is refused, or the connection ends after it.
    let both =
        b"POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\
                 transfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut stream = server.connect();
    stream.write_all(both).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    if let Some(answer) = read_answer(&mut stream) {
        assert_eq!(answer.status, 400);
    }
}

#[rstest]
#[case::one_long_header(format!("GET / HTTP/1.1\r\nhost: localhost\r\nx-a: {}\r\n\r\n", "a".repeat(1 << 20)), 431, "headers_too_large")]
#[case::many_headers(format!("GET / HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: 1\r\n".repeat(10_000)), 431, "headers_too_large")]
#[case::long_path(format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "q".repeat(100_000)), 414, "uri_too_long")]
#[case::two_lengths(
    "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    400,
    "bad_request"
)]
#[case::negative_length(
    "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
    400,
    "bad_request"
)]
#[case::unknown_coding(
    "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\nhello",
    400,
    "bad_request"
)]
#[case::bad_chunk(
    "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n{}\r\n",
    400,
    "bad_request"
)]
#[case::unknown_version("GET / HTTP/9.9\r\n\r\n", 400, "bad_request")]
#[case::http_2("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "bad_request")]
#[case::tls("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}", 400, "bad_request")]
#[case::no_request_line("GARBAGE\r\n\r\n", 400, "bad_request")]
#[case::blanks_before_a_colon("GET /api/v1/jobs HTTP/1.1\r\nhost : localhost\r\n\r\n", 400, "bad_request")]
#[case::line_break_in_a_header("GET /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nx: a\rb\r\n\r\n", 400, "bad_request")]
#[case::null_in_a_header("GET /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n", 400, "bad_request")]
#[case::control_in_a_path("GET /api/v1/\u{1} HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "bad_request")]
fn what_is_no_request_gets_a_problem_too(#[case] bytes: impl AsRef<[u8]>, #[case] status: u16, #[case] code: &str) {
    let server = shared();
    // Alone, and behind a request that is one, in the same packet.
    let good = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for before in [&b""[..], good] {
        let mut stream = server.connect();
        let _ = stream.write_all(&[before, bytes.as_ref()].concat());
        // To its end: nobody knows where a next request would begin.
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let text = String::from_utf8(all).unwrap();
        let answers: Vec<&str> = text.split("HTTP/1.1 ").skip(1).collect();
        assert_eq!(answers.len(), if before.is_empty() { 1 } else { 2 }, "{text}");
        assert!(before.is_empty() || answers[0].starts_with("200 "), "{text}");
        let (head, body) = answers[answers.len() - 1].split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with(&format!("{status} ")), "{text}");
        let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!((&problem["status"], &problem["code"]), (&json!(status), &json!(code)), "{problem}");
        assert_eq!(problem["type"], format!("/docs/problems/{code}"));
        let id = problem["request_id"].as_str().unwrap();
        for line in ["content-type: application/problem+json", &format!("x-request-id: {id}")] {
            assert!(head.lines().any(|other| other == line), "{line}: {text}");
        }
    }
    alive(&server);
}

#[test]
fn a_page_in_a_browser_does_not_reach_a_server_without_keys() {
    let server = shared();
    let host = |host: &str| {
        server.raw(format!("GET /api/v1/jobs HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).expect("an answer")
    };
    for good in ["localhost", "localhost:80", "127.0.0.1:8080", "[::1]:8080"] {
        assert_eq!(host(good).status, 200, "{good}");
    }
    for bad in [
        "rebound.example",
        "127.0.0.1.rebound.example",
        "localhost.rebound.example:80",
        "169.254.169.254",
        "",
        "0.0.0.0",
    ] {
        let answer = host(bad);
        assert_eq!((answer.status, answer.json()["code"].clone()), (403, json!("host_not_allowed")), "{bad:?}");
    }
    // A form or a script of another page may send what needs no leave of this server.
    let page = |origin: &str| server.get("/api/v1/jobs").header("origin", origin).send();
    for good in ["http://localhost:3000", "http://127.0.0.1", "http://[::1]:8080"] {
        assert_eq!(page(good).status, 200, "{good}");
    }
    for bad in ["https://page.example", "http://localhost.page.example", "null", "http://10.0.0.1"] {
        assert_eq!(page(bad).json()["code"], "host_not_allowed", "{bad}");
    }
}

#[test]
fn an_id_of_a_request_is_its_own_if_it_is_harmless() {
    let server = shared();
    let id = |given: &str| {
        server.get("/livez").header("x-request-id", given).expect(200).header("x-request-id").unwrap().to_string()
    };
    assert_eq!(id("mine-1_2.3"), "mine-1_2.3");
    assert_ne!(id("<script>"), "<script>");
    assert_ne!(id(&"a".repeat(200)), "a".repeat(200));
    assert_eq!(server.get("/nothing").header("x-request-id", "mine").refused(404, "not_found")["request_id"], "mine");
}
