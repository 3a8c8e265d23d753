//! Short fuzzing of scripts and graphs in every run of the tests, always the same: the scripts of the cases and the graphs that they
//! compile to, mutated by their grammar. What must hold of each text is in fuzz/planning.rs, which the targets of cargo-fuzz share.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use formats::conformance::Random;
use integration_tests::program::repository;
use serde_json::{Map, Value, json};

#[path = "../../../fuzz/planning.rs"]
mod planning;

/// A text of some kilobytes is answered in milliseconds; this is for machines that are busy with something else.
const PROMPTLY: Duration = Duration::from_secs(20);

/// Runs `body` over the texts in a thread with the stack that threads have, and says which text it panicked or hung over.
/// Gives how many were accepted.
fn run(texts: Vec<String>, body: fn(&str) -> bool) -> usize {
    let (answer, answers) = mpsc::channel();
    let inputs = texts.clone();
    let worker = std::thread::spawn(move || {
        for text in &inputs {
            let result = catch_unwind(AssertUnwindSafe(|| body(text)));
            let failed = result.is_err();
            if answer.send(result).is_err() || failed {
                return;
            }
        }
    });
    let mut accepted = 0;
    for text in &texts {
        match answers.recv_timeout(PROMPTLY) {
            Ok(Ok(good)) => accepted += usize::from(good),
            Ok(Err(_)) => panic!("a panic, told above, over this text:\n{text}\n"),
            Err(_) => panic!("no answer within {PROMPTLY:?} to this text:\n{text}\n"),
        }
    }
    worker.join().unwrap();
    accepted
}

