//! Generated queries over generated data, answered by DuckDB too.
//!
//! A query is drawn as a tree and written in both dialects, which differ in a few places: integer division, AVG of
//! integers, and windows, which DuckDB has to spell out. Everything follows from the seed; a failure prints both texts.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use integration_tests::compare::{self, Row};
use integration_tests::program;
use rstest::rstest;
use serde_json::{Value, json};

use super::support;

const QUERIES_PER_SEED: usize = 15;
const ROWS: usize = 400;

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// The same thing in both dialects.
#[derive(Clone, Debug)]
struct Text {
    ours: String,
    duck: String,
}

impl Text {
    fn same(text: impl Into<String>) -> Text {
        let ours = text.into();
        Text { duck: ours.clone(), ours }
    }

    /// Puts `parts` into the places `{}` of a pattern.
    fn of(pattern: &str, parts: &[&Text]) -> Text {
        Text::of_both(pattern, pattern, parts)
    }

    fn of_both(ours: &str, duck: &str, parts: &[&Text]) -> Text {
        let fill = |pattern: &str, part: fn(&Text) -> &str| {
            let mut pieces = pattern.split("{}");
            let mut text = pieces.next().unwrap().to_owned();
            for (piece, with) in pieces.zip(parts) {
                text.push_str(part(with));
                text.push_str(piece);
            }
            text
        };
        Text { ours: fill(ours, |text| &text.ours), duck: fill(duck, |text| &text.duck) }
    }
}

fn integer(dice: &mut Dice, depth: u32) -> Text {
    if depth == 0 || dice.below(4) == 0 {
        return Text::same(dice.pick(&["k", "v", "v", "w", "3", "-7", "100"]));
    }
    let (a, b) = (integer(dice, depth - 1), integer(dice, depth - 1));
    match dice.below(9) {
        0 => Text::of("({} + {})", &[&a, &b]),
        1 => Text::of("({} - {})", &[&a, &b]),
        2 => Text::of("({} * 3)", &[&a]),
        3 => Text::of_both("({} / 7)", "({} // 7)", &[&a]),
        4 => Text::of_both("MOD({}, 5)", "({} % 5)", &[&a]),
        5 => Text::of("ABS({})", &[&a]),
        6 => Text::of("COALESCE({}, {})", &[&a, &b]),
        7 => Text::of("CASE WHEN {} THEN {} ELSE {} END", &[&condition(dice, depth - 1), &a, &b]),
        _ => Text::of("CHAR_LENGTH({})", &[&text(dice)]),
    }
}

fn text(dice: &mut Dice) -> Text {
    match dice.below(7) {
        // NULL when a part is, as in Flink; DuckDB's function leaves NULLs out.
        0 => Text::of_both("CONCAT(s, 'x')", "(s || 'x')", &[]),
        _ => Text::same(dice.pick(&[
            "s",
            "s",
            "UPPER(s)",
            "SUBSTRING(s, 2, 2)",
            "COALESCE(s, 'none')",
            "REPLACE(s, 'a', 'bb')",
        ])),
    }
}

fn double(dice: &mut Dice) -> Text {
    let whole = integer(dice, 1);
    match dice.below(4) {
        0 => Text::same("d"),
        1 => Text::of("(d * 0.5 + CAST({} AS DOUBLE))", &[&whole]),
        2 => Text::of("CAST({} AS DOUBLE)", &[&whole]),
        _ => Text::same("(d - 2.5)"),
    }
}

fn condition(dice: &mut Dice, depth: u32) -> Text {
    let (a, b) = (integer(dice, 1), integer(dice, 0));
    if depth > 0 {
        let (left, right) = (condition(dice, depth - 1), condition(dice, depth - 1));
        match dice.below(5) {
            0 => return Text::of("({} AND {})", &[&left, &right]),
            1 => return Text::of("({} OR {})", &[&left, &right]),
            2 => return Text::of("(NOT {})", &[&left]),
            _ => {}
        }
    }
    match dice.below(8) {
        0 => Text::of("({} > {})", &[&a, &b]),
        1 => Text::of("({} <= {})", &[&a, &b]),
        2 => Text::of("({} <> {})", &[&a, &b]),
        3 => Text::of("({} IS NULL)", &[&a]),
        4 => Text::of("({} BETWEEN -5 AND 40)", &[&a]),
        5 => Text::same("(s IN ('a', 'ab', 'cab'))"),
        6 => Text::same("(s LIKE '%a_')"),
        _ => Text::same("(s IS NOT NULL)"),
    }
}

