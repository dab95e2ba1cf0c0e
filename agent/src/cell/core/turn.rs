//! One turn: what it changed, made durable, shown, answered and done, in that order.

use std::collections::HashSet;
use std::time::Instant;

use celda_api::cell::v1;

use super::{Call, Core, now_ms};
use crate::cell::error::Result;
use crate::cell::instance::{Effect, Event, Machine};
use crate::cell::journal::{Known, Record};

/// What helps where the journal cannot be written.
const MAKE_ROOM: &str = "make room on the disk that has --root (`celda rmi` and `celda gc` do) and try again; what runs \
                         goes on, and can be stopped";

/// An answer to a caller, given the reason why the turn could not be journalled, if it could not.
pub(super) type Answer = Box<dyn FnOnce(Option<&str>) + Send>;

/// What a turn changed.
#[derive(Default)]
pub(super) struct Turn {
    /// Instance, attempt, and what is to be done.
    pub(super) effects: Vec<(String, u32, Effect)>,
    events: Vec<v1::Event>,
    pub(super) answers: Vec<Answer>,
    /// Calls that are refused as a whole where they cannot be journalled: carried out when all else of the turn is.
    pub(super) calls: Vec<Call>,
    /// What these calls have changed, in order.
    pub(super) undo: Vec<Undo>,
    /// Instances that begin once they are on the disk.
    pub(super) accepted: Vec<String>,
    /// Somebody is promised something.
    pub(super) is_durable: bool,
}

