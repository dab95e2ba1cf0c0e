//! Network namespaces made beforehand, and used again: making one, and the kernel's end of it, cost more than all
//! else in a start together (0.4 ms and as much again, measured 2026-11-26 on 2 cores).
//!
//! ```text
//! pool thread --make--> ready <--- unused? --- give_back (from a sealed container that is gone)
//!                         '--- take --> container
//! ```

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use super::error::{Result, SandboxError};
use crate::sys;

/// Namespaces that a pool may keep ready.
pub const POOL_COUNT_MAX: usize = 1024;

/// `NSFS_MAGIC`, linux/magic.h: what tells a pinned namespace from the empty file beneath it.
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// Bytes of `/proc/net/dev` in a namespace that has only `lo`; more is another interface.
const INTERFACES_BYTES_MAX: usize = 1024;

/// A network namespace that is being made on a thread of its own, while the caller does something else.
#[derive(Debug)]
pub struct PreparingNetwork(JoinHandle<Result<OwnedFd>>);

impl PreparingNetwork {
    /// Begins to make a namespace with nothing but `lo`, which is up.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] when no thread can be had.
    pub fn begin() -> Result<Self> {
        let thread = std::thread::Builder::new().name("celda-netns".to_owned()).spawn(make);
        thread.map(Self).map_err(SandboxError::parent("start a thread for the network namespace"))
    }

    /// Waits for it.
    ///
    /// # Errors
    /// [`SandboxError::Parent`]: `EPERM` without privilege, `ENOSPC` at the limit of namespaces.
    pub fn finish(self) -> Result<OwnedFd> {
        self.0.join().unwrap_or_else(|_| {
            let gone = std::io::Error::other("its thread has panicked");
            Err(SandboxError::parent("make a network namespace")(gone))
        })
    }
}

/// Some network namespaces, kept ready by a thread of their own.
#[derive(Debug)]
pub struct NetworkNamespaces {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something is wanted from the thread: fewer than the minimum are ready, or the end.
    wanted: Condvar,
    /// Something is ready, or failed.
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: VecDeque<OwnedFd>,
    /// The thread keeps at least so many ready.
    count_min: usize,
    /// Why the thread could make no more; told to the next who takes.
    failed: Option<SandboxError>,
    has_ended: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No code that could panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl NetworkNamespaces {
    /// Keeps at least `count` namespaces ready (1 to [`POOL_COUNT_MAX`]; about twice as many as start at one time).
    /// The thread ends, and what is ready goes away, when the pool is dropped.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] when no thread can be had.
    pub fn new(count: usize) -> Result<Self> {
        let state = State { count_min: count.clamp(1, POOL_COUNT_MAX), ..State::default() };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), wanted: Condvar::new(), ready: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("celda-netns-pool".to_owned());
        thread
            .spawn(move || fill(&theirs))
            .map_err(SandboxError::parent("start a thread for the network pool"))?;
        Ok(Self { shared })
    }

