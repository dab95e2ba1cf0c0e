//! Four amounts in one word, each in a quantum of its own.
//!
//! ```text
//!   63          48 47          32 31          16 15           0
//!  |  containers  |     disk     |    memory    |     cpu      |     16 bits each, never a carry between them
//! ```
//! A quantum is the smallest power of two (of the resource's unit) that brings the capacity into 16 bits: for 256 GiB of
//! memory 8 MiB, for 64 cores a thousandth. Sizes that people ask for are round in powers of two, so rounding a demand
//! up to quanta seldom costs anything, and a shift does it.

use crate::demand::{Resource, Resources, Shortage};
use crate::error::{Error, Result};

/// How many resources are in the word; ports are counted beside it.
pub const LANES_COUNT: usize = 4;
const LANE_BITS: u32 = 16;
const LANE_MAX: u64 = 0xffff;
/// The top bit of each lane.
const TOPS: u64 = 0x8000_8000_8000_8000;

/// Amounts in quanta: cpu, memory, disk, containers from the lowest lane up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lanes(pub u64);

impl Lanes {
    /// The amount in a lane, in quanta.
    #[must_use]
    pub const fn get(self, lane: usize) -> u32 {
        (self.0 >> (lane as u32 * LANE_BITS) & LANE_MAX) as u32
    }

    /// Which lanes of `need` are larger than here.
    #[must_use]
    pub const fn short_of(self, need: Self) -> Shortage {
        let (free, need) = (self.0, need.0);
        // Subtract lane by lane: the top bits are set apart so that no borrow leaves its lane, then put back.
        let difference = ((free | TOPS) - (need & !TOPS)) ^ ((free ^ !need) & TOPS);
        // A lane borrowed out of its top bit where need is above free.
        let borrows = ((!free & need) | (!(free ^ need) & difference)) & TOPS;
        let bits = borrows >> 15 | borrows >> 30 | borrows >> 45 | borrows >> 60;
        Shortage::from_bits((bits & 0xf) as u8)
    }
}

/// A cell's capacity in quanta, and the quanta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    total: Lanes,
    ports: u32,
    /// A lane's quantum is 2^shift.
    shifts: [u8; LANES_COUNT],
}

impl Shape {
    /// The shape of a cell that has `capacity`.
    ///
    /// # Errors
    /// [`Error::Capacity`] for amounts above [`Resource::max`], and for no cpu, memory or containers at all.
    pub fn new(capacity: &Resources) -> Result<Self> {
        let mut shape = Self { total: Lanes(0), ports: capacity.ports, shifts: [0; LANES_COUNT] };
        for (resource, amount) in Resource::ALL.into_iter().zip(capacity.amounts()) {
            let may_be_none = matches!(resource, Resource::Disk | Resource::Ports);
            if amount > resource.max() || amount == 0 && !may_be_none {
                return Err(Error::Capacity { resource, amount, limit: resource.max() });
            }
            let lane = resource as usize;
            if lane < LANES_COUNT {
                let bits = u32::BITS - amount.leading_zeros();
                let shift = bits.saturating_sub(LANE_BITS);
                let quanta = amount >> shift;
                shape.shifts[lane] = shift as u8;
                shape.total.0 |= u64::from(quanta) << (lane as u32 * LANE_BITS);
            }
        }
        Ok(shape)
    }

    /// The capacity, in quanta.
    #[must_use]
    pub const fn total(&self) -> Lanes {
        self.total
    }

    /// How many ports there are.
    #[must_use]
    pub const fn ports(&self) -> u32 {
        self.ports
    }

    /// What `resources` take here, rounded up to quanta.
    ///
    /// # Errors
    /// The resources of which they take more than a lane can say.
    pub fn need(&self, resources: &Resources) -> Result<Lanes, Shortage> {
        let (mut need, mut above) = (0, 0);
        for (lane, (amount, shift)) in resources.amounts().into_iter().zip(self.shifts).enumerate() {
            let quanta = (u64::from(amount) + ((1 << shift) - 1)) >> shift;
            above |= u8::from(quanta > LANE_MAX) << lane;
            need |= (quanta & LANE_MAX) << (lane as u32 * LANE_BITS);
        }
        if above == 0 { Ok(Lanes(need)) } else { Err(Shortage::from_bits(above)) }
    }

