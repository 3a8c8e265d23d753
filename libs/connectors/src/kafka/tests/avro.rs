//! Values and keys whose schemas are in a registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{RecordBatch, UInt8Array};
use engine::{Batch, CommitKind, RunError, Sink, SinkContext};
use expr::arrow_schema;
use formats::RecordDecoder;
use formats::avro::schema_id;
use formats::json::{JsonOptions, Scanner};
use graph::SinkConnector;
use serde_json::{Value, json};
use test_support::kafka::shared;
use test_support::process::free_port;
use test_support::registry::SchemaRegistry;

use super::super::KafkaSink;
use super::{Surroundings, around, open_in, run, table};
use crate::Egress;
use crate::testing::sinks::{LAST, prepare, sink_node, writer};
use crate::testing::{by_split, collect, column, starts, texts};

const EPOCH: CommitKind = CommitKind { checkpoint: false, last: false };

/// Options of a table over a topic whose values are messages of the registry.
fn avro(topic: &str, url: &str, more: Value) -> Value {
    let mut options = table(shared(), topic, json!({"format": "avro-confluent", "avro-confluent.url": url}));
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    options
}

/// Rows of the columns, from JSON.
fn rows(columns: &[&str], lines: &[&str]) -> RecordBatch {
    let columns: Vec<_> = columns.iter().map(|text| column(text)).collect();
    let mut scanner = Scanner::new(arrow_schema(&graph::Schema::new(columns)), JsonOptions::default()).unwrap();
    for line in lines {
        scanner.decode_record(line.as_bytes()).unwrap_or_else(|bad| panic!("{line}: {}", bad.message));
    }
    scanner.flush().batch
}

fn sink(options: Value, columns: &[&str], key: &[&str], around: Surroundings) -> Result<Arc<dyn Sink>, RunError> {
    let mut node = sink_node(options, &[]);
    node.columns = columns.iter().map(|text| column(text)).collect();
    node.primary_key = key.iter().map(|name| name.to_string()).collect();
    let SinkConnector::Kafka(options) = &node.connector else { panic!("no kafka") };
    let context = SinkContext {
        run_id: "run".into(),
        bounded: false,
        updating: !key.is_empty(),
        stateless: key.is_empty(),
        operator: "sink".into(),
        durable: false,
    };
    let schema = arrow_schema(&graph::Schema::new(node.columns.clone()));
    Ok(Arc::new(KafkaSink::open(&node, options, schema, context, around)?))
}

/// Writes inserts as a whole run.
async fn written(sink: Arc<dyn Sink>, rows: &RecordBatch) -> Result<u64, RunError> {
    let mut one = writer(&sink, &rows.schema(), 0, 1);
    one.write(Batch::inserts(rows.clone()))?;
    prepare(&mut one, 1, LAST).await.map(|committable| committable.rows)
}

/// `offset: row` and `offset! code` of a topic of one partition.
async fn read(options: Value, columns: &[&str], around: Surroundings) -> Result<Vec<String>, RunError> {
    let source = open_in(options, columns, &[], around)?;
    let splits = source.splits().await?;
    Ok(by_split(&collect(&source, starts(&splits), 1000).await?).remove(&0).unwrap_or_default())
}

