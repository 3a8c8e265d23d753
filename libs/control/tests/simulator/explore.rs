//! Two ways through the choices of a [`World`]: one seeded walk, or all of them.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::sabotage::Sabotage;
use crate::world::{Choice, Config, Faults, World};

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn of(&mut self, choices: &[Choice]) -> Choice {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// How a schedule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Finished,
    /// It stopped and said why; only an operator helps.
    Halted(&'static str),
}

/// Faults come in the first part; then the run must come to its end.
const FAULTY_STEPS: u64 = 400;
const CALM_STEPS: u64 = 3000;

fn config(random: &mut Random, sabotage: Option<Sabotage>) -> Config {
    let rare = |random: &mut Random, count| u8::from(random.one_in(count));
    let allowed = Faults {
        crashes: random.below(5) as u8,
        takeovers: random.below(3) as u8,
        zombies: random.below(4) as u8,
        net: random.below(16) as u8,
        pauses: random.below(4) as u8,
        collections: random.below(5) as u8,
        lost_tails: rare(random, 6),
        damages: rare(random, 10),
        expiries: rare(random, 10),
        silent_copies: 3 * rare(random, 4),
    };
    Config {
        records: 3 + random.below(6) as u8,
        bounded: random.one_in(5),
        older: random.one_in(3),
        aging: true,
        plain_cuts: false,
        sabotage,
        allowed,
    }
}

/// One seed, one schedule. The error is what was violated.
pub fn run(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> (Result<End, String>, World) {
    let mut random = Random(seed);
    let mut world = World::new(config(&mut random, sabotage));
    if trace {
        world.trace = Some(vec![format!("seed {seed}: {:?}", world.config)]);
    }
    // An assertion that fails in a machine is a finding like any other.
    let end = catch_unwind(AssertUnwindSafe(|| walk(&mut world, &mut random)));
    let end = end.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Err(text.or(panic.downcast_ref::<String>().cloned()).unwrap_or_default())
    });
    (end, world)
}

fn walk(world: &mut World, random: &mut Random) -> Result<End, String> {
    let (mut progress, mut net, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let percent = 3 + random.below(30);
    let faulty = FAULTY_STEPS.min(30 + random.below(600));
    for step in 0..FAULTY_STEPS + CALM_STEPS {
        if step == faulty {
            world.calm = true;
        }
        world.choices(&mut progress, &mut net, &mut events);
        let unlucky = (!net.is_empty() || !events.is_empty()) && random.below(100) < percent;
        let choice = if unlucky || progress.is_empty() {
            match (net.is_empty(), events.is_empty()) {
                (true, true) => break,
                (true, false) => random.of(&events),
                (false, true) => random.of(&net),
                (false, false) if random.one_in(2) => random.of(&net),
                (false, false) => random.of(&events),
            }
        } else {
            random.of(&progress)
        };
        world.apply(choice);
        if let Some(violation) = world.violation.take() {
            return Err(violation);
        }
        if world.ghost.finished {
            return Ok(End::Finished);
        }
        if let Some(code) = world.ghost.ended {
            return Ok(End::Halted(code));
        }
    }
    Err("the faults are over, and the run does not come to its end".into())
}

/// What an exploration saw.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Explored {
    pub states: usize,
    pub finished: usize,
    pub deepest: usize,
    /// It was cut short.
    pub more: bool,
}

/// Quick, and good enough to tell some ten million worlds apart.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        Random(self.0).next()
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }
}

/// Far more steps than a small run needs.
const DEPTH_MAX: usize = 1000;

/// Every schedule within the faults that are allowed, up to `states_max` different worlds.
pub fn explore(config: Config, states_max: usize) -> Result<Explored, String> {
    let hasher = BuildHasherDefault::<Mix>::default();
    let mut seen: HashSet<u64, BuildHasherDefault<Mix>> = HashSet::default();
    let mut explored = Explored::default();
    let begin = World::new(config);
    seen.insert(hasher.hash_one(&begin));
    // Depth first: what is kept is one path and its open branches.
    let mut path: Vec<(World, Vec<Choice>)> = Vec::new();
    let open = |world: World| {
        let (mut all, mut net, mut events) = (Vec::new(), Vec::new(), Vec::new());
        world.choices(&mut all, &mut net, &mut events);
        let stuck = all.is_empty();
        if let Some(first) = world.first_of(&all) {
            all = vec![first];
        }
        // With no fault to come and one attempt alone, what is under way does not meet: any order leads to the same.
        if world.is_calm_and_alone() && net.is_empty() && events.is_empty() {
            all.truncate(1);
        }
        all.append(&mut net);
        all.append(&mut events);
        (stuck, (world, all))
    };
    path.push(open(begin).1);
    while let Some((world, choices)) = path.last_mut() {
        let Some(choice) = choices.pop() else {
            path.pop();
            continue;
        };
        let mut next = world.clone();
        next.apply(choice);
        if !seen.insert(hasher.hash_one(&next)) {
            continue;
        }
        explored.states += 1;
        explored.deepest = explored.deepest.max(path.len());
        let (stuck, next) = open(next);
        let violation = next.0.violation.clone();
        let violation = violation.or((stuck && !next.0.is_over()).then(|| "nothing can happen any more".into()));
        if let Some(violation) = violation {
            return Err(format!("{violation}\n{}", story(&path, choice)));
        }
        if next.0.is_over() {
            explored.finished += 1;
            continue;
        }
        if path.len() > DEPTH_MAX {
            return Err("a schedule without an end".into());
        }
        if explored.states >= states_max {
            explored.more = true;
            break;
        }
        path.push(next);
    }
    Ok(explored)
}

/// The way to a violation: what is different from one world of the path to the next.
fn story(path: &[(World, Vec<Choice>)], last: Choice) -> String {
    let worlds = path.iter().map(|(world, _)| {
        let ops: Vec<String> = world.ops.iter().map(|op| format!("{op:?}")).collect();
        format!("{:?} {:?} {}", world.ghost.shown, world.db.rows, ops.join(" | "))
    });
    let mut lines: Vec<String> = worlds.collect();
    lines.push(format!("then {last:?}"));
    lines.join("\n")
}
