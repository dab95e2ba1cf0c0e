//! What a cell has left, in atomics: reserve, commit, release and expire without a lock and without an allocation.
//!
//! ```text
//! free    | containers:16 | disk:16 | memory:16 | cpu:16 |    one word, one compare-and-swap, see `lanes`
//! table   id -> state, lanes, ports, app, expiry              fixed size, see `table`
//! apps    app -> instances on this cell                       fixed size, see `apps`
//!
//!            reserve                commit
//!   (none) ──────────> held ─────────────────> committed
//!     ^                 │ release, expire,         │ release
//!     └─────────────────┴─ a new epoch ────────────┘
//! ```
//! A reservation has an id that the auctioneer draws at random. The same id holds once however often it is asked for,
//! so a lost answer is found by asking again. What is held and not committed when its time is over becomes free; what
//! is committed stays until it is released. A new [`Epoch`] frees what was only held and refuses what was planned on
//! bids of the epoch before: a cell begins one when it restarts, or when its promises no longer hold.
//!
//! # Orderings
//! - `free`, `ports` and `starting` are sums: nothing is read through them, so `Relaxed` is enough, and the
//!   modification order of the one word alone keeps it from going below zero.
//! - A slot of the table is written by who claimed it and published by its state, with `Release`; who reads the state
//!   with `Acquire` sees the slot as it was published. See `table`.
//! - Three pairs of "I write mine, then I read yours" (two claims of one id, a claim and a new epoch, a claim in the
//!   second bucket and one in the first) need one order of all fences: each side has `fence(SeqCst)` between its write
//!   and its read, so at least one of the two sees the other.
//!
//! The models in `tests/loom.rs` try every interleaving of two or three threads.

mod apps;
mod lanes;
mod sync;
mod table;

pub use lanes::{LANES_COUNT, Lanes, Shape};

use crate::demand::{AppId, Demand, Resource, Resources, Shortage};
use crate::error::Result;
use crate::score::{self, Bid, Snapshot};
use apps::Apps;
use rand::Rng;
use std::num::NonZeroU64;
use sync::{AtomicU32, AtomicU64, Ordering, fence};
use table::{Amounts, Claim, Table};

/// The longest that a reservation may be held without a commit, in microseconds. Longer wishes are cut to it.
pub const TTL_MAX_US: u64 = 10 * 60 * 1_000_000;
/// How often a compare-and-swap is tried anew before the answer is [`Refused::Busy`]. Each failure means that another
/// thread succeeded, so this many failures in a row mean this many reservations of others in between.
const SWAP_TRIES_MAX: u32 = 1024;

/// A life of a cell's promises. Larger is later; a cell that restarts begins a larger one (its boot time will do).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// The id of a reservation, drawn at random by who asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationId(NonZeroU64);

impl ReservationId {
    /// The id with this number, or nothing for 0, which marks a free slot.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// A random id below 2^63 + 1, so that the ids after it never wrap to 0.
    pub fn random<R: Rng + ?Sized>(rng: &mut R) -> Self {
        Self(NonZeroU64::MIN.saturating_add(rng.next_u64() >> 1))
    }

    /// The `offset`-th id after this one; instances that one message reserves have ids in a row.
    #[must_use]
    pub const fn plus(self, offset: u32) -> Self {
        Self(self.0.saturating_add(offset as u64))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// How a reservation is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The epoch of the bid that the reservation rests on.
    pub epoch: Epoch,
    /// The cell's time now, in microseconds.
    pub now_us: u64,
    /// How long to hold without a commit, in microseconds; at most [`TTL_MAX_US`] counts.
    pub ttl_us: u64,
}

/// What became of a reservation that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reserved {
    /// It holds from now on.
    Now,
    /// It held before: the same id was reserved already.
    Already,
}

/// Why a reservation does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// These resources are short.
    Short(Shortage),
    /// The cell is in this other epoch: ask it for a new bid.
    Epoch(Epoch),
    /// Another thread is at the same id or slot at this moment: ask again, or cancel and go elsewhere.
    Busy,
    /// The table has no slot for this id: go elsewhere.
    Full,
}

