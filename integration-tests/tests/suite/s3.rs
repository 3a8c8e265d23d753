//! Sources and sinks over a real S3 server.
//!
//! The server lives in memory, is shared by the tests of this process, and each test has a bucket of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use integration_tests::compare;
use integration_tests::program::{self, repository};

use super::support;

/// Ends with this process: its standard input is a pipe whose other end we hold.
struct Server {
    address: String,
    _process: Child,
}

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut process = Command::new(program::python())
            .arg(repository().join("integration-tests/s3_server.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let (host, port) = line.trim().split_once(' ').expect("the S3 server says where it is");
        Server { address: format!("{host}:{port}"), _process: process }
    })
}

/// One HTTP request. This server does not check a signature, but wants to see that there is one.
fn request(method: &str, path: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(&server().address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.0\r\nHost: {}\r\nAuthorization: AWS4-HMAC-SHA256 Credential=key/20240101/us-east-1/s3/aws4_request\r\nContent-Length: {}\r\n\r\n",
        server().address,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.lines().next().unwrap().contains(" 200 "), "{method} {path}: {head}\n{body}");
    body.to_owned()
}

/// Its URL.
pub fn endpoint() -> String {
    format!("http://{}", server().address)
}

pub fn bucket(name: &str) {
    request("PUT", &format!("/{name}"), b"");
}

pub fn keys(bucket: &str) -> Vec<String> {
    let listing = request("GET", &format!("/{bucket}?list-type=2"), b"");
    regex::Regex::new("<Key>([^<]+)</Key>").unwrap().captures_iter(&listing).map(|found| found[1].to_owned()).collect()
}

fn options(path: &str, endpoint: &str) -> String {
    format!(
        "'connector' = 'filesystem', 'path' = '{path}', 'format' = 'json', 's3.endpoint' = '{endpoint}', \
         's3.access-key' = 'key', 's3.secret-key' = 'hushhush'"
    )
}

fn script(bucket: &str, endpoint: &str) -> String {
    let (input, output) =
        (options(&format!("s3://{bucket}/in"), endpoint), options(&format!("s3://{bucket}/out"), endpoint));
    format!(
        "CREATE TABLE bids (auction BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ({input});\n\
         CREATE TABLE result (window_start TIMESTAMP(3), n BIGINT) WITH ({output});\n\
         INSERT INTO result SELECT window_start, COUNT(*)\n\
         FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY window_start, window_end;"
    )
}

fn bids(rows: std::ops::Range<u32>) -> String {
    rows.map(|row| format!("{{\"auction\":{row},\"ts\":\"2024-03-01 08:{:02}:{:02}\"}}\n", row / 60, row % 60))
        .collect()
}

#[test]
fn a_window_from_s3_to_s3_bounded_and_streamed() {
    let expected: Vec<_> = (0..10)
        .map(|ten| format!("{{\"window_start\":\"2024-03-01 08:{:02}:{:02}\",\"n\":10}}", ten / 6, ten % 6 * 10))
        .collect();
    let expected = compare::rows(&expected.join("\n"), "expected").unwrap();
    for (bucket, arguments) in [
        ("bounded", &[] as &[&str]),
        (
            "streamed",
            &["--set", "tables.bids.connector=replay", "--set", "source.batch-rows=7", "--set", "epoch.every-rows=16"],
        ),
        ("processes", &["--processes", "2"]),
    ] {
        request("PUT", &format!("/{bucket}"), b"");
        request("PUT", &format!("/{bucket}/in/a.jsonl"), bids(0..50).as_bytes());
        request("PUT", &format!("/{bucket}/in/b.jsonl"), bids(50..100).as_bytes());
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s3.sql"), script(bucket, &format!("http://{}", server().address))).unwrap();
        let finished = support::highwater(folder.path(), [&["run", "s3.sql"], arguments].concat());
        assert_eq!(finished.code, Some(0), "{}", finished.report());
        let mut rows = Vec::new();
        let data = |key: &&String| key.starts_with("out/") && !key.split('/').any(|part| part.starts_with(['_', '.']));
        for key in keys(bucket).iter().filter(data) {
            rows.extend(compare::rows(&request("GET", &format!("/{bucket}/{key}"), b""), key).unwrap());
        }
        if let Err(report) = compare::same_rows(&expected, &rows) {
            panic!("{bucket}: {report}{}", finished.report());
        }
    }
}

#[test]
fn a_missing_bucket_and_an_unreachable_server_are_named() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for endpoint in [format!("http://{}", server().address), format!("http://{nobody}")] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("s3.sql"), script("no-such-bucket", &endpoint)).unwrap();
        let finished =
            program::finish(support::command(folder.path()).args(["run", "s3.sql"]), Duration::from_secs(90));
        assert_eq!(finished.code, Some(1), "{}", finished.report());
        assert!(finished.stderr.contains("no-such-bucket"), "{}", finished.report());
    }
}

/// The answer of a real server to a wrong key; the one in memory accepts any.
#[test]
fn wrong_credentials_are_an_error_that_shows_no_secret() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Serves until the test process ends.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body =
                "<Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match.</Message></Error>";
            let _ = write!(
                stream,
                "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s3.sql"), script("secrets", &endpoint)).unwrap();
    let finished = program::finish(support::command(folder.path()).args(["run", "s3.sql"]), Duration::from_secs(90));
    assert_eq!(finished.code, Some(1), "{}", finished.report());
    assert!(finished.stderr.contains("SignatureDoesNotMatch"), "{}", finished.report());
    assert!(!finished.stderr.contains("hushhush"), "{}", finished.report());
}
