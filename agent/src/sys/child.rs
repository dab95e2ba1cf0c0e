//! The child's walk over the steps.

use std::ffi::{CStr, c_void};

use super::calls::{self, Answer, Errno};
use super::report::Report;
use super::{child_exec, child_mounts, child_process};
use crate::sandbox::step::{Slot, Step};

/// The table of descriptors, read and written by steps.
pub(super) struct Slots<'a>(pub(super) &'a mut [i32]);

impl Slots<'_> {
    /// The descriptor in a slot; `EBADF` when the plan is wrong about it.
    pub(super) fn get(&self, slot: Slot) -> Answer<i32> {
        match self.0.get(usize::from(slot.0)) {
            Some(fd) if *fd >= 0 => Ok(*fd),
            _ => Err(libc::EBADF),
        }
    }

    pub(super) fn set(&mut self, slot: Slot, fd: i32) -> Answer {
        let place = self.0.get_mut(usize::from(slot.0)).ok_or(libc::EBADF)?;
        *place = fd;
        Ok(())
    }
}

/// Everything the child looks at; it lives in the parent's frame.
pub(super) struct Child<'a> {
    pub(super) steps: &'a [Step],
    /// Which of them is next.
    pub(super) next: usize,
    /// The program's process, in the reaper; 0 elsewhere.
    pub(super) program: i32,
    pub(super) slots: Slots<'a>,
    pub(super) report: &'a Report,
    /// Lowest address and size of the stack for the program under a reaper.
    pub(super) second_stack: (u64, u64),
    /// The root directory of the container, once it is there.
    pub(super) root: i32,
    /// Device and inode of the runtime's own executable.
    pub(super) agent: (u32, u32, u64),
    /// The empty filesystem for masks covers a directory already.
    pub(super) empty_is_placed: bool,
}

/// The exit status of a child that failed; nobody looks at it, the report says more.
pub(super) const FAILED: i32 = 125;

/// The child's first function, on a stack of its own.
///
/// # Safety
/// `child` points to a [`Child`] that nobody else touches until this process has executed or exited.
pub(super) unsafe extern "C" fn run(child: *mut c_void) -> ! {
    // SAFETY: the caller's promise: exclusive until we execute or exit, and the parent keeps it alive so long.
    walk(unsafe { &mut *child.cast::<Child<'_>>() })
}

/// Takes the steps from [`Child::next`] on; the last one does not come back.
pub(super) fn walk(child: &mut Child<'_>) -> ! {
    let steps = child.steps;
    while let Some(step) = steps.get(child.next) {
        child.report.begin(child.next as u32);
        child.next = child.next.wrapping_add(1);
        if let Err(errno) = take(child, step) {
            child.report.fail(errno);
            break;
        }
    }
    calls::exit(FAILED)
}

fn take(child: &mut Child<'_>, step: &Step) -> Result<(), Errno> {
    let slots = &mut child.slots;
    match step {
        Step::AwaitIdMap { ready, go, writer } => {
            child_process::await_id_map(slots.get(*ready)?, slots.get(*go)?, slots.get(*writer)?)
        }
        Step::AssumeRoot => child_process::assume_root(),
        Step::Join { flag, from, .. } => {
            calls::call_plain(libc::SYS_setns, [slots.get(*from)? as usize, *flag as usize]).map(drop)
        }
        Step::Unshare { flags, .. } => calls::call_plain(libc::SYS_unshare, [*flags as usize]).map(drop),
        Step::TimeOffsets(lines) => write_file(libc::AT_FDCWD, c"/proc/self/timens_offsets", lines),
        Step::NewSession => calls::call_plain(libc::SYS_setsid, []).map(drop),
        Step::NewKeyring => child_process::new_keyring(),
        Step::ResetSignals { which } => child_process::reset_signals(*which),
        Step::AllProcessors => child_process::all_processors(),
        Step::Nice(value) => {
            let arguments = [libc::PRIO_PROCESS as usize, 0, *value as usize];
            unless_denied(calls::call_plain(libc::SYS_setpriority, arguments).map(drop))
        }
        Step::PlainScheduler => unless_denied(child_process::plain_scheduler()),
        Step::PlainIoPriority => unless_denied(child_process::plain_io_priority()),
        Step::PlainPersonality => calls::call_plain(libc::SYS_personality, [0]).map(drop),
        Step::Umask(mask) => calls::call_plain(libc::SYS_umask, [*mask as usize]).map(drop),
        Step::OomScore { value, is_default } => {
            let answer = write_file(libc::AT_FDCWD, c"/proc/self/oom_score_adj", value);
            if *is_default { unless_denied(answer) } else { answer }
        }
        Step::Limit { resource, soft, hard, is_default, .. } => {
            let answer = child_process::limit(*resource, *soft, *hard);
            if *is_default { unless_denied(answer) } else { answer }
        }
        Step::LoopbackUp => child_process::loopback_up(),
        Step::Hostname(name) => child_process::set_name(libc::SYS_sethostname, name),
        Step::Domainname(name) => child_process::set_name(libc::SYS_setdomainname, name),
        Step::Sysctl { proc, path, value } => write_file(slots.get(*proc)?, path, value),
        Step::Label { proc, path, value } => write_file(slots.get(*proc)?, path, value),
        Step::ControllingTerminal { terminal } => child_process::take_terminal(slots.get(*terminal)?),
        Step::Stdio { files: [input, output, error], owner } => {
            let files = [slots.get(*input)?, slots.get(*output)?, slots.get(*error)?];
            child_process::stdio(files, *owner)
        }
        Step::BoundingSet { keep } => child_process::bound_capabilities(*keep),
        Step::Identity { uid, gid, groups } => child_process::identity(*uid, *gid, groups),
        Step::Capabilities(masks) => child_process::capabilities(*masks),
        Step::NoNewPrivileges => child_process::no_new_privileges(),
        Step::DieWithCaller { alive, writer } => {
            child_process::die_with_caller(slots.get(*alive)?, slots.get(*writer)?)
        }
        Step::Seccomp { program } => child_process::seccomp(program),
        Step::CloseOthers => child_process::close_others(slots.0),
        Step::CloseFiles => child_process::close_files(),
        Step::Fork { terminal } => child_exec::fork(child, *terminal),
        Step::Execute(execute) => child_exec::execute(child, execute),
        mounts => child_mounts::take(child, mounts),
    }
}

/// A reset that nobody asked for and that takes a right which a user namespace's root lacks: better inherited than not
/// started.
fn unless_denied(answer: Answer) -> Answer {
    if matches!(answer, Err(libc::EPERM | libc::EACCES)) { Ok(()) } else { answer }
}

/// Writes a value to an existing file: a sysctl, a label, a score.
fn write_file(directory: i32, path: &CStr, value: &CStr) -> Answer {
    let file = calls::openat(directory, path, libc::O_WRONLY | libc::O_NOFOLLOW)?;
    let answer = calls::write_all(file, value.to_bytes());
    calls::close(file);
    answer
}
