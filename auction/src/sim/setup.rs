//! From a seed to the kind of world it has: most are small and wild, a few are large.

use crate::demand::Resources;
use crate::round::Config;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::MESSAGE_LIFE_US;

/// One seed in so many has a world of hundreds of cells.
pub(super) const MEDIUM_EVERY: u64 = 256;
/// One seed in so many has a world of thousands of cells.
pub(super) const LARGE_EVERY: u64 = 16_384;

/// How large a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Up to a dozen cells.
    Small,
    /// Hundreds of cells.
    Medium,
    /// Thousands of cells.
    Large,
}

impl Size {
    /// The size of a seed's world.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        if seed % LARGE_EVERY == LARGE_EVERY - 1 {
            Self::Large
        } else if seed % MEDIUM_EVERY == MEDIUM_EVERY - 1 {
            Self::Medium
        } else {
            Self::Small
        }
    }
}

/// The kind of a world. Chances are in 65,536ths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Cells at the start.
    pub cells: u32,
    /// Zones, 1 to 3.
    pub zones: u32,
    /// Classes of cells, 1 or 2.
    pub classes: u32,
    /// Auctioneers.
    pub auctioneers: u32,
    /// Batches.
    pub jobs: u32,
    /// The most instances of a batch.
    pub count_max: u32,
    /// The capacity of the largest cells.
    pub capacity: Resources,
    /// Batches come, and faults happen, until this time.
    pub calm_us: u64,
    /// The usual delay of a message.
    pub delay_us: u64,
    /// The chance that a message takes up to [`MESSAGE_LIFE_US`].
    pub slow: u32,
    /// The chance that a message is lost.
    pub loss: u32,
    /// The chance that a message comes twice.
    pub doubling: u32,
    /// The chance, at each step of a cell, that it crashes before, within or after it.
    pub cell_crash: u32,
    /// The chance, at each step of an auctioneer, that it crashes before it.
    pub auctioneer_crash: u32,
    /// The chance, at each happening, that the network parts.
    pub partition: u32,
    /// The chance that a cell is one that lies.
    pub liars: u32,
    /// Instances that end by themselves.
    pub finishes: u32,
    /// Cells that leave for good, and as many that join.
    pub moves: u32,
    /// How often cells free what is over.
    pub sweep_us: u64,
    /// How rounds work.
    pub round: Config,
}

impl Setup {
    /// The world of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        Self::of_size(seed, Size::of_seed(seed))
    }

    /// A world of a given size.
    #[must_use]
    pub fn of_size(seed: u64, size: Size) -> Self {
        // Not the generator of the world itself: what is drawn here must not shift what is drawn there.
        let mut rng = Pcg64Mcg::seed_from_u64(!seed);
        let mut draw = |low: u32, high: u32| rng.random_range(low..=high);
        let (cells, auctioneers, jobs, count_max) = match size {
            Size::Small => (draw(1, 12), draw(1, 6), draw(2, 30), 1 << draw(0, 4)),
            Size::Medium => (draw(60, 400), draw(8, 24), draw(60, 160), 1 << draw(0, 7)),
            Size::Large => (draw(2_000, 5_000), draw(32, 64), draw(100, 300), 1 << draw(4, 8)),
        };
        // Half of the worlds have a fault of a kind, or not; so each kind is also seen alone. Where more happens, a fault
        // at a happening is rarer.
        let rarer = if size == Size::Small { 1 } else { 16 };
        let mut chance = |most: u32| draw(0, 1) * draw(1, most);
        let (slow, loss, doubling) = (chance(4_000), chance(13_000), chance(9_000));
        let (cell_crash, auctioneer_crash, partition) =
            (chance(900 / rarer), chance(400 / rarer), chance(400 / rarer));
        let liars = chance(1) * chance(9_000);
        let (finishes, moves) = (chance(jobs), chance(3));
        let delay_us = u64::from(draw(20, 2_000));
        let round = round(delay_us, &mut draw);
        // Fills the cells of most worlds, of some twice over.
        let slots = (jobs * count_max / cells / draw(1, 3)).clamp(2, 24);
        Self {
            cells,
            zones: draw(1, 3),
            classes: draw(1, 2),
            auctioneers,
            jobs,
            count_max,
            capacity: Resources {
                cpu_milli: slots * 1_000,
                // Two of three worlds count memory in quanta of more than one.
                memory_mib: slots << draw(10, 15),
                disk_mib: slots * 2_000,
                containers: slots + slots / 4,
                ports: slots,
            },
            calm_us: u64::from(draw(20, 1_500)) * 1_000,
            delay_us,
            slow,
            loss,
            doubling,
            cell_crash,
            auctioneer_crash,
            partition,
            liars,
            finishes,
            moves,
            sweep_us: u64::from(draw(50, 500)) * 1_000,
            round,
        }
    }

    /// The same world, in which nothing goes wrong.
    #[must_use]
    pub fn without_faults(mut self) -> Self {
        for chance in [
            &mut self.slow,
            &mut self.loss,
            &mut self.doubling,
            &mut self.cell_crash,
            &mut self.auctioneer_crash,
            &mut self.partition,
            &mut self.liars,
            &mut self.moves,
        ] {
            *chance = 0;
        }
        self
    }
}

/// How the auctioneers of a world work, whose messages take so long.
fn round(delay_us: u64, draw: &mut impl FnMut(u32, u32) -> u32) -> Config {
    // From impatient, just above a round trip, to patient.
    let patience_us = delay_us * u64::from(draw(3, 12));
    let reserve_sends_max = draw(1, 4);
    let sends_us = patience_us * u64::from(reserve_sends_max);
    Config {
        ask_deadline_us: patience_us,
        reserve_deadline_us: patience_us,
        reserve_sends_max,
        ttl_us: sends_us + MESSAGE_LIFE_US + u64::from(draw(1, 300_000)),
        sample_min: draw(1, 4),
        sample_per_four: draw(4, 8),
        sample_per_four_uneven: draw(4, 24),
        uneven_above: u64::from(draw(0, 2_000)),
        uneven_within_us: u64::from(draw(0, 4_000)),
        ask_all_max: draw(0, 1) * draw(1, 200),
        memory: draw(0, 1) * draw(1, 8),
        stragglers_sixteenths: draw(0, 4),
        pack_choices: draw(1, 4),
    }
}