fn aggregate(dice: &mut Dice) -> Text {
    let value = integer(dice, 1);
    let filter =
        if dice.below(4) == 0 { Text::of(" FILTER (WHERE {})", &[&condition(dice, 0)]) } else { Text::same("") };
    match dice.below(9) {
        0 => Text::of("COUNT(*){}", &[&filter]),
        1 => Text::of("COUNT({}){}", &[&value, &filter]),
        2 => Text::of_both("SUM({}){}", "CAST(SUM({}){} AS BIGINT)", &[&value, &filter]),
        // AVG of integers is truncated toward zero; DuckDB's `//` truncates too.
        3 => Text::of_both(
            "AVG({}){}",
            "CAST((SUM({}){} // COUNT({}){}) AS BIGINT)",
            &[&value, &filter, &value, &filter],
        ),
        4 => Text::of("MIN({}){}", &[&value, &filter]),
        5 => Text::of("MAX({}){}", &[&text(dice), &filter]),
        6 => Text::of("COUNT(DISTINCT {}){}", &[&value, &filter]),
        7 => Text::of("AVG({}){}", &[&double(dice), &filter]),
        _ => Text::of("STDDEV_POP({}){}", &[&double(dice), &filter]),
    }
}

/// Where rows come from, with the window columns where there are any.
fn window(dice: &mut Dice) -> Text {
    let slide = dice.pick(&[2, 5, 10]);
    let size = slide * dice.pick(&[1, 2, 3, 6]);
    let offset: i64 = dice.pick(&[0, 0, 3, -4]);
    let with_offset = if offset == 0 { String::new() } else { format!(", INTERVAL '{offset}' SECOND") };
    let bucket =
        |step: i64| format!("time_bucket(INTERVAL {step} SECOND, ts, INTERVAL {} SECOND)", offset.rem_euclid(step));
    let (ours, rows) = match dice.below(3) {
        0 => (
            format!("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '{size}' SECOND{with_offset})"),
            format!("SELECT *, {} AS window_start FROM t", bucket(size)),
        ),
        1 => (
            format!("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND{with_offset})"),
            format!(
                "SELECT *, unnest(generate_series({}, ts - INTERVAL {size} SECOND + INTERVAL 1 MILLISECOND, INTERVAL '-{slide} seconds')) AS window_start FROM t",
                bucket(slide)
            ),
        ),
        _ => {
            let rows = format!(
                "SELECT *, {} AS window_start, unnest(generate_series({} + INTERVAL {slide} SECOND, {} + INTERVAL {size} SECOND, INTERVAL {slide} SECOND)) AS window_end FROM t",
                bucket(size),
                bucket_from(slide, size, offset),
                bucket(size)
            );
            let ours = format!(
                "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '{slide}' SECOND, INTERVAL '{size}' SECOND{with_offset})"
            );
            return Text { ours: format!("TABLE({ours})"), duck: format!("({rows})") };
        }
    };
    Text {
        ours: format!("TABLE({ours})"),
        duck: format!("(SELECT *, window_start + INTERVAL {size} SECOND AS window_end FROM ({rows}))"),
    }
}

/// The start of the step of a cumulating window that holds the row: steps count from the window's start.
fn bucket_from(step: i64, size: i64, offset: i64) -> String {
    let start = format!("time_bucket(INTERVAL {size} SECOND, ts, INTERVAL {} SECOND)", offset.rem_euclid(size));
    format!("({start} + INTERVAL {step} SECOND * CAST(floor(epoch(ts - {start}) / {step}) AS BIGINT))")
}

/// A query whose columns are `c0, c1, ...`.
fn query(dice: &mut Dice) -> Text {
    let filter = if dice.below(2) == 0 { Text::of(" WHERE {}", &[&condition(dice, 2)]) } else { Text::same("") };
    let (mut columns, mut keys): (Vec<Text>, Vec<Text>) = (Vec::new(), Vec::new());
    let shape = dice.below(3);
    let from = match shape {
        0 => {
            columns.extend([integer(dice, 3), text(dice), double(dice), condition(dice, 1)]);
            columns.push(Text::same("ts"));
            Text::same("t")
        }
        1 => Text::same("t"),
        _ => {
            keys.extend([Text::same("window_start"), Text::same("window_end")]);
            window(dice)
        }
    };
    if shape > 0 {
        for _ in 0..dice.below(3) {
            keys.push(if dice.below(2) == 0 { Text::same("s") } else { Text::of_both("MOD(k, 4)", "(k % 4)", &[]) });
        }
        keys.dedup_by(|one, other| one.ours == other.ours);
        columns.extend(keys.iter().cloned());
        for _ in 0..=dice.below(3) {
            columns.push(aggregate(dice));
        }
    }
    let list = |part: fn(&Text) -> &str, with_names: bool| {
        let mut text = String::new();
        for (index, column) in columns.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            let name = if with_names { format!(" AS c{index}") } else { String::new() };
            write!(text, "{comma}{}{name}", part(column)).unwrap();
        }
        text
    };
    let group = |part: fn(&Text) -> &str| {
        if keys.is_empty() {
            String::new()
        } else {
            format!(" GROUP BY {}", keys.iter().map(part).collect::<Vec<_>>().join(", "))
        }
    };
    type Side = fn(&Text) -> &str;
    let (ours, duck): (Side, Side) = (|text| &text.ours, |text| &text.duck);
    Text {
        ours: format!("SELECT {} FROM {}{}{}", list(ours, true), from.ours, filter.ours, group(ours)),
        duck: format!("SELECT {} FROM {}{}{}", list(duck, true), from.duck, filter.duck, group(duck)),
    }
}

