//! What every store must do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use chrono::Duration;
use futures::future::join_all;
use metadata::*;
use serde_json::json;
use uuid::Uuid;

use crate::fixtures::*;

/// Each test runs on both databases.
macro_rules! conformance {
    ($($test:ident),* $(,)?) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(&crate::fixtures::Subject::sqlite().await).await; })*
        }
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() { super::$test(&crate::fixtures::Subject::postgres().await).await; })*
        }
    };
}

conformance![
    jobs_come_back_as_they_went_in,
    a_name_belongs_to_one_job,
    a_job_is_updated_by_who_read_it_last,
    a_view_belongs_to_one_job_at_a_time,
    jobs_are_filtered,
    ten_thousand_jobs_are_paged_at_any_depth,
    a_job_has_one_active_run,
    a_run_moves_by_compare_and_set,
    the_state_of_a_job_is_that_of_its_newest_run,
    facts_are_guarded_by_the_generation,
    deleting_a_job_takes_all_that_is_its_own,
    operations_end_once,
    connections_and_their_secrets,
    options_and_secrets_are_of_one_revision,
    what_is_used_stays,
    tables_are_created_once,
    keys_are_revoked_once,
    every_change_is_audited_and_failures_are_not,
    a_gap_in_the_audit_log_shows,
    an_answer_is_given_once,
    old_answers_and_operations_are_forgotten,
    of_two_at_once_one_wins,
    changes_at_once_make_one_chain,
    what_failed_left_nothing,
    constraints_hold_behind_the_program,
    a_leader_is_followed_by_a_larger_term,
    a_lease_that_was_given_back_is_free,
    the_longest_names_and_values_that_are_allowed,
    hostile_text_is_only_text,
    how_long_a_change_takes,
];

macro_rules! fails {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {
        match $result {
            Err($pattern) $(if $guard)? => {}
            other => panic!("expected {}, got {other:?}", stringify!($pattern $(if $guard)?)),
        }
    };
}

async fn jobs_come_back_as_they_went_in(subject: &Subject) {
    let store = &*subject.store;
    let job = job("Bids per Minute");
    let version = JobVersion { views: vec![view("bids")], ..version(&job) };
    store.create_job(&job, &version, &change("job.create")).await.unwrap();
    assert_eq!(store.job(job.job_id).await.unwrap(), job);
    assert_eq!(store.job_named("Bids per Minute").await.unwrap(), job);
    assert_eq!(store.version(job.job_id, 1).await.unwrap(), version);
    let graph = store.version(job.job_id, 1).await.unwrap().graph;
    assert_eq!(graph.to_string(), version.graph.to_string(), "the order of keys stays");

    let nobody = Uuid::now_v7();
    fails!(store.job(nobody).await, MetadataError::NotFound { kind: "job", name } if name == nobody.to_string());
    fails!(store.job_named("bids per minute").await, MetadataError::NotFound { kind: "job", .. });
    fails!(store.version(job.job_id, 2).await, MetadataError::NotFound { kind: "version", .. });
    fails!(store.run(nobody).await, MetadataError::NotFound { kind: "run", .. });
    fails!(store.run_events(nobody).await, MetadataError::NotFound { kind: "run", .. });
    fails!(store.operation(nobody).await, MetadataError::NotFound { kind: "operation", .. });
    fails!(store.view("no").await, MetadataError::NotFound { kind: "view", .. });
    fails!(store.table("no").await, MetadataError::NotFound { kind: "table", .. });
    fails!(store.connection("no").await, MetadataError::NotFound { kind: "connection", .. });
    fails!(store.connection_with_secrets("no").await, MetadataError::NotFound { kind: "connection", .. });
    store.ping().await.unwrap();
}

async fn a_name_belongs_to_one_job(subject: &Subject) {
    let store = &*subject.store;
    let first = stored(store, "a").await;
    let second = job("a");
    fails!(
        store.create_job(&second, &version(&second), &change("job.create")).await,
        MetadataError::Exists { kind: "job", name, id } if name == "a" && id == first.job_id
    );
    let other = stored(store, "b").await;
    let renamed = Job { name: "a".to_owned(), ..other.clone() };
    fails!(
        store.update_job(&renamed, None, &change("job.update")).await,
        MetadataError::Exists { kind: "job", id, .. } if id == first.job_id
    );
    // A name that was given up is free.
    store.update_job(&Job { name: "c".to_owned(), ..first.clone() }, None, &change("job.update")).await.unwrap();
    let renamed = store.update_job(&renamed, None, &change("job.update")).await.unwrap();
    assert_eq!((renamed.name.as_str(), renamed.revision), ("a", 2));
}

async fn a_job_is_updated_by_who_read_it_last(subject: &Subject) {
    let store = &*subject.store;
    let first = stored(store, "a").await;
    let next = Job {
        labels: labels(&[("tier", "1")]),
        version: 2,
        updated_at: first.updated_at + Duration::seconds(1),
        ..first.clone()
    };
    let second_version = JobVersion { sql: None, ..version(&next) };
    let after = store.update_job(&next, Some(&second_version), &change("job.update")).await.unwrap();
    assert_eq!(after, Job { revision: 2, ..next.clone() });
    assert_eq!(store.job(first.job_id).await.unwrap(), after);
    assert_eq!(store.version(first.job_id, 2).await.unwrap(), second_version);
    assert_eq!(store.version(first.job_id, 1).await.unwrap().version, 1, "old versions stay");
    let by = |pairs| JobFilter { labels: labels(pairs), ..JobFilter::default() };
    assert_eq!(store.jobs(&by(&[("team", "ads")]), page(9)).await.unwrap(), []);
    assert_eq!(store.jobs(&by(&[("tier", "1")]), page(9)).await.unwrap(), std::slice::from_ref(&after));

    // Who read revision 1 is too late, with and without a version.
    for late in [None, Some(&second_version)] {
        fails!(
            store.update_job(&next, late, &change("job.update")).await,
            MetadataError::Stale { kind: "job", expected: 1, current: 2, name } if name == "a"
        );
    }
    fails!(
        store.delete_job(first.job_id, 1, &change("job.delete")).await,
        MetadataError::Stale { expected: 1, current: 2, .. }
    );
    fails!(
        store.update_job(&job("nobody"), None, &change("job.update")).await,
        MetadataError::NotFound { kind: "job", .. }
    );
    assert_eq!(store.job(first.job_id).await.unwrap(), after);
    let third = Job { version: 3, ..after };
    let after = store.update_job(&third, Some(&version(&third)), &change("job.update")).await.unwrap();
    assert_eq!((after.version, after.revision), (3, 3));
}

