//! Whom to ask: zones with the fewest instances first, a few cells at random, then twice as many, at last all.

use super::{ASKS_MAX, Ask, AskId, AskState, Effect, Group, Refusal, Round, WALKS_MAX, WAVE_MAX};
use crate::demand::{Batch, ZoneRule};
use crate::ledger::Epoch;
use crate::view::{CellIndex, View, Walk, ZoneIndex, ZoneSet};
use rand::{Rng, RngExt};

/// One in so many cells of a sample is asked from memory. What is remembered is old by the next batch: half of a sample
/// of it spreads worse than a third.
const RECALLED_PART: usize = 3;

impl Round {
    /// Forgets the batch before, but not which answers were its own.
    pub(super) fn forget(&mut self) {
        self.asks_base += self.asks.len() as u64;
        self.asks.clear();
        self.attempts_base += self.attempts.len() as u64;
        self.attempts.clear();
        self.recalled.clear();
        self.wait_us = None;
        self.waiting = 0;
        self.threshold = 0;
        self.attempts_open = 0;
        self.reasks = 0;
        self.refusal = Refusal::default();
        self.nearest = 0;
        self.wake_us = u64::MAX;
        self.is_done = false;
    }

    /// The zones that the batch may go to and that have cells for it.
    pub(super) fn make_groups(&mut self, batch: &Batch, view: &View) {
        self.groups_count = 0;
        self.cells_count = 0;
        let (first, last) = match batch.demand().zone {
            ZoneRule::Balance => (0, view.zones_count() as u8),
            ZoneRule::Only(zone) => (zone.0, zone.0.saturating_add(1)),
            ZoneRule::Any => {
                self.add_group(ZoneSet::ALL, 0, view);
                return;
            }
        };
        for zone in (first..last).map(ZoneIndex) {
            let instances = batch.placed().get(usize::from(zone.0)).copied().unwrap_or(0);
            self.add_group(ZoneSet::one(zone), instances, view);
        }
        if batch.count() == 1 {
            self.join_fewest();
        }
    }

    fn add_group(&mut self, zones: ZoneSet, instances: u32, view: &View) {
        let cells = view.count(self.classes, zones);
        if cells > 0 {
            self.groups[self.groups_count] = Group { zones, instances, ..Group::default() };
            self.groups_count += 1;
            self.cells_count += cells;
        }
    }

    /// Makes one group of the zones with the fewest instances: a single one goes to the best cell in any of them, so that
    /// apps of one instance do not fill zones by chance.
    fn join_fewest(&mut self) {
        let groups = &mut self.groups[..self.groups_count];
        let Some(fewest) = groups.iter().map(|group| group.instances).min() else { return };
        groups.sort_unstable_by_key(|group| group.instances);
        let equal = groups.partition_point(|group| group.instances == fewest);
        let zones =
            groups[..equal].iter().fold(ZoneSet::default(), |all, group| ZoneSet(all.0 | group.zones.0));
        groups[0].zones = zones;
        groups[1..].rotate_left(equal - 1);
        self.groups_count -= equal - 1;
    }

    /// Deals instances to the groups, each to the one with the fewest that is open. Says how many found none.
    pub(super) fn deal_to_groups<R: Rng + ?Sized>(&mut self, count: u32, rng: &mut R) -> u32 {
        let groups = &mut self.groups[..self.groups_count];
        if groups.is_empty() {
            return count;
        }
        if let [group] = groups
            && !group.is_exhausted
        {
            group.wanted += count;
            group.instances += count;
            return 0;
        }
        // Equal zones take turns by chance, or all single instances of all auctioneers would go to the first.
        let offset = rng.random_range(0..groups.len());
        groups.rotate_left(offset);
        let mut left = count;
        while left > 0 {
            let open = groups.iter_mut().filter(|group| group.is_open());
            let Some(group) = open.min_by_key(|group| group.instances) else { break };
            group.wanted += 1;
            group.instances += 1;
            left -= 1;
        }
        groups.rotate_right(offset);
        left
    }

