//! Topics of Apache Kafka, read and written.
//!
//! [`native`] is librdkafka; [`settings`] are its options; [`connect`] waits for a cluster and its topics; [`decode`] makes rows of records
//! and [`encode`] records of rows.

mod connect;
mod decode;
mod encode;
mod native;
mod settings;
mod sink;
mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Egress;

pub use sink::KafkaSink;
pub use source::KafkaSource;

/// What Kafka tables may use and do.
#[derive(Clone)]
pub struct Surroundings {
    /// Options of connections by name, secrets included.
    pub connections: Arc<BTreeMap<String, BTreeMap<String, String>>>,
    pub egress: Egress,
    /// Properties that name local files, commands, libraries and URLs are refused.
    pub restricted: bool,
}