async fn a_view_belongs_to_one_job_at_a_time(subject: &Subject) {
    let store = &*subject.store;
    let first = job("a");
    let writes =
        |job: &Job, names: &[&str]| JobVersion { views: names.iter().map(|name| view(name)).collect(), ..version(job) };
    store.create_job(&first, &writes(&first, &["v", "w"]), &change("job.create")).await.unwrap();
    let second = job("b");
    fails!(
        store.create_job(&second, &writes(&second, &["x", "w"]), &change("job.create")).await,
        MetadataError::Exists { kind: "view", name, id } if name == "w" && id == first.job_id
    );
    fails!(store.job(second.job_id).await, MetadataError::NotFound { .. });
    fails!(store.view("x").await, MetadataError::NotFound { .. });
    store.create_job(&second, &writes(&second, &["x"]), &change("job.create")).await.unwrap();
    let seen = store.view("w").await.unwrap();
    assert_eq!((seen.job_id, seen.job_name.as_str(), seen.definition), (first.job_id, "a", view("w").definition));
    assert_eq!(names(store.views().await.unwrap()), ["v", "w", "x"]);

    // A new version gives up what it does not write.
    let next = Job { version: 2, ..first.clone() };
    store.update_job(&next, Some(&writes(&next, &["v"])), &change("job.update")).await.unwrap();
    let next = Job { version: 2, ..second.clone() };
    fails!(
        store.update_job(&next, Some(&writes(&next, &["v"])), &change("job.update")).await,
        MetadataError::Exists { kind: "view", id, .. } if id == first.job_id
    );
    assert_eq!(store.job(second.job_id).await.unwrap(), second);
    fails!(store.version(second.job_id, 2).await, MetadataError::NotFound { .. });
    store.update_job(&next, Some(&writes(&next, &["w"])), &change("job.update")).await.unwrap();
    assert_eq!(store.view("w").await.unwrap().job_id, second.job_id);
    store.delete_job(first.job_id, 2, &change("job.delete")).await.unwrap();
    assert_eq!(names(store.views().await.unwrap()), ["w"]);
}

fn names(views: Vec<View>) -> Vec<String> {
    views.into_iter().map(|view| view.name).collect::<BTreeSet<_>>().into_iter().collect()
}

async fn jobs_are_filtered(subject: &Subject) {
    let store = &*subject.store;
    let mut all = Vec::new();
    for (name, pairs) in [
        ("Orders_1", vec![("team", "ads"), ("env", "prod")]),
        ("orders%2", vec![("team", "ads"), ("env", "test")]),
        ("ÄRGER", vec![("team", "ops")]),
        ("plain", vec![]),
    ] {
        let job = Job { labels: labels(&pairs), ..job(name) };
        store.create_job(&job, &version(&job), &change("job.create")).await.unwrap();
        all.push(job);
    }
    let found = async |filter: JobFilter| -> Vec<String> {
        store.jobs(&filter, page(10)).await.unwrap().into_iter().map(|job| job.name).collect()
    };
    let all_names = ["plain", "ÄRGER", "orders%2", "Orders_1"];
    assert_eq!(found(JobFilter::default()).await, all_names, "newest first");
    let q = |part: &str| JobFilter { q: Some(part.to_owned()), ..JobFilter::default() };
    assert_eq!(found(q("ORDERS")).await, ["orders%2", "Orders_1"]);
    assert_eq!(found(q("s_")).await, ["Orders_1"], "no wildcard");
    assert_eq!(found(q("%")).await, ["orders%2"], "no wildcard");
    assert_eq!(found(q("ärg")).await, ["ÄRGER"]);
    assert_eq!(found(q("")).await, all_names);
    let by = |pairs: &[(&str, &str)]| JobFilter { labels: labels(pairs), ..JobFilter::default() };
    assert_eq!(found(by(&[("team", "ads")])).await, ["orders%2", "Orders_1"]);
    assert_eq!(found(by(&[("team", "ads"), ("env", "prod")])).await, ["Orders_1"], "all labels");
    assert_eq!(found(by(&[("env", "ads")])).await, [""; 0]);

    store.create_run(&run(&all[0]), &change("run.create")).await.unwrap();
    let states = |names: &[&str]| JobFilter {
        states: names.iter().map(|name| (*name).to_owned()).collect(),
        ..JobFilter::default()
    };
    assert_eq!(found(states(&["pending"])).await, ["Orders_1"]);
    assert_eq!(found(states(&["created"])).await, ["plain", "ÄRGER", "orders%2"]);
    assert_eq!(found(states(&["created", "pending"])).await, all_names);
    assert_eq!(found(JobFilter { states: vec!["created".into()], ..q("orders") }).await, ["orders%2"]);
}

async fn ten_thousand_jobs_are_paged_at_any_depth(subject: &Subject) {
    let store = &*subject.store;
    // 500 as they should be, then twenty times as many by copying: making 10,000 one by one is another test.
    for index in 0..500 {
        stored(store, &format!("job-{index}")).await;
    }
    let copy = |id: &str| {
        format!(
            "WITH RECURSIVE copies (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < 19)
             INSERT INTO job (job_id, name, name_folded, labels, version, revision, state, created_at, updated_at)
             SELECT {id}, name || '-' || n, name_folded || '-' || n, labels, version, revision,
                    CASE WHEN n = 7 THEN 'failed' ELSE state END, created_at, updated_at
             FROM job CROSS JOIN copies"
        )
    };
    subject.behind_its_back(&subject.pick(copy("randomblob(16)"), copy("gen_random_uuid()"))).await;
    let total = 500 * 20;
    for (filter, expected) in [
        (JobFilter::default(), total),
        (JobFilter { q: Some("JOB-4".into()), ..JobFilter::default() }, 111 * 20),
        (JobFilter { states: vec!["failed".into()], ..JobFilter::default() }, 500),
        (JobFilter { states: vec!["created".into(), "running".into()], ..JobFilter::default() }, total - 500),
        (JobFilter { labels: labels(&[("team", "ads")]), ..JobFilter::default() }, 500),
    ] {
        let mut after = None;
        let mut seen = Vec::new();
        let mut slowest = std::time::Duration::ZERO;
        loop {
            let begun = Instant::now();
            let jobs = store.jobs(&filter, Page { after, limit: 100 }).await.unwrap();
            slowest = slowest.max(begun.elapsed());
            seen.extend(jobs.iter().map(|job| job.job_id));
            assert!(seen.len() <= expected, "the pages come to an end");
            match jobs.last() {
                Some(last) => after = Some(last.job_id),
                None => break,
            }
        }
        assert_eq!(seen.len(), expected);
        assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "newest first, none twice");
        eprintln!("{filter:?}: slowest page of 100 of {expected}: {slowest:?}");
        assert!(slowest < std::time::Duration::from_millis(250), "a page took {slowest:?}");
    }
}

