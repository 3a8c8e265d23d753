//! What every store must do with epochs.

use std::collections::BTreeSet;

use futures::future::join_all;
use metadata::*;
use serde_json::json;
use uuid::Uuid;

use crate::fixtures::*;

conformance![
    an_epoch_comes_back_as_it_was_decided,
    numbers_are_reserved_once,
    reserving_needs_each_of_its_guards,
    a_decision_needs_each_of_its_guards,
    who_never_led_decides_nothing,
    what_was_decided_stays_so,
    a_run_continues_its_own_lineage,
    a_base_is_an_epoch_of_the_job_that_is_kept,
    of_two_deciders_one_wins,
    a_decision_and_a_new_attempt_do_not_both_happen,
    a_decision_and_a_new_leader_do_not_both_happen,
    confirming_needs_each_of_its_guards,
    a_later_attempt_and_a_later_run_confirm,
    epochs_are_filtered_and_paged,
    what_recovery_needs_is_not_retired,
    what_is_below_a_retired_epoch_is_not_needed,
    epochs_are_retired_all_or_none,
    the_newest_epoch_can_be_given_up,
    epochs_go_with_their_job,
    constraints_on_epochs_hold_behind_the_program,
    how_long_a_decision_takes,
];

async fn numbers(store: &dyn MetadataStore, job: &Job, states: &[&str]) -> Vec<i64> {
    let states = states.iter().map(|state| (*state).to_owned()).collect();
    let filter = EpochFilter { states, ..all_epochs(job.job_id) };
    store.epochs(&filter, epoch_page(1000)).await.unwrap().into_iter().map(|epoch| epoch.epoch).collect()
}

async fn an_epoch_comes_back_as_it_was_decided(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    assert_eq!(store.last_epoch(job.job_id).await.unwrap(), None);
    fails!(store.epoch(job.job_id, 3).await, MetadataError::NotFound { kind: "epoch", name } if name == "3");
    let run = running(store, &job).await;
    let first = decision(&run, term, 3, None);
    store.decide_epoch(&first).await.unwrap();
    let expected = decided(&first);
    assert_eq!(store.epoch(job.job_id, 3).await.unwrap(), expected);
    assert_eq!(store.last_epoch(job.job_id).await.unwrap(), Some(expected.clone()));

    let (at, proofs) = (now(), json!({"sink": {"z": 1, "a": null}}));
    store.confirm_epoch(&EpochStatement { at, ..statement(&run, term, 3) }, &proofs).await.unwrap();
    let committed =
        Epoch { state: "committed".into(), proofs: Some(proofs.clone()), committed_at: Some(at), ..expected };
    assert_eq!(store.epoch(job.job_id, 3).await.unwrap(), committed);
    // Once more: the first time stays.
    store.confirm_epoch(&statement(&run, term, 3), &json!({})).await.unwrap();
    assert_eq!(store.epoch(job.job_id, 3).await.unwrap(), committed);

    let second = EpochDecision { last: true, ..decision(&run, term, 4, Some(3)) };
    store.decide_epoch(&second).await.unwrap();
    assert_eq!(store.last_epoch(job.job_id).await.unwrap(), Some(decided(&second)));
    assert_eq!(store.epoch(job.job_id, 3).await.unwrap(), committed);
    assert_eq!(store.epochs(&all_epochs(job.job_id), epoch_page(9)).await.unwrap(), [decided(&second), committed]);
    // Neither the run nor the job is another for it, and nobody asked for it.
    assert_eq!(store.run(run.run_id).await.unwrap(), run);
    assert_eq!(store.job(job.job_id).await.unwrap().revision, 1);
    assert_eq!(store.audit_log(0, 9).await.unwrap().len(), 2, "the job and the run");
    fails!(store.epoch(Uuid::now_v7(), 3).await, MetadataError::NotFound { kind: "epoch", .. });
}

