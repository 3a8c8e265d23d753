//! Bad input gets a clear error and loses nothing: a table of what goes wrong, and what the program must say.
//!
//! Every row checks the exit code, the error code, the place, the words that help, that the process ended by itself and
//! soon, and that no result was published.

use std::path::Path;
use std::time::Duration;

use integration_tests::program::{self, Finished};
use rstest::rstest;

use super::support;

/// The script or an argument was refused: nothing ran.
const REFUSED: i32 = 2;
/// The run failed: its input, its output or the machine.
const FAILED: i32 = 1;

/// Bad input is answered at once; this leaves room for a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Two rows of the table `bids`, as `bids.jsonl`.
const BIDS: &str = "{\"auction\":1,\"price\":5,\"channel\":\"a\",\"ts\":\"2024-03-01 08:00:00\"}\n\
                    {\"auction\":2,\"price\":7,\"channel\":\"b\",\"ts\":\"2024-03-01 08:00:01\"}\n";

const TABLES: &str = "CREATE TABLE bids (auction BIGINT, price BIGINT, channel STRING, ts TIMESTAMP(3),\n\
                      WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');\n\
                      CREATE TABLE result (a BIGINT, b BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n";

/// Runs a script in a folder of its own that holds `files`.
fn run(script: &str, files: &[(&str, &[u8])], arguments: &[&str]) -> (tempfile::TempDir, Finished) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(folder.path().join("script.sql"), script).unwrap();
    let mut command = support::command(folder.path());
    let finished = program::finish(command.args(["run", "script.sql"]).args(arguments), SOON);
    (folder, finished)
}

fn assert_answer(finished: &Finished, exit: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(exit), "{}", finished.report());
    for word in words {
        // Terminal decoration may break lines, so white space does not count.
        let (said, word) = (squeezed(&finished.stderr), squeezed(word));
        assert!(said.contains(&word), "no {word:?} in: {}", finished.report());
    }
    assert!(!finished.stderr.contains("panicked"), "{}", finished.report());
}

fn squeezed(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || "│╭╰─·".contains(c))
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn published(folder: &Path) -> bool {
    let out = folder.join("out");
    out.exists() && !integration_tests::compare::rows_at(&out).unwrap().is_empty()
}

