//! A small job that is kept going while a fault happens in it, and whose output is compared with what its input says: each number once in
//! files, in a view, in a topic and in a table of a database, and their sums per key in another view.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use integration_tests::rest::{Highwater, PATIENCE, Request, is_active};
use serde_json::{Value, json};
use test_support::kafka;
use test_support::postgres::Postgres;
use test_support::process::send;

use super::faults::lines;

/// What the job is, and how the point of a fault is reached in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// A stream into files and views.
    Stream,
    /// The same, and exactly once into a topic.
    Kafka,
    /// The same, and exactly once into a table of PostgreSQL.
    Postgres,
    /// A bounded run into files alone, whose newest checkpoint is damaged before its second attempt.
    Abandon,
    /// A bounded run, which publishes at its end.
    Bounded,
    /// A stream, in its second attempt.
    Restore,
    /// A stream of which much is to be collected, in its second attempt.
    Collection,
    /// A stream that is drained.
    Drain,
    /// A stream that is stopped, and gone on with by another run.
    Stop,
    /// A stream that is stopped with a savepoint, from which another run goes on.
    Savepoint,
}

/// A job with a fault.
#[derive(Clone, Debug)]
pub struct Case {
    pub by: By,
    /// Faults that come first, with a semicolon between them, if any.
    pub before: String,
    /// `point=action@occurrence`.
    pub fault: String,
    /// What the program does without, if anything.
    pub broken: &'static str,
}

impl Case {
    pub fn new(by: By, fault: impl Into<String>) -> Case {
        let before = match by {
            By::Restore => "decide.told=kill@2",
            By::Collection => "confirm.told=kill@7",
            By::Abandon => "confirm.told=kill@4",
            _ => "",
        };
        Case { by, before: before.into(), fault: fault.into(), broken: "" }
    }
}

const ROWS: i64 = 4_000;
/// Rows of a second.
const RATE: i64 = 2_000;
const KEYS: i64 = 7;

fn time(n: i64) -> String {
    let ms = n * 1_000 / RATE;
    format!("2020-09-13 12:{:02}:{:02}.{:03}", ms / 60_000, ms / 1000 % 60, ms % 1000)
}

/// What the job writes to beside files and views.
#[derive(Default)]
struct Beside {
    topic: Option<String>,
    database: Option<String>,
}

impl Beside {
    fn of(by: By) -> Beside {
        match by {
            By::Kafka => Beside { topic: Some(kafka::shared().topic("failpoint", 2)), ..Beside::default() },
            By::Postgres => Beside { database: Some(Postgres::shared().database()), ..Beside::default() },
            _ => Beside::default(),
        }
    }

    fn script(&self, server: &Highwater) -> String {
        let into = |with: String| {
            format!(
                "CREATE TABLE beside (n BIGINT) WITH ({with}, 'delivery' = 'exactly_once'); INSERT INTO beside SELECT n FROM rows;"
            )
        };
        if let Some(topic) = &self.topic {
            let servers = kafka::shared().servers();
            return into(format!(
                "'connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'properties.bootstrap.servers' = '{servers}'"
            ));
        }
        let Some(database) = &self.database else { return String::new() };
        let postgres = Postgres::shared();
        let connection = json!({"name": "beside", "kind": "postgres",
            "options": {"host": "127.0.0.1", "port": postgres.port().to_string(), "user": "app",
                "database": database.rsplit('/').next().unwrap()},
            "secrets": {"password": postgres.password()}});
        server.post("/api/v1/connections", &connection).expect(201);
        into("'connector' = 'postgres', 'connection' = 'beside', 'table' = 'numbers', 'create' = 'true'".into())
    }

    /// The numbers there, if there is anything.
    fn numbers(&self) -> Option<Vec<i64>> {
        if let Some(topic) = &self.topic {
            let records = kafka::shared().records(topic);
            let records = records.iter().map(|record| serde_json::from_str(record.value.as_ref().unwrap()).unwrap());
            return Some(numbers(records));
        }
        let rows = Postgres::shared().sql(self.database.as_ref()?, "SELECT n FROM numbers ORDER BY n");
        Some(rows.lines().map(|n| n.parse().unwrap()).collect())
    }
}

