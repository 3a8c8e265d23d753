//! Where checkpoints are: immutable files by name, each known by its length and the hash of its content.
//!
//! What is written under a name is never written again. Whether a file counts is said by the manifest that names it
//! ([`crate::manifest`]), never by its being there. [`LocalFiles`] is a directory, [`crate::objects`] are object stores.

#[cfg(any(test, feature = "testing"))]
pub mod conformance;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileRef {
    /// From the root of its place, with `/` between its parts.
    pub path: String,
    pub bytes: u64,
    /// Of the content, hexadecimal.
    pub sha256: String,
}

impl FileRef {
    /// How `content` is known under a name.
    pub fn of(path: &str, content: &[u8]) -> FileRef {
        FileRef { path: path.to_owned(), bytes: content.len() as u64, sha256: sha256(content) }
    }

    /// Whether `content` is what was written.
    pub fn is(&self, content: &[u8]) -> bool {
        if faults::broken("skip_hash") {
            return true;
        }
        self.bytes == content.len() as u64 && self.sha256 == sha256(content)
    }
}

/// The sha256 of bytes, hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Why a file could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{place}/{path} is missing")]
    Missing { place: String, path: String },
    /// It is not what was written.
    #[error(
        "{place}/{path} is damaged: it has {found_bytes} bytes with the hash {found}, written were {bytes} with {sha256}"
    )]
    Damaged { place: String, path: String, bytes: u64, sha256: String, found_bytes: u64, found: String },
    #[error("no space is left at {place} for {path}")]
    Full { place: String, path: String },
    #[error("{action} {place}/{path} is not allowed: {reason}")]
    Denied { action: &'static str, place: String, path: String, reason: String },
    #[error("{place} does not exist: {reason}")]
    NoPlace { place: String, reason: String },
    #[error("{action} {place}/{path} failed, since it cannot be reached: {reason}")]
    Unreachable { action: &'static str, place: String, path: String, reason: String },
    /// Commits could be lost there.
    #[error("{place} cannot keep checkpoints: {reason}")]
    Refused { place: String, reason: String },
    #[error("{action} {place}/{path} failed: {reason}")]
    Failed { action: &'static str, place: String, path: String, reason: String },
}

/// A test wants a step to fail.
impl From<faults::Injected> for FileError {
    fn from(injected: faults::Injected) -> FileError {
        let (place, path) = (String::from("files"), injected.point.to_owned());
        FileError::Failed { action: "using", place, path, reason: injected.to_string() }
    }
}

impl FileError {
    /// The file is not what was written; else its place could not be asked, or not be used.
    pub fn is_damage(&self) -> bool {
        matches!(self, FileError::Missing { .. } | FileError::Damaged { .. })
    }
}

pub type Result<T> = std::result::Result<T, FileError>;

/// What became of the creation of a file that only one can create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    Created,
    /// The name was taken; this is what is there.
    Exists(Bytes),
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub path: String,
    pub bytes: u64,
    pub modified: SystemTime,
}

/// A place for immutable files.
///
/// When a method that writes returns `Ok`, the file survives a loss of power. Names are made of letters, digits, `.`, `_`, `-`, and `/`
/// between parts.
pub trait Files: Send + Sync {
    /// The place as people write it.
    fn shown(&self) -> String;

    /// Writes a file under a name that nobody else uses.
    fn write<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>>;

    /// Writes a file unless the name is taken: of several that try, one creates it. A reply that is lost is resolved by reading.
    fn create<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<Creation>>;

    /// `None` if there is no such file.
    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>>;

    /// All files whose names begin with these parts, in the order of their names.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>>;

    /// Removes a file; one that is not there is removed.
    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// Writes a file and says how it is known.
pub async fn put(files: &dyn Files, path: &str, content: Bytes) -> Result<FileRef> {
    let file = FileRef::of(path, &content);
    files.write(path, content).await?;
    Ok(file)
}

/// Reads a file, and checks that it is what was written.
pub async fn get(files: &dyn Files, file: &FileRef) -> Result<Bytes> {
    let (place, path) = (files.shown(), file.path.clone());
    let content = files.read(&file.path).await?;
    let content = content.ok_or_else(|| FileError::Missing { place: place.clone(), path: path.clone() })?;
    // Half a second for a gigabyte: other files are read meanwhile.
    let (hashed, wanted) = (content.clone(), file.clone());
    let check = move || {
        let damaged = || (hashed.len() as u64, sha256(&hashed));
        if wanted.is(&hashed) { None } else { Some(damaged()) }
    };
    let damage = if content.len() < HASHED_APART_BYTES {
        check()
    } else {
        let check = tokio::task::spawn_blocking(check).await;
        check.unwrap_or_else(|stopped| std::panic::resume_unwind(stopped.into_panic()))
    };
    match damage {
        None => Ok(content),
        Some((found_bytes, found)) => {
            Err(FileError::Damaged { place, path, bytes: file.bytes, sha256: file.sha256.clone(), found_bytes, found })
        }
    }
}

/// From so many bytes on a file is hashed on a thread of its own.
const HASHED_APART_BYTES: usize = 1 << 20;

/// A directory of this machine.
#[derive(Clone, Debug)]
pub struct LocalFiles {
    root: PathBuf,
}

impl LocalFiles {
    /// The directory need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> LocalFiles {
        LocalFiles { root: root.into() }
    }

    fn failed(&self, action: &'static str, path: &str, error: &io::Error) -> FileError {
        let (place, path) = (self.shown(), path.to_owned());
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::Full { place, path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                FileError::Denied { action, place, path, reason: error.to_string() }
            }
            _ => FileError::Failed { action, place, path, reason: error.to_string() },
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        path: &str,
        work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let whole = self.root.join(path);
        let done = tokio::task::spawn_blocking(move || work(whole)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| self.failed(action, path, &error))
    }
}

/// Files that are being written; the name is unique per process and call.
fn unfinished(path: &Path) -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{number}{UNFINISHED}", std::process::id()));
    path.with_file_name(name)
}

