//! The reaper that `--init` makes process 1, run from a sealed memory file.

use std::os::fd::OwnedFd;

use super::error::{Result, SandboxError};

/// The reaper's executable, sealed: what runs in the container is no file of the host.
pub(super) fn executable() -> Result<OwnedFd> {
    Err(SandboxError::unsupported("init", "not built"))
}
