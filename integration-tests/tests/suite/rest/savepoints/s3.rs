//! Savepoints in buckets: taken there, restored from another one, and what is said where a bucket cannot be used.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use state::Files;

use super::super::proxy::{Fate, Proxy};
use super::super::storage::{bucket, options};
use super::*;
use crate::s3;

/// A server that may put savepoints into these places, and reaches them by way of `endpoint`.
fn allowing(places: &[&str], endpoint: &str) -> Highwater {
    let arguments: Vec<&str> = places.iter().flat_map(|place| ["--allow-root", place]).collect();
    Highwater::configured_with(&json!({"storage-options": options(endpoint)}), &arguments)
}

fn place(place: &str) -> Arc<dyn Files> {
    state::objects::open(place, &options(&s3::endpoint())).unwrap()
}

/// Copies all objects below a place to another one.
fn copy_objects(from: &str, to: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let (from, to) = (place(from), place(to));
        for file in from.list("").await.unwrap() {
            let content = from.read(&file.path).await.unwrap().unwrap();
            to.write(&file.path, content).await.unwrap();
        }
    });
}

#[test]
fn a_savepoint_in_a_bucket_goes_on_from_another_bucket_and_prefix() {
    let (first, second) = (bucket(), bucket());
    let (saves, all) = (format!("s3://{first}/saves"), format!("s3://{second}"));
    let server = allowing(&[&saves, &all], &s3::endpoint());
    let input = input(&server, "rows");
    let directory = |name: &str| server.files().join(name);
    for (name, threads) in [("one", 1), ("two", 2)] {
        job(&server, name, &script(&input, name, &directory(name), ""), threads);
    }
    let run = server.post("/api/v1/jobs/one/runs", &json!({})).expect(202).json();
    server.wait_for_run(&run, "a third of the rows", |run| rows_in(run) > Some(4000));
    let jobs = "/api/v1/jobs/one/savepoints";
    let wanted = json!({"name": "x", "location": format!("{saves}/deep/")});
    let taken = succeeded(&server, &server.post(jobs, &wanted).expect(202).json());
    let location = taken["location"].as_str().unwrap();
    assert_eq!(location, format!("{saves}/deep/{}", id(&taken)));
    assert_eq!(server.post(jobs, &wanted).expect(202).json()["savepoint"], taken["id"], "the same is found again");
    server.post(jobs, &json!({"name": "x", "location": all})).refused(409, "name_taken");
    server.post(jobs, &json!({"name": "x"})).refused(409, "name_taken");
    let keys = || s3::keys(&first).into_iter().filter(|key| key.contains(&id(&taken))).collect::<Vec<_>>();
    assert!(keys().iter().any(|key| key.ends_with("manifest.json")), "{:?}", keys());
    assert!(!server.data().join("savepoints").exists(), "nothing of it is here");
    let check = format!("/api/v1/savepoints/{}/check", id(&taken));
    let verdicts = server.post(&check, &json!({"job": "two"})).expect(200).json();
    assert_eq!((&verdicts["fits"], &verdicts["verified"]), (&json!(true), &json!(true)), "{verdicts}");

    // Copied, and the first one deleted.
    let moved = format!("{all}/from/elsewhere");
    copy_objects(location, &moved);
    server.delete(&format!("/api/v1/savepoints/{}", id(&taken))).expect(204);
    assert_eq!(keys(), Vec::<String>::new(), "its objects are gone");
    let second = start(&server, "two", &format!("{moved}/"));
    let ended = server.wait_for_end(&second);
    assert_eq!(ended["state"], "finished", "{ended}");
    assert!(rows_in(&ended) < Some(ROWS as u64 - 3000), "what was read before is not read again: {ended}");
    let mut windows = Sums::new();
    add(&mut windows, committed(&directory("one"), taken["epoch"].as_i64().unwrap()), "first");
    add(&mut windows, committed(&directory("two"), i64::MAX), "second");
    assert_eq!(windows, expected_windows());
    let mut sums = Sums::new();
    add(&mut sums, server.rows("two_sums"), "sums");
    assert_eq!(sums, expected(|_| String::new()));
    server.wait_for_end(&run);
}

#[test]
fn a_place_that_is_not_allowed_or_has_no_savepoint_is_refused() {
    let bucket = bucket();
    let saves = format!("s3://{bucket}/saves");
    let server = allowing(&[&saves, "s3://no-such-bucket"], &s3::endpoint());
    let run = endless(&server, "places");
    let (jobs, runs) = ("/api/v1/jobs/places/savepoints", "/api/v1/jobs/places/runs");
    for (location, status, code) in [
        (format!("s3://{bucket}/other"), 403, "location_not_allowed"),
        (format!("s3://{bucket}/savess"), 403, "location_not_allowed"),
        (format!("{saves}/../other"), 422, "validation_failed"),
        ("s3://".into(), 422, "validation_failed"),
        ("s3:///x".into(), 422, "validation_failed"),
    ] {
        server.post(jobs, &json!({"location": location})).refused(status, code);
    }
    server.post(jobs, &json!({"location": "gs://bucket"})).refused(422, "validation_failed");
    // The bucket is missing: it is found out when the savepoint is made, and said.
    let asked = server.post(jobs, &json!({"location": "s3://no-such-bucket/x"})).expect(202).json();
    let failed = wait(&server, &asked);
    let said = failed["failure"]["detail"].as_str().unwrap_or_default();
    assert_eq!(
        (&failed["state"], &failed["failure"]["code"]),
        (&json!("failed"), &json!("savepoint_storage")),
        "{failed}"
    );
    assert!(said.contains("no-such-bucket") && said.contains("does not exist"), "{said}");
    cancel(&server, &run);
    for (savepoint, status, code) in [
        (format!("{saves}/nothing"), 404, "savepoint_not_found"),
        (format!("s3://{bucket}/other"), 403, "location_not_allowed"),
        ("s3://no-such-bucket/x".into(), 422, "savepoint_storage"),
    ] {
        server.post(runs, &json!({"from": "savepoint", "savepoint": savepoint})).refused(status, code);
    }
}

