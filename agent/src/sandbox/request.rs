//! What a caller hands in: one container, described by an OCI runtime spec and a few file descriptors.

use std::os::fd::OwnedFd;

use oci_spec::runtime::Spec;

use super::cgroup::CgroupDir;
use super::seccomp::BpfInstruction;

/// A container to be started.
#[derive(Debug)]
pub struct Request {
    /// Its name, for messages only.
    pub id: String,
    /// OCI runtime spec 1.2. `root.path` is not looked at: the root is [`Request::rootfs`].
    pub spec: Spec,
    /// A detached mount (`fsmount(2)`, `open_tree(2)` with `OPEN_TREE_CLONE`) that becomes the container's root.
    pub rootfs: OwnedFd,
    /// Where the container's standard input, output and error go.
    pub stdio: Stdio,
    /// The cgroup that the container is born into; it is killed and removed when the container has ended.
    pub cgroup: Option<CgroupDir>,
    /// A network namespace made beforehand, joined instead of a new one; not used with a user namespace, which
    /// must own its network.
    pub network: Option<OwnedFd>,
    /// The compiled filter for `linux.seccomp`; the spec's own text is not compiled here.
    pub seccomp: Option<Vec<BpfInstruction>>,
    /// Run a small reaper as process 1 and the container's program as its child.
    pub init: bool,
    /// Kill the container when the thread that starts it ends, however it ends: for a container in the foreground of
    /// a command. Not kept with a user namespace or a joined pid namespace, which a short-lived thread clones, nor by
    /// a program that is set-user-id (prctl(2), `PR_SET_PDEATHSIG`).
    pub dies_with_caller: bool,
}

/// Where standard input, output and error go.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These three: input, output, error.
    Files([OwnedFd; 3]),
    /// New pipes, whose other ends are in [`Container::pipes`](super::Container::pipes).
    Pipes,
    /// A new terminal of the container's own devpts; its master is in
    /// [`Container::terminal`](super::Container::terminal).
    Terminal(TerminalSize),
}

/// Rows and columns of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub columns: u16,
}
