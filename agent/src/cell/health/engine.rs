//! The thread that looks: timers, sockets and programs of all watched instances.
//!
//! ```text
//! due watches ──step──> Begin ──> socket | program ──epoll──> advance ──Outcome──> step ──> Report
//!                                       '── past its deadline ──> dropped, a failure
//! ```

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;

use super::error::{HealthError, Result};
use super::exec::{self, Job, Launched};
use super::http::is_path;
use super::machine::{Effect, Kind, Machine, Outcome, State};
use super::probe::{Look, Place};
use super::{Checks, Probe, WATCHES_COUNT_MAX};
use crate::sandbox::Exit;
use crate::sandbox::exec::Exec;

/// Events that are fetched at once.
const EVENTS_COUNT: usize = 256;
/// The event of the wake-up; the others are numbers of looks.
const WAKE: u64 = u64::MAX;

/// Which watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(u64);

/// News of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub watch: WatchId,
    /// What is known now.
    pub state: State,
}

/// An instance to be watched.
pub struct Watch {
    /// What is checked.
    pub checks: Checks,
    /// Its network namespace; nothing for the agent's own.
    pub network: Option<OwnedFd>,
    /// What a former agent knew of it; nothing for one that has just been started.
    pub known: Option<State>,
    /// Called on the engine's thread for each change, so it must not wait.
    pub tell: Box<dyn Fn(Report) + Send>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("checks", &self.checks)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

enum Command {
    Watch(WatchId, Box<Watch>),
    Forget(WatchId),
    Launched(Launched),
    Stop,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    next_id: u64,
    watches_count: usize,
}

struct Inbox {
    queue: Mutex<Queue>,
    wake: OwnedFd,
}

impl Inbox {
    fn send(&self, command: Command) -> Result<()> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).commands.push(command);
        let woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        woken.map(drop).map_err(HealthError::kernel("wake the health checks' thread"))
    }
}

/// The health checks of a cell. Dropped, it waits for the programs that it is starting.
pub struct Health {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
    exec_threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// Starts the engine.
    ///
    /// # Errors
    /// [`HealthError::Kernel`].
    pub fn start() -> Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(HealthError::kernel("make an eventfd"))?;
        let inbox = Arc::new(Inbox { queue: Mutex::default(), wake });
        let answers = Arc::clone(&inbox);
        let (jobs, exec_threads) = exec::threads(move |launched| {
            let _ = answers.send(Command::Launched(launched)); // an engine that is gone looks at nothing
        })?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(HealthError::kernel("make an epoll"))?;
        epoll::add(&epoll, inbox.wake.as_fd(), EventData::new_u64(WAKE), EventFlags::IN)
            .map_err(HealthError::kernel("watch an eventfd"))?;
        let shared = Arc::clone(&inbox);
        let (began, failed) = std::sync::mpsc::sync_channel(1);
        let run = move || match Place::here() {
            Ok(place) => {
                let _ = began.send(None);
                Engine::new(shared, epoll, place, jobs).run();
            }
            Err(errno) => {
                let _ = began.send(Some(errno));
            }
        };
        let thread = std::thread::Builder::new()
            .name("celda-health".to_owned())
            .spawn(run)
            .map_err(HealthError::kernel("start the health checks' thread"))?;
        match failed.recv() {
            Ok(None) => Ok(Self { inbox, thread: Some(thread), exec_threads }),
            Ok(Some(errno)) => Err(HealthError::kernel("open the agent's network namespace")(errno)),
            Err(_) => Err(HealthError::Ended),
        }
    }

    /// Watches an instance from now on.
    ///
    /// # Errors
    /// [`HealthError::Invalid`] for a check out of its range, [`HealthError::Ended`].
    pub fn watch(&self, watch: Watch) -> Result<WatchId> {
        watch.checks.check()?;
        for check in [&watch.checks.liveness, &watch.checks.readiness].into_iter().flatten() {
            match &check.probe {
                Probe::Http { path, .. } if !is_path(path) => {
                    let why = format!("{path:?} is no path: printable ASCII without spaces, from `/` on");
                    return Err(HealthError::Invalid { what: "path", why });
                }
                Probe::Http { port: 0, .. } | Probe::Tcp { port: 0 } => {
                    return Err(HealthError::Invalid { what: "port", why: "0 is none".to_owned() });
                }
                _ => {}
            }
        }
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(HealthError::Ended);
        }
        let id = {
            let mut queue = self.inbox.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.watches_count >= WATCHES_COUNT_MAX {
                let why = format!("{WATCHES_COUNT_MAX} instances are watched");
                return Err(HealthError::Invalid { what: "watches", why });
            }
            queue.watches_count += 1;
            queue.next_id += 1;
            WatchId(queue.next_id)
        };
        self.inbox.send(Command::Watch(id, Box::new(watch)))?;
        Ok(id)
    }

    /// Watches an instance no longer; a report that is on its way may still come.
    ///
    /// # Errors
    /// [`HealthError::Kernel`].
    pub fn forget(&self, id: WatchId) -> Result<()> {
        self.inbox.send(Command::Forget(id))
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && self.inbox.send(Command::Stop).is_ok()
        {
            let _ = thread.join(); // a panic there was printed there
            // Their jobs ended with it.
            for thread in self.exec_threads.drain(..) {
                let _ = thread.join();
            }
        }
    }
}

