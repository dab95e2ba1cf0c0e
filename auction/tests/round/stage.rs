//! A round that is fed by hand, and cells for it.

use celda_auction::demand::{Resource, Shortage};
use celda_auction::round::{AskId, AttemptId, Config, Effect, Event};
use celda_auction::score::{Bid, Price};
use celda_auction::view::Class;
use celda_auction::{AppId, Batch, CellIndex, Demand, Epoch, Ledger, Resources, Round, View};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::collections::VecDeque;

pub(crate) const CELL: Resources =
    Resources { cpu_milli: 4000, memory_mib: 4096, disk_mib: 4096, containers: 16, ports: 0 };
pub(crate) const SMALL: Resources =
    Resources { cpu_milli: 10, memory_mib: 256, disk_mib: 16, containers: 1, ports: 0 };

pub(crate) fn view(cells: u32, zones: u32) -> View {
    let mut view = View::new();
    let class = view.class(&Class::default()).unwrap();
    for cell in 0..cells {
        let zone = view.zone(&format!("z{}", cell % zones)).unwrap();
        assert_eq!(view.join(class, zone).unwrap(), CellIndex(cell));
    }
    view
}

pub(crate) fn ledgers(cells: u32) -> Vec<Ledger> {
    (0..cells).map(|_| Ledger::new(&CELL, 16, Epoch(1)).unwrap()).collect()
}

pub(crate) fn batch(count: u32) -> Batch {
    let demand = Demand { app: AppId(1), resources: SMALL, ..Demand::default() };
    Batch::new(demand, count, &[]).unwrap()
}

pub(crate) fn bid(room: u32, first: u64, step: u64) -> Bid {
    let short = if room == 0 { Shortage::NONE.with(Resource::Memory) } else { Shortage::NONE };
    let used = Price(0);
    Bid { epoch: Epoch(1), room, first: Price(first), step: Price(step), used, short, free: CELL }
}

/// A round and everything that it has said.
pub(crate) struct Stage {
    pub(crate) round: Round,
    pub(crate) view: View,
    pub(crate) rng: Pcg64Mcg,
    pub(crate) new: VecDeque<Effect>,
    pub(crate) said: Vec<Effect>,
}

impl Stage {
    pub(crate) fn new(view: View, config: Config) -> Self {
        let rng = Pcg64Mcg::seed_from_u64(1);
        Self { round: Round::new(config), view, rng, new: VecDeque::new(), said: Vec::new() }
    }

    pub(crate) fn begin(&mut self, batch: Batch) {
        let mut effects = Vec::new();
        self.round.begin(batch, 0, &self.view, &mut self.rng, &mut effects);
        self.hear(effects);
    }

    pub(crate) fn feed(&mut self, now_us: u64, event: Event) {
        let mut effects = Vec::new();
        self.round.step(event, now_us, &self.view, &mut self.rng, &mut effects);
        self.hear(effects);
    }

    pub(crate) fn hear(&mut self, effects: Vec<Effect>) {
        self.said.extend(&effects);
        self.new.extend(effects);
    }

    /// What was said since the last time.
    pub(crate) fn take(&mut self) -> Vec<Effect> {
        self.new.drain(..).collect()
    }

    pub(crate) fn asks(&mut self) -> Vec<(AskId, CellIndex)> {
        let asks = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Ask { ask, cell, .. } => Some((ask, cell)),
            _ => None,
        });
        asks.collect()
    }

    pub(crate) fn reserves(&mut self) -> Vec<(AttemptId, CellIndex, u64, u32)> {
        let reserves = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Reserve { attempt, cell, first, count, .. } => Some((attempt, cell, first.get(), count)),
            _ => None,
        });
        reserves.collect()
    }

    pub(crate) fn placed(&self) -> u32 {
        let counts =
            self.said.iter().map(|effect| if let Effect::Placed { count, .. } = effect { *count } else { 0 });
        counts.sum()
    }
}
