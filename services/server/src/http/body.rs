//! Bodies: read whole within limits, as strict JSON, validated against the schema of the document, and only then given their type.
//!
//! So everything that is wrong is told at once, with pointers and nearest names, which deserialising alone cannot do.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use api::ProblemItem;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use hyper::body::Body as _;
use jsonschema::Validator;
use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::PartialSchema;

use crate::document;
use crate::http::json;
use crate::problem::{ApiError, ApiResult};

/// Larger bodies are refused.
const BODY_BYTES_MAX: usize = 4 << 20;
/// A body that stands still for longer is given up.
const BODY_STALL: Duration = Duration::from_secs(15);

/// A body of a type of `api` whose schema is a component of the document.
pub struct Body<T> {
    pub value: T,
    /// sha256 of the bytes.
    pub hash: Vec<u8>,
}

impl<T: DeserializeOwned + PartialSchema + utoipa::ToSchema, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> ApiResult<Body<T>> {
        let media_type = media_type(request.headers());
        // Whoever sent nothing learns that something is needed; of what type it is comes after that.
        if media_type.is_err() && request.body().is_end_stream() {
            let detail = format!("the request has no body; it needs a {} as JSON", T::name());
            return Err(ApiError::new("malformed_json", detail)
                .hint("send `content-type: application/json` and an object; /docs shows its fields"));
        }
        media_type?;
        let bytes = bytes(request).await?;
        let hash = Sha256::digest(&bytes).to_vec();
        let value = json::read(&bytes)?;
        let errors = check(&T::name(), &value);
        if !errors.is_empty() {
            let detail = match errors.as_slice() {
                [one] => {
                    // The pointer to the whole body is empty.
                    let at = one.pointer.as_deref().filter(|at| !at.is_empty()).unwrap_or("the body");
                    format!("{at}: {}", one.message)
                }
                many => format!("{} things in the body are wrong", many.len()),
            };
            return Err(ApiError::new("validation_failed", detail).errors(errors));
        }
        let value = serde_json::from_value(value).map_err(|error| {
            // The schema says less than the type: a value that only the type refuses.
            ApiError::new("validation_failed", format!("the body is not a {}: {error}", T::name()))
        })?;
        Ok(Body { value, hash })
    }
}

fn media_type(headers: &HeaderMap) -> ApiResult<()> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if essence != "application/json" {
        let detail = match essence.as_str() {
            "" => "the request has no content-type".to_string(),
            other => format!("the body is {:?}", other.chars().take(100).collect::<String>()),
        };
        return Err(ApiError::new("unsupported_media_type", format!("{detail}; application/json is understood")));
    }
    match headers.get(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(value) if value == "identity" => Ok(()),
        Some(_) => Err(ApiError::new("unsupported_media_type", "compressed bodies are not understood")),
    }
}

async fn bytes(request: Request) -> ApiResult<Vec<u8>> {
    let too_large = || {
        ApiError::new("body_too_large", format!("the body has more than {} MiB", BODY_BYTES_MAX >> 20))
            .header(header::CONNECTION, "close")
    };
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let mut stream = request.into_body().into_data_stream();
    let mut bytes = Vec::new();
    loop {
        match tokio::time::timeout(BODY_STALL, stream.next()).await {
            Err(_) => {
                let error = ApiError::new("request_timeout", format!("the body stood still for {BODY_STALL:?}"));
                return Err(error.header(header::CONNECTION, "close"));
            }
            Ok(None) => return Ok(bytes),
            Ok(Some(Err(_))) => return Err(ApiError::new("bad_request", "the body broke off")),
            Ok(Some(Ok(chunk))) if bytes.len() + chunk.len() > BODY_BYTES_MAX => return Err(too_large()),
            Ok(Some(Ok(chunk))) => bytes.extend_from_slice(&chunk),
        }
    }
}

/// A validator for every component of the document.
static VALIDATORS: LazyLock<BTreeMap<&str, Validator>> = LazyLock::new(|| {
    let validator = |name: &str| {
        let schema = serde_json::json!({
            "$ref": format!("{SCHEMAS}{name}"),
            "components": {"schemas": needed(name)},
        });
        jsonschema::draft202012::new(&schema).expect("the document's schemas are valid")
    };
    document::BODIES.iter().map(|name| (*name, validator(name))).collect()
});