async fn numbers_are_reserved_once(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let first = running(store, &job).await;
    assert_eq!(store.reserve_epochs(first.run_id, 1, term, 100).await.unwrap(), 1);
    assert_eq!(store.reserve_epochs(first.run_id, 1, term, 1).await.unwrap(), 101);
    assert_eq!(store.reserve_epochs(first.run_id, 1, term, 5).await.unwrap(), 102);
    // What is reserved already stays so.
    store.decide_epoch(&EpochDecision { reserve: 1, ..decision(&first, term, 103, None) }).await.unwrap();
    assert_eq!(store.reserve_epochs(first.run_id, 1, term, 1).await.unwrap(), 107);
    store.decide_epoch(&EpochDecision { reserve: 20, ..decision(&first, term, 110, Some(103)) }).await.unwrap();
    end(store, &first).await;
    let second = running(store, &job).await;
    assert_eq!(store.reserve_epochs(second.run_id, 1, term, 1).await.unwrap(), 131, "of the job, not of the run");
    // Of many at once none gets what another has.
    let taken = join_all((0..20).map(|_| store.reserve_epochs(second.run_id, 1, term, 10))).await;
    let firsts: BTreeSet<i64> = taken.into_iter().map(|first| first.unwrap()).collect();
    assert_eq!(firsts, (0..20).map(|index| 132 + 10 * index).collect());
    // Jobs have numbers of their own.
    let other = running(store, &stored(store, "b").await).await;
    assert_eq!(store.reserve_epochs(other.run_id, 1, term, 1).await.unwrap(), 1);
}

async fn reserving_needs_each_of_its_guards(subject: &Subject) {
    let store = &*subject.store;
    let older = store.lead("one").await.unwrap();
    let term = store.lead("one").await.unwrap();
    let run = running(store, &stored(store, "a").await).await;
    for other in [older, term + 1, 0] {
        fails!(
            store.reserve_epochs(run.run_id, 1, other, 5).await,
            MetadataError::Fenced { found: Fence::Term(found), .. } if found == term
        );
    }
    for other in [0, 2] {
        fails!(store.reserve_epochs(run.run_id, other, term, 5).await, MetadataError::Moved { generation: 1, .. });
    }
    let nobody = Uuid::now_v7();
    fails!(store.reserve_epochs(nobody, 1, term, 5).await, MetadataError::NotFound { kind: "run", .. });
    assert_eq!(store.reserve_epochs(run.run_id, 1, term, 5).await.unwrap(), 1, "nothing was taken");
    end(store, &run).await;
    fails!(
        store.reserve_epochs(run.run_id, 1, term, 5).await,
        MetadataError::Moved { state, .. } if state == "stopped"
    );
}

async fn a_decision_needs_each_of_its_guards(subject: &Subject) {
    let store = &*subject.store;
    let older = store.lead("one").await.unwrap();
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    let other = running(store, &stored(store, "b").await).await;
    committed(store, &run, term, None, &[3, 5]).await;
    let before = everything(store).await;
    let right = decision(&run, term, 8, Some(5));
    for other in [older, term + 1, 0] {
        fails!(
            store.decide_epoch(&EpochDecision { term: other, ..right.clone() }).await,
            MetadataError::Fenced { job_id, epoch: 8, found: Fence::Term(found) } if found == term && job_id == job.job_id
        );
    }
    for generation in [0, 2] {
        fails!(
            store.decide_epoch(&EpochDecision { generation, ..right.clone() }).await,
            MetadataError::Moved { run_id, generation: 1, .. } if run_id == run.run_id
        );
    }
    for previous in [None, Some(3), Some(4), Some(7)] {
        fails!(
            store.decide_epoch(&EpochDecision { previous, ..right.clone() }).await,
            MetadataError::Fenced { found: Fence::Previous(Some(5)), .. }
        );
    }
    for (epoch, previous) in [(4, Some(5)), (4, Some(3)), (1, None)] {
        fails!(
            store.decide_epoch(&decision(&run, term, epoch, previous)).await,
            MetadataError::Fenced { found: Fence::Newest(5), .. }
        );
    }
    let found = store.epoch(job.job_id, 5).await.unwrap().nonce;
    fails!(
        store.decide_epoch(&decision(&run, term, 5, Some(3))).await,
        MetadataError::Fenced { epoch: 5, found: Fence::Nonce(nonce), .. } if nonce == found
    );
    for (job_id, run_id) in [(job.job_id, other.run_id), (other.job_id, run.run_id), (job.job_id, Uuid::now_v7())] {
        fails!(
            store.decide_epoch(&EpochDecision { job_id, run_id, ..right.clone() }).await,
            MetadataError::NotFound { kind: "run", .. }
        );
    }
    fails!(
        store.decide_epoch(&EpochDecision { job_id: Uuid::now_v7(), ..right.clone() }).await,
        MetadataError::NotFound { kind: "job", .. }
    );
    assert_eq!(everything(store).await, before);
    assert_eq!(store.reserve_epochs(run.run_id, 1, term, 1).await.unwrap(), 16, "five and ten");
    store.decide_epoch(&right).await.unwrap();
    end(store, &run).await;
    fails!(
        store.decide_epoch(&decision(&run, term, 9, Some(8))).await,
        MetadataError::Moved { state, generation: 1, .. } if state == "stopped"
    );
    assert_eq!(numbers(store, &job, &[]).await, [8, 5, 3]);
}

