//! The stream of `Exec`: a program in a running container, its bytes both ways, its end.
//!
//! ```text
//! ExecStart ──> core: pidfd, spec ──> sandbox::exec (a blocking thread) ──> started
//! input, resize, signal ──> pipe or terminal       output, error <── pipes or terminal, a chunk for each message taken
//! the peer is gone ──> killed                      exit <── pidfd, after what was written until then
//! ```
//! All of a stream is one task, which has its place: when that is free again, nothing of the stream is left. A peer that
//! takes nothing makes its program wait, and nobody else; when the program has ended, it has [`TAKE_WAIT`] for the rest.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::exec_request::Message as Asked;
use celda_api::cell::v1::exec_response::Message as Told;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::Instant;
use tonic::{Status, Streaming};

use super::fds::{Readable, Writable, ended};
use super::feed::{feed, terminal_size, unreadable};
use super::streams::{Stream, place};
use super::{CALL_DEADLINE, Service};
use crate::cell::core::{Call, Entrance};
use crate::cell::holder::Body;
use crate::sandbox::exec::{Exec, Target, process_of, start};
use crate::sandbox::{SandboxError, Stdio};

/// Arguments and variables of one program.
const WORDS_COUNT_MAX: usize = 1024;
/// Messages made before the peer takes one.
const MESSAGES_COUNT: usize = 2;
/// How long output is waited for after the program's end: what it left behind may keep the pipes open for ever.
const DRAIN_WAIT: Duration = Duration::from_secs(2);
/// How long a peer has to take what is left, and the exit, when the program has ended.
const TAKE_WAIT: Duration = Duration::from_secs(60);
/// Bytes that are taken of a pipe or terminal after that: more than either holds (pipe(7), `pipe-max-size`).
const LAST_BYTES_MAX: usize = 1 << 20;

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
    // With its place: a peer that goes away meanwhile does not make room for another start.
    let begin = move || (begin(&inner.ground.hierarchy, &entrance, &wanted), place);
    let begun = tokio::task::spawn_blocking(begin).await;
    let (exec, place) = begun.map_err(|_| Status::internal("starting a program panicked"))?;
    let exec = exec.map_err(|error| refused(&error))?;
    let (sender, receiver) = mpsc::channel(MESSAGES_COUNT);
    tokio::spawn(attend(exec, requests, sender, (place, service.0.closing.subscribe())));
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

/// Stays with the program until its end, or its peer's, or the agent's. Dropped with it, the program is killed.
async fn attend(
    exec: Exec,
    requests: Streaming<v1::ExecRequest>,
    sender: Sender,
    (_place, mut closing): (OwnedSemaphorePermit, watch::Receiver<bool>),
) {
    let told = tokio::select! {
        told = stay(exec, requests, &sender) => told,
        () = sender.closed() => return,
        _ = closing.wait_for(|closing| *closing) => Some(Err(Status::unavailable("the agent ends"))),
    };
    if let Some(told) = told {
        let _ = sender.send_timeout(told, TAKE_WAIT).await;
    }
}

/// The last message; none when the peer does not take what is before it. A peer that says what cannot be ends the stream,
/// and so its program.
async fn stay(
    exec: Exec,
    requests: Streaming<v1::ExecRequest>,
    sender: &Sender,
) -> Option<Result<v1::ExecResponse, Status>> {
    let failed = |error: io::Error| Some(Err(Status::internal(format!("attend to a program: {error}"))));
    match converse(exec, requests, sender).await {
        Ok(Some(told)) => Some(told.map(|message| v1::ExecResponse { message: Some(message) })),
        Ok(None) => None,
        Err(error) => failed(error),
    }
}

async fn converse(
    mut exec: Exec,
    requests: Streaming<v1::ExecRequest>,
    sender: &Sender,
) -> io::Result<Option<Result<Told, Status>>> {
    let pid = u32::try_from(exec.pid()).unwrap_or(0);
    let started = v1::ExecResponse { message: Some(Told::Started(v1::ExecStarted { pid })) };
    if sender.send(Ok(started)).await.is_err() {
        return Ok(None);
    }
    let terminal = exec.terminal().map(|master| master.try_clone_to_owned()).transpose()?;
    let pipes = std::mem::take(exec.pipes());
    let (input, output) = match &terminal {
        Some(master) => (Some(master.try_clone()?), Some(master.try_clone()?)),
        None => (pipes.input, pipes.output),
    };
    let outputs = [(output, Told::Output as fn(Vec<u8>) -> Told), (pipes.error, Told::Error)];
    // None while it runs; then when nothing more is waited for that it may have left behind.
    let (over, until) = watch::channel(None);
    let mut bringing = Vec::new();
    for (from, told) in outputs {
        let Some(from) = from else { continue };
        bringing.push(Box::pin(bring(Readable::new(from)?, told, until.clone(), sender)));
    }
    let mut bringing = futures_util::future::join_all(bringing);
    let input = input.map(Writable::new).transpose()?;
    {
        let terminal = terminal.as_ref().map(|master| master.as_fd());
        let asked = stream::unfold(requests, |mut requests| async {
            let message = requests.message().await.transpose()?;
            Some((message.map(|message| message.message).map_err(unreadable), requests))
        });
        let mut feeding = Box::pin(feed(exec.pidfd(), terminal, input, Box::pin(asked)));
        let mut end = Box::pin(ended(exec.pidfd()));
        let (mut is_fed, mut is_brought) = (false, false);
        loop {
            tokio::select! {
                ended = &mut end => break ended?,
                fed = &mut feeding, if !is_fed => match fed {
                    Ok(()) => is_fed = true,
                    Err(refused) => return Ok(Some(Err(refused))),
                },
                _ = &mut bringing, if !is_brought => is_brought = true,
            }
        }
        over.send_replace(Some(Instant::now() + DRAIN_WAIT));
        if !is_brought && tokio::time::timeout(TAKE_WAIT, &mut bringing).await.is_err() {
            return Ok(None);
        }
    }
    let exit = exec.wait().map_err(io::Error::other)?;
    Ok(Some(Ok(Told::Exit(v1::ExecExit { status: u32::from(exit.status()) }))))
}

/// Brings what comes out of `from` to the peer until its end, or until the time is over: then what is there yet.
async fn bring(
    mut from: Readable,
    told: fn(Vec<u8>) -> Told,
    mut until: watch::Receiver<Option<Instant>>,
    sender: &Sender,
) {
    let mut left_bytes = None;
    loop {
        let bytes = match &mut left_bytes {
            Some(0) => return,
            Some(_) => from.read_now(),
            None => tokio::select! {
                biased;
                () = over(&mut until) => {
                    left_bytes = Some(LAST_BYTES_MAX);
                    continue;
                }
                bytes = from.read() => bytes,
            },
        };
        let Some(bytes) = bytes else { return };
        left_bytes = left_bytes.map(|left: usize| left.saturating_sub(bytes.len()));
        let message = v1::ExecResponse { message: Some(told(bytes)) };
        if sender.send(Ok(message)).await.is_err() {
            return;
        }
    }
}

async fn over(until: &mut watch::Receiver<Option<Instant>>) {
    // An error means that the stream is dropped, and this with it.
    let at = until.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    tokio::time::sleep_until(at.unwrap_or_else(Instant::now)).await;
}
