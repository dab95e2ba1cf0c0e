//! The steps that a child takes between its birth and `execve`, as data.
//!
//! ```text
//! slots:  0 rootfs | 1.. opened by the parent (binds, namespaces, stdio) | .. filled by steps of the child
//! steps:  namespaces -> state reset -> mounts made -> root moved -> mounts placed -> credentials -> exec
//! ```
//!
//! A step holds everything its syscalls need, already built, so that walking the list allocates nothing.

use std::ffi::CString;
use std::fmt;

use super::seccomp::BpfInstruction;
use crate::sys::{LateStrings, Strings};

/// A place in the table of file descriptors that parent and child share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u16);

/// An absolute path of the container, cut so that it can be created piece by piece.
#[derive(Debug)]
pub(crate) struct Target {
    /// `usr`, `usr/lib`, `usr/lib/x`: each prefix, relative to the root.
    pub(crate) prefixes: Vec<CString>,
    /// `usr`, `lib`, `x`: the last component of each prefix.
    pub(crate) names: Vec<CString>,
}

/// A device node to be made.
#[derive(Debug)]
pub(crate) struct Node {
    /// Relative to the directory of devices.
    pub(crate) name: CString,
    /// Type and permission bits, as `mknod(2)` takes them.
    pub(crate) mode: u32,
    /// Device number, as `mknod(2)` takes it.
    pub(crate) device: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Capability sets, bit N for capability N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CapabilityMasks {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

impl CapabilityMasks {
    /// The sets without these capabilities.
    pub(crate) fn without(self, bits: u64) -> Self {
        Self {
            bounding: self.bounding & !bits,
            effective: self.effective & !bits,
            permitted: self.permitted & !bits,
            inheritable: self.inheritable & !bits,
            ambient: self.ambient & !bits,
        }
    }
}

/// One step of the child. Each is one to a few syscalls.
#[derive(Debug)]
pub(crate) enum Step {
    AwaitIdMap {
        ready: Slot,
        go: Slot,
        writer: Slot,
    },
    AssumeRoot,
    Join {
        kind: &'static str,
        flag: i32,
        from: Slot,
    },
    Unshare {
        flags: i32,
        what: String,
    },
    TimeOffsets(CString),
    NewSession,
    NewKeyring,
    /// Bit N - 1 for signal N.
    ResetSignals {
        which: u64,
    },
    AllProcessors,
    Nice(i32),
    PlainScheduler,
    PlainIoPriority,
    PlainPersonality,
    Umask(u32),
    OomScore {
        value: CString,
        /// As for a limit.
        is_default: bool,
    },
    Limit {
        name: &'static str,
        resource: u32,
        soft: u64,
        hard: u64,
        /// Nobody asked for it, so that it is left as it is where the kernel does not let us set it.
        is_default: bool,
    },
    LoopbackUp,
    Hostname(CString),
    Domainname(CString),
    Propagation {
        flags: u64,
        name: &'static str,
    },
    NewFilesystem {
        into: Slot,
        kind: CString,
        on: String,
        options: Vec<(CString, Option<CString>)>,
        attributes: u32,
    },
    MoveRoot {
        root: Slot,
    },
    OpenDirectory {
        into: Slot,
        at: Target,
    },
    MakeDirectory {
        within: Slot,
        name: CString,
    },
    MakeNode {
        within: Slot,
        node: Node,
    },
    MakeSymlink {
        within: Slot,
        name: CString,
        target: CString,
    },
    PlaceNode {
        mount: Slot,
        within: Slot,
        name: CString,
    },
    Place {
        mount: Slot,
        what: String,
        at: Target,
        propagation: u64,
        /// Known to be a directory: its kind need not be asked.
        is_directory: bool,
    },
    OpenNull {
        into: Slot,
        devices: Slot,
    },
    Mask {
        path: CString,
        null: Slot,
        empty: Slot,
    },
    ReadOnly {
        path: CString,
    },
    RootPropagation {
        flags: u64,
    },
    RootReadOnly,
    Sysctl {
        proc: Slot,
        path: CString,
        value: CString,
    },
    Console {
        pts: Slot,
        /// Where `/dev/console` is made; without it there is none.
        devices: Option<Slot>,
        into: Slot,
        channel: Slot,
        rows: u16,
        columns: u16,
        owner: u32,
    },
    ControllingTerminal {
        terminal: Slot,
    },
    Stdio {
        files: [Slot; 3],
        owner: Option<u32>,
    },
    /// The root of the mount namespace that was joined becomes the one that paths are resolved in.
    OpenRoot,
    /// The container's own devpts, wherever it is by now; anything else in its place is refused.
    OpenTerminals {
        into: Slot,
        at: Target,
    },
    WorkingDirectory {
        at: Target,
        /// Made where it is missing.
        is_made: bool,
    },
    Label {
        proc: Slot,
        path: CString,
        value: CString,
    },
    BoundingSet {
        keep: u64,
    },
    Identity {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    Capabilities(CapabilityMasks),
    NoNewPrivileges,
    /// `PR_SET_PDEATHSIG`: SIGKILL when the thread that started the container ends, and at once if it has ended.
    DieWithCaller {
        alive: Slot,
        writer: Slot,
    },
    Seccomp {
        program: Vec<BpfInstruction>,
    },
    /// At once, all but what later steps use: a copy of the caller's table came with the child.
    CloseOthers,
    /// At `execve`.
    CloseFiles,
    /// The steps after this one are taken twice: by the program's process, which may take the terminal on standard
    /// input as its own, and by its reaper.
    Fork {
        terminal: bool,
    },
    Execute(Execute),
}

/// The last step: the program, or a reaper with the program as its child.
#[derive(Debug)]
pub(crate) struct Execute {
    /// What to try, in this order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
    /// The helper's argv before the program's: its own name, a descriptor, the program's path.
    pub(crate) apart: LateStrings,
    /// The helper's executable: the reaper, or what executes a program apart from the runtime's memory.
    pub(crate) helper: Slot,
    /// The pipe on which the helper tells that it could not execute the program.
    pub(crate) verdict: Slot,
}

impl Step {
    /// True for the step after which the child's fate is the program's.
    pub(crate) fn is_last(&self) -> bool {
        matches!(self, Self::Execute(_))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.prefixes.last().map_or("".into(), |path| path.to_string_lossy()))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwaitIdMap { .. } => write!(f, "wait for the id maps of the user namespace"),
            Self::AssumeRoot => write!(f, "become root of the user namespace"),
            Self::Join { kind, .. } => write!(f, "join the {kind} namespace"),
            Self::Unshare { what, .. } => write!(f, "new namespaces: {what}"),
            Self::TimeOffsets(lines) => write!(f, "set clock offsets {}", lines.to_string_lossy().trim_end()),
            Self::NewSession => write!(f, "new session"),
            Self::NewKeyring => write!(f, "new session keyring"),
            Self::ResetSignals { which } => write!(f, "reset signal dispositions {which:#x}"),
            Self::AllProcessors => write!(f, "reset processor affinity"),
            Self::Nice(value) => write!(f, "set nice value {value}"),
            Self::PlainScheduler => write!(f, "reset the scheduling policy"),
            Self::PlainIoPriority => write!(f, "reset the I/O priority"),
            Self::PlainPersonality => write!(f, "reset the personality"),
            Self::Umask(mask) => write!(f, "set umask {mask:03o}"),
            Self::OomScore { value, .. } => write!(f, "set oom_score_adj {}", value.to_string_lossy()),
            Self::Limit { name, soft, hard, .. } => write!(f, "set limit {name} {soft}:{hard}"),
            Self::LoopbackUp => write!(f, "bring the loopback interface up"),
            Self::Hostname(name) => write!(f, "set hostname {}", name.to_string_lossy()),
            Self::Domainname(name) => write!(f, "set domainname {}", name.to_string_lossy()),
            Self::Sysctl { path, value, .. } => {
                write!(f, "set sysctl {} = {}", path.to_string_lossy(), value.to_string_lossy())
            }
            Self::Label { path, value, .. } => {
                write!(f, "set label {} = {}", path.to_string_lossy(), value.to_string_lossy())
            }
            Self::ControllingTerminal { .. } => write!(f, "take the terminal as controlling terminal"),
            Self::Stdio { .. } => write!(f, "set standard input, output and error"),
            Self::BoundingSet { keep } => write!(f, "bound capabilities to {keep:#x}"),
            Self::Identity { uid, gid, groups } => {
                write!(f, "set user {uid}, group {gid}, additional groups {groups:?}")
            }
            Self::Capabilities(masks) => write!(
                f,
                "set capabilities effective {:#x}, permitted {:#x}, inheritable {:#x}, ambient {:#x}",
                masks.effective, masks.permitted, masks.inheritable, masks.ambient
            ),
            Self::NoNewPrivileges => write!(f, "set no_new_privs"),
            Self::DieWithCaller { .. } => write!(f, "end with the caller"),
            Self::Seccomp { program } => {
                write!(f, "load the seccomp filter ({} instructions)", program.len())
            }
            Self::CloseOthers => write!(f, "close the caller's files"),
            Self::CloseFiles => write!(f, "close all other files at execve"),
            Self::Fork { .. } => write!(f, "fork the program off its reaper"),
            Self::Execute(execute) => write!(f, "execute {}", execute.arguments),
            mounts => mounts.fmt_mounts(f),
        }
    }
}

impl Step {
    fn fmt_mounts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propagation { name, .. } => write!(f, "make the host's mounts {name} here"),
            Self::NewFilesystem { kind, on, options, attributes, .. } => {
                write!(f, "make filesystem {} for {on} (", kind.to_string_lossy())?;
                for (key, value) in options {
                    write!(f, "{}", key.to_string_lossy())?;
                    if let Some(value) = value {
                        write!(f, "={}", value.to_string_lossy())?;
                    }
                    write!(f, ",")?;
                }
                write!(f, "attributes {attributes:#x})")
            }
            Self::MoveRoot { .. } => write!(f, "move the root filesystem in and drop the host's"),
            Self::OpenDirectory { at, .. } => write!(f, "open directory {at}"),
            Self::MakeDirectory { name, .. } => write!(f, "make directory /dev/{}", name.to_string_lossy()),
            Self::MakeNode { node, .. } => {
                write!(f, "make device /dev/{} ({:o})", node.name.to_string_lossy(), node.mode)
            }
            Self::MakeSymlink { name, target, .. } => {
                write!(f, "make symlink /dev/{} -> {}", name.to_string_lossy(), target.to_string_lossy())
            }
            Self::PlaceNode { name, .. } => {
                write!(f, "mount the host's device on /dev/{}", name.to_string_lossy())
            }
            Self::Place { what, at, .. } => write!(f, "mount {what} on {at}"),
            Self::OpenNull { .. } => write!(f, "open /dev/null for masks"),
            Self::Mask { path, .. } => write!(f, "mask /{}", path.to_string_lossy()),
            Self::ReadOnly { path } => write!(f, "make /{} read-only", path.to_string_lossy()),
            Self::RootPropagation { flags } => write!(f, "set propagation {flags:#x} of the root"),
            Self::RootReadOnly => write!(f, "make the root read-only"),
            Self::Console { rows, columns, .. } => {
                write!(f, "open a terminal of {rows} rows, {columns} columns")
            }
            Self::OpenRoot => write!(f, "open the container's root"),
            Self::OpenTerminals { at, .. } => write!(f, "open the terminals in {at}"),
            Self::WorkingDirectory { at, .. } => write!(f, "change to working directory {at}"),
            _ => Ok(()),
        }
    }
}
