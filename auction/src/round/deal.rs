//! Bids to reservations: the cheapest instances first, each price from a cell's own curve.

use super::{AskId, Attempt, AttemptId, AttemptState, Effect, Round};
use crate::demand::Strategy;
use crate::ledger::ReservationId;
use crate::score::PRICE_MAX;
use rand::{Rng, RngExt};
use std::cmp::Reverse;

/// A key is a price with an ask's index below it, so that keys sort by price. 2^16 is above `ASKS_MAX`.
const INDEX_BITS: u32 = 16;
const INDEX_MASK: u64 = (1 << INDEX_BITS) - 1;

impl Round {
    /// Deals a group's instances out to its bids, as far as they have room, and sends the reservations.
    pub(super) fn deal<R: Rng + ?Sized>(
        &mut self,
        group: usize,
        now_us: u64,
        rng: &mut R,
        effects: &mut Vec<Effect>,
    ) {
        self.keys.clear();
        for (index, ask) in self.asks.iter().enumerate() {
            if ask.room > 0 && usize::from(ask.group) == group {
                self.keys.push(ask.first << INDEX_BITS | index as u64);
            }
        }
        let wanted = self.groups[group].wanted;
        match self.batch.as_ref().map(|batch| batch.demand().strategy) {
            Some(Strategy::Pack) => self.pack(wanted, rng),
            Some(Strategy::Spread) | None => self.spread(wanted),
        }
        self.send(group, now_us, rng, effects);
    }

    /// The cheapest instances of all curves. Leaves in `keys` the asks that got any, once each.
    fn spread(&mut self, wanted: u32) {
        let wanted = wanted as usize;
        if self.keys.len() > wanted {
            self.keys.select_nth_unstable(wanted - 1);
        }
        // With one instance for each of the cheapest first prices, nobody's second is cheaper than what was chosen:
        // so it is with every app that is spread, and no heap is needed.
        if self.keys.len() >= wanted {
            let chosen = &self.keys[..wanted];
            let dearest = chosen.iter().copied().max().unwrap_or(0) >> INDEX_BITS;
            let second = |key: &u64| (key >> INDEX_BITS) + self.asks[(key & INDEX_MASK) as usize].step;
            if chosen.iter().map(second).min().is_none_or(|second| dearest <= second) {
                self.keys.truncate(wanted);
                for key in &self.keys {
                    self.asks[(key & INDEX_MASK) as usize].dealt = 1;
                }
                return;
            }
        }
        self.heap.clear();
        self.heap.extend(self.keys.drain(..).map(Reverse));
        for _ in 0..wanted {
            let Some(mut cheapest) = self.heap.peek_mut() else { break };
            let index = cheapest.0 & INDEX_MASK;
            let ask = &mut self.asks[index as usize];
            if ask.dealt == 0 {
                self.keys.push(index);
            }
            ask.dealt += 1;
            if ask.dealt == ask.room {
                std::collections::binary_heap::PeekMut::pop(cheapest);
            } else {
                let price = ask.first + ask.step * u64::from(ask.dealt);
                cheapest.0 = price.min(PRICE_MAX) << INDEX_BITS | index;
            }
        }
    }

    /// Fills cells chosen at random among the few fullest. Leaves in `keys` the asks that got any, once each.
    fn pack<R: Rng + ?Sized>(&mut self, wanted: u32, rng: &mut R) {
        self.keys.sort_unstable();
        let choices = self.config.pack_choices.max(1) as usize;
        let (mut left, mut chosen) = (wanted, 0);
        while left > 0 && chosen < self.keys.len() {
            let last = (chosen + choices).min(self.keys.len());
            let choice = rng.random_range(chosen..last);
            // The chosen are moved to the front; the others keep their order.
            self.keys[chosen..=choice].rotate_right(1);
            let ask = &mut self.asks[(self.keys[chosen] & INDEX_MASK) as usize];
            ask.dealt = ask.room.min(left);
            left -= ask.dealt;
            chosen += 1;
        }
        self.keys.truncate(chosen);
    }

    /// Sends a reservation to every ask in `keys`.
    fn send<R: Rng + ?Sized>(&mut self, group: usize, now_us: u64, rng: &mut R, effects: &mut Vec<Effect>) {
        let deadline_us = now_us.saturating_add(self.config.reserve_deadline_us);
        let ttl_us = self.config.ttl_us;
        for key in &self.keys {
            let index = (key & INDEX_MASK) as usize;
            let ask = &mut self.asks[index];
            let (cell, epoch, count) = (ask.cell, ask.epoch, std::mem::take(&mut ask.dealt));
            // What is left of the bid is good for a later deal of this round.
            ask.room -= count;
            ask.given += count;
            ask.first = (ask.first + ask.step * u64::from(count)).min(PRICE_MAX);
            self.groups[group].room -= count;
            self.groups[group].wanted -= count;
            let first = ReservationId::random(rng);
            let attempt = AttemptId(self.attempts_base + self.attempts.len() as u64);
            self.attempts.push(Attempt {
                cell,
                group: group as u8,
                state: AttemptState::Sent,
                sends: 1,
                count,
                ask: AskId(self.asks_base + index as u64),
                epoch,
                first,
                deadline_us,
            });
            self.attempts_open += 1;
            effects.push(Effect::Reserve { attempt, cell, epoch, first, count, ttl_us });
        }
        if !self.keys.is_empty() {
            self.wake_at(deadline_us, effects);
        }
    }
}
