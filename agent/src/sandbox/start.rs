//! From a request to a running container.
//!
//! ```text
//! plan(request) -> Plan (printable) -> start: open what must be opened, clone3, wait for execve -> Container
//!                                       with a new user namespace, or a joined pid namespace: on a thread of its
//!                                       own, which sleeps in clone3 while this one writes the id maps
//! ```

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicI32;
use std::time::Instant;

use super::cgroup::CgroupDir;
use super::container::{Container, Pipes, Timings};
use super::devices;
use super::error::{Result, SandboxError};
use super::failure;
use super::inherited::Inherited;
use super::open::{self, Given};
use super::plan::builder::Draft;
use super::plan::{self, Facts};
use super::request::{Request, Stdio};
use super::userns;
use crate::sys::{self, Job, Report, Spawned};

/// A container that is ready to be started; printed, it lists its steps.
#[derive(Debug)]
pub struct Plan {
    draft: Draft,
    rootfs: OwnedFd,
    stdio: Stdio,
    cgroup: Claim,
    network: Option<OwnedFd>,
    program: String,
    requested_at: Instant,
    planned_at: Instant,
}

/// The container's cgroup until the container has started: removed when it does not.
#[derive(Debug)]
struct Claim(Option<CgroupDir>);

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(cgroup) = self.0.take() {
            let _ = cgroup.remove(); // the error that brought us here is the one to tell
        }
    }
}

/// Turns a request into a plan; nothing is opened or started.
///
/// # Errors
/// [`SandboxError::Unsupported`] and [`SandboxError::Invalid`] for what the spec asks and cannot have.
pub fn plan(request: Request) -> Result<Plan> {
    let requested_at = Instant::now();
    let Request { id: _, spec, rootfs, stdio, cgroup, network, seccomp, init, dies_with_caller } = request;
    let cgroup = Claim(cgroup);
    let terminal = if let Stdio::Terminal(size) = &stdio { Some(*size) } else { None };
    let labels = if plan::wants_labels(&spec) { labels() } else { [false; 2] };
    let inherited = Inherited::here(!plan::has_own_user(&spec));
    let facts =
        Facts { terminal, network: network.is_some(), init, dies_with_caller, seccomp, inherited, labels };
    let draft = plan::draft(&spec, facts)?;
    let arguments = spec.process().as_ref().and_then(|process| process.args().as_ref());
    let program = arguments.and_then(|arguments| arguments.first().cloned()).unwrap_or_default();
    let planned_at = Instant::now();
    Ok(Plan { draft, rootfs, stdio, cgroup, network, program, requested_at, planned_at })
}

/// AppArmor, SELinux: whether they are on in this kernel.
pub(super) fn labels() -> [bool; 2] {
    let is_on = |file: &str| std::fs::read_to_string(file).is_ok_and(|text| text.starts_with('Y'));
    [
        is_on("/sys/module/apparmor/parameters/enabled"),
        std::path::Path::new("/sys/fs/selinux/enforce").exists(),
    ]
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.draft, f)
    }
}

impl fmt::Display for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "clone with new namespaces: {}", plan::clone_names(self))?;
        for (index, step) in self.steps.iter().enumerate() {
            writeln!(f, "{index:3} {step}")?;
        }
        Ok(())
    }
}

