//! What a run did, in the end: for people, and for programs.

use std::time::Duration;

use engine::plan::{Plan, StageKind};
use engine::runtime::OperatorCounts;
use serde_json::{Map, Value, json};

use crate::output::visible;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Finished,
    /// An unbounded run, ended from outside after a committed epoch.
    Stopped,
    /// A bounded run, ended from outside; nothing was published.
    Cancelled,
    Failed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Finished => "finished",
            State::Stopped => "stopped",
            State::Cancelled => "cancelled",
            State::Failed => "failed",
        }
    }
}

/// Figures of a run. Rows are counted once per source that reads them and per sink that publishes them.
#[derive(Clone, Debug)]
pub struct Summary {
    pub state: State,
    /// Per table, in the order of the plan.
    pub sources: Vec<(String, u64)>,
    pub sinks: Vec<(String, u64)>,
    /// Rows that were late for all their windows, and for some.
    pub late: u64,
    pub partially_late: u64,
    pub dropped: u64,
    pub dead: u64,
    pub filtered: u64,
    /// The last committed epoch.
    pub epochs: u64,
    pub elapsed: Duration,
    /// User and system time of all processes of the run.
    pub cpu: Duration,
}

impl Summary {
    /// `counts` are in the order of the plan's stages; empty if the run never began.
    pub fn new(
        state: State,
        plan: &Plan,
        counts: &[OperatorCounts],
        epochs: u64,
        elapsed: Duration,
        cpu: Duration,
    ) -> Summary {
        let mut summary = Summary {
            state,
            sources: Vec::new(),
            sinks: Vec::new(),
            late: 0,
            partially_late: 0,
            dropped: 0,
            dead: 0,
            filtered: 0,
            epochs,
            elapsed,
            cpu,
        };
        let none = OperatorCounts::default();
        for (position, stage) in plan.stages.iter().enumerate() {
            let count = counts.get(position).unwrap_or(&none);
            match &stage.kind {
                StageKind::Source(source) => add(&mut summary.sources, &source.node.table, count.rows_in),
                StageKind::Sink(sink) => add(&mut summary.sinks, &sink.table, count.rows_out),
                _ => {}
            }
            summary.late += count.late;
            summary.partially_late += count.partially_late;
            summary.dropped += count.dropped;
            summary.dead += count.dead;
            summary.filtered += count.filtered;
        }
        summary
    }

    fn rows_in(&self) -> u64 {
        self.sources.iter().map(|(_, rows)| rows).sum()
    }

    fn rows_out(&self) -> u64 {
        self.sinks.iter().map(|(_, rows)| rows).sum()
    }

    /// A few lines.
    pub fn text(&self) -> String {
        let tables = |tables: &[(String, u64)]| {
            let one = |(table, rows): &(String, u64)| format!("{} {}", visible(table), grouped(*rows));
            tables.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let seconds = self.elapsed.as_secs_f64();
        let rate = if seconds > 0.0 { self.rows_in() as f64 / seconds } else { 0.0 };
        let mut text = format!("rows in   {}\nrows out  {}\n", tables(&self.sources), tables(&self.sinks));
        let partly = if self.partially_late > 0 {
            format!(", partially late {}", grouped(self.partially_late))
        } else {
            String::new()
        };
        text.push_str(&format!(
            "late {}{partly}, dropped {}, dead letters {}\n",
            grouped(self.late),
            grouped(self.dropped),
            grouped(self.dead)
        ));
        text.push_str(&format!(
            "{} in {seconds:.3} s: {} rows/s, {:.3} CPU s, {} epoch{}\n",
            self.state.word(),
            grouped(rate as u64),
            self.cpu.as_secs_f64(),
            grouped(self.epochs),
            if self.epochs == 1 { "" } else { "s" }
        ));
        text
    }

    /// One line with one object.
    pub fn json(&self) -> String {
        let tables = |tables: &[(String, u64)]| {
            tables.iter().map(|(table, rows)| (table.clone(), Value::from(*rows))).collect::<Map<_, _>>()
        };
        let object = json!({
            "state": self.state.word(),
            "rows_in": self.rows_in(),
            "rows_out": self.rows_out(),
            "late": self.late,
            "partially_late": self.partially_late,
            "dropped": self.dropped,
            "dead": self.dead,
            "filtered": self.filtered,
            "epochs": self.epochs,
            "elapsed_ms": self.elapsed.as_millis() as u64,
            "cpu_ms": self.cpu.as_millis() as u64,
            "sources": tables(&self.sources),
            "sinks": tables(&self.sinks),
        });
        format!("{object}\n")
    }
}

fn add(tables: &mut Vec<(String, u64)>, table: &str, rows: u64) {
    match tables.iter_mut().find(|(known, _)| known == table) {
        Some((_, total)) => *total += rows,
        None => tables.push((table.to_string(), rows)),
    }
}

/// `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// User and system time of this process, and of its children that have ended and been waited for.
pub fn cpu_time() -> Duration {
    let of = |who| {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
        // SAFETY: getrusage writes a whole rusage to the address that it is given, if it returns 0.
        let usage = unsafe {
            if libc::getrusage(who, usage.as_mut_ptr()) != 0 {
                return Duration::ZERO;
            }
            usage.assume_init()
        };
        let time =
            |time: libc::timeval| Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64);
        time(usage.ru_utime) + time(usage.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn summary() -> Summary {
        Summary {
            state: State::Finished,
            sources: vec![("flights".into(), 508_239), ("airports".into(), 7)],
            sinks: vec![("worst".into(), 24)],
            late: 1,
            partially_late: 0,
            dropped: 1000,
            dead: 0,
            filtered: 12,
            epochs: 3,
            elapsed: Duration::from_micros(420_500),
            cpu: Duration::from_millis(510),
        }
    }

    #[test]
    fn a_summary_for_people() {
        expect![[r#"
            rows in   flights 508,239, airports 7
            rows out  worst 24
            late 1, dropped 1,000, dead letters 0
            finished in 0.420 s: 1,208,670 rows/s, 0.510 CPU s, 3 epochs
        "#]]
        .assert_eq(&summary().text());
        let text = Summary { partially_late: 2, epochs: 1, state: State::Stopped, ..summary() }.text();
        assert!(
            text.contains("late 1, partially late 2, dropped")
                && text.contains("stopped")
                && text.ends_with("1 epoch\n"),
            "{text}"
        );
    }

    #[test]
    fn a_summary_for_programs_is_one_line() {
        expect![[r#"
            {"state":"finished","rows_in":508246,"rows_out":24,"late":1,"partially_late":0,"dropped":1000,"dead":0,"filtered":12,"epochs":3,"elapsed_ms":420,"cpu_ms":510,"sources":{"flights":508239,"airports":7},"sinks":{"worst":24}}
        "#]]
        .assert_eq(&summary().json());
    }

    #[test]
    fn cpu_time_passes_while_there_is_work() {
        let before = cpu_time();
        let mut sum = 0u64;
        while cpu_time() - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0);
    }

    #[test]
    fn digits_are_grouped() {
        assert_eq!([0, 999, 1000, 12_345, 1_234_567].map(grouped), ["0", "999", "1,000", "12,345", "1,234,567"]);
    }
}
