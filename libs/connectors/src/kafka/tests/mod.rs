//! Against a real broker.
#![allow(clippy::unwrap_used)]

mod avro;
mod exactly;
mod failures;
mod sinks;
mod sources;

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::{RunError, Source};
use graph::SourceConnector;
use serde_json::{Value, json};
use test_support::kafka::{Kafka, Record};

use super::{KafkaSource, Surroundings};
use crate::Egress;
use crate::testing::{all_columns, source_node};

/// As the other tests do it, with the patience that starting a broker takes on a busy machine.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let limit = std::time::Duration::from_secs(240);
    let result = runtime.block_on(async { tokio::time::timeout(limit, future).await.expect("it takes too long") });
    runtime.shutdown_background();
    result
}

fn around() -> Surroundings {
    Surroundings { connections: Arc::default(), egress: Egress::everywhere(), restricted: false }
}

/// Options of a bounded table over a topic.
fn table(kafka: &Kafka, topic: &str, more: Value) -> Value {
    let mut options = json!({"type": "kafka", "topic": topic, "properties.bootstrap.servers": kafka.servers(),
        "scan.bounded.mode": "latest-offset"});
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

fn open_in(
    options: Value,
    columns: &[&str],
    metadata: &[(&str, &str)],
    around: Surroundings,
) -> Result<Arc<dyn Source>, RunError> {
    let mut node = source_node(options, columns, &[]);
    node.metadata = metadata.iter().map(|(name, key)| (name.to_string(), key.to_string())).collect::<BTreeMap<_, _>>();
    let SourceConnector::Kafka(options) = &node.connector else { panic!("no kafka") };
    Ok(Arc::new(KafkaSource::open(&node, options, all_columns(&node), around)?))
}

fn open(options: Value, columns: &[&str]) -> Arc<dyn Source> {
    open_in(options, columns, &[], around()).unwrap()
}

/// Records `{"n":N}`, dealt to the partitions in turn.
fn numbers(range: std::ops::Range<i32>, partitions: i32) -> Vec<Record> {
    range.map(|n| Record::value(n % partitions, format!(r#"{{"n":{n}}}"#))).collect()
}