const UNFINISHED: &str = ".unfinished";

/// Creates a directory and syncs the entries of every one that was missing.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directory(parent)?;
    }
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent.unwrap_or(Path::new(".")))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    if faults::broken("skip_directory_fsync") {
        return Ok(());
    }
    File::open(directory)?.sync_all()
}

/// The content under a name of its own, synced, in the directory of `path`.
fn stage(path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let directory = path.parent().unwrap_or(Path::new("."));
    make_directory(directory)?;
    let staged = unfinished(path);
    let written = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&staged)?;
        file.write_all(content)?;
        if faults::broken("skip_fsync") { Ok(()) } else { file.sync_all() }
    };
    match written() {
        Ok(()) => Ok(staged),
        Err(error) => {
            // The first error is the one to tell.
            let _ = fs::remove_file(&staged);
            Err(error)
        }
    }
}

impl Files for LocalFiles {
    fn shown(&self) -> String {
        self.root.display().to_string()
    }

    fn write<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.blocking("writing", path, move |path| {
            let staged = stage(&path, &content)?;
            faults::hit("files.write.staged")?;
            fs::rename(&staged, &path)?;
            sync_directory(path.parent().unwrap_or(Path::new(".")))
        }))
    }

    fn create<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<Creation>> {
        Box::pin(self.blocking("creating", path, move |path| {
            let staged = stage(&path, &content)?;
            faults::hit("files.create.staged")?;
            // A link is made whole, and only if the name is free.
            if faults::broken("overwrite_on_create") {
                let _ = fs::remove_file(&path);
            }
            let linked = fs::hard_link(&staged, &path);
            faults::hit("files.create.linked")?;
            fs::remove_file(&staged)?;
            sync_directory(path.parent().unwrap_or(Path::new(".")))?;
            match linked {
                Ok(()) => Ok(Creation::Created),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    Ok(Creation::Exists(fs::read(&path)?.into()))
                }
                Err(error) => Err(error),
            }
        }))
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(self.blocking("reading", path, |path| match fs::read(path) {
            Ok(content) => Ok(Some(content.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let root = self.root.clone();
        Box::pin(self.blocking("listing", prefix, move |directory| {
            let mut found = Vec::new();
            walk(&root, &directory, &mut found)?;
            found.sort_by(|a, b| a.path.cmp(&b.path));
            Ok(found)
        }))
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.blocking("removing", path, |path| match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }))
    }
}

fn walk(root: &Path, directory: &Path, found: &mut Vec<Listed>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        // It may have been removed since.
        let Ok(facts) = fs::metadata(&path) else { continue };
        if facts.is_dir() {
            walk(root, &path, found)?;
            continue;
        }
        let name = path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy().into_owned();
        found.push(Listed { path: name, bytes: facts.len(), modified: facts.modified()? });
    }
    Ok(())
}

