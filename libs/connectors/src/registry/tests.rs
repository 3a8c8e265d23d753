#![allow(clippy::unwrap_used)]

use std::net::TcpListener;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use formats::RecordDecoder;
use formats::avro::{MessageEncoder, SCHEMA_NEEDED};
use graph::Secret;
use test_support::registry::SchemaRegistry;

use super::*;

fn everywhere() -> Allows {
    Arc::new(|_, _, _| true)
}

fn options(url: String) -> AvroConfluentOptions {
    AvroConfluentOptions { url: Some(url), ..AvroConfluentOptions::default() }
}

fn schemas(registry: &SchemaRegistry) -> Schemas {
    Schemas::open(&options(registry.url()), everywhere()).unwrap()
}

fn columns(fields: &[(&str, DataType, bool)]) -> SchemaRef {
    Arc::new(Schema::new(
        fields.iter().map(|(name, of, nullable)| Field::new(*name, of.clone(), *nullable)).collect::<Vec<_>>(),
    ))
}

fn one_column() -> SchemaRef {
    columns(&[("a", DataType::Int64, true)])
}

const WRITER: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;

fn framed(id: u32, record: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], record].concat()
}

/// The code with which the one message of this id ends, after what the registry says; or the value.
async fn outcome(schemas: &Schemas, id: u32) -> Result<i64, String> {
    let mut decoder = MessageDecoder::new(one_column()).unwrap();
    let message = framed(id, &[14]);
    schemas.supply(&mut decoder, &message).await.map_err(|error| format!("run: {} {}", error.code, error.message))?;
    decoder.decode_record(&message).map_err(|bad| format!("record: {} {}", bad.code, bad.message))?;
    Ok(decoder.flush().batch.column(0).as_primitive::<Int64Type>().value(0))
}

#[tokio::test]
async fn a_schema_is_fetched_once() {
    let registry = SchemaRegistry::start();
    let id = registry.put("t-value", WRITER);
    let schemas = schemas(&registry);
    let message = framed(id, &[14]);
    for _ in 0..2 {
        // Two splits with decoders of their own.
        let mut decoder = MessageDecoder::new(one_column()).unwrap();
        assert_eq!(decoder.decode_record(&message).unwrap_err().code, SCHEMA_NEEDED);
        for _ in 0..3 {
            schemas.supply(&mut decoder, &message).await.unwrap();
            decoder.decode_record(&message).unwrap();
        }
        assert_eq!(decoder.flush().batch.column(0).as_primitive::<Int64Type>().values(), &[7, 7, 7]);
        // What is not framed needs nothing.
        schemas.supply(&mut decoder, b"{}").await.unwrap();
    }
    assert_eq!(registry.requests(), ["GET /schemas/ids/1"]);
}

#[tokio::test]
async fn ids_that_do_not_exist_are_bad_records() {
    let registry = SchemaRegistry::start();
    let other = registry.put_as("p-value", "message P {}", "PROTOBUF", &[]);
    let dangling = registry.put_as("d-value", WRITER, "AVRO", &[("x.Y", "nowhere", 3)]);
    let schemas = schemas(&registry);
    for _ in 0..2 {
        assert_eq!(
            outcome(&schemas, 99).await.unwrap_err(),
            "record: schema_unknown schema 99 cannot be had: the registry has no such schema: Schema 99 not found [40403]"
        );
    }
    assert_eq!(registry.requests().len(), 1, "that there is none is remembered, too");
    let error = outcome(&schemas, other).await.unwrap_err();
    assert_eq!(
        error,
        format!("record: schema_unknown schema {other} cannot be had: it is a schema of PROTOBUF, not of Avro")
    );
    let error = outcome(&schemas, dangling).await.unwrap_err();
    assert!(error.contains("it refers to version 3 of nowhere") && error.contains("40401"), "{error}");
}

#[tokio::test]
async fn a_schema_that_comes_late_is_found() {
    let registry = SchemaRegistry::start();
    let mut schemas = schemas(&registry);
    assert!(outcome(&schemas, 1).await.unwrap_err().contains("schema_unknown"));
    assert_eq!(registry.put("t-value", WRITER), 1);
    assert!(outcome(&schemas, 1).await.unwrap_err().contains("schema_unknown"), "it is not asked for each record");
    schemas.missing_for = Duration::ZERO;
    assert_eq!(outcome(&schemas, 1).await, Ok(7));
    assert_eq!(outcome(&schemas, 1).await, Ok(7));
    assert_eq!(registry.requests().len(), 2, "what is there is not asked for again");
}

