//! The OpenAPI document: made by the handlers' annotations, finished here, the same for everyone who asks.
//!
//! utoipa gives paths and schemas. What it does not do is done on the finished document: the schema of graphs comes from the crate that
//! defines them; variants of tagged unions get names and a discriminator, or generators make `NodeOneOf1` of them; what is the same for
//! every operation is added to every operation.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::openapi::{InfoBuilder, LicenseBuilder, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};

/// The types of bodies, which are validated by their schemas.
pub const BODIES: &[&str] = &[
    "CreateJob",
    "ApplyJob",
    "PatchJob",
    "StartRun",
    "StopRun",
    "CreateSavepoint",
    "CheckSavepoint",
    "ValidateGraph",
    "SqlQuery",
    "CreateConnection",
    "ReplaceConnection",
    "CreateTable",
    "CreateKey",
];

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let (_, document) = crate::rest::routes().split_for_parts();
    finish(serde_json::to_value(document).expect("a document is JSON"))
});

/// The document, OpenAPI 3.1.
pub fn value() -> &'static Value {
    &DOCUMENT
}

/// As text, the way it is served and committed.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(value()).expect("a document is JSON");
    text.push('\n');
    text
}

/// For tools that need OpenAPI 3.0.
pub fn text_3_0() -> String {
    let mut document = value().clone();
    document["openapi"] = json!("3.0.3");
    if let Some(license) = document.pointer_mut("/info/license").and_then(Value::as_object_mut) {
        license.remove("identifier");
        license.insert("url".into(), json!("https://www.apache.org/licenses/LICENSE-2.0"));
    }
    down_convert(&mut document);
    let mut text = serde_json::to_string_pretty(&document).expect("a document is JSON");
    text.push('\n');
    text
}

/// The document that the routes begin with.
pub fn beginning() -> utoipa::openapi::OpenApi {
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("Highwater")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Submit one graph of operators, as SQL or JSON; run it over files or over Kafka. Every error is a problem (RFC 9457). \
             Times are RFC 3339 in UTC. Enums may grow: treat an unknown value as one that you do not handle.",
        ))
        .license(Some(license))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// Names of the properties of the object at a JSON Pointer into a body of that schema.
pub fn properties(schema: &str, at: &str) -> Vec<String> {
    let schemas = &value()["components"]["schemas"];
    let resolve = |mut schema: &Value| {
        while let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            schema = &schemas[name];
        }
        schema.clone()
    };
    let mut here = resolve(&schemas[schema]);
    for part in at.split('/').skip(1) {
        let below = match here["properties"].get(part) {
            Some(property) => property.clone(),
            None if here["items"].is_object() => here["items"].clone(),
            None => here["additionalProperties"].clone(),
        };
        let options = below["oneOf"].as_array().or(below["anyOf"].as_array()).cloned();
        let chosen = options.and_then(|all| all.into_iter().find(|one| one["type"] != "null")).unwrap_or(below);
        here = resolve(&chosen);
    }
    here["properties"].as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default()
}

fn finish(mut document: Value) -> Value {
    document["openapi"] = json!("3.1.0");
    document["servers"] = json!([{"url": "/", "description": "This server"}]);
    document["tags"] = json!([
        {"name": "jobs", "description": "Named, versioned graphs and how they run"},
        {"name": "runs", "description": "Executions of jobs, and what can be seen of them"},
        {"name": "savepoints", "description": "Copies of jobs' states in an open format"},
        {"name": "graphs", "description": "Validation of scripts and graphs"},
        {"name": "views", "description": "Results that can be queried"},
        {"name": "sql", "description": "Bounded queries"},
        {"name": "catalogue", "description": "Connectors, connections and tables"},
        {"name": "operations", "description": "Work that outlives the request that asked for it"},
        {"name": "access", "description": "Keys and the audit log"},
        {"name": "system", "description": "The server itself"},
    ]);
    // Named by a parameter only, which is where utoipa does not look for types.
    document["components"]["schemas"][api::Consistency::name().as_ref()] =
        serde_json::to_value(api::Consistency::schema()).expect("a schema is JSON");
    add_graph(&mut document);
    let schemas = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
    let merged = schemas.iter().map(|(name, schema)| (name.clone(), merge(schema, &schemas))).collect::<Map<_, _>>();
    document["components"]["schemas"] = Value::Object(merged);
    name_variants(&mut document);
    document["components"]["securitySchemes"] = json!({
        "api_key": {"type": "http", "scheme": "bearer", "description": "An API key, made with `highwater keys create NAME --role ROLE`"},
    });
    document["security"] = json!([{"api_key": []}, {}]);
    add_common_answers(&mut document);
    remove_unused(&mut document);
    document
}

