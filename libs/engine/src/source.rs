//! Sources: where rows come from, split by split.
//!
//! A source lists its splits once per run, in the leader; the list is frozen. Each worker then runs one reader, a tokio task, over the
//! splits given to it. A reader only reads: cuts, watermarks, idleness and positions are kept by the engine from the events it sends.
//! A cut of an epoch falls between two events, so the `next` position of the last event of a split is its position in the cut.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

use crate::batch::Permit;
use crate::error::{Result, RunError};
use crate::runtime::Pressure;

/// A kind of input, opened with its options.
pub trait Source: Send + Sync {
    /// The columns of the batches, in order: exactly the columns that the reader was asked for.
    fn schema(&self) -> SchemaRef;

    /// Lists all splits; called once per run, by the leader. The order is the order of reading where one worker reads several.
    fn splits(&self) -> BoxFuture<'_, Result<Vec<Split>>>;

    /// Lists all splits, like [`splits`](Self::splits), where that may take long: says meanwhile what it waits for. This is what is called.
    fn list<'a>(&'a self, waiting: &'a Waiting) -> BoxFuture<'a, Result<Vec<Split>>> {
        let _ = waiting;
        self.splits()
    }

    /// Where a split begins that was given no position, in the words of [`Position::At`]: it is recorded, so that a later run can
    /// begin there too. `None`: at the beginning of the split, for which there is no other word.
    fn start(&self, split: &Split) -> Option<String> {
        let _ = split;
        None
    }

    /// Whether a split that was listed is there. One that is not may come into being during the run: its reader says that it is absent,
    /// and nobody needs to hear of it before.
    fn exists(&self, split: &Split) -> bool {
        let _ = split;
        true
    }

    /// Whether nothing is to be read of a split that an earlier run may have had and that is not listed, if it begins at this position: so may be
    /// one that did not exist then, and does not now.
    fn is_nothing(&self, _split: &str, _position: &str) -> bool {
        false
    }

    /// Reads the given splits until all have ended, or for ever. Returns when every split was reported finished, or on failure.
    /// Dropping the future stops the reading.
    fn read(self: Arc<Self>, context: SourceContext, out: SourceOutput) -> BoxFuture<'static, Result<()>>;
}

/// Where a source says what it waits for, before the run can begin and while it reads.
#[derive(Clone)]
pub struct Waiting(Arc<dyn Fn(Option<String>) + Send + Sync>);

impl Waiting {
    /// `say` gets what is waited for, and `None` when the wait is over.
    pub fn new(say: impl Fn(Option<String>) + Send + Sync + 'static) -> Waiting {
        Waiting(Arc::new(say))
    }

    /// What is waited for, and why it is not there: `topic 'bids' at localhost:9092 (refused)`.
    pub fn on(&self, what: impl Into<String>) {
        (self.0)(Some(what.into()));
    }

    pub fn over(&self) {
        (self.0)(None);
    }

    /// Does `work`, and says that `what` is waited for as soon as that takes long.
    pub async fn during<T>(&self, what: impl FnOnce() -> String, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        match tokio::time::timeout(LONG, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                self.on(what());
                let done = work.await;
                self.over();
                done
            }
        }
    }
}

/// What takes longer is worth being told of.
const LONG: Duration = Duration::from_secs(2);

/// A unit of input with a position of its own. What it is is the connector's business.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Split {
    /// Names the split in messages and ledgers; unique in the source and the same in every run over the same input.
    pub id: String,
    /// What the connector needs to read it: path, size, entity tag, row groups...
    pub spec: serde_json::Value,
    /// A proved lower bound (microseconds) of the event times in the split, by [`SourceHints::time_column`]:
    /// in a bounded run the watermark may pass what is proved. The engine fails the run if a row is below it.
    pub min_time_us: Option<i64>,
    /// Estimates for progress bars.
    pub rows: Option<u64>,
    pub bytes: Option<u64>,
}

#[cfg(test)]
impl Split {
    /// One of which nothing but its name is known.
    pub fn named(id: &str) -> Split {
        Split { id: id.into(), spec: serde_json::Value::Null, min_time_us: None, rows: None, bytes: None }
    }
}

/// A place in a split from which reading can go on, in the connector's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// Everything before this was sent; the text is the connector's.
    At(String),
    /// The split has ended; it stays ended after a restore.
    End,
}

/// A split to read and where to begin: `None` is its start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SplitStart {
    /// Number of the split in the run's frozen list; events name it.
    pub number: u32,
    pub split: Split,
    pub position: Option<Position>,
}

/// A condition that every wanted row fulfils; a reader may skip what provably does not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pushed {
    pub column: String,
    /// `=`, `<`, `<=`, `>` or `>=`.
    pub op: String,
    /// The literal as SQL text of the column's type: `10`, `'abc'`, `2001-01-31 00:00:00`.
    pub literal: String,
}

/// What the engine wants of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceHints {
    /// The columns to deliver, in this order; a subset of the node's columns.
    pub columns: graph::Schema,
    /// The column of the time attribute, where it is read as it is.
    pub time_column: Option<String>,
    /// All of these hold for every row that is wanted.
    pub pushed: Vec<Pushed>,
}

