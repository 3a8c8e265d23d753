//! The options of Kafka tables, in Flink's names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::connector::{JsonTimestamps, Lenient, boolean, is_secret_option, optional_number, timestamps};
use crate::{AvroConfluentOptions, DataType, Period, Problem};

/// How a record's value or key is read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// One JSON object.
    #[default]
    Json,
    /// The bytes of the one column, which is BYTES or STRING.
    Raw,
    /// One record of Avro behind the id of its schema, which is in a registry.
    #[serde(rename = "avro-confluent")]
    AvroConfluent,
}

/// Where the reading of a topic's partitions begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartupMode {
    #[default]
    EarliestOffset,
    LatestOffset,
    /// At the first record with this timestamp or a later one.
    Timestamp,
    SpecificOffsets,
}

/// Where it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BoundedMode {
    #[default]
    Unbounded,
    /// Where the partitions end when the run starts.
    LatestOffset,
    /// Before the first record with this timestamp or a later one.
    Timestamp,
    SpecificOffsets,
}

/// What a sink promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryGuarantee {
    #[default]
    #[serde(alias = "at-least-once")]
    AtLeastOnce,
    #[serde(alias = "exactly-once")]
    ExactlyOnce,
}

/// Which partition gets a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Partitioner {
    /// By the hash of the key, as Java's client does; records without a key go anywhere.
    #[default]
    Default,
    RoundRobin,
    /// Each worker writes to one partition.
    Fixed,
}

/// Whether the columns of the key stand in the value, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FieldsInclude {
    #[default]
    #[serde(rename = "ALL", alias = "all")]
    All,
    #[serde(rename = "EXCEPT_KEY", alias = "except_key")]
    ExceptKey,
}

/// Offsets by partition: `partition:0,offset:42;partition:1,offset:300`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Offsets(#[schemars(with = "String")] String, #[serde(skip)] BTreeMap<i32, i64>);

impl Offsets {
    pub fn by_partition(&self) -> &BTreeMap<i32, i64> {
        &self.1
    }
}

impl<'de> Deserialize<'de> for Offsets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut offsets = BTreeMap::new();
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let read = part.split_once(',').and_then(|(partition, offset)| {
                let partition: i32 = partition.trim().strip_prefix("partition:")?.trim().parse().ok()?;
                let offset: i64 = offset.trim().strip_prefix("offset:")?.trim().parse().ok()?;
                (partition >= 0 && offset >= 0).then_some((partition, offset))
            });
            let Some((partition, offset)) = read else {
                let message = format!("{part:?} is not an offset; write partition:0,offset:42;partition:1,offset:300");
                return Err(de::Error::custom(message));
            };
            if offsets.insert(partition, offset).is_some() {
                return Err(de::Error::custom(format!("partition {partition} is given twice")));
            }
        }
        if offsets.is_empty() {
            return Err(de::Error::custom("no offset is given; write partition:0,offset:42"));
        }
        Ok(Offsets(text, offsets))
    }
}

/// Options named `properties.NAME`: librdkafka's own. Values that may be secrets are not shown.
#[derive(Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = BTreeMap::<String, Lenient>::deserialize(deserializer)?;
        Ok(Properties(read.into_iter().map(|(name, value)| (name, value.text())).collect()))
    }
}

impl Properties {
    /// Replaces the values that must not be shown.
    pub fn redact(&mut self) {
        for (_, value) in self.0.iter_mut().filter(|(name, _)| is_secret_option(name)) {
            *value = "***".into();
        }
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.clone();
        shown.redact();
        shown.0.fmt(f)
    }
}

