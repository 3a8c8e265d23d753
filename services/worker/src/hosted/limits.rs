//! What an attempt may use: memory, processor time.

use std::time::Duration;

use engine::RunError;
use engine::runtime::Progress;

use super::status::Usage;
use crate::Children;
use crate::processes::{memory, stat_fields};

/// How often memory is looked at.
pub const LOOK: Duration = Duration::from_millis(100);

/// The processes of the attempt: this one and its children.
pub fn processes(children: &Children) -> Vec<u32> {
    let mut all = vec![std::process::id()];
    all.extend(children.pids());
    all
}

/// Bytes of a process that are in memory; none if it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    memory(pid).map(|memory| memory.resident_bytes)
}

/// User and system time of a process; none if it is gone.
fn cpu_us(pid: u32) -> Option<u64> {
    let fields = stat_fields(pid)?;
    // Fields 14 and 15.
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // SAFETY: sysconf reads a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u64;
    Some(ticks * 1_000_000 / per_second.max(1))
}

/// What all processes of the attempt use now.
pub fn usage(children: &Children) -> Usage {
    let all = processes(children);
    Usage {
        resident_bytes: all.iter().filter_map(|pid| resident_bytes(*pid)).sum(),
        cpu_us: all.iter().filter_map(|pid| cpu_us(*pid)).sum(),
    }
}

/// The cause of the end of a run of which process `index` has `resident` bytes where `limit` are allowed.
pub fn too_much_memory(index: usize, resident: u64, limit: u64, progress: &Progress) -> RunError {
    let mut by_state: Vec<_> = progress.counts.iter().filter(|counts| counts.state_bytes > 0).collect();
    by_state.sort_by_key(|counts| std::cmp::Reverse(counts.state_bytes));
    let mut message = format!(
        "process {index} of the run has {} MiB in memory, and may have {} MiB",
        mebibytes(resident),
        mebibytes(limit)
    );
    if !by_state.is_empty() {
        let largest =
            by_state.iter().take(3).map(|counts| format!("{} {} MiB", counts.operator, mebibytes(counts.state_bytes)));
        message.push_str(&format!("; most state is in {}", largest.collect::<Vec<_>>().join(", ")));
    }
    let error = RunError::user("memory_limit", message)
        .hint("raise the memory limit of the job, or keep less: shorter windows, fewer keys, lower parallelism, a smaller memory.in-flight");
    match by_state.first() {
        Some(largest) => error.operator(&largest.operator),
        None => error,
    }
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// Makes this process, and all that it starts, as nice as a share of the processor asks for.
///
/// The share counts only while others want the processor too; a run that is alone gets all of it. Beside one process of nice 0 that
/// never rests, a thread of nice n gets 1.25^-n of what that gets, so a share of p percent is nice log(100/p) / log(1.25): 3 for 50,
/// 6 for 25, 10 for 10, 19 (the most) for 1. Sessions may be scheduled as groups, of which each has a nice value of its own that is set as well.
/// To be called while the process has one thread, since on Linux a nice value is a thread's.
pub fn share_processor(percent: u32) -> std::io::Result<()> {
    let nice = niceness(percent);
    if nice == 0 {
        return Ok(());
    }
    // SAFETY: setpriority reads its three arguments.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // Not there where the kernel does not group sessions.
    let _ = std::fs::write("/proc/self/autogroup", nice.to_string());
    Ok(())
}

fn niceness(percent: u32) -> i32 {
    let share = f64::from(percent.clamp(1, 100)) / 100.0;
    (-share.ln() / 1.25f64.ln()).round().clamp(0.0, 19.0) as i32
}

#[cfg(test)]
mod tests {
    use engine::runtime::OperatorCounts;

    use super::*;

    #[test]
    fn a_share_is_a_nice_value() {
        assert_eq!([100, 200, 50, 25, 10, 1, 0].map(niceness), [0, 0, 3, 6, 10, 19, 19]);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(&Children::default());
        assert!(usage.resident_bytes > 100_000, "{usage:?}");
        assert_eq!(resident_bytes(u32::MAX), None);
    }

    #[test]
    fn who_has_most_state_is_named() {
        let counts = |operator: &str, state_bytes| OperatorCounts {
            operator: operator.into(),
            state_bytes,
            ..OperatorCounts::default()
        };
        let progress = Progress {
            counts: vec![counts("a", 1 << 20), counts("b", 9 << 20), counts("c", 0)],
            ..Progress::default()
        };
        let error = too_much_memory(1, 80 << 20, 64 << 20, &progress);
        assert_eq!(
            error.message,
            "process 1 of the run has 80 MiB in memory, and may have 64 MiB; most state is in b 9 MiB, a 1 MiB"
        );
        assert_eq!((error.code.as_str(), error.operator.as_deref()), ("memory_limit", Some("b")));
    }
}
