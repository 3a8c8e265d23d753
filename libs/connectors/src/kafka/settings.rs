//! From a table's options to librdkafka's.

use std::collections::BTreeMap;

use engine::RunError;
use graph::kafka::is_secret_property;
use graph::{AvroConfluentOptions, KafkaOptions};

use super::Surroundings;
use super::native::{Client, Role};
use crate::registry::{Schemas, allowed_by};

/// Parts of the names of properties through which librdkafka opens files, runs commands, loads libraries, or calls URLs by itself.
const DANGEROUS: &[&str] = &[
    ".location",
    "plugin.",
    "kinit",
    "keytab",
    ".url",
    ".file",
    "ssl.providers",
    "ssl.engine",
    "certificate.stores",
    "https.",
    "metadata.authentication",
];

/// librdkafka's options for a table.
///
/// # Errors
/// An unknown connection; a property that is not allowed here.
pub fn client_options(
    table: &str,
    options: &KafkaOptions,
    role: Role,
    around: &Surroundings,
) -> Result<BTreeMap<String, String>, RunError> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    if let Some(name) = &options.connection {
        let connection = around.connections.get(name).ok_or_else(|| {
            let message = format!("cannot open table {table}: there is no connection '{name}'");
            RunError::user("unknown_connection", message)
                .hint("create the connection first, or write its options into the table")
        })?;
        for (key, value) in connection {
            if let Some(property) = key.strip_prefix("properties.") {
                all.insert(property.to_string(), value.clone());
            }
        }
    }
    for (key, value) in &options.properties.0 {
        let property = key.strip_prefix("properties.").unwrap_or(key);
        // Otherwise whoever may use a connection could have its secrets sent to a server of his own.
        if all.insert(property.to_string(), value.clone()).is_some() {
            let message = format!("cannot open table {table}: 'properties.{property}' is set by its connection");
            return Err(RunError::user("option_not_allowed", message).hint("remove it from the table's options"));
        }
    }
    if let Some(property) = all.keys().find(|name| DANGEROUS.iter().any(|part| name.contains(part)))
        && around.restricted
    {
        let message = format!(
            "cannot open table {table}: 'properties.{property}' names a file, a command, a library or a URL of the server, which is not allowed here"
        );
        let hint = "certificates and keys go into 'properties.ssl.ca.pem', 'properties.ssl.certificate.pem' and 'properties.ssl.key.pem'";
        return Err(RunError::user("option_not_allowed", message).hint(hint));
    }
    if all.get("bootstrap.servers").is_none_or(|servers| servers.trim().is_empty()) {
        let message = format!("cannot open table {table}: nothing says where the broker is");
        return Err(RunError::user("missing_option", message).hint("add 'properties.bootstrap.servers' = 'HOST:PORT'"));
    }
    let mut preset = |name: &str, value: &str| {
        all.entry(name.to_string()).or_insert_with(|| value.to_string());
    };
    // A broker that comes back is found again soon, and its idle connections close without ado.
    preset("reconnect.backoff.max.ms", "1000");
    preset("log.connection.close", "false");
    preset("client.id", "highwater");
    match role {
        Role::Consumer => {
            preset("group.id", "highwater");
            // A full queue would otherwise let the fetcher sleep for a second.
            preset("fetch.queue.backoff.ms", "10");
            for (name, value) in [
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                ("isolation.level", "read_committed"),
                ("auto.offset.reset", "error"),
                ("enable.partition.eof", "true"),
                ("allow.auto.create.topics", "false"),
            ] {
                all.insert(name.into(), value.into());
            }
        }
        Role::Producer => {
            preset("linger.ms", "1");
            preset("queue.buffering.max.kbytes", "65536");
            // Java's, so that a key is where other producers would have put it.
            all.insert("partitioner".into(), "murmur2_random".into());
            all.insert("enable.idempotence".into(), "true".into());
            all.insert("acks".into(), "all".into());
        }
    }
    Ok(all)
}

/// A client for a table.
///
/// # Errors
/// As of [`client_options`], and what librdkafka says of its options.
pub fn client(table: &str, options: &KafkaOptions, role: Role, around: &Surroundings) -> Result<Client, RunError> {
    let all = client_options(table, options, role, around)?;
    Client::new(role, &all, &around.egress).map_err(|reason| {
        let hint = match reason.contains("No such configuration property") || reason.contains("not supported") {
            true => "the names are librdkafka's; of Java's options those about passwords, stores and logins have others: sasl.username, sasl.password, ssl.ca.pem",
            false => "the meaning of each property is in librdkafka's CONFIGURATION.md",
        };
        // What is wrong with a value is told with the value.
        let secret = all.iter().filter(|(name, _)| is_secret_property(name));
        let reason = secret.fold(reason, |reason, (_, value)| reason.replace(value.as_str(), "***"));
        RunError::user("invalid_option", format!("cannot open table {table}: {reason}")).hint(hint)
    })
}

