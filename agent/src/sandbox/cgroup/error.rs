//! Why a container can't be placed or limited.

use std::path::PathBuf;

/// Why a cgroup can't be found, made, limited or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// No cgroup2 file system is mounted.
    #[error(
        "find cgroup v2: {mountinfo} lists no cgroup2 mount; mount one (mount -t cgroup2 none /sys/fs/cgroup) or boot \
         with systemd.unified_cgroup_hierarchy=1"
    )]
    NotMounted {
        /// Which table was read.
        mountinfo: PathBuf,
    },
    /// A limit that cannot be kept here.
    #[error("{limit} needs the cgroup v2 controller {controller:?}, which {mount} does not offer: {why}")]
    MissingController {
        /// What was asked for, as `memory.max`.
        limit: String,
        /// Whose it is.
        controller: String,
        /// Where cgroup v2 is.
        mount: String,
        /// Who has it instead, and what to do.
        why: String,
    },
    /// A limit that version 2 has no file for, or a value out of its range.
    #[error("cgroup limit {limit}: {why}")]
    Invalid {
        /// What was asked for.
        limit: String,
        /// What is wrong.
        why: String,
    },
    /// An id that can't be a directory's name.
    #[error("container id {id:?}: {why}")]
    BadId {
        /// What was asked for.
        id: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Something runs in a group of that name.
    #[error("make the cgroup {}: it is there and in use; is a container of this id running?", path.display())]
    Exists {
        /// Which group.
        path: PathBuf,
    },
    /// The kernel limits a group's children only when no process is in the group itself.
    #[error(
        "enable the cgroup controller {controller:?} below {}: processes are in that group itself; move them into a \
         group below it, or start celda in a group of its own (systemd-run --scope -p Delegate=yes celda ...)",
        path.display()
    )]
    Occupied {
        /// Which group.
        path: PathBuf,
        /// Whose limits were asked for.
        controller: String,
    },
    /// A syscall on a file of the hierarchy failed.
    #[error("{action} {}: {source}{hint}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
        /// What to do next, with its punctuation, or nothing.
        hint: &'static str,
    },
    /// Processes outlived the wait.
    #[error("remove {}: still in use {waited_ms} ms after its processes were killed; see its cgroup.procs", path.display())]
    Busy {
        /// Which group.
        path: PathBuf,
        /// How long was waited.
        waited_ms: u64,
    },
}

impl CgroupError {
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<std::io::Error>,
    ) -> Self {
        let source = source.into();
        let hint = match source.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "; run as root, or in a cgroup that is delegated to this user"
            }
            std::io::ErrorKind::ReadOnlyFilesystem => "; the cgroup file system is mounted read-only here",
            _ => "",
        };
        Self::Io { action, path: path.into(), source, hint }
    }
}
