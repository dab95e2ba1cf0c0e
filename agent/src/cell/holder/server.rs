//! The holder's process: a thread for each connection, one for all pidfds, a few that reap.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::body::Body;
use super::files::Files;
use super::message::{Answer, Ask, VERSION};
use super::socket::{self, Connection, Packet};
use super::table::{self, Entry, Table};
use crate::cell::error::{CellError, Result};
use crate::cell::words::bounded;
use crate::sandbox::cgroup::Hierarchy;
use crate::sandbox::{Request, SandboxError, Timings, plan};

/// Connections at once: the agent has one for each worker, and one that attends.
const CONNECTIONS_COUNT_MAX: u32 = 512;
/// Threads that wait for containers' ends: a cgroup that does not go holds one of them for two seconds.
const REAPERS_COUNT: usize = 4;
/// How long a holder without container and agent waits for one of them.
const IDLE_WAIT: Duration = Duration::from_secs(2);
/// How long nothing is tried again that took more than there was.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Pidfds looked at in one go.
const EVENTS_COUNT: usize = 256;

struct Server {
    table: Table,
    hierarchy: Hierarchy,
    epoll: OwnedFd,
    /// Containers by the number that epoll knows them by.
    watched: Mutex<std::collections::HashMap<u64, String>>,
    next_watch: AtomicU64,
    connections: AtomicU32,
    /// Wakes the thread that accepts.
    wake: OwnedFd,
}

/// Serves agents on `directory`/holder.sock until no container and no agent is left.
///
/// # Errors
/// [`CellError::Io`] when it cannot begin; [`CellError::Held`] when another holder is there.
pub fn serve(directory: &Path) -> Result<()> {
    let failed = |action| CellError::io(action, directory);
    // Not in the agent's session: a signal to its terminal is none to the containers.
    let _ = rustix::process::setsid();
    raise_files_limit();
    let path = directory.join("holder.lock");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let lock = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| CellError::io("open", &path)(errno.into()))?;
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(CellError::Held { path });
    }
    let hierarchy = Hierarchy::of_cell(directory)
        .map_err(|error| failed("find the cgroups of")(io::Error::other(error)))?;
    let socket_path = directory.join("holder.sock");
    let listener = socket::listen(&socket_path).map_err(failed("listen in"))?;
    let eventfd = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let server = Arc::new(Server {
        table: Table::default(),
        hierarchy,
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| failed("watch in")(errno.into()))?,
        watched: Mutex::default(),
        next_watch: AtomicU64::new(0),
        connections: AtomicU32::new(0),
        wake: eventfd().map_err(|errno| failed("watch in")(errno.into()))?,
    });
    server.clone().watch().map_err(failed("start threads in"))?;
    server.clone().accept_all(&listener).map_err(failed("accept in"))?;
    server.hierarchy.remove_parent();
    // Unlinked while the lock is held: the next holder's socket is not taken away.
    let _ = std::fs::remove_file(&socket_path);
    Ok(())
}

/// A few descriptors for each container: as many as are allowed.
pub fn raise_files_limit() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}

impl Server {
    /// The threads that learn of ends and reap.
    fn watch(self: Arc<Self>) -> io::Result<()> {
        let (ended, ends) = crossbeam_channel::unbounded::<String>(); // no more than there are containers
        for _ in 0..REAPERS_COUNT {
            let (server, ends) = (Arc::clone(&self), ends.clone());
            std::thread::Builder::new().name("reaper".into()).spawn(move || {
                for id in ends {
                    if let Some(container) = server.table.take(&id) {
                        server.table.ended(&id, table::reap(&id, container));
                        server.wake();
                    }
                }
            })?;
        }
        let server = self;
        std::thread::Builder::new().name("pidfds".into()).spawn(move || {
            let mut events = Vec::with_capacity(EVENTS_COUNT);
            loop {
                events.clear();
                let spare = rustix::buffer::spare_capacity(&mut events);
                match epoll::wait(&server.epoll, spare, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(errno) => {
                        eprintln!("celda holder: wait for pidfds: {errno}");
                        std::process::exit(1);
                    }
                }
                for event in &events {
                    let number = event.data.u64();
                    let id = server.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
                    if let Some(id) = id {
                        let _ = ended.send(id);
                    }
                }
            }
        })?;
        Ok(())
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Accepts until nobody is left.
    fn accept_all(self: Arc<Self>, listener: &OwnedFd) -> io::Result<()> {
        let idle_wait = Timespec { tv_sec: IDLE_WAIT.as_secs() as i64, tv_nsec: 0 };
        loop {
            let is_idle = self.connections.load(Ordering::SeqCst) == 0 && self.table.is_empty();
            let wait = is_idle.then_some(&idle_wait);
            let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)];
            let ready = match poll(&mut fds, wait) {
                Err(Errno::INTR) => continue,
                Err(errno @ (Errno::NOMEM | Errno::AGAIN)) => {
                    pause("wait for connections", &errno.into());
                    continue;
                }
                answer => answer?,
            };
            if ready == 0 {
                return Ok(());
            }
            let (accepts, is_woken) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if is_woken {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            if !accepts {
                continue;
            }
            let connection = match socket::accept(listener.as_fd()) {
                Ok(Some(connection)) => connection,
                Ok(None) => continue,
                // Of descriptors or memory there may be enough in a moment; of this process there is one.
                Err(error) => {
                    pause("accept a connection", &error);
                    continue;
                }
            };
            if self.connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_COUNT_MAX {
                self.connections.fetch_sub(1, Ordering::SeqCst);
                continue;
            }
            let server = Arc::clone(&self);
            let spawned = std::thread::Builder::new().name("agent".into()).spawn(move || {
                let connection = Arc::new(connection);
                if let Err(error) = server.attend(&connection) {
                    eprintln!("celda holder: {error}");
                }
                server.table.leave(&connection);
                drop(connection);
                server.connections.fetch_sub(1, Ordering::SeqCst);
                server.wake();
            });
            if let Err(error) = spawned {
                self.connections.fetch_sub(1, Ordering::SeqCst);
                pause("start a thread for a connection", &error);
            }
        }
    }

