//! Scripts that are too large or nest too deep are refused, quickly, and the process lives.

use std::time::{Duration, Instant};

use super::*;

fn refused(query: &str) -> Vec<String> {
    let text = format!("{TABLES}{query}");
    let begin = Instant::now();
    let problems = plan(&text, &Options::default()).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?} for {}", begin.elapsed(), &query[..60]);
    problems.into_iter().map(|problem| problem.code).collect()
}

#[test]
fn too_deep_and_too_long_is_refused() {
    let nested = |count: usize, open: &str, inner: &str, close: &str| {
        format!("{}{inner}{}", open.repeat(count), close.repeat(count))
    };
    for query in [
        format!("SELECT {} FROM bid", nested(10_000, "(", "price", ")")),
        format!("SELECT price{} FROM bid", " + 1".repeat(20_000)),
        format!("SELECT price FROM bid WHERE price = 1{}", " OR price = 2".repeat(10_000)),
        format!("SELECT {}price FROM bid", "- ".repeat(20_000)),
        format!("SELECT price FROM bid WHERE {}price > 1", "NOT ".repeat(20_000)),
        format!("SELECT price FROM bid WHERE price IN (1{})", ",1".repeat(100_000)),
        format!("SELECT {} FROM bid", nested(10_000, "CASE WHEN price > 1 THEN ", "1", " END")),
        format!("SELECT {} FROM bid", nested(10_000, "ABS(", "price", ")")),
        nested(1_000, "SELECT * FROM (", "SELECT * FROM bid", ") t"),
        nested(1_000, "SELECT price FROM (", "bid", ")"),
        format!("SELECT * FROM {}", nested(12, "(", "bid", ")")),
        format!(
            "WITH {} SELECT * FROM c1",
            (0..2_000).map(|at| format!("c{at} AS (SELECT * FROM bid)")).collect::<Vec<_>>().join(", ")
        ),
        format!("SELECT price FROM bid{}", " UNION ALL SELECT price FROM bid".repeat(2_000)),
        format!("SELECT CAST(price AS {}) FROM bid", nested(10_000, "ARRAY<", "INT", ">")),
        "SELECT 1; ".repeat(10_000),
        format!("SELECT '{}' FROM bid", "x".repeat(2 << 20)),
    ] {
        let codes = refused(&query);
        assert!(codes.contains(&"query_too_complex".to_string()), "{codes:?} for {}", &query[..60]);
    }
    assert_eq!(
        refused(&format!("CREATE TABLE t (a {}INT) WITH ('connector' = 'print')", "ARRAY<".repeat(40))),
        ["sql_syntax"]
    );
}

#[test]
fn what_is_within_the_limits_is_planned_quickly() {
    for query in [
        format!("SELECT {}price{} FROM bid", "(".repeat(40), ")".repeat(40)),
        format!("SELECT * FROM {}bid{}", "(SELECT * FROM ".repeat(20), ") t".repeat(20)),
        format!("SELECT price{} FROM bid", " + 1".repeat(200)),
        format!("SELECT price FROM bid WHERE price IN (1{})", ",1".repeat(10_000)),
        format!("SELECT price FROM bid{}", " UNION ALL SELECT price FROM bid".repeat(100)),
    ] {
        let begin = Instant::now();
        let text = format!("{TABLES}{query}");
        if let Err(problems) = plan(&text, &Options::default()) {
            panic!("{}", crate::render(&problems, &text, "script.sql"));
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?} for {}", begin.elapsed(), &query[..60]);
    }
}

#[test]
fn views_over_views_do_not_multiply() {
    let mut text = format!("{TABLES} CREATE VIEW v0 AS SELECT price AS x FROM bid;");
    for at in 1..60 {
        text.push_str(&format!(
            "CREATE VIEW v{at} AS SELECT x + 1 AS x FROM v{} UNION ALL SELECT x FROM v{};",
            at - 1,
            at - 1
        ));
    }
    text.push_str("SELECT x FROM v59");
    let nodes = planned(&text).graph.nodes.len();
    assert!(nodes < 200, "{nodes} nodes");
}

#[test]
fn views_over_views_do_not_add_up_to_what_is_too_complex() {
    for step in ["x + 1", "-x", "UPPER(CAST(x AS STRING))"] {
        let first = if step.starts_with('U') { "channel" } else { "price" };
        let mut text = format!("{TABLES} CREATE VIEW v0 AS SELECT {first} AS x FROM bid;");
        for at in 1..200 {
            text.push_str(&format!("CREATE VIEW v{at} AS SELECT {step} AS x FROM v{};", at - 1));
        }
        text.push_str("SELECT x FROM v199");
        let script = planned(&text);
        assert!(script.graph.nodes.len() < 100, "{} nodes", script.graph.nodes.len());
    }
}

/// The parser tries some forms twice at each level: an error at the heart of a deep text must not cost two to the power of its depth.
#[test]
fn errors_inside_of_deep_nesting_are_found_at_once() {
    let nested = |open: &str, close: &str| format!("{}1 oops +{}", open.repeat(40), close.repeat(40));
    let begun = std::time::Instant::now();
    for (open, close) in [
        ("CAST(", " AS STRING)"),
        ("EXTRACT(YEAR FROM ", ")"),
        ("SUBSTRING(", " FROM 1)"),
        ("POSITION(", " IN 'a')"),
        ("CASE WHEN ", " THEN 1 END"),
        ("TRIM(BOTH FROM ", ")"),
        ("CEIL(", ")"),
        ("f(", ")"),
        ("(", ")"),
        ("NOT (", ")"),
        ("INTERVAL (", ") DAY"),
        ("ARRAY[", "]"),
        ("a[", "]"),
    ] {
        let text = nested(open, close);
        for script in
            [format!("SELECT {text} FROM t;"), format!("SELECT * FROM ({text});"), format!("SELECT * FROM f({text});")]
        {
            assert!(crate::plan(&script, &crate::Options::default()).is_err(), "{script}");
        }
    }
    for open in ["(", "(SELECT * FROM (", "(a JOIN (", "TABLE(f(", "LATERAL ("] {
        let script = format!("SELECT * FROM {} oops oops", open.repeat(20));
        assert!(crate::plan(&script, &crate::Options::default()).is_err(), "{script}");
    }
    assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
}
