//! Checkpoints on S3: the place keeps its promises, jobs whose processes are killed go on from there, also where answers are lost.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use integration_tests::program;
use integration_tests::rest::Highwater;
use serde_json::{Value, json};
use test_support::process::send;

use super::fresh;
use super::proxy::{Fate, Proxy, Request};
use crate::s3;

const ROWS: i64 = 8_000;

pub fn options(endpoint: &str) -> BTreeMap<String, String> {
    let options = [
        ("s3.endpoint", endpoint),
        ("s3.region", "us-east-1"),
        ("s3.access-key", "key"),
        ("s3.secret-key", "hushhush"),
    ];
    options.map(|(name, value)| (name.to_string(), value.to_string())).into()
}

/// A bucket of its own.
pub fn bucket() -> String {
    let bucket = fresh("checkpoints").replace('_', "-");
    s3::bucket(&bucket);
    bucket
}

fn configured(bucket: &str, endpoint: &str) -> Highwater {
    Highwater::configured(&json!({"storage": format!("s3://{bucket}/all/of it"), "storage-options": options(endpoint)}))
}

#[test]
fn a_bucket_keeps_the_promises_of_files() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for prefix in ["", "/deep/er"] {
            let place = format!("s3://{}{prefix}", bucket());
            let files = state::objects::open(&place, &options(&s3::endpoint())).unwrap();
            state::files::conformance::check_files(&*files).await;
            state::objects::probe(&*files, "probe").await.unwrap();
            // Of many that create a file one does.
            let tries = (0..8).map(|number: u8| {
                let files = files.clone();
                tokio::spawn(async move { files.create("it", vec![number; 100].into()).await })
            });
            let mut created = 0;
            for one in tries.collect::<Vec<_>>() {
                created += usize::from(one.await.unwrap().unwrap() == state::files::Creation::Created);
            }
            assert_eq!(created, 1, "{place}");
            // In parts.
            let large: Vec<u8> = (0..40 << 20).map(|at: u32| (at / 999) as u8).collect();
            let file = state::files::put(&*files, "large", large.into()).await.unwrap();
            assert_eq!(state::files::get(&*files, &file).await.unwrap().len(), 40 << 20);
        }
        let gone = state::objects::open("s3://no-such-bucket/x", &options(&s3::endpoint())).unwrap();
        let missing = gone.read("a").await.unwrap_err();
        assert!(matches!(missing, state::FileError::NoPlace { .. }), "{missing:?}");
        assert!(!missing.is_damage());
    });
}

fn goes_on(endpoint: &str, kills: u64) -> Highwater {
    let bucket = bucket();
    let server = configured(&bucket, endpoint);
    let view = fresh("storage");
    let script = format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '300ms'; SET 'restart.delay' = '20ms'; SET 'processes' = '2';
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'rows-per-second' = '1500', 'number-of-rows' = '{ROWS}', 'fields.n.kind' = 'sequence');
         CREATE TABLE {view} (k BIGINT, n BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         INSERT INTO {view} SELECT n % 7, COUNT(*), SUM(n) FROM ticks GROUP BY n % 7;"
    );
    let (job, run) = server.submit(&view, &script);
    for kill in 1..=kills {
        let before = server.wait_for_run(&run, "a running attempt with checkpoints", |run| {
            run["state"] == "running" && run["attempts"] == kill && run["progress"]["rows_in"].as_u64() > Some(1000)
        });
        std::thread::sleep(Duration::from_millis(150 * kill));
        send(server.process_of(&before), 9);
    }
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("finished"), &json!(kills + 1)), "{ended}");
    let of = |k: i64| (0..ROWS).filter(move |n| n % 7 == k);
    let expected: Vec<Value> = (0..7).map(|k| json!({"k": k, "n": of(k).count(), "s": of(k).sum::<i64>()})).collect();
    let mut rows = server.rows(&view);
    rows.sort_by_key(|row| row["k"].as_i64());
    assert_eq!(rows, expected);
    let id = job["id"].as_str().unwrap();
    let of_job = || s3::keys(&bucket).into_iter().filter(|key| key.contains(id)).collect::<Vec<_>>();
    assert!(of_job().iter().any(|key| key.contains("/epochs/")), "{:?}", s3::keys(&bucket));
    assert!(!server.data().join("checkpoints").exists(), "nothing of it is here");
    // Neither the specification of an attempt nor a log has the key.
    for file in walk(&server.data().join("runs")) {
        let content = std::fs::read(&file).unwrap_or_default();
        assert!(!content.windows(8).any(|word| word == b"hushhush"), "{}", file.display());
    }
    server.delete(&format!("/api/v1/jobs/{view}")).header("if-match", "*").expect(204);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !of_job().is_empty() {
        assert!(std::time::Instant::now() < deadline, "checkpoints of a deleted job stay: {:?}", of_job());
        std::thread::sleep(Duration::from_millis(100));
    }
    server
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] }).collect()
}

#[test]
fn a_job_with_checkpoints_on_s3_goes_on_after_kills() {
    goes_on(&s3::endpoint(), 3);
}

/// Says 409 or 503 to one in so many requests that change something, or does it and does not answer.
pub fn unlucky(one_in: u64, faults: Arc<AtomicU64>) -> impl Fn(&Request) -> Fate + Send + Sync + 'static {
    let changes = AtomicU64::new(0);
    move |request| {
        if !request.changes() || changes.fetch_add(1, Ordering::SeqCst) % one_in != one_in - 1 {
            return Fate::Passed;
        }
        match faults.fetch_add(1, Ordering::SeqCst) % 3 {
            0 => Fate::Unanswered,
            1 => Fate::Refused("409 Conflict", ""),
            _ => Fate::Refused("503 Slow Down", ""),
        }
    }
}

#[test]
fn answers_that_are_lost_or_say_no_cost_nothing() {
    let faults = Arc::new(AtomicU64::new(0));
    let proxy = Proxy::start(unlucky(7, faults.clone()));
    goes_on(&proxy.address, 2);
    assert!(faults.load(Ordering::SeqCst) > 6, "there were faults");
}

#[test]
fn a_server_does_not_start_on_a_storage_that_cannot_keep_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (storage, endpoint, why) in [
        ("s3://no-such-bucket/x", s3::endpoint(), "does not exist"),
        ("s3://bucket/x", format!("http://{nobody}"), "cannot be reached"),
        ("gs://bucket", s3::endpoint(), "there is no storage gs://"),
    ] {
        let config = folder.path().join("config.json");
        let written = json!({"storage": storage, "storage-options": options(&endpoint)}).to_string();
        std::fs::write(&config, written).unwrap();
        let started = Command::new(program::path())
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.path().join("data"))
            .arg("--config")
            .arg(&config)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&started.stderr).into_owned();
        assert!(
            !started.status.success() && said.contains("cannot keep checkpoints") && said.contains(why),
            "{storage}: {said}"
        );
        assert!(!said.contains("hushhush"));
    }
}
