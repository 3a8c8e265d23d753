//! Whether and when a run is tried again after its attempt failed. Pure: the clock is an argument.
//!
//! Tried again is what may go well without anyone's help: a failure that says so of itself (`retryable`; a lost process is one). The delay
//! doubles from 1 s to 60 s, and begins anew when an attempt has run for ten times as long as was waited before it. A failure that comes back at the same place is
//! not bad luck but a *poison record*: the same cause, with the same operator, split and position (where those are not known: the same
//! code and message), for the fifth time with no epoch decided in between, fails the run with that cause.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attempt::Failure;

/// When a run is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Before the first restart. Default: 1 s.
    pub first_us: i64,
    /// No delay is longer. Default: 60 s.
    pub longest_us: i64,
    /// An attempt that has decided an epoch, and run so many times as long as was waited before it, ends the series: the next delay is the
    /// first again. Default: 10, so that waiting takes a tenth of the time at most, however often something fails.
    pub stable_delays: i64,
    /// So many times the same failure, with no epoch decided in between, fail the run. Default: 5.
    pub poison_after: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { first_us: 1_000_000, longest_us: 60_000_000, stable_delays: 10, poison_after: 5 }
    }
}

impl Policy {
    /// The delay before try number `tries` (from 1 on): doubling, up to the longest. Also for a `Wait` of the epoch machines, with a
    /// policy of shorter times.
    pub fn delay_us(&self, tries: u32) -> i64 {
        let doublings = tries.saturating_sub(1).min(62);
        self.first_us.checked_mul(1 << doublings).unwrap_or(i64::MAX).min(self.longest_us)
    }
}

/// Where in the input something failed, where that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    pub operator: String,
    pub split: String,
    pub position: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Start a new attempt, `after_us` from now. `tries`: restarts in this series, this one included.
    Restart { after_us: i64, tries: u32 },
    /// The run has failed, for this cause.
    Fail(Failure),
}

/// The failures of a run so far. Stored with the run, so that a restart of the control plane forgets none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// In this series.
    tries: u32,
    started_us: Option<i64>,
    /// The attempt at hand has decided an epoch.
    has_decided: bool,
    /// How often each failure came since the last decided epoch. Few: failures without progress are.
    #[serde(with = "as_list")]
    same: BTreeMap<Signature, u32>,
}

/// What makes two failures the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Signature {
    code: String,
    place: Result<Place, String>,
}

impl Restarts {
    pub fn attempt_started(&mut self, now_us: i64) {
        self.started_us = Some(now_us);
        self.has_decided = false;
    }

    /// There was progress: whatever failed before was overcome.
    pub fn epoch_decided(&mut self) {
        self.has_decided = true;
        self.same.clear();
    }

    /// The attempt ended with `failure`, caused by the record at `place`, where that is known.
    pub fn failed(&mut self, policy: &Policy, failure: &Failure, place: Option<&Place>, now_us: i64) -> Verdict {
        if !failure.retryable || failure.fault == "user" {
            return Verdict::Fail(failure.clone());
        }
        let place = place.cloned().ok_or_else(|| failure.message.clone());
        let signature = Signature { code: failure.code.clone(), place };
        let times = self.same.entry(signature.clone()).or_default();
        *times = times.saturating_add(1);
        if *times >= policy.poison_after {
            return Verdict::Fail(poisoned(failure, &signature, *times));
        }
        let lasted_us = self.started_us.map_or(0, |started| now_us.saturating_sub(started));
        if self.has_decided && lasted_us >= policy.delay_us(self.tries).saturating_mul(policy.stable_delays) {
            self.tries = 0;
        }
        self.tries = self.tries.saturating_add(1);
        Verdict::Restart { after_us: policy.delay_us(self.tries), tries: self.tries }
    }
}

fn poisoned(failure: &Failure, signature: &Signature, times: u32) -> Failure {
    let at = match &signature.place {
        Ok(Place { operator, split, position }) => format!(", at position {position} of {split} ({operator})"),
        Err(_) => String::new(),
    };
    Failure {
        message: format!(
            "{} (the same failure for the {times}th time{at}, with no checkpoint decided in between)",
            failure.message
        ),
        operator: failure
            .operator
            .clone()
            .or_else(|| signature.place.as_ref().ok().map(|place| place.operator.clone())),
        retryable: false,
        ..failure.clone()
    }
}

