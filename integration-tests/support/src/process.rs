//! Processes that end with the test process.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A server, and a shell that waits for the end of this process to end it, too: a test run that is killed leaves nothing behind.
pub struct Server {
    child: Child,
    /// Its other end is the shell's; the system closes it with this process, whatever becomes of that.
    tether: ChildStdin,
    shell: Child,
}

/// Waits for a line (all is well: the server has ended and was waited for), or for the end of the pipe (the test process is gone).
const WATCH: &str = r#"
read -r _ && exit 0
kill -s "$1" "$2"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do kill -0 "$2" || break; sleep 0.1; done
kill -s KILL "$2"
# Attempts of a server's runs outlive it: those that are still the processes that wrote their numbers down.
for facts in "$3"/data/runs/*/*/process.json; do
    pid=$(sed -n 's/.*"pid" *: *\([0-9]*\).*/\1/p' "$facts")
    ticks=$(sed -n 's/.*"start_ticks" *: *\([0-9]*\).*/\1/p' "$facts")
    [ -n "$pid" ] && [ "$(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f20)" = "$ticks" ] && kill -s KILL "$pid"
done
rm -rf "$3"
"#;

impl Server {
    /// Starts `command`. If this process ends before [`end`](Self::end), the server gets `signal` (`INT`, `QUIT`...), a kill 2 s later, the
    /// attempts of runs below `folder/data` are killed, and `folder` is removed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(mut command: Command, signal: &str, folder: &Path) -> Server {
        // A group of its own: Ctrl-C is for the tests, the shell does the rest.
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        let child = child.unwrap_or_else(|error| panic!("{:?} does not start: {error}", command.get_program()));
        let mut shell = Command::new("sh")
            .args(["-c", WATCH, "watch", signal, &child.id().to_string()])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh starts");
        let tether = shell.stdin.take().expect("its input is piped");
        Server { child, tether, shell }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    /// Sends `signal`, waits until the server has ended (killing it after `patience`), and returns how it did.
    pub fn end(mut self, signal: i32, patience: Duration) -> ExitStatus {
        // One that has ended was waited for: its number may be another's.
        if self.ended().is_none() {
            send(self.pid(), signal);
        }
        let deadline = Instant::now() + patience;
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            if Instant::now() > deadline {
                send(self.pid(), libc::SIGKILL);
                break self.child.wait().expect("a child can be waited for");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let _ = self.tether.write_all(b"ended\n");
        let _ = self.shell.wait();
        status
    }
}

/// Sends a signal to a process that this one started.
///
/// # Panics
/// If `pid` is none.
pub fn send(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).expect("a process id fits");
    assert!(pid > 0, "not a single process: {pid}");
    // SAFETY: a plain system call without memory.
    unsafe { libc::kill(pid, signal) };
}

/// Whether a process was ended by `signal`.
pub fn ended_by(status: ExitStatus, signal: i32) -> bool {
    status.signal() == Some(signal)
}

/// A port that nobody listens on, below those that the system gives to outgoing connections: a server can come back to it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let seed = std::process::id().wrapping_mul(2_654_435_761) >> 8;
    for _ in 0..1000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + seed.wrapping_add(step.wrapping_mul(7)) % 12_000).expect("at most 32000");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}

/// Waits until `done`, looking every 20 ms.
///
/// # Panics
/// With `what` if that takes longer than `patience`.
pub fn wait_until(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_server_ends_when_asked_and_takes_its_watch_along() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let mut server = Server::start(command, "TERM", folder.path());
        assert!(server.ended().is_none());
        let status = server.end(libc::SIGTERM, Duration::from_secs(5));
        assert!(ended_by(status, libc::SIGTERM));
        assert!(folder.path().exists());
    }

    #[test]
    fn a_server_ends_when_nobody_is_left_to_ask() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000");
        let Server { mut child, tether, mut shell } = Server::start(command, "TERM", folder.path());
        drop(tether); // as the system does when this process is killed
        assert!(ended_by(child.wait().unwrap(), libc::SIGTERM));
        shell.wait().unwrap();
        assert!(!folder.path().exists());
    }

    #[test]
    fn attempts_end_with_the_test_process_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let sleep = |seconds: &str| {
            let mut command = Command::new("sleep");
            command.arg(seconds);
            command
        };
        let (mut attempt, mut other) = (sleep("1000").spawn().unwrap(), sleep("1000").spawn().unwrap());
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", attempt.id())).unwrap();
        let ticks: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        // The second is another process than the one that had its number.
        for (run, pid, ticks) in [("run_1", attempt.id(), ticks), ("run_2", other.id(), ticks + 1_000_000)] {
            let path = folder.path().join(format!("data/runs/{run}/1"));
            std::fs::create_dir_all(&path).unwrap();
            std::fs::write(path.join("process.json"), format!("{{\"pid\":{pid},\"start_ticks\":{ticks}}}")).unwrap();
        }
        let Server { mut child, tether, mut shell } = Server::start(sleep("1000"), "TERM", folder.path());
        drop(tether);
        assert!(ended_by(attempt.wait().unwrap(), libc::SIGKILL));
        assert!(ended_by(child.wait().unwrap(), libc::SIGTERM));
        shell.wait().unwrap();
        assert!(other.try_wait().unwrap().is_none() && !folder.path().exists());
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
