//! A small filesystem that a test may fill.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An ext4 over a loop device; unmounted when this is dropped.
pub(crate) struct SmallDisk {
    point: PathBuf,
}

impl SmallDisk {
    /// One of so many MiB at `point`, with its file in `directory`. `None` where the test is to be skipped.
    pub(crate) fn mount(test: &str, directory: &Path, point: &Path, mib: u64) -> Option<Self> {
        let file = directory.join("small-disk");
        std::fs::File::create(&file).and_then(|file| file.set_len(mib << 20)).expect("a file");
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let done = |program: &str, args: &[&Path]| {
            let output = Command::new(program).args(args).env("PATH", &path).output();
            output.map_err(|error| error.to_string()).and_then(|output| match output.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            })
        };
        let quiet = ["-q", "-F", "-m", "0"].map(Path::new);
        let formatted = done("mkfs.ext4", &[&quiet[..], &[&file]].concat());
        let mounted = formatted.and_then(|()| done("mount", &["-o".as_ref(), "loop".as_ref(), &file, point]));
        match mounted {
            Ok(()) => Some(Self { point: point.to_owned() }),
            Err(why) => {
                assert!(std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none(), "{test} needs a disk: {why}");
                println!("skipped: {test} needs a small disk of its own: {why}");
                None
            }
        }
    }

    /// Bytes in use and bytes that are left.
    pub(crate) fn space(point: &Path) -> (u64, u64) {
        let facts = rustix::fs::statvfs(point).expect("a filesystem");
        ((facts.f_blocks - facts.f_bfree) * facts.f_frsize, facts.f_bavail * facts.f_frsize)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.point, rustix::mount::UnmountFlags::DETACH);
    }
}
