//! What the kernel says of a process, in `/proc/PID`.

/// The fields of `stat` from field 3, the state, on; none if the process is gone. Field 2, the name, is in parentheses and may hold
/// anything.
pub fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_string).collect())
}

/// What a process has in memory.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident_bytes: u64,
    /// Of these, what is no part of a file: heap and stacks.
    pub own_bytes: u64,
}

/// None if the process is gone.
pub fn memory(pid: u32) -> Option<Memory> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split_whitespace().skip(1).map(|pages| pages.parse::<u64>().ok());
    let (resident, of_files) = (pages.next()??, pages.next()??);
    // SAFETY: sysconf reads a constant of the system.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    Some(Memory { resident_bytes: resident * page_bytes, own_bytes: resident.saturating_sub(of_files) * page_bytes })
}
