//! Keyed state of operators, and its snapshots.

/// Collects the state tables of one operator instance.
pub struct SnapshotWriter;

/// Gives back the state that one operator instance owns.
pub struct SnapshotReader;
