//! containerd through `ctr`, once for each snapshotter that this machine's containerd has.

use super::{Peer, Pull};
use crate::containerd::Containerd;
use crate::fixture::PROGRAM;
use crate::worker::{Argv, ID, Measured, Worker, argv};

fn command(words: &[&str]) -> Argv {
    argv(&[&["ctr", "--address", Containerd::SOCKET], words].concat())
}

/// The transfer service of release 2 unpacks for its default snapshotter only; for erofs the client drives the pull.
fn pull_step(snapshotter: &str, reference: &str) -> Argv {
    let local: &[&str] = if snapshotter == "erofs" { &["--local"] } else { &[] };
    command(&[&["image", "pull", "--plain-http", "--snapshotter", snapshotter], local, &[reference]].concat())
}

fn run_step(snapshotter: &str, reference: &str) -> Argv {
    command(&[
        "run",
        "--rm",
        "--seccomp",
        "--cgroup",
        "",
        "--cpu-shares",
        "0",
        "--snapshotter",
        snapshotter,
        reference,
        ID,
        PROGRAM,
    ])
}

pub(super) fn find(place: usize, worker: &mut Worker, daemon: &Containerd, small: &str) -> Vec<Peer> {
    let label = worker.label.clone();
    [("overlayfs", overlayfs as Pull), ("erofs", erofs as Pull)]
        .into_iter()
        .filter(|(snapshotter, _)| daemon.has_snapshotter(snapshotter))
        .map(|(snapshotter, pull)| Peer {
            name: format!("containerd {} {snapshotter} ({label})", daemon.version),
            worker: place,
            prepare: vec![pull_step(snapshotter, small)],
            start: Measured { steps: vec![run_step(snapshotter, small)], ..Measured::default() },
            pull: Some(pull),
        })
        .collect()
}

fn overlayfs(_place: usize, reference: &str) -> Measured {
    pull("overlayfs", reference)
}

fn erofs(_place: usize, reference: &str) -> Measured {
    pull("erofs", reference)
}

fn pull(snapshotter: &str, reference: &str) -> Measured {
    Measured {
        steps: vec![pull_step(snapshotter, reference), run_step(snapshotter, reference)],
        clean: vec![command(&["image", "rm", "--sync", reference])],
        ..Measured::default()
    }
}