async fn a_job_has_one_active_run(subject: &Subject) {
    let store = &*subject.store;
    let job = stored(store, "a").await;
    let first = run(&job);
    store.create_run(&first, &change("run.create")).await.unwrap();
    assert_eq!(store.run(first.run_id).await.unwrap(), first);
    fails!(
        store.create_run(&run(&job), &change("run.create")).await,
        MetadataError::RunActive { run_id, state } if run_id == first.run_id && state == "pending"
    );
    fails!(
        store.delete_job(job.job_id, 1, &change("job.delete")).await,
        MetadataError::RunActive { run_id, .. } if run_id == first.run_id
    );
    let absent = Run { job_id: Uuid::now_v7(), ..run(&job) };
    fails!(store.create_run(&absent, &change("run.create")).await, MetadataError::NotFound { kind: "job", .. });
    store.move_run(&step(&first, &["pending"], "failed")).await.unwrap();
    let unknown = Run { version: 9, ..run(&job) };
    fails!(store.create_run(&unknown, &change("run.create")).await, MetadataError::NotFound { kind: "version", .. });
    let second = run(&job);
    store.create_run(&second, &change("run.create")).await.unwrap();

    let other = stored(store, "b").await;
    let third = run(&other);
    store.create_run(&third, &change("run.create")).await.unwrap();
    let ids = |runs: Vec<Run>| runs.into_iter().map(|run| run.run_id).collect::<Vec<_>>();
    assert_eq!(ids(store.active_runs().await.unwrap()), [second.run_id, third.run_id], "oldest first");
    let all = RunFilter::default();
    assert_eq!(ids(store.runs(&all, page(9)).await.unwrap()), [third.run_id, second.run_id, first.run_id]);
    assert_eq!(ids(store.runs(&all, page(2)).await.unwrap()), [third.run_id, second.run_id]);
    let after = Page { after: Some(second.run_id), limit: 9 };
    assert_eq!(ids(store.runs(&all, after).await.unwrap()), [first.run_id]);
    let of_job = RunFilter { job_id: Some(job.job_id), states: vec!["failed".into(), "running".into()] };
    assert_eq!(ids(store.runs(&of_job, page(9)).await.unwrap()), [first.run_id]);
}

async fn a_run_moves_by_compare_and_set(subject: &Subject) {
    let store = &*subject.store;
    let job = stored(store, "a").await;
    let first = run(&job);
    store.create_run(&first, &change("run.create")).await.unwrap();
    let started = now();
    let start = RunMove {
        new_generation: Some(1),
        facts: Some(json!({"start": {"0": 5}})),
        started_at: Some(started),
        cause: Some("placed".into()),
        ..step(&first, &["pending"], "starting")
    };
    let starting = store.move_run(&start).await.unwrap();
    let expected = Run {
        state: "starting".into(),
        generation: 1,
        facts: json!({"start": {"0": 5}}),
        started_at: Some(started),
        revision: 2,
        ..first.clone()
    };
    assert_eq!(starting, expected);
    assert_eq!(store.run(first.run_id).await.unwrap(), expected);
    // Done already: nothing happens again.
    assert_eq!(store.move_run(&start).await.unwrap(), expected);
    assert_eq!(store.run_events(first.run_id).await.unwrap().len(), 2);

    // Another state, another generation.
    fails!(
        store.move_run(&step(&starting, &["pending", "running"], "stopping")).await,
        MetadataError::Moved { run_id, state, generation: 1 } if run_id == first.run_id && state == "starting"
    );
    fails!(store.move_run(&step(&first, &["starting"], "running")).await, MetadataError::Moved { generation: 1, .. });
    let absent = Run { run_id: Uuid::now_v7(), ..first.clone() };
    fails!(store.move_run(&step(&absent, &["pending"], "failed")).await, MetadataError::NotFound { kind: "run", .. });
    assert_eq!(store.run(first.run_id).await.unwrap(), expected);

    let failure = json!({"code": "process_lost"});
    let ended = now();
    let fail = RunMove {
        failure: Some(failure.clone()),
        ended_at: Some(ended),
        cause: Some("killed\0".into()),
        ..step(&starting, &["starting", "running"], "failed")
    };
    let failed = store.move_run(&fail).await.unwrap();
    let expected = Run {
        state: "failed".into(),
        active: false,
        failure: Some(failure),
        ended_at: Some(ended),
        revision: 3,
        ..expected
    };
    assert_eq!(failed, expected, "what the move does not name stays");
    let events = store.run_events(first.run_id).await.unwrap();
    let moves: Vec<_> = events.iter().map(|event| (event.sequence, event.from.as_deref(), event.to.as_str())).collect();
    assert_eq!(moves, [(1, None, "pending"), (2, Some("pending"), "starting"), (3, Some("starting"), "failed")]);
    assert_eq!(events[1].cause.as_deref(), Some("placed"));
    assert_eq!(events[2].at, fail.at);
}

async fn the_state_of_a_job_is_that_of_its_newest_run(subject: &Subject) {
    let store = &*subject.store;
    let job = stored(store, "a").await;
    let first = run(&job);
    store.create_run(&first, &change("run.create")).await.unwrap();
    let seen = store.job(job.job_id).await.unwrap();
    assert_eq!((seen.state.as_str(), seen.latest_run, seen.revision), ("pending", Some(first.run_id), 1));
    store.move_run(&step(&first, &["pending"], "cancelled")).await.unwrap();
    assert_eq!(store.job(job.job_id).await.unwrap().state, "cancelled");
    let second = run(&job);
    store.create_run(&second, &change("run.create")).await.unwrap();
    let seen = store.job(job.job_id).await.unwrap();
    assert_eq!((seen.state.as_str(), seen.latest_run), ("pending", Some(second.run_id)));
    // Late news of an older one are its own.
    store.move_run(&step(&first, &["cancelled"], "failed")).await.unwrap();
    assert_eq!(store.run(first.run_id).await.unwrap().state, "failed");
    assert_eq!(store.job(job.job_id).await.unwrap().state, "pending");
    // A change of the job in between does not take the state back to what its writer had read.
    let moved = step(&second, &["pending"], "running");
    store.move_run(&moved).await.unwrap();
    let after = store.update_job(&job, None, &change("job.update")).await.unwrap();
    assert_eq!((after.state.as_str(), after.latest_run), ("running", Some(second.run_id)));
}

async fn facts_are_guarded_by_the_generation(subject: &Subject) {
    let store = &*subject.store;
    let job = stored(store, "a").await;
    let run = run(&job);
    store.create_run(&run, &change("run.create")).await.unwrap();
    store.set_run_facts(run.run_id, 0, &json!({"rows": 5})).await.unwrap();
    let seen = store.run(run.run_id).await.unwrap();
    assert_eq!((seen.facts, seen.revision), (json!({"rows": 5}), 2));
    fails!(store.set_run_facts(run.run_id, 1, &json!({"rows": 9})).await, MetadataError::Moved { generation: 0, .. });
    fails!(store.set_run_facts(Uuid::now_v7(), 0, &json!({})).await, MetadataError::NotFound { kind: "run", .. });
    assert_eq!(store.run(run.run_id).await.unwrap().facts, json!({"rows": 5}));
    assert_eq!(store.run_events(run.run_id).await.unwrap().len(), 1);
}

