//! What only the store in PostgreSQL must do.

use std::time::{Duration, Instant};

use futures::future::{BoxFuture, join_all};
use metadata::postgres::{LEASE_SECONDS, PostgresStore};
use metadata::*;
use serde_json::json;
use test_support::postgres::Postgres;
use uuid::Uuid;

use crate::fixtures::*;

/// Any method must have said so by then.
const SOON: Duration = Duration::from_secs(8);

fn shared_database() -> String {
    Postgres::shared().database()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_what_it_lost_it_no_longer_changes() {
    let url = shared_database();
    let first = PostgresStore::connect(&url).await.unwrap();
    let second = PostgresStore::connect(&url).await.unwrap();
    let term = first.lead("first").await.unwrap();
    let job = stored(&first, "a").await;
    let run = run(&job);
    first.create_run(&run, &change("run.create")).await.unwrap();
    let error = second.lead("second").await.unwrap_err();
    assert!(matches!(&error, MetadataError::Owned(by) if by == "first"), "{error:?}");
    first.renew(term).await.unwrap();
    // One that leads nothing writes unguarded: `keys` beside a running server.
    second.create_key(&key("ci"), &change("key.create")).await.unwrap();

    Postgres::shared().sql(&url, "UPDATE leadership SET expires_at = clock_timestamp() - interval '1 second'");
    let next = second.lead("second").await.unwrap();
    assert_eq!(next, term + 1);
    assert!(matches!(first.renew(term).await, Err(MetadataError::Owned(by)) if by == "second"));
    let before = everything(&second).await;
    let lost =
        |result: Result<()>| assert!(matches!(&result, Err(MetadataError::Owned(by)) if by == "second"), "{result:?}");
    let other = self::job("b");
    lost(first.create_job(&other, &version(&other), &change("x")).await);
    lost(first.delete_job(job.job_id, 1, &change("x")).await);
    lost(first.move_run(&step(&run, &["pending"], "failed")).await.map(|_| ()));
    lost(first.set_run_facts(run.run_id, 0, &json!({"late": 1})).await);
    lost(first.create_operation(&operation(), &change("x")).await);
    lost(first.create_table(&table("t"), &change("x")).await);
    lost(first.audit(&change("x"), "denied").await);
    lost(first.forget(now()).await);
    let (savepoint, drop) = (savepoint(&run, "x"), change("x"));
    lost(first.reserve_epochs(run.run_id, 0, term, 1).await.map(|_| ()));
    lost(first.decide_epoch(&decision(&run, next, 1, None)).await);
    lost(confirm(&first, &run, next, 1).await);
    lost(first.retire_epochs(job.job_id, &[1], next, now()).await);
    lost(first.create_savepoint(&savepoint, &change("x")).await);
    lost(first.update_savepoint(&savepoint).await);
    lost(first.delete_savepoint(savepoint.savepoint_id, &drop).await);
    lost(first.use_savepoint(savepoint.savepoint_id, run.run_id).await);
    lost(first.release_savepoint(savepoint.savepoint_id, run.run_id).await);
    assert_eq!(everything(&second).await, before);
    // Reading harms nobody.
    assert_eq!(first.job(job.job_id).await.unwrap().name, "a");
    second.move_run(&step(&run, &["pending"], "failed")).await.unwrap();
    // What the first gives back is not the second's.
    first.release(term).await.unwrap();
    assert!(matches!(first.lead("first").await, Err(MetadataError::Owned(by)) if by == "second"));
    // The same holder, started again, does not wait for its own lease.
    let again = PostgresStore::connect(&url).await.unwrap();
    assert_eq!(again.lead("second").await.unwrap(), next + 1);
    assert!(matches!(second.renew(next).await, Err(MetadataError::Owned(_))));
    let left =
        Postgres::shared().sql(&url, "SELECT extract(epoch FROM expires_at - clock_timestamp())::int FROM leadership");
    assert!((LEASE_SECONDS - 5..=LEASE_SECONDS).contains(&left.parse().unwrap()), "{left}");
    again.release(next + 1).await.unwrap();
    assert_eq!(first.lead("first").await.unwrap(), next + 2, "at once");
    let late = again.create_table(&table("t"), &change("x")).await;
    assert!(matches!(&late, Err(MetadataError::Owned(by)) if by == "first"), "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_under_way_holds_a_take_over_back() {
    let url = shared_database();
    let first = PostgresStore::connect(&url).await.unwrap();
    let second = PostgresStore::connect(&url).await.unwrap();
    first.lead("same").await.unwrap();
    let writes = async {
        let mut done = Vec::new();
        for index in 0..200 {
            let job = job(&format!("job-{index}"));
            match first.create_job(&job, &version(&job), &change("job.create")).await {
                Ok(()) => done.push(job),
                Err(MetadataError::Owned(_)) => break,
                Err(other) => panic!("{other:?}"),
            }
        }
        done
    };
    let (done, seen) = tokio::join!(writes, async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        second.lead("same").await.unwrap();
        second.jobs(&JobFilter::default(), page(1000)).await.unwrap().len()
    });
    assert!(done.len() < 200, "the take-over came too late to show anything");
    assert_eq!(done.len(), seen, "what the old leader did was done before the new one looked");
}

/// The same at the narrowest place: the old leader has compared its term and not yet written.
#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_waits_for_who_has_compared_the_term() {
    let url = shared_database();
    let first = PostgresStore::connect(&url).await.unwrap();
    let second = PostgresStore::connect(&url).await.unwrap();
    first.lead("same").await.unwrap();
    let holding = hold_writes(&url);
    let job = job("a");
    let (versions, create) = (version(&job), change("job.create"));
    let write = first.create_job(&job, &versions, &create);
    let (written, seen) = tokio::join!(write, async {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while !holding.is_finished() && Postgres::shared().sql(&url, waits) != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        second.lead("same").await.unwrap();
        second.job(job.job_id).await
    });
    written.unwrap();
    assert_eq!(seen.unwrap(), job, "it was written before the new one looked");
    holding.await.unwrap();
}

