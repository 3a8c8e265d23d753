//! CSV files as docs/connectors.md describes them, and resuming between any two of their records.

use std::fs;
use std::sync::Arc;

use engine::{Position, Source};
use serde_json::{Value, json};

use super::sources::open;
use crate::testing::{Seen, collect, run, sample, source_conformance, source_node, starts, texts};

const COLUMNS: &[&str] = &["a STRING", "b BIGINT", "c STRING"];

/// A source over one file with this content; the folder goes with it.
fn source(content: &str, options: Value, columns: &[&str]) -> (tempfile::TempDir, Arc<dyn Source>) {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a.csv");
    fs::write(&path, content).unwrap();
    let mut all = json!({"type": "filesystem", "path": path.to_str().unwrap(), "format": "csv"});
    all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
    let source = open(&source_node(all, columns, &[]), root.path());
    (root, source)
}

fn read(source: &Arc<dyn Source>, batch_rows: usize) -> Result<Vec<Seen>, engine::RunError> {
    run(async { collect(source, starts(&source.splits().await?), batch_rows).await })
}

/// Name, content, options, and the rows and bad records in the order of the file; or the error of the file.
type Case = (&'static str, &'static str, Value, Result<Vec<&'static str>, &'static str>);

#[test]
fn files_are_read_as_documented() {
    let none = || json!({});
    let headless = || json!({"csv.header": "false"});
    let cases: Vec<Case> = vec![
        ("header", "a,b,c\np,1,q\n", none(), Ok(vec!["1: p|1|q"])),
        ("header in another order", "c,a,b\nq,p,1\n", none(), Ok(vec!["1: p|1|q"])),
        ("more columns than declared", "x,c,a,b,y\n1,q,p,1,2\n", none(), Ok(vec!["1: p|1|q"])),
        ("quoted names", "\"c\",\"a\",\"b\"\nq,p,1\n", none(), Ok(vec!["1: p|1|q"])),
        ("a lacking column", "a,b\np,1\n", none(), Err("has no column c; it has a, b")),
        ("names are compared exactly", "A,b,c\np,1,q\n", none(), Err("has no column a; it has A, b, c")),
        ("a column twice", "a,b,c,a\np,1,q,r\n", none(), Err("column a twice")),
        ("only a header", "a,b,c\n", none(), Ok(vec![])),
        ("nothing", "", none(), Ok(vec![])),
        ("no header", "p,1,q\nr,2,s\n", headless(), Ok(vec!["0: p|1|q", "1: r|2|s"])),
        ("no header, a name that looks like one", "a,b,c\n", headless(), Ok(vec!["0! wrong_type"])),
        ("byte order mark", "\u{feff}a,b,c\np,1,q\n", none(), Ok(vec!["1: p|1|q"])),
        ("byte order mark, no header", "\u{feff}p,1,q\n", headless(), Ok(vec!["0: p|1|q"])),
        ("CRLF", "a,b,c\r\np,1,q\r\nr,2,s", none(), Ok(vec!["1: p|1|q", "2: r|2|s"])),
        ("CRLF within quotes stays", "a,b,c\r\n\"p\r\nq\",1,r\r\n", none(), Ok(vec!["1: p\r\nq|1|r"])),
        ("quotes", "a,b,c\n\"p,q\",\"1\",\"say \"\"r\"\"\"\n", none(), Ok(vec!["1: p,q|1|say \"r\""])),
        ("newlines", "a,b,c\n\"p\n\nq\",1,\"\n\"\nr,2,s\n", none(), Ok(vec!["1: p\n\nq|1|\n", "2: r|2|s"])),
        ("blank lines count, and are no rows", "a,b,c\n\np,1,q\n\n\nr,2,s\n", none(), Ok(vec!["2: p|1|q", "5: r|2|s"])),
        (
            "empty is NULL, quoted empty is not",
            "a,b,c\n,,\n\"\",\"\",\"\"\n",
            none(),
            Ok(vec!["1: NULL|NULL|NULL", "2: |NULL|"]),
        ),
        (
            "another null literal",
            "a,b,c\nNULL,NULL,\"NULL\"\n,1,\n",
            json!({"csv.null-literal": "NULL"}),
            Ok(vec!["1: NULL|NULL|NULL", "2: |1|"]),
        ),
        ("another delimiter", "a;b;c\np,q;1;\"r;s\"\n", json!({"csv.field-delimiter": ";"}), Ok(vec!["1: p,q|1|r;s"])),
        (
            "too few and too many fields",
            "a,b,c\np,1\nq,2,r\ns,3,t,u\n",
            none(),
            Ok(vec!["1! field_count", "2: q|2|r", "3! field_count"]),
        ),
        ("an open quote costs its line", "a,b,c\n\"p,1,q\nr,2,s\n", none(), Ok(vec!["1! quote", "2: r|2|s"])),
        ("a quote within a field", "a,b,c\np\"q,1,r\ns,2,t\n", none(), Ok(vec!["1! quote", "2: s|2|t"])),
    ];
    for (name, content, options, expected) in cases {
        let (_root, source) = source(content, options, COLUMNS);
        for batch_rows in [1, 100] {
            match (read(&source, batch_rows), &expected) {
                (Ok(seen), Ok(expected)) => {
                    let by_split = crate::testing::by_split(&seen);
                    let rows: Vec<&String> = by_split.values().flatten().collect();
                    assert_eq!(rows, expected.iter().collect::<Vec<_>>(), "{name}");
                }
                (Err(error), Err(words)) => {
                    assert_eq!(error.code, "input_file_invalid", "{name}: {error:?}");
                    assert!(error.message.contains(words) && error.message.contains("a.csv"), "{name}: {error:?}");
                }
                (got, expected) => panic!("{name}: {got:?}, not {expected:?}"),
            }
        }
    }
}

