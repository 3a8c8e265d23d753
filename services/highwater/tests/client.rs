//! The commands that ask a server, against a real one: what they print, how they end, and what they never show.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A command takes milliseconds; this is for machines that are busy with something else.
const PATIENCE: Duration = Duration::from_secs(90);

/// Five rows into a view with a key.
const TOTALS: &str = "CREATE TABLE bids (item STRING, price BIGINT) WITH ('connector' = 'filesystem', 'path' = '{dir}/bids.jsonl', 'format' = 'json');\n\
                      CREATE TABLE totals (item STRING, total BIGINT, PRIMARY KEY (item) NOT ENFORCED) WITH ('connector' = 'view');\n\
                      INSERT INTO totals SELECT item, SUM(price) FROM bids GROUP BY item;\n";

const BIDS: &str = "{\"item\":\"A\",\"price\":2}\n{\"item\":\"B\",\"price\":3}\n{\"item\":\"A\",\"price\":5}\n{\"item\":\"C\",\"price\":1}\n";

/// Rows until it is stopped.
const LIVE: &str = "CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '1000', 'fields.n.kind' = 'sequence');\n\
                    CREATE TABLE seen (n BIGINT) WITH ('connector' = 'view');\n\
                    SET 'epoch.interval' = '50ms';\n\
                    INSERT INTO seen SELECT n FROM ticks;\n";

/// A server with a folder of its own, and everything that was said to and by it.
struct Server {
    folder: TempDir,
    child: Child,
    url: String,
    key: Option<String>,
    said: Arc<Mutex<String>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Runs go on without their server: they are ended with it here.
        for run in self.ask("runs list -o name --state running --state pending --state starting").out.lines() {
            self.ask(&format!("stop {run} --now --wait"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn with(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{self:#?}"))).collect()
    }
}

fn highwater(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_highwater"));
    command.args(words(line)).env("NO_COLOR", "1").env_remove("HIGHWATER_SERVER").env_remove("HIGHWATER_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Words of a line; what stands in quotes is one.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn ended(mut child: Child) -> Ended {
    let drain = |from: Option<Box<dyn Read + Send>>| {
        let mut from = from.unwrap();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = from.read_to_end(&mut bytes);
            String::from_utf8(bytes).unwrap()
        })
    };
    let out = drain(child.stdout.take().map(|out| Box::new(out) as Box<dyn Read + Send>));
    let err = drain(child.stderr.take().map(|err| Box::new(err) as Box<dyn Read + Send>));
    let deadline = Instant::now() + PATIENCE;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it did not end: {:?} {:?}", out.join(), err.join());
        }
        std::thread::sleep(Duration::from_millis(3));
    };
    Ended { code, out: out.join().unwrap(), err: err.join().unwrap() }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().unwrap().success());
}

impl Server {
    fn start() -> Server {
        Server::over(tempfile::tempdir().unwrap(), None)
    }

    fn over(folder: TempDir, key: Option<String>) -> Server {
        std::fs::write(folder.path().join("bids.jsonl"), BIDS).unwrap();
        let dir = folder.path().display();
        let mut child =
            highwater(&format!("serve --listen 127.0.0.1:0 --data {dir}/data --allow-root {dir}")).spawn().unwrap();
        let mut first = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut first).unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let log = said.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            while err.read_line(&mut line).is_ok_and(|read| read > 0) {
                log.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        let url = first.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{first:?}")).to_string();
        Server { folder, child, url, key, said }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text.replace("{dir}", &self.folder.path().display().to_string())).unwrap();
        path.display().to_string()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = highwater(line);
        command.env("HIGHWATER_SERVER", &self.url).current_dir(self.folder.path());
        if let Some(key) = &self.key {
            command.env("HIGHWATER_KEY", key);
        }
        command
    }

    fn ask(&self, line: &str) -> Ended {
        self.heard(ended(self.command(line).spawn().unwrap()))
    }

    /// With something on stdin.
    fn tell(&self, line: &str, input: &str) -> Ended {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        self.heard(ended(child))
    }

    fn heard(&self, ended: Ended) -> Ended {
        self.said.lock().unwrap().push_str(&format!("{}{}", ended.out, ended.err));
        ended
    }

    /// All that programs have written, files included.
    fn everything(&self) -> String {
        let mut all = self.said.lock().unwrap().clone();
        visit(self.folder.path(), &mut all);
        all
    }

    fn wait_for(&self, what: &str, line: &str, done: impl Fn(&Ended) -> bool) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ended = self.ask(line);
            if done(&ended) {
                return ended;
            }
            assert!(Instant::now() < deadline, "in vain: {what}: {ended:#?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn visit(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, all);
        } else if path.is_file() && !path.ends_with("secret.txt") {
            all.push_str(&String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()));
        }
    }
}

