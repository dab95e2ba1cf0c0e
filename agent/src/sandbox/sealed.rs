//! Whether a container could have left anything of itself behind for the next one in the same root and network.
//!
//! A root and a network namespace are used again only when nobody can still hold a descriptor into them or have
//! changed them out of sight. A container that is *sealed* has no way to hand a descriptor out (no directory and no
//! socket that it shares with anyone), no way to be entered, and no privilege over its network.

use std::os::fd::AsFd;

use oci_spec::runtime::{LinuxNamespaceType, Mount, Spec};
use rustix::fs::FileType;

use super::caps::CapSet;
use super::request::Stdio;

/// Filesystems of the kernel's own that every container gets new ones of.
const OWN_FILESYSTEMS: [&str; 6] = ["proc", "tmpfs", "devpts", "mqueue", "sysfs", "cgroup"];

/// Whether a container of this spec, with these standard files, is sealed. `filtered`: a system call filter as strict
/// as celda's own keeps it from new namespaces, io_uring and keys.
pub fn is_sealed(spec: &Spec, stdio: &Stdio, filtered: bool) -> bool {
    filtered && has_own_namespaces(spec) && has_only_own_mounts(spec) && is_weak(spec) && !has_socket(stdio)
}

/// New namespaces of each kind that a descriptor or a signal could cross; none joined, no user namespace.
fn has_own_namespaces(spec: &Spec) -> bool {
    use LinuxNamespaceType::{Cgroup, Ipc, Mount, Network, Pid, User, Uts};
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let Some(namespaces) = namespaces else { return false };
    let is_new = |kind| namespaces.iter().any(|one| one.typ() == kind && one.path().is_none());
    [Pid, Mount, Ipc, Uts, Cgroup, Network].into_iter().all(is_new)
        && namespaces.iter().all(|one| one.typ() != User && one.path().is_none())
}

fn has_only_own_mounts(spec: &Spec) -> bool {
    let is_own = |mount: &Mount| {
        let kind = mount.typ().as_deref().unwrap_or("");
        OWN_FILESYSTEMS.contains(&kind) && !mount.options().iter().flatten().any(|o| o.ends_with("bind"))
    };
    spec.mounts().iter().flatten().all(is_own)
}

/// No capability above Docker's default, no device, no sysctl, no hook.
fn is_weak(spec: &Spec) -> bool {
    let bounding = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let Some(bounding) = bounding.and_then(|sets| sets.bounding().as_ref()) else { return false };
    let has_more = !CapSet::from_oci(bounding).without(CapSet::docker_default()).is_empty();
    let linux = spec.linux().as_ref();
    let has_device = linux.is_some_and(|linux| linux.devices().iter().flatten().next().is_some());
    let has_sysctl = linux.is_some_and(|linux| linux.sysctl().iter().flatten().next().is_some());
    !(has_more || has_device || has_sysctl || spec.hooks().is_some())
}

fn has_socket(stdio: &Stdio) -> bool {
    let is_socket = |fd: std::os::fd::BorrowedFd<'_>| {
        // What cannot be looked at is taken for the worst.
        rustix::fs::fstat(fd).map_or(true, |facts| FileType::from_raw_mode(facts.st_mode) == FileType::Socket)
    };
    match stdio {
        Stdio::Inherit => {
            let (input, output, error) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
            [input.as_fd(), output.as_fd(), error.as_fd()].into_iter().any(is_socket)
        }
        Stdio::Files(files) => files.iter().any(|file| is_socket(file.as_fd())),
        Stdio::Pipes | Stdio::Terminal(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn docker() -> Value {
        let kinds = ["pid", "mount", "ipc", "uts", "cgroup", "network"];
        json!({
            "ociVersion": "1.2.0",
            "process": { "cwd": "/", "user": { "uid": 0, "gid": 0 }, "args": ["true"],
                "capabilities": { "bounding": ["CAP_CHOWN", "CAP_MKNOD", "CAP_NET_RAW"] } },
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] }],
            "linux": { "namespaces": kinds.map(|kind| json!({ "type": kind })) },
        })
    }

    fn sealed(spec: Value) -> bool {
        let spec: Spec = serde_json::from_value(spec).expect("a spec");
        is_sealed(&spec, &Stdio::Pipes, true)
    }

    #[test]
    fn a_container_of_dockers_defaults_is_sealed() {
        assert!(sealed(docker()));
        let spec: Spec = serde_json::from_value(docker()).expect("a spec");
        assert!(!is_sealed(&spec, &Stdio::Pipes, false), "without a filter");
    }

    #[test]
    fn each_way_out_unseals() {
        let change = |what: &str, pointer: &str, value: Value| {
            let mut spec = docker();
            let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
            let parent = spec.pointer_mut(parent).expect(pointer);
            match parent {
                Value::Array(list) => list.push(value),
                parent => parent[name] = value,
            }
            assert!(!sealed(spec), "{what}");
        };
        let bind = json!({ "destination": "/data", "type": "bind", "source": "/data", "options": ["rbind"] });
        change("a directory of the host", "/mounts/-", bind);
        let bind = json!({ "destination": "/data", "type": "tmpfs", "source": "/data", "options": ["bind"] });
        change("a bind mount by its option", "/mounts/-", bind);
        change("a user namespace", "/linux/namespaces/-", json!({ "type": "user" }));
        change("a joined network", "/linux/namespaces/5/path", json!("/proc/1/ns/net"));
        change("a capability", "/process/capabilities/bounding/-", json!("CAP_NET_ADMIN"));
        change("a sysctl", "/linux/sysctl", json!({ "net.core.somaxconn": "5" }));
        change(
            "a device",
            "/linux/devices",
            json!([{ "path": "/dev/x", "type": "c", "major": 1, "minor": 3 }]),
        );
        change("no namespaces", "/linux/namespaces", json!([{ "type": "pid" }]));
        change("unknown capabilities", "/process/capabilities", Value::Null);
        change("a hook", "/hooks", json!({ "poststop": [{ "path": "/bin/true" }] }));
    }

    #[test]
    fn a_socket_as_standard_output_unseals() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        let null = || std::fs::File::open("/dev/null").expect("opened").into();
        let spec: Spec = serde_json::from_value(docker()).expect("a spec");
        assert!(!is_sealed(&spec, &Stdio::Files([null(), theirs.into(), null()]), true));
        assert!(is_sealed(&spec, &Stdio::Files([null(), null(), null()]), true));
        drop(ours);
    }
}