fn scripts() -> Vec<String> {
    let mut folders: Vec<_> = std::fs::read_dir(repository().join("integration-tests/cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path().join("query.sql"))
        .collect();
    folders.sort();
    folders.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Words, numbers, quoted texts, and operators; without white space and comments.
fn tokens(sql: &str) -> Vec<String> {
    let token =
        regex::Regex::new(r"(?s)--[^\n]*|'(?:[^']|'')*'|`[^`]*`|\d+(?:\.\d+)?|\w+|<>|<=|>=|\|\||=>|\S").unwrap();
    token.find_iter(sql).map(|found| found.as_str().to_owned()).filter(|token| !token.starts_with("--")).collect()
}

const WORDS: &[&str] = &[
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP",
    "BY",
    "HAVING",
    "ORDER",
    "LIMIT",
    "DISTINCT",
    "UNION",
    "ALL",
    "AS",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST",
    "NOT",
    "NULL",
    "IN",
    "BETWEEN",
    "LIKE",
    "AND",
    "OR",
    "IS",
    "INTERVAL",
    "SECOND",
    "MONTH",
    "TABLE",
    "TUMBLE",
    "HOP",
    "CUMULATE",
    "SESSION",
    "DESCRIPTOR",
    "WITH",
    "INSERT",
    "INTO",
    "VIEW",
    "EXPLAIN",
    "SET",
    "WATERMARK",
    "FOR",
    "PRIMARY",
    "KEY",
    "ENFORCED",
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "FILTER",
    "FIRST_VALUE",
    "STDDEV",
    "APPROX_PERCENTILE",
    "window_start",
    "window_end",
    "window_time",
    "BIGINT",
    "STRING",
    "DECIMAL",
    "TIMESTAMP",
    "ROW",
    "ARRAY",
    "MAP",
    "DATE_FORMAT",
    "REGEXP_EXTRACT",
    "SPLIT_INDEX",
    "COALESCE",
    "ABS",
    "TRUE",
    "DATE",
    "TIME",
    "*",
    "(",
    ")",
    ",",
    ";",
    "=",
    "<>",
    "+",
    "-",
    "/",
    "%",
    "||",
    "=>",
    ".",
    "[",
    "]",
    "<",
    ">",
    "::",
    "?",
    "$1",
    "@",
    "\\",
    "\"",
    "`",
];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "7",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "340282366920938463463374607431768211456",
    "1e308",
    "1e999",
    "1e-999",
    "0.5",
    ".5",
    "0.000000000000000000000000000000000000001",
    "00",
    "1_000",
    "0x10",
    "99999999999999999999999999999999999999",
];
const TEXTS: &[&str] = &[
    "''",
    "'0'",
    "'-1'",
    "'9223372036854775807'",
    "'9999999999999999'",
    "'1' SECOND",
    "'0.001'",
    "'1-1'",
    "'a''b'",
    "'%'",
    "'_%\\'",
    "'('",
    "'[a-'",
    "'{}'",
    "'yyyy-MM-dd''T'''",
    "'2024-02-30'",
    "'9999-12-31 23:59:59.999999999'",
    "'0001-01-01'",
    "'\u{0}'",
    "'\u{1f600}e\u{301}'",
    "'print'",
    "'filesystem'",
    "'replay'",
    "'datagen'",
    "'json'",
    "'parquet'",
    "'key.fields'",
];
/// Words that may stand for each other without breaking the grammar.
const ALIKE: &[&[&str]] = &[
    &["COUNT", "SUM", "AVG", "MIN", "MAX", "STDDEV", "FIRST_VALUE", "LAST_VALUE"],
    &["=", "<>", "<", "<=", ">", ">="],
    &["+", "-", "*", "/", "%"],
    &["AND", "OR"],
    &[
        "BIGINT",
        "INT",
        "SMALLINT",
        "DOUBLE",
        "STRING",
        "BOOLEAN",
        "DATE",
        "DECIMAL ( 38 , 37 )",
        "TIMESTAMP ( 3 )",
        "BYTES",
    ],
    &["SECOND", "MINUTE", "HOUR", "DAY", "MONTH"],
    &["TUMBLE", "HOP", "CUMULATE", "SESSION"],
    &["window_start", "window_end", "window_time"],
    &["ABS", "UPPER", "HOUR", "FLOOR", "CEIL", "CHAR_LENGTH", "SQRT"],
    &["HAVING", "WHERE"],
    &["ASC", "DESC"],
];
/// What stands around an expression or a query, to be nested.
const AROUND: &[(&str, &str)] = &[
    ("(", ")"),
    ("ABS (", ")"),
    ("CAST (", "AS STRING )"),
    ("CASE WHEN", "THEN 1 END"),
    ("COALESCE (", ", NULL )"),
    ("- ", ""),
    ("NOT ", ""),
    ("SUM (", ")"),
    ("( SELECT * FROM", ")"),
    ("SELECT * FROM (", ") t"),
    ("ARRAY <", ">"),
];

/// A range of tokens, short more often than not.
fn range(random: &mut Random, len: usize) -> std::ops::Range<usize> {
    let from = random.below(len);
    let most = if random.below(4) == 0 { 40 } else { 5 };
    from..(from + 1 + random.below(most)).min(len)
}

/// The parenthesis that closes the one at `open`, and what is between.
fn group(tokens: &[String], open: usize) -> Option<std::ops::Range<usize>> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "(" => depth += 1,
            ")" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(open..at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One change to a script's tokens; `seeds` are the tokens of all scripts.
fn mutate_tokens(random: &mut Random, tokens: &mut Vec<String>, seeds: &[Vec<String>]) {
    if tokens.is_empty() {
        return;
    }
    let at = random.below(tokens.len());
    match random.below(24) {
        0 => drop(tokens.remove(at)),
        1 => drop(tokens.drain(range(random, tokens.len()))),
        2 => {
            let copied: Vec<String> = tokens[range(random, tokens.len())].to_vec();
            tokens.splice(at..at, copied);
        }
        3 => {
            let other = random.below(tokens.len());
            tokens.swap(at, other);
        }
        // A piece of another script, in place of a piece or between two tokens.
        4 | 5 => {
            let other = random.pick(seeds);
            let piece = other[range(random, other.len())].to_vec();
            let place = if random.below(2) == 0 { at..at } else { range(random, tokens.len()) };
            tokens.splice(place, piece);
        }
        // A parenthesised piece for another.
        6 => {
            let other = random.pick(seeds);
            let open = |tokens: &[String], from: usize| (from..tokens.len()).find(|at| tokens[*at] == "(");
            let from = open(other, random.below(other.len())).and_then(|open| group(other, open));
            let to = open(tokens, at).and_then(|open| group(tokens, open));
            if let (Some(from), Some(to)) = (from, to) {
                tokens.splice(to, other[from].to_vec());
            }
        }
        7 => tokens[at] = (*random.pick(WORDS)).to_owned(),
        8 => tokens.insert(at, (*random.pick(WORDS)).to_owned()),
        // A word for another of the same script: columns, tables, types, functions.
        9 | 10 => {
            let of_kind = |first: fn(char) -> bool| {
                (0..tokens.len()).filter(|at| tokens[*at].starts_with(first)).collect::<Vec<usize>>()
            };
            let words = of_kind(|c| c.is_alphabetic() || c == '`');
            if !words.is_empty() {
                let (to, from) = (*random.pick(&words), *random.pick(&words));
                tokens[to] = tokens[from].clone();
            }
        }
        11..=14 => {
            let texts = random.below(2) == 0;
            let literals: Vec<usize> = (0..tokens.len())
                .filter(|at| {
                    tokens[*at].starts_with(|first: char| if texts { first == '\'' } else { first.is_ascii_digit() })
                })
                .collect();
            if !literals.is_empty() {
                let literal = *random.pick(&literals);
                tokens[literal] = (*random.pick(if texts { TEXTS } else { NUMBERS })).to_owned();
            }
        }
        15..=18 => {
            let alike =
                |token: &String| ALIKE.iter().find(|words| words.iter().any(|word| token.eq_ignore_ascii_case(word)));
            let places: Vec<usize> = (0..tokens.len()).filter(|at| alike(&tokens[*at]).is_some()).collect();
            if !places.is_empty() {
                let place = *random.pick(&places);
                let words = alike(&tokens[place]).expect("chosen for it");
                tokens[place] = (*random.pick(words)).to_owned();
            }
        }
        // Whole statements: another script's, one twice, one less.
        19 | 20 => {
            let mut statements: Vec<Vec<String>> =
                tokens.split_inclusive(|token| token == ";").map(<[_]>::to_vec).collect();
            let at = random.below(statements.len());
            match random.below(3) {
                0 => drop(statements.remove(at)),
                1 => statements.insert(at, statements[at].clone()),
                _ => {
                    let others: Vec<&[String]> = random.pick(seeds).split_inclusive(|token| token == ";").collect();
                    statements.insert(at, random.pick(&others).to_vec());
                }
            }
            *tokens = statements.concat();
        }
        _ => {
            let (open, close) = *random.pick(AROUND);
            let inner = match group(tokens, at) {
                Some(group) if random.below(2) == 0 => group,
                _ => at..at + 1,
            };
            // Within the limits of nesting, and beyond them.
            let times = [1, 1, 1, 2, 40, 300][random.below(6)];
            tokens.splice(inner.end..inner.end, owned(&vec![close; times]));
            tokens.splice(inner.start..inner.start, owned(&vec![open; times]));
        }
    }
}

fn mutated_script(random: &mut Random, seeds: &[Vec<String>]) -> String {
    let mut tokens = random.pick(seeds).clone();
    let changes = [1, 1, 1, 2, 2, 3][random.below(6)];
    for _ in 0..changes {
        mutate_tokens(random, &mut tokens, seeds);
    }
    let mut text = tokens.join(" ");
    // The tokeniser is to be tried too.
    if random.below(20) == 0 && !text.is_empty() {
        let mut bytes = text.into_bytes();
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, b"'`\"/*-;\\\n\0("[random.below(11)]),
            _ => bytes[at] = random.bits() as u8,
        }
        text = String::from_utf8_lossy(&bytes).into_owned();
    }
    text
}

#[test]
fn any_script_is_planned_or_refused() {
    let seeds: Vec<Vec<String>> = scripts().iter().map(|script| tokens(script)).collect();
    let unchanged: Vec<String> = seeds.iter().map(|tokens| tokens.join(" ")).collect();
    assert_eq!(run(unchanged, planning::script), seeds.len(), "the cases are good, also without their white space");
    let mut random = Random(3);
    let texts: Vec<String> = (0..1_500).map(|_| mutated_script(&mut random, &seeds)).collect();
    let count = texts.len();
    let accepted = run(texts, planning::script);
    assert!(accepted * 20 > count && accepted * 4 < count * 3, "{accepted} of {count} scripts were accepted");
}

/// The pointers of all values of a document below its root.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(object) => {
            object.iter().map(|(key, value)| (key.replace('~', "~0").replace('/', "~1"), value)).collect()
        }
        Value::Array(array) => array.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => vec![],
    };
    for (key, child) in children {
        let pointer = format!("{at}/{key}");
        pointers(child, &pointer, found);
        found.push(pointer);
    }
}

