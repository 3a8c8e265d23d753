//! What becomes of the state of a savepoint in another graph. Pure: parts of two graphs in, a verdict for each out.
//!
//! State fits where everything is equal that its rows depend on, which each part lists as [`Part::needs`]. Operators are found again by
//! their id. One that is gone, and one that is new, are the same under another name if their needs are equal, they read the same sources,
//! and no other pair could be meant. One that is new beside others may get a copy of state: of the part that does exactly what it does.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A source, an operator with state, or a sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub id: String,
    pub role: Role,
    /// What it is, for people, and what its state depends on: `keys`, `auction: BIGINT`.
    pub needs: Vec<(String, String)>,
    /// Ids of the sources that its rows come from; of a source, none.
    pub sources: BTreeSet<String>,
    /// All that it and what is before it do, where state is nothing but what came of that: parts of the same lineage have the same state.
    pub lineage: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Source,
    Operator,
    Sink,
}

/// What the savepoint has of a part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Held {
    pub rows: u64,
    pub bytes: u64,
    /// Why it is worth nothing to another job, where that is so.
    pub only_for_its_job: Option<String>,
}

/// What becomes of a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Its id in the new graph; of what is dropped, in the savepoint.
    pub id: String,
    pub role: Role,
    pub verdict: Verdict,
    /// Of its state in the savepoint.
    pub rows: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It goes on with its state.
    Reuse,
    /// It goes on with the state that `from` has in the savepoint.
    Migrate { from: String, rule: String },
    /// It is new and goes on with a copy of the state that `from` has in the savepoint, which may go on with it as well.
    Rebuild { from: String },
    /// The savepoint has nothing of it: it begins empty.
    Fresh,
    /// The graph has no such part, or may not have its state; `allowed`: whoever asks knows that.
    Drop { allowed: bool, why: String },
    /// It is there and its state does not fit.
    Conflict { why: String },
}

impl Verdict {
    /// Whether a run may begin with this.
    pub fn is_fine(&self) -> bool {
        !matches!(self, Verdict::Conflict { .. } | Verdict::Drop { allowed: false, .. })
    }
}

/// What may be asked for beside the graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Wish<'a> {
    /// Ids of the savepoint whose state may go.
    pub may_drop: &'a BTreeSet<String>,
    /// It is restored by the job that it is of.
    pub same_job: bool,
}

/// The verdict for every part of the new graph, in its order, then for those that only the savepoint has.
pub fn judge(old: &[Part], new: &[Part], held: &BTreeMap<String, Held>, wish: &Wish<'_>) -> Vec<Judged> {
    let none = Held::default();
    let held = |id: &str| held.get(id).unwrap_or(&none);
    let renamed = renamed(old, new);
    let mut judged = Vec::new();
    for part in new {
        let before = old.iter().find(|before| before.id == part.id);
        let (from, verdict) = match (before, renamed.get(part.id.as_str())) {
            (Some(before), _) => (Some(before), compared(before, part)),
            (None, Some(before)) => {
                let rule = format!("the {} is called {} in the savepoint and is the same", name(part.role), before.id);
                (Some(*before), Verdict::Migrate { from: before.id.clone(), rule })
            }
            (None, None) => match twin(old, part) {
                Some(before) => (Some(before), Verdict::Rebuild { from: before.id.clone() }),
                None => (None, Verdict::Fresh),
            },
        };
        let of = from.map_or(&none, |from| held(&from.id));
        let foreign = of.only_for_its_job.as_ref().filter(|_| !wish.same_job && verdict.is_fine());
        let verdict = match (foreign, from) {
            (Some(why), _) => Verdict::Conflict { why: why.clone() },
            (None, _) => verdict,
        };
        let verdict = match (verdict, from) {
            (Verdict::Conflict { why }, Some(from)) if wish.may_drop.contains(&from.id) => {
                Verdict::Drop { allowed: true, why }
            }
            (verdict, _) => verdict,
        };
        judged.push(Judged { id: part.id.clone(), role: part.role, verdict, rows: of.rows, bytes: of.bytes });
    }
    let copied: Vec<String> = judged.iter().filter_map(|judged| copied_from(&judged.verdict)).cloned().collect();
    let is_taken = |part: &&Part| {
        new.iter().any(|after| after.id == part.id)
            || renamed.values().any(|before| before.id == part.id)
            || copied.contains(&part.id)
    };
    for part in old.iter().filter(|part| !is_taken(part)) {
        let of = held(&part.id);
        // Positions are state too; of a sink or operator without rows nothing is lost.
        let allowed = wish.may_drop.contains(&part.id) || (part.role != Role::Source && of.rows == 0);
        let why = format!("the graph has no such {}", name(part.role));
        let verdict = Verdict::Drop { allowed, why };
        judged.push(Judged { id: part.id.clone(), role: part.role, verdict, rows: of.rows, bytes: of.bytes });
    }
    judged
}