#[test]
fn a_job_is_submitted_followed_and_read() {
    let server = Server::start();
    let file = server.file("totals.sql", TOTALS);
    let submitted = server.ask(&format!("submit {file} --label team=a --label stage=test --wait")).with(0);
    assert!(submitted.out.starts_with("job    totals, version 1\nid     job_"), "{submitted:#?}");
    assert!(submitted.out.contains("\nviews  totals\n"), "{submitted:#?}");
    assert!(submitted.err.contains("totals finished in "), "{submitted:#?}");
    assert!(submitted.err.contains(": 4 rows in, 3 rows out, late 0, dead letters 0\n"), "{submitted:#?}");

    let view = server.ask("view totals").with(0);
    assert_eq!(
        view.out,
        "┌──────┬───────┐\n│ item ┆ total │\n╞══════╪═══════╡\n│ A    ┆     7 │\n│ B    ┆     3 │\n│ C    ┆     1 │\n└──────┴───────┘\n"
    );
    assert!(view.err.starts_with("3 rows, version run_") && view.err.contains("-v1, durable, "), "{view:#?}");
    for (limit, more) in [(3, false), (2, true)] {
        let limited = server.ask(&format!("view totals --limit {limit}")).with(0);
        assert!(limited.err.starts_with(&format!("{limit} rows, ")), "{limited:#?}");
        assert_eq!(limited.err.contains("more"), more, "{limited:#?}");
    }
    let view = server.ask("view totals -o csv --columns total,item --order-by \"total desc\" --limit 2").with(0);
    assert_eq!((view.out.as_str(), view.err.as_str()), ("total,item\n7,A\n3,B\n", ""));
    let view = server.ask("view totals -o json --filter \"total < 3\" --durable").with(0);
    assert_eq!(view.out, "{\"item\":\"C\",\"total\":1}\n");
    assert!(server.ask("view totals --filter \"totl < 3\"").with(2).err.contains("error[validation_failed]"));
    assert_eq!(server.ask("views -o name").with(0).out, "totals\n");

    assert_eq!(server.ask("jobs -o name").with(0).out, "totals\n");
    assert_eq!(server.ask("jobs list --label team=a --state finished -q OTA -o name").with(0).out, "totals\n");
    assert_eq!(server.ask("jobs list --label team=b").with(0).out, "");
    let jobs = server.ask("jobs list -o csv").with(0).out;
    assert!(
        jobs.starts_with("name,state,version,labels,updated,latest run\ntotals,finished,1,\"stage=test, team=a\","),
        "{jobs}"
    );
    let job = &server.ask("jobs get totals -o json").with(0).json()[0];
    assert_eq!((job["name"].as_str(), job["definition"]["views"][0].as_str()), (Some("totals"), Some("totals")));
    assert!(server.ask("jobs get totals").with(0).out.contains("\nsql         CREATE TABLE bids"));

    let run = server.ask("runs -o name").with(0).out;
    assert!(run.starts_with("run_") && run.ends_with('\n'), "{run}");
    let run = run.trim();
    for (line, expected) in [
        (format!("runs get {run}"), "state         finished\n"),
        ("runs get totals --wait".to_string(), "watermark     end of input\n"),
        ("runs list --job totals --state finished -o csv".to_string(), ",totals,1,finished,4,3,end of input,"),
        ("runs --job totals --limit 1 -o csv".to_string(), ",totals,1,finished,4,3,end of input,"),
        ("jobs --label team=a --limit 1 -o csv".to_string(), "totals,finished,1,"),
        (
            "runs graph totals -o csv".to_string(),
            "stage,operator,inputs,subtasks,rows in,rows out,rows/s,busy,waiting,watermark,state\n0-",
        ),
        ("runs watermarks totals -o csv".to_string(), "table,split,position,watermark,lag records,state\nbids,"),
        ("runs late-rows totals -o csv".to_string(), "operator,event time,watermark,row\n"),
        ("runs dead-letters totals -o csv".to_string(), "source,split,position,code,message,payload\n"),
        ("runs errors totals -o csv".to_string(), "attempt,at,code,message,operator,fault\n"),
        // So short a run may have ended before anyone saw it running.
        ("runs events totals -o csv".to_string(), ",finished,"),
        ("runs metrics totals -o csv".to_string(), "name,stage,unit,points,newest,smallest,largest\n"),
        ("runs logs totals".to_string(), ""),
        ("top -o csv".to_string(), "totals,finished,4,,3,,end of input,0,0,"),
    ] {
        let answer = server.ask(&line).with(0);
        assert!(answer.out.contains(expected), "{line}: {answer:#?}");
    }
    let metrics = server.ask("runs metrics totals --step 10s").with(0);
    assert!(metrics.err.contains("it has ended") && metrics.err.contains("every 10 seconds\n"), "{metrics:#?}");

    // Who waits for the end gets the end.
    let again = server.file("again.sql", &TOTALS.replace("totals", "again"));
    for line in ["start totals --wait -o json".to_string(), format!("submit {again} --wait -o json")] {
        let ended = server.ask(&line).with(0).json();
        let run = ended[0].get("run").unwrap_or(&ended[0]);
        assert_eq!(
            (ended.len(), &run["state"], &run["progress"]["rows_in"]),
            (1, &"finished".into(), &4.into()),
            "{line}"
        );
    }
}

