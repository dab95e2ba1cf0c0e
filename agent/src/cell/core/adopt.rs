//! A cell that comes back: what the journal wants and what the holder has, brought together.
//!
//! ```text
//! journal says        holder has it          holder has its end        holder has nothing
//! running, stopping   goes on                ended, as if just now     ended with the cell
//! starting            runs                   ran and ended             made anew
//! preparing           -                      -                         made anew
//! nothing             killed, cleared away   cleared away              -
//! ```

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Core;
use super::entry::{Entry, container};
use crate::cell::error::{CellError, Result};
use crate::cell::holder::{Ended, Holder, News, Running};
use crate::cell::instance::{Effect, Event, Stage, State};
use crate::cell::journal::{Damage, Known};
use crate::cell::wish::Wish;

/// What the holder has of one container.
struct There {
    running: Running,
    body: OwnedFd,
    ended: Option<Ended>,
}

impl Core {
    /// Takes over what was there before this agent. The effects are run by the first turn.
    ///
    /// # Errors
    /// [`CellError::Holder`] when the holder is gone meanwhile, [`CellError::Journal`] for a spec that is none any more.
    pub fn adopt(&mut self, known: Known, news: Vec<News>, holder: &Holder) -> Result<()> {
        let _adopt = tracing::info_span!("adopt", known_count = known.instances.len()).entered();
        let mut there = HashMap::new();
        for one in news {
            if let News::There { id, running, body, ended } = one {
                there.insert(id, There { running, body, ended });
            }
        }
        self.set_draining(known.draining);
        for (digest, bytes) in known.specs {
            let wish = Wish::kept(bytes, &self.parts.config.defaults).map_err(|why| CellError::Journal {
                path: self.parts.ground.root.join("cell/journal"),
                damage: Damage::Record(why),
            })?;
            self.wishes.insert(digest, Arc::new(wish));
        }
        let mut adopted_count = 0;
        for (id, kept) in known.instances {
            let Some(wish) = self.wishes.get(&kept.spec).cloned() else { continue };
            let mut entry = Entry::new(kept, wish);
            self.hold(&id, &mut entry);
            self.hold_ports(&id, &mut entry);
            let of_holder = there.remove(&container(&id, entry.machine.attempt()));
            self.entries.insert(id.clone(), entry);
            adopted_count += usize::from(of_holder.is_some());
            let pid = of_holder.as_ref().map(|there| there.running.pid);
            tracing::debug!(id, pid, "taken up");
            self.take_over(&id, of_holder);
        }
        for (stranger, there) in &there {
            self.await_stranger(stranger);
            if there.ended.is_some() {
                self.clear_stranger(stranger.clone());
            } else {
                // Cleared away when the news of its end comes.
                tracing::warn!(container = stranger, "runs, and nobody wants it: ended");
                holder.kill(stranger)?;
                self.strangers.insert(stranger.clone());
            }
        }
        let used: std::collections::HashSet<_> =
            self.entries.values().map(|entry| entry.wish.digest.clone()).collect();
        self.wishes.retain(|digest, _| used.contains(digest));
        tracing::info!(adopted_count, "the cell is back");
        Ok(())
    }

    /// Reserves again what an instance had, under the same id.
    fn hold(&self, id: &str, entry: &mut Entry) {
        if entry.machine.is_over() {
            entry.reservation = 0;
            return;
        }
        let demand = entry.wish.demand(&entry.app);
        if let Err(why) = self.parts.books.restore(entry.reservation, &demand) {
            tracing::warn!(id, why, "the cell is smaller than what runs on it");
            entry.reservation = 0;
        }
    }

    /// Claims again the ports that an instance had.
    fn hold_ports(&mut self, id: &str, entry: &mut Entry) {
        if entry.machine.is_over() {
            entry.ports.clear();
            return;
        }
        for lost in self.ports.restore(id, &entry.ports) {
            let (port, protocol) = (lost.host_port, lost.protocol);
            tracing::warn!(id, port, %protocol, "a program of the host has a published port; who comes is led past it");
        }
    }

    fn take_over(&mut self, id: &str, there: Option<There>) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let state = entry.machine.state().clone();
        let attempt = entry.machine.attempt();
        let may_run = matches!(state, State::Starting | State::Running { .. })
            || matches!(&state, State::Stopping { stage, .. } if *stage != Stage::Preparing);
        let Some(There { running, body, ended }) = there.filter(|_| may_run) else {
            entry.detach();
            // One that ended, and whose end is journalled, may not have been cleared away.
            self.turn.effects.push((id.to_owned(), attempt, Effect::Clean));
            self.come_back_without(id, &state);
            return;
        };
        (entry.running, entry.body) = (Some(running), Some(Arc::new(body)));
        match state {
            State::Starting | State::Stopping { stage: Stage::Starting, .. } => self.step(id, Event::Started),
            _ => {
                self.changed(id);
                self.ask_again(id, &state, attempt);
            }
        }
        self.log(id);
        self.check(id);
        if let Some(ended) = ended {
            self.end(id, ended);
        }
    }

    fn come_back_without(&mut self, id: &str, state: &State) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.was_up = false;
        }
        match state {
            State::Reserved => self.step(id, Event::Begin),
            State::Exited if self.entries.get(id).is_some_and(|entry| entry.removing) => self.forget(id),
            State::Exited | State::Waiting { .. } => self.changed(id),
            State::Preparing | State::Starting | State::Running { .. } | State::Stopping { .. } => {
                self.step(id, Event::Lost);
            }
        }
    }

    /// The agent may have died between the record of a stop and its signal.
    fn ask_again(&mut self, id: &str, state: &State, attempt: u32) {
        let Some(entry) = self.entries.get(id) else { return };
        let effect = match state {
            State::Stopping { stage: Stage::Asked { .. }, .. } => {
                Effect::Signal(entry.machine.policy.stop_signal)
            }
            State::Stopping { stage: Stage::Killed, .. } => Effect::Kill,
            _ => return,
        };
        self.turn.effects.push((id.to_owned(), attempt, effect));
    }
}