/// Topics of Apache Kafka and what speaks its protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct KafkaOptions {
    /// A topic; for a source also several, with `;` between them.
    pub topic: String,
    /// A connection of the service, whose options are used where the table says nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<String>,
    /// How values are read and written. Default: `json`.
    #[serde(default)]
    pub format: RecordFormat,
    /// How JSON shows timestamps. Default: `SQL`.
    #[serde(rename = "json.timestamp-format.standard", default, deserialize_with = "timestamps")]
    pub json_timestamps: JsonTimestamps,
    /// Columns that stand in the record's key, `a;b`. Default: the primary key, if there is one.
    #[serde(rename = "key.fields", default, skip_serializing_if = "String::is_empty")]
    pub key_fields: String,
    /// How keys are read and written. Default: `json`.
    #[serde(rename = "key.format", default)]
    pub key_format: RecordFormat,
    /// Whether the value holds the columns of the key, too. Default: `ALL`.
    #[serde(rename = "value.fields-include", default)]
    pub value_fields: FieldsInclude,
    /// Default: `earliest-offset`.
    #[serde(rename = "scan.startup.mode", default)]
    pub startup_mode: StartupMode,
    /// Milliseconds since 1970, for `timestamp`.
    #[serde(
        rename = "scan.startup.timestamp-millis",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_number"
    )]
    pub startup_timestamp_ms: Option<u64>,
    /// For `specific-offsets`: `partition:0,offset:42;partition:1,offset:300`.
    #[serde(rename = "scan.startup.specific-offsets", default, skip_serializing_if = "Option::is_none")]
    pub startup_offsets: Option<Offsets>,
    /// The source is bounded iff this is another than `unbounded`. Default: `unbounded`.
    #[serde(rename = "scan.bounded.mode", default)]
    pub bounded_mode: BoundedMode,
    /// Milliseconds since 1970, for `timestamp`.
    #[serde(
        rename = "scan.bounded.timestamp-millis",
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "optional_number"
    )]
    pub bounded_timestamp_ms: Option<u64>,
    /// For `specific-offsets`: the first offset that is not read, by partition.
    #[serde(rename = "scan.bounded.specific-offsets", default, skip_serializing_if = "Option::is_none")]
    pub bounded_offsets: Option<Offsets>,
    /// How often an unbounded source looks for new partitions, and whether the topic is still the same; `0s` never. Default: 30s.
    #[serde(rename = "scan.topic-partition-discovery.interval", default = "discovery")]
    pub discovery_interval: Period,
    /// How long a run that starts waits for the broker and the topic. Default: 30s.
    #[serde(rename = "startup.timeout", default = "half_a_minute")]
    pub startup_timeout: Period,
    /// `exactly_once` needs a run that keeps checkpoints, and sends rows with them. Default: `at_least_once`.
    #[serde(default)]
    pub delivery: DeliveryGuarantee,
    /// Default: `default`.
    #[serde(rename = "sink.partitioner", default)]
    pub partitioner: Partitioner,
    /// Whether a sink sends rows only when their epoch is complete, also where it could send them at once. Default: false.
    #[serde(rename = "sink.whole-epochs", default, deserialize_with = "boolean")]
    pub whole_epochs: bool,
    /// The schema registry of the format `avro-confluent`.
    #[serde(flatten)]
    pub avro: AvroConfluentOptions,
    /// Any property of librdkafka, as `properties.NAME`: `properties.bootstrap.servers`, `properties.security.protocol`...
    #[serde(flatten)]
    pub properties: Properties,
}

fn discovery() -> Period {
    Period::from_secs(30)
}

fn half_a_minute() -> Period {
    Period::from_secs(30)
}

/// Columns that a record has beside its value and key, and their types.
const METADATA: &[(&str, &[&str])] = &[
    ("topic", &["STRING"]),
    ("partition", &["INT", "BIGINT"]),
    ("offset", &["BIGINT"]),
    ("timestamp", &["TIMESTAMP_LTZ(3)", "TIMESTAMP(3)", "TIMESTAMP_LTZ(6)", "TIMESTAMP(6)"]),
    ("timestamp-type", &["STRING"]),
    ("key", &["BYTES", "STRING"]),
    ("headers", &["MAP<STRING, BYTES>", "MAP<STRING, STRING>"]),
];

/// Those that a sink can write.
const WRITABLE: &[&str] = &["timestamp", "headers"];

impl KafkaOptions {
    /// The topics in their order, each once.
    pub fn topics(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let topics = self.topic.split(';').map(str::trim).filter(|topic| !topic.is_empty());
        topics.filter(|topic| seen.insert(*topic)).collect()
    }

    pub fn key_columns(&self) -> Vec<String> {
        self.key_fields.split(';').map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect()
    }

    /// Whether values or keys have their schemas in a registry.
    pub fn uses_registry(&self) -> bool {
        [self.format, self.key_format].contains(&RecordFormat::AvroConfluent)
    }

    pub fn is_bounded(&self) -> bool {
        self.bounded_mode != BoundedMode::Unbounded
    }

