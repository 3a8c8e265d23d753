//! The writer of a topic that is written exactly once: nothing is sent, records go to a log.
//!
//! Until the next checkpoint the log grows, in memory and on the local disk; then its files are uploaded to the place of the job's
//! checkpoints, and named in what is handed over. The partition of each record is chosen here, once: a log that is sent again goes where it
//! went before.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use engine::RunError;
use engine::runtime::Place;

use super::commit::target;
use super::encode::Ids;
use super::native::{Client, partition_of};
use super::sink::{Choice, Entrance};
use crate::staged::writer::{Order, refuse};
use crate::staged::{EpochFrames, Frame, LogFiles, RecordLog, Upload, unwritable};

/// The thread that stages.
pub struct Staging {
    entrance: Entrance,
    choice: Choice,
    place: Place,
    operator: String,
    log: RecordLog,
    /// Where rows change: what becomes of each key is known at the checkpoint.
    upserts: Option<EpochFrames>,
    frame: Vec<u8>,
}

impl Staging {
    pub fn new(
        entrance: Entrance,
        choice: Choice,
        place: Place,
        operator: String,
        upserts: Option<EpochFrames>,
    ) -> Staging {
        Staging { entrance, choice, place, operator, log: RecordLog::default(), upserts, frame: Vec::new() }
    }

    pub fn run(mut self, client: Arc<Client>, orders: &Receiver<Order>, fail: &dyn Fn(RunError)) {
        let opened = self.entrance.open(&client);
        drop(client);
        let ids = match opened {
            Ok((partitions, ids)) => {
                self.choice.partitions = partitions;
                ids
            }
            Err(error) => {
                fail(error.clone());
                return refuse(orders, &error);
            }
        };
        // Ends with the writer: the run is over, and what is not prepared is not wanted.
        while let Ok(order) = orders.recv() {
            let done = match order {
                Order::Write(frames, permit) => {
                    let done = self.write(frames, ids);
                    drop(permit);
                    done
                }
                Order::Prepare(epoch, rows, reply) => match self.complete() {
                    Ok(log) => {
                        let upload = Upload {
                            place: self.place.clone(),
                            epoch,
                            operator: self.operator.clone(),
                            worker: self.choice.worker,
                            target: target(&self.entrance.topic),
                            rows,
                        };
                        self.entrance.tokio.spawn(async move { reply.done(upload.run(log).await) });
                        Ok(())
                    }
                    Err(error) => {
                        reply.done(Err(error.clone()));
                        Err(error)
                    }
                },
            };
            if let Err(error) = done {
                fail(error.clone());
                return refuse(orders, &error);
            }
        }
    }

    fn write(&mut self, mut frames: Vec<u8>, ids: Option<Ids>) -> Result<(), RunError> {
        if let Some(ids) = ids {
            ids.fill_in(&mut frames);
        }
        if let Some(upserts) = &mut self.upserts {
            return upserts.append(&frames).map_err(unwritable);
        }
        let mut anywhere = None;
        let mut rest = &frames[..];
        while let Some((frame, behind)) = Frame::read(rest) {
            let partition = chosen(&mut self.choice, frame.key, &mut anywhere);
            self.log.append(partition, &rest[..rest.len() - behind.len()]).map_err(unwritable)?;
            rest = behind;
        }
        Ok(())
    }

    /// The log up to here; a new one begins.
    fn complete(&mut self) -> Result<LogFiles, RunError> {
        let Staging { choice, log, upserts, frame: bytes, .. } = self;
        if let Some(upserts) = upserts {
            let mut anywhere = None;
            upserts.take(|frame| {
                bytes.clear();
                frame.write(bytes);
                log.append(chosen(choice, frame.key, &mut anywhere), bytes).map_err(unwritable)
            })?;
        }
        std::mem::take(log).finish().map_err(unwritable)
    }
}

/// The partition of a record. Those without a key go to `anywhere`, which is chosen once for the records at hand: together they make larger
/// batches.
fn chosen(choice: &mut Choice, key: Option<&[u8]>, anywhere: &mut Option<i32>) -> i32 {
    match (choice.next(), key) {
        (Some(partition), _) => partition,
        (None, Some(key)) => partition_of(key, choice.partitions),
        (None, None) => *anywhere.get_or_insert_with(|| {
            choice.turn = (choice.turn + 1) % choice.partitions.max(1);
            // Workers begin at different partitions.
            ((choice.turn as usize + choice.worker) % choice.partitions.max(1) as usize) as i32
        }),
    }
}
