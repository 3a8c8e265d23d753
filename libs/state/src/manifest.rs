//! What a checkpoint is: one immutable manifest that names every file of it.
//!
//! A manifest lies at [`Manifest::path`], which holds job and epoch only, so that two attempts cannot both write one. Whether it counts is
//! decided elsewhere, by its hash: a manifest that nobody decided is an orphan. What sources, sinks and counters keep in it are their own
//! words; this crate knows the files alone.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::files::{self, FileError, FileRef, Files};
use crate::snapshot::{MemoryStore, Snapshot, SnapshotError};
use crate::table::TablePart;

/// The format that this program writes, and the only one that it reads.
pub const FORMAT: &str = "highwater-checkpoint/1";

/// A checkpoint of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: String,
    /// The job's id.
    pub job: String,
    /// Who wrote it.
    pub run: String,
    pub generation: u64,
    pub epoch: u64,
    /// The epoch that was decided before it, in the same line of runs that go on from each other.
    pub previous: Option<u64>,
    /// Random: a writer that finds a manifest in its place knows by it whether it is its own.
    pub nonce: String,
    /// The last epoch of its run.
    pub last: bool,
    /// sha256 of the graph that the state belongs to, hexadecimal.
    pub graph_sha256: String,
    /// Microseconds since the Unix epoch.
    pub created_us: i64,
    /// Splits with positions and watermarks, by source.
    pub sources: Vec<SourcePart>,
    /// In the order of the plan.
    pub operators: Vec<OperatorPart>,
    pub sinks: Vec<SinkPart>,
    /// Rows counted up to the end of the epoch, by operator.
    pub counters: Value,
}

/// What a source goes on from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourcePart {
    pub operator: String,
    pub table: String,
    /// The source's closing watermark, microseconds; `i64::MIN` is none, `i64::MAX` is final.
    pub watermark_us: i64,
    /// The frozen splits, each with its position.
    pub splits: Value,
}

/// The state of an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorPart {
    pub operator: String,
    /// In the order of the workers that wrote it; of each its chain ([`crate::snapshot`]), from the part that stands for itself on.
    pub parts: Vec<StatePart>,
}

impl OperatorPart {
    /// The chain of each worker. `None` unless that many wrote it: with another number of workers no chain goes on.
    pub fn chains(&self, workers: usize) -> Option<BTreeMap<u64, Vec<StatePart>>> {
        let mut chains: BTreeMap<u64, Vec<StatePart>> = BTreeMap::new();
        for part in &self.parts {
            chains.entry(part.worker).or_default().push(part.clone());
        }
        (chains.len() == workers).then_some(chains)
    }
}

/// What one worker handed over at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatePart {
    pub worker: u64,
    pub rows: u64,
    pub file: FileRef,
    /// Its tables that have files of their own, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tables: BTreeMap<String, TablePart>,
}

impl StatePart {
    /// Every file of it.
    pub fn files(&self) -> impl Iterator<Item = &FileRef> {
        let tables = self.tables.values().flat_map(|table| &table.files).map(|file| &file.file);
        std::iter::once(&self.file).chain(tables)
    }
}

/// What a sink has to commit in the epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkPart {
    pub operator: String,
    pub watermark_us: i64,
    /// In the order of workers; in the sink's words.
    pub committables: Value,
    /// Files of the checkpoint's place that the committables name.
    pub files: Vec<FileRef>,
}

/// Why a manifest or what it names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path} is no manifest: {reason}")]
    Malformed { path: String, reason: String },
    #[error("{path} has the format '{found}'; this program reads {FORMAT}, so it was written by a newer one")]
    Format { path: String, found: String },
    #[error("{path} is of job {found}, epoch {found_epoch}: it does not belong to job {job}, epoch {epoch}")]
    Foreign { path: String, job: String, epoch: u64, found: String, found_epoch: u64 },
    #[error("{path} is no state of an operator")]
    State { path: String, source: SnapshotError },
}

impl Manifest {
    /// Where the manifest of an epoch lies.
    pub fn path(job: &str, epoch: u64) -> String {
        format!("{}/{epoch:020}.json", Manifest::directory(job))
    }

    /// Where all manifests of a job lie.
    pub fn directory(job: &str) -> String {
        format!("{job}/epochs")
    }