    /// Flink's other names for the same: `value.format`, `value.json.*`, `value.avro-confluent.*` and `sink.delivery-guarantee`.
    pub(crate) fn short(option: &str) -> &str {
        if option == "sink.delivery-guarantee" {
            return "delivery";
        }
        match option.strip_prefix("value.") {
            Some(short) if short == "format" || short.starts_with("json.") || short.starts_with("avro-confluent.") => {
                short
            }
            _ => option,
        }
    }

    /// The options by their short names; one that is given under both keeps its own.
    pub(crate) fn renamed(options: &Map<String, Value>) -> Map<String, Value> {
        let name = |name: &String| match Self::short(name) {
            short if options.contains_key(short) => name.clone(),
            short => short.to_string(),
        };
        options.iter().map(|(key, value)| (name(key), value.clone())).collect()
    }

    /// Names of the connections that the table uses.
    pub fn connections(&self) -> impl Iterator<Item = &str> {
        self.connection.iter().chain(&self.avro.connection).map(String::as_str)
    }

    /// Values that can be read, and make no sense.
    pub(crate) fn out_of_range(&self, sink: bool, at: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |code: &str, option: &str, message: String, hint: &str| {
            problems.push(Problem::new(code, message).hint(hint).pointer(format!("{at}/{option}")));
        };
        let topics = self.topics();
        if topics.is_empty() || (sink && topics.len() > 1) {
            let message = format!("topic is {:?}; it must name one topic", self.topic);
            wrong("invalid_option", "topic", message, "a source may read several, with ; between them");
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        for topic in topics {
            if topic.len() > 249 || !topic.chars().all(legal) || topic == "." || topic == ".." {
                let message = format!("{topic:?} is no name of a topic");
                wrong("invalid_option", "topic", message, "a name has letters, digits, '.', '_' and '-', at most 249");
            }
        }
        let given = [
            (
                "scan.startup.timestamp-millis",
                self.startup_mode == StartupMode::Timestamp,
                self.startup_timestamp_ms.is_some(),
                "scan.startup.mode' = 'timestamp",
            ),
            (
                "scan.startup.specific-offsets",
                self.startup_mode == StartupMode::SpecificOffsets,
                self.startup_offsets.is_some(),
                "scan.startup.mode' = 'specific-offsets",
            ),
            (
                "scan.bounded.timestamp-millis",
                self.bounded_mode == BoundedMode::Timestamp,
                self.bounded_timestamp_ms.is_some(),
                "scan.bounded.mode' = 'timestamp",
            ),
            (
                "scan.bounded.specific-offsets",
                self.bounded_mode == BoundedMode::SpecificOffsets,
                self.bounded_offsets.is_some(),
                "scan.bounded.mode' = 'specific-offsets",
            ),
        ];
        for (option, wanted, given, mode) in given {
            match (wanted, given) {
                (true, false) => wrong("missing_option", option, format!("'{mode}' needs '{option}'"), "add it"),
                (false, true) => {
                    wrong(
                        "invalid_option",
                        option,
                        format!("'{option}' is for '{mode}'"),
                        "remove it, or choose the mode",
                    );
                }
                _ => {}
            }
        }
        for (option, period) in [
            ("scan.topic-partition-discovery.interval", self.discovery_interval),
            ("startup.timeout", self.startup_timeout),
        ] {
            if period.us < 0 {
                wrong("invalid_option", option, format!("{option} is {period}; it must not be negative"), "write 30s");
            }
        }
        if !self.properties.0.contains_key("properties.bootstrap.servers") && self.connection.is_none() {
            wrong(
                "missing_option",
                "properties.bootstrap.servers",
                "neither 'properties.bootstrap.servers' nor 'connection' says where the broker is".into(),
                "add 'properties.bootstrap.servers' = 'HOST:PORT'",
            );
        }
        for name in self.properties.0.keys().filter_map(|name| name.strip_prefix("properties.")) {
            if let Some(hint) = ours(name) {
                wrong(
                    "invalid_option",
                    &format!("properties.{name}"),
                    format!("'properties.{name}' cannot be chosen"),
                    hint,
                );
            }
        }
        // A connection fills in what is missing, and is known only when the table is opened.
        if self.uses_registry() && self.connections().next().is_none() {
            problems.extend(self.avro.problems(at));
        }
        problems
    }

    /// The types that a metadata column may have; `None`: there is no such column.
    pub fn metadata_types(key: &str) -> Option<Vec<DataType>> {
        let (_, types) = METADATA.iter().find(|(name, _)| *name == key)?;
        Some(types.iter().map(|text| text.parse().expect("the types are SQL's")).collect())
    }

    pub fn metadata_names() -> impl Iterator<Item = &'static str> + Clone {
        METADATA.iter().map(|(name, _)| *name)
    }

