//! Puts a filter over the devices of a container's cgroup, as cheaply as a start must be.
//!
//! ```text
//! celda/          the default list, attached once and for good; groups below may have another
//!   <id>/         nothing of its own: the parent's holds, which one bpf(2) call confirms
//!   <id>/         other rules: a program of its own, loaded once for each process of the runtime
//! ```
//! To load a program takes the kernel some 0.4 ms, and the first one attached on a machine patches code on all of its
//! processors; to ask which one holds takes 1 us.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::Rules;
use super::compile::{EbpfInstruction, compile};
use crate::sandbox::cgroup::CgroupDir;
use crate::sandbox::error::{Result, SandboxError};
use crate::sys::{self, PROGRAMS_COUNT_MAX};

/// The default program's name: it tells it from others, and changes whenever [`super::DEFAULTS`] do.
const DEFAULT_NAME: &str = "celda_devices_1";
/// Programs kept for later containers with the same rules.
const PROGRAMS_KEPT_MAX: usize = 16;

/// The id of the default program, once it was seen to hold; 0 before.
static DEFAULT_ID: AtomicU32 = AtomicU32::new(0);

/// Sees to it that `rules` hold for whatever is born into `group`; false where the kernel does not let us.
///
/// # Errors
/// [`SandboxError::Parent`] when the kernel refuses for another reason than a missing right or feature.
pub(in crate::sandbox) fn guard(group: &CgroupDir, rules: &Rules) -> Result<bool> {
    let answer = if *rules == Rules::defaults() { inherit(group) } else { own(group.fd(), rules) };
    match answer {
        Ok(()) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(SandboxError::parent("filter the container's devices")(error)),
    }
}

/// EPERM, EINVAL or ENOSYS: no right to, or a kernel without eBPF for cgroups.
fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let missing = [Errno::PERM, Errno::INVAL, Errno::NOSYS, Errno::ACCESS].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| missing.contains(&errno))
}

/// The default program, attached to the parent of `group` if it does not hold yet.
fn inherit(group: &CgroupDir) -> io::Result<()> {
    if default_holds(group.fd())? {
        return Ok(());
    }
    let program = sys::load_device_program(&compile(&Rules::defaults()), DEFAULT_NAME)?;
    sys::attach_device_program(group.parent(), program.as_fd(), true)?;
    if default_holds(group.fd())? { Ok(()) } else { Err(io::Error::other("another program holds")) }
}

fn default_holds(group: BorrowedFd<'_>) -> io::Result<bool> {
    let mut ids = [0; PROGRAMS_COUNT_MAX];
    let count = sys::device_programs(group, &mut ids)?;
    let ids = ids.get(..count).unwrap_or_default();
    let known = DEFAULT_ID.load(Relaxed);
    if known != 0 && ids.contains(&known) {
        return Ok(true);
    }
    for id in ids {
        if sys::program_has_name(*id, DEFAULT_NAME)? {
            DEFAULT_ID.store(*id, Relaxed);
            return Ok(true);
        }
    }
    Ok(false)
}

/// A program of the group's own, in the place of the parent's.
fn own(group: BorrowedFd<'_>, rules: &Rules) -> io::Result<()> {
    static PROGRAMS: Mutex<Option<HashMap<Vec<EbpfInstruction>, OwnedFd>>> = Mutex::new(None);
    let mut programs = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner);
    let programs = programs.get_or_insert_default();
    let text = compile(rules);
    if let Some(program) = programs.get(&text) {
        return sys::attach_device_program(group, program.as_fd(), false);
    }
    let program = sys::load_device_program(&text, "celda_devices")?;
    sys::attach_device_program(group, program.as_fd(), false)?;
    if programs.len() == PROGRAMS_KEPT_MAX {
        programs.clear();
    }
    programs.insert(text, program);
    Ok(())
}
