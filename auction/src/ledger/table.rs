//! The reservations of a cell: a fixed, lock-free table keyed by random ids.
//!
//! ```text
//! id ─hash─> first bucket, second bucket
//! bucket     | id 0 .. id 7 |  one cache line, 0 is free      | slot 0 .. slot 7 |  state, lanes, expiry, ports and app
//! state      | version: 62 | vacant, held or committed: 2 |
//!
//!   id 0, vacant ──claim (CAS of the id)──> id, vacant ──publish (CAS of the state)──> id, held ──commit──> id, committed
//!        ^                                      │ abandon                                  │ close (CAS)      │
//!        └──────────────────────────────────────┴──── id, vacant <─────────────────────────┴──────────────────┘
//!                                                       vacate
//! ```
//! - Between claim and publish, and between close and vacate, a slot belongs to one thread. Everybody else sees an id
//!   without a state and answers "busy".
//! - Every change of a state adds one to its version, so a CAS from a state that was read succeeds only if the slot is
//!   still in the life that was read: 2^62 changes do not happen while a thread sleeps.
//! - An id goes into its first bucket, or into the second if the first is full. Two threads that claim the same id may
//!   come by different slots. After its claim, and a fence, each looks at both buckets once more, and whoever sees the
//!   other withdraws. Of two claims one fence comes first, so the later one sees the earlier: never do both stay. Both
//!   may withdraw: then both are told "busy", and the next try finds room.

use super::apps::AppSlot;
use super::lanes::Lanes;
use super::sync::{AtomicU32, AtomicU64, Ordering, fence};
use super::{Outcome, ReservationId, State};

#[cfg(not(loom))]
const BUCKET_SLOTS: usize = 8;
/// Small enough that a model of three threads fills a bucket.
#[cfg(loom)]
const BUCKET_SLOTS: usize = 1;
/// Slots for each reservation that is to find room: with a load of a quarter, one id in 10^3 goes to its second bucket
/// and one in 10^6 finds both full.
pub(super) const SLOTS_PER_RESERVATION: u32 = if cfg!(loom) { 1 } else { 4 };

const VACANT: u64 = 0;
const HELD: u64 = 1;
const COMMITTED: u64 = 2;
const TAG_MASK: u64 = 3;
const VERSION: u64 = 4;
/// How often a claim that lost its slot to another thread looks again. Each loss fills a slot of the two buckets.
const CLAIM_TRIES_MAX: usize = 4 * BUCKET_SLOTS;
/// A state that changes under [`Table::close_or_spoil`] changes to held, committed or closed: after these turns it is
/// in a life that began after the sweep.
const SPOIL_TRIES_MAX: usize = 4;

/// Spreads a number over all 64 bits (the finalizer of MurmurHash3, by Austin Appleby, public domain).
pub(super) const fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

/// What a reservation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Amounts {
    pub(super) lanes: Lanes,
    pub(super) ports: u32,
    pub(super) app: AppSlot,
}

/// All fields are read and written `Relaxed` by their owner, and ordered by `state`.
#[derive(Debug)]
struct Slot {
    state: AtomicU64,
    lanes: AtomicU64,
    expires_us: AtomicU64,
    /// Ports in the upper half, the app's slot in the lower.
    ports_and_app: AtomicU64,
}

#[derive(Debug)]
#[repr(align(64))]
struct Bucket {
    ids: [AtomicU64; BUCKET_SLOTS],
    slots: [Slot; BUCKET_SLOTS],
}

#[derive(Debug)]
pub(super) struct Table {
    buckets: Box<[Bucket]>,
    /// Ids that are in their second bucket. Raised before such a claim and lowered after its end, so while it is 0
    /// nobody needs to look there.
    spilled: AtomicU32,
}

/// A slot that the claimer owns until it publishes or abandons it.
#[derive(Debug)]
pub(super) struct Claimed {
    slot: usize,
    vacant: u64,
    is_second: bool,
}

/// What came of a claim.
pub(super) enum Claim {
    /// The slot is the caller's.
    New(Claimed),
    /// The id is held or committed already.
    Exists,
    /// Another thread is at this id or at these buckets.
    Busy,
    /// Both buckets are full.
    Full,
}