    pub fn metadata_is_writable(key: &str) -> bool {
        WRITABLE.contains(&key)
    }
}

/// Properties on which the meaning of a run rests; what to do instead.
fn ours(name: &str) -> Option<&'static str> {
    Some(match name {
        "enable.auto.commit" | "enable.auto.offset.store" | "auto.commit.interval.ms" | "enable.partition.eof" => {
            "positions are kept by the run, not by the broker"
        }
        "auto.offset.reset" => {
            "write 'scan.startup.mode'; a position that is gone fails the run, for it would lose records silently"
        }
        "isolation.level" => "records of open and aborted transactions are never read",
        "enable.idempotence" | "acks" | "request.required.acks" => "a delivery is confirmed by all replicas",
        "transactional.id" => "write 'delivery' = 'exactly_once': the id follows from job and sink",
        "partitioner" => "write 'sink.partitioner'",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SinkConnector, SourceConnector};
    use serde_json::json;

    fn options(more: Value) -> Map<String, Value> {
        let mut options = json!({"type": "kafka", "topic": "bids", "properties.bootstrap.servers": "h:9092"});
        options.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        options.as_object().cloned().unwrap_or_default()
    }

    fn wrong(more: Value) -> String {
        let problems = SourceConnector::from_options(&options(more.clone()), "").expect_err(&more.to_string());
        problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn flinks_options_are_read() {
        let read = SourceConnector::from_options(
            &options(json!({"value.format": "json", "value.json.timestamp-format.standard": "ISO-8601",
                "scan.startup.mode": "specific-offsets",
                "scan.startup.specific-offsets": "partition:0,offset:42;partition:1,offset:300",
                "scan.bounded.mode": "latest-offset", "properties.fetch.min.bytes": 7, "properties.group.id": "g",
                "key.fields": "a;b", "value.fields-include": "EXCEPT_KEY"})),
            "",
        );
        let Ok(SourceConnector::Kafka(kafka)) = &read else { panic!("{read:?}") };
        assert_eq!(kafka.json_timestamps, JsonTimestamps::Iso8601);
        assert_eq!(kafka.startup_offsets.as_ref().map(|o| o.by_partition().clone()), Some([(0, 42), (1, 300)].into()));
        assert_eq!(kafka.key_columns(), ["a", "b"]);
        assert_eq!(kafka.properties.0["properties.fetch.min.bytes"], "7");
        assert!(read.as_ref().is_ok_and(SourceConnector::is_bounded), "an end makes the source bounded");
        // A graph is shipped as JSON.
        let text = serde_json::to_value(read.as_ref().expect("read")).expect("plain data");
        assert_eq!(SourceConnector::from_options(text.as_object().expect("an object"), "").as_ref(), read.as_ref());
    }

    #[test]
    fn a_registry_stands_beside_the_properties() {
        let avro = json!({"value.format": "avro-confluent", "key.format": "avro-confluent",
            "value.avro-confluent.url": "http://r:8081", "key.avro-confluent.subject": "k",
            "avro-confluent.basic-auth.user-info": "u:hunter2", "properties.fetch.min.bytes": 7});
        let read = SourceConnector::from_options(&options(avro), "");
        let Ok(SourceConnector::Kafka(kafka)) = &read else { panic!("{read:?}") };
        assert_eq!((kafka.format, kafka.key_format), (RecordFormat::AvroConfluent, RecordFormat::AvroConfluent));
        assert_eq!(kafka.avro.url.as_deref(), Some("http://r:8081"));
        assert_eq!(kafka.avro.key_subject.as_deref(), Some("k"));
        let names: Vec<&str> = kafka.properties.0.keys().map(String::as_str).collect();
        assert_eq!(names, ["properties.bootstrap.servers", "properties.fetch.min.bytes"], "each option has one place");
        let shipped = serde_json::to_value(read.as_ref().expect("read")).expect("plain data");
        assert_eq!(SourceConnector::from_options(shipped.as_object().expect("an object"), "").as_ref(), read.as_ref());
        for (more, expected) in [
            (json!({"format": "avro-confluent"}), "/avro-confluent.url: the format avro-confluent needs the URL"),
            (json!({"key.format": "avro-confluent", "avro-confluent.url": "r:1"}), "the URL of the schema registry"),
            (
                json!({"format": "avro-confluent", "avro-confluent.ulr": "http://r:1"}),
                "did you mean avro-confluent.url?",
            ),
            (json!({"format": "avro"}), "there is avro-confluent, json, raw"),
        ] {
            assert!(wrong(more.clone()).contains(expected), "{more}: {}", wrong(more.clone()));
        }
        let of_connection = json!({"connection": "main", "format": "avro-confluent"});
        assert!(SinkConnector::from_options(&options(of_connection), "").is_ok());
        let schema = crate::connector::option_schema("kafka", true);
        assert!(schema["properties"]["avro-confluent.url"].is_object(), "{schema}");
        assert!(schema["additionalProperties"].is_object(), "{schema}");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (more, expected) in [
            (json!({"topic": "a b"}), "/topic: \"a b\" is no name of a topic"),
            (json!({"topic": ";"}), "it must name one topic"),
            (json!({"scan.startup.mode": "timestamp"}), "needs 'scan.startup.timestamp-millis'"),
            (json!({"scan.bounded.timestamp-millis": 5}), "is for 'scan.bounded.mode' = 'timestamp'"),
            (json!({"scan.startup.mode": "group-offsets"}), "none of the names that can stand here"),
            (
                json!({"scan.startup.mode": "specific-offsets", "scan.startup.specific-offsets": "0:5"}),
                "\"0:5\" is not an offset",
            ),
            (json!({"delivery": "exactly_onse"}), "none of the names that can stand here"),
            (json!({"properties.transactional.id": "t"}), "write 'delivery' = 'exactly_once'"),
            (json!({"properties.auto.offset.reset": "latest"}), "write 'scan.startup.mode'"),
            (json!({"scan.startup.mod": "timestamp"}), "did you mean scan.startup.mode?"),
            (json!({"property.x": "y"}), "there is no option \"property.x\""),
        ] {
            assert!(wrong(more.clone()).contains(expected), "{more}: {}", wrong(more.clone()));
        }
        let mut none = options(json!({}));
        none.remove("properties.bootstrap.servers");
        assert!(SinkConnector::from_options(&none, "").is_err());
        none.insert("connection".into(), "main".into());
        assert!(SinkConnector::from_options(&none, "").is_ok());
        assert!(SinkConnector::from_options(&options(json!({"topic": "a;b"})), "").is_err(), "a sink has one topic");
    }

    #[test]
    fn a_delivery_has_two_names_in_two_spellings() {
        for (more, expected) in [
            (json!({}), DeliveryGuarantee::AtLeastOnce),
            (json!({"delivery": "exactly_once"}), DeliveryGuarantee::ExactlyOnce),
            (json!({"sink.delivery-guarantee": "exactly-once"}), DeliveryGuarantee::ExactlyOnce),
            (json!({"sink.delivery-guarantee": "at-least-once"}), DeliveryGuarantee::AtLeastOnce),
        ] {
            let read = SinkConnector::from_options(&options(more.clone()), "");
            let Ok(SinkConnector::Kafka(kafka)) = &read else { panic!("{more}: {read:?}") };
            assert_eq!(kafka.delivery, expected, "{more}");
        }
        assert!(
            SinkConnector::from_options(
                &options(json!({"delivery": "at_least_once", "sink.delivery-guarantee": "exactly-once"})),
                ""
            )
            .is_err()
        );
    }

    #[test]
    fn a_topic_is_read_once() {
        let read = SourceConnector::from_options(&options(json!({"topic": "b; a;b ;c;a"})), "");
        let Ok(SourceConnector::Kafka(kafka)) = &read else { panic!("{read:?}") };
        assert_eq!(kafka.topics(), ["b", "a", "c"]);
    }

    #[test]
    fn secrets_are_not_shown() {
        let read = SourceConnector::from_options(
            &options(json!({"properties.sasl.password": "hunter2", "properties.ssl.key.pem": "hunter2"})),
            "",
        );
        let shown = format!("{read:?}");
        assert!(shown.contains("bids") && !shown.contains("hunter2"), "{shown}");
    }
}