/// Removes schemas that nothing leads to any more: what variants have drawn in.
fn remove_unused(document: &mut Value) {
    let prefix = "#/components/schemas/";
    let names = |value: &mut Value| {
        let mut found = Vec::new();
        walk(value, &mut |object| {
            let name = object.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix(prefix));
            found.extend(name.map(str::to_string));
        });
        found
    };
    let mut left = names(&mut document["paths"]);
    let mut used = BTreeSet::new();
    while let Some(name) = left.pop() {
        if used.insert(name.clone()) {
            left.extend(names(&mut document["components"]["schemas"][&name]));
        }
    }
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.retain(|name, _| used.contains(name));
    }
}

/// The schema of graphs with all its parts as components.
fn add_graph(document: &mut Value) {
    let mut schema = graph::json_schema();
    let object = schema.as_object_mut().expect("a schema is an object");
    object.remove("$schema");
    let definitions = object.remove("$defs").unwrap_or_default();
    let names: Vec<String> = definitions.as_object().map(|all| all.keys().cloned().collect()).unwrap_or_default();
    let taken = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
    // A name of the API keeps its meaning; the graph's gets a prefix.
    let renamed = |name: &str| if taken.contains_key(name) { format!("Graph{name}") } else { name.to_string() };
    let point = |value: &mut Value| {
        walk(value, &mut |object| {
            if let Some(name) =
                object.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"))
            {
                let path = format!("#/components/schemas/{}", renamed(name));
                object.insert("$ref".into(), path.into());
            }
        });
    };
    point(&mut schema);
    document["components"]["schemas"]["Graph"] = schema;
    for name in names {
        let mut definition = definitions[&name].clone();
        point(&mut definition);
        document["components"]["schemas"][renamed(&name)] = definition;
    }
}

/// Calls `visit` with every object of a document, the outer ones first.
fn walk(value: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values_mut().for_each(|below| walk(below, visit));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

/// One object instead of an `allOf` of objects, which is what a flattened struct is.
fn merge(schema: &Value, all: &Map<String, Value>) -> Value {
    let Some(parts) = schema["allOf"].as_array() else { return schema.clone() };
    let mut merged = schema.as_object().cloned().unwrap_or_default();
    merged.remove("allOf");
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        let part = match part["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            Some(name) => merge(&all[name], all),
            None => merge(part, all),
        };
        if !part["properties"].is_object() {
            return schema.clone();
        }
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
        for (name, value) in part.as_object().into_iter().flatten() {
            if !["properties", "required", "description"].contains(&name.as_str()) {
                merged.insert(name.clone(), value.clone());
            }
        }
    }
    merged.insert("type".into(), "object".into());
    merged.insert("properties".into(), properties.into());
    if !required.is_empty() {
        merged.insert("required".into(), required.into());
    }
    merged.into()
}

/// Gives every variant of a union that is told apart by a constant property a name of its own, and the union a discriminator.
fn name_variants(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object().cloned().unwrap_or_default();
    let mut finished = schemas.clone();
    for (union, schema) in &schemas {
        let Some(options) = schema["oneOf"].as_array() else { continue };
        let tags: Vec<Option<(String, String)>> = options.iter().map(tag).collect();
        let Some(Some((property, _))) = tags.first() else { continue };
        if !tags.iter().all(|tag| tag.as_ref().is_some_and(|(other, _)| other == property)) {
            continue;
        }
        let (mut references, mut mapping) = (Vec::new(), Map::new());
        let shared = schema["properties"].as_object().cloned().unwrap_or_default();
        let shared_required = schema["required"].as_array().cloned().unwrap_or_default();
        for (option, (_, value)) in options.iter().zip(tags.iter().flatten()) {
            let mut variant = inlined(option, &schemas);
            for (name, schema) in &shared {
                variant["properties"][name] = schema.clone();
            }
            let mut required = variant["required"].as_array().cloned().unwrap_or_default();
            required.extend(
                shared_required
                    .iter()
                    .filter(|name| !option["required"].as_array().is_some_and(|all| all.contains(name)))
                    .cloned(),
            );
            variant["required"] = required.into();
            let name = variant_name(value, union);
            let path = format!("#/components/schemas/{name}");
            references.push(json!({"$ref": path}));
            mapping.insert(value.clone(), path.into());
            finished.insert(name, variant);
        }
        let mut named = json!({"oneOf": references, "discriminator": {"propertyName": property, "mapping": mapping}});
        if let Some(description) = schema.get("description") {
            named["description"] = description.clone();
        }
        finished.insert(union.clone(), named);
    }
    document["components"]["schemas"] = Value::Object(finished);
}

