//! The pages and the schema in the repository say what the code does.

use std::path::PathBuf;

use super::*;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// The fenced blocks of a page that begin with this word.
fn blocks(page: &str, language: &str) -> Vec<(usize, String)> {
    let text = std::fs::read_to_string(repository(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(word)) if word == language => open = Some((number + 1, String::new())),
            (None, Some(word)) if !word.is_empty() => open = Some((0, String::new())),
            (Some(_), Some("")) => blocks.extend(open.take().filter(|(number, _)| *number > 0)),
            (Some((_, block)), _) => {
                block.push_str(line);
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn the_json_schema_in_the_repository_is_current() {
    let path = repository("openapi/graph-v1.schema.json");
    let current = format!("{}\n", serde_json::to_string_pretty(&graph::json_schema()).unwrap());
    if std::env::var_os("UPDATE_EXPECT").is_some_and(|update| update != "0") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &current).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "{} is not what the code gives; run `make bless`", path.display());
}

/// The first block of the page declares its tables; each of the others stands on them.
#[test]
fn every_example_of_the_sql_page_is_planned() {
    let blocks = blocks("docs/sql.md", "sql");
    assert!(blocks.len() > 20, "{} examples", blocks.len());
    let (_, tables) = &blocks[0];
    for (line, block) in &blocks[1..] {
        let text = format!("{tables}\n{block}");
        match plan(&text, &Options::default()) {
            Ok(_) => {}
            Err(problems) if problems.iter().all(|problem| problem.code == "nothing_to_run") => {}
            Err(problems) => panic!("docs/sql.md, line {line}:\n{}", crate::render(&problems, &text, "example.sql")),
        }
    }
}

#[test]
fn every_example_of_the_graph_page_is_a_graph() {
    let blocks = blocks("docs/graph.md", "json");
    assert!(!blocks.is_empty());
    let mut kinds: Vec<&str> = Vec::new();
    for (line, block) in &blocks {
        let graph =
            Graph::from_json(block).unwrap_or_else(|problems| panic!("docs/graph.md, line {line}: {problems:#?}"));
        let analysis = expr::analyze(&graph, &graph::Settings::default());
        assert!(analysis.is_ok(), "docs/graph.md, line {line}: {analysis:#?}");
        kinds.extend(graph.nodes.iter().map(|node| node.operator.type_name()));
    }
    for kind in Operator::TYPE_NAMES {
        assert!(kinds.contains(kind), "docs/graph.md has no example of {kind}");
    }
}
