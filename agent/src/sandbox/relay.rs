//! A container in the foreground: signals go in, the terminal's bytes go both ways, until it ends.
//!
//! ```text
//! signalfd --SIGWINCH--> size of the terminal       stdin (raw) --> master   (one buffer, filled when empty)
//!     `----the others--> container                  master -------> stdout   (drained to the end after the exit)
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::{OptionalActions, Termios, Winsize};

use super::container::Container;
use super::error::{Result, SandboxError};
use super::exit::Exit;
use super::request::TerminalSize;

/// Bytes that are read at once; a terminal's own buffer has 4 KiB.
const BUFFER_BYTES: usize = 16 * 1024;
/// So many interrupts that a container ignores end it.
const INTERRUPTS_COUNT_MAX: u32 = 3;
/// What a terminal takes for the end of input (termios(3), `VEOF`).
const END_OF_INPUT: u8 = 4;

/// Signals that are the container's business rather than ours.
const FORWARDED: [NixSignal; 13] = [
    NixSignal::SIGHUP,
    NixSignal::SIGINT,
    NixSignal::SIGQUIT,
    NixSignal::SIGUSR1,
    NixSignal::SIGUSR2,
    NixSignal::SIGALRM,
    NixSignal::SIGTERM,
    NixSignal::SIGCONT,
    NixSignal::SIGWINCH,
    NixSignal::SIGIO,
    NixSignal::SIGPWR,
    NixSignal::SIGVTALRM,
    NixSignal::SIGPROF,
];

/// The signals of this process, kept for a container from before its start on.
#[derive(Debug)]
pub struct Foreground {
    signals: SignalFd,
    before: SigSet,
}

impl Foreground {
    /// Holds back the signals that are to be forwarded, on the calling thread: to be called before
    /// [`Plan::start`](super::Plan::start), while there is no other thread that could take them.
    ///
    /// # Errors
    /// [`SandboxError::Parent`].
    pub fn new() -> Result<Self> {
        let failed = |errno: nix::Error| SandboxError::parent("hold signals back")(errno.into());
        let all: SigSet = FORWARDED.into_iter().collect();
        let before = SigSet::thread_get_mask().map_err(failed)?;
        all.thread_block().map_err(failed)?;
        let signals = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
        Ok(Self { signals: signals.map_err(failed)?, before })
    }

    /// Stays with the container until it ends. With a terminal, bytes are relayed between it and `input` (none: the
    /// container reads nothing) and `output`, with `input` in raw mode if it is a terminal.
    ///
    /// # Errors
    /// [`SandboxError::Parent`] and those of [`Container::wait`].
    pub fn attend(
        self,
        container: Container,
        input: Option<BorrowedFd<'_>>,
        output: BorrowedFd<'_>,
    ) -> Result<Exit> {
        let master = container.terminal().map(|master| master.try_clone_to_owned()).transpose();
        let master = master.map_err(SandboxError::parent("copy the terminal"))?;
        let raw = match (&master, input) {
            (Some(_), Some(input)) => RawMode::enter(input)?,
            _ => None,
        };
        let mut relay = Relay { master, input, output, pending: Vec::new(), interrupts_count: 0 };
        relay.prepare()?;
        while relay.turn(&container, &self.signals)? {}
        relay.drain();
        drop(raw);
        container.wait()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}

/// The size of a terminal, if `fd` is one.
pub fn terminal_size(fd: BorrowedFd<'_>) -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(fd).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Tells a terminal its size; its foreground program gets SIGWINCH.
///
/// # Errors
/// [`SandboxError::Parent`] when it is no terminal.
pub fn resize(terminal: BorrowedFd<'_>, size: TerminalSize) -> Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(failed("resize the terminal"))
}

fn failed(action: &'static str) -> impl Fn(Errno) -> SandboxError {
    move |errno| SandboxError::Parent { action, source: errno.into() }
}

/// A terminal in raw mode until dropped.
struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    fn enter(input: BorrowedFd<'_>) -> Result<Option<Self>> {
        if !rustix::termios::isatty(input) {
            return Ok(None);
        }
        let before = rustix::termios::tcgetattr(input).map_err(failed("read the terminal's modes"))?;
        let terminal = input.try_clone_to_owned().map_err(SandboxError::parent("copy the terminal"))?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(input, OptionalActions::Now, &raw)
            .map_err(failed("set the terminal's modes"))?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

struct Relay<'a> {
    master: Option<OwnedFd>,
    input: Option<BorrowedFd<'a>>,
    output: BorrowedFd<'a>,
    /// Read from `input`, not yet taken by the terminal.
    pending: Vec<u8>,
    interrupts_count: u32,
}

impl Relay<'_> {
    fn prepare(&self) -> Result<()> {
        let Some(master) = &self.master else { return Ok(()) };
        rustix::io::ioctl_fionbio(master, true).map_err(failed("prepare the terminal"))
    }

    /// Waits for something to do and does it; false when the container has ended.
    fn turn(&mut self, container: &Container, signals: &SignalFd) -> Result<bool> {
        let pidfd = container.pidfd();
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        if let Some(master) = &self.master {
            let out = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(master, PollFlags::IN | out));
            if let (Some(input), true) = (&self.input, self.pending.is_empty()) {
                fds.push(PollFd::new(input, PollFlags::IN));
            }
        }
        match poll(&mut fds, None) {
            Err(Errno::INTR) => return Ok(true),
            answer => answer.map_err(failed("wait for the container"))?,
        };
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        let event = |index: usize| events.get(index).copied().unwrap_or(PollFlags::empty());
        if event(1).contains(PollFlags::IN) {
            self.forward(container, signals)?;
        }
        if event(2).intersects(PollFlags::IN) && !self.output_some() {
            self.master = None; // nobody has the other side open; the exit follows
        }
        if event(2).contains(PollFlags::OUT) {
            self.feed();
        }
        if !event(3).is_empty() {
            self.read_input();
        }
        if event(2).contains(PollFlags::HUP) && !event(2).contains(PollFlags::IN) {
            self.master = None;
        }
        Ok(event(0).is_empty())
    }