fn copied_from(verdict: &Verdict) -> Option<&String> {
    match verdict {
        Verdict::Rebuild { from } => Some(from),
        _ => None,
    }
}

/// What of the savepoint is taken, by the ids that it has there: the ids in the new graph.
pub fn kept(judged: &[Judged]) -> BTreeMap<String, Vec<String>> {
    let mut kept: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for judged in judged {
        let from = match &judged.verdict {
            Verdict::Reuse => &judged.id,
            Verdict::Migrate { from, .. } | Verdict::Rebuild { from } => from,
            Verdict::Fresh | Verdict::Drop { .. } | Verdict::Conflict { .. } => continue,
        };
        kept.entry(from.clone()).or_default().push(judged.id.clone());
    }
    kept
}

/// The one part of the savepoint whose state is what a new part would have by now.
fn twin<'a>(old: &'a [Part], new: &Part) -> Option<&'a Part> {
    new.lineage.as_ref()?;
    let mut same = old.iter().filter(|before| before.role == new.role && before.lineage == new.lineage);
    // Of two one may have been begun later than the other.
    same.next().filter(|_| same.next().is_none())
}

fn name(role: Role) -> &'static str {
    match role {
        Role::Source => "source",
        Role::Operator => "operator",
        Role::Sink => "sink",
    }
}

fn compared(before: &Part, after: &Part) -> Verdict {
    if before.role != after.role {
        let why = format!("it was a {} and would be a {}", name(before.role), name(after.role));
        return Verdict::Conflict { why };
    }
    let needs = |part: &Part| part.needs.iter().cloned().collect::<BTreeMap<_, _>>();
    let (was, is) = (needs(before), needs(after));
    let none = "nothing".to_string();
    let names: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let differs = names.into_iter().find_map(|name| {
        let (was, is) = (was.get(name).unwrap_or(&none), is.get(name).unwrap_or(&none));
        (was != is).then(|| format!("{name}: it was {was}, and would be {is}"))
    });
    differs.map_or(Verdict::Reuse, |why| Verdict::Conflict { why })
}

