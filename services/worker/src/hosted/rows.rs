//! The rows of a query: from the commits of its `print` table to its one reader, as an Arrow IPC stream.
//!
//! An epoch's rows leave when it is complete. A reader that is slow holds up the commits, these the epochs, and these the sources, so
//! what is in memory is about two epochs, whatever the query returns. The end of the stream means that the query has succeeded and that
//! was everything. Of a query that fails the stream breaks off, and its cause is in the outcome, which is written before.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use connectors::{OnPrint, PrintedRows};
use engine::RunError;
use engine::runtime::Verb;
use tokio::sync::{mpsc, watch};

use super::CANCELLED;

/// What the reader gets.
pub enum Piece {
    Bytes(Bytes),
    /// The end of a stream that is complete.
    Last(Bytes),
    /// The query has failed: nothing more comes, and this was not all.
    Broken,
}

/// Pieces that wait for the reader.
const PIECES: usize = 2;
/// Rows per piece, at most.
const PIECE_ROWS: usize = 8192;

/// The sending side.
#[derive(Clone)]
pub struct Rows {
    pieces: mpsc::Sender<Piece>,
    verb: Arc<watch::Sender<Verb>>,
    writer: Arc<Mutex<Option<StreamWriter<Vec<u8>>>>>,
    /// Why the first piece that is missing did not reach the reader.
    failure: Arc<Mutex<Option<RunError>>>,
}

impl Rows {
    /// With the receiving side, of which there is one.
    pub fn new(verb: Arc<watch::Sender<Verb>>) -> (Rows, mpsc::Receiver<Piece>) {
        let (pieces, receiver) = mpsc::channel(PIECES);
        (Rows { pieces, verb, writer: Arc::default(), failure: Arc::default() }, receiver)
    }

    /// Takes the rows of the print table.
    pub fn on_print(&self) -> OnPrint {
        let rows = self.clone();
        Arc::new(move |printed: PrintedRows| {
            // The commit waits here for the reader; its thread does other things meanwhile.
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(rows.take(printed)));
        })
    }

    async fn take(&self, printed: PrintedRows) {
        let kinds = printed.kinds.filter(|kinds| kinds.values().iter().any(|kind| *kind != 0));
        if kinds.is_some() {
            return self.fail(RunError::user("query_not_final", "the rows of the query change while it runs"));
        }
        let mut from = 0;
        loop {
            let count = PIECE_ROWS.min(printed.rows.num_rows() - from);
            match self.encode(&printed.rows.slice(from, count)) {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    if !self.send(Piece::Bytes(bytes.into())).await {
                        return self.fail(RunError::user(CANCELLED, "the run was cancelled before all rows were read"));
                    }
                }
                Err(error) => return self.fail(RunError::internal(format!("cannot hand over rows: {error}"))),
            }
            from += count;
            if from >= printed.rows.num_rows() {
                return;
            }
        }
    }

    /// What the stream gets for these rows: at first also its schema.
    fn encode(&self, rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let mut writer = self.writer.lock().expect("nothing panics while it writes to memory");
        let writer = match &mut *writer {
            Some(writer) => writer,
            none => none.insert(StreamWriter::try_new(Vec::new(), &rows.schema())?),
        };
        if rows.num_rows() > 0 {
            writer.write(rows)?;
        }
        Ok(std::mem::take(writer.get_mut()))
    }

    /// Waits for the reader, but not when the run is to end. Returns whether the reader gets the piece.
    async fn send(&self, piece: Piece) -> bool {
        let mut verb = self.verb.subscribe();
        tokio::select! {
            biased;
            _ = verb.wait_for(|verb| *verb == Verb::Cancel) => false,
            sent = self.pieces.send(piece) => sent.is_ok(),
        }
    }

    /// Ends the run: what the reader has is not all and will not be.
    fn fail(&self, error: RunError) {
        self.failure.lock().expect("nothing panics while it holds the error").get_or_insert(error);
        self.verb.send_replace(Verb::Cancel);
    }

    /// Why not all rows have reached the reader, if so.
    pub fn failure(&self) -> Option<RunError> {
        self.failure.lock().expect("nothing panics while it holds the error").take()
    }

    /// Ends with the reader.
    pub async fn gone(&self) {
        self.pieces.closed().await
    }

    /// Ends the stream: well, or broken off.
    pub async fn end(&self, well: bool) {
        let writer = self.writer.lock().expect("nothing panics while it writes to memory").take();
        let rest = writer.and_then(|mut writer| writer.finish().and_then(|()| writer.into_inner()).ok());
        let last = match rest {
            Some(rest) if well => Piece::Last(rest.into()),
            _ => Piece::Broken,
        };
        // A reader that is gone has no use for it.
        let _ = self.pieces.send(last).await;
    }
}