/// Stands in a key until the document is text: there it becomes a second key of the same name.
const TWICE: &str = "\u{0}twice";

fn odd_value(random: &mut Random) -> Value {
    match random.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(0),
        3 => json!(-1),
        4 => json!(u64::MAX),
        5 => json!(i64::MIN),
        6 => json!(1e300),
        7 => json!(0.5),
        8 => json!(""),
        9 => json!([]),
        10 => json!({}),
        11 => json!("BIGINT"),
        12 => json!("9999999999d"),
        13 => json!("x".repeat(300)),
        14 => json!([[[[{}]]]]),
        // Near the depth to which JSON is read.
        _ => (0..20 + random.below(120)).fold(json!(1), |value, _| json!([value])),
    }
}

/// One change to a graph; `seeds` are the graphs of all scripts, and `texts` their tokens.
fn mutate_graph(random: &mut Random, graph: &mut Value, seeds: &[Value], texts: &[Vec<String>]) {
    let mut places = Vec::new();
    pointers(graph, "", &mut places);
    if places.is_empty() {
        return;
    }
    let place = random.pick(&places).clone();
    let (parent, key) = place.rsplit_once('/').expect("a place is below the root");
    let key = key.replace("~1", "/").replace("~0", "~");
    let value = graph.pointer(&place).cloned().unwrap_or_default();
    match random.below(16) {
        0 | 1 => match graph.pointer_mut(parent) {
            Some(Value::Object(object)) => drop(object.remove(&key)),
            Some(Value::Array(array)) => drop(array.remove(key.parse().expect("a position"))),
            _ => unreachable!("a parent has children"),
        },
        2 => match graph.pointer_mut(parent) {
            Some(Value::Object(object)) => {
                let other = if random.below(2) == 0 { value } else { odd_value(random) };
                object.insert(format!("{key}{TWICE}"), other);
            }
            Some(Value::Array(array)) => array.push(value),
            _ => unreachable!("a parent has children"),
        },
        3 => {
            if let Some(Value::Object(object)) = graph.pointer_mut(parent) {
                object.remove(&key);
                let names = ["", "id", "inputs", "type", "columns", "by", "x", "namee", "window", "expr"];
                object.insert((*random.pick(&names)).to_owned(), value);
            }
        }
        4 | 5 => *graph.pointer_mut(&place).expect("found there") = odd_value(random),
        // A value of this or another graph, from wherever.
        6 | 7 => {
            let other = random.pick(seeds);
            let mut others = Vec::new();
            pointers(other, "", &mut others);
            let same_name: Vec<&String> = others.iter().filter(|other| other.ends_with(&format!("/{key}"))).collect();
            let from = match same_name.is_empty() || random.below(4) == 0 {
                true => random.pick(&others),
                false => *random.pick(&same_name),
            };
            *graph.pointer_mut(&place).expect("found there") = other.pointer(from).cloned().unwrap_or_default();
        }
        // The wiring: another input, one more, one less; a node twice, nodes in another order, and a node between two others.
        8..=11 => mutate_wiring(random, graph, seeds),
        // The text of an expression, a type, a name.
        _ => {
            let of_text: Vec<&String> =
                places.iter().filter(|place| graph.pointer(place).is_some_and(Value::is_string)).collect();
            if of_text.is_empty() {
                return;
            }
            let place = (*random.pick(&of_text)).clone();
            let text = graph.pointer(&place).and_then(Value::as_str).unwrap_or_default();
            let mut inner = tokens(text);
            mutate_tokens(random, &mut inner, texts);
            *graph.pointer_mut(&place).expect("found there") = Value::String(inner.join(" "));
        }
    }
}