#[test]
fn a_run_that_has_read_nothing_is_drained_and_shows_nothing() {
    let server = Server::start();
    let script = "CREATE TABLE far (n BIGINT) WITH ('connector' = 'kafka', 'properties.bootstrap.servers' = '127.0.0.1:1', \
                  'topic' = 't', 'format' = 'json', 'startup.timeout' = '5min');\n\
                  CREATE TABLE near (n BIGINT) WITH ('connector' = 'view');\nINSERT INTO near SELECT n FROM far;\n";
    let file = server.file("waits.sql", script);
    server.ask(&format!("submit {file}")).with(0);
    let waits = |ended: &Ended| ended.json()[0]["waiting_for"].is_string();
    server.wait_for("it says what it waits for", "runs get waits -o json", waits);
    assert!(!server.ask("view near").with(3).err.contains("cancelled"));
    let active = server.ask("jobs delete waits --yes").with(4);
    assert!(active.err.contains("= help: wait for its end, or stop it: `highwater stop run_"), "{active:#?}");

    let drained = server.ask("stop waits --drain --wait").with(0);
    assert!(drained.out.contains("state      succeeded\nprogress   nothing had been read: "), "{drained:#?}");
    assert_eq!(server.ask("runs get waits -o json").json()[0]["state"], "cancelled");
    let view = server.ask("view near").with(3);
    let why = "became cancelled before it published\n  = help: start a run of job 'waits': `highwater start waits`";
    assert!(view.err.contains("error[no_rows_yet]") && view.err.contains(why), "{view:#?}");
    let fails = TOTALS.replace("SUM(price)", "SUM(10 / (price - 3))");
    server.ask(&format!("submit {} --wait", server.file("fails.sql", &fails))).with(1);
    let view = server.ask("view totals").with(3);
    assert!(view.err.contains("became failed (expression_failed) before it published"), "{view:#?}");
}

#[test]
fn applying_says_what_changes_and_changes_it() {
    let server = Server::start();
    let file = server.file("totals.sql", TOTALS);
    let dry = server.ask(&format!("submit {file} --dry-run -o csv")).with(0);
    assert!(dry.err.contains("job 'totals' would be created\n"), "{dry:#?}");
    assert!(dry.out.starts_with("change,subject\nadded,operator:"), "{dry:#?}");
    server.ask("jobs get totals").with(3);
    server.ask(&format!("submit {file} --no-start -o name")).with(0);
    assert_eq!(server.ask("jobs list -o csv").out.lines().nth(1).unwrap().split(',').nth(1), Some("created"));
    assert!(server.ask("runs get totals").with(3).err.contains("job 'totals' has no run yet"));
    let again = server.ask(&format!("submit {file}")).with(4);
    assert!(again.err.contains("error[name_taken]") && again.err.contains("  = request: "), "{again:#?}");
    let applied = server.ask(&format!("submit {file} --apply --parallelism 2 --wait")).with(0);
    assert!(applied.err.contains("job 'totals' has a new version\n"), "{applied:#?}");
    assert!(applied.err.contains("totals finished"), "{applied:#?}");
    let same = server.ask(&format!("submit {file} --apply --parallelism 2 --no-start")).with(0);
    assert!(same.err.contains("job 'totals' stays as it is\n"), "{same:#?}");

    // Who wants to see the plan does not want it to run, also if it is planned here.
    let explain = server.file("explain.sql", &TOTALS.replace("INSERT INTO", "EXPLAIN INSERT INTO"));
    for set in ["", "--set tables.totals.connector=blackhole"] {
        let refused = server.ask(&format!("submit {explain} --name explained {set}")).with(2);
        assert!(refused.err.contains("remove EXPLAIN"), "{refused:#?}");
        server.ask("jobs get explained").with(3);
    }

    // Options of tables are set in before it is sent; graphs go as they are.
    let set = "--set tables.totals.connector=blackhole --set epoch.interval=100ms";
    server.ask(&format!("submit {file} --name elsewhere {set} --wait")).with(0);
    let job = server.ask("jobs get elsewhere -o json").with(0).json().remove(0);
    assert_eq!(job["definition"]["views"], serde_json::json!([]));
    assert_eq!(job["definition"]["settings"]["epoch.interval"], "100ms", "{job}");
    let graph = server.file("graph.json", &job["definition"]["graph"].to_string());
    server.ask(&format!("submit {graph} --wait")).with(0);
}

