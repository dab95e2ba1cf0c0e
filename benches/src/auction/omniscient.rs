//! A scheduler that sees every cell at every moment and places one instance after the other.
//!
//! It uses the cells' own prices, so the difference to the auction is what the auction does not see. One kind prices what
//! has just been placed as starting, as cells do, until all of a time's arrivals are placed. The other has starts that take
//! no time.

use super::fleet::{EPOCH, Fleet};
use super::replay::{Instance, Scheduler, Work};
use crate::Result;
use celda_auction::demand::Demand;
use celda_auction::ledger::{Ledger, ReservationId, Terms};
use celda_auction::score::{self, Price};
use celda_auction::view::ZONES_MAX;

/// Longer than the arrivals of one time take: no time passes here.
const TTL_US: u64 = 1_000_000;

/// It.
pub(super) struct Omniscient {
    fleet: Fleet,
    /// By cell.
    zones: Vec<usize>,
    next_id: u64,
    starts_at_once: bool,
}

impl Omniscient {
    pub(super) fn new(fleet: Fleet, starts_at_once: bool) -> Self {
        let zones = fleet.cells().map(|(_, zone)| usize::from(zone.0)).collect();
        Self { fleet, zones, next_id: 1, starts_at_once }
    }

    /// The best cell: in the zone with the fewest instances of the app, and there the cheapest.
    fn best(&self, demand: &Demand, placed: &[u32; ZONES_MAX]) -> Option<usize> {
        let price = |(cell, ledger): (usize, &Ledger)| -> Option<(u32, Price, usize)> {
            let price = score::price(&ledger.snapshot(demand.app), demand)?;
            Some((placed[self.zones[cell]], price, cell))
        };
        self.fleet.ledgers.iter().enumerate().filter_map(price).min().map(|(_, _, cell)| cell)
    }
}

impl Scheduler for Omniscient {
    fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn place(&mut self, now_us: u64, work: &[Work], instances: &mut Vec<Instance>) -> Result<()> {
        let mut placed = [0; ZONES_MAX];
        for (number, Work { demand, count }) in work.iter().enumerate() {
            if number == 0 || work[number - 1].demand.app != demand.app {
                placed = [0; ZONES_MAX];
            }
            for _ in 0..*count {
                let Some(cell) = self.best(demand, &placed) else { break };
                let id = ReservationId::new(self.next_id).ok_or("ids begin with 1")?;
                self.next_id += 1;
                let terms = Terms { epoch: EPOCH, now_us, ttl_us: TTL_US };
                let held = self.fleet.ledgers[cell].reserve(id, demand, terms);
                held.map_err(|refused| format!("cell {cell} refuses what fits: {refused:?}"))?;
                if self.starts_at_once {
                    self.fleet.ledgers[cell].commit(id);
                }
                placed[self.zones[cell]] += 1;
                instances.push(Instance { work: number, cell, id });
            }
        }
        for instance in &*instances {
            self.fleet.ledgers[instance.cell].commit(instance.id);
        }
        Ok(())
    }
}