fn mutate_wiring(random: &mut Random, graph: &mut Value, seeds: &[Value]) {
    let other = random.pick(seeds).pointer("/nodes").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(nodes) = graph.get_mut("nodes").and_then(Value::as_array_mut) else { return };
    let ids: Vec<Value> = nodes.iter().filter_map(|node| node.get("id").cloned()).collect();
    if ids.is_empty() {
        return;
    }
    let at = random.below(nodes.len());
    let id = random.pick(&ids).clone();
    match random.below(6) {
        0 | 1 => {
            if let Some(inputs) = nodes[at].get_mut("inputs").and_then(Value::as_array_mut) {
                match random.below(4) {
                    0 => inputs.push(id),
                    1 => drop(inputs.pop()),
                    _ => inputs.iter_mut().for_each(|input| *input = id.clone()),
                }
            }
        }
        2 => {
            let other = random.below(nodes.len());
            nodes.swap(at, other);
        }
        // A node of this or another graph before a node: its reader reads the new one.
        3..=4 => {
            let from = if other.is_empty() || random.below(2) == 0 { &*nodes } else { &other };
            let mut new = random.pick(from).clone();
            let old = nodes[at].pointer("/inputs/0").cloned().unwrap_or(Value::Null);
            if let (Some(new), Some(reader)) = (new.as_object_mut(), nodes[at].as_object_mut()) {
                new.insert("id".into(), json!("new"));
                new.insert("inputs".into(), json!([old]));
                reader.insert("inputs".into(), json!(["new"]));
            }
            nodes.push(new);
        }
        _ => nodes[at] = json!({"id": id, "inputs": [id], "type": "union"}),
    }
}

