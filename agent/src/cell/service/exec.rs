//! The stream of `Exec`: a program in a running container, its bytes both ways, its end.
//!
//! ```text
//! ExecStart ──> core: pidfd, spec ──> sandbox::exec (a blocking thread) ──> started
//! input, resize, signal ──> pipe or terminal       output, error <── pipes or terminal, a chunk for each message taken
//! the peer is gone ──> killed                      exit <── pidfd, after what was written until then
//! ```

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::exec_request::Message as Asked;
use celda_api::cell::v1::exec_response::Message as Told;
use futures_util::stream;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tonic::{Status, Streaming};

use super::streams::{Stream, place};
use super::{CALL_DEADLINE, Service};
use crate::cell::core::{Call, Entrance};
use crate::cell::holder::Body;
use crate::sandbox::exec::{Exec, Target, process_of, start};
use crate::sandbox::{SandboxError, Stdio, TerminalSize, resize};

/// Arguments and variables of one program.
const WORDS_COUNT_MAX: usize = 1024;
/// Bytes of one message of input or output.
const CHUNK_BYTES: usize = 64 << 10;
/// Messages made before the peer takes one.
const MESSAGES_COUNT: usize = 2;
/// How long output is waited for after the program's end: what it left behind may keep the pipes open for ever.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// What a terminal takes for the end of input (termios(3), `VEOF`).
const END_OF_INPUT: u8 = 4;

type Sender = mpsc::Sender<Result<v1::ExecResponse, Status>>;

/// Opens the stream: its first message says what to run.
///
/// # Errors
/// `INVALID_ARGUMENT`, `FAILED_PRECONDITION` when the instance does not run, `NOT_FOUND` for the program,
/// `RESOURCE_EXHAUSTED`.
pub(super) async fn open(
    service: &Service,
    mut requests: Streaming<v1::ExecRequest>,
) -> Result<Stream<v1::ExecResponse>, Status> {
    let place = place(service)?;
    let first = tokio::time::timeout(CALL_DEADLINE, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no start came"))??;
    let Some(Asked::Start(wanted)) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message of an Exec is a start"));
    };
    check(&wanted)?;
    let id = wanted.id.clone();
    let entrance = service.ask(|answer| Call::Enter { id, answer }).await?;
    let entrance = entrance.map_err(Status::failed_precondition)?;
    let inner = Arc::clone(&service.0);
    let begin = move || begin(&inner.ground.hierarchy, &entrance, &wanted);
    let exec = tokio::task::spawn_blocking(begin).await;
    let exec = exec
        .map_err(|_| Status::internal("starting a program panicked"))?
        .map_err(|error| refused(&error))?;
    let (sender, receiver) = mpsc::channel(MESSAGES_COUNT);
    tokio::spawn(attend(exec, requests, sender, place));
    let next = |mut receiver: mpsc::Receiver<_>| async move { Some((receiver.recv().await?, receiver)) };
    Ok(Box::pin(stream::unfold(receiver, next)))
}

fn check(wanted: &v1::ExecStart) -> Result<(), Status> {
    let v1::ExecStart { command, env, terminal, .. } = wanted;
    let wrong = |why: &str| Err(Status::invalid_argument(why));
    if !(1..=WORDS_COUNT_MAX).contains(&command.len()) || env.len() > WORDS_COUNT_MAX {
        return wrong("a command has 1 to 1024 words, and at most 1024 variables");
    }
    if command.iter().chain(env).any(|word| word.contains('\0')) || wanted.workdir.contains('\0') {
        return wrong("a word has a NUL byte");
    }
    if terminal.is_some_and(|size| size.rows.max(size.columns) > u32::from(u16::MAX)) {
        return wrong("a terminal has at most 65535 rows and columns");
    }
    Ok(())
}

fn refused(error: &SandboxError) -> Status {
    match error {
        SandboxError::NotFound { .. } => Status::not_found(error.to_string()),
        SandboxError::CannotExecute { .. } => Status::permission_denied(error.to_string()),
        _ => Status::failed_precondition(error.to_string()),
    }
}

fn begin(
    hierarchy: &crate::sandbox::cgroup::Hierarchy,
    entrance: &Entrance,
    wanted: &v1::ExecStart,
) -> Result<Exec, SandboxError> {
    let Body { spec, seccomp } = Body::read(&*entrance.body)
        .map_err(|source| SandboxError::Parent { action: "read the instance's spec", source })?;
    let mut process = process_of(&spec, wanted.command.clone())?;
    let mut env = process.env().clone().unwrap_or_default();
    for variable in wanted.env.iter().filter(|variable| variable.contains('=')) {
        let name = variable.split_once('=').map_or("", |(name, _)| name);
        env.retain(|known| known.split_once('=').is_none_or(|(known, _)| known != name));
        env.push(variable.clone());
    }
    process.set_env(Some(env));
    if !wanted.workdir.is_empty() {
        process.set_cwd(wanted.workdir.clone().into());
    }
    let cgroup = hierarchy.group(&entrance.container)?;
    let target = Target {
        pidfd: entrance.pidfd.as_fd(),
        cgroup: Some(&cgroup),
        spec: &spec,
        seccomp: seccomp.as_deref(),
    };
    let stdio = wanted.terminal.map_or(Stdio::Pipes, |size| Stdio::Terminal(terminal_size(&size)));
    start(&target, &process, stdio)
}

fn terminal_size(size: &v1::TerminalSize) -> TerminalSize {
    let number = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    TerminalSize { rows: number(size.rows), columns: number(size.columns) }
}