    /// Lanes as amounts in the resources' units.
    #[must_use]
    pub fn resources(&self, lanes: Lanes, ports: u32) -> Resources {
        let amount = |lane: usize| lanes.get(lane) << self.shifts[lane];
        Resources::from_amounts([amount(0), amount(1), amount(2), amount(3), ports])
    }

    /// The mean over the lanes of `quanta` as a fraction of the capacity, in units of 2^-16. A lane of no capacity
    /// counts as unused.
    #[must_use]
    pub fn mean_fraction(&self, quanta: Lanes) -> u64 {
        // Quanta have 16 bits, so the products have 32.
        let fraction = |lane| (quanta.get(lane) << 16).checked_div(self.total.get(lane)).unwrap_or(0);
        (0..LANES_COUNT).map(|lane| u64::from(fraction(lane))).sum::<u64>() / LANES_COUNT as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lanes(amounts: [u16; LANES_COUNT]) -> Lanes {
        Lanes(amounts.iter().rev().fold(0, |word, amount| word << LANE_BITS | u64::from(*amount)))
    }

    proptest! {
        #[test]
        fn short_of_compares_lane_by_lane(free: [u16; LANES_COUNT], need: [u16; LANES_COUNT]) {
            let expected = (0..LANES_COUNT)
                .filter(|lane| need[*lane] > free[*lane])
                .fold(Shortage::NONE, |set, lane| set.with(Resource::ALL[lane]));
            prop_assert_eq!(lanes(free).short_of(lanes(need)), expected);
        }

        #[test]
        fn quanta_hold_at_least_what_is_asked_for(capacity in 1u32..=crate::demand::AMOUNT_MAX, share in 0.0f64..=1.0) {
            let shape = Shape::new(&Resources {
                cpu_milli: capacity, memory_mib: capacity, disk_mib: capacity, containers: 1, ports: 0,
            }).unwrap();
            let amount = (f64::from(capacity) * share) as u32;
            let need = shape.need(&Resources { cpu_milli: amount, ..Resources::default() });
            let quantum = 1u32 << shape.shifts[0];
            prop_assert!(shape.total().get(0) <= 0xffff && shape.total().get(0) >= 0x8000.min(capacity));
            if let Ok(need) = need {
                let taken = shape.resources(need, 0).cpu_milli;
                prop_assert!(taken >= amount && taken - amount < quantum);
            }
        }
    }

    #[test]
    fn a_full_cell_is_one_and_an_empty_one_is_zero() {
        let capacity = Resources {
            cpu_milli: 64_000,
            memory_mib: 262_144,
            disk_mib: 1 << 20,
            containers: 250,
            ports: 9,
        };
        let shape = Shape::new(&capacity).unwrap();
        assert_eq!(shape.resources(shape.total(), 9), capacity);
        assert_eq!(shape.mean_fraction(Lanes(0)), 0);
        let full = shape.mean_fraction(shape.total());
        assert!((65_500..=65_536).contains(&full), "{full}");
    }

    #[test]
    fn absurd_capacities_are_refused() {
        let good = Resources { cpu_milli: 1, memory_mib: 1, disk_mib: 0, containers: 1, ports: 0 };
        assert!(Shape::new(&good).is_ok());
        for bad in [
            Resources { cpu_milli: 0, ..good },
            Resources { memory_mib: u32::MAX, ..good },
            Resources { containers: 0, ..good },
            Resources { containers: 1 << 16, ..good },
            Resources { ports: 1 << 16, ..good },
        ] {
            assert!(matches!(Shape::new(&bad), Err(Error::Capacity { .. })), "{bad:?}");
        }
    }
}
