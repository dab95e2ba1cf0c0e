//! One turn: what it changed, made durable, shown, answered and done, in that order.

use std::cmp::Reverse;

use celda_api::cell::v1;

use super::{Core, now_ms};
use crate::cell::error::Result;
use crate::cell::instance::{Effect, Event};
use crate::cell::journal::{Known, Record};

/// An answer to a caller, given the reason why the turn could not be journalled, if it could not.
pub(super) type Answer = Box<dyn FnOnce(Option<&str>) + Send>;

/// What a turn changed.
#[derive(Default)]
pub(super) struct Turn {
    /// Instance, attempt, and what is to be done.
    pub(super) effects: Vec<(String, u32, Effect)>,
    events: Vec<v1::Event>,
    pub(super) answers: Vec<Answer>,
    /// Instances that begin once they are on the disk.
    pub(super) accepted: Vec<String>,
    /// Somebody is promised something.
    pub(super) is_durable: bool,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Turn").field("effects", &self.effects).finish_non_exhaustive()
    }
}

impl Core {
    /// Has an instance take an event that happens now.
    pub(super) fn step(&mut self, id: &str, event: Event) {
        self.step_at(id, event, now_ms());
    }

    /// Has an instance take an event that happened at a time.
    pub(super) fn step_at(&mut self, id: &str, event: Event, at_ms: u64) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (attempt, state) = (entry.machine.attempt(), entry.machine.state().clone());
        let effects = match entry.machine.step(event, at_ms) {
            Ok(effects) => effects,
            Err(illegal) => {
                tracing::warn!(id, %illegal, "an event was not taken");
                return;
            }
        };
        let now = entry.machine.attempt();
        for effect in effects {
            // What is cleared away is of the attempt before, if a new one began.
            let attempt = if effect == Effect::Clean { attempt } else { now };
            self.turn.effects.push((id.to_owned(), attempt, effect));
        }
        if *entry.machine.state() != state || now != attempt {
            // The end of a task is a result; what else becomes of a container is seen again after a crash.
            self.turn.is_durable |= entry.machine.is_over();
            self.changed(id);
        }
    }

    /// Journals, shows and times an instance as it is now.
    pub(super) fn changed(&mut self, id: &str) {
        let Some(entry) = self.entries.get(id) else { return };
        self.record(&Record::Instance(Box::new(entry.kept(id))));
        let Some(entry) = self.entries.get(id) else { return };
        let instance = Some(entry.message(id, &self.cgroups, false));
        self.turn.events.push(v1::Event { at_ms: entry.machine.changed_ms(), instance });
        let wakes_ms = entry.machine.wakes_at_ms().or_else(|| entry.expires_ms(&self.parts.config));
        if let Some(at_ms) = wakes_ms {
            self.timers.push(Reverse((at_ms, id.to_owned())));
        }
    }

    /// Shows an instance as it is now, where nothing changed that is kept.
    pub(super) fn show(&mut self, id: &str) {
        let Some(entry) = self.entries.get(id) else { return };
        let instance = Some(entry.message(id, &self.cgroups, false));
        self.turn.events.push(v1::Event { at_ms: now_ms(), instance });
    }

    /// Forgets an instance that has ended.
    pub(super) fn forget(&mut self, id: &str) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.record(&Record::Gone { id: id.to_owned() });
        let mut instance = entry.message(id, &self.cgroups, false);
        instance.status = v1::Status::Removed.into();
        self.turn.events.push(v1::Event { at_ms: now_ms(), instance: Some(instance) });
        self.forget_log(entry.log_name(id), entry.log);
        let digest = &entry.wish.digest;
        if !self.entries.values().any(|other| other.wish.digest == *digest) {
            self.wishes.remove(digest);
        }
    }

    pub(super) fn record(&mut self, record: &Record) {
        if let Err(error) = self.parts.journal.append(record) {
            tracing::error!(%error, "a record was lost");
        }
    }

    /// Makes the turn durable, then acts on it.
    pub(super) fn finish_turn(&mut self) -> Result<()> {
        let is_durable = std::mem::take(&mut self.turn.is_durable);
        let mut failed = self.commit(is_durable)?;
        let accepted = std::mem::take(&mut self.turn.accepted);
        match &failed {
            None => {
                for id in accepted {
                    self.step(&id, Event::Begin);
                }
            }
            Some(_) => self.take_back(accepted),
        }
        let answers = std::mem::take(&mut self.turn.answers);
        if self.turn.has_more() {
            failed = failed.or(self.commit(false)?);
        }
        self.parts.events.push(std::mem::take(&mut self.turn.events));
        for answer in answers {
            answer(failed.as_deref());
        }
        self.run_effects();
        if self.parts.journal.wants_compaction() {
            let known = self.known();
            if let Err(error) = self.parts.journal.compact(&known) {
                tracing::warn!(%error, "the journal was not compacted");
            }
        }
        Ok(())
    }

    /// Writes what was recorded; the reason when there is no room for it. What was not written is tried again with the
    /// next turn.
    ///
    /// # Errors
    /// When it cannot be known what is on the disk.
    fn commit(&mut self, is_durable: bool) -> Result<Option<String>> {
        let began = std::time::Instant::now();
        let written = self.parts.journal.commit(false);
        if let Err(error) = written {
            tracing::error!(%error, "the journal cannot be written");
            return Ok(Some(error.to_string()));
        }
        if is_durable {
            self.parts.journal.commit(true)?;
            self.parts.metrics.synced(began.elapsed());
        }
        Ok(None)
    }

    /// What was accepted and could not be journalled never was.
    fn take_back(&mut self, accepted: Vec<String>) {
        for id in accepted {
            if let Some(entry) = self.entries.get(&id) {
                self.parts.books.release(entry.reservation);
            }
            self.forget(&id);
        }
    }

    /// All that the journal must know.
    fn known(&self) -> Known {
        let wishes = self.wishes.iter();
        let specs =
            wishes.map(|(digest, wish)| (digest.clone(), prost::Message::encode_to_vec(&wish.message)));
        let instances = self.entries.iter().map(|(id, entry)| (id.clone(), entry.kept(id)));
        Known { specs: specs.collect(), instances: instances.collect(), draining: self.draining }
    }
}

impl Turn {
    fn has_more(&self) -> bool {
        !self.effects.is_empty() || !self.events.is_empty()
    }
}
