//! The cells that an auctioneer knows, by class and zone.
//!
//! ```text
//!             zone 0      zone 1                  cells      one entry for each CellIndex
//! class 0   [4 17 2 ..]  [9 1 ..]   pools         pools      the cells of one class in one zone
//! class 1   [8 ..]       [..]                     classes    what the cells of a class are and have
//! ```
//! A class is what cells have in common that a demand may require: architecture, stacks, tags, volumes. A demand is
//! matched with the few classes once for each batch; a [`Walk`] then meets the cells of the matching pools in a random
//! order, each once, at a constant cost for each and without memory of its own.
//!
//! A view knows who there is, never how full they are: that is asked afresh. It is kept by whoever learns of members
//! (a list, a registry) and read by any number of rounds.

mod class;
mod walk;

pub use class::Class;
pub use walk::Walk;

use crate::demand::{NAMES_MAX, Requirements};
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// The most zones that a view may have.
pub const ZONES_MAX: usize = 16;
/// The most classes that a view may have: a set of classes is one word.
pub const CLASSES_MAX: usize = 64;
/// The most cells that a view may have.
pub const CELLS_MAX: u32 = 1 << 24;

/// An index stays vacant until so many more cells have left: a round that is under way must not take a cell for the one
/// that had its index before.
pub const VACANT_MIN: usize = 1024;

/// A cell of one view. Indices of cells that left are given to cells that join much later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CellIndex(pub u32);

/// A zone of one view, 0 to [`ZONES_MAX`] - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ZoneIndex(pub u8);

/// A class of one view, 0 to [`CLASSES_MAX`] - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClassIndex(pub u8);

/// A set of classes, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClassSet(pub u64);

impl ClassSet {
    /// Whether `class` is in the set.
    #[must_use]
    pub const fn has(self, class: ClassIndex) -> bool {
        self.0 >> class.0 & 1 != 0
    }
}

/// A set of zones, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZoneSet(pub u16);

impl ZoneSet {
    /// Every zone.
    pub const ALL: Self = Self(u16::MAX);

    /// Whether `zone` is in the set.
    #[must_use]
    pub const fn has(self, zone: ZoneIndex) -> bool {
        zone.0 < ZONES_MAX as u8 && self.0 >> zone.0 & 1 != 0
    }

    /// The set of one zone.
    #[must_use]
    pub const fn one(zone: ZoneIndex) -> Self {
        // A zone past ZONES_MAX is in no set.
        Self(if zone.0 < ZONES_MAX as u8 { 1 << zone.0 } else { 0 })
    }
}

/// Where a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its class.
    pub class: ClassIndex,
    /// Its zone.
    pub zone: ZoneIndex,
    /// Its position in the pool of both.
    position: u32,
}

/// The cells that an auctioneer knows.
#[derive(Debug, Clone, Default)]
pub struct View {
    version: u64,
    zones: Vec<Box<str>>,
    classes: Vec<Class>,
    cells: Vec<Option<Place>>,
    /// Indices of cells that left, the longest vacant first.
    vacant: VecDeque<CellIndex>,
    /// Indexed by class * [`ZONES_MAX`] + zone.
    pools: Vec<Vec<CellIndex>>,
}

impl View {
    /// A view of no cells.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A number that changes whenever a cell joins or leaves.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many cells there are.
    #[must_use]
    pub fn cells_count(&self) -> u32 {
        // At most CELLS_MAX, checked when they join.
        (self.cells.len() - self.vacant.len()) as u32
    }

    /// One more than the largest [`CellIndex`] that was ever given: the length of a table by cell.
    #[must_use]
    pub fn cells_bound(&self) -> u32 {
        self.cells.len() as u32
    }

    /// How many zones there are, with cells or without.
    #[must_use]
    pub fn zones_count(&self) -> usize {
        self.zones.len()
    }

    /// The zone of this name, added if it is new.
    ///
    /// # Errors
    /// [`Error::TooMany`] past [`ZONES_MAX`].
    pub fn zone(&mut self, name: &str) -> Result<ZoneIndex> {
        crate::demand::check_name("bytes of a zone's name", name)?;
        let position = self.zones.iter().position(|zone| **zone == *name).unwrap_or(self.zones.len());
        if position == ZONES_MAX {
            return Err(Error::TooMany { what: "zones", count: ZONES_MAX + 1, max: ZONES_MAX });
        }
        if position == self.zones.len() {
            self.zones.push(name.into());
        }
        Ok(ZoneIndex(position as u8))
    }

    /// The name of a zone.
    #[must_use]
    pub fn zone_name(&self, zone: ZoneIndex) -> Option<&str> {
        self.zones.get(usize::from(zone.0)).map(|name| &**name)
    }

