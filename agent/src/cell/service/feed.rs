//! What a peer of an Exec or an Attach asks for: input, sizes of its terminal, signals.

use std::os::fd::BorrowedFd;
use std::pin::Pin;

use celda_api::cell::v1;
use celda_api::cell::v1::exec_request::Message as Asked;
use futures_util::{Stream, StreamExt as _};
use rustix::process::Signal;

use super::fds::Writable;
use crate::sandbox::{TerminalSize, resize};

/// Bytes of one message of input.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// What a terminal takes for the end of input (termios(3), `VEOF`).
const END_OF_INPUT: u8 = 4;

/// What a peer says; nothing for a message that this version does not know.
pub(super) type Requests<'a> = Pin<Box<dyn Stream<Item = Option<Asked>> + Send + 'a>>;

/// A size as the kernel takes it.
pub(super) fn terminal_size(size: &v1::TerminalSize) -> TerminalSize {
    let number = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    TerminalSize { rows: number(size.rows), columns: number(size.columns) }
}

/// Does what the peer asks for, until it asks for no more and all its input is written; a program whose peer will say no
/// more keeps its standard input as it is.
pub(super) async fn feed(
    pidfd: BorrowedFd<'_>,
    terminal: Option<BorrowedFd<'_>>,
    mut input: Option<Writable>,
    mut requests: Requests<'_>,
) {
    loop {
        let request = match &mut input {
            // A program that does not read its input gets its signals all the same, until there is too much of it.
            Some(to) if to.is_full() => {
                to.write().await;
                continue;
            }
            Some(to) if !to.is_empty() => tokio::select! {
                request = requests.next() => request,
                () = to.write() => continue,
            },
            _ => requests.next().await,
        };
        if input.as_ref().is_some_and(Writable::is_over) {
            input = None;
        }
        let Some(message) = request else { break };
        match message {
            Some(Asked::Input(bytes)) if bytes.len() > INPUT_BYTES_MAX => break, // more than the API allows
            Some(Asked::Input(bytes)) => {
                if let Some(to) = &mut input {
                    to.push(bytes);
                }
            }
            Some(Asked::EndOfInput(true)) => match (&mut input, terminal) {
                (Some(to), Some(_)) => to.push(vec![END_OF_INPUT]),
                (Some(to), None) => to.close(),
                (None, _) => {}
            },
            Some(Asked::Resize(size)) => {
                if let Some(master) = terminal {
                    let _ = resize(master, terminal_size(&size));
                }
            }
            Some(Asked::Signal(number)) => {
                let signal = i32::try_from(number).ok().and_then(Signal::from_named_raw);
                if let Some(signal) = signal {
                    let _ = rustix::process::pidfd_send_signal(pidfd, signal); // it may have ended
                }
            }
            Some(Asked::EndOfInput(false) | Asked::Start(_)) | None => {}
        }
    }
    if let Some(to) = &mut input {
        while !to.is_empty() {
            to.write().await;
        }
        if !to.is_over() {
            std::future::pending::<()>().await;
        }
    }
}
