//! What a peer of an Exec or an Attach asks for: input, sizes of its terminal, signals.

use std::os::fd::BorrowedFd;
use std::pin::Pin;

use celda_api::cell::v1;
use celda_api::cell::v1::exec_request::Message as Asked;
use futures_util::{Stream, StreamExt as _};
use rustix::process::Signal;
use tonic::{Code, Status};

use super::fds::Writable;
use crate::sandbox::{TerminalSize, resize};

/// Bytes of one message of input.
const INPUT_BYTES_MAX: usize = 64 << 10;
/// What a terminal takes for the end of input (termios(3), `VEOF`).
const END_OF_INPUT: u8 = 4;

/// What a peer says; nothing for a message that this version does not know, and an error for one that ends the stream.
pub(super) type Requests<'a> = Pin<Box<dyn Stream<Item = Result<Option<Asked>, Status>> + Send + 'a>>;

/// What a peer is told whose message could not be read. That it is too large is the same wherever that is found out.
pub(super) fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::invalid_argument(status.message()),
        _ => status,
    }
}

/// A size as the kernel takes it.
pub(super) fn terminal_size(size: &v1::TerminalSize) -> TerminalSize {
    let number = |value: u32| u16::try_from(value).unwrap_or(u16::MAX);
    TerminalSize { rows: number(size.rows), columns: number(size.columns) }
}

/// Does what the peer asks for, until it asks for no more and all its input is written; a program whose peer will say no
/// more keeps its standard input as it is.
///
/// # Errors
/// `INVALID_ARGUMENT` for a message that is too large, and those of `requests`: the stream's end, as what follows would
/// come without what was before it.
pub(super) async fn feed(
    pidfd: BorrowedFd<'_>,
    terminal: Option<BorrowedFd<'_>>,
    mut input: Option<Writable>,
    mut requests: Requests<'_>,
) -> Result<(), Status> {
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
        match message? {
            Some(Asked::Input(bytes)) if bytes.len() > INPUT_BYTES_MAX => {
                let why = format!(
                    "{} bytes of input in one message: at most {INPUT_BYTES_MAX} are possible, send several",
                    bytes.len()
                );
                return Err(Status::invalid_argument(why));
            }
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
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use futures_util::stream;
    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use super::*;

    /// The longest that a test waits for what must come.
    const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

    /// What becomes of a peer that says this, and what its program has read by then.
    fn fed(said: Vec<Result<Option<Asked>, Status>>) -> (Result<(), Status>, Vec<u8>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
            let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).expect("a pidfd");
            let input = Some(Writable::new(write).expect("made"));
            let fed = feed(pidfd.as_fd(), None, input, Box::pin(stream::iter(said)));
            let fed = tokio::time::timeout(DEADLINE, fed).await.expect("it ends");
            let mut bytes = vec![0; 2 * INPUT_BYTES_MAX];
            let count = rustix::io::read(&read, bytes.as_mut_slice()).unwrap_or(0);
            bytes.truncate(count);
            (fed, bytes)
        })
    }

    #[test]
    fn input_that_is_too_large_ends_the_stream_with_why() {
        let input = |count: usize| Ok(Some(Asked::Input(vec![b'x'; count])));
        let end = || Ok(Some(Asked::EndOfInput(true)));
        let (fine, read) = fed(vec![input(INPUT_BYTES_MAX), Ok(None), end()]);
        assert!(fine.is_ok() && read.len() == INPUT_BYTES_MAX, "{fine:?}: {} bytes", read.len());
        let (refused, _) = fed(vec![input(INPUT_BYTES_MAX + 1), end()]);
        let refused = refused.expect_err("it is too large");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains("at most 65536"), "{refused}");
        let found_before = unreadable(Status::out_of_range("decoded message length too large"));
        let (refused, _) = fed(vec![Err(found_before), end()]);
        assert_eq!(refused.expect_err("as far too large").code(), Code::InvalidArgument);
    }
}
