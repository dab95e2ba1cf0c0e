//! When what ended is started again: Diego's crash policy by default, every number the app's own.
//!
//! ```text
//! crashes in a row   1   2    3    4     5     6     7     8 ...  200
//! next start         at once  30 s 60 s 120 s 240 s 480 s 960 s   never again
//! ```
//! A run longer than `reset_after_ms` begins the count anew. The numbers are those of Diego's BBS (models/restart_calculator.go:
//! immediate restarts 3 less the first start, a base of 30 s, at most 16 min, 200 restarts) and cell.md.

use serde::{Deserialize, Serialize};

/// Milliseconds beyond which no delay or grace goes: a week.
pub const PERIOD_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// Crashes that a policy may allow.
pub const CRASHES_COUNT_MAX: u32 = 1_000_000;
/// Signal number of TERM, signal(7).
pub const SIGTERM: i32 = 15;

/// When to start again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Not at all.
    #[default]
    Never,
    /// Unless it exited with 0.
    OnFailure,
    /// Unless somebody stopped it.
    Always,
}

/// How an instance is kept running and ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// When to start again. Of a task: never.
    pub restart: Restart,
    /// Crashes in a row that are answered at once.
    pub immediate_count: u32,
    /// Milliseconds before the next start after that, doubled each time.
    pub delay_first_ms: u64,
    /// And at most so many.
    pub delay_max_ms: u64,
    /// A longer run begins the count of crashes anew, in milliseconds.
    pub reset_after_ms: u64,
    /// Crashes in a row after which it stays ended.
    pub crashes_max: u32,
    /// The signal that asks for the end.
    pub stop_signal: i32,
    /// Milliseconds from that signal to the kill.
    pub grace_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            restart: Restart::Never,
            immediate_count: 2,
            delay_first_ms: 30_000,
            delay_max_ms: 960_000,
            reset_after_ms: 300_000,
            crashes_max: 200,
            stop_signal: SIGTERM,
            grace_ms: 10_000,
        }
    }
}

impl Policy {
    /// Milliseconds until the start after the `crashes`-th crash in a row; `None`: no more.
    pub fn delay_ms(&self, crashes: u32) -> Option<u64> {
        if crashes >= self.crashes_max {
            return None;
        }
        let Some(doublings) = crashes.checked_sub(self.immediate_count.saturating_add(1)) else {
            return Some(0);
        };
        let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
        Some(self.delay_first_ms.saturating_mul(factor).min(self.delay_max_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_diegos() {
        let policy = Policy::default();
        let delays: Vec<_> = (1..=9).map(|crashes| policy.delay_ms(crashes)).collect();
        let seconds = [0, 0, 30, 60, 120, 240, 480, 960, 960];
        assert_eq!(delays, seconds.map(|seconds| Some(seconds * 1000)));
        assert_eq!(policy.delay_ms(199), Some(960_000));
        assert_eq!(policy.delay_ms(200), None);
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let policy = Policy {
            immediate_count: u32::MAX,
            delay_first_ms: u64::MAX,
            delay_max_ms: u64::MAX,
            crashes_max: u32::MAX,
            ..Policy::default()
        };
        assert_eq!(policy.delay_ms(u32::MAX - 1), Some(0));
        let policy = Policy { immediate_count: 0, ..policy };
        assert_eq!(policy.delay_ms(90), Some(u64::MAX));
    }
}
