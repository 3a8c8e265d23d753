//! Operators over tables on disk in tests: where they lie, and checkpoints with files.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use state::{Files, MemoryFiles, MemoryStore, SnapshotWriter};
use tokio::runtime::Runtime;

use super::disk::Disk;
use super::testing::{sorted, text};
use crate::batch::Batch;
use crate::operator::Operator;

/// Files of checkpoints, and operators that use them.
pub struct Around {
    runtime: Runtime,
    files: Arc<MemoryFiles>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Memory,
    /// Bytes in slots.
    Disk(usize),
}

impl Around {
    pub fn new() -> Around {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        Around { runtime, files: Arc::default() }
    }

    pub fn disk(&self, slots_bytes: usize) -> Arc<Disk> {
        let files: Arc<dyn Files> = self.files.clone();
        Arc::new(Disk::new(1 << 20, slots_bytes, Some(files), self.runtime.handle().clone()).unwrap())
    }

    /// For an operator of this kind.
    pub fn disk_of(&self, kind: Kind) -> Option<Arc<Disk>> {
        match kind {
            Kind::Memory => None,
            Kind::Disk(slots_bytes) => Some(self.disk(slots_bytes)),
        }
    }

    /// As a checkpoint has it; `store` is what the workers went on from, whose chains it may go on with.
    pub fn saved(&self, workers: &mut [Box<dyn Operator>], mut store: MemoryStore) -> MemoryStore {
        for (worker, operator) in workers.iter_mut().enumerate() {
            let mut writer = SnapshotWriter::new();
            operator.snapshot(1, &mut writer).unwrap();
            while operator.snapshot_more(&mut writer).unwrap() {}
            store.put("it", worker, self.finished(writer));
        }
        store
    }

    /// A snapshot with its files.
    pub fn finished(&self, writer: SnapshotWriter) -> state::Snapshot {
        self.finished_and_held(writer).0
    }

    /// Also for how long its tables held up whoever wrote to them.
    pub fn finished_and_held(&self, mut writer: SnapshotWriter) -> (state::Snapshot, Duration) {
        let name = |file: &str| format!("{}/{file}", uuid::Uuid::new_v4());
        let (mut stored, mut held) = (BTreeMap::new(), Duration::ZERO);
        for (table, frozen) in writer.take_frozen() {
            let saved = self.runtime.block_on(frozen.save(&*self.files, &name)).unwrap();
            held += saved.held;
            stored.insert(table, saved.part);
        }
        (writer.finish().unwrap().with_stored(stored), held)
    }

    /// All rows of all tables as text, ordered.
    pub fn rows(&self, store: &MemoryStore) -> Vec<String> {
        let store = self.as_rows(store);
        let merged = store.merged("it").unwrap();
        let tables = merged.tables().map(|(name, rows, _)| (name, text(&[Batch::inserts(rows.clone())])));
        let mut lines: Vec<String> =
            tables.flat_map(|(name, rows)| sorted(&rows).into_iter().map(move |row| format!("{name} {row}"))).collect();
        lines.sort();
        lines
    }

    fn as_rows(&self, store: &MemoryStore) -> MemoryStore {
        let disk = self.disk(0);
        self.runtime.block_on(store.as_rows(&*self.files, &disk.scratch(), disk.memory())).unwrap()
    }

    pub fn restored(
        &self,
        store: MemoryStore,
        kind: Kind,
        workers: usize,
        make: impl Fn(Kind) -> Box<dyn Operator>,
    ) -> Vec<Box<dyn Operator>> {
        let store = match kind {
            Kind::Disk(_) => store,
            Kind::Memory => self.as_rows(&store),
        };
        (0..workers)
            .map(|worker| {
                let mut operator = make(kind);
                operator.restore(&store.reader("it", worker, workers)).unwrap();
                operator
            })
            .collect()
    }
}