/// Holds all changes back for a while; returns when they are held.
fn hold_writes(url: &str) -> tokio::task::JoinHandle<()> {
    let another = url.to_owned();
    let holding = tokio::task::spawn_blocking(move || {
        let hold = "BEGIN; SELECT FROM audit_head FOR UPDATE; SELECT pg_sleep(2.5); COMMIT";
        Postgres::shared().sql(&another, hold);
    });
    let held = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while !holding.is_finished() && Postgres::shared().sql(url, held) != "1" {}
    holding
}

/// A caller that goes away in the middle of an exchange leaves no connection to others that is still busy with it.
#[tokio::test(flavor = "multi_thread")]
async fn who_goes_away_keeps_nobody_waiting() {
    let url = shared_database();
    let store = PostgresStore::connect(&url).await.unwrap();
    let job = stored(&store, "a").await;
    let holding = hold_writes(&url);
    let leaving = (0..8).map(async |index| {
        let job = self::job(&format!("job-{index}"));
        let (versions, create) = (version(&job), change("job.create"));
        let left = tokio::time::timeout(Duration::from_millis(500), store.create_job(&job, &versions, &create)).await;
        assert!(left.is_err(), "it was held");
    });
    join_all(leaving).await;
    assert_eq!(store.job(job.job_id).await.unwrap(), job);
    assert!(!holding.is_finished(), "it was read while those who left would still wait");
    holding.await.unwrap();
    assert_eq!(store.jobs(&JobFilter::default(), page(100)).await.unwrap(), [job], "nothing happened behind them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_may_lose_what_it_answered_is_refused() {
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let server = Postgres::start(&[&format!("{setting}=off")]);
        let error = PostgresStore::connect(&server.database()).await.err().unwrap();
        assert!(matches!(&error, MetadataError::Unusable(why) if why.contains(&format!("{setting} "))), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_hold_no_password() {
    let url = shared_database();
    let server = Postgres::shared();
    let mut messages = Vec::new();
    let secret = server.password();
    let wrong = url.replace(secret, "CANARY-of-a-password");
    for (bad, unusable) in [
        (wrong.clone(), true),
        (wrong.replace("app:", "nobody:"), true),
        (format!("{url}_absent"), true),
        (url.replace("postgres://", "mysql://"), true),
        (url.replace("127.0.0.1", "127.0.0.1:x"), true),
        (format!("postgres://app:{secret}@127.0.0.1:1/x"), false),
        (format!("postgres://app:{secret}@does-not-exist.invalid/x"), false),
    ] {
        let begun = Instant::now();
        let error = PostgresStore::connect(&bad).await.err().unwrap();
        assert!(begun.elapsed() < SOON, "{bad}: {:?}", begun.elapsed());
        match (&error, unusable) {
            (MetadataError::Unusable(_), true) | (MetadataError::Unavailable { ambiguous: false, .. }, false) => {}
            other => panic!("{bad}: {other:?}"),
        }
        messages.push(format!("{error} {error:?}"));
    }
    for message in messages {
        assert!(!message.contains(secret) && !message.contains("CANARY"), "{message}");
    }
}

/// Whoever runs the server can take back what it refuses now: nobody gives up meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_for_a_while_is_no_end() {
    let server = Postgres::start(&[]);
    server.sql("postgres", "CREATE ROLE hand LOGIN PASSWORD 'CANARY-first'");
    server.sql("postgres", "CREATE DATABASE lent OWNER hand");
    server.sql("lent", "ALTER SCHEMA public OWNER TO hand");
    let url = server.url("lent").replace(&format!("app:{}", server.password()), "hand:CANARY-first");
    let store = PostgresStore::connect(&url).await.unwrap();
    let job = stored(&store, "a").await;
    for (refuse, take_back, reason) in [
        ("ALTER ROLE hand PASSWORD 'CANARY-second'", "ALTER ROLE hand PASSWORD 'CANARY-first'", "password"),
        ("ALTER ROLE hand NOLOGIN", "ALTER ROLE hand LOGIN", "log in"),
        ("ALTER DATABASE lent RENAME TO elsewhere", "ALTER DATABASE elsewhere RENAME TO lent", "does not exist"),
        ("ALTER DATABASE lent ALLOW_CONNECTIONS false", "ALTER DATABASE lent ALLOW_CONNECTIONS true", "not currently"),
        (
            "REVOKE CONNECT ON DATABASE lent FROM PUBLIC, hand",
            "GRANT CONNECT ON DATABASE lent TO hand",
            "permission denied",
        ),
    ] {
        let hang_up = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'hand'";
        server.sql("postgres", hang_up);
        // A database that is being left cannot be renamed yet.
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.sql("postgres", refuse);
        server.sql("postgres", hang_up);
        let created = self::job("b");
        let refused = [
            within(store.job(job.job_id)).await.err(),
            within(store.create_job(&created, &version(&created), &change("x"))).await.err(),
            within(store.job(job.job_id)).await.err(),
        ];
        let last = refused[2].as_ref().map(ToString::to_string).unwrap_or_default();
        assert!(last.contains(reason) && !last.contains("CANARY"), "{refuse}: {last}");
        for error in refused {
            assert!(matches!(error, Some(MetadataError::Unavailable { ambiguous: false, .. })), "{refuse}: {error:?}");
        }
        // For who opens a store it is an end: there is nothing yet that could wait.
        assert!(matches!(PostgresStore::connect(&url).await, Err(MetadataError::Unusable(_))), "{refuse}");
        server.sql("postgres", take_back);
        assert_eq!(within(store.job(job.job_id)).await.unwrap(), job, "{take_back}");
    }
}

/// A commit whose answer never came is found out, one way or the other.
#[tokio::test(flavor = "multi_thread")]
async fn the_fate_of_a_commit_is_read_again() {
    let url = shared_database();
    let store = PostgresStore::connect(&url).await.unwrap();
    // The server ends the connection in the middle of COMMIT: before or after it is durable, by the kind of trigger.
    Postgres::shared().sql(
        &url,
        "CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER hang_up AFTER INSERT ON job DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW WHEN (NEW.name LIKE 'lost%') EXECUTE FUNCTION hang_up();",
    );
    for index in 0..3 {
        let lost = job(&format!("lost-{index}"));
        let error = store.create_job(&lost, &version(&lost), &change("job.create")).await.unwrap_err();
        assert!(matches!(error, MetadataError::Unavailable { ambiguous: false, .. }), "{error:?}");
        assert!(matches!(store.job(lost.job_id).await, Err(MetadataError::NotFound { .. })));
        stored(&store, &format!("kept-{index}")).await;
    }
    let log = store.audit_log(0, 100).await.unwrap();
    assert_eq!(verify_audit((0, String::new()), &log).unwrap().0, 3);
}

/// The same where it matters most: a decision is made or not, and whoever says it again hears which.
#[tokio::test(flavor = "multi_thread")]
async fn the_fate_of_a_decision_is_read_again() {
    let url = shared_database();
    let relay = relay::Relay::to(Postgres::shared().port()).await;
    let through = url.replace(&format!(":{}/", Postgres::shared().port()), &format!(":{}/", relay.port));
    let store = PostgresStore::connect(&through).await.unwrap();
    let term = store.lead("one").await.unwrap();
    let run = running(&store, &stored(&store, "a").await).await;
    // Never durable: the server ends the connection in the middle of COMMIT.
    Postgres::shared().sql(
        &url,
        "CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER hang_up AFTER INSERT OR UPDATE ON epoch DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW WHEN (NEW.epoch IN (2, 3)) EXECUTE FUNCTION hang_up();",
    );
    store.decide_epoch(&decision(&run, term, 1, None)).await.unwrap();
    let second = decision(&run, term, 2, Some(1));
    let error = store.decide_epoch(&second).await.unwrap_err();
    assert!(matches!(error, MetadataError::Unavailable { ambiguous: false, .. }), "{error:?}");
    assert_eq!(store.last_epoch(run.job_id).await.unwrap().map(|epoch| epoch.epoch), Some(1));
    assert_eq!(store.reserve_epochs(run.run_id, 1, term, 1).await.unwrap(), 12, "nor was a number taken");
    Postgres::shared().sql(&url, "DROP TRIGGER hang_up ON epoch");
    store.decide_epoch(&second).await.unwrap();

    // Durable, and nobody hears of it.
    for (epoch, how) in [(3, relay::Loss::HangUp), (4, relay::Loss::Silence)] {
        let decide = decision(&run, term, epoch, Some(epoch - 1));
        relay.lose_the_answer_to("COMMIT", how);
        let begun = Instant::now();
        store.decide_epoch(&decide).await.unwrap();
        assert!(relay.lost(), "the answer was lost");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(store.epoch(run.job_id, epoch).await.unwrap(), decided(&decide));
        store.decide_epoch(&decide).await.unwrap();
        relay.lose_the_answer_to("COMMIT", how);
        confirm(&store, &run, term, epoch).await.unwrap();
        assert!(relay.lost(), "the answer was lost");
        assert_eq!(store.epoch(run.job_id, epoch).await.unwrap().state, "committed");
    }
    let epochs = store.epochs(&all_epochs(run.job_id), epoch_page(9)).await.unwrap();
    assert_eq!(epochs.iter().map(|epoch| epoch.epoch).collect::<Vec<_>>(), [4, 3, 2, 1]);
}

/// The server is gone while the commit is on its way, and so long that its fate stays unknown: saying it again tells.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_of_unknown_fate_is_said_again() {
    for round in 0..3u64 {
        let server = Postgres::start(&[]);
        let relay = relay::Relay::to(server.port()).await;
        let url = server.database();
        let through = url.replace(&format!(":{}/", server.port()), &format!(":{}/", relay.port));
        let store = PostgresStore::connect(&through).await.unwrap();
        let term = store.lead("one").await.unwrap();
        let run = running(&store, &stored(&store, "a").await).await;
        let decide = decision(&run, term, 1, None);
        relay.lose_the_answer_to("COMMIT", relay::Loss::Silence);
        let (done, ()) = tokio::join!(store.decide_epoch(&decide), async {
            while !relay.lost() {
                tokio::time::sleep(Duration::from_micros(50)).await;
            }
            tokio::time::sleep(Duration::from_micros(round * 300)).await;
            server.kill();
        });
        assert!(matches!(done, Err(MetadataError::Unavailable { ambiguous: true, .. })), "{done:?}");
        server.restart();
        let begun = Instant::now();
        while store.ping().await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it does not come back");
        }
        let before = store.last_epoch(run.job_id).await.unwrap();
        eprintln!("round {round}: it {}", if before.is_some() { "had happened" } else { "had not" });
        assert!(before.is_none_or(|epoch| epoch == decided(&decide)));
        store.decide_epoch(&decide).await.unwrap();
        assert_eq!(store.last_epoch(run.job_id).await.unwrap(), Some(decided(&decide)));
        let other = EpochDecision { nonce: Uuid::new_v4(), ..decide.clone() };
        let error = store.decide_epoch(&other).await.unwrap_err();
        assert!(matches!(error, MetadataError::Fenced { found: Fence::Nonce(_), .. }), "{error:?}");
    }
}