async fn who_never_led_decides_nothing(subject: &Subject) {
    let store = &*subject.store;
    let run = running(store, &stored(store, "a").await).await;
    for term in [0, 1] {
        let fenced = |error: MetadataError| {
            assert!(matches!(error, MetadataError::Fenced { found: Fence::Term(0), .. }), "{error:?}");
        };
        fenced(store.decide_epoch(&decision(&run, term, 1, None)).await.unwrap_err());
        fenced(store.reserve_epochs(run.run_id, 1, term, 1).await.unwrap_err());
        fenced(confirm(store, &run, term, 1).await.unwrap_err());
        fenced(store.retire_epochs(run.job_id, &[1], term, now()).await.unwrap_err());
    }
    assert_eq!(store.last_epoch(run.job_id).await.unwrap(), None);
}

/// As after a commit of unknown fate: whoever asks again hears the truth, whatever has happened since.
async fn what_was_decided_stays_so(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    let first = decision(&run, term, 1, None);
    store.decide_epoch(&first).await.unwrap();
    let expected = store.epoch(job.job_id, 1).await.unwrap();
    let again = EpochDecision { bytes: 99, manifest: "elsewhere".into(), reserve: 500, at: now(), ..first.clone() };
    store.decide_epoch(&again).await.unwrap();
    assert_eq!(store.epoch(job.job_id, 1).await.unwrap(), expected);
    assert_eq!(store.reserve_epochs(run.run_id, 1, term, 1).await.unwrap(), 12, "one and ten");

    let restarted = RunMove { new_generation: Some(2), ..step(&run, &["running"], "restarting") };
    let restarted = store.move_run(&restarted).await.unwrap();
    store.decide_epoch(&again).await.unwrap();
    store.decide_epoch(&decision(&restarted, term, 20, Some(1))).await.unwrap();
    store.decide_epoch(&again).await.unwrap();
    let next = store.lead("one").await.unwrap();
    store.decide_epoch(&again).await.unwrap();
    for (generation, term) in [(1, term), (2, next)] {
        let other = EpochDecision { nonce: Uuid::new_v4(), generation, term, ..first.clone() };
        fails!(
            store.decide_epoch(&other).await,
            MetadataError::Fenced { found: Fence::Nonce(nonce), .. } if nonce == first.nonce
        );
    }
    assert_eq!(store.epoch(job.job_id, 1).await.unwrap(), expected);
    assert_eq!(numbers(store, &job, &[]).await, [20, 1]);
}

async fn a_run_continues_its_own_lineage(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let previous_of = async |epoch| store.epoch(job.job_id, epoch).await.unwrap().previous;
    let refused = async |decision: EpochDecision, expected: Option<i64>| match store.decide_epoch(&decision).await {
        Err(MetadataError::Fenced { found: Fence::Previous(found), .. }) => assert_eq!(found, expected),
        other => panic!("{other:?}"),
    };
    let first = running(store, &job).await;
    committed(store, &first, term, None, &[1, 2, 3]).await;
    end(store, &first).await;

    // Fresh: what was before is not its own.
    let fresh = running(store, &job).await;
    refused(decision(&fresh, term, 10, Some(3)), None).await;
    committed(store, &fresh, term, None, &[10, 11]).await;
    end(store, &fresh).await;

    // From the newest.
    let latest = running_from(store, &job, Some(11)).await;
    assert_eq!(store.run(latest.run_id).await.unwrap().base_epoch, Some(11));
    refused(decision(&latest, term, 20, None), Some(11)).await;
    refused(decision(&latest, term, 20, Some(10)), Some(11)).await;
    store.decide_epoch(&decision(&latest, term, 20, Some(11))).await.unwrap();
    // A second attempt continues the first, not the base.
    let attempt = RunMove { new_generation: Some(2), ..step(&latest, &["running"], "restarting") };
    let attempt = store.move_run(&attempt).await.unwrap();
    let attempt = store.move_run(&step(&attempt, &["restarting"], "running")).await.unwrap();
    refused(decision(&attempt, term, 30, Some(11)), Some(20)).await;
    store.decide_epoch(&decision(&attempt, term, 30, Some(20))).await.unwrap();
    end(store, &attempt).await;

    // From an older one, of another lineage: a rewind. Numbers go on.
    let rewound = running_from(store, &job, Some(2)).await;
    refused(decision(&rewound, term, 40, Some(30)), Some(2)).await;
    fails!(
        store.decide_epoch(&decision(&rewound, term, 12, Some(2))).await,
        MetadataError::Fenced { found: Fence::Newest(30), .. }
    );
    store.decide_epoch(&decision(&rewound, term, 40, Some(2))).await.unwrap();
    assert_eq!((previous_of(10).await, previous_of(20).await, previous_of(40).await), (None, Some(11), Some(2)));
}

