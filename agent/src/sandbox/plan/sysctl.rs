//! Sysctls: only those that belong to a namespace of the container's own.

use std::collections::BTreeMap;

use oci_spec::runtime::Linux;

use super::builder::{Draft, text};
use super::namespaces::Namespaces;
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::step::{Slot, Step};

/// Sysctls of the ipc namespace, ipc_namespaces(7).
const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

/// Writes a step per sysctl, in order of names.
pub(super) fn plan(draft: &mut Draft, linux: &Linux, namespaces: &Namespaces, proc: Slot) -> Result<()> {
    let Some(all) = linux.sysctl() else { return Ok(()) };
    for (name, value) in all.iter().collect::<BTreeMap<_, _>>() {
        let what = format!("linux.sysctl {name}");
        let refuse = |why: &str| Err(SandboxError::invalid(what.as_str(), why));
        let path = path(name);
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return refuse("not a sysctl's name");
        }
        let dotted = path.replace('/', ".");
        let is_ipc = IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.");
        let own = match dotted.as_str() {
            _ if is_ipc => namespaces.ipc.is_own(),
            "kernel.domainname" | "kernel.hostname" => namespaces.uts.is_own(),
            other if other.starts_with("net.") => namespaces.network.is_own(),
            _ => return refuse("belongs to no namespace, so it would change the whole host; set it there"),
        };
        if !own {
            return refuse("its namespace is the host's; give the container one of its own");
        }
        let step = Step::Sysctl {
            proc,
            path: text(&what, format!("sys/{path}"))?,
            value: text(&what, value.as_str())?,
        };
        draft.step(step);
    }
    Ok(())
}

/// `net.ipv4.conf.eth0/1.forwarding` or `net/ipv4/conf/eth0.1/forwarding` to a path, by the rule of sysctl(8):
/// the first separator decides, and the other one is then part of a name.
fn path(name: &str) -> String {
    if name.find(['.', '/']).is_some_and(|first| name.as_bytes().get(first) == Some(&b'/')) {
        return name.to_owned();
    }
    let swap = |letter| match letter {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_mean_the_same_file() {
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }
}
