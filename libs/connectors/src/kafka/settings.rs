//! From a table's options to librdkafka's.

use std::collections::BTreeMap;

use engine::RunError;
use graph::connector::is_secret_option;
use graph::{AvroConfluentOptions, KafkaOptions};

use super::Surroundings;
use super::native::{Client, Role};
use crate::http::allowed_by;
use crate::registry::Schemas;

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

/// Properties of which librdkafka has two names: an alias, and what it stands for.
const ALIASES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("sasl.mechanism", "sasl.mechanisms"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("compression.type", "compression.codec"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

/// Beginnings of the names of properties that say where to connect to, and as whom: with a connection they are its own.
const OF_CONNECTIONS: &[&str] =
    &["bootstrap.", "broker.", "client.dns.", "security.", "sasl.", "enable.sasl.", "ssl.", "enable.ssl.", "https."];

/// The one name of a property.
fn canonical(property: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == property).map_or(property, |(_, name)| name)
}

/// librdkafka's properties among options.
fn properties(options: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    options.iter().filter_map(|(key, value)| Some((key.strip_prefix("properties.")?, value.as_str())))
}

fn put(all: &mut BTreeMap<String, String>, table: &str, property: &str, value: &str) -> Result<(), RunError> {
    match all.insert(canonical(property).to_string(), value.to_string()) {
        None => Ok(()),
        Some(_) => {
            let message =
                format!("cannot open table {table}: 'properties.{property}' is set twice, or by its connection");
            Err(RunError::user("option_not_allowed", message).hint("remove it from the table's options"))
        }
    }
}

fn connection<'a>(table: &str, name: &str, around: &'a Surroundings) -> Result<&'a BTreeMap<String, String>, RunError> {
    around.connections.get(name).ok_or_else(|| {
        let message = format!("cannot open table {table}: there is no connection '{name}'");
        RunError::user("unknown_connection", message)
            .hint("create the connection first, or write its options into the table")
    })
}

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
    let mut all = BTreeMap::new();
    if let Some(name) = &options.connection {
        for (property, value) in properties(connection(table, name, around)?) {
            put(&mut all, table, property, value)?;
        }
    }
    for (property, value) in properties(&options.properties.0) {
        // Otherwise whoever may use a connection could have its secrets sent to a server of his own.
        if options.connection.is_some() && OF_CONNECTIONS.iter().any(|part| canonical(property).starts_with(part)) {
            let message = format!(
                "cannot open table {table}: 'properties.{property}' says where to connect to or as whom, which its connection does"
            );
            return Err(RunError::user("option_not_allowed", message).hint("remove it from the table's options"));
        }
        put(&mut all, table, property, value)?;
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
    made(table, role, &client_options(table, options, role, around)?, around)
}

/// How long a transaction may last, milliseconds, unless the table says otherwise. What an expired one held is sent again.
const TRANSACTION_MS: u64 = 60_000;

/// librdkafka's options for the producer of a table's transactions, and how long one of them may last, milliseconds.
///
/// # Errors
/// As of [`client_options`].
pub fn transactional_options(
    table: &str,
    options: &KafkaOptions,
    id: &str,
    around: &Surroundings,
) -> Result<(BTreeMap<String, String>, u64), RunError> {
    let mut all = client_options(table, options, Role::Producer, around)?;
    let number = |all: &BTreeMap<String, String>, name: &str| all.get(name).and_then(|value| value.parse::<u64>().ok());
    let limit_ms = number(&all, "transaction.timeout.ms").unwrap_or(TRANSACTION_MS);
    all.entry("transaction.timeout.ms".into()).or_insert_with(|| limit_ms.to_string());
    all.insert("transactional.id".into(), id.to_string());
    // Back to back, a transaction finds the one before still being ended: it should not wait long for that.
    all.entry("retry.backoff.ms".into()).or_insert_with(|| "10".into());
    // Nothing is tried for longer than the transaction lasts; librdkafka refuses other settings.
    for (name, most_ms) in [("message.timeout.ms", limit_ms), ("socket.timeout.ms", limit_ms.saturating_sub(100))] {
        if number(&all, name).is_some_and(|given| given > most_ms) {
            all.insert(name.into(), most_ms.to_string());
        }
    }
    Ok((all, limit_ms))
}

/// The producer of a table's transactions, and how long one of them may last, milliseconds.
///
/// # Errors
/// As of [`client`].
pub fn transactional_client(
    table: &str,
    options: &KafkaOptions,
    id: &str,
    around: &Surroundings,
) -> Result<(Client, u64), RunError> {
    let (all, limit_ms) = transactional_options(table, options, id, around)?;
    Ok((made(table, Role::Producer, &all, around)?, limit_ms))
}

/// A consumer that is no member of a group, and reads its offsets.
///
/// # Errors
/// As of [`client`].
pub fn group_client(
    table: &str,
    options: &KafkaOptions,
    group: &str,
    around: &Surroundings,
) -> Result<Client, RunError> {
    let mut all = client_options(table, options, Role::Consumer, around)?;
    all.insert("group.id".into(), group.to_string());
    made(table, Role::Consumer, &all, around)
}

