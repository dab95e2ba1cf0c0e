//! The world: who there is, what happens next, and the faults.

use super::auctioneer::Auctioneer;
use super::books::Books;
use super::cell::{Cell, Checked};
use super::message::{Answer, Call, Caller, CellNumber, Happening, Job};
use super::queue::Queue;
use super::setup::Setup;
use super::{EVENTS_MAX, MESSAGE_LIFE_US, Mutation, Summary, Violation};
use crate::demand::{AppId, Batch, Demand, Requirements, Resources, Strategy, ZoneRule};
use crate::ledger::TTL_MAX_US;
use crate::round::Event;
use crate::view::{Class, ClassIndex, View, ZoneIndex};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::fmt;

/// The longest that a cell or an auctioneer is down, or the network parted, in microseconds.
const OUTAGE_US_MAX: u64 = 400_000;

/// A world under way.
#[derive(Debug)]
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) setup: Setup,
    pub(super) mutation: Option<Mutation>,
    pub(super) rng: Pcg64Mcg,
    pub(super) now_us: u64,
    pub(super) queue: Queue<Happening>,
    pub(super) view: View,
    /// By the view's cell index: the cell that has it now.
    pub(super) numbers: Vec<CellNumber>,
    pub(super) cells: Vec<Cell>,
    /// By cell: its index, class and zone. What the view ought to say.
    pub(super) places: Vec<(u32, ClassIndex, ZoneIndex)>,
    pub(super) auctioneers: Vec<Auctioneer>,
    pub(super) books: Books,
    /// Who is cut off from whom, while the network is parted.
    pub(super) partition: Option<u64>,
    pub(super) summary: Summary,
}

impl World {
    pub(super) fn new(seed: u64, setup: &Setup, mutation: Option<Mutation>) -> Self {
        let auctioneers = (0..setup.auctioneers).map(|_| Auctioneer::new(setup.round)).collect();
        let mut world = Self {
            seed,
            setup: setup.clone(),
            mutation,
            rng: Pcg64Mcg::seed_from_u64(seed),
            now_us: 0,
            queue: Queue::new(),
            view: View::new(),
            numbers: Vec::new(),
            cells: Vec::new(),
            places: Vec::new(),
            auctioneers,
            books: Books::default(),
            partition: None,
            summary: Summary { seeds: 1, ..Summary::default() },
        };
        for zone in 0..setup.zones {
            world.view.zone(&format!("z{zone}")).expect("setups have few zones");
        }
        for class in 0..setup.classes {
            world.view.class(&class_of(class)).expect("setups have few classes");
        }
        for _ in 0..setup.cells {
            world.join();
        }
        if mutation == Some(Mutation::CellOverlooked) {
            let (index, ..) = world.places[0];
            world.view.leave(crate::CellIndex(index)).expect("the first cell is there");
        }
        world.plan();
        world
    }

    /// Plans what comes from outside.
    fn plan(&mut self) {
        let calm_us = self.setup.calm_us;
        for _ in 0..self.setup.jobs {
            let demand = self.draw_demand();
            let count = self.rng.random_range(1..=self.setup.count_max);
            let job = self.books.open(demand, count);
            let at_us = self.rng.random_range(0..calm_us);
            self.queue.push(at_us, Happening::Submit { job });
        }
        for _ in 0..self.setup.finishes {
            let at_us = self.rng.random_range(0..calm_us + OUTAGE_US_MAX);
            self.queue.push(at_us, Happening::Finish);
        }
        for _ in 0..self.setup.moves {
            let at_us = self.rng.random_range(0..calm_us);
            self.queue.push(at_us, Happening::Leave);
            self.queue.push(at_us + self.rng.random_range(0..calm_us), Happening::Join);
        }
        self.queue.push(self.setup.sweep_us, Happening::Sweep);
    }

