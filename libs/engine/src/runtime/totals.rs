//! Rows as of an epoch: what every stage has taken in, put out and left out up to its end, in this attempt and those before.
//!
//! Each worker counts by epoch ([`super::worker_state::WorkerState::count`]) and says its counts of an epoch once that is complete. So the
//! counts of a checkpoint are exactly those of its rows, and whoever goes on from it goes on counting.

use std::collections::BTreeMap;

use serde_json::Value;
use state::Manifest;

use super::metrics::{RowCounts, SubtaskCounts};
use crate::plan::Plan;

pub struct Totals {
    /// By stage, as of the checkpoint that the attempt goes on from.
    before: Vec<RowCounts>,
    /// By stage, the epochs of the attempt up to the checkpoint that was made last.
    complete: Vec<RowCounts>,
    /// The same of each epoch after it, as far as workers have completed it.
    later: BTreeMap<u64, Vec<RowCounts>>,
    /// By worker, the last epoch that it has said to be complete.
    passed: Vec<u64>,
    kept: bool,
}

impl Totals {
    /// `kept` says whether there are checkpoints, whose counters these are.
    pub fn new(plan: &Plan, workers: usize, first_epoch: u64, checkpoint: Option<&Manifest>, kept: bool) -> Totals {
        let counters = checkpoint.map_or(&Value::Null, |checkpoint| &checkpoint.counters);
        // A stage that the checkpoint does not know begins to count.
        let before = |stage: &str| serde_json::from_value(counters[stage].clone()).unwrap_or_default();
        Totals {
            before: plan.stages.iter().map(|stage| before(&stage.operator)).collect(),
            complete: vec![RowCounts::default(); plan.stages.len()],
            later: BTreeMap::new(),
            passed: vec![first_epoch - 1; workers],
            kept,
        }
    }

    /// The rows of a stage as of the checkpoint that the attempt goes on from.
    pub fn before(&self, stage: usize) -> RowCounts {
        self.before[stage]
    }

    /// A worker has completed all epochs up to `epoch`, and counted so many rows in each. The epoch up to which all workers have, if that is
    /// news.
    pub fn passed(&mut self, worker: usize, epoch: u64, counts: Vec<(u64, Vec<RowCounts>)>) -> Option<u64> {
        for (epoch, stages) in counts.into_iter().filter(|_| self.kept) {
            let stages_of = self.later.entry(epoch).or_insert_with(|| vec![RowCounts::default(); self.complete.len()]);
            stages_of.iter_mut().zip(stages).for_each(|(total, more)| *total += more);
        }
        let slowest = |passed: &[u64]| passed.iter().copied().min().unwrap_or_default();
        let before = slowest(&self.passed);
        self.passed[worker] = epoch;
        let now = slowest(&self.passed);
        (now > before).then_some(now)
    }

    /// The counters of a checkpoint, by stage. All workers have completed its epoch; `committed` is by stage of a sink the rows that the attempt
    /// has committed with it: that is what a sink has put out.
    pub fn counters(&mut self, epoch: u64, plan: &Plan, committed: &BTreeMap<usize, u64>) -> Value {
        assert!(
            self.passed.iter().all(|passed| *passed >= epoch),
            "an epoch is counted when every worker has completed it"
        );
        while let Some(entry) = self.later.first_entry().filter(|entry| *entry.key() <= epoch) {
            self.complete.iter_mut().zip(entry.remove()).for_each(|(total, more)| *total += more);
        }
        let totals = plan.stages.iter().enumerate().map(|(stage, of)| {
            let mut total = self.before[stage];
            total += self.complete[stage];
            total.rows_out += committed.get(&stage).copied().unwrap_or_default();
            (of.operator.clone(), serde_json::to_value(total).expect("numbers are JSON"))
        });
        Value::Object(totals.collect())
    }

    /// Adds what was counted before the attempt. No worker of this one did it: the first shows it.
    pub fn show(&self, subtasks: &mut [Vec<SubtaskCounts>]) {
        for (workers, before) in subtasks.iter_mut().zip(&self.before) {
            if let Some(first) = workers.first_mut() {
                first.add(before);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows_in: u64) -> Vec<RowCounts> {
        vec![RowCounts { rows_in, ..RowCounts::default() }]
    }

    #[test]
    fn an_epoch_is_complete_when_the_slowest_worker_says_so_and_counts_rows_of_its_own_only() {
        let mut totals =
            Totals { before: rows(100), complete: rows(0), later: BTreeMap::new(), passed: vec![4, 4], kept: true };
        assert_eq!(totals.passed(0, 6, vec![(5, rows(1)), (6, rows(10))]), None);
        assert_eq!(totals.passed(1, 5, vec![(5, rows(2))]), Some(5));
        let plan = Plan { stages: vec![], bounded: true };
        assert_eq!(totals.counters(5, &plan, &BTreeMap::new()), Value::Object(Default::default()));
        assert_eq!(totals.complete, rows(3), "the rows of epoch 6 are not in it");
        assert_eq!(totals.passed(1, u64::MAX, vec![(6, rows(20))]), Some(6));
        assert_eq!(totals.passed(0, u64::MAX, vec![]), Some(u64::MAX));
        totals.counters(6, &plan, &BTreeMap::new());
        assert_eq!(totals.complete, rows(33));
        let mut subtasks = vec![vec![SubtaskCounts::default(); 2]];
        totals.show(&mut subtasks);
        assert_eq!((subtasks[0][0].rows_in, subtasks[0][1].rows_in), (100, 0));
    }
}
