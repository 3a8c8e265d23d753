//! Wrong scripts: where, what code, and what is said.

use super::*;

/// The problems of a script over [`TABLES`], as `line:column code: message`; lines count from the query's first.
fn problems(query: &str) -> Vec<String> {
    let text = format!("{}{query}", TABLES.replace('\n', " "));
    let offset = TABLES.chars().count() as u64;
    let found = plan(&text, &Options::default()).map(|script| compact(&script.graph)).expect_err(query);
    let found = found.into_iter().map(|problem| match problem.place {
        graph::Place::Span { line, column, .. } => {
            let column = if line == 1 { column as i64 - offset as i64 } else { column as i64 };
            format!("{line}:{column} {}: {} | {}", problem.code, problem.message, problem.hint.unwrap_or_default())
        }
        _ => format!("- {}: {} | {}", problem.code, problem.message, problem.hint.unwrap_or_default()),
    });
    found.collect()
}

/// Query, then the one problem: line and column, code, the message or the hint.
#[rustfmt::skip]
const WRONG: &[(&str, &str, &str, &str)] = &[
    // What the analysis of the graph finds, at its place in the script.
    ("SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(price), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end", "1:46", "not_a_time_attribute", "use ts"),
    ("SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '0' MINUTE)) GROUP BY window_start, window_end", "1:71", "invalid_window", "above 0"),
    ("SELECT COUNT(*) FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), INTERVAL '7' MINUTE, INTERVAL '10' MINUTE)) GROUP BY window_start, window_end", "1:68", "invalid_window", "does not divide the size"),
    ("SELECT COUNT(*) FROM TABLE(CUMULATE(TABLE bid, DESCRIPTOR(ts), INTERVAL '7' MINUTE, INTERVAL '10' MINUTE)) GROUP BY window_start, window_end", "1:73", "invalid_window", "does not divide the size"),
    ("SELECT COUNT(*) FROM bid GROUP BY TUMBLE(ts, INTERVAL '0.0001' SECOND)", "1:55", "invalid_window", "not a multiple of 1ms"),
    ("CREATE TABLE t (a INT, WATERMARK FOR a AS a) WITH ('connector' = 'datagen', 'number-of-rows' = '1'); SELECT a FROM t", "1:38", "not_a_time_attribute", "TIMESTAMP"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'datagen'); SELECT a FROM t ORDER BY a", "1:81", "sort_unbounded", "ORDER BY at (line 1)"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'on_bad_record' = 'dead_letter'); SELECT a FROM t", "1:55", "no_dead_letters", "nowhere to go"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'datagen'); CREATE TABLE f (a INT, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'json'); INSERT INTO f SELECT a, COUNT(*) FROM t GROUP BY a", "1:89", "sink_takes_no_updates", "group by a window too"),
    ("SELECT SUM(n) FROM (SELECT ts, COUNT(*) AS n FROM bid GROUP BY ts) GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)", "1:84", "not_a_time_attribute", "no longer a time attribute"),
    ("CREATE TABLE t (k STRING, WATERMARK FOR k AS k) WITH ('connector' = 'datagen')", "1:41", "not_a_time_attribute", "AS TO_TIMESTAMP(k)"),
    ("SELECT SUMM(price) FROM bid", "1:8", "unknown_function", "did you mean SUM?"),
    ("SELECT CUONT(*) FROM bid", "1:8", "unknown_function", "did you mean COUNT?"),
    ("SELECT price FROM bid GRUOP BY price", "1:29", "sql_syntax", "did you mean GROUP instead of GRUOP?"),
    ("SELECT price FROM bid b WHRE price > 1", "1:25", "sql_syntax", "did you mean WHERE instead of WHRE?"),
    ("SELECT price FROM bid WHERE NULL", "1:29", "untyped_null", "remove it, or write WHERE FALSE"),
    ("SELECT COUNT(*) FILTER (WHERE NULL) FROM bid", "1:31", "untyped_null", "remove it, or write FILTER (WHERE FALSE)"),
    ("CREATE TABLE p (t BIGINT, u AS t * 2) WITH ('connector' = 'print'); INSERT INTO p (t, u) SELECT price, price FROM bid", "1:87", "computed_column", "the column u of p is computed"),
    ("EXECUTE STATEMENT SET BEGIN END", "1:1", "sql_syntax", "the statement set is empty"),
    ("SELECT MAP['a', 1] FROM bid", "1:8", "unsupported", "write ROW(...) or ARRAY[...]"),
    ("SELECT price FROM bid WHERE price BETWEEN SYMMETRIC 3 AND 1", "1:43", "sql_syntax", "write x BETWEEN LEAST(a, b) AND GREATEST(a, b)"),
    ("SELECT SUBSTRING(channel) FROM bid", "1:18", "wrong_arguments", "write SUBSTRING(text, from)"),
    ("CREATE TABLE t (a ROW<b INT NOT NULL>) WITH ('connector' = 'datagen')", "1:19", "unknown_type", "remove NOT NULL there"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'datagen'); SELECT APPROX_PERCENTILE(n, 0.5) FROM (SELECT a, COUNT(*) AS n FROM t GROUP BY a)", "1:63", "cannot_retract", "the result of the query in line 1 is updating"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'on_bad_record' = 'dead_letter'); SELECT a FROM t", "1:55", "no_dead_letters", "SELECT ... FROM highwater.dead_letters"),
    ("SELECT TUMBLE_START(ts, INTERVAL '0.0001' SECOND) FROM bid GROUP BY TUMBLE(ts, INTERVAL '0.0001' SECOND)", "1:89", "invalid_window", "declare ts with more digits, as TIMESTAMP(6)"),
    ("SELECT 1 FROM bid HAVING TRUE", "1:1", "invalid_aggregate", "add COUNT(*)"),
    ("SELECT 1 FROM bid GROUP BY ()", "1:1", "invalid_aggregate", "add COUNT(*)"),
    ("SELEC price FROM bid", "1:1", "sql_syntax", "did you mean SELECT?"),
    ("SELECT FROM bid", "1:13", "sql_syntax", "expected an expression, found FROM"),
    ("SELECT price FORM bid", "1:19", "sql_syntax", "did you mean FROM instead of FORM?"),
    ("SELECT price FROM bid WHERE", "1:28", "sql_syntax", "expected an expression, found the end of the statement"),
    ("SELECT 'abc FROM bid", "1:8", "sql_syntax", "unterminated string literal"),
    ("SELECT (price FROM bid", "1:15", "sql_syntax", "expected ), found FROM"),
    ("SELECT prise FROM bid", "1:8", "unknown_column", "did you mean price?"),
    ("SELECT b.price FROM bid", "1:8", "unknown_table", "write bid.price"),
    ("SELECT price FROM bidd", "1:19", "unknown_table", "did you mean bid?"),
    ("SELECT UPPR(channel) FROM bid", "1:8", "unknown_function", "did you mean UPPER?"),
    ("SELECT channel + 1 FROM bid", "1:8", "type_mismatch", "write a || b to join texts, or CAST(text AS BIGINT) to calculate"),
    ("SELECT price FROM bid WHERE price", "1:29", "type_mismatch", "compare it with a value"),
    ("SELECT price FROM bid WHERE channel = \"x\"", "1:39", "sql_syntax", "write 'x' for the text, `x` for the column"),
    ("SELECT price FROM bid WHERE SUM(price) > 1", "1:29", "misplaced_aggregate", "write it in HAVING"),
    ("SELECT bidder, price, COUNT(*) FROM bid GROUP BY bidder", "1:16", "not_grouped", "add it to GROUP BY, or write MAX(price)"),
    ("SELECT SUM(COUNT(*)) FROM bid", "1:12", "misplaced_aggregate", "compute the inner one in a subquery"),
    ("SELECT SUM(channel) FROM bid", "1:12", "wrong_arguments", "write CAST(text AS DOUBLE)"),
    ("SELECT COUNT(DISTINCT price, bidder) FROM bid", "1:8", "invalid_aggregate", "count the rows of SELECT DISTINCT a, b FROM t WHERE a IS NOT NULL AND b IS NOT NULL"),
    ("SELECT LISTAGG(channel) FROM bid", "1:8", "unsupported", "LISTAGG is not supported"),
    ("SELECT MEDIAN(price) FROM bid", "1:8", "unsupported", "write APPROX_PERCENTILE(x, 0.5): within 1 % of the exact value"),
    ("SELECT APPROX_PERCENTILE(price, 2) FROM bid", "1:8", "invalid_aggregate", "cannot read the fraction of APPROX_PERCENTILE"),
    ("SELECT price FROM bid GROUP BY 2", "1:32", "unknown_column", "name the column instead"),
    ("SELECT COUNT(*) FROM bid GROUP BY COUNT(*)", "1:35", "misplaced_aggregate", "compute it in a subquery"),
    ("SELECT price FROM bid ORDER BY nothing", "1:32", "unknown_column", "there is auction, bidder, channel, price, ts"),
    ("SELECT price FROM bid LIMIT price", "1:29", "invalid_limit", "write the number"),
    ("SELECT price FROM bid, out", "1:24", "unsupported", "joins are not there yet; read one table"),
    ("SELECT * FROM bid JOIN bid b ON TRUE", "1:24", "unsupported", "JOIN is not supported"),
    ("SELECT * FROM bid LEFT JOIN bid b ON TRUE", "1:29", "unsupported", "LEFT JOIN is not supported"),
    ("SELECT SUM(price) OVER (PARTITION BY bidder ORDER BY ts) FROM bid", "1:8", "unsupported", "SUM OVER is not supported"),
    ("SELECT ROW_NUMBER() OVER (ORDER BY ts) FROM bid", "1:8", "unsupported", "ROW_NUMBER OVER is not supported"),
    ("SELECT price FROM bid WHERE price IN (SELECT price FROM bid)", "1:29", "unsupported", "write the values out, or filter with WHERE"),
    ("SELECT price FROM bid WHERE EXISTS (SELECT 1 FROM bid)", "1:37", "unsupported", "it needs a join, which is not there yet"),
    ("SELECT (SELECT MAX(price) FROM bid) FROM bid", "1:9", "unsupported", "compute it in a view or in FROM"),
    ("SELECT price FROM bid INTERSECT SELECT price FROM bid", "1:1", "unsupported", "it needs a join, which is not there yet; filter with WHERE"),
    ("SELECT price FROM bid EXCEPT SELECT price FROM bid", "1:1", "unsupported", "it needs a join, which is not there yet; filter with WHERE"),
    ("SELECT price FROM bid UNION ALL SELECT price, price FROM bid", "1:33", "wrong_columns", "select as many columns in each"),
    ("SELECT price FROM bid UNION ALL SELECT channel FROM bid", "1:40", "type_mismatch", "write CAST(... AS BIGINT)"),
    ("SELECT bidder, COUNT(*) FROM bid GROUP BY GROUPING SETS ((bidder), ())", "1:59", "unsupported", "write one SELECT per grouping, with UNION ALL"),
    ("SELECT bidder, COUNT(*) FROM bid GROUP BY CUBE (bidder)", "1:49", "unsupported", "write one SELECT per grouping, with UNION ALL"),
    ("SELECT bidder, COUNT(*) FROM bid GROUP BY ROLLUP (bidder)", "1:51", "unsupported", "write one SELECT per grouping, with UNION ALL"),
    ("SELECT DISTINCT ON (bidder) price FROM bid", "1:1", "unsupported", "write FIRST_VALUE(x) with GROUP BY"),
    ("SELECT * FROM bid MATCH_RECOGNIZE (PARTITION BY bidder ORDER BY ts MEASURES A.price AS p PATTERN (A) DEFINE A AS TRUE)", "1:15", "unsupported", "aggregate over a window"),
    ("SELECT * FROM bid FOR SYSTEM_TIME AS OF ts", "1:15", "unsupported", "temporal joins are not there yet"),
    ("SELECT * FROM UNNEST(ARRAY[1])", "1:15", "unsupported", "compute with the array in the SELECT list"),
    ("SELECT * FROM LATERAL (SELECT 1) t", "1:24", "unsupported", "compute it in the SELECT list"),
    ("SELECT 1", "1:1", "unsupported", "select from a table"),
    ("VALUES (1, 2)", "1:8", "unsupported", "read the rows from a table, such as a file of JSON lines"),
    ("INSERT INTO out VALUES (1, 2)", "1:24", "unsupported", "read the rows from a table, such as a file of JSON lines"),
    ("INSERT INTO out SELECT price FROM bid", "1:13", "wrong_columns", "the table has (k, n), the query (price)"),
    ("INSERT INTO out SELECT channel, price FROM bid", "1:24", "type_mismatch", "write CAST(... AS BIGINT)"),
    ("INSERT INTO out (k, q) SELECT price, price FROM bid", "1:21", "unknown_column", "did you mean k?"),
    ("INSERT INTO out (k, k) SELECT price, price FROM bid", "1:21", "duplicate_column", "remove one"),
    ("INSERT INTO nowhere SELECT price FROM bid", "1:13", "unknown_table", "there is bid, out"),
    ("INSERT INTO out SELECT price = 1, price FROM bid", "1:24", "type_mismatch", "write CAST(... AS BIGINT)"),
    ("SELECT * FROM out", "1:15", "unknown_connector", "sources are datagen, filesystem, kafka, replay"),
    ("CREATE TABLE bid (a INT) WITH ('connector' = 'print')", "1:14", "duplicate_name", "choose another name, or write IF NOT EXISTS"),
    ("CREATE TABLE t (a BIGNT) WITH ('connector' = 'print')", "1:19", "unknown_type", "did you mean BIGINT?"),
    ("CREATE TABLE t (a INT, a INT) WITH ('connector' = 'print')", "1:24", "duplicate_column", "rename one"),
    ("CREATE TABLE t (a INT)", "1:14", "missing_option", "the table t names no connector"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'kafka')", "1:24", "missing_option", "add 'topic' = '...'"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'kinesis')", "1:30", "unknown_connector", "it is not there yet"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'filesistem')", "1:30", "unknown_connector", "did you mean filesystem?"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'format' = 'json', 'path' = 'x', 'formt' = 'json')", "1:91", "unknown_option", "did you mean format?"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'format' = 'xml', 'path' = 'x')", "1:58", "invalid_option", "there is csv, json, parquet"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'format' = 'json')", "1:24", "missing_option", "add 'path' = '...'"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'max_ahead' = '1h')", "1:55", "invalid_option", "declare WATERMARK FOR column AS column - INTERVAL '5' SECOND"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'print', 'on_bad_record' = 'drop')", "1:53", "unknown_option", "remove it"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'on_bad_record' = 'ignore')", "1:55", "invalid_option", "write fail, drop or dead_letter"),
    ("CREATE TABLE t (a INT) WITH ('connector' = 'print', 'connector' = 'print')", "1:53", "duplicate_option", "remove one of them"),
    ("CREATE TABLE t (a INT, PRIMARY KEY (a)) WITH ('connector' = 'print')", "1:39", "invalid_primary_key", "write PRIMARY KEY (...) NOT ENFORCED"),
    ("CREATE TABLE t (a INT, PRIMARY KEY (b) NOT ENFORCED) WITH ('connector' = 'print')", "1:37", "unknown_column", "did you mean a?"),
    ("CREATE TABLE t (a INT, WATERMARK FOR b AS b) WITH ('connector' = 'datagen')", "1:38", "unknown_column", "did you mean a?"),
    ("CREATE TABLE t (a TIMESTAMP(3), WATERMARK FOR a AS a + INTERVAL '1' SECOND) WITH ('connector' = 'datagen')", "1:52", "invalid_watermark", "write WATERMARK FOR a AS a - INTERVAL '5' SECOND"),
    ("CREATE TABLE t (a TIMESTAMP(3), WATERMARK FOR a AS a - INTERVAL '1' MONTH) WITH ('connector' = 'datagen')", "1:65", "invalid_interval", "write INTERVAL '10' SECOND (or MINUTE, HOUR, DAY)"),
    ("CREATE TABLE t (a INT METADATA FROM 'offset') WITH ('connector' = 'datagen'); SELECT a FROM t", "1:17", "unknown_metadata", "remove METADATA, or the column"),
    ("CREATE TABLE t (a INT, b AS c + 1) WITH ('connector' = 'datagen')", "1:29", "unknown_column", "did you mean a?"),
    ("CREATE TABLE t (a INT, b AS SUM(a)) WITH ('connector' = 'datagen')", "1:29", "misplaced_aggregate", "compute it in a subquery"),
    ("CREATE TABLE t AS SELECT * FROM bid", "1:16", "unsupported", "write CREATE TABLE with its columns, then INSERT INTO it"),
    ("CREATE TABLE t (a INT) PARTITIONED BY (b) WITH ('connector' = 'print')", "1:40", "unknown_column", "did you mean a?"),
    ("CREATE VIEW v (a) AS SELECT price, bidder FROM bid", "1:13", "wrong_columns", "name every column once"),
    ("CREATE FUNCTION f AS 'x'", "1:1", "statement_not_supported", "CREATE FUNCTION is not supported"),
    ("DROP TABLE bid", "1:1", "statement_not_supported", "tables and views live as long as the script; leave it out"),
    ("SHOW TABLES", "1:1", "statement_not_supported", "SHOW is not supported"),
    ("UPDATE bid SET price = 1", "1:1", "statement_not_supported", "write the new rows with INSERT INTO ... SELECT"),
    ("DELETE FROM bid", "1:1", "statement_not_supported", "write the new rows with INSERT INTO ... SELECT"),
    ("ALTER TABLE bid ADD x INT", "1:1", "statement_not_supported", "change the CREATE statement instead"),
    ("USE CATALOG x", "1:1", "statement_not_supported", "USE is not supported"),
    ("SET 'paralelism' = '2'", "1:1", "unknown_option", "did you mean parallelism?"),
    ("SET 'parallelism' = '0'", "1:1", "out_of_range", "parallelism is 0; it must be 1 to 256"),
    ("SET 'execution.runtime-mode' = 'batch'", "1:1", "unknown_option", "whether a run is bounded follows from its sources; remove the setting"),
    ("SET x", "1:1", "sql_syntax", "write SET 'name' = 'value'"),
    ("EXPLAIN", "1:1", "sql_syntax", "write EXPLAIN SELECT ... or EXPLAIN INSERT INTO ..."),
    ("EXPLAIN CREATE VIEW v AS SELECT 1", "1:9", "statement_not_supported", "EXPLAIN stands before SELECT or INSERT INTO"),
    ("EXECUTE STATEMENT SET BEGIN SELECT price FROM bid; END", "1:29", "statement_not_supported", "a statement set holds INSERT INTO statements alone"),
    ("EXECUTE STATEMENT SET BEGIN INSERT INTO out SELECT price, price FROM bid;", "1:1", "sql_syntax", "write END; after its last INSERT INTO"),
    ("SELECT * FROM TABLE(TUMBEL(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE))", "1:21", "unknown_function", "did you mean TUMBLE?"),
    ("SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts)))", "1:21", "invalid_window", "TUMBLE lacks its size"),
    ("SELECT * FROM TABLE(TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE))", "1:28", "invalid_window", "write TABLE bid"),
    ("SELECT * FROM TABLE(TUMBLE(TABLE bid, ts, INTERVAL '1' MINUTE))", "1:39", "invalid_window", "TUMBLE needs the time column as DESCRIPTOR(column)"),
    ("SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(tz), INTERVAL '1' MINUTE))", "1:50", "unknown_column", "did you mean ts?"),
    ("SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), 10))", "1:55", "invalid_interval", "write INTERVAL '10' SECOND (or MINUTE, HOUR, DAY)"),
    ("SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MONTH))", "1:64", "invalid_interval", "write INTERVAL '10' SECOND (or MINUTE, HOUR, DAY)"),
    ("SELECT * FROM TABLE(TUMBLE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SIZ => INTERVAL '1' MINUTE))", "1:74", "invalid_window", "did you mean SIZE?"),
    ("SELECT * FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '1' MINUTE))", "1:21", "unsupported", "the windows of SESSION are known only to an aggregate"),
    ("SELECT auction, COUNT(*) FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY auction, window_start, window_end", "1:37", "unsupported", "write SESSION(TABLE t PARTITION BY auction, ...)"),
    ("SELECT bidder, COUNT(*) FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) WHERE price > 1 GROUP BY bidder, window_start, window_end", "1:36", "unsupported", "the windows of SESSION are known only to an aggregate"),
    ("SELECT TUMBLE_START(ts, INTERVAL '1' MINUTE) FROM bid", "1:8", "invalid_window", "write GROUP BY TUMBLE(...)"),
    ("SELECT TUMBLE_START(ts, INTERVAL '2' MINUTE) FROM bid GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)", "1:8", "invalid_window", "write the same TUMBLE(...) in GROUP BY"),
    ("SELECT COUNT(*) FROM bid GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), HOP(ts, INTERVAL '1' MINUTE, INTERVAL '2' MINUTE)", "1:68", "invalid_window", "group by one of them"),
    ("SELECT * FROM highwater.late_rows", "1:15", "empty_system_table", "aggregate over a window in another statement"),
    ("SELECT * FROM highwater.late", "1:15", "unknown_table", "there is dead_letters, late_rows"),
    ("SELECT price FROM bid; SELECT bidder FROM bid", "1:1", "misplaced_select", "write INSERT INTO table SELECT ..., or move it to the end"),
    ("WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a", "1:1", "unsupported", "write the steps out as views"),
    ("SELECT key FROM bid; ", "1:8", "unknown_column", "there is auction, bidder, channel, price, ts"),
    ("SELECT price AS a, FROM bid", "1:25", "sql_syntax", "expected an expression, found FROM"),
];

