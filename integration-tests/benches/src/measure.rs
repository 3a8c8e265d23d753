//! What a process tree costs.

use std::process::{Command, Stdio};
use std::time::Instant;

/// One run of a program, with all processes that it started and waited for.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// User and system time.
    pub cpu_s: f64,
    pub wall_s: f64,
    /// The largest resident set of any process of the tree, in MB (10^6 bytes).
    pub resident_mb: f64,
}

/// Runs a command to its end. What it prints is read by nobody, but what it says on stderr is shown if it fails.
pub fn measured(command: &mut Command) -> Result<Measured, String> {
    let name = format!("{command:?}");
    let stderr = tempfile()?;
    let copy = stderr.try_clone().map_err(|error| error.to_string())?;
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::from(copy))
        .spawn()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let pid = libc::pid_t::try_from(child.id()).map_err(|error| error.to_string())?;
    let mut status = 0;
    // SAFETY: all zeros are a valid `rusage`: it is a plain structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the process is a child of ours that nobody else waits for, and both pointers are to live variables.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    let wall_s = start.elapsed().as_secs_f64();
    if waited != pid {
        return Err(format!("cannot wait for {name}: {}", std::io::Error::last_os_error()));
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        return Err(format!("{name} failed (status {status}):\n{}", said(stderr)));
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Measured {
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        wall_s,
        // Linux counts in units of 1,024 bytes.
        resident_mb: usage.ru_maxrss as f64 * 1_024.0 / 1e6,
    })
}

fn tempfile() -> Result<std::fs::File, String> {
    let path = std::env::temp_dir().join(format!("highwater-bench-{}.stderr", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
    let file = file.map_err(|error| format!("cannot create {}: {error}", path.display()))?;
    // It lives as long as it is open.
    std::fs::remove_file(&path).map_err(|error| error.to_string())?;
    Ok(file)
}

fn said(mut file: std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    let _ = file.rewind().and_then(|()| file.read_to_string(&mut text));
    text
}
