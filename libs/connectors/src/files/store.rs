//! Where files are: local directories below allowed roots, and object stores. The one place that touches either.
//!
//! Local files are used through the operating system, not through `object_store`: names need no escaping, symbolic links are followed
//! only within the allowed roots, and what is written is really synced.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use graph::FilesystemOptions;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};
use serde::{Deserialize, Serialize};

use super::error::{FileError, Result};
use super::listing::join;
use super::manifest::STAGING;
use super::reach::{Reach, endpoint};
use crate::Egress;
use crate::http::{StoreConnector, is_not_allowed};

/// The local directories that jobs may use, links followed.
#[derive(Clone, Debug)]
pub struct AllowedRoots {
    roots: Vec<PathBuf>,
}

impl AllowedRoots {
    /// Directories that do not exist are left out: nothing can be in them.
    pub fn new(roots: impl IntoIterator<Item = impl AsRef<Path>>) -> AllowedRoots {
        let mut roots: Vec<PathBuf> = roots.into_iter().filter_map(|root| fs::canonicalize(root).ok()).collect();
        roots.sort();
        roots.dedup();
        AllowedRoots { roots }
    }

    /// The working directory and the directory for temporary files.
    pub fn defaults() -> AllowedRoots {
        AllowedRoots::new([PathBuf::from("."), std::env::temp_dir()])
    }

    /// The path without links, whether or not it exists yet.
    ///
    /// # Errors
    /// `location_not_allowed` outside of the roots.
    pub fn directory(&self, path: &Path) -> std::result::Result<PathBuf, engine::RunError> {
        Ok(self.resolve(path)?)
    }

    /// The path without links, whether or not it exists yet; refused outside of the roots.
    pub(crate) fn resolve(&self, path: &Path) -> Result<PathBuf> {
        let shown = || path.display().to_string();
        let mut existing = if path.is_absolute() {
            path.to_path_buf()
        } else {
            let here = std::env::current_dir().map_err(|error| FileError::LocationInvalid {
                shown: shown(),
                reason: format!("there is no working directory: {error}"),
            })?;
            here.join(path)
        };
        let mut missing = Vec::new();
        let mut resolved = loop {
            match fs::canonicalize(&existing) {
                Ok(resolved) => break resolved,
                // A dangling link exists, and what it points to cannot be told.
                Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&existing).is_err() => {
                    match existing.components().next_back() {
                        Some(Component::Normal(name)) => missing.push(name.to_os_string()),
                        _ => {
                            let reason = "\"..\" stands behind a directory that does not exist".to_string();
                            return Err(FileError::LocationInvalid { shown: shown(), reason });
                        }
                    }
                    existing.pop();
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(FileError::AccessDenied {
                        action: "opening",
                        shown: shown(),
                        reason: error.to_string(),
                    });
                }
                Err(error) => return Err(FileError::LocationInvalid { shown: shown(), reason: error.to_string() }),
            }
        };
        resolved.extend(missing.iter().rev());
        if self.roots.iter().any(|root| resolved.starts_with(root)) {
            return Ok(resolved);
        }
        let roots: Vec<String> = self.roots.iter().map(|root| root.display().to_string()).collect();
        Err(FileError::LocationNotAllowed { shown: shown(), roots: roots.join(", ") })
    }
}

/// A file as it was when it was listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMeta {
    /// Local: the path as it was found from the table's path. Object stores: the key.
    pub path: String,
    pub size: u64,
    /// Changes when the file does: entity tag, or time of modification and inode.
    pub version: String,
    /// The path that it will have, where it is committed but still staged: its directories name the partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
}

impl FileMeta {
    /// The path whose directories name the file's partition.
    pub fn named(&self) -> &str {
        self.named.as_deref().unwrap_or(&self.path)
    }
}

/// A file system.
#[derive(Clone, Debug)]
pub enum Store {
    Local(AllowedRoots),
    Objects {
        objects: Arc<dyn ObjectStore>,
        /// What stands before a key when it is shown: `s3://bucket/`.
        prefix: String,
    },
}

/// The store of a table, and its path there.
#[derive(Clone, Debug)]
pub struct Location {
    pub store: Store,
    /// Local: as given. Object stores: a key, possibly with pattern characters, without slashes at its ends.
    pub path: String,
}

