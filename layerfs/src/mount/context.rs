//! One mount in the making: `fsopen` -> options -> `create` -> `fsmount`, with the kernel's own words in errors.
//!
//! ```text
//! fsopen("erofs") -> fd --fsconfig(source, device, ...)--> fsconfig(CREATE) -> fsmount -> detached mount fd
//!                    '-- read(fd): "e erofs: cannot find valid erofs superblock"   (why a step failed)
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::Error;

/// Messages read from one context. The kernel keeps the last eight.
const MESSAGES_COUNT: usize = 8;

/// Bytes kept of one message.
const MESSAGE_BYTES: usize = 512;

/// Bytes of an option's value, NUL included, above which fsconfig(2) answers `EINVAL` (`strndup_user` in
/// fs/fsopen.c).
pub(super) const VALUE_BYTES: usize = 256;

/// A filesystem context held by fd.
#[derive(Debug)]
pub(super) struct Context {
    fd: OwnedFd,
}

/// A refused step: the errno and the kernel's text. The caller adds what it was doing.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) errno: Errno,
    pub(super) kernel: String,
}

/// A step's answer, or why the kernel refused it.
pub(super) type Refused<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal outside any context.
    pub(super) fn of(errno: Errno) -> Self {
        Self { errno, kernel: String::new() }
    }
}

impl Context {
    /// `fsopen(filesystem, FSOPEN_CLOEXEC)`. `ENODEV`: the kernel has no such filesystem.
    pub(super) fn open(filesystem: &str) -> Refused<Self> {
        match rustix::mount::fsopen(filesystem, FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => Err(Refusal { errno, kernel: String::new() }),
        }
    }

    /// `fsconfig(fd, FSCONFIG_SET_STRING, key, value, 0)`.
    pub(super) fn string(&self, key: &str, value: impl rustix::path::Arg) -> Refused<()> {
        self.check(rustix::mount::fsconfig_set_string(self.fd.as_fd(), key, value))
    }

    /// `fsconfig(fd, FSCONFIG_SET_FLAG, key, NULL, 0)`.
    pub(super) fn flag(&self, key: &str) -> Refused<()> {
        self.check(rustix::mount::fsconfig_set_flag(self.fd.as_fd(), key))
    }

    /// `fsconfig(fd, FSCONFIG_SET_FD, key, NULL, value)`.
    pub(super) fn fd(&self, key: &str, value: BorrowedFd<'_>) -> Refused<()> {
        self.check(rustix::mount::fsconfig_set_fd(self.fd.as_fd(), key, value))
    }

    /// Creates the superblock and a detached mount of it.
    pub(super) fn mount(self, attributes: MountAttrFlags) -> Refused<OwnedFd> {
        self.check(rustix::mount::fsconfig_create(self.fd.as_fd()))?;
        self.check(rustix::mount::fsmount(self.fd.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes))
    }

    /// Adds the kernel's text to a failure.
    fn check<T>(&self, answer: Result<T, Errno>) -> Refused<T> {
        answer.map_err(|errno| Refusal { errno, kernel: self.messages() })
    }

    /// What the kernel wrote to this context: one message a read, `ENODATA` at the end. Less its level (`e `).
    fn messages(&self) -> String {
        let mut text = String::new();
        let mut message = [0u8; MESSAGE_BYTES];
        for _ in 0..MESSAGES_COUNT {
            let Ok(bytes_count) = rustix::io::read(&self.fd, &mut message) else { break };
            let line = String::from_utf8_lossy(&message[..bytes_count]);
            let line = line.trim_end();
            let line = line.split_once(' ').map_or(line, |(_level, rest)| rest);
            if !text.is_empty() {
                text.push_str(", ");
            }
            text.push_str(line);
        }
        text
    }
}

impl Refusal {
    /// The crate's error for this refusal.
    pub(super) fn at(self, action: &'static str, path: &Path, hint: &'static str) -> Error {
        Error::Mount {
            action,
            path: PathBuf::from(path),
            kernel: self.kernel,
            source: self.errno.into(),
            hint,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let error = std::io::Error::from(self.errno);
        if self.kernel.is_empty() { write!(f, "{error}") } else { write!(f, "{error} ({})", self.kernel) }
    }
}
