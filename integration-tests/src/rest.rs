//! A real server, and a client that believes nothing: every answer must be one that the server's own OpenAPI document describes.
//!
//! Answers are checked as they come: the path has a template, the method and the status are documented there, the media type is one of the
//! documented ones, and the body is valid by its schema. So a test of anything is a test of the document, too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

use jsonschema::Validator;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use test_support::process::{Server, send, wait_until};

use crate::program;

/// How long anything may take on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(90);
const KILL: i32 = 9;
const TERMINATE: i32 = 15;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads can be started")
});

/// The document of the server, fetched once per test process; all servers are the same program.
static DOCUMENT: OnceLock<Document> = OnceLock::new();

/// A server with a data directory of its own. It ends with this value, and so do the processes of its runs.
pub struct Highwater {
    folder: tempfile::TempDir,
    process: Option<Server>,
    pub address: String,
    client: reqwest::Client,
    key: Option<String>,
    arguments: Vec<String>,
    /// Variables that it, and with it its runs, are started with.
    environment: Vec<(String, String)>,
    /// MiB of the disks that hold `data` and `files`, where they are disks of their own.
    disks: Option<(u32, u32)>,
    starts: u32,
}

impl Highwater {
    /// A server on a free port that may use files below [`files`](Self::files).
    pub fn start() -> Highwater {
        Highwater::with(&[])
    }

    /// The same with more arguments of `highwater serve`.
    pub fn with(arguments: &[&str]) -> Highwater {
        let mut server = Highwater::new();
        server.arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        server.begin();
        server
    }

    /// With faults that happen once over all its processes (crate `faults`; see [`fault`](Self::fault)), and without what `broken` names.
    pub fn with_faults(faults: &str, broken: &str, arguments: &[&str]) -> Highwater {
        let mut server = Highwater::new();
        server.arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        let directory = server.folder.path().join("faults");
        std::fs::create_dir(&directory).expect("a directory can be made");
        let directory = directory.to_str().expect("the path is text");
        let environment =
            [("HIGHWATER_FAULTS", faults), ("HIGHWATER_FAULTS_DIR", directory), ("HIGHWATER_BROKEN", broken)];
        server.environment = environment.map(|(name, value)| (name.to_string(), value.to_string())).into();
        server.begin();
        server
    }

    /// The file that a fault leaves when it happens, with the number of the process in which it did.
    pub fn fault(&self, fault: &str) -> PathBuf {
        self.folder.path().join("faults").join(fault)
    }

    /// Whether the server has ended by itself; then it can [`begin`](Self::begin) again.
    pub fn is_over(&mut self) -> bool {
        let over = self.process.as_mut().is_none_or(|process| process.ended().is_some());
        if over && let Some(process) = self.process.take() {
            process.end(KILL, PATIENCE);
        }
        over
    }

    /// With a configuration file; names as in `docs/service.md`.
    pub fn configured(config: &Value) -> Highwater {
        Highwater::configured_with(config, &[])
    }

    /// The same with more arguments of `highwater serve`.
    pub fn configured_with(config: &Value, arguments: &[&str]) -> Highwater {
        let mut server = Highwater::new();
        let path = server.folder.path().join("config.json");
        std::fs::write(&path, config.to_string()).expect("a file can be written");
        server.arguments = vec!["--config".into(), path.to_str().expect("the path is text").into()];
        server.arguments.extend(arguments.iter().map(|argument| argument.to_string()));
        server.begin();
        server
    }

    /// With disks of a few MiB for its data and for the files of tables: in memory, seen by this server and its runs only, gone when it is
    /// killed. For tests see [`on_disk`](Self::on_disk).
    ///
    /// # Panics
    /// If this user may not mount anything, not even in a namespace of its own.
    pub fn with_small_disks(data_mib: u32, files_mib: u32) -> Highwater {
        let mut server = Highwater::new();
        server.disks = Some((data_mib, files_mib));
        server.begin();
        server
    }

    fn new() -> Highwater {
        let folder = tempfile::tempdir().expect("a directory for temporary files");
        std::fs::create_dir(folder.path().join("files")).expect("a directory can be made");
        Highwater {
            folder,
            process: None,
            address: String::new(),
            client: reqwest::Client::builder().no_proxy().build().expect("a client without certificates of its own"),
            key: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            disks: None,
            starts: 0,
        }
    }

