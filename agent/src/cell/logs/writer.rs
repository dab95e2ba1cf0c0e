//! One log's pipes and files: from a pipe to the file, and only then off the pipe.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::append::{self, Dropping, Encoded, Output};
use super::error::{LogsError, Result};
use super::files::{Files, Tail};
use super::mark::{Batch, InFlight, Mark, name_words};
use super::rate::Bucket;
use super::record::Stream;
use super::source::{Counts, Shared};

/// Bytes that are taken from a pipe at once: what a pipe holds by default, pipe(7).
pub(super) const INPUT_BYTES: usize = 64 << 10;
/// Bytes that the scratch pipe has pages for, so that what it takes is bounded by its bytes and not by its pages.
const SCRATCH_BYTES: usize = 1 << 20;
/// Chunks of one stream before the others have their turn.
const CHUNKS_MAX: usize = 4;

/// What one thread needs to look into pipes.
#[derive(Debug)]
pub(super) struct Scratch {
    read: OwnedFd,
    write: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Scratch {
    pub(super) fn new() -> Result<Self> {
        let failed = LogsError::kernel::<Errno>;
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(failed("make a pipe to copy into"))?;
        // Beyond the user's share of pipe pages the default size does as well.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, SCRATCH_BYTES);
        let output = Vec::with_capacity(append::OUTPUT_CAPACITY);
        Ok(Self { read, write, input: vec![0; INPUT_BYTES], output })
    }

    /// Copies what is in `pipe` to `input`, and leaves it there. Nothing at its end, `None` when it is empty.
    fn peek(&mut self, pipe: &OwnedFd) -> Result<Option<usize>> {
        let copied = rustix::io::retry_on_intr(|| {
            rustix::pipe::tee(pipe, &self.write, INPUT_BYTES, SpliceFlags::NONBLOCK)
        });
        let count = match copied {
            Ok(count) => count,
            Err(Errno::AGAIN) => return Ok(None),
            Err(errno) => return Err(LogsError::kernel("look into an instance's pipe")(errno)),
        };
        let mut filled = 0;
        while let Some(rest) = self.input.get_mut(filled..count).filter(|rest| !rest.is_empty()) {
            match rustix::io::read(&self.read, rest) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(LogsError::kernel("read an instance's pipe")(errno)),
            }
        }
        Ok(Some(filled))
    }
}

/// The read end of a stream.
#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) fd: OwnedFd,
    /// Since when a part of a line waits in it, on the clock of records.
    pub(super) partial_since_ns: Option<u64>,
    /// Nobody has the other end any more.
    pub(super) has_hung_up: bool,
    /// What is in it is the last of it.
    pub(super) is_finishing: bool,
}

/// What came of a look at a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// All that is complete was written; so many bytes.
    Done(usize),
    /// There is more.
    More(usize),
    /// The stream has ended.
    Ended,
    /// The file could not be written; all is in the pipe still.
    Stalled,
}

/// A log's pipes, files and state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) name: String,
    pub(super) app: String,
    name_words: [u64; super::NAME_BYTES_MAX / 8],
    files: Files,
    pub(super) pipes: [Option<Pipe>; 2],
    dropping: Dropping,
    /// See [`Source::is_prompt`](super::Source::is_prompt).
    pub(super) is_prompt: bool,
    pub(super) shared: Arc<Shared>,
}

const STREAMS: [Stream; 2] = [Stream::Output, Stream::Error];

impl Writer {
    pub(super) fn new(
        name: String,
        app: String,
        files: Files,
        tail: Tail,
        pipes: [Option<OwnedFd>; 2],
        all: Arc<Counts>,
    ) -> Self {
        let shared = Arc::new(Shared::new(files.position().next_sequence, all));
        let dropping = Dropping::taken_up(tail.is_dropping);
        let pipe = |fd| Pipe { fd, partial_since_ns: None, has_hung_up: false, is_finishing: false };
        let pipes = pipes.map(|fd| fd.map(pipe));
        Self { name_words: name_words(&name), name, app, files, pipes, dropping, is_prompt: false, shared }
    }

