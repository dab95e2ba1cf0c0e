//! A cell: the real ledger with its account beside it, and whatever defect is to be found.

use super::Mutation;
use super::account::{Account, Hold};
use super::message::Job;
use crate::demand::{AppId, Demand, RESOURCES_COUNT, Resources};
use crate::ledger::{Epoch, Ledger, Outcome, Refused, ReservationId, State, Terms};
use crate::score::Bid;

/// What may be wrong, in words.
pub(super) type Checked<T = ()> = Result<T, String>;

/// The most apps on a cell of which each is surely counted: one bucket of the ledger's table.
const APPS_COUNTED_MIN: usize = 8;
/// Ids of holds that only a defect makes are these, after the real ones.
const MUTATED_ID_OFFSET: u32 = 1 << 20;

/// What was free, from so many happenings on.
#[derive(Debug, Clone, Copy)]
struct Moment {
    event: u64,
    free: [u32; RESOURCES_COUNT],
    /// Whose reservation it was that changed it, and how many instances that job has here since. Nothing if something
    /// became free.
    reserved: Option<(Job, u32)>,
}

/// A cell.
#[derive(Debug)]
pub(super) struct Cell {
    capacity: Resources,
    ledger: Ledger,
    pub(super) account: Account,
    pub(super) is_up: bool,
    pub(super) is_gone: bool,
    pub(super) lies: bool,
    /// When it joined, as a number of happenings.
    pub(super) joined: u64,
    /// Kept to know whether there was room all through a round.
    history: Vec<Moment>,
    mutation: Option<Mutation>,
}

impl Cell {
    pub(super) fn new(capacity: Resources, lies: bool, joined: u64, mutation: Option<Mutation>) -> Self {
        let account = Account::new(&capacity, 1);
        let history = vec![Moment { event: joined, free: account.free, reserved: None }];
        let ledger = new_ledger(&capacity, 1);
        Self { capacity, ledger, account, is_up: true, is_gone: false, lies, joined, history, mutation }
    }

    /// A bid, which must be what the account says.
    pub(super) fn bid(&self, demand: &Demand, count: u32) -> Checked<Bid> {
        let bid = self.ledger.bid(demand, count);
        let takes = self.account.takes(&demand.resources);
        let is_priced = self.mutation != Some(Mutation::PendingUnpriced);
        let free = if is_priced { &self.account.free } else { &self.account.capacity };
        let room = Account::room(free, &takes).min(count);
        if bid.room != room || bid.epoch.0 != self.account.epoch || bid.short.is_none() != (room > 0) {
            return Err(format!(
                "bids {bid:?} for {count}, but has room for {room} in epoch {}",
                self.account.epoch
            ));
        }
        Ok(bid)
    }

    /// Reserves, which must end as in the account.
    pub(super) fn reserve(
        &mut self,
        job: Job,
        (first, count): (ReservationId, u32),
        demand: &Demand,
        terms: Terms,
    ) -> Checked<(u32, Option<Refused>)> {
        let (held, refused) = self.reserve_in_ledger(first, count, demand, terms);
        let until_us = Some(terms.now_us + terms.ttl_us);
        let takes = self.account.takes(&demand.resources);
        let mut expected = (count, None);
        for offset in 0..count {
            if refused == Some(Refused::Full) && held == offset && self.account.may_be_full() {
                self.account.expire(terms.now_us);
                expected = (offset, refused);
                break;
            }
            let id = first.plus(offset).get();
            let hold = Hold { id, job, app: demand.app, takes, until_us, acknowledged_us: None };
            if let Err(refused) = self.account.reserve(hold, terms.epoch.0, terms.now_us) {
                expected = (offset, Some(refused));
                break;
            }
        }
        // A ledger names what is short first; what it names must be short.
        let is_part = match (refused, expected.1) {
            (Some(Refused::Short(named)), Some(Refused::Short(short))) => {
                !named.is_none() && named.bits() & !short.bits() == 0
            }
            (refused, expected) => refused == expected,
        };
        if held != expected.0 || !is_part {
            return Err(format!("answers {:?} to a reservation, but it is {expected:?}", (held, refused)));
        }
        Ok((held, refused))
    }

    fn reserve_in_ledger(
        &self,
        first: ReservationId,
        count: u32,
        demand: &Demand,
        terms: Terms,
    ) -> (u32, Option<Refused>) {
        match self.mutation {
            Some(Mutation::EpochForgotten) => {
                let terms = Terms { epoch: self.ledger.epoch(), ..terms };
                self.ledger.reserve_batch(first, count, demand, terms)
            }
            Some(Mutation::IdempotencyIgnored) if self.ledger.state(first).is_some() => {
                self.ledger.reserve_batch(first.plus(MUTATED_ID_OFFSET), count, demand, terms)
            }
            _ => self.ledger.reserve_batch(first, count, demand, terms),
        }
    }

    /// Commits an instance. Says whether it is committed, and its job if it was not before.
    pub(super) fn commit(&mut self, id: ReservationId) -> Checked<(bool, Option<Job>)> {
        let outcome = self.ledger.commit(id);
        let (expected, job) = self.account.commit(id.get());
        if outcome != expected {
            return Err(format!("answers {outcome:?} to a commit, but it is {expected:?}"));
        }
        Ok((outcome == Outcome::Done, job))
    }

