//! What a cell's ledger must say, kept in plain arithmetic: a list of holds and five sums.

use super::message::Job;
use crate::demand::{AppId, RESOURCES_COUNT, Resource, Resources, Shortage};
use crate::ledger::{Outcome, Refused};

/// The most quanta that a ledger counts of a resource; amounts above are counted in quanta of more than one.
const QUANTA_MAX: u32 = 0xffff;
/// The fewest live holds with which a table may say that it is full: two whole buckets.
const FULL_HOLDS_MIN: usize = 16;

/// One instance on a cell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hold {
    pub(super) id: u64,
    pub(super) job: Job,
    pub(super) app: AppId,
    pub(super) takes: [u32; RESOURCES_COUNT],
    /// When it is over, or nothing once it is committed.
    pub(super) until_us: Option<u64>,
    /// When its auctioneer learned of the commit.
    pub(super) acknowledged_us: Option<u64>,
}

/// A cell's account.
#[derive(Debug)]
pub(super) struct Account {
    quanta: [u32; RESOURCES_COUNT],
    pub(super) capacity: [u32; RESOURCES_COUNT],
    pub(super) free: [u32; RESOURCES_COUNT],
    pub(super) holds: Vec<Hold>,
    pub(super) epoch: u64,
}

impl Account {
    pub(super) fn new(capacity: &Resources, epoch: u64) -> Self {
        let mut quanta = [1; RESOURCES_COUNT];
        let mut amounts = capacity.amounts();
        for (amount, quantum) in amounts.iter_mut().zip(&mut quanta) {
            while *amount / *quantum > QUANTA_MAX {
                *quantum *= 2;
            }
            *amount -= *amount % *quantum;
        }
        Self { quanta, capacity: amounts, free: amounts, holds: Vec::new(), epoch }
    }

    /// What an instance takes, in whole quanta.
    pub(super) fn takes(&self, resources: &Resources) -> [u32; RESOURCES_COUNT] {
        let mut takes = resources.amounts();
        for (amount, quantum) in takes.iter_mut().zip(self.quanta) {
            *amount = amount.div_ceil(quantum) * quantum;
        }
        takes
    }

    /// How many instances fit into `free`.
    pub(super) fn room(free: &[u32; RESOURCES_COUNT], takes: &[u32; RESOURCES_COUNT]) -> u32 {
        let rooms = free.iter().zip(takes).filter_map(|(free, takes)| free.checked_div(*takes));
        rooms.min().unwrap_or(u32::MAX)
    }

    /// What is short of one instance.
    fn short(&self, takes: &[u32; RESOURCES_COUNT]) -> Shortage {
        let pairs = Resource::ALL.into_iter().zip(self.free.iter().zip(takes));
        pairs
            .filter(|(_, (free, takes))| takes > free)
            .fold(Shortage::NONE, |set, (resource, _)| set.with(resource))
    }

    pub(super) fn find(&mut self, id: u64) -> Option<&mut Hold> {
        self.holds.iter_mut().find(|hold| hold.id == id)
    }

    /// Takes in that the cell holds, or why it must not.
    pub(super) fn reserve(&mut self, hold: Hold, epoch: u64, now_us: u64) -> Result<(), Refused> {
        if epoch != self.epoch {
            return Err(Refused::Epoch(crate::Epoch(self.epoch)));
        }
        if self.find(hold.id).is_some() {
            return Ok(());
        }
        let mut short = self.short(&hold.takes);
        if !short.is_none() && self.expire(now_us) > 0 {
            short = self.short(&hold.takes);
        }
        if !short.is_none() {
            return Err(Refused::Short(short));
        }
        self.free.iter_mut().zip(hold.takes).for_each(|(free, takes)| *free -= takes);
        self.holds.push(hold);
        Ok(())
    }

    /// Whether the ledger's table may be full.
    pub(super) fn may_be_full(&self) -> bool {
        self.holds.len() >= FULL_HOLDS_MIN
    }

    /// Takes in a commit. Says the job of a hold that was not committed before.
    pub(super) fn commit(&mut self, id: u64) -> (Outcome, Option<Job>) {
        match self.find(id) {
            None => (Outcome::Unknown, None),
            Some(hold) => (Outcome::Done, hold.until_us.take().map(|_| hold.job)),
        }
    }

    /// Takes in a release. Gives the hold.
    pub(super) fn release(&mut self, id: u64) -> Option<Hold> {
        let at = self.holds.iter().position(|hold| hold.id == id)?;
        let hold = self.holds.swap_remove(at);
        self.free.iter_mut().zip(hold.takes).for_each(|(free, takes)| *free += takes);
        Some(hold)
    }

    /// Frees what is over at `now_us`, and says how many.
    pub(super) fn expire(&mut self, now_us: u64) -> u32 {
        self.free_if(|hold| hold.until_us.is_some_and(|until_us| until_us <= now_us))
    }

    /// Frees what is only held.
    pub(super) fn begin_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.free_if(|hold| hold.until_us.is_some());
    }

    fn free_if(&mut self, mut is_over: impl FnMut(&Hold) -> bool) -> u32 {
        let (free, before) = (&mut self.free, self.holds.len());
        self.holds.retain(|hold| {
            let is_over = is_over(hold);
            if is_over {
                free.iter_mut().zip(hold.takes).for_each(|(free, takes)| *free += takes);
            }
            !is_over
        });
        (before - self.holds.len()) as u32
    }
}
