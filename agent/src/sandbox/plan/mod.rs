//! An OCI runtime spec to a flat list of steps: pure, but for a few facts about the caller and the host.
//!
//! ```text
//! namespaces | state reset | filesystems made, detached | root moved in | mounts placed | covered | terminal
//!            | working directory | root read-only | standard files | limits, ids, capabilities, filter | execve
//! ```

pub(crate) mod builder;
mod devices;
mod mounts;
pub(crate) mod namespaces;
mod options;
pub(crate) mod process;
mod refuse;
mod sysctl;
#[cfg(test)]
mod tests;

use std::path::Path;

use oci_spec::runtime::{Process, Spec};

use builder::{Draft, Open, target, text};
use mounts::Known;
use namespaces::Namespaces;

use super::devices::Rules;
use super::error::{Result, SandboxError};
use super::inherited::Inherited;
use super::request::TerminalSize;
use super::seccomp::BpfInstruction;
use super::step::{Slot, Step};
use crate::sys::STANDARD_SIGNALS;

/// What a plan depends on beside the spec.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// A terminal was asked for.
    pub(crate) terminal: Option<TerminalSize>,
    /// A network namespace was made beforehand.
    pub(crate) network: bool,
    /// A reaper was asked for.
    pub(crate) init: bool,
    /// The container is to end with the thread that starts it.
    pub(crate) dies_with_caller: bool,
    pub(crate) seccomp: Option<Vec<BpfInstruction>>,
    /// What the child would inherit.
    pub(crate) inherited: Inherited,
    /// AppArmor, SELinux: on in this kernel.
    pub(crate) labels: [bool; 2],
}

/// Writes the plan's draft.
pub(crate) fn draft(spec: &Spec, facts: Facts) -> Result<Draft> {
    let linux = spec.linux().as_ref();
    let linux = linux.ok_or_else(|| SandboxError::invalid("linux", "the spec has no `linux` part"))?;
    refuse::unsupported(spec, linux)?;
    let mut draft = Draft { devices: Rules::of(spec)?, ..Draft::default() };
    let root = draft.open(Open::Rootfs { nodes: true });
    let namespaces = namespaces::plan(&mut draft, spec, facts.network)?;
    plan_state(&mut draft, process::of(spec)?, &facts.inherited)?;
    plan_names(&mut draft, spec)?;
    let propagation = mounts::propagation(linux)?;
    let host = options::MS_PRIVATE | options::MS_REC;
    draft.step(Step::Propagation { flags: host, name: "private" });
    let (prepared, mut known) = mounts::prepare(&mut draft, spec, &namespaces)?;
    let bound = match known.devices {
        Some(within) => {
            for name in std::mem::take(&mut known.below_devices) {
                draft.step(Step::MakeDirectory { within, name });
            }
            devices::fill(&mut draft, spec, &namespaces, within, known.pts.is_some())?
        }
        None => Vec::new(),
    };
    let empty = mounts::prepare_empty(&mut draft, linux);
    let labels =
        process::of(spec)?.apparmor_profile().is_some() || process::of(spec)?.selinux_label().is_some();
    if known.proc.is_none() && (labels || linux.sysctl().is_some()) {
        known.proc = Some(mounts::private_proc(&mut draft));
    }
    draft.step(Step::MoveRoot { root });
    mounts::place(&mut draft, prepared)?;
    let devices = plan_devices(&mut draft, spec, &namespaces, &known, bound)?;
    if let Some(proc) = known.proc {
        sysctl::plan(&mut draft, linux, &namespaces, proc)?;
    }
    mounts::cover(&mut draft, linux, empty, devices)?;
    let files = plan_files(&mut draft, spec, &facts, &known, devices)?;
    let at = target("process.cwd", process::of(spec)?.cwd())?;
    draft.step(Step::WorkingDirectory { at, is_made: true });
    plan_root(&mut draft, spec, propagation);
    let owner = Some(process::of(spec)?.user().uid()).filter(|uid| *uid != 0);
    draft.step(Step::Stdio { files, owner });
    if let Some(proc) = known.proc {
        plan_labels(&mut draft, process::of(spec)?, facts.labels, proc)?;
    }
    let (helper, verdict) = (draft.open(Open::Helper), draft.open(Open::Verdict));
    process::plan(
        &mut draft,
        (spec, process::of(spec)?),
        &namespaces,
        process::Program {
            seccomp: facts.seccomp,
            helper,
            verdict,
            init: facts.init,
            terminal: facts.terminal.is_some(),
            dies_with_caller: facts.dies_with_caller,
            limits: facts.inherited.limits,
        },
    )?;
    Ok(draft)
}