fn script(server: &Highwater, case: &Case, beside: &Beside) -> String {
    let by = case.by;
    // A later occurrence is one of several processes.
    let processes = if case.fault.ends_with("@3") { 2 } else { 1 };
    let input: String = (0..ROWS).map(|n| format!("{{\"n\":{n},\"ts\":\"{}\"}}\n", time(n))).collect();
    let path = server.file("input.jsonl", input);
    let source = match by {
        By::Bounded | By::Abandon => format!(
            "'connector' = 'datagen', 'rows-per-second' = '{RATE}', 'number-of-rows' = '{ROWS}', 'fields.n.kind' = 'sequence'"
        ),
        _ => format!(
            "'connector' = 'replay', 'path' = '{path}', 'format' = 'json', 'replay.speed' = '1', 'replay.then' = '{}'",
            if by == By::Drain { "idle" } else { "end" }
        ),
    };
    // Views publish something with each checkpoint.
    let views = format!(
        "CREATE TABLE sums (k BIGINT, c BIGINT, s BIGINT, PRIMARY KEY (k) NOT ENFORCED) WITH ('connector' = 'view');
         CREATE TABLE shown (n BIGINT) WITH ('connector' = 'view');
         INSERT INTO sums SELECT n % {KEYS}, COUNT(*), SUM(n) FROM rows GROUP BY n % {KEYS};
         INSERT INTO shown SELECT n FROM rows;"
    );
    let (views, delay) = if by == By::Abandon { (String::new(), "1s") } else { (views, "10ms") };
    format!(
        "SET 'epoch.interval' = '50ms'; SET 'checkpoint.interval' = '100ms'; SET 'restart.delay' = '{delay}';
         SET 'restart.attempts' = '20'; SET 'process.heartbeat-timeout' = '1s'; SET 'parallelism' = '2';
         SET 'processes' = '{processes}';
         CREATE TABLE rows (n BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ({source});
         CREATE TABLE numbers (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{}', 'format' = 'json');
         INSERT INTO numbers SELECT n FROM rows;
         {views}
         {}",
        server.files().join("numbers").display(),
        beside.script(server)
    )
}

/// Plays a case, and compares what has been put out with the input.
///
/// # Panics
/// If something is lost or twice, the run does not end, or the fault does not happen.
pub fn play(case: &Case) {
    let Case { by, before, fault, broken } = case;
    // What a transaction says of itself is another matter there.
    let postgres = fault.contains(".transaction.") && fault.ends_with("@3");
    let database = postgres.then(|| Postgres::shared().database());
    let arguments: Vec<&str> = database.iter().flat_map(|url| ["--database", url.as_str()]).collect();
    let beside = Beside::of(*by);
    let mut server = Highwater::with_faults(&format!("{before}; {fault}"), broken, &arguments);
    let (_, run) = server.submit("failpoint", &script(&server, case, &beside));
    let thaw = Thaw::of(&server, fault);
    let run = live(&mut server, *by, &run);
    let ended = match by {
        By::Stop => {
            assert_eq!(run["state"], "cancelled", "{run}");
            let again = server.post("/api/v1/jobs/failpoint/runs", &json!({"from": "latest"})).expect(202).json();
            live(&mut server, By::Stream, &again)
        }
        By::Savepoint => {
            assert_eq!(run["state"], "stopped", "{run}");
            let from = json!({"from": "savepoint", "savepoint": savepoint(&mut server)});
            let mut tries = 0;
            loop {
                tries += 1;
                let again = insist(&mut server, 202, |server| {
                    server.post("/api/v1/jobs/failpoint/runs", &from).header("idempotency-key", &format!("try-{tries}"))
                });
                let ended = live(&mut server, By::Stream, &again);
                // Whoever starts a run is told that it could not begin; then it has done nothing, and is started again.
                let not_begun = ended["attempts"] == 0 && ended["failure"]["code"] == "checkpoint_storage";
                if !not_begun || tries > 1 {
                    break ended;
                }
            }
        }
        _ => run,
    };
    drop(thaw);
    assert_eq!(ended["state"], "finished", "the run has not finished: {ended}");
    for fault in before.split(';').map(str::trim).chain([fault.as_str()]).filter(|fault| !fault.is_empty()) {
        assert!(server.fault(fault).exists(), "{fault} has not happened: {ended}");
    }
    let files = server.files().join("numbers");
    let written = numbers(lines(&files).iter().map(|line| serde_json::from_str(line).unwrap()));
    let rows = if *by == By::Drain { written.len() as i64 } else { ROWS };
    assert!(rows > 0, "nothing was drained");
    let all: Vec<i64> = (0..rows).collect();
    assert_eq!(written, all, "each number once in files");
    assert_eq!(rows_of_manifests(&files), rows as u64, "each file once in manifests");
    if *by != By::Abandon {
        assert_eq!(sums(&server), sums_of(rows), "sums in a view");
        assert_eq!(numbers(server.rows("shown").into_iter()), all, "each number once in a view");
    }
    if let Some(there) = beside.numbers() {
        assert_eq!(there, all, "each number once in the topic or table");
    }
    checkpoints_are_whole(&server, &ended);
}

fn numbers(rows: impl Iterator<Item = Value>) -> Vec<i64> {
    let mut numbers: Vec<i64> =
        rows.map(|row| row["n"].as_i64().unwrap_or_else(|| panic!("no number: {row}"))).collect();
    numbers.sort_unstable();
    numbers
}

fn sums(server: &Highwater) -> BTreeMap<i64, (i64, i64)> {
    let of = |row: &Value, name: &str| row[name].as_i64().unwrap_or_else(|| panic!("no {name}: {row}"));
    server.rows("sums").iter().map(|row| (of(row, "k"), (of(row, "c"), of(row, "s")))).collect()
}

fn sums_of(rows: i64) -> BTreeMap<i64, (i64, i64)> {
    let mut sums = BTreeMap::new();
    for n in 0..rows {
        let (count, sum) = sums.entry(n % KEYS).or_insert((0, 0));
        (*count, *sum) = (*count + 1, *sum + n);
    }
    sums
}

/// What readers that follow the manifests see.
fn rows_of_manifests(directory: &Path) -> u64 {
    let mut files = BTreeSet::new();
    let mut rows = 0;
    for entry in std::fs::read_dir(directory.join("_manifests")).unwrap().flatten() {
        let path = entry.path();
        // What a writer left that was killed begins with a dot.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let manifest: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        rows += manifest["rows"].as_u64().unwrap();
        for file in manifest["files"].as_array().unwrap() {
            assert!(files.insert(file["path"].as_str().unwrap().to_string()), "each file once in manifests: {file}");
        }
    }
    rows
}

/// Checkpoints that are kept have their manifests, and these their files.
fn checkpoints_are_whole(server: &Highwater, run: &Value) {
    let path = format!("/api/v1/runs/{}/checkpoints", run["id"].as_str().unwrap());
    let checkpoints = server.get(&path).expect(200).json()["items"].as_array().unwrap().clone();
    assert!(!checkpoints.is_empty(), "a run has checkpoints");
    let place = server.data().join("checkpoints");
    let job = run["job_id"].as_str().unwrap();
    let kept = |checkpoint: &&Value| checkpoint["state"] == "decided" || checkpoint["state"] == "committed";
    for checkpoint in checkpoints.iter().filter(kept) {
        let epoch = checkpoint["epoch"].as_u64().unwrap();
        let manifest = place.join(job).join(format!("epochs/{epoch:020}.json"));
        let text = std::fs::read(&manifest);
        let text = text
            .unwrap_or_else(|error| panic!("a checkpoint that is kept is not whole: {}: {error}", manifest.display()));
        each_file(&serde_json::from_slice(&text).unwrap(), &mut |file| {
            assert!(place.join(file).is_file(), "a checkpoint that is kept is not whole: {epoch} without {file}");
        });
    }
}

/// Calls `with` for the path of every file that a manifest names.
fn each_file(value: &Value, with: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            if let (Some(path), true) = (value["path"].as_str(), value["sha256"].is_string()) {
                with(path);
            }
            // What a sink of files has staged has other paths.
            fields.iter().filter(|(name, _)| *name != "payload").for_each(|(_, field)| each_file(field, with));
        }
        Value::Array(items) => items.iter().for_each(|item| each_file(item, with)),
        _ => {}
    }
}

