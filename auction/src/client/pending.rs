//! The calls of one link that are not answered yet.
//!
//! ```text
//! correlation = use of the slot:32 | slot + 1:32        never 0, and another one each time a slot is used again
//! ```

use super::inbox::Inbox;
use crate::round::{AskId, AttemptId, Event};
use crate::wire::{self, Malformed, Settled};
use celda_api::auction::v1;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A call that waits for its answer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) waits: Waits,
    /// How many instances it is for.
    pub(super) count: u32,
}

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Waits {
    /// A round, for a bid.
    Bid(Arc<Inbox>, AskId),
    /// A round, for a reservation.
    Reserve(Arc<Inbox>, AttemptId),
    /// Somebody who commits or releases.
    Settle(oneshot::Sender<Result<Settled, Malformed>>),
}

impl Entry {
    /// Tells who waits what the cell answered. Says whether it was an answer at all.
    pub(super) fn answer(self, answer: Option<v1::answer::Answer>) -> bool {
        let answer = answer.ok_or(Malformed::Unsupported { what: "an answer" });
        match self.waits {
            Waits::Bid(inbox, ask) => {
                let bid = answer.and_then(|answer| match answer {
                    v1::answer::Answer::Bid(message) => wire::bid(&message, self.count),
                    other => Err(unexpected(other)),
                });
                let is_answer = bid.is_ok();
                inbox.push(bid.map_or(Event::NoBid { ask }, |bid| Event::Bid { ask, bid }));
                is_answer
            }
            Waits::Reserve(inbox, attempt) => {
                let reserved = answer.and_then(|answer| match answer {
                    v1::answer::Answer::Reserve(message) => wire::reserved(&message, self.count),
                    other => Err(unexpected(other)),
                });
                // Rubbish tells nothing of what is held: the round finds out by its deadline, and cancels.
                let is_answer = reserved.is_ok();
                if let Ok((held, refused)) = reserved {
                    inbox.push(Event::Reserved { attempt, held, refused });
                }
                is_answer
            }
            Waits::Settle(sender) => {
                let settled = answer.and_then(|answer| match answer {
                    v1::answer::Answer::Settle(message) => wire::settled(&message, self.count),
                    other => Err(unexpected(other)),
                });
                let is_answer = settled.is_ok();
                let _ = sender.send(settled);
                is_answer
            }
        }
    }

    /// Tells who waits that no answer will come; `is_sent` if the call may have reached the cell.
    pub(super) fn fail(self, is_sent: bool) {
        match self.waits {
            Waits::Bid(inbox, ask) => inbox.push(Event::NoBid { ask }),
            Waits::Reserve(inbox, attempt) if !is_sent => inbox.push(Event::NotSent { attempt }),
            // It may hold: the round asks again with the same ids.
            Waits::Reserve(..) => {}
            // Dropping the sender tells.
            Waits::Settle(_) => {}
        }
    }
}

fn unexpected(answer: v1::answer::Answer) -> Malformed {
    match answer {
        v1::answer::Answer::Failure(failure) => failure.into(),
        _ => Malformed::Unsupported { what: "an answer to another kind of call" },
    }
}

/// Entries by correlation.
#[derive(Debug, Default)]
pub(super) struct Pending {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
}

#[derive(Debug, Default)]
struct Slot {
    uses: u32,
    entry: Option<Entry>,
}

impl Pending {
    /// How many calls are unanswered.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Keeps an entry, and says its correlation.
    pub(super) fn insert(&mut self, entry: Entry) -> u64 {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // The link bounds how many there are.
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        slot.uses = slot.uses.wrapping_add(1);
        slot.entry = Some(entry);
        u64::from(slot.uses) << 32 | u64::from(index + 1)
    }

    /// Takes the entry of a correlation, if it is one that waits.
    pub(super) fn take(&mut self, correlation: u64) -> Option<Entry> {
        let index = (correlation as u32).checked_sub(1)?;
        let slot = self.slots.get_mut(index as usize)?;
        if u64::from(slot.uses) != correlation >> 32 {
            return None;
        }
        let entry = slot.entry.take()?;
        self.vacant.push(index);
        Some(entry)
    }

    /// Takes all entries.
    pub(super) fn drain(&mut self) -> Vec<Entry> {
        let entries = self.slots.iter_mut().filter_map(|slot| slot.entry.take()).collect();
        self.vacant = (0..self.slots.len() as u32).collect();
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(count: u32) -> Entry {
        Entry { waits: Waits::Settle(oneshot::channel().0), count }
    }

    #[test]
    fn an_answer_finds_its_call_once_and_no_other() {
        let mut pending = Pending::default();
        let first = pending.insert(entry(1));
        let second = pending.insert(entry(2));
        assert_ne!(first, 0);
        assert_eq!(pending.take(first).map(|entry| entry.count), Some(1));
        assert!(pending.take(first).is_none(), "answered twice");
        let third = pending.insert(entry(3));
        assert!(pending.take(first).is_none(), "the slot is used again");
        assert_eq!((pending.len(), pending.take(third).map(|entry| entry.count)), (2, Some(3)));
        for lie in [0, 1, u64::MAX, second ^ 1 << 40, second + 1] {
            assert!(pending.take(lie).is_none(), "{lie:x}");
        }
        assert_eq!(pending.drain().len(), 1);
        assert_eq!(pending.len(), 0);
        assert!(pending.take(second).is_none());
    }
}
