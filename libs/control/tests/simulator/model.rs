//! Models of what the machines talk to: the metadata database, the object store, a Kafka sink, a directory of files.
//!
//! Each does one request at a time, wholly or not at all; what makes them unreliable (lost, late and doubled requests and answers) is in
//! `world.rs`.

use std::collections::BTreeSet;
use std::rc::Rc;

use control::epochs::collection::{Row, RowState, to_retire};
use control::epochs::recovery::{EpochRow, Known, SinkRow};
use control::epochs::sinks::CreateReply;
use control::epochs::{DecisionReply, GuardedReply, ManifestReply};

/// How many numbers a generation reserves, and keeps ahead of its decisions.
pub const RANGE: u64 = 6;
/// One split per worker.
pub const SPLITS: usize = 2;
pub const SINKS: usize = 2;

/// The record at `position` of a split.
pub fn value(split: usize, position: u8) -> u32 {
    (u32::from(position) + 3) * (7 + split as u32 * 4)
}

/// The running sum over the first `count` records of a split: what an undisturbed run gives.
pub fn sum(split: usize, count: u8) -> u32 {
    (0..count).map(|position| value(split, position)).sum()
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Name {
    Manifest(u64),
    /// `uid` is the attempt: unlike a generation, nothing makes it appear twice.
    File {
        uid: u8,
        epoch: u64,
        worker: u8,
    },
}

/// A piece of a worker's state: the sum over some of its records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct File {
    pub from: u8,
    pub to: u8,
    pub sum: u32,
    pub generation: u64,
    pub born: u32,
    pub damaged: bool,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Manifest {
    pub epoch: u64,
    /// The attempt; with the epoch it is the nonce.
    pub uid: u8,
    pub generation: u64,
    /// What the sinks publish with this epoch: the records from here...
    pub from: [u8; SPLITS],
    /// ...to the cut, with the state there.
    pub to: [u8; SPLITS],
    pub sums: [u32; SPLITS],
    pub last: bool,
    pub files: Vec<Name>,
    pub born: u32,
}

/// What one epoch publishes in one sink.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Entry {
    pub epoch: u64,
    pub from: [u8; SPLITS],
    pub to: [u8; SPLITS],
    pub sums: [u32; SPLITS],
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Db {
    pub term: u64,
    pub generation: u64,
    pub reserved: u64,
    /// The newest epoch of an older lineage.
    pub older: Option<u64>,
    pub rows: Vec<DbRow>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DbRow {
    pub epoch: u64,
    pub previous: Option<u64>,
    pub generation: u64,
    pub uid: u8,
    pub state: DbState,
    pub last: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DbState {
    Decided,
    Committed,
    Retired,
    Abandoned,
}

/// Guards that a broken protocol leaves out.
#[derive(Clone, Copy)]
pub struct Guards {
    pub generation: bool,
    pub previous: bool,
}

impl Db {
    pub fn last(&self) -> Option<u64> {
        self.rows.iter().rev().find(|row| row.state != DbState::Abandoned).map(|row| row.epoch)
    }

    pub fn row(&mut self, epoch: u64) -> Option<&mut DbRow> {
        self.rows.iter_mut().find(|row| row.epoch == epoch)
    }

    /// Epochs that must be restorable.
    pub fn live(&self) -> impl Iterator<Item = &DbRow> {
        self.rows.iter().filter(|row| matches!(row.state, DbState::Decided | DbState::Committed))
    }

    pub fn decide(&mut self, row: DbRow, guards: Guards) -> DecisionReply {
        if let Some(there) = self.row(row.epoch) {
            return if there.uid == row.uid && there.state != DbState::Abandoned {
                DecisionReply::Decided
            } else {
                DecisionReply::Fenced
            };
        }
        let wrong_generation = guards.generation && row.generation != self.generation;
        let wrong_previous = guards.previous && row.previous != self.last();
        let newest = self.rows.last().map(|row| row.epoch).max(self.older);
        if wrong_generation || wrong_previous || newest >= Some(row.epoch) {
            return DecisionReply::Fenced;
        }
        self.rows.push(row);
        self.reserved = self.reserved.max(row.epoch + RANGE);
        DecisionReply::Decided
    }

    /// Moves a row on, by the generation that is the newest.
    pub fn mark(&mut self, epoch: u64, generation: u64, from: DbState, to: DbState) -> GuardedReply {
        if generation != self.generation {
            return GuardedReply::Fenced;
        }
        match self.row(epoch) {
            Some(row) if row.state == from || row.state == to => {
                row.state = to;
                GuardedReply::Done
            }
            // A late repetition: it was confirmed long ago.
            Some(row) if row.state == DbState::Retired => GuardedReply::Done,
            _ => GuardedReply::Fenced,
        }
    }

    /// Gives up the newest epoch, if the one before it is there to go on from.
    pub fn abandon(&mut self, epoch: u64, generation: u64) -> GuardedReply {
        let previous = self.row(epoch).and_then(|row| row.previous);
        let lives = previous.is_none_or(|previous| self.live().any(|row| row.epoch == previous));
        let (last, is_newest) = (self.last(), generation == self.generation);
        match self.row(epoch) {
            Some(row) if is_newest && row.state == DbState::Abandoned => GuardedReply::Done,
            Some(row) if is_newest && lives && last == Some(epoch) => {
                row.state = DbState::Abandoned;
                GuardedReply::Done
            }
            _ => GuardedReply::Fenced,
        }
    }

    /// `None`: another generation is the newest.
    pub fn known(&self, generation: u64, first: u64, store: &Store, bounded: bool, long_ago: bool) -> Option<Known> {
        if generation != self.generation {
            return None;
        }
        let row = |row: &DbRow| {
            let previous = row.previous.filter(|_| !bounded);
            let had_earlier = previous.is_some() || long_ago;
            let sink = SinkRow { commits: !bounded || row.last, previous, had_earlier };
            let committed = row.state == DbState::Committed;
            EpochRow { epoch: row.epoch, previous: row.previous, committed, sinks: vec![sink; SINKS] }
        };
        let mut epochs: Vec<EpochRow> = self.live().map(row).collect();
        epochs.reverse();
        let newest_manifest = store.manifests.last().map(|manifest| manifest.epoch);
        Some(Known { epochs, older: self.older, first, newest_manifest })
    }

    pub fn collectable(&self) -> Vec<Row> {
        let state = |row: &DbRow| match row.state {
            DbState::Decided => RowState::Decided,
            DbState::Committed => RowState::Committed,
            // What was given up is needed by nobody.
            DbState::Retired | DbState::Abandoned => RowState::Retired,
        };
        self.rows.iter().map(|row| Row { epoch: row.epoch, state: state(row) }).collect()
    }

    /// The rows may have changed since the collector read them: what must stay is looked up again.
    pub fn retire(&mut self, epochs: &[u64]) -> GuardedReply {
        let may_go = to_retire(&self.collectable(), &BTreeSet::new(), 2);
        let live: BTreeSet<u64> = self.live().map(|row| row.epoch).collect();
        if epochs.iter().any(|epoch| live.contains(epoch) && !may_go.contains(epoch)) {
            return GuardedReply::Fenced;
        }
        for row in self.rows.iter_mut().filter(|row| epochs.contains(&row.epoch) && live.contains(&row.epoch)) {
            row.state = DbState::Retired;
        }
        GuardedReply::Done
    }
}

/// Sorted by name.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Store {
    pub manifests: Vec<Rc<Manifest>>,
    pub files: Vec<(Name, File)>,
}

impl Store {
    pub fn manifest(&self, epoch: u64) -> Option<&Rc<Manifest>> {
        self.manifests.iter().find(|manifest| manifest.epoch == epoch)
    }

    pub fn file(&self, name: Name) -> Option<&File> {
        self.files.iter().find(|(found, _)| *found == name).map(|(_, file)| file)
    }

    pub fn create(&mut self, manifest: &Rc<Manifest>) -> ManifestReply {
        match self.manifests.binary_search_by_key(&manifest.epoch, |found| found.epoch) {
            Ok(at) if self.manifests[at].uid == manifest.uid => ManifestReply::ExistsMine,
            Ok(_) => ManifestReply::ExistsOther,
            Err(at) => {
                self.manifests.insert(at, manifest.clone());
                ManifestReply::Created
            }
        }
    }

    pub fn read(&self, epoch: u64, uid: u8) -> ManifestReply {
        match self.manifest(epoch) {
            None => ManifestReply::Absent,
            Some(manifest) if manifest.uid == uid => ManifestReply::ExistsMine,
            Some(_) => ManifestReply::ExistsOther,
        }
    }

    pub fn upload(&mut self, name: Name, file: File) {
        if let Err(at) = self.files.binary_search_by_key(&name, |(found, _)| *found) {
            self.files.insert(at, (name, file));
        }
    }

    pub fn delete(&mut self, name: Name) {
        match name {
            Name::Manifest(epoch) => self.manifests.retain(|manifest| manifest.epoch != epoch),
            Name::File { .. } => self.files.retain(|(found, _)| *found != name),
        }
    }

    /// The state that the files of a manifest give, or what is wrong with them. `careless`: nothing is checked.
    pub fn restore(&self, manifest: &Manifest, careless: bool) -> Result<[u32; SPLITS], String> {
        let mut sums = [0; SPLITS];
        for name in &manifest.files {
            let Name::File { worker, .. } = *name else { panic!("a manifest names files") };
            match self.file(*name) {
                Some(file) if careless || !file.damaged => {
                    sums[usize::from(worker)] += file.sum + u32::from(file.damaged);
                }
                Some(_) => return Err(format!("{name:?} is damaged")),
                None if careless => {}
                None => return Err(format!("{name:?} is missing")),
            }
        }
        Ok(sums)
    }
}

/// A topic with transactions, and the marker in a private group.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Kafka {
    /// The epoch of the one producer that is not fenced.
    pub producer: u32,
    pub open: Option<Transaction>,
    pub marker: Option<u64>,
}

#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Transaction {
    pub rows: Option<Entry>,
    pub marker: Option<u64>,
}