    /// Answers one connection until its end.
    fn attend(&self, connection: &Arc<Connection>) -> io::Result<()> {
        while let Some(Packet { message, fds }) = connection.receive::<Ask>()? {
            match message {
                Ask::Hello { version: _ } => connection.send(&Answer::Hello { version: VERSION }, &[])?,
                Ask::Start { id, init, input } => {
                    let starting = self.table.begin(&id);
                    if connection.is_closed() {
                        return Ok(()); // the agent died over it, and the next one may be here
                    }
                    let taken = || {
                        let source = io::Error::other(format!("{id} is there already"));
                        SandboxError::Parent { action: "start a container", source }
                    };
                    let started = match starting {
                        Some(starting) => self.start(&id, (init, input), fds).inspect(|_| drop(starting)),
                        None => Err(taken()),
                    };
                    match started {
                        Ok(started) => started.tell(connection)?,
                        Err(error) => {
                            let answer = Answer::Failed { status: error.status(), why: bounded(&error) };
                            connection.send(&answer, &[])?;
                        }
                    }
                }
                Ask::Kill { id } => {
                    self.table.kill(&id);
                    connection.send(&Answer::Done, &[])?;
                }
                Ask::Forget { id } => {
                    self.table.forget(&id);
                    connection.send(&Answer::Done, &[])?;
                }
                Ask::Attend => self.table.attend(connection)?,
            }
        }
        Ok(())
    }

    fn start(
        &self,
        id: &str,
        (init, input): (bool, bool),
        mut fds: Vec<OwnedFd>,
    ) -> std::result::Result<Started, SandboxError> {
        let parent = |action| move |source| SandboxError::Parent { action, source };
        let network = if fds.len() > 4 { fds.pop() } else { None };
        let [body, rootfs, lock, lease] =
            Packet::<Ask>::take(fds).map_err(parent("take a container's descriptors"))?;
        let Body { spec, seccomp } = Body::read(&body).map_err(parent("read a container's spec"))?;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let has_terminal =
            spec.process().as_ref().and_then(oci_spec::runtime::Process::terminal).unwrap_or(false);
        let (mut files, stdio) =
            Files::new(has_terminal, input).map_err(parent("make a container's standard files"))?;
        let cgroup = self.hierarchy.create(id, &resources)?;
        let request = Request {
            id: id.to_owned(),
            spec,
            rootfs,
            stdio,
            cgroup: Some(cgroup),
            network,
            seccomp,
            init,
            dies_with_caller: false,
        };
        let container = plan(request)?.start()?;
        let mut share = || -> io::Result<_> {
            let relayed = files.begin(&container)?;
            let pidfd = container.pidfd().try_clone_to_owned()?;
            let mut fds = vec![pidfd.try_clone()?, files.output.try_clone()?, files.error.try_clone()?];
            fds.extend(files.input.as_ref().map(OwnedFd::try_clone).transpose()?);
            Ok((relayed, pidfd, fds))
        };
        let (relayed, pidfd, fds) = match share() {
            Ok(shared) => shared,
            Err(source) => {
                table::discard(id, container); // nobody would know of it
                return Err(parent("copy a container's descriptors")(source));
            }
        };
        let Files { output, error, input, .. } = files;
        let Timings { cloned_us, executed_us, .. } = container.timings();
        let started = Started { pid: container.pid(), cloned_us, executed_us, fds };
        let entry = Entry {
            pid: container.pid(),
            pidfd,
            output,
            error,
            input,
            body,
            _locks: [lock, lease],
            container: Some((container, relayed)),
            ended: None,
            is_forgotten: false,
        };
        let watched = self.table.add(id, entry, |pidfd| self.watch_one(id, pidfd));
        watched.map_err(parent("watch a pidfd"))?;
        Ok(started)
    }

    fn watch_one(&self, id: &str, pidfd: &OwnedFd) -> io::Result<()> {
        let number = self.next_watch.fetch_add(1, Ordering::Relaxed);
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(number, id.to_owned());
        let data = epoll::EventData::new_u64(number);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        Ok(epoll::add(&self.epoll, pidfd, data, flags)?)
    }
}

fn pause(action: &str, error: &io::Error) {
    eprintln!("celda holder: {action}: {error}; containers go on");
    std::thread::sleep(RETRY_PAUSE);
}

struct Started {
    pid: i32,
    cloned_us: u64,
    executed_us: u64,
    fds: Vec<OwnedFd>,
}

impl Started {
    fn tell(&self, connection: &Connection) -> io::Result<()> {
        let Self { pid, cloned_us, executed_us, fds } = self;
        let answer = Answer::Started { pid: *pid, cloned_us: *cloned_us, executed_us: *executed_us };
        connection.send(&answer, &fds.iter().map(|fd| fd.as_fd()).collect::<Vec<_>>())
    }
}