/// Statements over [`TABLES`]; `«` stands before the place that the error must name.
#[rstest]
#[case::not_sql("«SELEKT 1;", "sql_syntax", &[])]
#[case::two_commas("INSERT INTO result SELECT auction,«, price FROM bids;", "sql_syntax", &[])]
#[case::unknown_table("INSERT INTO result SELECT auction, price FROM «bidz;", "unknown_table", &["bids"])]
#[case::unknown_sink("INSERT INTO «resullt SELECT auction, price FROM bids;", "unknown_table", &["result"])]
#[case::unknown_column("INSERT INTO result SELECT auction, «prize FROM bids;", "unknown_column", &["price"])]
#[case::unknown_function("INSERT INTO result SELECT auction, «ABSS(price) FROM bids;", "unknown_function", &["ABS"])]
#[case::unknown_window("INSERT INTO result SELECT auction, COUNT(*) FROM TABLE(«TUMBEL(TABLE bids, DESCRIPTOR(ts), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, auction;", "unknown_function", &["TUMBLE"])]
#[case::too_few_columns("INSERT INTO «result SELECT auction FROM bids;", "wrong_columns", &["2"])]
#[case::type_mismatch("INSERT INTO result SELECT auction, «price + channel FROM bids;", "type_mismatch", &[])]
#[case::no_implicit_cast("INSERT INTO result SELECT auction, «channel FROM bids;", "type_mismatch", &["CAST"])]
#[case::ungrouped_column("INSERT INTO result SELECT «price, COUNT(*) FROM bids GROUP BY auction;", "not_grouped", &["price"])]
#[case::window_over_no_time("INSERT INTO result SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, «DESCRIPTOR(price), INTERVAL '1' SECOND)) GROUP BY window_start, window_end, auction;", "not_a_time_attribute", &["ts"])]
#[case::size_zero("INSERT INTO result SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL «'0' SECOND)) GROUP BY window_start, window_end, auction;", "invalid_window", &[])]
#[case::size_negative("INSERT INTO result SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL «'-5' SECOND)) GROUP BY window_start, window_end, auction;", "invalid_window", &[])]
#[case::size_below_precision("INSERT INTO result SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL «'0.0005' SECOND)) GROUP BY window_start, window_end, auction;", "invalid_window", &["TIMESTAMP(6)"])]
#[case::step_does_not_divide("INSERT INTO result SELECT auction, COUNT(*) FROM TABLE(CUMULATE(TABLE bids, DESCRIPTOR(ts), INTERVAL «'3' SECOND, INTERVAL '10' SECOND)) GROUP BY window_start, window_end, auction;", "invalid_window", &["divide"])]
#[case::calendar_month("INSERT INTO result SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL «'1' MONTH)) GROUP BY window_start, window_end, auction;", "invalid_interval", &["MONTH"])]
#[case::join("INSERT INTO result SELECT b.auction, c.price FROM bids b JOIN «bids c ON b.auction = c.auction;", "unsupported", &["JOIN"])]
#[case::over("INSERT INTO result SELECT auction, «SUM(price) OVER (PARTITION BY auction ORDER BY ts) FROM bids;", "unsupported", &["OVER"])]
#[case::copy("«COPY bids TO '/tmp/x';", "statement_not_supported", &[])]
#[case::external_table("«CREATE EXTERNAL TABLE t (a INT) LOCATION '/etc/passwd';", "", &[])]
fn a_wrong_statement_is_refused_where_it_is_wrong(#[case] marked: &str, #[case] code: &str, #[case] words: &[&str]) {
    let before = marked.split('«').next().unwrap();
    let line = TABLES.lines().count() + before.lines().count().max(1);
    let column = before.lines().last().unwrap_or("").chars().count() + 1;
    let script = format!("{TABLES}{}", marked.replace('«', ""));
    let (folder, finished) = run(&script, &[("bids.jsonl", BIDS.as_bytes())], &[]);
    assert_answer(&finished, REFUSED, &[&[code], words].concat());
    let place = format!("script.sql:{line}:{column}");
    assert!(finished.stderr.split_whitespace().any(|word| word == place), "not at {place}: {}", finished.report());
    assert!(!published(folder.path()));
}

/// Whole scripts that are refused, wherever the error is.
#[rstest]
#[case::empty("", "sql_syntax", &[])]
#[case::only_comments("-- nothing\n/* here */", "sql_syntax", &[])]
#[case::unclosed_text("INSERT INTO result SELECT 'abc FROM bids;", "sql_syntax", &[])]
#[case::unknown_connector("CREATE TABLE t (a BIGINT) WITH ('connector' = 'filesystm', 'path' = 'x', 'format' = 'json'); SELECT a FROM t;", "unknown_connector", &["filesystem"])]
#[case::unknown_option("CREATE TABLE t (a BIGINT) WITH ('connector' = 'filesystem', 'path' = 'x', 'formt' = 'json'); SELECT a FROM t;", "unknown_option", &["format"])]
#[case::unknown_type("CREATE TABLE t (a BIGGINT) WITH ('connector' = 'filesystem', 'path' = 'x', 'format' = 'json'); SELECT a FROM t;", "unknown_type", &["BIGINT"])]
#[case::connector_of_later("CREATE TABLE t (a BIGINT) WITH ('connector' = 'kinesis', 'stream' = 'x', 'format' = 'json'); SELECT a FROM t;", "unknown_connector", &["kinesis"])]
fn a_wrong_script_is_refused(#[case] script: &str, #[case] code: &str, #[case] words: &[&str]) {
    let tables = if script.contains("result") { TABLES } else { "" };
    let (folder, finished) = run(&format!("{tables}{script}"), &[("bids.jsonl", BIDS.as_bytes())], &[]);
    assert_answer(&finished, REFUSED, &[&[code], words].concat());
    assert!(!published(folder.path()));
}

