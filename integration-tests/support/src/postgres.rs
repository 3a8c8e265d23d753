//! PostgreSQL, in a cluster of its own.
//!
//! Debian's binaries, without its system service. `initdb` and `postgres` refuse root: then they run as `postgres` or `nobody`. What makes a
//! commit durable stays on.

use std::fs::File;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{Server, free_port, send};

const PASSWORD: &str = "not-a-secret-of-anyone";
const PATIENCE: Duration = Duration::from_secs(30);

/// A server. Its folder goes with it.
pub struct Postgres {
    folder: TempDir,
    binaries: PathBuf,
    /// User and group to run as, where this process is root.
    account: Option<(u32, u32)>,
    port: u16,
    settings: Vec<String>,
    server: Mutex<Option<Server>>,
}

impl Postgres {
    /// The server of this test process, started with the first call.
    pub fn shared() -> &'static Postgres {
        static SHARED: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(&[]));
        &SHARED
    }

    /// A server of one's own, to be stopped, killed or set differently (`name=value`).
    ///
    /// # Panics
    /// If PostgreSQL is not installed or does not start, with the reason.
    pub fn start(settings: &[&str]) -> Postgres {
        let binaries = binaries();
        let account = account();
        let folder = tempfile::Builder::new().prefix("postgres-").tempdir().expect("a folder for the cluster");
        if let Some((user, group)) = account {
            chown(folder.path(), Some(user), Some(group)).expect("root may give a folder away");
        }
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).expect("a file in the folder");
        let mut initdb = run_as(&binaries.join("initdb"), account);
        initdb.arg("-D").arg(folder.path().join("data")).arg(format!("--pwfile={}", password.display())).args([
            "-U",
            "app",
            "--auth-host=scram-sha-256",
            "--auth-local=trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-instructions",
        ]);
        let output = initdb.output().expect("initdb starts");
        assert!(
            output.status.success(),
            "initdb failed: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut postgres =
            Postgres { folder, binaries, account, port: free_port(), settings, server: Mutex::new(None) };
        for _ in 0..5 {
            match postgres.try_start() {
                Ok(()) => return postgres,
                // Another program took the port in between.
                Err(log) if log.contains("ddress already in use") => postgres.port = free_port(),
                Err(log) => panic!("postgres did not become ready:\n{log}"),
            }
        }
        panic!("postgres found no free port");
    }

    /// Starts the server on the data and the port that it had.
    ///
    /// # Panics
    /// If it does not become ready.
    pub fn restart(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_start() {
                Ok(()) => return,
                // Children of one that was killed are still on their way out.
                Err(log) if Instant::now() > deadline => panic!("postgres did not come back:\n{log}"),
                Err(_) => std::thread::sleep(Duration::from_millis(300)),
            }
        }
    }

    /// Ends all of it at once, without a checkpoint: `pg_ctl stop -m immediate`.
    pub fn stop_immediately(&self) {
        self.end(libc::SIGQUIT);
    }

    /// Kills the first of its processes; the others notice.
    pub fn kill(&self) {
        self.end(libc::SIGKILL);
    }

    /// Makes every process of it stand still: connections stay open, nothing answers. Until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        self.to_all(libc::SIGSTOP);
    }

    pub fn thaw(&self) {
        self.to_all(libc::SIGCONT);
    }

    /// Makes an empty database and returns its URL.
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://app:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What stands between user and host in a URL: no message may hold it.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Runs statements in a database, given by name or by URL, past the code under test; returns the rows, columns parted by `|`.
    ///
    /// # Panics
    /// If one fails.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let url = if database.contains("://") { database.to_owned() } else { self.url(database) };
        let output = Command::new(self.binaries.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statements, &url])
            .output()
            .expect("psql starts");
        assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    fn try_start(&self) -> Result<(), String> {
        let data = self.folder.path().join("data");
        let log = self.folder.path().join("log");
        let output = File::create(&log).expect("a file in the folder");
        let mut command = run_as(&self.binaries.join("postgres"), self.account);
        command.arg("-D").arg(&data).args(["-p", &self.port.to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=on",
            "full_page_writes=on",
            "synchronous_commit=on",
            "max_connections=200",
        ] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        command.stdout(output.try_clone().expect("a second handle")).stderr(output);
        let mut server = Server::start(command, "QUIT", self.folder.path());
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(&data, server.pid()) {
            if server.ended().is_some() || Instant::now() > deadline {
                server.end(libc::SIGQUIT, Duration::from_secs(2));
                return Err(std::fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        *self.server.lock().expect("no test panics while it holds this") = Some(server);
        Ok(())
    }

    fn end(&self, signal: i32) {
        let server = self.server.lock().expect("no test panics while it holds this").take();
        server.expect("the server runs").end(signal, PATIENCE);
    }

    fn to_all(&self, signal: i32) {
        let server = self.server.lock().expect("no test panics while it holds this");
        let pid = server.as_ref().expect("the server runs").pid();
        // The first one first: it must not start others meanwhile.
        send(pid, signal);
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("Linux");
        for child in children.split_whitespace() {
            send(child.parse().expect("a process id"), signal);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Ok(mut server) = self.server.lock()
            && let Some(server) = server.take()
        {
            server.end(libc::SIGQUIT, Duration::from_secs(5));
        }
    }
}

/// A file that a killed server left says "ready", too: the process must be the one that was started.
fn is_ready(data: &Path, pid: u32) -> bool {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.first() == Some(&pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
}

fn run_as(program: &Path, account: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    // The folder of the tests may be closed to that account.
    command.current_dir("/").stdin(Stdio::null()).env_remove("PGDATA").env("LC_ALL", "C");
    if let Some((user, group)) = account {
        command.uid(user).gid(group); // std drops the other groups, too
    }
    command
}

/// The newest version; Debian keeps the server off PATH.
fn binaries() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let folder = entry.path().join("bin");
            (folder.join("initdb").exists() && folder.join("postgres").exists()).then_some((version, folder))
        })
        .collect();
    found.sort();
    if let Some((_, folder)) = found.pop() {
        return folder;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find(|folder| folder.join("initdb").exists()).unwrap_or_else(|| {
        panic!("PostgreSQL is not installed; run this, then try again:\n    integration-tests/setup.sh test")
    })
}

/// User and group for a program that refuses root; `None` where this process is not root.
fn account() -> Option<(u32, u32)> {
    // SAFETY: a plain system call without memory, which never fails.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    let accounts = std::fs::read_to_string("/etc/passwd").expect("a list of accounts");
    let of = |name: &str| {
        let line = accounts.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let fields: Vec<&str> = line.split(':').collect();
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    Some(of("postgres").or_else(|| of("nobody")).expect("an account that is not root: postgres or nobody"))
}