async fn deleting_a_job_takes_all_that_is_its_own(subject: &Subject) {
    let store = &*subject.store;
    store.put_connection(&connection("k"), &secrets("s"), &change("connection.create")).await.unwrap();
    let doomed = job("a");
    let versions = JobVersion { views: vec![view("v")], connections: vec!["k".into()], ..version(&doomed) };
    store.create_job(&doomed, &versions, &change("job.create")).await.unwrap();
    let stays = stored(store, "b").await;
    let other = run(&stays);
    store.create_run(&other, &change("run.create")).await.unwrap();
    let first = run(&doomed);
    store.create_run(&first, &change("run.create")).await.unwrap();
    store.move_run(&step(&first, &["pending"], "failed")).await.unwrap();
    store.delete_job(doomed.job_id, 1, &change("job.delete")).await.unwrap();
    fails!(store.job(doomed.job_id).await, MetadataError::NotFound { .. });
    fails!(store.version(doomed.job_id, 1).await, MetadataError::NotFound { .. });
    fails!(store.run(first.run_id).await, MetadataError::NotFound { .. });
    fails!(store.run_events(first.run_id).await, MetadataError::NotFound { .. });
    fails!(store.view("v").await, MetadataError::NotFound { .. });
    fails!(store.move_run(&step(&first, &["failed"], "running")).await, MetadataError::NotFound { .. });
    fails!(store.delete_job(doomed.job_id, 1, &change("job.delete")).await, MetadataError::NotFound { .. });
    store.delete_connection("k", 1, &change("connection.delete")).await.unwrap();
    assert_eq!(store.run(other.run_id).await.unwrap(), other);
    assert_eq!(store.jobs(&JobFilter::default(), page(9)).await.unwrap().len(), 1);
    let again = job("a");
    let takes = JobVersion { views: vec![view("v")], ..version(&again) };
    store.create_job(&again, &takes, &change("job.create")).await.unwrap();
}

async fn operations_end_once(subject: &Subject) {
    let store = &*subject.store;
    let first = operation();
    let second = operation();
    for operation in [&first, &second] {
        store.create_operation(operation, &change("run.stop")).await.unwrap();
    }
    assert_eq!(store.operation(first.operation_id).await.unwrap(), first);
    assert_eq!(store.running_operations().await.unwrap(), [first.clone(), second.clone()]);
    let further = Operation { progress: json!({"done": 1}), ..first.clone() };
    store.update_operation(&further).await.unwrap();
    assert_eq!(store.operation(first.operation_id).await.unwrap(), further);
    let ended = Operation {
        state: "succeeded".into(),
        result: Some(json!({"state": "stopped"})),
        ended_at: Some(now()),
        ..further
    };
    store.update_operation(&ended).await.unwrap();
    // Late news change nothing.
    let late = Operation { state: "failed".into(), failure: Some(json!({})), ended_at: Some(now()), ..first.clone() };
    store.update_operation(&late).await.unwrap();
    assert_eq!(store.operation(first.operation_id).await.unwrap(), ended);
    assert_eq!(store.running_operations().await.unwrap(), [second]);
    fails!(store.update_operation(&operation()).await, MetadataError::NotFound { kind: "operation", .. });
}

async fn connections_and_their_secrets(subject: &Subject) {
    let store = &*subject.store;
    let first = connection("k");
    store.put_connection(&first, &secrets("one"), &change("connection.create")).await.unwrap();
    assert_eq!(store.connection("k").await.unwrap(), first);
    let two = BTreeMap::from([("password".to_owned(), vec![0, 1]), ("token".to_owned(), vec![])]);
    let several = Connection { secret_names: vec!["password".into(), "token".into()], ..connection("several") };
    store.put_connection(&several, &two, &change("connection.create")).await.unwrap();
    assert_eq!(store.connection_with_secrets("several").await.unwrap(), (several, two));
    assert_eq!(store.connection_with_secrets("k").await.unwrap(), (first.clone(), secrets("one")));
    fails!(
        store.put_connection(&connection("k"), &secrets("two"), &change("connection.create")).await,
        MetadataError::Exists { kind: "connection", id, .. } if id == first.connection_id
    );
    let next = Connection { revision: 2, kind: "s3".into(), secret_names: vec![], ..first.clone() };
    store.put_connection(&next, &Default::default(), &change("connection.update")).await.unwrap();
    assert_eq!(store.connection("k").await.unwrap(), next);
    let gone = (next.clone(), BTreeMap::new());
    assert_eq!(store.connection_with_secrets("k").await.unwrap(), gone, "old secrets are gone");
    fails!(
        store.put_connection(&next, &secrets("late"), &change("connection.update")).await,
        MetadataError::Stale { kind: "connection", expected: 1, current: 2, .. }
    );
    let absent = Connection { revision: 2, ..connection("absent") };
    fails!(
        store.put_connection(&absent, &secrets("x"), &change("connection.update")).await,
        MetadataError::NotFound { kind: "connection", .. }
    );
    let of_old = Connection { connection_id: Uuid::now_v7(), revision: 3, ..next.clone() };
    fails!(
        store.put_connection(&of_old, &secrets("x"), &change("connection.update")).await,
        MetadataError::NotFound { kind: "connection", .. }
    );
    store.put_connection(&connection("l"), &secrets("l"), &change("connection.create")).await.unwrap();
    let names: Vec<String> = store.connections().await.unwrap().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["l", "several", "k"]);
    fails!(
        store.delete_connection("k", 1, &change("connection.delete")).await,
        MetadataError::Stale { expected: 1, current: 2, .. }
    );
    store.delete_connection("k", 2, &change("connection.delete")).await.unwrap();
    fails!(store.connection_with_secrets("k").await, MetadataError::NotFound { .. });
    fails!(
        store.delete_connection("k", 2, &change("connection.delete")).await,
        MetadataError::NotFound { kind: "connection", .. }
    );
}

async fn options_and_secrets_are_of_one_revision(subject: &Subject) {
    let store = &*subject.store;
    store.put_connection(&connection("k"), &secrets("1"), &change("connection.create")).await.unwrap();
    let over = AtomicBool::new(false);
    let reading = async {
        let mut seen = BTreeSet::new();
        while !over.load(Ordering::Relaxed) {
            let (connection, secrets) = store.connection_with_secrets("k").await.unwrap();
            assert_eq!(secrets, self::secrets(&connection.revision.to_string()));
            seen.insert(connection.revision);
        }
        seen.len()
    };
    let writing = async {
        let first = store.connection("k").await.unwrap();
        for revision in 2..150 {
            let next = Connection { revision, ..first.clone() };
            let sealed = secrets(&revision.to_string());
            store.put_connection(&next, &sealed, &change("connection.replace")).await.unwrap();
        }
        over.store(true, Ordering::Relaxed);
    };
    let (seen, ()) = tokio::join!(reading, writing);
    assert!(seen > 1, "nothing was read in between");
}

