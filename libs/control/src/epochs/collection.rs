//! G: what checkpoints left behind and nobody needs, found by mark and sweep and deleted in an order that may stop anywhere.
//!
//! ```text
//! rows -> Retire (database) -> ReadManifests -> List -> Delete manifests -> Delete files -> Done
//! ```
//! *Mark*: every object that the manifest of a retained epoch names. *Sweep*: of the objects that are listed after that, those that are not
//! marked, are older than the grace, and belong to a generation below the current one or are named by a retired manifest. So what the
//! current attempt is uploading is never touched, whatever its age.
//!
//! It stays right while the world goes on, and if it sleeps between two steps: an epoch names files of its own attempt that are new, and
//! files of the decided epoch that it follows; so what no retained epoch names, the last decided one among them, no later epoch will
//! name. A crash leaves objects for the next time; a manifest that is gone takes the names of its files with it, and those of the current
//! generation then wait until that is over.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::GuardedReply;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Committed epochs that are kept, at least 2. What is pinned comes on top.
    pub keep: usize,
    /// Objects that are not older than this are kept.
    pub grace_us: i64,
}

/// An epoch of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    pub epoch: u64,
    pub state: RowState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowState {
    Decided,
    Committed,
    Retired,
}

/// An object in the store, by whatever names it: `N` is a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object<N> {
    pub name: N,
    pub is_manifest: bool,
    pub age_us: i64,
    /// The generation that made it, by its name; of a manifest, the one whose range its epoch is in. `None`: not known, so it is kept
    /// unless a retired manifest names it.
    pub generation: Option<u64>,
}

/// Everything that the manifest of an epoch names, itself included.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Names<N> {
    pub epoch: u64,
    pub objects: Vec<N>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<N> {
    /// Read in one transaction: the epochs of the job, those that a running restore or a savepoint needs, and the newest generation.
    Rows {
        rows: Vec<Row>,
        pinned: BTreeSet<u64>,
        generation: u64,
    },
    Retired(GuardedReply),
    /// Answers [`Effect::ReadManifests`]. Those of retired epochs may be gone already.
    Manifests {
        retained: Vec<Names<N>>,
        retired: Vec<Names<N>>,
    },
    Listed(Vec<Object<N>>),
    /// Everything that was named is gone.
    Deleted,
    /// The last effect could not be done, or not wholly.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<N> {
    /// Read what [`Event::Rows`] says.
    ReadRows,
    Retire {
        epochs: Vec<u64>,
    },
    ReadManifests {
        retained: Vec<u64>,
        retired: Vec<u64>,
    },
    List,
    /// Delete these objects; those that are gone already are no error.
    Delete {
        objects: Vec<N>,
    },
    Done {
        deleted: usize,
    },
    /// Nothing more is deleted this time.
    Stop,
}

/// One round. See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Collection<N> {
    policy: Policy,
    step: Step,
    generation: u64,
    retained: BTreeSet<u64>,
    retired: BTreeSet<u64>,
    marked: BTreeSet<N>,
    dropped: BTreeSet<N>,
    files: Vec<N>,
    deleted: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    Rows,
    Retire,
    Manifests,
    List,
    DeleteManifests,
    DeleteFiles,
    Done,
}

impl<N: Ord + Clone> Collection<N> {
    pub fn new(policy: Policy) -> (Collection<N>, Effect<N>) {
        assert!(policy.keep >= 2, "with one checkpoint a corrupt one is the end");
        let collection = Collection {
            policy,
            step: Step::Rows,
            generation: 0,
            retained: BTreeSet::new(),
            retired: BTreeSet::new(),
            marked: BTreeSet::new(),
            dropped: BTreeSet::new(),
            files: Vec::new(),
            deleted: 0,
        };
        (collection, Effect::ReadRows)
    }

    pub fn has_ended(&self) -> bool {
        self.step == Step::Done
    }

