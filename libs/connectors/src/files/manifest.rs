//! Manifests: which files of a directory are results. The manifest is the commit.
//!
//! `_manifests/<number>.json`, numbered from 1 without gaps, each created only if its number is free and naming the hash of the one
//! before. A file that no manifest names is no result, whatever its name. On local disks a committed file may still be in the staging
//! directory, because the writer was stopped between the manifest and the renames: readers look there too, [`finish`] mends it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{FileError, Result};
use super::listing::{below, join};
use super::store::{FileMeta, Store, blocking, create_dirs, output_failed, sync_dir};

/// Directory of the manifests, in a sink's directory.
pub const MANIFESTS: &str = "_manifests";
/// Directory of what is not committed, one subdirectory per run.
pub const STAGING: &str = "_staging";
/// What the files of our sink are called: where names are final at once, this tells ours from foreign ones.
pub const FILE_PREFIX: &str = "part-";

/// One commit: the files that it adds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `highwater-files/1`.
    pub format: String,
    pub number: u64,
    /// SHA-256 of the manifest before this one, in hex; none for the first.
    pub previous: Option<String>,
    pub run: String,
    pub operator: String,
    pub epoch: u64,
    /// Whether this is the run's last commit.
    pub last: bool,
    /// Drawn for each attempt to create it: tells an own manifest whose creation was answered late from that of another writer.
    pub nonce: String,
    /// Names and types of the columns, partition columns included.
    pub columns: Vec<(String, String)>,
    /// How the files must be read: the format, its options, and the partition columns, each as text under its option's name.
    /// Empty in manifests that were written before this was noted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub layout: BTreeMap<String, String>,
    pub rows: u64,
    pub files: Vec<DataFile>,
}

pub const FORMAT: &str = "highwater-files/1";

/// A file of results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// From the sink's directory on, with partition directories.
    pub path: String,
    /// Where it is until it is renamed, from the sink's directory on; none where it has its name at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<String>,
    pub rows: u64,
    pub bytes: u64,
    /// SHA-256 of the content, in hex.
    pub sha256: String,
}

pub fn manifest_path(directory: &str, number: u64) -> String {
    join(directory, &format!("{MANIFESTS}/{number:020}.json"))
}

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn hash(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes))
}

/// All manifests of a directory in their order, each with its hash; checked to be whole and unbroken.
pub async fn read(store: &Store, directory: &str) -> Result<Vec<(Manifest, String)>> {
    let below_manifests = join(directory, MANIFESTS);
    let listed = store.list(&below_manifests, |name| !name.starts_with('.')).await?;
    let mut manifests: Vec<(Manifest, String)> = Vec::with_capacity(listed.len());
    for file in listed.iter().filter(|file| file.path.ends_with(".json")) {
        let invalid = |reason: String| FileError::InputFileInvalid {
            file: store.shown(&file.path),
            place: String::new(),
            reason,
        };
        let bytes = store
            .read_all(&file.path)
            .await?
            .ok_or_else(|| invalid("the manifest was removed while it was read".into()))?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|error| invalid(format!("it is no manifest: {error}")))?;
        if manifest.format != FORMAT {
            return Err(invalid(format!("it has the format {:?}; this version reads {FORMAT:?}", manifest.format)));
        }
        let previous = manifests.last().map(|(_, hash)| hash.clone());
        if manifest.number != manifests.len() as u64 + 1 || manifest.previous != previous {
            return Err(invalid("it does not follow the manifest before it; one was removed or changed".into()));
        }
        manifests.push((manifest, hash(&bytes)));
    }
    Ok(manifests)
}

