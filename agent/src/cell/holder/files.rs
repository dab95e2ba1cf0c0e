//! Standard files of a container: pipes, or a terminal whose bytes are brought into a pipe.
//!
//! ```text
//! without a terminal:  input  <── pipe, or /dev/null         output, error ──> pipes
//! with one:            input  <── master ──────────────┐
//!                      output, error ──> master ──relay (a thread)──> the pipe of output
//! ```
//! So a log is made of pipes in either case, and a terminal goes on while no agent is there: its bytes wait in the pipe,
//! and its programs for that.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;

use crate::sandbox::{Container, Stdio, TerminalSize};

/// The size of a terminal that nobody has looked at yet: the usual one.
const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };
/// Bytes that are relayed at once; a terminal's own buffer has 4 KiB.
const RELAY_BYTES: usize = 16 << 10;
/// How long an end is not told while the last of a terminal is relayed: a pipe that nobody empties must not hold it.
const RELAY_WAIT: Duration = Duration::from_secs(2);
/// How often a terminal is looked at that no program has open.
const CLOSED_POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The holder's ends, and what the container is started with.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) output: OwnedFd,
    pub(super) error: OwnedFd,
    /// What the container reads: a pipe's end, or its terminal's master, if it reads anything.
    pub(super) input: Option<OwnedFd>,
    /// Where the terminal's bytes go, until they are relayed.
    relay_to: Option<OwnedFd>,
}

/// Says when a terminal's last byte is in its pipe.
#[derive(Debug)]
pub(super) struct Relayed(Receiver<()>);

impl Relayed {
    /// Waits for that, but not for long.
    pub(super) fn wait(self) {
        let _ = self.0.recv_timeout(RELAY_WAIT);
    }
}

impl Files {
    /// Makes them.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub(super) fn new(has_terminal: bool, has_input: bool) -> io::Result<(Self, Stdio)> {
        let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        let ((output, output_in), (error, error_in)) = (pipe()?, pipe()?);
        if has_terminal {
            // Nobody writes to standard error: its pipe has ended.
            let files = Self { output, error, input: None, relay_to: Some(output_in) };
            return Ok((files, Stdio::Terminal(SIZE)));
        }
        let (read, input) = if has_input {
            let (read, write) = pipe()?;
            (read, Some(write))
        } else {
            (rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?, None)
        };
        let files = Self { output, error, input, relay_to: None };
        Ok((files, Stdio::Files([read, output_in, error_in])))
    }

    /// Takes the terminal of the container that was started, if it has one, and relays it from now on.
    ///
    /// # Errors
    /// `EMFILE`, and `EAGAIN` when there is no thread.
    pub(super) fn begin(&mut self, container: &Container) -> io::Result<Option<Relayed>> {
        let (Some(to), Some(master)) = (self.relay_to.take(), container.terminal()) else { return Ok(None) };
        let from = master.try_clone_to_owned()?;
        let pidfd = container.pidfd().try_clone_to_owned()?;
        self.input = Some(master.try_clone_to_owned()?);
        let (done, relayed) = channel::<()>();
        std::thread::Builder::new().name("terminal".into()).spawn(move || {
            if let Err(errno) = relay(&from, &to, &pidfd) {
                eprintln!("celda holder: relay a terminal: {errno}");
            }
            drop(done); // which says so
        })?;
        Ok(Some(Relayed(relayed)))
    }
}

/// Brings bytes from the master into the pipe until the container has ended and all that it wrote is there, or nobody has
/// the pipe's other end.
fn relay(from: &OwnedFd, to: &OwnedFd, pidfd: &OwnedFd) -> rustix::io::Result<()> {
    let mut buffer = vec![0; RELAY_BYTES];
    loop {
        // Before the read: what is written before the end is there then.
        let has_ended = is_ready(pidfd, PollFlags::IN, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        match rustix::io::read(from, buffer.as_mut_slice()) {
            Ok(count @ 1..) => {
                let mut rest = buffer.get(..count).unwrap_or_default();
                while !rest.is_empty() {
                    match rustix::io::write(to, rest) {
                        Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                        Err(Errno::INTR) => {}
                        Err(Errno::PIPE) => return Ok(()),
                        Err(errno) => return Err(errno),
                    }
                }
            }
            Err(Errno::INTR) => {}
            // Agents that write to it made it so that it does not block.
            Err(Errno::AGAIN) if !has_ended => {
                let mut fds = [PollFd::new(from, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
                match poll(&mut fds, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            // No program has it open: for now, or for good.
            Ok(_) | Err(Errno::IO) if !has_ended => {
                is_ready(pidfd, PollFlags::IN, Some(&CLOSED_POLL))?;
            }
            Ok(_) | Err(Errno::IO | Errno::AGAIN) => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
}

fn is_ready(fd: &OwnedFd, flags: PollFlags, wait: Option<&Timespec>) -> rustix::io::Result<bool> {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), flags)];
    match poll(&mut fds, wait) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(errno),
    }
}