pub(crate) use devices::without_nodes;
pub(crate) use namespaces::{has_own_user, id_map};
pub(crate) use options::NODEV;
pub(crate) use refuse::plan_labels;

/// The names of the clone's namespaces, for the printed plan.
pub(crate) fn clone_names(draft: &Draft) -> String {
    namespaces::clone_names(draft)
}

/// What a process inherits and a container must not: session, keys, signals, processors, priorities, personality, umask.
pub(crate) fn plan_state(draft: &mut Draft, process: &Process, inherited: &Inherited) -> Result<()> {
    draft.step(Step::NewSession);
    // Even where a filter denies keyctl(2), the kernel itself looks keys up in it.
    draft.step(Step::NewKeyring);
    draft.step(Step::ResetSignals { which: STANDARD_SIGNALS | inherited.ignored_signals });
    draft.step(Step::AllProcessors);
    let resets = [
        (inherited.scheduler, Step::PlainScheduler),
        (inherited.nice != 0, Step::Nice(0)),
        (inherited.io_priority, Step::PlainIoPriority),
        (inherited.personality, Step::PlainPersonality),
    ];
    draft.steps.extend(resets.into_iter().filter(|(differs, _)| *differs).map(|(_, step)| step));
    draft.step(Step::Umask(0));
    let asked = process.oom_score_adj();
    let score = asked.unwrap_or(0);
    if !(-1000..=1000).contains(&score) {
        return Err(SandboxError::invalid("process.oomScoreAdj", "not within -1000 and 1000"));
    }
    if score != inherited.oom_score {
        let value = text("process.oomScoreAdj", score.to_string())?;
        draft.step(Step::OomScore { value, is_default: asked.is_none() });
    }
    Ok(())
}

fn plan_names(draft: &mut Draft, spec: &Spec) -> Result<()> {
    let named = |what: &str, name: &str| {
        if name.len() > process::NAME_BYTES_MAX {
            return Err(SandboxError::invalid(
                what,
                format!("longer than {} bytes", process::NAME_BYTES_MAX),
            ));
        }
        text(what, name)
    };
    if let Some(name) = spec.hostname() {
        draft.step(Step::Hostname(named("hostname", name)?));
    }
    if let Some(name) = spec.domainname() {
        draft.step(Step::Domainname(named("domainname", name)?));
    }
    Ok(())
}

/// Devices that could not be made before their directory had its place; the directory for the steps after.
fn plan_devices(
    draft: &mut Draft,
    spec: &Spec,
    namespaces: &Namespaces,
    known: &Known,
    mut bound: Vec<Step>,
) -> Result<Slot> {
    let within = match known.devices {
        Some(within) => within,
        None => {
            let into = draft.slot();
            draft.step(Step::OpenDirectory { into, at: target("dev", Path::new("/dev"))? });
            if !known.devices_are_bound {
                bound = devices::fill(draft, spec, namespaces, into, known.pts.is_some())?;
            }
            into
        }
    };
    draft.steps.extend(bound);
    Ok(within)
}

/// Standard input, output and error: the caller's, or a terminal of the container's own.
fn plan_files(
    draft: &mut Draft,
    spec: &Spec,
    facts: &Facts,
    known: &Known,
    devices: Slot,
) -> Result<[Slot; 3]> {
    let Some(size) = facts.terminal else {
        return Ok([0, 1, 2].map(|number| draft.open(Open::Standard(number))));
    };
    let Some(pts) = known.pts else {
        let why = "a terminal needs a devpts; add a mount of type devpts on /dev/pts";
        return Err(SandboxError::invalid("process.terminal", why));
    };
    let channel = draft.open(Open::Channel);
    let into = draft.slot();
    let owner = process::of(spec)?.user().uid();
    let TerminalSize { rows, columns } = size;
    let devices = Some(devices);
    draft.step(Step::Console { pts, devices, into, channel, rows, columns, owner });
    if !facts.init {
        draft.step(Step::ControllingTerminal { terminal: into });
    }
    Ok([into; 3])
}

fn plan_root(draft: &mut Draft, spec: &Spec, propagation: u64) {
    if spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly) == Some(true) {
        draft.step(Step::RootReadOnly);
    }
    if propagation & !options::MS_REC != options::MS_PRIVATE {
        draft.step(Step::RootPropagation { flags: propagation });
    }
}

/// True when the part of the spec that needs the host's word is there at all.
pub(crate) fn wants_labels(spec: &Spec) -> bool {
    let process = spec.process().as_ref();
    process.is_some_and(|process| process.apparmor_profile().is_some() || process.selinux_label().is_some())
}
