//! What a look at an attempt means for its run.

use crate::attempt::{End, Failure, Phase, StopMode};
use crate::run::RunState;

/// What was seen of the process of an attempt.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// It answers.
    Answer(Phase),
    /// It has left its outcome.
    Outcome(End),
    /// It is gone without a word; with how it ended, where that is known.
    Gone(String),
}

/// A move that a run must make.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub to: RunState,
    pub cause: Option<String>,
    pub failure: Option<Failure>,
}

/// Where a run in `state`, asked to stop in some way or not, goes when this is seen of its attempt. `None`: it stays.
pub fn follow(state: RunState, asked: Option<StopMode>, seen: &Seen) -> Option<Step> {
    let plain = |to: RunState| Step { to, cause: None, failure: None };
    let step = match seen {
        Seen::Answer(Phase::Starting) => return None,
        Seen::Answer(Phase::Running) if matches!(state, RunState::Starting | RunState::Restarting) => {
            plain(RunState::Running)
        }
        Seen::Answer(_) => return None,
        Seen::Outcome(End::Finished) => plain(RunState::Finished),
        Seen::Outcome(End::Stopped) => plain(RunState::Stopped),
        Seen::Outcome(End::Cancelled) => plain(RunState::Cancelled),
        Seen::Outcome(End::Failed(failure)) => failed(failure.clone()),
        // Killed because it did not stop by itself.
        Seen::Gone(_) if asked == Some(StopMode::Now) => plain(RunState::Cancelled),
        Seen::Gone(how) => failed(Failure {
            code: "process_lost".into(),
            message: format!("the process of the run {how}"),
            hint: Some(
                "the logs of the run may say more; a process that is killed without a word often had too little memory"
                    .into(),
            ),
            operator: None,
            fault: "external".into(),
            retryable: true,
        }),
    };
    state.may_become(step.to).then_some(step)
}

fn failed(failure: Failure) -> Step {
    Step { to: RunState::Failed, cause: Some(format!("{}: {}", failure.code, failure.message)), failure: Some(failure) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_look_leads_along_an_arrow_or_nowhere() {
        let failure = Failure {
            code: "x".into(),
            message: "y".into(),
            hint: None,
            operator: None,
            fault: "user".into(),
            retryable: false,
        };
        let looks = [
            Seen::Answer(Phase::Starting),
            Seen::Answer(Phase::Running),
            Seen::Answer(Phase::Stopping),
            Seen::Outcome(End::Finished),
            Seen::Outcome(End::Stopped),
            Seen::Outcome(End::Cancelled),
            Seen::Outcome(End::Failed(failure)),
            Seen::Gone("was killed".into()),
        ];
        for state in RunState::ALL {
            for asked in [None, Some(StopMode::Now), Some(StopMode::Drain), Some(StopMode::Savepoint)] {
                for seen in &looks {
                    let step = follow(state, asked, seen);
                    assert!(step.as_ref().is_none_or(|step| state.may_become(step.to)), "{state} {seen:?}");
                    let ends = !matches!(seen, Seen::Answer(_));
                    let placed = state.is_active() && state != RunState::Pending;
                    // An attempt that has ended ends its run, whatever was asked.
                    assert!(!(ends && placed) || step.is_some_and(|step| !step.to.is_active()), "{state} {seen:?}");
                }
            }
        }
    }

    #[test]
    fn a_lost_process_is_a_failure_unless_it_was_to_end_anyway() {
        let gone = Seen::Gone("was killed".into());
        let to = |asked| follow(RunState::Stopping, asked, &gone).map(|step| step.to);
        assert_eq!(to(Some(StopMode::Now)), Some(RunState::Cancelled));
        assert_eq!(to(Some(StopMode::Drain)), Some(RunState::Failed));
        assert_eq!(to(None), Some(RunState::Failed));
        let step = follow(RunState::Running, None, &gone).expect("it ends");
        assert_eq!(step.failure.expect("a cause").code, "process_lost");
    }
}