/// Stays with the program until its end, or its peer's.
async fn attend(
    exec: Exec,
    requests: Streaming<v1::ExecRequest>,
    sender: Sender,
    _place: OwnedSemaphorePermit,
) {
    let told = match stay(exec, requests, &sender).await {
        Ok(Some(status)) => Ok(v1::ExecResponse { message: Some(Told::Exit(v1::ExecExit { status })) }),
        Ok(None) => Err(Status::cancelled("the peer is gone")),
        Err(error) => Err(Status::internal(format!("attend to a program: {error}"))),
    };
    let _ = sender.send(told).await;
}

async fn stay(
    mut exec: Exec,
    requests: Streaming<v1::ExecRequest>,
    sender: &Sender,
) -> io::Result<Option<u32>> {
    let pid = u32::try_from(exec.pid()).unwrap_or(0);
    let started = v1::ExecResponse { message: Some(Told::Started(v1::ExecStarted { pid })) };
    if sender.send(Ok(started)).await.is_err() {
        return Ok(None);
    }
    let pidfd = exec.pidfd().try_clone_to_owned()?;
    let terminal = exec.terminal().map(|master| master.try_clone_to_owned()).transpose()?;
    let pipes = std::mem::take(exec.pipes());
    let copy = || terminal.as_ref().map(OwnedFd::try_clone).transpose();
    let (input, output) = match &terminal {
        Some(_) => (copy()?, copy()?),
        None => (pipes.input, pipes.output),
    };
    // Dropped, it tells the readers to leave what is not there yet.
    let (until, stop) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let until = Arc::new(until);
    let readers = [
        reader(output, Told::Output, Arc::clone(&until), sender.clone())?,
        reader(pipes.error, Told::Error, until, sender.clone())?,
    ];
    // A thread of its own: its end is awaited there, and dropped without it, it is killed and reaped there.
    let mut ended = on_thread("exec-wait", move || exec.wait())?;
    let mut feeding = Box::pin(feed(&pidfd, input, terminal.as_ref(), requests));
    let mut is_fed = false;
    let exit = loop {
        tokio::select! {
            ended = &mut ended => break ended,
            () = &mut feeding, if !is_fed => is_fed = true,
            () = sender.closed() => {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
                return Ok(None);
            }
        }
    };
    drop(feeding);
    let read = futures_util::future::join_all(readers);
    let _ = tokio::time::timeout(DRAIN_WAIT, read).await;
    drop(stop);
    let exit = exit.map_err(io::Error::other)?.map_err(io::Error::other)?;
    Ok(Some(u32::from(exit.status())))
}

/// Runs something that blocks on a thread of its own: there may be more of them than the runtime's pool has.
fn on_thread<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<oneshot::Receiver<T>> {
    let (done, is_done) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    thread.spawn(move || {
        let _ = done.send(run());
    })?;
    Ok(is_done)
}

/// Brings what comes out of `from` to the peer, on a thread, until its end or that of `until`.
fn reader(
    from: Option<OwnedFd>,
    told: fn(Vec<u8>) -> Told,
    until: Arc<OwnedFd>,
    sender: Sender,
) -> io::Result<oneshot::Receiver<()>> {
    on_thread("exec-output", move || {
        let Some(from) = from else { return };
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let mut fds = [PollFd::new(&from, PollFlags::IN), PollFd::new(&*until, PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) if fds[0].revents().is_empty() => return,
                Ok(_) => {}
            }
            // EIO: the last one closed the terminal's other side.
            let Ok(count) = rustix::io::retry_on_intr(|| rustix::io::read(&from, &mut buffer)) else {
                return;
            };
            let bytes = buffer.get(..count).unwrap_or_default().to_vec();
            let message = v1::ExecResponse { message: Some(told(bytes)) };
            if count == 0 || sender.blocking_send(Ok(message)).is_err() {
                return;
            }
        }
    })
}

/// Writes what comes to `to`, on a thread: a program that does not read makes its peer wait, and nobody else.
fn writer(to: OwnedFd) -> io::Result<mpsc::Sender<Vec<u8>>> {
    let (send, mut receive) = mpsc::channel::<Vec<u8>>(MESSAGES_COUNT);
    let _ended_by_itself = on_thread("exec-input", move || {
        while let Some(bytes) = receive.blocking_recv() {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                match rustix::io::retry_on_intr(|| rustix::io::write(&to, rest)) {
                    Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                    Err(_) => return, // the program closed it
                }
            }
        }
    })?;
    Ok(send)
}

/// Does what the peer asks for, until it asks for no more.
async fn feed(
    pidfd: &OwnedFd,
    input: Option<OwnedFd>,
    terminal: Option<&OwnedFd>,
    mut requests: Streaming<v1::ExecRequest>,
) {
    let mut input = input.and_then(|input| writer(input).ok());
    while let Ok(Some(request)) = requests.message().await {
        match request.message {
            Some(Asked::Input(bytes)) => {
                if let Some(to) = &input {
                    let _ = to.send(bytes).await;
                }
            }
            Some(Asked::EndOfInput(true)) => match (&input, terminal) {
                (Some(to), Some(_)) => drop(to.send(vec![END_OF_INPUT]).await),
                _ => input = None,
            },
            Some(Asked::Resize(size)) => {
                if let Some(master) = terminal {
                    let _ = resize(master.as_fd(), terminal_size(&size));
                }
            }
            Some(Asked::Signal(number)) => {
                let signal = i32::try_from(number).ok().and_then(Signal::from_named_raw);
                if let Some(signal) = signal {
                    let _ = rustix::process::pidfd_send_signal(pidfd, signal);
                }
            }
            Some(Asked::EndOfInput(false) | Asked::Start(_)) | None => {}
        }
    }
    // A peer that will say no more leaves a program its standard input as it is.
    if input.is_some() {
        std::future::pending::<()>().await;
    }
}
