//! The steps of a program that joins a container.
//!
//! ```text
//! the caller's files closed | state reset (the host's /proc is in sight) | join | root found | terminal | working directory | standard files
//!   | labels, through the host's /proc | limits, ids, capabilities, filter | execve
//! ```

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Capability, Process, Spec};

use super::Target;
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::inherited::Inherited;
use crate::sandbox::plan::builder::{Draft, Open, target as path_of};
use crate::sandbox::plan::namespaces::{self, flag};
use crate::sandbox::plan::{plan_labels, plan_state, process};
use crate::sandbox::request::TerminalSize;
use crate::sandbox::step::{Slot, Step};

/// Writes the draft.
pub(super) fn write(
    target: &Target<'_>,
    process: &Process,
    terminal: Option<TerminalSize>,
    inherited: Inherited,
) -> Result<Draft> {
    let linux = target.spec.linux().as_ref();
    let linux = linux.ok_or_else(|| SandboxError::invalid("linux", "the spec has no `linux` part"))?;
    check(target.spec)?;
    refuse(process)?;
    let (namespaces, bits) = namespaces::of_running(linux);
    let mut draft = Draft::default();
    // Before anything: as soon as it has joined, the container's programs may see it in their /proc.
    draft.step(Step::CloseOthers);
    plan_state(&mut draft, process, &inherited)?;
    let from = draft.open(Open::Container);
    draft.join_pid = (bits & flag::PID != 0).then_some(from);
    draft.step(Step::Join { kind: "container's", flag: (bits & !flag::PID) as i32, from });
    if namespaces.user.is_own() {
        draft.step(Step::AssumeRoot);
    }
    draft.step(Step::OpenRoot);
    let files = plan_files(&mut draft, process, terminal)?;
    draft.step(Step::WorkingDirectory { at: path_of("process.cwd", process.cwd())?, is_made: false });
    let owner = Some(process.user().uid()).filter(|uid| *uid != 0);
    draft.step(Step::Stdio { files, owner });
    if process.apparmor_profile().is_some() || process.selinux_label().is_some() {
        let proc = draft.open(Open::Directory(PathBuf::from("/proc")));
        plan_labels(&mut draft, process, crate::sandbox::start::labels(), proc)?;
    }
    let (helper, verdict) = (draft.open(Open::Helper), draft.open(Open::Verdict));
    let program = process::Program {
        seccomp: target.seccomp.map(<[_]>::to_vec),
        helper,
        verdict,
        init: false,
        terminal: terminal.is_some(),
        dies_with_caller: false,
        limits: inherited.limits,
    };
    process::plan(&mut draft, (target.spec, process), &namespaces, program)?;
    Ok(draft)
}

/// Whether a program can be run in a container of this spec at all.
///
/// # Errors
/// [`SandboxError::Unsupported`] says why not.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let linux = linux.ok_or_else(|| SandboxError::invalid("linux", "the spec has no `linux` part"))?;
    let (namespaces, bits) = namespaces::of_running(linux);
    if bits & flag::TIME != 0 {
        let why = "a container with a time namespace cannot be joined; start it without one";
        return Err(SandboxError::unsupported("linux.namespaces", why));
    }
    if !namespaces.user.is_own() && may_trace(spec) {
        let why = "its programs have CAP_SYS_PTRACE over the host's users, and could look into the agent's memory by \
                   way of a program that has just joined them; start it without that capability, or with --userns";
        return Err(SandboxError::unsupported("a program in this container", why));
    }
    Ok(())
}

/// Whether programs of the container have, or may come to, the right to look into any process that they see.
fn may_trace(spec: &Spec) -> bool {
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    capabilities.is_some_and(|capabilities| {
        let sets = [capabilities.bounding(), capabilities.effective(), capabilities.permitted()];
        sets.into_iter().flatten().any(|set| set.contains(&Capability::SysPtrace))
    })
}

fn refuse(process: &Process) -> Result<()> {
    let asked = [
        ("process.scheduler", process.scheduler().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
    ];
    match asked.iter().find(|(_, is_asked)| *is_asked) {
        Some((what, _)) => Err(SandboxError::unsupported(*what, "not supported; leave it out")),
        None => Ok(()),
    }
}

/// Standard input, output and error: the caller's, or a new terminal of the container's devpts.
fn plan_files(draft: &mut Draft, process: &Process, terminal: Option<TerminalSize>) -> Result<[Slot; 3]> {
    let Some(TerminalSize { rows, columns }) = terminal else {
        return Ok([0, 1, 2].map(|number| draft.open(Open::Standard(number))));
    };
    let (pts, into) = (draft.slot(), draft.slot());
    draft.step(Step::OpenTerminals { into: pts, at: path_of("terminal", Path::new("/dev/pts"))? });
    let (channel, owner) = (draft.open(Open::Channel), process.user().uid());
    draft.step(Step::Console { pts, devices: None, into, channel, rows, columns, owner });
    draft.step(Step::ControllingTerminal { terminal: into });
    Ok([into; 3])
}