impl Location {
    /// Finds the store of a path; no I/O beyond looking at local directories.
    pub fn open(options: &FilesystemOptions, reach: &Reach) -> Result<Location> {
        let given = options.path.as_str();
        let invalid =
            |reason: &str| FileError::LocationInvalid { shown: given.to_string(), reason: reason.to_string() };
        if let Some(rest) = given.strip_prefix("s3://").or_else(|| given.strip_prefix("s3a://")) {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(invalid("it names no bucket; write s3://bucket/prefix"));
            }
            let objects = s3(options, bucket, &reach.egress).map_err(|error| invalid(&reason(&error)))?;
            return Ok(Location {
                store: Store::objects(objects, format!("s3://{bucket}/")),
                path: key.trim_matches('/').to_string(),
            });
        }
        let path = given.strip_prefix("file://").unwrap_or(given);
        if let Some((scheme, _)) = path.split_once("://") {
            return Err(invalid(&format!("there is no storage {scheme}://; write a local path or s3://bucket/prefix")));
        }
        if path.is_empty() || path.contains('\0') {
            return Err(invalid("a path has at least one character, and no NUL"));
        }
        Ok(Location { store: Store::Local(reach.roots.clone()), path: path.to_string() })
    }

    pub fn shown(&self) -> String {
        self.store.shown(&self.path)
    }
}

/// A server that does not answer is reported within seconds, not minutes; one that answers late is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);

