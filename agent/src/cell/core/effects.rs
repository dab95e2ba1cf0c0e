//! What machines want done: given to workers, or done here where it takes a microsecond.

use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::Signal;

use super::entry::container;
use super::{Core, Input};
use crate::cell::instance::{Cause, Effect};
use crate::cell::network::Attached;
use crate::cell::place::{Place, failed};

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

    /// Begins an attempt, once what was before is cleared away: an attempt's name may be that of another instance's, of
    /// the same id, that was removed.
    fn prepare(&mut self, id: String, attempt: u32) {
        if let Some((_, waiting)) = self.cleaning.get_mut(&id) {
            *waiting = Some(attempt);
            return;
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.begun_at = std::time::Instant::now();
        let (wish, ground) = (Arc::clone(&entry.wish), Arc::clone(&self.parts.ground));
        let ports = entry.ports.clone();
        let (workers, sender) = (self.parts.workers.clone(), self.parts.sender.clone());
        self.parts.workers.give(Box::new(move |_| {
            let images = Arc::clone(&ground.images);
            let wanted = Arc::clone(&wish);
            let then = move |image: std::result::Result<_, String>| {
                let job = move || {
                    let name = container(&id, attempt);
                    let named = (id.as_str(), name.as_str());
                    let prepare = |image| Place::prepare(&ground, image, &wish, named, &ports);
                    let result = match image {
                        Ok(image) => prepare(image).map(Box::new).map_err(|error| failed(&error)),
                        Err(why) => Err(Cause::Failed { status: 125, why }),
                    };
                    // The core is gone when the agent ends: the next one makes it anew.
                    let _ = sender.send(Input::Prepared { id, attempt, result });
                };
                workers.give(Box::new(move |_| job()));
            };
            images.open(&wanted, Box::new(then));
        }));
    }

    fn launch(&mut self, id: String, attempt: u32) {
        let place = self.entries.get_mut(&id).and_then(|entry| entry.place.take());
        let Some(mut place) = place else {
            tracing::error!(id, "nothing is prepared to be started");
            return;
        };
        let sender = self.parts.sender.clone();
        self.parts.workers.give_urgent(Box::new(move |worker| {
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

    /// Clears away a container that has ended and is of no instance.
    pub(super) fn clear_stranger(&self, name: String) {
        let ground = Arc::clone(&self.parts.ground);
        self.parts.workers.give(Box::new(move |worker| {
            let gone = worker.holder.forget(&name).map_err(crate::Error::from);
            if let Err(error) = gone.and_then(|()| ground.remove(&name)) {
                tracing::warn!(container = name, %error, "something was left behind; the next agent removes it");
            }
        }));
    }

    /// Gives back what an attempt had of the network that nobody wants any more.
    pub(super) fn leave(&self, attached: Attached) {
        let ground = Arc::clone(&self.parts.ground);
        self.parts.workers.give(Box::new(move |_| ground.leave(&attached)));
    }

    /// The holder lets go first: it has the locks of what is to be removed.
    fn clean(&mut self, id: &str, attempt: u32) {
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

    /// An attempt is cleared away: the next one begins, if it waits for that.
    pub(super) fn cleaned(&mut self, id: String) {
        let Some((count, waiting)) = self.cleaning.get_mut(&id) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        let waiting = waiting.take();
        self.cleaning.remove(&id);
        if let Some(attempt) = waiting {
            self.prepare(id, attempt);
        }
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