#[test]
fn a_live_job_is_watched_stopped_and_started_again() {
    let server = Server::start();
    let file = server.file("live.sql", LIVE);
    let run = server.ask(&format!("submit {file} -o name")).with(0).out.trim().to_string();
    let rows = |ended: &Ended| ended.code == Some(0) && ended.out.lines().count() > 2;
    server.wait_for("two rows of a running job", "view seen -o csv --latest --limit 5", rows);
    let latest = server.ask("view seen --limit 1").with(0);
    assert!(latest.err.contains("1 row, ") && latest.err.contains("of a running job"), "{latest:#?}");
    assert!(latest.err.contains("; there are more: see --limit"), "{latest:#?}");
    assert!(server.ask("view seen --durable").with(3).err.contains("error[no_rows_yet]"));
    let top = server.ask("top -o csv").with(0).out;
    let cells: Vec<&str> = top.lines().nth(1).unwrap().split(',').collect();
    assert_eq!(cells[..2], ["live", "running"]);
    let rate: u64 = cells[3].parse().unwrap_or_else(|_| panic!("{top}"));
    assert!(rate > 0, "{top}");
    assert!(server.ask("start live").with(4).err.contains("error[run_active]"));
    assert!(server.ask("jobs delete live --yes").with(4).err.contains("error[run_active]"));

    // Ctrl-C while waiting leaves the run alone.
    let child = server.command(&format!("runs get {run} --wait")).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    signal(child.id(), "INT");
    let left = server.heard(ended(child)).with(130);
    assert!(left.err.contains(&format!("left {run} running\n")), "{left:#?}");
    assert!(left.err.contains(&format!("highwater runs get {run} --wait\n")), "{left:#?}");
    assert_eq!(server.ask(&format!("runs get {run} -o json")).json()[0]["state"], "running");

    let stopped = server.ask("stop live --wait").with(0);
    assert!(stopped.out.contains("state      succeeded\n"), "{stopped:#?}");
    assert_eq!(server.ask(&format!("runs get {run} -o json")).json()[0]["state"], "finished");
    assert!(server.ask("view seen").with(0).err.contains("durable"));
    assert!(server.ask(&format!("stop {run}")).with(4).err.contains("error[invalid_state]"));

    let second = server.ask("start live -o name").with(0).out;
    server.ask("stop live --now --wait").with(0);
    let ended = server.ask(&format!("runs get {} --wait", second.trim()));
    assert_eq!(ended.code, Some(1), "cancelled is no success for who waits: {ended:#?}");
    assert!(server.ask("jobs delete live").with(2).err.contains("needs --yes where stdin is no terminal"));
    server.ask("jobs delete live --yes").with(0);
    server.ask("jobs get live").with(3);
}

#[test]
fn what_is_wrong_is_said_and_has_its_exit_code() {
    let server = Server::start();
    let file = server.file("wrong.sql", &TOTALS.replace("SUM(price)", "SUM(prise)"));
    let wrong = server.ask(&format!("submit {file}")).with(2);
    for expected in ["wrong.sql:3:", "SUM(prise)", "^^^^^", "error[invalid_graph]: ", "  = request: "] {
        assert!(wrong.err.contains(expected), "{expected}: {wrong:#?}");
    }
    let file = server.file("fails.sql", &TOTALS.replace("SUM(price)", "SUM(10 / (price - 3))"));
    let failed = server.ask(&format!("submit {file} --wait")).with(1);
    assert!(failed.err.contains("division by zero") && failed.err.contains("fails failed"), "{failed:#?}");
    assert!(server.ask("runs errors fails -o csv").with(0).out.contains("division by zero"));
    let elsewhere = server.file("outside.sql", &TOTALS.replace("{dir}/bids", "/etc/bids"));
    assert!(server.ask(&format!("submit {elsewhere}")).with(2).err.contains("error[location_not_allowed]"));
    for (line, code, expected) in [
        ("jobs get nowhere", 3, "error[job_not_found]"),
        ("runs get run_00000000000000000000000000000000", 3, "error[run_not_found]"),
        ("view nothing", 3, "error[view_not_found]"),
        ("connections get nothing", 3, "error[connection_not_found]"),
        ("tables get nothing", 3, "error[table_not_found]"),
        ("submit nothing.sql", 2, "cannot read nothing.sql"),
        ("jobs list --state odd", 2, "expected one of"),
        ("submit - --name x", 2, ""),
        ("stop x --now --drain", 2, "cannot be used with"),
        ("runs --limit 1 get x", 2, "highwater runs list ..."),
        ("jobs -q x get y", 2, "highwater jobs list ..."),
        ("submit nothing.sql --memory-bytes 100MX", 2, "write bytes, or 512MiB"),
        ("submit nothing.sql --memory-bytes 1MB", 2, "32MiB"),
        ("submit nothing.sql --memory-bytes 100MB", 2, "cannot read nothing.sql"),
        ("whoami --server http://127.0.0.1:1", 5, "error[unreachable]: cannot reach http://127.0.0.1:1"),
        ("whoami --server ftp://a", 2, "is no address of a server"),
    ] {
        let answer = server.ask(line).with(code);
        assert!(answer.err.contains(expected), "{line}: {answer:#?}");
    }
    assert_eq!(server.ask("whoami -o csv").with(0).out.lines().nth(1).unwrap().split(',').next(), Some("local"));
}

