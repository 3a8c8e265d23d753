//! The directory of an attempt: what is read from it, and what is left in it.

use std::fs::{File, OpenOptions};
use std::io::{Error, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use control::attempt::{AttemptSpec, ProcessFacts};
use serde::Serialize;

use crate::processes::stat_fields;

/// Held open, so that its socket can be bound however long its path is, and its entries synced.
pub struct Directory {
    path: PathBuf,
    held: File,
}

impl Directory {
    pub fn open(path: &Path) -> std::io::Result<Directory> {
        Ok(Directory { path: path.to_path_buf(), held: File::open(path)? })
    }

    pub fn spec(&self) -> std::io::Result<AttemptSpec> {
        let bytes = std::fs::read(self.path.join("spec.json"))?;
        serde_json::from_slice(&bytes).map_err(Error::other)
    }

    /// Takes room on the disk for a file that will be written when there may be none.
    pub fn reserve(&self, name: &str, bytes: u32) -> std::io::Result<()> {
        let file = unfinished(&self.path, name).1?;
        // SAFETY: the descriptor is open, the call takes numbers.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes.into()) } {
            0 => Ok(()),
            error => Err(Error::from_raw_os_error(error)),
        }
    }

    /// Writes a file whole or not at all, and so that it is there after a power failure: a name of its own first, then the right one.
    pub fn write(&self, name: &str, content: &impl Serialize) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(content).map_err(Error::other)?;
        let (path, file) = unfinished(&self.path, name);
        let mut file = file?;
        // Over what is there: room that was reserved is not given back before.
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        std::fs::rename(&path, self.path.join(name))?;
        self.held.sync_all()
    }

    /// Says in `process.json` whose the directory is. Only one can: a server that has waited too long for this process takes the name itself.
    ///
    /// # Errors
    /// `AlreadyExists` if the server has given the attempt up.
    pub fn claim(&self) -> std::io::Result<()> {
        self.write("process.claim", &facts()?)?;
        let claim = self.path.join("process.claim");
        let claimed = std::fs::hard_link(&claim, self.path.join("process.json"));
        std::fs::remove_file(&claim)?;
        claimed?;
        self.held.sync_all()
    }

    /// Listens at `control.sock`, for the user of this process only.
    ///
    /// The path of a Unix socket may have 107 bytes, and a directory is easily deeper: the socket is bound, and is to be dialled, as
    /// `/proc/self/fd/N/control.sock`, where N is the open directory. To be called while the process has one thread: the mask of
    /// permissions is the process's.
    pub fn listen(&self) -> std::io::Result<UnixListener> {
        let path = format!("/proc/self/fd/{}/control.sock", self.held.as_raw_fd());
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // SAFETY: umask only sets a number of the process, and cannot fail.
        let before = unsafe { libc::umask(0o177) };
        let bound = UnixListener::bind(path);
        // SAFETY: as above.
        unsafe { libc::umask(before) };
        let listener = bound?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

/// What a file is until it is whole.
fn unfinished(directory: &Path, name: &str) -> (PathBuf, std::io::Result<File>) {
    let path = directory.join(format!("{name}.tmp"));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    (path, file)
}

/// How this process can be found again.
fn facts() -> std::io::Result<ProcessFacts> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_string();
    let pid = std::process::id();
    // Field 22.
    let ticks = stat_fields(pid).and_then(|fields| fields.get(19)?.parse().ok());
    let start_ticks = ticks.ok_or_else(|| Error::other(format!("/proc/{pid}/stat has no time of start")))?;
    Ok(ProcessFacts { pid, start_ticks, boot_id })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_process_knows_when_it_began() {
        let facts = facts().unwrap();
        assert_eq!(facts.pid, std::process::id());
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        // SAFETY: sysconf reads a constant of the system.
        let ticks_per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let age = uptime - facts.start_ticks as f64 / ticks_per_second;
        assert!((-0.1..3600.0).contains(&age), "{age}");
        assert_eq!(facts.boot_id.len(), 36);
    }
}