    /// Takes up the batch that the former agent had in flight for this log.
    pub(super) fn settle(&mut self, told: &InFlight, now_ns: u64) -> Result<()> {
        let now = self.files.position();
        let is_whole = now.segment == told.begin.segment && now.next_sequence == told.end_sequence;
        if is_whole && told.consumed.len() as u64 == told.bytes {
            return Ok(());
        }
        self.files.rewind(told.begin)?;
        self.keep(told.stream, &told.consumed, &mut Vec::new(), now_ns)?;
        let next_sequence = self.files.position().next_sequence;
        self.shared.progress.send_modify(|progress| progress.next_sequence = next_sequence);
        Ok(())
    }

    /// Writes bytes that have left their pipe, whatever they end with.
    fn keep(&mut self, stream: Stream, bytes: &[u8], buffer: &mut Vec<u8>, now_ns: u64) -> Result<Encoded> {
        buffer.clear();
        let mut output = Output { bytes: buffer, now_ns, sequence: self.files.position().next_sequence };
        let encoded = append::encode(bytes, stream, true, None, &mut self.dropping, &mut output);
        self.files.append(buffer, encoded.records_count)?;
        Ok(encoded)
    }

    /// Writes what is in a pipe; with `flush` also what has no end.
    pub(super) fn look(
        &mut self,
        stream: usize,
        flush: bool,
        bucket: &mut Option<Bucket>,
        (scratch, mark): (&mut Scratch, &mut Mark),
        now_ns: u64,
    ) -> Look {
        let mut taken = 0;
        for _ in 0..CHUNKS_MAX {
            let Some(pipe) = self.pipes.get(stream).and_then(Option::as_ref) else {
                return Look::Done(taken);
            };
            let flush = flush || pipe.has_hung_up || self.is_prompt;
            let count = match scratch.peek(&pipe.fd) {
                Ok(Some(0)) => return Look::Ended,
                Ok(Some(count)) => count,
                Ok(None) => {
                    self.set_partial(stream, None);
                    return Look::Done(taken);
                }
                Err(error) => return self.stall(&error),
            };
            let encoded = match self.write(stream, count, flush, bucket, (&mut *scratch, &mut *mark), now_ns)
            {
                Ok(encoded) => encoded,
                Err(error) => return self.stall(&error),
            };
            taken += encoded.stream_bytes;
            if encoded.stream_bytes == 0 {
                // A pipe that is full without an end of a line would never hold one.
                let is_full = self.pipes.get(stream).and_then(Option::as_ref).is_some_and(|pipe| {
                    rustix::pipe::fcntl_getpipe_size(&pipe.fd).is_ok_and(|bytes| count >= bytes)
                });
                if is_full && !flush {
                    return self.look(stream, true, bucket, (scratch, mark), now_ns);
                }
                self.set_partial(stream, Some(now_ns));
                return Look::Done(taken);
            }
            self.set_partial(stream, None);
            let is_all = count < INPUT_BYTES && scratch.output.len() < append::OUTPUT_BYTES_MAX;
            if is_all && !self.has_hung_up(stream) {
                if encoded.stream_bytes < count {
                    self.set_partial(stream, Some(now_ns));
                }
                return Look::Done(taken); // what comes from now on is another event
            }
        }
        Look::More(taken)
    }

    fn has_hung_up(&self, stream: usize) -> bool {
        self.pipes.get(stream).and_then(Option::as_ref).is_some_and(|pipe| pipe.has_hung_up)
    }

    fn set_partial(&mut self, stream: usize, now_ns: Option<u64>) {
        if let Some(pipe) = self.pipes.get_mut(stream).and_then(Option::as_mut) {
            pipe.partial_since_ns = now_ns.map(|now_ns| pipe.partial_since_ns.unwrap_or(now_ns));
        }
    }

    fn stall(&self, error: &LogsError) -> Look {
        if !self.shared.is_stalled.swap(true, Relaxed) {
            tracing::warn!(log = self.name, %error, "nothing is taken from the instance until its log can be written");
        }
        Look::Stalled
    }

