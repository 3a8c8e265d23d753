//! What the operators of one worker share: the epochs' facts, the probe, and the way to the leader.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use timely::scheduling::activate::Activator;
use tokio::sync::mpsc::UnboundedSender;

use super::durable::Uploads;
use super::ingest::Orders;
use super::messages::{Cut, FromWorker};
use super::metrics::RowCounts;
use crate::error::RunError;
use crate::sink::CommitKind;

/// Lives on one worker thread.
pub struct WorkerState {
    pub worker: usize,
    pub workers: usize,
    /// Where operators hand over snapshots at checkpoints, if they do.
    pub uploads: Option<Uploads>,
    /// Read by `now()` in expressions; set by the driver before it calls an operator.
    pub now_us: Arc<AtomicI64>,
    epochs: RefCell<BTreeMap<u64, EpochFacts>>,
    /// All epochs up to this one are complete everywhere.
    passed: Cell<u64>,
    current: Cell<u64>,
    /// Rows by epoch that is not complete, and by stage.
    counts: RefCell<BTreeMap<u64, Vec<RowCounts>>>,
    failed: Cell<bool>,
    leader: UnboundedSender<FromWorker>,
    sources: RefCell<Vec<(Activator, Rc<RefCell<Orders>>)>>,
}

#[derive(Clone, Copy)]
struct EpochFacts {
    now_us: i64,
    /// Known once the epoch was cut, which is before any operator can close it.
    kind: Option<CommitKind>,
}

impl WorkerState {
    pub fn new(
        worker: usize,
        workers: usize,
        uploads: Option<Uploads>,
        first_epoch: u64,
        now_us: i64,
        leader: UnboundedSender<FromWorker>,
    ) -> WorkerState {
        WorkerState {
            worker,
            workers,
            uploads,
            now_us: Arc::new(AtomicI64::new(now_us)),
            epochs: RefCell::new(BTreeMap::from([(first_epoch, EpochFacts { now_us, kind: None })])),
            passed: Cell::new(first_epoch - 1),
            current: Cell::new(first_epoch),
            counts: RefCell::default(),
            failed: Cell::new(false),
            leader,
            sources: RefCell::default(),
        }
    }

    /// The leader has ended an epoch and begun the next.
    pub fn cut(&self, cut: &Cut) {
        let mut epochs = self.epochs.borrow_mut();
        let facts = epochs.get_mut(&cut.epoch).expect("epochs are cut in order");
        facts.kind = Some(cut.kind);
        epochs.insert(cut.epoch + 1, EpochFacts { now_us: cut.now_us, kind: None });
    }

    /// What happens at the end of an epoch that is being closed.
    pub fn kind(&self, epoch: u64) -> CommitKind {
        let kind = self.epochs.borrow().get(&epoch).and_then(|facts| facts.kind);
        kind.expect(
            "every worker learns of a cut before its own sources leave the epoch, so before any operator closes it",
        )
    }

    /// Whether the leader named this epoch the last.
    pub fn is_last(&self, epoch: u64) -> bool {
        self.epochs.borrow().get(&epoch).and_then(|facts| facts.kind).is_some_and(|kind| kind.last)
    }

    /// Makes `now()` the one of the epoch.
    pub fn enter(&self, epoch: u64) {
        self.current.set(epoch);
        if let Some(facts) = self.epochs.borrow().get(&epoch) {
            self.now_us.store(facts.now_us, Ordering::Relaxed);
        }
    }

    pub fn passed(&self) -> u64 {
        self.passed.get()
    }

    /// The probe has moved.
    pub fn pass(&self, epoch: u64) {
        self.passed.set(epoch);
        let mut epochs = self.epochs.borrow_mut();
        *epochs = epochs.split_off(&epoch);
        self.order(|_| {});
        let mut complete = self.counts.borrow_mut();
        let open = complete.split_off(&epoch.saturating_add(1));
        let counts = std::mem::replace(&mut *complete, open).into_iter().collect();
        self.send(FromWorker::Passed { worker: self.worker, epoch, counts });
    }

    /// Counts rows of the epoch that was entered last.
    pub fn count(&self, stage: usize, rows: RowCounts) {
        let mut open = self.counts.borrow_mut();
        let stages = open.entry(self.current.get()).or_default();
        if stages.len() <= stage {
            stages.resize(stage + 1, RowCounts::default());
        }
        stages[stage] += rows;
    }

    /// Registers a source instance; returns where its orders will be.
    pub fn add_source(&self, activator: Activator) -> Rc<RefCell<Orders>> {
        let orders = Rc::new(RefCell::new(Orders::default()));
        self.sources.borrow_mut().push((activator, orders.clone()));
        orders
    }

    /// Gives every source instance of the worker an order, and wakes it.
    pub fn order(&self, give: impl Fn(&mut Orders)) {
        for (activator, orders) in self.sources.borrow().iter() {
            give(&mut orders.borrow_mut());
            activator.activate();
        }
    }

    /// The epoch that was entered last.
    pub fn current(&self) -> u64 {
        self.current.get()
    }

    /// Whether the run has failed on this worker: then operators do nothing more, and keep their capabilities.
    pub fn failed(&self) -> bool {
        self.failed.get()
    }

    pub fn fail(&self, error: RunError) {
        if !self.failed.replace(true) {
            self.send(FromWorker::Failed(error));
        }
    }

    pub fn send(&self, message: FromWorker) {
        // The leader is gone only when the run is over; nothing is left to be told.
        let _ = self.leader.send(message);
    }

    pub fn leader(&self) -> UnboundedSender<FromWorker> {
        self.leader.clone()
    }
}
