//! Against a server of a few lines, which answers as it is told and remembers what it was asked.

use std::sync::{Arc, Mutex};

use api::CreateKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const LOST: &str = "";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nretry-after: 0\r\ncontent-type: application/problem+json\r\n";
const GONE: &str = "HTTP/1.1 404 Not Found\r\ncontent-type: application/problem+json\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";

fn problem(status: u16) -> String {
    format!(
        "{{\"type\":\"/x\",\"title\":\"T\",\"status\":{status},\"detail\":\"d\",\"code\":\"c\",\"request_id\":\"r\"}}"
    )
}

/// Answers one connection after the other with a head and a body; an empty head hangs up.
async fn server(answers: Vec<(&'static str, String)>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    tokio::spawn(async move {
        for (head, body) in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            loop {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).await.unwrap_or(0);
                request.extend_from_slice(&bytes[..read]);
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
                let whole = text.find("\r\n\r\n").is_some_and(|end| request.len() >= end + 4 + length.unwrap_or(0));
                if whole || read == 0 {
                    break;
                }
            }
            log.lock().expect("a log").push(String::from_utf8_lossy(&request).into_owned());
            if !head.is_empty() {
                let answer = format!("{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    let client = Client::new(&url, Some("hw_canary".into())).expect("a client");
    (client.retries(Retries { attempts: 3, within: Duration::from_secs(5) }), asked)
}

fn header(request: &str, name: &str) -> Option<String> {
    let line = request.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
    line.split_once(": ").map(|(_, value)| value.to_string())
}

#[tokio::test]
async fn what_creates_is_repeated_under_one_key() {
    let table = r#"{"id":"table_1","name":"t","sql":"","connector":"x","columns":[],
        "created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-01T00:00:00Z"}"#;
    let answers = vec![(LOST, String::new()), (BUSY, problem(503)), (OK, table.to_string())];
    let (client, asked) = server(answers).await;
    assert_eq!(client.create_table("CREATE TABLE t").await.expect("created").name, "t");
    let asked = asked.lock().expect("a log");
    let keys: Vec<_> = asked.iter().map(|request| header(request, "idempotency-key")).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys[0].is_some() && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert!(asked.iter().all(|request| header(request, "authorization").as_deref() == Some("Bearer hw_canary")));
}

#[tokio::test]
async fn patience_ends_and_the_last_answer_counts() {
    let (client, asked) = server(vec![(BUSY, problem(503)); 9]).await;
    let error = client.whoami().await.expect_err("busy");
    assert_eq!((error.code(), asked.lock().expect("a log").len()), (Some("c"), 3));
    let slow = "HTTP/1.1 429 Slow\r\nretry-after: 3600\r\ncontent-type: application/problem+json\r\n";
    let (client, asked) = server(vec![(slow, problem(429)); 9]).await;
    assert!(client.whoami().await.is_err(), "an hour is too long");
    assert_eq!(asked.lock().expect("a log").len(), 1);
    let client = Client::new("http://127.0.0.1:1", None).expect("a client");
    let client = client.retries(Retries { attempts: 2, within: Duration::from_secs(1) });
    assert!(matches!(client.whoami().await, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_key_is_made_once_and_what_is_gone_is_gone() {
    let (client, asked) = server(vec![(LOST, String::new()); 3]).await;
    let key = CreateKey { name: "k".into(), role: api::Role::Viewer, expires_at: None };
    let error = client.create_key(&key).await.expect_err("the answer was lost");
    assert!(!error.to_string().contains("canary"), "{error}");
    assert_eq!(asked.lock().expect("a log").len(), 1, "it may have been made");

    let (client, _) = server(vec![(LOST, String::new()), (GONE, problem(404))]).await;
    client.delete_job("j").await.expect("the first request has removed it");
    // 503: the store did not answer the server, which cannot know what became of it.
    let (client, asked) = server(vec![(BUSY, problem(503)); 3]).await;
    assert_eq!(client.create_key(&key).await.expect_err("it may have been made").code(), Some("c"));
    assert_eq!(asked.lock().expect("a log").len(), 1);
    let (client, _) = server(vec![(BUSY, problem(503)), (GONE, problem(404))]).await;
    client.delete_job("j").await.expect("the first request may have removed it");
    let (client, _) = server(vec![(GONE, problem(404))]).await;
    assert_eq!(client.delete_job("j").await.expect_err("never there").code(), Some("c"));
}

#[tokio::test]
async fn others_that_answer_are_told_apart() {
    let html = "HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\n";
    let (client, _) = server(vec![(html, "<html>".into()), (OK, "{}".into())]).await;
    assert!(matches!(client.whoami().await, Err(Error::NotOurs { .. })));
    assert!(matches!(client.whoami().await, Err(Error::NotOurs { .. })));
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        // A head that promises more than comes, then not even that.
        let (mut first, _) = listener.accept().await.expect("a connection");
        let _ = first.read(&mut [0; 4096]).await;
        first.write_all(format!("{OK}content-length: 100\r\n\r\nrows").as_bytes()).await.expect("written");
        let second = listener.accept().await.expect("a connection");
        std::future::pending::<()>().await;
        drop((first, second));
    });
    let client = Client::new(&url, None).expect("a client").retries(Retries { attempts: 1, within: Duration::ZERO });
    let pause = Duration::from_millis(200);
    let response = client.send(client.get(&["views"]).streamed(Duration::from_secs(30))).await.expect("a head");
    let mut body = crate::Body::new(response, pause);
    assert_eq!(body.next().await.expect("some"), Some(b"rows".to_vec()));
    let broken = body.next().await.expect_err("silence");
    assert!(matches!(&broken, Error::Broken { cause } if cause.contains("nothing came for 0.2 s")), "{broken}");
    let silent = client.send(client.get(&["views"]).streamed(pause)).await.expect_err("silence");
    assert!(matches!(&silent, Error::Unreachable { cause, .. } if cause.contains("in time")), "{silent}");
}

#[tokio::test]
async fn names_are_escaped_in_paths_and_parameters() {
    let (client, asked) = server(vec![(GONE, problem(404)); 2]).await;
    let _ = client.table("a/b ?ü").await;
    let query = crate::ViewQuery { filter: Some("a = 'b&c'".into()), ..Default::default() };
    let _ = client.view_rows("v", &query).await;
    let asked = asked.lock().expect("a log");
    assert!(asked[0].starts_with("GET /api/v1/tables/a%2Fb%20%3F%C3%BC HTTP/1.1"), "{}", asked[0]);
    assert!(asked[1].starts_with("GET /api/v1/views/v/rows?filter=a+%3D+%27b%26c%27 HTTP/1.1"), "{}", asked[1]);
}
