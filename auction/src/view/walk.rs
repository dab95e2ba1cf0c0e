//! A random order over the cells of some zones, in constant memory.
//!
//! ```text
//! position(i) = (start + i * stride) mod length      stride coprime to length: every position once
//! ```
//! Start and stride are random, so each cell is as likely as any other to be met first, and two walks that start at the
//! same cell part at once. The first few steps are the sample of an auction; all of them are a scan.

use super::{CellIndex, ClassSet, View, ZoneSet};
use rand::{Rng, RngExt};

/// How often a walk looks for a stride before it takes 1. A random number is coprime to another with 6/pi^2 = 0.61, so
/// 1 is taken in one walk of a million million.
const STRIDE_TRIES_MAX: u32 = 32;

/// A walk over the cells of some classes in some zones.
#[derive(Debug, Clone, Copy, Default)]
pub struct Walk {
    classes: ClassSet,
    zones: ZoneSet,
    length: u32,
    position: u32,
    stride: u32,
    left: u32,
}

impl Walk {
    /// A walk over the cells of `classes` in `zones`. It is good while the view's version stays.
    pub fn new<R: Rng + ?Sized>(view: &View, classes: ClassSet, zones: ZoneSet, rng: &mut R) -> Self {
        let length = view.count(classes, zones);
        if length == 0 {
            return Self { classes, zones, ..Self::default() };
        }
        let position = rng.random_range(0..length);
        let stride = (0..STRIDE_TRIES_MAX)
            .map(|_| rng.random_range(1..=length))
            .find(|stride| greatest_common_divisor(length, *stride) == 1);
        Self { classes, zones, length, position, stride: stride.unwrap_or(1), left: length }
    }

    /// How many cells it meets in all.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// How many cells it has not met yet.
    #[must_use]
    pub fn left(&self) -> u32 {
        self.left
    }

    /// The next cell, or nothing when all were met.
    pub fn next(&mut self, view: &View) -> Option<CellIndex> {
        self.left = self.left.checked_sub(1)?;
        let cell = view.nth(self.classes, self.zones, self.position);
        // Both are at most CELLS_MAX, far from overflow.
        let next = self.position + self.stride;
        self.position = if next >= self.length { next - self.length } else { next };
        cell
    }
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}
