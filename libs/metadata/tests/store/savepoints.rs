//! What every store must do with savepoints.

use futures::future::join_all;
use metadata::*;
use serde_json::json;
use uuid::Uuid;

use crate::fixtures::*;

conformance![
    a_savepoint_comes_back_as_it_went_in,
    a_name_of_a_savepoint_is_given_once,
    a_savepoint_is_of_what_is_there,
    savepoints_end_once,
    savepoints_are_filtered_and_paged,
    savepoints_outlive_their_job,
    a_savepoint_stays_while_a_run_restores_from_it,
    a_run_uses_what_is_complete,
    using_and_deleting_do_not_both_happen,
    what_a_savepoint_is_taken_of_is_not_retired,
    constraints_on_savepoints_hold_behind_the_program,
];

async fn create(store: &dyn MetadataStore, savepoint: &Savepoint) -> Result<()> {
    store.create_savepoint(savepoint, &change("savepoint.create")).await
}

async fn delete(store: &dyn MetadataStore, savepoint: &Savepoint) -> Result<()> {
    store.delete_savepoint(savepoint.savepoint_id, &change("savepoint.delete")).await
}

/// A job with a run that has committed the epochs 1 to 5.
async fn with_epochs(store: &dyn MetadataStore, name: &str) -> (Run, i64) {
    let term = store.lead("one").await.unwrap();
    let run = running(store, &stored(store, name).await).await;
    committed(store, &run, term, None, &[1, 2, 3, 4, 5]).await;
    (run, term)
}

async fn a_savepoint_comes_back_as_it_went_in(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let first = savepoint(&run, "before the upgrade");
    create(store, &first).await.unwrap();
    assert_eq!(store.savepoint(first.savepoint_id).await.unwrap(), first);
    let at_once = completed(&savepoint(&run, "2"), 5);
    create(store, &at_once).await.unwrap();
    assert_eq!(store.savepoint(at_once.savepoint_id).await.unwrap(), at_once);
    let nobody = Uuid::now_v7();
    fails!(store.savepoint(nobody).await, MetadataError::NotFound { kind: "savepoint", name } if name == nobody.to_string());
    let actions: Vec<String> = store.audit_log(0, 9).await.unwrap().into_iter().map(|entry| entry.action).collect();
    assert_eq!(actions, ["job.create", "run.create", "savepoint.create", "savepoint.create"]);
}

async fn a_name_of_a_savepoint_is_given_once(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let first = savepoint(&run, "x");
    create(store, &first).await.unwrap();
    let lines = store.audit_head().await.unwrap();
    // The same once more, though it has gone on meanwhile.
    create(store, &first).await.unwrap();
    let ended = completed(&first, 5);
    store.update_savepoint(&ended).await.unwrap();
    create(store, &first).await.unwrap();
    assert_eq!(store.savepoint(first.savepoint_id).await.unwrap(), ended);
    assert_eq!(store.audit_head().await.unwrap(), lines, "nothing happened");
    fails!(
        create(store, &savepoint(&run, "x")).await,
        MetadataError::Exists { kind: "savepoint", name, id } if name == "x" && id == first.savepoint_id
    );
    let (other, _) = with_epochs(store, "b").await;
    create(store, &savepoint(&other, "x")).await.unwrap();
    create(store, &savepoint(&run, "X")).await.unwrap();
    // What was deleted leaves its name.
    delete(store, &first).await.unwrap();
    create(store, &savepoint(&run, "x")).await.unwrap();
    for round in 0..10 {
        let several: Vec<Savepoint> = (0..4).map(|_| savepoint(&run, &format!("at once {round}"))).collect();
        let done = join_all(several.iter().map(|savepoint| create(store, savepoint))).await;
        let won: Vec<usize> = (0..done.len()).filter(|index| done[*index].is_ok()).collect();
        assert_eq!(won.len(), 1, "{done:?}");
        for error in done.into_iter().filter_map(Result::err) {
            let winner = several[won[0]].savepoint_id;
            assert!(matches!(error, MetadataError::Exists { id, .. } if id == winner), "{error:?}");
        }
    }
}