fn s3(options: &FilesystemOptions, bucket: &str, egress: &Egress) -> object_store::Result<Arc<dyn ObjectStore>> {
    // from_env reads AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL and their kin; with a key of the table's own,
    // only its region: a session token would belong to another key.
    let builder = match (&options.s3_access_key, std::env::var("AWS_REGION")) {
        (None, _) => AmazonS3Builder::from_env(),
        (Some(_), Ok(region)) => AmazonS3Builder::new().with_region(region),
        (Some(_), Err(_)) => AmazonS3Builder::new(),
    };
    let mut builder = builder.with_bucket_name(bucket).with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(endpoint) = &options.s3_endpoint {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some(region) = &options.s3_region {
        builder = builder.with_region(region);
    }
    if let (Some(access), Some(secret)) = (&options.s3_access_key, &options.s3_secret_key) {
        builder = builder.with_access_key_id(&access.0).with_secret_access_key(&secret.0);
        // Without keys, which only a user's own command line may be, they may have to be asked for at a metadata service.
        builder = builder.with_http_connector(StoreConnector {
            egress: egress.clone(),
            port: endpoint(options, bucket).1,
            connect_timeout: CONNECT_TIMEOUT,
            timeout: TIMEOUT,
        });
    }
    let client = ClientOptions::new().with_allow_http(true).with_connect_timeout(CONNECT_TIMEOUT).with_timeout(TIMEOUT);
    let retry =
        RetryConfig { backoff: BackoffConfig::default(), max_retries: 4, retry_timeout: Duration::from_secs(30) };
    Ok(Arc::new(builder.with_client_options(client).with_retry(retry).build()?))
}

impl Store {
    pub fn objects(objects: Arc<dyn ObjectStore>, prefix: String) -> Store {
        Store::Objects { objects, prefix }
    }

    pub fn is_local(&self) -> bool {
        matches!(self, Store::Local(_))
    }

    /// The location as people write it.
    pub fn shown(&self, path: &str) -> String {
        match self {
            Store::Local(_) => path.to_string(),
            Store::Objects { prefix, .. } => format!("{prefix}{path}"),
        }
    }

    /// The local file of a path, if it is allowed.
    pub fn local(&self, path: &str) -> Result<Option<PathBuf>> {
        match self {
            Store::Local(roots) => roots.resolve(Path::new(path)).map(Some),
            Store::Objects { .. } => Ok(None),
        }
    }

    /// The file at exactly this path; `None` if there is none.
    pub async fn head(&self, path: &str) -> Result<Option<FileMeta>> {
        match self {
            Store::Local(roots) => {
                let (roots, path) = (roots.clone(), path.to_string());
                blocking(move || local_head(&roots, &path)).await
            }
            Store::Objects { objects, .. } => {
                if path.is_empty() {
                    return Ok(None);
                }
                match objects.head(&self.key(path)?).await {
                    Ok(meta) => Ok(Some(object_meta(meta))),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(self.failed("reading", path, &error)),
                }
            }
        }
    }

    /// All files below a directory, at any depth, in the order of their paths. Nothing, if there is no such directory.
    /// `enter` says by its name whether to look into a subdirectory (local only; object stores have none).
    pub async fn list(&self, directory: &str, enter: fn(&str) -> bool) -> Result<Vec<FileMeta>> {
        let mut files = match self {
            Store::Local(roots) => {
                let (roots, directory) = (roots.clone(), directory.to_string());
                blocking(move || {
                    let mut files = Vec::new();
                    local_walk(&roots, Path::new(&directory), enter, 0, &mut files)?;
                    Ok(files)
                })
                .await?
            }
            Store::Objects { objects, .. } => {
                let prefix = (!directory.is_empty()).then(|| self.key(directory)).transpose()?;
                let listed = objects.list(prefix.as_ref()).map_ok(object_meta).try_collect::<Vec<_>>().await;
                listed.map_err(|error| self.failed("listing", directory, &error))?
            }
        };
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Byte ranges of a file, each whole; fails if the file is not the one that was listed.
    pub async fn read_ranges(&self, file: &FileMeta, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
        if ranges.iter().any(|range| range.start > range.end || range.end > file.size) {
            let reason = format!("it refers to bytes behind its end at {}", file.size);
            return Err(FileError::InputFileInvalid { file: self.shown(&file.path), place: String::new(), reason });
        }
        match self {
            Store::Local(roots) => {
                let (roots, file) = (roots.clone(), file.clone());
                blocking(move || local_read(&roots, &file, &ranges)).await
            }
            Store::Objects { objects, .. } => {
                let key = self.key(&file.path)?;
                let read = ranges.into_iter().map(|range| async {
                    if range.is_empty() {
                        return Ok(Bytes::new());
                    }
                    let mut options = object_store::GetOptions { range: Some(range.into()), ..Default::default() };
                    if !file.version.is_empty() {
                        options.if_match = Some(file.version.clone());
                    }
                    objects.get_opts(&key, options).await?.bytes().await
                });
                let read: object_store::Result<Vec<Bytes>> =
                    futures::stream::iter(read).buffered(8).try_collect().await;
                match read {
                    Ok(read) => Ok(read),
                    Err(object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. }) => {
                        let after = self.head(&file.path).await?;
                        Err(changed(&self.shown(&file.path), file, after.as_ref()))
                    }
                    Err(error) => Err(self.failed("reading", &file.path, &error)),
                }
            }
        }
    }

    /// The file for reading here and there, where it is local; fails if it is not the one that was listed.
    pub async fn open_local(&self, file: &FileMeta) -> Result<Option<OpenFile>> {
        match self {
            Store::Local(roots) => {
                let (roots, file) = (roots.clone(), file.clone());
                blocking(move || OpenFile::open(&roots, &file).map(Some)).await
            }
            Store::Objects { .. } => Ok(None),
        }
    }

    /// A whole small file, such as a manifest; `None` if there is none.
    pub async fn read_all(&self, path: &str) -> Result<Option<Bytes>> {
        match self {
            Store::Local(roots) => {
                let (roots, path) = (roots.clone(), path.to_string());
                blocking(move || match fs::read(roots.resolve(Path::new(&path))?) {
                    Ok(bytes) => Ok(Some(Bytes::from(bytes))),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(io_failed("reading", &path, &error)),
                })
                .await
            }
            Store::Objects { objects, .. } => {
                let key = self.key(path)?;
                match async { objects.get(&key).await?.bytes().await }.await {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(object_store::Error::NotFound { .. }) => Ok(None),
                    Err(error) => Err(self.failed("reading", path, &error)),
                }
            }
        }
    }

    /// Creates a small file durably, unless it exists. `false`: it exists, possibly because an earlier try of ours was answered late;
    /// read it and compare.
    pub async fn put_if_absent(&self, path: &str, bytes: Vec<u8>) -> Result<bool> {
        match self {
            Store::Local(roots) => {
                let (roots, path) = (roots.clone(), path.to_string());
                blocking(move || {
                    let target = roots.resolve(Path::new(&path))?;
                    local_create(&target, &bytes).map_err(|error| output_failed(&path, &error))
                })
                .await
            }
            Store::Objects { objects, .. } => {
                let key = self.key(path)?;
                match objects.put_opts(&key, bytes.into(), PutMode::Create.into()).await {
                    Ok(_) => Ok(true),
                    Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                        Ok(false)
                    }
                    Err(error) => Err(self.failed("writing", path, &error)),
                }
            }
        }
    }

    /// Whether an object store keeps what commits rest on: a name is given once, and what was written is read and listed at once.
    /// Some compatible stores ignore the condition of a create, and two writers then overwrite each other's commits.
    ///
    /// # Errors
    /// The store does not, cannot be reached, or refuses to be written to. Local directories always do.
    pub async fn probe(&self, directory: &str) -> Result<()> {
        if self.is_local() {
            return Ok(());
        }
        let path = join(directory, &format!("{STAGING}/probe-{}", uuid::Uuid::new_v4()));
        let tried = self.create_twice(directory, &path).await;
        if let Err(error) = self.delete(&path).await {
            tracing::warn!("a probe's object stays at {}: {error}", self.shown(&path));
        }
        tried
    }

    async fn create_twice(&self, directory: &str, path: &str) -> Result<()> {
        let refused = |reason: String| FileError::OutputRefused { shown: self.shown(directory), reason };
        let first = b"first".to_vec();
        // Whether it says so or not: a lost answer and a repeated request look like a name that is taken.
        match self.put_if_absent(path, first.clone()).await {
            Err(FileError::Unreachable { reason, .. })
                if reason.contains("NotImplemented") || reason.contains("501") =>
            {
                let reason = format!("the store cannot create an object on condition that its name is free: {reason}");
                return Err(refused(reason));
            }
            tried => tried?,
        };
        let again = self.put_if_absent(path, b"second".to_vec()).await?;
        let content = self.read_all(path).await?;
        if again || content.as_ref().is_some_and(|content| **content == *b"second") {
            let reason = "the store overwrites an object where it was told to create one only if its name is free \
                          (it ignores If-None-Match), so commits could be lost; use one with conditional writes";
            return Err(refused(reason.into()));
        }
        let listed = self.list(&join(directory, STAGING), |_| true).await?;
        if content.as_deref() != Some(first.as_slice()) || !listed.iter().any(|file| file.path == path) {
            let reason = "the store does not show at once what was written, so commits could be lost; \
                          use one that is consistent";
            return Err(refused(reason.into()));
        }
        Ok(())
    }

    /// Removes a file, if it exists.
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self {
            Store::Local(roots) => {
                let (roots, path) = (roots.clone(), path.to_string());
                blocking(move || match fs::remove_file(roots.resolve(Path::new(&path))?) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(output_failed(&path, &error)),
                    _ => Ok(()),
                })
                .await
            }
            Store::Objects { objects, .. } => match objects.delete(&self.key(path)?).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(self.failed("deleting", path, &error)),
            },
        }
    }

    pub(super) fn key(&self, path: &str) -> Result<Key> {
        Key::parse(path)
            .map_err(|error| FileError::LocationInvalid { shown: self.shown(path), reason: error.to_string() })
    }

    /// A failure of an object store, sorted by who must act.
    pub(super) fn failed(&self, action: &'static str, path: &str, error: &object_store::Error) -> FileError {
        let (shown, text) = (self.shown(path), reason(error));
        match error {
            object_store::Error::Unauthenticated { .. } | object_store::Error::PermissionDenied { .. } => {
                FileError::AccessDenied { action, shown, reason: text }
            }
            _ if is_not_allowed(error) => FileError::EndpointNotAllowed { action, shown },
            // S3 answers 403 to keys it does not know and to signatures that do not fit.
            _ if ["403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"]
                .iter()
                .any(|sign| text.contains(sign)) =>
            {
                FileError::AccessDenied { action, shown, reason: text }
            }
            _ if text.contains("NoSuchBucket") => {
                FileError::InputNotFound { shown, looked_for: "there is no such bucket".into() }
            }
            _ => FileError::Unreachable { action, shown, reason: text },
        }
    }
}

