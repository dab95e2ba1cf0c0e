//! A run of bytes in a regular file: a blob of a layout, or a member of an archive.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use super::{READ_BYTES, Sink, SourceError, source_error};
use crate::transport::Cancel;
use crate::{Error, Result};

/// A file's identity and state: as long as it is the same, so is the content (to a program that does not forge times).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    path: PathBuf,
    bytes: u64,
    mtime_s: i64,
    mtime_ns: i64,
    device: u64,
    inode: u64,
}

impl Stamp {
    /// The state of the file at `path` now.
    ///
    /// # Errors
    /// When the path leads nowhere.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let path = std::fs::canonicalize(path)?;
        let metadata = std::fs::metadata(&path)?;
        Ok(Self {
            bytes: metadata.len(),
            mtime_s: metadata.mtime(),
            mtime_ns: metadata.mtime_nsec(),
            device: metadata.dev(),
            inode: metadata.ino(),
            path,
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, bytes, mtime_s, mtime_ns, device, inode } = self;
        write!(f, "{path:?} bytes={bytes} mtime={mtime_s}.{mtime_ns:09} device={device} inode={inode}")
    }
}

/// Bytes `start..start + bytes` of a file.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) file: Arc<File>,
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// Opens a regular file without ever waiting for a fifo's other end. `None` if there is nothing.
pub(super) fn open_regular(path: &Path) -> Result<Option<Section>> {
    let name = || path.display().to_string();
    let file =
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(Error::io("open", path)(errno.into())),
        };
    let metadata = file.metadata().map_err(Error::io("look at", path))?;
    if !metadata.is_file() {
        return Err(source_error(path, SourceError::NotAFile(name())));
    }
    Ok(Some(Section { file: Arc::new(file), start: 0, bytes: metadata.len() }))
}

impl Section {
    /// All bytes, if they are no more than `limit`.
    pub(super) fn read_all(&self, path: &Path, name: &str, limit: u64) -> Result<Vec<u8>> {
        if self.bytes > limit {
            let reason = SourceError::TooLong { name: name.to_owned(), bytes: self.bytes, limit };
            return Err(source_error(path, reason));
        }
        let mut bytes = vec![0; usize::try_from(self.bytes).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, self.start).map_err(Error::io("read", path))?;
        Ok(bytes)
    }

    /// The first bytes, up to `bytes.len()`.
    pub(super) fn peek(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let wanted = usize::try_from(self.bytes).unwrap_or(usize::MAX).min(bytes.len());
        self.file.read_exact_at(&mut bytes[..wanted], self.start)?;
        Ok(wanted)
    }

    /// Pushes all bytes into `sink`.
    pub(super) fn push(&self, path: &Path, cancel: &Cancel, sink: Sink<'_>) -> Result<()> {
        let mut buffer = vec![0; READ_BYTES.min(usize::try_from(self.bytes).unwrap_or(READ_BYTES)).max(1)];
        let mut done = 0;
        while done < self.bytes {
            if cancel.is_cancelled() {
                return Err(Error::Cancelled { what: format!("reading {}", path.display()) });
            }
            let wanted = usize::try_from(self.bytes - done).unwrap_or(usize::MAX).min(buffer.len());
            self.file
                .read_exact_at(&mut buffer[..wanted], self.start + done)
                .map_err(Error::io("read", path))?;
            sink(&buffer[..wanted])?;
            done += wanted as u64;
        }
        Ok(())
    }
}
