//! What the leader makes of processes that do not take part as they should, before all have met: it names them, soon, and leaves none.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::runtime::{Launch, Progress, RunRequest, Surroundings, Verb};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::support::*;

/// What a process does that is not one of ours.
#[derive(Clone, Copy)]
enum Fake {
    Killed,
    Stopped,
    /// Says hello, and then nothing for so long.
    Quiet(Duration),
}

/// Leads a run of two processes of which the other is a fake. Returns with what the run failed, and after what time.
fn failure(fake: Fake) -> (String, Duration) {
    let nodes = format!(
        r#"{}, {{"id": "out", "type": "sink", "inputs": ["a-time"], "table": "out", "connector": {{"type": "blackhole"}}}}"#,
        source("a", "0s", None)
    );
    let graph = graph::Graph::from_json(&format!("{{\"version\": 1, \"nodes\": [{nodes}]}}")).unwrap();
    let settings = serde_json::json!({"processes": 2, "process.heartbeat-timeout": "300ms"});
    let settings = graph::Settings::from_options(settings.as_object().cloned().unwrap()).unwrap();
    let pids = Arc::new(Mutex::new(Vec::new()));
    let started = pids.clone();
    let launch = move |launch: &Launch| {
        let child = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn()?;
        let pid = child.id().unwrap();
        started.lock().unwrap().push(pid);
        match fake {
            Fake::Killed => signal(pid, "KILL"),
            Fake::Stopped => signal(pid, "STOP"),
            Fake::Quiet(time) => drop(tokio::spawn(say_hello(launch.clone(), time))),
        }
        Ok(child)
    };
    let request = RunRequest {
        run_id: "test".into(),
        generation: 1,
        graph,
        settings,
        start: Default::default(),
        restore: Vec::new(),
        first_epoch: 1,
        stop_after: None,
    };
    let (_verb, verb) = watch::channel(Verb::Run);
    let around = Surroundings {
        connectors: Arc::new(World::new([("a", vec![])])),
        launch: Some(Box::new(launch)),
        verb,
        progress: watch::channel(Progress::default()).0,
        durable: None,
        asked: None,
    };
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let error = runtime.block_on(engine::runtime::run(request, around)).unwrap_err();
    let took = began.elapsed();
    assert_eq!(error.code, "process_lost", "{error}");
    for pid in pids.lock().unwrap().iter() {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the process is gone, and was waited for");
    }
    (error.message, took)
}

fn signal(pid: u32, name: &str) {
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.unwrap().success());
}

async fn say_hello(launch: Launch, time: Duration) {
    let mut control = tokio::net::TcpStream::connect(launch.control).await.unwrap();
    let hello = serde_json::json!({"Hello": {"identity": launch.identity, "data": "127.0.0.1:1"}});
    control.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
    tokio::time::sleep(time).await;
}

#[test]
fn a_process_that_ends_before_it_reports_is_named() {
    let (said, took) = failure(Fake::Killed);
    assert_eq!(said, "process 1 ended before it took part: signal: 9 (SIGKILL)");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_process_that_is_stopped_before_it_reports_is_named() {
    let (said, took) = failure(Fake::Stopped);
    assert_eq!(said, "process 1 is stopped and cannot take part");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_process_that_falls_silent_while_the_processes_meet_is_named() {
    let (said, took) = failure(Fake::Quiet(Duration::from_secs(60)));
    assert_eq!(said, "process 1 of the run has said nothing for 300ms: it is stopped or overloaded");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_process_that_hangs_up_while_the_processes_meet_is_named() {
    let (said, took) = failure(Fake::Quiet(Duration::from_millis(50)));
    assert_eq!(said, "process 1 of the run has ended unexpectedly");
    assert!(took < Duration::from_secs(10), "{took:?}");
}
