//! A view at one epoch, and how it gets from the one who folds to those who read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::chunk::Chunk;
use crate::definition::ViewDefinition;
use crate::error::ViewError;
use crate::query::{Answer, Query, run};

/// The rows of a view at the end of one epoch. Immutable; a clone shares everything.
#[derive(Clone)]
pub struct ViewSnapshot {
    pub definition: Arc<ViewDefinition>,
    pub schema: SchemaRef,
    pub epoch: u64,
    /// How far event time had come; `None` before the first watermark, `i64::MAX` at the end of the input.
    pub watermark_us: Option<i64>,
    /// When the epoch was folded; microseconds since 1970.
    pub at_us: i64,
    pub rows: u64,
    /// Memory that the view takes, its index included.
    pub bytes: u64,
    /// Rows that the retention has removed since the run began.
    pub dropped: u64,
    pub(crate) chunks: Vec<Chunk>,
}

impl ViewSnapshot {
    /// The answer to a query: see [`Query`].
    pub fn query(&self, query: &Query) -> Result<Answer, ViewError> {
        run(&self.definition, self.chunks.iter().map(Ok), query)
    }

    /// All rows. In the order of their arrival where the view has no key; else in no order.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch, ViewError>> {
        let all: Vec<usize> = (0..self.schema.fields().len()).collect();
        self.chunks.iter().map(move |chunk| chunk.project(&all))
    }
}

/// A view of a run that is being folded: the newest snapshot, once there is one.
pub struct LiveView {
    definition: Arc<ViewDefinition>,
    latest: RwLock<Option<Arc<ViewSnapshot>>>,
    removed: AtomicU64,
}

impl LiveView {
    pub fn new(definition: Arc<ViewDefinition>) -> LiveView {
        LiveView { definition, latest: RwLock::new(None), removed: AtomicU64::new(0) }
    }

    pub fn definition(&self) -> &Arc<ViewDefinition> {
        &self.definition
    }

    /// The newest complete epoch; `None` before the first that may be shown.
    pub fn latest(&self) -> Option<Arc<ViewSnapshot>> {
        self.latest.read().expect("nothing panics while it holds the newest snapshot").clone()
    }

    /// Rows that the retention has removed since the run began, also while no epoch may be shown.
    pub fn removed_rows(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// The whole of them up to the newest folded epoch.
    pub fn set_removed_rows(&self, rows: u64) {
        self.removed.store(rows, Ordering::Relaxed);
    }

    /// From now on, readers get this one.
    pub fn show(&self, snapshot: ViewSnapshot) {
        let next = Some(Arc::new(snapshot));
        // The one before is dropped behind the lock: nobody waits while its memory is given back.
        let _before = {
            let mut latest = self.latest.write().expect("nothing panics while it holds the newest snapshot");
            std::mem::replace(&mut *latest, next)
        };
    }
}
