//! Containers of a busybox, started for real: what they see, what they cannot reach, what is left behind.
#![allow(missing_docs)]

mod support;

use celda::sandbox::Exit;
use support::{Rootfs, run, skipped, spec};

#[test]
fn privileged_true_runs() {
    if skipped() {
        return;
    }
    let (text, exit) = run(&Rootfs::new(), &spec(&["/bin/busybox", "true"]));
    assert_eq!((text.as_str(), exit), ("", Exit::Code(0)));
}
