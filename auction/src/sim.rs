//! A seeded world that tries to break the auction: real ledgers and real rounds, simulated time, network and faults.
//!
//! ```text
//! seed ─> setup ─> world:  queue of happenings by time
//!                    │
//!     auctioneers (real Rounds) <── network: delay, loss, doubling, reordering, partitions ──> cells (real Ledgers)
//!     crash between any two steps, lose all        │                    crash between any two steps: keep what is
//!                                                  │                    committed (a process) or nothing (a machine)
//!                                                  v
//!             after every happening: each touched ledger beside an account in plain arithmetic, and the
//!             books of the desired state: what is wanted = what is committed somewhere + what was refused
//! ```
//! | checked | when |
//! |---|---|
//! | a ledger's free amounts, holds, states, counts are those of its account; so nothing is negative, lost or held twice | after every happening at the cell |
//! | a bid's room is the account's; a reservation's answer too; nothing is held under a past epoch | at each answer |
//! | no batch has more instances committed than are wanted of it | at each commit |
//! | nothing is held past its ttl | after each sweep |
//! | no certain refusal while a cell had room all through the round | at each refusal |
//! | everything wanted is committed once or was refused; nothing is held | when all is quiet |
//!
//! # What is assumed
//! A message lives for [`MESSAGE_LIFE_US`] at most, and ttls are above it together with all sends of a reservation: else a
//! doubled reservation and a doubled commit that come after everything was over would revive an instance. Deadlines
//! on every call see to that on a real network. Beyond `setup`'s calm no new faults happen, so that all must end.

mod account;
mod auctioneer;
mod books;
mod cell;
mod message;
mod queue;
mod serve;
mod setup;
mod world;

pub use queue::Queue;
pub use setup::{Setup, Size};

use std::fmt;

/// The longest that a message is under way.
pub const MESSAGE_LIFE_US: u64 = 200_000;
/// The most happenings of a run: a world that is not quiet by then never will be.
pub const EVENTS_MAX: u64 = 20_000_000;

/// A defect to build into the world, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Cells reserve whatever epoch the reservation names.
    EpochForgotten,
    /// Cells hold anew when an id comes a second time.
    IdempotencyIgnored,
    /// Cells never free what is over.
    ExpiryForgotten,
    /// Cells give back twice what is cancelled.
    CancelDoubled,
    /// A restarted cell goes on in its old epoch.
    EpochReused,
    /// Auctioneers know of one cell less than there are, and do not know that.
    CellOverlooked,
    /// Auctioneers commit what they cancelled.
    CancelledCommitted,
    /// Auctioneers take a commit as done that the cell knows nothing of.
    LossIgnored,
    /// Cells bid as if nothing were held.
    PendingUnpriced,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::EpochForgotten,
        Self::IdempotencyIgnored,
        Self::ExpiryForgotten,
        Self::CancelDoubled,
        Self::EpochReused,
        Self::CellOverlooked,
        Self::CancelledCommitted,
        Self::LossIgnored,
        Self::PendingUnpriced,
    ];
}

/// What a run did, to see that it did enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Worlds that were run.
    pub seeds: u64,
    /// Cells, over all worlds.
    pub cells: u64,
    /// Happenings.
    pub events: u64,
    /// Messages sent, doubled ones once.
    pub messages: u64,
    /// Messages lost, to chance, partitions or crashed receivers.
    pub lost: u64,
    /// Messages that came twice.
    pub doubled: u64,
    /// Instances committed.
    pub committed: u64,
    /// Instances whose hold was gone when the commit came, or whose cell was lost: placed anew.
    pub replaced: u64,
    /// Instances refused with every cell's answer.
    pub refused_certain: u64,
    /// Instances refused with some cells silent.
    pub refused_uncertain: u64,
    /// Reservations that a cell refused after it had bid.
    pub reservations_refused: u64,
    /// Crashes of cells.
    pub cell_crashes: u64,
    /// Crashes of auctioneers.
    pub auctioneer_crashes: u64,
    /// Partitions.
    pub partitions: u64,
}

impl Summary {
    /// Adds what another run did.
    pub fn add(&mut self, other: &Self) {
        let mine = self.fields_mut();
        for (mine, other) in mine.into_iter().zip(other.fields()) {
            *mine += other.1;
        }
    }

    /// The numbers with their names.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, u64); 14] {
        [
            ("seeds", self.seeds),
            ("cells", self.cells),
            ("events", self.events),
            ("messages", self.messages),
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("committed", self.committed),
            ("replaced", self.replaced),
            ("refused, certain", self.refused_certain),
            ("refused, uncertain", self.refused_uncertain),
            ("reservations refused", self.reservations_refused),
            ("cell crashes", self.cell_crashes),
            ("auctioneer crashes", self.auctioneer_crashes),
            ("partitions", self.partitions),
        ]
    }

    fn fields_mut(&mut self) -> [&mut u64; 14] {
        [
            &mut self.seeds,
            &mut self.cells,
            &mut self.events,
            &mut self.messages,
            &mut self.lost,
            &mut self.doubled,
            &mut self.committed,
            &mut self.replaced,
            &mut self.refused_certain,
            &mut self.refused_uncertain,
            &mut self.reservations_refused,
            &mut self.cell_crashes,
            &mut self.auctioneer_crashes,
            &mut self.partitions,
        ]
    }
}

/// An invariant that did not hold. Its text is one line, with the command that shows it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The seed of the world.
    pub seed: u64,
    /// The simulated time, in microseconds.
    pub now_us: u64,
    /// What was wrong.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, now_us, what } = self;
        write!(f, "seed {seed} at {now_us} us: {what}; again: ")?;
        write!(f, "cargo run -p benches --release -- auction --simulate --seed {seed}")
    }
}

impl std::error::Error for Violation {}

/// Runs the world of `seed`.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run(seed: u64) -> Result<Summary, Violation> {
    world::World::new(seed, &Setup::of_seed(seed), None).run(&mut |_, _| {})
}

/// Runs the world of `seed` with a defect in it.
///
/// # Errors
/// The first invariant that does not hold: what is hoped for.
pub fn run_mutated(seed: u64, mutation: Mutation) -> Result<Summary, Violation> {
    world::World::new(seed, &Setup::of_seed(seed), Some(mutation)).run(&mut |_, _| {})
}

/// Runs the world of `seed` as `setup` says, and shows each happening with its time before it happens.
///
/// # Errors
/// The first invariant that does not hold.
pub fn run_shown(
    seed: u64,
    setup: &Setup,
    show: &mut dyn FnMut(u64, &dyn fmt::Debug),
) -> Result<Summary, Violation> {
    world::World::new(seed, setup, None).run(show)
}