    /// Answers that do not fit the step at hand are late, and change nothing.
    pub fn step(&mut self, event: Event<N>) -> Option<Effect<N>> {
        match (self.step, event) {
            (Step::Done, _) => None,
            (_, Event::Failed) => Some(self.stop()),
            (Step::Rows, Event::Rows { rows, pinned, generation }) => {
                self.generation = generation;
                let retire = to_retire(&rows, &pinned, self.policy.keep);
                let live = rows.iter().filter(|row| row.state != RowState::Retired).map(|row| row.epoch);
                self.retained = live.filter(|epoch| !retire.contains(epoch)).collect();
                self.retired = rows.iter().map(|row| row.epoch).filter(|e| !self.retained.contains(e)).collect();
                if retire.is_empty() {
                    return Some(self.read_manifests());
                }
                self.step = Step::Retire;
                Some(Effect::Retire { epochs: retire })
            }
            (Step::Retire, Event::Retired(reply)) => Some(match reply {
                GuardedReply::Done => self.read_manifests(),
                // Whether they are retired or not: the next round reads it.
                GuardedReply::Fenced | GuardedReply::Unknown => self.stop(),
            }),
            (Step::Manifests, Event::Manifests { retained, retired }) => {
                let read: BTreeSet<u64> = retained.iter().map(|names| names.epoch).collect();
                // What is not known to be needed cannot be told from what is not needed.
                if read != self.retained {
                    return Some(self.stop());
                }
                self.marked = retained.into_iter().flat_map(|names| names.objects).collect();
                self.dropped = retired.into_iter().flat_map(|names| names.objects).collect();
                self.step = Step::List;
                Some(Effect::List)
            }
            (Step::List, Event::Listed(objects)) => {
                let swept = objects.into_iter().filter(|object| {
                    let old = object.age_us > self.policy.grace_us;
                    let over = object.generation.is_some_and(|generation| generation < self.generation);
                    let dropped = self.dropped.contains(&object.name);
                    old && (over || dropped) && !self.marked.contains(&object.name)
                });
                let (manifests, files): (Vec<_>, Vec<_>) = swept.partition(|object| object.is_manifest);
                let names = |objects: Vec<Object<N>>| objects.into_iter().map(|object| object.name).collect();
                self.files = names(files);
                self.step = Step::DeleteManifests;
                Some(self.delete(names(manifests)))
            }
            (Step::DeleteManifests, Event::Deleted) => {
                self.step = Step::DeleteFiles;
                let files = std::mem::take(&mut self.files);
                Some(self.delete(files))
            }
            (Step::DeleteFiles, Event::Deleted) => {
                self.step = Step::Done;
                Some(Effect::Done { deleted: self.deleted })
            }
            _ => None,
        }
    }

    fn read_manifests(&mut self) -> Effect<N> {
        self.step = Step::Manifests;
        let list = |epochs: &BTreeSet<u64>| epochs.iter().copied().collect();
        Effect::ReadManifests { retained: list(&self.retained), retired: list(&self.retired) }
    }

    /// Also of nothing: the answer leads on.
    fn delete(&mut self, objects: Vec<N>) -> Effect<N> {
        self.deleted += objects.len();
        Effect::Delete { objects }
    }

    fn stop(&mut self) -> Effect<N> {
        self.step = Step::Done;
        Effect::Stop
    }
}

/// The epochs that may go: all that are committed, but for the `keep` newest, those that are pinned, and the last decided one.
pub fn to_retire(rows: &[Row], pinned: &BTreeSet<u64>, keep: usize) -> Vec<u64> {
    let live = rows.iter().filter(|row| row.state != RowState::Retired);
    let last = live.clone().map(|row| row.epoch).max();
    let mut committed: Vec<u64> = live.filter(|row| row.state == RowState::Committed).map(|row| row.epoch).collect();
    committed.sort_unstable();
    committed.truncate(committed.len().saturating_sub(keep.max(2)));
    committed.retain(|epoch| !pinned.contains(epoch) && Some(*epoch) != last);
    committed
}

/// A file as a manifest names it, or as it was found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct File<N> {
    pub name: N,
    pub bytes: u64,
    /// In hex. Of a file that was found: `None` if it was not read.
    pub sha256: Option<String>,
}

/// What is wrong between the manifests and the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding<N> {
    /// Named, and not there.
    Missing {
        name: N,
    },
    Length {
        name: N,
        expected: u64,
        found: u64,
    },
    Content {
        name: N,
        expected: String,
        found: String,
    },
    /// There, and not named, past the grace.
    Orphan {
        name: N,
    },
}

