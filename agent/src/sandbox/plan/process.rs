//! The process itself: limits, identity, capabilities, filter, program.
//!
//! ```text
//! limits -> [fork, filter] -> bounding set -> ids -> capability sets -> [no_new_privs -> fork, filter] -> execve
//! ```
//! Without `no_new_privs` loading a filter takes CAP_SYS_ADMIN, so it comes before capabilities are dropped.

use std::ffi::CString;

use oci_spec::runtime::{Capabilities, LinuxIdMapping, PosixRlimitType, Process, Spec};

use super::builder::{Draft, Open, text};
use super::namespaces::{Namespaces, State, maps};
use crate::sandbox::caps::CapSet;
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::seccomp::BpfInstruction;
use crate::sandbox::step::{CapabilityMasks, Execute, Slot, Step};
use crate::sys::{LateStrings, Strings};

/// Where a program is looked for when the environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories of a `PATH` that are tried.
const PATH_DIRECTORIES_COUNT_MAX: usize = 256;
/// `NGROUPS_MAX` of limits.h.
const GROUPS_COUNT_MAX: usize = 65_536;
/// Bytes of a hostname: `__NEW_UTS_LEN` of linux/utsname.h.
pub(super) const NAME_BYTES_MAX: usize = 64;

/// What was asked for, beside the spec.
pub(crate) struct Program {
    pub(crate) seccomp: Option<Vec<BpfInstruction>>,
    pub(crate) helper: Slot,
    pub(crate) verdict: Slot,
    pub(crate) init: bool,
    pub(crate) terminal: bool,
    pub(crate) dies_with_caller: bool,
    /// Limits that a container should not inherit, as they should be.
    pub(crate) limits: Vec<(PosixRlimitType, u64, u64)>,
}

/// The spec's process, or what is missing.
pub(crate) fn of(spec: &Spec) -> Result<&Process> {
    spec.process().as_ref().ok_or_else(|| SandboxError::invalid("process", "the spec names no program"))
}

/// Writes the steps from limits to `execve`.
pub(crate) fn plan(
    draft: &mut Draft,
    (spec, process): (&Spec, &Process),
    namespaces: &Namespaces,
    mut program: Program,
) -> Result<()> {
    plan_limits(draft, process, &program.limits)?;
    draft.step(Step::Umask(process.user().umask().unwrap_or(0o022) & 0o777));
    draft.step(Step::CloseFiles);
    let no_new_privileges = process.no_new_privileges().unwrap_or(false);
    let filter = program.seccomp.take();
    let (early, late) = if no_new_privileges { (None, filter) } else { (filter, None) };
    // As late as may be, so that the reaper has as little left to give up, but before the filter, which may forbid it.
    let fork = || program.init.then_some(Step::Fork { terminal: program.terminal });
    if let Some(program) = early {
        draft.steps.extend(fork());
        draft.step(Step::Seccomp { program });
    }
    plan_identity(draft, spec, process, namespaces)?;
    if no_new_privileges {
        draft.step(Step::NoNewPrivileges);
    }
    if !draft.steps.iter().any(|step| matches!(step, Step::Fork { .. })) {
        draft.steps.extend(fork());
    }
    if let Some(program) = late {
        draft.step(Step::Seccomp { program });
    }
    // Last, as a change of ids or capabilities clears it. A thread that only clones would take the container with it.
    let cloned_by_caller = namespaces.user != State::New && namespaces.pid != State::Joined;
    if program.dies_with_caller && cloned_by_caller {
        let (alive, writer) = (draft.open(Open::Alive), draft.open(Open::AliveWriter));
        draft.step(Step::DieWithCaller { alive, writer });
    }
    draft.step(Step::Execute(execute(process, &program)?));
    Ok(())
}

/// The spec's limits, and the defaults of those that it does not name.
fn plan_limits(draft: &mut Draft, process: &Process, defaults: &[(PosixRlimitType, u64, u64)]) -> Result<()> {
    let asked = process.rlimits().as_deref().unwrap_or_default();
    for limit in asked {
        let (name, resource) = resource(limit.typ());
        let (soft, hard) = (limit.soft(), limit.hard());
        if soft > hard {
            let why = format!("soft limit {soft} is above the hard limit {hard}");
            return Err(SandboxError::invalid(name, why));
        }
        draft.step(Step::Limit { name, resource, soft, hard, is_default: false });
    }
    for (kind, soft, hard) in defaults.iter().copied() {
        if asked.iter().all(|limit| limit.typ() != kind) {
            let (name, resource) = resource(kind);
            draft.step(Step::Limit { name, resource, soft, hard, is_default: true });
        }
    }
    Ok(())
}

