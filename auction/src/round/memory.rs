//! Cells that bid well: whom to ask again, besides those drawn at random.
//!
//! ```text
//! bids ─> the few least used, least first ─> half of the next batch's asks ─> fresh bids ─> ..
//! ```
//! Half of a sample from memory and half at random comes nearer to the least used of all cells than a random sample of
//! many times the size (Mitzenmacher, Prabhakar, Shah: Load Balancing with Memory, FOCS 2002). What is remembered only
//! chooses whom to ask: a price is always fresh.

use super::Ask;
use crate::score::{SAME_APP_WEIGHT, STARTING_WEIGHT};
use crate::view::CellIndex;

/// The most cells that a round may remember.
pub const MEMORY_MAX: u32 = 64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    cell: CellIndex,
    used: u64,
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
        Self { entries: Vec::with_capacity(length_max + 1), length_max }
    }

    /// Takes in how much a cell is used, by its bid.
    pub(super) fn note(&mut self, cell: CellIndex, used: u64) {
        let is_full = self.entries.len() >= self.length_max;
        if is_full && self.entries.last().is_none_or(|last| last.used <= used) {
            return;
        }
        self.forget(cell);
        let at = self.entries.partition_point(|entry| entry.used <= used);
        self.entries.insert(at, Entry { cell, used });
        self.entries.truncate(self.length_max);
    }

    /// A cell is used more now.
    pub(super) fn add(&mut self, cell: CellIndex, used: u64) {
        if let Some(at) = self.entries.iter().position(|entry| entry.cell == cell) {
            let entry = self.entries.remove(at);
            self.note(cell, entry.used.saturating_add(used));
        }
    }

    fn forget(&mut self, cell: CellIndex) {
        self.entries.retain(|entry| entry.cell != cell);
    }

    /// Takes out up to `count` cells of which `is_wanted`, the least used first, and adds them to `recalled`.
    pub(super) fn recall(
        &mut self,
        count: usize,
        mut is_wanted: impl FnMut(CellIndex) -> bool,
        recalled: &mut Vec<CellIndex>,
    ) {
        let most = recalled.len() + count;
        self.entries.retain(|entry| {
            let is_taken = recalled.len() < most && is_wanted(entry.cell);
            if is_taken {
                recalled.push(entry.cell);
            }
            !is_taken
        });
    }
}

impl Ask {
    /// What one instance takes of the cell, by its bid on a batch that is spread.
    pub(super) fn takes(&self) -> u64 {
        (self.step % SAME_APP_WEIGHT).saturating_sub(STARTING_WEIGHT)
    }

    /// How much the cell is used, by its bid on a batch that is spread: the price without the instance and without those
    /// of the same app, which are nothing to other apps.
    pub(super) fn used(&self) -> u64 {
        (self.first % SAME_APP_WEIGHT).saturating_sub(self.takes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_used_are_remembered_and_recalled_once() {
        let mut memory = Memory::new(3);
        for (cell, used) in [(1, 50), (2, 10), (3, 40), (4, 30), (5, 60), (2, 20)] {
            memory.note(CellIndex(cell), used);
        }
        memory.add(CellIndex(2), 100);
        let mut recalled = Vec::new();
        memory.recall(2, |cell| cell != CellIndex(9), &mut recalled);
        assert_eq!(recalled, [CellIndex(4), CellIndex(3)]);
        memory.recall(8, |cell| cell == CellIndex(2), &mut recalled);
        assert_eq!(recalled, [CellIndex(4), CellIndex(3), CellIndex(2)]);
        assert!(memory.entries.is_empty());
    }
}
