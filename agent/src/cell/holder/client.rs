//! The agent's side of the holder.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::message::{Answer, Ask, Ended, VERSION};
use super::socket::{Connection, Packet};
use crate::cell::error::{CellError, Result};

/// How long a new holder has to listen.
const BEGIN_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked for meanwhile.
const BEGIN_POLL: Duration = Duration::from_millis(2);
/// Bytes of the holder's log, which has panics only; beyond it begins anew.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// A connection to the holder, for one thread.
#[derive(Debug)]
pub struct Holder {
    connection: Connection,
}

/// A container that the holder has.
#[derive(Debug)]
pub struct Running {
    /// Of its first process, on the host.
    pub pid: i32,
    /// Its first process.
    pub pidfd: OwnedFd,
    /// What it writes to standard output; the holder has another descriptor of it.
    pub output: OwnedFd,
    /// And to standard error.
    pub error: OwnedFd,
    /// What it reads, if it reads anything: the end of a pipe, or the master of its terminal.
    pub input: Option<OwnedFd>,
}

/// News of the containers.
#[derive(Debug)]
pub enum News {
    /// One that was there before.
    There {
        /// Its id.
        id: String,
        /// Its descriptors.
        running: Running,
        /// What it was started from, see [`Body`](super::Body).
        body: OwnedFd,
        /// Its end, if it has ended.
        ended: Option<Ended>,
    },
    /// One that ended.
    Ended {
        /// Its id.
        id: String,
        /// How.
        ended: Ended,
    },
}

/// A connection that brings news.
#[derive(Debug)]
pub struct Attending {
    holder: Holder,
}

/// What is handed over with a start.
#[derive(Debug)]
pub struct Handed<'a> {
    /// Spec and filter.
    pub body: BorrowedFd<'a>,
    /// The detached mount of the root.
    pub rootfs: BorrowedFd<'a>,
    /// The writable layer's lock.
    pub lock: BorrowedFd<'a>,
    /// The image's lease.
    pub lease: BorrowedFd<'a>,
    /// The network namespace, unless it is the host's.
    pub network: Option<BorrowedFd<'a>>,
    /// With a reaper as process 1.
    pub init: bool,
    /// With a standard input.
    pub input: bool,
}

/// What came of a start: it runs, with the microseconds to clone3 and to execve; or Docker's status, and why not.
pub type Started = std::result::Result<(Running, [u64; 2]), (u8, String)>;

impl Holder {
    /// Connects to the holder in `directory`, if there is one.
    ///
    /// # Errors
    /// [`CellError::Holder`] when it is of another version, or not right.
    pub fn connect(directory: &Path) -> Result<Option<Self>> {
        let connection = match Connection::connect(&directory.join("holder.sock")) {
            Ok(connection) => connection,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(CellError::io("connect to the holder in", directory)(error)),
        };
        let holder = Self { connection };
        match holder.ask(&Ask::Hello { version: VERSION }, &[]) {
            Ok(Packet { message: Answer::Hello { version: VERSION }, .. }) => Ok(Some(holder)),
            Ok(Packet { message: Answer::Hello { version }, .. }) => Err(CellError::Holder {
                what: "greet the holder",
                why: format!(
                    "it speaks version {version}, this agent {VERSION}: drain the cell with the celda that started it"
                ),
            }),
            Ok(_) => Err(unexpected("greet the holder")),
            // It ended between the connection and the answer.
            Err(_) => Ok(None),
        }
    }

    /// Connects to the holder in `directory`, and starts one with `program` when there is none.
    ///
    /// # Errors
    /// [`CellError::Holder`], [`CellError::Io`].
    pub fn connect_or_start(directory: &Path, program: &Path) -> Result<Self> {
        let deadline = Instant::now() + BEGIN_WAIT;
        let mut child = None;
        loop {
            if let Some(holder) = Self::connect(directory)? {
                return Ok(holder);
            }
            let has_ended = match &mut child {
                None => true,
                Some(child) => std::process::Child::try_wait(child).is_ok_and(|ended| ended.is_some()),
            };
            if Instant::now() > deadline {
                let why = format!("it does not listen; see {}", directory.join("holder.log").display());
                return Err(CellError::Holder { what: "start the holder", why });
            }
            if has_ended {
                // An old one may be at its end and hold the lock yet: then ours ends, and another is tried.
                child = Some(start(directory, program)?);
            }
            std::thread::sleep(BEGIN_POLL);
        }
    }

