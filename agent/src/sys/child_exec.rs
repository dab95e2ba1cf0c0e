//! The last step: `execve`, with the reason told apart when it fails.
//!
//! ```text
//! without a reaper:  child -> execve program, or execveat helper -> execve program (see child_guard)
//! with a reaper:     child = process 1 --vfork--> program (a session of its own), further steps -> execve program
//!                      `-- once that has worked: the same steps -> execveat reaper, from its sealed memory file
//! ```
//! For the moment between the two, the program runs beside a process 1 that still has the runtime's memory, and may
//! have more rights than the program. Both are out of its reach: the memory is non-dumpable, so only CAP_SYS_PTRACE over
//! the host could look into it, and every signal is blocked.

use std::ffi::{CStr, c_void};

use super::calls::{self, Answer, Errno, call};
use super::child::{Child, FAILED, walk};
use super::child_guard::Way;
use super::clone3::vfork;
use super::report::{
    DETAIL_AGENT, DETAIL_DIRECTORY, DETAIL_INTERPRETER, DETAIL_REAPER, MESSAGE_BYTES_MAX, Report,
};
use super::{child_guard, child_process};
use crate::sandbox::step::Execute;

/// Room for `celda-init` 's one argument: a pid in decimal and its end.
const PID_TEXT_BYTES: usize = 12;

/// Makes the program's process, which goes on with the next step and executes the program, and then goes on with the
/// same step as its reaper.
pub(super) fn fork(child: &mut Child<'_>, terminal: bool) -> Answer {
    let (next, stack) = (child.next, child.second_stack);
    let entry = if terminal { run_with_terminal } else { run_program };
    let argument = (&raw mut *child).cast::<c_void>();
    // SAFETY: the second stack is nobody else's, and `child` outlives this frame, which waits (CLONE_VFORK) until the
    // new process has executed or exited.
    let pid = unsafe { vfork(stack, entry, argument) }?;
    if child.report.errno() != 0 {
        calls::exit(FAILED); // the program's process has told what failed
    }
    child.next = next;
    child.program = pid;
    Ok(())
}

unsafe extern "C" fn run_program(child: *mut c_void) -> ! {
    // SAFETY: `fork` passes a `Child` that nobody else touches until this process has executed or exited.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    match calls::call_plain(libc::SYS_setsid, []) {
        Ok(_) => walk(child),
        Err(errno) => fail(child, errno),
    }
}

unsafe extern "C" fn run_with_terminal(child: *mut c_void) -> ! {
    // SAFETY: as in `run_program`.
    let child = unsafe { &mut *child.cast::<Child<'_>>() };
    match calls::call_plain(libc::SYS_setsid, []).and_then(|_| child_process::take_terminal(0)) {
        Ok(()) => walk(child),
        Err(errno) => fail(child, errno),
    }
}

fn fail(child: &Child<'_>, errno: Errno) -> ! {
    child.report.fail(errno);
    calls::exit(FAILED)
}

/// Executes the program, or the reaper in its process.
pub(super) fn execute(child: &mut Child<'_>, execute: &Execute) -> Answer {
    let apart =
        Apart { helper: child.slots.get(execute.helper)?, verdict: child.slots.get(execute.verdict)? };
    if child.program != 0 {
        child.report.set_detail(DETAIL_REAPER);
        return Err(execute_reaper(apart.helper, child.program));
    }
    child_process::unblock_signals()?;
    Err(try_candidates(&Program { execute, report: child.report, agent: child.agent, apart }))
}

/// What it takes to execute a program apart from the runtime's memory.
#[derive(Clone, Copy)]
struct Apart {
    /// The sealed helper's descriptor.
    helper: i32,
    /// Where the helper tells an errno.
    verdict: i32,
}

/// The program, and how it is executed.
struct Program<'a> {
    execute: &'a Execute,
    report: &'a Report,
    agent: (u32, u32, u64),
    apart: Apart,
}

/// `int execveat(fd, "", {"celda-init", PID}, {}, AT_EMPTY_PATH)`, see execveat(2).
fn execute_reaper(reaper: i32, pid: i32) -> Errno {
    let text = decimal(pid);
    let arguments = [c"celda-init".as_ptr(), text.as_ptr().cast(), std::ptr::null()];
    let environment = [std::ptr::null::<libc::c_char>()];
    let call_arguments = [
        reaper as usize,
        c"".as_ptr() as usize,
        arguments.as_ptr() as usize,
        environment.as_ptr() as usize,
        libc::AT_EMPTY_PATH as usize,
    ];
    // SAFETY: both arrays are null-terminated, and every string in them ends with a zero byte.
    match unsafe { call(libc::SYS_execveat, call_arguments) } {
        Ok(_) => libc::EIO,
        Err(errno) => errno,
    }
}

