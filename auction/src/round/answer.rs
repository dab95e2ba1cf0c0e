//! What answers and deadlines change.

use super::{AskId, AskState, AttemptId, AttemptState, Effect, REASKS_MAX, Round};
use crate::demand::{BATCH_MAX, Resources, Shortage};
use crate::ledger::Refused;
use crate::score::{Bid, PRICE_MAX, PRICE_ONE};

/// Nearness of a cell whose free amounts are just what is needed.
const NEAR_ONE: u64 = 1 << 16;

impl Round {
    /// Takes in a bid. Says whether the round may go on.
    pub(super) fn take_bid(&mut self, ask: AskId, bid: &Bid) -> bool {
        let Some(index) = self.ask_index(ask) else { return false };
        let ask = &mut self.asks[index];
        match ask.state {
            AskState::Answered => return false,
            AskState::Waiting => self.waiting -= 1,
            AskState::Late => self.refusal.unreachable -= 1,
        }
        ask.state = AskState::Answered;
        ask.epoch = bid.epoch;
        ask.room = bid.room.min(BATCH_MAX);
        // A lie is bounded: such a cell is chosen last, or first and then refuses once.
        ask.first = bid.first.0.min(PRICE_MAX);
        ask.step = bid.step.0.min(PRICE_MAX);
        ask.used = bid.used.0.min(PRICE_ONE);
        if ask.room == 0 {
            self.count_short(bid.short);
            self.compare_nearest(&bid.free);
        } else {
            self.groups[usize::from(ask.group)].room += ask.room;
        }
        self.waiting <= self.threshold
    }

    /// Takes in that an ask failed.
    pub(super) fn take_no_bid(&mut self, ask: AskId) -> bool {
        let Some(index) = self.ask_index(ask) else { return false };
        let ask = &mut self.asks[index];
        if ask.state != AskState::Waiting {
            return false;
        }
        ask.state = AskState::Answered;
        self.waiting -= 1;
        self.refusal.unreachable += 1;
        self.waiting <= self.threshold
    }

    /// Takes in the answer to a reservation.
    pub(super) fn take_reserved(
        &mut self,
        attempt: AttemptId,
        held: u32,
        refused: Option<Refused>,
        now_us: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(index) = self.attempt_index(attempt) else { return false };
        let attempt = self.attempts[index];
        // More than was asked for is no answer: the deadline sends again, then cancels.
        if attempt.state == AttemptState::Answered || held > attempt.count {
            return false;
        }
        let (cell, first, epoch) = (attempt.cell, attempt.first, attempt.epoch);
        if attempt.state == AttemptState::Abandoned {
            // Its instances are elsewhere by now. The cancel before may have come before the reservation did.
            if held > 0 {
                effects.push(Effect::Cancel { cell, first, count: held });
            }
            return false;
        }
        self.attempts[index].state = AttemptState::Answered;
        self.attempts_open -= 1;
        if held > 0 {
            effects.push(Effect::Placed { cell, epoch, first, count: held });
        }
        let rest = attempt.count - held;
        if rest > 0 {
            self.take_back(index, rest);
            match refused {
                Some(Refused::Short(short)) => self.count_short(short),
                // A new bid has the new epoch, or comes with a new id that finds a slot.
                Some(Refused::Epoch(_) | Refused::Full) if self.reasks < REASKS_MAX => {
                    self.reasks += 1;
                    self.ask_again(cell, attempt.group, now_us, effects);
                }
                // Another thread there may be about to hold them.
                Some(Refused::Busy) => {
                    self.refusal.contended += 1;
                    effects.push(Effect::Cancel { cell, first: first.plus(held), count: rest });
                }
                Some(Refused::Full | Refused::Epoch(_)) | None => self.refusal.contended += 1,
            }
        }
        rest > 0 || self.attempts_open == 0
    }

    /// Takes in that a reservation was not sent.
    pub(super) fn take_not_sent(&mut self, attempt: AttemptId) -> bool {
        let Some(index) = self.attempt_index(attempt) else { return false };
        let count = self.attempts[index].count;
        // One that was sent before may hold.
        if self.attempts[index].state != AttemptState::Sent || self.attempts[index].sends > 1 {
            return false;
        }
        self.attempts[index].state = AttemptState::Answered;
        self.attempts_open -= 1;
        self.refusal.unreachable += 1;
        self.take_back(index, count);
        true
    }

