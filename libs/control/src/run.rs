//! The life of a run.
//!
//! ```text
//!            +-----------------------+
//!            v                       |
//! pending -> starting -> running -> restarting
//!     \          |          |         ^   |
//!      \         +----------+-> stopping -+-> finished | stopped | cancelled | failed
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

/// Where a run stands. States move only along [`RunState::may_become`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Accepted, not placed.
    Pending,
    Starting,
    Running,
    Restarting,
    /// Asked to end.
    Stopping,
    /// Bounded or drained: the last epoch is committed in every sink.
    Finished,
    /// Ended so that it can go on.
    Stopped,
    Cancelled,
    Failed,
}

impl RunState {
    pub const ALL: [RunState; 9] = [
        RunState::Pending,
        RunState::Starting,
        RunState::Running,
        RunState::Restarting,
        RunState::Stopping,
        RunState::Finished,
        RunState::Stopped,
        RunState::Cancelled,
        RunState::Failed,
    ];

    /// Whether the state can still change.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            RunState::Pending | RunState::Starting | RunState::Running | RunState::Restarting | RunState::Stopping
        )
    }

    /// Whether there is an arrow from here to `next`. A bounded run may end before anyone saw it run.
    pub fn may_become(self, next: RunState) -> bool {
        use RunState::*;
        match self {
            Pending => matches!(next, Starting | Stopping | Cancelled | Failed),
            Starting => matches!(next, Running | Restarting | Stopping | Finished | Stopped | Cancelled | Failed),
            Running => matches!(next, Restarting | Stopping | Finished | Stopped | Cancelled | Failed),
            Restarting => matches!(next, Starting | Running | Stopping | Finished | Stopped | Cancelled | Failed),
            // An attempt that is lost while it drains is followed by another, which drains.
            Stopping => matches!(next, Restarting | Finished | Stopped | Cancelled | Failed),
            Finished | Stopped | Cancelled | Failed => false,
        }
    }

    /// The states from which there is an arrow to this one.
    pub fn sources(self) -> Vec<RunState> {
        RunState::ALL.into_iter().filter(|from| from.may_become(self)).collect()
    }

    pub fn name(self) -> &'static str {
        match self {
            RunState::Pending => "pending",
            RunState::Starting => "starting",
            RunState::Running => "running",
            RunState::Restarting => "restarting",
            RunState::Stopping => "stopping",
            RunState::Finished => "finished",
            RunState::Stopped => "stopped",
            RunState::Cancelled => "cancelled",
            RunState::Failed => "failed",
        }
    }

    pub fn from_name(name: &str) -> Option<RunState> {
        RunState::ALL.into_iter().find(|state| state.name() == name)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_stays_ended_and_all_else_can_end() {
        for state in RunState::ALL {
            let next: Vec<RunState> = RunState::ALL.into_iter().filter(|next| state.may_become(*next)).collect();
            assert_eq!(next.is_empty(), !state.is_active(), "{state}");
            assert_eq!(state.may_become(RunState::Failed), state.is_active(), "{state}");
            assert_eq!(RunState::from_name(state.name()), Some(state));
            assert_eq!(serde_json::to_value(state).ok(), Some(state.name().into()));
        }
    }
}
