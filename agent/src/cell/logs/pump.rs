//! The thread that serves the pipes of all logs.
//!
//! ```text
//! epoll (edge-triggered) ─> pipes with news ─> look at each ─> those with more, again
//!   ^                                                             |
//!   '── until the tick, unless a pipe is filling  <── partial lines, notices, stalled files that are due
//! ```

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::error::{LogsError, Result};
use super::files::Files;
use super::mark::{InFlight, Mark};
use super::rate::{Bucket, Rate};
use super::source::{Counts, Log, Shared, Source, Totals, check_name};
use super::stalled::Stalled;
use super::writer::{Look, Scratch, Writer};
use super::{LOGS_COUNT_MAX, NOTICE_INTERVAL, PARTIAL_WAIT, RETRY_WAIT, TICK};

/// Events that are fetched at once.
const EVENTS_COUNT: usize = 1024;
/// The event of the wake-up; the others are a log's number and its stream's.
const WAKE: u64 = u64::MAX;
/// A look that took so much says that its pipe fills faster than the tick.
const BUSY_BYTES: usize = 16 << 10;

/// Where logs are kept.
#[derive(Clone, Debug)]
pub struct LogsOptions {
    /// The directory of all logs; each has one of its own in it.
    pub root: PathBuf,
    /// Where what need not outlive the machine is kept, a megabyte or two of it: a tmpfs.
    pub run: PathBuf,
}

#[derive(Debug)]
enum Command {
    Add(Box<Writer>, Option<Rate>),
    /// Take what is in the pipes, and let them go: of this log, and not of another one that has its name by now.
    Finish(Arc<Shared>),
    /// Let the pipes go.
    Discard(String),
    Stop,
}

#[derive(Debug, Default)]
struct Queue {
    commands: Vec<Command>,
    names: HashSet<String>,
}

/// What callers and the thread share.
#[derive(Debug)]
struct Inbox {
    queue: Mutex<Queue>,
    wake: OwnedFd,
    /// Cuts the thread's pause short.
    hurry: OwnedFd,
}

impl Inbox {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, command: Command) -> Result<()> {
        // The end of an instance is shown when its log is finished. A new log's pipes can wait.
        let hurry = matches!(command, Command::Finish(_)).then_some(&self.hurry);
        self.queue().commands.push(command);
        [Some(&self.wake), hurry].into_iter().flatten().try_for_each(|event| {
            let written = rustix::io::write(event, &1_u64.to_ne_bytes()).map(drop);
            written.map_err(LogsError::kernel("wake the logs' thread"))
        })
    }
}

/// All logs of a cell. Dropped, it ends its thread and leaves what is in the pipes there.
#[derive(Debug)]
pub struct Logs {
    root: PathBuf,
    inbox: Arc<Inbox>,
    in_flight: Mutex<Option<InFlight>>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Logs {
    /// Starts the thread. One process at a time may have a `run` directory.
    ///
    /// # Errors
    /// [`LogsError::Held`], [`LogsError::Io`], [`LogsError::Kernel`].
    pub fn start(options: LogsOptions) -> Result<Self> {
        let LogsOptions { root, run } = options;
        for directory in [&root, &run] {
            std::fs::create_dir_all(directory).map_err(LogsError::io("make", directory))?;
        }
        let (mark, in_flight) = Mark::open(&run)?;
        let event = || {
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .map_err(LogsError::kernel("make an eventfd"))
        };
        let inbox = Arc::new(Inbox { queue: Mutex::default(), wake: event()?, hurry: event()? });
        let pump = Pump::new(Arc::clone(&inbox), mark)?;
        let thread = std::thread::Builder::new()
            .name("celda-logs".to_owned())
            .spawn(move || pump.run())
            .map_err(LogsError::kernel("start the logs' thread"))?;
        let (in_flight, counts) = (Mutex::new(in_flight), Arc::default());
        Ok(Self { root, inbox, in_flight, counts, thread: Some(thread) })
    }

    /// Counts of all logs.
    pub fn totals(&self) -> Totals {
        self.counts.totals()
    }

    /// Begins to write a log, or goes on with one that was written before.
    ///
    /// # Errors
    /// [`LogsError::Name`], [`LogsError::Limit`], [`LogsError::Attached`], [`LogsError::Io`], [`LogsError::Kernel`],
    /// [`LogsError::Ended`]. Nothing was taken from the pipes.
    pub fn attach(&self, source: Source) -> Result<Log> {
        let Source { name, app, rate, limits, is_prompt, output, error } = source;
        check_name(&name)?;
        let limits = limits.check()?;
        {
            let mut queue = self.inbox.queue();
            if queue.names.len() >= LOGS_COUNT_MAX {
                return Err(LogsError::Limit { what: "logs", why: "65,536 are being written" });
            }
            if !queue.names.insert(name.clone()) {
                return Err(LogsError::Attached { name });
            }
        }
        let free = |error| {
            self.inbox.queue().names.remove(&name);
            error
        };
        let open = || {
            let (files, tail) = Files::open(&self.root.join(&name), limits, now_ns())?;
            let mut writer =
                Writer::new(name.clone(), app, files, tail, [output, error], Arc::clone(&self.counts));
            writer.is_prompt = is_prompt;
            writer.prepare()?;
            let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(told) = in_flight.as_ref().filter(|told| told.name == name) {
                writer.settle(told, now_ns())?;
                *in_flight = None; // not before: what could not be settled is when the log is asked for again
            }
            Ok(writer)
        };
        let writer = open().map_err(free)?;
        let log = Log { directory: writer.directory().to_owned(), shared: Arc::clone(&writer.shared) };
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(free(LogsError::Ended));
        }
        self.inbox.send(Command::Add(Box::new(writer), rate)).map_err(free)?;
        Ok(log)
    }

