//! The stream of `Logs`: the lines of several instances in the order of time, then as they come.
//!
//! ```text
//! follower of each instance ──chunk──> its queue ──oldest first──> message, when the peer takes one
//!      ^ ended: the instance is over, or another container of it writes on: asked of the core
//! ```
//! A stream may be of thousands of logs, and stall. What it has read of them is bounded for all together
//! ([`READ_AHEAD_BYTES`]), and it keeps no more than [`FILES_COUNT_MAX`] files open.

use std::collections::VecDeque;
use std::time::Duration;

use celda_api::cell::v1;
use celda_api::cell::v1::log_line::Stream as Kind;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::Service;
use super::streams::{Stream, cut_off, place};
use crate::cell::core::{Call, Written};
use crate::cell::logs::{self, Entry, Follower, From, LogsError, Source};

/// Lines of one message.
const LINES_PER_MESSAGE_MAX: usize = 512;
/// Bytes read of all logs before their lines are taken; of each of them its last line may be beyond.
const READ_AHEAD_BYTES: usize = 1 << 20;
/// Bytes read of one log at once, of many logs and of few.
const CHUNK_BYTES_MIN: usize = 1 << 10;
const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Logs whose files stay open between two reads; of more, each is opened for every read.
const FILES_COUNT_MAX: usize = 16;
/// How often a log is asked for that is just being taken up, and how long is waited between two times.
const TRIES_COUNT: u32 = 250;
const TRY_WAIT: Duration = Duration::from_millis(20);
/// Bytes of lines in one message, beyond which no other is added.
const MESSAGE_BYTES: usize = 256 << 10;

struct Reading {
    id: String,
    app: String,
    index: u32,
    follower: Follower,
    queue: VecDeque<Entry>,
    missed: u64,
    /// The writer of what the follower reads has ended.
    has_ended: bool,
    /// And no other will come.
    is_over: bool,
}

struct Reader {
    service: Service,
    sources: Vec<Reading>,
    follow: bool,
    news: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// Opens the stream.
///
/// # Errors
/// `NOT_FOUND` when there is no such instance, `RESOURCE_EXHAUSTED`, `INTERNAL` when a log cannot be read.
pub(super) async fn open(
    service: &Service,
    request: v1::LogsRequest,
) -> Result<Stream<v1::LogsResponse>, Status> {
    let place = place(service)?;
    let v1::LogsRequest { ids, app, follow, tail, since_ms } = request;
    let wanted_count = ids.len();
    let written = service.ask(|answer| Call::Logs { ids, app, answer }).await?;
    if written.len() < wanted_count || written.is_empty() {
        return Err(Status::not_found("there is no such instance"));
    }
    let from = match (tail, since_ms) {
        (Some(count), _) => From::Tail(count),
        (None, Some(since_ms)) => From::Time(since_ms.saturating_mul(1_000_000)),
        (None, None) => From::Oldest,
    };
    let mut sources = Vec::with_capacity(written.len());
    for one in written {
        let mut follower = follower(service, &one, from).await?;
        if !follow {
            follower.only_what_was_there();
        }
        let Written { id, app, index, is_over, .. } = one;
        let queue = VecDeque::new();
        sources.push(Reading { id, app, index, follower, queue, missed: 0, has_ended: false, is_over });
    }
    let (news, closing) = (service.0.events.news(), service.0.closing.subscribe());
    let reader = Reader { service: service.clone(), sources, follow, news, closing, _place: place };
    let next = |reader: Option<Reader>| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(reader))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    };
    Ok(Box::pin(stream::unfold(Some(reader), next)))
}

