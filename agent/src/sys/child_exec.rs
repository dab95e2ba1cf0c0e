//! The last step: `execve`, with the reason told apart when it fails.
//!
//! ```text
//! without a reaper:  child -> execve program
//! with a reaper:     child = process 1 --vfork--> program (a session of its own) -> execve program
//!                      `-- once that has worked: execveat reaper, from its sealed memory file
//! ```
//! For the moment between the two, the program runs beside a process 1 that still has the runtime's memory. That is
//! out of its reach: the memory is non-dumpable, so only CAP_SYS_PTRACE over the host could look into it.

use std::ffi::{CStr, c_void};

use super::calls::{self, Answer, Errno, call};
use super::child::Child;
use super::clone3::vfork;
use super::report::{
    DETAIL_AGENT, DETAIL_DIRECTORY, DETAIL_INTERPRETER, DETAIL_REAPER, MESSAGE_BYTES_MAX, Report,
};
use super::{child_guard, child_process};
use crate::sandbox::step::Execute;

/// The exit status of a program's process that could not execute; the report says more.
const FAILED: i32 = 127;
/// Room for `celda-init` 's one argument: a pid in decimal and its end.
const PID_TEXT_BYTES: usize = 12;

/// Executes the program, or makes it a child of a reaper and executes the reaper.
pub(super) fn execute(child: &mut Child<'_>, execute: &Execute) -> Answer {
    let Some((reaper, terminal)) = execute.init else {
        child_process::unblock_signals()?;
        return Err(try_candidates(execute, child.report, child.agent));
    };
    let reaper = child.slots.get(reaper)?;
    let program = Program { execute, report: child.report, agent: child.agent, terminal };
    let argument = (&raw const program).cast_mut().cast::<c_void>();
    // SAFETY: the second stack is nobody else's, and `program` lives in this frame, which waits (CLONE_VFORK)
    // until the new process has executed or exited.
    let pid = unsafe { vfork(child.second_stack, run_program, argument) }?;
    if child.report.errno() != 0 {
        return Err(child.report.errno());
    }
    child.report.set_detail(DETAIL_REAPER);
    Err(execute_reaper(reaper, pid))
}

/// What the program's process needs when a reaper is its parent.
struct Program<'a> {
    execute: &'a Execute,
    report: &'a Report,
    agent: (u32, u32, u64),
    /// Standard input is a terminal that becomes this process's own.
    terminal: bool,
}

unsafe extern "C" fn run_program(program: *mut c_void) -> ! {
    // SAFETY: `execute` passes a `Program` that lives until this process has executed or exited.
    let program = unsafe { &*program.cast_const().cast::<Program<'_>>() };
    program.report.fail(start_program(program));
    calls::exit(FAILED)
}

fn start_program(program: &Program<'_>) -> Errno {
    let prepare = || -> Answer {
        calls::call_plain(libc::SYS_setsid, [])?;
        if program.terminal {
            child_process::take_terminal(0)?;
        }
        child_process::unblock_signals()
    };
    match prepare() {
        Ok(()) => try_candidates(program.execute, program.report, program.agent),
        Err(errno) => errno,
    }
}

/// `int execveat(fd, "", {"celda-init", PID}, {}, AT_EMPTY_PATH)`, see execveat(2).
fn execute_reaper(reaper: i32, pid: i32) -> Errno {
    let mut text = [0_u8; PID_TEXT_BYTES];
    let mut rest = pid.unsigned_abs();
    for place in text.iter_mut().rev().skip(1) {
        *place = b'0'.wrapping_add((rest % 10) as u8);
        rest /= 10;
    }
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

/// `int execve(...)` of each candidate, by the rule of execvp(3): go on after "not there", remember "not allowed".
fn try_candidates(execute: &Execute, report: &Report, agent: (u32, u32, u64)) -> Errno {
    let mut denied = None;
    for candidate in &execute.candidates {
        if child_guard::leads_to(candidate, agent) {
            report.set_detail(DETAIL_AGENT);
            return libc::EPERM;
        }
        let errno = execve(candidate, execute);
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

/// Keeps the first bytes of a file for the parent, which reads an ELF head or a `#!` line out of them.
fn keep_head(path: &CStr, report: &Report) {
    let Ok(file) = calls::openat(libc::AT_FDCWD, path, libc::O_RDONLY) else { return };
    let mut head = [0; MESSAGE_BYTES_MAX];
    if let Ok(count) = calls::read(file, &mut head) {
        report.set_message(head.get(..count).unwrap_or_default());
    }
    calls::close(file);
}