    /// The epoch of a manifest by its path.
    pub fn epoch_of(path: &str) -> Option<u64> {
        path.rsplit_once('/')?.1.strip_suffix(".json")?.parse().ok()
    }

    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec_pretty(self).expect("a manifest has text for keys, so it is JSON").into()
    }

    /// # Errors
    /// `Malformed`, `Format` or `Foreign`; `path` is shown.
    pub fn from_bytes(path: &str, bytes: &[u8], job: &str, epoch: u64) -> Result<Manifest, ManifestError> {
        let malformed =
            |error: serde_json::Error| ManifestError::Malformed { path: path.to_owned(), reason: error.to_string() };
        let value: Value = serde_json::from_slice(bytes).map_err(malformed)?;
        // Before the rest: a newer format may look otherwise.
        if let Some(found) = value.get("format").and_then(Value::as_str).filter(|found| *found != FORMAT) {
            return Err(ManifestError::Format { path: path.to_owned(), found: found.to_owned() });
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(malformed)?;
        if (manifest.job.as_str(), manifest.epoch) != (job, epoch) {
            return Err(ManifestError::Foreign {
                path: path.to_owned(),
                job: job.to_owned(),
                epoch,
                found: manifest.job,
                found_epoch: manifest.epoch,
            });
        }
        Ok(manifest)
    }

    /// Every file that the checkpoint needs, but for the manifest itself.
    pub fn files(&self) -> BTreeSet<&FileRef> {
        let state = self.operators.iter().flat_map(|operator| &operator.parts).flat_map(StatePart::files);
        state.chain(self.sinks.iter().flat_map(|sink| &sink.files)).collect()
    }

    /// Reads the manifest of a decided epoch; its hash was kept with the decision.
    pub async fn open(files: &dyn Files, file: &FileRef, job: &str, epoch: u64) -> Result<Manifest, ManifestError> {
        let bytes = files::get(files, file).await?;
        Manifest::from_bytes(&file.path, &bytes, job, epoch)
    }

    /// Reads every file of the checkpoint, checks it against its hash, and gives the state back. Nothing is started before.
    pub async fn load(&self, from: &dyn Files) -> Result<MemoryStore, ManifestError> {
        let parts = self.operators.iter().flat_map(|operator| operator.parts.iter().map(move |part| (operator, part)));
        let mut order: Vec<(usize, StatePart)> = parts.clone().map(|(_, part)| part.clone()).enumerate().collect();
        // The largest first, so that none is left when all others are done.
        order.sort_by_key(|(_, part)| std::cmp::Reverse(part.files().map(|file| file.bytes).sum::<u64>()));
        let read = |(at, part): (usize, StatePart)| async move { (at, part.read(from).await) };
        let mut reading = stream::iter(order.into_iter().map(read)).buffer_unordered(LOADED_AT_ONCE);
        let mut read = BTreeMap::new();
        while let Some((at, snapshot)) = reading.next().await {
            read.insert(at, snapshot?);
            faults::hit("restore.half").map_err(FileError::from)?;
        }
        let mut store = MemoryStore::new();
        for ((operator, part), snapshot) in parts.zip(read.into_values()) {
            store.put(&operator.operator, part.worker as usize, snapshot);
        }
        for file in self.sinks.iter().flat_map(|sink| &sink.files) {
            if !faults::broken("skip_verification_of_sinks") {
                files::get(from, file).await?;
            }
        }
        Ok(store)
    }
}

/// Files that are read and hashed at once.
const LOADED_AT_ONCE: usize = 4;

