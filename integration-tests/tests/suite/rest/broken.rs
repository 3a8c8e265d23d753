//! The tests are tested: the program does without something that it needs to be right, and a test must notice.
//!
//! A switch is a `faults::broken("...")` in the sources, turned on by `HIGHWATER_BROKEN`. `make test` tries those whose test is quick and at
//! hand, `make broken` all; `HIGHWATER_BROKEN_BUILDS` is `all` or a part of a switch's name.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Instant;

use integration_tests::program::repository;

use super::failpoints::named;
use super::play::{By, Case, outcome, play_all};

/// Who notices.
enum Caught {
    /// A case of the failpoints, with what it says.
    Case(By, &'static str, &'static str),
    /// A test of this suite.
    Suite(&'static str),
    /// Tests of a crate: its name, which of its test programs, and a part of their names. Not at hand in `make test`.
    Tests(&'static str, &'static [&'static str], &'static str),
}

use Caught::{Case as Played, Suite, Tests};

/// What is left out, who notices, and whether `make test` tries it.
struct Switch(&'static str, Caught, bool);

const SWITCHES: &[Switch] = &[
    // S, P: what is handed over.
    Switch("stale_snapshot", Played(By::Stream, "decide.told=kill@3", "sums in a view"), true),
    Switch("lose_changes_of_views", Played(By::Stream, "decide.told=kill@3", "each number once in a view"), true),
    Switch("forget_staged_files", Played(By::Bounded, "decide.told=kill@3", "each number once in files"), true),
    Switch("skip_fsync", Suite("rest::synced::what_a_checkpoint_names_is_on_the_disk"), true),
    Switch("skip_directory_fsync", Suite("rest::synced::what_a_checkpoint_names_is_on_the_disk"), true),
    Switch("skip_fsync_of_sinks", Tests("connectors", &["--lib"], "everything_is_synced_before_it_is_named"), false),
    // A, M: what is complete.
    Switch("skip_wait_for_uploads", Played(By::Stream, "snapshot.half=delay:3000@5; decide.told=kill@2", ""), true),
    Switch(
        "positions_of_next_epoch",
        Played(By::Stream, "snapshot.half=delay:400@15; decide.told=kill@2", "each number once in files"),
        true,
    ),
    Switch("overwrite_on_create", Suite("rest::synced::files_of_checkpoints_keep_their_promises"), true),
    Switch("reuse_epoch", Played(By::Stream, "decide.told=kill@3", "the run has not finished"), true),
    // D: the guards of the decision.
    Switch("commit_before_decide", Played(By::Stream, "decide.asked=kill@3", "each number once in files"), true),
    Switch("accept_late_answers", Tests("worker", &["--lib"], "a_question_waits_for_the_answer_to_it"), false),
    Switch("skip_generation_guard", Tests("metadata", &["--test", "store"], "each_of_its_guards"), false),
    Switch("skip_previous_guard", Tests("metadata", &["--test", "store"], "each_of_its_guards"), false),
    Switch("skip_nonce_guard", Tests("metadata", &["--test", "store"], "what_was_decided_stays_so"), false),
    Switch("skip_term_guard", Tests("metadata", &["--test", "store"], "each_of_its_guards"), false),
    // K, F: commits and what is said of them.
    Switch("skip_commit_again", Played(By::Stream, "commit.sink.before=kill@4", "each number once in files"), true),
    Switch("confirm_before_sinks", Played(By::Stream, "commit.sink.before=kill@4", "each number once in files"), true),
    Switch("publish_again", Played(By::Stream, "sink.manifest.after=kill@2", "each file once in manifests"), true),
    Switch(
        "drop_log_replay",
        Played(By::Kafka, "staged.open.after=kill@3", "each number once in the topic or table"),
        true,
    ),
    Switch(
        "disbelieve_marker",
        Played(By::Kafka, "staged.end.after=kill@3", "each number once in the topic or table"),
        true,
    ),
    Switch(
        "marker_outside_transaction",
        Played(By::Kafka, "staged.end.before=kill@3", "each number once in the topic or table"),
        true,
    ),
    Switch("ignore_delivery_error", Tests("connectors", &["--lib"], "deliveries_that_fail_end_the_run"), false),
    // G, restore.
    Switch("collect_one_too_many", Played(By::Collection, "collect.retired=delay:1@2", "is not whole"), true),
    Switch(
        "retire_what_is_needed",
        Tests("metadata", &["--test", "store"], "what_recovery_needs_is_not_retired"),
        false,
    ),
    Switch("skip_hash", Suite("rest::recovery::a_damaged_checkpoint_is_refused_by_name"), true),
    Switch("skip_verification_of_sinks", Tests("state", &["--lib"], "every_change_of_a_file_is_found"), false),
    Switch(
        "trust_older_metadata",
        Suite("rest::recovery::metadata_that_is_older_than_its_checkpoints_is_noticed"),
        true,
    ),
];

/// Whether somebody noticed; else why not.
fn noticed(switch: &Switch) -> Result<(), String> {
    let Switch(name, caught, _) = switch;
    let mut command = match caught {
        Played(by, faults, what) => {
            let (more, fault) = faults.rsplit_once("; ").unwrap_or(("", faults));
            let case = Case::new(*by, fault);
            let case = Case { before: format!("{}; {more}", case.before), broken: name, ..case };
            return said(&case, what);
        }
        Suite(test) => {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", test]);
            command
        }
        Tests(package, target, filter) => {
            let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
            // With the crates that turn the switches on, and so with what is compiled already.
            command.args(["test", "--locked", "-p", package, "-p", "highwater", "-p", "integration-tests"]);
            command.args(*target).args(["--", filter]).current_dir(repository());
            command
        }
    };
    let output = command.env("HIGHWATER_BROKEN", name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    // Whatever else goes wrong is no failed test.
    match text.contains("test result: FAILED. 0 passed") || text.contains(" failed;") && !output.status.success() {
        true => Ok(()),
        false => Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Whether a case fails with these words.
fn said(case: &Case, what: &str) -> Result<(), String> {
    match outcome(case) {
        Ok(()) => Err("it passes".into()),
        Err(why) if why.contains(what) => Ok(()),
        Err(why) => Err(format!("it fails for another reason than '{what}': {why}")),
    }
}

#[test]
fn builds_that_are_broken_on_purpose_are_noticed() {
    let wanted = std::env::var("HIGHWATER_BROKEN_BUILDS").unwrap_or_default();
    let is_wanted = |Switch(name, _, quick): &&Switch| match wanted.as_str() {
        "" => *quick,
        "all" => true,
        part => name.contains(part),
    };
    let (began, mut missed) = (Instant::now(), Vec::new());
    let (played, others): (Vec<&Switch>, Vec<&Switch>) =
        SWITCHES.iter().filter(is_wanted).partition(|Switch(_, caught, _)| matches!(caught, Played(..)));
    let count = played.len() + others.len();
    assert!(count > 0, "no switch is called {wanted}");
    let of = |name: &str| SWITCHES.iter().find(|Switch(other, ..)| *other == name).unwrap();
    let cases = played.iter().map(|Switch(name, ..)| Case { broken: name, ..Case::new(By::Stream, "") });
    missed.extend(
        play_all(cases.collect(), |case| noticed(of(case.broken))).into_iter().map(|(case, why)| (case.broken, why)),
    );
    missed.extend(others.iter().filter_map(|switch| Some((switch.0, noticed(switch).err()?))));
    eprintln!("{count} broken builds in {:.0?}, {} not noticed", began.elapsed(), missed.len());
    assert!(missed.is_empty(), "not noticed (HIGHWATER_BROKEN_BUILDS=<one of these>): {missed:#?}");
}

#[test]
fn every_switch_has_its_test() {
    let switches = named(&["faults::broken(\""]);
    let known: BTreeSet<String> = SWITCHES.iter().map(|Switch(name, ..)| name.to_string()).collect();
    assert!(known.len() == SWITCHES.len() && known.len() >= 15, "{} switches", known.len());
    assert_eq!(switches, known, "the switches in the sources, and those of the table");
}