fn made(table: &str, role: Role, all: &BTreeMap<String, String>, around: &Surroundings) -> Result<Client, RunError> {
    Client::new(role, all, &around.egress).map_err(|reason| {
        let hint = match reason.contains("No such configuration property") || reason.contains("not supported") {
            true => "the names are librdkafka's; of Java's options those about passwords, stores and logins have others: sasl.username, sasl.password, ssl.ca.pem",
            false => "the meaning of each property is in librdkafka's CONFIGURATION.md",
        };
        // What is wrong with a value is told with the value.
        let secret = all.iter().filter(|(name, value)| is_secret_option(name) && !value.is_empty());
        let reason = secret.fold(reason, |reason, (_, value)| reason.replace(value.as_str(), "***"));
        RunError::user("invalid_option", format!("cannot open table {table}: {reason}")).hint(hint)
    })
}

/// The registry's options, with what its connection says, or that of the table.
pub fn registry_options(options: &KafkaOptions, around: &Surroundings) -> AvroConfluentOptions {
    let name = options.avro.connection.as_ref().or(options.connection.as_ref());
    match name.and_then(|name| around.connections.get(name)) {
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
    if let Some(name) = &options.avro.connection {
        connection(table, name, around)?;
    }
    match Schemas::open(&registry_options(options, around), allowed_by(&around.egress)) {
        Ok(schemas) => Ok(Some(schemas)),
        Err(error) => {
            let message = format!("cannot open table {table}: {}", error.message);
            Err(RunError { message, ..error })
        }
    }
}

/// Where the broker is said to be.
pub fn servers(options: &KafkaOptions, around: &Surroundings) -> String {
    let of_connection = options.connection.as_ref().and_then(|name| around.connections.get(name));
    let mut all = of_connection.into_iter().chain([&options.properties.0]).flat_map(properties);
    let found = all.find(|(property, _)| canonical(property) == "bootstrap.servers");
    found.map(|(_, servers)| servers.to_string()).unwrap_or_default()
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
        let options = |all: &[(&str, &str)]| {
            all.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<BTreeMap<_, _>>()
        };
        let main = options(&[("properties.metadata.broker.list", "b:9092"), ("properties.sasl.password", "hunter2")]);
        let secrets = options(&[("properties.sasl.password", "hunter2"), ("properties.fetch.min.bytes", "7")]);
        let registry =
            options(&[("avro-confluent.url", "http://r:1"), ("avro-confluent.bearer-auth.token", "hunter2")]);
        let connections = [("main", main), ("secrets", secrets), ("registry", registry)];
        Surroundings {
            connections: Arc::new(connections.map(|(name, options)| (name.to_string(), options)).into()),
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
        assert_eq!(servers(&options(json!({"connection": "main"})), &around(true)), "b:9092");
        for (more, code) in [
            (json!({"connection": "other"}), "unknown_connection"),
            (json!({"connection": "main", "properties.bootstrap.servers": "evil:9092"}), "option_not_allowed"),
            (json!({"connection": "main", "properties.metadata.broker.list": "evil:9092"}), "option_not_allowed"),
            // Also where the connection says nothing about it.
            (json!({"connection": "secrets", "properties.bootstrap.servers": "evil:9092"}), "option_not_allowed"),
            (json!({"connection": "secrets", "properties.metadata.broker.list": "evil:9092"}), "option_not_allowed"),
            (json!({"connection": "main", "properties.sasl.mechanism": "PLAIN"}), "option_not_allowed"),
            (json!({"connection": "main", "properties.security.protocol": "plaintext"}), "option_not_allowed"),
            (
                json!({"connection": "main", "properties.ssl.endpoint.identification.algorithm": "none"}),
                "option_not_allowed",
            ),
            (
                json!({"connection": "main", "properties.enable.ssl.certificate.verification": "false"}),
                "option_not_allowed",
            ),
            (json!({"connection": "secrets", "properties.fetch.min.bytes": "8"}), "option_not_allowed"),
            (
                json!({"properties.bootstrap.servers": "b:1", "properties.metadata.broker.list": "c:1"}),
                "option_not_allowed",
            ),
        ] {
            let error = client_options("t", &options(more.clone()), Role::Consumer, &around(false)).unwrap_err();
            assert_eq!(error.code, code, "{more}");
        }
        let more = json!({"connection": "main", "properties.fetch.min.bytes": "8"});
        assert!(client_options("t", &options(more), Role::Consumer, &around(true)).is_ok());
    }

    #[test]
    fn a_registry_may_have_a_connection_of_its_own() {
        let of = |more: Value| {
            let mut all = json!({"connection": "main", "format": "avro-confluent"});
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            registry_options(&options(all), &around(true))
        };
        let named = of(json!({"avro-confluent.connection": "registry"}));
        assert_eq!((named.url.as_deref(), named.token.is_some()), (Some("http://r:1"), true));
        let elsewhere = of(json!({"avro-confluent.connection": "registry", "avro-confluent.url": "http://evil:1"}));
        assert_eq!((elsewhere.url.as_deref(), elsewhere.token.is_some()), (Some("http://evil:1"), false));
        let unknown = json!({"connection": "main", "format": "avro-confluent", "avro-confluent.connection": "none"});
        assert_eq!(schemas("t", &options(unknown), &around(true)).err().unwrap().code, "unknown_connection");
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
            (json!({"properties.sasl.password": "", "properties.no.such": "1"}), "configuration property: \"no.such\""),
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