#[test]
fn each_wrong_script_is_refused_with_its_place() {
    let mut wrong = String::new();
    for (query, at, code, part) in WRONG {
        let found = problems(query);
        if found.len() != 1 || !found[0].starts_with(&format!("{at} {code}: ")) || !found[0].contains(part) {
            wrong.push_str(&format!(
                "{query}\n  expected {at} {code}: {part}\n  found    {}\n",
                found.join("\n           ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_text() {
    let text = "CREATE TABLE a (x BIGNT, y INT, y INT) WITH ('connector' = 'datagen');
CREATE TABLE b (x INT) WITH ('connector' = 'filesystem', 'pth' = 'x', 'format' = 'xml');
DROP TABLE z;
SELEC 1;
CREATE TABLE c (x INT, t TIMESTAMP(3)) WITH ('connector' = 'datagen');
CREATE TABLE d (x INT) WITH ('connector' = 'print');
INSERT INTO d SELECT x FROM a;
INSERT INTO d SELECT w, UPPER(x), v + 1 FROM c WHERE x GROUP BY q;
INSERT INTO d SELECT x FROM c GROUP BY x, TUMBLE(t, INTERVAL '1' MINUTE);
INSERT INTO e SELECT y FROM c;
SELECT 'a";
    let problems = plan(text, &Options::default()).unwrap_err();
    expect_test::expect![[r#"
        error[unknown_type]: cannot read the type BIGNT: there is no type BIGNT
         --> script.sql:1:19
          |
        1 | CREATE TABLE a (x BIGNT, y INT, y INT) WITH ('connector' = 'datagen');
          |                   ^^^^^
          = help: did you mean BIGINT?

        error[unknown_option]: there is no option "pth" here
         --> script.sql:2:58
          |
        2 | CREATE TABLE b (x INT) WITH ('connector' = 'filesystem', 'pth' = 'x', 'format' = 'xml');
          |                                                          ^^^^^^^^^^^
          = help: did you mean path?

        error[invalid_option]: "xml" is none of the names that can stand here
         --> script.sql:2:71
          |
        2 | CREATE TABLE b (x INT) WITH ('connector' = 'filesystem', 'pth' = 'x', 'format' = 'xml');
          |                                                                       ^^^^^^^^^^^^^^^^
          = help: there is csv, json, parquet

        error[statement_not_supported]: DROP TABLE is not supported
         --> script.sql:3:1
          |
        3 | DROP TABLE z;
          | ^^^^^^^^^^
          = help: tables and views live as long as the script; leave it out

        error[sql_syntax]: a statement cannot begin with "SELEC"
         --> script.sql:4:1
          |
        4 | SELEC 1;
          | ^^^^^
          = help: did you mean SELECT?

        error[unknown_column]: there is no column w
         --> script.sql:8:22
          |
        8 | INSERT INTO d SELECT w, UPPER(x), v + 1 FROM c WHERE x GROUP BY q;
          |                      ^
          = help: did you mean t?

        error[type_mismatch]: UPPER wants STRING, not INT
         --> script.sql:8:31
          |
        8 | INSERT INTO d SELECT w, UPPER(x), v + 1 FROM c WHERE x GROUP BY q;
          |                               ^
          = help: write CAST(... AS STRING)

        error[unknown_column]: there is no column v
         --> script.sql:8:35
          |
        8 | INSERT INTO d SELECT w, UPPER(x), v + 1 FROM c WHERE x GROUP BY q;
          |                                   ^
          = help: did you mean t?

        error[type_mismatch]: WHERE needs a BOOLEAN, and this is INT
         --> script.sql:8:54
          |
        8 | INSERT INTO d SELECT w, UPPER(x), v + 1 FROM c WHERE x GROUP BY q;
          |                                                      ^
          = help: compare it with a value

        error[unknown_column]: there is no column q
         --> script.sql:8:65
          |
        8 | INSERT INTO d SELECT w, UPPER(x), v + 1 FROM c WHERE x GROUP BY q;
          |                                                                 ^
          = help: did you mean t?

        error[not_a_time_attribute]: t (TIMESTAMP(3)) is not a time attribute: c declares no watermark, so its windows would never close
         --> script.sql:9:50
          |
        9 | INSERT INTO d SELECT x FROM c GROUP BY x, TUMBLE(t, INTERVAL '1' MINUTE);
          |                                                  ^
          = help: write WATERMARK FOR t AS t - INTERVAL '5' SECOND in the table, or put a watermark node after the source

        error[unknown_table]: there is no table or view e
          --> script.sql:10:13
           |
        10 | INSERT INTO e SELECT y FROM c;
           |             ^
           = help: did you mean a?

        error[unknown_column]: there is no column y
          --> script.sql:10:22
           |
        10 | INSERT INTO e SELECT y FROM c;
           |                      ^
           = help: did you mean t?

        error[sql_syntax]: unterminated string literal
          --> script.sql:11:8
           |
        11 | SELECT 'a
           |        ^
    "#]].assert_eq(&crate::render(&problems, text, "script.sql"));
}

#[test]
fn types_are_checked_wherever_planning_stops() {
    let codes = |query: &str| {
        let found = problems(query);
        let told: Vec<String> =
            found.iter().filter_map(|problem| problem.split_once(": ").map(|(at, _)| at.to_string())).collect();
        told
    };
    for (query, expected) in [
        (
            "SELECT UPPER(channel, channel), SUBSTRING(channel, channel), ABS(channel), SUM(channel) FROM bid",
            vec!["1:8 wrong_arguments", "1:52 type_mismatch", "1:66 type_mismatch", "1:80 wrong_arguments"],
        ),
        (
            "SELECT UPPER(channel, channel), ABS(channel), MAX(price), DATE_FORMAT(price, 'yyyy') FROM bid WHERE price = 'a' GROUP BY channel",
            vec!["1:8 wrong_arguments", "1:37 type_mismatch", "1:71 type_mismatch", "1:109 type_mismatch"],
        ),
        (
            "SELECT prise, ABS(channel), UPPER(prise) || LOWER(price) FROM bid WHERE price = 'a' AND SQRT(channel) > prise GROUP BY bidder",
            vec![
                "1:8 unknown_column",
                "1:19 type_mismatch",
                "1:35 unknown_column",
                "1:51 type_mismatch",
                "1:81 type_mismatch",
                "1:94 type_mismatch",
                "1:105 unknown_column",
            ],
        ),
        (
            "SELECT window_start, SUM(prise), ABS(SUM(price)), UPPER(SUM(price)), UPPER(window_start) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end",
            vec!["1:26 unknown_column", "1:57 type_mismatch", "1:76 type_mismatch"],
        ),
        ("SELECT UPPER(SUM(price)) FROM bid", vec!["1:14 type_mismatch"]),
        (
            "SELECT TUMBLE_END(ts, INTERVAL '1' MINUTE), COUNT(*), ABS(channel) FROM bid WHERE channel GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE), channel",
            vec!["1:59 type_mismatch", "1:83 type_mismatch"],
        ),
    ] {
        assert_eq!(codes(query), expected, "{query}: {:#?}", problems(query));
    }
}

#[test]
fn a_refused_insert_of_dead_letters_is_no_second_problem() {
    let script = "CREATE TABLE t (a INT) WITH ('connector' = 'datagen', 'on_bad_record' = 'dead_letter', 'number-of-rows' = '1');
        INSERT INTO out SELECT source, a FROM highwater.dead_letters;
        SELECT a FROM t";
    let found = problems(script);
    assert!(found.len() == 1 && found[0].contains("there is no column a"), "{found:#?}");
}

#[test]
fn excerpts_show_long_and_odd_lines() {
    let long = format!("{TABLES} SELECT {} prise FROM bid", "price, ".repeat(100));
    let problems = plan(&long, &Options::default()).unwrap_err();
    let shown = crate::render(&problems, &long, "long.sql");
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.iter().all(|line| line.chars().count() < 200), "{shown}");
    let caret = lines[4].find('^').unwrap();
    assert_eq!(lines[3].get(caret..caret + 5), Some("prise"), "{shown}");
    let odd = "SELECT '\u{202e}' \t prise FROM nothing";
    let shown = crate::render(&plan(odd, &Options::default()).unwrap_err(), odd, "odd.sql");
    assert!(!shown.contains('\u{202e}') && !shown.contains('\t'), "{shown}");
}

#[test]
fn scripts_without_a_statement_are_refused() {
    for text in ["", "  ", ";;", "-- a comment\n/* another */"] {
        let problems = plan(text, &Options::default()).unwrap_err();
        assert_eq!(
            problems.iter().map(|problem| problem.code.as_str()).collect::<Vec<_>>(),
            ["sql_syntax"],
            "{text:?}"
        );
    }
    assert_eq!(plan(TABLES, &Options::default()).unwrap_err()[0].code, "nothing_to_run");
}

#[test]
fn names_are_checked() {
    for name in ["x".repeat(10_000), "a\u{202e}b".to_string(), "a\u{7}b".to_string(), String::new()] {
        let text = format!("CREATE TABLE `{name}` (a INT) WITH ('connector' = 'datagen'); SELECT * FROM `{name}`");
        assert!(plan(&text, &Options::default()).is_err());
    }
    for name in ["\u{1f980}", "\"; DROP TABLE jobs", "select", "a b"] {
        let text = format!(
            "CREATE TABLE `{name}` (`{name}` INT) WITH ('connector' = 'datagen'); SELECT `{name}` FROM `{name}` WHERE `{name}` > 1"
        );
        let script = planned(&text);
        assert_eq!(Graph::from_json(&serde_json::to_string(&script.graph).unwrap()), Ok(script.graph));
    }
}

/// A small deterministic fuzz: pieces of scripts in any order never panic, and every problem has a place inside the text.
#[test]
fn any_order_of_words_is_answered() {
    const PIECES: &[&str] = &[
        "SELECT",
        "price",
        "FROM",
        "bid",
        "WHERE",
        "(",
        ")",
        ",",
        "*",
        "GROUP BY",
        "TUMBLE",
        "HOP",
        "TABLE",
        "DESCRIPTOR(ts)",
        "INTERVAL '1' MINUTE",
        "window_start",
        "window_end",
        "COUNT(*)",
        "SUM(price)",
        "UNION ALL",
        "AS x",
        "WITH",
        "INSERT INTO out",
        ";",
        "'text'",
        "`",
        "CASE WHEN",
        "THEN",
        "END",
        "ORDER BY",
        "LIMIT 1",
        "JOIN",
        "ON",
        "=",
        "1",
        "DISTINCT",
        "HAVING",
        "CREATE VIEW v AS",
        "CREATE TABLE t (",
        "PRIMARY KEY",
        "WATERMARK FOR",
        "SET",
        "EXPLAIN",
        "highwater.late_rows",
        "OVER",
        "FILTER (WHERE",
        "SESSION(TABLE bid PARTITION BY",
        "=>",
        "\"",
        "--",
        "/*",
        "BETWEEN",
        "AND",
        "NOT",
    ];
    let mut state = 42u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..3_000 {
        let words: Vec<&str> = (0..random(14) + 1).map(|_| PIECES[random(PIECES.len())]).collect();
        let begin = ["", "SELECT price FROM bid ", "SELECT COUNT(*) FROM TABLE(", "CREATE TABLE t (a INT, "][random(4)];
        let text = format!("{TABLES}{begin}{}", words.join(" "));
        if let Err(problems) = plan(&text, &Options::default()) {
            assert!(!problems.is_empty());
            let lines = text.lines().count() as u64;
            for problem in &problems {
                if let graph::Place::Span { line, column, .. } = problem.place {
                    assert!((1..=lines + 1).contains(&line) && column > 0, "{problem:?} in {text}");
                }
            }
            crate::render(&problems, &text, "fuzz.sql");
        }
    }
}
