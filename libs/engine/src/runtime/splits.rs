//! The splits of a run: listed once, and frozen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use state::Manifest;

use super::clock::SplitState;
use super::messages::{Assignment, SourceSplits};
use super::progress::Positions;
use super::time::WM_MIN;
use crate::error::{Result, RunError};
use crate::plan::{Plan, StageKind};
use crate::source::{Position, Source, Split, Waiting};

/// Lists the splits of all sources, once; with a checkpoint, they are the ones it names.
pub(super) async fn freeze(
    plan: &Plan,
    sources: &[Arc<dyn Source>],
    start: &Positions,
    checkpoint: Option<&Manifest>,
    waiting: &Waiting,
) -> Result<Assignment> {
    let sources_of_plan = || plan.stages.iter().filter(|stage| matches!(stage.kind, StageKind::Source(_)));
    let names: Vec<&str> = sources_of_plan().map(|stage| stage.operator.as_str()).collect();
    if let Some(operator) = start.keys().find(|operator| !names.contains(&operator.as_str())) {
        let message = format!("start positions are given for '{operator}', which is no source of the graph");
        return Err(RunError::user("unknown_split", message).hint(format!("its sources are: {}", names.join(", "))));
    }
    let mut assignment = Assignment::default();
    let mut next = 0;
    let stages = plan
        .stages
        .iter()
        .filter_map(|stage| if let StageKind::Source(source) = &stage.kind { Some((stage, source)) } else { None });
    for ((stage, source), opened) in stages.zip(sources) {
        let (operator, table) = (stage.operator.clone(), source.node.table.clone());
        let restored =
            checkpoint.and_then(|checkpoint| checkpoint.sources.iter().find(|source| source.operator == operator));
        let splits: Vec<_> = match restored {
            Some(restored) => serde_json::from_value(restored.splits.clone())
                .map_err(|error| RunError::internal(format!("the splits of the checkpoint cannot be read: {error}")))?,
            None => {
                let listed = opened.list(waiting).await.map_err(|error| error.operator(&operator))?;
                waiting.over();
                let is_nothing = |split: &str, position: &str| opened.is_nothing(split, position);
                let begun = begin_at(listed, start.get(&operator), &table, is_nothing);
                let mut begun = begun.map_err(|error| error.operator(&operator))?;
                for (split, state) in &mut begun {
                    // One that does not exist yet may be given its own beginning, as the start of an earlier run.
                    let from_start = match &state.position {
                        None => true,
                        Some(Position::At(position)) => opened.start(split).as_ref() == Some(position),
                        Some(Position::End) => false,
                    };
                    state.absent = from_start && !opened.exists(split);
                }
                begun
            }
        };
        let watermark = restored.map_or(WM_MIN, |restored| restored.watermark_us);
        let numbered: BTreeMap<u32, _> = (next..).zip(splits).collect();
        next += numbered.len() as u32;
        assignment.sources.push(SourceSplits { operator, table, splits: numbered, watermark });
    }
    Ok(assignment)
}

/// Splits that begin where `start` says, by id. An empty position is the split's own beginning, for which the split need not be there:
/// a placeholder or a file of an earlier run may be gone. So may one of which `is_nothing` says that nothing is to be read.
fn begin_at(
    splits: Vec<Split>,
    start: Option<&BTreeMap<String, String>>,
    table: &str,
    is_nothing: impl Fn(&str, &str) -> bool,
) -> Result<Vec<(Split, SplitState)>> {
    let Some(start) = start else {
        return Ok(splits.into_iter().map(|split| (split, SplitState::default())).collect());
    };
    let ids: BTreeSet<&str> = splits.iter().map(|split| split.id.as_str()).collect();
    let mut given = start.iter().filter(|(_, position)| !position.is_empty());
    if let Some((unknown, _)) = given.find(|(id, position)| !ids.contains(id.as_str()) && !is_nothing(id, position)) {
        let message = format!("a start position is given for split '{unknown}', which table {table} does not have");
        let mut known: Vec<&str> = splits.iter().take(NAMED_SPLITS).map(|split| split.id.as_str()).collect();
        if splits.len() > known.len() {
            known.push("...");
        }
        return Err(RunError::user("unknown_split", message).hint(format!("its splits are: {}", known.join(", "))));
    }
    let begun = splits.into_iter().map(|split| {
        let given = start.get(&split.id).filter(|position| !position.is_empty());
        let position = given.map(|position| Position::At(position.clone()));
        (split, SplitState { position, ..SplitState::default() })
    });
    Ok(begun.collect())
}

/// How many splits an error names.
const NAMED_SPLITS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positions_that_say_something_need_their_split() {
        let begin = |start: &[(&str, &str)]| {
            let start = start.iter().map(|(id, position)| (id.to_string(), position.to_string())).collect();
            let begun =
                begin_at(vec![Split::named("a"), Split::named("b")], Some(&start), "t", |_, position| position == "0")?;
            Ok::<_, RunError>(begun.into_iter().map(|(_, state)| state.position).collect::<Vec<_>>())
        };
        let at = |position: &str| Some(Position::At(position.into()));
        assert_eq!(begin(&[("a", "5"), ("b", ""), ("gone", ""), ("never", "0")]), Ok(vec![at("5"), None]));
        let refused = begin(&[("a", "5"), ("gone", "7")]).expect_err("it would be read from the beginning");
        assert_eq!((refused.code.as_str(), refused.hint.as_deref()), ("unknown_split", Some("its splits are: a, b")));
    }
}
