//! The parent's side of `clone3`: blocks signals, clones, and answers when the program runs or the child is gone.

use std::ffi::c_void;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::time::Instant;

use super::calls;
use super::child::{self, Child, Slots};
use super::clone3::{Stacks, clone3};
use super::report::Report;
use crate::sandbox::step::Step;

/// Everything a child needs.
pub(crate) struct Job<'a> {
    /// What it does, in order.
    pub(crate) steps: &'a [Step],
    /// The table of descriptors; the parent's are filled in, the others -1.
    pub(crate) slots: &'a mut [i32],
    /// Where it tells how far it came.
    pub(crate) report: &'a Report,
    /// `CLONE_NEW*` flags.
    pub(crate) namespaces: u64,
    /// The cgroup it is born into.
    pub(crate) cgroup: Option<i32>,
    /// Filled by the kernel before the child's first instruction.
    pub(crate) pid: &'a AtomicI32,
}

/// A child that has executed its program, or ended.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cloned_at: Instant,
    pub(crate) executed_at: Instant,
}

/// `long clone3(...)` with `CLONE_VM | CLONE_VFORK | CLONE_PIDFD`; the calling thread sleeps until the child has
/// executed its program or ended, which [`Report`] tells apart.
///
/// # Errors
/// `EPERM` (no privilege for a namespace), `EAGAIN` (process limit), `ENOSPC` (namespace limit), `ENOMEM`.
pub(crate) fn spawn(job: &mut Job<'_>) -> io::Result<Spawned> {
    let stacks = Stacks::new()?;
    let mut pidfd = -1_i32;
    // SAFETY: `clone_args` is plain numbers, for which all zeros is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let shared = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID;
    args.flags = shared as u64 | CLONE_CLEAR_SIGHAND | job.namespaces;
    args.pidfd = (&raw mut pidfd) as u64;
    args.parent_tid = job.pid.as_ptr() as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    (args.stack, args.stack_size) = stacks.range(0);
    if let Some(cgroup) = job.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup as u64;
    }
    let mut child = Child {
        steps: job.steps,
        next: 0,
        program: 0,
        slots: Slots(job.slots),
        report: job.report,
        second_stack: stacks.range(1),
        root: -1,
        agent: own_executable()?,
        empty_is_placed: false,
    };
    let signals = BlockedSignals::new()?;
    let cloned_at = Instant::now();
    // SAFETY: stack and `child` are exclusively the new process's until this call returns, which CLONE_VFORK
    // delays until it has executed or exited; signals are blocked, so no handler runs on the shared memory there.
    let answer = unsafe { clone3(&args, child::run, (&raw mut child).cast::<c_void>()) };
    let executed_at = Instant::now();
    drop(signals);
    let pid = answer.map_err(io::Error::from_raw_os_error)?;
    job.pid.store(pid, Relaxed);
    // SAFETY: clone3 succeeded with CLONE_PIDFD, so the kernel put a new descriptor there that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Spawned { pid, pidfd, cloned_at, executed_at })
}

/// Device and inode of what this process executes.
fn own_executable() -> io::Result<(u32, u32, u64)> {
    static OWN: OnceLock<(u32, u32, u64)> = OnceLock::new();
    if let Some(own) = OWN.get() {
        return Ok(*own);
    }
    let failed = io::Error::from_raw_os_error;
    let file = calls::openat(libc::AT_FDCWD, c"/proc/self/exe", libc::O_PATH).map_err(failed)?;
    let identity = calls::identity_of(file);
    calls::close(file);
    let identity = identity.map_err(failed)?;
    Ok(*OWN.get_or_init(|| identity))
}

/// linux/sched.h; `libc` has them as a signed 32-bit type that they do not fit.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// All signals blocked on this thread, until dropped.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    /// `int pthread_sigmask(SIG_SETMASK, all, before)`, see pthread_sigmask(3).
    fn new() -> io::Result<Self> {
        // SAFETY: `sigset_t` is plain numbers, for which all zeros is valid.
        let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut before: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `all` and `before` are whole signal sets of this frame.
        let errno = unsafe {
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before)
        };
        if errno == 0 { Ok(Self { before }) } else { Err(io::Error::from_raw_os_error(errno)) }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: `before` is the set that `new` was given by the kernel.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// `SIOCSIFFLAGS` on `lo` of the calling thread's network namespace, see netdevice(7).
///
/// # Errors
/// `EPERM`.
pub(crate) fn loopback_up() -> io::Result<()> {
    super::child_process::loopback_up().map_err(io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use rustix::pipe::{PipeFlags, pipe_with};
    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::*;
    use crate::sandbox::step::Slot;

    #[test]
    fn a_child_whose_caller_is_gone_already_goes_no_further() {
        let steps = [Step::DieWithCaller { alive: Slot(0), writer: Slot(1) }];
        let errno_of = |is_gone: bool| {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
            // Whatever another test forks meanwhile keeps a pipe open; this is at its end always.
            let ended = std::fs::File::open("/dev/null").expect("opened").into();
            let alive = if is_gone { ended } else { reader };
            let (report, pid) = (Report::new(), AtomicI32::new(0));
            let mut slots = [alive.as_raw_fd(), writer.as_raw_fd()];
            let (slots, report, pid) = (&mut slots[..], &report, &pid);
            let mut job = Job { steps: &steps, slots, report, namespaces: 0, cgroup: None, pid };
            let spawned = spawn(&mut job).expect("cloned");
            waitpid(Pid::from_raw(spawned.pid), WaitOptions::empty()).expect("it has ended");
            report.errno()
        };
        assert_eq!((errno_of(false), errno_of(true)), (0, libc::ECANCELED));
    }
}
