//! Every step of the epoch protocol fails once, in each way that makes sense for it: the process that takes it is killed or stopped, the
//! step fails, is late, or its reply is lost. The service goes on by itself, and what it has put out in the end is what the input says.
//!
//! `make test` plays a selection, `make failpoints` all of it; `HIGHWATER_FAILPOINTS` is `all` or a part of the faults' names, such as
//! `decide.before=kill@1`. The points are those of crate `faults`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use integration_tests::program::repository;

use super::play::{By, Case, outcome, play_all};

/// A point with the letters of the steps in design/correctness.md that it stands at, and the actions that make sense there: `k`ill, `s`top,
/// `e`rror, `d`elay, `l`ost reply. What happens once in a run has no later occurrence.
struct Point(&'static str, &'static str, By, &'static str, &'static [u64]);

const OFTEN: &[u64] = &[1, 3];
const ONCE: &[u64] = &[1];

const POINTS: &[Point] = &[
    Point("cut.begun", "B", By::Stream, "ksed", OFTEN),
    Point("cut.source.before", "C", By::Stream, "ksd", OFTEN),
    Point("cut.source.after", "C", By::Stream, "ksd", OFTEN),
    Point("snapshot.before", "S", By::Stream, "ksed", OFTEN),
    Point("snapshot.half", "S", By::Stream, "ksed", OFTEN),
    Point("files.write.staged", "S", By::Stream, "kse", OFTEN),
    Point("snapshot.uploaded", "S, A", By::Stream, "ksedl", OFTEN),
    Point("prepare.before", "P", By::Stream, "ksed", OFTEN),
    Point("sink.file.unsynced", "P", By::Stream, "kse", OFTEN),
    Point("staged.log.before", "P", By::Kafka, "ke", OFTEN),
    Point("staged.log.after", "P", By::Kafka, "kel", OFTEN),
    Point("prepare.after", "P, A", By::Stream, "ksedl", OFTEN),
    Point("acks.partial", "A", By::Stream, "ksed", OFTEN),
    Point("acks.complete", "A", By::Stream, "ksed", OFTEN),
    Point("stage.before", "A", By::Stream, "ksed", OFTEN),
    Point("view.stage.before", "A", By::Stream, "ke", OFTEN),
    Point("view.stage.after", "A", By::Stream, "kel", OFTEN),
    Point("stage.after", "A", By::Stream, "ksedl", OFTEN),
    Point("manifest.before", "M", By::Stream, "ksed", OFTEN),
    Point("files.create.staged", "M", By::Stream, "kse", OFTEN),
    Point("files.create.linked", "M", By::Stream, "ksel", OFTEN),
    Point("manifest.after", "M", By::Stream, "ksdl", OFTEN),
    Point("decide.asked", "D", By::Stream, "ksed", OFTEN),
    Point("decide.transaction.before", "D", By::Stream, "ksed", OFTEN),
    Point("decide.transaction.after", "D", By::Stream, "ksdl", OFTEN),
    Point("answer.before", "D, F", By::Stream, "ksdl", &[1, 2, 3]),
    Point("decide.told", "D", By::Stream, "ksdl", OFTEN),
    // Of three sinks: the first, between them, and the last.
    Point("commit.sink.before", "K", By::Stream, "ksed", &[1, 2, 3]),
    Point("commit.sink.after", "K", By::Stream, "ksdl", &[1, 2, 3]),
    Point("staged.open.after", "K", By::Kafka, "ksel", OFTEN),
    Point("staged.send.before", "K", By::Kafka, "ke", OFTEN),
    Point("kafka.send.half", "K", By::Kafka, "kse", OFTEN),
    Point("staged.end.before", "K", By::Kafka, "kse", OFTEN),
    Point("staged.end.after", "K", By::Kafka, "ksl", OFTEN),
    Point("staged.log.after", "P", By::Postgres, "kel", OFTEN),
    Point("staged.open.after", "K", By::Postgres, "ksel", OFTEN),
    Point("staged.send.before", "K", By::Postgres, "ke", OFTEN),
    Point("postgres.copy.half", "K", By::Postgres, "ksed", OFTEN),
    Point("postgres.copied", "K", By::Postgres, "ksed", OFTEN),
    Point("staged.end.before", "K", By::Postgres, "kse", OFTEN),
    Point("staged.end.after", "K", By::Postgres, "ksl", OFTEN),
    Point("sink.manifest.before", "K", By::Stream, "kse", OFTEN),
    Point("sink.manifest.linked", "K", By::Stream, "ksel", OFTEN),
    Point("sink.manifest.after", "K", By::Stream, "ksl", OFTEN),
    Point("sink.rename.before", "K", By::Stream, "kse", OFTEN),
    Point("sink.rename.after", "K", By::Stream, "ksel", OFTEN),
    Point("confirm.asked", "F", By::Stream, "ksed", OFTEN),
    Point("confirm.transaction.before", "F", By::Stream, "ksed", OFTEN),
    Point("confirm.transaction.after", "F", By::Stream, "ksdl", OFTEN),
    Point("confirm.told", "F", By::Stream, "ksdl", OFTEN),
    Point("collect.before", "G", By::Collection, "ksd", ONCE),
    Point("collect.retired", "G", By::Collection, "ksd", &[2]),
    Point("collect.half", "G", By::Collection, "kse", &[1, 3]),
    Point("reserve.transaction.before", "restore", By::Restore, "ksed", &[2]),
    Point("reserve.transaction.after", "restore", By::Restore, "ksdl", &[2]),
    Point("attempt.placed", "restore", By::Restore, "ksd", &[2]),
    Point("move.transaction.before", "restore", By::Restore, "ksed", &[2, 3, 4]),
    Point("move.transaction.after", "restore", By::Restore, "ksdl", &[2, 3, 4]),
    Point("restore.opened", "restore", By::Restore, "ksed", ONCE),
    Point("restore.half", "restore", By::Restore, "kse", &[1, 2]),
    Point("restore.loaded", "restore", By::Restore, "ksed", ONCE),
    Point("restore.sinks", "restore", By::Restore, "ksed", &[1, 2]),
    Point("abandon.transaction.before", "restore", By::Abandon, "ksed", ONCE),
    Point("abandon.transaction.after", "restore", By::Abandon, "ksdl", ONCE),
    Point("restore.committed", "restore", By::Restore, "ksdl", &[1, 2]),
    Point("restore.ready", "restore", By::Restore, "ksed", ONCE),
    Point("last.begun", "last", By::Bounded, "ksed", ONCE),
    Point("last.decide", "last", By::Bounded, "ksed", ONCE),
    Point("last.decided", "last", By::Bounded, "ksed", ONCE),
    Point("view.publish.before", "last", By::Bounded, "kse", ONCE),
    Point("view.publish.after", "last", By::Bounded, "ksel", ONCE),
    Point("last.committed", "last", By::Bounded, "ksed", ONCE),
    Point("outcome.before", "last", By::Bounded, "ksd", ONCE),
    Point("outcome.after", "last", By::Bounded, "ksd", ONCE),
    Point("drain.obeyed", "drain", By::Drain, "ksed", ONCE),
    Point("stop.noted", "stop", By::Stop, "ksd", ONCE),
    Point("stop.obeyed", "stop", By::Stop, "ksd", ONCE),
    Point("savepoint.stop.before", "savepoint", By::Savepoint, "ksd", ONCE),
    Point("savepoint.stop.after", "savepoint", By::Savepoint, "ksd", ONCE),
    Point("savepoint.named.before", "savepoint", By::Savepoint, "ksd", ONCE),
    Point("savepoint.named.after", "savepoint", By::Savepoint, "ksd", ONCE),
    Point("savepoint.file.before", "savepoint", By::Savepoint, "ksed", OFTEN),
    Point("savepoint.file.after", "savepoint", By::Savepoint, "ksedl", OFTEN),
    Point("savepoint.manifest.before", "savepoint", By::Savepoint, "ksed", ONCE),
    Point("savepoint.manifest.after", "savepoint", By::Savepoint, "ksdl", ONCE),
    Point("savepoint.ended.before", "savepoint", By::Savepoint, "ksd", ONCE),
    Point("savepoint.ended.after", "savepoint", By::Savepoint, "ksd", ONCE),
    Point("savepoint.import.half", "savepoint", By::Savepoint, "ksedl", OFTEN),
    Point("savepoint.import.manifest.before", "savepoint", By::Savepoint, "ksed", ONCE),
    Point("savepoint.import.manifest.after", "savepoint", By::Savepoint, "ksdl", ONCE),
];

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for Point(point, _, by, actions, occurrences) in POINTS {
        for action in actions.chars() {
            let action = match action {
                'k' => "kill",
                's' => "stop",
                'e' => "error",
                'd' => "delay:300",
                'l' => "lost_reply",
                other => panic!("{point}: no action is called {other}"),
            };
            let case = |occurrence| Case::new(*by, format!("{point}={action}@{occurrence}"));
            cases.extend(occurrences.iter().map(case));
        }
    }
    cases
}

