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
        /// The place of all checkpoints, and there the manifest of the epoch.
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

/// A directory of a savepoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavepointPlace {
    pub directory: PathBuf,
    /// It must be below one of these, links followed; `None`: the control plane has named it.
    pub allowed_roots: Option<Vec<PathBuf>>,
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
