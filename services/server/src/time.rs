//! The time of the clock as the store keeps it.

use chrono::{DateTime, SubsecRound, Utc};

/// Now, to the microsecond: what is answered at once and what is read back later is the same.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
