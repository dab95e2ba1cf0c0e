//! One batch from demand to answers, without I/O: events in, effects out.
//!
//! ```text
//!              zone 0: wants 3   walk ─> ask ask ask ..       one ask for each cell, whatever the batch's count
//! batch ─deal─ zone 1: wants 3   walk ─> ask ask ask ..         │
//!              zone 2: wants 2   walk ─> ask ask ..             v
//!                 ^                                    bids: price of the 1st, 2nd .. instance there
//!                 │ no room: twice as many asks,                │ cheapest first
//!                 │ at last all cells; then the next zone       v
//!                 └──────── refused ──────────────────── reserve ──held──> Placed
//! ```
//! The caller executes effects (over a network, or on ledgers beside it) and feeds what comes back: each answer at most
//! counts once, late ones are used while they still can be, doubled and absurd ones change nothing. What never comes is
//! found by deadlines, for which the round asks with [`Effect::WakeAt`]. An unanswered reservation is sent again with
//! the same ids, which hold once; then it is cancelled and its instances go elsewhere, and should it hold after all, its
//! ttl frees it.
//!
//! A round reads no clock and draws from the caller's generator: same events, times, view and seed, same effects. Its
//! buffers are kept from batch to batch, so a round that has seen a batch as large allocates nothing.

mod answer;
mod ask;
mod deal;
mod dispersion;
mod memory;

pub use memory::MEMORY_MAX;

use crate::demand::{Batch, RESOURCES_COUNT, Resource, Resources, Strategy};
use crate::ledger::{Epoch, Refused, ReservationId};
use crate::score::{Bid, PRICE_ONE};
use crate::view::{CellIndex, ClassSet, View, Walk, ZONES_MAX, ZoneSet};
use dispersion::Dispersion;
use memory::{Memory, Recalled};
use rand::Rng;

/// The most asks that one wave may send; a scan of more cells takes several waves.
pub const WAVE_MAX: u32 = 4096;
/// The most asks that a round remembers. Beyond it those without room are forgotten.
pub const ASKS_MAX: usize = 4 * WAVE_MAX as usize;
/// How often a walk begins anew because cells joined or left under it.
pub const WALKS_MAX: u32 = 4;
/// How many cells a round asks once more because they restarted between bid and reservation, or had no slot for the id.
pub const REASKS_MAX: u32 = 64;

/// How a round works. Times in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// How long a wave of asks is waited for. Above a round trip with its tail; below what a client is patient for.
    pub ask_deadline_us: u64,
    /// How long an answer to a reservation is waited for before it is sent again.
    pub reserve_deadline_us: u64,
    /// How often a reservation is sent before it is cancelled, at least 1.
    pub reserve_sends_max: u32,
    /// How long a cell holds without a commit. Above all sends of a reservation and a start.
    pub ttl_us: u64,
    /// How many cells are asked for a single instance, at least 1. Four fresh bids balance as well as seeing all cells.
    pub sample_min: u32,
    /// How many cells are asked for every four instances of a batch, at least 4 (and `sample_min` in all). Among cells
    /// that are even a few to spare are enough: one that is slow or full costs no second wave.
    pub sample_per_four: u32,
    /// How many are asked for every four instances instead, where the cells that bid before were uneven.
    pub sample_per_four_uneven: u32,
    /// Cells are uneven where the use of those that bid was further than this from the middle, on the mean, in units of
    /// 2^-16 cells.
    pub uneven_above: u64,
    /// Cells whose bids take longer than this, on the mean, are not asked more for being uneven: they are busy, and a choice
    /// among old bids is no better for being wide.
    pub uneven_within_us: u64,
    /// Where no more cells than this could run an instance, all of them are asked: asking costs little there, and choosing
    /// from all keeps every cell within one instance of the mean.
    pub ask_all_max: u32,
    /// How many of the least used cells a round remembers, at most [`MEMORY_MAX`]. Of a sample, up to a third is asked
    /// from memory. 0 for none.
    pub memory: u32,
    /// Bids are dealt out before all have come, once only so many sixteenths of the asked are silent and the others
    /// have room enough: one slow cell holds nobody up.
    pub stragglers_sixteenths: u32,
    /// Packing chooses at random among so many of the fullest, at least 1, so that auctioneers do not collide.
    pub pack_choices: u32,
}