async fn a_savepoint_is_of_what_is_there(subject: &Subject) {
    let store = &*subject.store;
    let (run, term) = with_epochs(store, "a").await;
    let (other, term_now) = with_epochs(store, "b").await;
    assert!(term_now > term);
    store.retire_epochs(run.job_id, &[2], term_now, now()).await.unwrap();
    let before = everything(store).await;
    let good = savepoint(&run, "x");
    let wrong_job = Savepoint { job_id: Uuid::now_v7(), ..good.clone() };
    fails!(create(store, &wrong_job).await, MetadataError::NotFound { kind: "job", .. });
    for run_id in [other.run_id, Uuid::now_v7()] {
        let wrong = Savepoint { run_id, ..good.clone() };
        fails!(create(store, &wrong).await, MetadataError::NotFound { kind: "run", .. });
    }
    for epoch in [2, 6] {
        let wrong = Savepoint { epoch: Some(epoch), ..good.clone() };
        fails!(create(store, &wrong).await, MetadataError::NotFound { kind: "epoch", name } if name == epoch.to_string());
    }
    assert_eq!(everything(store).await, before);
    create(store, &good).await.unwrap();
    fails!(store.update_savepoint(&completed(&good, 2)).await, MetadataError::NotFound { kind: "epoch", .. });
    assert_eq!(store.savepoint(good.savepoint_id).await.unwrap(), good);
}

async fn savepoints_end_once(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let first = savepoint(&run, "x");
    create(store, &first).await.unwrap();
    let further = Savepoint { epoch: Some(5), facts: json!({"done": 1}), ..first.clone() };
    store.update_savepoint(&further).await.unwrap();
    assert_eq!(store.savepoint(first.savepoint_id).await.unwrap(), further);
    let ended = completed(&further, 5);
    store.update_savepoint(&ended).await.unwrap();
    let late = Savepoint {
        state: "failed".into(),
        failure: Some(json!({"code": "disk"})),
        ended_at: Some(now()),
        ..first.clone()
    };
    store.update_savepoint(&late).await.unwrap();
    store.update_savepoint(&further).await.unwrap();
    assert_eq!(store.savepoint(first.savepoint_id).await.unwrap(), ended);
    let second = savepoint(&run, "y");
    create(store, &second).await.unwrap();
    let failed =
        Savepoint { savepoint_id: second.savepoint_id, name: "y".into(), created_at: second.created_at, ..late };
    store.update_savepoint(&failed).await.unwrap();
    store.update_savepoint(&completed(&second, 5)).await.unwrap();
    assert_eq!(store.savepoint(second.savepoint_id).await.unwrap(), failed);
    fails!(store.update_savepoint(&savepoint(&run, "z")).await, MetadataError::NotFound { kind: "savepoint", .. });
}

async fn savepoints_are_filtered_and_paged(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let (other, _) = with_epochs(store, "b").await;
    let all = [savepoint(&run, "1"), completed(&savepoint(&run, "2"), 4), savepoint(&other, "3"), savepoint(&run, "4")];
    for savepoint in &all {
        create(store, savepoint).await.unwrap();
    }
    let found = async |job: Option<&Run>, states: &[&str], after: Option<&Savepoint>, limit| -> Vec<String> {
        let filter = SavepointFilter {
            job_id: job.map(|run| run.job_id),
            name: None,
            states: states.iter().map(|state| (*state).to_owned()).collect(),
        };
        let page = Page { after: after.map(|savepoint| savepoint.savepoint_id), limit };
        store.savepoints(&filter, page).await.unwrap().into_iter().map(|savepoint| savepoint.name).collect()
    };
    assert_eq!(found(None, &[], None, 9).await, ["4", "3", "2", "1"]);
    assert_eq!(found(None, &[], Some(&all[2]), 1).await, ["2"]);
    assert_eq!(found(Some(&run), &[], None, 9).await, ["4", "2", "1"]);
    assert_eq!(found(Some(&run), &["running", "failed"], None, 9).await, ["4", "1"]);
    assert_eq!(found(None, &["completed"], None, 9).await, ["2"]);
}