/// A slot that the closer owns until it vacates it.
#[derive(Debug)]
pub(super) struct Closed {
    slot: usize,
    state: u64,
    amounts: Amounts,
}

impl Closed {
    pub(super) fn was_held(&self) -> bool {
        self.state & TAG_MASK == HELD
    }

    pub(super) fn amounts(&self) -> Amounts {
        self.amounts
    }
}

impl Table {
    /// A table of at least `slots` slots.
    pub(super) fn new(slots: u32) -> Self {
        let slot = || Slot {
            state: AtomicU64::new(VACANT),
            lanes: AtomicU64::new(0),
            expires_us: AtomicU64::new(0),
            ports_and_app: AtomicU64::new(0),
        };
        let bucket = || Bucket {
            ids: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: std::array::from_fn(|_| slot()),
        };
        let buckets = (slots as usize).div_ceil(BUCKET_SLOTS).next_power_of_two();
        Self { buckets: (0..buckets).map(|_| bucket()).collect(), spilled: AtomicU32::new(0) }
    }

    pub(super) fn slots_count(&self) -> usize {
        self.buckets.len() * BUCKET_SLOTS
    }

    fn locate(&self, id: u64) -> (usize, usize) {
        let hash = mix(id);
        let mask = self.buckets.len() - 1;
        let (first, second) = (hash as usize & mask, (hash >> 32) as usize & mask);
        // Of two buckets or more, the second is always another one.
        (first, if second == first { (first + 1) & mask } else { second })
    }

    /// Reads the line of the ids in the first bucket of `id`.
    pub(super) fn warm_ids(&self, id: ReservationId) -> u64 {
        let (first, _) = self.locate(id.get());
        self.buckets[first].ids[0].load(Ordering::Relaxed)
    }

    /// Reads the slot that [`Self::claim`] will find if the first bucket has room.
    pub(super) fn warm_slot(&self, id: ReservationId) -> u64 {
        let (first, _) = self.locate(id.get());
        let slot = self.position(first, 0, usize::MAX).unwrap_or(first * BUCKET_SLOTS);
        self.slot(slot).state.load(Ordering::Relaxed)
    }

    fn id(&self, slot: usize) -> &AtomicU64 {
        &self.buckets[slot / BUCKET_SLOTS].ids[slot % BUCKET_SLOTS]
    }

    fn slot(&self, slot: usize) -> &Slot {
        &self.buckets[slot / BUCKET_SLOTS].slots[slot % BUCKET_SLOTS]
    }

    /// The first slot of `bucket` whose id is `id`, other than `except`.
    fn position(&self, bucket: usize, id: u64, except: usize) -> Option<usize> {
        let slots = bucket * BUCKET_SLOTS..(bucket + 1) * BUCKET_SLOTS;
        // Acquire pairs with the Release of the claim: who sees the id sees no state of a life before it.
        slots
            .zip(&self.buckets[bucket].ids)
            .find_map(|(slot, found)| (found.load(Ordering::Acquire) == id && slot != except).then_some(slot))
    }

    /// The slot that has `id`, in either bucket.
    fn find(&self, id: ReservationId, except: usize) -> Option<usize> {
        let (first, second) = self.locate(id.get());
        self.position(first, id.get(), except).or_else(|| {
            let looks_further = second != first && self.spilled.load(Ordering::Relaxed) > 0;
            if looks_further { self.position(second, id.get(), except) } else { None }
        })
    }

    /// The state of a slot in the life in which it has `id`, or nothing if it has another by now.
    fn state_of(&self, slot: usize, id: ReservationId) -> Option<u64> {
        // The id was seen before, so this state is of the life that was seen or of a later one. Acquire, and the id once
        // more: a published state brings its id along, so an id that still fits is of the same life as the state. Should
        // either change from here on, the state does, and a CAS from it fails.
        let state = self.slot(slot).state.load(Ordering::Acquire);
        (self.id(slot).load(Ordering::Relaxed) == id.get()).then_some(state)
    }

