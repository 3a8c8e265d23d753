//! Tables of graphs: the facts of an edge, or the problems, of nodes put behind a bounded source `f`, an unbounded one `r` with the watermark
//! `w`, and an unbounded one `u` without.
#![allow(clippy::unwrap_used)]

use graph::{Graph, Problem, Settings};

use super::{Analysis, Changelog, analyze};

const COLUMNS: &str = r#"[{"name": "k", "type": "STRING"}, {"name": "v", "type": "BIGINT"}, {"name": "d", "type": "DECIMAL(10, 2)"},
    {"name": "ts", "type": "TIMESTAMP(3)"}, {"name": "t9", "type": "TIMESTAMP(9)"}]"#;

/// The base and more nodes; sinks are put behind what would lead nowhere.
fn graph(nodes: &str) -> Result<Graph, Vec<Problem>> {
    let base = format!(
        r#"{{"id": "f", "type": "source", "table": "files", "connector": {{"type": "filesystem", "path": "x", "format": "json"}}, "columns": {COLUMNS}}},
        {{"id": "fw", "type": "watermark", "inputs": ["f"], "column": "ts", "delay": "5s"}},
        {{"id": "r", "type": "source", "table": "live", "connector": {{"type": "replay", "path": "x", "format": "json", "replay.disorder": "5s"}}, "columns": {COLUMNS}}},
        {{"id": "w", "type": "watermark", "inputs": ["r"], "column": "ts", "delay": "5s"}},
        {{"id": "u", "type": "source", "table": "raw", "connector": {{"type": "datagen"}}, "columns": {COLUMNS}}}"#
    );
    // Only the base nodes that are used, so that boundedness is that of the test.
    let used = |id: &str, text: &str| text.contains(&format!("\"{id}\""));
    let lines: Vec<&str> = base.split(",\n        ").collect();
    let mut kept: Vec<String> = Vec::new();
    for (id, needs, line) in
        [("f", "fw", lines[0]), ("fw", "", lines[1]), ("r", "w", lines[2]), ("w", "", lines[3]), ("u", "", lines[4])]
    {
        if used(id, nodes) || (!needs.is_empty() && used(needs, nodes)) {
            kept.push(line.to_string());
        }
    }
    kept.push(nodes.to_string());
    let mut all = kept.join(", ");
    let mut sinks = 0;
    loop {
        match Graph::from_json(&format!(r#"{{"version": 1, "nodes": [{all}]}}"#)) {
            Err(problems) if sinks < 10 && problems.iter().any(|problem| problem.code == "unused_output") => {
                let unused = problems.iter().find(|problem| problem.code == "unused_output").unwrap();
                let id = unused.message.split('"').nth(1).unwrap().to_string();
                all.push_str(&format!(r#", {{"id": "sink{sinks}", "type": "sink", "inputs": ["{id}"], "table": "out", "connector": {{"type": "blackhole"}}}}"#));
                sinks += 1;
            }
            other => return other,
        }
    }
}

fn facts(analysis: &Analysis, id: &str) -> String {
    let facts = &analysis.facts[id];
    let time =
        facts.time.as_ref().map_or("no time".to_string(), |time| format!("{} by {} us", time.column, time.unit_us));
    let changelog = match &facts.changelog {
        Changelog::InsertOnly => "insert-only".to_string(),
        Changelog::Retract => "retract".to_string(),
        Changelog::Upsert(key) => format!("upsert {}", key.join(",")),
    };
    let key = facts.key.as_ref().map_or("no key".to_string(), |key| format!("key ({})", key.join(", ")));
    format!("{}, {time}, {changelog}, {key}: {}", if facts.bounded { "bounded" } else { "unbounded" }, facts.schema)
}

/// The facts of the node `x`, then the warnings; or the problems.
fn show(nodes: &str) -> String {
    let graph = match graph(nodes) {
        Ok(graph) => graph,
        Err(problems) => return format!("FORM {problems:?}"),
    };
    let shown = |problem: &Problem| {
        let place = match &problem.place {
            graph::Place::Pointer { pointer } => {
                let mut parts = pointer.splitn(4, '/');
                let index: usize = parts.nth(2).and_then(|index| index.parse().ok()).unwrap();
                format!("{}/{}", graph.nodes[index].id, parts.next().unwrap_or(""))
            }
            other => format!("{other:?}"),
        };
        let hint = problem.hint.as_ref().map_or(String::new(), |hint| format!(" -- {hint}"));
        format!("{place} [{}] {}{hint}", problem.code, problem.message)
    };
    match analyze(&graph, &Settings::default()) {
        Ok(analysis) => {
            let warnings: Vec<String> =
                analysis.warnings.iter().map(|warning| format!("\nwarning {}", shown(warning))).collect();
            format!("{}{}", facts(&analysis, "x"), warnings.concat())
        }
        Err(problems) => problems.iter().map(shown).collect::<Vec<_>>().join("\n"),
    }
}

fn check(table: &[(&str, &str)]) {
    let mut wrong = String::new();
    for (nodes, expected) in table {
        let got = show(nodes);
        if got != *expected {
            wrong.push_str(&format!("(r#\"{nodes}\"#, r#\"{got}\"#), // not {expected}\n"));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn graphs_that_pass() {
    check(&[
        (
            r#"{"id": "x", "type": "project", "inputs": ["f"], "columns": [{"name": "a", "expr": "v + 1"}, {"name": "K", "expr": "k"}]}"#,
            r#"bounded, no time, insert-only, no key: a BIGINT, K STRING"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["w"], "columns": [{"name": "t", "expr": "ts"}, {"name": "v", "expr": "v"}]}"#,
            r#"unbounded, t by 1000 us, insert-only, no key: t TIMESTAMP(3), v BIGINT"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["w"], "columns": [{"name": "t", "expr": "ts + INTERVAL '1' SECOND"}]}"#,
            r#"unbounded, no time, insert-only, no key: t TIMESTAMP(3)"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["w"], "columns": [{"name": "t", "expr": "CAST(ts AS TIMESTAMP(6))"}]}"#,
            r#"unbounded, t by 1 us, insert-only, no key: t TIMESTAMP(6)"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["w"], "columns": [{"name": "t", "expr": "CAST(ts AS TIMESTAMP(0))"}]}"#,
            r#"unbounded, no time, insert-only, no key: t TIMESTAMP(0)"#,
        ),
        (
            r#"{"id": "x", "type": "filter", "inputs": ["w"], "predicate": "v > 0"}"#,
            r#"unbounded, ts by 1000 us, insert-only, no key: k STRING, v BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3), t9 TIMESTAMP(9)"#,
        ),
        (
            r#"{"id": "p", "type": "project", "inputs": ["r"], "columns": [{"name": "t", "expr": "CAST(t9 AS TIMESTAMP(6))"}]}, {"id": "x", "type": "watermark", "inputs": ["p"], "column": "t", "delay": "1s"}"#,
            r#"unbounded, t by 1 us, insert-only, no key: t TIMESTAMP(6)
warning x/delay [late_rows_expected] rows of live arrive up to 5s out of order, and the watermark waits only 1s: rows will be late -- a delay of 5s loses none"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}, "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}, {"name": "s", "function": "sum", "args": ["d"]}, {"name": "a", "function": "avg", "args": ["v"]}]}"#,
            r#"unbounded, window_time by 1000 us, insert-only, key (k, window_start, window_end): k STRING, window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL, n BIGINT NOT NULL, s DECIMAL(38, 2), a BIGINT"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["fw"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}, "allowed_lateness": "1s"}"#,
            r#"bounded, window_time by 1000 us, insert-only, key (window_start, window_end): window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}, "allowed_lateness": "1s"}"#,
            r#"unbounded, window_time by 1000 us, retract, key (window_start, window_end): window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "session", "time": "ts", "gap": "5s"}, "keys": [{"name": "k", "expr": "k"}]}"#,
            r#"unbounded, window_time by 1000 us, insert-only, key (k, window_start, window_end): k STRING, window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL"#,
        ),
        (
            r#"{"id": "a", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}, "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "window_aggregate", "inputs": ["a"], "window": {"kind": "hop", "time": "window_time", "size": "1min", "slide": "30s"}, "aggregates": [{"name": "m", "function": "max", "args": ["n"]}]}"#,
            r#"unbounded, window_time by 1000 us, insert-only, key (window_start, window_end): window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL, m BIGINT"#,
        ),
        (
            r#"{"id": "x", "type": "window_assign", "inputs": ["w"], "window": {"kind": "cumulate", "time": "ts", "size": "1h", "step": "10min", "offset": "-5min"}}"#,
            r#"unbounded, window_time by 1000 us, insert-only, no key: k STRING, v BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3), t9 TIMESTAMP(9), window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL"#,
        ),
        (
            r#"{"id": "a", "type": "window_assign", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}}, {"id": "p", "type": "project", "inputs": ["a"], "columns": [{"name": "ts", "expr": "ts"}, {"name": "v", "expr": "v"}, {"name": "window_start", "expr": "window_start"}, {"name": "window_end", "expr": "window_end"}, {"name": "window_time", "expr": "window_time"}]}, {"id": "x", "type": "window_aggregate", "inputs": ["p"], "window": {"kind": "attached"}, "aggregates": [{"name": "f", "function": "first_value", "args": ["v"]}]}"#,
            r#"unbounded, window_time by 1000 us, insert-only, key (window_start, window_end): window_start TIMESTAMP(3) NOT NULL, window_end TIMESTAMP(3) NOT NULL, window_time TIMESTAMP(3) NOT NULL, f BIGINT"#,
        ),
        (
            r#"{"id": "x", "type": "aggregate", "inputs": ["f"], "keys": [{"name": "k", "expr": "UPPER(k)"}], "aggregates": [{"name": "n", "function": "count", "args": ["v"], "distinct": true}]}"#,
            r#"bounded, no time, insert-only, key (k): k STRING, n BIGINT NOT NULL"#,
        ),
        (
            r#"{"id": "x", "type": "aggregate", "inputs": ["w"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}, {"name": "p", "function": "approx_percentile", "args": ["v"], "fraction": 0.5}]}"#,
            r#"unbounded, no time, retract, key (k): k STRING, n BIGINT NOT NULL, p DOUBLE
warning x/ [state_grows] "x" keeps every key for ever: about 64 bytes per key -- group by a window too if old keys are no longer needed"#,
        ),
        (
            r#"{"id": "x", "type": "aggregate", "inputs": ["u"], "aggregates": [{"name": "n", "function": "count", "filter": "v > 0"}]}"#,
            r#"unbounded, no time, retract, key (): n BIGINT NOT NULL"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["u"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "aggregate", "inputs": ["a"], "keys": [{"name": "n", "expr": "n"}], "aggregates": [{"name": "c", "function": "count"}]}"#,
            r#"unbounded, no time, retract, key (n): n BIGINT NOT NULL, c BIGINT NOT NULL
warning a/ [state_grows] "a" keeps every key for ever: about 56 bytes per key -- group by a window too if old keys are no longer needed
warning x/ [state_grows] "x" keeps every key for ever: about 40 bytes per key -- group by a window too if old keys are no longer needed"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["u"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "project", "inputs": ["a"], "columns": [{"name": "key", "expr": "k"}, {"name": "at", "expr": "NOW()"}]}"#,
            r#"unbounded, no time, retract, key (key): key STRING, at TIMESTAMP_LTZ(3) NOT NULL
warning a/ [state_grows] "a" keeps every key for ever: about 56 bytes per key -- group by a window too if old keys are no longer needed"#,
        ),
        (
            r#"{"id": "x", "type": "union", "inputs": ["w", "w"]}"#,
            r#"unbounded, ts by 1000 us, insert-only, no key: k STRING, v BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3), t9 TIMESTAMP(9)"#,
        ),
        (
            r#"{"id": "p", "type": "project", "inputs": ["w"], "columns": [{"name": "t", "expr": "CAST(ts AS TIMESTAMP(6))"}]}, {"id": "q", "type": "project", "inputs": ["fw"], "columns": [{"name": "s", "expr": "ts"}]}, {"id": "x", "type": "union", "inputs": ["p", "q"]}"#,
            r#"unbounded, t by 1 us, insert-only, no key: t TIMESTAMP(6)"#,
        ),
        (
            r#"{"id": "x", "type": "union", "inputs": ["w", "u"]}"#,
            r#"unbounded, no time, insert-only, no key: k STRING, v BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3), t9 TIMESTAMP(9)
warning x/inputs [time_attribute_lost] the inputs of the union do not all have their time attribute in the same column, so the result has none -- declare a watermark in each, and project the time to the same position"#,
        ),
        (
            r#"{"id": "x", "type": "sort", "inputs": ["f"], "by": [{"expr": "v", "descending": true}], "limit": 10}"#,
            r#"bounded, no time, insert-only, no key: k STRING, v BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3), t9 TIMESTAMP(9)"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["u"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "sink", "inputs": ["a"], "table": "out", "connector": {"type": "print"}, "columns": [{"name": "k", "type": "STRING", "nullable": false}, {"name": "n", "type": "INT"}], "primary_key": ["k"]}"#,
            r#"unbounded, no time, upsert k, key (k): k STRING NOT NULL, n INT
warning a/ [state_grows] "a" keeps every key for ever: about 56 bytes per key -- group by a window too if old keys are no longer needed"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["f"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "sink", "inputs": ["a"], "table": "out", "connector": {"type": "filesystem", "path": "o", "format": "json"}}"#,
            r#"bounded, no time, insert-only, no key: k STRING, n BIGINT NOT NULL"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["u"], "columns": [{"name": "t", "expr": "PROCTIME()"}]}"#,
            r#"unbounded, no time, insert-only, no key: t TIMESTAMP_LTZ(3) NOT NULL"#,
        ),
        (
            r#"{"id": "a", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}, "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "late_rows", "inputs": ["a"]}"#,
            r#"unbounded, no time, insert-only, no key: source STRING, split STRING, position BIGINT, event_time TIMESTAMP(6) NOT NULL, watermark TIMESTAMP(6) NOT NULL, operator STRING NOT NULL, windows_missed BIGINT NOT NULL, row STRING NOT NULL"#,
        ),
        (
            r#"{"id": "y", "type": "watermark", "inputs": ["r"], "column": "ts", "delay": "1s"}, {"id": "x", "type": "filter", "inputs": ["y"], "predicate": "TRUE"}"#,
            r#"unbounded, ts by 1000 us, insert-only, no key: k STRING, v BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3), t9 TIMESTAMP(9)
warning y/delay [late_rows_expected] rows of live arrive up to 5s out of order, and the watermark waits only 1s: rows will be late -- a delay of 5s loses none"#,
        ),
        (
            r#"{"id": "x", "type": "aggregate", "inputs": ["f"], "aggregates": [{"name": "v", "function": "last_value", "args": ["v"]}]}"#,
            r#"bounded, no time, insert-only, key (): v BIGINT
warning x/aggregates/0 [no_time_attribute] last_value goes by the time attribute, and the input has none: all rows tie, and it gives the largest value -- declare a watermark on the source, or use min or max"#,
        ),
    ]);
}

#[test]
fn graphs_that_are_refused() {
    check(&[
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["f"], "keys": [{"name": "k", "expr": "k"}]}, {"id": "x", "type": "sort", "inputs": ["a"], "limit": 1}, {"id": "y", "type": "filter", "inputs": ["u"], "predicate": "TRUE"}"#,
            r#"x/ [sort_updates] "x" cannot order the changing rows of "a", which is beside a stream in this graph -- put it into a graph of its own, where all sources are bounded"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["f"], "columns": [{"name": "a", "expr": "vv"}, {"name": "a", "expr": "v +"}, {"name": "", "expr": "UPER(k)"}]}"#,
            r#"x/columns/0/expr [unknown_column] there is no column vv (at character 1 of vv) -- did you mean v?
x/columns/1/expr [syntax_error] Expected: an expression, but the expression ends (at character 4 of v +)
x/columns/1/name [duplicate_column] there are two columns a -- give one of them another name
x/columns/2/expr [unknown_function] there is no function UPER (at character 1 of UPER(k)) -- did you mean UPPER?
x/columns/2/name [invalid_name] a column has a name"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["f"], "columns": []}"#,
            r#"x/columns [no_columns] a projection has at least one column"#,
        ),
        (
            r#"{"id": "x", "type": "project", "inputs": ["f"], "columns": [{"name": "t", "expr": "PROCTIME()"}]}"#,
            r#"x/columns/0/expr [processing_time_bounded] PROCTIME() has no meaning over a bounded input: the result would depend on when it is computed -- use a column of event time"#,
        ),
        (
            r#"{"id": "x", "type": "filter", "inputs": ["f"], "predicate": "v"}, {"id": "y", "type": "filter", "inputs": ["x"], "predicate": "nonsense"}"#,
            r#"x/predicate [type_mismatch] a filter wants BOOLEAN, not BIGINT -- write a comparison, such as x <> 0"#,
        ),
        (
            r#"{"id": "x", "type": "watermark", "inputs": ["r"], "column": "v"}, {"id": "y", "type": "watermark", "inputs": ["r"], "column": "t9"}, {"id": "z", "type": "watermark", "inputs": ["r"], "column": "tt", "delay": "-1s"}"#,
            r#"x/column [not_a_time_attribute] v is BIGINT; a time attribute is a TIMESTAMP or TIMESTAMP_LTZ of precision 0, 3 or 6 -- write TO_TIMESTAMP_LTZ(v, 3) in a projection before it
y/column [not_a_time_attribute] t9 is TIMESTAMP(9); a time attribute is a TIMESTAMP or TIMESTAMP_LTZ of precision 0, 3 or 6 -- write CAST(t9 AS TIMESTAMP(6)) in a projection before it
z/column [unknown_column] there is no column tt -- did you mean t9?
z/delay [out_of_range] delay is at least 0"#,
        ),
        (
            r#"{"id": "x", "type": "watermark", "inputs": ["w"], "column": "ts"}"#,
            r#"x/ [misplaced_watermark] a watermark is declared at its source: between them there are only projections and filters -- move it up to the source; unions and windows carry the time attribute on"#,
        ),
        (
            r#"{"id": "n", "type": "union", "inputs": ["u", "u"]}, {"id": "x", "type": "watermark", "inputs": ["n"], "column": "ts"}"#,
            r#"x/ [misplaced_watermark] a watermark is declared at its source: between them there are only projections and filters -- move it up to the source; unions and windows carry the time attribute on"#,
        ),
        (
            r#"{"id": "a9", "type": "source", "table": "a9", "connector": {"type": "datagen"}, "columns": [{"name": "ts", "type": "TIMESTAMP(3)"}]}, {"id": "x", "type": "watermark", "inputs": ["a9"], "column": "ts"}, {"id": "y", "type": "filter", "inputs": ["a9"], "predicate": "ts IS NULL"}"#,
            r#"x/ [misplaced_watermark] a9 is also read without this watermark, by y -- let all readers read the watermark, or write a second source for the others"#,
        ),
        (
            r#"{"id": "x", "type": "watermark", "inputs": ["u"], "column": "ts", "on_null": "dead_letter"}"#,
            r#"x/on_null [no_dead_letters] the rows of raw without a time have nowhere to go -- connect a dead_letters node to the source and to a sink, or choose fail or drop"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["u"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}}"#,
            r#"x/window/time [not_a_time_attribute] ts (TIMESTAMP(3)) is not a time attribute: raw declares no watermark, so its windows would never close -- write WATERMARK FOR ts AS ts - INTERVAL '5' SECOND in the table, or put a watermark node after the source"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "t9", "size": "10s"}}"#,
            r#"x/window/time [not_a_time_attribute] t9 is not the time attribute, ts is -- use ts, or declare the watermark on t9"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "tz", "size": "10s"}}"#,
            r#"x/window/time [unknown_column] there is no column tz -- did you mean t9?"#,
        ),
        (
            r#"{"id": "p", "type": "project", "inputs": ["w"], "columns": [{"name": "ts", "expr": "ts + INTERVAL '1' SECOND"}]}, {"id": "x", "type": "window_aggregate", "inputs": ["p"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}}"#,
            r#"x/window/time [not_a_time_attribute] ts (TIMESTAMP(3)) is no longer a time attribute here -- an expression or a GROUP BY without a window ends it: pass the time column through as it is, or use window_time"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "0s"}}"#,
            r#"x/window/size [invalid_window] the size of a window is above 0, not 0s"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "1500us", "offset": "1us"}}"#,
            r#"x/window/offset [invalid_window] the offset 1us is not a multiple of 1ms, the unit of ts -- declare ts with more digits, as TIMESTAMP(6), or round the length
x/window/size [invalid_window] the size 1ms500us is not a multiple of 1ms, the unit of ts -- declare ts with more digits, as TIMESTAMP(6), or round the length"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "hop", "time": "ts", "size": "10s", "slide": "3s"}}"#,
            r#"x/window/slide [invalid_window] the slide 3s does not divide the size 10s -- choose a size that is a multiple of the slide"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "hop", "time": "ts", "size": "10s", "slide": "-1s"}}"#,
            r#"x/window/slide [invalid_window] the slide of a window is above 0, not -1s"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "hop", "time": "ts", "size": "1day", "slide": "1us"}}"#,
            r#"x/window/slide [invalid_window] the slide 1us is not a multiple of 1ms, the unit of ts -- declare ts with more digits, as TIMESTAMP(6), or round the length
x/window/slide [invalid_window] each row would belong to 86400000000 windows; 100000 are the most -- choose a longer slide"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "cumulate", "time": "ts", "size": "10s", "step": "4s"}}"#,
            r#"x/window/step [invalid_window] the step 4s does not divide the size 10s -- choose a size that is a multiple of the step"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "hop", "time": "ts", "size": "10min", "slide": "1ms"}}"#,
            r#"x/window/slide [invalid_window] each row would belong to 600000 windows; 100000 are the most -- choose a longer slide"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "session", "time": "ts", "gap": "0s"}}"#,
            r#"x/window/gap [invalid_window] the gap of a window is above 0, not 0s"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "attached"}}"#,
            r#"x/window [no_window] the input carries no windows: window_start, window_end and window_time of a window operator are not all there -- put a window_assign before it, and let projections keep the three columns as they are"#,
        ),
        (
            r#"{"id": "x", "type": "window_assign", "inputs": ["w"], "window": {"kind": "session", "time": "ts", "gap": "1s"}}"#,
            r#"x/window [invalid_window] a session is known only with its rows, so it cannot be attached to them -- use window_aggregate"#,
        ),
        (
            r#"{"id": "a", "type": "window_assign", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}}, {"id": "x", "type": "window_assign", "inputs": ["a"], "window": {"kind": "tumble", "time": "window_time", "size": "1min"}}"#,
            r#"x/window [duplicate_column] the input already has a column window_start -- give it another name in a projection before the window
x/window [duplicate_column] the input already has a column window_end -- give it another name in a projection before the window
x/window [duplicate_column] the input already has a column window_time -- give it another name in a projection before the window"#,
        ),
        (
            r#"{"id": "x", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}, "keys": [{"name": "window_end", "expr": "k"}], "aggregates": [{"name": "n", "function": "sum", "args": ["k"]}, {"name": "n", "function": "count", "args": ["v", "k"]}], "allowed_lateness": "-1s"}"#,
            r#"x/aggregates/0 [wrong_arguments] SUM takes a number, not STRING -- write CAST(text AS DOUBLE)
x/aggregates/1/args [wrong_arguments] count takes one argument, not 2
x/aggregates/1/name [duplicate_column] there are two columns n -- give one of them another name
x/allowed_lateness [out_of_range] allowed_lateness is at least 0
x/window [duplicate_column] there are two columns window_end -- give one of them another name"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["w"], "keys": [{"name": "ts", "expr": "ts"}]}, {"id": "x", "type": "window_aggregate", "inputs": ["a"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}}"#,
            r#"x/window [window_over_updates] "x" puts changing rows into windows: the result of "a" is updating -- aggregate by windows first, or leave the window out: a plain GROUP BY takes changing rows"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["u"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "aggregate", "inputs": ["a"], "aggregates": [{"name": "p", "function": "approx_percentile", "args": ["n"], "fraction": 0.5}]}"#,
            r#"x/aggregates/0 [cannot_retract] approx_percentile cannot take back a row, and the result of "a" is updating -- aggregate before, in windows; count, sum, avg, min, max, stddev and var take changing rows"#,
        ),
        (
            r#"{"id": "x", "type": "aggregate", "inputs": ["u"], "aggregates": [{"name": "p", "function": "first_value", "args": ["v"]}, {"name": "q", "function": "approx_percentile", "args": ["v"], "fraction": 2}, {"name": "r", "function": "sum"}, {"name": "s", "function": "min", "args": ["v"], "filter": "v"}]}"#,
            r#"x/aggregates/0 [no_time_attribute] first_value goes by the time attribute, and the input has none -- declare a watermark on the source, or use min or max
x/aggregates/1 [wrong_arguments] the fraction 2 is not from 0 to 1 -- 0.5 is the median
x/aggregates/2 [wrong_arguments] SUM needs an argument -- only COUNT(*) has none
x/aggregates/3/filter [type_mismatch] FILTER wants BOOLEAN, not BIGINT -- write a comparison, such as x <> 0"#,
        ),
        (
            r#"{"id": "x", "type": "aggregate", "inputs": ["u"]}"#,
            r#"x/ [no_columns] an aggregate has keys or aggregates"#,
        ),
        (
            r#"{"id": "x", "type": "sort", "inputs": ["w"], "by": [{"expr": "v"}]}"#,
            r#"x/ [sort_unbounded] ORDER BY at "x" would wait for the end of a stream that has none -- aggregate by windows and order the result where it is read, or bound the source"#,
        ),
        (
            r#"{"id": "x", "type": "sort", "inputs": ["u"], "limit": 1}"#,
            r#"x/ [sort_unbounded] LIMIT at "x" would wait for the end of a stream that has none -- aggregate by windows and order the result where it is read, or bound the source"#,
        ),
        (r#"{"id": "x", "type": "sort", "inputs": ["f"]}"#, r#"x/ [no_columns] a sort has an order or a limit"#),
        (
            r#"{"id": "p", "type": "project", "inputs": ["f"], "columns": [{"name": "k", "expr": "v"}]}, {"id": "q", "type": "project", "inputs": ["f"], "columns": [{"name": "k", "expr": "k"}]}, {"id": "x", "type": "union", "inputs": ["p", "q", "f"]}"#,
            r#"x/inputs/1 [union_mismatch] column 1 of the union is k BIGINT in "p" but k STRING in "q" -- write a CAST in a projection before the union
x/inputs/2 [union_mismatch] the inputs of a union have as many columns: "p" has 1, "f" has 5 -- project the same columns from each"#,
        ),
        (
            r#"{"id": "x", "type": "sink", "inputs": ["f"], "table": "out", "connector": {"type": "print"}, "columns": [{"name": "k", "type": "BIGINT"}, {"name": "v", "type": "INT"}, {"name": "d", "type": "STRING"}, {"name": "ts", "type": "TIMESTAMP(0)"}, {"name": "t9", "type": "DATE"}], "primary_key": ["kk", "k", "k"]}"#,
            r#"x/columns/0/type [sink_mismatch] column 1 of out is k BIGINT, and k STRING comes in -- columns are matched by position; write CAST(k AS BIGINT)
x/columns/2/type [sink_mismatch] column 3 of out is d STRING, and d DECIMAL(10, 2) comes in -- columns are matched by position; write CAST(d AS STRING)
x/columns/4/type [sink_mismatch] column 5 of out is t9 DATE, and t9 TIMESTAMP(9) comes in -- columns are matched by position; write CAST(t9 AS DATE)
x/primary_key/0 [unknown_column] there is no column kk for the primary key -- did you mean k?
x/primary_key/2 [duplicate_column] k is twice in the primary key"#,
        ),
        (
            r#"{"id": "x", "type": "sink", "inputs": ["f"], "table": "out", "connector": {"type": "print"}, "columns": [{"name": "k", "type": "STRING"}], "partition_by": ["z"]}"#,
            r#"x/columns [sink_mismatch] out has 1 columns, and 5 come in: k, v, d, ts, t9 -- columns are matched by position; project as many as the table has
x/partition_by [invalid_partitions] every column is a partition column -- leave one for the files
x/partition_by/0 [unknown_column] there is no column z to partition by -- did you mean k?"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["u"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "p", "type": "filter", "inputs": ["a"], "predicate": "n > 1"}, {"id": "x", "type": "sink", "inputs": ["p"], "table": "out", "connector": {"type": "filesystem", "path": "o", "format": "json"}}"#,
            r#"x/connector [sink_takes_no_updates] out (filesystem) only adds rows, and the aggregate "a" changes rows that it has given -- group by a window too, write to a sink that takes changes (print, blackhole), or bound the sources: then the final rows are written"#,
        ),
        (
            r#"{"id": "a", "type": "window_aggregate", "inputs": ["w"], "window": {"kind": "tumble", "time": "ts", "size": "10s"}, "allowed_lateness": "1s"}, {"id": "x", "type": "sink", "inputs": ["a"], "table": "out", "connector": {"type": "filesystem", "path": "o", "format": "json"}}"#,
            r#"x/connector [sink_takes_no_updates] out (filesystem) only adds rows, and the window_aggregate "a" changes rows that it has given -- set allowed_lateness to 0, write to a sink that takes changes (print, blackhole), or bound the sources"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["u"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "sink", "inputs": ["a"], "table": "out", "connector": {"type": "view"}}, {"id": "y", "type": "sink", "inputs": ["a"], "table": "keyed", "connector": {"type": "view"}, "primary_key": ["k"]}"#,
            r#"x/connector [sink_takes_no_updates] out (view) only adds rows, and the aggregate "a" changes rows that it has given -- declare PRIMARY KEY (...) NOT ENFORCED: then the view keeps a row per key"#,
        ),
        (
            r#"{"id": "x", "type": "sink", "inputs": ["f"], "table": "a b", "connector": {"type": "view", "retention.rows": 5}, "primary_key": ["k"]}, {"id": "y", "type": "sink", "inputs": ["f"], "table": "v", "connector": {"type": "view", "retention.rows": 5}}, {"id": "z", "type": "sink", "inputs": ["f"], "table": "w", "connector": {"type": "view", "view.name": "v"}}"#,
            r#"x/connector [invalid_view_name] a view cannot be called "a b" -- use letters, digits, _, - and ., at most 128, and begin with another than .; 'view.name' gives it another name than its table's
x/connector/retention.rows [invalid_option] 'retention.rows' removes old rows, and the view a b keeps a row per key -- remove the option, or the primary key
y/connector [duplicate_view] v and w both write the view v -- give one of them another 'view.name'
z/connector [duplicate_view] w and v both write the view v -- give one of them another 'view.name'"#,
        ),
        (
            r#"{"id": "a", "type": "aggregate", "inputs": ["u"], "keys": [{"name": "k", "expr": "k"}], "aggregates": [{"name": "n", "function": "count"}]}, {"id": "x", "type": "project", "inputs": ["a"], "columns": [{"name": "n", "expr": "n"}, {"name": "at", "expr": "NOW()"}]}, {"id": "y", "type": "filter", "inputs": ["a"], "predicate": "n > EXTRACT(SECOND FROM NOW())"}, {"id": "z", "type": "aggregate", "inputs": ["a"], "aggregates": [{"name": "m", "function": "max", "args": ["UNIX_TIMESTAMP() + n"]}]}"#,
            r#"x/columns [non_deterministic_update] at depends on the clock, and the changing rows have no key here -- keep the columns of the key
y/predicate [non_deterministic_update] a filter that depends on the clock cannot take changing rows: it may keep a row and drop the one that takes it back -- filter before the aggregation
z/aggregates/0/args/0 [non_deterministic_update] an aggregate of changing rows cannot depend on the clock: what is taken back would not be what was added -- compute it before the first aggregation"#,
        ),
        (
            r#"{"id": "s", "type": "source", "table": "bad", "connector": {"type": "datagen"}, "columns": [{"name": "a", "type": "INT"}, {"name": "a", "type": "INT"}], "on_bad_record": "dead_letter", "partition_by": ["p"]}, {"id": "x", "type": "filter", "inputs": ["s"], "predicate": "TRUE"}"#,
            r#"s/columns/1/name [duplicate_column] there are two columns a -- give one of them another name
s/on_bad_record [no_dead_letters] the bad records of bad have nowhere to go -- connect a dead_letters node to the source and to a sink, or choose fail or drop
s/partition_by [invalid_partitions] the partition columns are the last columns, in the order of partition_by -- move them to the end of columns
s/partition_by/0 [unknown_column] there is no column p to partition by -- did you mean a?"#,
        ),
    ]);
}