    /// Looks at the deadlines.
    pub(super) fn take_wake(&mut self, now_us: u64, effects: &mut Vec<Effect>) -> bool {
        if self.is_done || now_us < self.wake_us {
            return false;
        }
        self.wake_us = u64::MAX;
        if self.waiting > 0 && self.asks_deadline_us <= now_us {
            self.refusal.unreachable += self.waiting;
            self.waiting = 0;
            for ask in self.asks.iter_mut().filter(|ask| ask.state == AskState::Waiting) {
                ask.state = AskState::Late;
            }
        }
        for index in 0..self.attempts.len() {
            let attempt = &self.attempts[index];
            if attempt.state == AttemptState::Sent && attempt.deadline_us <= now_us {
                self.send_again(index, now_us, effects);
            }
        }
        let sent = self.attempts.iter().filter(|attempt| attempt.state == AttemptState::Sent);
        let attempts_us = sent.map(|attempt| attempt.deadline_us).min().unwrap_or(u64::MAX);
        let asks_us = if self.waiting > 0 { self.asks_deadline_us } else { u64::MAX };
        self.wake_at(attempts_us.min(asks_us), effects);
        true
    }

    /// An attempt's deadline has passed: sends it again with the same ids, or gives it up.
    fn send_again(&mut self, index: usize, now_us: u64, effects: &mut Vec<Effect>) {
        let id = AttemptId(self.attempts_base + index as u64);
        let (ttl_us, sends_max) = (self.config.ttl_us, self.config.reserve_sends_max);
        let attempt = &mut self.attempts[index];
        let (cell, epoch, first, count) = (attempt.cell, attempt.epoch, attempt.first, attempt.count);
        if attempt.sends < sends_max {
            attempt.sends += 1;
            attempt.deadline_us = now_us.saturating_add(self.config.reserve_deadline_us);
            effects.push(Effect::Reserve { attempt: id, cell, epoch, first, count, ttl_us });
            return;
        }
        attempt.state = AttemptState::Abandoned;
        self.attempts_open -= 1;
        self.refusal.unreachable += 1;
        self.take_back(index, count);
        effects.push(Effect::Cancel { cell, first, count });
    }

    /// Instances of an attempt want a cell again, and not that one.
    fn take_back(&mut self, attempt: usize, count: u32) {
        let attempt = &self.attempts[attempt];
        let group = &mut self.groups[usize::from(attempt.group)];
        group.wanted += count;
        if let Some(index) = attempt.ask.0.checked_sub(self.asks_base)
            && let Some(ask) = self.asks.get_mut(index as usize)
        {
            group.room -= ask.room;
            ask.room = 0;
        }
    }

    fn count_short(&mut self, short: Shortage) {
        if short.is_none() {
            self.refusal.contended += 1;
        }
        for resource in short.iter() {
            self.refusal.short[resource as usize] += 1;
        }
    }

    /// Keeps what is free on the cell that comes nearest: whose scarcest resource has the largest part of the need.
    fn compare_nearest(&mut self, free: &Resources) {
        let Some(batch) = &self.batch else { return };
        let need = batch.demand().resources.amounts();
        let parts = free.amounts().into_iter().zip(need).filter(|(_, need)| *need > 0);
        let part = |(free, need): (u32, u32)| (u64::from(free) * NEAR_ONE / u64::from(need)).min(NEAR_ONE);
        let nearness =
            parts.map(part).fold((NEAR_ONE, 0), |(least, sum), part| (least.min(part), sum + part));
        // The scarcest first; among equals the one with more of the rest.
        let key = nearness.0 << 32 | nearness.1;
        if key >= self.nearest {
            self.nearest = key;
            self.refusal.largest = *free;
        }
    }

    fn ask_index(&self, ask: AskId) -> Option<usize> {
        let index = usize::try_from(ask.0.checked_sub(self.asks_base)?).ok()?;
        (index < self.asks.len()).then_some(index)
    }

    fn attempt_index(&self, attempt: AttemptId) -> Option<usize> {
        let index = usize::try_from(attempt.0.checked_sub(self.attempts_base)?).ok()?;
        (index < self.attempts.len()).then_some(index)
    }
}