    fn draw_demand(&mut self) -> Demand {
        let rng = &mut self.rng;
        let slots = self.setup.capacity.containers;
        // Small next to a cell, or as large as one, or larger.
        let share = [1, 1, 2, 4, slots.max(1)][rng.random_range(0..5)];
        let part = |rng: &mut Pcg64Mcg, amount: u32| rng.random_range(1..=(amount / slots * share).max(1));
        let capacity = self.setup.capacity;
        let resources = Resources {
            cpu_milli: part(rng, capacity.cpu_milli),
            memory_mib: part(rng, capacity.memory_mib),
            disk_mib: part(rng, capacity.disk_mib),
            containers: 1,
            ports: rng.random_range(0..=2) / 2,
        };
        let mut requirements = Requirements::default();
        if rng.random_range(0..4) == 0 {
            requirements.tags = class_of(rng.random_range(0..self.setup.classes)).tags;
        }
        let zone = match rng.random_range(0..8) {
            0 => ZoneRule::Only(ZoneIndex(rng.random_range(0..self.setup.zones) as u8)),
            1 | 2 => ZoneRule::Any,
            _ => ZoneRule::Balance,
        };
        let strategy = if rng.random_range(0..4) == 0 { Strategy::Pack } else { Strategy::Spread };
        let app = AppId(rng.random_range(0..u64::from(self.setup.jobs)));
        Demand { app, resources, requirements, zone, strategy, priority: 0 }
    }

    /// Runs until all is quiet.
    pub(super) fn run(mut self, show: &mut dyn FnMut(u64, &dyn fmt::Debug)) -> Result<Summary, Violation> {
        match self.run_to_end(show) {
            Ok(()) => Ok(self.summary),
            Err(what) => Err(Violation { seed: self.seed, now_us: self.now_us, what }),
        }
    }

    fn run_to_end(&mut self, show: &mut dyn FnMut(u64, &dyn fmt::Debug)) -> Checked {
        while let Some((at_us, happening)) = self.queue.pop() {
            self.now_us = at_us;
            self.summary.events += 1;
            if self.summary.events > EVENTS_MAX {
                return Err(format!("still not quiet after {EVENTS_MAX} happenings"));
            }
            show(at_us, &happening);
            self.happen(happening)?;
            if self.chance(self.setup.partition) && self.partition.is_none() {
                self.partition = Some(self.rng.random());
                self.summary.partitions += 1;
                let until_us = self.now_us + self.rng.random_range(1..OUTAGE_US_MAX);
                self.queue.push(until_us, Happening::Heal);
            }
        }
        self.now_us += TTL_MAX_US;
        self.sweep()?;
        self.check_end()
    }

    fn happen(&mut self, happening: Happening) -> Checked {
        match happening {
            Happening::Call { cell, from, call } => self.serve(cell, from, call),
            Happening::Answer { to, answer } => self.take_answer(to, answer),
            Happening::Wake { caller } => self.wake(caller),
            Happening::CommitDeadline { caller, commit } => {
                self.commit_again(caller, commit);
                Ok(())
            }
            Happening::Submit { job } => self.submit(job),
            Happening::Sweep => {
                if !self.queue.is_empty() {
                    self.queue.push(self.now_us + self.setup.sweep_us, Happening::Sweep);
                }
                self.sweep()
            }
            Happening::Finish => self.finish(),
            Happening::CellStarts { cell, has_disk } => self.start_cell(cell, has_disk),
            Happening::AuctioneerStarts { auctioneer } => {
                self.auctioneers[auctioneer as usize].is_up = true;
                Ok(())
            }
            Happening::Converge { caller } => {
                self.converge(caller);
                Ok(())
            }
            Happening::Heal => {
                self.partition = None;
                Ok(())
            }
            Happening::Leave => {
                self.leave();
                Ok(())
            }
            Happening::Join => {
                self.join();
                Ok(())
            }
        }
    }

    /// Whether a fault happens that has this chance in 65,536. None does once it is calm.
    pub(super) fn chance(&mut self, chance: u32) -> bool {
        chance > 0 && self.now_us < self.setup.calm_us && self.rng.random_range(0..65_536) < chance
    }

    pub(super) fn outage_us(&mut self) -> u64 {
        self.now_us + self.rng.random_range(1..OUTAGE_US_MAX)
    }

    /// Whether a caller and a cell are cut off from each other.
    fn is_cut(&self, caller: Caller, cell: CellNumber) -> bool {
        self.partition.is_some_and(|partition| {
            let side = |number: u32| (partition >> (number % 61)) & 1;
            side(cell) != side(caller.auctioneer.wrapping_mul(7) + 3)
        })
    }