    /// Takes what is in a log's pipes now, and lets the pipes go; [`Log::ended`] says when that is done, which takes as
    /// long as nothing can be written. For an instance that has ended while something else holds its pipes.
    ///
    /// # Errors
    /// [`LogsError::Kernel`].
    pub fn finish(&self, log: &Log) -> Result<()> {
        self.inbox.send(Command::Finish(Arc::clone(&log.shared)))
    }

    /// Lets a log's pipes go as they are. For an instance that is forgotten.
    ///
    /// # Errors
    /// [`LogsError::Kernel`].
    pub fn discard(&self, name: &str) -> Result<()> {
        self.inbox.send(Command::Discard(name.to_owned()))
    }

    /// Removes a log that is not being written, with all its segments. One that is not there is no error.
    ///
    /// # Errors
    /// [`LogsError::Name`], [`LogsError::Attached`], [`LogsError::Io`].
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let queue = self.inbox.queue(); // held, so that nobody attaches it meanwhile
        if queue.names.contains(name) {
            return Err(LogsError::Attached { name: name.to_owned() });
        }
        let directory = self.root.join(name);
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LogsError::io("remove the log", &directory)(error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && self.inbox.send(Command::Stop).is_ok()
        {
            let _ = thread.join(); // a panic there was printed there
        }
    }
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// The thread's own.
struct Pump {
    inbox: Arc<Inbox>,
    epoll: OwnedFd,
    mark: Mark,
    scratch: Scratch,
    next_number: u64,
    writers: HashMap<u64, Writer>,
    /// The buckets of apps, and how many logs of each there are.
    buckets: HashMap<String, (Option<Bucket>, usize)>,
    /// Streams with more in them, with part of a line, of stalled files: these are read when they are tried again, and at
    /// no news before that.
    again: Vec<u64>,
    partial: Vec<u64>,
    stalled: Stalled,
    dropping: Vec<u64>,
    is_busy: bool,
}

impl Pump {
    fn new(inbox: Arc<Inbox>, mark: Mark) -> Result<Self> {
        let failed = LogsError::kernel::<Errno>;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed("make an epoll"))?;
        epoll::add(&epoll, inbox.wake.as_fd(), EventData::new_u64(WAKE), EventFlags::IN)
            .map_err(failed("watch an eventfd"))?;
        Ok(Self {
            inbox,
            epoll,
            mark,
            scratch: Scratch::new()?,
            next_number: 0,
            writers: HashMap::new(),
            buckets: HashMap::new(),
            again: Vec::new(),
            partial: Vec::new(),
            stalled: Stalled::default(),
            dropping: Vec::new(),
            is_busy: false,
        })
    }

    fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS_COUNT);
        loop {
            let looked_at = Instant::now();
            events.clear();
            let wait =
                self.wait().map(|wait| Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) });
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "the logs' thread cannot wait; it ends");
                    return;
                }
            }
            self.is_busy = false;
            let mut is_woken = false;
            for event in &events {
                match event.data.u64() {
                    WAKE => is_woken = true,
                    key => self.news(key, event.flags),
                }
            }
            if is_woken && !self.obey() {
                return;
            }
            self.due();
            if !self.is_busy && self.again.is_empty() && !is_woken {
                self.pause(TICK.saturating_sub(looked_at.elapsed()));
            }
        }
    }

    /// Lets lines gather in their pipes, as long as nobody is in a hurry.
    fn pause(&self, pause: Duration) {
        let pause = Timespec { tv_sec: 0, tv_nsec: i64::from(pause.subsec_nanos()) };
        let mut hurry = [PollFd::new(&self.inbox.hurry, PollFlags::IN)];
        let _ = poll(&mut hurry, Some(&pause)); // what is wanted is read with the next events
    }

    /// How long nothing is due; forever when nothing is waited for. Below a second.
    fn wait(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let is_waiting = !(self.partial.is_empty() && self.stalled.is_empty() && self.dropping.is_empty());
        is_waiting.then_some(PARTIAL_WAIT.min(RETRY_WAIT).min(NOTICE_INTERVAL) / 2)
    }

    fn news(&mut self, key: u64, flags: EventFlags) {
        let pipe =
            self.writers.get_mut(&(key >> 1)).and_then(|writer| writer.pipes[(key & 1) as usize].as_mut());
        if let Some(pipe) = pipe {
            pipe.has_hung_up |= flags.contains(EventFlags::HUP);
            if !self.stalled.has(key) {
                self.look(key, false);
            }
        }
    }

    fn look(&mut self, key: u64, flush: bool) {
        let (number, stream) = (key >> 1, (key & 1) as usize);
        let Some(writer) = self.writers.get_mut(&number) else { return };
        let mut none = None;
        let bucket = self.buckets.get_mut(&writer.app).map_or(&mut none, |(bucket, _)| bucket);
        let look = writer.look(stream, flush, bucket, (&mut self.scratch, &mut self.mark), now_ns());
        if writer.pipes[stream].as_ref().is_some_and(|pipe| pipe.partial_since_ns.is_some())
            && !self.partial.contains(&key)
        {
            self.partial.push(key);
        }
        if writer.is_dropping() && !self.dropping.contains(&number) {
            self.dropping.push(number);
        }
        match look {
            Look::Done(bytes) => self.is_busy |= bytes >= BUSY_BYTES,
            Look::More(_) => self.again.push(key),
            Look::Stalled => self.stalled.push(key, Instant::now() + RETRY_WAIT),
            Look::Ended => self.close(key),
        }
    }

    fn close(&mut self, key: u64) {
        let Some(writer) = self.writers.get_mut(&(key >> 1)) else { return };
        if let Some(pipe) = writer.close((key & 1) as usize) {
            // The registration is the open pipe's: it would outlive this descriptor where somebody holds another.
            let _ = epoll::delete(&self.epoll, &pipe.fd);
        }
        if !writer.has_ended() {
            return;
        }
        writer.notice(true, &mut self.scratch, now_ns());
        let Some(writer) = self.writers.remove(&(key >> 1)) else { return };
        if let Some((_, count)) = self.buckets.get_mut(&writer.app) {
            *count -= 1;
            if *count == 0 {
                self.buckets.remove(&writer.app);
            }
        }
        // First: whoever hears of the end may take the log up again.
        self.inbox.queue().names.remove(&writer.name);
        writer.end();
    }

    /// Takes the commands; false for the end.
    fn obey(&mut self) -> bool {
        let mut count = [0; 8];
        for event in [&self.inbox.wake, &self.inbox.hurry] {
            let _ = rustix::io::read(event, &mut count);
        }
        let commands = std::mem::take(&mut self.inbox.queue().commands);
        for command in commands {
            match command {
                Command::Stop => return false,
                Command::Add(writer, rate) => self.add(*writer, rate),
                Command::Finish(log) => {
                    let is_it = |writer: &Writer| Arc::ptr_eq(&writer.shared, &log);
                    self.keys(is_it).into_iter().flatten().for_each(|key| self.drain(key));
                }
                Command::Discard(name) => {
                    self.keys(|writer| writer.name == name)
                        .into_iter()
                        .flatten()
                        .for_each(|key| self.close(key));
                }
            }
        }
        true
    }

    /// The streams of a log.
    fn keys(&self, is_it: impl Fn(&Writer) -> bool) -> Option<[u64; 2]> {
        let found = self.writers.iter().find(|(_, writer)| is_it(writer));
        found.map(|(number, _)| [number << 1, number << 1 | 1])
    }

    fn add(&mut self, writer: Writer, rate: Option<Rate>) {
        let number = self.next_number;
        self.next_number += 1;
        let bucket = || (rate.map(|rate| Bucket::new(rate, now_ns())), 0);
        self.buckets.entry(writer.app.clone()).or_insert_with(bucket).1 += 1;
        let mut failed = Vec::new();
        for (stream, pipe) in writer.pipes.iter().enumerate() {
            let key = number << 1 | stream as u64;
            let Some(pipe) = pipe else { continue };
            // Also tells at once of what is in there.
            if let Err(errno) =
                epoll::add(&self.epoll, &pipe.fd, EventData::new_u64(key), EventFlags::IN | EventFlags::ET)
            {
                tracing::error!(log = writer.name, %errno, "a pipe cannot be watched; what comes through it is lost");
                failed.push(key);
            }
        }
        let is_empty = writer.has_ended();
        self.dropping.extend(writer.is_dropping().then_some(number));
        self.writers.insert(number, writer);
        for key in failed.into_iter().chain(is_empty.then_some(number << 1)) {
            self.close(key);
        }
    }

    /// Takes what is in a pipe, to its end or until it is empty, and closes it; later, where it cannot be written now.
    fn drain(&mut self, key: u64) {
        /// What a pipe can hold by default, and a little more: a writer that goes on is not waited for.
        const LOOKS_MAX: usize = 8;
        let writer = self.writers.get_mut(&(key >> 1));
        if let Some(pipe) = writer.and_then(|writer| writer.pipes[(key & 1) as usize].as_mut()) {
            pipe.is_finishing = true;
        }
        for _ in 0..LOOKS_MAX {
            self.again.retain(|other| *other != key);
            self.stalled.remove(key);
            self.look(key, true);
            if self.stalled.has(key) {
                return;
            }
            if !self.again.contains(&key) {
                break;
            }
        }
        self.close(key);
    }

    /// Tries a stream again whose file could not be written.
    fn retry(&mut self, key: u64) {
        let writer = self.writers.get(&(key >> 1));
        let pipe = writer.and_then(|writer| writer.pipes[(key & 1) as usize].as_ref());
        match pipe {
            Some(pipe) if pipe.is_finishing => self.drain(key),
            _ => self.look(key, false),
        }
    }

    /// What has waited long enough.
    fn due(&mut self) {
        let mut again = std::mem::take(&mut self.again);
        again.sort_unstable();
        again.dedup(); // news may have put it there once more
        for key in again {
            self.look(key, false);
        }
        let now = now_ns();
        for key in std::mem::take(&mut self.partial) {
            let pipe =
                self.writers.get(&(key >> 1)).and_then(|writer| writer.pipes[(key & 1) as usize].as_ref());
            let Some(since) = pipe.and_then(|pipe| pipe.partial_since_ns) else { continue };
            let is_due = now.saturating_sub(since) >= PARTIAL_WAIT.as_nanos() as u64;
            if is_due && !self.stalled.has(key) {
                self.look(key, true);
            } else {
                self.partial.push(key);
            }
        }
        for key in self.stalled.take_due(Instant::now()) {
            self.retry(key);
        }
        for number in std::mem::take(&mut self.dropping) {
            let Some(writer) = self.writers.get_mut(&number) else { continue };
            writer.notice(false, &mut self.scratch, now);
            if writer.is_dropping() {
                self.dropping.push(number);
            }
        }
    }
}

#[cfg(test)]
mod tests;
