//! The ring path: one thread, one io_uring, a few registered buffers.
//!
//! ```text
//! ingest thread --- Job::Write(buffer) --.                                  .-- write_fixed -> file
//! verify ---------- Job::Hash(file) -----+--> ring thread, RING_BUFFERS -----+-- read_fixed  -> sha-256
//!                     bounded queue                                          (direct where the file can)
//! ```
//!
//! Files are opened by plain syscalls, and nothing is ever cancelled: an operation that is under way is waited for.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::mpsc;
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::buf::BoundedBufMut as _;
use tokio_uring::buf::fixed::{FixedBuf, FixedBufPool};

use crate::Digest;
use crate::digest::Hasher;
use crate::io::{BUFFER_BYTES, Returns, Writeback};
use crate::sys::page_buffer::PageBuffer;

/// Registered buffers: the depth of the ring. Together 4 MiB, half of the least RLIMIT_MEMLOCK in use (8 MiB).
const RING_BUFFERS_COUNT: usize = 4;

/// Entries of the submission queue: more than there can be operations under way.
const RING_ENTRIES: u32 = 16;

/// Jobs waiting for the ring's thread; a sender waits when there are more.
const JOBS_COUNT: usize = 8;

type Pool = FixedBufPool<PageBuffer>;

/// One ring with its thread. Dropping it ends the thread when what was asked for is done.
#[derive(Debug)]
pub(crate) struct Ring {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    Write { file: Arc<File>, offset: u64, buffer: Vec<u8>, returns: Returns, pending: Pending },
    Hash { file: File, answer: SyncSender<io::Result<(Digest, u64)>> },
}

impl Ring {
    /// Starts the thread and sets the ring up.
    ///
    /// # Errors
    /// What io_uring_setup(2) or the registration answers: EPERM, ENOSYS, EACCES, EINVAL, ENOMEM mean threads.
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(JOBS_COUNT);
        let (ready, answer) = sync_channel(1);
        let thread =
            std::thread::Builder::new().name("celda-ring".into()).spawn(move || serve(&ready, queue))?;
        let ring = Self { jobs: Some(jobs), thread: Some(thread) };
        answer.recv().map_err(|_| gone())??;
        Ok(ring)
    }

    pub(crate) fn writer(&self, file: File, returns: Returns) -> Writer {
        let file = Arc::new(file);
        Writer {
            jobs: self.jobs.clone(),
            writeback: Writeback::new(file.clone()),
            file,
            returns,
            state: Arc::default(),
            sent_bytes: 0,
        }
    }

    /// Hashes a whole file, reading ahead as deep as there are buffers, past the page cache where that is possible.
    pub(crate) fn hash(&self, file: File) -> io::Result<(Digest, u64)> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        if let Ok(flags) = fcntl_getfl(&file) {
            // EINVAL where the filesystem has no direct I/O: then the page cache it is.
            let _ = fcntl_setfl(&file, flags | OFlags::DIRECT);
        }
        let (answer, result) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.blocking_send(Job::Hash { file, answer }).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the ring's thread has ended")
}

/// Writes one file through the ring.
pub(crate) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    file: Arc<File>,
    returns: Returns,
    state: Arc<State>,
    writeback: Writeback,
    sent_bytes: u64,
}

/// How many writes of one file are under way, and the first error among them.
#[derive(Default)]
struct State {
    inner: Mutex<(usize, Option<io::Error>)>,
    changed: Condvar,
}

/// One write under way; dropped unfinished, it counts as failed.
struct Pending {
    state: Arc<State>,
    is_done: bool,
}

impl Pending {
    fn new(state: &Arc<State>) -> Self {
        state.inner.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
        Self { state: state.clone(), is_done: false }
    }

    fn finish(mut self, result: io::Result<()>) {
        self.is_done = true;
        self.settle(result.err());
    }

    fn settle(&self, error: Option<io::Error>) {
        let mut inner = self.state.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.0 -= 1;
        if inner.1.is_none() {
            inner.1 = error;
        }
        self.state.changed.notify_all();
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.is_done {
            self.settle(Some(gone()));
        }
    }
}

impl State {
    fn error(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.1.take().map_or(Ok(()), Err)
    }

