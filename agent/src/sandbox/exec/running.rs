//! A program that runs in a container.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::Signal;

use crate::sandbox::container::{Pipes, Timings};
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::exit::{self, Exit};

/// A program that was started in a container. Dropped before its end was seen, it is killed, and reaped by a thread of its
/// own: a child that nobody reaps would keep its container from ending, and one that is slow to die, as a large one or
/// one that waits for a disk, must not hold up whoever drops it.
#[derive(Debug)]
pub struct Exec {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    terminal: Option<OwnedFd>,
    pipes: Pipes,
    timings: Timings,
    exit: Option<Exit>,
}

impl Exec {
    pub(super) fn new(
        pid: i32,
        pidfd: OwnedFd,
        terminal: Option<OwnedFd>,
        pipes: Pipes,
        timings: Timings,
    ) -> Self {
        Self { pid, pidfd: Arc::new(pidfd), terminal, pipes, timings, exit: None }
    }

    /// Its process id in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The master of its terminal, if it has one.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_ref().map(AsFd::as_fd)
    }

    /// The other ends of its standard files; take them out to close them.
    pub fn pipes(&mut self) -> &mut Pipes {
        &mut self.pipes
    }

    /// Where the time of its start went.
    pub fn timings(&self) -> Timings {
        self.timings
    }

    /// `int pidfd_send_signal(...)`, see pidfd_send_signal(2). One that has ended is no error.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] with `EPERM` when the caller may not.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        match rustix::process::pidfd_send_signal(&*self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(SandboxError::parent("signal the program")(errno.into())),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] when the kernel does not let us wait.
    pub fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = self.exit.clone() {
            return Ok(exit);
        }
        let exit = exit::wait(self.pidfd.as_fd())?;
        self.exit = Some(exit.clone());
        Ok(exit)
    }

    /// Its end, if that has come.
    ///
    /// # Errors
    /// As [`Exec::wait`].
    pub fn try_wait(&mut self) -> Result<Option<Exit>> {
        if self.exit.is_none() {
            self.exit = exit::try_wait(self.pidfd.as_fd())?;
        }
        Ok(self.exit.clone())
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if self.exit.is_some() || self.kill(Signal::KILL).is_err() || !matches!(self.try_wait(), Ok(None)) {
            return; // what was not started by this process, or is reaped already, is nobody's to wait for
        }
        let pidfd = Arc::clone(&self.pidfd);
        let reap = move || drop(exit::wait(pidfd.as_fd()));
        if std::thread::Builder::new().name("celda-reap".to_owned()).spawn(reap).is_err() {
            let _ = self.wait(); // no thread is to be had: better to wait than to leave it
        }
    }
}
