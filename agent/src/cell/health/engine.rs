//! The way to the thread that looks: what is to be watched, and what it tells of it.
//!
//! ```text
//! watch, forget ──> inbox ──eventfd──> the thread (see `looking`) ──> tell
//! launchers' answers ──^
//! ```

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};

use super::error::{HealthError, Result};
use super::exec::{Launched, Launchers};
use super::http::is_path;
use super::looking::{Engine, WAKE};
use super::machine::State;
use super::probe::Place;
use super::{Checks, Probe, WATCHES_COUNT_MAX};

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

pub(super) enum Command {
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

/// What callers, launchers and the thread share.
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    wake: OwnedFd,
}

impl Inbox {
    fn send(&self, command: Command) -> Result<()> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).commands.push(command);
        let woken = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        woken.map(drop).map_err(HealthError::kernel("wake the health checks' thread"))
    }

    /// All commands there are.
    pub(super) fn take(&self) -> Vec<Command> {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        std::mem::take(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner).commands)
    }

    /// A watch is over.
    pub(super) fn forgotten(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).watches_count -= 1;
    }
}

/// The health checks of a cell. Dropped, it waits for the programs that it is starting.
pub struct Health {
    inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
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
        let launchers = Launchers::new(move |launched| {
            let _ = answers.send(Command::Launched(launched)); // an engine that is gone looks at nothing
        });
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(HealthError::kernel("make an epoll"))?;
        epoll::add(&epoll, inbox.wake.as_fd(), EventData::new_u64(WAKE), EventFlags::IN)
            .map_err(HealthError::kernel("watch an eventfd"))?;
        let shared = Arc::clone(&inbox);
        let (began, failed) = std::sync::mpsc::sync_channel(1);
        let run = move || match Place::here() {
            Ok(place) => {
                let _ = began.send(None);
                Engine::new(shared, epoll, place, launchers).run();
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
            Ok(None) => Ok(Self { inbox, thread: Some(thread) }),
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
        }
    }
}
