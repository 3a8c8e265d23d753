//! What was answered `Ok` survives a kill; what failed happened whole or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use metadata::postgres::PostgresStore;
use metadata::sqlite::SqliteStore;
use metadata::*;
use serde_json::json;
use test_support::postgres::Postgres;

use crate::fixtures::*;

/// Names the file that the child of the next test writes to.
const FILE: &str = "METADATA_TEST_FILE";

/// A change of each kind that has several rows: all of one job, or nothing of it, may be there.
async fn change_much(store: &dyn MetadataStore, name: &str) -> Result<()> {
    let job = job(name);
    let written = JobVersion { views: vec![view(name)], ..version(&job) };
    store.create_job(&job, &written, &with_key("job.create", name, name)).await
}

/// A run that decides two epochs, commits them, and fails.
async fn run_it(store: &dyn MetadataStore, term: i64, name: &str) -> Result<()> {
    let job = store.job_named(name).await?;
    let run = run(&job);
    store.create_run(&run, &change("run.create")).await?;
    for (epoch, previous) in [(1, None), (2, Some(1))] {
        store.decide_epoch(&decision(&run, term, epoch, previous)).await?;
        store.confirm_epoch(&statement(&run, term, epoch), &json!({})).await?;
    }
    store.move_run(&step(&run, &["pending"], "failed")).await.map(|_| ())
}

/// Everything of each job in `acknowledged` is there, and everything of each that is there, is whole. Returns how many there are.
async fn check(store: &dyn MetadataStore, acknowledged: &[String]) -> usize {
    let jobs = store.jobs(&JobFilter::default(), page(1_000_000)).await.unwrap();
    let by_name: BTreeMap<&str, &Job> = jobs.iter().map(|job| (job.name.as_str(), job)).collect();
    for line in acknowledged {
        let (name, ran) = line.split_once(' ').unwrap();
        let job = by_name.get(name).unwrap_or_else(|| panic!("{name} was acknowledged and is lost"));
        assert!(ran == "made" || job.state == "failed", "the run of {name} was acknowledged and is lost: {job:?}");
    }
    let log = store.audit_log(0, 1_000_000).await.unwrap();
    assert_eq!(verify_audit((0, String::new()), &log).unwrap(), store.audit_head().await.unwrap());
    let made = log.iter().filter(|entry| entry.action == "job.create").count();
    assert_eq!(made, jobs.len(), "each job has its line");
    let views = store.views().await.unwrap();
    assert_eq!(views.len(), jobs.len(), "each job has its view");
    let mut runs = 0;
    for job in &jobs {
        store.version(job.job_id, 1).await.unwrap();
        assert!(store.answer("key_1", "POST /api/v1/jobs", &job.name).await.unwrap().is_some());
        if let Some(run_id) = job.latest_run {
            runs += 1;
            let run = store.run(run_id).await.unwrap();
            assert_eq!(run.state, job.state);
            let events = store.run_events(run_id).await.unwrap();
            assert_eq!(events.len(), if run.active { 1 } else { 2 });
            let epochs = store.epochs(&all_epochs(job.job_id), epoch_page(9)).await.unwrap();
            let states: Vec<(i64, &str)> = epochs.iter().rev().map(|epoch| (epoch.epoch, &*epoch.state)).collect();
            let whole = [(1, "committed"), (2, "committed")];
            assert!(run.active || states == whole, "epochs of {} were acknowledged and are lost: {states:?}", job.name);
            assert!(states.len() < 2 || states[0] == whole[0], "decided in order: {states:?}");
        }
    }
    assert_eq!(log.iter().filter(|entry| entry.action == "run.create").count(), runs, "each run has its line");
    jobs.len()
}

