//! Builds and runs `highwater` as a user would: a child process, its output, its exit code.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The program under test. `HIGHWATER_BIN` names one; otherwise it is built here, so that a test never runs an old one.
pub fn path() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(path) = std::env::var_os("HIGHWATER_BIN") {
            return path.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            // Together with this package, for the features that it was built with itself: see the Makefile.
            .args(["build", "--package", "highwater", "--package", "integration-tests", "--bins", "--locked"])
            .arg("--message-format=json-render-diagnostics")
            .current_dir(repository())
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo starts");
        assert!(output.status.success(), "the program does not build");
        let messages = String::from_utf8_lossy(&output.stdout).into_owned();
        let executable = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
            .find(|path| path.file_stem().is_some_and(|name| name == "highwater"));
        executable.expect("cargo names the program that it built")
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
