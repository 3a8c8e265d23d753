//! How far a run has come, for whoever shows it: put together a few times a second from what workers have counted and the leader knows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::clock::SplitState;
use super::messages::Assignment;
use super::metrics::{OperatorCounts, ProcessCounts, SubtaskCounts};
use super::tail::{DeadRecord, LateRow};
use super::time::WM_FINAL;
use crate::plan::{Plan, Stage, StageKind};
use crate::source::{Position, Source};

/// Positions of splits by operator and split id, in the connector's own words. Empty is the split's own beginning.
pub type Positions = BTreeMap<String, BTreeMap<String, String>>;

/// How far a run has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// All processes have met and work; else the run is starting.
    pub running: bool,
    /// What keeps the run from beginning, a source from reading, or a sink from opening or committing.
    pub waiting_for: Option<String>,
    /// The epoch that is open.
    pub epoch: u64,
    /// The newest epoch that is complete everywhere.
    pub complete: u64,
    /// The epoch that this attempt has published last; a bounded run publishes its last one only.
    pub committed: u64,
    /// By stage. Of sinks, `rows_out` are the rows that were published.
    pub counts: Vec<OperatorCounts>,
    /// By stage, then by worker over all processes. Of sinks, as in `counts`.
    pub subtasks: ProcessCounts,
    /// Rows that the sources expect to read, where they know.
    pub expected_rows: Option<u64>,
    /// The stages of the plan, once there is one.
    pub stages: Arc<[StageFacts]>,
    /// As of the newest complete epoch.
    pub splits: Arc<[SplitProgress]>,
    /// Where each split began, once the splits are frozen.
    pub start: Arc<Positions>,
    /// The newest ones, at most [`NEWEST`](super::tail::NEWEST) each, newest last.
    pub late: Arc<[LateRow]>,
    pub dead: Arc<[DeadRecord]>,
}

/// What a stage of the plan is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageFacts {
    /// The node of the graph that it serves.
    pub operator: String,
    /// What it does, in a word.
    pub kind: &'static str,
    /// Positions of the stages that it reads.
    pub inputs: Vec<usize>,
}

/// Where a split stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitProgress {
    pub operator: Arc<str>,
    pub table: Arc<str>,
    pub split: Arc<str>,
    pub state: SplitState,
}

/// The node of a graph that a stage serves, by the name of the stage: that is the node's, perhaps with more behind a dot.
pub fn node_of<'a>(graph: &graph::Graph, stage: &'a str) -> &'a str {
    node_among(&nodes(graph), stage)
}

fn nodes(graph: &graph::Graph) -> HashSet<&str> {
    graph.nodes.iter().map(|node| node.id.as_str()).collect()
}

fn node_among<'a>(nodes: &HashSet<&str>, stage: &'a str) -> &'a str {
    let mut name = stage;
    while !nodes.contains(name) {
        match name.rsplit_once('.') {
            Some((before, _)) => name = before,
            None => return stage,
        }
    }
    name
}

/// The stages of a plan, in its order.
pub fn stages(plan: &Plan, graph: &graph::Graph) -> Arc<[StageFacts]> {
    let nodes = nodes(graph);
    let fact = |stage: &Stage| {
        let mut inputs: Vec<usize> = stage.inputs.iter().map(|edge| edge.stage).collect();
        inputs.dedup();
        StageFacts { operator: node_among(&nodes, &stage.operator).to_string(), kind: kind(&stage.kind), inputs }
    };
    plan.stages.iter().map(fact).collect()
}

fn kind(kind: &StageKind) -> &'static str {
    match kind {
        StageKind::Source(_) => "source",
        StageKind::Steps(_) => "steps",
        StageKind::Union => "union",
        StageKind::WindowExpand(_) => "window_expand",
        StageKind::WindowAssign(_) => "window_assign",
        StageKind::WindowPartial(_) => "window_partial",
        StageKind::WindowAggregate(_) => "window_aggregate",
        StageKind::SessionAggregate(_) => "session_aggregate",
        StageKind::Partial(_) => "partial",
        StageKind::Aggregate(_) => "aggregate",
        StageKind::Sort(_) => "sort",
        StageKind::Sink(_) => "sink",
    }
}