/// An error with its causes, each said once.
pub(super) fn reason(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn object_meta(meta: object_store::ObjectMeta) -> FileMeta {
    let version = meta.e_tag.unwrap_or_default();
    FileMeta { path: meta.location.to_string(), size: meta.size, version, named: None }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(FileError::Unreachable {
            action: "using",
            shown: "local files".into(),
            reason: "the run is over".into(),
        }),
    }
}

pub(super) fn io_failed(action: &'static str, path: &str, error: &io::Error) -> FileError {
    let (shown, reason) = (path.to_string(), error.to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied => FileError::AccessDenied { action, shown, reason },
        _ => FileError::Unreachable { action, shown, reason },
    }
}

pub(super) fn output_failed(path: &str, error: &io::Error) -> FileError {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull => format!("no space is left on the disk ({error})"),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            let shown = path.to_string();
            return FileError::AccessDenied { action: "writing", shown, reason: error.to_string() };
        }
        io::ErrorKind::QuotaExceeded => format!("the quota is used up ({error})"),
        _ => error.to_string(),
    };
    FileError::OutputFailed { shown: path.to_string(), reason }
}

fn local_meta(path: &Path, meta: &fs::Metadata) -> FileMeta {
    // Nanoseconds and inode: a file that is replaced by one of the same size within the clock's tick has another inode.
    let version = format!("{}.{:09}-{:x}", meta.mtime(), meta.mtime_nsec(), meta.ino());
    FileMeta { path: path.to_string_lossy().into_owned(), size: meta.len(), version, named: None }
}

