//! Starts the process of an attempt, and finds one again that was started before.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::attempt::{AttemptSpec, Credentials, Outcome, ProcessFacts};
use serde::de::DeserializeOwned;
use tokio::process::{Child, Command};

pub const LOG: &str = "log.jsonl";
const SPEC: &str = "spec.json";
const TOKEN: &str = "token";
const PROCESS: &str = "process.json";
const OUTCOME: &str = "outcome.json";
/// The variable with the URL of the metadata store, and so with its password.
pub const DATABASE: &str = "HIGHWATER_DATABASE";

/// Where an attempt has its files.
pub fn directory(data: &Path, run_id: &str, generation: i64) -> PathBuf {
    data.join("runs").join(run_id).join(generation.to_string())
}

/// Makes a directory that nobody else can look into.
pub fn make_directory(directory: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Makes the directory of an attempt with its specification, and a token that only the server and the process know.
pub fn prepare(directory: &Path, spec: &AttemptSpec) -> std::io::Result<String> {
    make_directory(directory)?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let token = URL_SAFE_NO_PAD.encode(random);
    write(&directory.join(TOKEN), token.as_bytes())?;
    write(&directory.join(SPEC), &serde_json::to_vec_pretty(spec).map_err(std::io::Error::other)?)?;
    Ok(token)
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// The token of an attempt that was prepared before.
pub fn token(directory: &Path) -> std::io::Result<String> {
    fs::read_to_string(directory.join(TOKEN))
}

/// Starts the leader of an attempt. It outlives this process.
pub fn start(program: &Path, directory: &Path, credentials: &Credentials) -> std::io::Result<Child> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(LOG))?;
    let mut child = Command::new(program)
        .arg("attempt")
        .arg("--directory")
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .env_remove(DATABASE)
        .kill_on_drop(false)
        .spawn()?;
    let mut line = serde_json::to_vec(credentials).map_err(std::io::Error::other)?;
    line.push(b'\n');
    let stdin = child.stdin.take().expect("it was asked for");
    // Credentials fit into the pipe unless they are huge; a process that has died already is seen by its end.
    std::thread::Builder::new().name("credentials".into()).spawn(move || {
        if let Ok(stdin) = stdin.into_owned_fd() {
            let _ = File::from(stdin).write_all(&line);
        }
    })?;
    Ok(child)
}

/// What is known of the process of an attempt from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Alive,
    Gone,
    /// It has not said who it is.
    Unknown,
}

pub fn facts(directory: &Path) -> Option<ProcessFacts> {
    read(&directory.join(PROCESS))
}

/// Gives an attempt up whose process has not said who it is: it cannot begin any more. False if it has begun after all, or if that cannot
/// be said now.
pub fn give_up(directory: &Path) -> bool {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(directory.join(PROCESS)) {
        Ok(_) => true,
        // Without its directory it has nothing to begin with.
        Err(error) if error.kind() == ErrorKind::NotFound => true,
        // A process makes the file whole: one without facts is of a server that has given the attempt up before.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => facts(directory).is_none(),
        Err(error) => {
            tracing::warn!(%error, directory = %directory.display(), "an attempt cannot be given up");
            false
        }
    }
}

/// Whether the process that wrote the facts is the one that has its number now.
pub fn life(directory: &Path) -> Life {
    let Some(facts) = facts(directory) else { return Life::Unknown };
    if is(&facts) { Life::Alive } else { Life::Gone }
}

fn is(facts: &ProcessFacts) -> bool {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if boot.trim() != facts.boot_id {
        return false;
    }
    // The name in parentheses may hold anything; the numbers follow the last one.
    let stat = fs::read_to_string(format!("/proc/{}/stat", facts.pid)).unwrap_or_default();
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next();
    // Field 22 of the line; the rest begins with the third.
    let ticks = fields.nth(18).and_then(|ticks| ticks.parse::<u64>().ok());
    state != Some("Z") && ticks == Some(facts.start_ticks)
}

/// Kills the process of an attempt; its further processes end when they lose it. Never another one that was given its number.
pub fn kill(directory: &Path) {
    if let Some(facts) = facts(directory).filter(is) {
        // SAFETY: a system call on plain numbers.
        unsafe { libc::kill(facts.pid as libc::pid_t, libc::SIGKILL) };
    }
}

/// What an attempt was told to do.
pub fn spec(directory: &Path) -> Option<AttemptSpec> {
    read(&directory.join(SPEC))
}

pub fn outcome(directory: &Path) -> Option<Outcome> {
    read(&directory.join(OUTCOME))
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_the_time_of_its_start() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(life(directory.path()), Life::Unknown);
        assert!(give_up(directory.path()) && give_up(directory.path()), "it stays given up");
        assert_eq!(life(directory.path()), Life::Unknown);
        assert!(give_up(&directory.path().join("gone")));
        let pid = std::process::id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("we are alive");
        let rest = stat.rsplit_once(')').expect("a name").1;
        let start_ticks = rest.split_ascii_whitespace().nth(19).expect("22 fields").parse().expect("a number");
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux").trim().to_string();
        let say = |facts: ProcessFacts| {
            fs::write(directory.path().join(PROCESS), serde_json::to_vec(&facts).expect("json")).expect("written");
            life(directory.path())
        };
        let facts = ProcessFacts { pid, start_ticks, boot_id };
        assert_eq!(say(facts.clone()), Life::Alive);
        assert_eq!(say(ProcessFacts { start_ticks: start_ticks + 1, ..facts.clone() }), Life::Gone);
        assert_eq!(say(ProcessFacts { boot_id: "another".into(), ..facts }), Life::Gone);
    }
}
