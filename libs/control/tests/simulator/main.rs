//! The machines of `control::epochs` in a world where everything that can go wrong does.
//!
//! One seed is one schedule. A seed that fails is printed with its trace; `SIMULATE_SEED=n` runs it alone (with `SIMULATE_SABOTAGE`, broken). `make simulate` runs more:
//! `SIMULATE_COUNT` schedules from `SIMULATE_FIRST` on.

mod explore;
mod model;
mod sabotage;
mod world;

use std::collections::BTreeMap;
use std::time::Instant;

use explore::{End, Explored};
use sabotage::Sabotage;
use world::{Config, Faults};

/// Seeds that have found something, in the machines or in the models. (What a seed means changes with the list of choices.)
const REGRESSIONS: &[u64] = &[223, 263, 1177, 1865, 2747, 3812, 4919, 7355, 21001, 50798, 225312];

/// In `make test`.
const SCHEDULES: u64 = 20_000;

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default,
    }
}

/// On stderr: stdout is the command line's.
fn say(line: std::fmt::Arguments) {
    eprintln!("{line}");
}

/// Runs a schedule; one that fails is told from its beginning.
fn must_hold(seed: u64) -> End {
    let (end, _) = explore::run(seed, None, false);
    end.unwrap_or_else(|violation| {
        let (_, world) = explore::run(seed, None, true);
        panic!("{}\nseed {seed}: {violation}", world.trace.unwrap_or_default().join("\n"))
    })
}

#[test]
fn seeds_that_found_something_hold() {
    for seed in REGRESSIONS {
        must_hold(*seed);
    }
}

#[test]
fn every_schedule_keeps_the_promises() {
    if let Ok(seed) = std::env::var("SIMULATE_SEED") {
        let seed = seed.parse().expect("a number");
        let name = std::env::var("SIMULATE_SABOTAGE").unwrap_or_default();
        let sabotage = Sabotage::ALL.into_iter().find(|sabotage| format!("{sabotage:?}") == name);
        let (end, world) = explore::run(seed, sabotage, true);
        say(format_args!("{}\n{end:?}", world.trace.unwrap_or_default().join("\n")));
        end.expect("the schedule holds");
        return;
    }
    let (first, count) = (setting("SIMULATE_FIRST", 0), setting("SIMULATE_COUNT", SCHEDULES));
    let begin = Instant::now();
    let mut ends: BTreeMap<End, u64> = BTreeMap::new();
    for seed in first..first + count {
        *ends.entry(must_hold(seed)).or_default() += 1;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    say(format_args!("{count} schedules from {first}: {ends:?}, {rate:.0} a second"));
    // Most runs get through; each way to stop is met.
    if count >= SCHEDULES {
        assert!(ends.get(&End::Finished).is_some_and(|finished| *finished > count * 3 / 4), "{ends:?}");
        for code in ["metadata_regressed", "checkpoint_corrupt", "sink_state_lost"] {
            assert!(ends.contains_key(&End::Halted(code)), "{code}: {ends:?}");
        }
    }
}

#[test]
fn broken_protocols_are_caught() {
    let mut missed = Vec::new();
    for sabotage in Sabotage::ALL {
        let caught =
            (0..SCHEDULES).find_map(|seed| explore::run(seed, Some(sabotage), false).0.err().map(|why| (seed, why)));
        match caught {
            Some((seed, why)) => say(format_args!("{sabotage:?}: seed {seed}: {why}")),
            None => missed.push(sabotage),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// 2 workers, 2 sinks, and an epoch for each record of a split.
fn small(epochs: u8, allowed: Faults, bounded: bool) -> Config {
    Config { records: epochs, bounded, older: false, aging: false, plain_cuts: true, sabotage: None, allowed }
}

fn explore_all(name: &str, config: Config) -> Explored {
    let begin = Instant::now();
    let explored = explore::explore(config, setting("SIMULATE_STATES", 20_000_000) as usize);
    let explored = explored.unwrap_or_else(|violation| panic!("{name}: {violation}"));
    say(format_args!("{name}: {explored:?} in {:.1} s", begin.elapsed().as_secs_f64()));
    explored
}

#[test]
fn all_schedules_of_a_small_run() {
    let none = Faults::NONE;
    let all = [
        ("nothing goes wrong", none, false),
        ("one crash", Faults { crashes: 1, ..none }, false),
        ("two crashes", Faults { crashes: 2, ..none }, false),
        ("one zombie", Faults { zombies: 1, ..none }, false),
        ("one message", Faults { net: 1, ..none }, false),
        ("one takeover", Faults { takeovers: 1, ..none }, false),
        ("a crash and a takeover", Faults { crashes: 1, takeovers: 1, ..none }, false),
        ("two crashes, published at the end", Faults { crashes: 2, ..none }, true),
    ];
    for (name, allowed, bounded) in all {
        let explored = explore_all(name, small(3, allowed, bounded));
        assert!(!explored.more && explored.finished > 0, "{name}: {explored:?}");
    }
    // The exploration sees what is broken.
    let guardless =
        Config { sabotage: Some(Sabotage::NoGenerationGuard), ..small(2, Faults { zombies: 1, ..none }, false) };
    let found = explore::explore(guardless, usize::MAX);
    assert!(found.is_err_and(|violation| violation.contains("had begun")));
}

/// All of each, unless `SIMULATE_STATES` allows fewer.
#[test]
#[ignore = "minutes; make simulate runs it"]
fn all_schedules_of_a_small_run_with_more_faults() {
    let none = Faults::NONE;
    let both = Faults { crashes: 2, zombies: 1, ..none };
    let all = [
        ("a crash and a zombie", 3, Faults { crashes: 1, zombies: 1, ..none }),
        ("two crashes and a zombie, one epoch", 1, both),
        ("a zombie and a message, two epochs", 2, Faults { zombies: 1, net: 1, ..none }),
        ("two crashes and a zombie", 3, both),
    ];
    for (name, epochs, allowed) in all {
        let explored = explore_all(name, small(epochs, allowed, false));
        let cut_short = std::env::var("SIMULATE_STATES").is_ok();
        assert!(cut_short || !explored.more && explored.finished > 0, "{name}: {explored:?}");
    }
}
