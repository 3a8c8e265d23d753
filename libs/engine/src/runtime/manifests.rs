//! What a checkpoint says: makes the manifests of an attempt, and reads what one says of a sink.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use control::attempt::OperatorCost;
use serde_json::Value;
use state::manifest::{FORMAT, Manifest, OperatorPart, SourcePart, StatePart};

use super::leader::SourcesCut;
use super::messages::{Assignment, Held};
use crate::error::{Result, RunError};
use crate::plan::{Plan, StageKind};
use crate::sink::Committable;

/// Makes the manifests of an attempt's checkpoints.
pub(super) struct Manifests {
    /// What does not change: its parts are empty.
    template: Manifest,
    /// The operators with state, in the order of the plan.
    operators: Vec<String>,
    pub(super) sinks: Arc<[String]>,
    /// What was handed over, by epoch, operator and worker.
    snapshots: BTreeMap<u64, BTreeMap<String, BTreeMap<u64, Written>>>,
    /// By operator and worker: the parts that the newest manifest names.
    ///
    /// A manifest is made when the one before is decided, and names every part that was written since that one; none is left out, because
    /// an attempt decides its checkpoints in order and ends with the first that cannot be. What was written for one that was never decided
    /// is in no chain: the next attempt goes on from a manifest.
    chains: BTreeMap<String, BTreeMap<u64, Vec<StatePart>>>,
}

/// The attempt that a manifest is of.
pub(super) struct Named<'a> {
    pub(super) job: &'a str,
    pub(super) run: &'a str,
    pub(super) generation: u64,
}

/// What a worker handed over of an operator.
pub(super) struct Written {
    pub(super) part: StatePart,
    pub(super) whole: bool,
    pub(super) held: Held,
}

impl Manifests {
    /// `restored` is the manifest that the attempt goes on from, with so many workers.
    pub(super) fn of(
        attempt: Named<'_>,
        graph: &graph::Graph,
        plan: &Plan,
        restored: Option<&Manifest>,
        workers: usize,
    ) -> Manifests {
        let restored = restored.into_iter().flat_map(|manifest| &manifest.operators);
        let chains = restored.filter_map(|operator| Some((operator.operator.clone(), operator.chains(workers)?)));
        let graph = serde_json::to_vec(graph).expect("a graph has text for keys, so it is JSON");
        let named = |wanted: fn(&StageKind) -> bool| {
            let stages = plan.stages.iter().filter(move |stage| wanted(&stage.kind));
            stages.map(|stage| stage.operator.clone()).collect::<Vec<String>>()
        };
        Manifests {
            template: Manifest {
                format: FORMAT.into(),
                job: attempt.job.to_owned(),
                run: attempt.run.to_owned(),
                generation: attempt.generation,
                epoch: 0,
                previous: None,
                nonce: String::new(),
                last: false,
                graph_sha256: state::files::sha256(&graph),
                created_us: 0,
                sources: Vec::new(),
                operators: Vec::new(),
                sinks: Vec::new(),
                counters: Value::Null,
            },
            operators: named(|kind| kind.has_state()),
            sinks: named(|kind| matches!(kind, StageKind::Sink(_))).into(),
            snapshots: BTreeMap::new(),
            chains: chains.collect(),
        }
    }

    pub(super) fn snapshot(&mut self, epoch: u64, operator: String, written: Written) {
        self.snapshots.entry(epoch).or_default().entry(operator).or_default().insert(written.part.worker, written);
    }

    /// The manifest of an epoch that is complete everywhere, and what its snapshots cost.
    pub(super) fn make(
        &mut self,
        epoch: u64,
        last: bool,
        assignment: &Assignment,
        cut: &SourcesCut,
    ) -> (Manifest, Vec<OperatorCost>) {
        let mut costs = Vec::new();
        let snapshots = self.snapshots.remove(&epoch).unwrap_or_default();
        assert!(
            self.snapshots.first_key_value().is_none_or(|(next, _)| *next > epoch),
            "what was written for an epoch is in its manifest"
        );
        for (operator, workers) in snapshots {
            let mut cost = OperatorCost { operator: operator.clone(), ..OperatorCost::default() };
            let chains = self.chains.entry(operator).or_default();
            // A table on disk names again what it has written before.
            let there: BTreeSet<String> =
                chains.values().flatten().flat_map(StatePart::files).map(|file| file.path.clone()).collect();
            for (worker, Written { part, whole, held }) in workers {
                cost.rows += part.rows;
                let new = part.files().filter(|file| !there.contains(&file.path));
                cost.bytes += new.map(|file| file.bytes).sum::<u64>();
                cost.alignment_us = cost.alignment_us.max(held.alignment_us);
                cost.pause_us = cost.pause_us.max(held.pause_us);
                let chain = chains.entry(worker).or_default();
                if whole {
                    chain.clear();
                }
                assert!(whole || !chain.is_empty(), "changes are added to what a manifest names");
                // Tables with files of their own are whole in each part.
                chain.iter_mut().for_each(|earlier| earlier.tables.clear());
                chain.push(part);
            }
            costs.push(cost);
        }
        // After the last epoch no operator has state.
        let parts = |operator| {
            let chains = self.chains.get(operator).filter(|_| !last);
            chains.into_iter().flat_map(BTreeMap::values).flatten().cloned().collect()
        };
        let sources = assignment.sources.iter().enumerate().map(|(position, source)| {
            let splits =
                source.splits.iter().map(|(number, (split, began))| (split, cut.splits.get(number).unwrap_or(began)));
            SourcePart {
                operator: source.operator.clone(),
                table: source.table.clone(),
                watermark_us: cut.closing.get(&position).copied().unwrap_or(source.watermark),
                splits: serde_json::to_value(splits.collect::<Vec<_>>()).expect("splits are JSON"),
            }
        });
        let operators = self
            .operators
            .iter()
            .map(|operator| OperatorPart { operator: operator.clone(), parts: parts(operator) })
            .collect();
        let manifest = Manifest {
            epoch,
            last,
            created_us: cut.cut_us,
            sources: sources.collect(),
            operators,
            ..self.template.clone()
        };
        (manifest, costs)
    }
}

/// What a checkpoint says of a sink.
pub(super) struct SinkState<'a> {
    pub operator: &'a str,
    pub watermark_us: i64,
    pub staged: Vec<Committable>,
}

/// By sink of the plan; a sink that the checkpoint does not know has none.
pub(super) fn parts_of<'a>(
    plan: &'a Plan,
    manifest: &'a Manifest,
) -> impl Iterator<Item = Option<Result<SinkState<'a>>>> {
    plan.sinks().map(|(_, stage)| {
        let part = manifest.sinks.iter().find(|part| part.operator == stage.operator)?;
        let staged = serde_json::from_value(part.committables.clone())
            .map_err(|error| RunError::internal(format!("the committables of the checkpoint cannot be read: {error}")));
        Some(staged.map(|staged| SinkState { operator: &stage.operator, watermark_us: part.watermark_us, staged }))
    })
}
