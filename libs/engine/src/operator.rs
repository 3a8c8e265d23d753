//! The contract between operators and whatever drives them. Operators know no engine.

use arrow::array::RecordBatch;
use state::{SnapshotReader, SnapshotWriter};

use crate::batch::Batch;
use crate::error::Result;

/// A keyed or otherwise stateful operator: synchronous, single-threaded, one instance per worker.
///
/// The driver calls it in this order within an epoch: `process` and `watermark` as data and progress arrive; at the epoch's end
/// `watermark` with the closing watermark (if it rose), `epoch_end`, and `snapshot` if the epoch is a checkpoint. Epochs follow strictly;
/// a snapshot is copied to its end before the next one begins.
pub trait Operator {
    /// Takes rows. `wm` is the batch's stamp: the watermark of its source instance when it was sent, at least this operator's watermark.
    fn process(&mut self, port: usize, batch: Batch, wm: i64, out: &mut Output) -> Result<()>;

    /// The watermark in microseconds has risen; `i64::MAX` is the final one, said once.
    fn watermark(&mut self, wm: i64, out: &mut Output) -> Result<()>;

    /// As [`Operator::watermark`], in steps: stops once much has been sent, so that results are taken on before there are more of them.
    /// Returns whether there is more; then it is called again, with this watermark or a later one, before the epoch ends. Rows that come
    /// meanwhile have stamps of at least this watermark.
    fn advance(&mut self, wm: i64, out: &mut Output) -> Result<bool> {
        self.watermark(wm, out).map(|()| false)
    }

    /// How far, in microseconds, its results stay behind the watermark that made them: what follows sees watermarks lower by this.
    fn behind(&self) -> i64 {
        0
    }

    /// The epoch is complete; updating results are emitted here.
    fn epoch_end(&mut self, epoch: u64, out: &mut Output) -> Result<()>;

    /// Hands over the state as of the end of `epoch`. Quick, however much there is: small tables are written; of a large one is noted
    /// which rows [`Operator::snapshot_more`] has to copy.
    fn snapshot(&mut self, epoch: u64, writer: &mut SnapshotWriter) -> Result<()>;

    /// Copies some thousands more rows of the last snapshot, and returns whether there are more. It is called until there are none, with
    /// rows and watermarks of later epochs in between: what these are about to change is copied before, as it was.
    fn snapshot_more(&mut self, _writer: &mut SnapshotWriter) -> Result<bool> {
        Ok(false)
    }

    /// Takes the state that this worker owns; called at most once, before anything else.
    fn restore(&mut self, reader: &SnapshotReader) -> Result<()>;

    /// Bytes of state, for metrics.
    fn state_bytes(&self) -> usize {
        0
    }
}

/// An operator without state: every output keeps the stamp of the batch that it came from.
pub trait Stateless {
    /// Takes a batch and its stamp.
    fn map(&mut self, batch: Batch, wm: i64, out: &mut Output) -> Result<()>;
}

/// Where an operator puts its results; the driver sends them on with the right time.
#[derive(Default)]
pub struct Output {
    pub(crate) main: Vec<Batch>,
    pub(crate) side: Vec<Batch>,
    pub(crate) late: Vec<LateRows>,
    /// Added to the operator's counters by the driver.
    pub counters: Counters,
}

/// Rows that came too late, for whoever wants to see some.
#[derive(Debug)]
pub struct LateRows {
    /// The operator's id in the graph.
    pub operator: String,
    /// With memory of their own: they are kept for a while.
    pub rows: RecordBatch,
    /// Microseconds, one per row.
    pub event_times: Vec<i64>,
    /// The watermark that they were late by.
    pub stamp: i64,
}

/// What an operator counted since the driver last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Rows that were late for all their windows.
    pub late: u64,
    /// Rows that were late for some of their windows.
    pub partially_late: u64,
    /// Rows that a filter took out.
    pub filtered: u64,
    /// Rows or records dropped by a policy.
    pub dropped: u64,
    /// Rows or records sent to the dead letters.
    pub dead: u64,
}

impl Output {
    pub fn new() -> Output {
        Output::default()
    }

    /// Sends rows on. Empty batches are ignored.
    pub fn send(&mut self, batch: Batch) {
        if batch.num_rows() > 0 {
            self.main.push(batch);
        }
    }

    /// Sends rows to the side output: late rows of window operators, dead letters of sources.
    pub fn send_side(&mut self, batch: Batch) {
        if batch.num_rows() > 0 {
            self.side.push(batch);
        }
    }

    /// What was sent since the last call; for tests and drivers.
    pub fn take(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.main)
    }

    /// What was sent to the side output since the last call.
    pub fn take_side(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.side)
    }
}
