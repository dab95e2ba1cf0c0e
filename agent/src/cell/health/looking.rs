//! The thread that looks: timers, sockets and programs of all watched instances.
//!
//! ```text
//! due watches ──step──> Begin ──> socket | program ──epoll──> advance ──Outcome──> step ──> Report
//!                                       '── past its deadline ──> dropped, a failure
//! ```

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;

use super::engine::{Command, Inbox, Report, Watch, WatchId};
use super::exec::Launchers;
use super::machine::{Effect, Kind, Machine, Outcome, State};
use super::probe::{Look, Place};
use super::programs::{Programs, Slot};
use super::{Checks, Probe};
use crate::sandbox::Exit;
use crate::sandbox::exec::Exec;

/// Events that are fetched at once.
const EVENTS_COUNT: usize = 256;
/// The event of the wake-up; the others are numbers of looks.
pub(super) const WAKE: u64 = u64::MAX;

/// A look that is under way.
pub(super) struct Running {
    pub(super) number: u64,
    /// When it has failed for want of an outcome.
    pub(super) deadline_ns: u64,
    pub(super) timeout: Duration,
    pub(super) work: Work,
}

pub(super) enum Work {
    Network(Look),
    /// It waits for another program of its instance, or for a launcher.
    Waiting,
    Launching,
    Program(Exec),
}

pub(super) struct Watcher {
    watch: Watch,
    machine: Machine,
    pub(super) looks: [Option<Running>; 2],
    due_ns: Option<u64>,
    pub(super) program: Slot,
}

impl Watcher {
    pub(super) fn probe(&self, kind: Kind) -> Option<&super::Check> {
        match kind {
            Kind::Liveness => self.watch.checks.liveness.as_ref(),
            Kind::Readiness => self.watch.checks.readiness.as_ref(),
        }
    }
}

pub(super) struct Engine {
    inbox: Arc<Inbox>,
    pub(super) epoll: OwnedFd,
    place: Place,
    began: Instant,
    next_number: u64,
    pub(super) watchers: HashMap<WatchId, Watcher>,
    pub(super) looks: HashMap<u64, (WatchId, Kind)>,
    due: BTreeSet<(u64, WatchId)>,
    pub(super) programs: Programs,
}