    /// The command that starts it, with its outputs in files.
    fn command(&self) -> Command {
        let mut command = match self.disks {
            None => Command::new(program::path()),
            Some((data, files)) => self.on_small_disks(data, files),
        };
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data())
            .arg("--allow-root")
            .arg(self.files())
            .args(&self.arguments)
            .env_remove("HIGHWATER_DATABASE")
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdout(File::create(self.output("stdout")).expect("a file can be made"))
            .stderr(File::create(self.output("stderr")).expect("a file can be made"));
        command
    }

    /// The program in namespaces of its own: what is mounted is seen there only, and all processes end with the first.
    fn on_small_disks(&self, data_mib: u32, files_mib: u32) -> Command {
        let namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
        let may = |more: &[&str]| {
            let tried = Command::new("unshare")
                .args(more)
                .args(namespaces)
                .args(["mount", "-t", "tmpfs", "none", "/mnt"])
                .output();
            tried.is_ok_and(|output| output.status.success())
        };
        let user: &[&str] = if may(&[]) { &[] } else { &["--map-root-user"] };
        assert!(
            user.is_empty() || may(user),
            "this user may not mount a disk in a namespace of its own (unshare, mount)"
        );
        std::fs::create_dir_all(self.data()).expect("a directory can be made");
        let mount = |path: &Path, mib: u32| format!("mount -t tmpfs -o size={mib}m none '{}'", path.display());
        let script = format!("{} && {} && exec \"$@\"", mount(&self.data(), data_mib), mount(&self.files(), files_mib));
        let mut command = Command::new("unshare");
        command.args(user).args(namespaces).args(["sh", "-c", &script, "sh"]).arg(program::path());
        command
    }

    /// A path as the server on small disks sees it, for this process.
    pub fn on_disk(&self, path: &Path) -> PathBuf {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("Linux");
        let child = children.split_whitespace().next().expect("unshare runs the server");
        PathBuf::from(format!("/proc/{child}/root{}", path.display()))
    }

    fn output(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("server-{}.{name}", self.starts))
    }

    /// Starts the program again on the same data directory, on another port.
    pub fn begin(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        self.starts += 1;
        let mut process = Server::start(self.command(), "KILL", self.folder.path());
        let deadline = Instant::now() + PATIENCE;
        let line = loop {
            let text = std::fs::read_to_string(self.output("stdout")).unwrap_or_default();
            if let Some(line) = text.lines().next().filter(|_| text.contains('\n')) {
                break line.to_string();
            }
            if let Some(status) = process.ended() {
                panic!("the server ended with {status}: {}", self.log());
            }
            assert!(Instant::now() < deadline, "the server says nothing: {}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        };
        let address = line.strip_prefix("listening on http://");
        self.address = address.unwrap_or_else(|| panic!("the first line is {line:?}")).to_string();
        self.process = Some(process);
        if DOCUMENT.get().is_none() {
            let answer = self.exchange(self.get("/openapi.json"));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let _ = DOCUMENT.set(Document::new(answer.json()));
        }
    }

    /// Everything that the server keeps.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The directory whose files tables may use.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    /// A file that tables may use: its whole path.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.files().join(name);
        std::fs::write(&path, contents).expect("a file can be written");
        path.to_str().expect("the path is text").to_string()
    }

    /// What this and earlier processes of the server have written to stderr.
    pub fn log(&self) -> String {
        let logs = (1..=self.starts).map(|start| self.folder.path().join(format!("server-{start}.stderr")));
        logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").pid()
    }

    /// Ends the server at once, as a crash does. Its runs go on.
    pub fn kill(&mut self) {
        self.process.take().expect("the server runs").end(KILL, PATIENCE);
    }

    /// Ends the server in order, as an operator does. Its runs go on.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.take().expect("the server runs").end(TERMINATE, PATIENCE)
    }

    /// Asks it to end and goes on.
    pub fn ask_to_end(&self) {
        send(self.pid(), TERMINATE);
    }

    /// How it ended, after [`ask_to_end`](Self::ask_to_end).
    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the server runs");
        wait_until("the end of the server", PATIENCE, || process.ended().is_some());
        process.end(KILL, PATIENCE)
    }

    /// Sends this key with every request that names no other.
    pub fn use_key(&mut self, key: Option<&str>) {
        self.key = key.map(str::to_string);
    }

    pub fn get(&self, path: &str) -> Request {
        self.request(Method::GET, path)
    }

    pub fn post(&self, path: &str, body: &Value) -> Request {
        self.request(Method::POST, path).json(body)
    }

    pub fn put(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PUT, path).json(body)
    }

    pub fn patch(&self, path: &str, body: &Value) -> Request {
        self.request(Method::PATCH, path).json(body)
    }

    pub fn delete(&self, path: &str) -> Request {
        self.request(Method::DELETE, path)
    }

    /// A request that is sent with [`Request::send`].
    pub fn request(&self, method: Method, path: &str) -> Request {
        let request = Request {
            client: self.client.clone(),
            url: format!("http://{}{path}", self.address),
            path: path.to_string(),
            method,
            headers: HeaderMap::new(),
            body: Vec::new(),
            folder: self.folder.path().to_path_buf(),
        };
        match &self.key {
            Some(key) => request.header("authorization", &format!("Bearer {key}")),
            None => request,
        }
    }

    fn exchange(&self, request: Request) -> Answer {
        RUNTIME.block_on(request.exchange()).expect("the server answers")
    }

    /// Sends bytes as they are on a connection of its own, and reads one answer, checked like any other; `None` if the server closes the
    /// connection instead. For what no client sends.
    pub fn raw(&self, bytes: &[u8]) -> Option<Answer> {
        let mut stream = self.connect();
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes);
        let first = String::from_utf8_lossy(bytes).lines().next().unwrap_or_default().to_string();
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let answer = Answer { asked: format!("{method} {path}"), ..read_answer(&mut stream)? };
        answer.check_common(self.folder.path(), &String::from_utf8_lossy(bytes));
        if let Some(document) = DOCUMENT.get() {
            document.check(method, path, &answer);
        }
        Some(answer)
    }

    /// A connection to it.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream
    }

    /// Creates a job and starts it: the job, and its run.
    pub fn submit(&self, name: &str, sql: &str) -> (Value, Value) {
        let created = self.post("/api/v1/jobs", &json!({"name": name, "sql": sql})).expect(201).json();
        (created["job"].clone(), created["run"].clone())
    }

    /// The run once it has ended.
    pub fn wait_for_end(&self, run: &Value) -> Value {
        let id = run["id"].as_str().unwrap_or_else(|| panic!("no run: {run}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.get(&format!("/api/v1/runs/{id}?wait=20s")).expect(200).json();
            if !is_active(&run) {
                return run;
            }
            assert!(Instant::now() < deadline, "{id} does not end: {run}\n{}", self.log());
        }
    }

    /// The run once `done` says so.
    pub fn wait_for_run(&self, run: &Value, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let id = run["id"].as_str().unwrap_or_else(|| panic!("no run: {run}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let run = self.get(&format!("/api/v1/runs/{id}")).expect(200).json();
            if done(&run) {
                return run;
            }
            assert!(is_active(&run), "{what}: the run has ended: {run}");
            assert!(Instant::now() < deadline, "{what}: not in time: {run}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The run once it is running and has completed an epoch.
    pub fn wait_until_running(&self, run: &Value) -> Value {
        self.wait_for_run(run, "running", |run| {
            run["state"] == "running" && run["progress"]["epoch"].as_u64() > Some(0)
        })
    }

    /// The process of the newest attempt of a run.
    pub fn process_of(&self, run: &Value) -> u32 {
        self.process_of_any(run).unwrap_or_else(|| panic!("no process of {run}"))
    }

    /// The same, if there is one.
    pub fn process_of_any(&self, run: &Value) -> Option<u32> {
        let runs = self.data().join("runs").join(run["id"].as_str().expect("a run has an id"));
        attempts(&runs).into_iter().find_map(|attempt| live_process(&attempt))
    }

    /// Rows of a view as they are shown.
    pub fn rows(&self, view: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/views/{view}/rows?limit=100000")).expect(200).json();
        answer["rows"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Highwater {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            process.end(KILL, PATIENCE);
        }
        // Runs outlive the server by design; here nobody wants them any more.
        for run in std::fs::read_dir(self.data().join("runs")).into_iter().flatten().flatten() {
            for pid in attempts(&run.path()).iter().filter_map(|attempt| live_process(attempt)) {
                send(pid, KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the log of the server\n{}", tail(&self.log(), 4000));
        }
    }
}

fn tail(text: &str, bytes: usize) -> &str {
    let from = (text.len().saturating_sub(bytes)..text.len()).find(|at| text.is_char_boundary(*at));
    &text[from.unwrap_or(text.len())..]
}

/// Whether a run has not ended.
pub fn is_active(run: &Value) -> bool {
    !["finished", "stopped", "cancelled", "failed"].contains(&run["state"].as_str().unwrap_or_default())
}

fn attempts(run: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(run).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The process of an attempt, if it is the one that wrote its number down, and lives.
fn live_process(attempt: &Path) -> Option<u32> {
    let facts: Value = serde_json::from_slice(&std::fs::read(attempt.join("process.json")).ok()?).ok()?;
    let pid = u32::try_from(facts["pid"].as_u64()?).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse::<u64>().ok()?;
    (facts["start_ticks"].as_u64() == Some(ticks)).then_some(pid)
}

/// A request before it is sent.
pub struct Request {
    client: reqwest::Client,
    url: String,
    path: String,
    method: Method,
    headers: HeaderMap,
    body: Vec<u8>,
    folder: PathBuf,
}

impl Request {
    /// Adds a header, or replaces it.
    pub fn header(mut self, name: &str, value: &str) -> Request {
        let name = HeaderName::try_from(name).expect("a name of a header");
        self.headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value of a header"));
        self
    }

    pub fn key(self, key: &str) -> Request {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub fn json(self, body: &Value) -> Request {
        self.header("content-type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    async fn exchange(self) -> Result<Answer, reqwest::Error> {
        let request = self.client.request(self.method.clone(), &self.url).headers(self.headers).body(self.body);
        let response = request.timeout(PATIENCE).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok(Answer { status, headers, body, asked: format!("{} {}", self.method, self.path) })
    }

    /// The answer, or why there is none: the server may be ending.
    pub fn try_send(self) -> Result<Answer, reqwest::Error> {
        let (method, path, folder) = (self.method.clone(), self.path.clone(), self.folder.clone());
        let given = String::from_utf8_lossy(&self.body).into_owned();
        let answer = RUNTIME.block_on(self.exchange())?;
        answer.check_common(&folder, &given);
        DOCUMENT.get().expect("the first server fetches it").check(method.as_str(), &path, &answer);
        Ok(answer)
    }

    /// The answer, checked against the document.
    ///
    /// # Panics
    /// If there is none, or the document does not describe it.
    pub fn send(self) -> Answer {
        let asked = format!("{} {}", self.method, self.path);
        self.try_send().unwrap_or_else(|error| panic!("{asked}: {error:?}"))
    }

    /// The answer, with that status.
    pub fn expect(self, status: u16) -> Answer {
        let answer = self.send();
        assert_eq!(answer.status, status, "{}: {}", answer.asked, answer.text());
        answer
    }

    /// The problem, with that status and code.
    pub fn refused(self, status: u16, code: &str) -> Value {
        let answer = self.expect(status);
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{}: {problem}", answer.asked);
        problem
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    /// Method and path, for messages.
    pub asked: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{}: {error}: {}", self.asked, self.text()))
    }

    fn media_type(&self) -> String {
        let given = self.header("content-type").unwrap_or_default();
        given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// What holds for every answer: an id, and errors as problems that say what they are and nothing about the machine.
    fn check_common(&self, folder: &Path, given: &str) {
        let id = self.header("x-request-id").unwrap_or_else(|| panic!("{}: no x-request-id", self.asked));
        assert!(!id.is_empty());
        assert!(self.status != 500, "{}: {}", self.asked, self.text());
        if self.status < 400 {
            return;
        }
        assert_eq!(self.media_type(), "application/problem+json", "{}: {}", self.asked, self.text());
        if self.body.is_empty() {
            return; // HEAD
        }
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{}: {problem}", self.asked);
        assert_eq!(problem["request_id"], id, "{}: {problem}", self.asked);
        let path = self.asked.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
        let path: String = path.chars().take(500).collect();
        // A target in absolute form has a host before the path.
        if path.starts_with('/') {
            assert_eq!(problem["instance"], path, "{}: {problem}", self.asked);
        }
        assert_eq!(problem["type"], format!("/docs/problems/{}", problem["code"].as_str().unwrap_or_default()));
        let data = folder.join("data");
        for secret in [data.to_str().expect("text"), "panicked at", "stack backtrace", ".rs:"] {
            // What the caller has said may be said again.
            assert!(
                given.contains(secret) || !self.text().contains(secret),
                "{}: {secret} stands in {problem}",
                self.asked
            );
        }
        if [429, 503].contains(&self.status) {
            assert!(self.header("retry-after").is_some(), "{}: no retry-after", self.asked);
        }
        if self.status == 405 {
            assert!(self.header("allow").is_some(), "{}: no allow", self.asked);
        }
    }
}

/// Reads one answer; `None` if the connection was closed without one.
pub fn read_answer(stream: &mut TcpStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 << 10];
    let (head, rest) = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break (bytes[..at].to_vec(), bytes[at + 4..].to_vec());
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
        }
    };
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::try_from(name.trim().to_ascii_lowercase()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let mut body = rest;
    let length: usize = length.unwrap_or(0);
    while body.len() < length {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(read) => body.extend_from_slice(&chunk[..read]),
        }
    }
    Some(Answer { status, headers, body, asked: String::new() })
}

/// What the document says, asked by method, path and status.
pub struct Document {
    pub json: Value,
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

impl Document {
    pub fn new(json: Value) -> Document {
        Document { json, validators: Mutex::default() }
    }

    /// The document of the server that was started first.
    pub fn served() -> &'static Document {
        DOCUMENT.get().expect("a server has been started")
    }

    /// The template of a path; of several the one with the fewest parameters.
    pub fn template(&self, path: &str) -> Option<String> {
        let path = path.split('?').next().unwrap_or_default();
        let given: Vec<&str> = path.split('/').collect();
        let fits = |template: &&String| {
            let parts: Vec<&str> = template.split('/').collect();
            let part = |(part, given): (&&str, &&str)| part == given || (part.starts_with('{') && !given.is_empty());
            parts.len() == given.len() && parts.iter().zip(&given).all(part)
        };
        let paths = self.json["paths"].as_object().expect("the document has paths");
        paths.keys().filter(fits).min_by_key(|template| template.matches('{').count()).cloned()
    }

    /// Fails unless the document describes the answer.
    fn check(&self, method: &str, path: &str, answer: &Answer) {
        let asked = format!("{method} {path}");
        let Some(template) = self.template(path) else {
            // Where nothing is, nothing is described; errors have their common form.
            assert!((400..500).contains(&answer.status), "{asked} is not in the document: {}", answer.text());
            return self.check_schema("problem", &json!({"$ref": "#/components/schemas/Problem"}), &asked, answer);
        };
        let name = if method == "HEAD" { "get".to_string() } else { method.to_ascii_lowercase() };
        let operation = &self.json["paths"][&template][&name];
        if operation.is_null() {
            assert!([405, 431, 400, 414].contains(&answer.status), "{asked} is not in the document: {}", answer.text());
            return self.check_schema("problem", &json!({"$ref": "#/components/schemas/Problem"}), &asked, answer);
        }
        let documented = &operation["responses"][answer.status.to_string()];
        assert!(!documented.is_null(), "{asked}: status {} is not documented: {}", answer.status, answer.text());
        for (header, about) in documented["headers"].as_object().into_iter().flatten() {
            let may_miss = about["schema"]["type"].as_array().is_some_and(|types| types.contains(&json!("null")));
            let is_required = about["required"] == true || !may_miss;
            assert!(!is_required || answer.headers.contains_key(header), "{asked}: the header {header} is missing");
        }
        let Some(content) = documented["content"].as_object() else {
            assert!(answer.body.is_empty(), "{asked}: status {} is documented without a body", answer.status);
            return;
        };
        if method == "HEAD" {
            return;
        }
        let media = answer.media_type();
        let schema = content.get(&media).unwrap_or_else(|| panic!("{asked}: {media:?} is not documented"));
        if media.ends_with("json") {
            let key = format!("{name} {template} {} {media}", answer.status);
            self.check_schema(&key, &schema["schema"], &asked, answer);
        }
    }

    fn check_schema(&self, key: &str, schema: &Value, asked: &str, answer: &Answer) {
        if answer.body.is_empty() {
            assert!(asked.starts_with("HEAD"), "{asked}: no body");
            return;
        }
        let validator = self.validator(key, schema);
        let body = answer.json();
        let wrong: Vec<String> =
            validator.iter_errors(&body).take(5).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(wrong.is_empty(), "{asked}: the body is not what the document says: {wrong:#?}\n{body}");
    }

    fn validator(&self, key: &str, schema: &Value) -> Arc<Validator> {
        let mut all = self.validators.lock().expect("nothing panics while it holds the validators");
        if let Some(validator) = all.get(key) {
            return validator.clone();
        }
        let mut whole = schema.clone();
        whole["components"] = self.json["components"].clone();
        let validator = jsonschema::draft202012::new(&whole).expect("the document's schemas are valid");
        let validator = Arc::new(validator);
        all.insert(key.to_string(), validator.clone());
        validator
    }
}
