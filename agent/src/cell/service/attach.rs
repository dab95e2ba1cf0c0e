//! The stream of `Attach`: what a running instance writes from now on, and input for it.
//!
//! ```text
//! AttachStart ──> core: log, input, pidfd ──> attached
//! input, resize, signal ──> pipe or terminal            output, error <── a follower of the log
//!                                                       exit <── the container's end, when the log has ended
//! ```
//! What is written comes by the log, which is made whether somebody is attached or not: a peer that stalls falls behind
//! and is told what it missed, and neither the instance nor its log waits for it. A terminal's log is written without
//! waiting for the ends of lines, so a prompt is there at once.

use std::os::fd::AsFd as _;
use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::attach_request::Message as Said;
use celda_api::cell::v1::attach_response::Message as Told;
use celda_api::cell::v1::end::Cause;
use celda_api::cell::v1::exec_request::Message as Asked;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tonic::{Status, Streaming};

use super::fds::Writable;
use super::feed::{Requests, feed, terminal_size, unreadable};
use super::streams::{Stream, place};
use super::{CALL_DEADLINE, Service};
use crate::cell::core::{Attachment, Call, ToList};
use crate::cell::logs::{self, Follower, From};
use crate::sandbox::resize;

/// Messages made before the peer takes one.
const MESSAGES_COUNT: usize = 2;
/// Bytes read of a log at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How often an instance is asked for whose log is just being taken up, and how long is waited between two times.
const TRIES_COUNT: u32 = 250;
const TRY_WAIT: Duration = Duration::from_millis(20);

type Sender = mpsc::Sender<Result<v1::AttachResponse, Status>>;

/// Opens the stream: its first message says to what.
///
/// # Errors
/// `INVALID_ARGUMENT`, `FAILED_PRECONDITION` when the instance does not run, `RESOURCE_EXHAUSTED`.
pub(super) async fn open(
    service: &Service,
    mut requests: Streaming<v1::AttachRequest>,
) -> Result<Stream<v1::AttachResponse>, Status> {
    let place = place(service)?;
    let first = tokio::time::timeout(CALL_DEADLINE, requests.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no start came"))??;
    let Some(Said::Start(v1::AttachStart { id, terminal })) = first.and_then(|first| first.message) else {
        return Err(Status::invalid_argument("the first message of an Attach is a start"));
    };
    let (attachment, follower) = attach(service, &id).await?;
    if let (Some(master), Some(size)) = (&attachment.terminal, terminal) {
        // It may have ended, which is told below.
        let _ = resize(master.as_fd(), terminal_size(&size));
    }
    let (sender, receiver) = mpsc::channel(MESSAGES_COUNT);
    let attached = Attached { service: service.clone(), id, attachment, follower };
    tokio::spawn(attended(attached, requests, sender, place));
    let next = |mut receiver: mpsc::Receiver<_>| async move { Some((receiver.recv().await?, receiver)) };
    Ok(Box::pin(stream::unfold(receiver, next)))
}

/// The instance's container, and a reader of what it writes from now on.
async fn attach(service: &Service, id: &str) -> Result<(Attachment, Follower), Status> {
    for _ in 0..TRIES_COUNT {
        let attachment = service.ask(|answer| Call::Attach { id: id.to_owned(), answer }).await?;
        let attachment = attachment.map_err(Status::failed_precondition)?;
        if let Some(log) = &attachment.log {
            let follower = log.follower(From::Sequence(log.next_sequence()));
            return Ok((attachment, follower.map_err(|error| Status::internal(error.to_string()))?));
        }
        tokio::time::sleep(TRY_WAIT).await;
    }
    Err(Status::unavailable(format!("what {id} writes is just being taken up: try again")))
}

struct Attached {
    service: Service,
    id: String,
    attachment: Attachment,
    follower: Follower,
}

/// Stays until the container's end, or the peer's, or the agent's.
async fn attended(
    attached: Attached,
    requests: Streaming<v1::AttachRequest>,
    sender: Sender,
    _place: OwnedSemaphorePermit,
) {
    let mut closing = attached.service.0.closing.subscribe();
    let last = tokio::select! {
        last = attached.converse(requests, &sender) => last,
        () = sender.closed() => return,
        _ = closing.wait_for(|closing| *closing) => Err(Status::unavailable("the agent ends; the instance goes on")),
    };
    let last = last.map(|message| v1::AttachResponse { message: Some(message) });
    tokio::select! {
        _ = sender.send(last) => {}
        _ = closing.wait_for(|closing| *closing) => {}
    }
}

impl Attached {
    /// The last message.
    async fn converse(
        mut self,
        requests: Streaming<v1::AttachRequest>,
        sender: &Sender,
    ) -> Result<Told, Status> {
        let Attachment { input, terminal, pidfd, attempt, .. } = self.attachment;
        let attached = v1::Attached { terminal: terminal.is_some(), input: input.is_some() };
        tell(sender, Told::Attached(attached)).await;
        let asked: Requests<'_> = Box::pin(stream::unfold(requests, move |mut requests| async move {
            let said = requests.message().await.transpose()?;
            let asked = said.map_err(unreadable).and_then(|said| asked(said.message, attached));
            Some((asked, requests))
        }));
        let input = input.map(Writable::new).transpose();
        let input =
            input.map_err(|error| Status::internal(format!("wait for an instance's input: {error}")))?;
        let terminal = terminal.as_ref().map(|master| master.as_fd());
        let mut feeding = Box::pin(feed(pidfd.as_fd(), terminal, input, asked));
        let mut is_fed = false;
        loop {
            let chunk = tokio::task::block_in_place(|| self.follower.read(CHUNK_BYTES));
            let chunk = chunk.map_err(|error| Status::internal(error.to_string()))?;
            if chunk.missed_count > 0 {
                tell(sender, Told::Missed(chunk.missed_count)).await;
            }
            let is_empty = chunk.entries.is_empty() && chunk.missed_count == 0;
            for message in messages(chunk.entries) {
                // The peer's input is taken while it takes no output: it may be what the output waits for.
                let mut telling = Box::pin(tell(sender, message));
                loop {
                    tokio::select! {
                        () = &mut telling => break,
                        fed = &mut feeding, if !is_fed => is_fed = fed.map(|()| true)?,
                    }
                }
            }
            if !is_empty {
                continue;
            }
            tokio::select! {
                has_more = self.follower.changed() => if !has_more { break },
                fed = &mut feeding, if !is_fed => is_fed = fed.map(|()| true)?,
            }
        }
        drop(feeding);
        let status = exit(&self.service, &self.id, attempt).await?;
        Ok(Told::Exit(v1::ExecExit { status }))
    }
}

