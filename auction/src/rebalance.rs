//! Which instances to move when a cell or a zone joins or returns. Pure, and budgeted.
//!
//! ```text
//! zones   app A:  z0 4  z1 4  z2 0   ->  moves from the fullest zone to the emptiest until they differ by one at most
//! cells   c0 80 % c1 80 % c2 0 %     ->  moves off the fullest cells while they are above the mean by a margin
//! ```
//! A move is: reserve elsewhere, start, route, drain, stop. A plan says which instances are to be auctioned anew and
//! where; the auction says on which cell.

use crate::demand::AppId;
use crate::view::{CellIndex, ZoneIndex};

/// An instance that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The caller's number for it.
    pub instance: u64,
    /// Its app.
    pub app: AppId,
    /// Its cell.
    pub cell: CellIndex,
    /// Its zone.
    pub zone: ZoneIndex,
}

/// An instance to be placed anew, started there, and then stopped where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The caller's number for it.
    pub instance: u64,
    /// Its app.
    pub app: AppId,
    /// The cell that it leaves.
    pub from: CellIndex,
    /// The zone that it is to go to.
    pub to: ZoneIndex,
}