/// A reader of an instance's log, whether it is being written or not. One that is just being taken up is the writer's
/// already and not known to the core yet: then it is asked again.
async fn follower(service: &Service, written: &Written, from: From) -> Result<Follower, Status> {
    let mut log = written.log.clone();
    for _ in 0..TRIES_COUNT {
        if let Some(log) = log {
            return log.follower(from).map_err(unreadable);
        }
        let source = Source {
            name: written.name.clone(),
            app: written.app.clone(),
            rate: None,
            limits: service.0.config.logs.limits(),
            is_prompt: false,
            output: None,
            error: None,
        };
        // Files are opened, which waits for a busy disk: other tasks go on meanwhile.
        match tokio::task::block_in_place(|| service.0.logs.attach(source)) {
            Err(LogsError::Attached { .. }) => {}
            answer => return answer.and_then(|log| log.follower(from)).map_err(unreadable),
        }
        tokio::time::sleep(TRY_WAIT).await;
        let ids = vec![written.id.clone()];
        let again = service.ask(|answer| Call::Logs { ids, app: String::new(), answer }).await?;
        log = again.into_iter().find(|one| one.name == written.name).and_then(|one| one.log);
    }
    Err(Status::unavailable(format!("the log of {} is being taken up: try again", written.id)))
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn unreadable(error: logs::LogsError) -> Status {
    Status::internal(error.to_string())
}

impl Reader {
    async fn next(&mut self) -> Result<Option<v1::LogsResponse>, Status> {
        loop {
            if *self.closing.borrow() {
                return Err(cut_off("instances go on; ask the next one for what follows"));
            }
            // Files that were just written are read from memory.
            let lines = tokio::task::block_in_place(|| gather(&mut self.sources))?;
            if !lines.is_empty() {
                return Ok(Some(v1::LogsResponse { lines }));
            }
            if !self.follow || self.sources.iter().all(|source| source.has_ended && source.is_over) {
                return Ok(None);
            }
            self.wait().await?;
        }
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let Self { sources, news, closing, .. } = self;
        let (open, ended): (Vec<_>, Vec<_>) = sources.iter_mut().partition(|source| !source.has_ended);
        let has_ended = !ended.is_empty();
        let changes = open.into_iter().map(|source| {
            Box::pin(async {
                source.has_ended = !source.follower.changed().await;
            })
        });
        let changes: Vec<_> = changes.collect();
        tokio::select! {
            () = any(changes) => {}
            _ = news.changed(), if has_ended => {}
            _ = closing.wait_for(|closing| *closing) => return Ok(()),
        }
        // Before the core is asked: what happens after its answer is news.
        self.news.mark_unchanged();
        self.renew().await
    }

    /// Logs whose writer has ended: is the instance over, or does another container of it write on?
    async fn renew(&mut self) -> Result<(), Status> {
        let ended = |source: &&mut Reading| source.has_ended && !source.is_over;
        let ids: Vec<String> =
            self.sources.iter_mut().filter(ended).map(|source| source.id.clone()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let written = self.service.ask(|answer| Call::Logs { ids, app: String::new(), answer }).await?;
        for source in self.sources.iter_mut().filter(ended) {
            match written.iter().find(|one| one.id == source.id) {
                Some(one) => {
                    let from = From::Sequence(source.follower.next_sequence());
                    if let Some(log) = &one.log {
                        source.follower = log.follower(from).map_err(unreadable)?;
                        // The same one as before, as long as the instance waits to be started again.
                        source.has_ended = log.has_ended();
                    }
                    source.is_over = one.is_over;
                }
                None => source.is_over = true, // forgotten
            }
        }
        Ok(())
    }
}

/// A message's lines, the oldest first; none when there are none for now.
fn gather(sources: &mut [Reading]) -> Result<Vec<v1::LogLine>, Status> {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    let sources_count = sources.len();
    fill(sources, sources_count)?;
    // What others have got since is younger than all that is taken here.
    while let Some(drained) = take(sources, &mut lines, &mut bytes) {
        let Some(source) = sources.get_mut(drained..=drained) else { break };
        if fill(source, sources_count).is_err() {
            break; // the next read tells of it again
        }
    }
    Ok(lines)
}

/// Has a line of each log that has one, of a stream of so many logs.
fn fill(sources: &mut [Reading], sources_count: usize) -> Result<(), Status> {
    let (chunk_bytes, keeps_files) = (chunk_bytes(sources_count), sources_count <= FILES_COUNT_MAX);
    for source in sources.iter_mut().filter(|source| source.queue.is_empty()) {
        let chunk = source.follower.read(chunk_bytes);
        if !keeps_files {
            source.follower.let_go();
        }
        let chunk = chunk.map_err(unreadable)?;
        source.missed += chunk.missed_count;
        source.queue.extend(chunk.entries);
    }
    Ok(())
}

/// What is read of each of so many logs.
fn chunk_bytes(sources_count: usize) -> usize {
    (READ_AHEAD_BYTES / sources_count.max(1)).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX)
}

/// Adds the oldest lines, as long as each log has one or nothing more for now; answers which log is to be read on.
fn take(sources: &mut [Reading], lines: &mut Vec<v1::LogLine>, bytes: &mut usize) -> Option<usize> {
    while lines.len() < LINES_PER_MESSAGE_MAX && *bytes < MESSAGE_BYTES {
        let with_lines = sources.iter_mut().enumerate().filter(|(_, source)| !source.queue.is_empty());
        let (index, source) =
            with_lines.min_by_key(|(_, source)| source.queue.front().map_or(0, |line| line.time_ns))?;
        let entry = source.queue.pop_front()?;
        *bytes += entry.payload.len();
        lines.push(line(source, entry));
        if source.queue.is_empty() {
            return Some(index); // what it has next may be older than the others' next
        }
    }
    None
}

/// The first of several; none of none.
async fn any<F: Future<Output = ()> + Unpin>(futures: Vec<F>) {
    if futures.is_empty() {
        std::future::pending::<()>().await;
    } else {
        futures_util::future::select_all(futures).await;
    }
}

fn line(source: &mut Reading, entry: Entry) -> v1::LogLine {
    let stream = match entry.stream {
        logs::Stream::Output => Kind::Output,
        logs::Stream::Error => Kind::Error,
        logs::Stream::Notice => Kind::Notice,
    };
    v1::LogLine {
        id: source.id.clone(),
        app: source.app.clone(),
        index: source.index,
        at_ns: entry.time_ns,
        sequence: entry.sequence,
        stream: stream.into(),
        partial: entry.is_partial,
        text: entry.payload,
        missed: std::mem::take(&mut source.missed),
    }
}

#[cfg(test)]
mod tests;