fn local_head(roots: &AllowedRoots, path: &str) -> Result<Option<FileMeta>> {
    let resolved = roots.resolve(Path::new(path))?;
    match fs::metadata(&resolved) {
        Ok(meta) if meta.is_file() => Ok(Some(local_meta(Path::new(path), &meta))),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(io_failed("reading", path, &error)),
    }
}

/// Deeper than any sensible layout; ends a circle of links.
const DEPTH_MAX: usize = 64;

fn local_walk(
    roots: &AllowedRoots,
    directory: &Path,
    enter: fn(&str) -> bool,
    depth: usize,
    files: &mut Vec<FileMeta>,
) -> Result<()> {
    let shown = directory.display().to_string();
    let resolved = roots.resolve(directory)?;
    let entries = match fs::read_dir(&resolved) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => return Err(io_failed("listing", &shown, &error)),
    };
    if depth > DEPTH_MAX {
        let reason = format!("directories nest more than {DEPTH_MAX} deep; a link may form a circle");
        return Err(FileError::LocationInvalid { shown, reason });
    }
    for entry in entries {
        let entry = entry.map_err(|error| io_failed("listing", &shown, &error))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            let reason = format!("it holds a file whose name is not UTF-8: {name:?}");
            return Err(FileError::LocationInvalid { shown, reason });
        };
        if !enter(name) {
            continue;
        }
        let path = directory.join(name);
        let kind = entry.file_type().map_err(|error| io_failed("listing", &shown, &error))?;
        // What a link points to is looked up only where it is allowed.
        let target = if kind.is_symlink() { roots.resolve(&path)? } else { path.clone() };
        match fs::metadata(&target) {
            Ok(meta) if meta.is_dir() => local_walk(roots, &path, enter, depth + 1, files)?,
            Ok(meta) if meta.is_file() => files.push(local_meta(&path, &meta)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_failed("reading", &path.display().to_string(), &error)),
        }
    }
    Ok(())
}

fn local_read(roots: &AllowedRoots, file: &FileMeta, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    let opened = OpenFile::open(roots, file)?;
    let read = ranges.iter().map(|range| opened.read(range.clone()));
    read.collect::<io::Result<_>>().map_err(|error| opened.failed(&error))
}

/// A local file that is the one that was listed, for reading here and there. One thread at a time: it has one position.
pub struct OpenFile {
    file: fs::File,
    listed: FileMeta,
}

