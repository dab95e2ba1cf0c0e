//! Steps that set the process itself: signals, limits, identity, capabilities, filter, standard files.

use std::ffi::{CStr, c_long};

use super::abi::{
    CAPABILITY_VERSION_3, CapabilityData, CapabilityHeader, DefaultSignalAction, InterfaceFlags,
};
use super::calls::{self, Answer, call, call_plain};
use crate::sandbox::seccomp::BpfInstruction;
use crate::sandbox::step::CapabilityMasks;

/// One past the last signal.
const SIGNALS_END: usize = 65;
/// Bytes of the kernel's signal set.
const SIGNAL_SET_BYTES: usize = 8;
/// Bytes of a processor mask: 8192 processors, the kernel's own maximum on both arches.
const PROCESSOR_MASK_BYTES: usize = 1024;
/// One past the last capability number that fits the sets.
const CAPABILITIES_END: usize = 64;

/// Tells the parent that the user namespace is there, and waits until its maps are written.
pub(super) fn await_id_map(ready: i32, go: i32, writer: i32) -> Answer {
    calls::close(writer); // so that a parent that is gone is the end of the pipe
    calls::write_all(ready, &[1])?;
    let mut byte = [0];
    let count = calls::read(go, &mut byte)?;
    if (count, byte) == (1, [1]) { Ok(()) } else { Err(libc::ECANCELED) }
}

/// Takes id 0 of the user namespace, so that what is made from here on belongs to its root.
pub(super) fn assume_root() -> Answer {
    call_plain(libc::SYS_setgroups, [0, 0])?;
    call_plain(libc::SYS_setresgid, [0, 0, 0])?;
    call_plain(libc::SYS_setresuid, [0, 0, 0])?;
    Ok(())
}

/// `long keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)`, see keyctl(2): an empty one, instead of the caller's keys. A kernel
/// without keys has none to hand on, and where another filter forbids the call, that is its choice.
pub(super) fn new_keyring() -> Answer {
    match call_plain(libc::SYS_keyctl, [libc::KEYCTL_JOIN_SESSION_KEYRING as usize, 0]) {
        Ok(_) | Err(libc::ENOSYS | libc::EPERM) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// `int rt_sigaction(...)`, see sigaction(2): an ignored SIGPIPE would outlive `execve`. What is handled has been reset
/// by the clone (`CLONE_CLEAR_SIGHAND`, see clone(2)), which leaves alone what is ignored.
pub(super) fn reset_signals(which: u64) -> Answer {
    let default = DefaultSignalAction([0; 4]);
    for signal in 1..SIGNALS_END {
        let is_asked = which >> (signal - 1) & 1 == 1;
        if !is_asked || signal == libc::SIGKILL as usize || signal == libc::SIGSTOP as usize {
            continue;
        }
        let action = (&raw const default) as usize;
        // SAFETY: `default` is at least as large as the kernel's sigaction on x86_64 (32 bytes) and aarch64 (24).
        unsafe { call(libc::SYS_rt_sigaction, [signal, action, 0, SIGNAL_SET_BYTES]) }?;
    }
    Ok(())
}

/// `int rt_sigprocmask(SIG_SETMASK, empty)`, see sigprocmask(2).
pub(super) fn unblock_signals() -> Answer {
    let empty = 0_u64;
    let set = (&raw const empty) as usize;
    // SAFETY: `empty` is the kernel's 8-byte signal set.
    unsafe { call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, set, 0, SIGNAL_SET_BYTES]) }
        .map(drop)
}

/// `int sched_setaffinity(0, ...)`, see sched_setaffinity(2): all that the cpuset allows.
pub(super) fn all_processors() -> Answer {
    let mask = [0xff_u8; PROCESSOR_MASK_BYTES];
    // SAFETY: `mask` is readable for the size given.
    unsafe { call(libc::SYS_sched_setaffinity, [0, PROCESSOR_MASK_BYTES, mask.as_ptr() as usize]) }.map(drop)
}

/// `int sched_setscheduler(0, SCHED_OTHER, {0})`, see sched_setscheduler(2).
pub(super) fn plain_scheduler() -> Answer {
    let priority = 0_i32;
    let arguments = [0, libc::SCHED_OTHER as usize, (&raw const priority) as usize];
    // SAFETY: `priority` has the layout of sched_param: one int.
    unsafe { call(libc::SYS_sched_setscheduler, arguments) }.map(drop)
}

