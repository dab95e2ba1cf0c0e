//! The helper, run from a sealed memory file: the reaper that `--init` makes process 1, and what executes a program
//! that must not see the runtime's own executable behind `/proc/self/exe`.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use rustix::io::Errno;

use super::error::{Result, SandboxError};

/// A static ELF for this architecture, see `agent/init/main.rs`.
const EXECUTABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/celda-init"));

/// The helper's executable, sealed: what a container finds behind `/proc/1/exe` is no file of the host, and nobody
/// can write to it (CVE-2019-5736). It is made once for each process of the runtime.
pub(super) fn executable() -> Result<BorrowedFd<'static>> {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    match FILE.get() {
        Some(file) => Ok(file.as_fd()),
        None => {
            let file = make()?;
            Ok(FILE.get_or_init(|| file).as_fd())
        }
    }
}

fn make() -> Result<OwnedFd> {
    let failed = |action| move |errno: Errno| SandboxError::parent(action)(errno.into());
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC is younger (Linux 6.3) than what this must run on; it only silences a warning of the kernel.
    let flags_exec = flags | MemfdFlags::EXEC;
    let file = match rustix::fs::memfd_create("celda-init", flags_exec) {
        Err(Errno::INVAL) => rustix::fs::memfd_create("celda-init", flags),
        answer => answer,
    }
    .map_err(failed("make a memory file for the helper"))?;
    let mut rest = EXECUTABLE;
    while !rest.is_empty() {
        let count = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))
            .map_err(failed("write the helper to its memory file"))?;
        rest = rest.get(count..).unwrap_or_default();
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(0o555)).map_err(failed("make the helper executable"))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(failed("seal the helper"))?;
    Ok(file)
}
