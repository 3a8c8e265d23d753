//! The boundaries of ARCHITECTURE.md, checked against `cargo metadata` and the source text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use integration_tests::program::repository;

/// Each heavy dependency has its owners. Adding one is a design decision: change ARCHITECTURE.md in the same commit.
const OWNERS: &[(&str, &[&str])] = &[
    ("timely", &["engine"]),
    ("datafusion-sql", &["sql", "expr"]),
    ("datafusion-functions", &["expr"]),
    ("datafusion-physical-expr", &["expr"]),
    ("datafusion", &["benches"]),
    ("rocksdb", &["state"]),
    ("object_store", &["state", "connectors"]),
    ("parquet", &["state", "formats", "connectors", "integration-tests"]),
    ("sqlx", &["metadata", "connectors"]),
    ("axum", &["server"]),
    ("rdkafka", &["benches", "connectors", "test-support"]),
    ("clap", &["cli"]),
    ("indicatif", &["cli"]),
    ("miette", &["cli"]),
    ("mimalloc", &["highwater"]),
];

/// What each crate of the workspace may use of the others. Everything else it must not know.
const MAY_USE: &[(&str, &[&str])] = &[
    ("faults", &[]),
    ("graph", &[]),
    ("formats", &[]),
    ("state", &["faults"]),
    ("expr", &["graph"]),
    ("sql", &["graph", "expr"]),
    ("engine", &["faults", "graph", "expr", "state", "control"]),
    ("views", &["graph", "expr", "state", "formats"]),
    ("control", &["graph"]),
    ("metadata", &["faults"]),
    ("api", &[]),
    ("client", &["api"]),
    ("connectors", &["faults", "graph", "expr", "state", "engine", "formats", "views", "control"]),
    ("worker", &["faults", "graph", "expr", "state", "engine", "connectors", "control", "views", "formats"]),
    ("server", &["faults", "graph", "expr", "sql", "formats", "state", "views", "control", "metadata", "api"]),
    // The metadata store only for keys that are made before there is a server.
    (
        "cli",
        &["graph", "expr", "sql", "engine", "worker", "connectors", "formats", "server", "client", "api", "metadata"],
    ),
    ("highwater", &["cli"]),
    ("test-support", &[]),
    (
        "integration-tests",
        &["faults", "graph", "formats", "state", "expr", "sql", "engine", "connectors", "worker", "test-support"],
    ),
    ("benches", &["connectors", "integration-tests", "test-support"]),
];

/// What a crate must not reach, however indirectly.
const NEVER_REACHES: &[(&str, &[&str])] = &[
    ("graph", &["arrow", "tokio", "hyper", "datafusion-common", "object_store", "timely"]),
    // DataFusion's sub-crates reach object_store, and with it an HTTP client.
    ("expr", &["timely", "parquet"]),
    ("sql", &["timely", "parquet"]),
    ("formats", &["timely", "hyper", "datafusion-common"]),
    // Parquet reaches object_store, and with it an HTTP client.
    ("state", &["timely", "datafusion-common"]),
    ("engine", &["clap"]),
    ("control", &["tokio", "arrow", "hyper", "sqlx", "datafusion-common"]),
    ("metadata", &["arrow", "hyper", "datafusion-common"]),
    ("api", &["axum", "sqlx", "arrow", "tokio"]),
    ("client", &["axum", "sqlx", "arrow"]),
    ("server", &["timely", "rdkafka", "engine", "connectors"]),
];

/// A second version of one of these would be a second, incompatible set of types (or a second TLS stack).
const ONE_VERSION: &[&str] = &[
    "arrow",
    "arrow-array",
    "arrow-schema",
    "parquet",
    "hyper",
    "rustls",
    "object_store",
    "datafusion-common",
    "timely",
    "tokio",
];