/// What a reader is asked to do.
#[derive(Clone)]
pub struct SourceContext {
    /// Splits that have not ended yet, in the order of reading.
    pub splits: Vec<SplitStart>,
    /// Rows per batch, at most.
    pub batch_rows: usize,
    /// Where the reader says what keeps it from reading on.
    pub waiting: Waiting,
}

/// What a reader says.
#[derive(Debug)]
pub enum SourceEvent {
    Rows {
        /// [`SplitStart::number`].
        split: u32,
        rows: RecordBatch,
        /// Record number within the split of each row.
        positions: RowPositions,
        /// Records of the same stretch that could not be read; their policy is applied by the engine.
        bad: Vec<BadRecord>,
        /// Where reading goes on after this event.
        next: Position,
        permit: Option<Arc<Permit>>,
    },
    /// The split has no more rows, for now: it need not hold the watermark back.
    Idle { split: u32 },
    /// The split does not exist yet, and may never: it holds nothing back until rows of it come.
    Absent { split: u32 },
    /// The split has ended for good.
    Finished { split: u32 },
    /// How many records are left after what was sent so far; said now and then by readers that know.
    Lag { split: u32, records: u64 },
}

/// The record numbers of a batch's rows.
#[derive(Clone, Debug)]
pub enum RowPositions {
    /// Consecutive from this one.
    From(i64),
    Each(Int64Array),
}

/// A record that could not be turned into a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Record number within the split.
    pub position: i64,
    /// Stable, snake_case.
    pub code: String,
    pub message: String,
    /// The record itself, cut to 64 KiB.
    pub payload: Vec<u8>,
}

/// What a batch takes beside its values: descriptions of arrays and buffers, about.
const BATCH_BYTES: usize = 1024;

/// Where a reader sends its events. Sending waits while the process has too many bytes in flight.
pub struct SourceOutput {
    pub(crate) events: mpsc::UnboundedSender<SourceEvent>,
    pub(crate) budget: Arc<Semaphore>,
    /// The budget's size; one batch larger than all of it still passes alone.
    pub(crate) budget_bytes: usize,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) wake: Arc<dyn Fn() + Send + Sync>,
}

impl SourceOutput {
    /// A pair for tests of readers: everything sent arrives at the receiver.
    pub fn for_tests() -> (SourceOutput, mpsc::UnboundedReceiver<SourceEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let budget_bytes = Semaphore::MAX_PERMITS;
        (
            SourceOutput {
                events,
                budget: Arc::new(Semaphore::new(budget_bytes)),
                budget_bytes,
                pressure: Arc::default(),
                wake: Arc::new(|| {}),
            },
            receiver,
        )
    }

    /// Sends rows (possibly none) and the records that could not be read.
    pub async fn rows(
        &mut self,
        split: u32,
        rows: RecordBatch,
        positions: RowPositions,
        bad: Vec<BadRecord>,
        next: Position,
    ) -> Result<()> {
        // Batches may be slices of larger buffers that are held elsewhere: count what is in the slice, and what a batch itself takes.
        let sizes = rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
        let bytes = (sizes.sum::<usize>() + BATCH_BYTES).clamp(1, self.budget_bytes.min(u32::MAX as usize)) as u32;
        let held = match self.budget.clone().try_acquire_many_owned(bytes) {
            Ok(held) => held,
            Err(_) => {
                let _held_up = self.pressure.hold();
                self.budget.clone().acquire_many_owned(bytes).await.map_err(|_| stopped())?
            }
        };
        self.send(SourceEvent::Rows {
            split,
            rows,
            positions,
            bad,
            next,
            permit: Some(Arc::new(Permit::Held { _permit: held })),
        })
    }

    pub fn idle(&mut self, split: u32) -> Result<()> {
        self.send(SourceEvent::Idle { split })
    }

    pub fn absent(&mut self, split: u32) -> Result<()> {
        self.send(SourceEvent::Absent { split })
    }

    pub fn lag(&mut self, split: u32, records: u64) -> Result<()> {
        self.send(SourceEvent::Lag { split, records })
    }

    pub fn finished(&mut self, split: u32) -> Result<()> {
        self.send(SourceEvent::Finished { split })
    }

    fn send(&mut self, event: SourceEvent) -> Result<()> {
        self.events.send(event).map_err(|_| stopped())?;
        (self.wake)();
        Ok(())
    }
}

/// The engine no longer listens: the run is over. A reader that gets this returns it; nobody sees it.
fn stopped() -> RunError {
    RunError::internal("the run is over")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn only_what_takes_long_is_said_to_be_waited_for() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let waiting = {
            let said = said.clone();
            Waiting::new(move |what| said.lock().expect("nothing panics while it says something").push(what))
        };
        let during = |time: Duration| waiting.during(|| "the sink".to_string(), tokio::time::sleep(time));
        during(Duration::ZERO).await;
        assert_eq!(said.lock().expect("nobody panicked").len(), 0, "it took no time");
        during(LONG + Duration::from_millis(100)).await;
        assert_eq!(*said.lock().expect("nobody panicked"), [Some("the sink".to_string()), None]);
    }
}