/// What a peer asks for of an instance that this was said of.
fn asked(said: Option<Said>, attached: v1::Attached) -> Result<Option<Asked>, Status> {
    Ok(match said {
        Some(Said::Input(_)) if !attached.input => {
            let why = "the instance takes no input: run it with -i, or send none";
            return Err(Status::failed_precondition(why));
        }
        Some(Said::Input(bytes)) => Some(Asked::Input(bytes)),
        // Others may be attached as well: without a terminal the input stays open.
        Some(Said::EndOfInput(is_end)) => Some(Asked::EndOfInput(is_end && attached.terminal)),
        Some(Said::Resize(size)) => Some(Asked::Resize(size)),
        Some(Said::Signal(number)) => Some(Asked::Signal(number)),
        Some(Said::Start(_)) | None => None,
    })
}

async fn tell(sender: &Sender, message: Told) {
    // A peer that is gone ends all of this elsewhere.
    let _ = sender.send(Ok(v1::AttachResponse { message: Some(message) })).await;
}

/// Records as the bytes that they stand for, those of one stream together.
fn messages(entries: Vec<logs::Entry>) -> Vec<Told> {
    let mut messages: Vec<(logs::Stream, Vec<u8>)> = Vec::new();
    for entry in entries {
        let mut bytes = entry.payload;
        if !entry.is_partial {
            bytes.push(b'\n');
        }
        match messages.last_mut() {
            Some((stream, before)) if *stream == entry.stream => before.extend(bytes),
            _ => messages.push((entry.stream, bytes)),
        }
    }
    let told = |(stream, bytes)| match stream {
        logs::Stream::Output => Told::Output(bytes),
        // The cell's own words, as of what a rate limit dropped.
        logs::Stream::Error | logs::Stream::Notice => Told::Error(bytes),
    };
    messages.into_iter().map(told).collect()
}

/// The status of that container's end, once it is shown.
async fn exit(service: &Service, id: &str, attempt: u32) -> Result<u32, Status> {
    let mut news = service.0.events.news();
    loop {
        news.mark_unchanged();
        let ids = vec![id.to_owned()];
        let shown = ToList { ids, ..ToList::default() };
        let list = |answer| Call::List { shown, answer };
        let (instances, _) = service.ask(list).await?;
        let Some(one) = instances.into_iter().next() else {
            return Err(Status::not_found(format!("{id} was removed")));
        };
        let is_over =
            one.attempt != attempt || matches!(one.status(), v1::Status::Exited | v1::Status::Waiting);
        if let (true, Some(end)) = (is_over, one.end) {
            let code = u32::try_from(end.code).unwrap_or(1);
            let is_signal = matches!(end.cause(), Cause::Signal | Cause::OutOfMemory);
            return Ok(if is_signal { 128 + code } else { code });
        }
        if news.changed().await.is_err() {
            return Err(Status::unavailable("the agent ends"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_the_bytes_that_were_written() {
        let entry = |stream, is_partial, payload: &[u8]| logs::Entry {
            sequence: 0,
            time_ns: 0,
            stream,
            is_partial,
            payload: payload.to_vec(),
        };
        use logs::Stream::{Error, Notice, Output};
        let entries = vec![
            entry(Output, true, b"$ "),
            entry(Output, false, b"ls\r"),
            entry(Error, false, b"oh"),
            entry(Notice, false, b"dropped"),
            entry(Output, true, b"$ "),
        ];
        let told = messages(entries);
        let expected = [
            Told::Output(b"$ ls\r\n".to_vec()),
            Told::Error(b"oh\n".to_vec()),
            Told::Error(b"dropped\n".to_vec()),
            Told::Output(b"$ ".to_vec()),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn input_is_refused_where_nothing_reads_it() {
        let said = || Some(Said::Input(b"words".to_vec()));
        let takes = |input| v1::Attached { terminal: false, input };
        assert!(asked(said(), takes(true)).is_ok_and(|asked| asked == Some(Asked::Input(b"words".to_vec()))));
        let refused = asked(said(), takes(false)).expect_err("nothing reads it");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        let signal = asked(Some(Said::Signal(15)), takes(false)).expect("signals are none");
        assert_eq!(signal, Some(Asked::Signal(15)));
    }
}