/// What became of a commit or a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is so now. A commit of what is committed is done too.
    Done,
    /// No such reservation: it expired, was released, was of another epoch, or never was.
    Unknown,
    /// Another thread is at the same id at this moment: try again.
    Busy,
}

/// What a cell knows of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Held until a time in microseconds.
    Held {
        /// When it becomes free unless it is committed.
        expires_us: u64,
    },
    /// Committed: it stays until it is released.
    Committed,
}

/// A live reservation, as [`Ledger::each`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: ReservationId,
    /// Whether it is held or committed.
    pub state: State,
    /// What it takes of the cell, rounded up to the cell's quanta.
    pub takes: Resources,
}

/// What a cell has left. See the [module](self).
///
/// What a bid reads, all but the table, is in the first cache line: an auctioneer that asks many cells beside it pays
/// for each line of each of them.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Ledger {
    free: AtomicU64,
    epoch: AtomicU64,
    ports: AtomicU32,
    /// How many reservations are held and not committed.
    starting: AtomicU32,
    shape: Shape,
    apps: Apps,
    table: Table,
}

impl Ledger {
    /// A ledger of a cell that has `capacity`, with room for at least `reservations` at once (held and committed; four
    /// times that many slots are kept, so that random ids find one).
    ///
    /// # Errors
    /// [`crate::Error::Capacity`] for a capacity that no cell has.
    pub fn new(capacity: &Resources, reservations: u32, epoch: Epoch) -> Result<Self> {
        let shape = Shape::new(capacity)?;
        let slots =
            reservations.clamp(1, crate::demand::SLOTS_MAX).saturating_mul(table::SLOTS_PER_RESERVATION);
        Ok(Self {
            free: AtomicU64::new(shape.total().0),
            ports: AtomicU32::new(shape.ports()),
            starting: AtomicU32::new(0),
            apps: Apps::new(slots / 2),
            table: Table::new(slots),
            shape,
            epoch: AtomicU64::new(epoch.0),
        })
    }

    /// The cell's capacity, in its quanta.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// What is free now.
    #[must_use]
    pub fn free(&self) -> Resources {
        self.shape.resources(Lanes(self.free.load(Ordering::Relaxed)), self.ports.load(Ordering::Relaxed))
    }

    /// How many reservations are held and not committed.
    #[must_use]
    pub fn starting(&self) -> u32 {
        self.starting.load(Ordering::Relaxed)
    }

    /// How many instances of `app` are held or committed here.
    #[must_use]
    pub fn instances(&self, app: AppId) -> u32 {
        self.apps.count(app)
    }