impl StatePart {
    /// Reads the files of the part, and checks each against its hash.
    async fn read(&self, from: &dyn Files) -> Result<Snapshot, ManifestError> {
        let snapshot = Snapshot::from_bytes(files::get(from, &self.file).await?)
            .map_err(|source| ManifestError::State { path: self.file.path.clone(), source })?;
        for file in self.tables.values().flat_map(|table| &table.files) {
            files::get(from, &file.file).await?;
        }
        Ok(snapshot.with_stored(self.tables.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::files::{MemoryFiles, put};
    use crate::snapshot::SnapshotWriter;
    use arrow::array::{Int64Array, RecordBatch};
    use std::sync::Arc;

    async fn checkpoint(files: &MemoryFiles) -> (Manifest, FileRef) {
        let rows = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![1, 2])) as _)]).unwrap();
        let mut writer = SnapshotWriter::new();
        writer.unkeyed("table", rows).unwrap();
        let state = writer.finish().unwrap().to_bytes().unwrap();
        let state = put(files, "job_1/state/a", state.into()).await.unwrap();
        let log = put(files, "job_1/logs/a", "log".into()).await.unwrap();
        let manifest = Manifest {
            format: FORMAT.into(),
            job: "job_1".into(),
            run: "run_1".into(),
            generation: 1,
            epoch: 7,
            previous: Some(3),
            nonce: "n".into(),
            last: false,
            graph_sha256: "0".into(),
            created_us: 0,
            sources: vec![],
            operators: vec![OperatorPart {
                operator: "count".into(),
                parts: vec![StatePart { worker: 0, rows: 2, file: state, tables: BTreeMap::new() }],
            }],
            sinks: vec![SinkPart {
                operator: "out".into(),
                watermark_us: 5,
                committables: Value::Null,
                files: vec![log],
            }],
            counters: Value::Null,
        };
        let path = Manifest::path("job_1", 7);
        let file = put(files, &path, manifest.to_bytes()).await.unwrap();
        (manifest, file)
    }

    #[tokio::test]
    async fn a_manifest_gives_back_what_was_put_into_it() {
        let files = MemoryFiles::default();
        let (manifest, file) = checkpoint(&files).await;
        assert_eq!(Manifest::epoch_of(&file.path), Some(7));
        let opened = Manifest::open(&files, &file, "job_1", 7).await.unwrap();
        assert_eq!(opened, manifest);
        assert_eq!(opened.files().len(), 2);
        let store = opened.load(&files).await.unwrap();
        assert_eq!(store.operators().collect::<Vec<_>>(), ["count"]);
        for (job, epoch) in [("job_2", 7), ("job_1", 8)] {
            let foreign = Manifest::open(&files, &file, job, epoch).await.unwrap_err();
            assert!(matches!(foreign, ManifestError::Foreign { .. }), "{foreign}");
        }
    }

    /// Whatever is done to one file of a checkpoint, it is refused, and the file is named.
    #[tokio::test]
    async fn every_change_of_a_file_is_found() {
        let pristine = MemoryFiles::default();
        let (manifest, file) = checkpoint(&pristine).await;
        let mut names: Vec<String> = manifest.files().into_iter().map(|file| file.path.clone()).collect();
        names.push(file.path.clone());
        type Change = fn(&[u8]) -> Option<Vec<u8>>;
        let changes: [(&str, Change); 5] = [
            ("truncated", |bytes| Some(bytes[..bytes.len() - 1].to_vec())),
            ("emptied", |_| Some(vec![])),
            ("flipped", |bytes| Some(bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 1)).collect())),
            ("extended", |bytes| Some([bytes, b" "].concat())),
            ("deleted", |_| None),
        ];
        for name in &names {
            for (how, change) in changes {
                let files = MemoryFiles::default();
                checkpoint(&files).await;
                let content = files.read(name).await.unwrap().unwrap();
                match change(&content) {
                    Some(changed) => files.write(name, changed.into()).await.unwrap(),
                    None => files.remove(name).await.unwrap(),
                }
                let loaded = async { Manifest::open(&files, &file, "job_1", 7).await?.load(&files).await };
                let refused = loaded.await.expect_err("it was changed").to_string();
                assert!(refused.contains(name.as_str()), "{name} {how}: {refused}");
            }
        }
    }

    #[test]
    fn a_newer_format_is_named_whatever_else_it_holds() {
        let newer = br#"{"format": "highwater-checkpoint/2", "other": 1}"#;
        let refused = Manifest::from_bytes("m", newer, "job_1", 1).unwrap_err();
        assert!(matches!(&refused, ManifestError::Format { found, .. } if found.ends_with("/2")), "{refused}");
        let refused = Manifest::from_bytes("m", b"{}", "job_1", 1).unwrap_err();
        assert!(matches!(refused, ManifestError::Malformed { .. }), "{refused}");
    }
}