/// Files in memory, for tests.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemoryFiles {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T) -> T {
        work(&mut self.files.lock().expect("nothing panics while it holds the files"))
    }
}

impl Files for MemoryFiles {
    fn shown(&self) -> String {
        "memory".to_owned()
    }

    fn write<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<()>> {
        self.with(|files| files.insert(path.to_owned(), content));
        Box::pin(std::future::ready(Ok(())))
    }

    fn create<'a>(&'a self, path: &'a str, content: Bytes) -> BoxFuture<'a, Result<Creation>> {
        let created = self.with(|files| match files.get(path) {
            Some(there) => Creation::Exists(there.clone()),
            None => {
                files.insert(path.to_owned(), content);
                Creation::Created
            }
        });
        Box::pin(std::future::ready(Ok(created)))
    }

    fn read<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(std::future::ready(Ok(self.with(|files| files.get(path).cloned()))))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Listed>>> {
        let is_below = |path: &str| {
            prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let found = self.with(|files| {
            let found = files.iter().filter(|(path, _)| is_below(path));
            found
                .map(|(path, content)| Listed {
                    path: path.clone(),
                    bytes: content.len() as u64,
                    modified: SystemTime::UNIX_EPOCH,
                })
                .collect()
        });
        Box::pin(std::future::ready(Ok(found)))
    }

    fn remove<'a>(&'a self, path: &'a str) -> BoxFuture<'a, Result<()>> {
        self.with(|files| files.remove(path));
        Box::pin(std::future::ready(Ok(())))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn files_in_memory_keep_the_promises() {
        conformance::check_files(&MemoryFiles::default()).await;
    }

    #[tokio::test]
    async fn files_in_a_directory_keep_the_promises() {
        let directory = tempfile::tempdir().unwrap();
        conformance::check_files(&LocalFiles::new(directory.path().join("not/there/yet"))).await;
        let left = LocalFiles::new(directory.path()).list("").await.unwrap();
        assert!(left.iter().all(|file| !file.path.ends_with(UNFINISHED)), "{left:?}");
    }

    #[tokio::test]
    async fn of_many_that_create_a_file_one_does() {
        let directory = tempfile::tempdir().unwrap();
        let files = LocalFiles::new(directory.path());
        let tries = (0..16).map(|number: u8| {
            let files = files.clone();
            tokio::spawn(async move { files.create("it", Bytes::from(vec![number; 1000])).await.unwrap() })
        });
        let mut created = 0;
        let mut there = Vec::new();
        for one in futures::future::join_all(tries).await {
            match one.unwrap() {
                Creation::Created => created += 1,
                Creation::Exists(content) => there.push(content),
            }
        }
        assert_eq!(created, 1);
        let content = files.read("it").await.unwrap().unwrap();
        assert!(there.iter().all(|seen| *seen == content && seen.len() == 1000), "nobody sees a half");
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        let files = LocalFiles::new(directory.path().join("file"));
        let failed = files.write("a", Bytes::new()).await.unwrap_err();
        assert!(failed.to_string().contains("writing"), "{failed}");
    }
}
