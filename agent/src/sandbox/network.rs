//! Network namespaces made beforehand: making one waits for the kernel longer than all else in a start together.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rustix::fs::{Mode, OFlags};

use super::error::{Result, SandboxError};
use crate::sys;

/// Namespaces that a pool may keep ready.
pub const POOL_COUNT_MAX: usize = 1024;

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

/// A few network namespaces, kept ready by a thread of their own.
#[derive(Debug)]
pub struct NetworkNamespaces {
    ready: Receiver<Result<OwnedFd>>,
}

impl NetworkNamespaces {
    /// Keeps up to `count` namespaces ready (1 to [`POOL_COUNT_MAX`]; about twice as many as start at one time).
    /// The thread ends, and what is ready goes away, when the pool is dropped.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] when no thread can be had.
    pub fn new(count: usize) -> Result<Self> {
        // One more is held by the thread that waits to hand it over.
        let (sender, ready) = sync_channel(count.clamp(1, POOL_COUNT_MAX) - 1);
        let thread = std::thread::Builder::new().name("celda-netns-pool".to_owned());
        thread
            .spawn(move || fill(&sender))
            .map_err(SandboxError::parent("start a thread for the network pool"))?;
        Ok(Self { ready })
    }

    /// A namespace that nobody else has, with nothing but `lo`, which is up; waits while none is ready.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] when the kernel does not give one.
    pub fn take(&self) -> Result<OwnedFd> {
        self.ready.recv().unwrap_or_else(|_| {
            let gone = std::io::Error::other("the pool's thread has ended");
            Err(SandboxError::parent("take a network namespace")(gone))
        })
    }
}

fn fill(ready: &SyncSender<Result<OwnedFd>>) {
    // Each unshare leaves the one before behind, which lives on in its descriptor.
    while ready.send(make()).is_ok() {}
}

/// Moves the calling thread into a new network namespace and opens it.
fn make() -> Result<OwnedFd> {
    let failed = SandboxError::parent("make a network namespace");
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
    sys::loopback_up().map_err(SandboxError::parent("bring lo up in a new network namespace"))?;
    let path = "/proc/thread-self/ns/net";
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| SandboxError::host("open the new network namespace", path)(errno.into()))
}