/// The text of a graph, in which keys may be there twice.
fn text(graph: &Value) -> String {
    graph.to_string().replace("\\u0000twice", "")
}

#[test]
fn any_graph_is_read_and_lowered_or_refused() {
    let scripts = scripts();
    let graphs: Vec<Value> = scripts
        .iter()
        .map(|script| serde_json::to_value(sql::plan(script, &sql::Options::default()).unwrap().graph).unwrap())
        .collect();
    assert_eq!(
        run(graphs.iter().map(text).collect(), planning::graph),
        graphs.len(),
        "the graphs of the cases are good"
    );
    let texts: Vec<Vec<String>> = scripts.iter().map(|script| tokens(script)).collect();
    let mut random = Random(4);
    let mut mutated = || {
        let mut graph = random.pick(&graphs).clone();
        for _ in 0..1 + random.below(3) {
            mutate_graph(&mut random, &mut graph, &graphs, &texts);
        }
        text(&graph)
    };
    let texts: BTreeSet<String> = (0..3_000).map(|_| mutated()).collect();
    let count = texts.len();
    let accepted = run(texts.into_iter().collect(), planning::graph);
    assert!(accepted * 20 > count && accepted * 4 < count * 3, "{accepted} of {count} graphs were accepted");
}

/// Mutations that no longer parse would fuzz only the parser.
#[test]
fn a_key_can_be_there_twice() {
    let mut object = Map::new();
    object.insert("a".into(), json!(1));
    object.insert(format!("a{TWICE}"), json!(2));
    assert_eq!(text(&Value::Object(object)), r#"{"a":1,"a":2}"#);
}