async fn a_base_is_an_epoch_of_the_job_that_is_kept(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let first = running(store, &job).await;
    committed(store, &first, term, None, &[1, 2, 3, 4]).await;
    store.retire_epochs(job.job_id, &[1], term, now()).await.unwrap();
    end(store, &first).await;
    let other = stored(store, "b").await;
    for (job, base) in [(&job, 1), (&job, 5), (&other, 4)] {
        let run = Run { base_epoch: Some(base), ..run(job) };
        fails!(
            store.create_run(&run, &change("run.create")).await,
            MetadataError::NotFound { kind: "epoch", name } if name == base.to_string()
        );
        fails!(store.run(run.run_id).await, MetadataError::NotFound { .. });
    }
    let begun = crate::fixtures::job("c");
    let run = Run { base_epoch: Some(4), ..run(&begun) };
    fails!(
        store.create_started_job(&begun, &version(&begun), &run, &change("job.create")).await,
        MetadataError::NotFound { kind: "epoch", .. }
    );
    // One that is not committed yet will do: recovery commits it.
    let second = running_from(store, &job, Some(4)).await;
    store.decide_epoch(&decision(&second, term, 9, Some(4))).await.unwrap();
    end(store, &second).await;
    running_from(store, &job, Some(9)).await;
}

async fn of_two_deciders_one_wins(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    let mut previous = None;
    for round in 1..=15 {
        // Some want the same number, some another: all after the same epoch.
        let decisions: Vec<EpochDecision> =
            (0..6).map(|index| decision(&run, term, round * 10 + index / 2, previous)).collect();
        let done = join_all(decisions.iter().map(|decision| store.decide_epoch(decision))).await;
        let won: Vec<usize> = (0..done.len()).filter(|index| done[*index].is_ok()).collect();
        assert_eq!(won.len(), 1, "{done:?}");
        let fenced = |error: &MetadataError| matches!(error, MetadataError::Fenced { .. });
        assert!(done.iter().all(|outcome| outcome.as_ref().err().is_none_or(fenced)), "{done:?}");
        let winner = &decisions[won[0]];
        assert_eq!(store.last_epoch(job.job_id).await.unwrap(), Some(decided(winner)));
        previous = Some(winner.epoch);
        // The same word from several: all hear that it is so.
        let same = decision(&run, term, round * 10 + 5, previous);
        for outcome in join_all((0..4).map(|_| store.decide_epoch(&same))).await {
            outcome.unwrap();
        }
        previous = Some(same.epoch);
    }
    assert_eq!(numbers(store, &job, &[]).await.len(), 30);
}

