//! A child's report to an error that a user can act on, by Docker's rule of exit statuses.

use std::io;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};

use super::error::{Result, SandboxError};
use super::step::Step;
use crate::sys::{DETAIL_AGENT, DETAIL_DIRECTORY, DETAIL_INTERPRETER, DETAIL_REAPER, Report, Spawned};

/// Answers the child's failure, after reaping it; nothing when its program runs.
pub(super) fn check(
    steps: &[Step],
    report: &Report,
    program: &str,
    spawned: &Spawned,
    verdict: Option<OwnedFd>,
) -> Result<()> {
    let Some(step) = steps.get(report.step()) else { return Ok(()) };
    let errno = report.errno();
    if errno == 0 && step.is_last() {
        let late = if report.is_apart() { verdict.and_then(late) } else { None };
        let Some(errno) = late else { return Ok(()) };
        let _ = rustix::process::waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
        // The helper is told of files that are there, so what is missing is an interpreter.
        return Err(execution(errno, DETAIL_INTERPRETER, &report.message(), program));
    }
    let _ = rustix::process::waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
    let source = io::Error::from_raw_os_error(errno);
    if errno == 0 {
        return Err(SandboxError::Killed { step: step.to_string() });
    }
    if step.is_last() && report.detail() != DETAIL_REAPER {
        return Err(execution(errno, report.detail(), &report.message(), program));
    }
    let message = String::from_utf8_lossy(&report.message()).trim_end().to_owned();
    let step_text = if message.is_empty() || step.is_last() {
        step.to_string()
    } else {
        format!("{step} (the kernel says: {message})")
    };
    Err(SandboxError::Step { step: step_text, source, hint: hint(step, errno) })
}

/// What the helper tells of the program: an errno, or nothing when it was executed, which closes the pipe.
fn late(verdict: OwnedFd) -> Option<i32> {
    let mut errno = [0; 4];
    std::fs::File::from(verdict).read_exact(&mut errno).ok().map(|()| i32::from_ne_bytes(errno))
}

/// Ends a child that nobody wants any more, and reaps it.
pub(super) fn discard(spawned: &Spawned) {
    let _ = rustix::process::pidfd_send_signal(&spawned.pidfd, rustix::process::Signal::KILL);
    let _ = rustix::process::waitid(WaitId::PidFd(spawned.pidfd.as_fd()), WaitIdOptions::EXITED);
}

fn hint(step: &Step, errno: i32) -> &'static str {
    match (step, Errno::from_raw_os_error(errno)) {
        (Step::Place { .. }, Errno::NOTDIR) => "; is one side a directory and the other a file?",
        (Step::Place { .. } | Step::WorkingDirectory { .. }, Errno::ROFS) => {
            "; the mountpoint is missing and the root cannot be written: give the root a writable upper layer"
        }
        (Step::Place { .. }, Errno::NOENT) => "; a symlink on the way leads nowhere",
        (Step::Limit { .. }, Errno::PERM) => "; raising a hard limit needs CAP_SYS_RESOURCE",
        (Step::Seccomp { .. }, Errno::ACCESS) => "; without no_new_privs this needs CAP_SYS_ADMIN",
        (Step::NewFilesystem { .. }, Errno::NODEV) => "; this kernel has no such filesystem",
        (Step::WorkingDirectory { .. }, Errno::NOTDIR) => "; it is not a directory",
        _ => "",
    }
}

fn execution(errno: i32, detail: u32, head: &[u8], program: &str) -> SandboxError {
    let program = program.to_owned();
    let denied = |why: String| SandboxError::CannotExecute { program: program.clone(), why };
    match Errno::from_raw_os_error(errno) {
        _ if detail == DETAIL_AGENT => {
            denied("leads to the runtime's own executable, which no container may run".to_owned())
        }
        Errno::NOENT | Errno::NOTDIR if detail == DETAIL_INTERPRETER => denied(missing_interpreter(head)),
        Errno::NOENT | Errno::NOTDIR => {
            let place = if program.contains('/') { "no such file in the image" } else { "not found in PATH" };
            SandboxError::NotFound { program, why: place.to_owned() }
        }
        Errno::ACCESS if detail == DETAIL_DIRECTORY => denied("is a directory".to_owned()),
        Errno::ACCESS => denied(
            "permission denied: it lacks the execute bit for this user, or lies on a noexec mount".to_owned(),
        ),
        Errno::NOEXEC => denied(wrong_format(head)),
        Errno::TOOBIG => denied("arguments and environment are too long for execve".to_owned()),
        errno => denied(io::Error::from(errno).to_string()),
    }
}

fn missing_interpreter(head: &[u8]) -> String {
    let line = head.strip_prefix(b"#!").and_then(|rest| rest.split(|byte| *byte == b'\n').next());
    match line {
        Some(line) => {
            let carriage = if line.ends_with(b"\r") { " (the line ends with a carriage return)" } else { "" };
            let line = String::from_utf8_lossy(line).trim().escape_debug().to_string();
            format!("its interpreter `{line}` is not in the image{carriage}")
        }
        None => "the file is there, but the program loader it names is not in the image".to_owned(),
    }
}

fn wrong_format(head: &[u8]) -> String {
    if !head.starts_with(b"\x7fELF") {
        return "exec format error: neither a program nor a script with a `#!` line; \
                give it one, or run it by its shell"
            .to_owned();
    }
    let byte = |at: usize| head.get(at).copied().unwrap_or(0);
    let big_endian = byte(5) == 2;
    let pair = [byte(18), byte(19)];
    let machine = if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) };
    // ELF specification, e_machine.
    let name = match machine {
        3 => "i386",
        8 => "mips",
        20 => "ppc",
        21 => "ppc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => "an unknown architecture",
    };
    let host = std::env::consts::ARCH;
    format!(
        "exec format error: a program for {name}, this machine is {host}; choose an image for its platform"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_files_are_explained() {
        assert!(missing_interpreter(b"#!/bin/nothing -x\necho").contains("`/bin/nothing -x`"));
        assert!(missing_interpreter(b"#!/bin/sh\r\n").contains("carriage return"));
        assert!(missing_interpreter(b"\x7fELF").contains("program loader"));
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(20, 0);
        head[18] = 183;
        assert!(wrong_format(&head).contains("aarch64"));
        assert!(wrong_format(b"").contains("#!"));
    }
}
