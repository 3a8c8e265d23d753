//! Directories of this machine for tables that are at work: what is in them is worth nothing once their process is gone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory of a process, below that for temporary files. It goes when this is dropped; what a killed process leaves goes when the next one
/// makes one.
pub struct Scratch {
    directory: PathBuf,
    /// Held as long as the process lives, however it ends: who comes later sweeps what nobody holds.
    _lock: File,
    next: AtomicU64,
}

/// How directories of state begin.
const PREFIX: &str = "highwater-state-";
/// In each of them, locked by its process.
const LOCK: &str = "lock";

impl Scratch {
    /// An empty one.
    ///
    /// # Errors
    /// The path of the directory, and why it cannot be made.
    pub fn new() -> Result<Scratch, (PathBuf, std::io::Error)> {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let directory = unused(&parent);
        match hold(&directory) {
            Ok(lock) => Ok(Scratch { directory, _lock: lock, next: AtomicU64::new(0) }),
            Err(error) => Err((directory, error)),
        }
    }

    /// A name for the directory of one table, which is not there yet.
    pub fn table(&self) -> PathBuf {
        self.directory.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Tables remove their own directories; what is left is in the way of nobody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A name that no directory has.
fn unused(parent: &Path) -> PathBuf {
    use std::hash::{BuildHasher, RandomState};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let random = RandomState::new().hash_one((std::process::id(), number));
    parent.join(format!("{PREFIX}{}-{number}-{random:016x}", std::process::id()))
}

/// Makes the directory, and its lock.
fn hold(directory: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(directory)?;
    let lock = File::create(directory.join(LOCK))?;
    lock.lock()?;
    Ok(lock)
}

/// Removes the state of processes that were killed. What cannot be looked at is left to its owner.
fn sweep(parent: &Path) {
    let is_state = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(PREFIX);
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten().filter(is_state) {
        if let Ok(lock) = File::open(entry.path().join(LOCK))
            && lock.try_lock().is_ok()
        {
            // If another one sweeps at the same time, it is gone.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_nobody_holds_is_swept_and_what_somebody_holds_stays() {
        let parent = tempfile::tempdir().unwrap();
        let (dead, held, other) = (unused(parent.path()), unused(parent.path()), parent.path().join("others"));
        drop(hold(&dead).unwrap());
        let lock = hold(&held).unwrap();
        std::fs::create_dir(&other).unwrap();
        sweep(parent.path());
        assert_eq!((dead.exists(), held.exists(), other.exists()), (false, true, true));
        drop(lock);
        let scratch = Scratch::new().unwrap();
        let (one, two) = (scratch.table(), scratch.table());
        assert!(one != two && one.parent().unwrap().exists());
        drop(scratch);
        assert!(!one.parent().unwrap().exists());
    }
}
