//! What machines want done: given to workers, or done here where it takes a microsecond.

use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::Signal;

use super::entry::{container, of_container};
use super::{Core, Input};
use crate::cell::instance::Effect;

impl Core {
    pub(super) fn run_effects(&mut self) {
        for (id, attempt, effect) in std::mem::take(&mut self.turn.effects) {
            match effect {
                Effect::Prepare => self.prepare(id, attempt),
                Effect::Launch => self.launch(id, attempt),
                Effect::Signal(number) => self.signal(&id, number),
                Effect::Kill => self.kill(&id, attempt),
                Effect::Clean => self.clean(&id, attempt),
                Effect::Release => self.release(&id),
            }
        }
    }

    fn launch(&mut self, id: String, attempt: u32) {
        let entry = self.entries.get_mut(&id);
        let place = entry.and_then(|entry| Some((entry.place.take()?, entry.start.clone())));
        let Some((mut place, span)) = place else {
            tracing::error!(id, "nothing is prepared to be started");
            return;
        };
        let sender = self.parts.sender.clone();
        self.parts.workers.give_urgent(Box::new(move |worker| {
            let _launch = tracing::debug_span!(parent: &span, "launch").entered();
            let result = place.launch(&worker.holder, &container(&id, attempt));
            let _ = sender.send(Input::Started { id, attempt, place: Box::new(place), result });
        }));
    }

    fn signal(&self, id: &str, number: i32) {
        let Some(running) = self.entries.get(id).and_then(|entry| entry.running.as_ref()) else { return };
        let Some(signal) = Signal::from_named_raw(number) else {
            tracing::warn!(id, number, "no signal has this number; it is killed when the grace is over");
            return;
        };
        match rustix::process::pidfd_send_signal(&running.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => tracing::warn!(id, %errno, "the stop signal was not sent"),
        }
    }

    fn kill(&self, id: &str, attempt: u32) {
        let (id, sender) = (id.to_owned(), self.parts.sender.clone());
        self.parts.workers.give_urgent(Box::new(move |worker| {
            if let Err(error) = worker.holder.kill(&container(&id, attempt)) {
                let _ = sender.send(Input::HolderGone(error));
            }
        }));
    }

    /// A container is of no instance: whoever has its id now, and so may come to have its name, begins when it is gone.
    pub(super) fn await_stranger(&mut self, name: &str) {
        if let Some((id, _)) = of_container(name) {
            self.cleaning.entry(id.to_owned()).or_default().0 += 1;
        }
    }

    /// Clears away a container that has ended and is of no instance, and [is awaited](Self::await_stranger).
    pub(super) fn clear_stranger(&self, name: String) {
        let (ground, sender) = (Arc::clone(&self.parts.ground), self.parts.sender.clone());
        self.parts.workers.give(Box::new(move |worker| {
            let gone = worker.holder.forget(&name).map_err(crate::Error::from);
            if let Err(error) = gone.and_then(|()| ground.remove(&name)) {
                tracing::warn!(container = name, %error, "something was left behind; the next agent removes it");
            }
            if let Some((id, _)) = of_container(&name) {
                let _ = sender.send(Input::Cleaned { id: id.to_owned() });
            }
        }));
    }

    /// The holder lets go first: it has the locks of what is to be removed.
    fn clean(&mut self, id: &str, attempt: u32) {
        if self.abandon(id, attempt) {
            return;
        }
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (place, running) = (entry.place.take(), entry.running.take());
        (entry.body, entry.early_end) = (None, None);
        let was_entered = std::mem::take(&mut entry.was_entered);
        let leaving = std::mem::take(&mut entry.leaving);
        let (name, ground) = (container(id, attempt), Arc::clone(&self.parts.ground));
        let (sender, id) = (self.parts.sender.clone(), id.to_owned());
        self.cleaning.entry(id.clone()).or_default().0 += 1;
        self.parts.workers.give(Box::new(move |worker| {
            drop(running);
            if let Err(error) = worker.holder.forget(&name) {
                let _ = sender.send(Input::HolderGone(error));
                return;
            }
            let cleaned = match place {
                Some(place) => place.clean(&ground, was_entered),
                None => ground.remove(&name),
            };
            if let Err(error) = cleaned {
                tracing::warn!(container = name, %error, "something was left behind; the next agent removes it");
            }
            for attached in leaving {
                ground.leave(&attached);
            }
            let _ = sender.send(Input::Cleaned { id });
        }));
    }

    /// The last of an instance: what it held is free, and it is forgotten if that was wanted.
    fn release(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        self.parts.books.release(std::mem::take(&mut entry.reservation));
        self.ports.release(&std::mem::take(&mut entry.ports));
        if entry.removing {
            self.forget(id); // no effect of it is left: a release is the last
        }
    }
}