/// By the id in the new graph, the part of the savepoint that it is under another name.
fn renamed<'a>(old: &'a [Part], new: &'a [Part]) -> BTreeMap<&'a str, &'a Part> {
    let gone: Vec<&Part> = old.iter().filter(|part| !new.iter().any(|after| after.id == part.id)).collect();
    let come: Vec<&Part> = new.iter().filter(|part| !old.iter().any(|before| before.id == part.id)).collect();
    let same = |a: &Part, b: &Part| a.role == b.role && a.needs == b.needs;
    let mut found: BTreeMap<&str, &Part> = BTreeMap::new();
    // What is read first: state goes on only with the positions that it is of.
    for is_source in [true, false] {
        for part in come.iter().filter(|part| (part.role == Role::Source) == is_source) {
            let before: Vec<&&Part> = gone.iter().filter(|before| same(before, part)).collect();
            let alike = come.iter().filter(|other| same(other, part)).count();
            let read = |id: &String| found.get(id.as_str()).map_or_else(|| id.clone(), |before| before.id.clone());
            let sources: BTreeSet<String> = part.sources.iter().map(read).collect();
            if let ([before], 1) = (&before[..], alike)
                && before.sources == sources
            {
                found.insert(part.id.as_str(), **before);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: &str, role: Role, needs: &[(&str, &str)]) -> Part {
        let needs = needs.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        Part { id: id.into(), role, needs, sources: BTreeSet::new(), lineage: None }
    }

    fn of_sources(part: Part, sources: &[&str]) -> Part {
        Part { sources: sources.iter().map(ToString::to_string).collect(), ..part }
    }

    fn of_lineage(part: Part, lineage: &str) -> Part {
        Part { lineage: Some(lineage.into()), ..part }
    }

    fn count(id: &str, keys: &str) -> Part {
        part(id, Role::Operator, &[("keys", keys), ("aggregates", "count()")])
    }

    fn view(id: &str) -> Part {
        part(id, Role::Sink, &[("rows", "k, n")])
    }

    fn held(ids: &[&str]) -> BTreeMap<String, Held> {
        let of = |id: &&str| (id.to_string(), Held { rows: 10, bytes: 100, only_for_its_job: None });
        ids.iter().map(of).collect()
    }

    fn verdicts(old: &[Part], new: &[Part], may_drop: &[&str]) -> Vec<(String, Verdict)> {
        let may_drop = may_drop.iter().map(ToString::to_string).collect();
        let wish = Wish { may_drop: &may_drop, same_job: false };
        let judged = judge(old, new, &held(&["c", "v"]), &wish);
        judged.into_iter().map(|judged| (judged.id, judged.verdict)).collect()
    }

    #[test]
    fn what_is_the_same_goes_on_and_what_is_new_begins_empty() {
        let old = [part("s", Role::Source, &[("reads", "topic a")]), count("c", "a"), view("v")];
        let mut new = old.to_vec();
        new.push(count("d", "b"));
        let all = verdicts(&old, &new, &[]);
        assert!(all[..3].iter().all(|(_, verdict)| *verdict == Verdict::Reuse), "{all:?}");
        assert_eq!(all[3], ("d".into(), Verdict::Fresh));
    }

    #[test]
    fn a_conflict_says_what_differs_and_its_state_may_go_if_it_is_named() {
        let (old, new) = ([count("c", "a: BIGINT")], [count("c", "a: INT")]);
        let why = "keys: it was a: BIGINT, and would be a: INT".to_string();
        assert_eq!(verdicts(&old, &new, &[]), [("c".into(), Verdict::Conflict { why: why.clone() })]);
        assert_eq!(verdicts(&old, &new, &["c"]), [("c".into(), Verdict::Drop { allowed: true, why })]);
        assert!(
            matches!(&verdicts(&old, &[part("c", Role::Sink, &[])], &[])[0].1, Verdict::Conflict { why } if why.contains("sink"))
        );
    }

    #[test]
    fn what_is_gone_must_be_allowed_to_go() {
        let old = [part("s", Role::Source, &[]), count("c", "a"), count("empty", "b")];
        let allowed = |may_drop: &[&str]| -> Vec<bool> {
            verdicts(&old, &[], may_drop).into_iter().map(|(_, verdict)| verdict.is_fine()).collect()
        };
        assert_eq!(allowed(&[]), [false, false, true]);
        assert_eq!(allowed(&["s", "c"]), [true, true, true]);
    }

    #[test]
    fn another_name_is_followed_only_where_one_can_be_meant() {
        let old = [view("v"), count("c", "a")];
        let all = verdicts(&old, &[view("w"), count("c", "a")], &[]);
        assert!(matches!(&all[0].1, Verdict::Migrate { from, .. } if from == "v"), "{all:?}");
        assert_eq!(all.len(), 2, "nothing is dropped: {all:?}");
        let all = verdicts(&old, &[view("w"), view("x"), count("c", "a")], &[]);
        assert_eq!(all[..2], [("w".into(), Verdict::Fresh), ("x".into(), Verdict::Fresh)]);
        assert_eq!(all[3].0, "v");
        assert!(!all[3].1.is_fine());
    }

    #[test]
    fn what_only_its_own_job_can_use_is_no_ones_else() {
        let (old, may_drop) = ([view("v")], BTreeSet::new());
        let held =
            BTreeMap::from([("v".to_string(), Held { only_for_its_job: Some("files".into()), ..Held::default() })]);
        let of = |same_job| judge(&old, &old, &held, &Wish { may_drop: &may_drop, same_job })[0].verdict.clone();
        assert_eq!(of(true), Verdict::Reuse);
        assert_eq!(of(false), Verdict::Conflict { why: "files".into() });
    }

    #[test]
    fn what_is_kept_has_its_new_name() {
        let (old, may_drop) = ([view("v"), count("c", "a")], BTreeSet::from(["c".to_string()]));
        let new = [view("w"), count("c", "b")];
        let judged = judge(&old, &new, &BTreeMap::new(), &Wish { may_drop: &may_drop, same_job: false });
        assert_eq!(kept(&judged), BTreeMap::from([("v".to_string(), vec!["w".to_string()])]));
    }

    #[test]
    fn state_follows_another_name_only_with_its_positions() {
        let source = |id: &str| part(id, Role::Source, &[("reads", "topic a")]);
        let old = [source("s"), of_sources(count("c", "a"), &["s"])];
        // The source has another name, too.
        let all = verdicts(&old, &[source("t"), of_sources(count("d", "a"), &["t"])], &[]);
        assert!(all.iter().all(|(_, verdict)| matches!(verdict, Verdict::Migrate { .. })), "{all:?}");
        // Another source, which begins at its beginning: what was counted of the first would be counted again.
        let all = verdicts(&old, &[source("s"), source("t"), of_sources(count("d", "a"), &["t"])], &["c"]);
        assert_eq!(
            all[..3].iter().map(|(_, verdict)| verdict.clone()).collect::<Vec<_>>(),
            [Verdict::Reuse, Verdict::Fresh, Verdict::Fresh]
        );
    }

    #[test]
    fn what_does_the_same_as_another_gets_a_copy_of_its_state() {
        let old = [of_lineage(view("v"), "counts of s"), count("c", "a")];
        let from = |id: &str| Verdict::Rebuild { from: id.into() };
        let all = verdicts(&old, &[old[0].clone(), of_lineage(view("w"), "counts of s"), count("c", "a")], &[]);
        assert_eq!(all[..2], [("v".into(), Verdict::Reuse), ("w".into(), from("v"))]);
        // Two in the place of one: nothing is dropped.
        let two = [of_lineage(view("w"), "counts of s"), of_lineage(view("x"), "counts of s"), count("c", "a")];
        let all = verdicts(&old, &two, &[]);
        assert_eq!(all[..2], [("w".into(), from("v")), ("x".into(), from("v"))]);
        assert_eq!(all.len(), 3, "{all:?}");
        let none = BTreeSet::new();
        let judged = judge(&old, &two, &held(&["v"]), &Wish { may_drop: &none, same_job: false });
        assert_eq!(kept(&judged)["v"], ["w", "x"]);
        assert_eq!((judged[0].bytes, judged[1].rows), (100, 10), "what is copied");
        // Needs say nothing of filters, lineages do; and of two that are alike nobody knows which.
        let all = verdicts(&old, &[old[0].clone(), of_lineage(view("w"), "some counts of s")], &["c"]);
        assert_eq!(all[1].1, Verdict::Fresh);
        let twice = [old[0].clone(), of_lineage(view("u"), "counts of s")];
        let all = verdicts(&twice, &[twice[0].clone(), twice[1].clone(), of_lineage(view("w"), "counts of s")], &[]);
        assert_eq!(all[2].1, Verdict::Fresh);
    }
}
