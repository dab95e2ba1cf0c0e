//! The auctioneers' side: real rounds, and the commits that follow them.

use super::cell::Checked;
use super::message::{Answer, Call, Caller, CellNumber, Happening, Job};
use super::world::World;
use super::{MESSAGE_LIFE_US, Mutation};
use crate::demand::ZoneRule;
use crate::ledger::ReservationId;
use crate::round::{Config, Effect, Event, Round};
use crate::view::{CellIndex, ClassIndex, ZoneIndex};
use rand::RngExt;
use std::collections::VecDeque;

/// The longest that an unanswered commit is waited for.
const COMMIT_DEADLINE_US_MAX: u64 = 60_000;
/// How often a commit's deadline is doubled.
const COMMIT_DOUBLINGS_MAX: u32 = 10;

/// When a job is given to another auctioneer if the chosen one is down.
const SUBMIT_AGAIN_US: u64 = 10_000;

/// A commit that was sent.
#[derive(Debug, Clone, Copy)]
struct Commit {
    cell: CellNumber,
    job: Job,
    first: ReservationId,
    count: u32,
    sends: u32,
    is_open: bool,
}

/// An auctioneer: one round at a time, and any number of commits.
#[derive(Debug)]
pub(super) struct Auctioneer {
    pub(super) is_up: bool,
    life: u32,
    round: Round,
    job: Option<Job>,
    /// When the round began, as a number of happenings.
    begun: u64,
    backlog: VecDeque<Job>,
    commits: Vec<Commit>,
}

impl Auctioneer {
    pub(super) fn new(config: Config) -> Self {
        Self {
            is_up: true,
            life: 0,
            round: Round::new(config),
            job: None,
            begun: 0,
            backlog: VecDeque::new(),
            commits: Vec::new(),
        }
    }
}

impl World {
    /// Whether that life of the auctioneer goes on.
    fn is_alive(&self, caller: Caller) -> bool {
        let auctioneer = &self.auctioneers[caller.auctioneer as usize];
        auctioneer.is_up && auctioneer.life == caller.life
    }

    /// A job is given to an auctioneer.
    pub(super) fn submit(&mut self, job: Job) -> Checked {
        let auctioneer = self.rng.random_range(0..self.auctioneers.len() as u32);
        let chosen = &mut self.auctioneers[auctioneer as usize];
        if !chosen.is_up {
            self.queue.push(self.now_us + SUBMIT_AGAIN_US, Happening::Submit { job });
            return Ok(());
        }
        let caller = Caller { auctioneer, life: chosen.life };
        chosen.backlog.push_back(job);
        self.books.get_mut(job).owner = Some(caller);
        self.go_on(caller)
    }

    /// Begins rounds while none is under way and jobs wait.
    fn go_on(&mut self, caller: Caller) -> Checked {
        loop {
            let auctioneer = &mut self.auctioneers[caller.auctioneer as usize];
            if auctioneer.job.is_some() && !auctioneer.round.is_done() {
                return Ok(());
            }
            auctioneer.job = auctioneer.backlog.pop_front();
            let Some(job) = auctioneer.job else { return Ok(()) };
            auctioneer.begun = self.summary.events;
            let batch = self.batch(job);
            let mut effects = Vec::new();
            let auctioneer = &mut self.auctioneers[caller.auctioneer as usize];
            auctioneer.round.begin(batch, self.now_us, &self.view, &mut self.rng, &mut effects);
            self.execute(caller, job, &effects)?;
        }
    }

    /// An answer reaches an auctioneer.
    pub(super) fn take_answer(&mut self, to: Caller, answer: Answer) -> Checked {
        match answer {
            Answer::Round(event) => self.step(to, event),
            Answer::Committed { commit, unknown } => {
                self.take_committed(to, commit, unknown);
                Ok(())
            }
        }
    }

    /// A round asked to be woken now.
    pub(super) fn wake(&mut self, caller: Caller) -> Checked {
        self.step(caller, Event::Wake)
    }

    fn step(&mut self, caller: Caller, event: Event) -> Checked {
        if !self.is_alive(caller) {
            return Ok(());
        }
        let crashes = self.chance(self.setup.auctioneer_crash);
        let auctioneer = &mut self.auctioneers[caller.auctioneer as usize];
        let Some(job) = auctioneer.job else { return Ok(()) };
        let mut effects = Vec::new();
        auctioneer.round.step(event, self.now_us, &self.view, &mut self.rng, &mut effects);
        if crashes {
            // Between any two of its effects, or before the first.
            let done = self.rng.random_range(0..=effects.len());
            self.execute(caller, job, &effects[..done])?;
            self.crash_auctioneer(caller);
            return Ok(());
        }
        self.execute(caller, job, &effects)?;
        self.go_on(caller)
    }

    fn execute(&mut self, caller: Caller, job: Job, effects: &[Effect]) -> Checked {
        for effect in effects.iter().copied() {
            match effect {
                Effect::Ask { ask, cell, count } => {
                    self.call(caller, self.numbers[cell.0 as usize], Call::Ask { ask, job, count });
                }
                Effect::Reserve { attempt, cell, epoch, first, count, ttl_us } => {
                    let call = Call::Reserve { attempt, job, epoch, first, count, ttl_us };
                    self.call(caller, self.numbers[cell.0 as usize], call);
                }
                Effect::Cancel { cell, first, count } => {
                    if self.mutation == Some(Mutation::CancelledCommitted) {
                        self.commit(caller, job, cell, first, count);
                    } else {
                        self.call(caller, self.numbers[cell.0 as usize], Call::Cancel { first, count });
                    }
                }
                Effect::Placed { cell, first, count, .. } => self.commit(caller, job, cell, first, count),
                Effect::Refused { count } => self.refuse(caller, job, count)?,
                Effect::WakeAt { at_us } => {
                    self.queue.push(at_us.max(self.now_us), Happening::Wake { caller });
                }
            }
        }
        Ok(())
    }