/// A decision at its narrowest place: it has compared everything and written nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_waits_for_who_decides() {
    let url = shared_database();
    let first = PostgresStore::connect(&url).await.unwrap();
    let second = PostgresStore::connect(&url).await.unwrap();
    let term = first.lead("same").await.unwrap();
    let run = running(&first, &stored(&first, "a").await).await;
    // Whoever inserts an epoch waits for this lock.
    let another = url.clone();
    let holding = tokio::task::spawn_blocking(move || {
        let hold = "BEGIN; LOCK TABLE epoch IN SHARE MODE; SELECT pg_sleep(2); COMMIT";
        Postgres::shared().sql(&another, hold);
    });
    let held = "SELECT count(*) FROM pg_locks WHERE relation = 'epoch'::regclass AND mode = 'ShareLock' AND granted";
    while Postgres::shared().sql(&url, held) != "1" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let decide = decision(&run, term, 1, None);
    let next = RunMove { new_generation: Some(2), ..step(&run, &["running"], "restarting") };
    let (decided, (seen, moved)) = tokio::join!(first.decide_epoch(&decide), async {
        let waits =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while !holding.is_finished() && Postgres::shared().sql(&url, waits) != "1" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!holding.is_finished(), "the decision was held");
        tokio::join!(
            async {
                second.lead("same").await.unwrap();
                second.last_epoch(run.job_id).await.unwrap()
            },
            async {
                first.move_run(&next).await.ok();
                first.last_epoch(run.job_id).await.unwrap()
            }
        )
    });
    decided.unwrap();
    assert_eq!(seen.map(|epoch| epoch.nonce), Some(decide.nonce), "it was decided before the new leader looked");
    assert_eq!(moved.map(|epoch| epoch.nonce), Some(decide.nonce), "and before the new attempt did");
    holding.await.unwrap();
    let late = decision(&run, term, 2, Some(1));
    assert!(matches!(first.decide_epoch(&late).await, Err(MetadataError::Owned(by)) if by == "same"));
    let error = second.decide_epoch(&late).await.unwrap_err();
    assert!(matches!(error, MetadataError::Fenced { found: Fence::Term(found), .. } if found == term + 1), "{error:?}");
}

