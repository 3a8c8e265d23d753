//! What the control plane asks a short-lived process to look at: it may touch files and networks, and its death costs nothing.
//!
//! The process reads one [`Question`] from its standard input and writes one [`Answer`] to its standard output.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::attempt::Egress;
use crate::epochs::collection::Finding;
use crate::savepoint::Judged;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Whether the sources and sinks of a graph can be used, as far as that can be told without reading or writing.
    /// Connections with their secrets.
    Check {
        graph: Box<graph::Graph>,
        settings: Box<graph::Settings>,
        allowed_roots: Vec<PathBuf>,
        connections: BTreeMap<String, BTreeMap<String, String>>,
        egress: Egress,
    },
    /// How far a connection leads. The options hold secrets.
    Connect { kind: String, options: BTreeMap<String, String>, egress: Egress, seconds: u64 },
    /// Writes a checkpoint as a savepoint.
    Export {
        /// The place of all checkpoints, and there the manifest of the epoch. An object store of savepoints is reached in the same way.
        checkpoints: CheckpointPlace,
        job: String,
        checkpoint: CheckpointFile,
        job_name: String,
        graph: serde_json::Value,
        to: SavepointPlace,
    },
    /// Looks at a savepoint, and at what would become of it in a graph.
    Judge {
        from: SavepointPlace,
        /// How an object store is reached. May hold secrets.
        options: BTreeMap<String, String>,
        into: Box<IntoGraph>,
        /// Its files are read for so long at most.
        seconds: u64,
    },
    /// Writes a savepoint as a checkpoint of a job. Everything is checked before, and the verdicts are those of `Judge`.
    Import {
        from: SavepointPlace,
        /// Of the one that was judged.
        manifest_sha256: String,
        into: Box<IntoGraph>,
        checkpoints: CheckpointPlace,
        run: String,
        /// The number of the epoch that it becomes.
        epoch: u64,
    },
    /// Compares what the checkpoints of a job name with what is there, and every file with its hash.
    Fsck {
        checkpoints: CheckpointPlace,
        job: String,
        /// Those that are kept.
        retained: Vec<CheckpointFile>,
        /// What is not named and older than this is an orphan; microseconds.
        grace_us: i64,
    },
}

/// Where all checkpoints are: a directory or `s3://bucket/prefix`, and how it is reached. May hold secrets.
#[derive(Clone, Serialize, Deserialize)]
pub struct CheckpointPlace {
    pub place: String,
    pub options: BTreeMap<String, String>,
}

/// Where a savepoint is. It is kept in the rows of runs, so it holds no secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavepointPlace {
    /// A directory, or `s3://bucket/prefix`. Rows of runs that were stored before object stores were possible have another name for it.
    #[serde(alias = "directory")]
    pub place: String,
    /// It must be below one of these, links followed; `None`: the control plane has named it.
    pub allowed_roots: Option<Vec<String>>,
}

impl SavepointPlace {
    /// How messages call it: its name, without the directories of the machine that it lies in.
    pub fn name(&self) -> String {
        let last = self.place.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
        if in_object_store(&self.place) { self.place.clone() } else { format!("savepoint {last}") }
    }
}

/// Whether a place is one of an object store, and no directory.
pub fn in_object_store(place: &str) -> bool {
    place.contains("://")
}

/// Whether a place of an object store is one of the roots, or lies below one.
pub fn is_below(place: &str, roots: &[String]) -> bool {
    let below = |root: &String| {
        let rest = place.strip_prefix(root.trim_end_matches('/'));
        in_object_store(root) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    roots.iter().any(below)
}

/// The manifest of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointFile {
    pub epoch: u64,
    /// Below the directory of all checkpoints.
    pub manifest: String,
    pub bytes: u64,
    pub sha256: String,
}

/// The graph that a savepoint is to go on in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntoGraph {
    /// The job's id; `None`: no job of the savepoint.
    pub job: Option<String>,
    pub graph: graph::Graph,
    pub settings: graph::Settings,
    pub may_drop: BTreeSet<String>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exported {
    pub bytes: u64,
    pub manifest_sha256: String,
    /// By operator, rows and bytes of its state.
    pub state: BTreeMap<String, (u64, u64)>,
}

/// A savepoint, and what would become of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    pub job: String,
    pub job_name: String,
    pub epoch: u64,
    pub manifest_sha256: String,
    /// Whether every file was read and found to be what was written.
    pub checked: bool,
    pub judged: Vec<Judged>,
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refused {
    pub code: String,
    pub message: String,
    /// With `savepoint_conflict`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judged: Vec<Judged>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Checked(Vec<Found>),
    Connected(Vec<Step>),
    Exported(Result<Exported, Refused>),
    Judged(Result<Judgement, Refused>),
    Imported(Result<CheckpointFile, Refused>),
    Compared(Result<Compared, Refused>),
}

/// What the checkpoints of a job name, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    pub files: u64,
    pub bytes: u64,
    /// By path below the place of all checkpoints. None: all is well.
    pub findings: Vec<Finding<String>>,
}

/// Something that is wrong with an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    pub operator: Option<String>,
    pub code: String,
    pub message: String,
    pub hint: Option<String>,
}

/// A step towards a system; the first that fails is the last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub name: String,
    pub ok: bool,
    pub detail: String,
    pub elapsed_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_an_object_store_is_below_whole_parts_of_a_root() {
        let roots = ["s3://b/save/".to_string(), "s3://c".to_string(), "/srv".to_string()];
        for (place, inside) in [
            ("s3://b/save", true),
            ("s3://b/save/x/y", true),
            ("s3://b/saves", false),
            ("s3://b", false),
            ("s3://c/anything", true),
            ("s3://cc/anything", false),
            ("/srv/x", false),
        ] {
            assert_eq!(is_below(place, &roots), inside, "{place}");
        }
    }

    #[test]
    fn a_savepoint_is_named_without_the_directories_of_the_machine() {
        let name = |place: &str| SavepointPlace { place: place.into(), allowed_roots: None }.name();
        assert_eq!(name("/var/lib/highwater/savepoints/svp_1/"), "savepoint svp_1");
        assert_eq!(name("s3://bucket/svp_1"), "s3://bucket/svp_1");
    }
}