async fn what_is_used_stays(subject: &Subject) {
    let store = &*subject.store;
    let needs = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let user = Table { connections: needs(&["k"]), ..table("t") };
    fails!(
        store.create_table(&user, &change("table.create")).await,
        MetadataError::NotFound { kind: "connection", name } if name == "k"
    );
    fails!(store.table("t").await, MetadataError::NotFound { .. });
    store.put_connection(&connection("k"), &secrets("s"), &change("connection.create")).await.unwrap();
    store.create_table(&user, &change("table.create")).await.unwrap();
    assert_eq!(store.table("t").await.unwrap(), user);
    fails!(
        store.delete_connection("k", 1, &change("connection.delete")).await,
        MetadataError::InUse { kind: "connection", name, by } if name == "k" && by == "table 't'"
    );
    let doer = job("j");
    let using = JobVersion { connections: needs(&["k", "k"]), ..version(&doer) };
    store.create_job(&doer, &using, &change("job.create")).await.unwrap();
    store.delete_table("t", 1, &change("table.delete")).await.unwrap();
    fails!(
        store.delete_connection("k", 1, &change("connection.delete")).await,
        MetadataError::InUse { by, .. } if by == "job 'j'"
    );
    // Replacing it is not deleting it.
    let next = Connection { revision: 2, ..store.connection("k").await.unwrap() };
    store.put_connection(&next, &secrets("t"), &change("connection.update")).await.unwrap();
    let free = Job { version: 2, ..doer };
    store.update_job(&free, Some(&version(&free)), &change("job.update")).await.unwrap();
    store.delete_connection("k", 2, &change("connection.delete")).await.unwrap();
    let lost = job("l");
    fails!(
        store.create_job(&lost, &JobVersion { connections: needs(&["k"]), ..version(&lost) }, &change("x")).await,
        MetadataError::NotFound { kind: "connection", .. }
    );
    fails!(store.job(lost.job_id).await, MetadataError::NotFound { kind: "job", .. });
}

async fn tables_are_created_once(subject: &Subject) {
    let store = &*subject.store;
    let first = table("t");
    store.create_table(&first, &change("table.create")).await.unwrap();
    fails!(
        store.create_table(&table("t"), &change("table.create")).await,
        MetadataError::Exists { kind: "table", id, .. } if id == first.table_id
    );
    assert_eq!(store.table("t").await.unwrap(), first);
    let second = table("u");
    store.create_table(&second, &change("table.create")).await.unwrap();
    assert_eq!(store.tables().await.unwrap(), [second, first]);
    fails!(
        store.delete_table("t", 2, &change("table.delete")).await,
        MetadataError::Stale { kind: "table", expected: 2, current: 1, .. }
    );
    for name in ["t", "u"] {
        store.delete_table(name, 1, &change("table.delete")).await.unwrap();
    }
    fails!(store.delete_table("t", 1, &change("table.delete")).await, MetadataError::NotFound { kind: "table", .. });
    assert_eq!(store.tables().await.unwrap(), []);
}

async fn keys_are_revoked_once(subject: &Subject) {
    let store = &*subject.store;
    let first = key("ci");
    store.create_key(&first, &change("key.create")).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), std::slice::from_ref(&first));
    fails!(
        store.create_key(&key("ci"), &change("key.create")).await,
        MetadataError::Exists { kind: "key", id, .. } if id == first.key_id
    );
    let at = now();
    let revoked = ApiKey { revoked_at: Some(at), ..first.clone() };
    assert_eq!(store.revoke_key(first.key_id, at, &change("key.revoke")).await.unwrap(), revoked);
    let lines = store.audit_log(0, 100).await.unwrap().len();
    let later = at + Duration::seconds(5);
    assert_eq!(store.revoke_key(first.key_id, later, &change("key.revoke")).await.unwrap(), revoked);
    assert_eq!(store.audit_log(0, 100).await.unwrap().len(), lines, "nothing changed, nothing is told");
    fails!(
        store.revoke_key(Uuid::now_v7(), at, &change("key.revoke")).await,
        MetadataError::NotFound { kind: "key", .. }
    );
    let second = key("ci");
    store.create_key(&second, &change("key.create")).await.unwrap();
    assert_eq!(store.keys().await.unwrap(), [second, revoked]);
}

async fn every_change_is_audited_and_failures_are_not(subject: &Subject) {
    let store = &*subject.store;
    assert_eq!(store.audit_head().await.unwrap(), (0, String::new()));
    let first = stored(store, "a").await;
    let next = store.update_job(&first, None, &change("job.update")).await.unwrap();
    let run = run(&first);
    store.create_run(&run, &change("run.create")).await.unwrap();
    store.move_run(&step(&run, &["pending"], "failed")).await.unwrap();
    store.create_operation(&operation(), &change("run.stop")).await.unwrap();
    store.put_connection(&connection("k"), &secrets("CANARY"), &change("connection.create")).await.unwrap();
    store.delete_connection("k", 1, &change("connection.delete")).await.unwrap();
    store.create_table(&table("t"), &change("table.create")).await.unwrap();
    store.delete_table("t", 1, &change("table.delete")).await.unwrap();
    let key = key("ci");
    store.create_key(&key, &change("key.create")).await.unwrap();
    store.revoke_key(key.key_id, now(), &change("key.revoke")).await.unwrap();
    store.delete_job(first.job_id, next.revision, &change("job.delete")).await.unwrap();
    let denial = change("job.create");
    store.audit(&denial, "denied").await.unwrap();
    fails!(store.delete_job(first.job_id, 1, &change("job.delete")).await, MetadataError::NotFound { .. });
    fails!(store.delete_table("t", 1, &change("table.delete")).await, MetadataError::NotFound { .. });

    let log = store.audit_log(0, 100).await.unwrap();
    let told: Vec<(&str, &str)> = log.iter().map(|entry| (entry.action.as_str(), entry.outcome.as_str())).collect();
    assert_eq!(
        told,
        [
            ("job.create", "done"),
            ("job.update", "done"),
            ("run.create", "done"),
            ("run.stop", "done"),
            ("connection.create", "done"),
            ("connection.delete", "done"),
            ("table.create", "done"),
            ("table.delete", "done"),
            ("key.create", "done"),
            ("key.revoke", "done"),
            ("job.delete", "done"),
            ("job.create", "denied"),
        ]
    );
    assert!(log.iter().zip(1..).all(|(entry, sequence)| entry.sequence == sequence));
    let last = log.last().unwrap();
    let expected = AuditEntry {
        sequence: 12,
        at: denial.at,
        principal: denial.principal,
        request_id: denial.request_id,
        action: denial.action,
        object: denial.object,
        outcome: "denied".into(),
        detail: denial.detail,
        hash: last.hash.clone(),
    };
    assert_eq!(*last, expected);
    assert_eq!(verify_audit((0, String::new()), &log), Ok((12, last.hash.clone())));
    assert_eq!(store.audit_head().await.unwrap(), (12, last.hash.clone()));
    // By pages.
    let page = store.audit_log(5, 3).await.unwrap();
    assert_eq!(page, log[5..8]);
    assert_eq!(verify_audit((5, log[4].hash.clone()), &page), Ok((8, log[7].hash.clone())));
    assert_eq!(verify_audit((5, log[3].hash.clone()), &page), Err(6), "a line follows one line only");
}

