//! Points of the program at which a test makes it fail, and switches that break it on purpose.
//!
//! Steps of the epoch protocol have *points* before and behind them: `faults::reach("decide.before").await?`. The environment says what
//! happens at which: `HIGHWATER_FAULTS="decide.before=kill@1; manifest.after=lost_reply@2; snapshot.mid=delay:500@1"`, a point, an
//! [action](Action) and at which occurrence, from 1, counted in each process. With `HIGHWATER_FAULTS_DIR` each of these happens once,
//! however many processes come by: who creates its file there first, which then holds the number of the process.
//!
//! `HIGHWATER_BROKEN="skip_fsync,reuse_epoch"` turns guards off, one name each ([`broken`]): a build that is wrong on purpose, to see that
//! the tests notice.
//!
//! Nothing of this is in what is released: without the feature `on`, which only the integration tests ask for, and in every profile without
//! debug assertions, calls are empty and the environment is not read.

use std::fmt;

/// A step that a test made fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Where.
    pub point: &'static str,
    /// The step was done, and its reply is lost; else it was not done.
    pub lost: bool,
}

impl fmt::Display for Injected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.lost { "the reply was lost" } else { "it failed" };
        write!(out, "{what} at {}, as a test wants it", self.point)
    }
}

impl std::error::Error for Injected {}

impl From<Injected> for std::io::Error {
    fn from(injected: Injected) -> std::io::Error {
        std::io::Error::other(injected)
    }
}

#[cfg(all(feature = "on", debug_assertions))]
mod plan;

#[cfg(all(feature = "on", debug_assertions))]
pub use on::*;

#[cfg(all(feature = "on", debug_assertions))]
mod on {
    use super::Injected;
    use crate::plan::{Action, Delay, PLAN, end};

    /// Does what the environment says of this point; blocks for a delay.
    ///
    /// # Errors
    /// The caller is to behave as if its step had failed, or its reply had been lost.
    pub fn hit(point: &'static str) -> Result<(), Injected> {
        match PLAN.meet(point) {
            None => Ok(()),
            Some(Action::Delay(duration)) => {
                std::thread::sleep(duration);
                Ok(())
            }
            Some(other) => end(point, &other),
        }
    }

    /// The same in a task, which waits without blocking others.
    ///
    /// # Errors
    /// As of [`hit`].
    pub async fn reach(point: &'static str) -> Result<(), Injected> {
        match PLAN.meet(point) {
            None => Ok(()),
            Some(Action::Delay(duration)) => {
                Delay::new(duration).await;
                Ok(())
            }
            Some(other) => end(point, &other),
        }
    }

    /// The same where nothing can fail: the process can be killed, stopped or late here.
    pub fn pass(point: &'static str) {
        hit(point).unwrap_or_else(|injected| panic!("nothing can fail at {}", injected.point));
    }

    /// Whether the program is to do without something that it needs to be right.
    pub fn broken(what: &str) -> bool {
        PLAN.is_broken(what)
    }
}

#[cfg(not(all(feature = "on", debug_assertions)))]
pub use off::*;

#[cfg(not(all(feature = "on", debug_assertions)))]
mod off {
    use super::Injected;

    /// A point at which a test can make a step fail; here none does.
    ///
    /// # Errors
    /// None.
    #[inline(always)]
    pub fn hit(_: &'static str) -> Result<(), Injected> {
        Ok(())
    }

    /// The same in a task.
    ///
    /// # Errors
    /// None.
    #[inline(always)]
    pub fn reach(_: &'static str) -> std::future::Ready<Result<(), Injected>> {
        std::future::ready(Ok(()))
    }

    /// The same where nothing can fail.
    #[inline(always)]
    pub fn pass(_: &'static str) {}

    /// Whether a guard is off; here none is.
    #[inline(always)]
    pub fn broken(_: &str) -> bool {
        false
    }
}