#[test]
fn heavy_dependencies_stay_with_their_owners() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            let owners = OWNERS.iter().find(|(name, _)| *name == dependency.name);
            if let Some((name, owners)) = owners
                && !owners.contains(&package.name.as_str())
            {
                wrong.push(format!("{} depends on {name}, which belongs to {owners:?}", package.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn crates_know_only_what_they_may() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.workspace_packages().iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == package.name.as_str()) else {
            wrong.push(format!("{}: a new crate; say in MAY_USE and ARCHITECTURE.md what it may know", package.name));
            continue;
        };
        // Tests may use more than the code that they test.
        for dependency in
            package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development)
        {
            if members.contains(dependency.name.as_str()) && !allowed.contains(&dependency.name.as_str()) {
                wrong.push(format!("{} must not know {}", package.name, dependency.name));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn crates_do_not_reach_what_they_must_not_know() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (name, forbidden) in NEVER_REACHES {
        let reached = reachable(&metadata, name);
        assert!(reached.len() > 1, "{name} reaches nothing: the walk is broken");
        for dependency in forbidden.iter().filter(|dependency| reached.contains(**dependency)) {
            wrong.push(format!("{name} reaches {dependency}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// What lets tests break the program is in no other build of it than that beside the tests, and in nothing that is optimised for release.
#[test]
fn the_program_alone_cannot_be_made_to_fail() {
    let tree = |packages: &[&str]| {
        let mut cargo = std::process::Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.args(["tree", "--locked", "--edges", "features,no-dev", "--invert", "faults"]).current_dir(repository());
        for package in packages {
            cargo.args(["--package", package]);
        }
        let output = cargo.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let switch = "faults feature \"on\"";
    let (alone, beside) = (tree(&["highwater"]), tree(&["highwater", "integration-tests"]));
    assert!(alone.contains("engine v") && !alone.contains(switch), "{alone}");
    assert!(beside.contains(switch), "the check is blind: {beside}");
    let profiles = std::fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let dist = profiles.split("[profile.dist]").nth(1).unwrap().split("\n[").next().unwrap();
    assert!(dist.contains("inherits = \"release\"") && !dist.contains("debug-assertions"), "{dist}");
}

#[test]
fn there_is_one_version_of_what_has_types_in_interfaces() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata().packages {
        versions.entry(package.name.to_string()).or_default().insert(package.version.to_string());
    }
    let doubles: Vec<_> = ONE_VERSION
        .iter()
        .filter_map(|name| versions.get(*name).filter(|all| all.len() > 1).map(|all| (name, all)))
        .collect();
    assert!(doubles.is_empty(), "more than one version: {doubles:?}");
    assert!(versions.contains_key("arrow"), "the list of packages is incomplete");
}

#[test]
fn only_the_runtime_of_the_engine_imports_timely() {
    let mut wrong = Vec::new();
    visit(&repository().join("libs/engine/src"), &mut |path, text| {
        let inside = path.components().any(|part| part.as_os_str() == "runtime") || path.ends_with("runtime.rs");
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if !inside && code.contains("timely::") {
                wrong.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    });
    assert_eq!(wrong, Vec::<String>::new());
}

/// Where packages came from here is nobody else's business: lists of versions name the public registry, or none.
#[test]
fn lists_of_versions_name_no_other_registry() {
    let read = |path: &str| std::fs::read_to_string(repository().join(path)).unwrap();
    let (cargo, npm, pip) = (
        read("Cargo.lock"),
        read("integration-tests/rest/package-lock.json"),
        read("integration-tests/requirements.txt"),
    );
    let sources: BTreeSet<&str> = cargo.lines().filter(|line| line.starts_with("source = ")).collect();
    assert!(
        sources.len() == 1 && sources.iter().all(|line| line.contains("registry+https://github.com/rust-lang/")),
        "{sources:?}"
    );
    let resolved = npm.lines().filter(|line| line.contains("\"resolved\":"));
    let others: Vec<&str> = resolved.filter(|line| !line.contains("\"https://registry.npm")).collect();
    assert_eq!(others, Vec::<&str>::new());
    let options: Vec<&str> = pip.lines().filter(|line| line.starts_with('-') || line.contains("://")).collect();
    assert_eq!(options, Vec::<&str>::new());
    assert!(pip.contains("==") && npm.contains("\"lockfileVersion\""), "the lists are not what they were");
}

/// Paths of one machine do not belong into the repository.
#[test]
fn nothing_names_the_machine_it_was_made_on() {
    let home = std::env::var("HOME").unwrap();
    let mut wrong = Vec::new();
    for folder in ["libs", "services", "integration-tests", "examples", "docs"] {
        visit(&repository().join(folder), &mut |path, text| {
            for (index, line) in text.lines().enumerate() {
                if home.len() > 4 && line.contains(&format!("{home}/")) {
                    wrong.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
                }
            }
        });
    }
    assert_eq!(wrong, Vec::<String>::new());
}

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(repository().join("Cargo.toml"))
        // Only what this machine builds: other platforms have dependencies of their own.
        .other_options(vec!["--locked".into(), "--filter-platform".into(), platform()])
        .exec()
        .unwrap()
}

fn platform() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let output = std::process::Command::new(rustc).arg("-vV").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned()
}

/// Names of all crates that are linked into `name`, itself included.
fn reachable(metadata: &Metadata, name: &str) -> BTreeSet<String> {
    let resolve = metadata.resolve.as_ref().unwrap();
    let packages: BTreeMap<&PackageId, &Package> =
        metadata.packages.iter().map(|package| (&package.id, package)).collect();
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let start = metadata.workspace_packages().into_iter().find(|package| package.name.as_str() == name);
    let mut open: Vec<&PackageId> = vec![&start.unwrap_or_else(|| panic!("no crate {name}")).id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        if seen.insert(id) {
            let linked = nodes[id]
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal));
            open.extend(linked.map(|dep| &dep.pkg));
        }
    }
    seen.into_iter().map(|id| packages[id].name.to_string()).collect()
}

/// Calls `with` for every text file below `folder`; a folder that does not exist yet is empty.
pub fn visit(folder: &Path, with: &mut impl FnMut(&Path, &str)) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, with);
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            with(&path, &text);
        }
    }
}
