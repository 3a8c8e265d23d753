//! What the engine knows of a run, in the words of the control plane. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use control::attempt::{
    DeadLetter, End, Failure, LedgerRow, OperatorStatus, Outcome, Phase, SplitStatus, Status, SubtaskStatus,
};
use engine::runtime::{DeadRecord, LateRow, Progress, SplitProgress, StageFacts, SubtaskCounts, WM_MIN};
use engine::{Fault, Position, RunError};

/// What all processes of the attempt use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub resident_bytes: u64,
    pub cpu_us: u64,
}

/// By view, the rows that its retention has removed.
pub type Removed = BTreeMap<String, u64>;

/// `threads` per process. Without the ledgers, which may be megabytes.
pub fn status(progress: &Progress, threads: u32, stopping: bool, removed_rows: Removed, usage: Usage) -> Status {
    let phase = match (stopping, progress.running) {
        (true, _) => Phase::Stopping,
        (false, true) => Phase::Running,
        (false, false) => Phase::Starting,
    };
    Status {
        phase,
        waiting_for: progress.waiting_for.clone(),
        epoch: progress.complete,
        committed: progress.committed,
        expected_rows: progress.expected_rows,
        operators: operators(progress, threads),
        splits: progress.splits.iter().map(split).collect(),
        start_positions: progress.start.as_ref().clone(),
        removed_rows,
        late_rows: Vec::new(),
        dead_letters: Vec::new(),
        resident_bytes: usage.resident_bytes,
        cpu_us: usage.cpu_us,
    }
}

/// With late rows and dead letters.
pub fn with_ledgers(status: Status, progress: &Progress) -> Status {
    Status {
        late_rows: progress.late.iter().map(late_row).collect(),
        dead_letters: progress.dead.iter().map(dead_letter).collect(),
        ..status
    }
}

pub fn outcome(end: End, progress: &Progress, threads: u32, removed_rows: Removed) -> Outcome {
    let last = with_ledgers(status(progress, threads, true, removed_rows, Usage::default()), progress);
    Outcome {
        end,
        epoch: last.epoch,
        committed: last.committed,
        operators: last.operators,
        splits: last.splits,
        start_positions: last.start_positions,
        removed_rows: last.removed_rows,
        late_rows: last.late_rows,
        dead_letters: last.dead_letters,
    }
}

pub fn failure(error: &RunError) -> Failure {
    let fault = match error.fault {
        Fault::User => "user",
        Fault::External => "external",
        Fault::Internal => "internal",
    };
    let code = if error.fault == Fault::Internal { "internal_error" } else { &error.code };
    Failure {
        code: code.into(),
        message: error.message.clone(),
        hint: error.hint.clone(),
        operator: error.operator.clone(),
        fault: fault.into(),
        retryable: error.is_retryable(),
    }
}

fn operators(progress: &Progress, threads: u32) -> Vec<OperatorStatus> {
    let none: &[SubtaskCounts] = &[];
    let of = |(position, stage): (usize, &StageFacts)| {
        let counted = progress.subtasks.get(position).map_or(none, |subtasks| subtasks);
        let subtasks = (0u32..).zip(counted).map(|(worker, counts)| subtask(worker, threads, counts));
        OperatorStatus {
            operator: stage.operator.clone(),
            kind: stage.kind.into(),
            inputs: stage.inputs.clone(),
            subtasks: subtasks.collect(),
        }
    };
    progress.stages.iter().enumerate().map(of).collect()
}

fn subtask(worker: u32, threads: u32, counts: &SubtaskCounts) -> SubtaskStatus {
    SubtaskStatus {
        process: worker / threads.max(1),
        worker,
        rows_in: counts.rows_in,
        rows_out: counts.rows_out,
        late: counts.late,
        filtered: counts.filtered,
        dropped: counts.dropped,
        dead: counts.dead,
        busy_us: counts.busy_us,
        backpressured_us: counts.backpressured_us,
        idle_us: counts.idle_us,
        watermark_us: watermark(counts.watermark),
        state_bytes: counts.state_bytes,
    }
}

fn split(split: &SplitProgress) -> SplitStatus {
    let position = match &split.state.position {
        Some(Position::At(position)) => Some(position.clone()),
        Some(Position::End) | None => None,
    };
    SplitStatus {
        operator: split.operator.to_string(),
        table: split.table.to_string(),
        split: split.split.to_string(),
        position,
        watermark_us: watermark(split.state.watermark),
        idle: split.state.idle,
        finished: split.state.ended(),
        lag_records: split.state.lag,
    }
}

fn late_row(late: &LateRow) -> LedgerRow {
    LedgerRow {
        operator: late.operator.clone(),
        event_time_us: late.event_time_us,
        watermark_us: late.watermark_us,
        epoch: late.epoch,
        row: late.row.clone(),
    }
}

fn dead_letter(dead: &DeadRecord) -> DeadLetter {
    DeadLetter {
        source: dead.source.clone(),
        split: dead.split.clone(),
        position: dead.position.map(|position| position.to_string()),
        code: dead.code.clone(),
        message: dead.message.clone(),
        payload: text(&dead.payload),
    }
}

/// As it is, where it is UTF-8 but for a character that was cut at the end.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) if error.error_len().is_none() => String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into(),
        Err(_) => format!("base64:{}", STANDARD.encode(bytes)),
    }
}

fn watermark(us: i64) -> Option<i64> {
    (us != WM_MIN).then_some(us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_shown_in_base64() {
        assert_eq!(text("fünf".as_bytes()), "fünf");
        assert_eq!(text(&"fünfü".as_bytes()[..6]), "fünf");
        assert_eq!(text(b"a\xff\xfeb"), "base64:Yf/+Yg==");
    }
}
