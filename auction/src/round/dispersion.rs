//! How far apart the cells are: whether asking more of them for an instance pays.
//!
//! ```text
//! bids of a batch ─> up to 32 of them ─> mean distance from their median ─> moving mean over batches ─> 2 asks or 6
//! ```
//! Where cells are even, a bid is about as good as the next, and two for each instance are enough; where they are not,
//! each further one finds a cell that is less used. What the last batches met decides for the next one, so that no batch
//! waits for a second wave of asks.

use crate::score::PRICE_ONE;

/// Of so many bids the dispersion is estimated. More would cost more than they tell.
const SAMPLE_MAX: usize = 32;
/// A distance counts as this at most: a few cells that are far from all others, or that lie, say nothing of the rest.
const DISTANCE_MAX: u64 = PRICE_ONE / 16;
/// The weight of the last batch is 1 / 2^this: about eight batches are remembered.
const WEIGHT_SHIFT: u32 = 3;
/// Below this the moving mean is kept, or it would never come down to small distances.
const FRACTION_BITS: u32 = 8;

/// A moving mean of how far bids are from the middle.
#[derive(Debug, Default)]
pub(super) struct Dispersion {
    /// In units of 2^-16 cells, times 2^[`FRACTION_BITS`]; nothing before the first batch.
    mean: Option<u64>,
    used: Vec<u64>,
}

impl Dispersion {
    /// Takes in how much the cells of a batch are used. One bid alone says nothing.
    pub(super) fn learn(&mut self, used: impl Iterator<Item = u64>) {
        self.used.clear();
        self.used.extend(used.take(SAMPLE_MAX));
        let count = self.used.len();
        if count < 2 {
            return;
        }
        let (_, median, _) = self.used.select_nth_unstable(count / 2);
        let median = *median;
        let sum: u64 = self.used.iter().map(|used| used.abs_diff(median).min(DISTANCE_MAX)).sum();
        let distance = (sum << FRACTION_BITS) / count as u64;
        let moved = |mean: u64| mean - (mean >> WEIGHT_SHIFT) + (distance >> WEIGHT_SHIFT);
        self.mean = Some(self.mean.map_or(distance, moved));
    }

    /// The mean distance from the middle, in units of 2^-16 cells; 0 while nothing is known.
    pub(super) fn distance(&self) -> u64 {
        self.mean.unwrap_or_default() >> FRACTION_BITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(batches: u32, used: &[u64]) -> u64 {
        let mut dispersion = Dispersion::default();
        (0..batches).for_each(|_| dispersion.learn(used.iter().copied()));
        dispersion.distance()
    }

    #[test]
    fn the_first_batch_tells_and_later_ones_move_the_mean() {
        assert_eq!(after(0, &[]), 0);
        assert_eq!(after(1, &[1_000, 2_000, 3_000, 4_000]), 1_000);
        let mut dispersion = Dispersion::default();
        dispersion.learn([0, 2_000].into_iter());
        (0..8).for_each(|_| dispersion.learn([500; 8].into_iter()));
        let distance = dispersion.distance();
        assert!((300..500).contains(&distance), "{distance}");
        (0..64).for_each(|_| dispersion.learn([500; 8].into_iter()));
        assert_eq!(dispersion.distance(), 0);
    }

    #[test]
    fn a_few_cells_that_are_far_from_the_others_do_not_count_much() {
        let mut used = [10_000; 16];
        used[3] = 0;
        used[9] = PRICE_ONE;
        assert!(after(64, &used) <= DISTANCE_MAX / 8);
    }

    #[test]
    fn a_single_bid_tells_nothing_and_absurd_ones_little() {
        assert_eq!(after(64, &[7]), 0);
        assert!(after(64, &[0, u64::MAX, 3, u64::MAX]) <= DISTANCE_MAX);
    }
}