/// Keeps server and run going, whatever happens, until the run ends.
fn live(server: &mut Highwater, by: By, run: &Value) -> Value {
    let path = format!("/api/v1/runs/{}", run["id"].as_str().unwrap());
    let deadline = Instant::now() + PATIENCE;
    let (mut asked, mut damaged) = (false, false);
    loop {
        assert!(Instant::now() < deadline, "the run does not end: {}", server.log());
        std::thread::sleep(Duration::from_millis(60));
        if server.is_over() {
            server.begin();
        }
        // A server that is stopped answers nobody.
        if is_stopped(server.pid()) {
            continue;
        }
        if by == By::Collection {
            make_old(&server.data().join("checkpoints"));
        }
        let Ok(answer) = server.get(&path).try_send() else { continue };
        assert_eq!(answer.status, 200, "{}", answer.text());
        let run = answer.json();
        if !is_active(&run) {
            return run;
        }
        if by == By::Abandon && run["state"] == "restarting" && !std::mem::replace(&mut damaged, true) {
            damage_newest(&server.data().join("checkpoints").join(run["job_id"].as_str().unwrap()).join("epochs"));
        }
        let mode = match by {
            By::Drain => "drain",
            By::Stop => "now",
            By::Savepoint => "savepoint",
            _ => continue,
        };
        if !asked && run["state"] == "running" && run["progress"]["rows_in"].as_u64() > Some(1_000) {
            let stop = server.post(&format!("{path}/stop"), &json!({"mode": mode}));
            // It is killed before it can answer, maybe after it has understood.
            let Ok(answer) = stop.try_send() else { continue };
            assert!([202, 409].contains(&answer.status), "{}", answer.text());
            asked = answer.status == 202;
        }
    }
}

