//! The containers of the holder: what is kept of each, and how it ends.
//!
//! ```text
//! start ──> Entry { container, descriptors, locks } ── pidfd readable ──> reaper: wait, cgroup removed ──> Entry { ended }
//!                                                                                              │
//!                              forget: descriptors and locks closed <── the agent knows <──────┘
//! ```

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::files::Relayed;
use super::message::{Answer, Ended};
use super::socket::Connection;
use crate::sandbox::{Container, Exit};

/// How long an agent waits at most for what is being started when it attends.
const STARTS_WAIT_MAX: Duration = Duration::from_secs(60);

/// A container that runs, and its terminal if it has one.
pub(super) type Running = (Container, Option<Relayed>);

/// What is kept of a container.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) output: OwnedFd,
    pub(super) error: OwnedFd,
    /// What it reads, if it reads anything: see [`Files`](super::files::Files).
    pub(super) input: Option<OwnedFd>,
    pub(super) body: OwnedFd,
    /// Locks of the writable layer and of the image: nobody sweeps what runs.
    pub(super) _locks: [OwnedFd; 2],
    /// Until it has ended.
    pub(super) container: Option<Running>,
    pub(super) ended: Option<Ended>,
    /// Nobody wants to know its end.
    pub(super) is_forgotten: bool,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// Agents that are told of ends: one, and perhaps one that is just being upgraded.
    attending: Vec<Arc<Connection>>,
    /// Containers that are being started and are no entries yet.
    starting: HashSet<String>,
}

/// All containers.
#[derive(Debug, Default)]
pub(super) struct Table {
    state: Mutex<State>,
    /// A start is done, well or not.
    started: Condvar,
}

/// A container that is being started, until this is dropped: who attends meanwhile is told what came of it.
#[derive(Debug)]
pub(super) struct Starting<'a> {
    table: &'a Table,
    id: String,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.table.state().starting.remove(&self.id);
        self.table.started.notify_all();
    }
}

impl Table {
    fn state(&self) -> MutexGuard<'_, State> {
        // What runs under the lock leaves the map whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_empty(&self) -> bool {
        let state = self.state();
        state.entries.is_empty() && state.starting.is_empty()
    }

    /// Begins a start, unless a container of that name is there.
    pub(super) fn begin(&self, id: &str) -> Option<Starting<'_>> {
        let mut state = self.state();
        let is_new = !state.entries.contains_key(id) && state.starting.insert(id.to_owned());
        is_new.then(|| Starting { table: self, id: id.to_owned() })
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
            (Err(_), Some((container, _))) => discard(id, container),
            (_, container) => drop(state.entries.insert(id.to_owned(), Entry { container, ..entry })),
        }
        watched
    }

    /// The container to be waited for: its pidfd says that it has ended.
    pub(super) fn take(&self, id: &str) -> Option<Running> {
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
        let Some((container, _)) = state.entries.get(id).and_then(|entry| entry.container.as_ref()) else {
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
        if let Some((container, _)) = &entry.container {
            kill(container);
        }
    }

    /// Tells an agent what there is, and from then on what ends, with nothing between the two. What is just being
    /// started, as for an agent that was killed over it, is waited for.
    pub(super) fn attend(&self, agent: &Arc<Connection>) -> std::io::Result<()> {
        let state = self.state();
        let before = state.starting.clone();
        let is_under_way = |state: &mut State| !state.starting.is_disjoint(&before);
        let waited = self.started.wait_timeout_while(state, STARTS_WAIT_MAX, is_under_way);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            let why = "a container has been starting for a minute, and does not come to an end";
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why));
        }
        for (id, entry) in state.entries.iter().filter(|(_, entry)| !entry.is_forgotten) {
            let there = Answer::There { id: id.clone(), pid: entry.pid, ended: entry.ended };
            let fds = [&entry.pidfd, &entry.output, &entry.error, &entry.body];
            let fds: Vec<_> = fds.into_iter().chain(&entry.input).map(AsFd::as_fd).collect();
            agent.send(&there, &fds)?;
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

/// Ends a container that is not kept.
pub(super) fn discard(id: &str, container: Container) {
    kill(&container);
    let _ = reap(id, (container, None));
}

/// Waits for a container whose first process has ended, and clears its cgroup away; also until the last of its terminal
/// is where its log is made.
pub(super) fn reap(id: &str, (container, relayed): Running) -> Ended {
    let exit = container.wait().unwrap_or_else(|error| {
        // The cgroup stays, or the kernel does not let us wait: the agent must hear of the end all the same.
        eprintln!("celda holder: {id}: {error}");
        Exit::Signal(9)
    });
    if let Some(relayed) = relayed {
        relayed.wait();
    }
    Ended::new(exit, now_ms())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_started_once_at_a_time() {
        let table = Table::default();
        let starting = table.begin("web-1").expect("nobody is at it");
        assert!(table.begin("web-1").is_none() && !table.is_empty());
        drop(starting);
        assert!(table.is_empty() && table.begin("web-1").is_some());
    }

    #[test]
    fn who_attends_waits_for_what_is_being_started() {
        let table = Table::default();
        let starting = table.begin("web-1").expect("nobody is at it");
        let (ours, theirs) = Connection::pair().expect("a pair");
        let theirs = Arc::new(theirs);
        std::thread::scope(|scope| {
            let attended = scope.spawn(|| table.attend(&theirs));
            assert!(!ours.is_readable(), "it is told before the start is done");
            drop(starting);
            attended.join().expect("no panic").expect("attended");
        });
        let packet = ours.receive::<Answer>().expect("received").expect("a packet");
        assert!(matches!(packet.message, Answer::All));
    }
}