/// Options that can be read and cannot work: `validate` says so too, before anything is read or written.
#[rstest]
#[case::no_splits_of_a_replay("bids", &["tables.bids.connector=replay", "tables.bids.replay.splits=0"], "invalid_option", &["replay.splits", "1 to 1024"])]
#[case::negative_disorder("bids", &["tables.bids.connector=replay", "tables.bids.replay.disorder=-5s"], "invalid_option", &["replay.disorder", "negative"])]
#[case::speed_without_time("nested", &["tables.nested.connector=replay", "tables.nested.replay.speed=2"], "invalid_option", &["replay.speed", "WATERMARK"])]
#[case::no_rows_per_second("made", &["tables.made.rows-per-second=0"], "invalid_option", &["rows-per-second"])]
#[case::no_splits("made", &["tables.made.splits=0"], "invalid_option", &["splits"])]
#[case::unknown_kind("made", &["tables.made.fields.auction.kind=foo"], "invalid_option", &["foo", "random", "sequence"])]
#[case::unknown_field("made", &["tables.made.fields.zzz.kind=random"], "invalid_option", &["zzz"])]
#[case::source_outside("bids", &["tables.bids.path=/etc/passwd"], "location_not_allowed", &["/etc/passwd", "--allow-root"])]
#[case::pattern_outside("bids", &["tables.bids.path=/etc/*.conf"], "location_not_allowed", &["/etc", "--allow-root"])]
#[case::sink_outside("bids", &["tables.result.path=/etc/new"], "location_not_allowed", &["/etc/new", "--allow-root"])]
#[case::sink_is_a_file("bids", &["tables.result.path=script.sql"], "output_refused", &["directory"])]
#[case::unknown_scheme("bids", &["tables.bids.path=gs://x/y"], "location_invalid", &["gs://", "s3://"])]
#[case::unknown_scheme_of_a_sink("bids", &["tables.result.path=gs://x/y"], "location_invalid", &["gs://"])]
#[case::delimiter("bids", &["tables.result.format=csv", "tables.result.csv.field-delimiter=ü"], "output_refused", &["ASCII"])]
#[case::nested_csv("nested", &["tables.lists.format=csv"], "output_refused", &["CSV"])]
fn options_that_cannot_work_are_refused_before_the_run(
    #[case] table: &str,
    #[case] set: &[&str],
    #[case] code: &str,
    #[case] words: &[&str],
) {
    let made = "CREATE TABLE made (auction BIGINT, price BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '3');\n\
                CREATE TABLE nested (l ARRAY<BIGINT>) WITH ('connector' = 'filesystem', 'path' = 'bids.jsonl', 'format' = 'json');\n\
                CREATE TABLE lists (l ARRAY<BIGINT>) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n";
    let insert = match table {
        "nested" => "INSERT INTO lists SELECT l FROM nested;".to_string(),
        table => format!("INSERT INTO result SELECT auction, price FROM {table};"),
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bids.jsonl"), BIDS).unwrap();
    std::fs::write(folder.path().join("script.sql"), format!("{TABLES}{made}{insert}")).unwrap();
    for verb in ["validate", "run"] {
        let mut command = support::command(folder.path());
        command.args([verb, "script.sql"]).args(set.iter().flat_map(|set| ["--set", set]));
        let finished = program::finish(&mut command, SOON);
        assert_answer(&finished, REFUSED, &[&[code, "script.sql:"], words].concat());
    }
    assert!(!folder.path().join("out").exists());
}

/// Sizes and depths that have killed other engines: refused, the process alive and quick.
#[rstest]
#[case::long_sum("1".to_owned() + &" + 1".repeat(10_000))]
#[case::deep_parentheses("(".repeat(10_000) + "1" + &")".repeat(10_000))]
#[case::many_conditions("CASE WHEN price = 1".to_owned() + &" OR price = 2".repeat(20_000) + " THEN 1 END")]
#[case::deep_functions("ABS(".repeat(5_000) + "1" + &")".repeat(5_000))]
#[case::deep_minus("- ".repeat(20_000) + "1")]
#[case::deep_case("CASE WHEN true THEN ".repeat(5_000) + "1" + &" END".repeat(5_000))]
#[case::deep_subqueries("(SELECT ".repeat(2_000) + "1" + &")".repeat(2_000))]
fn an_expression_that_is_too_large_is_refused(#[case] expression: String) {
    let script = format!("{TABLES}INSERT INTO result SELECT auction, {expression} FROM bids;");
    let (_folder, finished) = run(&script, &[("bids.jsonl", BIDS.as_bytes())], &[]);
    assert_answer(&finished, REFUSED, &["query_too_complex"]);
    assert!(finished.stderr.len() < 20_000, "the answer repeats the whole query: {} bytes", finished.stderr.len());
}

#[test]
fn all_errors_of_a_script_are_reported_at_once() {
    let script = format!(
        "{TABLES}INSERT INTO result SELECT auction, prize FROM bids;\nINSERT INTO result SELECT auction, price FROM bidz;"
    );
    let (_folder, finished) = run(&script, &[("bids.jsonl", BIDS.as_bytes())], &[]);
    assert_answer(&finished, REFUSED, &["unknown_column", "unknown_table"]);
}

const COPY: &str = "INSERT INTO result SELECT auction, price FROM bids;";

/// Files that cannot be read as they should: the run fails, says which file and where in it, and publishes nothing.
#[rstest]
#[case::missing_file(&[] as &[(&str, &[u8])], &["bids.jsonl"])]
#[case::half_a_record(&[("bids.jsonl", b"{\"auction\":1,\"price\":5}\n{\"auction\":2,\"pri" as &[u8])], &["bids.jsonl", "record 1", "byte"])]
#[case::two_objects(&[("bids.jsonl", b"{\"auction\":1,\"price\":5} {\"auction\":2}\n" as &[u8])], &["bids.jsonl", "record 0", "byte"])]
#[case::wrong_type(&[("bids.jsonl", b"{\"auction\":1,\"price\":5}\n{\"auction\":[],\"price\":5}\n" as &[u8])], &["bids.jsonl", "record 1", "auction"])]
#[case::too_large_number(&[("bids.jsonl", b"{\"auction\":9223372036854775808,\"price\":5}\n" as &[u8])], &["bids.jsonl", "record 0", "auction"])]
#[case::bad_utf8(&[("bids.jsonl", b"{\"auction\":1,\"price\":5}\n{\"auction\":2,\"channel\":\"\xff\"}\n" as &[u8])], &["bids.jsonl", "record 1", "byte"])]
#[case::deep_nesting(&[("bids.jsonl", DEEP.as_bytes())], &["bids.jsonl", "record 0", "byte"])]
fn a_bad_json_file_fails_the_run(#[case] files: &[(&str, &[u8])], #[case] words: &[&str]) {
    let table = TABLES.replace("WATERMARK FOR ts AS ts", "PRIMARY KEY (auction) NOT ENFORCED");
    for mode in [&[] as &[&str], &["--set", "tables.bids.connector=replay"]] {
        // A replay needs a time attribute.
        let table = if mode.is_empty() { &table } else { TABLES };
        let (folder, finished) = run(&format!("{table}{COPY}"), files, mode);
        // The splits of a replay are not files: there the table and the place in its file must do.
        let words: Vec<&str> =
            words.iter().map(|word| if mode.is_empty() { *word } else { word.trim_end_matches(".jsonl") }).collect();
        assert_answer(&finished, FAILED, &words);
        assert!(!published(folder.path()), "{}", finished.report());
    }
}

const DEEP: &str = const_str();
/// One record that nests deeper than any real one.
const fn const_str() -> &'static str {
    static BYTES: [u8; 20_000] = {
        let mut bytes = [b'['; 20_000];
        let start = b"{\"auction\":1,\"x\":";
        let mut index = 0;
        while index < start.len() {
            bytes[index] = start[index];
            index += 1;
        }
        bytes
    };
    match std::str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => panic!("ASCII"),
    }
}