/// What `make test` plays: each point once in each job that reaches it, now in one way, now in another.
fn selection() -> Vec<Case> {
    let mut by_point: BTreeMap<(String, By), Vec<Case>> = BTreeMap::new();
    for case in cases() {
        let point = case.fault.split('=').next().unwrap().to_string();
        by_point.entry((point, case.by)).or_default().push(case);
    }
    let chosen = by_point.into_values().enumerate();
    chosen.map(|(number, mut of_point)| of_point.swap_remove(number % of_point.len())).collect()
}

#[test]
fn whatever_fails_at_a_step_nothing_is_lost_and_nothing_twice() {
    let wanted = std::env::var("HIGHWATER_FAILPOINTS").unwrap_or_default();
    let cases = match wanted.as_str() {
        "" => selection(),
        "all" => cases(),
        part => cases().into_iter().filter(|case| case.fault.contains(part)).collect(),
    };
    let (count, began) = (cases.len(), Instant::now());
    assert!(count > 0, "no fault is called {wanted}");
    let failed: Vec<String> =
        play_all(cases, outcome).into_iter().map(|(case, why)| format!("{}: {why}", case.fault)).collect();
    eprintln!("{count} faults in {:.0?}, {} failed", began.elapsed(), failed.len());
    assert!(failed.is_empty(), "HIGHWATER_FAILPOINTS=<one of these>: {failed:#?}");
}

