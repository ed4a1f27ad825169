//! A token bucket: an amount that refills evenly and may be overdrawn by one large withdrawal.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Quota;

const MINUTE: f64 = 60.0;

/// What may be taken now, and how fast it comes back.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    capacity: f64,
    per_second: f64,
    level: f64,
    updated: Instant,
}

impl Bucket {
    /// A limit of the user's: an even pace with bursts of a second, so that no minute has noticeably more than its share.
    pub(super) fn per_minute(amount: f64, now: Instant) -> Self {
        let per_second = amount / MINUTE;
        let capacity = per_second.max(1.0);
        Self { capacity, per_second, level: capacity, updated: now }
    }

    /// A server's limit as its headers state it, less what was sent `since` that answer's request was; `None` when they
    /// state too little.
    pub(super) fn observed(quota: &Quota, since: u64, now: Instant) -> Option<Self> {
        let remaining = quota.remaining?;
        // Without a limit an exhausted quota still says when the next request may come.
        let capacity =
            quota.limit.filter(|limit| *limit > 0).or_else(|| (remaining == 0).then_some(1))? as f64;
        let missing = capacity - remaining as f64;
        let per_second = match quota.reset {
            Some(reset) if !reset.is_zero() && missing > 0.0 => missing / reset.as_secs_f64(),
            _ => capacity / MINUTE,
        };
        Some(Self { capacity, per_second, level: remaining as f64 - since as f64, updated: now })
    }

    /// The time until `amount` may be taken; an amount beyond the capacity waits for a full bucket.
    pub(super) fn wait(&mut self, amount: u64, now: Instant) -> Duration {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        self.level = self.capacity.min(self.level + elapsed * self.per_second);
        self.updated = now;
        let missing = (amount as f64).min(self.capacity) - self.level;
        if missing <= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(missing / self.per_second).unwrap_or(Duration::MAX)
    }

    /// Takes `amount`, below zero if need be: those who come later wait for it to refill.
    pub(super) fn take(&mut self, amount: u64) {
        self.level -= amount as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(duration: Duration) -> u128 {
        duration.as_millis()
    }

    #[test]
    fn it_refills_evenly_and_no_further_than_full() {
        let start = Instant::now();
        let mut bucket = Bucket::per_minute(120.0, start);
        assert_eq!(millis(bucket.wait(2, start)), 0);
        bucket.take(2);
        assert_eq!(millis(bucket.wait(1, start)), 500);
        let later = start + Duration::from_secs(3600);
        assert_eq!(millis(bucket.wait(2, later)), 0);
        bucket.take(2);
        assert_eq!(millis(bucket.wait(1, later)), 500);
    }

    #[test]
    fn an_amount_beyond_the_capacity_passes_and_is_paid_off() {
        let start = Instant::now();
        let mut bucket = Bucket::per_minute(600.0, start);
        assert_eq!(millis(bucket.wait(1000, start)), 0);
        bucket.take(1000);
        assert_eq!(millis(bucket.wait(1, start)), 99_100);
    }

    #[test]
    fn headers_give_level_and_pace() {
        let now = Instant::now();
        let wait = |limit: Option<u64>, remaining, reset: Option<u64>, since| {
            let quota = Quota { limit, remaining, reset: reset.map(Duration::from_secs) };
            Bucket::observed(&quota, since, now).map(|mut bucket| millis(bucket.wait(1, now)))
        };
        assert_eq!(wait(Some(60), Some(0), Some(60), 0), Some(1000));
        assert_eq!(wait(Some(60), Some(30), Some(60), 0), Some(0));
        assert_eq!(wait(Some(60), Some(30), Some(60), 34), Some(10_000));
        assert_eq!(wait(Some(60), Some(0), None, 0), Some(1000));
        assert_eq!(wait(None, Some(0), Some(7), 0), Some(7000));
        assert_eq!(wait(None, Some(5), Some(7), 0), None);
        assert_eq!(wait(Some(60), None, Some(7), 0), None);
        assert_eq!(wait(Some(0), Some(0), Some(7), 0), Some(7000));
    }
}