async fn savepoints_outlive_their_job(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let (first, second) = (completed(&savepoint(&run, "x"), 5), savepoint(&run, "y"));
    create(store, &first).await.unwrap();
    create(store, &second).await.unwrap();
    end(store, &run).await;
    store.delete_job(run.job_id, 1, &change("job.delete")).await.unwrap();
    assert_eq!(store.savepoint(first.savepoint_id).await.unwrap(), first);
    create(store, &first).await.unwrap();
    // The epoch that it is of went with the job.
    let ended = completed(&second, 5);
    store.update_savepoint(&ended).await.unwrap();
    assert_eq!(store.savepoint(second.savepoint_id).await.unwrap(), ended);
    // Another job starts from it; when that is deleted, nobody uses it.
    let job = stored(store, "b").await;
    let user = running(store, &job).await;
    store.use_savepoint(first.savepoint_id, user.run_id).await.unwrap();
    fails!(delete(store, &first).await, MetadataError::InUse { .. });
    end(store, &user).await;
    store.delete_job(job.job_id, 1, &change("job.delete")).await.unwrap();
    delete(store, &first).await.unwrap();
    fails!(store.savepoint(first.savepoint_id).await, MetadataError::NotFound { .. });
}

async fn a_savepoint_stays_while_a_run_restores_from_it(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let kept = completed(&savepoint(&run, "x"), 5);
    create(store, &kept).await.unwrap();
    let other = running(store, &stored(store, "b").await).await;
    for user in [&run, &other, &other] {
        store.use_savepoint(kept.savepoint_id, user.run_id).await.unwrap();
    }
    let before = everything(store).await;
    fails!(
        delete(store, &kept).await,
        MetadataError::InUse { kind: "savepoint", name, by } if name == "x" && by.contains(&run.run_id.to_string())
    );
    assert_eq!(everything(store).await, before);
    store.release_savepoint(kept.savepoint_id, run.run_id).await.unwrap();
    fails!(delete(store, &kept).await, MetadataError::InUse { by, .. } if by.contains(&other.run_id.to_string()));
    // The run's end alone is no release.
    end(store, &other).await;
    fails!(delete(store, &kept).await, MetadataError::InUse { .. });
    for _ in 0..2 {
        store.release_savepoint(kept.savepoint_id, other.run_id).await.unwrap();
    }
    delete(store, &kept).await.unwrap();
    fails!(delete(store, &kept).await, MetadataError::NotFound { kind: "savepoint", .. });
    store.release_savepoint(kept.savepoint_id, other.run_id).await.unwrap();
    // One that is being written may go, too; its writer hears of it.
    let running = savepoint(&run, "y");
    create(store, &running).await.unwrap();
    delete(store, &running).await.unwrap();
    fails!(store.update_savepoint(&completed(&running, 5)).await, MetadataError::NotFound { .. });
}

async fn a_run_uses_what_is_complete(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let first = savepoint(&run, "x");
    create(store, &first).await.unwrap();
    let id = first.savepoint_id;
    fails!(store.use_savepoint(id, run.run_id).await, MetadataError::NotFound { kind: "completed savepoint", .. });
    let failed = Savepoint { state: "failed".into(), failure: Some(json!({})), ended_at: Some(now()), ..first };
    store.update_savepoint(&failed).await.unwrap();
    fails!(store.use_savepoint(id, run.run_id).await, MetadataError::NotFound { kind: "completed savepoint", .. });
    let second = completed(&savepoint(&run, "y"), 5);
    create(store, &second).await.unwrap();
    let id = second.savepoint_id;
    fails!(store.use_savepoint(Uuid::now_v7(), run.run_id).await, MetadataError::NotFound { kind: "savepoint", .. });
    fails!(store.use_savepoint(id, Uuid::now_v7()).await, MetadataError::NotFound { kind: "run", .. });
    end(store, &run).await;
    fails!(store.use_savepoint(id, run.run_id).await, MetadataError::Moved { state, .. } if state == "stopped");
    delete(store, &second).await.unwrap();
}