    /// Releases an instance, and gives what it was.
    pub(super) fn release(&mut self, id: ReservationId) -> Checked<Option<Hold>> {
        let outcome = self.ledger.release(id);
        let hold = self.account.release(id.get());
        if (outcome == Outcome::Done) != hold.is_some() || outcome == Outcome::Busy {
            return Err(format!("answers {outcome:?} to a release, but had {hold:?}"));
        }
        if self.mutation == Some(Mutation::CancelDoubled)
            && let Some(other) = self.account.holds.first().and_then(|hold| ReservationId::new(hold.id))
        {
            self.ledger.release(other);
        }
        Ok(hold)
    }

    /// Frees what is over; then nothing that is over may be held.
    pub(super) fn sweep(&mut self, now_us: u64) -> Checked {
        self.account.expire(now_us);
        if self.mutation != Some(Mutation::ExpiryForgotten) {
            self.ledger.expire(now_us);
        }
        let mut over = None;
        if self.ledger.starting() > 0 {
            self.ledger.each(|entry| {
                if matches!(entry.state, State::Held { expires_us } if expires_us <= now_us) {
                    over = Some(entry);
                }
            });
        }
        over.map_or(Ok(()), |entry| Err(format!("still holds {entry:?} at {now_us} us, after a sweep")))
    }

    /// The cell's process starts anew: what is committed is on its disk, unless the machine is another one. Gives what
    /// was committed and is lost.
    pub(super) fn restart(&mut self, has_disk: bool) -> Vec<Hold> {
        self.is_up = true;
        let epoch = self.account.epoch + 1;
        let named = if self.mutation == Some(Mutation::EpochReused) { epoch - 1 } else { epoch };
        if has_disk {
            self.ledger.begin_epoch(Epoch(named));
            self.account.begin_epoch(epoch);
            return Vec::new();
        }
        self.ledger = new_ledger(&self.capacity, named);
        let mut holds = std::mem::replace(&mut self.account, Account::new(&self.capacity, epoch)).holds;
        holds.retain(|hold| hold.until_us.is_none());
        holds
    }

    /// Whether the cell, at every moment since `event`, had room for more instances than `job` has got here.
    pub(super) fn had_room_since(&self, event: u64, job: Job, demand: &Demand) -> bool {
        let takes = self.account.takes(&demand.resources);
        let begun = self.history.partition_point(|moment| moment.event <= event).saturating_sub(1);
        let (mut room_min, mut got) = (u32::MAX, 0);
        for moment in &self.history[begun..] {
            match moment.reserved {
                Some((of, count)) if of == job => got = count,
                // Its own may have become free: no telling them from others.
                None if got > 0 => return false,
                _ => {}
            }
            room_min = room_min.min(Account::room(&moment.free, &takes) + got);
        }
        room_min > got
    }

    /// Compares the ledger with the account after a happening.
    pub(super) fn check(&mut self, event: u64, app: AppId, reserver: Option<Job>) -> Checked {
        let account = &self.account;
        if self.history.last().is_none_or(|moment| moment.free != account.free) {
            let count = |job| account.holds.iter().filter(|hold| hold.job == job).count() as u32;
            let reserved = reserver.map(|job| (job, count(job)));
            self.history.push(Moment { event, free: account.free, reserved });
        }
        let free = self.ledger.free().amounts();
        if free != account.free {
            return Err(format!("has {free:?} free, its account {:?}", account.free));
        }
        let held = account.holds.iter().filter(|hold| hold.until_us.is_some()).count();
        if self.ledger.starting() as usize != held || self.ledger.epoch().0 != account.epoch {
            let (starting, epoch) = (self.ledger.starting(), self.ledger.epoch());
            return Err(format!(
                "has {starting} starting in {epoch:?}, its account {held}, {}",
                account.epoch
            ));
        }
        self.check_entries()?;
        let counted = self.ledger.instances(app) as usize;
        let there = account.holds.iter().filter(|hold| hold.app == app).count();
        if counted > there || counted < there && account.holds.len() <= APPS_COUNTED_MIN {
            return Err(format!("counts {counted} instances of {app:?}, its account {there}"));
        }
        Ok(())
    }

    fn check_entries(&self) -> Checked {
        let (mut entries, mut wrong) = (0, None);
        self.ledger.each(|entry| {
            entries += 1;
            let hold = self.account.holds.iter().find(|hold| hold.id == entry.id.get());
            let until_us = match entry.state {
                State::Held { expires_us } => Some(expires_us),
                State::Committed => None,
            };
            if hold.is_none_or(|hold| hold.until_us != until_us || hold.takes != entry.takes.amounts()) {
                wrong = Some(format!("has {entry:?}, its account {hold:?}"));
            }
        });
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
        // All are in the account; as many as there means each once.
        if entries != self.account.holds.len() {
            return Err(format!("has {entries} reservations, its account {}", self.account.holds.len()));
        }
        Ok(())
    }
}

fn new_ledger(capacity: &Resources, epoch: u64) -> Ledger {
    Ledger::new(capacity, capacity.containers, Epoch(epoch)).expect("setups have sound capacities")
}
