//! What does not fit, comes at the wrong time, or twice: each is answered by what it is, and nothing is lost by it.

use std::collections::BTreeSet;

use super::*;

/// A running aggregate and a window over numbers, each into a view.
fn two_views(totals: &str, windows: &str) -> String {
    format!(
        "SET 'checkpoint.interval' = '200ms'; SET 'epoch.interval' = '50ms';
         CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
           WITH ('connector' = 'datagen', 'rows-per-second' = '500', 'fields.n.kind' = 'sequence');
         CREATE TABLE {totals} (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         CREATE TABLE {windows} (w TIMESTAMP(3), k BIGINT, c BIGINT) WITH ('connector' = 'view');
         INSERT INTO {totals} SELECT n % 10, COUNT(*), SUM(n) FROM ticks GROUP BY n % 10;
         INSERT INTO {windows} SELECT window_start, n % 3, COUNT(*)
           FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, n % 3;"
    )
}

/// What a check says of the source, the running aggregate, the window, and the views of both: a letter for each verdict, in the order of the
/// alphabet, since what has another id is dropped under the old one and begins empty under the new one.
fn letters(verdicts: &Value, [totals, windows]: [&str; 2]) -> [String; 5] {
    let of = |is_it: &dyn Fn(&str) -> bool| -> String {
        let operators = verdicts["operators"].as_array().unwrap().iter();
        let found = operators.filter(|one| is_it(one["operator"].as_str().unwrap()));
        let found: BTreeSet<&str> = found.map(|one| &one["verdict"].as_str().unwrap()[..1]).collect();
        found.into_iter().collect()
    };
    [
        of(&|id| ["ticks", "numbers"].contains(&id)),
        of(&|id| id.starts_with("aggregate")),
        of(&|id| id.starts_with("window_aggregate")),
        of(&|id| id == format!("sink_{totals}") || id == "sink_renamed"),
        of(&|id| id == format!("sink_{windows}")),
    ]
}

/// What changes, by which edits; whether the savepoint fits then; the verdicts.
type Change<'a> = (&'a str, &'a [(&'a str, &'a str)], bool, [&'a str; 5]);