impl Engine {
    pub(super) fn new(inbox: Arc<Inbox>, epoll: OwnedFd, place: Place, launchers: Launchers) -> Self {
        Self {
            inbox,
            epoll,
            place,
            began: Instant::now(),
            next_number: 0,
            watchers: HashMap::new(),
            looks: HashMap::new(),
            due: BTreeSet::new(),
            programs: Programs::new(launchers),
        }
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn run(mut self) {
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_COUNT);
        loop {
            events.clear();
            let wait =
                self.due.first().map(|(due, _)| Duration::from_nanos(due.saturating_sub(self.now_ns())));
            let wait = wait.map(|wait| Timespec {
                tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(wait.subsec_nanos()),
            });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "the health checks' thread cannot wait; it ends");
                    return;
                }
            }
            let mut is_woken = false;
            for event in &events {
                match event.data.u64() {
                    WAKE => is_woken = true,
                    number => self.news(number),
                }
            }
            if is_woken && !self.obey() {
                return;
            }
            let now = self.now_ns();
            while let Some((_, id)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
                self.due.pop_first();
                if let Some(watcher) = self.watchers.get_mut(&id) {
                    watcher.due_ns = None;
                }
                self.time_out(id, now);
                self.step(id, None);
            }
        }
    }

    /// Takes the commands; false for the end.
    fn obey(&mut self) -> bool {
        for command in self.inbox.take() {
            match command {
                Command::Stop => return false,
                Command::Watch(id, watch) => self.add(id, *watch),
                Command::Forget(id) => self.remove(id),
                Command::Launched((number, answer)) => self.launched(number, answer),
            }
        }
        true
    }

    fn add(&mut self, id: WatchId, watch: Watch) {
        let Checks { startup, liveness, readiness } = watch.checks.clone();
        let plain = |check: Option<super::Check>| check.map(|check| check.map(drop));
        let checks = Checks { startup, liveness: plain(liveness), readiness: plain(readiness) };
        let now = self.now_ns();
        let machine = match watch.known.clone() {
            Some(state) => Machine::taken_up(checks, state, now),
            None => Machine::new(checks, now),
        };
        if machine.state() != &State::Starting {
            (watch.tell)(Report { watch: id, state: machine.state().clone() });
        }
        let watcher = Watcher { watch, machine, looks: [None, None], due_ns: None, program: Slot::Free };
        self.watchers.insert(id, watcher);
        self.step(id, None);
    }

    fn remove(&mut self, id: WatchId) {
        let Some(watcher) = self.watchers.remove(&id) else { return };
        self.inbox.forgotten();
        if let Some(due) = watcher.due_ns {
            self.due.remove(&(due, id));
        }
        self.leave(id, watcher.program);
        for look in watcher.looks.into_iter().flatten() {
            self.end_look(id, look);
        }
    }

    /// Ends a look that has no outcome; a program of it is killed, and its end is waited for by epoll.
    fn end_look(&mut self, id: WatchId, look: Running) {
        self.looks.remove(&look.number);
        if let Work::Program(program) = look.work {
            self.retire(id, look.number, program);
        }
    }

    /// Brings outcomes and the time to an instance's machine, and does what it asks.
    pub(super) fn step(&mut self, id: WatchId, outcome: Option<(Kind, Outcome)>) {
        let now = self.now_ns();
        let mut given = vec![outcome];
        while let Some(outcome) = given.pop() {
            let Some(watcher) = self.watchers.get_mut(&id) else { return };
            for effect in watcher.machine.step(outcome, now) {
                match effect {
                    Effect::Become(state) => {
                        if matches!(state, State::Failed { .. }) {
                            self.drop_looks(id);
                        }
                        if let Some(watcher) = self.watchers.get(&id) {
                            (watcher.watch.tell)(Report { watch: id, state });
                        }
                    }
                    Effect::Begin(kind) => {
                        if let Err(reason) = self.begin(id, kind, now) {
                            given.push(Some((kind, Err(reason))));
                        }
                    }
                }
            }
        }
        self.plan(id);
    }

    fn drop_looks(&mut self, id: WatchId) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        for look in std::mem::take(&mut watcher.looks).into_iter().flatten() {
            self.end_look(id, look);
        }
    }

    /// Enters when the instance is to be looked at again.
    pub(super) fn plan(&mut self, id: WatchId) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        // One that waits for a launcher has none yet.
        let deadlines = watcher.looks.iter().flatten().map(|look| look.deadline_ns);
        let deadlines = deadlines.filter(|deadline| *deadline != u64::MAX);
        let due = deadlines.chain(watcher.machine.due_ns()).min();
        if due == watcher.due_ns {
            return;
        }
        if let Some(before) = std::mem::replace(&mut watcher.due_ns, due) {
            self.due.remove(&(before, id));
        }
        self.due.extend(due.map(|due| (due, id)));
    }

    fn begin(&mut self, id: WatchId, kind: Kind, now: u64) -> std::result::Result<(), String> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        let Some(check) = watcher.probe(kind) else { return Ok(()) };
        let (number, timeout) = (self.next_number, check.timeout);
        self.next_number += 1;
        let work = match &check.probe {
            Probe::Exec(_) => Work::Waiting,
            Probe::Tcp { port } | Probe::Http { port, .. } => {
                let network = watcher.watch.network.as_ref().map(|network| network.as_fd());
                let look = Look::begin(*port, network, &self.place)?;
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
                epoll::add(&self.epoll, look.socket(), EventData::new_u64(number), flags)
                    .map_err(|errno| format!("watch a socket: {}", std::io::Error::from(errno)))?;
                Work::Network(look)
            }
        };
        let deadline_ns = now.saturating_add(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        let is_program = matches!(work, Work::Waiting);
        watcher.looks[kind as usize] = Some(Running { number, deadline_ns, timeout, work });
        self.looks.insert(number, (id, kind));
        if is_program {
            self.line_up(id);
        }
        Ok(())
    }

    /// Something happened to a look's socket or program.
    fn news(&mut self, number: u64) {
        let Some((id, kind)) = self.looks.get(&number).copied() else { return self.buried(number) };
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let Watcher { watch, looks, .. } = watcher;
        let check = match kind {
            Kind::Liveness => &watch.checks.liveness,
            Kind::Readiness => &watch.checks.readiness,
        };
        let (Some(check), Some(look)) = (check, &mut looks[kind as usize]) else { return };
        let outcome = match &mut look.work {
            Work::Network(network) => network.advance(&check.probe, &mut self.place),
            Work::Waiting | Work::Launching => None,
            Work::Program(program) => match program.try_wait() {
                Ok(None) => None,
                Ok(Some(Exit::Code(0))) => Some(Ok(())),
                Ok(Some(exit)) => Some(Err(format!("the check's program ended with {exit}"))),
                Err(error) => Some(Err(error.to_string())),
            },
        };
        if let Some(outcome) = outcome {
            let ended = looks[kind as usize].take();
            self.looks.remove(&number);
            if ended.is_some_and(|look| matches!(look.work, Work::Program(_))) {
                self.free(id);
            }
            self.step(id, Some((kind, outcome)));
        }
    }

    /// Ends looks that took too long.
    fn time_out(&mut self, id: WatchId, now: u64) {
        for kind in [Kind::Liveness, Kind::Readiness] {
            let Some(watcher) = self.watchers.get_mut(&id) else { return };
            let look = watcher.looks[kind as usize].take_if(|look| look.deadline_ns <= now);
            if let Some(look) = look {
                let timeout = look.timeout;
                self.end_look(id, look);
                self.step(id, Some((kind, Err(format!("no answer within {timeout:?}")))));
            }
        }
    }
}
