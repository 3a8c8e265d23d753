//! How many requests each caller may send: a bucket that fills with time.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Failed attempts to identify oneself per second, all together.
const FAILURES_PER_SECOND: f64 = 20.0;
/// With more callers than this, those that have been silent for ten seconds are forgotten: their buckets are full.
const CALLERS_MAX: usize = 10_000;

/// A bucket holds what may be taken at once; it fills at `per_second`.
#[derive(Clone, Copy)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    /// Takes one, or says how long to wait for it.
    fn take(&mut self, per_second: f64, now: Instant) -> Result<(), Duration> {
        let size = per_second.max(1.0);
        self.level = (self.level + now.duration_since(self.at).as_secs_f64() * per_second).min(size);
        self.at = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.level) / per_second))
    }
}

pub struct Rates {
    per_second: f64,
    callers: Mutex<HashMap<String, Bucket>>,
    failures: Mutex<Bucket>,
}

impl Rates {
    pub fn new(per_second: u32) -> Rates {
        let failures = Bucket { level: FAILURES_PER_SECOND, at: Instant::now() };
        Rates { per_second: per_second.into(), callers: Mutex::default(), failures: Mutex::new(failures) }
    }

    pub fn take(&self, principal: &str) -> Result<(), Duration> {
        let now = Instant::now();
        let mut callers = self.callers.lock().expect("nothing panics while it holds the buckets");
        if callers.len() > CALLERS_MAX {
            callers.retain(|_, bucket| now.duration_since(bucket.at) < Duration::from_secs(10));
        }
        match callers.get_mut(principal) {
            Some(bucket) => bucket.take(self.per_second, now),
            None => {
                callers.insert(principal.to_string(), Bucket { level: self.per_second - 1.0, at: now });
                Ok(())
            }
        }
    }

    pub fn take_failure(&self) -> Result<(), Duration> {
        let mut failures = self.failures.lock().expect("nothing panics while it holds the bucket");
        failures.take(FAILURES_PER_SECOND, Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_caller_does_not_use_up_what_another_has() {
        let rates = Rates::new(3);
        let taken = (0..10).filter(|_| rates.take("key_a").is_ok()).count();
        assert_eq!(taken, 3);
        assert!(rates.take("key_a").expect_err("empty") <= Duration::from_secs(1));
        assert!(rates.take("key_b").is_ok());
    }

    #[test]
    fn a_bucket_fills_with_time() {
        let start = Instant::now();
        let mut bucket = Bucket { level: 0.0, at: start };
        assert!(bucket.take(10.0, start).is_err());
        assert!(bucket.take(10.0, start + Duration::from_millis(100)).is_ok());
        assert!(bucket.take(10.0, start + Duration::from_millis(150)).is_err());
    }
}