#[test]
fn every_type_comes_back() {
    let registry = SchemaRegistry::start();
    let topic = shared().topic("avro-types", 1);
    let columns = [
        "id BIGINT NOT NULL",
        "flag BOOLEAN",
        "tiny TINYINT",
        "small SMALLINT",
        "n INT",
        "x FLOAT",
        "y DOUBLE",
        "name STRING",
        "raw BYTES",
        "price DECIMAL(20, 4)",
        "day DATE",
        "clock TIME",
        "at0 TIMESTAMP(0)",
        "at TIMESTAMP(3)",
        "at6 TIMESTAMP(6)",
        "zoned TIMESTAMP_LTZ(3)",
        "list ARRAY<INT>",
        "map MAP<STRING, DOUBLE>",
        "deep ROW<a BIGINT, b ROW<c STRING>, d ARRAY<STRING>>",
    ];
    let full = r#"{"id":1,"flag":true,"tiny":-128,"small":32767,"n":-5,"x":1.5,"y":-2.25,"name":"grün\n\"","raw":"AAECAw==",
        "price":-1234567890123.4567,"day":"1969-12-31","clock":"12:34:56","at0":"2024-02-29 01:02:03","at":"2024-02-29 01:02:03.456",
        "at6":"1960-02-29 01:02:03.456789","zoned":"2024-02-29 01:02:03.456Z","list":[1,null,-3],"map":{"a":1.5,"b":null},
        "deep":{"a":7,"b":{"c":"x"},"d":["y",null]}}"#;
    let empty = r#"{"id":-9223372036854775808,"name":"","list":[],"map":{},"deep":{"a":null,"b":null,"d":[]}}"#;
    let all = rows(&columns, &[full, empty, r#"{"id":3}"#]);
    run(async {
        let options = avro(&topic, &registry.url(), json!({}));
        // The next request is answered after this one has been tried again.
        registry.fail_with([503]);
        let sink = sink(options.clone(), &columns, &[], around()).unwrap();
        assert_eq!(written(sink, &all).await.unwrap(), 3);
        let expected: Vec<String> =
            texts(&all).into_iter().enumerate().map(|(at, row)| format!("{at}: {row}")).collect();
        assert_eq!(read(options, &columns, around()).await.unwrap(), expected);
    });
    let schema: Value = serde_json::from_str(&registry.latest(&format!("{topic}-value")).unwrap()).unwrap();
    assert_eq!((schema["name"].as_str(), schema["fields"][0]["type"].as_str()), (Some("out"), Some("long")));
    assert!(schema["fields"][1]["type"][0] == "null", "what the table lets be NULL is nullable: {schema}");
    for message in shared().messages(&topic) {
        assert_eq!((message.0, schema_id(&message.1.unwrap())), (None, Some(1)), "behind the id that was given");
    }
    let asked = registry.requests().iter().filter(|request| request.starts_with("GET /schemas/ids/1")).count();
    assert_eq!(asked, 1, "a schema is fetched once: {:?}", registry.requests());
}

#[test]
fn versions_stand_side_by_side_and_what_has_no_schema_is_a_bad_record() {
    let registry = SchemaRegistry::start();
    let topic = shared().topic("avro-evolution", 1);
    let subject = format!("{topic}-value");
    let one = registry.put(&subject, r#"{"type":"record","name":"R","fields":[{"name":"n","type":"int"}]}"#);
    let two = registry.put(
        &subject,
        r#"{"type":"record","name":"R","fields":[{"name":"s","type":["null","string"],"default":null},{"name":"n","type":"long"}]}"#,
    );
    let text = registry.put(&subject, r#"{"type":"record","name":"R","fields":[{"name":"n","type":"string"}]}"#);
    let framed = |id: u32, record: &[u8]| [&[0][..], &id.to_be_bytes(), record].concat();
    let messages = [
        framed(one, &[14]),
        framed(two, &[2, 4, b'h', b'i', 16]),
        framed(one, &[18]),
        framed(77, &[14]),
        framed(text, &[2, b'x']),
        b"{\"n\":1}".to_vec(),
        framed(two, &[0]),
        framed(77, &[14]),
        framed(two, &[0, 20]),
    ];
    let mut records: Vec<_> = messages.iter().map(|message| (None, Some(message.as_slice()))).collect();
    records.push((None, None));
    shared().produce_bytes(&topic, 0, &records);
    let found = run(read(avro(&topic, &registry.url(), json!({})), &["n BIGINT", "s STRING"], around())).unwrap();
    assert_eq!(
        found,
        [
            "0: 7|NULL",
            "1: 8|hi",
            "2: 9|NULL",
            "3! schema_unknown",
            "4! schema_mismatch",
            "5! framing",
            "6! truncated",
            "7! schema_unknown",
            "8: 10|NULL",
            "9! no_value"
        ]
    );
    let asked = registry.requests().iter().filter(|request| request.starts_with("GET /schemas/ids/77")).count();
    assert_eq!(asked, 1, "also that there is none is asked once");
}

#[test]
fn a_registry_that_is_away_or_refuses_ends_the_run() {
    let topic = shared().topic("avro-away", 1);
    let columns = ["n BIGINT"];
    let nobody = format!("http://127.0.0.1:{}", free_port());
    shared().produce_bytes(&topic, 0, &[(None, Some(&[0, 0, 0, 0, 1, 14]))]);
    let both = |more: Value, url: &str, around: Surroundings| {
        run(async {
            let begun = Instant::now();
            let options = avro(&topic, url, more);
            let reading = read(options.clone(), &columns, around.clone()).await.unwrap_err();
            let writing = match sink(options, &columns, &[], around) {
                Ok(sink) => written(sink, &rows(&columns, &[r#"{"n":1}"#])).await.unwrap_err(),
                Err(error) => error,
            };
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
            assert!(reading.message.contains("table t:") && writing.message.contains("table out:"));
            assert_eq!((&reading.code, reading.fault), (&writing.code, writing.fault));
            assert_eq!(shared().records(&topic).len(), 1, "nothing is written without a schema");
            (reading.code.clone(), format!("{reading:?} {writing:?}"))
        })
    };
    let (code, said) = both(json!({}), &nobody, around());
    assert!(code == "registry_unreachable" && said.contains(&nobody), "{said}");

    // Base64 of u:right.
    let registry = SchemaRegistry::start_closed("Basic dTpyaWdodA==");
    registry.put("other", r#"{"type":"record","name":"R","fields":[{"name":"n","type":"long"}]}"#);
    let wrong = json!({"avro-confluent.basic-auth.user-info": "u:hunter2"});
    let (code, said) = both(wrong, &registry.url(), around());
    assert!(code == "registry_denied" && !said.contains("hunter2"), "{said}");
    let broker_only = Egress { allowed: vec![shared().servers()], ..Egress::default() };
    let broker_only = Surroundings { egress: broker_only, ..around() };
    let (code, said) = both(json!({}), &registry.url(), broker_only);
    assert!(code == "location_not_allowed" && said.contains(&registry.url()), "{said}");

    // Credentials of a connection go to its registry, and to no other.
    let connection = [
        ("properties.bootstrap.servers", shared().servers()),
        ("avro-confluent.url", registry.url()),
        ("avro-confluent.basic-auth.user-info", "u:right".to_string()),
    ];
    let connection = connection.map(|(name, value)| (name.to_string(), value)).into();
    let around = Surroundings { connections: Arc::new([("main".to_string(), connection)].into()), ..around() };
    let options = |more: Value| {
        let mut options = avro(&topic, "", json!({"connection": "main"}));
        let object = options.as_object_mut().unwrap();
        object.remove("avro-confluent.url");
        object.remove("properties.bootstrap.servers");
        object.extend(more.as_object().unwrap().clone());
        options
    };
    assert_eq!(run(read(options(json!({})), &columns, around.clone())).unwrap(), ["0: 7"]);
    let other = SchemaRegistry::start_closed("Basic dTpyaWdodA==");
    let error = run(read(options(json!({"avro-confluent.url": other.url()})), &columns, around)).unwrap_err();
    assert_eq!(error.code, "registry_denied");
}

#[test]
fn upserts_have_keys_of_a_schema_and_tombstones() {
    let registry = SchemaRegistry::start();
    let topic = shared().topic("avro-upserts", 1);
    let columns = ["id BIGINT NOT NULL", "name STRING"];
    let more = json!({"key.format": "avro-confluent", "value.fields-include": "EXCEPT_KEY",
        "key.avro-confluent.subject": "keys", "avro-confluent.subject": "values"});
    // So that key and value have different ids, neither of which is the first.
    registry.put("other", r#"{"type":"record","name":"R","fields":[]}"#);
    run(async {
        let sink = sink(avro(&topic, &registry.url(), more.clone()), &columns, &["id"], around()).unwrap();
        let lines = [(1, "a"), (2, "a"), (1, "b"), (3, "x"), (3, "x")];
        let lines = lines.map(|(id, name)| format!(r#"{{"id":{id},"name":"{name}"}}"#));
        let all = rows(&columns, &lines.each_ref().map(String::as_str));
        let mut one = writer(&sink, &all.schema(), 0, 1);
        // +I 1, +I 2, +U 1, +I 3, -D 3
        one.write(Batch::changes(all, UInt8Array::from(vec![0, 0, 2, 0, 3]))).unwrap();
        prepare(&mut one, 1, EPOCH).await.unwrap();
        let gone = rows(&columns, &[r#"{"id":2,"name":"a"}"#]);
        one.write(Batch::changes(gone, UInt8Array::from(vec![3]))).unwrap();
        prepare(&mut one, 2, LAST).await.unwrap();
    });
    let key = |id: u8| vec![0, 0, 0, 0, 2, 2 * id];
    let value = |name: u8| Some(vec![0, 0, 0, 0, 3, 2, 2, name]);
    let found = shared().messages(&topic);
    // Of the third, which came and went, nothing.
    assert_eq!(found, [(Some(key(2)), value(b'a')), (Some(key(1)), value(b'b')), (Some(key(2)), None)]);
    assert!(registry.latest("keys").unwrap().contains("\"out_key\""), "{:?}", registry.latest("keys"));
    let mut reading = more;
    reading["key.fields"] = "id".into();
    let found = run(read(avro(&topic, &registry.url(), reading), &columns, around())).unwrap();
    assert_eq!(found, ["0: 2|a", "1: 1|b", "2! no_value"]);
    // What a subject's schemas are not compatible with is not written.
    let error = run(async {
        let columns = ["id BIGINT NOT NULL", "name BIGINT"];
        let more = json!({"avro-confluent.subject": "values"});
        let sink = sink(avro(&topic, &registry.url(), more), &columns, &[], around()).unwrap();
        written(sink, &rows(&columns, &[r#"{"id":1}"#])).await.unwrap_err()
    });
    assert_eq!(error.code, "schema_incompatible");
    let error = sink(avro(&topic, &registry.url(), json!({})), &["a BIGINT", "my-col INT"], &[], around());
    assert!(error.is_err_and(|error| error.code == "invalid_option" && error.message.contains("my-col")));
}
