//! How bytes get to and from the disk: by plain syscalls on the threads that have them, or by io_uring.
//!
//! ```text
//! io = auto | ring | threads      auto takes what `benches/benches/io.rs` measured to win: see docs/decisions.md
//!        |
//!      Workshop ---- BlobWriter (ingest)      writes of whole buffers, write-back started as they go
//!               `--- hash (verify)            reads, several at once on the ring
//! ```
//!
//! The ring is probed at its first use. Where it is forbidden or missing, threads do the same work.

#[cfg(feature = "ring")]
mod ring;
mod threads;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::io;
use std::str::FromStr;
use std::sync::Arc;
#[cfg(feature = "ring")]
use std::sync::OnceLock;
use std::sync::mpsc::SyncSender;

use crate::Digest;

/// Bytes of one buffer: one write, one read.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;

/// Bytes after which write-back of what was written is started, so that fsync finds little left.
pub(crate) const WRITEBACK_BYTES: u64 = 8 << 20;

/// Which I/O path is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoChoice {
    /// What is measured to win for each kind of work, threads where there is no ring.
    #[default]
    Auto,
    /// io_uring for all that it can do here; threads, with a warning, where there is none.
    Ring,
    /// Plain syscalls.
    Threads,
}

impl FromStr for IoChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "ring" => Ok(Self::Ring),
            "threads" => Ok(Self::Threads),
            other => Err(format!("{other:?} is not an I/O path; expected auto, ring or threads")),
        }
    }
}

impl IoChoice {
    /// Whether layers are written by the ring, if there is one. Auto writes by threads: the ring took 5 % more CPU
    /// (benches/benches/io.rs), as each buffer is copied into a registered one.
    pub fn writes_by_ring(self) -> bool {
        self == Self::Ring
    }

    /// Whether `verify` reads by the ring, if there is one. Auto does: 4 % less CPU on cold layers, and a scrub neither
    /// trusts the page cache nor fills it.
    pub fn reads_by_ring(self) -> bool {
        self != Self::Threads
    }
}

impl fmt::Display for IoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Ring => "ring",
            Self::Threads => "threads",
        })
    }
}

/// Whether io_uring can be used by this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingProbe {
    /// Whether a ring could be set up.
    pub is_available: bool,
    /// Why not, as a user should read it; empty if it could.
    pub reason: String,
}

/// Tries to set a ring up, and tears it down.
pub fn probe_ring() -> RingProbe {
    #[cfg(feature = "ring")]
    let answer = ring::Ring::start().map(drop);
    #[cfg(not(feature = "ring"))]
    let answer: io::Result<()> =
        Err(io::Error::new(io::ErrorKind::Unsupported, "built without the ring feature"));
    match answer {
        Ok(()) => RingProbe { is_available: true, reason: String::new() },
        Err(error) => RingProbe { is_available: false, reason: likely_cause(&error) },
    }
}

/// What an error of io_uring_setup probably means (io_uring_setup(2), sysctl kernel.io_uring_disabled).
fn likely_cause(error: &io::Error) -> String {
    use rustix::io::Errno;
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    let cause = match (Errno::from_io_error(error), disabled.trim()) {
        (Some(Errno::PERM), "1" | "2") => {
            format!("the sysctl kernel.io_uring_disabled is {}", disabled.trim())
        }
        (Some(Errno::PERM | Errno::ACCESS), _) => "probably a seccomp or LSM policy forbids it".into(),
        (Some(Errno::NOSYS), _) => "the kernel has no io_uring, or a seccomp policy hides it".into(),
        (Some(Errno::INVAL), _) => "the kernel is too old for what is asked of its io_uring".into(),
        (Some(Errno::NOMEM), _) => "too little lockable memory (RLIMIT_MEMLOCK)".into(),
        _ => return error.to_string(),
    };
    format!("{error}: {cause}")
}

/// A buffer that was written, on its way back to whoever fills it; or the error that ended the writing.
pub(crate) type Returns = SyncSender<Vec<u8>>;

/// The I/O paths of one pull or verify. The ring's thread starts with its first use and ends with the workshop.
#[derive(Debug)]
pub(crate) struct Workshop {
    #[cfg(feature = "ring")]
    choice: IoChoice,
    #[cfg(feature = "ring")]
    ring: OnceLock<Option<ring::Ring>>,
}

impl Workshop {
    pub(crate) fn new(choice: IoChoice) -> Self {
        #[cfg(not(feature = "ring"))]
        let _ = choice;
        Self {
            #[cfg(feature = "ring")]
            choice,
            #[cfg(feature = "ring")]
            ring: OnceLock::new(),
        }
    }

    /// The ring, set up on the first call; `None` where it cannot be.
    #[cfg(feature = "ring")]
    fn ring(&self) -> Option<&ring::Ring> {
        let start = || match ring::Ring::start() {
            Ok(ring) => Some(ring),
            Err(error) => {
                let cause = likely_cause(&error);
                tracing::warn!(%cause, "no io_uring here; plain threads do the I/O");
                None
            }
        };
        self.ring.get_or_init(start).as_ref()
    }

    /// A writer for one file that begins empty. Buffers come back through `returns` in any order.
    pub(crate) fn writer(&self, file: File, returns: Returns) -> BlobWriter {
        #[cfg(feature = "ring")]
        if self.choice.writes_by_ring()
            && let Some(ring) = self.ring()
        {
            return BlobWriter::Ring(ring.writer(file, returns));
        }
        BlobWriter::Threads(threads::Writer::new(file, returns))
    }

    /// The digest and length of a whole file.
    pub(crate) fn hash(&self, file: File) -> io::Result<(Digest, u64)> {
        #[cfg(feature = "ring")]
        if self.choice.reads_by_ring()
            && let Some(ring) = self.ring()
        {
            return ring.hash(file);
        }
        threads::hash(file)
    }
}

/// Writes a file from its start to its end, in whole buffers.
pub(crate) enum BlobWriter {
    /// `write(2)` on the calling thread.
    Threads(threads::Writer),
    /// io_uring on the workshop's ring thread.
    #[cfg(feature = "ring")]
    Ring(ring::Writer),
}

impl BlobWriter {
    /// Appends a buffer.
    pub(crate) fn write(&mut self, buffer: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Threads(writer) => writer.write(buffer),
            #[cfg(feature = "ring")]
            Self::Ring(writer) => writer.write(buffer),
        }
    }

    /// Waits until all is written (not: on the disk); gives the length.
    pub(crate) fn finish(self) -> io::Result<u64> {
        match self {
            Self::Threads(writer) => Ok(writer.finish()),
            #[cfg(feature = "ring")]
            Self::Ring(writer) => writer.finish(),
        }
    }
}

/// Starts write-back behind a writer, a stretch at a time.
#[derive(Debug)]
pub(crate) struct Writeback {
    file: Arc<File>,
    started_bytes: u64,
}

impl Writeback {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self { file, started_bytes: 0 }
    }

    /// `written_bytes` of the file are written by now.
    pub(crate) fn advance(&mut self, written_bytes: u64) {
        let length = written_bytes - self.started_bytes;
        if length >= WRITEBACK_BYTES {
            // Only a head start: the fsync before the publish reports what goes wrong.
            let _ = crate::sys::writeback::start(&self.file, self.started_bytes, length);
            self.started_bytes = written_bytes;
        }
    }
}
