//! Topics of Apache Kafka, read and written.
//!
//! [`native`] is librdkafka; [`settings`] are its options; [`connect`] waits for a cluster and its topics; [`decode`] makes rows of records
//! and [`encode`] records of rows. A [`sink`] sends at least once; for exactly once [`staging`] writes records to a
//! [log](crate::staged), which [`commit`] sends in a transaction.

mod commit;
mod connect;
mod decode;
mod encode;
mod native;
mod settings;
mod sink;
mod source;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::RunError;

use crate::Egress;
use crate::egress::split_port;

pub(crate) use commit::check_broker;
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
    for server in settings::servers(options, around).split(',').map(str::trim).filter(|server| !server.is_empty()) {
        let (host, port) = host_and_port(server);
        crate::files::allowed(&format!("table {table}"), host, port, &around.egress)?;
    }
    Ok(())
}

/// The host and port of a broker; a protocol may stand before it.
pub(crate) fn host_and_port(server: &str) -> (&str, u16) {
    const PORT: u16 = 9092;
    let (host, port) = split_port(server.rsplit("://").next().unwrap_or(server));
    (host, port.unwrap_or(PORT))
}

#[cfg(test)]
mod addresses {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn brokers_that_must_not_be_reached_are_refused_everywhere() {
        let around = Surroundings { connections: Arc::default(), egress: Egress::everywhere(), restricted: false };
        for (servers, allowed) in [
            ("127.0.0.1:9092", true),
            ("no-such-host.invalid:9092", true),
            ("SASL_SSL://127.0.0.1:9092, 169.254.169.254", false),
            ("[::ffff:169.254.169.254]:80", false),
        ] {
            let table = serde_json::json!({"topic": "t", "properties.bootstrap.servers": servers});
            let options: graph::KafkaOptions = serde_json::from_value(table).unwrap();
            let checked = check_servers("t", &options, &around);
            assert_eq!(checked.map_err(|error| error.code).is_ok(), allowed, "{servers}");
        }
    }
}