async fn using_and_deleting_do_not_both_happen(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let (mut used, mut deleted) = (0, 0);
    for round in 0..40 {
        let savepoint = completed(&savepoint(&run, &format!("{round}")), 5);
        create(store, &savepoint).await.unwrap();
        let (taken, gone) = tokio::join!(
            later(round - 20, store.use_savepoint(savepoint.savepoint_id, run.run_id)),
            later(20 - round, delete(store, &savepoint))
        );
        match (taken, gone) {
            (Ok(()), Err(MetadataError::InUse { .. })) => used += 1,
            (Err(MetadataError::NotFound { kind: "savepoint", .. }), Ok(())) => deleted += 1,
            other => panic!("{other:?}"),
        }
    }
    eprintln!("{used} were used, {deleted} deleted");
    assert!(used > 0 && deleted > 0, "one always came first: {used} were used, {deleted} deleted");
}

async fn what_a_savepoint_is_taken_of_is_not_retired(subject: &Subject) {
    let store = &*subject.store;
    let (run, term) = with_epochs(store, "a").await;
    let retire = |epochs: &'static [i64]| store.retire_epochs(run.job_id, epochs, term, now());
    let being_written = Savepoint { epoch: Some(1), ..savepoint(&run, "w") };
    let used = completed(&savepoint(&run, "u"), 2);
    let unused = completed(&savepoint(&run, "n"), 3);
    for savepoint in [&being_written, &used, &unused] {
        create(store, savepoint).await.unwrap();
    }
    store.use_savepoint(used.savepoint_id, run.run_id).await.unwrap();
    fails!(retire(&[1]).await, MetadataError::InUse { name, by, .. } if name == "1" && by == "savepoint 'w'");
    fails!(retire(&[3, 2]).await, MetadataError::InUse { name, by, .. } if name == "2" && by == "savepoint 'u'");
    retire(&[3]).await.unwrap();
    store.update_savepoint(&completed(&being_written, 1)).await.unwrap();
    retire(&[1]).await.unwrap();
    store.release_savepoint(used.savepoint_id, run.run_id).await.unwrap();
    retire(&[2]).await.unwrap();
}

async fn constraints_on_savepoints_hold_behind_the_program(subject: &Subject) {
    let store = &*subject.store;
    let (run, _) = with_epochs(store, "a").await;
    let ended = completed(&savepoint(&run, "x"), 5);
    create(store, &ended).await.unwrap();
    create(store, &savepoint(&run, "y")).await.unwrap();
    store.use_savepoint(ended.savepoint_id, run.run_id).await.unwrap();
    let long = format!("UPDATE savepoint SET name = '{}' WHERE name = 'x'", "字".repeat(129));
    for (sql, why) in [
        ("UPDATE savepoint SET state = 'resting'", "states are known"),
        ("UPDATE savepoint SET state = 'running' WHERE name = 'x'", "what has ended stays so"),
        ("UPDATE savepoint SET state = 'completed' WHERE name = 'y'", "what has ended has a time"),
        ("UPDATE savepoint SET epoch = NULL WHERE name = 'x'", "what is completed is of an epoch"),
        ("UPDATE savepoint SET bytes = NULL WHERE name = 'x'", "what is completed has a size"),
        ("UPDATE savepoint SET failure = '{}' WHERE name = 'x'", "what is completed did not fail"),
        ("UPDATE savepoint SET name = 'x'", "names are given once"),
        ("UPDATE savepoint SET format_version = 0", "versions start at 1"),
        (&long, "names fit an index"),
        ("DELETE FROM savepoint", "what is used stays"),
        ("UPDATE savepoint_use SET run_id = savepoint_id", "a user is a run"),
    ] {
        assert!(subject.try_behind_its_back(sql).await.is_err(), "{why}: {sql}");
    }
}
