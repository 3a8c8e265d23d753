//! The rows that a run has published, as its progress shows them.

use std::collections::BTreeMap;

use super::leader::SinkCommit;
use super::progress::Progress;
use super::totals::Totals;
use crate::plan::Plan;
use crate::sink::CommitKind;

/// The rows that a sink has published.
struct PublishedRows {
    /// Its position among the stages.
    stage: usize,
    /// Those of attempts before.
    before: u64,
    /// By worker, of all commits that were ordered, and of those that count.
    ordered: Vec<u64>,
    counted: Vec<u64>,
}

/// What can be seen of the run's output: whole epochs, of a bounded run all of them at its end.
pub(super) struct Published {
    bounded: bool,
    sinks: Vec<PublishedRows>,
    /// The commit of the last epoch was ordered: there is no way back.
    pub(super) decided: bool,
    /// The last epoch that counts.
    pub(super) epoch: u64,
}

impl Published {
    pub(super) fn new(plan: &Plan, workers: usize, totals: &Totals) -> Published {
        Published {
            bounded: plan.bounded,
            sinks: plan
                .sinks()
                .map(|(stage, _)| PublishedRows {
                    stage,
                    before: totals.before(stage).rows_out,
                    ordered: vec![0; workers],
                    counted: vec![0; workers],
                })
                .collect(),
            decided: false,
            epoch: 0,
        }
    }

    pub(super) fn ordered(&mut self, kind: CommitKind, sinks: &BTreeMap<usize, SinkCommit>) {
        self.decided |= kind.last;
        for (sink, commit) in sinks {
            for (rows, committable) in self.sinks[*sink].ordered.iter_mut().zip(&commit.committables) {
                *rows += committable.rows;
            }
        }
    }

    /// By stage of a sink, the rows whose commit was ordered.
    pub(super) fn ordered_rows(&self) -> BTreeMap<usize, u64> {
        self.sinks.iter().map(|sink| (sink.stage, sink.ordered.iter().sum())).collect()
    }

    /// The commit that was ordered last has been done.
    pub(super) fn committed(&mut self, epoch: u64) {
        if self.decided || !self.bounded {
            self.epoch = epoch;
            self.sinks.iter_mut().for_each(|sink| sink.counted.clone_from(&sink.ordered));
        }
    }

    pub(super) fn show(&self, progress: &mut Progress) {
        progress.committed = self.epoch;
        for sink in &self.sinks {
            for (counts, rows) in progress.subtasks[sink.stage].iter_mut().zip(&sink.counted) {
                counts.rows_out = *rows;
            }
            if let Some(first) = progress.subtasks[sink.stage].first_mut() {
                first.rows_out += sink.before;
            }
            progress.counts[sink.stage].rows_out = sink.before + sink.counted.iter().sum::<u64>();
        }
    }
}