/// The text between each `before` and the quotation mark behind it, in all sources of the program.
pub fn named(before: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["libs", "services"] {
        super::super::tidy::visit(&repository().join(folder), &mut |path, text| {
            // Its own text has examples.
            if path.extension().is_some_and(|extension| extension == "rs")
                && !path.starts_with(repository().join("libs/faults"))
            {
                for before in before {
                    let found = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
                    names.extend(found.map(str::to_string));
                }
            }
        });
    }
    names
}

#[test]
fn every_point_has_its_cases() {
    let points = named(&["faults::hit(\"", "faults::reach(\"", "faults::pass(\""]);
    let known: BTreeSet<String> = POINTS.iter().map(|Point(point, ..)| point.to_string()).collect();
    let rows: BTreeSet<(&str, By)> = POINTS.iter().map(|Point(point, _, by, ..)| (*point, *by)).collect();
    assert!(points.len() > 50 && rows.len() == POINTS.len(), "{} points, {} rows", points.len(), POINTS.len());
    assert_eq!(points, known, "the points in the sources, and those of the table");
    // Every letter of the protocol has a point.
    let steps: BTreeSet<&str> = POINTS.iter().flat_map(|Point(_, steps, ..)| steps.split(", ")).collect();
    let wanted = ["A", "B", "C", "D", "F", "G", "K", "M", "P", "S", "drain", "last", "restore", "savepoint", "stop"];
    assert_eq!(steps.into_iter().collect::<Vec<_>>(), wanted);
}
