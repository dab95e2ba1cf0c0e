//! What callers want.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use celda_api::cell::v1;
use celda_api::cell::v1::outcome::Result as Outcome;
use celda_layerfs::reference::Reference;
use tokio::sync::oneshot;

use super::Core;
use super::attaching::Attachment;
use super::entry::{Entry, container};
use super::turn::Undo;
use crate::cell::instance::{Event, State, StoppedBy};
use crate::cell::journal::Record;
use crate::cell::logs::Log;
use crate::cell::service::ANSWER_BYTES_MAX;
use crate::cell::wish::Wish;

pub(super) const NOT_THERE: &str = "there is no such instance";

/// What of the instances is to be shown.
#[derive(Debug, Default)]
pub struct ToList {
    /// Of which app; all when empty.
    pub app: String,
    /// Which; all when empty.
    pub ids: Vec<String>,
    /// Only those that run.
    pub running_only: bool,
    /// With their specs.
    pub with_specs: bool,
}

/// Equal instances that are wanted.
#[derive(Debug)]
pub struct Wanted {
    /// What they run.
    pub wish: Wish,
    /// What they belong to.
    pub app: String,
    /// Number of the first.
    pub first_index: u32,
    /// Their ids.
    pub ids: Vec<String>,
    /// Their reservations, or none at all.
    pub reservations: Vec<u64>,
}

/// Where outcomes and the token before them go.
pub type Outcomes = oneshot::Sender<(Vec<v1::Outcome>, u64)>;

