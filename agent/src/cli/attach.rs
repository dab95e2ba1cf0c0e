//! `celda attach`: this terminal, or standard files, joined to a running instance's.

use std::io::{self, IsTerminal as _, Read as _};
use std::process::ExitCode;

use celda_api::cell::v1;
use celda_api::cell::v1::attach_request::Message as Asked;
use celda_api::cell::v1::attach_response::Message as Told;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::cell::Client;
use super::cell_args::AttachArgs;
use super::context::Context;
use super::exec::{Raw, show, size};
use super::{EXIT_FAILED, output};
use crate::Result;
use crate::cell::CellError;

/// Bytes of input in one message.
const CHUNK_BYTES: usize = 16 << 10;
/// Messages on their way.
const MESSAGES_COUNT: usize = 4;
/// Docker's keys to leave a terminal: ctrl-p, ctrl-q.
const DETACH_KEYS: [u8; 2] = [0x10, 0x11];

/// Stays attached, and gives the exit status of the instance's container; 0 when it was left.
pub(super) fn main(context: &Context, args: &AttachArgs) -> ExitCode {
    super::ended(run(context, args))
}

fn run(context: &Context, args: &AttachArgs) -> Result<u8> {
    let client = Client::connect(context, &args.cell)?;
    let (sender, requests) = mpsc::channel(MESSAGES_COUNT);
    let id = client.resolve(std::slice::from_ref(&args.id))?.remove(0);
    let terminal = io::stdout().is_terminal().then(size);
    let start = v1::AttachRequest { message: Some(Asked::Start(v1::AttachStart { id, terminal })) };
    let closed = |_| CellError::Call { what: "attach".into(), why: "its stream is closed".into() };
    sender.try_send(start).map_err(closed)?;
    let (leaves, left) = oneshot::channel();
    let mut leaves = Some(leaves);
    let (mut raw, mut status) = (None, None);
    let ended = client.attach(requests, left, |answer| match answer.message {
        Some(Told::Attached(v1::Attached { terminal, input: takes_input })) => {
            if terminal {
                raw = io::stdin().is_terminal().then(Raw::new).flatten();
                tokio::spawn(resizes(sender.clone()));
            } else {
                forward_signals(&sender);
            }
            let (sender, leaves) = (sender.clone(), leaves.take());
            if takes_input && !args.no_stdin {
                std::thread::spawn(move || input(&sender, terminal, leaves));
            }
        }
        Some(Told::Output(bytes)) => show(&mut io::stdout(), &bytes),
        Some(Told::Error(bytes)) => show(&mut io::stderr(), &bytes),
        Some(Told::Missed(count)) => output::complain(&format_args!("{count} lines were missed")),
        Some(Told::Exit(exit)) => status = Some(u8::try_from(exit.status).unwrap_or(EXIT_FAILED)),
        None => {}
    });
    drop(raw);
    let failed =
        |why: &str| CellError::Call { what: format!("attach to {}", args.id), why: why.to_owned() }.into();
    match (ended, status) {
        (Ok(_), Some(status)) => Ok(status),
        (Ok(true), None) => Ok(0),
        (Ok(false), None) => Err(failed("the cell ended; the instance goes on")),
        (Err(refused), _) => Err(failed(refused.message())),
    }
}

/// Tells of each new size of the terminal.
async fn resizes(sender: mpsc::Sender<v1::AttachRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        if sender.send(v1::AttachRequest { message: Some(Asked::Resize(size())) }).await.is_err() {
            return;
        }
    }
}

/// Without a terminal, the signals of this process are the instance's, as Docker has it.
fn forward_signals(sender: &mpsc::Sender<v1::AttachRequest>) {
    let kinds = [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::quit(),
        SignalKind::terminate(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ];
    for kind in kinds {
        let Ok(mut signals) = signal(kind) else { continue };
        let (sender, number) = (sender.clone(), u32::try_from(kind.as_raw_value()).unwrap_or_default());
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                let message = v1::AttachRequest { message: Some(Asked::Signal(number)) };
                if sender.send(message).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Sends standard input, and its end; or leaves, when a terminal's user says so.
fn input(sender: &mpsc::Sender<v1::AttachRequest>, has_terminal: bool, leaves: Option<oneshot::Sender<()>>) {
    let (mut buffer, mut keys) = (vec![0; CHUNK_BYTES], Keys::default());
    loop {
        let read = match io::stdin().read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(_) => &[],
        };
        let (bytes, wants_to_leave) = if has_terminal { keys.take(read) } else { (read.to_vec(), false) };
        let is_end = read.is_empty();
        let message = if is_end { Asked::EndOfInput(true) } else { Asked::Input(bytes) };
        let sent = sender.blocking_send(v1::AttachRequest { message: Some(message) });
        if wants_to_leave && let Some(leaves) = leaves {
            let _ = leaves.send(()); // it has ended by itself
            return;
        }
        if sent.is_err() || is_end {
            return;
        }
    }
}

/// How much of the keys to leave was typed.
#[derive(Debug, Default)]
struct Keys {
    typed_count: usize,
}

impl Keys {
    /// What is input of what was typed, and whether the keys are complete. The first of them is held back until the next
    /// one is there.
    fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut input = Vec::with_capacity(typed.len() + 1);
        for byte in typed {
            if DETACH_KEYS.get(self.typed_count) == Some(byte) {
                self.typed_count += 1;
                if self.typed_count == DETACH_KEYS.len() {
                    self.typed_count = 0;
                    return (input, true);
                }
                continue;
            }
            input.extend(DETACH_KEYS.iter().take(std::mem::take(&mut self.typed_count)));
            if *byte == DETACH_KEYS[0] {
                self.typed_count = 1;
            } else {
                input.push(*byte);
            }
        }
        (input, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_both_keys_in_a_row_leave() {
        let all = |typed: &[&[u8]]| {
            let (mut keys, mut input, mut left) = (Keys::default(), Vec::new(), false);
            for typed in typed {
                let (bytes, leaves) = keys.take(typed);
                input.extend(bytes);
                left |= leaves;
            }
            (input, left)
        };
        assert_eq!(all(&[b"ls\r"]), (b"ls\r".to_vec(), false));
        assert_eq!(all(&[b"a\x10\x11b"]), (b"a".to_vec(), true));
        assert_eq!(all(&[b"a\x10", b"\x11"]), (b"a".to_vec(), true));
        assert_eq!(all(&[b"\x10x", b"\x11"]), (b"\x10x\x11".to_vec(), false));
        assert_eq!(all(&[b"\x10\x10", b"\x11"]), (b"\x10".to_vec(), true));
    }
}
