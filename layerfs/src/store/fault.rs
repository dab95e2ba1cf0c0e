//! The kernel's answers that a user can do something about, told as such.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use crate::Error;

/// Shapes an I/O error on a path of the store: full, read-only and forbidden are errors of their own.
pub(crate) fn fault(action: &'static str, path: &Path, source: io::Error) -> Error {
    fault_needing(action, path, source, String::new())
}

/// Like [`fault`], for a step that can say how much space it wanted.
pub(crate) fn fault_needing(action: &'static str, path: &Path, source: io::Error, needed: String) -> Error {
    let path = path.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::NOSPC | Errno::DQUOT) => {
            let (free_bytes, total_bytes) = space(&path);
            Error::NoSpace { action, path, free_bytes, total_bytes, needed }
        }
        Some(Errno::ACCESS | Errno::PERM) => Error::NoPermission { action, path },
        Some(Errno::ROFS) => Error::ReadOnly { action, path },
        _ => Error::Io { action, path, source },
    }
}

/// Free and total bytes of the filesystem that holds `path` or its nearest directory that is there.
fn space(path: &Path) -> (u64, u64) {
    path.ancestors()
        .find_map(|place| rustix::fs::statvfs(place).ok())
        .map_or((0, 0), |stat| (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}