    /// The class like this one, added if it is new.
    ///
    /// # Errors
    /// [`Error::TooMany`] past [`CLASSES_MAX`], or past [`NAMES_MAX`] names of a kind.
    pub fn class(&mut self, class: &Class) -> Result<ClassIndex> {
        for (what, names) in [
            ("stacks of a class", &class.stacks),
            ("tags of a class", &class.tags),
            ("reserving tags of a class", &class.reserved_for),
            ("volumes of a class", &class.volumes),
        ] {
            crate::demand::check_names(what, names)?;
            debug_assert!(names.len() <= NAMES_MAX);
        }
        let position = self.classes.iter().position(|known| known == class).unwrap_or(self.classes.len());
        if position == CLASSES_MAX {
            return Err(Error::TooMany { what: "classes", count: CLASSES_MAX + 1, max: CLASSES_MAX });
        }
        if position == self.classes.len() {
            self.classes.push(class.clone());
            self.pools.resize_with(self.classes.len() * ZONES_MAX, Vec::new);
        }
        Ok(ClassIndex(position as u8))
    }

    /// A cell joins; its index is its name until it leaves.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a class or zone that was not added, [`Error::TooMany`] past [`CELLS_MAX`].
    pub fn join(&mut self, class: ClassIndex, zone: ZoneIndex) -> Result<CellIndex> {
        if usize::from(zone.0) >= self.zones.len() {
            return Err(Error::Unknown { what: "zone", index: u32::from(zone.0) });
        }
        if usize::from(class.0) >= self.classes.len() {
            return Err(Error::Unknown { what: "class", index: u32::from(class.0) });
        }
        if self.vacant.len() <= VACANT_MIN && self.cells.len() >= CELLS_MAX as usize {
            return Err(Error::TooMany {
                what: "cells",
                count: self.cells.len() + 1,
                max: CELLS_MAX as usize,
            });
        }
        let reused = if self.vacant.len() > VACANT_MIN { self.vacant.pop_front() } else { None };
        let cell = reused.unwrap_or_else(|| {
            self.cells.push(None);
            CellIndex(self.cells.len() as u32 - 1)
        });
        let pool = &mut self.pools[pool_index(class, zone)];
        self.cells[cell.0 as usize] = Some(Place { class, zone, position: pool.len() as u32 });
        pool.push(cell);
        self.version += 1;
        Ok(cell)
    }

    /// A cell leaves; rounds that are under way stop asking it.
    ///
    /// # Errors
    /// [`Error::Unknown`] if it is not there.
    pub fn leave(&mut self, cell: CellIndex) -> Result<()> {
        let entry = self.cells.get_mut(cell.0 as usize);
        let place = entry.and_then(Option::take).ok_or(Error::Unknown { what: "cell", index: cell.0 })?;
        let pool = &mut self.pools[pool_index(place.class, place.zone)];
        pool.swap_remove(place.position as usize);
        if let Some(moved) = pool.get(place.position as usize) {
            let moved = self.cells[moved.0 as usize].as_mut();
            moved.expect("a pool holds only cells that are there").position = place.position;
        }
        self.vacant.push_back(cell);
        self.version += 1;
        Ok(())
    }

    /// Where a cell stands, or nothing if it left.
    #[must_use]
    pub fn place(&self, cell: CellIndex) -> Option<Place> {
        self.cells.get(cell.0 as usize).copied().flatten()
    }

    /// The classes whose cells may run what requires this.
    #[must_use]
    pub fn matching(&self, requirements: &Requirements) -> ClassSet {
        let matching = self.classes.iter().enumerate().filter(|(_, class)| class.matches(requirements));
        ClassSet(matching.fold(0, |set, (index, _)| set | 1 << index))
    }

    /// How many cells of `classes` are in `zones`.
    #[must_use]
    pub fn count(&self, classes: ClassSet, zones: ZoneSet) -> u32 {
        self.pools(classes, zones).map(|pool| pool.len() as u32).sum()
    }

    /// The `position`-th cell of `classes` in `zones`, by any order that stays while [`Self::version`] does.
    #[must_use]
    pub fn nth(&self, classes: ClassSet, zones: ZoneSet, position: u32) -> Option<CellIndex> {
        let mut left = position as usize;
        for pool in self.pools(classes, zones) {
            match pool.get(left) {
                Some(cell) => return Some(*cell),
                None => left -= pool.len(),
            }
        }
        None
    }

    fn pools(&self, classes: ClassSet, zones: ZoneSet) -> impl Iterator<Item = &[CellIndex]> {
        bits(classes.0).flat_map(move |class| {
            let pools = bits(u64::from(zones.0)).map(move |zone| class * ZONES_MAX + zone);
            pools.filter_map(|pool| self.pools.get(pool).map(Vec::as_slice))
        })
    }
}

/// The positions of the bits that are set, lowest first.
fn bits(mut left: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (left != 0).then(|| left.trailing_zeros() as usize);
        left &= left.wrapping_sub(1);
        bit
    })
}

/// Where the pool of a class and a zone is.
fn pool_index(class: ClassIndex, zone: ZoneIndex) -> usize {
    usize::from(class.0) * ZONES_MAX + usize::from(zone.0)
}