/// The answer of a server, which may be killed or stopped meanwhile.
fn insist(server: &mut Highwater, status: u16, request: impl Fn(&Highwater) -> Request) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the server does not answer: {}", server.log());
        if server.is_over() {
            server.begin();
        }
        match request(server).try_send() {
            Ok(answer) => {
                assert_eq!(answer.status, status, "{}", answer.text());
                return answer.json();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(60)),
        }
    }
}

/// The id of the job's savepoint. One that has failed has said why, and another one is taken of the checkpoint that is still there.
fn savepoint(server: &mut Highwater) -> String {
    let (path, deadline) = ("/api/v1/jobs/failpoint/savepoints", Instant::now() + PATIENCE);
    let mut taken = 0;
    loop {
        assert!(Instant::now() < deadline, "the savepoint does not end: {}", server.log());
        let newest = insist(server, 200, |server| server.get(path))["items"][0].clone();
        match newest["state"].as_str() {
            Some("completed") => return newest["id"].as_str().unwrap().to_string(),
            Some("failed") => {
                let code = newest["failure"]["code"].as_str().unwrap_or_default();
                assert_eq!(code, "savepoint_storage", "{newest}");
                taken += 1;
                let name = format!("again-{taken}");
                insist(server, 202, |server| server.post(path, &json!({"name": name})));
            }
            _ => std::thread::sleep(Duration::from_millis(60)),
        }
    }
}

/// Lets a process that a fault has stopped go on after a while, by a thread of its own: a server that is stopped may hold up whoever asks it.
struct Thaw {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Thaw {
    fn of(server: &Highwater, fault: &str) -> Option<Thaw> {
        if !fault.contains("=stop@") {
            return None;
        }
        // Shorter or longer than a silent process is waited for.
        let hold = Duration::from_millis(if fault.ends_with("@1") { 300 } else { 2_500 });
        let (file, over) = (server.fault(fault), Arc::new(AtomicBool::new(false)));
        let stop = over.clone();
        let thread = std::thread::spawn(move || {
            let pid = || std::fs::read_to_string(&file).ok()?.parse::<u32>().ok();
            let mut since: Option<Instant> = None;
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(30));
                if let Some(pid) = pid()
                    && since.get_or_insert_with(Instant::now).elapsed() > hold
                    && is_stopped(pid)
                {
                    send(pid, 18);
                }
            }
        });
        Some(Thaw { over, thread: Some(thread) })
    }
}

impl Drop for Thaw {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// Spoils the newest two manifests, of which at least one is of a decided epoch.
fn damage_newest(epochs: &Path) {
    let mut manifests: Vec<_> = std::fs::read_dir(epochs).unwrap().map(|entry| entry.unwrap().path()).collect();
    manifests.sort();
    for manifest in &manifests[manifests.len() - 2..] {
        std::fs::write(manifest, "{}").unwrap();
    }
}

/// Nothing is collected that is young.
fn make_old(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            make_old(&path);
        } else if let Ok(file) = std::fs::File::open(&path) {
            // It may be removed just now.
            let _ = file.set_modified(SystemTime::now() - Duration::from_secs(600));
        }
    }
}

/// Plays many, some side by side, since most of them wait most of the time; those that failed, with what they said.
pub fn play_all(cases: Vec<Case>, with: impl Fn(&Case) -> Result<(), String> + Sync) -> Vec<(Case, String)> {
    let open = std::sync::Mutex::new(std::collections::VecDeque::from(cases));
    let failed = std::sync::Mutex::new(Vec::new());
    let next = || {
        while let Some(case) = { open.lock().unwrap().pop_front() } {
            let began = Instant::now();
            let played = with(&case);
            let Case { fault, broken, .. } = &case;
            eprintln!("{} {fault} {broken}: {:.1?}", if played.is_ok() { "ok" } else { "FAILED" }, began.elapsed());
            if let Err(why) = played {
                failed.lock().unwrap().push((case, why));
            }
        }
    };
    std::thread::scope(|scope| (0..SIDE_BY_SIDE).for_each(|_| drop(scope.spawn(next))));
    failed.into_inner().unwrap()
}

const SIDE_BY_SIDE: usize = 6;

/// What a case said when it failed.
pub fn outcome(case: &Case) -> Result<(), String> {
    std::panic::catch_unwind(|| play(case)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
    })
}
