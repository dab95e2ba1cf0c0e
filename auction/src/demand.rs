//! What an instance needs, and a batch of equal ones.
//!
//! ```text
//! Batch { demand, count, placed }                count equal instances, placed so far per zone
//!         └─ Demand { app, resources, requirements, zone, strategy, priority }
//!                          │            └─ which classes of cells may run it (see `view`)
//!                          └─ cpu_milli, memory_mib, disk_mib, containers, ports
//! ```
//! Batches are the unit of the auction: the instances of an app that are wanted now are placed by one round.

use crate::error::{Error, Result};
use crate::view::{ZONES_MAX, ZoneIndex};
use std::cmp::Ordering;
use std::fmt;

/// The most instances that one batch may have. A larger wish is several batches.
pub const BATCH_MAX: u32 = 1024;
/// The most that one demand, or one cell, may have of a resource. Twice this still fits a `u32`, so no sum of two
/// amounts overflows. 2^30 thousandths of a core are a million cores; 2^30 MiB are a pebibyte.
pub const AMOUNT_MAX: u32 = 1 << 30;
/// The most container slots or ports that one cell may have, and one demand may ask for.
pub const SLOTS_MAX: u32 = u16::MAX as u32;
/// The most tags, volumes or stacks that a demand or a class may name.
pub const NAMES_MAX: usize = 32;
/// The longest name of a tag, volume, stack or architecture, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// A resource of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    /// Thousandths of a core.
    Cpu,
    /// MiB of memory.
    Memory,
    /// MiB of disk.
    Disk,
    /// Container slots.
    Containers,
    /// Host ports.
    Ports,
}

/// How many resources there are.
pub const RESOURCES_COUNT: usize = 5;

impl Resource {
    /// All of them, in the order of [`Shortage`]'s bits and of [`Resources::amounts`].
    pub const ALL: [Self; RESOURCES_COUNT] =
        [Self::Cpu, Self::Memory, Self::Disk, Self::Containers, Self::Ports];

    /// The most that a cell may have and a demand may ask for, in the resource's unit.
    #[must_use]
    pub const fn max(self) -> u32 {
        match self {
            Self::Cpu | Self::Memory | Self::Disk => AMOUNT_MAX,
            Self::Containers | Self::Ports => SLOTS_MAX,
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu_milli",
            Self::Memory => "memory_mib",
            Self::Disk => "disk_mib",
            Self::Containers => "containers",
            Self::Ports => "ports",
        })
    }
}

/// A set of resources: those of which a cell has too little.
///
/// Bits as in `auction.proto`: 1 cpu, 2 memory, 4 disk, 8 containers, 16 ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shortage(u8);

impl Shortage {
    /// Nothing is short.
    pub const NONE: Self = Self(0);

    /// The set with these bits; unknown ones are dropped.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & ((1 << RESOURCES_COUNT) - 1))
    }

    /// The bits of the set.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set with `resource` in it.
    #[must_use]
    pub const fn with(self, resource: Resource) -> Self {
        Self(self.0 | 1 << resource as u8)
    }

    /// Whether `resource` is in the set.
    #[must_use]
    pub const fn has(self, resource: Resource) -> bool {
        self.0 & 1 << resource as u8 != 0
    }

    /// Whether nothing is short.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The resources in the set.
    pub fn iter(self) -> impl Iterator<Item = Resource> {
        Resource::ALL.into_iter().filter(move |resource| self.has(*resource))
    }
}

/// Amounts of each resource: what an instance needs, or what a cell has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// MiB of memory.
    pub memory_mib: u32,
    /// MiB of disk.
    pub disk_mib: u32,
    /// Container slots.
    pub containers: u32,
    /// Host ports.
    pub ports: u32,
}

impl Resources {
    /// The amounts in the order of [`Resource::ALL`].
    #[must_use]
    pub const fn amounts(&self) -> [u32; RESOURCES_COUNT] {
        [self.cpu_milli, self.memory_mib, self.disk_mib, self.containers, self.ports]
    }

    /// The amounts given in the order of [`Resource::ALL`].
    #[must_use]
    pub const fn from_amounts(amounts: [u32; RESOURCES_COUNT]) -> Self {
        let [cpu_milli, memory_mib, disk_mib, containers, ports] = amounts;
        Self { cpu_milli, memory_mib, disk_mib, containers, ports }
    }
}

/// An app, by a number that all of its instances share (a hash of its name will do).
///
/// Ledgers count an app's instances under the low 48 bits of a hash of this; see [`crate::ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AppId(pub u64);

/// How the instances of an app are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// Evenly over zones and cells, each where least is used.
    #[default]
    Spread,
    /// On the fullest cells that still have room, so that others stay empty.
    Pack,
}