    /// Commits what is placed.
    fn commit(&mut self, caller: Caller, job: Job, cell: CellIndex, first: ReservationId, count: u32) {
        let cell = self.numbers[cell.0 as usize];
        if self.cells[cell as usize].is_gone {
            self.replace(job, count);
            return;
        }
        let commits = &mut self.auctioneers[caller.auctioneer as usize].commits;
        commits.push(Commit { cell, job, first, count, sends: 0, is_open: true });
        let commit = commits.len() as u32 - 1;
        self.commit_again(caller, commit);
    }

    /// Sends a commit until it is answered.
    pub(super) fn commit_again(&mut self, caller: Caller, commit: u32) {
        if !self.is_alive(caller) {
            return;
        }
        let entry = &mut self.auctioneers[caller.auctioneer as usize].commits[commit as usize];
        if !entry.is_open {
            return;
        }
        let Commit { cell, first, count, sends, .. } = *entry;
        entry.sends = (sends + 1).min(COMMIT_DOUBLINGS_MAX);
        let deadline_us = ((4 * self.setup.delay_us) << sends).min(COMMIT_DEADLINE_US_MAX);
        self.queue.push(self.now_us + deadline_us, Happening::CommitDeadline { caller, commit });
        self.call(caller, cell, Call::Commit { commit, first, count });
    }

    /// A commit is answered: what the cell does not know, or lost since, is placed anew.
    fn take_committed(&mut self, to: Caller, commit: u32, unknown: u32) {
        if !self.is_alive(to) {
            return;
        }
        let entry = &mut self.auctioneers[to.auctioneer as usize].commits[commit as usize];
        if !std::mem::replace(&mut entry.is_open, false) {
            return;
        }
        let Commit { cell, job, first, count, .. } = *entry;
        let mut there = 0;
        for offset in 0..count {
            let hold = self.cells[cell as usize].account.find(first.plus(offset).get());
            if let Some(hold) = hold.filter(|hold| hold.until_us.is_none()) {
                hold.acknowledged_us = Some(self.now_us);
                there += 1;
            }
        }
        // The control plane learns of a cell's new epoch, and so of what was lost between commit and answer.
        let known = count - unknown;
        let lost = known - there;
        let missed = if self.mutation == Some(Mutation::LossIgnored) { lost } else { lost + unknown };
        self.replace(job, missed);
    }

    /// A cell is gone: what was to be committed there is placed anew.
    pub(super) fn give_up_commits(&mut self, cell: CellNumber) {
        for auctioneer in 0..self.auctioneers.len() {
            for commit in 0..self.auctioneers[auctioneer].commits.len() {
                let entry = &mut self.auctioneers[auctioneer].commits[commit];
                if entry.cell == cell && std::mem::replace(&mut entry.is_open, false) {
                    let Commit { job, count, .. } = *entry;
                    self.replace(job, count);
                }
            }
        }
    }

    /// An auctioneer dies and forgets all. Who keeps the desired state finds out what it left behind once none of its
    /// messages can be under way any more.
    fn crash_auctioneer(&mut self, caller: Caller) {
        self.summary.auctioneer_crashes += 1;
        let life = caller.life + 1;
        self.auctioneers[caller.auctioneer as usize] =
            Auctioneer { is_up: false, life, ..Auctioneer::new(self.setup.round) };
        let at_us = self.outage_us();
        self.queue.push(at_us, Happening::AuctioneerStarts { auctioneer: caller.auctioneer });
        self.queue.push(self.now_us + MESSAGE_LIFE_US + 1, Happening::Converge { caller });
    }

    /// What is wanted of a dead auctioneer's jobs, and neither runs nor was refused, is placed anew.
    pub(super) fn converge(&mut self, caller: Caller) {
        for job in self.books.owned_by(caller) {
            let entry = self.books.get_mut(job);
            entry.is_adopted = true;
            let missing = entry.wanted - entry.live - entry.refused;
            self.replace(job, missing);
        }
    }

    /// Whether a job may run on cells of that class and zone.
    pub(super) fn is_eligible(&self, job: Job, class: ClassIndex, zone: ZoneIndex) -> bool {
        let demand = &self.books.get(job).demand;
        let is_zone = match demand.zone {
            ZoneRule::Only(only) => only == zone,
            ZoneRule::Any | ZoneRule::Balance => true,
        };
        is_zone && self.view.matching(&demand.requirements).has(class)
    }

    /// Instances are refused. If every cell is said to have answered, none may have had room all the time.
    fn refuse(&mut self, caller: Caller, job: Job, count: u32) -> Checked {
        self.books.get_mut(job).refused += count;
        let auctioneer = &self.auctioneers[caller.auctioneer as usize];
        let (begun, refusal) = (auctioneer.begun, *auctioneer.round.refusal());
        if !refusal.is_certain() {
            self.summary.refused_uncertain += u64::from(count);
            return Ok(());
        }
        self.summary.refused_certain += u64::from(count);
        let demand = &self.books.get(job).demand;
        for (number, cell) in self.cells.iter().enumerate() {
            let (_, class, zone) = self.places[number];
            let counts = !cell.is_gone && !cell.lies && cell.joined <= begun;
            if counts && self.is_eligible(job, class, zone) && cell.had_room_since(begun, job, demand) {
                let free = cell.account.free;
                return Err(format!(
                    "job {job}: {count} refused, but cell {number} had room all the time, {free:?} now; {refusal:?}"
                ));
            }
        }
        Ok(())
    }
}
