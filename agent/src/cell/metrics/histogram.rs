//! Times in buckets that never change, so that those of many cells can be added up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::text::Text;

/// Upper bounds in microseconds. A start takes one to ten milliseconds and a pull seconds, so the buckets are close where
/// starts are.
const BOUNDS_US: [u64; 20] = [
    250, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// Times, counted.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// One for each bound, and one for what is above all.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(super) fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound_us| *bound_us < us);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// The series of one histogram among those of a name.
    pub(super) fn show(&self, text: &mut Text, labels: &[(&str, &str)]) {
        let mut count = 0;
        for (bound_us, in_bucket) in BOUNDS_US.iter().zip(&self.counts) {
            count += in_bucket.load(Relaxed);
            text.part("_bucket", labels, Some(seconds(*bound_us)), count);
        }
        count += self.counts[BOUNDS_US.len()].load(Relaxed);
        text.part("_bucket", labels, Some(f64::INFINITY), count);
        text.part("_sum", labels, None, seconds(self.sum_us.load(Relaxed)));
        text.part("_count", labels, None, count);
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for us in [0, 250, 251, 60_000_000, 60_000_001] {
            histogram.add(Duration::from_micros(us));
        }
        let counts: Vec<_> = histogram.counts.iter().map(|count| count.load(Relaxed)).collect();
        assert_eq!((counts[0], counts[1]), (2, 1));
        assert_eq!((counts[BOUNDS_US.len() - 1], counts[BOUNDS_US.len()]), (1, 1));
        assert!(BOUNDS_US.is_sorted());
    }
}