/// A number as text with a zero at its end; leading zeros do no harm.
fn decimal(number: i32) -> [u8; PID_TEXT_BYTES] {
    let mut text = [0_u8; PID_TEXT_BYTES];
    let mut rest = number.unsigned_abs();
    for place in text.iter_mut().rev().skip(1) {
        *place = b'0'.wrapping_add((rest % 10) as u8);
        rest /= 10;
    }
    text
}

/// `int execve(...)` of each candidate, by the rule of execvp(3): go on after "not there", remember "not allowed".
fn try_candidates(program: &Program<'_>) -> Errno {
    let Program { execute, report, .. } = program;
    let mut denied = None;
    for candidate in &execute.candidates {
        let errno = match child_guard::way(candidate, program.agent) {
            Way::Nowhere => libc::ENOENT,
            Way::Agent => {
                report.set_detail(DETAIL_AGENT);
                return libc::EPERM;
            }
            Way::Own => execve(candidate, execute),
            Way::Apart => execve_apart(candidate, program),
        };
        match errno {
            libc::ENOENT | libc::ENOTDIR => {
                if calls::facts(libc::AT_FDCWD, candidate, 0).is_ok() {
                    report.set_detail(DETAIL_INTERPRETER);
                    keep_head(candidate, report);
                    return errno;
                }
            }
            libc::EACCES => {
                if denied.is_none() {
                    denied = Some(candidate);
                }
            }
            errno => {
                keep_head(candidate, report);
                return errno;
            }
        }
    }
    let Some(candidate) = denied else { return libc::ENOENT };
    if calls::facts(libc::AT_FDCWD, candidate, 0).is_ok_and(|facts| facts.is_kind(libc::S_IFDIR)) {
        report.set_detail(DETAIL_DIRECTORY);
    }
    libc::EACCES
}

fn execve(path: &CStr, execute: &Execute) -> Errno {
    let arguments =
        [path.as_ptr() as usize, execute.arguments.as_ptr() as usize, execute.environment.as_ptr() as usize];
    // SAFETY: `Strings` keeps its pointer arrays null-terminated and its strings alive.
    match unsafe { call(libc::SYS_execve, arguments) } {
        Ok(_) => libc::EIO,
        Err(errno) => errno,
    }
}

/// As [`execve`], by way of the helper, which tells the parent what the kernel answers. What is denied is found out
/// before, since only this side knows the next candidate.
fn execve_apart(path: &CStr, program: &Program<'_>) -> Errno {
    let Program { execute, report, apart, .. } = program;
    match calls::facts(libc::AT_FDCWD, path, 0) {
        Ok(facts) if facts.is_kind(libc::S_IFDIR) => return libc::EACCES,
        Err(errno @ (libc::ENOENT | libc::ENOTDIR)) => return errno,
        _ if calls::may_execute(path) == Err(libc::EACCES) => return libc::EACCES,
        _ => {}
    }
    keep_head(path, report);
    let verdict = decimal(apart.verdict);
    execute.apart.set([c"celda-exec".as_ptr(), verdict.as_ptr().cast(), path.as_ptr()]);
    let arguments = [
        apart.helper as usize,
        c"".as_ptr() as usize,
        execute.apart.as_ptr() as usize,
        execute.environment.as_ptr() as usize,
        libc::AT_EMPTY_PATH as usize,
    ];
    let open = [apart.verdict as usize, libc::F_SETFD as usize, 0];
    if let Err(errno) = calls::call_plain(libc::SYS_fcntl, open) {
        return errno;
    }
    report.set_apart(true);
    // SAFETY: both arrays are null-terminated; what they point to lives in the plan and in this frame.
    let answer = unsafe { call(libc::SYS_execveat, arguments) };
    report.set_apart(false);
    report.set_detail(DETAIL_REAPER);
    answer.map_or_else(|errno| errno, |_| libc::EIO)
}

/// Keeps the first bytes of a file for the parent, which reads an ELF head or a `#!` line out of them.
fn keep_head(path: &CStr, report: &Report) {
    let Ok(file) = calls::openat(libc::AT_FDCWD, path, libc::O_RDONLY) else { return };
    let mut head = [0; MESSAGE_BYTES_MAX];
    if let Ok(count) = calls::read(file, &mut head) {
        report.set_message(head.get(..count).unwrap_or_default());
    }
    calls::close(file);
}
