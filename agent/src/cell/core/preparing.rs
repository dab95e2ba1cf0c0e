//! Preparations of attempts: begun when what was before is cleared away, and abandoned by a stop.
//!
//! ```text
//! prepare ──> worker: image (here, or waited for) ──> worker: place ──> prepared: the machine goes on
//!    │ a stop: the instance is over at once                               └ abandoned: the place is cleared away
//!    '── its wait for the image ends; a pull that nobody waits for is cancelled
//! ```
//! An abandoned one counts as being cleared away until its answer has come: the next attempt, or another instance of the
//! same id, begins after that.

use std::sync::Arc;

use celda_layerfs::Cancel;

use super::entry::container;
use super::{Core, Input};
use crate::cell::instance::{Cause, Event};
use crate::cell::place::{Place, failed};
use crate::cell::tell;
use crate::cell::words::bounded;

/// One that is under way.
#[derive(Debug)]
pub(super) struct Preparing {
    attempt: u32,
    /// Cancelled, nobody wants what comes of it.
    cancel: Cancel,
}

impl Core {
    /// Begins an attempt, once what was before is cleared away: an attempt's name may be that of another instance's, of
    /// the same id, that was removed.
    pub(super) fn prepare(&mut self, id: String, attempt: u32) {
        if let Some((_, waiting)) = self.cleaning.get_mut(&id) {
            *waiting = Some(attempt);
            return;
        }
        let Some(entry) = self.entries.get_mut(&id) else { return };
        entry.begun_at = std::time::Instant::now();
        entry.start = tell::start(&id, &entry.app, &entry.wish.message.image, attempt);
        let (span, ports) = (entry.start.clone(), entry.ports.clone());
        let (wish, ground) = (Arc::clone(&entry.wish), Arc::clone(&self.parts.ground));
        let (workers, sender) = (self.parts.workers.clone(), self.parts.sender.clone());
        let cancel = Cancel::default();
        self.preparing.insert(id.clone(), Preparing { attempt, cancel: cancel.clone() });
        self.parts.workers.give(Box::new(move |_| {
            let images = Arc::clone(&ground.images);
            let (wanted, waits) = (Arc::clone(&wish), cancel.clone());
            let then = move |image: std::result::Result<_, String>| {
                let job = move || {
                    let _prepare = tracing::debug_span!(parent: &span, "prepare").entered();
                    let name = container(&id, attempt);
                    let named = (id.as_str(), name.as_str());
                    let prepare = |image| Place::prepare(&ground, image, &wish, named, &ports);
                    let result = match image {
                        Ok(_) if cancel.is_cancelled() => Err(Cause::NeverRan),
                        Ok(image) => prepare(image).map(Box::new).map_err(|error| failed(&error)),
                        Err(why) => Err(Cause::Failed { status: 125, why: bounded(&why) }),
                    };
                    // The core is gone when the agent ends: the next one makes it anew.
                    let _ = sender.send(Input::Prepared { id, attempt, result });
                };
                workers.give(Box::new(move |_| job()));
            };
            images.open(&wanted, &waits, Box::new(then));
        }));
    }

    /// A preparation was answered.
    pub(super) fn prepared(
        &mut self,
        id: &str,
        attempt: u32,
        result: std::result::Result<Box<Place>, Cause>,
    ) {
        let Some(preparing) = self.preparing.remove(id) else {
            tracing::error!(id, attempt, "prepared, and nobody began that");
            return;
        };
        if preparing.cancel.is_cancelled() {
            return self.clear_abandoned(id, result.ok());
        }
        let Some(entry) = self.entries.get_mut(id) else { return self.clear_abandoned(id, result.ok()) };
        match result {
            Ok(mut place) => {
                entry.attached = place.take_attached();
                entry.machine.policy.stop_signal = place.stop_signal();
                entry.body = Some(Arc::clone(place.body()));
                entry.place = Some(*place);
                entry.prepared_after = entry.begun_at.elapsed();
                self.step(id, Event::Prepared);
            }
            Err(cause) => self.step(id, Event::Failed(cause)),
        }
    }

    /// Abandons the preparation of an attempt, if it is under way or waits for its turn: then what comes of it is cleared
    /// away when it comes.
    pub(super) fn abandon(&mut self, id: &str, attempt: u32) -> bool {
        if let Some((_, waiting)) = self.cleaning.get_mut(id)
            && waiting.take_if(|waiting| *waiting == attempt).is_some()
        {
            return true; // it has not begun
        }
        let is_under_way = |one: &&Preparing| one.attempt == attempt && !one.cancel.is_cancelled();
        let Some(preparing) = self.preparing.get(id).filter(is_under_way) else { return false };
        preparing.cancel.cancel();
        self.cleaning.entry(id.to_owned()).or_default().0 += 1;
        if let Some(entry) = self.entries.get(id) {
            let (images, wish) = (Arc::clone(&self.parts.ground.images), Arc::clone(&entry.wish));
            self.parts.workers.give_urgent(Box::new(move |_| images.abandon(&wish.image)));
        }
        true
    }

    fn clear_abandoned(&mut self, id: &str, place: Option<Box<Place>>) {
        let Some(mut place) = place else { return self.cleaned(id.to_owned()) };
        let attached = place.take_attached();
        let (ground, sender) = (Arc::clone(&self.parts.ground), self.parts.sender.clone());
        let id = id.to_owned();
        self.parts.workers.give(Box::new(move |_| {
            if let Err(error) = place.clean(&ground, false) {
                tracing::warn!(id, %error, "something was left behind; the next agent removes it");
            }
            if let Some(attached) = attached {
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
}
