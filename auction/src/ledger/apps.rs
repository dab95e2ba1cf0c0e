//! How many instances of each app are on a cell: a fixed table of words.
//!
//! ```text
//! app ─hash─> first bucket, second bucket        a bucket is sixteen words, one cache line
//! word   | tag of the app: 24 | instances: 8 |   0 is free
//! ```
//! An instance is counted in one word and remembers which, so that it is taken out of the same one. Two words for one
//! app may come about when two threads add its first instance at once, or when the word that had it was full: a count is
//! the sum of an app's words, so nothing is lost. The second bucket is looked at only while something is in one, so that
//! a bid mostly reads one line here.
//!
//! Counts set prices and never decide what fits. Two apps whose tags are equal (one pair in 2^24) are counted as one, and
//! an instance that finds both buckets full is not counted: both cost balance, never correctness.

use super::sync::{AtomicU32, Ordering};
use super::table::mix;
use crate::demand::AppId;

#[cfg(not(loom))]
const BUCKET_WORDS: usize = 16;
#[cfg(loom)]
const BUCKET_WORDS: usize = 1;
const COUNT_MAX: u32 = 0xff;
/// How often an add that lost its word to another thread looks again before the instance stays uncounted.
const ADD_TRIES_MAX: u32 = 64;

#[derive(Debug)]
#[repr(align(64))]
struct Bucket([AtomicU32; BUCKET_WORDS]);

/// The word that an instance is counted in, if it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AppSlot(u32);

impl AppSlot {
    const NONE: Self = Self(u32::MAX);

    /// As a number, to be kept in the reservation's slot.
    pub(super) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

#[derive(Debug)]
pub(super) struct Apps {
    buckets: Box<[Bucket]>,
    /// Instances that are counted in their second bucket.
    spilled: AtomicU32,
}

impl Apps {
    /// A table of at least `words` words.
    pub(super) fn new(words: u32) -> Self {
        let buckets = (words as usize).div_ceil(BUCKET_WORDS).next_power_of_two();
        let bucket = || Bucket(std::array::from_fn(|_| AtomicU32::new(0)));
        Self { buckets: (0..buckets).map(|_| bucket()).collect(), spilled: AtomicU32::new(0) }
    }

    fn locate(&self, app: AppId) -> (u32, usize, usize) {
        let hash = mix(app.0);
        let mask = self.buckets.len() - 1;
        let first = (hash >> 48) as usize & mask;
        let second = (hash >> 32) as usize & mask;
        // The tag is the low 24 bits, the buckets come from the high 32.
        ((hash as u32) << 8, first, second)
    }

    /// How many instances of `app` are counted.
    pub(super) fn count(&self, app: AppId) -> u32 {
        let (tag, first, second) = self.locate(app);
        let in_bucket = |bucket: usize| -> u32 {
            let words = self.buckets[bucket].0.iter().map(|word| word.load(Ordering::Relaxed));
            words.map(|word| if word & !COUNT_MAX == tag { word & COUNT_MAX } else { 0 }).sum()
        };
        let mut count = in_bucket(first);
        if second != first && self.spilled.load(Ordering::Relaxed) > 0 {
            count += in_bucket(second);
        }
        count
    }

    /// Reads the line that [`Self::count`] will read.
    pub(super) fn warm(&self, app: AppId) -> u32 {
        let (_, first, _) = self.locate(app);
        self.buckets[first].0[0].load(Ordering::Relaxed)
    }

    /// Counts one more instance of `app`.
    pub(super) fn add(&self, app: AppId) -> AppSlot {
        let (tag, first, second) = self.locate(app);
        if let Some(slot) = self.add_in(first, tag) {
            return slot;
        }
        if second == first {
            return AppSlot::NONE;
        }
        self.spilled.fetch_add(1, Ordering::Relaxed);
        self.add_in(second, tag).map_or_else(
            || {
                self.spilled.fetch_sub(1, Ordering::Relaxed);
                AppSlot::NONE
            },
            |AppSlot(slot)| AppSlot(slot | SECOND),
        )
    }

    fn add_in(&self, bucket: usize, tag: u32) -> Option<AppSlot> {
        let words = &self.buckets[bucket].0;
        for _ in 0..ADD_TRIES_MAX {
            let mut free = None;
            let mut found = None;
            for (index, word) in words.iter().enumerate() {
                let value = word.load(Ordering::Relaxed);
                if value == 0 {
                    free = free.or(Some((index, 0)));
                } else if value & !COUNT_MAX == tag && value & COUNT_MAX < COUNT_MAX {
                    found = Some((index, value));
                    break;
                }
            }
            let (index, value) = found.or(free)?;
            let new = tag | ((value & COUNT_MAX) + 1);
            // Relaxed: a word says everything that it says by itself.
            if words[index].compare_exchange(value, new, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Some(AppSlot((bucket * BUCKET_WORDS + index) as u32));
            }
        }
        None
    }

    /// Takes an instance out of the word that it was counted in.
    pub(super) fn remove(&self, slot: AppSlot) {
        if slot == AppSlot::NONE {
            return;
        }
        let at = (slot.0 & !SECOND) as usize;
        let word = &self.buckets[at / BUCKET_WORDS].0[at % BUCKET_WORDS];
        let before = word.fetch_sub(1, Ordering::Relaxed);
        if before & COUNT_MAX == 1 {
            // Nobody's now, unless somebody of the same app came in between: then it stays theirs.
            let empty = before - 1;
            let _ = word.compare_exchange(empty, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
        if slot.0 & SECOND != 0 {
            self.spilled.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Marks a slot in the second bucket.
const SECOND: u32 = 1 << 31;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn counts_by_app_and_frees_words() {
        let apps = Apps::new(64);
        let slots: Vec<_> = (0..40u64).flat_map(|app| [apps.add(AppId(app)), apps.add(AppId(app))]).collect();
        for app in 0..40 {
            assert_eq!(apps.count(AppId(app)), 2, "app {app}");
        }
        assert_eq!(apps.count(AppId(99)), 0);
        slots.into_iter().for_each(|slot| apps.remove(slot));
        assert!(
            apps.buckets.iter().flat_map(|bucket| &bucket.0).all(|word| word.load(Ordering::Relaxed) == 0)
        );
        assert_eq!(apps.spilled.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_full_table_counts_no_more_and_loses_nothing() {
        let apps = Apps::new(16);
        let slots: Vec<_> = (0..40u64).map(|app| apps.add(AppId(app))).collect();
        let counted: u32 = (0..40).map(|app| apps.count(AppId(app))).sum();
        assert_eq!(counted, 16);
        slots.into_iter().for_each(|slot| apps.remove(slot));
        assert!((0..40).all(|app| apps.count(AppId(app)) == 0));
    }
}