    fn forward(&mut self, container: &Container, signals: &SignalFd) -> Result<()> {
        while let Ok(Some(info)) = signals.read_signal() {
            let Ok(signal) = NixSignal::try_from(info.ssi_signo as i32) else { continue };
            if let (NixSignal::SIGWINCH, Some(master)) = (signal, &self.master) {
                if let Some(size) = self.input.and_then(terminal_size).or_else(|| terminal_size(self.output))
                {
                    resize(master.as_fd(), size)?;
                }
                continue;
            }
            let is_interrupt = matches!(signal, NixSignal::SIGINT | NixSignal::SIGTERM);
            self.interrupts_count += u32::from(is_interrupt);
            let signal = if self.interrupts_count >= INTERRUPTS_COUNT_MAX && is_interrupt {
                Signal::KILL // process 1 without a handler of its own never hears the others
            } else {
                Signal::from_named_raw(signal as i32).unwrap_or(Signal::TERM)
            };
            container.kill(signal)?;
        }
        Ok(())
    }

    /// Moves what the terminal has to the output; false at its end.
    fn output_some(&mut self) -> bool {
        let Some(master) = &self.master else { return false };
        let mut buffer = [0; BUFFER_BYTES];
        match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(Errno::IO) => false,
            Ok(count) => {
                let mut rest = buffer.get(..count).unwrap_or_default();
                while !rest.is_empty() {
                    match rustix::io::write(self.output, rest) {
                        Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                        Err(Errno::INTR) => {}
                        // Whoever else has the output open may have made it non-blocking: wait as write(2) would.
                        Err(Errno::AGAIN) => {
                            let _ = poll(&mut [PollFd::new(&self.output, PollFlags::OUT)], None);
                        }
                        Err(_) => break, // the reader is gone; the container need not be
                    }
                }
                true
            }
            Err(_) => true,
        }
    }

    fn read_input(&mut self) {
        let Some(input) = self.input else { return };
        let mut buffer = [0; BUFFER_BYTES];
        match rustix::io::read(input, &mut buffer) {
            Ok(0) => {
                self.input = None;
                self.pending.push(END_OF_INPUT);
            }
            Ok(count) => self.pending.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.input = None,
        }
    }

    fn feed(&mut self) {
        let Some(master) = &self.master else { return };
        if let Ok(count) = rustix::io::write(master, &self.pending) {
            self.pending.drain(..count.min(self.pending.len()));
        }
    }

    /// Moves what the container wrote before its end.
    fn drain(&mut self) {
        loop {
            let Some(master) = &self.master else { return };
            let mut fds = [PollFd::new(master, PollFlags::IN)];
            let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
            let ready = poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0);
            if !ready || !self.output_some() {
                return;
            }
        }
    }
}