    /// Starts a container.
    ///
    /// # Errors
    /// [`CellError::Holder`] when the holder is gone: whether the container runs is then known by the next one only.
    pub fn start(&self, id: &str, handed: &Handed<'_>) -> Result<Started> {
        let mut fds = vec![handed.body, handed.rootfs, handed.lock, handed.lease];
        fds.extend(handed.network);
        let ask = Ask::Start { id: id.to_owned(), init: handed.init, input: handed.input };
        let Packet { message, mut fds } = self.ask(&ask, &fds)?;
        match message {
            Answer::Started { pid, cloned_us, executed_us } => {
                let input = if fds.len() > 3 { fds.pop() } else { None };
                let [pidfd, output, error] =
                    Packet::<Answer>::take(fds).map_err(gone("start a container"))?;
                Ok(Ok((Running { pid, pidfd, output, error, input }, [cloned_us, executed_us])))
            }
            Answer::Failed { status, why } => Ok(Err((status, why))),
            _ => Err(unexpected("start a container")),
        }
    }

    /// Kills all processes of a container.
    ///
    /// # Errors
    /// [`CellError::Holder`] when the holder is gone.
    pub fn kill(&self, id: &str) -> Result<()> {
        self.done(&Ask::Kill { id: id.to_owned() }, "kill a container")
    }

    /// Lets go of a container; one that runs is killed.
    ///
    /// # Errors
    /// [`CellError::Holder`] when the holder is gone.
    pub fn forget(&self, id: &str) -> Result<()> {
        self.done(&Ask::Forget { id: id.to_owned() }, "let go of a container")
    }

    /// Says what there is; news comes by the answer from then on.
    ///
    /// # Errors
    /// [`CellError::Holder`] when the holder is gone.
    pub fn attend(self) -> Result<(Vec<News>, Attending)> {
        self.connection.send(&Ask::Attend, &[]).map_err(gone("attend to the holder"))?;
        let attending = Attending { holder: self };
        let mut all = Vec::new();
        while let Some(news) = attending.receive()? {
            all.push(news);
        }
        Ok((all, attending))
    }

    fn done(&self, ask: &Ask, what: &'static str) -> Result<()> {
        match self.ask(ask, &[])?.message {
            Answer::Done => Ok(()),
            _ => Err(unexpected(what)),
        }
    }

    fn ask(&self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<Packet<Answer>> {
        self.connection.send(ask, fds).map_err(gone("ask the holder"))?;
        self.receive()
    }

    fn receive(&self) -> Result<Packet<Answer>> {
        let received = self.connection.receive().map_err(gone("hear from the holder"))?;
        received.ok_or_else(|| {
            gone("hear from the holder")(io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended"))
        })
    }
}

impl Attending {
    /// The next news; `None` when all that was there before has been told.
    ///
    /// # Errors
    /// [`CellError::Holder`] when the holder is gone.
    pub fn receive(&self) -> Result<Option<News>> {
        let Packet { message, mut fds } = self.holder.receive()?;
        match message {
            Answer::There { id, pid, ended } => {
                let input = if fds.len() > 4 { fds.pop() } else { None };
                let [pidfd, output, error, body] =
                    Packet::<Answer>::take(fds).map_err(gone("take over a container"))?;
                Ok(Some(News::There {
                    id,
                    running: Running { pid, pidfd, output, error, input },
                    body,
                    ended,
                }))
            }
            Answer::Ended { id, ended } => Ok(Some(News::Ended { id, ended })),
            Answer::All => Ok(None),
            _ => Err(unexpected("hear of containers")),
        }
    }

    /// The socket, to be shut down from another thread.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.holder.connection.as_fd()
    }
}

fn start(directory: &Path, program: &Path) -> Result<std::process::Child> {
    let log: PathBuf = directory.join("holder.log");
    if std::fs::metadata(&log).is_ok_and(|facts| facts.len() > LOG_BYTES_MAX) {
        let _ = std::fs::remove_file(&log);
    }
    let file = std::fs::OpenOptions::new().append(true).create(true).open(&log);
    let file = file.map_err(CellError::io("open the log of the holder,", &log))?;
    let mut command = Command::new(program);
    command.arg("holder").arg(directory).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    command.spawn().map_err(CellError::io("start the holder with", program))
}

fn gone(what: &'static str) -> impl FnOnce(io::Error) -> CellError {
    move |error| CellError::Holder { what, why: format!("{error}; `celda agent` starts a new one") }
}

fn unexpected(what: &'static str) -> CellError {
    CellError::Holder { what, why: "its answer is to another question; it is of another version".into() }
}