/// The constant property of a variant, and its value.
fn tag(option: &Value) -> Option<(String, String)> {
    let properties = option["properties"].as_object()?;
    properties.iter().find_map(|(name, schema)| Some((name.clone(), schema["const"].as_str()?.to_string())))
}

/// A variant with what it refers to beside its tag drawn in.
fn inlined(option: &Value, schemas: &Map<String, Value>) -> Value {
    let mut variant = option.as_object().cloned().unwrap_or_default();
    if let Some(name) = variant.remove("$ref").as_ref().and_then(Value::as_str).and_then(|path| path.rsplit('/').next())
    {
        let base = inlined(&schemas[name], schemas);
        let mut properties = variant["properties"].as_object().cloned().unwrap_or_default();
        properties.extend(base["properties"].as_object().cloned().unwrap_or_default());
        variant.insert("properties".into(), properties.into());
        let mut required = variant.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
        required.extend(base["required"].as_array().cloned().unwrap_or_default());
        variant.insert("required".into(), required.into());
    }
    variant.into()
}

/// `window_aggregate` of `Node` is `WindowAggregateNode`.
fn variant_name(value: &str, union: &str) -> String {
    let words = value.split(['_', '-', '.']).map(|word| {
        let mut letters = word.chars();
        letters.next().map_or(String::new(), |first| first.to_ascii_uppercase().to_string() + letters.as_str())
    });
    words.collect::<String>() + union
}

/// Errors that every operation can give, and the header that every answer has.
fn add_common_answers(document: &mut Value) {
    let problem = |description: &str| {
        json!({
            "description": description,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        })
    };
    walk(&mut document["paths"], &mut |object| {
        // utoipa makes a list of numbers of bytes.
        if let Some(stream) = object.get_mut("application/vnd.apache.arrow.stream") {
            *stream = json!({"schema": {"type": "string", "format": "binary"}});
        }
    });
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            let has_body = operation["requestBody"].is_object();
            let has_parameters = operation["parameters"].as_array().is_some_and(|all| !all.is_empty());
            let open = ["/livez", "/readyz"].contains(&path.as_str());
            let answers = operation["responses"].as_object_mut().expect("an operation has responses");
            let mut add = |status: &str, description: &str| {
                answers.entry(status).or_insert_with(|| problem(description));
            };
            add("400", "The request cannot be read");
            add("405", "The method is not allowed here");
            add("414", "The path is too long");
            add("431", "The headers are too large");
            add("500", "A bug of Highwater");
            add("503", "The metadata store cannot be reached, or the server starts or ends; see `retry-after`");
            if !open {
                add("401", "An API key is needed");
                add("403", "The key does not allow it, or the host is not this server's");
                add("429", "Too many requests; see `retry-after`");
            }
            if has_parameters {
                add("422", "A parameter is not valid");
            }
            if has_body {
                add("408", "The body took too long to arrive");
                add("413", "The body is too large");
                add("415", "The body is not JSON");
                add("422", "The body is not valid: everything that is wrong is listed");
            }
            // A key is not kept, so it cannot be shown again.
            let creates = method == "post"
                && path != "/api/v1/keys"
                && answers.keys().any(|status| ["201", "202"].contains(&status.as_str()));
            if creates {
                answers.entry("409").or_insert_with(|| problem("The state does not allow it"));
                let parameters = operation.as_object_mut().expect("an operation is an object").entry("parameters");
                parameters.or_insert_with(|| json!([])).as_array_mut().expect("parameters are a list").push(json!({
                    "name": "idempotency-key", "in": "header", "required": false,
                    "description": "Repeating the request with the same key and body gives the same answer and creates nothing",
                    "schema": {"type": "string", "minLength": 1, "maxLength": 256},
                }));
            }
            if let Some(parameters) = operation.get_mut("parameters").and_then(Value::as_array_mut) {
                parameters.sort_by_key(|parameter| (parameter["in"].to_string(), parameter["name"].to_string()));
            }
        }
    }
    for (_, answers) in document["paths"].as_object_mut().into_iter().flatten().flat_map(|(path, item)| {
        item.as_object_mut().into_iter().flatten().map(move |(_, operation)| (path.clone(), operation))
    }) {
        for answer in answers["responses"].as_object_mut().into_iter().flatten().map(|(_, answer)| answer) {
            answer["headers"]["x-request-id"] =
                json!({"description": "Names the request in logs and problems", "schema": {"type": "string"}});
        }
    }
}

