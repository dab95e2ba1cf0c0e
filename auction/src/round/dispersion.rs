//! How far apart the cells are: whether asking more of them for an instance pays.
//!
//! ```text
//! bids of a batch ─> up to 32 of them ─> mean distance from their median ─> moving mean over batches ─> few asks or many
//! ```
//! Where cells are even, a bid is about as good as the next, and hardly more than one for each instance is enough; where
//! they are not, each further one finds a cell that is less used. What the last batches met decides for the next one, so that no batch
//! waits for a second wave of asks.
//!
//! It never pays where bids come slowly: cells that are asked much would be asked yet more, and the greedier a choice
//! among old bids, the worse it is, because all choose the same (Mitzenmacher: How Useful Is Old Information?, 2000).

use crate::score::PRICE_ONE;

/// Of so many bids the dispersion is estimated. More would cost more than they tell.
const SAMPLE_MAX: usize = 32;
/// A distance counts as this at most: a few cells that are far from all others, or that lie, say nothing of the rest.
const DISTANCE_MAX: u64 = PRICE_ONE / 16;
/// The weight of the last batch is 1 / 2^this: about eight batches are remembered.
const WEIGHT_SHIFT: u32 = 3;
/// A wait counts as this at most.
const WAIT_MAX_US: u64 = 1_000_000;
/// So many bits below one are kept of a moving mean, or it would never come down to small values.
const FRACTION_BITS: u32 = 8;

/// Moving means of how far bids are from the middle, and of how long they are waited for.
#[derive(Debug, Default)]
pub(super) struct Dispersion {
    /// In units of 2^-16 cells; nothing before the first batch.
    distance: Mean,
    /// In microseconds.
    wait: Mean,
    used: Vec<u64>,
}

/// A moving mean, times 2^[`FRACTION_BITS`].
#[derive(Debug, Default)]
struct Mean(Option<u64>);

impl Mean {
    fn learn(&mut self, value: u64) {
        let value = value << FRACTION_BITS;
        let moved = |mean: u64| mean - (mean >> WEIGHT_SHIFT) + (value >> WEIGHT_SHIFT);
        self.0 = Some(self.0.map_or(value, moved));
    }

    /// 0 while nothing is known.
    fn get(&self) -> u64 {
        self.0.unwrap_or_default() >> FRACTION_BITS
    }
}

impl Dispersion {
    /// Takes in how much the cells of a batch are used, and how long their bids took. One bid alone says nothing.
    pub(super) fn learn(&mut self, used: impl Iterator<Item = u64>, wait_us: u64) {
        self.wait.learn(wait_us.min(WAIT_MAX_US));
        self.used.clear();
        self.used.extend(used.take(SAMPLE_MAX));
        let count = self.used.len();
        if count < 2 {
            return;
        }
        let (_, median, _) = self.used.select_nth_unstable(count / 2);
        let median = *median;
        let sum: u64 = self.used.iter().map(|used| used.abs_diff(median).min(DISTANCE_MAX)).sum();
        self.distance.learn(sum / count as u64);
    }

    /// Whether cells are further than `distance` from the middle, and bids come within `wait_us`.
    pub(super) fn is_above(&self, distance: u64, wait_us: u64) -> bool {
        self.distance.get() > distance && self.wait.get() <= wait_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(batches: u32, used: &[u64]) -> u64 {
        let mut dispersion = Dispersion::default();
        (0..batches).for_each(|_| dispersion.learn(used.iter().copied(), 0));
        dispersion.distance.get()
    }

    #[test]
    fn the_first_batch_tells_and_later_ones_move_the_mean() {
        assert_eq!(after(0, &[]), 0);
        assert_eq!(after(1, &[1_000, 2_000, 3_000, 4_000]), 1_000);
        let mut mean = Mean::default();
        mean.learn(1_000);
        (0..8).for_each(|_| mean.learn(0));
        assert!((300..500).contains(&mean.get()), "{mean:?}");
        (0..64).for_each(|_| mean.learn(0));
        assert_eq!(mean.get(), 0);
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

    #[test]
    fn uneven_cells_are_not_asked_more_while_their_bids_come_slowly() {
        let mut dispersion = Dispersion::default();
        let used = [0, 4_000, 0, 4_000].into_iter();
        dispersion.learn(used.clone(), 100);
        assert!(dispersion.is_above(1_000, 2_000));
        (0..8).for_each(|_| dispersion.learn(used.clone(), u64::MAX));
        assert!(!dispersion.is_above(1_000, 2_000));
        (0..128).for_each(|_| dispersion.learn(used.clone(), 100));
        assert!(dispersion.is_above(1_000, 2_000));
    }
}
