//! What a round is to be told, from any number of links.

use crate::round::Event;
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// Events that wait for their round. Bounded by the calls that the round has made: each is answered once.
#[derive(Debug, Default)]
pub(super) struct Inbox(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Event>,
    waker: Option<Waker>,
}

impl Inbox {
    pub(super) fn push(&self, event: Event) {
        let waker = {
            let mut waiting = self.lock();
            waiting.events.push(event);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Swaps what waits into `events`, which must be empty; pending if there is nothing.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>, events: &mut Vec<Event>) -> Poll<()> {
        let mut waiting = self.lock();
        if waiting.events.is_empty() {
            waiting.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut waiting.events, events);
        Poll::Ready(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().expect("nothing panics while it holds this")
    }
}