impl OpenFile {
    fn open(roots: &AllowedRoots, listed: &FileMeta) -> Result<OpenFile> {
        let path = roots.resolve(Path::new(&listed.path))?;
        let file = fs::File::open(path).map_err(|error| read_failed(listed, &error))?;
        let opened = OpenFile { file, listed: listed.clone() };
        opened.check()?;
        Ok(opened)
    }

    /// Fails if the file has been written to since it was listed.
    pub fn check(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|error| self.failed(&error))?;
        let now = local_meta(Path::new(&self.listed.path), &now);
        if (now.size, &now.version) == (self.listed.size, &self.listed.version) {
            Ok(())
        } else {
            Err(changed(&self.listed.path, &self.listed, Some(&now)))
        }
    }

    /// Bytes, all of them; into memory that nobody clears first.
    pub fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let length = range.end - range.start;
        let mut buffer = Vec::with_capacity(length as usize);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(range.start))?;
        file.take(length).read_to_end(&mut buffer)?;
        if buffer.len() as u64 == length { Ok(Bytes::from(buffer)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Tells the system that this range will be read soon.
    pub fn expect(&self, range: Range<u64>) {
        // SAFETY: the descriptor is open as long as `self` lives; the call only advises.
        unsafe {
            libc::posix_fadvise(
                self.file.as_raw_fd(),
                range.start as i64,
                (range.end - range.start) as i64,
                libc::POSIX_FADV_WILLNEED,
            );
        }
    }

    pub fn failed(&self, error: &io::Error) -> FileError {
        read_failed(&self.listed, error)
    }
}

/// The file is not the one that was listed.
fn changed(shown: &str, before: &FileMeta, after: Option<&FileMeta>) -> FileError {
    let version = |file: &FileMeta| format!("{} bytes (version {})", file.size, file.version);
    let after = after.map_or("gone".to_string(), version);
    FileError::InputChanged { file: shown.to_string(), before: version(before), after }
}

fn read_failed(file: &FileMeta, error: &io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound => changed(&file.path, file, None),
        // Cut off while it was read: it is there, and shorter.
        io::ErrorKind::UnexpectedEof => {
            let now = fs::metadata(&file.path).ok().map(|meta| local_meta(Path::new(&file.path), &meta));
            changed(&file.path, file, now.as_ref())
        }
        _ => io_failed("reading", &file.path, error),
    }
}

/// Writes a file that others see whole or not at all; `false` if there is one already.
fn local_create(target: &Path, bytes: &[u8]) -> io::Result<bool> {
    let directory = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    create_dirs(directory)?;
    let staged = directory.join(format!(".{}", uuid::Uuid::new_v4()));
    let written = fs::write(&staged, bytes).and_then(|()| sync(&fs::File::open(&staged)?));
    // A link is made only if the name is free: the one conditional create that local file systems have for a whole file.
    let linked = written.and_then(|()| match fs::hard_link(&staged, target) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    });
    faults::hit("sink.manifest.linked")?;
    let _ = fs::remove_file(&staged);
    let created = linked?;
    sync_dir(directory)?;
    Ok(created)
}

/// What was synced, in order, in all tests of this process.
#[cfg(test)]
pub(super) static SYNCED: std::sync::Mutex<Vec<PathBuf>> = std::sync::Mutex::new(Vec::new());

/// Makes a file's content, or a directory's entries, durable.
pub(super) fn sync(file: &fs::File) -> io::Result<()> {
    if faults::broken("skip_fsync_of_sinks") {
        return Ok(());
    }
    file.sync_all()?;
    #[cfg(test)]
    {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        SYNCED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(fs::read_link(path)?);
    }
    Ok(())
}

/// Makes a directory's entries durable.
pub(super) fn sync_dir(directory: &Path) -> io::Result<()> {
    sync(&fs::File::open(directory)?)
}

/// `mkdir -p`, each new entry made durable.
pub(super) fn create_dirs(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory.parent().ok_or(io::ErrorKind::NotFound)?;
    create_dirs(parent)?;
    match fs::create_dir(directory) {
        // Made by another process in between.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let reason = format!("{} is not a directory", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotADirectory, reason));
        }
        made => made?,
    }
    sync_dir(parent)
}
