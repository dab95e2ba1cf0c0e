//! podman, with a store of its own and without cgroups.

use super::{Peer, version};
use crate::fixture::PROGRAM;
use crate::worker::{Argv, ID, Measured, WORK, Worker, argv};

/// Accepts images that nobody signed, as the other engines do.
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

fn command(store: &str, words: &[&str]) -> Argv {
    let root = format!("{WORK}/{store}");
    let state = format!("/run/{store}");
    let flags = [
        "--root",
        &root,
        "--runroot",
        &state,
        "--storage-driver",
        "overlay",
        "--cgroup-manager",
        "cgroupfs",
        "--events-backend",
        "none",
    ];
    argv(&[&["podman"], &flags[..], words].concat())
}

/// `podman run` without what the bundle of the plain runtimes lacks as well: no cgroup, no log, no network.
fn run(store: &str, reference: &str, more: &[&str]) -> Argv {
    let flags = [
        "run",
        "--rm",
        "--cgroups=disabled",
        "--network=none",
        "--log-driver=none",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=4096:4096",
    ];
    command(store, &[&flags[..], more, &[reference, PROGRAM]].concat())
}

pub(super) fn find(place: usize, worker: &mut Worker, small: &str) -> Option<Peer> {
    let version = version(worker, &["podman", "--version"])?;
    let policy = format!(
        "mkdir -p /etc/containers && test -e /etc/containers/policy.json || \
        {{ printf '%s' '{POLICY}' >{WORK}/policy.json; mount -t tmpfs tmpfs /etc/containers; \
        cp {WORK}/policy.json /etc/containers/; }}"
    );
    let store = format!("podman-{place}");
    Some(Peer {
        name: format!("podman {version} ({})", worker.label),
        worker: place,
        prepare: vec![
            argv(&["sh", "-c", &policy]),
            command(&store, &["pull", "-q", "--tls-verify=false", small]),
        ],
        start: Measured { steps: vec![run(&store, small, &["--pull=never"])], ..Measured::default() },
        pull: Some(pull),
    })
}

fn pull(_place: usize, reference: &str) -> Measured {
    let store = format!("pull-{ID}");
    let wipe = format!("umount -R {WORK}/{store}/overlay; rm -rf {WORK}/{store} /run/{store}");
    Measured {
        steps: vec![run(&store, reference, &["--tls-verify=false", "-q"])],
        clean: vec![argv(&["sh", "-c", &wipe])],
        ..Measured::default()
    }
}