#[test]
fn queries_run_from_arguments_files_and_stdin() {
    let server = Server::start();
    let totals = server.file("totals.sql", TOTALS);
    server.ask(&format!("submit {totals} --wait")).with(0);
    let query = |form: &str| {
        server.ask(&format!("sql -o {form} -e \"SELECT item, total FROM totals WHERE total > 1 ORDER BY item\""))
    };
    assert_eq!(query("json").with(0).out, "{\"item\":\"A\",\"total\":7}\n{\"item\":\"B\",\"total\":3}\n");
    assert_eq!(query("csv").with(0).out, "item,total\nA,7\nB,3\n");
    assert!(query("table").with(0).out.contains("│ A    ┆     7 │"));
    let empty = server.ask("sql -o csv -e \"SELECT item FROM totals WHERE total > 100\"").with(0);
    assert_eq!(empty.out, "item\n", "a header without rows");

    // Tables and settings of a script hold for all of its queries; each query runs alone.
    let script = "-- two queries; a semicolon in a comment\nCREATE TABLE b (item STRING, price BIGINT) WITH ('connector' = 'filesystem', 'path' = '{dir}/bids.jsonl', 'format' = 'json');\n\
                  SELECT COUNT(*) AS n FROM b;\nSELECT MAX(price) AS m FROM b;\n";
    let file = server.file("script.sql", script);
    assert_eq!(server.ask(&format!("sql -f {file} -o json")).with(0).out, "{\"n\":4}\n{\"m\":5}\n");
    assert_eq!(server.tell("sql -o csv", "SELECT SUM(total) AS s FROM totals;").with(0).out, "s\n11\n");

    let file = server.file("wrong.sql", &script.replace("MAX(price)", "MAX(prise)"));
    let wrong = server.ask(&format!("sql -f {file} -o json")).with(2);
    assert_eq!(wrong.out, "{\"n\":4}\n", "what was right has run");
    assert!(wrong.err.contains("wrong.sql:4:12") && wrong.err.contains("^^^^^"), "{wrong:#?}");
    let failed = server.ask("sql -e \"SELECT 1 / (total - 3) AS x FROM totals\"").with(1);
    assert!(failed.err.contains("error[query_failed]"), "{failed:#?}");
    for (sql, code, expected) in [
        ("SELECT * FROM nothing", 2, "error[invalid_graph]"),
        ("INSERT INTO totals SELECT item, total FROM totals", 2, "error["),
        (" ; ", 2, "-e holds no statement"),
        ("CREATE TABLE t (a NOTHING) WITH ('connector' = 'datagen')", 2, "^^^"),
    ] {
        let answer = server.ask(&format!("sql -e \"{sql}\"")).with(code);
        assert!(answer.err.contains(expected), "{sql}: {answer:#?}");
    }
    // Ctrl-C ends a query that goes on.
    let long = "CREATE TABLE g (a BIGINT, b BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1000000000000'); SELECT COUNT(*) AS n FROM g WHERE a > b;";
    let mut child = server.command("sql").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(long.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    signal(child.id(), "INT");
    server.heard(ended(child)).with(130);
}

#[test]
fn keys_are_made_before_the_server_and_never_echoed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let made = ended(highwater(&format!("keys create root --role admin --data {data}")).spawn().unwrap()).with(0);
    assert!(made.out.starts_with("hw_") && made.out.lines().count() == 1, "{made:#?}");
    assert!(made.err.contains("created admin key 'root' (key_") && !made.err.contains("hw_"), "{made:#?}");
    for name in ["", &"n".repeat(129)] {
        let mut command = highwater(&format!("keys create --role viewer --data {data}"));
        let wrong = ended(command.arg(name).spawn().unwrap()).with(2);
        assert!(wrong.err.contains("the name of a key has 1 to 128 characters"), "{wrong:#?}");
    }
    let taken = ended(highwater(&format!("keys create root --role viewer --data {data}")).spawn().unwrap());
    assert_eq!((taken.code, taken.out.as_str()), (Some(4), ""), "{taken:#?}");
    assert!(taken.err.contains("there is a key named 'root': key_"), "{taken:#?}");
    let key = made.out.trim().to_string();
    let mut server = Server::over(folder, Some(key.clone()));
    assert_eq!(server.ask("whoami -o csv").with(0).out.lines().nth(1).unwrap().split(',').nth(1), Some("admin"));
    let viewer = server.ask("keys create eyes --role viewer --expires-in 1h -o json").with(0).json().remove(0);
    let secret = viewer["secret"].as_str().unwrap().to_string();
    *server.said.lock().unwrap() = String::new();

    server.key = None;
    let nobody = server.ask("jobs").with(5);
    assert!(nobody.err.contains("error[unauthenticated]") && nobody.err.contains("set HIGHWATER_KEY"), "{nobody:#?}");
    assert!(nobody.err.contains("highwater keys create NAME --role admin --data DIR"), "{nobody:#?}");
    server.ask("jobs --key hw_canary-of-a-wrong-key").with(5);
    assert!(server.ask("jobs --key \"canary wrong\"").with(2).err.contains("the API key has characters"));
    server.key = Some(secret.clone());
    server.ask("jobs").with(0);
    let file = server.file("totals.sql", TOTALS);
    assert!(server.ask(&format!("submit {file}")).with(2).err.contains("error[forbidden]"));
    server.ask("keys list").with(2);
    server.key = Some(key.clone());
    let listed = server.ask("keys list -o csv").with(0).out;
    assert!(listed.contains(",root,admin,") && listed.contains(",eyes,viewer,"), "{listed}");
    let root = listed.lines().find(|line| line.contains(",root,")).and_then(|line| line.split(',').next()).unwrap();
    let last = server.ask(&format!("keys revoke {root} --yes")).with(4);
    assert!(last.err.contains("error[last_admin_key]") && last.err.contains("another admin key first"), "{last:#?}");
    let id = viewer["id"].as_str().unwrap();
    server.ask(&format!("keys revoke {id}")).with(2);
    server.ask(&format!("keys revoke {id} --yes")).with(0);
    server.key = Some(secret.clone());
    server.wait_for("a revoked key is refused", "jobs", |ended| ended.code == Some(5));
    server.key = Some(key.clone());
    let help = server.ask("jobs --help").with(0).out;
    assert!(help.contains("HIGHWATER_KEY") && !help.contains(&key), "{help}");
    let owned = server.ask(&format!("keys list --data {data}")).with(4);
    assert!(owned.err.contains("ask that server: leave out --data"), "{owned:#?}");

    let everything = server.everything();
    for canary in [&key, &secret, "canary-of-a-wrong-key", "canary wrong"] {
        assert!(!everything.contains(canary as &str), "{canary} was written somewhere");
    }
}