    /// Takes the instances that exhausted groups still want and deals them to the others. Says whether any were.
    pub(super) fn spill<R: Rng + ?Sized>(&mut self, rng: &mut R) -> bool {
        let groups = &mut self.groups[..self.groups_count];
        let mut spilled = 0;
        // What an exhausted group still wants, its bids had no room for.
        for group in groups.iter_mut().filter(|group| group.is_exhausted) {
            spilled += group.wanted;
            group.instances -= group.wanted;
            group.wanted = 0;
        }
        let left = self.deal_to_groups(spilled, rng);
        // Wanted still: a late bid may have room.
        if let Some(group) = self.groups[..self.groups_count].iter_mut().find(|group| group.is_exhausted) {
            group.wanted += left;
            group.instances += left;
        }
        spilled > left
    }

    /// Goes on as far as possible without another event.
    pub(super) fn advance<R: Rng + ?Sized>(
        &mut self,
        now_us: u64,
        view: &View,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) {
        if self.waiting > 0 && (self.waiting > self.threshold || !self.has_room_for_all()) {
            return;
        }
        if !self.asks.is_empty() {
            self.wait_us.get_or_insert(now_us.saturating_sub(self.asked_us));
        }
        loop {
            for group in 0..self.groups_count {
                if self.groups[group].wanted > 0 && self.groups[group].room > 0 {
                    self.deal(group, now_us, rng, effects);
                }
            }
            if self.wanted() == 0 {
                break;
            }
            if self.ask_wave(now_us, view, rng, effects) || self.waiting > 0 {
                return;
            }
            // Each turn ends with bids that have less room, or with a wave of asks: there is an end to both.
            if !self.spill(rng) {
                break;
            }
        }
        let wanted = self.wanted();
        if self.attempts_open == 0 {
            self.is_done = true;
            if self.remembers {
                let bids = self.asks.iter().filter(|ask| ask.room > 0);
                self.dispersion.learn(bids.clone().map(|ask| ask.used), self.wait_us.unwrap_or_default());
                self.memory.learn(bids.map(|ask| (ask.cell, ask.used_after())));
            }
            if wanted > 0 {
                effects.push(Effect::Refused { count: wanted });
            }
        }
    }

    /// How many instances have neither a cell nor an attempt at one.
    pub(super) fn wanted(&self) -> u32 {
        self.groups[..self.groups_count].iter().map(|group| group.wanted).sum::<u32>() + self.unplaceable
    }

    fn has_room_for_all(&self) -> bool {
        self.groups[..self.groups_count].iter().all(|group| group.room >= group.wanted)
    }

    /// Asks more cells for every group that wants some. Says whether any were asked.
    fn ask_wave<R: Rng + ?Sized>(
        &mut self,
        now_us: u64,
        view: &View,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let mut asked = 0;
        for index in 0..self.groups_count {
            let group = &self.groups[index];
            if group.wanted > 0 && !group.is_exhausted {
                asked += self.ask_group(index, view, rng, effects);
            }
        }
        if asked == 0 {
            return false;
        }
        self.await_asks(now_us, effects);
        self.threshold = asked * self.config.stragglers_sixteenths.min(16) / 16;
        true
    }

