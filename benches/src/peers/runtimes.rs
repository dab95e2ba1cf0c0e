//! crun and runc over the unpacked bundle.
//!
//! crun is told to leave cgroups alone, since it refuses a hierarchy without controllers it would enable; runc makes
//! one directory in the worker's empty unified hierarchy for each container. Both spare work that an engine does.

use super::{Peer, version};
use crate::worker::{ID, Measured, WORK, Worker, argv};

pub(super) fn find(place: usize, worker: &mut Worker) -> Vec<Peer> {
    let bundle = format!("{WORK}/bundle");
    let mut peers = Vec::new();
    for (engine, flags) in [("crun", &["--cgroup-manager=disabled"][..]), ("runc", &[])] {
        let Some(version) = version(worker, &[engine, "--version"]) else { continue };
        let state = format!("/run/{engine}");
        let words = [&[engine, "--root", &state], flags, &["run", "--bundle", &bundle, ID]].concat();
        peers.push(Peer {
            name: format!("{engine} {version} ({})", worker.label),
            worker: place,
            prepare: Vec::new(),
            start: Measured { steps: vec![argv(&words)], ..Measured::default() },
            pull: None,
        });
    }
    peers
}
