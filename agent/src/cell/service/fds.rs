//! Pipes, terminals and pidfds, waited for by the runtime: a stream that waits for one of them takes no thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys::async_fd;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes that wait to be written, beyond which no more are taken.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// Must not block, for nobody: the flag is the open file's, which the other end of a pipe or terminal does not share.
fn open(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = rustix::fs::fcntl_getfl(&fd)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    async_fd(fd, interest)
}

/// The end that bytes come out of.
#[derive(Debug)]
pub(super) struct Readable {
    fd: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Readable {
    /// # Errors
    /// What the kernel answers, for want of memory.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: open(fd, Interest::READABLE)?, buffer: vec![0; CHUNK_BYTES] })
    }

    /// What comes next; nothing at the end, which for a terminal is `EIO`.
    pub(super) async fn read(&mut self) -> Option<Vec<u8>> {
        loop {
            let mut ready = self.fd.readable().await.ok()?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd, self.buffer.as_mut_slice())?));
            match read {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Ok(0) | Err(_)) => return None,
                Ok(Ok(count)) => return Some(self.buffer.get(..count).unwrap_or_default().to_vec()),
                Err(_would_block) => {}
            }
        }
    }

    /// What is there now; nothing at the end as well.
    pub(super) fn read_now(&mut self) -> Option<Vec<u8>> {
        let read =
            rustix::io::retry_on_intr(|| rustix::io::read(self.fd.get_ref(), self.buffer.as_mut_slice()));
        let count = read.ok().filter(|count| *count > 0)?;
        Some(self.buffer.get(..count).unwrap_or_default().to_vec())
    }
}

/// The end that bytes go into, and those that wait for that.
#[derive(Debug)]
pub(super) struct Writable {
    /// None when it is closed, by whoever reads it or by us.
    fd: Option<AsyncFd<OwnedFd>>,
    waiting: VecDeque<Vec<u8>>,
    /// Bytes of the first that are written.
    written: usize,
    waiting_bytes: usize,
    is_closing: bool,
}

impl Writable {
    /// # Errors
    /// What the kernel answers, for want of memory.
    pub(super) fn new(fd: OwnedFd) -> io::Result<Self> {
        let fd = Some(open(fd, Interest::WRITABLE)?);
        Ok(Self { fd, waiting: VecDeque::new(), written: 0, waiting_bytes: 0, is_closing: false })
    }

    /// Has bytes written after those that wait.
    pub(super) fn push(&mut self, bytes: Vec<u8>) {
        if self.fd.is_some() && !self.is_closing && !bytes.is_empty() {
            self.waiting_bytes += bytes.len();
            self.waiting.push_back(bytes);
        }
    }

    /// Closes it, when all that waits is written.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        if self.waiting.is_empty() {
            self.fd = None;
        }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// So much waits that no more is to be pushed.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES_MAX
    }

    /// It is closed.
    pub(super) fn is_over(&self) -> bool {
        self.fd.is_none()
    }

    /// Writes some of what waits, as soon as there is room for it. May be dropped at any time.
    pub(super) async fn write(&mut self) {
        let (Some(fd), Some(first)) = (&self.fd, self.waiting.front()) else { return };
        let rest = first.get(self.written..).unwrap_or_default();
        let written = match fd.writable().await {
            Ok(mut ready) => match ready.try_io(|fd| Ok(rustix::io::write(fd, rest)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => return,
                Ok(written) => written,
                Err(_would_block) => return,
            },
            Err(error) => Err(error),
        };
        let Ok(count) = written else {
            // Nobody reads it any more.
            (self.fd, self.waiting_bytes) = (None, 0);
            self.waiting.clear();
            return;
        };
        self.written += count;
        self.waiting_bytes = self.waiting_bytes.saturating_sub(count);
        if self.waiting.front().is_some_and(|first| first.len() <= self.written) {
            self.waiting.pop_front();
            self.written = 0;
        }
        if self.is_closing && self.waiting.is_empty() {
            self.fd = None;
        }
    }
}

/// Waits for the end of a process.
///
/// # Errors
/// What the kernel answers, for want of descriptors or memory.
pub(super) async fn ended(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let pidfd = async_fd(pidfd.try_clone_to_owned()?, Interest::READABLE)?;
    pidfd.readable().await.map(drop)
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future)
    }

    #[test]
    fn what_is_pushed_is_read_in_order_and_then_the_end() {
        run(async {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
            let (mut from, mut to) =
                (Readable::new(read).expect("made"), Writable::new(write).expect("made"));
            let sent: Vec<u8> = (0..=u8::MAX).cycle().take(WAITING_BYTES_MAX).collect();
            for chunk in sent.chunks(50_000) {
                to.push(chunk.to_vec());
            }
            assert!(to.is_full());
            to.close();
            to.push(b"too late".to_vec());
            let mut got = Vec::new();
            loop {
                tokio::select! {
                    () = to.write(), if !to.is_empty() => {}
                    bytes = from.read() => match bytes {
                        Some(bytes) => got.extend(bytes),
                        None => break,
                    },
                }
            }
            assert!(got == sent && to.is_over() && from.read_now().is_none());
        });
    }

    #[test]
    fn what_nobody_reads_is_dropped() {
        run(async {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
            let mut to = Writable::new(write).expect("made");
            to.push(b"words".to_vec());
            drop(read);
            to.write().await;
            assert!(to.is_over() && to.is_empty() && !to.is_full());
        });
    }
}
