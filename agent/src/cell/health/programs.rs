//! The programs of exec checks: one of an instance at a time, whatever becomes of it.
//!
//! ```text
//! Begin ──> Waiting ──> line of instances ──> Launching ──> Program ──> outcome
//!              ^                                  │ timeout      │ timeout
//!              └── the instance is free again <───┴── reaped <───┴── killed
//! ```
//! The time of a look begins when its program is being started, so that what others wait for is not held against an
//! instance. An instance whose last program cannot be got rid of, as one that waits for a disk which does not answer, gets
//! no second one: its looks fail meanwhile by their timeout.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::process::Signal;

use super::Probe;
use super::engine::WatchId;
use super::exec::{Job, Launchers};
use super::looking::{Engine, Running, Work};
use super::machine::Kind;
use crate::cell::words::bounded;
use crate::sandbox::exec::Exec;

/// What an instance has of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// None.
    Free,
    /// One is wanted; the instance is in the line, once.
    InLine,
    /// One is being started, runs, or was killed and is not reaped; of the look of this number.
    Taken(u64),
}

/// What is under way for all instances.
pub(super) struct Programs {
    launchers: Launchers,
    line: VecDeque<WatchId>,
    /// Starts that have not been answered, by the number of their look.
    launching: HashMap<u64, WatchId>,
    /// Killed, and not reaped.
    dying: HashMap<u64, (WatchId, Exec)>,
}

impl Programs {
    pub(super) fn new(launchers: Launchers) -> Self {
        Self { launchers, line: VecDeque::new(), launching: HashMap::new(), dying: HashMap::new() }
    }
}

fn is_waiting(look: &&mut Running) -> bool {
    matches!(look.work, Work::Waiting)
}

impl Engine {
    /// Puts an instance into the line, if a look of it waits and nothing of it is under way.
    pub(super) fn line_up(&mut self, id: WatchId) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let mut waiting = watcher.looks.iter_mut().flatten().filter(is_waiting).peekable();
        if watcher.program == Slot::Free && waiting.peek().is_some() {
            waiting.for_each(|look| look.deadline_ns = u64::MAX);
            watcher.program = Slot::InLine;
            self.programs.line.push_back(id);
        }
        self.launch_next();
    }

    /// Starts the programs of those who are first in the line, as long as a launcher is free.
    fn launch_next(&mut self) {
        while self.programs.launchers.has_free() {
            let Some(id) = self.programs.line.pop_front() else { return };
            let now = self.now_ns();
            let Some(watcher) = self.watchers.get_mut(&id).filter(|watcher| watcher.program == Slot::InLine)
            else {
                continue; // it was forgotten
            };
            watcher.program = Slot::Free;
            let is_wanted = |kind: &Kind| {
                watcher.looks[*kind as usize].as_ref().is_some_and(|look| matches!(look.work, Work::Waiting))
            };
            let Some(kind) = [Kind::Liveness, Kind::Readiness].into_iter().find(is_wanted) else { continue };
            let Some(Probe::Exec(launch)) = watcher.probe(kind).map(|check| &check.probe) else { continue };
            let launch = Arc::clone(launch);
            let mut job = None;
            for look in watcher.looks.iter_mut().flatten().filter(is_waiting) {
                look.deadline_ns =
                    now.saturating_add(u64::try_from(look.timeout.as_nanos()).unwrap_or(u64::MAX));
            }
            if let Some(look) = &mut watcher.looks[kind as usize] {
                look.work = Work::Launching;
                watcher.program = Slot::Taken(look.number);
                job = Some(Job { number: look.number, launch, wait: look.timeout });
            }
            let Some(job) = job else { continue };
            let number = job.number;
            self.plan(id);
            match self.programs.launchers.begin(job) {
                Ok(()) => drop(self.programs.launching.insert(number, id)),
                Err(error) => self.fail(id, number, bounded(&error)),
            }
        }
    }

    /// A start was answered.
    pub(super) fn launched(&mut self, number: u64, answer: crate::sandbox::Result<Exec>) {
        self.programs.launchers.done();
        if let Some(id) = self.programs.launching.remove(&number) {
            self.take_up(id, number, answer);
        }
        self.launch_next();
    }

    fn take_up(&mut self, id: WatchId, number: u64, answer: crate::sandbox::Result<Exec>) {
        let program = match answer {
            Ok(program) => program,
            Err(error) => return self.fail(id, number, bounded(&error)),
        };
        let watched = epoll::add(&self.epoll, program.pidfd(), EventData::new_u64(number), EventFlags::IN);
        if let Err(errno) = watched {
            return self.fail(id, number, format!("watch a program: {}", std::io::Error::from(errno)));
        }
        let look = self.looks.get(&number).map(|(_, kind)| *kind);
        let look = look
            .zip(self.watchers.get_mut(&id))
            .and_then(|(kind, watcher)| watcher.looks[kind as usize].as_mut());
        match look {
            Some(look) => look.work = Work::Program(program),
            None => self.retire(id, number, program), // its look is over
        }
    }

    /// Nothing of a look's program is there, or nothing that is seen: the look has failed, if it still waits.
    fn fail(&mut self, id: WatchId, number: u64, reason: String) {
        self.free(id);
        if let Some((id, kind)) = self.looks.remove(&number) {
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.looks[kind as usize] = None;
            }
            self.step(id, Some((kind, Err(reason))));
        }
    }

    /// Kills a program whose look is over. Its instance has no other before it is reaped.
    pub(super) fn retire(&mut self, id: WatchId, number: u64, program: Exec) {
        if !self.watchers.contains_key(&id) {
            let _ = epoll::delete(&self.epoll, program.pidfd());
            return; // dropped: killed and reaped, and nobody waits for that
        }
        if let Err(error) = program.kill(Signal::KILL) {
            tracing::warn!(%error, "a check's program was not killed");
        }
        self.programs.dying.insert(number, (id, program));
    }

    /// A program that was killed has ended.
    pub(super) fn buried(&mut self, number: u64) {
        let Some((_, program)) = self.programs.dying.get_mut(&number) else { return };
        if matches!(program.try_wait(), Ok(None)) {
            return;
        }
        if let Some((id, program)) = self.programs.dying.remove(&number) {
            let _ = epoll::delete(&self.epoll, program.pidfd());
            self.free(id);
        }
    }

    /// Nothing of an instance's last program is left: the next one may come.
    pub(super) fn free(&mut self, id: WatchId) {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.program = Slot::Free;
        }
        self.line_up(id);
    }

    /// An instance is watched no longer: what it has in the line or dying is nobody's.
    pub(super) fn leave(&mut self, id: WatchId, slot: Slot) {
        match slot {
            Slot::Free => {}
            Slot::InLine => self.programs.line.retain(|other| *other != id),
            Slot::Taken(number) => {
                if let Some((_, program)) = self.programs.dying.remove(&number) {
                    let _ = epoll::delete(&self.epoll, program.pidfd());
                }
            }
        }
    }
}