/// Compares what the manifests of retained epochs name (themselves included) with what is in the store (with its age, in microseconds), in
/// both directions. Sorted; empty: all is well.
pub fn fsck<N: Ord + Clone>(referenced: &[File<N>], listed: &[(File<N>, i64)], grace_us: i64) -> Vec<Finding<N>> {
    let found: std::collections::BTreeMap<&N, &File<N>> = listed.iter().map(|(file, _)| (&file.name, file)).collect();
    let named: BTreeSet<&N> = referenced.iter().map(|file| &file.name).collect();
    let mut findings = Vec::new();
    for file in referenced {
        let name = file.name.clone();
        match (found.get(&file.name), &file.sha256) {
            (None, _) => findings.push(Finding::Missing { name }),
            (Some(found), _) if found.bytes != file.bytes => {
                findings.push(Finding::Length { name, expected: file.bytes, found: found.bytes });
            }
            (Some(File { sha256: Some(found), .. }), Some(expected)) if found != expected => {
                findings.push(Finding::Content { name, expected: expected.clone(), found: found.clone() });
            }
            _ => {}
        }
    }
    let orphans = listed.iter().filter(|(file, age_us)| *age_us > grace_us && !named.contains(&file.name));
    findings.extend(orphans.map(|(file, _)| Finding::Orphan { name: file.name.clone() }));
    findings.sort();
    findings.dedup();
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(epoch: u64, state: RowState) -> Row {
        Row { epoch, state }
    }

    fn object(name: &'static str, age_us: i64, generation: u64) -> Object<&'static str> {
        Object { name, is_manifest: name.starts_with('m'), age_us, generation: Some(generation) }
    }

    #[test]
    fn two_committed_the_last_decided_and_what_is_pinned_stay() {
        let committed = |epoch| row(epoch, RowState::Committed);
        let mut rows: Vec<Row> = (1..=5).map(committed).collect();
        rows[0].state = RowState::Retired;
        assert_eq!(to_retire(&rows, &BTreeSet::from([2]), 2), [3]);
        assert_eq!(to_retire(&rows, &BTreeSet::new(), 1), [2, 3], "never less than two");
        rows.push(row(6, RowState::Decided));
        assert_eq!(to_retire(&rows, &BTreeSet::new(), 2), [2, 3], "a decided one is no committed one");
        assert_eq!(to_retire(&rows[..1], &BTreeSet::new(), 2), Vec::<u64>::new());
    }

    #[test]
    fn it_retires_then_deletes_manifests_then_files_that_nothing_retained_names() {
        let (mut it, effect) = Collection::new(Policy { keep: 2, grace_us: 10 });
        assert_eq!(effect, Effect::ReadRows);
        let rows = (1..=3).map(|epoch| row(epoch, RowState::Committed)).collect();
        let effect = it.step(Event::Rows { rows, pinned: BTreeSet::new(), generation: 7 });
        assert_eq!(effect, Some(Effect::Retire { epochs: vec![1] }));
        let effect = it.step(Event::Retired(GuardedReply::Done));
        assert_eq!(effect, Some(Effect::ReadManifests { retained: vec![2, 3], retired: vec![1] }));
        let names = |epoch, objects: &[&'static str]| Names { epoch, objects: objects.to_vec() };
        let retained = vec![names(2, &["m2", "shared", "own"]), names(3, &["m3"])];
        let retired = vec![names(1, &["m1", "shared", "gone", "dropped"])];
        assert_eq!(it.step(Event::Manifests { retained, retired }), Some(Effect::List));
        let listed = vec![
            object("m1", 99, 7),
            object("m2", 99, 7),
            object("m3", 99, 7),
            object("shared", 99, 3),
            object("own", 99, 7),
            object("dropped", 99, 7),
            object("uploading", 99, 7),
            object("orphan", 99, 6),
            object("young", 10, 6),
            Object { generation: None, ..object("foreign", 99, 0) },
        ];
        assert_eq!(it.step(Event::Listed(listed)), Some(Effect::Delete { objects: vec!["m1"] }));
        assert_eq!(it.step(Event::Deleted), Some(Effect::Delete { objects: vec!["dropped", "orphan"] }));
        assert_eq!(it.step(Event::Deleted), Some(Effect::Done { deleted: 3 }));
    }

    #[test]
    fn a_manifest_that_cannot_be_read_stops_it() {
        let (mut it, _) = Collection::<&str>::new(Policy { keep: 2, grace_us: 10 });
        let rows = vec![row(1, RowState::Committed), row(2, RowState::Decided)];
        it.step(Event::Rows { rows, pinned: BTreeSet::new(), generation: 7 });
        let retained = vec![Names { epoch: 2, objects: vec!["m2"] }];
        assert_eq!(it.step(Event::Manifests { retained, retired: vec![] }), Some(Effect::Stop));
        assert_eq!(it.step(Event::Listed(vec![object("m2", 99, 1)])), None);
    }

    #[test]
    fn fsck_finds_both_directions() {
        let file = |name, bytes, hash: &str| File { name, bytes, sha256: Some(hash.into()) };
        let referenced = [file("a", 1, "x"), file("b", 2, "x"), file("c", 3, "x"), file("d", 4, "x")];
        let listed = [
            (file("a", 1, "x"), 99),
            (file("b", 9, "x"), 99),
            (file("c", 3, "y"), 99),
            (file("e", 1, ""), 99),
            (file("f", 1, ""), 5),
        ];
        let findings = fsck(&referenced, &listed, 10);
        let expected = [
            Finding::Missing { name: "d" },
            Finding::Length { name: "b", expected: 2, found: 9 },
            Finding::Content { name: "c", expected: "x".into(), found: "y".into() },
            Finding::Orphan { name: "e" },
        ];
        assert_eq!(findings, expected);
        assert_eq!(fsck(&referenced[..1], &listed[..1], 10), []);
    }
}
