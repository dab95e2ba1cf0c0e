//! The desired state: what is wanted of each batch, what is committed of it, what was refused.

use super::cell::Checked;
use super::message::{Caller, Job};
use crate::demand::Demand;

/// A batch, or what has to be placed anew of one.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) demand: Demand,
    /// Instances that are to run, or to be refused, under this job.
    pub(super) wanted: u32,
    /// Instances that are committed on some cell.
    pub(super) live: u32,
    pub(super) refused: u32,
    /// Whose round it was given to.
    pub(super) owner: Option<Caller>,
    /// Its auctioneer died, and what runs of it is known without.
    pub(super) is_adopted: bool,
}

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct Books {
    entries: Vec<Entry>,
}

impl Books {
    pub(super) fn open(&mut self, demand: Demand, wanted: u32) -> Job {
        self.entries.push(Entry { demand, wanted, live: 0, refused: 0, owner: None, is_adopted: false });
        self.entries.len() as Job - 1
    }

    pub(super) fn get(&self, job: Job) -> &Entry {
        &self.entries[job as usize]
    }

    pub(super) fn get_mut(&mut self, job: Job) -> &mut Entry {
        &mut self.entries[job as usize]
    }

    /// Jobs that a caller was given.
    pub(super) fn owned_by(&self, caller: Caller) -> Vec<Job> {
        let owned = self.entries.iter().enumerate().filter(|(_, entry)| entry.owner == Some(caller));
        owned.map(|(job, _)| job as Job).collect()
    }

    /// One more instance is committed.
    pub(super) fn commit(&mut self, job: Job) -> Checked {
        let entry = self.get_mut(job);
        entry.live += 1;
        if entry.live + entry.refused > entry.wanted {
            let Entry { wanted, live, refused, .. } = entry;
            return Err(format!(
                "job {job} has {live} instances committed and {refused} refused, of {wanted} wanted"
            ));
        }
        Ok(())
    }

    /// So many instances are lost: a new job for them.
    pub(super) fn reopen(&mut self, job: Job, count: u32) -> Job {
        let entry = self.get_mut(job);
        entry.wanted -= count;
        let demand = entry.demand.clone();
        self.open(demand, count)
    }

    /// Everything that was wanted is there once, or was refused.
    pub(super) fn check_end(&self) -> Checked {
        let open = self.entries.iter().position(|entry| entry.live + entry.refused != entry.wanted);
        open.map_or(Ok(()), |job| {
            let Entry { wanted, live, refused, .. } = &self.entries[job];
            Err(format!(
                "in the end job {job} has {live} instances and {refused} refused, of {wanted} wanted"
            ))
        })
    }

    /// How many instances are committed.
    pub(super) fn live(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.live)).sum()
    }
}
