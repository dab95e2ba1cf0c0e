//! A limit by project quota: the layer's directory is a project of its filesystem, and the kernel counts for it.
//!
//! The project's number is made of the directory's inode number, so nothing has to be kept: it is free when the directory
//! is gone, and whoever finds the directory after a `kill -9` reads it there.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::project;

/// What this way is called.
pub(super) const WAY: &str = "project quota";

/// Projects of celda's begin here: administrators and other engines count from small numbers.
const PROJECT_MIN: u32 = 1 << 31;
/// Projects tried for one layer: deleted files that somebody has open still count for the project of a directory that
/// had the same inode number.
const PROJECTS_TRIED_COUNT: u32 = 16;

/// Why limits of projects cannot be kept on the filesystem of `directory`.
pub(super) fn why_not(directory: BorrowedFd<'_>) -> Option<String> {
    let advice = "on ext4 `tune2fs -O project,quota -Q prjquota` while unmounted, and the mount option prjquota; on \
                  XFS the mount option prjquota";
    match project::limits_projects(directory) {
        Ok(true) => match project::project_of(directory) {
            Ok(_) => None,
            Err(error) => Some(format!("the filesystem has no projects ({error}); {advice}")),
        },
        Ok(false) => Some(format!("the filesystem keeps no limits of projects; {advice}")),
        Err(error) => Some(format!("the filesystem or the kernel keeps no quotas ({error}); {advice}")),
    }
}

/// Makes `directory`, which is new and empty, a project that may hold `limit_bytes`. Answers its number.
pub(super) fn begin(directory: BorrowedFd<'_>, limit_bytes: u64) -> io::Result<u32> {
    let inode = rustix::fs::fstat(directory)?.st_ino;
    for number in 0..PROJECTS_TRIED_COUNT {
        let candidate = project_number(inode, number);
        if project::project_use(directory, candidate)?.inodes_count == 0 {
            project::limit_project(directory, candidate, limit_bytes)?;
            project::set_project(directory, candidate)?;
            return Ok(candidate);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::QuotaExceeded,
        "files of containers that are gone are still open, and count for every project tried; try again",
    ))
}

/// The project that a layer's directory is, if it is one of celda's.
pub(super) fn project(directory: BorrowedFd<'_>) -> Option<u32> {
    project::project_of(directory).ok().filter(|project| *project >= PROJECT_MIN)
}

/// Gives the number of a layer back that is gone from the filesystem of `fd`. Where that fails, a limit stays that the
/// next layer with this number overwrites.
pub(super) fn end(fd: BorrowedFd<'_>, project: u32) {
    if let Err(error) = project::limit_project(fd, project, 0) {
        tracing::debug!(project, %error, "the limit of a project was left behind");
    }
}

/// The candidate number `number` for a directory: inode numbers are unique while the directory is there, and below 2^31
/// but on filesystems of many terabytes.
fn project_number(inode: u64, number: u32) -> u32 {
    let low = u32::try_from(inode & u64::from(PROJECT_MIN - 1)).unwrap_or(0);
    PROJECT_MIN | (low.wrapping_add(number.wrapping_mul(0x10_0001)) & (PROJECT_MIN - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn directories_that_are_there_have_projects_of_their_own() {
        assert_ne!(project_number(11, 0), project_number(12, 0));
        assert_ne!(project_number(11, 0), project_number(11, 1));
        for inode in [0, 1, u64::from(u32::MAX), u64::MAX] {
            assert!((0..PROJECTS_TRIED_COUNT).all(|number| project_number(inode, number) >= PROJECT_MIN));
        }
    }

    #[test]
    fn a_directory_of_no_project_is_none_of_ours() {
        let directory = std::fs::File::open("/proc/self").expect("opened");
        assert_eq!(project(directory.as_fd()), None);
        let why = why_not(directory.as_fd()).expect("proc keeps no quotas");
        assert!(why.contains("prjquota"), "{why}");
    }
}