/// The registry's options, with what the connection says.
pub fn registry_options(options: &KafkaOptions, around: &Surroundings) -> AvroConfluentOptions {
    let connection = options.connection.as_ref().and_then(|name| around.connections.get(name));
    match connection {
        Some(connection) => options.avro.clone().filled_from(connection),
        None => options.avro.clone(),
    }
}

/// The schemas of a table's registry; `None` if its formats have none. Nothing is connected to.
///
/// # Errors
/// Options that cannot be used.
pub fn schemas(table: &str, options: &KafkaOptions, around: &Surroundings) -> Result<Option<Schemas>, RunError> {
    if !options.uses_registry() {
        return Ok(None);
    }
    match Schemas::open(&registry_options(options, around), allowed_by(&around.egress)) {
        Ok(schemas) => Ok(Some(schemas)),
        Err(error) => {
            let message = format!("cannot open table {table}: {}", error.message);
            Err(RunError { message, ..error })
        }
    }
}

/// Where the broker is said to be, for messages.
pub fn servers(options: &KafkaOptions, around: &Surroundings) -> String {
    let of_connection = || {
        let connection = around.connections.get(options.connection.as_ref()?)?;
        connection.get("properties.bootstrap.servers").cloned()
    };
    options.properties.0.get("properties.bootstrap.servers").cloned().or_else(of_connection).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Egress;
    use graph::SourceConnector;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn around(restricted: bool) -> Surroundings {
        let main = [("properties.bootstrap.servers", "b:9092"), ("properties.sasl.password", "hunter2")];
        let main = main.map(|(name, value)| (name.to_string(), value.to_string())).into();
        Surroundings {
            connections: Arc::new([("main".to_string(), main)].into()),
            egress: Egress::everywhere(),
            restricted,
        }
    }

    fn options(more: Value) -> KafkaOptions {
        let mut options = json!({"type": "kafka", "topic": "t"});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        match SourceConnector::from_options(options.as_object().unwrap(), "").unwrap() {
            SourceConnector::Kafka(options) => *options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn connections_are_merged_in_and_not_overridden() {
        let merged =
            client_options("t", &options(json!({"connection": "main"})), Role::Consumer, &around(true)).unwrap();
        assert_eq!((merged["bootstrap.servers"].as_str(), merged["sasl.password"].as_str()), ("b:9092", "hunter2"));
        for (more, code) in [
            (json!({"connection": "other"}), "unknown_connection"),
            (json!({"connection": "main", "properties.bootstrap.servers": "evil:9092"}), "option_not_allowed"),
        ] {
            assert_eq!(client_options("t", &options(more), Role::Consumer, &around(false)).unwrap_err().code, code);
        }
    }

    #[test]
    fn properties_that_reach_beyond_the_broker_are_refused_where_that_is_not_allowed() {
        for name in [
            "plugin.library.paths",
            "ssl.ca.location",
            "ssl.key.location",
            "ssl.keystore.location",
            "ssl.engine.location",
            "ssl.ca.certificate.stores",
            "sasl.kerberos.kinit.cmd",
            "sasl.kerberos.keytab",
            "sasl.oauthbearer.token.endpoint.url",
            "sasl.oauthbearer.assertion.private.key.file",
            "https.ca.location",
            "sasl.oauthbearer.metadata.authentication.type",
        ] {
            let one = options(json!({"properties.bootstrap.servers": "b:9092", (format!("properties.{name}")): "x"}));
            let error = client_options("t", &one, Role::Producer, &around(true)).unwrap_err();
            assert!(error.code == "option_not_allowed" && error.message.contains(name), "{error:?}");
            assert!(client_options("t", &one, Role::Producer, &around(false)).is_ok());
        }
    }

    #[test]
    fn what_librdkafka_says_of_options_is_passed_on_without_secrets() {
        for (more, part) in [
            (json!({"properties.no.such": "1"}), "No such configuration property: \"no.such\""),
            (json!({"properties.fetch.min.bytes": "many"}), "fetch.min.bytes"),
            (json!({"properties.sasl.jaas.config": "password=hunter2"}), "sasl.jaas.config"),
            (json!({"properties.security.protocol": "ssl", "properties.ssl.key.pem": "hunter2"}), "ssl.key.pem"),
        ] {
            let mut more = more;
            more["properties.bootstrap.servers"] = "b:9092".into();
            let error = match client("t", &options(more), Role::Consumer, &around(false)) {
                Err(error) => error,
                Ok(_) => panic!("{part}"),
            };
            assert!(error.code == "invalid_option" && error.message.contains(part), "{error:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }
}