    /// A namespace that nobody else has, with nothing but `lo`, which is up and has carried nothing; waits while none
    /// is ready.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] when the kernel does not give one.
    pub fn take(&self) -> Result<OwnedFd> {
        let mut state = self.shared.state();
        loop {
            if let Some(namespace) = state.ready.pop_front() {
                if state.ready.len() < state.count_min {
                    self.shared.wanted.notify_one();
                }
                return Ok(namespace);
            }
            if let Some(error) = state.failed.take() {
                return Err(error);
            }
            self.shared.wanted.notify_one();
            state = self.shared.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes back the namespace of a container that was [sealed](super::is_sealed) and is gone, to be given out again
    /// if nothing went through it; else the kernel ends it.
    pub fn give_back(&self, namespace: OwnedFd) {
        if !is_unused(namespace.as_fd()).unwrap_or(false) {
            return;
        }
        let mut state = self.shared.state();
        if state.ready.len() < POOL_COUNT_MAX {
            state.ready.push_back(namespace);
            self.shared.ready.notify_one();
        }
    }
}

impl Drop for NetworkNamespaces {
    fn drop(&mut self) {
        self.shared.state().has_ended = true;
        self.shared.wanted.notify_one();
    }
}

/// The pool's thread.
fn fill(shared: &Shared) {
    loop {
        let mut state = shared.state();
        while !state.has_ended && (state.failed.is_some() || state.ready.len() >= state.count_min) {
            state = shared.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.has_ended {
            return;
        }
        drop(state);
        // Each unshare leaves the one before behind, which lives on in its descriptor.
        let made = make();
        let mut state = shared.state();
        match made {
            Ok(namespace) => state.ready.push_back(namespace),
            Err(error) => state.failed = Some(error),
        }
        shared.ready.notify_one();
    }
}

/// Moves the calling thread into a new network namespace and opens it.
fn make() -> Result<OwnedFd> {
    let failed = SandboxError::parent("make a network namespace");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    sys::loopback_up().map_err(SandboxError::parent("bring lo up in a new network namespace"))?;
    own_namespace()
}

fn own_namespace() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| SandboxError::host("open the network namespace", path)(errno.into()))
}

/// Whether a namespace has nothing but `lo`, and nothing ever went through that: then no connection was made in it,
/// and none lingers. The calling thread goes there and comes back.
///
/// # Errors
/// [`SandboxError::Parent`], [`SandboxError::Host`]. The thread is where it was, or the process has no way back and
/// the error says so.
pub fn is_unused(namespace: BorrowedFd<'_>) -> Result<bool> {
    let enter = |place: BorrowedFd<'_>, what: &'static str| {
        rustix::thread::move_into_link_name_space(place, Some(LinkNameSpaceType::Network))
            .map_err(|errno| SandboxError::parent(what)(errno.into()))
    };
    let home = own_namespace()?;
    enter(namespace, "enter a network namespace")?;
    let interfaces = std::fs::File::open("/proc/thread-self/net/dev").and_then(|mut file| {
        let mut text = [0; INTERFACES_BYTES_MAX];
        let count = std::io::Read::read(&mut file, &mut text)?;
        Ok(text.get(..count).is_some_and(has_idle_loopback_only))
    });
    enter(home.as_fd(), "come back from a network namespace")?;
    interfaces.map_err(SandboxError::host("read", "/proc/thread-self/net/dev"))
}

/// Whether this `/proc/net/dev` shows `lo`, all its counters at zero, and nothing else.
fn has_idle_loopback_only(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else { return false };
    let mut interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let (Some((name, counters)), None) = (interfaces.next(), interfaces.next()) else { return false };
    name.trim() == "lo" && counters.split_whitespace().all(|counter| counter == "0") && text.ends_with('\n')
}

/// Keeps `namespace` at `path` after its last process and descriptor, until that is unmounted.
///
/// # Errors
/// [`SandboxError::Host`] with the path.
pub fn pin(namespace: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed =
        |errno: rustix::io::Errno| SandboxError::host("keep the network namespace at", path)(errno.into());
    rustix::fs::open(path, flags, Mode::RUSR).map_err(failed)?;
    let source = format!("/proc/self/fd/{}", namespace.as_raw_fd());
    rustix::mount::mount_bind(source, path).map_err(failed)
}

/// The namespace pinned at `path`, if one is.
pub fn pinned(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let namespace = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    let filesystem = rustix::fs::fstatfs(&namespace).ok()?;
    (filesystem.f_type as u64 == NSFS_MAGIC).then_some(namespace)
}

#[cfg(test)]
mod tests {
    use super::has_idle_loopback_only;

    const HEAD: &str =
        "Inter-|   Receive                    |  Transmit\n face |bytes    packets errs|bytes\n";

    #[test]
    fn only_a_loopback_that_carried_nothing_is_idle() {
        let idle = format!("{HEAD}    lo:       0       0    0    0\n");
        assert!(has_idle_loopback_only(idle.as_bytes()));
        for used in [
            format!("{HEAD}    lo:      84       1    0    0\n"),
            format!("{HEAD}    lo:       0       0    0    0\n  eth0:       0       0    0    0\n"),
            format!("{HEAD}  eth0:       0       0    0    0\n"),
            format!("{HEAD}    lo:       0       0"), // cut off
            HEAD.to_owned(),
            String::new(),
        ] {
            assert!(!has_idle_loopback_only(used.as_bytes()), "{used}");
        }
    }
}
