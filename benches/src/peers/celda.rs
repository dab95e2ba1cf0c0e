//! celda itself.

use super::Peer;
use crate::fixture::PROGRAM;
use crate::worker::{Argv, ID, Measured, WORK, argv};

pub(crate) const NAME: &str = "celda";

fn command(root: &str, words: &[&str]) -> Argv {
    let program = format!("{WORK}/celda");
    let run = format!("{WORK}/celda-run");
    argv(&[&[program.as_str(), "--root", root, "--run", &run], words].concat())
}

pub(super) fn peer() -> Peer {
    let root = format!("{WORK}/celda-root");
    let image = format!("oci:{WORK}/image:bench");
    Peer {
        name: NAME.into(),
        worker: 0,
        prepare: vec![command(&root, &["pull", &image])],
        start: Measured {
            steps: vec![command(&root, &["run", "--rm", "--network", "none", &image, PROGRAM])],
            ..Measured::default()
        },
        pull: Some(pull),
    }
}

/// The library beneath it, as a cell that stays up uses it. Its latency ends at execve; starts per second count whole
/// lives.
pub(super) fn library() -> Peer {
    Peer {
        name: "celda library, to execve".into(),
        worker: 0,
        prepare: Vec::new(),
        start: Measured { library: true, ..Measured::default() },
        pull: None,
    }
}

fn pull(_place: usize, reference: &str) -> Measured {
    let root = format!("{WORK}/pull-{ID}");
    Measured {
        steps: vec![command(&root, &["run", "--rm", "--network", "none", reference, PROGRAM])],
        clean: vec![argv(&["rm", "-rf", &root])],
        ..Measured::default()
    }
}