#[test]
fn secrets_of_connections_come_from_stdin_and_files() {
    let server = Server::start();
    let file = server.file("secret.txt", "canary-from-a-file\n");
    let create = format!(
        "connections create broker --kind kafka --option properties.bootstrap.servers=127.0.0.1:1 \
         --secret properties.sasl.password --secret-file properties.ssl.key.password={file}"
    );
    let made = server.tell(&create, "canary-from-stdin\n").with(0);
    assert!(made.out.contains("secrets  properties.sasl.password, properties.ssl.key.password\n"), "{made:#?}");
    assert!(server.ask(&create).with(2).err.contains("stdin has no line for properties.sasl.password"));
    assert_eq!(server.tell(&create, "other\n").with(4).out, "");
    server.tell(&format!("{create} --replace"), "canary-of-stdin-again\n").with(0);
    assert_eq!(server.ask("connections -o name").with(0).out, "broker\n");
    server.ask("connections get broker -o json").with(0);
    let wrong = "connections create x --kind kafka --option properties.sasl.password=canary-in-argv";
    assert!(server.ask(wrong).with(2).err.contains("error[inline_secret]"));
    let test = server.ask("connections test broker -o csv").with(1);
    assert!(test.out.starts_with("step,result,ms,detail\n") && test.out.contains(",failed,"), "{test:#?}");
    server.ask("connections delete broker").with(2);
    server.ask("connections delete broker --yes").with(0);
    assert_eq!(server.ask("connections").with(0).out, "");
    let everything = server.everything();
    for canary in ["canary-from-a-file", "canary-from-stdin", "canary-of-stdin-again", "canary-in-argv"] {
        assert!(!everything.contains(canary), "{canary} was written somewhere");
    }
}

#[test]
fn tables_are_there_for_every_script() {
    let server = Server::start();
    let create = "CREATE TABLE bids (item STRING, price BIGINT NOT NULL) WITH ('connector' = 'filesystem', 'path' = '{dir}/bids.jsonl', 'format' = 'json');";
    let file = server.file("bids.sql", create);
    let made = server.ask(&format!("tables create {file}")).with(0);
    assert_eq!(made.out, "name     bids\ncolumns  item STRING\n         price BIGINT NOT NULL\n");
    server.ask(&format!("tables create {file}")).with(4);
    let wrong = server.file("wrong.sql", "CREATE TABLE t (\n  a NOTHING) WITH ('connector' = 'datagen')");
    assert!(server.ask(&format!("tables create {wrong}")).with(2).err.contains("wrong.sql:2:"));
    assert_eq!(server.ask("tables -o csv").with(0).out, "name,connector,columns\nbids,filesystem,\"item, price\"\n");
    assert!(server.ask("tables get bids").with(0).out.contains("connector  filesystem\n"));
    assert_eq!(server.ask("sql -o csv -e \"SELECT COUNT(*) AS n FROM bids\"").with(0).out, "n\n4\n");
    server.ask("tables delete bids --yes").with(0);
    server.ask("tables get bids").with(3);
}