#[tokio::test]
async fn references_are_fetched_before_what_needs_them() {
    let registry = SchemaRegistry::start();
    let inner = r#"{"type":"record","name":"x.In","fields":[{"name":"v","type":"long"}]}"#;
    let middle = r#"{"type":"record","name":"x.Mid","fields":[{"name":"in","type":"x.In"}]}"#;
    let outer = r#"{"type":"record","name":"R","fields":[{"name":"m","type":"x.Mid"},{"name":"i","type":"x.In"},{"name":"a","type":"long"}]}"#;
    registry.put("in", inner);
    registry.put_as("mid", middle, "AVRO", &[("x.In", "in", 1)]);
    let id = registry.put_as("out-value", outer, "AVRO", &[("x.In", "in", 1), ("x.Mid", "mid", 1)]);
    let mut decoder = MessageDecoder::new(one_column()).unwrap();
    let message = framed(id, &[2, 4, 14]);
    schemas(&registry).supply(&mut decoder, &message).await.unwrap();
    decoder.decode_record(&message).unwrap();
    assert_eq!(registry.requests().len(), 3);
}

#[tokio::test]
async fn a_registry_that_is_ill_is_asked_again() {
    let registry = SchemaRegistry::start();
    let id = registry.put("t-value", WRITER);
    registry.fail_with([500, 429, 503]);
    assert_eq!(outcome(&schemas(&registry), id).await, Ok(7));
    assert_eq!(registry.requests().len(), 4);
    registry.fail_with([500; 4]);
    let error = outcome(&schemas(&registry), id).await.unwrap_err();
    assert!(error.starts_with("run: registry_failed") && error.contains("asked 4 times: it answered 500"), "{error}");
    // Another answer is not better the second time.
    registry.fail_with([400]);
    let error = outcome(&schemas(&registry), id).await.unwrap_err();
    assert!(
        error.starts_with("run: registry_failed") && error.contains("400") && error.contains("told to fail"),
        "{error}"
    );
    assert_eq!(registry.requests().len(), 9);
    // After failures that were not its fault the schema is still to be had.
    assert_eq!(outcome(&schemas(&registry), id).await, Ok(7));
}

#[tokio::test]
async fn who_does_not_answer_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let schemas = Schemas::open(&options(url.clone()), everywhere()).unwrap();
    let started = std::time::Instant::now();
    let error = outcome(&schemas, 1).await.unwrap_err();
    assert!(
        error.starts_with(&format!("run: registry_unreachable the schema registry {url} was asked 4 times")),
        "{error}"
    );
    assert!(started.elapsed().as_secs() < 8, "refused connections are bounded waits");
    let path = "/some/other/server";
    let registry = SchemaRegistry::start();
    let wrong = Schemas::open(&options(format!("{}{path}", registry.url())), everywhere()).unwrap();
    let error = outcome(&wrong, 1).await.unwrap_err();
    assert!(error.starts_with("run: registry_failed") && error.contains("is no schema registry"), "{error}");
    assert_eq!(registry.requests(), [format!("GET {path}/schemas/ids/1")], "a path of the URL is kept");
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let registry = SchemaRegistry::start_closed("Basic dXNlcjpodW50ZXIy"); // user:hunter2
    let id = registry.put("t-value", WRITER);
    let with = |user: Option<&str>, token: Option<&str>| {
        let options = AvroConfluentOptions {
            user_info: user.map(|user| Secret(user.into())),
            token: token.map(|token| Secret(token.into())),
            ..options(registry.url())
        };
        Schemas::open(&options, everywhere()).unwrap()
    };
    assert_eq!(outcome(&with(Some("user:hunter2"), None), id).await, Ok(7));
    for wrong in [with(Some("user:hunter3"), None), with(None, None), with(None, Some("hunter4"))] {
        let error = outcome(&wrong, id).await.unwrap_err();
        assert!(error.starts_with("run: registry_denied") && error.contains("401"), "{error}");
        assert!(!error.contains("hunter"), "{error}");
    }
    let bearer = SchemaRegistry::start_closed("Bearer hunter5");
    let id = bearer.put("t-value", WRITER);
    let options = AvroConfluentOptions { token: Some(Secret("hunter5".into())), ..options(bearer.url()) };
    assert_eq!(outcome(&Schemas::open(&options, everywhere()).unwrap(), id).await, Ok(7));
}

