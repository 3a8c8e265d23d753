//! Runs plans on timely dataflow. The only module that knows timely.
//!
//! [`run()`] leads an attempt; [`join_attempt`] takes part in one as a further process. `time`, `clock` and `leader` hold the rules of time
//! and are pure; `driver` and `ingest` are the only places with capabilities; `worker`, `process` and `run` are the edges.

mod build;
mod clock;
mod coalesce;
mod commits;
mod driver;
mod durable;
mod exchange;
#[cfg(test)]
mod frontier_tests;
mod ingest;
mod leader;
mod manifests;
mod messages;
mod metrics;
mod net;
mod outlet;
mod parcel;
mod process;
mod progress;
mod published;
mod recover;
mod run;
mod splits;
mod start;
mod tail;
mod time;
mod totals;
mod worker;
mod worker_state;

pub use clock::SplitState;
pub use durable::{Alone, Authority, Decision, Durable, Place, Verdict};
pub use ingest::row_json;
pub use leader::EPOCHS_RESERVED;
pub use messages::hex;
pub(crate) use metrics::Pressure;
pub use metrics::{OperatorCounts, SubtaskCounts};
pub use net::Identity;
pub use process::join_attempt;
pub use progress::{Positions, Progress, SplitProgress, StageFacts, node_of};
pub use recover::RestorePoint;
pub use run::{CheckpointRequest, Launch, Outcome, RunRequest, Surroundings, Verb, run};
pub(crate) use tail::KEPT_BYTES;
pub use tail::{DeadRecord, LateRow, NEWEST};
pub use time::{WM_FINAL, WM_MIN};