fn data(dice: &mut Dice) -> String {
    let mut lines = String::new();
    for row in 0..ROWS as u64 {
        let maybe = |dice: &mut Dice, value: Value| if dice.below(8) == 0 { Value::Null } else { value };
        let milliseconds = row * 250 + dice.below(3_000);
        let (k, v, w) = (dice.below(9) as i64 - 2, dice.below(120) as i64 - 60, dice.below(1_000) as i64);
        let d = dice.below(4_000) as f64 / 16.0 - 100.0;
        let s = dice.pick(&["a", "ab", "cab", "", "ä", "Zebra"]);
        let record = json!({
            "k": maybe(dice, json!(k)), "v": maybe(dice, json!(v)), "w": w, "d": maybe(dice, json!(d)), "s": maybe(dice, json!(s)),
            "ts": format!("2024-03-01 08:{:02}:{:02}.{:03}", milliseconds / 60_000, milliseconds / 1_000 % 60, milliseconds % 1_000),
        });
        writeln!(lines, "{record}").unwrap();
    }
    lines
}

fn duckdb_answers(file: &Path, queries: &[Text]) -> Vec<Vec<Row>> {
    let columns =
        json!({"k": "BIGINT", "v": "BIGINT", "w": "BIGINT", "d": "DOUBLE", "s": "VARCHAR", "ts": "TIMESTAMP"});
    let texts: Vec<&str> = queries.iter().map(|query| query.duck.as_str()).collect();
    let request = json!({"files": {"t": {"path": file, "columns": columns}}, "queries": texts});
    let mut process = Command::new(program::python())
        .arg(program::repository().join("integration-tests/oracle.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    process.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success(), "the oracle failed over {texts:#?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Vec<Row>> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), queries.len());
    answers
}

#[rstest]
fn generated_queries_give_what_duckdb_gives(#[values(1, 2, 3, 4)] seed: u64) {
    let mut dice = Dice(seed);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.jsonl");
    std::fs::write(&file, data(&mut dice)).unwrap();
    let queries: Vec<Text> = (0..QUERIES_PER_SEED).map(|_| query(&mut dice)).collect();
    let answers = duckdb_answers(&file, &queries);
    assert!(
        answers.iter().filter(|rows| !rows.is_empty()).count() * 2 > answers.len(),
        "most of the queries find nothing"
    );
    for (index, (query, answer)) in queries.iter().zip(&answers).enumerate() {
        let script = format!(
            "CREATE TABLE t (k BIGINT, v BIGINT, w BIGINT, d DOUBLE, s STRING, ts TIMESTAMP(3),\n\
             WATERMARK FOR ts AS ts - INTERVAL '3' SECOND) WITH ('connector' = 'filesystem', 'path' = 't.jsonl', 'format' = 'json');\n{};\n",
            query.ours
        );
        std::fs::write(folder.path().join("query.sql"), script).unwrap();
        for arguments in [
            &[] as &[&str],
            &["--set", "tables.t.connector=replay", "--set", "source.batch-rows=50", "--parallelism", "2"],
        ] {
            let finished = support::highwater(folder.path(), [&["run", "query.sql", "-o", "json"], arguments].concat());
            let context =
                || format!("seed {seed}, query {index}, {arguments:?}\n{}\nDuckDB: {}\n", query.ours, query.duck);
            assert_eq!(finished.code, Some(0), "{}{}", context(), finished.report());
            let rows = compare::rows(&finished.stdout, "stdout").and_then(|rows| compare::fold(rows, &[]));
            let rows = rows.unwrap_or_else(|error| panic!("{}{error}", context()));
            if let Err(report) = compare::same_rows(answer, &rows) {
                panic!("{}DuckDB (<) and ours (>): {report}", context());
            }
        }
    }
}