#[tokio::test]
async fn only_allowed_addresses_are_connected_to() {
    let registry = SchemaRegistry::start();
    let id = registry.put("t-value", WRITER);
    let port = registry.address().port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let none: Allows = {
        let seen = seen.clone();
        Arc::new(move |host, port, ip| {
            seen.lock().unwrap().push(format!("{host} {port} {ip}"));
            false
        })
    };
    for host in ["127.0.0.1", "localhost"] {
        let url = format!("http://{host}:{port}");
        let error = outcome(&Schemas::open(&options(url.clone()), none.clone()).unwrap(), id).await.unwrap_err();
        assert_eq!(
            error,
            format!("run: location_not_allowed connections to the schema registry {url} are not allowed")
        );
    }
    assert_eq!(registry.requests(), Vec::<String>::new());
    let seen = seen.lock().unwrap().join("; ");
    assert!(
        seen.contains(&format!("127.0.0.1 {port} 127.0.0.1")) && seen.contains(&format!("localhost {port} ")),
        "{seen}"
    );
    let url = format!("http://localhost:{port}");
    let four: Allows = Arc::new(|_, _, ip| ip.is_ipv4());
    assert_eq!(outcome(&Schemas::open(&options(url), four).unwrap(), id).await, Ok(7));
    let wrong = Schemas::open(&AvroConfluentOptions::default(), everywhere()).err().unwrap();
    assert_eq!((wrong.code.as_str(), wrong.hint.is_some()), ("invalid_option", true));
}

#[tokio::test]
async fn a_sink_registers_its_schema_and_a_source_reads_its_rows() {
    let registry = SchemaRegistry::start();
    let schemas = schemas(&registry);
    let first = columns(&[("a", DataType::Int64, false), ("s", DataType::Utf8, true)]);
    let options = options(registry.url());
    let subject = subject(&options, "topic", Part::Value);
    assert_eq!(subject, "topic-value");
    let id = schemas.register(&subject, &first, "my table").await.unwrap();
    let mut encoder = MessageEncoder::new(first.clone(), id).unwrap();
    let again = schemas.register(&subject, &first, "my table").await;
    assert!(again.unwrap() == id && registry.latest(&subject).unwrap().contains("\"my_table\""));
    let values: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(vec![1, -2])), Arc::new(StringArray::from(vec![Some("x"), None]))];
    let batch = RecordBatch::try_new(first.clone(), values).unwrap();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    encoder.encode_each(&batch, &mut bytes, &mut ends).unwrap();
    let mut decoder = MessageDecoder::new(first).unwrap();
    let mut start = 0;
    for end in ends {
        schemas.supply(&mut decoder, &bytes[start..end]).await.unwrap();
        decoder.decode_record(&bytes[start..end]).unwrap();
        start = end;
    }
    assert_eq!(decoder.flush().batch, batch);
    // A nullable column more is a version more; one that is NOT NULL is refused, and so is another type.
    let more = columns(&[("a", DataType::Int64, false), ("s", DataType::Utf8, true), ("n", DataType::Int32, true)]);
    schemas.register(&subject, &more, "my table").await.unwrap();
    for breaking in [
        columns(&[("a", DataType::Int64, false), ("s", DataType::Utf8, true), ("m", DataType::Int32, false)]),
        columns(&[("a", DataType::Utf8, false)]),
    ] {
        let error = schemas.register(&subject, &breaking, "my table").await.err().unwrap();
        assert_eq!(error.code, "schema_incompatible", "{error:?}");
        assert!(error.message.contains("topic-value") && error.message.contains("incompatible"), "{error:?}");
        assert!(error.hint.unwrap().contains("nullable"));
        registry.let_anything_into("free");
        schemas.register("free", &breaking, "my table").await.unwrap();
    }
    // Names with any characters are one segment of the path.
    schemas.register("a/b ü-value", &one_column(), "t").await.unwrap();
    assert!(registry.latest("a/b ü-value").is_some());
    let error = schemas.register("t", &columns(&[("my col", DataType::Int64, true)]), "t").await.err().unwrap();
    assert!(error.code == "invalid_option" && error.message.contains("my col"), "{error:?}");
    registry.fail_with([422]);
    assert_eq!(schemas.register("t", &one_column(), "t").await.err().unwrap().code, "schema_refused");
}
