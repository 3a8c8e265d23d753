//! A sink writer as an operator: rows are written when their epoch is the one being worked on, and prepared at its end.

use state::{SnapshotReader, SnapshotWriter};

use super::leader::prepares;
use super::messages::FromWorker;
use super::worker_state::WorkerState;
use crate::batch::Batch;
use crate::error::Result;
use crate::operator::{Operator, Output};
use crate::sink::{Commits, Prepared, SinkWriter};

use std::rc::Rc;

pub struct Outlet {
    pub writer: Box<dyn SinkWriter>,
    pub commits: Commits,
    pub bounded: bool,
    /// Position among the sinks of the plan.
    pub sink: usize,
    pub name: String,
    pub state: Rc<WorkerState>,
}

impl Operator for Outlet {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, _out: &mut Output) -> Result<()> {
        self.writer.write(batch)
    }

    fn watermark(&mut self, _wm: i64, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    fn epoch_end(&mut self, epoch: u64, _out: &mut Output) -> Result<()> {
        let kind = self.state.kind(epoch);
        if !prepares(self.commits, kind, self.bounded) {
            return Ok(());
        }
        let checkpoint = kind.checkpoint;
        if checkpoint {
            faults::hit("prepare.before")?;
        }
        let (leader, sink, worker, name) = (self.state.leader(), self.sink, self.state.worker, self.name.clone());
        let reply = Prepared::new(move |result| {
            let after = || if checkpoint { faults::hit("prepare.after") } else { Ok(()) };
            let message = match result.and_then(|committable| Ok(after().map(|()| committable)?)) {
                Ok(committable) => FromWorker::Prepared { sink, worker, epoch, committable },
                Err(error) => FromWorker::Failed(error.operator(&name)),
            };
            // The leader is gone only when the run is over.
            let _ = leader.send(message);
        });
        self.writer.prepare(epoch, kind, reply)
    }

    fn snapshot(&mut self, epoch: u64, writer: &mut SnapshotWriter) -> Result<()> {
        self.writer.snapshot(epoch, writer)
    }

    fn restore(&mut self, reader: &SnapshotReader) -> Result<()> {
        self.writer.restore(reader)
    }
}
