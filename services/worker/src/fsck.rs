//! Compares the checkpoints of a job with their place, in a process that looks at files for a control plane; see [`control::inspect`].

use std::collections::BTreeSet;
use std::time::SystemTime;

use bytes::Bytes;
use control::epochs::collection::{File, fsck};
use control::inspect::{CheckpointFile, CheckpointPlace, Compared, Refused};
use state::{FileError, Manifest, files};

use crate::savepoints::{opened, refusal};

/// Reads every file that a kept checkpoint names, and lists what is there.
///
/// # Errors
/// The place cannot be read; a manifest has a newer format. What is wrong with a file is a finding.
pub async fn compare(
    checkpoints: CheckpointPlace,
    job: &str,
    retained: &[CheckpointFile],
    grace_us: i64,
) -> Result<Compared, Refused> {
    let files = opened(checkpoints)?;
    let unreadable = |error: FileError| refusal("checkpoint_storage", error.to_string());
    let mut referenced: Vec<File<String>> = Vec::new();
    for checkpoint in retained {
        let CheckpointFile { epoch, manifest, bytes, sha256 } = checkpoint.clone();
        referenced.push(File { name: manifest.clone(), bytes, sha256: Some(sha256.clone()) });
        let Some(content) = files.read(&manifest).await.map_err(unreadable)? else { continue };
        // A damaged one names nothing that could be trusted; that it is damaged is found by its hash.
        if files::sha256(&content) == sha256 {
            let read = Manifest::from_bytes(&manifest, &content, job, epoch);
            let read = read.map_err(|error| refusal("checkpoint_format", error.to_string()))?;
            let named = read.files().into_iter();
            let file = |file: &state::FileRef| File {
                name: file.path.clone(),
                bytes: file.bytes,
                sha256: Some(file.sha256.clone()),
            };
            referenced.extend(named.map(file));
        }
    }
    referenced.sort_by(|a, b| a.name.cmp(&b.name));
    referenced.dedup();
    let newest = retained.iter().map(|checkpoint| checkpoint.epoch).max().unwrap_or_default();
    let named: BTreeSet<String> = referenced.iter().map(|file| file.name.clone()).collect();
    let now = SystemTime::now();
    let mut listed = Vec::new();
    for file in files.list(job).await.map_err(unreadable)? {
        let is_named = named.contains(&file.path);
        // What belongs to a later epoch is being written, or will be deleted by the attempt that comes next.
        if !is_named && epoch_of(&file.path).is_none_or(|epoch| epoch >= newest) {
            continue;
        }
        let content = match is_named {
            true => files.read(&file.path).await.map_err(unreadable)?,
            false => None,
        };
        let sha256 = content.as_ref().map(|content: &Bytes| files::sha256(content));
        let age_us = now.duration_since(file.modified).map_or(0, |age| age.as_micros() as i64);
        listed.push((File { name: file.path, bytes: file.bytes, sha256 }, age_us));
    }
    Ok(Compared {
        files: referenced.len() as u64,
        bytes: referenced.iter().map(|file| file.bytes).sum(),
        findings: fsck(&referenced, &listed, grace_us),
    })
}

/// The epoch that a file was written for, by its name.
fn epoch_of(path: &str) -> Option<u64> {
    Manifest::epoch_of(path).or_else(|| path.rsplit('/').next()?.get(..20)?.parse().ok())
}
