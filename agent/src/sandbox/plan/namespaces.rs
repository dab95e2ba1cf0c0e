//! Namespaces: which are new with the clone, which are joined, which the child makes itself.
//!
//! ```text
//! clone3:   user pid mount ipc uts [net]      all at once; the kernel makes `user` first
//! setns:    every namespace given by path, user first; a process namespace before the clone, since it holds
//!           for children only
//! unshare:  cgroup (its root is the cgroup the child was born into), time (takes effect at execve)
//! ```

use std::fmt::Write as _;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType, Spec};

use super::builder::{Draft, Open, text};
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::step::Step;

/// `CLONE_NEW*` of linux/sched.h.
pub(crate) mod flag {
    pub(crate) const TIME: u64 = 0x80;
    pub(super) const MOUNT: u64 = 0x2_0000;
    pub(super) const CGROUP: u64 = 0x200_0000;
    pub(super) const UTS: u64 = 0x400_0000;
    pub(super) const IPC: u64 = 0x800_0000;
    pub(crate) const USER: u64 = 0x1000_0000;
    pub(crate) const PID: u64 = 0x2000_0000;
    pub(super) const NET: u64 = 0x4000_0000;
}

/// Ranges that a user namespace's map may have: the kernel's own bound, user_namespaces(7).
const ID_RANGES_COUNT_MAX: usize = 340;

/// True when the spec asks for a user namespace of the container's own, new or joined.
pub(crate) fn has_own_user(spec: &Spec) -> bool {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    all.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// What the rest of the plan needs to know about a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// The caller's own.
    #[default]
    Shared,
    New,
    Joined,
}

impl State {
    /// True when changing it does not change the host.
    pub(crate) fn is_own(self) -> bool {
        self != Self::Shared
    }
}

/// The container's namespaces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Namespaces {
    pub(crate) user: State,
    pub(crate) pid: State,
    pub(crate) network: State,
    pub(crate) ipc: State,
    pub(crate) uts: State,
    pub(crate) cgroup: State,
    pub(crate) time: State,
    mount: State,
}

/// The namespaces that a running container has for its own, and their `CLONE_NEW*` bits for setns(2).
pub(crate) fn of_running(linux: &Linux) -> (Namespaces, u64) {
    let mut all = Namespaces::default();
    let mut bits = flag::MOUNT;
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        *all.state(kind) = if namespace.path().is_some() { State::Joined } else { State::New };
        bits |= describe(kind).0;
    }
    (all, bits)
}

fn describe(kind: LinuxNamespaceType) -> (u64, &'static str) {
    match kind {
        LinuxNamespaceType::Mount => (flag::MOUNT, "mount"),
        LinuxNamespaceType::Cgroup => (flag::CGROUP, "cgroup"),
        LinuxNamespaceType::Uts => (flag::UTS, "uts"),
        LinuxNamespaceType::Ipc => (flag::IPC, "ipc"),
        LinuxNamespaceType::User => (flag::USER, "user"),
        LinuxNamespaceType::Pid => (flag::PID, "pid"),
        LinuxNamespaceType::Network => (flag::NET, "network"),
        LinuxNamespaceType::Time => (flag::TIME, "time"),
    }
}

impl Namespaces {
    fn state(&mut self, kind: LinuxNamespaceType) -> &mut State {
        match kind {
            LinuxNamespaceType::Mount => &mut self.mount,
            LinuxNamespaceType::Cgroup => &mut self.cgroup,
            LinuxNamespaceType::Uts => &mut self.uts,
            LinuxNamespaceType::Ipc => &mut self.ipc,
            LinuxNamespaceType::User => &mut self.user,
            LinuxNamespaceType::Pid => &mut self.pid,
            LinuxNamespaceType::Network => &mut self.network,
            LinuxNamespaceType::Time => &mut self.time,
        }
    }
}

/// Writes the steps that put the child into its namespaces. `network` is true when one was made beforehand.
pub(super) fn plan(draft: &mut Draft, spec: &Spec, network: bool) -> Result<Namespaces> {
    let mut all = Namespaces::default();
    let Some(linux) = spec.linux() else {
        return Err(SandboxError::invalid(
            "linux",
            "the spec has no `linux` part; it is not for this system",
        ));
    };
    let mut joins = Vec::new();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        let (bit, name) = describe(kind);
        let state = all.state(kind);
        if *state != State::Shared {
            return Err(SandboxError::invalid("linux.namespaces", format!("{name} is named twice")));
        }
        match namespace.path() {
            Some(path) => {
                *state = State::Joined;
                joins.push((kind, bit, name, path.clone()));
            }
            None => *state = State::New,
        }
    }
    refuse_contradictions(&all, spec)?;
    if all.user == State::New {
        plan_user(draft, linux)?;
    }
    // The user namespace first: it gives the right to join the others.
    joins.sort_by_key(|(kind, ..)| *kind != LinuxNamespaceType::User);
    for (kind, bit, name, path) in joins {
        let from = draft.open(Open::Namespace(path));
        if kind == LinuxNamespaceType::Pid {
            draft.join_pid = Some(from);
        } else {
            draft.step(Step::Join { kind: name, flag: bit as i32, from });
        }
    }
    plan_new(draft, &all, linux, network)?;
    Ok(all)
}