/// A call.
#[derive(Debug)]
pub enum Call {
    /// Start instances.
    Start(Vec<Wanted>, Outcomes),
    /// Stop them.
    Stop {
        /// Which.
        ids: Vec<String>,
        /// Milliseconds to the kill, instead of the spec's.
        grace_ms: Option<u64>,
        /// Kept with the end.
        reason: String,
        /// The answer.
        answer: Outcomes,
    },
    /// Forget them.
    Remove {
        /// Which.
        ids: Vec<String>,
        /// Those that run as well, after a kill.
        force: bool,
        /// The answer.
        answer: Outcomes,
    },
    /// Show them.
    List {
        /// Which, and what of them.
        shown: ToList,
        /// The answer, with the number of the last event.
        answer: oneshot::Sender<(Vec<v1::Instance>, u64)>,
    },
    /// Take no more work and stop all there is; or take work again.
    Drain {
        /// Milliseconds to the kill, instead of the specs'.
        grace_ms: Option<u64>,
        /// Take work again.
        cancel: bool,
        /// The answer, when it is so, or why it is not.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// What instances have written.
    Logs {
        /// Which; all of the app when empty.
        ids: Vec<String>,
        /// Of which app.
        app: String,
        /// The answer.
        answer: oneshot::Sender<Vec<Written>>,
    },
    /// What every instance has written.
    EveryLog(oneshot::Sender<Vec<Written>>),
    /// A running container, for a program to be run in it.
    Enter {
        /// Which instance.
        id: String,
        /// The answer; nothing when it does not run, and why.
        answer: oneshot::Sender<Result<Entrance, String>>,
    },
    /// The images of instances that have not ended for good.
    Images(oneshot::Sender<Vec<Reference>>),
    /// A running container, for somebody to attach to it.
    Attach {
        /// Which instance.
        id: String,
        /// The answer; nothing when it does not run, and why.
        answer: oneshot::Sender<Result<Attachment, String>>,
    },
    /// How the cell is.
    Look(oneshot::Sender<Look>),
}

/// What an instance has written.
#[derive(Debug)]
pub struct Written {
    /// The instance.
    pub id: String,
    /// The app that it belongs to.
    pub app: String,
    /// Which of the app's instances it is.
    pub index: u32,
    /// The log's name.
    pub name: String,
    /// The log, if one of its containers ran under this agent.
    pub log: Option<Log>,
    /// Nothing more will come.
    pub is_over: bool,
}

/// What is needed to run a program in a container.
#[derive(Debug)]
pub struct Entrance {
    /// Its first process.
    pub pidfd: OwnedFd,
    /// Spec and filter.
    pub body: Arc<OwnedFd>,
    /// Its id, by which its cgroup is found.
    pub container: String,
}

/// How the cell is.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// Instances and tasks that are kept, by the word for their state.
    pub states: [(&'static str, u32); State::NAMES.len()],
    /// Whether the cell takes no more work.
    pub is_draining: bool,
    /// Bytes of the journal.
    pub journal_bytes: u64,
}

impl Core {
    pub(super) fn call(&mut self, call: Call) {
        match call {
            Call::Start(wanted, answer) => {
                let before = self.parts.events.last();
                let outcomes = wanted.into_iter().flat_map(|wanted| self.start_all(wanted)).collect();
                self.answer(outcomes, before, answer);
            }
            Call::Stop { ids, grace_ms, reason, answer } => {
                let by = StoppedBy::Client(reason);
                self.each(&ids, answer, |core, id| core.stop(id, &by, grace_ms));
            }
            Call::Remove { ids, force, answer } => {
                self.each(&ids, answer, |core, id| core.remove(id, force));
            }
            Call::List { shown, answer } => {
                let instances = self.list(&shown);
                let last = self.parts.events.last();
                let _ = answer.send((instances, last));
            }
            Call::Drain { grace_ms, cancel, answer } => self.drain(grace_ms, cancel, answer),
            Call::Logs { ids, app, answer } => drop(answer.send(self.written(&ids, &app))),
            Call::EveryLog(answer) => drop(answer.send(self.entries.iter().map(written).collect())),
            Call::Enter { id, answer } => drop(answer.send(self.enter(&id))),
            Call::Images(answer) => drop(answer.send(self.images())),
            Call::Attach { id, answer } => drop(answer.send(self.attach(&id))),
            Call::Look(answer) => drop(answer.send(self.look())),
        }
    }

    /// Answers when the turn is journalled, or says that it is not.
    fn answer(&mut self, mut outcomes: Vec<v1::Outcome>, before: u64, answer: Outcomes) {
        self.turn.is_durable = true;
        self.turn.answers.push(Box::new(move |failed| {
            if let Some(why) = failed {
                let done = outcomes.iter_mut().filter(|one| one.result() == Outcome::Done);
                done.for_each(|one| {
                    one.set_result(Outcome::Refused);
                    one.detail = format!("it cannot be written down: {why}");
                });
            }
            // A caller that went away does not want to know.
            let _ = answer.send((outcomes, before));
        }));
    }

    fn each(
        &mut self,
        ids: &[String],
        answer: Outcomes,
        mut one: impl FnMut(&mut Self, &str) -> (Outcome, String),
    ) {
        let before = self.parts.events.last();
        let outcomes = ids.iter().map(|given| {
            let (result, detail) = if self.entries.contains_key(given) {
                one(self, given)
            } else {
                (Outcome::Unknown, NOT_THERE.into())
            };
            v1::Outcome { id: given.clone(), result: result.into(), detail }
        });
        let outcomes = outcomes.collect();
        self.answer(outcomes, before, answer);
    }

    fn stop(&mut self, id: &str, by: &StoppedBy, grace_ms: Option<u64>) -> (Outcome, String) {
        let Some(entry) = self.entries.get(id) else { return (Outcome::Unknown, String::new()) };
        if entry.machine.is_over() {
            return (Outcome::Already, String::new());
        }
        self.keep_for_undo(id);
        // What was accepted in this very turn has not begun, and does not.
        self.turn.accepted.retain(|accepted| accepted != id);
        self.step(id, Event::Stop { by: by.clone(), grace_ms });
        (Outcome::Done, String::new())
    }

    fn remove(&mut self, id: &str, force: bool) -> (Outcome, String) {
        let Some(entry) = self.entries.get(id) else { return (Outcome::Unknown, String::new()) };
        let (is_over, state) = (entry.machine.is_over(), entry.machine.state().name());
        if !is_over && !force {
            return (Outcome::Refused, format!("it is {state}: stop it first, or use force"));
        }
        self.keep_for_undo(id);
        if is_over {
            self.remove_later(id);
            return (Outcome::Done, String::new());
        }
        if let Some(entry) = self.entries.get_mut(id) {
            entry.removing = true;
        }
        self.changed(id);
        self.stop(id, &StoppedBy::Client("removed".into()), Some(0))
    }

    /// With specs no more than what goes beyond an answer's size by one, which tells whoever answers.
    fn list(&self, ToList { app, ids, running_only, with_specs }: &ToList) -> Vec<v1::Instance> {
        let (running_only, with_specs) = (*running_only, *with_specs);
        let is_shown = |(_, entry): &(&String, &Entry)| {
            !running_only || matches!(entry.machine.state(), State::Running { .. })
        };
        let mut bytes = 0;
        let show = |(id, entry): (&String, &Entry)| {
            if with_specs && bytes > ANSWER_BYTES_MAX {
                return None;
            }
            let shown = entry.message(id, &self.cgroups, with_specs);
            bytes += prost::Message::encoded_len(&shown);
            Some(shown)
        };
        if !ids.is_empty() {
            return self.named(ids).filter(is_shown).map_while(show).collect();
        }
        let of_app = |entry: &Entry| app.is_empty() || entry.app == *app;
        self.entries.iter().filter(|(_, entry)| of_app(entry)).filter(is_shown).map_while(show).collect()
    }

    fn written(&self, ids: &[String], app: &str) -> Vec<Written> {
        if ids.is_empty() {
            return self.entries.iter().filter(|(_, entry)| entry.app == app).map(written).collect();
        }
        self.named(ids).map(written).collect()
    }

    /// Those of these ids that are there, each once, by id.
    fn named<'a>(&'a self, ids: &'a [String]) -> impl Iterator<Item = (&'a String, &'a Entry)> {
        let ids: BTreeSet<&String> = ids.iter().collect();
        ids.into_iter().filter_map(|id| self.entries.get_key_value(id))
    }

    fn enter(&mut self, id: &str) -> Result<Entrance, String> {
        let entry = self.entries.get_mut(id).ok_or(NOT_THERE)?;
        let state = entry.machine.state().name();
        let (Some(running), Some(body)) = (&entry.running, &entry.body) else {
            return Err(format!("it is {state}: a program runs in a running instance only"));
        };
        let pidfd = running.pidfd.try_clone().map_err(|error| format!("copy its pidfd: {error}"))?;
        let (body, container) = (Arc::clone(body), container(id, entry.machine.attempt()));
        entry.was_entered = true;
        Ok(Entrance { pidfd, body, container })
    }

    fn drain(&mut self, grace_ms: Option<u64>, cancel: bool, answer: oneshot::Sender<Result<(), String>>) {
        self.turn.undo.push(Undo::Draining(self.draining));
        self.set_draining(!cancel);
        self.record(&Record::Draining(self.draining));
        if !cancel {
            let live: Vec<_> = self.entries.iter().filter(|(_, entry)| !entry.machine.is_over()).collect();
            let ids: Vec<String> = live.into_iter().map(|(id, _)| id.clone()).collect();
            for id in ids {
                self.stop(&id, &StoppedBy::Drain, grace_ms);
            }
        }
        self.turn.is_durable = true;
        self.turn.answers.push(Box::new(move |failed| {
            let _ = answer.send(failed.map_or(Ok(()), |why| Err(why.to_owned())));
        }));
    }

    pub(super) fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
        self.parts.books.service().set_draining(draining);
    }

