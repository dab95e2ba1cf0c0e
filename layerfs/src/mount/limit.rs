//! How much a writable layer may hold, and by which way that is kept.
//!
//! ```text
//! limit ──> does the filesystem of the layers keep limits of projects, and is the container kept in its project?
//!             yes: quota   the layer's directory is a project with a hard limit              (quota.rs)
//!             no:  sized   `upper` and `work` are in a filesystem of that size, in a file    (sized.rs)
//! ```
//! Whoever owns a file, and is not in a user namespace of its own, may move it to another project: for a container that
//! runs as the host's root a project is no bound.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use serde::Serialize;

use super::{quota, sized};
use crate::{Error, Result};

/// The smallest limit: below it a filesystem has no room beside its own records.
pub const LIMIT_BYTES_MIN: u64 = 16 << 20;
/// The largest limit: an ext4 of more takes longer to make than a container should wait for.
pub const LIMIT_BYTES_MAX: u64 = 1 << 40;

/// A limit of one writable layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimit {
    /// Bytes, [`LIMIT_BYTES_MIN`] to [`LIMIT_BYTES_MAX`].
    pub bytes: u64,
    /// The container has a user namespace of its own, from which files cannot be moved to another project.
    pub is_own_user_namespace: bool,
}

/// Where a layer's `upper` and `work` are.
#[derive(Debug)]
pub(super) enum Space {
    /// In the layer's directory, and as large as they become.
    Free,
    /// In the layer's directory, which is this project.
    Project(u32),
    /// In a filesystem of their own, by its detached mount.
    Sized(OwnedFd),
}

impl Space {
    /// Makes the space of a new layer that is locked and empty.
    pub(super) fn limited(lock: BorrowedFd<'_>, path: &Path, limit: DiskLimit) -> Result<Self> {
        let failed = |source: std::io::Error| Error::io("limit the writable layer", path)(source);
        check(limit.bytes)
            .map_err(|why| failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, why)))?;
        if limit.is_own_user_namespace && quota::why_not(lock).is_none() {
            return quota::begin(lock, limit.bytes).map(Self::Project).map_err(failed);
        }
        sized::make(path, limit.bytes).map(Self::Sized)
    }

    /// The directory that `upper` and `work` are in, if it is not the layer's.
    pub(super) fn mount(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Sized(mount) => Some(mount.as_fd()),
            Self::Free | Self::Project(_) => None,
        }
    }
}

/// Whether a limit is possible.
///
/// # Errors
/// What would be.
pub fn check(bytes: u64) -> std::result::Result<(), String> {
    if (LIMIT_BYTES_MIN..=LIMIT_BYTES_MAX).contains(&bytes) {
        return Ok(());
    }
    let (min_mib, max_gib) = (LIMIT_BYTES_MIN >> 20, LIMIT_BYTES_MAX >> 30);
    Err(format!("a limit of {bytes} bytes: it is {min_mib} MiB to {max_gib} GiB"))
}

/// How limits of writable layers are kept here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskLimits {
    /// `project quota` for containers with a user namespace of their own; they have none here if this is `None`.
    pub mapped: Option<&'static str>,
    /// `sized filesystem` for all others.
    pub others: Option<&'static str>,
    /// Why not otherwise, and what would mend it.
    pub why: Vec<String>,
}

impl DiskLimits {
    /// Looks at the filesystem of `root`, which must be there. Mounts nothing.
    pub fn probe(root: &Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(CWD, root, flags, Mode::empty());
        let no_quota = match &directory {
            Ok(directory) => quota::why_not(directory.as_fd()),
            Err(errno) => Some(format!("{}: {errno}", root.display())),
        };
        let no_sized = sized::why_not();
        let others = no_sized.is_none().then_some(sized::WAY);
        let mapped = if no_quota.is_none() { Some(quota::WAY) } else { others };
        let mut why = Vec::new();
        match no_quota {
            Some(reason) => why.push(format!("no project quota: {reason}")),
            None => why.push(
                "project quotas bind containers with a user namespace only (--userns): the host's root may move its \
                 files to another project"
                    .to_owned(),
            ),
        }
        why.extend(no_sized.map(|reason| format!("no sized filesystem: {reason}")));
        Self { mapped, others, why }
    }

    /// In a few words, for one line.
    pub fn words(&self) -> String {
        match (self.mapped, self.others) {
            (mapped, others) if mapped == others => mapped.unwrap_or("none").to_owned(),
            (mapped, others) => format!(
                "{} with a user namespace, {} without",
                mapped.unwrap_or("none"),
                others.unwrap_or("none")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_bounded() {
        for bytes in [LIMIT_BYTES_MIN, LIMIT_BYTES_MAX] {
            check(bytes).expect("possible");
        }
        for bytes in [0, LIMIT_BYTES_MIN - 1, LIMIT_BYTES_MAX + 1, u64::MAX] {
            let why = check(bytes).expect_err("too small or too large");
            assert!(why.contains("16 MiB to 1024 GiB"), "{why}");
        }
    }

    #[test]
    fn both_ways_are_said() {
        let limits = |mapped, others| DiskLimits { mapped, others, why: Vec::new() }.words();
        assert_eq!(limits(None, None), "none");
        assert_eq!(limits(Some("a"), Some("a")), "a");
        assert_eq!(limits(Some("a"), None), "a with a user namespace, none without");
    }
}