/// What a bucket does, from a request on.
const GOOD: u64 = 0;
const READ_ONLY: u64 = 1;
const UNREACHABLE: u64 = 2;
/// Credentials that end, or are exchanged, between two files.
const DENIED_BEHIND_ONE: u64 = 3;
const UNREADABLE: u64 = 4;

/// Whatever the bucket says, the job goes on, the savepoint says why it failed, and the checkpoint it was to be of is not lost.
#[test]
fn a_bucket_that_cannot_be_used_fails_the_savepoint_and_nothing_else() {
    let bucket = bucket();
    let saves = format!("s3://{bucket}/saves");
    let (state, writes) = (Arc::new(AtomicU64::new(GOOD)), AtomicU64::new(0));
    let now = state.clone();
    let proxy = Proxy::start(move |request| {
        let denied = Fate::Refused("403 Forbidden", "AccessDenied");
        match now.load(Ordering::SeqCst) {
            READ_ONLY if request.changes() => denied,
            UNREACHABLE => Fate::Closed,
            DENIED_BEHIND_ONE if request.changes() && writes.fetch_add(1, Ordering::SeqCst) > 0 => {
                Fate::Refused("403 Forbidden", "SignatureDoesNotMatch")
            }
            UNREADABLE if !request.changes() && request.is_about("/state/") => denied,
            _ => Fate::Passed,
        }
    });
    let server = allowing(&[&saves], &proxy.address);
    let run = endless(&server, "bucket");
    let (jobs, runs) = ("/api/v1/jobs/bucket/savepoints", "/api/v1/jobs/bucket/runs");
    for (what, name, said) in [
        (READ_ONLY, "read-only", "is not allowed"),
        (UNREACHABLE, "unreachable", "cannot be reached"),
        (DENIED_BEHIND_ONE, "denied", "SignatureDoesNotMatch"),
    ] {
        state.store(what, Ordering::SeqCst);
        let asked = server.post(jobs, &json!({"name": name, "location": saves})).expect(202).json();
        let failed = wait(&server, &asked);
        let failure = &failed["failure"];
        assert_eq!((&failed["state"], &failure["code"]), (&json!("failed"), &json!("savepoint_storage")), "{failed}");
        let detail = failure["detail"].as_str().unwrap();
        assert!(detail.contains(said) && detail.contains(&saves), "{name}: {detail}");
        assert!(!failed.to_string().contains("hushhush"), "no secret is shown: {failed}");
        // Half of one is none.
        let keys = s3::keys(&bucket);
        assert!(!keys.iter().any(|key| key.ends_with("manifest.json")), "{keys:?}");
        state.store(GOOD, Ordering::SeqCst);
        let path = format!("/api/v1/savepoints/{}/check", failed["savepoint"].as_str().unwrap());
        server.post(&path, &json!({"job": "bucket"})).refused(409, "invalid_state");
    }
    assert!(s3::keys(&bucket).iter().any(|key| key.contains("/state/")), "one was written by halves");
    // Stopping with one that fails stops all the same, and what is committed can be copied again.
    state.store(READ_ONLY, Ordering::SeqCst);
    let stop = json!({"mode": "savepoint", "name": "stop", "location": saves});
    let stopping = server.post(&format!("/api/v1/runs/{}/stop", id(&run)), &stop).expect(202).json();
    assert_eq!(wait(&server, &stopping)["state"], "failed");
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("stopped"), &json!(1)), "{ended}");
    state.store(GOOD, Ordering::SeqCst);
    let again = json!({"name": "again", "location": saves});
    let taken = succeeded(&server, &server.post(jobs, &again).expect(202).json());
    assert_eq!(taken["epoch"], ended["progress"]["committed_epoch"], "{taken}");
    // Where it cannot be read nothing begins.
    let from = json!({"from": "savepoint", "savepoint": "again"});
    for (what, said) in [(UNREADABLE, "is not allowed"), (UNREACHABLE, "cannot be reached")] {
        state.store(what, Ordering::SeqCst);
        let problem = server.post(runs, &from).refused(422, "savepoint_storage");
        assert!(problem["detail"].as_str().unwrap().contains(said), "{problem}");
    }
    state.store(GOOD, Ordering::SeqCst);
    let on = server.post(runs, &from).expect(202).json();
    let before = rows_in(&ended).unwrap();
    wait_for_checkpoints(&server, &on);
    let counted: u64 = server.rows("bucket").iter().map(|row| row["n"].as_u64().unwrap()).sum();
    assert!(counted > before, "it went on from {before} rows: {counted}");
    cancel(&server, &on);
}