/// A relay that loses answers: the server commits, and nobody hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_done_is_not_told_as_failed() {
    let url = shared_database();
    let relay = relay::Relay::to(Postgres::shared().port()).await;
    let through = url.replace(&format!(":{}/", Postgres::shared().port()), &format!(":{}/", relay.port));
    let store = PostgresStore::connect(&through).await.unwrap();
    for (index, how) in [relay::Loss::HangUp, relay::Loss::Silence].into_iter().enumerate() {
        let job = job(&format!("job-{index}"));
        relay.lose_the_answer_to("COMMIT", how);
        let begun = Instant::now();
        store.create_job(&job, &version(&job), &change("job.create")).await.unwrap();
        assert!(relay.lost(), "the answer was lost");
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
        assert_eq!(store.job(job.job_id).await.unwrap(), job);
    }
    assert_eq!(store.audit_log(0, 100).await.unwrap().len(), 2, "once each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_unavailable_soon_and_usable_again() {
    let server = Postgres::start(&[]);
    let store = PostgresStore::connect(&server.database()).await.unwrap();
    let job = stored(&store, "a").await;
    let run = run(&job);
    store.create_run(&run, &change("run.create")).await.unwrap();
    server.freeze();
    let lost = self::job("b");
    let (versions, x, fail) = (version(&lost), change("x"), step(&run, &["pending"], "failed"));
    let all = JobFilter::default();
    let (written, read, moved, pinged, listed) = tokio::join!(
        within(store.create_job(&lost, &versions, &x)),
        within(store.job(job.job_id)),
        within(store.move_run(&fail)),
        within(store.ping()),
        within(store.jobs(&all, page(10))),
    );
    for error in [written.err(), read.err(), moved.err(), pinged.err(), listed.err()] {
        assert!(matches!(error, Some(MetadataError::Unavailable { .. })), "{error:?}");
    }
    // Callers that did not wait leave nothing behind that hangs.
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(10), store.job(job.job_id)).await;
    }
    server.thaw();
    let begun = Instant::now();
    while store.job(job.job_id).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not come back");
    }
    stored(&store, "c").await;
    let begun = Instant::now();
    join_all((0..50).map(async |_| store.job(job.job_id).await.unwrap())).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "connections were lost for good: {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_says_that_the_server_is_away() {
    let server = Postgres::start(&[]);
    let store = PostgresStore::connect(&server.database()).await.unwrap();
    let job = stored(&store, "a").await;
    let term = store.lead("one").await.unwrap();
    server.stop_immediately();
    let id = Uuid::now_v7();
    let (versions, run, x) = (version(&job), run(&job), change("x"));
    let (table, connection, key, operation) = (table("t"), connection("k"), key("k"), operation());
    let step = step(&run, &["pending"], "failed");
    let (all_jobs, all_runs) = (JobFilter::default(), RunFilter::default());
    let (all_epochs, all_savepoints) = (all_epochs(job.job_id), SavepointFilter::default());
    let (decide, savepoint) = (decision(&run, term, 1, None), savepoint(&run, "s"));
    let stated = statement(&run, term, 1);
    let (secret, facts) = (secrets("s"), json!({}));
    macro_rules! away {
        ($($call:expr),* $(,)?) => {
            let calls: Vec<(&str, BoxFuture<'_, Option<MetadataError>>)> =
                vec![$((stringify!($call), Box::pin(async { within($call).await.err() }))),*];
            // All at once: each waits a while for the server to come back.
            join_all(calls.into_iter().map(async |(call, done)| {
                let error = done.await;
                assert!(
                    matches!(error, Some(MetadataError::Unavailable { ambiguous: false, .. })),
                    "{call}: {error:?}"
                );
            }))
            .await;
        };
    }
    away![
        store.create_job(&job, &versions, &x),
        store.job(id),
        store.job_named("a"),
        store.jobs(&all_jobs, page(1)),
        store.version(id, 1),
        store.update_job(&job, None, &x),
        store.delete_job(id, 1, &x),
        store.create_run(&run, &x),
        store.run(id),
        store.runs(&all_runs, page(1)),
        store.active_runs(),
        store.move_run(&step),
        store.set_run_facts(id, 0, &facts),
        store.run_events(id),
        store.reserve_epochs(id, 1, term, 1),
        store.decide_epoch(&decide),
        store.confirm_epoch(&stated, &facts),
        store.abandon_epoch(&stated),
        store.epoch(id, 1),
        store.last_epoch(id),
        store.epochs(&all_epochs, epoch_page(1)),
        store.retire_epochs(id, &[1], term, now()),
        store.create_savepoint(&savepoint, &x),
        store.savepoint(id),
        store.savepoints(&all_savepoints, page(1)),
        store.update_savepoint(&savepoint),
        store.delete_savepoint(id, &x),
        store.use_savepoint(id, id),
        store.release_savepoint(id, id),
        store.create_operation(&operation, &x),
        store.operation(id),
        store.running_operations(),
        store.update_operation(&operation),
        store.forget(now()),
        store.views(),
        store.view("v"),
        store.put_connection(&connection, &secret, &x),
        store.connection("k"),
        store.connections(),
        store.connection_with_secrets("k"),
        store.delete_connection("k", 1, &x),
        store.create_table(&table, &x),
        store.table("t"),
        store.tables(),
        store.delete_table("t", 1, &x),
        store.create_key(&key, &x),
        store.keys(),
        store.revoke_key(id, now(), &x),
        store.audit(&x, "denied"),
        store.audit_log(0, 1),
        store.audit_head(),
        store.answer("a", "b", "c"),
        store.lead("one"),
        store.renew(term),
        store.release(term),
        store.ping(),
    ];
    server.restart();
    let begun = Instant::now();
    while store.job(job.job_id).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(5), "it does not come back");
    }
    store.renew(term).await.unwrap();
    stored(&store, "b").await;
}

