//! Many auctioneers on one fleet, with messages under way: what a bid says may be past when the reservation comes.
//!
//! ```text
//! app ─> auctioneer's backlog ─> Round ──delay──> ledger ──delay──> Round ─> placed ──delay──> commit
//! ```
//! All of a bin's apps are there at once, so the auctioneers are as much in each other's way as they can be.

use super::fleet::Fleet;
use super::replay::{Instance, Scheduler, Work};
use crate::Result;
use celda_auction::ledger::Terms;
use celda_auction::round::{Config, Effect, Event, Round};
use celda_auction::sim::Queue;
use celda_auction::view::{CellIndex, ZONES_MAX};
use celda_auction::{Batch, ReservationId};
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;
use std::collections::VecDeque;

/// A message's delay, from the shortest to the longest: a network within a region.
const DELAY_US: std::ops::RangeInclusive<u64> = 100..=400;
/// How long an instance starts, until its cell commits it: a container's start, with some reserve.
const START_US: u64 = 2_000;
/// The longest that the placement of a batch may take, in simulated time.
const BATCH_US_MAX: u64 = 60_000_000;

enum Happening {
    /// An effect reaches a cell.
    Effect { auctioneer: usize, effect: Effect },
    /// An event reaches an auctioneer.
    Event { auctioneer: usize, event: Event },
    /// A commit reaches a cell.
    Commit { cell: CellIndex, first: ReservationId, count: u32 },
}

/// What they did.
pub(super) struct Stats {
    pub(super) asks: u64,
    pub(super) reserves: u64,
    /// Instances that were to be reserved, and of them those that the cell refused, which had bid for them.
    pub(super) tries: u64,
    pub(super) tries_refused: u64,
    /// From a batch's begin to its end, in simulated microseconds.
    pub(super) batch_us: Histogram<u64>,
}

struct Auctioneer {
    round: Round,
    /// Work by number. An app's batches come one after the other.
    backlog: VecDeque<usize>,
    current: Option<usize>,
    begun_us: u64,
    /// Of the current app, by zone.
    placed: [u32; ZONES_MAX],
}

/// They.
pub(super) struct Auctioneers {
    fleet: Fleet,
    auctioneers: Vec<Auctioneer>,
    queue: Queue<Happening>,
    rng: Pcg64Mcg,
    pub(super) stats: Stats,
}

impl Auctioneers {
    pub(super) fn new(fleet: Fleet, count: usize, config: Config) -> Result<Self> {
        let auctioneer = || Auctioneer {
            round: Round::new(config),
            backlog: VecDeque::new(),
            current: None,
            begun_us: 0,
            placed: [0; ZONES_MAX],
        };
        let batch_us = Histogram::new_with_bounds(1, BATCH_US_MAX, 3)?;
        let stats = Stats { asks: 0, reserves: 0, tries: 0, tries_refused: 0, batch_us };
        let auctioneers = (0..count).map(|_| auctioneer()).collect();
        Ok(Self { fleet, auctioneers, queue: Queue::new(), rng: Pcg64Mcg::seed_from_u64(3), stats })
    }

    fn send(&mut self, now_us: u64, happening: Happening) {
        let delay_us = self.rng.random_range(DELAY_US);
        self.queue.push(now_us + delay_us, happening);
    }

    /// Begins batches of the backlog until one is under way.
    fn go_on(
        &mut self,
        number: usize,
        now_us: u64,
        work: &[Work],
        instances: &mut Vec<Instance>,
    ) -> Result<()> {
        loop {
            let auctioneer = &mut self.auctioneers[number];
            if let Some(current) = auctioneer.current {
                if !auctioneer.round.is_done() {
                    return Ok(());
                }
                self.stats.batch_us.saturating_record((now_us - auctioneer.begun_us).max(1));
                let next = auctioneer.backlog.front();
                if next.is_none_or(|next| work[*next].demand.app != work[current].demand.app) {
                    auctioneer.placed = [0; ZONES_MAX];
                }
            }
            auctioneer.current = auctioneer.backlog.pop_front();
            let Some(current) = auctioneer.current else { return Ok(()) };
            let Work { demand, count } = &work[current];
            let batch = Batch::new(demand.clone(), *count, &auctioneer.placed)?;
            auctioneer.begun_us = now_us;
            let mut effects = Vec::new();
            auctioneer.round.begin(batch, now_us, &self.fleet.view, &mut self.rng, &mut effects);
            self.execute(number, current, now_us, &effects, instances);
        }
    }