async fn a_gap_in_the_audit_log_shows(subject: &Subject) {
    let store = &*subject.store;
    for index in 0..6 {
        stored(store, &format!("job-{index}")).await;
    }
    let start = || (0, String::new());
    let log = store.audit_log(0, 100).await.unwrap();
    // Each field counts.
    for change_it in [
        |entry: &mut AuditEntry| entry.at += Duration::microseconds(1),
        |entry: &mut AuditEntry| entry.principal.push('x'),
        |entry: &mut AuditEntry| entry.request_id.push('x'),
        |entry: &mut AuditEntry| entry.action.push('x'),
        |entry: &mut AuditEntry| entry.object.push('x'),
        |entry: &mut AuditEntry| entry.outcome = "denied".into(),
        |entry: &mut AuditEntry| entry.detail = json!({}),
        |entry: &mut AuditEntry| entry.hash = "00".into(),
    ] {
        let mut forged = log.clone();
        change_it(&mut forged[2]);
        assert_eq!(verify_audit(start(), &forged), Err(3));
    }
    subject.behind_its_back("UPDATE audit_entry SET principal = 'nobody' WHERE sequence = 5").await;
    assert_eq!(verify_audit(start(), &store.audit_log(0, 100).await.unwrap()), Err(5));
    subject.behind_its_back("DELETE FROM audit_entry WHERE sequence = 3").await;
    assert_eq!(verify_audit(start(), &store.audit_log(0, 100).await.unwrap()), Err(3));
    subject.behind_its_back("DELETE FROM audit_entry WHERE sequence >= 3").await;
    let end = verify_audit(start(), &store.audit_log(0, 100).await.unwrap()).unwrap();
    assert_ne!(end, store.audit_head().await.unwrap(), "a log cut short shows by its end");
    stored(store, "later").await;
    assert_eq!(verify_audit(start(), &store.audit_log(0, 100).await.unwrap()), Err(3));
}

async fn an_answer_is_given_once(subject: &Subject) {
    let store = &*subject.store;
    let first = job("a");
    let request = with_key("job.create", "k-1", "{\"name\":\"a\"}");
    let stored = request.idempotency.clone().unwrap().answer;
    store.create_job(&first, &version(&first), &request).await.unwrap();
    let find = async |principal: &str, request: &str, key: &str| store.answer(principal, request, key).await.unwrap();
    assert_eq!(find("key_1", "POST /api/v1/jobs", "k-1").await, Some(stored.clone()));
    assert_eq!(find("key_2", "POST /api/v1/jobs", "k-1").await, None);
    assert_eq!(find("key_1", "POST /api/v1/tables", "k-1").await, None);
    assert_eq!(find("key_1", "POST /api/v1/jobs", "k-2").await, None);
    // Again, the same and another: the answer to the first, and nothing happens.
    let before = everything(store).await;
    for name in ["a", "b"] {
        let again = job(name);
        fails!(
            store.create_job(&again, &version(&again), &with_key("job.create", "k-1", "other")).await,
            MetadataError::Answered(answer) if *answer == stored
        );
    }
    fails!(store.create_key(&key("x"), &with_key("key.create", "k-1", "")).await, MetadataError::Answered(_));
    assert_eq!(everything(store).await, before);
    // Of another principal it means nothing; a request that failed leaves its key free.
    let second = job("a");
    let other = Change { principal: "key_2".into(), ..with_key("job.create", "k-1", "x") };
    fails!(store.create_job(&second, &version(&second), &other).await, MetadataError::Exists { .. });
    assert_eq!(find("key_2", "POST /api/v1/jobs", "k-1").await, None);
    let second = job("b");
    store.create_job(&second, &version(&second), &other).await.unwrap();
    assert_eq!(find("key_2", "POST /api/v1/jobs", "k-1").await.unwrap().body, b"x");
}

async fn old_answers_and_operations_are_forgotten(subject: &Subject) {
    let store = &*subject.store;
    let old = now() - Duration::days(8);
    let limit = now() - Duration::days(7);
    let mut ids = Vec::new();
    for (ended_at, key) in [(Some(old), "old"), (Some(now()), "new"), (None, "running")] {
        let state = if ended_at.is_some() { "succeeded" } else { "running" };
        let operation = Operation { state: state.into(), ended_at, created_at: old, ..operation() };
        let at = if key == "old" { old } else { now() };
        store.create_operation(&operation, &Change { at, ..with_key("run.stop", key, key) }).await.unwrap();
        ids.push(operation.operation_id);
    }
    store.forget(limit).await.unwrap();
    fails!(store.operation(ids[0]).await, MetadataError::NotFound { .. });
    store.operation(ids[1]).await.unwrap();
    store.operation(ids[2]).await.unwrap();
    let request = "POST /api/v1/jobs";
    assert!(store.answer("key_1", request, "old").await.unwrap().is_none());
    assert!(store.answer("key_1", request, "new").await.unwrap().is_some());
    assert_eq!(store.audit_log(0, 10).await.unwrap().len(), 3, "the audit log forgets nothing");
}

async fn of_two_at_once_one_wins(subject: &Subject) {
    let store = &*subject.store;
    for round in 0..15 {
        let name = format!("job-{round}");
        let jobs: Vec<Job> = (0..4).map(|_| job(&name)).collect();
        let versions: Vec<JobVersion> =
            jobs.iter().map(|job| JobVersion { views: vec![view(&name)], ..version(job) }).collect();
        let create = change("job.create");
        let done =
            join_all(jobs.iter().zip(&versions).map(|(job, version)| store.create_job(job, version, &create))).await;
        let winner = one_won(&done, |error| matches!(error, MetadataError::Exists { kind: "job", .. }));
        let job = store.job_named(&name).await.unwrap();
        assert_eq!(job.job_id, jobs[winner].job_id);

        let runs: Vec<Run> = (0..4).map(|_| run(&job)).collect();
        let create = change("run.create");
        let done = join_all(runs.iter().map(|run| store.create_run(run, &create))).await;
        let winner = one_won(&done, |error| matches!(error, MetadataError::RunActive { .. }));
        let run = store.run(runs[winner].run_id).await.unwrap();

        // Two ends, one beginning; a deletion besides, which must not find the job without an active run and yet leave one.
        let ends = ["cancelled", "failed", "stopping", "starting"].map(|to| step(&run, &["pending"], to));
        let (done, deleted) = tokio::join!(join_all(ends.iter().map(|end| store.move_run(end))), async {
            store.delete_job(job.job_id, 1, &change("job.delete")).await
        });
        if deleted.is_ok() {
            fails!(store.run(run.run_id).await, MetadataError::NotFound { .. });
        } else {
            fails!(deleted, MetadataError::RunActive { .. });
            let winner = one_won(&done, |error| matches!(error, MetadataError::Moved { .. }));
            assert_eq!(store.run(run.run_id).await.unwrap().state, ends[winner].to);
            assert_eq!(store.run_events(run.run_id).await.unwrap().len(), 2);
            assert_eq!(store.job(job.job_id).await.unwrap().state, ends[winner].to);
        }

        let other = stored(store, &format!("other-{round}")).await;
        let update = change("job.update");
        let changed: Vec<Job> =
            (0..3).map(|index| Job { labels: labels(&[("by", &index.to_string())]), ..other.clone() }).collect();
        let done = join_all(changed.iter().map(|job| store.update_job(job, None, &update))).await;
        let winner = one_won(&done, |error| matches!(error, MetadataError::Stale { expected: 1, current: 2, .. }));
        assert_eq!(store.job(other.job_id).await.unwrap().labels, changed[winner].labels);

        // One key at once: one does it, the others get its answer.
        let keyed: Vec<Job> = (0..3).map(|index| self::job(&format!("keyed-{round}-{index}"))).collect();
        let changes: Vec<Change> =
            keyed.iter().map(|job| with_key("job.create", &format!("key-{round}"), &job.name)).collect();
        let done = join_all(
            keyed.iter().zip(&changes).map(async |(job, change)| store.create_job(job, &version(job), change).await),
        )
        .await;
        let winner = one_won(&done, |error| matches!(error, MetadataError::Answered(_)));
        for outcome in &done {
            if let Err(MetadataError::Answered(answer)) = outcome {
                assert_eq!(answer.body, keyed[winner].name.as_bytes());
            }
        }
    }
}