    fn images(&self) -> Vec<Reference> {
        let live = self.entries.values().filter(|entry| !entry.machine.is_over());
        let wishes: HashMap<&str, &Wish> =
            live.map(|entry| (entry.wish.digest.as_str(), &*entry.wish)).collect();
        wishes.into_values().map(|wish| wish.image.clone()).collect()
    }

    fn look(&self) -> Look {
        let mut states = State::NAMES.map(|name| (name, 0));
        for entry in self.entries.values() {
            let name = entry.machine.state().name();
            if let Some((_, count)) = states.iter_mut().find(|(of, _)| *of == name) {
                *count += 1;
            }
        }
        Look { states, is_draining: self.draining, journal_bytes: self.parts.journal.bytes() }
    }
}

fn written((id, entry): (&String, &Entry)) -> Written {
    Written {
        id: id.clone(),
        app: entry.app.clone(),
        index: entry.index,
        name: entry.log_name(id),
        log: entry.log.clone(),
        is_over: entry.machine.is_over(),
    }
}

impl Look {
    /// Instances and tasks that are kept.
    pub fn known_count(&self) -> u32 {
        self.states.iter().map(|(_, count)| count).sum()
    }

    /// Of these, those that have not ended for good.
    pub fn live_count(&self) -> u32 {
        self.known_count() - self.count(&State::Exited)
    }

    /// Of these, those that run.
    pub fn running_count(&self) -> u32 {
        self.count(&State::Running { since_ms: 0 })
    }

    fn count(&self, state: &State) -> u32 {
        self.states.iter().find(|(name, _)| *name == state.name()).map_or(0, |(_, count)| *count)
    }
}