    /// Claims a slot for `id`. There is a `SeqCst` fence between the write of the id and the return.
    pub(super) fn claim(&self, id: ReservationId) -> Claim {
        if let Some(slot) = self.find(id, usize::MAX) {
            return self.exists(slot, id);
        }
        let (first, second) = self.locate(id.get());
        let claimed = match self.claim_in(first, id) {
            Some(slot) => Some((slot, false)),
            None if second == first => None,
            None => {
                // Before the claim: who comes by the first bucket after this claim's fence sees that it must look here.
                self.spilled.fetch_add(1, Ordering::Relaxed);
                let slot = self.claim_in(second, id);
                if slot.is_none() {
                    self.spilled.fetch_sub(1, Ordering::Relaxed);
                }
                slot.map(|slot| (slot, true))
            }
        };
        let Some((slot, is_second)) = claimed else { return Claim::Full };
        // Acquire: the life before ended with its vacate, whose Release the claim's CAS read.
        let vacant = self.slot(slot).state.load(Ordering::Acquire);
        let claimed = Claimed { slot, vacant, is_second };
        fence(Ordering::SeqCst);
        match self.find(id, slot) {
            None => Claim::New(claimed),
            Some(other) => {
                self.abandon(claimed);
                self.exists(other, id)
            }
        }
    }

    fn exists(&self, slot: usize, id: ReservationId) -> Claim {
        match self.state_of(slot, id) {
            Some(state) if state & TAG_MASK != VACANT => Claim::Exists,
            _ => Claim::Busy,
        }
    }

    fn claim_in(&self, bucket: usize, id: ReservationId) -> Option<usize> {
        for _ in 0..CLAIM_TRIES_MAX {
            let slot = self.position(bucket, 0, usize::MAX)?;
            // Acquire pairs with the Release of `free_id`: the slot's fields are ours to write after the last reads of
            // who had them. Release: see `position`.
            let taken = self.id(slot).compare_exchange(0, id.get(), Ordering::AcqRel, Ordering::Relaxed);
            if taken.is_ok() {
                return Some(slot);
            }
        }
        None
    }

    /// Gives up a claim.
    #[allow(clippy::needless_pass_by_value, reason = "what is given up cannot be used again")]
    pub(super) fn abandon(&self, claimed: Claimed) {
        self.free_id(claimed.slot, claimed.is_second);
    }

    fn free_id(&self, slot: usize, is_second: bool) {
        // Release: see `claim_in`.
        self.id(slot).store(0, Ordering::Release);
        if is_second {
            // Release: who sees the count without this one sees that the id is gone.
            self.spilled.fetch_sub(1, Ordering::Release);
        }
    }

