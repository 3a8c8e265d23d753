//! Runs `highwater` as a user would: a child process, its output, its exit code.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The program under test: `HIGHWATER_BIN`, or the one that was built beside the running test or tool.
///
/// It is not built here: a cargo inside a test inherits the test's `CARGO_*` variables, for which build scripts run again, and then
/// most of the dependencies are compiled anew. `make test` and `cargo test --workspace` build it first.
pub fn path() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os("HIGHWATER_BIN") {
            return path.into();
        }
        let me = std::env::current_exe().expect("a running program has a path");
        let beside = me.ancestors().skip(1).map(|folder| folder.join("highwater")).find(|path| path.is_file());
        beside.unwrap_or_else(|| panic!("there is no highwater beside {}; run: make build", me.display()))
    })
}

/// The folder that holds the workspace.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// The Python that has the test tools; see `integration-tests/setup.sh`.
pub fn python() -> PathBuf {
    let setup = repository().join("integration-tests/setup.sh");
    let output = Command::new(&setup).arg("python").output().expect("bash starts");
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    assert!(path.exists(), "the Python tools of the tests are missing; run: {} test", setup.display());
    path
}

/// The packages of the tests' Node tools; see `integration-tests/setup.sh`.
pub fn node_modules() -> PathBuf {
    let setup = repository().join("integration-tests/setup.sh");
    let output = Command::new(&setup).arg("node").output().expect("bash starts");
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    assert!(path.exists(), "the Node tools of the tests are missing; run: {} test", setup.display());
    path
}

/// What a finished child left.
#[derive(Debug)]
pub struct Finished {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// It was killed because it took longer than it may.
    pub timed_out: bool,
    pub wall: Duration,
}

impl Finished {
    /// Everything about it, for the message of a failed assertion.
    pub fn report(&self) -> String {
        let end = if self.timed_out { "killed: took too long".into() } else { format!("exit code {:?}", self.code) };
        format!(
            "{end} after {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.wall,
            shortened(&self.stdout),
            shortened(&self.stderr)
        )
    }
}

fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(4_000).map_or(text.len(), |(index, _)| index);
    &text[..end]
}

/// Runs a command to its end, or kills it after `limit`: a program that hangs fails its test, not the whole run.
pub fn finish(command: &mut Command, limit: Duration) -> Finished {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let stdout = drain(child.stdout.take().expect("stdout is piped"));
    let stderr = drain(child.stderr.take().expect("stderr is piped"));
    let (code, timed_out) = wait(&mut child, start + limit);
    let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("a reader does not panic")).into_owned()
    };
    Finished { code, stdout: text(stdout), stderr: text(stderr), timed_out, wall: start.elapsed() }
}

fn wait(child: &mut Child, deadline: Instant) -> (Option<i32>, bool) {
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            return (status.code(), false);
        }
        if Instant::now() >= deadline {
            child.kill().expect("the child is ours");
            let status = child.wait().expect("the child is ours");
            return (status.code(), true);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A child that was killed may leave the pipe broken; what came until then is what we have.
        let _ = from.read_to_end(&mut bytes);
        bytes
    })
}
