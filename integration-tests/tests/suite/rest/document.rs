//! The OpenAPI document as its readers meet it: people, linters, generators of clients.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use integration_tests::program;
use integration_tests::rest::Document;
use regex::Regex;
use serde_json::Value;

use super::shared;

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (path.clone(), method.clone(), operation.clone()))
    });
    operations.collect()
}

fn walk(value: &Value, at: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(at, value);
    match value {
        Value::Object(object) => object.iter().for_each(|(name, below)| walk(below, &format!("{at}/{name}"), visit)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, below)| walk(below, &format!("{at}/{index}"), visit))
        }
        _ => {}
    }
}

#[test]
fn the_committed_document_is_what_is_served() {
    let server = shared();
    let served = server.get("/openapi.json").expect(200).text();
    let committed = std::fs::read_to_string(program::repository().join("openapi/openapi.json")).unwrap_or_default();
    assert!(served == committed, "openapi/openapi.json is out of date; run: make bless");
}

#[test]
fn every_operation_says_what_it_is_and_what_it_answers() {
    let _server = shared();
    let document = &Document::served().json;
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(document) {
        let at = format!("{method} {path}");
        let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{at}: no operationId"));
        assert!(ids.insert(id.to_string()), "{at}: {id} is taken");
        assert!(
            id.starts_with(|first: char| first.is_ascii_lowercase())
                && id.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')),
            "{at}: {id}"
        );
        assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{at}: no summary");
        let tags: Vec<&Value> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
        assert!(
            operation["tags"].as_array().is_some_and(|own| own.len() == 1 && tags.contains(&&own[0])),
            "{at}: tags"
        );
        let answers = operation["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{at}: no success");
        for (status, answer) in answers {
            assert!(
                answer["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{at} {status}: no description"
            );
            if status.as_str() >= "400" {
                let schema = &answer["content"]["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{at} {status}");
            }
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            let name = &parameter["name"];
            assert!(
                parameter["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{at} {name}: no description"
            );
        }
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let declared: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(in_path, declared, "{at}");
    }
    assert!(ids.len() > 40);
}

#[test]
fn schemas_have_names_that_generators_can_use() {
    let _server = shared();
    let document = &Document::served().json;
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let name = Regex::new("^[A-Z][A-Za-z0-9]*$").unwrap();
    for (schema, definition) in schemas {
        assert!(name.is_match(schema), "{schema}");
        assert!(!schema.contains("OneOf") && !schema.contains("BTreeMap") && !schema.contains("Vec"), "{schema}");
        if schema.ends_with("Page") {
            let items = &definition["properties"]["items"]["items"]["$ref"];
            assert!(items.is_string(), "{schema}: its items have no name");
            assert!(definition["properties"]["next_page_token"].is_object(), "{schema}");
        }
    }
    let tagged = |option: &Value| {
        let option = match option["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            Some(name) => &schemas[name],
            None => option,
        };
        option["properties"].as_object().is_some_and(|all| all.values().any(|property| property["const"].is_string()))
    };
    let mut unions = 0;
    walk(document, "", &mut |at, value| {
        if let Some(reference) = value["$ref"].as_str().filter(|_| value.is_object()) {
            assert!(document.pointer(&reference[1..]).is_some(), "{at}: {reference} leads nowhere");
        }
        for union in ["oneOf", "anyOf"] {
            let Some(options) = value.get(union).and_then(Value::as_array) else { continue };
            if options.iter().filter(|option| option["type"] != "null").all(&tagged) && options.len() > 1 {
                let refers = options.iter().all(|option| option["$ref"].is_string() || option["type"] == "null");
                if options.iter().filter(|option| option["type"] != "null").count() > 1 {
                    unions += 1;
                    assert!(
                        value["discriminator"]["propertyName"].is_string(),
                        "{at}: variants without a discriminator"
                    );
                    assert!(refers, "{at}: variants without names");
                }
            }
        }
    });
    assert!(unions >= 4, "{unions} unions were looked at");
    // What a page leads to, and what nothing does.
    let text = document.to_string();
    let unused: Vec<&String> =
        schemas.keys().filter(|name| !text.contains(&format!("\"#/components/schemas/{name}\""))).collect();
    assert_eq!(unused, [""; 0]);
}

#[test]
fn every_route_is_in_the_document_and_every_operation_is_routed() {
    let server = shared();
    // Routes come from annotated handlers only; the macro `routes!` puts both into router and document.
    let source = program::repository().join("services/server/src");
    let mut folders = vec![source];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                for call in [".route(", ".nest(", ".route_service(", ".nest_service("] {
                    assert!(!text.contains(call), "{}: {call} adds what no document knows", entry.path().display());
                }
            }
        }
    }
    for (path, method, _) in operations(&Document::served().json) {
        let path: String =
            path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/");
        let answer = server.request(reqwest::Method::OPTIONS, &path).expect(405);
        let allow = answer.header("allow").unwrap().to_ascii_lowercase();
        assert!(allow.split(',').any(|one| one.trim() == method), "{method} {path}: {allow}");
    }
}

#[test]
fn every_problem_and_every_operation_has_its_page() {
    let server = shared();
    let source = std::fs::read_to_string(program::repository().join("services/server/src/problem.rs")).unwrap();
    let kinds = Regex::new(r#"(?m)^    \("([a-z_]+)", [45]\d\d, "#).unwrap();
    let codes: Vec<String> = kinds.captures_iter(&source).map(|found| found[1].to_string()).collect();
    assert!(codes.len() > 30, "{codes:?}");
    for code in &codes {
        let page = server.get(&format!("/docs/problems/{code}")).expect(200);
        assert!(page.text().contains(code.as_str()));
    }
    let page = server.get("/docs").expect(200).text();
    for (path, _, operation) in operations(&Document::served().json) {
        assert!(page.contains(&path), "{path}");
        assert!(page.contains(operation["summary"].as_str().unwrap()), "{path}");
    }
    // It needs nothing from elsewhere.
    for outside in ["src=\"http", "href=\"http", "url(http", "<script", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

#[test]
fn a_linter_finds_nothing_to_say() {
    let node = program::node_modules();
    for document in ["openapi/openapi.json", "openapi/openapi-3.0.json"] {
        let mut command = Command::new("node");
        command
            .arg(node.join("@redocly/cli/bin/cli.js"))
            .args(["lint", "--config", "integration-tests/rest/redocly.yaml", document])
            .current_dir(program::repository())
            .env("REDOCLY_TELEMETRY", "off")
            .env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true")
            .env("NO_COLOR", "1");
        let finished = program::finish(&mut command, Duration::from_secs(180));
        assert_eq!(finished.code, Some(0), "{document}: {}", finished.report());
    }
}