impl Kafka {
    /// Fences what was there, aborts what it left open.
    pub fn init(&mut self) -> u32 {
        self.producer += 1;
        self.open = None;
        self.producer
    }

    /// `read_committed`: waits, in vain, for a transaction that is about to change it.
    pub fn read(&self, stable: bool) -> Option<Option<u64>> {
        let pending = self.open.as_ref().is_some_and(|open| open.marker.is_some());
        (!(pending && stable)).then_some(self.marker)
    }

    pub fn write(&mut self, producer: u32, rows: Entry) -> bool {
        let ok = producer == self.producer && self.open.is_none();
        if ok {
            self.open = Some(Transaction { rows: Some(rows), marker: None });
        }
        ok
    }

    pub fn mark(&mut self, producer: u32, epoch: u64) -> bool {
        match &mut self.open {
            Some(open) if producer == self.producer => {
                open.marker = Some(epoch);
                true
            }
            _ => false,
        }
    }

    /// What the readers see now, in addition. `None`: refused.
    pub fn end(&mut self, producer: u32) -> Option<Transaction> {
        if producer != self.producer {
            return None;
        }
        let open = self.open.take()?;
        self.marker = open.marker.or(self.marker);
        Some(open)
    }

    /// The transaction took too long.
    pub fn expire(&mut self) {
        self.open = None;
        self.producer += 1;
    }
}

/// A directory with manifests. `None` is a commit of another job.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Chain {
    pub entries: Vec<Option<u64>>,
}

impl Chain {
    pub fn newest(&self) -> Option<u64> {
        self.entries.iter().rev().find_map(|entry| *entry)
    }

    pub fn create(&mut self, number: usize, epoch: u64) -> CreateReply {
        match self.entries.get(number) {
            None => {
                self.entries.push(Some(epoch));
                CreateReply::Created
            }
            Some(found) if *found == Some(epoch) => CreateReply::ExistsMine,
            Some(_) => CreateReply::ExistsOther,
        }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Sink {
    Kafka(Kafka),
    Files(Chain),
}