#[rstest]
#[case::drop("drop", &["1"])]
fn bad_records_are_counted_when_the_table_says_so(#[case] policy: &str, #[case] words: &[&str]) {
    let tables =
        TABLES.replace("'path' = 'bids.jsonl'", &format!("'path' = 'bids.jsonl', 'on_bad_record' = '{policy}'"));
    let content = format!("{BIDS}not json\n");
    let (folder, finished) = run(&format!("{tables}{COPY}"), &[("bids.jsonl", content.as_bytes())], &[]);
    assert_answer(&finished, 0, words);
    assert_eq!(integration_tests::compare::rows_at(&folder.path().join("out")).unwrap().len(), 2);
}

const PARQUET_TABLES: &str = "CREATE TABLE bids (auction BIGINT, price BIGINT)\n\
    WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'parquet');\n\
    CREATE TABLE result (a BIGINT, b BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n";

fn parquet_of(name: &str, values: Vec<i64>) -> Vec<u8> {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    let column: ArrayRef = std::sync::Arc::new(Int64Array::from(values.clone()));
    let other: ArrayRef = std::sync::Arc::new(Int64Array::from(values));
    let batch = RecordBatch::try_from_iter([("auction", column), (name, other)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// The column `price` holds texts.
fn parquet_of_text() -> Vec<u8> {
    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    let column: ArrayRef = std::sync::Arc::new(StringArray::from(vec!["dear"]));
    let batch = RecordBatch::try_from_iter([("price", column)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn broken(how: &str) -> Vec<u8> {
    let mut bytes = parquet_of("price", (0..1_000).collect());
    let length = bytes.len();
    match how {
        "truncated" => bytes.truncate(length / 2),
        "no magic" => bytes[length - 4..].copy_from_slice(b"PAR0"),
        "footer length lies" => bytes[length - 8..length - 4].copy_from_slice(&u32::MAX.to_le_bytes()),
        "garbled page" => bytes[40..length / 2].fill(0xff),
        "empty" => bytes.clear(),
        "text" => bytes = b"auction,price\n1,2\n".to_vec(),
        other => panic!("{other}"),
    }
    bytes
}

#[rstest]
fn a_broken_parquet_file_fails_the_run(
    #[values("truncated", "no magic", "footer length lies", "garbled page", "empty", "text")] how: &str,
) {
    let (good, bad) = (parquet_of("price", vec![1]), broken(how));
    let files: [(&str, &[u8]); 2] = [("in/a.parquet", &good), ("in/b.parquet", &bad)];
    let (folder, finished) = run(&format!("{PARQUET_TABLES}{COPY}"), &files, &[]);
    assert_answer(&finished, FAILED, &["b.parquet"]);
    assert!(!published(folder.path()), "{}", finished.report());
}

/// A column that a file lacks is NULL there: tables grow columns. One that must not be NULL cannot be had.
#[test]
fn files_whose_schemas_differ_are_read_where_that_is_right() {
    let (good, other) = (parquet_of("price", vec![1]), parquet_of("cost", vec![2]));
    let files: [(&str, &[u8]); 2] = [("in/a.parquet", &good), ("in/b.parquet", &other)];
    let (folder, finished) = run(&format!("{PARQUET_TABLES}{COPY}"), &files, &[]);
    assert_answer(&finished, 0, &[]);
    let expected = integration_tests::compare::rows("{\"a\":1,\"b\":1}\n{\"a\":2,\"b\":null}", "expected").unwrap();
    let rows = integration_tests::compare::rows_at(&folder.path().join("out")).unwrap();
    assert_eq!(integration_tests::compare::same_rows(&expected, &rows), Ok(()));

    let tables = PARQUET_TABLES.replacen("price BIGINT", "price BIGINT NOT NULL", 1);
    let (folder, finished) = run(&format!("{tables}{COPY}"), &files, &[]);
    assert_answer(&finished, FAILED, &["b.parquet", "price"]);
    assert!(!published(folder.path()));

    let text = parquet_of_text();
    let (folder, finished) =
        run(&format!("{PARQUET_TABLES}{COPY}"), &[("in/a.parquet", &good), ("in/b.parquet", &text)], &[]);
    assert_answer(&finished, FAILED, &["b.parquet", "price"]);
    assert!(!published(folder.path()));
}

#[test]
fn output_that_exists_is_not_overwritten() {
    let files: [(&str, &[u8]); 2] = [("bids.jsonl", BIDS.as_bytes()), ("out/mine.json", b"{\"a\":1,\"b\":1}\n")];
    let (folder, finished) = run(&format!("{TABLES}{COPY}"), &files, &[]);
    assert_eq!(
        std::fs::read(folder.path().join("out/mine.json")).unwrap(),
        b"{\"a\":1,\"b\":1}\n",
        "{}",
        finished.report()
    );
}

#[test]
fn an_updating_result_is_refused_by_a_sink_that_cannot_show_updates() {
    let script = format!("{TABLES}INSERT INTO result SELECT auction, COUNT(*) FROM bids GROUP BY auction;");
    let files: [(&str, &[u8]); 1] = [("bids.jsonl", BIDS.as_bytes())];
    let (folder, finished) = run(&script, &files, &["--set", "tables.bids.connector=replay"]);
    assert_answer(&finished, REFUSED, &["result", "window"]);
    assert!(!published(folder.path()));
    // In a bounded run the final row per key is all there is.
    let (folder, finished) = run(&script, &files, &[]);
    assert_answer(&finished, 0, &[]);
    assert_eq!(integration_tests::compare::rows_at(&folder.path().join("out")).unwrap().len(), 2);
}

#[test]
fn order_by_is_refused_in_a_stream() {
    let script = format!("{TABLES}INSERT INTO result SELECT auction, price FROM bids ORDER BY price;");
    let (_folder, finished) =
        run(&script, &[("bids.jsonl", BIDS.as_bytes())], &["--set", "tables.bids.connector=replay"]);
    assert_answer(&finished, REFUSED, &["ORDER BY"]);
}

/// Files outside the working directory and the temporary directories need `--allow-root`.
#[rstest]
#[case::absolute("/etc/passwd")]
#[case::url("file:///proc/self/environ")]
#[case::dots("../../../../../../../../etc/passwd")]
#[case::link("link/passwd")]
fn paths_outside_the_allowed_roots_are_refused(#[case] path: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc", folder.path().join("link")).unwrap();
    let script = format!(
        "CREATE TABLE t (line STRING) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv');\nSELECT line FROM t;"
    );
    std::fs::write(folder.path().join("script.sql"), script).unwrap();
    let finished = program::finish(support::command(folder.path()).args(["run", "script.sql"]), SOON);
    assert_ne!(finished.code, Some(0), "{}", finished.report());
    assert!(squeezed(&finished.stderr).contains("--allow-root"), "{}", finished.report());
    assert!(!finished.stdout.contains("root:"), "{}", finished.report());
}

#[rstest]
#[case::no_script(&["run", "missing.sql"], &["missing.sql"])]
#[case::unknown_setting(&["run", "ok.sql", "--set", "epoch.intervall=1s"], &["epoch.interval"])]
#[case::unknown_table(&["run", "ok.sql", "--set", "tables.bidz.connector=replay"], &["bidz"])]
#[case::bad_value(&["run", "ok.sql", "--set", "epoch.interval=soon"], &["epoch.interval"])]
#[case::no_value(&["run", "ok.sql", "--set", "epoch.interval"], &["epoch.interval"])]
#[case::no_threads(&["run", "ok.sql", "--parallelism", "0"], &["parallelism"])]
#[case::too_many_threads(&["run", "ok.sql", "--parallelism", "100000"], &["parallelism"])]
#[case::unknown_output(&["run", "ok.sql", "-o", "yaml"], &["table", "json", "csv"])]
fn wrong_arguments_are_refused(#[case] arguments: &[&str], #[case] words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bids.jsonl"), BIDS).unwrap();
    std::fs::write(folder.path().join("ok.sql"), format!("{TABLES}{COPY}")).unwrap();
    let finished = program::finish(support::command(folder.path()).args(arguments), SOON);
    assert_answer(&finished, REFUSED, words);
    assert!(!published(folder.path()));
}

/// The writes of a run end in a device that is always full.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bids.jsonl"), BIDS).unwrap();
    std::fs::write(
        folder.path().join("script.sql"),
        format!("{}\nSELECT auction, price FROM bids;", TABLES.lines().take(2).collect::<Vec<_>>().join("\n")),
    )
    .unwrap();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = support::command(folder.path());
    let status = command
        .args(["run", "script.sql", "-o", "json"])
        .stdout(full)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(FAILED), "rows that could not be written were called a success");
}