impl Config {
    /// For cells in one data centre.
    pub const DEFAULT: Self = Self {
        ask_deadline_us: 50_000,
        reserve_deadline_us: 50_000,
        reserve_sends_max: 3,
        ttl_us: 5_000_000,
        sample_min: 4,
        sample_per_four: 5,
        sample_per_four_uneven: 24,
        uneven_above: PRICE_ONE / 128,
        uneven_within_us: 1_000,
        ask_all_max: 128,
        memory: 32,
        stragglers_sixteenths: 2,
        pack_choices: 4,
    };
}

impl Default for Config {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Names an ask of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Names a reservation, of one or more instances on one cell, of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// What happened outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A cell answered an ask.
    Bid {
        /// Which.
        ask: AskId,
        /// Its bid; `room` 0 is a refusal.
        bid: Bid,
    },
    /// An ask failed for certain: no connection, no such cell. Saves waiting for the deadline.
    NoBid {
        /// Which.
        ask: AskId,
    },
    /// A cell answered a reservation: the first `held` ids hold.
    Reserved {
        /// Which.
        attempt: AttemptId,
        /// How many instances hold, 0 to the attempt's count.
        held: u32,
        /// Why not all.
        refused: Option<Refused>,
    },
    /// A reservation failed for certain and holds nothing: it was never sent.
    NotSent {
        /// Which.
        attempt: AttemptId,
    },
    /// The time of a [`Effect::WakeAt`] has come. Others do no harm.
    Wake,
}

/// What is to be done outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask a cell for a bid for the batch's demand.
    Ask {
        /// Names the answer.
        ask: AskId,
        /// Whom.
        cell: CellIndex,
        /// For how many instances at most.
        count: u32,
    },
    /// Reserve `count` instances on a cell, with the ids from `first` on.
    Reserve {
        /// Names the answer.
        attempt: AttemptId,
        /// Where.
        cell: CellIndex,
        /// The epoch of the bid.
        epoch: Epoch,
        /// The id of the first instance; the others follow in a row.
        first: ReservationId,
        /// How many.
        count: u32,
        /// How long to hold without a commit.
        ttl_us: u64,
    },
    /// Release what these ids may hold. No answer is needed: the ttl frees it too.
    Cancel {
        /// Where.
        cell: CellIndex,
        /// The first id.
        first: ReservationId,
        /// How many.
        count: u32,
    },
    /// These instances are held there, to be committed before the ttl is over.
    Placed {
        /// Where.
        cell: CellIndex,
        /// The epoch of the reservation.
        epoch: Epoch,
        /// The first id.
        first: ReservationId,
        /// How many.
        count: u32,
    },
    /// The round ends with so many instances not placed; see [`Round::refusal`]. Comes last, and at most once.
    Refused {
        /// How many.
        count: u32,
    },
    /// Feed [`Event::Wake`] at this time. A later one replaces it.
    WakeAt {
        /// The time.
        at_us: u64,
    },
}

/// Why instances were not placed: what the cells that were asked said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusal {
    /// On how many cells each resource was short, in the order of [`Resource::ALL`].
    pub short: [u32; RESOURCES_COUNT],
    /// How many cells were asked.
    pub cells_asked: u32,
    /// How many of them had no room for the table's sake, were in a new epoch, or lost a race.
    pub contended: u32,
    /// How many of them did not answer in time: with any, the refusal does not say that there is no room.
    pub unreachable: u32,
    /// What is free on the cell that came nearest to having room.
    pub largest: Resources,
}

impl Refusal {
    /// On how many cells `resource` was short.
    #[must_use]
    pub fn short_of(&self, resource: Resource) -> u32 {
        self.short[resource as usize]
    }

    /// Whether every cell that could have had room said that it has none.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.unreachable == 0
    }
}