/// Which zones an instance may be placed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ZoneRule {
    /// The zone with the fewest instances of the app; the next one when there is no room.
    #[default]
    Balance,
    /// Any zone: zones play no part.
    Any,
    /// This zone only.
    Only(ZoneIndex),
}

/// What a cell must be or have to run an instance. Names are compared byte by byte; an empty list asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Requirements {
    /// The machine's architecture, as OCI writes it (`amd64`, `arm64`).
    pub architecture: Option<Box<str>>,
    /// The root filesystem that must be there (Diego's "stack").
    pub stack: Option<Box<str>>,
    /// Placement tags: the cell must have all of them.
    pub tags: Vec<Box<str>>,
    /// Volume drivers: the cell must have all of them.
    pub volumes: Vec<Box<str>>,
}

/// What one instance needs, and how it is to be placed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Demand {
    /// The app that the instance belongs to.
    pub app: AppId,
    /// What it needs of its cell.
    pub resources: Resources,
    /// What its cell must be or have.
    pub requirements: Requirements,
    /// Which zones it may be placed in.
    pub zone: ZoneRule,
    /// How the app's instances are laid out.
    pub strategy: Strategy,
    /// Higher goes first when several batches wait.
    pub priority: u8,
}

impl Demand {
    /// Whether an auction can work with this.
    ///
    /// # Errors
    /// [`Error::NoContainer`], [`Error::Absurd`], [`Error::TooMany`].
    pub fn check(&self) -> Result<()> {
        if self.resources.containers == 0 {
            return Err(Error::NoContainer);
        }
        for (resource, amount) in Resource::ALL.into_iter().zip(self.resources.amounts()) {
            if amount > resource.max() {
                return Err(Error::Absurd { resource, amount, limit: resource.max() });
            }
        }
        let requirements = &self.requirements;
        check_names("tags of a demand", &requirements.tags)?;
        check_names("volumes of a demand", &requirements.volumes)?;
        let single = [requirements.architecture.as_deref(), requirements.stack.as_deref()];
        single.into_iter().flatten().try_for_each(|name| check_name("bytes of a name", name))
    }

    /// The order in which waiting batches are placed: higher priority first, then larger instances first, because small
    /// ones still fit into what large ones leave (Diego's `SortableAuctions`: memory, then the rest).
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        let key = |demand: &Self| {
            let Resources { cpu_milli, memory_mib, disk_mib, .. } = demand.resources;
            (demand.priority, memory_mib, disk_mib, cpu_milli)
        };
        key(other).cmp(&key(self)).then(self.app.cmp(&other.app))
    }
}

/// Refuses a list of names that is too long, or that holds too long a name.
pub(crate) fn check_names(what: &'static str, names: &[Box<str>]) -> Result<()> {
    if names.len() > NAMES_MAX {
        return Err(Error::TooMany { what, count: names.len(), max: NAMES_MAX });
    }
    names.iter().try_for_each(|name| check_name("bytes of a name", name))
}

/// Refuses a name that is too long.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Error::TooMany { what, count: name.len(), max: NAME_BYTES_MAX });
    }
    Ok(())
}

/// Equal instances that are wanted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    demand: Demand,
    count: u32,
    placed: [u32; ZONES_MAX],
}

impl Batch {
    /// `count` instances of `demand`, of which `placed[zone]` run already in each zone (missing zones have none).
    ///
    /// # Errors
    /// [`Error::BatchCount`] unless 1 <= `count` <= [`BATCH_MAX`]; what [`Demand::check`] says; [`Error::TooMany`] for
    /// more zones than [`ZONES_MAX`].
    pub fn new(demand: Demand, count: u32, placed: &[u32]) -> Result<Self> {
        if !(1..=BATCH_MAX).contains(&count) {
            return Err(Error::BatchCount { count, max: BATCH_MAX });
        }
        if placed.len() > ZONES_MAX {
            return Err(Error::TooMany { what: "zones of a batch", count: placed.len(), max: ZONES_MAX });
        }
        demand.check()?;
        let mut by_zone = [0; ZONES_MAX];
        by_zone[..placed.len()].copy_from_slice(placed);
        Ok(Self { demand, count, placed: by_zone })
    }

    /// What each instance needs.
    #[must_use]
    pub fn demand(&self) -> &Demand {
        &self.demand
    }

    /// How many instances are wanted, 1 to [`BATCH_MAX`].
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// How many of the app's instances run already, by zone.
    #[must_use]
    pub fn placed(&self) -> &[u32; ZONES_MAX] {
        &self.placed
    }
}