/// A terminal: what is typed into it, and what it has shown.
struct Terminal {
    master: std::fs::File,
    shown: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    fn start(command: Command) -> Terminal {
        Terminal::but(command, |command| command)
    }

    /// With other streams than the terminal.
    fn but(command: Command, streams: impl FnOnce(&mut Command) -> &mut Command) -> Terminal {
        Terminal::of(command, (40, 160), streams)
    }

    /// With as many rows and columns.
    fn of(mut command: Command, size: (u16, u16), streams: impl FnOnce(&mut Command) -> &mut Command) -> Terminal {
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize { ws_row: size.0, ws_col: size.1, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both descriptors are of local variables, the size is a local value; the name and modes are left out.
        let opened = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
        };
        assert_eq!(opened, 0, "a terminal");
        // SAFETY: openpty has just given them to nobody else.
        let (master, slave) = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let of = |slave: &OwnedFd| Stdio::from(slave.try_clone().unwrap());
        command.stdin(of(&slave)).stdout(of(&slave)).stderr(of(&slave)).env("TERM", "xterm");
        streams(&mut command);
        let terminal = slave.as_raw_fd();
        // SAFETY: between fork and exec only system calls; the descriptor is open in the child.
        unsafe {
            command.pre_exec(move || {
                libc::setsid();
                libc::ioctl(terminal, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(slave);
        let master = std::fs::File::from(master);
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut reader, mut answers, log) = (master.try_clone().unwrap(), master.try_clone().unwrap(), shown.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read) = reader.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
                // Where the cursor is, as a terminal would say; the editor asks.
                for _ in text.matches("\x1b[6n") {
                    let _ = answers.write_all(b"\x1b[1;1R");
                }
                log.lock().unwrap().push_str(&text);
                if read == 0 {
                    return;
                }
            }
        });
        Terminal { master, shown, child }
    }

