//! The last hour of a run in figures, in memory: a sample per second for five minutes, one per ten seconds before that.

use std::collections::VecDeque;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use control::attempt::{OperatorCost, OperatorStatus, Phase, Status, SubtaskStatus};

use super::CheckpointFigures;

const FINE: usize = 300;
const COARSE: usize = 330;
const COARSE_SECONDS: i64 = 10;
/// Rates are taken over about this long.
const RATE_SPAN_MS: i64 = 5_000;

/// Figures of the whole run, and of each stage.
pub const RUN_FIGURES: &[(&str, &str)] = &[
    ("rows_in_per_second", "rows/s"),
    ("rows_out_per_second", "rows/s"),
    ("watermark_lag_ms", "ms"),
    ("lag_records", "records"),
    ("late_rows", "rows"),
    ("dead_letters", "records"),
    ("state_bytes", "bytes"),
    ("resident_bytes", "bytes"),
    ("cpu_ratio", "cores"),
    ("epoch", "epochs"),
    ("committed_epoch", "epochs"),
    ("decided_checkpoint", "epochs"),
    ("committed_checkpoint", "epochs"),
    ("checkpoint_duration_ms", "ms"),
    ("checkpoint_bytes", "bytes"),
    ("attempts", "attempts"),
    ("recovery_ms", "ms"),
];
pub const STAGE_FIGURES: &[(&str, &str)] = &[
    ("operator_rows_in_per_second", "rows/s"),
    ("operator_rows_out_per_second", "rows/s"),
    ("operator_busy_ratio", "ratio"),
    ("operator_backpressured_ratio", "ratio"),
    ("operator_watermark_lag_ms", "ms"),
    ("operator_state_bytes", "bytes"),
    ("operator_checkpoint_bytes", "bytes"),
    ("operator_alignment_ms", "ms"),
    ("operator_pause_ms", "ms"),
];

/// The figures at one time; NaN where there was none.
pub struct Sample {
    pub at: DateTime<Utc>,
    pub run: Vec<f32>,
    /// Stage by stage, [`STAGE_FIGURES`] each.
    pub stages: Vec<f32>,
}

#[derive(Default)]
pub struct History {
    /// The newest statuses, for rates.
    recent: VecDeque<(DateTime<Utc>, Arc<Status>)>,
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
}

/// Sums over stages of a kind.
pub fn sum(status: &Status, kind: &str, of: impl Fn(&SubtaskStatus) -> u64) -> u64 {
    let stages = status.operators.iter().filter(|operator| operator.kind == kind);
    stages.flat_map(|operator| &operator.subtasks).map(of).sum()
}

/// The smallest watermark over the subtasks; `None` before all have one.
pub fn watermark(operator: &OperatorStatus) -> Option<i64> {
    let marks: Option<Vec<i64>> = operator.subtasks.iter().map(|subtask| subtask.watermark_us).collect();
    marks?.into_iter().min()
}

/// The smallest watermark over the sinks: results are complete up to here.
pub fn results_watermark(status: &Status) -> Option<i64> {
    let sinks = status.operators.iter().filter(|operator| operator.kind == "sink");
    let marks: Option<Vec<i64>> = sinks.map(watermark).collect();
    marks?.into_iter().min()
}

impl History {
    /// The status that rates are taken against, and the seconds since then.
    pub fn before(&self, now: DateTime<Utc>) -> Option<(Arc<Status>, f64)> {
        // An attempt that begins has not yet said what those before it have counted.
        let (at, status) = self.recent.iter().find(|(_, status)| status.phase != Phase::Starting)?;
        let seconds = (now - *at).num_milliseconds() as f64 / 1000.0;
        (seconds >= 0.2).then(|| (status.clone(), seconds))
    }

    /// Takes a sample, one per second at most; statuses come more often.
    pub fn record(&mut self, at: DateTime<Utc>, status: &Arc<Status>, checkpoints: &CheckpointFigures) {
        let due = self.fine.back().is_none_or(|last| (at - last.at).num_milliseconds() >= 950);
        if due {
            let sample = self.sample(at, status, checkpoints);
            if self.coarse.back().is_none_or(|last| (at - last.at).num_seconds() >= COARSE_SECONDS) {
                let (run, stages) = (sample.run.clone(), sample.stages.clone());
                push(&mut self.coarse, Sample { at, run, stages }, COARSE);
            }
            push(&mut self.fine, sample, FINE);
        }
        self.recent.push_back((at, status.clone()));
        while self.recent.len() > 2 && (at - self.recent[1].0).num_milliseconds() >= RATE_SPAN_MS {
            self.recent.pop_front();
        }
    }