/// `int ioprio_set(IOPRIO_WHO_PROCESS, 0, 0)`, see ioprio_set(2): by the nice value.
pub(super) fn plain_io_priority() -> Answer {
    const IOPRIO_WHO_PROCESS: usize = 1;
    call_plain(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, 0, 0]).map(drop)
}

/// `int prlimit64(0, resource, new, NULL)`, see prlimit(2).
pub(super) fn limit(resource: u32, soft: u64, hard: u64) -> Answer {
    let value = [soft, hard];
    // SAFETY: `value` has the layout of rlimit64: two 64-bit words.
    unsafe { call(libc::SYS_prlimit64, [0, resource as usize, value.as_ptr() as usize, 0]) }.map(drop)
}

/// `SIOCSIFFLAGS` on `lo`, see netdevice(7).
pub(super) fn loopback_up() -> Answer {
    let kind = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as usize;
    let socket = call_plain(libc::SYS_socket, [libc::AF_INET as usize, kind, 0])? as i32;
    let mut name = [0; 16];
    for (to, from) in name.iter_mut().zip(b"lo") {
        *to = *from;
    }
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    let mut request = InterfaceFlags { name, flags, rest: [0; 22] };
    // SAFETY: SIOCSIFFLAGS takes an ifreq, 40 bytes on 64-bit, which `InterfaceFlags` spans.
    let answer = unsafe { calls::ioctl(socket, libc::SIOCSIFFLAGS, &mut request) };
    calls::close(socket);
    answer.map(drop)
}

/// `int sethostname(const char *name, size_t length)`, see sethostname(2); setdomainname likewise.
pub(super) fn set_name(number: c_long, name: &CStr) -> Answer {
    // SAFETY: `name` is readable for its length.
    unsafe { call(number, [name.as_ptr() as usize, name.count_bytes()]) }.map(drop)
}

/// `TIOCSCTTY`, see ioctl_tty(2).
pub(super) fn take_terminal(terminal: i32) -> Answer {
    call_plain(libc::SYS_ioctl, [terminal as usize, libc::TIOCSCTTY as usize, 0]).map(drop)
}

/// `int dup3(...)`, see dup(2), onto 0, 1 and 2; first out of the way of one another.
pub(super) fn stdio(files: [i32; 3], owner: Option<u32>) -> Answer {
    let mut high = [0; 3];
    for (to, from) in high.iter_mut().zip(files) {
        *to = call_plain(libc::SYS_fcntl, [from as usize, libc::F_DUPFD_CLOEXEC as usize, 3])? as i32;
    }
    for (number, from) in high.iter().enumerate() {
        if let Some(uid) = owner {
            give_pipe(*from, uid);
        }
        call_plain(libc::SYS_dup3, [*from as usize, number, 0])?;
        calls::close(*from);
    }
    Ok(())
}

/// Lets a user who is not root reopen a pipe by `/dev/stdout`; nothing is lost where it cannot be given. A FIFO with a
/// name is a file of the host's, and stays whose it is.
fn give_pipe(fd: i32, uid: u32) {
    if calls::is_anonymous_pipe(fd) {
        let unchanged = u32::MAX;
        let _ = calls::chown(fd, c"", uid, unchanged, libc::AT_EMPTY_PATH);
    }
}