    fn ask_group<R: Rng + ?Sized>(
        &mut self,
        index: usize,
        view: &View,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) -> u32 {
        self.forget_asks();
        let (count, asks_all, per_four) = (self.ask_count(), self.asks_all(), self.sample_per_four());
        let config = &self.config;
        let group = &mut self.groups[index];
        if group.walks == 0 || group.version != view.version() {
            if group.walks == WALKS_MAX {
                group.is_exhausted = true;
                return 0;
            }
            if group.walks == 0 {
                let least = if asks_all { WAVE_MAX } else { config.sample_min };
                group.sample = least.max(group.wanted.saturating_mul(per_four).div_ceil(4)).max(1);
            }
            group.walk = Walk::new(view, self.classes, group.zones, rng);
            group.version = view.version();
            group.walks += 1;
        }
        let sample = group.sample.min(WAVE_MAX);
        let is_first = group.waves == 0;
        group.waves += 1;
        group.sample = sample.saturating_mul(2);
        let recalled = self.recalled.cells.len();
        if is_first && self.remembers {
            let (zones, classes) = (group.zones, self.classes);
            let is_wanted = |cell| {
                let place = view.place(cell);
                place.is_some_and(|place| zones.has(place.zone) && classes.has(place.class))
            };
            self.memory.recall(sample as usize / RECALLED_PART, is_wanted, &mut self.recalled);
        }
        let mut ask_cell = |cell| {
            let ask = AskId(self.asks_base + self.asks.len() as u64);
            self.asks.push(Ask::new(cell, index as u8));
            effects.push(Effect::Ask { ask, cell, count });
        };
        self.recalled.cells[recalled..].iter().copied().for_each(&mut ask_cell);
        let mut asked = (self.recalled.cells.len() - recalled) as u32;
        while asked < sample
            && let Some(cell) = group.walk.next(view)
        {
            if !self.recalled.has(cell) {
                ask_cell(cell);
                asked += 1;
            }
        }
        group.is_exhausted = group.walk.left() == 0;
        self.waiting += asked;
        self.refusal.cells_asked += asked;
        asked
    }

    /// How many cells are asked for every four instances: more where that pays.
    fn sample_per_four(&self) -> u32 {
        let config = &self.config;
        let pays = self.remembers && self.dispersion.is_above(config.uneven_above, config.uneven_within_us);
        if pays { config.sample_per_four_uneven } else { config.sample_per_four }
    }

    /// Asks a cell that is in another epoch by now once more.
    pub(super) fn ask_again(&mut self, cell: CellIndex, group: u8, now_us: u64, effects: &mut Vec<Effect>) {
        let ask = AskId(self.asks_base + self.asks.len() as u64);
        let count = self.ask_count();
        self.asks.push(Ask::new(cell, group));
        effects.push(Effect::Ask { ask, cell, count });
        self.waiting += 1;
        self.await_asks(now_us, effects);
    }

    /// Whether cells are so few that all of them are asked.
    pub(super) fn asks_all(&self) -> bool {
        self.cells_count <= self.config.ask_all_max
    }

    /// For how many instances cells are asked: all that the batch has, because what finds no room in one zone is dealt to
    /// the others, where nobody is asked twice.
    fn ask_count(&self) -> u32 {
        self.batch.as_ref().map_or(0, Batch::count)
    }

    fn await_asks(&mut self, now_us: u64, effects: &mut Vec<Effect>) {
        self.asks_deadline_us = now_us.saturating_add(self.config.ask_deadline_us);
        self.wake_at(self.asks_deadline_us, effects);
    }

    /// Sees that the round is woken at `at_us` or before.
    pub(super) fn wake_at(&mut self, at_us: u64, effects: &mut Vec<Effect>) {
        if at_us < self.wake_us {
            self.wake_us = at_us;
            effects.push(Effect::WakeAt { at_us });
        }
    }

    /// Keeps memory bounded in a scan of many cells: asks without room are not needed any more once all have answered.
    fn forget_asks(&mut self) {
        if self.waiting == 0 && self.asks.len() + WAVE_MAX as usize > ASKS_MAX {
            self.asks_base += self.asks.len() as u64;
            self.asks.clear();
            self.groups.iter_mut().for_each(|group| group.room = 0);
        }
    }
}

impl Group {
    /// Whether instances may be dealt to it: there are cells to ask, or bids with room to spare.
    fn is_open(&self) -> bool {
        !self.is_exhausted || self.room > self.wanted
    }
}

impl Ask {
    fn new(cell: CellIndex, group: u8) -> Self {
        let state = AskState::Waiting;
        Self { cell, group, state, room: 0, dealt: 0, given: 0, first: 0, step: 0, used: 0, epoch: Epoch(0) }
    }
}
