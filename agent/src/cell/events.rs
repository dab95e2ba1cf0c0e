//! What happened, for whoever watches: a ring of the last events, each with a number.
//!
//! ```text
//! push -> | 17 | 18 | 19 | 20 |      token "EPOCH-18": the next are 19 and 20
//!           ^ what is older is gone: a watcher that is behind is told so, and lists anew
//! ```

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use celda_api::cell::v1;
use tokio::sync::watch;

/// Events that are kept: about 10 MB. 300 starts make 1,200.
pub const EVENTS_COUNT_MAX: usize = 16_384;

/// The ring.
#[derive(Debug)]
pub struct Events {
    epoch: u64,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<v1::Event>,
    /// Number of the last event; the first has 1.
    last: u64,
}

/// A token from which the ring cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is none.
    #[error("this is no token of a cell")]
    Malformed,
    /// What followed it is gone, or the cell came back since.
    #[error("the cell no longer knows all that happened since this token: list, and watch from there")]
    Gone,
}

impl Events {
    /// A ring of a cell that came up in `epoch`.
    pub fn new(epoch: u64) -> Self {
        Self { epoch, ring: Mutex::default(), last: watch::Sender::new(0) }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what happened, and wakes who watches.
    pub fn push(&self, events: impl IntoIterator<Item = v1::Event>) {
        let mut ring = self.ring();
        for event in events {
            if ring.events.len() == EVENTS_COUNT_MAX {
                ring.events.pop_front();
            }
            ring.events.push_back(event);
            ring.last += 1;
        }
        let last = ring.last;
        drop(ring);
        self.last.send_replace(last);
    }

    /// The number of the last event.
    pub fn last(&self) -> u64 {
        self.ring().last
    }

    /// The token after which the next event is the one after `number`.
    pub fn token(&self, number: u64) -> String {
        format!("{:x}-{number:x}", self.epoch)
    }

    /// The number in a token.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn number(&self, token: &str) -> Result<u64, TokenError> {
        let (epoch, number) = token.split_once('-').ok_or(TokenError::Malformed)?;
        let read = |text| u64::from_str_radix(text, 16).map_err(|_| TokenError::Malformed);
        let (epoch, number) = (read(epoch)?, read(number)?);
        if epoch != self.epoch || number > self.last() {
            return Err(TokenError::Gone);
        }
        Ok(number)
    }

    /// At most `count` events after `number`, and the number of the last of them.
    ///
    /// # Errors
    /// [`TokenError::Gone`] when the first of them is gone.
    pub fn after(&self, number: u64, count: usize) -> Result<(Vec<v1::Event>, u64), TokenError> {
        let ring = self.ring();
        let first = ring.last - ring.events.len() as u64;
        let skip = number.checked_sub(first).ok_or(TokenError::Gone)? as usize;
        let events: Vec<_> = ring.events.iter().skip(skip).take(count).cloned().collect();
        let last = number + events.len() as u64;
        Ok((events, last))
    }

    /// Says when there is something new.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at_ms: u64) -> v1::Event {
        v1::Event { at_ms, ..v1::Event::default() }
    }

    #[test]
    fn a_watcher_goes_on_where_it_was() {
        let events = Events::new(5);
        events.push((1..=4).map(event));
        let number = events.number(&events.token(2)).expect("a token");
        let (next, last) = events.after(number, 1).expect("there");
        assert_eq!((next[0].at_ms, last), (3, 3));
        assert_eq!(events.after(last, 9).expect("there").1, 4);
        assert_eq!(events.after(4, 9).expect("there").0.len(), 0);
    }

    #[test]
    fn a_watcher_that_is_behind_is_told() {
        let events = Events::new(5);
        events.push((0..EVENTS_COUNT_MAX as u64 + 10).map(event));
        assert_eq!(events.after(9, 1), Err(TokenError::Gone));
        assert_eq!(events.after(10, 1).expect("the oldest").0[0].at_ms, 10);
    }

    #[test]
    fn tokens_of_another_life_or_of_nobody_are_refused() {
        let events = Events::new(5);
        assert_eq!(events.number("4-0"), Err(TokenError::Gone));
        assert_eq!(events.number("5-1"), Err(TokenError::Gone), "from the future");
        for token in ["", "5", "x-1", "5-x"] {
            assert_eq!(events.number(token), Err(TokenError::Malformed));
        }
    }
}
