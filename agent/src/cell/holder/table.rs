//! The containers of the holder: what is kept of each, and how it ends.
//!
//! ```text
//! start ──> Entry { container, descriptors, locks } ── pidfd readable ──> reaper: wait, cgroup removed ──> Entry { ended }
//!                                                                                              │
//!                              forget: descriptors and locks closed <── the agent knows <──────┘
//! ```

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::message::{Answer, Ended};
use super::socket::Connection;
use crate::sandbox::{Container, Exit};

/// What is kept of a container.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) error: OwnedFd,
    pub(super) body: OwnedFd,
    /// Locks of the writable layer and of the image: nobody sweeps what runs.
    pub(super) _locks: [OwnedFd; 2],
    /// Until it has ended.
    pub(super) container: Option<Container>,
    pub(super) ended: Option<Ended>,
    /// Nobody wants to know its end.
    pub(super) is_forgotten: bool,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// Agents that are told of ends: one, and perhaps one that is just being upgraded.
    attending: Vec<Arc<Connection>>,
}

/// All containers.
#[derive(Debug, Default)]
pub(super) struct Table(Mutex<State>);

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        // What runs under the lock leaves the map whole at every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state().entries.is_empty()
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.state().entries.contains_key(id)
    }

    /// Keeps a container and has its pidfd watched, with no end of it seen in between. One that cannot be watched is
    /// killed and not kept.
    pub(super) fn add(
        &self,
        id: &str,
        entry: Entry,
        watch: impl FnOnce(&OwnedFd) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        let mut state = self.state();
        let watched = watch(&entry.pidfd);
        match (&watched, entry.container) {
            (Err(_), Some(container)) => {
                kill(&container);
                let _ = reap(id, container);
            }
            (_, container) => drop(state.entries.insert(id.to_owned(), Entry { container, ..entry })),
        }
        watched
    }

    /// The container to be waited for: its pidfd says that it has ended.
    pub(super) fn take(&self, id: &str) -> Option<Container> {
        self.state().entries.get_mut(id)?.container.take()
    }

    /// Remembers an end, and tells who attends.
    pub(super) fn ended(&self, id: &str, ended: Ended) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(id) else { return };
        entry.ended = Some(ended);
        if entry.is_forgotten {
            state.entries.remove(id);
            return;
        }
        let answer = Answer::Ended { id: id.to_owned(), ended };
        state.attending.retain(|agent| agent.send(&answer, &[]).is_ok());
    }

    /// Kills all processes of a container that runs; true if there is one.
    pub(super) fn kill(&self, id: &str) -> bool {
        let state = self.state();
        let Some(container) = state.entries.get(id).and_then(|entry| entry.container.as_ref()) else {
            return false;
        };
        kill(container);
        true
    }

    /// Lets go of a container; one that runs is killed, and goes when it has ended.
    pub(super) fn forget(&self, id: &str) {
        let mut state = self.state();
        let Some(entry) = state.entries.get_mut(id) else { return };
        if entry.ended.is_some() {
            state.entries.remove(id);
            return;
        }
        entry.is_forgotten = true;
        if let Some(container) = &entry.container {
            kill(container);
        }
    }

    /// Tells an agent what there is, and from then on what ends, with nothing between the two.
    pub(super) fn attend(&self, agent: &Arc<Connection>) -> std::io::Result<()> {
        let mut state = self.state();
        for (id, entry) in state.entries.iter().filter(|(_, entry)| !entry.is_forgotten) {
            let there = Answer::There { id: id.clone(), pid: entry.pid, ended: entry.ended };
            let fds = [&entry.pidfd, &entry.output, &entry.error, &entry.body];
            agent.send(&there, &fds.map(AsFd::as_fd))?;
        }
        agent.send(&Answer::All, &[])?;
        state.attending.push(Arc::clone(agent));
        Ok(())
    }

    pub(super) fn leave(&self, agent: &Arc<Connection>) {
        self.state().attending.retain(|other| !Arc::ptr_eq(other, agent));
    }
}

/// All processes by the cgroup; the first one, with which the others go, where that fails.
fn kill(container: &Container) {
    if container.cgroup().is_none_or(|cgroup| cgroup.kill().is_err()) {
        let _ = container.kill(Signal::KILL);
    }
}

/// Waits for a container whose first process has ended, and clears its cgroup away.
pub(super) fn reap(id: &str, container: Container) -> Ended {
    let exit = container.wait().unwrap_or_else(|error| {
        // The cgroup stays, or the kernel does not let us wait: the agent must hear of the end all the same.
        eprintln!("celda holder: {id}: {error}");
        Exit::Signal(9)
    });
    Ended::new(exit, now_ms())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
