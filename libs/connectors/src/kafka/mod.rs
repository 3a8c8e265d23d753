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

use engine::RunError;

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

/// A client with the options of a connection, for trying it out.
pub(crate) fn probe_client(options: &BTreeMap<String, String>, egress: &Egress) -> Result<native::Client, RunError> {
    let name = "connection".to_string();
    let around = Surroundings {
        connections: Arc::new(BTreeMap::from([(name.clone(), options.clone())])),
        egress: egress.clone(),
        restricted: true,
    };
    let table = serde_json::json!({"topic": "none", "connection": name, "format": "json"});
    let table = serde_json::from_value(table)
        .map_err(|error| RunError::internal(format!("a table without more than a topic is refused: {error}")))?;
    settings::client(&name, &table, native::Role::Consumer, &around)
}