/// What a round knows of an ask.
#[derive(Debug, Clone, Copy)]
struct Ask {
    cell: CellIndex,
    group: u8,
    state: AskState,
    room: u32,
    /// Instances that a deal has set apart for it.
    dealt: u32,
    /// Instances that were sent to it.
    given: u32,
    first: u64,
    step: u64,
    /// By its bid, at most [`PRICE_ONE`].
    used: u64,
    epoch: Epoch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AskState {
    Waiting,
    /// The deadline has passed; a bid is still welcome.
    Late,
    Answered,
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    cell: CellIndex,
    group: u8,
    state: AttemptState,
    sends: u32,
    count: u32,
    ask: AskId,
    epoch: Epoch,
    first: ReservationId,
    deadline_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptState {
    Sent,
    Abandoned,
    Answered,
}

/// A zone that instances are dealt to, or all zones at once where zones play no part.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    zones: ZoneSet,
    /// Instances of the app there: before the round, and dealt in it.
    instances: u32,
    /// Instances that have neither a cell nor an attempt at one.
    wanted: u32,
    /// How many instances the bids at hand have room for.
    room: u32,
    /// How many cells the next wave asks.
    sample: u32,
    waves: u32,
    walk: Walk,
    version: u64,
    walks: u32,
    is_exhausted: bool,
}

/// One batch on its way. Reused for batch after batch.
#[derive(Debug)]
pub struct Round {
    config: Config,
    batch: Option<Batch>,
    /// Whether bids are remembered: the batch is spread, and not all cells are asked anyway.
    remembers: bool,
    classes: ClassSet,
    groups: [Group; ZONES_MAX],
    groups_count: usize,
    /// How many cells are of the right class and zone.
    cells_count: u32,
    /// Instances for which no cell is of the right class and zone.
    unplaceable: u32,
    asks: Vec<Ask>,
    asks_base: u64,
    waiting: u32,
    /// Bids are dealt out when no more than so many are waited for.
    threshold: u32,
    asks_deadline_us: u64,
    /// When the first asks were sent, and how long their bids took.
    asked_us: u64,
    wait_us: Option<u64>,
    attempts: Vec<Attempt>,
    attempts_base: u64,
    attempts_open: u32,
    reasks: u32,
    refusal: Refusal,
    nearest: u64,
    wake_us: u64,
    is_done: bool,
    memory: Memory,
    dispersion: Dispersion,
    recalled: Recalled,
    keys: Vec<u64>,
    heap: std::collections::BinaryHeap<std::cmp::Reverse<u64>>,
}

impl Round {
    /// A round that has nothing to do yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            batch: None,
            remembers: true,
            classes: ClassSet::default(),
            groups: [Group::default(); ZONES_MAX],
            groups_count: 0,
            cells_count: 0,
            unplaceable: 0,
            asks: Vec::new(),
            asks_base: 0,
            waiting: 0,
            threshold: 0,
            asks_deadline_us: 0,
            asked_us: 0,
            wait_us: None,
            attempts: Vec::new(),
            attempts_base: 0,
            attempts_open: 0,
            reasks: 0,
            refusal: Refusal::default(),
            nearest: 0,
            wake_us: u64::MAX,
            is_done: true,
            memory: Memory::new(config.memory),
            dispersion: Dispersion::default(),
            recalled: Recalled::default(),
            keys: Vec::new(),
            heap: std::collections::BinaryHeap::new(),
        }
    }

    /// Begins with a batch; what was under way is given up (its reservations expire). Answers to earlier batches of this
    /// round are recognised and ignored.
    pub fn begin<R: Rng + ?Sized>(
        &mut self,
        batch: Batch,
        now_us: u64,
        view: &View,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) {
        self.forget();
        self.asked_us = now_us;
        self.classes = view.matching(&batch.demand().requirements);
        self.make_groups(&batch, view);
        self.remembers = batch.demand().strategy == Strategy::Spread && !self.asks_all();
        let count = batch.count();
        self.batch = Some(batch);
        self.unplaceable = self.deal_to_groups(count, rng);
        self.advance(now_us, view, rng, effects);
    }

    /// Takes in what happened and adds what is to be done.
    pub fn step<R: Rng + ?Sized>(
        &mut self,
        event: Event,
        now_us: u64,
        view: &View,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) {
        let may_advance = match event {
            Event::Bid { ask, bid } => self.take_bid(ask, &bid),
            Event::NoBid { ask } => self.take_no_bid(ask),
            Event::Reserved { attempt, held, refused } => {
                self.take_reserved(attempt, held, refused, now_us, effects)
            }
            Event::NotSent { attempt } => self.take_not_sent(attempt),
            Event::Wake => self.take_wake(now_us, effects),
        };
        if may_advance && !self.is_done {
            self.advance(now_us, view, rng, effects);
        }
    }

    /// Whether everything is placed or refused.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// The batch under way, or the last one.
    #[must_use]
    pub fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// What the cells said that had no room, so far.
    #[must_use]
    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }
}
