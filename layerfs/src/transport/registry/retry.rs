//! When to ask again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use super::error::Reason;
use crate::transport::NetworkOptions;

/// The longest `Retry-After` that is read as a number of seconds; more is taken as this much.
const RETRY_AFTER_SECONDS_MAX: u64 = 24 * 3600;

/// Counts attempts that brought nothing and says how long to pause before the next.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    network: &'a NetworkOptions,
    failed_count: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(network: &'a NetworkOptions) -> Self {
        Self { network, failed_count: 0 }
    }

    /// Something came: the next failure is a first one again.
    pub(super) fn progressed(&mut self) {
        self.failed_count = 0;
    }

    /// Attempts that failed in a row.
    pub(super) fn failed_count(&self) -> u32 {
        self.failed_count
    }

    /// The pause before the next attempt, or none if this failure is final.
    pub(super) fn pause(&mut self, reason: &Reason) -> Option<Duration> {
        if !reason.is_worth_a_retry() || self.failed_count >= self.network.retries_count {
            return None;
        }
        let doubled = self.network.backoff.saturating_mul(1 << self.failed_count.min(16));
        self.failed_count += 1;
        let own = jittered(doubled.min(self.network.backoff_max));
        match reason {
            Reason::TooManyRequests { retry_after: Some(after), .. } if *after > self.network.backoff_max => {
                None
            }
            Reason::TooManyRequests { retry_after: Some(after), .. } => Some(own.max(*after)),
            _ => Some(own),
        }
    }
}

/// Between half and all of `pause`, so that a fleet that failed together does not come back together.
fn jittered(pause: Duration) -> Duration {
    // A fresh `RandomState` is seeded by the kernel; its hash of anything is as good as a dice here.
    let dice = RandomState::new().hash_one(0) >> 32;
    let half = pause / 2;
    half + half.mul_f64(dice as f64 / f64::from(u32::MAX))
}

/// `Retry-After` in seconds (RFC 9110, 10.2.3). The date form is rare among registries; it reads as no wish.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    let seconds: u64 = value.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_SECONDS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_and_progress_renews_it() {
        let network = NetworkOptions { retries_count: 2, ..NetworkOptions::default() };
        let mut patience = Patience::new(&network);
        let broken = Reason::Broken(String::new());
        assert!(patience.pause(&broken).is_some_and(|pause| pause >= network.backoff / 2));
        assert!(patience.pause(&broken).is_some());
        assert!(patience.pause(&broken).is_none());
        patience.progressed();
        assert!(patience.pause(&broken).is_some());
        assert!(patience.pause(&Reason::NotFound(String::new())).is_none());
    }

    #[test]
    fn a_registry_that_asks_for_hours_is_not_waited_for() {
        let network = NetworkOptions::default();
        let asked = |seconds| Reason::TooManyRequests {
            detail: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert!(Patience::new(&network).pause(&asked(7200)).is_none());
        assert!(
            Patience::new(&network).pause(&asked(3)).is_some_and(|pause| pause >= Duration::from_secs(3))
        );
        assert_eq!(retry_after("99999999999"), Some(Duration::from_secs(RETRY_AFTER_SECONDS_MAX)));
        assert_eq!(retry_after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
    }
}