    /// One chunk, which is in the scratch's input: encoded, marked, written, consumed.
    fn write(
        &mut self,
        stream: usize,
        count: usize,
        flush: bool,
        bucket: &mut Option<Bucket>,
        (scratch, mark): (&mut Scratch, &mut Mark),
        now_ns: u64,
    ) -> Result<Encoded> {
        scratch.output.clear();
        let begin = self.files.position();
        let (mut dropping, mut level) = (self.dropping, *bucket);
        let mut output = Output { bytes: &mut scratch.output, now_ns, sequence: begin.next_sequence };
        let input = scratch.input.get(..count).unwrap_or_default();
        let kind = STREAMS.get(stream).copied().unwrap_or(Stream::Output);
        let encoded = append::encode(input, kind, flush, level.as_mut(), &mut dropping, &mut output);
        if encoded.records_count > 0 || encoded.stream_bytes > 0 {
            self.files.make_room(scratch.output.len() as u64, now_ns)?;
            let begin = self.files.position();
            let batch = Batch {
                stream: kind,
                bytes: encoded.stream_bytes as u64,
                begin,
                end_sequence: begin.next_sequence + encoded.records_count,
            };
            mark.set(&self.name_words, &batch);
            if let Err(error) = self.files.append(&scratch.output, encoded.records_count) {
                mark.clear();
                return Err(error);
            }
            let pipe = self.pipes.get(stream).and_then(Option::as_ref);
            let consumed = pipe.map_or(0, |pipe| mark.consume(&pipe.fd, encoded.stream_bytes));
            if consumed < encoded.stream_bytes {
                // What has not left the pipe is written when it does.
                let rewound = self.files.rewind(begin);
                let consumed = scratch.input.get(..consumed).unwrap_or_default();
                let kept = rewound.and_then(|()| self.keep(kind, consumed, &mut scratch.output, now_ns));
                mark.clear();
                self.publish(&kept?);
                let short = io::Error::other("its bytes cannot be moved to the staging file");
                return Err(LogsError::kernel("take an instance's output off its pipe")(short));
            }
            mark.clear();
            self.publish(&encoded);
        }
        (self.dropping, *bucket) = (dropping, level);
        Ok(encoded)
    }

    fn publish(&self, encoded: &Encoded) {
        let shared = &self.shared;
        for counts in [&shared.counts, &shared.all] {
            counts.lines.fetch_add(encoded.kept_count, Relaxed);
            counts.bytes.fetch_add(encoded.stream_bytes as u64, Relaxed);
            counts.dropped_lines.fetch_add(encoded.dropped_count, Relaxed);
        }
        shared.is_stalled.store(false, Relaxed);
        let next_sequence = self.files.position().next_sequence;
        shared.progress.send_modify(|progress| progress.next_sequence = next_sequence);
    }

    /// Whether a notice of what was dropped will be due.
    pub(super) fn is_dropping(&self) -> bool {
        self.dropping.is_on()
    }

    /// Writes the notice of what was dropped, when that is due or nothing comes any more.
    pub(super) fn notice(&mut self, is_last: bool, scratch: &mut Scratch, now_ns: u64) {
        scratch.output.clear();
        let sequence = self.files.position().next_sequence;
        let mut dropping = self.dropping;
        dropping.notice(is_last, &mut Output { bytes: &mut scratch.output, now_ns, sequence });
        if scratch.output.is_empty() {
            return;
        }
        let written = self.files.make_room(scratch.output.len() as u64, now_ns);
        match written.and_then(|()| self.files.append(&scratch.output, 1)) {
            Ok(()) => {
                self.dropping = dropping;
                self.publish(&Encoded { records_count: 1, ..Encoded::default() });
            }
            Err(error) => {
                self.stall(&error);
            }
        }
    }

    /// Tells that nothing more comes.
    pub(super) fn end(&self) {
        self.shared.progress.send_modify(|progress| progress.has_ended = true);
    }

    /// True when there is nothing more to come.
    pub(super) fn has_ended(&self) -> bool {
        self.pipes.iter().all(Option::is_none)
    }

    pub(super) fn directory(&self) -> &std::path::Path {
        self.files.directory()
    }

    /// Closes a stream's pipe; the caller has taken it out of its poll set.
    pub(super) fn close(&mut self, stream: usize) -> Option<Pipe> {
        self.pipes.get_mut(stream).and_then(Option::take)
    }

    /// The pipe's read end must not block: a look that finds nothing goes on.
    pub(super) fn prepare(&self) -> Result<()> {
        for pipe in self.pipes.iter().flatten() {
            let kind = rustix::fs::fstat(pipe.fd.as_fd())
                .map_err(LogsError::kernel("look at an instance's pipe"))?;
            if !rustix::fs::FileType::from_raw_mode(kind.st_mode).is_fifo() {
                let wrong = io::Error::new(io::ErrorKind::InvalidInput, "it is no pipe");
                return Err(LogsError::kernel("take an instance's pipe")(wrong));
            }
        }
        Ok(())
    }
}