    /// Waits until at most `allowed` writes are under way.
    fn wait(&self, allowed: usize) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.0 > allowed {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Writer {
    /// Hands a buffer to the ring. An error of an earlier write is answered here.
    pub(crate) fn write(&mut self, buffer: Vec<u8>) -> io::Result<()> {
        self.state.error()?;
        self.state.wait(RING_BUFFERS_COUNT + JOBS_COUNT);
        let length = buffer.len() as u64;
        let job = Job::Write {
            file: self.file.clone(),
            offset: self.sent_bytes,
            buffer,
            returns: self.returns.clone(),
            pending: Pending::new(&self.state),
        };
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.blocking_send(job).map_err(|_| gone())?;
        // What is still under way is written back by a later stretch or by the fsync.
        self.writeback.advance(self.sent_bytes);
        self.sent_bytes += length;
        Ok(())
    }

    pub(crate) fn finish(self) -> io::Result<u64> {
        self.state.wait(0);
        self.state.error()?;
        Ok(self.sent_bytes)
    }
}

/// The ring's thread.
fn serve(ready: &SyncSender<io::Result<()>>, mut jobs: mpsc::Receiver<Job>) {
    let mut builder = tokio_uring::builder();
    builder.entries(RING_ENTRIES);
    let runtime = match tokio_uring::Runtime::new(&builder) {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    runtime.block_on(async {
        let buffers: io::Result<Vec<PageBuffer>> =
            (0..RING_BUFFERS_COUNT).map(|_| PageBuffer::new(BUFFER_BYTES)).collect();
        let registered = buffers.map(Pool::new).and_then(|pool| pool.register().map(|()| Rc::new(pool)));
        let pool = match registered {
            Ok(pool) => pool,
            Err(error) => return drop(ready.send(Err(error))),
        };
        let _ = ready.send(Ok(()));
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Write { file, offset, mut buffer, returns, pending } => {
                    let mut fixed = pool.next(BUFFER_BYTES).await;
                    let length = buffer.len().min(BUFFER_BYTES);
                    fixed.put_slice(&buffer[..length]);
                    buffer.clear();
                    let _ = returns.try_send(buffer);
                    tokio_uring::spawn(async move {
                        let result = write(&file, fixed, length, offset).await;
                        drop(file);
                        pending.finish(result);
                    });
                }
                Job::Hash { file, answer } => {
                    let pool = pool.clone();
                    tokio_uring::spawn(async move {
                        let result = hash(file, &pool).await;
                        let _ = answer.send(result);
                    });
                }
            }
        }
        // Every operation holds a buffer: with all of them in hand, none is under way.
        let mut idle = Vec::with_capacity(RING_BUFFERS_COUNT);
        for _ in 0..RING_BUFFERS_COUNT {
            idle.push(pool.next(BUFFER_BYTES).await);
        }
    });
}

async fn write(file: &File, buffer: FixedBuf, length: usize, offset: u64) -> io::Result<()> {
    let file = tokio_uring::fs::File::from_std(file.try_clone()?);
    let (result, _buffer) = file.write_fixed_all_at(buffer.slice(..length), offset).await;
    result
}

async fn hash(file: File, pool: &Pool) -> io::Result<(Digest, u64)> {
    let size = file.metadata()?.len();
    let file = Rc::new(tokio_uring::fs::File::from_std(file));
    let mut hasher = Hasher::new();
    let mut reads = VecDeque::new();
    let mut asked_bytes = 0;
    let mut hashed_bytes = 0;
    loop {
        // Waits for a buffer only when it holds none, so that two files never wait for each other.
        while asked_bytes < size {
            let buffer = match pool.try_next(BUFFER_BYTES) {
                Some(buffer) => buffer,
                None if reads.is_empty() => pool.next(BUFFER_BYTES).await,
                None => break,
            };
            let wanted = usize::try_from(size - asked_bytes).unwrap_or(usize::MAX).min(BUFFER_BYTES);
            reads.push_back(tokio_uring::spawn(read(file.clone(), buffer, asked_bytes, wanted)));
            asked_bytes += wanted as u64;
        }
        let Some(read) = reads.pop_front() else { break };
        let (buffer, count) = read.await.map_err(io::Error::other)??;
        hasher.update(&buffer[..count]);
        hashed_bytes += count as u64;
    }
    Ok((hasher.finish(), hashed_bytes))
}

/// Reads `wanted` bytes at `offset`, less only where the file ends.
async fn read(
    file: Rc<tokio_uring::fs::File>,
    mut buffer: FixedBuf,
    offset: u64,
    wanted: usize,
) -> io::Result<(FixedBuf, usize)> {
    let mut count = 0;
    while count < wanted {
        // The slice reaches to the buffer's end, so that a direct read's length stays a multiple of the block.
        let (result, slice) = file.read_fixed_at(buffer.slice(count..), offset + count as u64).await;
        buffer = slice.into_inner();
        match result? {
            0 => break,
            more => count += more,
        }
    }
    Ok((buffer, count.min(wanted)))
}
