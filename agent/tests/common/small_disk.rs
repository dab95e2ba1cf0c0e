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
        match Self::mount_with(directory, point, mib, (&[], "loop")) {
            Ok(disk) => Some(disk),
            Err(why) => {
                assert!(std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none(), "{test} needs a disk: {why}");
                println!("skipped: {test} needs a small disk of its own: {why}");
                None
            }
        }
    }

    /// One that keeps limits of projects. `None` where the kernel has none, which is said.
    pub(crate) fn mount_with_projects(test: &str, directory: &Path, point: &Path, mib: u64) -> Option<Self> {
        let features = ["-O", "project,quota", "-E", "quotatype=prjquota"];
        match Self::mount_with(directory, point, mib, (&features, "loop,prjquota")) {
            Ok(disk) => Some(disk),
            Err(why) => {
                println!("skipped: {test} needs a kernel with project quotas: {why}");
                None
            }
        }
    }

    fn mount_with(
        directory: &Path,
        point: &Path,
        mib: u64,
        (features, options): (&[&str], &str),
    ) -> Result<Self, String> {
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
        let quiet = ["-q", "-F", "-m", "0"];
        let words: Vec<&Path> = quiet.iter().chain(features).map(Path::new).chain([&*file]).collect();
        done("mkfs.ext4", &words)?;
        done("mount", &["-o".as_ref(), options.as_ref(), &file, point])?;
        Ok(Self { point: point.to_owned() })
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
