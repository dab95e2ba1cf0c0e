//! `celda exec`: a further program in a running instance, with this terminal if it is to have one.

use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use celda_api::cell::v1;
use celda_api::cell::v1::exec_request::Message as Asked;
use celda_api::cell::v1::exec_response::Message as Told;
use rustix::termios::{OptionalActions, Termios};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tonic::Code;

use super::cell::Client;
use super::cell_args::ExecArgs;
use super::context::Context;
use super::{EXIT_FAILED, output};
use crate::cell::CellError;
use crate::sandbox::terminal_size;
use crate::{Error, Result};

/// Bytes of input in one message.
const CHUNK_BYTES: usize = 16 << 10;
/// Messages on their way.
const MESSAGES_COUNT: usize = 4;
/// Docker's statuses of a command that cannot be executed, and of one that is not there.
const EXIT_CANNOT_EXECUTE: u8 = 126;
const EXIT_NOT_FOUND: u8 = 127;

/// Runs it, and gives its exit status, or Docker's for a failure of celda's own.
pub(super) fn main(context: &Context, args: &ExecArgs) -> ExitCode {
    super::ended(run(context, args))
}

fn run(context: &Context, args: &ExecArgs) -> Result<u8> {
    if args.tty && args.interactive && !io::stdin().is_terminal() {
        let reason = "standard input is not a terminal; leave out -t (or -i)".into();
        return Err(Error::Argument { what: "-t".into(), reason });
    }
    let client = Client::connect(context, &args.cell)?;
    let (sender, requests) = mpsc::channel(MESSAGES_COUNT);
    let mut start = start(args)?;
    start.id = client.resolve(&[start.id])?.remove(0);
    let first = v1::ExecRequest { message: Some(Asked::Start(start)) };
    let closed = |_| CellError::Call { what: "run a program".into(), why: "its stream is closed".into() };
    sender.try_send(first).map_err(closed)?;
    let _raw = args.tty.then(Raw::new).flatten();
    if args.tty {
        client.runtime().spawn(resizes(sender.clone()));
    }
    // Kept, so that the stream does not end, unless input says when it does.
    let _sender = if args.interactive {
        std::thread::spawn(move || input(&sender));
        None
    } else {
        let _ = sender.try_send(v1::ExecRequest { message: Some(Asked::EndOfInput(true)) });
        Some(sender)
    };
    let mut status = None;
    let ended = client.exec(requests, |answer| match answer.message {
        Some(Told::Output(bytes)) => show(&mut io::stdout(), &bytes),
        Some(Told::Error(bytes)) => show(&mut io::stderr(), &bytes),
        Some(Told::Exit(exit)) => status = Some(u8::try_from(exit.status).unwrap_or(EXIT_FAILED)),
        Some(Told::Started(_)) | None => {}
    });
    match (ended, status) {
        (Ok(()), Some(status)) => Ok(status),
        (Ok(()), None) => {
            let why = "the cell ended before the program did".into();
            Err(CellError::Call { what: "run a program".into(), why }.into())
        }
        (Err(refused), _) => {
            let error = CellError::Call { what: "run a program".into(), why: refused.message().to_owned() };
            output::complain(&error);
            Ok(match refused.code() {
                Code::NotFound => EXIT_NOT_FOUND,
                Code::PermissionDenied => EXIT_CANNOT_EXECUTE,
                _ => EXIT_FAILED,
            })
        }
    }
}

fn start(args: &ExecArgs) -> Result<v1::ExecStart> {
    let Some((id, command)) = args.id_and_command.split_first().filter(|(_, command)| !command.is_empty())
    else {
        let reason = "say what to run: celda exec ID COMMAND".into();
        return Err(Error::Argument { what: "COMMAND".into(), reason });
    };
    Ok(v1::ExecStart {
        id: id.clone(),
        command: command.to_vec(),
        env: args.env.clone(),
        workdir: args.workdir.clone(),
        terminal: args.tty.then(size),
    })
}

/// The size of the terminal here; the usual one where there is none.
pub(super) fn size() -> v1::TerminalSize {
    let size = terminal_size(io::stdout().as_fd()).or_else(|| terminal_size(io::stdin().as_fd()));
    size.map_or(v1::TerminalSize { rows: 24, columns: 80 }, |size| v1::TerminalSize {
        rows: size.rows.into(),
        columns: size.columns.into(),
    })
}

/// Tells of each new size of the terminal.
async fn resizes(sender: mpsc::Sender<v1::ExecRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        if sender.send(v1::ExecRequest { message: Some(Asked::Resize(size())) }).await.is_err() {
            return;
        }
    }
}

/// Sends standard input, and its end.
fn input(sender: &mpsc::Sender<v1::ExecRequest>) {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let message = match io::stdin().read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => Asked::EndOfInput(true),
            Ok(count) => Asked::Input(buffer.get(..count).unwrap_or_default().to_vec()),
        };
        let is_last = matches!(message, Asked::EndOfInput(_));
        if sender.blocking_send(v1::ExecRequest { message: Some(message) }).is_err() || is_last {
            return;
        }
    }
}

/// A reader that went away is the program's business no more than ours.
pub(super) fn show(to: &mut impl io::Write, bytes: &[u8]) {
    let _ = to.write_all(bytes).and_then(|()| to.flush());
}

/// The terminal in raw mode, until dropped.
pub(super) struct Raw(Termios);

impl Raw {
    pub(super) fn new() -> Option<Self> {
        let stdin = io::stdin();
        let before = rustix::termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(&stdin, OptionalActions::Flush, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