#[test]
fn a_graph_that_changed_is_judged_part_by_part() {
    let server = shared();
    let (name, windows) = (fresh("judged"), fresh("judged_windows"));
    let sql = two_views(&name, &windows);
    let (_, run) = server.submit(&name, &sql);
    wait_for_checkpoints(&server, &run);
    let taken = server.post(&format!("/api/v1/jobs/{name}/savepoints"), &json!({})).expect(202).json();
    let taken = succeeded(&server, &taken);
    cancel(&server, &run);
    let check = format!("/api/v1/savepoints/{}/check", id(&taken));
    let totals_insert = sql.lines().find(|line| line.trim().starts_with(&format!("INSERT INTO {name}"))).unwrap();
    let totals_table = sql.lines().find(|line| line.trim().starts_with(&format!("CREATE TABLE {name}"))).unwrap();
    let another = format!(
        "CREATE TABLE more (k BIGINT, c BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         INSERT INTO more SELECT n % 4, COUNT(*) FROM ticks GROUP BY n % 4; {totals_insert}"
    );
    let cast = totals_table.replace("k BIGINT", "k INT");
    let (no_cast, both) = (totals_table.replace(&name, "renamed"), totals_insert.replace(&name, "renamed"));
    let two = [totals_table, "\n", &no_cast].concat();
    let twin = [totals_insert, "\n", &both].concat();
    let part = twin.replace(
        "INTO renamed SELECT n % 10, COUNT(*), SUM(n) FROM ticks",
        "INTO renamed SELECT n % 10, COUNT(*), SUM(n) FROM ticks WHERE n > 5",
    );
    // Reuse, migrate, fresh, drop, conflict; rebuild, which has the letter of reuse, is looked at below.
    #[rustfmt::skip]
    let changes: &[Change<'_>] = &[
        ("nothing", &[], true, ["r", "r", "r", "r", "r"]),
        ("how fast rows come", &[("'500'", "'700'")], true, ["r", "r", "r", "r", "r"]),
        ("a column more", &[("(n BIGINT, ts", "(n BIGINT, m INT, ts")], true, ["r", "r", "r", "r", "r"]),
        ("a key", &[("% 10", "% 9")], false, ["r", "df", "r", "c", "r"]),
        ("a type of a key", &[("SELECT n % 10", "SELECT CAST(n % 10 AS INT)"), ("GROUP BY n % 10", "GROUP BY CAST(n % 10 AS INT)"), (totals_table, &cast)], false, ["r", "df", "r", "c", "r"]),
        ("an argument", &[("SUM(n)", "SUM(n + 1)")], false, ["r", "df", "r", "c", "r"]),
        ("a function", &[("SUM(n)", "MAX(n)")], false, ["r", "df", "r", "c", "r"]),
        ("the size of a window", &[("'1' HOUR", "'2' HOUR")], false, ["r", "r", "df", "r", "c"]),
        ("the kind of a window", &[("TUMBLE(TABLE ticks, DESCRIPTOR(ts), INTERVAL '1' HOUR)", "HOP(TABLE ticks, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '2' HOUR)")], false, ["r", "r", "df", "r", "c"]),
        // Columns are followed down to what is read, so all that came of other rows is something else.
        ("what is read", &[("'sequence')", "'sequence', 'fields.n.start' = '7')")], false, ["c", "c", "c", "c", "c"]),
        ("a part is gone", &[(totals_insert, ""), (totals_table, "")], false, ["r", "d", "r", "d", "r"]),
        ("a part is new", &[(totals_insert, &another)], true, ["r", "fr", "r", "r", "r"]),
        ("a part does what another one does", &[(totals_table, &two), (totals_insert, &twin)], true, ["r", "r", "r", "r", "r"]),
        ("a part does nearly that", &[(totals_table, &two), (totals_insert, &part)], true, ["r", "fr", "r", "fr", "r"]),
        ("a view has another name", &[(&format!("TABLE {name} "), "TABLE renamed "), (&format!("INTO {name} "), "INTO renamed ")], true, ["r", "r", "r", "m", "r"]),
        ("a source has another name", &[("TABLE ticks (", "TABLE numbers ("), ("FROM ticks", "FROM numbers"), ("(TABLE ticks", "(TABLE numbers")], true, ["m", "m", "m", "r", "r"]),
        ("a filter", &[("FROM ticks GROUP", "FROM ticks WHERE n > 5 GROUP")], true, ["r", "m", "r", "r", "r"]),
    ];
    let mut wrong = Vec::new();
    for (what, edits, fits, expected) in changes {
        let changed = edits.iter().fold(sql.clone(), |sql, (from, to)| {
            assert!(sql.contains(from), "{what}: {from}");
            sql.replace(from, to)
        });
        let verdicts = server.post(&check, &json!({"sql": changed})).expect(200).json();
        let found = letters(&verdicts, [&name, &windows]);
        if found != *expected || verdicts["fits"] != *fits {
            wrong.push(format!("{what}: {found:?}, fits {}: {verdicts}", verdicts["fits"]));
        }
        let rebuilt = verdicts["operators"].as_array().unwrap().iter().filter(|one| one["verdict"] == "rebuild");
        let rebuilt: Vec<&Value> = rebuilt.collect();
        match *what == "a part does what another one does" {
            true => {
                assert_eq!((rebuilt.len(), &rebuilt[0]["from"]), (1, &json!(format!("sink_{name}"))), "{verdicts}");
                assert!(
                    rebuilt[0]["operator"] == "sink_renamed" && rebuilt[0]["bytes"].as_u64() > Some(100),
                    "{verdicts}"
                );
            }
            false => assert!(rebuilt.is_empty(), "{what}: {verdicts}"),
        }
        // Whatever does not fit says why.
        for one in verdicts["operators"].as_array().unwrap().iter().filter(|one| one["fits"] == false) {
            assert!(one["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{what}: {one}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A question that is none.
    for (body, code) in [
        (json!({}), "validation_failed"),
        (json!({"sql": sql, "job": name}), "validation_failed"),
        (json!({"sql": "SELECT"}), "invalid_graph"),
        (json!({"sql": sql, "allow_dropped_state": ["nobody"]}), "validation_failed"),
    ] {
        let answer = server.post(&check, &body).send();
        assert!(answer.status == 422 && answer.json()["code"] == code, "{body}: {}", answer.text());
    }
    server.post(&check, &json!({"job": "nobody"})).refused(404, "job_not_found");
}

/// Keys that do not come again: a view that began empty would never have them.
#[test]
fn a_view_that_is_new_and_shows_what_another_one_shows_has_all_its_rows() {
    let server = shared();
    let (name, twin) = (fresh("shown"), fresh("shown_twin"));
    let insert = |view: &str| format!("INSERT INTO {view} SELECT n / 50, COUNT(*) FROM ticks GROUP BY n / 50;");
    let table = |view: &str| {
        format!("CREATE TABLE {view} (k BIGINT, c BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');")
    };
    let sql = |views: &[&str]| {
        let views: String = views.iter().map(|view| table(view) + &insert(view)).collect();
        format!(
            "SET 'checkpoint.interval' = '200ms'; SET 'epoch.interval' = '50ms';
             CREATE TABLE ticks (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
               WITH ('connector' = 'datagen', 'rows-per-second' = '1000', 'fields.n.kind' = 'sequence'); {views}"
        )
    };
    let (_, run) = server.submit(&name, &sql(&[&name]));
    server.wait_for_run(&run, "several keys", |run| rows_in(run) > Some(500));
    let stop = json!({"mode": "savepoint"});
    let stopping = server.post(&format!("/api/v1/runs/{}/stop", id(&run)), &stop).expect(202).json();
    let taken = succeeded(&server, &stopping);
    server.put(&format!("/api/v1/jobs/{name}"), &json!({"sql": sql(&[&name, &twin])})).expect(200);
    let on = start(&server, &name, &id(&taken));
    let before = rows_in(&server.wait_for_end(&run)).unwrap();
    server.wait_for_run(&on, "more rows", |run| rows_in(run) > Some(before + 200));
    server.post(&format!("/api/v1/runs/{}/stop", id(&on)), &json!({"mode": "drain"})).expect(202);
    assert_eq!(server.wait_for_end(&on)["state"], "finished");
    let rows = |view: &str| {
        let of = |row: &Value, name: &str| row[name].as_i64().unwrap();
        server.rows(view).iter().map(|row| (of(row, "k"), of(row, "c"))).collect::<BTreeMap<_, _>>()
    };
    let (first, second) = (rows(&name), rows(&twin));
    assert!(first.len() > 14, "{first:?}");
    assert_eq!(first, second);
    assert!(first.values().rev().skip(1).all(|count| *count == 50), "each number once: {first:?}");
}

#[test]
fn two_that_stop_a_run_at_once_are_one_if_they_call_it_the_same() {
    let server = shared();
    for (names, agree) in [(["same", "same"], true), (["one", "other"], false)] {
        let name = fresh("stops");
        let run = endless(&server, &name);
        let path = format!("/api/v1/runs/{}/stop", id(&run));
        let ask = |name: &str| server.post(&path, &json!({"mode": "savepoint", "name": name})).send();
        let (first, second) = std::thread::scope(|scope| {
            let [first, second] = names.map(|name| scope.spawn(move || ask(name)));
            (first.join().unwrap(), second.join().unwrap())
        });
        let accepted: Vec<Value> =
            [&first, &second].into_iter().filter(|answer| answer.status == 202).map(|answer| answer.json()).collect();
        if agree {
            assert_eq!(accepted.len(), 2, "{} {}", first.text(), second.text());
            assert_eq!(accepted[0]["id"], accepted[1]["id"]);
        } else {
            assert_eq!(accepted.len(), 1, "{} {}", first.text(), second.text());
            let refused = if first.status == 202 { second } else { first };
            assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("invalid_state")), "{}", refused.text());
        }
        succeeded(&server, &accepted[0]);
        assert_eq!(server.wait_for_end(&run)["state"], "stopped");
        let all = server.get(&format!("/api/v1/jobs/{name}/savepoints")).expect(200).json();
        assert_eq!(all["items"].as_array().unwrap().len(), 1, "{all}");
    }
}

/// A savepoint that comes too late fails, and the run ends as if nobody had asked.
#[test]
fn a_savepoint_while_a_run_finishes_or_has_finished_is_refused() {
    let server = Highwater::with_faults("last.begun=delay:1500@1", "", &[]);
    job(&server, "never", &endless_script("never"), 1);
    server.post("/api/v1/jobs/never/savepoints", &json!({})).refused(409, "invalid_state");
    let sql = "SET 'checkpoint.interval' = '100ms'; SET 'epoch.interval' = '50ms';
        CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000', 'number-of-rows' = '1500', 'fields.n.kind' = 'sequence');
        CREATE TABLE v (k BIGINT, n BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
        INSERT INTO v SELECT n % 4, COUNT(*) FROM s GROUP BY n % 4;";
    let (_, run) = server.submit("ending", sql);
    let deadline = std::time::Instant::now() + integration_tests::rest::PATIENCE;
    while !server.fault("last.begun=delay:1500@1").exists() {
        assert!(std::time::Instant::now() < deadline, "the run does not come to its end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let path = "/api/v1/jobs/ending/savepoints";
    let late = server.post(path, &json!({"name": "late"})).expect(202).json();
    let ended = server.wait_for_end(&run);
    assert_eq!((&ended["state"], &ended["attempts"]), (&json!("finished"), &json!(1)), "{ended}");
    let failed = wait(&server, &late);
    assert_eq!((&failed["state"], &failed["failure"]["code"]), (&json!("failed"), &json!("invalid_state")), "{failed}");
    assert!(failed["failure"]["detail"].as_str().unwrap().contains("finished"), "{failed}");
    let counted: i64 = server.rows("v").iter().map(|row| row["n"].as_i64().unwrap()).sum();
    assert_eq!(counted, 1500);
    server.post(path, &json!({"name": "after"})).refused(409, "invalid_state");
    // One that failed is deleted like any other.
    server.delete(&format!("/api/v1/savepoints/{}", failed["savepoint"].as_str().unwrap())).expect(204);
}

/// What was asked for first counts.
#[test]
fn a_run_that_is_drained_is_not_stopped_with_a_savepoint() {
    let server = Highwater::with_faults("drain.obeyed=delay:1500@1", "", &[]);
    let run = endless(&server, "drained");
    let path = format!("/api/v1/runs/{}/stop", id(&run));
    server.post(&path, &json!({"mode": "drain"})).expect(202);
    server.post(&path, &json!({"mode": "savepoint"})).refused(409, "invalid_state");
    server.post(&path, &json!({"mode": "now", "name": "x"})).refused(422, "validation_failed");
    assert_eq!(server.wait_for_end(&run)["state"], "finished");
    server.post(&path, &json!({"mode": "savepoint"})).refused(409, "invalid_state");
}
