//! Streams whose files cannot be written: each once, to be tried again in the order in which they stalled.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

/// By their keys, with when they are due.
#[derive(Debug, Default)]
pub(super) struct Stalled {
    waiting: VecDeque<(Instant, u64)>,
    keys: HashSet<u64>,
}

impl Stalled {
    /// Has it wait until `due`, which is no earlier than of those before; one that waits already keeps its time.
    pub(super) fn push(&mut self, key: u64, due: Instant) {
        if self.keys.insert(key) {
            self.waiting.push_back((due, key));
        }
    }

    /// Whether it waits.
    pub(super) fn has(&self, key: u64) -> bool {
        self.keys.contains(&key)
    }

    /// Whether none waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// It is tried now, or is no more.
    pub(super) fn remove(&mut self, key: u64) {
        if self.keys.remove(&key) {
            self.waiting.retain(|(_, other)| *other != key);
        }
    }

    /// Takes those that are due.
    pub(super) fn take_due(&mut self, at: Instant) -> Vec<u64> {
        let count = self.waiting.iter().take_while(|(due, _)| *due <= at).count();
        let due: Vec<u64> = self.waiting.drain(..count).map(|(_, key)| key).collect();
        for key in &due {
            self.keys.remove(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_waits_once_and_no_longer_for_being_heard_of_again() {
        let (mut stalled, begin) = (Stalled::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        for (key, seconds) in [(7, 1), (3, 2), (7, 3), (7, 4), (5, 5), (3, 6)] {
            stalled.push(key, at(seconds));
        }
        stalled.remove(5);
        stalled.remove(6);
        assert!(stalled.has(7) && !stalled.has(5) && stalled.take_due(begin).is_empty());
        assert_eq!(stalled.take_due(at(1)), [7]);
        assert!(!stalled.has(7) && !stalled.is_empty());
        stalled.push(7, at(7));
        assert_eq!(stalled.take_due(at(8)), [3, 7], "once each");
        assert!(stalled.is_empty());
    }
}
