//! Huge pages, where they pay: not while a process of a run is small.
//!
//! The allocator asks the kernel for them, and large state is faster in them. But what a stream that has little to do uses is spread over
//! its heap: 10 MB are in memory with huge pages where 1 MB is without.

use std::time::Duration;

use crate::processes::memory;

/// Bytes of its own, not of files, from which on a process is large.
const LARGE_BYTES: u64 = 32 << 20;
const LOOK: Duration = Duration::from_millis(250);

/// To be called as early as possible: pages that are huge stay so. Programs that this process starts have none either until they say
/// otherwise.
pub fn none_yet() {
    set(true);
}

/// Lets the process have them once it is large, and ends then.
pub async fn once_large() {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        if memory(std::process::id()).is_some_and(|memory| memory.own_bytes > LARGE_BYTES) {
            return set(false);
        }
    }
}

fn set(disabled: bool) {
    // SAFETY: prctl reads its arguments.
    if unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, libc::c_ulong::from(disabled), 0, 0, 0) } != 0 {
        // The process works all the same.
        tracing::debug!("cannot turn huge pages on or off: {}", std::io::Error::last_os_error());
    }
}