/// The files that the manifests of a directory name; `None` if it has no manifests.
pub async fn committed_files(store: &Store, directory: &str) -> Result<Option<Vec<FileMeta>>> {
    if store.is_local() && !store.is_local_dir(&join(directory, MANIFESTS))? {
        return Ok(None);
    }
    let manifests = read(store, directory).await?;
    if manifests.is_empty() && !store.is_local() {
        return Ok(None);
    }
    let mut present: BTreeMap<String, FileMeta> = store
        .list(directory, |_| true)
        .await?
        .into_iter()
        .filter_map(|file| Some((below(&file.path, directory)?.to_string(), file)))
        .collect();
    let mut files = Vec::new();
    for file in manifests.iter().flat_map(|(manifest, _)| &manifest.files) {
        let found = present.remove(&file.path).or_else(|| {
            let meta = present.remove(file.staged.as_ref()?)?;
            Some(FileMeta { named: Some(join(directory, &file.path)), ..meta })
        });
        let invalid = |reason: String| FileError::InputFileInvalid {
            file: store.shown(&join(directory, &file.path)),
            place: String::new(),
            reason,
        };
        match found {
            Some(meta) if meta.size == file.bytes => files.push(meta),
            Some(meta) => return Err(invalid(format!("it has {} bytes, its manifest says {}", meta.size, file.bytes))),
            None => return Err(invalid("it is named by a manifest, but it is gone".into())),
        }
    }
    Ok(Some(files))
}

/// Makes sure that what a manifest is about to name can get its names: afterwards only renames are left, which need no new directory.
/// A commit that fails here has not happened.
///
/// # Errors
/// `output_failed`: a directory cannot be made, a name is too long, or a staged file is not there as it was written.
pub async fn prepare(store: &Store, directory: &str, files: &[DataFile]) -> Result<()> {
    let Some(root) = store.local(directory)? else { return Ok(()) };
    let files = files.to_vec();
    blocking(move || {
        for file in &files {
            let Some(staged) = &file.staged else { continue };
            let (staged, target) = (root.join(staged), root.join(&file.path));
            let failed = |error: io::Error| output_failed(&target.display().to_string(), &error);
            create_dirs(target.parent().expect("a file is in a directory")).map_err(failed)?;
            let size = |path: &Path| match fs::metadata(path) {
                Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(error)),
            };
            let found = match size(&target)? {
                None => size(&staged)?,
                found => found,
            };
            if found != Some(file.bytes) {
                let reason = match found {
                    Some(found) => format!("{} bytes were written, and it has {found}", file.bytes),
                    None => "it was removed before it was committed".to_string(),
                };
                return Err(FileError::OutputFailed { shown: staged.display().to_string(), reason });
            }
        }
        Ok(())
    })
    .await
}

/// Gives the committed files of a local directory their names, where a run was stopped before it could.
/// Harmless to repeat, and to do from several processes.
pub async fn finish(store: &Store, directory: &str, files: &[DataFile]) -> Result<()> {
    let Some(root) = store.local(directory)? else { return Ok(()) };
    let moves: Vec<(String, String)> =
        files.iter().filter_map(|file| Some((file.staged.clone()?, file.path.clone()))).collect();
    blocking(move || {
        let mut touched = std::collections::BTreeSet::new();
        for (staged, path) in moves {
            let target = root.join(&path);
            let failed = |error: io::Error| output_failed(&target.display().to_string(), &error);
            let parent = target.parent().expect("a file is in a directory");
            create_dirs(parent).map_err(failed)?;
            faults::hit("sink.rename.before").map_err(|injected| failed(injected.into()))?;
            match fs::rename(root.join(&staged), &target) {
                // Done already, by an earlier try or by another process.
                Err(error) if error.kind() == io::ErrorKind::NotFound && target.is_file() => {}
                result => result.map_err(failed)?,
            }
            faults::hit("sink.rename.after").map_err(|injected| failed(injected.into()))?;
            touched.insert(parent.to_path_buf());
        }
        touched
            .iter()
            .try_for_each(|parent| sync_dir(parent))
            .map_err(|error| output_failed(&root.display().to_string(), &error))
    })
    .await
}