async fn a_decision_and_a_new_attempt_do_not_both_happen(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let mut run = running(store, &job).await;
    let mut previous = None;
    let mut won = 0;
    for epoch in 1..=40 {
        let decide = decision(&run, term, epoch, previous);
        let to = if run.state == "running" { "restarting" } else { "running" };
        let next = RunMove { new_generation: Some(run.generation + 1), ..step(&run, &[&run.state], to) };
        let (done, (moved, seen)) = tokio::join!(
            later(epoch - 20, store.decide_epoch(&decide)),
            later(20 - epoch, async {
                let moved = store.move_run(&next).await.unwrap();
                (moved, store.last_epoch(job.job_id).await.unwrap().map(|epoch| epoch.epoch))
            })
        );
        // The new attempt has seen it, or it never was.
        match done {
            Ok(()) => {
                assert_eq!(seen, Some(epoch));
                won += 1;
            }
            Err(MetadataError::Moved { generation, .. }) => {
                assert_eq!((seen, generation), (previous, moved.generation));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(store.last_epoch(job.job_id).await.unwrap().map(|epoch| epoch.epoch), seen);
        (run, previous) = (moved, seen);
    }
    eprintln!("{won} of 40 were decided before the new attempt");
    assert!((1..40).contains(&won), "one always came first: {won}");
}

async fn a_decision_and_a_new_leader_do_not_both_happen(subject: &Subject) {
    let store = &*subject.store;
    let mut term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    let mut previous = None;
    let mut won = 0;
    for epoch in 1..=40 {
        let decide = decision(&run, term, epoch, previous);
        let (done, (next, seen)) = tokio::join!(
            later(epoch - 20, store.decide_epoch(&decide)),
            later(20 - epoch, async {
                let next = store.lead("one").await.unwrap();
                (next, store.last_epoch(job.job_id).await.unwrap().map(|epoch| epoch.epoch))
            })
        );
        match done {
            Ok(()) => {
                assert_eq!(seen, Some(epoch));
                won += 1;
            }
            // `Owned` from the store that does not yet know that it leads again.
            Err(MetadataError::Fenced { found: Fence::Term(_), .. } | MetadataError::Owned(_)) => {
                assert_eq!(seen, previous);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(store.last_epoch(job.job_id).await.unwrap().map(|epoch| epoch.epoch), seen);
        (term, previous) = (next, seen);
    }
    eprintln!("{won} of 40 were decided before the new leader");
    assert!((1..40).contains(&won), "one always came first: {won}");
}

async fn confirming_needs_each_of_its_guards(subject: &Subject) {
    let store = &*subject.store;
    let older = store.lead("one").await.unwrap();
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    let other = running(store, &stored(store, "b").await).await;
    store.decide_epoch(&decision(&run, term, 1, None)).await.unwrap();
    let before = everything(store).await;
    for other in [older, term + 1, 0] {
        fails!(
            confirm(store, &run, other, 1).await,
            MetadataError::Fenced { epoch: 1, found: Fence::Term(found), .. } if found == term
        );
    }
    for generation in [0, 2] {
        let run = Run { generation, ..run.clone() };
        fails!(confirm(store, &run, term, 1).await, MetadataError::Moved { generation: 1, .. });
    }
    fails!(confirm(store, &run, term, 2).await, MetadataError::NotFound { kind: "epoch", .. });
    let stranger = Run { run_id: other.run_id, ..run.clone() };
    fails!(confirm(store, &stranger, term, 1).await, MetadataError::NotFound { kind: "run", .. });
    assert_eq!(everything(store).await, before);
    end(store, &run).await;
    fails!(confirm(store, &run, term, 1).await, MetadataError::Moved { state, .. } if state == "stopped");
    // A run that does not continue it has nothing to say of it.
    let fresh = running(store, &job).await;
    fails!(
        confirm(store, &fresh, term, 1).await,
        MetadataError::Fenced { found: Fence::Run(found), .. } if found == run.run_id
    );
    assert_eq!(numbers(store, &job, &["decided"]).await, [1]);
    // Nor has anybody of what was given up.
    committed(store, &fresh, term, None, &[2, 3]).await;
    store.decide_epoch(&decision(&fresh, term, 4, Some(3))).await.unwrap();
    store.retire_epochs(job.job_id, &[1], term, now()).await.unwrap();
    end(store, &fresh).await;
    let rewound = running_from(store, &job, Some(3)).await;
    fails!(confirm(store, &rewound, term, 1).await, MetadataError::Fenced { found: Fence::Retired, .. });
    fails!(
        confirm(store, &rewound, term, 4).await,
        MetadataError::Fenced { found: Fence::Run(found), .. } if found == fresh.run_id
    );
    assert_eq!(store.epoch(job.job_id, 1).await.unwrap().committed_at, None);
    assert_eq!(numbers(store, &job, &["decided"]).await, [4]);
}

/// What cannot be restored gives way to the epoch before it, as if it had never been decided.
async fn the_newest_epoch_can_be_given_up(subject: &Subject) {
    let store = &*subject.store;
    let older = store.lead("one").await.unwrap();
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    committed(store, &run, term, None, &[1, 2]).await;
    let third = decision(&run, term, 3, Some(2));
    store.decide_epoch(&third).await.unwrap();
    let before = everything(store).await;
    fails!(
        store.abandon_epoch(&statement(&run, older, 3)).await,
        MetadataError::Fenced { found: Fence::Term(found), .. } if found == term
    );
    let next = Run { generation: 2, ..run.clone() };
    fails!(store.abandon_epoch(&statement(&next, term, 3)).await, MetadataError::Moved { generation: 1, .. });
    fails!(
        store.abandon_epoch(&statement(&run, term, 2)).await,
        MetadataError::Fenced { found: Fence::Previous(Some(3)), .. }
    );
    fails!(store.abandon_epoch(&statement(&run, term, 4)).await, MetadataError::NotFound { kind: "epoch", .. });
    assert_eq!(everything(store).await, before);
    for _ in 0..2 {
        store.abandon_epoch(&statement(&run, term, 3)).await.unwrap();
        assert_eq!(store.last_epoch(job.job_id).await.unwrap().map(|epoch| epoch.epoch), Some(2));
    }
    // Its leader must not think that it stands, nor anybody that it was published.
    fails!(store.decide_epoch(&third).await, MetadataError::Fenced { found: Fence::Retired, .. });
    fails!(confirm(store, &run, term, 3).await, MetadataError::Fenced { found: Fence::Retired, .. });
    store.decide_epoch(&decision(&run, term, 4, Some(2))).await.unwrap();
    end(store, &run).await;

    // A run that began from an epoch begins from the one before.
    let later = running_from(store, &job, Some(4)).await;
    store.abandon_epoch(&statement(&later, term, 4)).await.unwrap();
    store.abandon_epoch(&statement(&later, term, 4)).await.unwrap();
    assert_eq!(store.run(later.run_id).await.unwrap().base_epoch, Some(2));
    store.decide_epoch(&decision(&later, term, 5, Some(2))).await.unwrap();
    end(store, &later).await;
    // Unless its files are gone.
    let other = stored(store, "b").await;
    let run = running(store, &other).await;
    committed(store, &run, term, None, &[1, 2, 3]).await;
    store.retire_epochs(other.job_id, &[1], term, now()).await.unwrap();
    store.abandon_epoch(&statement(&run, term, 3)).await.unwrap();
    fails!(store.abandon_epoch(&statement(&run, term, 2)).await, MetadataError::Fenced { found: Fence::Retired, .. });
    assert_eq!(numbers(store, &other, &["committed"]).await, [2]);
}

async fn a_later_attempt_and_a_later_run_confirm(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let first = running(store, &job).await;
    store.decide_epoch(&decision(&first, term, 1, None)).await.unwrap();
    store.decide_epoch(&decision(&first, term, 2, Some(1))).await.unwrap();
    store.decide_epoch(&decision(&first, term, 3, Some(2))).await.unwrap();
    let again = RunMove { new_generation: Some(2), ..step(&first, &["running"], "restarting") };
    let again = store.move_run(&again).await.unwrap();
    let term = store.lead("one").await.unwrap();
    confirm(store, &again, term, 1).await.unwrap();
    assert_eq!(store.epoch(job.job_id, 1).await.unwrap().generation, 1, "of who decided it");
    store.move_run(&step(&again, &["restarting"], "failed")).await.unwrap();
    let next = running_from(store, &job, Some(3)).await;
    confirm(store, &next, term, 2).await.unwrap();
    confirm(store, &next, term, 3).await.unwrap();
    assert_eq!(numbers(store, &job, &["committed"]).await, [3, 2, 1]);
}

async fn epochs_are_filtered_and_paged(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let other = running(store, &stored(store, "b").await).await;
    committed(store, &other, term, None, &[1, 100]).await;
    let first = running(store, &job).await;
    committed(store, &first, term, None, &[1, 2, 3, 4]).await;
    end(store, &first).await;
    let second = running_from(store, &job, Some(4)).await;
    committed(store, &second, term, Some(4), &[7]).await;
    store.decide_epoch(&decision(&second, term, 9, Some(7))).await.unwrap();
    store.retire_epochs(job.job_id, &[1, 2], term, now()).await.unwrap();
    assert_eq!(numbers(store, &job, &[]).await, [9, 7, 4, 3, 2, 1]);
    assert_eq!(numbers(store, &job, &["decided"]).await, [9]);
    assert_eq!(numbers(store, &job, &["committed"]).await, [7, 4, 3]);
    assert_eq!(numbers(store, &job, &["retired", "decided"]).await, [9, 2, 1]);
    let found = async |run: &Run, after, limit| -> Vec<i64> {
        let filter = EpochFilter { run_id: Some(run.run_id), ..all_epochs(job.job_id) };
        let epochs = store.epochs(&filter, EpochPage { after, limit }).await.unwrap();
        epochs.into_iter().map(|epoch| epoch.epoch).collect()
    };
    assert_eq!(found(&first, None, 9).await, [4, 3, 2, 1]);
    assert_eq!(found(&first, None, 2).await, [4, 3]);
    assert_eq!(found(&first, Some(3), 9).await, [2, 1]);
    assert_eq!(found(&second, None, 9).await, [9, 7]);
    assert_eq!(found(&other, None, 9).await, [0; 0], "of another job");
    assert_eq!(store.last_epoch(job.job_id).await.unwrap().map(|epoch| epoch.epoch), Some(9));
    assert_eq!(store.last_epoch(other.job_id).await.unwrap().map(|epoch| epoch.epoch), Some(100));
}

async fn what_recovery_needs_is_not_retired(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    // Exactly these are refused, each by itself, of what is not retired yet.
    let needed = async |expected: &[i64]| {
        let mut found = Vec::new();
        for epoch in numbers(store, &job, &["decided", "committed"]).await {
            // Whatever can be retired is, together with one that never can be: so nothing is.
            let last = store.last_epoch(job.job_id).await.unwrap().unwrap().epoch;
            match store.retire_epochs(job.job_id, &[epoch, last], term, now()).await {
                Err(MetadataError::InUse { kind: "epoch", name, by }) => {
                    assert_eq!(by, "recovery");
                    if name == epoch.to_string() {
                        found.push(epoch);
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(found, expected);
    };
    let first = running(store, &job).await;
    store.decide_epoch(&decision(&first, term, 1, None)).await.unwrap();
    needed(&[1]).await;
    confirm(store, &first, term, 1).await.unwrap();
    committed(store, &first, term, Some(1), &[2, 3, 4, 5]).await;
    needed(&[5, 4]).await;
    store.decide_epoch(&decision(&first, term, 6, Some(5))).await.unwrap();
    needed(&[6, 5, 4]).await;
    store.decide_epoch(&decision(&first, term, 7, Some(6))).await.unwrap();
    needed(&[7, 6, 5, 4]).await;
    confirm(store, &first, term, 6).await.unwrap();
    needed(&[7, 6, 5]).await;
    end(store, &first).await;
    needed(&[7, 6, 5]).await;

    // A fresh run needs none of them before it has one; then they are history.
    let fresh = running(store, &job).await;
    needed(&[7, 6, 5]).await;
    committed(store, &fresh, term, None, &[10]).await;
    needed(&[10]).await;
    committed(store, &fresh, term, Some(10), &[11, 12]).await;
    needed(&[12, 11]).await;
    end(store, &fresh).await;

    // A rewound one needs what it stands on, and the newest stays in any case.
    let rewound = running_from(store, &job, Some(3)).await;
    needed(&[12, 3, 2]).await;
    store.retire_epochs(job.job_id, &[4, 5, 6, 7, 10, 11], term, now()).await.unwrap();
    store.decide_epoch(&decision(&rewound, term, 20, Some(3))).await.unwrap();
    needed(&[20, 3, 2]).await;
    confirm(store, &rewound, term, 20).await.unwrap();
    needed(&[20, 3]).await;
    store.retire_epochs(job.job_id, &[1, 2, 12], term, now()).await.unwrap();
    assert_eq!(numbers(store, &job, &["committed"]).await, [20, 3]);
}

async fn what_is_below_a_retired_epoch_is_not_needed(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    committed(store, &run, term, None, &[1, 2, 3, 4]).await;
    store.retire_epochs(job.job_id, &[2], term, now()).await.unwrap();
    end(store, &run).await;
    running_from(store, &job, Some(3)).await;
    fails!(store.retire_epochs(job.job_id, &[3], term, now()).await, MetadataError::InUse { .. });
    store.retire_epochs(job.job_id, &[1], term, now()).await.unwrap();
    assert_eq!(numbers(store, &job, &["committed"]).await, [4, 3]);
}

async fn epochs_are_retired_all_or_none(subject: &Subject) {
    let store = &*subject.store;
    let older = store.lead("one").await.unwrap();
    let term = store.lead("one").await.unwrap();
    let job = stored(store, "a").await;
    let run = running(store, &job).await;
    committed(store, &run, term, None, &[1, 2, 3, 4, 5]).await;
    let before = everything(store).await;
    fails!(
        store.retire_epochs(job.job_id, &[1, 2, 4], term, now()).await,
        MetadataError::InUse { kind: "epoch", name, .. } if name == "4"
    );
    fails!(
        store.retire_epochs(job.job_id, &[1, 9], term, now()).await,
        MetadataError::NotFound { kind: "epoch", name } if name == "9"
    );
    for other in [older, term + 1, 0] {
        fails!(
            store.retire_epochs(job.job_id, &[1], other, now()).await,
            MetadataError::Fenced { found: Fence::Term(found), .. } if found == term
        );
    }
    fails!(store.retire_epochs(Uuid::now_v7(), &[1], term, now()).await, MetadataError::NotFound { kind: "job", .. });
    assert_eq!(everything(store).await, before);
    let (kept, at) = (store.epoch(job.job_id, 2).await.unwrap(), now());
    store.retire_epochs(job.job_id, &[1, 2], term, at).await.unwrap();
    let retired = Epoch { state: "retired".into(), retired_at: Some(at), ..kept };
    assert_eq!(store.epoch(job.job_id, 2).await.unwrap(), retired);
    // Again, with one more: the first time stays.
    let later = at + chrono::Duration::seconds(1);
    store.retire_epochs(job.job_id, &[1, 2, 3], term, later).await.unwrap();
    assert_eq!(store.epoch(job.job_id, 2).await.unwrap(), retired);
    assert_eq!(store.epoch(job.job_id, 3).await.unwrap().retired_at, Some(later));
    store.retire_epochs(job.job_id, &[], term, later).await.unwrap();
    assert_eq!(numbers(store, &job, &["retired"]).await, [3, 2, 1]);
    // A number that was retired was used.
    fails!(
        store.decide_epoch(&decision(&run, term, 3, Some(5))).await,
        MetadataError::Fenced { found: Fence::Nonce(_), .. }
    );
}

async fn epochs_go_with_their_job(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let stays = running(store, &stored(store, "b").await).await;
    committed(store, &stays, term, None, &[1]).await;
    let job = stored(store, "a").await;
    let first = running(store, &job).await;
    committed(store, &first, term, None, &[1, 2]).await;
    end(store, &first).await;
    let second = running_from(store, &job, Some(2)).await;
    committed(store, &second, term, Some(2), &[3]).await;
    end(store, &second).await;
    store.delete_job(job.job_id, 1, &change("job.delete")).await.unwrap();
    assert_eq!(numbers(store, &job, &[]).await, [0; 0]);
    assert_eq!(store.last_epoch(job.job_id).await.unwrap(), None);
    fails!(store.decide_epoch(&decision(&second, term, 4, Some(3))).await, MetadataError::NotFound { kind: "job", .. });
    fails!(confirm(store, &second, term, 3).await, MetadataError::NotFound { kind: "job", .. });
    assert_eq!(store.last_epoch(stays.job_id).await.unwrap().map(|epoch| epoch.epoch), Some(1));
}

async fn constraints_on_epochs_hold_behind_the_program(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let run = running(store, &stored(store, "a").await).await;
    committed(store, &run, term, None, &[1, 2]).await;
    store.decide_epoch(&decision(&run, term, 3, Some(2))).await.unwrap();
    for (sql, why) in [
        ("UPDATE epoch SET state = 'resting'", "states are known"),
        ("UPDATE epoch SET state = 'committed' WHERE epoch = 3", "what is committed has a time"),
        ("UPDATE epoch SET state = 'decided' WHERE epoch = 2", "what is committed stays so"),
        ("UPDATE epoch SET state = 'retired' WHERE epoch = 1", "what is retired has a time"),
        ("UPDATE epoch SET proofs = NULL WHERE epoch = 1", "what is committed was proved"),
        ("UPDATE epoch SET proofs = '{}' WHERE epoch = 3", "proofs are of what is committed"),
        ("UPDATE epoch SET previous = epoch", "numbers grow"),
        ("UPDATE epoch SET epoch = 0 WHERE epoch = 1", "numbers begin at 1"),
        ("UPDATE epoch SET epoch = 2 WHERE epoch = 3", "numbers are used once"),
        ("UPDATE epoch SET manifest_sha256 = 'ab'", "a hash has 64 digits"),
        ("UPDATE epoch SET bytes = -1", "sizes are sizes"),
        ("UPDATE epoch SET run_id = job_id", "an epoch is of a run"),
        ("UPDATE job SET reserved_epoch = -1", "numbers begin at 1"),
        ("UPDATE run SET base_epoch = 0", "numbers begin at 1"),
    ] {
        assert!(subject.try_behind_its_back(sql).await.is_err(), "{why}: {sql}");
    }
}

async fn how_long_a_decision_takes(subject: &Subject) {
    let store = &*subject.store;
    let term = store.lead("one").await.unwrap();
    let run = running(store, &stored(store, "a").await).await;
    let (mut previous, mut times) = (None, Vec::new());
    for epoch in 1..=200 {
        let decide = decision(&run, term, epoch, previous);
        let begun = std::time::Instant::now();
        store.decide_epoch(&decide).await.unwrap();
        times.push(begun.elapsed());
        confirm(store, &run, term, epoch).await.unwrap();
        previous = Some(epoch);
    }
    times.sort();
    eprintln!("decide_epoch: median {:?}, p99 {:?}", times[100], times[197]);
    assert!(times[100] < std::time::Duration::from_millis(500), "{:?}", times[100]);
}