/// What 3.0 says otherwise: nullable types, constants, one example, no `$ref` with siblings.
fn down_convert(value: &mut Value) {
    walk(value, &mut |object| {
        if let Some(types) = object.get("type").and_then(Value::as_array).cloned() {
            let rest: Vec<&Value> = types.iter().filter(|one| *one != "null").collect();
            if rest.len() < types.len() {
                object.insert("nullable".into(), true.into());
            }
            match rest.as_slice() {
                [one] => object.insert("type".into(), (*one).clone()),
                _ => object.remove("type"),
            };
        }
        if let Some(constant) = object.remove("const") {
            object.insert("type".into(), if constant.is_string() { "string" } else { "integer" }.into());
            object.insert("enum".into(), json!([constant]));
        }
        for union in ["oneOf", "anyOf"] {
            let Some(options) = object.get(union).and_then(Value::as_array).cloned() else { continue };
            let rest: Vec<Value> = options.iter().filter(|one| one["type"] != "null").cloned().collect();
            if rest.len() < options.len() {
                match rest.as_slice() {
                    [Value::Object(one)] if one.contains_key("$ref") => {
                        object.remove(union);
                        object.extend(one.clone());
                    }
                    _ => {
                        object.insert("nullable".into(), true.into());
                        object.insert(union.into(), rest.into());
                    }
                }
            }
        }
        for (keyword, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
            if let Some(number) = object.get(keyword).filter(|bound| bound.is_number()).cloned() {
                object.insert(limit.into(), number);
                object.insert(keyword.into(), true.into());
            }
        }
        object.remove("examples");
        object.remove("propertyNames");
        if object.contains_key("$ref") && object.len() > 1 {
            let reference = object.remove("$ref").expect("it is there");
            object.insert("allOf".into(), json!([{"$ref": reference}]));
        }
        // Only what has a type can be null in 3.0; the rest may be left out instead.
        if object.get("nullable") == Some(&Value::Bool(true)) && !object.get("type").is_some_and(Value::is_string) {
            object.remove("nullable");
        }
    });
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    /// The documents that people read and generate clients from, without a server. `make bless` rewrites them.
    #[test]
    fn the_committed_documents_are_current() {
        expect_file!["../../../openapi/openapi.json"].assert_eq(&text());
        expect_file!["../../../openapi/openapi-3.0.json"].assert_eq(&text_3_0());
    }

    #[test]
    fn every_body_is_a_component() {
        let schemas = &value()["components"]["schemas"];
        let missing: Vec<&str> = BODIES.iter().copied().filter(|name| !schemas[name].is_object()).collect();
        assert_eq!(missing, [""; 0]);
    }

    #[test]
    fn the_document_for_older_tools_has_nothing_of_3_1() {
        let mut document: Value = serde_json::from_str(&text_3_0()).expect("JSON");
        walk(&mut document["components"]["schemas"], &mut |object| {
            assert!(!object.get("type").is_some_and(Value::is_array), "{object:?}");
            for keyword in ["const", "propertyNames", "$defs"] {
                assert!(object.get(keyword).is_none_or(Value::is_object), "{keyword}: {object:?}");
            }
        });
    }
}