    /// Fills the slot and makes it held, unless a new epoch has spoiled the claim: then it is still the caller's.
    pub(super) fn publish(&self, claimed: &Claimed, amounts: Amounts, expires_us: u64) -> bool {
        let slot = self.slot(claimed.slot);
        slot.lanes.store(amounts.lanes.0, Ordering::Relaxed);
        slot.expires_us.store(expires_us, Ordering::Relaxed);
        let ports_and_app = u64::from(amounts.ports) << 32 | u64::from(amounts.app.to_bits());
        slot.ports_and_app.store(ports_and_app, Ordering::Relaxed);
        let held = (claimed.vacant + VERSION) & !TAG_MASK | HELD;
        // Release: who reads this state sees the fields, and the id.
        slot.state.compare_exchange(claimed.vacant, held, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Makes a held slot committed. Says also whether it was this call that did.
    pub(super) fn commit(&self, id: ReservationId) -> (Outcome, bool) {
        let Some(slot) = self.find(id, usize::MAX) else { return (Outcome::Unknown, false) };
        let Some(state) = self.state_of(slot, id) else { return (Outcome::Unknown, false) };
        match state & TAG_MASK {
            COMMITTED => (Outcome::Done, false),
            HELD => {
                let committed = (state + VERSION) & !TAG_MASK | COMMITTED;
                // AcqRel: the fields were read by nobody here, but who reads this state must see them still.
                match self.slot(slot).state.compare_exchange(
                    state,
                    committed,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => (Outcome::Done, true),
                    Err(_) => (Outcome::Busy, false),
                }
            }
            _ => (Outcome::Busy, false),
        }
    }

    /// Takes the slot of `id` out of use. The caller gives its amounts back and then vacates it.
    pub(super) fn close(&self, id: ReservationId) -> Result<Closed, Outcome> {
        let slot = self.find(id, usize::MAX).ok_or(Outcome::Unknown)?;
        let state = self.state_of(slot, id).ok_or(Outcome::Unknown)?;
        if state & TAG_MASK == VACANT {
            return Err(Outcome::Busy);
        }
        self.close_from(slot, state).ok_or(Outcome::Busy)
    }

    /// Closes a slot that is still in `state`, which was read with Acquire.
    fn close_from(&self, slot: usize, state: u64) -> Option<Closed> {
        // Before the CAS, which proves that they are of this life.
        let amounts = self.amounts(slot);
        let vacant = (state + VERSION) & !TAG_MASK;
        // Acquire and Release as for a lock: nobody else is in the slot from here until it is vacated.
        let swapped =
            self.slot(slot).state.compare_exchange(state, vacant, Ordering::AcqRel, Ordering::Relaxed);
        swapped.is_ok().then_some(Closed { slot, state, amounts })
    }

    fn amounts(&self, slot: usize) -> Amounts {
        let slot = self.slot(slot);
        let ports_and_app = slot.ports_and_app.load(Ordering::Relaxed);
        Amounts {
            lanes: Lanes(slot.lanes.load(Ordering::Relaxed)),
            ports: (ports_and_app >> 32) as u32,
            app: AppSlot::from_bits(ports_and_app as u32),
        }
    }

    /// Ends a slot's life.
    #[allow(clippy::needless_pass_by_value, reason = "what is given up cannot be used again")]
    pub(super) fn vacate(&self, closed: Closed) {
        // Ours since `close_from`, so the id is still the one that was closed.
        let id = self.id(closed.slot).load(Ordering::Relaxed);
        let (first, _) = self.locate(id);
        self.free_id(closed.slot, closed.slot / BUCKET_SLOTS != first);
    }

    /// Closes a slot that is held and over.
    pub(super) fn close_if_over(&self, slot: usize, now_us: u64) -> Option<Closed> {
        let state = self.slot(slot).state.load(Ordering::Acquire);
        let is_over =
            state & TAG_MASK == HELD && self.slot(slot).expires_us.load(Ordering::Relaxed) <= now_us;
        if is_over { self.close_from(slot, state) } else { None }
    }

    /// Closes a slot that is held, or spoils the claim of one that is claimed. The caller's fence came before.
    pub(super) fn close_or_spoil(&self, slot: usize) -> Option<Closed> {
        for _ in 0..SPOIL_TRIES_MAX {
            // Acquire: see `position`.
            if self.id(slot).load(Ordering::Acquire) == 0 {
                return None;
            }
            let state = self.slot(slot).state.load(Ordering::Acquire);
            match state & TAG_MASK {
                HELD => {
                    if let Some(closed) = self.close_from(slot, state) {
                        return Some(closed);
                    }
                }
                VACANT => {
                    let spoiled = state + VERSION;
                    let vacant = &self.slot(slot).state;
                    if vacant.compare_exchange(state, spoiled, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        None
    }

    pub(super) fn state(&self, id: ReservationId) -> Option<State> {
        let slot = self.find(id, usize::MAX)?;
        let state = self.state_of(slot, id)?;
        self.shown(slot, state)
    }

    fn shown(&self, slot: usize, state: u64) -> Option<State> {
        match state & TAG_MASK {
            HELD => Some(State::Held { expires_us: self.slot(slot).expires_us.load(Ordering::Relaxed) }),
            COMMITTED => Some(State::Committed),
            _ => None,
        }
    }

    /// A live slot, as it is at this moment.
    pub(super) fn entry(&self, slot: usize) -> Option<(ReservationId, State, Amounts)> {
        let state = self.slot(slot).state.load(Ordering::Acquire);
        let shown = self.shown(slot, state)?;
        let id = ReservationId::new(self.id(slot).load(Ordering::Relaxed))?;
        Some((id, shown, self.amounts(slot)))
    }
}