fn one_won<T: std::fmt::Debug>(done: &[Result<T>], lost: impl Fn(&MetadataError) -> bool) -> usize {
    let won: Vec<usize> = (0..done.len()).filter(|index| done[*index].is_ok()).collect();
    assert_eq!(won.len(), 1, "{done:?}");
    assert!(done.iter().all(|outcome| outcome.as_ref().err().is_none_or(&lost)), "{done:?}");
    won[0]
}

async fn changes_at_once_make_one_chain(subject: &Subject) {
    let store = &*subject.store;
    // More at once than there are connections, but not so many that the last waits longer for one than it may.
    for round in 0..3 {
        let changes = (0..20).map(async |index| {
            stored(store, &format!("job-{round}-{index}")).await;
            store.audit(&change("job.create"), "denied").await.unwrap();
        });
        join_all(changes).await;
    }
    let log = store.audit_log(0, 1000).await.unwrap();
    let end = verify_audit((0, String::new()), &log).unwrap();
    assert_eq!(end.0, 120);
    assert_eq!(end, store.audit_head().await.unwrap());
}

async fn what_failed_left_nothing(subject: &Subject) {
    let store = &*subject.store;
    let taken = job("a");
    store.create_job(&taken, &JobVersion { views: vec![view("v")], ..version(&taken) }, &change("x")).await.unwrap();
    store.create_run(&run(&taken), &change("run.create")).await.unwrap();
    store.put_connection(&connection("k"), &secrets("s"), &change("x")).await.unwrap();
    store.create_table(&Table { connections: vec!["k".into()], ..table("t") }, &change("x")).await.unwrap();
    let before = everything(store).await;
    // The last thing that each does is what fails, or near to it.
    let bad = job("b");
    let views = vec![view("w"), view("v")];
    store.create_job(&bad, &JobVersion { views, ..version(&bad) }, &with_key("x", "k1", "")).await.unwrap_err();
    let connections = vec!["k".into(), "none".into()];
    store.create_job(&bad, &JobVersion { connections, ..version(&bad) }, &with_key("x", "k2", "")).await.unwrap_err();
    store.create_run(&run(&taken), &with_key("x", "k3", "")).await.unwrap_err();
    let connections = vec!["k".into(), "none".into()];
    let other = Table { connections, ..table("u") };
    store.create_table(&other, &with_key("x", "k4", "")).await.unwrap_err();
    store.delete_connection("k", 1, &with_key("x", "k5", "")).await.unwrap_err();
    // A value that a constraint refuses, after much was written.
    let wrong = Run { state: "no such state".into(), ..run(&taken) };
    let other = stored(store, "c").await;
    let before_wrong = everything(store).await;
    fails!(
        store.create_run(&Run { job_id: other.job_id, ..wrong }, &with_key("x", "k6", "")).await,
        MetadataError::Unusable(_)
    );
    assert_eq!(everything(store).await, before_wrong);
    store.delete_job(other.job_id, 1, &change("x")).await.unwrap();
    let mut after = everything(store).await;
    after["audit"] = before["audit"].clone();
    assert_eq!(after, before);
    for key in ["k1", "k2", "k3", "k4", "k5", "k6"] {
        assert!(store.answer("key_1", "POST /api/v1/jobs", key).await.unwrap().is_none());
    }
    // A caller that goes away in the middle: whole or not at all, and the store goes on.
    for patience in 0..40 {
        let job = job(&format!("left-{patience}"));
        let left = JobVersion { views: vec![view(&job.name)], ..version(&job) };
        let create = change("job.create");
        let wait = std::time::Duration::from_micros(100 * patience);
        let _ = tokio::time::timeout(wait, store.create_job(&job, &left, &create)).await;
        let there = store.job_named(&job.name).await.is_ok();
        if there {
            store.version(job.job_id, 1).await.unwrap();
            store.view(&job.name).await.unwrap();
        }
    }
    let log = store.audit_log(0, 1000).await.unwrap();
    assert_eq!(verify_audit((0, String::new()), &log).unwrap(), store.audit_head().await.unwrap());
}

async fn constraints_hold_behind_the_program(subject: &Subject) {
    let store = &*subject.store;
    let job = stored(store, "a").await;
    let first = run(&job);
    store.create_run(&first, &change("run.create")).await.unwrap();
    store.move_run(&step(&first, &["pending"], "starting")).await.unwrap();
    store.create_operation(&operation(), &change("run.stop")).await.unwrap();
    store.put_connection(&connection("k"), &secrets("s"), &change("connection.create")).await.unwrap();
    store.create_table(&table("t"), &change("table.create")).await.unwrap();
    store.create_key(&key("ci"), &change("key.create")).await.unwrap();
    let long = |table: &str| format!("UPDATE {table} SET name = '{}'", "字".repeat(129));
    let (long_connection, long_secret, long_table) =
        (long("connection"), long("connection_secret"), long("catalogue_table"));
    for (sql, why) in [
        ("UPDATE job SET state = 'resting'", "states are known"),
        ("UPDATE run_event SET from_state = 'resting' WHERE sequence = 2", "states are known"),
        ("UPDATE run_event SET to_state = 'created'", "states are known"),
        ("UPDATE operation SET kind = 'stop'", "kinds are known"),
        ("UPDATE operation SET state = 'resting'", "states are known"),
        ("UPDATE operation SET state = 'failed'", "what has ended has a time"),
        ("UPDATE connection SET kind = 'carrier pigeon'", "kinds are known"),
        ("UPDATE api_key SET role = 'king'", "roles are known"),
        ("UPDATE audit_entry SET outcome = 'perhaps'", "outcomes are known"),
        (&long_connection, "names fit an index"),
        (&long_secret, "names fit an index"),
        (&long_table, "names fit an index"),
        ("UPDATE run SET state = 'finished'", "a run is active by its state"),
        ("UPDATE job SET version = 0", "versions start at 1"),
        ("DELETE FROM job_version", "a version that ran stays"),
        ("INSERT INTO audit_head VALUES (2, 0, '')", "a log has one end"),
        ("INSERT INTO leadership SELECT * FROM leadership", "one leads"),
        ("INSERT INTO job_view SELECT 'v', run_id, '{}' FROM run", "a view is of a job"),
        (
            "INSERT INTO run SELECT job_id, job_id, version, state, active, generation, request, facts, failure, revision,
                                    created_at, started_at, ended_at, base_epoch FROM run",
            "one run is active",
        ),
    ] {
        assert!(subject.try_behind_its_back(sql).await.is_err(), "{why}: {sql}");
    }
}