fn refuse_contradictions(all: &Namespaces, spec: &Spec) -> Result<()> {
    if all.mount != State::New {
        let why = "a container needs a new mount namespace; add {\"type\": \"mount\"} without a path";
        return Err(SandboxError::unsupported("linux.namespaces", why));
    }
    if all.user == State::Joined && all.pid == State::New {
        let why = "a joined user namespace needs a joined pid namespace as well";
        return Err(SandboxError::unsupported("linux.namespaces", why));
    }
    let names = spec.hostname().is_some() || spec.domainname().is_some();
    if names && !all.uts.is_own() {
        let why = "needs a uts namespace of the container's own; it would change the host's name";
        return Err(SandboxError::invalid("hostname", why));
    }
    Ok(())
}

fn plan_new(draft: &mut Draft, all: &Namespaces, linux: &Linux, network: bool) -> Result<()> {
    // One that was made beforehand belongs to the caller's user namespace, and could not be joined from another.
    let network = network && all.network == State::New && all.user == State::Shared;
    let bits = [
        (all.user, flag::USER),
        (all.pid, flag::PID),
        (all.mount, flag::MOUNT),
        (all.ipc, flag::IPC),
        (all.uts, flag::UTS),
        (if network { State::Joined } else { all.network }, flag::NET),
    ];
    let new = bits.iter().filter(|(state, _)| *state == State::New).fold(0, |sum, (_, bit)| sum | bit);
    if network {
        let from = draft.open(Open::Network);
        draft.step(Step::Join { kind: "network", flag: flag::NET as i32, from });
    }
    let mut late = [(all.cgroup, flag::CGROUP), (all.time, flag::TIME)]
        .iter()
        .filter(|(state, _)| *state == State::New)
        .fold(0, |sum, (_, bit)| sum | bit);
    if all.user == State::Joined {
        late |= new; // made by the child, so that the joined user namespace owns them
    } else {
        draft.namespaces = new;
    }
    if late != 0 {
        draft.step(Step::Unshare { flags: late as i32, what: names(late) });
    }
    plan_time(draft, all, linux)?;
    if new & flag::NET != 0 {
        draft.step(Step::LoopbackUp);
    }
    Ok(())
}

fn names(bits: u64) -> String {
    let known = [
        (flag::MOUNT, "mount"),
        (flag::IPC, "ipc"),
        (flag::UTS, "uts"),
        (flag::NET, "network"),
        (flag::CGROUP, "cgroup"),
        (flag::TIME, "time"),
        (flag::PID, "pid"),
        (flag::USER, "user"),
    ];
    let names: Vec<&str> = known.iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| *name).collect();
    names.join(", ")
}

/// The clone's namespaces, for the printed plan.
pub(super) fn clone_names(draft: &Draft) -> String {
    names(draft.namespaces)
}

fn plan_time(draft: &mut Draft, all: &Namespaces, linux: &Linux) -> Result<()> {
    let Some(offsets) = linux.time_offsets().as_ref().filter(|offsets| !offsets.is_empty()) else {
        return Ok(());
    };
    if all.time != State::New {
        return Err(SandboxError::invalid("linux.timeOffsets", "needs a new time namespace"));
    }
    let mut lines = String::new();
    for (clock, offset) in offsets {
        if clock != "monotonic" && clock != "boottime" {
            return Err(SandboxError::invalid("linux.timeOffsets", format!("no clock is named {clock}")));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        let _ = writeln!(lines, "{clock} {seconds} {nanoseconds}"); // writing to a String cannot fail
    }
    draft.step(Step::TimeOffsets(text("linux.timeOffsets", lines)?));
    Ok(())
}

fn plan_user(draft: &mut Draft, linux: &Linux) -> Result<()> {
    let (uids, gids) = (linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref());
    for (what, ranges) in [("linux.uidMappings", uids), ("linux.gidMappings", gids)] {
        if !maps(ranges.unwrap_or_default(), 0) {
            let why = "a new user namespace needs a range that contains the container's id 0";
            return Err(SandboxError::invalid(what, why));
        }
    }
    let uid = id_map("linux.uidMappings", uids.unwrap_or_default())?;
    let gid = id_map("linux.gidMappings", gids.unwrap_or_default())?;
    draft.id_maps = Some([uid, gid]);
    let (ready, go) = (draft.open(Open::Ready), draft.open(Open::Go));
    let writer = draft.open(Open::GoWriter);
    draft.step(Step::AwaitIdMap { ready, go, writer });
    draft.step(Step::AssumeRoot);
    Ok(())
}

/// A map as `/proc/PID/uid_map` takes it; the kernel refuses ranges that overlap.
pub(crate) fn id_map(what: &str, ranges: &[LinuxIdMapping]) -> Result<String> {
    let refuse = |why: String| Err(SandboxError::invalid(what, why));
    if ranges.len() > ID_RANGES_COUNT_MAX {
        return refuse(format!("more than {ID_RANGES_COUNT_MAX} ranges"));
    }
    if ranges.is_empty() {
        return refuse("no range".to_owned());
    }
    let mut lines = String::new();
    for range in ranges {
        let (inside, outside, size) = (range.container_id(), range.host_id(), range.size());
        let whole = size > 0 && inside.checked_add(size).is_some() && outside.checked_add(size).is_some();
        if !whole {
            return refuse(format!("range {inside} {outside} {size} is empty or runs past the last id"));
        }
        let _ = writeln!(lines, "{inside} {outside} {size}"); // writing to a String cannot fail
    }
    Ok(lines)
}

/// True when an id of the container is in one of the ranges.
pub(super) fn maps(ranges: &[LinuxIdMapping], id: u32) -> bool {
    ranges.iter().any(|range| id >= range.container_id() && id - range.container_id() < range.size())
}