/// Not a test by itself: what the next one starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writer_that_is_killed() {
    let Ok(file) = std::env::var(FILE) else { return };
    let store = Arc::new(SqliteStore::open(file).await.unwrap());
    let term = store.lead("writer").await.unwrap();
    let writers = (0..3).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            for index in 0..100_000 {
                let name = format!("job-{}-{writer}-{index}", std::process::id());
                change_much(&*store, &name).await.unwrap();
                println!("ok {name} made");
                run_it(&*store, term, &name).await.unwrap();
                println!("ok {name} ran");
            }
        })
    });
    futures::future::join_all(writers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_what_it_acknowledged_through_kills() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("metadata.db");
    let mut acknowledged = Vec::new();
    let mut there = 0;
    for round in 0..20u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["durability::writer_that_is_killed", "--exact", "--nocapture", "--test-threads=1"])
            .env(FILE, &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (told, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(std::result::Result::ok) {
                // The test harness puts its own words before the first; the last may be cut.
                if let Some((_, line)) = line.split_once("ok ")
                    && (line.ends_with(" made") || line.ends_with(" ran"))
                {
                    told.send(line.to_owned()).unwrap();
                }
            }
        });
        if round < 5 {
            // Early: in the middle of making the tables, or before.
            std::thread::sleep(Duration::from_millis(10 + round * 30));
        } else {
            let first = (0..round * 4).map(|_| lines.recv_timeout(Duration::from_secs(60)).unwrap());
            acknowledged.extend(first);
            std::thread::sleep(Duration::from_micros(u64::from(child.id() % 50) * 200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged.extend(lines);
        let store = SqliteStore::open(&file).await.unwrap();
        there = check(&store, &acknowledged).await;
        store.close().await;
    }
    eprintln!("20 kills: {} acknowledged, {there} jobs", acknowledged.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_what_it_acknowledged_through_immediate_stops() {
    let server = Arc::new(Postgres::start(&[]));
    let store = Arc::new(PostgresStore::connect(&server.database()).await.unwrap());
    let term = store.lead("writer").await.unwrap();
    let mut acknowledged = Vec::new();
    let mut failures: BTreeMap<String, bool> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    for round in 0..8u64 {
        let over = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (store, over) = (store.clone(), over.clone());
                tokio::spawn(async move {
                    let (mut done, mut failed, mut slowest) = (Vec::new(), Vec::new(), Duration::ZERO);
                    for index in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let name = format!("job-{round}-{writer}-{index}");
                        let begun = std::time::Instant::now();
                        match change_much(&*store, &name).await {
                            Ok(()) => done.push(format!("{name} made")),
                            Err(MetadataError::Unavailable { ambiguous, .. }) => failed.push((name.clone(), ambiguous)),
                            Err(other) => panic!("{other:?}"),
                        }
                        slowest = slowest.max(begun.elapsed());
                        if done.last().is_some_and(|last| last.starts_with(&format!("{name} "))) {
                            match run_it(&*store, term, &name).await {
                                Ok(()) => done.push(format!("{name} ran")),
                                Err(MetadataError::Unavailable { .. }) => {}
                                Err(other) => panic!("{other:?}"),
                            }
                        }
                    }
                    (done, failed, slowest)
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(250 + round * 37)).await;
        let stopped = server.clone();
        tokio::task::spawn_blocking(move || {
            if round % 2 == 0 {
                stopped.stop_immediately()
            } else {
                stopped.kill()
            }
            std::thread::sleep(Duration::from_millis(150));
            stopped.restart();
        })
        .await
        .unwrap();
        // It recovers by itself, under the writers.
        tokio::time::sleep(Duration::from_millis(500)).await;
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            let (done, failed, took) = writer.await.unwrap();
            assert!(!done.is_empty());
            acknowledged.extend(done);
            failures.extend(failed);
            slowest = slowest.max(took);
        }
        let jobs = check(&*store, &acknowledged).await;
        // What is known to have failed is not there.
        let there = store.jobs(&JobFilter::default(), page(1_000_000)).await.unwrap();
        for job in &there {
            assert_ne!(failures.get(&job.name), Some(&false), "{} was said not to have happened", job.name);
        }
        eprintln!("stop {round}: {} acknowledged, {jobs} jobs, {} failed", acknowledged.len(), failures.len());
    }
    let unknown = failures.values().filter(|ambiguous| **ambiguous).count();
    eprintln!("{} failed, {unknown} of them with an unknown fate; the slowest took {slowest:?}", failures.len());
    assert!(slowest < Duration::from_secs(15), "{slowest:?}");
    assert!(!failures.is_empty(), "the stops went unnoticed");
}
