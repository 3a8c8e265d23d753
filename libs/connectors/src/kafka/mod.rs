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

/// Whether the brokers that a table names may be connected to, by the addresses that they have now. A name that is not known now is no
/// matter of this.
pub(crate) fn check_servers(table: &str, options: &graph::KafkaOptions, around: &Surroundings) -> Result<(), RunError> {
    if around.egress == Egress::everywhere() {
        return Ok(());
    }
    for server in settings::servers(options, around).split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let (host, port) = host_and_port(server);
        match crate::files::allowed(&format!("table {table}"), host, port, &around.egress) {
            Err(error) if error.code == "endpoint_not_allowed" => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The host and port of a broker; a protocol may stand before it.
pub(crate) fn host_and_port(server: &str) -> (&str, u16) {
    const PORT: u16 = 9092;
    let server = server.rsplit("://").next().unwrap_or(server);
    match server.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            (host.trim_matches(['[', ']']), port.parse().unwrap_or(PORT))
        }
        _ => (server.trim_matches(['[', ']']), PORT),
    }
}