/// Where each split begins, in the words in which positions are told; one that begins at its own beginning is left out where there is no
/// word for that. `sources` are in the order of the assignment.
pub fn start_positions(assignment: &Assignment, sources: &[Arc<dyn Source>]) -> Positions {
    let of = |(splits, source): (&super::messages::SourceSplits, &Arc<dyn Source>)| {
        let begin = splits.splits.values().filter_map(|(split, state)| {
            let begin = match &state.position {
                Some(Position::At(position)) => Some(position.clone()),
                Some(Position::End) => None,
                None => source.start(split),
            };
            Some((split.id.clone(), begin.filter(|begin| !begin.is_empty())?))
        });
        (splits.operator.clone(), begin.collect())
    };
    assignment.sources.iter().zip(sources).map(of).collect()
}

/// The splits of a run by number, as they begin.
pub fn begun(assignment: &Assignment) -> Vec<(u32, SplitProgress)> {
    let mut all = Vec::new();
    for source in &assignment.sources {
        let (operator, table): (Arc<str>, Arc<str>) = (source.operator.as_str().into(), source.table.as_str().into());
        all.extend(source.splits.iter().map(|(number, (split, state))| {
            let (operator, table, split) = (operator.clone(), table.clone(), split.id.as_str().into());
            (*number, SplitProgress { operator, table, split, state: state.clone() })
        }));
    }
    all
}

/// The splits of a run in their latest known states; those not heard of are as they began. Those that do not exist yet are left out.
pub fn splits(begun: &[(u32, SplitProgress)], known: &BTreeMap<u32, SplitState>) -> Arc<[SplitProgress]> {
    let now = |(number, begun): &(u32, SplitProgress)| {
        let state = known.get(number).unwrap_or(&begun.state);
        (!state.absent).then(|| SplitProgress {
            operator: begun.operator.clone(),
            table: begun.table.clone(),
            split: begun.split.clone(),
            state: state.clone(),
        })
    };
    begun.iter().filter_map(now).collect()
}

/// What all processes have counted, side by side: by stage, then by worker of the run. A process that was not heard of has zeros.
///
/// Stages without a driver of their own get what follows from their inputs on the same worker: a union its rows, and it and stateless
/// stages, which hand watermarks through, the watermark.
pub fn side_by_side(
    plan: &Plan,
    threads: usize,
    processes: usize,
    counted: &BTreeMap<usize, ProcessCounts>,
) -> ProcessCounts {
    let mut all: ProcessCounts = vec![vec![SubtaskCounts::default(); threads * processes]; plan.stages.len()];
    for (process, stages) in counted {
        for (stage, workers) in stages.iter().enumerate().take(all.len()) {
            for (worker, counts) in workers.iter().enumerate().take(threads) {
                all[stage][process * threads + worker] = *counts;
            }
        }
    }
    for (position, stage) in plan.stages.iter().enumerate() {
        let union = matches!(stage.kind, StageKind::Union);
        if !union && stage.kind.has_state() || stage.inputs.is_empty() {
            continue;
        }
        #[expect(clippy::needless_range_loop, reason = "a worker's place is the same in several stages")]
        for worker in 0..threads * processes {
            let before = stage.inputs.iter().map(|edge| (edge.side, all[edge.stage][worker]));
            let (rows, watermark) = before.fold((0, WM_FINAL), |(rows, watermark), (side, input)| {
                let more = if side { input.dead + input.late + input.partially_late } else { input.rows_out };
                (rows + more, watermark.min(input.watermark))
            });
            let counts = &mut all[position][worker];
            counts.watermark = watermark;
            if union {
                (counts.rows_in, counts.rows_out) = (rows, rows);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;
    use crate::runtime::messages::SourceSplits;

    #[test]
    fn splits_are_shown_once_they_exist() {
        let absent = SplitState { absent: true, ..SplitState::default() };
        let listed = [(0, (Split::named("t-0"), SplitState::default())), (1, (Split::named("t-1"), absent))];
        let source = SourceSplits {
            operator: "s".into(),
            table: "t".into(),
            splits: listed.into(),
            watermark: super::super::WM_MIN,
        };
        let begun = begun(&Assignment { sources: vec![source] });
        let shown = |known: &BTreeMap<u32, SplitState>| {
            splits(&begun, known).iter().map(|one| one.split.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shown(&BTreeMap::new()), ["t-0"]);
        assert_eq!(shown(&[(1, SplitState::default())].into()), ["t-0", "t-1"]);
    }
}
