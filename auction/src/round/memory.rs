//! Cells that bid well: whom to ask again, besides those drawn at random.
//!
//! ```text
//! bids ─> the few least used, least first ─> a third of the next batch's asks ─> fresh bids ─> ..
//! ```
//! Some of a sample from memory and the others at random comes nearer to the least used of all cells than a random sample
//! of many times the size (Mitzenmacher, Prabhakar, Shah: Load Balancing with Memory, FOCS 2002). What is remembered only
//! chooses whom to ask: a price is always fresh.

use super::Ask;
use crate::score::{PRICE_ONE, SAME_APP_WEIGHT, STARTING_WEIGHT};
use crate::view::CellIndex;

/// The most cells that a round may remember.
pub const MEMORY_MAX: u32 = 64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    cell: CellIndex,
    used: u64,
    /// Known before the batch whose bids come in.
    is_old: bool,
}

/// The least used of the cells that bid.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Least used first.
    entries: Vec<Entry>,
    length_max: usize,
}

impl Memory {
    pub(super) fn new(length_max: u32) -> Self {
        let length_max = length_max.min(MEMORY_MAX) as usize;
        Self { entries: Vec::new(), length_max }
    }

    /// Takes in how much the cells of a batch are used, with what was placed there.
    pub(super) fn learn(&mut self, bids: impl Iterator<Item = (CellIndex, u64)>) {
        self.entries.iter_mut().for_each(|entry| entry.is_old = true);
        self.entries.extend(bids.map(|(cell, used)| Entry { cell, used, is_old: false }));
        if self.entries.len() > self.length_max {
            self.entries.select_nth_unstable_by_key(self.length_max, |entry| entry.used);
            self.entries.truncate(self.length_max);
        }
        // Of a cell that was known and bid again, the bid stays.
        self.entries.sort_unstable_by_key(|entry| (entry.cell, entry.is_old));
        self.entries.dedup_by_key(|entry| entry.cell);
        self.entries.sort_unstable_by_key(|entry| entry.used);
    }

    /// Takes out up to `count` cells of which `is_wanted`, the least used first, and adds them to `recalled`.
    pub(super) fn recall(
        &mut self,
        count: usize,
        mut is_wanted: impl FnMut(CellIndex) -> bool,
        recalled: &mut Recalled,
    ) {
        let most = recalled.cells.len() + count;
        self.entries.retain(|entry| {
            let is_taken = recalled.cells.len() < most && is_wanted(entry.cell);
            if is_taken {
                recalled.push(entry.cell);
            }
            !is_taken
        });
    }
}

/// Which cells were asked from memory in a batch: walks pass them by.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    pub(super) cells: Vec<CellIndex>,
    /// A bit for each, by a hash: most cells that a walk meets are known not to be here without a search.
    filter: [u64; FILTER_WORDS],
}

/// With 64 cells of [`MEMORY_MAX`] in 1,024 bits, one cell in 16 that is not here is searched for.
const FILTER_WORDS: usize = 16;

impl Recalled {
    fn bit(cell: CellIndex) -> (usize, u64) {
        // Fibonacci hashing (Knuth, The Art of Computer Programming, 6.4): the high bits of a product are even.
        let hash = cell.0.wrapping_mul(0x9e37_79b9) >> 22;
        (hash as usize / 64, 1 << (hash % 64))
    }

    pub(super) fn clear(&mut self) {
        if !self.cells.is_empty() {
            self.cells.clear();
            self.filter = [0; FILTER_WORDS];
        }
    }

    pub(super) fn push(&mut self, cell: CellIndex) {
        let (word, bit) = Self::bit(cell);
        self.filter[word] |= bit;
        self.cells.push(cell);
    }

    pub(super) fn has(&self, cell: CellIndex) -> bool {
        let (word, bit) = Self::bit(cell);
        self.filter[word] & bit != 0 && self.cells.contains(&cell)
    }
}

impl Ask {
    /// How much the cell is used, by its bid and with what was given to it.
    pub(super) fn used_after(&self) -> u64 {
        let takes = self.step.saturating_sub(STARTING_WEIGHT + SAME_APP_WEIGHT).min(PRICE_ONE);
        (self.used + takes * u64::from(self.given)).min(PRICE_ONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(memory: &mut Memory, bids: &[(u32, u64)]) {
        memory.learn(bids.iter().map(|(cell, used)| (CellIndex(*cell), *used)));
    }

    #[test]
    fn the_least_used_are_remembered_and_recalled_once() {
        let mut memory = Memory::new(3);
        learn(&mut memory, &[(1, 50), (2, 10), (3, 40), (4, 30), (5, 60)]);
        learn(&mut memory, &[(6, 70), (2, 35)]);
        let mut recalled = Recalled::default();
        memory.recall(1, |cell| cell != CellIndex(9), &mut recalled);
        assert_eq!(recalled.cells, [CellIndex(4)]);
        memory.recall(8, |cell| cell == CellIndex(2), &mut recalled);
        assert_eq!(recalled.cells, [CellIndex(4), CellIndex(2)]);
        assert!(recalled.has(CellIndex(2)) && !recalled.has(CellIndex(9)));
        recalled.clear();
        assert!(!recalled.has(CellIndex(2)));
    }

    #[test]
    fn a_cell_is_remembered_once() {
        let mut memory = Memory::new(4);
        for turn in 0..500u32 {
            let bid = |n: u32| ((turn * 7 + n) % 9, u64::from((turn + n) * 31 % 23));
            learn(&mut memory, &[bid(0), bid(1), bid(2)]);
            assert!(memory.entries.is_sorted_by_key(|entry| entry.used), "{:?}", memory.entries);
            assert!((1..=4).contains(&memory.entries.len()));
            for entry in &memory.entries {
                assert_eq!(memory.entries.iter().filter(|other| other.cell == entry.cell).count(), 1);
            }
        }
    }
}