    /// The epoch that the cell is in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        // Acquire: who saw the new epoch sees what its beginner wrote before it.
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    /// The state that a bid for an instance of `app` rests on.
    #[must_use]
    pub fn snapshot(&self, app: AppId) -> Snapshot<'_> {
        Snapshot {
            shape: &self.shape,
            free: Lanes(self.free.load(Ordering::Relaxed)),
            ports: self.ports.load(Ordering::Relaxed),
            starting: self.starting(),
            same_app: self.apps.count(app),
        }
    }

    /// Reads what every call will read, and says something about it that has no meaning.
    ///
    /// For who asks many ledgers in a row: with all of them read first, independently of each other, a processor waits
    /// for memory once and not for each.
    #[must_use]
    pub fn warm(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Reads what a bid for an instance of `app` will read, after [`Self::warm`].
    #[must_use]
    pub fn warm_bid(&self, app: AppId) -> u64 {
        u64::from(self.apps.warm(app))
    }

    /// Reads what a search for `id` will read, after [`Self::warm`].
    #[must_use]
    pub fn warm_find(&self, id: ReservationId) -> u64 {
        self.table.warm_ids(id)
    }

    /// Reads what a reservation under `id` will read, after [`Self::warm_find`].
    #[must_use]
    pub fn warm_reserve(&self, id: ReservationId) -> u64 {
        self.table.warm_slot(id)
    }

    /// A bid for up to `count` instances of `demand`. Holds nothing.
    #[must_use]
    pub fn bid(&self, demand: &Demand, count: u32) -> Bid {
        // The epoch first: a bid from a later state under an earlier epoch is refused, one the other way round is not.
        let epoch = self.epoch();
        score::bid(&self.snapshot(demand.app), demand, count, epoch)
    }

    /// Holds what one instance of `demand` needs, once for each id.
    ///
    /// # Errors
    /// [`Refused`], with nothing held.
    pub fn reserve(&self, id: ReservationId, demand: &Demand, terms: Terms) -> Result<Reserved, Refused> {
        match self.try_reserve(id, demand, terms) {
            // What is over but not yet swept is room. One sweep, one more try.
            Err(Refused::Short(_) | Refused::Full) if self.expire(terms.now_us) > 0 => {
                self.try_reserve(id, demand, terms)
            }
            other => other,
        }
    }

    /// Holds up to `count` instances with ids from `first` on, and says how many of them: ids are tried in order and
    /// the first refusal ends it, so exactly the first `n` ids hold. The refusal is there if fewer than `count` do.
    pub fn reserve_batch(
        &self,
        first: ReservationId,
        count: u32,
        demand: &Demand,
        terms: Terms,
    ) -> (u32, Option<Refused>) {
        for held in 0..count {
            if let Err(refused) = self.reserve(first.plus(held), demand, terms) {
                return (held, Some(refused));
            }
        }
        (count, None)
    }

    fn try_reserve(&self, id: ReservationId, demand: &Demand, terms: Terms) -> Result<Reserved, Refused> {
        if self.epoch() != terms.epoch {
            return Err(Refused::Epoch(self.epoch()));
        }
        let claim = match self.table.claim(id) {
            Claim::New(claim) => claim,
            Claim::Exists => return Ok(Reserved::Already),
            Claim::Busy => return Err(Refused::Busy),
            Claim::Full => return Err(Refused::Full),
        };
        // The claim's fence lies between its write of the id and this read; `begin_epoch` has one between its write of
        // the epoch and its look at the slots. So either this sees the new epoch, or that finds the claim and spoils
        // it, and `publish` below fails.
        let epoch = Epoch(self.epoch.load(Ordering::Relaxed));
        if epoch != terms.epoch {
            self.table.abandon(claim);
            return Err(Refused::Epoch(epoch));
        }
        let amounts = match self.take(demand) {
            Ok(amounts) => amounts,
            Err(refused) => {
                self.table.abandon(claim);
                return Err(refused);
            }
        };
        let expires_us = terms.now_us.saturating_add(terms.ttl_us.min(TTL_MAX_US));
        self.starting.fetch_add(1, Ordering::Relaxed);
        if self.table.publish(&claim, amounts, expires_us) {
            return Ok(Reserved::Now);
        }
        self.starting.fetch_sub(1, Ordering::Relaxed);
        self.give_back(amounts);
        self.table.abandon(claim);
        let epoch = self.epoch();
        // A sweep that is slow may spoil a claim of the epoch it began: nothing is wrong with the id then.
        Err(if epoch == terms.epoch { Refused::Busy } else { Refused::Epoch(epoch) })
    }

    /// Takes what one instance needs out of the sums, or nothing at all.
    fn take(&self, demand: &Demand) -> Result<Amounts, Refused> {
        let ports = demand.resources.ports;
        self.take_ports(ports).map_err(|refused| self.all_short(refused, &demand.resources))?;
        match self.take_lanes(&demand.resources) {
            Ok(lanes) => Ok(Amounts { lanes, ports, app: self.apps.add(demand.app) }),
            Err(refused) => {
                self.give_back_ports(ports);
                Err(refused)
            }
        }
    }

    fn take_ports(&self, ports: u32) -> Result<(), Refused> {
        if ports == 0 {
            return Ok(());
        }
        let mut free = self.ports.load(Ordering::Relaxed);
        for _ in 0..SWAP_TRIES_MAX {
            let none = Refused::Short(Shortage::NONE.with(Resource::Ports));
            let left = free.checked_sub(ports).ok_or(none)?;
            match self.ports.compare_exchange_weak(free, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => free = now,
            }
        }
        Err(Refused::Busy)
    }

    /// A refusal for want of ports, with all else that is short: an auctioneer counts what it is told.
    fn all_short(&self, refused: Refused, resources: &Resources) -> Refused {
        let free = Lanes(self.free.load(Ordering::Relaxed));
        match (refused, score::fits(&self.shape, free, 0, resources)) {
            (Refused::Short(_), Err(short)) => Refused::Short(short),
            _ => refused,
        }
    }

    fn take_lanes(&self, resources: &Resources) -> Result<Lanes, Refused> {
        let mut free = self.free.load(Ordering::Relaxed);
        for _ in 0..SWAP_TRIES_MAX {
            // The ports are taken already.
            let need = score::fits(&self.shape, Lanes(free), u32::MAX, resources).map_err(Refused::Short)?;
            // No lane of need is above that of free, so no lane borrows from the next.
            let left = free - need.0;
            match self.free.compare_exchange_weak(free, left, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(need),
                Err(now) => free = now,
            }
        }
        Err(Refused::Busy)
    }

    fn give_back_ports(&self, ports: u32) {
        if ports > 0 {
            self.ports.fetch_add(ports, Ordering::Relaxed);
        }
    }

    fn give_back(&self, amounts: Amounts) {
        self.apps.remove(amounts.app);
        // Lanes never carry into each other: what is given back was taken, so no lane grows past its capacity.
        self.free.fetch_add(amounts.lanes.0, Ordering::Relaxed);
        self.give_back_ports(amounts.ports);
    }

    /// Keeps a reservation until it is released. Committing twice is once.
    pub fn commit(&self, id: ReservationId) -> Outcome {
        let (outcome, fresh) = self.table.commit(id);
        if fresh {
            self.starting.fetch_sub(1, Ordering::Relaxed);
        }
        outcome
    }

    /// Frees a reservation, held or committed.
    pub fn release(&self, id: ReservationId) -> Outcome {
        match self.table.close(id) {
            Ok(closed) => {
                self.free_closed(closed);
                Outcome::Done
            }
            Err(outcome) => outcome,
        }
    }

    fn free_closed(&self, closed: table::Closed) {
        if closed.was_held() {
            self.starting.fetch_sub(1, Ordering::Relaxed);
        }
        self.give_back(closed.amounts());
        // Last: while the slot is taken its amounts are counted somewhere, and a claim of it can wait.
        self.table.vacate(closed);
    }

    /// Frees what is held and over at `now_us`, and says how many.
    pub fn expire(&self, now_us: u64) -> u32 {
        // A hold that is published at this moment may be missed; it is not over at this moment, and the next sweep
        // sees it.
        if self.starting() == 0 {
            return 0;
        }
        let mut freed = 0;
        for slot in 0..self.table.slots_count() {
            if let Some(closed) = self.table.close_if_over(slot, now_us) {
                self.free_closed(closed);
                freed += 1;
            }
        }
        freed
    }

    /// Begins an epoch: frees what is held, keeps what is committed, refuses from now on what rests on older bids.
    /// When this returns, nothing that was reserved under another epoch is held.
    pub fn begin_epoch(&self, epoch: Epoch) {
        // Release: see `epoch`.
        self.epoch.store(epoch.0, Ordering::Release);
        // The other half of the pair in `try_reserve`.
        fence(Ordering::SeqCst);
        for slot in 0..self.table.slots_count() {
            if let Some(closed) = self.table.close_or_spoil(slot) {
                self.free_closed(closed);
            }
        }
    }

    /// What the cell knows of an id.
    #[must_use]
    pub fn state(&self, id: ReservationId) -> Option<State> {
        self.table.state(id)
    }

    /// Shows every live reservation. Exact while nobody else is at work, else a picture of no single moment.
    pub fn each(&self, mut show: impl FnMut(Entry)) {
        for slot in 0..self.table.slots_count() {
            if let Some((id, state, amounts)) = self.table.entry(slot) {
                let takes = self.shape.resources(amounts.lanes, amounts.ports);
                show(Entry { id, state, takes });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn a_bid_reads_one_line_of_the_ledger() {
        assert!(offset_of!(Ledger, apps) + size_of::<Apps>() <= 64);
        assert_eq!(size_of::<Ledger>(), 128);
    }
}
