//! What a process tree costs.
//!
//! A child's largest resident set counts what its parent held when it was started. So each measured program is started by a small process
//! of its own, which waits for it and says what it cost: `benches measure PROGRAM ARGUMENTS...`.

use std::process::{Command, ExitCode, Stdio};
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
pub fn measured(command: &Command) -> Result<Measured, String> {
    let name = format!("{command:?}");
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let ran = Command::new(program)
        .arg("measure")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let figures: Vec<f64> = said.split_whitespace().filter_map(|figure| figure.parse().ok()).collect();
    match figures[..] {
        [cpu_s, wall_s, resident_mb] if ran.status.success() => Ok(Measured { cpu_s, wall_s, resident_mb }),
        _ => Err(format!("{name} failed ({}):\n{}", ran.status, String::from_utf8_lossy(&ran.stderr))),
    }
}

/// Runs a program and says its figures, in the order of [`Measured`].
pub fn main(arguments: &[String]) -> ExitCode {
    let Some((program, arguments)) = arguments.split_first() else {
        eprintln!("usage: benches measure PROGRAM ARGUMENTS...");
        return ExitCode::from(2);
    };
    match run(Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null())) {
        Ok(Measured { cpu_s, wall_s, resident_mb }) => {
            println!("{cpu_s} {wall_s} {resident_mb}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &mut Command) -> Result<Measured, String> {
    let start = Instant::now();
    let child = command.spawn().map_err(|error| format!("cannot start it: {error}"))?;
    let pid = libc::pid_t::try_from(child.id()).map_err(|error| error.to_string())?;
    let mut status = 0;
    // SAFETY: all zeros are a valid `rusage`: it is a plain structure of numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the process is a child of ours that nobody else waits for, and both pointers are to live variables.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    let wall_s = start.elapsed().as_secs_f64();
    if waited != pid {
        return Err(format!("cannot wait for it: {}", std::io::Error::last_os_error()));
    }
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        return Err(format!("it ended with status {status}"));
    }
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Ok(Measured {
        cpu_s: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        wall_s,
        // Linux counts in units of 1,024 bytes.
        resident_mb: usage.ru_maxrss as f64 * 1_024.0 / 1e6,
    })
}