impl Plan {
    /// Starts the container: when this answers, its program has been executed.
    ///
    /// The calling process is made non-dumpable for good: a child shares its memory for a moment,
    /// and its executable must not be reached from a container (CVE-2019-5736).
    ///
    /// # Errors
    /// [`SandboxError::NotFound`] and [`SandboxError::CannotExecute`] for the program, [`SandboxError::Step`] for a
    /// step before it, [`SandboxError::Host`] for a path of the host, [`SandboxError::Parent`] for the rest. Nothing
    /// is left behind: the cgroup is removed too.
    pub fn start(self) -> Result<Container> {
        let Self { mut draft, rootfs, stdio, mut cgroup, network, program, requested_at, planned_at } = self;
        // Without privilege the files of a map can be opened only while its process is dumpable, proc(5).
        let late = draft.id_maps.is_some() && !rustix::process::geteuid().is_root();
        set_dumpable(late)?;
        if !is_guarded(&draft, cgroup.0.as_ref())? {
            plan::without_nodes(&mut draft);
        }
        let given = Given { rootfs: Some(rootfs), network, container: -1 };
        let report = Report::new();
        let open::Opened { table, mut slots, ours } = open::all(&draft, given, stdio)?;
        let cgroup_fd = cgroup.0.as_ref().map(|cgroup| cgroup.fd().as_raw_fd());
        let spawned = spawn(&draft, &mut slots, &table, &report, cgroup_fd, &ours);
        drop(table); // the child's ends, so that pipes end when the container does
        let spawned = spawned?;
        failure::check(&draft.steps, &report, &program, &spawned, ours.verdict)?;
        let terminal = ours.channel.map(|channel| open::receive(channel.as_fd())).transpose();
        let terminal = terminal.inspect_err(|_| failure::discard(&spawned))?;
        let Spawned { pid, pidfd, cloned_at, executed_at } = spawned;
        let [input, output, error] = ours.pipes;
        let pipes = Pipes { input, output, error };
        let timings = Timings::new(requested_at, planned_at, cloned_at, executed_at);
        Ok(Container::new(pid, pidfd, terminal, pipes, cgroup.0.take(), timings))
    }
}

/// True when a filter keeps the container from the host's devices, or none is to.
fn is_guarded(draft: &Draft, cgroup: Option<&CgroupDir>) -> Result<bool> {
    match cgroup {
        Some(cgroup) => Ok(devices::guard(cgroup, &draft.devices)? || draft.devices.is_open()),
        None => Ok(draft.devices.is_open()),
    }
}

fn spawn(
    draft: &Draft,
    slots: &mut [i32],
    table: &[(super::step::Slot, OwnedFd)],
    report: &Report,
    cgroup: Option<i32>,
    ours: &open::Ours,
) -> Result<Spawned> {
    let pid = AtomicI32::new(0);
    let namespaces = draft.namespaces;
    let mut job = Job { steps: &draft.steps, slots, report, namespaces, cgroup, pid: &pid };
    let clone_failed = |error: std::io::Error| {
        let action = match error.raw_os_error() {
            Some(1) => "clone into new namespaces (this needs root, or a user namespace)",
            _ => "clone into new namespaces",
        };
        SandboxError::Parent { action, source: error }
    };
    if draft.join_pid.is_none() && draft.id_maps.is_none() {
        return sys::spawn(&mut job).map_err(clone_failed);
    }
    let join = draft.join_pid.and_then(|slot| table.iter().find(|(known, _)| *known == slot));
    std::thread::scope(|scope| {
        let spawner = scope.spawn(move || {
            if let Some((_, namespace)) = join {
                join_pid_namespace(namespace.as_fd())?;
            }
            sys::spawn(&mut job).map_err(clone_failed)
        });
        let mapped = match (&draft.id_maps, &ours.sync) {
            (Some(maps), Some(sync)) => {
                userns::write_maps(maps, sync, &pid, &|| spawner.is_finished(), &mut |_| {
                    set_dumpable(false).map(|()| true)
                })
            }
            _ => Ok(()),
        };
        let spawned = spawner.join().unwrap_or_else(|_| {
            let gone = std::io::Error::other("the thread that clones has panicked");
            Err(SandboxError::parent("clone")(gone))
        });
        match (mapped, spawned) {
            (Err(error), Ok(spawned)) => {
                failure::discard(&spawned);
                Err(error)
            }
            (_, spawned) => spawned,
        }
    })
}

fn set_dumpable(dumpable: bool) -> Result<()> {
    use rustix::process::DumpableBehavior::{Dumpable, NotDumpable};
    rustix::process::set_dumpable_behavior(if dumpable { Dumpable } else { NotDumpable })
        .map_err(|errno| SandboxError::parent("make the process non-dumpable")(errno.into()))
}

fn join_pid_namespace(namespace: BorrowedFd<'_>) -> Result<()> {
    let kind = Some(rustix::thread::LinkNameSpaceType::ProcessID);
    rustix::thread::move_into_link_name_space(namespace, kind)
        .map_err(|errno| SandboxError::parent("join the pid namespace")(errno.into()))
}
