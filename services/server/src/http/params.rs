//! Query parameters: read by what the document says of them, so that both cannot disagree, and everything wrong is told at once.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, RwLock};

use api::ProblemItem;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::IntoParams;

use crate::document;
use crate::problem::{ApiError, ApiResult};

/// The query of a request as a type that derives `IntoParams` and `Deserialize`. Lists are given by repeating the name.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + IntoParams, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Params<T>> {
        read(parts.uri.query().unwrap_or("")).map(Params)
    }
}

/// Name, schema, and whether it must be there.
type Known = Arc<[(String, Value, bool)]>;

/// What the document says of the parameters of a type; it is worked out once.
fn known<T: IntoParams>() -> Known {
    static ALL: LazyLock<RwLock<HashMap<&'static str, Known>>> = LazyLock::new(RwLock::default);
    let of = std::any::type_name::<T>();
    if let Some(known) = ALL.read().expect("nothing panics while it holds the parameters").get(of) {
        return known.clone();
    }
    let parameters = T::into_params(|| None).into_iter().map(|parameter| {
        let mut schema = resolved(serde_json::to_value(&parameter.schema).unwrap_or_default());
        schema["items"] = resolved(schema["items"].take());
        let required = matches!(parameter.required, utoipa::openapi::Required::True);
        (parameter.name, schema, required)
    });
    let known: Known = parameters.collect();
    ALL.write().expect("nothing panics while it holds the parameters").insert(of, known.clone());
    known
}

fn read<T: DeserializeOwned + IntoParams>(query: &str) -> ApiResult<T> {
    let known = known::<T>();
    let mut errors = Vec::new();
    let mut wrong = |name: &str, code: &str, message: String, hint: Option<String>| {
        errors.push(ProblemItem {
            pointer: Some(format!("?{name}")),
            code: code.into(),
            message,
            hint,
            ..ProblemItem::default()
        });
    };
    let mut values = Map::new();
    for (name, text) in url::form_urlencoded::parse(query.as_bytes()) {
        let Some((_, schema, _)) = known.iter().find(|(known, ..)| *known == name) else {
            let name: String = name.chars().take(100).collect();
            let hint = graph::suggestion(&name, known.iter().map(|(known, ..)| known.as_str()));
            wrong(&name, "unknown_parameter", format!("there is no parameter {name:?}"), Some(hint));
            continue;
        };
        let is_list = has_type(schema, "array");
        let of = if is_list { &schema["items"] } else { schema };
        match value(of, &text) {
            Err(message) => wrong(&name, "invalid_parameter", format!("{name}: {message}"), None),
            Ok(value) if is_list => match values.entry(name.to_string()).or_insert_with(|| Value::Array(Vec::new())) {
                Value::Array(list) => list.push(value),
                _ => unreachable!("a list was put there"),
            },
            Ok(value) => {
                if values.insert(name.to_string(), value).is_some() {
                    wrong(&name, "duplicate_parameter", format!("{name} is given twice"), None);
                }
            }
        }
    }
    for (name, _, _) in known.iter().filter(|(name, _, required)| *required && !values.contains_key(name)) {
        wrong(name, "missing_parameter", format!("the parameter {name} is missing"), None);
    }
    if let [first, ..] = errors.as_slice() {
        return Err(ApiError::new("validation_failed", first.message.clone()).errors(errors));
    }
    serde_json::from_value(Value::Object(values))
        .map_err(|error| ApiError::new("validation_failed", format!("the parameters cannot be read: {error}")))
}

/// A named type as the document defines it.
fn resolved(schema: Value) -> Value {
    let options = schema["oneOf"].as_array().or(schema["anyOf"].as_array());
    let named = options.and_then(|all| all.iter().find(|one| one["$ref"].is_string())).unwrap_or(&schema);
    match named["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
        Some(pointer) => document::value().pointer(pointer).cloned().unwrap_or(schema),
        None => schema,
    }
}

fn has_type(schema: &Value, name: &str) -> bool {
    match &schema["type"] {
        Value::String(one) => one == name,
        Value::Array(several) => several.iter().any(|one| one == name),
        _ => false,
    }
}

fn value(schema: &Value, text: &str) -> Result<Value, String> {
    let shown: String = text.chars().take(100).collect();
    if has_type(schema, "integer") {
        let number: i64 = text.parse().map_err(|_| format!("{shown:?} is not a whole number"))?;
        let (min, max) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        if min.is_some_and(|min| (number as f64) < min) || max.is_some_and(|max| number as f64 > max) {
            let bound = |value: Option<f64>, text: &str| value.map_or(text.to_string(), |value| format!("{value}"));
            return Err(format!("{number} is not {} to {}", bound(min, "the smallest"), bound(max, "the largest")));
        }
        return Ok(Value::from(number));
    }
    if has_type(schema, "boolean") {
        return text.parse::<bool>().map(Value::from).map_err(|_| format!("{shown:?} is neither true nor false"));
    }
    if let Some(max) = schema["maxLength"].as_u64()
        && text.chars().count() as u64 > max
    {
        return Err(format!("it has more than {max} characters"));
    }
    let options: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !options.is_empty() && !options.contains(&text) {
        return Err(format!("{shown:?} is unknown: there is {}", options.join(", ")));
    }
    Ok(Value::from(text))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize, IntoParams)]
    #[into_params(parameter_in = Query)]
    struct Wanted {
        #[serde(default)]
        state: Vec<String>,
        #[param(minimum = 1, maximum = 10)]
        limit: Option<i64>,
        dry_run: Option<bool>,
    }

    #[test]
    fn parameters_are_what_the_document_says() {
        let read = |query: &str| read::<Wanted>(query);
        let good = read("state=a&state=b&limit=3&dry_run=true").expect("good");
        assert_eq!(good, Wanted { state: vec!["a".into(), "b".into()], limit: Some(3), dry_run: Some(true) });
        let error = read("limit=0&sate=x&dry_run=maybe&limit=1&limit=2").expect_err("all wrong");
        let text: Vec<String> = error.problem().errors.iter().map(|e| format!("{} {}", e.code, e.message)).collect();
        assert_eq!(
            text,
            [
                "invalid_parameter limit: 0 is not 1 to 10",
                "unknown_parameter there is no parameter \"sate\"",
                "invalid_parameter dry_run: \"maybe\" is neither true nor false",
                "duplicate_parameter limit is given twice",
            ]
        );
        assert_eq!(error.problem().errors[1].hint.as_deref(), Some("did you mean state?"));
    }
}