async fn within<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = Instant::now();
    let result = call.await;
    assert!(begun.elapsed() < SOON, "took {:?}", begun.elapsed());
    result
}

/// Between the store and the server.
mod relay {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    #[derive(Clone, Copy)]
    pub enum Loss {
        HangUp,
        Silence,
    }

    pub struct Relay {
        pub port: u16,
        wish: Arc<Mutex<Option<(&'static str, Loss)>>>,
    }

    impl Relay {
        pub async fn to(port: u16) -> Relay {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let relay = Relay { port: listener.local_addr().unwrap().port(), wish: Arc::default() };
            let wish = relay.wish.clone();
            tokio::spawn(async move {
                while let Ok((near, _)) = listener.accept().await {
                    tokio::spawn(serve(near, port, wish.clone()));
                }
            });
            relay
        }

        /// The next message with this text is sent on; what comes back is not.
        pub fn lose_the_answer_to(&self, text: &'static str, how: Loss) {
            *self.wish.lock().unwrap() = Some((text, how));
        }

        pub fn lost(&self) -> bool {
            self.wish.lock().unwrap().is_none()
        }
    }

    async fn serve(mut near: TcpStream, port: u16, wish: Arc<Mutex<Option<(&'static str, Loss)>>>) {
        let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
        let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
        // Statements are prepared once per connection: their text is not in later messages.
        let mut mute = None;
        loop {
            tokio::select! {
                read = near.read(&mut up) => {
                    let Ok(1..) = read else { return };
                    let message = &up[..read.unwrap()];
                    let mut wish = wish.lock().unwrap().take_if(|(text, _)| contains(message, text.as_bytes()));
                    if let Some((_, how)) = wish.take() {
                        mute = Some(how);
                    }
                    if far.write_all(message).await.is_err() { return }
                }
                read = far.read(&mut down) => {
                    let Ok(1..) = read else { return };
                    match mute {
                        None => if near.write_all(&down[..read.unwrap()]).await.is_err() { return },
                        Some(Loss::HangUp) => return,
                        Some(Loss::Silence) => {}
                    }
                }
            }
        }
    }

    fn contains(message: &[u8], text: &[u8]) -> bool {
        message.windows(text.len()).any(|part| part == text)
    }
}