    /// Sends a call to a cell.
    pub(super) fn call(&mut self, from: Caller, cell: CellNumber, call: Call) {
        self.summary.messages += 1;
        let is_cut = self.is_cut(from, cell);
        // Of a cell that cannot be reached, the caller hears at once or never.
        if (is_cut || !self.cells[cell as usize].is_up) && self.rng.random() {
            let answer = match call {
                Call::Ask { ask, .. } => Some(Event::NoBid { ask }),
                Call::Reserve { attempt, .. } => Some(Event::NotSent { attempt }),
                Call::Cancel { .. } | Call::Commit { .. } => None,
            };
            self.summary.lost += 1;
            if let Some(answer) = answer.map(Answer::Round) {
                self.queue.push(self.now_us + 1, Happening::Answer { to: from, answer });
            }
            return;
        }
        self.send(is_cut, Happening::Call { cell, from, call });
    }

    /// Sends an answer to a caller.
    pub(super) fn answer(&mut self, cell: CellNumber, to: Caller, answer: Answer) {
        self.summary.messages += 1;
        self.send(self.is_cut(to, cell), Happening::Answer { to, answer });
    }

    fn send(&mut self, is_cut: bool, happening: Happening) {
        if is_cut || self.chance(self.setup.loss) {
            self.summary.lost += 1;
            return;
        }
        let is_doubled = self.chance(self.setup.doubling);
        self.summary.doubled += u64::from(is_doubled);
        for _ in 0..1 + u32::from(is_doubled) {
            let most_us = if self.chance(self.setup.slow) { MESSAGE_LIFE_US } else { self.setup.delay_us };
            let delay_us = self.rng.random_range(1..=most_us);
            self.queue.push(self.now_us + delay_us, happening);
        }
    }

    /// Instances that were committed are lost, or never were: they are placed anew.
    pub(super) fn replace(&mut self, job: Job, count: u32) {
        if count > 0 {
            self.summary.replaced += u64::from(count);
            let job = self.books.reopen(job, count);
            self.queue.push(self.now_us + self.setup.delay_us, Happening::Submit { job });
        }
    }

    /// A cell joins.
    fn join(&mut self) {
        let zone = ZoneIndex(self.rng.random_range(0..self.setup.zones) as u8);
        let class = ClassIndex(self.rng.random_range(0..self.setup.classes) as u8);
        let index = self.view.join(class, zone).expect("zone and class were added").0;
        // One in four is half as large.
        let part = |amount: u32, shift: u32| (amount >> shift).max(1);
        let shift = u32::from(self.rng.random_range(0..4) == 0);
        let Resources { cpu_milli, memory_mib, disk_mib, containers, ports } = self.setup.capacity;
        let capacity = Resources {
            cpu_milli: part(cpu_milli, shift),
            memory_mib: part(memory_mib, shift),
            disk_mib: part(disk_mib, shift),
            containers: part(containers, shift),
            ports: part(ports, shift),
        };
        let lies = self.rng.random_range(0..65_536) < self.setup.liars;
        let number = self.cells.len() as CellNumber;
        self.cells.push(Cell::new(capacity, lies, self.summary.events, self.mutation));
        self.places.push((index, class, zone));
        self.summary.cells += 1;
        match self.numbers.get_mut(index as usize) {
            Some(entry) => *entry = number,
            None => self.numbers.push(number),
        }
    }

    /// The batch of a job.
    pub(super) fn batch(&self, job: Job) -> Batch {
        let entry = self.books.get(job);
        Batch::new(entry.demand.clone(), entry.wanted, &[]).expect("jobs are sound batches")
    }

    /// All is quiet: nothing is held, and all that is wanted is there or was refused.
    fn check_end(&mut self) -> Checked {
        for (number, cell) in self.cells.iter().enumerate().filter(|(_, cell)| !cell.is_gone) {
            if let Some(hold) = cell.account.holds.iter().find(|hold| hold.until_us.is_some()) {
                return Err(format!("cell {number} holds {hold:?} in the end"));
            }
        }
        let cells = self.cells.iter().filter(|cell| !cell.is_gone);
        let there: usize = cells.map(|cell| cell.account.holds.len()).sum();
        if there as u64 != self.books.live() {
            let live = self.books.live();
            return Err(format!("in the end {there} instances are on cells, {live} in the books"));
        }
        self.books.check_end()
    }
}

/// What cells of a class have: every class another tag.
fn class_of(class: u32) -> Class {
    Class { tags: vec![format!("tag-{class}").into()], ..Class::default() }
}
