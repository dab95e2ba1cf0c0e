//! flock with a bounded wait. The kernel drops a lock with its last descriptor, so `kill -9` releases everything.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::{Error, Result};

/// How often a held lock is tried again.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Shared or exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// Takes the lock if nobody holds it against `mode`; `false` if somebody does.
pub(crate) fn try_lock(file: &File, mode: Mode) -> io::Result<bool> {
    let operation = match mode {
        Mode::Shared => FlockOperation::NonBlockingLockShared,
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whose patience a wait for a lock is.
pub(crate) struct Wait<'a> {
    /// How long at most.
    pub(crate) at_most: Duration,
    /// What is waited for, for the error.
    pub(crate) what: &'a str,
    /// What to do when it was in vain.
    pub(crate) hint: &'static str,
}

/// Takes the lock, waiting at most as long as `wait` says.
pub(crate) fn lock(file: &File, path: &Path, mode: Mode, wait: &Wait<'_>) -> Result<()> {
    let start = Instant::now();
    while !try_lock(file, mode).map_err(Error::io("lock", path))? {
        if start.elapsed() >= wait.at_most {
            return Err(Error::Busy {
                what: wait.what.to_owned(),
                path: path.to_owned(),
                waited_s: wait.at_most.as_secs(),
                hint: wait.hint,
            });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Whether `file` still is what lies at `path`: after waiting for a lock it may have been published or removed.
pub(crate) fn is_still_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => ours.dev() == there.dev() && ours.ino() == there.ino(),
        _ => false,
    }
}