async fn a_leader_is_followed_by_a_larger_term(subject: &Subject) {
    let store = &*subject.store;
    let first = store.lead("one").await.unwrap();
    store.renew(first).await.unwrap();
    let second = store.lead("one").await.unwrap();
    assert!(second > first);
    store.renew(second).await.unwrap();
    fails!(store.renew(first).await, MetadataError::Owned(_));
    fails!(store.renew(second + 1).await, MetadataError::Owned(_));
    stored(store, "a").await;
}

/// After an orderly end nobody waits; a late word of one that was followed changes nothing.
async fn a_lease_that_was_given_back_is_free(subject: &Subject) {
    let store = &*subject.store;
    let first = store.lead("one").await.unwrap();
    store.release(first).await.unwrap();
    let second = store.lead("two").await.unwrap();
    assert!(second > first);
    store.release(first).await.unwrap();
    store.renew(second).await.unwrap();
    stored(store, "a").await;
}

/// An index of PostgreSQL takes 2,704 bytes, after compression: what has no pattern, and four bytes a character, is the worst.
async fn the_longest_names_and_values_that_are_allowed(subject: &Subject) {
    let store = &*subject.store;
    let mut random = 7u64;
    let mut text = |characters: usize| -> String {
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from_u32(0x20000 + (random >> 33) as u32 % 0xa6d0).unwrap() // CJK, extension B
        };
        (0..characters).map(|_| next()).collect()
    };
    let (label, value) = (text(128), text(1024));
    let pairs: Vec<(String, String)> = (0..64).map(|_| (text(128), text(1024))).collect();
    let mut labels: Labels = pairs.into_iter().collect();
    labels.insert(label.clone(), value.clone());
    let long = Job { labels: labels.clone(), ..job(&text(128)) };
    let views = vec![view(&text(128))];
    let create = Change {
        principal: text(40),
        idempotency: Some(Idempotency { key: "k".repeat(256), ..with_key("x", "x", "x").idempotency.unwrap() }),
        ..change("job.create")
    };
    store.create_job(&long, &JobVersion { views: views.clone(), ..version(&long) }, &create).await.unwrap();
    assert_eq!(store.job_named(&long.name).await.unwrap(), long);
    assert_eq!(store.view(&views[0].name).await.unwrap().job_id, long.job_id);
    // Two that begin alike are two.
    let mut alike = value.clone();
    alike.pop();
    alike.push('x');
    let second = Job { labels: Labels::from([(label.clone(), alike.clone())]), ..job("second") };
    store.create_job(&second, &version(&second), &change("job.create")).await.unwrap();
    for (value, expected) in [(&value, vec![long]), (&alike, vec![second]), (&value[..4 * 1023].to_owned(), vec![])] {
        let filter = JobFilter { labels: Labels::from([(label.clone(), value.clone())]), ..JobFilter::default() };
        assert_eq!(store.jobs(&filter, page(9)).await.unwrap(), expected);
    }

    let secrets = BTreeMap::from([(text(128), vec![1; 10_000])]);
    let connection = Connection { secret_names: secrets.keys().cloned().collect(), ..connection(&text(128)) };
    store.put_connection(&connection, &secrets, &change("connection.create")).await.unwrap();
    assert_eq!(store.connection_with_secrets(&connection.name).await.unwrap(), (connection, secrets));
    let table = table(&text(128));
    store.create_table(&table, &change("table.create")).await.unwrap();
    assert_eq!(store.table(&table.name).await.unwrap(), table);
    store.create_key(&key(&text(128)), &change("key.create")).await.unwrap();
}

async fn hostile_text_is_only_text(subject: &Subject) {
    let store = &*subject.store;
    let hostile = "'; DROP TABLE job; -- $1 ? \\ \u{202e} 😀 \"";
    let nasty = Job { labels: labels(&[(hostile, hostile)]), ..job(hostile) };
    let written = JobVersion { sql: Some(hostile.into()), views: vec![view(hostile)], ..version(&nasty) };
    store.create_job(&nasty, &written, &with_key(hostile, hostile, hostile)).await.unwrap();
    assert_eq!(store.job_named(hostile).await.unwrap(), nasty);
    let filter = JobFilter {
        labels: labels(&[(hostile, hostile)]),
        q: Some(hostile.into()),
        states: vec!["created".into(), hostile.into()],
    };
    assert_eq!(store.jobs(&filter, page(9)).await.unwrap(), [nasty]);
    assert_eq!(store.view(hostile).await.unwrap().name, hostile);
    // U+0000 is no text in Postgres: it is kept as the sign for what cannot be shown.
    let with_nul = job("nul\0");
    store.create_job(&with_nul, &version(&with_nul), &change("x\0y")).await.unwrap();
    assert_eq!(store.job_named("nul\0").await.unwrap().name, "nul\u{FFFD}");
    let log = store.audit_log(0, 10).await.unwrap();
    verify_audit((0, String::new()), &log).unwrap();
}

async fn how_long_a_change_takes(subject: &Subject) {
    let store = &*subject.store;
    let mut times = Vec::new();
    for index in 0..200 {
        let begun = Instant::now();
        let job = stored(store, &format!("job-{index}")).await;
        times.push(begun.elapsed());
        store.job(job.job_id).await.unwrap();
    }
    times.sort();
    eprintln!("create_job: median {:?}, p99 {:?}", times[100], times[197]);
    let begun = Instant::now();
    let id = store.job_named("job-100").await.unwrap().job_id;
    let mut single = Vec::new();
    while begun.elapsed() < std::time::Duration::from_millis(500) {
        let begun = Instant::now();
        store.job(id).await.unwrap();
        single.push(begun.elapsed());
    }
    single.sort();
    eprintln!("job: median {:?}, p99 {:?}", single[single.len() / 2], single[single.len() * 99 / 100]);
    let begun = Instant::now();
    let readers = (0..64).map(async |_| {
        for _ in 0..50 {
            store.job(id).await.unwrap();
        }
    });
    join_all(readers).await;
    let rate = 3200.0 / begun.elapsed().as_secs_f64();
    eprintln!("job, 64 at once: {rate:.0} per second");
    assert!(times[100] < std::time::Duration::from_millis(500), "{:?}", times[100]);
}