#[test]
fn csv_files_keep_the_suite() {
    let cell = |text: &str| if text == "NULL" { String::new() } else { format!("\"{text}\"") };
    let rows = sample::rows(0, 120);
    let lines: Vec<String> =
        texts(&rows).iter().map(|row| row.split('|').map(cell).collect::<Vec<_>>().join(",") + "\n").collect();
    let (_root, source) =
        source(&("id,name,price,ts,day,ok,x\n".to_owned() + &lines.concat()), json!({}), sample::COLUMNS);
    let mut expected = texts(&rows);
    expected.sort();
    assert_eq!(run(source_conformance(source)), expected);
}

/// From every position that a reader gives, also across records of several lines, blank lines and bad records, with and without a header.
#[test]
fn reading_goes_on_exactly_behind_every_record() {
    let records = [
        "p,1,q\n",
        "\"two\nlines\",2,\"and\r\n\r\nmore, \"\"of\"\" them\"\r\n",
        "\n",
        "bad,x,y\n",
        "r,3,\"\n\"\n",
        "short,1\n",
        "t,5,u\n",
        "\r\n",
        "\"\n\",6,\"\"\n",
        // Never closed: only its line is lost.
        "\"open,7,s\n",
        "v,8,w",
    ];
    for (header, options) in [("a,b,c\n", json!({})), ("", json!({"csv.header": "false"}))] {
        let (_root, source) = source(&(header.to_owned() + &records.concat()), options, COLUMNS);
        let whole = read(&source, 1).unwrap();
        let all: Vec<&String> = whole.iter().flat_map(|seen| &seen.rows).collect();
        assert_eq!(all.len(), 9, "{all:?}");
        assert!(whole.len() >= 5, "{whole:?}");
        run(async {
            let split = starts(&source.splits().await.unwrap()).remove(0);
            let mut before = 0;
            for seen in &whole {
                before += seen.rows.len();
                for batch_rows in [1, 100] {
                    let start = engine::SplitStart { position: Some(seen.next.clone()), ..split.clone() };
                    let rest = collect(&source, vec![start], batch_rows).await.unwrap();
                    let rest: Vec<String> = rest.into_iter().flat_map(|seen| seen.rows).collect();
                    let mut expected: Vec<String> = all[before..].iter().map(|row| row.to_string()).collect();
                    if batch_rows > 1 {
                        // Bad records stand behind the rows of their batch.
                        expected.sort_by_key(|row| row.contains('!'));
                    }
                    assert_eq!(rest, expected, "behind {:?}, batches of {batch_rows}", seen.next);
                }
            }
            let end = engine::SplitStart { position: Some(Position::End), ..split };
            assert_eq!(collect(&source, vec![end], 10).await.unwrap(), [], "nothing is behind the end");
        });
    }
}
