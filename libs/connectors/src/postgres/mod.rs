//! Tables of PostgreSQL, written.
//!
//! [`connect`] reaches a database where that is allowed; [`target`] is the table: its columns and what is said to it; [`encode`] makes tuples
//! of rows, as `COPY` takes them in binary. A [`sink`] writes an epoch at a time; for exactly once its rows wait in a
//! [log](crate::staged), which [`commit`] writes together with the epoch's number in one transaction.

mod commit;
mod connect;
mod encode;
mod sink;
mod target;
#[cfg(test)]
mod tests;
mod write;

use std::time::Duration;

pub use sink::PostgresSink;
pub(crate) use sink::{check, probe, probe_server};

/// For the answer to anything that is no work.
const ANSWER: Duration = Duration::from_secs(30);