/// What was before a call, of an instance or of the cell.
pub(super) enum Undo {
    /// It was not there.
    Start(String),
    /// It was so, and perhaps to be removed.
    Change(String, Box<Machine>, bool),
    /// The cell took no more work, or did.
    Draining(bool),
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
        let is_end = matches!(event, Event::Ended(_) | Event::Failed(_) | Event::Lost);
        let effects = match entry.machine.step(event, at_ms) {
            Ok(effects) => effects,
            Err(illegal) => {
                tracing::warn!(id, %illegal, "an event was not taken");
                return;
            }
        };
        // What was lost while it was being made is made anew, and has no end.
        if let Some(end) = entry.machine.last_end().filter(|end| is_end && end.at_ms == at_ms) {
            self.parts.metrics.ended(end);
            let by = end.stopped_by.as_ref().map(tracing::field::display);
            tracing::debug!(id, attempt, cause = %end.cause, by, gave_up = end.gave_up, "it ended");
            entry.start = tracing::Span::none(); // of a start that failed
        }
        let now = entry.machine.attempt();
        if effects.contains(&Effect::Clean) {
            entry.detach();
        }
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
        self.turn.events.push(v1::Event {
            at_ms: entry.machine.changed_ms(),
            instance,
            ..v1::Event::default()
        });
        self.set_timer(id);
    }

    fn set_timer(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let wakes_ms = entry.machine.wakes_at_ms().or_else(|| entry.expires_ms(&self.parts.config));
        if let Some(before_ms) = std::mem::replace(&mut entry.timer_ms, wakes_ms) {
            self.timers.remove(&(before_ms, id.to_owned()));
        }
        if let Some(at_ms) = wakes_ms {
            self.timers.insert((at_ms, id.to_owned()));
        }
    }

    /// Shows an instance as it is now, where nothing changed that is kept.
    pub(super) fn show(&mut self, id: &str) {
        let Some(entry) = self.entries.get(id) else { return };
        let instance = Some(entry.message(id, &self.cgroups, false));
        self.turn.events.push(v1::Event { at_ms: now_ms(), instance, ..v1::Event::default() });
    }

    /// Forgets an instance that has ended: at once, or when what this turn has yet to do about it is done.
    pub(super) fn forget(&mut self, id: &str) {
        if self.turn.is_to_act_on(id) {
            self.remove_later(id);
            return;
        }
        let Some(entry) = self.entries.remove(id) else { return };
        if let Some(at_ms) = entry.timer_ms {
            self.timers.remove(&(at_ms, id.to_owned()));
        }
        self.record(&Record::Gone { id: id.to_owned() });
        let mut instance = entry.message(id, &self.cgroups, false);
        instance.status = v1::Status::Removed.into();
        self.turn.events.push(v1::Event {
            at_ms: now_ms(),
            instance: Some(instance),
            ..v1::Event::default()
        });
        self.forget_log(entry.log_name(id), entry.log);
        let digest = &entry.wish.digest;
        if !self.entries.values().any(|other| other.wish.digest == *digest) {
            self.wishes.remove(digest);
        }
    }

    /// Has an instance that has ended forgotten by the last effect of this turn.
    pub(super) fn remove_later(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let attempt = entry.machine.attempt();
        if !std::mem::replace(&mut entry.removing, true) {
            self.changed(id);
        }
        let releases = |(of, _, effect): &(String, u32, Effect)| of == id && *effect == Effect::Release;
        if !self.turn.effects.iter().any(releases) {
            self.turn.effects.push((id.to_owned(), attempt, Effect::Release));
        }
    }

    pub(super) fn record(&mut self, record: &Record) {
        if let Err(error) = self.parts.journal.append(record) {
            tracing::error!(%error, "a record was lost");
        }
    }

    /// Makes the turn durable, then acts on it.
    ///
    /// # Errors
    /// When it cannot be known what is on the disk.
    pub(super) fn finish_turn(&mut self) -> Result<()> {
        let calls = std::mem::take(&mut self.turn.calls);
        let began = Instant::now();
        // What happened has happened; where there is no room for it, it is written with the next turn.
        self.write()?;
        let failed = if calls.is_empty() { None } else { self.carry_out(calls)? };
        if std::mem::take(&mut self.turn.is_durable) {
            self.parts.journal.sync()?;
            self.parts.metrics.synced(began.elapsed());
        }
        for id in std::mem::take(&mut self.turn.accepted) {
            self.step(&id, Event::Begin);
        }
        let answers = std::mem::take(&mut self.turn.answers);
        self.write()?;
        self.parts.events.push(std::mem::take(&mut self.turn.events));
        for answer in answers {
            answer(failed.as_deref());
        }
        self.run_effects();
        self.write()?; // what was forgotten
        self.parts.events.push(std::mem::take(&mut self.turn.events));
        if self.parts.journal.wants_compaction() {
            let known = self.known();
            if let Err(error) = self.parts.journal.compact(&known) {
                if self.parts.journal.is_spoiled() {
                    return Err(error);
                }
                tracing::warn!(%error, "the journal was not compacted");
            }
        }
        Ok(())
    }

    /// Writes what was recorded; the reason when there is no room for it.
    fn write(&mut self) -> Result<Option<String>> {
        match self.parts.journal.commit(false) {
            Ok(()) => Ok(None),
            Err(error) if self.parts.journal.is_spoiled() => Err(error),
            Err(error) => {
                tracing::error!(%error, "the journal cannot be written");
                Ok(Some(format!("{error}; {MAKE_ROOM}")))
            }
        }
    }

    /// Takes out the calls that begin something where there is no room to go on writing afterwards, and answers them.
    fn refuse_starts_without_room(&mut self, calls: Vec<Call>) -> Vec<Call> {
        let more_bytes = calls.iter().map(Call::start_bytes).sum();
        if more_bytes == 0 {
            return calls;
        }
        let Err(error) = self.parts.journal.has_room(more_bytes) else { return calls };
        tracing::error!(%error, "starts are refused");
        let why = format!("it cannot be written down: {error}; {MAKE_ROOM}");
        calls.into_iter().filter_map(|call| self.refuse_start(call, &why)).collect()
    }

    /// Carries calls out and writes that down, or does neither and says why.
    fn carry_out(&mut self, calls: Vec<Call>) -> Result<Option<String>> {
        let calls = self.refuse_starts_without_room(calls);
        let pending_bytes = self.parts.journal.pending_bytes();
        let (effects_count, events_count) = (self.turn.effects.len(), self.turn.events.len());
        self.turn.undo.clear();
        for call in calls {
            self.call(call);
        }
        let failed = self.write()?;
        if failed.is_some() {
            self.parts.journal.drop_pending_after(pending_bytes);
            self.turn.effects.truncate(effects_count);
            self.turn.events.truncate(events_count);
            self.turn.accepted.clear();
            while let Some(undo) = self.turn.undo.pop() {
                self.undo(undo);
            }
            let used: HashSet<_> = self.entries.values().map(|entry| entry.wish.digest.clone()).collect();
            self.wishes.retain(|digest, _| used.contains(digest));
        }
        self.turn.undo.clear();
        Ok(failed)
    }

    fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Start(id) => {
                if let Some(entry) = self.entries.remove(&id) {
                    self.parts.books.release(entry.reservation);
                    self.ports.release(&entry.ports);
                }
            }
            Undo::Change(id, machine, removing) => {
                if let Some(entry) = self.entries.get_mut(&id) {
                    (entry.machine, entry.removing) = (*machine, removing);
                }
                self.set_timer(&id);
            }
            Undo::Draining(draining) => self.set_draining(draining),
        }
    }

    /// Keeps an instance as it is before a call changes it.
    pub(super) fn keep_for_undo(&mut self, id: &str) {
        if let Some(entry) = self.entries.get(id) {
            let undo = Undo::Change(id.to_owned(), Box::new(entry.machine.clone()), entry.removing);
            self.turn.undo.push(undo);
        }
    }

    /// All that the journal must know.
    fn known(&self) -> Known {
        let wishes = self.wishes.iter();
        let specs = wishes.map(|(digest, wish)| (digest.clone(), wish.bytes.clone()));
        let instances = self.entries.iter().map(|(id, entry)| (id.clone(), entry.kept(id)));
        Known { specs: specs.collect(), instances: instances.collect(), draining: self.draining }
    }
}

impl Turn {
    fn is_to_act_on(&self, id: &str) -> bool {
        self.effects.iter().any(|(of, _, _)| of == id)
    }
}