    fn execute(
        &mut self,
        number: usize,
        current: usize,
        now_us: u64,
        effects: &[Effect],
        instances: &mut Vec<Instance>,
    ) {
        for effect in effects.iter().copied() {
            match effect {
                Effect::Ask { .. } => {
                    self.stats.asks += 1;
                    self.send(now_us, Happening::Effect { auctioneer: number, effect });
                }
                Effect::Reserve { .. } => {
                    self.stats.reserves += 1;
                    self.send(now_us, Happening::Effect { auctioneer: number, effect });
                }
                Effect::Cancel { .. } => self.send(now_us, Happening::Effect { auctioneer: number, effect }),
                Effect::Placed { cell, first, count, .. } => {
                    if let Some(place) = self.fleet.view.place(cell) {
                        self.auctioneers[number].placed[usize::from(place.zone.0)] += count;
                    }
                    let cell_number = cell.0 as usize;
                    instances.extend((0..count).map(|offset| Instance {
                        work: current,
                        cell: cell_number,
                        id: first.plus(offset),
                    }));
                    self.send(now_us + START_US, Happening::Commit { cell, first, count });
                }
                Effect::WakeAt { at_us } => {
                    self.queue.push(at_us, Happening::Event { auctioneer: number, event: Event::Wake });
                }
                // Seen by what is missing.
                Effect::Refused { .. } => {}
            }
        }
    }

    /// An effect reaches its cell, and the answer is sent.
    fn serve(&mut self, auctioneer: usize, effect: Effect, now_us: u64) {
        let asker = &self.auctioneers[auctioneer];
        let Some(demand) = asker.round.batch().map(celda_auction::Batch::demand) else { return };
        let event = match effect {
            Effect::Ask { ask, cell, count } => {
                Event::Bid { ask, bid: self.fleet.ledgers[cell.0 as usize].bid(demand, count) }
            }
            Effect::Reserve { attempt, cell, epoch, first, count, ttl_us } => {
                let ledger = &self.fleet.ledgers[cell.0 as usize];
                let terms = Terms { epoch, now_us, ttl_us };
                let (held, refused) = ledger.reserve_batch(first, count, demand, terms);
                self.stats.tries += u64::from(count);
                self.stats.tries_refused += u64::from(count - held);
                Event::Reserved { attempt, held, refused }
            }
            Effect::Cancel { cell, first, count } => {
                for offset in 0..count {
                    self.fleet.ledgers[cell.0 as usize].release(first.plus(offset));
                }
                return;
            }
            _ => return,
        };
        self.send(now_us, Happening::Event { auctioneer, event });
    }
}

impl Scheduler for Auctioneers {
    fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn place(&mut self, now_us: u64, work: &[Work], instances: &mut Vec<Instance>) -> Result<()> {
        let mut next = 0;
        for (number, entry) in work.iter().enumerate() {
            let is_same_app = number > 0 && work[number - 1].demand.app == entry.demand.app;
            next = if is_same_app { next } else { (next + 1) % self.auctioneers.len() };
            self.auctioneers[next].backlog.push_back(number);
        }
        for number in 0..self.auctioneers.len() {
            self.go_on(number, now_us, work, instances)?;
        }
        while let Some((now_us, happening)) = self.queue.pop() {
            match happening {
                Happening::Effect { auctioneer, effect } => self.serve(auctioneer, effect, now_us),
                Happening::Commit { cell, first, count } => {
                    for offset in 0..count {
                        self.fleet.ledgers[cell.0 as usize].commit(first.plus(offset));
                    }
                }
                Happening::Event { auctioneer, event } => {
                    let asker = &mut self.auctioneers[auctioneer];
                    let Some(current) = asker.current else { continue };
                    let mut effects = Vec::new();
                    asker.round.step(event, now_us, &self.fleet.view, &mut self.rng, &mut effects);
                    self.execute(auctioneer, current, now_us, &effects, instances);
                    self.go_on(auctioneer, now_us, work, instances)?;
                }
            }
        }
        Ok(())
    }
}