    fn sample(&self, at: DateTime<Utc>, status: &Status, checkpoints: &CheckpointFigures) -> Sample {
        let before = self.before(at);
        let rate = |kind: &str, of: fn(&SubtaskStatus) -> u64| match &before {
            Some((earlier, seconds)) => {
                (sum(status, kind, of).saturating_sub(sum(earlier, kind, of)) as f64 / seconds) as f32
            }
            None => f32::NAN,
        };
        let lag = |mark: Option<i64>| match mark {
            Some(mark) if mark != i64::MAX => (at.timestamp_micros().saturating_sub(mark) / 1000) as f32,
            _ => f32::NAN,
        };
        let lag_records: Option<u64> = match status.splits.iter().any(|split| split.lag_records.is_some()) {
            true => Some(status.splits.iter().filter_map(|split| split.lag_records).sum()),
            false => None,
        };
        let all = |of: fn(&SubtaskStatus) -> u64| -> u64 {
            status.operators.iter().flat_map(|operator| &operator.subtasks).map(of).sum()
        };
        let cpu = before.as_ref().map_or(f32::NAN, |(earlier, seconds)| {
            (status.cpu_us.saturating_sub(earlier.cpu_us) as f64 / 1e6 / seconds) as f32
        });
        let of_newest = |figure: f32| if checkpoints.count > 0 { figure } else { f32::NAN };
        let run = vec![
            rate("source", |subtask| subtask.rows_out),
            rate("sink", |subtask| subtask.rows_out),
            lag(results_watermark(status)),
            lag_records.map_or(f32::NAN, |records| records as f32),
            all(|subtask| subtask.late) as f32,
            all(|subtask| subtask.dead) as f32,
            all(|subtask| subtask.state_bytes) as f32,
            status.resident_bytes as f32,
            cpu,
            status.epoch as f32,
            status.committed as f32,
            of_newest(checkpoints.decided as f32),
            of_newest(checkpoints.committed as f32),
            of_newest(checkpoints.duration_us as f32 / 1e3),
            of_newest(checkpoints.newest_bytes as f32),
            checkpoints.attempt as f32,
            checkpoints.recovery_us.map_or(f32::NAN, |us| us as f32 / 1e3),
        ];
        let stage = |(index, operator): (usize, &OperatorStatus)| {
            let of = |from: &OperatorStatus, of: fn(&SubtaskStatus) -> u64| from.subtasks.iter().map(of).sum::<u64>();
            let change = |figure: fn(&SubtaskStatus) -> u64| {
                let (earlier, seconds) = before.as_ref()?;
                let earlier = earlier.operators.get(index).map_or(0, |operator| of(operator, figure));
                Some((of(operator, figure).saturating_sub(earlier)) as f64 / seconds)
            };
            let per = 1e6 * operator.subtasks.len().max(1) as f64;
            let cost = checkpoints.operators.iter().find(|cost| cost.operator == operator.operator);
            let cost = |of: fn(&OperatorCost) -> u64| cost.map(|cost| of(cost) as f64);
            let number = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
            [
                number(change(|subtask| subtask.rows_in)),
                number(change(|subtask| subtask.rows_out)),
                number(change(|subtask| subtask.busy_us).map(|us| us / per)),
                number(change(|subtask| subtask.backpressured_us).map(|us| us / per)),
                lag(watermark(operator)),
                of(operator, |subtask| subtask.state_bytes) as f32,
                number(cost(|cost| cost.bytes)),
                number(cost(|cost| cost.alignment_us).map(|us| us / 1e3)),
                number(cost(|cost| cost.pause_us).map(|us| us / 1e3)),
            ]
        };
        Sample { at, run, stages: status.operators.iter().enumerate().flat_map(stage).collect() }
    }

    /// Samples of the last `window`, oldest first; the fine ones where there are some.
    pub fn samples(&self, now: DateTime<Utc>, window: TimeDelta) -> Vec<&Sample> {
        let from = now - window;
        let fine_from = self.fine.front().map_or(now, |sample| sample.at);
        let coarse = self.coarse.iter().filter(|sample| sample.at >= from && sample.at < fine_from);
        coarse.chain(self.fine.iter().filter(|sample| sample.at >= from)).collect()
    }
}

fn push(ring: &mut VecDeque<Sample>, sample: Sample, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(sample);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(rows: u64) -> Arc<Status> {
        let stage = |kind: &str| OperatorStatus {
            operator: kind.into(),
            kind: kind.into(),
            inputs: Vec::new(),
            subtasks: vec![SubtaskStatus {
                rows_in: rows,
                rows_out: rows,
                busy_us: rows * 1000,
                watermark_us: Some(1_000_000 * rows as i64),
                ..SubtaskStatus::default()
            }],
        };
        Arc::new(Status { phase: Phase::Running, operators: vec![stage("source"), stage("sink")], ..Status::default() })
    }

    #[test]
    fn rates_follow_from_the_last_seconds_and_old_samples_grow_coarse() {
        let start = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let mut history = History::default();
        for second in 0..1000 {
            history.record(
                start + TimeDelta::seconds(second),
                &status(100 * second as u64),
                &CheckpointFigures::default(),
            );
        }
        let now = start + TimeDelta::seconds(999);
        let samples = history.samples(now, TimeDelta::seconds(10_000));
        assert_eq!(samples.len(), 70 + FINE, "700 seconds in tens, then 300");
        assert!(samples.windows(2).all(|pair| pair[0].at < pair[1].at));
        let last = samples.last().expect("some");
        assert_eq!(last.run[0], 100.0);
        assert!((last.stages[2] - 0.1).abs() < 1e-6, "100 rows of 1 ms per second: {}", last.stages[2]);
        assert!(samples[0].run[0].is_nan(), "the first has nothing before it");
        assert_eq!(history.samples(now, TimeDelta::seconds(9)).len(), 10);
    }
}
