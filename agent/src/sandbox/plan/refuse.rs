//! What a spec may ask for and does not get: refused by name, never ignored. And labels, where the host has them.

use oci_spec::runtime::{Linux, Process, Spec};

use super::builder::{Draft, text};
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::step::{Slot, Step};

/// Refuses every part of the spec that would be silently lost.
pub(super) fn unsupported(spec: &Spec, linux: &Linux) -> Result<()> {
    let process = spec.process().as_ref();
    let hooks = spec.hooks().as_ref().is_some_and(|hooks| {
        #[allow(deprecated, reason = "the spec still lists prestart hooks, and they must not be lost")]
        let prestart = hooks.prestart();
        let lists = [
            prestart,
            hooks.create_runtime(),
            hooks.create_container(),
            hooks.start_container(),
            hooks.poststart(),
            hooks.poststop(),
        ];
        lists.iter().any(|list| list.as_ref().is_some_and(|list| !list.is_empty()))
    });
    let asked = [
        ("hooks", hooks, "hooks are not run; do their work before the start and after the exit"),
        ("linux.intelRdt", linux.intel_rdt().is_some(), "not supported; leave it out"),
        ("linux.memoryPolicy", linux.memory_policy().is_some(), "not supported; use cpuset.mems"),
        ("linux.personality", linux.personality().is_some(), "not supported; leave it out"),
        (
            "linux.netDevices",
            linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()),
            "not supported; move the devices into a namespace made beforehand",
        ),
        (
            "linux.mountLabel",
            linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()),
            "not supported; leave it out",
        ),
        (
            "process.scheduler",
            process.is_some_and(|p| p.scheduler().is_some()),
            "not supported; leave it out",
        ),
        (
            "process.ioPriority",
            process.is_some_and(|p| p.io_priority().is_some()),
            "not supported; use io.weight",
        ),
        (
            "process.execCPUAffinity",
            process.is_some_and(|p| p.exec_cpu_affinity().is_some()),
            "not supported; use cpuset.cpus",
        ),
    ];
    match asked.into_iter().find(|(_, is_asked, _)| *is_asked) {
        Some((what, _, why)) => Err(SandboxError::unsupported(what, why)),
        None => Ok(()),
    }
}

/// Writes the steps that set the labels of the program; refused where the kernel has no such module on.
pub(crate) fn plan_labels(draft: &mut Draft, process: &Process, labels: [bool; 2], proc: Slot) -> Result<()> {
    let [apparmor, selinux] = labels;
    let asked = [
        (
            "process.apparmorProfile",
            process.apparmor_profile(),
            apparmor,
            "AppArmor",
            "apparmor/exec",
            "exec ",
        ),
        ("process.selinuxLabel", process.selinux_label(), selinux, "SELinux", "exec", ""),
    ];
    for (what, label, is_on, module, file, prefix) in asked {
        let Some(label) = label.as_ref().filter(|label| !label.is_empty()) else { continue };
        if !is_on {
            let why = format!("{module} is not on in this kernel; leave `{label}` out or enable it");
            return Err(SandboxError::unsupported(what, why));
        }
        let path = text(what, format!("thread-self/attr/{file}"))?;
        draft.step(Step::Label { proc, path, value: text(what, format!("{prefix}{label}"))? });
    }
    Ok(())
}
