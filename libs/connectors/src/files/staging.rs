//! Local directories of staged files: whose they are, and when they may go.
//!
//! Each run stages in a directory of its own, `_staging/<run>`. Its writers hold a shared lock on that directory while they live, so
//! what a dead run left behind can be told from what a living one waits with. A run may also be at rest between two attempts, without
//! writers: only what is old, too, is taken for abandoned.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::manifest::STAGING;
use super::store::create_dirs;

/// A directory without writers in which nothing has changed for this long belongs to a run that does not come back.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Held as long as a writer may need what it staged.
pub struct Lock {
    directory: fs::File,
}

impl Lock {
    /// Creates the directory and locks it.
    fn take(directory: &Path) -> io::Result<Lock> {
        create_dirs(directory)?;
        let directory = fs::File::open(directory)?;
        // Some network file systems cannot lock directories; there nothing is ever taken for abandoned, because that needs a lock too.
        let _ = directory.lock_shared();
        Ok(Lock { directory })
    }

    /// Removes the directory, if it is empty and no other writer may still use it.
    pub fn remove(self, directory: &Path) {
        if self.directory.try_lock().is_ok() {
            remove_empty(directory);
        }
    }
}

/// Creates a staged file, with its directory and the directory's lock if it is not held yet.
pub fn create(path: &Path, lock: &mut Option<Lock>) -> io::Result<fs::File> {
    let directory = path.parent().expect("a staged file is in a directory");
    let mut tries = 0;
    loop {
        let created = match lock {
            Some(_) => Ok(()),
            None => Lock::take(directory).map(|taken| *lock = Some(taken)),
        };
        let created = created.and_then(|()| fs::OpenOptions::new().write(true).create_new(true).open(path));
        match created {
            // Another writer that ended has just removed the empty directory.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < 10 => *lock = None,
            created => return created,
        }
        tries += 1;
    }
}

/// Removes a run's directory and the directory of all of them, if nothing is in them.
pub fn remove_empty(directory: &Path) {
    if fs::remove_dir(directory).is_ok()
        && let Some(staging) = directory.parent()
    {
        let _ = fs::remove_dir(staging);
    }
}

/// Removes the files of a directory whose names `unwanted` takes; it need not exist.
pub fn remove_files(directory: &Path, unwanted: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if unwanted(&entry.file_name().to_string_lossy()) {
            match fs::remove_file(entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// Removes what runs left in a sink's directory that have died. `committed` are the staged paths that manifests name: those are
/// results, and stay until they have their names. `own` is the directory name of the caller's run, which may just be at rest.
pub fn remove_abandoned(sink: &Path, own: &str, committed: &HashSet<String>) -> io::Result<()> {
    let staging = sink.join(STAGING);
    for entry in fs::read_dir(&staging).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own || !entry.file_type()?.is_dir() {
            continue;
        }
        let directory = entry.path();
        let lock = fs::File::open(&directory)?;
        if lock.try_lock().is_ok() && is_abandoned(&directory, |file| committed.contains(&staged(&name, file)))? {
            fs::remove_dir_all(&directory)?;
            let _ = fs::remove_dir(&staging);
        }
    }
    Ok(())
}

/// Path of a staged file from the sink's directory on.
pub fn staged(run: &str, file: &str) -> String {
    format!("{STAGING}/{run}/{file}")
}

fn is_abandoned(directory: &Path, is_result: impl Fn(&str) -> bool) -> io::Result<bool> {
    let old = |meta: fs::Metadata| -> io::Result<bool> {
        let changed = meta.modified()?;
        Ok(SystemTime::now().duration_since(changed).is_ok_and(|age| age > ABANDONED))
    };
    if !old(fs::metadata(directory)?)? {
        return Ok(false);
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if is_result(&entry.file_name().to_string_lossy()) || !old(entry.metadata()?)? {
            return Ok(false);
        }
    }
    Ok(true)
}