fn plan_identity(draft: &mut Draft, spec: &Spec, process: &Process, namespaces: &Namespaces) -> Result<()> {
    let masks = masks(process);
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    if groups.len() > GROUPS_COUNT_MAX {
        return Err(SandboxError::invalid("process.user.additionalGids", "more than 65536 groups"));
    }
    if namespaces.user == State::New {
        let linux = spec.linux().as_ref();
        let uids = linux.and_then(|linux| linux.uid_mappings().as_deref()).unwrap_or_default();
        let gids = linux.and_then(|linux| linux.gid_mappings().as_deref()).unwrap_or_default();
        check_mapped("process.user.uid", uids, &[user.uid()])?;
        check_mapped("process.user.gid", gids, &[user.gid()])?;
        check_mapped("process.user.additionalGids", gids, &groups)?;
    }
    draft.step(Step::BoundingSet { keep: masks.bounding });
    draft.step(Step::Identity { uid: user.uid(), gid: user.gid(), groups });
    draft.step(Step::Capabilities(masks));
    Ok(())
}

fn check_mapped(what: &str, ranges: &[LinuxIdMapping], ids: &[u32]) -> Result<()> {
    match ids.iter().find(|id| !maps(ranges, **id)) {
        None => Ok(()),
        Some(id) => {
            let why = format!("id {id} is in no range of the user namespace; map it, or choose another user");
            Err(SandboxError::invalid(what, why))
        }
    }
}

fn masks(process: &Process) -> CapabilityMasks {
    let Some(sets) = process.capabilities() else { return CapabilityMasks::default() };
    let bits = |set: &Option<Capabilities>| set.as_ref().map_or(0, |set| CapSet::from_oci(set).bits());
    CapabilityMasks {
        bounding: bits(sets.bounding()),
        effective: bits(sets.effective()),
        permitted: bits(sets.permitted()),
        inheritable: bits(sets.inheritable()),
        ambient: bits(sets.ambient()),
    }
}

/// A limit's name and its number in asm-generic/resource.h.
fn resource(kind: PosixRlimitType) -> (&'static str, u32) {
    match kind {
        PosixRlimitType::RlimitCpu => ("RLIMIT_CPU", 0),
        PosixRlimitType::RlimitFsize => ("RLIMIT_FSIZE", 1),
        PosixRlimitType::RlimitData => ("RLIMIT_DATA", 2),
        PosixRlimitType::RlimitStack => ("RLIMIT_STACK", 3),
        PosixRlimitType::RlimitCore => ("RLIMIT_CORE", 4),
        PosixRlimitType::RlimitRss => ("RLIMIT_RSS", 5),
        PosixRlimitType::RlimitNproc => ("RLIMIT_NPROC", 6),
        PosixRlimitType::RlimitNofile => ("RLIMIT_NOFILE", 7),
        PosixRlimitType::RlimitMemlock => ("RLIMIT_MEMLOCK", 8),
        PosixRlimitType::RlimitAs => ("RLIMIT_AS", 9),
        PosixRlimitType::RlimitLocks => ("RLIMIT_LOCKS", 10),
        PosixRlimitType::RlimitSigpending => ("RLIMIT_SIGPENDING", 11),
        PosixRlimitType::RlimitMsgqueue => ("RLIMIT_MSGQUEUE", 12),
        PosixRlimitType::RlimitNice => ("RLIMIT_NICE", 13),
        PosixRlimitType::RlimitRtprio => ("RLIMIT_RTPRIO", 14),
        PosixRlimitType::RlimitRttime => ("RLIMIT_RTTIME", 15),
    }
}

fn execute(process: &Process, program: &Program) -> Result<Execute> {
    let Program { helper, verdict, .. } = *program;
    let arguments = process.args().as_deref().unwrap_or_default();
    let Some(program) = arguments.first().filter(|program| !program.is_empty()) else {
        let why = "no program to run: the image names none; give one after the image's name";
        return Err(SandboxError::invalid("process.args", why));
    };
    let environment = process.env().as_deref().unwrap_or_default();
    let strings = |what: &str, list: &[String]| -> Result<Strings> {
        let list: Result<Vec<CString>> = list.iter().map(|item| text(what, item.as_str())).collect();
        Ok(Strings::new(list?))
    };
    let candidates = candidates(program, environment)?;
    let arguments = strings("process.args", arguments)?;
    let (apart, environment) = (LateStrings::before(&arguments), strings("process.env", environment)?);
    Ok(Execute { candidates, arguments, environment, apart, helper, verdict })
}

/// The paths that a program's name may mean, in the order of `PATH`, as execvp(3) does it.
fn candidates(program: &str, environment: &[String]) -> Result<Vec<CString>> {
    if program.contains('/') {
        return Ok(vec![text("process.args", program)?]);
    }
    let path = environment.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    let path = path.unwrap_or(DEFAULT_PATH);
    let candidate = |directory: &str| match directory {
        "" => text("process.args", format!("./{program}")),
        directory => text("process.env PATH", format!("{}/{program}", directory.trim_end_matches('/'))),
    };
    path.split(':').take(PATH_DIRECTORIES_COUNT_MAX).map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_the_order_of_path() {
        let environment = ["PATH=/a:/b/::/c".to_owned()];
        let found = candidates("x", &environment).expect("valid");
        let expected = ["/a/x", "/b/x", "./x", "/c/x"].map(|path| CString::new(path).expect("no zero"));
        assert_eq!(found, expected);
        assert_eq!(candidates("./x", &environment).expect("valid"), [c"./x".to_owned()]);
        assert_eq!(candidates("x", &[]).expect("valid").len(), 6);
    }
}