/// `PR_CAPBSET_DROP` for every capability outside `keep`, see prctl(2).
pub(super) fn bound_capabilities(keep: u64) -> Answer {
    for capability in 0..CAPABILITIES_END {
        if keep >> capability & 1 == 1 {
            continue;
        }
        match calls::prctl(libc::PR_CAPBSET_DROP, [capability, 0]) {
            Ok(_) => {}
            Err(libc::EINVAL) => break, // past the kernel's last one
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// `setgroups`, `setresgid`, `setresuid` as raw syscalls (of this thread alone), permitted capabilities kept.
pub(super) fn identity(uid: u32, gid: u32, groups: &[u32]) -> Answer {
    calls::prctl(libc::PR_SET_KEEPCAPS, [1, 0])?;
    // SAFETY: `groups` is readable for its length; gid_t is 32 bits on both arches.
    unsafe { call(libc::SYS_setgroups, [groups.len(), groups.as_ptr() as usize]) }?;
    let (uid, gid) = (uid as usize, gid as usize);
    call_plain(libc::SYS_setresgid, [gid, gid, gid])?;
    call_plain(libc::SYS_setresuid, [uid, uid, uid])?;
    calls::prctl(libc::PR_SET_KEEPCAPS, [0, 0]).map(drop)
}

/// `int capset(...)`, see capset(2), then the ambient set anew.
pub(super) fn capabilities(masks: CapabilityMasks) -> Answer {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let word = |shift: u32| CapabilityData {
        effective: (masks.effective >> shift) as u32,
        permitted: (masks.permitted >> shift) as u32,
        inheritable: (masks.inheritable >> shift) as u32,
    };
    let data = [word(0), word(32)];
    // SAFETY: header and two data words have the layout of version 3.
    unsafe { call(libc::SYS_capset, [(&raw const header) as usize, data.as_ptr() as usize]) }?;
    calls::prctl(libc::PR_CAP_AMBIENT, [libc::PR_CAP_AMBIENT_CLEAR_ALL as usize, 0])?;
    for capability in 0..CAPABILITIES_END {
        if masks.ambient >> capability & 1 == 1 {
            calls::prctl(libc::PR_CAP_AMBIENT, [libc::PR_CAP_AMBIENT_RAISE as usize, capability])?;
        }
    }
    Ok(())
}

/// `PR_SET_NO_NEW_PRIVS`, see prctl(2).
pub(super) fn no_new_privileges() -> Answer {
    calls::prctl(libc::PR_SET_NO_NEW_PRIVS, [1, 0]).map(drop)
}

/// `PR_SET_PDEATHSIG`, see prctl(2). A caller that was gone before it sends no signal, but its end of the pipe is closed: a
/// process closes its files before its children hear of its end.
///
/// # Errors
/// `ECANCELED` when the caller is gone.
pub(super) fn die_with_caller(alive: i32, writer: i32) -> Answer {
    calls::prctl(libc::PR_SET_PDEATHSIG, [libc::SIGKILL as usize, 0])?;
    calls::close(writer); // this process's own copy
    match calls::read(alive, &mut [0]) {
        Ok(_) => Err(libc::ECANCELED),
        Err(_) => Ok(()), // EAGAIN: nothing is ever written
    }
}

/// `int seccomp(SECCOMP_SET_MODE_FILTER, 0, struct sock_fprog *program)`, see seccomp(2).
pub(super) fn seccomp(program: &[BpfInstruction]) -> Answer {
    let Ok(len) = u16::try_from(program.len()) else { return Err(libc::E2BIG) };
    let filter = program.as_ptr().cast_mut().cast::<libc::sock_filter>();
    let program = libc::sock_fprog { len, filter };
    let arguments = [libc::SECCOMP_SET_MODE_FILTER as usize, 0, (&raw const program) as usize];
    // SAFETY: `BpfInstruction` is `repr(C)` with sock_filter's fields, and the kernel only reads `len` of them.
    unsafe { call(libc::SYS_seccomp, arguments) }.map(drop)
}

/// `int close_range(3, ~0, CLOSE_RANGE_CLOEXEC)`, see close_range(2): also what the caller forgot to mark.
pub(super) fn close_files() -> Answer {
    call_plain(libc::SYS_close_range, [3, u32::MAX as usize, libc::CLOSE_RANGE_CLOEXEC as usize]).map(drop)
}

/// `int close_range(first, last, 0)` for each gap between these descriptors, from 3 on, see close_range(2).
pub(super) fn close_others(kept: &[i32]) -> Answer {
    let mut first = 3_u32;
    loop {
        let next = kept.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd >= first).min();
        let last = next.map_or(Some(u32::MAX), |next| next.checked_sub(1)).unwrap_or(0);
        if first <= last {
            call_plain(libc::SYS_close_range, [first as usize, last as usize, 0])?;
        }
        let Some(next) = next else { return Ok(()) };
        first = next.saturating_add(1);
    }
}