    /// Whether it shows what is typed.
    fn echoes(&self) -> bool {
        // SAFETY: termios is plain data, and the call fills all of it or fails.
        let mut mode: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the descriptor is open, the pointer is of a local value.
        assert_eq!(unsafe { libc::tcgetattr(self.master.as_raw_fd(), &raw mut mode) }, 0);
        mode.c_lflag & libc::ECHO != 0
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until something new is shown that holds `text`.
    #[track_caller]
    fn shows(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut shown = self.shown.lock().unwrap();
            if let Some(at) = shown.find(text) {
                *shown = shown[at + text.len()..].to_string();
                return;
            }
            assert!(Instant::now() < deadline, "never {text:?} in {shown:?}");
            drop(shown);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ends(mut self, code: i32) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end: {:?}", self.shown.lock().unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(self.child.wait().unwrap().code(), Some(code), "{:?}", self.shown.lock().unwrap());
    }
}

#[test]
fn the_shell_reads_completes_and_remembers() {
    let server = Server::start();
    let totals = server.file("totals.sql", TOTALS);
    server.ask(&format!("submit {totals} --wait")).with(0);
    let state = server.folder.path().join("state");
    let shell = || {
        let mut command = server.command("sql");
        command.env("XDG_STATE_HOME", &state);
        Terminal::start(command)
    };
    let mut terminal = shell();
    terminal.shows("\\q to leave");
    terminal.shows("> ");
    terminal.types("SELECT SUM(total) AS all_of_it\r");
    terminal.types("FROM tot\t;\r");
    terminal.shows("│        11 │");
    terminal.shows("1 row in ");
    terminal.types("SELECT nothing FROM totals;\r");
    terminal.shows("error[invalid_graph]");
    terminal.types("\\d totals\r");
    terminal.shows("total BIGINT");
    terminal.types("\\views\r");
    terminal.shows("item, total");
    terminal.types(
        "CREATE TABLE g (a BIGINT, b BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1000000000000');\r",
    );
    terminal.shows("kept for this session");
    terminal.types("SELECT COUNT(*) AS n FROM g WHERE a > b;\r");
    std::thread::sleep(Duration::from_secs(1));
    terminal.types("\x03");
    terminal.shows("cancelled");
    // A server that does not answer holds nobody.
    let stopped = Stopped::new(&server);
    for line in ["\\jobs\r", "SELECT item FROM totals;\r"] {
        terminal.types(line);
        std::thread::sleep(Duration::from_millis(500));
        terminal.types("\x03");
        terminal.shows("cancelled");
    }
    drop(stopped);
    terminal.types("\\q\r");
    terminal.ends(0);
    let history = std::fs::read_to_string(state.join("highwater/sql_history")).unwrap();
    assert!(history.contains("all_of_it") && history.contains("\\d totals"), "{history}");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(state.join("highwater/sql_history")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o077, 0, "for its user only");

    // Half a statement is left, too.
    for typed in ["exit\r", "QUIT;\r", "SELECT 1\r\\q\r"] {
        let mut leaves = shell();
        leaves.shows("> ");
        leaves.types(typed);
        leaves.ends(0);
    }
    std::fs::write(state.join("highwater/sql_history"), "\\q\n").unwrap();

    let mut again = shell();
    again.shows("> ");
    again.types("\x1b[A");
    again.shows("\\q");
    again.types("\x03");
    again.shows("> ");
    again.types("\x04");
    again.ends(0);
}

#[test]
fn a_terminal_that_does_not_know_its_size_has_80_columns() {
    let server = Server::start();
    let totals = server.file("totals.sql", TOTALS);
    server.ask(&format!("submit {totals} --wait")).with(0);
    let sized = |line: &str| {
        let mut command = server.command(line);
        command.env("XDG_STATE_HOME", server.folder.path().join("state"));
        Terminal::of(command, (0, 0), |command| command)
    };
    let terminal = sized("view totals");
    terminal.shows("│ item ┆ total │");
    terminal.ends(0);
    let terminal = sized("views");
    terminal.shows("│ totals ┆ totals ┆ item ┆ item, total │");
    terminal.ends(0);
    let mut shell = sized("sql");
    shell.shows("> ");
    shell.types("SELECT item, total FROM totals WHERE total = 7;\r");
    shell.shows("│ A    ┆     7 │");
    shell.types("\\q\r");
    shell.ends(0);
}

/// A server that listens and does not answer, until this is dropped.
struct Stopped(u32);

impl Stopped {
    fn new(server: &Server) -> Stopped {
        signal(server.child.id(), "STOP");
        Stopped(server.child.id())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

#[test]
fn a_secret_is_never_shown_and_the_terminal_stays_as_it_was() {
    let server = Server::start();
    let create = "connections create broker --kind kafka --option properties.bootstrap.servers=127.0.0.1:1 \
                  --secret properties.sasl.password";
    let log = server.folder.path().join("stderr");
    let file = || std::fs::File::create(&log).unwrap();
    // Also if the question goes elsewhere.
    let mut terminal = Terminal::but(server.command(create), |command| command.stderr(file()));
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("properties.sasl.password of broker: ")) {
        assert!(Instant::now() < deadline, "nothing was asked");
        std::thread::sleep(Duration::from_millis(20));
    }
    while terminal.echoes() {
        assert!(Instant::now() < deadline, "the terminal echoes");
        std::thread::sleep(Duration::from_millis(20));
    }
    terminal.types("canary-typo\x7f\x7f\x7f\x7fed\r");
    terminal.shows("secrets");
    assert!(!terminal.shown.lock().unwrap().contains("canary"));
    terminal.ends(0);

    let mut terminal = Terminal::start(server.command(&create.replace("broker", "other")));
    terminal.shows("properties.sasl.password of other: ");
    terminal.types("canary");
    std::thread::sleep(Duration::from_millis(300));
    assert!(!terminal.echoes());
    terminal.types("\x03");
    let deadline = Instant::now() + PATIENCE;
    while terminal.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "Ctrl-C ends nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(terminal.echoes());
    terminal.ends(130);
    server.ask("connections get other").with(3);
}

#[test]
fn top_is_live_until_q() {
    let server = Server::start();
    let file = server.file("live.sql", LIVE);
    server.ask(&format!("submit {file}")).with(0);
    let mut terminal = Terminal::start(server.command("top --every 200ms"));
    terminal.shows("\x1b[?1049h");
    terminal.shows("1 active");
    terminal.shows("live");
    terminal.shows("running");
    // It leaves when it is told to, also while the server does not answer.
    for (key, code) in [("q", 0), ("\x03", 0)] {
        let stopped = Stopped::new(&server);
        std::thread::sleep(Duration::from_millis(500));
        let told = Instant::now();
        terminal.types(key);
        terminal.shows("\x1b[?1049l");
        terminal.ends(code);
        assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
        drop(stopped);
        // Without keys it goes on until it is interrupted.
        terminal = Terminal::but(server.command("top --every 200ms"), |command| command.stdin(Stdio::null()));
        for _ in 0..3 {
            terminal.shows("1 active");
        }
    }
    signal(terminal.child.id(), "INT");
    terminal.ends(0);
    // What a server says has a time; the other lines are about it.
    let log = server.said.lock().unwrap().clone();
    let line = log.lines().find(|line| line.contains("INFO")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.starts_with("20") && line.split_once('T').is_some_and(|(day, _)| day.len() == 10), "{line}");
}