/// A look that is under way.
struct Running {
    number: u64,
    deadline_ns: u64,
    timeout: Duration,
    work: Work,
}

enum Work {
    Network(Look),
    Launching,
    Program(Exec),
}

struct Watcher {
    watch: Watch,
    machine: Machine,
    looks: [Option<Running>; 2],
    due_ns: Option<u64>,
}

impl Watcher {
    fn probe(&self, kind: Kind) -> Option<&super::Check> {
        match kind {
            Kind::Liveness => self.watch.checks.liveness.as_ref(),
            Kind::Readiness => self.watch.checks.readiness.as_ref(),
        }
    }
}

struct Engine {
    inbox: Arc<Inbox>,
    epoll: OwnedFd,
    place: Place,
    jobs: Sender<Job>,
    began: Instant,
    next_number: u64,
    watchers: HashMap<WatchId, Watcher>,
    looks: HashMap<u64, (WatchId, Kind)>,
    due: BTreeSet<(u64, WatchId)>,
}

impl Engine {
    fn new(inbox: Arc<Inbox>, epoll: OwnedFd, place: Place, jobs: Sender<Job>) -> Self {
        Self {
            inbox,
            epoll,
            place,
            jobs,
            began: Instant::now(),
            next_number: 0,
            watchers: HashMap::new(),
            looks: HashMap::new(),
            due: BTreeSet::new(),
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn run(mut self) {
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
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.inbox.wake, &mut count);
        let commands = {
            let mut queue = self.inbox.queue.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut queue.commands)
        };
        for command in commands {
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
        self.watchers.insert(id, Watcher { watch, machine, looks: [None, None], due_ns: None });
        self.step(id, None);
    }

    fn remove(&mut self, id: WatchId) {
        let Some(watcher) = self.watchers.remove(&id) else { return };
        self.inbox.queue.lock().unwrap_or_else(PoisonError::into_inner).watches_count -= 1;
        if let Some(due) = watcher.due_ns {
            self.due.remove(&(due, id));
        }
        for look in watcher.looks.into_iter().flatten() {
            self.looks.remove(&look.number);
        }
    }

    /// Brings outcomes and the time to an instance's machine, and does what it asks.
    fn step(&mut self, id: WatchId, outcome: Option<(Kind, Outcome)>) {
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
        for look in watcher.looks.iter_mut().filter_map(Option::take) {
            self.looks.remove(&look.number);
        }
    }

    /// Enters when the instance is to be looked at again.
    fn plan(&mut self, id: WatchId) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let deadlines = watcher.looks.iter().flatten().map(|look| look.deadline_ns);
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
            Probe::Exec(launch) => {
                let queued = self.jobs.send((number, Arc::clone(launch)));
                queued.map_err(|_| "the threads for exec checks are gone".to_owned())?;
                Work::Launching
            }
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
        watcher.looks[kind as usize] = Some(Running { number, deadline_ns, timeout, work });
        self.looks.insert(number, (id, kind));
        Ok(())
    }

    /// Something happened to a look's socket or program.
    fn news(&mut self, number: u64) {
        let Some((id, kind)) = self.looks.get(&number).copied() else { return };
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let Watcher { watch, looks, .. } = watcher;
        let check = match kind {
            Kind::Liveness => &watch.checks.liveness,
            Kind::Readiness => &watch.checks.readiness,
        };
        let (Some(check), Some(look)) = (check, &mut looks[kind as usize]) else { return };
        let outcome = match &mut look.work {
            Work::Network(network) => network.advance(&check.probe, &mut self.place),
            Work::Launching => None,
            Work::Program(program) => match program.try_wait() {
                Ok(None) => None,
                Ok(Some(Exit::Code(0))) => Some(Ok(())),
                Ok(Some(exit)) => Some(Err(format!("the check's program ended with {exit}"))),
                Err(error) => Some(Err(error.to_string())),
            },
        };
        if let Some(outcome) = outcome {
            looks[kind as usize] = None;
            self.looks.remove(&number);
            self.step(id, Some((kind, outcome)));
        }
    }

    fn launched(&mut self, number: u64, answer: crate::sandbox::Result<Exec>) {
        // A program whose look is over is killed by its drop.
        let Some((id, kind)) = self.looks.get(&number).copied() else { return };
        let watched = answer.map_err(|error| error.to_string()).and_then(|program| {
            epoll::add(&self.epoll, program.pidfd(), EventData::new_u64(number), EventFlags::IN)
                .map_err(|errno| format!("watch a program: {}", std::io::Error::from(errno)))?;
            Ok(program)
        });
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match (watched, &mut watcher.looks[kind as usize]) {
            (Ok(program), Some(look)) => look.work = Work::Program(program),
            (Ok(_), None) => {}
            (Err(reason), look) => {
                *look = None;
                self.looks.remove(&number);
                self.step(id, Some((kind, Err(reason))));
            }
        }
    }

    /// Ends looks that took too long.
    fn time_out(&mut self, id: WatchId, now: u64) {
        for kind in [Kind::Liveness, Kind::Readiness] {
            let Some(watcher) = self.watchers.get_mut(&id) else { return };
            let look = watcher.looks[kind as usize].take_if(|look| look.deadline_ns <= now);
            if let Some(look) = look {
                self.looks.remove(&look.number);
                self.step(id, Some((kind, Err(format!("no answer within {:?}", look.timeout)))));
            }
        }
    }
}