/// JSON has no maps by structure.
mod as_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Signature;

    pub fn serialize<S: Serializer>(map: &BTreeMap<Signature, u32>, serializer: S) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<Signature, u32>, D::Error> {
        Ok(Vec::<(Signature, u32)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn failure(code: &str, retryable: bool) -> Failure {
        Failure {
            code: code.into(),
            message: "it broke".into(),
            hint: None,
            operator: None,
            fault: "external".into(),
            retryable,
        }
    }

    fn place(position: &str) -> Place {
        Place { operator: "bids".into(), split: "0".into(), position: position.into() }
    }

    fn delay(verdict: Verdict) -> i64 {
        match verdict {
            Verdict::Restart { after_us, .. } => after_us / SECOND,
            Verdict::Fail(failure) => panic!("{failure:?}"),
        }
    }

    #[test]
    fn delays_double_up_to_a_minute_and_begin_anew_after_a_stable_time() {
        let policy = Policy::default();
        let mut it = Restarts::default();
        let mut delays = Vec::new();
        for at in 0..8 {
            it.attempt_started(at);
            it.epoch_decided();
            delays.push(delay(it.failed(&policy, &failure("external", true), None, at)));
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        it.attempt_started(0);
        assert_eq!(delay(it.failed(&policy, &failure("x", true), None, 600 * SECOND)), 60, "it decided nothing");
        it.attempt_started(0);
        it.epoch_decided();
        assert_eq!(delay(it.failed(&policy, &failure("x", true), None, 599 * SECOND)), 60, "not for long enough");
        for lasts in [600, 10, 11] {
            it.attempt_started(0);
            it.epoch_decided();
            assert_eq!(delay(it.failed(&policy, &failure("x", true), None, lasts * SECOND)), 1, "{lasts} s");
        }
        assert_eq!(policy.delay_us(u32::MAX), 60 * SECOND);
    }

    #[test]
    fn what_only_the_user_can_mend_is_not_tried_again() {
        let mut it = Restarts::default();
        let verdict = it.failed(&Policy::default(), &failure("bad_record", false), None, 0);
        assert_eq!(verdict, Verdict::Fail(failure("bad_record", false)));
        assert!(matches!(
            it.failed(&Policy::default(), &failure("process_lost", true), None, 0),
            Verdict::Restart { .. }
        ));
    }

    #[test]
    fn a_poison_record_is_named_after_five_tries_without_progress() {
        let policy = Policy::default();
        let mut it = Restarts::default();
        let record = failure("decode", true);
        for _ in 0..4 {
            delay(it.failed(&policy, &record, Some(&place("17")), 0));
            // Another place is another failure, and does not hide the first.
            delay(it.failed(&policy, &failure("network", true), None, 0));
            it = serde_json::from_str(&serde_json::to_string(&it).expect("json")).expect("json");
        }
        let mut recovered = it.clone();
        recovered.epoch_decided();
        delay(recovered.failed(&policy, &record, Some(&place("17")), 0));
        delay(it.failed(&policy, &record, Some(&place("18")), 0));
        let Verdict::Fail(cause) = it.failed(&policy, &record, Some(&place("17")), 0) else { panic!("again") };
        assert!(cause.message.contains("position 17 of 0 (bids)") && !cause.retryable, "{}", cause.message);
        assert_eq!((cause.code.as_str(), cause.operator.as_deref()), ("decode", Some("bids")));
    }

    #[test]
    fn the_same_message_without_a_place_is_the_same_failure() {
        let mut it = Restarts::default();
        for _ in 0..4 {
            delay(it.failed(&Policy::default(), &failure("overflow", true), None, 0));
        }
        assert!(matches!(it.failed(&Policy::default(), &failure("overflow", true), None, 0), Verdict::Fail(_)));
    }
}
