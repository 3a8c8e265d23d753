//! A sink's writer that encodes on its worker's thread and leaves the rest to a thread of its own.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use engine::{Batch, CommitKind, Permit, Prepared, RunError, SinkWriter};
use state::{SnapshotReader, SnapshotWriter};

/// Makes frames of rows.
pub trait Encode: Send {
    /// Appends a frame per row.
    ///
    /// # Errors
    /// A value that the sink has no form for.
    fn encode(&mut self, batch: &Batch, frames: &mut Vec<u8>) -> Result<(), RunError>;
}

/// What the thread is to do.
pub enum Order {
    /// Frames, and the share of the memory budget of the rows that they were made of.
    Write(Vec<u8>, Option<Arc<Permit>>),
    /// The epoch, its rows so far, and whom to tell.
    Prepare(u64, u64, Prepared),
}

/// See the module.
pub struct FrameWriter<E> {
    encoder: E,
    orders: Sender<Order>,
    rows: u64,
}

impl<E: Encode> FrameWriter<E> {
    pub fn new(encoder: E, orders: Sender<Order>) -> FrameWriter<E> {
        FrameWriter { encoder, orders, rows: 0 }
    }

    fn order(&self, order: Order) -> Result<(), RunError> {
        // It says so before only when the run is over.
        self.orders.send(order).map_err(|_| RunError::internal("the thread of a sink has ended"))
    }
}

impl<E: Encode> SinkWriter for FrameWriter<E> {
    fn write(&mut self, batch: Batch) -> Result<(), RunError> {
        let mut frames = Vec::with_capacity(batch.num_rows() * 64);
        self.encoder.encode(&batch, &mut frames)?;
        self.rows += batch.num_rows() as u64;
        self.order(Order::Write(frames, batch.permit))
    }

    fn prepare(&mut self, epoch: u64, _: CommitKind, reply: Prepared) -> Result<(), RunError> {
        let rows = std::mem::take(&mut self.rows);
        self.order(Order::Prepare(epoch, rows, reply))
    }

    /// What was written is in the sink, or handed over, when its epoch is prepared.
    fn snapshot(&mut self, _: u64, _: &mut SnapshotWriter) -> Result<(), RunError> {
        Ok(())
    }

    fn restore(&mut self, _: &SnapshotReader) -> Result<(), RunError> {
        Ok(())
    }
}

/// Answers every order with the error, until the writer is gone.
pub fn refuse(orders: &Receiver<Order>, error: &RunError) {
    while let Ok(order) = orders.recv() {
        if let Order::Prepare(_, _, reply) = order {
            reply.done(Err(error.clone()));
        }
    }
}