const SCHEMAS: &str = "#/components/schemas/";

/// A schema and those that it refers to: a validator keeps what it is given.
fn needed(name: &str) -> Map<String, Value> {
    let (mut found, mut open) = (Map::new(), vec![name.to_string()]);
    while let Some(name) = open.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let schema = match name.as_str() {
            // Graphs are checked by the crate that defines them, which says more.
            "Graph" => serde_json::json!({"type": "object"}),
            _ => document::value()["components"]["schemas"][&name].clone(),
        };
        references(&schema, &mut open);
        found.insert(name, schema);
    }
    found
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(|to| to.as_str()?.strip_prefix(SCHEMAS)).map(str::to_string));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

/// Makes the validators now, so that the first request need not wait.
pub fn prepare() {
    LazyLock::force(&VALIDATORS);
}

/// Everything that is wrong with a value, by the schema of that name.
pub fn check(schema: &str, value: &Value) -> Vec<ProblemItem> {
    let validator = VALIDATORS.get(schema).expect("every type of a body is in document::BODIES");
    let mut items: Vec<ProblemItem> = Vec::new();
    for item in validator.iter_errors(value).take(api::PROBLEM_ERRORS_MAX).flat_map(|error| explain(schema, &error)) {
        // A value that has the wrong type is none of the known values either: once is enough.
        if !items.iter().any(|known| known.pointer == item.pointer) {
            items.push(item);
        }
    }
    items
}

fn explain(schema: &str, error: &ValidationError<'_>) -> Vec<ProblemItem> {
    let at = error.instance_path().to_string();
    let item = |pointer: String, code: &str, message: String, hint: Option<String>| ProblemItem {
        pointer: Some(pointer),
        code: code.to_string(),
        message,
        hint,
        ..ProblemItem::default()
    };
    let shown = || {
        let text = error.instance().to_string();
        match text.chars().count() {
            0..=80 => text,
            _ => format!("{}...", text.chars().take(80).collect::<String>()),
        }
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known = document::properties(schema, &at);
            let explain = |name: &String| {
                let name: String = name.chars().take(100).collect();
                let hint = graph::suggestion(&name, known.iter().map(String::as_str));
                let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                item(pointer, "unknown_field", format!("there is no field {name:?} here"), Some(hint))
            };
            unexpected.iter().map(explain).collect()
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![item(format!("{at}/{name}"), "missing_field", format!("the field {name:?} is missing"), None)]
        }
        ValidationErrorKind::Type { kind } => {
            let expected = match kind {
                TypeKind::Single(kind) => kind.to_string(),
                TypeKind::Multiple(kinds) => kinds.iter().map(|kind| kind.to_string()).collect::<Vec<_>>().join(" or "),
            };
            vec![item(at, "wrong_type", format!("{} is not of type {expected}", shown()), None)]
        }
        ValidationErrorKind::Enum { options } => {
            let names: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let hint = match error.instance().as_str().and_then(|given| graph::nearest(given, names.iter().copied())) {
                Some(name) => format!("did you mean {name}?"),
                None => format!("there is {}", names.join(", ")),
            };
            vec![item(at, "unknown_value", format!("{} is none of the values known here", shown()), Some(hint))]
        }
        // Of what may be left out, only what it is otherwise is worth telling.
        ValidationErrorKind::OneOfNotValid { context } | ValidationErrorKind::AnyOf { context } => {
            let told: Vec<_> = context.iter().filter(|errors| !only_null(errors)).collect();
            match told.as_slice() {
                [errors] => errors.iter().flat_map(|error| explain(schema, error)).collect(),
                _ => vec![item(at, "invalid_value", error.masked_with(shown()).to_string(), None)],
            }
        }
        _ => vec![item(at, "invalid_value", error.masked_with(shown()).to_string(), None)],
    }
}

/// Whether nothing is wrong but that the value is not null.
fn only_null(errors: &[ValidationError<'_>]) -> bool {
    let null = |kind: &TypeKind| matches!(kind, TypeKind::Single(kind) if kind.to_string() == "null");
    matches!(errors, [error] if matches!(error.kind(), ValidationErrorKind::Type { kind } if null(kind)))
}
